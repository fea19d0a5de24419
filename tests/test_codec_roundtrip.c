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

enum { LONGEST = 900 };

typedef struct random_file { /* of up to three members */
    const fixture *f;
    way in, out;
    uint8_t bytes[3 * LONGEST], dictionary[64];
    size_t n;
    buffer packed;
} random_file;

static void add_member(random_file *r, size_t i, enum kind kind) {
    size_t n = random_below(random_below(4) ? LONGEST : 40);
    buffer packed = {0};
    make_data(r->f, kind, r->bytes + r->n, n);
    if (!i) random_ways(&r->in, &r->out, n, r->dictionary);
    else if (r->in.options.size) r->in.options.size = n;
    name_way(r->f, &r->in, &r->out, kind, n);
    OK(run_codec(r->f->model, MEGABYTE_MODE_COMPRESS, &r->in, r->bytes + r->n, n, &packed));
    ref_append(&r->packed.bytes, &r->packed.n, &r->packed.room, packed.bytes, packed.n);
    r->n += n;
    free(packed.bytes);
}

static void decompress_members(const random_file *r) {
    buffer got = {0};
    megabyte_status status = run_codec(r->f->model, MEGABYTE_MODE_DECOMPRESS, &r->out,
                                       r->packed.bytes, r->packed.n, &got);
    CHECK(!status && same(got.bytes, got.n, r->bytes, r->n), "%s, %zu bytes of %zu",
          megabyte_status_string(status), got.n, r->n);
    OK(decompress_once(r->f->model, &r->out.options, r->packed.bytes, r->packed.n, r->n, &got,
                       NULL));
    CHECK(same(got.bytes, got.n, r->bytes, r->n), "in one call: %zu bytes of %zu", got.n, r->n);
    free(got.bytes);
}

/* By the reference. Returns how many members there are; adds up their blocks by method. */
static size_t refer_members(const random_file *r, size_t blocks[REF_METHODS]) {
    uint8_t back[3 * LONGEST];
    const megabyte_codec_options *o = &r->in.options;
    ref_file f = ref_decompress(r->f->model, o->dictionary, o->dictionary_size, r->packed.bytes,
                                r->packed.n, back, r->n);
    CHECK(!f.wrong && same(back, f.n, r->bytes, r->n), "the reference decodes %zu of %zu bytes: %s",
          f.n, r->n, f.wrong ? f.wrong : "others");
    for (int i = 0; i < REF_METHODS; i++) blocks[i] += f.blocks[i];
    return f.members;
}

/* Random options and pieces; some files of one, two or three members; the reference decodes many,
 * too. */
static void random_round_trips(void) {
    static random_file r;
    size_t blocks[REF_METHODS] = {0}, members = 0, referred = 0;
    for (uint64_t seed = 1; seed <= 1500; seed++) {
        seed_random(seed);
        r.f = &fixtures[seed % 8 < 6 ? 0 : seed % 8 - 5];
        r.n = r.packed.n = 0;
        make_data(r.f, LIKELY, r.dictionary, sizeof r.dictionary);
        size_t count = seed % 11 ? 1 : 2 + random_below(2);
        for (size_t i = 0; i < count; i++) add_member(&r, i, (enum kind)(seed % KINDS));
        decompress_members(&r);
        if (seed % 3) continue;
        members += refer_members(&r, blocks);
        referred++;
    }
    CHECK(blocks[REF_STORED] > 250 && blocks[REF_CONSTANT] > 250 && blocks[REF_CODED] > 250 &&
              members > referred,
          "%zu stored, %zu constant, %zu coded blocks", blocks[REF_STORED], blocks[REF_CONSTANT],
          blocks[REF_CODED]);
    free(r.packed.bytes);
}

/* Sizes about the edges of blocks and of windows: of unknown size, of known size, in pieces. */
static void check_edge(const fixture *f, uint32_t block_size, size_t n, int how) {
    static uint8_t bytes[700];
    way in = {.options = {.block_size = block_size,
                          .streams = 1 + (uint32_t)(n % 3),
                          .size = how == 1 ? n : 0},
              .push = how == 2 ? 5 : 0};
    way out = {.options = {.block_size = block_size, .streams = 1 + (uint32_t)(n % 2)}};
    seed_random(n);
    name_way(f, &in, &out, LIKELY, n);
    make_data(f, LIKELY, bytes, n);
    there_and_back(f, &in, &out, bytes, n);
}

