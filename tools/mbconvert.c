/* mbconvert.c - makes a model file (.mb) from a checkpoint: safetensors or PyTorch's own files, of
 * the families in families.c. SPDX-License-Identifier: MIT (text at the end of megabyte.h)
 *
 * Writer and reader share one description of the file, the library's (library.h). In words, it is
 * described in models/FORMAT.md. Around this file:
 *
 *    json          a strict pull parser, for the checkpoint's header and the configuration
 *    checkpoint    the checkpoint's tensors: their table, their elements as floats
 *    safetensors   one kind of file that may hold them
 *    pytorch       the other: zip and pickle, of which nothing is executed
 *    config        the constructor's arguments and the texts, from .json files
 *    families      where each of the model's tensors comes from; sizes; rows of floats
 *    common, options, output, names: messages, the command line, files that replace others
 *
 * and below: quantization (rows of floats -> tiles of 16 rows, f32, q8 or q4), the model file
 * (header, stages, table, metadata, data; written beside OUT, checked, renamed), the command
 * line. */
#define _FILE_OFFSET_BITS 64 /* files beyond 2 GiB on 32-bit systems */
#include "families.h"

#include "options.h"
#include "output.h"

#include <errno.h>

const char tool_name[] = "mbconvert";

static const command self = {
    .synopsis = "FILE -o OUT.mb [options]",
    .summary =
        "Makes a megabyte model file from a checkpoint, a .safetensors file or what torch.save "
        "wrote\n"
        "(.pt, .pth; nothing in it is executed), of one of these families, recognised by their "
        "tensors'\n"
        "names: lucidrains/MEGABYTE-pytorch; ai4sd/multiscale-byte-lm (MBLM), transformer stages;\n"
        "kjslag/spacebyte, its class MegaByte; sander-wood/bgpt; models after the paper, with the "
        "names\n"
        "that tools/families.c lists. --config takes an object of arguments, or one that holds "
        "them\n"
        "under \"args\"; --heads, --dim-head, --seq-len and --pad-id win over it. Metadata that is "
        "not\n"
        "given is the configuration's.\n"
        "Exit status: 0 done, 1 failed, 2 wrong usage."};

/* =============================================================================== 1 quantization */

/* Everything that is written goes through here. */
static struct output out;
struct writer {
    u64 at; /* bytes so far, */
    size_t held; /* of them not yet written */
    u8 room[65536];
};

static void flush_writer(struct writer *w) {
    if (!write_output(&out, w->room, w->held)) die(out.path, "cannot write: %s", out.why);
    w->held = 0;
}
static void write_bytes(struct writer *w, const void *bytes, u64 n) {
    w->at += n;
    for (const u8 *p = bytes; n;) {
        size_t some = (size_t)min64(n, sizeof w->room - w->held);
        memcpy(w->room + w->held, p, some);
        p += some;
        n -= some;
        w->held += some;
        if (w->held == sizeof w->room) flush_writer(w);
    }
}
static void write_zeros(struct writer *w, u64 until) {
    static const u8 zeros[64];
    while (w->at < until) write_bytes(w, zeros, min64(until - w->at, sizeof zeros));
}

static float *row_values; /* as long as the model's longest row */
static u8 tile_bytes[MAX_WIDTH *
                     64]; /* 16 rows of any type: check_sizes bounds the columns of matrices */

static void put_f32(u8 *p, float v) { put32(p, f32_to_bits(v)); }

/* Vectors and embeddings: row-major floats. */
static void write_f32(struct writer *w, struct conversion *c, const struct tensor *t) {
    for (u32 row = 0; row < t->rows; row++) {
        read_row(c, t, row, row_values);
        for (u32 at = 0, n; at < t->cols; at += n) {
            n = min32(t->cols - at, MAX_WIDTH);
            for (u32 i = 0; i < n; i++) put_f32(tile_bytes + 4 * i, row_values[at + i]);
            write_bytes(w, tile_bytes, 4 * (u64)n);
        }
    }
}

