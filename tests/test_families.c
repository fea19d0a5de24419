/* test_families.c - the checkpoint families besides lucidrains': tests/reference.h against what the
 * original implementations gave, and against itself where there is none to run. */
#include "reference.h"
#include "synthetic.h"

/* Of all logits of one sequence; the files hold floats. */
#define TOLERANCE 1e-6

static double relative_error(const double *x, const double *y, size_t n) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) error += (x[i] - y[i]) * (x[i] - y[i]), norm += y[i] * y[i];
    return sqrt(error / norm);
}

/* The folder where a checkpoint of the originals is: $MEGABYTE_GOLDEN, if it is there; NULL:
 * nowhere. */
static const char *golden_folder(const char *name) {
    const char *folder = getenv("MEGABYTE_GOLDEN");
    char path[500];
    struct stat s;
    snprintf(path, sizeof path, "%s/%s.safetensors", folder ? folder : "", name);
    return folder && !stat(path, &s) ? folder : NULL;
}

static void open_reference(ref_model *m, const char *folder, const char *name) {
    char path[600];
    size_t size;
    snprintf(path, sizeof path, "%s/%s.json", folder, name);
    char *json = (char *)read_file(path, &size);
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, name);
    ref_open(m, path, json);
    free(json);
}

/* [sequences][T] ids of a golden file; its logits are ref_tensor(file, "logits", ...). */
static int *golden_ids(const ref_model *file, int *sequences, int *length) {
    double shape[2], at[2];
    const char *entry = strstr(file->header, "\"ids\":");
    CHECK(entry && ref_numbers(entry, "shape", shape, 2) == 2 &&
          ref_numbers(entry, "data_offsets", at, 2) == 2);
    *sequences = (int)shape[0];
    *length = (int)shape[1];
    int count = *sequences * *length, *ids = need((size_t)count, sizeof *ids);
    for (int i = 0; i < count; i++) {
        const unsigned char *id = file->data + (size_t)at[0] + 4 * (size_t)i;
        ids[i] = id[0] | id[1] << 8;
    }
    return ids;
}

/* The reference on a checkpoint against the logits in GOLDEN/NAME.golden.safetensors, which has one
 * column of `every`. */
static void golden_case(const char *folder, const char *golden, const char *name,
                        const char *extension, size_t every) {
    char path[600];
    ref_model m, file;
    int sequences, length;
    name_case("%s", name);
    open_reference(&m, folder, name);
    m.extension = extension;
    snprintf(path, sizeof path, "%s/%s.golden.safetensors", golden, name);
    ref_open_file(&file, path);
    int *ids = golden_ids(&file, &sequences, &length);
    size_t v = (size_t)m.vocabulary, columns = (v + every - 1) / every,
           count = (size_t)length * columns;
    double *logits = ref_tensor(&file, "logits", (size_t)sequences * count);
    double *own = need(count, sizeof *own);
    for (int i = 0; i < sequences; i++) {
        ref_run run;
        ref_forward(&run, &m, ids + i * length, length, 1);
        for (size_t j = 0; j < count; j++)
            own[j] = run.logits[j / columns * v + j % columns * every];
        double error = relative_error(own, logits + (size_t)i * count, count);
        if (getenv("SHOW_ERRORS")) printf("\n  %s, sequence %d: %.2g ", name, i, error);
        CHECK(error < TOLERANCE, "sequence %d is off by %g", i, error);
        ref_free(&run);
    }
    free(ids), free(logits), free(own);
    ref_close(&file), ref_close(&m);
}

/* Checkpoints written by the original implementations. */
static void golden_files(void) {
    static const char *const names[] = {
        "lucid-2stage-nopos",  "lucid-2stage-posemb", "lucid-2stage-rope", "lucid-3stage",
        "lucid-257tokens",     "mblm-2stage-fixed",   "mblm-3stage-rope",  "spacebyte-default",
        "spacebyte-rope-gelu", "bgpt-small"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        const char *folder = golden_folder(names[i]);
        if (folder) golden_case(folder, folder, names[i], "txt", 1);
        else printf("(%s is not here) ", names[i]);
    }
}

