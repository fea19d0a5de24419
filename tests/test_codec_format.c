/* test_codec_format.c - the file format beside the reference (codec.h), both ways, and golden
 * files.
 *
 *     tests/bin/test_codec_format [NAME]           groups of checks whose names hold NAME
 *     tests/bin/test_codec_format --write-golden   writes tests/data/golden-*.mbz anew */
#include "codec_fixtures.h"

/* The library's reading of a header beside the reference's, and beside how it was written. */
static void compare_headers(const megabyte_file_header *h, const ref_header *r, const fixture *f,
                            const megabyte_codec_options *o, size_t n) {
    uint8_t digest[32], no_id[6] = {0};
    int has_model = !o->level || o->level >= 5;
    int mixes = !h->single || h->method == MEGABYTE_METHOD_CONTEXT_MIXING ||
                h->method == MEGABYTE_METHOD_MIXED;
    CHECK(h->format_version == (has_model ? 1 : 2) && (int)h->numerics_version == r->numerics);
    CHECK(h->has_model == has_model && r->no_model == !has_model);
    CHECK(!memcmp(h->model_id, has_model ? f->info.id : no_id, 6) &&
          !memcmp(r->model, h->model_id, 6));
    CHECK(h->single == r->single && h->has_dictionary == r->has_dictionary &&
          h->has_dictionary == (o->dictionary_size > 0));
    CHECK(h->header_bytes == r->bytes && h->context_shift == (has_model ? o->context_shift : 0) &&
          (int)h->context_shift == r->context_shift);
    CHECK(h->mixing_memory == (o->level && o->level != 5 && mixes) &&
          r->mixing_memory == (int)h->mixing_memory);
    if (h->has_dictionary) {
        ref_sha256(o->dictionary, o->dictionary_size, digest);
        CHECK(!memcmp(h->dictionary_id, digest, 4) && !memcmp(r->dictionary, digest, 4));
    }
    CHECK(h->size == (r->known ? r->size : MEGABYTE_SIZE_UNKNOWN) && (!r->known || r->size == n));
    if (o->size && n) CHECK(r->known, "the size was known");
    if (h->single) CHECK(h->coded == r->coded && h->method == r->method && h->size == n);
    else
        CHECK(h->block_size == r->block_size && (!o->block_size || h->block_size == o->block_size));
}

static void cut_header(const uint8_t *packed, size_t n) {
    for (size_t k = 0; k < n; k++) {
        megabyte_file_header h;
        megabyte_error error;
        uint8_t *cut = need(k, 1); /* its own allocation: reading past it shows */
        memcpy(cut, packed, k);
        CHECK_STATUS(megabyte_file_header_read(cut, k, &h, &error), MEGABYTE_ERROR_TRUNCATED);
        CHECK(error.status == MEGABYTE_ERROR_TRUNCATED && error.text[0]);
        free(cut);
    }
}

/* Every block's header, up to the end mark's. */
static void read_blocks(const megabyte_file_header *h, const buffer *packed, size_t n) {
    size_t at = h->header_bytes, sum = 0;
    megabyte_block_header b = {0};
    do {
        const uint8_t *from = packed->bytes + at;
        megabyte_error error;
        OK(megabyte_block_header_read(from, packed->n - at, h, &b, &error));
        for (size_t k = 0; k < b.header_bytes; k++) {
            megabyte_block_header other;
            CHECK_STATUS(megabyte_block_header_read(from, k, h, &other, &error),
                         MEGABYTE_ERROR_TRUNCATED);
        }
        CHECK(b.method == from[0] - 1 && (b.method >= 0 || !(b.size || b.coded)));
        at += b.header_bytes + b.coded;
        sum += b.size;
        CHECK(at <= packed->n && b.size <= h->block_size);
    } while (b.method >= 0);
    CHECK(at == packed->n && sum == n, "the blocks hold %zu of %zu bytes", sum, n);
}

