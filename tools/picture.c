/* picture.c - PNM and BMP, and what all kinds of pictures share: see picture.h.
 * SPDX-License-Identifier: MIT */

#include "picture.h"
#include "common.h"

#include <stdlib.h>
#include <string.h>

void drop_from_picture(char dropped[160], const char *name) {
    size_t n = strlen(dropped), length = strlen(name);
    for (const char *at = dropped; (at = strstr(at, name)); at += length)
        if ((at == dropped || at[-1] == ' ') && (!at[length] || at[length] == ',')) return;
    if (n + length + 2 + sizeof ", ..." <= 160)
        snprintf(dropped + n, 160 - n, "%s%s", n ? ", " : "", name);
    else if (strcmp(dropped + n - 3, "...")) memcpy(dropped + n, ", ...", sizeof ", ...");
}

int allocate_pixels(picture *p, uint64_t most, char why[256]) {
    uint64_t area = (uint64_t)p->width * p->height; /* each below 2^31 */
    if (!area || area > most / p->channels || area > SIZE_MAX / p->channels) {
        snprintf(why, 256, "has %u x %u pixels, more than the %llu MB allowed", p->width, p->height,
                 (unsigned long long)(most >> 20));
        return 0;
    }
    p->pixels = malloc((size_t)area * p->channels);
    return p->pixels || refuse(why, "not enough memory");
}

void free_picture(picture *p) {
    free(p->pixels);
    p->pixels = NULL;
}

/* ========================================================================================= PNM */

typedef struct pnm_reader {
    const uint8_t *data;
    size_t n, at;
    char *dropped;
} pnm_reader;

static int is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static void skip_space(pnm_reader *r) { /* and comments */
    for (; r->at < r->n && (is_space(r->data[r->at]) || r->data[r->at] == '#'); r->at++) {
        if (r->data[r->at] != '#') continue;
        drop_from_picture(r->dropped, "comments");
        while (r->at + 1 < r->n && r->data[r->at] != '\n') r->at++;
    }
}

