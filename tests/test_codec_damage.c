/* test_codec_damage.c - damaged files: never OK but with the right bytes, and what comes out is a
 * beginning. */
#include "codec_fixtures.h"

#include <unistd.h>

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
    x->blocks = 0;
    x->ends = x->packed.n;
    for (size_t at = c.header_bytes; !c.single && at < x->packed.n;
         at += b.header_bytes + b.coded) {
        OK(megabyte_block_header_read(x->packed.bytes + at, x->packed.n - at, &c, &b, NULL));
        if (b.method < 0) x->ends = at;
        else x->begins[x->blocks++] = at;
        CHECK(x->blocks < COUNT_OF(x->begins));
    }
}

/* The next n bytes of the original are a block. */
static void add_block(sample *x, megabyte_codec *c, size_t n) {
    size_t taken;
    OK(megabyte_codec_push(c, x->original + x->n, n, &taken));
    CHECK(taken == n);
    x->n += n;
    OK(pull_all(c, 0, &x->packed));
    OK(megabyte_codec_flush(c));
    OK(pull_all(c, 0, &x->packed));
}

/* Ends the file and counts its blocks by method. */
static void end_blocks(sample *x, megabyte_codec *c, uint64_t blocks[MEGABYTE_METHOD_COUNT]) {
    OK(megabyte_codec_finish(c));
    OK(pull_all(c, 0, &x->packed));
    memset(blocks, 0, MEGABYTE_METHOD_COUNT * sizeof *blocks);
    count_blocks(c, blocks);
    megabyte_codec_free(c);
    x->w.options.block_size = 1024;
    find_blocks(x);
}

/* Blocks of all methods: stored ones of 1 KB, three constant ones, and coded ones, which take time,
 * at the end. */
static void make_blocks(sample *x, size_t stored, size_t coded) {
    static const size_t likely[] = {130, 50, 90, 70, 120, 40};
    megabyte_codec_options o = {.block_size = 1024};
    uint64_t blocks[MEGABYTE_METHOD_COUNT];
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &o);
    seed_random(stored);
    for (size_t i = 0; i < stored + 3 + coded; i++) {
        enum kind kind = i < stored ? RANDOM : i < stored + 3 ? ZEROS : LIKELY;
        size_t n = kind == RANDOM  ? 1024 - i % 3
                   : kind == ZEROS ? 1 + random_below(600)
                                   : likely[(i - stored - 3) % COUNT_OF(likely)];
        make_data(tiny, kind, x->original + x->n, n);
        add_block(x, c, n);
    }
    end_blocks(x, c, blocks);
    CHECK(blocks[MEGABYTE_METHOD_STORED] == stored && blocks[MEGABYTE_METHOD_CONSTANT] == 3 &&
              blocks[MEGABYTE_METHOD_MODEL] == coded,
          "%d stored, %d constant, %d coded", (int)blocks[MEGABYTE_METHOD_STORED],
          (int)blocks[MEGABYTE_METHOD_CONSTANT], (int)blocks[MEGABYTE_METHOD_MODEL]);
}

/* One block, without a header of its own. */
static void make_single(sample *x, enum kind kind, size_t n) {
    seed_random(n);
    make_data(tiny, kind, x->original, n);
    x->n = n;
    compress_once(tiny->model, NULL, x->original, n, &x->packed);
    x->w.options.block_size = 1024;
    find_blocks(x);
}

/* What contexts alone compress well: a text twice. */
static void make_repetition(uint8_t *to, size_t from, size_t n) {
    memcpy(to, text + from, n / 2);
    memcpy(to + n / 2, text + from, n - n / 2);
}

