/* test_gaps.c - what mutations of megabyte.c once survived: systems that refuse threads or
 * mappings, arithmetic that is not IEEE, a code that does not verify, limits at their very edge;
 * and matrix products of every instruction set. */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <sys/mman.h>

/* megabyte.c sees these instead. */
static int threads_left = 1 << 20, mappings_fail, roots_are_wrong;
static int limited_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context) {
    return threads_left-- > 0 ? pthread_create(thread, attributes, run, context) : 11;
}
static void *failing_mmap(void *at, size_t n, int protection, int flags, int file, off_t offset) {
    return mappings_fail ? MAP_FAILED : mmap(at, n, protection, flags, file, offset);
}
static float wrong_sqrtf(float x) { return sqrtf(x) + (roots_are_wrong ? 1e-6f : 0); }
#define pthread_create limited_create
#define mmap failing_mmap
#define sqrtf wrong_sqrtf

#define MEGABYTE_API static __attribute__((unused))
#include "../megabyte.c"

#include "synthetic.h"

static const synthetic sizes = {.name = "gaps",
                                .stages = 2,
                                .n = {16, 4},
                                .dim = {24, 16},
                                .depth = {1, 1},
                                .heads = 2,
                                .dim_head = 8,
                                .ff_mult = 2,
                                .vocabulary = 256,
                                .rotary = 1,
                                .type = "F32"};
static char path[200];
static megabyte_model *model;

static void set_up(void) {
    synthetic_model(path, &sizes, 5, "q8", NULL);
    model = open_model(path);
}

/* ---------------------------------------------------------------------- systems that refuse */

static void threads_that_cannot_start(void) {
    const int wanted = (int)useful_threads(4) - 1; /* beside the caller: no more than cores */
    for (int some = 0; some <= wanted; some++) {
        megabyte_engine *engine = (megabyte_engine *)&some;
        megabyte_engine_options o = {.threads = 4};
        megabyte_error error;
        counter c = {0};
        megabyte_allocator a = counting(&c);
        name_case("%d of %d", some, wanted);
        threads_left = some;
        megabyte_status status = megabyte_engine_create(&engine, model, &o, &a, &error);
        threads_left = 1 << 20;
        CHECK(status == (some < wanted ? MEGABYTE_ERROR_UNSUPPORTED : MEGABYTE_OK) &&
              !engine == (status != MEGABYTE_OK));
        CHECK(some == wanted || (error.status == status && strstr(error.text, "threads")));
        megabyte_engine_free(engine);
        CHECK(!c.live, "%zu objects stay", c.live);
    }
}

static void a_mapping_that_fails(void) {
    megabyte_model *none = model;
    megabyte_error error;
    mappings_fail = 1;
    megabyte_status status = megabyte_model_open(&none, path, NULL, &error);
    mappings_fail = 0;
    CHECK(status == MEGABYTE_ERROR_IO && !none && error.status == MEGABYTE_ERROR_IO &&
          error.text[0]);
}

static void arithmetic_that_is_wrong(void) {
    megabyte_engine *engine;
    megabyte_error error;
    const megabyte_engine_options o = {.isa = MEGABYTE_ISA_PLAIN};
    roots_are_wrong = 1;
    megabyte_status status = megabyte_engine_create(&engine, model, &o, NULL, &error);
    CHECK(status == MEGABYTE_ERROR_ARITHMETIC && !engine && strstr(error.text, "IEEE"), "%s",
          error.text);
    CHECK_STATUS(megabyte_self_test(MEGABYTE_ISA_PLAIN), MEGABYTE_ERROR_ARITHMETIC);
    megabyte_codec *codec; /* without a model, and without an engine then */
    const megabyte_codec_options level = {.level = 1, .threads = 3, .isa = MEGABYTE_ISA_PLAIN};
    status = megabyte_codec_create(&codec, NULL, MEGABYTE_MODE_COMPRESS, &level, NULL, &error);
    CHECK(status == MEGABYTE_ERROR_ARITHMETIC && !codec && strstr(error.text, "IEEE"), "%s",
          error.text);
    roots_are_wrong = 0;
    OK(megabyte_self_test(MEGABYTE_ISA_PLAIN));
}

