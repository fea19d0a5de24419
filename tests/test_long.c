/* test_long.c - a million bytes in one context: sums over more positions than one int8 product may
 * have, the same bits whatever the way there. The history is made up (random_history);
 * tests/bench/context.sh feeds a real one. */
#define MEGABYTE_API static __attribute__((unused))
#define MEGABYTE_KEEP_OPTIONS /* the made-up weights, too, must be the same everywhere */
#include "../megabyte.c"

#include "test.h"

#include "random_model.h"

#define PATCHES 131072
#define PATCH 8
#define TAIL 64
#define VOCABULARY 256
#define PRINT 0xfab6fab06f7d8c49u /* of all logits: the same on every machine */

static const uint64_t positions[] = {(MOST_SUMMED - 4) * PATCH,
                                     1000000}; /* parts: the second begins; two */
static megabyte_model *model;
static uint8_t tail[TAIL];

struct runner {
    megabyte_engine *engine;
    megabyte_stream *stream;
};

static struct runner new_runner(megabyte_isa isa, uint32_t threads, uint32_t batch) {
    struct runner r;
    megabyte_engine_options how = {.threads = threads, .batch = batch, .isa = isa};
    OK(megabyte_engine_create(&r.engine, model, &how, NULL, NULL));
    megabyte_stream_options on = {.engine = r.engine};
    OK(megabyte_stream_create(&r.stream, model, &on, NULL, NULL));
    return r;
}
static void end_runner(struct runner r) {
    megabyte_stream_free(r.stream);
    megabyte_engine_free(r.engine);
}

/* [TAIL + 1][VOCABULARY]: before each byte of the tail, and after it. */
static float *new_logits(void) { return need((TAIL + 1) * VOCABULARY, sizeof(float)); }
#define LOGIT_BYTES ((TAIL + 1) * VOCABULARY * sizeof(float))

static void keep_logits(const megabyte_stream *s, float *logits, size_t i) {
    memcpy(logits + i * VOCABULARY, megabyte_stream_logits(s), VOCABULARY * sizeof *logits);
}
static void step_from(megabyte_stream *s, size_t i, float *logits) {
    for (; i < TAIL; i++) {
        keep_logits(s, logits, i);
        OK(megabyte_stream_step(s, tail[i]));
    }
    keep_logits(s, logits, TAIL);
}
static void score_tail(megabyte_stream *s, float *logits) {
    OK(megabyte_stream_score(s, tail, TAIL, NULL, logits));
    keep_logits(s, logits, TAIL);
}

/* The tail after `position` bytes, with all kernels: stepped by one thread, scored by two in small
 * batches. */
static void tails(uint64_t position, uint64_t *print) {
    struct runner first = new_runner(MEGABYTE_ISA_AUTO, 1, 0);
    float *expected = new_logits(), *logits = new_logits();
    random_history(first.stream, position, 5);
    size_t size = megabyte_stream_save_size(first.stream);
    uint8_t *saved = need(size, 1);
    OK(megabyte_stream_save(first.stream, saved, size));
    score_tail(first.stream, expected);
    for (size_t i = VOCABULARY; i < LOGIT_BYTES / sizeof *expected; i++) {
        CHECK(isfinite(expected[i]), "logit %zu is %g", i, (double)expected[i]);
        *print = (*print ^ f32_to_bits(expected[i])) * 1099511628211u;
    }

    megabyte_stream_options on = {.engine = first.engine};
    megabyte_stream *copy;
    OK(megabyte_stream_create(&copy, model, &on, NULL, NULL));
    OK(megabyte_stream_copy(copy, first.stream));
    OK(megabyte_stream_rewind(copy,
                              position + 23)); /* 5 patches back: by the states that are kept */
    memcpy(logits, expected, LOGIT_BYTES);
    memset(logits + 23 * VOCABULARY, 0, (TAIL + 1 - 23) * VOCABULARY * sizeof *logits);
    step_from(copy, 23, logits);
    CHECK(!memcmp(logits, expected, LOGIT_BYTES), "copied, rewound and stepped at %llu",
          (unsigned long long)position);
    megabyte_stream_free(copy);
    end_runner(first);

    for (int isa = MEGABYTE_ISA_PLAIN; isa <= MEGABYTE_ISA_NEON_I8MM; isa++)
        for (uint32_t threads = 1; threads <= 1 + HAVE_THREADS; threads++) {
            if (!megabyte_isa_available((megabyte_isa)isa)) continue;
            struct runner r = new_runner((megabyte_isa)isa, threads, threads == 1 ? 0 : 3);
            name_case("%s, %u threads, from %llu", megabyte_isa_name((megabyte_isa)isa), threads,
                      (unsigned long long)position);
            OK(megabyte_stream_load(r.stream, saved, size));
            if (threads == 1) step_from(r.stream, 0, logits);
            else score_tail(r.stream, logits);
            CHECK(!memcmp(logits, expected, LOGIT_BYTES), "%s",
                  threads == 1 ? "stepped" : "scored");
            end_runner(r);
        }
    free(saved), free(expected), free(logits);
}

