/* codec_fixtures.h - what the tests of compression share: three small models and bytes to compress,
 * and ways to drive a codec that check what every call must keep to. */
#ifndef CODEC_FIXTURES_H
#define CODEC_FIXTURES_H

#include "codec.h"
#include "synthetic.h"

/* ------------------------------------------------------------------------------------- fixtures */

enum { POOL = 24576 };

typedef struct fixture {
    synthetic y;
    const char *quant;
    megabyte_model *model;
    megabyte_info info;
    uint8_t pool[POOL]; /* sampled from the model: likely bytes, which compress well */
} fixture;

static fixture fixtures[] = {
    {.y = {.name = "tiny",
           .stages = 2,
           .n = {4, 4},
           .dim = {16, 16},
           .depth = {1, 1},
           .heads = 1,
           .dim_head = 8,
           .ff_mult = 1,
           .vocabulary = 256,
           .rotary = 1,
           .type = "F32"},
     .quant = "q8"},
    {.y = {.name = "three",
           .stages = 3,
           .n = {5, 3, 2},
           .dim = {24, 20, 18},
           .depth = {1, 1, 1},
           .heads = 2,
           .dim_head = 10,
           .ff_mult = 1,
           .vocabulary = 257,
           .learned = 1,
           .rotary = 1,
           .type = "F16"},
     .quant = "f32"},
    {.y = {.name = "bytes",
           .stages = 2,
           .n = {24, 1},
           .dim = {24, 16},
           .depth = {2, 1},
           .heads = 3,
           .dim_head = 8,
           .ff_mult = 2,
           .vocabulary = 300,
           .learned = 1,
           .type = "BF16"},
     .quant = "q8"},
};
static size_t n_fixtures; /* that this program has set up */
static fixture *const tiny = &fixtures[0];
static megabyte_model *text_small; /* models/text-small.mb */
static uint8_t *text; /* tests/data/text.txt */
static size_t text_size;
static const char *only; /* run groups whose names hold this */

#define EACH_FIXTURE(f) for (fixture *f = fixtures; f < fixtures + n_fixtures; f++)
#define RUN(group) (strstr(#group, only) ? GROUP(group) : (void)0)

static void sample_pool(fixture *f, uint64_t seed) {
    megabyte_stream *s = new_stream(f->model, NULL, 0);
    megabyte_sampling how = {.temperature = 0.3f, .seed = seed};
    for (size_t i = 0; i < POOL; i++) {
        OK(megabyte_stream_sample(s, &how, &f->pool[i]));
        OK(megabyte_stream_step(s, f->pool[i]));
    }
    megabyte_stream_free(s);
}

/* Writes tests/tmp/codec-PROGRAM-FIXTURE-QUANT.mb: programs run side by side, each has its own. */
static void set_up(const char *program, size_t how_many, const char *groups) {
    static char names[COUNT_OF(fixtures)][60];
    uint64_t seed = 1;
    only = groups ? groups : "";
    n_fixtures = how_many;
    make_tmp();
    text = read_file("tests/data/text.txt", &text_size);
    text_small = open_model("models/text-small.mb");
    EACH_FIXTURE(f) {
        char mb[200], *name = names[f - fixtures];
        snprintf(name, sizeof names[0], "codec-%s-%s", program, f->y.name);
        f->y.name = name;
        f->model = open_model(synthetic_model(mb, &f->y, seed++, f->quant, NULL));
        f->info = describe(f->model);
        sample_pool(f, seed);
    }
}

static void tear_down(void) {
    EACH_FIXTURE(f) megabyte_model_close(f->model);
    megabyte_model_close(text_small);
    free(text);
}

/* ----------------------------------------------------------------------------------------- data */

enum kind { ZEROS, RANDOM, LIKELY, TEXT, MIXED, KINDS };
static const char *const kind_name[] = {"zeros", "random", "likely", "text", "mixed"};