/* Tiles of 16 output rows: [tile][cols][16]. */
static void write_f32_tiled(struct writer *w, struct conversion *c, const struct tensor *t) {
    for (u32 tile = 0; tile < t->rows; tile += 16) {
        memset(tile_bytes, 0, (size_t)t->cols * 64);
        for (u32 r = 0; r < min32(16, t->rows - tile); r++) {
            read_row(c, t, tile + r, row_values);
            for (u32 k = 0; k < t->cols; k++)
                put_f32(tile_bytes + 4 * ((size_t)k * 16 + r), row_values[k]);
        }
        write_bytes(w, tile_bytes, (u64)t->cols * 64);
    }
}

/* One row to int8 with one scale: w ~ scale * q, q in -127..127, |error| <= scale / 2. In double,
 * and rounded to even on ties: the same bytes on every machine. Returns the scale. */
static float quantize_row(const float *w, u32 n, i8 *q) {
    float largest = 0;
    for (u32 k = 0; k < n; k++)
        if (fabsf(w[k]) > largest) largest = fabsf(w[k]);
    float scale = (float)((double)largest / 127.0);
    for (u32 k = 0; k < n;
         k++) { /* denormals: the scale may be 0, or so rounded that q passes 127 */
        double v = scale > 0 ? rint((double)w[k] / (double)scale) : 0.0;
        q[k] = (i8)(v > 127 ? 127 : v < -127 ? -127 : v);
    }
    return scale;
}

/* Tiles of 16 output rows of q + 128: [tile][cols / 4][16][4], filled up with 128; then the rows'
 * scales. */
static void write_q8_tiled(struct writer *w, struct conversion *c, const struct tensor *t) {
    static i8 q[MAX_WIDTH];
    u64 rows = round_up(t->rows, 16), tile_size = round_up(t->cols, 4) * 16;
    u8 *scales = allocate(rows, 4);
    for (u32 tile = 0; tile < t->rows; tile += 16) {
        memset(tile_bytes, 128, (size_t)tile_size);
        for (u32 r = 0; r < min32(16, t->rows - tile); r++) {
            read_row(c, t, tile + r, row_values);
            put_f32(scales + 4 * ((u64)tile + r), quantize_row(row_values, t->cols, q));
            for (u32 k = 0; k < t->cols; k++)
                tile_bytes[(k / 4) * 64 + r * 4 + k % 4] = (u8)(q[k] + 128);
        }
        write_bytes(w, tile_bytes, tile_size);
    }
    write_bytes(w, scales, rows * 4);
    free(scales);
}

/* The squared error of n weights as w4 * by; sets w4. Every operation is rounded by itself. */
static double quantize_group(const float *w, u32 n, double by, i8 *w4) {
    double error = 0;
    for (u32 k = 0; k < n; k++) {
        double v = rint((double)w[k] / by);
        v = v > 7 ? 7 : v < -8 ? -8 : v;
        double off = v * by;
        ROUNDED(off);
        off -= (double)w[k];
        off *= off;
        ROUNDED(off);
        error += off;
        w4[k] = (i8)v;
    }
    return error;
}

/* One row to 4 bits: w ~ scale * m * w4, w4 in -8..7, an m in 1..15 for each group of 32. The
 * largest weight of the row gets 7 * 15. An m below the one that the group's largest weight asks
 * for clips some and comes nearer to the rest: of the five the best is taken, the first on a tie.
 * In double, rounded to even. Returns the scale. */
static float quantize_row_q4(const float *w, u32 n, i8 *w4, u8 *multiplier) {
    double largest = 0;
    for (u32 k = 0; k < n; k++)
        if (fabs((double)w[k]) > largest) largest = fabs((double)w[k]);
    double scale = largest / 105.0;
    memset(w4, 0, n);
    for (u32 g = 0; g * Q4_GROUP < n; g++) {
        const float *from = w + g * Q4_GROUP;
        u32 count = min32(n - g * Q4_GROUP, Q4_GROUP);
        double top = 0, least = 0;
        multiplier[g] = 1;
        if (!(scale > 0)) continue;
        for (u32 k = 0; k < count; k++)
            if (fabs((double)from[k]) > top) top = fabs((double)from[k]);
        double m0 = rint(top / (7.0 * scale));
        int most = m0 < 1 ? 1 : m0 > 15 ? 15 : (int)m0;
        for (int m = most; m >= 1 && m >= most - 4; m--) {
            i8 tried[Q4_GROUP];
            double error = quantize_group(from, count, scale * m, tried);
            if (m != most && !(error < least)) continue;
            least = error;
            multiplier[g] = (u8)m;
            memcpy(w4 + g * Q4_GROUP, tried, count);
        }
    }
    return (float)scale;
}

