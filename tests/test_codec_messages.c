/* test_codec_messages.c - messages of streams and of codecs: the reference (codec.h) makes the same
 * codes; what is refused leaves no trace; whatever bytes come as a code. */
#include "codec_fixtures.h"
#include <pthread.h>

#define REFUSED(call) CHECK_STATUS(call, MEGABYTE_ERROR_INVALID_ARGUMENT)
#define CORRUPT(call) CHECK_STATUS(call, MEGABYTE_ERROR_CORRUPT)
#define CAPACITY(call) CHECK_STATUS(call, MEGABYTE_ERROR_CAPACITY)

enum { MARK = 0x99, MARKED = 16 }; /* bytes behind what a call may write */

static void check_marks(const uint8_t *from, size_t n) {
    for (size_t i = 0; i < n; i++) CHECK(from[i] == MARK, "%zu bytes too many are written", i + 1);
}

/* A copy in an allocation of just this size: reading past its end shows. */
static uint8_t *exactly(const uint8_t *bytes, size_t n) {
    uint8_t *p = need(n, 1);
    if (n) memcpy(p, bytes, n);
    return p;
}

/* -------------------------------------------------------------------------------------- streams */

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

/* Two sides, and two streams for the reference. */
typedef struct talk {
    const fixture *f;
    megabyte_stream *from, *to, *scratch, *other;
} talk;

static talk new_talk(const fixture *f, megabyte_engine *engine, uint64_t context) {
    return (talk){.f = f,
                  .from = new_stream(f->model, NULL, context),
                  .to = new_stream(f->model, engine, context),
                  .scratch = new_stream(f->model, engine, context),
                  .other = new_stream(f->model, engine, context)};
}

static void free_talk(talk *t) {
    megabyte_stream_free(t->from);
    megabyte_stream_free(t->to);
    megabyte_stream_free(t->scratch);
    megabyte_stream_free(t->other);
}

/* Codes are as short as the model's bits allow. */
static void check_length(size_t n_coded, size_t n, double bits) {
    size_t bound = megabyte_message_bound(n);
    CHECK(n_coded <= bound, "%zu bytes, the bound is %zu", n_coded, bound);
    if (n <= 126)
        CHECK((double)n_coded <= ceil(bits / 8) + 1, "%zu bytes for a message of %f ideal bits",
              n_coded, bits);
    CHECK((double)n_coded <= bits * 1.0005 / 8 + 6, "%zu bytes for a message of %f ideal bits",
          n_coded, bits);
}

/* t->to has the same history as t->from. */
static void receive(const talk *t, const uint8_t *coded, size_t n_coded, const uint8_t *bytes,
                    size_t n) {
    uint8_t *back = need(n + MARKED, 1), *exact = exactly(coded, n_coded);
    size_t got = 12345;
    OK(megabyte_message_length(exact, n_coded, n, &got));
    CHECK(got == n, "a message of %zu, not %zu", n, got);
    if (n > 1) CORRUPT(megabyte_message_length(exact, n_coded, n - 1, &got));
    memset(back, MARK, n + MARKED);
    OK(megabyte_stream_decode(t->to, exact, n_coded, back, n, &got));
    CHECK(same(back, got, bytes, n), "%zu bytes come back as %zu", n, got);
    check_marks(back + n, MARKED);
    free(back);
    free(exact);
}

/* One message from one side to the other; returns the bytes of its code. */
static size_t send(const talk *t, const uint8_t *bytes, size_t n) {
    size_t bound = megabyte_message_bound(n), n_coded = 12345;
    uint8_t *coded = need(bound + MARKED, 1), *expected = need(4 * n + 64, 1);
    double bits = ideal_bits(t->f, t->scratch, t->from, bytes, n);
    uint64_t after = megabyte_stream_position(t->from) + n;
    OK(megabyte_stream_copy(t->scratch, t->from));
    memset(coded, MARK, bound + MARKED);
    OK(megabyte_stream_encode(t->from, n ? bytes : NULL, n, coded, bound, &n_coded));
    check_length(n_coded, n, bits);
    check_marks(coded + bound, MARKED);
    size_t reference = ref_encode_message(t->scratch, t->other, bytes, n, expected);
    CHECK(same(coded, n_coded, expected, reference), "%zu bytes, the reference writes %zu, others",
          n_coded, reference);
    receive(t, coded, n_coded, bytes, n);
    CHECK(megabyte_stream_position(t->from) == after && megabyte_stream_position(t->to) == after);
    const float *logits = megabyte_stream_logits(t->from);
    CHECK(same_floats(logits, megabyte_stream_logits(t->to), t->f->info.vocabulary) &&
              same_floats(logits, megabyte_stream_logits(t->scratch), t->f->info.vocabulary),
          "the message is not what follows in the histories");
    free(coded);
    free(expected);
    return n_coded;
}

/* To an empty history, or after others. */
static void send_all_lengths(const talk *t) {
    static uint8_t bytes[3000];
    const fixture *f = t->f;
    for (size_t n = 0; n <= 300; n += f == tiny || n < 30 ? 1 : 3) {
        name_case("%s, a message of %zu", f->y.name, n);
        seed_random(n);
        make_data(f, n % 4 == 3 ? MIXED : LIKELY, bytes, n);
        if (n % 20 == 0 || random_below(2)) {
            size_t history = n % 3 ? random_below(80) : 0;
            megabyte_stream_reset(t->from);
            megabyte_stream_reset(t->to);
            OK(megabyte_stream_feed(t->from, f->pool, history));
            OK(megabyte_stream_feed(t->to, f->pool, history));
        }
        send(t, bytes, n);
    }
    for (int kind = 0; kind < KINDS; kind++) {
        name_case("%s, a message of 3000, %s", f->y.name, kind_name[kind]);
        seed_random((uint64_t)kind);
        make_data(f, (enum kind)kind, bytes, sizeof bytes);
        send(t, bytes, sizeof bytes);
    }
}

