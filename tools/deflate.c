/* deflate.c - writes zlib streams: see deflate.h. Matches are found in hash chains and taken
 * lazily; a block's tokens are coded in whichever is shortest: stored, fixed or dynamic codes.
 * SPDX-License-Identifier: MIT */

#include "deflate.h"

#include <stdlib.h>
#include <string.h>

enum {
    WINDOW = 32768, /* how far back matches reach */
    HASHED = 3, /* bytes */
    LONGEST = 258,
    WORTH = 6, /* shorter matches are left: differences of pixels cost less by themselves */
    HASH_BITS = 15,
    CHAIN = 128, /* places that are looked at */
    GOOD_ENOUGH = 64, /* a match so long is taken without a look at the next byte */
    TOKENS = 32768, /* of a block */
    STORED_MOST = 65535
};

typedef struct token {
    uint16_t length, distance; /* of a match; or 0 and the byte */
} token;

typedef struct code {
    uint16_t bits[LITERALS]; /* reversed: as they are written */
    uint8_t length[LITERALS];
} code;

typedef struct deflater {
    uint8_t *out;
    size_t n;
    uint64_t hold;
    unsigned count;
    uint32_t head[1 << HASH_BITS],
        before[WINDOW]; /* place + 1 of the last with this hash; 0: none */
    token token[TOKENS];
    size_t n_tokens;
    uint32_t used[2][LITERALS]; /* how often: literals and lengths, distances */
    code code[3]; /* the same, and that of code lengths */
    uint8_t length_symbol[LONGEST + 1];
} deflater;

static void put(deflater *d, unsigned bits, unsigned n) { /* n <= 16 */
    d->hold |= (uint64_t)bits << d->count;
    for (d->count += n; d->count >= 8; d->count -= 8, d->hold >>= 8)
        d->out[d->n++] = (uint8_t)d->hold;
}

static unsigned distance_symbol(unsigned distance) {
    unsigned symbol = 0;
    while (symbol < 29 && distance_base[symbol + 1] <= distance) symbol++;
    return symbol;
}

/* ---- codes */

typedef struct weighed {
    uint32_t weight;
    uint16_t symbol;
} weighed;

static int by_weight(const void *a, const void *b) {
    const weighed *x = a, *y = b;
    if (x->weight != y->weight) return x->weight < y->weight ? -1 : 1;
    return x->symbol < y->symbol ? -1 : 1;
}

/* Depths of the leaves of the Huffman tree of n > 1 sorted weights: how many have each depth, of
 * which those beyond `most` are counted as `most`. */
static void count_depths(const weighed *leaf, unsigned n, unsigned most,
                         unsigned count[LONGEST_CODE + 1]) {
    uint64_t weight[LITERALS];
    uint16_t parent[2 * LITERALS], depth[2 * LITERALS];
    unsigned next_leaf = 0, next_node = 0;
    for (unsigned made = 0; made < n - 1; made++) {
        weight[made] = 0;
        for (int child = 0; child < 2; child++) {
            int is_leaf = next_leaf < n &&
                          (next_node == made || leaf[next_leaf].weight <= weight[next_node]);
            weight[made] += is_leaf ? leaf[next_leaf].weight : weight[next_node];
            parent[is_leaf ? next_leaf++ : n + next_node++] = (uint16_t)(n + made);
        }
    }
    depth[2 * n - 2] = 0;
    for (unsigned i = 2 * n - 2; i-- > 0;) {
        depth[i] = (uint16_t)(depth[parent[i]] + 1);
        if (i < n) count[depth[i] < most ? depth[i] : most]++;
    }
}

