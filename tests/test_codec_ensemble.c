/* test_codec_ensemble.c - the option `ensemble`: several streams of the model read each block,
 * parts of a patch apart, and their predictions are averaged. */
#include "codec_fixtures.h"

/* Bits of `bytes` by the geometric mean of what the streams give, decision by decision, in double.
 * Streams are fed what an ensemble's begin with: empty lines. */
static double reference_bits(const fixture *f, uint32_t ensemble, const uint8_t *bytes, size_t n) {
    megabyte_stream *s[4];
    double bits = 0;
    for (uint32_t k = 0; k < ensemble; k++) {
        s[k] = new_stream(f->model, NULL, 0);
        for (uint32_t i = 0; i < k * f->info.patch_bytes / ensemble; i++)
            OK(megabyte_stream_step(s[k], '\n'));
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t weight[4][256];
        for (uint32_t k = 0; k < ensemble; k++)
            ref_weights(megabyte_stream_logits(s[k]), weight[k]);
        for (int depth = 0; depth < 8; depth++) {
            int first = bytes[i] >> (8 - depth), bit = bytes[i] >> (7 - depth) & 1;
            double sum = 0;
            for (uint32_t k = 0; k < ensemble; k++) {
                double p = (double)ref_bit(weight[k], depth, first) / 4194304.0;
                sum += log(p / (1 - p));
            }
            double mean = sum / ensemble;
            bits += log2(1 + exp(bit ? -mean : mean));
        }
        for (uint32_t k = 0; k < ensemble; k++) OK(megabyte_stream_step(s[k], bytes[i]));
    }
    for (uint32_t k = 0; k < ensemble; k++) megabyte_stream_free(s[k]);
    return bits;
}

/* The code is as long as the averaged predictions say, also where contexts slide. */
static void averages(void) {
    buffer packed = {0};
    EACH_FIXTURE(f)
    for (uint32_t ensemble = 2; ensemble <= 4; ensemble *= 2) {
        enum { SOME = 1500 };
        const megabyte_codec_options o = {
            .level = 5, .ensemble = ensemble, .block_size = SOME, .size = SOME};
        double bits = reference_bits(f, ensemble, f->pool, SOME);
        name_case("%s, ensemble %u", f->y.name, ensemble);
        compress_once(f->model, &o, f->pool, SOME, &packed);
        CHECK(fabs((double)packed.n * 8 - bits) < 0.002 * bits + 40 * 8, "%zu bytes, %.1f bits",
              packed.n, bits);
    }
    free(packed.bytes);
}

/* There and back by every kind of decoder; the same bytes on every machine. */
static void every_decoder(void) {
    static const struct {
        int level;
        megabyte_contents contents;
        uint64_t digest[2];
    } row[] = {{5, MEGABYTE_CONTENTS_GENERAL, {0xe7d588f2b280af73, 0xb9cd4a21c5368e13}},
               {7, MEGABYTE_CONTENTS_GENERAL, {0x7bb7df08e273b1e1, 0xd8350d1b4b726177}},
               {5, MEGABYTE_CONTENTS_MULAW, {0xe7d588f2b280af73, 0xb9cd4a21c5368e13}},
               {7, MEGABYTE_CONTENTS_MULAW, {0x4c5a948116f6ca85, 0x1756d5d531c1cbd0}}};
    const megabyte_codec_options decoders[] = {
        {.ensemble = 4, .mixing_memory = 4},
        {.ensemble = 4, .mixing_memory = 4, .threads = 2, .streams = 3},
        {.ensemble = 4, .mixing_memory = 4, .streams = 6, .draft_max = MEGABYTE_NO_DRAFT},
        {.ensemble = 4, .mixing_memory = 4, .streams = 16, .draft_max = 4}};
    enum { SOME = 3000 };
    buffer packed = {0}, back = {0};
    megabyte_error error;
    megabyte_file_header h;
    EACH_FIXTURE(f)
    for (size_t i = 0; i < COUNT_OF(row); i++)
        for (uint32_t ensemble = 2; ensemble <= 4; ensemble *= 2) {
            const megabyte_codec_options o = {.level = row[i].level,
                                              .contents = row[i].contents,
                                              .ensemble = ensemble,
                                              .block_size = i % 2 ? SOME : 700,
                                              .verify = i == 1,
                                              .streams = 2};
            name_case("%s, level %d, contents %d, ensemble %u", f->y.name, row[i].level,
                      row[i].contents, ensemble);
            compress_once(f->model, &o, f->pool, SOME, &packed);
            OK(megabyte_file_header_read(packed.bytes, packed.n, &h, NULL));
            CHECK(h.format_version == (h.contents ? 6 : 5) && h.ensemble == ensemble &&
                  h.has_model &&
                  h.contents == (row[i].level == 5 ? MEGABYTE_CONTENTS_GENERAL : row[i].contents));
            for (size_t d = 0; d < COUNT_OF(decoders); d++) {
                OK(decompress_once(f->model, &decoders[d], packed.bytes, packed.n, SOME, &back,
                                   &error));
                CHECK(same(back.bytes, back.n, f->pool, SOME));
            }
            if (f == tiny)
                CHECK(digest_of(&packed) == row[i].digest[ensemble / 4], "0x%016llx",
                      (unsigned long long)digest_of(&packed));
        }
    free(packed.bytes);
    free(back.bytes);
}