/* Damages the code of the block that is being verified, once. */
static int damages;
static int damage(void *context, uint64_t done) {
    megabyte_codec *c = *(megabyte_codec **)context;
    if (c->verifying && done && !damages++) c->jobs[0].code[c->jobs[0].n_code / 2] ^= 4;
    return 0;
}

static void a_verification_that_fails(void) {
    uint8_t bytes[3000], out[4000];
    seed_random(3);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)random_below(9);
    for (int damaged = 0; damaged < 2; damaged++) {
        megabyte_codec *codec = NULL;
        megabyte_codec_options o = {.verify = 1, .level = 1, .size = sizeof bytes};
        size_t n, produced;
        if (damaged) o.progress = damage, o.progress_context = &codec;
        name_case("%s", damaged ? "damaged" : "intact");
        OK(megabyte_codec_create(&codec, model, MEGABYTE_MODE_COMPRESS, &o, NULL, NULL));
        OK(megabyte_codec_push(codec, bytes, sizeof bytes, &n));
        OK(megabyte_codec_finish(codec));
        megabyte_status status = megabyte_codec_pull(codec, out, sizeof out, &produced);
        if (damaged && !status) { /* the file's header may come first */
            CHECK(produced <= MEGABYTE_HEADER_MAX, "%zu bytes", produced);
            status = megabyte_codec_pull(codec, out, sizeof out, &produced);
        }
        CHECK_STATUS(status, damaged ? MEGABYTE_ERROR_CORRUPT : MEGABYTE_OK);
        CHECK(!damages == !damaged && (damaged ? !produced : produced > 100));
        if (damaged) CHECK(strstr(megabyte_codec_error(codec)->text, "did not decode"));
        megabyte_codec_free(codec);
    }
}

/* --------------------------------------------------------------------------------- sampling */

/* The seed whose next random number is `random`: splitmix64 backwards. */
static uint64_t inverse(uint64_t odd) {
    uint64_t x = odd;
    for (int i = 0; i < 6; i++) x *= 2 - odd * x;
    return x;
}
static uint64_t seed_for(uint64_t z) {
    z ^= z >> 31 ^ z >> 62;
    z *= inverse(0x94d049bb133111ebULL);
    z ^= z >> 27 ^ z >> 54;
    z *= inverse(0xbf58476d1ce4e5b9ULL);
    z ^= z >> 30 ^ z >> 60;
    return z - 0x9e3779b97f4a7c15ULL;
}

/* Sums of many small weights are rounded up, so that the largest random number lies beyond all of
 * them: the last byte it is then. */
static void the_last_resort(void) {
    float logits[256];
    uint8_t byte = 0;
    for (int i = 0; i < 256; i++) logits[i] = i ? -36.55f : 0;
    megabyte_sampling how = {.temperature = 1, .seed = seed_for(UINT64_MAX)};
    uint64_t seed = how.seed;
    CHECK(next_random(&seed) == UINT64_MAX);
    OK(megabyte_logits_sample(logits, 256, NULL, 0, &how, &byte));
    CHECK(byte == 255, "%d", byte);
}

static void penalties(void) {
    const float negative[2] = {-1, -1.5f}, positive[2] = {1.5f, 1};
    const uint8_t recent[1] = {0};
    megabyte_sampling how = {.repetition_penalty = 2}; /* temperature 0: the likeliest */
    uint8_t byte = 9;
    OK(megabyte_logits_sample(negative, 2, recent, 1, &how, &byte));
    CHECK(byte == 1, "negative logits");
    OK(megabyte_logits_sample(positive, 2, recent, 1, &how, &byte));
    CHECK(byte == 1, "positive logits");
}

/* Byte 7 is the likeliest, unless it is recent: the window's first byte counts, the one before it
 * does not. */
