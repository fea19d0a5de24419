/* test_hostile.c - model files and saved streams from strangers: refused, or harmless. */
#define MEGABYTE_API static __attribute__((unused))
#include "../megabyte.c"

#include "synthetic.h"

#define FILE_DIGEST 64 /* where the header keeps the SHA-256 of the data ... */
#define TABLE_DIGEST 96 /* ... and of everything before it */
#define ISAS 6

static const synthetic small = {"hostile-two", 2, {6, 3}, {9, 6}, {1, 2}, 2, 4, 2,
                                256,           1, 1,      "F32"};
static const synthetic deep = {
    "hostile-four", 4, {3, 2, 1, 2}, {8, 7, 6, 5}, {1, 1, 1, 1}, 1, 4, 1, 100, 0, 1, "F32"};
static uint8_t *file, *work; /* a valid model file, and a copy to be spoilt; aligned */
static size_t size, tables; /* of the file; of what stands before its data */

/* The other families' models: of those, too, every number in the file is tried. */
static const struct {
    const char *name;
    synthetic_writer *write;
} others[] = {
    {"hostile-mblm", synthetic_small_mblm},   {"hostile-spacebyte", synthetic_small_spacebyte},
    {"hostile-bgpt", synthetic_small_bgpt},   {"hostile-paper", synthetic_small_paper},
    {"hostile-bytes", synthetic_small_bytes},
};

static void take_file(const char *mb, const char *name, const char *quant) {
    uint8_t *read = read_file(mb, &size);
    free(file), free(work);
    file = aligned_alloc(64, (size + 127) / 64 * 64);
    work = aligned_alloc(64, (size + 127) / 64 * 64);
    CHECK(file && work);
    memcpy(file, read, size);
    memcpy(work, file, size);
    free(read);
    tables = (size_t)get64(file + 24);
    name_case("%s %s", name, quant);
}
static void load_model(const synthetic *y, const char *quant) {
    char mb[200];
    take_file(synthetic_model(mb, y, 9, quant, NULL), y->name, quant);
}
static void load_other(size_t i, const char *quant) {
    char mb[200];
    others[i].write(others[i].name, 9 + i);
    take_file(synthetic_convert(mb, others[i].name, quant), others[i].name, quant);
}

/* The digests made right, so that what was changed reaches the checks behind them. */
static void sign(uint8_t *f, size_t n, int data_too) {
    size_t data = (size_t)get64(f + 24);
    if (n < HEADER_BYTES || data < HEADER_BYTES || data > n) return;
    if (data_too) sha256(f + data, n - data, NULL, 0, f + FILE_DIGEST);
    sha256(f, TABLE_DIGEST, f + HEADER_BYTES, data - HEADER_BYTES, f + TABLE_DIGEST);
}

/* Opens n bytes; every failure must have a text and leave nothing. At most 4 n + 1 MB may be
 * allocated. */
static megabyte_status open_bytes(megabyte_model **model, const uint8_t *bytes, size_t n,
                                  counter *c) {
    megabyte_allocator allocator = counting(c);
    megabyte_error error;
    megabyte_status status = megabyte_model_open_memory(model, bytes, n, &allocator, &error);
    CHECK(c->peak_bytes <= 4 * n + (1u << 20), "%zu bytes allocated for a file of %zu",
          c->peak_bytes, n);
    CHECK(error.status == status && !status == !error.text[0], "%d '%s'", status, error.text);
    if (status) CHECK(!*model && !c->live && strlen(error.text) > 15, "'%s'", error.text);
    return status;
}

static void check_finite(const float *x, size_t n, const char *what) {
    for (size_t i = 0; i < n; i++) CHECK(isfinite(x[i]), "%s %zu is %g", what, i, (double)x[i]);
}

