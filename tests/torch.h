/* torch.h - writes .pt files as torch.save does: a zip of stored files with a pickle and storages.
 * Enough of both for a state dict, and for what must be refused. */
#ifndef TORCH_H
#define TORCH_H

#include "test.h"

typedef struct bytes {
    uint8_t *at;
    size_t size, room;
} bytes;

static void append(bytes *b, const void *data, size_t n) {
    if (b->size + n > b->room) {
        uint8_t *more = realloc(b->at, b->room = 2 * (b->size + n) + 64);
        CHECK(more, "out of memory in the test itself");
        b->at = more;
    }
    if (n) memcpy(b->at + b->size, data, n);
    b->size += n;
}
static void append_number(bytes *b, uint64_t v, int width) { /* little-endian */
    uint8_t p[8];
    for (int i = 0; i < width; i++) p[i] = (uint8_t)(v >> 8 * i);
    append(b, p, (size_t)width);
}
static void append_text(bytes *b, const char *text) { append(b, text, strlen(text)); }

/* ------------------------------------------------------------------------------------------ zip */

typedef struct zip_file {
    bytes file, directory;
    int entries, wide; /* wide: zip64 fields and records, as PyTorch writes them for large files */
} zip_file;

static void zip_add(zip_file *z, const char *name, const void *data, size_t n) {
    size_t offset = z->file.size, padding = (64 - (offset + 30 + strlen(name)) % 64) % 64;
    if (padding && padding < 4) padding += 64;
    append_text(&z->file, "PK\3\4");
    append_number(&z->file, 0, 6), append_number(&z->file, 0, 8); /* method, time, date, checksum */
    append_number(&z->file, n, 4), append_number(&z->file, n, 4);
    append_number(&z->file, strlen(name), 2), append_number(&z->file, padding, 2);
    append_text(&z->file, name);
    if (padding) append_text(&z->file, "FB"), append_number(&z->file, padding - 4, 2);
    for (size_t i = 4; i < padding; i++) append_text(&z->file, "Z");
    append(&z->file, data, n);

    uint64_t told = z->wide ? UINT32_MAX : n;
    append_text(&z->directory, "PK\1\2");
    append_number(&z->directory, 0, 8), append_number(&z->directory, 0, 8);
    append_number(&z->directory, told, 4), append_number(&z->directory, told, 4);
    append_number(&z->directory, strlen(name), 2),
        append_number(&z->directory, z->wide ? 28 : 0, 2);
    append_number(&z->directory, 0, 8), append_number(&z->directory, 0, 2);
    append_number(&z->directory, z->wide ? UINT32_MAX : offset, 4);
    append_text(&z->directory, name);
    if (z->wide) {
        append_number(&z->directory, 1, 2), append_number(&z->directory, 24, 2);
        append_number(&z->directory, n, 8), append_number(&z->directory, n, 8);
        append_number(&z->directory, offset, 8);
    }
    z->entries++;
}

static bytes zip_end(zip_file *z) { /* the whole file; free(.at) it */
    size_t offset = z->file.size, n = z->directory.size;
    append(&z->file, z->directory.at, n);
    if (z->wide) {
        append_text(&z->file, "PK\6\6"), append_number(&z->file, 44, 8),
            append_number(&z->file, 0, 8);
        append_number(&z->file, 0, 4), append_number(&z->file, (uint64_t)z->entries, 8);
        append_number(&z->file, (uint64_t)z->entries, 8), append_number(&z->file, n, 8);
        append_number(&z->file, offset, 8);
        append_text(&z->file, "PK\6\7"), append_number(&z->file, 0, 4);
        append_number(&z->file, offset + n, 8), append_number(&z->file, 1, 4);
    }
    append_text(&z->file, "PK\5\6"), append_number(&z->file, 0, 4);
    append_number(&z->file, (uint64_t)z->entries, 2),
        append_number(&z->file, (uint64_t)z->entries, 2);
    append_number(&z->file, z->wide ? UINT32_MAX : n, 4),
        append_number(&z->file, z->wide ? UINT32_MAX : offset, 4);
    append_number(&z->file, 0, 2);
    free(z->directory.at);
    return z->file;
}

/* --------------------------------------------------------------------------------------- pickle */

static void pickle_text(bytes *b, const char *text) {
    append_text(b, "X"), append_number(b, strlen(text), 4), append_text(b, text);
}
static void pickle_whole(bytes *b, uint64_t v) {
    if (v < 256) append_text(b, "K"), append_number(b, v, 1);
    else if (v < 1u << 31) append_text(b, "J"), append_number(b, v, 4);
    else
        append_text(b, v >> 63 ? "\x8a\x09" : "\x8a\x08"), append_number(b, v, 8),
            append_number(b, 0, (int)(v >> 63));
}
static void pickle_tuple(bytes *b, const uint64_t *values, int n) {
    append_text(b, "(");
    for (int i = 0; i < n; i++) pickle_whole(b, values[i]);
    append_text(b, "t");
}

typedef struct torch_view {
    const char *storage_type; /* "FloatStorage" */
    int key; /* of the storage, which has `held` elements */
    uint64_t held, offset, shape[4], stride[4];
    int rank;
} torch_view;

/* The call that makes a tensor of it, as a parameter or not. */
static void pickle_tensor(bytes *b, const torch_view *v, int parameter) {
    char key[20];
    snprintf(key, sizeof key, "%d", v->key);
    if (parameter) append_text(b, "ctorch._utils\n_rebuild_parameter\n(");
    append_text(b, "ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle_text(b, "storage");
    append_text(b, "ctorch\n"), append_text(b, v->storage_type), append_text(b, "\n");
    pickle_text(b, key), pickle_text(b, "cpu"), pickle_whole(b, v->held);
    append_text(b, "tQ");
    pickle_whole(b, v->offset), pickle_tuple(b, v->shape, v->rank),
        pickle_tuple(b, v->stride, v->rank);
    append_text(b, "\x89"
                   "ccollections\nOrderedDict\n)RtR");
    if (parameter)
        append_text(b, "\x88"
                       "ccollections\nOrderedDict\n)RtR");
}

/* The usual entries of the archive `name` around a pickle; storages are added by the caller. */
static void torch_begin(zip_file *z, const char *name, const bytes *pickle, const char *byteorder) {
    char path[100];
    snprintf(path, sizeof path, "%s/data.pkl", name);
    zip_add(z, path, pickle->at, pickle->size);
    snprintf(path, sizeof path, "%s/byteorder", name);
    if (byteorder) zip_add(z, path, byteorder, strlen(byteorder));
}
static void torch_storage(zip_file *z, const char *name, int key, const bytes *data) {
    char path[100];
    snprintf(path, sizeof path, "%s/data/%d", name, key);
    zip_add(z, path, data->at, data->size);
}
#endif
