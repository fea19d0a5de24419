/* reference.h - the lucidrains MEGABYTE forward pass, slow and plain, in double precision.
 *
 * Independent of megabyte.c: it reads a .safetensors file (F32, F16, BF16) and computes whole sequences
 * without caches, every position of every stage, straight from the published definition. `keep` records
 * every layer.
 *
 * Layout of a run over T ids: K = ceil(T / P) patches. Stage 0 has one sequence of K + 1 positions, each
 * finer stage a sequence of n[s] + 1 positions for every token of the stage above. Position 0 is the start
 * token, position j has seen the tokens 0 to j-1 of its sequence. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REF_STAGES 8

enum ref_rotary {
    REF_STORED,
    REF_RECOMPUTED,
    REF_RECOMPUTED_F32
}; /* where the rotary frequencies come from */

typedef struct ref_model {
    char *header; /* the safetensors file's JSON, and its data */
    unsigned char *data;
    size_t data_size;
    int stages, vocabulary, heads, dim_head;
    int n[REF_STAGES], dim[REF_STAGES], depth[REF_STAGES], ff[REF_STAGES];
    enum ref_rotary rotary;
} ref_model;

/* One run's results. vectors[s] is [slot][sequence][position][dim]: slot 0 the stage's input, 1 + 2 l what
 * layer l's attention left in the residual stream, 2 + 2 l its feed-forward, 1 + 2 depth the normed
 * output. Unless kept, only the last slot is valid (and is slot 0 of the array). */
