/* test_picture.c - PNG of every kind, PNM, BMP, deflate and inflate: there and back, damaged, cut
 * short, and what must be refused. */
#define _GNU_SOURCE
#include "test.h"
#include "pictures.h"

static uint16_t samples[1 << 14];
static file made;

/* -------------------------------------------------------------------------------------- deflate */

static void there_and_back(const uint8_t *data, size_t n, size_t most) {
    uint8_t *coded = need(deflate_bound(n), 1), *back = need(n + 1, 1);
    size_t size = deflate_zlib(coded, data, n);
    CHECK(size > 0 && size <= deflate_bound(n) && size <= most, "%zu bytes become %zu", n, size);
    const char *why = inflate_zlib(back, n, coded, size);
    CHECK(!why && !memcmp(back, data, n), "%zu bytes: %s", n, why ? why : "others");
    if (n) CHECK(inflate_zlib(back, n - 1, coded, size), "a byte more than wanted");
    CHECK(inflate_zlib(back, n + 1, coded, size), "a byte less than wanted");
    CHECK(inflate_zlib(back, n, coded, size - 1), "%zu bytes, cut", n);
    free(coded);
    free(back);
}

static void deflate_there_and_back(void) {
    static uint8_t data[300000];
    size_t n;
    seed_random(1);
    random_bytes(data, sizeof data, 256);
    for (n = 0; n < 300; n++) there_and_back(data, n, SIZE_MAX);
    there_and_back(data, sizeof data, sizeof data + 100);
    memset(data, 7, sizeof data);
    there_and_back(data, sizeof data, 400);
    for (n = 0; n < sizeof data; n++) data[n] = (uint8_t)(random64() & random64() & random64());
    there_and_back(data, sizeof data, 200000);
    for (n = 40000; n < sizeof data; n++) data[n] = data[n - 32768]; /* the longest distance */
    there_and_back(data, sizeof data, 40000);
    for (n = 0; n < sizeof data; n++) data[n] = (uint8_t)__builtin_ctzll(random64() | 1u << 30);
    there_and_back(data, sizeof data, 100000); /* frequencies of powers of two: the deepest codes */
    uint32_t a = 1, b = 1, k = 0; /* of Fibonacci numbers: deeper than 15 bits */
    for (n = 0; n < sizeof data && k < 24; k++, b += a, a = b - a)
        for (uint32_t i = 0; i < a && n < sizeof data; i++) data[n++] = (uint8_t)(k * 7);
    for (size_t i = n; i-- > 1;) {
        size_t other = random_below(i + 1);
        uint8_t t = data[i];
        data[i] = data[other];
        data[other] = t;
    }
    there_and_back(data, n, SIZE_MAX);
    uint8_t *text = read_file("tests/data/text.txt", &n);
    there_and_back(text, n, SIZE_MAX);
    free(text);
}

/* Written by zlib (python3 -c "zlib.compress(b'...', 9)"), with fixed codes and stored. */
static void inflate_of_others(void) {
    static const uint8_t fixed[] = {0x78, 0xda, 0x4b, 0x4c, 0x4a, 0x4e, 0x04,
                                    0x23, 0x00, 0x11, 0x3d, 0x03, 0x73};
    static const uint8_t stored[] = {0x78, 0x01, 0x01, 0x03, 0x00, 0xfc, 0xff,
                                     'a',  'b',  'c',  0x02, 0x4d, 0x01, 0x27};
    uint8_t out[16];
    CHECK(!inflate_zlib(out, 9, fixed, sizeof fixed) && !memcmp(out, "abcabcabc", 9));
    CHECK(!inflate_zlib(out, 3, stored, sizeof stored) && !memcmp(out, "abc", 3));
    for (size_t i = 0; i < sizeof fixed; i++) {
        uint8_t bad[sizeof fixed];
        memcpy(bad, fixed, sizeof bad);
        bad[i] ^= 1; /* byte 1: also the level, but the check bits tell */
        CHECK(inflate_zlib(out, 9, bad, sizeof bad), "byte %zu", i);
    }
    /* lengths that no code has: too many, too few, none for the end */
    static const uint8_t over[] = {0x78, 0x9c, 0x05, 0xe0, 0xff, 0xff, 0xff,
                                   0xff, 0,    0,    0,    0,    0,    0};
    CHECK(inflate_zlib(out, 1, over, sizeof over));
}

