/* test_codec_pcm.c - contents PCM: sound as linear samples of several channels, compressed with
 * contexts made for it, at every level without the model. */
#include "codec_fixtures.h"

static const struct {
    megabyte_contents contents;
    uint32_t bytes, is_big;
} forms[] = {{MEGABYTE_CONTENTS_PCM8, 1, 0},
             {MEGABYTE_CONTENTS_PCM16, 2, 0},
             {MEGABYTE_CONTENTS_PCM24, 3, 0},
             {MEGABYTE_CONTENTS_PCM16_BIG, 2, 1},
             {MEGABYTE_CONTENTS_PCM24_BIG, 3, 1}};
enum { FRAMES = 6000, LARGEST = FRAMES * 2 * 3 };

/* Two channels: resonances that a glottis strikes, and the same later and softer with noise;
 * silence; full scale. In integers, so that it is the same everywhere. */
static int32_t sound_at(uint32_t frame, uint32_t channel) {
    static int32_t x[FRAMES][2];
    static int made;
    if (!made) {
        int32_t a = 0, b = 0, c = 0, d = 0;
        seed_random(11);
        for (int i = 0; i < FRAMES; i++) {
            if (i % (110 + i / 1000) == 0) b += 400000, d -= 300000;
            a -= b / 6, b += a / 6 - b / 40;
            c -= d / 3, d += c / 3 - d / 25;
            x[i][0] = (a + c) / 64 + (int32_t)random_below(41) - 20;
            x[i][1] = (i < 9 ? 0 : x[i - 9][0] / 2) + (int32_t)random_below(81) - 40;
            if (i % 2000 >= 1800) x[i][0] = x[i][1] = 0;
            if (i % 2000 >= 1960) x[i][0] = i % 20 < 10 ? 32767 : -32768;
        }
        made = 1;
    }
    return x[frame][channel];
}

/* n bytes of `form`, of the first `channels` of them. */
static void make_samples(uint8_t *to, size_t n, size_t form, uint32_t channels) {
    uint32_t width = forms[form].bytes;
    for (size_t i = 0; i < n; i++) {
        size_t sample = i / width, at = i % width;
        uint32_t v = (uint32_t)sound_at((uint32_t)(sample / channels),
                                        (uint32_t)(sample % channels));
        uint32_t noise = (uint32_t)sample * 2654435761u;
        noise = (noise ^ noise >> 15) * 2246822519u >> 24;
        v = width == 1 ? (v + 0x8000) >> 8 : width == 3 ? v << 8 | noise : v;
        to[i] = (uint8_t)(v >> 8 * (forms[form].is_big ? width - 1 - at : at));
    }
}

/* At every level, with a model and without; the same bytes on every machine. */
static void levels(void) {
    static const uint64_t pinned[10] = {[1] = 0xfce9207a34c886f6, [4] = 0xacc10d618a3c58e9};
    static uint8_t bytes[4 * FRAMES];
    buffer packed = {0}, other = {0}, back = {0};
    megabyte_file_header h;
    megabyte_error error;
    make_samples(bytes, sizeof bytes, 1, 2);
    for (int level = 1; level <= 9; level++) {
        megabyte_codec_options o = {
            .level = level, .contents = MEGABYTE_CONTENTS_PCM16, .channels = 2};
        size_t n = level == 5 ? 1000 : sizeof bytes;
        name_case("level %d", level);
        compress_once(tiny->model, &o, bytes, n, &packed);
        OK(megabyte_file_header_read(packed.bytes, packed.n, &h, NULL));
        CHECK(h.format_version == (level == 5 ? 1u : 4u) && h.has_model == (level == 5) &&
              h.contents == (level == 5 ? MEGABYTE_CONTENTS_GENERAL : MEGABYTE_CONTENTS_PCM16) &&
              h.channels == (level == 5 ? 0 : 2));
        if (level != 5) {
            compress_once(NULL, &o, bytes, n, &other);
            CHECK(same(packed.bytes, packed.n, other.bytes, other.n), "without a model");
        }
        o = (megabyte_codec_options){.block_size = LARGEST, .mixing_memory = 64};
        OK(decompress_once(level == 5 ? tiny->model : NULL, &o, packed.bytes, packed.n, n, &back,
                           &error));
        CHECK(same(back.bytes, back.n, bytes, n));
        if (pinned[level])
            CHECK(digest_of(&packed) == pinned[level], "0x%016llx, %zu bytes",
                  (unsigned long long)digest_of(&packed), packed.n);
    }
    free(packed.bytes);
    free(other.bytes);
    free(back.bytes);
}