static void test_tails(void) {
    uint64_t print = 14695981039346656037u;
    seed_random(1);
    random_bytes(tail, TAIL, VOCABULARY);
    for (size_t i = 0; i < COUNT_OF(positions); i++) tails(positions[i], &print);
    CHECK(print == PRINT, "the logits' print is %016llx", (unsigned long long)print);
}

/* One head's keys and values, from the stream's int8 cache. */
static double key_at(const struct stage *g, const struct cache *c, uint32_t layer, uint32_t h,
                     uint64_t j, uint32_t i) {
    uint64_t d4 = round_up(g->size.head_dim, 4);
    uint64_t at = layer * c->k_layer + h * c->k_head + j / 16 * 16 * d4 + j % 16 * 4 + i / 4 * 64 +
                  i % 4;
    return (c->k8[at] - 128.0) * (double)c->k_scale[(layer * g->kv_heads + h) * c->scale_head + j];
}
static double value_at(const struct stage *g, const struct cache *c, uint32_t layer, uint32_t h,
                       uint64_t j, uint32_t i) {
    uint64_t at = layer * c->v_layer + h * c->v_head + i / 16 * c->v_tile + j / 4 * c->v_step +
                  j % 4 + i % 16 * 4;
    return (c->v8[at] - 128.0) * (double)c->v_scale[(layer * g->kv_heads + h) * c->scale_head + j];
}

static int quantized(const void *q, uint32_t q_bytes, uint32_t i) {
    return q_bytes == 1 ? ((const int8_t *)q)[i] : ((const int16_t *)q)[i];
}

/* Softmax attention over the first `keys` positions, in double. */
static void attend_exactly(const struct stage *g, const struct cache *c, uint32_t layer, uint32_t h,
                           const double *q, uint64_t keys, double *out) {
    double *p = need(keys, sizeof *p), most = -INFINITY, sum = 0;
    for (uint64_t j = 0; j < keys; j++) {
        for (uint32_t i = 0; i < g->size.head_dim; i++) p[j] += q[i] * key_at(g, c, layer, h, j, i);
        if (p[j] > most) most = p[j];
    }
    for (uint64_t j = 0; j < keys; j++) sum += p[j] = exp(p[j] - most);
    for (uint32_t i = 0; i < g->size.head_dim; i++) {
        out[i] = 0;
        for (uint64_t j = 0; j < keys; j++) out[i] += p[j] / sum * value_at(g, c, layer, h, j, i);
    }
    free(p);
}

/* Four queries at a time, on both sides of the place where the second part of the sums begins. The
 * reference has the library's quantized queries; what differs is that its weights are not quantized
 * (and floats). */
