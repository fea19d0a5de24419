/* mbrun.c - the command-line tool: generate text with a MEGABYTE model, score, compress, describe
 * models. SPDX-License-Identifier: MIT
 *
 * CONTENTS
 *    1 generate
 *    2 score
 *    3 info
 *    4 main
 * What the subcommands share is in mbcommon.c; compress and its kin are in compress.c, list.c and
 * against.c, bench in mbbench.c.
 * Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted (143, 129 by SIGTERM, SIGHUP). */

#define _GNU_SOURCE /* sched_getaffinity, and POSIX under -std=c11 */
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64 /* files beyond 2 GiB on 32-bit systems */
#include "mbrun.h"
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char tool_name[] = "mbrun";

/* =================================================================================== 1 generate */

typedef struct generate_options {
    shared_options shared;
    const char *prompt, *prompt_file, *file_type;
    uint64_t n, seed, context, top_k, window;
    double temperature, top_p, min_p, penalty;
    int no_echo;
} generate_options;

static int bad_byte(const char *what, const session *s) {
    char why[96];
    snprintf(why, sizeof why, "holds a byte outside this model's vocabulary of %u",
             s->info.vocabulary);
    return complain(what, "%s", why);
}

/* In pieces, so that Ctrl-C is noticed. Returns 1, or 0 after a message. */
static int feed(const session *s, megabyte_stream *stream, const bytes *prompt) {
    for (size_t done = 0; done < prompt->n && !stop_requested();) {
        size_t n = prompt->n - done < 4096 ? prompt->n - done : 4096;
        if (megabyte_stream_feed(stream, prompt->data + done, n)) return bad_byte("prompt", s);
        done += n;
    }
    return 1;
}

/* Shows bytes as they come: at once on a terminal, else at least every 50 ms. */
static void emit(uint8_t byte, int is_terminal, double *last_flush) {
    if (putchar(byte) == EOF) output_failed();
    double t = is_terminal ? 0 : now();
    if (!is_terminal && t - *last_flush < 0.05) return;
    flush_output();
    *last_flush = t;
}

/* The loop of generation; returns its seconds. The bytes go to `out` if it is not NULL, else to
 * stdout. *ended: the model itself ended the text. */
static double write_on(megabyte_stream *stream, const generate_options *o, bytes *out, int *ended) {
    megabyte_sampling how = {.temperature = (float)o->temperature,
                             .top_k = (uint32_t)o->top_k,
                             .top_p = (float)o->top_p,
                             .min_p = (float)o->min_p,
                             .repetition_penalty = (float)o->penalty,
                             .repetition_window = (uint32_t)o->window,
                             .seed = o->seed};
    int is_terminal = isatty(STDOUT_FILENO), last = '\n';
    double start = now(), last_flush = start;
    for (uint64_t i = 0; (!o->n || i < o->n) && !stop_requested(); i++) {
        uint8_t byte;
        megabyte_status status = megabyte_stream_sample(stream, &how, &byte);
        if ((*ended = status == MEGABYTE_END)) break;
        if (!status) status = megabyte_stream_step(stream, byte);
        if (status) die("generate", "%s", megabyte_status_string(status));
        if (out) append(out, &byte, 1);
        else emit(byte, is_terminal, &last_flush);
        last = byte;
    }
    double seconds = now() - start;
    if (!out && is_terminal && last != '\n') putchar('\n');
    return seconds;
}

static void print_generated(const session *s, const bytes *prompt, const bytes *out, int ended,
                            double seconds) {
    printf("{\"model\": ");
    json_text(stdout, s->path, strlen(s->path));
    printf(", \"prompt\": ");
    json_text(stdout, prompt->data, prompt->n);
    printf(", \"text\": ");
    json_text(stdout, out->data, out->n);
    printf(", \"bytes_hex\": \"");
    for (size_t i = 0; i < out->n; i++) printf("%02x", out->data[i]);
    printf("\", \"bytes\": %zu, \"ended\": %s", out->n, ended ? "true" : "false");
    json_field("seconds", seconds);
    json_field("bytes_per_second", (double)out->n / seconds);
    puts("}");
}

