/* options.c - see options.h.
 * SPDX-License-Identifier: MIT */

#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const option *find_option(const option *table, size_t n, const char *name, size_t length,
                                 char letter) {
    for (size_t i = 0; i < n; i++) {
        if (letter ? table[i].letter == letter ||
                         (table[i].kind == OPTION_LEVEL && letter >= '1' && letter <= '9')
                   : strlen(table[i].name) == length && !memcmp(table[i].name, name, length))
            return &table[i];
    }
    return NULL;
}

static int parse_real(const char *text, double *value) {
    char *end;
    if (isspace((unsigned char)text[0]) || !text[0]) return 0;
    *value = strtod(text, &end);
    return !*end;
}

static int parse_integer(const char *text, long long *value) {
    char *end;
    if (!isdigit((unsigned char)text[text[0] == '-'])) return 0;
    errno = 0;
    *value = strtoll(text, &end, 10);
    return !*end && !errno;
}

/* The digits of a fraction, of 2^shift, rounded down; *end: what follows them. */
static uint64_t parse_fraction(const char *digits, unsigned shift, const char **end) {
    uint64_t number = 0, unit = 1;
    for (; isdigit((unsigned char)*digits); digits++) {
        if (unit >= 1000000000) continue; /* hardly a byte */
        number = 10 * number + (uint64_t)(*digits - '0');
        unit *= 10;
    }
    *end = digits;
    return (number << shift) / unit;
}

static int parse_count(const char *text, int may_have_suffix, uint64_t *value) {
    char *after;
    if (!isdigit((unsigned char)text[0])) return 0; /* strtoull would take " -1" */
    errno = 0;
    unsigned long long number = strtoull(text, &after, 10);
    if (errno || number > UINT64_MAX) return 0;
    const char *end = after, *point = may_have_suffix && *end == '.' ? end : NULL;
    uint64_t part = point ? parse_fraction(point + 1, 0, &end) : 0;
    if (point && end == point + 1) return 0;
    unsigned shift = 0;
    if (may_have_suffix && *end) {
        const char *found = strchr("KkMmGg", *end);
        if (!found || end[1]) return 0;
        shift = 10 * (unsigned)(1 + (found - "KkMmGg") / 2);
        if (point) part = parse_fraction(point + 1, shift, &end);
        end++;
    } else if (point) {
        return 0; /* 1.5 bytes */
    }
    *value = ((uint64_t)number << shift) + part;
    return !*end && *value >> shift == number;
}

#define LONGEST 32 /* of words that are compared */

/* Letters to insert, leave out or replace, and neighbours to swap, that make one of the other. */
static size_t edit_distance(const char *a, size_t n, const char *b, size_t m) {
    size_t row[3][LONGEST + 1], *last = row[0], *now = row[1], *before = row[2];
    for (size_t j = 0; j <= m; j++) now[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return now[m];
}

void consider(nearest *best, const char *given, size_t n, const char *word) {
    size_t m = strlen(word), allowed = n < 3 ? 0 : n < 5 ? 1 : n < 8 ? 2 : 3;
    if (n > LONGEST || m > LONGEST) return;
    size_t distance = n >= 2 && m > n && !memcmp(given, word, n) ? 0
                                                                 : edit_distance(given, n, word, m);
    if (distance > allowed || (best->word && distance >= best->distance)) return;
    best->word = word;
    best->distance = distance;
}

_Noreturn void usage_error(const command *self, const char *what, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(what, "", format, args);
    va_end(args);
    fprintf(stderr, "Try '%s%s%s --help'.\n", tool_name, self && self->name ? " " : "",
            self && self->name ? self->name : "");
    exit(2);
}

void set_option(const command *self, const option *o, const char *given, const char *text) {
    char why[160];
    double real = 0;
    long long integer = 0;
    uint64_t count = 0;
    if (o->kind == OPTION_FLAG) {
        *(int *)o->value = 1;
        return;
    }
    if (!text) usage_error(self, given, "needs a value");
    if (o->kind == OPTION_TEXT) {
        *(const char **)o->value = text;
        return;
    }
    int good = o->kind == OPTION_REAL      ? parse_real(text, &real)
               : o->kind == OPTION_INTEGER ? parse_integer(text, &integer)
                                           : parse_count(text, o->kind == OPTION_SIZE, &count);
    if (o->kind != OPTION_REAL) real = o->kind == OPTION_INTEGER ? (double)integer : (double)count;
    if (good && real >= o->low && real <= o->high) { /* false for NaN */
        if (o->kind == OPTION_REAL) *(double *)o->value = real;
        else if (o->kind == OPTION_INTEGER) *(long long *)o->value = integer;
        else *(uint64_t *)o->value = count;
        return;
    }
    int n = snprintf(why, sizeof why, "'%.40s' is not a %snumber from %.10g", text,
                     o->kind == OPTION_REAL ? "" : "whole ", o->low);
    snprintf(why + n, sizeof why - (size_t)n, o->high < ANY ? " to %.10g" : " up", o->high);
    usage_error(self, given, "%s", why);
}

static void print_options(const option *table, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char left[64], letter[8] = "    ";
        if (!table[i].help) continue; /* another spelling */
        if (table[i].letter) snprintf(letter, sizeof letter, "-%c, ", table[i].letter);
        if (table[i].kind == OPTION_LEVEL) snprintf(letter, sizeof letter, "-1..9, ");
        snprintf(left, sizeof left, "%s--%s%s%s", letter, table[i].name,
                 table[i].argument ? " " : "", table[i].argument ? table[i].argument : "");
        printf("  %-32s %s\n", left, table[i].help);
    }
}

