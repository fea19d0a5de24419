/* test_api.c - the promises of megabyte.h, on small random models. */
#include "synthetic.h"

#include <pthread.h>
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

#define LONGEST 420 /* bytes of a history here: five contexts and more */
#define N_ISAS 8

typedef struct fixture {
    synthetic y;
    synthetic_writer *write; /* of another family: y has only the name */
    const char *quant;
    char mb[200];
    uint64_t parameters;
    megabyte_model *model;
    megabyte_info info;
    uint32_t v, ahead; /* ahead: of a family whose windows slide a byte earlier */
    uint8_t bytes[LONGEST];
    size_t n_contexts;
    struct {
        uint64_t option, bytes;
        size_t n;
        float *rows;
    } context[3]; /* rows: the logits after 0 .. n bytes */
} fixture;

static fixture fixtures[] = {
    {.y = {"api-two", 2, {8, 4}, {48, 32}, {2, 2}, 2, 16, 2, 256, 0, 1, "F32"}, .quant = "q8"},
    {.y = {"api-three", 3, {5, 3, 2}, {33, 24, 18}, {1, 1, 2}, 2, 10, 1, 257, 1, 1, "F16"},
     .quant = "f32"},
    {.y =
         {"api-four", 4, {4, 2, 1, 3}, {32, 35, 16, 17}, {1, 1, 1, 1}, 1, 18, 3, 100, 1, 0, "BF16"},
     .quant = "q8"},
    {.y = {"api-bytes", 2, {24, 1}, {24, 16}, {9, 4}, 3, 8, 2, 256, 0, 0, "F32"}, .quant = "q8"},
    {.y = {.name = "api-mblm"}, .write = synthetic_small_mblm, .quant = "q8"},
    {.y = {.name = "api-spacebyte"}, .write = synthetic_small_spacebyte, .quant = "f32"},
    {.y = {.name = "api-bgpt"}, .write = synthetic_small_bgpt, .quant = "q8"},
    {.y = {.name = "api-paper"}, .write = synthetic_small_paper, .quant = "q8"},
    {.y = {.name = "api-paper-bytes"}, .write = synthetic_small_bytes, .quant = "f32"},
};

#define EACH_FIXTURE(f) for (fixture *f = fixtures; f < fixtures + COUNT_OF(fixtures); f++)

static void set_up(void) {
    uint64_t seed = 1;
    make_tmp();
    EACH_FIXTURE(f) {
        name_case("%s", f->y.name);
        f->parameters = f->write ? f->write(f->y.name, seed++) : synthetic_write(&f->y, seed++);
        f->model = open_model(synthetic_convert(f->mb, f->y.name, f->quant));
        f->info = describe(f->model);
        f->v = f->info.vocabulary;
        f->ahead = f->write && f->write != synthetic_small_mblm;
        random_bytes(f->bytes, LONGEST, f->v);
        uint64_t p = f->info.patch_bytes, all = f->info.context_bytes;
        uint64_t option[] = {0, p * (f->info.stage[0].positions / 2 + 1) + (p > 1), p << f->ahead};
        f->n_contexts = COUNT_OF(option);
        for (size_t k = 0; k < f->n_contexts; k++) {
            f->context[k].option = option[k];
            f->context[k].bytes = option[k] ? option[k] / p * p : all;
            f->context[k].n = (size_t)(5 * f->context[k].bytes + 7);
            CHECK(f->context[k].n <= LONGEST);
            f->context[k].rows = score_rows(f->model, NULL, option[k], f->bytes, f->context[k].n);
        }
    }
}

/* ---------------------------------------------------------------------------------- one history */

static void check_at(const megabyte_stream *s, const fixture *f, size_t k, const char *how) {
    uint64_t at = megabyte_stream_position(s);
    CHECK(at <= f->context[k].n &&
              same_floats(megabyte_stream_logits(s), f->context[k].rows + at * f->v, f->v),
          "context %d: the logits after %d bytes (%s) are others than scored",
          (int)f->context[k].bytes, (int)at, how);
}

/* Goes on to `to` bytes in random calls of at most `longest` bytes. No float arithmetic here: see
 * environments. */
static void walk(megabyte_stream *s, const fixture *f, size_t k, size_t to, size_t longest) {
    float *scored = need(longest * f->v, sizeof *scored);
    for (size_t at = (size_t)megabyte_stream_position(s), take; at < to; at += take) {
        take = 1 + random_below(longest);
        if (take > to - at) take = to - at;
        double bits = 0;
        switch (random_below(4)) {
        case 0: OK(megabyte_stream_feed(s, f->bytes + at, take)); break;
        case 1: OK(megabyte_stream_step(s, f->bytes[at])), take = 1; break;
        case 2: OK(megabyte_stream_score(s, f->bytes + at, take, &bits, NULL)); break;
        default:
            OK(megabyte_stream_score(s, f->bytes + at, take, &bits, scored));
            CHECK(same_floats(scored, f->context[k].rows + at * f->v, take * f->v),
                  "%zu bytes scored at %zu", take, at);
        }
        CHECK(megabyte_stream_position(s) == at + take, "%zu + %zu", at, take);
        check_at(s, f, k, "in pieces");
    }
    free(scored);
}

static void cuts(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts; k++) {
        megabyte_stream *s = new_stream(f->model, NULL, f->context[k].option);
        for (uint64_t seed = 1; seed <= 12; seed++) {
            name_case("%s", f->y.name);
            seed_random(seed);
            check_at(s, f, k, "empty");
            walk(s, f, k, f->context[k].n, seed % 3 ? 9 : f->context[k].n);
            megabyte_stream_reset(s);
            CHECK(megabyte_stream_position(s) == 0);
        }
        OK(megabyte_stream_feed(s, NULL, 0));
        check_at(s, f, k, "after an empty feed");
        megabyte_stream_free(s);
    }
}

/* Code lengths and probabilities belong to the logits. */
static void bits_and_probabilities(void) {
    EACH_FIXTURE(f) {
        name_case("%s", f->y.name);
        const float *rows = f->context[0].rows;
        size_t n = f->context[0].n;
        double bits = 3, expected = 3;
        float *p = need(f->v, sizeof *p);
        megabyte_stream *s = new_stream(f->model, NULL, 0);
        OK(megabyte_stream_score(s, f->bytes, n, &bits, NULL));
        for (size_t t = 0; t < n; t++) {
            double sum = 0;
            for (uint32_t i = 0; i < f->v; i++) sum += exp((double)rows[t * f->v + i]);
            expected += log2(sum) - (double)rows[t * f->v + f->bytes[t]] / log(2);
        }
        CHECK(fabs(bits / expected - 1) < 1e-6, "%f bits, expected %f", bits, expected);
        megabyte_stream_probabilities(s, p);
        double sum = 0, total = 0;
        for (uint32_t i = 0; i < f->v; i++) sum += exp((double)rows[n * f->v + i]);
        for (uint32_t i = 0; i < f->v; i++) {
            double want = exp((double)rows[n * f->v + i]) / sum;
            total += p[i];
            CHECK(fabs(p[i] - want) < 1e-6 * want + 1e-12, "id %u: %g, expected %g", i, p[i], want);
        }
        CHECK(fabs(total - 1) < 1e-5, "probabilities sum to %f", total);
        megabyte_stream_free(s);
        free(p);
    }
}

/* The rule at megabyte_stream_feed: a full window first drops the older half of its patches,
 * rounded up, and goes on as a new document that begins with the kept half. */
static void sliding_rule(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts; k++) {
        name_case("%s", f->y.name);
        size_t p = f->info.patch_bytes, patches = (size_t)f->context[k].bytes / p;
        size_t window = patches * p - f->ahead;
        size_t drop = (patches + 1) / 2 * p, from = 0, first = 0;
        while (from + window <
               f->context[k].n) { /* positions first .. from + window see the bytes from `from` */
            megabyte_stream *s = new_stream(f->model, NULL, 0);
            for (size_t at = from; at <= from + window; at++) {
                if (at >= first)
                    CHECK_LOGITS(s, f->context[k].rows + at * f->v, f->v,
                                 "window of %zu from %zu, after %zu bytes", window, from, at);
                if (at < from + window) OK(megabyte_stream_step(s, f->bytes[at]));
            }
            megabyte_stream_free(s);
            first = from + window + 1;
            from += drop;
        }
    }
}

static void rewinds(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts; k++) {
        name_case("%s", f->y.name);
        uint64_t window = f->context[k].bytes;
        megabyte_engine *engine = new_engine(f->model, 1, 0, MEGABYTE_ISA_AUTO);
        megabyte_stream *s = new_stream(f->model, engine, f->context[k].option);
        megabyte_stream *back = new_stream(f->model, engine, f->context[k].option);
        size_t n = f->context[k].n, step = f == fixtures ? 1 : 5;
        seed_random(77);
        for (size_t at = 0; at <= n; at++) {
            if (at) OK(megabyte_stream_step(s, f->bytes[at - 1]));
            if (at % step && at != window && at != window + 1) continue;
            CHECK_STATUS(megabyte_stream_rewind(s, at + 1), MEGABYTE_ERROR_INVALID_ARGUMENT);
            for (size_t to = at - (at < 2 * window ? at : 2 * window); to <= at; to += step) {
                OK(megabyte_stream_copy(back, s));
                megabyte_status status = megabyte_stream_rewind(back, to);
                if (status == MEGABYTE_ERROR_CAPACITY)
                    CHECK(at > window && (at - to) * 2 > window, "from %zu to %zu", at, to);
                else CHECK(status == MEGABYTE_OK, "from %zu to %zu", at, to);
                CHECK(megabyte_stream_position(back) == (status ? at : to));
                check_at(back, f, k, "rewound");
                if ((at + to) % 7 == 0) walk(back, f, k, to + 9 < n ? to + 9 : n, 4);
                if ((at + to) % 7 == 1 && megabyte_stream_rewind(back, to - to / 8) == MEGABYTE_OK)
                    check_at(back, f, k, "rewound twice");
            }
        }
        megabyte_stream_free(s);
        megabyte_stream_free(back);
        megabyte_engine_free(engine);
    }
}

/* One stream, forwards and backwards at random: what an earlier rewind left behind must not
 * show. */
