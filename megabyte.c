/* megabyte.c - the implementation of megabyte.h; the contract of every public function stands there.
 * SPDX-License-Identifier: MIT (text at the end of megabyte.h)
 *
 * CONTENTS, in reading order; each section uses only what stands above it (`grep '^/\* ==='` lists them):
 *
 *    1 platform          the only place with compiler and system #ifs
 *    2 bytes and errors  little-endian access, SHA-256, messages
 *    3 memory            one allocation per object, carved into arrays
 *    4 model file        descriptors, the canonical list of tensors, opening and checking
 *    5 scalar numerics   log2, sine and cosine in double, from + - * / only
 *    6 kernels           vectors of 16 lanes in five dialects, then every kernel once, written in them
 *    7 dispatch          what the CPU has; the table of kernels
 *    8 threads           a pool of workers that run the same function, and their barrier
 *    9 stages            one transformer pass over a batch of tokens: the paper's equations
 *   10 hierarchy         engine and stream: bytes -> patches -> stages -> logits
 *   11 streams           the public operations on them
 *   12 sampling
 *   13 self-test
 *
 * ONE ANSWER. Logits must not depend on the machine. The rules, kept everywhere below:
 *    - int8 products are summed in exact integers (no order, no rounding);
 *    - float sums run in one fixed order: along k in matrix products, in 16 lanes (element i to lane i mod 16) and
 *      one tree in norms and softmax;
 *    - only + - * / sqrt, never fused; exp, erf, log, sin, cos are built from them here;
 *    - max(a, b) means a > b ? a : b, so that even NaN behaves alike;
 *    - the caller's rounding mode and flush-to-zero flags are put aside at the API's edge (fp_enter, fp_leave).
 *
 * Section 6 is compiled once per instruction set: this file includes itself with MEGABYTE_PASS naming the dialect. */
#ifndef MEGABYTE_PASS

/* ============================================================================================== 1 platform */

/* Keep the compiler from re-ordering or fusing float arithmetic. gcc obeys per-file options (also under -Ofast);
 * clang obeys the pragma unless told -ffast-math, which cannot be undone from inside a file: refuse.
 * (Measured with gcc 12 and clang 14; engines test the result at creation, see arithmetic_holds.) */
#if defined(__clang__)
#  if defined(__FAST_MATH__)
#    error "megabyte.c promises the same bits everywhere: compile it without -ffast-math / -Ofast"
#  endif
#  pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#  pragma GCC push_options
#  pragma GCC optimize("no-fast-math,no-unsafe-math-optimizations,no-associative-math,no-reciprocal-math")
#  pragma GCC optimize("no-finite-math-only,signed-zeros,fp-contract=off")
#  if defined(__i386__) && !defined(__SSE2_MATH__) /* x87 would round twice; every x86 since 2003 has SSE2 */
#    pragma GCC target("sse2,fpmath=sse")
#  endif
#elif defined(_MSC_VER)
#  pragma fp_contract(off)
#  pragma float_control(precise, on)
#endif

#if !defined(_POSIX_C_SOURCE) && !defined(_GNU_SOURCE)
#  define _POSIX_C_SOURCE 200809L
#endif

#include "megabyte.h"
#include <float.h>
#include <math.h> /* sqrt, sqrtf: correctly rounded by IEEE 754, the only functions of libm in use */
#include <stdarg.h>
#include <stdio.h> /* vsnprintf; fopen where there is no mmap */
#include <stdlib.h>
#include <string.h>

#if !defined(MEGABYTE_NO_FILE)
#  if defined(__unix__) || defined(__APPLE__)
#    define HAVE_MMAP 1
#    include <fcntl.h>
#    include <sys/mman.h>
#    include <sys/stat.h>
#    include <unistd.h>
#  endif
#endif
#if !defined(HAVE_MMAP)
#  define HAVE_MMAP 0
#endif

