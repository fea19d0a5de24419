/* sounds.h - the reader and writer of sound in one translation unit, and files to feed it with. */
#ifndef TESTS_SOUNDS_H
#define TESTS_SOUNDS_H

#include "../tools/common.c"
#include "../tools/host.c"
#include "../tools/sound.c"

const char tool_name[] = "test";

typedef struct file {
    uint8_t data[1 << 12];
    size_t n;
} file;

static void add(file *f, const void *data, size_t n) {
    memcpy(f->data + f->n, data, n);
    f->n += n;
}

static void add_number(file *f, uint32_t value, int n_bytes, int is_big) {
    for (int i = 0; i < n_bytes; i++)
        f->data[f->n++] = (uint8_t)(value >> 8 * (is_big ? n_bytes - 1 - i : i));
}

/* With its padding. */
static void add_chunk(file *f, const char *name, const void *data, size_t n, uint32_t claimed) {
    add(f, name, 4);
    add_number(f, claimed, 4, 0);
    add(f, data, n);
    if (n & 1) add(f, "", 1);
}

/* What a WAV file to be made holds. */
typedef struct plan {
    uint32_t format, channels, rate, bits, frame;
    int is_extensible, has_others; /* chunks of odd length before the samples, and behind */
    uint32_t claimed; /* the samples' bytes */
} plan;

static void make_wav(file *f, const plan *p, const uint8_t *samples, size_t n) {
    file format = {.n = 0};
    add_number(&format, p->is_extensible ? FORMAT_EXTENSIBLE : p->format, 2, 0);
    add_number(&format, p->channels, 2, 0);
    add_number(&format, p->rate, 4, 0);
    add_number(&format, p->rate * p->frame, 4, 0);
    add_number(&format, p->frame, 2, 0);
    add_number(&format, p->bits, 2, 0);
    if (p->is_extensible) {
        add_number(&format, 22, 2, 0);
        add_number(&format, p->bits, 2, 0);
        add_number(&format, 4, 4, 0);
        add_number(&format, p->format, 2, 0);
        add(&format, guid_rest, sizeof guid_rest);
    }
    f->n = 0;
    add(f, "RIFF\0\0\0\0WAVE", 12);
    if (p->has_others) add_chunk(f, "LIST", "odd", 3, 3);
    add_chunk(f, "fmt ", format.data, format.n, (uint32_t)format.n);
    if (p->has_others) add_chunk(f, "fact", "\1\0\0\0", 4, 4);
    add_chunk(f, "data", samples, n, p->claimed);
    if (p->has_others) add_chunk(f, "LIST", "trail", 5, 5);
    put_number(f->data + 4, (uint32_t)f->n - 8, 0);
}

static void make_au(file *f, uint32_t offset, uint32_t claimed, uint32_t encoding, uint32_t rate,
                    uint32_t channels, const uint8_t *samples, size_t n) {
    f->n = 0;
    add(f, ".snd", 4);
    add_number(f, offset, 4, 1);
    add_number(f, claimed, 4, 1);
    add_number(f, encoding, 4, 1);
    add_number(f, rate, 4, 1);
    add_number(f, channels, 4, 1);
    while (f->n < offset && f->n < 100) add(f, "", 1);
    add(f, samples, n);
}

#endif
