/* reference.h - the forward pass of every checkpoint family, slow and plain, in double precision.
 *
 * Independent of megabyte.c: it reads a .safetensors file (F32, F16, BF16) and computes whole
 * sequences without caches, every position of every stage, straight from the published definitions.
 * `keep` records every layer.
 *
 *     ref_open(&m, "x.safetensors", text of x.json);     the family is told by the tensors' names
 *     m.extension = "txt";                               bGPT only
 *     ref_forward(&run, &m, ids, T, keep);               run.logits[t] predicts ids[t]
 *     ref_free(&run), ref_close(&m);
 *
 * Layout of a run over T ids: K = ceil(T / P) patches. lucidrains, MBLM: stage 0 has one sequence
 * of K + 1 positions, each finer stage a sequence of n[s] + 1 positions for every token of the
 * stage above. Position 0 is the start token, position j has seen the tokens 0 to j-1 of its
 * sequence. SpaceByte, bGPT, paper: stage 0 has one sequence of K positions, row k having seen the
 * patches before patch k. Stage 1 has K sequences of P positions; position p of sequence k predicts
 * byte k P + p. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REF_STAGES 8

enum ref_family { REF_LUCIDRAINS, REF_MBLM, REF_SPACEBYTE, REF_BGPT, REF_PAPER };

enum ref_rotary {
    REF_STORED,
    REF_RECOMPUTED,
    REF_RECOMPUTED_F32
}; /* where the rotary frequencies come from (lucidrains, MBLM) */

enum ref_norm {
    REF_RMS, /* x / max(rms(x), 1e-8) * weight */
    REF_LAYER_NORM, /* (x - mean) / sqrt(variance + 1e-5) * weight + bias */
    REF_SPREAD /* SpaceByte's "RMSNorm": x / sqrt(variance + 1e-5) * weight; the mean stays */
};

enum ref_activation { REF_RELU, REF_GELU, REF_GELU_TANH, REF_SILU };

enum ref_rope {
    REF_NO_ROPE,
    REF_HALVES, /* channel i is turned with channel i + width / 2 */
    REF_PAIRS /* channel 2 i with channel 2 i + 1 */
};

/* How one stage's transformer computes; the weights' shapes tell the rest. */
typedef struct ref_stage {
    int heads, dim_head;
    int shift; /* half of the channels come from the position before, in front of each norm */
    int behind; /* cross-patch attention: how much of the sequence before is seen */
    int turned; /* MBLM's "rope": the input vectors themselves are rotated */
    enum ref_rope rope; /* of queries and keys */
    enum ref_norm norm;
    enum ref_activation activation;
    double factor; /* of the scores, besides dim_head^-1/2 */
} ref_stage;

typedef struct ref_model {
    char *header; /* the safetensors file's JSON, and its data */
    unsigned char *data;
    size_t data_size;
    enum ref_family family;
    int stages, vocabulary;
    int n[REF_STAGES], dim[REF_STAGES], depth[REF_STAGES];
    ref_stage stage[REF_STAGES];
    enum ref_rotary rotary;
    const char *const *parts; /* the names of a layer's tensors */
    int before; /* SpaceByte: the id that stands before the first byte */
    const char *extension; /* bGPT: the file's, which is patch 0; "" unless set after ref_open */
} ref_model;

/* One run's results. vectors[s] is [slot][sequence][position][dim]: slot 0 the stage's input, 1 + 2
 * l what layer l's attention left in the residual stream, 2 + 2 l its feed-forward, 1 + 2 depth the
 * output (after the final norm, where there is one). Unless kept, only the last slot is valid (and
 * is slot 0 of the array). */
typedef struct ref_run {
    int patches, kept;
    int sequences[REF_STAGES], positions[REF_STAGES]; /* positions: of one sequence */
    double *vectors[REF_STAGES];
    double *logits; /* [T][vocabulary] */
} ref_run;

static void ref_die(const char *what, const char *which) {
    fprintf(stderr, "reference: %s: %s\n", what, which);
    exit(1);
}

static void *ref_new(size_t count, size_t size) {
    void *p = calloc(count ? count : 1, size);
    if (!p) ref_die("out of memory", "calloc");
    return p;
}

/* ---------------------------------------------------------------------------------------- files */

static unsigned char *ref_slurp(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f) ref_die("cannot open", path);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    unsigned char *p = ref_new(*size + 1, 1);
    if (fread(p, 1, *size, f) != *size) ref_die("cannot read", path);
    fclose(f);
    return p;
}

/* The numbers after "key": in a JSON text: one number, or a list of them. Returns how many (0: no
 * such key). */
static int ref_numbers(const char *json, const char *key, double *out, int max) {
    char quoted[160];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *p = strstr(json, quoted);
    if (!p) return 0;
    p += strlen(quoted);
    int list = 0, count = 0;
    for (; *p; p++) {
        if (*p == '[') list = 1;
        else if (*p == ' ' || *p == '\n' || *p == ',') continue;
        else if ((*p >= '0' && *p <= '9') || *p == '-') {
            char *end;
            double v = strtod(p, &end);
            if (count < max) out[count] = v;
            count++;
            p = end - 1;
            if (!list) break;
        } else break;
    }
    return count;
}

static int ref_integer(const char *json, const char *key, int otherwise) {
    double v;
    return ref_numbers(json, key, &v, 1) ? (int)v : otherwise;
}

/* Is the value after "key": this word (a string, true, false or null)? */
static int ref_says(const char *json, const char *key, const char *word) {
    char quoted[160];
    snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *p = strstr(json, quoted);
    if (!p) return 0;
    p += strlen(quoted);
    p += strspn(p, " \n\"");
    return !strncmp(p, word, strlen(word)) && strchr("\" \n,}", p[strlen(word)]);
}

static double ref_half(unsigned h) { /* IEEE binary16 */
    int e = h >> 10 & 31, m = h & 1023;
    double v = e == 0 ? ldexp(m, -24) : e == 31 ? (m ? NAN : INFINITY) : ldexp(m + 1024, e - 25);
    return h & 0x8000 ? -v : v;
}