#if !defined(MEGABYTE_NO_THREADS) && (defined(__unix__) || defined(__APPLE__)) && defined(__GNUC__)
#  define HAVE_THREADS 1
#  include <pthread.h>
#  include <sched.h>
#else
#  define HAVE_THREADS 0
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#  define BIG_ENDIAN_HOST 1
#else
#  define BIG_ENDIAN_HOST 0
#endif

#if !defined(MEGABYTE_NO_SIMD) && defined(__GNUC__) && defined(__x86_64__)
#  define HAVE_X86 1
#  include <cpuid.h>
#  include <immintrin.h>
#else
#  define HAVE_X86 0
#endif
#if !defined(MEGABYTE_NO_SIMD) && defined(__GNUC__) && defined(__aarch64__) && !BIG_ENDIAN_HOST
#  define HAVE_NEON 1
#  include <arm_neon.h>
#  if defined(__linux__)
#    include <sys/auxv.h>
#  elif defined(__APPLE__)
#    include <sys/sysctl.h>
#  endif
#else
#  define HAVE_NEON 0
#endif

#if defined(__GNUC__)
#  define INLINE static inline __attribute__((always_inline))
#  define UNUSED __attribute__((unused))
#  define TARGET(isa) __attribute__((target(isa)))
#  define PREFETCH(p) __builtin_prefetch(p)
#else
#  define INLINE static inline
#  define UNUSED
#  define TARGET(isa)
#  define PREFETCH(p) ((void)0)
#endif

/* ROUNDED(x): the product x is rounded before it is used. clang fuses across statements under -ffp-contract=fast,
 * whatever the pragma says; an empty asm in between stops it and costs nothing. */
#if defined(__clang__) && (defined(__x86_64__) || defined(__SSE2__))
#  define ROUNDED(x) __asm__("" : "+x"(x))
#elif defined(__clang__) && defined(__aarch64__)
#  define ROUNDED(x) __asm__("" : "+w"(x))
#else
#  define ROUNDED(x) ((void)0)
#endif

/* The caller's floating-point environment: put aside (rounding to nearest, no flush to zero), then restored. */
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#  include <xmmintrin.h>
typedef unsigned fp_state;
static void fp_enter(fp_state *s) { *s = _mm_getcsr(); _mm_setcsr(0x1f80); }
static void fp_leave(const fp_state *s) { _mm_setcsr(*s); }
#elif defined(__GNUC__) && defined(__aarch64__)
typedef uint64_t fp_state;
static void fp_enter(fp_state *s) {
    uint64_t zero = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(*s));
    __asm__ volatile("msr fpcr, %0" : : "r"(zero) : "memory");
}
static void fp_leave(const fp_state *s) { __asm__ volatile("msr fpcr, %0" : : "r"(*s) : "memory"); }
#else
#  include <fenv.h>
typedef fenv_t fp_state;
static void fp_enter(fp_state *s) { fegetenv(s); fesetenv(FE_DFL_ENV); }
static void fp_leave(const fp_state *s) { fesetenv(s); }
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int8_t i8;
typedef megabyte_status status;

_Static_assert(sizeof(float) == 4 && FLT_MANT_DIG == 24 && DBL_MANT_DIG == 53, "IEEE 754 floats are needed");

/* Tests and debuggers may define this before including megabyte.c, to see every layer's vectors:
 * x[n] is what `point` ("input", "attention", "feed-forward", "output") left in the residual stream of row `row`. */
#ifndef MEGABYTE_TRACE
#  define MEGABYTE_TRACE(stage, layer, point, row, x, n) ((void)0)
#endif

/* ============================================================================================== 2 bytes and errors */

static u32 get16(const u8 *p) { return (u32)p[0] | (u32)p[1] << 8; }
static u32 get32(const u8 *p) { return get16(p) | get16(p + 2) << 16; }
static u64 get64(const u8 *p) { return (u64)get32(p) | (u64)get32(p + 4) << 32; }
static void put16(u8 *p, u32 v) { p[0] = (u8)v; p[1] = (u8)(v >> 8); }
static void put32(u8 *p, u32 v) { put16(p, v); put16(p + 2, v >> 16); }
static void put64(u8 *p, u64 v) { put32(p, (u32)v); put32(p + 4, (u32)(v >> 32)); }
static float bits_to_f32(u32 v) { float f; memcpy(&f, &v, 4); return f; }
static u32 f32_to_bits(float f) { u32 v; memcpy(&v, &f, 4); return v; }

