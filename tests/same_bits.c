/* same_bits.c - one number for all logits of a fixed set of operations on a model: the same from
 * every build.
 *
 *     same_bits [--isa NAME] [--threads N] [--batch N] [--chunk N] [--beside N] [--ftz] [--round]
 *               TEXT MODEL.mb...
 *
 * --chunk: bytes per call; --beside: other streams stepped in the same batch; --ftz, --round: the
 * caller's floating-point environment. Prints "HASH MODEL" for each, "HASH MODEL compressed" of
 * what messages and files compress to, by the network, by contexts and mixed, which must decode
 * again, and "HASH MODEL ensembles" of what files do by ensembles of two and four streams. Linear
 * samples, which need no model, are compared with their own number. Exits with 3 if this build or
 * CPU lacks the instruction set. */
#include "test.h"

#include <fenv.h>
/* tcc has no intrinsics; its code uses the same register */
#if (defined(__x86_64__) || (defined(__i386__) && defined(__SSE__))) && !defined(__TINYC__)
#define HAS_MXCSR 1
#include <xmmintrin.h>
#endif

enum { SCORED = 600, STEPPED = 100, SLID = 300, SAMPLED = 64, MAX_BESIDE = 63 };

static uint64_t hash;

static void hash_bytes(const uint8_t *p, size_t n) { /* FNV-1a */
    for (size_t i = 0; i < n; i++) hash = (hash ^ p[i]) * 0x100000001b3u;
}

static void hash_floats(const float *x, size_t n) { /* as little-endian bytes */
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        uint8_t bytes[4] = {(uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16),
                            (uint8_t)(bits >> 24)};
        hash_bytes(bytes, 4);
    }
}

static void set_environment(int ftz, int round) {
#ifdef FE_UPWARD /* WebAssembly has none */
    if (round) fesetround(FE_UPWARD); /* of libm and, on x86, of SSE too */
#else
    (void)round;
#endif
    if (!ftz) return;
#if HAS_MXCSR
    _mm_setcsr(_mm_getcsr() | 0x8040);
#elif defined(__aarch64__)
    uint64_t word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    __asm__ volatile("msr fpcr, %0" : : "r"(word | 1u << 24) : "memory");
#endif
}

/* Scores n bytes in calls of `chunk`, and hashes the rows and what is predicted at the end. */
static void score(megabyte_stream *s, const uint8_t *text, size_t n, size_t chunk, size_t v) {
    float *rows = need(n * v, sizeof *rows);
    double bits = 0;
    for (size_t at = 0; at < n; at += chunk)
        OK(megabyte_stream_score(s, text + at, n - at < chunk ? n - at : chunk, &bits,
                                 rows + at * v));
    hash_floats(rows, n * v);
    hash_floats(megabyte_stream_logits(s), v);
    free(rows);
}

/* Compresses in pieces of `chunk` bytes at most; the file must decode again. Counts its blocks by
 * method. */
static void compress_file(const megabyte_model *model, const megabyte_codec_options *o,
                          const uint8_t *bytes, size_t size, size_t chunk,
                          uint64_t blocks[MEGABYTE_METHOD_COUNT]) {
    uint8_t *packed = need(2 * size + 200, 1), *back = need(size, 1);
    size_t room = 2 * size + 200, n = 0, at = 0, taken, given = 1, got;
    megabyte_codec *c;
    OK(megabyte_codec_create(&c, model, MEGABYTE_MODE_COMPRESS, o, NULL, NULL));
    while (at < size || given) {
        size_t some = size - at < chunk ? size - at : chunk;
        if (some) {
            OK(megabyte_codec_push(c, bytes + at, some, &taken));
            at += taken;
        }
        if (at == size) OK(megabyte_codec_finish(c));
        OK(megabyte_codec_pull(c, packed + n, room - n < chunk ? room - n : chunk, &given));
        n += given;
    }
    megabyte_statistics counts;
    megabyte_codec_statistics(c, &counts);
    for (int method = 0; method < MEGABYTE_METHOD_COUNT; method++)
        blocks[method] += counts.blocks[method];
    megabyte_codec_free(c);
    hash_bytes(packed, n);
    CHECK(!megabyte_decompress(model, o, packed, n, back, size, &got, NULL, NULL) && got == size &&
              !memcmp(back, bytes, size),
          "a file of %zu bytes does not decode", n);
    free(packed), free(back);
}

