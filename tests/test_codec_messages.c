/* test_codec_messages.c - messages of streams and of codecs, beside the reference (codec.h). */
#include "codec_fixtures.h"

static uint8_t *state_of(const megabyte_stream *s, size_t *size) {
    uint8_t *p = need(*size = megabyte_stream_save_size(s), 1);
    OK(megabyte_stream_save(s, p, *size));
    return p;
}

static void check_state(const megabyte_stream *s, const uint8_t *expected, size_t n,
                        const char *after) {
    size_t size;
    uint8_t *now = state_of(s, &size);
    CHECK(same(now, size, expected, n), "the stream has changed: %s", after);
    free(now);
}

/* Ideal bits of bytes[n] after what the stream holds, over the 256 bytes; the stream is left as it
 * was. */
static double ideal_bits(const fixture *f, megabyte_stream *scratch, const megabyte_stream *s,
                         const uint8_t *bytes, size_t n) {
    float *rows = need(n * f->info.vocabulary, sizeof *rows);
    OK(megabyte_stream_copy(scratch, s));
    OK(megabyte_stream_score(scratch, bytes, n, NULL, rows));
    double bits = ref_ideal_bits(rows, f->info.vocabulary, bytes, n);
    free(rows);
    return bits;
}

/* One message between two streams with the same history; returns the bytes of its code. */
static size_t send(const fixture *f, megabyte_stream *from, megabyte_stream *to,
                   megabyte_stream *scratch, megabyte_stream *other, const uint8_t *bytes,
                   size_t n) {
    size_t bound = megabyte_message_bound(n), n_coded = 12345, got = 12345;
    uint8_t *coded = need(bound + 16, 1), *back = need(n + 16, 1), *expected = need(4 * n + 64, 1);
    double bits = ideal_bits(f, scratch, from, bytes, n);
    uint64_t position = megabyte_stream_position(from);
    OK(megabyte_stream_copy(scratch, from));
    memset(coded, 0x99, bound + 16), memset(back, 0x99, n + 16);
    OK(megabyte_stream_encode(from, n ? bytes : NULL, n, coded, bound, &n_coded));
    CHECK(n_coded <= bound, "%zu bytes, the bound is %zu", n_coded, bound);
    for (size_t i = bound; i < bound + 16; i++)
        CHECK(coded[i] == 0x99, "byte %zu of %zu is written", i, bound);
    if (n <= 126)
        CHECK((double)n_coded <= ceil(bits / 8) + 1, "%zu bytes for a message of %f ideal bits",
              n_coded, bits);
    CHECK((double)n_coded <= bits * 1.0005 / 8 + 6, "%zu bytes for a message of %f ideal bits",
          n_coded, bits);
    size_t reference = ref_encode_message(scratch, other, bytes, n, expected);
    CHECK(same(coded, n_coded, expected, reference), "%zu bytes, the reference writes %zu, others",
          n_coded, reference);
    uint8_t *exact = need(n_coded, 1); /* its own allocation */
    memcpy(exact, coded, n_coded);
    OK(megabyte_stream_decode(to, exact, n_coded, back, n, &got));
    CHECK(same(back, got, bytes, n), "%zu bytes come back as %zu", n, got);
    for (size_t i = n; i < n + 16; i++) CHECK(back[i] == 0x99, "byte %zu of %zu is written", i, n);
    CHECK(megabyte_stream_position(from) == position + n &&
          megabyte_stream_position(to) == position + n);
    CHECK(
        same_floats(megabyte_stream_logits(from), megabyte_stream_logits(to), f->info.vocabulary) &&
            same_floats(megabyte_stream_logits(from), megabyte_stream_logits(scratch),
                        f->info.vocabulary),
        "the message is not what follows in the histories");
    free(coded), free(back), free(exact), free(expected);
    return n_coded;
}

