/* test_codec_calls.c - what calls promise, whatever is compressed: limits, progress and cancelling,
 * refused arguments, memory, sizes of blocks. */
#include "codec_fixtures.h"

/* Compressing or decompressing `in`, which gives `out`. */
typedef struct task {
    megabyte_mode mode;
    const uint8_t *in, *out;
    size_t n_in, n_out;
} task;

static task compressing(const uint8_t *bytes, size_t n, const buffer *packed) {
    return (task){MEGABYTE_MODE_COMPRESS, bytes, packed->bytes, n, packed->n};
}
static task decompressing(const uint8_t *bytes, size_t n, const buffer *packed) {
    return (task){MEGABYTE_MODE_DECOMPRESS, packed->bytes, bytes, packed->n, n};
}

/* In one call; what comes out is thrown away. */
static megabyte_status in_one_call(const task *t, const megabyte_codec_options *o,
                                   const megabyte_allocator *allocator) {
    size_t capacity = t->n_out + 2000, given;
    uint8_t *room = need(capacity, 1);
    megabyte_status status = t->mode == MEGABYTE_MODE_COMPRESS
                                 ? megabyte_compress(tiny->model, o, t->in, t->n_in, room, capacity,
                                                     &given, allocator, NULL)
                                 : megabyte_decompress(tiny->model, o, t->in, t->n_in, room,
                                                       capacity, &given, allocator, NULL);
    free(room);
    return status;
}

/* --------------------------------------------------------------------------------------- limits */

static void check_limit(const task *t, uint64_t limit) {
    buffer out = {0};
    way w = {.options = {.block_size = 1000, .limit = limit, .streams = 1 + (uint32_t)(limit % 3)},
             .push = 99};
    name_case("limit %d", (int)limit);
    megabyte_status status = run_codec(tiny->model, t->mode, &w, t->in, t->n_in, &out);
    CHECK_STATUS(status, limit < t->n_out ? MEGABYTE_ERROR_LIMIT : MEGABYTE_OK);
    CHECK(out.n <= limit && same(out.bytes, out.n, t->out, out.n), "%zu bytes", out.n);
    if (!status) CHECK(out.n == t->n_out);
    free(out.bytes);
}

static void check_room_to_decompress(const task *t, size_t room) {
    megabyte_codec_options o = {.block_size = 1000};
    buffer out = {0};
    name_case("room for %zu of %zu", room, t->n_out);
    CHECK_STATUS(decompress_once(tiny->model, &o, t->in, t->n_in, room, &out, NULL),
                 MEGABYTE_ERROR_CAPACITY);
    CHECK(out.n <= room && same(out.bytes, out.n, t->out, out.n));
    free(out.bytes);
}

static void check_room_to_compress(const task *t, const megabyte_codec_options *options,
                                   size_t room) {
    megabyte_codec_options o = usual(options);
    uint8_t *to = need(room, 1);
    size_t n = 12345;
    megabyte_error error;
    name_case("room for %zu of %zu", room, t->n_out);
    CHECK_STATUS(megabyte_compress(tiny->model, &o, t->in, t->n_in, to, room, &n, NULL, &error),
                 MEGABYTE_ERROR_CAPACITY);
    CHECK(error.status == MEGABYTE_ERROR_CAPACITY && error.text[0] && n <= room);
    free(to);
}

static void limit_of_members(const buffer *packed, size_t n) {
    buffer two = {0}, out = {0};
    way w = {.options = {.block_size = 1000, .limit = 2 * n - 1}};
    name_case("a limit over two members");
    for (int i = 0; i < 2; i++) ref_append(&two.bytes, &two.n, &two.room, packed->bytes, packed->n);
    CHECK_STATUS(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &w, two.bytes, two.n, &out),
                 MEGABYTE_ERROR_LIMIT);
    w.options.limit++;
    OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &w, two.bytes, two.n, &out));
    free(two.bytes);
    free(out.bytes);
}

