/* fuzz_sizes.c - random models of all families, whatever check_sizes lets through, with random and
 * with wild weights: every instruction set, batch, number of threads and way of cutting bytes into
 * calls (steps, rewinds, copies, saved streams) must give the bits of the plainest run: plain C,
 * one thread, one token at a time. By hand:
 *
 *     clang -g -O1 -fsanitize=address,undefined tests/fuzz_sizes.c -o fuzz_sizes -lm -pthread
 *     ./fuzz_sizes [COUNT [FIRST_SEED]]          (a failure tells its seed: ./fuzz_sizes 1 SEED)
 *
 * The number printed in the end is made of all logits: every build must print the same. */
#include "../megabyte.c"
#include "any_model.h"

#define MUST(condition)                                                              \
    do {                                                                             \
        if (!(condition)) {                                                          \
            fprintf(stderr, "seed %llu, line %d: %s\n", seed, __LINE__, #condition); \
            abort();                                                                 \
        }                                                                            \
    } while (0)

static unsigned long long seed;
static u64 print = 14695981039346656037ULL;
enum { MOST_BYTES = 300, BESIDE = 3 };
static megabyte_model *model;
static u32 vocabulary;
static u8 text[MOST_BYTES];
static u32 length;
static float *expected, expected_each[MOST_BYTES]; /* [length + 1, V]; [length] */

static megabyte_engine *new_engine(u32 threads, u32 batch, megabyte_isa isa) {
    megabyte_engine_options o = {.threads = threads, .batch = batch, .isa = isa};
    megabyte_engine *e;
    MUST(!megabyte_engine_create(&e, model, &o, NULL, NULL));
    return e;
}

static void check(const megabyte_stream *s) {
    u64 at = megabyte_stream_position(s);
    MUST(!memcmp(megabyte_stream_logits(s), expected + at * vocabulary,
                 vocabulary * sizeof *expected));
}

/* Any operations on some streams of two engines. */
static void operate(megabyte_engine *const engine[2], const megabyte_stream_options *with) {
    megabyte_stream *s[2 * BESIDE];
    float *logits = (float *)malloc(MOST_BYTES * vocabulary * sizeof *logits), each[MOST_BYTES];
    for (u32 i = 0; i < 2 * BESIDE; i++) {
        megabyte_stream_options o = *with;
        o.engine = engine[i / BESIDE];
        MUST(!megabyte_stream_create(&s[i], model, &o, NULL, NULL));
        check(s[i]);
    }
    for (u32 turn = 0; turn < 40; turn++) {
        u32 i = below(2 * BESIDE), j = below(2 * BESIDE), at = (u32)megabyte_stream_position(s[i]);
        u32 n = below(3) ? min32(below(20), length - at) : below(length - at + 1),
            steps = below(12);
        double bits = 0;
        switch (below(9)) {
        case 0:
        case 1: MUST(!megabyte_stream_feed(s[i], text + at, n)); break;
        case 2:
            MUST(!megabyte_stream_score(s[i], text + at, n, &bits, logits));
            MUST(!n || !memcmp(logits, expected + (u64)at * vocabulary,
                               (u64)n * vocabulary * sizeof *logits));
            break;
        case 3:
            MUST(!megabyte_stream_score_bytes(s[i], text + at, n, each));
            MUST(!memcmp(each, expected_each + at, n * sizeof *each));
            break;
        case 4: {
            u64 to = below(2) ? at - min32(at, below(10)) : below(at + 1);
            status r = megabyte_stream_rewind(s[i], to);
            MUST(!r || r == MEGABYTE_ERROR_CAPACITY);
            MUST(!r || at > s[i]->patches * s[i]->engine->model->stage[0].bytes / 2);
            break;
        }
        case 5: MUST(!megabyte_stream_copy(s[i], s[j])); break;
        case 6: {
            size_t size = megabyte_stream_save_size(s[j]);
            u8 *saved = (u8 *)malloc(size);
            MUST(!megabyte_stream_save(s[j], saved, size));
            MUST(!megabyte_stream_load(s[i], saved, size));
            free(saved);
            break;
        }
        case 7:
            for (u32 k = 0; k < steps; k++) {
                megabyte_stream *some[BESIDE];
                u8 bytes[BESIDE];
                u32 count = 0, group = i / BESIDE * BESIDE;
                for (u32 m = group; m < group + BESIDE; m++) {
                    u64 position = megabyte_stream_position(s[m]);
                    if (position < length) bytes[count] = text[position], some[count++] = s[m];
                }
                MUST(!megabyte_stream_step_batch(some, bytes, count));
                for (u32 m = group; m < group + BESIDE; m++) check(s[m]);
            }
            break;
        default:
            if (!below(4)) megabyte_stream_reset(s[i]);
        }
        check(s[i]);
    }
    for (u32 i = 0; i < 2 * BESIDE; i++) megabyte_stream_free(s[i]);
    free(logits);
}

/* What this engine makes of the text is kept, or must be what was kept, and decodes again. */
static u8 packed[MOST_BYTES + 400];
static size_t n_packed;

static void compress(megabyte_engine *e, megabyte_codec_options o) {
    u8 out[sizeof packed], back[MOST_BYTES];
    size_t n, got;
    o.engine = e;
    MUST(!megabyte_compress(model, &o, text, length, out, sizeof out, &n, NULL, NULL));
    MUST(!n_packed || (n == n_packed && !memcmp(out, packed, n)));
    memcpy(packed, out, n_packed = n);
    o.block_size = 0;
    MUST(!megabyte_decompress(model, &o, packed, n, back, sizeof back, &got, NULL, NULL));
    MUST(got == length && !memcmp(back, text, length));
}

static void run_case(void) {
    struct sizes z = any_sizes();
    size_t size;
    u8 *file = any_model(&z, seed, SIZE_MAX, &size);
    double bits = 0, sum = 0;
    MUST(file);
    vocabulary = z.vocabulary;
    MUST(!megabyte_model_open_memory(&model, file, size, NULL, NULL));
    megabyte_info info;
    megabyte_model_describe(model, &info);
    u32 P = info.patch_bytes, least = P * least_patches(model), context = (u32)info.context_bytes;
    char as[] = "wav";
    as[min32(P, 3)] = 0;
    megabyte_stream_options with = {0}; /* one draw a statement: initializers have no order */
    if (below(2)) with.context = least + below(context - least + 1);
    if (z.stage[0].flags & COLUMN_SUM && below(2)) with.file_type = as;
    length = min32(MOST_BYTES, below(3) ? below(4 * context + 9) : below(MOST_BYTES));
    for (u32 i = 0; i < length; i++)
        text[i] = (u8)(i > 9 && below(3) ? text[i - 7] : below(min32(vocabulary, 256)));
    expected = (float *)malloc((length + 1) * vocabulary * sizeof *expected);

    megabyte_engine *plain = new_engine(1, 1, MEGABYTE_ISA_PLAIN);
    megabyte_stream *s;
    with.engine = plain;
    MUST(!megabyte_stream_create(&s, model, &with, NULL, NULL));
    for (u32 i = 0;; i++) {
        memcpy(expected + i * vocabulary, megabyte_stream_logits(s), vocabulary * sizeof *expected);
        if (i == length) break;
        MUST(!megabyte_stream_score_bytes(s, text + i, 1, &expected_each[i]));
        sum += (double)expected_each[i];
    }
    for (u32 i = 0; i < (length + 1) * vocabulary; i++) {
        MUST(expected[i] - expected[i] == 0);
        print = (print ^ f32_to_bits(expected[i])) * 1099511628211ULL;
    }
    megabyte_stream_reset(s);
    MUST(!megabyte_stream_score(s, text, length, &bits, NULL) && fabs(bits - sum) <= 1e-4 * sum);
    megabyte_stream_free(s);

    megabyte_codec_options codec = {.mixing_memory = 1, .file_type = with.file_type};
    codec.block_size = 1 + below(length + 1);
    codec.streams = 1 + below(3);
    codec.context_shift = below(5);
    codec.level = 5 + (int)below(2);
    codec.verify = (int)below(2);
    int compresses = vocabulary >= 256 && length && !below(4);
    if (codec.level == 5) codec.mixing_memory = MEGABYTE_NO_CONTEXT_MIXING;
    n_packed = 0;
    if (compresses && codec.block_size >= 16) compress(plain, codec);
    for (int isa = MEGABYTE_ISA_PLAIN; isa <= MEGABYTE_ISA_NEON_I8MM; isa++) {
        if (!megabyte_isa_available((megabyte_isa)isa)) continue;
        megabyte_engine *engine[2];
        for (u32 i = 0; i < 2; i++) {
            u32 threads = 1 + below(3), batch = 1 + below(below(2) ? 5 : 130);
            engine[i] = new_engine(threads, batch, i ? MEGABYTE_ISA_AUTO : (megabyte_isa)isa);
        }
        operate(engine, &with);
        if (n_packed) compress(engine[0], codec);
        for (u32 i = 0; i < 2; i++) megabyte_engine_free(engine[i]);
    }
    megabyte_engine_free(plain);
    megabyte_model_close(model);
    free(expected);
    free(file);
}

int main(int argc, char **argv) {
    unsigned long long count = argc > 1 ? strtoull(argv[1], NULL, 10) : 200,
                       first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (seed = first; seed < first + count; seed++) {
        random_state = seed * 0x9e3779b97f4a7c15ULL;
        run_case();
    }
    printf("%llu models: %016llx\n", count, (unsigned long long)print);
    return 0;
}
