/* test_codec_mulaw.c - contents MULAW: sound as mu-law samples, compressed with contexts made for
 * it, alone and beside the model. */
#include "codec_fixtures.h"

enum { TONE = 24000, LOUD = 3000, N = TONE + 3 * LOUD };

/* A swinging tone whose pitch rises, silence (both zeros), full scale, noise. */
static uint8_t *make_sound(void) {
    uint8_t *bytes = need(N, 1);
    int32_t x = 3000, y = 0;
    seed_random(7);
    for (int i = 0; i < TONE; i++) { /* a rotation by integers, and noise */
        x -= y / 5 + i / 9000 * y / 16;
        y += x / 5 + i / 9000 * x / 16;
        if (x > 6000 || x < -6000) x = x * 3 / 4;
        if (y > 6000 || y < -6000) y = y * 3 / 4;
        int32_t s = x + (int32_t)random_below(300) - 150;
        uint32_t size = (uint32_t)(s < 0 ? -s : s) + 33, e = 0;
        while (size >> (e + 6)) e++;
        bytes[i] = (uint8_t) ~((s < 0 ? 128u : 0) | e << 4 | (size >> (e + 1) & 15));
    }
    for (int i = 0; i < LOUD; i++) {
        bytes[TONE + i] = i % 700 < 600 ? 0xff : 0x7f;
        bytes[TONE + LOUD + i] = i % 50 < 25 ? 0x00 : 0x80;
        bytes[TONE + 2 * LOUD + i] = (uint8_t)random_below(256);
    }
    return bytes;
}

/* At every level; the same bytes on every machine. */
static void levels(void) {
    static const struct {
        size_t n;
        uint64_t digest;
    } pinned[10] = {[1] = {N, 0xa19e7ec496971646},
                    [4] = {N, 0x0f38083dbda1e4f9},
                    [7] = {4000, 0x0cc4f071806ae7ea}};
    uint8_t *bytes = make_sound();
    buffer packed = {0}, back = {0};
    megabyte_file_header h;
    megabyte_error error;
    for (int level = 1; level <= 9; level++) {
        size_t n = level < 5 ? N : 4000;
        megabyte_codec_options o = {.level = level, .contents = MEGABYTE_CONTENTS_MULAW};
        name_case("level %d", level);
        compress_once(tiny->model, &o, bytes, n, &packed);
        OK(megabyte_file_header_read(packed.bytes, packed.n, &h, NULL));
        CHECK(h.format_version == (level < 5    ? 3u
                                   : level == 5 ? 1u
                                                : 6u) &&
              h.has_model == (level > 4) &&
              h.contents == (level == 5 ? MEGABYTE_CONTENTS_GENERAL : MEGABYTE_CONTENTS_MULAW));
        o = (megabyte_codec_options){.block_size = N, .mixing_memory = 64};
        OK(decompress_once(level < 5 ? NULL : tiny->model, &o, packed.bytes, packed.n, N, &back,
                           &error));
        CHECK(same(back.bytes, back.n, bytes, n));
        if (pinned[level].n)
            CHECK(digest_of(&packed) == pinned[level].digest, "0x%016llx, %zu bytes",
                  (unsigned long long)digest_of(&packed), packed.n);
    }
    free(bytes);
    free(packed.bytes);
    free(back.bytes);
}

/* Contexts made for it are a tenth and more below those for all. */
static void gain(void) {
    uint8_t *bytes = make_sound();
    size_t was[2];
    buffer packed = {0};
    for (int c = 0; c < 2; c++) {
        megabyte_codec_options o = {.level = 3, .contents = (megabyte_contents)c};
        compress_once(NULL, &o, bytes, TONE, &packed);
        was[c] = packed.n;
    }
    CHECK(was[1] < was[0] * 9 / 10, "%zu bytes, general %zu", was[1], was[0]);
    free(bytes);
    free(packed.bytes);
}

/* What makes no use of contents is a file of an older version; a dictionary and messages do not go
 * with them. */
