/* test_q4.c - 4-bit weights against tests/q4.h: quantization, kernels, and that a q4 model gives
 * the bits of the same model expanded to q8, on every instruction set and in every way of
 * calling. */
#define MEGABYTE_API static __attribute__((unused))
#define _GNU_SOURCE
#include "mbconvert.h"

#include "q4.h"
#include "synthetic.h"

/* --------------------------------------------------------------------------------- quantization */

static void check_row(const float *w, u32 n, const char *what) {
    enum { WIDEST = 4096 };
    static i8 w4[WIDEST];
    static int expected[WIDEST], m[WIDEST / 32];
    static u8 multiplier[WIDEST / 32];
    CHECK(n <= WIDEST);
    float scale = q4_quantize(w, n, expected, m), got = quantize_row_q4(w, n, w4, multiplier);
    CHECK(f32_to_bits(got) == f32_to_bits(scale), "%s, %u wide: scale %g, not %g", what, n,
          (double)got, (double)scale);
    for (u32 k = 0; k < n; k++)
        CHECK(w4[k] == expected[k] && multiplier[k / 32] == m[k / 32],
              "%s, weight %u of %u, %g: %d * %d, not %d * %d", what, k, n, (double)w[k], w4[k],
              multiplier[k / 32], expected[k], m[k / 32]);
}

/* Of every width and scale; with equal errors, halves, denormals and what is far from all else. */
static void rule(void) {
    static float w[4096];
    static const u32 widths[] = {1, 2, 31, 32, 33, 63, 64, 65, 96, 100, 128, 500, 2048, 4096};
    static const double scales[] = {1, 1e-3, 1e-30, 1e-42, 1e-44, 1e38, 0};
    for (u64 seed = 1; seed <= 1000; seed++) {
        u32 n = widths[seed % COUNT_OF(widths)];
        double scale = scales[seed / 3 % COUNT_OF(scales)];
        seed_random(seed);
        for (u32 k = 0; k < n; k++) {
            double v = random_normal() * (random_below(9) ? 0.1 : 1);
            if (seed % 3 == 1) v = rint(v * 20) / 20;
            if (seed % 3 == 2) v = ldexp(1, -(int)random_below(9)) * (random_below(2) ? 1 : -1);
            if (seed % 5 == 1 && k / 32 % 2) v = 0;
            w[k] = (float)(v * scale / 8);
        }
        if (seed % 7 == 3) w[random_below(n)] = (float)(scale * 3);
        check_row(w, n, "random");
    }
    const float ends[] = {105, -120, 7, -8, 0.5f, 3.5f, -0.5f, 1e-45f};
    check_row(ends, COUNT_OF(ends), "ends");
    int w4[8], m[1];
    CHECK(q4_quantize(ends, 1, w4, m) == 1 && m[0] == 15 && w4[0] == 7);
}

/* Every tensor of a converted checkpoint, against the same one converted to f32. */
struct comparison {
    const u8 *f32, *q4;
    u64 entry, data;
    u32 matrices, heads;
};
static status compare_packed(void *context, struct tensor *t) {
    struct comparison *x = context;
    const u8 *f32 = x->f32 + x->data + get64(x->f32 + x->entry + 24);
    const u8 *q4 = x->q4 + x->data + get64(x->q4 + x->entry + 24);
    u64 rows16 = round_up(t->rows, 16);
    u32 type = get32(x->q4 + x->entry + 8), c32 = (u32)round_up(t->cols, 32);
    x->entry += TENSOR_BYTES;
    if (type == TYPE_Q8_TILED) x->heads++;
    if (type != TYPE_Q4_TILED) return MEGABYTE_OK;
    x->matrices++;
    float *w = need(c32, sizeof *w);
    int *w4 = need(c32, sizeof *w4), *m = need(c32 / 32, sizeof *m);
    for (u64 r = 0; r < rows16; r++) {
        float scale = 0;
        for (u32 c = 0; c < t->cols; c++)
            w[c] = bits_to_f32(get32(f32 + 4 * ((r / 16 * t->cols + c) * 16 + r % 16)));
        memset(w4, 0, c32 * sizeof *w4);
        memset(m, 0, c32 / 32 * sizeof *m);
        if (r < t->rows) scale = q4_quantize(w, t->cols, w4, m);
        for (u32 c = 0; c < c32; c++)
            CHECK(q4_weight(q4, t->cols, r, c) == w4[c] &&
                      q4_multiplier(q4, rows16, t->cols, r, c / 32) == m[c / 32],
                  "%s, row %llu, column %u", role_names[t->role], (unsigned long long)r, c);
        if (c32 / 32 % 2) CHECK(q4_multiplier(q4, rows16, t->cols, r, c32 / 32) == 0);
        CHECK(q4_scale_bits(q4, rows16, t->cols, r) == f32_to_bits(scale));
    }
    free(w), free(w4), free(m);
    return MEGABYTE_OK;
}

