/* fuzz_picture.c - any bytes as a picture: PNG (with its checksums mended, too), PNM, BMP. What is
 * read must come back the same from each kind of file. No crash, no hang, no memory beyond what is
 * allowed. See fuzz.h; FOLDER/read receives what was read of each seed, as PNM and as PNG. */
#define _GNU_SOURCE
#include "test.h"

/* What is asked for is counted. */
static size_t asked;
static void *fuzz_malloc(size_t size) {
    asked += size;
    return malloc(size);
}
#define malloc fuzz_malloc
#include "pictures.h"
#undef malloc

#include "fuzz.h"

static void written_and_read(const picture *p) {
    for (int format = PICTURE_PNG; format <= PICTURE_BMP; format++) {
        char why[256];
        uint8_t *out;
        size_t n;
        picture back;
        CHECK(write_picture(p, (picture_format)format, &out, &n, why), "%s", why);
        CHECK(read_picture(&back, out, n, MOST, why), "%s", why);
        CHECK(back.width == p->width && back.height == p->height && back.channels == p->channels);
        CHECK(!memcmp(back.pixels, p->pixels, (size_t)p->width * p->height * p->channels));
        free_picture(&back);
        free(out);
    }
}

static void split_and_join(const uint8_t *data, size_t n) {
    static uint8_t layout[LAYOUT_MOST];
    char why[256];
    picture p;
    size_t n_layout;
    joined_size(9, 9, 3, data, n); /* any bytes as a layout */
    if (!split_picture_file(&p, layout, &n_layout, data, n, MOST, why)) return;
    CHECK(joined_size(p.width, p.height, p.channels, layout, n_layout) == n);
    uint8_t *back = need(n, 1);
    join_picture_file(&p, layout, n_layout, back);
    CHECK(!memcmp(back, data, n));
    free(back);
    free_picture(&p);
}

/* Returns 1 if it was read. */
static int read_any(const uint8_t *data, size_t n) {
    char why[256] = "";
    picture p;
    raster r;
    asked = 0;
    int is_read = read_picture(&p, data, n, MOST, why);
    CHECK(asked <= n + 2 * (size_t)MOST + (MOST >> 3) + 2048 * n, "%zu bytes for %zu", asked, n);
    CHECK(is_read || *why, "refused without a word");
    find_raster(&r, data, n, why);
    split_and_join(data, n);
    if (is_read && (uint64_t)p.width * p.height < 1 << 16) written_and_read(&p);
    free_picture(&p);
    return is_read;
}

/* Writes the right checksum of every chunk, as far as they go. */
static void mend(uint8_t *data, size_t n) {
    for (size_t at = 8; n >= 12 && at <= n - 12;) {
        uint32_t length = get32(data + at);
        if (length > n - at - 12) return;
        put32(data + at + 8 + length, crc32(data + at + 4, 4 + (size_t)length));
        at += 12 + (size_t)length;
    }
}

static int read_twice(const uint8_t *data, size_t n) {
    int result = read_any(data, n);
    if (picture_format_of(data, n) != PICTURE_PNG) return result;
    uint8_t *mended = need(n, 1);
    memcpy(mended, data, n);
    mend(mended, n);
    result |= read_any(mended, n);
    free(mended);
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tally(read_twice(data, size) ? "read" : "refused");
    return 0;
}

#ifdef STANDALONE
enum { SEEDS = 64 };
static file seeds[SEEDS];
static unsigned n_seeds;

static void make_pictures(void) {
    static uint16_t samples[1 << 10];
    plan p;
    for (; kind_of_png(&p, n_seeds); n_seeds++) {
        p.width = 11;
        p.height = 6;
        p.sample = samples;
        p.piece = 60;
        p.n_palette = p.colour == 3 ? 1u << p.depth : 0;
        for (size_t i = 0; i < 66 * p.samples; i++) {
            unsigned v = (unsigned)random_below(p.depth < 8 ? 1u << p.depth : 256);
            if ((p.colour & 4) && i % p.samples == p.samples - 1) v = 255;
            samples[i] = (uint16_t)(p.depth == 16 ? v * 257 : v);
        }
        make_png(&p, &seeds[n_seeds]);
    }
    for (unsigned i = 0; i < 8; i++, n_seeds++) {
        char why[256];
        uint8_t pixels[7 * 5 * 3], *out;
        picture q = {.width = 7, .height = 5, .channels = i & 1 ? 3 : 1, .pixels = pixels};
        random_bytes(pixels, sizeof pixels, i < 6 ? 16 : 256);
        CHECK(write_picture(&q, (picture_format)(1 + i / 2 % 3), &out, &seeds[n_seeds].n, why));
        memcpy(seeds[n_seeds].data, out, seeds[n_seeds].n);
        free(out);
    }
    static const char *const plain[] = {"P2\n# c\n3 2\n255\n1 22 255 0 7 9\n",
                                        "P3 1 1 255 1 2 3\n"};
    for (unsigned i = 0; i < 2; i++, n_seeds++) {
        seeds[n_seeds].n = strlen(plain[i]);
        memcpy(seeds[n_seeds].data, plain[i], seeds[n_seeds].n);
    }
}

/* What is read of a seed. */
static void leave_read(unsigned i) {
    char path[4096], why[256];
    picture p;
    CHECK(read_picture(&p, seeds[i].data, seeds[i].n, MOST, why), "seed %u: %s", i, why);
    for (int format = PICTURE_PNG; seeds_folder && format <= PICTURE_PNM; format++) {
        uint8_t *out;
        size_t n;
        CHECK(write_picture(&p, (picture_format)format, &out, &n, why), "%s", why);
        snprintf(path, sizeof path, "%s/read/seed-%u.%s", seeds_folder, i,
                 format == PICTURE_PNG ? "png" : "pnm");
        write_file(path, out, n);
        free(out);
    }
    free_picture(&p);
}

static void make_seeds(void) {
    char path[4096];
    snprintf(path, sizeof path, "%s/read", seeds_folder ? seeds_folder : "");
    if (seeds_folder) mkdir(path, 0777);
    seed_random(1);
    make_pictures();
    for (unsigned i = 0; i < n_seeds; i++) {
        leave_read(i);
        add_seed(seeds[i].data, seeds[i].n);
    }
}
#endif
