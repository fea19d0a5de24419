/* textmap.h - what each character of a text cost a model, as colours: on a terminal, or as a page.
 * SPDX-License-Identifier: MIT */
#ifndef TEXTMAP_H
#define TEXTMAP_H

#include "mbrun.h"
#include "output.h"

/* A text and the bits of each of its bytes. Begin with zeros. */
typedef struct costs {
    bytes text, bits; /* bits: a float for each byte */
} costs;
void add_costs(costs *c, const uint8_t *text, const float *bits, size_t n);
void free_costs(costs *c);

/* auto: on a terminal, without NO_COLOR. Returns 1 for colours; exits with 2 if `when` (NULL: auto)
 * is none of auto, always, never. */
int wants_colours(const command *self, const char *when);

/* The text, UTF-8 characters coloured whole, and a legend; without colours a line of figures below
 * each line. What would command a terminal is escaped: ^[ <ff> <U+202E>. */
void print_map(FILE *out, const costs *c, int has_colours);

/* The same as one self-contained HTML page, with a bar for each line and the figures on hover.
 * Returns 1, or 0 with the reason in to->why. */
typedef struct page_words {
    const char *name, *model; /* of the text, of the model */
    double bits; /* in total */
} page_words;
int write_page(output *to, const costs *c, const page_words *words);

#endif