static u8 *aligned_file(const char *path, size_t *size) {
    u8 *read = read_file(path, size), *file = aligned_alloc(64, (*size + 63) / 64 * 64);
    CHECK(file, "out of memory in the test itself");
    memcpy(file, read, *size);
    free(read);
    return file;
}

/* Names and a writer; or of the first family. */
static const struct {
    synthetic y;
    synthetic_writer *write;
} cases[] = {
    {.y = {"q4-two", 2, {8, 4}, {96, 64}, {2, 2}, 2, 40, 2, 256, 0, 1, "F16"}},
    {.y = {"q4-odd", 3, {5, 3, 2}, {50, 33, 17}, {1, 2, 1}, 3, 14, 3, 257, 1, 1, "F32"}},
    {.y = {"q4-wide", 2, {6, 3}, {300, 32}, {1, 1}, 1, 16, 1, 100, 0, 1, "BF16"}},
    {.y = {.name = "q4-mblm"}, .write = synthetic_small_mblm},
    {.y = {.name = "q4-spacebyte"}, .write = synthetic_small_spacebyte},
    {.y = {.name = "q4-bgpt"}, .write = synthetic_small_bgpt},
    {.y = {.name = "q4-paper"}, .write = synthetic_small_paper},
    {.y = {.name = "q4-bytes"}, .write = synthetic_small_bytes},
};

static void conversion(void) {
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char mb[200];
        size_t size;
        name_case("%s", cases[i].y.name);
        if (cases[i].write) cases[i].write(cases[i].y.name, 40 + i);
        else synthetic_write(&cases[i].y, 40 + i);
        u8 *f32 = aligned_file(synthetic_convert(mb, cases[i].y.name, "f32"), &size);
        u8 *q4 = aligned_file(synthetic_convert(mb, cases[i].y.name, "q4"), &size);
        megabyte_model *model = open_model(mb);
        megabyte_info info = describe(model);
        CHECK(!strcmp(info.quantization, "q4"), "'%s'", info.quantization);
        OK(megabyte_model_verify(model, NULL));
        struct comparison x = {f32, q4, HEADER_BYTES + info.n_stages * STAGE_BYTES, 0, 0, 0};
        x.data = get64(f32 + 24);
        CHECK(x.data == get64(q4 + 24));
        each_tensor(&model->sizes, compare_packed, &x);
        CHECK(x.heads == 1 && x.matrices >= 8, "%u q8, %u q4", x.heads, x.matrices);
        CHECK(info.weight_bytes_per_byte < 1.1 * (double)size, "%g bytes of %zu",
              info.weight_bytes_per_byte, size);
        megabyte_model_close(model);
        free(f32), free(q4);
    }
}

/* -------------------------------------------------------------------------------------- kernels */

enum { ROWS = FEW_ROWS, TILES = 5, MOST_K = 300, LD = 320, LDY = 16 * TILES + 16 };
static u8 data[TILES * 16 * LD];
static float bias[16 * TILES], scales[16 * TILES];
static i8 q[ROWS][LD];

/* Rows of q as this instruction set keeps them; what lies beyond may be anything. */
static void put_rows(const struct kernels *k, u32 cols, u32 m, u8 *to) {
    for (u32 r = 0; r < m; r++)
        for (u32 c = 0; c < LD; c++) {
            i8 v = c < cols ? q[r][c] : c < round_up(cols, 16) ? 0 : (i8)(r + c);
            if (k->q_bytes == 1) to[r * LD + c] = (u8)v;
            else ((i16 *)(void *)to)[r * LD + c] = v;
        }
}