static void wanderings(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts; k++) {
        name_case("%s", f->y.name);
        seed_random(k + 5);
        megabyte_stream *s = new_stream(f->model, NULL, f->context[k].option);
        size_t at = 0, n = f->context[k].n, most = 6 * (size_t)f->info.patch_bytes + 1;
        for (int turn = 0; turn < 400; turn++) {
            size_t step = random_below(most) + 1;
            if (random_below(2) && at + step <= n) {
                OK(megabyte_stream_feed(s, f->bytes + at, step));
                at += step;
            } else if (step <= at && megabyte_stream_rewind(s, at - step) == MEGABYTE_OK) {
                at -= step;
            }
            check_at(s, f, k, "wandering");
        }
        megabyte_stream_free(s);
    }
}

static void copies(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts; k++) {
        name_case("%s", f->y.name);
        seed_random(k);
        size_t n = f->context[k].n;
        megabyte_stream *a = new_stream(f->model, NULL, f->context[k].option);
        megabyte_stream *b = new_stream(f->model, NULL, f->context[k].option);
        for (size_t at = 0; at + 12 < n; at += 1 + n / 40) {
            megabyte_stream_reset(a);
            OK(megabyte_stream_feed(a, f->bytes, at));
            OK(megabyte_stream_copy(b, a));
            check_at(b, f, k, "copied");
            walk(a, f, k, at + 10, 3);
            check_at(b, f, k, "copied, the other has gone on");
            walk(b, f, k, at + 12, 3);
        }
        OK(megabyte_stream_copy(b, b));
        check_at(b, f, k, "copied to itself");
        megabyte_stream *other = new_stream(f->model, NULL,
                                            f->context[(k + 1) % f->n_contexts].option);
        CHECK_STATUS(megabyte_stream_copy(other, b), MEGABYTE_ERROR_INVALID_ARGUMENT);
        check_at(other, f, (k + 1) % f->n_contexts, "after a refused copy");
        megabyte_stream_free(a);
        megabyte_stream_free(b);
        megabyte_stream_free(other);
    }
    megabyte_stream *a = new_stream(fixtures[0].model, NULL, 0),
                    *b = new_stream(fixtures[3].model, NULL, 0);
    CHECK_STATUS(megabyte_stream_copy(a, b), MEGABYTE_ERROR_INVALID_ARGUMENT);
    megabyte_stream_free(a);
    megabyte_stream_free(b);
}

/* Saved on one instruction set and thread count, loaded on another: the same bytes, and the same
 * logits after. */
static void saves(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts; k++) {
        name_case("%s", f->y.name);
        seed_random(k);
        size_t n = f->context[k].n;
        megabyte_engine *plain = new_engine(f->model, 1, 3, MEGABYTE_ISA_PLAIN);
        megabyte_engine *fast = new_engine(f->model, f == fixtures && k == 1 ? 2 : 1, 0,
                                           MEGABYTE_ISA_AUTO);
        megabyte_stream *a = new_stream(f->model, plain, f->context[k].option);
        megabyte_stream *b = new_stream(f->model, fast, f->context[k].option);
        megabyte_stream *other = new_stream(f->model, fast,
                                            f->context[(k + 1) % f->n_contexts].option);
        for (size_t at = 0; at + 12 < n; at += 1 + n / 20) {
            megabyte_stream_reset(a);
            walk(a, f, k, at, 20);
            size_t size = megabyte_stream_save_size(a);
            uint8_t *saved = need(size + 64, 1), *again = need(size + 64, 1);
            memset(saved, 0x77, size + 64);
            memset(again, 0x77, size + 64);
            CHECK_STATUS(megabyte_stream_save(a, saved, size - 1), MEGABYTE_ERROR_CAPACITY);
            OK(megabyte_stream_save(a, saved, size));
            for (size_t i = 0; i < 64; i++)
                CHECK(saved[size + i] == 0x77, "byte %zu past the end", i);
            OK(megabyte_stream_load(b, saved, size));
            CHECK(megabyte_stream_position(b) == at);
            check_at(b, f, k, "loaded");
            CHECK(megabyte_stream_save_size(b) == size);
            OK(megabyte_stream_save(b, again, size));
            CHECK(!memcmp(saved, again, size + 64),
                  "saved again, %zu bytes differ from the first ones", size);
            walk(b, f, k, at + 12, 5);
            if (megabyte_stream_rewind(b, at) == MEGABYTE_OK)
                check_at(b, f, k, "loaded, gone on, rewound");
            CHECK(megabyte_stream_load(other, saved, size) != MEGABYTE_OK,
                  "loaded with another context");
            check_at(other, f, (k + 1) % f->n_contexts, "after a refused load");
            free(saved), free(again);
        }
        megabyte_stream_free(a);
        megabyte_stream_free(b);
        megabyte_stream_free(other);
        megabyte_engine_free(plain);
        megabyte_engine_free(fast);
    }
}

static void saves_of_other_models(void) {
    uint8_t saved[65536];
    megabyte_stream *a = new_stream(fixtures[0].model, NULL, 0),
                    *b = new_stream(fixtures[3].model, NULL, 0);
    size_t size = megabyte_stream_save_size(a);
    name_case("of another model");
    CHECK(size <= sizeof saved);
    OK(megabyte_stream_save(a, saved, size));
    CHECK_STATUS(megabyte_stream_load(b, saved, size), MEGABYTE_ERROR_WRONG_MODEL);
    CHECK_STATUS(megabyte_stream_load(b, "It was a dark and stormy night, and so was this", 47),
                 MEGABYTE_ERROR_BAD_MAGIC);
    check_at(b, &fixtures[3], 0, "after refused loads");
    megabyte_stream_free(a);
    megabyte_stream_free(b);
}

/* --------------------------------------------------------------------------------- many streams */

/* Streams of all three contexts at random positions, stepped in batches of random members. */
static void batches_on(const fixture *f, megabyte_engine *engine, int rounds) {
    enum { MEMBERS = 9 };
    megabyte_stream *all[MEMBERS], *some[MEMBERS];
    const uint8_t *bytes[MEMBERS];
    size_t lengths[MEMBERS];
    uint8_t next[MEMBERS];
    for (size_t i = 0; i < MEMBERS; i++) {
        all[i] = new_stream(f->model, engine, f->context[i % 3].option);
        OK(megabyte_stream_feed(all[i], f->bytes, random_below(f->context[i % 3].n / 2)));
    }
    for (int round = 0; round < rounds; round++) {
        size_t n = 0, chosen[MEMBERS];
        for (size_t i = 0; i < MEMBERS; i++) {
            uint64_t at = megabyte_stream_position(all[i]);
            if (at >= f->context[i % 3].n) megabyte_stream_reset(all[i]), at = 0;
            if (!random_below(4)) continue;
            size_t left = f->context[i % 3].n - (size_t)at;
            bytes[n] = f->bytes + at, lengths[n] = random_below(left < 30 ? left + 1 : 30);
            next[n] = f->bytes[at], chosen[n] = i, some[n++] = all[i];
        }
        if (round % 3) OK(megabyte_stream_step_batch(some, next, n));
        else OK(megabyte_stream_feed_batch(some, bytes, lengths, n));
        for (size_t i = 0; i < n; i++) check_at(some[i], f, chosen[i] % 3, "stepped in a batch");
    }
    for (size_t i = 0; i < MEMBERS; i++) megabyte_stream_free(all[i]);
}

