/* fuzz_image.c - any bytes as a packed picture (.mbi), as they are and with the header's check made
 * anew, so that the decoder gets to see them. No crash, no hang. libFuzzer's way in:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_image.c -o fuzz -lm -pthread
 *     ./fuzz -max_total_time=60 -max_len=2000 FOLDER_OF_SEEDS
 *
 * With -DSTANDALONE, a program that spoils right files at random, COUNT times; with a FOLDER it
 * also leaves those files there, as seeds:
 *
 *     fuzz_image COUNT SEED [FOLDER] */
#define _POSIX_C_SOURCE 200809L
#define MEGABYTE_KEEP_OPTIONS
#include "../megabyte.c"
#include "random_model.h"
#include "test.h"

enum { MOST_SAMPLES = 3000, MOST_BYTES = 4000 };
static megabyte_model *model; /* RGB, tiles of 4 x 4 pixels, patches of 2 x 2 */
static megabyte_engine *engine;

static void begin(void) {
    static const char *const texts[] = {
        "image.tile", "4x4",          "image.patch",      "2x2",        "image.channels",
        "3",          "image.colour", "green-difference", "image.scan", "patch"};
    struct sizes z = random_sizes(4, 12, 16, 1, 2, 8, 16, 1, 2, 8);
    megabyte_error error;
    size_t size;
    (void)random_history;
    (void)random_model;
    u8 *file = random_model_with(&z, 1, texts, 5, &size, &error);
    OK(megabyte_model_open_memory(&model, file, size, NULL, &error));
    OK(megabyte_engine_create(&engine, model, NULL, NULL, &error));
}

static void decode(const u8 *data, size_t n) {
    megabyte_image_header h;
    megabyte_error error;
    if (megabyte_image_header_read(data, n, &h, &error)) {
        CHECK(error.text[0]);
        return;
    }
    CHECK(h.header_bytes <= n);
    if ((u64)h.width * h.height * h.channels > MOST_SAMPLES) return;
    megabyte_image_options o = {.engine = engine, .tiles = 16};
    megabyte_image p = {h.width, h.height, h.channels, (size_t)h.width * h.channels, NULL};
    p.pixels = need(p.row_bytes, h.height);
    megabyte_status status = megabyte_image_decode(model, &o, data, n, &p, NULL, &error);
    CHECK(status == error.status && (!status || error.text[0]));
    if (!status) { /* then it is the only file of this picture */
        u8 *again = need(megabyte_image_bound(p.width, p.height, p.channels) + h.layout_bytes, 1);
        size_t n_again;
        o.tiles = h.tiles;
        o.model_alone = h.model_alone;
        o.layout = data + h.layout_at;
        o.layout_bytes = h.layout_bytes;
        OK(megabyte_image_encode(model, &o, &p, again,
                                 MOST_SAMPLES + IMAGE_OVERHEAD + h.layout_bytes, &n_again, NULL,
                                 &error));
        CHECK(h.stored || n_again <= n);
        free(again);
    }
    free(p.pixels);
}

static void decode_any(const u8 *data, size_t n) {
    static u8 mended[MOST_BYTES];
    u8 digest[32];
    if (n > sizeof mended) return;
    decode(data, n);
    for (u32 head = 16; head + CHECK_BYTES <= n && head < 40; head++) { /* wherever it may end */
        memcpy(mended, data, n);
        sha256(mended, head, NULL, 0, digest);
        memcpy(mended + head, digest, CHECK_BYTES);
        decode(mended, n);
    }
}

#ifdef STANDALONE
int main(int argc, char **argv) {
    enum { FILES = 8 };
    static u8 file[FILES][MOST_BYTES], spoilt[MOST_BYTES];
    size_t n[FILES];
    if (argc < 3) return 2;
    begin();
    seed_random((u64)strtoull(argv[2], NULL, 10));
    for (u32 i = 0; i < FILES; i++) {
        megabyte_image p = {1 + i * 3, 9 - i, i % 3 ? 3 : 1, 90, NULL};
        megabyte_image_options o = {.engine = engine,
                                    .tiles = 1 + i,
                                    .model_alone = i & 1,
                                    .layout = "layout",
                                    .layout_bytes = i & 2 ? 6 : 0};
        megabyte_error error;
        p.pixels = need(p.height, p.row_bytes);
        for (u32 k = 0; k < p.height * 90; k++) p.pixels[k] = (u8)(k / 7 + random_below(4));
        OK(megabyte_image_encode(model, &o, &p, file[i], MOST_BYTES, &n[i], NULL, &error));
        decode(file[i], n[i]);
        free(p.pixels);
        if (argc > 3) {
            char path[512];
            snprintf(path, sizeof path, "%s/%u.mbi", argv[3], i);
            write_file(path, file[i], n[i]);
        }
    }
    for (long left = strtol(argv[1], NULL, 10); left > 0; left--) {
        u32 i = random_below(FILES), changes = 1 + random_below(3);
        size_t size = random_below(8) ? n[i] : random_below((u32)n[i] + 1);
        memcpy(spoilt, file[i], size);
        for (; changes && size; changes--)
            spoilt[random_below(random_below(2) ? (u32)min64(size, 32) : (u32)size)] =
                (u8)random_below(256);
        decode_any(spoilt, size);
    }
    printf("%s mutations: no crash\n", argv[1]);
    return 0;
}
#else
int LLVMFuzzerTestOneInput(const u8 *data, size_t n);
int LLVMFuzzerTestOneInput(const u8 *data, size_t n) {
    if (!model) begin();
    decode_any(data, n);
    return 0;
}
#endif
