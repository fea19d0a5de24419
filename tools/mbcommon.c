/* mbcommon.c - what the files of mbrun share: see mbrun.h.
 * SPDX-License-Identifier: MIT
 *
 * CONTENTS
 *    1 output and files    output that fails, files, time, the progress bar
 *    2 the model in use    finding the files, opening them, the engine
 *    3 JSON */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64 /* files beyond 2 GiB on 32-bit systems */
#include "mbrun.h"
#include "host.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ========================================================================== 1 output and files */

/* A reader that went away (mbrun ... | head) ends a filter without a word, by the signal: that is
 * what shells and scripts know. */
int ignores_pipes;
_Noreturn void reader_went_away(void) {
    remove_unfinished();
    if (!ignores_pipes) end_by_closed_pipe();
    fputs("mbrun: standard output: nobody reads it\n", stderr);
    _Exit(1);
}

_Noreturn void output_failed(void) {
    if (is_closed_pipe(errno)) reader_went_away();
    fprintf(stderr, "mbrun: standard output: %s\n", strerror(errno));
    remove_unfinished();
    _Exit(1);
}

void flush_output(void) {
    if (fflush(stdout) || ferror(stdout)) output_failed();
}

/* From then on reports go nowhere. */
static int report_errno;
void flush_report(void) {
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout)) return;
    if (!report_errno) report_errno = errno ? errno : EIO;
    int nowhere = open(NULL_DEVICE, O_WRONLY);
    if (nowhere >= 0) {
        dup2(nowhere, STDOUT_FILENO);
        close(nowhere);
    }
    clearerr(stdout);
    fflush(stdout);
}

int report_failure(void) {
    flush_report();
    if (is_closed_pipe(report_errno)) reader_went_away();
    if (report_errno) complain("standard output", "%s", strerror(report_errno));
    return report_errno != 0;
}

void append(bytes *b, const void *data, size_t n) {
    if (n > b->capacity - b->n) {
        size_t capacity = b->capacity < 2048 ? 4096 : 2 * b->capacity;
        if (n > SIZE_MAX / 4 || capacity < b->capacity) die("memory", "not enough of it");
        while (capacity - b->n < n) capacity *= 2;
        uint8_t *larger = realloc(b->data, capacity);
        if (!larger) die("memory", "not enough of it");
        b->data = larger;
        b->capacity = capacity;
    }
    if (n) memcpy(b->data + b->n, data, n);
    b->n += n;
}

void read_file(const char *path, bytes *out) {
    uint8_t piece[16384];
    struct stat status;
    int is_stdin = !strcmp(path, "-");
    FILE *in = is_stdin ? stdin : fopen(path, "rb");
    if (!in) die(path, "%s", strerror(errno));
    if (!fstat(fileno(in), &status) && S_ISREG(status.st_mode) &&
        ((uint64_t)status.st_size > SIZE_MAX / 4 || (uint64_t)status.st_size > physical_memory()))
        die(path, "%llu bytes are too many to be held in this machine's memory",
            (unsigned long long)status.st_size);
    for (size_t n; (n = fread(piece, 1, sizeof piece, in)) > 0;) append(out, piece, n);
    if (ferror(in)) die(path, "%s", strerror(errno));
    if (!is_stdin) fclose(in);
}

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static const char full_bar[] = "##############################";

void print_bar(FILE *out, double part, int columns) {
    int n = part > 0 ? (int)(columns * (part < 1 ? part : 1) + 0.5) : 0;
    fprintf(out, "[%-*.*s]", columns, n, full_bar);
}

