/* test_image.c - pictures: what metadata say of an image model, scans against their definition,
 * .mbi files there and back in every way, damaged, forged, cut off, and some pinned for ever; these
 * alone: test_image pinned. */
#define _POSIX_C_SOURCE 200809L
#define MEGABYTE_KEEP_OPTIONS
#include "../megabyte.c"
#include "random_model.h"
#include "test.h"

/* --------------------------------------------------------------------------------- image models */

/* Random weights: what they predict is of no account. */
struct kind {
    const char *name, *tile, *patch, *channels, *colour, *scan;
    u32 patches, bytes; /* the model's */
};
static const struct kind kinds[] = {
    {"RGB", "8x8", "2x2", "3", "green-difference", "patch", 16, 12},
    {"grey, raster", "12x4", "4x1", "1", "none", "raster", 12, 4},
    {"grey, 4x4", "8x8", "4x4", "1", "none", "patch", 4, 16},
    {"RGB as it is", "6x4", "3x2", "3", "none", "patch", 4, 18},
};
enum { RGB, RASTER, GREY4, PLAIN_RGB, N_KINDS = COUNT_OF(kinds) };

static u8 *make_model(const struct kind *k, u64 seed, size_t *size) {
    const char *texts[] = {"image.tile",     k->tile,     "image.patch",  k->patch,
                           "image.channels", k->channels, "image.colour", k->colour,
                           "image.scan",     k->scan};
    struct sizes z = random_sizes(k->patches, k->bytes, 16, 1, 2, 8, 16, 1, 2, 8);
    megabyte_error error;
    u8 *file = random_model_with(&z, seed, texts, 5, size, &error);
    CHECK(file, "%s", error.text);
    return file;
}

struct setting {
    u8 *file;
    size_t size;
    megabyte_model *model;
    megabyte_image_info info;
};
static struct setting of[N_KINDS];

static void set_up(void) {
    (void)random_history; /* of the header, not needed here */
    for (u32 i = 0; i < N_KINDS; i++) {
        struct setting *s = &of[i];
        s->file = make_model(&kinds[i], 5 + i, &s->size);
        OK(megabyte_model_open_memory(&s->model, s->file, s->size, NULL, NULL));
        OK(megabyte_image_describe(s->model, &s->info, NULL));
        CHECK(s->info.tile_bytes == kinds[i].patches * kinds[i].bytes &&
              s->info.channels == (u32)atoi(kinds[i].channels));
    }
    CHECK(of[RASTER].info.scan == MEGABYTE_SCAN_RASTER && of[RASTER].info.tile_width == 12 &&
          of[RASTER].info.tile_height == 4 && of[RASTER].info.patch_width == 4);
    CHECK(of[RGB].info.colour == MEGABYTE_COLOUR_GREEN_DIFFERENCE &&
          of[PLAIN_RGB].info.colour == MEGABYTE_COLOUR_NONE);
}