static int run_generate(const command *self, int argc, char **argv) {
    generate_options o = {.n = 256, .seed = 1, .temperature = 0.7, .top_p = 0.95, .window = 64};
    const option own[] = {
        {"prompt", 'p', OPTION_TEXT, &o.prompt, 0, 0, "PROMPT", "the text to go on from"},
        {"file", 'f', OPTION_TEXT, &o.prompt_file, 0, 0, "FILE",
         "the same, read from a file (-: standard input)"},
        {"bytes", 'n', OPTION_SIZE, &o.n, 0, ANY, "BYTES",
         "how many to write at most (256); 0: until Ctrl-C"},
        {"temperature", 't', OPTION_REAL, &o.temperature, 0, 1000, "TEMP",
         "0.7; 0: always the likeliest byte"},
        {"top-k", 0, OPTION_NUMBER, &o.top_k, 0, UINT32_MAX, "K",
         "choose among the K likeliest bytes (0: off)"},
        {"top-p", 0, OPTION_REAL, &o.top_p, 0, 1, "P",
         "among the likeliest that sum to P (0.95; 1: off)"},
        {"min-p", 0, OPTION_REAL, &o.min_p, 0, 1, "P",
         "among those at least P times as likely as the likeliest"},
        {"repetition-penalty", 0, OPTION_REAL, &o.penalty, 0, 1000, "R",
         "above 1: avoid recent bytes (0: off)"},
        {"repetition-window", 0, OPTION_NUMBER, &o.window, 1, 1024, "N",
         "how many bytes are recent (64)"},
        {"seed", 0, OPTION_NUMBER, &o.seed, 0, ANY, "S",
         "1; same seed, same bytes, on every machine"},
        {"context", 0, OPTION_SIZE, &o.context, 0, ANY, "BYTES",
         "remember fewer bytes: less memory"},
        {"type", 0, OPTION_TEXT, &o.file_type, 0, 0, "EXT", TYPE_HELP},
        {"no-echo", 0, OPTION_FLAG, &o.no_echo, 0, 0, NULL, "leave the prompt out of the output"},
    };
    uint32_t cores = count_cores();
    o.shared.threads = cores < 4 ? cores : 4; /* one byte is too little work for more */
    if (parse_options(self, own, COUNT_OF(own), &o.shared, argc, argv))
        usage_error(self, argv[0], "unexpected argument (a prompt is given with -p)");
    if (o.prompt && o.prompt_file) usage_error(self, "-p and -f", "give only one of them");

    bytes prompt = {0}, out = {0};
    session s;
    open_model(&s, &o.shared);
    open_engine(&s, &o.shared, thread_count(&o.shared));
    megabyte_stream *stream = new_stream(&s, o.context, o.file_type);
    int ended = 0;
    if (o.prompt) append(&prompt, o.prompt, strlen(o.prompt));
    if (o.prompt_file) read_file(o.prompt_file, &prompt);
    catch_interrupt();
    if (!o.shared.json && !o.no_echo) {
        if (prompt.n) fwrite(prompt.data, 1, prompt.n, stdout);
        flush_output();
    }
    if (!feed(&s, stream, &prompt)) return 1;
    double seconds = write_on(stream, &o, o.shared.json ? &out : NULL, &ended);
    if (o.shared.json) print_generated(&s, &prompt, &out, ended, seconds);
    megabyte_stream_free(stream);
    close_session(&s);
    free(prompt.data);
    free(out.data);
    return o.n ? stop_requested() : 0; /* endless output can only end this way */
}

/* ====================================================================================== 2 score */

#define PIECE 8192 /* bytes read and scored at a time; the result does not depend on it */

typedef struct scorer {
    shared_options shared;
    session s;
    uint64_t window, limit, context;
    const char *logits_path, *file_type;
    int mix; /* what compressing comes to instead */
    int strided; /* two passes: see score_piece */
    megabyte_stream *stream, *second; /* second: NULL unless strided */
    uint8_t *input; /* PIECE bytes */
    float *bits[2]; /* [PIECE] of each pass, NULL unless strided */
    float *logits; /* PIECE * V, NULL if not asked for */
    FILE *logits_file; /* a copy of to.file, or stdout */
    output to;
    int force;
    progress bar;
} scorer;

typedef struct tally {
    const char *name;
    uint64_t bytes;
    double bits, seconds;
} tally;

static double bits_per_byte(const tally *t) { return t->bytes ? t->bits / (double)t->bytes : 0; }

/* OUT appears when all of it is there. */
static void open_logits(scorer *o, const char *input) {
    struct stat there;
    int is_there = strcmp(input, "-") ? !stat(input, &there) : !fstat(STDIN_FILENO, &there);
    o->logits = allocate(sizeof(float) * PIECE * o->s.info.vocabulary, 1);
    if (!strcmp(o->logits_path, "-")) {
        o->logits_file = stdout;
        return;
    }
    if (!name_output(&o->to, o->logits_path, o->force, 1, &there, is_there != 0) ||
        !create_output(&o->to))
        die(o->logits_path, "%s", o->to.why);
    o->logits_file = fdopen(dup(o->to.file), "wb");
    if (!o->logits_file) die(o->logits_path, "%s", strerror(errno));
}

static int write_logits(const scorer *o, size_t n) {
    size_t count = n * o->s.info.vocabulary;
    const uint16_t probe = 1;
    if (!*(const uint8_t
               /* big-endian: turn the bytes of each float round, the file is little-endian */
               *)&probe) {
        for (size_t i = 0; i < count; i++) {
            uint8_t *b = (uint8_t *)&o->logits[i], t = b[0], u = b[1];
            b[0] = b[3];
            b[1] = b[2];
            b[2] = u;
            b[3] = t;
        }
    }
    if (fwrite(o->logits, sizeof(float), count, o->logits_file) == count) return 1;
    if (o->logits_file == stdout) output_failed();
    return complain(o->logits_path, "%s", strerror(errno));
}

