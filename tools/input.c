/* input.c - inputs of mbrun compress and the like, and what the headers of a .mbz file say.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "compress.h"

#include <errno.h>
#include <string.h>

/* ms to wait for more input before complete blocks are decoded: a pipe's writer needs a moment to
 * fill it again, and many blocks together are decoded faster than one */
#define LINGER 20

ssize_t read_some(int file, void *out, size_t n, const char *name) {
    while (!stop_requested()) {
        ssize_t got = read(file, out, n);
        if (got >= 0) return got;
        if (errno == EAGAIN) poll(&(struct pollfd){.fd = file, .events = POLLIN}, 1, -1);
        else if (errno != EINTR) return complain(name, "%s", strerror(errno)) - 1;
    }
    return -1;
}

int input_waits(int file) {
    return poll(&(struct pollfd){.fd = file, .events = POLLIN}, 1, LINGER) != 0;
}

int open_input(job *j, int follow, int any_kind) {
    const zipper *z = j->z;
    j->size = MEGABYTE_SIZE_UNKNOWN;
    j->in = STDIN_FILENO;
    j->name = "standard input";
    if (strcmp(j->path, "-")) {
        j->name = j->path;
        j->in = -1;
        if (lstat(j->path, &j->status)) return complain(j->name, "%s", strerror(errno));
        if (S_ISLNK(j->status.st_mode)) {
            if (!follow)
                return skip(z, j->name, "is a symbolic link; skipped (not with -f, -c or -o)");
            j->is_link = 1;
            if (stat(j->path, &j->status)) return complain(j->name, "%s", strerror(errno));
        }
        if (S_ISDIR(j->status.st_mode)) return skip(z, j->name, "is a directory; skipped");
        if (!is_regular(j) && !any_kind)
            return skip(z, j->name, "is not a regular file; skipped (not with -c or -o)");
        j->in = open(j->path, O_RDONLY | O_NOCTTY);
        if (j->in < 0) return complain(j->name, "%s", strerror(errno));
    }
    if (fstat(j->in, &j->status)) return complain(j->name, "%s", strerror(errno));
    if (z->remove_input && !z->force && is_regular(j)) { /* as gzip and xz have it */
        if (j->status.st_nlink > 1)
            return complain(j->name, "has other hard links; skipped with --rm (not with -f)");
        if (j->status.st_mode & (S_ISUID | S_ISGID | S_ISVTX))
            return complain(j->name, "has its setuid, setgid or sticky bit set; skipped with --rm "
                                     "(not with -f)");
    }
    if (z->mode == MEGABYTE_MODE_DECOMPRESS && isatty(j->in) && !z->force)
        return complain(j->name, "is a terminal; compressed data is not read from one without -f");
    if (is_regular(j)) {
        off_t at = lseek(j->in, 0, SEEK_CUR);
        if (at >= 0) j->size = at < j->status.st_size ? (uint64_t)(j->status.st_size - at) : 0;
    }
    return 1;
}

void close_input(const job *j) {
    if (j->in > STDIN_FILENO) close(j->in);
}

int peek(job *j) {
    while (j->n_head < 4) {
        ssize_t n = read_some(j->in, j->head + j->n_head, sizeof j->head - j->n_head, j->name);
        if (n < 0) return 0;
        if (n == 0) break;
        j->n_head += (size_t)n;
        j->bytes_in += (size_t)n;
    }
    return 1;
}

int read_head(job *j, megabyte_file_header *header) {
    for (;;) {
        megabyte_error error;
        megabyte_status status = megabyte_file_header_read(j->head, j->n_head, header, &error);
        if (!status) return 1;
        ssize_t n = 0;
        if (status == MEGABYTE_ERROR_TRUNCATED && j->n_head < sizeof j->head)
            n = read_some(j->in, j->head + j->n_head, sizeof j->head - j->n_head, j->name);
        if (n < 0) return 0;
        if (n == 0)
            return complain(j->name, "%s",
                            error.text[0] ? error.text : megabyte_status_string(status));
        j->n_head += (size_t)n;
        j->bytes_in += (size_t)n;
    }
}

/* Looks at a file here and there: regular files by pread, so that reading them later begins where
 * it would have. */
typedef struct reader {
    const job *j;
    off_t base; /* where the file stood */
    uint64_t at; /* offset of data[0], counted from there */
    size_t n;
    uint8_t data[PACKED_HEADER_MOST + 4096];
} reader;

/* The bytes at `offset` (at least `wanted`, fewer before the end); -1: could not be read. Forward
 * only. */
static ssize_t look(reader *r, uint64_t offset, size_t wanted, const uint8_t **out) {
    const int by_pread = r->j->size != MEGABYTE_SIZE_UNKNOWN;
    const size_t most = wanted > 4096 ? sizeof r->data : 4096; /* read ahead */
    while (offset > r->at + r->n || r->at + r->n - offset < wanted) {
        ssize_t got;
        if (offset > r->at + r->n) { /* jump */
            r->at = by_pread ? offset : r->at + r->n;
            r->n = 0;
        } else if (offset > r->at) { /* keep the rest */
            r->n -= (size_t)(offset - r->at);
            memmove(r->data, r->data + (offset - r->at), r->n);
            r->at = offset;
        }
        if (by_pread) {
            got = pread(r->j->in, r->data + r->n, most - r->n, r->base + (off_t)(r->at + r->n));
            if (got < 0 && errno == EINTR && !stop_requested()) continue;
            if (got < 0) return complain(r->j->name, "%s", strerror(errno)) - 1;
        } else {
            got = read_some(r->j->in, r->data + r->n, most - r->n, r->j->name);
            if (got < 0) return -1;
        }
        if (!got) break;
        r->n += (size_t)got;
    }
    if (offset > r->at + r->n) return 0;
    *out = r->data + (offset - r->at);
    return (ssize_t)(r->at + r->n - offset);
}

