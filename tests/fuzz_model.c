/* fuzz_model.c - any bytes as a model file, with its checksums put right, so that everything behind
 * these is reached; what follows the file's end says which public functions are then called, and
 * with what: streams, batches, saved states, sampling, messages, compression, pictures. See
 * fuzz.h. */
#define MEGABYTE_KEEP_OPTIONS
#include "../megabyte.c"

#include "fuzz.h"

#include "any_model.h"
#include "random_model.h"

enum { STREAMS = 3, TEXT = 40, ROOM = 64 << 20 };

static megabyte_model *model;
static megabyte_info info;
static megabyte_engine *engine;
static megabyte_stream *stream[STREAMS];
static float *rows; /* [TEXT, V] */

static void check(const megabyte_stream *s) {
    const float *x = megabyte_stream_logits(s);
    for (u32 i = 0; i < info.vocabulary; i++) MUST(x[i] - x[i] == 0);
}

static void same(const megabyte_stream *a, const megabyte_stream *b) {
    MUST(megabyte_stream_position(a) == megabyte_stream_position(b));
    MUST(!memcmp(megabyte_stream_logits(a), megabyte_stream_logits(b),
                 info.vocabulary * sizeof(float)));
}

/* Bytes outside a small vocabulary are refused, and nothing else is. */
static void accepted(status r, const u8 *bytes, size_t n) {
    int known = 1;
    for (size_t i = 0; i < n; i++) known &= bytes[i] < info.vocabulary;
    MUST(r == (known ? MEGABYTE_OK : MEGABYTE_ERROR_INVALID_ARGUMENT));
}

/* ---- one operation each */

static void all_at_once(void) {
    const u8 *from[STREAMS];
    u8 each[STREAMS], all[STREAMS * TEXT];
    size_t n[STREAMS], sum = 0;
    for (int i = 0; i < STREAMS; i++) {
        from[i] = pick_bytes(TEXT, &n[i]);
        each[i] = n[i] ? *from[i] : 0;
        if (n[i]) memcpy(all + sum, from[i], n[i]);
        sum += n[i];
    }
    if (pick(2)) accepted(megabyte_stream_feed_batch(stream, from, n, STREAMS), all, sum);
    else accepted(megabyte_stream_step_batch(stream, each, STREAMS), each, STREAMS);
    for (int i = 0; i < STREAMS; i++) check(stream[i]);
}

static void save_and_load(megabyte_stream *from, megabyte_stream *to) {
    size_t size = megabyte_stream_save_size(from);
    u8 *saved = (u8 *)malloc(size);
    MUST(saved && megabyte_stream_save(from, saved, size - 1) == MEGABYTE_ERROR_CAPACITY);
    MUST(!megabyte_stream_save(from, saved, size) && !megabyte_stream_load(to, saved, size));
    same(from, to);
    free(saved);
}

static void draw_bytes(megabyte_stream *s) {
    megabyte_sampling how = {(float)pick(5) / 2, (u32)pick(9),   (float)pick(5) / 4,
                             (float)pick(3) / 8, (float)pick(4), (u32)pick(70),
                             pick(256)};
    u8 out[TEXT];
    size_t n = (size_t)pick(TEXT), got = 0;
    status r = megabyte_stream_generate(s, &how, out, n, &got, NULL, NULL);
    MUST((r == MEGABYTE_OK && got == n) || (r == MEGABYTE_END && got < n));
    r = megabyte_stream_sample(s, &how, out);
    MUST(!r || (r == MEGABYTE_END && info.end_id != UINT32_MAX));
    MUST(r || *out < info.vocabulary);
    r = megabyte_logits_sample(megabyte_stream_logits(s), info.vocabulary, out, got, &how, out);
    MUST(r == MEGABYTE_OK || r == MEGABYTE_END);
}

static void message(megabyte_stream *from, megabyte_stream *to) {
    u8 coded[TEXT + 16], out[TEXT];
    size_t n, n_coded, got;
    const u8 *bytes = pick_bytes(TEXT, &n);
    MUST(!megabyte_stream_copy(to, from));
    status r = megabyte_stream_encode(from, bytes, n, coded, sizeof coded, &n_coded);
    MUST(info.vocabulary < 256 ? r == MEGABYTE_ERROR_UNSUPPORTED : !r);
    if (r) return;
    MUST(!megabyte_stream_decode(to, coded, n_coded, out, sizeof out, &got));
    MUST(got == n && (!n || !memcmp(out, bytes, n)));
    same(from, to);
    tally("messages");
}

