/* families.c - see families.h. Tables of where each of the model's tensors comes from; names and
 * arguments -> stages, layers and sizes; what is missing, left over or contradictory; rows.
 * SPDX-License-Identifier: MIT */

#include "families.h"

#include "options.h"

/* ---------------------------------------------------------------------------------- keys */

/* MEGABYTE(num_tokens, dim, depth, max_seq_len, dim_head = 64, heads = 8, attn_dropout = 0.,
 * ff_mult = 4,
 *          ff_dropout = 0., rel_pos = False, pos_emb = False, pad_id = 0, flash_attn = False) */
static const struct key lucidrains_keys[] = {{"num_tokens", WHOLE, ARG_VOCABULARY, EVERY, NULL},
                                             {"heads", WHOLE, ARG_HEADS, EVERY, NULL},
                                             {"dim_head", WHOLE, ARG_HEAD_DIM, EVERY, NULL},
                                             {"ff_mult", WHOLE, ARG_FF_MULT, EVERY, NULL},
                                             {"pad_id", WHOLE, ARG_PAD_ID, EVERY, NULL},
                                             {"dim", LIST, ARG_DIM, 0, NULL},
                                             {"depth", LIST, ARG_DEPTH, 0, NULL},
                                             {"max_seq_len", LIST, ARG_POSITIONS, 0, NULL},
                                             {"rel_pos", FLAG, ARG_ROTARY, EVERY, NULL},
                                             {"pos_emb", FLAG, ARG_LEARNED, EVERY, NULL},
                                             {"attn_dropout", WITHOUT_EFFECT, 0, 0, NULL},
                                             {"ff_dropout", WITHOUT_EFFECT, 0, 0, NULL},
                                             {"flash_attn", WITHOUT_EFFECT, 0, 0, NULL},
                                             {NULL, 0, 0, 0, NULL}};

/* MBLMModelConfig, and under "block" a TransformerBlock for all stages or a list with one for
 * each */
enum { TABLE_ADDED = 1, INPUT_ROTATED = 2 }; /* ARG_LEARNED of pos_emb_type */
static const struct key mblm_keys[] = {{"num_tokens", WHOLE, ARG_VOCABULARY, EVERY, NULL},
                                       {"pad_token_id", WHOLE, ARG_PAD_ID, EVERY, NULL},
                                       {"hidden_dims", LIST, ARG_DIM, 0, NULL},
                                       {"num_layers", LIST, ARG_DEPTH, 0, NULL},
                                       {"seq_lens", LIST, ARG_POSITIONS, 0, NULL},
                                       {"block", BLOCKS, 0, 0, NULL},
                                       {"train_checkpoint_chunks", WITHOUT_EFFECT, 0, 0, NULL},
                                       {NULL, 0, 0, 0, NULL}};
static const struct choice mblm_blocks[] = {{"transformer", 0}, {NULL, 0}};
static const struct choice mblm_positions[] = {
    {"fixed", TABLE_ADDED}, {"rope", INPUT_ROTATED}, {NULL, 0}};
const struct key block_keys[] = {{"attn_head_dims", WHOLE, ARG_HEAD_DIM, 0, NULL},
                                 {"attn_num_heads", WHOLE, ARG_HEADS, 0, NULL},
                                 {"attn_use_rot_embs", FLAG, ARG_ROTARY, 0, NULL},
                                 {"ff_multiplier", WHOLE, ARG_FF_MULT, 0, NULL},
                                 {"pos_emb_type", CHOICE, ARG_LEARNED, 0, mblm_positions},
                                 {"block_type", CHOICE, ARG_INIT, 0, mblm_blocks},
                                 {"attn_dropout", WITHOUT_EFFECT, 0, 0, NULL},
                                 {"ff_dropout", WITHOUT_EFFECT, 0, 0, NULL},
                                 {"use_flash_attn", WITHOUT_EFFECT, 0, 0, NULL},
                                 {"d_state", UNSUPPORTED, 0, 0, NULL}, /* Mamba's */
                                 {NULL, 0, 0, 0, NULL}};

/* class MegaByteConfig(TransformerConfig) */
static const struct choice spacebyte_norms[] = {
    {"LayerNorm", NORM_LAYER}, {"RMSNorm", NORM_DEVIATION}, {NULL, 0}};
static const struct choice spacebyte_activations[] = {
    {"ReLU", RELU}, {"GELU", GELU_TANH}, {"SiLU", SILU}, {NULL, 0}};
enum { SCALED_QUERIES = 1 }; /* ARG_INIT */
static const struct choice spacebyte_inits[] = {
    {"simple", 0}, {"standard", 0}, {"muTransfer", SCALED_QUERIES}, {NULL, 0}};
static const struct key spacebyte_keys[] = {
    {"vocab_size", WHOLE, ARG_VOCABULARY, EVERY, NULL},
    {"BOS", WHOLE, ARG_FIRST_ID, EVERY, NULL},
    {"d_model", WHOLE, ARG_DIM, 0, NULL},
    {"d_local", WHOLE, ARG_DIM, 1, NULL},
    {"n_layers", WHOLE, ARG_DEPTH, 0, NULL},
    {"n_local_layers", WHOLE, ARG_DEPTH, 1, NULL},
    {"context_size", WHOLE, ARG_BYTES, EVERY, NULL},
    {"patch_size", WHOLE, ARG_POSITIONS, 1, NULL},
    {"d_key", WHOLE, ARG_HEAD_DIM, EVERY, NULL},
    {"d_ff_mult", WHOLE, ARG_FF_MULT, EVERY, NULL},
    {"attention_groups", WHOLE, ARG_KV_HEADS, EVERY, NULL},
    {"qk_layer_norm", FLAG, ARG_QK_NORM, EVERY, NULL},
    {"rope", FLAG, ARG_ROTARY, EVERY, NULL},
    {"position_encoding", FLAG, ARG_LEARNED, EVERY, NULL},
    {"use_padding", FLAG, ARG_PADDING, EVERY, NULL},
    {"layer_norm", CHOICE, ARG_NORM, EVERY, spacebyte_norms},
    {"nonlinear", CHOICE, ARG_ACTIVATION, EVERY, spacebyte_activations},
    {"init", CHOICE, ARG_INIT, EVERY, spacebyte_inits},
    {"tokenizer", UNSUPPORTED, 0, 0, NULL},
    {"tie_embedding", UNSUPPORTED, 0, 0, NULL},
    {"attention_window", UNSUPPORTED, 0, 0, NULL},
    {"sparse_attention", UNSUPPORTED, 0, 0, NULL},
    {NULL, 0, 0, 0, NULL}};

/* The constants of bGPT's config.py, and of GPT2Config what it sets from them */
static const struct key bgpt_keys[] = {{"PATCH_SIZE", WHOLE, ARG_POSITIONS, 1, NULL},
                                       {"PATCH_LENGTH", WHOLE, ARG_POSITIONS, 0, NULL},
                                       {"HIDDEN_SIZE", WHOLE, ARG_DIM, EVERY, NULL},
                                       {"PATCH_NUM_LAYERS", WHOLE, ARG_DEPTH, 0, NULL},
                                       {"BYTE_NUM_LAYERS", WHOLE, ARG_DEPTH, 1, NULL},
                                       {"n_head", WHOLE, ARG_HEADS, EVERY, NULL},
                                       {NULL, 0, 0, 0, NULL}};

/* Our own, for models that follow the paper */
static const struct choice paper_activations[] = {
    {"relu", RELU}, {"gelu", GELU_ERF}, {"gelu_tanh", GELU_TANH}, {"silu", SILU}, {NULL, 0}};
static const struct choice paper_pads[] = {{"zero", 0}, {"trained", 1}, {NULL, 0}};
static const struct key paper_keys[] = {
    {"vocabulary", WHOLE, ARG_VOCABULARY, EVERY, NULL},
    {"patch_size", WHOLE, ARG_POSITIONS, 1, NULL},
    {"patches", WHOLE, ARG_POSITIONS, 0, NULL},
    {"pad", CHOICE, ARG_PADDING, EVERY, paper_pads},
    {"global_heads", WHOLE, ARG_HEADS, 0, NULL},
    {"local_heads", WHOLE, ARG_HEADS, 1, NULL},
    {"activation", CHOICE, ARG_ACTIVATION, EVERY, paper_activations},
    {"norm", CHOICE, ARG_NORM, EVERY, spacebyte_norms},
    {"cross_patch", WHOLE, ARG_CROSS, 1, NULL},
    {"global_rope", FLAG, ARG_ROTARY, 0, NULL},
    {"local_rope", FLAG, ARG_ROTARY, 1, NULL},
    {"pad_id", WHOLE, ARG_PAD_ID, EVERY, NULL},
    {"end_id", WHOLE, ARG_END_ID, EVERY, NULL},
    {NULL, 0, 0, 0, NULL}};