static void messages(void) {
    EACH_FIXTURE(f) {
        megabyte_engine *engine = new_engine(f->model, 1, 7, MEGABYTE_ISA_AUTO);
        talk t = new_talk(f, engine, 0);
        send_all_lengths(&t);
        free_talk(&t);
        megabyte_engine_free(engine);
    }
    static fixture shipped;
    shipped.model = text_small;
    shipped.info = describe(text_small);
    talk t = new_talk(&shipped, NULL, 1024);
    for (size_t n = 0; n <= 126; n += 9) {
        name_case("text-small, a message of %zu", n);
        send(&t, text + 5000 + n, n);
    }
    free_talk(&t);
    CHECK(megabyte_message_bound(0) == 16 && megabyte_message_bound(100) == 116);
    CHECK(megabyte_message_bound(SIZE_MAX) == SIZE_MAX &&
          megabyte_message_bound(SIZE_MAX - 15) == SIZE_MAX);
}

/* A stream with a history is copied or rewound: the same codes. Returns the bytes of one. */
static size_t send_after(talk *t, megabyte_stream *primed, size_t history, const uint8_t *bytes,
                         size_t n) {
    uint8_t copied[64], rewound[64];
    size_t n_copied, n_rewound;
    OK(megabyte_stream_copy(t->from, primed));
    OK(megabyte_stream_encode(t->from, bytes, n, copied, sizeof copied, &n_copied));
    OK(megabyte_stream_rewind(t->to, history));
    OK(megabyte_stream_encode(t->to, bytes, n, rewound, sizeof rewound, &n_rewound));
    CHECK(same(copied, n_copied, rewound, n_rewound), "%zu bytes copied, %zu rewound", n_copied,
          n_rewound);
    OK(megabyte_stream_copy(t->from, primed));
    OK(megabyte_stream_rewind(t->to, history));
    return send(t, bytes, n);
}

/* After every seventh of a window, and without: it makes a difference. */
static void messages_after_a_history(void) {
    EACH_FIXTURE(f) {
        talk t = new_talk(f, NULL, 0), plain = new_talk(f, NULL, 0);
        megabyte_stream *primed = new_stream(f->model, NULL, 0);
        size_t window = (size_t)f->info.context_bytes, without = 0, with = 0;
        for (size_t history = 0; history <= window; history += 1 + window / 7) {
            megabyte_stream_reset(primed);
            megabyte_stream_reset(t.to);
            OK(megabyte_stream_feed(primed, f->pool, history));
            OK(megabyte_stream_feed(t.to, f->pool, history));
            for (size_t n = 0; n + history <= window; n++) {
                name_case("%s, %zu after %zu", f->y.name, n, history);
                with += send_after(&t, primed, history, f->pool + history, n);
                megabyte_stream_reset(plain.from);
                megabyte_stream_reset(plain.to);
                without += send(&plain, f->pool + history, n);
            }
        }
        CHECK(with != without, "a history makes no difference");
        megabyte_stream_free(primed);
        free_talk(&t);
        free_talk(&plain);
    }
}

/* What is missing in a call; all else is right. */
enum { SELF = 1, INPUT = 2, OUTPUT = 4, RESULT = 8, ALL_OF_THEM = 16 };

static void refuse_to_encode(const fixture *f, megabyte_stream *s, size_t n) {
    uint8_t coded[700];
    size_t size, n_coded, bound = megabyte_message_bound(n);
    uint8_t *state = state_of(s, &size);
    for (size_t room = 0; room < bound; room += 1 + room / 3)
        CAPACITY(megabyte_stream_encode(s, f->pool, n, coded, room, &n_coded));
    CAPACITY(megabyte_stream_encode(s, f->pool, n, coded, bound - 1, &n_coded));
    check_state(s, state, size, "after CAPACITY");
    for (int without = SELF; without < ALL_OF_THEM; without *= 2)
        REFUSED(megabyte_stream_encode(
            without == SELF ? NULL : s, without == INPUT ? NULL : f->pool, n,
            without == OUTPUT ? NULL : coded, sizeof coded, without == RESULT ? NULL : &n_coded));
    check_state(s, state, size, "after INVALID_ARGUMENT");
    free(state);
}

static void refuse_to_decode(megabyte_stream *s, const uint8_t *coded, size_t n_coded, size_t n) {
    uint8_t back[700];
    size_t size, got;
    uint8_t *state = state_of(s, &size);
    for (size_t room = 0; room < n; room += 1 + room / 5) {
        got = 12345;
        CAPACITY(megabyte_stream_decode(s, coded, n_coded, back, room, &got));
        CHECK(got == n, "a message of %zu, not %zu", n, got);
    }
    for (int without = SELF; without < ALL_OF_THEM; without *= 2)
        REFUSED(megabyte_stream_decode(without == SELF ? NULL : s, without == INPUT ? NULL : coded,
                                       n_coded, without == OUTPUT ? NULL : back, n,
                                       without == RESULT ? NULL : &got));
    check_state(s, state, size, "after refused decoding");
    free(state);
}

