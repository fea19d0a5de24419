/* png.c - reads every PNG (ISO/IEC 15948) that 8 bits a sample without alpha can hold, and writes
 * 8-bit grey and RGB: see picture.h.
 * SPDX-License-Identifier: MIT */

#include "common.h"
#include "deflate.h"
#include "picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
enum { GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGB_ALPHA = 6 };

static uint32_t get32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t value) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(value >> (24 - 8 * i));
}

static uint32_t crc32(const uint8_t *data, size_t n) {
    uint32_t table[256], crc = UINT32_MAX;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++) table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
    for (size_t i = 0; i < n; i++) crc = crc >> 8 ^ table[(crc ^ data[i]) & 255];
    return ~crc;
}

typedef struct png {
    uint32_t width, height;
    unsigned depth, colour, samples; /* samples: of a pixel, in the file */
    int is_interlaced, has_header, has_key;
    uint8_t palette[256][3], alpha[256];
    unsigned n_palette;
    unsigned key[3]; /* the one transparent colour */
    uint8_t *coded; /* the zlib stream, in one piece */
    size_t n_coded;
    uint8_t *rows; /* inflated: each row begins with its filter */
    char *dropped;
} png;

/* ---- chunks */

static int read_header(png *g, const uint8_t *p, size_t n, char why[256]) {
    static const uint8_t samples[7] = {1, 0, 3, 1, 2, 0, 4};
    static const uint8_t depths[7] = {
        1 | 2 | 4 | 8 | 16, 0, 8 | 16, 1 | 2 | 4 | 8, 8 | 16, 0, 8 | 16};
    if (n != 13) return refuse(why, "its IHDR chunk has a wrong length");
    g->width = get32(p);
    g->height = get32(p + 4);
    g->depth = p[8];
    g->colour = p[9];
    if (!g->width || !g->height || g->width > INT32_MAX || g->height > INT32_MAX)
        return refuse(why, "its width or height is not within 1 to 2^31 - 1");
    if (g->colour > 6 || !(depths[g->colour] & g->depth) || (g->depth & (g->depth - 1)))
        return refuse(why, "its colour type and bit depth are none of PNG");
    if (p[10] || p[11] || p[12] > 1)
        return refuse(why, "uses a compression, filter or interlace method that PNG has not");
    g->samples = samples[g->colour];
    g->is_interlaced = p[12];
    g->has_header = 1;
    return 1;
}

static int read_palette(png *g, const uint8_t *p, size_t n, char why[256]) {
    if (g->n_palette || !n || n % 3 || n > sizeof g->palette || g->colour == GREY ||
        g->colour == GREY_ALPHA || (g->colour == PALETTE && n / 3 > 1u << g->depth))
        return refuse(why, "its PLTE chunk is wrong");
    memcpy(g->palette, p, n);
    g->n_palette = (unsigned)(n / 3);
    if (g->colour != PALETTE) drop_from_picture(g->dropped, "PLTE"); /* only a suggestion */
    return 1;
}

static int read_transparency(png *g, const uint8_t *p, size_t n, char why[256]) {
    drop_from_picture(g->dropped, "tRNS");
    if (g->colour == PALETTE && g->n_palette && n <= g->n_palette) {
        memcpy(g->alpha, p, n);
    } else if ((g->colour == GREY || g->colour == RGB) && n == 2 * g->samples) {
        for (unsigned i = 0; i < g->samples; i++)
            g->key[i] = (unsigned)p[2 * i] << 8 | p[2 * i + 1];
        g->has_key = 1;
    } else {
        return refuse(why, "its tRNS chunk is wrong");
    }
    return 1;
}

static int is_type(const uint8_t *type, const char *name) { return !memcmp(type, name, 4); }