static double ref_single(uint32_t bits) {
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* The shape of tensor `name`, missing dimensions being 1; returns its rank, -1 if there is none. */
static int ref_shape(const ref_model *m, const char *name, int shape[3]) {
    double s[3] = {1, 1, 1};
    char quoted[160];
    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    const char *p = strstr(m->header, quoted);
    if (!p) return -1;
    int rank = ref_numbers(p, "shape", s, 3);
    if (rank > 3) ref_die("more than three dimensions", name);
    for (int i = 0; i < 3; i++) shape[i] = (int)s[i];
    return rank;
}

static int ref_has(const ref_model *m, const char *name) {
    int shape[3];
    return ref_shape(m, name, shape) >= 0;
}

static int ref_rows(const ref_model *m,
                    const char *name) { /* the first dimension; 0: no such tensor */
    int shape[3];
    return ref_shape(m, name, shape) < 0 ? 0 : shape[0];
}

/* The values of tensor `name`, which must have `count` of them. */
static double *ref_tensor(const ref_model *m, const char *name, size_t count) {
    char quoted[160];
    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    const char *p = strstr(m->header, quoted);
    double at[2];
    if (!p || ref_numbers(p, "data_offsets", at, 2) != 2) ref_die("no such tensor", name);
    const char *type = strstr(p, "\"dtype\":");
    type += strcspn(type + 8, "\"") + 9;
    int wide = !strncmp(type, "F32\"", 4)                                  ? 4
               : !strncmp(type, "F16\"", 4) || !strncmp(type, "BF16\"", 5) ? 2
                                                                           : 0;
    if (!wide) ref_die("unknown type", name);
    if ((size_t)(at[1] - at[0]) != count * (size_t)wide || (size_t)at[1] > m->data_size)
        ref_die("wrong size", name);
    const unsigned char *d = m->data + (size_t)at[0];
    double *out = ref_new(count, sizeof *out);
    for (size_t i = 0; i < count; i++, d += wide) {
        uint32_t low = (uint32_t)d[0] | (uint32_t)d[1] << 8;
        if (wide == 4) out[i] = ref_single(low | (uint32_t)d[2] << 16 | (uint32_t)d[3] << 24);
        else out[i] = *type == 'B' ? ref_single(low << 16) : ref_half(low);
    }
    return out;
}

static double *ref_optional(const ref_model *m, const char *name, size_t count) { /* NULL: none */
    return ref_has(m, name) ? ref_tensor(m, name, count) : NULL;
}

/* Rows first .. first + rows - 1 of a matrix of `cols` columns (of a vector, if 1), which is stored
 * transposed if `across`; NULL if there is no such tensor. */
static double *ref_slice(const ref_model *m, const char *name, int first, int rows, int cols,
                         int across) {
    int shape[3];
    if (ref_shape(m, name, shape) < 0) return NULL;
    int all = across ? shape[1] : shape[0];
    if (first + rows > all || (across ? shape[0] : shape[1]) != cols) ref_die("wrong shape", name);
    double *from = ref_tensor(m, name, (size_t)all * cols),
           *to = ref_new((size_t)rows * cols, sizeof *to);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            to[(size_t)r * cols + c] = across ? from[(size_t)c * all + first + r]
                                              : from[(size_t)(first + r) * cols + c];
    free(from);
    return to;
}

static const char *ref_name(char to[128], const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(to, 128, format, args);
    va_end(args);
    return to;
}

/* A safetensors file's header and data, sizes not yet known. */
static void ref_open_file(ref_model *m, const char *path) {
    size_t size, header = 0;
    unsigned char *file = ref_slurp(path, &size);
    for (int i = 0; i < 8; i++) header |= (size_t)file[i] << 8 * i;
    memset(m, 0, sizeof *m);
    m->header = ref_new(header + 1, 1);
    memcpy(m->header, file + 8, header);
    m->data_size = size - 8 - header;
    m->data = ref_new(m->data_size, 1);
    memcpy(m->data, file + 8 + header, m->data_size);
    free(file);
}

/* ----------------------------------------------------------------------------- families' naming */

enum { /* a layer's tensors */
       REF_ATTENTION_NORM,
       REF_QUERY,
       REF_KEY,
       REF_VALUE,
       REF_QUERY_NORM,
       REF_KEY_NORM,
       REF_OUTPUT,
       REF_FF_NORM,
       REF_UP,
       REF_DOWN,
       REF_PARTS
};

/* Behind the layer's prefix. Where a name repeats, one tensor holds the rows of both, one after the
 * other. A name in ".weight" may have a bias beside it. */
static const char *const ref_lucidrains_parts[REF_PARTS] = {
    "0.norm.g", "0.to_q.weight",   "0.to_kv.weight", "0.to_kv.weight", NULL,
    NULL,       "0.to_out.weight", "1.0.g",          "1.1.weight",     "1.4.weight"};
static const char *const ref_spacebyte_parts[REF_PARTS] = {
    "attention.layer_norm.scale",  "attention.QKV_linear.weight",  "attention.QKV_linear.weight",
    "attention.QKV_linear.weight", "attention.Q_layer_norm.scale", "attention.K_layer_norm.scale",
    "attention.linear.weight",     "feedforward.layer_norm.scale", "feedforward.linear_1.weight",
    "feedforward.linear_2.weight"};
static const char *const ref_grouped_parts[REF_PARTS] = {
    "attention.layer_norm.scale", "attention.Q_linear.weight",    "attention.KV_linear.weight",
    "attention.KV_linear.weight", "attention.Q_layer_norm.scale", "attention.K_layer_norm.scale",
    "attention.linear.weight",    "feedforward.layer_norm.scale", "feedforward.linear_1.weight",
    "feedforward.linear_2.weight"};
static const char *const ref_bgpt_parts[REF_PARTS] = {"ln_1.weight",
                                                      "attn.c_attn.weight",
                                                      "attn.c_attn.weight",
                                                      "attn.c_attn.weight",
                                                      NULL,
                                                      NULL,
                                                      "attn.c_proj.weight",
                                                      "ln_2.weight",
                                                      "mlp.c_fc.weight",
                                                      "mlp.c_proj.weight"};
static const char *const ref_paper_parts[REF_PARTS] = {
    "attention_norm.weight", "query.weight",  "key.weight",     "value.weight", "query_norm.weight",
    "key_norm.weight",       "output.weight", "ff_norm.weight", "up.weight",    "down.weight"};

static const char *ref_layer_name(const ref_model *m, char to[128], int s, int l,
                                  const char *part) {
    static const char *const bgpt[] = {"patch_level_decoder.base",
                                       "byte_level_decoder.base.transformer"};
    const char *range = s ? "local" : "global";
    switch (m->family) {
    case REF_LUCIDRAINS: return ref_name(to, "transformers.%d.layers.%d.%s", s, l, part);
    case REF_MBLM: return ref_name(to, "stage_models.%d.layers.%d.%s", s, l, part);
    case REF_SPACEBYTE: return ref_name(to, "%s_blocks.%d.%s", range, l, part);
    case REF_BGPT: return ref_name(to, "%s.h.%d.%s", bgpt[s], l, part);
    case REF_PAPER: return ref_name(to, "%s.layers.%d.%s", range, l, part);
    }
    return NULL;
}

/* The final norm's weight; the file may lack it. */
static const char *ref_norm_name(const ref_model *m, char to[128], int s) {
    switch (m->family) {
    case REF_LUCIDRAINS: return ref_name(to, "transformers.%d.norm.g", s);
    case REF_MBLM: return ref_name(to, "stage_models.%d.norm.g", s);
    case REF_SPACEBYTE: return ref_name(to, s ? "logits.layer_norm.scale" : "none");
    case REF_BGPT:
        return ref_name(to, "%s.ln_f.weight",
                        s ? "byte_level_decoder.base.transformer" : "patch_level_decoder.base");
    case REF_PAPER: return ref_name(to, "%s.norm.weight", s ? "local" : "global");
    }
    return NULL;
}

/* "x.weight" becomes "x.bias"; other names have no bias. */
static const char *ref_bias_name(char to[128], const char *weight) {
    size_t stem = strlen(weight) > 7 ? strlen(weight) - 7 : 0;
    if (strcmp(weight + stem, ".weight")) return "none";
    return ref_name(to, "%.*s.bias", (int)stem, weight);
}

/* What the patch families call their other tensors. */
enum {
    REF_EMBEDDING,
    REF_POSITION,
    REF_PAD, /* of both stages, the global's first */
    REF_TO_LOCAL = 6,
    REF_LOGITS,
    REF_PLACES
};
static const char *const ref_places[][REF_PLACES] = {
    [REF_SPACEBYTE] = {"global_token_embedding.weight", "global_position_encoding", "global_pad",
                       "local_token_embedding.weight", "local_position_encoding", "local_pad",
                       "global_to_local.weight", "logits.logits_linear.weight"},
    [REF_BGPT] = {"patch_level_decoder.patch_embedding.weight",
                  "patch_level_decoder.base.wpe.weight", "none",
                  "byte_level_decoder.base.transformer.wte.weight",
                  "byte_level_decoder.base.transformer.wpe.weight", "none", "none",
                  "byte_level_decoder.base.lm_head.weight"},
    [REF_PAPER] = {"global.embedding.weight", "global.position.weight", "global.pad",
                   "local.embedding.weight", "local.position.weight", "local.pad",
                   "global_to_local.weight", "logits.weight"},
};

static const char *ref_place(const ref_model *m, int s, int what) { /* s: 1 for the local stage's */
    return ref_places[m->family][what + (what < REF_TO_LOCAL ? 3 * s : 0)];
}

/* -------------------------------------------------------------------------------------- opening */

/* The s-th object of "block": (the only one, if it is no list); free() it. */
static char *ref_block(const char *json, int s) {
    const char *p = strstr(json, "\"block\":");
    if (!p) ref_die("no block", "json");
    p += strlen("\"block\":");
    p += strspn(p, " \n");
    if (*p != '[') s = 0;
    for (p = strchr(p, '{'); p && s > 0; s--) p = strchr(p + 1, '{');
    if (!p || !strchr(p, '}')) ref_die("too few blocks", "json");
    size_t size = (size_t)(strchr(p, '}') - p);
    char *block = ref_new(size + 1, 1);
    memcpy(block, p, size);
    return block;
}

static void ref_open_stages(ref_model *m, const char *json) { /* lucidrains, MBLM */
    char name[128];
    double n[REF_STAGES];
    int mblm = m->family == REF_MBLM;
    m->parts = ref_lucidrains_parts;
    m->stages = ref_numbers(json, mblm ? "seq_lens" : "max_seq_len", n, REF_STAGES);
    m->vocabulary = ref_rows(m, "to_logits.weight");
    for (int s = 0; s < m->stages; s++) {
        ref_stage *o = &m->stage[s];
        char *own = mblm ? ref_block(json, s) : NULL;
        m->n[s] = (int)n[s];
        m->dim[s] = ref_rows(m, ref_name(name, "start_tokens.%d", s));
        if (!m->dim[s]) ref_die("missing", name);
        o->heads = mblm ? ref_integer(own, "attn_num_heads", 0) : ref_integer(json, "heads", 8);
        o->dim_head = mblm ? ref_integer(own, "attn_head_dims", 0)
                           : ref_integer(json, "dim_head", 64);
        o->turned = mblm && ref_says(own, "pos_emb_type", "rope");
        o->shift = 1;
        o->norm = REF_RMS;
        o->activation = REF_GELU;
        ref_name(name, "%s.%d.rotary_emb.inv_freq", mblm ? "stage_models" : "transformers", s);
        o->rope = ref_has(m, name) ? REF_HALVES : REF_NO_ROPE;
        free(own);
    }
}

static void ref_open_patches(ref_model *m, const char *json) { /* SpaceByte, bGPT, paper */
    char name[128];
    int shape[3], table = ref_rows(m, ref_place(m, 0, REF_POSITION));
    m->stages = 2;
    m->extension = "";
    m->vocabulary = ref_rows(m, ref_place(m, 1, REF_EMBEDDING));
    for (int s = 0; s < 2; s++)
        if (ref_shape(m, ref_place(m, s, REF_EMBEDDING), shape) == 2) m->dim[s] = shape[1];
    if (m->family == REF_BGPT) {
        m->dim[0] = m->dim[1];
        m->n[1] = ref_rows(m, ref_place(m, 1, REF_POSITION)) - 1;
        m->n[0] = table;
        m->parts = ref_bgpt_parts;
    } else if (m->family == REF_SPACEBYTE) {
        m->n[1] = ref_rows(m, ref_place(m, 1, REF_POSITION));
        m->n[0] = table / m->n[1];
        m->before = ref_integer(json, "BOS", 0);
        ref_layer_name(m, name, 0, 0, ref_spacebyte_parts[REF_QUERY]);
        m->parts = ref_has(m, name) ? ref_spacebyte_parts : ref_grouped_parts;
        if (ref_integer(json, "attention_window", 0)) ref_die("not written", "attention_window");
    } else {
        m->n[1] = ref_integer(json, "patch_size", 0);
        m->n[0] = ref_integer(json, "patches", 0);
        m->parts = ref_paper_parts;
    }
    if (m->family != REF_BGPT) m->dim[0] *= m->n[1];
    int tanh_form = ref_says(json, "activation", "gelu_tanh") ||
                    ref_says(json, "nonlinear", "GELU");
    for (int s = 0; s < 2; s++) {
        ref_stage *o = &m->stage[s];
        o->norm = ref_says(json, m->family == REF_PAPER ? "norm" : "layer_norm", "RMSNorm")
                      ? REF_SPREAD
                      : REF_LAYER_NORM;
        o->activation = m->family == REF_BGPT || tanh_form     ? REF_GELU_TANH
                        : ref_says(json, "activation", "gelu") ? REF_GELU
                        : ref_says(json, "activation", "silu") ||
                                ref_says(json, "nonlinear", "SiLU")
                            ? REF_SILU
                            : REF_RELU;
        if (m->family == REF_PAPER) {
            o->heads = ref_integer(json, s ? "local_heads" : "global_heads", 0);
            ref_layer_name(m, name, s, 0, m->parts[REF_QUERY]);
            o->dim_head = o->heads ? ref_rows(m, name) / o->heads : 0;
            o->rope = ref_says(json, s ? "local_rope" : "global_rope", "true") ? REF_HALVES
                                                                               : REF_NO_ROPE;
            if (s) o->behind = ref_integer(json, "cross_patch", 0);
        } else if (m->family == REF_SPACEBYTE) {
            o->dim_head = ref_integer(json, "d_key", 64);
            o->heads = m->dim[s] / o->dim_head;
            o->rope = ref_says(json, "rope", "true") ? REF_PAIRS : REF_NO_ROPE;
        } else {
            o->heads = ref_integer(json, "n_head", m->dim[s] / 64);
            o->dim_head = m->dim[s] / o->heads;
        }
    }
    ref_layer_name(m, name, 0, 0, ref_spacebyte_parts[REF_QUERY_NORM]);
    if (ref_says(json, "init", "muTransfer") && !ref_has(m, name))
        for (int s = 0; s < 2; s++) m->stage[s].factor = pow(m->stage[s].dim_head, -0.5);
}

/* Sizes come from the names and shapes; `json` (the constructor's arguments) tells what they
 * can't. */
static inline void ref_open(ref_model *m, const char *path, const char *json) {
    char name[128];
    ref_open_file(m, path);
    m->family = ref_has(m, "token_embs_rev.0.weight")                  ? REF_MBLM
                : ref_has(m, "start_tokens.0")                         ? REF_LUCIDRAINS
                : ref_has(m, ref_places[REF_SPACEBYTE][REF_EMBEDDING]) ? REF_SPACEBYTE
                : ref_has(m, ref_places[REF_BGPT][REF_EMBEDDING])      ? REF_BGPT
                                                                       : REF_PAPER;
    for (int s = 0; s < REF_STAGES; s++) m->stage[s].factor = 1;
    if (m->family <= REF_MBLM) ref_open_stages(m, json);
    else ref_open_patches(m, json);
    if (!m->vocabulary) ref_die("no vocabulary", path);
    for (int s = 0; s < m->stages; s++) {
        while (ref_has(m, ref_layer_name(m, name, s, m->depth[s], m->parts[REF_UP]))) m->depth[s]++;
        if (!m->n[s] || (m->depth[s] && (!m->stage[s].heads || !m->stage[s].dim_head)))
            ref_die("sizes are missing", path);
    }
}

static void ref_close(ref_model *m) {
    free(m->header);
    free(m->data);
}

/* ---------------------------------------------------------------------------------------- maths */

static void ref_linear(double *y, const double *x, const double *w, const double *bias, int rows,
                       int in, int out) {
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            double sum = 0;
            for (int i = 0; i < in; i++) sum += x[(size_t)r * in + i] * w[(size_t)o * in + i];
            y[(size_t)r * out + o] = sum + (bias ? bias[o] : 0);
        }
}