/* Models whose metadata are wrong, or contradict their sizes, are refused when they are opened. */
static void metadata_that_is_wrong(void) {
    static const struct {
        const char *tile, *patch, *channels, *colour, *scan;
        megabyte_status expected;
    } wrong[] = {
        {"8x8", "2x2", "1", "none", "patch", MEGABYTE_ERROR_CORRUPT}, /* other bytes a patch */
        {"16x8", "2x2", "3", "none", "patch", MEGABYTE_ERROR_CORRUPT},
        {"8x7", "2x2", "3", "none", "patch", MEGABYTE_ERROR_CORRUPT},
        {"8x8", "4x1", "3", "none", "patch", MEGABYTE_OK},
        {"8x8", "2x2", "3", "none", "raster", MEGABYTE_ERROR_CORRUPT},
        {"8x8", "0x2", "3", "none", "patch", MEGABYTE_ERROR_CORRUPT},
        {"8", "2x2", "3", "none", "patch", MEGABYTE_ERROR_CORRUPT},
        {"8x8", "2x2x", "3", "none", "patch", MEGABYTE_ERROR_CORRUPT},
        {"99999x8", "2x2", "3", "none", "patch", MEGABYTE_ERROR_CORRUPT},
        {"-8x8", "2x2", "3", "none", "patch", MEGABYTE_ERROR_CORRUPT},
        {"", "2x2", "3", "none", "patch", MEGABYTE_ERROR_CORRUPT},
        {"8x8", "2x2", "4", "none", "patch", MEGABYTE_ERROR_UNSUPPORTED},
        {"8x8", "2x2", "33", "none", "patch", MEGABYTE_ERROR_UNSUPPORTED},
        {"8x8", "2x2", "3", "YCoCg", "patch", MEGABYTE_ERROR_UNSUPPORTED},
        {"8x8", "2x2", "3", "none", "hilbert", MEGABYTE_ERROR_UNSUPPORTED},
    };
    for (u32 i = 0; i < COUNT_OF(wrong); i++) {
        struct kind k = {"",
                         wrong[i].tile,
                         wrong[i].patch,
                         wrong[i].channels,
                         wrong[i].colour,
                         wrong[i].scan,
                         16,
                         12};
        size_t size;
        u8 *file = make_model(&k, 1, &size);
        megabyte_model *model;
        megabyte_error error;
        name_case("%u", i);
        CHECK_STATUS(megabyte_model_open_memory(&model, file, size, NULL, &error),
                     wrong[i].expected);
        CHECK(!wrong[i].expected || strstr(error.text, "metadata"), "%s", error.text);
        if (!wrong[i].expected) megabyte_model_close(model);
        libc_free(NULL, file, size);
    }
    struct sizes z = random_sizes(4, 4, 16, 1, 2, 8, 16, 1, 2, 8);
    megabyte_image_info info;
    megabyte_error error;
    size_t size;
    u8 *file = random_model(&z, 1, &size, &error);
    megabyte_model *text;
    OK(megabyte_model_open_memory(&text, file, size, NULL, NULL));
    CHECK_STATUS(megabyte_image_describe(text, &info, &error), MEGABYTE_ERROR_UNSUPPORTED);
    CHECK(strstr(error.text, "not an image model"));
    megabyte_model_close(text);
    libc_free(NULL, file, size);
}

/* Every pixel's bytes lie where the definition says. */
static void scans(void) {
    seed_random(1);
    for (u32 i = 0; i < N_KINDS; i++) {
        const megabyte_image_info *f = &of[i].info;
        u32 row = f->tile_width * f->channels + 5;
        u8 pixels[16 * 64], back[16 * 64] = {0}, ids[512];
        random_bytes(pixels, sizeof pixels, 256);
        name_case("%s", kinds[i].name);
        megabyte_image_scan(f, pixels, row, ids);
        for (u32 at = 0; at < f->tile_bytes; at++) { /* backwards: from the id to its pixel */
            u32 n = at / f->channels, area = f->patch_width * f->patch_height, x, y;
            u32 across = f->tile_width / f->patch_width;
            if (f->scan == MEGABYTE_SCAN_RASTER) {
                x = n % f->tile_width;
                y = n / f->tile_width;
            } else {
                x = n / area % across * f->patch_width + n % area % f->patch_width;
                y = n / area / across * f->patch_height + n % area / f->patch_width;
            }
            CHECK(megabyte_image_index(f, x, y) == n * f->channels);
            const u8 *p = pixels + y * row + x * f->channels;
            u32 plane = at % f->channels, expected = p[plane];
            if (f->colour) expected = (plane ? p[2 * plane - 2] - p[1] : p[1]) & 255;
            CHECK(ids[at] == expected, "id %u", at);
        }
        megabyte_image_unscan(f, ids, back, row);
        for (u32 y = 0; y < f->tile_height; y++)
            CHECK(!memcmp(back + y * row, pixels + y * row, (size_t)f->tile_width * f->channels));
    }
}

/* ------------------------------------------------------------------------------ there and back */

/* A picture that is smooth with some noise, flat, or noise. */
enum { SMOOTH, FLAT, NOISE };
static megabyte_image make_picture(u32 width, u32 height, u32 channels, int what, u64 seed) {
    megabyte_image p = {width, height, channels, (size_t)width * channels + 3, NULL};
    p.pixels = need(height, p.row_bytes);
    seed_random(seed);
    for (u32 y = 0; y < height; y++)
        for (u32 x = 0; x < width; x++)
            for (u32 c = 0; c < channels; c++) {
                u32 noise = random_below(what == NOISE ? 256 : 6);
                p.pixels[y * p.row_bytes + x * channels + c] =
                    (u8)(what == FLAT    ? 77
                         : what == NOISE ? noise
                                         : 3 * x + 5 * y + 9 * c + noise);
            }
    return p;
}

