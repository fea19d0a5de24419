/* test_codec_contexts.c - levels 1 to 4: context mixing alone needs no model, and no model changes
 * what it writes; without one a codec takes what its contexts take, for files and messages. */
#include "codec_fixtures.h"

#define REFUSED(call) CHECK_STATUS(call, MEGABYTE_ERROR_INVALID_ARGUMENT)

enum { SIZE = 2500, BLOCK = 700 };
static uint8_t bytes[SIZE];

/* A text, zeros, noise. */
static void make_bytes(void) {
    seed_random(5);
    memcpy(bytes, text + 900, 1500);
    random_bytes(bytes + 2200, 300, 256);
}

static megabyte_codec_options options_of(int level, int primed, int blocks) {
    megabyte_codec_options o = {.level = level, .mixing_memory = 1};
    if (primed) o.dictionary = text, o.dictionary_size = 800;
    if (blocks) o.block_size = BLOCK;
    return o;
}

/* ---------------------------------------------------------------------------------------- files */

static void check_decoded(const megabyte_model *m, megabyte_codec_options o, const buffer *packed) {
    way w = {.options = o, .push = 37, .pull = 300};
    buffer got = {0};
    w.options.block_size = SIZE;
    w.options.context_shift = m == tiny->model ? 2 : 0; /* there is no stream to be too long */
    OK(run_codec(m, MEGABYTE_MODE_DECOMPRESS, &w, packed->bytes, packed->n, &got));
    CHECK(same(got.bytes, got.n, bytes, SIZE), "%zu other bytes", got.n);
    OK(decompress_once(m, &w.options, packed->bytes, packed->n, SIZE, &got, NULL));
    CHECK(same(got.bytes, got.n, bytes, SIZE), "%zu other bytes in one call", got.n);
    free(got.bytes);
}

/* The same file by every codec, decoded by every codec. */
static void files(void) {
    const megabyte_model *models[] = {NULL, tiny->model, fixtures[1].model};
    buffer first = {0}, packed = {0};
    for (int i = 0; i < 16; i++) {
        megabyte_codec_options o = options_of(1 + i % 4, i >> 2 & 1, i >> 3);
        for (size_t m = 0; m < COUNT_OF(models); m++) {
            name_case("level %d, options %d, model %zu", o.level, i, m);
            o.verify = m != 1;
            o.threads = (uint32_t)m;
            o.streams = o.block_size ? (uint32_t)i % 5 : 0;
            o.context_shift = m == 1 ? 2 : 0; /* of no stream */
            compress_once(models[m], &o, bytes, SIZE, m ? &packed : &first);
            CHECK(!m || same(first.bytes, first.n, packed.bytes, packed.n), "another file");
        }
        CHECK(first.n < SIZE);
        for (size_t m = 0; m < COUNT_OF(models); m++) {
            name_case("level %d, options %d, decoded with model %zu", o.level, i, m);
            check_decoded(models[m], o, &first);
        }
    }
    free(first.bytes);
    free(packed.bytes);
}

/* Every instruction set, and threads of the codec's own, beside an engine's. */
static void threads(void) {
    megabyte_engine *engine = new_engine(tiny->model, 3, 0, MEGABYTE_ISA_AUTO);
    megabyte_codec_options o = options_of(2, 1, 1);
    buffer first = {0}, packed = {0};
    o.streams = 4;
    o.verify = 1;
    name_case("by an engine");
    o.engine = engine; /* of a model that is not the codec's */
    compress_once(NULL, &o, bytes, SIZE, &first);
    check_decoded(NULL, o, &first);
    o.engine = NULL;
    size_t one, three;
    OK(megabyte_codec_size(NULL, MEGABYTE_MODE_DECOMPRESS, &o, &one));
    o.threads = 3;
    OK(megabyte_codec_size(NULL, MEGABYTE_MODE_DECOMPRESS, &o, &three));
    CHECK(three > one, "no memory for threads");
    for (int isa = MEGABYTE_ISA_AUTO; isa <= MEGABYTE_ISA_NEON_I8MM; isa++) {
        megabyte_codec *c;
        megabyte_error error;
        o.threads = 1 + (uint32_t)isa % 4;
        o.isa = (megabyte_isa)isa;
        name_case("%s, %u threads", megabyte_isa_name(o.isa), o.threads);
        if (megabyte_isa_available(o.isa)) {
            compress_once(NULL, &o, bytes, SIZE, &packed);
            CHECK(same(first.bytes, first.n, packed.bytes, packed.n), "another file");
            check_decoded(NULL, o, &first);
        } else {
            CHECK_STATUS(megabyte_codec_create(&c, NULL, MEGABYTE_MODE_COMPRESS, &o, NULL, &error),
                         MEGABYTE_ERROR_UNSUPPORTED);
            CHECK(!c && error.text[0]);
        }
    }
    megabyte_engine_free(engine);
    free(first.bytes);
    free(packed.bytes);
}

