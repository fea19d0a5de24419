/* test_score.c - code lengths byte by byte, and strided inference (mbrun score --strided) by
 * hand. */
#include "synthetic.h"

#define LONGEST 9000 /* more than mbrun scores at a time */

typedef struct fixture {
    synthetic y; /* no name: models/text-small.mb */
    const char *quant;
    size_t n;
    uint64_t context;
    char mb[200];
    megabyte_model *model;
    megabyte_info info;
    uint8_t bytes[LONGEST];
} fixture;

static fixture fixtures[] = {
    {.y = {"score-odd", 2, {8, 3}, {24, 16}, {1, 1}, 2, 8, 2, 256, 0, 1, "F32"},
     .quant = "f32",
     .n = 500},
    {.y = {"score-three", 3, {5, 3, 2}, {33, 24, 18}, {1, 1, 2}, 2, 10, 1, 257, 1, 1, "F32"},
     .quant = "q8",
     .n = 500},
    {.y = {"score-few", 2, {8, 4}, {24, 16}, {1, 1}, 2, 8, 2, 100, 0, 1, "F32"},
     .quant = "f32",
     .n = 100},
    {.y = {"score-bytes", 2, {8, 1}, {24, 16}, {1, 1}, 2, 8, 2, 256, 0, 1, "F32"},
     .quant = "f32",
     .n = 50},
    {.n = LONGEST, .context = 1024},
};

#define EACH_FIXTURE(f) for (fixture *f = fixtures; f < fixtures + COUNT_OF(fixtures); f++)

static void set_up(void) {
    size_t size;
    uint8_t *text = read_file("tests/data/text.txt", &size);
    make_tmp();
    CHECK(size > 1000);
    EACH_FIXTURE(f) {
        snprintf(f->mb, sizeof f->mb, "models/text-small.mb");
        if (f->y.name) synthetic_model(f->mb, &f->y, 5, f->quant, NULL);
        f->model = open_model(f->mb);
        f->info = describe(f->model);
        random_bytes(f->bytes, f->n, f->info.vocabulary);
        for (size_t i = 0; !f->y.name && i < f->n; i++) f->bytes[i] = text[i % size];
    }
    free(text);
}

/* -log2 of the softmax of a row at `byte`. */
static double code_length(const float *row, uint32_t v, uint8_t byte) {
    double sum = 0;
    for (uint32_t i = 0; i < v; i++) sum += exp((double)row[i] - (double)row[byte]);
    return log2(sum);
}

/* --------------------------------------------------------------------------------- byte by byte */

static void each_byte(void) {
    EACH_FIXTURE(f) {
        uint32_t v = f->info.vocabulary;
        size_t n = f->n < 1500 ? f->n : 1500;
        float *rows = score_rows(f->model, NULL, f->context, f->bytes, n);
        float *each = need(n + 1, sizeof *each);
        megabyte_stream *s = new_stream(f->model, NULL, f->context);
        megabyte_stream *t = new_stream(f->model, NULL, f->context);
        double bits = 0, sum = 0;
        name_case("%s", f->mb);
        seed_random(1);
        OK(megabyte_stream_score(s, f->bytes, n, &bits, NULL));
        each[n] = -7;
        for (size_t at = 0, take; at < n; at += take) { /* in calls of any length */
            take = random_below(99);
            if (take > n - at) take = n - at;
            OK(megabyte_stream_score_bytes(t, f->bytes + at, take, take ? each + at : NULL));
            CHECK(megabyte_stream_position(t) == at + take);
        }
        CHECK(same_floats(each + n, &(float){-7}, 1), "written past the end");
        CHECK_LOGITS(t, rows + n * v, v, "other logits than after megabyte_stream_score");
        for (size_t i = 0; i < n; i++) {
            double expected = code_length(rows + i * v, v, f->bytes[i]);
            CHECK(fabs((double)each[i] - expected) < 1e-5 * (1 + expected),
                  "byte %zu: %.7g, not %.7g", i, (double)each[i], expected);
            sum += (double)each[i];
        }
        CHECK(fabs(sum - bits) < 1e-6 * bits, "they sum to %.9g, not %.9g", sum, bits);
        megabyte_stream_free(s), megabyte_stream_free(t);
        free(rows), free(each);
    }
}