/* Half a file is worse than none. Returns 1 if everything went well. */
static int close_logits(scorer *o, int good) {
    if (!o->logits_file) return good;
    if (o->logits_file == stdout) {
        flush_output();
        return good;
    }
    if (fclose(o->logits_file) && good) good = complain(o->logits_path, "%s", strerror(errno));
    int kept = finish_output(&o->to, good, NULL);
    if (good && !kept) complain(o->logits_path, "%s", o->to.why);
    free_output(&o->to);
    return kept;
}

static size_t read_piece(const scorer *o, FILE *in, const tally *t, size_t want) {
    if (o->limit && o->limit - t->bytes < want) want = (size_t)(o->limit - t->bytes);
    return want ? fread(o->input, 1, want, in) : 0;
}

static int stop_asked(void *context, uint64_t done) {
    (void)context;
    (void)done;
    return stop_requested();
}

/* The same through the codec, by default as compress does it; what comes out is only counted. */
static int mix_bytes(scorer *o, FILE *in, uint64_t expected, tally *t) {
    static uint8_t out[PIECE];
    megabyte_codec *codec;
    megabyte_codec_options options = {.engine = o->s.engine,
                                      .block_size = (uint32_t)o->window,
                                      .size = expected,
                                      .file_type = o->file_type,
                                      .progress = stop_asked};
    megabyte_statistics counts;
    megabyte_error error;
    size_t n, used, consumed, produced;
    if (!o->window) options.block_size = megabyte_codec_block_size(&options);
    options.size = 0; /* known only to be cut alike: the file may grow */
    char why[256];
    if (!megabyte_codec_size(o->s.model, MEGABYTE_MODE_COMPRESS, &options, &n) &&
        !memory_suffices(&o->s, "compressing", n, why))
        return complain(t->name, "%s", why);
    if (megabyte_codec_create(&codec, o->s.model, MEGABYTE_MODE_COMPRESS, &options, NULL, &error))
        return complain(t->name, "%s", error.text);
    o->bar = (progress){.start = now()};
    do {
        n = read_piece(o, in, t, PIECE);
        if (!n) megabyte_codec_finish(codec);
        for (used = 0, produced = 0; !stop_requested() && (used < n || !n); used += consumed) {
            megabyte_codec_push(codec, o->input + used, n - used, &consumed);
            do megabyte_codec_pull(codec, out, sizeof out, &produced);
            while (produced);
            if (!n) break;
        }
        t->bytes += n;
        show_progress(&o->bar, t->bytes, expected, "", t->name);
    } while (n && !stop_requested());
    megabyte_codec_statistics(codec, &counts);
    megabyte_codec_free(codec);
    t->bits = 8 * (double)counts.compressed;
    t->seconds = now() - o->bar.start;
    return ferror(in) ? complain(t->name, "%s", strerror(errno)) : 1;
}

/* Strided inference (paper, section 4): predictions are best at the beginning of a patch, when what
 * the global stage tells is fresh. A second pass, whose patches begin half a patch later, supplies
 * the second halves. */
static uint64_t stride(const scorer *o) { return (o->s.info.patch_bytes + 1) / 2; }

/* Does the second pass supply byte `at` of the window? A patch's sequence predicts its bytes 0 to P
 * - 1, with lucidrains and MBLM the bytes 1 to P: there, a patch's first byte is the last of the
 * patch before, the hardest one.
 */
static int is_from_second(const scorer *o, uint64_t at) {
    const char *family = o->s.info.family;
    uint64_t ahead = !strcmp(family, "lucidrains") || !strcmp(family, "mblm");
    return at >= stride(o) && (at - ahead) % o->s.info.patch_bytes >= stride(o);
}

/* The n bytes in o->input, of which the first is byte `at` of its window. */
static megabyte_status score_piece(scorer *o, size_t n, uint64_t at, double *bits) {
    if (!o->strided) return megabyte_stream_score(o->stream, o->input, n, bits, o->logits);
    uint64_t before = at < stride(o) ? stride(o) - at
                                     : 0; /* bytes that the second pass does not see */
    size_t skip = before < n ? (size_t)before : n;
    megabyte_status status = megabyte_stream_score_bytes(o->stream, o->input, n, o->bits[0]);
    if (!status)
        status = megabyte_stream_score_bytes(o->second, o->input + skip, n - skip,
                                             o->bits[1] + skip);
    for (size_t i = 0; i < n && !status; i++)
        *bits += (double)o->bits[is_from_second(o, at + i)][i];
    return status;
}

/* From one start to the end of the input, the limit or Ctrl-C. Returns 1, or 0 after a message. */
static int score_bytes(scorer *o, FILE *in, uint64_t expected, tally *t) {
    char note[32];
    uint64_t in_window = 0;
    o->bar = (progress){.start = now()};
    megabyte_stream_reset(o->stream);
    megabyte_stream_reset(o->second);
    while (!stop_requested()) {
        size_t want = PIECE;
        if (o->window && in_window == o->window) {
            megabyte_stream_reset(o->stream);
            megabyte_stream_reset(o->second);
            in_window = 0;
        }
        if (o->window && o->window - in_window < want) want = (size_t)(o->window - in_window);
        size_t n = read_piece(o, in, t, want);
        if (!n) break;
        if (score_piece(o, n, in_window, &t->bits)) return bad_byte(t->name, &o->s);
        if (o->logits && !write_logits(o, n)) return 0;
        t->bytes += n;
        in_window += n;
        snprintf(note, sizeof note, "%.4f bits/byte", bits_per_byte(t));
        show_progress(&o->bar, t->bytes, expected, note, t->name);
    }
    t->seconds = now() - o->bar.start;
    return ferror(in) ? complain(t->name, "%s", strerror(errno)) : 1;
}

