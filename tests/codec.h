/* codec.h - the .mbz format and the messages once more, slow and plain, straight from
 * models/FORMAT.md: what the library writes is compared with what these functions write, byte for
 * byte, and decoded by them. Only what the network alone has coded: of blocks of contexts the
 * headers are read, their code is not.
 *
 * Independent of megabyte.c but for the logits, taken from megabyte_stream_logits one step at a
 * time: own SHA-256, own e^x, own arithmetic coder on numbers of any length. */
#ifndef CODEC_H
#define CODEC_H

#include "test.h"

/* -------------------------------------------------------------------------------------- SHA-256 */

static uint32_t ref_turn(uint32_t v, int by) { return v >> by | v << (32 - by); }

/* The first 32 bits of the fractional part of the n-th root (2 or 3) of a prime, by bisection in
 * integers. */
static uint32_t ref_root(uint64_t prime, int root) {
    uint64_t low = 0, high = (uint64_t)1 << 37; /* of root * 2^32 */
    while (high - low > 1) {
        uint64_t m = (low + high) / 2;
        long double v = (long double)m / 4294967296.0L, power = root == 2 ? v * v : v * v * v;
        if (power <= (long double)prime) low = m;
        else high = m;
    }
    return (uint32_t)low;
}

static void ref_sha256(const uint8_t *bytes, size_t n, uint8_t out[32]) {
    static uint32_t k[64], start[8];
    if (!k[0])
        for (uint64_t p = 2, i = 0; i < 64; p++) {
            uint64_t d = 2;
            while (p % d) d++;
            if (d < p) continue;
            if (i < 8) start[i] = ref_root(p, 2);
            k[i++] = ref_root(p, 3);
        }
    uint32_t h[8];
    memcpy(h, start, sizeof h);
    size_t blocks = (n + 8) / 64 + 1;
    for (size_t b = 0; b < blocks; b++) {
        uint8_t m[64] = {0};
        size_t from = b * 64, count = from < n ? n - from < 64 ? n - from : 64 : 0;
        if (count) memcpy(m, bytes + from, count);
        if (from + count == n && count < 64 && (n % 64 || from == n)) m[count] = 0x80;
        if (b + 1 == blocks)
            for (int i = 0; i < 8; i++) m[63 - i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
        uint32_t w[64], v[8];
        for (int i = 0; i < 64; i++)
            if (i < 16)
                w[i] = (uint32_t)m[4 * i] << 24 | (uint32_t)m[4 * i + 1] << 16 |
                       (uint32_t)m[4 * i + 2] << 8 | m[4 * i + 3];
            else
                w[i] = w[i - 16] + w[i - 7] +
                       (ref_turn(w[i - 15], 7) ^ ref_turn(w[i - 15], 18) ^ w[i - 15] >> 3) +
                       (ref_turn(w[i - 2], 17) ^ ref_turn(w[i - 2], 19) ^ w[i - 2] >> 10);
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 64; i++) {
            uint32_t e = v[4], a = v[0];
            uint32_t t = v[7] + (ref_turn(e, 6) ^ ref_turn(e, 11) ^ ref_turn(e, 25)) +
                         ((e & v[5]) ^ (~e & v[6])) + k[i] + w[i];
            uint32_t u = (ref_turn(a, 2) ^ ref_turn(a, 13) ^ ref_turn(a, 22)) +
                         ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 7 * sizeof *v);
            v[4] += t;
            v[0] = t + u;
        }
        for (int i = 0; i < 8; i++) h[i] += v[i];
    }
    for (int i = 0; i < 32; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* -------------------------------------------------------------------------------- probabilities */

/* One rounding to float each: sums and products of floats are exact enough in double for that. */
static float ref_add(float a, float b) { return (float)((double)a + (double)b); }
static float ref_mul(float a, float b) { return (float)((double)a * (double)b); }

/* e^x for x <= 0, the library's polynomial. */
static float ref_exp(float x) {
    static const float c[] = {8.369599469e-3f, 4.166618735e-2f, 1.666651219e-1f, 5.0e-1f};
    if (x < -87.0f) x = -87.0f;
    float n = ref_add(ref_add(ref_mul(x, 1.44269504f), 12582912.0f), -12582912.0f);
    float r = ref_add(ref_add(x, -ref_mul(n, 0.693359375f)), -ref_mul(n, -2.12194440e-4f));
    float p = 1.395171159e-3f;
    for (size_t i = 0; i < COUNT_OF(c); i++) p = ref_add(ref_mul(p, r), c[i]);
    p = ref_add(ref_add(ref_mul(ref_mul(p, r), r), r), 1.0f);
    return ldexpf(p, (int)n);
}

/* Integer weights of the 256 bytes. */
static void ref_weights(const float *logits, uint64_t weight[256]) {
    float most = logits[0];
    for (int i = 1; i < 256; i++) most = logits[i] > most ? logits[i] : most;
    for (int i = 0; i < 256; i++)
        weight[i] = (uint64_t)((double)ref_exp(ref_add(logits[i], -most)) * 134217728.0) + 1;
}

/* P(the next bit is 1) in units of 2^-22, after the first `depth` bits of a byte, which are
 * `first`. */
static uint64_t ref_bit(const uint64_t weight[256], int depth, int first) {
    uint64_t of[2] = {0, 0};
    for (int i = 0; i < 256; i++)
        if (i >> (8 - depth) == first) of[i >> (7 - depth) & 1] += weight[i];
    uint64_t p = (of[1] << 22) / (of[0] + of[1]);
    return p < 1 ? 1 : p > 4194303 ? 4194303 : p;
}

/* sum of -log2 p over the bytes, p normalised over 256 of them; rows as megabyte_stream_score
 * leaves them */
static UNUSED_OK double ref_ideal_bits(const float *rows, uint32_t v, const uint8_t *bytes,
                                       size_t n) {
    double bits = 0;
    for (size_t t = 0; t < n; t++) {
        double sum = 0, own = (double)rows[t * v + bytes[t]];
        for (int i = 0; i < 256; i++) sum += exp((double)rows[t * v + (size_t)i] - own);
        bits += log2(sum);
    }
    return bits;
}

/* --------------------------------------------------------------------------------------- coding */

/* An interval [low, low + range) of the numbers 0 to 1: low is all of its bytes, the last four of
 * them are those that the range is aligned with. */
typedef struct ref_interval {
    uint8_t *low;
    size_t n, room;
    uint64_t range;
} ref_interval;

static ref_interval ref_whole(void) {
    ref_interval v = {need(64, 1), 4, 64, 0xffffffffu};
    return v;
}

static void ref_narrow(ref_interval *v, uint64_t p, int bit) {
    uint64_t bound = v->range * p >> 22;
    if (bit) v->range = bound;
    else {
        v->range -= bound;
        for (size_t i = v->n; bound; bound >>= 8) {
            bound += v->low[--i];
            v->low[i] = (uint8_t)bound;
        }
    }
    for (; v->range < 1u << 24; v->range <<= 8) {
        if (v->n + 1 > v->room) CHECK((v->low = realloc(v->low, v->room *= 2)), "out of memory");
        v->low[v->n++] = 0;
    }
}

/* Shortest string in the interval, the smallest of these, but no shorter than what narrowing has
 * moved out: so it may end in a zero. Returns its length; frees the interval. */
static size_t ref_end(ref_interval *v, uint8_t *out) {
    uint8_t *high = need(v->n + 1, 1), *try = need(v->n + 1, 1);
    uint64_t carry = v->range;
    size_t k;
    memcpy(high + 1, v->low, v->n); /* both with a byte before the point */
    for (size_t i = v->n; carry; carry >>= 8, i--) {
        carry += high[i];
        high[i] = (uint8_t)carry;
    }
    for (k = v->n - 4; k <= v->n; k++) { /* low, rounded up to k bytes: still below high? */
        int rest = 0;
        memset(try, 0, v->n + 1);
        memcpy(try + 1, v->low, k);
        for (size_t i = k; i < v->n; i++) rest |= v->low[i];
        for (size_t i = k; rest; i--) {
            try[i]++;
            if (try[i] || !i) break;
        }
        if (memcmp(try, high, v->n + 1) < 0) break;
    }
    memcpy(out, try + 1, k);
    free(high);
    free(try);
    free(v->low);
    return k;
}

/* Decoding: where the code lies in the interval, cut to the interval's precision. */
typedef struct ref_code {
    const uint8_t *bytes;
    size_t n;
} ref_code;

static int ref_lower(const ref_interval *v, const ref_code *code, uint64_t p) { /* the next bit */
    uint64_t bound = v->range * p >> 22, at = 0, low = 0;
    int64_t between;
    size_t same = v->n - 4; /* before these 4, code - low is 0 or 1 at most: take 7 bytes */
    size_t from = same > 3 ? same - 3 : 0;
    for (size_t i = from; i < v->n; i++) {
        at = at << 8 | (i < code->n ? code->bytes[i] : 0);
        low = low << 8 | v->low[i];
    }
    between = (int64_t)(at - low) & 0xffffffffffffff;
    if (v->n - from < 7) between &= ((int64_t)1 << 8 * (v->n - from)) - 1;
    return (uint64_t)between < bound;
}

static void ref_encode_byte(ref_interval *v, const megabyte_stream *s, int byte) {
    uint64_t weight[256];
    ref_weights(megabyte_stream_logits(s), weight);
    for (int d = 0; d < 8; d++)
        ref_narrow(v, ref_bit(weight, d, byte >> (8 - d)), byte >> (7 - d) & 1);
}

static int ref_decode_byte(ref_interval *v, const ref_code *code, const megabyte_stream *s) {
    uint64_t weight[256];
    int byte = 0;
    ref_weights(megabyte_stream_logits(s), weight);
    for (int d = 0; d < 8; d++) {
        uint64_t p = ref_bit(weight, d, byte);
        int bit = ref_lower(v, code, p);
        ref_narrow(v, p, bit);
        byte = byte << 1 | bit;
    }
    return byte;
}

/* The code of n bytes, which the stream is stepped through; room for 4 n + 64. */
static UNUSED_OK size_t ref_encode(megabyte_stream *s, const uint8_t *bytes, size_t n,
                                   uint8_t *out) {
    ref_interval v = ref_whole();
    for (size_t i = 0; i < n; i++) {
        ref_encode_byte(&v, s, bytes[i]);
        OK(megabyte_stream_step(s, bytes[i]));
    }
    return ref_end(&v, out);
}

/* The n bytes of a code; 0 if no bytes have just this code. */
static UNUSED_OK int ref_decode(megabyte_stream *s, const uint8_t *coded, size_t n_coded,
                                uint8_t *bytes, size_t n) {
    ref_interval v = ref_whole();
    ref_code code = {coded, n_coded};
    for (size_t i = 0; i < n; i++) {
        bytes[i] = (uint8_t)ref_decode_byte(&v, &code, s);
        OK(megabyte_stream_step(s, bytes[i]));
    }
    uint8_t *again = need(v.n + 1, 1);
    int same = ref_end(&v, again) == n_coded && !memcmp(again, coded, n_coded);
    free(again);
    return same;
}

/* A message: is it stored? | its length + 1 | its bytes, all in one code. */
static void ref_plain(ref_interval *v, uint64_t bits, int n) {
    while (n--) ref_narrow(v, 1 << 21, (int)(bits >> n & 1));
}

static UNUSED_OK void ref_message_head(ref_interval *v, int stored, uint64_t n) {
    static const uint64_t weights[64] = {10,  10,  20, 40, 90, 200,
                                         340, 200, 60, 20, 10}; /* 1 where 0 */
    int digits = 0;
    while ((n + 1) >> digits > 1) digits++;
    ref_narrow(v, 4194304 / 64, stored);
    for (int d = 0; d < 6; d++) {
        uint64_t of[2] = {0, 0};
        for (int i = 0; i < 64; i++)
            if (i >> (6 - d) == digits >> (6 - d))
                of[i >> (5 - d) & 1] += weights[i] ? weights[i] : 1;
        ref_narrow(v, (of[1] << 22) / (of[0] + of[1]), digits >> (5 - d) & 1);
    }
    ref_plain(v, n + 1, digits);
}

static UNUSED_OK size_t ref_message(megabyte_stream *s, int stored, const uint8_t *bytes, size_t n,
                                    uint8_t *out) {
    ref_interval v = ref_whole();
    ref_message_head(&v, stored, n);
    for (size_t i = 0; i < n; i++) {
        if (stored) ref_plain(&v, bytes[i], 8);
        else ref_encode_byte(&v, s, bytes[i]);
        OK(megabyte_stream_step(s, bytes[i]));
    }
    return ref_end(&v, out);
}

/* Stored where that is shorter. Room for 4 n + 64. */
static UNUSED_OK size_t ref_encode_message(megabyte_stream *s, megabyte_stream *scratch,
                                           const uint8_t *bytes, size_t n, uint8_t *out) {
    uint8_t *stored = need(4 * n + 64, 1);
    OK(megabyte_stream_copy(scratch, s));
    size_t coded = ref_message(s, 0, bytes, n, out),
           plain = ref_message(scratch, 1, bytes, n, stored);
    if (plain < coded) memcpy(out, stored, coded = plain);
    free(stored);
    return coded;
}

/* ---------------------------------------------------------------------------------- file format */

enum { REF_STORED, REF_CONSTANT, REF_CODED, REF_CONTEXTS, REF_MIXED, REF_METHODS };

typedef struct ref_header {
    int single, known, has_dictionary, method;
    int no_model; /* format version 2, 3 without flag 8, 4: no id of a model, no blocks of it */
    int ensemble;
    int contents, channels;
    int numerics, context_shift, mixing_memory; /* mixing_memory: 0 to 4, the file's code of it */
    uint8_t model[6], dictionary[4];
    uint64_t size, block_size, coded;
    size_t bytes; /* of the header */
} ref_header;

static size_t ref_put_varint(uint8_t *to, uint64_t v) {
    size_t n = 0;
    for (; v > 127; v >>= 7) to[n++] = (uint8_t)(v | 128);
    to[n++] = (uint8_t)v;
    return n;
}

static int ref_get_varint(const uint8_t *p, size_t n, size_t *at, uint64_t *v) {
    *v = 0;
    for (int shift = 0; *at < n && shift < 63; shift += 7) {
        uint8_t byte = p[(*at)++];
        *v |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return byte || !shift;
    }
    return 0;
}

/* Two bytes that make everything before them right: after a header was changed on purpose. */
static UNUSED_OK void ref_sign_header(uint8_t *header, size_t bytes) {
    uint8_t digest[32];
    ref_sha256(header, bytes - 2, digest);
    memcpy(header + bytes - 2, digest, 2);
}

static const char *ref_read_header(const uint8_t *p, size_t n, ref_header *h) {
    uint8_t digest[32];
    memset(h, 0, sizeof *h);
    if (n < 14 || memcmp(p, "\xb5mbz", 4)) return "magic";
    if (p[4] < 1 || p[4] > 6) return "format version";
    h->no_model = p[4] == 3 ? !(p[5] & 8) : p[4] == 2 || p[4] == 4;
    h->single = p[5] & 1;
    h->known = p[5] >> 1 & 1;
    h->has_dictionary = p[5] >> 2 & 1;
    h->method = p[5] >> 4 & 7;
    if (p[4] > 4 && !(p[5] & 8)) return "flags";
    if (p[5] & (p[4] == 3 || p[4] > 4 ? 0x80 : 0x88) || h->method >= REF_METHODS) return "flags";
    if (h->single ? h->known : h->method != 0) return "flags that exclude each other";
    h->numerics = p[6];
    size_t at = 7;
    if (!h->no_model) memcpy(h->model, p + at, 6), at += 6;
    h->context_shift = p[at] & 15;
    h->mixing_memory = p[at++] >> 4;
    if (h->mixing_memory > 4 || (h->no_model && h->context_shift)) return "shape";
    if (p[4] > 2) h->contents = p[at++];
    if (p[4] == 4) h->channels = p[at++];
    if (p[4] > 4) h->ensemble = p[at++];
    if (p[4] > 2 && (h->has_dictionary || (h->contents && !h->mixing_memory)))
        return "what contents exclude";
    if (p[4] > 4 && (h->contents > 1 || !h->ensemble || h->ensemble > 4 || h->ensemble == 3 ||
                     (!h->contents && (h->ensemble == 1 || p[4] == 6))))
        return "ensemble";
    if (p[4] == 3 ? h->contents != 1 : p[4] == 4 && (h->contents < 2 || h->contents > 6))
        return "contents";
    if (p[4] == 4 && (h->channels < 1 || h->channels > 8)) return "channels";
    if (h->method >= REF_CONTEXTS && !h->mixing_memory) return "context mixing without memory";
    if (h->no_model && (h->method == REF_CODED || h->method == REF_MIXED)) return "no model";
    if (h->single) {
        if (!ref_get_varint(p, n, &at, &h->size)) return "size";
        h->known = 1;
        h->block_size = h->size;
        if (h->method == REF_STORED) h->coded = h->size;
        else if (h->method == REF_CONSTANT) h->coded = 1;
        else if (!ref_get_varint(p, n, &at, &h->coded) || h->coded >= h->size) return "coded size";
        if (!h->size && h->method) return "an empty block that is not stored";
    } else {
        if (!ref_get_varint(p, n, &at, &h->block_size) || !h->block_size) return "block size";
        if (h->known && !ref_get_varint(p, n, &at, &h->size)) return "size";
    }
    if (h->has_dictionary) {
        if (n - at < 4) return "truncated in the prime's id";
        memcpy(h->dictionary, p + at, 4);
        at += 4;
    }
    if (n - at < 2) return "truncated in the header's checksum";
    ref_sha256(p, at, digest);
    if (memcmp(p + at, digest, 2)) return "header checksum";
    h->bytes = at + 2;
    return NULL;
}

/* Decodes n_coded bytes of a block into `out`. */
static const char *ref_block(megabyte_stream *s, const megabyte_stream *primed, int method,
                             const uint8_t *from, size_t n_coded, uint8_t *out, size_t n,
                             const uint8_t *digest) {
    uint8_t got[32];
    if (method == REF_STORED) {
        if (n != n_coded) return "stored size";
        if (n) memcpy(out, from, n);
    } else if (method == REF_CONSTANT) {
        if (n_coded != 1) return "constant size";
        memset(out, from[0], n);
    } else if (method > REF_CODED) {
        return "not decodable by the reference";
    } else {
        OK(megabyte_stream_copy(s, primed));
        if (!ref_decode(s, from, n_coded, out, n)) return "not the code of these bytes";
    }
    ref_sha256(out, n, got);
    return memcmp(got, digest, 4) ? "block checksum" : NULL;
}

typedef struct ref_file {
    const char *wrong; /* NULL if the file is right */
    size_t n, members, blocks[REF_METHODS]; /* bytes; blocks by method, single ones included */
    uint64_t coded; /* bytes of coded payload */
} ref_file;

/* A file being decoded. */
typedef struct ref_reader {
    megabyte_stream *s, *primed; /* primed: what a block's stream begins as */
    const uint8_t *p;
    size_t n, at;
    uint8_t *out;
    size_t capacity;
    ref_file f;
} ref_reader;

/* A block's payload, which is at r->at + before; its checksum is at r->at + check. */
static const char *ref_payload(ref_reader *r, int method, uint64_t size, uint64_t coded,
                               size_t before, size_t check) {
    const uint8_t *at = r->p + r->at;
    if (r->n - r->at < 4 || r->n - r->at - 4 < coded) return "truncated in a block";
    if (size > r->capacity - r->f.n) return "too long";
    const char *wrong = ref_block(r->s, r->primed, method, at + before, coded,
                                  r->out ? r->out + r->f.n : r->out, size, at + check);
    r->at += coded + 4;
    r->f.n += size;
    r->f.blocks[method]++;
    if (method >= REF_CODED) r->f.coded += coded;
    return wrong;
}

static const char *ref_next_block(ref_reader *r, const ref_header *h, int tag) {
    uint64_t size, coded;
    int method = tag - 1;
    if (method >= REF_METHODS || (method >= REF_CONTEXTS && !h->mixing_memory)) return "tag";
    if (!ref_get_varint(r->p, r->n, &r->at, &size) || !size || size > h->block_size)
        return "block size";
    coded = method == REF_STORED ? size : 1;
    if (method >= REF_CODED && (!ref_get_varint(r->p, r->n, &r->at, &coded) || coded >= size))
        return "coded size";
    return ref_payload(r, method, size, coded, 4, 0);
}

/* After the tag 0: the checksum of all that has come since `start`. */
static const char *ref_end_mark(ref_reader *r, const ref_header *h, size_t start) {
    uint8_t digest[32];
    if (r->n - r->at < 8) return "truncated in the end mark";
    ref_sha256(r->out + start, r->f.n - start, digest);
    r->at += 8;
    if (memcmp(digest, r->p + r->at - 8, 8)) return "checksum of everything";
    return h->known && r->f.n - start != h->size ? "size" : NULL;
}

static const char *ref_blocks(ref_reader *r, const ref_header *h) {
    size_t start = r->f.n;
    const char *wrong = NULL;
    while (!wrong) {
        if (r->at >= r->n) return "truncated at a tag";
        int tag = r->p[r->at++];
        if (!tag) return ref_end_mark(r, h, start);
        wrong = ref_next_block(r, h, tag);
    }
    return wrong;
}

static const char *ref_member(ref_reader *r, const megabyte_model *model, const void *dictionary,
                              size_t dictionary_size) {
    megabyte_info info = describe(model);
    ref_header h;
    uint8_t digest[32];
    const char *wrong = ref_read_header(r->p + r->at, r->n - r->at, &h);
    if (wrong) return wrong;
    if (!h.no_model && memcmp(h.model, info.id, 6)) return "model";
    ref_sha256(dictionary, dictionary_size, digest);
    if (h.has_dictionary != (dictionary_size > 0) ||
        (h.has_dictionary && memcmp(h.dictionary, digest, 4)))
        return "dictionary";
    r->at += h.bytes;
    uint64_t context = info.context_bytes >> h.context_shift;
    context = context < info.patch_bytes ? info.patch_bytes : context;
    r->s = new_stream(model, NULL, context);
    r->primed = new_stream(model, NULL, context);
    OK(megabyte_stream_feed(r->primed, dictionary, dictionary_size));
    wrong = h.single ? ref_payload(r, h.method, h.size, h.coded, 0, h.coded) : ref_blocks(r, &h);
    megabyte_stream_free(r->s);
    megabyte_stream_free(r->primed);
    return wrong;
}

/* Decompresses a whole file of one or more members into out[capacity]. */
static UNUSED_OK ref_file ref_decompress(const megabyte_model *model, const void *dictionary,
                                         size_t dictionary_size, const uint8_t *p, size_t n,
                                         uint8_t *out, size_t capacity) {
    ref_reader r = {.p = p, .n = n, .out = out, .capacity = capacity};
    while (!r.f.wrong && (r.at < n || !r.f.members)) {
        r.f.wrong = ref_member(&r, model, dictionary, dictionary_size);
        r.f.members += !r.f.wrong;
    }
    return r.f;
}

/* -------------------------------------------------------------------------------------- writing */

static void ref_append(uint8_t **to, size_t *n, size_t *room, const void *bytes, size_t count) {
    if (*n + count > *room)
        CHECK((*to = realloc(*to, *room = 2 * (*n + count) + 64)), "out of memory");
    if (count) memcpy(*to + *n, bytes, count);
    *n += count;
}

/* A block of a file that is built by hand: what it decodes to and, if its method has one, its
 * code. */
typedef struct mbz_block {
    int method;
    const uint8_t *bytes, *code;
    size_t n, n_code;
} mbz_block;

/* What may be wrong in it. All checksums are made for what is written, but for those that are the
 * fault. */
typedef enum mbz_fault {
    NO_FAULT,
    HEADER_BLOCK_SIZE, /* these four: a size is claimed that is not so; blocks only */
    HEADER_SIZE, /* of everything; blocks only */
    BLOCK_SIZE, /* of every block; in the header if there is just a single one */
    BLOCK_CODE_SIZE, /* likewise, of its code, where it has one */
    LONG_SIZE, /* a block's size takes so many bytes more than it needs; blocks only */
    HEADER_CHECKSUM, /* these three: a bit is turned over */
    BLOCK_CHECKSUM,
    FILE_CHECKSUM, /* blocks only */
    NO_END, /* no end mark; blocks only */
} mbz_fault;

typedef struct mbz_file {
    ref_header header; /* model, numerics, flags; a file of blocks: block_size */
    const uint8_t *dictionary; /* its id goes into the header */
    size_t dictionary_size;
    const mbz_block *blocks;
    size_t n_blocks;
    mbz_fault fault;
    uint64_t claim; /* the size, or how many bytes more */
} mbz_file;

/* A file as it is written, and what it decodes to. */
typedef struct mbz_written {
    uint8_t *bytes, *original;
    size_t n, room, n_original, room_original;
} mbz_written;

static void mbz_put(mbz_written *w, const void *bytes, size_t n) {
    ref_append(&w->bytes, &w->n, &w->room, bytes, n);
}

static void mbz_put_size(mbz_written *w, uint64_t v) {
    uint8_t to[10];
    mbz_put(w, to, ref_put_varint(to, v));
}

/* The same in more bytes than it needs. */
static void mbz_put_long_size(mbz_written *w, uint64_t v, uint64_t more) {
    uint8_t to[10];
    size_t n = ref_put_varint(to, v);
    to[n - 1] |= 128;
    mbz_put(w, to, n);
    while (--more) mbz_put(w, "\x80", 1);
    mbz_put(w, "", 1);
}

static void mbz_put_checksum(mbz_written *w, const mbz_file *f, mbz_fault fault, const void *bytes,
                             size_t n, size_t count) {
    uint8_t digest[32];
    ref_sha256(bytes, n, digest);
    digest[0] ^= f->fault == fault;
    mbz_put(w, digest, count);
}

static uint64_t mbz_size(const mbz_file *f, mbz_fault fault, uint64_t right) {
    return f->fault == fault ? f->claim : right;
}

static void mbz_put_header(mbz_written *w, const mbz_file *f) {
    const ref_header *h = &f->header;
    int known = h->known || f->fault == HEADER_SIZE, method = h->single ? f->blocks->method : 0;
    uint64_t size = 0;
    for (size_t i = 0; i < f->n_blocks; i++) size += f->blocks[i].n;
    uint8_t fixed[14] = {0xb5, 'm', 'b', 'z', h->no_model ? 2 : 1};
    size_t n = 7;
    fixed[5] = (uint8_t)(h->single | known << 1 | (f->dictionary_size > 0) << 2 | method << 4);
    fixed[6] = (uint8_t)h->numerics;
    if (!h->no_model) memcpy(fixed + n, h->model, 6), n += 6;
    fixed[n++] = (uint8_t)(h->context_shift | h->mixing_memory << 4);
    mbz_put(w, fixed, n);
    if (h->single) {
        mbz_put_size(w, mbz_size(f, BLOCK_SIZE, size));
        if (method >= REF_CODED) mbz_put_size(w, mbz_size(f, BLOCK_CODE_SIZE, f->blocks->n_code));
    } else {
        mbz_put_size(w, mbz_size(f, HEADER_BLOCK_SIZE, h->block_size));
        if (known) mbz_put_size(w, mbz_size(f, HEADER_SIZE, size));
    }
    if (f->dictionary_size) mbz_put_checksum(w, f, NO_END, f->dictionary, f->dictionary_size, 4);
    mbz_put_checksum(w, f, HEADER_CHECKSUM, w->bytes, w->n, 2);
}

static void mbz_put_block(mbz_written *w, const mbz_file *f, const mbz_block *b) {
    uint8_t tag = (uint8_t)(b->method + 1);
    if (!f->header.single) {
        mbz_put(w, &tag, 1);
        if (f->fault == LONG_SIZE) mbz_put_long_size(w, b->n, f->claim);
        else mbz_put_size(w, mbz_size(f, BLOCK_SIZE, b->n));
        if (b->method >= REF_CODED) mbz_put_size(w, mbz_size(f, BLOCK_CODE_SIZE, b->n_code));
        mbz_put_checksum(w, f, BLOCK_CHECKSUM, b->bytes, b->n, 4);
    }
    if (b->method >= REF_CODED) mbz_put(w, b->code, b->n_code);
    else mbz_put(w, b->bytes, b->method == REF_CONSTANT ? 1 : b->n);
    if (f->header.single) mbz_put_checksum(w, f, BLOCK_CHECKSUM, b->bytes, b->n, 4);
    ref_append(&w->original, &w->n_original, &w->room_original, b->bytes, b->n);
}

static UNUSED_OK mbz_written mbz_write(const mbz_file *f) {
    mbz_written w = {0};
    mbz_put_header(&w, f);
    for (size_t i = 0; i < f->n_blocks; i++) mbz_put_block(&w, f, &f->blocks[i]);
    if (!f->header.single && f->fault != NO_END) {
        mbz_put(&w, "", 1);
        mbz_put_checksum(&w, f, FILE_CHECKSUM, w.original, w.n_original, 8);
    }
    return w;
}

static UNUSED_OK void mbz_free(mbz_written *w) { free(w->bytes), free(w->original); }

#endif
