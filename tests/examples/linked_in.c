/* linked_in.c - the model is part of the program: no file system, no threads, no allocation but
 * through a function of the program's own, here from one block of memory. MODEL names the file.
 *
 *     cc -O2 -DMODEL='"text-small.mb"' -DMEGABYTE_NO_FILE -DMEGABYTE_NO_THREADS linked_in.c \
 *         megabyte.c -lm
 *
 * The weights are used where they are, so they must lie at a multiple of 64 bytes: .balign. What
 * `ld -r -b binary` makes of a file is aligned to 1 byte (megabyte_model_open_memory then returns
 * INVALID_ARGUMENT, or works by chance); edge/README.md has the line of objcopy that mends that.
 *
 * SPDX-License-Identifier: MIT */
#include "megabyte.h"
#include <stdio.h>
#include <string.h>

__asm__(".section .rodata, \"a\"\n"
        ".balign 64\n"
        ".globl model_begin, model_end\n"
        "model_begin: .incbin \"" MODEL "\"\n"
        "model_end: .byte 0\n"
        ".text\n");
extern const unsigned char model_begin[], model_end[];

/* Objects are one allocation each, so the simplest allocator will do. */
static _Alignas(64) unsigned char pool[2 << 20];
static size_t used;

static void *pool_alloc(void *context, size_t size, size_t align) {
    (void)context;
    size_t begin = (used + align - 1) & ~(align - 1);
    if (begin > sizeof pool || size > sizeof pool - begin) return NULL;
    used = begin + size;
    return pool + begin;
}

static void pool_free(void *context, void *memory, size_t size) {
    (void)context, (void)memory, (void)size;
}

int main(void) {
    const megabyte_allocator allocator = {pool_alloc, pool_free, NULL};
    /* Small: an engine that computes few tokens at a time, a stream with a short memory. */
    const megabyte_engine_options small = {.batch = 1};
    megabyte_stream_options options = {.context = 512, .draft_max = MEGABYTE_NO_DRAFT};
    megabyte_sampling sampling = {.temperature = 0.7f, .top_p = 0.95f, .seed = 1};
    const char *prompt = "It was a dark and stormy night";
    megabyte_model *model;
    megabyte_stream *stream;
    megabyte_error error;
    uint8_t byte;
    if (megabyte_model_open_memory(&model, model_begin, (size_t)(model_end - model_begin),
                                   &allocator, &error) ||
        megabyte_engine_create(&options.engine, model, &small, &allocator, &error) ||
        megabyte_stream_create(&stream, model, &options, &allocator, &error))
        return fprintf(stderr, "%s\n", error.text), 1;
    megabyte_stream_feed(stream, prompt, strlen(prompt));
    fputs(prompt, stdout);
    for (int i = 0; i < 100 && !megabyte_stream_sample(stream, &sampling, &byte); i++) {
        megabyte_stream_step(stream, byte);
        putchar(byte);
    }
    fprintf(stderr, "%zu bytes of memory\n", used);
    return 0;
}
