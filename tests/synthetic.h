/* synthetic.h - random checkpoints of every family, with its tensor names, written as .safetensors
 * and .json. */
#ifndef SYNTHETIC_H
#define SYNTHETIC_H

#include "test.h"

#define SYNTHETIC_STAGES 8

typedef struct synthetic { /* lucidrains */
    const char *name;
    int stages, n[SYNTHETIC_STAGES], dim[SYNTHETIC_STAGES], depth[SYNTHETIC_STAGES];
    int heads, dim_head, ff_mult, vocabulary;
    int learned, rotary;
    const char *type; /* "F32", "F16", "BF16" */
} synthetic;

typedef struct synthetic_mblm {
    const char *name;
    int stages, n[SYNTHETIC_STAGES], dim[SYNTHETIC_STAGES], depth[SYNTHETIC_STAGES];
    int heads[SYNTHETIC_STAGES], dim_head[SYNTHETIC_STAGES], ff_mult[SYNTHETIC_STAGES];
    int rotary[SYNTHETIC_STAGES];
    const char *position[SYNTHETIC_STAGES]; /* "fixed", "rope", NULL: none */
    int vocabulary, pad; /* the pad's embeddings are zero; -1: none is */
    const char *type;
} synthetic_mblm;

/* In the next three, [2] is the global and the local stage. */
typedef struct synthetic_spacebyte {
    const char *name;
    int patch, patches, vocabulary, bos;
    int dim[2], depth[2], d_key, ff_mult; /* d_key divides both dims, patch dim[0] */
    int groups; /* key heads, of both stages; 0: as many as queries */
    int padding, qk_norm, rope;
    const char *norm; /* "LayerNorm", "RMSNorm" */
    const char *activation; /* "ReLU", "GELU", "SiLU" */
    const char *init; /* "simple", "standard", "muTransfer" */
    const char *type;
} synthetic_spacebyte;

typedef struct synthetic_bgpt {
    const char *name;
    int patch, patches, dim, heads, depth[2];
    const char *type;
} synthetic_bgpt;

typedef struct synthetic_paper {
    const char *name;
    int patch, patches, vocabulary;
    int dim[2]; /* of the global stage: per byte */
    int depth[2], heads[2], kv_heads[2], dim_head[2], ff[2];
    int rope[2], learned[2], final_norm[2];
    int trained; /* pads; 0: "pad" is "zero" */
    int convs; /* the first of the widths 3, 5, 7, 4, ... */
    int cross_patch; /* positions, needs rope[1] */
    int biases, qk_norm, to_local, tied;
    const char *norm; /* "LayerNorm", "RMSNorm" */
    const char *activation; /* "relu", "gelu", "gelu_tanh", "silu" */
    const char *type;
} synthetic_paper;

/* A file under construction: the JSON header and the data, both growing. */
typedef struct synthetic_file {
    const char *type;
    char *header;
    uint8_t *data;
    size_t header_size, data_size, data_room;
    uint64_t parameters;
} synthetic_file;