static void limits(void) {
    enum { SIZE = 1000 };
    uint8_t bytes[SIZE];
    buffer packed = {0};
    seed_random(4);
    make_data(tiny, MIXED, bytes, SIZE);
    for (uint32_t block = 50; block <= SIZE; block += 190)
        for (int known = 0; known < 2; known++) {
            way w = {.options = {.block_size = block, .size = known ? SIZE : 0}, .push = 100};
            OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, bytes, SIZE, &packed));
            task pack = compressing(bytes, SIZE, &packed);
            task unpack = decompressing(bytes, SIZE, &packed);
            for (uint64_t limit = 1; limit < 1200; limit += limit < 990 || limit > 1010 ? 71 : 1)
                check_limit(&unpack, limit);
            for (size_t room = 0; room < SIZE; room += 111) check_room_to_decompress(&unpack, room);
            for (size_t room = 0; room < packed.n; room += 77)
                check_room_to_compress(&pack, &w.options, room);
        }
    limit_of_members(&packed, SIZE);
    free(packed.bytes);
}

/* ------------------------------------------------------------------------------------- progress */

typedef struct watcher {
    uint64_t last; /* how far the work was at the last call */
    int calls, cancel_at;
    int tries; /* several methods are tried on one block, which begins anew */
} watcher;

static int watch(void *context, uint64_t bytes) {
    watcher *w = context;
    CHECK(bytes >= w->last || w->tries, "%llu bytes after %llu", (unsigned long long)bytes,
          (unsigned long long)w->last);
    w->last = bytes;
    return ++w->calls == w->cancel_at;
}

/* A codec that was cancelled stays so, whatever is called. */
static void check_cancelled(megabyte_codec *c, const task *t) {
    size_t taken;
    uint8_t byte;
    CHECK(megabyte_codec_push(c, t->in, 1, &taken) && !taken);
    OK(megabyte_codec_flush(c));
    OK(megabyte_codec_finish(c));
    CHECK_STATUS(megabyte_codec_pull(c, &byte, 1, &taken), MEGABYTE_ERROR_CANCELLED);
    CHECK(megabyte_codec_push(c, t->in, 1, &taken) && !taken);
    CHECK(megabyte_codec_error(c)->status == MEGABYTE_ERROR_CANCELLED &&
          megabyte_codec_error(c)->text[0]);
}

static void cancel_everywhere(const task *t, const way *w, watcher *watcher, int calls) {
    buffer out = {0};
    megabyte_codec *c = new_codec(tiny->model, t->mode, &w->options);
    for (int at = 1; at <= calls; at += 1 + calls / 9) {
        watcher->calls = 0;
        watcher->last = 0;
        watcher->cancel_at = at;
        megabyte_codec_reset(c);
        CHECK_STATUS(drive(c, w, t->in, t->n_in, &out), MEGABYTE_ERROR_CANCELLED);
        CHECK(out.n <= t->n_out && same(out.bytes, out.n, t->out, out.n), "not a beginning");
        check_cancelled(c, t);
        CHECK(watcher->calls == at, "the work goes on");
    }
    watcher->calls = 0;
    watcher->last = 0;
    watcher->cancel_at = 0;
    megabyte_codec_reset(c);
    OK(drive(c, w, t->in, t->n_in, &out));
    CHECK(out.n == t->n_out);
    megabyte_codec_free(c);
    free(out.bytes);
}

static void check_progress(const task *t, megabyte_codec_options o, size_t size) {
    watcher watcher = {.tries = o.level > 5};
    buffer out = {0};
    o.progress = watch;
    o.progress_context = &watcher;
    way w = {.options = o, .push = size / 4};
    name_case("level %d, mode %d, %u streams, verify %d", o.level, t->mode, o.streams, o.verify);
    OK(run_codec(tiny->model, t->mode, &w, t->in, t->n_in, &out));
    int calls = watcher.calls;
    CHECK(calls >= 3 && watcher.last <= size && watcher.last > size / 2, "%d calls, the last at %d",
          calls, (int)watcher.last);
    cancel_everywhere(t, &w, &watcher, calls);
    watcher.calls = 0;
    watcher.last = 0;
    watcher.cancel_at = 1;
    CHECK_STATUS(in_one_call(t, &o, NULL), MEGABYTE_ERROR_CANCELLED);
    free(out.bytes);
}