/* What is compressed is the samples, whatever bytes they are in; and they are what the contexts are
 * made for. */
static void gain(void) {
    static uint8_t bytes[COUNT_OF(forms)][4 * FRAMES];
    buffer packed[COUNT_OF(forms)] = {{0}}, was = {0};
    megabyte_file_header h;
    for (size_t f = 0; f < COUNT_OF(forms); f++) {
        const size_t n = (forms[f].bytes > 1 ? 4 : 2) * FRAMES;
        megabyte_codec_options o = {.level = 3, .channels = 2};
        name_case("contents %d", forms[f].contents);
        make_samples(bytes[f], n, f, 2);
        compress_once(NULL, &o, bytes[f], n, &was);
        o.contents = forms[f].contents;
        compress_once(NULL, &o, bytes[f], n, &packed[f]);
        CHECK(packed[f].n < was.n * 19 / 20, "%zu bytes, general %zu", packed[f].n, was.n);
        if (!forms[f].is_big) continue;
        size_t same_order = f - 2, code = packed[f].n;
        OK(megabyte_file_header_read(packed[f].bytes, code, &h, NULL));
        code -= h.header_bytes + 4u;
        CHECK(packed[f].n == packed[same_order].n &&
              !memcmp(packed[f].bytes + h.header_bytes, packed[same_order].bytes + h.header_bytes,
                      code));
    }
    for (size_t f = 0; f < COUNT_OF(forms); f++) free(packed[f].bytes);
    free(was.bytes);
}

/* A wrong number of channels costs ratio. */
static void channels(void) {
    static uint8_t bytes[4 * FRAMES];
    size_t was[4];
    buffer packed = {0};
    make_samples(bytes, sizeof bytes, 1, 2);
    for (uint32_t c = 0; c < 4; c++) {
        megabyte_codec_options o = {.level = 1, .contents = MEGABYTE_CONTENTS_PCM16, .channels = c};
        compress_once(NULL, &o, bytes, sizeof bytes, &packed);
        was[c] = packed.n;
    }
    CHECK(was[0] == was[1] && was[2] < was[1] * 98 / 100 && was[2] < was[3] * 98 / 100,
          "%zu, %zu, %zu", was[1], was[2], was[3]);
    free(packed.bytes);
}

/* Blocks end where all channels do. */
static void blocks(void) {
    static const struct {
        uint64_t size;
        uint32_t asked, streams, channels, is;
        megabyte_contents contents;
    } row[] = {{0, 0, 0, 0, 262144, MEGABYTE_CONTENTS_PCM16},
               {0, 0, 0, 3, 262143, MEGABYTE_CONTENTS_PCM24},
               {0, 1000, 0, 3, 996, MEGABYTE_CONTENTS_PCM16},
               {0, 1000, 0, 3, 1000, MEGABYTE_CONTENTS_MULAW},
               {0, 5, 0, 3, 5, MEGABYTE_CONTENTS_PCM16},
               {0, 6, 0, 3, 6, MEGABYTE_CONTENTS_PCM16_BIG},
               {50001, 0, 3, 2, 16664, MEGABYTE_CONTENTS_PCM16_BIG},
               {0, 7, 0, 8, 7, MEGABYTE_CONTENTS_PCM8},
               {0, 23, 0, 0, 21, MEGABYTE_CONTENTS_PCM24_BIG}};
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        megabyte_codec_options o = {.size = row[i].size,
                                    .block_size = row[i].asked,
                                    .streams = row[i].streams,
                                    .contents = row[i].contents,
                                    .channels = row[i].channels};
        CHECK(megabyte_codec_block_size(&o) == row[i].is, "row %zu: %u", i,
              megabyte_codec_block_size(&o));
    }
}

