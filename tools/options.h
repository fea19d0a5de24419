/* options.h - one table-driven parser for the command lines of all tools; it also prints their
 * help. SPDX-License-Identifier: MIT */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "common.h"

typedef enum option_kind {
    OPTION_FLAG, /* int: set to 1 */
    OPTION_TEXT, /* const char * */
    OPTION_NUMBER, /* uint64_t within [low, high] */
    OPTION_INTEGER, /* long long within [low, high] */
    OPTION_SIZE, /* a NUMBER that may end in K, M or G (1024, 1024^2, 1024^3): 1.5K */
    OPTION_REAL, /* double within [low, high] */
    OPTION_LEVEL /* uint64_t; its letters are the digits 1 to 9 (`letter`: '1') */
} option_kind;

typedef struct option {
    const char *name; /* without the dashes */
    char letter; /* 0: none */
    option_kind kind;
    void *value;
    double low, high;
    const char *argument; /* its name in the help text; NULL for flags */
    const char *help; /* NULL: not listed, another spelling */
} option;

typedef struct command {
    const char *name; /* NULL: the tool has no subcommands */
    const char *synopsis, *summary;
    int (*run)(const struct command *self, int argc, char **argv); /* returns the exit status */
    const char *brief; /* a few words for a list of subcommands */
} command;

/* The options that every subcommand has. Set `threads` to the default before parsing; 0 is all
 * cores. */
typedef struct shared_options {
    const char *model, *isa_name;
    const char *usual; /* the model without -m; NULL: $MEGABYTE_MODEL, or text */
    const char *otherwise; /* what goes without a model, said where there is none; or NULL */
    uint64_t threads;
    uint64_t memory; /* the most that may be asked for; 0: what this machine has */
    int map; /* the model stays in its file */
    int json;
    int computes_nothing; /* set before parsing: only -m and --json make sense */
} shared_options;

#define ANY 0x1p64 /* as `high`: no limit but that of uint64_t */
#define MAX_THREADS 256

/* `shared` may be NULL. Reads argv[1..argc-1], prints the help text and exits if asked to, exits
 * with 2 on a mistake. Returns how many other arguments there are; they are moved to argv[0],
 * argv[1] ... */
int parse_options(const command *self, const option *own, size_t n_own, shared_options *shared,
                  int argc, char **argv);

/* Reads `text` as the value of an option that was `given` under this name; exits with 2 on a
 * mistake. For values whose kind is known late. */
void set_option(const command *self, const option *o, const char *given, const char *text);

/* Among the words considered, the one that `given`, of n letters, is most likely meant to be;
 * NULL: none is near. Begin with zeros. */
typedef struct nearest {
    const char *word;
    size_t distance;
} nearest;
void consider(nearest *best, const char *given, size_t n, const char *word);

/* The line of --help that begins with "Usage:"; to stderr with a hint. */
void print_usage(const command *self, FILE *out);

/* Reads `text` as the value of an option that was `given` under this name; exits with 2 on a
 * mistake. For values whose kind is known late. */
void set_option(const command *self, const option *o, const char *given, const char *text);

/* Prints "tool: what: text" and a hint to stderr; exits with 2. */
PRINTF(3, 4)
_Noreturn void usage_error(const command *self, const char *what, const char *format, ...);

#endif
