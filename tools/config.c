/* config.c - see config.h.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "config.h"
#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const text_keys[TEXT_COUNT] = {
    "name",        "licence",        "source",       "training_data", "description", "image.tile",
    "image.patch", "image.channels", "image.colour", "image.scan",    "audio",       "extension"};

void clear_arguments(struct arguments *a) {
    memset(a, 0, sizeof *a);
    for (u32 i = 0; i < ARG_COUNT; i++)
        for (u32 s = 0; s < MEGABYTE_MAX_STAGES; s++) a->at[i][s] = ABSENT;
}

static void set_argument(struct arguments *a, const struct key *k, u32 stage, ll value) {
    for (u32 s = stage == EVERY ? 0 : stage; s < (stage == EVERY ? EVERY : stage + 1); s++) {
        a->at[k->argument][s] = value;
        a->key[k->argument][s] = k->name;
    }
}

static void parse_list(struct json *j, struct arguments *a, const struct key *k) {
    u32 n = 0;
    if (json_peek(j) != '[') {
        set_argument(a, k, EVERY, json_whole(j));
        return;
    }
    for (int first = (json_open(j, '['), 1); json_more(j, ']', &first);) {
        if (n == MEGABYTE_MAX_STAGES) json_die(j, "more than 8 stages; this version runs 2 to 8");
        set_argument(a, k, n++, json_whole(j));
    }
    if (!n) json_die(j, "an empty list");
    a->count[k->argument] = n;
    a->list[k->argument] = k->name;
}

static ll parse_choice(struct json *j, const struct key *k) {
    char why[400];
    const char *text = json_string(j);
    size_t n = (size_t)snprintf(why, sizeof why, "\"%.100s\"; known are", text);
    for (const struct choice *c = k->choices; c->text; c++) {
        if (!strcmp(text, c->text)) return c->value;
        n += (size_t)snprintf(why + n, sizeof why - n, "%s %s", c == k->choices ? "" : ",",
                              c->text);
    }
    json_die(j, why);
}

static int json_flag(struct json *j) {
    int yes = json_word(j, "true");
    if (!yes && !json_word(j, "false")) json_die(j, "expected true or false");
    return yes;
}

/* What this version cannot compute may be named only to say that it is off. */
static void parse_unsupported(struct json *j) {
    if (!json_word(j, "false")) json_die(j, "this version does not run models with it");
}

static int parse_argument(struct json *j, struct arguments *a, const struct key *keys,
                          const char *key, u32 stage);

static void parse_block(struct json *j, struct arguments *a, u32 stage) {
    for (int first = (json_open(j, '{'), 1); json_more(j, '}', &first);) {
        const char *key = json_key(j);
        if (parse_argument(j, a, block_keys, key, stage)) continue;
        add_name(&a->unknown, key);
        json_skip(j);
    }
}
static void parse_blocks(struct json *j, struct arguments *a) {
    u32 n = 0;
    if (json_peek(j) != '[') {
        parse_block(j, a, EVERY);
        return;
    }
    for (int first = (json_open(j, '['), 1); json_more(j, ']', &first);) {
        if (n == MEGABYTE_MAX_STAGES) json_die(j, "more than 8 stages; this version runs 2 to 8");
        parse_block(j, a, n++);
    }
    for (const struct key *k = block_keys; k->name; k++)
        if (k->kind < LIST) {
            a->count[k->argument] = n;
            a->list[k->argument] = "block";
        }
}

/* Parses the value if `key` is one of `keys`. `stage` is that of a block's keys, which do not name
 * one. */
static int parse_argument(struct json *j, struct arguments *a, const struct key *keys,
                          const char *key, u32 stage) {
    const struct key *k = keys;
    while (k->name && strcmp(key, k->name)) k++;
    if (!k->name) return 0;
    a->known++;
    if (keys != block_keys) stage = k->stage;
    j->about = k->name; /* in messages */
    if (k->kind == WITHOUT_EFFECT) json_skip(j);
    else if (json_word(j, "null"))
        ; /* as good as absent */
    else if (k->kind == WHOLE) set_argument(a, k, stage, json_whole(j));
    else if (k->kind == FLAG) set_argument(a, k, stage, json_flag(j));
    else if (k->kind == CHOICE) set_argument(a, k, stage, parse_choice(j, k));
    else if (k->kind == LIST) parse_list(j, a, k);
    else if (k->kind == BLOCKS) parse_blocks(j, a);
    else parse_unsupported(j);
    j->about = NULL;
    return 1;
}

/* The whole file, with a NUL behind it; NULL if there is none. Grows: it may be a pipe. */
static char *read_text(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        if (errno == ENOENT) return NULL;
        die(path, "cannot open: %s", strerror(errno));
    }
    size_t n = 0, room = 4096;
    char *text = allocate(room, 1);
    while ((n += fread(text + n, 1, room - 1 - n, f)) == room - 1) {
        if (room >= 1u << 20) die(path, "longer than 1 MiB: not a configuration");
        text = realloc(text, room *= 2);
        if (!text) die("memory", "cannot allocate %zu bytes", room);
    }
    if (ferror(f)) die(path, "cannot read: %s", strerror(errno));
    fclose(f);
    text[n] = 0;
    *size = n;
    return text;
}

/* One key and its value: an argument, or one that is not known. */
static void parse_member(struct json *j, struct config *c, struct arguments *a, const char *key) {
    if (parse_argument(j, a, c->keys, key, EVERY)) return;
    add_name(&a->unknown, key);
    json_skip(j);
}

/* Parses the value if `key` is that of a text. */
static int parse_text(struct json *j, struct config *c, const char *key) {
    int which = 0;
    while (which < TEXT_EXTENSION && strcmp(key, text_keys[which])) which++;
    if (!strcmp(key, "license")) which = TEXT_LICENCE;
    if (which == TEXT_EXTENSION) return 0;
    if (json_peek(j) == '"') {
        const char *value = json_string(j);
        if (!c->text[which]) c->text[which] = value;
    } else {
        warn(j->file, "%s is not a text: left out", key);
        json_skip(j);
    }
    return 1;
}

int read_config(struct config *c, const char *path) {
    static struct arguments top, nested;
    int has_nested = 0;
    size_t size;
    char *text = read_text(path, &size);
    if (!text) return 0;
    c->files[c->n_files++] = text;
    clear_arguments(&top);
    clear_arguments(&nested);

    struct json j = json_begin(text, size, path);
    if (!json_peek(&j) && j.at == j.end) return 1; /* empty, as /dev/null is: says nothing */
    for (int first = (json_open(&j, '{'), 1); json_more(&j, '}', &first);) {
        const char *key = json_key(&j);
        if (parse_text(&j, c, key)) continue;
        if (strcmp(key, "args") || json_peek(&j) != '{') {
            parse_member(&j, c, &top, key);
            continue;
        }
        has_nested = 1;
        for (int inner = (json_open(&j, '{'), 1); json_more(&j, '}', &inner);)
            parse_member(&j, c, &nested, json_key(&j));
    }
    json_finish(&j);
    struct arguments *found = has_nested ? &nested : &top;
    if (found->known) {
        c->path = path;
        c->arguments = *found;
        if (found->unknown.count)
            warn(path, "unknown arguments, without effect: %s", show_names(&found->unknown));
    }
    return 1;
}

char *config_beside(const char *path) {
    const char *slash = last_slash(path), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.');
    size_t stem = dot && dot > name ? (size_t)(dot - path) : strlen(path);
    char *to = allocate((u64)stem + 6, 1);
    memcpy(to, path, stem);
    memcpy(to + stem, ".json", 6);
    return to;
}