static void compress(void) {
    megabyte_codec_options o = {.engine = engine,
                                .streams = 1 + (u32)pick(3),
                                .block_size = 16 + (u32)pick(200),
                                .level = pick(8) == 7 ? 6 : 5, /* contexts are slow */
                                .verify = (int)pick(2),
                                .context_shift = (u32)pick(3)};
    o.mixing_memory = o.level == 5 ? MEGABYTE_NO_CONTEXT_MIXING : 1;
    u8 packed[4 * TEXT + 200], out[TEXT];
    size_t n, n_packed, got, size;
    const u8 *bytes = pick_bytes(TEXT, &n);
    if (megabyte_codec_size(model, MEGABYTE_MODE_COMPRESS, &o, &size) || size > ROOM) return;
    status r = megabyte_compress(model, &o, bytes, n, packed, sizeof packed, &n_packed, NULL, NULL);
    MUST(info.vocabulary < 256 ? r == MEGABYTE_ERROR_UNSUPPORTED : !r);
    if (r) return;
    MUST(!megabyte_decompress(model, &o, packed, n_packed, out, sizeof out, &got, NULL, NULL));
    MUST(got == n && (!n || !memcmp(out, bytes, n)));
    tally("compressed");
}

static void pictures(void) {
    static u8 pixels[TEXT * 3], back[TEXT * 3], packed[1 << 17];
    megabyte_image_info f;
    megabyte_image_options o = {.engine = engine, .tiles = 1 + (u32)pick(3)};
    size_t n, size;
    if (megabyte_image_describe(model, &f, NULL)) return;
    o.model_alone = pick(8) != 7;
    megabyte_image p = {1 + (u32)pick(8), 1 + (u32)pick(5), f.channels, 8 * f.channels, pixels};
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (u8)pick(256);
    if (f.tile_bytes <= 1 << 16) {
        u8 *tile = (u8 *)malloc(f.tile_bytes), *ids = (u8 *)malloc(f.tile_bytes);
        size_t row = (size_t)f.tile_width * f.channels;
        MUST(tile && ids);
        for (u32 i = 0; i < f.tile_bytes; i++) tile[i] = (u8)(i * 7);
        megabyte_image_scan(&f, tile, row, ids);
        memset(tile, 0, f.tile_bytes);
        megabyte_image_unscan(&f, ids, tile, row);
        for (u32 i = 0; i < f.tile_bytes; i++) MUST(tile[i] == (u8)(i * 7));
        MUST(megabyte_image_index(&f, f.tile_width - 1, f.tile_height - 1) < f.tile_bytes);
        free(tile), free(ids);
    }
    if (megabyte_image_memory(model, MEGABYTE_MODE_COMPRESS, &o, p.width, p.height, p.channels,
                              &size) ||
        size > ROOM)
        return;
    status r = megabyte_image_encode(model, &o, &p, packed, sizeof packed, &n, NULL, NULL);
    MUST(!r || r == MEGABYTE_ERROR_UNSUPPORTED);
    if (r) return;
    megabyte_image q = p;
    q.pixels = back;
    MUST(!megabyte_image_decode(model, &o, packed, n, &q, NULL, NULL));
    for (u32 y = 0; y < p.height; y++)
        MUST(!memcmp(pixels + y * p.row_bytes, back + y * p.row_bytes,
                     (size_t)p.width * p.channels));
    tally("pictures");
}