static void windows(void) {
    float logits[256] = {0};
    uint8_t recent[1100] = {0}, byte;
    logits[7] = 2, logits[9] = 1.5f;
    for (size_t window = 0; window <= 1025; window += window < 3 || window > 1022 ? 1 : 61) {
        size_t counts = window > 1024 ? 1024 : window ? window : 64;
        for (size_t back = counts; back <= counts + 1; back++) {
            name_case("window %zu, %zu bytes back", window, back);
            megabyte_sampling how = {.repetition_penalty = 2,
                                     .repetition_window = (uint32_t)window};
            memset(recent, 0, sizeof recent);
            recent[sizeof recent - back] = 7;
            OK(megabyte_logits_sample(logits, 256, recent, sizeof recent, &how, &byte));
            CHECK(byte == (back > counts ? 7 : 9), "%d", byte);
            megabyte_stream *s = new_stream(model, NULL, 0);
            OK(megabyte_stream_feed(s, recent, sizeof recent));
            memcpy(s->logits, logits, sizeof logits);
            OK(megabyte_stream_sample(s, &how, &byte));
            CHECK(byte == (back > counts ? 7 : 9), "%d from a stream", byte);
            megabyte_stream_free(s);
        }
    }
}

/* ---------------------------------------------------------------------------- saved streams */

/* A rewind keeps what sampling looks back at. */
static void rewinds_and_windows(void) {
    megabyte_stream *s = new_stream(model, NULL, 0);
    uint8_t bytes[64] = {0};
    for (int i = 0; i < 100; i++) OK(megabyte_stream_feed(s, bytes, sizeof bytes));
    CHECK(s->oldest);
    uint64_t oldest = s->oldest, edge = oldest + MAX_REPETITION_WINDOW;
    CHECK(base_of(s, edge - 1) >= oldest && edge < s->position);
    CHECK_STATUS(megabyte_stream_rewind(s, edge - 1), MEGABYTE_ERROR_CAPACITY);
    OK(megabyte_stream_rewind(s, edge));
    CHECK(s->position == edge && s->oldest == oldest);
    megabyte_stream_free(s);

    char mb[200]; /* and a window that begins before what is kept, in a longer context */
    synthetic y = sizes;
    y.name = "gaps-long", y.n[0] = 1024;
    megabyte_model *longer = open_model(synthetic_model(mb, &y, 7, "q8", NULL));
    s = new_stream(longer, NULL, 0);
    for (int i = 0; i < 400; i++) OK(megabyte_stream_feed(s, bytes, sizeof bytes));
    uint64_t margin = s->oldest + MAX_REPETITION_WINDOW;
    CHECK(s->oldest && base_of(s, margin) < s->oldest);
    CHECK_STATUS(megabyte_stream_rewind(s, margin), MEGABYTE_ERROR_CAPACITY);
    megabyte_stream_free(s);
    megabyte_model_close(longer);
}

static void sign(uint8_t *state, size_t n) {
    put64(state + 32, n);
    put64(state + n - 8, checksum_of(state, n - 8));
}

/* A visitor: what is not in use, counted, is zeros. */
static void check_unused(void *context, void *span, u64 n, int kind) {
    for (u64 i = 0; kind == UNUSED && i < n; i++, ++*(uint64_t *)context)
        CHECK(f32_to_bits(((float *)span)[i]) == 0, "it was loaded");
}

/* A visitor: NaNs where a saved state has zeros for what is not in use. */
static void spoil_unused(void *context, void *span, u64 n, int kind) {
    uint8_t **at = context;
    (void)span;
    if (kind == UNUSED) memset(*at, 0xff, (size_t)n * 4);
    *at += kind == RAW_BYTES ? n : n * 4;
}