/* Members with and without a model in one file: a codec without goes as far as it can. */
static void members(void) {
    megabyte_codec_options contexts = options_of(1, 0, 0), network = {.level = 5};
    buffer parts[2] = {{0}}, got = {0}, whole = {0};
    megabyte_error error;
    compress_once(NULL, &contexts, bytes, SIZE, &parts[0]);
    compress_once(tiny->model, &network, bytes, SIZE, &parts[1]);
    for (int first = 0; first < 2; first++) {
        way w = {.options = {.mixing_memory = 1}};
        whole.n = 0;
        for (int i = 0; i < 2; i++)
            ref_append(&whole.bytes, &whole.n, &whole.room, parts[i ^ first].bytes,
                       parts[i ^ first].n);
        name_case("a model for member %d", !first);
        OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &w, whole.bytes, whole.n, &got));
        CHECK(got.n == 2 * SIZE && !memcmp(got.bytes + SIZE, bytes, SIZE));
        CHECK_STATUS(run_codec(NULL, MEGABYTE_MODE_DECOMPRESS, &w, whole.bytes, whole.n, &got),
                     MEGABYTE_ERROR_WRONG_MODEL);
        CHECK(same(got.bytes, got.n, bytes, first ? 0 : SIZE), "%zu bytes", got.n);
        CHECK_STATUS(
            decompress_once(NULL, &w.options, whole.bytes, whole.n, 2 * SIZE, &got, &error),
            MEGABYTE_ERROR_WRONG_MODEL);
        CHECK(error.offset == (first ? 0 : parts[0].n) && strstr(error.text, "model"), "%s",
              error.text);
    }
    for (int i = 0; i < 2; i++) free(parts[i].bytes);
    free(got.bytes);
    free(whole.bytes);
}

/* -------------------------------------------------------------------------------------- refused */

static void refused(void) {
    megabyte_codec *c;
    megabyte_error error;
    size_t n;
    uint8_t out[100];
    for (int level = 0; level <= 9; level++)
        for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_MESSAGES; mode++) {
            megabyte_codec_options o = {.level = level};
            name_case("level %d, mode %d", level, mode);
            if (mode == MEGABYTE_MODE_DECOMPRESS || (level && level < 5)) {
                OK(megabyte_codec_create(&c, NULL, (megabyte_mode)mode, &o, NULL, &error));
                megabyte_codec_free(c);
            } else {
                REFUSED(megabyte_codec_create(&c, NULL, (megabyte_mode)mode, &o, NULL, &error));
                CHECK(!c && strstr(error.text, "needs a model"), "'%s'", error.text);
                REFUSED(megabyte_codec_size(NULL, (megabyte_mode)mode, &o, &n));
            }
            o.file_type = "txt";
            REFUSED(megabyte_codec_create(&c, NULL, (megabyte_mode)mode, &o, NULL, &error));
        }
    REFUSED(megabyte_compress(NULL, NULL, bytes, 3, out, sizeof out, &n, NULL, &error));
    CHECK(strstr(error.text, "needs a model"), "'%s'", error.text);
}

/* A file of level 1 by a megabyte that had no format version 2: it names a model, which decodes
 * it. */
