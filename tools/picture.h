/* picture.h - pictures as pixels: PNG, PNM (PGM, PPM) and BMP, read from memory and written to it.
 * SPDX-License-Identifier: MIT
 *
 * What cannot be held in 8 bits a sample without alpha is refused. Functions that return int return
 * 1, or 0 with the reason in `why`; the input may come from strangers. */
#ifndef PICTURE_H
#define PICTURE_H

#include <stddef.h>
#include <stdint.h>

typedef enum picture_format {
    PICTURE_UNKNOWN,
    PICTURE_PNG,
    PICTURE_PNM, /* grey: P5 (PGM), colour: P6 (PPM); P2 and P3 are read, too */
    PICTURE_BMP
} picture_format;

typedef struct picture {
    uint32_t width, height, channels; /* 1: grey; 3: red, green, blue */
    uint8_t *pixels; /* [height][width][channels], from malloc */
    picture_format format; /* of the file that it was read from */
    char dropped[160]; /* what that file holds beside the pixels: "gAMA, tEXt", or "" */
} picture;

/* Where a file's pixels lie as they are, row by row: binary PNM, and BMP of 8 bits of grey, 24 or
 * 32 bits. */
typedef struct raster {
    uint32_t width, height, channels; /* as in picture */
    uint32_t pixel_bytes; /* 1, 3 or 4; those past `channels` are no picture */
    size_t offset, row_bytes; /* of the first row; from row to row, padding included */
    int bottom_up; /* the last row comes first */
    int is_bgr;
    const uint8_t *palette; /* NULL, or what the pixels point into: */
    uint32_t n_palette, palette_bytes; /* so many entries of 3 or 4 bytes, blue, green, red */
    picture_format format;
    char dropped[160];
} raster;

/* By the first bytes; PICTURE_UNKNOWN: none of these. */
picture_format picture_format_of(const uint8_t *data, size_t n);
/* By the suffix of a name. */
picture_format picture_format_named(const char *path);

/* Reads the picture of a whole file. It is refused if its pixels take more than `most` bytes. */
int read_picture(picture *p, const uint8_t *data, size_t n, uint64_t most, char why[256]);
/* The same, but only for files whose pixels lie in them as they are. */
int find_raster(raster *r, const uint8_t *data, size_t n, char why[256]);
void free_picture(picture *p);

/* *out comes from malloc. */
int write_picture(const picture *p, picture_format format, uint8_t **out, size_t *n, char why[256]);

/* A file whose pixels lie in it as they are, as its picture and a layout: what lies before the
 * pixels and after them, the order of rows and colours. Both together give the file back, byte for
 * byte.
 *   layout     receives *n_layout bytes
 *   Returns 0 with the reason in `why` where that cannot be: a palette in colour, four bytes a
 *   pixel, gaps that are not zeros, too much around the pixels. */
#define LAYOUT_MOST 32768
int split_picture_file(picture *p, uint8_t layout[LAYOUT_MOST], size_t *n_layout,
                       const uint8_t *data, size_t n, uint64_t most, char why[256]);
/* Bytes of the file that they give; 0: the layout is damaged. */
uint64_t joined_size(uint32_t width, uint32_t height, uint32_t channels, const uint8_t *layout,
                     size_t n_layout);
/* out[joined_size] */
void join_picture_file(const picture *p, const uint8_t *layout, size_t n_layout, uint8_t *out);

/* ---- shared by picture.c and png.c */

/* Adds a name to `dropped`, once. */
void drop_from_picture(char dropped[160], const char *name);
/* Allocates the pixels of what width, height and channels say. */
int allocate_pixels(picture *p, uint64_t most, char why[256]);
int read_png(picture *p, const uint8_t *data, size_t n, uint64_t most, char why[256]);
int write_png(const picture *p, uint8_t **out, size_t *n, char why[256]);

#endif