/* One that the model itself has made, tile by tile, rather cool: even alone it makes it smaller. */
static megabyte_image make_likely(const struct setting *s, u32 width, u32 height, u64 seed) {
    const megabyte_image_info *f = &s->info;
    u32 columns = (width + f->tile_width - 1) / f->tile_width,
        rows = (height + f->tile_height - 1) / f->tile_height;
    megabyte_image p = {width, height, f->channels, 0, NULL};
    megabyte_sampling how = {.temperature = 0.4f, .seed = seed};
    megabyte_stream *author = new_stream(s->model, NULL, 0);
    u8 ids[512];
    p.row_bytes = (size_t)columns * f->tile_width * f->channels;
    p.pixels = need((size_t)rows * f->tile_height, p.row_bytes);
    for (u32 t = 0; t < columns * rows; t++) {
        megabyte_stream_reset(author);
        for (u32 i = 0; i < f->tile_bytes; i++) {
            OK(megabyte_stream_sample(author, &how, &ids[i]));
            OK(megabyte_stream_step(author, ids[i]));
        }
        u32 x = t % columns * f->tile_width, y = t / columns * f->tile_height;
        megabyte_image_unscan(f, ids, p.pixels + y * p.row_bytes + x * f->channels, p.row_bytes);
    }
    megabyte_stream_free(author);
    return p;
}

struct packed {
    u8 *bytes;
    size_t n, capacity;
};
static struct packed pack(const megabyte_model *m, const megabyte_image_options *o,
                          const megabyte_image *p) {
    struct packed z = {NULL, 0, megabyte_image_bound(p->width, p->height, p->channels)};
    if (o) z.capacity += o->layout_bytes;
    z.bytes = need(z.capacity, 1);
    megabyte_error error;
    megabyte_status status = megabyte_image_encode(m, o, p, z.bytes, z.capacity, &z.n, NULL,
                                                   &error);
    CHECK(status == MEGABYTE_OK && z.n <= z.capacity, "%s", error.text);
    return z;
}

static void unpack_same(const megabyte_model *m, const megabyte_image_options *o,
                        const struct packed *z, const megabyte_image *expected) {
    megabyte_image back = *expected;
    megabyte_error error;
    back.row_bytes += 2;
    back.pixels = need(back.height, back.row_bytes);
    megabyte_status status = megabyte_image_decode(m, o, z->bytes, z->n, &back, NULL, &error);
    CHECK(status == MEGABYTE_OK, "%s", error.text);
    for (u32 y = 0; y < back.height; y++)
        CHECK(!memcmp(back.pixels + y * back.row_bytes, expected->pixels + y * expected->row_bytes,
                      (size_t)back.width * back.channels),
              "row %u", y);
    free(back.pixels);
}

static megabyte_image_header header_of(const struct packed *z) {
    megabyte_image_header h;
    OK(megabyte_image_header_read(z->bytes, z->n, &h, NULL));
    CHECK(h.file_bytes == z->n && !memcmp(h.model_id, z->bytes + 7, 6));
    return h;
}

