/* sizes.c - what an engine and a stream need, as the library tells before anything is allocated, by
 * batch and context; and how much of it a stream that is only stepped ever writes to, in pages of
 * 4 KB, which is what a system with virtual memory gives. A Markdown table.
 *
 *     cc -O2 sizes.c megabyte.c -lm && ./a.out text-small.mb
 *
 * SPDX-License-Identifier: MIT */
#include "megabyte.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct block {
    unsigned char *memory;
    size_t size;
} block;

static void *fill(void *context, size_t size, size_t align) {
    block *b = context;
    b->size = (size + 4095) / 4096 * 4096;
    b->memory = aligned_alloc(align < 4096 ? 4096 : align, b->size);
    return b->memory ? memset(b->memory, 0xA5, b->size) : NULL;
}
static void release(void *context, void *memory, size_t size) {
    (void)context, (void)size, free(memory);
}

static size_t written(const block *b) {
    size_t n = 0;
    for (size_t page = 0, i; page < b->size; page += 4096) {
        for (i = 0; i < 4096 && b->memory[page + i] == 0xA5; i++) continue;
        if (i < 4096) n += 4096;
    }
    return n;
}

static size_t kb(size_t bytes) { return (bytes + 1023) / 1024; }

/* A row of the table; `batch` and `context` 0: the default. */
static int row(const megabyte_model *model, uint32_t batch, uint32_t context, uint32_t drafts) {
    const megabyte_engine_options small = {.batch = batch};
    megabyte_stream_options options = {.context = context, .draft_max = drafts};
    block of_engine = {NULL, 0}, of_stream = {NULL, 0};
    const megabyte_allocator for_engine = {fill, release, &of_engine};
    const megabyte_allocator for_stream = {fill, release, &of_stream};
    megabyte_stream *stream;
    size_t engine_size, stream_size;
    if (megabyte_engine_size(model, &small, &engine_size) ||
        megabyte_engine_create(&options.engine, model, &small, &for_engine, NULL) ||
        megabyte_stream_size(model, &options, &stream_size) ||
        megabyte_stream_create(&stream, model, &options, &for_stream, NULL))
        return 1;
    for (int i = 0; i < 500; i++) megabyte_stream_step(stream, (uint8_t) "So it went on. "[i % 15]);
    printf("| %u | %u%s | %zu | %zu | %zu | %zu |\n", batch ? batch : 128, context,
           drafts ? ", no drafts" : "", kb(engine_size), kb(written(&of_engine)), kb(stream_size),
           kb(written(&of_stream)));
    megabyte_stream_free(stream);
    megabyte_engine_free(options.engine);
    return 0;
}

int main(int argc, char **argv) {
    const uint32_t none = MEGABYTE_NO_DRAFT;
    megabyte_model *model;
    megabyte_error error;
    if (argc != 2) return puts("usage: sizes MODEL"), 2;
    if (megabyte_model_open(&model, argv[1], NULL, &error)) return puts(error.text), 1;
    puts("| batch | context | engine, KB | written to | stream, KB | written to |\n"
         "|--:|---|--:|--:|--:|--:|");
    int failed = row(model, 0, 8192, 0) || row(model, 0, 512, 0) || row(model, 0, 512, none) ||
                 row(model, 16, 512, none) || row(model, 1, 512, none) || row(model, 1, 128, none);
    megabyte_model_close(model);
    return failed;
}