static void operate(void) {
    megabyte_stream *s = stream[pick(STREAMS)], *t = stream[pick(2)];
    u64 position = megabyte_stream_position(s), steps, passes;
    size_t n;
    double bits = 0;
    const u8 *bytes;
    status r;
    switch (pick(13)) {
    case 0:
        bytes = pick_bytes(TEXT, &n);
        accepted(megabyte_stream_feed(s, bytes, n), bytes, n);
        break;
    case 1:
        bytes = pick_bytes(TEXT, &n);
        r = megabyte_stream_score(s, bytes, n, &bits, rows);
        accepted(r, bytes, n);
        for (size_t i = 0; !r && i < n * info.vocabulary; i++) MUST(rows[i] - rows[i] == 0);
        MUST(bits >= 0 && bits - bits == 0);
        break;
    case 2:
        bytes = pick_bytes(TEXT, &n);
        accepted(megabyte_stream_score_bytes(s, bytes, n, rows), bytes, n);
        break;
    case 3: all_at_once(); break;
    case 4:
        r = megabyte_stream_rewind(s, pick(position + 2));
        MUST(!r || r == MEGABYTE_ERROR_CAPACITY || r == MEGABYTE_ERROR_INVALID_ARGUMENT);
        break;
    case 5:
        t = stream[pick(2)], s = stream[pick(2)]; /* of the same options */
        MUST(!megabyte_stream_copy(t, s));
        same(s, t);
        break;
    case 6: save_and_load(stream[0], stream[1]); break;
    case 7: draw_bytes(s); break;
    case 8: message(stream[1], stream[0]); break;
    case 9:
        megabyte_stream_probabilities(s, rows);
        for (u32 i = 0; i < info.vocabulary; i++) MUST(rows[i] >= 0 && rows[i] <= 1.001f);
        megabyte_stream_draft_counts(s, &steps, &passes);
        MUST(passes <= steps);
        break;
    case 10: megabyte_stream_reset(s); break;
    case 11: compress(); break;
    default: pictures();
    }
    check(s);
}

/* ---- the file */

static void look_at(void) {
    const char *value;
    megabyte_error error;
    u64 time[MEGABYTE_MAX_STAGES][MEGABYTE_PARTS];
    megabyte_model_describe(model, &info);
    MUST(info.n_stages >= 2 && info.n_stages <= MEGABYTE_MAX_STAGES && info.patch_bytes);
    MUST(!megabyte_model_verify(model, &error)); /* its checksum was put right */
    for (u32 i = 0; megabyte_model_metadata_at(model, i, &value); i++)
        MUST(megabyte_model_metadata(model, megabyte_model_metadata_at(model, i, NULL)));
    megabyte_model_metadata(model, "name");
    if (!engine) return;
    megabyte_engine_parts(engine, time);
    MUST(megabyte_isa_available(megabyte_engine_isa(engine)));
}

/* Two streams of the shortest context but one, and one of another context that guesses more. */
static int make_streams(void) {
    megabyte_stream_options o = {.engine = engine, .context = 2 * (u64)info.patch_bytes};
    size_t size;
    for (int i = 0; i < STREAMS; i++) {
        if (i == STREAMS - 1) o.context = info.context_bytes, o.draft_max = 1 + (u32)pick(15);
        if (o.context > info.context_bytes) o.context = info.context_bytes;
        if (megabyte_stream_size(model, &o, &size) || size > ROOM) return 0;
        MUST(!megabyte_stream_create(&stream[i], model, &o, NULL, NULL));
        check(stream[i]);
    }
    rows = (float *)malloc(TEXT * (size_t)info.vocabulary * sizeof *rows);
    return rows != NULL;
}

/* What is done if nothing follows the file. */
static const u8 usual[] = "\0\0\0\12It was a dark and stormy night\0\0\1\11It was a\1\0\2\4abcd"
                          "\0\0\3\5hello\2hi\6stormy\1\0\1\6\1\0\7\4\0\3\1\0\0\7\10"
                          "\0\1\10\7message\2\0\11\0\0\4\2\0\1\5\1\0\0\0\12\0\0\13\1\40\1"
                          "\0\0\0\12It was a dark\0\0\14\1\1\5\3\1\2\3\4\5";

static u64 count_up(void *context) { return ++*(u64 *)context; }

static void use(void) {
    u64 time = 0;
    megabyte_engine_options with = {.isa = pick(2) ? MEGABYTE_ISA_PLAIN : MEGABYTE_ISA_AUTO};
    size_t size = 0;
    if (!picks_left) pick_from(usual, sizeof usual - 1);
    with.threads = pick(32) == 31 ? 2 : 1;
    with.batch = 1 + (u32)pick(5) * (u32)pick(20);
    if (pick(2)) with.clock = count_up, with.clock_context = &time;
    look_at();
    if (megabyte_engine_size(model, &with, &size) || size > ROOM) return;
    MUST(!megabyte_engine_create(&engine, model, &with, NULL, NULL));
    look_at();
    if (make_streams()) {
        tally("models used");
        for (int turn = 0; picks_left && turn < 60; turn++) operate();
    }
    for (int i = 0; i < STREAMS; i++) megabyte_stream_free(stream[i]), stream[i] = NULL;
    megabyte_engine_free(engine), engine = NULL;
    free(rows), rows = NULL;
}

