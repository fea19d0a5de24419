/* test_codec.c - messages and compressed files: round trips, the same bytes from every way, the
 * format beside a slow reference (codec.h), damage, every status, memory.
 *
 *     tests/bin/test_codec [NAME]           all groups of checks, or those whose names hold NAME
 *     tests/bin/test_codec --write-golden   writes tests/data/golden-*.mbz anew (a new format) */
#include "codec.h"
#include "synthetic.h"

#include <unistd.h>

enum { POOL = 24576 };

typedef struct fixture {
    synthetic y;
    const char *quant;
    megabyte_model *model;
    megabyte_info info;
    uint8_t
        pool[POOL]; /* drawn from the model itself: the more likely bytes, which compress well */
} fixture;

static fixture fixtures[] = {
    {.y = {"codec-tiny", 2, {4, 4}, {16, 16}, {1, 1}, 1, 8, 1, 256, 0, 1, "F32"}, .quant = "q8"},
    {.y = {"codec-three", 3, {5, 3, 2}, {24, 20, 18}, {1, 1, 1}, 2, 10, 1, 257, 1, 1, "F16"},
     .quant = "f32"},
    {.y = {"codec-bytes", 2, {24, 1}, {24, 16}, {2, 1}, 3, 8, 2, 300, 1, 0, "BF16"}, .quant = "q8"},
};
static fixture *const tiny = &fixtures[0];
static megabyte_model *text_small;
static uint8_t *text; /* tests/data/text.txt */
static size_t text_size;

#define EACH_FIXTURE(f) for (fixture *f = fixtures; f < fixtures + COUNT_OF(fixtures); f++)

static void set_up(void) {
    uint64_t seed = 1;
    char mb[200];
    make_tmp();
    text = read_file("tests/data/text.txt", &text_size);
    text_small = open_model("models/text-small.mb");
    EACH_FIXTURE(f) {
        f->model = open_model(synthetic_model(mb, &f->y, seed++, f->quant, NULL));
        f->info = describe(f->model);
        megabyte_stream *s = new_stream(f->model, NULL, 0);
        megabyte_sampling how = {.temperature = 0.3f, .seed = seed};
        for (size_t i = 0; i < POOL; i++) {
            OK(megabyte_stream_sample(s, &how, &f->pool[i]));
            OK(megabyte_stream_step(s, f->pool[i]));
        }
        megabyte_stream_free(s);
    }
}

/* ----------------------------------------------------------------------------------------- data */

enum kind { ZEROS, RANDOM, LIKELY, TEXT, MIXED, KINDS };
static const char *const kind_name[] = {"zeros", "random", "likely", "text", "mixed"};

static void make_data(const fixture *f, enum kind kind, uint8_t *to, size_t n) {
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

/* What the tests mean by the options where they say nothing of levels and contexts: the network
 * alone, which the reference knows. `.level = ITS_OWN` asks for the library's defaults. */
enum { ITS_OWN = -1 };

static megabyte_codec_options usual(const megabyte_codec_options *options) {
    megabyte_codec_options o = {0};
    if (options) o = *options;
    if (!o.level && !o.mixing_memory) o.level = 5, o.mixing_memory = MEGABYTE_NO_CONTEXT_MIXING;
    if (o.level == ITS_OWN) o.level = 0;
    return o;
}

static int same(const uint8_t *a, size_t n, const uint8_t *b, size_t m) {
    return n == m && (!n || !memcmp(a, b, n));
}

/* ------------------------------------------------------------------------------------------ the
 * codec driven */

typedef struct buffer {
    uint8_t *bytes;
    size_t n, room;
} buffer;

typedef struct way {
    megabyte_codec_options options;
    size_t push, pull; /* the longest piece; 0: everything at once */
    size_t flush; /* one in so many pieces is followed by a flush; 0: none */
} way;

/* Pulls until nothing comes. */
static megabyte_status pull_all(megabyte_codec *c, size_t longest, buffer *out) {
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
static megabyte_status drive(megabyte_codec *c, const way *w, const uint8_t *in, size_t n,
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

static megabyte_codec *new_codec(const megabyte_model *m, int mode,
                                 const megabyte_codec_options *options) {
    megabyte_codec *c = NULL;
    megabyte_error error;
    megabyte_codec_options o = usual(options);
    megabyte_status status = megabyte_codec_create(&c, m, mode, &o, NULL, &error);
    CHECK(status == MEGABYTE_OK && c, "codec: %s", error.text);
    CHECK(!error.text[0] && !error.status);
    return c;
}

static megabyte_status run_codec(const megabyte_model *m, int mode, const way *w, const uint8_t *in,
                                 size_t n, buffer *out) {
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

/* In memory, with room for exactly as much as the bound (or the original) needs. */
static void compress_once(const megabyte_model *m, const megabyte_codec_options *o,
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

static megabyte_status decompress_once(const megabyte_model *m, const megabyte_codec_options *o,
                                       const uint8_t *in, size_t n, size_t capacity, buffer *out,
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
    free(packed.bytes), free(back.bytes);
}

/* ---------------------------------------------------------------------------------- round trips */

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

/* Options for both sides that belong together, and pieces. */
static void random_ways(const fixture *f, way *in, way *out, const uint8_t *bytes, size_t n,
                        const uint8_t *prime) {
    memset(in, 0, sizeof *in);
    memset(out, 0, sizeof *out);
    if (random_below(3))
        in->options.block_size = 1 + (uint32_t)random_below(random_below(2) ? 40 : 400);
    if (random_below(2)) in->options.streams = 1 + (uint32_t)random_below(5);
    if (random_below(2)) in->options.size = n;
    if (random_below(3) == 0) in->options.context_shift = (uint32_t)random_below(4);
    if (random_below(3) == 0)
        in->options.dictionary = prime, in->options.dictionary_size = random_below(60);
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
    (void)f, (void)bytes;
}

/* A level, with little memory: emptying contexts takes longer than coding a short block. */
static void at_level(int level, way *in, way *out) {
    in->options.level = out->options.level = level;
    in->options.mixing_memory = out->options.mixing_memory = level == 5 ? MEGABYTE_NO_CONTEXT_MIXING
                                                                        : 1;
}

static void name_way(const fixture *f, const way *in, const way *out, int kind, size_t n) {
    name_case("%s, %zu %s, -%d -S %u %u block %u size %d context_shift %u %u prime %zu verify %d "
              "push %zu %zu pull %zu %zu "
              "flush %zu",
              f->y.name, n, kind_name[kind], in->options.level, in->options.streams,
              out->options.streams, in->options.block_size, (int)in->options.size,
              in->options.context_shift, out->options.context_shift, in->options.dictionary_size,
              in->options.verify, in->push, out->push, in->pull, out->pull, in->flush);
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
            if (!i) random_ways(f, &in, &out, bytes, n, prime);
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
    free(packed.bytes), free(all.bytes), free(got.bytes);
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
    free(packed.bytes), free(got.bytes);
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
        megabyte_codec_free(c), megabyte_codec_free(d);
        free(packed.bytes), free(got.bytes);
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
            megabyte_codec_reset(c), megabyte_codec_reset(d); /* left in the middle */
            OK(megabyte_codec_push(c, bytes, 1 + random_below(n), &taken));
            if (seed % 2) pull_all(c, 0, &got);
            OK(megabyte_codec_push(d, b.bytes, 1 + random_below(b.n), &taken));
            if (seed % 2) pull_all(d, 0, &got);
        }
        megabyte_codec_free(c), megabyte_codec_free(d);
    }
    free(a.bytes), free(b.bytes), free(got.bytes);
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
    out.options.block_size = 1 << 16, out.options.verify = 0;
    name_case("text-small, blocks of 1000");
    OK(run_codec(text_small, MEGABYTE_MODE_COMPRESS, &in, text, 6000, &packed));
    CHECK(packed.n < 2500, "6000 bytes of text become %zu", packed.n);
    OK(run_codec(text_small, MEGABYTE_MODE_DECOMPRESS, &out, packed.bytes, packed.n, &got));
    CHECK(same(got.bytes, got.n, text, 6000));
    free(packed.bytes), free(got.bytes);
}

/* ------------------------------------------------------------------------------------------ the
 * same bytes */

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
        if (options % 3 > 1)
            base.dictionary = f->pool + 999, base.dictionary_size = 33, base.context_shift = 1,
            base.size = SIZE;
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
    free(first.bytes), free(other.bytes), free(got.bytes);
}

/* What the header says, and that the library's and the reference's reading of everything agree. */
static void containers(void) {
    static uint8_t bytes[900];
    buffer packed = {0};
    for (uint64_t seed = 1; seed <= 450; seed++) {
        fixture *f = &fixtures[seed % 3];
        way in, out;
        ref_header h;
        megabyte_file_header c;
        megabyte_error error;
        uint8_t digest[32];
        seed_random(seed);
        size_t n = random_below(900), at, sum = 0;
        make_data(f, (enum kind)(seed % KINDS), bytes, n);
        random_ways(f, &in, &out, bytes, n, f->pool);
        if (seed % 2) at_level(1 + (int)(seed / 2 % 9), &in, &out);
        name_way(f, &in, &out, (int)(seed % KINDS), n);
        OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &in, bytes, n, &packed));
        const char *wrong = ref_read_header(packed.bytes, packed.n, &h);
        CHECK(!wrong, "%s", wrong);
        OK(megabyte_file_header_read(
            packed.bytes, packed.n < MEGABYTE_HEADER_MAX ? packed.n : MEGABYTE_HEADER_MAX, &c,
            &error));
        CHECK(c.format_version == 1 && (int)c.numerics_version == h.numerics);
        CHECK(!memcmp(c.model_id, f->info.id, 6) && !memcmp(h.model, f->info.id, 6));
        CHECK(c.single == h.single && c.has_dictionary == h.has_dictionary &&
              c.has_dictionary == (in.options.dictionary_size > 0));
        CHECK(c.header_bytes == h.bytes && c.context_shift == in.options.context_shift &&
              (int)c.context_shift == h.context_shift);
        int uses_none = c.single && c.method != MEGABYTE_METHOD_CONTEXT_MIXING &&
                        c.method != MEGABYTE_METHOD_MIXED;
        CHECK(c.mixing_memory ==
                  (in.options.level && in.options.level != 5 && !uses_none ? 1 : 0) &&
              h.mixing_memory == (int)c.mixing_memory);
        if (c.has_dictionary) {
            ref_sha256(in.options.dictionary, in.options.dictionary_size, digest);
            CHECK(!memcmp(c.dictionary_id, digest, 4) && !memcmp(h.dictionary, digest, 4));
        }
        CHECK(c.size == (h.known ? h.size : MEGABYTE_SIZE_UNKNOWN) && (!h.known || h.size == n));
        if (in.options.size && n) CHECK(h.known, "the size was known");
        for (size_t k = 0; k < h.bytes; k++) {
            uint8_t *cut = need(k, 1);
            memcpy(cut, packed.bytes, k);
            CHECK_STATUS(megabyte_file_header_read(cut, k, &c, &error), MEGABYTE_ERROR_TRUNCATED);
            CHECK(error.status == MEGABYTE_ERROR_TRUNCATED && error.text[0]);
            free(cut);
        }
        OK(megabyte_file_header_read(packed.bytes, packed.n, &c, NULL));
        at = h.bytes;
        if (c.single) {
            CHECK(c.coded == h.coded && c.method == h.method && c.size == n &&
                  at + c.coded + 4 == packed.n);
            continue;
        }
        CHECK(c.block_size == h.block_size &&
              (!in.options.block_size || c.block_size == in.options.block_size));
        megabyte_block_header b = {0};
        do {
            OK(megabyte_block_header_read(packed.bytes + at, packed.n - at, &c, &b, &error));
            for (size_t k = 0; k < b.header_bytes; k++) {
                megabyte_block_header other;
                CHECK_STATUS(megabyte_block_header_read(packed.bytes + at, k, &c, &other, &error),
                             MEGABYTE_ERROR_TRUNCATED);
            }
            CHECK(b.method == packed.bytes[at] - 1 && (b.method >= 0 || !(b.size || b.coded)));
            at += b.header_bytes + b.coded;
            sum += b.size;
            CHECK(at <= packed.n && b.size <= c.block_size);
        } while (b.method >= 0);
        CHECK(at == packed.n && sum == n, "the blocks hold %zu of %zu bytes", sum, n);
    }
    free(packed.bytes);
}

/* Files made by the reference: blocks that are stored, constant or coded as it likes. */
static ref_header header_for(const fixture *f) {
    ref_header h = {.numerics = 0};
    megabyte_file_header c;
    buffer packed = {0};
    compress_once(f->model, NULL, (const uint8_t *)"", 0, &packed);
    OK(megabyte_file_header_read(packed.bytes, packed.n, &c, NULL));
    h.numerics = (int)c.numerics_version;
    memcpy(h.model, f->info.id, 6);
    free(packed.bytes);
    return h;
}

