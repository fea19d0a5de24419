/* test_codec_calls.c - every status, limits, progress, memory. */
#include "codec_fixtures.h"

static void limits(void) {
    uint8_t bytes[1000];
    buffer packed = {0}, out = {0};
    seed_random(4);
    make_data(tiny, MIXED, bytes, sizeof bytes);
    for (uint32_t block = 50; block <= 1000; block += 190)
        for (int known = 0; known < 2; known++) {
            way w = {.options = {.block_size = block, .size = known ? sizeof bytes : 0},
                     .push = 100};
            OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &w, bytes, sizeof bytes, &packed));
            for (uint64_t limit = 1; limit < 1200; limit += limit < 990 || limit > 1010 ? 71 : 1) {
                way r = {.options = {.block_size = 1000,
                                     .limit = limit,
                                     .streams = 1 + (uint32_t)(limit % 3)},
                         .push = 99};
                name_case("blocks of %u, limit %d", block, (int)limit);
                megabyte_status status = run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &r,
                                                   packed.bytes, packed.n, &out);
                CHECK(status == (limit < sizeof bytes ? MEGABYTE_ERROR_LIMIT : MEGABYTE_OK), "%s",
                      megabyte_status_string(status));
                CHECK(out.n <= limit && same(out.bytes, out.n, bytes, out.n), "%zu bytes", out.n);
                if (!status) CHECK(out.n == sizeof bytes);
            }
            for (size_t room = 0; room < sizeof bytes; room += 111) {
                name_case("blocks of %u, room for %zu", block, room);
                megabyte_codec_options o = {.block_size = 1000};
                CHECK_STATUS(
                    decompress_once(tiny->model, &o, packed.bytes, packed.n, room, &out, NULL),
                    MEGABYTE_ERROR_CAPACITY);
                CHECK(out.n <= room && same(out.bytes, out.n, bytes, out.n));
            }
            for (size_t room = 0; room < packed.n; room += 77) {
                uint8_t *to = need(room, 1);
                size_t n = 12345;
                megabyte_error error;
                megabyte_codec_options o = usual(&w.options);
                CHECK_STATUS(megabyte_compress(tiny->model, &o, bytes, sizeof bytes, to, room, &n,
                                               NULL, &error),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK(error.status == MEGABYTE_ERROR_CAPACITY && error.text[0] && n <= room);
                free(to);
            }
        }
    name_case("a limit over two members");
    buffer two = {0};
    ref_append(&two.bytes, &two.n, &two.room, packed.bytes, packed.n);
    ref_append(&two.bytes, &two.n, &two.room, packed.bytes, packed.n);
    way r = {.options = {.block_size = 1000, .limit = 1999}};
    CHECK_STATUS(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &r, two.bytes, two.n, &out),
                 MEGABYTE_ERROR_LIMIT);
    r.options.limit = 2000;
    OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &r, two.bytes, two.n, &out));
    free(packed.bytes), free(out.bytes), free(two.bytes);
}

typedef struct watcher {
    uint64_t last;
    int calls, cancel_at,
        tries; /* tries: several methods are tried on one block, which begins anew */
} watcher;

static int watch(void *context, uint64_t bytes) {
    watcher *w = context;
    CHECK(bytes >= w->last || w->tries, "%llu bytes after %llu", (unsigned long long)bytes,
          (unsigned long long)w->last);
    w->last = bytes;
    return ++w->calls == w->cancel_at;
}

