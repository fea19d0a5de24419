/* test_sound.c - WAV and AU files of every kind, mu-law and 16-bit PCM: where the samples lie,
 * there and back, cut short, and what must be refused. */
#define _GNU_SOURCE
#include "test.h"
#include "sounds.h"

static uint8_t samples[600];
static file made;

/* What G.711 makes of a code, by its definition. */
static int linear_of(uint8_t code) {
    int e = ~code >> 4 & 7, m = ~code & 15, size = 4 * (((2 * m + 33) << e) - 33);
    return code & 128 ? size : -size;
}

/* The decision values of the recommendation, of 14 bits: 1, 3, 5 ... 31, 35 ... 95, 103 ... */
static void decision_values(void) {
    int level = 1, step = 2, code = 0;
    for (int size = 0; size <= 32768; size++) {
        while (code < 127 && size >= 4 * level) {
            if (++code % 16 == 0) step *= 2;
            level += step;
        }
        if (size < 32768) CHECK(mulaw_of((int16_t)size) == 255 - code, "%d", size);
        if (size) CHECK(mulaw_of((int16_t)-size) == 127 - code, "%d", -size);
    }
    for (code = 0; code < 256; code++)
        if (code != 0x7f) /* another zero */
            CHECK(mulaw_of((int16_t)linear_of((uint8_t)code)) == code, "code %d", code);
}

/* Looks at a copy of the size itself: reading past its end shows under a sanitizer. */
static int look(sound *s, char why[256]) {
    uint8_t *exact = need(made.n, 1);
    memcpy(exact, made.data, made.n);
    int good = find_sound(s, exact, made.n, why);
    free(exact);
    CHECK(!good || (s->offset <= made.n && s->n <= made.n - s->offset));
    return good;
}

static void finds(size_t offset, size_t n, uint64_t missing, const char *text) {
    char why[256];
    sound s;
    CHECK(look(&s, why), "%s", why);
    CHECK(s.offset == offset && s.n == n, "%zu bytes at %zu", s.n, s.offset);
    CHECK(s.missing == missing, "%llu are missing", (unsigned long long)s.missing);
    CHECK(!strcmp(s.text, text), "'%s' and not '%s'", s.text, text);
}

static void refuses(const char *word) {
    char why[256];
    sound s;
    CHECK(!look(&s, why), "read: %s", s.text);
    CHECK(strstr(why, word), "'%s' and not '%s'", why, word);
}

static const plan call = {7, 1, 8000, 8, 1, 0, 0, 99};
static const char call_text[] = "mu-law, mono, 8000 Hz";

static void wav_files(void) {
    for (int kind = 0; kind < 4; kind++) {
        plan p = call;
        p.is_extensible = kind & 1;
        p.has_others = kind >> 1;
        make_wav(&made, &p, samples, 99);
        size_t offset = 44 + (p.is_extensible ? 24u : 0) + (p.has_others ? 24u : 0);
        finds(offset, 99, 0, call_text);
        size_t left = made.n - offset, behind = left - 99;
        CHECK(behind == (p.has_others ? 15u : 1u));
        for (int i = 0; i < 2; i++) { /* of unknown length: up to the end */
            p.claimed = i ? 0 : UINT32_MAX;
            make_wav(&made, &p, samples, 99);
            finds(offset, left, 0, call_text);
        }
        p.claimed = UINT32_MAX - 1;
        make_wav(&made, &p, samples, 99);
        finds(offset, left, UINT32_MAX - 1 - left, call_text);
        p.claimed = 99;
        make_wav(&made, &p, samples, 99);
        made.n = offset + 40;
        finds(offset, 40, 59, call_text);
        made.n = offset;
        finds(offset, 0, 99, call_text);
        for (made.n = 0; made.n < 12; made.n++) refuses("is not a WAV or AU file");
        for (; made.n < offset; made.n++) refuses("");
    }
    make_wav(&made, &(plan){7, 2, 16000, 8, 2, 1, 0, 98}, samples, 98);
    finds(68, 98, 0, "mu-law, 2 channels, 16000 Hz");
    make_wav(&made, &(plan){1, 2, 44100, 16, 4, 0, 0, 98}, samples, 98);
    finds(44, 98, 0, "16-bit PCM, 2 channels, 44100 Hz");
    make_wav(&made, &(plan){1, 1, 48000, 24, 3, 1, 0, 99}, samples, 99);
    finds(68, 99, 0, "24-bit PCM, mono, 48000 Hz");
    make_wav(&made, &(plan){6, 1, 8000, 8, 1, 0, 0, 99}, samples, 99);
    finds(44, 99, 0, "another coding, mono, 8000 Hz");
    make_wav(&made, &(plan){7, 1, 8000, 16, 2, 0, 0, 99}, samples, 99);
    finds(44, 99, 0, "another coding, mono, 8000 Hz");
    make_wav(&made, &(plan){7, 1, 8000, 8, 2, 0, 0, 99}, samples, 99);
    finds(44, 99, 0, "another coding, mono, 8000 Hz");
    make_wav(&made, &(plan){7, 1, 8000, 8, 1, 1, 0, 99}, samples, 99);
    made.data[50] ^= 1; /* another GUID */
    finds(68, 99, 0, "another coding, mono, 8000 Hz");
}