static void files_of_the_reference(void) {
    buffer got = {0};
    EACH_FIXTURE(f) {
        megabyte_stream *s = new_stream(f->model, NULL, 0), *primed = new_stream(f->model, NULL, 0);
        for (uint64_t seed = 1; seed <= 60; seed++) {
            ref_writer w = {0};
            ref_header h = header_for(f);
            uint8_t bytes[300], digest[32];
            size_t plan[9], count = random_below(9), total = 0;
            seed_random(seed);
            name_case("%s", f->y.name);
            megabyte_stream_reset(primed);
            megabyte_codec_options o = {.block_size = 300,
                                        .streams = 1 + (uint32_t)random_below(4)};
            if (seed % 2) {
                o.dictionary = f->pool, o.dictionary_size = 1 + random_below(50);
                h.has_dictionary = 1;
                ref_sha256(o.dictionary, o.dictionary_size, digest);
                memcpy(h.dictionary, digest, 4);
                OK(megabyte_stream_feed(primed, o.dictionary, o.dictionary_size));
            }
            for (size_t i = 0; i < count; i++) total += plan[i] = 1 + random_below(300);
            h.block_size = 300, h.known = seed % 3 == 0, h.size = total;
            ref_write_header(&w, &h);
            for (size_t i = 0; i < count; i++) {
                enum kind kind = (enum kind)random_below(KINDS);
                make_data(f, kind, bytes, plan[i]);
                int method = kind == ZEROS ? REF_CONSTANT : kind == LIKELY ? REF_CODED : REF_STORED;
                ref_write_block(&w, s, primed, method, bytes, plan[i]);
            }
            ref_write_end(&w);
            megabyte_error error;
            megabyte_status status = decompress_once(f->model, &o, w.bytes, w.n, total, &got,
                                                     &error);
            CHECK(!status && same(got.bytes, got.n, w.original, w.n_original), "%s",
                  status ? error.text : "others");
            ref_discard(&w);
        }
        megabyte_stream_free(s), megabyte_stream_free(primed);
    }
    free(got.bytes);
}

/* ------------------------------------------------------------------------------------- messages */

static uint8_t *state_of(const megabyte_stream *s, size_t *size) {
    uint8_t *p = need(*size = megabyte_stream_save_size(s), 1);
    OK(megabyte_stream_save(s, p, *size));
    return p;
}

static void check_state(const megabyte_stream *s, const uint8_t *expected, size_t n,
                        const char *after) {
    size_t size;
    uint8_t *now = state_of(s, &size);
    CHECK(same(now, size, expected, n), "the stream has changed: %s", after);
    free(now);
}

/* Ideal bits of bytes[n] after what the stream holds, over the 256 bytes; the stream is left as it
 * was. */
static double ideal_bits(const fixture *f, megabyte_stream *scratch, const megabyte_stream *s,
                         const uint8_t *bytes, size_t n) {
    float *rows = need(n * f->info.vocabulary, sizeof *rows);
    OK(megabyte_stream_copy(scratch, s));
    OK(megabyte_stream_score(scratch, bytes, n, NULL, rows));
    double bits = ref_ideal_bits(rows, f->info.vocabulary, bytes, n);
    free(rows);
    return bits;
}

/* One message between two streams with the same history; returns the bytes of its code. */
static size_t send(const fixture *f, megabyte_stream *from, megabyte_stream *to,
                   megabyte_stream *scratch, megabyte_stream *other, const uint8_t *bytes,
                   size_t n) {
    size_t bound = megabyte_message_bound(n), n_coded = 12345, got = 12345;
    uint8_t *coded = need(bound + 16, 1), *back = need(n + 16, 1), *expected = need(4 * n + 64, 1);
    double bits = ideal_bits(f, scratch, from, bytes, n);
    uint64_t position = megabyte_stream_position(from);
    OK(megabyte_stream_copy(scratch, from));
    memset(coded, 0x99, bound + 16), memset(back, 0x99, n + 16);
    OK(megabyte_stream_encode(from, n ? bytes : NULL, n, coded, bound, &n_coded));
    CHECK(n_coded <= bound, "%zu bytes, the bound is %zu", n_coded, bound);
    for (size_t i = bound; i < bound + 16; i++)
        CHECK(coded[i] == 0x99, "byte %zu of %zu is written", i, bound);
    if (n <= 126)
        CHECK((double)n_coded <= ceil(bits / 8) + 1, "%zu bytes for a message of %f ideal bits",
              n_coded, bits);
    CHECK((double)n_coded <= bits * 1.0005 / 8 + 6, "%zu bytes for a message of %f ideal bits",
          n_coded, bits);
    size_t reference = ref_encode_message(scratch, other, bytes, n, expected);
    CHECK(same(coded, n_coded, expected, reference), "%zu bytes, the reference writes %zu, others",
          n_coded, reference);
    uint8_t *exact = need(n_coded, 1); /* its own allocation */
    memcpy(exact, coded, n_coded);
    OK(megabyte_stream_decode(to, exact, n_coded, back, n, &got));
    CHECK(same(back, got, bytes, n), "%zu bytes come back as %zu", n, got);
    for (size_t i = n; i < n + 16; i++) CHECK(back[i] == 0x99, "byte %zu of %zu is written", i, n);
    CHECK(megabyte_stream_position(from) == position + n &&
          megabyte_stream_position(to) == position + n);
    CHECK(
        same_floats(megabyte_stream_logits(from), megabyte_stream_logits(to), f->info.vocabulary) &&
            same_floats(megabyte_stream_logits(from), megabyte_stream_logits(scratch),
                        f->info.vocabulary),
        "the message is not what follows in the histories");
    free(coded), free(back), free(exact), free(expected);
    return n_coded;
}

static void messages(void) {
    static uint8_t bytes[3000];
    EACH_FIXTURE(f) {
        megabyte_engine *engine = new_engine(f->model, 1, 7, MEGABYTE_ISA_AUTO);
        megabyte_stream *a = new_stream(f->model, NULL, 0), *b = new_stream(f->model, engine, 0);
        megabyte_stream *scratch = new_stream(f->model, engine, 0),
                        *other = new_stream(f->model, engine, 0);
        for (size_t n = 0; n <= 300;
             n += f == tiny || n < 30 ? 1 : 3) { /* to an empty history, or after others */
            name_case("%s, a message of %zu", f->y.name, n);
            seed_random(n);
            make_data(f, n % 4 == 3 ? MIXED : LIKELY, bytes, n);
            if (n % 20 == 0 || random_below(2)) {
                megabyte_stream_reset(a), megabyte_stream_reset(b);
                size_t history = n % 3 ? random_below(80) : 0;
                OK(megabyte_stream_feed(a, f->pool, history));
                OK(megabyte_stream_feed(b, f->pool, history));
            }
            send(f, a, b, scratch, other, bytes, n);
        }
        for (int kind = 0; kind < KINDS; kind++) {
            name_case("%s, a message of 3000, %s", f->y.name, kind_name[kind]);
            seed_random((uint64_t)kind);
            make_data(f, (enum kind)kind, bytes, sizeof bytes);
            send(f, a, b, scratch, other, bytes, sizeof bytes);
        }
        megabyte_stream_free(a), megabyte_stream_free(b), megabyte_stream_free(scratch),
            megabyte_stream_free(other);
        megabyte_engine_free(engine);
    }
    static const fixture shipped = {.y = {.name = "text-small"}};
    fixture f = shipped;
    f.model = text_small, f.info = describe(text_small);
    megabyte_stream *a = new_stream(text_small, NULL, 1024),
                    *b = new_stream(text_small, NULL, 1024);
    megabyte_stream *scratch = new_stream(text_small, NULL, 1024),
                    *other = new_stream(text_small, NULL, 1024);
    for (size_t n = 0; n <= 126; n += 9) {
        name_case("text-small, a message of %zu", n);
        send(&f, a, b, scratch, other, text + 5000 + n, n);
    }
    CHECK(megabyte_message_bound(0) == 16 && megabyte_message_bound(100) == 116);
    CHECK(megabyte_message_bound(SIZE_MAX) == SIZE_MAX &&
          megabyte_message_bound(SIZE_MAX - 15) == SIZE_MAX);
    megabyte_stream_free(a), megabyte_stream_free(b), megabyte_stream_free(scratch),
        megabyte_stream_free(other);
}

/* A primed stream is copied, or rewound: the same codes. */
static void primed_messages(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *primed = new_stream(f->model, NULL, 0),
                        *copied = new_stream(f->model, NULL, 0);
        megabyte_stream *rewound = new_stream(f->model, NULL, 0),
                        *scratch = new_stream(f->model, NULL, 0);
        megabyte_stream *other = new_stream(f->model, NULL, 0),
                        *third = new_stream(f->model, NULL, 0);
        size_t window = (size_t)f->info.context_bytes, plain = 0, better = 0;
        for (size_t prime = 0; prime <= window; prime += 1 + window / 7) {
            megabyte_stream_reset(primed), megabyte_stream_reset(rewound);
            OK(megabyte_stream_feed(primed, f->pool, prime));
            OK(megabyte_stream_feed(rewound, f->pool, prime));
            for (size_t n = 0; n + prime <= window; n++) {
                uint8_t one[64], two[64];
                size_t n_one, n_two;
                const uint8_t *bytes = f->pool + prime;
                name_case("%s, %zu after %zu", f->y.name, n, prime);
                OK(megabyte_stream_copy(copied, primed));
                OK(megabyte_stream_encode(copied, bytes, n, one, sizeof one, &n_one));
                OK(megabyte_stream_rewind(rewound, prime));
                OK(megabyte_stream_encode(rewound, bytes, n, two, sizeof two, &n_two));
                CHECK(same(one, n_one, two, n_two), "%zu bytes copied, %zu rewound", n_one, n_two);
                OK(megabyte_stream_copy(copied, primed));
                OK(megabyte_stream_rewind(rewound, prime));
                better += send(f, copied, rewound, scratch, other, bytes, n);
                megabyte_stream_reset(copied), megabyte_stream_reset(third);
                plain += send(f, copied, third, scratch, other, bytes, n);
            }
        }
        CHECK(better != plain, "a history makes no difference");
        megabyte_stream_free(primed), megabyte_stream_free(copied);
        megabyte_stream_free(rewound), megabyte_stream_free(scratch);
        megabyte_stream_free(other), megabyte_stream_free(third);
    }
}