static void forged_states(void) {
    char mb[200];
    synthetic y = sizes;
    y.name = "gaps-100", y.vocabulary = 100;
    megabyte_model *few = open_model(synthetic_model(mb, &y, 6, "f32", NULL));
    megabyte_stream *s = new_stream(few, NULL, 0);
    uint8_t bytes[3000] = {0};
    OK(megabyte_stream_feed(s, bytes, 11));
    size_t n = megabyte_stream_save_size(s);
    uint8_t *state = need(n, 1);
    OK(megabyte_stream_save(s, state, n));
    for (int id = 98; id < 103; id++) {
        name_case("a byte of %d", id);
        state[STATE_HEADER + 10] = (uint8_t)id;
        sign(state, n);
        CHECK_STATUS(megabyte_stream_load(s, state, n),
                     id < 100 ? MEGABYTE_OK : MEGABYTE_ERROR_CORRUPT);
    }
    state[STATE_HEADER + 10] = 0;
    for (uint64_t high = 0; high < 20; high++) { /* 11 bytes are 3 patches of 16 */
        name_case("%d patches computed", (int)high);
        put64(state + 72, high);
        sign(state, n);
        CHECK_STATUS(megabyte_stream_load(s, state, n),
                     high < 3 || high > 16 ? MEGABYTE_ERROR_CORRUPT : MEGABYTE_OK);
    }
    put64(state + 72, 3);
    const float wild[] = {INFINITY, -INFINITY, NAN, 3e38f};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) { /* the last logit */
        name_case("a logit of %g", (double)wild[i]);
        put32(state + n - 12, f32_to_bits(wild[i]));
        sign(state, n);
        OK(megabyte_stream_load(s, state, n));
        CHECK(fabsf(s->logits[99]) <= MOST, "%g", (double)s->logits[99]);
    }
    name_case("not zeros where no key is in use");
    put32(state + n - 12, 0);
    sign(state, n);
    uint64_t spoiled = 0;
    uint8_t *wrong = need(n, 1), *again = need(n, 1), *at = wrong + STATE_HEADER + 11;
    memcpy(wrong, state, n);
    each_span(s, spoil_unused, &at);
    CHECK(at == wrong + n - 8 && memcmp(wrong, state, n));
    sign(wrong, n);
    OK(megabyte_stream_load(s, wrong, n));
    each_span(s, check_unused, &spoiled);
    CHECK(spoiled > 0);
    OK(megabyte_stream_save(s, again, n));
    CHECK(!memcmp(state, again, n));
    free(wrong);
    free(again);
    put32(state + 12, MEGABYTE_NUMERICS_VERSION + 1);
    sign(state, n);
    CHECK_STATUS(megabyte_stream_load(s, state, n), MEGABYTE_ERROR_BAD_VERSION);
    free(state);
    megabyte_stream_free(s);
    megabyte_model_close(few);

    s = new_stream(model, NULL, 0);
    OK(megabyte_stream_feed(s, bytes, sizeof bytes)); /* more than the ring holds */
    n = megabyte_stream_save_size(s);
    for (size_t more = 0; more < 3; more++) {
        uint64_t kept = s->history_bytes - MOST_DRAFTED + more;
        uint8_t *longer = need(n + s->history_bytes + 8, 1);
        name_case("%zu bytes more than the ring", more);
        OK(megabyte_stream_save(s, longer, n));
        size_t had = (size_t)(s->position - s->oldest), add = (size_t)kept - had;
        memmove(longer + STATE_HEADER + add, longer + STATE_HEADER, n - STATE_HEADER);
        put64(longer + 64, s->position - kept);
        sign(longer, n + add);
        megabyte_stream *t = new_stream(model, NULL, 0);
        CHECK_STATUS(megabyte_stream_load(t, longer, n + add),
                     more ? MEGABYTE_ERROR_CORRUPT : MEGABYTE_OK);
        megabyte_stream_free(t);
        free(longer);
    }
    megabyte_stream_free(s);
}

/* ------------------------------------------------------------------------------ model files */