static void ref_normalise(enum ref_norm kind, double *y, const double *x, const double *weight,
                          const double *bias, int n) { /* y may be x */
    double mean = 0, squares = 0, variance = 0;
    for (int i = 0; i < n; i++) mean += x[i] / n, squares += x[i] * x[i];
    for (int i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / n;
    double length = sqrt(squares) / sqrt(n), spread = sqrt(variance + 1e-5);
    for (int i = 0; i < n; i++) {
        if (kind == REF_RMS) y[i] = x[i] / (length > 1e-8 ? length : 1e-8);
        else y[i] = (x[i] - (kind == REF_LAYER_NORM ? mean : 0)) / spread;
        y[i] = y[i] * weight[i] + (bias ? bias[i] : 0);
    }
}

static double ref_activate(enum ref_activation kind, double x) {
    switch (kind) {
    case REF_RELU: return x > 0 ? x : 0;
    case REF_GELU: return x * 0.5 * (1 + erf(x / sqrt(2)));
    case REF_GELU_TANH:
        return x * 0.5 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    case REF_SILU: return x / (1 + exp(-x));
    }
    return NAN;
}

static void ref_rotate(enum ref_rope form, double *v, const double *frequency, int position,
                       int width) {
    int half = width / 2;
    for (int i = 0; i < half; i++) {
        double *a = form == REF_PAIRS ? v + 2 * i : v + i,
               *b = form == REF_PAIRS ? a + 1 : a + half;
        double x = *a, y = *b, angle = position * frequency[i];
        *a = x * cos(angle) - y * sin(angle);
        *b = y * cos(angle) + x * sin(angle);
    }
}

static double *ref_new_frequencies(int width) {
    double *f = ref_new((size_t)width / 2, sizeof *f);
    for (int i = 0; i < width / 2; i++) f[i] = pow(10000, -2.0 * i / width);
    return f;
}

static double *ref_frequencies(const ref_model *m, int s) {
    char name[128];
    int dim_head = m->stage[s].dim_head, single = m->family == REF_PAPER;
    if (!m->stage[s].rope) return NULL;
    if (m->family <= REF_MBLM) {
        ref_name(name, "%s.%d.rotary_emb.inv_freq",
                 m->family == REF_MBLM ? "stage_models" : "transformers", s);
        if (m->rotary == REF_STORED) return ref_tensor(m, name, (size_t)dim_head / 2);
        single = m->rotary == REF_RECOMPUTED_F32;
    }
    double *f = ref_new_frequencies(dim_head);
    for (int i = 0; single && i < dim_head / 2; i++) f[i] = (float)f[i];
    return f;
}

/* --------------------------------------------------------------------------------- transformers */

typedef struct ref_layer { /* biases and the norms of queries and keys may be NULL */
    double *weight[REF_PARTS], *bias[REF_PARTS];
    int kv_heads, ff;
} ref_layer;

static int ref_same(const char *a, const char *b) { return !strcmp(a, b); }

static void ref_load_layer(ref_layer *y, const ref_model *m, int s, int l) {
    const char *const *part = m->parts;
    const ref_stage *o = &m->stage[s];
    char name[128], bias[128];
    int dim = m->dim[s], inner = o->heads * o->dim_head, across = m->family == REF_BGPT, shape[3];
    int after_query = ref_same(part[REF_KEY], part[REF_QUERY]) ? inner
                                                               : 0; /* the first row of the keys */
    int shared = ref_same(part[REF_VALUE], part[REF_KEY]);
    memset(y, 0, sizeof *y);
    if (ref_shape(m, ref_layer_name(m, name, s, l, part[REF_KEY]), shape) < 0)
        ref_die("missing", name);
    int kv = (shape[across] - after_query) / (shared ? 2 : 1);
    if (ref_shape(m, ref_layer_name(m, name, s, l, part[REF_UP]), shape) < 0)
        ref_die("missing", name);
    y->ff = shape[across];
    y->kv_heads = kv / o->dim_head;
    if (y->kv_heads < 1 || kv % o->dim_head || o->heads % y->kv_heads) ref_die("odd heads", name);
    const struct {
        int first, rows, cols;
    } size[REF_PARTS] = {
        [REF_ATTENTION_NORM] = {0, dim, 1},
        [REF_QUERY] = {0, inner, dim},
        [REF_KEY] = {after_query, kv, dim},
        [REF_VALUE] = {shared ? after_query + kv : 0, kv, dim},
        [REF_QUERY_NORM] = {0, o->dim_head, 1},
        [REF_KEY_NORM] = {0, o->dim_head, 1},
        [REF_OUTPUT] = {0, dim, inner},
        [REF_FF_NORM] = {0, dim, 1},
        [REF_UP] = {0, y->ff, dim},
        [REF_DOWN] = {0, dim, y->ff},
    };
    for (int i = 0; i < REF_PARTS; i++) {
        int optional = i == REF_QUERY_NORM || i == REF_KEY_NORM;
        int norm = optional || i == REF_ATTENTION_NORM || i == REF_FF_NORM;
        if (!part[i]) continue;
        ref_layer_name(m, name, s, l, part[i]);
        y->weight[i] = ref_slice(m, name, size[i].first, size[i].rows, size[i].cols,
                                 across && !norm);
        if (!y->weight[i] && !optional) ref_die("missing", name);
        y->bias[i] = ref_slice(m, ref_bias_name(bias, name), size[i].first, size[i].rows, 1, 0);
    }
}

/* y = norm(shift(x)) of rows sequences * positions; a shift delays the second half of the channels
 * by one position. */
static void ref_norm_rows(const ref_stage *o, double *y, const double *x, const double *weight,
                          const double *bias, int sequences, int positions, int dim) {
    double *row = ref_new((size_t)dim, sizeof *row);
    for (int r = 0; r < sequences * positions; r++) {
        const double *here = x + (size_t)r * dim;
        for (int i = 0; i < dim; i++)
            row[i] = !o->shift || i < (dim + 1) / 2 ? here[i] : r % positions ? here[i - dim] : 0;
        ref_normalise(o->norm, y + (size_t)r * dim, row, weight, bias, dim);
    }
    free(row);
}

/* Norms (if weight) and rotates (if frequency) each head of queries or keys. */
static void ref_prepare_heads(const ref_stage *o, double *v, int heads, const double *weight,
                              const double *bias, const double *frequency, int sequences,
                              int positions) {
    int dh = o->dim_head;
    for (int r = 0; r < sequences * positions; r++)
        for (int h = 0; h < heads; h++) {
            double *head = v + ((size_t)r * heads + h) * dh;
            if (weight) ref_normalise(o->norm, head, head, weight, bias, dh);
            /* across patches positions must go on counting; elsewhere it would make no
             * difference */
            if (frequency) ref_rotate(o->rope, head, frequency, o->behind ? r : r % positions, dh);
        }
}

/* out[row][heads * dim_head]: what every position takes from the positions up to itself of its
 * sequence, and from the last `behind` of the one before. Several query heads may share a key
 * head. */
static void ref_attend(const ref_stage *o, double *out, const double *q, const double *k,
                       const double *v, int kv_heads, int sequences, int positions) {
    int dh = o->dim_head, rows = sequences * positions;
    double *weight = ref_new((size_t)rows, sizeof *weight);
    for (int r = 0; r < rows; r++)
        for (int h = 0; h < o->heads; h++) {
            int first = r - r % positions, from = h / (o->heads / kv_heads);
            if (first) first -= o->behind;
            const double *query = q + ((size_t)r * o->heads + h) * dh;
            double largest = -INFINITY, sum = 0;
            for (int j = first; j <= r; j++) {
                const double *key = k + ((size_t)j * kv_heads + from) * dh;
                double dot = 0;
                for (int i = 0; i < dh; i++) dot += query[i] * key[i];
                weight[j] = dot / sqrt(dh) * o->factor;
                if (weight[j] > largest) largest = weight[j];
            }
            for (int j = first; j <= r; j++) sum += weight[j] = exp(weight[j] - largest);
            for (int i = 0; i < dh; i++) {
                double mix = 0;
                for (int j = first; j <= r; j++)
                    mix += weight[j] / sum * v[((size_t)j * kv_heads + from) * dh + i];
                out[((size_t)r * o->heads + h) * dh + i] = mix;
            }
        }
    free(weight);
}

/* The transformer of stage s over all its sequences. x: [sequence][position][dim], the input;
 * the result is the last slot. With `slots` every slot is stored one after the other, the input
 * first. */
static void ref_transformer(const ref_model *m, int s, double *x, int sequences, int positions,
                            double *slots) {
    const ref_stage *o = &m->stage[s];
    int dim = m->dim[s], inner = o->heads * o->dim_head, rows = sequences * positions;
    size_t all = (size_t)rows * dim, wide = (size_t)rows * inner;
    char name[128], bias_name[128];
    double *y = ref_new(all, sizeof *y), *z = ref_new(all, sizeof *z),
           *frequency = ref_frequencies(m, s);
    double *q = ref_new(wide, sizeof *q), *k = ref_new(wide, sizeof *k),
           *v = ref_new(wide, sizeof *v);
    double *mixed = ref_new(wide, sizeof *mixed);
#define BOTH(part) layer.weight[part], layer.bias[part]
#define KEEP() (slots ? (void)memcpy(slots, x, all * sizeof *x), (void)(slots += all) : (void)0)
    KEEP();
    for (int l = 0; l < m->depth[s]; l++) {
        ref_layer layer;
        ref_load_layer(&layer, m, s, l);
        int kv = layer.kv_heads * o->dim_head, ff = layer.ff;
        ref_norm_rows(o, y, x, BOTH(REF_ATTENTION_NORM), sequences, positions, dim);
        ref_linear(q, y, BOTH(REF_QUERY), rows, dim, inner);
        ref_linear(k, y, BOTH(REF_KEY), rows, dim, kv);
        ref_linear(v, y, BOTH(REF_VALUE), rows, dim, kv);
        ref_prepare_heads(o, q, o->heads, BOTH(REF_QUERY_NORM), frequency, sequences, positions);
        ref_prepare_heads(o, k, layer.kv_heads, BOTH(REF_KEY_NORM), frequency, sequences,
                          positions);
        ref_attend(o, mixed, q, k, v, layer.kv_heads, sequences, positions);
        ref_linear(z, mixed, BOTH(REF_OUTPUT), rows, inner, dim);
        for (size_t i = 0; i < all; i++) x[i] += z[i];
        KEEP();
        double *hidden = ref_new((size_t)rows * ff, sizeof *hidden);
        ref_norm_rows(o, y, x, BOTH(REF_FF_NORM), sequences, positions, dim);
        ref_linear(hidden, y, BOTH(REF_UP), rows, dim, ff);
        for (size_t i = 0; i < (size_t)rows * ff; i++)
            hidden[i] = ref_activate(o->activation, hidden[i]);
        ref_linear(z, hidden, BOTH(REF_DOWN), rows, ff, dim);
        for (size_t i = 0; i < all; i++) x[i] += z[i];
        KEEP();
        free(hidden);
        for (int i = 0; i < REF_PARTS; i++) free(layer.weight[i]), free(layer.bias[i]);
    }
    double *weight = ref_optional(m, ref_norm_name(m, name, s), (size_t)dim);
    double *bias = ref_optional(m, ref_bias_name(bias_name, name), (size_t)dim);
    for (int r = 0; weight && r < rows; r++)
        ref_normalise(o->norm, x + (size_t)r * dim, x + (size_t)r * dim, weight, bias, dim);
    KEEP();
    double *used[] = {weight, bias, y, z, frequency, q, k, v, mixed};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) free(used[i]);
#undef BOTH
#undef KEEP
}