static void refused_messages(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *s = new_stream(f->model, NULL, 0), *t = new_stream(f->model, NULL, 0);
        uint8_t coded[700], back[700];
        size_t n_coded, got, size, n_other;
        for (size_t n = 1; n <= 300; n = n * 2 + 1) {
            name_case("%s, a message of %zu", f->y.name, n);
            megabyte_stream_reset(s), megabyte_stream_reset(t);
            OK(megabyte_stream_feed(s, f->pool + 50, 19));
            OK(megabyte_stream_feed(t, f->pool + 50, 19));
            uint8_t *state = state_of(s, &size);
            uint8_t *other = state_of(t, &n_other);
            for (size_t room = 0; room < megabyte_message_bound(n); room += 1 + room / 3)
                CHECK_STATUS(megabyte_stream_encode(s, f->pool, n, coded, room, &n_coded),
                             MEGABYTE_ERROR_CAPACITY);
            CHECK_STATUS(megabyte_stream_encode(s, f->pool, n, coded, megabyte_message_bound(n) - 1,
                                                &n_coded),
                         MEGABYTE_ERROR_CAPACITY);
            check_state(s, state, size, "after CAPACITY");
            CHECK_STATUS(megabyte_stream_encode(NULL, f->pool, n, coded, 700, &n_coded),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_encode(s, NULL, n, coded, 700, &n_coded),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_encode(s, f->pool, n, NULL, 700, &n_coded),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_encode(s, f->pool, n, coded, 700, NULL),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            check_state(s, state, size, "after INVALID_ARGUMENT");
            OK(megabyte_stream_encode(s, f->pool, n, coded, sizeof coded, &n_coded));
            for (size_t room = 0; room < n; room += 1 + room / 5) {
                got = 12345;
                CHECK_STATUS(megabyte_stream_decode(t, coded, n_coded, back, room, &got),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK(got == n, "a message of %zu, not %zu", n, got);
            }
            CHECK_STATUS(megabyte_stream_decode(NULL, coded, n_coded, back, n, &got),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_decode(t, NULL, n_coded, back, n, &got),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_decode(t, coded, n_coded, NULL, n, &got),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_decode(t, coded, n_coded, back, n, NULL),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            check_state(t, other, n_other, "after refused decoding");
            OK(megabyte_stream_decode(t, coded, n_coded, back, n, &got));
            CHECK(same(back, got, f->pool, n));
            free(state), free(other);
        }
        megabyte_stream_free(s), megabyte_stream_free(t);
    }
}

/* What decodes is a message's code, or its bytes stored, to the last bit. */
static int try_code(megabyte_stream *s, megabyte_stream *t, const uint8_t *coded, size_t n_coded,
                    size_t capacity) {
    uint8_t *back = need(capacity, 1), *again = need(4 * capacity + 64, 1),
            *exact = need(n_coded, 1);
    size_t got = 12345;
    memcpy(exact, coded, n_coded);
    megabyte_stream_reset(s);
    megabyte_status status = megabyte_stream_decode(s, exact, n_coded, back, capacity, &got);
    CHECK(status == MEGABYTE_OK || status == MEGABYTE_ERROR_CORRUPT ||
              status == MEGABYTE_ERROR_CAPACITY,
          "%s", megabyte_status_string(status));
    if (status == MEGABYTE_OK) {
        CHECK(got <= capacity);
        megabyte_stream_reset(t);
        int right = same(coded, n_coded, again, ref_message(t, 0, back, got, again));
        if (!right) right = same(coded, n_coded, again, ref_message(t, 1, back, got, again));
        CHECK(right, "decodes to %zu bytes, which have another code", got);
    } else if (status == MEGABYTE_ERROR_CORRUPT) {
        CHECK(got == 0, "%zu bytes and CORRUPT", got);
    } else {
        CHECK(got > capacity && megabyte_stream_position(s) == 0);
    }
    free(back), free(again), free(exact);
    return status == MEGABYTE_OK;
}

static void hostile_codes(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *s = new_stream(f->model, NULL, 0), *t = new_stream(f->model, NULL, 0);
        size_t decoded = 0, tried = 0;
        uint8_t coded[600];
        name_case("%s, every short code", f->y.name);
        for (int c = -1; c < 65536 + 256; c += c < 256 || f == tiny ? 1 : 7, tried++) {
            size_t n = c < 0 ? 0 : c < 256 ? 1 : 2;
            coded[0] = (uint8_t)c, coded[1] = (uint8_t)((c - 256) >> 8);
            decoded += (size_t)try_code(s, t, coded, n, 300);
        }
        CHECK(decoded > 20 && decoded < tried, "%zu of %zu codes are messages", decoded, tried);
        for (uint64_t seed = 1; seed <= 3000; seed++) {
            name_case("%s, a random code", f->y.name);
            seed_random(seed);
            size_t n = random_below(seed % 2 ? 12 : 300), got;
            if (seed % 3) {
                random_bytes(coded, n, 256);
            } else { /* a right one, spoilt */
                uint8_t bytes[300];
                make_data(f, LIKELY, bytes, n);
                megabyte_stream_reset(s);
                OK(megabyte_stream_encode(s, bytes, n, coded, sizeof coded, &got));
                if (got) coded[random_below(got)] ^= (uint8_t)(1u << random_below(8));
                n = seed % 2 ? got : random_below(got + 1);
            }
            try_code(s, t, coded, n, random_below(400));
        }
        megabyte_stream_free(s), megabyte_stream_free(t);
    }
}

/* ------------------------------------------------------------------------------------- overhead */

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
    free(packed.bytes), free(pieces.bytes);
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

/* --------------------------------------------------------------------------------------- damage */

enum { WHOLE = 1 << 16 };

typedef struct sample { /* a file and what it holds */
    buffer packed;
    uint8_t original[WHOLE];
    size_t n, begins[64], blocks, ends; /* where the blocks begin, and where the end mark does */
    way w; /* to read it with */
} sample;

static void free_sample(sample *x) { free(x->packed.bytes); }

static void find_blocks(sample *x) {
    megabyte_file_header c;
    megabyte_block_header b;
    OK(megabyte_file_header_read(x->packed.bytes, x->packed.n, &c, NULL));
    x->blocks = 0, x->ends = x->packed.n;
    for (size_t at = c.header_bytes; !c.single && at < x->packed.n;
         at += b.header_bytes + b.coded) {
        OK(megabyte_block_header_read(x->packed.bytes + at, x->packed.n - at, &c, &b, NULL));
        if (b.method < 0) x->ends = at;
        else x->begins[x->blocks++] = at;
        CHECK(x->blocks < COUNT_OF(x->begins));
    }
}

/* About 20 KB in blocks of all methods; the coded ones, which take time, come last. */
static void make_blocks(sample *x, size_t stored, size_t coded) {
    static const size_t likely[] = {130, 50, 90, 70, 120, 40};
    megabyte_codec_options o = {.block_size = 1024};
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &o);
    seed_random(stored);
    for (size_t i = 0; i < stored + 3 + coded; i++) {
        size_t n = i < stored       ? 1024 - i % 3
                   : i < stored + 3 ? 1 + random_below(600)
                                    : likely[(i - stored - 3) % 6],
               taken;
        uint8_t *bytes = x->original + x->n;
        make_data(tiny, i < stored ? RANDOM : i < stored + 3 ? ZEROS : LIKELY, bytes, n);
        x->n += n;
        OK(megabyte_codec_push(c, bytes, n, &taken));
        CHECK(taken == n);
        OK(pull_all(c, 0, &x->packed));
        OK(megabyte_codec_flush(c));
        OK(pull_all(c, 0, &x->packed));
    }
    OK(megabyte_codec_finish(c));
    OK(pull_all(c, 0, &x->packed));
    megabyte_statistics counts;
    megabyte_codec_statistics(c, &counts);
    CHECK(counts.blocks[MEGABYTE_METHOD_STORED] == stored &&
              counts.blocks[MEGABYTE_METHOD_CONSTANT] == 3 &&
              counts.blocks[MEGABYTE_METHOD_MODEL] == coded,
          "%llu stored, %llu constant, %llu coded", (unsigned long long)counts.blocks[0],
          (unsigned long long)counts.blocks[1], (unsigned long long)counts.blocks[2]);
    megabyte_codec_free(c);
    x->w.options.block_size = 1024;
    find_blocks(x);
}

static void make_single(sample *x, enum kind kind, size_t n) {
    seed_random(n);
    x->n = n;
    make_data(tiny, kind, x->original, n);
    compress_once(tiny->model, NULL, x->original, n, &x->packed);
    x->w.options.block_size = 1024;
    find_blocks(x);
}

static int is_prefix(const sample *x, const buffer *out) {
    return out->n <= x->n && (!out->n || !memcmp(out->bytes, x->original, out->n));
}

/* Every bit, or each `step`th from `from`, turned over in its turn: never OK, and what comes out is
 * a beginning. */
static void flip_bits(const sample *x, size_t from, size_t step) {
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &x->w.options);
    buffer out = {0};
    uint8_t *bad = need(x->packed.n, 1);
    memcpy(bad, x->packed.bytes, x->packed.n);
    for (size_t bit = from; bit < x->packed.n * 8; bit += step) {
        test_seed = bit;
        bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        megabyte_codec_reset(c);
        megabyte_status status = drive(c, &x->w, bad, x->packed.n, &out);
        CHECK(status && megabyte_codec_error(c)->status == status,
              "bit %zu of byte %zu is not noticed", bit % 8, bit / 8);
        CHECK(is_prefix(x, &out), "bit %zu of byte %zu: wrong bytes are handed out", bit % 8,
              bit / 8);
        if (bit % 97 == 0) {
            status = decompress_once(tiny->model, &x->w.options, bad, x->packed.n, x->n, &out,
                                     NULL);
            CHECK(status, "bit %zu of byte %zu is not noticed in one call", bit % 8, bit / 8);
        }
        bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    megabyte_codec_reset(c);
    OK(drive(c, &x->w, bad, x->packed.n, &out));
    CHECK(same(out.bytes, out.n, x->original, x->n));
    megabyte_codec_free(c);
    free(bad), free(out.bytes);
}

static void truncate_everywhere(const sample *x) {
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &x->w.options);
    buffer out = {0};
    for (size_t n = 0; n < x->packed.n; n++) {
        test_seed = n;
        uint8_t *cut = need(n, 1);
        memcpy(cut, x->packed.bytes, n);
        megabyte_codec_reset(c);
        CHECK_STATUS(drive(c, &x->w, cut, n, &out), MEGABYTE_ERROR_TRUNCATED);
        CHECK(is_prefix(x, &out) && out.n <= x->n, "%zu of %zu bytes: wrong bytes are handed out",
              n, x->packed.n);
        if (n % 50 == 0)
            CHECK_STATUS(decompress_once(tiny->model, &x->w.options, cut, n, x->n, &out, NULL),
                         MEGABYTE_ERROR_TRUNCATED);
        free(cut);
    }
    megabyte_codec_free(c);
    free(out.bytes);
}

static void flipped_bits_and_truncations(void) {
    static sample blocks, single, stored, constant, empty;
    make_blocks(&blocks, 20, 4);
    name_case("blocks");
    CHECK(blocks.packed.n > 20000 && blocks.blocks == 27, "%zu bytes, %zu blocks", blocks.packed.n,
          blocks.blocks);
    fflush(stdout);
    pid_t other = fork(); /* two halves of the work: every second bit */
    CHECK(other >= 0);
    flip_bits(&blocks, other ? 0 : 1, 2);
    if (!other) _exit(0);
    truncate_everywhere(&blocks);
    int status;
    CHECK(waitpid(other, &status, 0) == other && status == 0, "the other half failed");
    make_single(&single, LIKELY, 500);
    make_single(&stored, RANDOM, 300);
    make_single(&constant, ZEROS, 400);
    make_single(&empty, ZEROS, 0);
    sample *all[] = {&single, &stored, &constant, &empty};
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        name_case("one block, %zu bytes", all[i]->n);
        flip_bits(all[i], 0, 1);
        truncate_everywhere(all[i]);
        free_sample(all[i]);
    }
    name_case("blocks, in small pieces by five streams");
    blocks.w.push = 300, blocks.w.pull = 100, blocks.w.options.streams = 5;
    flip_bits(&blocks, 0, 499);
    free_sample(&blocks);
}

/* Something behind the end: all of the data, and then the error. */
/* Zeros are unlikely in text: the code begins with ff ff ff fe or so, beside the interval's very
 * end. */
static void flips_beside_the_end(void) {
    uint8_t bytes[100] = {0};
    buffer packed = {0}, got = {0};
    megabyte_file_header c;
    megabyte_error error;
    memcpy(bytes + 20, text, sizeof bytes - 20);
    for (int level = 5; level <= 7; level += 2) {
        megabyte_codec_options o = {.level = level, .mixing_memory = level == 5 ? 0 : 1};
        compress_once(text_small, &o, bytes, sizeof bytes, &packed);
        OK(megabyte_file_header_read(packed.bytes, packed.n, &c, NULL));
        CHECK(packed.bytes[c.header_bytes] == 255 && packed.bytes[c.header_bytes + 1] == 255);
        for (size_t bit = 8 * c.header_bytes; bit < 8 * (c.header_bytes + 6u); bit++) {
            name_case("level %d, bit %zu", level, bit);
            packed.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            CHECK_STATUS(
                decompress_once(text_small, &o, packed.bytes, packed.n, sizeof bytes, &got, &error),
                MEGABYTE_ERROR_CORRUPT);
            packed.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
    free(packed.bytes), free(got.bytes);
}

static void trailing_bytes(void) {
    static sample x, single;
    buffer file = {0}, out = {0};
    make_blocks(&x, 2, 2);
    make_single(&single, LIKELY, 100);
    for (int i = 0; i < 2; i++) {
        const sample *y = i ? &single : &x;
        for (int tail = 0; tail < 300; tail++) {
            uint8_t more[50];
            name_case("%d behind %zu bytes", tail, y->n);
            seed_random((uint64_t)tail);
            random_bytes(more, sizeof more, 256);
            if (more[0] == 0xb5) more[0] = 0;
            size_t count = tail < 256 ? 1 : random_below(sizeof more) + 1;
            if (tail < 256) more[0] = (uint8_t)tail;
            file.n = 0;
            ref_append(&file.bytes, &file.n, &file.room, y->packed.bytes, y->packed.n);
            ref_append(&file.bytes, &file.n, &file.room, more, count);
            way w = {.options = {.block_size = 1024, .streams = 1 + (uint32_t)tail % 3},
                     .push = (size_t)tail % 4 * 7};
            megabyte_status status = run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &w,
                                               file.bytes, file.n, &out);
            if (tail == 0xb5)
                CHECK(status == MEGABYTE_ERROR_TRUNCATED || status == MEGABYTE_ERROR_TRAILING_DATA);
            else CHECK_STATUS(status, MEGABYTE_ERROR_TRAILING_DATA);
            CHECK(same(out.bytes, out.n, y->original, y->n), "%zu of %zu bytes are handed out",
                  out.n, y->n);
            status = decompress_once(tiny->model, &w.options, file.bytes, file.n, y->n, &out, NULL);
            CHECK(status && same(out.bytes, out.n, y->original, y->n), "in one call: %s, %zu bytes",
                  megabyte_status_string(status), out.n);
        }
    }
    free_sample(&x), free_sample(&single);
    free(file.bytes), free(out.bytes);
}

/* Random damage, moved blocks, headers with right checksums: never OK but with the right bytes. */
static void mutations(void) {
    static sample x;
    buffer file = {0}, out = {0};
    size_t refused = 0, status_seen[20] = {0};
    make_blocks(&x, 3, 5);
    megabyte_codec_options o = {.block_size = 1024, .streams = 2};
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &o);
    size_t header = x.begins[0];
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        seed_random(seed);
        name_case("mutation");
        file.n = 0;
        size_t a = random_below(x.blocks), b = random_below(x.blocks);
        size_t begin[2] = {x.begins[a], x.begins[b]};
        size_t end[2] = {a + 1 < x.blocks ? x.begins[a + 1] : x.ends,
                         b + 1 < x.blocks ? x.begins[b + 1] : x.ends};
        int what = (int)(seed % 8);
#define PUT(from, to) \
    ref_append(&file.bytes, &file.n, &file.room, x.packed.bytes + (from), (to) - (from))
        if (what == 0) { /* a block twice */
            PUT(0, end[0]), PUT(begin[0], x.packed.n);
        } else if (what == 1) { /* a block less */
            PUT(0, begin[0]), PUT(end[0], x.packed.n);
        } else if (what == 2) { /* two blocks change places */
            int first = begin[0] < begin[1] ? 0 : 1;
            if (a == b) continue;
            PUT(0, begin[first]), PUT(begin[!first], end[!first]), PUT(end[first], begin[!first]);
            PUT(begin[first], end[first]), PUT(end[!first], x.packed.n);
        } else if (what == 3) { /* the end mark comes sooner */
            PUT(0, begin[0]), PUT(x.ends, x.packed.n);
            if (random_below(2)) PUT(begin[0], x.ends);
        } else {
            PUT(0, x.packed.n);
            for (size_t k = 1 + random_below(5); k && what < 7; k--) {
                size_t at = random_below(file.n), count = random_below(20),
                       from = random_below(file.n);
                if (random_below(3) == 0)
                    at = random_below(x.blocks), at = x.begins[at] + random_below(8);
                if (count > file.n - at) count = file.n - at;
                if (count > file.n - from) count = file.n - from;
                switch (random_below(4)) {
                case 0: random_bytes(file.bytes + at, count, 256); break;
                case 1: memmove(file.bytes + at, file.bytes + from, count); break;
                case 2: memset(file.bytes + at, random_below(2) ? 255 : 0, count); break;
                default: file.bytes[at] = (uint8_t)random_below(6);
                }
                if (random_below(20) == 0) file.n = random_below(file.n) + 1;
            }
            if (what == 7) { /* the header, signed */
                for (size_t k = 1 + random_below(2); k; k--)
                    file.bytes[4 + random_below(header - 6)] ^= (uint8_t)(1u << random_below(8));
                ref_sign_header(file.bytes, header);
            }
        }
        megabyte_codec_reset(c);
        way w = {.push = random_below(2) * 700};
        megabyte_status status = drive(c, &w, file.bytes, file.n, &out);
        CHECK(is_prefix(&x, &out) || what < 3,
              "wrong bytes are handed out"); /* right blocks may be */
        if (status) refused++;
        else
            CHECK(same(out.bytes, out.n, x.original, x.n),
                  "the damage is not noticed"); /* zeros, exchanged */
        CHECK(status <= 0 && status > -20);
        status_seen[-status]++;
    }
    CHECK(refused > 1600, "%zu refused", refused);
    CHECK(status_seen[-MEGABYTE_ERROR_CORRUPT] && status_seen[-MEGABYTE_ERROR_TRUNCATED] &&
          status_seen[-MEGABYTE_ERROR_BAD_MAGIC] && status_seen[-MEGABYTE_ERROR_BAD_VERSION] &&
          status_seen[-MEGABYTE_ERROR_WRONG_MODEL]);
    CHECK(!status_seen[-MEGABYTE_ERROR_INVALID_ARGUMENT] &&
          !status_seen[-MEGABYTE_ERROR_OUT_OF_MEMORY] && !status_seen[-MEGABYTE_ERROR_IO] &&
          !status_seen[-MEGABYTE_ERROR_UNSUPPORTED] && !status_seen[-MEGABYTE_ERROR_CANCELLED]);
    megabyte_codec_free(c);
    free_sample(&x);
    free(file.bytes), free(out.bytes);
}