/* Lengths of up to `most` bits and the codes for them. */
static void make_code(code *c, const uint32_t *used, unsigned n, unsigned most) {
    weighed leaf[LITERALS];
    unsigned n_leaves = 0, count[LONGEST_CODE + 1] = {0}, next[LONGEST_CODE + 2] = {0};
    memset(c, 0, sizeof *c);
    for (unsigned i = 0; i < n; i++)
        if (used[i]) leaf[n_leaves++] = (weighed){used[i], (uint16_t)i};
    if (!n_leaves) return;
    qsort(leaf, n_leaves, sizeof *leaf, by_weight);
    if (n_leaves == 1) count[1] = 1;
    else count_depths(leaf, n_leaves, most, count);
    uint64_t room = 0; /* taken, in units of the longest code */
    for (unsigned k = 1; k <= most; k++) room += (uint64_t)count[k] << (most - k);
    for (; room > 1u << most; room--) { /* two go below a shorter one, in the place of a longest */
        unsigned k = most - 1;
        while (!count[k]) k--;
        count[k]--;
        count[k + 1] += 2;
        count[most]--;
    }
    for (unsigned k = most, i = 0; k > 0; k--)
        for (unsigned times = count[k]; times; times--) c->length[leaf[i++].symbol] = (uint8_t)k;
    for (unsigned k = 1; k <= most; k++) next[k + 1] = (next[k] + count[k]) << 1;
    for (unsigned i = 0; i < n; i++) {
        unsigned value = next[c->length[i]]++, turned = 0;
        for (unsigned k = 0; k < c->length[i]; k++, value >>= 1) turned = turned << 1 | (value & 1);
        c->bits[i] = (uint16_t)turned;
    }
}

static void fixed_code(deflater *d) {
    code *c = d->code;
    for (unsigned i = 0; i < LITERALS; i++) {
        c->length[i] = (uint8_t)(i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8);
        unsigned value = i < 144   ? 0x30 + i
                         : i < 256 ? 0x190 + i - 144
                         : i < 280 ? i - 256
                                   : 0xc0 + i - 280,
                 turned = 0;
        for (unsigned k = 0; k < c->length[i]; k++, value >>= 1) turned = turned << 1 | (value & 1);
        c->bits[i] = (uint16_t)turned;
    }
    for (unsigned i = 0; i < DISTANCES; i++) {
        c[1].length[i] = 5;
        c[1].bits[i] = (uint16_t)((i & 1) << 4 | (i & 2) << 2 | (i & 4) | (i & 8) >> 2 | i >> 4);
    }
}

/* ---- a block's header: the lengths of its codes, runs of them shortened */

typedef struct header {
    uint8_t symbol[LITERALS + DISTANCES], extra[LITERALS + DISTANCES];
    unsigned n, n_literals, n_distances, n_lengths;
    uint32_t used[19];
} header;

static unsigned run_extra_bits(unsigned symbol) {
    return symbol < 16 ? 0 : symbol == 16 ? 2 : symbol == 17 ? 3 : 7;
}

static void add_to_header(header *h, unsigned symbol, unsigned extra) {
    h->symbol[h->n] = (uint8_t)symbol;
    h->extra[h->n++] = (uint8_t)extra;
    h->used[symbol]++;
}

static void make_header(deflater *d, header *h) {
    uint8_t lengths[LITERALS + DISTANCES];
    memset(h, 0, sizeof *h);
    h->n_literals = 286;
    h->n_distances = 30;
    while (h->n_literals > 257 && !d->code[0].length[h->n_literals - 1]) h->n_literals--;
    while (h->n_distances > 1 && !d->code[1].length[h->n_distances - 1]) h->n_distances--;
    memcpy(lengths, d->code[0].length, h->n_literals);
    memcpy(lengths + h->n_literals, d->code[1].length, h->n_distances);
    for (unsigned i = 0, n = h->n_literals + h->n_distances, run; i < n; i += run) {
        for (run = 1; i + run < n && lengths[i + run] == lengths[i];) run++;
        if (!lengths[i] && run >= 3) {
            if (run > 138) run = 138;
            add_to_header(h, run > 10 ? 18 : 17, run > 10 ? run - 11 : run - 3);
        } else if (i && lengths[i] == lengths[i - 1] && run >= 3) {
            if (run > 6) run = 6;
            add_to_header(h, 16, run - 3);
        } else {
            run = 1;
            add_to_header(h, lengths[i], 0);
        }
    }
    make_code(&d->code[2], h->used, 19, 7);
    h->n_lengths = 19;
    while (h->n_lengths > 4 && !d->code[2].length[code_length_order[h->n_lengths - 1]])
        h->n_lengths--;
}

