/* fuzz_convert.c - any bytes as a checkpoint with its configuration: JSON, the reader of
 * safetensors or of .pt (zip, pickle, tensors), names, sizes and every row of the model; then the
 * model file is written, and the library must open it. No crash, no hang, no execution of
 * anything. See fuzz.h.
 *
 * The first byte is the options, then the configuration up to a NUL, then the checkpoint. */
#define LIKELY_BYTES                                                               \
    "(}]).tuldsaeR\x81\x92oibQcXK\x8aMJGN\x88\x89qrhj\x85\x86\x87\x8c\x94\x93\x95" \
    "012TBC{}[]\",:019\0\1\2\3\xff"
#include "fuzz_mbconvert.h"

#include "fuzz.h"

#include "synthetic.h"

#include "torch.h"

static struct conversion conversion;

static status read_tensor_rows(void *context, struct tensor *t) {
    struct conversion *c = context;
    float *row = allocate(t->cols, sizeof *row);
    for (u32 i = 0; i < t->rows; i++) {
        read_row(c, t, i, row);
        for (u32 k = 0; k < t->cols; k++) MUST(row[k] - row[k] == 0);
    }
    fuzz_free(row);
    return MEGABYTE_OK;
}

/* The model file, in a temporary file that is not kept. */
static void write_and_open(struct conversion *c) {
    static char path[64];
    megabyte_info info;
    snprintf(path, sizeof path, "%s/fuzz_convert-%d",
             access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid());
    MUST(name_output(&out, path, 1, 0, NULL, 0));
    write_model(c);
    check_model(c, &info);
    MUST(info.parameters > 0);
}

/* How far the checkpoint got: what ends there is refused. */
static const char *convert_input(void) {
    struct conversion *c = &conversion;
    volatile int reached = 0; /* survives the jump */
    static const char *const places[] = {"archives refused", "models refused", "converted"};
    memset(c, 0, sizeof *c);
    c->options = &options;
    if (!setjmp(refused)) {
        open_checkpoint(&c->in, options.in);
        MUST(asked <= 100 * memory_file[0].n + (1u << 20)); /* before anything else is known */
        for (u64 i = 0; i < c->in.count; i++) load(&c->in, &c->in.tensors[i]);
        reached = 1;
        recognise_names(c);
        choose_config(c);
        derive_sizes(c);
        each_tensor(&c->sizes, read_tensor_rows, c);
        reached = 2; /* from here on only texts about pictures may be wrong */
        write_and_open(c);
        reached = 3;
    }
    if (reached == 2 && c->config.text[TEXT_IMAGE_TILE]) reached = 1;
    MUST(reached != 2 || !"the library refuses what the converter wrote");
    if (out.file > 0) close(out.file);
    if (out.temporary) unlink(out.temporary);
    memset(&out, 0, sizeof out);
    return places[reached - (reached == 3)];
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    static const u32 types[] = {TYPE_F32_TILED, TYPE_Q8_TILED, TYPE_Q4_TILED};
    const struct options usual = {.in = "input",
                                  .out = "nowhere",
                                  .config = "config",
                                  .heads = ABSENT,
                                  .dim_head = ABSENT,
                                  .positions = ABSENT,
                                  .pad_id = ABSENT};
    if (size < 2) return 0;
    u8 how = *input++, *json = own_copy(input, --size), *nul = memchr(json, 0, size);
    if (!nul) nul = json + size;
    size_t n_json = (size_t)(nul - json), rest = size - n_json - (n_json < size);
    u8 *checkpoint = own_copy(input + size - rest, rest);
    options = usual;
    options.matrix_type = types[how % 3];
    options.ignore_unknown = how >> 2 & 1;
    if (how & 8) options.heads = 2;
    if (how & 16) options.positions = 4;
    if (how & 32) options.pad_id = 3;
    memory_file[0] = (struct memory_file){"input", checkpoint, rest};
    memory_file[1] = (struct memory_file){how & 64 ? "input.json" : "config", json, n_json};
    if (how & 64 || !n_json) options.config = NULL;
    quiet = 1;
    if (rest) tally(convert_input());
    give_back();
    free(checkpoint);
    free(json);
    return 0;
}