/* UINT32_MAX if there is none. */
static uint32_t next_number(pnm_reader *r) {
    uint64_t value = 0;
    size_t begin;
    skip_space(r);
    for (begin = r->at; r->at < r->n && r->data[r->at] >= '0' && r->data[r->at] <= '9'; r->at++)
        if (value < UINT32_MAX) value = 10 * value + (r->data[r->at] - '0');
    return r->at == begin || value >= UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

/* Size and maxval, up to the white space before the pixels. */
static int read_pnm_header(raster *r, pnm_reader *in, char why[256]) {
    r->format = PICTURE_PNM;
    r->channels = in->data[1] == '3' || in->data[1] == '6' ? 3 : 1;
    r->width = next_number(in);
    r->height = next_number(in);
    uint32_t highest = next_number(in);
    if (!r->width || !r->height || r->width > INT32_MAX || r->height > INT32_MAX)
        return refuse(why, "its width or height is not within 1 to 2^31 - 1");
    if (highest != 255)
        return refuse(why, "its samples do not go from 0 to 255, which the model needs (mbrun "
                           "compress keeps every file as it is)");
    if (in->at == in->n) return refuse(why, "ends too early");
    if (!is_space(in->data[in->at++])) return refuse(why, "its header is damaged");
    return 1;
}

/* What follows may be a second picture: that is not dropped. */
static const char more_follows[] =
    "holds more than one picture, or other data after it (mbrun compress keeps every file as it "
    "is)";

static int find_pnm(raster *r, const uint8_t *data, size_t n, char why[256]) {
    pnm_reader in = {data, n, 2, r->dropped};
    if (!read_pnm_header(r, &in, why)) return 0;
    uint64_t row = (uint64_t)r->width * r->channels;
    if (r->height > (n - in.at) / row) return refuse(why, "ends too early");
    if (n - in.at > r->height * row) return refuse(why, more_follows);
    r->pixel_bytes = r->channels;
    r->offset = in.at;
    r->row_bytes = (size_t)row;
    return 1;
}

/* P2, P3: a sample takes two bytes at least, but for the last. */
static int read_plain_pnm(picture *p, const uint8_t *data, size_t n, uint64_t most, char why[256]) {
    raster r = {.channels = 0};
    pnm_reader in = {data, n, 2, p->dropped};
    if (!read_pnm_header(&r, &in, why)) return 0;
    p->width = r.width;
    p->height = r.height;
    p->channels = r.channels;
    uint64_t area = (uint64_t)r.width * r.height;
    if (area > n || area * r.channels > (n - in.at + 1) / 2) return refuse(why, "ends too early");
    if (!allocate_pixels(p, most, why)) return 0;
    for (size_t i = 0; i < (size_t)area * r.channels; i++) {
        uint32_t value = next_number(&in);
        if (value > 255)
            return refuse(why, value == UINT32_MAX && in.at == n ? "ends too early"
                                                                 : "a sample is none of 0 to 255");
        p->pixels[i] = (uint8_t)value;
    }
    skip_space(&in);
    return in.at == n || refuse(why, more_follows);
}

static void write_pnm(const picture *p, uint8_t **out, size_t *n) {
    size_t size = (size_t)p->width * p->height * p->channels;
    *out = malloc(64 + size);
    if (!*out) return;
    int length = snprintf((char *)*out, 64, "P%c\n%u %u\n255\n", p->channels == 3 ? '6' : '5',
                          p->width, p->height);
    memcpy(*out + length, p->pixels, size);
    *n = (size_t)length + size;
}

/* ========================================================================================= BMP */

enum { FILE_HEADER = 14, OLD_HEADER = 12, INFO_HEADER = 40, PLAIN = 0, BITFIELDS = 3 };

/* The masks of 32 bits must be blue, green, red, unused (or alpha). */
static int has_usual_masks(const uint8_t *data, size_t n, uint32_t header) {
    if (n < FILE_HEADER + INFO_HEADER + 12) return 0;
    const uint8_t *masks = data + FILE_HEADER + INFO_HEADER;
    uint32_t alpha = header >= 56 ? read32(masks + 12) : 0;
    return read32(masks) == 0xff0000 && read32(masks + 4) == 0xff00 && read32(masks + 8) == 0xff &&
           (alpha == 0 || alpha == 0xff000000);
}

/* Sizes, from either kind of header. */
static int read_bmp_header(raster *r, const uint8_t *data, size_t n, unsigned *bits,
                           char why[256]) {
    uint32_t header = n < 18 ? 0 : read32(data + 14), method = PLAIN;
    int is_old = header == OLD_HEADER;
    if (n < FILE_HEADER + OLD_HEADER || (!is_old && n < FILE_HEADER + INFO_HEADER) ||
        header > n - FILE_HEADER)
        return refuse(why, "ends too early");
    if (!is_old && header < INFO_HEADER) return refuse(why, "its header has an unknown length");
    r->width = is_old ? read16(data + 18) : read32(data + 18);
    r->height = is_old ? read16(data + 20) : read32(data + 22);
    *bits = read16(data + (is_old ? 24 : 28));
    if (!is_old) method = read32(data + 30);
    r->bottom_up = r->height < 0x80000000;
    if (!r->bottom_up) r->height = 0u - r->height;
    if (!r->width || !r->height || r->width > INT32_MAX || r->height > INT32_MAX)
        return refuse(why, "its width or height is not within 1 to 2^31 - 1");
    if (*bits != 8 && *bits != 24 && *bits != 32)
        return refuse(why, "is a BMP of other than 8, 24 or 32 bits (mbrun compress keeps every "
                           "file as it is)");
    if (method == BITFIELDS && *bits == 32 && has_usual_masks(data, n, header)) method = PLAIN;
    if (method != PLAIN)
        return refuse(why, "is a BMP that is compressed or has unusual masks (mbrun compress keeps "
                           "every file as it is)");
    return 1;
}

static int find_palette(raster *r, const uint8_t *data, size_t n, char why[256]) {
    uint32_t header = read32(data + 14);
    int is_old = header == OLD_HEADER;
    r->palette_bytes = is_old ? 3 : 4;
    r->n_palette = is_old ? 256 : read32(data + 46);
    if (!r->n_palette) r->n_palette = 256;
    if (r->n_palette > 256 || r->n_palette > (n - FILE_HEADER - header) / r->palette_bytes)
        return refuse(why, "its palette is damaged");
    r->palette = data + FILE_HEADER + header;
    r->channels = 1;
    int is_straight = 1; /* 0, 1, 2 ... in grey */
    for (uint32_t i = 0; i < r->n_palette; i++) {
        const uint8_t *c = r->palette + i * r->palette_bytes;
        if (c[0] != c[1] || c[1] != c[2]) r->channels = 3;
        is_straight &= c[0] == i;
    }
    if (r->channels == 1 && is_straight && r->n_palette == 256) r->palette = NULL;
    return 1;
}

static int find_bmp(raster *r, const uint8_t *data, size_t n, char why[256]) {
    unsigned bits = 0;
    r->format = PICTURE_BMP;
    if (!read_bmp_header(r, data, n, &bits, why)) return 0;
    r->channels = 3;
    r->pixel_bytes = bits / 8;
    r->is_bgr = bits != 8;
    if (bits == 8 && !find_palette(r, data, n, why)) return 0;
    uint64_t row = ((uint64_t)r->width * r->pixel_bytes + 3) / 4 * 4;
    size_t end_of_header = FILE_HEADER + (size_t)read32(data + 14) +
                           (size_t)r->n_palette * r->palette_bytes;
    r->offset = read32(data + 10);
    if (r->offset < end_of_header || r->offset > n || r->height > (n - r->offset) / row)
        return refuse(why, "ends too early, or its pixels begin in its header");
    r->row_bytes = (size_t)row;
    if (read32(data + 14) >= 124 && read32(data + FILE_HEADER + 116))
        drop_from_picture(r->dropped, "colour profile");
    else if (n - r->offset > r->height * row + 3) /* some pad to a multiple of four */
        drop_from_picture(r->dropped, "data after its pixels");
    return 1;
}

static int write_bmp(const picture *p, uint8_t **out, size_t *n, char why[256]) {
    size_t row = ((size_t)p->width * p->channels + 3) / 4 * 4,
           palette = p->channels == 1 ? 1024 : 0;
    uint64_t begin = FILE_HEADER + INFO_HEADER + palette, size = begin + (uint64_t)row * p->height;
    if (size > INT32_MAX) return refuse(why, "too large for a BMP (2 GB)");
    uint8_t *to = *out = calloc(1, (size_t)size);
    if (!to) return 1;
    const uint32_t fields[][2] = {{2, (uint32_t)size},
                                  {10, (uint32_t)begin},
                                  {14, INFO_HEADER},
                                  {18, p->width},
                                  {22, p->height},
                                  {26, 1 | p->channels * 8 << 16},
                                  {34, (uint32_t)(size - begin)},
                                  {46, palette ? 256 : 0}};
    memcpy(to, "BM", 2);
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        for (int k = 0; k < 4; k++)
            to[fields[i][0] + (uint32_t)k] = (uint8_t)(fields[i][1] >> 8 * k);
    for (size_t i = 0; i < palette; i++)
        if (i % 4 < 3) to[FILE_HEADER + INFO_HEADER + i] = (uint8_t)(i / 4);
    for (uint32_t y = 0; y < p->height; y++) {
        const uint8_t *from = p->pixels + (size_t)(p->height - 1 - y) * p->width * p->channels;
        uint8_t *line = to + begin + y * row;
        for (size_t x = 0; x < p->width; x++)
            for (uint32_t c = 0; c < p->channels; c++)
                line[x * p->channels + c] = from[x * p->channels + p->channels - 1 - c];
    }
    *n = (size_t)size;
    return 1;
}

/* ====================================================================================== rasters */

int find_raster(raster *r, const uint8_t *data, size_t n, char why[256]) {
    memset(r, 0, sizeof *r);
    if (picture_format_of(data, n) == PICTURE_BMP) return find_bmp(r, data, n, why);
    if (picture_format_of(data, n) == PICTURE_PNM && (data[1] == '5' || data[1] == '6'))
        return find_pnm(r, data, n, why);
    return refuse(why, "holds no pixels as they are");
}

/* The fourth byte of a pixel says nothing if it is always 0 or always 255. */
static int fourth_is_empty(const raster *r, const uint8_t *data) {
    uint8_t first = data[r->offset + 3];
    if (first != 0 && first != 255) return 0;
    for (uint32_t y = 0; y < r->height; y++)
        for (size_t x = 0; x < r->width; x++)
            if (data[r->offset + y * r->row_bytes + 4 * x + 3] != first) return 0;
    return 1;
}

static int read_raster(picture *p, const uint8_t *data, size_t n, uint64_t most, char why[256]) {
    raster r;
    if (!find_raster(&r, data, n, why)) return 0;
    memcpy(p->dropped, r.dropped, sizeof p->dropped);
    p->width = r.width;
    p->height = r.height;
    p->channels = r.channels;
    if (r.pixel_bytes == 4 && !fourth_is_empty(&r, data))
        return refuse(why, "has transparent pixels, which pictures of grey or RGB cannot hold "
                           "(mbrun compress keeps every file as it is)");
    if (!allocate_pixels(p, most, why)) return 0;
    for (uint32_t y = 0; y < r.height; y++) {
        const uint8_t *from = data + r.offset +
                              (size_t)(r.bottom_up ? r.height - 1 - y : y) * r.row_bytes;
        uint8_t *to = p->pixels + (size_t)y * r.width * r.channels;
        for (size_t x = 0; x < r.width; x++, from += r.pixel_bytes, to += r.channels) {
            const uint8_t *colour = r.palette ? r.palette + *from * (size_t)r.palette_bytes : from;
            if (r.palette && *from >= r.n_palette) return refuse(why, "points outside its palette");
            for (uint32_t c = 0; c < r.channels; c++)
                to[c] = colour[r.is_bgr || r.palette ? r.channels - 1 - c : c];
        }
    }
    return 1;
}

/* ====================================================================================== layouts */

/* A version, flags, four bytes of the length of what comes before the pixels, this, what comes
 * after them. */
enum { LAYOUT_VERSION = 1, BOTTOM_UP = 1, IS_BGR = 2, GAP_SHIFT = 2, FLAGS = 16, LAYOUT_HEAD = 6 };

/* The rows of a file, from its bytes or to them. */
static uint8_t *picture_row(const picture *p, uint32_t y, unsigned flags) {
    return p->pixels + (size_t)(flags & BOTTOM_UP ? p->height - 1 - y : y) * p->width * p->channels;
}

static void copy_row(uint8_t *to, const uint8_t *from, const picture *p, unsigned flags) {
    if (!(flags & IS_BGR)) {
        memcpy(to, from, (size_t)p->width * p->channels);
        return;
    }
    for (size_t x = 0; x < p->width; x++, to += p->channels, from += p->channels)
        for (uint32_t c = 0; c < p->channels; c++) to[c] = from[p->channels - 1 - c];
}

int split_picture_file(picture *p, uint8_t layout[LAYOUT_MOST], size_t *n_layout,
                       const uint8_t *data, size_t n, uint64_t most, char why[256]) {
    raster r;
    memset(p, 0, sizeof *p);
    if (!find_raster(&r, data, n, why)) return 0;
    size_t row = (size_t)r.width * r.channels, gap = r.row_bytes - (size_t)r.width * r.pixel_bytes;
    size_t end = r.offset + r.row_bytes * r.height, after = n - end;
    if (r.pixel_bytes != r.channels || r.palette || gap > 3)
        return refuse(why, "its pixels are not samples of grey or RGB");
    if (r.offset > LAYOUT_MOST - LAYOUT_HEAD || after > LAYOUT_MOST - LAYOUT_HEAD - r.offset)
        return refuse(why, "holds too much beside its pixels");
    for (uint32_t y = 0; y < r.height; y++)
        for (size_t i = 0; i < gap; i++)
            if (data[r.offset + y * r.row_bytes + row + i])
                return refuse(why, "the gaps between its rows are not empty");
    p->width = r.width;
    p->height = r.height;
    p->channels = r.channels;
    p->format = r.format;
    if (!allocate_pixels(p, most, why)) return 0;
    unsigned flags = (r.bottom_up ? BOTTOM_UP : 0u) | (r.is_bgr ? IS_BGR : 0u) |
                     (unsigned)gap << GAP_SHIFT;
    for (uint32_t y = 0; y < r.height; y++)
        copy_row(picture_row(p, y, flags), data + r.offset + y * r.row_bytes, p, flags);
    layout[0] = LAYOUT_VERSION;
    layout[1] = (uint8_t)flags;
    for (int i = 0; i < 4; i++) layout[2 + i] = (uint8_t)(r.offset >> 8 * i);
    memcpy(layout + LAYOUT_HEAD, data, r.offset);
    memcpy(layout + LAYOUT_HEAD + r.offset, data + end, after);
    *n_layout = LAYOUT_HEAD + r.offset + after;
    return 1;
}

uint64_t joined_size(uint32_t width, uint32_t height, uint32_t channels, const uint8_t *layout,
                     size_t n_layout) {
    if (n_layout < LAYOUT_HEAD || layout[0] != LAYOUT_VERSION || layout[1] >= FLAGS ||
        read32(layout + 2) > n_layout - LAYOUT_HEAD)
        return 0;
    return n_layout - LAYOUT_HEAD +
           height * ((uint64_t)width * channels + (layout[1] >> GAP_SHIFT));
}

void join_picture_file(const picture *p, const uint8_t *layout, size_t n_layout, uint8_t *out) {
    const size_t before = read32(layout + 2), gap = layout[1] >> GAP_SHIFT;
    memcpy(out, layout + LAYOUT_HEAD, before);
    out += before;
    for (uint32_t y = 0; y < p->height; y++) {
        copy_row(out, picture_row(p, y, layout[1]), p, layout[1]);
        out += (size_t)p->width * p->channels;
        memset(out, 0, gap);
        out += gap;
    }
    memcpy(out, layout + LAYOUT_HEAD + before, n_layout - LAYOUT_HEAD - before);
}

/* ================================================================================== all of them */

picture_format picture_format_of(const uint8_t *data, size_t n) {
    if (n >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8)) return PICTURE_PNG;
    if (n >= 3 && data[0] == 'P' && strchr("2356", data[1]) && data[1] &&
        (is_space(data[2]) || data[2] == '#'))
        return PICTURE_PNM;
    if (n >= 18 && data[0] == 'B' && data[1] == 'M' && read32(data + 14) < 256) return PICTURE_BMP;
    return PICTURE_UNKNOWN;
}