static void progress(void) {
    static const struct {
        int level;
        uint32_t mixing_memory;
        size_t size;
    } levels[] = {
        {.level = 5, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING, .size = 12000},
        {.level = 1, .mixing_memory = 1, .size = 3000},
        {.level = 7, .mixing_memory = 1, .size = 3000},
    };
    static const struct {
        megabyte_mode mode;
        uint32_t streams;
        int verify, level_5_only;
    } ways[] = {
        {.mode = MEGABYTE_MODE_COMPRESS, .streams = 1},
        {.mode = MEGABYTE_MODE_COMPRESS, .streams = 1, .verify = 1, .level_5_only = 1},
        {.mode = MEGABYTE_MODE_COMPRESS, .streams = 3},
        {.mode = MEGABYTE_MODE_COMPRESS, .streams = 3, .verify = 1},
        {.mode = MEGABYTE_MODE_DECOMPRESS, .streams = 1, .level_5_only = 1},
        {.mode = MEGABYTE_MODE_DECOMPRESS, .streams = 3},
    };
    for (size_t l = 0; l < COUNT_OF(levels); l++) {
        size_t size = levels[l].size;
        megabyte_codec_options o = {.block_size = (uint32_t)size * 3 / 20,
                                    .level = levels[l].level,
                                    .mixing_memory = levels[l].mixing_memory};
        way plain = {.options = o};
        buffer packed = {0};
        OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &plain, tiny->pool, size, &packed));
        for (size_t i = 0; i < COUNT_OF(ways); i++) {
            if (ways[i].level_5_only && o.level != 5) continue;
            task t = ways[i].mode == MEGABYTE_MODE_COMPRESS
                         ? compressing(tiny->pool, size, &packed)
                         : decompressing(tiny->pool, size, &packed);
            o.streams = ways[i].streams;
            o.verify = ways[i].verify;
            check_progress(&t, o, size);
        }
        free(packed.bytes);
    }
}

/* -------------------------------------------------------------------------------- refused calls */

#define REFUSED(call) CHECK_STATUS(call, MEGABYTE_ERROR_INVALID_ARGUMENT)

enum {
    COMPRESS = 1 << MEGABYTE_MODE_COMPRESS,
    DECOMPRESS = 1 << MEGABYTE_MODE_DECOMPRESS,
    MESSAGES = 1 << MEGABYTE_MODE_MESSAGES,
    FILES = COMPRESS | DECOMPRESS,
};

/* Options that are refused in these modes. */
static const struct wrong_options {
    int modes;
    int foreign_engine; /* .engine is another model's */
    megabyte_codec_options options;
} wrong_options[] = {
    {.modes = FILES, .options = {.streams = 257}},
    {.modes = FILES, .options = {.block_size = MEGABYTE_BLOCK_MAX + 1}},
    {.modes = FILES, .options = {.context_shift = 16}},
    {.modes = FILES | MESSAGES, .options = {.threads = 257}},
    {.modes = COMPRESS | MESSAGES, .options = {.level = 4, .file_type = "txt"}},
    {.modes = FILES, .options = {.dictionary_size = 1}},
    {.modes = FILES, .options = {.level = -1}},
    {.modes = FILES, .options = {.level = 10}},
    {.modes = FILES, .options = {.level = INT32_MIN}},
    {.modes = FILES, .options = {.mixing_memory = 2}},
    {.modes = FILES, .options = {.mixing_memory = 65}},
    {.modes = FILES, .foreign_engine = 1},
    {.modes = DECOMPRESS, .options = {.max_ratio = (uint64_t)1 << 32}},
    {.modes = COMPRESS | MESSAGES,
     .options = {.level = 4, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING}},
};

