/* config.h - a model's configuration: its constructor's arguments and the texts about it, from
 * .json files. SPDX-License-Identifier: MIT */
#ifndef CONFIG_H
#define CONFIG_H

#include "../megabyte.h"
#include "common.h"
#include "json.h"
#include "names.h"

/* What a family's configuration may say, by meaning. Most of it the tensors tell, too: it is
 * compared. */
enum argument {
    ARG_VOCABULARY,
    ARG_DIM,
    ARG_DEPTH,
    ARG_POSITIONS,
    ARG_HEADS,
    ARG_KV_HEADS,
    ARG_HEAD_DIM,
    ARG_FF_MULT,
    ARG_BYTES,
    ARG_PAD_ID,
    ARG_END_ID,
    ARG_FIRST_ID,
    ARG_PADDING,
    ARG_ROTARY,
    ARG_LEARNED,
    ARG_QK_NORM,
    ARG_NORM,
    ARG_ACTIVATION,
    ARG_INIT,
    ARG_CROSS,
    ARG_COUNT
};
#define ABSENT INT64_MIN
#define EVERY MEGABYTE_MAX_STAGES /* of a key: what it says holds for every stage */

struct arguments {
    u32 known; /* how many of the family's keys were there */
    ll at[ARG_COUNT][MEGABYTE_MAX_STAGES]; /* ABSENT, or the value for a stage */
    const char *key[ARG_COUNT][MEGABYTE_MAX_STAGES]; /* who said so */
    u32 count[ARG_COUNT]; /* of a list's items; 0: it was no list ... */
    const char *list[ARG_COUNT]; /* ... and its name */
    struct names unknown;
};

enum key_kind { WHOLE, FLAG, CHOICE, LIST, BLOCKS, WITHOUT_EFFECT, UNSUPPORTED };
struct choice {
    const char *text;
    ll value;
};
struct key {
    const char *name; /* NULL ends a table */
    u32 kind, argument, stage;
    const struct choice *choices;
};
extern const struct key block_keys[]; /* of each object in a BLOCKS list: MBLM's, in families.c */

/* Metadata that goes into the model file, in this order: texts, what the bytes of an image model
 * are, those of an audio model, and bGPT's: what texts begin as. */
enum {
    TEXT_NAME,
    TEXT_LICENCE,
    TEXT_SOURCE,
    TEXT_TRAINING_DATA,
    TEXT_DESCRIPTION,
    TEXT_IMAGE_TILE,
    TEXT_IMAGE_PATCH,
    TEXT_IMAGE_CHANNELS,
    TEXT_IMAGE_COLOUR,
    TEXT_IMAGE_SCAN,
    TEXT_AUDIO,
    TEXT_EXTENSION,
    TEXT_COUNT
};
extern const char *const text_keys[TEXT_COUNT];

struct config {
    const char *path; /* of the file that held the arguments; NULL: none did */
    const struct key *keys; /* of the checkpoint's family */
    struct arguments arguments;
    const char *text[TEXT_COUNT]; /* NULL or "": absent */
    char *files[2]; /* contents of the .json files, which the texts point into */
    u32 n_files;
};

void clear_arguments(struct arguments *a); /* all ABSENT */

/* Takes arguments and texts from a .json file: an object of constructor arguments, or one that
 * holds such an object under "args". Texts that are set already stay. Dies of what is wrong in it;
 * returns 0 if there is no such file. c->keys must be set; `path` must stay. At most two files. */
int read_config(struct config *c, const char *path);

/* `path` with its extension replaced by .json; allocated. */
char *config_beside(const char *path);

#endif