static void progress(void) {
    enum { LONGEST = 12000 };
    buffer packed = {0}, out = {0};
    const uint8_t *bytes = tiny->pool;
    static const int levels[] = {5, 1, 7};
    for (size_t l = 0; l < COUNT_OF(levels); l++, packed.n = 0)
        for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++)
            for (int streams = 1; streams < 4; streams += 2)
                for (int verify = 0; verify < (mode == MEGABYTE_MODE_COMPRESS ? 2 : 1); verify++) {
                    if (levels[l] != 5 && streams == 1 &&
                        (verify || mode == MEGABYTE_MODE_DECOMPRESS))
                        continue;
                    uint32_t contexts = levels[l] == 5 ? MEGABYTE_NO_CONTEXT_MIXING : 1;
                    size_t size = levels[l] == 5 ? LONGEST : LONGEST / 4;
                    uint32_t block = (uint32_t)size * 3 / 20;
                    watcher watcher = {.tries = levels[l] > 5};
                    way w = {.options = {.block_size = block,
                                         .streams = (uint32_t)streams,
                                         .verify = verify,
                                         .level = levels[l],
                                         .mixing_memory = contexts,
                                         .progress = watch,
                                         .progress_context = &watcher},
                             .push = size / 4};
                    if (mode == MEGABYTE_MODE_COMPRESS && !packed.n) {
                        way plain = {.options = {.block_size = block,
                                                 .level = levels[l],
                                                 .mixing_memory = contexts}};
                        OK(run_codec(tiny->model, mode, &plain, bytes, size, &packed));
                    }
                    const uint8_t *in = mode == MEGABYTE_MODE_COMPRESS ? bytes : packed.bytes;
                    size_t n = mode == MEGABYTE_MODE_COMPRESS ? size : packed.n;
                    name_case("level %d, mode %d, %d streams, verify %d", levels[l], mode, streams,
                              verify);
                    OK(run_codec(tiny->model, mode, &w, in, n, &out));
                    int calls = watcher.calls;
                    CHECK(calls >= 3 && watcher.last <= size && watcher.last > size / 2,
                          "%d calls, the last at %d", calls, (int)watcher.last);
                    megabyte_codec *c = new_codec(tiny->model, mode, &w.options);
                    for (int at = 1; at <= calls; at += 1 + calls / 9) {
                        size_t taken;
                        uint8_t byte;
                        watcher.calls = 0, watcher.last = 0, watcher.cancel_at = at;
                        megabyte_codec_reset(c);
                        CHECK_STATUS(drive(c, &w, in, n, &out), MEGABYTE_ERROR_CANCELLED);
                        CHECK(out.n <= (mode == MEGABYTE_MODE_COMPRESS ? packed.n : size) &&
                                  same(out.bytes, out.n,
                                       mode == MEGABYTE_MODE_COMPRESS ? packed.bytes : bytes,
                                       out.n),
                              "not a beginning");
                        CHECK(megabyte_codec_push(c, in, 1, &taken) && !taken); /* it stays */
                        OK(megabyte_codec_flush(c)); /* whatever is called */
                        OK(megabyte_codec_finish(c));
                        CHECK_STATUS(megabyte_codec_pull(c, &byte, 1, &taken),
                                     MEGABYTE_ERROR_CANCELLED);
                        CHECK(megabyte_codec_push(c, in, 1, &taken) && !taken);
                        CHECK(watcher.calls == at, "the work goes on");
                        CHECK(megabyte_codec_error(c)->status == MEGABYTE_ERROR_CANCELLED &&
                              megabyte_codec_error(c)->text[0]);
                    }
                    watcher.calls = 0, watcher.last = 0, watcher.cancel_at = 0;
                    megabyte_codec_reset(c);
                    OK(drive(c, &w, in, n, &out));
                    CHECK(out.n == (mode == MEGABYTE_MODE_COMPRESS ? packed.n : size));
                    megabyte_codec_free(c);
                    watcher = (struct watcher){.cancel_at = 1, .tries = levels[l] > 5};
                    uint8_t *room = need(2 * size, 1);
                    size_t given = 0;
                    megabyte_status status =
                        mode == MEGABYTE_MODE_COMPRESS
                            ? megabyte_compress(tiny->model, &w.options, in, n, room, 2 * size,
                                                &given, NULL, NULL)
                            : megabyte_decompress(tiny->model, &w.options, in, n, room, 2 * size,
                                                  &given, NULL, NULL);
                    CHECK_STATUS(status, MEGABYTE_ERROR_CANCELLED);
                    free(room);
                }
    free(packed.bytes), free(out.bytes);
}

#define REFUSED(call) CHECK_STATUS(call, MEGABYTE_ERROR_INVALID_ARGUMENT)