static void refuse_options(const megabyte_codec_options *o, megabyte_mode mode) {
    const megabyte_model *m = tiny->model;
    const uint8_t bytes[3] = {1, 2, 3};
    uint8_t out[400];
    megabyte_codec *c;
    megabyte_error error;
    size_t n, size;
    REFUSED(megabyte_codec_create(&c, m, mode, o, NULL, &error));
    CHECK(error.status == MEGABYTE_ERROR_INVALID_ARGUMENT && error.text[0]);
    REFUSED(megabyte_codec_size(m, mode, o, &size));
    if (mode == MEGABYTE_MODE_MESSAGES) return;
    if (mode == MEGABYTE_MODE_COMPRESS)
        REFUSED(megabyte_compress(m, o, bytes, 3, out, sizeof out, &n, NULL, &error));
    else REFUSED(megabyte_decompress(m, o, bytes, 3, out, sizeof out, &n, NULL, &error));
    CHECK(error.status == MEGABYTE_ERROR_INVALID_ARGUMENT && error.text[0]);
}

static void refused_options(void) {
    megabyte_engine *foreign = new_engine(fixtures[1].model, 1, 0, MEGABYTE_ISA_AUTO);
    for (size_t i = 0; i < COUNT_OF(wrong_options); i++)
        for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_MESSAGES; mode++) {
            megabyte_codec_options o = wrong_options[i].options;
            if (wrong_options[i].foreign_engine) o.engine = foreign;
            name_case("options %zu, mode %d", i, mode);
            if (wrong_options[i].modes >> mode & 1) refuse_options(&o, (megabyte_mode)mode);
        }
    megabyte_engine_free(foreign);
}

/* Calls that are refused for what is missing; all their other arguments are right. */
enum function { CREATE, SIZE, ONE_CALL, PUSH, PULL, FLUSH, FINISH };
enum argument { MODE = 1, MODEL = 2, CODEC = 4, IN = 8, OUT = 16, RESULT = 32, FREE = 64 };

static const struct wrong_call {
    enum function function;
    enum argument without; /* NULL; MODE: there is no such mode; FREE: half an allocator */
} wrong_calls[] = {
    {.function = CREATE, .without = RESULT},   {.function = CREATE, .without = MODEL},
    {.function = CREATE, .without = FREE},     {.function = CREATE, .without = MODE},
    {.function = SIZE, .without = MODEL},      {.function = SIZE, .without = RESULT},
    {.function = SIZE, .without = MODE},       {.function = ONE_CALL, .without = MODEL},
    {.function = ONE_CALL, .without = IN},     {.function = ONE_CALL, .without = OUT},
    {.function = ONE_CALL, .without = RESULT}, {.function = PUSH, .without = CODEC},
    {.function = PUSH, .without = IN},         {.function = PUSH, .without = RESULT},
    {.function = PULL, .without = CODEC},      {.function = PULL, .without = OUT},
    {.function = PULL, .without = RESULT},     {.function = FLUSH, .without = CODEC},
    {.function = FINISH, .without = CODEC},
};

static megabyte_status wrong_call(const struct wrong_call *w, megabyte_mode mode,
                                  megabyte_codec *codec) {
    static uint8_t bytes[3] = {1, 2, 3}, room[400];
    counter unused = {0};
    megabyte_allocator half = {counter_alloc, NULL, &unused};
    megabyte_codec *made;
    size_t n;
    const megabyte_model *m = w->without == MODEL ? NULL : tiny->model;
    const megabyte_allocator *allocator = w->without == FREE ? &half : NULL;
    const uint8_t *in = w->without == IN ? NULL : bytes;
    uint8_t *out = w->without == OUT ? NULL : room;
    size_t *result = w->without == RESULT ? NULL : &n;
    if (w->without == CODEC) codec = NULL;
    switch (w->function) {
    case CREATE:
        return megabyte_codec_create(w->without == RESULT ? NULL : &made, m, mode, NULL, allocator,
                                     NULL);
    case SIZE: return megabyte_codec_size(m, mode, NULL, result);
    case ONE_CALL:
        return mode == MEGABYTE_MODE_COMPRESS
                   ? megabyte_compress(m, NULL, in, 3, out, sizeof room, result, NULL, NULL)
                   : megabyte_decompress(m, NULL, in, 3, out, sizeof room, result, NULL, NULL);
    case PUSH: return megabyte_codec_push(codec, in, 1, result);
    case PULL: return megabyte_codec_pull(codec, out, 1, result);
    case FLUSH: return megabyte_codec_flush(codec);
    default: return megabyte_codec_finish(codec);
    }
}

