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

typedef struct pair { /* a codec for each direction */
    way in, out;
    megabyte_codec *c, *d;
} pair;

static pair new_pair(const fixture *f, int level) {
    pair p = {.out = {.push = (size_t)level % 3 * 11}};
    at_level(level, &p.in, &p.out);
    p.in.options.block_size = p.out.options.block_size = 300;
    p.in.options.verify = level % 2;
    p.c = new_codec(f->model, MEGABYTE_MODE_COMPRESS, &p.in.options);
    p.d = new_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &p.out.options);
    return p;
}

static void free_pair(pair *p) {
    megabyte_codec_free(p->c);
    megabyte_codec_free(p->d);
}

static void check_pair(const pair *p, const uint8_t *bytes, size_t n) {
    buffer packed = {0}, got = {0};
    megabyte_codec_reset(p->c);
    megabyte_codec_reset(p->d);
    OK(drive(p->c, &p->in, bytes, n, &packed));
    CHECK(packed.n <= n + 24, "become %zu bytes", packed.n);
    OK(drive(p->d, &p->out, packed.bytes, packed.n, &got));
    CHECK(same(got.bytes, got.n, bytes, n), "%zu others come back", got.n);
    free(packed.bytes);
    free(got.bytes);
}

/* Lengths from 0 on, then one byte of each value, or of three, then ten of about 300. */
static void check_lengths(const fixture *f, int level) {
    uint8_t bytes[300];
    uint64_t blocks[MEGABYTE_METHOD_COUNT] = {0};
    size_t single = f == tiny && (level == 1 || level == 7) ? 256 : 3;
    size_t lengths = f == tiny ? 101 : level % 3 ? 9 : 30, last = lengths + single + 10;
    pair p = new_pair(f, level);
    for (size_t i = 0; i < last; i++) {
        size_t n = i < lengths ? i : i < lengths + single ? 1 : 300 - (last - i) % 3;
        enum kind kind = (enum kind)((i < lengths ? i + (size_t)level : i) % KINDS);
        seed_random(i);
        name_case("%s, level %d, %zu %s", f->y.name, level, n, kind_name[kind]);
        make_data(f, kind, bytes, n);
        if (n == 1) bytes[0] = (uint8_t)(i - lengths);
        check_pair(&p, bytes, n);
        count_blocks(p.c, blocks);
    }
    if (f == tiny) check_methods(level, blocks);
    free_pair(&p);
}

static void levels_and_lengths(void) {
    EACH_FIXTURE(f)
    for (int level = 1; level <= 9; level++) check_lengths(f, level);
}

/* In one call, with the memory that each level takes by itself; an empty file's header says how
 * much, too. */
static void default_memory(void) {
    uint8_t bytes[300];
    buffer packed = {0}, got = {0};
    megabyte_error error;
    seed_random(1);
    for (int level = 0; level <= 9; level++)
        for (size_t n = 0; n < 300; n = n * 5 + (level == 7 ? 3 : 17)) {
            megabyte_codec_options in = {.level = level ? level : ITS_OWN};
            megabyte_codec_options out = {.level = ITS_OWN,
                                          .block_size = 1 << 18,
                                          .mixing_memory = level == 4 || level >= 8 ? 64 : 0};
            name_case("level %d, %zu bytes", level, n);
            make_data(tiny, LIKELY, bytes, n);
            compress_once(tiny->model, &in, bytes, n, &packed);
            CHECK(!decompress_once(tiny->model, &out, packed.bytes, packed.n, n, &got, &error),
                  "%s", error.text);
            CHECK(same(got.bytes, got.n, bytes, n), "%zu others come back", got.n);
        }
    free(packed.bytes);
    free(got.bytes);
}

/* -------------------------------------------------------------------------------- random levels */

enum { LONGEST = 700, THREADS = 3 };

typedef struct random_file { /* of up to three members */
    const fixture *f;
    megabyte_engine *const *engines; /* [THREADS + 1], NULL first */
    way in, out;
    uint8_t bytes[3 * LONGEST], dictionary[64];
    size_t n;
    buffer packed;
} random_file;

