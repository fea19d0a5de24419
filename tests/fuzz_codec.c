/* fuzz_codec.c - any bytes as a compressed file, a header, a message's code, or as input and
 * options of compressing: no crash, and nothing wrong is said to be right. libFuzzer's way in; the
 * model's path is in FUZZ_MODEL:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_codec.c -o fuzz -lm -pthread
 *     FUZZ_MODEL=tests/tmp/codec-format-tiny-q8.mb ./fuzz -max_total_time=60 -max_len=3000 SEEDS
 *
 * With -DSTANDALONE, a program that spoils right files and codes at random, COUNT times; it writes
 * the seeds to FOLDER:
 *
 *     fuzz_codec MODEL COUNT SEED [FOLDER] */
#include "../megabyte.c"

#include <stdio.h>
#include <stdlib.h>

#define MUST(condition)                                      \
    do {                                                     \
        if (!(condition)) {                                  \
            fprintf(stderr, "fuzz_codec: %s\n", #condition); \
            abort();                                         \
        }                                                    \
    } while (0)

enum { BLOCK = 256, LARGEST = 4096, STREAMS = 3, PRIME = 20 };

static megabyte_model *model;
static megabyte_engine *engine;
/* Without a prime; with one: contexts of 1 MB, none. Contexts are small: emptying them is most of
 * the work. */
enum { PLAIN, PRIMED, PRIMED_NETWORK, DECODERS };
static megabyte_codec *decoder[DECODERS],
    *talker[4]; /* talkers: messages at levels 1 and 7, primed too */
static megabyte_stream *stream[3];
static const char priming[PRIME + 1] = "It was a dark and st";

static void set_up(const char *path) {
    megabyte_error error;
    megabyte_codec_options o = {
        .block_size = BLOCK, .streams = STREAMS, .limit = LARGEST, .mixing_memory = 1};
    MUST(megabyte_model_open(&model, path, NULL, &error) == MEGABYTE_OK);
    MUST(megabyte_engine_create(&engine, model, NULL, NULL, &error) == MEGABYTE_OK);
    o.engine = engine;
    for (int i = 0; i < DECODERS; i++) {
        if (i == PRIMED_NETWORK) o.mixing_memory = MEGABYTE_NO_CONTEXT_MIXING;
        MUST(megabyte_codec_create(&decoder[i], model, MEGABYTE_MODE_DECOMPRESS, &o, NULL,
                                   &error) == MEGABYTE_OK);
        o.dictionary = priming, o.dictionary_size = PRIME;
    }
    for (int i = 0; i < 4; i++) {
        megabyte_codec_options how = {
            .engine = engine, .mixing_memory = 1, .level = i & 1 ? 7 : 1, .block_size = 300};
        if (i & 2) how.dictionary = priming, how.dictionary_size = PRIME;
        MUST(!megabyte_codec_create(&talker[i], model, MEGABYTE_MODE_MESSAGES, &how, NULL, &error));
    }
    megabyte_stream_options with = {.engine = engine};
    for (int i = 0; i < 3; i++)
        MUST(megabyte_stream_create(&stream[i], model, &with, NULL, &error) == MEGABYTE_OK);
}

/* The bytes as a compressed file, pushed in pieces of `piece` bytes; returns the status, and what
 * came out. */
static status decompress(int by, const u8 *in, size_t n, size_t piece, u8 out[LARGEST],
                         size_t *n_out) {
    megabyte_codec *c = decoder[by];
    status r = MEGABYTE_OK;
    size_t taken, given = 1, turns = 0;
    megabyte_codec_reset(c);
    *n_out = 0;
    for (size_t at = 0, ended = 0; !r && (!ended || given);) {
        size_t some = n - at < piece ? n - at : piece;
        u8 *own = (u8 *)malloc(some + !some); /* reading past it shows */
        MUST(own && turns++ < 4 * (n + LARGEST) + 100);
        memcpy(own, in + at, some);
        if (some) r = megabyte_codec_push(c, own, some, &taken), at += taken;
        free(own);
        if (at == n && !ended) megabyte_codec_finish(c), ended = 1;
        do {
            u8 room[100];
            r = megabyte_codec_pull(c, room, sizeof room, &given);
            MUST(given <= sizeof room && *n_out + given <= LARGEST && (!r || !given));
            memcpy(out + *n_out, room, given);
            *n_out += given;
        } while (!r && given);
    }
    MUST(megabyte_codec_error(c)->status == r && !r == !megabyte_codec_error(c)->text[0]);
    return r;
}

static void headers(const u8 *in, size_t n) {
    megabyte_file_header c;
    megabyte_block_header b;
    megabyte_error error;
    u8 *own = (u8 *)malloc(n + !n);
    MUST(own);
    memcpy(own, in, n);
    if (!megabyte_file_header_read(own, n, &c, &error)) {
        MUST(c.header_bytes <= n && c.header_bytes <= MEGABYTE_HEADER_MAX &&
             c.block_size <= MEGABYTE_BLOCK_MAX && c.context_shift < 16 && c.mixing_memory <= 64);
        for (size_t at = c.header_bytes; !c.single && at < n;) {
            if (megabyte_block_header_read(own + at, n - at, &c, &b, &error)) break;
            MUST(b.method >= -1 && b.method < MEGABYTE_METHOD_COUNT && b.size <= c.block_size &&
                 b.header_bytes <= n - at);
            if (b.method < 0 || b.coded > n - at - b.header_bytes) break;
            at += b.header_bytes + b.coded;
        }
    }
    free(own);
}

static void message(const u8 *in, size_t n, int way) {
    u8 out[300], again[316];
    size_t got, n_again;
    if (way % 3) { /* by contexts */
        megabyte_codec *c = talker[way % 4];
        status r = megabyte_codec_decode(c, in, n, out, sizeof out, &got);
        MUST(r == MEGABYTE_OK || r == MEGABYTE_ERROR_CORRUPT || r == MEGABYTE_ERROR_CAPACITY);
        if (r) return;
        MUST(got <= sizeof out &&
             !megabyte_codec_encode(c, out, got, again, sizeof again, &n_again));
        MUST(n_again != n || !memcmp(again, in, n) || n > got);
        return;
    }
    megabyte_stream_reset(stream[0]);
    status r = megabyte_stream_decode(stream[0], in, n, out, sizeof out, &got);
    MUST(r == MEGABYTE_OK || r == MEGABYTE_ERROR_CORRUPT || r == MEGABYTE_ERROR_CAPACITY);
    if (r) return;
    MUST(got <= sizeof out && megabyte_stream_position(stream[0]) == got);
    megabyte_stream_reset(stream[1]);
    MUST(!megabyte_stream_encode(stream[1], out, got, again, sizeof again, &n_again));
    MUST(n_again != n || !memcmp(again, in, n) || n > got); /* a longer one is a stored message */
}

/* Options from the first bytes, the rest is compressed: both ways must give it back. */
static void round_trip(const u8 *in, size_t n) {
    u8 how[6] = {0}, packed[10 * LARGEST], out[LARGEST];
    size_t n_out, got, take = n < 6 ? n : 6;
    memcpy(how, in, take);
    in += take, n = n - take < LARGEST ? n - take : LARGEST;
    megabyte_error error;
    megabyte_codec_options o = {.engine = engine,
                                .streams = how[0] % 6,
                                .block_size = (u32)how[1] + 1,
                                .context_shift = how[2] % 5,
                                .verify = how[3] & 1,
                                .level = 1 + (how[3] >> 2) % 9,
                                .mixing_memory = 1};
    if (o.level == 5) o.mixing_memory = MEGABYTE_NO_CONTEXT_MIXING;
    else if (n > 3u * o.block_size)
        n = 3u * o.block_size; /* emptying contexts for each takes time */
    if (how[3] & 2) o.dictionary = priming, o.dictionary_size = PRIME, o.context_shift = 0;
    MUST(!megabyte_compress(model, &o, in, n, packed, sizeof packed, &n_out, NULL, &error));
    MUST(!decompress(!o.dictionary_size ? PLAIN
                     : o.level == 5     ? PRIMED_NETWORK
                                        : PRIMED,
                     packed, n_out, (size_t)how[4] + 1, out, &got) &&
         got == n && !memcmp(in, out, n));
    if (n > 250) n = 250;
    for (int i = 0; i < 2; i++) {
        megabyte_stream_reset(stream[i]);
        MUST(!megabyte_stream_feed(stream[i], priming, how[5] % PRIME));
    }
    MUST(!megabyte_stream_encode(stream[0], in, n, packed, sizeof packed, &n_out));
    MUST(!megabyte_stream_decode(stream[1], packed, n_out, out, sizeof out, &got) && got == n &&
         !memcmp(in, out, n));
    megabyte_codec *c = talker[how[5] % 4];
    MUST(!megabyte_codec_encode(c, in, n, packed, sizeof packed, &n_out) && n_out <= n + 5);
    MUST(!megabyte_codec_decode(c, packed, n_out, out, sizeof out, &got) && got == n &&
         !memcmp(in, out, n));
}

#ifndef STANDALONE
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    u8 out[LARGEST], *bad = (u8 *)malloc(size + 1);
    size_t n;
    MUST(bad);
    if (!model) set_up(getenv("FUZZ_MODEL"));
    if (size) {
        memcpy(bad, input + 1, size - 1);
        megabyte_file_header c;
        u8 digest[32];
        if (input[0] & 32 && size > 17) { /* the header's checksum put right, wherever it is */
            for (size_t end = 15; end + 2 <= size - 1 && end < 40; end++) {
                sha256(bad, end, NULL, 0, digest);
                u8 was[2] = {bad[end], bad[end + 1]};
                memcpy(bad + end, digest, 2);
                if (!megabyte_file_header_read(bad, size - 1, &c, NULL) &&
                    c.header_bytes == end + 2)
                    break;
                memcpy(bad + end, was, 2);
            }
        }
        switch (input[0] % 4) {
        case 0:
            decompress((input[0] >> 6) % DECODERS, bad, size - 1,
                       (size_t)(input[0] >> 2 & 15) * 50 + 1, out, &n);
            break;
        case 1: headers(bad, size - 1); break;
        case 2: message(bad, size - 1, input[0] >> 2); break;
        default: round_trip(bad, size - 1);
        }
    }
    free(bad);
    return 0;
}

