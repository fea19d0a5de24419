/* parts.c - mbrun bench --parts: where a byte's time goes in one stream, by stage and part of the
 * work, beginning and far into the context. SPDX-License-Identifier: MIT
 *
 * Two engines take turns: one that is timed inside, whose clock costs time itself (some 25 ns a
 * call), and one that is not. The figures are means over the faster half of the samples. */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#include "mbrun.h"
#include "measure.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_SAMPLES = 4096 };

/* Seconds per byte: in all, and inside of the library (times of the clock's engine only). */
typedef struct byte_time {
    double all, part[MEGABYTE_MAX_STAGES][MEGABYTE_PARTS];
} byte_time;

/* One number of threads at one place of the context. */
typedef struct place_time {
    uint32_t threads, bytes;
    int is_far; /* after so many bytes, not the first of them */
    byte_time timed, plain;
    speed bandwidth;
} place_time;

/* In the table's order. */
static const struct {
    megabyte_part part;
    const char *name, *key;
} rows[] = {
    {MEGABYTE_PART_PRODUCT, "products", "products"},
    {MEGABYTE_PART_ATTENTION, "attention", "attention"},
    {MEGABYTE_PART_NORM, "norms", "norms"},
    {MEGABYTE_PART_ACTIVATION, "activations", "activations"},
    {MEGABYTE_PART_OUTPUT, "output", "output"},
    {MEGABYTE_PART_WAIT, "waiting", "waiting"},
    {MEGABYTE_PART_OTHER, "other", "other"},
};