static void wrong_calls(void) {
    const megabyte_model *m = tiny->model;
    megabyte_codec *c = NULL;
    megabyte_error error;
    uint8_t bytes[200] = {1, 2, 3}, out[400];
    size_t n, taken, size;
    counter unused = {0};
    megabyte_allocator half = {counter_alloc, NULL, &unused};
    megabyte_engine *foreign = new_engine(fixtures[1].model, 1, 0, MEGABYTE_ISA_AUTO);
    megabyte_codec_options bad[] = {{.streams = 257},      {.block_size = MEGABYTE_BLOCK_MAX + 1},
                                    {.context_shift = 16}, {.dictionary_size = 1},
                                    {.level = -1},         {.level = 10},
                                    {.level = INT32_MIN},  {.mixing_memory = 2},
                                    {.mixing_memory = 65}, {.engine = foreign}};
    megabyte_codec_options nothing = {.level = 4, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING};
    REFUSED(megabyte_codec_create(&c, m, MEGABYTE_MODE_COMPRESS, &nothing, NULL, &error));
    REFUSED(megabyte_codec_create(&c, m, MEGABYTE_MODE_MESSAGES, &nothing, NULL, &error));
    megabyte_codec_options ratio = {.max_ratio = (uint64_t)1 << 32};
    REFUSED(megabyte_codec_create(&c, m, MEGABYTE_MODE_DECOMPRESS, &ratio, NULL, NULL));
    for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++) {
        name_case("creating, mode %d", mode);
        for (size_t i = 0; i < COUNT_OF(bad); i++) {
            test_seed = i;
            REFUSED(megabyte_codec_create(&c, m, mode, &bad[i], NULL, &error));
            CHECK(error.status == MEGABYTE_ERROR_INVALID_ARGUMENT && error.text[0]);
            REFUSED(megabyte_codec_size(m, mode, &bad[i], &size));
            n = 77;
            if (mode == MEGABYTE_MODE_COMPRESS)
                REFUSED(megabyte_compress(m, &bad[i], bytes, 3, out, 400, &n, NULL, &error));
            else REFUSED(megabyte_decompress(m, &bad[i], bytes, 3, out, 400, &n, NULL, &error));
            CHECK(error.status == MEGABYTE_ERROR_INVALID_ARGUMENT && error.text[0]);
        }
        REFUSED(megabyte_codec_create(NULL, m, mode, NULL, NULL, NULL));
        REFUSED(megabyte_codec_create(&c, NULL, mode, NULL, NULL, NULL));
        REFUSED(megabyte_codec_create(&c, m, mode, NULL, &half, NULL));
        REFUSED(megabyte_codec_size(NULL, mode, NULL, &size));
        REFUSED(megabyte_codec_size(m, mode, NULL, NULL));
    }
    REFUSED(megabyte_codec_create(&c, m, 0, NULL, NULL, NULL));
    REFUSED(megabyte_codec_create(&c, m, 4, NULL, NULL, NULL));
    REFUSED(megabyte_codec_size(m, 4, NULL, &size));
    REFUSED(megabyte_compress(NULL, NULL, bytes, 3, out, 400, &n, NULL, NULL));
    REFUSED(megabyte_compress(m, NULL, NULL, 3, out, 400, &n, NULL, NULL));
    REFUSED(megabyte_compress(m, NULL, bytes, 3, NULL, 400, &n, NULL, NULL));
    REFUSED(megabyte_compress(m, NULL, bytes, 3, out, 400, NULL, NULL, NULL));
    REFUSED(megabyte_decompress(NULL, NULL, bytes, 3, out, 400, &n, NULL, NULL));
    REFUSED(megabyte_decompress(m, NULL, NULL, 3, out, 400, &n, NULL, NULL));
    REFUSED(megabyte_decompress(m, NULL, bytes, 3, NULL, 400, &n, NULL, NULL));
    REFUSED(megabyte_decompress(m, NULL, bytes, 3, out, 400, NULL, NULL, NULL));
    OK(megabyte_compress(m, NULL, NULL, 0, out, 400, &n, NULL, NULL));
    OK(megabyte_decompress(m, NULL, out, n, NULL, 0, &taken, NULL, NULL));

    for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++) {
        name_case("calling, mode %d", mode);
        c = new_codec(m, mode, NULL);
        REFUSED(megabyte_codec_push(NULL, bytes, 1, &taken));
        REFUSED(megabyte_codec_push(c, NULL, 1, &taken));
        REFUSED(megabyte_codec_push(c, bytes, 1, NULL));
        REFUSED(megabyte_codec_pull(NULL, out, 1, &taken));
        REFUSED(megabyte_codec_pull(c, NULL, 1, &taken));
        REFUSED(megabyte_codec_pull(c, out, 1, NULL));
        REFUSED(megabyte_codec_flush(NULL));
        REFUSED(megabyte_codec_finish(NULL));
        CHECK(megabyte_codec_error(NULL) != NULL);
        OK(megabyte_codec_push(c, NULL, 0, &taken)); /* none of these has spoilt it */
        CHECK(taken == 0);
        megabyte_codec_options network = usual(NULL);
        OK(megabyte_compress(m, &network, bytes, 200, out, 400, &n, NULL, NULL));
        const uint8_t *in = mode == MEGABYTE_MODE_COMPRESS ? bytes : out;
        OK(megabyte_codec_push(c, in, mode == MEGABYTE_MODE_COMPRESS ? 200 : n, &taken));
        OK(megabyte_codec_finish(c));
        REFUSED(megabyte_codec_push(c, in, 1, &taken));
        uint8_t room[400];
        size_t given;
        OK(megabyte_codec_pull(c, room, sizeof room, &given));
        CHECK(mode == MEGABYTE_MODE_COMPRESS ? same(room, given, out, n)
                                             : same(room, given, bytes, 200));
        OK(megabyte_codec_pull(c, room, sizeof room, &given));
        CHECK(!given);
        OK(megabyte_codec_finish(c)); /* again: nothing */
        OK(megabyte_codec_pull(c, room, sizeof room, &given));
        CHECK(!given);
        megabyte_codec_free(c);
    }
    megabyte_codec_free(NULL);
    megabyte_engine_free(foreign);

    for (uint64_t size_said = 1; size_said < 200; size_said += 33) { /* options->size is wrong */
        name_case("size %d of 200", (int)size_said);
        megabyte_codec_options o = {.size = size_said, .block_size = size_said % 2 ? 50 : 0};
        way w = {.options = o};
        buffer got = {0};
        REFUSED(run_codec(m, MEGABYTE_MODE_COMPRESS, &w, bytes, 200, &got));
        REFUSED(run_codec(m, MEGABYTE_MODE_COMPRESS, &w, bytes, (size_t)size_said - 1, &got));
        OK(run_codec(m, MEGABYTE_MODE_COMPRESS, &w, bytes, (size_t)size_said, &got));
        OK(megabyte_compress(m, &o, bytes, 200, out, 400, &n, NULL,
                             NULL)); /* knows the size itself */
        free(got.bytes);
    }
    name_case("a vocabulary of 100");
    static const synthetic narrow = {"codec-narrow", 2, {4, 2}, {8, 8}, {1, 1}, 1, 8, 1, 100, 0, 1,
                                     "F32"};
    char mb[200];
    megabyte_model *few = open_model(synthetic_model(mb, &narrow, 1, "f32", NULL));
    megabyte_stream *s = new_stream(few, NULL, 0);
    CHECK_STATUS(megabyte_codec_create(&c, few, MEGABYTE_MODE_COMPRESS, NULL, NULL, &error),
                 MEGABYTE_ERROR_UNSUPPORTED);
    CHECK(error.text[0]);
    CHECK_STATUS(megabyte_codec_create(&c, few, MEGABYTE_MODE_DECOMPRESS, NULL, NULL, NULL),
                 MEGABYTE_ERROR_UNSUPPORTED);
    CHECK_STATUS(megabyte_compress(few, NULL, bytes, 3, out, 400, &n, NULL, NULL),
                 MEGABYTE_ERROR_UNSUPPORTED);
    CHECK_STATUS(megabyte_stream_encode(s, bytes, 3, out, 400, &n), MEGABYTE_ERROR_UNSUPPORTED);
    CHECK_STATUS(megabyte_stream_decode(s, out, 3, bytes, 100, &n), MEGABYTE_ERROR_UNSUPPORTED);
    CHECK(megabyte_stream_position(s) == 0);
    megabyte_stream_free(s);
    megabyte_model_close(few);
    for (int a = 0; a >= -15; a--) {
        const char *one = megabyte_status_string((megabyte_status)a);
        CHECK(one && one[0]);
        for (int b = 1; b >= -15; b--)
            CHECK(a == b || strcmp(one, megabyte_status_string((megabyte_status)b)),
                  "%d and %d: '%s'", a, b, one);
    }
}