static void limits_of_sizes(void) {
    struct sizes z = model->sizes;
    OK(check_sizes(&z, NULL));
    z.family = FAMILY_BGPT + 1; /* made by a later version */
    CHECK_STATUS(check_sizes(&z, NULL), MEGABYTE_ERROR_UNSUPPORTED);
    z = model->sizes;
    z.stage[1].flags |= 1u << 30;
    CHECK_STATUS(check_sizes(&z, NULL), MEGABYTE_ERROR_UNSUPPORTED);
    z = model->sizes;
    z.stage[0].heads = z.stage[0].head_dim = 65536; /* wraps to 0 in 32 bits */
    CHECK_STATUS(check_sizes(&z, NULL), MEGABYTE_ERROR_UNSUPPORTED);
    z = model->sizes;
    z.stage[0].heads = 1024, z.stage[0].head_dim = 64;
    OK(check_sizes(&z, NULL));
    z.stage[0].head_dim = 66;
    CHECK_STATUS(check_sizes(&z, NULL), MEGABYTE_ERROR_UNSUPPORTED);
    z = model->sizes; /* dim 16: patches of 4096 bytes are 65536 wide */
    z.stage[1].positions = 4096;
    OK(check_sizes(&z, NULL));
    z.stage[1].positions = 4097;
    CHECK_STATUS(check_sizes(&z, NULL), MEGABYTE_ERROR_UNSUPPORTED);
    z.stage[1].dim = 1;
    z.stage[1].positions = 65536;
    OK(check_sizes(&z, NULL));
    z.stage[1].positions = 65537;
    CHECK_STATUS(check_sizes(&z, NULL), MEGABYTE_ERROR_UNSUPPORTED);
}

/* A hostile model's frequencies: what is no reasonable angle counts as 0. */
static void unreasonable_angles(void) {
    const double angles[] = {1e9, 1e18, 1e19, 1e300, INFINITY, NAN, -1e-9, -INFINITY};
    for (size_t i = 0; i < sizeof angles / sizeof *angles; i++) {
        double sine = 9, cosine = 9;
        sin_cos(angles[i], &sine, &cosine);
        CHECK(sine == 0 && cosine == 1, "%g: %g, %g", angles[i], sine, cosine);
    }
}

/* ------------------------------------------------------------------------------------ codes */

/* A carry comes when the sum passes 2^32, not when the interval began at 0. */
static void carries(void) {
    for (int wraps = 0; wraps < 2; wraps++) {
        uint8_t to[8] = {5, 255};
        struct coder c;
        begin_encoding(&c, to, sizeof to);
        c.n = 2;
        c.low = wraps ? 0 - (uint32_t)(((uint64_t)c.range * (PROBABILITY_ONE / 2)) >> 22) : 0;
        encode_bit(&c, PROBABILITY_ONE / 2, 0);
        CHECK(to[0] == (wraps ? 6 : 5) && to[1] == (wraps ? 0 : 255), "%d %d", to[0], to[1]);
    }
}

/* Of a single block: its code must be smaller than its bytes, else it would be stored. */
static void single_blocks(void) {
    uint8_t bytes[2000], coded[3000];
    size_t n;
    seed_random(8);
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)random_below(3);
    const megabyte_codec_options o = {.level = 1};
    OK(megabyte_compress(model, &o, bytes, sizeof bytes, coded, sizeof coded, &n, NULL, NULL));
    megabyte_file_header c;
    OK(megabyte_file_header_read(coded, n, &c, NULL));
    CHECK(c.single && c.method == MEGABYTE_METHOD_CONTEXT_MIXING && c.size == sizeof bytes);
    uint8_t *size = coded + 8; /* a varint of two bytes, then that of the code's size, then two */
    CHECK((size[0] & 127) + 128 * size[1] == 2000 && size[2] >= 128 && !(size[3] & 128));
    for (uint32_t claim = 1998; claim < 2003; claim++) {
        uint8_t digest[32];
        name_case("%u bytes of code", claim);
        size[2] = (uint8_t)(128 | claim % 128), size[3] = (uint8_t)(claim / 128);
        sha256(coded, 12, NULL, 0, digest);
        memcpy(coded + 12, digest, 2);
        CHECK_STATUS(megabyte_file_header_read(coded, n, &c, NULL),
                     claim < 2000 ? MEGABYTE_OK : MEGABYTE_ERROR_CORRUPT);
    }
}

/* gemm_q8 of every instruction set against plain C, bit for bit: all numbers of rows and tiles that
 * take ways of their own, rows and tiles apart, tiles side by side, floats and sums. */
