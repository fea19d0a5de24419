/* messages.c - short records, each compressed by itself and readable by itself: what a database
 * cell, a queue or a packet holds. Both sides have the model and a dictionary: text that is like
 * the records. Every line of standard input is a record.
 *
 *     cc -O2 messages.c megabyte.c -lm && ./a.out text.mb typical.log <new.log
 *
 * SPDX-License-Identifier: MIT */
#include "megabyte.h"
#include <stdio.h>
#include <string.h>

enum { RECORD = 1000 }; /* bytes of the longest */

static int failed(const char *what, megabyte_status status) {
    if (status) fprintf(stderr, "%s: %s\n", what, megabyte_status_string(status));
    return status != MEGABYTE_OK;
}

int main(int argc, char **argv) {
    static uint8_t dictionary[4096], code[RECORD + 16]; /* megabyte_message_bound(RECORD) */
    char record[RECORD + 2], back[RECORD];
    size_t n_code, n_back, records = 0, bytes = 0, coded = 0;
    megabyte_model *model;
    megabyte_codec *codec;
    megabyte_error error;
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    if (!file) return fprintf(stderr, "usage: messages MODEL DICTIONARY\n"), 2;

    megabyte_codec_options options = {.level = 7, .dictionary = dictionary};
    options.dictionary_size = fread(dictionary, 1, sizeof dictionary, file);
    fclose(file);
    if (megabyte_model_open(&model, argv[1], NULL, &error) ||
        megabyte_codec_create(&codec, model, MEGABYTE_MODE_MESSAGES, &options, NULL, &error))
        return fprintf(stderr, "%s\n", error.text), 1;

    while (fgets(record, sizeof record, stdin)) {
        size_t n = strcspn(record, "\n");
        if (failed("encode", megabyte_codec_encode(codec, record, n, code, sizeof code, &n_code)))
            return 1;
        /* Codes from elsewhere may be damaged: the capacity is what bounds a record's length, and a
         * checksum belongs to them where the transport has none. */
        if (failed("decode", megabyte_codec_decode(codec, code, n_code, back, RECORD, &n_back)))
            return 1;
        if (n_back != n || memcmp(record, back, n)) return fprintf(stderr, "differs\n"), 1;
        records++;
        bytes += n;
        coded += n_code;
    }
    printf("%zu records, %zu bytes -> %zu bytes\n", records, bytes, coded);
    megabyte_codec_free(codec);
    megabyte_model_close(model);
    return 0;
}
