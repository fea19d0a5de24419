/* samples.c - mbrun compress and sound: the mu-law samples of a WAV, AU or raw file are compressed
 * by the model of sound, in blocks of their own; what lies around them is in other blocks of the
 * same .mbz file, which is like any other. SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "compress.h"
#include "sound.h"

#include <stdlib.h>
#include <string.h>

#define TRIAL 16384 /* bytes from the middle that tell what a model is good for */

/* The samples of a file, or of its beginning. Returns 1, or 0: it holds none that are mu-law. */
static int find_samples(const job *j, const uint8_t *data, size_t n, uint32_t rate, sound *s) {
    char why[256];
    if (!sound_format_of(data, n) || j->z->as) {
        *s = raw_sound(n, rate);
        return n && (j->z->as || sound_format_named(base_name(j->name)) == SOUND_RAW);
    }
    return find_sound(s, data, n, why) && s->coding == SOUND_MULAW && s->n;
}

int is_mulaw(const job *j) {
    sound s;
    if (j->z->dictionary_file || j->z->file_type) return 0;
    size_t n = look_ahead(j, j->z->input, PIECE);
    return n && find_samples(j, j->z->input, n, 8000, &s) && s.n >= n - n / 8;
}

/* The whole file, if it holds samples. */
static int read_sound(const job *j, bytes *file) {
    sound s;
    size_t n = look_ahead(j, j->z->input, PIECE);
    return n && find_samples(j, j->z->input, n, 8000, &s) && read_ahead(j, file);
}

/* Takes what the codec has to give. */
static megabyte_status pull(job *j, megabyte_codec *codec, bytes *out) {
    megabyte_status status;
    size_t n;
    do {
        status = megabyte_codec_pull(codec, j->z->result, PIECE, &n);
        if (!status) append(out, j->z->result, n);
    } while (!status && n);
    return status;
}

/* What lies before the samples, they themselves and what lies behind them, each in blocks of its
 * own. */
static megabyte_status compress_parts(job *j, megabyte_codec *codec, const bytes *file,
                                      const sound *s, bytes *out) {
    const size_t ends[] = {s->offset, s->offset + s->n, file->n};
    megabyte_status status = MEGABYTE_OK;
    for (size_t i = 0, at = 0, consumed = 0; !status && i < COUNT_OF(ends); i++) {
        while (!status && at < ends[i]) {
            status = megabyte_codec_push(codec, file->data + at, ends[i] - at, &consumed);
            at += consumed;
            if (!status && at < ends[i]) status = pull(j, codec, out);
        }
        if (at == file->n) megabyte_codec_finish(codec);
        else megabyte_codec_flush(codec);
        if (!status) status = pull(j, codec, out);
    }
    return status;
}

/* Bytes without a model: by contexts, or as they are where a level has none. */
static uint64_t size_by_contexts(job *j, const uint8_t *data, size_t n) {
    return j->z->level == 5 ? n : size_without(j, &j->z->s, data, n, 4);
}

/* Before all of it is packed. Files of another rate or of several channels fail here. */
static int is_promising(job *j, const session *model, const uint8_t *trial, size_t n) {
    return size_without(j, model, trial, n, 0) < size_by_contexts(j, trial, n);
}

/* Is it smaller so? Contexts alone take a second for some hundred kilobytes and tell in most cases;
 * what the text model adds to them is told by a trial, or found out. */
static int is_gain(job *j, const bytes *file, const uint8_t *trial, size_t n_trial,
                   uint64_t packed) {
    const session *s = &j->z->s;
    uint64_t quick = size_by_contexts(j, file->data, file->n);
    if (j->z->level != 5) {
        if (quick <= packed) return 0;
        if (quick / 3 > packed / 2) return 1;
    }
    if (n_trial && !stop_requested()) {
        double part = (double)size_without(j, s, trial, n_trial, 0) /
                      (double)size_by_contexts(j, trial, n_trial);
        if ((double)packed < 0.98 * part * (double)quick) return 1;
    }
    return !stop_requested() && size_without(j, s, file->data, file->n, 0) > packed;
}

/* Packs, compares and writes. */
static int pack_samples(job *j, const session *model, const bytes *file, const sound *s,
                        int *is_done) {
    zipper *z = j->z;
    const size_t n_trial = s->n > 2 * TRIAL ? TRIAL : 0;
    const uint8_t *trial = file->data + s->offset + (s->n - n_trial) / 2;
    megabyte_codec *codec;
    megabyte_statistics counts;
    megabyte_error error;
    bytes out = {.n = 0};
    char why[256];
    size_t size;
    megabyte_codec_options o = options_for_compressing(j, model);
    o.contents = MEGABYTE_CONTENTS_MULAW;
    if (megabyte_codec_size(model->model, MEGABYTE_MODE_COMPRESS, &o, &size) ||
        !memory_suffices(model, "", size + 3 * (uint64_t)file->n, why))
        return 1;
    if (n_trial && !is_promising(j, model, trial, n_trial)) return !stop_requested();
    megabyte_status status = megabyte_codec_create(&codec, model->model, MEGABYTE_MODE_COMPRESS, &o,
                                                   NULL, &error);
    if (status) return packing_failed(j, status, &error);
    j->expected = file->n;
    status = compress_parts(j, codec, file, s, &out);
    if (status) packing_failed(j, status, megabyte_codec_error(codec));
    megabyte_codec_statistics(codec, &counts);
    megabyte_codec_free(codec);
    int good = !status && !stop_requested();
    if (good && is_gain(j, file, trial, n_trial, out.n)) {
        end_progress(&z->bar);
        *is_done = 1;
        j->bytes_in = file->n;
        j->counts = counts;
        j->sounds = 1;
        if (z->writes && !create_output(&j->to)) good = complain(j->to.path, "%s", j->to.why);
        good = good && write_out(j, out.data, out.n);
    }
    free(out.data);
    return good && !stop_requested();
}

int pack_sound(job *j, int *is_done) {
    zipper *z = j->z;
    bytes file = {.n = 0};
    sound s;
    int good = 1;
    *is_done = 0;
    if (z->shared.model || !may_have_payload(z)) return 1;
    if (z->as && !is_regular(j))
        return complain(j->name, "--as needs a regular file; of a pipe, -m audio compresses all");
    if (read_sound(j, &file)) {
        const session *model = model_beside(z, "audio");
        uint32_t rate = model ? audio_rate(model) : 0;
        if (z->as && !rate) good = complain(j->name, "--as %s: no model audio.mb was found", z->as);
        if (rate && find_samples(j, file.data, file.n, rate, &s)) {
            z->bar = (progress){.start = now()};
            good = pack_samples(j, model, &file, &s, is_done);
            j->seconds = now() - z->bar.start;
            end_progress(&z->bar);
        }
    }
    free(file.data);
    return good;
}
