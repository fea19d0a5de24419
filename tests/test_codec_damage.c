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

int main(int argc, char **argv) {
    set_up("damage", 1, argc > 1 ? argv[1] : NULL);
    RUN(flipped_bits_and_truncations);
    RUN(flipped_bits_at_levels);
    RUN(flips_beside_the_end);
    RUN(trailing_bytes);
    RUN(mutations);
    RUN(corrupt_blocks);
    tear_down();
    return 0;
}