/* About 2 KB: two stored blocks, a constant one, three by the level's method. */
static void make_level(sample *x, int level) {
    static const size_t sizes[] = {900, 1024, 50, 90, 130, 160};
    way w = {.options = {.block_size = 1024}};
    uint64_t blocks[MEGABYTE_METHOD_COUNT];
    int method = level < 5 ? MEGABYTE_METHOD_CONTEXT_MIXING : MEGABYTE_METHOD_MIXED;
    at_level(level, &w, &x->w);
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w.options);
    seed_random((uint64_t)level);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        uint8_t *to = x->original + x->n;
        if (i < 3) make_data(tiny, i < 2 ? RANDOM : ZEROS, to, sizes[i]);
        else if (level < 5) make_repetition(to, 500 * i, sizes[i]);
        else make_data(tiny, LIKELY, to, sizes[i]);
        add_block(x, c, sizes[i]);
    }
    end_blocks(x, c, blocks);
    CHECK(blocks[method] == 3 && blocks[MEGABYTE_METHOD_STORED] == 2 &&
              blocks[MEGABYTE_METHOD_CONSTANT] == 1,
          "%d by method %d", (int)blocks[method], method);
    CHECK(x->packed.n > 2000, "%zu bytes", x->packed.n);
}

/* One block of 300 bytes by the level's method. */
static void make_single_of_level(sample *x, int level) {
    way w = {.options = {.block_size = 1024}};
    megabyte_file_header h;
    at_level(level, &w, &x->w);
    seed_random((uint64_t)level);
    x->n = 300;
    if (level < 5) make_repetition(x->original, 0, x->n);
    else make_data(tiny, LIKELY, x->original, x->n);
    OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, x->original, x->n, &x->packed));
    OK(megabyte_file_header_read(x->packed.bytes, x->packed.n, &h, NULL));
    CHECK(h.single &&
          h.method == (level < 5 ? MEGABYTE_METHOD_CONTEXT_MIXING : MEGABYTE_METHOD_MIXED));
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
    free(bad);
    free(out.bytes);
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

/* Two processes share the work. Returns 0 in the second one, which ends with end_half. */
static pid_t second_half(void) {
    fflush(stdout);
    pid_t other = fork();
    CHECK(other >= 0);
    return other;
}

static void end_half(pid_t other) {
    int status;
    if (!other) _exit(0);
    CHECK(waitpid(other, &status, 0) == other && status == 0, "the other half failed");
}

static void in_small_pieces(sample *x) {
    x->w.push = 300;
    x->w.pull = 100;
    x->w.options.streams = 5;
}

static void flipped_bits_and_truncations(void) {
    static sample blocks, single[4];
    make_blocks(&blocks, 20, 4);
    name_case("blocks");
    CHECK(blocks.packed.n > 20000 && blocks.blocks == 27, "%zu bytes, %zu blocks", blocks.packed.n,
          blocks.blocks);
    pid_t other = second_half();
    flip_bits(&blocks, other ? 0 : 1, 2);
    if (other) truncate_everywhere(&blocks);
    end_half(other);
    make_single(&single[0], LIKELY, 500);
    make_single(&single[1], RANDOM, 300);
    make_single(&single[2], ZEROS, 400);
    make_single(&single[3], ZEROS, 0);
    for (size_t i = 0; i < COUNT_OF(single); i++) {
        name_case("one block, %zu bytes", single[i].n);
        flip_bits(&single[i], 0, 1);
        truncate_everywhere(&single[i]);
        free_sample(&single[i]);
    }
    name_case("blocks, in small pieces by five streams");
    in_small_pieces(&blocks);
    flip_bits(&blocks, 0, 499);
    free_sample(&blocks);
}

static void flipped_bits_at_levels(void) {
    static sample x[4];
    make_level(&x[0], 1);
    make_level(&x[1], 7);
    make_single_of_level(&x[2], 1);
    make_single_of_level(&x[3], 7);
    pid_t other = second_half();
    for (int i = other ? 0 : 1; i < 4; i += 2) {
        name_case("level %d, %zu -> %zu bytes", i % 2 ? 7 : 1, x[i].n, x[i].packed.n);
        flip_bits(&x[i], 0, 1);
        truncate_everywhere(&x[i]);
        in_small_pieces(&x[i]);
        flip_bits(&x[i], 1, 97);
    }
    end_half(other);
    for (int i = 0; i < 4; i++) free_sample(&x[i]);
}

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
    free(packed.bytes);
    free(got.bytes);
}