static void sizes_there_and_back(void) {
    static const u32 flying[] = {0, 1, 2, 3, 13, 64, 256};
    u32 mixed = 0, alone = 0, stored = 0;
    for (u32 i = 0; i < N_KINDS; i++)
        for (u32 n = 0; n < 90; n++) {
            u32 width = n < 20 ? n + 1 : 1 + n * 7 % 31, height = n < 20 ? 9 : 1 + n * 11 % 23;
            int likely = n % 3 == 2, grey = n % 3 == 1;
            megabyte_image p = likely ? make_likely(&of[i], width, height, n)
                                      : make_picture(width, height, grey ? 1 : of[i].info.channels,
                                                     n % 5 == 4 ? FLAT : SMOOTH, n);
            megabyte_image_options o = {.tiles = flying[n % 7], .model_alone = n % 4 == 3},
                                   d = {.tiles = flying[n % 7]};
            name_case("%s: %ux%ux%u, %u tiles", kinds[i].name, width, height, p.channels, o.tiles);
            struct packed z = pack(of[i].model, &o, &p);
            megabyte_image_header h = header_of(&z);
            CHECK(h.width == width && h.height == height && h.channels == p.channels &&
                  h.tiles == (o.tiles ? o.tiles : 12));
            CHECK(!likely || width * height < 100 || !h.stored, "%zu bytes", z.n);
            *(h.stored ? &stored : h.model_alone ? &alone : &mixed) += 1;
            unpack_same(of[i].model, &d, &z, &p);
            free(z.bytes);
            free(p.pixels);
        }
    CHECK(mixed >= 50 && alone >= 20 && stored >= 20, "%u, %u, %u", mixed, alone, stored);
}

/* Costs add up to the code; a layout is kept. */
static void costs(const struct setting *s, const megabyte_image *p, int alone) {
    size_t n = (size_t)p->width * p->height * p->channels;
    float *cost = need(n, sizeof *cost);
    double sum = 0;
    megabyte_image_options o = {
        .cost = cost, .layout = "the layout", .layout_bytes = 10, .model_alone = alone};
    struct packed z = pack(s->model, &o, p);
    megabyte_image_header h = header_of(&z);
    for (size_t i = 0; i < n; i++) {
        CHECK(cost[i] > 0 && cost[i] < 200, "%g", (double)cost[i]);
        sum += (double)cost[i];
    }
    CHECK(!h.stored && h.model_alone == alone && h.layout_bytes == 10 &&
          !memcmp(z.bytes + h.layout_at, "the layout", 10));
    CHECK(fabs(sum - 8.0 * (double)h.coded) < 24, "%g bits in %llu bytes", sum,
          (unsigned long long)h.coded);
    unpack_same(s->model, NULL, &z, p);
    free(z.bytes), free(cost);
}

/* Noise is stored; a flat picture becomes small; costs. */
static void what_is_written(void) {
    megabyte_image flat = make_picture(40, 40, 3, FLAT, 1), noise = make_picture(9, 9, 3, NOISE, 1),
                   smooth = make_picture(40, 24, 3, SMOOTH, 2);
    megabyte_image_header h;
    struct packed z = pack(of[RGB].model, NULL, &flat);
    CHECK(z.n < 1600, "a flat picture takes %zu bytes", z.n);
    free(z.bytes);
    z = pack(of[RGB].model, NULL, &noise);
    OK(megabyte_image_header_read(z.bytes, z.n, &h, NULL));
    CHECK(h.stored && h.coded == 243 && h.width == 9 && z.n == h.file_bytes);
    unpack_same(of[RGB].model, NULL, &z, &noise);
    free(z.bytes);
    costs(&of[RGB], &smooth, 0);
    for (u32 i = 0; i < N_KINDS; i++)
        for (int alone = 0; alone < 2; alone++) {
            megabyte_image likely = make_likely(&of[i], 30, 25, 8);
            costs(&of[i], &likely, alone);
            free(likely.pixels);
        }
    free(flat.pixels), free(noise.pixels), free(smooth.pixels);
}

/* A picture is packed to the same bytes by every instruction set and number of threads, and comes
 * back; returns their FNV-1a. */
static u64 packed_alike(const struct setting *s, const megabyte_image *p, int alone) {
    struct packed first = {0};
    for (u32 way = 0; way < 14; way++) {
        megabyte_isa isa = (megabyte_isa)(way / 2);
        megabyte_engine_options e = {
            .threads = HAVE_THREADS ? 1 + way % 2 : 1, .batch = way == 1 ? 7 : 0, .isa = isa};
        megabyte_image_options o = {.tiles = 5, .model_alone = alone};
        if (!megabyte_isa_available(isa) && isa) continue;
        name_case("%s, %d, way %u", kinds[s - of].name, alone, way);
        OK(megabyte_engine_create(&o.engine, s->model, &e, NULL, NULL));
        struct packed z = pack(s->model, &o, p);
        if (!first.bytes) first = z;
        CHECK(z.n == first.n && !memcmp(z.bytes, first.bytes, z.n));
        unpack_same(s->model, &o, &z, p);
        megabyte_engine_free(o.engine);
        if (z.bytes != first.bytes) free(z.bytes);
    }
    u64 print = 14695981039346656037u;
    for (size_t b = 0; b < first.n; b++) print = (print ^ first.bytes[b]) * 0x100000001b3u;
    free(first.bytes);
    return print;
}