/* ------------------------------------------------------------------------------------------ PNG */

/* Fills the samples with what 8 bits without alpha can hold, and the pixels that must come out. */
static void plan_pixels(plan *p, uint32_t width, uint32_t height, uint8_t *expected) {
    const unsigned scale = p->depth < 8 ? 255 / ((1u << p->depth) - 1) : 1;
    const int has_alpha = (p->colour & 4) != 0, is_palette = p->colour == 3;
    p->width = width;
    p->height = height;
    p->sample = samples;
    p->n_palette = is_palette ? 1u << p->depth : 0;
    for (unsigned i = 0; i < p->n_palette; i++) random_bytes(p->palette[i], 3, 256);
    for (size_t i = 0; i < (size_t)width * height * p->samples; i++) {
        unsigned v = (unsigned)random_below(p->depth < 8 ? 1u << p->depth : 256), out = v * scale;
        int is_alpha = has_alpha && i % p->samples == p->samples - 1;
        if (is_alpha) v = 255;
        samples[i] = (uint16_t)(p->depth == 16 ? v * 257 : v);
        if (is_palette) memcpy(expected + 3 * i, p->palette[v], 3);
        else if (!is_alpha) *expected++ = (uint8_t)out;
    }
}

static void all_kinds(void) {
    static uint8_t expected[1 << 14];
    char why[256];
    plan p;
    seed_random(2);
    for (unsigned kind = 0; kind_of_png(&p, kind); kind++) {
        for (uint32_t size = 0; size < 60; size++) {
            uint32_t width = size < 40 ? 1 + size % 9 : 1 + (uint32_t)random_below(40),
                     height = size < 40 ? 1 + size / 5 : 1 + (uint32_t)random_below(40);
            picture got;
            kind_of_png(&p, kind);
            plan_pixels(&p, width, height, expected);
            p.piece = size % 3 ? 1 + size : 0;
            p.extra = size % 2 ? "tEXt" : NULL;
            if (p.colour == 3 && size % 5 == 0) p.n_transparent = 1 + size % p.n_palette;
            make_png(&p, &made);
            name_case("colour %u, depth %u, interlace %d, %ux%u", p.colour, p.depth,
                      p.is_interlaced, width, height);
            CHECK(read_picture(&got, made.data, made.n, MOST, why), "%s", why);
            CHECK(got.width == width && got.height == height && got.format == PICTURE_PNG);
            CHECK(got.channels == (p.colour & 2 ? 3 : 1), "%u channels", got.channels);
            CHECK(!memcmp(got.pixels, expected, (size_t)width * height * got.channels));
            CHECK(!strstr(got.dropped, "tEXt") == !p.extra, "dropped: %s", got.dropped);
            CHECK(!strstr(got.dropped, "tRNS") == !p.n_transparent, "dropped: %s", got.dropped);
            free_picture(&got);
        }
    }
}

static void refuses(const uint8_t *data, size_t n, const char *word) {
    char why[256];
    picture got;
    uint8_t *exact = need(n, 1); /* reading past its end shows under a sanitizer */
    memcpy(exact, data, n);
    CHECK(!read_picture(&got, exact, n, MOST, why), "a bad picture is read");
    CHECK(strstr(why, word) && !got.pixels, "'%s' and not '%s'", why, word);
    free(exact);
}

/* A small PNG of colour and depth with one sample changed. */
static void make_odd(unsigned colour, unsigned depth, unsigned n, unsigned value) {
    static uint8_t expected[1 << 14];
    plan p;
    for (unsigned kind = 0; kind_of_png(&p, kind); kind += 2)
        if (p.colour == colour && p.depth == depth) break;
    plan_pixels(&p, 5, 4, expected);
    samples[p.samples * 19 + n] = (uint16_t)value;
    make_png(&p, &made);
}