static uint64_t nanoseconds(void *context) {
    struct timespec t;
    (void)context;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* ------------------------------------------------------------------------------------ measuring */

/* An engine with one stream, and its samples. */
typedef struct runner {
    session s; /* the model is borrowed */
    megabyte_stream *stream;
    byte_time *sample; /* [MOST_SAMPLES] */
    size_t n;
} runner;

static void open_runner(runner *r, const parts_setup *p, uint32_t threads, int is_timed) {
    r->s = *p->s;
    r->s.clock = is_timed ? nanoseconds : NULL;
    r->s.draft_max = MEGABYTE_NO_DRAFT;
    open_engine(&r->s, p->shared, threads);
    r->stream = new_stream(&r->s, 0, p->file_type);
    r->sample = allocate(MOST_SAMPLES, sizeof *r->sample);
    r->n = 0;
}

static void close_runner(runner *r) {
    megabyte_stream_free(r->stream);
    megabyte_engine_free(r->s.engine);
    free(r->sample);
}

/* To where a sample of `steps` bytes may begin. */
static void place_stream(megabyte_stream *stream, const parts_setup *p, const place_time *at,
                         uint32_t steps) {
    uint64_t position = megabyte_stream_position(stream), wanted = at->is_far ? at->bytes : 0;
    if (at->is_far ? position == at->bytes : position + steps <= at->bytes) return;
    if (wanted && position > wanted && !megabyte_stream_rewind(stream, wanted)) return;
    megabyte_stream_reset(stream);
    if (megabyte_stream_feed(stream, p->text, wanted < p->n_text ? (size_t)wanted : p->n_text))
        die("bench", "the text does not suit this model");
}

/* One sample: whole patches, few enough that going back to where they began is cheap. */
static void run_sample(runner *r, const parts_setup *p, const place_time *at) {
    uint64_t before[MEGABYTE_MAX_STAGES][MEGABYTE_PARTS],
        after[MEGABYTE_MAX_STAGES][MEGABYTE_PARTS];
    uint32_t patch = p->s->info.patch_bytes, steps = (16 + patch - 1) / patch * patch;
    byte_time *t = &r->sample[r->n];
    place_stream(r->stream, p, at, steps);
    uint64_t position = megabyte_stream_position(r->stream);
    megabyte_engine_parts(r->s.engine, before);
    double start = now();
    for (uint32_t i = 0; i < steps; i++)
        megabyte_stream_step(r->stream, p->text[(position + i) % p->n_text]);
    t->all = (now() - start) / steps;
    megabyte_engine_parts(r->s.engine, after);
    for (size_t s = 0; s < MEGABYTE_MAX_STAGES; s++)
        for (size_t k = 0; k < MEGABYTE_PARTS; k++)
            t->part[s][k] = 1e-9 * (double)(after[s][k] - before[s][k]) / steps;
    r->n++;
}

static int compare(const void *a, const void *b) {
    const byte_time *x = a, *y = b;
    return (x->all > y->all) - (x->all < y->all);
}

static byte_time faster_half(runner *r) {
    byte_time mean = {.all = 0};
    size_t n = (r->n + 1) / 2;
    qsort(r->sample, r->n, sizeof *r->sample, compare);
    for (size_t i = 0; i < n; i++) {
        mean.all += r->sample[i].all / (double)n;
        for (size_t s = 0; s < MEGABYTE_MAX_STAGES; s++)
            for (size_t k = 0; k < MEGABYTE_PARTS; k++)
                mean.part[s][k] += r->sample[i].part[s][k] / (double)n;
    }
    return mean;
}

static void measure_place(const parts_setup *p, place_time *at) {
    runner timed, plain;
    samples read = {NULL, 0, 0};
    open_runner(&timed, p, at->threads, 1);
    open_runner(&plain, p, at->threads, 0);
    burst reading = kernels_for(plain.s.isa).read;
    measure_limit(reading, p->memory, p->memory_size, at->threads, p->seconds / 4, &read);
    for (int i = 0; i < 2; i++) { /* unmeasured: pages come in, the clock goes up */
        run_sample(&timed, p, at);
        run_sample(&plain, p, at);
        timed.n = plain.n = 0;
    }
    for (double end = now() + 2 * p->seconds; !stop_requested() && plain.n < MOST_SAMPLES;) {
        run_sample(&timed, p, at);
        run_sample(&plain, p, at);
        if (now() > end) break;
    }
    measure_limit(reading, p->memory, p->memory_size, at->threads, p->seconds / 4, &read);
    at->timed = faster_half(&timed);
    at->plain = faster_half(&plain);
    at->bandwidth = summary(&read);
    free(read.rate);
    close_runner(&timed);
    close_runner(&plain);
}

/* --------------------------------------------------------------------------------------- report */

static double part_sum(const place_time *at, uint32_t n_stages, size_t part) {
    double sum = 0;
    for (uint32_t s = 0; s < n_stages; s++) sum += at->timed.part[s][part];
    return sum;
}

static double stage_sum(const place_time *at, uint32_t stage) {
    double sum = 0;
    for (size_t k = 0; k < MEGABYTE_PARTS; k++) sum += at->timed.part[stage][k];
    return sum;
}

static double sum_of_all(const place_time *at, uint32_t n_stages) {
    double sum = 0;
    for (uint32_t s = 0; s < n_stages; s++) sum += stage_sum(at, s);
    return sum;
}

/* Bytes of weights that a byte reads, by the time of its products. */
static double product_rate(const session *s, const place_time *at) {
    double time = part_sum(at, s->info.n_stages, MEGABYTE_PART_PRODUCT);
    return time > 0 ? s->info.weight_bytes_per_byte / time : 0;
}

static void print_cell(double seconds, double sum) {
    printf("  %8.2f %5.1f%%", 1e6 * seconds, sum > 0 ? 100 * seconds / sum : 0);
}

static void print_place(const session *s, const place_time *at) {
    uint32_t n = s->info.n_stages;
    double sum = sum_of_all(at, n);
    printf("\n%u thread%s, %s %u bytes\n  %-12s", at->threads, at->threads > 1 ? "s" : "",
           at->is_far ? "after" : "the first", at->bytes, "");
    for (uint32_t i = 0; i < n; i++) printf("  %15s", stage_name(&s->info, i));
    printf("  %15s\n", "all");
    for (size_t k = 0; k < COUNT_OF(rows); k++) {
        printf("  %-12s", rows[k].name);
        for (uint32_t i = 0; i < n; i++) print_cell(at->timed.part[i][rows[k].part], sum);
        print_cell(part_sum(at, n, rows[k].part), sum);
        putchar('\n');
    }
    printf("  %-12s", "sum");
    for (uint32_t i = 0; i < n; i++) print_cell(stage_sum(at, i), sum);
    print_cell(sum, sum);
    printf("\n  The whole byte: %.2f us with the clock, %.2f us without it: %.0f bytes/s.\n",
           1e6 * at->timed.all, 1e6 * at->plain.all, 1 / at->plain.all);
    printf("  Products read %.2f MB of weights a byte at %.1f GB/s, %.0f%% of the %.1f GB/s that "
           "reading alone does.\n",
           1e-6 * s->info.weight_bytes_per_byte, 1e-9 * product_rate(s, at),
           100 * product_rate(s, at) / at->bandwidth.high, 1e-9 * at->bandwidth.high);
}

static void json_place(const session *s, const place_time *at) {
    printf("{\"threads\": %u, \"bytes\": %u, \"far\": %s", at->threads, at->bytes,
           at->is_far ? "true" : "false");
    json_field("seconds_per_byte", at->plain.all);
    json_field("timed_seconds_per_byte", at->timed.all);
    json_field("parts_seconds_per_byte", sum_of_all(at, s->info.n_stages));
    json_field("product_bytes_per_second", product_rate(s, at));
    json_field("read_bytes_per_second", at->bandwidth.high);
    printf(", \"stages\": [");
    for (uint32_t i = 0; i < s->info.n_stages; i++) {
        printf("%s{\"name\": \"%s\"", i ? ", " : "", stage_name(&s->info, i));
        for (size_t k = 0; k < COUNT_OF(rows); k++)
            json_field(rows[k].key, at->timed.part[i][rows[k].part]);
        putchar('}');
    }
    printf("]}");
}

static void print_all(const parts_setup *p, const place_time *places, size_t n) {
    if (p->shared->json) {
        printf("{\"model\": ");
        json_text(stdout, p->s->path, strlen(p->s->path));
        printf(", \"quantization\": \"%s\"", p->s->info.quantization);
        json_field("weight_bytes_per_byte", p->s->info.weight_bytes_per_byte);
        printf(", \"parts\": [");
        for (size_t i = 0; i < n; i++) {
            if (i) printf(", ");
            json_place(p->s, &places[i]);
        }
        puts("]}");
        return;
    }
    print_harmless(stdout, p->s->path);
    puts(": one stream, in microseconds a byte, and of the sum of all parts");
    for (size_t i = 0; i < n; i++) print_place(p->s, &places[i]);
}

void run_parts(const parts_setup *p) {
    place_time places[4];
    size_t n = 0;
    for (uint32_t i = 0; i < p->n_threads; i++)
        for (uint32_t k = 0; k < p->n_places && !stop_requested(); k++) {
            places[n] =
                (place_time){.threads = p->threads[i], .bytes = p->place[k], .is_far = k > 0};
            measure_place(p, &places[n++]);
        }
    if (!stop_requested()) print_all(p, places, n);
}