/* --------------------------------------------------------------------------------- tables */

/* Settings of the command line win over the configuration; `from` says in messages where one comes
 * from. */
struct setting {
    ll value;
    const char *from;
};

/* How a tensor of the model comes from tensors ("parts") of the checkpoint. */
enum how {
    STORED, /* rows as they are, one part after the other; without parts, zeros */
    FIRST_ROWS, /* the same, but the checkpoint may have more of them */
    COLUMNS, /* a matrix stored as [in, out] */
    PER_BYTE, /* a row for each byte of a patch: P of them make one */
    PER_BYTE_BEFORE, /* the same, but row k takes those of patch k - 1; row 0 is zeros */
    SUM, /* rows of the first part, each plus the second part */
    VECTORS, /* each row is a part */
    TAPS, /* a convolution's [out, in, width] as [out, width, in] */
    FREQUENCIES, /* 10000^(-i / n), i < n: rotary positions that the checkpoint does not hold */
    COMPUTED /* the part if it is there, else what the family's `start` makes */
};
#define MAX_PARTS 4
struct origin {
    const char *part[MAX_PARTS];
    u32 how, optional; /* bit i: part i may be missing, and is zeros then */
    const struct origin *instead; /* taken if only its first part is there */
};

struct family {
    const char *title;
    u32 id;
    const char *marks[4]; /* names that no other family has; '#' stands for a number */
    const char *words[2][3]; /* {0} {1} {2} in names: of the stages but the last, of the last */
    const char *layers; /* '#' counts a stage's layers */
    const struct origin *origins, *finest; /* by role; what the finest stage has otherwise */
    const char *ignored[6]; /* not part of the model's function */
    const struct key *keys;
    int needs_config; /* the tensors don't tell enough */
    ll heads, head_dim; /* the constructor's defaults, or ABSENT */
    void (*derive)(struct conversion *c);
    void (*start)(struct conversion *c, u32 stage, float *to);
};

/* In names: {s} stage, {l} layer, {e} = S-1-s, since token_embs counts from the finest stage up,
 * {0} to {2} the family's words. Rotary frequencies are taken as stored, even where a 16-bit
 * checkpoint has rounded them: they are what its own PyTorch code computes with after loading. */
static const struct origin staged_origins[ROLE_COUNT] = {
    /* MEGABYTE-pytorch and MBLM */
    [ROLE_START] = {.part = {"start_tokens.{s}"}},
    [ROLE_POSITION] = {.part = {"pos_embs.{s}.weight"}},
    [ROLE_ROTARY] = {.part = {"{0}.{s}.rotary_emb.inv_freq"}},
    [ROLE_INPUT_ROTARY] = {.how = FREQUENCIES},
    [ROLE_EMBED] = {.part = {"{1}.{e}.0.weight"}},
    [ROLE_PATCH_NORM_IN_WEIGHT] = {.part = {"{1}.{e}.2.weight"}},
    [ROLE_PATCH_NORM_IN_BIAS] = {.part = {"{1}.{e}.2.bias"}},
    [ROLE_PATCH] = {.part = {"{1}.{e}.3.weight"}},
    [ROLE_PATCH_BIAS] = {.part = {"{1}.{e}.3.bias"}},
    [ROLE_PATCH_NORM_OUT_WEIGHT] = {.part = {"{1}.{e}.4.weight"}},
    [ROLE_PATCH_NORM_OUT_BIAS] = {.part = {"{1}.{e}.4.bias"}},
    [ROLE_ATTENTION_NORM] = {.part = {"{0}.{s}.layers.{l}.0.norm.g"}},
    [ROLE_QKV] = {.part = {"{0}.{s}.layers.{l}.0.to_q.weight",
                           "{0}.{s}.layers.{l}.0.to_kv.weight"}},
    [ROLE_ATTENTION_OUT] = {.part = {"{0}.{s}.layers.{l}.0.to_out.weight"}},
    [ROLE_FF_NORM] = {.part = {"{0}.{s}.layers.{l}.1.0.g"}},
    [ROLE_FF_UP] = {.part = {"{0}.{s}.layers.{l}.1.1.weight"}},
    [ROLE_FF_UP_BIAS] = {.part = {"{0}.{s}.layers.{l}.1.1.bias"}},
    [ROLE_FF_DOWN] = {.part = {"{0}.{s}.layers.{l}.1.4.weight"}},
    [ROLE_FF_DOWN_BIAS] = {.part = {"{0}.{s}.layers.{l}.1.4.bias"}},
    [ROLE_NORM] = {.part = {"{0}.{s}.norm.g"}},
    [ROLE_OUTPUT] = {.part = {"{2}.{s}.1.weight"}},
    [ROLE_OUTPUT_BIAS] = {.part = {"{2}.{s}.1.bias"}},
};
static const struct origin staged_finest[ROLE_COUNT] = {
    /* embeds single bytes, and projects to logits */
    [ROLE_EMBED] = {.part = {"{1}.0.weight"}},
    [ROLE_OUTPUT] = {.part = {"to_logits.weight"}},
    [ROLE_OUTPUT_BIAS] = {.part = {"to_logits.bias"}},
};

/* Models after the paper, in names of our own. Matrices are [out, in], D_G is the global width per
 * byte, P the patch size, K the patches of a context:
 *   global.embedding.weight [V, D_G], global.position.weight [K P, D_G]: h_t = embedding[x_t] +
 *   position[t] global.conv.{0..3}.weight [D_G, D_G, width], as of a causal Conv1d: h_t = bias +
 *   sum_j W[:, :, width-1-j] h_{t-j} global.pad [P D_G]: row 0 ("pad": "trained"); else row 0 is
 *   made of P bytes 0 as a patch is {global,local}.layers.{l}: attention_norm, query, key, value,
 *   output, ff_norm, up, down, query_norm, key_norm {global,local}.norm, global_to_local [D_L,
 *   D_G], local.embedding [V, D_L], local.position [P, D_L], logits local.pad [D_L]: input at p =
 *   0; else local.embedding[0] + local.position[0]
 * Biases, positions, convolutions, query_norm and key_norm, the final norms, global_to_local (where
 * D_G = D_L) and logits.weight (then tied to local.embedding) may be missing. */
static const struct origin tied_logits = {.part = {"local.embedding.weight"}};
static const struct origin paper_origins[ROLE_COUNT] = {
    [ROLE_START] = {.part = {"{0}.pad"}, .how = COMPUTED},
    [ROLE_POSITION] = {.part = {"global.position.weight"}, .how = PER_BYTE_BEFORE},
    [ROLE_ROTARY] = {.how = FREQUENCIES},
    [ROLE_EMBED] = {.part = {"{0}.embedding.weight"}},
    [ROLE_CONVOLUTION] = {.part = {"global.conv.{l}.weight"}, .how = TAPS},
    [ROLE_CONVOLUTION_BIAS] = {.part = {"global.conv.{l}.bias"}, .optional = 1},
    [ROLE_PATCH] = {.part = {"global_to_local.weight"}},
    [ROLE_PATCH_BIAS] = {.part = {"global_to_local.bias"}, .optional = 1},
    [ROLE_ATTENTION_NORM] = {.part = {"{0}.layers.{l}.attention_norm.weight"}},
    [ROLE_ATTENTION_NORM_BIAS] = {.part = {"{0}.layers.{l}.attention_norm.bias"}, .optional = 1},
    [ROLE_QKV] = {.part = {"{0}.layers.{l}.query.weight", "{0}.layers.{l}.key.weight",
                           "{0}.layers.{l}.value.weight"}},
    [ROLE_QKV_BIAS] = {.part = {"{0}.layers.{l}.query.bias", "{0}.layers.{l}.key.bias",
                                "{0}.layers.{l}.value.bias"},
                       .optional = 7},
    [ROLE_QK_NORM] = {.part = {"{0}.layers.{l}.query_norm.weight", "{0}.layers.{l}.query_norm.bias",
                               "{0}.layers.{l}.key_norm.weight", "{0}.layers.{l}.key_norm.bias"},
                      .how = VECTORS,
                      .optional = 2 | 8},
    [ROLE_ATTENTION_OUT] = {.part = {"{0}.layers.{l}.output.weight"}},
    [ROLE_ATTENTION_OUT_BIAS] = {.part = {"{0}.layers.{l}.output.bias"}, .optional = 1},
    [ROLE_FF_NORM] = {.part = {"{0}.layers.{l}.ff_norm.weight"}},
    [ROLE_FF_NORM_BIAS] = {.part = {"{0}.layers.{l}.ff_norm.bias"}, .optional = 1},
    [ROLE_FF_UP] = {.part = {"{0}.layers.{l}.up.weight"}},
    [ROLE_FF_UP_BIAS] = {.part = {"{0}.layers.{l}.up.bias"}, .optional = 1},
    [ROLE_FF_DOWN] = {.part = {"{0}.layers.{l}.down.weight"}},
    [ROLE_FF_DOWN_BIAS] = {.part = {"{0}.layers.{l}.down.bias"}, .optional = 1},
    [ROLE_NORM] = {.part = {"{0}.norm.weight"}},
    [ROLE_NORM_BIAS] = {.part = {"{0}.norm.bias"}, .optional = 1},
    [ROLE_OUTPUT] = {.part = {"logits.weight"}, .instead = &tied_logits},
    [ROLE_OUTPUT_BIAS] = {.part = {"logits.bias"}, .optional = 1},
};
static const struct origin paper_finest[ROLE_COUNT] = {
    [ROLE_POSITION] = {.part = {"local.position.weight"}},
};