/* A chunk behind IHDR and not IEND. *data_state: 0 before the first IDAT, 1 among them, 2 after. */
static int read_chunk(png *g, const uint8_t *type, const uint8_t *p, size_t n, int *data_state,
                      char why[256]) {
    char name[5] = {0};
    memcpy(name, type, 4);
    if (is_type(type, "IDAT")) {
        if (*data_state == 2) return refuse(why, "its IDAT chunks are not together");
        *data_state = 1;
        if (n) memcpy(g->coded + g->n_coded, p, n);
        g->n_coded += n;
        return 1;
    }
    if (*data_state == 1) *data_state = 2;
    int is_early = *data_state == 0;
    if (is_type(type, "PLTE"))
        return is_early ? read_palette(g, p, n, why) : refuse(why, "its PLTE chunk comes too late");
    if (is_type(type, "tRNS"))
        return is_early ? read_transparency(g, p, n, why)
                        : refuse(why, "its tRNS chunk comes too late");
    if (type[0] & 32) { /* ancillary */
        drop_from_picture(g->dropped, name);
        return 1;
    }
    snprintf(why, 256, "holds a critical chunk %s, which is unknown here", name);
    return 0;
}

static int is_letter(uint8_t c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }

static int read_chunks(png *g, const uint8_t *data, size_t n, char why[256]) {
    size_t at = sizeof signature;
    for (int data_state = 0;;) {
        if (n - at < 12) return refuse(why, "ends too early: it has no IEND chunk");
        const uint8_t *type = data + at + 4, *body = data + at + 8;
        uint32_t length = get32(data + at);
        for (int i = 0; i < 4; i++)
            if (!is_letter(type[i])) return refuse(why, "is damaged: a chunk has no name");
        if (length > n - at - 12) {
            snprintf(why, 256, "ends too early: in its %.4s chunk", (const char *)type);
            return 0;
        }
        if (crc32(type, 4 + (size_t)length) != get32(body + length)) {
            snprintf(why, 256, "is damaged: the checksum of its %.4s chunk is wrong",
                     (const char *)type);
            return 0;
        }
        at += 12 + (size_t)length;
        if (is_type(type, "IHDR") == g->has_header)
            return refuse(why, "its IHDR chunk is not the first and only one");
        if (is_type(type, "IEND")) {
            if (length) return refuse(why, "its IEND chunk has a wrong length");
            if (at < n) drop_from_picture(g->dropped, "data after its end");
            return 1;
        }
        if (!(g->has_header ? read_chunk(g, type, body, length, &data_state, why)
                            : read_header(g, body, length, why)))
            return 0;
    }
}

/* ---- rows */

static size_t row_bytes(const png *g, uint32_t width) {
    return (size_t)(((uint64_t)width * g->samples * g->depth + 7) / 8);
}

/* The sub-picture of a pass: Adam7's, or the whole as pass 0. */
typedef struct pass {
    uint32_t x, y, dx, dy, width, height;
} pass;

static pass pass_of(const png *g, int i) {
    static const uint8_t x[7] = {0, 4, 0, 2, 0, 1, 0}, y[7] = {0, 0, 4, 0, 2, 0, 1},
                         dx[7] = {8, 8, 4, 4, 2, 2, 1}, dy[7] = {8, 8, 8, 4, 4, 2, 2};
    pass p = {0, 0, 1, 1, 0, 0};
    if (g->is_interlaced) p = (pass){x[i], y[i], dx[i], dy[i], 0, 0};
    if (g->width > p.x) p.width = (g->width - p.x - 1) / p.dx + 1;
    if (g->height > p.y) p.height = (g->height - p.y - 1) / p.dy + 1;
    if (!p.width || !p.height) p.width = p.height = 0;
    return p;
}

static int count_passes(const png *g) { return g->is_interlaced ? 7 : 1; }

static int predict_paeth(int west, int north, int north_west) {
    int p = west + north - north_west;
    int a = abs(p - west), b = abs(p - north), c = abs(p - north_west);
    return a <= b && a <= c ? west : b <= c ? north : north_west;
}

/* What `filter` adds to a byte, from the bytes beside it. */
static int predict(int filter, int west, int north, int north_west) {
    switch (filter) {
    case 1: return west;
    case 2: return north;
    case 3: return (west + north) / 2;
    case 4: return predict_paeth(west, north, north_west);
    default: return 0;
    }
}