/* A model that ends its text goes on with a zero. */
static void draw(const megabyte_stream *s, megabyte_sampling *how, uint8_t *byte) {
    megabyte_status status = megabyte_stream_sample(s, how, byte);
    CHECK(status == MEGABYTE_OK || status == MEGABYTE_END, "%d", status);
    if (status == MEGABYTE_END) *byte = 0;
}

/* The model's own text, cool enough to become smaller. */
static void write_text(const megabyte_model *model, megabyte_engine *engine, uint8_t *text,
                       size_t n) {
    megabyte_sampling how = {.temperature = 0.3f, .seed = 3};
    megabyte_stream *author = new_stream(model, engine, 0);
    for (size_t i = 0; i < n; i++) {
        draw(author, &how, &text[i]);
        OK(megabyte_stream_step(author, text[i]));
    }
    megabyte_stream_free(author);
}

/* Messages and files of blocks of every method; `beside`: streams decoded side by side. */
static void compress(const megabyte_model *model, megabyte_engine *engine, size_t chunk,
                     size_t beside) {
    enum { BLOCK = 110, SIZE = 360, REPEATED = 1000 };
    uint8_t text[290], bytes[SIZE], repeated[REPEATED], packed[SIZE + 200], back[SIZE];
    size_t n, got, lengths[] = {0, 1, 40, 90};
    uint64_t blocks[MEGABYTE_METHOD_COUNT] = {0};
    write_text(model, engine, text, sizeof text);
    megabyte_stream *from = new_stream(model, engine, 0), *to = new_stream(model, engine, 0);
    hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        OK(megabyte_stream_encode(from, text + i, lengths[i], packed, sizeof packed, &n));
        hash_bytes(packed, n);
        OK(megabyte_stream_decode(to, packed, n, back, sizeof back, &got));
        CHECK(got == lengths[i] && !memcmp(back, text + i, got), "a message of %zu", lengths[i]);
    }
    megabyte_stream_free(from);
    megabyte_stream_free(to);
    memcpy(bytes, text, 2 * BLOCK);
    memset(bytes + 2 * BLOCK, 'x', BLOCK);
    for (size_t i = 3 * BLOCK; i < SIZE; i++) bytes[i] = (uint8_t)((i * i + 7) * 2654435761u >> 13);
    megabyte_codec_options o = {.engine = engine,
                                .level = 5,
                                .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING,
                                .block_size = BLOCK,
                                .context_shift = 1,
                                .dictionary = text + 220,
                                .dictionary_size = 70,
                                .streams = (uint32_t)beside % 8 + 1,
                                .verify = beside > 0};
    compress_file(model, &o, bytes, SIZE, chunk, blocks);
    for (size_t i = 0; i < REPEATED; i++)
        repeated[i] = i % 450 < 300 ? bytes[i % 250] : text[i % 287];
    megabyte_codec_options plain = {
        .engine = engine, .mixing_memory = 1, .level = 1, .streams = o.streams, .verify = o.verify};
    compress_file(model, &plain, repeated, REPEATED, chunk, blocks);
    plain.contents = MEGABYTE_CONTENTS_MULAW;
    compress_file(model, &plain, repeated, REPEATED, chunk, blocks);
    plain.contents = MEGABYTE_CONTENTS_GENERAL;
    plain.level = 6, plain.block_size = BLOCK, plain.context_shift = 1, plain.size = SIZE;
    compress_file(model, &plain, bytes, SIZE, chunk, blocks);
    for (int method = 0; method < MEGABYTE_METHOD_COUNT; method++)
        CHECK(blocks[method], "no block of method %d", method);

    o.level = 6,
    o.mixing_memory = 1; /* primed messages, from one direction's codec to the other's */
    megabyte_codec *sender, *receiver;
    OK(megabyte_codec_create(&sender, model, MEGABYTE_MODE_MESSAGES, &o, NULL, NULL));
    OK(megabyte_codec_create(&receiver, model, MEGABYTE_MODE_MESSAGES, &o, NULL, NULL));
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        OK(megabyte_codec_encode(sender, text + 5 * i, lengths[i], packed, sizeof packed, &n));
        hash_bytes(packed, n);
        OK(megabyte_codec_decode(receiver, packed, n, back, sizeof back, &got));
        CHECK(got == lengths[i] && !memcmp(back, text + 5 * i, got), "a codec's message of %zu",
              lengths[i]);
    }
    megabyte_codec_free(sender);
    megabyte_codec_free(receiver);
}

