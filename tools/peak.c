/* peak.c - see peak.h. The loops are assembly where a compiler could fold or spill them: 12 to 24
 * independent accumulators, enough to hide the latency of any multiply-accumulate unit known;
 * operands stay in registers.
 * SPDX-License-Identifier: MIT */

#include "peak.h"

#define EACH4(X, a, b, c, d) X(a) X(b) X(c) X(d)
#define EACH12(X) EACH4(X, 0, 1, 2, 3) EACH4(X, 4, 5, 6, 7) EACH4(X, 8, 9, 10, 11)
#define EACH24(X) \
    EACH12(X) EACH4(X, 12, 13, 14, 15) EACH4(X, 16, 17, 18, 19) EACH4(X, 20, 21, 22, 23)

/* -------------------------------------------------------------------------------------- plain C */

#if defined(__GNUC__)
#define KEEP(pointer) __asm__ volatile("" : : "r"(pointer) : "memory")
#else
static volatile const void *kept;
#define KEEP(pointer) (kept = (pointer))
#endif

/* operands in L1; lanes that a compiler may put into vectors */
enum { PLAIN_SPAN = 2048, LANES = 16 };

static double int8_plain(const void *memory, size_t size, size_t n) {
    const int8_t *w = memory, *x = w + PLAIN_SPAN;
    int32_t sum[LANES] = {0};
    (void)size;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < PLAIN_SPAN; k += LANES)
            for (size_t r = 0; r < LANES; r++) sum[r] += w[k + r] * x[k + r];
        KEEP(sum);
    }
    return (double)n * PLAIN_SPAN;
}

static double f32_plain(const void *memory, size_t size, size_t n) {
    const float *w = memory, *x = w + PLAIN_SPAN / 4;
    float sum[LANES] = {0};
    (void)size;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < PLAIN_SPAN / 4; k += LANES)
            for (size_t r = 0; r < LANES; r++) sum[r] += w[k + r] * x[k + r];
        KEEP(sum);
    }
    return (double)n * (PLAIN_SPAN / 4);
}

static double read_plain(const void *memory, size_t size, size_t n) {
    const uint64_t *p = memory;
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < size / 8; k += 8)
            for (size_t r = 0; r < 8; r++) sum[r] ^= p[k + r];
        KEEP(sum);
    }
    return (double)n * (double)size;
}

/* --------------------------------------------------------------------------------------- x86-64 */

#if defined(__GNUC__) && defined(__x86_64__)

#define LOW_REGISTERS                                                                        \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define HIGH_REGISTERS                                                                        \
    "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", \
        "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31"

/* name: n times body, which does `work`; setup once */
#define X86_BURST(name, features, setup, body, work, ...)                                 \
    __attribute__((target(features))) static double name(const void *memory, size_t size, \
                                                         size_t n) {                      \
        size_t left = n;                                                                  \
        (void)memory, (void)size;                                                         \
        if (!n) return 0;                                                                 \
        __asm__ volatile(setup "1:\n\t" body "decq %0\n\tjnz 1b\n\tvzeroupper"            \
                         : "+r"(left)                                                     \
                         :                                                                \
                         : "cc", __VA_ARGS__);                                            \
        return (double)n * (work);                                                        \
    }
/* n times over the whole memory */
#define X86_READ(name, features, body, step, ...)                                           \
    __attribute__((target(features))) static double name(const void *memory, size_t size,   \
                                                         size_t n) {                        \
        for (size_t i = 0; i < n; i++) {                                                    \
            const char *p = memory;                                                         \
            size_t left = size / (step);                                                    \
            __asm__ volatile("1:\n\t" body "addq %2, %0\n\tdecq %1\n\tjnz 1b\n\tvzeroupper" \
                             : "+r"(p), "+r"(left)                                          \
                             : "i"(step)                                                    \
                             : "cc", "memory", __VA_ARGS__);                                \
        }                                                                                   \
        return (double)n * (double)size;                                                    \
    }

#define ZERO_512(r) "vpxord %%zmm" #r ", %%zmm" #r ", %%zmm" #r "\n\t"
#define DOT_512(r) "vpdpbusd %%zmm31, %%zmm30, %%zmm" #r "\n\t"
#define FLOAT_512(r) \
    "vmulps %%zmm31, %%zmm30, %%zmm29\n\tvaddps %%zmm29, %%zmm" #r ", %%zmm" #r "\n\t"
#define LOAD_512(r) "vmovdqa64 64*" #r "(%0), %%zmm" #r "\n\t"
#define ZERO_256(r) "vpxor %%ymm" #r ", %%ymm" #r ", %%ymm" #r "\n\t"
#define BYTES_256(r)                                                                 \
    "vpmaddubsw %%ymm15, %%ymm14, %%ymm12\n\tvpmaddwd %%ymm13, %%ymm12, %%ymm12\n\t" \
    "vpaddd %%ymm12, %%ymm" #r ", %%ymm" #r "\n\t"
#define WORDS_256(r) \
    "vpmaddwd %%ymm15, %%ymm14, %%ymm12\n\tvpaddd %%ymm12, %%ymm" #r ", %%ymm" #r "\n\t"
#define FLOAT_256(r) \
    "vmulps %%ymm15, %%ymm14, %%ymm12\n\tvaddps %%ymm12, %%ymm" #r ", %%ymm" #r "\n\t"
#define LOAD_256(r) "vmovdqa 32*" #r "(%0), %%ymm" #r "\n\t"

