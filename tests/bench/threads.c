/* threads.c - more threads than cores: one model with ever more threads, in turns, so that all meet
 * the same neighbours. Prints the medians, and each over the first as ratios of its own round.
 *
 *     cc -O2 tests/bench/threads.c megabyte.c -o threads -lm -pthread
 *     taskset -c 0,1 ./threads models/text.mb 20 2 3 4 8      rounds, then numbers of threads */
#define _POSIX_C_SOURCE 200809L
#include "../../megabyte.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST = 16, MOST_ROUNDS = 1000, SCORED = 2048, STEPPED = 256 };

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void need(megabyte_status status, const megabyte_error *error) {
    if (!status) return;
    fprintf(stderr, "threads: %s\n", error ? error->text : megabyte_status_string(status));
    exit(1);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(const double *v, int n) {
    double sorted[MOST_ROUNDS];
    for (int i = 0; i < n; i++) sorted[i] = v[i];
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

static double score(megabyte_stream *s, const unsigned char *text) { /* bytes a second */
    double bits = 0, from = seconds();
    megabyte_stream_reset(s);
    need(megabyte_stream_score(s, text, SCORED, &bits, NULL), NULL);
    return SCORED / (seconds() - from);
}

static double step(megabyte_stream *s, const unsigned char *text) {
    double from = seconds();
    megabyte_stream_reset(s);
    for (int i = 0; i < STEPPED; i++) need(megabyte_stream_step(s, text[i]), NULL);
    return STEPPED / (seconds() - from);
}

int main(int argc, char **argv) {
    static double speed[2][MOST][MOST_ROUNDS], ratio[MOST_ROUNDS];
    static double (*const measure[2])(megabyte_stream *, const unsigned char *) = {score, step};
    static const char *const what[2] = {"scoring", "one stream"};
    unsigned char text[SCORED];
    megabyte_stream *stream[MOST];
    megabyte_engine *engine[MOST];
    megabyte_model *model;
    megabyte_error error;
    int n = argc - 3, rounds = argc > 2 ? atoi(argv[2]) : 0;
    if (n < 1 || n > MOST || rounds < 1 || rounds > MOST_ROUNDS) {
        fputs("usage: threads MODEL ROUNDS THREADS...\n", stderr);
        return 2;
    }
    for (int i = 0; i < SCORED; i++) text[i] = (unsigned char)("It was a dark night. "[i % 21]);
    need(megabyte_model_load(&model, argv[1], NULL, &error), &error);
    for (int i = 0; i < n; i++) {
        megabyte_engine_options how = {.threads = (unsigned)atoi(argv[3 + i])};
        need(megabyte_engine_create(&engine[i], model, &how, NULL, &error), &error);
        megabyte_stream_options options = {.engine = engine[i]};
        need(megabyte_stream_create(&stream[i], model, &options, NULL, &error), &error);
    }
    for (int r = -1; r < rounds; r++) /* the first round warms up */
        for (int w = 0; w < 2; w++)
            for (int i = 0; i < n; i++) speed[w][i][r < 0 ? 0 : r] = measure[w](stream[i], text);
    for (int w = 0; w < 2; w++)
        for (int i = 0; i < n; i++) {
            for (int r = 0; r < rounds; r++) ratio[r] = speed[w][i][r] / speed[w][0][r];
            printf("%-10s %2s threads %8.0f bytes/s  %5.1f%%\n", what[w], argv[3 + i],
                   median(speed[w][i], rounds), 100 * median(ratio, rounds));
        }
    for (int i = 0; i < n; i++) megabyte_stream_free(stream[i]), megabyte_engine_free(engine[i]);
    megabyte_model_close(model);
    return 0;
}
