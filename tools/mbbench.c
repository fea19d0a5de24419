/* mbbench.c - mbrun bench: bytes per second, beside what this machine could do at best, measured in
 * the same run. SPDX-License-Identifier: MIT
 *
 * CONTENTS
 *    1 workloads      what can be measured, and one sample of it
 *    2 trials         everything chosen, with one number of threads
 *    3 report
 *    4 run_bench
 * Samples and the machine's limits are in measure.c, the table of --parts in parts.c.
 *
 * Other programs disturb a measurement for milliseconds or for minutes. Against the first,
 * everything is measured as many short samples; against the second, limits and workloads take turns
 * in ROUNDS rounds, limits before and after. Both sides of every ratio are the same statistic: the
 * 90th percentile of the samples, the speed of an undisturbed machine. Medians stand beside it. */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#include "host.h"
#include "measure.h"
#include "mbrun.h"
#include "peak.h"

#include <stdlib.h>
#include <string.h>

/* ================================================================================== 1 workloads */

enum {
    ROUNDS = 4,
    MOST_STREAMS = 64,
    TEXT_BYTES = 32768,
    SHORT_CONTEXT = 256,
    FAR_CONTEXT = 6144,
    PROMPTS = 4, /* of generating, each of PROMPT_BYTES, after which WRITTEN_BYTES are written */
    PROMPT_BYTES = 512,
    WRITTEN_BYTES = 128
};

/* COMPRESS and DECOMPRESS: `streams` blocks of `bytes`, by the model alone, by context mixing
 * alone, mixed. */
typedef enum work_kind { SCORE, STEP, FEED, GENERATE, COMPRESS, DECOMPRESS } work_kind;

/* STEP: the streams begin at nothing; go on from far into their contexts; stand at different
 * places of their contexts and of their patches. */
typedef enum work_place { BEGINNING, FAR, MIXED } work_place;

typedef struct workload {
    const char *format; /* its name; %u: bytes */
    const char *key; /* its name on the command line and for --json */
    work_kind kind;
    uint32_t streams;
    uint32_t bytes; /* per stream, then it starts again from nothing; of FAR: before the first */
    int level; /* of compression */
    int beside; /* the workload to be compared with, or -1 */
    work_place place;
    uint32_t draft_max; /* GENERATE, DECOMPRESS: as in megabyte_stream_options */
} workload;

enum {
    SCORE_SHORT,
    SCORE_LONG,
    STREAM_1,
    STREAM_1_FAR,
    STREAMS_16,
    STREAMS_16_FAR,
    STREAMS_64,
    STREAMS_64_FAR,
    STREAMS_64_MIXED,
    FEEDING,
    GENERATE_DRAFTS,
    GENERATE_PLAIN,
    COMPRESS_NETWORK,
    COMPRESS_LONG,
    COMPRESS_MIXED,
    DECOMPRESS_NETWORK,
    DECOMPRESS_MIXED,
    DECOMPRESS_ONE,
    DECOMPRESS_ONE_PLAIN
}; /* indices into: */
static const workload workloads[] = {
    {"score, windows of %u", "score_short", SCORE, 1, 512, 0, -1, 0, 0},
    {"score, windows of %u", "score_long", SCORE, 1, 8192, 0, -1, 0, 0},
    {"1 stream, %u bytes", "stream_1", STEP, 1, SHORT_CONTEXT, 0, -1, BEGINNING, 0},
    {"1 stream after %u bytes", "stream_1_far", STEP, 1, FAR_CONTEXT, 0, STREAM_1, FAR, 0},
    {"16 streams, %u bytes each", "streams_16", STEP, 16, SHORT_CONTEXT, 0, -1, BEGINNING, 0},
    {"16 streams after %u bytes", "streams_16_far", STEP, 16, FAR_CONTEXT, 0, STREAMS_16, FAR, 0},
    {"64 streams, %u bytes each", "streams_64", STEP, 64, SHORT_CONTEXT, 0, -1, BEGINNING, 0},
    {"64 streams after %u bytes", "streams_64_far", STEP, 64, FAR_CONTEXT, 0, STREAMS_64, FAR, 0},
    {"64 streams, mixed, %u bytes", "streams_64_mixed", STEP, 64, SHORT_CONTEXT, 0, STREAMS_64,
     MIXED, 0},
    {"feed (prefill) %u", "feed", FEED, 1, 4096, 0, -1, 0, 0},
    {"generate %u", "generate", GENERATE, 1, PROMPTS *WRITTEN_BYTES, 0, GENERATE_PLAIN, 0, 0},
    {"generate %u, --draft 0", "generate_draft_0", GENERATE, 1, PROMPTS *WRITTEN_BYTES, 0, -1, 0,
     MEGABYTE_NO_DRAFT},
    {"compress -5, %u bytes", "compress_model", COMPRESS, 1, 8192, 5, SCORE_LONG, 0, 0},
    {"compress -5, %u bytes", "compress_model_long", COMPRESS, 1, 32768, 5, -1, 0, 0},
    {"compress -7, %u bytes", "compress_mixed", COMPRESS, 1, 32768, 7, COMPRESS_LONG, 0, 0},
    {"decompress -5, 64 times %u", "decompress_model", DECOMPRESS, 64, 512, 5, SCORE_SHORT, 0, 0},
    {"decompress -7, 64 times %u", "decompress_mixed", DECOMPRESS, 64, 512, 7, DECOMPRESS_NETWORK,
     0, 0},
    {"decompress -7, once %u", "decompress_one", DECOMPRESS, 1, 4096, 7, DECOMPRESS_ONE_PLAIN, 0,
     0},
    {"the same, --draft 0", "decompress_one_draft_0", DECOMPRESS, 1, 4096, 7, -1, 0,
     MEGABYTE_NO_DRAFT},
    {"compress -3, %u bytes", "compress_context_mixing", COMPRESS, 1, TEXT_BYTES, 3, -1, 0, 0},
    {"decompress -3, %u bytes", "decompress_context_mixing", DECOMPRESS, 1, TEXT_BYTES, 3, -1, 0,
     0},
    {"compress -1, %u bytes", "compress_context_mixing_1mb", COMPRESS, 1, TEXT_BYTES, 1, -1, 0, 0},
    {"decompress -1, %u bytes", "decompress_context_mixing_1mb", DECOMPRESS, 1, TEXT_BYTES, 1, -1,
     0, 0},
};
enum { N_WORKLOADS = COUNT_OF(workloads) };