static void refused_wavs(void) {
    plan p = call;
    make_wav(&made, &p, samples, 99);
    memcpy(made.data + 12, "fmx ", 4);
    refuses("samples before its fmt chunk");
    make_wav(&made, &p, samples, 99);
    memcpy(made.data + 36, "datx", 4);
    refuses("no data chunk");
    make_wav(&made, &p, samples, 99);
    memcpy(made.data + 36, "fmt ", 4);
    refuses("fmt chunk is damaged");
    make_wav(&made, &p, samples, 99);
    put_number(made.data + 16, 15, 0);
    refuses("too short");
    put_number(made.data + 16, 14, 0);
    refuses("too short");
    put_number(made.data + 16, UINT32_MAX, 0);
    refuses("damaged");
    p.is_extensible = 1;
    make_wav(&made, &p, samples, 99);
    put_number(made.data + 16, 39, 0);
    refuses("too short");
    p = call;
    p.channels = p.frame = 0;
    make_wav(&made, &p, samples, 99);
    refuses("no channels");
    p = call;
    p.rate = 0;
    make_wav(&made, &p, samples, 99);
    refuses("no rate");
}

static void au_files(void) {
    make_au(&made, 24, 99, 1, 8000, 1, samples, 99);
    finds(24, 99, 0, call_text);
    make_au(&made, 32, 90, 1, 8000, 1, samples, 99); /* a comment, and bytes behind */
    finds(32, 90, 0, call_text);
    make_au(&made, 24, UINT32_MAX, 1, 8000, 1, samples, 99);
    finds(24, 99, 0, call_text);
    make_au(&made, 24, 0, 1, 8000, 1, samples, 99);
    finds(24, 99, 0, call_text);
    make_au(&made, 24, 0, 1, 8000, 1, samples, 0);
    finds(24, 0, 0, call_text);
    make_au(&made, 24, 100, 1, 8000, 1, samples, 99);
    finds(24, 99, 1, call_text);
    make_au(&made, 24, 98, 3, 8000, 2, samples, 98);
    finds(24, 98, 0, "16-bit PCM, 2 channels, 8000 Hz");
    make_au(&made, 24, 98, 6, 8000, 1, samples, 98); /* floats */
    finds(24, 98, 0, "another coding, mono, 8000 Hz");
    make_au(&made, 24, 98, 27, 8000, 1, samples, 98);
    finds(24, 98, 0, "another coding, mono, 8000 Hz");
    make_au(&made, 23, 99, 1, 8000, 1, samples, 99);
    refuses("inside its header");
    make_au(&made, 24, 99, 1, 8000, 1, samples, 99);
    put_number(made.data + 4, (uint32_t)made.n + 1, 1);
    refuses("past its end");
    put_number(made.data + 4, UINT32_MAX, 1);
    refuses("past its end");
    make_au(&made, 24, 99, 1, 0, 1, samples, 99);
    refuses("no rate");
    make_au(&made, 24, 99, 1, 8000, 0, samples, 99);
    refuses("no channels");
    for (made.n = 4; made.n < 24; made.n++) refuses("too early");
}

