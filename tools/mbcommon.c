/* mbcommon.c - what mbrun.c and mbbench.c share: the definitions of what mbrun.h declares.
 * SPDX-License-Identifier: MIT
 *
 * CONTENTS
 *    1 errors and memory   die, usage_error, output that fails, time, Ctrl-C
 *    2 options             one table-driven parser for all subcommands; it also prints their help
 *    3 the model in use    finding the file, opening it, the engine
 *    4 JSON */

#define _GNU_SOURCE /* sched_getaffinity, and POSIX under -std=c11 */
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64 /* files beyond 2 GiB on 32-bit systems */
#include "mbrun.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif

/* =========================================================================================== 1 errors and memory */

/* Returns 0, so that `return complain(...)` says "failed". */
int complain(const char *what, const char *why)
{
    fflush(stdout);
    fprintf(stderr, "mbrun: %s: %s\n", what, why);
    return 0;
}

_Noreturn void die(const char *what, const char *why)
{
    complain(what, why);
    exit(1);
}

_Noreturn void usage_error(const command *self, const char *what, const char *why)
{
    fprintf(stderr, "mbrun: %s: %s\nTry 'mbrun%s%s --help'.\n", what, why, self ? " " : "", self ? self->name : "");
    exit(2);
}

/* A reader that went away (mbrun ... | head) is no failure: leave without a word, and without flushing again. */
_Noreturn void output_failed(void)
{
    if (errno == EPIPE) exit(0); /* not _Exit: a file of logits may still be in its buffer */
    fprintf(stderr, "mbrun: standard output: %s\n", strerror(errno));
    _Exit(1);
}

void flush_output(void)
{
    if (fflush(stdout) || ferror(stdout)) output_failed();
}

void *allocate(size_t size)
{
    void *memory = malloc(size ? size : 1);
    if (!memory) die("memory", "not enough of it");
    return memory;
}

void append(bytes *b, const void *data, size_t n)
{
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

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

/* SA_RESETHAND: a second Ctrl-C kills, should the first one be noticed too late. */
void catch_interrupt(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = (int)SA_RESETHAND;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int stop_requested(void)
{
    return interrupted != 0;
}

/* ====================================================================================================== 2 options */

static const option *find_option(const option *table, size_t n, const char *name, size_t length, char letter)
{
    for (size_t i = 0; i < n; i++) {
        if (letter ? table[i].letter == letter
                   : strlen(table[i].name) == length && !memcmp(table[i].name, name, length))
            return &table[i];
    }
    return NULL;
}

static int parse_real(const char *text, double *value)
{
    char *end;
    if (isspace((unsigned char)text[0]) || !text[0]) return 0;
    *value = strtod(text, &end);
    return !*end;
}

static int parse_count(const char *text, int may_have_suffix, uint64_t *value)
{
    char *end;
    if (!isdigit((unsigned char)text[0])) return 0; /* strtoull would take " -1" */
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno || number > UINT64_MAX) return 0;
    unsigned shift = 0;
    if (may_have_suffix && *end) {
        const char *found = strchr("KkMmGg", *end++);
        if (!found) return 0;
        shift = 10 * (unsigned)(1 + (found - "KkMmGg") / 2);
    }
    *value = (uint64_t)number << shift;
    return !*end && *value >> shift == number;
}

static void set_option(const command *self, const option *o, const char *given, const char *text)
{
    char why[160];
    double real = 0;
    uint64_t count = 0;
    if (o->kind == OPTION_TEXT) {
        *(const char **)o->value = text;
        return;
    }
    int good = o->kind == OPTION_REAL ? parse_real(text, &real) : parse_count(text, o->kind == OPTION_SIZE, &count);
    if (o->kind != OPTION_REAL) real = (double)count;
    if (good && real >= o->low && real <= o->high) { /* false for NaN */
        if (o->kind == OPTION_REAL) *(double *)o->value = real;
        else *(uint64_t *)o->value = count;
        return;
    }
    int n = snprintf(why, sizeof why, "'%.40s' is not a %snumber from %.10g", text,
                     o->kind == OPTION_REAL ? "" : "whole ", o->low);
    snprintf(why + n, sizeof why - (size_t)n, o->high < ANY ? " to %.10g" : " up", o->high);
    usage_error(self, given, why);
}

static void print_options(const option *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char left[64], letter[8] = "    ";
        if (table[i].letter) snprintf(letter, sizeof letter, "-%c, ", table[i].letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, table[i].name, table[i].argument ? " " : "",
                 table[i].argument ? table[i].argument : "");
        printf("  %-32s %s\n", left, table[i].help);
    }
}