static UNUSED_OK void make_data(const fixture *f, enum kind kind, uint8_t *to, size_t n) {
    size_t from;
    switch (kind) {
    case ZEROS: memset(to, (int)random_below(2) * 77, n); break;
    case RANDOM: random_bytes(to, n, 256); break;
    case LIKELY:
        from = n < POOL ? random_below(POOL - n) : 0;
        for (size_t i = 0; i < n; i++) to[i] = f->pool[(from + i) % POOL];
        break;
    case TEXT: memcpy(to, text + random_below(text_size - n), n); break;
    default:
        for (size_t at = 0, take; at < n; at += take) {
            take = 1 + random_below(n / 3 + 1);
            if (take > n - at) take = n - at;
            make_data(f, (enum kind)random_below(MIXED), to + at, take);
        }
    }
}

/* -------------------------------------------------------------------------------------- options */

/* What the tests mean by the options where they say nothing of levels and contexts: the network
 * alone, which the reference knows. `.level = ITS_OWN` asks for the library's defaults. */
enum { ITS_OWN = -1 };

static UNUSED_OK megabyte_codec_options usual(const megabyte_codec_options *options) {
    megabyte_codec_options o = {0};
    if (options) o = *options;
    if (!o.level && !o.mixing_memory) {
        o.level = 5;
        o.mixing_memory = MEGABYTE_NO_CONTEXT_MIXING;
    }
    if (o.level == ITS_OWN) o.level = 0;
    return o;
}

/* -------------------------------------------------------------------------------- codecs driven */

typedef struct buffer {
    uint8_t *bytes;
    size_t n, room;
} buffer;

/* The first 64 bits of its SHA-256, to pin it. */
static UNUSED_OK uint64_t digest_of(const buffer *b) {
    uint8_t digest[32];
    uint64_t v = 0;
    ref_sha256(b->bytes, b->n, digest);
    for (int i = 0; i < 8; i++) v = v << 8 | digest[i];
    return v;
}

static UNUSED_OK int same(const uint8_t *a, size_t n, const uint8_t *b, size_t m) {
    return n == m && (!n || !memcmp(a, b, n));
}

typedef struct way {
    megabyte_codec_options options;
    size_t push, pull; /* the longest piece; 0: everything at once */
    size_t flush; /* one in so many pieces is followed by a flush; 0: none */
} way;

/* Options for both sides that belong together, and pieces. */
static UNUSED_OK void random_ways(way *in, way *out, size_t n, const uint8_t *prime) {
    memset(in, 0, sizeof *in);
    memset(out, 0, sizeof *out);
    if (random_below(3))
        in->options.block_size = 1 + (uint32_t)random_below(random_below(2) ? 40 : 400);
    if (random_below(2)) in->options.streams = 1 + (uint32_t)random_below(5);
    if (random_below(2)) in->options.size = n;
    if (random_below(3) == 0) in->options.context_shift = (uint32_t)random_below(4);
    if (random_below(3) == 0) {
        in->options.dictionary = prime;
        in->options.dictionary_size = random_below(60);
    }
    if (!in->options.dictionary_size) in->options.dictionary = NULL;
    in->options.verify = random_below(4) == 0;
    if (random_below(3)) in->push = 1 + random_below(random_below(2) ? 9 : 300);
    if (random_below(3)) in->pull = 1 + random_below(random_below(2) ? 9 : 300);
    if (random_below(4) == 0) in->flush = 1 + random_below(12);
    out->options = in->options;
    out->options.verify = 0;
    out->options.size = 0;
    out->options.streams = (uint32_t)random_below(6);
    out->options.block_size = in->options.block_size ? 400 : 0;
    if (out->options.context_shift && !in->options.dictionary_size)
        out->options.context_shift -= (uint32_t)random_below(2);
    if (random_below(3)) out->push = 1 + random_below(random_below(2) ? 9 : 300);
    if (random_below(3)) out->pull = 1 + random_below(random_below(2) ? 9 : 300);
}

