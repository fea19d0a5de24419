/* samples.c - mbrun compress and sound: the samples of a WAV, AU or raw file are compressed in
 * blocks of their own, mu-law by the model of sound, linear ones (PCM) by contexts made for them;
 * what lies around them is in other blocks of the same .mbz file, which is like any other.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "compress.h"
#include "sound.h"

#include <stdlib.h>
#include <string.h>

#define TRIAL 16384 /* bytes from the middle that tell what a model is good for */

/* ------------------------------------------------------------------------------------ contents */

static const struct {
    char name[8];
    megabyte_contents contents;
    uint32_t bits; /* of linear samples */
    int is_big;
} kinds[] = {
    {"mulaw", MEGABYTE_CONTENTS_MULAW, 0, 0},      {"u8", MEGABYTE_CONTENTS_PCM8, 8, 0},
    {"s16le", MEGABYTE_CONTENTS_PCM16, 16, 0},     {"s24le", MEGABYTE_CONTENTS_PCM24, 24, 0},
    {"s16be", MEGABYTE_CONTENTS_PCM16_BIG, 16, 1}, {"s24be", MEGABYTE_CONTENTS_PCM24_BIG, 24, 1}};

int contents_named(const char *text, megabyte_contents *contents, uint32_t *channels) {
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        size_t n = strlen(kinds[i].name);
        const char *rest = text + n;
        if (strncmp(text, kinds[i].name, n) || (*rest && *rest != ':')) continue;
        *contents = kinds[i].contents;
        *channels = kinds[i].bits ? 1 : 0;
        if (!*rest) return 1;
        *channels = (uint32_t)(rest[1] - '0');
        return kinds[i].bits && *channels >= 1 && *channels <= MEGABYTE_CHANNELS_MAX && !rest[2];
    }
    return 0;
}

const char *name_contents(const megabyte_file_header *h, char text[16]) {
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (kinds[i].contents == h->contents) {
            int n = snprintf(text, 16, "%s", kinds[i].name);
            if (h->channels > 1) snprintf(text + n, 16 - (size_t)n, ":%u", h->channels);
            return text;
        }
    return NULL;
}

/* Of a file's linear samples; GENERAL: there are no contexts for these. */
static megabyte_contents contents_of(const sound *s) {
    for (size_t i = 0; i < COUNT_OF(kinds); i++)
        if (s->coding == SOUND_PCM && s->channels <= MEGABYTE_CHANNELS_MAX &&
            kinds[i].bits == s->bits && kinds[i].is_big == (s->format == SOUND_AU))
            return kinds[i].contents;
    return MEGABYTE_CONTENTS_GENERAL;
}

static int find_linear(const uint8_t *data, size_t n, sound *s) {
    char why[256];
    return sound_format_of(data, n) && find_sound(s, data, n, why) && s->n &&
           contents_of(s) != MEGABYTE_CONTENTS_GENERAL;
}

/* ------------------------------------------------------------------------------------- packing */

/* The mu-law samples of a file, or of its beginning. Returns 1, or 0: it holds none. */
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

/* Is it smaller so? Levels 1 to 4 have nothing but contexts. At others contexts alone take a second
 * for some hundred kilobytes and tell in most cases; what the text model adds to them is told by a
 * trial, or found out. */
static int is_gain(job *j, const bytes *file, const uint8_t *trial, size_t n_trial,
                   uint64_t packed) {
    const session *s = &j->z->s;
    if (!j->z->needs_model) return size_without(j, s, file->data, file->n, 0) > packed;
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

/* Packs, compares and writes. Of linear samples, model is what others would use. */
static int pack_samples(job *j, const session *model, const bytes *file, const sound *s,
                        int *is_done) {
    zipper *z = j->z;
    const int is_linear = s->coding == SOUND_PCM;
    const size_t n_trial = s->n > 2 * TRIAL ? TRIAL : 0;
    const uint8_t *trial = file->data + s->offset + (s->n - n_trial) / 2;
    megabyte_codec *codec;
    megabyte_statistics counts;
    megabyte_error error;
    bytes out = {.n = 0};
    char why[256];
    size_t size;
    megabyte_codec_options o = options_for_compressing(j, model);
    o.contents = is_linear ? contents_of(s) : MEGABYTE_CONTENTS_MULAW;
    o.channels = s->channels;
    if (megabyte_codec_size(model->model, MEGABYTE_MODE_COMPRESS, &o, &size) ||
        !memory_suffices(model, "", size + 3 * (uint64_t)file->n, why))
        return 1;
    if (!is_linear && n_trial && !is_promising(j, model, trial, n_trial)) return !stop_requested();
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
        *(is_linear ? &j->linear : &j->sounds) = 1;
        if (z->writes && !create_output(&j->to)) good = complain(j->to.path, "%s", j->to.why);
        good = good && write_out(j, out.data, out.n);
    }
    free(out.data);
    return good && !stop_requested();
}

static int timed_packing(job *j, const session *model, const bytes *file, const sound *s,
                         int *is_done) {
    j->z->bar = (progress){.start = now()};
    int good = pack_samples(j, model, file, s, is_done);
    j->seconds = now() - j->z->bar.start;
    end_progress(&j->z->bar);
    return good;
}

static int pack_linear(job *j, int *is_done) {
    zipper *z = j->z;
    bytes file = {.n = 0};
    sound s;
    int good = 1;
    if (z->as || z->level == 5 || z->dictionary_file || z->file_type) return 1;
    size_t n = look_ahead(j, z->input, PIECE);
    if (n && find_linear(z->input, n, &s) && read_ahead(j, &file) &&
        find_linear(file.data, file.n, &s))
        good = timed_packing(j, &z->s, &file, &s, is_done);
    free(file.data);
    return good;
}

static int pack_mulaw(job *j, int *is_done) {
    zipper *z = j->z;
    bytes file = {.n = 0};
    sound s;
    int good = 1;
    if (z->shared.model || !may_have_payload(z) || !z->needs_model) return 1;
    if (z->as && !is_regular(j))
        return complain(j->name, "--as needs a regular file; of a pipe, -m audio compresses all");
    if (read_sound(j, &file)) {
        const session *model = model_beside(z, "audio");
        uint32_t rate = model ? audio_rate(model) : 0;
        if (z->as && !rate) good = complain(j->name, "--as %s: no model audio.mb was found", z->as);
        if (rate && find_samples(j, file.data, file.n, rate, &s))
            good = timed_packing(j, model, &file, &s, is_done);
    }
    free(file.data);
    return good;
}

int pack_sound(job *j, int *is_done) {
    *is_done = 0;
    return pack_mulaw(j, is_done) && (*is_done || pack_linear(j, is_done));
}