/* A few bytes through a stream, a batch, a slide, a save; returns a hash of the logits. */
static uint64_t use_model(const megabyte_model *model, megabyte_isa isa, uint32_t batch) {
    megabyte_info info = describe(model);
    megabyte_engine_options how = {.batch = batch, .isa = isa};
    megabyte_engine *engine;
    megabyte_stream *s, *t;
    size_t bytes, v = info.vocabulary, n = 20;
    uint64_t hash = 0;
    if (info.context_bytes > 100000 || info.patch_bytes > 1000 || v > 10000)
        return 0; /* mutated: large */
    CHECK(info.n_stages >= 2 && info.n_stages <= MEGABYTE_MAX_STAGES && info.patch_bytes &&
          info.vocabulary);
    for (uint32_t i = 0; megabyte_model_metadata_at(model, i, NULL); i++) {}
    if (megabyte_engine_size(model, &how, &bytes) || bytes > 100u << 20) return 0;
    if (megabyte_stream_size(model, NULL, &bytes) || bytes > 100u << 20) return 0;
    OK(megabyte_engine_create(&engine, model, &how, NULL, NULL));
    s = new_stream(model, engine, 0);
    int start = !strcmp(info.family, "lucidrains") || !strcmp(info.family, "mblm");
    t = new_stream(model, engine, info.patch_bytes * (start ? 1u : 2u)); /* the shortest context */
    uint8_t text[64], drawn;
    for (size_t i = 0; i < sizeof text; i++) text[i] = (uint8_t)(i * 29 % (v < 256 ? v : 256));
    float *rows = need((n + 1) * v, sizeof *rows);
    double bits = 0;
    OK(megabyte_stream_score(s, text, n, &bits, rows));
    CHECK(bits >= 0 && isfinite(bits), "%g bits", bits);
    check_finite(rows, n * v, "logit");
    OK(megabyte_stream_step_batch((megabyte_stream *[]){s, t}, text + n, 2));
    OK(megabyte_stream_feed(t, text, sizeof text));
    OK(megabyte_stream_rewind(s, n - 3));
    megabyte_stream_probabilities(s, rows);
    check_finite(rows, v, "probability");
    megabyte_sampling sampling = {
        .temperature = 1, .top_p = 0.9f, .top_k = 20, .repetition_penalty = 2};
    if (megabyte_stream_sample(s, &sampling, &drawn) == MEGABYTE_END) drawn = 0;
    CHECK(drawn < v, "draws %d of %zu", drawn, v);
    OK(megabyte_stream_step(s, drawn));
    check_finite(megabyte_stream_logits(t), v, "logit");
    uint8_t *saved = need(megabyte_stream_save_size(s), 1);
    OK(megabyte_stream_save(s, saved, megabyte_stream_save_size(s)));
    OK(megabyte_stream_load(s, saved, megabyte_stream_save_size(s)));
    hash = checksum_of((const uint8_t *)megabyte_stream_logits(s), v * 4) ^
           checksum_of((const uint8_t *)megabyte_stream_logits(t), v * 4) * 3;
    megabyte_stream_reset(s);
    OK(megabyte_stream_score(s, text, n, NULL, rows));
    hash ^= checksum_of((const uint8_t *)rows, n * v * 4) * 5;
    free(saved), free(rows);
    megabyte_stream_free(s);
    megabyte_stream_free(t);
    megabyte_engine_free(engine);
    return hash;
}

/* Opens, and if that succeeds, uses. */
static int try_bytes(const uint8_t *bytes, size_t n) {
    counter c = {0};
    megabyte_model *model = NULL;
    if (open_bytes(&model, bytes, n, &c)) return 0;
    megabyte_model_verify(model, NULL);
    use_model(model, MEGABYTE_ISA_AUTO, 0);
    megabyte_model_close(model);
    CHECK(!c.live);
    return 1;
}

/* ---------------------------------------------------------------------------------- model files */

static void good_files(void) {
    load_model(&deep, "f32");
    CHECK(try_bytes(file, size), "the unchanged file is refused");
    load_model(&small, "q4");
    CHECK(try_bytes(file, size), "the unchanged file is refused");
    load_model(&small, "q8");
    CHECK(try_bytes(file, size), "the unchanged file is refused");
    memcpy(work, file, size);
    sign(work, size, 1);
    CHECK(!memcmp(work, file, size), "the checksums are not where this test expects them");
}