static void there_and_back(void) {
    for (size_t n = 0; n < 40; n++)
        for (int format = SOUND_WAV; format <= SOUND_RAW; format++) {
            char why[256];
            uint8_t *out, *back;
            size_t size, n_back;
            name_case("format %d, %zu samples", format, n);
            CHECK(write_mulaw((sound_format)format, 11025, samples, n, &out, &size, why));
            CHECK(size <= sizeof made.data && (format == SOUND_RAW || size % 2 == 0 || n % 2));
            memcpy(made.data, out, made.n = size);
            sound s = raw_sound(size, 11025);
            if (format != SOUND_RAW) CHECK(look(&s, why), "%s", why);
            CHECK((int)s.format == format && !strcmp(s.text, "mu-law, mono, 11025 Hz"), "%s",
                  s.text);
            CHECK(!s.missing && s.offset + s.n + (format == SOUND_WAV && n % 2) == size);
            if (format == SOUND_WAV) CHECK(read32(out + 4) == size - 8 && read32(out + 46) == n);
            CHECK(!read_mulaw(&s, out, 8000, &back, &n_back, why) && strstr(why, "8000 Hz"));
            CHECK(read_mulaw(&s, out, 11025, &back, &n_back, why), "%s", why);
            CHECK(n_back == n && !memcmp(back, samples, n));
            free(out);
            free(back);
        }
}

static void pcm_becomes_mulaw(void) {
    for (int is_au = 0; is_au < 2; is_au++) {
        file pcm = {.n = 0};
        char why[256];
        uint8_t *out;
        size_t n;
        sound s;
        for (int i = 0; i < 256; i++)
            add_number(&pcm, (uint32_t)linear_of((uint8_t)i) & 0xffff, 2, is_au);
        add_number(&pcm, 0x8000, 2, is_au);
        add(&pcm, "odd", 1);
        if (is_au) make_au(&made, 24, (uint32_t)pcm.n, 3, 8000, 1, pcm.data, pcm.n);
        else make_wav(&made, &(plan){1, 1, 8000, 16, 2, 0, 0, 515}, pcm.data, pcm.n);
        CHECK(look(&s, why) && read_mulaw(&s, made.data, 8000, &out, &n, why), "%s", why);
        CHECK(n == 257 && out[256] == 0);
        for (int i = 0; i < 256; i++)
            CHECK(out[i] == (i == 0x7f ? 0xff : i), "%d becomes %u", i, out[i]);
        free(out);
        s.channels = 2;
        CHECK(!read_mulaw(&s, made.data, 8000, &out, &n, why) && strstr(why, "mono, 8000 Hz"));
        s.channels = 1;
        s.bits = 24;
        CHECK(!read_mulaw(&s, made.data, 8000, &out, &n, why));
    }
}

static void names(void) {
    static const struct {
        const char *path;
        sound_format format;
    } cases[] = {{"a.wav", SOUND_WAV},   {"a.b/c.WAV", SOUND_WAV}, {"x.au", SOUND_AU},
                 {"x.snd", SOUND_AU},    {"call.ul", SOUND_RAW},   {".ulaw", SOUND_RAW},
                 {"x.mulaw", SOUND_RAW}, {"x.ulx", SOUND_UNKNOWN}, {"x.u", SOUND_UNKNOWN},
                 {"ul", SOUND_UNKNOWN},  {"", SOUND_UNKNOWN},      {"x.wave", SOUND_UNKNOWN}};
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        CHECK(sound_format_named(cases[i].path) == cases[i].format, "%s", cases[i].path);
}

int main(void) {
    seed_random(1);
    random_bytes(samples, sizeof samples, 256);
    GROUP(decision_values);
    GROUP(wav_files);
    GROUP(refused_wavs);
    GROUP(au_files);
    GROUP(there_and_back);
    GROUP(pcm_becomes_mulaw);
    GROUP(names);
    return 0;
}