/* Something behind the end: all of the data, and then the error. */
static void check_trailing(const sample *x, const uint8_t *more, size_t count, int seed) {
    buffer file = {0}, out = {0};
    ref_append(&file.bytes, &file.n, &file.room, x->packed.bytes, x->packed.n);
    ref_append(&file.bytes, &file.n, &file.room, more, count);
    way w = {.options = {.block_size = 1024, .streams = 1 + (uint32_t)seed % 3},
             .push = (size_t)seed % 4 * 7};
    megabyte_status status = run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &w, file.bytes,
                                       file.n, &out);
    if (more[0] == 0xb5) /* another file begins */
        CHECK(status == MEGABYTE_ERROR_TRUNCATED || status == MEGABYTE_ERROR_TRAILING_DATA);
    else CHECK_STATUS(status, MEGABYTE_ERROR_TRAILING_DATA);
    CHECK(same(out.bytes, out.n, x->original, x->n), "%zu of %zu bytes are handed out", out.n,
          x->n);
    status = decompress_once(tiny->model, &w.options, file.bytes, file.n, x->n, &out, NULL);
    CHECK(status && same(out.bytes, out.n, x->original, x->n), "in one call: %s, %zu bytes",
          megabyte_status_string(status), out.n);
    free(file.bytes);
    free(out.bytes);
}

/* Every byte, then longer ones that do not begin like a file. */
static void trailing_bytes(void) {
    static sample samples[2];
    make_blocks(&samples[0], 2, 2);
    make_single(&samples[1], LIKELY, 100);
    for (size_t i = 0; i < COUNT_OF(samples); i++) {
        for (int tail = 0; tail < 300; tail++) {
            uint8_t more[50];
            size_t count = 1;
            name_case("%d behind %zu bytes", tail, samples[i].n);
            seed_random((uint64_t)tail);
            random_bytes(more, sizeof more, 256);
            if (tail < 256) more[0] = (uint8_t)tail;
            else {
                if (more[0] == 0xb5) more[0] = 0;
                count = random_below(sizeof more) + 1;
            }
            check_trailing(&samples[i], more, count, tail);
        }
        free_sample(&samples[i]);
    }
}

/* ------------------------------------------------------------------------------------ mutations */

enum mutation { TWICE, LEFT_OUT, EXCHANGED, END_SOONER, SCRAMBLED, SIGNED_HEADER };
static const enum mutation mutations[] = {TWICE,     LEFT_OUT,  EXCHANGED, END_SOONER,
                                          SCRAMBLED, SCRAMBLED, SCRAMBLED, SIGNED_HEADER};

static void put(const sample *x, buffer *file, size_t from, size_t to) {
    ref_append(&file->bytes, &file->n, &file->room, x->packed.bytes + from, to - from);
}

/* The file with blocks a and b, a <= b, in other places; 0 if that is the same file. */
static int move_blocks(const sample *x, buffer *file, enum mutation how, size_t a, size_t b) {
    size_t begin_a = x->begins[a], end_a = a + 1 < x->blocks ? x->begins[a + 1] : x->ends,
           begin_b = x->begins[b], end_b = b + 1 < x->blocks ? x->begins[b + 1] : x->ends;
    switch (how) {
    case TWICE:
        put(x, file, 0, end_a);
        put(x, file, begin_a, x->packed.n);
        return 1;
    case LEFT_OUT:
        put(x, file, 0, begin_a);
        put(x, file, end_a, x->packed.n);
        return 1;
    case EXCHANGED:
        if (a == b) return 0;
        put(x, file, 0, begin_a);
        put(x, file, begin_b, end_b);
        put(x, file, end_a, begin_b);
        put(x, file, begin_a, end_a);
        put(x, file, end_b, x->packed.n);
        return 1;
    default: /* the end mark, and perhaps the rest of the blocks behind it */
        put(x, file, 0, begin_a);
        put(x, file, x->ends, x->packed.n);
        if (random_below(2)) put(x, file, begin_a, x->ends);
        return 1;
    }
}