/* After all refused calls the codec works; after the end it takes no more, and has no more. */
static void works_to_the_end(megabyte_codec *c, const task *t) {
    size_t taken, given;
    uint8_t room[400];
    OK(megabyte_codec_push(c, NULL, 0, &taken));
    CHECK(taken == 0);
    OK(megabyte_codec_push(c, t->in, t->n_in, &taken));
    OK(megabyte_codec_finish(c));
    REFUSED(megabyte_codec_push(c, t->in, 1, &taken));
    OK(megabyte_codec_pull(c, room, sizeof room, &given));
    CHECK(same(room, given, t->out, t->n_out));
    OK(megabyte_codec_pull(c, room, sizeof room, &given));
    CHECK(!given);
    OK(megabyte_codec_finish(c));
    OK(megabyte_codec_pull(c, room, sizeof room, &given));
    CHECK(!given);
}

static void refused_calls(void) {
    const uint8_t bytes[200] = {1, 2, 3};
    buffer packed = {0};
    compress_once(tiny->model, NULL, bytes, sizeof bytes, &packed);
    for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++) {
        megabyte_codec *c = new_codec(tiny->model, mode, NULL);
        task t = mode == MEGABYTE_MODE_COMPRESS ? compressing(bytes, sizeof bytes, &packed)
                                                : decompressing(bytes, sizeof bytes, &packed);
        for (size_t i = 0; i < COUNT_OF(wrong_calls); i++) {
            const struct wrong_call *w = &wrong_calls[i];
            if (w->without == MODEL && mode == MEGABYTE_MODE_DECOMPRESS) continue; /* may be */
            name_case("function %d without %d, mode %d", w->function, w->without, mode);
            if (w->without != MODE) REFUSED(wrong_call(w, (megabyte_mode)mode, c));
            else {
                REFUSED(wrong_call(w, (megabyte_mode)0, c));
                REFUSED(wrong_call(w, (megabyte_mode)(MEGABYTE_MODE_MESSAGES + 1), c));
            }
        }
        name_case("after refused calls, mode %d", mode);
        works_to_the_end(c, &t);
        megabyte_codec_free(c);
    }
    megabyte_codec_free(NULL);
    CHECK(megabyte_codec_error(NULL) != NULL);
    free(packed.bytes);
}

/* Then NULL will do. */
static void no_bytes(void) {
    uint8_t room[400];
    size_t n, given;
    OK(megabyte_compress(tiny->model, NULL, NULL, 0, room, sizeof room, &n, NULL, NULL));
    OK(megabyte_decompress(tiny->model, NULL, room, n, NULL, 0, &given, NULL, NULL));
}

/* options.size is not how many bytes come. */
static void wrong_sizes(void) {
    const uint8_t bytes[200] = {1, 2, 3};
    for (uint64_t size = 1; size < sizeof bytes; size += 33) {
        way w = {.options = {.size = size, .block_size = size % 2 ? 50 : 0}};
        buffer got = {0};
        uint8_t out[400];
        size_t n;
        name_case("size %d of 200", (int)size);
        REFUSED(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, bytes, sizeof bytes, &got));
        REFUSED(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, bytes, (size_t)size - 1, &got));
        OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, bytes, (size_t)size, &got));
        OK(megabyte_compress(tiny->model, &w.options, bytes, sizeof bytes, out, sizeof out, &n,
                             NULL, NULL)); /* it knows the size itself */
        free(got.bytes);
    }
}