typedef struct ref_run {
    int patches, kept;
    int sequences[REF_STAGES], positions[REF_STAGES]; /* positions: of one sequence, n + 1 */
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

/* ------------------------------------------------------------------------------------------------- files */

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

/* The numbers after "key": in a JSON text: one number, or a list of them. Returns how many (0: no such
 * key). */
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

/* The shape of tensor `name`; returns its rank, -1 if there is none. */
static int ref_shape(const ref_model *m, const char *name, int shape[2]) {
    double s[2] = { 1, 1 };
    char quoted[160];
    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    const char *p = strstr(m->header, quoted);
    if (!p) return -1;
    int rank = ref_numbers(p, "shape", s, 2);
    if (rank > 2) ref_die("more than two dimensions", name);
    shape[0] = (int)s[0];
    shape[1] = (int)s[1];
    return rank;
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

static const char *ref_name(char *to, const char *format, int a, int b) {
    snprintf(to, 128, format, a, b);
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

/* Sizes come from the names and shapes; `json` tells heads, dim_head and max_seq_len. */
static inline void ref_open(ref_model *m, const char *path, const char *json) {
    char name[128];
    int shape[2];
    double n[REF_STAGES];
    ref_open_file(m, path);
    m->stages = ref_numbers(json, "max_seq_len", n, REF_STAGES);
    m->heads = ref_integer(json, "heads", 8);
    m->dim_head = ref_integer(json, "dim_head", 64);
    if (ref_shape(m, "to_logits.weight", shape) != 2) ref_die("no to_logits", path);
    m->vocabulary = shape[0];
    for (int s = 0; s < m->stages; s++) {
        m->n[s] = (int)n[s];
        if (ref_shape(m, ref_name(name, "start_tokens.%d", s, 0), shape) != 1) ref_die("missing", name);
        m->dim[s] = shape[0];
        while (ref_shape(m, ref_name(name, "transformers.%d.layers.%d.1.1.weight", s, m->depth[s]), shape) ==
               2) {
            m->ff[s] = shape[0];
            m->depth[s]++;
        }
    }
}

static void ref_close(ref_model *m) {
    free(m->header);
    free(m->data);
}

/* ------------------------------------------------------------------------------------------------- maths */

static void ref_linear(double *y, const double *x, const double *w, const double *bias, int rows, int in,
                       int out) {
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < out; o++) {
            double sum = 0;
            for (int i = 0; i < in; i++) sum += x[(size_t)r * in + i] * w[(size_t)o * in + i];
            y[(size_t)r * out + o] = sum + (bias ? bias[o] : 0);
        }
}

static void ref_rms_norm(double *y, const double *x, const double *g, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    double length = sqrt(sum) / sqrt(n);
    for (int i = 0; i < n; i++) y[i] = x[i] / (length > 1e-8 ? length : 1e-8) * g[i];
}

static void ref_layer_norm(double *x, const double *weight, const double *bias, int n) {
    double mean = 0, variance = 0;
    for (int i = 0; i < n; i++) mean += x[i] / n;
    for (int i = 0; i < n; i++) variance += (x[i] - mean) * (x[i] - mean) / n;
    for (int i = 0; i < n; i++) x[i] = (x[i] - mean) / sqrt(variance + 1e-5) * weight[i] + bias[i];
}

/* y = norm(shift(x)) for one sequence: the second half of the channels is delayed by one position. */
static void ref_shift_norm(double *y, const double *x, const double *g, int positions, int dim) {
    double *row = ref_new((size_t)dim, sizeof *row);
    for (int p = 0; p < positions; p++) {
        for (int i = 0; i < dim; i++)
            row[i] = i < (dim + 1) / 2 ? x[(size_t)p * dim + i] : p ? x[(size_t)(p - 1) * dim + i] : 0;
        ref_rms_norm(y + (size_t)p * dim, row, g, dim);
    }
    free(row);
}

static void ref_rotate(double *v, const double *frequency, int position, int dim_head) {
    int half = dim_head / 2;
    for (int i = 0; i < half; i++) {
        double a = v[i], b = v[i + half], angle = position * frequency[i];
        v[i] = a * cos(angle) - b * sin(angle);
        v[i + half] = b * cos(angle) + a * sin(angle);
    }
}

/* out[position][heads * dim_head] for one sequence; q and kv (keys, then values) are projected and not yet
 * rotated. */
static void ref_attend(double *out, double *q, double *kv, const double *frequency, int positions, int heads,
                       int dh) {
    int inner = heads * dh;
    double *weight = ref_new((size_t)positions, sizeof *weight);
    for (int p = 0; frequency && p < positions; p++)
        for (int h = 0; h < heads; h++) {
            ref_rotate(q + (size_t)p * inner + h * dh, frequency, p, dh);
            ref_rotate(kv + (size_t)p * 2 * inner + h * dh, frequency, p, dh);
        }
    for (int h = 0; h < heads; h++)
        for (int p = 0; p < positions; p++) {
            double largest = -INFINITY, sum = 0;
            for (int j = 0; j <= p; j++) {
                double dot = 0;
                for (int i = 0; i < dh; i++)
                    dot += q[(size_t)p * inner + h * dh + i] * kv[(size_t)j * 2 * inner + h * dh + i];
                weight[j] = dot / sqrt(dh);
                if (weight[j] > largest) largest = weight[j];
            }
            for (int j = 0; j <= p; j++) sum += weight[j] = exp(weight[j] - largest);
            for (int i = 0; i < dh; i++) {
                double mix = 0;
                for (int j = 0; j <= p; j++)
                    mix += weight[j] / sum * kv[(size_t)j * 2 * inner + inner + h * dh + i];
                out[(size_t)p * inner + h * dh + i] = mix;
            }
        }
    free(weight);
}

static double *ref_frequencies(const ref_model *m, int s) {
    char name[128];
    int shape[2];
    if (ref_shape(m, ref_name(name, "transformers.%d.rotary_emb.inv_freq", s, 0), shape) < 0) return NULL;
    double *f = ref_tensor(m, name, (size_t)m->dim_head / 2);
    for (int i = 0; i < m->dim_head / 2 && m->rotary != REF_STORED; i++) {
        f[i] = pow(10000, -2.0 * i / m->dim_head);
        if (m->rotary == REF_RECOMPUTED_F32) f[i] = (float)f[i];
    }
    return f;
}

/* The transformer of stage s over all its sequences. x: [sequence][position][dim], the input; the result
 * is the last slot. With `slots` every slot is stored one after the other, the input first. */
static void ref_transformer(const ref_model *m, int s, double *x, int sequences, int positions,
                            double *slots) {
    int dim = m->dim[s], inner = m->heads * m->dim_head, ff = m->ff[s], rows = sequences * positions;
    size_t all = (size_t)rows * dim, one = (size_t)positions * dim;
    char name[128];
    double *y = ref_new(all, sizeof *y), *z = ref_new(all, sizeof *z), *frequency = ref_frequencies(m, s);
    double *q = ref_new((size_t)rows * inner, sizeof *q), *kv = ref_new((size_t)rows * 2 * inner, sizeof *kv);
    double *mixed = ref_new((size_t)rows * inner, sizeof *mixed),
           *hidden = ref_new((size_t)rows * ff, sizeof *hidden);
#define TENSOR(form, count) ref_tensor(m, ref_name(name, "transformers.%d." form, s, l), (size_t)(count))
#define KEEP() (slots ? (void)memcpy(slots, x, all * sizeof *x), (void)(slots += all) : (void)0)
    KEEP();
    for (int l = 0; l < m->depth[s]; l++) {
        double *g = TENSOR("layers.%d.0.norm.g", dim), *wq = TENSOR("layers.%d.0.to_q.weight", inner * dim);
        double *wkv = TENSOR("layers.%d.0.to_kv.weight", 2 * inner * dim);
        double *wo = TENSOR("layers.%d.0.to_out.weight", dim * inner), *fg = TENSOR("layers.%d.1.0.g", dim);
        double *up = TENSOR("layers.%d.1.1.weight", ff * dim), *up_bias = TENSOR("layers.%d.1.1.bias", ff);
        double *down = TENSOR("layers.%d.1.4.weight", dim * ff),
               *down_bias = TENSOR("layers.%d.1.4.bias", dim);
        for (int i = 0; i < sequences; i++) ref_shift_norm(y + i * one, x + i * one, g, positions, dim);
        ref_linear(q, y, wq, NULL, rows, dim, inner);
        ref_linear(kv, y, wkv, NULL, rows, dim, 2 * inner);
        for (int i = 0; i < sequences; i++) {
            size_t at = (size_t)i * positions * inner;
            ref_attend(mixed + at, q + at, kv + 2 * at, frequency, positions, m->heads, m->dim_head);
        }
        ref_linear(z, mixed, wo, NULL, rows, inner, dim);
        for (size_t i = 0; i < all; i++) x[i] += z[i];
        KEEP();
        for (int i = 0; i < sequences; i++) ref_shift_norm(y + i * one, x + i * one, fg, positions, dim);
        ref_linear(hidden, y, up, up_bias, rows, dim, ff);
        for (size_t i = 0; i < (size_t)rows * ff; i++) hidden[i] *= 0.5 * (1 + erf(hidden[i] / sqrt(2)));
        ref_linear(z, hidden, down, down_bias, rows, ff, dim);
        for (size_t i = 0; i < all; i++) x[i] += z[i];
        KEEP();
        double *used[] = { g, wq, wkv, wo, fg, up, up_bias, down, down_bias };
        for (size_t i = 0; i < sizeof used / sizeof *used; i++) free(used[i]);
    }
    double *g = ref_tensor(m, ref_name(name, "transformers.%d.norm.g", s, 0), (size_t)dim);
    for (int r = 0; r < rows; r++) ref_rms_norm(x + (size_t)r * dim, x + (size_t)r * dim, g, dim);
    KEEP();
    double *used[] = { g, y, z, frequency, q, kv, mixed, hidden };
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) free(used[i]);
#undef TENSOR
#undef KEEP
}

/* e[token][dim s] for `tokens` tokens of stage s, each standing for `r` ids. */
static double *ref_embed(const ref_model *m, int s, const int *ids, int tokens, int r) {
    int fine = m->dim[m->stages - 1], dim = m->dim[s], j = m->stages - 1 - s, wide = r * fine;
    char name[128];
    double *table = ref_tensor(m, j ? ref_name(name, "token_embs.%d.0.weight", j, 0) : "token_embs.0.weight",
                               (size_t)m->vocabulary * fine);
    double *flat = ref_new((size_t)tokens * wide, sizeof *flat);
    for (int i = 0; i < tokens * r; i++)
        memcpy(flat + (size_t)i * fine, table + (size_t)ids[i] * fine, (size_t)fine * sizeof *flat);
    free(table);
    if (!j) return flat;
    double *e = ref_new((size_t)tokens * dim, sizeof *e);
#define TENSOR(form, count) ref_tensor(m, ref_name(name, "token_embs.%d." form, j, 0), (size_t)(count))
    double *w2 = TENSOR("2.weight", wide), *b2 = TENSOR("2.bias", wide), *w3 = TENSOR("3.weight", dim * wide);
    double *b3 = TENSOR("3.bias", dim), *w4 = TENSOR("4.weight", dim), *b4 = TENSOR("4.bias", dim);
#undef TENSOR
    for (int i = 0; i < tokens; i++) ref_layer_norm(flat + (size_t)i * wide, w2, b2, wide);
    ref_linear(e, flat, w3, b3, tokens, wide, dim);
    for (int i = 0; i < tokens; i++) ref_layer_norm(e + (size_t)i * dim, w4, b4, dim);
    double *used[] = { flat, w2, b2, w3, b3, w4, b4 };
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) free(used[i]);
    return e;
}

