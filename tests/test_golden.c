/* test_golden.c - logits of the original implementation (run in float64), and one set of bits for
 * every way to them. */
#include "test.h"
#include "reference.h"

#define MEMBERS 5 /* streams stepped together */

typedef struct golden {
    const char *name;
    int sequences, length, vocabulary;
    uint8_t *bytes; /* [sequences][length] */
    double *logits; /* [sequences][length][vocabulary] */
    double bits_per_byte;
    char safetensors[200], json[200];
} golden;

static void golden_load(golden *g, const char *name) {
    char path[200];
    double ids_shape[2], shape[3];
    size_t size;
    g->name = name;
    snprintf(g->safetensors, sizeof g->safetensors, "tests/data/%s.safetensors", name);
    snprintf(g->json, sizeof g->json, "tests/data/%s.json", name);
    snprintf(path, sizeof path, "tests/data/%s.golden.safetensors", name);
    char *text = (char *)read_file(g->json, &size);
    CHECK(ref_numbers(text, "expected_bits_per_byte", &g->bits_per_byte, 1) == 1, "%s", g->json);
    free(text);
    ref_model file;
    ref_open_file(&file, path);
    const char *ids = strstr(file.header, "\"ids\":"), *logits = strstr(file.header, "\"logits\":");
    double at[2];
    CHECK(ids && ref_numbers(ids, "shape", ids_shape, 2) == 2 &&
              ref_numbers(ids, "data_offsets", at, 2) == 2,
          "%s", path);
    CHECK(logits && ref_numbers(logits, "shape", shape, 3) == 3, "%s", path);
    g->sequences = (int)ids_shape[0];
    g->length = (int)ids_shape[1];
    g->vocabulary = (int)shape[2];
    size_t count = (size_t)g->sequences * (size_t)g->length;
    g->bytes = need(count, 1);
    for (size_t i = 0; i < count; i++) {
        const unsigned char *id = file.data + (size_t)at[0] + 4 * i;
        CHECK(!id[1] && !id[2] && !id[3], "%s: id %zu is no byte", path, i);
        g->bytes[i] = id[0];
    }
    g->logits = ref_tensor(&file, "logits", count * (size_t)g->vocabulary);
    ref_close(&file);
}

static double relative_error(const float *x, const double *y, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) error += (x[i] - y[i]) * (x[i] - y[i]), norm += y[i] * y[i];
    return sqrt(error / norm);
}

/* Feeds, steps and batches: the prediction after every call is the row that scoring the whole gave,
 * bit for bit. */
static void every_way(const golden *g, const megabyte_model *model, const uint8_t *bytes,
                      const float *rows) {
    const size_t v = (size_t)g->vocabulary, n = (size_t)g->length, p = describe(model).patch_bytes;
    const size_t pieces[] = {1, 3, p, p + 1};
    megabyte_engine *engine = new_engine(model, 1, 0, MEGABYTE_ISA_AUTO);
    megabyte_stream *member[MEMBERS], *s = new_stream(model, engine, 0);
    CHECK_LOGITS(s, rows, v, "before the first byte");
    for (size_t k = 0; k < COUNT_OF(pieces); k++) {
        megabyte_stream_reset(s);
        for (size_t at = 0; at < n;) {
            size_t take = pieces[k] < n - at ? pieces[k] : n - at;
            OK(megabyte_stream_feed(s, bytes + at, take));
            at += take;
            CHECK_LOGITS(s, rows + at * v, v, "%zu bytes fed in pieces of %zu", at, pieces[k]);
        }
    }
    megabyte_stream_reset(s);
    for (size_t at = 0; at < n; at++) {
        OK(megabyte_stream_step(s, bytes[at]));
        CHECK_LOGITS(s, rows + (at + 1) * v, v, "%zu bytes stepped", at + 1);
    }
    float *scored = need((n + 1) * v, sizeof *scored);
    megabyte_stream_reset(s);
    for (size_t at = 0; at < n; at += 7) {
        double bits = 0;
        OK(megabyte_stream_score(s, bytes + at, n - at < 7 ? n - at : 7, &bits, scored + at * v));
    }
    CHECK(same_floats(scored, rows, n * v), "scored in pieces of 7");
    free(scored);
    megabyte_stream_free(s);

    uint8_t next[MEMBERS];
    for (size_t i = 0; i < MEMBERS; i++) {
        member[i] = new_stream(model, engine, 0);
        OK(megabyte_stream_feed(member[i], bytes,
                                i * (p + 1) % n)); /* at different positions in their patches */
    }
    while (megabyte_stream_position(member[MEMBERS - 1]) < n &&
           megabyte_stream_position(member[1]) < n) {
        for (size_t i = 0; i < MEMBERS; i++) next[i] = bytes[megabyte_stream_position(member[i])];
        OK(megabyte_stream_step_batch(member, next, MEMBERS));
        for (size_t i = 0; i < MEMBERS; i++) {
            uint64_t at = megabyte_stream_position(member[i]);
            CHECK_LOGITS(member[i], rows + at * v, v, "%d bytes, stream %zu of a batch", (int)at,
                         i);
        }
    }
    for (size_t i = 0; i < MEMBERS; i++) megabyte_stream_free(member[i]);
    megabyte_engine_free(engine);
}

