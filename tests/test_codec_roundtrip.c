/* test_codec_roundtrip.c - compressed files come back, whatever the bytes, lengths, options and
 * pieces; every engine writes the same file; how long files may get. */
#include "codec_fixtures.h"

/* The defaults of both sides. */
static void round_trip(const megabyte_model *m, const uint8_t *bytes, size_t n) {
    buffer packed = {0}, back = {0};
    megabyte_error error;
    megabyte_codec_options small = {.block_size = (uint32_t)(n ? n : 1)};
    compress_once(m, NULL, bytes, n, &packed);
    megabyte_status status = decompress_once(m, n < 65536 ? &small : NULL, packed.bytes, packed.n,
                                             n, &back, &error);
    CHECK(!status, "%zu bytes do not come back: %s", n, error.text);
    CHECK(same(back.bytes, back.n, bytes, n), "%zu bytes, %zu came back, others", n, back.n);
    free(packed.bytes);
    free(back.bytes);
}

static void bytes_and_lengths(void) {
    uint8_t bytes[300];
    EACH_FIXTURE(f) {
        for (int b = 0; b < 256; b++) {
            name_case("%s, byte %d", f->y.name, b);
            bytes[0] = (uint8_t)b;
            round_trip(f->model, bytes, 1);
        }
        for (int kind = 0; kind < KINDS; kind++)
            for (size_t n = 0; n <= 300; n += f == tiny ? 1 : kind == LIKELY ? 2 : 5) {
                name_case("%s, %s, %zu bytes", f->y.name, kind_name[kind], n);
                seed_random(n);
                make_data(f, (enum kind)kind, bytes, n);
                round_trip(f->model, bytes, n);
            }
    }
}

/* Random options and pieces; some files of one, two or three members; the reference decodes many,
 * too. */
static void random_round_trips(void) {
    enum { LONGEST = 900 };
    static uint8_t bytes[3 * LONGEST], back[3 * LONGEST], prime[64];
    size_t blocks[3] = {0}, members = 0, referred = 0;
    buffer packed = {0}, all = {0}, got = {0};
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        fixture *f = &fixtures[seed % 8 < 6 ? 0 : seed % 8 - 5];
        way in, out;
        size_t total = 0;
        enum kind kind = (enum kind)(seed % KINDS);
        seed_random(seed);
        make_data(f, LIKELY, prime, sizeof prime);
        all.n = 0;
        size_t count = seed % 11 ? 1 : 2 + random_below(2);
        for (size_t i = 0; i < count; i++) {
            size_t n = random_below(random_below(4) ? LONGEST : 40);
            make_data(f, kind, bytes + total, n);
            if (!i) random_ways(&in, &out, n, prime);
            else if (in.options.size) in.options.size = n;
            name_way(f, &in, &out, kind, n);
            OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &in, bytes + total, n, &packed));
            ref_append(&all.bytes, &all.n, &all.room, packed.bytes, packed.n);
            total += n;
        }
        megabyte_status status = run_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &out, all.bytes,
                                           all.n, &got);
        CHECK(!status && same(got.bytes, got.n, bytes, total), "%s, %zu bytes of %zu",
              megabyte_status_string(status), got.n, total);
        OK(decompress_once(f->model, &out.options, all.bytes, all.n, total, &got, NULL));
        CHECK(same(got.bytes, got.n, bytes, total), "in one call: %zu bytes of %zu", got.n, total);
        if (seed % 3 == 0) {
            ref_file r = ref_decompress(f->model, in.options.dictionary, in.options.dictionary_size,
                                        all.bytes, all.n, back, total);
            CHECK(!r.wrong && same(back, r.n, bytes, total),
                  "the reference decodes %zu of %zu bytes: %s", r.n, total,
                  r.wrong ? r.wrong : "others");
            for (int i = 0; i < 3; i++) blocks[i] += r.blocks[i];
            members += r.members;
            referred++;
        }
    }
    CHECK(blocks[0] > 250 && blocks[1] > 250 && blocks[2] > 250 && members > referred,
          "%zu stored, %zu constant, %zu coded blocks", blocks[0], blocks[1], blocks[2]);
    free(packed.bytes);
    free(all.bytes);
    free(got.bytes);
}

