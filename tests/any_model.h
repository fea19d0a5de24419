/* any_model.h - random models of all families, whatever check_sizes lets through, with random and
 * with wild weights. Include ../megabyte.c before it. */
#ifndef ANY_MODEL_H
#define ANY_MODEL_H

#if !defined(MAY_BE_UNUSED)
#if defined(__GNUC__)
#define MAY_BE_UNUSED __attribute__((unused))
#else
#define MAY_BE_UNUSED
#endif
#endif

static u64 random_state;
static u32 widest = 40; /* of a stage; half of it of a head */
static u32 below(u32 n) { return (u32)(next_random(&random_state) >> 33) % n; }
static u32 one_of(u32 a, u32 b, u32 c) {
    u32 i = below(3);
    return i == 0 ? a : i == 1 ? b : c;
}

static struct sizes any_sizes(void) {
    struct sizes z;
    do {
        memset(&z, 0, sizeof z);
        z.family = 1 + below(5);
        int paper = !has_start_token(&z);
        z.vocabulary = one_of(256, 257, 2 + below(300));
        z.pad_id = below(2) ? UINT32_MAX : below(z.vocabulary);
        z.end_id = z.vocabulary > 256 && below(2) ? 256 + below(z.vocabulary - 256) : UINT32_MAX;
        z.n_stages = paper ? 2 : 2 + below(3);
        for (u32 s = 0; s < z.n_stages; s++) {
            struct stage_sizes *g = &z.stage[s];
            g->dim = 1 + below(widest);
            g->layers = below(8) ? 1 + below(3) : 1 + below(7);
            g->kv_heads = 1 + below(3);
            g->heads = g->kv_heads * (1 + below(3));
            g->head_dim = 1 + below(widest / 2);
            g->ff_dim = 1 + below(widest);
            g->positions = below(4) ? 1 + below(s ? 7 : 20) : 1 + below(2);
            g->flags = below(1024);
            if (!paper) {
                g->flags &= 7;
                g->kv_heads = 0;
                continue;
            }
            g->norm = 1 + below(2);
            g->activation = below(ACTIVATIONS);
            g->flags &= POSITION_LEARNED | POSITION_ROTARY | QK_NORM | FINAL_NORM |
                        (s ? PREVIOUS_BYTE | PATCH_PROJECTION : 0);
            if (s && below(2)) g->cross = one_of(1, g->positions, 1 + below(g->positions));
        }
        if (paper && below(3) == 0) {
            z.stage[0].flags |= COLUMN_SUM;
            z.stage[1].flags |= CONDITION_FIRST;
            z.stage[0].dim = z.stage[1].dim;
        } else if (paper) {
            u32 narrow = z.stage[1].flags & PATCH_PROJECTION ? 1 + below(20) : z.stage[1].dim;
            z.stage[0].dim = narrow * z.stage[1].positions;
            for (u32 i = 0, n = below(3) ? 0 : below(5); i < n; i++)
                z.stage[0].convolution[i] = below(4) ? 1 + below(6) : 1 + below(64);
        }
    } while (check_sizes(&z, NULL));
    return z;
}

/* Weights as the self-test's; wild: now and then any float at all. */
struct any_writer {
    struct draft d;
    u32 types, wild;
};

static status any_tensor(void *context, struct tensor *t) {
    struct any_writer *w = (struct any_writer *)context;
    u64 at = w->d.end;
    u8 *file = w->d.file;
    w->d.file = NULL;
    draft_tensor(&w->d, t); /* where it ends */
    static const u32 kinds[] = {0, TYPE_F32_TILED, TYPE_Q8_TILED, TYPE_Q4_TILED};
    if (is_matrix(t->role) && w->types) t->type = kinds[w->types];
    u64 bytes = tensor_data_bytes(t), quantized = quantized_bytes(t);
    t->offset = at;
    w->d.end = round_up(at + bytes, ALIGN);
    if (!(w->d.file = file)) return MEGABYTE_OK;
    put_entry(file + w->d.at - TENSOR_BYTES, t, w->d.data);
    int norm = t->role == ROLE_NORM || t->role == ROLE_ATTENTION_NORM || t->role == ROLE_FF_NORM ||
               t->role == ROLE_ROTARY;
    for (u64 i = 0; i < quantized; i++) file[at + i] = (u8)next_random(&random_state);
    for (u64 i = quantized; i < bytes; i += 4) {
        float x = quantized ? draft_value(&w->d, 0.002f, 0.001f)
                            : draft_value(&w->d, (float)norm, norm ? 0.5f : 0.3f);
        put32(file + at + i,
              w->wild && !below(50) ? (u32)next_random(&random_state) : f32_to_bits(x));
    }
    return MEGABYTE_OK;
}

/* The whole file, aligned, or NULL if it would have more than `most` bytes; free() it. random_state
 * has been set to begin anew; `seed` goes into the weights, too. */
static u8 *any_model(const struct sizes *z, u64 seed, size_t most, size_t *size) {
    u32 tensors = 0, types = below(4), wild = below(4) == 0;
    each_tensor(z, count_tensor, &tensors);
    u64 table = HEADER_BYTES + z->n_stages * STAGE_BYTES,
        data = round_up(table + tensors * TENSOR_BYTES + 4, ALIGN);
    struct any_writer w = {{NULL, table, data, data, (u32)seed}, types, wild}, real = w;
    each_tensor(z, any_tensor, &w);
    *size = (size_t)w.d.end;
    u8 *file = *size > most ? NULL : (u8 *)aligned_alloc(ALIGN, *size);
    if (!file) return NULL;
    memset(file, 0, *size);
    put_header(file, z, tensors, 4, data, *size);
    real.d.file = file;
    each_tensor(z, any_tensor, &real);
    sha256(file + data, *size - data, NULL, 0, file + 64);
    sha256(file, 96, file + HEADER_BYTES, data - HEADER_BYTES, file + 96);
    return file;
}

/* The first small one from *seed on: of this family, with this vocabulary at least, at most `most`
 * bytes of file, and a context of at most a few hundred. *seed is then the next. */
static MAY_BE_UNUSED u8 *small_model(u32 family, u32 vocabulary, size_t most, u64 *seed,
                                     size_t *size) {
    for (widest = 8;; ++*seed) {
        random_state = *seed * 0x9e3779b97f4a7c15ULL;
        struct sizes z = any_sizes();
        u64 context = 1;
        for (u32 s = 0; s < z.n_stages; s++) context *= z.stage[s].positions;
        if (z.family != family || z.vocabulary < vocabulary || context > 300) continue;
        u8 *file = any_model(&z, *seed, most, size);
        if (file) return ++*seed, file;
    }
}
#endif