/* What is measured unless told otherwise: within a minute, by a model like text on one core. */
static const uint8_t usual[] = {SCORE_SHORT,    STREAM_1,       STREAMS_16,
                                STREAMS_64,     FEEDING,        GENERATE_DRAFTS,
                                COMPRESS_MIXED, DECOMPRESS_ONE, DECOMPRESS_MIXED};
static int is_usual(size_t i) { return memchr(usual, (int)i, sizeof usual) != NULL; }

/* Everything measured with one number of threads. */
typedef struct trial {
    uint32_t threads;
    samples arithmetic[2], read, work[N_WORKLOADS];
    double spent[N_WORKLOADS]; /* seconds */
    speed peak, bandwidth, rate[N_WORKLOADS];
    double per_pass[N_WORKLOADS]; /* bytes won by a pass of the model; 0: nothing drafts */
} trial;

typedef struct bench {
    shared_options shared;
    session s;
    const char *file_type;
    double seconds;
    double open_seconds; /* the median of a few */
    int is_f32, parts;
    int chosen[N_WORKLOADS];
    peak_kernels kernels;
    void *memory; /* as large as the weights */
    size_t memory_size;
    uint8_t text[TEXT_BYTES];
    megabyte_codec *codec
        [N_WORKLOADS]; /* of COMPRESS and DECOMPRESS; NULL if the model cannot code all bytes */
    uint8_t *code[N_WORKLOADS]; /* what is to be decompressed */
    size_t n_code[N_WORKLOADS];
    megabyte_stream *full; /* with the model's whole context */
    megabyte_stream *batch[MOST_STREAMS], *far[MOST_STREAMS]; /* NULL: not needed */
    uint64_t steps[N_WORKLOADS], passes[N_WORKLOADS]; /* where bytes may be guessed */
    uint32_t position; /* bytes that a STEP workload has written in this round */
    uint32_t n_trials;
    trial trials[2];
    double begun; /* for the line of progress */
    double limit; /* seconds for all of it; 0: none */
    double deadline; /* of this trial's samples; 0: none */
    double took[N_WORKLOADS]; /* seconds of the last sample */
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
    if (isatty(STDERR_FILENO)) fputs("The model writes a text to be measured with ...", stderr);
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

static uint32_t round_up(uint64_t n, uint64_t to) { return (uint32_t)((n + to - 1) / to * to); }

static uint32_t far_context(const bench *b) {
    uint64_t context = b->s.info.context_bytes / 4 * 3, patch = b->s.info.patch_bytes;
    if (context > FAR_CONTEXT) context = FAR_CONTEXT;
    return context > patch ? (uint32_t)(context / patch * patch) : (uint32_t)patch;
}

static uint32_t bytes_of(const bench *b, const workload *w) {
    if (w->place == FAR) return far_context(b);
    return w->bytes < b->s.info.context_bytes || w->level || w->kind == GENERATE
               ? w->bytes
               : (uint32_t)b->s.info.context_bytes;
}

/* Bytes of a sample of STEP, of each stream: whole patches, and few enough that going back to where
 * a far one began is cheap. */
static uint32_t steps_of(const bench *b, const workload *w) {
    return round_up(w->place == FAR ? 16 : 32, b->s.info.patch_bytes);
}

/* Each stream writes another part of the text. */
static void step_all(bench *b, megabyte_stream **streams, uint32_t n, uint32_t at) {
    uint8_t byte[MOST_STREAMS];
    for (uint32_t i = 0; i < n; i++) byte[i] = b->text[(i * 97 + at) % TEXT_BYTES];
    check(n == 1 ? megabyte_stream_step(streams[0], byte[0])
                 : megabyte_stream_step_batch(streams, byte, n));
}

/* From the text's beginning, `position` bytes of it. */
static void begin_at(const bench *b, megabyte_stream *stream, uint64_t position) {
    megabyte_stream_reset(stream);
    size_t n = position < TEXT_BYTES ? (size_t)position : TEXT_BYTES;
    check(megabyte_stream_feed(stream, b->text, n));
}

/* Streams go on from sample to sample: short samples find the quiet moments. What brings them to
 * where a sample begins is not part of it. */
static void place_streams(bench *b, const workload *w, megabyte_stream **streams) {
    uint32_t before = bytes_of(b, w), steps = steps_of(b, w), n = w->streams;
    uint32_t room = before > steps ? before - steps : 0; /* where the last sample begins */
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = megabyte_stream_position(streams[i]);
        if (w->place == FAR) {
            if (at == before || !megabyte_stream_rewind(streams[i], before)) continue;
            if (i) check(megabyte_stream_copy(streams[i], streams[0]));
            else begin_at(b, streams[i], before);
        } else if (w->place == MIXED) {
            if (!b->position) begin_at(b, streams[i], (uint64_t)room * i / n);
            else if (at > room) begin_at(b, streams[i], i % b->s.info.patch_bytes);
        } else if (!b->position || at > room) {
            megabyte_stream_reset(streams[i]);
        }
    }
}