static void check_products(const struct kernels *k, const struct matrix *w, u32 tile, u32 tiles,
                           u32 m, int biased, int add) {
    static u64 kept[ROWS * LD / 4];
    static float y[ROWS * LDY], x_scale[ROWS];
    u8 *room = aligned_alloc(64, Q4_ROOM(w->cols) + 64);
    CHECK(room);
    memset(room + Q4_ROOM(w->cols), 0xa5, 64);
    put_rows(k, w->cols, m, (u8 *)kept);
    for (u32 i = 0; i < ROWS * LDY; i++) y[i] = (float)i * 0.125f;
    for (u32 r = 0; r < m; r++) x_scale[r] = 0.01f * (float)(r + 1);
    k->gemm_q4(w, tile, tiles, kept, LD, x_scale, m, y, LDY, biased ? bias : NULL, add, room);
    for (u32 i = 0; i < ROWS * LDY; i++) {
        u32 r = i / LDY, o = i % LDY, row = 16 * tile + o;
        float expected = (float)i * 0.125f, before = expected;
        if (r < m && o < 16 * tiles) {
            i64 sum = 0;
            for (u32 c = 0; c < w->cols; c++)
                sum += q[r][c] * q4_weight(data, w->cols, row, c) *
                       q4_multiplier(data, 16 * TILES, w->cols, row, c / 32);
            volatile float by = x_scale[r] * scales[row];
            volatile float product = (float)sum * by;
            if (biased) product = product + bias[o];
            if (add) product = before + product;
            expected = product;
        }
        CHECK(f32_to_bits(y[i]) == f32_to_bits(expected), "row %u, output %u: %g, not %g", r, o,
              (double)y[i], (double)expected);
    }
    for (u32 i = 0; i < 64; i++) CHECK(room[Q4_ROOM(w->cols) + i] == 0xa5, "written beyond");
    free(room);
}

static void check_unpacked(const struct kernels *k, const struct matrix *w, u32 tile, u32 tiles) {
    u64 k32 = round_up(w->cols, 32);
    u8 *to = need(tiles * 16 * k32 + 1, 1);
    to[tiles * 16 * k32] = 77;
    k->unpack_q4(w, tile, tiles, to);
    for (u32 r = 0; r < 16 * tiles; r++)
        for (u32 c = 0; c < k32; c++) {
            u32 row = 16 * tile + r;
            int expected = 128 + q4_weight(data, w->cols, row, c) *
                                     q4_multiplier(data, 16 * TILES, w->cols, row, c / 32);
            int got = to[r / 16 * 16 * k32 + c / 4 * 64 + r % 16 * 4 + c % 4];
            CHECK(got == expected, "row %u, column %u: %d, not %d", row, c, got, expected);
        }
    CHECK(to[tiles * 16 * k32] == 77, "written beyond");
    free(to);
}

/* gemm_q4 and unpack_q4 of every instruction set, for any bytes that a file may hold and the
 * largest sums. */