static uint32_t float_bits(double v) {
    float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

static uint32_t half_bits(double v) { /* towards zero */
    uint32_t sign = v < 0 ? 0x8000 : 0;
    double a = fabs(v);
    int e;
    if (a >= 65504) return sign | 0x7bff;
    if (a < 0x1p-14) return sign | (uint32_t)(a * 0x1p24);
    frexp(a, &e); /* a = m * 2^e, 0.5 <= m < 1 */
    return sign | (uint32_t)(e + 14) << 10 | ((uint32_t)ldexp(a, 11 - e) & 1023);
}

static void synthetic_grow(synthetic_file *f, size_t more) {
    while (f->data_size + more > f->data_room)
        CHECK((f->data = realloc(f->data, f->data_room = 2 * f->data_room + 4096)),
              "out of memory");
}

static void synthetic_value(synthetic_file *f, double v) {
    size_t wide = f->type[1] == '3' ? 4 : 2;
    uint32_t bits = f->type[0] == 'B' ? float_bits(v) >> 16
                    : wide == 2       ? half_bits(v)
                                      : float_bits(v);
    synthetic_grow(f, wide);
    for (size_t b = 0; b < wide; b++) f->data[f->data_size++] = (uint8_t)(bits >> 8 * b);
}

/* Enters the tensor whose values have been appended from `from` on. rows 0: a vector of cols; depth
 * 0: a matrix. */
static void synthetic_enter(synthetic_file *f, size_t from, int rows, int cols, int depth,
                            const char *name) {
    char shape[40];
    if (depth) snprintf(shape, sizeof shape, "%d,%d,%d", rows, cols, depth);
    else if (rows) snprintf(shape, sizeof shape, "%d,%d", rows, cols);
    else snprintf(shape, sizeof shape, "%d", cols);
    CHECK((f->header = realloc(f->header, f->header_size + 400)), "out of memory");
    f->header_size +=
        (size_t)sprintf(f->header + f->header_size,
                        "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                        f->header_size ? "," : "{", name, f->type, shape, from, f->data_size);
}

/* Random values for synthetic_enter: mean + deviation * normal, some of them tiny. */
static size_t synthetic_random(synthetic_file *f, size_t count, double mean, double deviation) {
    size_t from = f->data_size;
    f->parameters += count;
    for (size_t i = 0; i < count; i++) {
        double v = mean + deviation * random_normal();
        if (random_below(32) == 0) v *= 1e-6;
        synthetic_value(f, v);
    }
    return from;
}

/* Appends a tensor of rows x cols (rows 0: a vector of cols) of random values. */
static void synthetic_tensor(synthetic_file *f, int rows, int cols, double mean, double deviation,
                             const char *format, ...) PRINTF_LIKE(6, 7);
static void synthetic_tensor(synthetic_file *f, int rows, int cols, double mean, double deviation,
                             const char *format, ...) {
    char name[100];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    size_t count = (size_t)(rows ? rows : 1) * (size_t)cols;
    synthetic_enter(f, synthetic_random(f, count, mean, deviation), rows, cols, 0, name);
}

/* Rotary frequencies: the usual ones, rounded to the file's type. */
static void synthetic_rotary(synthetic_file *f, const char *stages, int stage, int dim_head) {
    char name[100];
    size_t from = f->data_size; /* a buffer, no parameters; drawn all the same, as it always was */
    for (int i = 0; i < dim_head / 2; i++) random_normal(), random_below(32);
    for (int i = 0; i < dim_head / 2; i++) synthetic_value(f, pow(10000, -2.0 * i / dim_head));
    snprintf(name, sizeof name, "%s.%d.rotary_emb.inv_freq", stages, stage);
    synthetic_enter(f, from, 0, dim_head / 2, 0, name);
}

static void synthetic_list(char *to, const int *values, int n) {
    for (int i = 0; i < n; i++) to += sprintf(to, "%s%d", i ? ", " : "", values[i]);
}

/* Writes tests/tmp/NAME.safetensors, and .json with these constructor arguments; returns the number
 * of weights. */
static uint64_t synthetic_finish(synthetic_file *f, const char *name, const char *args) {
    char path[200], json[2000];
    CHECK((f->header = realloc(f->header, f->header_size + 16)), "out of memory");
    f->header_size += (size_t)sprintf(f->header + f->header_size, "}");
    while (f->header_size % 8) f->header[f->header_size++] = ' ';
    uint8_t *all = need(8 + f->header_size + f->data_size, 1);
    for (int b = 0; b < 8; b++) all[b] = (uint8_t)((uint64_t)f->header_size >> 8 * b);
    memcpy(all + 8, f->header, f->header_size);
    memcpy(all + 8 + f->header_size, f->data, f->data_size);
    snprintf(path, sizeof path, "tests/tmp/%s.safetensors", name);
    write_file(path, all, 8 + f->header_size + f->data_size);
    free(all), free(f->header), free(f->data);

    int n = snprintf(json, sizeof json, "{\"source\": \"tests/synthetic.h\", \"args\": {%s}}\n",
                     args);
    CHECK(n > 0 && n < (int)sizeof json, "arguments too long");
    snprintf(path, sizeof path, "tests/tmp/%s.json", name);
    write_file(path, json, strlen(json));
    return f->parameters;
}

/* Zeroes the pad's row of the embedding just appended. */
static void synthetic_zero_pad(synthetic_file *f, const synthetic_mblm *y) {
    size_t row = (size_t)y->dim[y->stages - 1] * (f->type[1] == '3' ? 4 : 2);
    if (y->pad >= 0)
        memset(f->data + f->data_size - (size_t)(y->vocabulary - y->pad) * row, 0, row);
}

/* The tensors of lucidrains' and MBLM's checkpoints, which differ in three names. */
static void synthetic_stages(synthetic_file *f, const synthetic_mblm *y, int mblm) {
    const char *embeddings = mblm ? "token_embs_rev" : "token_embs";
    const char *models = mblm ? "stage_models" : "transformers";
    const char *projections = mblm ? "to_next_stage_proj" : "to_next_transformer_projections";
    int fine = y->dim[y->stages - 1], wide = fine, v = y->vocabulary;
    synthetic_tensor(f, v, fine, 0, 1, "%s.0.weight", embeddings);
    synthetic_zero_pad(f, y);
    for (int s = y->stages - 1; s >= 0; s--) {
        int d = y->dim[s], ff = d * y->ff_mult[s], j = y->stages - 1 - s;
        int inner = y->heads[s] * y->dim_head[s];
        synthetic_tensor(f, 0, d, 0, 1, "start_tokens.%d", s);
        if (y->position[s] && !strcmp(y->position[s], "fixed"))
            synthetic_tensor(f, y->n[s], d, 0, 0.5, "pos_embs.%d.weight", s);
        if (j) {
            wide *= y->n[s + 1];
            synthetic_tensor(f, v, fine, 0, 1, "%s.%d.0.weight", embeddings, j);
            synthetic_zero_pad(f, y);
            synthetic_tensor(f, 0, wide, 1, 0.2, "%s.%d.2.weight", embeddings, j);
            synthetic_tensor(f, 0, wide, 0, 0.2, "%s.%d.2.bias", embeddings, j);
            synthetic_tensor(f, d, wide, 0, 1 / sqrt(wide), "%s.%d.3.weight", embeddings, j);
            synthetic_tensor(f, 0, d, 0, 0.2, "%s.%d.3.bias", embeddings, j);
            synthetic_tensor(f, 0, d, 1, 0.2, "%s.%d.4.weight", embeddings, j);
            synthetic_tensor(f, 0, d, 0, 0.2, "%s.%d.4.bias", embeddings, j);
        }
        for (int l = 0; l < y->depth[s]; l++) {
            char at[60];
            snprintf(at, sizeof at, "%s.%d.layers.%d", models, s, l);
            synthetic_tensor(f, 0, d, 1, 0.2, "%s.0.norm.g", at);
            synthetic_tensor(f, inner, d, 0, 1.5 / sqrt(d), "%s.0.to_q.weight", at);
            synthetic_tensor(f, 2 * inner, d, 0, 1.5 / sqrt(d), "%s.0.to_kv.weight", at);
            synthetic_tensor(f, d, inner, 0, 1 / sqrt(inner), "%s.0.to_out.weight", at);
            synthetic_tensor(f, 0, d, 1, 0.2, "%s.1.0.g", at);
            synthetic_tensor(f, ff, d, 0, 1 / sqrt(d), "%s.1.1.weight", at);
            synthetic_tensor(f, 0, ff, 0, 0.2, "%s.1.1.bias", at);
            synthetic_tensor(f, d, ff, 0, 1 / sqrt(ff), "%s.1.4.weight", at);
            synthetic_tensor(f, 0, d, 0, 0.2, "%s.1.4.bias", at);
        }
        synthetic_tensor(f, 0, d, 1, 0.2, "%s.%d.norm.g", models, s);
        if (y->rotary[s]) synthetic_rotary(f, models, s, y->dim_head[s]);
        if (j) {
            int next = y->n[s + 1] * y->dim[s + 1];
            synthetic_tensor(f, next, d, 0, 1 / sqrt(d), "%s.%d.1.weight", projections, s);
            synthetic_tensor(f, 0, next, 0, 0.2, "%s.%d.1.bias", projections, s);
        }
    }
    synthetic_tensor(f, v, fine, 0, 1.5 / sqrt(fine), "to_logits.weight");
    synthetic_tensor(f, 0, v, 0, 0.5, "to_logits.bias");
}

/* Each of these writes tests/tmp/NAME.safetensors and .json with weights that depend on `seed`
 * only; returns their number. */
static uint64_t synthetic_write(const synthetic *y, uint64_t seed) {
    synthetic_file f = {.type = y->type};
    synthetic_mblm m = {.stages = y->stages, .vocabulary = y->vocabulary, .pad = -1};
    char args[1000], dim[100], depth[100], n[100];
    for (int s = 0; s < y->stages; s++) {
        m.n[s] = y->n[s], m.dim[s] = y->dim[s], m.depth[s] = y->depth[s];
        m.heads[s] = y->heads, m.dim_head[s] = y->dim_head, m.ff_mult[s] = y->ff_mult;
        m.rotary[s] = y->rotary, m.position[s] = y->learned ? "fixed" : NULL;
    }
    seed_random(seed);
    synthetic_stages(&f, &m, 0);
    synthetic_list(dim, y->dim, y->stages);
    synthetic_list(depth, y->depth, y->stages);
    synthetic_list(n, y->n, y->stages);
    snprintf(
        args, sizeof args,
        "\"num_tokens\": %d, \"dim\": [%s], \"depth\": [%s], \"max_seq_len\": [%s], \"heads\": %d, "
        "\"dim_head\": %d, \"ff_mult\": %d, \"rel_pos\": %s, \"pos_emb\": %s",
        y->vocabulary, dim, depth, n, y->heads, y->dim_head, y->ff_mult,
        y->rotary ? "true" : "false", y->learned ? "true" : "false");
    return synthetic_finish(&f, y->name, args);
}

static UNUSED_OK uint64_t synthetic_write_mblm(const synthetic_mblm *y, uint64_t seed) {
    synthetic_file f = {.type = y->type};
    char args[1800], dim[100], depth[100], n[100];
    seed_random(seed);
    synthetic_stages(&f, y, 1);
    synthetic_list(dim, y->dim, y->stages);
    synthetic_list(depth, y->depth, y->stages);
    synthetic_list(n, y->n, y->stages);
    int used =
        snprintf(args, sizeof args,
                 "\"num_tokens\": %d, \"pad_token_id\": %d, \"hidden_dims\": [%s], \"num_layers\": "
                 "[%s], \"seq_lens\": [%s], \"train_checkpoint_chunks\": null, \"block\": [",
                 y->vocabulary, y->pad, dim, depth, n);
    for (int s = 0; s < y->stages; s++) {
        const char *quote = y->position[s] ? "\"" : "";
        used += snprintf(
            args + used, sizeof args - (size_t)used,
            "%s{\"attn_head_dims\": %d, \"attn_num_heads\": %d, \"attn_use_rot_embs\": %s, "
            "\"pos_emb_type\": %s%s%s, \"ff_multiplier\": %d}",
            s ? ", " : "", y->dim_head[s], y->heads[s], y->rotary[s] ? "true" : "false", quote,
            y->position[s] ? y->position[s] : "null", quote, y->ff_mult[s]);
        CHECK(used < (int)sizeof args - 2, "arguments too long");
    }
    strcpy(args + used, "]");
    return synthetic_finish(&f, y->name, args);
}

static UNUSED_OK uint64_t synthetic_write_spacebyte(const synthetic_spacebyte *y, uint64_t seed) {
    synthetic_file f = {.type = y->type};
    int per_byte = y->dim[0] / y->patch, v = y->vocabulary;
    seed_random(seed);
    synthetic_tensor(&f, v, per_byte, 0, 1, "global_token_embedding.weight");
    synthetic_tensor(&f, y->patches * y->patch, per_byte, 0, 0.5, "global_position_encoding");
    synthetic_tensor(&f, y->dim[1], per_byte, 0, 1 / sqrt(per_byte), "global_to_local.weight");
    synthetic_tensor(&f, 0, y->dim[1], 0, 0.2, "global_to_local.bias");
    synthetic_tensor(&f, v, y->dim[1], 0, 1, "local_token_embedding.weight");
    synthetic_tensor(&f, y->patch, y->dim[1], 0, 0.5, "local_position_encoding");
    for (int s = 0; s < 2; s++) {
        const char *stage = s ? "local" : "global";
        int d = y->dim[s], ff = d * y->ff_mult;
        if (y->padding) synthetic_tensor(&f, 0, d, 0, 1, "%s_pad", stage);
        for (int l = 0; l < y->depth[s]; l++) {
            char at[60];
            snprintf(at, sizeof at, "%s_blocks.%d", stage, l);
            synthetic_tensor(&f, 0, d, 1, 0.2, "%s.attention.layer_norm.scale", at);
            if (y->groups) {
                int kv = 2 * y->groups * y->d_key;
                synthetic_tensor(&f, d, d, 0, 1.5 / sqrt(d), "%s.attention.Q_linear.weight", at);
                synthetic_tensor(&f, kv, d, 0, 1.5 / sqrt(d), "%s.attention.KV_linear.weight", at);
            } else
                synthetic_tensor(&f, 3 * d, d, 0, 1.5 / sqrt(d), "%s.attention.QKV_linear.weight",
                                 at);
            if (y->qk_norm) {
                synthetic_tensor(&f, 0, y->d_key, 1, 0.2, "%s.attention.Q_layer_norm.scale", at);
                synthetic_tensor(&f, 0, y->d_key, 1, 0.2, "%s.attention.K_layer_norm.scale", at);
            }
            synthetic_tensor(&f, d, d, 0, 1 / sqrt(d), "%s.attention.linear.weight", at);
            synthetic_tensor(&f, 0, d, 1, 0.2, "%s.feedforward.layer_norm.scale", at);
            synthetic_tensor(&f, ff, d, 0, 1 / sqrt(d), "%s.feedforward.linear_1.weight", at);
            synthetic_tensor(&f, d, ff, 0, 1 / sqrt(ff), "%s.feedforward.linear_2.weight", at);
        }
    }
    synthetic_tensor(&f, 0, y->dim[1], 1, 0.2, "logits.layer_norm.scale");
    synthetic_tensor(&f, (v + 63) / 64 * 64, y->dim[1], 0, 1.5 / sqrt(y->dim[1]),
                     "logits.logits_linear.weight");

    char args[1000], groups[20];
    snprintf(groups, sizeof groups, y->groups ? "%d" : "null", y->groups);
    snprintf(
        args, sizeof args,
        "\"vocab_size\": %d, \"BOS\": %d, \"tokenizer\": null, \"d_model\": %d, \"context_size\": "
        "%d, "
        "\"d_key\": %d, \"d_ff_mult\": %d, \"n_layers\": %d, \"tie_embedding\": false, "
        "\"qk_layer_norm\": %s, \"init\": \"%s\", \"nonlinear\": \"%s\", \"rope\": %s, "
        "\"position_encoding\": true, \"attention_groups\": %s, \"attention_window\": null, "
        "\"sparse_attention\": null, \"layer_norm\": \"%s\", \"patch_size\": %d, \"d_local\": %d, "
        "\"n_local_layers\": %d, \"use_padding\": %s",
        v, y->bos, y->dim[0], y->patches * y->patch, y->d_key, y->ff_mult, y->depth[0],
        y->qk_norm ? "true" : "false", y->init, y->activation, y->rope ? "true" : "false", groups,
        y->norm, y->patch, y->dim[1], y->depth[1], y->padding ? "true" : "false");
    return synthetic_finish(&f, y->name, args);
}

static UNUSED_OK uint64_t synthetic_write_bgpt(const synthetic_bgpt *y, uint64_t seed) {
    static const char *const base[] = {"patch_level_decoder.base",
                                       "byte_level_decoder.base.transformer"};
    synthetic_file f = {.type = y->type};
    int d = y->dim, wide = y->patch * 257;
    seed_random(seed);
    synthetic_tensor(&f, d, wide, 0, 1 / sqrt(y->patch),
                     "patch_level_decoder.patch_embedding.weight");
    synthetic_tensor(&f, 0, d, 0, 0.2, "patch_level_decoder.patch_embedding.bias");
    for (int s = 0; s < 2; s++) {
        /* the patches' one row is never used */
        synthetic_tensor(&f, s ? 257 : 1, d, 0, s ? 2 / sqrt(d) : 1, "%s.wte.weight", base[s]);
        if (s) { /* tied: the same values again */
            size_t from = f.data_size, size = (size_t)257 * (size_t)d * (f.type[1] == '3' ? 4 : 2);
            synthetic_grow(&f, size);
            memcpy(f.data + from, f.data + from - size, size);
            f.data_size += size;
            synthetic_enter(&f, from, 257, d, 0, "byte_level_decoder.base.lm_head.weight");
        }
        synthetic_tensor(&f, s ? y->patch + 1 : y->patches, d, 0, 0.3, "%s.wpe.weight", base[s]);
        for (int l = 0; l < y->depth[s]; l++) { /* matrices are [in, out] */
            char at[80];
            snprintf(at, sizeof at, "%s.h.%d", base[s], l);
            synthetic_tensor(&f, 0, d, 1, 0.2, "%s.ln_1.weight", at);
            synthetic_tensor(&f, 0, d, 0, 0.2, "%s.ln_1.bias", at);
            synthetic_tensor(&f, d, 3 * d, 0, 1.5 / sqrt(d), "%s.attn.c_attn.weight", at);
            synthetic_tensor(&f, 0, 3 * d, 0, 0.2, "%s.attn.c_attn.bias", at);
            synthetic_tensor(&f, d, d, 0, 1 / sqrt(d), "%s.attn.c_proj.weight", at);
            synthetic_tensor(&f, 0, d, 0, 0.2, "%s.attn.c_proj.bias", at);
            synthetic_tensor(&f, 0, d, 1, 0.2, "%s.ln_2.weight", at);
            synthetic_tensor(&f, 0, d, 0, 0.2, "%s.ln_2.bias", at);
            synthetic_tensor(&f, d, 4 * d, 0, 1 / sqrt(d), "%s.mlp.c_fc.weight", at);
            synthetic_tensor(&f, 0, 4 * d, 0, 0.2, "%s.mlp.c_fc.bias", at);
            synthetic_tensor(&f, 4 * d, d, 0, 0.5 / sqrt(d), "%s.mlp.c_proj.weight", at);
            synthetic_tensor(&f, 0, d, 0, 0.2, "%s.mlp.c_proj.bias", at);
        }
        synthetic_tensor(&f, 0, d, 1, 0.2, "%s.ln_f.weight", base[s]);
        synthetic_tensor(&f, 0, d, 0, 0.2, "%s.ln_f.bias", base[s]);
    }
    char args[300];
    snprintf(
        args, sizeof args,
        "\"PATCH_SIZE\": %d, \"PATCH_LENGTH\": %d, \"HIDDEN_SIZE\": %d, \"PATCH_NUM_LAYERS\": %d, "
        "\"BYTE_NUM_LAYERS\": %d, \"n_head\": %d",
        y->patch, y->patches, d, y->depth[0], y->depth[1], y->heads);
    return synthetic_finish(&f, y->name, args);
}

/* A weight and, if the checkpoint has biases, its bias. */
static void synthetic_linear(synthetic_file *f, const synthetic_paper *y, int rows, int cols,
                             double gain, const char *at, const char *name) {
    synthetic_tensor(f, rows, cols, 0, gain / sqrt(cols), "%s%s.weight", at, name);
    if (y->biases) synthetic_tensor(f, 0, rows, 0, 0.2, "%s%s.bias", at, name);
}
static void synthetic_norm(synthetic_file *f, const synthetic_paper *y, int dim, const char *at,
                           const char *name) {
    synthetic_tensor(f, 0, dim, 1, 0.2, "%s%s.weight", at, name);
    if (y->biases) synthetic_tensor(f, 0, dim, 0, 0.2, "%s%s.bias", at, name);
}

static UNUSED_OK uint64_t synthetic_write_paper(const synthetic_paper *y, uint64_t seed) {
    static const int widths[] = {3, 5, 7, 4, 2, 1};
    synthetic_file f = {.type = y->type};
    int P = y->patch, v = y->vocabulary;
    seed_random(seed);
    CHECK(y->to_local || y->dim[0] == y->dim[1], "the widths differ");
    CHECK(y->convs <= (int)COUNT_OF(widths) && y->cross_patch <= P, "too many");
    for (int s = 0; s < 2; s++) {
        const char *stage = s ? "local." : "global.";
        int piece = y->dim[s], d = s ? piece : P * piece, dh = y->dim_head[s];
        synthetic_tensor(&f, v, piece, 0, s && y->tied ? 2 / sqrt(d) : 1, "%sembedding.weight",
                         stage);
        if (y->learned[s])
            synthetic_tensor(&f, s ? P : y->patches * P, piece, 0, 0.5, "%sposition.weight", stage);
        if (y->trained) synthetic_tensor(&f, 0, d, 0, 1, "%spad", stage);
        for (int c = 0; !s && c < y->convs; c++) {
            char name[100];
            size_t count = (size_t)piece * (size_t)piece * (size_t)widths[c];
            size_t from = synthetic_random(&f, count, 0, 1 / sqrt(piece * widths[c]));
            snprintf(name, sizeof name, "global.conv.%d.weight", c);
            synthetic_enter(&f, from, piece, piece, widths[c], name);
            if (y->biases) synthetic_tensor(&f, 0, piece, 0, 0.2, "global.conv.%d.bias", c);
        }
        for (int l = 0; l < y->depth[s]; l++) {
            char at[60];
            snprintf(at, sizeof at, "%slayers.%d.", stage, l);
            synthetic_norm(&f, y, d, at, "attention_norm");
            synthetic_linear(&f, y, y->heads[s] * dh, d, 1.5, at, "query");
            synthetic_linear(&f, y, y->kv_heads[s] * dh, d, 1.5, at, "key");
            synthetic_linear(&f, y, y->kv_heads[s] * dh, d, 1.5, at, "value");
            if (y->qk_norm) {
                synthetic_norm(&f, y, dh, at, "query_norm");
                synthetic_norm(&f, y, dh, at, "key_norm");
            }
            synthetic_linear(&f, y, d, y->heads[s] * dh, 1, at, "output");
            synthetic_norm(&f, y, d, at, "ff_norm");
            synthetic_linear(&f, y, y->ff[s], d, 1, at, "up");
            synthetic_linear(&f, y, d, y->ff[s], 1, at, "down");
        }
        if (y->final_norm[s]) synthetic_norm(&f, y, d, stage, "norm");
    }
    if (y->to_local) synthetic_linear(&f, y, y->dim[1], y->dim[0], 1, "", "global_to_local");
    if (!y->tied) synthetic_tensor(&f, v, y->dim[1], 0, 1.5 / sqrt(y->dim[1]), "logits.weight");
    if (y->biases) synthetic_tensor(&f, 0, v, 0, 0.5, "logits.bias");

    char args[1000];
    snprintf(args, sizeof args,
             "\"vocabulary\": %d, \"patch_size\": %d, \"patches\": %d, \"pad\": \"%s\", "
             "\"global_heads\": %d, "
             "\"local_heads\": %d, \"activation\": \"%s\", \"norm\": \"%s\", \"cross_patch\": %d, "
             "\"global_rope\": %s, \"local_rope\": %s",
             v, P, y->patches, y->trained ? "trained" : "zero", y->heads[0], y->heads[1],
             y->activation, y->norm, y->cross_patch, y->rope[0] ? "true" : "false",
             y->rope[1] ? "true" : "false");
    return synthetic_finish(&f, y->name, args);
}

/* A small model of each other family; between them they have every option. */
typedef uint64_t synthetic_writer(const char *name, uint64_t seed);

static UNUSED_OK uint64_t synthetic_small_mblm(const char *name, uint64_t seed) {
    const synthetic_mblm y = {
        name,      3,           {4, 3, 5}, {18, 20, 22}, {1, 2, 1},
        {2, 1, 3}, {10, 24, 6}, {2, 3, 1}, {1, 0, 1},    {"fixed", "rope", "rope"},
        257,       256,         "F16"};
    return synthetic_write_mblm(&y, seed);
}
static UNUSED_OK uint64_t synthetic_small_spacebyte(const char *name, uint64_t seed) {
    const synthetic_spacebyte y = {name, 3, 12, 256, 0,         {60, 40}, {1, 2},     10,   2,
                                   2,    0, 1,  1,   "RMSNorm", "SiLU",   "standard", "F16"};
    return synthetic_write_spacebyte(&y, seed);
}
static UNUSED_OK uint64_t synthetic_small_bgpt(const char *name, uint64_t seed) {
    const synthetic_bgpt y = {name, 5, 9, 36, 2, {2, 1}, "F16"};
    return synthetic_write_bgpt(&y, seed);
}
static UNUSED_OK uint64_t synthetic_small_paper(const char *name, uint64_t seed) {
    const synthetic_paper y = {.name = name,
                               .patch = 5,
                               .patches = 8,
                               .vocabulary = 300,
                               .dim = {9, 30},
                               .depth = {2, 2},
                               .heads = {4, 2},
                               .kv_heads = {2, 1},
                               .dim_head = {10, 18},
                               .ff = {37, 45},
                               .rope = {0, 1},
                               .learned = {1, 1},
                               .final_norm = {1, 1},
                               .trained = 1,
                               .convs = 2,
                               .cross_patch = 5,
                               .biases = 1,
                               .qk_norm = 1,
                               .to_local = 1,
                               .norm = "LayerNorm",
                               .activation = "relu",
                               .type = "F16"};
    return synthetic_write_paper(&y, seed);
}
/* Patches of one byte, and one layer that looks back at them. */
static UNUSED_OK uint64_t synthetic_small_bytes(const char *name, uint64_t seed) {
    const synthetic_paper y = {.name = name,
                               .patch = 1,
                               .patches = 30,
                               .vocabulary = 256,
                               .dim = {20, 20},
                               .depth = {1, 1},
                               .heads = {2, 1},
                               .kv_heads = {1, 1},
                               .dim_head = {10, 16},
                               .ff = {40, 30},
                               .rope = {1, 1},
                               .final_norm = {1, 1},
                               .cross_patch = 1,
                               .norm = "LayerNorm",
                               .activation = "gelu",
                               .type = "F32"};
    return synthetic_write_paper(&y, seed);
}

/* Converts the checkpoint that was written under this name; returns the .mb file's path in `mb`. */
static UNUSED_OK char *synthetic_convert(char mb[200], const char *name, const char *quant) {
    char safetensors[200], json[200];
    snprintf(safetensors, sizeof safetensors, "tests/tmp/%s.safetensors", name);
    snprintf(json, sizeof json, "tests/tmp/%s.json", name);
    return convert(mb, safetensors, json, name, quant);
}

/* Writes and converts; `parameters` (unless NULL) receives the number of its parameters. */
static UNUSED_OK char *synthetic_model(char mb[200], const synthetic *y, uint64_t seed,
                                       const char *quant, uint64_t *parameters) {
    uint64_t count = synthetic_write(y, seed);
    if (parameters) *parameters = count;
    return synthetic_convert(mb, y->name, quant);
}
#endif