/* A PNG of these chunks, after IHDR (8-bit, of this colour) and before IEND. */
static void make_of(unsigned colour, const char *const *types, const char *data, size_t n) {
    uint8_t header[13] = {0, 0, 0, 1, 0, 0, 0, 1, 8, (uint8_t)colour};
    made.n = sizeof signature;
    add_chunk(&made, "IHDR", header, 13);
    for (; *types; types++) add_chunk(&made, *types, data, n);
    add_chunk(&made, "IEND", NULL, 0);
}
#define MAKE_OF(colour, data, n, ...) \
    make_of(colour, (const char *const[]){__VA_ARGS__, NULL}, data, n)

static void refused_pngs(void) {
    seed_random(3);
    make_odd(6, 8, 3, 254);
    refuses(made.data, made.n, "transparent");
    make_odd(4, 16, 1, 0xfffe);
    refuses(made.data, made.n, "transparent");
    make_odd(2, 16, 1, 0x1234);
    refuses(made.data, made.n, "more than 8 bits");
    make_odd(0, 16, 0, 0x1213);
    refuses(made.data, made.n, "more than 8 bits");
    MAKE_OF(0, "abc", 3, "PLTE");
    refuses(made.data, made.n, "PLTE");
    MAKE_OF(3, "abc", 3, "PLTE", "PLTE");
    refuses(made.data, made.n, "PLTE");
    MAKE_OF(3, "abcd", 4, "PLTE");
    refuses(made.data, made.n, "PLTE");
    MAKE_OF(3, "a", 1, "IDAT");
    refuses(made.data, made.n, "palette");
    MAKE_OF(3, "abc", 3, "IDAT", "PLTE");
    refuses(made.data, made.n, "too late");
    MAKE_OF(2, "abc", 3, "tRNS");
    refuses(made.data, made.n, "tRNS");
    MAKE_OF(6, "abcdef", 6, "tRNS");
    refuses(made.data, made.n, "tRNS");
    MAKE_OF(2, "abc", 3, "IDAT", "tEXt", "IDAT");
    refuses(made.data, made.n, "together");
    MAKE_OF(2, "abc", 3, "NEWS");
    refuses(made.data, made.n, "NEWS");
    MAKE_OF(2, "abc", 3, "IHDR");
    refuses(made.data, made.n, "IHDR");
    MAKE_OF(2, "abc", 3, "IEND");
    refuses(made.data, made.n, "IEND");
    MAKE_OF(2, "abc", 3, "a\033bc");
    refuses(made.data, made.n, "name");
    MAKE_OF(2, "abc", 0, "tEXt");
    refuses(made.data, made.n, "claims more");
}

/* A header that claims much costs nothing. */
static void large_claims(void) {
    static const uint32_t claims[][2] = {
        {INT32_MAX, INT32_MAX}, {INT32_MAX, 1}, {1, INT32_MAX}, {65535, 65535},
        {UINT32_MAX, 1},        {0, 1},         {1, 0},         {1u << 31, 1u << 31}};
    plan p;
    static uint8_t expected[1 << 14];
    for (unsigned kind = 0; kind_of_png(&p, kind); kind++) {
        plan_pixels(&p, 3, 3, expected);
        make_png(&p, &made);
        for (size_t i = 0; i < COUNT_OF(claims); i++) {
            put32(made.data + 16, claims[i][0]);
            put32(made.data + 20, claims[i][1]);
            put_chunk(made.data + 8, "IHDR", 13);
            int is_size = claims[i][0] && claims[i][1] && claims[i][0] <= INT32_MAX &&
                          claims[i][1] <= INT32_MAX;
            refuses(made.data, made.n, is_size ? "claims more" : "2^31 - 1");
        }
    }
    static uint8_t zeros[1 << 20], coded[1 << 12]; /* honest, but more than is allowed */
    char why[256];
    picture got;
    uint8_t header[13] = {0, 0, 3, 255, 0, 0, 4, 0, 8, 0};
    made.n = sizeof signature;
    add_chunk(&made, "IHDR", header, 13);
    add_chunk(&made, "IDAT", coded, deflate_zlib(coded, zeros, sizeof zeros));
    add_chunk(&made, "IEND", NULL, 0);
    CHECK(!read_picture(&got, made.data, made.n, 1023 * 1024 - 1, why) && strstr(why, "allowed"));
    CHECK(read_picture(&got, made.data, made.n, 1023 * 1024, why), "%s", why);
    free_picture(&got);
}