/* Sizes about the edges of blocks and of windows. */
static void edges(void) {
    static uint8_t bytes[700];
    buffer packed = {0}, got = {0};
    EACH_FIXTURE(f) {
        size_t window = (size_t)f->info.context_bytes, patch = f->info.patch_bytes;
        size_t blocks[] = {1,          2,      patch,      window / 2,
                           window - 1, window, window + 1, window + window / 2 + 1,
                           2 * window, 99};
        for (size_t b = 0; b < COUNT_OF(blocks); b++)
            for (size_t times = 1; times <= 4; times++)
                for (size_t n = blocks[b] * times - 1; n <= blocks[b] * times + 1; n++)
                    for (size_t pushed = 0; pushed < 3; pushed++) {
                        way in = {.options = {.block_size = (uint32_t)blocks[b],
                                              .streams = 1 + (uint32_t)(n % 3),
                                              .size = pushed == 1 ? n : 0},
                                  .push = pushed == 2 ? 5 : 0};
                        way out = {.options = {.block_size = (uint32_t)blocks[b],
                                               .streams = 1 + (uint32_t)(n % 2)}};
                        seed_random(n);
                        name_way(f, &in, &out, LIKELY, n);
                        make_data(f, LIKELY, bytes, n);
                        OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &in, bytes, n, &packed));
                        OK(run_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &out, packed.bytes,
                                     packed.n, &got));
                        CHECK(same(got.bytes, got.n, bytes, n), "%zu bytes come back", got.n);
                    }
    }
    free(packed.bytes);
    free(got.bytes);
}

/* With flushes, everything pushed is out and can be decoded before more is pushed. */
static void flushes(void) {
    EACH_FIXTURE(f)
    for (uint64_t seed = 1; seed <= 40; seed++) {
        megabyte_codec_options o = {
            .block_size = 100, .streams = 1 + (uint32_t)(seed % 3), .verify = seed % 5 == 0};
        megabyte_codec *c = new_codec(f->model, MEGABYTE_MODE_COMPRESS, &o);
        megabyte_codec *d = new_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &o);
        uint8_t bytes[400];
        buffer packed = {0}, got = {0};
        way pieces = {.push = 40, .pull = seed % 2 ? 7 : 0};
        size_t n = 0;
        seed_random(seed);
        name_case("%s", f->y.name);
        for (int turn = 0; turn < 6; turn++) {
            size_t count = random_below(turn % 2 ? 250 : 20), at = 0, taken, sent = packed.n;
            make_data(f, (enum kind)random_below(KINDS), bytes, count);
            size_t before = got.n;
            while (at < count) {
                OK(megabyte_codec_push(c, bytes + at, count - at, &taken));
                at += taken;
                OK(pull_all(c, pieces.pull, &packed));
            }
            OK(megabyte_codec_flush(c));
            OK(pull_all(c, pieces.pull, &packed));
            while (sent < packed.n) {
                OK(megabyte_codec_push(d, packed.bytes + sent, packed.n - sent, &taken));
                sent += taken;
                OK(megabyte_codec_flush(d)); /* no effect */
                OK(pull_all(d, pieces.pull, &got));
            }
            n += count;
            CHECK(got.n == n && (!count || !memcmp(got.bytes + before, bytes, count)),
                  "turn %d: %zu of %zu bytes are out", turn, got.n, n);
        }
        OK(megabyte_codec_finish(c));
        size_t sent = packed.n, taken;
        OK(pull_all(c, 0, &packed));
        while (sent < packed.n) {
            OK(megabyte_codec_push(d, packed.bytes + sent, packed.n - sent, &taken));
            sent += taken;
            OK(pull_all(d, 0, &got));
        }
        OK(megabyte_codec_finish(d));
        OK(pull_all(d, 0, &got));
        CHECK(got.n == n);
        megabyte_codec_free(c);
        megabyte_codec_free(d);
        free(packed.bytes);
        free(got.bytes);
    }
}

/* A codec that is reset writes and reads the same as a new one. */
static void resets(void) {
    uint8_t bytes[500];
    buffer a = {0}, b = {0}, got = {0};
    EACH_FIXTURE(f) {
        way w = {.options = {.block_size = 70,
                             .streams = 3,
                             .dictionary = f->pool,
                             .dictionary_size = 21},
                 .push = 60,
                 .pull = 50};
        megabyte_codec *c = new_codec(f->model, MEGABYTE_MODE_COMPRESS, &w.options);
        megabyte_codec *d = new_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &w.options);
        for (uint64_t seed = 1; seed <= 30; seed++) {
            size_t n = seed * 16, taken;
            name_case("%s", f->y.name);
            seed_random(seed);
            make_data(f, MIXED, bytes, n);
            OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &w, bytes, n, &a));
            megabyte_codec_reset(c);
            OK(drive(c, &w, bytes, n, &b));
            CHECK(same(a.bytes, a.n, b.bytes, b.n), "%zu bytes, others after a reset", n);
            megabyte_codec_reset(d);
            OK(drive(d, &w, b.bytes, b.n, &got));
            CHECK(same(got.bytes, got.n, bytes, n));
            megabyte_codec_reset(c);
            megabyte_codec_reset(d); /* left in the middle */
            OK(megabyte_codec_push(c, bytes, 1 + random_below(n), &taken));
            if (seed % 2) pull_all(c, 0, &got);
            OK(megabyte_codec_push(d, b.bytes, 1 + random_below(b.n), &taken));
            if (seed % 2) pull_all(d, 0, &got);
        }
        megabyte_codec_free(c);
        megabyte_codec_free(d);
    }
    free(a.bytes);
    free(b.bytes);
    free(got.bytes);
}