static void refused_messages(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *s = new_stream(f->model, NULL, 0), *t = new_stream(f->model, NULL, 0);
        uint8_t coded[700], back[700];
        size_t n_coded, got;
        for (size_t n = 1; n <= 300; n = n * 2 + 1) {
            name_case("%s, a message of %zu", f->y.name, n);
            megabyte_stream_reset(s);
            megabyte_stream_reset(t);
            OK(megabyte_stream_feed(s, f->pool + 50, 19));
            OK(megabyte_stream_feed(t, f->pool + 50, 19));
            refuse_to_encode(f, s, n);
            OK(megabyte_stream_encode(s, f->pool, n, coded, sizeof coded, &n_coded));
            refuse_to_decode(t, coded, n_coded, n);
            OK(megabyte_stream_decode(t, coded, n_coded, back, n, &got));
            CHECK(same(back, got, f->pool, n));
        }
        megabyte_stream_free(s);
        megabyte_stream_free(t);
    }
}

/* What a decoder may make of any bytes. */
static void check_decoded(megabyte_status status, size_t got, size_t capacity) {
    CHECK(status == MEGABYTE_OK || status == MEGABYTE_ERROR_CORRUPT ||
              status == MEGABYTE_ERROR_CAPACITY,
          "%s", megabyte_status_string(status));
    if (status == MEGABYTE_OK) CHECK(got <= capacity);
    else if (status == MEGABYTE_ERROR_CORRUPT) CHECK(got == 0, "%zu bytes and CORRUPT", got);
    else CHECK(got > capacity);
}

/* megabyte_message_length says beforehand what decoding does, whatever the code. */
static void check_claim(const uint8_t *coded, size_t n_coded, megabyte_status decoded, size_t got) {
    size_t length = 12345;
    megabyte_status status = megabyte_message_length(coded, n_coded, 0, &length);
    if (status) {
        CORRUPT(status);
        CORRUPT(decoded);
        CHECK(!length && (!n_coded || got == 0));
    } else {
        CHECK(n_coded && length <= MEGABYTE_MESSAGE_MAX, "%zu bytes claim %zu", n_coded, length);
        CHECK(decoded == MEGABYTE_ERROR_CORRUPT || got == length, "%zu, not %zu", got, length);
    }
}

/* What decodes is a message's code, or its bytes stored, to the last bit. */
static int try_code(megabyte_stream *s, megabyte_stream *t, const uint8_t *coded, size_t n_coded,
                    size_t capacity) {
    uint8_t *back = need(capacity, 1), *again = need(4 * capacity + 64, 1),
            *exact = exactly(coded, n_coded);
    size_t got = 12345;
    megabyte_stream_reset(s);
    megabyte_status status = megabyte_stream_decode(s, exact, n_coded, back, capacity, &got);
    check_decoded(status, got, capacity);
    check_claim(exact, n_coded, status, got);
    if (status == MEGABYTE_ERROR_CAPACITY) CHECK(megabyte_stream_position(s) == 0);
    if (status == MEGABYTE_OK) {
        megabyte_stream_reset(t);
        int right = same(coded, n_coded, again, ref_message(t, 0, back, got, again));
        if (!right) right = same(coded, n_coded, again, ref_message(t, 1, back, got, again));
        CHECK(right, "decodes to %zu bytes, which have another code", got);
    }
    free(back);
    free(again);
    free(exact);
    return status == MEGABYTE_OK;
}

/* A right code with one bit turned over, or a part of one. */
static size_t spoil(uint8_t *coded, size_t n_coded, int whole) {
    if (n_coded) coded[random_below(n_coded)] ^= (uint8_t)(1u << random_below(8));
    return whole ? n_coded : random_below(n_coded + 1);
}

static void every_short_code(const fixture *f, megabyte_stream *s, megabyte_stream *t) {
    size_t decoded = 0, tried = 0;
    name_case("%s, every short code", f->y.name);
    for (int c = -1; c < 65536 + 256; c += c < 256 || f == tiny ? 1 : 7) {
        uint8_t coded[2] = {(uint8_t)c, (uint8_t)((c - 256) >> 8)};
        decoded += (size_t)try_code(s, t, coded, c < 0 ? 0 : c < 256 ? 1 : 2, 300);
        tried++;
    }
    CHECK(decoded > 20 && decoded < tried, "%zu of %zu codes are messages", decoded, tried);
}

static void random_code(const fixture *f, megabyte_stream *s, megabyte_stream *t, uint64_t seed) {
    uint8_t coded[600], bytes[300];
    name_case("%s, a random code", f->y.name);
    seed_random(seed);
    size_t n = random_below(seed % 2 ? 12 : 300), got;
    if (seed % 3) {
        random_bytes(coded, n, 256);
    } else {
        make_data(f, LIKELY, bytes, n);
        megabyte_stream_reset(s);
        OK(megabyte_stream_encode(s, bytes, n, coded, sizeof coded, &got));
        n = spoil(coded, got, seed % 2);
    }
    try_code(s, t, coded, n, random_below(400));
}

static void any_code(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *s = new_stream(f->model, NULL, 0), *t = new_stream(f->model, NULL, 0);
        every_short_code(f, s, t);
        for (uint64_t seed = 1; seed <= 3000; seed++) random_code(f, s, t, seed);
        megabyte_stream_free(s);
        megabyte_stream_free(t);
    }
}

/* --------------------------------------------------------------------------------------- codecs */

static const struct message_row {
    int level;
    uint32_t mixing_memory;
    size_t dictionary_size;
    int halves; /* codes are less than half as long as in the row before */
} message_rows[] = {
    {.level = 5, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING},
    {.level = 5, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING, .dictionary_size = 60},
    {.level = 3, .mixing_memory = 1},
    {.level = 3, .mixing_memory = 1, .dictionary_size = 500, .halves = 1},
    {.level = 7, .mixing_memory = 1},
    {.level = 7, .mixing_memory = 1, .dictionary_size = 500, .halves = 1},
};

#define EACH_ROW(row)                                  \
    for (const struct message_row *row = message_rows; \
         row < message_rows + COUNT_OF(message_rows); row++)