#define UNSUPPORTED(call) CHECK_STATUS(call, MEGABYTE_ERROR_UNSUPPORTED)

static void small_vocabulary(void) {
    static const synthetic narrow = {.name = "codec-calls-narrow",
                                     .stages = 2,
                                     .n = {4, 2},
                                     .dim = {8, 8},
                                     .depth = {1, 1},
                                     .heads = 1,
                                     .dim_head = 8,
                                     .ff_mult = 1,
                                     .vocabulary = 100,
                                     .rotary = 1,
                                     .type = "F32"};
    uint8_t bytes[3] = {1, 2, 3}, out[400];
    char mb[200];
    size_t n;
    megabyte_codec *c;
    megabyte_error error;
    megabyte_model *m = open_model(synthetic_model(mb, &narrow, 1, "f32", NULL));
    megabyte_stream *s = new_stream(m, NULL, 0);
    UNSUPPORTED(megabyte_codec_create(&c, m, MEGABYTE_MODE_COMPRESS, NULL, NULL, &error));
    CHECK(error.text[0]);
    UNSUPPORTED(megabyte_codec_create(&c, m, MEGABYTE_MODE_DECOMPRESS, NULL, NULL, NULL));
    UNSUPPORTED(megabyte_compress(m, NULL, bytes, 3, out, sizeof out, &n, NULL, NULL));
    UNSUPPORTED(megabyte_stream_encode(s, bytes, 3, out, sizeof out, &n));
    UNSUPPORTED(megabyte_stream_decode(s, out, 3, bytes, sizeof bytes, &n));
    CHECK(megabyte_stream_position(s) == 0);
    megabyte_stream_free(s);
    megabyte_model_close(m);
}

static void status_strings(void) {
    for (int a = 0; a >= -15; a--) {
        const char *one = megabyte_status_string((megabyte_status)a);
        CHECK(one && one[0]);
        for (int b = 1; b >= -15; b--)
            CHECK(a == b || strcmp(one, megabyte_status_string((megabyte_status)b)),
                  "%d and %d: '%s'", a, b, one);
    }
}

/* --------------------------------------------------------------------------------------- memory */

/* A codec allocates what megabyte_codec_size says, and nothing after its creation. Returns how
 * often. */
static size_t count_allocations(const task *t, const megabyte_codec_options *o) {
    counter c = {0};
    megabyte_allocator allocator = counting(&c);
    way w = {.options = *o, .push = 300, .pull = 333};
    buffer out = {0};
    size_t size = 0;
    megabyte_codec *codec;
    OK(megabyte_codec_size(tiny->model, t->mode, o, &size));
    OK(megabyte_codec_create(&codec, tiny->model, t->mode, o, &allocator, NULL));
    CHECK(c.live_bytes == size && c.peak_bytes == size, "%zu bytes allocated, %zu announced",
          c.peak_bytes, size);
    size_t calls = c.calls;
    for (int turn = 0; turn < 2; turn++) {
        OK(drive(codec, &w, t->in, t->n_in, &out));
        megabyte_codec_reset(codec);
    }
    CHECK(c.calls == calls, "%zu allocations after the creation", c.calls - calls);
    megabyte_codec_free(codec);
    CHECK(!c.live && !c.live_bytes);
    free(out.bytes);
    return calls;
}