/* --------------------------------------------------------------------------- random checkpoints */

static const synthetic_mblm mblm_cases[] = {
    {"mblm-one", 1, {40}, {36}, {2}, {2}, {18}, {2}, {1}, {"rope"}, 257, 256, "F32"},
    {"mblm-two",
     2,
     {9, 5},
     {50, 34},
     {1, 2},
     {3, 2},
     {18, 24},
     {3, 1},
     {0, 1},
     {"rope", NULL},
     257,
     256,
     "F32"},
    {"mblm-three",
     3,
     {4, 3, 7},
     {30, 44, 22},
     {1, 2, 1},
     {2, 1, 4},
     {20, 24, 6},
     {2, 4, 1},
     {1, 0, 1},
     {"fixed", "rope", "rope"},
     257,
     256,
     "F16"},
    {"mblm-four",
     4,
     {3, 2, 3, 5},
     {20, 18, 26, 24},
     {1, 1, 1, 2},
     {1, 2, 1, 3},
     {18, 8, 20, 10},
     {2, 1, 2, 2},
     {1, 1, 0, 0},
     {NULL, "rope", "fixed", "rope"},
     300,
     -1,
     "BF16"},
};

static const synthetic_spacebyte spacebyte_cases[] = {
    {"spacebyte-odd",
     5,
     9,
     256,
     255,
     {90, 54},
     {2, 2},
     18,
     3,
     0,
     1,
     1,
     0,
     "LayerNorm",
     "ReLU",
     "simple",
     "F32"},
    {"spacebyte-grouped",
     3,
     12,
     256,
     0,
     {120, 80},
     {1, 2},
     20,
     2,
     2,
     1,
     0,
     1,
     "RMSNorm",
     "SiLU",
     "standard",
     "F32"},
    {"spacebyte-one-group",
     7,
     6,
     250,
     10,
     {168, 72},
     {2, 1},
     24,
     1,
     1,
     0,
     1,
     1,
     "LayerNorm",
     "GELU",
     "muTransfer",
     "F16"},
    {"spacebyte-mu",
     4,
     8,
     257,
     256,
     {36, 54},
     {1, 1},
     18,
     4,
     0,
     0,
     0,
     0,
     "RMSNorm",
     "GELU",
     "muTransfer",
     "F32"},
    {"spacebyte-mu-grouped",
     5,
     5,
     256,
     255,
     {80, 40},
     {1, 1},
     10,
     4,
     4,
     1,
     0,
     1,
     "LayerNorm",
     "SiLU",
     "muTransfer",
     "BF16"},
};

static const synthetic_bgpt bgpt_cases[] = {
    {"bgpt-odd", 5, 9, 54, 3, {2, 2}, "F32"},
    {"bgpt-three", 3, 12, 40, 2, {1, 3}, "F16"},
    {"bgpt-wide", 16, 4, 72, 3, {1, 1}, "BF16"},
};