/* Tiles of 16 output rows of nibbles, then of multipliers (see tensor_data_bytes), then the rows'
 * scales. */
static void write_q4_tiled(struct writer *w, struct conversion *c, const struct tensor *t) {
    static i8 w4[MAX_WIDTH];
    static u8 m[MAX_WIDTH / Q4_GROUP];
    u64 rows = round_up(t->rows, 16), tile_size = q4_weight_bytes(16, t->cols);
    u64 row_size = q4_multiplier_bytes(16, t->cols);
    u8 *scales = allocate(rows, 4), *multipliers = allocate(rows / 16, (size_t)row_size);
    for (u32 tile = 0; tile < t->rows; tile += 16) {
        memset(tile_bytes, 0x88, (size_t)tile_size);
        for (u32 r = 0; r < min32(16, t->rows - tile); r++) {
            read_row(c, t, tile + r, row_values);
            put_f32(scales + 4 * ((u64)tile + r), quantize_row_q4(row_values, t->cols, w4, m));
            for (u32 k = 0; k < t->cols; k++) {
                u8 *to = tile_bytes + k / 8 * 64 + r * 4 + k % 4;
                u32 high = k / 4 % 2, nibble = (u32)(w4[k] + 8);
                *to = (u8)(high ? (*to & 15) | nibble << 4 : (*to & 240) | nibble);
            }
            for (u32 g = 0; g * Q4_GROUP < t->cols; g++)
                multipliers[tile / 16 * row_size + g / 2 * 16 + r] |= (u8)(m[g] << 4 * (g % 2));
        }
        write_bytes(w, tile_bytes, tile_size);
    }
    write_bytes(w, multipliers, rows / 16 * row_size);
    write_bytes(w, scales, rows * 4);
    free(multipliers);
    free(scales);
}

/* ================================================================================= 2 model file */

static status plan_tensor(void *context, struct tensor *t) {
    struct conversion *c = context;
    t->type = is_matrix(t->role) ? c->options->matrix_type : TYPE_F32;
    if (t->type == TYPE_Q4_TILED && t->role == ROLE_OUTPUT && t->stage + 1 == c->sizes.n_stages)
        t->type = TYPE_Q8_TILED; /* logits: few of the weights, and what shows most */
    t->offset = c->offset;
    c->offset = round_up(t->offset + tensor_data_bytes(t), ALIGN);
    c->tensors[c->n_tensors++] = *t;
    if (t->cols > c->longest) c->longest = t->cols;
    return MEGABYTE_OK;
}

/* Appends key NUL value NUL with their lengths in front; with to NULL, only tells the bytes. */
static u64 put_text(u8 *to, const char *key, const char *value) {
    u64 n_key = strlen(key), n_value = strlen(value);
    if (to) {
        put32(to, (u32)n_key);
        put32(to + 4, (u32)n_value);
        memcpy(to + 8, key, (size_t)n_key + 1);
        memcpy(to + 8 + n_key + 1, value, (size_t)n_value + 1);
    }
    return 8 + n_key + 1 + n_value + 1;
}

static u64 put_metadata(u8 *to, const struct config *config) {
    u64 at = 4;
    u32 count = 0;
    for (int i = 0; i < TEXT_COUNT; i++)
        if (config->text[i] && *config->text[i]) {
            at += put_text(to ? to + at : NULL, text_keys[i], config->text[i]);
            count++;
        }
    if (to) put32(to, count);
    return at;
}

/* Everything before the data, but for the two hashes. Fills c->tensors; *bytes is the data's
 * offset. */
