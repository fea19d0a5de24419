/* fuzz_sound.c - any bytes as a WAV or AU file. What is found must lie in the file, and what is
 * read must come back the same from each kind of file. No crash, no hang, no memory beyond the
 * file's size. See fuzz.h. */
#define _GNU_SOURCE
#include "test.h"

/* What is asked for is counted. */
static size_t asked;
static void *fuzz_malloc(size_t size) {
    asked += size;
    return malloc(size);
}
#define malloc fuzz_malloc
#include "sounds.h"
#undef malloc

#include "fuzz.h"

static void written_and_read(const uint8_t *samples, size_t n, uint32_t rate) {
    for (int format = SOUND_WAV; format <= SOUND_AU; format++) {
        char why[256];
        uint8_t *out, *back;
        size_t size, n_back;
        sound s;
        CHECK(write_mulaw((sound_format)format, rate, samples, n, &out, &size, why), "%s", why);
        CHECK(find_sound(&s, out, size, why), "%s", why);
        CHECK(!s.missing && read_mulaw(&s, out, rate, &back, &n_back, why), "%s", why);
        CHECK(n_back == n && !memcmp(back, samples, n));
        free(out);
        free(back);
    }
}

/* Returns 1 if it was read. */
static int read_any(const uint8_t *data, size_t n) {
    char why[256] = "";
    uint8_t *samples;
    size_t n_samples;
    sound s;
    int is_found = find_sound(&s, data, n, why);
    CHECK(is_found || *why, "refused without a word");
    if (!is_found) return 0;
    CHECK(s.offset <= n && s.n <= n - s.offset, "%zu bytes at %zu of %zu", s.n, s.offset, n);
    CHECK(s.channels && s.rate && s.missing <= UINT32_MAX && *s.text);
    asked = 0;
    int is_read = read_mulaw(&s, data, s.rate, &samples, &n_samples, why);
    CHECK(is_read || *why, "refused without a word");
    CHECK(asked <= n + 1, "%zu bytes for %zu", asked, n);
    if (!is_read) return 0;
    written_and_read(samples, n_samples, s.rate);
    free(samples);
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    tally(read_any(data, size) ? "sound" : "no sound");
    return 0;
}

#if defined(STANDALONE)
static void make_seeds(void) {
    uint8_t samples[60];
    file made;
    seed_random(1);
    random_bytes(samples, sizeof samples, 256);
    for (uint32_t i = 0; i < 24; i++) {
        uint32_t bytes = 1 + (i & 1), n = i & 2 ? 60 : 59;
        const plan p = {bytes == 1 ? 7 : 1,    1, 8000, 8 * bytes, bytes, i >> 2 & 1, i >> 3 & 1,
                        i % 3 ? n : UINT32_MAX};
        if (i < 16) make_wav(&made, &p, samples, n);
        else
            make_au(&made, 24 + 4 * (i & 1), i & 2 ? UINT32_MAX : 50, i & 4 ? 3 : 1, 8000, 1,
                    samples, 50);
        CHECK(read_any(made.data, made.n), "seed %u is not read", i);
        add_seed(made.data, made.n);
    }
}
#endif