/* For member i: the first decides on all but the level and, without a dictionary, the memory. */
static void choose_options(random_file *r, size_t i, size_t n, int level) {
    megabyte_codec_options *in = &r->in.options, *out = &r->out.options;
    if (!i) {
        random_ways(&r->in, &r->out, n, r->dictionary);
        if (!in->block_size && in->dictionary_size) in->block_size = out->block_size = 4096;
        in->engine = r->engines[random_below(THREADS + 1)];
        out->engine = r->engines[random_below(THREADS + 1)];
    } else if (in->size) {
        in->size = n;
    }
    if (!i || !in->dictionary_size) at_level(level, &r->in, &r->out);
    if (in->dictionary_size) return;
    out->mixing_memory = i || random_below(2) ? 4 : 1;
    if (random_below(8) == 0 && level != 5) in->mixing_memory = out->mixing_memory;
}

static void add_member(random_file *r, size_t i, uint64_t seed,
                       uint64_t blocks[MEGABYTE_METHOD_COUNT]) {
    enum kind kind = (enum kind)(seed % KINDS);
    size_t n = random_below(random_below(4) ? LONGEST : 40);
    buffer packed = {0};
    make_data(r->f, kind, r->bytes + r->n, n);
    choose_options(r, i, n, 1 + (int)((seed + i) % 9));
    name_way(r->f, &r->in, &r->out, kind, n);
    megabyte_codec *c = new_codec(r->f->model, MEGABYTE_MODE_COMPRESS, &r->in.options);
    OK(drive(c, &r->in, r->bytes + r->n, n, &packed));
    count_blocks(c, blocks);
    megabyte_codec_free(c);
    ref_append(&r->packed.bytes, &r->packed.n, &r->packed.room, packed.bytes, packed.n);
    r->n += n;
    free(packed.bytes);
}

static void decompress_members(const random_file *r, int in_one_call) {
    buffer got = {0};
    megabyte_status status = run_codec(r->f->model, MEGABYTE_MODE_DECOMPRESS, &r->out,
                                       r->packed.bytes, r->packed.n, &got);
    CHECK(!status && same(got.bytes, got.n, r->bytes, r->n), "%s, %zu bytes of %zu",
          megabyte_status_string(status), got.n, r->n);
    if (in_one_call) {
        OK(decompress_once(r->f->model, &r->out.options, r->packed.bytes, r->packed.n, r->n, &got,
                           NULL));
        CHECK(same(got.bytes, got.n, r->bytes, r->n), "in one call: %zu bytes of %zu", got.n, r->n);
    }
    free(got.bytes);
}

/* Random options and pieces on both sides, with levels, memory, engines of threads. Members of a
 * file may have different levels. */
static void random_levels(void) {
    uint64_t blocks[MEGABYTE_METHOD_COUNT] = {0};
    megabyte_engine *engines[COUNT_OF(fixtures)][THREADS + 1] = {{NULL}};
    static random_file r;
    EACH_FIXTURE(f)
    for (uint32_t threads = 1; threads <= THREADS; threads++)
        engines[f - fixtures][threads] = new_engine(f->model, threads, 0, MEGABYTE_ISA_AUTO);
    for (uint64_t seed = 1; seed <= 450; seed++) {
        seed_random(seed);
        size_t members = seed % 11 ? 1 : 2 + random_below(2);
        r.f = &fixtures[seed % 8 < 6 ? 0 : seed % 8 - 5];
        r.engines = engines[r.f - fixtures];
        r.n = r.packed.n = 0;
        make_data(r.f, LIKELY, r.dictionary, sizeof r.dictionary);
        for (size_t i = 0; i < members; i++) add_member(&r, i, seed, blocks);
        decompress_members(&r, seed % 4 == 0);
    }
    for (int i = 0; i < MEGABYTE_METHOD_COUNT; i++)
        CHECK(blocks[i] > 25, "%d of method %d", (int)blocks[i], i);
    EACH_FIXTURE(f)
    for (uint32_t threads = 1; threads <= THREADS; threads++)
        megabyte_engine_free(engines[f - fixtures][threads]);
    free(r.packed.bytes);
}

static void check_edge(int level, uint32_t block_size, size_t times, size_t n, enum kind kind) {
    static uint8_t bytes[3 * 1025 + 1];
    uint32_t streams = 1 + (uint32_t)(n % 5);
    way in = {.options = {.block_size = block_size,
                          .streams = streams,
                          .verify = n % 3 == 0,
                          .size = times == 1 ? n : 0},
              .push = times == 2 ? 5 : 0};
    way out = {.options = {.block_size = block_size, .streams = 6 - streams},
               .pull = times == 3 ? 500 : 0};
    at_level(level, &in, &out);
    seed_random(n);
    name_way(tiny, &in, &out, kind, n);
    make_data(tiny, kind, bytes, n);
    there_and_back(tiny, &in, &out, bytes, n);
}