/* The k-th allocation of `calls` fails. */
static void fail_allocation(const task *t, const megabyte_codec_options *o, size_t k,
                            size_t calls) {
    counter c = {.fail_at = k};
    megabyte_allocator failing = counting(&c);
    megabyte_error error;
    megabyte_codec *codec = (megabyte_codec *)(void *)&c;
    megabyte_status status = megabyte_codec_create(&codec, tiny->model, t->mode, o, &failing,
                                                   &error);
    CHECK(status == (k <= calls ? MEGABYTE_ERROR_OUT_OF_MEMORY : MEGABYTE_OK) &&
              error.status == status,
          "allocation %zu of %zu fails: %s", k, calls, megabyte_status_string(status));
    CHECK(!status || (error.text[0] && !codec));
    if (!status) megabyte_codec_free(codec);
    CHECK(!c.live, "allocation %zu fails: %zu are not freed", k, c.live);

    c = (counter){.fail_at = k};
    status = in_one_call(t, o, &failing);
    CHECK(status == MEGABYTE_ERROR_OUT_OF_MEMORY || (c.calls < k && !status),
          "in one call: allocation %zu fails: %s", k, megabyte_status_string(status));
    CHECK(!c.live);
}

static void check_memory(const uint8_t *bytes, size_t n, megabyte_mode mode,
                         megabyte_codec_options o, int own_engine) {
    buffer packed = {0};
    compress_once(tiny->model, &o, bytes, n, &packed);
    task t = mode == MEGABYTE_MODE_COMPRESS ? compressing(bytes, n, &packed)
                                            : decompressing(bytes, n, &packed);
    if (!own_engine) o.engine = new_engine(tiny->model, 1, 0, MEGABYTE_ISA_AUTO);
    size_t calls = count_allocations(&t, &o);
    for (size_t k = 1; k <= calls + 1; k++) fail_allocation(&t, &o, k, calls);
    megabyte_engine_free(o.engine);
    free(packed.bytes);
}

static void memory(void) {
    uint8_t bytes[2000];
    seed_random(3);
    make_data(tiny, MIXED, bytes, sizeof bytes);
    for (int i = 0; i < 96; i++) {
        int engine = i & 1, unpack = i >> 1 & 1, streams = i >> 2 & 1, small_blocks = i >> 3 & 1,
            verify = i >> 4 & 1, small = i >> 5 & 1, mixing = i >= 64;
        megabyte_codec_options o = {.streams = streams ? 4 : 0,
                                    .block_size = small_blocks ? 170 : 2000,
                                    .verify = verify,
                                    .context_shift = (uint32_t)small,
                                    .dictionary = text,
                                    .dictionary_size = small || (mixing && engine) ? 30 : 0,
                                    .level = !mixing        ? 5
                                             : small_blocks ? 7
                                                            : 2,
                                    .mixing_memory = mixing ? 1 : MEGABYTE_NO_CONTEXT_MIXING};
        name_case("options %d", i);
        check_memory(bytes, sizeof bytes,
                     unpack ? MEGABYTE_MODE_DECOMPRESS : MEGABYTE_MODE_COMPRESS, o, !engine);
    }
}

static size_t codec_size(megabyte_mode mode, const megabyte_codec_options *o) {
    size_t size;
    OK(megabyte_codec_size(tiny->model, mode, o, &size));
    return size;
}

/* Beside its contexts a codec needs tables, once for all, of less than 32 KB. */
static void check_tables(size_t size, size_t without, size_t contexts) {
    size_t tables = size - without - contexts;
    CHECK(contexts ? tables > 0 && tables < 32768 : !tables, "%zu bytes, %zu of contexts",
          size - without, contexts);
}