static double run_steps(bench *b, const workload *w) {
    megabyte_stream **streams = w->place == FAR ? b->far : b->batch;
    uint32_t steps = steps_of(b, w);
    place_streams(b, w, streams);
    double start = now();
    for (uint32_t i = 0; i < steps; i++) step_all(b, streams, w->streams, b->position++);
    return (double)steps * w->streams / (now() - start);
}

/* What `mbrun generate` does by default, after PROMPTS pieces of the text. Making the stream, which
 * must not guess what it wrote the last time, and reading the piece are not part of it. */
static double run_generate(bench *b, size_t i) {
    uint8_t out[WRITTEN_BYTES];
    size_t n, total = 0;
    double seconds = 0;
    for (uint32_t k = 0; k < PROMPTS; k++) {
        megabyte_sampling how = {.temperature = 0.7f, .top_p = 0.95f, .seed = k + 1};
        uint64_t steps, passes;
        b->s.draft_max = workloads[i].draft_max;
        megabyte_stream *stream = new_stream(&b->s, 0, b->file_type);
        check(megabyte_stream_feed(stream, b->text + k * PROMPT_BYTES, PROMPT_BYTES));
        double start = now();
        megabyte_status status = megabyte_stream_generate(stream, &how, out, sizeof out, &n, NULL,
                                                          NULL);
        seconds += now() - start;
        if (status < 0) check(status);
        total += n;
        megabyte_stream_draft_counts(stream, &steps, &passes);
        b->steps[i] += steps;
        b->passes[i] += passes;
        megabyte_stream_free(stream);
    }
    return (double)total / seconds;
}