static void products(void) {
    enum { ROWS = 35, TILES = 6, MOST_K = 8196, LD = MOST_K + 12, LDY = 16 * TILES + 16 };
    static const uint32_t inner[] = {4, 12, 16, 20, 64, 132, 2052, MOST_K};
    static const uint32_t rows[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,   10,
                                    11, 12, 13, 14, 16, 17, 21, 24, ROWS};
    static uint8_t w[TILES * 16 * MOST_K + 64];
    static float x[ROWS][LD], scale[16 * TILES], bias[16 * TILES], y[2][ROWS * LDY];
    static uint64_t q[2][ROWS * LD / 4];
    int32_t sum[2][ROWS];
    float x_scale[2][ROWS];
    seed_random(9);
    for (size_t i = 0; i < sizeof w; i++) w[i] = (uint8_t)random_below(256);
    for (size_t i = 0; i < ROWS * LD; i++) x[i / LD][i % LD] = (float)random_below(2001) - 1000;
    for (size_t i = 0; i < 16 * TILES; i++) scale[i] = bias[i] = (float)random_below(99) * 0.01f;
    for (int isa = MEGABYTE_ISA_AVX2; isa <= MEGABYTE_ISA_NEON_I8MM; isa++) {
        struct kernels k[2];
        if (!find_kernels(MEGABYTE_ISA_PLAIN, &k[0]) || !find_kernels((megabyte_isa)isa, &k[1]))
            continue;
        for (uint32_t c = 0; c < COUNT_OF(inner) * COUNT_OF(rows) * TILES * 8; c++) {
            uint32_t n = inner[c % COUNT_OF(inner)], rest = c / COUNT_OF(inner);
            uint32_t m = rows[rest % COUNT_OF(rows)];
            rest /= COUNT_OF(rows);
            uint32_t tiles = rest % TILES + 1, how = rest / TILES % 4, apart = rest / TILES < 4;
            if (n > 132 && (tiles != 2 || how || !apart)) continue; /* they take long */
            name_case("%s: %u rows, %u tiles, %u deep, %u, %u",
                      megabyte_isa_name((megabyte_isa)isa), m, tiles, n, how, apart);
            for (int i = 0; i < 2; i++) {
                for (size_t j = 0; j < ROWS * LDY; j++) y[i][j] = (float)j * 0.125f;
                for (uint32_t r = 0; r < m; r++)
                    k[i].quantize(x[r], n, (uint8_t *)q[i] + r * LD * k[i].q_bytes, &sum[i][r],
                                  &x_scale[i][r]);
                k[i].gemm_q8(w, apart ? n * 16 : 64, apart ? 64 : 64 * tiles, scale, tiles, n, q[i],
                             LD, sum[i], how == 3 ? NULL : x_scale[i], m, y[i], LDY,
                             how & 1 ? bias : NULL, how > 1);
            }
            CHECK(!memcmp(y[0], y[1], sizeof y[0]));
        }
    }
}

/* Least squares over all samples so far, slowly: what the n lags predict now. x: [samples][n] */
static long double ref_least_squares(const double (*x)[PCM_LAGS], const double *y, size_t samples,
                                     const double *now, size_t n, long double keep) {
    static long double a[PCM_LAGS][PCM_LAGS + 1];
    long double sum = 0, w = 1;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= n; j++) a[i][j] = i == j;
    for (size_t t = samples; t--; w *= keep)
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j <= n; j++) a[i][j] += w * x[t][i] * (j < n ? x[t][j] : y[t]);
    for (size_t i = 0; i < n; i++) /* positive definite: no pivots are looked for */
        for (size_t k = 0; k < n; k++) {
            long double f = k == i ? 0 : a[k][i] / a[i][i];
            for (size_t j = i; f != 0 && j <= n; j++) a[k][j] -= f * a[i][j];
        }
    for (size_t i = 0; i < n; i++) sum += a[i][n] / a[i][i] * now[i];
    return sum;
}