/* ------------------------------------------------------------------------------------- PNM, BMP */

static picture random_picture(uint32_t width, uint32_t height, uint32_t channels) {
    picture p = {.width = width, .height = height, .channels = channels};
    p.pixels = need((size_t)width * height * channels, 1);
    for (size_t i = 0; i < (size_t)width * height * channels; i++)
        p.pixels[i] = (uint8_t)(i / 7 + random_below(9)); /* every row wants another filter */
    return p;
}

static void same_picture(const picture *a, const picture *b) {
    CHECK(a->width == b->width && a->height == b->height && a->channels == b->channels);
    CHECK(!memcmp(a->pixels, b->pixels, (size_t)a->width * a->height * a->channels));
}

static void written_and_read(void) {
    char why[256];
    seed_random(4);
    for (int i = 0; i < 300; i++) {
        picture got,
            p = random_picture(1 + (uint32_t)random_below(i < 200 ? 9 : 90),
                               1 + (uint32_t)random_below(i < 200 ? 9 : 90), i % 2 ? 3 : 1);
        picture_format format = (picture_format)(1 + i % 3);
        uint8_t *out;
        size_t n;
        name_case("format %d, %ux%ux%u", (int)format, p.width, p.height, p.channels);
        CHECK(write_picture(&p, format, &out, &n, why), "%s", why);
        CHECK(picture_format_of(out, n) == format && read_picture(&got, out, n, MOST, why), "%s",
              why);
        CHECK(got.format == format && !*got.dropped, "dropped: %s", got.dropped);
        same_picture(&got, &p);
        free_picture(&got);
        raster r;
        CHECK(find_raster(&r, out, n, why) == (format != PICTURE_PNG), "%s", why);
        refuses(out, n - 1, "early");
        if (format == PICTURE_PNM) {
            uint8_t *more = need(n + 1, 1);
            memcpy(more, out, n);
            refuses(more, n + 1, "more than one");
            free(more);
        }
        free(out);
        free_picture(&p);
    }
}

static void reads(const char *text, size_t n, const char *pixels, size_t n_pixels,
                  const char *dropped) {
    char why[256];
    picture got;
    CHECK(read_picture(&got, (const uint8_t *)text, n, MOST, why), "%s: %s", text, why);
    CHECK(got.width * got.height * got.channels == n_pixels &&
              !memcmp(got.pixels, pixels, n_pixels) && !strcmp(got.dropped, dropped),
          "%s; dropped: %s", text, got.dropped);
    free_picture(&got);
}
#define READS(text, pixels, dropped) \
    reads(text, sizeof(text) - 1, pixels, sizeof(pixels) - 1, dropped)
#define REFUSES(text, word) refuses((const uint8_t *)text, sizeof(text) - 1, word)

static void pnm(void) {
    READS("P5 2 1 255\nab", "ab", "");
    READS("P5\n# by nobody\n2 1\n#\n255\nab", "ab", "comments");
    READS("P5#\n2 1 255\nab", "ab", "comments");
    READS("P6\r1\t1\v255 abc", "abc", "");
    READS("P2\n2 1\n255\n97 098", "ab", "");
    READS("P2\n2 1\n255\n97 98 # end", "ab", "comments");
    READS("P3 1 1 255 1 2 3\n", "\1\2\3", "");
    REFUSES("P5 2 1 256\nabcd", "0 to 255");
    REFUSES("P5 2 1 1\nab", "0 to 255");
    REFUSES("P4 8 1\na", "not a PNG");
    REFUSES("P5 2 1 255", "early");
    REFUSES("P5 2 1 255\na", "early");
    REFUSES("P5 2 1 255\nabc", "more than one");
    REFUSES("P5 2 1 255aab", "header");
    REFUSES("P5 0 1 255\nab", "2^31");
    REFUSES("P5 2 4294967296 255\nab", "2^31");
    REFUSES("P5 2147483647 2147483647 255\nab", "early");
    REFUSES("P6 -1 1 255\nab", "2^31");
    REFUSES("P2 2 1 255\n97 256", "0 to 255");
    REFUSES("P2 2 1 255\n97 9x", "more than one");
    REFUSES("P2 2 1 255\n97 x9", "none of 0 to 255");
    REFUSES("P2 2 1 255\n97 98 99", "more than one");
    REFUSES("P2 2147483647 2147483647 255\n1 2", "early");
    REFUSES("P3 1 1 255 1 2", "early");
    REFUSES("P5", "not a PNG");
    REFUSES("", "not a PNG");
}