void show_progress(progress *p, uint64_t done, uint64_t expected, const char *note,
                   const char *name) {
    char line[160];
    double time = now(), seconds = time - p->start;
    if (!isatty(STDERR_FILENO) || time - p->last < 0.1) return;
    p->last = time;
    int n;
    if (expected) {
        double part = done < expected ? (double)done / (double)expected : 1;
        double left = part > 0 ? ceil(seconds * (1 - part) / part) : 0;
        n = snprintf(line, sizeof line, "[%-30.*s] %3.0f%%", (int)(30 * part), full_bar,
                     100 * part);
        if (part > 0 && left < 360000)
            n += snprintf(line + n, sizeof line - (size_t)n, "  %d:%02d:%02d left",
                          (int)left / 3600, (int)left / 60 % 60, (int)left % 60);
    } else {
        n = snprintf(line, sizeof line, "%llu bytes", (unsigned long long)done);
    }
    n += snprintf(line + n, sizeof line - (size_t)n, "  %.1f KB/s%s%.24s",
                  1e-3 * (double)done / (seconds + 1e-9), *note ? "  " : "", note);
    char shown[96]; /* 80 columns in all */
    snprintf(shown, sizeof shown, "%.*s", n < 76 ? 77 - n : 0, name);
    fprintf(stderr, "\r%s  ", line);
    print_harmless(stderr, shown);
    fputs("\033[K", stderr);
}

void end_progress(progress *p) {
    if (p->last > 0) fputs("\r\033[K", stderr);
    p->last = 0;
}

/* =========================================================================== 2 the model in use */

static int is_file(const char *path) {
    struct stat status;
    return !stat(path, &status) && !S_ISDIR(status.st_mode);
}

/* The directory of this program with its last '/', or "" if it cannot be told. */
const char *program_name = "mbrun";

static void program_directory(char *out, size_t size) {
    const char *slash = program_path(program_name, out, size) ? last_slash(out) : NULL;
    out[slash ? slash + 1 - out : 0] = 0;
}

/* The i-th directory where models are kept, with its last '/'; 0 past the last one. */
static int model_place(size_t i, char *path, size_t size) {
    static const char *const places[] = {"models/", "../models/", "../share/megabyte/"};
    char directory[2048];
    program_directory(directory, sizeof directory);
    if (i > COUNT_OF(places) || (!directory[0] && i > 0)) return 0;
    if (i == COUNT_OF(places) || !directory[0])
        snprintf(path, size, "models/"); /* in the current directory */
    else snprintf(path, size, "%s%s", directory, places[i]);
    return 1;
}

/* Looks for NAME.mb where models are kept; 1 if found. `looked` collects the places for the
 * message. */
