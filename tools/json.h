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
    const char *start, *file, *about; /* for messages; about: an argument, or NULL */
    u32 depth;
};

/* text[size] must be NUL. `text` and `file` must stay as long as the parser, and the text as long
 * as strings that were taken from it. */
struct json json_begin(char *text, u64 size, const char *file);

/* What is not as expected ends the program by this: "FILE: JSON, byte N: why". */
_Noreturn void json_die(const struct json *j, const char *why);

char json_peek(struct json *j); /* the next character but white space; NUL at the end */

/* for (int first = (json_open(j, '['), 1); json_more(j, ']', &first);) ...one value... */
void json_open(struct json *j, char bracket);
int json_more(struct json *j, char bracket, int *first);

char *json_string(struct json *j); /* points into the text */
char *json_key(struct json *j); /* a string and the colon */

/* Sizes and offsets of the checkpoint: decimal digits, nothing else. */
u64 json_u64(struct json *j);

/* Arguments of the configuration: 4 and 4.0 alike. */
ll json_whole(struct json *j);

int json_word(struct json *j, const char *word); /* true, false, null: taken if it is next */
void json_skip(struct json *j); /* one value of any kind */
void json_finish(struct json *j); /* nothing may follow */

#endif
