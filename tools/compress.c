/* compress.c - mbrun compress, decompress, test: files to .mbz and back, with the habits of gzip
 * and zstd. SPDX-License-Identifier: MIT
 *
 * CONTENTS
 *    1 names
 *    2 writing           a temporary file that takes the final name when everything went well
 *    3 the codec         the model a file needs, memory, pushing and pulling
 *    4 reports
 *    5 compress, decompress, test */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "compress.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ===================================================================================== 1 names */

#define DEFAULT_STREAMS 16 /* blocks decoded side by side, if there are so many and memory allows */

#define SMALL_CLAIM 65536 /* bytes that are not worth a word beforehand */

int skip(const zipper *z, const char *what, const char *why) {
    return z->quiet ? 0 : complain(what, "%s", why);
}

int is_regular(const job *j) { return S_ISREG(j->status.st_mode); }

static char *copy_text(const char *text) {
    char *copy = allocate(strlen(text) + 1, 1);
    return strcpy(copy, text);
}

const char *base_name(const char *path) {
    const char *slash = last_slash(path);
    return slash ? slash + 1 : path;
}

int has_suffix(const zipper *z, const char *path) {
    size_t n = strlen(base_name(path)), length = strlen(z->suffix);
    return n > length && !strcmp(base_name(path) + n - length, z->suffix);
}

/* =================================================================================== 2 writing */

/* The suffix comes and goes: picture.png.mbi and picture.png. NULL after a message. */
static char *name_beside(const job *j) {
    const zipper *z = j->z;
    int is_packed = has_suffix(z, j->path), packs = z->mode == MEGABYTE_MODE_COMPRESS;
    char *path = allocate(strlen(j->path) + 16, 1), why[80];
    strcpy(path, j->path);
    if (packs && (!is_packed || z->force)) return strcat(path, z->suffix);
    if (!packs && is_packed) {
        path[strlen(path) - strlen(z->suffix)] = 0;
        return z->gives_pictures && !picture_format_named(path) ? strcat(path, ".png") : path;
    }
    snprintf(why, sizeof why,
             packs ? "already has the suffix %s; skipped (not with -f)"
                   : "does not end in %s; skipped (name the output with -o)",
             z->suffix);
    free(path);
    skip(z, j->name, why);
    return NULL;
}

int choose_output(job *j) {
    const zipper *z = j->z;
    char *path = NULL;
    if (!z->writes) return 1;
    if (z->to_stdout || (!z->output && j->in == STDIN_FILENO)) {
        j->to_stdout = 1;
        j->to.file = STDOUT_FILENO;
    } else if (z->output) {
        struct stat there;
        if (z->remove_input && !stat(z->output, &there) && !S_ISREG(there.st_mode))
            return complain(z->output, "is not a regular file, so the data may get lost: not "
                                       "together with --rm");
        path = copy_text(z->output);
    } else {
        path = name_beside(j);
        if (!path) return 0;
    }
    if (path && !name_output(&j->to, path, z->force, z->output != NULL, &j->status, 1)) {
        free(path);
        return complain(j->to.path, "%s", j->to.why);
    }
    free(path);
    if (j->to.file < 0) return 1;
    const char *name = j->to.path ? j->to.path : "standard output";
    if (z->mode == MEGABYTE_MODE_COMPRESS && isatty(j->to.file) && !z->force)
        return complain(name, "is a terminal; compressed data is not written to one without -f");
    return 1;
}

int write_out(job *j, const uint8_t *data, size_t n) {
    j->bytes_out += n;
    if (j->to.file < 0 || write_output(&j->to, data, n)) return 1;
    int why = errno;
    if (!*j->to.why) return 0; /* interrupted */
    end_progress(&j->z->bar);
    errno = why;
    if (j->to_stdout) output_failed();
    if (why == EPIPE) reader_went_away();
    return complain(j->to.path, "%s", j->to.why);
}

int close_output(job *j, int good) {
    if (j->to_stdout) return good;
    int kept = finish_output(&j->to, good, &j->status);
    if (good && !kept) complain(j->to.path, "%s", j->to.why);
    return kept;
}

/* ---- removing the input, which may have changed since it was read */

