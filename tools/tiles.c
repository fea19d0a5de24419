/* tiles.c - mbrun generate with an image model: tiles as a contact sheet, and pictures completed.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "draw.h"
#include "mbrun.h"
#include "output.h"

#include <stdlib.h>
#include <string.h>

enum {
    TOGETHER = 64, /* streams stepped together at most: more hardly gain */
    GAP = 2 /* pixels between the pictures of a sheet */
};

typedef struct sheet {
    const session *s;
    const tile_options *o;
    megabyte_image_info f;
    picture given; /* pixels NULL: nothing */
    uint32_t width, height; /* of each picture: whole tiles */
    uint32_t tiles; /* of each picture */
    uint8_t *pixels; /* [n][height][width][channels] */
    progress bar;
    uint64_t done, expected; /* bytes to be written by the model */
    uint64_t tiles_done, tiles_expected;
} sheet;

/* One tile on its way. */
typedef struct tile {
    megabyte_stream *stream;
    megabyte_sampling how;
    uint8_t *pixels; /* where it lies in its picture */
    uint8_t *ids, *is_given; /* [tile_bytes] in the model's order */
    uint32_t at;
} tile;

static size_t row_bytes(const sheet *g) { return (size_t)g->width * g->f.channels; }

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* How much of a tile's width (or height) is given. */
static uint32_t given_of(uint32_t given, uint32_t begin, uint32_t length) {
    return given > begin ? least(given - begin, length) : 0;
}

/* Number `i` of all: its place, what is given of it, its generator. 0: it is complete. */
static int begin_tile(const sheet *g, uint64_t i, tile *t) {
    const megabyte_image_info *f = &g->f;
    uint32_t in_row = g->width / f->tile_width, of_picture = (uint32_t)(i % g->tiles);
    uint32_t x = of_picture % in_row * f->tile_width, y = of_picture / in_row * f->tile_height;
    uint32_t w = given_of(g->given.width, x, f->tile_width),
             h = given_of(g->given.height, y, f->tile_height);
    if (w == f->tile_width && h == f->tile_height) return 0;
    t->pixels = g->pixels + (i / g->tiles * g->height + y) * row_bytes(g) + x * f->channels;
    t->how = g->o->how;
    t->how.seed += i;
    t->at = 0;
    megabyte_image_scan(f, t->pixels, row_bytes(g), t->ids);
    memset(t->is_given, 0, f->tile_bytes);
    for (uint32_t row = 0; row < h; row++)
        for (uint32_t column = 0; column < w; column++)
            memset(t->is_given + megabyte_image_index(f, column, row), 1, f->channels);
    megabyte_stream_reset(t->stream);
    return 1;
}

/* What is given at the beginning of the order is read in one go. */
static megabyte_status feed_given(const sheet *g, tile *t, size_t n) {
    megabyte_stream *streams[TOGETHER];
    const uint8_t *byte[TOGETHER];
    size_t lengths[TOGETHER];
    for (size_t i = 0; i < n; i++) {
        while (t[i].at < g->f.tile_bytes && t[i].is_given[t[i].at]) t[i].at++;
        streams[i] = t[i].stream;
        byte[i] = t[i].ids;
        lengths[i] = t[i].at;
    }
    return megabyte_stream_feed_batch(streams, byte, lengths, n);
}

/* One more byte of every tile that is not complete. Returns how many there are. */
static size_t step_tiles(sheet *g, tile *t, size_t n, megabyte_status *status) {
    megabyte_stream *streams[TOGETHER];
    uint8_t byte[TOGETHER];
    size_t active = 0;
    for (size_t i = 0; i < n; i++) {
        if (t[i].at == g->f.tile_bytes) continue;
        uint8_t *id = &t[i].ids[t[i].at];
        if (!t[i].is_given[t[i].at++]) {
            *id = 0; /* stays if the model would rather end here */
            *status = megabyte_stream_sample(t[i].stream, &t[i].how, id);
            if (*status < 0) return 0;
            g->done++;
        }
        if (t[i].at == g->f.tile_bytes) {
            megabyte_image_unscan(&g->f, t[i].ids, t[i].pixels, row_bytes(g));
            g->tiles_done++;
        }
        streams[active] = t[i].stream;
        byte[active++] = *id;
    }
    *status = megabyte_stream_step_batch(streams, byte, active);
    return active;
}