/* Everything through a codec, into `out` if it is not NULL; returns the bytes that came out. */
static size_t run_codec(megabyte_codec *codec, const uint8_t *data, size_t n, uint8_t *out) {
    static uint8_t piece[TEXT_BYTES];
    size_t consumed, produced, total = 0;
    megabyte_codec_reset(codec);
    do {
        check(megabyte_codec_push(codec, data, n, &consumed));
        data += consumed;
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
                                .draft_max = w->draft_max,
                                .file_type = b->file_type};
    while (o.context_shift < 15 && b->s.info.context_bytes >> (o.context_shift + 1) >= w->bytes &&
           b->s.info.context_bytes >> (o.context_shift + 1) >= b->s.info.patch_bytes)
        o.context_shift++;
    if (w->kind == COMPRESS || !b->code[i])
        check(megabyte_codec_create(&b->codec[i], b->s.model, MEGABYTE_MODE_COMPRESS, &o, NULL,
                                    NULL));
    if (w->kind == COMPRESS) return;
    if (!b->code[i]) {
        b->code[i] = allocate(2 * TEXT_BYTES, 1);
        b->n_code[i] = run_codec(b->codec[i], b->text, (size_t)w->bytes * w->streams, b->code[i]);
        megabyte_codec_free(b->codec[i]);
    }
    megabyte_file_header header;
    check(megabyte_file_header_read(b->code[i], b->n_code[i], &header, NULL));
    o.mixing_memory = header.mixing_memory ? header.mixing_memory : MEGABYTE_NO_CONTEXT_MIXING;
    check(
        megabyte_codec_create(&b->codec[i], b->s.model, MEGABYTE_MODE_DECOMPRESS, &o, NULL, NULL));
}

/* Blocks side by side are decoded without drafts. */
static int guesses(const workload *w) {
    return w->kind == DECOMPRESS && w->streams == 1 && w->level > 4;
}

static void count_guesses(bench *b, size_t i) {
    megabyte_statistics counts;
    megabyte_codec_statistics(b->codec[i], &counts);
    b->steps[i] += counts.steps;
    b->passes[i] += counts.passes;
}

/* One sample: bytes per second; 0: the model cannot do that. */
static double run_workload(bench *b, const workload *w) {
    uint32_t n = bytes_of(b, w);
    size_t i = (size_t)(w - workloads);
    double bits = 0;
    if (w->kind == STEP) return run_steps(b, w);
    if (w->kind == GENERATE) return run_generate(b, i);
    if (w->level && !b->codec[i]) return 0;
    if (guesses(w)) { /* a codec that knows the block already would guess all of it */
        megabyte_codec_free(b->codec[i]);
        open_codec(b, i);
    }
    double start = now();
    if (w->kind == COMPRESS) run_codec(b->codec[i], b->text, n, NULL);
    if (w->kind == DECOMPRESS) run_codec(b->codec[i], b->code[i], b->n_code[i], NULL);
    double seconds = now() - start;
    if (guesses(w)) count_guesses(b, i);
    if (w->level) return (double)n * w->streams / seconds;
    megabyte_stream_reset(b->full);
    check(w->kind == SCORE ? megabyte_stream_score(b->full, b->text, n, &bits, NULL)
                           : megabyte_stream_feed(b->full, b->text, n));
    return (double)n / (now() - start);
}

/* ===================================================================================== 2 trials */

static void measure_limits(bench *b, trial *t, double seconds) {
    burst arithmetic[2] = {b->is_f32 ? b->kernels.f32 : b->kernels.int8[0],
                           b->is_f32 ? NULL : b->kernels.int8[1]};
    for (size_t i = 0; i < 2; i++)
        if (arithmetic[i])
            measure_limit(arithmetic[i], b->memory, b->memory_size, t->threads, seconds,
                          &t->arithmetic[i]);
    measure_limit(b->kernels.read, b->memory, b->memory_size, t->threads, seconds, &t->read);
}

/* How many streams of one kind the chosen workloads need. */
static uint32_t streams_needed(const bench *b, int is_far) {
    uint32_t most = 0;
    for (size_t i = 0; i < N_WORKLOADS; i++) {
        const workload *w = &workloads[i];
        if (b->chosen[i] && w->kind == STEP && (w->place == FAR) == is_far && w->streams > most)
            most = w->streams;
    }
    return most;
}

/* Streams far into their contexts take memory: those that this machine has not are left out. */
static void leave_out_too_large(bench *b) {
    megabyte_stream_options o = {.draft_max = MEGABYTE_NO_DRAFT, .file_type = b->file_type};
    size_t with_engine, engine;
    char why[256];
    if (megabyte_stream_size(b->s.model, &o, &with_engine)) return; /* told when one is made */
    if (megabyte_engine_size(b->s.model, NULL, &engine)) return;
    for (size_t i = 0; i < N_WORKLOADS; i++) {
        const workload *w = &workloads[i];
        if (!b->chosen[i] || w->place != FAR) continue;
        if (memory_suffices(&b->s, "it", w->streams * (uint64_t)(with_engine - engine), why))
            continue;
        b->chosen[i] = 0;
        complain(w->key, "left out: %s", why);
    }
}

