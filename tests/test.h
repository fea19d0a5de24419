/* test.h - what the test programs share: checks, a random generator, files, a counting allocator,
 * models. */
#ifndef TEST_H
#define TEST_H

#if !defined(_POSIX_C_SOURCE) && !defined(_GNU_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include "../megabyte.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef _WIN32
#include <direct.h>
#include <malloc.h>
#define mkdir(path, mode) _mkdir(path)
#define aligned_alloc(align, size) _aligned_malloc(size, align)
#define aligned_free(memory) _aligned_free(memory)
#define exit_status(status) (status)
#elif !defined(__wasm__)
#include <sys/wait.h>
#define exit_status(status) (WIFEXITED(status) ? WEXITSTATUS(status) : 255)
#endif
#ifndef _WIN32
#define aligned_free(memory) free(memory)
#endif

#if defined(__GNUC__)
#define UNUSED_OK __attribute__((unused))
#if defined(__MINGW32__) && !defined(__clang__)
#define PRINTF_LIKE(text, first) __attribute__((format(gnu_printf, text, first)))
#else
#define PRINTF_LIKE(text, first) __attribute__((format(printf, text, first)))
#endif
#else
#define UNUSED_OK
#define PRINTF_LIKE(text, first)
#endif

/* --------------------------------------------------------------------------------------- checks */

static uint64_t test_seed; /* of the case under test: printed on failure, together with test_case */
static char test_case[160];

static _Noreturn void PRINTF_LIKE(4, 5)
    test_fail(const char *file, int line, const char *what, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stdout, "FAILED\n%s:%d: %s:", file, line, what);
    vfprintf(stdout, format, args);
    fprintf(stdout, "\n  case '%s', seed %llu\n", test_case, (unsigned long long)test_seed);
    va_end(args);
    fflush(stdout);
    exit(1);
}

static UNUSED_OK void test_status(const char *file, int line, const char *call, megabyte_status got,
                                  megabyte_status expected) {
    if (got != expected)
        test_fail(file, line, call, " returned '%s', not '%s'", megabyte_status_string(got),
                  megabyte_status_string(expected));
}

#define CHECK(condition, ...) \
    ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__))
