/* fuzz_mbconvert.h - the converter as fuzz_convert and fuzz_json see it: it reads from memory, and
 * where it would end the program it jumps to `refused`. */
#ifndef FUZZ_MBCONVERT_H
#define FUZZ_MBCONVERT_H

#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The converter ends where it refuses, and leaves its memory to the exit: here it jumps back, and
 * the memory that it asked for is given back one by one, so that the sanitizer sees each block. */
enum { MOST = 4096 };
static jmp_buf refused;
static void *block[MOST];
static size_t n_blocks, asked;
static FILE *opened[8];
static int n_opened;
static struct memory_file { /* what the converter reads */
    const char *path;
    const uint8_t *bytes;
    size_t n;
} memory_file[2];

static size_t place_of(const void *p) { /* or where the next one goes */
    size_t i = 0;
    while (i < n_blocks && (!p || block[i] != p)) i++;
    return i;
}
static void *kept(size_t i, void *p, size_t bytes) {
    if (!p || i == MOST) abort();
    block[i] = p;
    if (i == n_blocks) n_blocks++;
    asked += bytes;
    return p;
}
static void *fuzz_calloc(size_t n, size_t size) {
    return kept(n_blocks, calloc(n, size), n * size);
}
static void *fuzz_realloc(void *old, size_t size) {
    size_t i = place_of(old);
    return kept(i, realloc(old, size), size);
}
static void fuzz_free(void *p) {
    for (size_t i = 0; p && i < n_blocks; i++)
        if (block[i] == p) block[i--] = block[--n_blocks];
    free(p);
}
static FILE *fuzz_open(const char *path, const char *mode) {
    FILE *f = NULL;
    errno = ENOENT;
    for (int i = 0; i < 2; i++) {
        struct memory_file *m = &memory_file[i];
        if (m->path && !strcmp(path, m->path) && m->n)
            f = fmemopen((void *)(uintptr_t)m->bytes, m->n, mode);
    }
    if (f) opened[n_opened++] = f;
    return f;
}
static int fuzz_close(FILE *f) {
    for (int i = 0; i < n_opened; i++)
        if (opened[i] == f) opened[i--] = opened[--n_opened];
    return fclose(f);
}
static void fuzz_print(FILE *to, const char *format, ...) { (void)to, (void)format; } /* nothing */
static _Noreturn void fuzz_exit(int status) { longjmp(refused, status + 1); }

#define calloc fuzz_calloc
#define realloc fuzz_realloc
#define free fuzz_free
#define fopen fuzz_open
#define fclose fuzz_close
#define exit fuzz_exit
#define fprintf fuzz_print
#define fputc(c, to) fuzz_print(to, "", c)
#define fwrite(bytes, size, n, to) fuzz_print(to, "", bytes, size, n)
#include "mbconvert.h"
#undef calloc
#undef realloc
#undef free
#undef fopen
#undef fclose
#undef exit
#undef fprintf
#undef fputc
#undef fwrite

/* After a run, whether it ended or was refused. */
static void give_back(void) {
    while (n_opened) fuzz_close(opened[0]);
    while (n_blocks) fuzz_free(block[0]);
    memset(memory_file, 0, sizeof memory_file);
    asked = 0;
}
#endif