static void make_group(sheet *g, tile *t, size_t n) {
    char note[48];
    megabyte_status status = feed_given(g, t, n);
    while (!status && !stop_requested() && step_tiles(g, t, n, &status)) {
        snprintf(note, sizeof note, "%llu of %llu tiles", (unsigned long long)g->tiles_done,
                 (unsigned long long)g->tiles_expected);
        show_progress(&g->bar, g->done, g->expected, note, g->o->output);
    }
    if (status < 0) die("generate", "%s", megabyte_status_string(status));
}

/* How many streams run together: as memory allows. */
static size_t group_size(const sheet *g) {
    const megabyte_stream_options options = {.engine = g->s->engine};
    uint64_t n = g->tiles_expected < TOGETHER ? g->tiles_expected : TOGETHER;
    size_t size;
    char why[256];
    if (megabyte_stream_size(g->s->model, &options, &size)) return 1;
    while (n > 1 && n * size > (g->s->memory - g->s->loaded) / 2) n--;
    uint64_t needed = n * size + 2 * g->o->n * g->height * row_bytes(g);
    if (!memory_suffices(g->s, "this sheet", needed, why)) die(g->o->output, "%s", why);
    if (g->o->verbose)
        note(g->o->output, "%llu streams together, %.1f MB of memory", (unsigned long long)n,
             1e-6 * (double)needed);
    return (size_t)n;
}

static void make_tiles(sheet *g) {
    const size_t most = group_size(g);
    tile t[TOGETHER];
    for (size_t i = 0; i < most; i++) {
        t[i].stream = new_stream(g->s, 0, NULL);
        t[i].ids = allocate(g->f.tile_bytes, 2);
        t[i].is_given = t[i].ids + g->f.tile_bytes;
    }
    g->bar.start = now();
    size_t n = 0;
    for (uint64_t i = 0; i < g->o->n * g->tiles && !stop_requested(); i++) {
        n += (size_t)begin_tile(g, i, &t[n]);
        if (n < most) continue;
        make_group(g, t, n);
        n = 0;
    }
    if (n && !stop_requested()) make_group(g, t, n);
    end_progress(&g->bar);
    for (size_t i = 0; i < most; i++) {
        megabyte_stream_free(t[i].stream);
        free(t[i].ids);
    }
}

/* ---- what is given */

static void read_given(sheet *g) {
    bytes file = {0};
    char why[256];
    const char *path = g->o->given;
    read_file(path, &file);
    if (!file.n) die(path, "is empty");
    if (!read_picture(&g->given, file.data, file.n, g->s->memory / 16, why)) die(path, "%s", why);
    free(file.data);
    if (*g->given.dropped) note(path, "only its pixels are read, not its %s", g->given.dropped);
    if (g->given.channels > g->f.channels) die(path, "is in colour, and the model knows grey only");
}

/* The given pixels lie at the top left of every picture. */
static void put_given(sheet *g) {
    const picture *p = &g->given;
    for (uint64_t i = 0; i < g->o->n; i++)
        for (uint32_t y = 0; y < p->height; y++) {
            uint8_t *to = g->pixels + (i * g->height + y) * row_bytes(g);
            const uint8_t *from = p->pixels + (size_t)y * p->width * p->channels;
            for (size_t k = 0; k < (size_t)p->width * g->f.channels; k++)
                to[k] = p->channels == g->f.channels ? from[k] : from[k / g->f.channels];
        }
}

static void plan_sheet(sheet *g) {
    const megabyte_image_info *f = &g->f;
    g->width = f->tile_width;
    g->height = f->tile_height;
    if (g->o->given) {
        read_given(g);
        g->width *= (g->given.width - 1) / f->tile_width + 1;
        g->height *= (g->given.height - 1) / f->tile_height + 1;
    }
    uint64_t picture_bytes = g->height * (uint64_t)row_bytes(g);
    if (picture_bytes > g->s->memory / 4 / g->o->n)
        die(g->o->output, "%llu pictures of %u x %u need more memory than there is",
            (unsigned long long)g->o->n, g->width, g->height);
    g->tiles = (uint32_t)(picture_bytes / f->tile_bytes);
    g->pixels = allocate(picture_bytes, (size_t)g->o->n);
    if (g->o->given) put_given(g);
    for (uint32_t i = 0; i < g->tiles; i++) {
        uint32_t in_row = g->width / f->tile_width;
        uint32_t w = given_of(g->given.width, i % in_row * f->tile_width, f->tile_width),
                 h = given_of(g->given.height, i / in_row * f->tile_height, f->tile_height);
        uint32_t missing = f->tile_bytes - w * h * f->channels;
        g->expected += g->o->n * missing;
        g->tiles_expected += missing ? g->o->n : 0;
    }
    if (!g->expected)
        die(g->o->given,
            "fills its tiles of %u x %u pixels: nothing is missing; cut off what is to "
            "be completed",
            f->tile_width, f->tile_height);
}