static const struct origin grouped_queries = {
    .part = {"{0}_blocks.{l}.attention.Q_linear.weight",
             "{0}_blocks.{l}.attention.KV_linear.weight"}};
static const struct origin spacebyte_origins[ROLE_COUNT] = {
    [ROLE_START] = {.part = {"{0}_pad"}, .how = COMPUTED},
    [ROLE_POSITION] = {.part = {"global_position_encoding"}, .how = PER_BYTE},
    [ROLE_ROTARY] = {.how = FREQUENCIES},
    [ROLE_EMBED] = {.part = {"{0}_token_embedding.weight"}},
    [ROLE_PATCH] = {.part = {"global_to_local.weight"}},
    [ROLE_PATCH_BIAS] = {.part = {"global_to_local.bias"}},
    [ROLE_ATTENTION_NORM] = {.part = {"{0}_blocks.{l}.attention.layer_norm.scale"}},
    [ROLE_QKV] = {.part = {"{0}_blocks.{l}.attention.QKV_linear.weight"},
                  .instead = &grouped_queries},
    [ROLE_QK_NORM] = {.part = {"{0}_blocks.{l}.attention.Q_layer_norm.scale", NULL,
                               "{0}_blocks.{l}.attention.K_layer_norm.scale", NULL},
                      .how = VECTORS},
    [ROLE_ATTENTION_OUT] = {.part = {"{0}_blocks.{l}.attention.linear.weight"}},
    [ROLE_FF_NORM] = {.part = {"{0}_blocks.{l}.feedforward.layer_norm.scale"}},
    [ROLE_FF_UP] = {.part = {"{0}_blocks.{l}.feedforward.linear_1.weight"}},
    [ROLE_FF_DOWN] = {.part = {"{0}_blocks.{l}.feedforward.linear_2.weight"}},
    [ROLE_OUTPUT] = {.part = {"logits.logits_linear.weight"},
                     .how = FIRST_ROWS}, /* filled up to 64 n rows */
};
static const struct origin spacebyte_finest[ROLE_COUNT] = {
    [ROLE_POSITION] = {.part = {"local_position_encoding"}},
    [ROLE_NORM] = {.part = {"logits.layer_norm.scale"}},
};

static const struct origin tied_head = {.part = {"{0}.wte.weight"}};
static const struct origin bgpt_origins[ROLE_COUNT] = {
    [ROLE_START] = {.how = COMPUTED},
    [ROLE_POSITION] = {.part = {"{0}.wpe.weight", "patch_level_decoder.patch_embedding.bias"},
                       .how = SUM},
    [ROLE_EMBED] = {.part = {"patch_level_decoder.patch_embedding.weight"}, .how = COLUMNS},
    [ROLE_ATTENTION_NORM] = {.part = {"{0}.h.{l}.ln_1.weight"}},
    [ROLE_ATTENTION_NORM_BIAS] = {.part = {"{0}.h.{l}.ln_1.bias"}},
    [ROLE_QKV] = {.part = {"{0}.h.{l}.attn.c_attn.weight"}, .how = COLUMNS},
    [ROLE_QKV_BIAS] = {.part = {"{0}.h.{l}.attn.c_attn.bias"}},
    [ROLE_ATTENTION_OUT] = {.part = {"{0}.h.{l}.attn.c_proj.weight"}, .how = COLUMNS},
    [ROLE_ATTENTION_OUT_BIAS] = {.part = {"{0}.h.{l}.attn.c_proj.bias"}},
    [ROLE_FF_NORM] = {.part = {"{0}.h.{l}.ln_2.weight"}},
    [ROLE_FF_NORM_BIAS] = {.part = {"{0}.h.{l}.ln_2.bias"}},
    [ROLE_FF_UP] = {.part = {"{0}.h.{l}.mlp.c_fc.weight"}, .how = COLUMNS},
    [ROLE_FF_UP_BIAS] = {.part = {"{0}.h.{l}.mlp.c_fc.bias"}},
    [ROLE_FF_DOWN] = {.part = {"{0}.h.{l}.mlp.c_proj.weight"}, .how = COLUMNS},
    [ROLE_FF_DOWN_BIAS] = {.part = {"{0}.h.{l}.mlp.c_proj.bias"}},
    [ROLE_NORM] = {.part = {"{0}.ln_f.weight"}},
    [ROLE_NORM_BIAS] = {.part = {"{0}.ln_f.bias"}},
    [ROLE_OUTPUT] = {.part = {"byte_level_decoder.base.lm_head.weight"}, .instead = &tied_head},
};
static const struct origin tied_embedding = {.part = {"byte_level_decoder.base.lm_head.weight"}};
static const struct origin bgpt_finest[ROLE_COUNT] = {
    [ROLE_POSITION] = {.part = {"{0}.wpe.weight"},
                       .how = FIRST_ROWS}, /* has one for the byte after a patch */
    [ROLE_EMBED] = {.part = {"{0}.wte.weight"},
                    .instead = &tied_embedding}, /* safetensors keep one of the two */
};

/* ---------------------------------------------------------------------------------- names */

static int is_finest(const struct conversion *c, u32 stage) {
    return stage + 1 == c->sizes.n_stages;
}

/* A pattern with its {...} replaced, in `out`, which has room for NAME_BYTES. */
#define NAME_BYTES 128
static const char *expand(const struct conversion *c, char *out, const char *pattern, u32 stage,
                          u32 layer) {
    char *to = out;
    for (const char *p = pattern; *p; p++) {
        if (*p != '{') {
            *to++ = *p;
            continue;
        }
        if (p[1] <= '9') to += sprintf(to, "%s", c->family->words[is_finest(c, stage)][p[1] - '0']);
        else
            to += sprintf(to, "%u",
                          p[1] == 's'   ? stage
                          : p[1] == 'l' ? layer
                                        : c->sizes.n_stages - 1 - stage);
        p += 2;
    }
    *to = 0;
    return out;
}

static struct source *find_pattern(const struct conversion *c, const char *pattern, u32 stage,
                                   u32 layer) {
    char name[NAME_BYTES];
    return find_source(&c->in, expand(c, name, pattern, stage, layer));
}

static const struct origin *origin_of(const struct conversion *c, u32 role, u32 stage, u32 layer) {
    const struct origin *o = &c->family->finest[role];
    if (!is_finest(c, stage) || (!o->part[0] && !o->how)) o = &c->family->origins[role];
    if (o->instead && !find_pattern(c, o->part[0], stage, layer) &&
        find_pattern(c, o->instead->part[0], stage, layer))
        o = o->instead;
    return o;
}

static u32 parts_of(const struct origin *o) {
    u32 n = MAX_PARTS;
    while (n && !o->part[n - 1]) n--;
    return n;
}