/* row[n] behind its filter; above: the row before (filtered no more), NULL: zeros. */
static int unfilter(uint8_t *row, const uint8_t *above, size_t n, size_t pixel, int filter) {
    if (filter > 4) return 0;
    for (size_t i = 0; i < n && filter; i++) {
        int west = i < pixel ? 0 : row[i - pixel], north = above ? above[i] : 0;
        int north_west = i < pixel || !above ? 0 : above[i - pixel];
        row[i] = (uint8_t)(row[i] + predict(filter, west, north, north_west));
    }
    return 1;
}

/* ---- pixels */

static unsigned sample_at(const png *g, const uint8_t *row, size_t i) {
    if (g->depth == 16) return (unsigned)row[2 * i] << 8 | row[2 * i + 1];
    if (g->depth == 8) return row[i];
    size_t bit = i * g->depth;
    return row[bit / 8] >> (8 - g->depth - bit % 8) & ((1u << g->depth) - 1);
}

static const char is_transparent[] =
    "has transparent pixels, which pictures of grey or RGB cannot hold (mbrun compress keeps every "
    "file as it is)";
static const char is_deep[] =
    "has more than 8 bits a sample, which the model cannot hold (mbrun compress keeps every file "
    "as it is)";

/* One pixel of a row to out[p->channels]; NULL, or why not. */
static const char *read_pixel(const png *g, const uint8_t *row, size_t x, uint8_t *out) {
    static const uint8_t scale[9] = {0, 255, 85, 0, 17, 0, 0, 0, 1};
    unsigned v[4], n_colours = g->samples - (g->colour & 4 ? 1 : 0), is_key = g->has_key != 0;
    for (unsigned i = 0; i < g->samples; i++) v[i] = sample_at(g, row, x * g->samples + i);
    if (g->colour == PALETTE) {
        if (v[0] >= g->n_palette) return "points outside its palette";
        if (g->alpha[v[0]] != 255) return is_transparent;
        memcpy(out, g->palette[v[0]], 3);
        return NULL;
    }
    for (unsigned i = 0; i < n_colours; i++) is_key &= v[i] == g->key[i];
    if (is_key || (n_colours < g->samples && v[n_colours] != (g->depth == 16 ? 65535u : 255u)))
        return is_transparent;
    for (unsigned i = 0; i < n_colours; i++) {
        if (g->depth == 16 && v[i] >> 8 != (v[i] & 255)) return is_deep;
        out[i] = (uint8_t)(g->depth == 16 ? v[i] & 255 : v[i] * scale[g->depth]);
    }
    return NULL;
}

static int read_rows(const png *g, picture *p, char why[256]) {
    uint8_t *row = g->rows;
    size_t pixel = (g->samples * g->depth + 7) / 8;
    for (int i = 0; i < count_passes(g); i++) {
        pass s = pass_of(g, i);
        size_t length = row_bytes(g, s.width);
        for (uint32_t y = 0; y < s.height; y++, row += 1 + length) {
            if (!unfilter(row + 1, y ? row - length : NULL, length, pixel, row[0]))
                return refuse(why, "is damaged: a row has a filter that PNG has not");
            uint8_t *to = p->pixels + (size_t)(s.y + y * s.dy) * p->width * p->channels;
            for (uint32_t x = 0; x < s.width; x++) {
                const char *fault = read_pixel(g, row + 1, x,
                                               to + (size_t)(s.x + x * s.dx) * p->channels);
                if (fault) return refuse(why, fault);
            }
        }
    }
    return 1;
}

