/* common.c - see common.h.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64 /* files beyond 2 GiB on 32-bit systems */
#include "common.h"
#include "host.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* ---- messages */

size_t utf8_length(const uint8_t *p, size_t n) {
    size_t length = p[0] < 0x80   ? 1
                    : p[0] < 0xc2 ? 0
                    : p[0] < 0xe0 ? 2
                    : p[0] < 0xf0 ? 3
                    : p[0] < 0xf5 ? 4
                                  : 0;
    if (length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f))
        return 0; /* overlong; surrogates */
    if ((p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
        return 0; /* overlong; beyond U+10FFFF */
    return length;
}

void print_harmless(FILE *out, const char *text) {
    const uint8_t *p = (const uint8_t *)text;
    for (size_t left = strlen(text), n; left; p += n, left -= n) {
        n = utf8_length(p, left);
        if (!n || *p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0)) fputc('?', out);
        else fwrite(p, 1, n, out);
        if (!n) n = 1;
    }
}

void say(const char *what, const char *prefix, const char *format, va_list args) {
    char text[4096];
    vsnprintf(text, sizeof text, format, args);
    fflush(stdout);
    fprintf(stderr, "%s: ", tool_name);
    print_harmless(stderr, what);
    fprintf(stderr, ": %s", prefix);
    print_harmless(stderr, text);
    fputc('\n', stderr);
}

int complain(const char *what, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(what, "", format, args);
    va_end(args);
    return 0;
}

int refuse(char why[256], const char *text) {
    snprintf(why, 256, "%s", text);
    return 0;
}

int quiet;

void warn(const char *what, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (!quiet) say(what, "warning: ", format, args);
    va_end(args);
}

void note(const char *what, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (!quiet) say(what, "", format, args);
    va_end(args);
}

_Noreturn void die(const char *what, const char *format, ...) {
    va_list args;
    va_start(args, format);
    say(what, "", format, args);
    va_end(args);
    remove_unfinished();
    exit(1);
}

/* ---- memory and files */

void *allocate(uint64_t count, size_t size) {
    void *p = count <= SIZE_MAX / size ? calloc(count ? (size_t)count : 1, size) : NULL;
    if (!p) die("memory", "cannot allocate %llu x %zu bytes", (unsigned long long)count, size);
    return p;
}

int seek(FILE *f, uint64_t to) { return to > INT64_MAX ? -1 : fseeko(f, (off_t)to, SEEK_SET); }

int64_t file_size(FILE *f) { return fseeko(f, 0, SEEK_END) ? -1 : (int64_t)ftello(f); }

uint32_t read16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
uint32_t read32(const uint8_t *p) { return read16(p) | read16(p + 2) << 16; }
uint64_t read64(const uint8_t *p) { return (uint64_t)read32(p) | (uint64_t)read32(p + 4) << 32; }

/* ---- signals */

static const char *volatile temporary_file; /* the temporary file being written */

void remove_if_killed(const char *path) { temporary_file = path; }

void remove_unfinished(void) {
    if (temporary_file) unlink(temporary_file);
    temporary_file = NULL;
}

static volatile sig_atomic_t interrupted;
/* A second Ctrl-C ends the program at once, should the first one be noticed too late. */
static void on_interrupt(int number) {
    if (interrupted) {
        remove_unfinished();
        _exit(128 + number);
    }
    interrupted = number;
}

static void on_kill(int number) {
    remove_unfinished();
    end_by_signal(number);
}

static void (*handle)(int number);
static volatile sig_atomic_t is_held, held_back;
static void on_signal(int number) {
    if (is_held) held_back = number;
    else handle(number);
}

void hold_signals(void) { is_held = 1; }
void release_signals(void) {
    is_held = 0; /* first: what comes from here on is not held back, and not lost */
    int number = held_back;
    held_back = 0;
    if (number) handle(number);
}

static void on_lost_pages(int number) {
    static const char text[] = ": the model's file was cut off while it was mapped\n";
    remove_unfinished();
    if (write(STDERR_FILENO, tool_name, strlen(tool_name)) < 0 ||
        write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(1); /* nobody hears */
    end_by_signal(number);
}
void end_on_lost_pages(void) { call_on_lost_pages(on_lost_pages); }

void catch_interrupt(void) {
    handle = on_interrupt;
    call_on_signals(on_signal);
}
void end_on_signals(void) {
    handle = on_kill;
    call_on_signals(on_signal);
}
int stop_requested(void) { return interrupted ? 128 + interrupted : 0; }
void forget_interrupt(void) { interrupted = 0; }