#define FEATURES_512 "avx512f,avx512bw,avx512vl,avx512vnni"
X86_BURST(int8_avx512, FEATURES_512, EACH24(ZERO_512) EACH4(ZERO_512, 28, 29, 30, 31),
          EACH24(DOT_512), 24 * 64, LOW_REGISTERS, HIGH_REGISTERS)
X86_BURST(f32_avx512, FEATURES_512, EACH24(ZERO_512) EACH4(ZERO_512, 28, 29, 30, 31),
          EACH24(FLOAT_512), 24 * 16, LOW_REGISTERS, HIGH_REGISTERS)
X86_READ(read_avx512, FEATURES_512, EACH4(LOAD_512, 0, 1, 2, 3) EACH4(LOAD_512, 4, 5, 6, 7), 512,
         LOW_REGISTERS)
/* Two exact routes from bytes to 32-bit sums: 32 products in 3 instructions, or 16 (already
 * widened) in 2. */
X86_BURST(bytes_avx2, "avx2", EACH12(ZERO_256) EACH4(ZERO_256, 12, 13, 14, 15), EACH12(BYTES_256),
          12 * 32, LOW_REGISTERS)
X86_BURST(words_avx2, "avx2", EACH12(ZERO_256) EACH4(ZERO_256, 12, 13, 14, 15), EACH12(WORDS_256),
          12 * 16, LOW_REGISTERS)
X86_BURST(f32_avx2, "avx2", EACH12(ZERO_256) EACH4(ZERO_256, 12, 13, 14, 15), EACH12(FLOAT_256),
          12 * 8, LOW_REGISTERS)
X86_READ(read_avx2, "avx2", EACH4(LOAD_256, 0, 1, 2, 3) EACH4(LOAD_256, 4, 5, 6, 7), 256,
         LOW_REGISTERS)
#endif

/* -------------------------------------------------------------------------------------- aarch64 */

#if defined(__GNUC__) && defined(__aarch64__)

#define VECTOR_REGISTERS                                                                           \
    "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", \
        "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v30", "v31"
#define ARM_BURST(name, body, work)                                                             \
    static double name(const void *memory, size_t size, size_t n) {                             \
        size_t left = n;                                                                        \
        (void)memory, (void)size;                                                               \
        if (!n) return 0;                                                                       \
        __asm__ volatile(EACH24(ZERO_NEON) EACH4(ZERO_NEON, 24, 24, 30,                         \
                                                 31) "1:\n\t" body "subs %0, %0, #1\n\tb.ne 1b" \
                         : "+r"(left)                                                           \
                         :                                                                      \
                         : "cc", VECTOR_REGISTERS);                                             \
        return (double)n * (work);                                                              \
    }
#define ZERO_NEON(r) "movi v" #r ".4s, #0\n\t"
/* sdot v[r].4s, v30.16b, v31.16b, as a number: assemblers know the name only where the baseline has
 * the extension */
#define DOT_NEON(r) ".inst 0x4e9f97c0 + " #r "\n\t"
/* usmmla v[r].4s, v30.16b, v31.16b */
#define MATRIX_NEON(r) ".inst 0x4e9fafc0 + " #r "\n\t"
/* Two products of int8 fit 16 bits (but for -128 * -128 twice, which the library's int8 range
 * excludes). */
#define BYTES_NEON(r)                                                     \
    "smull v24.8h, v30.8b, v31.8b\n\tsmlal2 v24.8h, v30.16b, v31.16b\n\t" \
    "sadalp v" #r ".4s, v24.8h\n\t"
#define FLOAT_NEON(r) "fmul v24.4s, v30.4s, v31.4s\n\tfadd v" #r ".4s, v" #r ".4s, v24.4s\n\t"

ARM_BURST(int8_neon_i8mm, EACH24(MATRIX_NEON), 24 * 32)
ARM_BURST(int8_neon_dot, EACH24(DOT_NEON), 24 * 16)
ARM_BURST(int8_neon, EACH24(BYTES_NEON), 24 * 16)
ARM_BURST(f32_neon, EACH24(FLOAT_NEON), 24 * 4)

static double read_neon(const void *memory, size_t size, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const char *p = memory;
        size_t left = size / 128;
        __asm__ volatile(
            "1:\n\tldp q0, q1, [%0]\n\tldp q2, q3, [%0, #32]\n\tldp q4, q5, [%0, #64]\n\t"
            "ldp q6, q7, [%0, #96]\n\tadd %0, %0, #128\n\tsubs %1, %1, #1\n\tb.ne 1b"
            : "+r"(p), "+r"(left)
            :
            : "cc", "memory", VECTOR_REGISTERS);
    }
    return (double)n * (double)size;
}
#endif

/* ---------------------------------------------------------------------------------------- which */

peak_kernels kernels_for(megabyte_isa isa) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (isa == MEGABYTE_ISA_AVX512_VNNI)
        return (peak_kernels){{int8_avx512, NULL}, f32_avx512, read_avx512};
    if (isa == MEGABYTE_ISA_AVX2)
        return (peak_kernels){{bytes_avx2, words_avx2}, f32_avx2, read_avx2};
#elif defined(__GNUC__) && defined(__aarch64__)
    if (isa == MEGABYTE_ISA_NEON_I8MM)
        return (peak_kernels){{int8_neon_i8mm, NULL}, f32_neon, read_neon};
    if (isa == MEGABYTE_ISA_NEON_DOT)
        return (peak_kernels){{int8_neon_dot, NULL}, f32_neon, read_neon};
    if (isa == MEGABYTE_ISA_NEON) return (peak_kernels){{int8_neon, NULL}, f32_neon, read_neon};
#endif
    (void)isa;
    return (peak_kernels){{int8_plain, NULL}, f32_plain, read_plain};
}
