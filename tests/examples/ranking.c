/* ranking.c - which of some candidates goes best with a text? Prints the lines of standard input,
 * the likeliest after TEXT first, each with the bits it needs. With what was typed as TEXT and
 * words as candidates this completes. By bits per byte it finds the odd lines of a log:
 *
 *     cc -O2 ranking.c megabyte.c -lm && ./a.out text.mb "He opened the " <words
 *     ./a.out text.mb "$(head -n 50 good.log)" per-byte <new.log | tail -n 3
 *
 * SPDX-License-Identifier: MIT */
#include "megabyte.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct candidate {
    char text[512];
    double cost; /* bits, or bits per byte */
} candidate;

static int cheaper_first(const void *a, const void *b) {
    double x = ((const candidate *)a)->cost, y = ((const candidate *)b)->cost;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    enum { MOST = 1000 };
    static candidate list[MOST];
    size_t n = 0;
    megabyte_model *model;
    megabyte_stream *stream;
    megabyte_error error;
    if (argc < 3) return fprintf(stderr, "usage: ranking MODEL TEXT [per-byte]\n"), 2;
    int per_byte = argc > 3 && !strcmp(argv[3], "per-byte");
    if (megabyte_model_open(&model, argv[1], NULL, &error) ||
        megabyte_stream_create(&stream, model, NULL, NULL, &error))
        return fprintf(stderr, "%s\n", error.text), 1;

    /* The text is read once; every candidate starts at its end. */
    megabyte_stream_feed(stream, argv[2], strlen(argv[2]));
    if (per_byte) megabyte_stream_feed(stream, "\n", 1);
    uint64_t end = megabyte_stream_position(stream);
    while (n < MOST && fgets(list[n].text, sizeof list[n].text, stdin)) {
        size_t length = strlen(list[n].text); /* with the newline: that the word ends counts, too */
        double bits = 0;
        if (megabyte_stream_score(stream, list[n].text, length, &bits, NULL) ||
            megabyte_stream_rewind(stream, end))
            return fprintf(stderr, "the text is longer than the model's context\n"), 1;
        list[n++].cost = per_byte ? bits / (double)length : bits;
    }
    if (n == MOST && getchar() != EOF)
        fprintf(stderr, "only the first %d lines are ranked\n", (int)MOST);
    qsort(list, n, sizeof *list, cheaper_first);
    for (size_t i = 0; i < n; i++) printf("%7.2f  %s", list[i].cost, list[i].text);
    megabyte_stream_free(stream);
    megabyte_model_close(model);
    return 0;
}