/* One to five places, many of them at the beginning of a block; now and then the rest is gone. */
static void scramble(const sample *x, buffer *file) {
    for (size_t k = 1 + random_below(5); k; k--) {
        size_t at = random_below(file->n), count = random_below(20), from = random_below(file->n);
        if (random_below(3) == 0) {
            at = x->begins[random_below(x->blocks)] + random_below(8);
            if (at >= file->n) at = file->n - 1;
        }
        if (count > file->n - at) count = file->n - at;
        if (count > file->n - from) count = file->n - from;
        switch (random_below(4)) {
        case 0: random_bytes(file->bytes + at, count, 256); break;
        case 1: memmove(file->bytes + at, file->bytes + from, count); break;
        case 2: memset(file->bytes + at, random_below(2) ? 255 : 0, count); break;
        default: file->bytes[at] = (uint8_t)random_below(6);
        }
        if (random_below(20) == 0) file->n = random_below(file->n) + 1;
    }
}

/* One or two bits of the header are others, and its checksum is right. */
static void alter_header(const sample *x, buffer *file) {
    size_t header = x->begins[0];
    for (size_t k = 1 + random_below(2); k; k--)
        file->bytes[4 + random_below(header - 6)] ^= (uint8_t)(1u << random_below(8));
    ref_sign_header(file->bytes, header);
}

static int mutate(const sample *x, buffer *file, enum mutation how) {
    size_t a = random_below(x->blocks), b = random_below(x->blocks);
    file->n = 0;
    if (how < SCRAMBLED) return move_blocks(x, file, how, a < b ? a : b, a < b ? b : a);
    put(x, file, 0, x->packed.n);
    if (how == SCRAMBLED) scramble(x, file);
    else alter_header(x, file);
    return 1;
}

/* Decoding it is never OK but with the right bytes, as where equal blocks were exchanged. */
static megabyte_status check_mutated(megabyte_codec *c, const sample *x, const buffer *file,
                                     enum mutation how) {
    buffer out = {0};
    way w = {.push = random_below(2) * 700};
    megabyte_codec_reset(c);
    megabyte_status status = drive(c, &w, file->bytes, file->n, &out);
    int moved = how <= EXCHANGED; /* right blocks are handed out, in another order */
    CHECK(is_prefix(x, &out) || moved, "wrong bytes are handed out");
    if (!status) CHECK(same(out.bytes, out.n, x->original, x->n), "the damage is not noticed");
    free(out.bytes);
    return status;
}

