/* same_bits.c - one number for all logits of a fixed set of operations on a model: the same from every
 * build.
 *
 *     same_bits [--isa NAME] [--threads N] [--batch N] [--chunk N] [--beside N] [--ftz] [--round]
 *               TEXT MODEL.mb...
 *
 * --chunk: bytes per call; --beside: other streams stepped in the same batch; --ftz, --round: the caller's
 * floating-point environment. Prints "HASH MODEL" for each; exits with 3 if this build or CPU lacks the
 * instruction set. */
#include "test.h"

#include <fenv.h>
#if defined(__x86_64__) || (defined(__i386__) && defined(__SSE__))
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
        uint8_t bytes[4] = { (uint8_t)bits, (uint8_t)(bits >> 8), (uint8_t)(bits >> 16),
                             (uint8_t)(bits >> 24) };
        hash_bytes(bytes, 4);
    }
}

static void set_environment(int ftz, int round) {
    if (round) fesetround(FE_UPWARD); /* of libm and, on x86, of SSE too */
    if (!ftz) return;
#if defined(__x86_64__) || (defined(__i386__) && defined(__SSE__))
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
        OK(megabyte_stream_score(s, text + at, n - at < chunk ? n - at : chunk, &bits, rows + at * v));
    hash_floats(rows, n * v);
    hash_floats(megabyte_stream_logits(s), v);
    free(rows);
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
        for (int i = 1; i < 6; i++)
            if (!strcmp(isa_name, megabyte_isa_name((megabyte_isa)i))) isa = (megabyte_isa)i;
        if (isa == MEGABYTE_ISA_AUTO || !megabyte_isa_available(isa)) return 3;
    }
    uint8_t *text = read_file(text_path, &size), byte;
    CHECK(size >= SCORED + STEPPED + SLID + MAX_BESIDE, "%s is too short", text_path);
    set_environment(ftz, round);
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
            OK(megabyte_step_batch(together, next, beside + 1));
            hash_floats(megabyte_stream_logits(together[0]), v);
        }
        megabyte_sampling how = {
            .temperature = 0.8f, .top_p = 0.95f, .top_k = 60, .repetition_penalty = 1.1f, .seed = 7
        };
        for (size_t i = 0; i < SAMPLED; i++) {
            OK(megabyte_stream_sample(together[0], &how, &byte));
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
        megabyte_engine_free(engine);
        megabyte_model_close(model);
        printf("%016llx %s\n", (unsigned long long)hash, argv[at]);
    }
    free(text);
    return 0;
}
