/* test_codec_forged.c - files that are not what they say, under checksums that hold: sizes, methods
 * and memory that cannot be; files for another model, dictionary or decoder. */
#include "codec_fixtures.h"

/* In the tables: statuses; methods and forms of files, 0 for all of them. */
enum {
    CORRUPT = MEGABYTE_ERROR_CORRUPT,
    CAPACITY = MEGABYTE_ERROR_CAPACITY,
    TRUNCATED = MEGABYTE_ERROR_TRUNCATED,
    LIMIT = MEGABYTE_ERROR_LIMIT,
    BAD_MAGIC = MEGABYTE_ERROR_BAD_MAGIC,
    BAD_VERSION = MEGABYTE_ERROR_BAD_VERSION,
    WRONG_DICTIONARY = MEGABYTE_ERROR_WRONG_DICTIONARY,
};
enum {
    STORED = 1 << REF_STORED,
    CONSTANT = 1 << REF_CONSTANT,
    CODED = 1 << REF_CODED,
    CONTEXTS = 1 << REF_CONTEXTS,
    MIXING = 1 << REF_MIXED, /* contexts with the network */
    UNKNOWN = 7 << REF_METHODS, /* the three that fit into the header's bits, and are none */
};
enum { BLOCKS = 1, SINGLE = 2 };

static int holds(int set, int one) { return !set || set & one; }

/* The code of bytes[n] after nothing, by the reference. */
static size_t encode(const uint8_t *bytes, size_t n, uint8_t *code) {
    megabyte_stream *s = new_stream(tiny->model, NULL, 0);
    size_t n_code = ref_encode(s, bytes, n, code);
    megabyte_stream_free(s);
    return n_code;
}

/* --------------------------------------------------------------------------------------- faults */

enum { HELD = 100, MADE_FOR = 1024 }; /* bytes in the one block; what the decoder is made for */

/* What is wrong, in a file of one block, and what becomes of it: the first row that fits. */
static const struct fault_row {
    mbz_fault fault;
    int form, method;
    uint64_t to; /* claims up to this one; 0: all */
    int status;
} fault_rows[] = {
    /* Blocks may be longer than the one that is there, up to what the decoder is made for. */
    {.fault = HEADER_BLOCK_SIZE, .to = HELD - 1, .status = CORRUPT},
    {.fault = HEADER_BLOCK_SIZE, .to = MADE_FOR, .status = MEGABYTE_OK},
    {.fault = HEADER_BLOCK_SIZE, .to = MEGABYTE_BLOCK_MAX, .status = CAPACITY},
    {.fault = HEADER_BLOCK_SIZE, .status = CORRUPT},
    {.fault = HEADER_SIZE, .status = CORRUPT},

    /* A stored block is longer than the file, unless the end mark lends it a byte. */
    {.fault = BLOCK_SIZE, .form = BLOCKS, .method = STORED, .to = HELD + 1, .status = CORRUPT},
    {.fault = BLOCK_SIZE, .form = BLOCKS, .method = STORED, .to = MADE_FOR, .status = TRUNCATED},
    {.fault = BLOCK_SIZE, .form = BLOCKS, .status = CORRUPT},
    {.fault = BLOCK_SIZE, .form = SINGLE, .method = STORED, .to = HELD - 1, .status = CORRUPT},
    {.fault = BLOCK_SIZE, .form = SINGLE, .method = STORED, .to = MADE_FOR, .status = TRUNCATED},
    {.fault = BLOCK_SIZE, .form = SINGLE, .to = MADE_FOR, .status = CORRUPT},
    {.fault = BLOCK_SIZE, .form = SINGLE, .to = MEGABYTE_BLOCK_MAX, .status = CAPACITY},
    {.fault = BLOCK_SIZE, .form = SINGLE, .status = CORRUPT},

    /* Code is shorter than what it codes. Other blocks have none: nothing is written. */
    {.fault = BLOCK_CODE_SIZE, .method = CODED, .to = HELD - 2, .status = CORRUPT},
    {.fault = BLOCK_CODE_SIZE, .method = CODED, .to = HELD - 1, .status = TRUNCATED},
    {.fault = BLOCK_CODE_SIZE, .method = CODED, .status = CORRUPT},
    {.fault = BLOCK_CODE_SIZE, .method = STORED | CONSTANT, .status = MEGABYTE_OK},

    {.fault = LONG_SIZE, .status = CORRUPT},
    {.fault = HEADER_CHECKSUM, .status = CORRUPT},
    {.fault = BLOCK_CHECKSUM, .status = CORRUPT},
    {.fault = FILE_CHECKSUM, .status = CORRUPT},
    {.fault = NO_END, .status = TRUNCATED},
    {.fault = NO_FAULT, .status = MEGABYTE_OK},
};
static int fault_row_used[COUNT_OF(fault_rows)];

