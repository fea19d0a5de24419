/* json.c - see json.h.
 * SPDX-License-Identifier: MIT */

#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct json json_begin(char *text, u64 size, const char *file) {
    struct json j = {text, text + size, text, file, NULL, 0};
    return j;
}

_Noreturn void json_die(const struct json *j, const char *why) {
    die(j->file, "JSON, byte %llu: %s%s%s", (ull)(j->at - j->start), j->about ? j->about : "",
        j->about ? ": " : "", why);
}

char json_peek(struct json *j) {
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
        j->at++;
    return *j->at; /* NUL at the end */
}

void json_open(struct json *j, char bracket) {
    if (json_peek(j) != bracket)
        json_die(j, bracket == '{' ? "expected an object, { ... }" : "expected a list, [ ... ]");
    if (++j->depth > JSON_DEPTH) json_die(j, "nested too deeply");
    j->at++;
}
int json_more(struct json *j, char bracket, int *first) {
    char c = json_peek(j);
    if (c == bracket) {
        j->at++;
        j->depth--;
        return 0;
    }
    if (!*first) {
        if (c != ',') json_die(j, bracket == '}' ? "expected , or }" : "expected , or ]");
        j->at++;
        if (json_peek(j) == bracket) json_die(j, "a comma with nothing behind it");
    }
    *first = 0;
    return 1;
}

static u32 json_hex4(struct json *j) {
    u32 v = 0;
    for (int i = 0; i < 4; i++, j->at++) { /* the NUL at the end is no digit */
        char c = *j->at;
        u32 digit = c >= '0' && c <= '9'   ? (u32)(c - '0')
                    : c >= 'a' && c <= 'f' ? (u32)(c - 'a' + 10)
                    : c >= 'A' && c <= 'F' ? (u32)(c - 'A' + 10)
                                           : 16;
        if (digit == 16) json_die(j, "expected 4 hexadecimal digits after \\u");
        v = v << 4 | digit;
    }
    return v;
}

static char *json_escape(struct json *j, char *out) { /* j->at is behind the backslash */
    static const char codes[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    char c = *j->at;
    const char *known = c ? strchr(codes, c) : NULL;
    if (known) {
        j->at++;
        *out++ = means[known - codes];
        return out;
    }
    if (c != 'u') json_die(j, "unknown escape in a string");
    j->at++;
    u32 v = json_hex4(j);
    if (v >= 0xd800 && v < 0xdc00 && j->at[0] == '\\' && j->at[1] == 'u') {
        j->at += 2;
        u32 low = json_hex4(j);
        if (low < 0xdc00 || low > 0xdfff) json_die(j, "half a surrogate pair in a string");
        v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
    }
    if (v == 0 || (v >= 0xd800 && v < 0xe000))
        json_die(j, "NUL or half a surrogate pair in a string");
    if (v < 0x80) {
        *out++ = (char)v;
    } else {
        u32 more = v < 0x800 ? 1 : v < 0x10000 ? 2 : 3;
        *out++ = (char)(u8)(0xf00u >> (more + 1) |
                            v >> 6 * more); /* 110xxxxx, 1110xxxx, 11110xxx */
        while (more--) *out++ = (char)(u8)(0x80 | (v >> 6 * more & 0x3f));
    }
    return out;
}

char *json_string(struct json *j) {
    if (json_peek(j) != '"') json_die(j, "expected a string");
    char *s = ++j->at, *out = s;
    while (*j->at != '"') {
        if ((u8)*j->at < 0x20) json_die(j, "a string without end, or a control character in it");
        if (*j->at == '\\') {
            j->at++;
            out = json_escape(j, out);
        } else {
            size_t n = utf8_length((const u8 *)j->at, (size_t)(j->end - j->at));
            if (!n) json_die(j, "a string that is not UTF-8");
            memmove(out, j->at, n);
            out += n;
            j->at += n;
        }
    }
    j->at++;
    *out = 0;
    return s;
}

char *json_key(struct json *j) {
    char *key = json_string(j);
    if (json_peek(j) != ':') json_die(j, "expected :");
    j->at++;
    return key;
}

/* Steps over a number and returns where it starts. */
static const char *json_number(struct json *j) {
    json_peek(j);
    const char *start = j->at;
    if (*j->at == '-') j->at++;
    if (*j->at < '0' || *j->at > '9') json_die(j, "expected a value");
    if (*j->at == '0') j->at++;
    else
        while (*j->at >= '0' && *j->at <= '9') j->at++;
    if (*j->at == '.') {
        j->at++;
        if (*j->at < '0' || *j->at > '9') json_die(j, "expected a digit");
        while (*j->at >= '0' && *j->at <= '9') j->at++;
    }
    if (*j->at == 'e' || *j->at == 'E') {
        j->at++;
        if (*j->at == '+' || *j->at == '-') j->at++;
        if (*j->at < '0' || *j->at > '9') json_die(j, "expected a digit");
        while (*j->at >= '0' && *j->at <= '9') j->at++;
    }
    return start;
}

u64 json_u64(struct json *j) {
    u64 v = 0;
    for (const char *p = json_number(j); p < j->at; p++) {
        u32 digit = (u32)(*p - '0');
        if (digit > 9) json_die(j, "expected a whole number that is not negative");
        if (v > (UINT64_MAX - digit) / 10) json_die(j, "a number beyond 64 bits");
        v = v * 10 + digit;
    }
    return v;
}

ll json_whole(struct json *j) {
    double v = strtod(json_number(j), NULL);
    if (!(v >= INT32_MIN && v <= INT32_MAX) || v != floor(v))
        json_die(j, "expected a whole number of 32 bits");
    return (ll)v;
}

int json_word(struct json *j, const char *word) {
    size_t n = strlen(word);
    json_peek(j);
    if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n)) return 0;
    j->at += n;
    return 1;
}

void json_skip(struct json *j) {
    char c = json_peek(j);
    if (c == '{') {
        for (int first = (json_open(j, '{'), 1); json_more(j, '}', &first);) {
            json_key(j);
            json_skip(j);
        }
    } else if (c == '[') {
        for (int first = (json_open(j, '['), 1); json_more(j, ']', &first);) json_skip(j);
    } else if (c == '"') {
        json_string(j);
    } else if (!json_word(j, "true") && !json_word(j, "false") && !json_word(j, "null")) {
        json_number(j);
    }
}

void json_finish(struct json *j) {
    if (json_peek(j) || j->at < j->end) json_die(j, "something follows the end of the object");
}
