/* measure.c - see measure.h.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#include "measure.h"
#include "mbrun.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ==================================================================================== 1 samples */

void add_sample(samples *s, double rate) {
    if (s->n == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 256;
        double *larger = realloc(s->rate, s->capacity * sizeof *larger);
        if (!larger) die("memory", "not enough of it");
        s->rate = larger;
    }
    s->rate[s->n++] = rate;
}

static int compare(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

speed summary(samples *s) {
    if (!s->n) return (speed){0, 0};
    qsort(s->rate, s->n, sizeof *s->rate, compare);
    return (speed){s->rate[((s->n - 1) * 9 + 5) / 10], s->rate[(s->n - 1) / 2]};
}

/* ======================================================================= 2 the machine's limits */

#define SAMPLE_SECONDS 1.5e-3
#define MAX_SAMPLES 1000

/* Threads that run the same burst side by side, sample after sample. */
typedef struct team {
    burst run;
    const char *memory;
    size_t slice; /* bytes of it for each thread */
    size_t rounds, n_samples;
    uint32_t threads;
    atomic_size_t arrived;
    double *times; /* [threads][n_samples][2]: begin, end */
} team;

typedef struct member {
    team *of;
    uint32_t index;
    pthread_t thread;
} member;

static void *run_member(void *argument) {
    const member *m = argument;
    team *t = m->of;
    double *times = t->times + (size_t)m->index * t->n_samples * 2;
    const char *slice = t->memory + m->index * t->slice;
    for (size_t i = 0; i < t->n_samples; i++) {
        atomic_fetch_add(&t->arrived, 1); /* all begin together */
        for (unsigned spins = 0; atomic_load(&t->arrived) < (i + 1) * t->threads; spins++)
            if (spins > 10000) sched_yield();
        times[2 * i] = now();
        t->run(slice, t->slice, t->rounds);
        times[2 * i + 1] = now();
    }
    return NULL;
}

/* How many rounds last about one sample. */
static size_t calibrate(const team *t) {
    for (size_t rounds = 1;; rounds *= 2) {
        double start = now();
        t->run(t->memory, t->slice, rounds);
        double seconds = now() - start;
        if (seconds > SAMPLE_SECONDS / 2) {
            double better = (double)rounds * SAMPLE_SECONDS / seconds;
            return better < 1 ? 1 : (size_t)better;
        }
    }
}

void measure_limit(burst run, const void *memory, size_t size, uint32_t threads, double seconds,
                   samples *out) {
    team t = {
        .run = run, .memory = memory, .slice = size / threads / 4096 * 4096, .threads = threads};
    t.rounds = calibrate(&t);
    double wanted = seconds / SAMPLE_SECONDS;
    t.n_samples = wanted > MAX_SAMPLES ? MAX_SAMPLES : wanted < 10 ? 10 : (size_t)wanted;
    t.times = allocate(threads * t.n_samples * 2 * sizeof *t.times, 1);
    atomic_init(&t.arrived, 0);
    member *members = allocate(threads * sizeof *members, 1);
    for (uint32_t i = 0; i < threads; i++) {
        members[i] = (member){.of = &t, .index = i};
        if (i && pthread_create(&members[i].thread, NULL, run_member, &members[i]))
            die("bench", "cannot start a thread");
    }
    run_member(&members[0]);
    for (uint32_t i = 1; i < threads; i++) pthread_join(members[i].thread, NULL);

    double work = run(memory, t.slice, t.rounds) * threads; /* the same every time */
    for (size_t i = 0; i < t.n_samples; i++) {
        double begin = t.times[2 * i], end = t.times[2 * i + 1];
        for (size_t j = 1; j < threads; j++) {
            const double *other = t.times + (j * t.n_samples + i) * 2;
            if (other[0] < begin) begin = other[0];
            if (other[1] > end) end = other[1];
        }
        add_sample(out, work / (end - begin));
    }
    free(members);
    free(t.times);
}