static int ref_patch(const ref_model *m, int s) { /* ids that one token of stage s stands for */
    int r = 1;
    for (int i = s + 1; i < m->stages; i++) r *= m->n[i];
    return r;
}

/* logits[t] predicts ids[t] from ids[0 .. t-1]; T is at most n[0] * P. */
static inline void ref_forward(ref_run *run, const ref_model *m, const int *ids, int T, int keep) {
    char name[128];
    int shape[2], P = ref_patch(m, 0), fine = m->stages - 1;
    memset(run, 0, sizeof *run);
    run->patches = (T + P - 1) / P;
    run->kept = keep;
    int *padded = ref_new((size_t)run->patches * P, sizeof *padded);
    memcpy(padded, ids, (size_t)T * sizeof *ids);
    double *above = NULL; /* [sequence][n][dim]: what the stage above adds */
    for (int s = 0, sequences = 1; s < m->stages; s++) {
        int n = s ? m->n[s] : run->patches, dim = m->dim[s], positions = n + 1;
        double *e = ref_embed(m, s, padded, sequences * n, ref_patch(m, s));
        double *start = ref_tensor(m, ref_name(name, "start_tokens.%d", s, 0), (size_t)dim), *learned = NULL;
        if (ref_shape(m, ref_name(name, "pos_embs.%d.weight", s, 0), shape) == 2)
            learned = ref_tensor(m, name, (size_t)m->n[s] * dim);
        double *x = ref_new((size_t)sequences * positions * dim, sizeof *x), *to = x;
        for (int i = 0; i < sequences; i++)
            for (int j = 0; j < positions; j++)
                for (int c = 0; c < dim; c++, to++) {
                    size_t from = ((size_t)i * n + j - 1) * dim + c;
                    *to = !j ? start[c]
                             : e[from] + (learned ? learned[(j - 1) * dim + c] : 0) +
                                   (above ? above[from] : 0);
                }
        free(e), free(start), free(learned), free(above);
        run->sequences[s] = sequences;
        run->positions[s] = positions;
        double *slots = NULL;
        if (keep) slots = ref_new((size_t)sequences * positions * dim * (2 + 2 * m->depth[s]), sizeof *slots);
        ref_transformer(m, s, x, sequences, positions, slots);
        if (s < fine) {
            int next = m->n[s + 1] * m->dim[s + 1];
            double *w = ref_tensor(m, ref_name(name, "to_next_transformer_projections.%d.1.weight", s, 0),
                                   (size_t)next * dim);
            double *b = ref_tensor(m, ref_name(name, "to_next_transformer_projections.%d.1.bias", s, 0),
                                   (size_t)next);
            above = ref_new((size_t)sequences * n * next, sizeof *above);
            for (int i = 0; i < sequences; i++)
                ref_linear(above + (size_t)i * n * next, x + (size_t)i * positions * dim, w, b, n, dim, next);
            free(w), free(b);
            sequences *= n;
        } else {
            double *w = ref_tensor(m, "to_logits.weight", (size_t)m->vocabulary * dim);
            double *b = ref_tensor(m, "to_logits.bias", (size_t)m->vocabulary);
            run->logits = ref_new((size_t)T * m->vocabulary, sizeof *run->logits);
            for (int t = 0; t < T; t++) {
                int at = t ? (t - 1) / n * positions + (t - 1) % n + 1 : 0;
                ref_linear(run->logits + (size_t)t * m->vocabulary, x + (size_t)at * dim, w, b, 1, dim,
                           m->vocabulary);
            }
            free(w), free(b);
        }
        run->vectors[s] = keep ? slots : x;
        if (keep) free(x);
    }
    free(padded);
}

/* What slot `slot` left at a position of a sequence of stage s: double[dim[s]] (kept runs). */
static inline const double *ref_vector(const ref_run *run, const ref_model *m, int s, int slot, int sequence,
                                       int position) {
    size_t row = ((size_t)slot * run->sequences[s] + sequence) * run->positions[s] + position;
    return run->vectors[s] + row * m->dim[s];
}

static inline void ref_free(ref_run *run) {
    for (int s = 0; s < REF_STAGES; s++) free(run->vectors[s]);
    free(run->logits);
}
#endif