static void old_files(void) {
    buffer old = {0}, got = {0};
    megabyte_error error;
    megabyte_codec_options o = {
        .dictionary = text + 25000, .dictionary_size = 1500, .mixing_memory = 1};
    old.bytes = read_file("tests/data/golden-contexts.mbz", &old.n);
    OK(decompress_once(text_small, &o, old.bytes, old.n, 13000, &got, &error));
    CHECK(got.n == 13000 && !memcmp(got.bytes, text + 2000, 9000));
    CHECK_STATUS(decompress_once(NULL, &o, old.bytes, old.n, 13000, &got, &error),
                 MEGABYTE_ERROR_WRONG_MODEL);
    CHECK(strstr(error.text, "which decompressing needs"), "'%s'", error.text);
    free(old.bytes);
    free(got.bytes);
}

/* --------------------------------------------------------------------------------------- memory */

/* One allocation, of what was announced: the contexts, twice with a dictionary, and little more. */
static void check_memory(megabyte_mode mode, const megabyte_model *m, int level, int primed) {
    static const size_t megabytes[] = {0, 1, 4, 16, 64};
    megabyte_codec_options o = {
        .level = level, .dictionary = text, .dictionary_size = primed ? 500 : 0};
    counter counted = {0}, failing = {.fail_at = 1};
    megabyte_allocator allocator = counting(&counted), none = counting(&failing);
    megabyte_codec *c;
    size_t size, each = megabytes[mode == MEGABYTE_MODE_MESSAGES ? 1 : level];
    size_t contexts = each << (20 + primed), blocks = 2 * 262144;
    if (mode == MEGABYTE_MODE_MESSAGES) blocks = 0;
    OK(megabyte_codec_size(m, mode, &o, &size));
    CHECK(size > contexts + blocks && size < contexts + blocks + 30000, "%zu bytes", size);
    OK(megabyte_codec_create(&c, m, mode, &o, &allocator, NULL));
    CHECK(counted.calls == 1 && counted.live_bytes == size, "%zu allocations, %zu bytes, not %zu",
          counted.calls, counted.live_bytes, size);
    megabyte_codec_free(c);
    CHECK(!counted.live);
    CHECK_STATUS(megabyte_codec_create(&c, m, mode, &o, &none, NULL), MEGABYTE_ERROR_OUT_OF_MEMORY);
    CHECK(!c && !failing.live);
}

static void memory(void) {
    for (int level = 1; level <= 4; level++)
        for (int i = 0; i < 8; i++) {
            name_case("level %d, %d", level, i);
            check_memory(i & 1 ? MEGABYTE_MODE_MESSAGES : MEGABYTE_MODE_COMPRESS,
                         i & 2 ? tiny->model : NULL, level, i >> 2);
        }
}

/* ------------------------------------------------------------------------------------- messages */

/* The same codes whether there is a model or not. */
static void messages(void) {
    for (int i = 0; i < 8; i++) {
        megabyte_codec_options o = options_of(1 + i % 4, i >> 2, 0);
        megabyte_codec *c[2] = {new_codec(NULL, MEGABYTE_MODE_MESSAGES, &o),
                                new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o)};
        size_t sum = 0;
        for (size_t n = 0; n <= 120; n += 15) {
            uint8_t coded[2][200], back[200];
            size_t n_coded[2], got;
            name_case("level %d, %d, a message of %zu", o.level, i, n);
            for (int k = 0; k < 2; k++)
                OK(megabyte_codec_encode(c[k], text + 100 + n, n, coded[k], sizeof coded[k],
                                         &n_coded[k]));
            CHECK(same(coded[0], n_coded[0], coded[1], n_coded[1]), "other codes");
            OK(megabyte_codec_decode(c[n % 2], coded[0], n_coded[0], back, sizeof back, &got));
            CHECK(same(back, got, text + 100 + n, n));
            sum += n_coded[0];
        }
        CHECK(i < 4 || sum < 200, "%zu bytes with a dictionary that holds them", sum);
        for (int k = 0; k < 2; k++) megabyte_codec_free(c[k]);
    }
}

int main(int argc, char **argv) {
    set_up("contexts", 2, argc > 1 ? argv[1] : NULL);
    make_bytes();
    RUN(files);
    RUN(threads);
    RUN(members);
    RUN(refused);
    RUN(old_files);
    RUN(memory);
    RUN(messages);
    tear_down();
    return 0;
}
