/* batch.c - many requests over one model, as a server has them: one engine, a stream for each
 * request that is being answered, and one step for all of them at a time, for which the weights are
 * read once. A request that is done makes room for the next. No answer depends on its neighbours.
 * Every line of standard input is a request.
 *
 *     cc -O2 batch.c megabyte.c -lm && ./a.out text.mb 4 <prompts
 *
 * SPDX-License-Identifier: MIT */
#include "megabyte.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 16, BYTES = 60, PROMPT = 2000 };

typedef struct slot {
    megabyte_stream *stream;
    megabyte_sampling sampling;
    char prompt[PROMPT];
    uint8_t answer[BYTES];
    int n, request; /* bytes of the answer; the request's number, 0: the slot is free */
} slot;
static slot slots[SLOTS];
static int requests;

/* Gives the free slots to the next requests and reads their prompts together. */
static void admit(void) {
    megabyte_stream *streams[SLOTS];
    const uint8_t *bytes[SLOTS];
    size_t lengths[SLOTS], n = 0;
    for (slot *s = slots; s < slots + SLOTS; s++) {
        if (s->request || !fgets(s->prompt, sizeof s->prompt, stdin)) continue;
        s->request = ++requests;
        s->n = 0;
        s->sampling = (megabyte_sampling){.temperature = 0.7f, .top_p = 0.95f, .seed = 1};
        megabyte_stream_reset(s->stream);
        streams[n] = s->stream;
        bytes[n] = (const uint8_t *)s->prompt;
        lengths[n++] = strcspn(s->prompt, "\n");
    }
    megabyte_stream_feed_batch(streams, bytes, lengths, n);
}

int main(int argc, char **argv) {
    megabyte_engine_options engine_options = {.threads = argc == 3 ? (uint32_t)atoi(argv[2]) : 1};
    megabyte_stream_options options = {.context = 4096, .draft_max = MEGABYTE_NO_DRAFT};
    megabyte_model *model;
    megabyte_error error;
    if (argc < 2 || megabyte_model_open(&model, argv[1], NULL, &error) ||
        megabyte_engine_create(&options.engine, model, &engine_options, NULL, &error))
        return fprintf(stderr, "%s\n", argc < 2 ? "usage: batch MODEL [THREADS]" : error.text), 1;
    for (int i = 0; i < SLOTS; i++)
        if (megabyte_stream_create(&slots[i].stream, model, &options, NULL, &error))
            return fprintf(stderr, "%s\n", error.text), 1;

    for (int busy = 1; busy;) {
        megabyte_stream *streams[SLOTS];
        uint8_t bytes[SLOTS];
        size_t n = 0;
        admit();
        busy = 0;
        for (slot *s = slots; s < slots + SLOTS; s++) {
            if (!s->request) continue;
            busy = 1;
            if (s->n < BYTES && !megabyte_stream_sample(s->stream, &s->sampling, &bytes[n])) {
                s->answer[s->n++] = bytes[n] == '\n' ? ' ' : bytes[n]; /* a line each */
                streams[n++] = s->stream;
                continue;
            }
            printf("[%d] %.*s%.*s\n", s->request, (int)strcspn(s->prompt, "\n"), s->prompt, s->n,
                   (char *)s->answer);
            s->request = 0;
        }
        megabyte_stream_step_batch(streams, bytes, n);
    }
    for (int i = 0; i < SLOTS; i++) megabyte_stream_free(slots[i].stream);
    megabyte_engine_free(options.engine);
    return megabyte_model_close(model), 0;
}
