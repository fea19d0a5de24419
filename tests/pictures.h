/* pictures.h - the readers and writers of pictures in one translation unit, and PNG files of every
 * kind to feed them with. */
#ifndef TESTS_PICTURES_H
#define TESTS_PICTURES_H

#include "../tools/common.c"
#include "../tools/deflate.c"
#include "../tools/host.c"
#include "../tools/inflate.c"
#include "../tools/picture.c"
#include "../tools/png.c"

const char tool_name[] = "test";

enum { MOST = 1 << 24 }; /* bytes of pixels that these tests allow */

/* What a PNG to be made holds: width * height pixels of `samples` samples each. */
typedef struct plan {
    uint32_t width, height;
    unsigned colour, depth, samples;
    int is_interlaced;
    uint16_t *sample;
    uint8_t palette[256][3];
    unsigned n_palette, n_transparent; /* entries of tRNS: all 255 */
    const char *extra; /* an ancillary chunk; NULL: none */
    size_t piece; /* bytes of an IDAT chunk; 0: all */
} plan;

typedef struct file {
    uint8_t data[1 << 16];
    size_t n;
} file;

static void add_chunk(file *f, const char *type, const void *data, size_t n) {
    if (n) memcpy(f->data + f->n + 8, data, n);
    f->n = (size_t)(put_chunk(f->data + f->n, type, n) - f->data);
}

/* A row of a pass, filtered, after its filter's number. */
static void add_row(uint8_t *to, const uint8_t *row, const uint8_t *above, size_t n, size_t pixel,
                    int filter) {
    to[0] = (uint8_t)filter;
    for (size_t i = 0; i < n; i++) {
        int west = i < pixel ? 0 : row[i - pixel], north = above ? above[i] : 0;
        int north_west = i < pixel || !above ? 0 : above[i - pixel];
        to[1 + i] = (uint8_t)(row[i] - predict(filter, west, north, north_west));
    }
}

/* All rows of all passes, with filters in turn; returns the bytes. */
static size_t make_rows(const plan *p, uint8_t *rows) {
    const png g = {.width = p->width,
                   .height = p->height,
                   .depth = p->depth,
                   .samples = p->samples,
                   .is_interlaced = p->is_interlaced};
    static uint8_t line[2][1 << 12];
    size_t n = 0, pixel = (p->samples * p->depth + 7) / 8;
    int filter = 0;
    for (int i = 0; i < count_passes(&g); i++) {
        pass s = pass_of(&g, i);
        size_t length = row_bytes(&g, s.width);
        for (uint32_t y = 0; y < s.height; y++, filter = (filter + 1) % 5) {
            uint8_t *row = line[y % 2];
            memset(row, 0, length);
            for (size_t x = 0; x < s.width * (size_t)p->samples; x++) {
                size_t column = s.x + x / p->samples * s.dx,
                       at = (s.y + y * s.dy) * (size_t)p->width;
                unsigned v = p->sample[(at + column) * p->samples + x % p->samples];
                size_t bit = x * p->depth;
                if (p->depth == 16) {
                    row[2 * x] = (uint8_t)(v >> 8);
                    row[2 * x + 1] = (uint8_t)v;
                } else {
                    row[bit / 8] = (uint8_t)(row[bit / 8] | v << (8 - p->depth - bit % 8));
                }
            }
            add_row(rows + n, row, y ? line[(y + 1) % 2] : NULL, length, pixel, filter);
            n += 1 + length;
        }
    }
    return n;
}

static void make_png(const plan *p, file *f) {
    static uint8_t rows[1 << 17], coded[1 << 17];
    uint8_t header[13] = {0}, opaque[256];
    memset(opaque, 255, sizeof opaque);
    put32(header, p->width);
    put32(header + 4, p->height);
    header[8] = (uint8_t)p->depth;
    header[9] = (uint8_t)p->colour;
    header[12] = (uint8_t)p->is_interlaced;
    f->n = sizeof signature;
    memcpy(f->data, signature, sizeof signature);
    add_chunk(f, "IHDR", header, 13);
    if (p->n_palette) add_chunk(f, "PLTE", p->palette, 3 * p->n_palette);
    if (p->n_transparent) add_chunk(f, "tRNS", opaque, p->n_transparent);
    if (p->extra) add_chunk(f, p->extra, "nothing", 7);
    size_t n = deflate_zlib(coded, rows, make_rows(p, rows));
    for (size_t at = 0, part; at < n; at += part) {
        part = p->piece && p->piece < n - at ? p->piece : n - at;
        add_chunk(f, "IDAT", coded + at, part);
    }
    add_chunk(f, "IEND", NULL, 0);
}

/* The n-th kind of PNG: all colour types and depths, plain and interlaced. 0 past the last. */
static int kind_of_png(plan *p, unsigned n) {
    static const uint8_t kinds[][3] = {{0, 1, 1}, {0, 2, 1},  {0, 4, 1},  {0, 8, 1}, {0, 16, 1},
                                       {2, 8, 3}, {2, 16, 3}, {3, 1, 1},  {3, 2, 1}, {3, 4, 1},
                                       {3, 8, 1}, {4, 8, 2},  {4, 16, 2}, {6, 8, 4}, {6, 16, 4}};
    if (n >= 2 * COUNT_OF(kinds)) return 0;
    const uint8_t *kind = kinds[n / 2];
    *p = (plan){.colour = kind[0], .depth = kind[1], .samples = kind[2], .is_interlaced = n & 1};
    return 1;
}

#endif