static int find_shipped_model(const char *name, char *path, size_t size, char *looked,
                              size_t looked_size) {
    char place[2112];
    size_t used = 0;
    for (size_t i = 0; model_place(i, place, sizeof place); i++) {
        int n = snprintf(path, size, "%s%s.mb", place, name);
        if (n > 0 && (size_t)n < size && is_file(path)) return 1;
        if (used < looked_size) {
            n = snprintf(looked + used, looked_size - used, "%s%s", used ? ", " : "", path);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    return 0;
}

int find_model_named(const char *name, char *path, size_t size) {
    char looked[8192];
    return find_shipped_model(name, path, size, looked, sizeof looked);
}

typedef int name_found(void *context, const char *place, const char *file);

/* The .mb files where models are kept, place after place, until one call returns 0. */
static void walk_models(name_found *found, void *context) {
    char place[2112];
    for (size_t i = 0, goes_on = 1; goes_on && model_place(i, place, sizeof place); i++) {
        DIR *directory = opendir(place);
        if (!directory) continue;
        for (struct dirent *entry; goes_on && (entry = readdir(directory));) {
            size_t length = strlen(entry->d_name);
            if (length <= 3 || strcmp(entry->d_name + length - 3, ".mb")) continue;
            goes_on = (size_t)found(context, place, entry->d_name);
        }
        closedir(directory);
    }
}

typedef struct name_list {
    char name[32][64];
    size_t n;
} name_list;

static int add_name(void *context, const char *place, const char *file) {
    name_list *list = context;
    size_t n = strlen(file) - 3, at = 0;
    (void)place;
    if (n >= sizeof *list->name) return 1;
    while (at < list->n && strncmp(list->name[at], file, n) < 0) at++;
    if (at < list->n && !strncmp(list->name[at], file, n) && !list->name[at][n]) return 1;
    memmove(list->name + at + 1, list->name + at, (list->n - at) * sizeof *list->name);
    snprintf(list->name[at], sizeof *list->name, "%.*s", (int)n, file);
    return ++list->n < COUNT_OF(list->name);
}

/* Why there is no model of this name: those that there are, or where they were looked for. */
static void tell_models(const char *given, const char *looked, char *why, size_t size) {
    name_list *list = allocate(1, sizeof *list);
    nearest best = {.word = NULL};
    walk_models(add_name, list);
    for (size_t i = 0; i < list->n; i++) consider(&best, given, strlen(given), list->name[i]);
    size_t n = (size_t)snprintf(why, size, "no such model; ");
    if (best.word) n += (size_t)snprintf(why + n, size - n, "did you mean %s? ", best.word);
    if (list->n) n += (size_t)snprintf(why + n, size - n, "there %s", list->n > 1 ? "are" : "is");
    for (size_t i = 0; i < list->n; i++)
        n += (size_t)snprintf(why + n, size - n, "%s %s", i ? "," : "", list->name[i]);
    if (!list->n) snprintf(why + n, size - n, "looked at ./%.200s, %s", given, looked);
    free(list);
}

/* Returns 1, or 0 with the reason. *name: what the user called it, NULL if nothing. */
static int find_model(const char *given, const char *usual, char *path, size_t size,
                      const char **name, char *why, size_t why_size) {
    char looked[8192] = "";
    *name = given || usual ? given : getenv("MEGABYTE_MODEL");
    if (*name && !**name && !given) *name = NULL;
    if (*name) {
        size_t length = strlen(*name);
        int is_bare = length && !last_slash(*name) &&
                      !(length > 3 && !strcmp(*name + length - 3, ".mb"));
        if (!is_bare || is_file(*name)) { /* a path: opening it tells what is wrong with it */
            if ((size_t)snprintf(path, size, "%s", *name) < size) return 1;
            snprintf(why, why_size, "path too long");
            return 0;
        }
        if (find_shipped_model(*name, path, size, looked, sizeof looked)) return 1;
        tell_models(*name, looked, why, why_size);
        return 0;
    }
    if (find_shipped_model(usual ? usual : "text", path, size, looked, sizeof looked)) return 1;
    snprintf(why, why_size, "none found; give one with -m%s (looked at %s)",
             usual ? "" : " or MEGABYTE_MODEL", looked);
    return 0;
}

/* Some of the library's texts begin with the path already. */
_Noreturn void die_of(const char *path, const megabyte_error *error, megabyte_status status) {
    const char *why = error->text[0] ? error->text : megabyte_status_string(status);
    size_t n = strlen(path);
    if (!strncmp(why, path, n) && !strncmp(why + n, ": ", 2)) why += n + 2;
    die(path, "%s", why);
}

/* A model file of a few KB may need gigabytes: that is told, not tried. */
int memory_suffices(const session *s, const char *what, uint64_t n, char why[256]) {
    if (n <= s->memory - s->loaded) return 1;
    snprintf(why, 256,
             "%s needs up to %.0f MB of memory, more than the %.0f MB %s; --memory %lluM "
             "allows it",
             what, 1e-6 * (double)n, 1e-6 * (double)s->memory,
             s->memory == physical_memory() ? "of this machine" : "allowed",
             (unsigned long long)((n + s->loaded) >> 20) + 1);
    return 0;
}

void begin_session(session *s, const shared_options *shared) {
    memset(s, 0, sizeof *s);
    s->memory = shared->memory ? shared->memory : physical_memory();
    end_on_lost_pages();
}

void open_model(session *s, const shared_options *shared) {
    megabyte_error error;
    const char *name;
    char why[8448];
    begin_session(s, shared);
    if (!find_model(shared->model, shared->usual, s->path, sizeof s->path, &name, why, sizeof why))
        die(name ? name : "model", "%s%s%s", why, shared->otherwise ? "; " : "",
            shared->otherwise ? shared->otherwise : "");
    struct stat file;
    int map = shared->map || stat(s->path, &file) || (uint64_t)file.st_size > s->memory / 4;
    s->large_pages = !map;
    if (!map) s->loaded = (uint64_t)file.st_size;
    megabyte_status status = (map ? megabyte_model_open : megabyte_model_load)(&s->model, s->path,
                                                                               NULL, &error);
    if (status) die_of(s->path, &error, status);
    megabyte_model_describe(s->model, &s->info);
}

/* Appends the model at `path` if it is one. */
static void add_known_model(known_models *list, const char *path) {
    megabyte_model *model;
    megabyte_info info;
    if (megabyte_model_open(&model, path, NULL, NULL)) return;
    megabyte_model_describe(model, &info);
    megabyte_model_close(model);
    known_model *larger = realloc(list->model, (list->n + 1) * sizeof *larger);
    if (!larger) die("memory", "not enough of it");
    list->model = larger;
    known_model *added = &larger[list->n++];
    added->path = allocate(strlen(path) + 1, 1);
    strcpy(added->path, path);
    memcpy(added->id, info.id, sizeof added->id);
}

static int add_if_model(void *context, const char *place, const char *file) {
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s%s", place, file) < sizeof path)
        add_known_model(context, path);
    return 1;
}

void find_known_models(known_models *list, const shared_options *shared) {
    char path[4096], why[8448];
    const char *name;
    memset(list, 0, sizeof *list);
    if (shared->model) {
        session s;
        open_model(&s, shared); /* dies if there is none */
        add_known_model(list, s.path);
        megabyte_model_close(s.model);
        return;
    }
    if (find_model(NULL, shared->usual, path, sizeof path, &name, why, sizeof why))
        add_known_model(list, path);
    walk_models(add_if_model, list);
}

const known_model *known_model_of(const known_models *list, const uint8_t *id, size_t n) {
    for (size_t i = 0; i < list->n; i++)
        if (!memcmp(list->model[i].id, id, n)) return &list->model[i];
    return NULL;
}

void free_known_models(known_models *list) {
    for (size_t i = 0; i < list->n; i++) free(list->model[i].path);
    free(list->model);
}

/* Metadata such as "mu-law 8000 Hz": see models/README.md. */
uint32_t audio_rate(const session *s) {
    const char *text = megabyte_model_metadata(s->model, "audio");
    unsigned rate = 0;
    int n = 0;
    if (!text || s->info.vocabulary < 256) return 0;
    return sscanf(text, "mu-law %9u Hz%n", &rate, &n) == 1 && n && !text[n] ? rate : 0;
}

/* "?" ends the list of instruction sets. */
int isa_exists(int isa) { return strcmp(megabyte_isa_name((megabyte_isa)isa), "?") != 0; }

megabyte_isa chosen_isa(const shared_options *shared) {
    const char *name = shared->isa_name;
    if (!name || !strcmp(name, "auto")) return MEGABYTE_ISA_AUTO;
    for (int isa = 1; isa_exists(isa); isa++) {
        if (strcmp(megabyte_isa_name((megabyte_isa)isa), name)) continue;
        if (!megabyte_isa_available((megabyte_isa)isa))
            die(name, "this CPU or build lacks that instruction set");
        return (megabyte_isa)isa;
    }
    fputs("mbrun: --isa: '", stderr);
    print_harmless(stderr, name);
    fputs("' is none of auto", stderr);
    for (int isa = 1; isa_exists(isa); isa++)
        fprintf(stderr, ", %s", megabyte_isa_name((megabyte_isa)isa));
    fputc('\n', stderr);
    exit(2);
}

void open_engine(session *s, const shared_options *shared, uint32_t threads) {
    megabyte_error error;
    megabyte_engine_options options = {
        .threads = threads, .isa = chosen_isa(shared), .clock = s->clock};
    char why[256];
    size_t size;
    if (!megabyte_engine_size(s->model, &options, &size) &&
        !memory_suffices(s, "an engine of this model", size, why))
        die(s->path, "%s", why);
    megabyte_status status = megabyte_engine_create(&s->engine, s->model, &options, NULL, &error);
    if (status) die_of(s->path, &error, status);
    s->isa = megabyte_engine_isa(s->engine);
    s->threads = threads;
}

uint32_t thread_count(const shared_options *shared) {
    return shared->threads ? (uint32_t)shared->threads : count_cores();
}

drafts read_drafts(const command *self, const char *given) {
    drafts d = {.most = 0};
    if (!given) return d;
    size_t digits = strspn(given, "0123456789");
    if (!digits || given[digits]) {
        d.model = given;
        return d;
    }
    unsigned long most = strtoul(given, NULL, 10);
    if (most > 15)
        usage_error(self, "--draft", "'%.40s' is neither a whole number from 0 to 15 nor a model",
                    given);
    d.most = most ? (uint32_t)most : MEGABYTE_NO_DRAFT;
    return d;
}

/* One thread: several gain little on a small model's byte. */
void open_drafts(session *s, const drafts *d, const shared_options *shared) {
    s->draft_max = d->most;
    if (!d->model) return;
    shared_options second = *shared;
    second.model = d->model;
    s->second = allocate(1, sizeof *s->second);
    open_model(s->second, &second);
    uint32_t needed = s->info.vocabulary < 256 ? s->info.vocabulary : 256;
    if (s->second->info.vocabulary < needed)
        die("--draft", "%s has a vocabulary of %u, too small for the bytes of %s", d->model,
            s->second->info.vocabulary, s->path);
    open_engine(s->second, &second, 1);
}

void close_session(session *s) {
    if (s->second) close_session(s->second);
    free(s->second);
    megabyte_engine_free(s->engine);
    megabyte_model_close(s->model);
}

/* The library's text (in *error) if the model does not take this file type; NULL if it does, or
 * `file_type` is NULL. */
const char *fault_of_type(const session *s, const char *file_type, megabyte_error *error) {
    size_t size;
    megabyte_stream *none;
    const megabyte_stream_options options = {.file_type = file_type};
    if (!file_type ||
        megabyte_stream_size(s->model, &options, &size) != MEGABYTE_ERROR_INVALID_ARGUMENT)
        return NULL;
    megabyte_stream_create(&none, s->model, &options, NULL,
                           error); /* the same again, for the text */
    return error->text;
}

/* A context that the model does not have is told, not cut silently. */
megabyte_stream *new_stream(const session *s, uint64_t context, const char *file_type) {
    megabyte_error error;
    megabyte_stream *stream;
    const megabyte_stream_options options = {.engine = s->engine,
                                             .context = context,
                                             .file_type = file_type,
                                             .draft_max = s->draft_max,
                                             .large_pages = s->large_pages,
                                             .draft_engine = second_engine(s)};
    const char *fault = fault_of_type(s, file_type, &error);
    char why[256];
    size_t size;
    if (fault) die("--type", "%s", fault);
    if (!megabyte_stream_size(s->model, &options, &size) &&
        !memory_suffices(s, "a stream of this model", size, why))
        die(s->path, "%s", why);
    megabyte_status status = megabyte_stream_create(&stream, s->model, &options, NULL, &error);
    if (status == MEGABYTE_ERROR_INVALID_ARGUMENT && context) die("--context", "%s", error.text);
    if (status) die_of(s->path, &error, status);
    return stream;
}

uint32_t count_cores(void) {
    long n = usable_cores();
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (uint32_t)n;
}

/* ======================================================================================= 3 JSON */

void json_text(FILE *out, const void *text, size_t n) {
    const uint8_t *p = text;
    fputc('"', out);
    for (size_t i = 0; i < n;) {
        size_t length = utf8_length(p + i, n - i);
        if (length == 1 && (p[i] == '"' || p[i] == '\\')) fprintf(out, "\\%c", p[i]);
        else if (length == 1 && p[i] == '\n') fputs("\\n", out);
        else if (length == 0 || p[i] < 0x20 || p[i] == 0x7f) fprintf(out, "\\u%04x", p[i]);
        else fwrite(p + i, 1, length, out);
        i += length ? length : 1;
    }
    fputc('"', out);
}

void json_real(FILE *out, double value) {
    if (fabs(value) <= DBL_MAX) fprintf(out, "%.15g", value);
    else fputs("null", out);
}

/* ,"key": value */
void json_field(const char *key, double value) {
    printf(", \"%s\": ", key);
    json_real(stdout, value);
}