static void with_text_small(void) {
    static const size_t sizes[] = {0, 1, 2, 100, 3000};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        name_case("text-small, %zu bytes", sizes[i]);
        round_trip(text_small, text, sizes[i]);
    }
    buffer packed = {0}, got = {0};
    way in = {.options = {.block_size = 1000,
                          .streams = 4,
                          .size = 6000,
                          .dictionary = text + 20000,
                          .dictionary_size = 500,
                          .context_shift = 4,
                          .verify = 1}};
    way out = in;
    out.options.block_size = 1 << 16;
    out.options.verify = 0;
    name_case("text-small, blocks of 1000");
    OK(run_codec(text_small, MEGABYTE_MODE_COMPRESS, &in, text, 6000, &packed));
    CHECK(packed.n < 2500, "6000 bytes of text become %zu", packed.n);
    OK(run_codec(text_small, MEGABYTE_MODE_DECOMPRESS, &out, packed.bytes, packed.n, &got));
    CHECK(same(got.bytes, got.n, text, 6000));
    free(packed.bytes);
    free(got.bytes);
}

static void one_result(void) {
    enum { SIZE = 800 };
    static const uint32_t batches[] = {0, 1, 3, 50};
    uint8_t bytes[SIZE];
    buffer first = {0}, other = {0}, got = {0};
    EACH_FIXTURE(f)
    for (int options = 0; options < 6; options++) {
        static const int levels[] = {0, 0, 0, 1, 3, 7};
        seed_random((uint64_t)options);
        make_data(f, options % 3 ? MIXED : LIKELY, bytes, SIZE);
        megabyte_codec_options base = {.block_size = options % 2 ? 110 : 2000,
                                       .streams = options % 3 ? 5 : 1};
        base.level = levels[options];
        if (base.level) base.mixing_memory = 1;
        if (options % 3 > 1) {
            base.dictionary = f->pool + 999;
            base.dictionary_size = 33;
            base.context_shift = 1;
            base.size = SIZE;
        }
        way w = {.options = base};
        OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &w, bytes, SIZE, &first));
        for (int isa = 0; isa < 6; isa++)
            for (uint32_t threads = 1; threads < 4; threads++)
                for (size_t b = 0; b < COUNT_OF(batches); b++) {
                    if (isa && !megabyte_isa_available((megabyte_isa)isa)) continue;
                    if (threads > 1 && (size_t)isa % COUNT_OF(batches) != b) continue;
                    if (isa &&
                        (b + (size_t)isa + (size_t)options) % COUNT_OF(batches) > (f == tiny))
                        continue;
                    megabyte_engine *engine = new_engine(f->model, threads, batches[b],
                                                         (megabyte_isa)isa);
                    name_case("%s, options %d, %s, %u threads, batch %u", f->y.name, options,
                              megabyte_isa_name((megabyte_isa)isa), threads, batches[b]);
                    w.options = base;
                    w.options.engine = engine;
                    w.options.verify = b % 2;
                    w.push = (b + threads) % 3 ? 1 + random_below(200) : 0;
                    w.pull = b % 3 ? 1 + random_below(200) : 0;
                    OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &w, bytes, SIZE, &other));
                    CHECK(same(first.bytes, first.n, other.bytes, other.n),
                          "%zu bytes, not the same as the %zu of one thread", other.n, first.n);
                    w.options.streams = 1 + (uint32_t)random_below(7);
                    w.options.size = 0;
                    OK(run_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &w, first.bytes, first.n,
                                 &got));
                    CHECK(same(got.bytes, got.n, bytes, SIZE));
                    megabyte_engine_free(engine);
                }
        name_case("%s, options %d, in one call", f->y.name, options);
        base.size = SIZE; /* what one call knows by itself */
        w = (way){.options = base, .push = 17};
        OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &w, bytes, SIZE, &first));
        base.size = options % 2 ? SIZE : 0;
        compress_once(f->model, &base, bytes, SIZE, &other);
        CHECK(same(first.bytes, first.n, other.bytes, other.n),
              "in one call: %zu bytes, %zu in pieces", other.n, first.n);
    }
    free(first.bytes);
    free(other.bytes);
    free(got.bytes);
}