static int same_state(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

int remove_input(const job *j) {
    struct stat now_open, now_there;
    if (!j->to.is_saved) return complain(j->name, "the output is not safe on disk; input kept");
    if (fstat(j->in, &now_open) ||
        (j->is_link ? stat(j->path, &now_there) : lstat(j->path, &now_there)))
        return complain(j->name, "is no longer there; nothing removed");
    if (!same_state(&j->status, &now_open) || !same_state(&j->status, &now_there) ||
        j->bytes_in != (uint64_t)j->status.st_size)
        return complain(j->name, "changed while it was read; input kept");
    return !unlink(j->path) || complain(j->name, "%s", strerror(errno));
}

/* ================================================================================= 3 the codec */

void close_model(zipper *z) {
    megabyte_codec_free(z->codec);
    z->codec = NULL;
    if (z->is_open) close_session(&z->s);
    z->is_open = 0;
}

void open_with(zipper *z, const shared_options *shared) {
    close_model(z);
    open_model(&z->s, shared);
    z->is_open = 1;
    open_engine(&z->s, shared, thread_count(shared));
    open_drafts(&z->s, &z->drafts, shared);
}

const known_models *models_at_hand(zipper *z) {
    if (!z->have_known) find_known_models(&z->known, &z->shared);
    z->have_known = 1;
    return &z->known;
}

void print_id(FILE *out, const uint8_t *id, size_t n) {
    for (size_t i = 0; i < n; i++) fprintf(out, "%02x", id[i]);
}

/* Opens the model that a file was compressed with. If there is none, the one at hand: the library
 * then refuses the file with a text that names both. */
int use_model_of(zipper *z, const job *j, const uint8_t *id, size_t n) {
    if (z->is_open && (z->shared.model || !memcmp(z->s.info.id, id, n))) return 1;
    if (z->shared.model) {
        open_with(z, &z->shared);
        return 1;
    }
    const known_models *known = models_at_hand(z);
    const known_model *found = known_model_of(known, id, n);
    if (!found && (!known->n || z->gives_pictures)) {
        fputs("mbrun: ", stderr);
        print_harmless(stderr, j->name);
        fputs(": was compressed with the model ", stderr);
        print_id(stderr, id, n);
        fputs(known->n ? ", which was not found; give it with -m\n"
                       : ", but no model was found; give it with -m\n",
              stderr);
        return 0;
    }
    if (!found && z->is_open) return 1;
    shared_options shared = z->shared;
    shared.model = found ? found->path : known->model[0].path;
    open_with(z, &shared);
    return 1;
}

/* The same by a file's header, which may need none. */
static int use_model_for(job *j, const megabyte_file_header *header) {
    j->z->needs_model = header->has_model;
    return !header->has_model || use_model_of(j->z, j, header->model_id, sizeof header->model_id);
}

static const megabyte_model *model_in_use(const zipper *z) {
    return z->needs_model ? z->s.model : NULL;
}

static void fit_streams(const zipper *z, const megabyte_model *model, megabyte_codec_options *o,
                        uint64_t blocks) {
    size_t size;
    o->streams = z->streams ? (uint32_t)z->streams : DEFAULT_STREAMS;
    if (blocks < o->streams) o->streams = blocks ? (uint32_t)blocks : 1;
    while (o->streams > 1) {
        megabyte_status status = megabyte_codec_size(model, z->mode, o, &size);
        if (status ? status != MEGABYTE_ERROR_OUT_OF_MEMORY : size <= z->s.memory / 4) break;
        o->streams--;
    }
}

static int on_progress(void *context, uint64_t done) {
    const job *j = context;
    if (!j->z->quiet) show_progress(&j->z->bar, done, j->expected, "", base_name(j->name));
    return stop_requested();
}

static megabyte_codec_options common_options(job *j, const session *s) {
    zipper *z = j->z;
    int decodes = z->mode == MEGABYTE_MODE_DECOMPRESS || z->verify;
    return (megabyte_codec_options){.engine = s->engine,
                                    .threads = decodes ? thread_count(&z->shared) : 1,
                                    .isa = chosen_isa(&z->shared),
                                    .dictionary = z->dictionary.data,
                                    .dictionary_size = z->dictionary.n,
                                    .file_type = z->file_type,
                                    .draft_max = z->drafts.most,
                                    .draft_engine = second_engine(s),
                                    .progress = on_progress,
                                    .progress_context = j};
}

/* Memory decides how many blocks are verified side by side, never where they are cut. */
megabyte_codec_options options_for_compressing(job *j, const session *s) {
    const zipper *z = j->z;
    megabyte_codec_options o = common_options(j, s);
    o.streams = (uint32_t)z->streams;
    o.block_size = (uint32_t)z->block_size;
    o.level = (int)z->level;
    o.ensemble = (uint32_t)z->ensemble;
    o.size = j->size == MEGABYTE_SIZE_UNKNOWN ? 0 : j->size;
    o.verify = z->verify;
    o.contents = z->contents;
    o.channels = z->channels;
    if (!z->as && !z->needs_model && is_mulaw(j)) o.contents = MEGABYTE_CONTENTS_MULAW;
    j->expected = o.size;
    if (o.verify) {
        o.block_size = megabyte_codec_block_size(&o);
        fit_streams(z, s == &z->s ? model_in_use(z) : s->model, &o,
                    o.size ? (o.size - 1) / o.block_size + 1 : UINT64_MAX);
    }
    return o;
}

/* Bytes per second of one stream, by a short trial: what decompressing a block takes, or less when
 * several are decoded side by side. 0 if it cannot be told. */
static double measure_rate(const zipper *z) {
    const megabyte_stream_options options = {.engine = z->s.engine, .file_type = z->file_type};
    const int trial = 48;
    megabyte_stream *stream;
    if (megabyte_stream_create(&stream, z->s.model, &options, NULL, NULL)) return 0;
    double start = now();
    for (int i = 0; i < trial; i++) megabyte_stream_step(stream, 'e');
    double rate = trial / (now() - start + 1e-9);
    megabyte_stream_free(stream);
    return rate;
}

/* Tells how much work a file asks for before it is begun: headers are easily forged. */
static void describe_claim(job *j, const survey *v) {
    double rate = v->predicted ? measure_rate(j->z) : 0;
    int n = snprintf(j->claim, sizeof j->claim, "its headers claim %llu bytes",
                     (unsigned long long)v->original);
    if (rate > 0) {
        double s = (double)v->predicted * v->ensemble / rate;
        const char *unit = s < 120 ? "s" : s < 7200 ? "min" : "h";
        snprintf(j->claim + n, sizeof j->claim - (size_t)n,
                 ", up to %.0f %s at %.1f KB/s (less with several blocks)",
                 ceil(s < 120    ? s
                      : s < 7200 ? s / 60
                                 : s / 3600),
                 unit, 1e-3 * rate);
    }
    if (v->predicted > SMALL_CLAIM && (j->z->verbose || isatty(STDERR_FILENO)) && !j->z->quiet)
        complain(j->name, "%s", j->claim);
}

/* Room for everything that the headers announce (of a pipe: the first one, and what others have by
 * default). */
static megabyte_codec_options options_for_decompressing(job *j,
                                                        const megabyte_file_header *header) {
    const zipper *z = j->z;
    megabyte_codec_options o = common_options(j, &z->s);
    uint64_t blocks = header->single ? 1 : UINT64_MAX;
    o.block_size = header->block_size;
    o.context_shift = header->context_shift;
    o.mixing_memory = header->mixing_memory;
    o.ensemble = header->ensemble;
    if (z->limit == UNLIKELY_ONLY) o.max_ratio = LIKELY_RATIO;
    else o.limit = z->limit;
    if (header->size != MEGABYTE_SIZE_UNKNOWN) {
        j->expected = header->size;
        if (header->block_size)
            blocks = header->size ? (header->size - 1) / header->block_size + 1 : 1;
    }
    if (j->size != MEGABYTE_SIZE_UNKNOWN) {
        survey v;
        megabyte_error error;
        off_t read_already = (off_t)j->n_head;
        if (lseek(j->in, -read_already, SEEK_CUR) >= 0) {
            megabyte_status status = survey_file(j, 100000, &v, &error);
            lseek(j->in, read_already, SEEK_CUR);
            blocks = v.blocks;
            if (v.block_size > o.block_size) o.block_size = v.block_size;
            if (v.members && v.context_shift < o.context_shift) o.context_shift = v.context_shift;
            if (v.mixing_memory > o.mixing_memory) o.mixing_memory = v.mixing_memory;
            if (v.ensemble > o.ensemble) o.ensemble = v.ensemble;
            if (!status && v.compressed == j->size) j->expected = v.original;
            if (v.original > SMALL_CLAIM) describe_claim(j, &v);
        }
    }
    if (o.block_size < MEGABYTE_BLOCK_DEFAULT) o.block_size = MEGABYTE_BLOCK_DEFAULT;
    if (header->has_dictionary)
        o.mixing_memory = header->mixing_memory ? header->mixing_memory
                                                : MEGABYTE_NO_CONTEXT_MIXING;
    else if (j->size == MEGABYTE_SIZE_UNKNOWN && o.mixing_memory < 16) o.mixing_memory = 16;
    else if (!o.mixing_memory) o.mixing_memory = MEGABYTE_NO_CONTEXT_MIXING;
    fit_streams(z, model_in_use(z), &o, blocks);
    return o;
}

static int make_codec(job *j, const megabyte_codec_options *o) {
    zipper *z = j->z;
    megabyte_error error;
    char why[256];
    const char *fault = z->needs_model ? fault_of_type(&z->s, z->file_type, &error)
                        : z->file_type ? "it was compressed without a model, and without a type"
                                       : NULL;
    if (fault) {
        snprintf(why, sizeof why, "--type: %s", fault);
        return complain(j->name, "%s", why);
    }
    megabyte_codec_free(z->codec);
    z->codec = NULL;
    size_t size;
    if (!megabyte_codec_size(model_in_use(z), z->mode, o, &size) &&
        !memory_suffices(&z->s, z->mode == MEGABYTE_MODE_COMPRESS ? "compressing" : "decompressing",
                         size, why))
        return complain(j->name, "%s", why);
    z->size_was_told = z->mode == MEGABYTE_MODE_COMPRESS && o->size != 0;
    megabyte_status status = megabyte_codec_create(&z->codec, model_in_use(z), z->mode, o, NULL,
                                                   &error);
    if (!status) return 1;
    z->codec = NULL;
    if (status == MEGABYTE_ERROR_CANCELLED && stop_requested()) return 0;
    return complain(j->name, "%s", error.text[0] ? error.text : megabyte_status_string(status));
}

/* What was pushed is kept until it is decoded: where the codec stops, others may go on. */
static void remember(job *j, const uint8_t *data, size_t n) {
    megabyte_statistics counts;
    megabyte_codec_statistics(j->z->codec, &counts);
    uint64_t decoded = counts.compressed > j->recent_at ? counts.compressed - j->recent_at : 0;
    if (decoded > j->recent.n) decoded = j->recent.n;
    if (decoded > j->recent.n / 2) {
        j->recent.n -= (size_t)decoded;
        memmove(j->recent.data, j->recent.data + decoded, j->recent.n);
        j->recent_at += decoded;
    }
    append(&j->recent, data, n);
}

/* Does a member follow that is a picture, or needs another model? Then it becomes `rest`. */
static int keep_rest(job *j, megabyte_status status, uint64_t offset) {
    if (status != MEGABYTE_ERROR_TRAILING_DATA &&
        (status != MEGABYTE_ERROR_WRONG_MODEL || (j->z->shared.model && j->z->needs_model)))
        return 0;
    if (!offset || offset < j->recent_at || offset - j->recent_at > j->recent.n) return 0;
    size_t begin = (size_t)(offset - j->recent_at);
    bytes rest = {.n = 0};
    append(&rest, j->recent.data + begin, j->recent.n - begin);
    append(&rest, j->rest.data ? j->rest.data + j->rest_at : rest.data, j->rest.n - j->rest_at);
    free(j->rest.data);
    j->rest = rest;
    j->rest_at = 0;
    if (!gather(j, 4)) return 0;
    return j->goes_on = status == MEGABYTE_ERROR_WRONG_MODEL ||
                        begins_with_picture(j->rest.data, j->rest.n);
}

/* Tells why the codec stopped. Data that follows is no reason to throw away what came before. */
static int codec_failed(job *j, megabyte_status status) {
    const megabyte_error *error = megabyte_codec_error(j->z->codec);
    if (j->z->mode == MEGABYTE_MODE_DECOMPRESS && keep_rest(j, status, error->offset)) return 0;
    const char *text = error->text[0] ? error->text : megabyte_status_string(status);
    char why[512];
    end_progress(&j->z->bar);
    if (status == MEGABYTE_ERROR_CANCELLED && stop_requested()) return 0;
    if (status == MEGABYTE_ERROR_TRAILING_DATA) j->has_trailing_data = 1;
    if (status == MEGABYTE_ERROR_INVALID_ARGUMENT && j->z->size_was_told)
        return complain(j->name, "changed while it was read");
    int n = snprintf(
        why, sizeof why, "%s%s", text,
        status == MEGABYTE_ERROR_WRONG_DICTIONARY ? " (options --dictionary and --type)" : "");
    if (status == MEGABYTE_ERROR_LIMIT && n > 0)
        snprintf(why + n, sizeof why - (size_t)n, "%s%s; --limit SIZE allows more, 0 anything",
                 *j->claim ? ": " : "", j->claim);
    return complain(j->name, "%s", why);
}

/* Hands on everything that the codec has to give. */
static int pull_all(job *j) {
    for (size_t produced;;) {
        megabyte_status status = megabyte_codec_pull(j->z->codec, j->z->result, PIECE, &produced);
        if (status) return codec_failed(j, status);
        if (!produced) return !stop_requested();
        if (!write_out(j, j->z->result, produced)) return 0;
    }
}

static int push_all(job *j, const uint8_t *data, size_t n) {
    if (j->z->mode == MEGABYTE_MODE_DECOMPRESS) remember(j, data, n);
    for (size_t consumed, idle = 0; n; data += consumed, n -= consumed) {
        megabyte_status status = megabyte_codec_push(j->z->codec, data, n, &consumed);
        if (status) return codec_failed(j, status);
        idle = consumed ? 0 : idle + 1;
        if (idle > 1) return complain(j->name, "the codec takes no more (this is a bug)");
        if (consumed < n && !pull_all(j)) return 0;
    }
    return 1;
}

/* Everything from the input through the codec to the output. */
static int transfer(job *j) {
    const zipper *z = j->z;
    size_t n_head = j->n_head, n_rest = j->rest.n - j->rest_at;
    j->recent.n = j->n_head = 0;
    j->recent_at = 0;
    if (n_head && !push_all(j, j->head, n_head)) return 0;
    while (n_rest) {
        const uint8_t *data = j->rest.data + j->rest_at;
        size_t n = n_rest < PIECE ? n_rest : PIECE;
        j->rest_at += n;
        n_rest -= n;
        if (!push_all(j, data, n)) return 0;
    }
    for (;;) {
        if (z->mode == MEGABYTE_MODE_DECOMPRESS && !input_waits(j->in)) {
            megabyte_codec_flush(z->codec);
            if (!pull_all(j)) return 0;
        }
        ssize_t n = read_some(j->in, z->input, PIECE, j->name);
        if (n < 0) return 0;
        if (n == 0) break;
        j->bytes_in += (size_t)n;
        if (!push_all(j, z->input, (size_t)n)) return 0;
    }
    megabyte_codec_finish(z->codec);
    return pull_all(j);
}

/* =================================================================================== 4 reports */

static uint64_t original_size(const job *j) {
    return j->z->mode == MEGABYTE_MODE_COMPRESS ? j->bytes_in : j->bytes_out;
}

static uint64_t compressed_size(const job *j) {
    return j->z->mode == MEGABYTE_MODE_COMPRESS ? j->bytes_out : j->bytes_in;
}

double quotient(double a, double b) { return b > 0 ? a / b : (double)NAN; }

double or_zero(double value) { return fabs(value) <= DBL_MAX ? value : 0; }

const char *const method_names[MEGABYTE_METHOD_COUNT] = {"stored", "constant", "model",
                                                         "context-mixing", "mixed"};

void json_blocks(const uint64_t by_method[MEGABYTE_METHOD_COUNT]) {
    printf(", \"blocks\": {");
    for (int i = 0; i < MEGABYTE_METHOD_COUNT; i++)
        printf("%s\"%s\": %llu", i ? ", " : "", method_names[i], (unsigned long long)by_method[i]);
    putchar('}');
}

static void print_report(const job *j) {
    const double original = (double)original_size(j), compressed = (double)compressed_size(j);
    const uint64_t *blocks = j->counts.blocks;
    print_harmless(stderr, j->name);
    fputs(": ", stderr);
    fprintf(stderr, "%s%llu -> %llu bytes, ratio %.3f, %.5f bits/byte, %.2f s, %.1f KB/s\n",
            j->path && j->z->self->run == run_test ? "OK, " : "", (unsigned long long)j->bytes_in,
            (unsigned long long)j->bytes_out, or_zero(quotient(original, compressed)),
            or_zero(quotient(8 * compressed, original)), j->seconds,
            or_zero(quotient(1e-3 * original, j->seconds)));
    fputs("    ", stderr);
    print_bar(stderr, quotient(compressed, original), 30);
    fprintf(stderr, " %.1f%% of the original\n", 100 * or_zero(quotient(compressed, original)));
    fprintf(stderr, "    blocks:");
    for (int i = MEGABYTE_METHOD_COUNT, n = 0; i-- > 0;)
        if (blocks[i])
            fprintf(stderr, "%s %llu %s", n++ ? "," : "", (unsigned long long)blocks[i],
                    method_names[i]);
    if (j->z->mode == MEGABYTE_MODE_COMPRESS && j->counts.coded_bits)
        fprintf(stderr, "; coded in %llu bytes, ideally %.1f (%+.4f%%)",
                (unsigned long long)(j->counts.coded_bits / 8), j->counts.ideal_bits / 8,
                100 * ((double)j->counts.coded_bits / j->counts.ideal_bits - 1));
    if (j->counts.model_bits > 0) fprintf(stderr, "; model alone %.1f", j->counts.model_bits / 8);
    if (j->pictures)
        fprintf(stderr, "; of these %llu picture%s", (unsigned long long)j->pictures,
                j->pictures > 1 ? "s" : "");
    if (j->sounds) fputs("; by the model of sound", stderr);
    if (j->linear) fputs("; as linear samples", stderr);
    if (j->counts.passes)
        fprintf(stderr, "; %.2f bytes a pass",
                quotient((double)j->counts.steps, (double)j->counts.passes));
    fputc('\n', stderr);
}

static void print_report_json(const job *j, const char *to) {
    const double original = (double)original_size(j), compressed = (double)compressed_size(j);
    if (to) {
        printf("\"output\": ");
        json_text(stdout, to, strlen(to));
        printf(", ");
    }
    printf("\"original\": %llu, \"compressed\": %llu", (unsigned long long)original_size(j),
           (unsigned long long)compressed_size(j));
    json_field("ratio", quotient(original, compressed));
    json_field("bits_per_byte", quotient(8 * compressed, original));
    json_blocks(j->counts.blocks);
    json_field("pictures", (double)j->pictures);
    if (j->z->mode == MEGABYTE_MODE_COMPRESS) {
        json_field("sounds", (double)j->sounds);
        json_field("linear", (double)j->linear);
        json_field("coded_bytes", (double)(j->counts.coded_bits / 8));
        json_field("ideal_bytes", j->counts.ideal_bits / 8);
        json_field("model_bytes", j->counts.model_bits / 8);
    } else {
        json_field("bytes_per_pass", quotient((double)j->counts.steps, (double)j->counts.passes));
    }
    json_field("seconds", j->seconds);
    json_field("bytes_per_second", quotient(original, j->seconds));
}

static void add_counts(megabyte_statistics *total, const megabyte_statistics *one) {
    for (int i = 0; i < MEGABYTE_METHOD_COUNT; i++) total->blocks[i] += one->blocks[i];
    total->coded_bits += one->coded_bits;
    total->ideal_bits += one->ideal_bits;
    total->model_bits += one->model_bits;
    total->steps += one->steps;
    total->passes += one->passes;
}

static void add_up(job *total, const job *j) {
    total->bytes_in += j->bytes_in;
    total->bytes_out += j->bytes_out;
    total->seconds += j->seconds;
    total->pictures += j->pictures;
    total->sounds += j->sounds;
    total->linear += j->linear;
    add_counts(&total->counts, &j->counts);
}

/* ================================================================ 5 compress, decompress, test */

/* With the output named and the model and the codec made: the work itself. */
static int run_job(job *j, const megabyte_codec_options *o) {
    zipper *z = j->z;
    megabyte_statistics counts;
    if (!make_codec(j, o)) return 0;
    if (z->writes && !create_output(&j->to)) return complain(j->to.path, "%s", j->to.why);
    z->bar = (progress){.start = now()};
    int good = transfer(j);
    j->seconds += now() - z->bar.start;
    end_progress(&z->bar);
    megabyte_codec_statistics(z->codec, &counts);
    add_counts(&j->counts, &counts);
    return good;
}

static int compress_job(job *j) {
    zipper *z = j->z;
    int is_done;
    if (!choose_output(j)) return 0;
    if (z->needs_model && !z->is_open) open_with(z, &z->shared);
    if (!pack_payload(j, &is_done)) return 0;
    if (!is_done && !pack_sound(j, &is_done)) return 0;
    if (is_done) return 1;
    megabyte_codec_options o = options_for_compressing(j, &z->s);
    return run_job(j, &o);
}

/* Each change of model takes time and allows a megabyte, whatever max_ratio (see megabyte.h): so
 * there may not be many in few bytes. */
int may_switch(job *j) {
    if (j->switches++ <= 8 + j->bytes_in / 1024 || j->z->limit != UNLIKELY_ONLY) return 1;
    return complain(j->name, "changes its model too often for its size; --limit 0 allows it");
}

/* The members that `rest` and the input hold. */
static int decompress_rest(job *j) {
    zipper *z = j->z;
    megabyte_file_header header;
    megabyte_error error;
    if (z->writes && !create_output(&j->to)) return complain(j->to.path, "%s", j->to.why);
    j->size = MEGABYTE_SIZE_UNKNOWN;
    for (;;) {
        if (!gather(j, MEGABYTE_HEADER_MAX)) return 0;
        const uint8_t *next = j->rest.data + j->rest_at;
        size_t n = j->rest.n - j->rest_at;
        if (!n) return 1;
        if (begins_with_picture(next, n)) {
            double start = now();
            z->bar = (progress){.start = start};
            if (!unpack_payload(j)) return 0;
            j->seconds += now() - start;
            continue;
        }
        if (!may_switch(j)) return 0;
        if (megabyte_file_header_read(next, n, &header, &error)) {
            j->has_trailing_data = error.status == MEGABYTE_ERROR_BAD_MAGIC;
            return complain(j->name, "%s",
                            j->has_trailing_data
                                ? megabyte_status_string(MEGABYTE_ERROR_TRAILING_DATA)
                                : error.text);
        }
        if (!use_model_for(j, &header)) return 0;
        megabyte_codec_options o = options_for_decompressing(j, &header);
        j->goes_on = 0;
        if (run_job(j, &o)) return 1;
        if (!j->goes_on) return 0;
    }
}

static int decompress_job(job *j) {
    megabyte_file_header header;
    if (!choose_output(j) || !peek(j)) return 0;
    if (begins_with_picture(j->head, j->n_head)) {
        append(&j->rest, j->head, j->n_head);
        j->n_head = 0;
        return decompress_rest(j);
    }
    if (!read_head(j, &header) || !use_model_for(j, &header)) return 0;
    megabyte_codec_options o = options_for_decompressing(j, &header);
    return run_job(j, &o) || (j->goes_on && decompress_rest(j));
}

int process(job *j) {
    zipper *z = j->z;
    int elsewhere = !z->writes || z->to_stdout || z->output;
    int good = open_input(j, z->force || elsewhere, elsewhere);
    good = good && (z->mode == MEGABYTE_MODE_COMPRESS ? compress_job(j) : decompress_job(j));
    free(j->recent.data);
    free(j->rest.data);
    j->recent = j->rest = (bytes){.n = 0};
    return good;
}

/* Returns 1, or 0 after a message; counts the file and reports it. */
static int process_file(zipper *z, char *path, job *total, int *n_printed) {
    job j = {.z = z, .path = path, .name = path, .in = -1, .to = {.file = -1}};
    int good = process(&j), is_complete = close_output(&j, good || j.has_trailing_data);
    good = good && is_complete;
    if (good && z->remove_input && j.in != STDIN_FILENO) good = remove_input(&j);
    close_input(&j);
    if (good && z->verbose) print_report(&j);
    if (good && z->shared.json) {
        printf("%s{\"name\": ", (*n_printed)++ ? ", " : "");
        json_text(stdout, path, strlen(path));
        printf(", ");
        print_report_json(&j, j.to.path);
        printf("}");
        flush_report();
    }
    if (good) add_up(total, &j);
    free_output(&j.to);
    return good;
}

static int process_all(zipper *z, char **paths, int n) {
    static char standard_input[] = "-";
    char *no_paths[] = {standard_input};
    job total = {.z = z, .name = "total"};
    int n_printed = 0;
    path_list list = {.n = 0};
    int good = find_files(z, n ? paths : no_paths, n ? n : 1, &list);
    if (z->shared.json) printf("{\"files\": [");
    for (size_t i = 0; i < list.n && !stop_requested(); i++)
        if (!process_file(z, list.path[i], &total, &n_printed)) good = 0;
    if (z->shared.json) {
        printf("], \"total\": {");
        print_report_json(&total, NULL);
        puts("}}");
    } else if (z->verbose && list.n > 1 && !stop_requested()) {
        print_report(&total);
    }
    free_paths(&list);
    if (report_failure()) good = 0;
    return stop_requested() ? stop_requested() : !good;
}

enum { COMPRESSES = 1, DECOMPRESSES = 2, TESTS = 4 };

/* The three subcommands share most of their options. */
static int run_zipper(const command *self, int argc, char **argv, int who) {
    zipper z = {.self = self, .suffix = ".mbz", .writes = who != TESTS, .limit = UNLIKELY_ONLY};
    const char *draft = NULL;
    const int all = COMPRESSES | DECOMPRESSES | TESTS;
    const uint32_t cores = count_cores();
    z.mode = who == COMPRESSES ? MEGABYTE_MODE_COMPRESS : MEGABYTE_MODE_DECOMPRESS;
    z.shared.threads = who != COMPRESSES && cores > 8
                           ? 8
                           : cores; /* a byte of each stream is too little for more */
    const struct {
        int who;
        option o;
    } table[] = {
        {COMPRESSES | DECOMPRESSES,
         {"output", 'o', OPTION_TEXT, &z.output, 0, 0, "OUT",
          "write to this file or device (one FILE only; -: standard output)"}},
        {COMPRESSES | DECOMPRESSES,
         {"stdout", 'c', OPTION_FLAG, &z.to_stdout, 0, 0, NULL, "write to standard output"}},
        {COMPRESSES | DECOMPRESSES,
         {"keep", 'k', OPTION_FLAG, &z.keep, 0, 0, NULL,
          "keep the input (so it is without -k, too)"}},
        {COMPRESSES | DECOMPRESSES,
         {"rm", 0, OPTION_FLAG, &z.remove_input, 0, 0, NULL,
          who == COMPRESSES ? "remove the input after success; implies --verify"
                            : "remove the input after success"}},
        {COMPRESSES,
         {"force", 'f', OPTION_FLAG, &z.force, 0, 0, NULL,
          "overwrite; follow links; write to a terminal; compress .mbz files"}},
        {DECOMPRESSES,
         {"force", 'f', OPTION_FLAG, &z.force, 0, 0, NULL,
          "overwrite; follow links; read from a terminal"}},
        {TESTS, {"force", 'f', OPTION_FLAG, &z.force, 0, 0, NULL, "read from a terminal"}},
        {COMPRESSES,
         {"level", '1', OPTION_LEVEL, &z.level, 1, 9, "LEVEL",
          "1-4 (fast): context mixing, no model; 5: model; 6-9: both (7)"}},
        {COMPRESSES,
         {"streams", 'S', OPTION_NUMBER, &z.streams, 1, 256, "STREAMS",
          "cut each file into at least so many blocks (default: by size)"}},
        {DECOMPRESSES | TESTS,
         {"streams", 'S', OPTION_NUMBER, &z.streams, 1, 256, "STREAMS",
          "decode so many blocks side by side (16), if memory allows"}},
        {COMPRESSES,
         {"block", 'B', OPTION_SIZE, &z.block_size, 1, MEGABYTE_BLOCK_MAX, "SIZE",
          "bytes per block (default: by -S and size), up to 64M"}},
        {COMPRESSES,
         {"ensemble", 0, OPTION_NUMBER, &z.ensemble, 1, 4, "N",
          "average N = 2 or 4 streams of the model: smaller, N times as long"}},
        {COMPRESSES,
         {"verify", 0, OPTION_FLAG, &z.verify, 0, 0, NULL,
          "decode each block before it is written"}},
        {DECOMPRESSES | TESTS, {"draft", 0, OPTION_TEXT, &draft, 0, 0, DRAFT_ARGUMENT, DRAFT_HELP}},
        {COMPRESSES,
         {"draft", 0, OPTION_TEXT, &draft, 0, 0, DRAFT_ARGUMENT,
          "of --verify, as decompress has it: faster, the same result"}},
        {DECOMPRESSES | TESTS,
         {"limit", 0, OPTION_SIZE, &z.limit, 0, ANY, "SIZE",
          "refuse a file that claims more (0: none; default: see above)"}},
        {all,
         {"dictionary", 0, OPTION_TEXT, &z.dictionary_file, 0, 0, "FILE",
          who == COMPRESSES ? "read FILE before each block; decoding needs it"
                            : "the FILE given to compress --dictionary"}},
        {COMPRESSES,
         {"type", 0, OPTION_TEXT, &z.file_type, 0, 0, "EXT", TYPE_HELP "; decoding needs it"}},
        {DECOMPRESSES | TESTS,
         {"type", 0, OPTION_TEXT, &z.file_type, 0, 0, "EXT", "the EXT given to compress --type"}},
        {COMPRESSES, {"as", 0, OPTION_TEXT, &z.as, 0, 0, "KIND", "raw sound: " CONTENTS_HELP}},
        {COMPRESSES,
         {"against", 0, OPTION_FLAG, &z.against, 0, 0, NULL,
          "write no files: print a table of sizes beside other compressors"}},
        {all, {"recursive", 'r', OPTION_FLAG, &z.recursive, 0, 0, NULL, RECURSIVE_HELP}},
        {COMPRESSES,
         {"decompress", 'd', OPTION_FLAG, &z.decompresses, 0, 0, NULL,
          "decompress instead, as tar -I 'mbrun compress' -x asks for"}},
        {all,
         {"verbose", 'v', OPTION_FLAG, &z.verbose, 0, 0, NULL,
          who == TESTS ? "say OK, sizes and speed of each file"
                       : "tell sizes, blocks and speed of each file"}},
        {all,
         {"quiet", 'q', OPTION_FLAG, &z.quiet, 0, 0, NULL,
          "no progress bar, not a word about skipped files"}},
    };
    option own[COUNT_OF(table)];
    size_t n_own = 0;
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (table[i].who & who) own[n_own++] = table[i].o;
    int n = parse_options(self, own, n_own, &z.shared, argc, argv);
    z.drafts = read_drafts(self, draft);
    if (z.decompresses) {
        who = DECOMPRESSES;
        z.mode = MEGABYTE_MODE_DECOMPRESS;
    }
    if (z.output && !strcmp(z.output, "-")) {
        z.output = NULL;
        z.to_stdout = 1;
    }
    if (z.output && z.to_stdout) usage_error(self, "-o and -c", "give only one of them");
    if (z.output && n > 1)
        usage_error(self, "-o", "takes only one FILE (-c writes several, one after the other)");
    if (z.output && z.recursive) usage_error(self, "-r and -o", "give only one of them");
    if (z.recursive && !n) usage_error(self, "-r", "name a folder");
    if (z.keep && z.remove_input) usage_error(self, "-k and --rm", "give only one of them");
    if (z.to_stdout && z.remove_input)
        usage_error(self, "--rm", "not together with -c: what is written there may get lost");
    if (z.to_stdout && z.shared.json)
        usage_error(self, "--json", "would mix with the output of -c");
    if (!n && !z.output && z.writes && z.shared.json)
        usage_error(self, "--json", "would mix with standard output");
    if (z.against && (z.output || z.to_stdout || z.remove_input || z.shared.json))
        usage_error(self, "--against", "not together with -o, -c, --rm or --json");
    if (z.against && !n) usage_error(self, "FILE", "none given");
    z.needs_model = !z.level || z.level >= 5;
    if (who == COMPRESSES) z.shared.otherwise = "levels -1 to -4 need none";
    if (z.file_type && !z.needs_model)
        usage_error(self, "--type", "not at levels 1 to 4, which use no model");
    if (z.as && !contents_named(z.as, &z.contents, &z.channels))
        usage_error(self, "--as", "knows only " CONTENTS_HELP);
    if (z.channels && z.level != 5) z.needs_model = 0; /* a model knows nothing of these */
    if (z.ensemble == 3) usage_error(self, "--ensemble", "1, 2 or 4");
    if (z.ensemble > 1 && (!z.needs_model || z.dictionary_file || z.file_type))
        usage_error(self, "--ensemble",
                    "not at levels 1 to 4, which use no model, nor with --dictionary or --type");
    if (z.as && (z.dictionary_file || z.file_type))
        usage_error(self, "--as", "not together with --dictionary or --type");
    if (z.remove_input) z.verify = 1;
    if (who == COMPRESSES && !z.verify) z.drafts.model = NULL; /* nothing is decoded */

    if (z.dictionary_file) read_file(z.dictionary_file, &z.dictionary);
    z.input = allocate(PIECE, 1);
    z.result = allocate(PIECE, 1);
    begin_session(&z.s, &z.shared);
    catch_interrupt();
    int status = z.against ? compare_all(&z, argv, n) : process_all(&z, argv, n);
    close_model(&z);
    close_model_beside(&z);
    free_known_models(&z.known);
    free(z.dictionary.data);
    free(z.input);
    free(z.result);
    return status;
}

int run_compress(const command *self, int argc, char **argv) {
    return run_zipper(self, argc, argv, COMPRESSES);
}

int run_decompress(const command *self, int argc, char **argv) {
    return run_zipper(self, argc, argv, DECOMPRESSES);
}

int run_test(const command *self, int argc, char **argv) {
    return run_zipper(self, argc, argv, TESTS);
}