/* A level, with little memory: emptying contexts takes longer than coding a short block. */
static UNUSED_OK void at_level(int level, way *in, way *out) {
    in->options.level = out->options.level = level;
    in->options.mixing_memory = out->options.mixing_memory = level == 5 ? MEGABYTE_NO_CONTEXT_MIXING
                                                                        : 1;
}

static UNUSED_OK void name_way(const fixture *f, const way *in, const way *out, int kind,
                               size_t n) {
    name_case("%s, %zu %s, -%d -S %u %u block %u size %d context_shift %u %u prime %zu verify %d "
              "push %zu %zu pull %zu %zu "
              "flush %zu",
              f->y.name, n, kind_name[kind], in->options.level, in->options.streams,
              out->options.streams, in->options.block_size, (int)in->options.size,
              in->options.context_shift, out->options.context_shift, in->options.dictionary_size,
              in->options.verify, in->push, out->push, in->pull, out->pull, in->flush);
}

/* Pulls until nothing comes. */
static UNUSED_OK megabyte_status pull_all(megabyte_codec *c, size_t longest, buffer *out) {
    static uint8_t piece[65536 + 16];
    for (;;) {
        size_t capacity = longest ? 1 + random_below(longest) : 65536, given = 12345;
        size_t marked = capacity < 1000 ? capacity + 16 : 16;
        memset(piece + capacity + 16 - marked, 0x3c, marked);
        megabyte_status status = megabyte_codec_pull(c, piece, capacity, &given);
        CHECK(given <= capacity, "%zu bytes given, room for %zu", given, capacity);
        CHECK(!status || !given, "%zu bytes given together with '%s'", given,
              megabyte_status_string(status));
        for (size_t i = capacity < 1000 ? given : capacity; i < capacity + 16; i++)
            CHECK(piece[i] == 0x3c, "byte %zu is written, %zu of %zu are given", i, given,
                  capacity);
        ref_append(&out->bytes, &out->n, &out->room, piece, given);
        if (status || !given) return status;
    }
}

/* Pushes and pulls everything; out->n is what came before a failure. */
static UNUSED_OK megabyte_status drive(megabyte_codec *c, const way *w, const uint8_t *in, size_t n,
                                       buffer *out) {
    megabyte_status status;
    out->n = 0;
    for (size_t at = 0, still = 0; at < n;) {
        size_t take = w->push ? 1 + random_below(w->push) : n - at, taken = 12345, before = out->n;
        if (take > n - at) take = n - at;
        uint8_t *piece = need(take, 1); /* its own allocation: reading past it shows */
        memcpy(piece, in + at, take);
        status = megabyte_codec_push(c, piece, take, &taken);
        free(piece);
        CHECK(taken <= take, "%zu of %zu bytes taken", taken, take);
        at += taken;
        if (!status && w->flush && !random_below(w->flush)) status = megabyte_codec_flush(c);
        if (!status) status = pull_all(c, w->pull, out);
        if (status) return status;
        still = taken || out->n > before ? 0 : still + 1;
        CHECK(still < 3, "the codec takes nothing and gives nothing");
    }
    if ((status = megabyte_codec_finish(c))) return status;
    return pull_all(c, w->pull, out);
}

static UNUSED_OK megabyte_codec *new_codec(const megabyte_model *m, int mode,
                                           const megabyte_codec_options *options) {
    megabyte_codec *c = NULL;
    megabyte_error error;
    megabyte_codec_options o = usual(options);
    megabyte_status status = megabyte_codec_create(&c, m, mode, &o, NULL, &error);
    CHECK(status == MEGABYTE_OK && c, "codec: %s", error.text);
    CHECK(!error.text[0] && !error.status);
    return c;
}