/* With all chunks read. What the header claims costs memory only if the data can hold it. */
static int decode_pixels(png *g, picture *p, uint64_t most, char why[256]) {
    uint64_t size = 0;
    if (g->colour == PALETTE && !g->n_palette) return refuse(why, "has no palette");
    p->width = g->width;
    p->height = g->height;
    p->channels = g->colour & 2 ? 3 : 1;
    uint64_t rows_most = (uint64_t)g->n_coded * INFLATE_MOST;
    if ((uint64_t)g->width * g->height > rows_most * 8)
        return refuse(why, "claims more pixels than its data can hold");
    for (int i = 0; i < count_passes(g); i++) {
        pass s = pass_of(g, i);
        size += s.height * (1 + (uint64_t)row_bytes(g, s.width));
    }
    if (size > rows_most || size > SIZE_MAX / 2)
        return refuse(why, "claims more pixels than its data can hold");
    if (!allocate_pixels(p, most, why)) return 0;
    g->rows = malloc((size_t)size);
    if (!g->rows) return refuse(why, "not enough memory");
    const char *fault = inflate_zlib(g->rows, (size_t)size, g->coded, g->n_coded);
    if (fault) return refuse(why, fault);
    return read_rows(g, p, why);
}

int read_png(picture *p, const uint8_t *data, size_t n, uint64_t most, char why[256]) {
    png g = {.dropped = p->dropped};
    memset(g.alpha, 255, sizeof g.alpha);
    if (n < sizeof signature || memcmp(data, signature, sizeof signature))
        return refuse(why, "is not a PNG");
    g.coded = malloc(n);
    if (!g.coded) return refuse(why, "not enough memory");
    int good = read_chunks(&g, data, n, why) && decode_pixels(&g, p, most, why);
    free(g.coded);
    free(g.rows);
    return good;
}

/* ---- writing */

/* Filters a row into out[1 + n] in the way that leaves the smallest differences. */
static void filter_row(uint8_t *out, const uint8_t *row, const uint8_t *above, size_t n,
                       size_t pixel) {
    uint64_t best = UINT64_MAX;
    int chosen = 0;
    for (int turn = 0, filter = 0; turn < 6; filter = ++turn < 5 ? turn : chosen) {
        uint64_t sum = 0;
        if (turn == 5) out[0] = (uint8_t)filter;
        for (size_t i = 0; i < n; i++) {
            int west = i < pixel ? 0 : row[i - pixel], north = above ? above[i] : 0;
            int north_west = i < pixel || !above ? 0 : above[i - pixel];
            uint8_t left = (uint8_t)(row[i] - predict(filter, west, north, north_west));
            sum += left < 128 ? left : 256u - left;
            if (turn == 5) out[1 + i] = left;
        }
        if (sum < best) {
            best = sum;
            chosen = filter;
        }
    }
}

static uint8_t *put_chunk(uint8_t *to, const char *type, size_t n) { /* its data lie at to + 8 */
    put32(to, (uint32_t)n);
    memcpy(to + 4, type, 4);
    put32(to + 8 + n, crc32(to + 4, 4 + n));
    return to + 12 + n;
}

int write_png(const picture *p, uint8_t **out, size_t *n, char why[256]) {
    size_t length = (size_t)p->width * p->channels;
    uint64_t size = (uint64_t)p->height * (1 + (uint64_t)length);
    if (size > INT32_MAX / 2) return refuse(why, "too large for one PNG chunk (1 GB)");
    uint8_t *rows = malloc((size_t)size), *to = malloc(57 + deflate_bound((size_t)size));
    *out = to;
    for (uint32_t y = 0; y < p->height && rows && to; y++) {
        const uint8_t *row = p->pixels + y * length;
        filter_row(rows + y * (1 + length), row, y ? row - length : NULL, length, p->channels);
    }
    if (rows && to) {
        memcpy(to, signature, sizeof signature);
        to += sizeof signature;
        memset(to + 8, 0, 13);
        put32(to + 8, p->width);
        put32(to + 12, p->height);
        to[16] = 8;
        to[17] = p->channels == 3 ? RGB : GREY;
        to = put_chunk(to, "IHDR", 13);
        size_t coded = deflate_zlib(to + 8, rows, (size_t)size);
        to = coded ? put_chunk(put_chunk(to, "IDAT", coded), "IEND", 0) : NULL;
    }
    int good = rows && to;
    *n = good ? (size_t)(to - *out) : 0;
    free(rows);
    if (good) return 1;
    free(*out);
    *out = NULL;
    return refuse(why, "not enough memory");
}
