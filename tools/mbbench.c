/* mbbench.c - mbrun bench: bytes per second, beside what this machine could do at best, measured in
 * the same run. SPDX-License-Identifier: MIT
 *
 * Other programs disturb a measurement for milliseconds or for minutes. Against the first,
 * everything is measured as many short samples; against the second, limits and workloads take turns
 * in ROUNDS rounds, limits before and after. Both sides of every ratio are the same statistic: the
 * 90th percentile of the samples, the speed of an undisturbed machine. Medians stand beside it. */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#include "mbrun.h"
#include "peak.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ==================================================================================== 1 samples */

typedef struct samples {
    double *rate; /* per second */
    size_t n, capacity;
} samples;

static void add_sample(samples *s, double rate) {
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

typedef struct speed {
    double high, median; /* 90th and 50th percentile */
} speed;

static speed summary(samples *s) {
    if (!s->n) return (speed){0, 0};
    qsort(s->rate, s->n, sizeof *s->rate, compare);
    return (speed){s->rate[(s->n - 1) * 9 / 10], s->rate[(s->n - 1) / 2]};
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

static void measure_limit(burst run, const void *memory, size_t size, uint32_t threads,
                          double seconds, samples *out) {
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

/* ================================================================================== 3 workloads */

enum { ROUNDS = 4, MOST_STREAMS = 64, TEXT_BYTES = 32768, SHORT_CONTEXT = 256, STEPS = 32 };

/* COMPRESS and DECOMPRESS: `streams` blocks of `bytes`, by the model alone, by context mixing
 * alone, mixed. */
typedef enum work_kind { SCORE, STEP, FEED, COMPRESS, DECOMPRESS } work_kind;

typedef struct workload {
    const char *format; /* its name; %u: bytes */
    const char *key; /* its name for --json */
    work_kind kind;
    uint32_t streams, bytes; /* bytes: per stream, then it starts again from nothing */
    int level; /* of compression */
    int beside; /* COMPRESS and DECOMPRESS: the workload to be compared with, or -1 */
} workload;

enum {
    SCORE_SHORT,
    SCORE_LONG,
    STREAM_1,
    STREAMS_16,
    STREAMS_64,
    FEEDING,
    COMPRESS_NETWORK,
    COMPRESS_LONG,
    COMPRESS_MIXED,
    DECOMPRESS_NETWORK
}; /* indices into: */
static const workload workloads[] = {
    {"score, windows of %u", "score_short", SCORE, 1, 512, 0, -1},
    {"score, windows of %u", "score_long", SCORE, 1, 8192, 0, -1},
    {"1 stream, %u bytes", "stream_1", STEP, 1, SHORT_CONTEXT, 0, -1},
    {"16 streams, %u bytes each", "streams_16", STEP, 16, SHORT_CONTEXT, 0, -1},
    {"64 streams, %u bytes each", "streams_64", STEP, 64, SHORT_CONTEXT, 0, -1},
    {"feed (prefill) %u", "feed", FEED, 1, 4096, 0, -1},
    {"compress -5, %u bytes", "compress_model", COMPRESS, 1, 8192, 5, SCORE_LONG},
    {"compress -5, %u bytes", "compress_model_long", COMPRESS, 1, 32768, 5, -1},
    {"compress -7, %u bytes", "compress_mixed", COMPRESS, 1, 32768, 7, COMPRESS_LONG},
    {"decompress -5, 64 times %u", "decompress_model", DECOMPRESS, 64, 512, 5, SCORE_SHORT},
    {"decompress -7, 64 times %u", "decompress_mixed", DECOMPRESS, 64, 512, 7, DECOMPRESS_NETWORK},
    {"compress -3, %u bytes", "compress_context_mixing", COMPRESS, 1, TEXT_BYTES, 3, -1},
    {"decompress -3, %u bytes", "decompress_context_mixing", DECOMPRESS, 1, TEXT_BYTES, 3, -1},
    {"compress -1, %u bytes", "compress_context_mixing_1mb", COMPRESS, 1, TEXT_BYTES, 1, -1},
    {"decompress -1, %u bytes", "decompress_context_mixing_1mb", DECOMPRESS, 1, TEXT_BYTES, 1, -1},
};
enum { N_WORKLOADS = COUNT_OF(workloads) };

/* Everything measured with one number of threads. */
typedef struct trial {
    uint32_t threads;
    samples arithmetic[2], read, work[N_WORKLOADS];
    speed peak, bandwidth, rate[N_WORKLOADS];
} trial;

typedef struct bench {
    shared_options shared;
    session s;
    const char *file_type;
    double seconds;
    double open_seconds; /* the median of a few */
    int is_f32;
    peak_kernels kernels;
    void *memory; /* as large as the weights */
    size_t memory_size;
    uint8_t text[TEXT_BYTES];
    megabyte_codec *codec
        [N_WORKLOADS]; /* of COMPRESS and DECOMPRESS; NULL if the model cannot code all bytes */
    uint8_t *code[N_WORKLOADS]; /* what is to be decompressed */
    size_t n_code[N_WORKLOADS];
    megabyte_stream *full; /* with the model's whole context */
    megabyte_stream *batch[MOST_STREAMS];
    uint32_t position; /* of the streams in use by a STEP workload */
    uint32_t n_trials;
    trial trials[2];
} bench;

static const char paragraph[] = "The harbour lay quiet under a low sky, and the boats that had "
                                "come in before the storm were tied two and three "
                                "abreast along the old stone quay. An hour after noon the rain "
                                "began. It fell straight and without wind, so that "
                                "the men who were mending nets in the doorways did not trouble to "
                                "move, and the dog went on sleeping on the "
                                "steps of the custom house. \"It will clear by evening,\" said the "
                                "pilot, who was never asked and always answered. "
                                "Nobody looked up. Far out, beyond the 2 white buoys, a sail stood "
                                "as if it had been painted there in 1891.\n\n";

static void check(megabyte_status status) {
    if (status) die("bench", "%s", megabyte_status_string(status));
}

/* The paragraph again and again; then, if the model codes bytes, what it writes itself, which is as
 * hard as text that suits it: 64 streams of 512 bytes, begun with 64 pieces of the paragraph. */
static void fill_text(bench *b) {
    enum { EACH = TEXT_BYTES / MOST_STREAMS };
    uint32_t vocabulary = b->s.info.vocabulary;
    megabyte_sampling how = {.temperature = 1, .seed = 1};
    megabyte_stream *stream[MOST_STREAMS];
    uint8_t byte[MOST_STREAMS];
    for (size_t i = 0; i < TEXT_BYTES; i++) {
        uint32_t c = (uint8_t)paragraph[i % (sizeof paragraph - 1)];
        b->text[i] = (uint8_t)(c % (vocabulary < 256 ? vocabulary : 256));
    }
    if (vocabulary < 256) return;
    open_engine(&b->s, &b->shared, b->trials[b->n_trials - 1].threads);
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        uint64_t context = b->s.info.patch_bytes > EACH ? b->s.info.patch_bytes : EACH;
        stream[i] =
            new_stream(&b->s, context < b->s.info.context_bytes ? context : b->s.info.context_bytes,
                       b->file_type);
        check(megabyte_stream_feed(stream[i], paragraph + 8 * i, 32));
    }
    for (size_t t = 0; t < EACH; t++) {
        for (size_t i = 0; i < MOST_STREAMS; i++) {
            megabyte_status status = megabyte_stream_sample(stream[i], &how, &byte[i]);
            if (status == MEGABYTE_END) /* go on: these draw bytes only */
                status = megabyte_logits_sample(megabyte_stream_logits(stream[i]), vocabulary, NULL,
                                                0, &how, &byte[i]);
            check(status);
            b->text[i * EACH + t] = byte[i];
        }
        check(megabyte_stream_step_batch(stream, byte, MOST_STREAMS));
    }
    for (size_t i = 0; i < MOST_STREAMS; i++) megabyte_stream_free(stream[i]);
    megabyte_engine_free(b->s.engine);
    b->s.engine = NULL;
}

static uint32_t bytes_of(const bench *b, const workload *w) {
    return w->bytes < b->s.info.context_bytes || w->level ? w->bytes
                                                          : (uint32_t)b->s.info.context_bytes;
}

/* Each stream writes another part of the text. */
static void step_all(bench *b, uint32_t n, uint32_t at) {
    uint8_t byte[MOST_STREAMS];
    for (uint32_t i = 0; i < n; i++) byte[i] = b->text[(i * 97 + at) % TEXT_BYTES];
    check(n == 1 ? megabyte_stream_step(b->batch[0], byte[0])
                 : megabyte_stream_step_batch(b->batch, byte, n));
}

/* Streams go on from sample to sample, STEPS bytes each time: short samples find the quiet moments.
 * Starting again is not part of it. */
static double run_steps(bench *b, const workload *w) {
    if (b->position == 0 || b->position + STEPS > bytes_of(b, w)) {
        for (uint32_t i = 0; i < w->streams; i++) megabyte_stream_reset(b->batch[i]);
        b->position = 0;
    }
    double start = now();
    for (uint32_t i = 0; i < STEPS; i++) step_all(b, w->streams, b->position++);
    return (double)STEPS * w->streams / (now() - start);
}

/* Everything through a codec, into `out` if it is not NULL; returns the bytes that came out. */
static size_t run_codec(megabyte_codec *codec, const uint8_t *bytes, size_t n, uint8_t *out) {
    static uint8_t piece[TEXT_BYTES];
    size_t consumed, produced, total = 0;
    megabyte_codec_reset(codec);
    do {
        check(megabyte_codec_push(codec, bytes, n, &consumed));
        bytes += consumed;
        n -= consumed;
        if (!n) check(megabyte_codec_finish(codec));
        do {
            check(megabyte_codec_pull(codec, piece, sizeof piece, &produced));
            if (out) memcpy(out + total, piece, produced);
            total += produced;
        } while (produced);
    } while (n);
    return total;
}

/* Blocks are decoded by streams whose context is no longer than it needs to be. */
static void open_codec(bench *b, size_t i) {
    const workload *w = &workloads[i];
    megabyte_codec_options o = {.engine = b->s.engine,
                                .block_size = w->bytes,
                                .level = w->level,
                                .streams = w->streams,
                                .file_type = b->file_type};
    while (o.context_shift < 15 && b->s.info.context_bytes >> (o.context_shift + 1) >= w->bytes &&
           b->s.info.context_bytes >> (o.context_shift + 1) >= b->s.info.patch_bytes)
        o.context_shift++;
    check(megabyte_codec_create(&b->codec[i], b->s.model, MEGABYTE_MODE_COMPRESS, &o, NULL, NULL));
    if (w->kind == COMPRESS) return;
    b->code[i] = allocate(2 * TEXT_BYTES, 1);
    b->n_code[i] = run_codec(b->codec[i], b->text, (size_t)w->bytes * w->streams, b->code[i]);
    megabyte_codec_free(b->codec[i]);
    megabyte_file_header header;
    check(megabyte_file_header_read(b->code[i], b->n_code[i], &header, NULL));
    o.mixing_memory = header.mixing_memory ? header.mixing_memory : MEGABYTE_NO_CONTEXT_MIXING;
    check(
        megabyte_codec_create(&b->codec[i], b->s.model, MEGABYTE_MODE_DECOMPRESS, &o, NULL, NULL));
}

/* One sample: bytes per second. */
static double run_workload(bench *b, const workload *w) {
    uint32_t n = bytes_of(b, w);
    size_t i = (size_t)(w - workloads);
    double bits = 0, start = now();
    if (w->kind == STEP) return run_steps(b, w);
    if (w->level && !b->codec[i]) return 0;
    if (w->kind == COMPRESS) run_codec(b->codec[i], b->text, n, NULL);
    if (w->kind == DECOMPRESS) run_codec(b->codec[i], b->code[i], b->n_code[i], NULL);
    if (w->level) return (double)n * w->streams / (now() - start);
    megabyte_stream_reset(b->full);
    check(w->kind == SCORE ? megabyte_stream_score(b->full, b->text, n, &bits, NULL)
                           : megabyte_stream_feed(b->full, b->text, n));
    return (double)n / (now() - start);
}

static void measure_limits(bench *b, trial *t, double seconds) {
    burst arithmetic[2] = {b->is_f32 ? b->kernels.f32 : b->kernels.int8[0],
                           b->is_f32 ? NULL : b->kernels.int8[1]};
    for (size_t i = 0; i < 2; i++)
        if (arithmetic[i])
            measure_limit(arithmetic[i], b->memory, b->memory_size, t->threads, seconds,
                          &t->arithmetic[i]);
    measure_limit(b->kernels.read, b->memory, b->memory_size, t->threads, seconds, &t->read);
}

static void open_streams(bench *b, uint32_t threads) {
    uint64_t context = SHORT_CONTEXT;
    open_engine(&b->s, &b->shared, threads);
    if (context > b->s.info.context_bytes) context = b->s.info.context_bytes;
    if (context < b->s.info.patch_bytes) context = b->s.info.patch_bytes;
    b->full = new_stream(&b->s, 0, b->file_type);
    for (size_t i = 0; i < MOST_STREAMS; i++)
        b->batch[i] = new_stream(&b->s, context, b->file_type);
    for (size_t i = 0; i < N_WORKLOADS; i++)
        if (workloads[i].level && b->s.info.vocabulary >= 256) open_codec(b, i);
    b->kernels = kernels_for(b->s.isa);
}

static void close_streams(bench *b) {
    for (size_t i = 0; i < MOST_STREAMS; i++) megabyte_stream_free(b->batch[i]);
    megabyte_stream_free(b->full);
    for (size_t i = 0; i < N_WORKLOADS; i++) {
        megabyte_codec_free(b->codec[i]);
        free(b->code[i]);
        b->codec[i] = NULL;
        b->code[i] = NULL;
    }
    megabyte_engine_free(b->s.engine);
    b->s.engine = NULL;
}

static void summarise(trial *t) {
    speed second = summary(&t->arithmetic[1]);
    t->peak = summary(&t->arithmetic[0]);
    if (second.high > t->peak.high) t->peak = second;
    t->bandwidth = summary(&t->read);
    for (size_t i = 0; i < N_WORKLOADS; i++) t->rate[i] = summary(&t->work[i]);
    for (size_t i = 0; i < N_WORKLOADS; i++) free(t->work[i].rate);
    free(t->arithmetic[0].rate);
    free(t->arithmetic[1].rate);
    free(t->read.rate);
}

static void run_trial(bench *b, trial *t) {
    double part = b->seconds / ROUNDS;
    open_streams(b, t->threads);
    for (size_t i = 0; i < N_WORKLOADS; i++) { /* unmeasured: pages come in, the clock goes up */
        b->position = 0;
        run_workload(b, &workloads[i]);
    }
    for (int round = 0; round < ROUNDS && !stop_requested(); round++) {
        measure_limits(b, t, part);
        for (size_t i = 0; i < N_WORKLOADS && !stop_requested(); i++) {
            double start = now();
            b->position = 0;
            do add_sample(&t->work[i], run_workload(b, &workloads[i]));
            while (now() - start < part);
        }
    }
    measure_limits(b, t, part);
    close_streams(b);
    summarise(t);
}

/* ===================================================================================== 4 report */

/* Feeding skips the finer stages but for the last patch. */
static double macs_per_byte(const bench *b, const workload *w) {
    const megabyte_stage_info *global = &b->s.info.stage[0];
    if (w->kind != FEED) return b->s.info.macs_per_byte;
    return (double)global->macs_per_token / (double)global->bytes_per_token;
}

static double of_peak(const bench *b, const trial *t, size_t i) {
    return macs_per_byte(b, &workloads[i]) * t->rate[i].high / t->peak.high;
}

static double of_bandwidth(const bench *b, const trial *t, size_t i) {
    return b->s.info.weight_bytes_per_byte * t->rate[i].high / t->bandwidth.high;
}

static void print_trial(const bench *b, const trial *t) {
    char name[48];
    printf("\n%u thread%s\n  %-28s %10.1f %10.1f  GMAC/s\n", t->threads, t->threads > 1 ? "s" : "",
           b->is_f32 ? "f32 multiply-add peak" : "int8 peak", 1e-9 * t->peak.high,
           1e-9 * t->peak.median);
    printf("  %-28s %10.1f %10.1f  GB/s\n", "read bandwidth", 1e-9 * t->bandwidth.high,
           1e-9 * t->bandwidth.median);
    for (size_t i = 0; i < N_WORKLOADS; i++) {
        snprintf(name, sizeof name, workloads[i].format, bytes_of(b, &workloads[i]));
        printf("  %-28s %10.0f %10.0f  bytes/s", name, t->rate[i].high, t->rate[i].median);
        if (workloads[i].level) {
            int beside = workloads[i].beside;
            if (beside >= 0) printf("  %6.1f%% of ", 100 * t->rate[i].high / t->rate[beside].high);
            if (beside >= 0) printf(workloads[beside].format, bytes_of(b, &workloads[beside]));
            putchar('\n');
            continue;
        }
        printf("  %6.1f%% of peak", 100 * of_peak(b, t, i));
        if (workloads[i].kind == FEED) putchar('\n');
        else printf("  %6.1f%% of bandwidth\n", 100 * of_bandwidth(b, t, i));
    }
}

static void print_ratios(const bench *b) {
    printf("\n%-42s", "The ratios that matter");
    for (uint32_t i = 0; i < b->n_trials; i++)
        printf(" %5u thread%s", b->trials[i].threads, b->trials[i].threads > 1 ? "s" : " ");
    printf("\n  %-40s", b->is_f32 ? "scoring, of the f32 peak" : "scoring, of the int8 peak");
    for (uint32_t i = 0; i < b->n_trials; i++)
        printf(" %12.1f%%", 100 * of_peak(b, &b->trials[i], SCORE_SHORT));
    printf("\n  %-40s", "one stream, of the read bandwidth");
    for (uint32_t i = 0; i < b->n_trials; i++)
        printf(" %12.1f%%", 100 * of_bandwidth(b, &b->trials[i], STREAM_1));
    printf("\n  %-40s", "64 streams over one stream");
    for (uint32_t i = 0; i < b->n_trials; i++)
        printf(" %12.2fx", b->trials[i].rate[STREAMS_64].high / b->trials[i].rate[STREAM_1].high);
    putchar('\n');
}

static void print_report(const bench *b) {
    const megabyte_info *info = &b->s.info;
    printf("%s: %.1f M parameters, %s, %.2f M multiply-accumulates and %.2f MB of weights a byte; "
           "%s\n",
           b->s.path, 1e-6 * (double)info->parameters, info->quantization,
           1e-6 * info->macs_per_byte, 1e-6 * info->weight_bytes_per_byte,
           megabyte_isa_name(b->s.isa));
    printf("Opened in %.2f ms.\n", 1e3 * b->open_seconds);
    printf("First column: 90th percentile, second: median; bandwidth: of a buffer of the file's "
           "%.1f MB.\n"
           "Many bytes computed together share one reading of the weights: then more than 100%% of "
           "bandwidth.\n",
           1e-6 * (double)info->file_bytes);
    for (uint32_t i = 0; i < b->n_trials; i++) print_trial(b, &b->trials[i]);
    print_ratios(b);
}

static void json_speed(const char *key, speed s) {
    printf("\"%s\": ", key);
    json_real(stdout, s.high);
    printf(", \"%s_median\": ", key);
    json_real(stdout, s.median);
}

static void json_trial(const bench *b, const trial *t) {
    printf("{\"threads\": %u, ", t->threads);
    json_speed("peak_macs_per_second", t->peak);
    printf(", ");
    json_speed("read_bytes_per_second", t->bandwidth);
    for (size_t i = 0; i < N_WORKLOADS; i++) {
        printf(", \"%s\": {\"bytes\": %u, \"streams\": %u, ", workloads[i].key,
               bytes_of(b, &workloads[i]), workloads[i].streams);
        json_speed("bytes_per_second", t->rate[i]);
        if (workloads[i].level) {
            if (workloads[i].beside >= 0) {
                printf(", \"of_%s\": ", workloads[workloads[i].beside].key);
                json_real(stdout, t->rate[i].high / t->rate[workloads[i].beside].high);
            }
            putchar('}');
            continue;
        }
        printf(", \"of_peak\": ");
        json_real(stdout, of_peak(b, t, i));
        if (workloads[i].kind != FEED) {
            printf(", \"of_bandwidth\": ");
            json_real(stdout, of_bandwidth(b, t, i));
        }
        putchar('}');
    }
    printf(", \"scoring_of_peak\": ");
    json_real(stdout, of_peak(b, t, SCORE_SHORT));
    printf(", \"stream_of_bandwidth\": ");
    json_real(stdout, of_bandwidth(b, t, STREAM_1));
    printf(", \"streams_64_over_1\": ");
    json_real(stdout, t->rate[STREAMS_64].high / t->rate[STREAM_1].high);
    putchar('}');
}

static void print_json(const bench *b) {
    printf("{\"model\": ");
    json_text(stdout, b->s.path, strlen(b->s.path));
    printf(", \"quantization\": \"%s\", \"isa\": \"%s\", \"peak\": \"%s\", \"statistic\": \"90th "
           "percentile\"",
           b->s.info.quantization, megabyte_isa_name(b->s.isa),
           b->is_f32 ? "f32 multiply, add" : "int8");
    printf(", \"macs_per_byte\": ");
    json_real(stdout, b->s.info.macs_per_byte);
    printf(", \"weight_bytes_per_byte\": ");
    json_real(stdout, b->s.info.weight_bytes_per_byte);
    printf(", \"open_seconds\": ");
    json_real(stdout, b->open_seconds);
    printf(", \"read_buffer_bytes\": %zu, \"trials\": [", b->memory_size);
    for (uint32_t i = 0; i < b->n_trials; i++) {
        if (i) printf(", ");
        json_trial(b, &b->trials[i]);
    }
    puts("]}");
}

/* A buffer to read, of the weights' size: whole pages for each thread, and small numbers that are
 * valid floats. In huge pages where the system has them, which reads 5 to 10% faster: a limit
 * should be the highest there is. */
static void make_memory(bench *b, uint32_t threads) {
    size_t unit = (size_t)threads * 4096, size = (size_t)b->s.info.file_bytes / unit * unit;
    b->memory_size = size < unit ? unit : size;
    if (posix_memalign(&b->memory, (size_t)2 << 20, b->memory_size))
        die("memory", "not enough of it");
#ifdef MADV_HUGEPAGE
    madvise(b->memory, b->memory_size, MADV_HUGEPAGE);
#endif
    memset(b->memory, 1, b->memory_size);
}

/* Opening looks at the header and tables only: it must not depend on the file's size. */
static double time_opening(const char *path) {
    enum { TIMES = 9 };
    double taken[TIMES];
    for (int i = 0; i < TIMES; i++) {
        megabyte_model *model;
        double start = now();
        check(megabyte_model_open(&model, path, NULL, NULL));
        double time = now() - start;
        megabyte_model_close(model);
        int at = i;
        for (; at && taken[at - 1] > time; at--) taken[at] = taken[at - 1];
        taken[at] = time;
    }
    return taken[TIMES / 2];
}

int run_bench(const command *self, int argc, char **argv) {
    enum { ONE_AND_ALL = MAX_THREADS + 1 };
    bench *b = allocate(sizeof *b, 1);
    memset(b, 0, sizeof *b);
    b->seconds = 1;
    b->shared.threads = ONE_AND_ALL;
    const option own[] = {
        {"seconds", 0, OPTION_REAL, &b->seconds, 0.01, 3600, "S",
         "for each measurement (1); there are about 28"},
        {"type", 0, OPTION_TEXT, &b->file_type, 0, 0, "EXT", TYPE_HELP},
    };
    if (parse_options(self, own, COUNT_OF(own), &b->shared, argc, argv))
        usage_error(self, argv[0], "unexpected argument (a model is given with -m)");
    open_model(&b->s, &b->shared);
    b->open_seconds = time_opening(b->s.path);
    uint32_t all = count_cores(), given = (uint32_t)b->shared.threads;
    b->trials[0].threads = given == ONE_AND_ALL ? 1 : given ? given : all;
    b->trials[1].threads = all;
    b->n_trials = given == ONE_AND_ALL && all > 1 ? 2 : 1;
    b->is_f32 = !strcmp(b->s.info.quantization, "f32");
    make_memory(b, b->trials[b->n_trials - 1].threads);
    fill_text(b);
    catch_interrupt();
    for (uint32_t i = 0; i < b->n_trials && !stop_requested(); i++) run_trial(b, &b->trials[i]);
    int status = stop_requested() ? 130 : 0;
    if (!status && b->shared.json) print_json(b);
    if (!status && !b->shared.json) print_report(b);
    free(b->memory);
    close_session(&b->s);
    free(b);
    return status;
}
