/* fuzz_stream.c - any bytes as a saved stream: refused, and then the stream is as it was; or
 * loaded, and then every use of it stays within bounds, whatever numbers it holds. See fuzz.h.
 *
 * The first byte says which model and context, and whether the checksum and the identity are put
 * right; then the saved bytes, as many as they say themselves; then what is done with the
 * stream. */
#include "../megabyte.c"

#include "fuzz.h"

#include "any_model.h"

enum { MODELS = 6, TEXT = 40 };
static struct {
    u8 *file;
    megabyte_model *model;
    megabyte_engine *engine;
    megabyte_stream *stream[4]; /* two of the model's context, two of the shortest */
    u32 vocabulary;
} of[MODELS];
static const char text[] = "It was a dark and stormy night; the rain fell in torrents.";

/* Guesses what was said before, and then more than it may. */
static size_t guess(void *context, u64 position, const u8 *before, size_t n, u8 *bytes,
                    size_t most) {
    (void)context, (void)position;
    for (size_t i = 0; i < most; i++) bytes[i] = n > i ? before[n - 1 - i] : 'x';
    return most;
}

/* Some have help in guessing: from a function, or another model whose vocabulary is as large. */
static void make_streams(u32 i) {
    for (int k = 0; k < 4; k++) {
        megabyte_stream_options o = {.engine = of[i].engine};
        o.context = k > 1 ? 2 * of[i].model->stage[0].bytes : 0;
        if (o.context > of[i].model->stage[0].bytes * of[i].model->sizes.stage[0].positions)
            o.context = 0;
        for (u32 j = 0; j < MODELS && k % 2 == 0 && i % 2; j++)
            if (j != i && of[j].vocabulary >= of[i].vocabulary) o.draft_engine = of[j].engine;
        if (k % 2 == 0 && !o.draft_engine && i % 4 == 0) o.draft = guess;
        MUST(!megabyte_stream_create(&of[i].stream[k], of[i].model, &o, NULL, NULL));
    }
}

static void set_up(void) {
    u64 seed = 100;
    for (u32 i = 0; i < MODELS; i++) {
        size_t size;
        of[i].file = small_model(1 + i % 5, 256, 20000, &seed, &size);
        MUST(of[i].file);
        MUST(!megabyte_model_open_memory(&of[i].model, of[i].file, size, NULL, NULL));
        MUST(!megabyte_engine_create(&of[i].engine, of[i].model, NULL, NULL, NULL));
        of[i].vocabulary = of[i].model->sizes.vocabulary;
    }
    for (u32 i = 0; i < MODELS; i++) make_streams(i);
}

static void check(const megabyte_stream *s, u32 vocabulary) {
    const float *x = megabyte_stream_logits(s);
    for (u32 i = 0; i < vocabulary; i++) MUST(x[i] - x[i] == 0);
}

/* ---- what is done with a stream that was loaded */

static void generate(megabyte_stream *s) {
    megabyte_sampling how = {.temperature = (float)pick(3) / 2,
                             .top_k = (u32)pick(5),
                             .repetition_penalty = (float)pick(3),
                             .seed = 1};
    u8 out[TEXT];
    size_t n = (size_t)pick(TEXT), got;
    status r = megabyte_stream_generate(s, &how, out, n, &got, NULL, NULL);
    MUST((!r && got == n) || (r == MEGABYTE_END && got < n));
}

static void message(megabyte_stream *s, megabyte_stream *t) {
    u8 coded[TEXT + 16], out[TEXT];
    size_t n, n_coded, got;
    const u8 *bytes = pick_bytes(TEXT, &n);
    MUST(!megabyte_stream_copy(t, s));
    MUST(!megabyte_stream_encode(s, bytes, n, coded, sizeof coded, &n_coded));
    MUST(!megabyte_stream_decode(t, coded, n_coded, out, sizeof out, &got));
    MUST(got == n && (!n || !memcmp(out, bytes, n)));
}

/* Saved again it is what it will be from then on: what was not a number has become one. */
static void save_again(megabyte_stream *s, megabyte_stream *t) {
    size_t size = megabyte_stream_save_size(s);
    u8 *a = (u8 *)malloc(size), *b = (u8 *)malloc(size);
    MUST(a && b && !megabyte_stream_save(s, a, size) && !megabyte_stream_load(t, a, size));
    MUST(megabyte_stream_save_size(t) == size && !megabyte_stream_save(t, b, size));
    MUST(!memcmp(a, b, size));
    free(a), free(b);
}