static u8 *make_head(struct conversion *c, u64 *bytes) {
    const struct sizes *z = &c->sizes;
    each_tensor(z, count_tensor, &c->n_tensors);
    c->tensors = allocate(c->n_tensors, sizeof *c->tensors);
    u64 table = HEADER_BYTES + (u64)z->n_stages * STAGE_BYTES;
    u64 metadata = table + (u64)c->n_tensors * TENSOR_BYTES,
        metadata_bytes = put_metadata(NULL, &c->config);
    u64 data = *bytes = round_up(metadata + metadata_bytes, ALIGN);
    c->n_tensors = 0;
    c->offset = data;
    each_tensor(z, plan_tensor, c);

    u8 *head = allocate(data, 1);
    put_header(head, z, c->n_tensors, (u32)metadata_bytes, data, c->offset);
    for (u32 i = 0; i < c->n_tensors; i++)
        put_entry(head + table + (u64)i * TENSOR_BYTES, &c->tensors[i], data);
    put_metadata(head + metadata, &c->config);
    return head;
}

/* The digest of a file from `offset` on, read back rather than taken while writing: what counts is
 * what is on the disk. */
static void hash_file(u64 offset, u64 size, u8 digest[32]) {
    static u8 piece[65536];
    struct sha256 s;
    int file = open(out.temporary, O_RDONLY);
    if (file < 0 || lseek(file, (off_t)offset, SEEK_SET) < 0)
        die(out.path, "cannot read back: %s", strerror(errno));
    sha256_begin(&s);
    for (u64 left = size - offset; left;) {
        ssize_t n = read(file, piece, sizeof piece);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) die(out.path, "cannot read back: %s", n ? strerror(errno) : "it is shorter");
        sha256_add(&s, piece, (u64)n);
        left -= (u64)n;
    }
    sha256_end(&s, digest);
    close(file);
}

/* Refuses to write over what is read, and without -f over anything. */
static void choose_output(const struct options *o) {
    struct stat inputs[2], there;
    size_t n = 0;
    if (!stat(o->in, &inputs[n])) n++;
    if (o->config && !stat(o->config, &inputs[n])) n++;
    if (!stat(o->out, &there) && !S_ISREG(there.st_mode)) die(o->out, "is not a regular file");
    if (!name_output(&out, o->out, o->force, 0, inputs, n)) die(o->out, "%s", out.why);
}

static void write_model(struct conversion *c) {
    u64 data;
    u8 *head = make_head(c, &data);
    struct writer *w = allocate(1, sizeof *w);
    if (!create_output(&out)) die(out.path, "cannot create a file beside it: %s", out.why);
    write_bytes(w, head, data);
    row_values = allocate(c->longest, sizeof *row_values);
    for (u32 i = 0; i < c->n_tensors; i++) {
        const struct tensor *t = &c->tensors[i];
        write_zeros(w, t->offset);
        if (t->type == TYPE_F32) write_f32(w, c, t);
        else if (t->type == TYPE_F32_TILED) write_f32_tiled(w, c, t);
        else if (t->type == TYPE_Q4_TILED) write_q4_tiled(w, c, t);
        else write_q8_tiled(w, c, t);
    }
    write_zeros(w, c->offset);

    flush_writer(w);
    hash_file(data, c->offset, head + 64);
    sha256(head, 96, head + HEADER_BYTES, data - HEADER_BYTES, head + 96);
    if (lseek(out.file, 0, SEEK_SET)) die(out.path, "cannot seek: %s", strerror(errno));
    if (!write_output(&out, head, HEADER_BYTES)) die(out.path, "cannot write: %s", out.why);
    free(head);
    free(w);
}

/* Opens the new file with the library: what it would refuse must not leave this tool. */
static void check_model(const struct conversion *c, megabyte_info *info) {
    megabyte_model *model;
    megabyte_error e;
    if (megabyte_model_open(&model, out.temporary, NULL, &e) || megabyte_model_verify(model, &e))
        die(c->options->out, "the new file was refused: %s (byte %llu)%s", e.text, (ull)e.offset,
            c->config.text[TEXT_IMAGE_TILE] ? "" : "; please report this");
    megabyte_model_describe(model, info);
    megabyte_model_close(model);
}