/* Headers and blocks that claim what is not so, with checksums that hold. */
static void hostile_claims(void) {
    static const uint64_t claims[] = {0,
                                      1,
                                      2,
                                      99,
                                      101,
                                      128,
                                      1024,
                                      1025,
                                      67108864,
                                      67108865,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x100000000,
                                      0x7fffffffffffffff,
                                      0x8000000000000000,
                                      UINT64_MAX};
    uint8_t bytes[100];
    buffer out = {0};
    megabyte_codec_options o = {.block_size = 1024, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING};
    seed_random(1);
    make_data(tiny, LIKELY, bytes, sizeof bytes);
    megabyte_stream *s = new_stream(tiny->model, NULL, 0),
                    *primed = new_stream(tiny->model, NULL, 0);
    uint8_t coded[300];
    size_t n_coded = ref_encode(s, bytes, sizeof bytes, coded);
    for (size_t i = 0; i < COUNT_OF(claims); i++)
        for (int method = 0; method < 3; method++)
            for (int what = 0; what < 6; what++) {
                ref_writer w = {0};
                ref_header h = header_for(tiny);
                uint64_t claim = claims[i];
                uint8_t tag = (uint8_t)(method + 1), digest[32];
                name_case("claim %llx, method %d, place %d", (unsigned long long)claim, method,
                          what);
                ref_sha256(bytes, sizeof bytes, digest);
                h.block_size = what == 0 ? claim : 1024, h.known = what == 1,
                h.size = h.known ? claim : 0;
                if (what > 3) { /* a single block's sizes */
                    h.single = 1, h.method = method;
                    h.size = what == 4 ? claim : sizeof bytes;
                    h.coded = what == 5 ? claim : n_coded;
                }
                ref_write_header(&w, &h);
                if (!h.single) {
                    ref_write(&w, &tag, 1);
                    ref_write_varint(&w, what == 2 ? claim : sizeof bytes);
                    if (method == REF_CODED) ref_write_varint(&w, what == 3 ? claim : n_coded);
                    ref_write(&w, digest, 4);
                }
                ref_write_payload(&w, method, coded,
                                  method == REF_CODED ? n_coded
                                  : method            ? 1
                                                      : sizeof bytes,
                                  bytes);
                if (h.single) ref_write(&w, digest, 4);
                else {
                    ref_append(&w.original, &w.n_original, &w.room_original, bytes, sizeof bytes);
                    ref_write_end(&w);
                }
                megabyte_error error;
                counter c = {0};
                megabyte_allocator allocator = counting(&c);
                uint8_t room[2048];
                size_t n = 12345;
                megabyte_status status = megabyte_decompress(tiny->model, &o, w.bytes, w.n, room,
                                                             sizeof room, &n, &allocator, &error);
                size_t needed;
                OK(megabyte_codec_size(tiny->model, MEGABYTE_MODE_DECOMPRESS, &o, &needed));
                CHECK(c.peak_bytes <= needed && !c.live, "%zu bytes allocated", c.peak_bytes);
                if (status) CHECK(error.text[0] && n <= sizeof room);
                else
                    CHECK(same(room, n, bytes, sizeof bytes) && what != 1 && what != 4,
                          "%zu bytes, OK", n);
                megabyte_file_header container;
                if (!megabyte_file_header_read(w.bytes, w.n, &container, NULL))
                    CHECK(container.header_bytes <= MEGABYTE_HEADER_MAX &&
                          container.block_size <= MEGABYTE_BLOCK_MAX);
                ref_discard(&w);
            }
    /* numbers in more bytes than they need, or without an end */
    for (int extra = 1; extra < 12; extra++) {
        ref_writer w = {0};
        ref_header h = header_for(tiny);
        uint8_t continued[16];
        h.block_size = 1024;
        name_case("a number of %d bytes", extra + 1);
        ref_write_header(&w, &h);
        memset(continued, 0x80, sizeof continued);
        continued[0] = 5 | 0x80;
        continued[extra] = 0;
        ref_write(&w, "\1", 1);
        ref_write(&w, continued, (size_t)extra + 1);
        uint8_t digest[32];
        ref_sha256(bytes, 5, digest);
        ref_write(&w, digest, 4);
        ref_write(&w, bytes, 5);
        ref_append(&w.original, &w.n_original, &w.room_original, bytes, 5);
        ref_write_end(&w);
        CHECK_STATUS(decompress_once(tiny->model, &o, w.bytes, w.n, 100, &out, NULL),
                     MEGABYTE_ERROR_CORRUPT);
        ref_discard(&w);
    }
    megabyte_stream_free(s), megabyte_stream_free(primed);
    free(out.bytes);
}

/* ------------------------------------------------------------------------------------- statuses */

static void hex(char *to, const uint8_t *bytes, int n) {
    for (int i = 0; i < n; i++) sprintf(to + 2 * i, "%02x", bytes[i]);
}

/* The status of decompressing; nothing may come out. */
static void refuse(const megabyte_model *m, const megabyte_codec_options *o, const uint8_t *bytes,
                   size_t n, megabyte_status expected, char text_out[192]) {
    buffer out = {0};
    megabyte_error error;
    way w = {.options = o ? *o : (megabyte_codec_options){0}, .push = 5};
    CHECK_STATUS(run_codec(m, MEGABYTE_MODE_DECOMPRESS, &w, bytes, n, &out), expected);
    CHECK(!out.n, "%zu bytes come out", out.n);
    CHECK_STATUS(decompress_once(m, o, bytes, n, 5000, &out, &error), expected);
    CHECK(!out.n, "%zu bytes come out of one call", out.n);
    CHECK(strlen(error.text) > 15, "'%s'", error.text);
    if (text_out) memcpy(text_out, error.text, 192);
    free(out.bytes);
}

static void wrong_files(void) {
    uint8_t bytes[1000];
    buffer packed = {0}, primed = {0};
    char said[192], one[13], two[13];
    megabyte_codec_options with = {.dictionary = text, .dictionary_size = 40},
                           other = {.dictionary = text, .dictionary_size = 41};
    seed_random(1);
    make_data(tiny, LIKELY, bytes, sizeof bytes);
    for (int form = 0; form < 2; form++) { /* single, blocks */
        with.block_size = other.block_size = form ? 300 : 0;
        megabyte_codec_options plain = {.block_size = with.block_size}, large = {0};
        name_case("form %d", form);
        compress_once(tiny->model, &plain, bytes, sizeof bytes, &packed);
        compress_once(tiny->model, &with, bytes, sizeof bytes, &primed);
        refuse(fixtures[1].model, NULL, packed.bytes, packed.n, MEGABYTE_ERROR_WRONG_MODEL, said);
        hex(one, tiny->info.id, 6), hex(two, fixtures[1].info.id, 6);
        CHECK(strstr(said, one) && strstr(said, two), "'%s' does not name %s and %s", said, one,
              two);
        refuse(tiny->model, &other, primed.bytes, primed.n, MEGABYTE_ERROR_WRONG_DICTIONARY, NULL);
        refuse(tiny->model, &large, primed.bytes, primed.n, MEGABYTE_ERROR_WRONG_DICTIONARY, NULL);
        with.block_size = 0;
        refuse(tiny->model, &with, packed.bytes, packed.n, MEGABYTE_ERROR_WRONG_DICTIONARY, NULL);

        megabyte_file_header c, none;
        OK(megabyte_file_header_read(packed.bytes, packed.n, &c, NULL));
        uint8_t *bad = need(packed.n, 1);
        for (int place = 0; place < 4; place++) {
            memcpy(bad, packed.bytes, packed.n);
            bad[place] ^= 32;
            refuse(tiny->model, NULL, bad, packed.n, MEGABYTE_ERROR_BAD_MAGIC, NULL);
            CHECK_STATUS(megabyte_file_header_read(bad, packed.n, &none, NULL),
                         MEGABYTE_ERROR_BAD_MAGIC);
        }
        for (int place = 4; place < 7; place += 2) { /* the format, the numerics */
            memcpy(bad, packed.bytes, packed.n);
            bad[place]++;
            ref_sign_header(bad, c.header_bytes);
            refuse(tiny->model, NULL, bad, packed.n, MEGABYTE_ERROR_BAD_VERSION, said);
        }
        memcpy(bad, packed.bytes, packed.n);
        bad[c.header_bytes - 1] ^= 1;
        refuse(tiny->model, NULL, bad, packed.n, MEGABYTE_ERROR_CORRUPT, NULL);
        free(bad);
        megabyte_codec_options small = {.block_size = form ? 299 : 999};
        refuse(tiny->model, &small, packed.bytes, packed.n, MEGABYTE_ERROR_CAPACITY, NULL);
        megabyte_codec_options half = {.context_shift = 1};
        refuse(tiny->model, &half, packed.bytes, packed.n, MEGABYTE_ERROR_CAPACITY, NULL);
    }
    name_case("foreign");
    refuse(tiny->model, NULL, (const uint8_t *)"It was a dark and stormy night", 30,
           MEGABYTE_ERROR_BAD_MAGIC, NULL);
    refuse(tiny->model, NULL, (const uint8_t *)"\x1f\x8b\x08", 3, MEGABYTE_ERROR_BAD_MAGIC, NULL);
    refuse(tiny->model, NULL, (const uint8_t *)"", 0, MEGABYTE_ERROR_TRUNCATED, NULL);
    free(packed.bytes), free(primed.bytes);
}

