/* sqlite.c - an SQLite extension: mb_encode(dictionary, value) and mb_decode(dictionary, code) for
 * rows that take few bytes and are read one by one. Dictionaries are rows of megabyte_dictionary,
 * one for each table, say; they must stay as they are while codes made with them are kept.
 *
 *     cc -O2 -shared -fPIC -fvisibility=hidden sqlite.c megabyte.c -lm -o megabyte_sqlite.so
 *     MEGABYTE_MODEL=text.mb sqlite3 logs.db '.load ./megabyte_sqlite' ...
 *     CREATE TABLE megabyte_dictionary(name TEXT PRIMARY KEY, bytes);
 *     INSERT INTO megabyte_dictionary SELECT 'log', group_concat(line || x'0a', '') FROM sample;
 *     INSERT INTO log SELECT mb_encode('log', line) FROM new;
 *     SELECT mb_decode('log', code) FROM log;
 *
 * SPDX-License-Identifier: MIT */
#include "megabyte.h"
#include <sqlite3ext.h>
#include <stdlib.h>
SQLITE_EXTENSION_INIT1

enum { LONGEST = 1 << 20 };
static void free_codec(void *codec) { megabyte_codec_free(codec); }
static void close_model(void *model) { megabyte_model_close(model); }

/* The codec with a dictionary. SQLite keeps it while a statement runs, if the name is constant. */
static megabyte_codec *find_codec(sqlite3_context *context, sqlite3_value *name) {
    megabyte_codec *codec = sqlite3_get_auxdata(context, 0);
    megabyte_codec_options options = {.level = 7, .room = 512, .limit = LONGEST};
    megabyte_error error = {.text = "megabyte_dictionary has no such name"};
    sqlite3_stmt *query = NULL;
    if (codec) return codec;
    if (!sqlite3_prepare_v2(sqlite3_context_db_handle(context),
                            "SELECT bytes FROM megabyte_dictionary WHERE name = ?", -1, &query,
                            NULL) &&
        !sqlite3_bind_value(query, 1, name) && sqlite3_step(query) == SQLITE_ROW) {
        options.dictionary = sqlite3_column_blob(query, 0);
        options.dictionary_size = (size_t)sqlite3_column_bytes(query, 0);
        megabyte_codec_create(&codec, sqlite3_user_data(context), MEGABYTE_MODE_MESSAGES, &options,
                              NULL, &error);
    }
    sqlite3_finalize(query);
    if (!codec) return sqlite3_result_error(context, error.text, -1), NULL;
    sqlite3_set_auxdata(context, 0, codec, free_codec);
    return sqlite3_get_auxdata(context, 0); /* NULL if there was no memory for that */
}

static void convert(sqlite3_context *context, sqlite3_value **values, int decode) {
    if (sqlite3_value_type(values[1]) == SQLITE_NULL) return;
    megabyte_codec *codec = find_codec(context, values[0]);
    if (!codec) return;
    const void *in = sqlite3_value_blob(values[1]);
    size_t n = (size_t)sqlite3_value_bytes(values[1]), n_out = 0;
    size_t capacity = decode ? LONGEST : megabyte_message_bound(n);
    void *out = n <= (decode ? megabyte_message_bound(LONGEST) : LONGEST) ? malloc(capacity) : NULL;
    if (!out) return sqlite3_result_error_toobig(context);
    megabyte_status status = (decode ? megabyte_codec_decode
                                     : megabyte_codec_encode)(codec, in, n, out, capacity, &n_out);
    if (status) sqlite3_result_error(context, megabyte_codec_error(codec)->text, -1);
    else if (decode) sqlite3_result_text(context, out, (int)n_out, SQLITE_TRANSIENT);
    else sqlite3_result_blob(context, out, (int)n_out, SQLITE_TRANSIENT);
    free(out);
}
static void encode(sqlite3_context *c, int n, sqlite3_value **v) { (void)n, convert(c, v, 0); }
static void decode(sqlite3_context *c, int n, sqlite3_value **v) { (void)n, convert(c, v, 1); }

__attribute__((visibility("default"))) int sqlite3_megabytesqlite_init(
    sqlite3 *db, char **why, const sqlite3_api_routines *pApi) {
    static const char *const names[] = {"mb_encode", "mb_decode"};
    const char *path = getenv("MEGABYTE_MODEL");
    SQLITE_EXTENSION_INIT2(pApi);
    for (int i = 0; i < 2; i++) { /* each has the model: it is mapped, so this takes no memory */
        megabyte_model *model;
        megabyte_error error = {.text = "MEGABYTE_MODEL names no model"};
        if (!path || megabyte_model_open(&model, path, NULL, &error))
            return *why = sqlite3_mprintf("%s", error.text), SQLITE_ERROR;
        int failed = sqlite3_create_function_v2(db, names[i], 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
                                                model, i ? decode : encode, NULL, NULL,
                                                close_model);
        if (failed) return failed;
    }
    return SQLITE_OK;
}