static UNUSED_OK megabyte_status run_codec(const megabyte_model *m, int mode, const way *w,
                                           const uint8_t *in, size_t n, buffer *out) {
    megabyte_codec *c = new_codec(m, mode, &w->options);
    megabyte_status status = drive(c, w, in, n, out);
    const megabyte_error *error = megabyte_codec_error(c);
    int refused = status == MEGABYTE_ERROR_INVALID_ARGUMENT &&
                  !error->status; /* by push: the codec can go on */
    CHECK(refused || (error->status == status && !status == !error->text[0]),
          "'%s': the error says %d '%s'", megabyte_status_string(status), error->status,
          error->text);
    if (error->status) {
        size_t given = 1;
        uint8_t byte;
        CHECK_STATUS(megabyte_codec_pull(c, &byte, 1, &given), status); /* it stays */
        CHECK(!given);
    }
    megabyte_codec_free(c);
    return status;
}

/* Compressed this way and decompressed that way, the bytes come back. */
static UNUSED_OK void there_and_back(const fixture *f, const way *in, const way *out,
                                     const uint8_t *bytes, size_t n) {
    buffer packed = {0}, got = {0};
    OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, in, bytes, n, &packed));
    OK(run_codec(f->model, MEGABYTE_MODE_DECOMPRESS, out, packed.bytes, packed.n, &got));
    CHECK(same(got.bytes, got.n, bytes, n), "%zu bytes come back", got.n);
    free(packed.bytes);
    free(got.bytes);
}

/* In memory, with room for exactly as much as the bound (or the original) needs. */
static UNUSED_OK void compress_once(const megabyte_model *m, const megabyte_codec_options *o,
                                    const uint8_t *in, size_t n, buffer *out) {
    megabyte_error error;
    size_t bound = megabyte_compress_bound(n), room = bound;
    if (o && o->block_size && o->block_size < 16384) room += 32 * (n / o->block_size + 1);
    free(out->bytes);
    out->bytes = need(room + 1, 1);
    out->room = room;
    megabyte_codec_options how = usual(o);
    CHECK(megabyte_compress(m, &how, in, n, out->bytes, room, &out->n, NULL, &error) == MEGABYTE_OK,
          "%s", error.text);
    CHECK(!error.status && !error.text[0]);
    if (room == bound) CHECK(out->n <= bound, "%zu bytes, the bound is %zu", out->n, bound);
}

static UNUSED_OK megabyte_status decompress_once(const megabyte_model *m,
                                                 const megabyte_codec_options *o, const uint8_t *in,
                                                 size_t n, size_t capacity, buffer *out,
                                                 megabyte_error *error) {
    megabyte_error own;
    if (!error) error = &own;
    if (capacity > out->room) {
        free(out->bytes);
        out->bytes = need(capacity, 1);
        out->room = capacity;
    }
    out->n = 12345;
    megabyte_codec_options how = usual(o);
    megabyte_status status = megabyte_decompress(m, &how, in, n, out->bytes, capacity, &out->n,
                                                 NULL, error);
    CHECK(error->status == status && !status == !error->text[0], "'%s': the error says %d '%s'",
          megabyte_status_string(status), error->status, error->text);
    CHECK(out->n <= capacity, "%zu bytes, room for %zu", out->n, capacity);
    return status;
}

/* What every file's header says: the model's id and the numerics version. */
static UNUSED_OK ref_header header_for(const fixture *f) {
    megabyte_file_header read;
    buffer packed = {0};
    compress_once(f->model, NULL, (const uint8_t *)"", 0, &packed);
    OK(megabyte_file_header_read(packed.bytes, packed.n, &read, NULL));
    ref_header h = {.numerics = (int)read.numerics_version, .block_size = 1024};
    memcpy(h.model, f->info.id, 6);
    free(packed.bytes);
    return h;
}

static UNUSED_OK void count_blocks(const megabyte_codec *c, uint64_t sum[MEGABYTE_METHOD_COUNT]) {
    megabyte_statistics counts;
    megabyte_codec_statistics(c, &counts);
    for (int i = 0; i < MEGABYTE_METHOD_COUNT; i++) sum[i] += counts.blocks[i];
}

#endif
