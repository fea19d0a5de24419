/* test_codec_levels.c - what each level may choose and what it chooses; context mixing and its
 * memory. */
#include "codec_fixtures.h"

/* What a level may choose, and that it chose each of it. */
static void check_methods(int level, const uint64_t blocks[MEGABYTE_METHOD_COUNT]) {
    CHECK(blocks[MEGABYTE_METHOD_STORED] && blocks[MEGABYTE_METHOD_CONSTANT],
          "level %d never stores", level);
    CHECK(!blocks[MEGABYTE_METHOD_MODEL] == (level != 5), "level %d: %d by the network", level,
          (int)blocks[MEGABYTE_METHOD_MODEL]);
    CHECK(!blocks[MEGABYTE_METHOD_CONTEXT_MIXING] == (level == 5), "level %d: %d by contexts",
          level, (int)blocks[MEGABYTE_METHOD_CONTEXT_MIXING]);
    CHECK(!blocks[MEGABYTE_METHOD_MIXED] == (level <= 5), "level %d: %d mixed", level,
          (int)blocks[MEGABYTE_METHOD_MIXED]);
}

static void levels_and_lengths(void) {
    uint8_t bytes[300];
    buffer packed = {0}, got = {0};
    EACH_FIXTURE(f)
    for (int level = 1; level <= 9; level++) {
        way in = {.pull = 0}, out = {.push = (size_t)level % 3 * 11};
        uint64_t blocks[MEGABYTE_METHOD_COUNT] = {0};
        at_level(level, &in, &out);
        in.options.block_size = out.options.block_size = 300;
        in.options.verify = level % 2;
        megabyte_codec *c = new_codec(f->model, MEGABYTE_MODE_COMPRESS, &in.options);
        megabyte_codec *d = new_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &out.options);
        size_t single = f == tiny && (level == 1 || level == 7) ? 256 : 3;
        size_t lengths = f == tiny ? 101 : level % 3 ? 9 : 30, last = lengths + single + 10;
        for (size_t i = 0; i < last; i++) { /* lengths, one byte of each value, then longer ones */
            size_t n = i < lengths ? i : i < lengths + single ? 1 : 300 - (last - i) % 3;
            int kind = i < lengths ? (int)(i + (size_t)level) % KINDS : (int)i % KINDS;
            seed_random(i);
            name_case("%s, level %d, %zu %s", f->y.name, level, n, kind_name[kind]);
            make_data(f, (enum kind)kind, bytes, n);
            if (n == 1) bytes[0] = (uint8_t)(i - lengths);
            megabyte_codec_reset(c);
            megabyte_codec_reset(d);
            OK(drive(c, &in, bytes, n, &packed));
            CHECK(packed.n <= n + 24, "become %zu bytes", packed.n);
            OK(drive(d, &out, packed.bytes, packed.n, &got));
            CHECK(same(got.bytes, got.n, bytes, n), "%zu others come back", got.n);
            count_blocks(c, blocks);
        }
        if (f == tiny) check_methods(level, blocks);
        megabyte_codec_free(c);
        megabyte_codec_free(d);
    }
    for (int level = 0; level <= 9; level++) /* and by default, in one call */
        for (size_t n = 0; n < 300; n = n * 5 + (level == 7 ? 3 : 17)) {
            megabyte_codec_options o = {.level = level ? level : ITS_OWN},
                                   d = {.level = ITS_OWN, .block_size = 1 << 18};
            if (level == 4 || level >= 8)
                d.mixing_memory = 64; /* an empty file's header says so, too */
            name_case("level %d, %zu bytes", level, n);
            make_data(tiny, LIKELY, bytes, n);
            compress_once(tiny->model, &o, bytes, n, &packed);
            megabyte_error error;
            CHECK(!decompress_once(tiny->model, &d, packed.bytes, packed.n, n, &got, &error), "%s",
                  error.text);
            CHECK(same(got.bytes, got.n, bytes, n), "%zu others come back", got.n);
        }
    free(packed.bytes);
    free(got.bytes);
}

/* As random_round_trips: random options and pieces on both sides, with levels, memory, engines of
 * threads. Members of a file may have different levels. */