void print_usage(const command *self, FILE *out) {
    fprintf(out, "Usage: %s%s%s %s\n", tool_name, self->name ? " " : "",
            self->name ? self->name : "", self->synopsis);
    if (out == stderr)
        fprintf(out, "%s%s%s --help tells the options.\n", tool_name, self->name ? " " : "",
                self->name ? self->name : "");
}

static _Noreturn void print_help(const command *self, const option *own, size_t n_own,
                                 const option *rest, size_t n_rest, const char *usual) {
    int has_sizes = 0;
    for (size_t i = 0; i < n_own; i++) has_sizes |= own[i].kind == OPTION_SIZE;
    for (size_t i = 0; i < n_rest; i++) has_sizes |= rest[i].kind == OPTION_SIZE;
    print_usage(self, stdout);
    printf("\n%s\n\n", self->summary);
    print_options(own, n_own);
    print_options(rest, n_rest);
    puts("  -h, --help                       this text");
    if (!self->name) puts("  -V, --version                    the version");
    if (has_sizes) puts("\nSizes may end in K, M or G (1024, 1024^2, 1024^3); 1.5K is 1536.");
    if (n_rest)
        printf("-m takes a file, or a NAME whose NAME.mb is in models/, ../models/ or "
               "../share/megabyte/ beside the\n"
               "program or in models/ of the current directory. Without -m: %s%s.\n",
               usual ? "" : "$MEGABYTE_MODEL, else ", usual ? usual : "text");
    exit(fflush(stdout) || ferror(stdout));
}

static size_t shared_table(shared_options *shared, option *rest) {
    static const char model_help[] = "a .mb file, or a name such as text-small";
    if (!shared) return 0;
    const option table[] = {
        {"model", 'm', OPTION_TEXT, &shared->model, 0, 0, "MODEL", model_help},
        {"json", 0, OPTION_FLAG, &shared->json, 0, 0, NULL, "print a JSON object"},
        {"threads", 'T', OPTION_NUMBER, &shared->threads, 0, MAX_THREADS, "THREADS",
         "0: all cores; the results never depend on it"},
        {"isa", 0, OPTION_TEXT, &shared->isa_name, 0, 0, "NAME",
         "instruction set: auto, or one that info lists"},
        {"memory", 0, OPTION_SIZE, &shared->memory, 0, ANY, "SIZE",
         "refuse what needs more memory than this (default: this machine's)"},
        {"mmap", 0, OPTION_FLAG, &shared->map, 0, 0, NULL,
         "use the model where its file is mapped: starts sooner, writes more slowly"},
        {"map", 0, OPTION_FLAG, &shared->map, 0, 0, NULL, NULL}, /* its name before */
    };
    memcpy(rest, table, sizeof table);
    return shared->computes_nothing ? 2 : COUNT_OF(table);
}