static void messages(void) {
    static uint8_t bytes[3000];
    EACH_FIXTURE(f) {
        megabyte_engine *engine = new_engine(f->model, 1, 7, MEGABYTE_ISA_AUTO);
        megabyte_stream *a = new_stream(f->model, NULL, 0), *b = new_stream(f->model, engine, 0);
        megabyte_stream *scratch = new_stream(f->model, engine, 0),
                        *other = new_stream(f->model, engine, 0);
        for (size_t n = 0; n <= 300;
             n += f == tiny || n < 30 ? 1 : 3) { /* to an empty history, or after others */
            name_case("%s, a message of %zu", f->y.name, n);
            seed_random(n);
            make_data(f, n % 4 == 3 ? MIXED : LIKELY, bytes, n);
            if (n % 20 == 0 || random_below(2)) {
                megabyte_stream_reset(a), megabyte_stream_reset(b);
                size_t history = n % 3 ? random_below(80) : 0;
                OK(megabyte_stream_feed(a, f->pool, history));
                OK(megabyte_stream_feed(b, f->pool, history));
            }
            send(f, a, b, scratch, other, bytes, n);
        }
        for (int kind = 0; kind < KINDS; kind++) {
            name_case("%s, a message of 3000, %s", f->y.name, kind_name[kind]);
            seed_random((uint64_t)kind);
            make_data(f, (enum kind)kind, bytes, sizeof bytes);
            send(f, a, b, scratch, other, bytes, sizeof bytes);
        }
        megabyte_stream_free(a), megabyte_stream_free(b), megabyte_stream_free(scratch),
            megabyte_stream_free(other);
        megabyte_engine_free(engine);
    }
    static const fixture shipped = {.y = {.name = "text-small"}};
    fixture f = shipped;
    f.model = text_small, f.info = describe(text_small);
    megabyte_stream *a = new_stream(text_small, NULL, 1024),
                    *b = new_stream(text_small, NULL, 1024);
    megabyte_stream *scratch = new_stream(text_small, NULL, 1024),
                    *other = new_stream(text_small, NULL, 1024);
    for (size_t n = 0; n <= 126; n += 9) {
        name_case("text-small, a message of %zu", n);
        send(&f, a, b, scratch, other, text + 5000 + n, n);
    }
    CHECK(megabyte_message_bound(0) == 16 && megabyte_message_bound(100) == 116);
    CHECK(megabyte_message_bound(SIZE_MAX) == SIZE_MAX &&
          megabyte_message_bound(SIZE_MAX - 15) == SIZE_MAX);
    megabyte_stream_free(a), megabyte_stream_free(b), megabyte_stream_free(scratch),
        megabyte_stream_free(other);
}

/* A primed stream is copied, or rewound: the same codes. */
static void primed_messages(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *primed = new_stream(f->model, NULL, 0),
                        *copied = new_stream(f->model, NULL, 0);
        megabyte_stream *rewound = new_stream(f->model, NULL, 0),
                        *scratch = new_stream(f->model, NULL, 0);
        megabyte_stream *other = new_stream(f->model, NULL, 0),
                        *third = new_stream(f->model, NULL, 0);
        size_t window = (size_t)f->info.context_bytes, plain = 0, better = 0;
        for (size_t prime = 0; prime <= window; prime += 1 + window / 7) {
            megabyte_stream_reset(primed), megabyte_stream_reset(rewound);
            OK(megabyte_stream_feed(primed, f->pool, prime));
            OK(megabyte_stream_feed(rewound, f->pool, prime));
            for (size_t n = 0; n + prime <= window; n++) {
                uint8_t one[64], two[64];
                size_t n_one, n_two;
                const uint8_t *bytes = f->pool + prime;
                name_case("%s, %zu after %zu", f->y.name, n, prime);
                OK(megabyte_stream_copy(copied, primed));
                OK(megabyte_stream_encode(copied, bytes, n, one, sizeof one, &n_one));
                OK(megabyte_stream_rewind(rewound, prime));
                OK(megabyte_stream_encode(rewound, bytes, n, two, sizeof two, &n_two));
                CHECK(same(one, n_one, two, n_two), "%zu bytes copied, %zu rewound", n_one, n_two);
                OK(megabyte_stream_copy(copied, primed));
                OK(megabyte_stream_rewind(rewound, prime));
                better += send(f, copied, rewound, scratch, other, bytes, n);
                megabyte_stream_reset(copied), megabyte_stream_reset(third);
                plain += send(f, copied, third, scratch, other, bytes, n);
            }
        }
        CHECK(better != plain, "a history makes no difference");
        megabyte_stream_free(primed), megabyte_stream_free(copied);
        megabyte_stream_free(rewound), megabyte_stream_free(scratch);
        megabyte_stream_free(other), megabyte_stream_free(third);
    }
}