static void random_levels(void) {
    enum { LONGEST = 700 };
    static uint8_t bytes[3 * LONGEST], prime[64];
    uint64_t blocks[MEGABYTE_METHOD_COUNT] = {0};
    buffer packed = {0}, all = {0}, got = {0};
    megabyte_engine *engines[COUNT_OF(fixtures)][4] = {{NULL}};
    EACH_FIXTURE(f)
    for (uint32_t threads = 1; threads < 4; threads++)
        engines[f - fixtures][threads] = new_engine(f->model, threads, 0, MEGABYTE_ISA_AUTO);
    for (uint64_t seed = 1; seed <= 450; seed++) {
        fixture *f = &fixtures[seed % 8 < 6 ? 0 : seed % 8 - 5];
        way in, out;
        size_t total = 0, count = seed % 11 ? 1 : 2 + random_below(2);
        enum kind kind = (enum kind)(seed % KINDS);
        seed_random(seed);
        make_data(f, LIKELY, prime, sizeof prime);
        all.n = 0;
        for (size_t i = 0; i < count; i++) {
            size_t n = random_below(random_below(4) ? LONGEST : 40);
            make_data(f, kind, bytes + total, n);
            if (!i) {
                random_ways(&in, &out, n, prime);
                if (!in.options.block_size && in.options.dictionary_size)
                    in.options.block_size = out.options.block_size = 4096;
                in.options.engine = engines[f - fixtures][random_below(4)];
                out.options.engine = engines[f - fixtures][random_below(4)];
            } else if (in.options.size) {
                in.options.size = n;
            }
            int level = 1 + (int)((seed + i) % 9);
            if (!i || !in.options.dictionary_size) at_level(level, &in, &out);
            if (!in.options.dictionary_size) {
                out.options.mixing_memory = i || random_below(2) ? 4 : 1;
                if (random_below(8) == 0 && level != 5)
                    in.options.mixing_memory = out.options.mixing_memory;
            }
            name_way(f, &in, &out, kind, n);
            megabyte_codec *c = new_codec(f->model, MEGABYTE_MODE_COMPRESS, &in.options);
            OK(drive(c, &in, bytes + total, n, &packed));
            count_blocks(c, blocks);
            megabyte_codec_free(c);
            ref_append(&all.bytes, &all.n, &all.room, packed.bytes, packed.n);
            total += n;
        }
        megabyte_status status = run_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &out, all.bytes,
                                           all.n, &got);
        CHECK(!status && same(got.bytes, got.n, bytes, total), "%s, %zu bytes of %zu",
              megabyte_status_string(status), got.n, total);
        if (seed % 4) continue;
        OK(decompress_once(f->model, &out.options, all.bytes, all.n, total, &got, NULL));
        CHECK(same(got.bytes, got.n, bytes, total), "in one call: %zu bytes of %zu", got.n, total);
    }
    for (int i = 0; i < MEGABYTE_METHOD_COUNT; i++)
        CHECK(blocks[i] > 25, "%d of method %d", (int)blocks[i], i);
    EACH_FIXTURE(f)
    for (uint32_t threads = 1; threads < 4; threads++)
        megabyte_engine_free(engines[f - fixtures][threads]);
    free(packed.bytes);
    free(all.bytes);
    free(got.bytes);
}

/* About the edges of blocks, windows and chunks of contexts-only decoding, by one to five
 * streams. */
static void level_edges(void) {
    static uint8_t bytes[3 * 1025 + 1];
    static const int levels[] = {2, 7};
    buffer packed = {0}, got = {0};
    size_t window = (size_t)tiny->info.context_bytes,
           blocks[] = {1, tiny->info.patch_bytes, window - 1, window + 1, 1024};
    for (size_t l = 0; l < COUNT_OF(levels); l++)
        for (size_t b = 0; b < COUNT_OF(blocks); b++)
            for (size_t times = 1; times <= 3; times++)
                for (size_t n = blocks[b] * times - 1; n <= blocks[b] * times + 1; n++) {
                    way in = {.options = {.block_size = (uint32_t)blocks[b],
                                          .streams = 1 + (uint32_t)(n % 5)},
                              .push = times == 2 ? 5 : 0};
                    way out = {.options = {.block_size = (uint32_t)blocks[b],
                                           .streams = 5 - (uint32_t)(n % 5)},
                               .pull = times == 3 ? 500 : 0};
                    at_level(levels[l], &in, &out);
                    in.options.verify = n % 3 == 0;
                    if (times == 1) in.options.size = n;
                    seed_random(n);
                    name_way(tiny, &in, &out, b % 2 ? LIKELY : MIXED, n);
                    make_data(tiny, b % 2 ? LIKELY : MIXED, bytes, n);
                    OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &in, bytes, n, &packed));
                    OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &out, packed.bytes,
                                 packed.n, &got));
                    CHECK(same(got.bytes, got.n, bytes, n), "%zu bytes come back", got.n);
                }
    free(packed.bytes);
    free(got.bytes);
}