static megabyte_codec_options options_of(const struct message_row *row, const fixture *f) {
    return (megabyte_codec_options){.level = row->level,
                                    .mixing_memory = row->mixing_memory,
                                    .dictionary = row->dictionary_size ? f->pool : NULL,
                                    .dictionary_size = row->dictionary_size};
}

/* A codec; another one with other options that change no code; a stream, and what it begins as. */
typedef struct talkers {
    const fixture *f;
    megabyte_engine *engine;
    megabyte_codec *c, *d;
    megabyte_stream *s, *primed;
} talkers;

static talkers new_talkers(const fixture *f, const struct message_row *row) {
    size_t i = (size_t)(row - message_rows);
    megabyte_codec_options o = options_of(row, f);
    talkers t = {.f = f,
                 .engine = new_engine(f->model, 1 + i % 3, 3, MEGABYTE_ISA_AUTO),
                 .c = new_codec(f->model, MEGABYTE_MODE_MESSAGES, &o)};
    o.engine = t.engine;
    o.streams = (uint32_t)i % 4;
    o.block_size = (uint32_t)i * 1000;
    t.d = new_codec(f->model, MEGABYTE_MODE_MESSAGES, &o);
    t.s = new_stream(f->model, t.engine, 0);
    t.primed = new_stream(f->model, t.engine, 0);
    OK(megabyte_stream_feed(t.primed, o.dictionary, o.dictionary_size));
    return t;
}

static void free_talkers(talkers *t) {
    megabyte_stream_free(t->s);
    megabyte_stream_free(t->primed);
    megabyte_codec_free(t->c);
    megabyte_codec_free(t->d);
    megabyte_engine_free(t->engine);
}

/* Codecs are as before afterwards: the next messages show it. */
static void refused_by_codecs(const talkers *t, const uint8_t *bytes, size_t n,
                              const uint8_t *coded, size_t n_coded) {
    uint8_t other[200 + MARKED];
    size_t got;
    for (int without = SELF; without < ALL_OF_THEM; without *= 2) {
        megabyte_codec *c = without == SELF ? NULL : t->c;
        uint8_t *to = without == OUTPUT ? NULL : other;
        size_t *result = without == RESULT ? NULL : &got;
        REFUSED(
            megabyte_codec_encode(c, without == INPUT ? NULL : bytes, n, to, sizeof other, result));
        REFUSED(megabyte_codec_decode(c, without == INPUT ? NULL : coded, n_coded, to, sizeof other,
                                      result));
    }
    CAPACITY(megabyte_codec_encode(t->c, bytes, n, other, megabyte_message_bound(n) - 1, &got));
    CAPACITY(megabyte_codec_encode(t->c, bytes, n, other, 0, &got));
    CAPACITY(megabyte_codec_decode(t->d, coded, n_coded, other, n - 1, &got));
    CHECK(got == n, "a message of %zu, not %zu", n, got);
}

/* Both codecs decode it, and make the same code; so does a stream, unless contexts are mixed in. */
static void check_code(const talkers *t, int level, const uint8_t *bytes, size_t n,
                       const uint8_t *coded, size_t n_coded) {
    uint8_t back[200 + MARKED], other[200 + MARKED], *exact = exactly(coded, n_coded);
    size_t got = 12345, bound = megabyte_message_bound(n);
    memset(back, MARK, sizeof back);
    OK(megabyte_codec_decode(t->d, exact, n_coded, back, n, &got));
    CHECK(same(back, got, bytes, n), "%zu others come back", got);
    check_marks(back + n, sizeof back - n);
    OK(megabyte_codec_decode(t->c, exact, n_coded, back, sizeof back, &got));
    CHECK(same(back, got, bytes, n), "%zu others come back", got);
    OK(megabyte_codec_encode(t->d, bytes, n, other, bound, &got));
    CHECK(same(other, got, coded, n_coded), "other codes");
    if (level == 5) {
        OK(megabyte_stream_copy(t->s, t->primed));
        OK(megabyte_stream_encode(t->s, bytes, n, other, bound, &got));
        CHECK(same(other, got, coded, n_coded), "a stream writes other codes");
    }
    free(exact);
}

/* Returns the bytes of the code of bytes[n]. */
static size_t check_message(const talkers *t, int level, const uint8_t *bytes, size_t n) {
    uint8_t coded[200 + 32];
    size_t n_coded = 12345, bound = megabyte_message_bound(n);
    memset(coded, MARK, sizeof coded);
    OK(megabyte_codec_encode(t->c, n ? bytes : NULL, n, coded, bound, &n_coded));
    CHECK(n_coded <= bound && n_coded <= n + 5, "%zu bytes", n_coded);
    check_marks(coded + bound, sizeof coded - bound);
    check_code(t, level, bytes, n, coded, n_coded);
    if (n % 10 == 6) refused_by_codecs(t, bytes, n, coded, n_coded);
    return n_coded;
}

static void messages_of_codecs(void) {
    static const enum kind kinds[] = {LIKELY, LIKELY, LIKELY, MIXED, RANDOM};
    EACH_FIXTURE(f) {
        size_t sums[COUNT_OF(message_rows)] = {0};
        EACH_ROW(row) {
            talkers t = new_talkers(f, row);
            size_t *sum = &sums[row - message_rows]; /* of what the dictionary holds, too */
            for (size_t n = 0; n <= 200; n += f == tiny ? 1 : 13) {
                uint8_t bytes[200];
                name_case("%s, level %d, a dictionary of %zu, a message of %zu", f->y.name,
                          row->level, row->dictionary_size, n);
                seed_random(n);
                if (n % 5 == 1) memcpy(bytes, f->pool + 100, n);
                else make_data(f, kinds[n % 5], bytes, n);
                size_t n_coded = check_message(&t, row->level, bytes, n);
                if (n % 5 == 1) *sum += n_coded;
            }
            if (f == tiny && row->halves)
                CHECK(*sum * 2 < sum[-1], "%zu bytes, %zu without a dictionary", *sum, sum[-1]);
            free_talkers(&t);
        }
    }
}