static const struct fault_row *fault_row_for(const mbz_file *f) {
    int form = f->header.single ? SINGLE : BLOCKS, method = 1 << f->blocks->method;
    for (size_t i = 0; i < COUNT_OF(fault_rows); i++) {
        const struct fault_row *row = &fault_rows[i];
        if (row->fault != f->fault || (row->to && f->claim > row->to)) continue;
        if (!holds(row->form, form) || !holds(row->method, method)) continue;
        fault_row_used[i] = 1;
        return row;
    }
    CHECK(0, "in no row");
    return NULL;
}

/* In one call, which takes no more memory than it says. */
static void check_fault(const mbz_file *f) {
    megabyte_codec_options o = {.block_size = MADE_FOR,
                                .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING};
    megabyte_error error;
    megabyte_file_header h;
    counter c = {0};
    megabyte_allocator allocator = counting(&c);
    uint8_t room[2 * MADE_FOR];
    size_t n = 12345, needed;
    name_case("fault %d, claim %llu, method %d, single %d", f->fault, (unsigned long long)f->claim,
              f->blocks->method, f->header.single);
    mbz_written w = mbz_write(f);
    megabyte_status status = megabyte_decompress(tiny->model, &o, w.bytes, w.n, room, sizeof room,
                                                 &n, &allocator, &error);
    CHECK_STATUS(status, (megabyte_status)fault_row_for(f)->status);
    OK(megabyte_codec_size(tiny->model, MEGABYTE_MODE_DECOMPRESS, &o, &needed));
    CHECK(c.peak_bytes <= needed && !c.live, "%zu bytes allocated", c.peak_bytes);
    if (status) CHECK(error.text[0] && n <= sizeof room);
    else CHECK(same(room, n, w.original, w.n_original), "%zu bytes, OK", n);
    if (!megabyte_file_header_read(w.bytes, w.n, &h, NULL))
        CHECK(h.header_bytes <= MEGABYTE_HEADER_MAX && h.block_size <= MEGABYTE_BLOCK_MAX);
    mbz_free(&w);
}