static void kernels(void) {
    static const u32 widths[] = {1, 4, 15, 16, 17, 31, 32, 33, 48, 64, 65, 96, 100, 256, MOST_K};
    for (int isa = 1; isa <= MEGABYTE_ISA_NEON_I8MM; isa++) {
        struct kernels k;
        if (!find_kernels((megabyte_isa)isa, &k)) continue;
        for (u64 seed = 1; seed <= 400; seed++) {
            u32 cols = widths[seed % COUNT_OF(widths)], extreme = seed % 4 == 0;
            name_case("%s, %u columns", megabyte_isa_name((megabyte_isa)isa), cols);
            seed_random(seed);
            for (u64 i = 0; i < sizeof data; i++)
                data[i] = (u8)(extreme ? 255 * random_below(2) : random_below(256));
            if (seed % 8 == 0) memset(data, (int)(seed % 16 ? 0xf0 : 0x0f), sizeof data / 2);
            for (u32 i = 0; i < ROWS * LD; i++)
                q[i / LD][i % LD] = (i8)(extreme ? random_below(8) ? 127 : -127
                                                 : (int)random_below(255) - 127);
            for (u32 i = 0; i < 16 * TILES; i++) {
                bias[i] = (float)random_normal();
                scales[i] = (float)random_unit();
            }
            struct matrix w = {.data = data,
                               .multiplier = data + q4_weight_bytes(16 * TILES, cols),
                               .scale = scales,
                               .rows = 16 * TILES,
                               .cols = cols,
                               .tiles = TILES,
                               .type = TYPE_Q4_TILED};
            u32 tile = (u32)random_below(TILES), tiles = 1 + (u32)random_below(TILES - tile);
            check_products(&k, &w, tile, tiles, 1 + (u32)seed % ROWS, (int)random_below(2),
                           (int)random_below(2));
            check_unpacked(&k, &w, tile, tiles);
        }
    }
}

/* The widest matrix that a file may have, with the largest products: no sum overflows. */
static void widest(void) {
    enum { WIDE = MAX_WIDTH };
    u8 *large = need(WIDE * 8 + WIDE / 64 * 16 + 64, 1), *room = aligned_alloc(64, Q4_ROOM(WIDE));
    i16 *x = need(WIDE + 64, sizeof *x);
    float y[16], one[16], x_scale = 1;
    CHECK(room);
    for (int i = 0; i < 16; i++) one[i] = 1;
    memset(large + WIDE * 8, 0xff, WIDE / 64 * 16);
    struct matrix w = {.data = large,
                       .multiplier = large + WIDE * 8,
                       .scale = one,
                       .rows = 16,
                       .cols = WIDE,
                       .tiles = 1,
                       .type = TYPE_Q4_TILED};
    for (int isa = 1; isa <= MEGABYTE_ISA_NEON_I8MM; isa++) {
        struct kernels k;
        if (!find_kernels((megabyte_isa)isa, &k)) continue;
        for (int sign = -1; sign < 2; sign += 2)
            for (int nibble = 0; nibble < 16; nibble += 15) {
                memset(large, nibble * 17, WIDE * 8);
                for (u32 c = 0; c < WIDE; c++)
                    if (k.q_bytes == 1) ((i8 *)x)[c] = (i8)(127 * sign);
                    else x[c] = (i16)(127 * sign);
                k.gemm_q4(&w, 0, 1, x, WIDE, &x_scale, 1, y, 16, NULL, 0, room);
                for (int i = 0; i < 16; i++)
                    CHECK(y[i] == (float)(WIDE * 127 * 15 * sign * (nibble - 8)), "%s: %g",
                          megabyte_isa_name((megabyte_isa)isa), (double)y[i]);
            }
    }
    free(large), free(room), free(x);
}

/* --------------------------------------------------------------------------------- whole models */

enum { BYTES = 150, BESIDE = 20 };

/* The logits after each byte: scored, then stepped alone and beside `beside` others, rewound and
 * saved in between. */
static void check_calls(const megabyte_model *model, megabyte_engine *engine, const float *expected,
                        const u8 *text, size_t v, u32 beside) {
    megabyte_stream *s[BESIDE + 1];
    float *rows = need(BYTES * v, sizeof *rows);
    double bits = 0;
    u8 bytes[BESIDE + 1];
    for (u32 i = 0; i <= beside; i++) s[i] = new_stream(model, engine, 0);
    size_t half = BYTES / 3 + random_below(BYTES / 3);
    OK(megabyte_stream_score(s[0], text, half, &bits, rows));
    OK(megabyte_stream_score(s[0], text + half, BYTES - half, &bits, rows + half * v));
    CHECK(same_floats(rows, expected, BYTES * v), "scored");
    CHECK_LOGITS(s[0], expected + BYTES * v, v, "at the end");
    megabyte_stream_reset(s[0]);
    for (size_t t = 0; t < BYTES; t++) {
        CHECK_LOGITS(s[0], expected + t * v, v, "after %zu bytes", t);
        memset(bytes, text[t], sizeof bytes);
        OK(megabyte_stream_step_batch(s, bytes, beside + 1));
        for (u32 i = 1; i <= beside; i++)
            CHECK_LOGITS(s[i], expected + (t + 1) * v, v, "beside, %u after %zu", i, t);
    }
    free(rows);
    for (u32 i = 0; i <= beside; i++) megabyte_stream_free(s[i]);
}

