/* common.h - what all tools share: messages, memory, signals, little-endian numbers.
 * SPDX-License-Identifier: MIT */
#ifndef COMMON_H
#define COMMON_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))
#if defined(__MINGW32__) && !defined(__clang__)
#define PRINTF(text, first) __attribute__((format(gnu_printf, text, first)))
#elif defined(__GNUC__)
#define PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define PRINTF(text, first)
#endif

extern const char tool_name[]; /* "mbrun": begins every message; each tool defines it */

/* Length of the valid UTF-8 sequence at p (RFC 3629), of at most n bytes; 0 if there is none. */
size_t utf8_length(const uint8_t *p, size_t n);

/* Names and texts of strangers must not command the terminal: control characters and what is not
 * UTF-8 are printed as `?`. */
void print_harmless(FILE *out, const char *text);

/* All print "tool: what: text" to stderr, harmlessly. `what` is the file or option that the message
 * is about. */
void say(const char *what, const char *prefix, const char *format, va_list args);
PRINTF(2, 3) int complain(const char *what, const char *format, ...); /* returns 0: "failed" */
int refuse(char why[256], const char *text); /* prints nothing; 0 */
extern int quiet; /* 1: these two print nothing */
PRINTF(2, 3) void warn(const char *what, const char *format, ...);
PRINTF(2, 3) void note(const char *what, const char *format, ...);
/* Also removes the temporary file of an unfinished output; exits with 1. */
PRINTF(2, 3) _Noreturn void die(const char *what, const char *format, ...);

void *allocate(uint64_t count, size_t size); /* zeroed; never NULL: dies */

int seek(FILE *f, uint64_t to); /* 0, or -1 */
int64_t file_size(FILE *f); /* moves to the end; -1: it cannot be known, as with pipes */

/* Little-endian. */
uint32_t read16(const uint8_t *p);
uint32_t read32(const uint8_t *p);
uint64_t read64(const uint8_t *p);

/* SIGINT (Ctrl-C), SIGTERM, SIGHUP, SIGQUIT: either the first of them is only noted, so that work
 * can be finished or undone, or the program dies of it at once. The temporary file is removed. */
void catch_interrupt(void);
void end_on_signals(void);
void end_on_lost_pages(void); /* SIGBUS: with a word about the model's file */
int stop_requested(void); /* after the first signal: the exit status, 128 + its number; else 0 */
void forget_interrupt(void); /* goes on after the first signal */
/* Between these two a signal waits: what is made there is not left behind without a name. */
void hold_signals(void);
void release_signals(void);
void remove_if_killed(const char *path); /* NULL: nothing. The text must stay */
void remove_unfinished(void); /* that file, now */

#endif