/* An engine that scores a byte at a time writes the same. */
static void small_engine(void) {
    const megabyte_engine_options least = {.batch = 1};
    buffer packed = {0}, as = {0};
    EACH_FIXTURE(f) {
        megabyte_codec_options o = {.level = 6, .ensemble = 4};
        compress_once(f->model, &o, f->pool, 300, &packed);
        OK(megabyte_engine_create(&o.engine, f->model, &least, NULL, NULL));
        compress_once(f->model, &o, f->pool, 300, &as);
        CHECK(same(packed.bytes, packed.n, as.bytes, as.n));
        megabyte_engine_free(o.engine);
    }
    free(packed.bytes);
    free(as.bytes);
}

/* Any sizes, among them those where the model is not used: these are files of before. */
static void any_sizes(void) {
    buffer packed = {0}, back = {0};
    megabyte_error error;
    megabyte_file_header h;
    const megabyte_codec_options o = {.ensemble = 2, .level = 6},
                                 one = {.ensemble = 1, .mixing_memory = 4},
                                 two = {.ensemble = 2, .mixing_memory = 4};
    seed_random(5);
    for (size_t n = 0; n < 1200; n += 1 + n / 4)
        for (int kind = 0; kind < KINDS; kind++) {
            uint8_t *bytes = need(n + 1, 1);
            make_data(tiny, (enum kind)kind, bytes, n);
            name_case("%zu bytes of %s", n, kind_name[kind]);
            compress_once(tiny->model, &o, bytes, n, &packed);
            OK(megabyte_file_header_read(packed.bytes, packed.n, &h, NULL));
            OK(decompress_once(tiny->model, h.ensemble > 1 ? &two : &one, packed.bytes, packed.n, n,
                               &back, &error));
            CHECK(same(back.bytes, back.n, bytes, n));
            if (kind == ZEROS || n < 2) CHECK(h.format_version == 1 && h.ensemble == 1);
            free(bytes);
        }
    free(packed.bytes);
    free(back.bytes);
}

/* On text that the shipped model knows, two are better than one, and four than two. */
static void gain(void) {
    size_t was[3];
    buffer packed = {0};
    for (int i = 0; i < 3; i++) {
        const megabyte_codec_options o = {.level = 5, .ensemble = 1u << i};
        compress_once(text_small, &o, text, 4000, &packed);
        was[i] = packed.n;
    }
    CHECK(was[1] < was[0] && was[2] < was[1], "%zu, %zu, %zu bytes", was[0], was[1], was[2]);
    free(packed.bytes);
}

