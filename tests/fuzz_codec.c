/* fuzz_codec.c - any bytes as a compressed file, in one piece and in many, as a header, a message's
 * code, as input and options of compressing, or as what is done to a right file: no crash, and
 * nothing wrong is said to be right. The first byte says which, the second how. See fuzz.h. */
#define MEGABYTE_KEEP_OPTIONS
#include "../megabyte.c"

#include "fuzz.h"

#include "random_model.h"

enum { BLOCK = 256, LARGEST = 4096, STREAMS = 3, PRIME = 20, TALKERS = 8 };

static megabyte_model *model;
static megabyte_engine *engine;
/* Without a prime; with one: contexts of 1 MB, none; without the model. Contexts are small:
 * emptying them is most of the work. */
enum { PLAIN, PRIMED, PRIMED_NETWORK, NO_NETWORK, DECODERS };
static megabyte_codec_options accepts[DECODERS];
static megabyte_codec *decoder[DECODERS],
    *talker[TALKERS]; /* messages at levels 1 and 7; primed, too; by others' dictionaries, too */
static megabyte_stream *stream[3];
static const char priming[PRIME + 1] = "It was a dark and st";

static void set_up(void) {
    struct sizes z = random_sizes(8, 8, 16, 1, 2, 8, 16, 1, 2, 8);
    megabyte_error error;
    size_t size;
    megabyte_codec_options o = {
        .block_size = BLOCK, .streams = STREAMS, .limit = LARGEST, .mixing_memory = 1};
    u8 *file = random_model_with(&z, 3, NULL, 0, &size, &error);
    (void)random_history, (void)random_model; /* of the header, not needed here */
    MUST(file && !megabyte_model_open_memory(&model, file, size, NULL, &error));
    MUST(!megabyte_engine_create(&engine, model, NULL, NULL, &error));
    o.engine = engine;
    for (int i = 0; i < DECODERS; i++) {
        o.mixing_memory = i == PRIMED_NETWORK ? MEGABYTE_NO_CONTEXT_MIXING : 1;
        o.dictionary_size = i == PRIMED || i == PRIMED_NETWORK ? PRIME : 0;
        o.ensemble = i == PLAIN ? 2 : 1;
        o.dictionary = o.dictionary_size ? priming : NULL;
        MUST(megabyte_codec_create(&decoder[i], i == NO_NETWORK ? NULL : model,
                                   MEGABYTE_MODE_DECOMPRESS, &o, NULL, &error) == MEGABYTE_OK);
        accepts[i] = o;
    }
    for (int i = 0; i < TALKERS; i++) {
        megabyte_codec_options how = {
            .engine = engine, .mixing_memory = 1, .level = i & 1 ? 7 : 1, .block_size = 300};
        if ((i & 6) == 2 || (i & 6) == 4) how.dictionary = priming, how.dictionary_size = PRIME;
        if ((i & 6) == 4) how.room = 24;
        if ((i & 6) == 6) how.dictionary_of = talker[i - 4];
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
        u8 *own = own_copy(in + at, some);
        MUST(turns++ < 4 * (n + LARGEST) + 100);
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
    u8 *own = own_copy(in, n);
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
    size_t got, n_again, length;
    status claim = megabyte_message_length(in, n, 0, &length);
    MUST(claim ? claim == MEGABYTE_ERROR_CORRUPT && !length : length <= MEGABYTE_MESSAGE_MAX);
    if (way % 3) { /* by contexts */
        megabyte_codec *c = talker[way % TALKERS];
        status r = megabyte_codec_decode(c, in, n, out, sizeof out, &got);
        MUST(r == MEGABYTE_OK || r == MEGABYTE_ERROR_CORRUPT || r == MEGABYTE_ERROR_CAPACITY);
        MUST(r == MEGABYTE_ERROR_CORRUPT ? !got : !claim && got == length);
        MUST(megabyte_codec_error(c)->status == r && !r == !megabyte_codec_error(c)->text[0]);
        if (r) return;
        MUST(got <= sizeof out &&
             !megabyte_codec_encode(c, out, got, again, sizeof again, &n_again));
        MUST(n_again != n || !memcmp(again, in, n) || n > got);
        return;
    }
    megabyte_stream_reset(stream[0]);
    status r = megabyte_stream_decode(stream[0], in, n, out, sizeof out, &got);
    MUST(r == MEGABYTE_OK || r == MEGABYTE_ERROR_CORRUPT || r == MEGABYTE_ERROR_CAPACITY);
    MUST(r == MEGABYTE_ERROR_CORRUPT ? !got : !claim && got == length);
    if (r) return;
    MUST(got <= sizeof out && megabyte_stream_position(stream[0]) == got);
    megabyte_stream_reset(stream[1]);
    MUST(!megabyte_stream_encode(stream[1], out, got, again, sizeof again, &n_again));
    MUST(n_again != n || !memcmp(again, in, n) || n > got); /* a longer one is a stored message */
}

/* In pieces, flushed now and then; returns the compressed bytes. */
static size_t in_pieces(const megabyte_codec_options *o, const u8 *in, size_t n, size_t piece,
                        u8 *out, size_t room) {
    megabyte_codec *c;
    megabyte_statistics so_far;
    size_t n_out = 0, taken, given;
    MUST(!megabyte_codec_create(&c, model, MEGABYTE_MODE_COMPRESS, o, NULL, NULL));
    for (size_t at = 0, ended = 0; !ended;) {
        size_t some = n - at < piece ? n - at : piece;
        MUST(!megabyte_codec_push(c, in + at, some, &taken) && taken <= some);
        at += taken;
        ended = at == n;
        if (ended) MUST(!megabyte_codec_finish(c));
        else if (at % 7 == 0) MUST(!megabyte_codec_flush(c));
        do {
            MUST(!megabyte_codec_pull(c, out + n_out, room - n_out < 90 ? room - n_out : 90,
                                      &given));
            n_out += given;
        } while (given);
    }
    megabyte_codec_statistics(c, &so_far);
    MUST(so_far.original == n && so_far.compressed <= n_out);
    megabyte_codec_free(c);
    return n_out;
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
    else if (how[4] & 64)
        o.contents = (megabyte_contents)(how[2] / 5 % MEGABYTE_CONTENTS_COUNT),
        o.channels = how[1] % (MEGABYTE_CHANNELS_MAX + 1);
    if (!o.dictionary_size) o.ensemble = how[5] % 3;
    if (how[4] % 4 == 3) n_out = in_pieces(&o, in, n, how[4], packed, sizeof packed);
    else MUST(!megabyte_compress(model, &o, in, n, packed, sizeof packed, &n_out, NULL, &error));
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
    megabyte_codec *c = talker[how[5] % TALKERS];
    MUST(!megabyte_codec_encode(c, in, n, packed, sizeof packed, &n_out) && n_out <= n + 5);
    MUST(!megabyte_codec_decode(c, packed, n_out, out, sizeof out, &got) && got == n &&
         !memcmp(in, out, n));
}

/* ---- right files, a third of each kind: the network alone, contexts alone, mixed */

enum { FILES = 36 };
static struct {
    u8 original[LARGEST], packed[2 * LARGEST];
    size_t n, n_packed;
    int by;
} file[FILES];

static void make_files(void) {
    megabyte_error error;
    u64 noise = 1;
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
            u8 byte, random = (u8)(next_random(&noise) >> 40);
            MUST(!megabyte_stream_sample(stream[0], &how, &byte) &&
                 !megabyte_stream_step(stream[0], byte));
            file[k].original[at] = at % 600 < 300 ? byte : at % 600 < 450 ? 'x' : random;
            if (k % 3 == 1 && at >= 50 && at % 200 >= 50)
                file[k].original[at] = file[k].original[at - 50];
        }
        if (i % 5 == 0) o.dictionary = priming, o.dictionary_size = PRIME, o.context_shift = 0;
        else if (i % 2)
            o.contents = (megabyte_contents)(1 + i / 2 % (MEGABYTE_CONTENTS_COUNT - 1)),
            o.channels = (u32)k % (MEGABYTE_CHANNELS_MAX + 1);
        if (!o.dictionary_size && i % 3 == 1) o.ensemble = 2;
        file[k].by = o.dictionary_size ? (level == 5 ? PRIMED_NETWORK : PRIMED)
                     : level < 5       ? NO_NETWORK
                                       : PLAIN;
        MUST(!megabyte_compress(model, &o, file[k].original, n, file[k].packed,
                                sizeof file[k].packed, &file[k].n_packed, NULL, &error));
    }
}