#else
static u64 state;
static u64 draw(u64 n) { /* splitmix64 */
    u64 z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}

enum { FILES = 36 };
static struct {
    u8 original[LARGEST], packed[2 * LARGEST];
    size_t n, n_packed;
    int by;
} file[FILES];

/* A third of each kind: the network alone, contexts alone, mixed. */
static void make_files(void) {
    megabyte_error error;
    for (int k = 0; k < FILES; k++) {
        int i = k / 3, level = k % 3 == 0 ? 5 : k % 3 == 1 ? 1 + i % 4 : 6 + i % 4;
        megabyte_codec_options o = {.engine = engine,
                                    .block_size = i % 3 ? 200 : BLOCK,
                                    .context_shift = i % 4 == 3,
                                    .level = level,
                                    .mixing_memory = level == 5 ? MEGABYTE_NO_CONTEXT_MIXING : 1};
        megabyte_sampling how = {.temperature = 0.3f, .seed = (u64)i};
        size_t n = file[k].n = i % 3 ? 60 * (size_t)i : 30 * (size_t)i % 255;
        megabyte_stream_reset(stream[0]);
        for (size_t at = 0; at < n; at++) {
            u8 byte;
            MUST(!megabyte_stream_sample(stream[0], &how, &byte) &&
                 !megabyte_stream_step(stream[0], byte));
            file[k].original[at] = at % 600 < 300 ? byte : at % 600 < 450 ? 'x' : (u8)draw(256);
            if (k % 3 == 1 && at >= 50 && at % 200 >= 50)
                file[k].original[at] = file[k].original[at - 50];
        }
        if (i % 5 == 0) o.dictionary = priming, o.dictionary_size = PRIME, o.context_shift = 0;
        file[k].by = !o.dictionary_size ? PLAIN : level == 5 ? PRIMED_NETWORK : PRIMED;
        MUST(!megabyte_compress(model, &o, file[k].original, n, file[k].packed,
                                sizeof file[k].packed, &file[k].n_packed, NULL, &error));
    }
}