/* A block is damaged: its number and the offset are told, and all before it comes out. */
static void corrupt_blocks(void) {
    static sample x;
    buffer out = {0};
    make_blocks(&x, 3, 4);
    for (uint32_t streams = 1; streams < 5; streams++) {
        size_t before = 0;
        for (size_t i = 0; i < x.blocks; i++) {
            megabyte_file_header c;
            megabyte_block_header b;
            char number[30];
            name_case("block %zu, %u streams", i, streams);
            OK(megabyte_file_header_read(x.packed.bytes, x.packed.n, &c, NULL));
            OK(megabyte_block_header_read(x.packed.bytes + x.begins[i], 64, &c, &b, NULL));
            size_t at = x.begins[i] + b.header_bytes + b.coded / 2;
            uint8_t *bad = need(x.packed.n, 1);
            memcpy(bad, x.packed.bytes, x.packed.n);
            bad[at] ^= 16;
            way w = {.options = {.block_size = 1024, .streams = streams}};
            megabyte_codec *codec = new_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &w.options);
            CHECK_STATUS(drive(codec, &w, bad, x.packed.n, &out), MEGABYTE_ERROR_CORRUPT);
            CHECK(out.n == before && is_prefix(&x, &out), "%zu bytes come out, %zu are right",
                  out.n, before);
            const megabyte_error *error = megabyte_codec_error(codec);
            snprintf(number, sizeof number, "block %zu,", i); /* counted from 0 */
            CHECK(strstr(error->text, number), "'%s' does not name %s", error->text, number);
            CHECK(error->offset >= x.begins[i] &&
                      error->offset <= x.begins[i] + b.header_bytes + b.coded,
                  "offset %llu, the block is at %zu", (unsigned long long)error->offset,
                  x.begins[i]);
            snprintf(number, sizeof number, "%llu", (unsigned long long)error->offset);
            CHECK(strstr(error->text, number), "'%s' does not tell the offset", error->text);
            megabyte_codec_reset(codec); /* works again */
            OK(drive(codec, &w, x.packed.bytes, x.packed.n, &out));
            CHECK(same(out.bytes, out.n, x.original, x.n));
            megabyte_codec_free(codec);
            before += b.size;
            free(bad);
        }
    }
    free_sample(&x);
    free(out.bytes);
}

static void limits(void) {
    uint8_t bytes[1000];
    buffer packed = {0}, out = {0};
    seed_random(4);
    make_data(tiny, MIXED, bytes, sizeof bytes);
    for (uint32_t block = 50; block <= 1000; block += 190)
        for (int known = 0; known < 2; known++) {
            way w = {.options = {.block_size = block, .size = known ? sizeof bytes : 0},
                     .push = 100};
            OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, bytes, sizeof bytes, &packed));
            for (uint64_t limit = 1; limit < 1200; limit += limit < 990 || limit > 1010 ? 71 : 1) {
                way r = {.options = {.block_size = 1000,
                                     .limit = limit,
                                     .streams = 1 + (uint32_t)(limit % 3)},
                         .push = 99};
                name_case("blocks of %u, limit %d", block, (int)limit);
                megabyte_status status = run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &r,
                                                   packed.bytes, packed.n, &out);
                CHECK(status == (limit < sizeof bytes ? MEGABYTE_ERROR_LIMIT : MEGABYTE_OK), "%s",
                      megabyte_status_string(status));
                CHECK(out.n <= limit && same(out.bytes, out.n, bytes, out.n), "%zu bytes", out.n);
                if (!status) CHECK(out.n == sizeof bytes);
            }
            for (size_t room = 0; room < sizeof bytes; room += 111) {
                name_case("blocks of %u, room for %zu", block, room);
                megabyte_codec_options o = {.block_size = 1000};
                CHECK_STATUS(
                    decompress_once(tiny->model, &o, packed.bytes, packed.n, room, &out, NULL),
                    MEGABYTE_ERROR_CAPACITY);
                CHECK(out.n <= room && same(out.bytes, out.n, bytes, out.n));
            }
            for (size_t room = 0; room < packed.n; room += 77) {
                uint8_t *to = need(room, 1);
                size_t n = 12345;
                megabyte_error error;
                megabyte_codec_options o = usual(&w.options);
                CHECK_STATUS(megabyte_compress(tiny->model, &o, bytes, sizeof bytes, to, room, &n,
                                               NULL, &error),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK(error.status == MEGABYTE_ERROR_CAPACITY && error.text[0] && n <= room);
                free(to);
            }
        }
    name_case("a limit over two members");
    buffer two = {0};
    ref_append(&two.bytes, &two.n, &two.room, packed.bytes, packed.n);
    ref_append(&two.bytes, &two.n, &two.room, packed.bytes, packed.n);
    way r = {.options = {.block_size = 1000, .limit = 1999}};
    CHECK_STATUS(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &r, two.bytes, two.n, &out),
                 MEGABYTE_ERROR_LIMIT);
    r.options.limit = 2000;
    OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &r, two.bytes, two.n, &out));
    free(packed.bytes), free(out.bytes), free(two.bytes);
}

/* What headers claim against what is there: all that needs no network is decoded; 2 MB from a few
 * bytes that the network must predict are refused before any work. */
static void ratios(void) {
    const size_t n = 2 * MEGABYTE_RATIO_FREE;
    uint8_t *bytes = need(n, 1), coded[300], digest[32];
    buffer packed = {0}, out = {0};
    for (int constant = 0; constant < 2; constant++) {
        if (!constant) bytes[n / 4] = bytes[3 * n / 4] = 1;
        else memset(bytes, 0, n);
        way w = {.options = {.block_size = (uint32_t)(n / 2), .size = n, .level = 1},
                 .push = 50000};
        OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, bytes, n, &packed));
        CHECK(packed.n > 30 && packed.n < 500, "%zu bytes", packed.n);
        way r = {.options = {.block_size = (uint32_t)(n / 2), .mixing_memory = 1, .max_ratio = 1},
                 .push = 50000};
        name_case("%s", constant ? "one byte" : "two blocks");
        OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &r, packed.bytes, packed.n, &out));
        CHECK(out.n == n);
    }
    megabyte_stream *s = new_stream(tiny->model, NULL, 0);
    size_t n_coded = ref_encode(s, bytes, 100, coded);
    for (uint64_t ratio = 0; ratio <= 1 << 20; ratio += ratio ? (1 << 20) - 1024 : 1024) {
        ref_writer w = {0};
        ref_header h = header_for(tiny);
        name_case("forged, ratio %d", (int)ratio);
        h.single = 1, h.method = REF_CODED, h.size = n, h.coded = n_coded;
        ref_write_header(&w, &h);
        ref_write_payload(&w, REF_CODED, coded, n_coded, bytes);
        ref_sha256(bytes, n, digest);
        ref_write(&w, digest, 4);
        way r = {.options = {.block_size = (uint32_t)n, .max_ratio = ratio}, .push = 7};
        CHECK_STATUS(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &r, w.bytes, w.n, &out),
                     ratio == 1024 ? MEGABYTE_ERROR_LIMIT : MEGABYTE_ERROR_CORRUPT);
        CHECK(out.n == 0);
        free(w.bytes), free(w.original);
    }
    megabyte_codec *codec;
    const megabyte_codec_options o = {.max_ratio = (uint64_t)1 << 32};
    CHECK_STATUS(
        megabyte_codec_create(&codec, tiny->model, MEGABYTE_MODE_DECOMPRESS, &o, NULL, NULL),
        MEGABYTE_ERROR_INVALID_ARGUMENT);
    megabyte_stream_free(s);
    free(bytes), free(packed.bytes), free(out.bytes);
}

typedef struct watcher {
    uint64_t last;
    int calls, cancel_at,
        tries; /* tries: several methods are tried on one block, which begins anew */
} watcher;
static int watch(void *context, uint64_t bytes) {
    watcher *w = context;
    CHECK(bytes >= w->last || w->tries, "%llu bytes after %llu", (unsigned long long)bytes,
          (unsigned long long)w->last);
    w->last = bytes;
    return ++w->calls == w->cancel_at;
}

static void progress(void) {
    enum { LONGEST = 12000 };
    buffer packed = {0}, out = {0};
    const uint8_t *bytes = tiny->pool;
    static const int levels[] = {5, 1, 7};
    for (size_t l = 0; l < COUNT_OF(levels); l++, packed.n = 0)
        for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++)
            for (int streams = 1; streams < 4; streams += 2)
                for (int verify = 0; verify < (mode == MEGABYTE_MODE_COMPRESS ? 2 : 1); verify++) {
                    if (levels[l] != 5 && streams == 1 &&
                        (verify || mode == MEGABYTE_MODE_DECOMPRESS))
                        continue;
                    uint32_t contexts = levels[l] == 5 ? MEGABYTE_NO_CONTEXT_MIXING : 1;
                    size_t size = levels[l] == 5 ? LONGEST : LONGEST / 4;
                    uint32_t block = (uint32_t)size * 3 / 20;
                    watcher watcher = {.tries = levels[l] > 5};
                    way w = {.options = {.block_size = block,
                                         .streams = (uint32_t)streams,
                                         .verify = verify,
                                         .level = levels[l],
                                         .mixing_memory = contexts,
                                         .progress = watch,
                                         .progress_context = &watcher},
                             .push = size / 4};
                    if (mode == MEGABYTE_MODE_COMPRESS && !packed.n) {
                        way plain = {.options = {.block_size = block,
                                                 .level = levels[l],
                                                 .mixing_memory = contexts}};
                        OK(run_codec(tiny->model, mode, &plain, bytes, size, &packed));
                    }
                    const uint8_t *in = mode == MEGABYTE_MODE_COMPRESS ? bytes : packed.bytes;
                    size_t n = mode == MEGABYTE_MODE_COMPRESS ? size : packed.n;
                    name_case("level %d, mode %d, %d streams, verify %d", levels[l], mode, streams,
                              verify);
                    OK(run_codec(tiny->model, mode, &w, in, n, &out));
                    int calls = watcher.calls;
                    CHECK(calls >= 3 && watcher.last <= size && watcher.last > size / 2,
                          "%d calls, the last at %d", calls, (int)watcher.last);
                    megabyte_codec *c = new_codec(tiny->model, mode, &w.options);
                    for (int at = 1; at <= calls; at += 1 + calls / 9) {
                        size_t taken;
                        uint8_t byte;
                        watcher.calls = 0, watcher.last = 0, watcher.cancel_at = at;
                        megabyte_codec_reset(c);
                        CHECK_STATUS(drive(c, &w, in, n, &out), MEGABYTE_ERROR_CANCELLED);
                        CHECK(out.n <= (mode == MEGABYTE_MODE_COMPRESS ? packed.n : size) &&
                                  same(out.bytes, out.n,
                                       mode == MEGABYTE_MODE_COMPRESS ? packed.bytes : bytes,
                                       out.n),
                              "not a beginning");
                        CHECK(megabyte_codec_push(c, in, 1, &taken) && !taken); /* it stays */
                        OK(megabyte_codec_flush(c)); /* whatever is called */
                        OK(megabyte_codec_finish(c));
                        CHECK_STATUS(megabyte_codec_pull(c, &byte, 1, &taken),
                                     MEGABYTE_ERROR_CANCELLED);
                        CHECK(megabyte_codec_push(c, in, 1, &taken) && !taken);
                        CHECK(watcher.calls == at, "the work goes on");
                        CHECK(megabyte_codec_error(c)->status == MEGABYTE_ERROR_CANCELLED &&
                              megabyte_codec_error(c)->text[0]);
                    }
                    watcher.calls = 0, watcher.last = 0, watcher.cancel_at = 0;
                    megabyte_codec_reset(c);
                    OK(drive(c, &w, in, n, &out));
                    CHECK(out.n == (mode == MEGABYTE_MODE_COMPRESS ? packed.n : size));
                    megabyte_codec_free(c);
                    watcher = (struct watcher){.cancel_at = 1, .tries = levels[l] > 5};
                    uint8_t *room = need(2 * size, 1);
                    size_t given = 0;
                    megabyte_status status =
                        mode == MEGABYTE_MODE_COMPRESS
                            ? megabyte_compress(tiny->model, &w.options, in, n, room, 2 * size,
                                                &given, NULL, NULL)
                            : megabyte_decompress(tiny->model, &w.options, in, n, room, 2 * size,
                                                  &given, NULL, NULL);
                    CHECK_STATUS(status, MEGABYTE_ERROR_CANCELLED);
                    free(room);
                }
    free(packed.bytes), free(out.bytes);
}

#define REFUSED(call) CHECK_STATUS(call, MEGABYTE_ERROR_INVALID_ARGUMENT)