static const synthetic_paper paper_cases[] = {
    {.name = "paper-plain",
     .patch = 8,
     .patches = 6,
     .vocabulary = 256,
     .dim = {12, 40},
     .depth = {2, 2},
     .heads = {4, 2},
     .kv_heads = {4, 2},
     .dim_head = {24, 20},
     .ff = {200, 90},
     .learned = {1, 1},
     .final_norm = {1, 1},
     .trained = 1,
     .biases = 1,
     .to_local = 1,
     .tied = 1,
     .norm = "LayerNorm",
     .activation = "relu",
     .type = "F32"},
    {.name = "paper-zero",
     .patch = 5,
     .patches = 9,
     .vocabulary = 256,
     .dim = {11, 33},
     .depth = {1, 2},
     .heads = {3, 2},
     .kv_heads = {1, 2},
     .dim_head = {18, 24},
     .ff = {70, 50},
     .learned = {1, 0},
     .final_norm = {0, 1},
     .rope = {0, 1},
     .to_local = 1,
     .biases = 1,
     .norm = "LayerNorm",
     .activation = "gelu",
     .type = "F32"},
    {.name = "paper-convolved",
     .patch = 7,
     .patches = 7,
     .vocabulary = 256,
     .dim = {9, 50},
     .depth = {2, 1},
     .heads = {2, 4},
     .kv_heads = {2, 2},
     .dim_head = {20, 18},
     .ff = {64, 100},
     .rope = {1, 1},
     .learned = {1, 1},
     .final_norm = {1, 0},
     .convs = 3,
     .biases = 1,
     .qk_norm = 1,
     .to_local = 1,
     .norm = "RMSNorm",
     .activation = "gelu_tanh",
     .type = "F16"},
    {.name = "paper-cross",
     .patch = 3,
     .patches = 15,
     .vocabulary = 256,
     .dim = {20, 20},
     .depth = {1, 3},
     .heads = {3, 4},
     .kv_heads = {3, 1},
     .dim_head = {18, 24},
     .ff = {64, 40},
     .rope = {1, 1},
     .final_norm = {1, 1},
     .trained = 1,
     .cross_patch = 2,
     .tied = 1,
     .norm = "LayerNorm",
     .activation = "silu",
     .type = "F32"},
    {.name = "paper-everything",
     .patch = 5,
     .patches = 8,
     .vocabulary = 300,
     .dim = {14, 30},
     .depth = {2, 2},
     .heads = {4, 2},
     .kv_heads = {2, 1},
     .dim_head = {10, 18},
     .ff = {77, 65},
     .rope = {0, 1},
     .learned = {1, 1},
     .final_norm = {1, 1},
     .trained = 1,
     .convs = 2,
     .cross_patch = 5,
     .biases = 1,
     .qk_norm = 1,
     .to_local = 1,
     .tied = 1,
     .norm = "RMSNorm",
     .activation = "relu",
     .type = "BF16"},
};

static void open_synthetic(ref_model *m,
                           const char *name) { /* what a synthetic_write... has written */
    name_case("%s", name);
    open_reference(m, "tests/tmp", name);
}

static int *random_ids(const ref_model *m, int count) {
    int *ids = need((size_t)count, sizeof *ids);
    for (int i = 0; i < count; i++) ids[i] = (int)random_below((size_t)m->vocabulary);
    return ids;
}

/* Logits before a changed byte stay, bit for bit; the one after it changes. Runs of other lengths
 * agree. */
static void check_causal(const ref_model *m) {
    int P = ref_patch(m, 0), length = m->n[0] * P, v = m->vocabulary, *ids = random_ids(m, length);
    const int places[] = {0, 1, P - 1, P, 2 * P - 1, length / 2, length - 2};
    ref_run run, other;
    ref_forward(&run, m, ids, length, 0);
    double norm = 0;
    for (int i = 0; i < length * v; i++) norm += run.logits[i] * run.logits[i];
    norm = sqrt(norm / length / v);
    CHECK(norm > 0.1 && norm < 100, "logits of size %g", norm);
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        int at = places[i], was = ids[at];
        ids[at] = (was + 1) % v;
        ref_forward(&other, m, ids, at + 2, 0);
        ids[at] = was;
        size_t row = (size_t)(at + 1) * (size_t)v;
        CHECK(!memcmp(run.logits, other.logits, row * sizeof(double)),
              "byte %d is seen before it comes", at);
        double d = relative_error(other.logits + row, run.logits + row, (size_t)v);
        CHECK(d > 1e-3, "byte %d does not matter: %g", at, d);
        ref_free(&other);
    }
    ref_free(&run);
    free(ids);
}

/* tests/data/NAME.golden.safetensors has every 7th logit of the checkpoint that synthetic.h writes
 * with the seed given here, computed in float64 by the original program (MBLM, SpaceByte), or by a
 * second one written in torch (bGPT, which agrees with bgpt-small; paper). */
static void check_synthetic(const char *name) {
    ref_model m;
    golden_case("tests/tmp", "tests/data", name, "wav", 7);
    open_synthetic(&m, name);
    m.extension = "wav";
    check_causal(&m);
    ref_close(&m);
}