static void test_attention(void) {
    static const uint32_t first_keys[] = {1, 65533, 65536, 65537, 131069};
    struct runner r = new_runner(MEGABYTE_ISA_AUTO, 1, 0);
    megabyte_engine *e = r.engine;
    const struct stage *g = &model->stage[0];
    uint32_t d = g->size.head_dim, layer = g->size.layers - 1, head = g->size.heads - 1;
    double worst = 0;
    seed_random(2);
    random_history(r.stream, (uint64_t)PATCHES * PATCH, 6);
    for (size_t n = 0; n < COUNT_OF(first_keys); n++) {
        int16_t quantized_q[64];
        double q[64], expected[64], error = 0, norm = 0;
        name_case("%u keys", first_keys[n]);
        for (uint32_t i = 0; i < 4; i++) {
            e->rows[i].cache = r.stream->global;
            e->rows[i].key = first_keys[n] - 1 + i;
            for (uint32_t k = 0; k < d; k++)
                e->a[i * e->ld_a + head * d + k] = (float)random_normal();
        }
        attend(e, g, layer, head, 0, 4, 0);
        for (uint32_t i = 0; i < 4; i++) {
            int32_t sum;
            float scale;
            e->kernels.quantize(e->a + i * e->ld_a + head * d, d, quantized_q, &sum, &scale);
            for (uint32_t k = 0; k < d; k++)
                q[k] = quantized(quantized_q, e->kernels.q_bytes, k) * (double)scale;
            attend_exactly(g, &r.stream->global, layer, head, q, first_keys[n] + i, expected);
            for (uint32_t k = 0; k < d; k++) {
                double x = e->n[i * e->ld_n + head * d + k] - expected[k];
                error += x * x;
                norm += expected[k] * expected[k];
            }
        }
        error = sqrt(error / norm);
        CHECK(error < 1e-3, "attention is off by %g", error);
        if (error > worst) worst = error;
    }
    printf("(%.1e) ", worst);
    end_runner(r);
}

/* Rewinding from anywhere to anywhere in a long window, twice, and going on: as if fed anew. */
static void test_rewinds(void) {
    enum { LONG = 2400, TIMES = 60 };
    struct sizes z = random_sizes(LONG / 4, 4, 40, 3, 2, 16, 24, 1, 1, 8);
    megabyte_model *million = model;
    megabyte_error error;
    size_t size = 0;
    uint8_t bytes[LONG], *file = random_model(&z, 1, &size, &error);
    CHECK(file, "%s", error.text);
    OK(megabyte_model_open_memory(&model, file, size, NULL, NULL));
    struct runner r = new_runner(MEGABYTE_ISA_AUTO, 1, 0),
                  fresh = new_runner(MEGABYTE_ISA_AUTO, 1, 16);
    seed_random(3);
    random_bytes(bytes, LONG, VOCABULARY);
    for (int i = 0; i < TIMES; i++) {
        uint64_t at = megabyte_stream_position(r.stream);
        uint64_t top = at + random_below(LONG - at), first = random_below(top + 1);
        uint64_t second = first - random_below(first < 20 ? first + 1 : 20);
        uint64_t end = second + random_below(LONG - second < 100 ? LONG - second : 100);
        name_case("%llu, back to %llu, to %llu, on to %llu", (unsigned long long)top,
                  (unsigned long long)first, (unsigned long long)second, (unsigned long long)end);
        OK(megabyte_stream_feed(r.stream, bytes + at, top - at));
        OK(megabyte_stream_rewind(r.stream, first));
        OK(megabyte_stream_rewind(r.stream, second));
        OK(megabyte_stream_feed(r.stream, bytes + second, end - second));
        megabyte_stream_reset(fresh.stream);
        OK(megabyte_stream_feed(fresh.stream, bytes, end));
        CHECK(!memcmp(megabyte_stream_logits(r.stream), megabyte_stream_logits(fresh.stream),
                      VOCABULARY * sizeof(float)));
    }
    end_runner(r);
    end_runner(fresh);
    megabyte_model_close(model);
    libc_free(NULL, file, size);
    model = million;
}

int main(void) {
    megabyte_error error;
    size_t size = 0;
    struct sizes z = random_sizes(PATCHES, PATCH, 20, 2, 2, 10, 12, 1, 1,
                                  8); /* odd widths: all get filled up */
    uint8_t *file = random_model(&z, 1, &size, &error);
    CHECK(file, "%s", error.text);
    OK(megabyte_model_open_memory(&model, file, size, NULL, NULL));
    GROUP(test_attention);
    GROUP(test_tails);
    GROUP(test_rewinds);
    megabyte_model_close(model);
    libc_free(NULL, file, size);
    return 0;
}
