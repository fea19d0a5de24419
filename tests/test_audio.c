/* test_audio.c - models/audio.mb on a made-up mu-law signal: its logits and its code, pinned for
 * ever, bit for bit; there and back with every instruction set. The first alone, under an emulator
 * say: test_audio pinned. From the repository's root. */
#include "test.h"

enum { N = 128 };
static uint8_t samples[N];
static megabyte_model *model;

static uint64_t fnv(uint64_t hash, const void *data, size_t n) { /* FNV-1a */
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++) hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}
#define FNV_BASIS 0xcbf29ce484222325u

/* Mu-law of two triangular waves and noise. */
static void make_signal(void) {
    seed_random(1);
    for (int i = 0; i < N; i++) {
        int a = abs(i * 37 % 160 - 80) - 40, b = abs(i * 11 % 90 - 45) - 22;
        int x = 40 * a + 30 * b + (int)random_below(200), size = abs(x) + 132, e = 7;
        while (size >> (e + 7) == 0) e--;
        samples[i] = (uint8_t) ~((x < 0) << 7 | e << 4 | (size >> (e + 3) & 15));
    }
}

static void set_up(void) {
    megabyte_error error;
    make_signal();
    CHECK(!megabyte_model_open(&model, "models/audio.mb", NULL, &error), "%s", error.text);
}

static void pinned(void) {
    static float logits[N * 256];
    static uint8_t coded[2 * N + 64], back[N];
    megabyte_stream *stream;
    double bits = 0;
    size_t n, n_back;
    CHECK(fnv(FNV_BASIS, samples, N) == 0x30efcc66368c765cu, "the signal: %016llx",
          (unsigned long long)fnv(FNV_BASIS, samples, N));
    OK(megabyte_stream_create(&stream, model, NULL, NULL, NULL));
    OK(megabyte_stream_score(stream, samples, N, &bits, logits));
    megabyte_stream_free(stream);
    uint64_t hash = FNV_BASIS;
    for (size_t i = 0; i < N * 256; i++) {
        uint32_t u;
        memcpy(&u, &logits[i], 4);
        for (int k = 0; k < 32; k += 8) hash = fnv(hash, &(uint8_t){(uint8_t)(u >> k)}, 1);
    }
    CHECK(hash == 0xcc69e28794fc8519u, "logits: %016llx", (unsigned long long)hash);
    static const struct {
        megabyte_codec_options options;
        uint64_t hash;
    } row[] = {{{.level = 5}, 0x611eab67edda8d69u},
               {{.level = 7, .mixing_memory = 1, .contents = MEGABYTE_CONTENTS_MULAW},
                0x28b351aae1e32c6fu}};
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        OK(megabyte_compress(model, &row[i].options, samples, N, coded, sizeof coded, &n, NULL,
                             NULL));
        CHECK((double)n < bits / 8 + 30 && fnv(FNV_BASIS, coded, n) == row[i].hash,
              "%zu bytes: %016llx", n, (unsigned long long)fnv(FNV_BASIS, coded, n));
        OK(megabyte_decompress(model, NULL, coded, n, back, N, &n_back, NULL, NULL));
        CHECK(n_back == N && !memcmp(back, samples, N));
    }
}

/* Mixed with contexts: the same file from every instruction set, and not larger. */
static void mixed(void) {
    static uint8_t coded[2][N + 64], back[N];
    size_t n[2], n_back, alone;
    const megabyte_codec_options o5 = {.level = 5};
    OK(megabyte_compress(model, &o5, samples, N, coded[0], sizeof coded[0], &alone, NULL, NULL));
    for (int isa = MEGABYTE_ISA_PLAIN; isa <= MEGABYTE_ISA_NEON_I8MM; isa++) {
        megabyte_engine *engine;
        int is_first = isa == MEGABYTE_ISA_PLAIN;
        if (!megabyte_isa_available((megabyte_isa)isa)) continue;
        const megabyte_engine_options e = {.isa = (megabyte_isa)isa};
        OK(megabyte_engine_create(&engine, model, &e, NULL, NULL));
        const megabyte_codec_options o = {.engine = engine};
        OK(megabyte_compress(model, &o, samples, N, coded[!is_first], sizeof coded[0],
                             &n[!is_first], NULL, NULL));
        CHECK(is_first || (n[0] == n[1] && !memcmp(coded[0], coded[1], n[0])), "%s",
              megabyte_isa_name((megabyte_isa)isa));
        OK(megabyte_decompress(model, &o, coded[0], n[0], back, N, &n_back, NULL, NULL));
        CHECK(n_back == N && !memcmp(back, samples, N));
        megabyte_engine_free(engine);
    }
    CHECK(n[0] <= alone + alone / 50, "%zu bytes mixed, %zu by the model alone", n[0], alone);
}

/* Silence at a block's beginning, where the model gains nothing, and speech then. */
static void silence_first(void) {
    enum { SILENCE = 17000, SPEECH = 6000, ALL = SILENCE + SPEECH };
    static uint8_t bytes[ALL], coded[ALL + 100];
    megabyte_file_header header;
    size_t n, size;
    uint8_t *wav = read_file("models/audio-1.wav", &size);
    memset(bytes, 255, SILENCE);
    CHECK(size > 58 + SPEECH);
    memcpy(bytes + SILENCE, wav + 58, SPEECH);
    free(wav);
    OK(megabyte_compress(model, NULL, bytes, ALL, coded, sizeof coded, &n, NULL, NULL));
    OK(megabyte_file_header_read(coded, n, &header, NULL));
    CHECK(header.single && header.method == MEGABYTE_METHOD_MIXED, "method %d", header.method);
    CHECK(n < SPEECH * 5 / 8, "%zu bytes", n);
}

int main(int argc, char **argv) {
    GROUP(set_up);
    GROUP(pinned);
    if (argc < 2 || strcmp(argv[1], "pinned")) {
        GROUP(mixed);
        GROUP(silence_first);
    }
    megabyte_model_close(model);
    return 0;
}
