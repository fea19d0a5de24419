/* mbrun.h - what the files of mbrun share: output that fails, finding the models, progress, JSON;
 * all in mbcommon.c but the subcommands at the end. SPDX-License-Identifier: MIT */
#ifndef MBRUN_H
#define MBRUN_H

#include "../megabyte.h"
#include "common.h"
#include "options.h"

#define TYPE_HELP "the file type, for bGPT models: txt, wav ..."

extern const char *program_name; /* argv[0], for finding the models */

/* -------------------------------------------------------------------------------------- output */

_Noreturn void output_failed(void); /* standard output did: quiet about a closed pipe */
void flush_output(void); /* or output_failed */
/* The same for reports beside the real work: it goes on, and report_failure tells in the end. */
void flush_report(void);
int report_failure(void); /* 1: a report could not be printed; does not return without its reader */
_Noreturn void reader_went_away(void); /* of a pipe: dies by SIGPIPE, as other filters do */
extern int ignores_pipes; /* SIGPIPE was ignored when the program began */

/* ----------------------------------------------------------------------------- the model in use */

typedef struct session {
    megabyte_model *model;
    megabyte_engine *engine;
    megabyte_info info;
    megabyte_isa isa; /* the one that the engine uses */
    uint32_t threads;
    uint64_t memory; /* the most that may be asked for, ... */
    uint64_t loaded; /* ... of which the model has this */
    uint32_t draft_max; /* of new streams: megabyte_stream_options */
    int large_pages; /* the same */
    struct session *second; /* the model that guesses, too, with its engine; NULL: none */
    uint64_t (*clock)(void *context); /* of the engine: megabyte_engine_options */
    char path[4096]; /* the model's file */
} session;

/* The models that can be found without being named: the default one first. With -m: that one
 * alone. */
typedef struct known_model {
    char *path;
    uint8_t id[16];
} known_model;
typedef struct known_models {
    known_model *model;
    size_t n;
} known_models;
void find_known_models(known_models *list, const shared_options *shared);
const known_model *known_model_of(const known_models *list, const uint8_t *id,
                                  size_t n); /* n: bytes of id; or NULL */
void free_known_models(known_models *list);
int find_model_named(const char *name, char *path, size_t size); /* where models are kept; or 0 */

void begin_session(session *s, const shared_options *shared); /* without a model: its memory */
void open_model(session *s, const shared_options *shared); /* finds and opens it, or dies */
void open_engine(session *s, const shared_options *shared, uint32_t threads);
void close_session(session *s);
/* Of an audio model of mu-law bytes: samples a second; 0: it is none. */
uint32_t audio_rate(const session *s);
const char *stage_name(const megabyte_info *info, uint32_t stage); /* "global", "local" ... */
uint32_t thread_count(const shared_options *shared); /* -T, with 0 as all cores */
int isa_exists(int isa); /* 1 if megabyte knows it by name */
megabyte_isa chosen_isa(const shared_options *shared); /* of --isa, or dies */
_Noreturn void die_of(const char *path, const megabyte_error *error, megabyte_status status);
#define DRAFT_ARGUMENT "N|MODEL"
#define DRAFT_HELP \
    "guess up to N bytes at a time (11; 0: none), or MODEL guesses, too: the same result"
typedef struct drafts {
    uint32_t most; /* draft_max of megabyte_stream_options */
    const char *model; /* NULL: none guesses */
} drafts;
drafts read_drafts(const command *self, const char *given); /* of --draft; NULL: the default */
void open_drafts(session *s, const drafts *d, const shared_options *shared); /* into s, or dies */
static inline megabyte_engine *second_engine(const session *s) {
    return s->second ? s->second->engine : NULL;
}
megabyte_stream *new_stream(const session *s, uint64_t context,
                            const char *file_type); /* 0: the model's; NULL; or dies */
const char *fault_of_type(const session *s, const char *file_type,
                          megabyte_error *error); /* of --type; NULL if it will do */
uint32_t count_cores(void); /* those this process may use, <= 256 */

/* 1 if `n` bytes for `what` may be asked for, else 0 with a text that says so in `why`. */
int memory_suffices(const session *s, const char *what, uint64_t n, char why[256]);

/* -------------------------------------------------------------------------------- odds and ends */

/* Bytes that grow as they come in; data is never NULL after the first append. */
typedef struct bytes {
    uint8_t *data;
    size_t n, capacity;
} bytes;
void append(bytes *b, const void *data, size_t n);

void read_file(const char *path, bytes *out); /* appends all of it (-: standard input), or dies */

double now(void); /* seconds since some moment */
/* A bar on stderr if that is a terminal. Set `start` to now(), the rest to 0. expected: 0 if
 * unknown. */
typedef struct progress {
    double start, last;
} progress;
void show_progress(progress *p, uint64_t done, uint64_t expected, const char *note,
                   const char *name);
void end_progress(progress *p); /* takes the bar away */
void print_bar(FILE *out, double part, int columns); /* [####      ]: part of 1 */

void json_text(FILE *out, const void *text,
               size_t n); /* in quotes; what is not UTF-8 becomes \u00XX byte by byte */
void json_real(FILE *out, double value); /* null if not finite */
void json_field(const char *key, double value); /* , "key": value on stdout */

/* ---------------------------------------------------------------------------------- subcommands */

/* Each returns the exit status. */
int run_bench(const command *self, int argc, char **argv);
int run_compress(const command *self, int argc, char **argv);
int run_decompress(const command *self, int argc, char **argv);
int run_test(const command *self, int argc, char **argv);
int run_list(const command *self, int argc, char **argv);
int run_image(const command *self, int argc, char **argv);

/* What run_generate hands on if the model is an image model. */
typedef struct tile_options {
    const char *output; /* -: standard output */
    const char *given; /* a picture to be completed; NULL: none */
    uint64_t n; /* pictures */
    megabyte_sampling how; /* the seed of the first tile */
    int force, verbose, json;
} tile_options;
int generate_tiles(const session *s, const tile_options *o); /* returns the exit status */

/* The same for audio models. */
typedef struct recording_options {
    const char *output; /* -: standard output */
    const char *given; /* a recording to be continued; NULL: none */
    double length; /* of what is made, in seconds */
    uint64_t context; /* 0: the model's */
    megabyte_sampling how;
    int no_echo, force, verbose, json;
} recording_options;
int generate_recording(const session *s, const recording_options *o);

#endif