/* A file of this one block with every fault. */
static void check_faults(mbz_file *f) {
    static const uint64_t sizes[] = {0,
                                     1,
                                     2,
                                     HELD - 1,
                                     HELD + 1,
                                     128,
                                     MADE_FOR,
                                     MADE_FOR + 1,
                                     MEGABYTE_BLOCK_MAX,
                                     MEGABYTE_BLOCK_MAX + 1,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x100000000,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     UINT64_MAX};
    static const uint64_t more[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    static const uint64_t none[] = {0};
    static const struct {
        mbz_fault fault;
        int form;
        const uint64_t *claims;
        size_t n;
    } faults[] = {
        {.fault = NO_FAULT, .claims = none, .n = 1},
        {.fault = HEADER_BLOCK_SIZE, .form = BLOCKS, .claims = sizes, .n = COUNT_OF(sizes)},
        {.fault = HEADER_SIZE, .form = BLOCKS, .claims = sizes, .n = COUNT_OF(sizes)},
        {.fault = BLOCK_SIZE, .claims = sizes, .n = COUNT_OF(sizes)},
        {.fault = BLOCK_CODE_SIZE, .claims = sizes, .n = COUNT_OF(sizes)},
        {.fault = LONG_SIZE, .form = BLOCKS, .claims = more, .n = COUNT_OF(more)},
        {.fault = HEADER_CHECKSUM, .claims = none, .n = 1},
        {.fault = BLOCK_CHECKSUM, .claims = none, .n = 1},
        {.fault = FILE_CHECKSUM, .form = BLOCKS, .claims = none, .n = 1},
        {.fault = NO_END, .form = BLOCKS, .claims = none, .n = 1},
    };
    for (size_t i = 0; i < COUNT_OF(faults); i++) {
        if (!holds(faults[i].form, f->header.single ? SINGLE : BLOCKS)) continue;
        for (size_t k = 0; k < faults[i].n; k++) {
            f->fault = faults[i].fault;
            f->claim = faults[i].claims[k];
            check_fault(f);
        }
    }
}

static void faults(void) {
    static uint8_t likely[HELD], constant[HELD], code[4 * HELD + 64];
    mbz_file file = {.header = header_for(tiny), .n_blocks = 1};
    file.header.block_size = MADE_FOR;
    seed_random(1);
    make_data(tiny, LIKELY, likely, HELD);
    memset(constant, 7, HELD);
    const mbz_block blocks[] = {
        {.method = REF_STORED, .bytes = likely, .n = HELD},
        {.method = REF_CONSTANT, .bytes = constant, .n = HELD},
        {.method = REF_CODED,
         .bytes = likely,
         .n = HELD,
         .code = code,
         .n_code = encode(likely, HELD, code)},
    };
    for (size_t b = 0; b < COUNT_OF(blocks); b++)
        for (int single = 0; single < 2; single++) {
            file.blocks = &blocks[b];
            file.header.single = single;
            check_faults(&file);
        }
    for (size_t i = 0; i < COUNT_OF(fault_rows); i++)
        CHECK(fault_row_used[i], "row %zu fits nothing", i);
}

/* --------------------------------------------------------------------------- methods and memory */

/* The memory for context mixing that a file asks for, beside what it needs and the decoder has. */
enum {
    NONE = 1,
    AS_MADE = 2, /* 1 MB, by which the blocks were coded */
    MORE = 4,
    TOO_MUCH = 8, /* for the decoder */
    NO_SIZE = 16, /* 5 to 15 stand for none */
};
static int class_of_memory(int code, int decoder) {
    if (code > 4) return NO_SIZE;
    if (code > decoder) return TOO_MUCH;
    return code == 0 ? NONE : code == 1 ? AS_MADE : MORE;
}

/* What reading the header, reading the block's header and decompressing return: the first row that
 * fits. */
static const struct memory_row {
    int form, memory, method;
    int no_model; /* only then */
    int header, block, file;
} memory_rows[] = {
    {.memory = NO_SIZE, .header = CORRUPT, .file = CORRUPT},
    {.form = SINGLE, .method = UNKNOWN, .header = CORRUPT, .file = CORRUPT},
    {.form = SINGLE,
     .memory = NONE,
     .method = CONTEXTS | MIXING,
     .header = CORRUPT,
     .file = CORRUPT},
    {.form = SINGLE, .method = CODED | MIXING, .no_model = 1, .header = CORRUPT, .file = CORRUPT},
    {.memory = TOO_MUCH, .method = UNKNOWN, .block = CORRUPT, .file = CAPACITY},
    {.memory = TOO_MUCH,
     .method = CODED | MIXING,
     .no_model = 1,
     .block = CORRUPT,
     .file = CAPACITY},
    {.memory = TOO_MUCH, .file = CAPACITY},
    {.method = UNKNOWN, .block = CORRUPT, .file = CORRUPT},
    {.method = CODED | MIXING, .no_model = 1, .block = CORRUPT, .file = CORRUPT},
    {.method = STORED | CONSTANT, .file = MEGABYTE_OK},
    {.method = CODED, .file = CORRUPT}, /* it is the code of context mixing */
    {.memory = NONE, .method = CONTEXTS | MIXING, .block = CORRUPT, .file = CORRUPT},
    {.memory = AS_MADE, .method = CONTEXTS | MIXING, .file = MEGABYTE_OK},
    {.memory = MORE, .method = CONTEXTS | MIXING, .file = CORRUPT},
};
static int memory_row_used[COUNT_OF(memory_rows)];

static const struct memory_row *memory_row_for(const mbz_file *f, int decoder) {
    int form = f->header.single ? SINGLE : BLOCKS, method = 1 << f->blocks->method,
        memory = class_of_memory(f->header.mixing_memory, decoder);
    for (size_t i = 0; i < COUNT_OF(memory_rows); i++) {
        const struct memory_row *row = &memory_rows[i];
        if (!holds(row->form, form) || !holds(row->memory, memory)) continue;
        if (!holds(row->method, method) || row->no_model > f->header.no_model) continue;
        memory_row_used[i] = 1;
        return row;
    }
    CHECK(0, "in no row");
    return NULL;
}

static void read_headers(const mbz_file *f, const mbz_written *w, const struct memory_row *row) {
    int code = f->header.mixing_memory;
    megabyte_file_header h;
    megabyte_block_header b;
    CHECK_STATUS(megabyte_file_header_read(w->bytes, w->n, &h, NULL), (megabyte_status)row->header);
    if (row->header) return;
    CHECK(h.mixing_memory == (code ? 1u << 2 * (code - 1) : 0), "%u MB", h.mixing_memory);
    if (!h.single)
        CHECK_STATUS(megabyte_block_header_read(w->bytes + h.header_bytes, w->n - h.header_bytes,
                                                &h, &b, NULL),
                     (megabyte_status)row->block);
}

static void check_memory(const mbz_file *f, int decoder) {
    static const uint32_t megabytes[] = {MEGABYTE_NO_CONTEXT_MIXING, 1, 4};
    megabyte_codec_options o = {.block_size = MADE_FOR, .mixing_memory = megabytes[decoder]};
    const struct memory_row *row = memory_row_for(f, decoder);
    mbz_written w = mbz_write(f);
    buffer out = {0};
    CHECK_STATUS(decompress_once(f->header.no_model && decoder ? NULL : tiny->model, &o, w.bytes,
                                 w.n, MADE_FOR, &out, NULL),
                 (megabyte_status)row->file);
    if (row->file) CHECK(!out.n);
    else CHECK(same(out.bytes, out.n, w.original, w.n_original));
    read_headers(f, &w, row);
    if (f->header.mixing_memory == 1 && !row->header &&
        holds(CONTEXTS | MIXING, 1 << f->blocks->method)) {
        uint8_t room[MADE_FOR];
        ref_file r = ref_decompress(tiny->model, NULL, 0, w.bytes, w.n, room, sizeof room);
        CHECK(r.wrong && !strcmp(r.wrong, "not decodable by the reference"), "%s", r.wrong);
    }
    mbz_free(&w);
    free(out.bytes);
}

/* A block that this level codes by this method, with 1 MB; its code points into the file. */
static mbz_block block_of_level(int level, int method, const uint8_t *bytes, size_t n,
                                buffer *packed) {
    megabyte_codec_options o = {.level = level, .mixing_memory = 1};
    megabyte_file_header h;
    compress_once(tiny->model, &o, bytes, n, packed);
    OK(megabyte_file_header_read(packed->bytes, packed->n, &h, NULL));
    CHECK(h.single && h.method == method, "method %d", h.method);
    return (mbz_block){.method = method,
                       .bytes = bytes,
                       .n = n,
                       .code = packed->bytes + h.header_bytes,
                       .n_code = h.coded};
}

static void methods_and_memory(void) {
    enum { LONGER = 300 };
    static uint8_t noise[500], constant[LONGER], twice[LONGER], likely[LONGER];
    buffer by_contexts = {0}, mixed = {0};
    seed_random(7);
    random_bytes(noise, sizeof noise, 256);
    memset(constant, 7, sizeof constant);
    memcpy(twice, text, LONGER / 2);
    memcpy(twice + LONGER / 2, text, LONGER / 2);
    make_data(tiny, LIKELY, likely, LONGER);
    mbz_block blocks[8] = {
        {.method = REF_STORED, .bytes = noise, .n = sizeof noise},
        {.method = REF_CONSTANT, .bytes = constant, .n = LONGER},
        [REF_CONTEXTS] = block_of_level(1, REF_CONTEXTS, twice, LONGER, &by_contexts),
        [REF_MIXED] = block_of_level(7, REF_MIXED, likely, LONGER, &mixed),
    };
    for (int method = 0; method < 8; method++) { /* all others hold what contexts have coded */
        if (!blocks[method].n) blocks[method] = blocks[REF_CONTEXTS];
        blocks[method].method = method;
    }
    mbz_file file = {.header = header_for(tiny), .n_blocks = 1};
    for (int memory = 0; memory < 16; memory++)
        for (int method = 0; method < 8; method++)
            for (int form = 0; form < 4; form++)
                for (int decoder = 0; decoder < 3; decoder++) { /* has none, 1 MB, 4 MB */
                    name_case("memory %d, method %d, form %d, decoder %d", memory, method, form,
                              decoder);
                    file.blocks = &blocks[method];
                    file.header.single = form & 1;
                    file.header.no_model = form >> 1;
                    file.header.mixing_memory = memory;
                    check_memory(&file, decoder);
                }
    for (size_t i = 0; i < COUNT_OF(memory_rows); i++)
        CHECK(memory_row_used[i], "row %zu fits nothing", i);
    free(by_contexts.bytes);
    free(mixed.bytes);
}

/* --------------------------------------------------------------------------------------- ratios */

enum { RATIO_SIZE = 2 * MEGABYTE_RATIO_FREE };

/* All that needs no network is decoded, however much a few bytes become. */
static void honest_ratio(const char *what, const uint8_t *bytes) {
    buffer packed = {0}, out = {0};
    way in = {.options = {.block_size = (uint32_t)(RATIO_SIZE / 2), .size = RATIO_SIZE, .level = 1},
              .push = 50000};
    way back = {
        .options = {.block_size = (uint32_t)(RATIO_SIZE / 2), .mixing_memory = 1, .max_ratio = 1},
        .push = 50000};
    name_case("%s", what);
    OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &in, bytes, RATIO_SIZE, &packed));
    CHECK(packed.n > 30 && packed.n < 500, "%zu bytes", packed.n);
    OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &back, packed.bytes, packed.n, &out));
    CHECK(out.n == RATIO_SIZE);
    free(packed.bytes);
    free(out.bytes);
}

