/* sound.c - WAV, AU and raw mu-law: see sound.h. SPDX-License-Identifier: MIT */

#include "sound.h"
#include "common.h"

#include <stdlib.h>
#include <string.h>

static uint32_t number_at(const uint8_t *p, int is_big) {
    return is_big ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]
                  : read32(p);
}

static void put_number(uint8_t *p, uint32_t value, int is_big) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(value >> (is_big ? 24 - 8 * i : 8 * i));
}

static void name_kind(sound *s) {
    char coding[32] = "mu-law", channels[32] = "mono";
    if (s->coding == SOUND_PCM) snprintf(coding, sizeof coding, "%u-bit PCM", s->bits);
    if (s->coding == SOUND_OTHER) snprintf(coding, sizeof coding, "another coding");
    if (s->channels != 1) snprintf(channels, sizeof channels, "%u channels", s->channels);
    snprintf(s->text, sizeof s->text, "%s, %s, %u Hz", coding, channels, s->rate);
}

/* ----------------------------------------------------------------------------------------- WAV */

enum { FORMAT_PCM = 1, FORMAT_MULAW = 7, FORMAT_EXTENSIBLE = 0xfffe };

/* What follows the format's number in the GUID of an extensible format. */
static const uint8_t guid_rest[14] = {0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71};

static int read_format(sound *s, const uint8_t *p, size_t n, char why[256]) {
    if (n < 16) return refuse(why, "its fmt chunk is too short");
    uint32_t format = read16(p), frame = read16(p + 12);
    s->channels = read16(p + 2);
    s->rate = read32(p + 4);
    s->bits = read16(p + 14);
    if (format == FORMAT_EXTENSIBLE) {
        if (n < 40) return refuse(why, "its fmt chunk is too short");
        format = memcmp(p + 26, guid_rest, sizeof guid_rest) ? 0 : read16(p + 24);
    }
    if (!s->channels || !s->rate) return refuse(why, "its fmt chunk gives no channels or no rate");
    if (format == FORMAT_MULAW && s->bits == 8 && frame == s->channels) s->coding = SOUND_MULAW;
    if (format == FORMAT_PCM && s->bits && s->bits % 8 == 0 && frame == s->bits / 8 * s->channels)
        s->coding = SOUND_PCM;
    return 1;
}

/* The samples begin at s->offset <= n. */
static void measure(sound *s, size_t n, uint64_t claimed) {
    size_t left = n - s->offset;
    int is_unknown = claimed == UINT32_MAX || (claimed == 0 && left);
    s->n = is_unknown || claimed > left ? left : (size_t)claimed;
    s->missing = is_unknown || claimed <= left ? 0 : claimed - left;
}

static int find_wav(sound *s, const uint8_t *data, size_t n, char why[256]) {
    int has_format = 0;
    for (size_t at = 12; n - at >= 8;) {
        const uint8_t *chunk = data + at;
        uint32_t size = read32(chunk + 4);
        size_t left = n - at - 8;
        if (!memcmp(chunk, "data", 4)) {
            if (!has_format) return refuse(why, "has samples before its fmt chunk");
            s->offset = at + 8;
            measure(s, n, size);
            return 1;
        }
        if (!memcmp(chunk, "fmt ", 4)) {
            if (has_format || size > left) return refuse(why, "its fmt chunk is damaged");
            if (!read_format(s, chunk + 8, size, why)) return 0;
            has_format = 1;
        }
        if (size >= left) break;
        at += 8 + (size_t)size + (size & 1); /* chunks begin at even offsets */
    }
    return refuse(why, "has no samples: no data chunk");
}

static size_t put_wav(uint8_t *to, uint32_t rate, uint32_t n) {
    static const uint8_t head[58] = "RIFF\0\0\0\0WAVEfmt \22\0\0\0\7\0\1\0\0\0\0\0\0\0\0\0\1\0"
                                    "\10\0\0\0fact\4\0\0\0\0\0\0\0data\0\0\0";
    memcpy(to, head, sizeof head);
    put_number(to + 4, (uint32_t)sizeof head - 8 + n + (n & 1), 0);
    put_number(to + 24, rate, 0);
    put_number(to + 28, rate, 0);
    put_number(to + 46, n, 0);
    put_number(to + 54, n, 0);
    return sizeof head;
}

/* ------------------------------------------------------------------------------------------ AU */

enum { AU_HEADER = 24, AU_MULAW = 1, AU_PCM8 = 2, AU_PCM32 = 5 };

static int find_au(sound *s, const uint8_t *data, size_t n, char why[256]) {
    if (n < AU_HEADER) return refuse(why, "ends too early");
    uint32_t offset = number_at(data + 4, 1), encoding = number_at(data + 12, 1);
    s->rate = number_at(data + 16, 1);
    s->channels = number_at(data + 20, 1);
    if (offset < AU_HEADER || offset > n)
        return refuse(why, "its samples begin inside its header or past its end");
    if (!s->channels || !s->rate) return refuse(why, "its header gives no channels or no rate");
    if (encoding == AU_MULAW) s->coding = SOUND_MULAW;
    if (encoding >= AU_PCM8 && encoding <= AU_PCM32) s->coding = SOUND_PCM;
    s->bits = s->coding == SOUND_PCM ? 8 * (encoding - 1) : 8;
    s->offset = offset;
    measure(s, n, number_at(data + 8, 1));
    return 1;
}