/* Of a sample's decisions, each by an expert alone: bits that the value takes. */
static double bits_of_value(const struct pcm *from, const struct mixer_tables *t, size_t bytes,
                            int expert, int scale, u32 value) {
    struct pcm *p = need(1, sizeof *p);
    double bits = 0;
    memcpy(p, from, bytes);
    for (u32 k = 16; k--;) {
        pcm_inputs(p, t);
        const struct mixer_pair *in = &p->input[expert];
        double x = (scale ? in->plain : in->stretched) / 128.0;
        bits += log2(1 + exp(value >> k & 1 ? -x : x));
        pcm_decided(p, value >> k & 1);
    }
    free(p);
    return bits;
}

/* Linear samples beside a slow reference in floating point: what least squares predict, and what
 * the decisions on the way to a value cost, by each distribution. */
static void linear_samples(void) {
    enum { SAMPLES = 480, CHANNELS = 2 };
    static double x[CHANNELS][PCM_SHAPES][SAMPLES][PCM_LAGS], y[CHANNELS][SAMPLES];
    struct mixer_tables *t = need(1, sizeof *t);
    struct mixer *m = aligned_alloc(64, 1 << 20);
    struct pcm_expert *e;
    make_tables(t, find_mix_kernels(MEGABYTE_ISA_PLAIN));
    mixer_reset(m, t, 20, 0, MEGABYTE_CONTENTS_PCM16, CHANNELS, 0);
    const struct pcm *p = m->pcm;
    seed_random(5);
    for (int i = 0, a = 8000, b = 0; i < SAMPLES * CHANNELS; i++) {
        int c = i % CHANNELS, n = i / CHANNELS;
        a -= b / 5, b += a / 5;
        int sample = a / (1 + c) + (int)random_below(200) - 100;
        for (int k = 0; k < PCM_SHAPES; k++) {
            memcpy(x[c][k][n], p->x[k], sizeof p->x[k]);
            if (n % 48) continue; /* all have just been solved */
            double slow = (double)ref_least_squares((const void *)x[c][k], y[c], (size_t)n, p->x[k],
                                                    pcm_shapes[k].lags, pcm_shapes[k].keep);
            CHECK(fabs(p->guess[k] - slow) < 1e-6 * (1 + fabs(slow)), "%g, %g", p->guess[k], slow);
        }
        for (int k = 0; n % 48 == 47 && k < PCM_EXPERTS * PCM_SCALES; k++) {
            e = &m->pcm->expert[k / 2];
            double scale = 0.5625 * (double)p->of[c].error[k / 2][k % 2] / (1 << 20) + 0.3;
            for (int off = -3; off <= 3; off++) {
                int v = clamp(e->guess / 16 + (int)(off * scale), 32767);
                double low = (v - 0.5 - e->guess / 16.0) / scale, high = low + 1 / scale;
                double right = -log2(1 / (1 + exp(-high)) - 1 / (1 + exp(-low)));
                double got = bits_of_value(p, t, pcm_bytes(CHANNELS), k / 2, k % 2,
                                           (u32)(v + 32768));
                CHECK(fabs(got - right) < 0.25, "expert %d: %d bits %g, %g", k, off, got, right);
            }
        }
        y[c][n] = sample;
        for (u32 k = 16, half; k--; mixer_update(m, (sample + 32768) >> k & 1)) {
            half = PROBABILITY_ONE / 2;
            mixers_predict(&m, 1, &half);
        }
    }
    free(t);
    free(m);
}

int main(void) {
    GROUP(set_up);
    GROUP(threads_that_cannot_start);
    GROUP(a_mapping_that_fails);
    GROUP(arithmetic_that_is_wrong);
    GROUP(a_verification_that_fails);
    GROUP(the_last_resort);
    GROUP(penalties);
    GROUP(windows);
    GROUP(rewinds_and_windows);
    GROUP(forged_states);
    GROUP(limits_of_sizes);
    GROUP(unreasonable_angles);
    GROUP(carries);
    GROUP(single_blocks);
    GROUP(products);
    GROUP(linear_samples);
    megabyte_model_close(model);
    return 0;
}