static void as_expanded(size_t i) {
    char mb[200];
    size_t size, expanded_size;
    u32 expanded;
    name_case("%s", cases[i].y.name);
    snprintf(mb, sizeof mb, "tests/tmp/%s-q4.mb", cases[i].y.name); /* from `conversion` */
    u8 *file = aligned_file(mb, &size);
    megabyte_model *q4 = open_model(mb), *q8;
    megabyte_error error;
    u8 *wide = q4_expand(file, &q4->sizes, &expanded_size, &expanded);
    CHECK(!megabyte_model_open_memory(&q8, wide, expanded_size, NULL, &error), "%s", error.text);
    OK(megabyte_model_verify(q8, NULL));
    CHECK(expanded >= 8 && !strcmp(describe(q8).quantization, "q8"));
    CHECK(memcmp(describe(q8).id, describe(q4).id, 16), "other files have other ids");

    u8 text[BYTES];
    u32 v = describe(q8).vocabulary;
    seed_random(i);
    random_bytes(text, BYTES, v);
    float *expected = score_rows(q8, NULL, 0, text, BYTES);
    for (int isa = 1; isa <= MEGABYTE_ISA_NEON_I8MM; isa++) {
        if (!megabyte_isa_available((megabyte_isa)isa)) continue;
        static const u32 batches[] = {1, 2, 3, 5, 8, 9, 13, 128};
        for (size_t b = 0; b < COUNT_OF(batches); b++) {
            name_case("%s, %s, batch %u", cases[i].y.name, megabyte_isa_name((megabyte_isa)isa),
                      batches[b]);
            counter c = {0}; /* finds what is written past an engine's end */
            megabyte_allocator allocator = counting(&c);
            megabyte_engine_options o = {
                .threads = 1 + b % 3, .batch = batches[b], .isa = (megabyte_isa)isa};
            megabyte_engine *e;
            OK(megabyte_engine_create(&e, q4, &o, &allocator, NULL));
            check_calls(q4, e, expected, text, v, b == 7 ? BESIDE : (u32)b % 3);
            megabyte_engine_free(e);
        }
    }
    free(expected);
    megabyte_model_close(q4);
    megabyte_model_close(q8);
    free(file), free(wide);
}

static void models(void) {
    for (size_t i = 0; i < COUNT_OF(cases); i++) as_expanded(i);
}

/* A type that is not known is refused by name, wherever it stands. */
static void unknown_types(void) {
    size_t size;
    u8 *file = aligned_file("tests/tmp/q4-two-q4.mb", &size);
    u64 from = get64(file + 24), table = HEADER_BYTES + 2 * STAGE_BYTES;
    for (u32 i = 0; i < get32(file + 44); i++) {
        u8 *type = file + table + i * TENSOR_BYTES + 8;
        u32 was = get32(type);
        for (u32 other = was == TYPE_F32 ? TYPE_Q4_TILED : TYPE_Q4_TILED + 1; other < 6; other++) {
            megabyte_model *model;
            megabyte_error error;
            name_case("tensor %u, type %u", i, other);
            put32(type, other);
            sha256(file, 96, file + HEADER_BYTES, from - HEADER_BYTES, file + 96);
            CHECK_STATUS(megabyte_model_open_memory(&model, file, size, NULL, &error),
                         MEGABYTE_ERROR_UNSUPPORTED);
            CHECK(strstr(error.text, "storage type") && strstr(error.text, "update megabyte"),
                  "'%s'", error.text);
        }
        put32(type, was);
    }
    free(file);
}

int main(void) {
    make_tmp();
    GROUP(rule);
    GROUP(conversion);
    GROUP(kernels);
    GROUP(widest);
    GROUP(models);
    GROUP(unknown_types);
    return 0;
}