static uint64_t header_bits(const deflater *d, const header *h) {
    uint64_t bits = 14 + 3 * (uint64_t)h->n_lengths;
    for (unsigned i = 0; i < h->n; i++)
        bits += d->code[2].length[h->symbol[i]] + run_extra_bits(h->symbol[i]);
    return bits;
}

static void put_header(deflater *d, const header *h) {
    put(d, h->n_literals - 257, 5);
    put(d, h->n_distances - 1, 5);
    put(d, h->n_lengths - 4, 4);
    for (unsigned i = 0; i < h->n_lengths; i++) put(d, d->code[2].length[code_length_order[i]], 3);
    for (unsigned i = 0; i < h->n; i++) {
        put(d, d->code[2].bits[h->symbol[i]], d->code[2].length[h->symbol[i]]);
        put(d, h->extra[i], run_extra_bits(h->symbol[i]));
    }
}

/* ---- a block */

static uint64_t token_bits(const deflater *d) { /* with the codes as they are */
    uint64_t bits = 0;
    for (unsigned i = 0; i < 286; i++)
        bits += (uint64_t)d->used[0][i] *
                (d->code[0].length[i] + (i > END_OF_BLOCK ? length_extra[i - 257] : 0u));
    for (unsigned i = 0; i < 30; i++)
        bits += (uint64_t)d->used[1][i] * (d->code[1].length[i] + (unsigned)distance_extra[i]);
    return bits;
}

static void put_stored(deflater *d, const uint8_t *in, size_t n, int is_last) {
    do {
        unsigned part = n < STORED_MOST ? (unsigned)n : STORED_MOST;
        put(d, is_last && part == n, 1);
        put(d, 0, 2);
        put(d, 0, (8 - d->count) & 7);
        put(d, part, 16);
        put(d, part ^ 0xffff, 16);
        memcpy(d->out + d->n, in, part);
        d->n += part;
        in += part;
        n -= part;
    } while (n);
}

static void put_tokens(deflater *d) {
    for (size_t i = 0; i < d->n_tokens; i++) {
        token t = d->token[i];
        unsigned literal = t.length ? 257u + d->length_symbol[t.length] : t.distance;
        put(d, d->code[0].bits[literal], d->code[0].length[literal]);
        if (!t.length) continue;
        unsigned symbol = literal - 257, distance = distance_symbol(t.distance);
        put(d, (unsigned)(t.length - length_base[symbol]), length_extra[symbol]);
        put(d, d->code[1].bits[distance], d->code[1].length[distance]);
        put(d, (unsigned)(t.distance - distance_base[distance]), distance_extra[distance]);
    }
    put(d, d->code[0].bits[END_OF_BLOCK], d->code[0].length[END_OF_BLOCK]);
}

static void put_block(deflater *d, const uint8_t *in, size_t n, int is_last) { /* in: its bytes */
    header h;
    d->used[0][END_OF_BLOCK] = 1;
    fixed_code(d);
    uint64_t fixed = token_bits(d), stored = 8 * (uint64_t)n + 48 * (n / STORED_MOST + 1);
    make_code(&d->code[0], d->used[0], 286, LONGEST_CODE);
    make_code(&d->code[1], d->used[1], 30, LONGEST_CODE);
    make_header(d, &h);
    uint64_t dynamic = token_bits(d) + header_bits(d, &h);
    if (stored <= fixed && stored <= dynamic) {
        put_stored(d, in, n, is_last);
    } else {
        put(d, is_last != 0, 1);
        put(d, dynamic < fixed ? 2 : 1, 2);
        if (dynamic < fixed) put_header(d, &h);
        else fixed_code(d);
        put_tokens(d);
    }
    memset(d->used, 0, sizeof d->used);
    d->n_tokens = 0;
}