static struct source *source_of(const struct conversion *c, u32 role, u32 stage, u32 layer,
                                u32 part) {
    const struct origin *o = origin_of(c, role, stage, layer);
    return o->part[part] ? find_pattern(c, o->part[part], stage, layer) : NULL;
}

/* Does `name` begin with `pattern`? Returns the rest of it, or NULL. '#' stands for a decimal
 * number; the last one goes to *number. */
static const char *match_name(const char *name, const char *pattern, u32 *number) {
    for (; *pattern; pattern++) {
        if (*pattern != '#') {
            if (*name++ != *pattern) return NULL;
            continue;
        }
        u32 n = 0, digits = 0;
        for (; *name >= '0' && *name <= '9' && digits < 6; name++, digits++)
            n = n * 10 + (u32)(*name - '0');
        if (!digits) return NULL;
        *number = n;
    }
    return name;
}

/* One more than the largest number that tensors of this pattern have; 0 if there are none. */
static u32 count_numbered(const struct checkpoint *in, const char *pattern) {
    u32 count = 0, n = 0;
    for (u64 i = 0; i < in->count; i++)
        if (match_name(in->tensors[i].name, pattern, &n) && n + 1 > count) count = n + 1;
    return count;
}

static int has_name(const struct checkpoint *in, const char *pattern) {
    u32 n;
    for (u64 i = 0; i < in->count; i++)
        if (match_name(in->tensors[i].name, pattern, &n)) return 1;
    return 0;
}

static status find_tensor(void *context, struct tensor *t) {
    struct conversion *c = context;
    const struct origin *o = origin_of(c, t->role, t->stage, t->layer);
    char name[NAME_BYTES];
    for (u32 part = 0; part < parts_of(o); part++) {
        if (!o->part[part]) continue;
        struct source *found = find_source(&c->in,
                                           expand(c, name, o->part[part], t->stage, t->layer));
        if (!found) {
            if (o->how != COMPUTED && !(o->optional >> part & 1)) add_name(&c->missing, name);
            continue;
        }
        found->used = 1;
        if (!element_types[found->type].readable)
            die(c->in.path, "tensor %s: its elements are %s; F32, F16, BF16 and F64 can be read",
                name, element_types[found->type].name);
    }
    return MEGABYTE_OK;
}

/* All tensors are there, and no others. */
static void check_names(struct conversion *c) {
    struct checkpoint *in = &c->in;
    each_tensor(&c->sizes, find_tensor, c);
    if (c->missing.count)
        die(in->path, "lacks %u of the model's tensors: %s", c->missing.count,
            show_names(&c->missing));
    struct names unused = {0, ""};
    for (u64 i = 0; i < in->count; i++) {
        const struct source *t = &in->tensors[i];
        int known = t->used || !element_types[t->type].readable; /* such as masks: no weights */
        for (u32 k = 0; k < 6 && c->family->ignored[k]; k++) {
            u32 n;
            const char *rest = match_name(t->name, c->family->ignored[k], &n);
            known |= rest && !*rest;
        }
        if (!known) add_name(&unused, t->name);
    }
    if (unused.count && !c->options->ignore_unknown)
        die(in->path,
            "tensors that are not part of the model, %u: %s; --ignore-unknown leaves them out",
            unused.count, show_names(&unused));
    if (unused.count) warn(in->path, "tensors left out, %u: %s", unused.count, show_names(&unused));
}

/* ---------------------------------------------------------------------------------- sizes */

static const char *show_shape(char out[100], const struct source *t) {
    size_t n = 0;
    out[n++] = '[';
    for (u32 i = 0; i < t->rank && i < MAX_RANK; i++)
        n += (size_t)snprintf(out + n, 100 - n, "%s%llu", i ? ", " : "", (ull)t->shape[i]);
    snprintf(out + n, 100 - n, t->rank > MAX_RANK ? ", ...]" : "]");
    return out;
}

/* Dimension i of a tensor that must be there. */
static u32 dimension(const struct conversion *c, u32 role, u32 stage, u32 part, u32 rank, u32 i) {
    const struct source *t = source_of(c, role, stage, 0, part);
    char shape[100], name[NAME_BYTES];
    if (!t)
        die(c->in.path, "lacks tensor %s",
            expand(c, name, origin_of(c, role, stage, 0)->part[part], stage, 0));
    if (t->rank != rank)
        die(c->in.path, "tensor %s: shape %s, but %u dimension%s expected", t->name,
            show_shape(shape, t), rank, rank == 1 ? " is" : "s are");
    if (!t->shape[i] || t->shape[i] > 1u << 24)
        die(c->in.path, "tensor %.200s: a dimension of %llu; 1 to %u are possible", t->name,
            (ull)t->shape[i], 1u << 24);
    return (u32)t->shape[i];
}

/* Of a matrix that may be stored either way. */
static u32 matrix_rows(const struct conversion *c, u32 role, u32 stage, u32 part) {
    return dimension(c, role, stage, part, 2, origin_of(c, role, stage, 0)->how == COLUMNS);
}

static ll argument(const struct conversion *c, u32 what, u32 stage) {
    const struct arguments *a = &c->config.arguments;
    if (a->count[what] && a->count[what] != c->sizes.n_stages)
        die(c->config.path, "%s lists %u stages, but %s has %u", a->list[what], a->count[what],
            c->in.path, c->sizes.n_stages);
    return a->at[what][stage];
}

/* An argument that the tensors don't tell and that has no default. */
static ll needed(const struct conversion *c, u32 what, u32 stage) {
    ll value = argument(c, what, stage);
    const struct key *k = c->config.keys;
    while (k->name && !(k->argument == what && k->kind < WITHOUT_EFFECT &&
                        (k->stage == stage || k->stage == EVERY)))
        k++;
    if (value == ABSENT) die(c->config.path, "%s is missing: the tensors don't tell it", k->name);
    return value;
}

static ll argument_or(const struct conversion *c, u32 what, u32 stage, ll otherwise) {
    ll value = argument(c, what, stage);
    return value == ABSENT ? otherwise : value;
}

/* Contradictions between the configuration and the tensors. */
static void compare(const struct conversion *c, u32 what, u32 stage, u64 actual) {
    ll value = argument(c, what, stage);
    if (value == ABSENT || (value >= 0 && (u64)value == actual)) return;
    die(c->config.path, "%s is %lld for stage %u, but the tensors of %s make it %llu",
        c->config.arguments.key[what][stage], value, stage, c->in.path, (ull)actual);
}

/* ... where a tensor is there exactly if the argument is set. */
static void compare_tensor(const struct conversion *c, u32 what, u32 stage, u32 role) {
    ll value = argument(c, what, stage);
    int there = source_of(c, role, stage, 0, 0) != NULL;
    char name[NAME_BYTES];
    if (value == ABSENT || value == there) return;
    die(c->config.path, "%s %s, but %s has %s tensor %s", c->config.arguments.key[what][stage],
        value ? "is set" : "is not set", c->in.path, there ? "a" : "no",
        expand(c, name, origin_of(c, role, stage, 0)->part[0], stage, 0));
}

static struct setting choose_setting(const struct conversion *c, ll given, const char *option_name,
                                     u32 what, u32 stage) {
    struct setting s = {ABSENT, NULL};
    ll otherwise = argument(c, what, stage);
    if (given != ABSENT) {
        s.value = given;
        s.from = option_name;
    } else if (otherwise != ABSENT) {
        size_t room = strlen(c->config.path) + 40; /* keys are shorter than 30 */
        char *from = allocate(room, 1);
        snprintf(from, room, "%s of %s", c->config.arguments.key[what][stage], c->config.path);
        s.value = otherwise;
        s.from = from;
    }
    return s;
}

/* What neither the command line nor the configuration nor a tensor tells, the constructor's
 * defaults do; leaves one of the two unknown if the other is enough. */
static void fill_in_heads(const struct conversion *c, u32 inner, struct setting *heads,
                          struct setting *width) {
    static const char constructor[] = "the constructor's default";
    const struct setting usual_heads = {c->family->heads, constructor};
    const struct setting usual_width = {c->family->head_dim, constructor};
    int has_usual = usual_heads.value != ABSENT;
    if (c->config.path && has_usual && c->options->heads == ABSENT &&
        c->options->dim_head == ABSENT) { /* what the arguments leave out */
        if (!heads->from) *heads = usual_heads;
        if (!width->from) *width = usual_width;
    }
    if (heads->from || width->from) return;
    if (usual_width.value == ABSENT || (!c->config.path && has_usual) || inner % usual_width.value)
        die(c->in.path, "the tensors don't tell the number of heads: give --heads or --config");
    if (has_usual) *heads = usual_heads;
    *width = usual_width;
}

