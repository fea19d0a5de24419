/* measure.h - samples of a speed, and the machine's own limits: what the two halves of mbrun bench
 * (mbbench.c, parts.c) share.
 * SPDX-License-Identifier: MIT */
#ifndef MEASURE_H
#define MEASURE_H

#include "mbrun.h"
#include "peak.h"

typedef struct samples {
    double *rate; /* per second */
    size_t n, capacity;
} samples;
void add_sample(samples *s, double rate);

typedef struct speed {
    double high, median; /* 90th and 50th percentile */
} speed;
speed summary(samples *s); /* sorts them; zeros if there are none */

/* Threads that run the same burst side by side for about so many seconds, each on its slice of
 * `memory` (size: a multiple of threads * 4096); adds samples of their work per second. */
void measure_limit(burst run, const void *memory, size_t size, uint32_t threads, double seconds,
                   samples *out);

/* ----------------------------------------------------------------------------- parts.c: --parts */

/* What is measured, and with what. */
typedef struct parts_setup {
    const session *s; /* the model; an engine is opened for every measurement */
    const shared_options *shared;
    const char *file_type;
    const uint8_t *text; /* [n_text] */
    size_t n_text;
    double seconds; /* for each measurement */
    const void *memory; /* [memory_size] to be read: the bandwidth */
    size_t memory_size;
    uint32_t threads[2], n_threads; /* numbers of threads */
    uint32_t place[2], n_places; /* bytes of context: the first ones; those before the first */
} parts_setup;

/* Where a byte's time goes, printed as a table or as JSON; nothing once a stop is requested. */
void run_parts(const parts_setup *setup);

#endif