/* The memory of a level, for each stream, and two more if there is a dictionary. */
static void check_memory_of_levels(megabyte_mode mode, uint32_t streams, size_t dictionary_size) {
    static const struct {
        int level;
        uint32_t option, megabytes; /* option: asks for it without naming a level */
    } levels[] = {
        {.level = 5, .option = MEGABYTE_NO_CONTEXT_MIXING, .megabytes = 0},
        {.level = 1, .option = 1, .megabytes = 1},
        {.level = 6, .option = 4, .megabytes = 4},
        {.level = 3, .option = 16, .megabytes = 16},
        {.level = 8, .option = 64, .megabytes = 64},
    };
    megabyte_codec_options o = {.block_size = MEGABYTE_BLOCK_DEFAULT,
                                .streams = streams,
                                .verify = 1,
                                .dictionary_size = dictionary_size};
    if (dictionary_size) o.dictionary = text;
    o.mixing_memory = MEGABYTE_NO_CONTEXT_MIXING;
    size_t without = codec_size(mode, &o), mixers = streams + (dictionary_size ? 2 : 0);
    size_t blocks = 2 * streams * MEGABYTE_BLOCK_DEFAULT; /* all that levels 1 to 4 need besides */
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        size_t each = levels[i].megabytes;
        name_case("the size at level %d, mode %d, %u streams, a dictionary of %zu", levels[i].level,
                  mode, streams, dictionary_size);
        o.mixing_memory = levels[i].option;
        o.level = 0;
        check_tables(codec_size(mode, &o), without, mixers * each << 20);
        o.mixing_memory = 0;
        o.level = levels[i].level;
        if (mode == MEGABYTE_MODE_DECOMPRESS) each = 16; /* by default, whatever the level */
        if (mode == MEGABYTE_MODE_DECOMPRESS || o.level >= 5)
            check_tables(codec_size(mode, &o), without, mixers * each << 20);
        else
            check_tables(codec_size(mode, &o), blocks,
                         (streams + (dictionary_size ? 1 : 0)) * each << 20);
    }
}

static void memory_of_levels(void) {
    for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++)
        for (uint32_t streams = 1; streams < 6; streams += 2)
            for (size_t dictionary_size = 0; dictionary_size <= 9; dictionary_size += 9)
                check_memory_of_levels((megabyte_mode)mode, streams, dictionary_size);
}

/* ------------------------------------------------------------------------------ sizes of blocks */

static void choice_of_blocks(void) {
    megabyte_codec_options o = {0};
    name_case("blocks by size and streams");
    uint32_t unknown = megabyte_codec_block_size(&o);
    CHECK(unknown > 0 && unknown <= MEGABYTE_BLOCK_DEFAULT, "%u", unknown);
    for (uint64_t size = 1; size < (uint64_t)1 << 40; size += size / 3 + 1)
        for (uint32_t streams = 0; streams <= 256; streams += streams < 4 ? 1 : 21) {
            o = (megabyte_codec_options){.size = size, .streams = streams};
            uint64_t block = megabyte_codec_block_size(&o), blocks = (size + block - 1) / block;
            CHECK(block && block <= MEGABYTE_BLOCK_MAX, "%llu", (unsigned long long)block);
            CHECK(!streams || blocks >= streams ||
                      (block <= 16384 && (blocks == 1 || block == 16384)) || blocks * 2 > streams,
                  "%llu bytes, %u streams: %llu blocks", (unsigned long long)size, streams,
                  (unsigned long long)blocks);
            if (!streams && size < 65536)
                CHECK(blocks == 1, "%llu bytes in %llu blocks", (unsigned long long)size,
                      (unsigned long long)blocks);
            o.block_size = 12345;
            CHECK(megabyte_codec_block_size(&o) == 12345);
        }
    o = (megabyte_codec_options){.size = MEGABYTE_SIZE_UNKNOWN, .streams = 7};
    CHECK(megabyte_codec_block_size(&o) == unknown);
    o.size--;
    CHECK(megabyte_codec_block_size(&o) == MEGABYTE_BLOCK_DEFAULT);
    for (size_t n = 0; n < 100000; n += n / 2 + 1)
        CHECK(megabyte_compress_bound(n) == n + n / 2000 + 64);
    CHECK(megabyte_compress_bound(SIZE_MAX) == SIZE_MAX);
}

int main(int argc, char **argv) {
    set_up("calls", 2, argc > 1 ? argv[1] : NULL);
    RUN(limits);
    RUN(progress);
    RUN(refused_options);
    RUN(refused_calls);
    RUN(no_bytes);
    RUN(wrong_sizes);
    RUN(small_vocabulary);
    RUN(status_strings);
    RUN(memory);
    RUN(memory_of_levels);
    RUN(choice_of_blocks);
    tear_down();
    return 0;
}