/* A codec is for files or for messages. */
static void messages_beside_files(void) {
    uint8_t bytes[100], coded[200], back[200];
    size_t n_coded, got, taken;
    seed_random(1);
    make_data(tiny, MIXED, bytes, sizeof bytes);
    EACH_ROW(row) {
        megabyte_codec_options o = options_of(row, tiny);
        name_case("level %d, a dictionary of %zu", o.level, o.dictionary_size);
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

/* What encoding gives, or its bytes stored. */
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

/* Every code of one byte, then random ones of two, then longer ones and right ones, spoilt. Returns
 * the bytes of the code; `room`: for what it decodes to. */
static size_t make_code(megabyte_codec *c, int seed, uint8_t *coded, size_t *room) {
    uint8_t bytes[300];
    seed_random((uint64_t)seed);
    size_t n = random_below(seed % 2 ? 12 : 200), got;
    *room = seed < 256 ? 300 : random_below(300);
    if (seed < 0) return 0;
    if (seed < 256) {
        coded[0] = (uint8_t)seed;
        return 1;
    }
    if (seed < 512 || seed % 3) {
        if (seed < 512) n = 2;
        random_bytes(coded, n, 256);
        return n;
    }
    make_data(tiny, LIKELY, bytes, n);
    OK(megabyte_codec_encode(c, bytes, n, coded, 600, &got));
    return spoil(coded, got, seed % 2);
}

static void any_code_for_codecs(void) {
    EACH_ROW(row) {
        megabyte_codec_options o = options_of(row, tiny);
        megabyte_codec *c = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o),
                       *d = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o);
        megabyte_stream *scratch = new_stream(tiny->model, NULL, 0);
        size_t decoded = 0;
        name_case("level %d, a dictionary of %zu, a code", o.level, o.dictionary_size);
        for (int seed = -1; seed < 1500; seed++) {
            uint8_t coded[600];
            size_t room, got = 12345, n = make_code(c, seed, coded, &room);
            uint8_t *exact = exactly(coded, n), *back = need(room, 1);
            megabyte_status status = megabyte_codec_decode(d, exact, n, back, room, &got);
            check_decoded(status, got, room);
            check_claim(exact, n, status, got);
            CHECK(megabyte_codec_error(d)->status == status &&
                  !status == !megabyte_codec_error(d)->text[0]);
            if (status == MEGABYTE_OK) {
                CHECK(is_code_of(c, scratch, coded, n, back, got), "%zu bytes, of another code",
                      got);
                decoded++;
            }
            free(exact);
            free(back);
        }
        CHECK(decoded > 10 && decoded < 1000, "%zu codes are messages", decoded);
        megabyte_codec_free(c);
        megabyte_codec_free(d);
        megabyte_stream_free(scratch);
    }
}

/* ----------------------------------------------------------------------------------------- room */

/* Where the window begins of a stream that was fed so many bytes: no slide, 0. */
static uint64_t window_begins(const megabyte_model *m, const uint8_t *from, size_t n) {
    megabyte_stream *s = new_stream(m, NULL, 0);
    size_t size;
    OK(megabyte_stream_feed(s, from, n));
    uint8_t *state = state_of(s, &size);
    uint64_t base = 0;
    for (int i = 7; i >= 0; i--) base = base << 8 | state[56 + i]; /* models/FORMAT.md */
    free(state);
    megabyte_stream_free(s);
    return base;
}

/* A codec of the network alone writes what a stream does that has read the dictionary's end; also
 * where messages slide, once and more often. */
static void check_seen(const megabyte_model *m, const uint8_t *from, size_t dictionary_size,
                       uint32_t room, size_t seen) {
    megabyte_codec_options o = {.level = 5,
                                .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING,
                                .dictionary = from,
                                .dictionary_size = dictionary_size,
                                .room = room};
    megabyte_codec *c = new_codec(m, MEGABYTE_MODE_MESSAGES, &o);
    megabyte_stream *primed = new_stream(m, NULL, 0), *s = new_stream(m, NULL, 0);
    OK(megabyte_stream_feed(primed, from + dictionary_size - seen, seen));
    for (size_t n = 0; n <= (room ? room + 3 : 27); n++) {
        uint8_t coded[200], other[200], back[100];
        size_t n_coded, n_other, got;
        OK(megabyte_codec_encode(c, from + 7, n, coded, sizeof coded, &n_coded));
        OK(megabyte_stream_copy(s, primed));
        OK(megabyte_stream_encode(s, from + 7, n, other, sizeof other, &n_other));
        CHECK(same(coded, n_coded, other, n_other), "a message of %zu: other codes", n);
        OK(megabyte_codec_decode(c, coded, n_coded, back, sizeof back, &got));
        CHECK(same(back, got, from + 7, n));
    }
    megabyte_codec_free(c);
    megabyte_stream_free(primed);
    megabyte_stream_free(s);
}

