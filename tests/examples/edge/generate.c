/* generate.c - text from a model in under 100 KB of program, static, and (text-small.mb) under 1 MB
 * of memory beside the model's file, which is mapped. The library is included, static, so that the
 * compiler leaves out what is not called:
 *
 *     musl-gcc -std=c11 -Os -static -s -DMEGABYTE_NO_SIMD -DMEGABYTE_NO_CODEC \
 *         -DMEGABYTE_NO_THREADS -DMEGABYTE_NO_FILE -fno-asynchronous-unwind-tables \
 *         -Wl,-z,noseparate-code,-z,norelro -I. tests/examples/edge/generate.c -o generate
 *     ./generate models/text-small.mb 'It was a dark and stormy night' 200
 *
 * SPDX-License-Identifier: MIT */
#define MEGABYTE_API static
#include "megabyte.c"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Three allocations, once: this is smaller than musl's malloc. */
static _Alignas(64) unsigned char pool[2 << 20];
static size_t used;
void *malloc(size_t n) {
    size_t from = used;
    if (n > sizeof pool - from) return NULL;
    used += (n + 63) & ~(size_t)63;
    return pool + from;
}
void free(void *memory) { (void)memory; }

static int complain(const char *text) {
    (void)!write(2, text, strlen(text));
    (void)!write(2, "\n", 1);
    return 1;
}

int main(int argc, char **argv) {
    const megabyte_engine_options small = {.batch = 1};
    megabyte_stream_options options = {.context = 512, .draft_max = MEGABYTE_NO_DRAFT};
    megabyte_sampling sampling = {.temperature = 0.7f, .top_p = 0.95f, .seed = 1};
    megabyte_model *model;
    megabyte_stream *stream;
    megabyte_error error;
    uint8_t byte;
    if (argc != 4) return complain("usage: generate MODEL PROMPT BYTES");
    int file = open(argv[1], O_RDONLY);
    struct stat of;
    if (file < 0 || fstat(file, &of)) return complain("generate: no such model");
    void *map = mmap(NULL, (size_t)of.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (map == MAP_FAILED) return complain("generate: the model cannot be mapped");
    if (megabyte_model_open_memory(&model, map, (size_t)of.st_size, NULL, &error) ||
        megabyte_engine_create(&options.engine, model, &small, NULL, &error) ||
        megabyte_stream_create(&stream, model, &options, NULL, &error))
        return complain(error.text);
    megabyte_stream_feed(stream, argv[2], strlen(argv[2]));
    for (long n = atol(argv[3]); n > 0; n--) {
        if (megabyte_stream_sample(stream, &sampling, &byte)) break; /* the text ends */
        if (write(1, &byte, 1) != 1) return complain("generate: cannot write");
        megabyte_stream_step(stream, byte);
    }
    return 0;
}