static u64 round_up(u64 n, u64 to) { return (n + to - 1) / to * to; } /* n <= 2^63 at every call */
static u32 min32(u32 a, u32 b) { return a < b ? a : b; }
static u64 min64(u64 a, u64 b) { return a < b ? a : b; }

/* SHA-256, FIPS 180-4. */
static void sha256_block(u32 h[8], const u8 *p) {
    static const u32 k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2 };
    u32 w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (u32)p[4 * i] << 24 | (u32)p[4 * i + 1] << 16 | (u32)p[4 * i + 2] << 8 | p[4 * i + 3];
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
    for (int i = 16; i < 64; i++) {
        u32 a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (ROR(a, 7) ^ ROR(a, 18) ^ a >> 3) + w[i - 7] + (ROR(b, 17) ^ ROR(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i++) {
        u32 a = s[0], e = s[4];
        u32 t1 = s[7] + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
        u32 t2 = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
#undef ROR
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

/* The digest of the concatenation a[0..n) b[0..m). */
static void sha256(const u8 *a, u64 n, const u8 *b, u64 m, u8 out[32]) {
    u32 h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    u8 block[64];
    u64 total = n + m, done = 0;
    u32 fill = 0;
    while (done < total) {
        const u8 *from = done < n ? a + done : b + (done - n);
        u64 left = done < n ? n - done : total - done;
        if (fill == 0 && left >= 64) {
            sha256_block(h, from);
            done += 64;
        } else {
            u32 take = (u32)min64(left, 64 - fill);
            memcpy(block + fill, from, take);
            fill += take;
            done += take;
            if (fill == 64) { sha256_block(h, block); fill = 0; }
        }
    }
    block[fill++] = 0x80;
    if (fill > 56) { memset(block + fill, 0, 64 - fill); sha256_block(h, block); fill = 0; }
    memset(block + fill, 0, 56 - fill);
    for (int i = 0; i < 8; i++) block[56 + i] = (u8)(total << 3 >> (56 - 8 * i));
    sha256_block(h, block);
    for (int i = 0; i < 32; i++) out[i] = (u8)(h[i / 4] >> (24 - 8 * (i % 4)));
}

uint32_t megabyte_version(void) { return MEGABYTE_VERSION_NUMBER; }

const char *megabyte_status_string(megabyte_status s) {
    switch (s) {
    case MEGABYTE_OK: return "ok";
    case MEGABYTE_INVALID_ARGUMENT: return "invalid argument";
    case MEGABYTE_OUT_OF_MEMORY: return "out of memory";
    case MEGABYTE_IO: return "file cannot be read";
    case MEGABYTE_BAD_MAGIC: return "not a file of this kind";
    case MEGABYTE_BAD_VERSION: return "made by another version";
    case MEGABYTE_TRUNCATED: return "truncated";
    case MEGABYTE_CORRUPT: return "corrupt";
    case MEGABYTE_UNSUPPORTED: return "not supported by this build or CPU";
    case MEGABYTE_WRONG_MODEL: return "belongs to another model";
    case MEGABYTE_CAPACITY: return "out of the kept range, or the buffer is too small";
    case MEGABYTE_ARITHMETIC: return "this build's floating-point arithmetic is not exact";
    }
    return "unknown status";
}

/* Fills *e (may be NULL) and returns s, so that failing is one line. */
#if defined(__GNUC__)
__attribute__((format(printf, 4, 5)))
#endif
static status fail(megabyte_error *e, status s, u64 offset, const char *format, ...) {
    if (e) {
        va_list args;
        va_start(args, format);
        e->status = s;
        e->offset = offset;
        vsnprintf(e->text, sizeof e->text, format, args);
        va_end(args);
    }
    return s;
}

static void clear_error(megabyte_error *e) {
    if (e) memset(e, 0, sizeof *e);
}

/* ============================================================================================== 3 memory */

#define ALIGN 64 /* of every array: a cache line, and the widest vector */

static void *libc_alloc(void *context, size_t size, size_t align) {
    (void)context;
    char *raw = size <= SIZE_MAX - align - sizeof(void *) ? (char *)malloc(size + align + sizeof(void *)) : NULL;
    if (!raw) return NULL;
    char *p = raw + sizeof(void *);
    p += (align - (uintptr_t)p % align) % align;
    memcpy(p - sizeof(void *), &raw, sizeof raw);
    return p;
}
static void libc_free(void *context, void *memory, size_t size) {
    (void)context; (void)size;
    if (memory) {
        void *raw;
        memcpy(&raw, (char *)memory - sizeof raw, sizeof raw);
        free(raw);
    }
}

static status choose_allocator(megabyte_allocator *to, const megabyte_allocator *from, megabyte_error *e) {
    static const megabyte_allocator libc = { libc_alloc, libc_free, NULL };
    *to = from ? *from : libc;
    if (!to->alloc || !to->free) return fail(e, MEGABYTE_INVALID_ARGUMENT, 0, "allocator: set both alloc and free");
    return MEGABYTE_OK;
}

/* Objects are laid out twice by one function: first with base NULL to learn the size, then for real. A size that
 * does not fit is remembered in `overflow`. */
struct arena { u8 *base; u64 used; int overflow; };

static void *carve(struct arena *a, u64 count, u64 size) {
    if (size && count > (UINT64_MAX / 4 - a->used) / size) { a->overflow = 1; return NULL; }
    void *p = a->base ? a->base + a->used : NULL;
    a->used = round_up(a->used + count * size, ALIGN);
    return p;
}
static int arena_fits(const struct arena *a) { return !a->overflow && a->used <= SIZE_MAX / 2; }

/* ============================================================================================== 4 model file */

/* models/README.md describes the file byte by byte. In short, little-endian throughout:
 *   header 128 | stage descriptors 64 each | tensor table 32 each | metadata | zeros to 64 | tensor data
 * Everything before the data is covered by one SHA-256, the data by another. The tensors that must be there, their
 * order, sizes and offsets all follow from the stage descriptors (each_tensor): a file is right or refused. */
#define HEADER_BYTES 128
#define STAGE_BYTES 64
#define TENSOR_BYTES 32
static const u8 model_magic[8] = { 0x8a, 'M', 'B', 'M', 'D', 'L', '\r', '\n' };

enum { FAMILY_LUCIDRAINS = 1 };
enum { POSITION_LEARNED = 1, POSITION_ROTARY = 2 };            /* stage.flags */
enum { TYPE_F32 = 0, TYPE_F32_TILED = 1, TYPE_Q8_TILED = 2 };  /* tensor.type */
enum role {
    ROLE_START, ROLE_POSITION, ROLE_ROTARY, ROLE_EMBED,
    ROLE_PATCH_NORM_IN_WEIGHT, ROLE_PATCH_NORM_IN_BIAS, ROLE_PATCH, ROLE_PATCH_BIAS,
    ROLE_PATCH_NORM_OUT_WEIGHT, ROLE_PATCH_NORM_OUT_BIAS,
    ROLE_ATTENTION_NORM, ROLE_QKV, ROLE_ATTENTION_OUT,
    ROLE_FF_NORM, ROLE_FF_UP, ROLE_FF_UP_BIAS, ROLE_FF_DOWN, ROLE_FF_DOWN_BIAS,
    ROLE_NORM, ROLE_NEXT, ROLE_NEXT_BIAS, ROLE_COUNT
};
static const char *const role_names[ROLE_COUNT] = {
    "start", "position", "rotary", "embed", "patch norm-in weight", "patch norm-in bias", "patch", "patch bias",
    "patch norm-out weight", "patch norm-out bias", "attention norm", "qkv", "attention out", "feed-forward norm",
    "feed-forward up", "feed-forward up bias", "feed-forward down", "feed-forward down bias", "norm", "next", "next bias"
};

struct stage_sizes { u32 dim, layers, heads, head_dim, ff_dim, positions, flags; };
struct sizes { u32 vocabulary, pad_id, family, n_stages; struct stage_sizes stage[MEGABYTE_MAX_STAGES]; };
struct tensor { u32 role, stage, layer, type, rows, cols; u64 offset; };

/* Bytes of the file that one token of stage s stands for: P for stage 0, 1 for the finest. The product is bounded by
 * check_sizes. */
static u64 token_bytes(const struct sizes *z, u32 s) {
    u64 n = 1;
    for (u32 i = s + 1; i < z->n_stages; i++) n *= z->stage[i].positions;
    return n;
}

static int is_matrix(u32 role) {
    return role == ROLE_PATCH || role == ROLE_QKV || role == ROLE_ATTENTION_OUT || role == ROLE_FF_UP ||
           role == ROLE_FF_DOWN || role == ROLE_NEXT;
}

/* Bytes of a tensor's data. rows, cols < 2^32 and types are checked: no overflow. Matrices are kept in tiles of 16
 * output rows, the last tile filled up: f32 as [tile][cols][16]; q8 as [tile][cols/4][16][4] of (weight + 128),
 * cols filled up to a multiple of 4 with 128, then a float scale for each of the 16 * tiles rows. */
static u64 tensor_data_bytes(const struct tensor *t) {
    u64 rows = round_up(t->rows, 16), cols = t->cols;
    if (t->type == TYPE_F32) return (u64)t->rows * cols * 4;
    if (t->type == TYPE_F32_TILED) return rows * cols * 4;
    return rows * round_up(cols, 4) + rows * 4;
}

/* Calls visit for every tensor that a model of these sizes has, in file order, with role, stage, layer, rows and cols
 * set; stops at the first status that is not OK. */
static status each_tensor(const struct sizes *z, status (*visit)(void *context, struct tensor *t), void *context) {
#define VISIT(role_, layer_, rows_, cols_)                                                        \
    do {                                                                                          \
        struct tensor t_ = { role_, s, layer_, 0, (u32)(rows_), (u32)(cols_), 0 };                \
        status r_ = visit(context, &t_);                                                          \
        if (r_) return r_;                                                                        \
    } while (0)
    u32 fine = z->stage[z->n_stages - 1].dim;
    for (u32 s = 0; s < z->n_stages; s++) {
        const struct stage_sizes *g = &z->stage[s];
        u32 inner = g->heads * g->head_dim, last = s + 1 == z->n_stages;
        VISIT(ROLE_START, 0, 1, g->dim);
        if (g->flags & POSITION_LEARNED) VISIT(ROLE_POSITION, 0, g->positions, g->dim);
        if (g->flags & POSITION_ROTARY) VISIT(ROLE_ROTARY, 0, 1, g->head_dim / 2);
        VISIT(ROLE_EMBED, 0, z->vocabulary, fine);
        if (!last) {
            u32 wide = (u32)token_bytes(z, s) * fine;
            VISIT(ROLE_PATCH_NORM_IN_WEIGHT, 0, 1, wide);
            VISIT(ROLE_PATCH_NORM_IN_BIAS, 0, 1, wide);
            VISIT(ROLE_PATCH, 0, g->dim, wide);
            VISIT(ROLE_PATCH_BIAS, 0, 1, g->dim);
            VISIT(ROLE_PATCH_NORM_OUT_WEIGHT, 0, 1, g->dim);
            VISIT(ROLE_PATCH_NORM_OUT_BIAS, 0, 1, g->dim);
        }
        for (u32 l = 0; l < g->layers; l++) {
            VISIT(ROLE_ATTENTION_NORM, l, 1, g->dim);
            VISIT(ROLE_QKV, l, 3 * inner, g->dim);
            VISIT(ROLE_ATTENTION_OUT, l, g->dim, inner);
            VISIT(ROLE_FF_NORM, l, 1, g->dim);
            VISIT(ROLE_FF_UP, l, g->ff_dim, g->dim);
            VISIT(ROLE_FF_UP_BIAS, l, 1, g->ff_dim);
            VISIT(ROLE_FF_DOWN, l, g->dim, g->ff_dim);
            VISIT(ROLE_FF_DOWN_BIAS, l, 1, g->dim);
        }
        VISIT(ROLE_NORM, 0, 1, g->dim);
        u32 next = last ? z->vocabulary : z->stage[s + 1].dim * z->stage[s + 1].positions;
        VISIT(ROLE_NEXT, 0, next, g->dim); /* stage s+1's n rows at once; the finest stage's are the logits */
        VISIT(ROLE_NEXT_BIAS, 0, 1, next);
    }
#undef VISIT
    return MEGABYTE_OK;
}

/* The limits that everything below relies on. Widths up to 2^16 keep an int8 dot product exact:
 * 255 * 127 * 65536 < 2^31. */
#define MAX_WIDTH 65536u
static status check_sizes(const struct sizes *z, megabyte_error *e) {
    u64 at = HEADER_BYTES, wide = 1;
    if (z->family != FAMILY_LUCIDRAINS)
        return fail(e, MEGABYTE_UNSUPPORTED, 36, "model family %u is not known to this version; update megabyte", z->family);
    if (z->n_stages < 2 || z->n_stages > MEGABYTE_MAX_STAGES)
        return fail(e, MEGABYTE_UNSUPPORTED, 40, "%u stages; this version runs 2 to %d", z->n_stages, MEGABYTE_MAX_STAGES);
    if (z->vocabulary < 2 || z->vocabulary > MAX_WIDTH)
        return fail(e, MEGABYTE_UNSUPPORTED, 32, "vocabulary of %u ids; 2 to 65536 are possible", z->vocabulary);
    for (u32 s = 0; s < z->n_stages; s++, at += STAGE_BYTES) {
        const struct stage_sizes *g = &z->stage[s];
        if (!g->dim || g->dim > MAX_WIDTH || !g->ff_dim || g->ff_dim > MAX_WIDTH || !g->heads || !g->head_dim ||
            (u64)g->heads * g->head_dim > MAX_WIDTH)
            return fail(e, MEGABYTE_UNSUPPORTED, at, "stage %u: widths must be 1 to 65536 (dim %u, heads %u x %u, "
                        "feed-forward %u)", s, g->dim, g->heads, g->head_dim, g->ff_dim);
        if (!g->positions || g->positions > 1u << 24 || !g->layers || g->layers > 4096)
            return fail(e, MEGABYTE_UNSUPPORTED, at, "stage %u: %u layers, %u positions", s, g->layers, g->positions);
        if (g->flags & ~(u32)(POSITION_LEARNED | POSITION_ROTARY))
            return fail(e, MEGABYTE_UNSUPPORTED, at + 24, "stage %u: unknown options 0x%x; update megabyte", s, g->flags);
        if ((g->flags & POSITION_ROTARY) && g->head_dim % 2)
            return fail(e, MEGABYTE_UNSUPPORTED, at + 12, "stage %u: rotary positions need an even head width, not %u",
                        s, g->head_dim);
        if (s) {
            wide *= g->positions;
            if (wide > MAX_WIDTH || (u64)g->positions * g->dim > 1u << 24)
                return fail(e, MEGABYTE_UNSUPPORTED, at + 20, "stage %u: patches of %llu bytes are too long", s,
                            (unsigned long long)wide);
        }
    }
    if (wide * z->stage[z->n_stages - 1].dim > MAX_WIDTH)
        return fail(e, MEGABYTE_UNSUPPORTED, HEADER_BYTES, "a patch of %llu bytes x %u wide is beyond 65536",
                    (unsigned long long)wide, z->stage[z->n_stages - 1].dim);
    return MEGABYTE_OK;
}
#endif