/* window: the bytes that fit before the first slide, which are counted. */
static void check_room(const megabyte_model *m, const uint8_t *from) {
    megabyte_info info = describe(m);
    size_t window = (size_t)info.context_bytes + 1;
    while (window_begins(m, from, window)) window--;
    CHECK(window + 1 >= info.context_bytes);
    megabyte_codec_options wrong = {.level = 5, .room = (uint32_t)window / 2 + 1};
    megabyte_codec *c;
    megabyte_error error;
    REFUSED(megabyte_codec_create(&c, m, MEGABYTE_MODE_MESSAGES, &wrong, NULL, &error));
    CHECK(strstr(error.text, "room"));
    for (uint32_t room = 0; room <= window / 2; room += 1 + room / 2)
        for (size_t n = 1; n <= 3 * window; n += n < window + 2 ? 1 : 5) {
            name_case("%s, room %u, a dictionary of %zu, a window of %zu", info.family, room, n,
                      window);
            size_t seen = room && n > window - room ? window - room : n;
            check_seen(m, from, n, room, seen);
        }
}

/* With contexts it changes what the network sees, and nothing that a shorter dictionary says. */
static void room_and_contexts(void) {
    static const size_t sizes[] = {11, 12, 13, 503};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        megabyte_codec_options o = {
            .level = 7, .mixing_memory = 1, .dictionary = tiny->pool, .dictionary_size = sizes[i]};
        megabyte_codec *without = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o), *with;
        o.room = 4; /* of 16 */
        with = new_codec(tiny->model, MEGABYTE_MODE_MESSAGES, &o);
        int differ = 0;
        for (size_t n = 0; n < 60; n++) {
            uint8_t a[200], b[200], back[60];
            size_t n_a, n_b, got;
            name_case("a dictionary of %zu, a message of %zu", sizes[i], n);
            OK(megabyte_codec_encode(without, tiny->pool + 600, n, a, sizeof a, &n_a));
            OK(megabyte_codec_encode(with, tiny->pool + 600, n, b, sizeof b, &n_b));
            differ |= !same(a, n_a, b, n_b);
            OK(megabyte_codec_decode(with, b, n_b, back, sizeof back, &got));
            CHECK(same(back, got, tiny->pool + 600, n));
        }
        CHECK(differ == (sizes[i] > 12), "room %s the codes", differ ? "changes" : "leaves");
        megabyte_codec_free(without);
        megabyte_codec_free(with);
    }
}

static void room(void) {
    EACH_FIXTURE(f) check_room(f->model, f->pool);
    char mb[200]; /* its window is a byte short of its context */
    megabyte_model *paper = open_model(convert(mb, "tests/data/small-paper.safetensors",
                                               "tests/data/small-paper.json",
                                               "codec-messages-paper", "q8"));
    check_room(paper, text);
    megabyte_model_close(paper);
    room_and_contexts();
}

/* --------------------------------------------------------------------------------------- limits */

static void check_text(const megabyte_codec *c, megabyte_status status, const char *part) {
    const megabyte_error *error = megabyte_codec_error(c);
    CHECK(error->status == status && strstr(error->text, part), "%d '%s', not of '%s'",
          error->status, error->text, part);
}

/* Longer messages are neither encoded nor decoded; a text for every failure, none after what goes
 * well. */
static void check_limit(const megabyte_model *m, int level, size_t limit) {
    megabyte_codec_options o = {.level = level, .mixing_memory = 1};
    megabyte_codec *any = new_codec(m, MEGABYTE_MODE_MESSAGES, &o), *c;
    o.limit = limit;
    c = new_codec(m, MEGABYTE_MODE_MESSAGES, &o);
    for (size_t n = limit ? limit - 1 : 0; n <= limit + 2; n++) {
        uint8_t coded[300], other[300], back[300];
        size_t n_coded, n_other = 12345, got = 12345;
        name_case("level %d, a limit of %zu, %zu bytes", level, limit, n);
        OK(megabyte_codec_encode(any, text, n, coded, sizeof coded, &n_coded));
        if (!limit || n <= limit) {
            OK(megabyte_codec_encode(c, text, n, other, sizeof other, &n_other));
            CHECK(same(coded, n_coded, other, n_other));
            OK(megabyte_codec_decode(c, coded, n_coded, back, sizeof back, &got));
            CHECK(same(back, got, text, n));
        } else {
            CHECK_STATUS(megabyte_codec_encode(c, text, n, other, sizeof other, &n_other),
                         MEGABYTE_ERROR_LIMIT);
            check_text(c, MEGABYTE_ERROR_LIMIT, "over the limit of");
            CORRUPT(megabyte_codec_decode(c, coded, n_coded, back, sizeof back, &got));
            check_text(c, MEGABYTE_ERROR_CORRUPT, "over the limit of");
            CHECK(!got && n_other == 12345);
        }
        CAPACITY(megabyte_codec_encode(any, text, n, other, n + 15, &n_other));
        check_text(any, MEGABYTE_ERROR_CAPACITY, "megabyte_message_bound");
        if (n) CAPACITY(megabyte_codec_decode(any, coded, n_coded, back, n - 1, &got));
        if (n) check_text(any, MEGABYTE_ERROR_CAPACITY, "there is room for");
        CORRUPT(megabyte_codec_decode(any, NULL, 0, back, sizeof back, &got));
        check_text(any, MEGABYTE_ERROR_CORRUPT, "the code is empty");
        CHECK(!got);
        REFUSED(megabyte_codec_decode(any, NULL, 1, back, sizeof back, &got));
        check_text(any, MEGABYTE_ERROR_INVALID_ARGUMENT, "NULL");
        OK(megabyte_codec_encode(any, text, n, other, sizeof other, &n_other));
        check_text(any, MEGABYTE_OK, "");
        CHECK(!megabyte_codec_error(any)->text[0]);
        coded[n_coded] = 0; /* not what encoding gives */
        CORRUPT(megabyte_codec_decode(any, coded, n_coded + 1, back, sizeof back, &got));
        check_text(any, MEGABYTE_ERROR_CORRUPT, "the code is damaged");
    }
    megabyte_codec_free(any);
    megabyte_codec_free(c);
}