/* 2 MB from a few bytes that the network must predict are refused before any work; not if the
 * ratio is allowed, or not looked at. */
static void forged_ratio(const uint8_t *bytes) {
    static const struct {
        uint64_t max_ratio;
        int status;
    } rows[] = {
        {.max_ratio = 0, .status = CORRUPT},
        {.max_ratio = 1024, .status = LIMIT},
        {.max_ratio = 1 << 20, .status = CORRUPT},
    };
    uint8_t code[464];
    buffer out = {0};
    mbz_block block = {.method = REF_CODED, .bytes = bytes, .n = RATIO_SIZE, .code = code};
    mbz_file file = {.header = header_for(tiny), .blocks = &block, .n_blocks = 1};
    file.header.single = 1;
    block.n_code = encode(bytes, 100, code);
    mbz_written w = mbz_write(&file);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        way r = {.options = {.block_size = (uint32_t)RATIO_SIZE, .max_ratio = rows[i].max_ratio},
                 .push = 7};
        name_case("forged, ratio %d", (int)rows[i].max_ratio);
        CHECK_STATUS(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &r, w.bytes, w.n, &out),
                     (megabyte_status)rows[i].status);
        CHECK(out.n == 0);
    }
    mbz_free(&w);
    free(out.bytes);
}

static void ratios(void) {
    uint8_t *bytes = need(RATIO_SIZE, 1);
    bytes[RATIO_SIZE / 4] = bytes[3 * RATIO_SIZE / 4] = 1;
    honest_ratio("two blocks", bytes);
    memset(bytes, 0, RATIO_SIZE);
    honest_ratio("one byte", bytes);
    forged_ratio(bytes);
    free(bytes);
}