/* A BMP of 2x2 pixels; every field that matters. */
static size_t make_bmp(uint8_t *to, uint32_t header, uint32_t height, unsigned bits,
                       unsigned method, uint32_t n_palette) {
    const uint32_t palette = bits == 8     ? 4 * (n_palette ? n_palette : 256)
                             : method == 3 ? 12
                                           : 0,
                   row = (2 * bits / 8 + 3) / 4 * 4, begin = 14 + header + palette;
    const uint32_t fields[][2] = {{10, begin},          {14, header}, {18, 2},        {22, height},
                                  {26, 1 | bits << 16}, {30, method}, {46, n_palette}};
    memset(to, 0, begin + 2 * row);
    memcpy(to, "BM", 2);
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        for (unsigned k = 0; k < 4; k++) to[fields[i][0] + k] = (uint8_t)(fields[i][1] >> 8 * k);
    if (method == 3) memcpy(to + 54, "\0\0\377\0\0\377\0\0\377\0\0", 12);
    for (uint32_t i = 0; bits == 8 && i < palette; i++) to[14 + header + i] = (uint8_t)(i / 4);
    for (uint32_t i = 0; i < 2 * row; i++)
        if (i % row < bits / 4) to[begin + i] = (uint8_t)(i % row / (bits / 8) + i / row * 2);
    return begin + 2 * row;
}

static void bmp(void) {
    static const char *const up[] = {"\2\3\0\1", "\2\2\2\3\3\3\0\0\0\1\1\1"};
    uint8_t data[2000];
    size_t n = make_bmp(data, 40, 2, 24, 0, 0);
    reads((char *)data, n, up[1], 12, "");
    n = make_bmp(data, 40, (uint32_t)-2, 24, 0, 0);
    reads((char *)data, n, "\0\0\0\1\1\1\2\2\2\3\3\3", 12, "");
    n = make_bmp(data, 40, 2, 8, 0, 0);
    reads((char *)data, n, up[0], 4, "");
    n = make_bmp(data, 40, 2, 8, 0, 4);
    reads((char *)data, n, up[0], 4, "");
    n = make_bmp(data, 40, 2, 8, 0, 3);
    refuses(data, n, "palette");
    n = make_bmp(data, 40, 2, 8, 0, 257);
    refuses(data, n, "palette");
    n = make_bmp(data, 40, 2, 8, 0, 4);
    data[54] = 9; /* blue: 0 is no grey */
    reads((char *)data, n, "\2\2\2\3\3\3\0\0\11\1\1\1", 12, "");
    for (int alpha = 0; alpha < 256; alpha += 255) {
        n = make_bmp(data, 40, 2, 32, alpha ? 3 : 0, 0);
        for (size_t i = n - 16; i < n; i++)
            if ((i - n) % 4 == 3) data[i] = (uint8_t)alpha;
        reads((char *)data, n, up[1], 12, "");
        data[n - 1] ^= 1;
        refuses(data, n, "transparent");
    }
    n = make_bmp(data, 40, 2, 32, 3, 0);
    data[54] = 1;
    refuses(data, n, "masks");
    n = make_bmp(data, 40, 2, 8, 1, 0);
    refuses(data, n, "compressed");
    n = make_bmp(data, 40, 2, 24, 0, 0);
    data[28] = 16;
    refuses(data, n, "8, 24 or 32");
    n = make_bmp(data, 40, 0, 24, 0, 0);
    refuses(data, n, "2^31");
    n = make_bmp(data, 40, 0x80000000, 24, 0, 0);
    refuses(data, n, "2^31");
    n = make_bmp(data, 40, 0x7fffffff, 24, 0, 0);
    refuses(data, n, "early");
    n = make_bmp(data, 124, 2, 24, 0, 0);
    reads((char *)data, n, up[1], 12, "");
    data[130] = 1;
    reads((char *)data, n, up[1], 12, "colour profile");
    n = make_bmp(data, 40, 2, 24, 0, 0);
    memset(data + n, 0, 4);
    reads((char *)data, n + 4, up[1], 12, "data after its pixels");
    data[10] = 53;
    refuses(data, n, "begin in its header");
    data[14] = 39;
    refuses(data, n, "unknown length");
}