static void random_mblm(void) {
    for (size_t i = 0; i < COUNT_OF(mblm_cases); i++) {
        synthetic_write_mblm(&mblm_cases[i], 2000 + i);
        check_synthetic(mblm_cases[i].name);
    }
}
static void random_spacebyte(void) {
    for (size_t i = 0; i < COUNT_OF(spacebyte_cases); i++) {
        synthetic_write_spacebyte(&spacebyte_cases[i], 2100 + i);
        check_synthetic(spacebyte_cases[i].name);
    }
}
static void random_bgpt(void) {
    for (size_t i = 0; i < COUNT_OF(bgpt_cases); i++) {
        synthetic_write_bgpt(&bgpt_cases[i], 2200 + i);
        check_synthetic(bgpt_cases[i].name);
    }
}
static void random_paper(void) {
    for (size_t i = 0; i < COUNT_OF(paper_cases); i++) {
        synthetic_write_paper(&paper_cases[i], 2300 + i);
        check_synthetic(paper_cases[i].name);
    }
}

/* ------------------------------------------------------------------ one model, two descriptions */

/* Appends a tensor of these values. rows 0: a vector. */
static void put(synthetic_file *f, const double *values, int rows, int cols, const char *format,
                ...) PRINTF_LIKE(5, 6);
static void put(synthetic_file *f, const double *values, int rows, int cols, const char *format,
                ...) {
    char name[100];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    size_t from = f->data_size, count = (size_t)(rows ? rows : 1) * (size_t)cols;
    for (size_t i = 0; i < count; i++) synthetic_value(f, values[i]);
    synthetic_enter(f, from, rows, cols, 0, name);
}

/* Of each head's rows: 0 2 4 ... 1 3 5 ..., which turns rotation of pairs into rotation of halves.
 * And each key head is repeated for all the query heads that share it. */
static double *unfold(const double *from, int heads, int kv_heads, int dim_head, int cols,
                      int halves) {
    double *to = need((size_t)heads * (size_t)dim_head * (size_t)cols, sizeof *to), *row = to;
    for (int h = 0; h < heads; h++)
        for (int i = 0; i < dim_head; i++, row += cols) {
            int half = dim_head / 2, channel = !halves ? i : i < half ? 2 * i : 2 * (i - half) + 1;
            int at = h / (heads / kv_heads) * dim_head + channel;
            memcpy(row, from + (size_t)at * (size_t)cols, (size_t)cols * sizeof *row);
        }
    return to;
}