/* How much memory a file says its contexts need, and who takes it. */
static void memory_of_contexts(void) {
    static const struct memory_case {
        int level;
        uint32_t block_size, asked, has_dictionary,
            mixing_memory; /* the last: what the file says */
    } cases[] = {
        {1, 262144, 0, 0, 1},       {2, 16384, 0, 0, 4},           {3, 65536, 0, 0, 16},
        {4, 262144, 0, 0, 64},      {5, 262144, 0, 0, 0},          {6, 262144, 0, 0, 4},
        {7, 262144, 0, 0, 16},      {8, 262144, 0, 0, 64},         {9, 262144, 0, 0, 64},
        {7, 4096, 0, 0, 1},         {9, 12000, 0, 0, 4},           {2, 1000, 0, 0, 1},
        {8, 300, 64, 0, 1},         {3, 262144, 1, 0, 1},          {7, 262144, 4, 0, 4},
        {5, 262144, 4, 0, 4},       {7, 262144, UINT32_MAX, 0, 0}, {1, 4096, 0, 1, 1},
        {6, 300, 0, 1, 4},          {7, 300, 16, 1, 16},           {5, 300, 0, 1, 0},
        {7, 300, UINT32_MAX, 1, 0},
    };
    static const uint32_t offered[] = {MEGABYTE_NO_CONTEXT_MIXING, 1, 4, 16, 64};
    uint8_t bytes[700];
    buffer packed = {0}, got = {0};
    seed_random(1);
    make_data(tiny, TEXT, bytes, sizeof bytes);
    memcpy(bytes + 300, bytes, 300); /* contexts help */
    make_data(tiny, LIKELY, bytes + 600, 100);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct memory_case *m = &cases[i];
        megabyte_file_header c;
        megabyte_codec_options o = {
            .level = m->level, .block_size = m->block_size, .mixing_memory = m->asked};
        if (m->has_dictionary) {
            o.dictionary = tiny->pool;
            o.dictionary_size = 20;
        }
        name_case("level %d, blocks of %u, %u MB asked, primed %u", m->level, m->block_size,
                  m->asked, m->has_dictionary);
        compress_once(tiny->model, &o, bytes, sizeof bytes, &packed);
        OK(megabyte_file_header_read(packed.bytes, packed.n, &c, NULL));
        CHECK(c.mixing_memory == m->mixing_memory, "%u MB", c.mixing_memory);
        for (size_t k = 0; k < COUNT_OF(offered); k++) {
            uint32_t has = k ? offered[k] : 0;
            megabyte_codec_options d = {
                .level = 7, .block_size = m->block_size, .mixing_memory = offered[k]};
            if (m->has_dictionary) {
                d.dictionary = o.dictionary;
                d.dictionary_size = o.dictionary_size;
            }
            if (m->has_dictionary && has > 16) continue; /* takes its time */
            megabyte_error error;
            megabyte_status status = decompress_once(tiny->model, &d, packed.bytes, packed.n,
                                                     sizeof bytes, &got, &error);
            int fits = m->has_dictionary && m->mixing_memory ? has == m->mixing_memory
                                                             : has >= m->mixing_memory;
            CHECK(status == (fits ? MEGABYTE_OK : MEGABYTE_ERROR_CAPACITY), "for %u MB: '%s' %s",
                  has, megabyte_status_string(status), error.text);
            if (fits) CHECK(same(got.bytes, got.n, bytes, sizeof bytes));
            else
                CHECK(!got.n && strstr(error.text, "context mixing"), "%zu bytes, '%s'", got.n,
                      error.text);
        }
    }
    name_case("by default 16 MB are taken");
    for (int level = 1; level <= 8; level += 1 + (level == 4)) {
        megabyte_codec_options o = {.level = level, .block_size = 262144}, d = {.level = ITS_OWN};
        compress_once(tiny->model, &o, bytes, sizeof bytes, &packed);
        CHECK_STATUS(
            decompress_once(tiny->model, &d, packed.bytes, packed.n, sizeof bytes, &got, NULL),
            level % 4 ? MEGABYTE_OK : MEGABYTE_ERROR_CAPACITY);
    }
    free(packed.bytes);
    free(got.bytes);
}