static void operate(u32 i, megabyte_stream *s, megabyte_stream *t) {
    u64 position = megabyte_stream_position(s);
    float *rows;
    double bits = 0;
    size_t n = 0;
    const u8 *bytes = (const u8 *)text;
    status r;
    switch (pick(8)) {
    case 0:
        bytes = pick_bytes(TEXT, &n);
        MUST(!megabyte_stream_feed(s, bytes, n));
        break;
    case 1: MUST(!megabyte_stream_step(s, (u8)pick(256))); break;
    case 2:
        bytes = pick_bytes(TEXT, &n);
        rows = (float *)malloc((n + 1) * of[i].vocabulary * sizeof *rows);
        MUST(rows && !megabyte_stream_score(s, bytes, n, &bits, rows));
        for (size_t k = 0; k < n * of[i].vocabulary; k++) MUST(rows[k] - rows[k] == 0);
        MUST(bits - bits == 0 && bits >= 0);
        free(rows);
        break;
    case 3:
        n = (size_t)pick(position + 2);
        r = megabyte_stream_rewind(s, pick(2) ? n : position - pick(position < 20 ? 1 : 20));
        MUST(!r || r == MEGABYTE_ERROR_CAPACITY || r == MEGABYTE_ERROR_INVALID_ARGUMENT);
        break;
    case 4: generate(s); break;
    case 5: message(s, t); break;
    case 6: save_again(s, t); break;
    default:
        MUST(!megabyte_stream_copy(t, s));
        MUST(!megabyte_stream_step_batch((megabyte_stream *[]){s, t}, bytes, 2));
    }
    check(s, of[i].vocabulary);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    if (!of[0].model) set_up();
    if (size < 1) return 0;
    u32 i = input[0] % MODELS;
    int k = input[0] / MODELS % 2, mend = input[0] / MODELS / 2 % 2;
    megabyte_stream *s = of[i].stream[2 * k], *t = of[i].stream[2 * k + 1];
    size_t n = --size;
    input++;
    if (size >= STATE_HEADER && get64(input + 32) < size) n = (size_t)get64(input + 32);
    u8 *saved = own_copy(input, n);
    if (mend && n >= STATE_HEADER + 8) {
        memcpy(saved + 16, of[i].model->id, 16);
        put64(saved + 40, s->patches);
        put64(saved + 32, n);
        put64(saved + n - 8, checksum_of(saved, n - 8));
    }
    megabyte_stream_reset(s);
    MUST(!megabyte_stream_feed(s, text, 7));
    float *before = (float *)own_copy(megabyte_stream_logits(s), of[i].vocabulary * sizeof(float));
    status r = megabyte_stream_load(s, saved, n);
    free(saved);
    if (r) {
        MUST(megabyte_stream_position(s) == 7);
        MUST(!memcmp(before, megabyte_stream_logits(s), of[i].vocabulary * sizeof(float)));
        MUST(!megabyte_stream_feed(s, text + 7, 3));
        tally("refused");
    } else {
        tally("loaded");
        check(s, of[i].vocabulary);
        static const u8 usual[] = "\6\0\5hello\1x\3\0\7\3\1\4\4\1\0\0\20\5\4okay\7\2\3yes\6";
        pick_from(input + n, size - n);
        if (!picks_left) pick_from(usual, sizeof usual - 1);
        for (int turn = 0; picks_left && turn < 40; turn++) operate(i, s, t);
    }
    free(before);
    return 0;
}

#ifdef STANDALONE
static void make_seeds(void) {
    static u8 seed[1 << 20];
    set_up();
    for (u32 j = 0; j < 4 * MODELS; j++) {
        u32 i = j % MODELS, k = j / MODELS % 2;
        megabyte_stream *s = of[i].stream[2 * k];
        megabyte_stream_reset(s);
        for (u32 at = 0; at < j * j / 4; at++)
            MUST(!megabyte_stream_step(s, (u8)text[at * 7 % (sizeof text - 1)]));
        size_t n = megabyte_stream_save_size(s);
        MUST(n < sizeof seed);
        seed[0] = (u8)(i + MODELS * (k + 2));
        MUST(!megabyte_stream_save(s, seed + 1, n));
        add_seed(seed, 1 + n);
    }
}
#endif
