/* sound.h - sound as G.711 mu-law samples: WAV and Sun AU files, read from memory and written.
 * SPDX-License-Identifier: MIT
 *
 * Functions that return int return 1, or 0 with the reason in `why`; the input may come from
 * strangers. */
#ifndef SOUND_H
#define SOUND_H

#include <stddef.h>
#include <stdint.h>

typedef enum sound_format {
    SOUND_UNKNOWN,
    SOUND_WAV,
    SOUND_AU,
    SOUND_RAW /* mu-law bytes and nothing else */
} sound_format;

typedef enum sound_coding {
    SOUND_OTHER,
    SOUND_MULAW, /* WAV format 7, AU encoding 1 */
    SOUND_PCM /* WAV format 1, AU encodings 2 to 5: signed integers, of 8 bits in WAV unsigned */
} sound_coding;

/* Where a file's samples lie: data[offset] to data[offset + n]. */
typedef struct sound {
    sound_format format;
    sound_coding coding;
    uint32_t rate, channels, bits; /* samples a second of each channel; bits of a sample */
    size_t offset, n;
    uint64_t missing; /* bytes of samples that the header claims and the file has not */
    char text[96]; /* "16-bit PCM, 2 channels, 44100 Hz" */
} sound;

/* By the first bytes; SOUND_UNKNOWN: none of these. */
sound_format sound_format_of(const uint8_t *data, size_t n);
/* By the suffix of a name: .wav; .au, .snd; .ul, .ulaw, .mulaw. */
sound_format sound_format_named(const char *path);

/* A whole WAV or AU file. Samples of unknown length (0, or the largest number) go on to its end. */
int find_sound(sound *s, const uint8_t *data, size_t n, char why[256]);
sound raw_sound(size_t n, uint32_t rate); /* n bytes of mu-law, one channel */

/* One channel of mu-law or of 16-bit PCM at this rate, as mu-law; all else is refused. *out comes
 * from malloc. */
int read_mulaw(const sound *s, const uint8_t *data, uint32_t rate, uint8_t **out, size_t *n,
               char why[256]);
/* A file of one channel. *out comes from malloc. */
int write_mulaw(sound_format format, uint32_t rate, const uint8_t *samples, size_t n, uint8_t **out,
                size_t *n_out, char why[256]);

uint8_t mulaw_of(int16_t sample); /* as G.711 decides */

#endif