picture_format picture_format_named(const char *path) {
    static const struct {
        char suffix[8];
        picture_format format;
    } known[] = {{"png", PICTURE_PNG}, {"ppm", PICTURE_PNM}, {"pgm", PICTURE_PNM},
                 {"pnm", PICTURE_PNM}, {"bmp", PICTURE_BMP}, {"dib", PICTURE_BMP}};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < COUNT_OF(known); i++) {
        size_t k = 0;
        while (k < 3 && (dot[1 + k] | 32) == known[i].suffix[k]) k++;
        if (k == 3 && !dot[4]) return known[i].format;
    }
    return PICTURE_UNKNOWN;
}

int read_picture(picture *p, const uint8_t *data, size_t n, uint64_t most, char why[256]) {
    int good;
    memset(p, 0, sizeof *p);
    p->format = picture_format_of(data, n);
    why[0] = 0;
    if (p->format == PICTURE_PNG) good = read_png(p, data, n, most, why);
    else if (p->format == PICTURE_PNM && (data[1] == '2' || data[1] == '3'))
        good = read_plain_pnm(p, data, n, most, why);
    else if (p->format != PICTURE_UNKNOWN) good = read_raster(p, data, n, most, why);
    else good = refuse(why, "is not a PNG, PNM (P2, P3, P5, P6) or BMP");
    if (!good) free_picture(p);
    return good;
}

int write_picture(const picture *p, picture_format format, uint8_t **out, size_t *n,
                  char why[256]) {
    *out = NULL;
    *n = 0;
    if (format == PICTURE_PNG) return write_png(p, out, n, why);
    if (format == PICTURE_BMP && !write_bmp(p, out, n, why)) return 0;
    if (format == PICTURE_PNM) write_pnm(p, out, n);
    return *out != NULL || refuse(why, "not enough memory");
}