static void open_streams(bench *b, uint32_t threads) {
    uint64_t context = SHORT_CONTEXT;
    open_engine(&b->s, &b->shared, threads);
    if (context > b->s.info.context_bytes) context = b->s.info.context_bytes;
    if (context < b->s.info.patch_bytes) context = b->s.info.patch_bytes;
    b->s.draft_max = MEGABYTE_NO_DRAFT;
    b->full = new_stream(&b->s, 0, b->file_type);
    for (size_t i = 0; i < streams_needed(b, 0); i++)
        b->batch[i] = new_stream(&b->s, context, b->file_type);
    for (size_t i = 0; i < streams_needed(b, 1); i++)
        b->far[i] = new_stream(&b->s, 0, b->file_type);
    for (size_t i = 0; i < N_WORKLOADS; i++) {
        const workload *w = &workloads[i];
        if (!b->chosen[i]) continue;
        if (w->level && b->s.info.vocabulary >= 256) open_codec(b, i);
    }
    b->kernels = kernels_for(b->s.isa);
}

static void close_streams(bench *b) {
    for (size_t i = 0; i < MOST_STREAMS; i++) {
        megabyte_stream_free(b->batch[i]);
        megabyte_stream_free(b->far[i]);
        b->batch[i] = b->far[i] = NULL;
    }
    megabyte_stream_free(b->full);
    for (size_t i = 0; i < N_WORKLOADS; i++) {
        megabyte_codec_free(b->codec[i]);
        b->steps[i] = b->passes[i] = 0;
        b->codec[i] = NULL;
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

/* A line on a terminal. */
static void show_round(const bench *b, const trial *t, int round, size_t i) {
    size_t n = 0, before = 0;
    if (!isatty(STDERR_FILENO)) return;
    for (size_t k = 0; k < N_WORKLOADS; k++) {
        n += (size_t)b->chosen[k];
        before += (size_t)(k < i && b->chosen[k]);
    }
    size_t done = ((size_t)(t - b->trials) * ROUNDS + (size_t)round) * n + before;
    const double part = (double)done / (double)(n * ROUNDS * b->n_trials);
    fputc('\r', stderr);
    print_bar(stderr, part, 20);
    fprintf(stderr, " %3.0f%%  %.0f s  %u thread%s: %s\033[K", 100 * part, now() - b->begun,
            t->threads, t->threads > 1 ? "s" : "", workloads[i].key);
}

static void end_telling(void) {
    if (isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
}

/* Samples of one workload for its share of the time: up to this round's end of it, but at least
 * one in each half of the rounds. */
static void run_share(bench *b, trial *t, int round, size_t i) {
    double until = b->seconds * (round + 1) / ROUNDS;
    size_t least = round < ROUNDS / 2 ? 1 : 2;
    b->position = 0;
    while (!stop_requested() && (t->spent[i] < until || t->work[i].n < least)) {
        double start = now();
        if (b->deadline > 0 && start + b->took[i] > b->deadline) return;
        double rate = run_workload(b, &workloads[i]), took = now() - start;
        b->took[i] = took;
        int is_last = b->deadline > 0 && start + 2 * took > b->deadline;
        int is_cold = t->spent[i] <= 0 && took < b->seconds / ROUNDS && !is_last;
        t->spent[i] += took + 1e-9;
        if (!is_cold) /* else pages come in, the clock goes up */
            add_sample(&t->work[i], rate);
    }
}

static void run_trial(bench *b, trial *t) {
    open_streams(b, t->threads);
    for (int round = 0; round < ROUNDS && !stop_requested(); round++) {
        measure_limits(b, t, b->seconds / ROUNDS);
        for (size_t i = 0; i < N_WORKLOADS && !stop_requested(); i++) {
            if (!b->chosen[i]) continue;
            show_round(b, t, round, i);
            run_share(b, t, round, i);
        }
    }
    measure_limits(b, t, b->seconds / ROUNDS);
    for (size_t i = 0; i < N_WORKLOADS; i++)
        t->per_pass[i] = b->passes[i] ? (double)b->steps[i] / (double)b->passes[i] : 0;
    close_streams(b);
    summarise(t);
}

/* ===================================================================================== 3 report */

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

static int was_measured(const trial *t, size_t i) { return t->spent[i] > 0; }

/* Is it the plain model, without drafts and context mixing? Then the limits say something. */
static int has_limits(const workload *w) { return !w->level && w->kind != GENERATE; }

/* rate[a] / rate[b], or what the negative numbers say. Times per byte: the other way round. */
enum { OF_PEAK = -1, OF_BANDWIDTH = -2, OF_FIRST_TRIAL = -3 };
static const struct ratio {
    const char *label, *key; /* label: %s is int8 or f32; %u the threads of the second trial */
    int a, b;
} ratios[] = {
    {"scoring, of the %s peak", "scoring_of_peak", SCORE_SHORT, OF_PEAK},
    {"one stream, of the read bandwidth", "stream_of_bandwidth", STREAM_1, OF_BANDWIDTH},
    {"16 streams over one stream", "streams_16_over_1", STREAMS_16, STREAM_1},
    {"64 streams over one stream", "streams_64_over_1", STREAMS_64, STREAM_1},
    {"64 streams, mixed over aligned positions", "streams_64_mixed_over_aligned", STREAMS_64_MIXED,
     STREAMS_64},
    {"time a byte, far over short: 1 stream", "stream_1_far_over_short", STREAM_1, STREAM_1_FAR},
    {"time a byte, far over short: 16 streams", "streams_16_far_over_short", STREAMS_16,
     STREAMS_16_FAR},
    {"time a byte, far over short: 64 streams", "streams_64_far_over_short", STREAMS_64,
     STREAMS_64_FAR},
    {"time a byte, score: windows, long over short", "score_long_over_short", SCORE_SHORT,
     SCORE_LONG},
    {"generate, with drafts over without", "generate_drafts_over_none", GENERATE_DRAFTS,
     GENERATE_PLAIN},
    {"decompress once, with drafts over without", "decompress_drafts_over_none", DECOMPRESS_ONE,
     DECOMPRESS_ONE_PLAIN},
    {"threads over %u: scoring", "scoring_threads_over_1", SCORE_SHORT, OF_FIRST_TRIAL},
    {"threads over %u: one stream", "stream_1_threads_over_1", STREAM_1, OF_FIRST_TRIAL},
    {"threads over %u: 64 streams", "streams_64_threads_over_1", STREAMS_64, OF_FIRST_TRIAL},
    {"threads over %u: decompress once", "decompress_one_threads_over_1", DECOMPRESS_ONE,
     OF_FIRST_TRIAL},
};

/* 0: not measured. */
static double ratio_of(const bench *b, const trial *t, const struct ratio *r) {
    size_t a = (size_t)r->a;
    if (t->rate[a].high <= 0) return 0;
    if (r->b == OF_PEAK) return of_peak(b, t, a);
    if (r->b == OF_BANDWIDTH) return of_bandwidth(b, t, a);
    if (r->b == OF_FIRST_TRIAL && t == b->trials) return 0;
    double other = r->b == OF_FIRST_TRIAL ? b->trials->rate[a].high : t->rate[r->b].high;
    return other > 0 ? t->rate[a].high / other : 0; /* either may have been left out */
}

static void print_workload(const bench *b, const trial *t, size_t i, double fastest) {
    const workload *w = &workloads[i];
    char name[48];
    snprintf(name, sizeof name, w->format, bytes_of(b, w));
    printf("  %-28s %10.0f %10.0f  bytes/s  ", name, t->rate[i].high, t->rate[i].median);
    print_bar(stdout, t->rate[i].high / fastest, 10);
    if (has_limits(w)) printf("  %6.1f%% of peak", 100 * of_peak(b, t, i));
    if (has_limits(w) && w->kind != FEED)
        printf("  %6.1f%% of bandwidth", 100 * of_bandwidth(b, t, i));
    if (t->per_pass[i] > 0) printf("  %6.2f a pass", t->per_pass[i]);
    if (!has_limits(w) && w->beside >= 0 && t->rate[w->beside].high > 0) {
        snprintf(name, sizeof name, workloads[w->beside].format,
                 bytes_of(b, &workloads[w->beside]));
        printf("  %6.1f%% of %s", 100 * t->rate[i].high / t->rate[w->beside].high, name);
    }
    putchar('\n');
}

static void print_trial(const bench *b, const trial *t) {
    printf("\n%u thread%s\n  %-28s %10.1f %10.1f  GMAC/s\n", t->threads, t->threads > 1 ? "s" : "",
           b->is_f32 ? "f32 multiply-add peak" : "int8 peak", 1e-9 * t->peak.high,
           1e-9 * t->peak.median);
    printf("  %-28s %10.1f %10.1f  GB/s\n", "read bandwidth", 1e-9 * t->bandwidth.high,
           1e-9 * t->bandwidth.median);
    double fastest = 1;
    for (size_t i = 0; i < N_WORKLOADS; i++)
        if (t->rate[i].high > fastest) fastest = t->rate[i].high;
    for (size_t i = 0; i < N_WORKLOADS; i++)
        if (b->chosen[i] && was_measured(t, i)) print_workload(b, t, i, fastest);
}

static void print_ratio(const bench *b, const struct ratio *r) {
    char label[64], name[72];
    double any = 0;
    for (uint32_t i = 0; i < b->n_trials; i++) any += ratio_of(b, &b->trials[i], r);
    if (any <= 0) return;
    if (r->b == OF_FIRST_TRIAL) {
        snprintf(label, sizeof label, r->label, b->trials[0].threads);
        snprintf(name, sizeof name, "%u %s", b->trials[b->n_trials - 1].threads, label);
    } else {
        snprintf(name, sizeof name, r->label, b->is_f32 ? "f32" : "int8");
    }
    printf("  %-46s", name);
    for (uint32_t i = 0; i < b->n_trials; i++) {
        double value = ratio_of(b, &b->trials[i], r);
        if (value <= 0) printf(" %13s", "");
        else if (r->b == OF_PEAK || r->b == OF_BANDWIDTH) printf(" %12.1f%%", 100 * value);
        else printf(" %12.2fx", value);
    }
    putchar('\n');
}

static void print_ratios(const bench *b) {
    printf("\n%-48s", "The ratios that matter");
    for (uint32_t i = 0; i < b->n_trials; i++)
        printf(" %5u thread%s", b->trials[i].threads, b->trials[i].threads > 1 ? "s" : " ");
    putchar('\n');
    for (size_t i = 0; i < COUNT_OF(ratios); i++) print_ratio(b, &ratios[i]);
}

static void print_report(const bench *b) {
    const megabyte_info *info = &b->s.info;
    print_harmless(stdout, b->s.path);
    printf(": %.1f M parameters, %s, %.2f M multiply-accumulates and %.2f MB of weights a byte; "
           "%s\n",
           1e-6 * (double)info->parameters, info->quantization, 1e-6 * info->macs_per_byte,
           1e-6 * info->weight_bytes_per_byte, megabyte_isa_name(b->s.isa));
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

static void json_workload(const bench *b, const trial *t, size_t i) {
    const workload *w = &workloads[i];
    printf(", \"%s\": {\"bytes\": %u, \"streams\": %u, ", w->key, bytes_of(b, w), w->streams);
    json_speed("bytes_per_second", t->rate[i]);
    if (t->per_pass[i] > 0) json_field("bytes_per_pass", t->per_pass[i]);
    if (!has_limits(w) && w->beside >= 0 && t->rate[w->beside].high > 0) {
        char key[48];
        snprintf(key, sizeof key, "of_%s", workloads[w->beside].key);
        json_field(key, t->rate[i].high / t->rate[w->beside].high);
    }
    if (has_limits(w)) json_field("of_peak", of_peak(b, t, i));
    if (has_limits(w) && w->kind != FEED) json_field("of_bandwidth", of_bandwidth(b, t, i));
    putchar('}');
}

static void json_trial(const bench *b, const trial *t) {
    printf("{\"threads\": %u, ", t->threads);
    json_speed("peak_macs_per_second", t->peak);
    printf(", ");
    json_speed("read_bytes_per_second", t->bandwidth);
    for (size_t i = 0; i < N_WORKLOADS; i++)
        if (b->chosen[i] && was_measured(t, i)) json_workload(b, t, i);
    for (size_t i = 0; i < COUNT_OF(ratios); i++) {
        double value = ratio_of(b, t, &ratios[i]);
        if (value > 0) json_field(ratios[i].key, value);
    }
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

/* ================================================================================== 4 run_bench */

/* A buffer to read, of the weights' size: whole pages for each thread, and small numbers that are
 * valid floats. In huge pages where the system has them, which reads 5 to 10% faster: a limit
 * should be the highest there is. */
static void make_memory(bench *b, uint32_t threads) {
    size_t unit = (size_t)threads * 4096, size = (size_t)b->s.info.file_bytes / unit * unit;
    b->memory_size = size < unit ? unit : size;
    b->memory = allocate_pages(b->memory_size);
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

/* Appends the names of the usual workloads, or of the others; `between` them commas or spaces. */
static void list_workloads(char *out, size_t size, int are_usual, const char *between,
                           size_t width) {
    size_t n = strlen(out), line = 0;
    for (size_t i = 0; i < N_WORKLOADS; i++) {
        size_t length = strlen(workloads[i].key);
        if (is_usual(i) != are_usual) continue;
        const char *gap = !line ? "" : line + length > width ? "\n" : between;
        line = *gap == '\n' ? length : line + strlen(gap) + length;
        n += (size_t)snprintf(out + n, n < size ? size - n : 0, "%s%s", gap, workloads[i].key);
    }
}

/* What stands beside a chosen workload in the report is measured, too. */
static void choose_workload(bench *b, const command *self, const char *name) {
    char known[1024] = "", others[1024] = "";
    size_t i = 0;
    if (!strcmp(name, "all")) {
        for (; i < N_WORKLOADS; i++) b->chosen[i] = 1;
        return;
    }
    while (i < N_WORKLOADS && strcmp(name, workloads[i].key)) i++;
    list_workloads(known, sizeof known, 1, ", ", SIZE_MAX);
    list_workloads(others, sizeof others, 0, ", ", SIZE_MAX);
    if (i == N_WORKLOADS)
        usage_error(self, name, "no such workload; there are all, %s, %s", known, others);
    b->chosen[i] = 1;
    if (workloads[i].beside >= 0) b->chosen[workloads[i].beside] = 1;
}

static void bench_parts(const bench *b) {
    parts_setup p = {.s = &b->s,
                     .shared = &b->shared,
                     .file_type = b->file_type,
                     .text = b->text,
                     .n_text = TEXT_BYTES,
                     .seconds = b->seconds,
                     .memory = b->memory,
                     .memory_size = b->memory_size,
                     .n_threads = b->n_trials,
                     .n_places = 2};
    for (uint32_t i = 0; i < b->n_trials; i++) p.threads[i] = b->trials[i].threads;
    p.place[0] = bytes_of(b, &workloads[STREAM_1]);
    p.place[1] = far_context(b);
    run_parts(&p);
}

/* What there was no time for, with the machine busy or the model large. */
static void tell_left_out(const bench *b) {
    char names[1024] = "";
    size_t n = 0;
    for (uint32_t k = 0; k < b->n_trials && !stop_requested(); k++)
        for (size_t i = 0; i < N_WORKLOADS; i++)
            if (b->chosen[i] && !was_measured(&b->trials[k], i) && n < sizeof names)
                n += (size_t)snprintf(names + n, sizeof names - n, "%s%s with %u thread%s",
                                      n ? ", " : "", workloads[i].key, b->trials[k].threads,
                                      b->trials[k].threads > 1 ? "s" : "");
    if (n)
        complain("bench", "left out to end within a minute: %s; named, they are measured", names);
}

static void bench_all(bench *b) {
    leave_out_too_large(b);
    for (uint32_t i = 0; i < b->n_trials && !stop_requested(); i++) {
        if (b->limit > 0) b->deadline = b->begun + b->limit * (i + 1) / b->n_trials;
        run_trial(b, &b->trials[i]);
    }
    end_telling();
    tell_left_out(b);
    if (stop_requested()) return;
    if (b->shared.json) print_json(b);
    else print_report(b);
}

/* The subcommand's help names the workloads, so that it cannot miss one. */
static command with_names(const command *self, char *text, size_t size) {
    command c = *self;
    snprintf(text, size, "%s\nWithout a WORKLOAD and --seconds, these, within a minute:\n",
             self->summary);
    list_workloads(text, size, 1, " ", 96);
    size_t n = strlen(text);
    snprintf(text + n, size - n, "\nOthers (all: every one, which takes minutes):\n");
    list_workloads(text, size, 0, " ", 96);
    c.summary = text;
    return c;
}

int run_bench(const command *self, int argc, char **argv) {
    enum { ONE_AND_ALL = MAX_THREADS + 1 };
    char summary_text[2048];
    const command named = with_names(self, summary_text, sizeof summary_text);
    bench *b = allocate(sizeof *b, 1);
    b->begun = now();
    b->shared.threads = ONE_AND_ALL;
    const option own[] = {
        {"parts", 0, OPTION_FLAG, &b->parts, 0, 0, NULL,
         "instead: a table of where one stream's time goes, stage by stage"},
        {"seconds", 0, OPTION_REAL, &b->seconds, 0.01, 3600, "S",
         "for each measurement (0.5), and at least two samples"},
        {"type", 0, OPTION_TEXT, &b->file_type, 0, 0, "EXT", TYPE_HELP},
    };
    int n = parse_options(&named, own, COUNT_OF(own), &b->shared, argc, argv);
    for (int i = 0; i < n; i++) choose_workload(b, self, argv[i]);
    for (size_t i = 0; i < sizeof usual && !n; i++) b->chosen[usual[i]] = 1;
    if (n && b->parts) usage_error(self, argv[0], "--parts has a workload of its own");
    if (b->seconds <= 0 && !n) b->limit = 50;
    if (b->seconds <= 0) b->seconds = 0.5;
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
    if (b->parts) bench_parts(b);
    else bench_all(b);
    int status = stop_requested();
    for (size_t i = 0; i < N_WORKLOADS; i++) free(b->code[i]);
    free_pages(b->memory);
    close_session(&b->s);
    free(b);
    return status;
}