/* Returns 1, or 0 after a message: the other files still get their turn. */
static int score_file(scorer *o, const char *path, tally *t) {
    struct stat status;
    int is_stdin = !strcmp(path, "-");
    FILE *in = is_stdin ? stdin : fopen(path, "rb");
    uint64_t expected = 0;
    *t = (tally){.name = path};
    if (in && !fstat(fileno(in), &status) && S_ISREG(status.st_mode)) {
        expected = (uint64_t)status.st_size;
        if (o->limit && expected > o->limit) expected = o->limit;
    }
    int good = !in      ? complain(path, "%s", strerror(errno))
               : o->mix ? mix_bytes(o, in, expected, t)
                        : score_bytes(o, in, expected, t);
    end_progress(&o->bar);
    if (in && !is_stdin) fclose(in);
    return good;
}

static void print_tally(const tally *t, FILE *out) {
    fprintf(out, "%12llu  %9.5f  %12.0f  ", (unsigned long long)t->bytes, bits_per_byte(t),
            ceil(t->bits / 8));
    print_harmless(out, t->name);
    fputc('\n', out);
}

static void print_tally_json(const tally *t) {
    printf("\"bytes\": %llu", (unsigned long long)t->bytes);
    json_field("bits_per_byte", t->bytes ? bits_per_byte(t) : (double)NAN);
    json_field("bits", t->bits);
    json_field("ideal_bytes", ceil(t->bits / 8));
    json_field("seconds", t->seconds);
    json_field("bytes_per_second", t->bytes ? (double)t->bytes / t->seconds : (double)NAN);
}

/* Scores every file and prints its line; returns the exit status. */
static int score_files(scorer *o, char **paths, int n) {
    FILE *table = o->logits_file == stdout ? stderr : stdout; /* don't mix them */
    tally total = {.name = "total"}, one;
    int good = 1, printed = 0;
    if (o->shared.json) {
        printf("{\"model\": ");
        json_text(stdout, o->s.path, strlen(o->s.path));
        printf(", \"window\": %llu, \"strided\": %s, \"files\": [", (unsigned long long)o->window,
               o->strided ? "true" : "false");
    } else {
        fprintf(table, "%12s  %9s  %12s  %s\n", "bytes", "bits/byte", "ideal bytes", "name");
    }
    for (int i = 0; i < n && !stop_requested(); i++) {
        if (!score_file(o, paths[i], &one)) {
            good = 0;
            continue;
        }
        if (stop_requested()) break; /* half a file's figure would mislead */
        if (o->shared.json) {
            printf("%s{\"name\": ", printed++ ? ", " : "");
            json_text(stdout, one.name, strlen(one.name));
            printf(", ");
            print_tally_json(&one);
            printf("}");
        } else {
            print_tally(&one, table);
        }
        flush_output();
        total.bytes += one.bytes;
        total.bits += one.bits;
        total.seconds += one.seconds;
    }
    if (o->shared.json) {
        printf("], \"total\": {");
        print_tally_json(&total);
        puts("}}");
    } else if (n > 1) {
        print_tally(&total, table);
    }
    return stop_requested() ? stop_requested() : !good;
}