static void memory(void) {
    uint8_t bytes[2000];
    buffer packed = {0};
    seed_random(3);
    make_data(tiny, MIXED, bytes, sizeof bytes);
    for (int i = 0; i < 96; i++) { /* from 64 on with contexts */
        counter c = {0};
        megabyte_allocator allocator = counting(&c);
        megabyte_engine *engine = i & 1 ? new_engine(tiny->model, 1, 0, MEGABYTE_ISA_AUTO) : NULL;
        int mode = i & 2 ? MEGABYTE_MODE_DECOMPRESS : MEGABYTE_MODE_COMPRESS;
        megabyte_codec_options o = {.engine = engine,
                                    .streams = i & 4 ? 4 : 0,
                                    .block_size = i & 8 ? 170 : 2000,
                                    .verify = i >> 4 & 1,
                                    .dictionary_size = i & 32 ? 30 : 0,
                                    .dictionary = text,
                                    .context_shift = i & 32 ? 1 : 0,
                                    .level = i < 64  ? 5
                                             : i & 8 ? 7
                                                     : 2,
                                    .mixing_memory = i < 64 ? MEGABYTE_NO_CONTEXT_MIXING : 1};
        if (i >= 64 && i & 1) o.dictionary_size = 30;
        way w = {.options = o, .push = 300, .pull = 333};
        size_t size = 0;
        megabyte_codec *codec;
        name_case("options %d", i);
        OK(megabyte_codec_size(tiny->model, mode, &o, &size));
        OK(megabyte_codec_create(&codec, tiny->model, mode, &o, &allocator, NULL));
        CHECK(c.live_bytes == size && c.peak_bytes == size, "%zu bytes allocated, %zu announced",
              c.peak_bytes, size);
        size_t calls = c.calls;
        megabyte_codec_options plain = o;
        plain.engine = NULL;
        compress_once(tiny->model, &plain, bytes, sizeof bytes, &packed);
        buffer out = {0};
        for (int turn = 0; turn < 2; turn++) {
            if (mode == MEGABYTE_MODE_COMPRESS) OK(drive(codec, &w, bytes, sizeof bytes, &out));
            else OK(drive(codec, &w, packed.bytes, packed.n, &out));
            megabyte_codec_reset(codec);
        }
        CHECK(c.calls == calls, "%zu allocations after the creation", c.calls - calls);
        megabyte_codec_free(codec);
        CHECK(!c.live && !c.live_bytes);
        for (size_t k = 1; k <= calls + 1; k++) { /* each allocation fails in its turn */
            counter d = {.fail_at = k};
            megabyte_allocator failing = counting(&d);
            megabyte_error error;
            codec = (megabyte_codec *)(void *)&d;
            megabyte_status status = megabyte_codec_create(&codec, tiny->model, mode, &o, &failing,
                                                           &error);
            CHECK(status == (k <= calls ? MEGABYTE_ERROR_OUT_OF_MEMORY : MEGABYTE_OK) &&
                      error.status == status,
                  "allocation %zu of %zu fails: %s", k, calls, megabyte_status_string(status));
            CHECK(!status || (error.text[0] && !codec));
            if (!status) megabyte_codec_free(codec);
            CHECK(!d.live, "allocation %zu fails: %zu are not freed", k, d.live);
            counter e = {.fail_at = k};
            failing = counting(&e);
            uint8_t *room = need(4000, 1);
            size_t n;
            status = mode == MEGABYTE_MODE_COMPRESS
                         ? megabyte_compress(tiny->model, &o, bytes, sizeof bytes, room, 4000, &n,
                                             &failing, NULL)
                         : megabyte_decompress(tiny->model, &o, packed.bytes, packed.n, room, 4000,
                                               &n, &failing, NULL);
            CHECK(status == MEGABYTE_ERROR_OUT_OF_MEMORY || (e.calls < k && !status),
                  "in one call: allocation %zu fails: %s", k, megabyte_status_string(status));
            CHECK(!e.live);
            free(room);
        }
        free(out.bytes);
        megabyte_engine_free(engine);
    }
    for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++)
        for (uint32_t streams = 1; streams < 6; streams += 2)
            for (int primed = 0; primed < 2; primed++) {
                static const uint32_t megabytes[] = {MEGABYTE_NO_CONTEXT_MIXING, 1, 4, 16, 64};
                static const int levels[] = {5, 1, 6, 3,
                                             8}; /* have these by default, when compressing */
                name_case("the size with contexts, mode %d, %u streams, primed %d", mode, streams,
                          primed);
                size_t none = 0, size, mixers = streams + (primed ? 2 : 0);
                for (size_t i = 0; i < COUNT_OF(megabytes); i++) {
                    megabyte_codec_options o = {
                        .block_size = MEGABYTE_BLOCK_DEFAULT, .streams = streams, .verify = 1};
                    if (primed) o.dictionary = text, o.dictionary_size = 9;
                    o.mixing_memory = megabytes[i];
                    OK(megabyte_codec_size(tiny->model, mode, &o, &size));
                    if (!i) none = size;
                    size_t tables = size - none -
                                    (i ? mixers * megabytes[i] << 20 : 0); /* once for all */
                    CHECK(i ? tables > 0 && tables < 32768 : !tables,
                          "%zu bytes for contexts of %u MB", size - none, megabytes[i]);
                    o.mixing_memory = 0, o.level = levels[i];
                    OK(megabyte_codec_size(tiny->model, mode, &o, &size));
                    size_t expected = mode == MEGABYTE_MODE_DECOMPRESS ? 16 : i ? megabytes[i] : 0;
                    tables = size - none - (mixers * expected << 20);
                    CHECK(expected ? tables > 0 && tables < 32768 : !tables,
                          "%zu bytes for contexts by level %d", size - none, o.level);
                }
            }
    free(packed.bytes);
}

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
    RUN(wrong_calls);
    RUN(memory);
    RUN(choice_of_blocks);
    tear_down();
    return 0;
}
