/* payload.c - mbrun compress and pictures: a PNM or BMP file becomes a packed picture (.mbi) that
 * also holds what lies around its pixels, so that it comes back byte for byte. Such a member may
 * stand anywhere among those of a .mbz file. SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "compress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int begins_with_picture(const uint8_t *p, size_t n) {
    static const uint8_t magic[4] = {0xb5, 'm', 'b', 'i'}; /* models/FORMAT.md */
    return n >= sizeof magic && !memcmp(p, magic, sizeof magic);
}

int packing_failed(const job *j, megabyte_status status, const megabyte_error *error) {
    const char *text = error->text[0] ? error->text : megabyte_status_string(status);
    end_progress(&j->z->bar);
    if (status == MEGABYTE_ERROR_CANCELLED && stop_requested()) return 0;
    return complain(j->name, "%s%s", text,
                    status == MEGABYTE_ERROR_LIMIT ? "; --limit SIZE allows more, 0 anything" : "");
}

int on_samples(void *context, uint64_t done) {
    const job *j = context;
    if (!j->z->quiet) show_progress(&j->z->bar, done, j->expected, "", base_name(j->name));
    return stop_requested();
}

megabyte_image as_image(const picture *p) {
    return (megabyte_image){.width = p->width,
                            .height = p->height,
                            .channels = p->channels,
                            .row_bytes = (size_t)p->width * p->channels,
                            .pixels = p->pixels};
}

static void count_picture(job *j, const megabyte_image_header *h) {
    j->pictures++;
    j->counts.blocks[h->stored        ? MEGABYTE_METHOD_STORED
                     : h->model_alone ? MEGABYTE_METHOD_MODEL
                                      : MEGABYTE_METHOD_MIXED]++;
}

/* Decodes bytes[n] into the pixels of *p; its size must be known already. */
static megabyte_status decode(job *j, const session *s, const uint8_t *data, size_t n,
                              const picture *p, megabyte_error *error) {
    const megabyte_image image = as_image(p);
    const megabyte_image_options o = {
        .engine = s->engine, .tiles = 256, .progress = on_samples, .progress_context = j};
    return megabyte_image_decode(s->model, &o, data, n, &image, NULL, error);
}

int verify_picture(job *j, const session *s, const uint8_t *coded, size_t n, const picture *p) {
    const size_t samples = (size_t)p->width * p->height * p->channels;
    megabyte_error error;
    picture back = *p;
    back.pixels = allocate(samples, 1);
    megabyte_status status = decode(j, s, coded, n, &back, &error);
    int same = !status && !memcmp(back.pixels, p->pixels, samples);
    free_picture(&back);
    if (status) return packing_failed(j, status, &error);
    return same || complain(j->name, "does not come back the same: please report it");
}

/* Bytes for packing, or for unpacking where those are more; 0: the model does not take it. */
static uint64_t memory_for(const session *s, megabyte_mode mode, uint32_t tiles, const picture *p) {
    const megabyte_image_options o = {.engine = s->engine, .tiles = tiles};
    size_t size;
    if (megabyte_image_memory(s->model, mode, &o, p->width, p->height, p->channels, &size))
        return 0;
    return size;
}

/* ------------------------------------------------------------------------------------ the model */

void close_model_beside(zipper *z) {
    if (z->beside_is_open) close_session(&z->beside);
    z->beside_is_open = 0;
}

static const session *open_model_beside(zipper *z, const char *path) {
    if (z->beside_is_open && !strcmp(z->beside.path, path)) return &z->beside;
    shared_options shared = z->shared;
    close_model_beside(z);
    shared.model = path;
    open_model(&z->beside, &shared);
    z->beside_is_open = 1;
    open_engine(&z->beside, &shared, thread_count(&shared));
    return &z->beside;
}

const session *model_beside(zipper *z, const char *name) {
    char path[4096];
    if (z->shared.model || !find_model_named(name, path, sizeof path)) return NULL;
    return open_model_beside(z, path);
}

static int is_image_model(const session *s) {
    megabyte_image_info info;
    return !megabyte_image_describe(s->model, &info, NULL);
}

/* The one to pack with: that of -m if it is one; models/image.mb if nothing was named. */
static const session *model_for_packing(zipper *z) {
    if (is_image_model(&z->s)) return &z->s;
    const session *s = model_beside(z, "image");
    return s && is_image_model(s) ? s : NULL;
}