/* ---------------------------------------------------------------------------------- wrong files */

/* Decompressing returns the status, and nothing comes out. `said` unless NULL: the error's text. */
static void refuse(const megabyte_model *m, const megabyte_codec_options *o, const uint8_t *bytes,
                   size_t n, int status, char said[192]) {
    buffer out = {0};
    megabyte_error error;
    way w = {.options = o ? *o : (megabyte_codec_options){0}, .push = 5};
    CHECK_STATUS(run_codec(m, MEGABYTE_MODE_DECOMPRESS, &w, bytes, n, &out),
                 (megabyte_status)status);
    CHECK(!out.n, "%zu bytes come out", out.n);
    CHECK_STATUS(decompress_once(m, o, bytes, n, 5000, &out, &error), (megabyte_status)status);
    CHECK(!out.n, "%zu bytes come out of one call", out.n);
    CHECK(strlen(error.text) > 15, "'%s'", error.text);
    if (said) memcpy(said, error.text, 192);
    free(out.bytes);
}

static void names_model(const char *said, const fixture *f) {
    char id[13];
    for (int i = 0; i < 6; i++) sprintf(id + 2 * i, "%02x", f->info.id[i]);
    CHECK(strstr(said, id), "'%s' does not name %s", said, id);
}

enum { WRONG_FILE = 1000 }; /* bytes in it */

