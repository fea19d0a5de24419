/* draw.h - a canvas of RGB pixels: pictures put on it, rectangles, words in a small font.
 * SPDX-License-Identifier: MIT */
#ifndef DRAW_H
#define DRAW_H

#include "picture.h"

enum { GLYPH_WIDTH = 6, GLYPH_HEIGHT = 7 }; /* of the font, with the space after a letter */

/* All of one colour, 0xRRGGBB; dies without memory. free_picture */
picture new_canvas(uint32_t width, uint32_t height, uint32_t colour);
/* What lies outside the canvas is not drawn. */
void fill_rectangle(picture *canvas, uint32_t x, uint32_t y, uint32_t width, uint32_t height,
                    uint32_t colour);
/* Pixels [height][width][channels], each as a square of `scale` x `scale`. */
void put_pixels(picture *canvas, uint32_t x, uint32_t y, const uint8_t *pixels, uint32_t width,
                uint32_t height, uint32_t channels, uint32_t scale);
/* Capitals, digits and . , : / % + - ( ); small letters become capitals. */
void put_words(picture *canvas, uint32_t x, uint32_t y, const char *words, uint32_t scale,
               uint32_t colour);

#endif