/* About the edges of blocks, windows and chunks of decoding by contexts alone, by one to five
 * streams. */
static void level_edges(void) {
    size_t window = (size_t)tiny->info.context_bytes,
           blocks[] = {1, tiny->info.patch_bytes, window - 1, window + 1, 1024};
    for (int level = 2; level <= 7; level += 5)
        for (size_t b = 0; b < COUNT_OF(blocks); b++)
            for (size_t times = 1; times <= 3; times++)
                for (size_t n = blocks[b] * times - 1; n <= blocks[b] * times + 1; n++)
                    check_edge(level, (uint32_t)blocks[b], times, n, b % 2 ? LIKELY : MIXED);
}

/* --------------------------------------------------------------------------------------- memory */

enum { NO_MIXING = MEGABYTE_NO_CONTEXT_MIXING };

/* How much memory a file says that it needs, in MB, by how it was compressed. */
static const struct memory_row {
    int level;
    uint32_t block_size, asked; /* asked: .mixing_memory */
    size_t dictionary_size;
    uint32_t needs;
} memory_rows[] = {
    /* by the level */
    {.level = 1, .block_size = 262144, .needs = 1},
    {.level = 2, .block_size = 16384, .needs = 4},
    {.level = 3, .block_size = 65536, .needs = 16},
    {.level = 4, .block_size = 262144, .needs = 64},
    {.level = 5, .block_size = 262144, .needs = 0},
    {.level = 6, .block_size = 262144, .needs = 4},
    {.level = 7, .block_size = 262144, .needs = 16},
    {.level = 8, .block_size = 262144, .needs = 64},
    {.level = 9, .block_size = 262144, .needs = 64},
    /* no more than is of use to short blocks */
    {.level = 7, .block_size = 4096, .needs = 1},
    {.level = 9, .block_size = 12000, .needs = 4},
    {.level = 2, .block_size = 1000, .needs = 1},
    {.level = 8, .block_size = 300, .asked = 64, .needs = 1},
    /* as asked */
    {.level = 3, .block_size = 262144, .asked = 1, .needs = 1},
    {.level = 7, .block_size = 262144, .asked = 4, .needs = 4},
    {.level = 5, .block_size = 262144, .asked = 4, .needs = 4},
    {.level = 7, .block_size = 262144, .asked = NO_MIXING, .needs = 0},
    /* after a dictionary just what was asked, or the level's */
    {.level = 1, .block_size = 4096, .dictionary_size = 20, .needs = 1},
    {.level = 6, .block_size = 300, .dictionary_size = 20, .needs = 4},
    {.level = 7, .block_size = 300, .asked = 16, .dictionary_size = 20, .needs = 16},
    {.level = 5, .block_size = 300, .dictionary_size = 20, .needs = 0},
    {.level = 7, .block_size = 300, .asked = NO_MIXING, .dictionary_size = 20, .needs = 0},
};

/* A decoder with so much memory: enough, or after a dictionary the same, or it is refused. */
static void offer_memory(const struct memory_row *row, uint32_t offered, const buffer *packed,
                         const uint8_t *bytes, size_t n) {
    uint32_t has = offered == NO_MIXING ? 0 : offered;
    int fits = row->dictionary_size && row->needs ? has == row->needs : has >= row->needs;
    megabyte_codec_options o = {.level = 7,
                                .block_size = row->block_size,
                                .mixing_memory = offered,
                                .dictionary = row->dictionary_size ? tiny->pool : NULL,
                                .dictionary_size = row->dictionary_size};
    megabyte_error error;
    buffer got = {0};
    if (row->dictionary_size && has > 16) return; /* takes its time */
    megabyte_status status = decompress_once(tiny->model, &o, packed->bytes, packed->n, n, &got,
                                             &error);
    CHECK(status == (fits ? MEGABYTE_OK : MEGABYTE_ERROR_CAPACITY), "for %u MB: '%s' %s", has,
          megabyte_status_string(status), error.text);
    if (fits) CHECK(same(got.bytes, got.n, bytes, n));
    else CHECK(!got.n && strstr(error.text, "context mixing"), "%zu, '%s'", got.n, error.text);
    free(got.bytes);
}