static void refused(void) {
    const megabyte_codec_options with[] = {
        {.contents = MEGABYTE_CONTENTS_PCM16, .channels = 9},
        {.contents = MEGABYTE_CONTENTS_PCM16, .channels = UINT32_MAX},
        {.contents = MEGABYTE_CONTENTS_COUNT, .channels = 1},
        {.contents = MEGABYTE_CONTENTS_PCM8, .dictionary = "ab", .dictionary_size = 2},
        {.contents = MEGABYTE_CONTENTS_PCM24, .file_type = "wav"},
        {.contents = MEGABYTE_CONTENTS_PCM16,
         .level = 3,
         .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING}};
    const megabyte_codec_options alone = {.contents = MEGABYTE_CONTENTS_PCM16,
                                          .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING};
    size_t size;
    buffer a = {0};
    megabyte_file_header h;
    for (size_t i = 0; i < COUNT_OF(with); i++)
        CHECK_STATUS(megabyte_codec_size(tiny->model, MEGABYTE_MODE_COMPRESS, &with[i], &size),
                     MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(megabyte_codec_size(tiny->model, MEGABYTE_MODE_MESSAGES, &alone, &size),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    /* without context mixing the model is all that there is */
    CHECK_STATUS(megabyte_codec_size(NULL, MEGABYTE_MODE_COMPRESS, &alone, &size),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    compress_once(tiny->model, &alone, text, 300, &a);
    OK(megabyte_file_header_read(a.bytes, a.n, &h, NULL));
    CHECK(h.format_version == 1 && !h.contents && !h.channels);
    free(a.bytes);
}

/* Headers of version 4: the contents, then the channels; never a model, a dictionary, a context. */
static void headers(void) {
    static const struct {
        uint8_t version, flags, shape, contents, channels;
        int status;
    } row[] = {{4, 0, 0x10, 2, 1, MEGABYTE_OK},
               {4, 0, 0x40, 6, 8, MEGABYTE_OK},
               {4, 0, 0x10, 3, 0, MEGABYTE_ERROR_CORRUPT},
               {4, 0, 0x10, 3, 9, MEGABYTE_ERROR_CORRUPT},
               {4, 0, 0x10, 3, 255, MEGABYTE_ERROR_CORRUPT},
               {4, 0, 0x10, 0, 1, MEGABYTE_ERROR_CORRUPT},
               {4, 0, 0x10, 1, 1, MEGABYTE_ERROR_CORRUPT},
               {4, 0, 0x10, 7, 1, MEGABYTE_ERROR_CORRUPT},
               {4, 0, 0x10, 255, 1, MEGABYTE_ERROR_CORRUPT},
               {4, 8, 0x10, 3, 1, MEGABYTE_ERROR_CORRUPT},
               {4, 4, 0x10, 3, 1, MEGABYTE_ERROR_CORRUPT},
               {4, 0, 0x12, 3, 1, MEGABYTE_ERROR_CORRUPT},
               {4, 0, 0x00, 3, 1, MEGABYTE_ERROR_CORRUPT},
               {3, 0, 0x10, 3, 1, MEGABYTE_ERROR_CORRUPT},
               {7, 0, 0x10, 3, 1, MEGABYTE_ERROR_BAD_VERSION}};
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        uint8_t h[32] = {0xb5, 'm', 'b', 'z', row[i].version, row[i].flags, 2};
        size_t n = 7;
        megabyte_file_header got;
        n += row[i].flags & 8 ? 6 : 0;
        h[n++] = row[i].shape;
        h[n++] = row[i].contents;
        if (row[i].version > 3) h[n++] = row[i].channels;
        h[n++] = 100; /* bytes in a block */
        n += row[i].flags & 4 ? 4 : 0;
        ref_sign_header(h, n += 2);
        name_case("row %zu", i);
        CHECK_STATUS(megabyte_file_header_read(h, n, &got, NULL), (megabyte_status)row[i].status);
        if (!row[i].status)
            CHECK(got.contents == (megabyte_contents)row[i].contents &&
                  got.channels == row[i].channels && got.format_version == 4 && !got.has_model &&
                  got.header_bytes == n && got.block_size == 100);
        for (size_t cut = 0; cut < n; cut++)
            CHECK(megabyte_file_header_read(h, cut, &got, NULL) != MEGABYTE_OK);
    }
}

/* Every changed bit is found, in headers and code. */
static void damage(void) {
    static uint8_t bytes[1203];
    buffer packed = {0}, back = {0};
    megabyte_error error;
    megabyte_codec_options o = {
        .level = 2, .block_size = 700, .contents = MEGABYTE_CONTENTS_PCM16, .channels = 2};
    const megabyte_codec_options small = {.mixing_memory = 1};
    make_samples(bytes, sizeof bytes, 1, 2);
    compress_once(NULL, &o, bytes, sizeof bytes, &packed);
    OK(decompress_once(NULL, &small, packed.bytes, packed.n, sizeof bytes, &back, &error));
    CHECK(same(back.bytes, back.n, bytes, sizeof bytes));
    for (size_t i = 0; i < packed.n; i++) {
        packed.bytes[i] ^= (uint8_t)(1 << i % 8);
        name_case("byte %zu of %zu", i, packed.n);
        CHECK(decompress_once(NULL, &small, packed.bytes, packed.n, sizeof bytes, &back, &error));
        packed.bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    for (size_t n = 0; n < packed.n; n += 7) {
        name_case("the first %zu bytes", n);
        CHECK(decompress_once(NULL, &small, packed.bytes, n, sizeof bytes, &back, &error));
    }
    free(packed.bytes);
    free(back.bytes);
}

/* Any bytes, also a part of a sample at the end, cut into blocks and calls anywhere. */
static void any_bytes(void) {
    const megabyte_codec_options most = {.mixing_memory = 1, .streams = 3};
    buffer packed = {0}, back = {0};
    megabyte_error error;
    seed_random(3);
    for (uint32_t i = 0; i < 60; i++) {
        size_t n = i < 20 ? i : 20 + random_below(2500), f = i % COUNT_OF(forms);
        megabyte_codec_options o = {.level = 1,
                                    .verify = (int)(i & 1),
                                    .streams = 1 + i % 3,
                                    .block_size = 1 + random_below(1500),
                                    .contents = forms[f].contents,
                                    .channels = i % 9};
        uint8_t *bytes = need(n + 1, 1);
        random_bytes(bytes, n, 256);
        if (i % 4 == 0) make_samples(bytes, n, f, 1 + i % 2);
        if (i % 4 == 1) memcpy(bytes, text, n);
        if (i % 4 == 2)
            for (size_t k = 0; k < n; k++) bytes[k] = k / 300 % 2 ? 0 : bytes[k] & 1 ? 255 : 128;
        name_case("%zu bytes of contents %d, %u channels", n, o.contents, o.channels);
        compress_once(NULL, &o, bytes, n, &packed);
        OK(decompress_once(i & 2 ? NULL : tiny->model, &most, packed.bytes, packed.n, n, &back,
                           &error));
        CHECK(same(back.bytes, back.n, bytes, n));
        free(bytes);
    }
    free(packed.bytes);
    free(back.bytes);
}

/* After a flush a block begins, and in it the first channel. */
static void flushed(void) {
    static uint8_t bytes[4 * FRAMES + 44], out[3][4 * FRAMES + 200];
    size_t n[3] = {0}, used, got;
    memcpy(bytes, text, 44);
    make_samples(bytes + 44, 4 * FRAMES, 1, 2);
    for (size_t where = 0; where < 3; where++) {
        const size_t end[] = {where == 0 ? 44 : where == 1 ? 45 : 46, sizeof bytes};
        megabyte_codec_options o = {
            .level = 1, .block_size = 65536, .contents = MEGABYTE_CONTENTS_PCM16, .channels = 2};
        megabyte_codec *codec;
        OK(megabyte_codec_create(&codec, NULL, MEGABYTE_MODE_COMPRESS, &o, NULL, NULL));
        for (size_t i = 0, at = 0; i < 2; i++) {
            OK(megabyte_codec_push(codec, bytes + at, end[i] - at, &used));
            CHECK(used == end[i] - at);
            at = end[i];
            OK(i ? megabyte_codec_finish(codec) : megabyte_codec_flush(codec));
            do {
                OK(megabyte_codec_pull(codec, out[where] + n[where], sizeof out[where] - n[where],
                                       &got));
                n[where] += got;
            } while (got);
        }
        megabyte_codec_free(codec);
    }
    CHECK(n[0] < n[2] && n[2] < n[1], "%zu, %zu, %zu bytes", n[0], n[1], n[2]);
}

/* What hardly changes behind a sound costs hardly anything. */
static void silence(void) {
    enum { LONG = 150000 };
    uint8_t *bytes = need(LONG, 1);
    buffer packed = {0};
    megabyte_codec_options o = {
        .level = 1, .block_size = LONG, .contents = MEGABYTE_CONTENTS_PCM16, .channels = 2};
    make_samples(bytes, 8000, 1, 2);
    for (size_t i = 8000; i < LONG; i += 2) bytes[i] = i % 4 ? 0 : i / 4 % 3 == 0;
    compress_once(NULL, &o, bytes, LONG, &packed);
    CHECK(packed.n < 6000, "%zu bytes", packed.n);
    free(bytes);
    free(packed.bytes);
}

/* Headers of 30 bytes cannot ask for much work. */
static void ratio(void) {
    enum { CLAIMED = 12 << 20 };
    static const struct {
        uint64_t max_ratio;
        int status;
    } row[] = {{1, MEGABYTE_ERROR_LIMIT}, {1 << 20, MEGABYTE_ERROR_CORRUPT}};
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        uint8_t h[64] = {0xb5, 'm', 'b', 'z', 4, 1 | 3 << 4, 2, 0x10, MEGABYTE_CONTENTS_PCM16, 2};
        size_t n = 10;
        const megabyte_codec_options o = {
            .block_size = CLAIMED, .mixing_memory = 1, .max_ratio = row[i].max_ratio};
        buffer back = {0};
        megabyte_error error;
        for (uint32_t v = CLAIMED; v; v >>= 7) h[n++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
        h[n++] = 8; /* bytes of code */
        ref_sign_header(h, n += 2);
        for (int k = 0; k < 12; k++) h[n++] = (uint8_t)(77 * k + 3);
        name_case("max_ratio %d", (int)row[i].max_ratio);
        CHECK_STATUS(decompress_once(NULL, &o, h, n, CLAIMED, &back, &error),
                     (megabyte_status)row[i].status);
        free(back.bytes);
    }
}

int main(int argc, char **argv) {
    set_up("pcm", 1, argc > 1 ? argv[1] : NULL);
    RUN(levels);
    RUN(gain);
    RUN(channels);
    RUN(blocks);
    RUN(refused);
    RUN(headers);
    RUN(damage);
    RUN(any_bytes);
    RUN(flushed);
    RUN(silence);
    RUN(ratio);
    tear_down();
    return 0;
}