/* Heads and their width: the projections only have the product, `inner`. Known, in this order:
 * options and configuration; a tensor that is as wide as a head (`told`, or 0); if one of the two
 * is known, the other by division; the constructor's defaults. */
static void derive_heads(struct conversion *c, u32 s, u32 inner, u32 told, const char *teller) {
    struct stage_sizes *g = &c->sizes.stage[s];
    struct setting heads = choose_setting(c, c->options->heads, "--heads", ARG_HEADS, s);
    struct setting width = choose_setting(c, c->options->dim_head, "--dim-head", ARG_HEAD_DIM, s);
    if (heads.from && (heads.value < 1 || heads.value > MAX_WIDTH))
        die(heads.from, "%lld heads; 1 to 65536 are possible", heads.value);
    if (width.from && (width.value < 1 || width.value > MAX_WIDTH))
        die(width.from, "heads %lld wide; 1 to 65536 are possible", width.value);
    if (told) {
        if (width.from && width.value != told)
            die(width.from, "heads are %lld wide, but tensor %s of %s makes it %u", width.value,
                teller, c->in.path, told);
        width.value = told;
        width.from = teller;
    }
    fill_in_heads(c, inner, &heads, &width);
    if (heads.from && width.from) {
        if (heads.value * width.value != inner)
            die(c->in.path,
                "stage %u: heads %lld (%s) x width %lld (%s) is %lld, but queries are %u wide", s,
                heads.value, heads.from, width.value, width.from, heads.value * width.value, inner);
    } else if (inner % (heads.from ? heads.value : width.value)) {
        die(c->in.path, "stage %u: queries are %u wide, which %s %lld (%s) does not divide", s,
            inner, heads.from ? "heads" : "head width", heads.from ? heads.value : width.value,
            heads.from ? heads.from : width.from);
    }
    g->heads = heads.from ? (u32)heads.value : inner / (u32)width.value;
    g->head_dim = inner / g->heads;
}

/* How many tokens stage 0 has: `told` by the tensors, or 0. */
static void derive_context(struct conversion *c, u32 told) {
    struct setting n = choose_setting(c, c->options->positions, "--seq-len", ARG_POSITIONS, 0);
    if (!n.from && !told)
        die(c->in.path,
            "the tensors don't tell the context's length in patches: give --seq-len or --config");
    if (n.from && (n.value < 1 || n.value > 1 << 24))
        die(n.from, "a context of %lld patches; 1 to %d are possible", n.value, 1 << 24);
    if (n.from && told && n.value != told)
        die(n.from, "a context of %lld patches, but tensor %s of %s is for %u", n.value,
            source_of(c, ROLE_POSITION, 0, 0, 0)->name, c->in.path, told);
    c->sizes.stage[0].positions = n.from ? (u32)n.value : told;
}

static void compare_widths(const struct conversion *c, u32 s) {
    const struct stage_sizes *g = &c->sizes.stage[s];
    ll times = argument(c, ARG_FF_MULT, s);
    compare(c, ARG_DIM, s, g->dim);
    compare(c, ARG_DEPTH, s, g->layers);
    if (times != ABSENT && times * (ll)g->dim != g->ff_dim)
        die(c->config.path, "%s is %lld for stage %u, but the tensors of %s have %u x %u",
            c->config.arguments.key[ARG_FF_MULT][s], times, s, c->in.path, g->dim, g->ff_dim);
}

/* Training code often passes an id outside the vocabulary to say that no byte is padding. */
static void derive_pad(struct conversion *c, ll otherwise) {
    struct sizes *z = &c->sizes;
    ll pad = choose_setting(c, c->options->pad_id, "--pad-id", ARG_PAD_ID, 0).value;
    if (pad == ABSENT) pad = otherwise;
    z->pad_id = pad >= 0 && pad < z->vocabulary ? (u32)pad : UINT32_MAX;
}

static void derive_staged(struct conversion *c) {
    struct sizes *z = &c->sizes;
    u32 last = z->n_stages - 1;
    z->vocabulary = dimension(c, ROLE_EMBED, last, 0, 2, 0);
    compare(c, ARG_VOCABULARY, last, z->vocabulary);
    for (u32 s = 0; s <= last; s++) {
        struct stage_sizes *g = &z->stage[s];
        const struct source *rotary = source_of(c, ROLE_ROTARY, s, 0, 0);
        int table = source_of(c, ROLE_POSITION, s, 0, 0) != NULL;
        ll learned = argument(c, ARG_LEARNED, s);
        g->flags = (table ? POSITION_LEARNED : 0) | (rotary ? POSITION_ROTARY : 0);
        if (learned == INPUT_ROTATED && !table) g->flags |= INPUT_ROTARY;
        else compare_tensor(c, ARG_LEARNED, s, ROLE_POSITION);
        compare_tensor(c, ARG_ROTARY, s, ROLE_ROTARY);
        g->dim = dimension(c, ROLE_START, s, 0, 1, 0);
        g->ff_dim = dimension(c, ROLE_FF_UP, s, 0, 2, 0);
        if (s) {
            u32 rows = dimension(c, ROLE_OUTPUT, s - 1, 0, 2, 0);
            if (rows % g->dim)
                die(c->in.path, "tensor %s has %u rows, no multiple of stage %u's width %u",
                    source_of(c, ROLE_OUTPUT, s - 1, 0, 0)->name, rows, s, g->dim);
            g->positions = rows / g->dim;
            compare(c, ARG_POSITIONS, s, g->positions);
        } else {
            derive_context(c, table ? dimension(c, ROLE_POSITION, 0, 0, 2, 0) : 0);
        }
        compare_widths(c, s);
    }
    for (u32 s = 0; s <= last; s++) {
        const struct source *rotary = source_of(c, ROLE_ROTARY, s, 0, 0);
        derive_heads(c, s, dimension(c, ROLE_QKV, s, 0, 2, 0),
                     rotary ? 2 * dimension(c, ROLE_ROTARY, s, 0, 1, 0) : 0,
                     rotary ? rotary->name : NULL);
    }
    derive_pad(c, z->family == FAMILY_LUCIDRAINS && c->config.path ? 0 : ABSENT);
}

/* What the three families without start tokens have in common; their dims, patch size and
 * vocabulary are known. */
static void derive_paper_stage(struct conversion *c, u32 s) {
    struct stage_sizes *g = &c->sizes.stage[s];
    const struct source *norm = source_of(c, ROLE_QK_NORM, s, 0, 0);
    u32 n = parts_of(origin_of(c, ROLE_QKV, s, 0)), rows = matrix_rows(c, ROLE_QKV, s, 0);
    u32 inner = n == 1 ? rows / 3 : rows;
    if (!inner)
        die(c->in.path, "tensor %s: %u rows are too few for queries, keys and values",
            source_of(c, ROLE_QKV, s, 0, 0)->name, rows);
    u32 kv = n == 1 ? inner : matrix_rows(c, ROLE_QKV, s, 1) / (n == 2 ? 2 : 1);
    derive_heads(c, s, inner, norm ? dimension(c, ROLE_QK_NORM, s, 0, 1, 0) : 0,
                 norm ? norm->name : NULL);
    g->kv_heads = kv / g->head_dim; /* check_shape sees what is left over */
    g->ff_dim = matrix_rows(c, ROLE_FF_UP, s, 0);
    if (source_of(c, ROLE_POSITION, s, 0, 0)) g->flags |= POSITION_LEARNED;
    if (source_of(c, ROLE_NORM, s, 0, 0)) g->flags |= FINAL_NORM;
    if (argument(c, ARG_ROTARY, s) == 1) g->flags |= POSITION_ROTARY;
    if (norm) g->flags |= QK_NORM;
    compare_tensor(c, ARG_QK_NORM, s, ROLE_QK_NORM);
    compare(c, ARG_VOCABULARY, s, c->sizes.vocabulary);
    compare_widths(c, s);
}

