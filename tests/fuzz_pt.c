/* fuzz_pt.c - any bytes as a checkpoint: the .pt reader (zip, pickle, tensors), then names, sizes
 * and every row of the model, without writing it. No crash, no hang, no execution of anything.
 * libFuzzer's way in; the configuration's path is in FUZZ_CONFIG:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_pt.c -o fuzz -lm -pthread
 *     FUZZ_CONFIG=tests/tmp/torch-paper.json ./fuzz -max_total_time=60 FOLDER_OF_SEEDS
 *
 * With -DSTANDALONE, a program that spoils a right file at random, COUNT times (test_convert leaves
 * some in tests/tmp):
 *
 *     fuzz_pt FILE.pt CONFIG.json COUNT SEED */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The converter ends where it refuses, and leaves its memory to the exit: here it jumps back, and
 * the memory that it asked for is given back one by one, so that the sanitizer sees each block. */
enum { MOST = 4096 };
static jmp_buf refused;
static void *block[MOST];
static size_t n_blocks, asked;
static FILE *opened[8];
static int n_opened;
static const uint8_t *input;
static size_t input_size;

static void *kept(void *old, void *p, size_t bytes) {
    size_t i = 0;
    while (i < n_blocks && (!old || block[i] != old)) i++;
    if (!p || i == MOST) abort();
    block[i] = p;
    if (i == n_blocks) n_blocks++;
    asked += bytes;
    return p;
}
static void *fuzz_calloc(size_t n, size_t size) { return kept(NULL, calloc(n, size), n * size); }
static void *fuzz_realloc(void *old, size_t size) {
    uintptr_t was = (uintptr_t)old; /* only compared */
    void *p = realloc(old, size);
    return kept((void *)was, p, size);
}
static void fuzz_free(void *p) {
    for (size_t i = 0; p && i < n_blocks; i++)
        if (block[i] == p) block[i--] = block[--n_blocks];
    free(p);
}
static FILE *fuzz_open(const char *path, const char *mode) {
    FILE *f = strcmp(path, "input") ? fopen(path, mode)
                                    : fmemopen((void *)(uintptr_t)input, input_size, "rb");
    if (f) opened[n_opened++] = f;
    return f;
}
static int fuzz_close(FILE *f) {
    for (int i = 0; i < n_opened; i++)
        if (opened[i] == f) opened[i--] = opened[--n_opened];
    return fclose(f);
}
static _Noreturn void fuzz_exit(int status) { longjmp(refused, status + 1); }

#define calloc fuzz_calloc
#define realloc fuzz_realloc
#define free fuzz_free
#define fopen fuzz_open
#define fclose fuzz_close
#define exit fuzz_exit
#define fprintf(...) ((void)0) /* messages */
#define fputc(...) ((void)0)
#define fwrite(...) ((void)0)
#include "mbconvert.h"
#undef calloc
#undef realloc
#undef free
#undef fopen
#undef fclose
#undef exit
#undef fprintf
#undef fputc
#undef fwrite