/* The same everywhere, for ever; of the first pictures the model alone can make nothing: stored. */
static void one_answer(void) {
    static const u64 expected[2][8] = {
        {0x7d5a6f7d32678aee, 0x71546db30ced1e37, 0xd82b419abfae98e0, 0xf5067647ad72c024,
         0x49d8f248b0a46520, 0xde366b1e09640e01, 0x1df3617e3cb41431, 0x7178488c235a4ad2},
        {0x0fd7baae48e7d61b, 0xf3f4b52ed0a8a222, 0x47ebd9ddb7413f42, 0xbd2878409bde2afe,
         0x9e71926418e9195b, 0xd7a441be84c3d490, 0x92bf3d0661666bad, 0xac8d77875b0390c8}};
    for (u32 likely = 0; likely < 2; likely++)
        for (u32 i = 0; i < N_KINDS; i++) {
            megabyte_image p = likely ? make_likely(&of[i], 29, 19, 3)
                                      : make_picture(41, 30, of[i].info.channels, SMOOTH, 3);
            for (u32 alone = 0; alone < 2; alone++) {
                u64 print = packed_alike(&of[i], &p, (int)alone);
                CHECK(print == expected[likely][2 * i + alone], "%s, %u, %u: 0x%016llx",
                      kinds[i].name, likely, alone, (unsigned long long)print);
            }
            free(p.pixels);
        }
}

/* ------------------------------------------------------------------------------- memory, limits */

/* One call, of which the allocation `fail_at` fails (0: none does); returns their number. */
static size_t allocations(const megabyte_image *p, const megabyte_image_options *o,
                          const struct packed *z, int decoding, size_t fail_at) {
    counter c = {.fail_at = fail_at};
    megabyte_allocator a = counting(&c);
    const megabyte_model *m = of[RGB].model;
    megabyte_error error;
    size_t said, n;
    name_case("decoding %d, alone %d, failing at %zu", decoding, o->model_alone, fail_at);
    OK(megabyte_image_memory(m, decoding ? MEGABYTE_MODE_DECOMPRESS : MEGABYTE_MODE_COMPRESS, o,
                             p->width, p->height, 3, &said));
    megabyte_status status = decoding ? megabyte_image_decode(m, o, z->bytes, z->n, p, &a, &error)
                                      : megabyte_image_encode(m, o, p, z->bytes, z->capacity, &n,
                                                              &a, &error);
    if (fail_at) CHECK_STATUS(status, MEGABYTE_ERROR_OUT_OF_MEMORY);
    else CHECK(!status && c.peak_bytes == said, "%zu, not %zu", c.peak_bytes, said);
    CHECK(!c.live, "%zu allocations are left", c.live);
    return c.calls;
}

/* What megabyte_image_memory says is what is allocated; when memory is short, nothing is lost. */
static void memory(void) {
    for (int way = 0; way < 8; way++) {
        megabyte_image p = make_likely(&of[RGB], 33, 20, 4);
        megabyte_image_options o = {.model_alone = way & 1, .tiles = way & 2 ? 3 : 0};
        if (way & 4) o.engine = new_engine(of[RGB].model, 2, 0, MEGABYTE_ISA_AUTO);
        struct packed z = pack(of[RGB].model, &o, &p);
        for (int decoding = 0; decoding < 2; decoding++) {
            size_t calls = allocations(&p, &o, &z, decoding, 0);
            for (size_t at = 1; at <= calls; at++) allocations(&p, &o, &z, decoding, at);
        }
        if (!o.tiles) unpack_same(of[RGB].model, NULL, &z, &p);
        megabyte_engine_free(o.engine);
        free(z.bytes);
        free(p.pixels);
    }
    size_t said;
    megabyte_status r = megabyte_image_memory(of[RGB].model, MEGABYTE_MODE_DECOMPRESS, NULL,
                                              1u << 24, 1u << 18, 3, &said);
    CHECK(r == MEGABYTE_ERROR_INVALID_ARGUMENT || r == MEGABYTE_ERROR_OUT_OF_MEMORY);
}