/* ---- ways to open it */

/* The Nth allocation fails, if there are so many. */
static void *failing_alloc(void *context, size_t size, size_t align) {
    return (*(u64 *)context)-- ? libc_alloc(NULL, size, align) : NULL;
}
static void failing_free(void *context, void *memory, size_t size) {
    (void)context;
    libc_free(NULL, memory, size);
}

/* From a file: mapped or read. */
static status open_file_of(const u8 *file, size_t n, int load, megabyte_error *error) {
    static char path[64];
    const char *folder = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    snprintf(path, sizeof path, "%s/fuzz_model-%d", folder, (int)getpid());
    FILE *f = fopen(path, "wb");
    MUST(f && fwrite(file, 1, n, f) == n && !fclose(f));
    status r = load ? megabyte_model_load(&model, path, NULL, error)
                    : megabyte_model_open(&model, path, NULL, error);
    unlink(path);
    return r;
}

static void mend(u8 *file, size_t n, int how) {
    u64 data = n >= HEADER_BYTES ? get64(file + 24) : 0;
    if (data < HEADER_BYTES || data > n) return;
    if (how != 7) sha256(file + data, n - data, NULL, 0, file + 64);
    sha256(file, 96, file + HEADER_BYTES, data - HEADER_BYTES, file + 96);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    megabyte_error error;
    size_t n = size;
    if (size >= HEADER_BYTES && get64(input + 16) < size) n = (size_t)get64(input + 16);
    u8 *file = (u8 *)aligned_alloc(ALIGN, (size_t)round_up(n + !n, ALIGN));
    MUST(file);
    memcpy(file, input, n);
    pick_from(input + n, size - n);
    int how = (int)pick(9);
    u64 allocations = how == 6 ? pick(3) : UINT64_MAX;
    megabyte_allocator failing = {failing_alloc, failing_free, &allocations};
    if (how != 8) mend(file, n, how); /* 8: as it is; 7: the weights' checksum, too */
    status r = how == 4 || how == 5 ? open_file_of(file, n, how == 5, &error)
                                    : megabyte_model_open_memory(&model, file, n, &failing, &error);
    MUST(error.status == r && !r == !error.text[0] && !r == !!model);
    if (!r && how >= 7) megabyte_model_verify(model, &error);
    else if (!r) use();
    megabyte_model_close(model), model = NULL;
    free(file);
    return 0;
}

#ifdef STANDALONE
/* Small models of all families and kinds of weights, and one of pictures. */
static void make_seeds(void) {
    u64 seed = 1;
    size_t size;
    for (u32 i = 0; i < 30; i++) {
        u8 *file = small_model(1 + i % 5, i < 20 ? 2 : 256, i < 20 ? 7000 : 16000, &seed, &size);
        MUST(file);
        add_seed(file, size);
        if (i % 3 == 0) { /* with what is done */
            u8 *both = (u8 *)malloc(size + 7 + sizeof usual);
            MUST(both);
            memcpy(both, file, size);
            memcpy(both + size, (u8[]){(u8)(i / 3 % 9), (u8)i, 0, 0, 4, 19, 1}, 7);
            memcpy(both + size + 7, usual, sizeof usual - 1);
            add_seed(both, size + 6 + sizeof usual);
            free(both);
        }
        free(file);
    }
    const char *texts[] = {"image.tile",     "4x4",   "image.patch",  "2x2",
                           "image.channels", "3",     "image.colour", "green-difference",
                           "image.scan",     "patch", "name",         "a picture's"};
    struct sizes z = random_sizes(4, 12, 8, 1, 1, 8, 8, 1, 1, 8);
    megabyte_error error;
    u8 *file = random_model_with(&z, 5, texts, 6, &size, &error);
    MUST(file);
    add_seed(file, size);
    libc_free(NULL, file, size);
    (void)random_history, (void)random_model; /* of the header, not needed here */
}
#else
static MAY_BE_UNUSED void not_needed(void) {
    (void)random_history, (void)random_model, (void)random_model_with, (void)random_sizes;
}
#endif