#define MUST(condition)                                   \
    do {                                                  \
        if (!(condition)) {                               \
            fprintf(stderr, "fuzz_pt: %s\n", #condition); \
            abort();                                      \
        }                                                 \
    } while (0)

static status read_tensor_rows(void *context, struct tensor *t) {
    struct conversion *c = context;
    float *row = allocate(t->cols, sizeof *row);
    for (u32 i = 0; i < t->rows; i++) {
        read_row(c, t, i, row);
        for (u32 k = 0; k < t->cols; k++) MUST(row[k] - row[k] == 0);
    }
    fuzz_free(row);
    return MEGABYTE_OK;
}

/* Returns 1 if the checkpoint became a model, 0 if it was refused later than by its archive, -1
 * else. */
static int convert(const uint8_t *data, size_t size, const char *config) {
    static struct conversion c;
    volatile int result = -1;
    const struct options usual = {.in = "input",
                                  .out = "nowhere",
                                  .config = config,
                                  .heads = ABSENT,
                                  .dim_head = ABSENT,
                                  .positions = ABSENT,
                                  .pad_id = ABSENT};
    options = usual;
    memset(&c, 0, sizeof c);
    c.options = &options;
    quiet = 1;
    input = data;
    input_size = size;
    asked = 0;
    if (size && !setjmp(refused)) {
        open_checkpoint(&c.in, options.in);
        MUST(asked <= 100 * size + (1u << 20)); /* before anything is known of the model */
        for (u64 i = 0; i < c.in.count; i++) load(&c.in, &c.in.tensors[i]);
        result = 0;
        recognise_names(&c);
        choose_config(&c);
        derive_sizes(&c);
        each_tensor(&c.sizes, read_tensor_rows, &c);
        result = 1;
    }
    while (n_opened) fuzz_close(opened[0]);
    while (n_blocks) fuzz_free(block[0]);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    convert(data, size, getenv("FUZZ_CONFIG"));
    return 0;
}

#if defined(STANDALONE)
static u64 state;
static u64 random64(void) { /* splitmix64 */
    u64 z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static size_t below(size_t n) { return (size_t)(random64() % n); }

/* One change of p[0..n). */
static void spoil(u8 *p, size_t n) {
    static const char codes[] =
        "(}]).tuldsaeR\x81\x92oibQcXK\x8aMJGN\x88\x89qrhj\x85\x86\x87\x8c\x94\x93\x95"
        "012TBC";
    static const u32 numbers[] = {0,   1,     2,     3,          127,        128,       255,
                                  256, 65535, 65536, 0x7fffffff, 0x80000000, UINT32_MAX};
    size_t at = below(n), from = below(n), length = below(40),
           longest = n - (at > from ? at : from);
    if (length > longest) length = longest;
    switch (below(8)) {
    case 0:
    case 1: p[at] ^= (u8)(1u << below(8)); break;
    case 2: p[at] = (u8)codes[below(sizeof codes - 1)]; break;
    case 3: p[at] = (u8)random64(); break;
    case 4:
        if (n - at >= 4) put32(p + at, numbers[below(sizeof numbers / sizeof *numbers)]);
        break;
    case 5: memmove(p + at, p + from, length); break; /* of elsewhere, or doubled */
    case 6: memmove(p + at, p + at + length, n - at - length); break; /* left out */
    default: memmove(p + at + length, p + at, n - at - length); break; /* put in */
    }
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: fuzz_pt FILE.pt CONFIG.json COUNT SEED\n");
        return 2;
    }
    u64 results[3] = {0, 0, 0}, count = strtoull(argv[3], NULL, 10);
    static u8 right[1 << 22];
    FILE *f = fopen(argv[1], "rb");
    size_t size = f ? fread(right, 1, sizeof right, f) : 0;
    MUST(size > 30 && size < sizeof right && !memcmp(right, "PK\3\4", 4));
    fclose(f);
    size_t pickle = 30 + get16(right + 26) + get16(right + 28),
           length = get32(right + 18); /* comes first */
    MUST(pickle < size && length < size - pickle && convert(right, size, argv[2]) == 1);
    for (u64 i = 0; i < count; i++) {
        state = strtoull(argv[4], NULL, 10) * 1000003 + i;
        u8 *p = malloc(size); /* of the size itself: reading past it shows */
        size_t n = below(20) ? size : 1 + below(size), times = 1 + below(4), where = below(10);
        MUST(p);
        memcpy(p, right, size);
        while (times--) {
            if (where < 6) spoil(p + pickle, length);
            else if (where < 9) spoil(p + size - size / 4, size / 4);
            else spoil(p, size);
        }
        results[convert(p, n, argv[2]) + 1]++;
        free(p);
    }
    printf("%llu mutations: %llu archives refused, %llu models refused, %llu converted\n",
           (ull)count, (ull)results[0], (ull)results[1], (ull)results[2]);
    return 0;
}
#endif
