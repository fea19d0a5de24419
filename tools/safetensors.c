/* safetensors.c - see safetensors.h.
 * SPDX-License-Identifier: MIT */

#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

#define MAX_HEADER 100000000u /* the safetensors library's own limit; two million tensors */

static void parse_type(struct json *j, struct source *t) {
    const char *type = json_string(j);
    while (t->type < ELEMENT_TYPES && strcmp(type, element_types[t->type].name)) t->type++;
    if (t->type == ELEMENT_TYPES)
        die(j->file, "tensor %.200s: unknown dtype %.40s; F32, F16, BF16 and F64 can be read",
            t->name, type);
}

static void parse_shape(struct json *j, struct source *t) {
    t->elements = 1;
    for (int first = (json_open(j, '['), 1); json_more(j, ']', &first); t->rank++) {
        u64 n = json_u64(j);
        if (n && t->elements > UINT64_MAX / n)
            die(j->file, "tensor %.200s: its shape overflows", t->name);
        t->elements *= n;
        if (t->rank < MAX_RANK) t->shape[t->rank] = n;
    }
    u64 stride = 1;
    for (u32 i = t->rank < MAX_RANK ? t->rank : MAX_RANK; i--; stride *= t->shape[i])
        t->stride[i] = stride;
}

static void parse_offsets(struct json *j, struct source *t) {
    u64 offsets[2] = {0, 0};
    u32 n = 0;
    for (int first = (json_open(j, '['), 1); json_more(j, ']', &first); n++) {
        u64 v = json_u64(j);
        if (n < 2) offsets[n] = v;
    }
    if (n != 2) json_die(j, "data_offsets takes two numbers");
    t->begin = offsets[0];
    t->end = offsets[1];
}

static void parse_source(struct json *j, struct source *t) {
    int seen_type = 0, seen_shape = 0, seen_offsets = 0;
    char why[200];
    for (int first = (json_open(j, '{'), 1); json_more(j, '}', &first);) {
        const char *key = json_key(j);
        if (!strcmp(key, "dtype") && !seen_type++) {
            parse_type(j, t);
        } else if (!strcmp(key, "shape") && !seen_shape++) {
            parse_shape(j, t);
        } else if (!strcmp(key, "data_offsets") && !seen_offsets++) {
            parse_offsets(j, t);
        } else {
            snprintf(why, sizeof why, "unknown or repeated key \"%.100s\"", key);
            json_die(j, why);
        }
    }
    if (!seen_type || !seen_shape || !seen_offsets)
        die(j->file, "tensor %.200s: dtype, shape and data_offsets are needed", t->name);
}

static int by_offset(const void *a, const void *b) {
    const struct source *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* One more entry of the table, zeros. Room grows by halves: an entry of the text is never shorter
 * than 40 bytes, so there are less than 2^30 (MAX_HEADER). */
static struct source *add_source(struct checkpoint *in, u64 *room) {
    if (in->count == *room) {
        *room += *room / 2 + 64;
        struct source *more = realloc(in->tensors, (size_t)*room * sizeof *more);
        if (!more) die("memory", "cannot allocate a table of %llu tensors", (ull)*room);
        in->tensors = more;
    }
    struct source *t = &in->tensors[in->count++];
    memset(t, 0, sizeof *t);
    return t;
}

static void check_offsets(const struct checkpoint *in, const struct source *t) {
    if (t->begin > t->end || t->end > in->data_bytes)
        die(in->path,
            "tensor %.200s: its data_offsets %llu..%llu lie outside the %llu bytes of data "
            "in the file; truncated?",
            t->name, (ull)t->begin, (ull)t->end, (ull)in->data_bytes);
    u32 bytes = element_types[t->type].bytes; /* divides: the product could overflow */
    if ((t->end - t->begin) % bytes || (t->end - t->begin) / bytes != t->elements)
        die(in->path, "tensor %.200s: %llu bytes of data for %llu elements of %s", t->name,
            (ull)(t->end - t->begin), (ull)t->elements, element_types[t->type].name);
}

/* The tensors fill the data part, each byte of it once. */
static void check_gaps(struct checkpoint *in) {
    qsort(in->tensors, (size_t)in->count, sizeof *in->tensors, by_offset);
    u64 at = 0;
    for (u64 i = 0; i < in->count; i++) {
        const struct source *t = &in->tensors[i];
        if (t->begin < at)
            die(in->path, "tensors %.200s and %.200s overlap", in->tensors[i - 1].name, t->name);
        if (t->begin > at)
            die(in->path,
                "%llu bytes before the data of tensor %.200s belong to no tensor; damaged?",
                (ull)(t->begin - at), t->name);
        at = t->end;
    }
    if (at != in->data_bytes)
        die(in->path, "%llu bytes behind the last tensor; damaged?", (ull)(in->data_bytes - at));
}

static void parse_header(struct checkpoint *in, char *text, u64 size) {
    struct json j = json_begin(text, size, in->path);
    u64 room = 0;
    for (int first = (json_open(&j, '{'), 1); json_more(&j, '}', &first);) {
        const char *name = json_key(&j);
        if (!strcmp(name, "__metadata__")) {
            json_skip(&j);
            continue;
        }
        struct source *t = add_source(in, &room);
        t->name = name;
        parse_source(&j, t);
        check_offsets(in, t);
    }
    json_finish(&j);
    if (!in->count) die(in->path, "holds no tensors");
    check_gaps(in);
}

void open_safetensors(struct checkpoint *in, u64 size, u64 header) {
    if (header < 2 || header > MAX_HEADER || header > size - 8)
        die(in->path,
            "a header of %llu bytes in a file of %llu: neither a safetensors file nor one of "
            "torch.save, or truncated",
            (ull)header, (ull)size);
    char *text = allocate(header + 1, 1);
    if (fread(text, 1, (size_t)header, in->file) != header) die(in->path, "cannot read the header");
    in->data = 8 + header;
    in->data_bytes = size - in->data;
    parse_header(in, text, header);
}