static void edges(void) {
    EACH_FIXTURE(f) {
        size_t window = (size_t)f->info.context_bytes, patch = f->info.patch_bytes;
        size_t blocks[] = {1,          2,      patch,      window / 2,
                           window - 1, window, window + 1, window + window / 2 + 1,
                           2 * window, 99};
        for (size_t b = 0; b < COUNT_OF(blocks); b++)
            for (size_t times = 1; times <= 4; times++)
                for (size_t n = blocks[b] * times - 1; n <= blocks[b] * times + 1; n++)
                    for (int how = 0; how < 3; how++) check_edge(f, (uint32_t)blocks[b], n, how);
    }
}

/* Pushes everything and pulls what comes; flush: after every piece, which is of no effect in
 * decompressing. */
static void push_all(megabyte_codec *c, const uint8_t *bytes, size_t n, size_t pull, int flush,
                     buffer *out) {
    for (size_t at = 0, taken; at < n; at += taken) {
        OK(megabyte_codec_push(c, bytes + at, n - at, &taken));
        if (flush) OK(megabyte_codec_flush(c));
        OK(pull_all(c, pull, out));
    }
}

static void check_flushes(const fixture *f, uint64_t seed) {
    megabyte_codec_options o = {
        .block_size = 100, .streams = 1 + (uint32_t)(seed % 3), .verify = seed % 5 == 0};
    megabyte_codec *c = new_codec(f->model, MEGABYTE_MODE_COMPRESS, &o);
    megabyte_codec *d = new_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &o);
    buffer packed = {0}, got = {0};
    size_t pull = seed % 2 ? 7 : 0, n = 0, sent;
    seed_random(seed);
    name_case("%s", f->y.name);
    for (int turn = 0; turn < 6; turn++) {
        uint8_t bytes[250];
        size_t count = random_below(turn % 2 ? 250 : 20);
        make_data(f, (enum kind)random_below(KINDS), bytes, count);
        sent = packed.n;
        push_all(c, bytes, count, pull, 0, &packed);
        OK(megabyte_codec_flush(c));
        OK(pull_all(c, pull, &packed));
        /* a first flush of nothing: no buffer yet */
        if (packed.n > sent) push_all(d, packed.bytes + sent, packed.n - sent, pull, 1, &got);
        n += count;
        CHECK(got.n == n && (!count || !memcmp(got.bytes + n - count, bytes, count)),
              "turn %d: %zu of %zu bytes are out", turn, got.n, n);
    }
    sent = packed.n;
    OK(megabyte_codec_finish(c));
    OK(pull_all(c, 0, &packed));
    push_all(d, packed.bytes + sent, packed.n - sent, 0, 0, &got);
    OK(megabyte_codec_finish(d));
    OK(pull_all(d, 0, &got));
    CHECK(got.n == n);
    megabyte_codec_free(c);
    megabyte_codec_free(d);
    free(packed.bytes);
    free(got.bytes);
}

