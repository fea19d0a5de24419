/* event_loop.c - text that is written while the program waits for other things: one step a turn, so
 * that nothing waits longer than a byte takes. Each line of standard input is a new prompt and ends
 * what is being written.
 *
 *     cc -O2 event_loop.c megabyte.c -lm && ./a.out text.mb
 *
 * SPDX-License-Identifier: MIT */
#include "megabyte.h"
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FEED = 64, BYTES = 100 }; /* of the prompt in a turn; to write for each prompt */

typedef struct writer {
    megabyte_stream *stream;
    megabyte_sampling sampling;
    char prompt[4096];
    size_t length, fed;
    int left; /* bytes to write; 0: nothing to do */
} writer;

static void begin(writer *w, const char *prompt, size_t length) {
    megabyte_stream_reset(w->stream);
    w->sampling = (megabyte_sampling){.temperature = 0.7f, .top_p = 0.95f, .seed = 1};
    memcpy(w->prompt, prompt, w->length = length);
    w->fed = 0;
    w->left = BYTES;
}

/* A little work: part of the prompt, or a byte. */
static void turn(writer *w) {
    uint8_t byte;
    if (w->fed < w->length) {
        size_t n = w->length - w->fed < FEED ? w->length - w->fed : FEED;
        megabyte_stream_feed(w->stream, w->prompt + w->fed, n);
        w->fed += n;
    } else if (megabyte_stream_sample(w->stream, &w->sampling, &byte) != MEGABYTE_OK) {
        w->left = 0; /* the model ends its text */
    } else {
        megabyte_stream_step(w->stream, byte);
        putchar(byte);
        if (--w->left == 0) putchar('\n');
        fflush(stdout);
    }
}

int main(int argc, char **argv) {
    megabyte_model *model;
    megabyte_error error;
    writer w = {0};
    char line[sizeof w.prompt], *end;
    size_t n = 0;
    if (argc != 2 || megabyte_model_open(&model, argv[1], NULL, &error) ||
        megabyte_stream_create(&w.stream, model, NULL, NULL, &error))
        return fprintf(stderr, "%s\n", argc == 2 ? error.text : "usage: event_loop MODEL"), 1;
    for (int open = 1; open || w.left;) {
        struct pollfd input = {.fd = open ? 0 : -1, .events = POLLIN};
        if (poll(&input, 1, w.left ? 0 : -1) > 0) { /* sleeps only when nothing is to be done */
            ssize_t got = read(0, line + n, sizeof line - n);
            if (got <= 0) open = 0;
            else n += (size_t)got;
            while ((end = memchr(line, '\n', n)) || n == sizeof line) {
                size_t length = end ? (size_t)(end - line) : n, used = length + (end != NULL);
                begin(&w, line, length);
                memmove(line, line + used, n -= used);
            }
        }
        if (w.left) turn(&w);
    }
    megabyte_stream_free(w.stream);
    megabyte_model_close(model);
    return 0;
}
