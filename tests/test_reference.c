/* test_reference.c - every layer's vectors of the library against tests/reference.h, on random
 * checkpoints.
 *
 * The library traces each row of a batch: first its "input", then what each layer leaves. The row
 * is recognised by its input: the reference's position with the nearest input vector. All that
 * follows must be that position's vectors. */
static void traced(unsigned stage, unsigned layer, const char *point, unsigned long row,
                   const float *x, unsigned long n);
#define MEGABYTE_API static __attribute__((unused))
#define MEGABYTE_TRACE(stage, layer, point, row, x, n) \
    traced((unsigned)(stage), (unsigned)(layer), point, (unsigned long)(row), x, (unsigned long)(n))
#include "../megabyte.c"

#include "reference.h"
#include "synthetic.h"

#define LONGEST 4096 /* rows in a batch */
#define TOLERANCE 4e-6 /* of one vector, relative: about 32 roundings of float */
#define MAX_BYTES 400

struct found {
    int sequence, position;
};

static const ref_model *reference;
static const ref_run *expected;
static struct found place[REF_STAGES][LONGEST];
static uint8_t *visited[REF_STAGES]; /* [sequence][position] */
static double worst;
static char worst_at[100];

static double distance(const float *x, const double *y, int n) {
    double error = 0, norm = 0;
    for (int i = 0; i < n; i++) error += (x[i] - y[i]) * (x[i] - y[i]), norm += y[i] * y[i];
    return sqrt(error / (norm > 0 ? norm : 1));
}

static struct found find(int stage, const float *x) {
    struct found best = {0, 0};
    double nearest = INFINITY;
    for (int i = 0; i < expected->sequences[stage]; i++)
        for (int j = 0; j < expected->positions[stage]; j++) {
            double d = distance(x, ref_vector(expected, reference, stage, 0, i, j),
                                reference->dim[stage]);
            if (d < nearest) nearest = d, best = (struct found){i, j};
        }
    return best;
}

static void traced(unsigned stage, unsigned layer, const char *point, unsigned long row,
                   const float *x, unsigned long n) {
    if (!expected) return;
    int s = (int)stage, output = !strcmp(point, "output"), slot = 0;
    CHECK(s < reference->stages && row < LONGEST && n == (unsigned long)reference->dim[s],
          "stage %u, row %lu, %lu values", stage, row, n);
    struct found *p = &place[s][row];
    if (!strcmp(point, "input")) *p = find(s, x);
    else if (!strcmp(point, "attention")) slot = 1 + 2 * (int)layer;
    else if (!strcmp(point, "feed-forward")) slot = 2 + 2 * (int)layer;
    else CHECK(output, "unknown point '%s'", point), slot = 1 + 2 * reference->depth[s];
    double d = distance(x, ref_vector(expected, reference, s, slot, p->sequence, p->position),
                        (int)n);
    char at[sizeof worst_at];
    snprintf(at, sizeof at, "stage %u, layer %u, %s, sequence %d, position %d", stage, layer, point,
             p->sequence, p->position);
    CHECK(d < TOLERANCE, "%s is off by %g (row %lu of its batch)", at, d, row);
    if (d > worst) worst = d, strcpy(worst_at, at);
    if (output) visited[s][p->sequence * expected->positions[s] + p->position] = 1;
}

/* All positions that a prediction of the bytes depends on have been computed, but for position 0 of
 * the finer stages (constants of the model, which may be computed elsewhere) and what lies behind
 * the last byte. */
static void check_visited(int length) {
    for (int s = 0; s < reference->stages; s++) {
        int n = expected->positions[s] - 1, r = ref_patch(reference, s),
            fine = s + 1 == reference->stages;
        for (int i = 0; i < expected->sequences[s]; i++)
            for (int j = 1; j <= n; j++) {
                int seen = (i * n + j) * r, needed = fine ? seen <= length : j < n && seen < length;
                CHECK(!needed || visited[s][i * (n + 1) + j],
                      "stage %d: sequence %d, position %d is never computed", s, i, j);
            }
    }
}

static void check_row(const float *row, int at, const char *how) {
    double d = distance(row, expected->logits + (size_t)at * (size_t)reference->vocabulary,
                        reference->vocabulary);
    CHECK(d < TOLERANCE, "the logits after %d bytes, %s, are off by %g", at, how, d);
}