/* Runs stage s on x (which it takes), keeps what is to be kept, returns the output [row][dim]. */
static const double *ref_run_stage(ref_run *run, const ref_model *m, int s, double *x,
                                   int sequences, int positions) {
    size_t all = (size_t)sequences * positions * m->dim[s];
    int slots = 2 + 2 * m->depth[s];
    run->sequences[s] = sequences;
    run->positions[s] = positions;
    run->vectors[s] = run->kept ? ref_new(all * slots, sizeof *x) : x;
    ref_transformer(m, s, x, sequences, positions, run->kept ? run->vectors[s] : NULL);
    if (run->kept) free(x);
    return run->vectors[s] + (run->kept ? all * (slots - 1) : 0);
}

/* -------------------------------------------------------------------------- lucidrains and MBLM */

/* e[token][dim s] for `tokens` tokens of stage s, each standing for `r` ids. */
static double *ref_embed(const ref_model *m, int s, const int *ids, int tokens, int r) {
    const char *family = m->family == REF_MBLM ? "token_embs_rev" : "token_embs";
    int fine = m->dim[m->stages - 1], dim = m->dim[s], j = m->stages - 1 - s, wide = r * fine;
    char name[128];
    ref_name(name, j ? "%s.%d.0.weight" : "%s.%d.weight", family, j);
    double *table = ref_tensor(m, name, (size_t)m->vocabulary * fine);
    double *flat = ref_new((size_t)tokens * wide, sizeof *flat);
    for (int i = 0; i < tokens * r; i++)
        memcpy(flat + (size_t)i * fine, table + (size_t)ids[i] * fine, (size_t)fine * sizeof *flat);
    free(table);
    if (!j) return flat;
    double *e = ref_new((size_t)tokens * dim, sizeof *e);
#define TENSOR(part, count) ref_tensor(m, ref_name(name, "%s.%d." part, family, j), (size_t)(count))
    double *w2 = TENSOR("2.weight", wide), *b2 = TENSOR("2.bias", wide),
           *w3 = TENSOR("3.weight", dim * wide);
    double *b3 = TENSOR("3.bias", dim), *w4 = TENSOR("4.weight", dim), *b4 = TENSOR("4.bias", dim);
#undef TENSOR
    for (int i = 0; i < tokens; i++)
        ref_normalise(REF_LAYER_NORM, flat + (size_t)i * wide, flat + (size_t)i * wide, w2, b2,
                      wide);
    ref_linear(e, flat, w3, b3, tokens, wide, dim);
    for (int i = 0; i < tokens; i++)
        ref_normalise(REF_LAYER_NORM, e + (size_t)i * dim, e + (size_t)i * dim, w4, b4, dim);
    double *used[] = {flat, w2, b2, w3, b3, w4, b4};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) free(used[i]);
    return e;
}