static void check_headers(const fixture *f, uint64_t seed) {
    uint8_t bytes[900];
    enum kind kind = (enum kind)(seed % KINDS);
    buffer packed = {0};
    way in, out;
    ref_header r;
    megabyte_file_header h;
    megabyte_error error;
    seed_random(seed);
    size_t n = random_below(sizeof bytes);
    make_data(f, kind, bytes, n);
    random_ways(&in, &out, n, f->pool);
    if (seed % 2) at_level(1 + (int)(seed / 2 % 9), &in, &out);
    name_way(f, &in, &out, kind, n);
    OK(run_codec(f->model, MEGABYTE_MODE_COMPRESS, &in, bytes, n, &packed));
    const char *wrong = ref_read_header(packed.bytes, packed.n, &r);
    CHECK(!wrong, "%s", wrong);
    size_t enough = packed.n < MEGABYTE_HEADER_MAX ? packed.n : MEGABYTE_HEADER_MAX;
    OK(megabyte_file_header_read(packed.bytes, enough, &h, &error));
    compare_headers(&h, &r, f, &in.options, n);
    OK(megabyte_file_header_read(packed.bytes, packed.n, &h, NULL));
    compare_headers(&h, &r, f, &in.options, n);
    cut_header(packed.bytes, r.bytes);
    if (h.single) CHECK(h.header_bytes + h.coded + 4 == packed.n);
    else read_blocks(&h, &packed, n);
    free(packed.bytes);
}

static void headers(void) {
    for (uint64_t seed = 1; seed <= 450; seed++) check_headers(&fixtures[seed % 3], seed);
}

enum { REFERENCE_BLOCK = 300, REFERENCE_BLOCKS = 8 };

/* A random block, by the method that suits it; coded after what `primed` holds. */
static mbz_block random_block(const fixture *f, megabyte_stream *s, const megabyte_stream *primed,
                              uint8_t *bytes, uint8_t *code) {
    enum kind kind = (enum kind)random_below(KINDS);
    mbz_block b = {.method = kind == ZEROS ? REF_CONSTANT : REF_STORED,
                   .bytes = bytes,
                   .n = 1 + random_below(REFERENCE_BLOCK),
                   .code = code};
    make_data(f, kind, bytes, b.n);
    if (kind != LIKELY) return b;
    OK(megabyte_stream_copy(s, primed));
    b.n_code = ref_encode(s, bytes, b.n, code);
    if (b.n_code < b.n) b.method = REF_CODED;
    return b;
}

/* Files that the reference writes, with and without a dictionary: the library reads them. */
static void files_of_the_reference(void) {
    static uint8_t bytes[REFERENCE_BLOCKS][REFERENCE_BLOCK],
        code[REFERENCE_BLOCKS][4 * REFERENCE_BLOCK + 64];
    buffer got = {0};
    EACH_FIXTURE(f) {
        megabyte_stream *s = new_stream(f->model, NULL, 0), *primed = new_stream(f->model, NULL, 0);
        ref_header header = header_for(f);
        header.block_size = REFERENCE_BLOCK;
        for (uint64_t seed = 1; seed <= 60; seed++) {
            mbz_block blocks[REFERENCE_BLOCKS];
            megabyte_error error;
            seed_random(seed);
            name_case("%s", f->y.name);
            header.known = seed % 3 == 0;
            mbz_file file = {.header = header,
                             .dictionary = f->pool,
                             .dictionary_size = seed % 2 ? 1 + random_below(50) : 0,
                             .blocks = blocks,
                             .n_blocks = random_below(REFERENCE_BLOCKS + 1)};
            megabyte_stream_reset(primed);
            OK(megabyte_stream_feed(primed, f->pool, file.dictionary_size));
            for (size_t i = 0; i < file.n_blocks; i++)
                blocks[i] = random_block(f, s, primed, bytes[i], code[i]);
            mbz_written w = mbz_write(&file);
            megabyte_codec_options o = {.block_size = REFERENCE_BLOCK,
                                        .streams = 1 + (uint32_t)random_below(4),
                                        .dictionary = f->pool,
                                        .dictionary_size = file.dictionary_size};
            if (!o.dictionary_size) o.dictionary = NULL;
            megabyte_status status = decompress_once(f->model, &o, w.bytes, w.n, w.n_original, &got,
                                                     &error);
            CHECK(!status && same(got.bytes, got.n, w.original, w.n_original), "%s",
                  status ? error.text : "others");
            mbz_free(&w);
        }
        megabyte_stream_free(s);
        megabyte_stream_free(primed);
    }
    free(got.bytes);
}

