/* recording.c - mbrun generate with an audio model: sound made, and recordings continued.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "mbrun.h"
#include "output.h"
#include "sound.h"

#include <stdlib.h>
#include <string.h>

typedef struct recording {
    const recording_options *o;
    uint32_t rate;
    bytes samples; /* what is given, then what is made */
    size_t given, expected; /* how many of them */
    progress bar;
} recording;

/* What is given must end as the model's training data sound: as mu-law of its rate. */
static void read_given(recording *r, const char *path) {
    bytes file = {0};
    char why[256];
    uint8_t *samples;
    sound s;
    read_file(path, &file);
    if (sound_format_of(file.data, file.n) || sound_format_named(path) != SOUND_RAW) {
        if (!find_sound(&s, file.data, file.n, why))
            die(path, "%s (raw mu-law needs a name in .ul)", why);
    } else {
        s = raw_sound(file.n, r->rate);
    }
    if (s.missing)
        note(path, "ends early: its header claims %llu bytes more", (unsigned long long)s.missing);
    if (!read_mulaw(&s, file.data, r->rate, &samples, &r->given, why)) die(path, "%s", why);
    free(file.data);
    append(&r->samples, samples, r->given);
    free(samples);
}

/* In pieces, so that Ctrl-C is noticed. */
static void feed_given(const recording *r, megabyte_stream *stream) {
    for (size_t done = 0; done < r->given && !stop_requested();) {
        size_t n = r->given - done < 4096 ? r->given - done : 4096;
        megabyte_status status = megabyte_stream_feed(stream, r->samples.data + done, n);
        if (status) die(r->o->given, "%s", megabyte_status_string(status));
        done += n;
    }
}

static int on_sample(void *context, uint8_t sample) {
    recording *r = context;
    char text[48];
    append(&r->samples, &sample, 1);
    size_t done = r->samples.n - r->given;
    if (done % 64 == 0) {
        snprintf(text, sizeof text, "%.1f of %.1f s", (double)done / r->rate,
                 (double)r->expected / r->rate);
        show_progress(&r->bar, done, r->expected, text, r->o->output);
    }
    return stop_requested();
}

/* Returns 1, or 0 after a message. */
static int write_recording(const recording *r, output *to) {
    const char *path = r->o->output;
    const size_t begin = r->o->no_echo ? r->given : 0;
    sound_format format = sound_format_named(path);
    char why[256];
    uint8_t *out;
    size_t n;
    if (!write_mulaw(format ? format : SOUND_WAV, r->rate, r->samples.data + begin,
                     r->samples.n - begin, &out, &n, why))
        return complain(path, "%s", why);
    int good = write_output(to, out, n);
    free(out);
    if (to->file == STDOUT_FILENO) return good || (output_failed(), 0);
    good = finish_output(to, good, NULL);
    if (good || (!*to->why && stop_requested())) return good;
    return complain(to->path, "%s", to->why);
}

static void report(const recording *r, const session *s, double seconds) {
    const double made = (double)(r->samples.n - r->given);
    if (r->o->json) {
        printf("{\"model\": ");
        json_text(stdout, s->path, strlen(s->path));
        printf(", \"output\": ");
        json_text(stdout, r->o->output, strlen(r->o->output));
        json_field("rate", r->rate);
        json_field("given", (double)r->given);
        json_field("samples", made);
        json_field("seed", (double)r->o->how.seed);
        json_field("seconds", seconds);
        json_field("samples_per_second", made / seconds);
        puts("}");
    }
    if (r->o->verbose)
        fprintf(stderr, "%.2f s of sound in %.2f s: %.0f samples/s\n", made / r->rate, seconds,
                made / seconds);
}

int generate_recording(const session *s, const recording_options *o) {
    recording r = {.o = o, .rate = audio_rate(s)};
    output to = {.file = STDOUT_FILENO};
    struct stat given;
    int n_inputs = o->given && !stat(o->given, &given);
    if (strcmp(o->output, "-") &&
        (!name_output(&to, o->output, o->force, 1, &given, (size_t)n_inputs) ||
         !create_output(&to)))
        die(o->output, "%s", to.why);
    append(&r.samples, NULL, 0);
    if (o->given) read_given(&r, o->given);
    if ((double)r.given + o->length * r.rate > INT32_MAX) /* as write_mulaw has it */
        die(o->output, "too long for one file (2 GB)");
    r.expected = (size_t)(o->length * r.rate + 0.5);
    megabyte_stream *stream = new_stream(s, o->context, NULL);
    megabyte_sampling how = o->how;
    r.bar = (progress){.start = now()};
    feed_given(&r, stream);
    megabyte_status status = MEGABYTE_OK;
    if (!stop_requested())
        status = megabyte_stream_generate(stream, &how, NULL, r.expected, NULL, on_sample, &r);
    if (status < 0 && status != MEGABYTE_ERROR_CANCELLED)
        die("generate", "%s", megabyte_status_string(status));
    end_progress(&r.bar);
    double seconds = now() - r.bar.start;
    int good = !stop_requested() && write_recording(&r, &to);
    if (to.temporary) finish_output(&to, 0, NULL); /* nothing was written */
    if (good) report(&r, s, seconds);
    megabyte_stream_free(stream);
    free_output(&to);
    free(r.samples.data);
    return stop_requested() ? stop_requested() : !good;
}