static int run_score(const command *self, int argc, char **argv) {
    scorer o = {0};
    const option own[] = {
        {"window", 0, OPTION_SIZE, &o.window, 0, ANY, "BYTES",
         "score in separate windows, each from nothing (0: slide)"},
        {"strided", 0, OPTION_FLAG, &o.strided, 0, 0, NULL,
         "in two passes, half a patch apart: better, and twice the work"},
        {"limit", 0, OPTION_SIZE, &o.limit, 0, ANY, "BYTES",
         "only this many bytes of each file (0: all)"},
        {"context", 0, OPTION_SIZE, &o.context, 0, ANY, "BYTES",
         "remember fewer bytes: less memory"},
        {"type", 0, OPTION_TEXT, &o.file_type, 0, 0, "EXT", TYPE_HELP},
        {"logits", 0, OPTION_TEXT, &o.logits_path, 0, 0, "OUT",
         "write float32 [n, vocabulary], little-endian (one FILE only)"},
        {"force", 'f', OPTION_FLAG, &o.force, 0, 0, NULL, "overwrite OUT"},
        {"mix", 0, OPTION_FLAG, &o.mix, 0, 0, NULL,
         "what compress comes to: model and context mixing (-7)"},
    };
    int n_files = parse_options(self, own, COUNT_OF(own), &o.shared, argc, argv);
    if (!n_files) usage_error(self, "FILE", "none given (- is standard input)");
    if (o.mix && (o.logits_path || o.context))
        usage_error(self, "--mix", "not together with --logits or --context");
    if (o.strided && (o.logits_path || o.mix))
        usage_error(self, "--strided", "not together with --logits or --mix");
    if (o.mix && o.window > MEGABYTE_BLOCK_MAX)
        usage_error(self, "--window", "too large for --mix (64M)");
    if (o.logits_path && n_files != 1) usage_error(self, "--logits", "takes exactly one FILE");
    if (o.logits_path && !strcmp(o.logits_path, "-") && o.shared.json)
        usage_error(self, "--logits -", "would mix with the output of --json");

    open_model(&o.s, &o.shared);
    open_engine(&o.s, &o.shared, thread_count(&o.shared));
    o.stream = new_stream(&o.s, o.context, o.file_type);
    o.input = allocate(PIECE, 1);
    if (o.strided) {
        if (o.s.info.patch_bytes < 2) die("--strided", "this model's patches are single bytes");
        o.second = new_stream(&o.s, o.context, o.file_type);
        for (int i = 0; i < 2; i++) o.bits[i] = allocate(sizeof(float) * PIECE, 1);
    }
    catch_interrupt();
    if (o.logits_path) open_logits(&o, argv[0]);
    int status = score_files(&o, argv, n_files);
    if (!close_logits(&o, status == 0) && !status) status = 1;
    megabyte_stream_free(o.stream);
    megabyte_stream_free(o.second);
    close_session(&o.s);
    free(o.input);
    free(o.bits[0]);
    free(o.bits[1]);
    free(o.logits);
    return status;
}

/* ======================================================================================= 3 info */

static const char *stage_name(const megabyte_info *info, uint32_t s) {
    return s == 0 ? "global" : s + 1 == info->n_stages ? "local" : "middle";
}

static const char *position_kind(const megabyte_stage_info *g) {
    static const char *const kinds[] = {"none",
                                        "learned",
                                        "rotary",
                                        "learned+rotary",
                                        "input-rotary",
                                        "learned+input-rotary",
                                        "rotary+input-rotary",
                                        "learned+rotary+input-rotary"};
    return kinds[(g->learned_positions != 0) + 2 * (g->rotary_positions != 0) +
                 4 * (g->input_rotary_positions != 0)];
}

/* The paper's D_G, of which a patch's P bytes make the global width; 0 where patches are embedded
 * in another way. */
static uint32_t dim_per_byte(const megabyte_info *info, uint32_t s) {
    int is_paper = !strcmp(info->family, "paper") || !strcmp(info->family, "spacebyte");
    return is_paper && s == 0 ? info->stage[0].dim / info->patch_bytes : 0;
}

static double stage_macs_per_byte(const megabyte_stage_info *g) {
    return (double)g->macs_per_token / (double)g->bytes_per_token;
}

/* Bytes of one stream with this context and an engine of its own to share; 0 if the library cannot
 * tell. */
static size_t stream_bytes(const session *s, uint64_t context) {
    size_t size = 0;
    megabyte_stream_options options = {.engine = s->engine, .context = context};
    if (megabyte_stream_size(s->model, &options, &size)) return 0;
    return size;
}

typedef struct memory_use {
    uint64_t short_context;
    size_t at_full, at_short, engine;
} memory_use;

static memory_use measure_memory(const session *s) {
    memory_use m = {.short_context = 1024};
    const megabyte_engine_options options = {.threads = s->threads, .isa = s->isa};
    if (m.short_context < 2 * (uint64_t)s->info.patch_bytes)
        m.short_context = 2 * (uint64_t)s->info.patch_bytes;
    if (m.short_context > s->info.context_bytes) m.short_context = s->info.context_bytes;
    m.at_full = stream_bytes(s, 0);
    m.at_short = stream_bytes(s, m.short_context);
    if (megabyte_engine_size(s->model, &options, &m.engine)) m.engine = 0;
    return m;
}

/* Goes on with a list, in lines of up to 110 columns. *column: where the line has got to; 0: the
 * list begins. */
static void print_words(int *column, const char *format, ...) {
    char words[96];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    if (*column && *column + n + 3 > 110) {
        puts(",");
        *column = 0;
    }
    *column += printf(*column ? ", %s" : "          %s", words);
}

/* What the table has no column for. */
static void print_stage_words(const megabyte_info *info, uint32_t i) {
    const megabyte_stage_info *g = &info->stage[i];
    int at = 0;
    if (dim_per_byte(info, i)) print_words(&at, "D_G = %u per byte", dim_per_byte(info, i));
    if (g->kv_heads < g->heads)
        print_words(&at, "%u head%s of keys and values", g->kv_heads, g->kv_heads > 1 ? "s" : "");
    if (!strcmp(position_kind(g), "none")) print_words(&at, "no positions");
    else print_words(&at, "%s positions", position_kind(g));
    print_words(&at, "%s", g->norm);
    if (g->final_norm) print_words(&at, "final norm");
    if (g->qk_norm) print_words(&at, "norm of queries and keys");
    print_words(&at, "%s", g->activation);
    if (g->token_shift) print_words(&at, "token shift");
    if (g->cross_patch) print_words(&at, "attention across patches (r = %u)", g->cross_patch);
    for (size_t k = 0; k < COUNT_OF(g->convolutions) && g->convolutions[k]; k++)
        print_words(&at, "convolution of %u bytes", g->convolutions[k]);
    putchar('\n');
}