int main(int argc, char **argv) {
    if (argc < 4) return fprintf(stderr, "usage: fuzz_codec MODEL COUNT SEED [FOLDER]\n"), 2;
    long count = atol(argv[2]), right = 0, decoded = 0;
    static u8 bad[3 * LARGEST], out[LARGEST];
    state = (u64)atol(argv[3]);
    set_up(argv[1]);
    make_files();
    for (int i = 0; i < FILES && argc > 4; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/seed-%d", argv[4], i);
        FILE *f = fopen(path, "wb");
        MUST(f && fputc(i % 4 == 3 ? 3 : file[i].by << 6 | 16, f) >= 0);
        MUST(fwrite(file[i].packed, 1, file[i].n_packed, f) == file[i].n_packed && !fclose(f));
    }
    for (long turn = 0; turn < count; turn++) {
        int i = (int)draw(FILES);
        size_t n = file[i].n_packed, got, header = n;
        megabyte_file_header c;
        memcpy(bad, file[i].packed, n);
        if (!megabyte_file_header_read(bad, n, &c, NULL)) header = c.header_bytes;
        for (u64 k = 1 + draw(4); k && n; k--) {
            size_t at = (size_t)(draw(3) ? draw(n) : draw(min64(n, 40))), from = (size_t)draw(n);
            size_t some = (size_t)min64(draw(draw(2) ? 4 : 60), n - (at > from ? at : from));
            switch (draw(7)) {
            case 0: bad[at] ^= (u8)(1u << draw(8)); break;
            case 1: bad[at] = (u8)draw(256); break;
            case 2: bad[at] = (u8)(draw(2) ? 255 : draw(4)); break;
            case 3: memmove(bad + at, bad + from, some); break;
            case 4: /* out */
                memmove(bad + at, bad + at + some, n - at - some);
                n -= some;
                break;
            case 5: /* in again */
                if (n + some > 2 * LARGEST) break;
                memmove(bad + at + some, bad + at, n - at);
                n += some;
                break;
            default:
                if (draw(4) == 0) n = at;
            }
        }
        if (draw(3) == 0 && header <= n && header > 2) {
            u8 digest[32];
            sha256(bad, header - 2, NULL, 0, digest);
            memcpy(bad + header - 2, digest, 2);
        }
        switch (draw(8)) {
        case 0: headers(bad, n); break;
        case 1: message(bad + min64(n, draw(30)), n - min64(n, 30), (int)draw(12)); break;
        case 2: round_trip(bad, n); break;
        default:
            if (!decompress(file[i].by, bad, n, 1 + (size_t)draw(draw(2) ? 10 : 2000), out, &got)) {
                right++;
                MUST(n == 0 ||
                     (got % (file[i].n + !file[i].n) == 0 &&
                      !memcmp(out, file[i].original, min64(got, file[i].n))) ||
                     !"wrong bytes and OK");
            }
            decoded++;
        }
    }
    printf("%ld mutations, %ld files decoded, %ld of these to the right bytes\n", count, decoded,
           right);
    for (int i = 0; i < DECODERS; i++) megabyte_codec_free(decoder[i]);
    for (int i = 0; i < 4; i++) megabyte_codec_free(talker[i]);
    for (int i = 0; i < 3; i++) megabyte_stream_free(stream[i]);
    megabyte_engine_free(engine);
    megabyte_model_close(model);
    return 0;
}
#endif