static void truncations(void) {
    megabyte_model *model;
    for (size_t n = 0; n < size; n += n < tables + 200 ? 1 : 61) {
        counter c = {0};
        uint8_t *cut =
            aligned_alloc(64, (n + 64) / 64 * 64); /* its own allocation: reading past it shows */
        CHECK(cut);
        memcpy(cut, file, n);
        test_seed = n;
        megabyte_status status = open_bytes(&model, cut, n, &c);
        CHECK(status == (n < 8 ? MEGABYTE_ERROR_BAD_MAGIC : MEGABYTE_ERROR_TRUNCATED),
              "%zu bytes: %s", n, megabyte_status_string(status));
        if (n > HEADER_BYTES) { /* one that says so itself, with checksums that hold */
            put64(cut + 16, n);
            sign(cut, n, 1);
            CHECK(open_bytes(&model, cut, n, &c), "%zu of %zu bytes are enough", n, size);
        }
        free(cut);
    }
    memcpy(work, file, size);
    counter c = {0};
    CHECK(open_bytes(&model, work, size + 1, &c), "a byte behind the end is not noticed");
}

static void flipped_bits(void) {
    megabyte_model *model;
    memcpy(work, file, size);
    for (size_t bit = 0; bit < tables * 8; bit++) {
        counter c = {0};
        test_seed = bit;
        work[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(open_bytes(&model, work, size, &c), "bit %zu of byte %zu", bit % 8, bit / 8);
        work[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t bit = tables * 8; bit < size * 8;
         bit += 1 + size / 23) { /* the weights: opens, verify sees it */
        counter c = {0};
        test_seed = bit;
        work[bit / 8] ^= (uint8_t)(1 << bit % 8);
        OK(open_bytes(&model, work, size, &c));
        megabyte_error error;
        CHECK_STATUS(megabyte_model_verify(model, &error), MEGABYTE_ERROR_CORRUPT);
        CHECK(error.status == MEGABYTE_ERROR_CORRUPT && error.text[0]);
        use_model(model, MEGABYTE_ISA_AUTO, 0);
        megabyte_model_close(model);
        work[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void mutated_files(void) {
    static const uint32_t values[] = {0,          1,          2,         3,     7,       8,
                                      9,          63,         64,        65,    255,     4096,
                                      4097,       65535,      65536,     65537, 1 << 24, 0x7fffffff,
                                      0x80000000, 0xfffffff0, 0xffffffff};
    int opened = 0;
    for (uint64_t seed = 1; seed <= 20000; seed++) {
        if (seed == 1) load_model(&small, "q8");
        if (seed == 5001) load_model(&deep, "f32");
        if (seed == 7501) load_model(&small, "f32");
        if (seed == 8751) load_model(&deep, "q4");
        if (seed > 10000 && seed % 2000 == 1)
            load_other((size_t)(seed - 10000) / 2000, seed % 4000 == 1 ? "q4" : "f32");
        if (seed > 10000 && seed % 4000 == 1001) load_other((size_t)(seed - 10000) / 2000, "q8");
        seed_random(seed);
        memcpy(work, file, size);
        size_t n = size;
        for (size_t k = 1 + random_below(3); k; k--) {
            size_t word = random_below(tables / 4) * 4, from = random_below(tables), count;
            switch (random_below(7)) {
            case 0: work[random_below(tables)] ^= (uint8_t)(1u << random_below(8)); break;
            case 1: put32(work + word, values[random_below(COUNT_OF(values))]); break;
            case 2: put32(work + word, get32(work + word) + (uint32_t)random_below(5) - 2); break;
            case 3:
                put32(work + HEADER_BYTES + random_below(7) * 4,
                      values[random_below(COUNT_OF(values))]);
                break;
            case 4:
                put32(work + 32 + random_below(8) * 4, (uint32_t)random64() >> random_below(32));
                break;
            case 5: /* a piece of the tables elsewhere */
                count = random_below(100);
                if (word + count <= tables && from + count <= tables)
                    memmove(work + word, work + from, count);
                break;
            default: /* offsets that meet, or lie outside */
                put64(work + HEADER_BYTES + random_below((tables - HEADER_BYTES) / 8) * 8,
                      random_below(2 * size) / 64 * 64);
            }
        }
        if (random_below(10) == 0) {
            n = HEADER_BYTES + random_below(size - HEADER_BYTES);
            if (random_below(2)) put64(work + 16, n);
        }
        sign(work, n, (int)random_below(2));
        opened += try_bytes(work, n);
    }
    CHECK(opened > 200 && opened < 18000, "%d of 20000 were opened: the mutations are no good",
          opened);
}

/* -------------------------------------------------------------------------------------- weights */

static megabyte_status spoil(void *context, struct tensor *t) { /* some floats of every tensor */
    static const uint32_t hostile[] = {0x7fc00000, 0xffc00000, 0x7f800000, 0xff800000,
                                       0x7f7fffff, 0xff7fffff, 0x00000001, 0x807fffff,
                                       0x7f800001, 0x7e967699, 0x00000000, 0x80000000};
    uint8_t *entry = *(uint8_t **)context, *data = work + tables + get64(entry + 24);
    t->type = get32(entry + 8);
    size_t bytes = (size_t)tensor_data_bytes(t), scales = (bytes - (size_t)quantized_bytes(t)) / 4;
    for (size_t i = random_below(3); t->type == TYPE_Q4_TILED && i; i--) /* any nibbles are valid */
        data[random_below(bytes - 4 * scales)] = (uint8_t)random64();
    data += bytes - 4 * scales;
    size_t spoilt = random_below(3) ? random_below(3) : random_below(scales + 1);
    for (size_t i = 0; i < spoilt; i++)
        put32(data + random_below(scales) * 4, hostile[random_below(COUNT_OF(hostile))]);
    *(uint8_t **)context += TENSOR_BYTES;
    return MEGABYTE_OK;
}

/* Weights that are no sensible numbers: finite logits, and the same bits from every instruction set
 * and batch. */
static void hostile_weights(void) {
    static const char *const quants[] = {"q8", "f32", "q4"};
    for (uint64_t seed = 1; seed <= 1150; seed++) {
        if (seed <= 400 && seed % 100 == 1)
            load_model(seed < 200 || seed > 300 ? &small : &deep,
                       quants[seed > 300 ? 2 : seed < 101]);
        if (seed > 400 && seed % 50 == 1)
            load_other((size_t)(seed - 401) / 150, quants[seed / 50 % 3]);
        seed_random(seed);
        memcpy(work, file, size);
        struct sizes z;
        uint8_t *entry = work + HEADER_BYTES + get32(work + 40) * STAGE_BYTES;
        megabyte_model *model;
        counter c = {0};
        OK(open_bytes(&model, file, size, &c));
        z = model->sizes;
        megabyte_model_close(model);
        each_tensor(&z, spoil, &entry);
        sign(work, size, 1);
        OK(open_bytes(&model, work, size, &c));
        OK(megabyte_model_verify(model, NULL));
        uint64_t expected = use_model(model, MEGABYTE_ISA_PLAIN, 0);
        for (int isa = 1; isa < ISAS; isa++)
            for (uint32_t batch = 1; batch < 60; batch *= 7)
                if (megabyte_isa_available((megabyte_isa)isa))
                    CHECK(use_model(model, (megabyte_isa)isa, batch) == expected,
                          "%s, batch %u: other bits", megabyte_isa_name((megabyte_isa)isa), batch);
        megabyte_model_close(model);
    }
}

/* -------------------------------------------------------------------------------- foreign files */

static void foreign_files(void) {
    static const struct {
        const char *path, *content;
        size_t n;
        megabyte_status expected;
    } files[] = {
        {"tests/tmp/foreign-empty", "", 0, MEGABYTE_ERROR_BAD_MAGIC},
        {"tests/tmp/foreign-byte", "\x8a", 1, MEGABYTE_ERROR_BAD_MAGIC},
        {"tests/tmp/foreign-html", "<!DOCTYPE html><html><body>404 Not Found</body></html>", 54,
         MEGABYTE_ERROR_BAD_MAGIC},
        {"tests/tmp/foreign-gguf", "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20,
         MEGABYTE_ERROR_BAD_MAGIC},
        {"tests/tmp/foreign-magic", "\x8aMBMDL\r\n", 8, MEGABYTE_ERROR_TRUNCATED},
        {"tests/tmp/foreign-text", "\x8aMBMDL\n", 7,
         MEGABYTE_ERROR_BAD_MAGIC}, /* line ends were converted */
        {"tests/tmp/foreign-missing", NULL, 0, MEGABYTE_ERROR_IO},
        {"tests/tmp", NULL, 0, MEGABYTE_ERROR_IO},
        {"", NULL, 0, MEGABYTE_ERROR_IO},
        {"tests/data/lucid-3stage.safetensors", NULL, 0, MEGABYTE_ERROR_BAD_MAGIC},
    };
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        counter c = {0};
        megabyte_allocator allocator = counting(&c);
        megabyte_model *model = (megabyte_model *)(void *)&c;
        megabyte_error error;
        name_case("%s", files[i].path);
        if (files[i].content) write_file(files[i].path, files[i].content, files[i].n);
        CHECK_STATUS(megabyte_model_open(&model, files[i].path, &allocator, &error),
                     files[i].expected);
        CHECK(!model && !c.live && error.status == files[i].expected && strlen(error.text) > 15,
              "'%s'", error.text);
        CHECK_STATUS(megabyte_model_open(&model, files[i].path, NULL, NULL), files[i].expected);
        CHECK_STATUS(megabyte_model_load(&model, files[i].path, &allocator, &error),
                     files[i].expected);
        CHECK(!model && !c.live && error.status == files[i].expected && strlen(error.text) > 15,
              "'%s'", error.text);
    }
    load_model(&small, "q8");
    memcpy(work + 1, file, size);
    megabyte_model *model;
    megabyte_error error;
    CHECK_STATUS(megabyte_model_open_memory(&model, work + 1, size, NULL, &error),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK(error.text[0]);
    memcpy(work, file, size);
    put32(work + 8, MEGABYTE_FORMAT_VERSION + 1);
    sign(work, size, 0);
    CHECK_STATUS(megabyte_model_open_memory(&model, work, size, NULL, &error),
                 MEGABYTE_ERROR_BAD_VERSION);
    for (size_t n = tables; n < size; n += 1 + size / 40) { /* truncated files on disk */
        counter c = {0};
        megabyte_allocator allocator = counting(&c);
        write_file("tests/tmp/foreign-cut", file, n);
        CHECK_STATUS(megabyte_model_open(&model, "tests/tmp/foreign-cut", &allocator, &error),
                     MEGABYTE_ERROR_TRUNCATED);
        CHECK_STATUS(megabyte_model_load(&model, "tests/tmp/foreign-cut", &allocator, &error),
                     MEGABYTE_ERROR_TRUNCATED);
        CHECK(!c.live);
    }
}

/* -------------------------------------------------------------------------------- saved streams */

static void spoil_saved_streams(uint64_t seeds) {
    counter c = {0};
    megabyte_model *model;
    OK(open_bytes(&model, file, size, &c));
    uint8_t text[200];
    int loaded = 0, moved = 0;
    megabyte_stream *s = new_stream(model, NULL, 0), *t = new_stream(model, NULL, 0);
    float before[300], row[300];
    size_t v = describe(model).vocabulary;
    for (size_t position = 0; position < 60; position += 1 + position / 4) {
        seed_random(position);
        random_bytes(text, sizeof text, 256);
        megabyte_stream_reset(s);
        OK(megabyte_stream_feed(s, text, position));
        memcpy(row, megabyte_stream_logits(s), v * sizeof *row);
        size_t n = megabyte_stream_save_size(s), at, header = STATE_HEADER + position;
        uint8_t *saved = need(n, 1), *bad = need(n + 1, 1);
        OK(megabyte_stream_save(s, saved, n));
        megabyte_stream_reset(t);
        OK(megabyte_stream_feed(t, text + 100, 11)); /* what must not change when loading fails */
        memcpy(before, megabyte_stream_logits(t), v * sizeof *before);
#define REFUSED(bytes, count, ...)                                                                 \
    (CHECK(megabyte_stream_load(t, bytes, count) != MEGABYTE_OK, __VA_ARGS__),                     \
     CHECK(megabyte_stream_position(t) == 11 && same_floats(before, megabyte_stream_logits(t), v), \
           __VA_ARGS__))
        for (at = 0; at < n; at += at < header ? 1 : 37) {
            uint8_t *cut = need(at, 1);
            memcpy(cut, saved, at);
            REFUSED(cut, at, "%zu of %zu bytes", at, n);
            free(cut);
        }
        memcpy(bad, saved, n);
        REFUSED(bad, n + 1, "a byte behind the end");
        for (size_t bit = 0; bit < n * 8; bit += bit / 8 < header ? 1 : 301) {
            bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
            REFUSED(bad, n, "bit %zu of byte %zu", bit % 8, bit / 8);
            bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        for (uint64_t seed = 1; seed <= seeds;
             seed++) { /* with a check sum that holds: loads or not, works or not */
            seed_random(position * 1000 + seed);
            memcpy(bad, saved, n);
            for (size_t k = 1 + random_below(4); k; k--) switch (random_below(5)) {
                case 0: bad[random_below(n)] ^= (uint8_t)(1u << random_below(8)); break;
                case 1: put32(bad + 8 + random_below(n - 12), (uint32_t)random64()); break;
                case 2:
                    put64(bad + 40 + 8 * random_below(4), random64() >> random_below(64));
                    break;
                case 3:
                    put64(bad + 48 + 8 * random_below(3), position + random_below(60) - 30);
                    break;
                default: put32(bad + header + random_below((n - header - 12) / 4) * 4, 0x7fc00000);
                }
            put64(bad + n - 8, checksum_of(bad, n - 8));
            if (megabyte_stream_load(t, bad, n) == MEGABYTE_OK) {
                loaded++;
                uint64_t from = megabyte_stream_position(t);
                moved += from != position;
                check_finite(megabyte_stream_logits(t), v, "logit");
                OK(megabyte_stream_feed(t, text, 1 + random_below(40)));
                check_finite(megabyte_stream_logits(t), v, "logit");
                if (from) megabyte_stream_rewind(t, from - 1);
                OK(megabyte_stream_step(t, 1));
                megabyte_stream_copy(s, t);
            }
        }
        OK(megabyte_stream_load(t, saved, n));
        CHECK(same_floats(row, megabyte_stream_logits(t), v), "the unchanged state");
        free(saved), free(bad);
    }
    CHECK(loaded > (int)seeds / 4, "only %d mutated states were loaded: the mutations are no good",
          loaded);
    (void)moved;
    megabyte_stream_free(s);
    megabyte_stream_free(t);
    megabyte_model_close(model);
}

static void saved_streams(void) {
    load_model(&small, "q8");
    spoil_saved_streams(400);
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        load_other(i, i % 2 ? "f32" : "q8");
        spoil_saved_streams(40);
    }
}

int main(void) {
    make_tmp();
    GROUP(good_files);
    GROUP(truncations);
    GROUP(flipped_bits);
    GROUP(mutated_files);
    GROUP(hostile_weights);
    GROUP(foreign_files);
    GROUP(saved_streams);
    free(file), free(work);
    return 0;
}
