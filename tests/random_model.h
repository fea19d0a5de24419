/* random_model.h - model files of the lucidrains family with random int8 weights, of any size that
 * the format allows: for what weights don't matter to, such as cost and equal bits. Include
 * ../megabyte.c before it. */
#ifndef RANDOM_MODEL_H
#define RANDOM_MODEL_H

struct random_model {
    u8 *file; /* NULL while only the size is asked for */
    u64 at, end; /* next entry of the tensor table; next tensor's data */
    u64 data; /* where all data begins */
    u64 state; /* of the generator */
};

static u64 random_draw(struct random_model *d) { /* splitmix64 */
    u64 z = d->state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

/* Of this mean and deviation, uniform: normal tails would gain nothing here. */
static float random_float(struct random_model *d, double mean, double deviation) {
    double v = (double)(random_draw(d) >> 11) * (1.0 / 9007199254740992.0) - 0.5; /* [-0.5, 0.5) */
    v *= deviation * 3.4641016151377544;
    ROUNDED(v); /* the same weights on every machine */
    return (float)(mean + v);
}

/* Each output row has about the deviation `gain` for inputs of deviation 1, which the norms see to.
 * Queries and keys get more: scores between 131072 random keys should differ enough for some to
 * stand out. */
static void random_matrix(struct random_model *d, const struct tensor *t, u8 *to) {
    u64 cols4 = round_up(t->cols, 4), tiles = round_up(t->rows, 16) / 16;
    double gain = t->role == ROLE_QKV ? 1.5 : t->role == ROLE_OUTPUT ? 1.5 : 1.0;
    for (u64 tile = 0; tile < tiles; tile++)
        for (u64 c = 0; c < cols4; c++)
            for (u64 r = 0; r < 16; r++) { /* what only fills up is 128, the weight 0 */
                int real = c < t->cols && 16 * tile + r < t->rows;
                to[tile * 16 * cols4 + c / 4 * 64 + r * 4 + c % 4] =
                    real ? (u8)(1 + random_draw(d) % 255) : 128;
            }
    for (u64 r = 0; r < 16 * tiles; r++) /* 73.6: the deviation of -127 .. 127 */
        put32(to + 16 * tiles * cols4 + 4 * r,
              f32_to_bits(r < t->rows ? (float)(gain / (73.6 * sqrt((double)t->cols))) : 0));
}

static void random_vectors(struct random_model *d, const struct tensor *t, u8 *to) {
    double mean = 0, deviation = 0.1; /* biases */
    switch (t->role) {
    case ROLE_START:
    case ROLE_EMBED: deviation = 1; break;
    case ROLE_POSITION: deviation = 0.5; break;
    case ROLE_PATCH_NORM_IN_WEIGHT:
    case ROLE_PATCH_NORM_OUT_WEIGHT:
    case ROLE_ATTENTION_NORM:
    case ROLE_FF_NORM:
    case ROLE_NORM: mean = 1; break;
    default: break;
    }
    for (u64 i = 0; i < (u64)t->rows * t->cols; i++) {
        float v = random_float(d, mean, deviation);
        if (t->role == ROLE_ROTARY)
            v = (float)ldexp(1.0, -(int)(13 * i / t->cols)); /* 1 ... 1/4096 */
        put32(to + 4 * i, f32_to_bits(v));
    }
}

static status random_tensor(void *context, struct tensor *t) {
    struct random_model *d = (struct random_model *)context;
    t->type = is_matrix(t->role) ? TYPE_Q8_TILED : TYPE_F32;
    t->offset = d->end;
    if (d->file) {
        put_entry(d->file + d->at, t, d->data);
        if (is_matrix(t->role)) random_matrix(d, t, d->file + t->offset);
        else random_vectors(d, t, d->file + t->offset);
    }
    d->at += TENSOR_BYTES;
    d->end = round_up(d->end + tensor_data_bytes(t), ALIGN);
    return MEGABYTE_OK;
}

/* One metadata entry; returns its end. With `to` NULL: its size. */
static u64 random_metadata(u8 *to, u64 at, const char *key, const char *value) {
    u64 k = strlen(key) + 1, v = strlen(value) + 1;
    if (to) {
        put32(to + at, (u32)k - 1);
        put32(to + at + 4, (u32)v - 1);
        memcpy(to + at + 8, key, k);
        memcpy(to + at + 8 + k, value, v);
    }
    return at + 8 + k + v;
}

/* All of it; n pairs of a key and a value. */
static u64 random_texts(u8 *to, const char *const *texts, u32 n) {
    u64 at = 4;
    if (to) put32(to, n);
    for (u32 i = 0; i < n; i++) at = random_metadata(to, at, texts[2 * i], texts[2 * i + 1]);
    return at;
}

/* The whole file, aligned, to be given to libc_free; NULL if the sizes are not possible or memory
 * is short (then *error says which). The weights depend on the sizes and `seed` only. texts: n
 * pairs of metadata. */
static u8 *random_model_with(const struct sizes *z, u64 seed, const char *const *texts, u32 n,
                             size_t *size, megabyte_error *error) {
    u32 tensors = 0;
    if (check_sizes(z, error)) return NULL;
    each_tensor(z, count_tensor, &tensors);
    u64 metadata = random_texts(NULL, texts, n);
    u64 table = HEADER_BYTES + z->n_stages * STAGE_BYTES, after = table + tensors * TENSOR_BYTES;
    u64 data = round_up(after + metadata, ALIGN);
    struct random_model measured = {NULL, table, data, data, seed}, d = measured;
    each_tensor(z, random_tensor, &measured);
    *size = (size_t)measured.end;
    d.file = (u8 *)libc_alloc(NULL, *size, ALIGN);
    if (!d.file) {
        fail(error, MEGABYTE_ERROR_OUT_OF_MEMORY, 0, "out of memory for a model of %llu bytes",
             (unsigned long long)measured.end);
        return NULL;
    }
    memset(d.file, 0, *size);
    put_header(d.file, z, tensors, (u32)metadata, data, *size);
    random_texts(d.file + after, texts, n);
    each_tensor(z, random_tensor, &d);
    sha256(d.file + data, *size - data, NULL, 0, d.file + 64);
    sha256(d.file, 96, d.file + HEADER_BYTES, data - HEADER_BYTES, d.file + 96);
    return d.file;
}

static u8 *random_model(const struct sizes *z, u64 seed, size_t *size, megabyte_error *error) {
    static const char *const texts[] = {"name", "random", "description",
                                        "random weights: for measuring cost, predicts nothing"};
    return random_model_with(z, seed, texts, 2, size, error);
}

/* What a stream's state consists of: random keys, values and floats of a likely size. */
static void random_span(void *context, void *span, u64 n, int kind) {
    struct random_model *d = (struct random_model *)context;
    u8 *bytes = (u8 *)span;
    float *floats = (float *)span;
    for (u64 i = 0, bits = 0; i < n; i++)
        if (kind != RAW_BYTES) {
            floats[i] = random_float(d, 0.02, 0.01);
        } else {
            if (i % 8 == 0) bits = random_draw(d);
            bytes[i] = (u8)(bits >> 8 * (i % 8));
            if (!bytes[i]) bytes[i] = 1; /* -128 is never stored */
        }
}

/* A state that feeding `position` bytes, whole patches, could have led to, without the work:
 * attention's cost is quadratic. The floats are meant to be scales of quantized keys and values;
 * the others can be anything. */
static void random_history(megabyte_stream *s, u64 position, u64 seed) {
    struct random_model d = {NULL, 0, 0, 0, seed};
    megabyte_stream_reset(s);
    for (u64 i = 0; i < position; i++) s->history[i] = (u8)random_draw(&d);
    s->position = s->tokens = position;
    s->high = position / s->engine->model->stage[0].bytes;
    each_span(s, random_span, &d);
}

/* Two stages: `patches` of `bytes`, rotary positions, feed-forward 4 times as wide. */
static struct sizes random_sizes(u32 patches, u32 bytes, u32 dim, u32 layers, u32 heads,
                                 u32 head_dim, u32 local_dim, u32 local_layers, u32 local_heads,
                                 u32 local_head_dim) {
    struct sizes z = {
        256,
        UINT32_MAX,
        FAMILY_LUCIDRAINS,
        2,
        UINT32_MAX,
        {{dim, layers, heads, head_dim, 4 * dim, patches, POSITION_ROTARY, 0, 0, 0, 0, {0}},
         {local_dim,
          local_layers,
          local_heads,
          local_head_dim,
          4 * local_dim,
          bytes,
          POSITION_ROTARY,
          0,
          0,
          0,
          0,
          {0}}}};
    return z;
}
#endif