/* Blocks of every method side by side, more than are decoded at once, by one and two threads; a
 * damaged one stops alone, and all before it comes out. */
static void many_streams(void) {
    enum { BLOCK = 700, BLOCKS = 37, SIZE = BLOCK * BLOCKS - 300 };
    static uint8_t bytes[BLOCK * BLOCKS];
    static const uint32_t streams[] = {1, 2, 7, 8, 9, 16, 21, 37};
    buffer packed = {0}, again = {0}, got = {0};
    size_t intact = 0;
    seed_random(20);
    for (size_t i = 0; i < BLOCKS; i++) {
        uint8_t *to = bytes + i * BLOCK;
        make_data(tiny, i % 6 == 0 ? RANDOM : i % 6 == 1 ? ZEROS : LIKELY, to, BLOCK);
        if (i % 6 == 3) /* a repetition */
            for (size_t k = 90; k < BLOCK; k++) to[k] = to[k - 90] ^ (k < 180 ? 0x55 : 0);
    }
    for (uint32_t threads = 1; threads <= 2; threads++) {
        megabyte_engine *engine;
        megabyte_engine_options with = {.threads = threads};
        OK(megabyte_engine_create(&engine, tiny->model, &with, NULL, NULL));
        for (size_t i = 0; i < COUNT_OF(streams); i++) {
            name_case("%u streams, %u threads", streams[i], threads);
            way w = {.options = {.engine = engine,
                                 .block_size = BLOCK,
                                 .streams = streams[i],
                                 .level = 7,
                                 .mixing_memory = 1,
                                 .verify = i % 2}};
            megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w.options);
            OK(drive(c, &w, bytes, SIZE, i || threads > 1 ? &again : &packed));
            megabyte_statistics counts;
            megabyte_codec_statistics(c, &counts);
            for (int method = 0; method < MEGABYTE_METHOD_COUNT; method++)
                CHECK(method == MEGABYTE_METHOD_MODEL || counts.blocks[method] > 2,
                      "%d blocks of method %d", (int)counts.blocks[method], method);
            if (again.n) CHECK(same(again.bytes, again.n, packed.bytes, packed.n), "another file");
            megabyte_codec_free(c);
            OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &w, packed.bytes, packed.n, &got));
            CHECK(same(got.bytes, got.n, bytes, SIZE), "other bytes");
            packed.bytes[packed.n * 3 / 4] ^= 8;
            CHECK_STATUS(
                run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &w, packed.bytes, packed.n, &got),
                MEGABYTE_ERROR_CORRUPT);
            packed.bytes[packed.n * 3 / 4] ^= 8;
            if (!intact) intact = got.n; /* of one stream alone: whole blocks before the damage */
            CHECK(got.n == intact && got.n > SIZE / 2 && got.n % BLOCK == 0 &&
                      !memcmp(got.bytes, bytes, got.n),
                  "%zu bytes, not %zu", got.n, intact);
        }
        megabyte_engine_free(engine);
    }
    free(packed.bytes);
    free(again.bytes);
    free(got.bytes);
}

/* Which method is taken for which bytes, and that the code is as long as its own probabilities
 * say. */