static void print_info(const session *s, const memory_use *m, const char *verified) {
    const megabyte_info *info = &s->info;
    const char *key, *value;
    print_harmless(stdout, s->path);
    putchar('\n');
    for (uint32_t i = 0; (key = megabyte_model_metadata_at(s->model, i, &value)); i++) {
        printf("  ");
        print_harmless(stdout, key);
        printf("%*s", (int)(strlen(key) < 16 ? 16 - strlen(key) : 1), "");
        print_harmless(stdout, value);
        putchar('\n');
    }
    printf("  family          %s, %s weights\n", info->family, info->quantization);
    printf("  parameters      %.1f M\n", 1e-6 * (double)info->parameters);
    printf("  file            %.1f MB (%llu bytes)\n", 1e-6 * (double)info->file_bytes,
           (unsigned long long)info->file_bytes);
    printf("  id              ");
    for (size_t i = 0; i < sizeof info->id; i++) printf("%02x", info->id[i]);
    printf("\n  vocabulary      V = %u", info->vocabulary);
    if (info->pad_id == UINT32_MAX) printf(", no pad id");
    else printf(", pad id %u", info->pad_id);
    if (info->end_id == UINT32_MAX) printf(", no end id");
    else printf(", end id %u", info->end_id);
    printf("\n  patch           P = %u bytes\n", info->patch_bytes);
    printf("  context         %llu bytes = %u patches\n", (unsigned long long)info->context_bytes,
           info->stage[0].positions);
    printf("  work per byte   %.2f M multiply-accumulates; %.2f MB of weights read when stepping "
           "alone\n",
           1e-6 * info->macs_per_byte, 1e-6 * info->weight_bytes_per_byte);
    printf("  memory          stream %.2f MB (%.2f MB with a context of %llu bytes), engine %.2f "
           "MB (%u thread%s)\n",
           1e-6 * (double)m->at_full, 1e-6 * (double)m->at_short,
           (unsigned long long)m->short_context, 1e-6 * (double)m->engine, s->threads,
           s->threads > 1 ? "s" : "");
    printf("  instructions    ");
    for (int isa = 1; isa_exists(isa); isa++)
        if (megabyte_isa_available((megabyte_isa)isa))
            printf("%s, ", megabyte_isa_name((megabyte_isa)isa));
    printf("using %s\n  weights         %s\n\n", megabyte_isa_name(s->isa), verified);

    printf("  stage     dim  layers  heads x dim     ff  positions  bytes/token  parameters  M "
           "MAC/token"
           "  M MAC/byte\n");
    for (uint32_t i = 0; i < info->n_stages; i++) {
        const megabyte_stage_info *g = &info->stage[i];
        printf("  %-6s %6u %7u %6u x %-3u %7u %10u %12llu %9.2f M %12.3f %11.3f\n",
               stage_name(info, i), g->dim, g->layers, g->heads, g->head_dim, g->ff_dim,
               g->positions, (unsigned long long)g->bytes_per_token, 1e-6 * (double)g->parameters,
               1e-6 * (double)g->macs_per_token, 1e-6 * stage_macs_per_byte(g));
        print_stage_words(info, i);
    }
}

static void print_stage_json(const megabyte_info *info, uint32_t i) {
    const megabyte_stage_info *g = &info->stage[i];
    printf("%s{\"name\": \"%s\", \"dim\": %u, \"layers\": %u, \"heads\": %u, \"head_dim\": %u, "
           "\"ff_dim\": %u, ",
           i ? ", " : "", stage_name(info, i), g->dim, g->layers, g->heads, g->head_dim, g->ff_dim);
    printf("\"kv_heads\": %u, \"positions\": %u, \"position_kind\": \"%s\", \"norm\": \"%s\", "
           "\"activation\": \"%s\"",
           g->kv_heads, g->positions, position_kind(g), g->norm, g->activation);
    printf(", \"final_norm\": %s, \"qk_norm\": %s, \"token_shift\": %s, \"cross_patch\": %u, "
           "\"convolutions\": [",
           g->final_norm ? "true" : "false", g->qk_norm ? "true" : "false",
           g->token_shift ? "true" : "false", g->cross_patch);
    for (size_t k = 0; k < COUNT_OF(g->convolutions) && g->convolutions[k]; k++)
        printf("%s%u", k ? ", " : "", g->convolutions[k]);
    putchar(']');
    json_field("dim_per_byte", dim_per_byte(info, i) ? (double)dim_per_byte(info, i) : (double)NAN);
    json_field("parameters", (double)g->parameters);
    json_field("bytes_per_token", (double)g->bytes_per_token);
    json_field("macs_per_token", (double)g->macs_per_token);
    json_field("macs_per_byte", stage_macs_per_byte(g));
    putchar('}');
}