static int ref_patch(const ref_model *m, int s) { /* ids that one token of stage s stands for */
    int r = 1;
    for (int i = s + 1; i < m->stages; i++) r *= m->n[i];
    return r;
}

static void ref_forward_stages(ref_run *run, const ref_model *m, const int *padded, int T) {
    const char *projection = m->family == REF_MBLM ? "to_next_stage_proj.%d.1.%s"
                                                   : "to_next_transformer_projections.%d.1.%s";
    char name[128];
    double *above = NULL; /* [sequence][n][dim]: what the stage above adds */
    for (int s = 0, sequences = 1; s < m->stages; s++) {
        int n = s ? m->n[s] : run->patches, dim = m->dim[s], positions = n + 1;
        double *e = ref_embed(m, s, padded, sequences * n, ref_patch(m, s));
        double *start = ref_tensor(m, ref_name(name, "start_tokens.%d", s), (size_t)dim);
        double *learned = ref_optional(m, ref_name(name, "pos_embs.%d.weight", s),
                                       (size_t)m->n[s] * dim);
        double *turn = ref_new_frequencies(dim);
        for (int i = 0; m->stage[s].turned && i < sequences * n; i++)
            ref_rotate(REF_PAIRS, e + (size_t)i * dim, turn, i % n, dim);
        double *x = ref_new((size_t)sequences * positions * dim, sizeof *x), *to = x;
        for (int i = 0; i < sequences; i++)
            for (int j = 0; j < positions; j++)
                for (int c = 0; c < dim; c++, to++) {
                    size_t from = ((size_t)i * n + j - 1) * dim + c;
                    *to = !j ? start[c]
                             : e[from] + (learned ? learned[(j - 1) * dim + c] : 0) +
                                   (above ? above[from] : 0);
                }
        free(e), free(start), free(learned), free(turn), free(above);
        const double *out = ref_run_stage(run, m, s, x, sequences, positions);
        if (s < m->stages - 1) {
            int next = m->n[s + 1] * m->dim[s + 1];
            double *w = ref_tensor(m, ref_name(name, projection, s, "weight"), (size_t)next * dim);
            double *b = ref_tensor(m, ref_name(name, projection, s, "bias"), (size_t)next);
            above = ref_new((size_t)sequences * n * next, sizeof *above);
            for (int i = 0; i < sequences; i++)
                ref_linear(above + (size_t)i * n * next, out + (size_t)i * positions * dim, w, b, n,
                           dim, next);
            free(w), free(b);
            sequences *= n;
        } else {
            double *w = ref_tensor(m, "to_logits.weight", (size_t)m->vocabulary * dim);
            double *b = ref_tensor(m, "to_logits.bias", (size_t)m->vocabulary);
            for (int t = 0; t < T; t++) {
                int at = t ? (t - 1) / n * positions + (t - 1) % n + 1 : 0;
                ref_linear(run->logits + (size_t)t * m->vocabulary, out + (size_t)at * dim, w, b, 1,
                           dim, m->vocabulary);
            }
            free(w), free(b);
        }
    }
}