/* Decoders that a right file is not for. */
static const struct wrong_decoder {
    size_t file_dictionary, dictionary; /* their sizes, of the file's and the decoder's */
    uint32_t shorter; /* the decoder's blocks are so much shorter than the file's */
    uint32_t context_shift;
    int status;
} wrong_decoders[] = {
    {.file_dictionary = 40, .dictionary = 41, .status = WRONG_DICTIONARY},
    {.file_dictionary = 40, .dictionary = 0, .status = WRONG_DICTIONARY},
    {.file_dictionary = 0, .dictionary = 40, .status = WRONG_DICTIONARY},
    {.shorter = 1, .status = CAPACITY},
    {.context_shift = 1, .status = CAPACITY},
};

static void check_wrong_decoder(const struct wrong_decoder *row, const uint8_t *bytes,
                                uint32_t block_size) {
    buffer packed = {0};
    megabyte_codec_options in = {.block_size = block_size, .dictionary_size = row->file_dictionary},
                           back = {.dictionary_size = row->dictionary,
                                   .context_shift = row->context_shift};
    if (in.dictionary_size) in.dictionary = text;
    if (back.dictionary_size) back.dictionary = text;
    if (row->shorter) back.block_size = (block_size ? block_size : WRONG_FILE) - row->shorter;
    name_case("decoder %d, blocks of %u", (int)(row - wrong_decoders), block_size);
    compress_once(tiny->model, &in, bytes, WRONG_FILE, &packed);
    refuse(tiny->model, &back, packed.bytes, packed.n, row->status, NULL);
    free(packed.bytes);
}

/* Headers that say something else. */
static const struct wrong_header {
    int place; /* of a byte; < 0: from the header's end */
    uint8_t flip; /* these bits of it */
    int sign; /* anew */
    int status;
} wrong_headers[] = {
    {.place = 0, .flip = 32, .status = BAD_MAGIC},
    {.place = 1, .flip = 32, .status = BAD_MAGIC},
    {.place = 2, .flip = 32, .status = BAD_MAGIC},
    {.place = 3, .flip = 32, .status = BAD_MAGIC},
    {.place = 4, .flip = 8, .sign = 1, .status = BAD_VERSION}, /* of the format */
    {.place = 4, .flip = 1, .sign = 1, .status = CORRUPT},
    {.place = 6, .flip = 64, .sign = 1, .status = BAD_VERSION}, /* of the numerics */
    {.place = -1, .flip = 1, .status = CORRUPT},
};