static _Noreturn void print_help(const command *self, const option *own, size_t n_own, const option *rest,
                                 size_t n_rest)
{
    printf("Usage: mbrun %s %s\n\n%s\n\n", self->name, self->synopsis, self->summary);
    print_options(own, n_own);
    print_options(rest, n_rest);
    printf("  -h, --help                       this text\n\n"
           "Sizes may end in K, M or G (1024, 1024^2, 1024^3). Without -m the model is $MEGABYTE_MODEL, else\n"
           "models/text.mb beside the program or in the current directory.\n");
    flush_output();
    exit(0);
}

int parse_options(const command *self, const option *own, size_t n_own, shared_options *shared, int argc, char **argv)
{
    const option rest[] = {
        {"model", 'm', OPTION_TEXT, &shared->model, 0, 0, "MODEL", "a .mb file, or a name such as text-small"},
        {"threads", 'T', OPTION_NUMBER, &shared->threads, 0, MAX_THREADS, "THREADS",
         "0: all cores; the results never depend on it"},
        {"isa", 0, OPTION_TEXT, &shared->isa_name, 0, 0, "NAME", "instruction set: auto, or one that info lists"},
        {"json", 0, OPTION_FLAG, &shared->json, 0, 0, NULL, "print a JSON object"},
    };
    int n_arguments = 0;
    for (int i = 1; i < argc; i++) {
        char *word = argv[i], given[48];
        if (word[0] != '-' || !word[1]) {
            argv[n_arguments++] = word;
            continue;
        }
        if (!strcmp(word, "--")) {
            while (++i < argc) argv[n_arguments++] = argv[i];
            break;
        }
        int is_long = word[1] == '-';
        size_t length = is_long ? strcspn(word + 2, "=") : 0;
        const char *value = is_long ? (word[2 + length] ? word + 3 + length : NULL) : (word[2] ? word + 2 : NULL);
        if (is_long) snprintf(given, sizeof given, "--%.*s", length < 40 ? (int)length : 40, word + 2);
        else snprintf(given, sizeof given, "-%c", word[1]);
        if (!strcmp(given, "-h") || !strcmp(given, "--help")) print_help(self, own, n_own, rest, COUNT_OF(rest));

        const option *o = find_option(own, n_own, word + 2, length, is_long ? 0 : word[1]);
        if (!o) o = find_option(rest, COUNT_OF(rest), word + 2, length, is_long ? 0 : word[1]);
        if (!o) usage_error(self, given, "no such option");
        if (o->kind == OPTION_FLAG) {
            if (value) usage_error(self, given, "takes no value");
            *(int *)o->value = 1;
            continue;
        }
        if (!value && ++i < argc) value = argv[i];
        if (!value) usage_error(self, given, "needs a value");
        set_option(self, o, given, value);
    }
    return n_arguments;
}

/* ============================================================================================= 3 the model in use */

static int is_file(const char *path)
{
    struct stat status;
    return !stat(path, &status) && !S_ISDIR(status.st_mode);
}

/* The directory of this program with its last '/', or "" if it cannot be told. */
const char *program_name = "mbrun";

static void program_directory(char *out, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    if (n <= 0) n = snprintf(out, size, "%s", program_name);
    if (n >= (ssize_t)size) n = 0; /* cut: useless */
    out[n] = 0;
    char *slash = strrchr(out, '/');
    if (slash) slash[1] = 0;
    else out[0] = 0;
}