/* Files as pictures and layouts, and back. */
static void splits(const uint8_t *data, size_t n, const char *refused) {
    static uint8_t layout[LAYOUT_MOST];
    char why[256] = "";
    picture p;
    size_t n_layout;
    int good = split_picture_file(&p, layout, &n_layout, data, n, MOST, why);
    CHECK(good == !refused && (good || strstr(why, refused)), "%s", why);
    if (!good) return;
    CHECK(joined_size(p.width, p.height, p.channels, layout, n_layout) == n);
    for (size_t k = 0; k < n_layout && k < 8; k++) /* cut; the lengths may still fit */
        CHECK(k >= 6 || !joined_size(p.width, p.height, p.channels, layout, k));
    uint8_t *back = need(n, 1);
    join_picture_file(&p, layout, n_layout, back);
    CHECK(!memcmp(back, data, n), "another file of %zu bytes", n);
    free(back);
    free_picture(&p);
    layout[0] ^= 3;
    CHECK(!joined_size(1, 1, 1, layout, n_layout), "another version");
    layout[0] ^= 3;
    layout[1] = 16;
    CHECK(!joined_size(1, 1, 1, layout, n_layout), "unknown flags");
    layout[1] = 0;
    layout[4] = 255;
    CHECK(!joined_size(1, 1, 1, layout, n_layout), "a beginning that is longer than all");
}

static void layouts(void) {
    static uint8_t data[LAYOUT_MOST + 2000];
    char why[256];
    size_t n;
    for (uint32_t width = 1; width < 6; width++)
        for (int kind = 0; kind < 4; kind++) {
            picture p = random_picture(width, 3, kind & 1 ? 3 : 1);
            uint8_t *out;
            CHECK(write_picture(&p, kind & 2 ? PICTURE_PNM : PICTURE_BMP, &out, &n, why));
            splits(out, n, NULL);
            free(out);
            free_picture(&p);
        }
    splits((const uint8_t *)"P5\n# a note\n2 1 255\nab", 22, NULL);
    splits((const uint8_t *)"P2\n2 1 255\n1 2", 14, "no pixels as they are");
    n = make_bmp(data, 40, (uint32_t)-2, 24, 0, 0);
    splits(data, n, NULL);
    data[n - 1] = 1;
    splits(data, n, "gaps");
    n = make_bmp(data, 40, 2, 24, 0, 0);
    memset(data + n, 3, LAYOUT_MOST);
    splits(data, n + LAYOUT_MOST - 60, NULL);
    splits(data, n + LAYOUT_MOST - 59, "too much");
    n = make_bmp(data, 40, 2, 32, 0, 0);
    splits(data, n, "not samples");
    n = make_bmp(data, 40, 2, 8, 0, 4);
    splits(data, n, "not samples");
    n = make_bmp(data, 40, 2, 8, 0, 256);
    splits(data, n, NULL);
}

/* --------------------------------------------------------------------------------------- damage */