static void print_info_json(const session *s, const memory_use *m, int verified) {
    const megabyte_info *info = &s->info;
    const char *key, *value;
    printf("{\"path\": ");
    json_text(stdout, s->path, strlen(s->path));
    printf(", \"metadata\": {");
    for (uint32_t i = 0; (key = megabyte_model_metadata_at(s->model, i, &value)); i++) {
        if (i) printf(", ");
        json_text(stdout, key, strlen(key));
        printf(": ");
        json_text(stdout, value, strlen(value));
    }
    printf("}, \"family\": \"%s\", \"quantization\": \"%s\", \"id\": \"", info->family,
           info->quantization);
    for (size_t i = 0; i < sizeof info->id; i++) printf("%02x", info->id[i]);
    printf("\", \"vocabulary\": %u", info->vocabulary);
    json_field("pad_id", info->pad_id == UINT32_MAX ? (double)NAN : (double)info->pad_id);
    json_field("end_id", info->end_id == UINT32_MAX ? (double)NAN : (double)info->end_id);
    json_field("patch_bytes", (double)info->patch_bytes);
    json_field("context_bytes", (double)info->context_bytes);
    json_field("parameters", (double)info->parameters);
    json_field("file_bytes", (double)info->file_bytes);
    json_field("macs_per_byte", info->macs_per_byte);
    json_field("weight_bytes_per_byte", info->weight_bytes_per_byte);
    json_field("stream_bytes", (double)m->at_full);
    json_field("short_context_bytes", (double)m->short_context);
    json_field("short_context_stream_bytes", (double)m->at_short);
    json_field("engine_bytes", (double)m->engine);
    printf(", \"threads\": %u, \"isa\": \"%s\", \"isas\": [", s->threads,
           megabyte_isa_name(s->isa));
    for (int isa = 1, n = 0; isa_exists(isa); isa++)
        if (megabyte_isa_available((megabyte_isa)isa))
            printf("%s\"%s\"", n++ ? ", " : "", megabyte_isa_name((megabyte_isa)isa));
    printf("], \"verified\": %s, \"stages\": [", verified ? "true" : "null");
    for (uint32_t i = 0; i < info->n_stages; i++) print_stage_json(info, i);
    puts("]}");
}

static int run_info(const command *self, int argc, char **argv) {
    shared_options shared = {.threads = 1};
    int verify = 0;
    const option own[] = {
        {"verify", 0, OPTION_FLAG, &verify, 0, 0, NULL,
         "read all weights and compare their SHA-256"},
    };
    if (parse_options(self, own, COUNT_OF(own), &shared, argc, argv))
        usage_error(self, argv[0], "unexpected argument (a model is given with -m)");
    session s;
    open_model(&s, &shared);
    if (verify) {
        megabyte_error error;
        megabyte_status status = megabyte_model_verify(s.model, &error);
        if (status) die_of(s.path, &error, status);
    }
    open_engine(&s, &shared, thread_count(&shared));
    memory_use m = measure_memory(&s);
    if (shared.json) print_info_json(&s, &m, verify);
    else print_info(&s, &m, verify ? "verified: they are as written" : "not read (--verify does)");
    close_session(&s);
    return 0;
}

/* ======================================================================================= 4 main */