/* Looks for NAME.mb where models are kept; 1 if found. `looked` collects the places for the message. */
static int find_shipped_model(const char *name, char *path, size_t size, char *looked, size_t looked_size)
{
    static const char *const places[] = {"models/", "../models/", "../share/megabyte/"};
    char directory[2048];
    size_t used = 0;
    program_directory(directory, sizeof directory);
    for (size_t i = 0; i <= COUNT_OF(places); i++) {
        int last = i == COUNT_OF(places); /* the current directory */
        if (!last && !directory[0]) continue;
        int n = snprintf(path, size, "%s%s%s.mb", last ? "" : directory, last ? "models/" : places[i], name);
        if (n > 0 && (size_t)n < size && is_file(path)) return 1;
        if (used < looked_size) {
            n = snprintf(looked + used, looked_size - used, "%s%s", used ? ", " : "", path);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    return 0;
}

static void find_model(const char *given, char *path, size_t size)
{
    char looked[8192] = "", why[8448];
    const char *name = given ? given : getenv("MEGABYTE_MODEL");
    if (name && !*name && !given) name = NULL;
    if (name) {
        size_t length = strlen(name);
        int is_bare = length && !strchr(name, '/') && !(length > 3 && !strcmp(name + length - 3, ".mb"));
        if (!is_bare || is_file(name)) { /* a path: opening it tells what is wrong with it */
            if ((size_t)snprintf(path, size, "%s", name) >= size) die(name, "path too long");
            return;
        }
        if (find_shipped_model(name, path, size, looked, sizeof looked)) return;
        snprintf(why, sizeof why, "no such model; looked at ./%.200s, %s", name, looked);
        die(name, why);
    }
    if (find_shipped_model("text", path, size, looked, sizeof looked)) return;
    snprintf(why, sizeof why, "none found; give one with -m or MEGABYTE_MODEL (looked at %s)", looked);
    die("model", why);
}

/* Some of the library's texts begin with the path already. */
_Noreturn void die_of(const char *path, const megabyte_error *error, megabyte_status status)
{
    const char *why = error->text[0] ? error->text : megabyte_status_string(status);
    size_t n = strlen(path);
    if (!strncmp(why, path, n) && !strncmp(why + n, ": ", 2)) why += n + 2;
    die(path, why);
}

void open_model(session *s, const shared_options *shared)
{
    megabyte_error error;
    memset(s, 0, sizeof *s);
    find_model(shared->model, s->path, sizeof s->path);
    megabyte_status status = megabyte_model_open(&s->model, s->path, NULL, &error);
    if (status) die_of(s->path, &error, status);
    megabyte_model_describe(s->model, &s->info);
}

/* "?" ends the list of instruction sets. */
int isa_exists(int isa)
{
    return strcmp(megabyte_isa_name((megabyte_isa)isa), "?") != 0;
}

static megabyte_isa isa_by_name(const char *name)
{
    if (!name || !strcmp(name, "auto")) return MEGABYTE_ISA_AUTO;
    for (int isa = 1; isa_exists(isa); isa++) {
        if (strcmp(megabyte_isa_name((megabyte_isa)isa), name)) continue;
        if (!megabyte_isa_available((megabyte_isa)isa)) die(name, "this CPU or build lacks that instruction set");
        return (megabyte_isa)isa;
    }
    fprintf(stderr, "mbrun: --isa: '%s' is none of auto", name);
    for (int isa = 1; isa_exists(isa); isa++) fprintf(stderr, ", %s", megabyte_isa_name((megabyte_isa)isa));
    fputc('\n', stderr);
    exit(2);
}

void open_engine(session *s, const shared_options *shared, uint32_t threads)
{
    megabyte_error error;
    megabyte_engine_options options = {.threads = threads, .isa = isa_by_name(shared->isa_name)};
    megabyte_status status = megabyte_engine_create(&s->engine, s->model, &options, NULL, &error);
    if (status) die_of(s->path, &error, status);
    s->isa = megabyte_engine_isa(s->engine);
    s->threads = threads;
}

uint32_t thread_count(const shared_options *shared)
{
    return shared->threads ? (uint32_t)shared->threads : count_cores();
}

void close_session(session *s)
{
    megabyte_engine_free(s->engine);
    megabyte_model_close(s->model);
}

/* A whole number of patches between one and all; a request beyond the model's context is told, not cut silently. */
megabyte_stream *new_stream(const session *s, uint64_t context)
{
    megabyte_error error;
    megabyte_stream *stream;
    char why[128];
    if (context && (context < s->info.patch_bytes || context > s->info.context_bytes)) {
        snprintf(why, sizeof why, "this model takes %u to %llu bytes", s->info.patch_bytes,
                 (unsigned long long)s->info.context_bytes);
        die("--context", why);
    }
    megabyte_stream_options options = {.engine = s->engine, .context = context};
    megabyte_status status = megabyte_stream_create(&stream, s->model, &options, NULL, &error);
    if (status) die_of(s->path, &error, status);
    return stream;
}

uint32_t count_cores(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__) && defined(CPU_COUNT) /* taskset and containers may leave us fewer */
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed)) n = CPU_COUNT(&allowed);
#endif
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : (uint32_t)n;
}

/* ========================================================================================================= 4 JSON */

/* Length of the valid UTF-8 sequence at p (RFC 3629), 0 if there is none. */
size_t utf8_length(const uint8_t *p, size_t n)
{
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    if (length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] > 0x9F)) return 0; /* overlong; surrogates */
    if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] > 0x8F)) return 0; /* overlong; beyond U+10FFFF */
    return length;
}

void json_text(FILE *out, const void *text, size_t n)
{
    const uint8_t *p = text;
    fputc('"', out);
    for (size_t i = 0; i < n;) {
        size_t length = utf8_length(p + i, n - i);
        if (length == 1 && (p[i] == '"' || p[i] == '\\')) fprintf(out, "\\%c", p[i]);
        else if (length == 1 && p[i] == '\n') fputs("\\n", out);
        else if (length == 0 || p[i] < 0x20 || p[i] == 0x7F) fprintf(out, "\\u%04x", p[i]);
        else fwrite(p + i, 1, length, out);
        i += length ? length : 1;
    }
    fputc('"', out);
}

void json_real(FILE *out, double value)
{
    if (isfinite(value)) fprintf(out, "%.15g", value);
    else fputs("null", out);
}

/* ,"key": value */
void json_field(const char *key, double value)
{
    printf(", \"%s\": ", key);
    json_real(stdout, value);
}