typedef struct parser {
    const command *self;
    const option *own; /* [n_own] */
    size_t n_own, n_rest;
    option rest[8];
    const char *usual;
    char **argv;
    int argc, at; /* at: the word that is being read */
} parser;

/* A word that begins with one dash may be a long option, too. */
static _Noreturn void unknown_option(const parser *p, const char *name, size_t length, char letter,
                                     const char *given) {
    nearest best = {.word = NULL};
    if (letter >= '0' && letter <= '9' && find_option(p->own, p->n_own, NULL, 0, '1'))
        usage_error(p->self, p->argv[p->at], "levels are 1 to 9");
    if (letter) {
        name = p->argv[p->at] + 1;
        length = strlen(name);
    }
    for (size_t i = 0; i < p->n_own; i++) consider(&best, name, length, p->own[i].name);
    for (size_t i = 0; i < p->n_rest; i++) consider(&best, name, length, p->rest[i].name);
    consider(&best, name, length, "help");
    if (best.word) usage_error(p->self, given, "no such option; did you mean --%s?", best.word);
    usage_error(p->self, given, "no such option");
}

static const option *known_option(const parser *p, const char *name, size_t length, char letter,
                                  const char *given) {
    if (!strcmp(given, letter ? "-h" : "--help"))
        print_help(p->self, p->own, p->n_own, p->rest, p->n_rest, p->usual);
    const option *o = find_option(p->own, p->n_own, name, length, letter);
    if (!o) o = find_option(p->rest, p->n_rest, name, length, letter);
    if (!o) unknown_option(p, name, length, letter, given);
    return o;
}

static const char *next_word(parser *p) { return ++p->at < p->argc ? p->argv[p->at] : NULL; }

static void parse_long(parser *p, const char *name) { /* behind the dashes */
    size_t length = strcspn(name, "=");
    const char *value = name[length] ? name + length + 1 : NULL;
    char given[48];
    snprintf(given, sizeof given, "--%.*s", length < 40 ? (int)length : 40, name);
    const option *o = known_option(p, name, length, 0, given);
    if (o->kind == OPTION_FLAG && value) usage_error(p->self, given, "takes no value");
    if (o->kind != OPTION_FLAG && !value) value = next_word(p);
    set_option(p->self, o, given, value);
}

static void parse_letters(parser *p, const char *letters) { /* flags may be joined: -kfo OUT */
    for (; *letters; letters++) {
        const char given[] = {'-', *letters, 0};
        const option *o = known_option(p, NULL, 0, *letters, given);
        if (o->kind == OPTION_FLAG) {
            set_option(p->self, o, given, NULL);
        } else if (o->kind == OPTION_LEVEL) {
            if (isdigit((unsigned char)letters[1]))
                usage_error(p->self, p->argv[p->at], "levels are 1 to 9");
            set_option(p->self, o, given, given + 1);
        } else { /* what follows is its value */
            set_option(p->self, o, given, letters[1] ? letters + 1 : next_word(p));
            return;
        }
    }
}

int parse_options(const command *self, const option *own, size_t n_own, shared_options *shared,
                  int argc, char **argv) {
    parser p = {.self = self, .own = own, .n_own = n_own, .argv = argv, .argc = argc, .at = 1};
    int n_arguments = 0;
    p.n_rest = shared_table(shared, p.rest);
    p.usual = shared ? shared->usual : NULL;
    for (; p.at < argc; p.at++) {
        char *word = argv[p.at];
        if (!strcmp(word, "--")) {
            while (++p.at < argc) argv[n_arguments++] = argv[p.at];
            break;
        }
        if (word[0] != '-' || !word[1]) argv[n_arguments++] = word;
        else if (word[1] == '-') parse_long(&p, word + 2);
        else parse_letters(&p, word + 1);
    }
    return n_arguments;
}