static void derive_positions(struct conversion *c, u32 patch) {
    u32 rows = 0;
    if (source_of(c, ROLE_POSITION, 0, 0, 0)) rows = dimension(c, ROLE_POSITION, 0, 0, 2, 0);
    if (rows % patch)
        die(c->config.path, "patch_size is %u, which does not divide the %u rows of %s", patch,
            rows, source_of(c, ROLE_POSITION, 0, 0, 0)->name);
    derive_context(c, rows / patch);
}

static void derive_convolutions(struct conversion *c) {
    struct stage_sizes *g = c->sizes.stage;
    for (u32 i = 0; i < MAX_CONVOLUTIONS; i++) {
        const struct source *t = source_of(c, ROLE_CONVOLUTION, 0, i, 0);
        if (t) g->convolution[i] = t->rank == 3 ? (u32)min64(t->shape[2], UINT32_MAX) : 0;
        if (t && (!g->convolution[i] || (i && !g->convolution[i - 1])))
            die(c->in.path,
                "tensor %s: [out, in, width] is expected, after those with lower numbers", t->name);
    }
}

static void derive_megabyte(struct conversion *c) {
    struct sizes *z = &c->sizes;
    struct stage_sizes *g = z->stage;
    u32 narrow = dimension(c, ROLE_EMBED, 0, 0, 2, 1);
    ll patch = needed(c, ARG_POSITIONS, 1), end = argument(c, ARG_END_ID, 0),
       cross = argument_or(c, ARG_CROSS, 1, 0);
    if (patch < 1 || patch > MAX_WIDTH || (u64)patch * narrow > MAX_WIDTH)
        die(c->config.path, "patch_size is %lld: patches of 65536 / %u bytes are possible", patch,
            narrow);
    z->vocabulary = dimension(c, ROLE_EMBED, 1, 0, 2, 0);
    g[1].positions = (u32)patch;
    g[0].dim = (u32)patch * narrow;
    g[1].dim = dimension(c, ROLE_EMBED, 1, 0, 2, 1);
    derive_positions(c, (u32)patch);
    if (source_of(c, ROLE_PATCH, 1, 0, 0)) g[1].flags |= PATCH_PROJECTION;
    else if (narrow != g[1].dim)
        die(c->in.path, "lacks tensor global_to_local.weight, which widths of %u and %u need",
            narrow, g[1].dim);
    derive_convolutions(c);
    if (cross < 0 || cross > patch)
        die(c->config.path, "cross_patch is %lld; 0 to %lld are possible", cross, patch);
    g[1].cross = (u32)cross;
    for (u32 s = 0; s < 2; s++) {
        g[s].norm = (u32)needed(c, ARG_NORM, s);
        g[s].activation = (u32)needed(c, ARG_ACTIVATION, s);
        needed(c, ARG_PADDING, s);
        compare_tensor(c, ARG_PADDING, s, ROLE_START);
        derive_paper_stage(c, s);
    }
    derive_pad(c, ABSENT);
    if (end != ABSENT && (end < 256 || end >= z->vocabulary))
        die(c->config.path,
            "end_id is %lld: it must be one of the vocabulary's %u ids, beyond the 256 bytes", end,
            z->vocabulary);
    if (end != ABSENT) z->end_id = (u32)end;
}

static void derive_spacebyte(struct conversion *c) {
    struct sizes *z = &c->sizes;
    struct stage_sizes *g = z->stage;
    u32 narrow = dimension(c, ROLE_EMBED, 0, 0, 2, 1),
        bytes = dimension(c, ROLE_POSITION, 0, 0, 2, 0);
    g[1].positions = dimension(c, ROLE_POSITION, 1, 0, 2, 0);
    if (bytes % g[1].positions || (u64)g[1].positions * narrow > MAX_WIDTH)
        die(c->in.path, "tensor %s has %u rows: no whole patches of %u bytes, %u wide each",
            source_of(c, ROLE_POSITION, 0, 0, 0)->name, bytes, g[1].positions, narrow);
    z->vocabulary = dimension(c, ROLE_EMBED, 1, 0, 2, 0);
    compare(c, ARG_POSITIONS, 1, g[1].positions);
    compare(c, ARG_BYTES, 0, bytes);
    derive_context(c, bytes / g[1].positions);
    g[0].dim = g[1].positions * narrow;
    g[1].dim = dimension(c, ROLE_EMBED, 1, 0, 2, 1);
    g[1].flags = PATCH_PROJECTION;
    for (u32 s = 0; s < 2; s++) {
        g[s].norm = (u32)argument_or(c, ARG_NORM, s, NORM_LAYER);
        g[s].activation = (u32)argument_or(c, ARG_ACTIVATION, s, RELU);
        compare_tensor(c, ARG_PADDING, s, ROLE_START);
        compare_tensor(c, ARG_LEARNED, s, ROLE_POSITION);
        derive_paper_stage(c, s);
        if (g[s].flags & POSITION_ROTARY) c->interleaved |= 1u << s;
        if (argument(c, ARG_KV_HEADS, s) != ABSENT) compare(c, ARG_KV_HEADS, s, g[s].kv_heads);
    }
    c->scaled_queries = argument(c, ARG_INIT, 0) == SCALED_QUERIES;
    int padded = source_of(c, ROLE_START, 0, 0, 0) != NULL;
    if (padded != (source_of(c, ROLE_START, 1, 0, 0) != NULL))
        die(c->in.path, "lacks tensor %s, or has one too many",
            padded ? "local_pad" : "global_pad");
    if (!padded) {
        ll first = needed(c, ARG_FIRST_ID, 0);
        if (first < 0 || first >= z->vocabulary)
            die(c->config.path, "BOS is %lld, which is none of the vocabulary's %u ids", first,
                z->vocabulary);
        c->first_id = (u32)first;
        g[1].flags |= PREVIOUS_BYTE;
    }
    derive_pad(c, ABSENT);
}

static void derive_bgpt(struct conversion *c) {
    struct sizes *z = &c->sizes;
    struct stage_sizes *g = z->stage;
    u32 columns = dimension(c, ROLE_EMBED, 0, 0, 2, 1);
    z->vocabulary = dimension(c, ROLE_EMBED, 1, 0, 2, 0);
    if (z->vocabulary != 257 || columns % 257)
        die(c->in.path, "an embedding of %u ids and one of %u columns: bGPT has 257 ids",
            z->vocabulary, columns);
    g[1].positions = columns / 257;
    compare(c, ARG_POSITIONS, 1, g[1].positions);
    c->config.text[TEXT_EXTENSION] = c->extension = c->options->extension ? c->options->extension
                                                                          : "txt";
    if (strlen(c->extension) > g[1].positions)
        usage_error(NULL, "--type", "'%.100s' is longer than a patch, of %u bytes", c->extension,
                    g[1].positions);
    derive_context(c, dimension(c, ROLE_POSITION, 0, 0, 2, 0));
    g[0].flags = COLUMN_SUM;
    g[1].flags = CONDITION_FIRST;
    for (u32 s = 0; s < 2; s++) {
        g[s].dim = dimension(c, ROLE_POSITION, s, 0, 2, 1);
        g[s].norm = NORM_LAYER;
        g[s].activation = GELU_TANH;
        derive_paper_stage(c, s);
    }
    derive_pad(c, 256);
    z->end_id = 256;
}

/* Vectors: one row. Embeddings and positions are kept like them, row by row, but are tables. */
static int is_vector(u32 role) {
    return !is_matrix(role) && role != ROLE_POSITION && role != ROLE_EMBED &&
           role != ROLE_CONVOLUTION && role != ROLE_QK_NORM;
}

/* The length of a part's first dimension, where parts are joined: those of queries, keys and
 * values. */
static u32 part_length(const struct conversion *c, const struct tensor *t, u32 n_parts, u32 part) {
    const struct stage_sizes *g = &c->sizes.stage[t->stage];
    u32 kv = (g->kv_heads ? g->kv_heads : g->heads) * g->head_dim;
    if (n_parts > 1 && (t->role == ROLE_QKV || t->role == ROLE_QKV_BIAS))
        return !part ? g->heads * g->head_dim : n_parts == 2 ? 2 * kv : kv;
    return is_vector(t->role) ? t->cols : t->rows;
}