static void refusals(void) {
    EACH_FIXTURE(f) {
        megabyte_stream *s = new_stream(f->model, NULL, f->context);
        float bits[3] = {1, 2, 3};
        double sum = 0;
        name_case("%s", f->mb);
        OK(megabyte_stream_score_bytes(s, f->bytes, 2, bits));
        CHECK_STATUS(megabyte_stream_score_bytes(NULL, f->bytes, 1, bits),
                     MEGABYTE_ERROR_INVALID_ARGUMENT);
        CHECK_STATUS(megabyte_stream_score_bytes(s, NULL, 1, bits),
                     MEGABYTE_ERROR_INVALID_ARGUMENT);
        CHECK_STATUS(megabyte_stream_score_bytes(s, f->bytes, 1, NULL),
                     MEGABYTE_ERROR_INVALID_ARGUMENT);
        OK(megabyte_stream_score_bytes(s, NULL, 0, NULL));
        bits[1] = 7;
        if (f->info.vocabulary < 256)
            CHECK_STATUS(megabyte_stream_score_bytes(s, "\1\377", 2, bits + 1),
                         MEGABYTE_ERROR_INVALID_ARGUMENT);
        CHECK(same_floats(bits + 1, (float[]){7, 3}, 2), "a refused call has written");
        CHECK(megabyte_stream_position(s) == 2, "a refused call has moved the stream");
        OK(megabyte_stream_score(s, f->bytes + 2, 1, &sum, NULL));
        OK(megabyte_stream_score_bytes(s, f->bytes + 3, 1, bits));
        megabyte_stream_free(s);
    }
}

/* -------------------------------------------------------------------------------------- strided */

/* Strided inference over a window: all patches' beginnings from the one history or the other. The
 * sequences of these models (lucidrains) predict the bytes 1 to P of a patch counted from 0; byte 0
 * of all is by itself. */
static double strided_bits(const fixture *f, const uint8_t *bytes, size_t n) {
    uint32_t v = f->info.vocabulary;
    size_t patch = f->info.patch_bytes, half = patch - patch / 2;
    float *first = score_rows(f->model, NULL, f->context, bytes, n);
    float *second = n > half ? score_rows(f->model, NULL, f->context, bytes + half, n - half)
                             : NULL;
    double bits = code_length(first, v, bytes[0]);
    for (size_t t = 1, place = 0; t < n;
         t++, place = (place + 1) % patch) /* place: in its sequence, - 1 */
        bits += code_length(place < half ? first + t * v : second + (t - half) * v, v, bytes[t]);
    free(first), free(second);
    return bits;
}

/* What mbrun score says in its JSON, for the whole file. */
static double told_bits(const fixture *f, const char *options) {
    char context[40] = "";
    size_t size;
    write_file("tests/tmp/score.bytes", f->bytes, f->n);
    if (f->context) snprintf(context, sizeof context, "--context %d", (int)f->context);
    int status = shell(
        "tools/mbrun score -m %s %s %s --json tests/tmp/score.bytes | tee tests/tmp/score.json",
        f->mb, context, options);
    char *said = (char *)read_file("tests/tmp/score.json", &size),
         *bits = strstr(said, "\"bits\": ");
    CHECK(!status && bits && strstr(said, "\"strided\": true"), "mbrun score says: %s", said);
    double value = strtod(bits + 8, NULL);
    free(said);
    return value;
}

static void strided(void) {
    static const struct {
        const char *options;
        size_t window;
    } cases[] = {
        {"--strided -T 1", 0},
        {"--strided -T 2 --window 77", 77},
        {"--strided --window 8192", 8192},
        {"--strided --window 1", 1},
        {"--strided --window 2", 2},
    };
    EACH_FIXTURE(f) {
        size_t n_cases = f->y.name ? COUNT_OF(cases) : 3;
        if (f->info.patch_bytes == 1) continue;
        for (size_t c = 0; c < n_cases; c++) {
            size_t window = cases[c].window ? cases[c].window : f->n;
            double expected = 0, told = told_bits(f, cases[c].options);
            name_case("%s %s", f->mb, cases[c].options);
            for (size_t at = 0; at < f->n; at += window)
                expected += strided_bits(f, f->bytes + at, f->n - at < window ? f->n - at : window);
            CHECK(fabs(told - expected) < 2e-6 * expected, "%.9g bits, not %.9g", told, expected);
        }
    }
}

/* What it is for: fewer bits, on a model that was trained. */
static void strided_is_better(void) {
    const fixture *f = &fixtures[COUNT_OF(fixtures) - 1];
    megabyte_stream *s = new_stream(f->model, NULL, f->context);
    double basic = 0, both = told_bits(f, "--strided");
    OK(megabyte_stream_score(s, f->bytes, f->n, &basic, NULL));
    CHECK(both < 0.995 * basic, "%.0f bits, without --strided %.0f", both, basic);
    megabyte_stream_free(s);
}

static void single_bytes_refused(void) {
    const fixture *f = &fixtures[COUNT_OF(fixtures) - 2];
    CHECK(shell("tools/mbrun score -m %s --strided tests/tmp/score.bytes", f->mb) == 1);
    CHECK(shell("tools/mbrun score -m %s tests/tmp/score.bytes", f->mb) == 0);
}

int main(void) {
    GROUP(set_up);
    GROUP(each_byte);
    GROUP(refusals);
    GROUP(strided);
    GROUP(strided_is_better);
    GROUP(single_bytes_refused);
    EACH_FIXTURE(f) megabyte_model_close(f->model);
    return 0;
}
