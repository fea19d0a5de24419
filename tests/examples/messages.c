/* messages.c - short records, each compressed by itself and readable by itself: what a database
 * cell, a queue or a packet holds. Both sides have a dictionary: text that is like the records; and
 * the model, or none (-): then context mixing alone codes each in a fraction of a millisecond.
 * Every line of standard input is a record.
 *
 *     cc -O2 messages.c megabyte.c -lm && ./a.out text.mb typical.log <new.log
 *
 * SPDX-License-Identifier: MIT */
#include "megabyte.h"
#include <stdio.h>
#include <string.h>

enum { RECORD = 1000 }; /* bytes of the longest */

static int failed(const char *what, const megabyte_codec *codec, megabyte_status status) {
    if (status) fprintf(stderr, "%s: %s\n", what, megabyte_codec_error(codec)->text);
    return status != MEGABYTE_OK;
}

int main(int argc, char **argv) {
    static uint8_t dictionary[65536], code[RECORD + 16]; /* megabyte_message_bound(RECORD) */
    char record[RECORD + 2], back[RECORD];
    size_t n_code, n_back, records = 0, bytes = 0, coded = 0;
    megabyte_model *model = NULL;
    megabyte_codec *writer, *reader;
    megabyte_error error;
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    if (!file) return fprintf(stderr, "usage: messages MODEL|- DICTIONARY\n"), 2;
    int alone = !strcmp(argv[1], "-");

    /* A model reads a dictionary at some 10 KB a second, contexts alone at a megabyte: they can
     * have more of it. */
    megabyte_codec_options options = {.level = alone ? 1 : 7,
                                      .dictionary = dictionary,
                                      .room = 512, /* in the model's context, for each record */
                                      .limit = RECORD};
    options.dictionary_size = fread(dictionary, 1, alone ? sizeof dictionary : 4096, file);
    fclose(file);
    if ((!alone && megabyte_model_open(&model, argv[1], NULL, &error)) ||
        megabyte_codec_create(&writer, model, MEGABYTE_MODE_MESSAGES, &options, NULL, &error))
        return fprintf(stderr, "%s\n", error.text), 1;

    /* Another thread would have a codec of its own, with the same dictionary, read just once. */
    megabyte_codec_options same = {
        .level = options.level, .limit = RECORD, .dictionary_of = writer};
    if (megabyte_codec_create(&reader, model, MEGABYTE_MODE_MESSAGES, &same, NULL, &error))
        return fprintf(stderr, "%s\n", error.text), 1;

    while (fgets(record, sizeof record, stdin)) {
        size_t n = strcspn(record, "\n");
        if (failed("encode", writer,
                   megabyte_codec_encode(writer, record, n, code, sizeof code, &n_code)))
            return 1;
        /* Codes from elsewhere may be damaged: the limit bounds what they claim, and a checksum
         * belongs to them where the transport has none. This is how much room one needs. */
        if (megabyte_message_length(code, n_code, RECORD, &n_back) || n_back != n) return 1;
        if (failed("decode", reader,
                   megabyte_codec_decode(reader, code, n_code, back, RECORD, &n_back)))
            return 1;
        if (n_back != n || memcmp(record, back, n)) return fprintf(stderr, "differs\n"), 1;
        records++;
        bytes += n;
        coded += n_code;
    }
    printf("%zu records, %zu bytes -> %zu bytes\n", records, bytes, coded);
    megabyte_codec_free(reader);
    megabyte_codec_free(writer);
    megabyte_model_close(model);
    return 0;
}