static void refused(void) {
    const megabyte_codec_options with[] = {
        {.contents = MEGABYTE_CONTENTS_COUNT},
        {.contents = (megabyte_contents)-1},
        {.contents = MEGABYTE_CONTENTS_MULAW, .dictionary = "ab", .dictionary_size = 2}};
    const megabyte_codec_options plain = {.contents = MEGABYTE_CONTENTS_MULAW};
    size_t size;
    buffer a = {0}, b = {0};
    for (size_t i = 0; i < COUNT_OF(with); i++)
        CHECK_STATUS(megabyte_codec_size(tiny->model, MEGABYTE_MODE_COMPRESS, &with[i], &size),
                     MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(megabyte_codec_size(tiny->model, MEGABYTE_MODE_MESSAGES, &plain, &size),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    OK(megabyte_codec_size(tiny->model, MEGABYTE_MODE_DECOMPRESS, &plain, &size));
    for (int level = 1; level <= 5; level += 4) { /* stored; by the model alone */
        megabyte_codec_options of = {.level = level}, as = of;
        as.contents = MEGABYTE_CONTENTS_MULAW;
        const uint8_t *text = (const uint8_t *)"abcabcabcabc";
        compress_once(tiny->model, &of, text, level == 1 ? 1 : 12, &a);
        compress_once(tiny->model, &as, text, level == 1 ? 1 : 12, &b);
        CHECK(same(a.bytes, a.n, b.bytes, b.n));
    }
    free(a.bytes);
    free(b.bytes);
}

/* Headers of version 3, with and without a model: the contents come after the shape, and are never
 * GENERAL. */
static void headers(void) {
    static const struct {
        uint8_t version, flags, shape, contents;
        int status;
    } row[] = {{3, 0, 0x10, 1, MEGABYTE_OK},
               {3, 8, 0x10, 1, MEGABYTE_OK},
               {3, 8, 0x12, 1, MEGABYTE_OK}, /* context_shift */
               {3, 0, 0x12, 1, MEGABYTE_ERROR_CORRUPT},
               {3, 0, 0x10, 0, MEGABYTE_ERROR_CORRUPT},
               {3, 0, 0x10, 2, MEGABYTE_ERROR_CORRUPT},
               {3, 8, 0x10, 255, MEGABYTE_ERROR_CORRUPT},
               {3, 4, 0x10, 1, MEGABYTE_ERROR_CORRUPT}, /* a dictionary */
               {3, 16, 0x10, 1, MEGABYTE_ERROR_CORRUPT},
               {3, 0, 0x00, 1, MEGABYTE_ERROR_CORRUPT}, /* no context mixing */
               {2, 8, 0x10, 1, MEGABYTE_ERROR_CORRUPT},
               {1, 8, 0x10, 1, MEGABYTE_ERROR_CORRUPT},
               {7, 0, 0x10, 1, MEGABYTE_ERROR_BAD_VERSION}};
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        uint8_t h[32] = {0xb5, 'm', 'b', 'z', row[i].version, row[i].flags, 2};
        size_t n = 7;
        megabyte_file_header got;
        n += row[i].version == 1 || row[i].flags & 8 ? 6 : 0;
        h[n++] = row[i].shape;
        h[n++] = row[i].contents;
        h[n++] = 100; /* bytes in a block */
        n += row[i].flags & 4 ? 4 : 0;
        ref_sign_header(h, n += 2);
        name_case("version %d, flags %d, contents %d", row[i].version, row[i].flags,
                  row[i].contents);
        CHECK_STATUS(megabyte_file_header_read(h, n, &got, NULL), (megabyte_status)row[i].status);
        if (!row[i].status)
            CHECK(got.contents == MEGABYTE_CONTENTS_MULAW && got.format_version == 3 &&
                  got.has_model == (row[i].flags == 8) && got.header_bytes == n &&
                  got.block_size == 100);
        for (size_t cut = 0; cut < n; cut++)
            CHECK(megabyte_file_header_read(h, cut, &got, NULL) != MEGABYTE_OK);
    }
}

/* Every changed bit is found; a codec for less memory says what it lacks. */
static void damage(void) {
    uint8_t *bytes = make_sound();
    buffer packed = {0}, back = {0};
    megabyte_error error;
    megabyte_codec_options o = {.level = 2, .block_size = 700, .contents = MEGABYTE_CONTENTS_MULAW};
    const megabyte_codec_options small = {.mixing_memory = 1};
    compress_once(NULL, &o, bytes + TONE - 500, 1200, &packed);
    OK(decompress_once(NULL, &small, packed.bytes, packed.n, 1200, &back, &error));
    CHECK(same(back.bytes, back.n, bytes + TONE - 500, 1200));
    for (size_t i = 0; i < packed.n; i++) {
        packed.bytes[i] ^= (uint8_t)(1 << i % 8);
        name_case("byte %zu of %zu", i, packed.n);
        CHECK(decompress_once(NULL, &small, packed.bytes, packed.n, 1200, &back, &error));
        packed.bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    free(bytes);
    free(packed.bytes);
    free(back.bytes);
}

/* A header of 30 bytes cannot ask for much work: contexts made for sound are slower than others. */
static void ratio(void) {
    enum { CLAIMED = 12 << 20 };
    static const struct {
        uint8_t version;
        uint64_t max_ratio;
        int status;
    } row[] = {{2, 1, MEGABYTE_ERROR_CORRUPT},
               {3, 1, MEGABYTE_ERROR_LIMIT},
               {3, 1 << 20, MEGABYTE_ERROR_CORRUPT}};
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        uint8_t h[64] = {0xb5, 'm', 'b', 'z', row[i].version, 1 | 3 << 4, 2, 0x10};
        size_t n = 8;
        megabyte_codec_options o = {
            .block_size = CLAIMED, .mixing_memory = 1, .max_ratio = row[i].max_ratio};
        buffer back = {0};
        megabyte_error error;
        if (row[i].version == 3) h[n++] = MEGABYTE_CONTENTS_MULAW;
        for (uint32_t v = CLAIMED; v; v >>= 7) h[n++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
        h[n++] = 8; /* bytes of code */
        ref_sign_header(h, n += 2);
        for (int k = 0; k < 12; k++) h[n++] = (uint8_t)(77 * k + 3);
        name_case("version %d, max_ratio %d", row[i].version, (int)row[i].max_ratio);
        CHECK_STATUS(decompress_once(NULL, &o, h, n, CLAIMED, &back, &error),
                     (megabyte_status)row[i].status);
        free(back.bytes);
    }
}

/* Contents only tell contexts where to look: any bytes, in pieces, in one codec after a reset. */
static void any_bytes(void) {
    megabyte_codec_options o = {
        .level = 1, .verify = 1, .streams = 2, .contents = MEGABYTE_CONTENTS_MULAW};
    const megabyte_codec_options most = {.mixing_memory = 1};
    buffer packed = {0}, back = {0};
    megabyte_error error;
    seed_random(3);
    for (size_t n = 0; n < 1500; n += 1 + n / 3) {
        uint8_t *bytes = need(n + 1, 1);
        for (size_t i = 0; i < n; i++) bytes[i] = text[random_below(3) ? i : i / 2];
        name_case("%zu bytes", n);
        compress_once(NULL, &o, bytes, n, &packed);
        OK(decompress_once(NULL, &most, packed.bytes, packed.n, n, &back, &error));
        CHECK(same(back.bytes, back.n, bytes, n));
        free(bytes);
    }
    free(packed.bytes);
    free(back.bytes);
}

int main(int argc, char **argv) {
    set_up("mulaw", 1, argc > 1 ? argv[1] : NULL);
    RUN(levels);
    RUN(gain);
    RUN(refused);
    RUN(headers);
    RUN(damage);
    RUN(ratio);
    RUN(any_bytes);
    tear_down();
    return 0;
}