/* A code that claims this many bytes: its first decisions, and zeros. */
static size_t claim(uint64_t length, uint8_t *coded) {
    ref_interval v = ref_whole();
    ref_message_head(&v, 0, length);
    size_t n = ref_end(&v, coded);
    memset(coded + n, 0, 8);
    return n + 8;
}

static void limits(void) {
    static const size_t sizes[] = {0, 1, 14, 15, 100};
    static const uint64_t claims[] = {MEGABYTE_MESSAGE_MAX, MEGABYTE_MESSAGE_MAX + 1ull, UINT32_MAX,
                                      (uint64_t)1 << 40, UINT64_MAX / 2};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        check_limit(NULL, 1, sizes[i]);
        check_limit(tiny->model, 5, sizes[i]);
        check_limit(tiny->model, 7, sizes[i]);
    }
    megabyte_codec_options o = {.level = 1, .limit = UINT64_MAX};
    megabyte_codec *c = new_codec(NULL, MEGABYTE_MODE_MESSAGES, &o);
    megabyte_stream *s = new_stream(tiny->model, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(claims); i++) {
        uint8_t coded[40], back[10];
        size_t n_coded = claim(claims[i], coded), got = 12345;
        name_case("a claim of %llu bytes", (unsigned long long)claims[i]);
        CHECK_STATUS(megabyte_stream_decode(s, coded, n_coded, back, sizeof back, &got),
                     i ? MEGABYTE_ERROR_CORRUPT : MEGABYTE_ERROR_CAPACITY);
        CHECK(got == (i ? 0 : claims[i]), "%zu", got);
        CHECK_STATUS(megabyte_message_length(coded, n_coded, 0, &got),
                     i ? MEGABYTE_ERROR_CORRUPT : MEGABYTE_OK);
        CHECK(got == (i ? 0 : claims[i]), "%zu", got);
        if (claims[i] > SIZE_MAX - 16) continue; /* 32 bits */
        OK(megabyte_message_length(coded, n_coded, UINT64_MAX, &got));
        CHECK(got == claims[i], "%zu", got);
        CAPACITY(megabyte_codec_decode(c, coded, n_coded, back, sizeof back, &got));
        CHECK(got == claims[i], "%zu", got);
    }
    size_t n;
    REFUSED(megabyte_message_length(NULL, 1, 0, &n));
    REFUSED(megabyte_message_length("", 1, 0, NULL));
    CHECK(megabyte_stream_position(s) == 0);
    megabyte_codec_free(c);
    megabyte_stream_free(s);
}

/* -------------------------------------------------------------------------- shared dictionaries */

enum { SHARING = 4, TURNS = 40 };

typedef struct sharer {
    pthread_t thread;
    megabyte_codec *c;
    int first;
    size_t n_coded[TURNS];
    uint8_t coded[TURNS][150];
} sharer;

static void *talk_alone(void *argument) {
    sharer *s = argument;
    for (int i = 0; i < TURNS; i++) {
        uint8_t back[100];
        size_t n = 20 + (size_t)(i * 7) % 80, got;
        const uint8_t *from = tiny->pool + 300 + i;
        OK(megabyte_codec_encode(s->c, from, n, s->coded[i], sizeof s->coded[i], &s->n_coded[i]));
        OK(megabyte_codec_decode(s->c, s->coded[i], s->n_coded[i], back, sizeof back, &got));
        CHECK(same(back, got, from, n));
    }
    return NULL;
}

/* Codecs of several threads, and the one whose dictionary they share: all write what that one
 * does. */
static void check_sharing(const megabyte_model *m, int level, uint32_t room) {
    static sharer s[SHARING];
    megabyte_codec_options o = {.level = level,
                                .dictionary = tiny->pool,
                                .dictionary_size = 704, /* without room: a full context */
                                .room = room,
                                .mixing_memory = level == 5 ? MEGABYTE_NO_CONTEXT_MIXING : 1};
    megabyte_codec *own = new_codec(m, MEGABYTE_MODE_MESSAGES, &o);
    megabyte_codec_options with = {
        .level = level, .mixing_memory = o.mixing_memory, .dictionary_of = own};
    size_t alone, sharing, none;
    OK(megabyte_codec_size(m, MEGABYTE_MODE_MESSAGES, &o, &alone));
    OK(megabyte_codec_size(m, MEGABYTE_MODE_MESSAGES, &with, &sharing));
    o.dictionary = NULL;
    o.dictionary_size = 0;
    OK(megabyte_codec_size(m, MEGABYTE_MODE_MESSAGES, &o, &none));
    name_case("level %d", level);
    CHECK(sharing == none && sharing < alone, "%zu bytes, %zu with a dictionary", sharing, alone);
    s[0].c = own;
    for (int i = 1; i < SHARING; i++) {
        s[i].c = new_codec(m, MEGABYTE_MODE_MESSAGES, &with);
        with.dictionary_of = s[i].c; /* the next one shares what this one does */
    }
    for (int i = 0; i < SHARING; i++) CHECK(!pthread_create(&s[i].thread, NULL, talk_alone, &s[i]));
    for (int i = 0; i < SHARING; i++) CHECK(!pthread_join(s[i].thread, NULL));
    for (int i = 1; i < SHARING; i++)
        for (int k = 0; k < TURNS; k++)
            CHECK(same(s[i].coded[k], s[i].n_coded[k], s[0].coded[k], s[0].n_coded[k]),
                  "codec %d, message %d: other codes", i, k);
    for (int i = SHARING; i-- > 0;) megabyte_codec_free(s[i].c);
}

/* A full context is kept as it slides, too: a stream's memory; not where room is kept, or an eighth
 * of the context is free (of 16 bytes: 2). */