static void random_mutations(void) {
    static const megabyte_status expected[] = {MEGABYTE_ERROR_CORRUPT, MEGABYTE_ERROR_TRUNCATED,
                                               MEGABYTE_ERROR_BAD_MAGIC, MEGABYTE_ERROR_BAD_VERSION,
                                               MEGABYTE_ERROR_WRONG_MODEL};
    static const megabyte_status never[] = {MEGABYTE_ERROR_INVALID_ARGUMENT,
                                            MEGABYTE_ERROR_OUT_OF_MEMORY, MEGABYTE_ERROR_IO,
                                            MEGABYTE_ERROR_UNSUPPORTED, MEGABYTE_ERROR_CANCELLED};
    static sample x;
    buffer file = {0};
    size_t refused = 0, seen[20] = {0};
    megabyte_codec_options o = {.block_size = 1024, .streams = 2};
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &o);
    make_blocks(&x, 3, 5);
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        enum mutation how = mutations[seed % COUNT_OF(mutations)];
        name_case("mutation %d", how);
        seed_random(seed);
        if (!mutate(&x, &file, how)) continue;
        megabyte_status status = check_mutated(c, &x, &file, how);
        CHECK(status <= 0 && status > -(int)COUNT_OF(seen));
        seen[-status]++;
        refused += status != MEGABYTE_OK;
    }
    CHECK(refused > 1600, "%zu refused", refused);
    for (size_t i = 0; i < COUNT_OF(expected); i++)
        CHECK(seen[-expected[i]], "never '%s'", megabyte_status_string(expected[i]));
    for (size_t i = 0; i < COUNT_OF(never); i++)
        CHECK(!seen[-never[i]], "'%s'", megabyte_status_string(never[i]));
    megabyte_codec_free(c);
    free_sample(&x);
    free(file.bytes);
}

/* --------------------------------------------------------------------------------- what is told */

/* The error names block i, which begins and ends there, and an offset in it. */
static void check_error(const megabyte_error *error, size_t i, size_t begin, size_t end) {
    char number[30];
    snprintf(number, sizeof number, "block %zu,", i); /* counted from 0 */
    CHECK(strstr(error->text, number), "'%s' does not name %s", error->text, number);
    CHECK(error->offset >= begin && error->offset <= end, "offset %llu, the block is at %zu",
          (unsigned long long)error->offset, begin);
    snprintf(number, sizeof number, "%llu", (unsigned long long)error->offset);
    CHECK(strstr(error->text, number), "'%s' does not tell the offset", error->text);
}

/* Block i is damaged in its middle: the `before` bytes of those before it come out. Returns the
 * bytes in it. */
static size_t corrupt_block(const sample *x, size_t i, size_t before, uint32_t streams) {
    megabyte_file_header h;
    megabyte_block_header b;
    buffer out = {0};
    name_case("block %zu, %u streams", i, streams);
    OK(megabyte_file_header_read(x->packed.bytes, x->packed.n, &h, NULL));
    OK(megabyte_block_header_read(x->packed.bytes + x->begins[i], 64, &h, &b, NULL));
    uint8_t *bad = need(x->packed.n, 1);
    memcpy(bad, x->packed.bytes, x->packed.n);
    bad[x->begins[i] + b.header_bytes + b.coded / 2] ^= 16;
    way w = {.options = {.block_size = 1024, .streams = streams}};
    megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &w.options);
    CHECK_STATUS(drive(c, &w, bad, x->packed.n, &out), MEGABYTE_ERROR_CORRUPT);
    CHECK(out.n == before && is_prefix(x, &out), "%zu bytes come out, %zu are right", out.n,
          before);
    check_error(megabyte_codec_error(c), i, x->begins[i], x->begins[i] + b.header_bytes + b.coded);
    megabyte_codec_reset(c); /* works again */
    OK(drive(c, &w, x->packed.bytes, x->packed.n, &out));
    CHECK(same(out.bytes, out.n, x->original, x->n));
    megabyte_codec_free(c);
    free(bad);
    free(out.bytes);
    return b.size;
}

static void corrupt_blocks(void) {
    static sample x;
    make_blocks(&x, 3, 4);
    for (uint32_t streams = 1; streams < 5; streams++)
        for (size_t i = 0, before = 0; i < x.blocks; i++)
            before += corrupt_block(&x, i, before, streams);
    free_sample(&x);
}

int main(int argc, char **argv) {
    set_up("damage", 1, argc > 1 ? argv[1] : NULL);
    RUN(flipped_bits_and_truncations);
    RUN(flipped_bits_at_levels);
    RUN(flips_beside_the_end);
    RUN(trailing_bytes);
    RUN(random_mutations);
    RUN(corrupt_blocks);
    tear_down();
    return 0;
}