/* -------------------------------------------------------------------- SpaceByte, bGPT and paper */

/* The paper's convolutional encoder, in place on h[count][width]: y_t = b + sum of W[.][.][k-1-j]
 * h_{t-j}, nothing standing before the first byte. */
static void ref_convolve(const ref_model *m, double *h, int count, int width) {
    char name[128], bias[128];
    int shape[3];
    for (int c = 0; ref_shape(m, ref_name(name, "global.conv.%d.weight", c), shape) == 3; c++) {
        int taps = shape[2];
        double *w = ref_tensor(m, name, (size_t)width * width * taps);
        double *b = ref_optional(m, ref_bias_name(bias, name), (size_t)width);
        for (int t = count - 1; t >= 0; t--) { /* backwards: what is before is still the input */
            double *y = ref_new((size_t)width, sizeof *y);
            for (int o = 0; o < width; o++) {
                y[o] = b ? b[o] : 0;
                for (int j = 0; j < taps && j <= t; j++)
                    for (int i = 0; i < width; i++)
                        y[o] += w[((size_t)o * width + i) * taps + taps - 1 - j] *
                                h[(size_t)(t - j) * width + i];
            }
            memcpy(h + (size_t)t * width, y, (size_t)width * sizeof *y);
            free(y);
        }
        free(w), free(b);
    }
}

