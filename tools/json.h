/* json.h - a strict pull parser for JSON: a checkpoint's header, a configuration.
 * SPDX-License-Identifier: MIT */
#ifndef JSON_H
#define JSON_H

#include "common.h"

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef long long ll;
typedef unsigned long long ull; /* for printf */

/* A pull parser: the caller says what it expects next. RFC 8259 to the letter, with UTF-8 checked,
 * nesting bounded and NUL in strings refused. Strings are decoded in place (an escape is never
 * shorter than what it stands for) and end in NUL: parsing allocates nothing. The text must be
 * writable and end in NUL, too. */
#define JSON_DEPTH 32
struct json {
    char *at, *end;
    const char *start, *file, *about;
    u32 depth;
}; /* about: an argument, or NULL */

struct json json_begin(char *text, u64 size, const char *file);

_Noreturn void json_die(const struct json *j, const char *why);

char json_peek(struct json *j);

/* for (int first = (json_open(j, '['), 1); json_more(j, ']', &first);) ...one value... */
void json_open(struct json *j, char bracket);

int json_more(struct json *j, char bracket, int *first);

char *json_string(struct json *j);

char *json_key(struct json *j);

/* Sizes and offsets of the checkpoint: decimal digits, nothing else. */
u64 json_u64(struct json *j);

/* Arguments of the configuration: 4 and 4.0 alike. */
ll json_whole(struct json *j);

int json_word(struct json *j, const char *word);

void json_skip(struct json *j);

void json_finish(struct json *j);

#endif