/* Writes a SpaceByte checkpoint (with padding) again with the paper's names. */
static void write_as_paper(const ref_model *m, const synthetic_spacebyte *y, const char *name) {
    static const char *const stages[] = {"global", "local"};
    synthetic_file f = {.type = "F32"};
    char args[600], from[128];
    int P = m->n[1], bytes = m->n[0] * P, v = m->vocabulary;
    for (int s = 0; s < 2; s++) {
        const ref_stage *o = &m->stage[s];
        int d = m->dim[s], piece = s ? d : d / P, dh = o->dim_head, rows = s ? P : bytes;
        int halves = o->rope == REF_PAIRS;
        double *table = ref_tensor(m, ref_place(m, s, REF_EMBEDDING), (size_t)v * (size_t)piece);
        double *position = ref_tensor(m, ref_place(m, s, REF_POSITION),
                                      (size_t)rows * (size_t)piece);
        double *pad = ref_tensor(m, ref_place(m, s, REF_PAD), (size_t)d);
        /* a byte has there the position that is P further; those of the pad are not used */
        if (!s) {
            size_t kept = (size_t)(rows - P) * (size_t)piece;
            memmove(position, position + (size_t)P * (size_t)piece, kept * sizeof *position);
        }
        put(&f, table, v, piece, "%s.embedding.weight", stages[s]);
        put(&f, position, rows, piece, "%s.position.weight", stages[s]);
        put(&f, pad, 0, d, "%s.pad", stages[s]);
        free(table), free(position), free(pad);
        for (int l = 0; l < m->depth[s]; l++) {
            ref_layer layer;
            ref_load_layer(&layer, m, s, l);
            double **w = layer.weight;
            double *q = unfold(w[REF_QUERY], o->heads, o->heads, dh, d, halves);
            double *k = unfold(w[REF_KEY], o->heads, layer.kv_heads, dh, d, halves);
            double *values = unfold(w[REF_VALUE], o->heads, layer.kv_heads, dh, d, 0);
            put(&f, w[REF_ATTENTION_NORM], 0, d, "%s.layers.%d.attention_norm.weight", stages[s],
                l);
            put(&f, q, d, d, "%s.layers.%d.query.weight", stages[s], l);
            put(&f, k, d, d, "%s.layers.%d.key.weight", stages[s], l);
            put(&f, values, d, d, "%s.layers.%d.value.weight", stages[s], l);
            put(&f, w[REF_OUTPUT], d, d, "%s.layers.%d.output.weight", stages[s], l);
            put(&f, w[REF_FF_NORM], 0, d, "%s.layers.%d.ff_norm.weight", stages[s], l);
            put(&f, w[REF_UP], layer.ff, d, "%s.layers.%d.up.weight", stages[s], l);
            put(&f, w[REF_DOWN], d, layer.ff, "%s.layers.%d.down.weight", stages[s], l);
            if (w[REF_QUERY_NORM]) {
                double *qn = unfold(w[REF_QUERY_NORM], 1, 1, dh, 1, halves);
                double *kn = unfold(w[REF_KEY_NORM], 1, 1, dh, 1, halves);
                put(&f, qn, 0, dh, "%s.layers.%d.query_norm.weight", stages[s], l);
                put(&f, kn, 0, dh, "%s.layers.%d.key_norm.weight", stages[s], l);
                free(qn), free(kn);
            }
            free(q), free(k), free(values);
            for (int i = 0; i < REF_PARTS; i++) free(layer.weight[i]), free(layer.bias[i]);
        }
    }
    int d = m->dim[1], piece = m->dim[0] / P;
    double *to_local = ref_tensor(m, "global_to_local.weight", (size_t)d * (size_t)piece);
    double *bias = ref_tensor(m, "global_to_local.bias", (size_t)d);
    double *norm = ref_tensor(m, ref_norm_name(m, from, 1), (size_t)d);
    double *logits = ref_slice(m, ref_place(m, 1, REF_LOGITS), 0, v, d, 0);
    put(&f, to_local, d, piece, "global_to_local.weight");
    put(&f, bias, 0, d, "global_to_local.bias");
    put(&f, norm, 0, d, "local.norm.weight");
    put(&f, logits, v, d, "logits.weight");
    free(to_local), free(bias), free(norm), free(logits);
    const char *rope = y->rope ? "true" : "false";
    snprintf(args, sizeof args,
             "\"vocabulary\": %d, \"patch_size\": %d, \"patches\": %d, \"pad\": \"trained\", "
             "\"global_heads\": %d, \"local_heads\": %d, \"activation\": \"%s\", \"norm\": \"%s\", "
             "\"cross_patch\": 0, \"global_rope\": %s, \"local_rope\": %s",
             v, P, m->n[0], m->stage[0].heads, m->stage[1].heads,
             !strcmp(y->activation, "ReLU")   ? "relu"
             : !strcmp(y->activation, "GELU") ? "gelu_tanh"
                                              : "silu",
             y->norm, rope, rope);
    synthetic_finish(&f, name, args);
}

