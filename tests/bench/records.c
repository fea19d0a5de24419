/* records.c - how small single records become, each coded for itself after the same first bytes of
 * its file. Run by records.sh: records MODEL FILE BEGIN HOW_MANY DIRECTORY SAMPLE ROOM
 *   BEGIN      what every record begins with ("" for lines)
 *   SAMPLE     bytes of the dictionary; the records are from beyond MOST, whatever it is
 *   ROOM       megabyte_codec_options.room
 * Writes the sample and the records into DIRECTORY, for other compressors, and prints on one line:
 * records, their bytes, and for each way of `ways` what they come to as messages, and the
 * milliseconds to encode one. */
#define _POSIX_C_SOURCE 200809L
#include "../../megabyte.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST 65536
#define LONGEST 65536

static const struct {
    int level, dictionary, model;
} ways[] = {{5, 0, 1}, {5, 1, 1}, {1, 1, 0}, {7, 1, 1}};
enum { WAYS = sizeof ways / sizeof *ways };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static void fail(const char *what, const char *why) {
    fprintf(stderr, "records: %s: %s\n", what, why);
    exit(1);
}

static void save(const char *directory, const char *name, const uint8_t *bytes, size_t n) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) fail(path, "cannot be written");
}

/* Where the first record at or after `at` begins; n if there is none. */
static size_t next_record(const uint8_t *bytes, size_t n, size_t at, const char *begin) {
    size_t length = strlen(begin);
    for (; at + length <= n; at++)
        if (length ? !memcmp(bytes + at, begin, length) : !at || bytes[at - 1] == '\n') return at;
    return n;
}

int main(int argc, char **argv) {
    megabyte_model *model;
    megabyte_codec *codec[WAYS];
    megabyte_error error;
    if (argc != 8) fail("usage", "records MODEL FILE BEGIN HOW_MANY DIRECTORY SAMPLE ROOM");
    size_t n_wanted = strtoul(argv[4], NULL, 10), sample = strtoul(argv[6], NULL, 10);
    size_t size = 1 << 24;
    uint8_t *bytes = malloc(size);
    FILE *file = fopen(argv[2], "rb");
    if (!bytes || !file) fail(argv[2], "cannot be read");
    size_t n = fread(bytes, 1, size, file);
    fclose(file);
    if (n <= MOST + MOST / 4 || sample > MOST || !n_wanted) fail(argv[2], "too short");
    save(argv[5], "sample", bytes, sample);

    if (megabyte_model_open(&model, argv[1], NULL, &error)) fail(argv[1], error.text);
    for (int k = 0; k < WAYS; k++) {
        megabyte_codec_options o = {.level = ways[k].level,
                                    .room = (uint32_t)strtoul(argv[7], NULL, 10)};
        if (ways[k].dictionary) o.dictionary = bytes, o.dictionary_size = sample;
        if (megabyte_codec_create(&codec[k], ways[k].model ? model : NULL, MEGABYTE_MODE_MESSAGES,
                                  &o, NULL, &error))
            fail("codec", error.text);
    }
    size_t total = 0, coded[WAYS] = {0}, records = 0;
    double took[WAYS] = {0};
    for (size_t i = 0; i < n_wanted; i++) { /* from all parts of the file */
        static uint8_t code[LONGEST + 16], text[LONGEST];
        char name[32];
        size_t at = next_record(bytes, n, MOST + (n - MOST) / n_wanted * i, argv[3]);
        size_t end = next_record(bytes, n, at + 1, argv[3]), length = end - at;
        if (at >= n || end >= n || length > LONGEST) continue;
        for (int k = 0; k < WAYS; k++) {
            size_t n_code, n_text;
            double start = now();
            megabyte_status status = megabyte_codec_encode(codec[k], bytes + at, length, code,
                                                           sizeof code, &n_code);
            took[k] += now() - start;
            if (status ||
                megabyte_codec_decode(codec[k], code, n_code, text, sizeof text, &n_text) ||
                n_text != length || memcmp(text, bytes + at, length))
                fail(argv[2], "a record did not come back");
            coded[k] += n_code;
        }
        snprintf(name, sizeof name, "record-%04zu", records++);
        save(argv[5], name, bytes + at, length);
        total += length;
    }
    printf("%zu %zu", records, total);
    for (int k = 0; k < WAYS; k++) printf(" %zu %.2f", coded[k], took[k] / (double)records);
    putchar('\n');
    for (int k = 0; k < WAYS; k++) megabyte_codec_free(codec[k]);
    megabyte_model_close(model);
    free(bytes);
    return 0;
}