static void compress_by_ensembles(const megabyte_model *model, megabyte_engine *engine,
                                  size_t chunk) {
    uint8_t text[70];
    uint64_t blocks[MEGABYTE_METHOD_COUNT] = {0};
    megabyte_codec_options o = {
        .engine = engine, .level = 7, .mixing_memory = 1, .block_size = 50, .ensemble = 2};
    write_text(model, engine, text, sizeof text);
    hash = 0xcbf29ce484222325u;
    compress_file(model, &o, text, sizeof text, chunk, blocks);
    CHECK(blocks[MEGABYTE_METHOD_MIXED], "no block is mixed");
    blocks[MEGABYTE_METHOD_MIXED] = 0;
    o.ensemble = 4, o.contents = MEGABYTE_CONTENTS_MULAW;
    compress_file(model, &o, text, 50, chunk, blocks);
    CHECK(blocks[MEGABYTE_METHOD_MIXED], "sound is not mixed");
}

/* Linear samples, for which no model is needed: two voices that ring, silence, full scale. */
static void linear_samples(megabyte_isa isa, size_t chunk) {
    enum { SAMPLES = 3000 };
    const uint64_t right = 0x0178ead5542aaf54;
    uint64_t blocks[MEGABYTE_METHOD_COUNT] = {0}, outer = hash;
    uint8_t bytes[2 * SAMPLES];
    int32_t x = 9000, y = 0;
    for (uint32_t i = 0; i < SAMPLES; i++) {
        x -= y / (4 + (int32_t)i % 2), y += x / (4 + (int32_t)i % 2);
        if (i % 300 == 0) x = 9000, y /= 2;
        int32_t s = x + (int32_t)((i * i + 7) * 2654435761u >> 26);
        if (i % 900 > 800) s = i % 4 < 2 ? 0 : i % 900 > 850 ? 32767 : 0;
        bytes[2 * i] = (uint8_t)s;
        bytes[2 * i + 1] = (uint8_t)((uint32_t)s >> 8);
    }
    megabyte_codec_options o = {.isa = isa,
                                .level = 1,
                                .mixing_memory = 1,
                                .block_size = 5000,
                                .contents = MEGABYTE_CONTENTS_PCM16,
                                .channels = 2};
    hash = 0xcbf29ce484222325u;
    compress_file(NULL, &o, bytes, sizeof bytes, chunk, blocks);
    o.contents = MEGABYTE_CONTENTS_PCM24_BIG, o.channels = 1;
    compress_file(NULL, &o, bytes, 2000, chunk, blocks);
    CHECK(hash == right, "linear samples: 0x%016llx", (unsigned long long)hash);
    hash = outer;
}