static void check_memory_row(const struct memory_row *row, const uint8_t *bytes, size_t n) {
    static const uint32_t offered[] = {NO_MIXING, 1, 4, 16, 64};
    buffer packed = {0};
    megabyte_file_header h;
    megabyte_codec_options o = {.level = row->level,
                                .block_size = row->block_size,
                                .mixing_memory = row->asked,
                                .dictionary = row->dictionary_size ? tiny->pool : NULL,
                                .dictionary_size = row->dictionary_size};
    name_case("level %d, blocks of %u, %u MB asked, a dictionary of %zu", row->level,
              row->block_size, row->asked, row->dictionary_size);
    compress_once(tiny->model, &o, bytes, n, &packed);
    OK(megabyte_file_header_read(packed.bytes, packed.n, &h, NULL));
    CHECK(h.mixing_memory == row->needs, "%u MB", h.mixing_memory);
    for (size_t k = 0; k < COUNT_OF(offered); k++) offer_memory(row, offered[k], &packed, bytes, n);
    free(packed.bytes);
}

/* By default a decoder has 16 MB: not for levels 4 and 8. */
static void check_default_memory(int level, const uint8_t *bytes, size_t n) {
    megabyte_codec_options in = {.level = level, .block_size = 262144}, out = {.level = ITS_OWN};
    buffer packed = {0}, got = {0};
    name_case("level %d by default", level);
    compress_once(tiny->model, &in, bytes, n, &packed);
    CHECK_STATUS(decompress_once(tiny->model, &out, packed.bytes, packed.n, n, &got, NULL),
                 level % 4 ? MEGABYTE_OK : MEGABYTE_ERROR_CAPACITY);
    free(packed.bytes);
    free(got.bytes);
}

static void memory_of_contexts(void) {
    static const int levels[] = {1, 2, 3, 4, 6, 7, 8};
    uint8_t bytes[700];
    seed_random(1);
    make_data(tiny, TEXT, bytes, sizeof bytes);
    memcpy(bytes + 300, bytes, 300); /* contexts help */
    make_data(tiny, LIKELY, bytes + 600, 100);
    for (size_t i = 0; i < COUNT_OF(memory_rows); i++)
        check_memory_row(&memory_rows[i], bytes, sizeof bytes);
    for (size_t i = 0; i < COUNT_OF(levels); i++)
        check_default_memory(levels[i], bytes, sizeof bytes);
}

/* --------------------------------------------------------------------------------- many streams */

enum { BLOCK = 700, BLOCKS = 37, SIZE = BLOCK * BLOCKS - 300 };

static void many_blocks(uint8_t bytes[BLOCK * BLOCKS]) {
    seed_random(20);
    for (size_t i = 0; i < BLOCKS; i++) {
        uint8_t *to = bytes + i * BLOCK;
        make_data(tiny, i % 6 == 0 ? RANDOM : i % 6 == 1 ? ZEROS : LIKELY, to, BLOCK);
        if (i % 6 == 3) /* a repetition */
            for (size_t k = 90; k < BLOCK; k++) to[k] = to[k - 90] ^ (k < 180 ? 0x55 : 0);
    }
}

static void pack_many(const way *w, const uint8_t *bytes, buffer *packed) {
    uint64_t blocks[MEGABYTE_METHOD_COUNT] = {0};
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w->options);
    OK(drive(c, w, bytes, SIZE, packed));
    count_blocks(c, blocks);
    for (int method = 0; method < MEGABYTE_METHOD_COUNT; method++)
        CHECK(method == MEGABYTE_METHOD_MODEL || blocks[method] > 2, "%d blocks of method %d",
              (int)blocks[method], method);
    megabyte_codec_free(c);
}