/* The one with this id, or NULL after a message. */
static const session *model_for_unpacking(job *j, const uint8_t *id, size_t n) {
    zipper *z = j->z;
    const session *found = NULL;
    if (z->is_open && !memcmp(z->s.info.id, id, n)) return &z->s;
    if (z->beside_is_open && !memcmp(z->beside.info.id, id, n)) return &z->beside;
    known_models others = {.n = 0};
    const known_model *known = known_model_of(models_at_hand(z), id, n);
    shared_options shipped = {.usual = "image"};
    if (!known && z->shared.model) { /* -m names one, and a file may need two */
        find_known_models(&others, &shipped);
        known = known_model_of(&others, id, n);
    }
    const int is_allowed = !known || may_switch(j);
    if (known && is_allowed) found = open_model_beside(z, known->path);
    free_known_models(&others);
    if (found || !is_allowed) return found;
    char text[2 * 16 + 1];
    for (size_t i = 0; i < n && i < 16; i++) snprintf(text + 2 * i, 3, "%02x", id[i]);
    complain(j->name,
             "holds a picture packed with the model %s, which was not found; give it with -m",
             text);
    return NULL;
}

/* -------------------------------------------------------------------------------------- packing */

int may_have_payload(const zipper *z) {
    return (!z->level || z->level >= 5) && !z->dictionary_file && !z->file_type;
}

size_t look_ahead(const job *j, uint8_t *head, size_t n) {
    if (!is_regular(j) || j->size > FILE_MOST || lseek(j->in, 0, SEEK_CUR) != 0) return 0;
    ssize_t got = pread(j->in, head, n, 0);
    return got > 0 ? (size_t)got : 0;
}

int read_ahead(const job *j, bytes *file) {
    while (file->n < j->size) {
        size_t left = (size_t)j->size - file->n;
        ssize_t n = pread(j->in, j->z->input, left < PIECE ? left : PIECE, (off_t)file->n);
        if (n < 0 && errno == EINTR && !stop_requested()) continue;
        if (n <= 0) return 0;
        append(file, j->z->input, (size_t)n);
    }
    return 1;
}

static int read_candidate(const job *j, bytes *file) {
    uint8_t head[32];
    size_t n = look_ahead(j, head, sizeof head);
    picture_format format = picture_format_of(head, n);
    return (format == PICTURE_PNM || format == PICTURE_BMP) && read_ahead(j, file);
}

uint64_t size_without(job *j, const session *s, const uint8_t *data, size_t n, int level) {
    megabyte_codec_options o = options_for_compressing(j, s);
    size_t bound = megabyte_compress_bound(n), size;
    uint8_t *out = allocate(bound, 1);
    if (level) o.level = level;
    o.size = j->expected = n;
    o.verify = 0;
    megabyte_status status = megabyte_compress(s->model, &o, data, n, out, bound, &size, NULL,
                                               NULL);
    free(out);
    return status ? UINT64_MAX : size;
}

/* Is the packed picture smaller? Contexts alone, which take a second a megabyte, tell in most
 * cases: the text model adds little to them on pixels. */
static int is_gain(job *j, const bytes *file, uint64_t packed) {
    const session *s = &j->z->s;
    uint64_t quick = size_without(j, s, file->data, file->n, 4);
    if (quick <= packed) return 0;
    return quick / 3 > packed / 2 || size_without(j, s, file->data, file->n, 0) > packed;
}

typedef struct candidate {
    bytes file;
    picture picture;
    uint8_t layout[LAYOUT_MOST];
    size_t n_layout;
} candidate;

/* Packs, verifies, compares and writes. */
static int pack_candidate(job *j, const session *s, const candidate *c, uint8_t *out,
                          size_t capacity, int *is_done) {
    zipper *z = j->z;
    megabyte_error error;
    megabyte_image_header h;
    megabyte_image image = as_image(&c->picture);
    const megabyte_image_options o = {.engine = s->engine,
                                      .model_alone = z->level == 5,
                                      .layout = c->layout,
                                      .layout_bytes = c->n_layout,
                                      .progress = on_samples,
                                      .progress_context = j};
    size_t n;
    j->expected = (uint64_t)image.height * image.row_bytes;
    megabyte_status status = megabyte_image_encode(s->model, &o, &image, out, capacity, &n, NULL,
                                                   &error);
    if (status) return packing_failed(j, status, &error);
    if (z->verify && !verify_picture(j, s, out, n, &c->picture)) return 0;
    if (!is_gain(j, &c->file, n)) return !stop_requested();
    if (megabyte_image_header_read(out, n, &h, NULL)) return 0;
    end_progress(&z->bar);
    *is_done = 1;
    j->bytes_in = c->file.n;
    count_picture(j, &h);
    if (z->writes && !create_output(&j->to)) return complain(j->to.path, "%s", j->to.why);
    return write_out(j, out, n);
}