/* Written by --write-golden; the same for ever, from every machine. What is compressed: `text`
 * bytes of text.txt from `from` on, then zeros, then noise. */
static const struct golden {
    const char *name;
    int tiny; /* by the model tiny, and its pool is the text; else text-small */
    int old; /* as files were written before format version 2, 5 or 6: decoded only */
    size_t from, text, zeros, noise, dictionary_size;
    megabyte_codec_options options;
} goldens[] = {
    {.name = "empty"},
    {.name = "single", .text = 6000},
    {.name = "blocks",
     .from = 6000,
     .text = 9000,
     .zeros = 5000,
     .noise = 4096,
     .options = {.block_size = 4096}},
    {.name = "primed",
     .from = 16000,
     .text = 3000,
     .dictionary_size = 2000,
     .options = {.block_size = 1000, .context_shift = 3, .streams = 2}},
    {.name = "synthetic",
     .tiny = 1,
     .from = 300,
     .text = 500,
     .zeros = 300,
     .noise = 800,
     .dictionary_size = 40,
     .options = {.block_size = 250}},
    {.name = "contexts",
     .old = 1,
     .from = 2000,
     .text = 9000,
     .zeros = 3000,
     .noise = 1000,
     .dictionary_size = 1500,
     .options = {.block_size = 4096, .level = 1}},
    {.name = "mixed",
     .from = 8000,
     .text = 3500,
     .noise = 500,
     .options = {.block_size = 2000, .level = 7, .mixing_memory = 1}},
    {.name = "no-model",
     .from = 2000,
     .text = 9000,
     .zeros = 3000,
     .noise = 1000,
     .dictionary_size = 1500,
     .options = {.block_size = 4096, .level = 1}},
    {.name = "no-model-single", .from = 100, .text = 900, .options = {.level = 4}},
    {.name = "mulaw",
     .from = 3000,
     .text = 1500,
     .zeros = 700,
     .options = {.level = 3, .contents = MEGABYTE_CONTENTS_MULAW}},
    {.name = "linear",
     .from = 3000,
     .text = 1500,
     .zeros = 803,
     .noise = 300,
     .options =
         {.block_size = 1003, .level = 1, .contents = MEGABYTE_CONTENTS_PCM16, .channels = 2}},
    {.name = "linear-single",
     .from = 7000,
     .text = 2000,
     .noise = 100,
     .options = {.level = 4, .contents = MEGABYTE_CONTENTS_PCM24_BIG, .channels = 3}},
    {.name = "mulaw-mixed-3",
     .old = 1,
     .from = 3000,
     .text = 3000,
     .options =
         {.block_size = 2000, .level = 7, .mixing_memory = 1, .contents = MEGABYTE_CONTENTS_MULAW}},
    {.name = "ensemble",
     .from = 7000,
     .text = 3000,
     .zeros = 500,
     .noise = 400,
     .options = {.block_size = 2500, .level = 7, .mixing_memory = 1, .ensemble = 2}},
    {.name = "ensemble-mulaw-5",
     .old = 1,
     .from = 3000,
     .text = 2500,
     .options =
         {.level = 7, .mixing_memory = 1, .contents = MEGABYTE_CONTENTS_MULAW, .ensemble = 4}},
    {.name = "mulaw-mixed-5",
     .old = 1,
     .from = 3000,
     .text = 3000,
     .options =
         {.block_size = 2000, .level = 7, .mixing_memory = 1, .contents = MEGABYTE_CONTENTS_MULAW}},
    {.name = "ensemble-mulaw",
     .from = 3000,
     .text = 2500,
     .options =
         {.level = 7, .mixing_memory = 1, .contents = MEGABYTE_CONTENTS_MULAW, .ensemble = 4}},
    {.name = "mulaw-mixed",
     .from = 3000,
     .text = 3000,
     .options =
         {.block_size = 2000, .level = 7, .mixing_memory = 1, .contents = MEGABYTE_CONTENTS_MULAW}},
};

