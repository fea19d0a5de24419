/* synthetic.h - random checkpoints with lucidrains tensor names, written as .safetensors and .json. */
#ifndef SYNTHETIC_H
#define SYNTHETIC_H

#include "test.h"

#define SYNTHETIC_STAGES 8

typedef struct synthetic {
    const char *name;
    int stages, n[SYNTHETIC_STAGES], dim[SYNTHETIC_STAGES], depth[SYNTHETIC_STAGES];
    int heads, dim_head, ff_mult, vocabulary;
    int learned, rotary;
    const char *type; /* "F32", "F16", "BF16" */
} synthetic;

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

/* Appends a tensor of rows x cols (rows 0: a vector of cols): mean + deviation * normal, some of them
 * tiny. */
static void synthetic_tensor(synthetic_file *f, int rows, int cols, double mean, double deviation,
                             const char *format, ...) PRINTF_LIKE(6, 7);
static void synthetic_tensor(synthetic_file *f, int rows, int cols, double mean, double deviation,
                             const char *format, ...) {
    char name[100], shape[40];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    size_t count = (size_t)(rows ? rows : 1) * (size_t)cols, wide = f->type[1] == '3' ? 4 : 2,
           from = f->data_size;
    f->parameters += count;
    while (f->data_size + count * wide > f->data_room)
        CHECK((f->data = realloc(f->data, f->data_room = 2 * f->data_room + 4096)), "out of memory");
    for (size_t i = 0; i < count; i++) {
        double v = mean + deviation * random_normal();
        if (random_below(32) == 0) v *= 1e-6;
        uint32_t bits = f->type[0] == 'B' ? float_bits(v) >> 16 : wide == 2 ? half_bits(v) : float_bits(v);
        for (size_t b = 0; b < wide; b++) f->data[f->data_size++] = (uint8_t)(bits >> 8 * b);
    }
    if (rows) snprintf(shape, sizeof shape, "%d,%d", rows, cols);
    else snprintf(shape, sizeof shape, "%d", cols);
    CHECK((f->header = realloc(f->header, f->header_size + 400)), "out of memory");
    f->header_size += (size_t)sprintf(f->header + f->header_size,
                                      "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                                      f->header_size ? "," : "{", name, f->type, shape, from, f->data_size);
}

/* Rotary frequencies: the usual ones, rounded to the file's type. */
static void synthetic_rotary(synthetic_file *f, int stage, int dim_head) {
    size_t at = f->data_size;
    synthetic_tensor(f, 0, dim_head / 2, 0, 0, "transformers.%d.rotary_emb.inv_freq", stage);
    f->parameters -= (uint64_t)(dim_head / 2); /* a buffer */
    for (int i = 0; i < dim_head / 2; i++) {
        double v = pow(10000, -2.0 * i / dim_head);
        uint32_t bits = f->type[0] == 'B'   ? float_bits(v) >> 16
                        : f->type[1] == '1' ? half_bits(v)
                                            : float_bits(v);
        for (int b = 0; b < (f->type[1] == '3' ? 4 : 2); b++) f->data[at++] = (uint8_t)(bits >> 8 * b);
    }
}

static void synthetic_list(char *to, const int *values, int n) {
    for (int i = 0; i < n; i++) to += sprintf(to, "%s%d", i ? ", " : "", values[i]);
}

/* Writes tests/tmp/NAME.safetensors and .json with weights that depend on `seed` only; returns their
 * number. */
static uint64_t synthetic_write(const synthetic *y, uint64_t seed) {
    synthetic_file f = { .type = y->type };
    int fine = y->dim[y->stages - 1], inner = y->heads * y->dim_head, wide = fine;
    seed_random(seed);
    synthetic_tensor(&f, y->vocabulary, fine, 0, 1, "token_embs.0.weight");
    for (int s = y->stages - 1; s >= 0; s--) {
        int d = y->dim[s], ff = d * y->ff_mult, j = y->stages - 1 - s;
        synthetic_tensor(&f, 0, d, 0, 1, "start_tokens.%d", s);
        if (y->learned) synthetic_tensor(&f, y->n[s], d, 0, 0.5, "pos_embs.%d.weight", s);
        if (j) {
            wide *= y->n[s + 1];
            synthetic_tensor(&f, y->vocabulary, fine, 0, 1, "token_embs.%d.0.weight", j);
            synthetic_tensor(&f, 0, wide, 1, 0.2, "token_embs.%d.2.weight", j);
            synthetic_tensor(&f, 0, wide, 0, 0.2, "token_embs.%d.2.bias", j);
            synthetic_tensor(&f, d, wide, 0, 1 / sqrt(wide), "token_embs.%d.3.weight", j);
            synthetic_tensor(&f, 0, d, 0, 0.2, "token_embs.%d.3.bias", j);
            synthetic_tensor(&f, 0, d, 1, 0.2, "token_embs.%d.4.weight", j);
            synthetic_tensor(&f, 0, d, 0, 0.2, "token_embs.%d.4.bias", j);
        }
        for (int l = 0; l < y->depth[s]; l++) {
            synthetic_tensor(&f, 0, d, 1, 0.2, "transformers.%d.layers.%d.0.norm.g", s, l);
            synthetic_tensor(&f, inner, d, 0, 1.5 / sqrt(d), "transformers.%d.layers.%d.0.to_q.weight", s, l);
            synthetic_tensor(&f, 2 * inner, d, 0, 1.5 / sqrt(d), "transformers.%d.layers.%d.0.to_kv.weight",
                             s, l);
            synthetic_tensor(&f, d, inner, 0, 1 / sqrt(inner), "transformers.%d.layers.%d.0.to_out.weight", s,
                             l);
            synthetic_tensor(&f, 0, d, 1, 0.2, "transformers.%d.layers.%d.1.0.g", s, l);
            synthetic_tensor(&f, ff, d, 0, 1 / sqrt(d), "transformers.%d.layers.%d.1.1.weight", s, l);
            synthetic_tensor(&f, 0, ff, 0, 0.2, "transformers.%d.layers.%d.1.1.bias", s, l);
            synthetic_tensor(&f, d, ff, 0, 1 / sqrt(ff), "transformers.%d.layers.%d.1.4.weight", s, l);
            synthetic_tensor(&f, 0, d, 0, 0.2, "transformers.%d.layers.%d.1.4.bias", s, l);
        }
        synthetic_tensor(&f, 0, d, 1, 0.2, "transformers.%d.norm.g", s);
        if (y->rotary) synthetic_rotary(&f, s, y->dim_head);
        if (j) {
            int next = y->n[s + 1] * y->dim[s + 1];
            synthetic_tensor(&f, next, d, 0, 1 / sqrt(d), "to_next_transformer_projections.%d.1.weight", s);
            synthetic_tensor(&f, 0, next, 0, 0.2, "to_next_transformer_projections.%d.1.bias", s);
        }
    }
    synthetic_tensor(&f, y->vocabulary, fine, 0, 1.5 / sqrt(fine), "to_logits.weight");
    synthetic_tensor(&f, 0, y->vocabulary, 0, 0.5, "to_logits.bias");
    CHECK((f.header = realloc(f.header, f.header_size + 16)), "out of memory");
    f.header_size += (size_t)sprintf(f.header + f.header_size, "}");
    while (f.header_size % 8) f.header[f.header_size++] = ' ';

    char path[200], dim[100], depth[100], n[100];
    uint8_t *all = need(8 + f.header_size + f.data_size, 1);
    for (int b = 0; b < 8; b++) all[b] = (uint8_t)((uint64_t)f.header_size >> 8 * b);
    memcpy(all + 8, f.header, f.header_size);
    memcpy(all + 8 + f.header_size, f.data, f.data_size);
    snprintf(path, sizeof path, "tests/tmp/%s.safetensors", y->name);
    write_file(path, all, 8 + f.header_size + f.data_size);
    free(all), free(f.header), free(f.data);

    char json[1000];
    synthetic_list(dim, y->dim, y->stages);
    synthetic_list(depth, y->depth, y->stages);
    synthetic_list(n, y->n, y->stages);
    snprintf(
        json, sizeof json,
        "{\"source\": \"tests/synthetic.h\", \"args\": {\"num_tokens\": %d, \"dim\": [%s], \"depth\": [%s], "
        "\"max_seq_len\": [%s], \"heads\": %d, \"dim_head\": %d, \"ff_mult\": %d, \"rel_pos\": %s, "
        "\"pos_emb\": %s}}\n",
        y->vocabulary, dim, depth, n, y->heads, y->dim_head, y->ff_mult, y->rotary ? "true" : "false",
        y->learned ? "true" : "false");
    snprintf(path, sizeof path, "tests/tmp/%s.json", y->name);
    write_file(path, json, strlen(json));
    return f.parameters;
}

/* Writes it, converts it, returns the .mb file's path in `mb` and (unless NULL) the number of its
 * parameters. */
static UNUSED_OK char *synthetic_model(char mb[200], const synthetic *y, uint64_t seed, const char *quant,
                                       uint64_t *parameters) {
    char safetensors[200], json[200];
    uint64_t count = synthetic_write(y, seed);
    if (parameters) *parameters = count;
    snprintf(safetensors, sizeof safetensors, "tests/tmp/%s.safetensors", y->name);
    snprintf(json, sizeof json, "tests/tmp/%s.json", y->name);
    return convert(mb, safetensors, json, y->name, quant);
}
#endif