static void spacebyte_as_paper(void) {
    for (size_t i = 0; i < COUNT_OF(spacebyte_cases); i++) {
        synthetic_spacebyte y = spacebyte_cases[i];
        ref_model m, n;
        ref_run run, other;
        y.name = "spacebyte-again";
        y.padding = 1;
        y.init = "simple";
        synthetic_write_spacebyte(&y, 2400 + i);
        open_synthetic(&m, y.name);
        write_as_paper(&m, &y, "spacebyte-as-paper");
        open_synthetic(&n, "spacebyte-as-paper");
        name_case("%s as paper", spacebyte_cases[i].name);
        CHECK(m.family == REF_SPACEBYTE && n.family == REF_PAPER && m.depth[1] == n.depth[1]);
        int length = m.n[0] * m.n[1] - 1, *ids = random_ids(&m, length);
        ref_forward(&run, &m, ids, length, 0);
        ref_forward(&other, &n, ids, length, 0);
        double d = relative_error(other.logits, run.logits, (size_t)length * (size_t)m.vocabulary);
        CHECK(d < (y.rope ? 1e-5 : 1e-12), "off by %g", d); /* the paper's frequencies are floats */
        free(ids);
        ref_free(&run), ref_free(&other);
        ref_close(&m), ref_close(&n);
    }
}

/* A local stage that sees all of the patch before it is one with patches twice as long, as far as
 * two patches go: without a global stage's word, and where byte 0 stands before the second patch as
 * before the first. */
static void cross_patch(void) {
    enum { P = 5, V = 256 };
    ref_model m, n;
    ref_run run, other;
    synthetic_paper y = {.name = "cross-short",
                         .patch = P,
                         .patches = 2,
                         .vocabulary = V,
                         .dim = {4, 30},
                         .depth = {0, 2},
                         .heads = {1, 2},
                         .kv_heads = {1, 1},
                         .dim_head = {4, 18},
                         .ff = {8, 50},
                         .rope = {0, 1},
                         .final_norm = {0, 1},
                         .cross_patch = P,
                         .biases = 1,
                         .to_local = 1,
                         .tied = 1,
                         .norm = "LayerNorm",
                         .activation = "gelu",
                         .type = "F32"};
    for (int i = 0; i < 2; i++, y.patch = 2 * P, y.cross_patch = 0, y.name = "cross-long") {
        synthetic_write_paper(&y, 2500); /* the sizes of all tensors are the same in both */
        open_synthetic(i ? &n : &m, y.name);
    }
    for (int i = 0; i < 2; i++) { /* no word: the global embedding becomes zero */
        ref_model *x = i ? &n : &m;
        double at[2];
        CHECK(ref_numbers(strstr(x->header, "\"global.embedding.weight\""), "data_offsets", at,
                          2) == 2);
        memset(x->data + (size_t)at[0], 0, (size_t)(at[1] - at[0]));
    }
    int ids[2 * P];
    for (int i = 0; i < 2 * P; i++) ids[i] = (int)random_below(V);
    ids[P - 1] = 0;
    name_case("cross-patch attention");
    ref_forward(&run, &m, ids, 2 * P, 0);
    ref_forward(&other, &n, ids, 2 * P, 0);
    double d = relative_error(other.logits, run.logits, (size_t)2 * P * V);
    CHECK(d < 1e-12, "off by %g", d);
    ref_free(&other);
    m.stage[1].behind =
        P - 1; /* position 0 of patch 0 is out of sight: patch 1 changes, patch 0 doesn't */
    ref_forward(&other, &m, ids, 2 * P, 0);
    CHECK(!memcmp(run.logits, other.logits, (size_t)P * V * sizeof(double)));
    d = relative_error(other.logits + (size_t)P * V, run.logits + (size_t)P * V, (size_t)P * V);
    CHECK(d > 1e-3, "%g", d);
    ref_free(&run), ref_free(&other);
    ref_close(&m), ref_close(&n);
}

/* The extension is a patch like any other: cut at the patch's length, seen by every prediction. */
static void extensions(void) {
    static const char *const same[][2] = {
        {"text", "tex"}, {"tex", "tex"}, {"wav", "tex"}, {"", "t"}};
    ref_model m;
    ref_run run, other;
    synthetic_write_bgpt(&bgpt_cases[1], 2600); /* patches of 3 bytes */
    open_synthetic(&m, bgpt_cases[1].name);
    int length = 4, *ids = random_ids(&m, length);
    for (size_t i = 0; i < COUNT_OF(same); i++) {
        m.extension = same[i][0];
        ref_forward(&run, &m, ids, length, 0);
        m.extension = same[i][1];
        ref_forward(&other, &m, ids, length, 0);
        double d = relative_error(other.logits, run.logits, (size_t)m.vocabulary);
        CHECK(i < 2 ? d == 0 : d > 1e-3, "'%s' and '%s': %g", same[i][0], same[i][1], d);
        ref_free(&run), ref_free(&other);
    }
    free(ids);
    ref_close(&m);
}