/* =============================================================================== 3 command line */

static struct options options = {.matrix_type = TYPE_Q8_TILED,
                                 .heads = ABSENT,
                                 .dim_head = ABSENT,
                                 .positions = ABSENT,
                                 .pad_id = ABSENT};

static void parse_quant(const char *value) {
    if (!strcmp(value, "f32")) options.matrix_type = TYPE_F32_TILED;
    else if (!strcmp(value, "q8")) options.matrix_type = TYPE_Q8_TILED;
    else if (!strcmp(value, "q4")) options.matrix_type = TYPE_Q4_TILED;
    else usage_error(&self, "--quant", "'%.100s' is none of f32, q8 and q4", value);
}

static void check_utf8(const char *name, const char *text) {
    size_t left = text ? strlen(text) : 0;
    for (const u8 *p = (const u8 *)text; left;) {
        size_t n = utf8_length(p, left);
        if (!n) usage_error(&self, name, "the text is not UTF-8");
        p += n;
        left -= n;
    }
}

static const char *const text_options[] = {
    [TEXT_NAME] = "--name",
    [TEXT_LICENCE] = "--licence",
    [TEXT_SOURCE] = "--source",
    [TEXT_TRAINING_DATA] = "--training-data",
    [TEXT_DESCRIPTION] = "--description",
    [TEXT_IMAGE_TILE] = "--image-tile",
    [TEXT_IMAGE_PATCH] = "--image-patch",
    [TEXT_IMAGE_CHANNELS] = "--image-channels",
    [TEXT_IMAGE_COLOUR] = "--image-colour",
    [TEXT_IMAGE_SCAN] = "--image-scan",
    [TEXT_AUDIO] = "--audio",
};
#define WHOLE_NUMBER(field) OPTION_INTEGER, &options.field, INT32_MIN, INT32_MAX
static void parse_command_line(int argc, char **argv) {
    const char *quant = "q8", **text = options.text;
    const option table[] = {
        {"output", 'o', OPTION_TEXT, &options.out, 0, 0, "OUT", "the model file to write"},
        {"quant", 0, OPTION_TEXT, &quant, 0, 0, "TYPE",
         "f32: matrices as they are; q8: int8, a scale per row; q4: 4 bits, for models trained for "
         "it (q8)"},
        {"config", 0, OPTION_TEXT, &options.config, 0, 0, "FILE",
         "JSON: the constructor's arguments (default: beside FILE)"},
        {"heads", 0, WHOLE_NUMBER(heads), "N", "attention heads, if the tensors do not tell"},
        {"dim-head", 0, WHOLE_NUMBER(dim_head), "N", "their width; one of both will do"},
        {"seq-len", 0, WHOLE_NUMBER(positions), "N", "patches of the context (max_seq_len[0])"},
        {"pad-id", 0, WHOLE_NUMBER(pad_id), "N", "padding id; outside the vocabulary: none"},
        {"type", 0, OPTION_TEXT, &options.extension, 0, 0, "EXT",
         "bGPT: the file type of texts, an extension (txt)"},
        {"name", 0, OPTION_TEXT, &text[TEXT_NAME], 0, 0, "TEXT", "metadata; empty: none"},
        {"licence", 0, OPTION_TEXT, &text[TEXT_LICENCE], 0, 0, "TEXT", "metadata"},
        {"license", 0, OPTION_TEXT, &text[TEXT_LICENCE], 0, 0, NULL, NULL},
        {"source", 0, OPTION_TEXT, &text[TEXT_SOURCE], 0, 0, "TEXT", "metadata"},
        {"training-data", 0, OPTION_TEXT, &text[TEXT_TRAINING_DATA], 0, 0, "TEXT", "metadata"},
        {"description", 0, OPTION_TEXT, &text[TEXT_DESCRIPTION], 0, 0, "TEXT", "metadata"},
        {"image-tile", 0, OPTION_TEXT, &text[TEXT_IMAGE_TILE], 0, 0, "WxH",
         "image models: pixels of a tile, which fills the context"},
        {"image-patch", 0, OPTION_TEXT, &text[TEXT_IMAGE_PATCH], 0, 0, "WxH",
         "pixels of a patch (raster scan: Nx1)"},
        {"image-channels", 0, OPTION_TEXT, &text[TEXT_IMAGE_CHANNELS], 0, 0, "N",
         "bytes of a pixel: 3, or 1 for grey"},
        {"image-colour", 0, OPTION_TEXT, &text[TEXT_IMAGE_COLOUR], 0, 0, "NAME",
         "green-difference (G, R-G, B-G modulo 256) or none"},
        {"image-scan", 0, OPTION_TEXT, &text[TEXT_IMAGE_SCAN], 0, 0, "NAME",
         "patch (after patch) or raster (row after row)"},
        {"audio", 0, OPTION_TEXT, &text[TEXT_AUDIO], 0, 0, "TEXT",
         "audio models: what the bytes are, such as \"mu-law 8000 Hz\""},
        {"ignore-unknown", 0, OPTION_FLAG, &options.ignore_unknown, 0, 0, NULL,
         "leave out tensors that are not part of the model"},
        {"force", 'f', OPTION_FLAG, &options.force, 0, 0, NULL, "overwrite OUT"},
        {"quiet", 'q', OPTION_FLAG, &quiet, 0, 0, NULL, "errors only"},
    };
    if (argc < 2) {
        print_usage(&self, stderr);
        exit(2);
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
        printf("mbconvert %s (model file format %d)\n", MEGABYTE_VERSION_STRING,
               MEGABYTE_FORMAT_VERSION);
        exit(fflush(stdout) || ferror(stdout));
    }
    int n = parse_options(&self, table, COUNT_OF(table), NULL, argc, argv);
    parse_quant(quant);
    check_utf8("--type", options.extension);
    for (u32 i = 0; i < COUNT_OF(text_options); i++) check_utf8(text_options[i], text[i]);
    if (n > 1)
        usage_error(&self, argv[1], "one checkpoint at a time; %s was given already", argv[0]);
    if (!n) usage_error(&self, "FILE", "which checkpoint? name a .safetensors or .pt file");
    if (!options.out || !*options.out)
        usage_error(&self, "-o", "where to? name the .mb file to write");
    if (!strcmp(options.out, "-"))
        usage_error(&self, "-o", "the model cannot go to standard output; name a file");
    options.in = argv[0];
}

