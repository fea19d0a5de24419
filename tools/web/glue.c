/* glue.c - megabyte.c as a WebAssembly module for megabyte.mjs: one model, one stream and one codec
 * an instance, no structs across the border. Functions return a megabyte_status unless they say
 * otherwise; `web_error` is the text of the last failure. SPDX-License-Identifier: MIT */
#include "../../megabyte.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name))) name
#define IMPORT(name) __attribute__((import_module("page"), import_name(#name))) name

/* the page's: `bytes` are done; 1: stop */
extern int IMPORT(progress)(double bytes);

static megabyte_error error;
static megabyte_model *model;
static megabyte_engine *engine;
static megabyte_stream *stream;
static megabyte_codec *codec;
static megabyte_sampling sampling;
static size_t count; /* what the last call has consumed, produced or written */

static int failed(megabyte_status status) { /* of a call that gives no text */
    error.status = status;
    strcpy(error.text, megabyte_status_string(status));
    return status;
}

const char *EXPORT(web_error)(void) { return error.text; }
size_t EXPORT(web_count)(void) { return count; }
void *EXPORT(web_alloc)(size_t n) { return aligned_alloc(64, (n + 127) / 64 * 64); }
void EXPORT(web_free)(void *p) { free(p); }

/* data: from web_alloc, the instance's from now on */
int EXPORT(web_open)(const void *data, size_t n) {
    if (megabyte_model_open_memory(&model, data, n, NULL, &error) ||
        megabyte_model_verify(model, &error) ||
        megabyte_engine_create(&engine, model, NULL, NULL, &error))
        return error.status;
    megabyte_stream_options options = {.engine = engine};
    return megabyte_stream_create(&stream, model, &options, NULL, &error);
}

const char *EXPORT(web_metadata)(const char *key) { return megabyte_model_metadata(model, key); }

/* which: 0 vocabulary, 1 bytes of context, 2 parameters, 3 bytes of the file, 4 instruction set */
double EXPORT(web_info)(int which) {
    megabyte_info info;
    megabyte_model_describe(model, &info);
    switch (which) {
    case 0: return info.vocabulary;
    case 1: return (double)info.context_bytes;
    case 2: return (double)info.parameters;
    case 3: return (double)info.file_bytes;
    default: return megabyte_engine_isa(engine);
    }
}

void EXPORT(web_reset)(void) { megabyte_stream_reset(stream); }
int EXPORT(web_feed)(const void *bytes, size_t n) {
    return failed(megabyte_stream_feed(stream, bytes, n));
}
int EXPORT(web_score)(const void *bytes, size_t n, float *bits) {
    return failed(megabyte_stream_score_bytes(stream, bytes, n, bits));
}
void EXPORT(web_sampling)(float temperature, uint32_t top_k, float top_p, float min_p,
                          float repetition_penalty, uint32_t seed_low, uint32_t seed_high) {
    sampling = (megabyte_sampling){.temperature = temperature,
                                   .top_k = top_k,
                                   .top_p = top_p,
                                   .min_p = min_p,
                                   .repetition_penalty = repetition_penalty,
                                   .seed = (uint64_t)seed_high << 32 | seed_low};
}
/* MEGABYTE_END, a positive status: the model ends the text. Count: bytes written. */
int EXPORT(web_generate)(uint8_t *out, size_t n) {
    count = 0;
    return failed(megabyte_stream_generate(stream, &sampling, out, n, &count, NULL, NULL));
}

static int tell(void *context, uint64_t bytes) {
    (void)context;
    return progress((double)bytes);
}

static int begin(megabyte_mode mode, megabyte_codec_options options) {
    options.engine = engine;
    options.progress = tell;
    megabyte_codec_free(codec);
    codec = NULL;
    return megabyte_codec_create(&codec, model, mode, &options, NULL, &error);
}
int EXPORT(web_encode)(double size, int level) {
    return begin(MEGABYTE_MODE_COMPRESS,
                 (megabyte_codec_options){.size = (uint64_t)size, .level = level});
}
/* file[n]: its beginning, which says how much memory it takes. limit: bytes, 0: any; below 0: as
 * many as honest files of this size are likely to have (max_ratio). */
int EXPORT(web_decode)(const void *file, size_t n, double limit) {
    megabyte_file_header h;
    megabyte_codec_options options = {.limit = limit < 0 ? 0 : (uint64_t)limit,
                                      .max_ratio = limit < 0 ? 1024 : 0};
    if (megabyte_file_header_read(file, n, &h, &error)) return error.status;
    if (h.mixing_memory > 16) options.mixing_memory = h.mixing_memory;
    if (h.block_size > MEGABYTE_BLOCK_DEFAULT) options.block_size = h.block_size;
    options.ensemble = h.ensemble;
    return begin(MEGABYTE_MODE_DECOMPRESS, options);
}
static int codec_status(megabyte_status status) {
    error = *megabyte_codec_error(codec);
    return status && error.status != status ? failed(status) : status;
}
int EXPORT(web_push)(const void *bytes, size_t n) { /* count: bytes consumed */
    return codec_status(megabyte_codec_push(codec, bytes, n, &count));
}
int EXPORT(web_finish)(void) { return codec_status(megabyte_codec_finish(codec)); }
int EXPORT(web_pull)(void *bytes, size_t n) { /* count: bytes produced */
    return codec_status(megabyte_codec_pull(codec, bytes, n, &count));
}
void EXPORT(web_end)(void) {
    megabyte_codec_free(codec);
    codec = NULL;
}
