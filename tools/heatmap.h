/* heatmap.h - what each pixel of a picture cost, as a picture.
 * SPDX-License-Identifier: MIT */
#ifndef HEATMAP_H
#define HEATMAP_H

#include "picture.h"

/* The picture, beside it the bits of each pixel as colours, below a scale with numbers and the
 * total. cost: bits of each sample, [height][width][channels]; coded: bytes of the packed file. */
picture draw_heatmap(const picture *p, const float *cost, uint64_t coded);
/* Bytes that its pixels take. */
uint64_t heatmap_bytes(uint32_t width, uint32_t height);

#endif