int pack_payload(job *j, int *is_done) {
    zipper *z = j->z;
    candidate *c;
    char why[256];
    int good = 1;
    *is_done = 0;
    if (!may_have_payload(z)) return 1;
    const session *s = NULL;
    c = allocate(1, sizeof *c);
    if (read_candidate(j, &c->file) &&
        split_picture_file(&c->picture, c->layout, &c->n_layout, c->file.data, c->file.n,
                           z->s.memory / 8, why))
        s = model_for_packing(z);
    if (s) {
        const picture *p = &c->picture;
        size_t capacity = megabyte_image_bound(p->width, p->height, p->channels);
        uint64_t samples = (uint64_t)p->width * p->height * p->channels;
        uint64_t packs = memory_for(s, MEGABYTE_MODE_COMPRESS, 0, p),
                 unpacks = z->verify ? memory_for(s, MEGABYTE_MODE_DECOMPRESS, 0, p) : 1;
        uint64_t needed = (packs > unpacks ? packs : unpacks) + 5 * samples;
        if (packs && unpacks && memory_suffices(s, "", needed, why)) {
            capacity += c->n_layout;
            uint8_t *out = allocate(capacity, 1);
            z->bar = (progress){.start = now()};
            good = pack_candidate(j, s, c, out, capacity, is_done);
            j->seconds = now() - z->bar.start;
            free(out);
        }
    }
    free(c->file.data);
    free_picture(&c->picture);
    free(c);
    return good;
}

/* ------------------------------------------------------------------------------------ unpacking */

int gather(job *j, uint64_t n) {
    if (j->rest_at > j->rest.n / 2) { /* what was taken is let go */
        j->rest.n -= j->rest_at;
        memmove(j->rest.data, j->rest.data + j->rest_at, j->rest.n);
        j->rest_at = 0;
    }
    while (j->rest.n - j->rest_at < n) {
        ssize_t got = read_some(j->in, j->z->input, PIECE, j->name);
        if (got < 0) return 0;
        if (got == 0) break;
        j->bytes_in += (size_t)got;
        append(&j->rest, j->z->input, (size_t)got);
    }
    return 1;
}

/* The bytes that this member gives; 0 after a message. All together are held to the ratio. */
static uint64_t accept_member(job *j, const megabyte_image_header *h, const uint8_t *layout) {
    const zipper *z = j->z;
    uint64_t samples = (uint64_t)h->width * h->height * h->channels;
    uint64_t n = joined_size(h->width, h->height, h->channels, layout, h->layout_bytes);
    if (!h->layout_bytes || !n)
        return (uint64_t)complain(j->name, "is a packed picture, not a compressed file: use mbrun "
                                           "image unpack");
    j->claimed += samples;
    j->packed += h->file_bytes;
    uint64_t most = MEGABYTE_RATIO_FREE + LIKELY_RATIO * j->packed;
    int by_ratio = z->limit == UNLIKELY_ONLY;
    if (by_ratio ? j->claimed > most : z->limit && j->bytes_out + n > z->limit)
        return (uint64_t)complain(j->name,
                                  "claims a picture of %u x %u pixels, over the limit%s; --limit "
                                  "SIZE allows more, 0 anything",
                                  h->width, h->height, by_ratio ? " on ratio" : "");
    return n;
}

int unpack_payload(job *j) {
    zipper *z = j->z;
    megabyte_image_header h;
    megabyte_error error;
    char why[256];
    if (!gather(j, PACKED_HEADER_MOST)) return 0;
    megabyte_status status = megabyte_image_header_read(j->rest.data + j->rest_at,
                                                        j->rest.n - j->rest_at, &h, &error);
    if (status) return packing_failed(j, status, &error);
    if (h.file_bytes > FILE_MOST) return complain(j->name, "holds too large a picture");
    uint64_t n = accept_member(j, &h, j->rest.data + j->rest_at + h.layout_at);
    if (!n) return 0;
    const session *s = model_for_unpacking(j, h.model_id, sizeof h.model_id);
    if (!s || !gather(j, h.file_bytes)) return 0;
    if (j->rest.n - j->rest_at < h.file_bytes)
        return complain(j->name, "ends too early, in a packed picture");
    picture p = {.width = h.width, .height = h.height, .channels = h.channels};
    uint64_t needed = memory_for(s, MEGABYTE_MODE_DECOMPRESS, h.tiles, &p) + 2 * n;
    if (!memory_suffices(s, "its picture", needed, why)) return complain(j->name, "%s", why);
    if (!allocate_pixels(&p, UINT64_MAX, why)) return complain(j->name, "%s", why);
    j->expected = (uint64_t)p.width * p.height * p.channels;
    const uint8_t *member = j->rest.data + j->rest_at;
    status = decode(j, s, member, (size_t)h.file_bytes, &p, &error);
    int good = !status || packing_failed(j, status, &error);
    if (good) {
        uint8_t *file = allocate(n, 1);
        join_picture_file(&p, member + h.layout_at, h.layout_bytes, file);
        end_progress(&z->bar);
        good = write_out(j, file, (size_t)n);
        free(file);
        count_picture(j, &h);
        j->rest_at += (size_t)h.file_bytes;
    }
    free_picture(&p);
    return good;
}