/* ---------------------------------------------------------------------------------- the library */

static uint32_t score_case(const megabyte_model *model, const char *as, const uint8_t *bytes,
                           size_t n, double *bits, float *logits) {
    megabyte_stream *s = NULL;
    megabyte_error error;
    megabyte_stream_options options = {.file_type = as};
    *bits = 0;
    CHECK(megabyte_stream_create(&s, model, &options, NULL, &error) == MEGABYTE_OK, "%s",
          error.text);
    OK(megabyte_stream_score(s, bytes, n, bits, logits));
    megabyte_stream_free(s);
    return describe(model).vocabulary;
}

/* A whole context through the converter and the library: f32 within 1e-5 of the reference, q8
 * within 1% of its bits per byte. */
static void library_case(const char *name) {
    ref_model m;
    ref_run run;
    char mb[200];
    open_synthetic(&m, name);
    m.extension = "wav";
    const char *as = m.family == REF_BGPT ? "wav" : NULL;
    int length = m.n[0] * ref_patch(&m, 0), v = m.vocabulary, *ids = random_ids(&m, length);
    uint8_t *bytes = need((size_t)length, 1);
    float *logits = need((size_t)(length * v), sizeof *logits);
    double *own = need((size_t)(length * v), sizeof *own), bits, expected = 0;
    for (int i = 0; i < length; i++)
        bytes[i] = (uint8_t)(ids[i] = ids[i] < 256 ? ids[i] : ids[i] - 256);
    ref_forward(&run, &m, ids, length, 0);
    for (int t = 0; t < length; t++) {
        double sum = 0;
        for (int i = 0; i < v; i++) sum += exp(run.logits[t * v + i]);
        expected += log2(sum) - run.logits[t * v + ids[t]] / log(2);
    }
    for (int q8 = 0; q8 < 2; q8++) {
        megabyte_model *model = open_model(synthetic_convert(mb, name, q8 ? "q8" : "f32"));
        CHECK(score_case(model, as, bytes, (size_t)length, &bits, logits) == (uint32_t)v);
        for (int i = 0; i < length * v; i++) own[i] = (double)logits[i];
        double d = relative_error(own, run.logits, (size_t)(length * v));
        if (getenv("SHOW_ERRORS"))
            printf("  %s %s: %.1e, %.4f bits per byte, expected %.4f\n", name, q8 ? "q8" : "f32", d,
                   bits / length, expected / length);
        CHECK(q8 || d < 1e-5, "f32: the logits are off by %g", d);
        CHECK(fabs(bits / expected - 1) < (q8 ? 0.01 : 1e-5), "%f bits, expected %f", bits,
              expected);
        megabyte_model_close(model);
    }
    ref_free(&run);
    ref_close(&m);
    free(ids), free(bytes), free(logits), free(own);
}

static void library(void) {
    for (size_t i = 0; i < COUNT_OF(mblm_cases); i++)
        if (mblm_cases[i].stages > 1)
            library_case(mblm_cases[i].name); /* one stage is no hierarchy */
    for (size_t i = 0; i < COUNT_OF(spacebyte_cases); i++) library_case(spacebyte_cases[i].name);
    for (size_t i = 0; i < COUNT_OF(bgpt_cases); i++) library_case(bgpt_cases[i].name);
    for (size_t i = 0; i < COUNT_OF(paper_cases); i++) library_case(paper_cases[i].name);
}

int main(void) {
    make_tmp();
    GROUP(golden_files);
    GROUP(random_mblm);
    GROUP(random_spacebyte);
    GROUP(random_bgpt);
    GROUP(random_paper);
    GROUP(extensions);
    GROUP(spacebyte_as_paper);
    GROUP(cross_patch);
    GROUP(library);
    return 0;
}
