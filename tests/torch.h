/* torch.h - writes .pt files as torch.save does: a zip of stored files with a pickle and storages.
 * Enough of both for a state dict, and for what must be refused. Include mbconvert.h before it. */
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

/* ---------------------------------------------------------------------------- whole checkpoints */

static const char *const storage_types[] = {"FloatStorage", "HalfStorage", "BFloat16Storage",
                                            "DoubleStorage"};

/* Tensor t's elements into storage `data`, in one of several layouts; says in *v which. */
static void lay_out(struct checkpoint *in, const struct source *t, int layout, bytes *data,
                    torch_view *v) {
    int wide = layout == 4; /* as double; others keep the type */
    size_t size = wide ? 8 : element_types[t->type].bytes;
    uint64_t rows = t->rank == 2 ? t->shape[0] : 1, cols = t->shape[t->rank - 1];
    uint64_t stride[3] = {cols * (t->rank == 3 ? t->shape[1] : 1), 1, 0};
    const u8 *from = load(in, t);
    if (t->rank == 3) rows = t->shape[0], cols = t->shape[1] * t->shape[2], stride[1] = 1;
    if (layout == 1) stride[0] = 1, stride[1] = rows; /* transposed */
    if (layout == 2) stride[0] = cols + 3; /* a part of something wider */
    if (layout == 3) stride[0] = 2 * cols, stride[1] = 2;
    v->storage_type = storage_types[wide ? 3 : t->type];
    v->offset = data->size / size;
    v->rank = (int)t->rank;
    uint64_t span = (rows - 1) * stride[0] + (cols - 1) * stride[1] + 1;
    uint8_t *to = need((size_t)span, size);
    memset(to, 0xee, (size_t)span * size);
    for (uint64_t i = 0; i < rows * cols; i++) {
        uint8_t *p = to + (i / cols * stride[0] + i % cols * stride[1]) * size;
        if (wide) {
            float f;
            read_line(in, t, i, 0, 1, &f);
            double d = f;
            uint64_t bits;
            memcpy(&bits, &d, 8);
            put64(p, bits);
        } else {
            memcpy(p, from + i * size, size);
        }
    }
    append(data, to, (size_t)span * size);
    free(to);
    for (uint32_t i = 0; i < t->rank; i++) v->shape[i] = t->shape[i];
    v->stride[0] = t->rank == 1 ? stride[1] : stride[0];
    v->stride[1] = t->rank == 3 ? t->shape[2] * stride[1] : stride[1];
    v->stride[2] = stride[1];
}

enum { PLAIN, SHARED, LARGE, STRIDED, WRAPPED, LAYOUTS }; /* WRAPPED is strided, too */
enum { HELD_TOGETHER = 1 << 18 }; /* elements of the one storage that all share */

/* A safetensors file again as a .pt file. */
static UNUSED_OK void write_torch(const char *pt, const char *safetensors, int how) {
    struct checkpoint in;
    bytes pickle = {0}, *storage;
    zip_file z = {.wide = how == LARGE};
    int keys = 0;
    memset(&in, 0, sizeof in);
    open_checkpoint(&in, safetensors);
    storage = need(in.count, sizeof *storage);
    append_text(&pickle, "\x80\2}(");
    if (how == WRAPPED) { /* as training scripts leave them */
        pickle_text(&pickle, "args"), append_text(&pickle, "cargparse\nNamespace\n)\x81}(");
        pickle_text(&pickle, "lr"), append_text(&pickle, "G????????ub");
        pickle_text(&pickle, "epoch"), pickle_whole(&pickle, 300);
        pickle_text(&pickle, "state_dict"), append_text(&pickle, "ccollections\nOrderedDict\n)R(");
    }
    for (uint64_t i = 0; i < in.count; i++) {
        torch_view v = {.key = how == SHARED ? (int)in.tensors[i].type : keys++};
        char name[200];
        int layout = how >= STRIDED ? (int)random_below(5) : 0;
        if (in.tensors[i].rank != 2 && layout < 3) layout = 0;
        lay_out(&in, &in.tensors[i], layout, &storage[v.key], &v);
        v.held = how == SHARED ? HELD_TOGETHER
                               : storage[v.key].size /
                                     (layout == 4 ? 8 : element_types[in.tensors[i].type].bytes);
        snprintf(name, sizeof name, "%s%s", how == WRAPPED ? "module._orig_mod." : "",
                 in.tensors[i].name);
        pickle_text(&pickle, name);
        pickle_tensor(&pickle, &v, how == WRAPPED && i % 2);
    }
    append_text(&pickle, "u");
    if (how == WRAPPED) { /* attributes of the state dict, then an optimizer with a tensor */
        torch_view v = {"FloatStorage", 0, 1, 0, {1}, {1}, 1};
        append_text(&pickle, "}");
        pickle_text(&pickle, "_metadata"), append_text(&pickle, "}sb");
        pickle_text(&pickle, "optimizer"), append_text(&pickle, "}(");
        pickle_text(&pickle, "step"), pickle_tensor(&pickle, &v, 0), append_text(&pickle, "uu");
    }
    append_text(&pickle, ".");
    torch_begin(&z, "archive", &pickle, "little");
    for (int k = 0; k < (how == SHARED ? 3 : keys); k++) {
        if (how == SHARED) { /* all of a type in one storage; as much as was promised */
            static const uint8_t zeros[4096];
            while (storage[k].size && storage[k].size < 4 * HELD_TOGETHER)
                append(&storage[k], zeros, sizeof zeros);
        }
        torch_storage(&z, "archive", k, &storage[k]);
        free(storage[k].at);
    }
    bytes file = zip_end(&z);
    write_file(pt, file.at, file.size);
    free(file.at), free(pickle.at), free(storage);
    fclose(in.file);
}
#endif