/* Every prefix length, each fed at once to an empty stream. */
static void every_prefix(const golden *g, const megabyte_model *model, const uint8_t *bytes,
                         const float *rows) {
    megabyte_stream *s = new_stream(model, NULL, 0);
    for (size_t n = 0; n <= (size_t)g->length; n++) {
        megabyte_stream_reset(s);
        OK(megabyte_stream_feed(s, bytes, n));
        CHECK(megabyte_stream_position(s) == n);
        CHECK_LOGITS(s, rows + n * (size_t)g->vocabulary, (size_t)g->vocabulary,
                     "a prefix of %zu bytes", n);
    }
    megabyte_stream_free(s);
}

static void golden_case(const char *name, const char *quant) {
    golden g;
    char mb[200];
    name_case("%s %s", name, quant);
    golden_load(&g, name);
    megabyte_model *model = open_model(convert(mb, g.safetensors, g.json, name, quant));
    OK(megabyte_model_verify(model, NULL));
    megabyte_info info = describe(model);
    size_t n = (size_t)g.length, v = (size_t)g.vocabulary;
    int f32 = !strcmp(quant, "f32");
    double total = 0, bits;
    CHECK(info.vocabulary == v && n <= info.context_bytes, "%u ids", info.vocabulary);
    for (int i = 0; i < g.sequences; i++) {
        const uint8_t *bytes = g.bytes + (size_t)i * n;
        float *rows = score_rows(model, NULL, 0, bytes, n);
        double error = relative_error(rows, g.logits + (size_t)i * n * v, n * v);
        CHECK(error < (f32 ? 1e-5 : 0.1), "relative error %g", error);
        megabyte_stream *s = new_stream(model, NULL, 0);
        bits = 0;
        OK(megabyte_stream_score(s, bytes, n, &bits, NULL));
        megabyte_stream_free(s);
        total += bits;
        every_way(&g, model, bytes, rows);
        if (n <= 64) every_prefix(&g, model, bytes, rows);
        free(rows);
    }
    bits = total / (double)n / g.sequences;
    CHECK(fabs(bits / g.bits_per_byte - 1) < (f32 ? 1e-5 : 0.02), "%f bits per byte, expected %f",
          bits, g.bits_per_byte);
    megabyte_model_close(model);
    free(g.bytes), free(g.logits);
}

static void golden_files(const char *quant) {
    static const char *const names[] = {"lucid-2stage-nopos", "lucid-2stage-posemb",
                                        "lucid-2stage-rope", "lucid-3stage", "lucid-257tokens"};
    for (size_t i = 0; i < COUNT_OF(names); i++) golden_case(names[i], quant);
}
static void golden_f32(void) { golden_files("f32"); }
static void golden_q8(void) { golden_files("q8"); }

int main(void) {
    make_tmp();
    GROUP(golden_f32);
    GROUP(golden_q8);
    return 0;
}