static void check_wrong_header(const struct wrong_header *row, const buffer *packed) {
    megabyte_file_header h, none;
    uint8_t *bad = need(packed->n, 1);
    name_case("byte %d of the header", row->place);
    OK(megabyte_file_header_read(packed->bytes, packed->n, &h, NULL));
    memcpy(bad, packed->bytes, packed->n);
    bad[row->place < 0 ? (int)h.header_bytes + row->place : row->place] ^= row->flip;
    if (row->sign) ref_sign_header(bad, h.header_bytes);
    refuse(tiny->model, NULL, bad, packed->n, row->status, NULL);
    if (row->status == BAD_MAGIC)
        CHECK_STATUS(megabyte_file_header_read(bad, packed->n, &none, NULL),
                     MEGABYTE_ERROR_BAD_MAGIC);
    free(bad);
}

static const struct {
    const char *bytes;
    size_t n;
    int status;
} foreign[] = {
    {.bytes = "It was a dark and stormy night", .n = 30, .status = BAD_MAGIC},
    {.bytes = "\x1f\x8b\x08", .n = 3, .status = BAD_MAGIC},
    {.bytes = "", .n = 0, .status = TRUNCATED},
};

static void wrong_files(void) {
    uint8_t bytes[WRONG_FILE];
    buffer packed = {0};
    char said[192];
    seed_random(1);
    make_data(tiny, LIKELY, bytes, sizeof bytes);
    for (uint32_t block_size = 0; block_size <= 300; block_size += 300) { /* 0: a single block */
        megabyte_codec_options o = {.block_size = block_size};
        for (size_t i = 0; i < COUNT_OF(wrong_decoders); i++)
            check_wrong_decoder(&wrong_decoders[i], bytes, block_size);
        compress_once(tiny->model, &o, bytes, sizeof bytes, &packed);
        for (size_t i = 0; i < COUNT_OF(wrong_headers); i++)
            check_wrong_header(&wrong_headers[i], &packed);
        name_case("another model, blocks of %u", block_size);
        refuse(fixtures[1].model, NULL, packed.bytes, packed.n, MEGABYTE_ERROR_WRONG_MODEL, said);
        names_model(said, tiny);
        names_model(said, &fixtures[1]);
    }
    for (size_t i = 0; i < COUNT_OF(foreign); i++) {
        name_case("'%s'", foreign[i].bytes);
        refuse(tiny->model, NULL, (const uint8_t *)foreign[i].bytes, foreign[i].n,
               foreign[i].status, NULL);
    }
    free(packed.bytes);
}

/* A context that no model has: format version 2 has none to shift. */
static void shift_without_a_model(void) {
    mbz_block block = {.method = REF_STORED, .bytes = text, .n = 100};
    mbz_file file = {.header = header_for(tiny), .blocks = &block, .n_blocks = 1};
    for (int i = 0; i < 4; i++) {
        file.header.no_model = i & 1;
        file.header.context_shift = i >> 1;
        mbz_written w = mbz_write(&file);
        megabyte_file_header h;
        name_case("model %d, shift %d", !(i & 1), i >> 1);
        CHECK_STATUS(megabyte_file_header_read(w.bytes, w.n, &h, NULL),
                     i == 3 ? MEGABYTE_ERROR_CORRUPT : MEGABYTE_OK);
        mbz_free(&w);
    }
}

int main(int argc, char **argv) {
    set_up("forged", 2, argc > 1 ? argv[1] : NULL);
    RUN(faults);
    RUN(methods_and_memory);
    RUN(ratios);
    RUN(wrong_files);
    RUN(shift_without_a_model);
    tear_down();
    return 0;
}