/* h[count][width]: embedded ids plus their positions from 0 (as far as there are any),
 * convolved. */
static void ref_embed_bytes(const ref_model *m, int s, double *h, const int *ids, int count,
                            int width) {
    double *table = ref_tensor(m, ref_place(m, s, REF_EMBEDDING), (size_t)m->vocabulary * width);
    int rows = ref_rows(m, ref_place(m, s, REF_POSITION));
    double *position = ref_optional(m, ref_place(m, s, REF_POSITION), (size_t)rows * width);
    for (int t = 0; t < count; t++)
        for (int c = 0; c < width; c++)
            h[(size_t)t * width + c] = table[(size_t)ids[t] * width + c] +
                                       (position ? position[(size_t)t * width + c] : 0);
    if (!s) ref_convolve(m, h, count, width);
    free(table), free(position);
}

/* The global stage's input. Row k is made of patch k - 1, ids[-P .. -1] being what stands before
 * the first byte. */
static double *ref_patch_rows(const ref_model *m, const int *ids, int patches) {
    int P = m->n[1], dim = m->dim[0], V = m->vocabulary;
    double *x = ref_new((size_t)patches * dim, sizeof *x);
    double *pad = ref_optional(m, ref_place(m, 0, REF_PAD), (size_t)dim);
    if (m->family == REF_SPACEBYTE) { /* positions count from the pad on */
        ref_embed_bytes(m, 0, x, ids - P, patches * P, dim / P);
    } else if (m->family ==
               REF_PAPER) { /* positions are the bytes' own; the pad has those of patch 0 */
        ref_embed_bytes(m, 0, x, ids - P, P, dim / P);
        ref_embed_bytes(m, 0, x + dim, ids, (patches - 1) * P, dim / P);
    } else { /* bGPT: one column for every byte at every place */
        char bias[128];
        const char *weight = ref_place(m, 0, REF_EMBEDDING);
        double *w = ref_tensor(m, weight, (size_t)dim * P * V);
        double *b = ref_tensor(m, ref_bias_name(bias, weight), (size_t)dim);
        double *position = ref_tensor(m, ref_place(m, 0, REF_POSITION), (size_t)m->n[0] * dim);
        for (int k = 0; k < patches; k++)
            for (int c = 0; c < dim; c++) {
                double sum = b[c] + position[(size_t)k * dim + c];
                for (int p = 0; p < P; p++)
                    sum += w[((size_t)c * P + p) * V + ids[(k - 1) * P + p]];
                x[(size_t)k * dim + c] = sum;
            }
        free(w), free(b), free(position);
    }
    if (pad) memcpy(x, pad, (size_t)dim * sizeof *x);
    free(pad);
    return x;
}