static void compare(const synthetic *y, uint64_t seed) {
    char mb[200], path[200];
    ref_model m;
    ref_run run;
    uint8_t bytes[MAX_BYTES];
    int ids[MAX_BYTES], length;
    size_t size;
    name_case("%s", y->name);
    expected = NULL;
    megabyte_model *model = open_model(synthetic_model(mb, y, seed, "f32", NULL));
    snprintf(path, sizeof path, "tests/tmp/%s.json", y->name);
    char *json = (char *)read_file(path, &size);
    snprintf(path, sizeof path, "tests/tmp/%s.safetensors", y->name);
    ref_open(&m, path, json);
    free(json);
    length = m.n[0] * ref_patch(&m, 0);
    if (length > MAX_BYTES) length = MAX_BYTES;
    random_bytes(bytes, (size_t)length, (uint32_t)y->vocabulary);
    int distinct = y->vocabulary < 256 ? y->vocabulary : 256; /* no two inputs alike: see find */
    for (int i = 0; length <= distinct && i < length; i++) bytes[i] = (uint8_t)(i * 37 % distinct);
    for (int i = 0; i < length; i++) ids[i] = bytes[i];
    ref_forward(&run, &m, ids, length, 1);
    megabyte_stream *stream = new_stream(model, NULL, 0); /* computes constants: not compared */
    reference = &m;
    for (int s = 0; s < m.stages; s++)
        visited[s] = need((size_t)(run.sequences[s] * run.positions[s]), 1);
    expected = &run;

    check_row(megabyte_stream_logits(stream), 0, "of an empty stream");
    for (int t = 0; t < length; t++) { /* stepped */
        OK(megabyte_stream_step(stream, bytes[t]));
        if (t + 1 < length) check_row(megabyte_stream_logits(stream), t + 1, "stepped");
    }
    check_visited(length);
    for (int s = 0; s < m.stages; s++)
        memset(visited[s], 0, (size_t)(run.sequences[s] * run.positions[s]));
    megabyte_stream_reset(stream);
    float *rows = need((size_t)length * (size_t)m.vocabulary, sizeof *rows);
    double bits = 0;
    OK(megabyte_stream_score(stream, bytes, (size_t)length, &bits, rows)); /* in one batch */
    for (int t = 0; t < length; t++)
        check_row(rows + (size_t)t * (size_t)m.vocabulary, t, "scored");
    check_visited(length);

    expected = NULL;
    free(rows);
    for (int s = 0; s < m.stages; s++) free(visited[s]);
    megabyte_stream_free(stream);
    megabyte_model_close(model);
    ref_free(&run);
    ref_close(&m);
}

static const synthetic cases[] = {
    {"reference-odd", 2, {9, 4}, {50, 33}, {2, 2}, 3, 18, 4, 256, 0, 1, "F32"},
    {"reference-none", 2, {7, 5}, {33, 50}, {1, 3}, 2, 18, 1, 256, 0, 0, "F32"},
    {"reference-learned", 2, {6, 8}, {40, 24}, {2, 1}, 1, 24, 3, 300, 1, 0, "F32"},
    {"reference-three", 3, {5, 4, 3}, {35, 48, 21}, {2, 1, 2}, 4, 10, 4, 257, 1, 1, "F32"},
    {"reference-four", 4, {3, 3, 2, 4}, {64, 35, 48, 17}, {1, 2, 1, 2}, 2, 18, 3, 256, 0, 1, "F16"},
    {"reference-five",
     5,
     {2, 2, 3, 1, 2},
     {16, 18, 20, 15, 33},
     {1, 1, 1, 1, 1},
     1,
     18,
     1,
     256,
     1,
     1,
     "F32"},
    {"reference-one", 3, {8, 1, 4}, {34, 33, 32}, {1, 2, 1}, 2, 16, 4, 100, 1, 1, "BF16"},
    {"reference-bytes", 2, {40, 1}, {32, 17}, {2, 2}, 2, 18, 3, 256, 0, 1, "F16"},
    {"reference-narrow", 2, {6, 3}, {1, 2}, {1, 1}, 1, 2, 1, 64, 1, 1, "F32"},
    {"reference-long", 2, {100, 4}, {48, 32}, {1, 1}, 2, 16, 2, 256, 0, 1, "BF16"},
};

static void layers_and_logits(void) {
    for (size_t i = 0; i < COUNT_OF(cases); i++) compare(&cases[i], 1000 + i);
}

int main(void) {
    make_tmp();
    GROUP(layers_and_logits);
    printf("  farthest: %.2g at %s\n", worst, worst_at);
    return 0;
}