static void wrong_calls(void) {
    const megabyte_model *m = tiny->model;
    megabyte_codec *c = NULL;
    megabyte_error error;
    uint8_t bytes[200] = {1, 2, 3}, out[400];
    size_t n, taken, size;
    counter unused = {0};
    megabyte_allocator half = {counter_alloc, NULL, &unused};
    megabyte_engine *foreign = new_engine(fixtures[1].model, 1, 0, MEGABYTE_ISA_AUTO);
    megabyte_codec_options bad[] = {{.streams = 257},      {.block_size = MEGABYTE_BLOCK_MAX + 1},
                                    {.context_shift = 16}, {.dictionary_size = 1},
                                    {.level = -1},         {.level = 10},
                                    {.level = INT32_MIN},  {.mixing_memory = 2},
                                    {.mixing_memory = 65}, {.engine = foreign}};
    megabyte_codec_options nothing = {.level = 4, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING};
    REFUSED(megabyte_codec_create(&c, m, MEGABYTE_MODE_COMPRESS, &nothing, NULL, &error));
    REFUSED(megabyte_codec_create(&c, m, MEGABYTE_MODE_MESSAGES, &nothing, NULL, &error));
    for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++) {
        name_case("creating, mode %d", mode);
        for (size_t i = 0; i < COUNT_OF(bad); i++) {
            test_seed = i;
            REFUSED(megabyte_codec_create(&c, m, mode, &bad[i], NULL, &error));
            CHECK(error.status == MEGABYTE_ERROR_INVALID_ARGUMENT && error.text[0]);
            REFUSED(megabyte_codec_size(m, mode, &bad[i], &size));
            n = 77;
            if (mode == MEGABYTE_MODE_COMPRESS)
                REFUSED(megabyte_compress(m, &bad[i], bytes, 3, out, 400, &n, NULL, &error));
            else REFUSED(megabyte_decompress(m, &bad[i], bytes, 3, out, 400, &n, NULL, &error));
            CHECK(error.status == MEGABYTE_ERROR_INVALID_ARGUMENT && error.text[0]);
        }
        REFUSED(megabyte_codec_create(NULL, m, mode, NULL, NULL, NULL));
        REFUSED(megabyte_codec_create(&c, NULL, mode, NULL, NULL, NULL));
        REFUSED(megabyte_codec_create(&c, m, mode, NULL, &half, NULL));
        REFUSED(megabyte_codec_size(NULL, mode, NULL, &size));
        REFUSED(megabyte_codec_size(m, mode, NULL, NULL));
    }
    REFUSED(megabyte_codec_create(&c, m, 0, NULL, NULL, NULL));
    REFUSED(megabyte_codec_create(&c, m, 4, NULL, NULL, NULL));
    REFUSED(megabyte_codec_size(m, 4, NULL, &size));
    REFUSED(megabyte_compress(NULL, NULL, bytes, 3, out, 400, &n, NULL, NULL));
    REFUSED(megabyte_compress(m, NULL, NULL, 3, out, 400, &n, NULL, NULL));
    REFUSED(megabyte_compress(m, NULL, bytes, 3, NULL, 400, &n, NULL, NULL));
    REFUSED(megabyte_compress(m, NULL, bytes, 3, out, 400, NULL, NULL, NULL));
    REFUSED(megabyte_decompress(NULL, NULL, bytes, 3, out, 400, &n, NULL, NULL));
    REFUSED(megabyte_decompress(m, NULL, NULL, 3, out, 400, &n, NULL, NULL));
    REFUSED(megabyte_decompress(m, NULL, bytes, 3, NULL, 400, &n, NULL, NULL));
    REFUSED(megabyte_decompress(m, NULL, bytes, 3, out, 400, NULL, NULL, NULL));
    OK(megabyte_compress(m, NULL, NULL, 0, out, 400, &n, NULL, NULL));
    OK(megabyte_decompress(m, NULL, out, n, NULL, 0, &taken, NULL, NULL));

    for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++) {
        name_case("calling, mode %d", mode);
        c = new_codec(m, mode, NULL);
        REFUSED(megabyte_codec_push(NULL, bytes, 1, &taken));
        REFUSED(megabyte_codec_push(c, NULL, 1, &taken));
        REFUSED(megabyte_codec_push(c, bytes, 1, NULL));
        REFUSED(megabyte_codec_pull(NULL, out, 1, &taken));
        REFUSED(megabyte_codec_pull(c, NULL, 1, &taken));
        REFUSED(megabyte_codec_pull(c, out, 1, NULL));
        REFUSED(megabyte_codec_flush(NULL));
        REFUSED(megabyte_codec_finish(NULL));
        CHECK(megabyte_codec_error(NULL) != NULL);
        OK(megabyte_codec_push(c, NULL, 0, &taken)); /* none of these has spoilt it */
        CHECK(taken == 0);
        megabyte_codec_options network = usual(NULL);
        OK(megabyte_compress(m, &network, bytes, 200, out, 400, &n, NULL, NULL));
        const uint8_t *in = mode == MEGABYTE_MODE_COMPRESS ? bytes : out;
        OK(megabyte_codec_push(c, in, mode == MEGABYTE_MODE_COMPRESS ? 200 : n, &taken));
        OK(megabyte_codec_finish(c));
        REFUSED(megabyte_codec_push(c, in, 1, &taken));
        uint8_t room[400];
        size_t given;
        OK(megabyte_codec_pull(c, room, sizeof room, &given));
        CHECK(mode == MEGABYTE_MODE_COMPRESS ? same(room, given, out, n)
                                             : same(room, given, bytes, 200));
        OK(megabyte_codec_pull(c, room, sizeof room, &given));
        CHECK(!given);
        OK(megabyte_codec_finish(c)); /* again: nothing */
        OK(megabyte_codec_pull(c, room, sizeof room, &given));
        CHECK(!given);
        megabyte_codec_free(c);
    }
    megabyte_codec_free(NULL);
    megabyte_engine_free(foreign);

    for (uint64_t size_said = 1; size_said < 200; size_said += 33) { /* options->size is wrong */
        name_case("size %d of 200", (int)size_said);
        megabyte_codec_options o = {.size = size_said, .block_size = size_said % 2 ? 50 : 0};
        way w = {.options = o};
        buffer got = {0};
        REFUSED(run_codec(m, MEGABYTE_MODE_COMPRESS, &w, bytes, 200, &got));
        REFUSED(run_codec(m, MEGABYTE_MODE_COMPRESS, &w, bytes, (size_t)size_said - 1, &got));
        OK(run_codec(m, MEGABYTE_MODE_COMPRESS, &w, bytes, (size_t)size_said, &got));
        OK(megabyte_compress(m, &o, bytes, 200, out, 400, &n, NULL,
                             NULL)); /* knows the size itself */
        free(got.bytes);
    }
    name_case("a vocabulary of 100");
    static const synthetic narrow = {"codec-narrow", 2, {4, 2}, {8, 8}, {1, 1}, 1, 8, 1, 100, 0, 1,
                                     "F32"};
    char mb[200];
    megabyte_model *few = open_model(synthetic_model(mb, &narrow, 1, "f32", NULL));
    megabyte_stream *s = new_stream(few, NULL, 0);
    CHECK_STATUS(megabyte_codec_create(&c, few, MEGABYTE_MODE_COMPRESS, NULL, NULL, &error),
                 MEGABYTE_ERROR_UNSUPPORTED);
    CHECK(error.text[0]);
    CHECK_STATUS(megabyte_codec_create(&c, few, MEGABYTE_MODE_DECOMPRESS, NULL, NULL, NULL),
                 MEGABYTE_ERROR_UNSUPPORTED);
    CHECK_STATUS(megabyte_compress(few, NULL, bytes, 3, out, 400, &n, NULL, NULL),
                 MEGABYTE_ERROR_UNSUPPORTED);
    CHECK_STATUS(megabyte_stream_encode(s, bytes, 3, out, 400, &n), MEGABYTE_ERROR_UNSUPPORTED);
    CHECK_STATUS(megabyte_stream_decode(s, out, 3, bytes, 100, &n), MEGABYTE_ERROR_UNSUPPORTED);
    CHECK(megabyte_stream_position(s) == 0);
    megabyte_stream_free(s);
    megabyte_model_close(few);
    for (int a = 0; a >= -15; a--) {
        const char *one = megabyte_status_string((megabyte_status)a);
        CHECK(one && one[0]);
        for (int b = 1; b >= -15; b--)
            CHECK(a == b || strcmp(one, megabyte_status_string((megabyte_status)b)),
                  "%d and %d: '%s'", a, b, one);
    }
}

/* --------------------------------------------------------------------------------------- memory */

static void memory(void) {
    uint8_t bytes[2000];
    buffer packed = {0};
    seed_random(3);
    make_data(tiny, MIXED, bytes, sizeof bytes);
    for (int i = 0; i < 96; i++) { /* from 64 on with contexts */
        counter c = {0};
        megabyte_allocator allocator = counting(&c);
        megabyte_engine *engine = i & 1 ? new_engine(tiny->model, 1, 0, MEGABYTE_ISA_AUTO) : NULL;
        int mode = i & 2 ? MEGABYTE_MODE_DECOMPRESS : MEGABYTE_MODE_COMPRESS;
        megabyte_codec_options o = {.engine = engine,
                                    .streams = i & 4 ? 4 : 0,
                                    .block_size = i & 8 ? 170 : 2000,
                                    .verify = i >> 4 & 1,
                                    .dictionary_size = i & 32 ? 30 : 0,
                                    .dictionary = text,
                                    .context_shift = i & 32 ? 1 : 0,
                                    .level = i < 64  ? 5
                                             : i & 8 ? 7
                                                     : 2,
                                    .mixing_memory = i < 64 ? MEGABYTE_NO_CONTEXT_MIXING : 1};
        if (i >= 64 && i & 1) o.dictionary_size = 30;
        way w = {.options = o, .push = 300, .pull = 333};
        size_t size = 0;
        megabyte_codec *codec;
        name_case("options %d", i);
        OK(megabyte_codec_size(tiny->model, mode, &o, &size));
        OK(megabyte_codec_create(&codec, tiny->model, mode, &o, &allocator, NULL));
        CHECK(c.live_bytes == size && c.peak_bytes == size, "%zu bytes allocated, %zu announced",
              c.peak_bytes, size);
        size_t calls = c.calls;
        megabyte_codec_options plain = o;
        plain.engine = NULL;
        compress_once(tiny->model, &plain, bytes, sizeof bytes, &packed);
        buffer out = {0};
        for (int turn = 0; turn < 2; turn++) {
            if (mode == MEGABYTE_MODE_COMPRESS) OK(drive(codec, &w, bytes, sizeof bytes, &out));
            else OK(drive(codec, &w, packed.bytes, packed.n, &out));
            megabyte_codec_reset(codec);
        }
        CHECK(c.calls == calls, "%zu allocations after the creation", c.calls - calls);
        megabyte_codec_free(codec);
        CHECK(!c.live && !c.live_bytes);
        for (size_t k = 1; k <= calls + 1; k++) { /* each allocation fails in its turn */
            counter d = {.fail_at = k};
            megabyte_allocator failing = counting(&d);
            megabyte_error error;
            codec = (megabyte_codec *)(void *)&d;
            megabyte_status status = megabyte_codec_create(&codec, tiny->model, mode, &o, &failing,
                                                           &error);
            CHECK(status == (k <= calls ? MEGABYTE_ERROR_OUT_OF_MEMORY : MEGABYTE_OK) &&
                      error.status == status,
                  "allocation %zu of %zu fails: %s", k, calls, megabyte_status_string(status));
            CHECK(!status || (error.text[0] && !codec));
            if (!status) megabyte_codec_free(codec);
            CHECK(!d.live, "allocation %zu fails: %zu are not freed", k, d.live);
            counter e = {.fail_at = k};
            failing = counting(&e);
            uint8_t *room = need(4000, 1);
            size_t n;
            status = mode == MEGABYTE_MODE_COMPRESS
                         ? megabyte_compress(tiny->model, &o, bytes, sizeof bytes, room, 4000, &n,
                                             &failing, NULL)
                         : megabyte_decompress(tiny->model, &o, packed.bytes, packed.n, room, 4000,
                                               &n, &failing, NULL);
            CHECK(status == MEGABYTE_ERROR_OUT_OF_MEMORY || (e.calls < k && !status),
                  "in one call: allocation %zu fails: %s", k, megabyte_status_string(status));
            CHECK(!e.live);
            free(room);
        }
        free(out.bytes);
        megabyte_engine_free(engine);
    }
    for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++)
        for (uint32_t streams = 1; streams < 6; streams += 2)
            for (int primed = 0; primed < 2; primed++) {
                static const uint32_t megabytes[] = {MEGABYTE_NO_CONTEXT_MIXING, 1, 4, 16, 64};
                static const int levels[] = {5, 1, 6, 3,
                                             8}; /* have these by default, when compressing */
                name_case("the size with contexts, mode %d, %u streams, primed %d", mode, streams,
                          primed);
                size_t none = 0, size, mixers = streams + (primed ? 2 : 0);
                for (size_t i = 0; i < COUNT_OF(megabytes); i++) {
                    megabyte_codec_options o = {
                        .block_size = MEGABYTE_BLOCK_DEFAULT, .streams = streams, .verify = 1};
                    if (primed) o.dictionary = text, o.dictionary_size = 9;
                    o.mixing_memory = megabytes[i];
                    OK(megabyte_codec_size(tiny->model, mode, &o, &size));
                    if (!i) none = size;
                    size_t tables = size - none -
                                    (i ? mixers * megabytes[i] << 20 : 0); /* once for all */
                    CHECK(i ? tables > 0 && tables < 32768 : !tables,
                          "%zu bytes for contexts of %u MB", size - none, megabytes[i]);
                    o.mixing_memory = 0, o.level = levels[i];
                    OK(megabyte_codec_size(tiny->model, mode, &o, &size));
                    size_t expected = mode == MEGABYTE_MODE_DECOMPRESS ? 16 : i ? megabytes[i] : 0;
                    tables = size - none - (mixers * expected << 20);
                    CHECK(expected ? tables > 0 && tables < 32768 : !tables,
                          "%zu bytes for contexts by level %d", size - none, o.level);
                }
            }
    free(packed.bytes);
}