/* Returns how many bytes come out before the damage, whole blocks. */
static size_t unpack_many(const way *w, const uint8_t *bytes, buffer *packed) {
    buffer got = {0};
    OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, w, packed->bytes, packed->n, &got));
    CHECK(same(got.bytes, got.n, bytes, SIZE), "other bytes");
    packed->bytes[packed->n * 3 / 4] ^= 8;
    CHECK_STATUS(
        run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, w, packed->bytes, packed->n, &got),
        MEGABYTE_ERROR_CORRUPT);
    packed->bytes[packed->n * 3 / 4] ^= 8;
    CHECK(got.n > SIZE / 2 && got.n % BLOCK == 0 && !memcmp(got.bytes, bytes, got.n), "%zu bytes",
          got.n);
    free(got.bytes);
    return got.n;
}

/* Blocks of every method side by side, more than are decoded at once, by one and two threads: the
 * same file; a damaged one stops alone, and all before it comes out. */
static void many_streams(void) {
    static uint8_t bytes[BLOCK * BLOCKS];
    static const uint32_t streams[] = {1, 2, 7, 8, 9, 16, 21, 37};
    buffer first = {0}, packed = {0};
    size_t intact = 0;
    many_blocks(bytes);
    for (uint32_t threads = 1; threads <= 2; threads++) {
        megabyte_engine *engine = new_engine(tiny->model, threads, 0, MEGABYTE_ISA_AUTO);
        for (size_t i = 0; i < COUNT_OF(streams); i++) {
            name_case("%u streams, %u threads", streams[i], threads);
            way w = {.options = {.engine = engine,
                                 .block_size = BLOCK,
                                 .streams = streams[i],
                                 .level = 7,
                                 .mixing_memory = 1,
                                 .verify = i % 2}};
            pack_many(&w, bytes, &packed);
            if (!first.n) ref_append(&first.bytes, &first.n, &first.room, packed.bytes, packed.n);
            CHECK(same(packed.bytes, packed.n, first.bytes, first.n), "another file");
            size_t before = unpack_many(&w, bytes, &packed);
            if (!intact) intact = before;
            CHECK(before == intact, "%zu bytes, not %zu", before, intact);
        }
        megabyte_engine_free(engine);
    }
    free(first.bytes);
    free(packed.bytes);
}

/* ---------------------------------------------------------------------------- choice of methods */

enum { LONG = 17000 }; /* more bytes than what contexts are tried on */

enum { REPETITION, FOREIGN, OWN, NOISE, ONE_BYTE, SHIPPED, TWICE }; /* see fill */

/* Methods; EITHER: with contexts, alone or mixed. */
enum {
    EITHER = -1,
    STORED = MEGABYTE_METHOD_STORED,
    CONSTANT = MEGABYTE_METHOD_CONSTANT,
    MODEL = MEGABYTE_METHOD_MODEL,
    CONTEXTS = MEGABYTE_METHOD_CONTEXT_MIXING,
    BOTH = MEGABYTE_METHOD_MIXED,
};

/* Which method is taken for which bytes, at levels 1 to 4, at 5, at 6 to 9. */
static const struct choice {
    int bytes;
    int at_1, at_5, at_6;
    size_t below; /* so many bytes but at level 5; 0: not looked at */
    const char *levels; /* NULL: without 2, 4, 8, which differ from others in memory only */
} choices[] = {
    {.bytes = REPETITION,
     .at_1 = CONTEXTS,
     .at_5 = STORED,
     .at_6 = CONTEXTS,
     .below = 2500,
     .levels = "123456789"},
    {.bytes = FOREIGN, .at_1 = CONTEXTS, .at_5 = STORED, .at_6 = EITHER},
    {.bytes = OWN, .at_1 = CONTEXTS, .at_5 = MODEL, .at_6 = BOTH},
    {.bytes = NOISE, .at_1 = STORED, .at_5 = STORED, .at_6 = STORED},
    {.bytes = ONE_BYTE, .at_1 = CONSTANT, .at_5 = CONSTANT, .at_6 = CONSTANT},
    {.bytes = SHIPPED, .at_1 = CONTEXTS, .at_5 = MODEL, .at_6 = BOTH, .levels = "157"},
    {.bytes = TWICE, .at_1 = CONTEXTS, .at_5 = STORED, .at_6 = CONTEXTS, .below = LONG / 10 * 7},
};