static int stop_soon(void *context, uint64_t samples) {
    int *calls = context;
    (void)samples;
    return ++*calls > 2;
}

static void refusals(void) {
    megabyte_image p = make_picture(33, 20, 3, SMOOTH, 4), other = p;
    struct packed z = pack(of[RGB].model, NULL, &p);
    const megabyte_model *m = of[RGB].model;
    megabyte_error e;
    size_t n;
    u8 *out = need(z.n, 1);
    for (size_t room = 0; room < z.n; room += room + 9 < z.n ? 9 : 1)
        CHECK_STATUS(megabyte_image_encode(m, NULL, &p, out, room, &n, NULL, &e),
                     MEGABYTE_ERROR_CAPACITY);
    megabyte_image_options o = {.limit = 33 * 20 * 3 - 1};
    CHECK_STATUS(megabyte_image_decode(m, &o, z.bytes, z.n, &p, NULL, &e), MEGABYTE_ERROR_LIMIT);
    o = (megabyte_image_options){.tiles = 1};
    CHECK_STATUS(megabyte_image_decode(m, &o, z.bytes, z.n, &p, NULL, &e), MEGABYTE_ERROR_CAPACITY);
    int calls = 0;
    o = (megabyte_image_options){.progress = stop_soon, .progress_context = &calls};
    CHECK_STATUS(megabyte_image_decode(m, &o, z.bytes, z.n, &p, NULL, &e),
                 MEGABYTE_ERROR_CANCELLED);
    other.width = 32;
    CHECK_STATUS(megabyte_image_decode(m, NULL, z.bytes, z.n, &other, NULL, &e),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(megabyte_image_decode(of[PLAIN_RGB].model, NULL, z.bytes, z.n, &p, NULL, &e),
                 MEGABYTE_ERROR_WRONG_MODEL);
    CHECK_STATUS(megabyte_image_encode(of[GREY4].model, NULL, &p, out, z.n, &n, NULL, &e),
                 MEGABYTE_ERROR_UNSUPPORTED);
    o = (megabyte_image_options){.tiles = 257};
    CHECK_STATUS(megabyte_image_encode(m, &o, &p, out, z.n, &n, NULL, &e),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    other = p;
    other.row_bytes = 98;
    CHECK_STATUS(megabyte_image_encode(m, NULL, &other, out, z.n, &n, NULL, &e),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    other = p;
    other.channels = 2;
    CHECK_STATUS(megabyte_image_encode(m, NULL, &other, out, z.n, &n, NULL, &e),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK(megabyte_image_bound(UINT32_MAX, UINT32_MAX, 4) == SIZE_MAX ||
          sizeof(size_t) > 4); /* 2^66 does not fit 64 bits either, but the sides are limited */
    free(out), free(z.bytes), free(p.pixels);
}

/* A header of any claims, with its check made anew. */
static size_t forge(u8 *to, const megabyte_image_header *h) {
    return write_image_header(h, NULL, to);
}

/* Headers that claim too much are refused before anything is allocated. */
static void forged_headers(void) {
    megabyte_image p = make_picture(33, 20, 3, SMOOTH, 4);
    struct packed z = pack(of[RGB].model, NULL, &p);
    megabyte_image_header h, again;
    megabyte_error e;
    u8 file[200] = {0};
    OK(megabyte_image_header_read(z.bytes, z.n, &h, NULL));
    CHECK(forge(file, &h) == h.header_bytes && !memcmp(file, z.bytes, h.header_bytes));
    for (u32 side = 1u << 17; side <= 1u << 24; side <<= 7) {
        megabyte_image_header huge = h;
        huge.width = huge.height = side;
        huge.coded = 20;
        counter c = {0};
        megabyte_allocator a = counting(&c);
        size_t n = forge(file, &huge) + 28;
        OK(megabyte_image_header_read(file, n, &again, &e));
        megabyte_image_options o = {.max_ratio = 1024};
        megabyte_image claimed = {side, side, 3, (size_t)side * 3, p.pixels};
        megabyte_status status = megabyte_image_decode(of[RGB].model, &o, file, n, &claimed, &a,
                                                       &e);
        /* where addresses have 32 bits, no such picture can be given; the second has too many
         * tiles */
        CHECK(status == (sizeof(size_t) > 4 && side < 1u << 20 ? MEGABYTE_ERROR_LIMIT
                                                               : MEGABYTE_ERROR_INVALID_ARGUMENT) &&
              !c.calls);
    }
    size_t n;
    for (u32 i = 0; i < 6; i++) { /* each out of its range */
        megabyte_image_header bad = h;
        if (i == 0) bad.width = (1u << 24) + 1;
        if (i == 1) bad.height = 0;
        if (i == 2) bad.tiles = 257;
        if (i == 3) bad.tiles = 0;
        if (i == 4) bad.coded = 33 * 20 * 3;
        if (i == 5) bad.format_version = 0;
        name_case("%u", i);
        n = forge(file, &bad) + 100;
        CHECK_STATUS(megabyte_image_header_read(file, n, &again, &e), MEGABYTE_ERROR_CORRUPT);
    }
    h.format_version = 2;
    forge(file, &h);
    CHECK_STATUS(megabyte_image_header_read(file, 100, &again, &e), MEGABYTE_ERROR_BAD_VERSION);
    h.format_version = 1;
    h.numerics_version++;
    n = forge(z.bytes, &h);
    CHECK_STATUS(megabyte_image_decode(of[RGB].model, NULL, z.bytes, z.n, &p, NULL, &e),
                 MEGABYTE_ERROR_BAD_VERSION);
    free(z.bytes), free(p.pixels);
}

/* Every flipped bit is found, every beginning is too short, more is told. */
static void damage(void) {
    enum { MIXED, ALONE, STORED };
    for (int way = MIXED; way <= STORED; way++) {
        megabyte_image p = way == STORED ? make_picture(5, 7, 3, NOISE, 6)
                                         : make_likely(&of[RGB], 17, 11, 6);
        megabyte_image_options o = {.model_alone = way == ALONE, .layout = "ab", .layout_bytes = 2},
                               d = {.limit = 1000000};
        struct packed z = pack(of[RGB].model, &o, &p);
        megabyte_image_header h = header_of(&z);
        CHECK(h.stored == (way == STORED) && h.model_alone == (way == ALONE));
        megabyte_error e;
        for (size_t bit = 0; bit < 8 * z.n; bit += bit < 600 ? 1 : 37) {
            z.bytes[bit / 8] ^= (u8)(1 << bit % 8);
            name_case("bit %zu", bit);
            CHECK(megabyte_image_decode(of[RGB].model, &d, z.bytes, z.n, &p, NULL, &e) < 0 &&
                  e.text[0]);
            z.bytes[bit / 8] ^= (u8)(1 << bit % 8);
        }
        for (size_t n = 0; n < z.n; n++) {
            name_case("%zu of %zu bytes", n, z.n);
            CHECK(megabyte_image_decode(of[RGB].model, NULL, z.bytes, n, &p, NULL, &e) ==
                  MEGABYTE_ERROR_TRUNCATED);
        }
        CHECK(z.n < z.capacity);
        CHECK_STATUS(megabyte_image_decode(of[RGB].model, NULL, z.bytes, z.n + 1, &p, NULL, &e),
                     MEGABYTE_ERROR_TRAILING_DATA);
        unpack_same(of[RGB].model, NULL, &z, &p);
        free(z.bytes);
        free(p.pixels);
    }
}

int main(int argc, char **argv) {
    GROUP(set_up);
    GROUP(one_answer);
    if (argc < 2 || strcmp(argv[1], "pinned")) { /* else: under an emulator, say */
        GROUP(metadata_that_is_wrong);
        GROUP(scans);
        GROUP(sizes_there_and_back);
        GROUP(what_is_written);
        GROUP(memory);
        GROUP(refusals);
        GROUP(forged_headers);
        GROUP(damage);
    }
    for (u32 i = 0; i < N_KINDS; i++) {
        megabyte_model_close(of[i].model);
        libc_free(NULL, of[i].file, of[i].size);
    }
    return 0;
}