static void mend_header(u8 *file, size_t n, size_t end) {
    u8 digest[32];
    if (end < 3 || end > n) return;
    sha256(file, end - 2, NULL, 0, digest);
    memcpy(file + end - 2, digest, 2);
}

/* The header's checksum put right, wherever it is. */
static void mend(u8 *bad, size_t n) {
    megabyte_file_header c;
    for (size_t end = 17; end <= n && end < 42; end++) {
        u8 was[2] = {bad[end - 2], bad[end - 1]};
        mend_header(bad, n, end);
        if (!megabyte_file_header_read(bad, n, &c, NULL) && c.header_bytes == end) return;
        memcpy(bad + end - 2, was, 2);
    }
}

/* A right file, spoilt as the bytes say: refused, or its own bytes come out. */
static void spoil_file(const u8 *in, size_t n) {
    static u8 bad[2 * LARGEST], out[LARGEST];
    megabyte_file_header c;
    size_t got;
    if (!file[0].n_packed) make_files();
    pick_from(in, n);
    u32 k = (u32)pick(FILES), mended = pick(3) == 0;
    size_t piece = 1 + (size_t)pick(pick(2) ? 10 : 2000), header;
    memcpy(bad, file[k].packed, file[k].n_packed);
    MUST(!megabyte_file_header_read(bad, file[k].n_packed, &c, NULL));
    header = c.header_bytes;
    n = picks_left ? spoil(bad, file[k].n_packed, sizeof bad, pick) : file[k].n_packed;
    if (mended) mend_header(bad, n, header);
    if (decompress(file[k].by, bad, n, piece, out, &got)) {
        tally("spoilt files refused");
        return;
    }
    MUST(n == 0 || (got % (file[k].n + !file[k].n) == 0 && /* several times, if concatenated */
                    !memcmp(out, file[k].original, min64(got, file[k].n))));
    tally("right all the same");
}