static void check_kept(void) {
    size_t bytes[4];
    static const struct {
        size_t dictionary;
        uint32_t room;
    } cases[] = {{704, 0}, {703, 0}, {702, 0}, {704, 1}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        megabyte_codec_options o = {.level = 5,
                                    .dictionary = tiny->pool,
                                    .dictionary_size = cases[i].dictionary,
                                    .room = cases[i].room};
        OK(megabyte_codec_size(tiny->model, MEGABYTE_MODE_MESSAGES, &o, &bytes[i]));
    }
    CHECK(bytes[0] == bytes[1] && bytes[1] > bytes[2] && bytes[2] == bytes[3],
          "%zu, %zu, %zu, %zu bytes", bytes[0], bytes[1], bytes[2], bytes[3]);
}

/* Files, too: each way of the file by a codec that shares. */
static void share_for_files(int level) {
    megabyte_codec_options o = {.level = level,
                                .dictionary = tiny->pool,
                                .dictionary_size = 700,
                                .mixing_memory = 1,
                                .block_size = 200,
                                .verify = 1};
    way own = {.options = o}, in = own, out = own;
    buffer first = {0}, packed = {0}, got = {0};
    name_case("files, level %d", level);
    megabyte_codec *decoder = new_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &o);
    in.options.dictionary_of = out.options.dictionary_of = decoder;
    in.options.dictionary = out.options.dictionary = NULL;
    in.options.dictionary_size = out.options.dictionary_size = 0;
    OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &own, tiny->pool + 650, 700, &first));
    OK(run_codec(tiny->model, MEGABYTE_MODE_COMPRESS, &in, tiny->pool + 650, 700, &packed));
    CHECK(same(first.bytes, first.n, packed.bytes, packed.n), "another file");
    out.options.streams = 3;
    OK(run_codec(tiny->model, MEGABYTE_MODE_DECOMPRESS, &out, first.bytes, first.n, &got));
    CHECK(same(got.bytes, got.n, tiny->pool + 650, 700));
    megabyte_codec *none; /* files that say what they contain have no dictionary */
    in.options.contents = MEGABYTE_CONTENTS_MULAW;
    REFUSED(
        megabyte_codec_create(&none, tiny->model, MEGABYTE_MODE_COMPRESS, &in.options, NULL, NULL));
    OK(drive(decoder, &own, first.bytes, first.n, &got));
    CHECK(same(got.bytes, got.n, tiny->pool + 650, 700));
    megabyte_codec_free(decoder);
    free(first.bytes), free(packed.bytes), free(got.bytes);
}

/* What would not be the same dictionary. */
static void refuse_to_share(void) {
    static const struct {
        int mode;
        int another_model;
        megabyte_codec_options of, with;
    } rows[] = {
        {.mode = 3, .of = {.level = 7, .dictionary_size = 0}, .with = {.level = 7}},
        {.mode = 3, .of = {.level = 7, .dictionary_size = 9}, .with = {.level = 5}},
        {.mode = 3, .of = {.level = 7, .dictionary_size = 9}, .with = {.level = 1}},
        {.mode = 3, .of = {.level = 1, .dictionary_size = 9}, .with = {.level = 7}},
        {.mode = 3,
         .of = {.level = 7, .dictionary_size = 9},
         .with = {.level = 7, .mixing_memory = 4}},
        {.mode = 3,
         .of = {.level = 7, .dictionary_size = 9},
         .with = {.level = 7, .context_shift = 1}},
        {.mode = 3,
         .another_model = 1,
         .of = {.level = 7, .dictionary_size = 9},
         .with = {.level = 7}},
        {.mode = 3,
         .of = {.level = 7, .dictionary_size = 9},
         .with = {.level = 7, .dictionary_size = 9}},
        {.mode = 1,
         .of = {.level = 5, .dictionary_size = 9, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING},
         .with = {.level = 5, .mixing_memory = MEGABYTE_NO_CONTEXT_MIXING}},
        {.mode = 1,
         .of = {.level = 6, .dictionary_size = 9, .mixing_memory = 1},
         .with = {.level = 6, .mixing_memory = 1}},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        megabyte_codec_options of = rows[i].of, with = rows[i].with;
        megabyte_codec *c, *d;
        megabyte_error error;
        size_t size;
        name_case("row %zu", i);
        if (of.dictionary_size) of.dictionary = text;
        if (with.dictionary_size) with.dictionary = text;
        c = new_codec(fixtures[rows[i].another_model].model, MEGABYTE_MODE_MESSAGES, &of);
        with.dictionary_of = c;
        REFUSED(megabyte_codec_create(&d, tiny->model, (megabyte_mode)rows[i].mode, &with, NULL,
                                      &error));
        CHECK(!d && strstr(error.text, "dictionary_of"), "'%s'", error.text);
        REFUSED(megabyte_codec_size(tiny->model, (megabyte_mode)rows[i].mode, &with, &size));
        megabyte_codec_free(c);
    }
}

static void shared_dictionaries(void) {
    check_sharing(NULL, 2, 5);
    check_sharing(tiny->model, 2, 5);
    for (int level = 5; level <= 7; level += 2)
        for (uint32_t room = 0; room <= 5; room += 5) check_sharing(tiny->model, level, room);
    check_kept();
    share_for_files(1);
    share_for_files(7);
    refuse_to_share();
}

int main(int argc, char **argv) {
    set_up("messages", 3, argc > 1 ? argv[1] : NULL);
    RUN(messages);
    RUN(messages_after_a_history);
    RUN(refused_messages);
    RUN(any_code);
    RUN(messages_of_codecs);
    RUN(messages_beside_files);
    RUN(any_code_for_codecs);
    RUN(room);
    RUN(limits);
    RUN(shared_dictionaries);
    tear_down();
    return 0;
}