/* With flushes, everything pushed is out and can be decoded before more is pushed. */
static void flushes(void) {
    EACH_FIXTURE(f)
    for (uint64_t seed = 1; seed <= 40; seed++) check_flushes(f, seed);
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

/* -------------------------------------------------------------------------------- the same file */

enum { SIZE = 800 };

static const megabyte_codec_options file_options[] = {
    {.block_size = 2000, .streams = 1},
    {.block_size = 110, .streams = 5},
    {.block_size = 2000, .streams = 5, .dictionary_size = 33, .context_shift = 1, .size = SIZE},
    {.block_size = 110, .streams = 1, .level = 1, .mixing_memory = 1},
    {.block_size = 2000, .streams = 5, .level = 3, .mixing_memory = 1},
    {.block_size = 110,
     .streams = 5,
     .level = 7,
     .mixing_memory = 1,
     .dictionary_size = 33,
     .context_shift = 1,
     .size = SIZE},
};

typedef struct engine_row {
    megabyte_isa isa;
    uint32_t threads, batch;
} engine_row;

/* Which engines are tried with these options: all batches and one thread, some with more threads,
 * some with a certain instruction set. */
static int is_tried(size_t options, int isa, uint32_t threads, size_t batch, int is_tiny) {
    enum { BATCHES = 4 };
    if (isa && !megabyte_isa_available((megabyte_isa)isa)) return 0;
    if (threads > 1 && (size_t)isa % BATCHES != batch) return 0;
    return !isa || (batch + (size_t)isa + options) % BATCHES <= (size_t)is_tiny;
}

/* Any engine, pieces and verifying give the same file; any streams decompress it. */
static void check_engine(const fixture *f, megabyte_codec_options o, const engine_row *row,
                         const uint8_t bytes[SIZE], const buffer *first) {
    megabyte_engine *engine = new_engine(f->model, row->threads, row->batch, row->isa);
    buffer other = {0}, got = {0};
    o.engine = engine;
    o.verify = row->batch == 1 || row->batch == 50;
    way w = {.options = o,
             .push = random_below(3) ? 1 + random_below(200) : 0,
             .pull = random_below(2) ? 1 + random_below(200) : 0};
    OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &w, bytes, SIZE, &other));
    CHECK(same(first->bytes, first->n, other.bytes, other.n),
          "%zu bytes, not the same as the %zu of one thread", other.n, first->n);
    w.options.streams = 1 + (uint32_t)random_below(7);
    w.options.size = 0;
    OK(run_codec(f->model, MEGABYTE_MODE_DECOMPRESS, &w, first->bytes, first->n, &got));
    CHECK(same(got.bytes, got.n, bytes, SIZE));
    megabyte_engine_free(engine);
    free(other.bytes);
    free(got.bytes);
}

/* One call knows the size by itself. */
static void check_one_call(const fixture *f, megabyte_codec_options o, int say_size,
                           const uint8_t bytes[SIZE]) {
    buffer pieces = {0}, once = {0};
    o.size = SIZE;
    way w = {.options = o, .push = 17};
    OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &w, bytes, SIZE, &pieces));
    if (!say_size) o.size = 0;
    compress_once(f->model, &o, bytes, SIZE, &once);
    CHECK(same(pieces.bytes, pieces.n, once.bytes, once.n), "in one call: %zu bytes, %zu in pieces",
          once.n, pieces.n);
    free(pieces.bytes);
    free(once.bytes);
}

static void check_options(const fixture *f, size_t i) {
    static const uint32_t batches[] = {0, 1, 3, 50};
    uint8_t bytes[SIZE];
    megabyte_codec_options o = file_options[i];
    buffer first = {0};
    if (o.dictionary_size) o.dictionary = f->pool + 999;
    seed_random(i);
    make_data(f, i % 3 ? MIXED : LIKELY, bytes, SIZE);
    way w = {.options = o};
    OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &w, bytes, SIZE, &first));
    for (int isa = 0; isa < 6; isa++)
        for (uint32_t threads = 1; threads < 4; threads++)
            for (size_t b = 0; b < COUNT_OF(batches); b++) {
                engine_row row = {(megabyte_isa)isa, threads, batches[b]};
                if (!is_tried(i, isa, threads, b, f == tiny)) continue;
                name_case("%s, options %zu, %s, %u threads, batch %u", f->y.name, i,
                          megabyte_isa_name(row.isa), threads, batches[b]);
                check_engine(f, o, &row, bytes, &first);
            }
    name_case("%s, options %zu, in one call", f->y.name, i);
    check_one_call(f, o, i % 2, bytes);
    free(first.bytes);
}

static void one_result(void) {
    EACH_FIXTURE(f)
    for (size_t i = 0; i < COUNT_OF(file_options); i++) check_options(f, i);
}

/* ------------------------------------------------------------------------------------- how long */