static void choose_config(struct conversion *c) {
    const struct options *o = c->options;
    clear_arguments(&c->config.arguments);
    memcpy(c->config.text, o->text, sizeof o->text);
    if (o->config && !read_config(&c->config, o->config)) die(o->config, "there is no such file");
    if (c->config.path) return;
    char *beside = config_beside(o->in);
    if (!read_config(&c->config, beside)) {
        if (o->config) warn(o->config, "holds no constructor arguments");
    } else if (!c->config.path) {
        warn(beside, "holds no constructor arguments");
    } else if (o->config) {
        note(o->config, "holds no constructor arguments; those of %s are taken", beside);
    }
    if (!c->config.path) free(beside);
}

int main(int argc, char **argv) {
    static struct conversion c;
    fp_state fp;
    if (!begin_program(&argc, &argv)) return 1;
    fp_enter(&fp); /* -Ofast programs start with denormals flushed */
    parse_command_line(argc, argv);
    end_on_signals();
    c.options = &options;
    choose_output(&options);
    open_checkpoint(&c.in, options.in);
    recognise_names(&c);
    choose_config(&c);
    derive_sizes(&c);
    write_model(&c);
    megabyte_info info;
    check_model(&c, &info);
    if (!finish_output(&out, 1, NULL)) die(options.out, "%s", out.why);
    char id[33];
    for (int i = 0; i < 16; i++) snprintf(id + 2 * i, 3, "%02x", info.id[i]);
    note(options.out, "%u stages, %llu parameters, %s, %llu bytes, id %s", info.n_stages,
         (ull)info.parameters, info.quantization, (ull)info.file_bytes, id);
    return 0;
}