#ifdef STANDALONE
/* tests/tmp/NAME.json and .safetensors, and as .pt files in several layouts. */
static void add_checkpoint(const char *name, int k) {
    static const int layouts[] = {-1, PLAIN, LARGE, STRIDED, WRAPPED};
    char path[200], from[200];
    size_t n_json, n;
    snprintf(path, sizeof path, "tests/tmp/%s.json", name);
    uint8_t *json = read_file(path, &n_json);
    snprintf(from, sizeof from, "tests/tmp/%s.safetensors", name);
    for (int i = 0; i < 5; i++) {
        uint8_t *original = read_file(from, &n), *all;
        snprintf(path, sizeof path, "tests/tmp/%s.pt", name);
        if (i) {
            memory_file[0] = (struct memory_file){from, original, n};
            write_torch(path, from, layouts[i]);
            n_opened = 0; /* closed by it */
            give_back();
            free(original);
            original = read_file(path, &n);
        }
        all = need(n_json + n + 2, 1);
        *all = (uint8_t)((k + i) % 3 + (i == 2 ? 64 : 0));
        memcpy(all + 1, json, n_json);
        memcpy(all + n_json + 2, original, n);
        add_seed(all, n_json + n + 2);
        free(all), free(original);
    }
    free(json);
}

static void make_seeds(void) {
    static const synthetic lucid = {"fuzz-lucid", 2, {3, 2}, {4, 3}, {1, 1}, 1, 4, 1,
                                    20,           1, 1,      "F16"};
    static const synthetic three = {"fuzz-three", 3, {2, 2, 2}, {4, 4, 2}, {1, 1, 1}, 1, 4, 1,
                                    10,           0, 1,         "BF16"};
    static const synthetic_mblm mblm = {"fuzz-mblm", 2,      {3, 2}, {4, 4}, {1, 1},
                                        {1, 1},      {4, 4}, {1, 1}, {1, 0}, {"fixed", "rope"},
                                        20,          19,     "F32"};
    static const synthetic_spacebyte space = {
        "fuzz-spacebyte", 2,      3,          64,   0, {8, 4}, {1, 1}, 4, 1, 1, 1, 1, 1,
        "RMSNorm",        "SiLU", "standard", "F16"};
    static const synthetic_bgpt bgpt = {"fuzz-bgpt", 3, 3, 4, 1, {1, 1}, "F16"};
    static const synthetic_paper paper = {.name = "fuzz-paper",
                                          .patch = 2,
                                          .patches = 3,
                                          .vocabulary = 20,
                                          .dim = {4, 4},
                                          .depth = {1, 1},
                                          .heads = {2, 1},
                                          .kv_heads = {1, 1},
                                          .dim_head = {4, 4},
                                          .ff = {5, 6},
                                          .rope = {1, 1},
                                          .learned = {1, 1},
                                          .final_norm = {1, 1},
                                          .trained = 1,
                                          .convs = 2,
                                          .cross_patch = 1,
                                          .biases = 1,
                                          .qk_norm = 1,
                                          .to_local = 1,
                                          .norm = "LayerNorm",
                                          .activation = "relu",
                                          .type = "F16"};
    make_tmp();
    synthetic_write(&lucid, 1);
    synthetic_write(&three, 2);
    synthetic_write_mblm(&mblm, 3);
    synthetic_write_spacebyte(&space, 4);
    synthetic_write_bgpt(&bgpt, 5);
    synthetic_write_paper(&paper, 6);
    static const char *const names[] = {"fuzz-lucid",     "fuzz-three", "fuzz-mblm",
                                        "fuzz-spacebyte", "fuzz-bgpt",  "fuzz-paper"};
    for (int i = 0; i < 6; i++) add_checkpoint(names[i], i);
}
#endif
