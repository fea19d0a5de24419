/* heatmap.c - see heatmap.h.
 * SPDX-License-Identifier: MIT */

#include "heatmap.h"
#include "common.h"
#include "draw.h"

#include <math.h>
#include <stdlib.h>

enum {
    MARGIN = 12,
    LEGEND = 62, /* its height; twice that below large pictures, ... */
    LARGE = 1000, /* ... from this width on */
    SMALLEST = 256, /* pictures below are drawn larger */
    BINS = 1024, /* of the histogram, and steps of the scale */
    MOST_BITS = 64 /* of a pixel, in the histogram */
};
#define PAPER 0xffffff
#define INK 0x202020

/* From nothing to much: dark blue, violet, red, orange, yellow, nearly white. */
static uint32_t heat_colour(double part) {
    static const uint8_t stops[][3] = {{8, 8, 32},     {62, 18, 110},  {150, 32, 110},
                                       {222, 70, 56},  {248, 150, 26}, {250, 220, 90},
                                       {255, 255, 230}};
    double at = (part < 0 ? 0 : part < 1 ? part : 1) * (COUNT_OF(stops) - 1);
    size_t i = at < COUNT_OF(stops) - 2 ? (size_t)at : COUNT_OF(stops) - 2;
    uint32_t colour = 0;
    for (int c = 0; c < 3; c++) {
        double value = stops[i][c] + (at - (double)i) * (stops[i + 1][c] - stops[i][c]);
        colour = colour << 8 | (uint32_t)(value + 0.5);
    }
    return colour;
}

static double pixel_bits(const picture *p, const float *cost, size_t i) {
    double bits = 0;
    for (uint32_t c = 0; c < p->channels; c++) bits += (double)cost[i * p->channels + c];
    return bits;
}

/* The end of the scale, a round number: 99.5% of the pixels cost less. */
static double choose_end(const picture *p, const float *cost) {
    static const double ends[] = {1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 40, 48};
    const size_t n = (size_t)p->width * p->height;
    size_t count[BINS] = {0}, below = 0, bin = 0;
    for (size_t i = 0; i < n; i++) {
        double at = pixel_bits(p, cost, i) * BINS / MOST_BITS;
        count[at < BINS - 1 ? (size_t)(at > 0 ? at : 0) : BINS - 1]++;
    }
    while (bin < BINS - 1 && (below += count[bin]) < n - n / 200) bin++;
    for (size_t i = 0; i < COUNT_OF(ends); i++)
        if ((double)(bin + 1) * MOST_BITS / BINS <= ends[i]) return ends[i];
    return MOST_BITS;
}

static uint32_t scale_of(uint32_t width, uint32_t height) {
    uint32_t longer = width > height ? width : height;
    return longer < SMALLEST ? SMALLEST / longer : 1;
}

static uint32_t width_of_words(const char *words) {
    uint32_t n = 0;
    while (words[n]) n++;
    return n * GLYPH_WIDTH;
}

static uint32_t canvas_width(uint32_t width, uint32_t scale) {
    uint64_t needed = 2 * (uint64_t)width * scale + 3 * MARGIN;
    return needed > 420 ? (uint32_t)needed : 420; /* the legend's words */
}

static uint32_t legend_scale(uint32_t canvas) { return canvas < LARGE ? 1 : 2; }

uint64_t heatmap_bytes(uint32_t width, uint32_t height) {
    uint32_t scale = scale_of(width, height);
    uint32_t across = canvas_width(width, scale);
    return 3 * (uint64_t)across *
           ((uint64_t)height * scale + 2 * MARGIN + LEGEND * legend_scale(across));
}

static void draw_legend(picture *canvas, uint32_t y, double end, const char *words) {
    const uint32_t width = canvas->width - 2 * MARGIN, scale = legend_scale(canvas->width);
    const uint32_t bar = 12 * scale;
    for (uint32_t x = 0; x < width; x++)
        fill_rectangle(canvas, MARGIN + x, y, 1, bar, heat_colour((x + 0.5) / width));
    for (int i = 0; i <= 4; i++) {
        char number[32];
        uint32_t x = MARGIN + (uint32_t)i * (width - 1) / 4;
        snprintf(number, sizeof number, i == 4 ? "%g+ bits a pixel" : "%g", end * i / 4);
        uint32_t length = width_of_words(number) * scale;
        fill_rectangle(canvas, x, y + bar, 1, 4 * scale, INK);
        put_words(canvas,
                  i == 4 ? x + 1 - length
                  : i    ? x - length / 2
                         : x,
                  y + bar + 7 * scale, number, scale, INK);
    }
    put_words(canvas, MARGIN, y + bar + 28 * scale, words, scale, INK);
}

picture draw_heatmap(const picture *p, const float *cost, uint64_t coded) {
    const uint32_t scale = scale_of(p->width, p->height), width = p->width * scale;
    const double samples = (double)p->width * p->height * p->channels;
    const double end = choose_end(p, cost);
    const uint32_t across = canvas_width(p->width, scale), legend = LEGEND * legend_scale(across);
    picture canvas = new_canvas(across, p->height * scale + 2 * MARGIN + legend, PAPER);
    put_pixels(&canvas, MARGIN, MARGIN, p->pixels, p->width, p->height, p->channels, scale);
    for (uint32_t y = 0; y < p->height; y++)
        for (uint32_t x = 0; x < p->width; x++) {
            double bits = pixel_bits(p, cost, (size_t)y * p->width + x);
            fill_rectangle(&canvas, 2 * MARGIN + width + x * scale, MARGIN + y * scale, scale,
                           scale, heat_colour(bits / end));
        }
    char words[128];
    snprintf(words, sizeof words, "%u x %u: %llu bytes, %.3f bits/byte, %.2f bits a pixel",
             p->width, p->height, (unsigned long long)coded, 8 * (double)coded / samples,
             8 * (double)coded / samples * p->channels);
    draw_legend(&canvas, 2 * MARGIN + p->height * scale, end, words);
    return canvas;
}