/* Whatever the bytes: one block, little longer than its code, also if the size is not known. */
static void overhead_of_a_block(const fixture *f, enum kind kind, size_t n) {
    uint8_t bytes[400];
    buffer packed = {0}, pieces = {0};
    way w = {.push = 3};
    megabyte_file_header h;
    name_case("%s, %zu %s", f->y.name, n, kind_name[kind]);
    seed_random(n);
    make_data(f, kind, bytes, n);
    compress_once(f->model, NULL, bytes, n, &packed);
    OK(megabyte_file_header_read(packed.bytes, packed.n, &h, NULL));
    CHECK(packed.n <= h.coded + 24 && h.single, "%zu bytes for %u of code", packed.n, h.coded);
    CHECK(packed.n <= n + 24, "%zu bytes become %zu", n, packed.n);
    OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &w, bytes, n, &pieces));
    CHECK(pieces.n <= n + 24, "%zu bytes in pieces become %zu", n, pieces.n);
    free(packed.bytes);
    free(pieces.bytes);
}

static void overhead_of_noise(uint32_t streams, size_t n) {
    uint8_t *bytes = need(n, 1);
    buffer packed = {0};
    way w = {.options = {.streams = streams}, .push = 50000};
    seed_random(n);
    random_bytes(bytes, n, 256);
    name_case("%zu random bytes, %u streams", n, streams);
    compress_once(tiny->model, &w.options, bytes, n, &packed);
    CHECK((double)packed.n <= (double)n * 1.0005 + 32, "%zu bytes", packed.n);
    OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, bytes, n, &packed));
    CHECK((double)packed.n <= (double)n * 1.0005 + 32, "%zu bytes, pushed in pieces", packed.n);
    free(packed.bytes);
    free(bytes);
}

static void overhead(void) {
    static const uint32_t streams[] = {0, 1, 4, 12};
    EACH_FIXTURE(f)
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t n = 0; n < 400; n += 1 + n / 9) overhead_of_a_block(f, (enum kind)kind, n);
    for (size_t i = 0; i < COUNT_OF(streams); i++)
        for (size_t n = streams[i] > 1 ? 16384 * streams[i] : 1000; n <= 200000; n *= 14)
            overhead_of_noise(streams[i], n);
}

/* The bits of bytes[n] in blocks, by what the model says of them. */
static double count_bits(const megabyte_model *m, const uint8_t *bytes, size_t n, size_t block) {
    double bits = 0;
    for (size_t at = 0; at < n; at += block) {
        float *rows = score_rows(m, NULL, 0, bytes + at, block);
        bits += ref_ideal_bits(rows, describe(m).vocabulary, bytes + at, block);
        free(rows);
    }
    return bits;
}

/* What is counted, and the file beside the model's own bits; `blocks`: how many, of equal size. */
static void check_ideal(const char *name, const megabyte_model *m, const uint8_t *bytes, size_t n,
                        size_t blocks) {
    way w = {.options = {
                 .block_size = blocks > 1 ? (uint32_t)(n / blocks) : 0, .size = n, .streams = 1}};
    buffer packed = {0};
    megabyte_statistics s;
    name_case("%s, %zu bytes in %zu blocks", name, n, blocks);
    megabyte_codec *c = new_codec(m, MEGABYTE_MODE_COMPRESS, &w.options);
    OK(drive(c, &w, bytes, n, &packed));
    megabyte_codec_statistics(c, &s);
    CHECK(s.original == n && s.compressed == packed.n, "%d -> %d", (int)s.original,
          (int)s.compressed);
    CHECK(s.blocks[MEGABYTE_METHOD_MODEL] == blocks && !s.blocks[MEGABYTE_METHOD_STORED]);
    CHECK(s.coded_bits % 8 == 0 && s.coded_bits / 8 + 30 * blocks >= packed.n);
    CHECK((double)s.coded_bits <= s.ideal_bits * 1.0005 + 48, "%f ideal bits, %d coded",
          s.ideal_bits, (int)s.coded_bits);
    double truth = count_bits(m, bytes, n, n / blocks);
    CHECK(fabs(s.ideal_bits / truth - 1) < 1e-4, "%f ideal bits, really %f", s.ideal_bits, truth);
    CHECK((double)s.coded_bits > truth - 1, "fewer than possible: %f", truth);
    megabyte_codec_free(c);
    free(packed.bytes);
}

static void close_to_ideal(void) {
    EACH_FIXTURE(f) check_ideal(f->y.name, f->model, f->pool, POOL, 1);
    check_ideal("text-small", text_small, text + 3000, 20000, 1);
    check_ideal("text-small", text_small, text + 4000, 4000, 1);
    check_ideal("text-small", text_small, text + 5000, 4000, 4);
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