static uint8_t *golden_bytes(const struct golden *g, size_t n) {
    uint8_t *bytes = need(n, 1);
    memcpy(bytes, (g->tiny ? tiny->pool : text) + g->from, g->text);
    seed_random((uint64_t)(g - goldens));
    random_bytes(bytes + g->text + g->zeros, g->noise, 256);
    return bytes;
}

/* The file decodes to these bytes, by the library and, if the network alone coded it, by the
 * reference. */
static void decode_golden(const struct golden *g, const megabyte_model *m, const buffer *file,
                          const uint8_t *bytes, size_t n) {
    megabyte_codec_options o = g->options;
    buffer out = {0};
    megabyte_error error;
    if (g->dictionary_size) {
        o.dictionary = text + 25000;
        o.dictionary_size = g->dictionary_size;
    }
    o.block_size = o.streams = 0;
    if (o.level) o.mixing_memory = 1;
    CHECK(!decompress_once(m, &o, file->bytes, file->n, n, &out, &error), "%s", error.text);
    CHECK(same(out.bytes, out.n, bytes, n), "other bytes");
    if (out.bytes) memset(out.bytes, 0, out.room);
    ref_file r = ref_decompress(m, o.dictionary, o.dictionary_size, file->bytes, file->n, out.bytes,
                                n);
    if (g->options.level)
        CHECK(r.wrong && !strcmp(r.wrong, "not decodable by the reference"), "'%s'", r.wrong);
    else
        CHECK(!r.wrong && same(out.bytes, r.n, bytes, n), "the reference says '%s'",
              r.wrong ? r.wrong : "others");
    free(out.bytes);
}

static void golden_file(const struct golden *g, int write) {
    const megabyte_model *m = g->tiny ? tiny->model : text_small;
    size_t n = g->text + g->zeros + g->noise;
    uint8_t *bytes = golden_bytes(g, n);
    buffer packed = {0}, file = {0};
    char path[100];
    megabyte_codec_options o = g->options;
    name_case("golden-%s", g->name);
    snprintf(path, sizeof path, "tests/data/golden-%s.mbz", g->name);
    if (g->dictionary_size) {
        o.dictionary = text + 25000;
        o.dictionary_size = g->dictionary_size;
    }
    compress_once(m, &o, bytes, n, &packed);
    if (write && !g->old) {
        write_file(path, packed.bytes, packed.n);
        printf("%s: %zu bytes of %zu\n", path, packed.n, n);
    }
    file.bytes = read_file(path, &file.n);
    CHECK(g->old || same(file.bytes, file.n, packed.bytes, packed.n),
          "other bytes than in %s are written", path);
    decode_golden(g, m, &file, bytes, n);
    free(bytes);
    free(packed.bytes);
    free(file.bytes);
}

static void golden_files(int write) {
    for (size_t i = 0; i < COUNT_OF(goldens); i++) golden_file(&goldens[i], write);
}
static void golden(void) { golden_files(0); }

/* Those that an emulator has done soon: of contexts alone, and of the tiny model. */
static void small_files(void) {
    for (size_t i = 0; i < COUNT_OF(goldens); i++) {
        int level = goldens[i].options.level;
        if (goldens[i].tiny || (level > 0 && level < 5)) golden_file(&goldens[i], 0);
    }
}

int main(int argc, char **argv) {
    set_up("format", 3, argc > 1 ? argv[1] : NULL);
    if (!strcmp(only, "--write-golden")) {
        golden_files(1);
        return 0;
    }
    RUN(headers);
    RUN(files_of_the_reference);
    RUN(golden);
    if (*only) RUN(small_files);
    tear_down();
    return 0;
}