/* ---- the sheet */

static picture lay_out(const sheet *g) {
    const uint32_t n = (uint32_t)g->o->n;
    uint32_t columns = 1;
    while (columns < n && (n < 4 || columns * columns < n)) columns++;
    uint32_t rows = (n - 1) / columns + 1, gap = n > 1 ? GAP : 0;
    if ((uint64_t)columns * (g->width + gap) > INT32_MAX / 4 ||
        (uint64_t)rows * (g->height + gap) > INT32_MAX / 4)
        die(g->o->output, "such a sheet is too large for one picture");
    picture canvas = new_canvas(columns * (g->width + gap) + gap, rows * (g->height + gap) + gap,
                                0xffffff);
    for (uint32_t i = 0; i < n; i++)
        put_pixels(&canvas, gap + i % columns * (g->width + gap),
                   gap + i / columns * (g->height + gap),
                   g->pixels + (size_t)i * g->height * row_bytes(g), g->width, g->height,
                   g->f.channels, 1);
    return canvas;
}

/* Returns 1, or 0 after a message. */
static int write_sheet(const sheet *g, output *to) {
    char why[256];
    uint8_t *out;
    size_t n;
    picture canvas = lay_out(g);
    picture_format format = picture_format_named(g->o->output);
    int good = write_picture(&canvas, format ? format : PICTURE_PNG, &out, &n, why);
    free_picture(&canvas);
    if (!good) return complain(g->o->output, "%s", why);
    good = write_output(to, out, n);
    free(out);
    if (to->file == STDOUT_FILENO) return good || (output_failed(), 0);
    good = finish_output(to, good, NULL);
    if (good || (!*to->why && stop_requested())) return good;
    return complain(to->path, "%s", to->why);
}

static void report(const sheet *g, double seconds) {
    const double n = (double)g->expected;
    if (g->o->json) {
        printf("{\"model\": ");
        json_text(stdout, g->s->path, strlen(g->s->path));
        printf(", \"output\": ");
        json_text(stdout, g->o->output, strlen(g->o->output));
        printf(", \"pictures\": %llu, \"width\": %u, \"height\": %u, \"tiles\": %llu",
               (unsigned long long)g->o->n, g->width, g->height,
               (unsigned long long)g->tiles_expected);
        json_field("bytes", n);
        json_field("seconds", seconds);
        json_field("bytes_per_second", n / seconds);
        json_field("seed", (double)g->o->how.seed);
        puts("}");
    }
    if (g->o->verbose)
        fprintf(stderr, "%llu tiles, %.0f bytes in %.2f s: %.0f bytes/s\n",
                (unsigned long long)g->tiles_expected, n, seconds, n / seconds);
}

int generate_tiles(const session *s, const tile_options *o) {
    sheet g = {.s = s, .o = o};
    output to = {.file = STDOUT_FILENO};
    struct stat given;
    if (megabyte_image_describe(s->model, &g.f, NULL)) die(s->path, "is not an image model");
    int n_inputs = o->given && !stat(o->given, &given);
    if (strcmp(o->output, "-") &&
        (!name_output(&to, o->output, o->force, 1, &given, (size_t)n_inputs) ||
         !create_output(&to)))
        die(o->output, "%s", to.why);
    plan_sheet(&g);
    make_tiles(&g);
    double seconds = now() - g.bar.start;
    int good = !stop_requested() && write_sheet(&g, &to);
    if (to.temporary) finish_output(&to, 0, NULL); /* nothing was written */
    if (good) report(&g, seconds);
    free_output(&to);
    free_picture(&g.given);
    free(g.pixels);
    return stop_requested() ? stop_requested() : !good;
}