static const command commands[] = {
    {"generate", "[-m MODEL] [-p PROMPT | -f FILE] [-n BYTES] [options]",
     "Writes the prompt, then bytes sampled from the model as they come. Models that can end a "
     "text\n"
     "stop there. Uses up to 4 threads unless told otherwise.",
     run_generate},
    {"score", "[-m MODEL] [options] FILE...",
     "Prints how many bits per byte the model needs for each file (- is standard input) and in "
     "total.\n"
     "Long files slide: a byte is predicted from between half and all of the model's context "
     "before it.\n"
     "The paper's ways of inference: --window CONTEXT is basic; --window CONTEXT --strided, "
     "strided;\n"
     "without options, sliding; --strided alone, both.\n"
     "--mix: what compress comes to instead, headers included; --window is then the block size.\n"
     "Uses all cores unless told otherwise.",
     run_score},
    {"compress", "[-m MODEL] [-o OUT | -c] [-f] [--rm] [-S STREAMS] [options] [FILE]...",
     "Writes FILE.mbz beside each FILE, which is kept; standard input goes to standard output. "
     "The\n"
     "model itself is needed to decompress. Smaller blocks (-B, or more of them: -S) can be "
     "decoded\n"
     "side by side, which is faster and costs some ratio. Mode, times and owner are kept. Uses "
     "all\n"
     "cores unless told otherwise.\n"
     "-1 to -4 use context mixing alone, which learns from the file itself, in 1, 4, 16, 64 MB, "
     "and\n"
     "are fast; -5 uses the model alone; -6 to -8 mix both, with 4, 16, 64 MB; -9 is -8 in as few\n"
     "blocks as possible.\n"
     "--verify takes as long again as decompressing does. --against runs what it finds of gzip, "
     "xz,\n"
     "zstd, brotli, bzip2, bzip3 and 7z on the FILEs and prints a Markdown table of sizes.\n"
     "Symbolic links (without -f, -c, -o), directories and special files (without -c, -o) are "
     "skipped,\n"
     "and so are FILEs that end in .mbz (without -f, -c, -o). Exit status: 0 done, 1 something "
     "failed\n"
     "or was skipped, 2 wrong usage, 130 interrupted. An output appears under its name when it is\n"
     "complete, else not at all.\n"
     "--rm removes FILE only if it is still what was read and the output is on disk; hard-linked "
     "files\n"
     "only with -f.",
     run_compress},
    {"decompress", "[-m MODEL] [-o OUT | -c] [-f] [--rm] [-S STREAMS] [options] [FILE]...",
     "Writes FILE for each FILE.mbz, which is kept; standard input goes to standard output.\n"
     "Concatenated .mbz files give the concatenated originals. Without -m, the model that a file "
     "needs\n"
     "is looked for by its id: first the one that is used without -m (see below), then the others\n"
     "beside it. Uses up to 8 threads unless told otherwise; all streams together take at most a\n"
     "quarter of the machine's memory: there are fewer where they would take more.\n"
     "Every byte is checked before it is written. A damaged file leaves no output; on standard "
     "output,\n"
     "everything before the damage. If other data follows the compressed data, the output is "
     "kept,\n"
     "FILE is not removed (--rm), and the exit status is 1.\n"
     "A file whose headers claim more than 1 MB + 1024 times its own size is refused before any "
     "work\n"
     "(what needs no model counts a 128th), unless --limit says how much is allowed; 0: any "
     "amount.\n"
     "--rm removes FILE only if it is still what was read and the output is on disk; hard-linked "
     "files\n"
     "only with -f.\n"
     "Exit status: 0 done, 1 something failed or was skipped, 2 wrong usage, 130 interrupted.",
     run_decompress},
    {"test", "[-m MODEL] [-S STREAMS] [--limit SIZE] [-v] [options] [FILE]...",
     "Decompresses without writing anything. Exit status: 0 if every FILE is intact, 1 if not, 2 "
     "wrong\n"
     "usage, 130 interrupted. The model is found as by decompress.",
     run_test},
    {"list", "[-m MODEL] [--json] [FILE]...",
     "Prints what the headers of .mbz files say, without decoding anything (test does): sizes in\n"
     "bytes, original / compressed, blocks by method (stored; constant: one byte repeated; coded "
     "by the\n"
     "model, by context mixing, by both mixed), the version of the format and of the numerics (d: "
     "made\n"
     "with --dictionary or --type), the id of the model and its name if it is found.\n"
     "Exit status: 0 done, 1 if a FILE is no .mbz file or ends too early, 2 wrong usage.",
     run_list},
    {"info", "[-m MODEL] [--verify] [--json]",
     "Describes a model in the terms of the MEGABYTE paper.", run_info},
    {"bench", "[-m MODEL] [-T THREADS] [options]",
     "Measures bytes per second, beside the peaks of this machine measured in the same run; with "
     "1\n"
     "thread and with all cores unless told otherwise.",
     run_bench},
};

static void print_usage(FILE *out) {
    fputs("Usage: mbrun SUBCOMMAND [options]\n\n", out);
    for (size_t i = 0; i < COUNT_OF(commands); i++)
        fprintf(out, "  mbrun %-10s %s\n", commands[i].name, commands[i].synopsis);
    fputs("\nmbrun SUBCOMMAND --help tells the options; mbrun --version the version.\n", out);
}

int main(int argc, char **argv) {
    if (argc > 0) program_name = argv[0];
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    ignores_pipes = signal(SIGPIPE, SIG_IGN) == SIG_IGN; /* EPIPE is told: see output_failed */
    signal(SIGXFSZ, SIG_IGN); /* and with EFBIG beyond the limit on sizes */
    for (int i = 0; i < 3;
         i++) /* what was closed must not become the next file; using it still fails */
        if (fcntl(i, F_GETFD) < 0 && open("/dev/null", i ? O_RDONLY : O_WRONLY) != i) return 1;
    int status = 0;
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_usage(stdout);
    } else if (!strcmp(argv[1], "--version")) {
        uint32_t version = megabyte_version();
        printf("mbrun " MEGABYTE_VERSION_STRING
               " (library %u.%u.%u, model format %d, numerics %d)\n",
               version / 10000, version / 100 % 100, version % 100, MEGABYTE_FORMAT_VERSION,
               MEGABYTE_NUMERICS_VERSION);
    } else {
        const command *found = NULL;
        for (size_t i = 0; i < COUNT_OF(commands); i++)
            if (!strcmp(argv[1], commands[i].name)) found = &commands[i];
        if (!found)
            usage_error(NULL, argv[1], "%s",
                        argv[1][0] == '-' ? "no such option" : "no such subcommand");
        status = found->run(found, argc - 1, argv + 1);
    }
    flush_output();
    return status;
}
