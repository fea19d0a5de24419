/* fuzz_model.c - libFuzzer's way in: any bytes as a model file, with their checksums put right, so
 * that everything behind these is reached. .ci/run starts it from small valid models, under ASan
 * and UBSan. By hand:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_model.c -o fuzz -lm -pthread
 *     ./fuzz -max_total_time=60 FOLDER_OF_MODELS */
#include "../megabyte.c"

#define MUST(condition)                                      \
    do {                                                     \
        if (!(condition)) {                                  \
            fprintf(stderr, "fuzz_model: %s\n", #condition); \
            abort();                                         \
        }                                                    \
    } while (0)

static void all_finite(const megabyte_stream *s, uint32_t v) {
    const float *x = megabyte_stream_logits(s);
    for (uint32_t i = 0; i < v; i++) MUST(x[i] - x[i] == 0);
}

static void use(megabyte_model *model, megabyte_isa isa) {
    static const char text[] = "It was a dark and stormy night";
    megabyte_info info;
    megabyte_error error;
    megabyte_engine_options with = {.threads = 1, .batch = 3, .isa = isa};
    megabyte_engine *engine = NULL;
    megabyte_stream *a = NULL, *b = NULL;
    size_t size = 0, n = sizeof text - 1;
    double bits = 0;
    megabyte_model_describe(model, &info);
    MUST(megabyte_model_verify(model, &error) == MEGABYTE_OK); /* its checksum was put right */
    if (megabyte_engine_size(model, &with, &size) || size > 64 << 20) return;
    MUST(megabyte_engine_create(&engine, model, &with, NULL, &error) == MEGABYTE_OK);
    megabyte_stream_options on = {engine, 2 * (uint64_t)info.patch_bytes, NULL};
    if (on.context > info.context_bytes) on.context = info.context_bytes;
    if (!megabyte_stream_size(model, &on, &size) && size <= 64 << 20) {
        MUST(megabyte_stream_create(&a, model, &on, NULL, &error) == MEGABYTE_OK);
        MUST(megabyte_stream_create(&b, model, &on, NULL, &error) == MEGABYTE_OK);
        all_finite(a, info.vocabulary);
        if (!megabyte_stream_feed(a, text, n)) all_finite(a, info.vocabulary);
        if (!megabyte_stream_score(a, text, n / 2, &bits, NULL)) MUST(bits - bits == 0);
        all_finite(a, info.vocabulary);
        u8 *saved = (u8 *)malloc(size = megabyte_stream_save_size(a));
        MUST(saved && megabyte_stream_save(a, saved, size) == MEGABYTE_OK);
        MUST(megabyte_stream_load(b, saved, size) == MEGABYTE_OK);
        MUST(!memcmp(megabyte_stream_logits(a), megabyte_stream_logits(b),
                     info.vocabulary * sizeof(float)));
        free(saved);
    }
    megabyte_stream_free(b);
    megabyte_stream_free(a);
    megabyte_engine_free(engine);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    megabyte_model *model = NULL;
    megabyte_error error;
    u8 *file = (u8 *)aligned_alloc(ALIGN, (size_t)round_up(size + !size, ALIGN));
    MUST(file);
    memcpy(file, input, size);
    if (size >= HEADER_BYTES) {
        u64 data = get64(file + 24);
        if (data >= HEADER_BYTES && data <= size) {
            sha256(file + data, size - data, NULL, 0, file + 64);
            sha256(file, 96, file + HEADER_BYTES, data - HEADER_BYTES, file + 96);
        }
    }
    if (!megabyte_model_open_memory(&model, file, size, NULL, &error))
        use(model, size % 128 ? MEGABYTE_ISA_PLAIN : MEGABYTE_ISA_AUTO);
    megabyte_model_close(model);
    free(file);
    return 0;
}
