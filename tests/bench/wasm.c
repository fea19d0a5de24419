/* wasm.c - bytes per second of one thread: scoring, writing, compressing. The same program natively
 * and as WebAssembly: tests/bench/wasm.sh.
 *
 *     wasm ISA MODEL.mb TEXT */
#include "../test.h"

#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void compress(const megabyte_model *model, megabyte_engine *engine, int level,
                     const uint8_t *text, size_t n) {
    uint8_t *out = need(megabyte_compress_bound(n), 1);
    megabyte_codec_options options = {.engine = engine, .level = level, .size = n};
    size_t coded;
    OK(megabyte_compress(model, &options, text, n, out, megabyte_compress_bound(n), &coded, NULL,
                         NULL));
    free(out);
}

int main(int argc, char **argv) {
    CHECK(argc == 4, "usage: wasm ISA MODEL.mb TEXT");
    megabyte_isa isa = MEGABYTE_ISA_AUTO;
    for (int i = 0; strcmp(megabyte_isa_name((megabyte_isa)i), "?"); i++)
        if (!strcmp(argv[1], megabyte_isa_name((megabyte_isa)i))) isa = (megabyte_isa)i;
    size_t n;
    uint8_t *text = read_file(argv[3], &n);
    CHECK(n >= 16384, "a text of 16 KB is needed");
    megabyte_model *model = open_model(argv[2]);
    megabyte_engine *engine = new_engine(model, 1, 0, isa);
    megabyte_stream *stream = new_stream(model, engine, 0);
    static const char *const names[] = {"score", "write", "compress -7", "compress -1"};
    for (int what = 0; what < 4; what++) {
        double best = 1e9;
        size_t bytes = what == 3 ? 16384 : what == 1 ? 128 : 512;
        for (int i = -1; i < 3; i++) { /* one to warm up: node compiles twice */
            double bits = 0;
            megabyte_stream_reset(stream);
            if (what == 1) OK(megabyte_stream_feed(stream, text, 64));
            double from = now();
            if (what == 0) OK(megabyte_stream_score(stream, text, bytes, &bits, NULL));
            if (what == 1)
                for (size_t j = 0; j < bytes; j++) OK(megabyte_stream_step(stream, text[j]));
            if (what > 1) compress(model, engine, what == 2 ? 7 : 1, text, bytes);
            double took = now() - from;
            if (i >= 0 && took < best) best = took;
        }
        printf("%.0f %s\n", (double)bytes / best, names[what]);
    }
    megabyte_stream_free(stream);
    megabyte_engine_free(engine);
    megabyte_model_close(model);
    free(text);
    return 0;
}