/* In one call: the same answer. */
static void at_once(int by, const u8 *in, size_t n) {
    static u8 out[LARGEST], again[LARGEST];
    size_t got, n_again;
    status r = decompress(by, in, n, LARGEST, out, &got), r2;
    u8 *own = own_copy(in, n);
    r2 = megabyte_decompress(by == NO_NETWORK ? NULL : model, &accepts[by], own, n, again,
                             sizeof again, &n_again, NULL, NULL);
    free(own);
    MUST(r == r2 && (r || (got == n_again && !memcmp(out, again, got))));
    tally(r ? "refused at once" : "decoded at once");
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    static u8 out[LARGEST];
    size_t n;
    if (!model) set_up();
    if (size < 2) return 0;
    u8 how = input[1], *bad = own_copy(input + 2, size -= 2);
    if (how & 32) mend(bad, size);
    switch (input[0] % 6) {
    case 0:
        if (decompress((how >> 6) % DECODERS, bad, size, (size_t)(how & 15) * 50 + 1, out, &n))
            tally("refused");
        else tally("decoded");
        break;
    case 1: headers(bad, size); break;
    case 2: message(bad, size, how); break;
    case 3: round_trip(bad, size); break;
    case 4: spoil_file(bad, size); break;
    default: at_once((how >> 6) % DECODERS, bad, size);
    }
    free(bad);
    return 0;
}

#ifdef STANDALONE
static void make_seeds(void) {
    static u8 seed[2 * LARGEST + 2];
    set_up();
    make_files();
    for (int k = 0; k < FILES; k++) {
        seed[0] = (u8)(k % 5 == 4 ? 5 : 0);
        seed[1] = (u8)(file[k].by << 6 | 32 | 3);
        memcpy(seed + 2, file[k].packed, file[k].n_packed);
        add_seed(seed, 2 + file[k].n_packed);
        seed[0] = (u8)(k % 3 ? 4 : 3); /* a choice of what to spoil; something to compress */
        seed[1] = 0;
        if (k % 3) {
            for (int i = 0; i < 40; i++) seed[2 + i] = (u8)(k * 41 + i * i * 37);
            seed[2] = (u8)k;
            add_seed(seed, 42);
        } else {
            for (int i = 0; i < 6; i++) seed[2 + i] = (u8)(k * 13 + i * i * 29);
            memcpy(seed + 8, file[k].original, file[k].n);
            add_seed(seed, 8 + file[k].n);
        }
    }
    for (int way = 0; way < 24; way++) { /* messages */
        static const char text[] = "It was a dark and stormy night";
        size_t n, capacity = sizeof seed - 2;
        seed[0] = 2, seed[1] = (u8)way;
        megabyte_stream_reset(stream[0]);
        status r = way % 3 ? megabyte_codec_encode(talker[way % TALKERS], text, 30, seed + 2,
                                                   capacity, &n)
                           : megabyte_stream_encode(stream[0], text, 30, seed + 2, capacity, &n);
        MUST(!r);
        add_seed(seed, 2 + n);
    }
}
#endif
