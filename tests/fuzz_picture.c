/* fuzz_picture.c - any bytes as a picture: PNG (with its checksums mended, too), PNM, BMP. What is
 * read must come back the same from each kind of file. No crash, no hang, no memory beyond what is
 * allowed. libFuzzer's way in:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_picture.c -o fuzz -lm
 *     ./fuzz -max_total_time=60 FOLDER_OF_SEEDS
 *
 * With -DSTANDALONE, a program that spoils right pictures at random, COUNT times; with a FOLDER it
 * also leaves those pictures there, as seeds, and in FOLDER/read what was read of each, as PNM and
 * as PNG:
 *
 *     fuzz_picture COUNT SEED [FOLDER] */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    read_twice(data, size);
    return 0;
}

#if defined(STANDALONE)
enum { SEEDS = 64 };
static file seeds[SEEDS];
static unsigned n_seeds;

static void make_seeds(void) {
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

static void leave_seed(const char *folder, unsigned i) {
    const file *seed = &seeds[i];
    char path[4096], why[256];
    picture p;
    CHECK(read_picture(&p, seed->data, seed->n, MOST, why), "seed %u: %s", i, why);
    for (int format = PICTURE_PNG; folder && format <= PICTURE_PNM; format++) {
        uint8_t *out;
        size_t n;
        CHECK(write_picture(&p, (picture_format)format, &out, &n, why), "%s", why);
        snprintf(path, sizeof path, "%s/read/%u.%s", folder, i,
                 format == PICTURE_PNG ? "png" : "pnm");
        write_file(path, out, n);
        free(out);
    }
    snprintf(path, sizeof path, "%s/%u", folder ? folder : "", i);
    if (folder) write_file(path, seed->data, seed->n);
    free_picture(&p);
}

static void spoil(uint8_t *p, size_t n) {
    static const uint32_t numbers[] = {0,   1,     2,          8,          255,
                                       256, 65535, 0x7fffffff, 0x80000000, UINT32_MAX};
    size_t at = random_below(n), from = random_below(n), length = random_below(30),
           longest = n - (at > from ? at : from);
    if (length > longest) length = longest;
    switch (random_below(6)) {
    case 0:
    case 1: p[at] ^= (uint8_t)(1u << random_below(8)); break;
    case 2: p[at] = (uint8_t)random64(); break;
    case 3:
        if (n - at >= 4) put32(p + at, numbers[random_below(COUNT_OF(numbers))]);
        break;
    case 4: memmove(p + at, p + from, length); break;
    default: memmove(p + at + length, p + at, n - at - length); break;
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: fuzz_picture COUNT SEED [FOLDER]\n");
        return 2;
    }
    uint64_t count = strtoull(argv[1], NULL, 10), n_read = 0;
    seed_random(1);
    make_seeds();
    for (unsigned i = 0; i < n_seeds; i++) leave_seed(argc > 3 ? argv[3] : NULL, i);
    for (uint64_t i = 0; i < count; i++) {
        seed_random(strtoull(argv[2], NULL, 10) * 1000003 + i);
        const file *seed = &seeds[random_below(n_seeds)];
        size_t n = random_below(20) ? seed->n : 1 + random_below(seed->n),
               times = 1 + random_below(4);
        uint8_t *p = need(n, 1); /* of the size itself: reading past it shows */
        memcpy(p, seed->data, n);
        while (times--) spoil(p, n);
        n_read += (uint64_t)read_twice(p, n);
        free(p);
    }
    printf("%llu mutations: %llu were pictures still\n", (unsigned long long)count,
           (unsigned long long)n_read);
    return 0;
}
#endif