int main(int argc, char **argv) {
    const char *isa_name = NULL, *text_path = NULL;
    size_t threads = 1, batch = 0, chunk = SCORED, beside = 0, size;
    int ftz = 0, round = 0, at = 1;
    megabyte_isa isa = MEGABYTE_ISA_AUTO;
    for (; at < argc && argv[at][0] == '-'; at++) {
        size_t *number = !strcmp(argv[at], "--threads")  ? &threads
                         : !strcmp(argv[at], "--batch")  ? &batch
                         : !strcmp(argv[at], "--chunk")  ? &chunk
                         : !strcmp(argv[at], "--beside") ? &beside
                                                         : NULL;
        if (!strcmp(argv[at], "--ftz")) ftz = 1;
        else if (!strcmp(argv[at], "--round")) round = 1;
        else if (!strcmp(argv[at], "--isa") && at + 1 < argc) isa_name = argv[++at];
        else if (number && at + 1 < argc) *number = (size_t)strtoul(argv[++at], NULL, 10);
        else return fprintf(stderr, "same_bits: unknown option %s\n", argv[at]), 2;
    }
    if (at < argc) text_path = argv[at++];
    if (at >= argc || !chunk || beside > MAX_BESIDE)
        return fprintf(stderr, "usage: see tests/same_bits.c\n"), 2;
    if (isa_name) {
        for (int i = 1; strcmp(megabyte_isa_name((megabyte_isa)i), "?"); i++)
            if (!strcmp(isa_name, megabyte_isa_name((megabyte_isa)i))) isa = (megabyte_isa)i;
        if (isa == MEGABYTE_ISA_AUTO || !megabyte_isa_available(isa)) return 3;
    }
    uint8_t *text = read_file(text_path, &size), byte;
    CHECK(size >= SCORED + STEPPED + SLID + MAX_BESIDE, "%s is too short", text_path);
    set_environment(ftz, round);
    OK(megabyte_self_test(isa));
    linear_samples(isa, chunk);
    for (; at < argc; at++) {
        megabyte_model *model = open_model(argv[at]);
        megabyte_info info = describe(model);
        megabyte_engine *engine = new_engine(model, (uint32_t)threads, (uint32_t)batch, isa);
        size_t v = info.vocabulary, n;
        CHECK(v >= 256, "%s: a vocabulary of %zu", argv[at], v);
        hash = 0xcbf29ce484222325u;
        megabyte_stream *together[MAX_BESIDE + 1];
        uint8_t next[MAX_BESIDE + 1];
        for (n = 0; n <= beside; n++) together[n] = new_stream(model, engine, 0);
        for (n = 1; n <= beside; n++) OK(megabyte_stream_feed(together[n], text, n));
        score(together[0], text, SCORED, chunk, v);
        for (size_t i = 0; i < STEPPED; i++) {
            for (n = 0; n <= beside; n++) next[n] = text[SCORED + i + n];
            OK(megabyte_stream_step_batch(together, next, beside + 1));
            hash_floats(megabyte_stream_logits(together[0]), v);
        }
        megabyte_sampling how = {.temperature = 0.8f,
                                 .top_p = 0.95f,
                                 .top_k = 60,
                                 .repetition_penalty = 1.1f,
                                 .seed = 7};
        for (size_t i = 0; i < SAMPLED; i++) {
            draw(together[0], &how, &byte);
            OK(megabyte_stream_step(together[0], byte));
            hash_bytes(&byte, 1);
        }
        float *p = need(v, sizeof *p);
        megabyte_stream_probabilities(together[0], p);
        hash_floats(p, v);
        free(p);
        for (n = 0; n <= beside; n++) megabyte_stream_free(together[n]);
        uint64_t patches = info.stage[0].positions < 12 ? info.stage[0].positions : 12;
        megabyte_stream *sliding = new_stream(model, engine, patches * info.patch_bytes);
        score(sliding, text + SCORED, SLID, chunk, v);
        megabyte_stream_free(sliding);
        printf("%016llx %s\n", (unsigned long long)hash, argv[at]);
        compress(model, engine, chunk, beside);
        printf("%016llx %s compressed\n", (unsigned long long)hash, argv[at]);
        compress_by_ensembles(model, engine, chunk);
        printf("%016llx %s ensembles\n", (unsigned long long)hash, argv[at]);
        megabyte_engine_free(engine);
        megabyte_model_close(model);
    }
    free(text);
    return 0;
}