static u32 expected_shape(const struct conversion *c, const struct origin *o,
                          const struct tensor *t, u32 part, u64 shape[3]) {
    u64 patch = c->sizes.stage[1].positions, rows = part_length(c, t, parts_of(o), part),
        cols = t->cols;
    u32 rank = is_vector(t->role) || o->how == VECTORS || (o->how == SUM && part) ? 1
               : o->how == TAPS                                                   ? 3
                                                                                  : 2;
    if (o->how == COLUMNS) {
        rows = t->cols;
        cols = t->rows;
    }
    if (o->how == PER_BYTE || o->how == PER_BYTE_BEFORE) {
        rows = t->rows * patch;
        cols = t->cols / patch;
    }
    if (o->how == TAPS) cols = t->rows;
    if (rank == 1 && !is_vector(t->role)) rows = t->cols;
    shape[0] = rows;
    shape[1] = cols;
    shape[2] = t->cols / t->rows; /* TAPS */
    return rank;
}

static status check_shape(void *context, struct tensor *t) {
    const struct conversion *c = context;
    const struct origin *o = origin_of(c, t->role, t->stage, t->layer);
    for (u32 part = 0; part < parts_of(o); part++) {
        const struct source *from = source_of(c, t->role, t->stage, t->layer, part);
        char shape[100], wanted[100];
        struct source expected = {0};
        if (!from) continue;
        expected.rank = expected_shape(c, o, t, part, expected.shape);
        int same = from->rank == expected.rank;
        for (u32 i = 0; same && i < expected.rank; i++)
            same = from->shape[i] == expected.shape[i] ||
                   (o->how == FIRST_ROWS && i == 0 && from->shape[0] > expected.shape[0]);
        if (!same)
            die(c->in.path, "tensor %s: shape %s instead of %s", from->name,
                show_shape(shape, from), show_shape(wanted, &expected));
    }
    return MEGABYTE_OK;
}

/* ---------------------------------------------------------------------------------- rows */

/* Channel i of a head, where pairs that rotate together lie side by side instead of half a head
 * apart. */
static u32 interleaved_channel(u32 i, u32 head_dim) {
    return i < head_dim / 2 ? 2 * i : 2 * (i - head_dim / 2) + 1;
}

/* Which of the checkpoint's rows row `row` is. */
static u32 source_row(const struct conversion *c, const struct tensor *t, u32 row) {
    const struct stage_sizes *g = &c->sizes.stage[t->stage];
    u32 within = row % g->head_dim;
    if (t->role != ROLE_QKV || !(c->interleaved >> t->stage & 1) ||
        row >= (g->heads + g->kv_heads) * g->head_dim)
        return row;
    return row - within + interleaved_channel(within, g->head_dim);
}

static float addend[MAX_WIDTH]; /* a row that something is made of */

static void read_vector(struct conversion *c, const struct source *t, u32 n, float *to) {
    if (t) read_line(&c->in, t, 0, t->stride[0], n, to);
    else memset(to, 0, n * sizeof *to);
}
static void read_table_row(struct conversion *c, const struct source *t, u64 row, u32 n,
                           float *to) {
    read_line(&c->in, t, row * t->stride[0], t->stride[1], n, to);
}

/* Parts one after the other: rows of a matrix or table, pieces of a vector. */
static void read_joined(struct conversion *c, const struct origin *o, const struct tensor *t,
                        u32 row, float *to) {
    u32 n = parts_of(o), at = source_row(c, t, row);
    if (!n) memset(to, 0, t->cols * sizeof *to);
    for (u32 part = 0; part < n; part++) {
        const struct source *from = source_of(c, t->role, t->stage, t->layer, part);
        u32 length = part_length(c, t, n, part);
        if (is_vector(t->role)) {
            read_vector(c, from, length, to);
            to += length;
        } else if (at < length) {
            read_table_row(c, from, at, t->cols, to);
            return;
        } else {
            at -= length;
        }
    }
}

/* The convolutions of stage 0 over x[count][width], nothing standing before the first row; without
 * their biases if `linear`. Returns x or y, whichever has the result. */
static double *convolve(struct conversion *c, double *x, double *y, u64 count, u32 width,
                        int linear) {
    const struct stage_sizes *g = c->sizes.stage;
    for (u32 l = 0; l < MAX_CONVOLUTIONS && g->convolution[l]; l++) {
        const struct source *w = source_of(c, ROLE_CONVOLUTION, 0, l, 0);
        read_vector(c, linear ? NULL : source_of(c, ROLE_CONVOLUTION_BIAS, 0, l, 0), width, addend);
        for (u64 t = 0; t < count; t++)
            for (u32 i = 0; i < width; i++) y[t * width + i] = addend[i];
        for (u32 out = 0; out < width; out++)
            for (u32 back = 0; back < g->convolution[l];
                 back++) { /* y_t += W[out, :, last - back] x_{t - back} */
                read_line(&c->in, w,
                          out * w->stride[0] + (g->convolution[l] - 1 - back) * w->stride[2],
                          w->stride[1], width, addend);
                for (u64 t = back; t < count; t++)
                    for (u32 i = 0; i < width; i++)
                        y[t * width + out] += addend[i] * x[(t - back) * width + i];
            }
        double *swap = x;
        x = y;
        y = swap;
    }
    return x;
}

/* Positions are added before the convolutions; the runtime adds them behind. That is the same, if
 * they have gone through the convolutions (without biases) by themselves: [bytes, D_G], in double
 * until rounded once. */
static const double *convolved_positions(struct conversion *c, const struct source *t, u32 width) {
    if (c->positions) return c->positions;
    double *x = allocate(t->elements, sizeof *x), *y = allocate(t->elements, sizeof *y);
    for (u64 row = 0; row < t->shape[0]; row++) {
        read_table_row(c, t, row, width, addend);
        for (u32 i = 0; i < width; i++) x[row * width + i] = addend[i];
    }
    return c->positions = convolve(c, x, y, t->shape[0], width, 1);
}

/* Row `row` of what is stored a row for each byte: those of one patch. */
static void read_patch(struct conversion *c, const struct source *from, u32 row, u32 cols,
                       float *to) {
    u32 patch = c->sizes.stage[1].positions, piece = cols / patch;
    for (u32 p = 0; p < patch; p++)
        read_table_row(c, from, (u64)row * patch + p, piece, to + p * piece);
}

/* The same of the patch before. */
static void read_patch_before(struct conversion *c, const struct source *from, u32 row, u32 cols,
                              float *to) {
    memset(to, 0, cols * sizeof *to);
    if (!row--) return;
    if (!c->sizes.stage[0].convolution[0]) {
        read_patch(c, from, row, cols, to);
        return;
    }
    const double *table = convolved_positions(c, from, cols / c->sizes.stage[1].positions);
    for (u32 i = 0; i < cols; i++) to[i] = (float)table[(u64)row * cols + i];
}

static void scale_query(const struct conversion *c, const struct tensor *t, u32 row, float *to) {
    const struct stage_sizes *g = &c->sizes.stage[t->stage];
    if (t->role != ROLE_QKV || !c->scaled_queries || g->flags & QK_NORM ||
        row >= g->heads * g->head_dim)
        return;
    for (u32 i = 0; i < t->cols; i++) to[i] = (float)(to[i] / sqrt(g->head_dim));
}

void read_row(struct conversion *c, const struct tensor *t, u32 row, float *to) {
    const struct origin *o = origin_of(c, t->role, t->stage, t->layer);
    const struct source *from = source_of(c, t->role, t->stage, t->layer, 0);
    switch (o->how) {
    case COLUMNS:
        read_line(&c->in, from, row * from->stride[1], from->stride[0], t->cols, to);
        break;
    case PER_BYTE: read_patch(c, from, row, t->cols, to); break;
    case PER_BYTE_BEFORE: read_patch_before(c, from, row, t->cols, to); break;
    case SUM:
        read_table_row(c, from, row, t->cols, to);
        read_vector(c, source_of(c, t->role, t->stage, t->layer, 1), t->cols, addend);
        for (u32 i = 0; i < t->cols; i++) to[i] += addend[i];
        break;
    case VECTORS:
        read_vector(c, source_of(c, t->role, t->stage, t->layer, row), t->cols, addend);
        for (u32 i = 0; i < t->cols; i++)
            to[i] = addend[c->interleaved >> t->stage & 1 ? interleaved_channel(i, t->cols) : i];
        break;
    case TAPS:
        for (u32 k = 0; k < t->cols / t->rows; k++)
            read_line(&c->in, from, row * from->stride[0] + k * from->stride[2], from->stride[1],
                      t->rows, to + k * t->rows);
        break;
    case FREQUENCIES:
        for (u32 i = 0; i < t->cols; i++) to[i] = (float)pow(10000, -(double)i / t->cols);
        break;
    case COMPUTED:
        if (from) read_vector(c, from, t->cols, to);
        else c->family->start(c, t->stage, to);
        break;
    default: read_joined(c, o, t, row, to);
    }
    scale_query(c, t, row, to);
}