/* The local stage's input: the byte before, its place in the patch, and the global stage's word on
 * it. */
static double *ref_byte_rows(const ref_model *m, const int *ids, int patches,
                             const double *global) {
    int P = m->n[1], dim = m->dim[1], piece = m->dim[0] / P;
    double *x = ref_new((size_t)patches * P * dim, sizeof *x);
    double *pad = ref_optional(m, ref_place(m, 1, REF_PAD), (size_t)dim);
    for (int k = 0; k < patches; k++) {
        double *row = x + (size_t)k * P * dim;
        ref_embed_bytes(m, 1, row, ids + k * P - 1, P, dim);
        if (m->family == REF_PAPER)
            ref_embed_bytes(m, 1, row, &m->before, 1, dim); /* never the byte itself */
        if (pad) memcpy(row, pad, (size_t)dim * sizeof *x);
    }
    free(pad);
    if (m->family == REF_BGPT) { /* one global vector in place of the first embedding */
        double *position = ref_tensor(m, ref_place(m, 1, REF_POSITION), (size_t)(P + 1) * dim);
        for (int k = 0; k < patches; k++)
            for (int c = 0; c < dim; c++)
                x[(size_t)k * P * dim + c] = global[(size_t)k * dim + c] + position[c];
        free(position);
        return x;
    }
    char bias[128];
    const char *weight = ref_place(m, 1, REF_TO_LOCAL);
    double *w = ref_optional(m, weight, (size_t)dim * piece);
    double *b = ref_optional(m, ref_bias_name(bias, weight), (size_t)dim);
    double *down = ref_new((size_t)patches * P * dim, sizeof *down);
    if (w) ref_linear(down, global, w, b, patches * P, piece, dim);
    else if (piece != dim) ref_die("missing", weight);
    for (size_t i = 0; i < (size_t)patches * P * dim; i++) x[i] += w ? down[i] : global[i];
    free(w), free(b), free(down);
    return x;
}

static void ref_forward_patches(ref_run *run, const ref_model *m, const int *ids, int T) {
    int K = run->patches, dim = m->dim[1], V = m->vocabulary;
    const double *out = ref_run_stage(run, m, 0, ref_patch_rows(m, ids, K), 1, K);
    out = ref_run_stage(run, m, 1, ref_byte_rows(m, ids, K, out), K, m->n[1]);
    char bias[128];
    const char *weight = ref_place(m, 1, REF_LOGITS);
    double *b = ref_optional(m, ref_bias_name(bias, weight), (size_t)V);
    double *w = ref_slice(m, weight, 0, V, dim,
                          0); /* there may be more rows, to a multiple of 64 */
    if (!w) w = ref_tensor(m, ref_place(m, 1, REF_EMBEDDING), (size_t)V * dim); /* tied */
    ref_linear(run->logits, out, w, b, T, dim, V);
    free(w), free(b);
}

/* -------------------------------------------------------------------------------------- running */

/* logits[t] predicts ids[t] from ids[0 .. t-1]; T is at most n[0] * P. */
static inline void ref_forward(ref_run *run, const ref_model *m, const int *ids, int T, int keep) {
    int P = ref_patch(m, 0);
    memset(run, 0, sizeof *run);
    run->patches = (T + P - 1) / P;
    run->kept = keep;
    run->logits = ref_new((size_t)T * m->vocabulary, sizeof *run->logits);
    int *padded = ref_new((size_t)(run->patches + 1) * P,
                          sizeof *padded); /* a patch before, the rest behind */
    for (int p = 0; p < P; p++) padded[p] = m->before;
    if (m->family == REF_BGPT) {
        size_t given = strlen(m->extension);
        for (int p = 0; p < P; p++)
            padded[p] = (size_t)p < given ? (unsigned char)m->extension[p] : m->vocabulary - 1;
    }
    memcpy(padded + P, ids, (size_t)T * sizeof *ids);
    if (m->family <= REF_MBLM) ref_forward_stages(run, m, padded + P, T);
    else ref_forward_patches(run, m, padded + P, T);
    free(padded);
}

/* What slot `slot` left at a position of a sequence of stage s: double[dim[s]] (kept runs). */
static inline const double *ref_vector(const ref_run *run, const ref_model *m, int s, int slot,
                                       int sequence, int position) {
    size_t row = ((size_t)slot * run->sequences[s] + sequence) * run->positions[s] + position;
    return run->vectors[s] + row * m->dim[s];
}

static inline void ref_free(ref_run *run) {
    for (int s = 0; s < REF_STAGES; s++) free(run->vectors[s]);
    free(run->logits);
}
#endif