#define CHECK_STATUS(call, expected) test_status(__FILE__, __LINE__, #call, call, expected)
#define OK(call) CHECK_STATUS(call, MEGABYTE_OK)
#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* Runs one group of checks: "name ... ok". */
#define GROUP(function) \
    (printf("%s ... ", #function), fflush(stdout), (function)(), (void)puts("ok"))

static UNUSED_OK void name_case(const char *format, ...) PRINTF_LIKE(1, 2);
static void name_case(const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(test_case, sizeof test_case, format, args);
    va_end(args);
}

static UNUSED_OK void *need(size_t count, size_t size) { /* zeroed memory, never NULL */
    void *p = calloc(count ? count : 1, size ? size : 1);
    CHECK(p, "out of memory in the test itself");
    return p;
}

/* ------------------------------------------------------------------------------- random numbers */

static uint64_t random_state;

static UNUSED_OK void seed_random(uint64_t seed) { random_state = test_seed = seed; }

static UNUSED_OK uint64_t random64(void) { /* splitmix64 */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static UNUSED_OK size_t random_below(size_t n) { return (size_t)(random64() % n); }
static UNUSED_OK double random_unit(void) { return (double)(random64() >> 11) * 0x1p-53; }
static UNUSED_OK double random_normal(void) {
    double sum = -6; /* of twelve uniforms: no libm, the same everywhere */
    for (int i = 0; i < 12; i++) sum += random_unit();
    return sum;
}
static UNUSED_OK void random_bytes(uint8_t *to, size_t n, uint32_t vocabulary) {
    for (size_t i = 0; i < n; i++)
        to[i] = (uint8_t)random_below(vocabulary < 256 ? vocabulary : 256);
}

/* ---------------------------------------------------------------------------------------- files */

static UNUSED_OK uint8_t *read_file(const char *path,
                                    size_t *size) { /* with a NUL after it; free() it */
    FILE *f = fopen(path, "rb");
    CHECK(f, "cannot open %s", path);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = need(*size + 1, 1);
    CHECK(fread(p, 1, *size, f) == *size, "cannot read %s", path);
    fclose(f);
    return p;
}

static UNUSED_OK void write_file(const char *path, const void *data, size_t size) {
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, size, f) == size && fclose(f) == 0, "cannot write %s", path);
}

#ifndef __wasm__
/* The exit status of a shell command; its output goes to tests/tmp/output.txt. */
static UNUSED_OK int PRINTF_LIKE(1, 2) shell(const char *format, ...) {
    char command[1024] = "";
    va_list args;
    va_start(args, format);
    int n = vsnprintf(command, sizeof command - 40, format, args);
    va_end(args);
    CHECK(n > 0 && n < (int)sizeof command - 40, "command too long");
    strcat(command, " >tests/tmp/output.txt 2>&1");
#ifdef _WIN32 /* tools\mbconvert: what / begins is an option there */
    command[strcspn(command, "/")] = '\\';
#endif
    int status = system(command);
    return status == -1 ? 255 : exit_status(status);
}
#endif

static UNUSED_OK void make_tmp(void) {
    mkdir("tests/tmp", 0777);
    struct stat s;
    CHECK(stat("tests/tmp", &s) == 0, "run the tests from the repository's root");
}

/* tests/tmp/NAME-QUANT.mb from a .safetensors file and its .json; returns that path in `mb`. */
static UNUSED_OK char *convert(char mb[200], const char *safetensors, const char *json,
                               const char *name, const char *quant) {
    snprintf(mb, 200, "tests/tmp/%s-%s.mb", name, quant);
#ifdef __wasm__ /* which has no processes: the native test has made it */
    (void)safetensors;
    (void)json;
#else
    remove(mb);
    int status = shell("tools/mbconvert %s -o %s --quant %s --config %s", safetensors, mb, quant,
                       json);
    if (status) {
        size_t size;
        char *said = (char *)read_file("tests/tmp/output.txt", &size);
        CHECK(!status, "mbconvert %s exits with %d: %s", safetensors, status, said);
    }
#endif
    return mb;
}

/* ------------------------------------------------------------------------------------ allocator */

/* Counts, fails on demand, and checks at free that the size is the same and that nothing was
 * written past it. */
typedef struct counter {
    size_t calls, live, live_bytes, peak_bytes, largest;
    size_t fail_at; /* 1: the first call returns NULL; 0: none does */
} counter;

#define GUARD_BYTES 64

static UNUSED_OK void *counter_alloc(void *context, size_t size, size_t align) {
    counter *c = context;
    CHECK(align == 64, "asked for an alignment of %zu", align);
    if (++c->calls == c->fail_at) return NULL;
    if (size > c->largest) c->largest = size;
    if (size > (size_t)1 << 31) return NULL;
    uint8_t *p = aligned_alloc(64, (size + 63) / 64 * 64 + 2 * GUARD_BYTES);
    CHECK(p, "out of memory in the test itself");
    memcpy(p, &size, sizeof size);
    memset(p + GUARD_BYTES, 0xff, size); /* what is not initialised shows */
    memset(p + GUARD_BYTES + size, 0xa5, GUARD_BYTES);
    c->live++;
    c->live_bytes += size;
    if (c->live_bytes > c->peak_bytes) c->peak_bytes = c->live_bytes;
    return p + GUARD_BYTES;
}

static UNUSED_OK void counter_free(void *context, void *memory, size_t size) {
    counter *c = context;
    if (!memory) return;
    uint8_t *p = (uint8_t *)memory - GUARD_BYTES;
    size_t was;
    memcpy(&was, p, sizeof was);
    CHECK(was == size, "freed with size %zu, allocated with %zu", size, was);
    for (int i = 0; i < GUARD_BYTES; i++)
        CHECK(p[GUARD_BYTES + size + i] == 0xa5, "written %d bytes past the end of %zu", i + 1,
              size);
    c->live--;
    c->live_bytes -= size;
    aligned_free(p);
}

static UNUSED_OK megabyte_allocator counting(counter *c) {
    return (megabyte_allocator){counter_alloc, counter_free, c};
}

/* ------------------------------------------------------------------------------ models, streams */

static UNUSED_OK megabyte_model *open_model(const char *path) {
    megabyte_model *model = NULL;
    megabyte_error error;
    megabyte_status status = megabyte_model_open(&model, path, NULL, &error);
    CHECK(status == MEGABYTE_OK, "%s: %s", path, error.text);
    CHECK(model && error.status == MEGABYTE_OK && !error.text[0], "%s: the error is not zeroed",
          path);
    return model;
}

static UNUSED_OK megabyte_info describe(const megabyte_model *model) {
    megabyte_info info;
    megabyte_model_describe(model, &info);
    return info;
}

static UNUSED_OK megabyte_engine *new_engine(const megabyte_model *model, uint32_t threads,
                                             uint32_t batch, megabyte_isa isa) {
    megabyte_engine *engine = NULL;
    megabyte_error error;
    megabyte_engine_options options = {.threads = threads, .batch = batch, .isa = isa};
    megabyte_status status = megabyte_engine_create(&engine, model, &options, NULL, &error);
    CHECK(status == MEGABYTE_OK, "engine: %s", error.text);
    return engine;
}

/* engine NULL: a private one; context 0: the model's. */
static UNUSED_OK megabyte_stream *new_stream(const megabyte_model *model, megabyte_engine *engine,
                                             uint64_t context) {
    megabyte_stream *stream = NULL;
    megabyte_error error;
    megabyte_stream_options options = {.engine = engine, .context = context};
    megabyte_status status = megabyte_stream_create(&stream, model, &options, NULL, &error);
    CHECK(status == MEGABYTE_OK, "stream: %s", error.text);
    return stream;
}

static UNUSED_OK int same_floats(const float *a, const float *b, size_t n) {
    return !memcmp(a, b, n * sizeof *a);
}

/* The truth that other ways are compared with: rows 0 .. n, row t = the logits after t bytes, from
 * one score call. */
static UNUSED_OK float *score_rows(const megabyte_model *model, megabyte_engine *engine,
                                   uint64_t context, const uint8_t *bytes, size_t n) {
    uint32_t v = describe(model).vocabulary;
    float *rows = need((n + 1) * v, sizeof *rows);
    double bits = 0;
    megabyte_stream *stream = new_stream(model, engine, context);
    OK(megabyte_stream_score(stream, bytes, n, &bits, rows));
    memcpy(rows + n * v, megabyte_stream_logits(stream), v * sizeof *rows);
    megabyte_stream_free(stream);
    return rows;
}

#define CHECK_LOGITS(stream, row, v, ...) \
    CHECK(same_floats(megabyte_stream_logits(stream), row, v), __VA_ARGS__)

#endif