static void choice_of_methods(void) {
    enum { SIZE = 17000 }; /* more than what contexts are tried on */
    static uint8_t bytes[SIZE];
    buffer packed = {0};
    for (int what = 0; what < 7; what++)
        for (int level = 1; level <= 9; level++) {
            static const char *const names[] = {
                "a repetition", "the test's text",   "its own text", "noise",
                "a constant",   "text by its model", "noise, twice"};
            const megabyte_model *m = what == 5 ? text_small : tiny->model;
            megabyte_codec_options o = {
                .level = level, .mixing_memory = level == 5 ? 0 : 1, .size = SIZE, .streams = 1};
            size_t n = what == 5 ? 3000 : SIZE;
            if (level == 3 && what == 1) o.mixing_memory = 0;
            if (what ? level == 2 || level == 4 || level == 8 : 0)
                continue; /* others with the memory of 1, 1, 7 */
            if (what == 5 && level != 1 && level != 5 && level != 7) continue;
            name_case("%s, level %d", names[what], level);
            seed_random(7);
            random_bytes(bytes, n, 256);
            if (what == 0)
                for (size_t i = 997; i < n; i++) bytes[i] = bytes[i - 997];
            if (what == 1 || what == 5) memcpy(bytes, text, n);
            if (what == 2) memcpy(bytes, tiny->pool, n);
            if (what == 4) memset(bytes, 7, n);
            if (what == 6)
                memcpy(bytes + n / 2, bytes, n / 2); /* the second half repeats the first */
            way w = {.options = o};
            w.options.size = n;
            megabyte_codec *c = new_codec(m, MEGABYTE_MODE_COMPRESS, &w.options);
            OK(drive(c, &w, bytes, n, &packed));
            megabyte_statistics counts;
            megabyte_codec_statistics(c, &counts);
            int method = 0, with = level < 5    ? MEGABYTE_METHOD_CONTEXT_MIXING
                                   : level == 5 ? MEGABYTE_METHOD_MODEL
                                                : MEGABYTE_METHOD_MIXED;
            while (method < MEGABYTE_METHOD_COUNT - 1 && !counts.blocks[method]) method++;
            CHECK(counts.blocks[method] == 1, "%d blocks", (int)counts.blocks[method]);
            CHECK(counts.compressed == packed.n && counts.original == n);
            CHECK(packed.n <= n + n / 2000 + 64 && packed.n <= n + 24, "%zu bytes become %zu", n,
                  packed.n);
            int expected = with;
            if (what == 3) expected = MEGABYTE_METHOD_STORED;
            if (what == 4) expected = MEGABYTE_METHOD_CONSTANT;
            if (level > 5 && (what == 0 || what == 6)) expected = MEGABYTE_METHOD_CONTEXT_MIXING;
            if (level == 5 && (what == 0 || what == 1 || what == 6))
                expected = MEGABYTE_METHOD_STORED;
            if (what == 1 && level > 5)
                expected = method; /* either: the network has seen no such text */
            if (what == 1 && level > 5)
                CHECK(method >= MEGABYTE_METHOD_CONTEXT_MIXING, "method %d", method);
            CHECK(method == expected, "method %d, not %d", method, expected);
            if (what == 6 && level != 5) CHECK(packed.n < n * 7 / 10, "%zu bytes", packed.n);
            if (what == 0 && level != 5) CHECK(packed.n < 2500, "%zu bytes", packed.n);
            if (method <= MEGABYTE_METHOD_CONSTANT)
                CHECK(!counts.coded_bits && counts.ideal_bits == 0);
            else {
                CHECK((double)counts.coded_bits <= counts.ideal_bits * 1.0005 + 48,
                      "%f ideal bits, %llu coded", counts.ideal_bits,
                      (unsigned long long)counts.coded_bits);
                CHECK((double)counts.coded_bits >= counts.ideal_bits - 24,
                      "%f ideal bits, %llu coded", counts.ideal_bits,
                      (unsigned long long)counts.coded_bits);
            }
            static double model_bits; /* as level 5 counted them */
            if (level == 5) model_bits = counts.ideal_bits;
            if (method == MEGABYTE_METHOD_MODEL)
                CHECK(counts.model_bits <= counts.ideal_bits * 1.0001);
            else if (method == MEGABYTE_METHOD_CONTEXT_MIXING)
                CHECK(counts.model_bits == 0, "%f bits by a network that is not used",
                      counts.model_bits);
            else if (method == MEGABYTE_METHOD_MIXED && level > 5 && model_bits > 0)
                CHECK(fabs(counts.model_bits / model_bits - 1) < 1e-4,
                      "%f bits by the network, %f at level 5", counts.model_bits, model_bits);
            if (what == 2 && level > 5)
                CHECK(counts.ideal_bits < model_bits * 1.005 + 80,
                      "%f bits mixed, %f by the network", counts.ideal_bits, model_bits);
            megabyte_codec_free(c);
        }
    free(packed.bytes);
}

int main(int argc, char **argv) {
    set_up("levels", 3, argc > 1 ? argv[1] : NULL);
    RUN(levels_and_lengths);
    RUN(random_levels);
    RUN(level_edges);
    RUN(memory_of_contexts);
    RUN(many_streams);
    RUN(choice_of_methods);
    tear_down();
    return 0;
}