static void choice_of_blocks(void) {
    megabyte_codec_options o = {0};
    name_case("blocks by size and streams");
    uint32_t unknown = megabyte_codec_block_size(&o);
    CHECK(unknown > 0 && unknown <= MEGABYTE_BLOCK_DEFAULT, "%u", unknown);
    for (uint64_t size = 1; size < (uint64_t)1 << 40; size += size / 3 + 1)
        for (uint32_t streams = 0; streams <= 256; streams += streams < 4 ? 1 : 21) {
            o = (megabyte_codec_options){.size = size, .streams = streams};
            uint64_t block = megabyte_codec_block_size(&o), blocks = (size + block - 1) / block;
            CHECK(block && block <= MEGABYTE_BLOCK_MAX, "%llu", (unsigned long long)block);
            CHECK(!streams || blocks >= streams ||
                      (block <= 16384 && (blocks == 1 || block == 16384)) || blocks * 2 > streams,
                  "%llu bytes, %u streams: %llu blocks", (unsigned long long)size, streams,
                  (unsigned long long)blocks);
            if (!streams && size < 65536)
                CHECK(blocks == 1, "%llu bytes in %llu blocks", (unsigned long long)size,
                      (unsigned long long)blocks);
            o.block_size = 12345;
            CHECK(megabyte_codec_block_size(&o) == 12345);
        }
    o = (megabyte_codec_options){.size = MEGABYTE_SIZE_UNKNOWN, .streams = 7};
    CHECK(megabyte_codec_block_size(&o) == unknown);
    o.size--;
    CHECK(megabyte_codec_block_size(&o) == MEGABYTE_BLOCK_DEFAULT);
    for (size_t n = 0; n < 100000; n += n / 2 + 1)
        CHECK(megabyte_compress_bound(n) == n + n / 2000 + 64);
    CHECK(megabyte_compress_bound(SIZE_MAX) == SIZE_MAX);
}

/* ----------------------- levels Contexts of 1 MB (at_level) wherever their size doesn't matter. */

static void count_blocks(const megabyte_codec *c, uint64_t sum[MEGABYTE_METHOD_COUNT]) {
    megabyte_statistics counts;
    megabyte_codec_statistics(c, &counts);
    for (int i = 0; i < MEGABYTE_METHOD_COUNT; i++) sum[i] += counts.blocks[i];
}

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
            megabyte_codec_reset(c), megabyte_codec_reset(d);
            OK(drive(c, &in, bytes, n, &packed));
            CHECK(packed.n <= n + 24, "become %zu bytes", packed.n);
            OK(drive(d, &out, packed.bytes, packed.n, &got));
            CHECK(same(got.bytes, got.n, bytes, n), "%zu others come back", got.n);
            count_blocks(c, blocks);
        }
        if (f == tiny) check_methods(level, blocks);
        megabyte_codec_free(c), megabyte_codec_free(d);
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
    free(packed.bytes), free(got.bytes);
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
                random_ways(f, &in, &out, bytes, n, prime);
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
    free(packed.bytes), free(all.bytes), free(got.bytes);
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
    free(packed.bytes), free(got.bytes);
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
        if (m->has_dictionary) o.dictionary = tiny->pool, o.dictionary_size = 20;
        name_case("level %d, blocks of %u, %u MB asked, primed %u", m->level, m->block_size,
                  m->asked, m->has_dictionary);
        compress_once(tiny->model, &o, bytes, sizeof bytes, &packed);
        OK(megabyte_file_header_read(packed.bytes, packed.n, &c, NULL));
        CHECK(c.mixing_memory == m->mixing_memory, "%u MB", c.mixing_memory);
        for (size_t k = 0; k < COUNT_OF(offered); k++) {
            uint32_t has = k ? offered[k] : 0;
            megabyte_codec_options d = {
                .level = 7, .block_size = m->block_size, .mixing_memory = offered[k]};
            if (m->has_dictionary)
                d.dictionary = o.dictionary, d.dictionary_size = o.dictionary_size;
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
    free(packed.bytes), free(got.bytes);
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
    free(packed.bytes), free(again.bytes), free(got.bytes);
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

/* Both lengths of a message's code: what encoding gives, or its bytes stored. */
static int is_code_of(megabyte_codec *c, megabyte_stream *scratch, const uint8_t *coded,
                      size_t n_coded, const uint8_t *bytes, size_t n) {
    uint8_t *again = need(4 * n + 64, 1);
    size_t got;
    OK(megabyte_codec_encode(c, bytes, n, again, megabyte_message_bound(n), &got));
    int right = same(coded, n_coded, again, got);
    megabyte_stream_reset(scratch);
    if (!right) right = same(coded, n_coded, again, ref_message(scratch, 1, bytes, n, again));
    free(again);
    return right;
}

static const megabyte_codec_options message_options[] = {
    {.level = 3, .mixing_memory = 1},
    {.level = 5},
    {.level = 7, .mixing_memory = 1},
    {.level = 5, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING, .dictionary_size = 60},
    {.level = 3, .mixing_memory = 1, .dictionary_size = 500},
    {.level = 7, .mixing_memory = 1, .dictionary_size = 500},
};
static megabyte_codec_options options_for_messages(const fixture *f, size_t i) {
    megabyte_codec_options o = message_options[i];
    if (o.level == 5) o.mixing_memory = MEGABYTE_NO_CONTEXT_MIXING;
    if (o.dictionary_size) o.dictionary = f->pool;
    return o;
}

static void messages_of_codecs(void) {
    size_t sums[COUNT_OF(message_options)] = {0};
    EACH_FIXTURE(f)
    for (size_t i = 0; i < COUNT_OF(message_options); i++) {
        megabyte_codec_options o = options_for_messages(f, i);
        megabyte_codec *c = new_codec(f->model, MEGABYTE_MODE_MESSAGES, &o);
        megabyte_engine *engine = new_engine(f->model, 1 + i % 3, 3, MEGABYTE_ISA_AUTO);
        o.engine = engine, o.streams = (uint32_t)i % 4, o.block_size = (uint32_t)i * 1000;
        megabyte_codec *d = new_codec(f->model, MEGABYTE_MODE_MESSAGES, &o);
        megabyte_stream *s = new_stream(f->model, engine, 0),
                        *primed = new_stream(f->model, engine, 0);
        OK(megabyte_stream_feed(primed, o.dictionary, o.dictionary_size));
        for (size_t n = 0; n <= 200; n += f == tiny ? 1 : 13) {
            uint8_t bytes[200], coded[200 + 32], back[200 + 16], other[200 + 16];
            size_t n_coded = 12345, got = 12345, bound = megabyte_message_bound(n);
            name_case("%s, level %d, primed with %zu, a message of %zu", f->y.name, o.level,
                      o.dictionary_size, n);
            seed_random(n);
            if (n % 5 == 1) memcpy(bytes, f->pool + 100, n);
            else make_data(f, n % 5 == 3 ? MIXED : n % 5 == 4 ? RANDOM : LIKELY, bytes, n);
            memset(coded, 0x99, sizeof coded), memset(back, 0x99, sizeof back);
            OK(megabyte_codec_encode(c, n ? bytes : NULL, n, coded, bound, &n_coded));
            CHECK(n_coded <= bound && n_coded <= n + 5, "%zu bytes", n_coded);
            for (size_t k = bound; k < sizeof coded; k++)
                CHECK(coded[k] == 0x99, "byte %zu is written", k);
            if (n % 5 == 1 && f == tiny) sums[i] += n_coded;
            uint8_t *exact = need(n_coded, 1);
            memcpy(exact, coded, n_coded);
            OK(megabyte_codec_decode(d, exact, n_coded, back, n, &got));
            CHECK(same(back, got, bytes, n), "%zu others come back", got);
            for (size_t k = n; k < sizeof back; k++)
                CHECK(back[k] == 0x99, "byte %zu is written", k);
            OK(megabyte_codec_decode(c, exact, n_coded, back, sizeof back,
                                     &got)); /* by the same codec */
            CHECK(same(back, got, bytes, n), "%zu others come back", got);
            OK(megabyte_codec_encode(d, bytes, n, other, bound, &got)); /* in the other direction */
            CHECK(same(other, got, coded, n_coded), "other codes");
            if (o.level == 5) { /* what streams make */
                OK(megabyte_stream_copy(s, primed));
                OK(megabyte_stream_encode(s, bytes, n, other, bound, &got));
                CHECK(same(other, got, coded, n_coded), "a stream writes other codes");
            }
            if (n % 10 == 6) { /* refused, and as before */
                REFUSED(megabyte_codec_encode(NULL, bytes, n, other, sizeof other, &got));
                REFUSED(megabyte_codec_encode(c, NULL, n, other, sizeof other, &got));
                REFUSED(megabyte_codec_encode(c, bytes, n, NULL, sizeof other, &got));
                REFUSED(megabyte_codec_encode(c, bytes, n, other, sizeof other, NULL));
                REFUSED(megabyte_codec_decode(NULL, coded, n_coded, other, sizeof other, &got));
                REFUSED(megabyte_codec_decode(c, NULL, n_coded, other, sizeof other, &got));
                REFUSED(megabyte_codec_decode(c, coded, n_coded, NULL, sizeof other, &got));
                REFUSED(megabyte_codec_decode(c, coded, n_coded, other, sizeof other, NULL));
                CHECK_STATUS(megabyte_codec_encode(c, bytes, n, other, bound - 1, &got),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK_STATUS(megabyte_codec_encode(c, bytes, n, other, 0, &got),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK_STATUS(megabyte_codec_decode(d, coded, n_coded, other, n - 1, &got),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK(got == n, "a message of %zu, not %zu", n, got);
            }
            free(exact);
        }
        if (f == tiny)
            CHECK(i < 3 || i == 3 || sums[i] * 2 < sums[i - 4 + (i == 5)],
                  "%zu bytes, %zu without priming", sums[i], sums[0]);
        megabyte_stream_free(s), megabyte_stream_free(primed);
        megabyte_codec_free(c), megabyte_codec_free(d);
        megabyte_engine_free(engine);
    }
}

/* A codec is for files or for messages. */
static void messages_beside_files(void) {
    uint8_t bytes[100], coded[200], back[200];
    size_t n_coded, got, taken;
    make_data(tiny, MIXED, bytes, sizeof bytes);
    for (size_t i = 0; i < COUNT_OF(message_options); i++) {
        megabyte_codec_options o = options_for_messages(tiny, i);
        name_case("level %d, primed with %zu", o.level, o.dictionary_size);
        megabyte_codec *m = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o);
        OK(megabyte_codec_encode(m, bytes, sizeof bytes, coded, sizeof coded, &n_coded));
        REFUSED(megabyte_codec_push(m, bytes, 1, &taken));
        REFUSED(megabyte_codec_pull(m, back, sizeof back, &got));
        megabyte_codec_reset(m);
        OK(megabyte_codec_decode(m, coded, n_coded, back, sizeof back, &got));
        CHECK(same(back, got, bytes, sizeof bytes));
        for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++) {
            megabyte_codec *c = new_codec(tiny->model, mode, &o);
            REFUSED(megabyte_codec_encode(c, bytes, sizeof bytes, back, sizeof back, &got));
            got = 5;
            REFUSED(megabyte_codec_decode(c, coded, n_coded, back, sizeof back, &got));
            CHECK(!got);
            megabyte_codec_free(c);
        }
        megabyte_codec_free(m);
    }
}

static void hostile_codes_for_codecs(void) {
    for (size_t i = 0; i < COUNT_OF(message_options); i++) {
        megabyte_codec_options o = options_for_messages(tiny, i);
        megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o),
                       *d = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o);
        megabyte_stream *scratch = new_stream(tiny->model, NULL, 0);
        size_t decoded = 0;
        for (int seed = -1; seed < 1500; seed++) {
            uint8_t coded[600], bytes[300];
            size_t n = random_below(seed % 2 ? 12 : 200), got = 12345, room = random_below(300);
            name_case("level %d, primed with %zu, a code", o.level, o.dictionary_size);
            seed_random((uint64_t)seed);
            if (seed < 256) {
                n = seed >= 0, coded[0] = (uint8_t)seed, room = 300;
            } else if (seed < 512) {
                n = 2, coded[0] = (uint8_t)random_below(256), coded[1] = (uint8_t)random_below(256);
            } else if (seed % 3) {
                random_bytes(coded, n, 256);
            } else { /* a right one, spoilt */
                make_data(tiny, LIKELY, bytes, n);
                OK(megabyte_codec_encode(c, bytes, n, coded, sizeof coded, &got));
                coded[random_below(got)] ^= (uint8_t)(1u << random_below(8));
                n = seed % 2 ? got : random_below(got + 1);
            }
            uint8_t *exact = need(n, 1), *back = need(room, 1);
            memcpy(exact, coded, n);
            megabyte_status status = megabyte_codec_decode(d, exact, n, back, room, &got);
            CHECK(status == MEGABYTE_OK || status == MEGABYTE_ERROR_CORRUPT ||
                      status == MEGABYTE_ERROR_CAPACITY,
                  "%s", megabyte_status_string(status));
            if (status == MEGABYTE_OK) {
                CHECK(got <= room && is_code_of(c, scratch, coded, n, back, got),
                      "%zu bytes, of another code", got);
                decoded++;
            } else if (status == MEGABYTE_ERROR_CORRUPT) {
                CHECK(!got, "%zu bytes and CORRUPT", got);
            } else {
                CHECK(got > room);
            }
            free(exact), free(back);
        }
        CHECK(decoded > 10 && decoded < 1000, "%zu codes are messages", decoded);
        megabyte_codec_free(c), megabyte_codec_free(d);
        megabyte_stream_free(scratch);
    }
}