/* Whatever is changed or missing: refused, or some picture; a PNG's checksums find every change. */
static void damage(void) {
    static uint8_t expected[1 << 14];
    char why[256];
    plan p;
    picture got;
    seed_random(5);
    for (unsigned kind = 0; kind_of_png(&p, kind); kind++) {
        plan_pixels(&p, 9, 7, expected);
        p.piece = 50;
        make_png(&p, &made);
        name_case("kind %u", kind);
        for (size_t n = 0; n < made.n; n++) refuses(made.data, n, n < 8 ? "not a PNG" : "early");
        for (size_t i = 0; i < made.n; i++) {
            uint8_t was = made.data[i];
            made.data[i] ^= (uint8_t)(1u << random_below(8));
            refuses(made.data, made.n, "");
            made.data[i] = was;
        }
    }
    for (int i = 0; i < 6; i++) {
        picture whole = random_picture(7, 5, i % 2 ? 3 : 1);
        uint8_t *out;
        size_t n;
        CHECK(write_picture(&whole, i < 2 ? PICTURE_PNM : PICTURE_BMP, &out, &n, why));
        for (size_t at = 0; at < n; at++) {
            refuses(out, at, "");
            for (unsigned flip = 1; flip < 256; flip++) {
                out[at] ^= (uint8_t)flip;
                if (read_picture(&got, out, n, MOST, why)) free_picture(&got);
                out[at] ^= (uint8_t)flip;
            }
        }
        free(out);
        free_picture(&whole);
    }
}

/* The same below the CRCs: the zlib stream spoiled. Its own checksum is a weak one. */
static void damaged_streams(void) {
    static uint8_t rows[1 << 14], coded[1 << 14], out[1 << 14];
    seed_random(6);
    int n_right = 0, n_other = 0;
    for (int i = 0; i < 20000; i++) {
        size_t size = 1 + random_below(3000);
        for (size_t k = 0; k < size; k++) rows[k] = (uint8_t)(random64() & random64() & k / 8);
        size_t n = deflate_zlib(coded, rows, size), times = 1 + random_below(3);
        while (times--) coded[2 + random_below(n - 6)] ^= (uint8_t)(1u << random_below(8));
        uint8_t *exact = need(n, 1);
        memcpy(exact, coded, n);
        const char *why = inflate_zlib(out, size, exact, n);
        n_right += !why;
        n_other += !why && memcmp(out, rows, size);
        free(exact);
    }
    CHECK(n_other < 5, "%d of 20000 changes were not found", n_other);
    CHECK(n_right < 1000, "%d of 20000 changes did nothing", n_right);
}

static void names(void) {
    static const struct {
        const char *path;
        picture_format format;
    } known[] = {{"a.png", PICTURE_PNG},   {"A.PNG", PICTURE_PNG},     {"a/b.c.ppm", PICTURE_PNM},
                 {"x.pgm", PICTURE_PNM},   {"x.pnm", PICTURE_PNM},     {"x.bmp", PICTURE_BMP},
                 {"png", PICTURE_UNKNOWN}, {".pngx", PICTURE_UNKNOWN}, {"a.pn", PICTURE_UNKNOWN},
                 {"a.", PICTURE_UNKNOWN},  {"", PICTURE_UNKNOWN}};
    for (size_t i = 0; i < COUNT_OF(known); i++)
        CHECK(picture_format_named(known[i].path) == known[i].format, "%s", known[i].path);
    char dropped[160] = "";
    for (int i = 0; i < 100; i++) {
        char name[5] = {'t', (char)('A' + i % 26), (char)('A' + i % 25), 't', 0};
        drop_from_picture(dropped, name);
        drop_from_picture(dropped, "tAAt");
        CHECK(strlen(dropped) < sizeof dropped);
    }
    CHECK(!strncmp(dropped, "tAAt, tBBt, tCCt", 16) && strstr(dropped, ", ..."), "%s", dropped);
    CHECK(!strstr(dropped + 1, "tAAt"), "%s", dropped);
}

int main(void) {
    make_tmp();
    GROUP(deflate_there_and_back);
    GROUP(inflate_of_others);
    GROUP(all_kinds);
    GROUP(refused_pngs);
    GROUP(large_claims);
    GROUP(written_and_read);
    GROUP(pnm);
    GROUP(bmp);
    GROUP(layouts);
    GROUP(damage);
    GROUP(damaged_streams);
    GROUP(names);
    return 0;
}
