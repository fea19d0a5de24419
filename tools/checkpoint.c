/* checkpoint.c - see checkpoint.h.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64 /* files beyond 2 GiB on 32-bit systems */
#include "checkpoint.h"

#include "host.h"
#include "pytorch.h"
#include "safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const struct element_type element_types[ELEMENT_TYPES] = {
    {"F32", 4, 1}, {"F16", 2, 1}, {"BF16", 2, 1}, {"F64", 8, 1},     {"I64", 8, 0},
    {"I32", 4, 0}, {"I16", 2, 0}, {"I8", 1, 0},   {"U8", 1, 0},      {"BOOL", 1, 0},
    {"U64", 8, 0}, {"U32", 4, 0}, {"U16", 2, 0},  {"F8_E4M3", 1, 0}, {"F8_E5M2", 1, 0},
};

/* ---------------------------------------------------------------------------------- opening */

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct source *)a)->name, ((const struct source *)b)->name);
}

/* Wrappers put a word before all names. */
static void strip_prefixes(struct checkpoint *in) {
    static const char *const words[] = {"module.", "_orig_mod.", "model."};
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
        size_t n = strlen(words[w]);
        u64 with = 0;
        u64 others = 0; /* counters, such as AveragedModel's n_averaged */
        for (u64 i = 0; i < in->count; i++) {
            if (!strncmp(in->tensors[i].name, words[w], n)) with++;
            else others += !element_types[in->tensors[i].type].readable;
        }
        if (!with || with + others < in->count) continue;
        for (u64 i = 0; i < in->count; i++)
            if (!strncmp(in->tensors[i].name, words[w], n)) in->tensors[i].name += n;
        w = (size_t)-1; /* from the beginning: they may be nested */
    }
}

void open_checkpoint(struct checkpoint *in, const char *path) {
    u8 head[265] = {0};
    in->path = path;
    in->file = fopen(path, "rb");
    if (!in->file) die(path, "cannot open: %s", strerror(errno));
    ll size = file_size(in->file);
    if (size < 0 || seek(in->file, 0))
        die(path, "cannot seek: a regular file is needed, not a pipe");
    size_t got = fread(head, 1, sizeof head, in->file);
    if (ferror(in->file)) die(path, "cannot read: %s", strerror(errno));
    if (!memcmp(head, "\x8aMBMDL\r\n", 8)) die(path, "is a megabyte model file already");
    if ((head[0] == 0x80 && !memcmp(head + 2,
                                    "\x8a\nl\xfc\x9c"
                                    "F\xf9",
                                    7)) ||
        !memcmp(head + 257, "ustar", 5))
        die(path, "a file of PyTorch before 1.6: load it there and torch.save it again");
    if (got < 8) die(path, "%llu bytes: too short to be a checkpoint", (ull)got);
    if (!memcmp(head, "PK\3\4", 4)) {
        open_pytorch(in, (u64)size);
    } else {
        if (seek(in->file, 8)) die(path, "cannot seek: %s", strerror(errno));
        open_safetensors(in, (u64)size, read64(head));
    }
    strip_prefixes(in);
    qsort(in->tensors, (size_t)in->count, sizeof *in->tensors, by_name);
    for (u64 i = 1; i < in->count; i++)
        if (!strcmp(in->tensors[i - 1].name, in->tensors[i].name))
            die(in->path, "tensor %.200s is there twice", in->tensors[i].name);
}

struct source *find_source(const struct checkpoint *in, const char *name) {
    struct source key = {.name = name};
    return bsearch(&key, in->tensors, (size_t)in->count, sizeof *in->tensors, by_name);
}

/* ---------------------------------------------------------------------------------- elements */

static float float_of(u32 bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}
static u32 bits_of(float f) {
    u32 bits;
    memcpy(&bits, &f, 4);
    return bits;
}

static float half_to_float(u32 h) { /* binary16: every value is a float */
    u32 sign = (h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return float_of(sign | 0x7f800000 | fraction << 13);
    if (exponent) return float_of(sign | (exponent + 112) << 23 | fraction << 13);
    return float_of(sign | bits_of((float)fraction * 0x1p-24f)); /* -0, too, under -Ofast */
}

static float double_to_float(u64 bits) {
    double v;
    memcpy(&v, &bits, 8);
    return (float)v;
}

/* The bytes of a tensor; those of the last four tensors that were asked for are held. */
static const u8 *load(struct checkpoint *in, const struct source *t) {
    for (u32 i = 0; i < HELD; i++)
        if (in->held[i].of == t) return in->held[i].bytes;
    struct held *h = &in->held[in->next_held++ % HELD];
    u64 bytes = t->end - t->begin;
    h->of = NULL;
    if (bytes > h->room) {
        free(h->bytes);
        h->bytes = allocate(bytes, 1);
        h->room = bytes;
    }
    if (seek(in->file, in->data + t->begin)) die(in->path, "cannot seek: %s", strerror(errno));
    if (fread(h->bytes, 1, (size_t)bytes, in->file) != bytes)
        die(in->path, "tensor %.200s: cannot read: %s", t->name,
            ferror(in->file) ? strerror(errno) : "the file has become shorter");
    h->of = t;
    return h->bytes;
}

void read_line(struct checkpoint *in, const struct source *t, u64 from, u64 step, u32 n,
               float *to) {
    u32 size = element_types[t->type].bytes;
    const u8 *bytes = load(in, t);
    for (u32 i = 0; i < n; i++) {
        const u8 *p = bytes + (from + i * step) * size;
        float v;
        if (t->type == ELEMENT_F32) v = float_of(read32(p));
        else if (t->type == ELEMENT_F16) v = half_to_float(read16(p));
        else if (t->type == ELEMENT_BF16) v = float_of(read16(p) << 16);
        else v = double_to_float(read64(p));
        if ((bits_of(v) & 0x7f800000) == 0x7f800000)
            die(in->path,
                "tensor %.200s: element %llu is %s; the checkpoint is damaged, or its training "
                "diverged",
                t->name, (ull)(from + i * step), bits_of(v) & 0x7fffff ? "NaN" : "infinite");
        to[i] = v;
    }
}