static size_t put_au(uint8_t *to, uint32_t rate, uint32_t n) {
    const uint32_t fields[] = {AU_HEADER, n, AU_MULAW, rate, 1};
    memcpy(to, ".snd", 4);
    for (size_t i = 0; i < COUNT_OF(fields); i++) put_number(to + 4 + 4 * i, fields[i], 1);
    return AU_HEADER;
}

/* ----------------------------------------------------------------------------------------- both */

sound_format sound_format_of(const uint8_t *data, size_t n) {
    if (n >= 12 && !memcmp(data, "RIFF", 4) && !memcmp(data + 8, "WAVE", 4)) return SOUND_WAV;
    if (n >= 4 && !memcmp(data, ".snd", 4)) return SOUND_AU;
    return SOUND_UNKNOWN;
}

sound_format sound_format_named(const char *path) {
    static const struct {
        char suffix[8];
        sound_format format;
    } known[] = {{"wav", SOUND_WAV}, {"au", SOUND_AU},    {"snd", SOUND_AU},
                 {"ul", SOUND_RAW},  {"ulaw", SOUND_RAW}, {"mulaw", SOUND_RAW}};
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot && i < COUNT_OF(known); i++) {
        size_t k = 0;
        while (known[i].suffix[k] && (dot[1 + k] | 32) == known[i].suffix[k]) k++;
        if (!known[i].suffix[k] && !dot[1 + k]) return known[i].format;
    }
    return SOUND_UNKNOWN;
}

int find_sound(sound *s, const uint8_t *data, size_t n, char why[256]) {
    int good;
    memset(s, 0, sizeof *s);
    s->format = sound_format_of(data, n);
    why[0] = 0;
    if (s->format == SOUND_WAV) good = find_wav(s, data, n, why);
    else if (s->format == SOUND_AU) good = find_au(s, data, n, why);
    else good = refuse(why, "is not a WAV or AU file");
    if (good) name_kind(s);
    return good;
}

sound raw_sound(size_t n, uint32_t rate) {
    sound s = {
        .format = SOUND_RAW, .coding = SOUND_MULAW, .rate = rate, .channels = 1, .bits = 8, .n = n};
    name_kind(&s);
    return s;
}

/* Mu-law samples are -1^s 4 ((2 m + 33) 2^e - 33), inverted: s, three bits of e, four of m. With
 * 33 * 4 added, G.711's decision values are those where e or m change. */
uint8_t mulaw_of(int16_t sample) {
    enum { BIAS = 132, CLIP = 32635 };
    unsigned negative = sample < 0, size = (unsigned)(sample < 0 ? -sample : sample), e = 7;
    size = (size < CLIP ? size : CLIP) + BIAS;
    while (size >> (e + 7) == 0) e--;
    return (uint8_t) ~(negative << 7 | e << 4 | (size >> (e + 3) & 15));
}

int read_mulaw(const sound *s, const uint8_t *data, uint32_t rate, uint8_t **out, size_t *n,
               char why[256]) {
    const int is_pcm16 = s->coding == SOUND_PCM && s->bits == 16;
    if (s->channels != 1 || s->rate != rate || (s->coding != SOUND_MULAW && !is_pcm16)) {
        snprintf(why, 256, "is %s; mu-law or 16-bit PCM, mono, %u Hz is needed", s->text, rate);
        return 0;
    }
    const uint8_t *from = data + s->offset;
    *n = is_pcm16 ? s->n / 2 : s->n;
    *out = malloc(*n ? *n : 1);
    if (!*out) return refuse(why, "not enough memory");
    if (!is_pcm16) memcpy(*out, from, *n);
    for (size_t i = 0; is_pcm16 && i < *n; i++, from += 2) {
        uint32_t value = s->format == SOUND_AU ? (uint32_t)from[0] << 8 | from[1] : read16(from);
        (*out)[i] = mulaw_of((int16_t)(value < 0x8000 ? (int)value : (int)value - 0x10000));
    }
    return 1;
}

int write_mulaw(sound_format format, uint32_t rate, const uint8_t *samples, size_t n, uint8_t **out,
                size_t *n_out, char why[256]) {
    enum { HEADER_MOST = 58 };
    if (n > INT32_MAX) return refuse(why, "too long for one file (2 GB)");
    *out = malloc(HEADER_MOST + n + 1);
    if (!*out) return refuse(why, "not enough memory");
    size_t at = format == SOUND_WAV  ? put_wav(*out, rate, (uint32_t)n)
                : format == SOUND_AU ? put_au(*out, rate, (uint32_t)n)
                                     : 0;
    if (n) memcpy(*out + at, samples, n);
    at += n;
    if (format == SOUND_WAV && (n & 1)) (*out)[at++] = 0;
    *n_out = at;
    return 1;
}