static void refused_messages(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *s = new_stream(f->model, NULL, 0), *t = new_stream(f->model, NULL, 0);
        uint8_t coded[700], back[700];
        size_t n_coded, got, size, n_other;
        for (size_t n = 1; n <= 300; n = n * 2 + 1) {
            name_case("%s, a message of %zu", f->y.name, n);
            megabyte_stream_reset(s), megabyte_stream_reset(t);
            OK(megabyte_stream_feed(s, f->pool + 50, 19));
            OK(megabyte_stream_feed(t, f->pool + 50, 19));
            uint8_t *state = state_of(s, &size);
            uint8_t *other = state_of(t, &n_other);
            for (size_t room = 0; room < megabyte_message_bound(n); room += 1 + room / 3)
                CHECK_STATUS(megabyte_stream_encode(s, f->pool, n, coded, room, &n_coded),
                             MEGABYTE_ERROR_CAPACITY);
            CHECK_STATUS(megabyte_stream_encode(s, f->pool, n, coded, megabyte_message_bound(n) - 1,
                                                &n_coded),
                         MEGABYTE_ERROR_CAPACITY);
            check_state(s, state, size, "after CAPACITY");
            CHECK_STATUS(megabyte_stream_encode(NULL, f->pool, n, coded, 700, &n_coded),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_encode(s, NULL, n, coded, 700, &n_coded),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_encode(s, f->pool, n, NULL, 700, &n_coded),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_encode(s, f->pool, n, coded, 700, NULL),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            check_state(s, state, size, "after INVALID_ARGUMENT");
            OK(megabyte_stream_encode(s, f->pool, n, coded, sizeof coded, &n_coded));
            for (size_t room = 0; room < n; room += 1 + room / 5) {
                got = 12345;
                CHECK_STATUS(megabyte_stream_decode(t, coded, n_coded, back, room, &got),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK(got == n, "a message of %zu, not %zu", n, got);
            }
            CHECK_STATUS(megabyte_stream_decode(NULL, coded, n_coded, back, n, &got),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_decode(t, NULL, n_coded, back, n, &got),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_decode(t, coded, n_coded, NULL, n, &got),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            CHECK_STATUS(megabyte_stream_decode(t, coded, n_coded, back, n, NULL),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
            check_state(t, other, n_other, "after refused decoding");
            OK(megabyte_stream_decode(t, coded, n_coded, back, n, &got));
            CHECK(same(back, got, f->pool, n));
            free(state), free(other);
        }
        megabyte_stream_free(s), megabyte_stream_free(t);
    }
}

/* What decodes is a message's code, or its bytes stored, to the last bit. */
static int try_code(megabyte_stream *s, megabyte_stream *t, const uint8_t *coded, size_t n_coded,
                    size_t capacity) {
    uint8_t *back = need(capacity, 1), *again = need(4 * capacity + 64, 1),
            *exact = need(n_coded, 1);
    size_t got = 12345;
    memcpy(exact, coded, n_coded);
    megabyte_stream_reset(s);
    megabyte_status status = megabyte_stream_decode(s, exact, n_coded, back, capacity, &got);
    CHECK(status == MEGABYTE_OK || status == MEGABYTE_ERROR_CORRUPT ||
              status == MEGABYTE_ERROR_CAPACITY,
          "%s", megabyte_status_string(status));
    if (status == MEGABYTE_OK) {
        CHECK(got <= capacity);
        megabyte_stream_reset(t);
        int right = same(coded, n_coded, again, ref_message(t, 0, back, got, again));
        if (!right) right = same(coded, n_coded, again, ref_message(t, 1, back, got, again));
        CHECK(right, "decodes to %zu bytes, which have another code", got);
    } else if (status == MEGABYTE_ERROR_CORRUPT) {
        CHECK(got == 0, "%zu bytes and CORRUPT", got);
    } else {
        CHECK(got > capacity && megabyte_stream_position(s) == 0);
    }
    free(back), free(again), free(exact);
    return status == MEGABYTE_OK;
}

static void hostile_codes(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *s = new_stream(f->model, NULL, 0), *t = new_stream(f->model, NULL, 0);
        size_t decoded = 0, tried = 0;
        uint8_t coded[600];
        name_case("%s, every short code", f->y.name);
        for (int c = -1; c < 65536 + 256; c += c < 256 || f == tiny ? 1 : 7, tried++) {
            size_t n = c < 0 ? 0 : c < 256 ? 1 : 2;
            coded[0] = (uint8_t)c, coded[1] = (uint8_t)((c - 256) >> 8);
            decoded += (size_t)try_code(s, t, coded, n, 300);
        }
        CHECK(decoded > 20 && decoded < tried, "%zu of %zu codes are messages", decoded, tried);
        for (uint64_t seed = 1; seed <= 3000; seed++) {
            name_case("%s, a random code", f->y.name);
            seed_random(seed);
            size_t n = random_below(seed % 2 ? 12 : 300), got;
            if (seed % 3) {
                random_bytes(coded, n, 256);
            } else { /* a right one, spoilt */
                uint8_t bytes[300];
                make_data(f, LIKELY, bytes, n);
                megabyte_stream_reset(s);
                OK(megabyte_stream_encode(s, bytes, n, coded, sizeof coded, &got));
                if (got) coded[random_below(got)] ^= (uint8_t)(1u << random_below(8));
                n = seed % 2 ? got : random_below(got + 1);
            }
            try_code(s, t, coded, n, random_below(400));
        }
        megabyte_stream_free(s), megabyte_stream_free(t);
    }
}

#define REFUSED(call) CHECK_STATUS(call, MEGABYTE_ERROR_INVALID_ARGUMENT)

/* Both lengths of a message's code: what encoding gives, or its bytes stored. */
static int is_code_of(megabyte_codec *c, megabyte_stream *scratch, const uint8_t *coded,
                      size_t n_coded, const uint8_t *bytes, size_t n) {
    uint8_t *again = need(4 * n + 64, 1);
    size_t got;
    OK(megabyte_codec_encode(c, bytes, n, again, megabyte_message_bound(n), &got));
    int right = same(coded, n_coded, again, got);
    megabyte_stream_reset(scratch);
    if (!right) right = same(coded, n_coded, again, ref_message(scratch, 1, bytes, n, again));
    free(again);
    return right;
}

static const megabyte_codec_options message_options[] = {
    {.level = 3, .mixing_memory = 1},
    {.level = 5},
    {.level = 7, .mixing_memory = 1},
    {.level = 5, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING, .dictionary_size = 60},
    {.level = 3, .mixing_memory = 1, .dictionary_size = 500},
    {.level = 7, .mixing_memory = 1, .dictionary_size = 500},
};

static megabyte_codec_options options_for_messages(const fixture *f, size_t i) {
    megabyte_codec_options o = message_options[i];
    if (o.level == 5) o.mixing_memory = MEGABYTE_NO_CONTEXT_MIXING;
    if (o.dictionary_size) o.dictionary = f->pool;
    return o;
}

static void messages_of_codecs(void) {
    size_t sums[COUNT_OF(message_options)] = {0};
    EACH_FIXTURE(f)
    for (size_t i = 0; i < COUNT_OF(message_options); i++) {
        megabyte_codec_options o = options_for_messages(f, i);
        megabyte_codec *c = new_codec(f->model, MEGABYTE_MODE_MESSAGES, &o);
        megabyte_engine *engine = new_engine(f->model, 1 + i % 3, 3, MEGABYTE_ISA_AUTO);
        o.engine = engine, o.streams = (uint32_t)i % 4, o.block_size = (uint32_t)i * 1000;
        megabyte_codec *d = new_codec(f->model, MEGABYTE_MODE_MESSAGES, &o);
        megabyte_stream *s = new_stream(f->model, engine, 0),
                        *primed = new_stream(f->model, engine, 0);
        OK(megabyte_stream_feed(primed, o.dictionary, o.dictionary_size));
        for (size_t n = 0; n <= 200; n += f == tiny ? 1 : 13) {
            uint8_t bytes[200], coded[200 + 32], back[200 + 16], other[200 + 16];
            size_t n_coded = 12345, got = 12345, bound = megabyte_message_bound(n);
            name_case("%s, level %d, primed with %zu, a message of %zu", f->y.name, o.level,
                      o.dictionary_size, n);
            seed_random(n);
            if (n % 5 == 1) memcpy(bytes, f->pool + 100, n);
            else make_data(f, n % 5 == 3 ? MIXED : n % 5 == 4 ? RANDOM : LIKELY, bytes, n);
            memset(coded, 0x99, sizeof coded), memset(back, 0x99, sizeof back);
            OK(megabyte_codec_encode(c, n ? bytes : NULL, n, coded, bound, &n_coded));
            CHECK(n_coded <= bound && n_coded <= n + 5, "%zu bytes", n_coded);
            for (size_t k = bound; k < sizeof coded; k++)
                CHECK(coded[k] == 0x99, "byte %zu is written", k);
            if (n % 5 == 1 && f == tiny) sums[i] += n_coded;
            uint8_t *exact = need(n_coded, 1);
            memcpy(exact, coded, n_coded);
            OK(megabyte_codec_decode(d, exact, n_coded, back, n, &got));
            CHECK(same(back, got, bytes, n), "%zu others come back", got);
            for (size_t k = n; k < sizeof back; k++)
                CHECK(back[k] == 0x99, "byte %zu is written", k);
            OK(megabyte_codec_decode(c, exact, n_coded, back, sizeof back,
                                     &got)); /* by the same codec */
            CHECK(same(back, got, bytes, n), "%zu others come back", got);
            OK(megabyte_codec_encode(d, bytes, n, other, bound, &got)); /* in the other direction */
            CHECK(same(other, got, coded, n_coded), "other codes");
            if (o.level == 5) { /* what streams make */
                OK(megabyte_stream_copy(s, primed));
                OK(megabyte_stream_encode(s, bytes, n, other, bound, &got));
                CHECK(same(other, got, coded, n_coded), "a stream writes other codes");
            }
            if (n % 10 == 6) { /* refused, and as before */
                REFUSED(megabyte_codec_encode(NULL, bytes, n, other, sizeof other, &got));
                REFUSED(megabyte_codec_encode(c, NULL, n, other, sizeof other, &got));
                REFUSED(megabyte_codec_encode(c, bytes, n, NULL, sizeof other, &got));
                REFUSED(megabyte_codec_encode(c, bytes, n, other, sizeof other, NULL));
                REFUSED(megabyte_codec_decode(NULL, coded, n_coded, other, sizeof other, &got));
                REFUSED(megabyte_codec_decode(c, NULL, n_coded, other, sizeof other, &got));
                REFUSED(megabyte_codec_decode(c, coded, n_coded, NULL, sizeof other, &got));
                REFUSED(megabyte_codec_decode(c, coded, n_coded, other, sizeof other, NULL));
                CHECK_STATUS(megabyte_codec_encode(c, bytes, n, other, bound - 1, &got),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK_STATUS(megabyte_codec_encode(c, bytes, n, other, 0, &got),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK_STATUS(megabyte_codec_decode(d, coded, n_coded, other, n - 1, &got),
                             MEGABYTE_ERROR_CAPACITY);
                CHECK(got == n, "a message of %zu, not %zu", n, got);
            }
            free(exact);
        }
        if (f == tiny)
            CHECK(i < 3 || i == 3 || sums[i] * 2 < sums[i - 4 + (i == 5)],
                  "%zu bytes, %zu without priming", sums[i], sums[0]);
        megabyte_stream_free(s), megabyte_stream_free(primed);
        megabyte_codec_free(c), megabyte_codec_free(d);
        megabyte_engine_free(engine);
    }
}

/* A codec is for files or for messages. */
static void messages_beside_files(void) {
    uint8_t bytes[100], coded[200], back[200];
    size_t n_coded, got, taken;
    make_data(tiny, MIXED, bytes, sizeof bytes);
    for (size_t i = 0; i < COUNT_OF(message_options); i++) {
        megabyte_codec_options o = options_for_messages(tiny, i);
        name_case("level %d, primed with %zu", o.level, o.dictionary_size);
        megabyte_codec *m = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o);
        OK(megabyte_codec_encode(m, bytes, sizeof bytes, coded, sizeof coded, &n_coded));
        REFUSED(megabyte_codec_push(m, bytes, 1, &taken));
        REFUSED(megabyte_codec_pull(m, back, sizeof back, &got));
        megabyte_codec_reset(m);
        OK(megabyte_codec_decode(m, coded, n_coded, back, sizeof back, &got));
        CHECK(same(back, got, bytes, sizeof bytes));
        for (int mode = MEGABYTE_MODE_COMPRESS; mode <= MEGABYTE_MODE_DECOMPRESS; mode++) {
            megabyte_codec *c = new_codec(tiny->model, mode, &o);
            REFUSED(megabyte_codec_encode(c, bytes, sizeof bytes, back, sizeof back, &got));
            got = 5;
            REFUSED(megabyte_codec_decode(c, coded, n_coded, back, sizeof back, &got));
            CHECK(!got);
            megabyte_codec_free(c);
        }
        megabyte_codec_free(m);
    }
}

static void hostile_codes_for_codecs(void) {
    for (size_t i = 0; i < COUNT_OF(message_options); i++) {
        megabyte_codec_options o = options_for_messages(tiny, i);
        megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o),
                       *d = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o);
        megabyte_stream *scratch = new_stream(tiny->model, NULL, 0);
        size_t decoded = 0;
        for (int seed = -1; seed < 1500; seed++) {
            uint8_t coded[600], bytes[300];
            size_t n = random_below(seed % 2 ? 12 : 200), got = 12345, room = random_below(300);
            name_case("level %d, primed with %zu, a code", o.level, o.dictionary_size);
            seed_random((uint64_t)seed);
            if (seed < 256) {
                n = seed >= 0, coded[0] = (uint8_t)seed, room = 300;
            } else if (seed < 512) {
                n = 2, coded[0] = (uint8_t)random_below(256), coded[1] = (uint8_t)random_below(256);
            } else if (seed % 3) {
                random_bytes(coded, n, 256);
            } else { /* a right one, spoilt */
                make_data(tiny, LIKELY, bytes, n);
                OK(megabyte_codec_encode(c, bytes, n, coded, sizeof coded, &got));
                coded[random_below(got)] ^= (uint8_t)(1u << random_below(8));
                n = seed % 2 ? got : random_below(got + 1);
            }
            uint8_t *exact = need(n, 1), *back = need(room, 1);
            memcpy(exact, coded, n);
            megabyte_status status = megabyte_codec_decode(d, exact, n, back, room, &got);
            CHECK(status == MEGABYTE_OK || status == MEGABYTE_ERROR_CORRUPT ||
                      status == MEGABYTE_ERROR_CAPACITY,
                  "%s", megabyte_status_string(status));
            if (status == MEGABYTE_OK) {
                CHECK(got <= room && is_code_of(c, scratch, coded, n, back, got),
                      "%zu bytes, of another code", got);
                decoded++;
            } else if (status == MEGABYTE_ERROR_CORRUPT) {
                CHECK(!got, "%zu bytes and CORRUPT", got);
            } else {
                CHECK(got > room);
            }
            free(exact), free(back);
        }
        CHECK(decoded > 10 && decoded < 1000, "%zu codes are messages", decoded);
        megabyte_codec_free(c), megabyte_codec_free(d);
        megabyte_stream_free(scratch);
    }
}

int main(int argc, char **argv) {
    set_up("messages", 3, argc > 1 ? argv[1] : NULL);
    RUN(messages);
    RUN(primed_messages);
    RUN(refused_messages);
    RUN(hostile_codes);
    RUN(messages_of_codecs);
    RUN(messages_beside_files);
    RUN(hostile_codes_for_codecs);
    tear_down();
    return 0;
}