static void count_block(survey *v, int method, uint64_t size) {
    v->blocks++;
    v->original += size;
    if (method >= 0 && method < MEGABYTE_METHOD_COUNT) v->by_method[method]++;
    if (method == MEGABYTE_METHOD_MODEL || method == MEGABYTE_METHOD_MIXED) v->predicted += size;
}

/* A member's model. */
static void count_model(survey *v, const uint8_t *id) {
    if (v->has_model && memcmp(id, v->model_id, sizeof v->model_id)) v->has_several_models = 1;
    if (!v->has_model) memcpy(v->model_id, id, sizeof v->model_id);
    v->has_model = 1;
}

static void count_member(survey *v, const megabyte_file_header *c) {
    if (!v->members++) v->first = *c;
    if (c->block_size > v->block_size) v->block_size = c->block_size;
    if (c->has_model && (!v->has_context || c->context_shift < v->context_shift))
        v->context_shift = c->context_shift;
    v->has_context |= c->has_model;
    if (c->mixing_memory > v->mixing_memory) v->mixing_memory = c->mixing_memory;
    if (c->ensemble > v->ensemble) v->ensemble = c->ensemble;
    if (c->format_version > v->format_version) v->format_version = c->format_version;
    if (c->has_model) count_model(v, c->model_id);
}

/* A member ends here: what was jumped over must be there. */
static megabyte_status skip_to(reader *r, uint64_t offset) {
    const uint8_t *data;
    if (r->j->size != MEGABYTE_SIZE_UNKNOWN)
        return offset > r->j->size ? MEGABYTE_ERROR_TRUNCATED : MEGABYTE_OK;
    if (look(r, offset, MEGABYTE_HEADER_MAX, &data) < 0) return MEGABYTE_ERROR_IO;
    return r->at + r->n < offset ? MEGABYTE_ERROR_TRUNCATED : MEGABYTE_OK;
}

/* A member that is a packed picture. */
static megabyte_status survey_picture(reader *r, uint64_t *offset, survey *v,
                                      megabyte_error *error) {
    megabyte_image_header h;
    const uint8_t *data = NULL;
    ssize_t n = look(r, *offset, PACKED_HEADER_MOST, &data);
    if (n < 0) return error->status = MEGABYTE_ERROR_IO;
    megabyte_status status = megabyte_image_header_read(data, (size_t)n, &h, error);
    if (status) return status;
    uint64_t size = joined_size(h.width, h.height, h.channels, data + h.layout_at, h.layout_bytes);
    if (!size) {
        snprintf(error->text, sizeof error->text,
                 "this is a packed picture, not a compressed file: use mbrun image");
        return error->status = MEGABYTE_ERROR_BAD_MAGIC;
    }
    if (!v->members++) v->first.numerics_version = h.numerics_version;
    count_model(v, h.model_id);
    if (h.format_version > v->format_version) v->format_version = h.format_version;
    count_block(v,
                h.stored        ? MEGABYTE_METHOD_STORED
                : h.model_alone ? MEGABYTE_METHOD_MODEL
                                : MEGABYTE_METHOD_MIXED,
                size);
    v->pictures++;
    *offset += h.file_bytes;
    return MEGABYTE_OK;
}

megabyte_status survey_file(const job *j, uint64_t max_blocks, survey *v, megabyte_error *error) {
    reader r = {.j = j};
    const uint8_t *data = NULL;
    uint64_t offset = 0;
    megabyte_status status = MEGABYTE_OK;
    memset(v, 0, sizeof *v);
    memset(error, 0, sizeof *error);
    if (j->size != MEGABYTE_SIZE_UNKNOWN) r.base = lseek(j->in, 0, SEEK_CUR);
    while (!status && v->blocks < max_blocks) {
        megabyte_file_header c;
        megabyte_block_header b = {.method = 0};
        ssize_t n = look(&r, offset, MEGABYTE_HEADER_MAX, &data);
        if (n < 0) return error->status = MEGABYTE_ERROR_IO;
        if (n == 0 && v->members) break;
        if (n > 0 && begins_with_picture(data, (size_t)n)) {
            status = survey_picture(&r, &offset, v, error);
            if (!status) status = skip_to(&r, offset);
            continue;
        }
        status = megabyte_file_header_read(data, (size_t)n, &c, error);
        if (status == MEGABYTE_ERROR_BAD_MAGIC && v->members)
            error->status = status = MEGABYTE_ERROR_TRAILING_DATA;
        if (status) break;
        count_member(v, &c);
        offset += c.header_bytes;
        if (c.single) {
            count_block(v, c.method, c.size);
            offset += (uint64_t)c.coded + 4;
        }
        while (!c.single && b.method >= 0 && v->blocks < max_blocks) {
            n = look(&r, offset, MEGABYTE_HEADER_MAX, &data);
            if (n < 0) return error->status = MEGABYTE_ERROR_IO;
            status = megabyte_block_header_read(data, (size_t)n, &c, &b, error);
            if (status) break;
            offset += (uint64_t)b.header_bytes + b.coded;
            if (b.method >= 0) count_block(v, b.method, b.size);
        }
        if (!status) status = skip_to(&r, offset);
    }
    v->compressed = offset;
    if (status && status != error->status) {
        error->status = status;
        snprintf(error->text, sizeof error->text, "the compressed data ends too early");
    }
    error->offset = status == MEGABYTE_ERROR_TRUNCATED && offset > r.at + r.n ? r.at + r.n : offset;
    return status;
}