static void refused(void) {
    const megabyte_codec_options with[] = {
        {.ensemble = 3},
        {.ensemble = 5},
        {.ensemble = UINT32_MAX},
        {.ensemble = 2, .dictionary = "ab", .dictionary_size = 2},
        {.ensemble = 2, .file_type = "txt"}};
    const megabyte_codec_options two = {.ensemble = 2, .level = 5},
                                 without = {.ensemble = 2, .level = 3};
    size_t size[3];
    buffer packed = {0}, back = {0};
    megabyte_error error;
    for (size_t i = 0; i < COUNT_OF(with); i++)
        CHECK_STATUS(megabyte_codec_size(tiny->model, MEGABYTE_MODE_COMPRESS, &with[i], size),
                     MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(megabyte_codec_size(tiny->model, MEGABYTE_MODE_MESSAGES, &two, size),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    for (uint32_t i = 0; i < 3; i++) { /* as many streams */
        const megabyte_codec_options o = {.ensemble = 1u << i};
        OK(megabyte_codec_size(tiny->model, MEGABYTE_MODE_DECOMPRESS, &o, &size[i]));
    }
    CHECK(size[2] > size[1] && size[1] > size[0]);
    OK(megabyte_codec_size(NULL, MEGABYTE_MODE_COMPRESS, &without, size));
    compress_once(tiny->model, &two, tiny->pool, 2000, &packed);
    CHECK_STATUS(decompress_once(tiny->model, NULL, packed.bytes, packed.n, 2000, &back, &error),
                 MEGABYTE_ERROR_CAPACITY);
    CHECK(strstr(error.text, "ensemble of 2"), "%s", error.text);
    CHECK_STATUS(decompress_once(NULL, NULL, packed.bytes, packed.n, 2000, &back, &error),
                 MEGABYTE_ERROR_WRONG_MODEL);
    free(packed.bytes);
    free(back.bytes);
}

/* Headers of versions 5 and 6: after the shape come the contents and how many streams. */
static void headers(void) {
    static const struct {
        uint8_t version, flags, shape, contents, ensemble;
        int status;
    } row[] = {{5, 8, 0x10, 0, 2, MEGABYTE_OK},
               {5, 8, 0x12, 1, 4, MEGABYTE_OK},
               {5, 8, 0x00, 0, 2, MEGABYTE_OK},
               {5, 8, 0x00, 1, 2, MEGABYTE_ERROR_CORRUPT}, /* no context mixing */
               {5, 8, 0x10, 0, 0, MEGABYTE_ERROR_CORRUPT},
               {5, 8, 0x10, 0, 1, MEGABYTE_ERROR_CORRUPT}, /* is version 1 */
               {5, 8, 0x10, 1, 1, MEGABYTE_OK},
               {5, 8, 0x10, 0, 3, MEGABYTE_ERROR_CORRUPT},
               {5, 8, 0x10, 0, 8, MEGABYTE_ERROR_CORRUPT},
               {5, 8, 0x10, 2, 2, MEGABYTE_ERROR_CORRUPT}, /* linear samples */
               {5, 8, 0x10, 255, 2, MEGABYTE_ERROR_CORRUPT},
               {5, 0, 0x10, 0, 2, MEGABYTE_ERROR_CORRUPT}, /* no model */
               {5, 12, 0x10, 0, 2, MEGABYTE_ERROR_CORRUPT}, /* a dictionary */
               {6, 8, 0x10, 1, 1, MEGABYTE_OK},
               {6, 8, 0x10, 1, 4, MEGABYTE_OK},
               {6, 8, 0x10, 0, 2, MEGABYTE_ERROR_CORRUPT}, /* is version 5 */
               {6, 0, 0x10, 1, 2, MEGABYTE_ERROR_CORRUPT},
               {7, 8, 0x10, 0, 2, MEGABYTE_ERROR_BAD_VERSION}};
    for (size_t i = 0; i < COUNT_OF(row); i++) {
        uint8_t h[32] = {0xb5, 'm', 'b', 'z', row[i].version, row[i].flags, 2};
        size_t n = 7;
        megabyte_file_header got;
        n += row[i].flags & 8 ? 6 : 0;
        h[n++] = row[i].shape;
        h[n++] = row[i].contents;
        h[n++] = row[i].ensemble;
        h[n++] = 100; /* bytes in a block */
        n += row[i].flags & 4 ? 4 : 0;
        ref_sign_header(h, n += 2);
        name_case("row %zu", i);
        CHECK_STATUS(megabyte_file_header_read(h, n, &got, NULL), (megabyte_status)row[i].status);
        if (!row[i].status)
            CHECK(got.format_version == row[i].version && got.ensemble == row[i].ensemble &&
                  got.has_model && got.contents == (megabyte_contents)row[i].contents &&
                  got.header_bytes == n && got.block_size == 100);
        for (size_t cut = 0; cut < n; cut++)
            CHECK(megabyte_file_header_read(h, cut, &got, NULL) != MEGABYTE_OK);
    }
}

/* Every changed bit is found. */
static void damage(void) {
    const megabyte_codec_options o = {.level = 6, .block_size = 150, .ensemble = 2},
                                 with = {.ensemble = 2, .streams = 2, .mixing_memory = 1};
    buffer packed = {0}, back = {0};
    megabyte_error error;
    compress_once(tiny->model, &o, tiny->pool, 400, &packed);
    for (size_t i = 0; i < packed.n; i++) {
        packed.bytes[i] ^= (uint8_t)(1 << i % 8);
        name_case("byte %zu of %zu", i, packed.n);
        CHECK(decompress_once(tiny->model, &with, packed.bytes, packed.n, 400, &back, &error));
        packed.bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    free(packed.bytes);
    free(back.bytes);
}

int main(int argc, char **argv) {
    set_up("ensemble", COUNT_OF(fixtures), argc > 1 ? argv[1] : NULL);
    RUN(averages);
    RUN(every_decoder);
    RUN(small_engine);
    RUN(any_sizes);
    RUN(gain);
    RUN(refused);
    RUN(headers);
    RUN(damage);
    tear_down();
    return 0;
}
