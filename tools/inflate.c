/* inflate.c - reads zlib streams: see deflate.h.
 * SPDX-License-Identifier: MIT */

#include "deflate.h"

#include <string.h>

const uint16_t length_base[29] = {3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                  31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
const uint8_t length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                  2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
const uint16_t distance_base[30] = {1,    2,    3,    4,    5,    7,    9,    13,    17,    25,
                                    33,   49,   65,   97,   129,  193,  257,  385,   513,   769,
                                    1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
const uint8_t distance_extra[30] = {0, 0, 0, 0, 1, 1, 2, 2,  3,  3,  4,  4,  5,  5,  6,
                                    6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13};
const uint8_t code_length_order[19] = {16, 17, 18, 0, 8,  7, 9,  6, 10, 5,
                                       11, 4,  12, 3, 13, 2, 14, 1, 15};

uint32_t adler32(const uint8_t *data, size_t n) {
    uint32_t a = 1, b = 0;
    while (n) {
        size_t part = n < 5552 ? n : 5552; /* as many as 32 bits can sum */
        for (size_t i = 0; i < part; i++) b += a += data[i];
        a %= 65521;
        b %= 65521;
        data += part;
        n -= part;
    }
    return b << 16 | a;
}

/* Bits come lowest first. Past the end they are zero, and `ended` is set. */
typedef struct bit_reader {
    const uint8_t *data;
    size_t n, at;
    uint64_t hold; /* the next `count` bits */
    unsigned count;
    int ended;
} bit_reader;

static void fill(bit_reader *r) {
    for (; r->count <= 56 && r->at < r->n; r->count += 8)
        r->hold |= (uint64_t)r->data[r->at++] << r->count;
}

static void drop(bit_reader *r, unsigned n) {
    if (n > r->count) {
        r->ended = 1;
        r->hold = 0;
        r->count = 0;
        return;
    }
    r->hold >>= n;
    r->count -= n;
}

static unsigned take(bit_reader *r, unsigned n) { /* n <= 16 */
    fill(r);
    unsigned bits = (unsigned)(r->hold & ((1u << n) - 1));
    drop(r, n);
    return bits;
}

/* A canonical Huffman code. Codes of up to FAST_BITS are looked up; longer ones are found by the
 * first code of each length. */
enum { FAST_BITS = 10 };
typedef struct huffman {
    uint16_t fast[1 << FAST_BITS]; /* symbol << 4 | length; 0: a longer code, or none */
    uint16_t count[LONGEST_CODE + 1]; /* codes of each length */
    uint16_t symbol[LITERALS]; /* in the order of their codes */
} huffman;

static unsigned reversed(unsigned code, unsigned length) {
    unsigned result = 0;
    for (unsigned i = 0; i < length; i++) result |= (code >> i & 1) << (length - 1 - i);
    return result;
}

/* 1, or 0 if these lengths are no complete code; a lone symbol may have one bit (or none). */
static int build(huffman *h, const uint8_t *lengths, unsigned n) {
    unsigned next[LONGEST_CODE + 2] = {0}, place[LONGEST_CODE + 2] = {0}, used = 0;
    uint32_t room = 1u << LONGEST_CODE;
    memset(h, 0, sizeof *h);
    for (unsigned i = 0; i < n; i++) h->count[lengths[i]]++;
    used = n - h->count[0];
    h->count[0] = 0;
    for (unsigned k = 1; k <= LONGEST_CODE; k++) {
        uint32_t taken = (uint32_t)h->count[k] << (LONGEST_CODE - k);
        if (taken > room) return 0;
        room -= taken;
        next[k + 1] = (next[k] + h->count[k]) << 1;
        place[k + 1] = place[k] + h->count[k];
    }
    if (room && (used > 1 || (used && !h->count[1]))) return 0;
    for (unsigned i = 0; i < n; i++) {
        unsigned length = lengths[i];
        if (!length) continue;
        unsigned code = next[length]++;
        h->symbol[place[length]++] = (uint16_t)i;
        for (unsigned k = reversed(code, length); length <= FAST_BITS && k < 1u << FAST_BITS;
             k += 1u << length)
            h->fast[k] = (uint16_t)(i << 4 | length);
    }
    return 1;
}

/* The next symbol; -1 if there is none. */
static int decode(bit_reader *r, const huffman *h) {
    fill(r);
    unsigned entry = h->fast[r->hold & ((1u << FAST_BITS) - 1)];
    if (entry) {
        drop(r, entry & 15);
        return r->ended ? -1 : (int)(entry >> 4);
    }
    unsigned code = 0, first = 0, before = 0; /* of this length: the first code; shorter symbols */
    for (unsigned length = 1; length <= LONGEST_CODE; length++) {
        code = code << 1 | (unsigned)(r->hold >> (length - 1) & 1);
        first <<= 1;
        if (code - first < h->count[length]) {
            drop(r, length);
            return r->ended ? -1 : h->symbol[before + code - first];
        }
        first += h->count[length];
        before += h->count[length];
    }
    r->ended |= r->count < LONGEST_CODE;
    return -1;
}

typedef struct inflater {
    bit_reader in;
    uint8_t *out;
    size_t size, n;
    huffman literal, distance;
} inflater;

static const char too_short[] = "its data ends too early", too_long[] = "holds too much data",
                  damaged[] = "its data is damaged";

static const char *inflate_stored(inflater *f) {
    bit_reader *r = &f->in;
    drop(r, r->count & 7);
    unsigned length = take(r, 16), check = take(r, 16);
    if (r->ended) return too_short;
    if (length != (check ^ 0xffff)) return damaged;
    r->at -= r->count / 8; /* whole bytes that were read ahead */
    r->hold = 0;
    r->count = 0;
    if (length > r->n - r->at) return too_short;
    if (length > f->size - f->n) return too_long;
    memcpy(f->out + f->n, r->data + r->at, length);
    f->n += length;
    r->at += length;
    return NULL;
}

static void fixed_codes(inflater *f) {
    uint8_t lengths[LITERALS];
    for (int i = 0; i < LITERALS; i++)
        lengths[i] = (uint8_t)(i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8);
    build(&f->literal, lengths, LITERALS);
    memset(lengths, 5, DISTANCES);
    build(&f->distance, lengths, DISTANCES);
}

static const char *dynamic_codes(inflater *f) {
    bit_reader *r = &f->in;
    uint8_t lengths[LITERALS + DISTANCES] = {0}, of_lengths[19] = {0};
    unsigned n_literals = 257 + take(r, 5), n_distances = 1 + take(r, 5),
             n_lengths = 4 + take(r, 4);
    if (n_literals > 286 || n_distances > 30) return r->ended ? too_short : damaged;
    for (unsigned i = 0; i < n_lengths; i++) of_lengths[code_length_order[i]] = (uint8_t)take(r, 3);
    if (!build(&f->literal, of_lengths, 19)) return r->ended ? too_short : damaged;
    for (unsigned i = 0, n = n_literals + n_distances; i < n;) {
        int symbol = decode(r, &f->literal);
        if (symbol < 0) return r->ended ? too_short : damaged;
        if (symbol < 16) {
            lengths[i++] = (uint8_t)symbol;
            continue;
        }
        if (symbol == 16 && !i) return damaged;
        uint8_t value = symbol == 16 ? lengths[i - 1] : 0;
        unsigned times = symbol == 16   ? 3 + take(r, 2)
                         : symbol == 17 ? 3 + take(r, 3)
                                        : 11 + take(r, 7);
        if (times > n - i) return damaged;
        while (times--) lengths[i++] = value;
    }
    if (r->ended) return too_short;
    int good = lengths[END_OF_BLOCK] && build(&f->literal, lengths, n_literals) &&
               build(&f->distance, lengths + n_literals, n_distances);
    return good ? NULL : damaged;
}

static const char *inflate_coded(inflater *f) {
    bit_reader *r = &f->in;
    for (;;) {
        int symbol = decode(r, &f->literal);
        if (symbol < 0) return r->ended ? too_short : damaged;
        if (symbol == END_OF_BLOCK) return NULL;
        if (symbol < END_OF_BLOCK) {
            if (f->n == f->size) return too_long;
            f->out[f->n++] = (uint8_t)symbol;
            continue;
        }
        symbol -= END_OF_BLOCK + 1;
        if (symbol >= 29) return damaged;
        size_t length = length_base[symbol] + (size_t)take(r, length_extra[symbol]);
        symbol = decode(r, &f->distance);
        if (symbol < 0 || symbol >= 30) return r->ended ? too_short : damaged;
        size_t distance = distance_base[symbol] + (size_t)take(r, distance_extra[symbol]);
        if (r->ended) return too_short;
        if (distance > f->n) return damaged;
        if (length > f->size - f->n) return too_long;
        const uint8_t *from = f->out + f->n - distance; /* may reach into what it writes */
        for (size_t i = 0; i < length; i++) f->out[f->n + i] = from[i];
        f->n += length;
    }
}

const char *inflate_zlib(uint8_t *out, size_t size, const uint8_t *in, size_t n) {
    if (n < 6) return too_short;
    if ((in[0] & 15) != 8 || in[0] >> 4 > 7 || (in[0] << 8 | in[1]) % 31 || in[1] & 32)
        return "its data is not a zlib stream";
    inflater f = {.in = {.data = in, .n = n - 4, .at = 2}, .out = out, .size = size};
    for (unsigned is_last = 0; !is_last;) {
        const char *why = NULL;
        is_last = take(&f.in, 1);
        unsigned kind = take(&f.in, 2);
        if (f.in.ended) return too_short;
        if (kind == 3) return damaged;
        if (kind == 1) fixed_codes(&f);
        if (kind == 2) why = dynamic_codes(&f);
        if (!why) why = kind ? inflate_coded(&f) : inflate_stored(&f);
        if (why) return why;
    }
    if (f.in.at - f.in.count / 8 != f.in.n) return too_long;
    if (f.n < size) return too_short;
    const uint8_t *sum = in + n - 4;
    uint32_t expected = (uint32_t)sum[0] << 24 | (uint32_t)sum[1] << 16 | (uint32_t)sum[2] << 8 |
                        sum[3];
    return adler32(out, size) == expected ? NULL : damaged;
}