static void bad_batches(const fixture *f) {
    megabyte_engine *engine = new_engine(f->model, 1, 0, MEGABYTE_ISA_AUTO);
    megabyte_stream *a = new_stream(f->model, engine, 0), *b = new_stream(f->model, NULL, 0);
    const uint8_t *bytes[] = {f->bytes, NULL};
    const size_t lengths[] = {3, 1}, none[] = {3, 0};
    CHECK_STATUS(megabyte_stream_feed_batch((megabyte_stream *[]){a, a}, bytes, none, 2),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(megabyte_stream_feed_batch((megabyte_stream *[]){a, b}, bytes, none, 2),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(megabyte_stream_feed_batch(&a, bytes, NULL, 1), MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(megabyte_stream_feed_batch(&a, NULL, lengths, 1), MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK_STATUS(megabyte_stream_feed_batch(&a, bytes + 1, lengths + 1, 1),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK(!megabyte_stream_position(a) && !megabyte_stream_position(b));
    OK(megabyte_stream_feed_batch(NULL, NULL, NULL, 0));
    OK(megabyte_stream_feed_batch(&a, bytes + 1, none + 1, 1));
    check_at(a, f, 0, "fed nothing");
    megabyte_stream_free(a);
    megabyte_stream_free(b);
    megabyte_engine_free(engine);
}

static void batches(void) {
    bad_batches(&fixtures[0]);
    EACH_FIXTURE(f)
    for (uint32_t batch = 0; batch < 12; batch += 4) {
        name_case("%s, batch option %u", f->y.name, batch);
        seed_random(batch);
        megabyte_engine *engine = new_engine(f->model, 1, batch, MEGABYTE_ISA_AUTO);
        batches_on(f, engine, 120);
        megabyte_engine_free(engine);
    }
}

/* Several threads on a busy machine wait for each other: less work for them. */
static void use_engine(const fixture *f, uint32_t threads, uint32_t batch, megabyte_isa isa) {
    name_case("%s, %u threads, batch %u, %s", f->y.name, threads, batch, megabyte_isa_name(isa));
    seed_random(threads + batch);
    megabyte_engine *engine = new_engine(f->model, threads, batch, isa);
    CHECK(isa == MEGABYTE_ISA_AUTO ? megabyte_engine_isa(engine) != isa
                                   : megabyte_engine_isa(engine) == isa);
    for (size_t k = 0; k < f->n_contexts; k++) {
        size_t n = f->context[k].n, most = threads > 1 ? 12 : n;
        megabyte_stream *s = new_stream(f->model, engine, f->context[k].option);
        if (threads > 1 && k) n = (size_t)f->context[k].bytes + 9;
        OK(megabyte_stream_feed(s, f->bytes, n - 3));
        check_at(s, f, k, "fed at once");
        walk(s, f, k, n, 2);
        if (most > n) most = n;
        megabyte_stream_reset(s);
        walk(s, f, k, most, 50);
        megabyte_stream_free(s);
    }
    batches_on(f, engine, threads > 1 ? 3 : 12);
    megabyte_engine_free(engine);
}

static void threads_and_batch_options(void) {
    static const uint32_t sizes[] = {1, 2, 3, 7, 96, 4096};
    EACH_FIXTURE(f)
    for (size_t i = 0; i < COUNT_OF(sizes); i++) use_engine(f, 1, sizes[i], MEGABYTE_ISA_AUTO);
    for (uint32_t threads = 2; threads <= 3; threads++)
        EACH_FIXTURE(f) use_engine(f, threads, f == fixtures ? 7 : 96, MEGABYTE_ISA_AUTO);
    use_engine(&fixtures[1], 2, 4096, MEGABYTE_ISA_AUTO);
}

static void instruction_sets(void) {
    int available = 0;
    for (int i = 1; i < N_ISAS; i++) {
        megabyte_isa isa = (megabyte_isa)i;
        name_case("%s", megabyte_isa_name(isa));
        CHECK(strlen(megabyte_isa_name(isa)) > 1);
        if (megabyte_isa_available(isa)) {
            available++;
            OK(megabyte_self_test(isa));
            EACH_FIXTURE(f) use_engine(f, 1, 0, isa);
            use_engine(&fixtures[1], 2, 50, isa);
            continue;
        }
        megabyte_engine *engine = NULL;
        megabyte_engine_options options = {.isa = isa};
        megabyte_error error;
        CHECK_STATUS(megabyte_self_test(isa), MEGABYTE_ERROR_UNSUPPORTED);
        CHECK_STATUS(megabyte_engine_create(&engine, fixtures[0].model, &options, NULL, &error),
                     MEGABYTE_ERROR_UNSUPPORTED);
        CHECK(error.status == MEGABYTE_ERROR_UNSUPPORTED && error.text[0]);
    }
    name_case("all");
    CHECK(available >= 1 && megabyte_isa_available(MEGABYTE_ISA_PLAIN));
    CHECK(!megabyte_isa_available((megabyte_isa)77) &&
          !strcmp(megabyte_isa_name((megabyte_isa)77), "?"));
    OK(megabyte_self_test(MEGABYTE_ISA_AUTO));
}

/* ---------------------------------------------------------------------------------- environment */

#if defined(__x86_64__) || (defined(__i386__) && defined(__SSE__))
static uint64_t get_control(void) { return _mm_getcsr(); }
static void set_control(uint64_t word) { _mm_setcsr((unsigned)word); }
/* flush to zero and denormals are zero; down, up, towards zero; the last with every exception
 * trapping */
static const uint64_t controls[] = {0x9fc0, 0x3f80, 0x5f80, 0x7f80, 0xffc0, 0xe040};
#define CONTROL_BITS 0xffc0u
#elif defined(__aarch64__)
static uint64_t get_control(void) {
    uint64_t word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
}
static void set_control(uint64_t word) {
    __asm__ volatile("msr fpcr, %0" : : "r"(word) : "memory");
}
static const uint64_t controls[] = {1u << 24, 1u << 22, 2u << 22, 3u << 22, 7u << 22};
#define CONTROL_BITS (7u << 22)
#else
#include <fenv.h>
static uint64_t get_control(void) { return (uint64_t)fegetround(); }
static void set_control(uint64_t word) { fesetround((int)word); }
static const uint64_t controls[] = {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
#define CONTROL_BITS UINT64_MAX
#endif

/* What the caller has set does not matter, and is as before after every call. Integers only between
 * the two settings: `mine` stands for the float results. */
static void environments(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *reference = new_stream(f->model, NULL, f->context[1].option);
        float *p = need(f->v, sizeof *p), *mine = need(f->v, sizeof *p);
        size_t n = f->context[1].n, size;
        megabyte_sampling how = {.temperature = 0.8f,
                                 .top_p = 0.9f,
                                 .min_p = 0.01f,
                                 .top_k = 50,
                                 .seed = 5,
                                 .repetition_penalty = 1.2f};
        double bits = 0, my_bits;
        OK(megabyte_stream_score(reference, f->bytes, n, &bits, NULL));
        megabyte_stream_probabilities(reference, p);
        uint64_t before = get_control();
        for (size_t i = 0; i < COUNT_OF(controls); i++) {
            uint64_t word = controls[i];
            name_case("%s, control word %x", f->y.name, (unsigned)word);
            seed_random(i);
            megabyte_sampling my_how = how, its_how = how;
            uint8_t byte, my_byte, *saved;
            my_bits = 0;
#define UNCHANGED(call)                                                                    \
    (set_control(word), (call),                                                            \
     CHECK((get_control() & CONTROL_BITS) == (word & CONTROL_BITS), "%s leaves %x", #call, \
           (unsigned)get_control()))
            megabyte_engine *engine;
            megabyte_stream *s, *t;
            UNCHANGED(engine = new_engine(f->model, i == 1 ? 2 : 1, 0, MEGABYTE_ISA_AUTO));
            UNCHANGED(s = new_stream(f->model, engine, f->context[1].option));
            UNCHANGED(t = new_stream(f->model, NULL, f->context[1].option));
            UNCHANGED(walk(s, f, 1, n, 60));
            UNCHANGED(megabyte_stream_reset(s));
            UNCHANGED(megabyte_stream_score(s, f->bytes, n, &my_bits, NULL));
            UNCHANGED(megabyte_stream_probabilities(s, mine));
            UNCHANGED(megabyte_stream_sample(s, &my_how, &my_byte));
            UNCHANGED(megabyte_stream_copy(t, s));
            UNCHANGED(megabyte_stream_rewind(t, n - 3));
            UNCHANGED(check_at(t, f, 1, "rewound"));
            UNCHANGED(size = megabyte_stream_save_size(s));
            UNCHANGED(saved = need(size, 1));
            UNCHANGED(megabyte_stream_save(s, saved, size));
            UNCHANGED(megabyte_stream_load(t, saved, size));
            UNCHANGED(check_at(t, f, 1, "loaded"));
            UNCHANGED(batches_on(f, engine, 3));
            UNCHANGED(megabyte_self_test(MEGABYTE_ISA_AUTO));
            UNCHANGED(megabyte_stream_free(s));
            UNCHANGED(megabyte_stream_free(t));
            UNCHANGED(megabyte_engine_free(engine));
#undef UNCHANGED
            set_control(before);
            OK(megabyte_stream_sample(reference, &its_how, &byte));
            CHECK(byte == my_byte && its_how.seed == my_how.seed, "sampled %d, not %d", my_byte,
                  byte);
            CHECK(!memcmp(&bits, &my_bits, sizeof bits) && same_floats(p, mine, f->v),
                  "bits or probabilities differ");
            free(saved);
        }
        megabyte_stream_free(reference);
        free(p), free(mine);
    }
}

/* --------------------------------------------------------------------------------------- memory */

static void check_size(size_t told, size_t seen, const char *what) {
    CHECK(told >= seen && (double)told <= 1.05 * (double)seen, "%s: %zu bytes told, %zu allocated",
          what, told, seen);
}

static void sizes_and_no_allocations(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts; k++)
        for (uint32_t threads = 1; threads <= 2; threads++) {
            name_case("%s, %u threads", f->y.name, threads);
            seed_random(k);
            counter engines = {0}, streams = {0}, own = {0};
            megabyte_allocator for_engines = counting(&engines), for_streams = counting(&streams);
            megabyte_allocator for_own = counting(&own);
            megabyte_engine_options how = {.threads = threads, .batch = (uint32_t)(k * 10)};
            megabyte_engine *engine;
            megabyte_stream *s, *t, *alone;
            size_t told;
            OK(megabyte_engine_create(&engine, f->model, &how, &for_engines, NULL));
            OK(megabyte_engine_size(f->model, &how, &told));
            check_size(told, engines.live_bytes, "engine");
            megabyte_stream_options options = {.engine = engine, .context = f->context[k].option};
            OK(megabyte_stream_create(&s, f->model, &options, &for_streams, NULL));
            OK(megabyte_stream_size(f->model, &options, &told));
            check_size(told, streams.live_bytes, "stream");
            OK(megabyte_stream_create(&t, f->model, &options, &for_streams, NULL));
            check_size(2 * told, streams.live_bytes, "two streams");
            CHECK(engines.live == 1 && streams.live == 2,
                  "objects are one allocation each: %zu %zu", engines.live, streams.live);
            options.engine = NULL;
            OK(megabyte_stream_create(&alone, f->model, &options, &for_own, NULL));
            OK(megabyte_stream_size(f->model, &options, &told));
            check_size(told, own.live_bytes, "stream with an engine of its own");
            megabyte_stream_free(alone);
            options.draft_engine = engine;
            OK(megabyte_stream_create(&alone, f->model, &options, &for_own, NULL));
            OK(megabyte_stream_size(f->model, &options, &told));
            check_size(told, own.live_bytes, "stream with a second model");

            uint8_t written[20];
            size_t calls = engines.calls + streams.calls + own.calls;
            uint8_t *saved = need(megabyte_stream_save_size(s) + ((size_t)1 << 20), 1), byte;
            megabyte_sampling sampling = {.temperature = 1, .top_p = 0.5f};
            walk(s, f, k, f->context[k].n, threads > 1 ? 100 : 20);
            walk(alone, f, k, f->context[k].n, 20);
            OK(megabyte_stream_rewind(s, f->context[k].n - 1));
            OK(megabyte_stream_copy(t, s));
            OK(megabyte_stream_save(s, saved, megabyte_stream_save_size(s)));
            OK(megabyte_stream_load(t, saved, megabyte_stream_save_size(s)));
            OK(megabyte_stream_sample(s, &sampling, &byte));
            OK(megabyte_stream_step_batch((megabyte_stream *[]){s, t}, (uint8_t[]){1, 2}, 2));
            megabyte_stream_generate(alone, &sampling, written, sizeof written, NULL, NULL, NULL);
            megabyte_stream_reset(s);
            CHECK(engines.calls + streams.calls + own.calls == calls, "allocated during use");
            free(saved);
            megabyte_stream_free(s);
            megabyte_stream_free(t);
            megabyte_stream_free(alone);
            megabyte_engine_free(engine);
            CHECK(!engines.live && !streams.live && !own.live, "not freed");
        }
}

/* A file that was read may go: what its model computes stays. */
static void loading(void) {
    static const char gone[] = "tests/tmp/api-loaded.mb";
    EACH_FIXTURE(f) {
        name_case("%s", f->y.name);
        megabyte_model *model;
        megabyte_error error;
        double bits[2] = {0, 0};
        size_t size;
        uint8_t *file = read_file(f->mb, &size);
        write_file(gone, file, size);
        CHECK_STATUS(megabyte_model_load(&model, gone, NULL, &error), MEGABYTE_OK);
        write_file(gone, "", 0);
        CHECK(!remove(gone));
        for (int i = 0; i < 2; i++) {
            megabyte_stream *s;
            megabyte_stream_options on = {.large_pages = i};
            OK(megabyte_stream_create(&s, i ? f->model : model, &on, NULL, NULL));
            OK(megabyte_stream_score(s, f->bytes, 40, &bits[i], NULL));
            megabyte_stream_free(s);
        }
        CHECK(bits[0] == bits[1] && bits[0] > 0, "%g and %g bits", bits[0], bits[1]);
        OK(megabyte_model_verify(model, NULL));
        megabyte_model_close(model);
        free(file);
    }
}

/* Time by a clock that counts its calls: every part that runs is told, and nothing is without. */
static uint64_t count_calls(void *calls) { return ++*(uint64_t *)calls; }

static void parts(void) {
    EACH_FIXTURE(f) {
        uint64_t calls = 0, time[MEGABYTE_MAX_STAGES][MEGABYTE_PARTS], sum = 0;
        for (uint32_t threads = 0; threads < 3; threads++) {
            megabyte_engine_options how = {.threads = threads ? threads : 1};
            megabyte_engine *engine;
            name_case("%s, %u threads", f->y.name, threads);
            calls = threads ? 1000000 : 0; /* a clock's zero is anywhere */
            if (threads) how.clock = count_calls;
            how.clock_context = &calls;
            OK(megabyte_engine_create(&engine, f->model, &how, NULL, NULL));
            megabyte_engine_parts(engine, time);
            for (size_t i = 0; i < MEGABYTE_MAX_STAGES * MEGABYTE_PARTS; i++)
                CHECK(time[i / MEGABYTE_PARTS][i % MEGABYTE_PARTS] <=
                          (threads ? calls - 1000000 : 0),
                      "creation took more than its calls");
            megabyte_stream *s = new_stream(f->model, engine, 0);
            for (size_t i = 0; i < 20; i++) OK(megabyte_stream_step(s, f->bytes[i]));
            megabyte_engine_parts(engine, time);
            sum = 0;
            for (size_t i = 0; i < MEGABYTE_MAX_STAGES * MEGABYTE_PARTS; i++)
                sum += time[i / MEGABYTE_PARTS][i % MEGABYTE_PARTS];
            CHECK(threads ? sum > 0 && sum < calls - 1000000 && time[0][MEGABYTE_PART_PRODUCT] &&
                                time[1][MEGABYTE_PART_ATTENTION]
                          : !sum && !calls,
                  "%llu of %llu", (unsigned long long)sum, (unsigned long long)calls);
            megabyte_stream_free(s);
            megabyte_engine_free(engine);
        }
    }
}

/* Everything that allocates, with the k-th allocation failing; returns the first failure. */
static megabyte_status create_all(const fixture *f, const uint8_t *file, size_t size, counter *c) {
    megabyte_allocator allocator = counting(c);
    megabyte_model *model = NULL, *mapped = NULL, *loaded = NULL;
    megabyte_engine *engine = NULL;
    megabyte_stream *s = NULL, *alone = NULL;
    megabyte_engine_options how = {.threads = 2};
    megabyte_error error = {.status = MEGABYTE_OK};
    megabyte_status status = megabyte_model_open_memory(&model, file, size, &allocator, &error);
    if (!status) status = megabyte_model_open(&mapped, f->mb, &allocator, &error);
    if (!status) status = megabyte_model_load(&loaded, f->mb, &allocator, &error);
    if (!status) status = megabyte_engine_create(&engine, model, &how, &allocator, &error);
    megabyte_stream_options options = {.engine = engine};
    if (!status) status = megabyte_stream_create(&s, model, &options, &allocator, &error);
    options = (megabyte_stream_options){.draft_engine = engine};
    if (!status) status = megabyte_stream_create(&alone, mapped, &options, &allocator, &error);
    CHECK(error.status == status && !status == !error.text[0], "the error says %d '%s'",
          error.status, error.text);
    megabyte_stream_free(s);
    megabyte_stream_free(alone);
    megabyte_engine_free(engine);
    megabyte_model_close(model);
    megabyte_model_close(mapped);
    megabyte_model_close(loaded);
    return status;
}

static void allocation_failures(void) {
    EACH_FIXTURE(f) {
        name_case("%s", f->y.name);
        size_t size, k;
        uint8_t *file = read_file(f->mb, &size),
                *aligned = aligned_alloc(64, (size + 63) / 64 * 64);
        CHECK(aligned);
        memcpy(aligned, file, size);
        for (k = 1; k < 1000; k++) {
            counter c = {.fail_at = k};
            megabyte_status status = create_all(f, aligned, size, &c);
            CHECK(!c.live, "allocation %zu fails: %zu are not freed", k, c.live);
            if (!status) break;
            CHECK_STATUS(status, MEGABYTE_ERROR_OUT_OF_MEMORY);
        }
        CHECK(k > 5 && k < 1000, "%zu allocations", k);
        free(file), free(aligned);
    }
}

/* ------------------------------------------------------------------------------------ arguments */

#define REFUSED(call) CHECK_STATUS(call, MEGABYTE_ERROR_INVALID_ARGUMENT)

static void invalid_arguments(void) {
    const fixture *f = &fixtures[0];
    const megabyte_model *m = f->model;
    megabyte_model *model = NULL;
    megabyte_engine *engine = new_engine(m, 1, 0, MEGABYTE_ISA_AUTO), *created = NULL;
    megabyte_engine *second = new_engine(m, 1, 0, MEGABYTE_ISA_AUTO);
    megabyte_stream *a = new_stream(m, engine, 0), *b = new_stream(m, engine, 0),
                    *c = new_stream(m, second, 0), *s;
    megabyte_error error;
    size_t size;
    double bits = 0;
    uint8_t byte = 0, buffer[8];
    name_case("%s", f->y.name);
    counter unused = {0};
    megabyte_allocator half = {counter_alloc, NULL, &unused},
                       other_half = {NULL, counter_free, &unused};
    REFUSED(megabyte_model_open(NULL, f->mb, NULL, NULL));
    REFUSED(megabyte_model_open(&model, NULL, NULL, NULL));
    REFUSED(megabyte_model_open(&model, f->mb, &half, NULL));
    REFUSED(megabyte_model_open(&model, f->mb, &other_half, &error));
    CHECK(error.status == MEGABYTE_ERROR_INVALID_ARGUMENT && error.text[0]);
    REFUSED(megabyte_model_load(NULL, f->mb, NULL, NULL));
    REFUSED(megabyte_model_load(&model, NULL, NULL, NULL));
    REFUSED(megabyte_model_open_memory(NULL, f->bytes, 8, NULL, NULL));
    REFUSED(megabyte_model_open_memory(&model, NULL, 8, NULL, NULL));

    megabyte_engine_options bad_engine[] = {
        {.threads = 257}, {.batch = 4097}, {.isa = (megabyte_isa)99}};
    for (size_t i = 0; i < COUNT_OF(bad_engine); i++) {
        megabyte_status status = megabyte_engine_create(&created, m, &bad_engine[i], NULL, &error);
        CHECK(status == MEGABYTE_ERROR_INVALID_ARGUMENT ||
                  (i == 2 && status == MEGABYTE_ERROR_UNSUPPORTED),
              "option %zu", i);
        CHECK(error.status == status && error.text[0]);
        CHECK(megabyte_engine_size(m, &bad_engine[i], &size) != MEGABYTE_OK || i == 2, "option %zu",
              i);
    }
    REFUSED(megabyte_engine_create(NULL, m, NULL, NULL, NULL));
    REFUSED(megabyte_engine_create(&created, NULL, NULL, NULL, NULL));
    REFUSED(megabyte_engine_create(&created, m, NULL, &half, NULL));
    REFUSED(megabyte_engine_size(NULL, NULL, &size));
    REFUSED(megabyte_engine_size(m, NULL, NULL));

    uint64_t bad_context[] = {1, f->info.patch_bytes - 1, f->info.context_bytes + 1, UINT64_MAX};
    for (size_t i = 0; i < COUNT_OF(bad_context); i++) {
        megabyte_stream_options options = {.engine = engine, .context = bad_context[i]};
        REFUSED(megabyte_stream_create(&s, m, &options, NULL, &error));
        CHECK(error.status == MEGABYTE_ERROR_INVALID_ARGUMENT && error.text[0]);
        REFUSED(megabyte_stream_size(m, &options, &size));
    }
    megabyte_stream_options foreign = {.engine = engine};
    REFUSED(megabyte_stream_create(&s, fixtures[1].model, &foreign, NULL,
                                   NULL)); /* an engine of another model */
    REFUSED(megabyte_stream_create(NULL, m, NULL, NULL, NULL));
    REFUSED(megabyte_stream_create(&s, NULL, NULL, NULL, NULL));
    REFUSED(megabyte_stream_create(&s, m, NULL, &other_half, NULL));
    REFUSED(megabyte_stream_size(NULL, NULL, &size));
    REFUSED(megabyte_stream_size(m, NULL, NULL));

    OK(megabyte_stream_feed(a, f->bytes, 5));
    REFUSED(megabyte_stream_feed(a, NULL, 1));
    REFUSED(megabyte_stream_feed(NULL, f->bytes, 1));
    REFUSED(megabyte_stream_step(NULL, 1));
    REFUSED(megabyte_stream_score(a, NULL, 1, &bits, NULL));
    REFUSED(megabyte_stream_score(NULL, f->bytes, 1, &bits, NULL));
    REFUSED(megabyte_stream_rewind(NULL, 0));
    REFUSED(megabyte_stream_copy(NULL, a));
    REFUSED(megabyte_stream_copy(a, NULL));
    REFUSED(megabyte_stream_save(NULL, buffer, sizeof buffer));
    REFUSED(megabyte_stream_save(a, NULL, megabyte_stream_save_size(a)));
    CHECK_STATUS(megabyte_stream_save(a, buffer, sizeof buffer), MEGABYTE_ERROR_CAPACITY);
    REFUSED(megabyte_stream_load(NULL, buffer, sizeof buffer));
    REFUSED(megabyte_stream_load(a, NULL, 100));
    OK(megabyte_stream_step_batch(NULL, NULL, 0));
    REFUSED(megabyte_stream_step_batch(NULL, &byte, 1));
    REFUSED(megabyte_stream_step_batch((megabyte_stream *[]){a, b}, NULL, 2));
    REFUSED(megabyte_stream_step_batch((megabyte_stream *[]){a, b, a}, (uint8_t[]){1, 2, 3}, 3));
    REFUSED(megabyte_stream_step_batch((megabyte_stream *[]){a, NULL}, (uint8_t[]){1, 2}, 2));
    REFUSED(megabyte_stream_step_batch((megabyte_stream *[]){a, c}, (uint8_t[]){1, 2},
                                       2)); /* two engines */

    megabyte_sampling how = {.temperature = 1};
    REFUSED(megabyte_stream_sample(NULL, &how, &byte));
    REFUSED(megabyte_stream_sample(a, NULL, &byte));
    REFUSED(megabyte_stream_sample(a, &how, NULL));
    const float *logits = megabyte_stream_logits(a);
    REFUSED(megabyte_logits_sample(NULL, 256, NULL, 0, &how, &byte));
    REFUSED(megabyte_logits_sample(logits, 0, NULL, 0, &how, &byte));
    REFUSED(megabyte_logits_sample(logits, 256, NULL, 1, &how, &byte));
    REFUSED(megabyte_logits_sample(logits, 256, NULL, 0, NULL, &byte));
    REFUSED(megabyte_logits_sample(logits, 256, NULL, 0, &how, NULL));
    megabyte_sampling bad[] = {{.temperature = -1},
                               {.temperature = NAN},
                               {.temperature = 1, .top_p = -0.1f},
                               {.temperature = 1, .top_p = NAN},
                               {.temperature = 1, .min_p = -1},
                               {.temperature = 1, .min_p = NAN},
                               {.repetition_penalty = -2},
                               {.repetition_penalty = NAN}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        uint64_t seed = bad[i].seed;
        name_case("sampling %zu", i);
        REFUSED(megabyte_stream_sample(a, &bad[i], &byte));
        CHECK(bad[i].seed == seed, "a refused draw moves the seed");
    }
    CHECK(megabyte_stream_position(a) == 5 && megabyte_stream_position(b) == 0 &&
          megabyte_stream_position(c) == 0);
    check_at(a, f, 0, "after refused calls");
    check_at(b, f, 0, "after refused calls");
    megabyte_stream_free(a), megabyte_stream_free(b), megabyte_stream_free(c);
    megabyte_engine_free(engine), megabyte_engine_free(second);
    megabyte_stream_free(NULL);
    megabyte_engine_free(NULL);
    megabyte_model_close(NULL);
}

static void bytes_outside_the_vocabulary(void) {
    const fixture *f = &fixtures[2];
    megabyte_engine *engine = new_engine(f->model, 1, 0, MEGABYTE_ISA_AUTO);
    megabyte_stream *a = new_stream(f->model, engine, 0), *b = new_stream(f->model, engine, 0);
    uint8_t bad[9];
    double bits = 1;
    name_case("%s", f->y.name);
    CHECK(f->v == 100);
    memcpy(bad, f->bytes, sizeof bad);
    OK(megabyte_stream_feed(a, f->bytes, 3));
    for (size_t i = 0; i < sizeof bad; i++) {
        bad[i] = (uint8_t)(i ? 100 : 255);
        REFUSED(megabyte_stream_feed(a, bad, sizeof bad));
        REFUSED(megabyte_stream_score(a, bad, sizeof bad, &bits, NULL));
        bad[i] = f->bytes[i];
    }
    REFUSED(megabyte_stream_step(a, 100));
    REFUSED(megabyte_stream_step_batch((megabyte_stream *[]){a, b}, (uint8_t[]){99, 100}, 2));
    CHECK(bits == 1 && megabyte_stream_position(a) == 3 && megabyte_stream_position(b) == 0);
    walk(a, f, 0, 40, 5);
    walk(b, f, 0, 40, 5);
    megabyte_stream_free(a), megabyte_stream_free(b);
    megabyte_engine_free(engine);
}

static void score_writes_its_rows_only(void) {
    EACH_FIXTURE(f)
    for (size_t n = 0; n < 40; n += 1 + n / 3) {
        name_case("%s, %zu bytes", f->y.name, n);
        size_t count = n * f->v;
        float *rows = need(count + 64, sizeof *rows);
        for (size_t i = 0; i < count + 64; i++) rows[i] = 12345;
        megabyte_stream *s = new_stream(f->model, NULL, 0);
        double bits = 0;
        OK(megabyte_stream_score(s, f->bytes, n, &bits, rows + 32));
        for (size_t i = 0; i < 32; i++)
            CHECK(rows[i] == 12345 && rows[32 + count + i] == 12345, "%zu", i);
        CHECK(same_floats(rows + 32, f->context[0].rows, count));
        OK(megabyte_stream_score(s, f->bytes, 1, NULL, NULL)); /* the sum may be left out */
        megabyte_stream_free(s);
        free(rows);
    }
}

/* ------------------------------------------------------------------------------------- sampling */

/* The probabilities that the documentation of megabyte_sampling describes. */
static void expected_distribution(double p[256], const float *logits, size_t n,
                                  const uint8_t *recent, size_t n_recent,
                                  const megabyte_sampling *how) {
    double z[256], q[256], largest = -INFINITY, sum = 0, before = 0, kept = 0;
    size_t order[256], count = n < 256 ? n : 256,
                       window = how->repetition_window ? how->repetition_window : 64;
    for (size_t i = 0; i < count; i++) z[i] = logits[i];
    for (size_t i = 0; i < count; i++) {
        int found = 0;
        for (size_t j = n_recent - (n_recent < window ? n_recent : window); j < n_recent; j++)
            found |= recent[j] == i;
        if (found && how->repetition_penalty > 0)
            z[i] = z[i] > 0 ? z[i] / how->repetition_penalty : z[i] * how->repetition_penalty;
    }
    for (size_t i = 0; i < count; i++) order[i] = i;
    for (size_t i = 1; i < count; i++) /* by falling likelihood, then by rising byte */
        for (size_t j = i; j && z[order[j]] > z[order[j - 1]]; j--) {
            size_t t = order[j];
            order[j] = order[j - 1], order[j - 1] = t;
        }
    memset(p, 0, 256 * sizeof *p);
    if (how->temperature == 0) {
        p[order[0]] = 1;
        return;
    }
    for (size_t i = 0; i < count; i++) largest = z[i] > largest ? z[i] : largest;
    if (how->top_k && how->top_k < count) count = how->top_k;
    for (size_t i = 0; i < count; i++)
        sum += q[i] = exp((z[order[i]] - largest) / how->temperature);
    for (size_t i = 0; i < count; i++) {
        q[i] /= sum;
        int in_nucleus = how->top_p <= 0 || how->top_p >= 1 || before < how->top_p;
        if (in_nucleus && q[i] >= how->min_p * q[0]) kept += p[order[i]] = q[i];
        before += q[i];
    }
    for (size_t i = 0; i < 256; i++) p[i] /= kept;
}

/* 6000 draws: none impossible, and chi-square within 6 standard deviations. */
static void check_draws(const float *logits, size_t n, const uint8_t *recent, size_t n_recent,
                        megabyte_sampling how) {
    enum { DRAWS = 6000 };
    double p[256], chi = 0, cells = 0;
    int count[256] = {0};
    expected_distribution(p, logits, n, recent, n_recent, &how);
    for (int i = 0; i < DRAWS; i++) {
        uint8_t byte;
        uint64_t seed = how.seed;
        OK(megabyte_logits_sample(logits, n, recent, n_recent, &how, &byte));
        CHECK(p[byte] > 0, "byte %d is drawn, but excluded", byte);
        CHECK(how.temperature == 0 || how.seed != seed, "the seed stays");
        count[byte]++;
    }
    for (int i = 0; i < 256; i++)
        if (p[i] * DRAWS >= 5)
            cells++, chi += (count[i] - p[i] * DRAWS) * (count[i] - p[i] * DRAWS) / (p[i] * DRAWS);
    CHECK(chi < cells + 6 * sqrt(2 * cells) + 6, "chi-square %f of %f cells", chi, cells);
}

static void sampling_distribution(void) {
    for (uint64_t seed = 1; seed <= 40; seed++) {
        float logits[300];
        uint8_t recent[200];
        size_t n = seed % 4 == 0   ? 257 + random_below(43)
                   : seed % 4 == 1 ? 1 + random_below(255)
                                   : 256;
        seed_random(seed);
        for (size_t i = 0; i < 300; i++)
            logits[i] = (float)(3 * random_normal()) + (i >= 256 ? 20 : 0);
        random_bytes(recent, sizeof recent, 256);
        megabyte_sampling how = {.temperature = (float)(0.2 + 1.5 * random_unit()),
                                 .seed = seed * 1000};
        if (seed & 1) how.top_k = 1 + (uint32_t)random_below(60);
        if (seed & 2) how.top_p = (float)random_unit();
        if (seed & 4) how.min_p = (float)(0.2 * random_unit());
        if (seed & 8) how.repetition_penalty = (float)(1 + 2 * random_unit());
        if (seed & 16) how.repetition_window = 1 + (uint32_t)random_below(150);
        if (seed % 10 == 0) how.temperature = 0;
        name_case("%zu ids, temperature %g, top-k %u, top-p %g, min-p %g, penalty %g", n,
                  how.temperature, how.top_k, how.top_p, how.min_p, how.repetition_penalty);
        check_draws(logits, n, recent, seed % 3 ? sizeof recent : 20, how);
    }
}

static void sampling_corners(void) {
    float flat[256] = {0}, steep[256] = {0}, wild[300];
    uint8_t byte, recent[1] = {7};
    name_case("greedy");
    megabyte_sampling greedy = {0}, one = {.temperature = 5, .top_k = 1},
                      tiny = {.temperature = 1e-30f};
    megabyte_sampling none = {
        .temperature = 1e30f, .top_k = 5, .min_p = 2}; /* nothing but the best may stay */
    flat[3] = 1;
    OK(megabyte_logits_sample(flat, 256, NULL, 0, &none, &byte));
    flat[3] = 0;
    megabyte_sampling harsh = {.repetition_penalty = INFINITY};
    flat[255] = 1;
    OK(megabyte_logits_sample(flat, 256, recent, 1, &harsh, &byte));
    CHECK(byte == 255, "%d", byte);
    flat[255] = 0;
    OK(megabyte_logits_sample(flat, 256, NULL, 0, &greedy, &byte));
    CHECK(byte == 0, "ties go to the smallest byte, not %d", byte);
    steep[200] = steep[90] = 1e30f;
    OK(megabyte_logits_sample(steep, 256, NULL, 0, &greedy, &byte));
    CHECK(byte == 90, "%d", byte);
    for (int i = 0; i < 20; i++) {
        steep[90] = 1e29f;
        OK(megabyte_logits_sample(steep, 256, NULL, 0, &one, &byte));
        CHECK(byte == 200, "top-k 1 draws %d", byte);
        OK(megabyte_logits_sample(steep, 256, NULL, 0, &tiny, &byte));
        CHECK(byte == 200, "a tiny temperature draws %d", byte);
    }
    steep[90] = -1, steep[200] = 2, steep[7] = 2.5f;
    greedy.repetition_penalty = 2;
    OK(megabyte_logits_sample(steep, 256, recent, 1, &greedy, &byte));
    CHECK(byte == 200, "a repeated byte is chosen: %d", byte);
    name_case("not numbers");
    for (uint64_t seed = 1; seed <= 300;
         seed++) { /* any bits at all, as a hostile caller's logits */
        seed_random(seed);
        for (size_t i = 0; i < COUNT_OF(wild); i++) {
            uint32_t bits = (uint32_t)random64();
            memcpy(&wild[i], &bits, 4);
            if (seed % 3 == 0) wild[i] = seed % 2 ? NAN : -INFINITY;
        }
        megabyte_sampling how = {.temperature = (float)(seed % 5),
                                 .top_p = 0.7f,
                                 .min_p = 0.1f,
                                 .top_k = 30,
                                 .seed = seed};
        size_t n = 1 + random_below(COUNT_OF(wild));
        if (megabyte_logits_sample(wild, n, recent, 1, &how, &byte) == MEGABYTE_OK)
            CHECK(byte < n, "%d of %zu", byte, n);
    }
}

/* A stream draws like megabyte_logits_sample from its logits and all bytes before; one that has
 * been further and gone back does, too. */
static void sampling_from_streams(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts && f->info.end_id == UINT32_MAX; k++) {
        name_case("%s", f->y.name);
        megabyte_stream *s = new_stream(f->model, NULL, f->context[k].option);
        megabyte_stream *back = new_stream(f->model, NULL, f->context[k].option);
        for (size_t at = 0; at + 7 < f->context[k].n; at++) {
            megabyte_sampling how = {.temperature = 1.5f, .repetition_penalty = 3, .seed = at},
                              a = how, b = how;
            uint8_t drawn, expected;
            OK(megabyte_stream_sample(s, &a, &drawn));
            OK(megabyte_logits_sample(megabyte_stream_logits(s), f->v, f->bytes, at, &b,
                                      &expected));
            CHECK(drawn == expected && a.seed == b.seed, "after %zu bytes: %d, not %d", at, drawn,
                  expected);
            check_at(s, f, k, "sampled");
            if (at % 3 == 0) {
                OK(megabyte_stream_copy(back, s));
                OK(megabyte_stream_feed(back, f->bytes + at, 7));
                if (megabyte_stream_rewind(back, at) == MEGABYTE_OK) {
                    b = how;
                    OK(megabyte_stream_sample(back, &b, &drawn));
                    CHECK(drawn == expected, "rewound to %zu bytes: %d, not %d", at, drawn,
                          expected);
                }
            }
            OK(megabyte_stream_step(s, f->bytes[at]));
        }
        megabyte_stream_free(s);
        megabyte_stream_free(back);
    }
}

/* A model that can end its text does so as often as it says, and at temperature 0 where nothing is
 * likelier. */
static void sampling_an_end(void) {
    EACH_FIXTURE(f) {
        if (f->info.end_id == UINT32_MAX) continue;
        name_case("%s", f->y.name);
        const uint32_t end = f->info.end_id;
        CHECK(end == 256 && f->v == 257);
        megabyte_stream *s = new_stream(f->model, NULL, 0);
        megabyte_sampling how = {.temperature = 1, .seed = 1}, greedy = {0};
        double expected = 0, p = 0, variance = 0;
        size_t ends = 0;
        for (size_t at = 0; at < f->context[0].n; at++) {
            const float *l = megabyte_stream_logits(s);
            double sum = 0;
            uint8_t byte = 77, best = 0;
            int likeliest = 1;
            for (uint32_t i = 0; i < f->v; i++) sum += exp((double)l[i]);
            for (uint32_t i = 0; i < 256; i++)
                if (l[i] >= l[end]) likeliest = 0;
            p = exp((double)l[end]) / sum;
            for (int i = 0; i < 40; i++) {
                megabyte_status status = megabyte_stream_sample(s, &how, &byte);
                CHECK(status == MEGABYTE_OK || (status == MEGABYTE_END && (i || byte == 77)));
                ends += status == MEGABYTE_END;
            }
            expected += 40 * p, variance += 40 * p * (1 - p);
            megabyte_status status = megabyte_stream_sample(s, &greedy, &best);
            CHECK(status == (likeliest ? MEGABYTE_END : MEGABYTE_OK));
            OK(megabyte_stream_step(s, f->bytes[at]));
        }
        CHECK(fabs((double)ends - expected) < 4 * sqrt(variance) + 1, "%zu ends, expected %f", ends,
              expected);
        CHECK(expected > 1, "too few ends to tell: %f", expected);
        megabyte_stream_free(s);
    }
}

/* The same seed draws these bytes, on every machine and for ever. */
static void sampling_constant(void) {
    static const uint8_t constant[24] = {6,   159, 62, 138, 83, 144, 235, 75,  48, 138, 152, 235,
                                         117, 200, 13, 145, 76, 145, 242, 117, 19, 249, 103, 186};
    float logits[256];
    uint8_t drawn[sizeof constant];
    megabyte_sampling how = {.temperature = 0.9f,
                             .top_k = 100,
                             .top_p = 0.95f,
                             .min_p = 0.001f,
                             .seed = 42,
                             .repetition_penalty = 1.1f};
    name_case("constant");
    for (int i = 0; i < 256; i++) logits[i] = (float)(i * 37 % 256) / 32 - 3;
    for (size_t i = 0; i < sizeof drawn; i++)
        OK(megabyte_logits_sample(logits, 256, drawn, i, &how, &drawn[i]));
    for (size_t i = 0; i < sizeof drawn && memcmp(drawn, constant, sizeof drawn); i++)
        printf("%s%d", i ? ", " : "drawn { ", drawn[i]);
    CHECK(!memcmp(drawn, constant, sizeof drawn), "other bytes are drawn");
}

/* ---------------------------------------------------------------------------------- description */

static void descriptions(void) {
    EACH_FIXTURE(f) {
        const synthetic *y = &f->y;
        if (f->write) continue; /* see test_families.c */
        const megabyte_info *i = &f->info;
        size_t size, bytes = 1;
        double macs = 0;
        uint64_t parameters = 0;
        name_case("%s", y->name);
        free(read_file(f->mb, &size));
        CHECK(i->n_stages == (uint32_t)y->stages && i->vocabulary == (uint32_t)y->vocabulary);
        for (int s = y->stages - 1; s >= 0; s--) {
            const megabyte_stage_info *g = &i->stage[s];
            uint64_t inner = (uint64_t)(y->heads * y->dim_head), d = (uint64_t)y->dim[s],
                     ff = d * (uint64_t)y->ff_mult;
            uint64_t fine = (uint64_t)y->dim[y->stages - 1];
            uint64_t next = s + 1 == y->stages ? f->v : (uint64_t)(y->n[s + 1] * y->dim[s + 1]);
            uint64_t embed = s + 1 == y->stages ? 0 : bytes * fine * d;
            CHECK(g->dim == d && g->layers == (uint32_t)y->depth[s] &&
                      g->heads == (uint32_t)y->heads,
                  "stage %d", s);
            CHECK(g->head_dim == (uint32_t)y->dim_head && g->ff_dim == ff, "stage %d", s);
            CHECK(g->positions == (uint32_t)y->n[s] && g->bytes_per_token == bytes, "stage %d", s);
            CHECK(g->learned_positions == y->learned && g->rotary_positions == y->rotary,
                  "stage %d", s);
            CHECK(g->macs_per_token ==
                      embed + d * next + (uint64_t)y->depth[s] * (4 * inner * d + 2 * ff * d),
                  "stage %d: %llu", s, (unsigned long long)g->macs_per_token);
            parameters += g->parameters;
            macs += (double)g->macs_per_token / (double)bytes;
            bytes *= s ? (size_t)y->n[s] : 1;
        }
        CHECK(i->patch_bytes == bytes && i->context_bytes == bytes * (uint64_t)y->n[0]);
        CHECK(i->parameters == f->parameters && parameters == i->parameters,
              "%llu parameters, not %llu", (unsigned long long)i->parameters,
              (unsigned long long)f->parameters);
        CHECK(i->file_bytes == size && fabs(i->macs_per_byte / macs - 1) < 1e-9, "%f MACs a byte",
              i->macs_per_byte);
        CHECK(!strcmp(i->family, "lucidrains") && !strcmp(i->quantization, f->quant), "%s",
              i->quantization);
        CHECK(i->weight_bytes_per_byte > 0 && i->weight_bytes_per_byte < (double)size);
        OK(megabyte_model_verify(f->model, NULL));
        for (fixture *other = fixtures; other < f; other++)
            CHECK(memcmp(other->info.id, i->id, 16), "%s", other->y.name);
    }
}

static void metadata(void) {
    const fixture *f = &fixtures[0];
    name_case("%s", f->y.name);
    CHECK(!shell(
              "tools/mbconvert tests/tmp/%s.safetensors -o tests/tmp/metadata.mb -f --quant %s "
              "--name 'A name' "
              "--licence CC0-1.0 --source 'here' --training-data 'n\303\266thing' --description ''",
              f->y.name, f->quant),
          "mbconvert fails: see tests/tmp/output.txt");
    megabyte_model *m = open_model("tests/tmp/metadata.mb");
    CHECK(!memcmp(describe(m).id, f->info.id, 16), "metadata changes the model's id");
    static const char *const expected[][2] = {{"name", "A name"},
                                              {"licence", "CC0-1.0"},
                                              {"source", "here"},
                                              {"training_data", "n\303\266thing"}};
    for (size_t i = 0; i < COUNT_OF(expected); i++) {
        const char *value = megabyte_model_metadata(m, expected[i][0]);
        CHECK(value && !strcmp(value, expected[i][1]), "%s is '%s'", expected[i][0],
              value ? value : "(absent)");
    }
    CHECK(!megabyte_model_metadata(m, "no such key") && !megabyte_model_metadata(m, "nam"));
    uint32_t n = 0;
    const char *key, *value = NULL;
    while ((key = megabyte_model_metadata_at(m, n, &value)) != NULL) {
        CHECK(megabyte_model_metadata(m, key) == value, "'%s' is not '%s'", key, value);
        n++;
    }
    CHECK(n >= COUNT_OF(expected) && n < 10 && !megabyte_model_metadata_at(m, UINT32_MAX, &value),
          "%u entries", n);
    CHECK(megabyte_model_metadata_at(m, 0, NULL), "the value may be left out");
    megabyte_model_close(m);
}

static void versions_and_texts(void) {
    char version[40];
    name_case("version");
    snprintf(version, sizeof version, "%d.%d.%d", MEGABYTE_VERSION_MAJOR, MEGABYTE_VERSION_MINOR,
             MEGABYTE_VERSION_PATCH);
    CHECK(megabyte_version() == MEGABYTE_VERSION_NUMBER &&
          !strcmp(version, MEGABYTE_VERSION_STRING));
    CHECK(MEGABYTE_VERSION_NUMBER ==
          MEGABYTE_VERSION_MAJOR * 10000 + MEGABYTE_VERSION_MINOR * 100 + MEGABYTE_VERSION_PATCH);
    for (int a = -11; a <= 0; a++)
        for (int b = -12; b < a; b++)
            CHECK(strcmp(megabyte_status_string((megabyte_status)a),
                         megabyte_status_string((megabyte_status)b)));
    CHECK(megabyte_status_string((megabyte_status)1234)[0]);
}

/* -------------------------------------------------------------------------------------- threads */

static void *stream_thread(void *context) {
    const fixture *f = context;
    for (size_t k = 0; k < f->n_contexts; k++) {
        megabyte_engine *engine = new_engine(f->model, 1, 0, MEGABYTE_ISA_AUTO);
        megabyte_stream *s = new_stream(f->model, engine, f->context[k].option);
        size_t n = f->context[k].n;
        for (size_t at = 0; at < n; at++) {
            if (at % 3) OK(megabyte_stream_step(s, f->bytes[at]));
            else OK(megabyte_stream_feed(s, f->bytes + at, 1));
            check_at(s, f, k, "beside another thread");
        }
        megabyte_stream_reset(s);
        OK(megabyte_stream_feed(s, f->bytes, n));
        check_at(s, f, k, "fed beside another thread");
        megabyte_stream_free(s);
        megabyte_engine_free(engine);
    }
    return NULL;
}

/* ------------------------------------------------------------------------------------- drafting */

/* Where drafts come from: `right` of `of` of them agree with the text, in random lengths. */
typedef struct {
    const uint8_t *text; /* the byte at position p is text[p - begin] */
    uint64_t begin, n;
    unsigned right, of;
    uint32_t vocabulary;
    uint64_t calls, last;
} drafting;

static size_t draft(void *context, uint64_t position, const uint8_t *before, size_t n,
                    uint8_t *bytes, size_t most) {
    drafting *d = context;
    CHECK(n && n <= position && position - 1 >= d->begin && most && most <= 15);
    CHECK(before[n - 1] == d->text[position - 1 - d->begin], "the last byte before %d",
          (int)position);
    d->calls++;
    for (size_t i = 0; i < most; i++) {
        uint64_t at = position + i - d->begin;
        uint8_t byte = at < d->n ? d->text[at] : 0;
        bytes[i] = random_below(d->of) < d->right ? byte : (uint8_t)(byte + 1 + random_below(255));
    }
    return d->of > 3 ? random_below(most + 1) : most;
}

/* A stream's state as bytes. */
static uint8_t *state_of(const megabyte_stream *s, size_t *size) {
    *size = megabyte_stream_save_size(s);
    uint8_t *state = need(*size + 1, 1);
    OK(megabyte_stream_save(s, state, *size));
    return state;
}

static int stop_at(void *context, uint8_t byte) {
    (void)byte;
    return !--*(int *)context;
}

enum { DRAFTED = 150 };

/* Generates in calls of `piece` bytes. */
static size_t generate(megabyte_stream *s, megabyte_sampling how, uint8_t *out, size_t piece) {
    size_t n = 0, got = 0;
    megabyte_status status = MEGABYTE_OK;
    while (n < DRAFTED && !status) {
        size_t most = piece < DRAFTED - n ? piece : DRAFTED - n;
        status = megabyte_stream_generate(s, &how, out + n, most, &got, NULL, NULL);
        CHECK(status == MEGABYTE_OK || status == MEGABYTE_END, "status %d", (int)status);
        CHECK(status || got == most);
        n += got;
    }
    return n;
}

/* The next one whose vocabulary has all bytes of f's. */
static const fixture *another_model(const fixture *f) {
    const fixture *by = f;
    do by = by + 1 < fixtures + COUNT_OF(fixtures) ? by + 1 : fixtures;
    while (by->v < 256 && by->v < f->v);
    return by;
}

static void compare_drafts(fixture *f, size_t k, size_t fed, megabyte_sampling how) {
    static const struct {
        uint32_t most;
        unsigned right, of; /* of 0: the stream's own */
        int second; /* 1: and those of a second model, the same; 2: the next one that can */
    } ways[] = {{0, 0, 0, 0},  {3, 0, 0, 0}, {15, 1, 1, 0}, {15, 0, 1, 0}, {15, 1, 2, 0},
                {7, 9, 10, 0}, {1, 1, 1, 0}, {15, 0, 0, 1}, {5, 0, 0, 2},  {15, 0, 0, 2}};
    megabyte_engine *engine = new_engine(f->model, 1, 7, MEGABYTE_ISA_AUTO);
    megabyte_stream_options plain = {
        .engine = engine, .context = f->context[k].option, .draft_max = MEGABYTE_NO_DRAFT};
    megabyte_stream *s, *copy;
    uint8_t text[DRAFTED], again[DRAFTED];
    size_t size, other;
    OK(megabyte_stream_create(&s, f->model, &plain, NULL, NULL));
    OK(megabyte_stream_create(&copy, f->model, &plain, NULL, NULL));
    OK(megabyte_stream_feed(s, f->bytes, fed));
    megabyte_sampling loop = how;
    size_t n = 0;
    for (uint8_t byte; n < DRAFTED && !megabyte_stream_sample(s, &loop, &byte); n++) {
        OK(megabyte_stream_step(s, byte));
        text[n] = byte;
    }
    size_t size_at_end;
    uint8_t *state = state_of(s, &size_at_end);
    for (size_t i = 0; i < COUNT_OF(ways); i++) {
        drafting source = {.text = text,
                           .begin = fed,
                           .n = n,
                           .right = ways[i].right,
                           .of = ways[i].of,
                           .vocabulary = f->v};
        megabyte_stream_options options = plain;
        options.draft_max = ways[i].most;
        if (ways[i].of) options.draft = draft, options.draft_context = &source;
        const fixture *by = ways[i].second == 2 ? another_model(f) : f;
        options.draft_engine = ways[i].second ? new_engine(by->model, 1, 0, MEGABYTE_ISA_AUTO)
                                              : NULL;
        megabyte_stream *d;
        OK(megabyte_stream_create(&d, f->model, &options, NULL, NULL));
        OK(megabyte_stream_feed(d, f->bytes, fed));
        size_t m = generate(d, how, again, i % 2 ? 1 + random_below(60) : DRAFTED);
        CHECK(m == n && !memcmp(text, again, n), "way %zu: other bytes than without drafts", i);
        uint8_t *drafted = state_of(d, &other);
        CHECK(size_at_end == other && !memcmp(state, drafted, other), "way %zu: another state", i);
        CHECK(same_floats(megabyte_stream_logits(s), megabyte_stream_logits(d), f->v));
        OK(megabyte_stream_copy(copy, d));
        CHECK(same_floats(megabyte_stream_logits(s), megabyte_stream_logits(copy), f->v));
        uint64_t steps, passes;
        megabyte_stream_draft_counts(d, &steps, &passes);
        CHECK(steps == n && passes <= steps, "%d passes", (int)passes);
        if (ways[i].right == 1 && ways[i].of == 1 && n == DRAFTED && f->info.patch_bytes > 1)
            CHECK(passes < steps, "nothing was taken from %d drafts", (int)source.calls);
        if (ways[i].of == 1 && !ways[i].right) CHECK(passes == steps);
        free(drafted);
        if (n) { /* stopped where drafted bytes are left: as if they had never been computed */
            int left = (int)(1 + random_below(n)), stopped = left;
            megabyte_stream_reset(d);
            megabyte_stream_reset(copy);
            OK(megabyte_stream_feed(d, f->bytes, fed));
            OK(megabyte_stream_feed(copy, f->bytes, fed));
            for (int j = 0; j < stopped; j++) OK(megabyte_stream_step(copy, text[j]));
            megabyte_sampling again_how = how;
            CHECK_STATUS(megabyte_stream_generate(d, &again_how, NULL, n, NULL, stop_at, &left),
                         MEGABYTE_ERROR_CANCELLED);
            uint8_t *one = state_of(d, &size), *two = state_of(copy, &other);
            CHECK(size == other && !memcmp(one, two, size), "way %zu: stopped at %d", i, stopped);
            free(one);
            free(two);
        }
        megabyte_stream_free(d);
        megabyte_engine_free(options.draft_engine);
    }
    free(state);
    megabyte_stream_free(s);
    megabyte_stream_free(copy);
    megabyte_engine_free(engine);
}

static void drafts(void) {
    const megabyte_sampling how[] = {
        {.seed = 1},
        {.temperature = 0.3f, .seed = 2},
        {.temperature = 1, .top_k = 9, .top_p = 0.8f, .seed = 3},
        {.temperature = 1.2f, .min_p = 0.01f, .repetition_penalty = 1.3f, .seed = 4},
    };
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts; k++)
        for (size_t i = 0; i < COUNT_OF(how); i++) {
            name_case("%s, context %zu, sampling %zu", f->y.name, k, i);
            seed_random(k * 10 + i);
            size_t full = (size_t)f->context[k].bytes;
            compare_drafts(f, k, 1 + random_below(2 * full), how[i]);
        }
    int left = 5;
    megabyte_sampling greedy = {.seed = 1};
    megabyte_stream *s = new_stream(fixtures[0].model, NULL, 0);
    uint8_t out[9];
    size_t n;
    CHECK_STATUS(megabyte_stream_generate(s, &greedy, NULL, 9, &n, stop_at, &left),
                 MEGABYTE_ERROR_CANCELLED);
    CHECK(n == 5 && megabyte_stream_position(s) == 5);
    CHECK_STATUS(megabyte_stream_generate(s, &greedy, NULL, 1, &n, NULL, NULL),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    greedy.temperature = -1;
    CHECK_STATUS(megabyte_stream_generate(s, &greedy, out, 1, &n, NULL, NULL),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    CHECK(!n && megabyte_stream_position(s) == 5);
    megabyte_stream_options wrong = {.draft_max = 16};
    megabyte_stream *none;
    CHECK_STATUS(megabyte_stream_create(&none, fixtures[0].model, &wrong, NULL, NULL),
                 MEGABYTE_ERROR_INVALID_ARGUMENT);
    megabyte_stream_free(s);
}

/* Messages of repetitive bytes: decoded with drafts and without, the streams end alike. */
static void drafted_messages(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts && f->v >= 256; k++) {
        name_case("%s, context %zu", f->y.name, k);
        uint8_t text[400], code[416], back[400];
        for (size_t i = 0; i < sizeof text; i++) text[i] = f->bytes[i % 23 + i / 150];
        megabyte_stream *state[4];
        megabyte_engine *second = new_engine(another_model(f)->model, 1, 0, MEGABYTE_ISA_AUTO);
        drafting source = {.text = text, .n = sizeof text, .right = 1, .of = 2};
        size_t coded, n, size[4];
        uint8_t *saved[4];
        for (size_t i = 0; i < 4; i++) {
            megabyte_stream_options options = {.context = f->context[k].option,
                                               .draft_engine = i == 3 ? second : NULL};
            if (!i) options.draft_max = MEGABYTE_NO_DRAFT;
            if (i == 2) options.draft = draft, options.draft_context = &source;
            OK(megabyte_stream_create(&state[i], f->model, &options, NULL, NULL));
            if (!i) OK(megabyte_stream_encode(state[i], text, sizeof text, code, 416, &coded));
            if (!i) megabyte_stream_reset(state[i]);
            OK(megabyte_stream_decode(state[i], code, coded, back, sizeof back, &n));
            CHECK(n == sizeof text && !memcmp(text, back, n), "stream %zu", i);
            saved[i] = state_of(state[i], &size[i]);
            CHECK(size[i] == size[0] && !memcmp(saved[i], saved[0], size[0]), "state %zu", i);
        }
        for (size_t i = 0; i < 4; i++) free(saved[i]), megabyte_stream_free(state[i]);
        megabyte_engine_free(second);
    }
}

/* A second model's stream follows when the text is rewound, reset, copied, or goes on without it;
 * whatever it guesses, the bytes are the same. */
static void second_models(void) {
    EACH_FIXTURE(f)
    for (size_t k = 0; k < f->n_contexts; k++) {
        name_case("%s, context %zu", f->y.name, k);
        seed_random(k);
        megabyte_engine *second = new_engine(another_model(f)->model, 1, 5, MEGABYTE_ISA_AUTO);
        megabyte_stream_options options = {.context = f->context[k].option};
        megabyte_stream *plain = new_stream(f->model, NULL, options.context), *s;
        options.draft_engine = second;
        OK(megabyte_stream_create(&s, f->model, &options, NULL, NULL));
        for (int i = 0; i < 60; i++) {
            uint8_t out[2][9];
            megabyte_sampling how[2] = {{.temperature = 0.5f, .seed = (uint64_t)i},
                                        {.temperature = 0.5f, .seed = (uint64_t)i}};
            size_t n[2], fed = random_below(i % 10 ? 6 : 100);
            uint64_t back = megabyte_stream_position(s);
            back -= back && i % 3 == 0 ? random_below(back < 20 ? back : 20) : 0;
            CHECK(megabyte_stream_rewind(s, back) == megabyte_stream_rewind(plain, back));
            if (i % 17 == 16) megabyte_stream_reset(s), megabyte_stream_reset(plain);
            if (i % 13 == 12) OK(megabyte_stream_copy(s, plain));
            OK(megabyte_stream_feed(s, f->bytes + i, fed));
            OK(megabyte_stream_feed(plain, f->bytes + i, fed));
            megabyte_status one = megabyte_stream_generate(s, how, out[0], 9, n, NULL, NULL),
                            two = megabyte_stream_generate(plain, how + 1, out[1], 9, n + 1, NULL,
                                                           NULL);
            CHECK(one == two && n[0] == n[1] && !memcmp(out[0], out[1], n[0]), "call %d", i);
            CHECK(same_floats(megabyte_stream_logits(s), megabyte_stream_logits(plain), f->v));
        }
        megabyte_stream_free(s);
        megabyte_stream_free(plain);
        megabyte_engine_free(second);
    }
    const fixture *f = fixtures, *few = f;
    while (few->v >= 256) few++;
    megabyte_engine *own = new_engine(f->model, 1, 0, MEGABYTE_ISA_AUTO),
                    *small = new_engine(few->model, 1, 0, MEGABYTE_ISA_AUTO);
    megabyte_stream_options wrong[] = {{.engine = own, .draft_engine = own},
                                       {.draft_engine = small},
                                       {.draft_engine = own, .draft = draft}};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        megabyte_stream *none;
        megabyte_error error;
        CHECK_STATUS(megabyte_stream_create(&none, f->model, &wrong[i], NULL, &error),
                     MEGABYTE_ERROR_INVALID_ARGUMENT);
        CHECK(strstr(error.text, i == 1 ? "vocabulary of 100" : "draft_engine"), "%s", error.text);
    }
    megabyte_engine_free(own);
    megabyte_engine_free(small);
}

static void two_threads_share_a_model(void) {
    EACH_FIXTURE(f) {
        pthread_t thread[2];
        name_case("%s", f->y.name);
        for (int i = 0; i < 2; i++) CHECK(!pthread_create(&thread[i], NULL, stream_thread, f));
        for (int i = 0; i < 2; i++) CHECK(!pthread_join(thread[i], NULL));
    }
}

static size_t touched(const void *object, size_t size) { /* counter_alloc's filling is 0xff */
    const uint8_t *p = object;
    size_t n = 0;
    for (size_t i = 0; i < size; i++) n += p[i] != 0xff;
    return n;
}

/* A small file may ask for a long context and long patches: the memory that goes with them comes
 * as it is used, not at creation and not at a reset. */
static void untouched(void) {
    static const synthetic y = {.name = "untouched",
                                .stages = 2,
                                .n = {6000, 2048},
                                .dim = {8, 4},
                                .depth = {1, 1},
                                .heads = 2,
                                .dim_head = 64,
                                .ff_mult = 1,
                                .vocabulary = 256,
                                .rotary = 1,
                                .type = "F32"};
    char mb[200];
    megabyte_model *model = open_model(synthetic_model(mb, &y, 1, "q8", NULL));
    megabyte_engine *engine;
    megabyte_stream *stream, *copy;
    counter c = {0};
    megabyte_allocator a = counting(&c);
    const megabyte_engine_options eo = {.batch = 1};
    size_t size, saved;
    OK(megabyte_engine_size(model, &eo, &size));
    OK(megabyte_engine_create(&engine, model, &eo, &a, NULL));
    CHECK(size > 400000 && touched(engine, size) < 50000, "%zu of %zu", touched(engine, size),
          size);
    const megabyte_stream_options so = {.engine = engine};
    OK(megabyte_stream_size(model, &so, &size));
    OK(megabyte_stream_create(&stream, model, &so, &a, NULL));
    OK(megabyte_stream_create(&copy, model, &so, &a, NULL));
    CHECK(size > 20000000 && touched(stream, size) < 200000, "%zu of %zu", touched(stream, size),
          size);
    OK(megabyte_stream_feed(stream, "some bytes", 10));
    OK(megabyte_stream_copy(copy, stream));
    CHECK(touched(copy, size) < 300000, "%zu", touched(copy, size));
    megabyte_stream_reset(stream);
    CHECK(touched(stream, size) < 300000, "%zu", touched(stream, size));
    saved = megabyte_stream_save_size(stream); /* what was never touched is saved as zeros */
    uint8_t *state[2] = {need(saved, 1), need(saved, 1)};
    OK(megabyte_stream_save(stream, state[0], saved));
    megabyte_stream_reset(copy);
    OK(megabyte_stream_load(copy, state[0], saved));
    OK(megabyte_stream_feed(copy, "others", 6));
    megabyte_stream_reset(copy);
    OK(megabyte_stream_save(copy, state[1], saved));
    CHECK(!memcmp(state[0], state[1], saved), "a reset stream shows what it held before");
    free(state[0]), free(state[1]);
    megabyte_stream_free(copy);
    megabyte_stream_free(stream);
    megabyte_engine_free(engine);
    megabyte_model_close(model);
}

int main(void) {
    GROUP(set_up);
    GROUP(untouched);
    GROUP(versions_and_texts);
    GROUP(descriptions);
    GROUP(metadata);
    GROUP(cuts);
    GROUP(bits_and_probabilities);
    GROUP(sliding_rule);
    GROUP(rewinds);
    GROUP(wanderings);
    GROUP(copies);
    GROUP(saves);
    GROUP(saves_of_other_models);
    GROUP(batches);
    GROUP(threads_and_batch_options);
    GROUP(instruction_sets);
    GROUP(environments);
    GROUP(sizes_and_no_allocations);
    GROUP(loading);
    GROUP(parts);
    GROUP(allocation_failures);
    GROUP(invalid_arguments);
    GROUP(bytes_outside_the_vocabulary);
    GROUP(score_writes_its_rows_only);
    GROUP(sampling_distribution);
    GROUP(sampling_corners);
    GROUP(sampling_from_streams);
    GROUP(sampling_an_end);
    GROUP(sampling_constant);
    GROUP(drafts);
    GROUP(drafted_messages);
    GROUP(second_models);
    GROUP(two_threads_share_a_model);
    EACH_FIXTURE(f) {
        for (size_t k = 0; k < f->n_contexts; k++) free(f->context[k].rows);
        megabyte_model_close(f->model);
    }
    return 0;
}