/* ---- matches */

static unsigned hash_of(const uint8_t *p) {
    uint32_t three = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16;
    return (three * 0x9e3779b1u) >> (32 - HASH_BITS);
}

/* The longest earlier occurrence of what is at `at`, which then becomes known, too. */
static token longest_match(deflater *d, const uint8_t *in, size_t n, size_t at,
                           unsigned longer_than) {
    token best = {0, 0};
    if (n - at < HASHED) return best;
    unsigned most = n - at < LONGEST ? (unsigned)(n - at) : LONGEST, hash = hash_of(in + at);
    uint32_t place = d->head[hash];
    for (int looked = 0; place && at + 1 - place <= WINDOW && looked < CHAIN; looked++) {
        const uint8_t *old = in + place - 1, *new = in + at;
        if (longer_than >= most) break;
        if (old[longer_than] == new[longer_than]) {
            unsigned length = 0;
            while (length < most && old[length] == new[length]) length++;
            if (length > longer_than) {
                longer_than = length;
                best = (token){(uint16_t)length, (uint16_t)(at + 1 - place)};
            }
        }
        place = d->before[(place - 1) % WINDOW];
    }
    d->before[at % WINDOW] = d->head[hash];
    d->head[hash] = (uint32_t)at + 1;
    return best;
}

static void learn(deflater *d, const uint8_t *in, size_t n, size_t from, size_t to) {
    for (size_t at = from; at < to && n - at >= HASHED; at++) {
        unsigned hash = hash_of(in + at);
        d->before[at % WINDOW] = d->head[hash];
        d->head[hash] = (uint32_t)at + 1;
    }
}

static void add_token(deflater *d, token t) {
    d->token[d->n_tokens++] = t;
    d->used[0][t.length ? 257u + d->length_symbol[t.length] : t.distance]++;
    if (t.length) d->used[1][distance_symbol(t.distance)]++;
}

/* A match is taken unless the next byte begins a longer one. */
static void deflate_all(deflater *d, const uint8_t *in, size_t n) {
    size_t at = 0, begin = 0; /* begin: of the block */
    token found = longest_match(d, in, n, at, WORTH - 1);
    while (at < n) {
        token next = {0, 0};
        int looked = found.length && found.length < GOOD_ENOUGH && at + 1 < n;
        if (looked) next = longest_match(d, in, n, at + 1, found.length);
        if (!found.length || next.length) {
            add_token(d, (token){0, in[at++]});
            if (!looked && at < n) next = longest_match(d, in, n, at, WORTH - 1);
            found = next;
        } else {
            add_token(d, found);
            learn(d, in, n, at + 1 + (size_t)looked, at + found.length);
            at += found.length;
            if (at < n) found = longest_match(d, in, n, at, WORTH - 1);
        }
        if (d->n_tokens == TOKENS && at < n) {
            put_block(d, in + begin, at - begin, 0);
            begin = at;
        }
    }
    put_block(d, in + begin, n - begin, 1);
}

/* A block that is not stored is shorter than stored; every block but the last has 32,768 bytes. */
size_t deflate_bound(size_t n) { return n + n / 4096 + 64; }

size_t deflate_zlib(uint8_t *out, const uint8_t *in, size_t n) {
    if (n >= UINT32_MAX) return 0;
    deflater *d = calloc(1, sizeof *d);
    if (!d) return 0;
    d->out = out;
    for (unsigned i = 0; i < 29; i++)
        for (unsigned length = length_base[i]; length < length_base[i] + (1u << length_extra[i]);
             length++)
            if (length <= LONGEST) d->length_symbol[length] = (uint8_t)i;
    put(d, 0x78, 8);
    put(d, 0x9c, 8);
    deflate_all(d, in, n);
    put(d, 0, (8 - d->count) & 7);
    uint32_t sum = adler32(in, n);
    for (int shift = 24; shift >= 0; shift -= 8) put(d, sum >> shift & 255, 8);
    size_t written = d->n;
    free(d);
    return written;
}