static void fill(int what, uint8_t *bytes, size_t n) {
    seed_random(7);
    random_bytes(bytes, n, 256);
    switch (what) {
    case REPETITION:
        for (size_t i = 997; i < n; i++) bytes[i] = bytes[i - 997];
        break;
    case FOREIGN: /* text, for tiny and for text-small, which knows it */
    case SHIPPED: memcpy(bytes, text, n); break;
    case OWN: memcpy(bytes, tiny->pool, n); break;
    case ONE_BYTE: memset(bytes, 7, n); break;
    case TWICE: memcpy(bytes + n / 2, bytes, n / 2); break;
    default: break;
    }
}

/* The code is as long as its own probabilities say. */
static void check_bits(const megabyte_statistics *s, int method) {
    if (method <= MEGABYTE_METHOD_CONSTANT) {
        CHECK(!s->coded_bits && s->ideal_bits == 0);
        return;
    }
    double coded = (double)s->coded_bits;
    CHECK(coded <= s->ideal_bits * 1.0005 + 48, "%f ideal bits, %f coded", s->ideal_bits, coded);
    CHECK(coded >= s->ideal_bits - 24, "%f ideal bits, %f coded", s->ideal_bits, coded);
}

/* What is counted of the model alone, beside what level 5 has counted; 0: it has stored them. */
static void check_model_bits(const megabyte_statistics *s, int method, double at_5, int own) {
    if (method == MODEL) CHECK(s->model_bits <= s->ideal_bits * 1.0001);
    if (method == CONTEXTS)
        CHECK(s->model_bits == 0, "%f bits by a model that is not used", s->model_bits);
    if (method == BOTH && at_5 > 0)
        CHECK(fabs(s->model_bits / at_5 - 1) < 1e-4, "%f bits by the model, %f at level 5",
              s->model_bits, at_5);
    if (own)
        CHECK(s->ideal_bits < at_5 * 1.005 + 80, "%f bits mixed, %f by the model", s->ideal_bits,
              at_5);
}

/* At level 5 *model_bits is set, at higher ones it is what was set there. */
static void check_choice(const struct choice *row, int level, double *model_bits) {
    static uint8_t bytes[LONG];
    int shipped = row->bytes == SHIPPED;
    size_t n = shipped ? 3000 : LONG;
    way w = {.options = {.level = level, .mixing_memory = 1, .size = n, .streams = 1}};
    if (level == 5 || (level == 3 && row->bytes == FOREIGN)) w.options.mixing_memory = 0;
    buffer packed = {0};
    megabyte_statistics s;
    int method = 0, expected = level < 5 ? row->at_1 : level == 5 ? row->at_5 : row->at_6;
    name_case("bytes %d, level %d", row->bytes, level);
    fill(row->bytes, bytes, n);
    megabyte_codec *c = new_codec(shipped ? text_small : tiny->model, MEGABYTE_MODE_COMPRESS,
                                  &w.options);
    OK(drive(c, &w, bytes, n, &packed));
    megabyte_codec_statistics(c, &s);
    while (method < MEGABYTE_METHOD_COUNT - 1 && !s.blocks[method]) method++;
    CHECK(s.blocks[method] == 1, "%d blocks", (int)s.blocks[method]);
    CHECK(s.compressed == packed.n && s.original == n);
    CHECK(packed.n <= n + n / 2000 + 64 && packed.n <= n + 24, "%zu bytes become %zu", n, packed.n);
    CHECK(expected == EITHER ? method >= CONTEXTS : method == expected, "method %d, not %d", method,
          expected);
    if (row->below && level != 5) CHECK(packed.n < row->below, "%zu bytes", packed.n);
    if (level == 5) *model_bits = s.ideal_bits;
    check_bits(&s, method);
    check_model_bits(&s, method, level < 5 ? 0 : *model_bits, row->bytes == OWN && level > 5);
    megabyte_codec_free(c);
    free(packed.bytes);
}

static void choice_of_methods(void) {
    for (size_t i = 0; i < COUNT_OF(choices); i++) {
        double model_bits = 0;
        const char *levels = choices[i].levels ? choices[i].levels : "135679";
        for (const char *level = levels; *level; level++)
            check_choice(&choices[i], *level - '0', &model_bits);
    }
}

int main(int argc, char **argv) {
    set_up("levels", 3, argc > 1 ? argv[1] : NULL);
    RUN(levels_and_lengths);
    RUN(default_memory);
    RUN(random_levels);
    RUN(level_edges);
    RUN(memory_of_contexts);
    RUN(many_streams);
    RUN(choice_of_methods);
    tear_down();
    return 0;
}