static void overhead(void) {
    static uint8_t bytes[200000];
    buffer packed = {0}, pieces = {0};
    megabyte_file_header c;
    EACH_FIXTURE(f)
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t n = 0; n < 400; n += 1 + n / 9) {
            name_case("%s, %zu %s", f->y.name, n, kind_name[kind]);
            seed_random(n);
            make_data(f, (enum kind)kind, bytes, n);
            compress_once(f->model, NULL, bytes, n, &packed);
            OK(megabyte_file_header_read(packed.bytes, packed.n, &c, NULL));
            CHECK(packed.n <= c.coded + 24 && c.single, "%zu bytes for %u of code", packed.n,
                  c.coded);
            CHECK(packed.n <= n + 24, "%zu bytes become %zu", n, packed.n);
            way w = {.push = 3}; /* of unknown size: still one block */
            OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &w, bytes, n, &pieces));
            CHECK(pieces.n <= n + 24, "%zu bytes in pieces become %zu", n, pieces.n);
        }
    static const uint32_t streams[] = {0, 1, 4, 12};
    for (size_t i = 0; i < COUNT_OF(streams); i++)
        for (size_t n = streams[i] > 1 ? 16384 * streams[i] : 1000; n <= sizeof bytes; n *= 14) {
            megabyte_codec_options o = {.streams = streams[i]};
            seed_random(n);
            random_bytes(bytes, n, 256);
            name_case("%zu random bytes, %u streams", n, streams[i]);
            compress_once(tiny->model, &o, bytes, n, &packed);
            CHECK((double)packed.n <= (double)n * 1.0005 + 32, "%zu bytes", packed.n);
            way w = {.options = {.streams = streams[i]}, .push = 50000};
            OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, bytes, n, &packed));
            CHECK((double)packed.n <= (double)n * 1.0005 + 32, "%zu bytes, pushed in pieces",
                  packed.n);
        }
    free(packed.bytes);
    free(pieces.bytes);
}

/* The code beside the model's own bits. */
static void close_to_ideal(void) {
    buffer packed = {0};
    for (int i = 0; i < 6; i++) {
        const fixture *f = i < 3 ? &fixtures[i] : NULL;
        size_t n = f ? POOL : i == 3 ? 20000 : 4000;
        const uint8_t *bytes = f ? f->pool : text + 1000 * i;
        way w = {.options = {.block_size = i == 5 ? 1000 : 0, .size = n, .streams = 1}};
        name_case("%s, %zu bytes", f ? f->y.name : "text-small", n);
        megabyte_codec *c = new_codec(f ? f->model : text_small, MEGABYTE_MODE_COMPRESS,
                                      &w.options);
        OK(drive(c, &w, bytes, n, &packed));
        megabyte_statistics counts;
        megabyte_codec_statistics(c, &counts);
        CHECK(counts.original == n && counts.compressed == packed.n, "%llu -> %llu",
              (unsigned long long)counts.original, (unsigned long long)counts.compressed);
        CHECK(counts.blocks[MEGABYTE_METHOD_MODEL] == (i == 5 ? 4u : 1u) &&
              !counts.blocks[MEGABYTE_METHOD_STORED]);
        CHECK(counts.coded_bits % 8 == 0 &&
              counts.coded_bits / 8 + 30 * (i == 5 ? 4 : 1) >= packed.n);
        CHECK((double)counts.coded_bits <= counts.ideal_bits * 1.0005 + 48,
              "%f ideal bits, %llu coded", counts.ideal_bits,
              (unsigned long long)counts.coded_bits);
        double truth = 0;
        for (size_t at = 0; at < n; at += i == 5 ? 1000 : n) { /* counted by hand */
            size_t count = i == 5 ? 1000 : n, v = describe(f ? f->model : text_small).vocabulary;
            float *rows = score_rows(f ? f->model : text_small, NULL, 0, bytes + at, count);
            truth += ref_ideal_bits(rows, (uint32_t)v, bytes + at, count);
            free(rows);
        }
        CHECK(fabs(counts.ideal_bits / truth - 1) < 1e-4, "%f ideal bits, really %f",
              counts.ideal_bits, truth);
        CHECK((double)counts.coded_bits > truth - 1, "fewer than possible: %f", truth);
        megabyte_codec_free(c);
    }
    free(packed.bytes);
}

int main(int argc, char **argv) {
    set_up("roundtrip", 3, argc > 1 ? argv[1] : NULL);
    RUN(bytes_and_lengths);
    RUN(random_round_trips);
    RUN(edges);
    RUN(flushes);
    RUN(resets);
    RUN(with_text_small);
    RUN(one_result);
    RUN(overhead);
    RUN(close_to_ideal);
    tear_down();
    return 0;
}