/* Without a trained pad: what `first_id` at every byte before the text gives, positions included.
 * The runtime adds no positions to it. */
static void start_of_bytes(struct conversion *c, u32 stage, float *to) {
    const struct stage_sizes *g = &c->sizes.stage[stage];
    const struct source *position = source_of(c, ROLE_POSITION, stage, 0, 0);
    u32 patch = stage ? 1 : c->sizes.stage[1].positions, width = g->dim / patch;
    double *x = allocate(g->dim, sizeof *x), *y = allocate(g->dim, sizeof *y), *result = x;
    for (u32 p = 0; p < patch; p++) {
        read_table_row(c, source_of(c, ROLE_EMBED, stage, 0, 0), c->first_id, width, to);
        memset(addend, 0, width * sizeof *addend);
        if (position) read_table_row(c, position, p, width, addend);
        for (u32 i = 0; i < width; i++) x[p * width + i] = (double)to[i] + addend[i];
    }
    if (!stage) result = convolve(c, x, y, patch, width, 0);
    for (u32 i = 0; i < g->dim; i++) to[i] = (float)result[i];
    free(x);
    free(y);
}

/* Patch 0 is the file's extension, filled up with the end id; the local stage begins with nothing
 * but a position. */
static void start_of_bgpt(struct conversion *c, u32 stage, float *to) {
    const struct source *embed = source_of(c, ROLE_EMBED, 0, 0, 0);
    const char *extension = c->extension;
    u32 dim = c->sizes.stage[stage].dim, patch = c->sizes.stage[1].positions,
        n = (u32)strlen(extension);
    double *sum = allocate(dim, sizeof *sum);
    read_table_row(c, source_of(c, ROLE_POSITION, stage, 0, 0), 0, dim, to);
    for (u32 i = 0; i < dim; i++) sum[i] = to[i];
    for (u32 p = 0; !stage && p <= patch; p++) { /* last, the bias */
        u64 column = (u64)p * c->sizes.vocabulary + (p < n ? (u8)extension[p] : 256);
        if (p == patch) read_vector(c, source_of(c, ROLE_POSITION, 0, 0, 1), dim, addend);
        else read_line(&c->in, embed, column * embed->stride[1], embed->stride[0], dim, addend);
        for (u32 i = 0; i < dim; i++) sum[i] += addend[i];
    }
    for (u32 i = 0; i < dim; i++) to[i] = (float)sum[i];
    free(sum);
}

static const struct family families[] = {
    {"ai4sd/multiscale-byte-lm (MBLM)",
     FAMILY_MBLM,
     {"stage_models.#", "token_embs_rev.#"},
     {{"stage_models", "token_embs_rev", "to_next_stage_proj"},
      {"stage_models", "token_embs_rev", "to_next_stage_proj"}},
     "stage_models.{s}.layers.#.",
     staged_origins,
     staged_finest,
     {NULL},
     mblm_keys,
     1,
     ABSENT,
     ABSENT,
     derive_staged,
     NULL},
    {"kjslag/spacebyte (MegaByte)",
     FAMILY_SPACEBYTE,
     {"global_blocks.#", "local_blocks.#"},
     {{"global"}, {"local"}},
     "{0}_blocks.#.",
     spacebyte_origins,
     spacebyte_finest,
     {NULL},
     spacebyte_keys,
     1,
     ABSENT,
     64,
     derive_spacebyte,
     start_of_bytes},
    {"sander-wood/bgpt",
     FAMILY_BGPT,
     {"patch_level_decoder.", "byte_level_decoder."},
     {{"patch_level_decoder.base"}, {"byte_level_decoder.base.transformer"}},
     "{0}.h.#.",
     bgpt_origins,
     bgpt_finest,
     {"patch_level_decoder.base.wte.weight", "patch_level_decoder.base.h.#.attn.bias",
      "patch_level_decoder.base.h.#.attn.masked_bias",
      "byte_level_decoder.base.transformer.h.#.attn.bias",
      "byte_level_decoder.base.transformer.h.#.attn.masked_bias"},
     bgpt_keys,
     0,
     ABSENT,
     64,
     derive_bgpt,
     start_of_bgpt},
    {"the paper (megabyte-paper)",
     FAMILY_PAPER,
     {"global.layers.#.", "global.embedding.", "local.layers.#."},
     {{"global"}, {"local"}},
     "{0}.layers.#.",
     paper_origins,
     paper_finest,
     {NULL},
     paper_keys,
     1,
     ABSENT,
     ABSENT,
     derive_megabyte,
     start_of_bytes},
    {"lucidrains/MEGABYTE-pytorch",
     FAMILY_LUCIDRAINS,
     {"start_tokens.#", "pos_embs.#.", "token_embs.#.", "transformers.#."},
     {{"transformers", "token_embs", "to_next_transformer_projections"},
      {"transformers", "token_embs", "to_next_transformer_projections"}},
     "transformers.{s}.layers.#.",
     staged_origins,
     staged_finest,
     {NULL},
     lucidrains_keys,
     0,
     8,
     64,
     derive_staged,
     NULL},
    {.title = NULL}};

static void check_mamba(const struct checkpoint *in) {
    for (u64 i = 0; i < in->count; i++)
        if (!strncmp(in->tensors[i].name, "stage_models.", 13) &&
            strstr(in->tensors[i].name, "A_log"))
            die(in->path,
                "tensor %s belongs to a Mamba stage; this version runs transformer stages only",
                in->tensors[i].name);
}

void recognise_names(struct conversion *c) {
    static const char *const numbered[] = {"start_tokens.#", "pos_embs.#.", "{1}.#.", "{0}.#."};
    struct checkpoint *in = &c->in;
    struct sizes *z = &c->sizes;
    char name[NAME_BYTES];
    for (const struct family *f = families; f->title && !c->family; f++)
        for (u32 i = 0; i < 4 && f->marks[i]; i++)
            if (has_name(in, f->marks[i])) c->family = f;
    if (!c->family)
        die(in->path,
            "holds no tensor of a known model; MEGABYTE-pytorch's are named start_tokens.0, "
            "token_embs.0.weight, transformers.0. and so on, MBLM's stage_models.0., SpaceByte's "
            "global_blocks.0., bGPT's patch_level_decoder., and models after the paper have "
            "global.layers.0. and local.layers.0.");
    c->config.keys = c->family->keys;
    z->family = c->family->id;
    z->end_id = z->pad_id = UINT32_MAX;
    check_mamba(in);
    if (!has_start_token(z)) z->n_stages = 2;
    for (size_t i = 0; has_start_token(z) && i < sizeof numbered / sizeof *numbered; i++) {
        u32 n = count_numbered(in, expand(c, name, numbered[i], 0, 0));
        if (n > z->n_stages) z->n_stages = n;
    }
    if (z->n_stages < 2 || z->n_stages > MEGABYTE_MAX_STAGES)
        die(in->path, "its tensors are numbered for %u stage%s; this version runs 2 to %d",
            z->n_stages, z->n_stages == 1 ? "" : "s", MEGABYTE_MAX_STAGES);
    for (u32 s = 0; s < z->n_stages; s++) {
        struct stage_sizes *g = &z->stage[s];
        g->layers = count_numbered(in, expand(c, name, c->family->layers, s, 0));
        if (g->layers > 4096)
            die(in->path, "stage %u has %u layers; 4096 are possible", s, g->layers);
        if (!g->layers) g->layers = 1; /* then that one's tensors are what is missing */
    }
}

void derive_sizes(struct conversion *c) {
    megabyte_error e;
    if (c->family->needs_config && !c->config.path)
        die(c->in.path,
            "a checkpoint of %s: its tensors don't tell all of the model; give its configuration "
            "by "
            "--config",
            c->family->title);
    if (c->options->extension && c->family->id != FAMILY_BGPT)
        usage_error(NULL, "--type", "a model of %s does not ask what kind of file it reads",
                    c->family->title);
    c->family->derive(c);
    clear_error(&e);
    if (check_sizes(&c->sizes, &e)) die(c->in.path, "%s", e.text);
    check_names(c);
    each_tensor(&c->sizes, check_shape, c);
}