/* About 3 KB: stored blocks, then some of contexts, alone or mixed; single: one block of 500
 * bytes. */
static void make_level(sample *x, int level, int single) {
    static const size_t sizes[] = {900, 1024, 50, 90, 130, 160};
    way w = {.options = {.block_size = 1024}};
    uint64_t blocks[MEGABYTE_METHOD_COUNT] = {0};
    size_t taken;
    at_level(level, &w, &x->w);
    x->w.options.block_size = 1024;
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w.options);
    seed_random((uint64_t)level);
    for (size_t i = 0; i < (single ? 1 : COUNT_OF(sizes)); i++) {
        size_t n = single ? 300 : sizes[i];
        if (!single && i < 3) make_data(tiny, i < 2 ? RANDOM : ZEROS, x->original + x->n, n);
        else if (level < 5)
            memcpy(x->original + x->n, text + 500 * i, n / 2),
                memcpy(x->original + x->n + n / 2, text + 500 * i, n - n / 2);
        else make_data(tiny, LIKELY, x->original + x->n, n);
        OK(megabyte_codec_push(c, x->original + x->n, n, &taken));
        x->n += n;
        if (single) break;
        OK(megabyte_codec_flush(c));
        OK(pull_all(c, 0, &x->packed));
    }
    OK(megabyte_codec_finish(c));
    OK(pull_all(c, 0, &x->packed));
    count_blocks(c, blocks);
    int method = level < 5 ? MEGABYTE_METHOD_CONTEXT_MIXING : MEGABYTE_METHOD_MIXED;
    CHECK(blocks[method] == (single ? 1 : 3) && blocks[MEGABYTE_METHOD_STORED] == (single ? 0 : 2),
          "%d by method %d", (int)blocks[method], method);
    megabyte_codec_free(c);
    find_blocks(x);
}

static void flipped_bits_at_levels(void) {
    static sample x[4];
    fflush(stdout);
    for (int i = 0; i < 4; i++) make_level(&x[i], i % 2 ? 7 : 1, i / 2);
    CHECK(x[0].packed.n > 2000 && x[1].packed.n > 2000, "%zu and %zu bytes", x[0].packed.n,
          x[1].packed.n);
    pid_t other = fork(); /* two halves of the work */
    CHECK(other >= 0);
    for (int i = other ? 0 : 1; i < 4; i += 2) {
        name_case("level %d, %zu -> %zu bytes", i % 2 ? 7 : 1, x[i].n, x[i].packed.n);
        flip_bits(&x[i], 0, 1);
        truncate_everywhere(&x[i]);
        x[i].w.push = 300, x[i].w.pull = 100, x[i].w.options.streams = 5;
        flip_bits(&x[i], 1, 97);
    }
    if (!other) _exit(0);
    int status;
    CHECK(waitpid(other, &status, 0) == other && status == 0, "the other half failed");
    for (int i = 0; i < 4; i++) free_sample(&x[i]);
}

/* Headers with every code of contexts and every method: what cannot be is CORRUPT, what is too much
 * CAPACITY. */
static void hostile_contexts(void) {
    uint8_t bytes[500], digest[32];
    buffer out = {0};
    static sample right[2]; /* by contexts, mixed: one block each */
    make_level(&right[0], 1, 1), make_level(&right[1], 7, 1);
    seed_random(1);
    random_bytes(bytes, sizeof bytes, 256);
    for (int code = 0; code < 16; code++)
        for (int method = 0; method < 8; method++)
            for (int single = 0; single < 2; single++)
                for (int has = 0; has < 3; has++) { /* the decoder: no contexts, 1 MB, 4 MB */
                    ref_writer w = {0};
                    ref_header h = header_for(tiny);
                    megabyte_file_header c;
                    megabyte_error error;
                    int mixed = method == REF_MIXED, coded = method >= REF_CODED;
                    const sample *x = &right[mixed];
                    OK(megabyte_file_header_read(x->packed.bytes, x->packed.n, &c, NULL));
                    name_case("contexts %d, method %d, single %d, decoder %d", code, method, single,
                              has);
                    h.single = single, h.method = single ? method : 0, h.mixing_memory = code;
                    h.size = method == REF_STORED ? sizeof bytes : x->n;
                    h.coded = coded ? c.coded : h.size, h.block_size = 1024;
                    ref_write_header(&w, &h);
                    const uint8_t *holds = coded ? x->original : bytes;
                    if (method == REF_CONSTANT) memset(bytes, 7, sizeof bytes);
                    ref_sha256(holds, h.size, digest);
                    if (!single) {
                        uint8_t tag = (uint8_t)(method + 1);
                        ref_write(&w, &tag, 1);
                        ref_write_varint(&w, h.size);
                        if (coded) ref_write_varint(&w, h.coded);
                        ref_write(&w, digest, 4);
                    }
                    ref_write(&w, coded ? x->packed.bytes + c.header_bytes : bytes,
                              coded    ? c.coded
                              : method ? 1
                                       : sizeof bytes);
                    ref_append(&w.original, &w.n_original, &w.room_original, holds, h.size);
                    if (single) ref_write(&w, digest, 4);
                    else ref_write_end(&w);
                    int corrupt = code > 4 || method >= REF_METHODS ||
                                  (method > REF_CODED && !code);
                    megabyte_status expected =
                        corrupt && (single || code > 4)  ? MEGABYTE_ERROR_CORRUPT
                        : code > (has == 2 ? 2 : has)    ? MEGABYTE_ERROR_CAPACITY
                        : corrupt || method == REF_CODED ? MEGABYTE_ERROR_CORRUPT
                                                         : MEGABYTE_OK;
                    megabyte_codec_options o = {.block_size = 1024,
                                                .mixing_memory = has ? has == 2 ? 4 : 1
                                                                     : MEGABYTE_NO_CONTEXT_MIXING};
                    megabyte_status status = decompress_once(tiny->model, &o, w.bytes, w.n, 1024,
                                                             &out, &error);
                    if (expected || method < REF_CONTEXTS ||
                        code == 1) /* the code was made with 1 MB */
                        CHECK(status == expected, "'%s' (%s), not '%s'",
                              megabyte_status_string(status), error.text,
                              megabyte_status_string(expected));
                    else CHECK(status == MEGABYTE_OK || status == MEGABYTE_ERROR_CORRUPT);
                    if (status) CHECK(!out.n);
                    else CHECK(same(out.bytes, out.n, w.original, w.n_original));
                    status = megabyte_file_header_read(w.bytes, w.n, &c, NULL);
                    CHECK(status == (corrupt && (single || code > 4) ? MEGABYTE_ERROR_CORRUPT
                                                                     : MEGABYTE_OK),
                          "'%s'", megabyte_status_string(status));
                    if (!status) {
                        CHECK(c.mixing_memory == (code ? 1u << 2 * (code - 1) : 0), "%u MB",
                              c.mixing_memory);
                        megabyte_block_header b;
                        if (!single)
                            CHECK_STATUS(megabyte_block_header_read(w.bytes + c.header_bytes,
                                                                    w.n - c.header_bytes, &c, &b,
                                                                    NULL),
                                         corrupt ? MEGABYTE_ERROR_CORRUPT : MEGABYTE_OK);
                    }
                    if (code == 1 && (method == REF_CONTEXTS || method == REF_MIXED)) {
                        uint8_t room[1024];
                        ref_file r = ref_decompress(tiny->model, NULL, 0, w.bytes, w.n, room,
                                                    sizeof room);
                        CHECK(r.wrong && !strcmp(r.wrong, "not decodable by the reference"), "%s",
                              r.wrong);
                    }
                    ref_discard(&w);
                }
    free_sample(&right[0]), free_sample(&right[1]);
    free(out.bytes);
}

/* --------------------------------------------------------------------------------------- golden */

/* Written by --write-golden; the same for ever, from every machine. */
static const struct golden {
    const char *name;
    int synthetic; /* the model: fixtures[0], or text-small */
    size_t from, n, zeros, random, dictionary_size; /* of text.txt; then zeros; then noise */
    megabyte_codec_options options;
} goldens[] = {
    {"empty", 0, 0, 0, 0, 0, 0, {0}},
    {"single", 0, 0, 6000, 0, 0, 0, {0}},
    {"blocks", 0, 6000, 9000, 5000, 4096, 0, {.block_size = 4096}},
    {"primed", 0, 16000, 3000, 0, 0, 2000, {.block_size = 1000, .context_shift = 3, .streams = 2}},
    {"synthetic", 1, 300, 500, 300, 800, 40, {.block_size = 250}},
    {"contexts", 0, 2000, 9000, 3000, 1000, 1500, {.block_size = 4096, .level = 1}},
    {"mixed", 0, 8000, 3500, 0, 500, 0, {.block_size = 2000, .level = 7, .mixing_memory = 1}},
};

static void golden_files(int write) {
    for (size_t i = 0; i < COUNT_OF(goldens); i++) {
        const struct golden *g = &goldens[i];
        const megabyte_model *m = g->synthetic ? tiny->model : text_small;
        size_t total = g->n + g->zeros + g->random, size;
        uint8_t *bytes = need(total, 1);
        buffer packed = {0}, out = {0};
        char path[100];
        megabyte_codec_options o = g->options;
        name_case("golden-%s", g->name);
        snprintf(path, sizeof path, "tests/data/golden-%s.mbz", g->name);
        if (g->synthetic) memcpy(bytes, tiny->pool + g->from, g->n);
        else memcpy(bytes, text + g->from, g->n);
        seed_random(i);
        random_bytes(bytes + g->n + g->zeros, g->random, 256);
        if (g->dictionary_size) o.dictionary = text + 25000, o.dictionary_size = g->dictionary_size;
        compress_once(m, &o, bytes, total, &packed);
        if (write) write_file(path, packed.bytes, packed.n);
        uint8_t *file = read_file(path, &size);
        CHECK(same(file, size, packed.bytes, packed.n), "other bytes than in %s are written", path);
        o.block_size = o.streams = 0;
        if (o.level) o.mixing_memory = 1;
        megabyte_error error;
        CHECK(!decompress_once(m, &o, file, size, total, &out, &error), "%s: %s", path, error.text);
        CHECK(same(out.bytes, out.n, bytes, total), "%s holds other bytes", path);
        if (out.bytes) memset(out.bytes, 0, out.room);
        ref_file r = ref_decompress(m, o.dictionary, o.dictionary_size, file, size, out.bytes,
                                    total);
        if (g->options.level)
            CHECK(r.wrong && !strcmp(r.wrong, "not decodable by the reference"), "%s: '%s'", path,
                  r.wrong);
        else
            CHECK(!r.wrong && same(out.bytes, r.n, bytes, total), "%s: the reference says '%s'",
                  path, r.wrong ? r.wrong : "others");
        if (write) printf("\n  %s: %zu bytes of %zu ", path, size, total);
        free(file), free(bytes), free(packed.bytes), free(out.bytes);
    }
}
static void golden(void) { golden_files(0); }

#define RUN(group) (strstr(#group, only) ? GROUP(group) : (void)0)

int main(int argc, char **argv) {
    set_up();
    const char *only = argc > 1 ? argv[1] : "";
    if (!strcmp(only, "--write-golden")) {
        golden_files(1);
        puts("");
        return 0;
    }
    RUN(bytes_and_lengths);
    RUN(random_round_trips);
    RUN(edges);
    RUN(flushes);
    RUN(resets);
    RUN(with_text_small);
    RUN(one_result);
    RUN(containers);
    RUN(files_of_the_reference);
    RUN(messages);
    RUN(primed_messages);
    RUN(refused_messages);
    RUN(hostile_codes);
    RUN(overhead);
    RUN(close_to_ideal);
    RUN(flipped_bits_and_truncations);
    RUN(flips_beside_the_end);
    RUN(trailing_bytes);
    RUN(mutations);
    RUN(hostile_claims);
    RUN(wrong_files);
    RUN(corrupt_blocks);
    RUN(limits);
    RUN(ratios);
    RUN(progress);
    RUN(wrong_calls);
    RUN(memory);
    RUN(choice_of_blocks);
    RUN(levels_and_lengths);
    RUN(random_levels);
    RUN(level_edges);
    RUN(memory_of_contexts);
    RUN(many_streams);
    RUN(choice_of_methods);
    RUN(messages_of_codecs);
    RUN(messages_beside_files);
    RUN(hostile_codes_for_codecs);
    RUN(flipped_bits_at_levels);
    RUN(hostile_contexts);
    RUN(golden);
    EACH_FIXTURE(f) megabyte_model_close(f->model);
    megabyte_model_close(text_small);
    free(text);
    return 0;
}
