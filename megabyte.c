/* megabyte.c - the implementation of megabyte.h; the contract of every public function stands
 * there.
 * SPDX-License-Identifier: MIT (text at the end of megabyte.h)
 *
 * CONTENTS, in reading order; each section uses only what stands above it (tests/sections.sh):
 *
 *    1 platform           the only place with compiler and system #ifs
 *    2 bytes and errors   little-endian access, SHA-256, messages
 *    3 memory             one allocation per object, carved into arrays
 *    4 model file         descriptors, the canonical list of tensors, opening, checking, describing
 *    5 scalar numerics    log2, sine and cosine in double, from + - * / only
 *    6 kernels            what every instruction set provides; 21 and 22 are compiled here
 *    7 dispatch           what the CPU has
 *    8 threads            a pool of workers that run one function and claim its work in chunks
 *    9 objects            engine, stream, and what a call asks of them
 *   10 transformer        embed, attend, deliver: one pass of a stage over a batch of tokens
 *   11 schedule           jobs -> rounds -> passes; sliding; drafted bytes, taken or dropped
 *   12 engine             layout and creation
 *   13 streams            the public operations on them; drafting; saved states
 *   14 sampling           one byte, and the loop of generating
 *   15 arithmetic coding  probabilities -> decisions -> code           (15 to 18: the codec, which
 *   16 context mixing     bit histories that learn from the data        MEGABYTE_NO_CODEC drops)
 *   17 messages           raw codes of single messages
 *   18 compressed files   the .mbz file, and the codec that cuts data into blocks
 *   19 images             pixels <-> a model's order; pictures coded by model and context mixing
 *   20 self-test
 *   21 vector operations  16 lanes at a time, one chapter per instruction set
 *   22 kernels            written in them, once for all
 *
 * WORDS
 *    stage          a transformer; 0 is the paper's global model, the last one its local model
 *    patch          the bytes that one token of stage 0 stands for
 *    prefill        running a stage over many tokens at once, as opposed to a step of generation
 *    job, round     what a call asks of one stream; what is computed of all jobs at a time
 *    pass, phase    a stage run over a batch of rows; a part of it that all threads finish together
 *    draft          bytes guessed beyond the one that is known, run as further rows of its pass
 *    output         a stage's last product: the next stage's inputs, or logits
 *    context        what precedes a byte: a stream's window, or what an input of the mixer looks at
 *    context shift  how far a stream's context is shifted right: each bit halves it
 *    dictionary     bytes that come before every block or message, on both sides
 *    backend, lane  an instruction set's vector operations; one of their 16 elements
 *
 * ONE ANSWER. Logits must not depend on the machine. The rules, kept everywhere below:
 *    - int8 products are summed in exact integers (no order, no rounding);
 *    - float sums run in one fixed order: along k in matrix products, in 16 lanes (element i to
 *      lane i mod 16) and one tree in norms and softmax;
 *    - only + - * / sqrt, never fused; exp, erf, log, sin, cos are built from them here;
 *    - max(a, b) means a > b ? a : b, so that even NaN behaves alike;
 *    - the caller's rounding mode and flush-to-zero flags are put aside at the API's edge
 *      (fp_enter, fp_leave).
 *
 * Sections 21 and 22 are compiled once per instruction set: section 6 includes this file again with
 * MEGABYTE_BACKEND naming it. */
#ifndef MEGABYTE_BACKEND

/* ================================================================================ 1 platform */

/* Keep the compiler from re-ordering or fusing float arithmetic. gcc obeys per-file options (also
 * under -Ofast); clang obeys the pragma unless told -ffast-math, which cannot be undone from inside
 * a file: refuse. (Measured with gcc 12 and clang 14; engines test the result at creation, see
 * arithmetic_fingerprint.) */
#if defined(__clang__)
#if defined(__FAST_MATH__)
#error "megabyte.c promises the same bits everywhere: compile it without -ffast-math / -Ofast"
#endif
#if defined(__i386__) && !defined(__SSE2_MATH__)
#error "x87 floating point rounds twice: compile megabyte.c with -msse2"
#endif
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC push_options
#pragma GCC optimize( \
    "no-fast-math,no-unsafe-math-optimizations,no-associative-math,no-reciprocal-math")
#pragma GCC optimize("no-finite-math-only,signed-zeros,fp-contract=off,excess-precision=fast")
#if (defined(__i386__) || defined(__x86_64__)) && \
    !defined(__SSE2_MATH__) /* x87 would round twice */
#pragma GCC target("sse2,fpmath=sse")
#endif
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#pragma float_control(precise, on)
#endif

#if defined(__APPLE__)
#define _DARWIN_C_SOURCE
#elif !defined(_POSIX_C_SOURCE) && !defined(_GNU_SOURCE)
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* madvise */
#endif
#if !defined(_FILE_OFFSET_BITS)
#define _FILE_OFFSET_BITS 64 /* files that are too large for 32 bits are told so */
#endif

#if defined(__cplusplus)
#error "megabyte.c is C11: compile it as C and link it; megabyte.h may be included from C++"
#endif
#include "megabyte.h"
#include <float.h>
#include <stdarg.h>
#if defined(__has_include)
#if !__has_include(<math.h>)
#define NO_LIBC_HEADERS
#endif
#endif
#if !defined(NO_LIBC_HEADERS)
/* sqrt, sqrtf: correctly rounded by IEEE 754, the only functions of libm in use */
#include <math.h>
#include <stdio.h> /* vsnprintf; fopen where nothing can be mapped */
#include <stdlib.h>
#include <string.h>
#else /* a compiler alone (wasm32-unknown-unknown): with MEGABYTE_NO_FILE these must be linked */
#define sqrt __builtin_sqrt /* with -fno-math-errno an instruction */
#define sqrtf __builtin_sqrtf
#define INFINITY __builtin_inff()
void *malloc(size_t size); /* by what has no allocator of the caller's */
void free(void *memory);
void *memchr(const void *s, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
int strcmp(const char *a, const char *b);
size_t strlen(const char *s);
int snprintf(char *to, size_t size, const char *format, ...);
int vsnprintf(char *to, size_t size, const char *format, va_list args);
#endif

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#define NOGDI
#if !defined(_WIN32_WINNT) || _WIN32_WINNT < 0x0601
#undef _WIN32_WINNT
#define _WIN32_WINNT 0x0601 /* Windows 7: condition variables */
#endif
#include <windows.h>
#undef near
#undef far
#endif

#if !defined(MEGABYTE_NO_FILE) && (defined(__unix__) || defined(__APPLE__))
#define HAVE_POSIX_FILES 1
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#define HAVE_POSIX_FILES 0
#endif

#if defined(MEGABYTE_NO_CODEC)
#define HAVE_CODEC 0
#else
#define HAVE_CODEC 1
#endif
/* Memory that is read all over, again and again: the system may lay it out in large pages. Small
 * scattered ones cost address translations, and lines of the caches where they collide: one stream
 * is slower by a quarter and more without, 64 streams' mixers by a sixth (mbrun bench --mmap). */
#define LARGE_PAGE ((size_t)1 << 21)
static void advise_large_pages(void *memory, size_t bytes) {
#if HAVE_POSIX_FILES && defined(MADV_HUGEPAGE)
    uintptr_t from = ((uintptr_t)memory + LARGE_PAGE - 1) & ~(uintptr_t)(LARGE_PAGE - 1);
    uintptr_t to = ((uintptr_t)memory + bytes) & ~(uintptr_t)(LARGE_PAGE - 1);
    if (from < to)
        madvise((void *)from, to - from, MADV_HUGEPAGE); /* advice: failing does no harm */
#else
    (void)memory;
    (void)bytes;
#endif
}

#if !defined(MEGABYTE_NO_THREADS) && defined(__GNUC__) && \
    (defined(__unix__) || defined(__APPLE__) || defined(_WIN32))
#define HAVE_THREADS 1
#if !defined(_WIN32)
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>
#if defined(__linux__) && (defined(_DEFAULT_SOURCE) || defined(_GNU_SOURCE))
#include <sys/syscall.h> /* sched_getaffinity's types want _GNU_SOURCE */
#endif
#endif
#else
#define HAVE_THREADS 0
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define BIG_ENDIAN_HOST 1
#else
#define BIG_ENDIAN_HOST 0
#endif

#if !defined(MEGABYTE_NO_SIMD) && defined(__GNUC__) && defined(__x86_64__)
#define HAVE_X86 1
#include <cpuid.h>
#include <immintrin.h>
#else
#define HAVE_X86 0
#endif
#if !defined(MEGABYTE_NO_SIMD) && defined(__GNUC__) && defined(__aarch64__) && !BIG_ENDIAN_HOST
#define HAVE_NEON 1
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif
#else
#define HAVE_NEON 0
#endif
#if !defined(MEGABYTE_NO_SIMD) && defined(__wasm_simd128__)
#define HAVE_SIMD128 1
#include <wasm_simd128.h>
#else
#define HAVE_SIMD128 0
#endif

/* The empty statement: gcc takes a function that only prefetches for one without effect and drops
 * its calls. */
#if defined(__GNUC__)
#define PREFETCH(p)            \
    do {                       \
        __builtin_prefetch(p); \
        __asm__ volatile("");  \
    } while (0)
#else
#define PREFETCH(p) ((void)(p))
#endif
#if defined(__GNUC__) && !defined(__clang__) /* clang does it by itself */
#define UNROLLED _Pragma("GCC unroll 16")
#else
#define UNROLLED
#endif
#if defined(__MINGW32__) && !defined(__clang__)
#define PRINTF_KIND gnu_printf /* C's formats, not those of Windows */
#else
#define PRINTF_KIND printf
#endif
#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define TARGET(isa) __attribute__((target(isa)))
#else
#define INLINE static inline
#define TARGET(isa)
#endif

/* gcc's and clang's spelling of the extensions for products of int8; gcc's vdotq_s32 and
 * vusmmlaq_s32 cannot be inlined into code for a lesser -march, so the instructions are given to
 * the assembler. */
#if defined(__clang__)
#define TARGET_DOTPROD "dotprod"
#define TARGET_I8MM "dotprod,i8mm"
#else
#define TARGET_DOTPROD "+dotprod"
#define TARGET_I8MM "+dotprod+i8mm"
#endif
#if defined(__clang__) || defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_SVE)
#define SDOT_ARCH
#define I8MM_ARCH
#else
#define SDOT_ARCH ".arch armv8.2-a+dotprod\n\t"
#define I8MM_ARCH ".arch armv8.2-a+dotprod+i8mm\n\t"
#endif

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t i32;
typedef int64_t i64;
typedef int16_t i16;
typedef int8_t i8;
typedef megabyte_status status;

/* ROUNDED(x): the product x is rounded before it is used. clang fuses across statements under
 * -ffp-contract=fast, whatever the pragma says; an empty asm in between stops it and costs
 * nothing. */
#if defined(__clang__) && (defined(__x86_64__) || defined(__SSE2__))
#define ROUNDED(x) __asm__("" : "+x"(x))
#elif defined(__clang__) && defined(__aarch64__)
#define ROUNDED(x) __asm__("" : "+w"(x))
#elif defined(__clang__) && (defined(__s390x__) || defined(__riscv_flen) || defined(__powerpc__))
#define ROUNDED(x) __asm__("" : "+f"(x))
#elif defined(__clang__) && defined(__arm__) && defined(__ARM_FP)
#define ROUNDED(x) __asm__("" : "+t"(x))
#else
#define ROUNDED(x) ((void)0)
#endif
#if defined(__clang__)
#define ROUNDED_512(x) __asm__("" : "+v"(x)) /* of a 512-bit register */
#else
#define ROUNDED_512(x) ((void)0)
#endif

/* The caller's floating-point environment is put aside (to nearest, no flush to zero), then
 * restored. */
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#include <xmmintrin.h>
typedef struct {
    u32 sse;
    u16 x87;
} fp_state; /* the x87 too: a 32-bit libm takes its sqrt there */
static void fp_enter(fp_state *s) {
    u16 usual = 0x37f;
    s->sse = _mm_getcsr();
    _mm_setcsr(0x1f80);
    __asm__ volatile("fnstcw %0" : "=m"(s->x87));
    __asm__ volatile("fldcw %0" : : "m"(usual));
}
static void fp_leave(const fp_state *s) {
    _mm_setcsr(s->sse);
    __asm__ volatile("fldcw %0" : : "m"(s->x87));
}
#elif defined(__GNUC__) && defined(__aarch64__)
typedef u64 fp_state;
static void fp_enter(fp_state *s) {
    uint64_t zero = 0;
    __asm__ volatile("mrs %0, fpcr" : "=r"(*s));
    __asm__ volatile("msr fpcr, %0" : : "r"(zero) : "memory");
}
static void fp_leave(const fp_state *s) { __asm__ volatile("msr fpcr, %0" : : "r"(*s) : "memory"); }
#elif defined(__wasm__) /* which has none */
typedef char fp_state;
static void fp_enter(fp_state *s) { *s = 0; }
static void fp_leave(const fp_state *s) { (void)s; }
#else
#include <fenv.h>
typedef fenv_t fp_state;
static void fp_enter(fp_state *s) {
    fegetenv(s);
    fesetenv(FE_DFL_ENV);
}
static void fp_leave(const fp_state *s) { fesetenv(s); }
#endif

/* Threads: pthreads, or Windows'. */
#if HAVE_THREADS && defined(_WIN32)
typedef HANDLE thread_handle;
typedef SRWLOCK thread_lock;
typedef CONDITION_VARIABLE thread_signal;
#define THREAD_RESULT DWORD WINAPI
static void lock(thread_lock *l) { AcquireSRWLockExclusive(l); }
static void unlock(thread_lock *l) { ReleaseSRWLockExclusive(l); }
static void wait_for(thread_signal *s, thread_lock *l) {
    SleepConditionVariableSRW(s, l, INFINITE, 0);
}
static void wake_all(thread_signal *s) { WakeAllConditionVariable(s); }
static void yield_core(void) { SwitchToThread(); }
static int prepare_waiting(thread_signal *s, thread_lock *l) {
    InitializeSRWLock(l);
    InitializeConditionVariable(s);
    return 1;
}
static void end_waiting(thread_signal *s, thread_lock *l) { (void)s, (void)l; }
/* Of the threads, the first one is the caller's own. Returns how many there are then. */
static u32 launch_threads(thread_handle *t, u32 n, DWORD(WINAPI *run)(void *), void *context) {
    u32 i = 1;
    while (i < n && (t[i] = CreateThread(NULL, 0, run, context, 0, NULL))) i++;
    return i;
}
static void join_thread(thread_handle t) {
    WaitForSingleObject(t, INFINITE);
    CloseHandle(t);
}
static i64 process_number(void) { return 0; } /* nothing forks */
static u32 allowed_cores(void) { /* 0: unknown */
    DWORD_PTR own, all;
    return GetProcessAffinityMask(GetCurrentProcess(), &own, &all)
               ? (u32)__builtin_popcountll((u64)own)
               : 0;
}
#elif HAVE_THREADS
typedef pthread_t thread_handle;
typedef pthread_mutex_t thread_lock;
typedef pthread_cond_t thread_signal;
#define THREAD_RESULT void *
static void lock(thread_lock *l) { pthread_mutex_lock(l); }
static void unlock(thread_lock *l) { pthread_mutex_unlock(l); }
static void wait_for(thread_signal *s, thread_lock *l) { pthread_cond_wait(s, l); }
static void wake_all(thread_signal *s) { pthread_cond_broadcast(s); }
static void yield_core(void) { sched_yield(); }
static int prepare_waiting(thread_signal *s, thread_lock *l) {
    if (pthread_mutex_init(l, NULL)) return 0;
    if (!pthread_cond_init(s, NULL)) return 1;
    pthread_mutex_destroy(l);
    return 0;
}
static void end_waiting(thread_signal *s, thread_lock *l) {
    pthread_cond_destroy(s);
    pthread_mutex_destroy(l);
}
/* Of the threads, the first one is the caller's own. Returns how many there are then. Their stacks
 * are the system's usual ones, but never so small (`ulimit -s 64`, musl) that an unoptimised build,
 * whose kernels take 70 KB, would not fit. */
#define LEAST_STACK ((size_t)256 << 10)
static u32 launch_threads(thread_handle *t, u32 n, void *(*run)(void *), void *context) {
    /* Signals are for the program's own threads, but for those that tell of a thread's own faults:
     * a mapped file that was cut off, say. */
    static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t all, own;
    pthread_attr_t how;
    size_t stack;
    u32 i = 1;
    if (pthread_attr_init(&how)) return i;
    if (!pthread_attr_getstacksize(&how, &stack) && stack < LEAST_STACK)
        pthread_attr_setstacksize(&how, LEAST_STACK);
    sigfillset(&all);
    for (size_t k = 0; k < sizeof faults / sizeof *faults; k++) sigdelset(&all, faults[k]);
    pthread_sigmask(SIG_SETMASK, &all, &own);
    while (i < n && !pthread_create(&t[i], &how, run, context)) i++;
    pthread_sigmask(SIG_SETMASK, &own, NULL);
    pthread_attr_destroy(&how);
    return i;
}
static void join_thread(thread_handle t) { pthread_join(t, NULL); }
static i64 process_number(void) { return (i64)getpid(); }
static u32 allowed_cores(void) { /* 0: unknown */
#if defined(SYS_sched_getaffinity)
    unsigned long mask[128];
    long bytes = syscall(SYS_sched_getaffinity, 0, sizeof mask, mask);
    u32 n = 0;
    for (long i = 0; i < bytes / (long)sizeof *mask; i++) n += (u32)__builtin_popcountl(mask[i]);
    if (n) return n;
#endif
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (u32)online : 0;
}
#endif

#if HAVE_THREADS
/* Threads without a core only keep the others waiting: 8 on 2 cores wrote a third slower than 2. */
#ifndef MEGABYTE_ALL_THREADS
#define MEGABYTE_ALL_THREADS 0
#endif
static u32 useful_threads(u32 threads) {
    u32 cores = MEGABYTE_ALL_THREADS ? 0 : allowed_cores();
    return cores && cores < threads ? cores : threads;
}
#endif

/* Files: POSIX's, Windows', or libc's, which cannot be mapped. file_open gives 1, 0 (cannot be
 * opened) or -1 (no regular file); file_read the bytes read, 0 at the end, -1 if it failed. */
#if HAVE_POSIX_FILES
#define HAVE_MMAP 1
typedef int file_handle;
static void file_close(file_handle f) { close(f); }
static int file_open(file_handle *f, const char *path, u64 *bytes) {
    struct stat st; /* O_NONBLOCK: opening a pipe must not wait; it is refused */
    *f = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*f < 0) return 0;
    if (!fstat(*f, &st) && S_ISREG(st.st_mode) && st.st_size >= 0) {
        *bytes = (u64)st.st_size;
        return 1;
    }
    file_close(*f);
    return -1;
}
static i64 file_read(file_handle f, void *to, size_t n) {
    for (;;) {
        ssize_t got = read(f, to, n);
        if (got >= 0 || errno != EINTR) return got;
    }
}
static void *file_map(file_handle f, size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, f, 0);
    return p == MAP_FAILED ? NULL : p;
}
static void file_unmap(void *mapping, size_t bytes) { munmap(mapping, bytes); }
#elif !defined(MEGABYTE_NO_FILE) && defined(_WIN32)
#define HAVE_MMAP 1
typedef HANDLE file_handle;
static void file_close(file_handle f) { CloseHandle(f); }
static int file_open(file_handle *f, const char *path, u64 *bytes) { /* path: UTF-8 */
    LARGE_INTEGER size;
    const DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, NULL, 0);
    wchar_t *wide = n > 0 ? malloc((size_t)n * sizeof *wide) : NULL;
    if (!wide) return 0;
    MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, n);
    *f = CreateFileW(wide, GENERIC_READ, share, NULL, OPEN_EXISTING, 0, NULL);
    free(wide);
    if (*f == INVALID_HANDLE_VALUE) return 0;
    if (GetFileType(*f) == FILE_TYPE_DISK && GetFileSizeEx(*f, &size)) {
        *bytes = (u64)size.QuadPart;
        return 1;
    }
    file_close(*f);
    return -1;
}
static i64 file_read(file_handle f, void *to, size_t n) {
    DWORD got;
    return ReadFile(f, to, (DWORD)(n < 1 << 30 ? n : 1 << 30), &got, NULL) ? (i64)got : -1;
}
static void *file_map(file_handle f, size_t bytes) {
    HANDLE mapping = CreateFileMappingW(f, NULL, PAGE_READONLY, 0, 0, NULL);
    void *p = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, bytes) : NULL;
    if (mapping) CloseHandle(mapping); /* the view keeps it */
    return p;
}
static void file_unmap(void *mapping, size_t bytes) {
    (void)bytes;
    UnmapViewOfFile(mapping);
}
#elif !defined(MEGABYTE_NO_FILE)
#define HAVE_MMAP 0
typedef FILE *file_handle;
static void file_close(file_handle f) { fclose(f); }
static int file_open(file_handle *f, const char *path, u64 *bytes) {
    long size = -1;
    *f = fopen(path, "rb");
    if (!*f) return 0;
    if (!fseek(*f, 0, SEEK_END)) size = ftell(*f);
    *bytes = (u64)size;
    if (size >= 0 && !fseek(*f, 0, SEEK_SET)) return 1;
    file_close(*f);
    return -1;
}
static i64 file_read(file_handle f, void *to, size_t n) {
    size_t got = fread(to, 1, n, f);
    return got || !ferror(f) ? (i64)got : -1;
}
static void *file_map(file_handle f, size_t bytes) {
    (void)f, (void)bytes;
    return NULL;
}
static void file_unmap(void *mapping, size_t bytes) { (void)mapping, (void)bytes; }
#endif

_Static_assert(sizeof(float) == 4 && FLT_MANT_DIG == 24 && DBL_MANT_DIG == 53,
               "IEEE 754 floats are needed");

/* Tests and debuggers may define this before including megabyte.c, to see every layer's vectors:
 * x[n] is what `point` ("input", "attention", "feed-forward", "output") left in the residual stream
 * of row `row`. */
#ifndef MEGABYTE_TRACE
#define MEGABYTE_TRACE(stage, layer, point, row, x, n) ((void)0)
#endif

/* =========================================================================== 2 bytes and errors */

static u32 get16(const u8 *p) { return (u32)p[0] | (u32)p[1] << 8; }
static u32 get32(const u8 *p) { return get16(p) | get16(p + 2) << 16; }
static u64 get64(const u8 *p) { return (u64)get32(p) | (u64)get32(p + 4) << 32; }
static void put16(u8 *p, u32 v) {
    p[0] = (u8)v;
    p[1] = (u8)(v >> 8);
}
static void put32(u8 *p, u32 v) {
    put16(p, v);
    put16(p + 2, v >> 16);
}
static void put64(u8 *p, u64 v) {
    put32(p, (u32)v);
    put32(p + 4, (u32)(v >> 32));
}
static float bits_to_f32(u32 v) {
    float f;
    memcpy(&f, &v, 4);
    return f;
}
static u32 f32_to_bits(float f) {
    u32 v;
    memcpy(&v, &f, 4);
    return v;
}

static u64 round_up(u64 n, u64 to) { return (n + to - 1) / to * to; } /* n <= 2^63 at every call */
static u32 min32(u32 a, u32 b) { return a < b ? a : b; }
static u64 min64(u64 a, u64 b) { return a < b ? a : b; }

/* SHA-256, FIPS 180-4. */
static void sha256_block(u32 h[8], const u8 *p) {
    static const u32 k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2};
    u32 w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (u32)p[4 * i] << 24 | (u32)p[4 * i + 1] << 16 | (u32)p[4 * i + 2] << 8 |
               p[4 * i + 3];
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
    for (int i = 16; i < 64; i++) {
        u32 a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (ROR(a, 7) ^ ROR(a, 18) ^ a >> 3) + w[i - 7] +
               (ROR(b, 17) ^ ROR(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof s);
/* One round; instead of moving a..h down by one, the next round names them shifted. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                \
    do {                                                                \
        u32 t = s[h] + (ROR(s[e], 6) ^ ROR(s[e], 11) ^ ROR(s[e], 25)) + \
                ((s[e] & s[f]) ^ (~s[e] & s[g])) + k[i] + w[i];         \
        s[d] += t;                                                      \
        s[h] = t + (ROR(s[a], 2) ^ ROR(s[a], 13) ^ ROR(s[a], 22)) +     \
               ((s[a] & s[b]) ^ (s[a] & s[c]) ^ (s[b] & s[c]));         \
    } while (0)
    for (int i = 0; i < 64; i += 8) {
        ROUND(0, 1, 2, 3, 4, 5, 6, 7, i);
        ROUND(7, 0, 1, 2, 3, 4, 5, 6, i + 1);
        ROUND(6, 7, 0, 1, 2, 3, 4, 5, i + 2);
        ROUND(5, 6, 7, 0, 1, 2, 3, 4, i + 3);
        ROUND(4, 5, 6, 7, 0, 1, 2, 3, i + 4);
        ROUND(3, 4, 5, 6, 7, 0, 1, 2, i + 5);
        ROUND(2, 3, 4, 5, 6, 7, 0, 1, i + 6);
        ROUND(1, 2, 3, 4, 5, 6, 7, 0, i + 7);
    }
#undef ROUND
#undef ROR
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

struct sha256 {
    u32 h[8];
    u64 total;
    u8 block[64];
};

static void sha256_begin(struct sha256 *s) {
    static const struct sha256 empty = {{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                         0x9b05688c, 0x1f83d9ab, 0x5be0cd19},
                                        0,
                                        {0}};
    *s = empty;
}

static void sha256_add(struct sha256 *s, const u8 *p, u64 n) {
    for (u64 take; n; p += take, n -= take) {
        u32 fill = (u32)(s->total % 64);
        take = fill || n < 64 ? min64(n, 64 - fill) : 64;
        if (take < 64) memcpy(s->block + fill, p, (size_t)take);
        s->total += take;
        if (fill + take == 64) sha256_block(s->h, take < 64 ? s->block : p);
    }
}

static void sha256_end(struct sha256 *s, u8 out[32]) {
    static const u8 one_and_zeros[64] = {0x80};
    u8 bits[8];
    for (int i = 0; i < 8; i++) bits[i] = (u8)(s->total << 3 >> (56 - 8 * i));
    sha256_add(s, one_and_zeros, 1 + (119 - s->total % 64) % 64);
    sha256_add(s, bits, 8);
    for (int i = 0; i < 32; i++) out[i] = (u8)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

/* The digest of the concatenation a[0..n) b[0..m). */
static void sha256(const u8 *a, u64 n, const u8 *b, u64 m, u8 out[32]) {
    struct sha256 s;
    sha256_begin(&s);
    sha256_add(&s, a, n);
    sha256_add(&s, b, m);
    sha256_end(&s, out);
}

uint32_t megabyte_version(void) { return MEGABYTE_VERSION_NUMBER; }

const char *megabyte_status_string(megabyte_status s) {
    switch (s) {
    case MEGABYTE_OK: return "ok";
    case MEGABYTE_ERROR_INVALID_ARGUMENT: return "invalid argument";
    case MEGABYTE_ERROR_OUT_OF_MEMORY: return "out of memory";
    case MEGABYTE_ERROR_IO: return "file cannot be read";
    case MEGABYTE_ERROR_BAD_MAGIC: return "not a file of this kind";
    case MEGABYTE_ERROR_BAD_VERSION: return "made by another version";
    case MEGABYTE_ERROR_TRUNCATED: return "truncated";
    case MEGABYTE_ERROR_CORRUPT: return "corrupt";
    case MEGABYTE_ERROR_UNSUPPORTED: return "not supported by this build or CPU";
    case MEGABYTE_ERROR_WRONG_MODEL: return "belongs to another model";
    case MEGABYTE_ERROR_CAPACITY: return "out of the kept range, or the buffer is too small";
    case MEGABYTE_ERROR_ARITHMETIC: return "this build's floating-point arithmetic is not exact";
    case MEGABYTE_ERROR_LIMIT: return "more output than allowed";
    case MEGABYTE_ERROR_TRAILING_DATA: return "something else follows the compressed data";
    case MEGABYTE_ERROR_WRONG_DICTIONARY: return "compressed with another dictionary";
    case MEGABYTE_ERROR_CANCELLED: return "cancelled";
    case MEGABYTE_END: return "the model ends the text here";
    }
    return "unknown status";
}

/* Fills *e (may be NULL) and returns s, so that failing is one line. */
#if defined(__GNUC__)
__attribute__((format(PRINTF_KIND, 4, 5)))
#endif
static status
fail(megabyte_error *e, status s, u64 offset, const char *format, ...) {
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

/* ================================================================================ 3 memory */

#define ALIGN 64 /* of every array: a cache line, and the widest vector */

static void *libc_alloc(void *context, size_t size, size_t align) {
    (void)context;
    char *raw = size <= SIZE_MAX - align - sizeof(void *) ? malloc(size + align + sizeof(void *))
                                                          : NULL;
    if (!raw) return NULL;
    char *p = raw + sizeof(void *);
    p += (align - (uintptr_t)p % align) % align;
    memcpy(p - sizeof(void *), &raw, sizeof raw);
    return p;
}
static void libc_free(void *context, void *memory, size_t size) {
    (void)context;
    (void)size;
    if (memory) {
        void *raw;
        memcpy(&raw, (char *)memory - sizeof raw, sizeof raw);
        free(raw);
    }
}

static status choose_allocator(megabyte_allocator *to, const megabyte_allocator *from,
                               megabyte_error *e) {
    megabyte_allocator libc = {.alloc = libc_alloc, .free = libc_free};
    *to = from ? *from : libc;
    if (!to->alloc || !to->free)
        return fail(e, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "allocator: set both alloc and free");
    return MEGABYTE_OK;
}

/* Objects are laid out twice by one function: first with base NULL to learn the size, then for
 * real. A size that does not fit is remembered in `overflow`. */
struct arena {
    u8 *base;
    u64 used;
    int overflow;
};

static void *carve(struct arena *a, u64 count, u64 size) {
    if (size && count > (UINT64_MAX / 4 - a->used) / size) {
        a->overflow = 1;
        return NULL;
    }
    void *p = a->base ? a->base + a->used : NULL;
    a->used = round_up(a->used + count * size, ALIGN);
    return p;
}
static int arena_fits(const struct arena *a) { return !a->overflow && a->used <= SIZE_MAX / 2; }

/* The memory of an object whose layout came to `bytes`, or failed with `sized`. */
static status new_object(void **object, const megabyte_allocator *with, status sized, size_t bytes,
                         const char *what, megabyte_error *e) {
    if (sized)
        return fail(e, sized, 0, "%s of these sizes does not fit into the address space", what);
    *object = with->alloc(with->context, bytes, ALIGN);
    if (*object) return MEGABYTE_OK;
    return fail(e, MEGABYTE_ERROR_OUT_OF_MEMORY, 0,
                "out of memory for %s (%llu bytes); a smaller batch or context "
                "needs less",
                what, (unsigned long long)bytes);
}

/* ================================================================================ 4 model file */

/* models/FORMAT.md describes the file byte by byte. In short, little-endian throughout:
 *   header 128 | stage descriptors 64 each | tensor table 32 each | metadata | zeros to 64 |
 *   tensors
 * Everything before the data is covered by one SHA-256, the data by another. The tensors that must
 * be there, their order, sizes and offsets all follow from the stage descriptors (each_tensor): a
 * file is right or refused. */
#define HEADER_BYTES 128
#define STAGE_BYTES 64
#define TENSOR_BYTES 32
#define MAX_METADATA 1024 /* entries: they are searched from the first */
static const u8 model_magic[8] = {0x8a, 'M', 'B', 'M', 'D', 'L', '\r', '\n'};

/* The first two families begin every sequence with a start token and predict a patch's first byte
 * from the end of the patch before it; the others shift their inputs by one instead and predict
 * each byte inside its own patch. */
enum {
    FAMILY_LUCIDRAINS = 1,
    FAMILY_MBLM = 2,
    FAMILY_PAPER = 3,
    FAMILY_SPACEBYTE = 4,
    FAMILY_BGPT = 5
};
enum { /* stage.flags */
       POSITION_LEARNED = 1,
       POSITION_ROTARY = 2,
       INPUT_ROTARY = 4, /* MBLM: the tokens' embeddings themselves are rotated */
       QK_NORM =
           8, /* this and what follows: shifted inputs only; queries, keys are normalized by head */
       FINAL_NORM = 16,
       PREVIOUS_BYTE =
           32, /* finest: a patch's first input is the byte before it, not the start vector */
       PATCH_PROJECTION =
           64, /* finest: w_GL, from the global stage's pieces to this stage's inputs */
       COLUMN_SUM =
           128, /* stage 0: a patch's embedding is the sum of a column per position and byte */
       CONDITION_FIRST =
           256 /* finest: the global stage's whole output is added to the patch's first input */
};
enum {
    NORM_RMS = 0,
    NORM_LAYER = 1,
    NORM_DEVIATION = 2
}; /* stage.norm: x / |x|, (x - mean) / sd, x / sd */
enum { GELU_ERF = 0, GELU_TANH = 1, RELU = 2, SILU = 3, ACTIVATIONS = 4 }; /* stage.activation */
#define MAX_CONVOLUTIONS 4
enum { TYPE_F32 = 0, TYPE_F32_TILED = 1, TYPE_Q8_TILED = 2, TYPE_Q4_TILED = 3 }; /* tensor.type */
enum role {
    ROLE_START,
    ROLE_POSITION,
    ROLE_ROTARY,
    ROLE_EMBED,
    ROLE_PATCH_NORM_IN_WEIGHT,
    ROLE_PATCH_NORM_IN_BIAS,
    ROLE_PATCH,
    ROLE_PATCH_BIAS,
    ROLE_PATCH_NORM_OUT_WEIGHT,
    ROLE_PATCH_NORM_OUT_BIAS,
    ROLE_ATTENTION_NORM,
    ROLE_QKV,
    ROLE_ATTENTION_OUT,
    ROLE_FF_NORM,
    ROLE_FF_UP,
    ROLE_FF_UP_BIAS,
    ROLE_FF_DOWN,
    ROLE_FF_DOWN_BIAS,
    ROLE_NORM,
    ROLE_OUTPUT,
    ROLE_OUTPUT_BIAS,
    ROLE_INPUT_ROTARY,
    ROLE_CONVOLUTION,
    ROLE_CONVOLUTION_BIAS,
    ROLE_ATTENTION_NORM_BIAS,
    ROLE_QKV_BIAS,
    ROLE_QK_NORM,
    ROLE_ATTENTION_OUT_BIAS,
    ROLE_FF_NORM_BIAS,
    ROLE_NORM_BIAS,
    ROLE_COUNT
};
static const char role_names[ROLE_COUNT][24] = {"start",
                                                "position",
                                                "rotary",
                                                "embed",
                                                "patch norm-in weight",
                                                "patch norm-in bias",
                                                "patch",
                                                "patch bias",
                                                "patch norm-out weight",
                                                "patch norm-out bias",
                                                "attention norm",
                                                "qkv",
                                                "attention out",
                                                "feed-forward norm",
                                                "feed-forward up",
                                                "feed-forward up bias",
                                                "feed-forward down",
                                                "feed-forward down bias",
                                                "norm",
                                                "output",
                                                "output bias",
                                                "input rotary",
                                                "convolution",
                                                "convolution bias",
                                                "attention norm bias",
                                                "qkv bias",
                                                "query and key norm",
                                                "attention out bias",
                                                "feed-forward norm bias",
                                                "norm bias"};

struct stage_sizes {
    u32 dim, layers, heads, head_dim, ff_dim, positions, flags;
    /* of this and what follows the first two families have none: all zeros in the file */
    u32 kv_heads;
    u32 norm, activation;
    u32 cross; /* finest: positions of the patch before that are attended to, too */
    u32 convolution
        [MAX_CONVOLUTIONS]; /* stage 0: widths over the bytes' embeddings; 0 ends the list */
};
#define STAGE_FIELDS 15
struct sizes {
    u32 vocabulary, pad_id, family, n_stages;
    u32 end_id; /* the id that ends a text, or UINT32_MAX */
    struct stage_sizes stage[MEGABYTE_MAX_STAGES];
};
struct tensor {
    u32 role, stage, layer, type, rows, cols;
    u64 offset;
};

/* Bytes of the file that one token of stage s stands for: P for stage 0, 1 for the finest. The
 * product is bounded by check_sizes. */
static u64 token_bytes(const struct sizes *z, u32 s) {
    u64 n = 1;
    for (u32 i = s + 1; i < z->n_stages; i++) n *= z->stage[i].positions;
    return n;
}

static int is_matrix(u32 role) {
    return role == ROLE_PATCH || role == ROLE_QKV || role == ROLE_ATTENTION_OUT ||
           role == ROLE_FF_UP || role == ROLE_FF_DOWN || role == ROLE_OUTPUT;
}

/* Whose inputs are int8. */
static int is_quantized(u32 type) { return type == TYPE_Q8_TILED || type == TYPE_Q4_TILED; }

static int has_start_token(const struct sizes *z) { return z->family <= FAMILY_MBLM; }
/* Shifted inputs: D_G, the global stage's width per byte; with CONDITION_FIRST its whole width */
static u32 byte_width(const struct sizes *z) {
    const struct stage_sizes *g = z->stage;
    return g->flags & COLUMN_SUM ? g->dim : g->dim / z->stage[1].positions;
}

/* q4: a weight is w4 * m * scale, w4 in -8 .. 7, with an m in 0 .. 15 for each row and each group
 * of 32 columns: |w4 * m| <= 120, whatever the file holds, so all that bounds q8 bounds q4. It is
 * kept as [tile][cols/8][16][4] bytes, two nibbles of w4 + 8 each: the low one of columns 0 to 3 of
 * the eight, the high one of 4 to 7; then the m as [tile][cols/64][16] bytes, the low nibble for
 * the first group of the two. Columns are filled up to whole groups with w4 = 0. */
#define Q4_GROUP 32
static u64 q4_weight_bytes(u64 rows16, u64 cols) { return rows16 * round_up(cols, Q4_GROUP) / 2; }
static u64 q4_multiplier_bytes(u64 rows16, u64 cols) {
    return rows16 * (round_up(cols, 2 * Q4_GROUP) / (2 * Q4_GROUP));
}

/* Bytes of a tensor's data that are not floats: those of quantized weights. */
static u64 quantized_bytes(const struct tensor *t) {
    u64 rows = round_up(t->rows, 16), cols = t->cols;
    if (t->type == TYPE_Q8_TILED) return rows * round_up(cols, 4);
    if (t->type == TYPE_Q4_TILED)
        return q4_weight_bytes(rows, cols) + q4_multiplier_bytes(rows, cols);
    return 0;
}

/* Bytes of a tensor's data. rows, cols < 2^32 and types are checked: no overflow. Matrices are kept
 * in tiles of 16 output rows, the last tile filled up: f32 as [tile][cols][16]; q8 as
 * [tile][cols/4][16][4] of (weight + 128), cols filled up to a multiple of 4 with 128; q8 and q4
 * end with a float scale for each of the 16 * tiles rows. */
static u64 tensor_data_bytes(const struct tensor *t) {
    u64 rows = round_up(t->rows, 16), cols = t->cols;
    if (t->type == TYPE_F32) return (u64)t->rows * cols * 4;
    if (t->type == TYPE_F32_TILED) return rows * cols * 4;
    return quantized_bytes(t) + rows * 4;
}

typedef status (*tensor_visitor)(void *context, struct tensor *t);

#define VISIT(role_, layer_, rows_, cols_)         \
    do {                                           \
        struct tensor t_ = {.role = role_,         \
                            .stage = s,            \
                            .layer = layer_,       \
                            .rows = (u32)(rows_),  \
                            .cols = (u32)(cols_)}; \
        status r_ = visit(context, &t_);           \
        if (r_) return r_;                         \
    } while (0)

static status each_layer_tensor(const struct sizes *z, u32 s, u32 l, tensor_visitor visit,
                                void *context) {
    const struct stage_sizes *g = &z->stage[s];
    u32 start_token = (u32)has_start_token(z), biased = !start_token;
    u32 inner = g->heads * g->head_dim;
    u32 kv = (start_token ? g->heads : g->kv_heads) * g->head_dim;
    VISIT(ROLE_ATTENTION_NORM, l, 1, g->dim);
    if (biased) VISIT(ROLE_ATTENTION_NORM_BIAS, l, 1, g->dim);
    VISIT(ROLE_QKV, l, inner + 2 * kv, g->dim);
    if (biased) VISIT(ROLE_QKV_BIAS, l, 1, inner + 2 * kv);
    if (g->flags & QK_NORM) VISIT(ROLE_QK_NORM, l, 4, g->head_dim);
    VISIT(ROLE_ATTENTION_OUT, l, g->dim, inner);
    if (biased) VISIT(ROLE_ATTENTION_OUT_BIAS, l, 1, g->dim);
    VISIT(ROLE_FF_NORM, l, 1, g->dim);
    if (biased) VISIT(ROLE_FF_NORM_BIAS, l, 1, g->dim);
    VISIT(ROLE_FF_UP, l, g->ff_dim, g->dim);
    VISIT(ROLE_FF_UP_BIAS, l, 1, g->ff_dim);
    VISIT(ROLE_FF_DOWN, l, g->dim, g->ff_dim);
    VISIT(ROLE_FF_DOWN_BIAS, l, 1, g->dim);
    return MEGABYTE_OK;
}

/* Calls visit for every tensor that a model of these sizes has, in file order, with role, stage,
 * layer, rows and cols set; stops at the first status that is not OK. */
static status each_tensor(const struct sizes *z, tensor_visitor visit, void *context) {
    u32 fine = z->stage[z->n_stages - 1].dim, start_token = (u32)has_start_token(z);
    u32 narrow = start_token ? 0 : byte_width(z);
    for (u32 s = 0; s < z->n_stages; s++) {
        const struct stage_sizes *g = &z->stage[s];
        u32 last = s + 1 == z->n_stages;
        VISIT(ROLE_START, 0, 1, g->dim);
        if (g->flags & POSITION_LEARNED) VISIT(ROLE_POSITION, 0, g->positions, g->dim);
        if (g->flags & POSITION_ROTARY) VISIT(ROLE_ROTARY, 0, 1, g->head_dim / 2);
        if (g->flags & INPUT_ROTARY) VISIT(ROLE_INPUT_ROTARY, 0, 1, g->dim / 2);
        if (g->flags & COLUMN_SUM)
            VISIT(ROLE_EMBED, 0, z->stage[1].positions * z->vocabulary, g->dim);
        else VISIT(ROLE_EMBED, 0, z->vocabulary, !start_token && !s ? narrow : fine);
        for (u32 i = 0; i < MAX_CONVOLUTIONS && g->convolution[i]; i++) {
            VISIT(ROLE_CONVOLUTION, i, narrow, g->convolution[i] * narrow);
            VISIT(ROLE_CONVOLUTION_BIAS, i, 1, narrow);
        }
        if (g->flags & PATCH_PROJECTION) {
            VISIT(ROLE_PATCH, 0, g->dim, narrow);
            VISIT(ROLE_PATCH_BIAS, 0, 1, g->dim);
        }
        if (start_token && !last) {
            u32 wide = (u32)token_bytes(z, s) * fine;
            VISIT(ROLE_PATCH_NORM_IN_WEIGHT, 0, 1, wide);
            VISIT(ROLE_PATCH_NORM_IN_BIAS, 0, 1, wide);
            VISIT(ROLE_PATCH, 0, g->dim, wide);
            VISIT(ROLE_PATCH_BIAS, 0, 1, g->dim);
            VISIT(ROLE_PATCH_NORM_OUT_WEIGHT, 0, 1, g->dim);
            VISIT(ROLE_PATCH_NORM_OUT_BIAS, 0, 1, g->dim);
        }
        for (u32 l = 0; l < g->layers; l++) {
            status r = each_layer_tensor(z, s, l, visit, context);
            if (r) return r;
        }
        if (start_token || g->flags & FINAL_NORM) VISIT(ROLE_NORM, 0, 1, g->dim);
        if (g->flags & FINAL_NORM) VISIT(ROLE_NORM_BIAS, 0, 1, g->dim);
        if (!start_token && !last)
            continue; /* the finest stage takes the output as it is, or by its `patch` */
        u32 next = last ? z->vocabulary : z->stage[s + 1].dim * z->stage[s + 1].positions;
        VISIT(ROLE_OUTPUT, 0, next,
              g->dim); /* stage s+1's n rows at once; the finest stage's are the logits */
        VISIT(ROLE_OUTPUT_BIAS, 0, 1, next);
    }
    return MEGABYTE_OK;
}
#undef VISIT

/* Writing, for mbconvert (which includes this file) and the self-test: all of the header but its
 * two hashes, with the stage descriptors; and an entry of the tensor table. */
static void put_header(u8 *file, const struct sizes *z, u32 tensors, u32 metadata_bytes, u64 data,
                       u64 bytes) {
    memcpy(file, model_magic, 8);
    put32(file + 8, MEGABYTE_FORMAT_VERSION);
    put32(file + 12, HEADER_BYTES);
    put64(file + 16, bytes);
    put64(file + 24, data);
    const u32 fields[] = {z->vocabulary, z->family,      z->n_stages,
                          tensors,       metadata_bytes, z->pad_id};
    for (u32 i = 0; i < 6; i++) put32(file + 32 + 4 * i, fields[i]);
    put32(file + 56, z->end_id + 1);
    for (u32 s = 0; s < z->n_stages; s++) {
        const struct stage_sizes *g = &z->stage[s];
        const u32 sizes[STAGE_FIELDS] = {g->dim,
                                         g->layers,
                                         g->heads,
                                         g->head_dim,
                                         g->ff_dim,
                                         g->positions,
                                         g->flags,
                                         g->kv_heads,
                                         g->norm,
                                         g->activation,
                                         g->cross,
                                         g->convolution[0],
                                         g->convolution[1],
                                         g->convolution[2],
                                         g->convolution[3]};
        for (u32 i = 0; i < STAGE_FIELDS; i++)
            put32(file + HEADER_BYTES + s * STAGE_BYTES + 4 * i, sizes[i]);
    }
}

static void put_entry(u8 *entry, const struct tensor *t, u64 data) {
    put16(entry, t->role);
    put16(entry + 2, t->stage);
    put32(entry + 4, t->layer);
    put32(entry + 8, t->type);
    put32(entry + 12, t->rows);
    put32(entry + 16, t->cols);
    put64(entry + 24, t->offset - data);
}

/* The limits that everything below relies on. Widths up to 2^16 keep an int8 dot product exact:
 * 255 * 127 * 65536 < 2^31. */
#define MAX_WIDTH 65536u
static status check_stage(const struct sizes *z, u32 s, u64 at, megabyte_error *e) {
    const struct stage_sizes *g = &z->stage[s];
    u32 known = POSITION_LEARNED | POSITION_ROTARY, finest = s + 1 == z->n_stages;
    if (!g->dim || g->dim > MAX_WIDTH || !g->ff_dim || g->ff_dim > MAX_WIDTH || !g->heads ||
        !g->head_dim || (u64)g->heads * g->head_dim > MAX_WIDTH)
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, at,
                    "stage %u: widths must be 1 to 65536 (dim %u, heads %u x %u, feed-forward %u)",
                    s, g->dim, g->heads, g->head_dim, g->ff_dim);
    if (!g->positions || g->positions > 1u << 24 || !g->layers || g->layers > 4096)
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, at, "stage %u: %u layers, %u positions", s,
                    g->layers, g->positions);
    if (has_start_token(z)) known |= INPUT_ROTARY;
    else known |= QK_NORM | FINAL_NORM;
    if (!has_start_token(z))
        known |= s ? PREVIOUS_BYTE | PATCH_PROJECTION | CONDITION_FIRST : COLUMN_SUM;
    if (g->flags & ~known)
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, at + 24,
                    "stage %u: unknown options 0x%x; update megabyte", s, g->flags);
    if (((g->flags & POSITION_ROTARY) && g->head_dim % 2) ||
        ((g->flags & INPUT_ROTARY) && g->dim % 2))
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, at + 12,
                    "stage %u: rotary positions need an even width, not %u", s,
                    g->flags & INPUT_ROTARY ? g->dim : g->head_dim);
    if (has_start_token(z)
            ? g->kv_heads || g->norm || g->activation || g->cross || g->convolution[0]
            : !g->kv_heads || g->heads % g->kv_heads || g->norm < NORM_LAYER ||
                  g->norm > NORM_DEVIATION || g->activation >= ACTIVATIONS)
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, at + 28,
                    "stage %u: %u key and value heads, norm %u, activation "
                    "%u: not known to this version",
                    s, g->kv_heads, g->norm, g->activation);
    if (g->cross && (!finest || g->cross > g->positions || !(g->flags & POSITION_ROTARY)))
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, at + 40,
                    "stage %u: attention to %u positions of the patch "
                    "before needs as many, rotary ones, in the finest stage",
                    s, g->cross);
    for (u32 i = 0, ended = 0; i < MAX_CONVOLUTIONS; i++) {
        u32 width = g->convolution[i];
        if (width && (s || ended || width > 64 || (g->flags & COLUMN_SUM) ||
                      (u64)width * byte_width(z) > MAX_WIDTH))
            return fail(e, MEGABYTE_ERROR_UNSUPPORTED, at + 44 + 4 * i,
                        "stage %u: a convolution of width %u", s, width);
        ended |= !width;
    }
    return MEGABYTE_OK;
}

static status check_sizes(const struct sizes *z, megabyte_error *e) {
    u64 at = HEADER_BYTES, wide = 1;
    if (z->family < FAMILY_LUCIDRAINS || z->family > FAMILY_BGPT)
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, 36,
                    "model family %u is not known to this version; update megabyte", z->family);
    if (z->n_stages < 2 || z->n_stages > (has_start_token(z) ? MEGABYTE_MAX_STAGES : 2))
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, 40, "%u stages; this version runs 2 to %d",
                    z->n_stages, has_start_token(z) ? MEGABYTE_MAX_STAGES : 2);
    if (z->vocabulary < 2 || z->vocabulary > MAX_WIDTH)
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, 32,
                    "vocabulary of %u ids; 2 to 65536 are possible", z->vocabulary);
    for (u32 s = 1; s < z->n_stages; s++) { /* first: what checks of the stages above rely on */
        u32 n = z->stage[s].positions;
        wide *= n;
        if (!n || wide > MAX_WIDTH || (u64)n * z->stage[s].dim > 1u << 24)
            return fail(e, MEGABYTE_ERROR_UNSUPPORTED, HEADER_BYTES + s * STAGE_BYTES + 20,
                        "stage %u: patches of %llu bytes are not possible", s,
                        (unsigned long long)wide);
    }
    for (u32 s = 0; s < z->n_stages; s++, at += STAGE_BYTES) {
        status r = check_stage(z, s, at, e);
        if (r) return r;
    }
    const struct stage_sizes *g = z->stage, *fine = g + z->n_stages - 1;
    if (has_start_token(z)) {
        if (wide * fine->dim <= MAX_WIDTH) return MEGABYTE_OK;
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, HEADER_BYTES,
                    "a patch of %llu bytes x %u wide is beyond 65536", (unsigned long long)wide,
                    fine->dim);
    }
    u32 columns = g->flags & COLUMN_SUM, first = fine->flags & CONDITION_FIRST;
    if (g->positions < 2)
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, HEADER_BYTES + 20,
                    "a context of one patch is too short to slide");
    if (!columns != !first || (columns ? (u64)wide * z->vocabulary > 1u << 24 : g->dim % wide) ||
        (fine->flags & PATCH_PROJECTION ? columns : byte_width(z) != fine->dim))
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, HEADER_BYTES,
                    "widths %u and %u of the stages don't fit together with patches of %llu bytes",
                    g->dim, fine->dim, (unsigned long long)wide);
    return MEGABYTE_OK;
}

/* What the file's tensors become: pointers into the mapping. */
struct matrix {
    const u8 *data; /* tiles, see tensor_data_bytes */
    const u8 *multiplier; /* q4: [tiles][pairs of groups][16] */
    const float *scale; /* q8, q4: [tiles * 16] */
    u32 rows, cols, tiles, type;
};
struct layer {
    const float *attention_norm, *ff_norm; /* [dim] */
    const float *attention_norm_bias,
        *ff_norm_bias; /* [dim]; these and all that is only for shifted inputs may be NULL */
    const float *qkv_bias, *out_bias; /* [inner + 2 * kv_inner], [dim] */
    const float *qk_norm; /* [4, head_dim]: queries' weight and bias, keys' */
    const float *up_bias, *down_bias; /* [ff_dim], [dim] */
    struct matrix qkv; /* [inner + 2 * kv_inner, dim]: queries, keys, values */
    struct matrix out; /* [dim, heads * head_dim] */
    struct matrix up; /* [ff_dim, dim] */
    struct matrix down; /* [dim, ff_dim] */
};
struct stage {
    struct stage_sizes size;
    u32 start_token; /* 1: every sequence begins with a start token, */
    u32 shifted; /* or 1: a token's input is the byte before it */
    u32 projects_bytes; /* 1: `patch` projects bytes' embeddings, not the stage above's output */
    u32 condition_width; /* of a token's part of the output of the stage above */
    u32 kv_heads; /* heads of keys and values, each for heads / kv_heads of the queries' */
    u32 inner, kv_inner; /* heads * head_dim */
    u32 half; /* channels that the token shift delays */
    u32 v_tiles; /* tiles of 16 channels in a head, the last one filled up */
    int cache_q8; /* keys and values are kept in int8 */
    u32 wide; /* `patch` reads as many: token_bytes * fine dim; shifted: byte_width */
    u64 bytes; /* token_bytes */
    u32 outputs; /* width of a token's result: rows of `output`, or dim */
    u64 parameters, macs; /* macs: per token, of its matrices */
    u64 weight_bytes; /* of its matrices */
    const float *start; /* [dim] */
    const float *position; /* [positions, dim] or NULL */
    const float *rotary; /* inverse frequencies [head_dim / 2] or NULL */
    const float *input_rotary; /* [dim / 2] or NULL */
    const float *convolution[MAX_CONVOLUTIONS],
        *convolution_bias[MAX_CONVOLUTIONS]; /* [D_G, width, D_G] */
    const float *embed; /* [vocabulary, fine dim] */
    const float *in_weight, *in_bias; /* LayerNorm over [wide] */
    struct matrix patch; /* [dim, wide] */
    const float *patch_bias; /* [dim] */
    const float *out_weight, *out_bias; /* LayerNorm over [dim] */
    struct layer *layers;
    const float *norm, *norm_bias; /* [dim] or NULL */
    struct matrix output; /* [positions * dim of stage s+1, dim]; finest: [vocabulary, dim] */
    const float *output_bias;
};
struct megabyte_model {
    megabyte_allocator allocator;
    size_t allocated;
    const u8 *file;
    u64 file_bytes, data_offset;
    void *mapping; /* to unmap, or NULL */
    u8 *copy; /* allocated copy of the file (no mmap, or big-endian host), or NULL */
    const u8 *metadata;
    u32 n_metadata;
    int data_holds; /* big-endian hosts: the data matched its hash when the file was opened */
    int quantized; /* bit 0: f32 matrices occur, bit 1: q8, bit 2: q4 */
    u8 id[16];
    megabyte_image_info image; /* of an image model; else all 0 */
    struct sizes sizes;
    struct stage stage[MEGABYTE_MAX_STAGES];
};

struct open_walk {
    megabyte_model *m;
    megabyte_error *error;
    u64 at, expected; /* next entry of the table; next tensor's offset */
    u32 index;
    int bind; /* 0: check against the table; 1: set the model's pointers */
};

/* Points the model at a tensor whose entry has been checked. */
static void bind_tensor(megabyte_model *m, const struct tensor *t) {
    struct stage *g = &m->stage[t->stage];
    struct layer *l = g->layers +
                      (t->layer < g->size.layers ? t->layer : 0); /* 0: of no use to the role */
    const float *vector = (const void *)(m->file + t->offset);
    struct matrix x = {.data = m->file + t->offset,
                       .rows = t->rows,
                       .cols = t->cols,
                       .tiles = (u32)(round_up(t->rows, 16) / 16),
                       .type = t->type};
    if (t->type == TYPE_Q4_TILED)
        x.multiplier = x.data + q4_weight_bytes((u64)x.tiles * 16, t->cols);
    if (is_quantized(t->type)) x.scale = (const void *)(x.data + quantized_bytes(t));
    switch ((enum role)t->role) {
    case ROLE_START: g->start = vector; break;
    case ROLE_POSITION: g->position = vector; break;
    case ROLE_ROTARY: g->rotary = vector; break;
    case ROLE_EMBED: g->embed = vector; break;
    case ROLE_PATCH_NORM_IN_WEIGHT: g->in_weight = vector; break;
    case ROLE_PATCH_NORM_IN_BIAS: g->in_bias = vector; break;
    case ROLE_PATCH: g->patch = x; break;
    case ROLE_PATCH_BIAS: g->patch_bias = vector; break;
    case ROLE_PATCH_NORM_OUT_WEIGHT: g->out_weight = vector; break;
    case ROLE_PATCH_NORM_OUT_BIAS: g->out_bias = vector; break;
    case ROLE_ATTENTION_NORM: l->attention_norm = vector; break;
    case ROLE_QKV: l->qkv = x; break;
    case ROLE_ATTENTION_OUT: l->out = x; break;
    case ROLE_FF_NORM: l->ff_norm = vector; break;
    case ROLE_FF_UP: l->up = x; break;
    case ROLE_FF_UP_BIAS: l->up_bias = vector; break;
    case ROLE_FF_DOWN: l->down = x; break;
    case ROLE_FF_DOWN_BIAS: l->down_bias = vector; break;
    case ROLE_NORM: g->norm = vector; break;
    case ROLE_OUTPUT:
        g->output = x;
        g->outputs = x.rows;
        break;
    case ROLE_OUTPUT_BIAS: g->output_bias = vector; break;
    case ROLE_INPUT_ROTARY: g->input_rotary = vector; break;
    case ROLE_CONVOLUTION: g->convolution[t->layer] = vector; break;
    case ROLE_CONVOLUTION_BIAS: g->convolution_bias[t->layer] = vector; break;
    case ROLE_ATTENTION_NORM_BIAS: l->attention_norm_bias = vector; break;
    case ROLE_QKV_BIAS: l->qkv_bias = vector; break;
    case ROLE_QK_NORM: l->qk_norm = vector; break;
    case ROLE_ATTENTION_OUT_BIAS: l->out_bias = vector; break;
    case ROLE_FF_NORM_BIAS: l->ff_norm_bias = vector; break;
    case ROLE_NORM_BIAS: g->norm_bias = vector; break;
    case ROLE_COUNT: break;
    }
    if (t->role == ROLE_CONVOLUTION) g->macs += (u64)t->rows * t->cols * g->bytes;
    if (t->role != ROLE_ROTARY && t->role != ROLE_INPUT_ROTARY)
        g->parameters += (u64)t->rows * t->cols;
    if (is_matrix(t->role)) {
        g->macs += (u64)t->rows * t->cols;
        g->weight_bytes += tensor_data_bytes(t);
        m->quantized |= t->type == TYPE_Q4_TILED ? 4 : t->type == TYPE_Q8_TILED ? 2 : 1;
    }
}

/* The next tensor: its entry is checked against what the sizes ask for, then bound if it is time.
 * */
static status open_tensor(void *context, struct tensor *t) {
    struct open_walk *w = context;
    megabyte_model *m = w->m;
    const u8 *entry = m->file + w->at;
    t->type = get32(entry + 8);
    t->offset = w->expected;
    if (get16(entry) != t->role || get16(entry + 2) != t->stage || get32(entry + 4) != t->layer ||
        get32(entry + 12) != t->rows || get32(entry + 16) != t->cols || get32(entry + 20) ||
        get64(entry + 24) != t->offset - m->data_offset)
        return fail(w->error, MEGABYTE_ERROR_CORRUPT, w->at,
                    "tensor %u should be '%s' of stage %u layer %u, %u x %u at offset "
                    "%llu, but the table says otherwise; convert the checkpoint again",
                    w->index, role_names[t->role], t->stage, t->layer, t->rows, t->cols,
                    (unsigned long long)(t->offset - m->data_offset));
    if (is_matrix(t->role) ? t->type != TYPE_F32_TILED && !is_quantized(t->type)
                           : t->type != TYPE_F32)
        return fail(w->error, MEGABYTE_ERROR_UNSUPPORTED, w->at + 8,
                    "tensor %u ('%s'): storage type %u is not known to this "
                    "version; update megabyte",
                    w->index, role_names[t->role], t->type);
    u64 bytes = tensor_data_bytes(t);
    if (t->offset > m->file_bytes || bytes > m->file_bytes - t->offset)
        return fail(w->error, MEGABYTE_ERROR_TRUNCATED, t->offset,
                    "tensor %u ('%s', %llu bytes) reaches beyond the file's end", w->index,
                    role_names[t->role], (unsigned long long)bytes);
    w->expected = round_up(t->offset + bytes, ALIGN);
    w->at += TENSOR_BYTES;
    w->index++;
    if (w->bind) bind_tensor(m, t);
    return MEGABYTE_OK;
}

static status count_tensor(void *context, struct tensor *t) {
    (void)t;
    ++*(u32 *)context;
    return MEGABYTE_OK;
}

/* Metadata entries: u32 key bytes, u32 value bytes, key, NUL, value, NUL. Returns the next entry or
 * NULL if this one does not lie in [p, end). */
static const u8 *metadata_entry(const u8 *p, const u8 *end, const char **key, const char **value) {
    if (end - p < 10) return NULL;
    u64 k = get32(p), v = get32(p + 4), left = (u64)(end - p) - 10;
    if (k > left || v > left - k) return NULL;
    const u8 *text = p + 8;
    if (memchr(text, 0, (size_t)k) || text[k] || memchr(text + k + 1, 0, (size_t)v) ||
        text[k + 1 + v])
        return NULL;
    if (key) *key = (const char *)text;
    if (value) *value = (const char *)text + k + 1;
    return text + k + v + 2;
}

/* The fixed header: magic, versions, length, and the checksum over all tables. */
static status check_header(const u8 *f, u64 size, struct sizes *z, megabyte_error *e) {
    u8 digest[32];
    if (size < 8 || memcmp(f, model_magic, 8))
        return fail(e, MEGABYTE_ERROR_BAD_MAGIC, 0,
                    "not a megabyte model (.mb) file; checkpoints are converted by mbconvert");
    if (size < HEADER_BYTES)
        return fail(e, MEGABYTE_ERROR_TRUNCATED, size,
                    "the file ends inside its header; copy or download it again");
    if (get32(f + 8) != MEGABYTE_FORMAT_VERSION || get32(f + 12) != HEADER_BYTES)
        return fail(e, MEGABYTE_ERROR_BAD_VERSION, 8,
                    "format version %u; this library reads version %d", get32(f + 8),
                    MEGABYTE_FORMAT_VERSION);
    u64 stated = get64(f + 16), data = get64(f + 24);
    if (stated != size)
        return fail(e, stated > size ? MEGABYTE_ERROR_TRUNCATED : MEGABYTE_ERROR_CORRUPT, 16,
                    "the file should have %llu bytes but "
                    "has %llu; copy or download it again",
                    (unsigned long long)stated, (unsigned long long)size);
    z->vocabulary = get32(f + 32);
    z->family = get32(f + 36);
    z->n_stages = get32(f + 40);
    u32 tensors = get32(f + 44), metadata_bytes = get32(f + 48);
    z->pad_id = get32(f + 52);
    z->end_id = get32(f + 56) - 1;
    u64 end = HEADER_BYTES + (u64)z->n_stages * STAGE_BYTES + (u64)tensors * TENSOR_BYTES +
              metadata_bytes;
    if (data > size || data % ALIGN || end > data || round_up(end, ALIGN) != data)
        return fail(e, MEGABYTE_ERROR_CORRUPT, 24,
                    "the tables end at %llu but the data begins at %llu in a file of %llu bytes",
                    (unsigned long long)end, (unsigned long long)data, (unsigned long long)size);
    sha256(f, 96, f + HEADER_BYTES, data - HEADER_BYTES, digest);
    if (memcmp(digest, f + 96, 32))
        return fail(e, MEGABYTE_ERROR_CORRUPT, 96,
                    "the checksum of the header and tables is wrong; copy or download the file "
                    "again");
    return MEGABYTE_OK;
}

static status read_stages(const u8 *f, struct sizes *z, megabyte_error *e) {
    if (z->n_stages < 2 || z->n_stages > MEGABYTE_MAX_STAGES) return check_sizes(z, e);
    for (u32 s = 0; s < z->n_stages; s++) {
        const u8 *d = f + HEADER_BYTES + s * STAGE_BYTES;
        struct stage_sizes g = {.dim = get32(d),
                                .layers = get32(d + 4),
                                .heads = get32(d + 8),
                                .head_dim = get32(d + 12),
                                .ff_dim = get32(d + 16),
                                .positions = get32(d + 20),
                                .flags = get32(d + 24),
                                .kv_heads = get32(d + 28),
                                .norm = get32(d + 32),
                                .activation = get32(d + 36),
                                .cross = get32(d + 40)};
        for (u32 i = 0; i < MAX_CONVOLUTIONS; i++) g.convolution[i] = get32(d + 44 + 4 * i);
        z->stage[s] = g;
        for (u32 i = 4 * STAGE_FIELDS; i < STAGE_BYTES; i++)
            if (d[i])
                return fail(e, MEGABYTE_ERROR_UNSUPPORTED, (u64)(d + i - f),
                            "stage %u uses an option that this version does "
                            "not know; update megabyte",
                            s);
    }
    return check_sizes(z, e);
}

/* The metadata's entries, which fill [p, stop). */
static status check_metadata(megabyte_model *m, const u8 *p, const u8 *stop, megabyte_error *e) {
    const u8 *f = m->file;
    if (stop - p < 4) return fail(e, MEGABYTE_ERROR_CORRUPT, 48, "the metadata is cut short");
    m->n_metadata = get32(p);
    if (m->n_metadata > MAX_METADATA)
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, (u64)(p - f),
                    "%u metadata entries; %d are possible", m->n_metadata, MAX_METADATA);
    m->metadata = p += 4;
    for (u32 i = 0; i < m->n_metadata; i++)
        if (!(p = metadata_entry(p, stop, NULL, NULL)))
            return fail(e, MEGABYTE_ERROR_CORRUPT, (u64)(stop - f),
                        "metadata entry %u is malformed", i);
    if (p != stop)
        return fail(e, MEGABYTE_ERROR_CORRUPT, (u64)(p - f),
                    "bytes are left over after the metadata");
    return MEGABYTE_OK;
}

/* Everything that can be known without the weights. On success *z and the table's place are
 * right. */
static status check_tables(megabyte_model *m, struct sizes *z, u64 *table, megabyte_error *e) {
    const u8 *f = m->file;
    status r = check_header(f, m->file_bytes, z, e);
    if (!r) r = read_stages(f, z, e);
    if (r) return r;
    u32 tensors = get32(f + 44);
    /* Layers are bounded by the table that lists their tensors before anything is allocated for
     * them. */
    u64 layers = 0;
    for (u32 s = 0; s < z->n_stages; s++) layers += z->stage[s].layers;
    u32 count = 0;
    if (layers * 8 <= tensors) each_tensor(z, count_tensor, &count);
    if (count != tensors)
        return fail(e, MEGABYTE_ERROR_CORRUPT, 44,
                    "%u tensors are listed, but a model of these sizes has another number",
                    tensors);
    if (get32(f + 60) || (z->pad_id != UINT32_MAX && z->pad_id >= z->vocabulary) ||
        (z->end_id != UINT32_MAX && (z->end_id >= z->vocabulary || z->end_id < 256)))
        return fail(e, MEGABYTE_ERROR_CORRUPT, 52,
                    "the header's pad id, end id or reserved field is wrong");
    *table = HEADER_BYTES + (u64)z->n_stages * STAGE_BYTES;
    const u8 *metadata = f + *table + (u64)tensors * TENSOR_BYTES;
    return check_metadata(m, metadata, metadata + get32(f + 48), e);
}

/* Big-endian hosts: floats of the copied file are turned round, in place, once. */
static status swap_tensor(void *context, struct tensor *t) {
    struct open_walk *w = context;
    u64 offset = w->m->data_offset + get64(w->m->file + w->at + 24);
    t->type = get32(w->m->file + w->at + 8);
    u64 bytes = tensor_data_bytes(t);
    w->at += TENSOR_BYTES;
    for (u64 i = quantized_bytes(t); i < bytes; i += 4) {
        u8 *p = w->m->copy + offset + i;
        u32 v = get32(p);
        memcpy(p, &v, 4);
    }
    return MEGABYTE_OK;
}

/* A copy of m with its stages' sizes, and room for their layers. NULL: out of memory. */
static megabyte_model *new_model(megabyte_model *m, megabyte_error *e) {
    const struct sizes *z = &m->sizes;
    u64 layers = 0;
    for (u32 s = 0; s < z->n_stages; s++) layers += z->stage[s].layers;
    struct arena a = {.base = NULL};
    carve(&a, 1, sizeof *m);
    carve(&a, layers, sizeof(struct layer));
    u8 *memory = arena_fits(&a) ? m->allocator.alloc(m->allocator.context, (size_t)a.used, ALIGN)
                                : NULL;
    if (!memory) {
        fail(e, MEGABYTE_ERROR_OUT_OF_MEMORY, 0,
             "out of memory for the model's tables (%llu bytes)", (unsigned long long)a.used);
        return NULL;
    }
    m->allocated = (size_t)a.used;
    a.base = memory;
    a.used = 0;
    megabyte_model *model = carve(&a, 1, sizeof *m);
    struct layer *layer = carve(&a, layers, sizeof *layer);
    memset(memory, 0, m->allocated);
    *model = *m;
    for (u32 s = 0; s < z->n_stages; s++) {
        struct stage *g = &model->stage[s];
        g->size = z->stage[s];
        g->start_token = (u32)has_start_token(z);
        g->shifted = !g->start_token;
        g->outputs = g->size.dim;
        g->kv_heads = g->start_token ? g->size.heads : g->size.kv_heads;
        g->inner = g->size.heads * g->size.head_dim;
        g->kv_inner = g->kv_heads * g->size.head_dim;
        g->half = g->start_token ? g->size.dim / 2 : 0;
        g->v_tiles = (g->size.head_dim + 15) / 16;
        g->bytes = token_bytes(z, s);
        g->wide = g->shifted ? byte_width(z) : (u32)g->bytes * z->stage[z->n_stages - 1].dim;
        g->projects_bytes = g->start_token && s + 1 < z->n_stages;
        g->condition_width = g->shifted ? g->wide : g->size.dim;
        g->layers = layer;
        layer += g->size.layers;
    }
    return model;
}

/* The id names what decides the logits: sizes, tensors and their hash; not the metadata. The tables
 * end at `end`. */
static void name_model(megabyte_model *m, u64 end) {
    u8 named[56], digest[32];
    memcpy(named, m->file + 32, 16);
    memcpy(named + 16, m->file + 52, 4);
    memcpy(named + 20, m->file + 64, 32);
    put32(named + 52, m->sizes.end_id); /* counts only where there is one */
    sha256(named, m->sizes.end_id == UINT32_MAX ? 52 : 56, m->file + HEADER_BYTES,
           end - HEADER_BYTES, digest);
    memcpy(m->id, digest, sizeof m->id);
}

/* "64x48": the text up to its end, or up to the x, as a number of 1 to 65535; 0: it is none. */
static u32 read_side(const char **text, char end) {
    const char *p = *text;
    u32 n = 0;
    for (; *p >= '0' && *p <= '9' && n < 65536; p++) n = n * 10 + (u32)(*p - '0');
    if (*p != end || n > 65535) return 0;
    *text = p + 1;
    return n;
}
static int read_area(const char *text, u32 *width, u32 *height) {
    *width = text ? read_side(&text, 'x') : 0;
    *height = *width ? read_side(&text, 0) : 0;
    return *height != 0;
}

/* What metadata say of an image model (megabyte.h, images) must agree with its sizes. */
static status read_image_info(megabyte_model *m, megabyte_error *e) {
    megabyte_image_info *f = &m->image;
    const char *tile = megabyte_model_metadata(m, "image.tile"),
               *patch = megabyte_model_metadata(m, "image.patch"),
               *channels = megabyte_model_metadata(m, "image.channels"),
               *colour = megabyte_model_metadata(m, "image.colour"),
               *scan = megabyte_model_metadata(m, "image.scan");
    u64 at = (u64)(m->metadata - m->file), patch_bytes = token_bytes(&m->sizes, 0),
        context = patch_bytes * m->sizes.stage[0].positions;
    if (!tile) return MEGABYTE_OK;
    int raster = scan && !strcmp(scan, "raster"),
        difference = colour && !strcmp(colour, "green-difference");
    if (!channels || (strcmp(channels, "1") && strcmp(channels, "3")) || !scan ||
        (!raster && strcmp(scan, "patch")) || (colour && !difference && strcmp(colour, "none")))
        return fail(e, MEGABYTE_ERROR_UNSUPPORTED, at,
                    "the metadata image.channels must be 1 or 3, image.scan patch or raster, "
                    "image.colour green-difference, none or absent: update megabyte, or correct "
                    "the model");
    megabyte_image_info info = {.channels = (u32)(*channels - '0'),
                                .colour = difference ? MEGABYTE_COLOUR_GREEN_DIFFERENCE
                                                     : MEGABYTE_COLOUR_NONE,
                                .scan = raster ? MEGABYTE_SCAN_RASTER : MEGABYTE_SCAN_PATCH};
    if (!read_area(tile, &info.tile_width, &info.tile_height) ||
        !read_area(patch, &info.patch_width, &info.patch_height) ||
        info.tile_width % info.patch_width || info.tile_height % info.patch_height ||
        (raster && info.patch_height > 1) || (difference && info.channels != 3))
        return fail(e, MEGABYTE_ERROR_CORRUPT, at,
                    "the metadata image.tile and image.patch must be pixels, as in 64x64 and 2x2, "
                    "one a multiple of the other (raster scan: Nx1); image.colour "
                    "green-difference needs image.channels 3");
    u64 has = (u64)info.patch_width * info.patch_height * info.channels,
        all = (u64)info.tile_width * info.tile_height * info.channels;
    if (has != patch_bytes || all != context || all >> 31)
        return fail(e, MEGABYTE_ERROR_CORRUPT, at,
                    "the metadata speak of patches of %llu bytes and tiles of %llu, but the model "
                    "has patches of %llu bytes and a context of %llu",
                    (unsigned long long)has, (unsigned long long)all,
                    (unsigned long long)patch_bytes, (unsigned long long)context);
    info.tile_bytes = (u32)all;
    *f = info;
    return MEGABYTE_OK;
}

/* m (on the stack) knows its file, which has been mapped or copied; on success *out is the finished
 * model. */
static status finish_opening(megabyte_model **out, megabyte_model *m, megabyte_error *e) {
    struct sizes *z = &m->sizes;
    u64 table = 0;
    status r = check_tables(m, z, &table, e);
    if (r) return r;
    m->data_offset = get64(m->file + 24);
    if ((r = read_image_info(m, e))) return r;
    struct open_walk walk = {.m = m, .error = e, .at = table, .expected = m->data_offset};
    r = each_tensor(z, open_tensor, &walk);
    if (r) return r;
    if (walk.expected != m->file_bytes)
        return fail(e, MEGABYTE_ERROR_CORRUPT, walk.expected,
                    "bytes are left over after the last tensor");

    megabyte_model *model = new_model(m, e);
    if (!model) return MEGABYTE_ERROR_OUT_OF_MEMORY;
    walk.m = model;
    walk.at = table;
    walk.expected = m->data_offset;
    walk.bind = 1;
    each_tensor(z, open_tensor, &walk);
    model->stage[0].cache_q8 = is_quantized(model->stage[0].layers[0].qkv.type);

    name_model(model, walk.at);
    if (BIG_ENDIAN_HOST) {
        u8 digest[32];
        sha256(m->file + m->data_offset, m->file_bytes - m->data_offset, NULL, 0, digest);
        model->data_holds = !memcmp(digest, m->file + 64, 32);
        walk.at = table;
        each_tensor(z, swap_tensor, &walk);
    }
    *out = model;
    return MEGABYTE_OK;
}

static void release_file(megabyte_model *m) {
    if (m->copy) m->allocator.free(m->allocator.context, m->copy, (size_t)m->file_bytes);
#if !defined(MEGABYTE_NO_FILE)
    if (m->mapping) file_unmap(m->mapping, (size_t)m->file_bytes);
#endif
}

static status copy_file(megabyte_model *m, megabyte_error *e) {
    size_t align = m->file_bytes < 2 * LARGE_PAGE ? ALIGN : LARGE_PAGE;
    m->copy = m->file_bytes <= SIZE_MAX / 2
                  ? m->allocator.alloc(m->allocator.context, (size_t)m->file_bytes, align)
                  : NULL;
    m->file = m->copy;
    if (m->copy) advise_large_pages(m->copy, (size_t)m->file_bytes);
    if (m->copy) return MEGABYTE_OK;
    return fail(e, MEGABYTE_ERROR_OUT_OF_MEMORY, 0,
                "out of memory for a copy of the file (%llu bytes)",
                (unsigned long long)m->file_bytes);
}

megabyte_status megabyte_model_open_memory(megabyte_model **model, const void *data, size_t size,
                                           const megabyte_allocator *allocator,
                                           megabyte_error *error) {
    megabyte_model m;
    clear_error(error);
    if (model) *model = NULL;
    if (!model || !data)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "model and data must not be NULL");
    if ((uintptr_t)data % ALIGN)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "the model's bytes must be aligned to 64 (say _Alignas(64))");
    memset(&m, 0, sizeof m);
    status r = choose_allocator(&m.allocator, allocator, error);
    if (r) return r;
    m.file = data;
    m.file_bytes = size;
    if (BIG_ENDIAN_HOST) {
        if ((r = copy_file(&m, error))) return r;
        memcpy(m.copy, data, size);
    }
    if ((r = finish_opening(model, &m, error))) release_file(&m);
    return r;
}

#if !defined(MEGABYTE_NO_FILE)
static status read_copy(megabyte_model *m, file_handle f, const char *path, megabyte_error *e) {
    status r = copy_file(m, e);
    for (u64 at = 0; !r && at < m->file_bytes;) {
        i64 n = file_read(f, m->copy + at, (size_t)(m->file_bytes - at));
        if (n > 0) at += (u64)n;
        else
            r = fail(e, n ? MEGABYTE_ERROR_IO : MEGABYTE_ERROR_TRUNCATED, at,
                     "%.120s: cannot be read to its end", path);
    }
    return r;
}

/* The file's bytes: mapped where that is possible and wanted, else read into a copy. */
static status map_or_read(megabyte_model *m, const char *path, int copy, megabyte_error *e) {
    file_handle f;
    status r = MEGABYTE_OK;
    int opened = file_open(&f, path, &m->file_bytes);
    if (!opened)
        return fail(e, MEGABYTE_ERROR_IO, 0, "%.120s: cannot be opened; is the path right?", path);
    if (opened < 0) return fail(e, MEGABYTE_ERROR_IO, 0, "%.120s: not a regular file", path);
    if (m->file_bytes < 8 || m->file_bytes > SIZE_MAX / 2) {
        r = fail(e, m->file_bytes < 8 ? MEGABYTE_ERROR_BAD_MAGIC : MEGABYTE_ERROR_UNSUPPORTED, 0,
                 "%.120s: %llu bytes cannot be a megabyte model (.mb) file here", path,
                 (unsigned long long)m->file_bytes);
    } else if (copy || BIG_ENDIAN_HOST || !HAVE_MMAP) {
        r = read_copy(m, f, path, e);
    } else {
        m->file = m->mapping = file_map(f, (size_t)m->file_bytes);
        if (!m->file)
            r = fail(e, MEGABYTE_ERROR_IO, 0, "%.120s: cannot be mapped into memory", path);
    }
    file_close(f);
    return r;
}
#endif

static status open_file(megabyte_model **model, const char *path, int copy,
                        const megabyte_allocator *allocator, megabyte_error *error) {
    megabyte_model m;
    clear_error(error);
    if (model) *model = NULL;
    if (!model || !path)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "model and path must not be NULL");
    memset(&m, 0, sizeof m);
    status r = choose_allocator(&m.allocator, allocator, error);
    if (r) return r;
#if defined(MEGABYTE_NO_FILE)
    (void)copy;
    return fail(error, MEGABYTE_ERROR_UNSUPPORTED, 0,
                "built with MEGABYTE_NO_FILE: use megabyte_model_open_memory");
#else
    if (!(r = map_or_read(&m, path, copy, error))) r = finish_opening(model, &m, error);
    if (r) release_file(&m);
    return r;
#endif
}

megabyte_status megabyte_model_open(megabyte_model **model, const char *path,
                                    const megabyte_allocator *allocator, megabyte_error *error) {
    return open_file(model, path, 0, allocator, error);
}

megabyte_status megabyte_model_load(megabyte_model **model, const char *path,
                                    const megabyte_allocator *allocator, megabyte_error *error) {
    return open_file(model, path, 1, allocator, error);
}

void megabyte_model_close(megabyte_model *model) {
    if (!model) return;
    megabyte_allocator a = model->allocator;
    release_file(model);
    a.free(a.context, model, model->allocated);
}

megabyte_status megabyte_model_verify(const megabyte_model *model, megabyte_error *error) {
    u8 digest[32];
    clear_error(error);
    if (!model) return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "model must not be NULL");
    int holds = model->data_holds; /* big-endian hosts looked before they turned the floats round */
    if (!BIG_ENDIAN_HOST) {
        sha256(model->file + model->data_offset, model->file_bytes - model->data_offset, NULL, 0,
               digest);
        holds = !memcmp(digest, model->file + 64, 32);
    }
    if (!holds)
        return fail(error, MEGABYTE_ERROR_CORRUPT, model->data_offset,
                    "the weights do not match their checksum; copy or "
                    "download the file again");
    return MEGABYTE_OK;
}

/* ---- descriptions of a model */

void megabyte_model_describe(const megabyte_model *m, megabyte_info *info) {
    static const char families[][12] = {"", "lucidrains", "mblm", "paper", "spacebyte", "bgpt"};
    static const char norms[][16] = {"RMSNorm", "LayerNorm", "deviation norm"};
    static const char activations[][12] = {"GELU", "tanh-GELU", "ReLU", "SiLU"};
    if (!info) return;
    memset(info, 0, sizeof *info);
    if (!m) return;
    const struct sizes *z = &m->sizes;
    info->n_stages = z->n_stages;
    info->vocabulary = z->vocabulary;
    info->pad_id = z->pad_id;
    info->end_id = z->end_id;
    info->patch_bytes = (u32)m->stage[0].bytes;
    info->context_bytes = m->stage[0].bytes * z->stage[0].positions;
    info->file_bytes = m->file_bytes;
    info->family = families[z->family];
    info->quantization = m->quantized == 1   ? "f32"
                         : m->quantized == 2 ? "q8"
                         : m->quantized & 1  ? "mixed"
                                             : "q4";
    memcpy(info->id, m->id, sizeof info->id);
    for (u32 s = 0; s < z->n_stages; s++) {
        const struct stage *g = &m->stage[s];
        megabyte_stage_info *i = &info->stage[s];
        i->dim = g->size.dim;
        i->layers = g->size.layers;
        i->heads = g->size.heads;
        i->head_dim = g->size.head_dim;
        i->ff_dim = g->size.ff_dim;
        i->positions = g->size.positions;
        i->learned_positions = g->position != NULL;
        i->rotary_positions = g->rotary != NULL;
        i->input_rotary_positions = g->input_rotary != NULL;
        i->kv_heads = g->kv_heads;
        i->norm = norms[g->size.norm];
        i->activation = activations[g->size.activation];
        i->qk_norm = (g->size.flags & QK_NORM) != 0;
        i->final_norm = g->norm != NULL;
        i->token_shift = g->half != 0;
        i->cross_patch = g->size.cross;
        memcpy(i->convolutions, g->size.convolution, sizeof i->convolutions);
        i->parameters = g->parameters;
        i->macs_per_token = g->macs;
        i->bytes_per_token = g->bytes;
        info->parameters += g->parameters;
        info->macs_per_byte += (double)g->macs / (double)g->bytes;
        info->weight_bytes_per_byte += (double)g->weight_bytes / (double)g->bytes;
    }
    /* f32 weights are 4 bytes, q8 counts as 1 without its scales; what is mixed or q4, as kept */
    if (m->quantized <= 2)
        info->weight_bytes_per_byte = info->macs_per_byte * (m->quantized == 1 ? 4.0 : 1.0);
}

const char *megabyte_model_metadata_at(const megabyte_model *m, uint32_t index,
                                       const char **value) {
    if (!m || index >= m->n_metadata) return NULL;
    const u8 *p = m->metadata, *end = m->file + m->data_offset;
    const char *key = NULL, *text = NULL;
    for (u32 i = 0; i <= index; i++) p = metadata_entry(p, end, &key, &text);
    if (value) *value = text;
    return key;
}

const char *megabyte_model_metadata(const megabyte_model *m, const char *key) {
    const char *k, *value;
    for (u32 i = 0; key && (k = megabyte_model_metadata_at(m, i, &value)) != NULL; i++)
        if (!strcmp(k, key)) return value;
    return NULL;
}

/* ============================================================================ 5 scalar numerics */

/* Double precision from + - * / and integers; each rounds once per operation on every machine. */

/* log2(x) for finite x > 0, error below 1e-15: x = 2^e m, log m = 2 atanh((m-1)/(m+1)). */
static double log2_exact(double x) {
    u64 bits;
    int e = 0;
    if (x < DBL_MIN) {
        x *= 18014398509481984.0;
        e = -54;
    } /* 2^54 */
    memcpy(&bits, &x, 8);
    e += (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffULL) | 1023ULL << 52;
    memcpy(&x, &bits, 8);
    if (x > 1.4142135623730951) {
        x *= 0.5;
        e++;
    }
    double s = (x - 1) / (x + 1), z = s * s, sum = 0; /* |s| <= 0.1716: z^11 < 1e-16 */
    for (int i = 21; i >= 1; i -= 2) {
        sum *= z;
        ROUNDED(sum);
        sum += 1.0 / i;
    }
    double t = 2 * s * sum * 1.4426950408889634;
    ROUNDED(t);
    return e + t;
}

/* sin and cos of an angle >= 0; what is not a reasonable angle counts as 0. Reduced by pi/2 in
 * three parts of 33 bits (exact for the 2^20 first quarter turns), then Taylor series on |r| <=
 * pi/4. */
static void sin_cos(double angle, double *sine, double *cosine) {
    if (!(angle >= 0 && angle < 1e9)) angle = 0;
    ROUNDED(angle);
    double turns = angle * 0.63661977236758134;
    ROUNDED(turns);
    int64_t n = (int64_t)(turns + 0.5);
    static const double part[3] = {1.57079632673412561417, 6.07710050630396597660e-11,
                                   2.02226624879595063154e-21};
    double r = angle;
    for (int i = 0; i < 3; i++) {
        double p = (double)n * part[i];
        ROUNDED(p);
        r -= p;
    }
    double z = r * r, s = 0, c = 0;
    ROUNDED(z);
    for (int i = 17; i >= 3; i -= 2) { /* s = 1 - z/6 (1 - z/20 (...)) */
        s = (1 - s) * z;
        c = (1 - c) * z;
        ROUNDED(s);
        ROUNDED(c);
        s /= (double)(i * (i - 1));
        c /= (double)((i - 1) * (i - 2));
    }
    s = (1 - s) * r;
    ROUNDED(s);
    c = 1 - c;
    switch (n & 3) {
    case 0:
        *sine = s;
        *cosine = c;
        break;
    case 1:
        *sine = c;
        *cosine = -s;
        break;
    case 2:
        *sine = -s;
        *cosine = -c;
        break;
    default:
        *sine = -c;
        *cosine = s;
        break;
    }
}

/* The first of the largest. */
static u32 likeliest(const float *logits, u32 n) {
    u32 best = 0;
    for (u32 i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* A sum over lanes by one fixed tree. */
static float lane_sum(const float lane[16]) {
    float t[8];
    for (int i = 0; i < 8; i++) t[i] = lane[i] + lane[i + 8];
    for (int i = 0; i < 4; i++) t[i] = t[i] + t[i + 4];
    return (t[0] + t[2]) + (t[1] + t[3]);
}
static float lane_max(const float lane[16]) {
    float m = lane[0];
    for (int i = 1; i < 16; i++) m = lane[i] > m ? lane[i] : m;
    return m;
}

/* ================================================================================ 6 kernels */

/* What every instruction set provides. Rows of activations are float[round_up(n, 16)]; readers
 * never rely on what lies beyond n. `tiles` count 16 output rows each. Matrix products:
 *     y[i][r] = sum over k of x[i][k] * w[r][k]   (+ bias[r])   (+ what y held, if add) */
struct kernels {
    /* w: [tiles][k][16], tiles `stride` floats apart; k runs in order, product and sum rounded
     * separately. */
    void (*gemm_f32)(const float *w, u64 stride, u32 tiles, u32 k, const float *x, u64 ldx, u32 m,
                     float *y, u64 ldy, const float *bias, int add);
    /* w: [tiles][k4/4][16][4] bytes of weight + 128, tiles `stride` bytes apart, and in each of
     * them the [16][4] `step`: 64, or more where those of the other tiles come between. x:
     * quantized rows, ldx elements apart; sum[i] = sum of row i; the exact integer product times
     * (x_scale[i] * w_scale[r]). x_scale NULL: y holds int32, to which the integer products are
     * added; w_scale is of no account, but read; bias, add: unused. */
    void (*gemm_q8)(const u8 *w, u64 stride, u64 step, const float *w_scale, u32 tiles, u32 k4,
                    const void *x, u64 ldx, const i32 *sum, const float *x_scale, u32 m, float *y,
                    u64 ldy, const float *bias, int add);
    /* The same for q4, for up to FEW_ROWS rows, tiles from `tile` on: y and bias are of the
     * first of them. x_scale is given. Works on the nibbles; room: Q4_ROOM bytes. */
    void (*gemm_q4)(const struct matrix *w, u32 tile, u32 tiles, const void *x, u64 ldx,
                    const float *x_scale, u32 m, float *y, u64 ldy, const float *bias, int add,
                    u8 *room);
    /* Tiles of q4 as tiles of q8, each 16 * round_up(cols, Q4_GROUP) bytes. */
    void (*unpack_q4)(const struct matrix *w, u32 tile, u32 tiles, u8 *to);
    /* q[i] = round(x[i] * 127 / max|x|), clamped; zeros up to round_up(n, 16). Sets the sum and the
     * scale. */
    void (*quantize)(const float *x, u32 n, void *q, i32 *sum, float *scale);
    /* The same, top = max|x| being known. */
    void (*quantize_known)(const float *x, u32 n, float top, void *q, i32 *sum, float *scale);
    /* The same, + 128, as a position of a cache's int8 keys and values (section 9): i goes to byte
     * i / 4 * 64 + i % 4, up to round_up(n, 4), or to byte i / 16 * tile + i % 16 * 4, up to
     * round_up(n, 16). */
    void (*keep_key)(const float *x, u32 n, u8 *to, float *scale);
    void (*keep_value)(const float *x, u32 n, u8 *to, u64 tile, float *scale);
    /* The same of |x[i]| <= largest, in two parts, high + low / 254: for attention's weights, few
     * of which are near the largest. n is a multiple of 16. */
    void (*quantize_finely)(const float *x, u32 n, float largest, void *high, void *low,
                            i32 sum[2]);
    /* y[i] = (y[i], if add) + (high[i] + low[i] / 254) * largest / 127, parts added one by one */
    void (*join)(const i32 *high, const i32 *low, u32 n, float largest, float *y, int add);
    /* softmax in pieces: lane-wise maxima so far */
    void (*maxima)(const float *x, u32 n, float most[16]);
    /* x := e^(x - most), zeros from n to `end`, a multiple of 16; lane-wise sums so far; then x[i]
     * *= by[i]; returns the largest |x[i]|. most: all the maxima, of which the largest counts. */
    float (*weigh)(float *x, u32 n, u32 end, const float most[16], const float *by, float sum[16]);
    /* These return max|x[i]| of what they have made of x: */
    float (*rms_norm)(float *x, const float *g, u32 n); /* x / max(|x| n^-1/2, 1e-8) * g */
    /* (x - mean) / sqrt(variance + 1e-5) * weight + bias; not `centred`: x instead of x - mean */
    float (*layer_norm)(float *x, const float *weight, const float *bias, u32 n, int centred);
    float (*activate)(float *x, u32 n, u32 kind); /* to round_up(n, 16); kind: GELU_ERF ... */
    void (*rotate)(float *x, const float *cosine, const float *sine,
                   u32 half); /* x[i], x[i + half] by angle i */
    /* y := x by, clamped to +-MOST: finite ever after; x may be y */
    void (*scale)(const float *x, float by, u32 n, float *y);
    void (*add)(float *x, const float *y, u32 n); /* x += y, neither padded */
    float (*softmax)(float *x,
                     u32 n); /* x := e^(x - max), zeros to round_up(n, 16); returns the sum */
    megabyte_isa isa;
    u32 q_bytes; /* of a quantized element */
};

/* So few rows wait for memory rather than for products: they take q4 as nibbles. For more, q4's
 * tiles are unpacked, UNPACKED at a time. That takes more room than gemm_q4, which keeps rows'
 * inputs as int8 and 4 bytes for each group. */
#define FEW_ROWS 8
#define UNPACKED 4
#define Q4_ROOM(cols) (UNPACKED * 16 * round_up(cols, Q4_GROUP))
_Static_assert(UNPACKED * 16 * Q4_GROUP >= FEW_ROWS * (Q4_GROUP + 4), "one room serves both");

/* The codec's own, for MIX_INPUTS inputs |x| <= 2047 and weights, 64-byte aligned: the sum of x w;
 * w += x error / 2^16, rounded, saturated. Exact, so that order does not matter. */
struct mix_kernels {
    i32 (*dot)(const i16 *x, const i16 *w);
    void (*train)(const i16 *x, i16 *w, i16 error);
};
#define MIX_INPUTS 32 /* two AVX2 registers of int16 */

#define MOST \
    1e15f /* of keys, queries, values and logits: a dot product of 65536 such pairs is finite */
#define MAGIC \
    12582912.0f /* 1.5 * 2^23: adding it rounds |v| < 2^22 to an integer, in the low bits */
#define MAGIC_BITS 0x4b400000

/* The preprocessor knows no enums: the instruction sets' numbers once more. */
#define BACKEND_PLAIN 1
#define BACKEND_AVX2 2
#define BACKEND_AVX512_VNNI 3
#define BACKEND_NEON 4
#define BACKEND_NEON_DOT 5
#define BACKEND_SIMD128 6
#define BACKEND_NEON_I8MM 7
_Static_assert(BACKEND_PLAIN == MEGABYTE_ISA_PLAIN && BACKEND_AVX2 == MEGABYTE_ISA_AVX2 &&
                   BACKEND_AVX512_VNNI == MEGABYTE_ISA_AVX512_VNNI &&
                   BACKEND_NEON == MEGABYTE_ISA_NEON && BACKEND_NEON_DOT == MEGABYTE_ISA_NEON_DOT &&
                   BACKEND_SIMD128 == MEGABYTE_ISA_SIMD128 &&
                   BACKEND_NEON_I8MM == MEGABYTE_ISA_NEON_I8MM,
               "passes are named by megabyte_isa");

/* Sections 21 and 22, at the end of this file, once per instruction set. MEGABYTE_SELF is this
 * file's name, should you have renamed it. */
#ifndef MEGABYTE_SELF
#define MEGABYTE_SELF "megabyte.c"
#endif
#define MEGABYTE_BACKEND BACKEND_PLAIN
#include MEGABYTE_SELF
#if HAVE_X86
#define MEGABYTE_BACKEND BACKEND_AVX2
#include MEGABYTE_SELF
#define MEGABYTE_BACKEND BACKEND_AVX512_VNNI
#include MEGABYTE_SELF
#endif
#if HAVE_NEON
#define MEGABYTE_BACKEND BACKEND_NEON
#include MEGABYTE_SELF
#define MEGABYTE_BACKEND BACKEND_NEON_DOT
#include MEGABYTE_SELF
#define MEGABYTE_BACKEND BACKEND_NEON_I8MM
#include MEGABYTE_SELF
#endif
#if HAVE_SIMD128
#define MEGABYTE_BACKEND BACKEND_SIMD128
#include MEGABYTE_SELF
#endif

/* ================================================================================ 7 dispatch */

#if HAVE_X86
static u64 xgetbv(void) {
    u32 low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (u64)high << 32 | low;
}
/* Bits: 1 AVX2, 2 AVX-512 F, BW, DQ, VL and VNNI; each only if the system saves its registers
 * too. */
static u32 x86_features(void) {
    u32 a, b, c, d, found = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* OSXSAVE */
    u64 saved = xgetbv();
    if ((saved & 6) != 6 || !(c >> 28 & 1)) return 0; /* XMM and YMM state; AVX */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if (b >> 5 & 1) found |= 1;
    if ((saved & 0xe6) == 0xe6 && (b >> 16 & 1) && (b >> 17 & 1) && (b >> 30 & 1) &&
        (b >> 31 & 1) && (c >> 11 & 1))
        found |= 2;
    return found;
}
#endif
#if HAVE_NEON
#if defined(__APPLE__)
static int apple_has(const char *feature) {
    int has = 0;
    size_t size = sizeof has;
    return !sysctlbyname(feature, &has, &size, NULL, 0) && has;
}
#endif
static int neon_has_dot(void) {
#if defined(__ARM_FEATURE_DOTPROD)
    return 1;
#elif defined(__linux__)
    return (int)(getauxval(AT_HWCAP) >> 20 & 1); /* HWCAP_ASIMDDP */
#elif defined(__APPLE__)
    return apple_has("hw.optional.arm.FEAT_DotProd");
#elif defined(_WIN32) && defined(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE)
    return IsProcessorFeaturePresent(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE) != 0;
#else
    return 0;
#endif
}
static int neon_has_i8mm(void) {
#if defined(__ARM_FEATURE_MATMUL_INT8)
    return 1;
#elif defined(__linux__)
    return neon_has_dot() && getauxval(26) >> 13 & 1; /* AT_HWCAP2, HWCAP2_I8MM */
#elif defined(__APPLE__)
    return neon_has_dot() && apple_has("hw.optional.arm.FEAT_I8MM");
#elif defined(_WIN32) && defined(PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE)
    return neon_has_dot() && IsProcessorFeaturePresent(PF_ARM_V82_I8MM_INSTRUCTIONS_AVAILABLE);
#else
    return 0;
#endif
}
#endif

/* The kernels of an instruction set; 0 if this build or CPU lacks it. */
static int find_kernels(megabyte_isa isa, struct kernels *k) {
#if HAVE_X86
    u32 has = x86_features();
    if ((isa == MEGABYTE_ISA_AVX512_VNNI || isa == MEGABYTE_ISA_AUTO) && has & 2) {
        *k = kernels_avx512();
        return 1;
    }
    if ((isa == MEGABYTE_ISA_AVX2 || isa == MEGABYTE_ISA_AUTO) && has & 1) {
        *k = kernels_avx2();
        return 1;
    }
#endif
#if HAVE_NEON
    if ((isa == MEGABYTE_ISA_NEON_I8MM || isa == MEGABYTE_ISA_AUTO) && neon_has_i8mm()) {
        *k = kernels_neon_i8mm();
        return 1;
    }
    if ((isa == MEGABYTE_ISA_NEON_DOT || isa == MEGABYTE_ISA_AUTO) && neon_has_dot()) {
        *k = kernels_neon_dot();
        return 1;
    }
    if (isa == MEGABYTE_ISA_NEON || isa == MEGABYTE_ISA_AUTO) {
        *k = kernels_neon();
        return 1;
    }
#endif
#if HAVE_SIMD128 /* a module that uses it does not load where it is missing */
    if (isa == MEGABYTE_ISA_SIMD128 || isa == MEGABYTE_ISA_AUTO) {
        *k = kernels_simd128();
        return 1;
    }
#endif
    if (isa == MEGABYTE_ISA_PLAIN || isa == MEGABYTE_ISA_AUTO) {
        *k = kernels_plain();
        return 1;
    }
    return 0;
}

static status choose_kernels(megabyte_isa isa, struct kernels *k, megabyte_error *error) {
    if (find_kernels(isa, k)) return MEGABYTE_OK;
    return fail(error, MEGABYTE_ERROR_UNSUPPORTED, 0,
                "this CPU or build lacks the instruction set '%s'", megabyte_isa_name(isa));
}

int megabyte_isa_available(megabyte_isa isa) {
    struct kernels k;
    return find_kernels(isa, &k);
}

const char *megabyte_isa_name(megabyte_isa isa) {
    static const char names[][12] = {"auto", "plain",    "avx2",    "avx512-vnni",
                                     "neon", "neon-dot", "simd128", "neon-i8mm"};
    return (unsigned)isa < sizeof names / sizeof *names ? names[isa] : "?";
}

/* A build or machine whose arithmetic is not IEEE single (fused, re-ordered, extended or flushed)
 * computes other bits here. Cheap enough for every engine; megabyte_self_test does more. */
static u32 arithmetic_fingerprint(const struct kernels *k) {
    enum { N = 40, M = 5 };
    float x[48], w[3 * N * 16], y[M * 48], bias[48], g[48];
    u8 tiles[3 * N * 16];
    u64 q[M][48 / 4]; /* room for 48 elements of 2 bytes, aligned for anything */
    u32 seed = 1, fingerprint = 2166136261u;
    i32 sum[M];
    float scale[M];
    for (u32 i = 0; i < 3 * N * 16; i++) {
        seed = seed * 1664525 + 1013904223;
        tiles[i] = (u8)(seed >> 24);
        w[i] = (float)((i32)(seed >> 8) - (1 << 23)) * 1.1920929e-7f;
    }
    memset(x, 0, sizeof x);
    for (u32 i = 0; i < 48; i++) {
        bias[i] = w[i + 99];
        g[i] = w[i + 200];
        if (i < N) x[i] = w[i] * 3;
    }
    for (u32 i = 0; i < M; i++) {
        k->quantize(x, N - i, q[i], &sum[i], &scale[i]);
        memcpy(y + i * 48, x, sizeof x);
    }
    k->gemm_q8(tiles, N * 16, 64, g, 3, N, q, 48 * 2 / k->q_bytes, sum, scale, M, y, 48, bias, 1);
    k->gemm_f32(w, N * 16, 3, N, x, 1, M, y, 48, bias, 1); /* rows overlap: x[i..i+N) */
    k->layer_norm(y, g, bias, 37, 1);
    k->rms_norm(y + 48, g, 37);
    k->activate(y + 96, N, GELU_ERF);
    k->rotate(y + 144, w, w + 50, 20);
    k->scale(y + 144, 0.3f, N, y + 144);
    y[192] = 1e-39f; /* a denormal must survive */
    y[192] *= 3.0f;
    /* (1 + 2^-12)^2 - (1 + 2^-11) is 0 if the square is rounded before the sum, else 2^-24 */
    float pair[2] = {1, 1 + 0x1p-12f};
    for (u32 i = 0; i < 16; i++) {
        w[i] = -(1 + 0x1p-11f);
        w[16 + i] = pair[1];
    }
    k->gemm_f32(w, 0, 1, 2, pair, 0, 1, y + 193, 16, NULL, 0);
    k->gemm_f32(w, 0, 1, 2, pair, 0, 4, y + 176, 0, NULL, 0);
    scale[0] = k->softmax(y + 96, N);
    y[194] = scale[0];
    double sine, cosine;
    sin_cos(1234.5678, &sine, &cosine);
    y[195] = (float)(sine * 1e3 - (double)(float)(sine * 1e3)) + (float)log2_exact(cosine + 2);
    y[196] = (float)(cosine * 1e3 - (double)(float)(cosine * 1e3));
    for (u32 i = 0; i < 40; i++) { /* divisions that must not become products */
        k->quantize(w + 16 * i, 16, q[0], &sum[0], &scale[0]);
        fingerprint = (fingerprint ^ f32_to_bits(scale[0])) * 16777619u;
    }
    for (u32 i = 0; i < M * 48; i++)
        if (i % 48 < 37) fingerprint = (fingerprint ^ f32_to_bits(y[i])) * 16777619u;
    return fingerprint;
}
#define ARITHMETIC_FINGERPRINT 0x4c71d348u

static status check_arithmetic(const struct kernels *k, megabyte_error *error) {
    fp_state fp;
    fp_enter(&fp);
    u32 fingerprint = arithmetic_fingerprint(k);
    fp_leave(&fp);
    if (fingerprint == ARITHMETIC_FINGERPRINT) return MEGABYTE_OK;
    return fail(error, MEGABYTE_ERROR_ARITHMETIC, 0,
                "this build's floating point is not IEEE single precision (fingerprint %08x "
                "on %s); compile megabyte.c without fast-math or unusual FP flags",
                fingerprint, megabyte_isa_name(k->isa));
}

/* ================================================================================ 8 threads */

/* A pool runs one function on all its threads at once. The function is a sequence of phases, the
 * same for every thread; a phase's work is cut into chunks that the threads claim, and nobody goes
 * on before all of it is done:
 *
 *     for (struct phase p = next_phase(pool, &me, n); claim(&p);)
 *         for (u32 i = p.from; i < p.to; i++) ...        (all threads together cover [0, n) once)
 *
 * A phase may have a head: work too small to be shared that comes between the phase before it and
 * its chunks. The first thread to find the former finished does it, mostly the one that finished
 * it; the others wait once, not twice. claim then returns with p.head set.
 *
 * A thread that the system has put aside has claimed nothing, so the others do its share: beside
 * another busy program, two threads stepped one stream 12 times faster than with fixed shares and
 * barriers. Waiting spins first, for a futex costs as much as half a step, then yields; between
 * runs workers finally sleep. The caller's thread leads: it alone keeps time, if there is a
 * clock.
 *
 * A forked child has no workers: there the caller's thread does all of it. */
struct pool {
    u32 threads;
    u64 (*clock)(void *context); /* the caller's, or NULL */
    void *clock_context;
    u64 waited; /* by the leading thread for others */
#if HAVE_THREADS
    u32 started, quit;
    i64 process; /* that has the threads */
    u32 generation; /* of runs: workers wait for it to move */
    u32 open; /* a run may be joined */
    u32 inside; /* workers that have joined, or are looking */
    u32 sleepers;
    void (*work)(void *context, int leads);
    void *context;
    struct progress *progress; /* per phase */
    u32 phases;
    thread_lock mutex;
    thread_signal wake;
    thread_handle *handle; /* [threads] */
#endif
};
struct progress {
    u32 next, done; /* chunks claimed, finished */
    u32 headed, ready; /* the head's are */
    u8 pad[ALIGN - 4 * sizeof(u32)];
};
/* Where a thread is in its run. */
struct worker {
    u32 phase; /* the number of its next one */
    u32 before; /* chunks of the one before it */
    int leads;
};
struct phase {
    struct pool *pool;
    u32 index, before, n, chunks, chunk, from, to;
    int started, has_head, head;
    int leads;
};

#if HAVE_THREADS
#define SPINS 3000 /* about 30 us: longer than the gaps inside a step, shorter than a time slice */
static void spin_pause(u32 spins) {
    if (spins < SPINS) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
    } else {
        yield_core();
    }
}

static THREAD_RESULT pool_thread(void *argument) {
    struct pool *p = argument;
    u32 seen = 0;
    fp_state fp;
    fp_enter(&fp);
    for (;;) {
        u32 now;
        for (u32 spins = 0; (now = __atomic_load_n(&p->generation, __ATOMIC_SEQ_CST)) == seen;
             spins++) {
            if (spins < 2 * SPINS) {
                spin_pause(spins);
                continue;
            }
            lock(&p->mutex);
            __atomic_add_fetch(&p->sleepers, 1,
                               __ATOMIC_SEQ_CST); /* before looking again: see pool_wake */
            while (__atomic_load_n(&p->generation, __ATOMIC_SEQ_CST) == seen)
                wait_for(&p->wake, &p->mutex);
            __atomic_sub_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
            unlock(&p->mutex);
        }
        seen = now;
        if (__atomic_load_n(&p->quit, __ATOMIC_SEQ_CST)) return 0;
        /* Counted, then looked; pool_run closes, then counts: who finds a run open is waited
         * for. */
        __atomic_add_fetch(&p->inside, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&p->open, __ATOMIC_SEQ_CST)) p->work(p->context, 0);
        __atomic_sub_fetch(&p->inside, 1, __ATOMIC_SEQ_CST);
    }
}

/* The generation is moved before the sleepers are counted, and a worker counts itself before it
 * looks at the generation again: one of the two sees the other. */
static void pool_wake(struct pool *p) {
    __atomic_add_fetch(&p->generation, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST)) {
        lock(&p->mutex);
        wake_all(&p->wake);
        unlock(&p->mutex);
    }
}

static int has_workers(const struct pool *p) { return p->process == process_number(); }
#endif

static void pool_run(struct pool *p, void (*work)(void *, int), void *context) {
#if HAVE_THREADS
    if (p->threads > 1) memset(p->progress, 0, p->phases * sizeof *p->progress);
    if (p->threads > 1 && has_workers(p)) {
        p->work = work;
        p->context = context;
        __atomic_store_n(&p->open, 1, __ATOMIC_SEQ_CST);
        pool_wake(p);
        work(context, 1);
        __atomic_store_n(&p->open, 0, __ATOMIC_SEQ_CST);
        u64 from = p->clock ? p->clock(p->clock_context) : 0;
        for (u32 spins = 0; __atomic_load_n(&p->inside, __ATOMIC_SEQ_CST); spins++)
            spin_pause(spins);
        if (p->clock) p->waited += p->clock(p->clock_context) - from;
        return;
    }
#endif
    (void)p;
    work(context, 1);
}

/* More chunks than threads: who comes late or runs slowly takes fewer. */
static u32 most_chunks(u32 threads) { return threads > 1 ? 2 * threads : 1; }

static struct phase next_phase(struct pool *p, struct worker *me, u32 n) {
    struct phase f = {.pool = p,
                      .index = me->phase++,
                      .before = me->before,
                      .n = n,
                      .chunks = p->threads > 1 ? min32(n, most_chunks(p->threads)) : 1,
                      .leads = me->leads};
    me->before = f.chunks;
    return f;
}
/* The same, with a head if `head` is set: then so little is shared that a chunk for each thread is
 * best. */
static struct phase next_headed(struct pool *p, struct worker *me, u32 n, int head) {
    struct phase f = next_phase(p, me, n);
    f.has_head = head;
    if (head) me->before = f.chunks = min32(n, p->threads);
    return f;
}

#if HAVE_THREADS
/* The phase before is finished, or the head is done or this thread's to do (1). */
static int may_begin(const struct phase *f, int *mine) {
    struct progress *at = &f->pool->progress[f->index];
    if (f->has_head && __atomic_load_n(&at->ready, __ATOMIC_ACQUIRE)) return 1;
    if (f->index && __atomic_load_n(&at[-1].done, __ATOMIC_ACQUIRE) < f->before) return 0;
    if (!f->has_head) return 1;
    u32 nobody = 0;
    *mine = !__atomic_load_n(&at->headed, __ATOMIC_RELAXED) &&
            __atomic_compare_exchange_n(&at->headed, &nobody, 1, 0, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED);
    return *mine;
}

static int begin_phase(const struct phase *f) {
    struct pool *p = f->pool;
    int mine = 0;
    if (may_begin(f, &mine)) return mine;
    int timed = f->leads && p->clock;
    u64 from = timed ? p->clock(p->clock_context) : 0;
    for (u32 spins = 0; !may_begin(f, &mine); spins++) spin_pause(spins);
    if (timed) p->waited += p->clock(p->clock_context) - from;
    return mine;
}
#endif

/* The next chunk of a phase, or its head, for this thread to do; 0: there is no more. */
static int claim(struct phase *f) {
#if HAVE_THREADS
    if (f->pool->threads > 1) {
        struct progress *at = &f->pool->progress[f->index];
        if (f->head) __atomic_store_n(&at->ready, 1, __ATOMIC_RELEASE);
        else if (f->started) __atomic_add_fetch(&at->done, 1, __ATOMIC_RELEASE);
        f->head = !f->started && begin_phase(f);
        f->started = 1;
        if (f->head) return 1;
        f->chunk = __atomic_load_n(&at->next, __ATOMIC_RELAXED) < f->chunks
                       ? __atomic_fetch_add(&at->next, 1, __ATOMIC_RELAXED)
                       : f->chunks;
        if (f->chunk >= f->chunks) return 0;
        f->from = (u32)((u64)f->n * f->chunk / f->chunks);
        f->to = (u32)((u64)f->n * (f->chunk + 1) / f->chunks);
        return 1;
    }
#endif
    f->to = f->n;
    f->head = f->has_head && !f->started;
    f->started += f->head ? 1 : 2;
    return f->head || (f->n && f->started <= 3);
}

static void pool_stop(struct pool *p) {
#if HAVE_THREADS
    if (p->threads < 2 || !p->started || !has_workers(p)) return;
    __atomic_store_n(&p->quit, 1, __ATOMIC_SEQ_CST);
    pool_wake(p);
    for (u32 i = 1; i < p->started; i++) join_thread(p->handle[i]);
    end_waiting(&p->wake, &p->mutex);
#endif
    (void)p;
}

/* A pool's share of the object that it is part of; phases: the most of a run. */
static void pool_layout(struct pool *p, struct arena *a, u32 threads, u32 phases) {
    p->threads = threads ? threads : 1;
#if HAVE_THREADS
    if (threads < 2) return;
    p->phases = phases;
    p->handle = carve(a, threads, sizeof *p->handle);
    p->progress = carve(a, phases, sizeof *p->progress);
#endif
    (void)a;
    (void)phases;
}

/* It is laid out, all else is zero. */
static int pool_start(struct pool *p) {
#if HAVE_THREADS
    p->threads = useful_threads(p->threads);
    if (p->threads < 2) return 1;
    if (!prepare_waiting(&p->wake, &p->mutex)) {
        p->threads = 1;
        return 0;
    }
    p->process = process_number();
    p->started = launch_threads(p->handle, p->threads, pool_thread, p);
    if (p->started == p->threads) return 1;
    pool_stop(p);
    p->threads = 1;
    return 0;
#else
    return p->threads < 2;
#endif
}

static status start_threads(struct pool *p, megabyte_error *error) {
    u32 threads = p->threads;
    if (pool_start(p)) return MEGABYTE_OK;
    return fail(error, MEGABYTE_ERROR_UNSUPPORTED, 0, "%u threads could not be started", threads);
}

/* =================================================================================== 9 objects */

/* Engine, stream, and what a call asks of them: job -> piece of a job -> row, a token of a batch.
 * */

/* A sequence's keys and values, per layer, for up to `cap` positions. Both are kept as the matrix
 * kernels read matrices, so that q.k and p.v are matrix products whose bits do not depend on how
 * many queries are computed together:
 *     k   [heads][cap / 16, rounded up][head_dim][16]     rows = positions, columns = channels
 *     v   [heads][v_tiles][cap][16]                       rows = channels,  columns = positions
 * Stage 0 of a quantized model, the only one with long sequences, keeps them in int8, as k8 and v8,
 * with a scale for each position and head: a quarter of the memory, which is what a stream far into
 * its context waits for. There cap and head_dim are rounded up as gemm_q8 wants it. Where the CPU
 * has AVX-512, whose registers hold the sums of four tiles, a head's values are one stream:
 *     v8  [heads][cap / 4][v_tiles][16][4]                */
struct cache {
    float *k, *v;
    u8 *k8, *v8; /* instead */
    float *k_scale, *v_scale;
    u64 k_layer, v_layer; /* elements from one layer to the next, */
    u64 k_head, v_head; /* one head to the next, */
    u64 v_tile, v_step; /* one tile of 16 channels, v8: 4 positions to the next, */
    u64 scale_head; /* one head's scales to the next's */
};

static struct cache cache_sizes(const struct stage *g, u64 cap) {
    struct cache c = {.scale_head = round_up(cap, 16), .v_step = 64};
    c.k_head = c.scale_head * (g->cache_q8 ? round_up(g->size.head_dim, 4) : g->size.head_dim);
    c.v_tile = (g->cache_q8 ? c.scale_head : cap) * 16;
    c.v_head = g->v_tiles * c.v_tile;
    c.k_layer = g->kv_heads * c.k_head;
    c.v_layer = g->kv_heads * c.v_head;
    if (g->cache_q8 && megabyte_isa_available(MEGABYTE_ISA_AVX512_VNNI)) {
        c.v_tile = 64;
        c.v_step = 64 * (u64)g->v_tiles;
    }
    return c;
}

/* Floats of a position's token-shift state: [layers][attention, feed-forward][half], where the
 * shift delays the second, smaller half of the channels. */
static u64 shift_floats(const struct stage *g) { return (u64)g->size.layers * 2 * g->half; }

#define MAX_REPETITION_WINDOW 1024 /* of sampling */
#define SHIFT_RING \
    8 /* stage 0 keeps the shift states of its last positions: short rewinds are cheap */

#define MOST_SLOTS 4 /* two, and two more for patches that begin with a drafted byte */
#define MOST_DRAFTED 15
#define DRAFT_PATCHES 2 /* that begin with a drafted byte of one pass, at most */
#define DRAFT_ORDERS 6
#define DRAFT_COUNTS 8

/* A context's hash, and the byte that has followed it most of late. */
struct guess {
    u16 check;
    u8 byte, count;
};

/* A second, smaller model that guesses, too: a stream of its own reads the same text. */
struct second {
    megabyte_stream *stream; /* NULL: there is none */
    u64 begin; /* the history's byte that its own history begins with */
    u64 known; /* up to here it holds the history, then its guesses; UINT64_MAX: something else */
    u64 steps; /* of the drafter, before the pass that it was last asked for */
    u64 passes, rows; /* what that took: passes of its own; the work of rows for its guesses */
    u64 gain[MOST_DRAFTED]; /* what byte i of that draft saves if it is right; 0: not its guess */
    i64 balance; /* the work that asking it saves less what that takes, a running mean */
};

/* Speculative decoding (arXiv 2211.17192): bytes guessed beyond one that is known are run as
 * further rows of its pass. What they come to waits here until the text has them, too, or others.
 * As logits do not depend on how many rows are computed together, this changes no bit. */
struct drafter {
    u32 most; /* bytes drafted at a time; 0: none */
    u32 left; /* drafted bytes that have been computed; they follow `position` in the history */
    u64 first; /* the finest stage's token that row 0 of `logits` belongs to */
    u64 begin[MEGABYTE_MAX_STAGES], end[MEGABYTE_MAX_STAGES]; /* each stage's drafted tokens */
    float *logits; /* [1 + most, V] */
    float *shift[MEGABYTE_MAX_STAGES]; /* finer stages: [most][shift_floats] */
    float *condition[MEGABYTE_MAX_STAGES]; /* [DRAFT_PATCHES, output.rows] */
    float *ring; /* [DRAFT_PATCHES][shift_floats]: what the stream's ring held in their place */
    u64 stale; /* of stage 0, keys before this token may be those of dropped bytes */
    /* where drafts come from: section 13 */
    struct guess *table;
    u32 table_mask;
    u32 cleared; /* the table */
    u64 learned; /* bytes of the history that the table knows */
    u16 rate[DRAFT_ORDERS][DRAFT_COUNTS]; /* how often a guess was right, of 2^16 */
    u16 source_rate;
    size_t (*source)(void *context, u64 position, const u8 *before, size_t n_before, u8 *bytes,
                     size_t most);
    void *source_context;
    struct second second;
    u8 bytes[1 + MOST_DRAFTED];
    u64 steps, passes; /* bytes stepped, and passes that they took */
};

struct megabyte_stream {
    megabyte_allocator allocator;
    size_t allocated;
    megabyte_engine *engine;
    int owns_engine;
    int busy; /* in the running batch (finds duplicates) */
    u32 patches; /* the context, in patches */
    u64 position; /* bytes in the history */
    u64 base; /* where the window begins; position - base <= patches * P - ahead */
    u64 tokens; /* of the finest stage, computed since `base`: position - base + ahead */
    u64 relearn; /* during a rewind: the stage-0 token that it begins again with; else 0 */
    u64 oldest; /* the first byte that `history` still holds */
    u8 *history; /* ring [history_bytes]: byte at absolute position p lies at p % history_bytes */
    u64 history_bytes; /* MOST_DRAFTED more than are kept */
    float *start; /* [dim] stage 0's start vector, where it depends on the file type; or NULL */
    struct cache global; /* of stage 0 */
    float *ring; /* [SHIFT_RING][shift_floats]: position j's state lies at j % SHIFT_RING */
    /* finer stages: the sequence in progress and the one before it; while drafting, four in turn */
    struct cache slot[MEGABYTE_MAX_STAGES][MOST_SLOTS];
    float *slot_shift[MEGABYTE_MAX_STAGES][MOST_SLOTS];
    /* of a finest stage that attends across patches: what the slots hold, ... */
    u64 slot_sequence[MOST_SLOTS];
    u32 slot_cross[MOST_SLOTS]; /* ... and how many keys of the patch before each has in front */
    u32 current[MEGABYTE_MAX_STAGES]; /* which slot is in progress */
    /* how many of a slot's keys have been used since the stream was reset: the rest may hold
     * anything */
    u32 slot_used[MEGABYTE_MAX_STAGES][MOST_SLOTS];
    /* the most stage-0 tokens computed since the window was last fed from the start: `ring` holds
     * the states before this one, also after rewinds */
    u64 high;
    float *condition
        /* stages but the finest: the current token's projection [output.rows] */
        [MEGABYTE_MAX_STAGES];
    float *logits; /* [V] */
    struct drafter draft;
    u8 *cleared_from, *cleared_to; /* what lies between them is cleared by a reset */
};

/* What a caller wants done with one stream. */
/* stage 0 only; the last byte's logits; every byte's; those of a byte and of n - 1 drafted ones */
enum { WANT_STATE, WANT_LAST, WANT_ALL, WANT_DRAFT };
struct job {
    megabyte_stream *stream;
    const u8 *bytes; /* [n], or NULL: they are in the history already */
    u64 n, done;
    int sliding; /* first, the window's `again` bytes are to be prefilled again */
    u64 again;
    int want;
    float *logits; /* WANT_ALL: [n, V] or NULL; row 0 is the caller's */
    double bits; /* WANT_ALL: code length of all bytes but the first */
    float *each; /* WANT_ALL: [n] or NULL: every byte's code length; row 0 is the caller's */
    /* WANT_ALL, or NULL: called for bytes 1 ... n - 1 as each has been scored, in any order and by
     * any of the pool's threads, with the byte and the 256 bytes' probabilities times some factor
     * (the likeliest has 1). Codes are then of bytes alone, whatever else the vocabulary has. */
    void (*scored)(void *to, u64 index, u8 byte, const float *likely);
    void *to;
};

/* The part of a job that one round computes: window-relative bytes [t0, t1), tokens [f0, f1) of the
 * finest stage. Stage s has its tokens [g0, g1) begin in there (their results: rows c0 ... of
 * engine->outputs[s]). */
struct piece {
    struct job *job;
    int want; /* the job's, or what a slide needs */
    u64 begin, n; /* number of the first byte, of how many: the job's, or those of a slide */
    u64 t0, t1, f0, f1;
    u64 g0[MEGABYTE_MAX_STAGES], g1[MEGABYTE_MAX_STAGES], c0[MEGABYTE_MAX_STAGES];
    int only_keys; /* its patches' outputs are for nobody: see plan_piece */
};

/* One token of the running batch. */
struct row {
    struct job *job; /* whose bytes it belongs to; NULL for an engine's start tokens */
    struct cache cache; /* of its sequence */
    u64 sequence; /* which sequence of its stage */
    u32 position; /* in the sequence */
    u32 key; /* its place in the cache: the position, or behind those of the patch before */
    u64 angle; /* its rotary position */
    u32 start; /* its input is the start vector */
    u32 first; /* position 1 of a finer stage: the start token's keys and values go in before it */
    const struct cache
        *before; /* the first of a patch that attends to the one before: its cache, ... */
    u32 before_key; /* ... from this key on; g->size.cross of them become the first */
    u32 follows; /* the row before it is the token before it */
    u32 only_keys; /* of the last layer, too: its output is for nobody */
    u32 known; /* keys and values of layers from this one on stay as they are: see rewind */
    const float *shift_from; /* else: that token's shift state, or NULL for zeros */
    float *shift_to; /* where to keep its own, or NULL */
    const float *condition; /* [dim, or `wide` for a projection] from the stage above, or NULL */
    u64 at; /* absolute position of the token's first byte */
    float *out; /* where its projection goes, or NULL */
    i32 target; /* finest stage: the byte to be predicted, whose code length is wanted; or -1 */
    u64 index; /* and its number in the job */
    double bits; /* the code length */
};

#define KEPT_WORDS 8
#define MOST_ENSEMBLE 4 /* streams that predict one byte together, see section 17 */
struct megabyte_engine {
    megabyte_allocator allocator;
    size_t allocated;
    const megabyte_model *model;
    struct kernels kernels;
    struct pool pool;
    u32 batch; /* rows of a pass */
    u64 time[MEGABYTE_MAX_STAGES][MEGABYTE_PARTS]; /* by the pool's clock, ... */
    u64 looked; /* ... at which it was last looked */

    struct cache
        start[MEGABYTE_MAX_STAGES]; /* stages >= 1: the start token's keys and values ... */
    float *start_shift[MEGABYTE_MAX_STAGES]; /* ... its shift state ... */
    float *start_output
        [MEGABYTE_MAX_STAGES]; /* ... and what it projects to; finest: the first byte's logits */
    float *angle
        [MEGABYTE_MAX_STAGES]; /* rotary, stages >= 1: [positions + 1][cos, sin][head_dim / 2] */
    /* stages >= 1: one layer's room for each sequence that lives within a pass, a layer's stride
     * apart */
    struct cache slots[MEGABYTE_MAX_STAGES];
    float
        *outputs[MEGABYTE_MAX_STAGES]; /* stages but the finest: projections of a round's tokens */

    /* the running pass */
    u32 stage, m;
    u64 ld_x, ld_a, ld_n; /* row strides of x, a, n and q */
    struct row *rows; /* [batch] */
    u32 *run_first; /* [batch + 1]: rows [run_first[i], run_first[i + 1]) follow each other */
    u32 n_runs;
    u32 n_blocks; /* of a wide pass; 0: it is narrow: see cut_into_blocks */
    int apart; /* no block of it reads what another one writes */
    int only_keys; /* of the last layer: no row's output is for anybody */
    float *x; /* [batch, dim]        the residual stream */
    float *a; /* [batch, widest]     outputs of wide products: q, k, v; feed-forward; logits */
    float *n; /* [batch, widest in]  inputs of products */
    void *q; /* [batch, widest in]  the same, quantized */
    i32 *q_sum; /* [batch] */
    float *q_scale; /* [batch] */
    float *row_angle; /* [batch][cos, sin][head_dim / 2] */
    float *bytes; /* [batch][2][bytes_stride]: embeddings before and after a convolution */
    u64 bytes_stride;
    float *score; /* [most_chunks]: see attend */
    u64 score_stride, side_stride;
    u8 *score_q;
    i32 *total;
    u64 q_stride; /* of 2 bytes for each element */
    float *ones; /* [widest head]: the scales of v8's rows */
    u8 *unpacked; /* q4: [most_chunks][unpacked_stride], see multiply_q4 */
    u64 unpacked_stride;
    u32 n_slots; /* of `slots`, in use */
    struct piece *pieces; /* [batch], of the running round */
    struct job *jobs; /* [batch], of megabyte_stream_step_batch */
    u32 *kept; /* [kept_bytes][KEPT_WORDS]: room for what a job's `scored` keeps of each byte */
    u64 kept_bytes;
};

/* By how many tokens the finest stage is ahead of the bytes: with shifted inputs token i has seen
 * the bytes before i and predicts byte i, else it has seen byte i and predicts the next one. */
static u32 ahead(const megabyte_model *m) { return m->stage[0].shifted; }

/* The byte at an absolute position that the history still holds. */
static u8 byte_at(const megabyte_stream *s, u64 at) { return s->history[at % s->history_bytes]; }

/* A sequence of stage s >= 1 runs through positions 0 (the start token, the same in all, or the
 * first byte) to this one. */
static u32 last_position(const struct sizes *z, u32 s) {
    return z->stage[s].positions - !(s + 1 == z->n_stages && has_start_token(z));
}

/* Where an int8 cache has position `at` of a tile of values, 16 bytes, 4 apart; tiles are counted
 * over layers and heads. */
static u8 *value_entry(const struct stage *g, const struct cache *c, u64 tile, u64 at) {
    return c->v8 + tile / g->v_tiles * c->v_head + tile % g->v_tiles * c->v_tile +
           at / 4 * c->v_step + at % 4;
}

/* Visits the memory that positions [from, from + n) of a long cache occupy, in whole blocks of 16
 * keys (from is the beginning of one). Keys, values, scales and logits are BOUNDED, as `scale` left
 * them; other floats may be anything that a model's weights make of them. UNUSED memory may hold
 * anything and counts as zeros. */
enum { ANY_FLOAT, BOUNDED, RAW_BYTES, UNUSED };
typedef void (*span_visitor)(void *context, void *span, u64 n, int kind);

static void each_block(const struct stage *g, const struct cache *c, u64 from, u64 n,
                       span_visitor visit, void *context) {
    u64 d = g->cache_q8 ? round_up(g->size.head_dim, 4) : g->size.head_dim, n16 = round_up(n, 16),
        layer, t;
    for (layer = 0; layer < g->size.layers && n; layer++) {
        for (t = 0; t < g->kv_heads; t++) {
            u64 at = layer * c->k_layer + t * c->k_head + from * d;
            u64 scale = (layer * g->kv_heads + t) * c->scale_head + from;
            if (!g->cache_q8) {
                visit(context, c->k + at, n16 * d, BOUNDED);
                continue;
            }
            visit(context, c->k8 + at, n16 * d, RAW_BYTES);
            visit(context, c->k_scale + scale, n16, BOUNDED);
            visit(context, c->v_scale + scale, n16, BOUNDED);
        }
        for (t = 0; t < g->kv_heads * g->v_tiles; t++) {
            u64 tile = layer * g->kv_heads * g->v_tiles + t;
            for (u64 i = 0; g->cache_q8 && i < n16; i += 4) /* the order of saved states */
                visit(context, value_entry(g, c, tile, from + i), 64, RAW_BYTES);
            if (!g->cache_q8)
                visit(context, c->v + tile * c->v_tile + from * 16,
                      min64(n * 16, c->v_tile - from * 16), BOUNDED);
        }
    }
}
static void clear_span(void *context, void *span, u64 n, int kind) {
    (void)context;
    memset(span, 0, (size_t)(kind == RAW_BYTES ? n : n * sizeof(float)));
}

static void copy_floats(float *to, const float *from, u64 n) {
    memcpy(to, from, (size_t)n * sizeof *to);
}

/* Zeros for positions [from, end) of a long cache. */
static void clear_positions(const struct stage *g, const struct cache *c, u64 from, u64 end) {
    u64 d = g->size.head_dim, d4 = round_up(d, 4), heads = g->size.layers * (u64)g->kv_heads;
    for (u64 at = from; at < end; at++) {
        for (u64 h = 0; h < heads; h++) {
            if (g->cache_q8) {
                u8 *k = c->k8 + h * c->k_head + at / 16 * 16 * d4 + at % 16 * 4;
                for (u64 i = 0; i < d4; i += 4) memset(k + i * 16, 0, 4);
                c->k_scale[h * c->scale_head + at] = c->v_scale[h * c->scale_head + at] = 0;
            } else {
                float *k = c->k + h * c->k_head + at / 16 * 16 * d + at % 16;
                for (u64 i = 0; i < d; i++) k[i * 16] = 0;
            }
        }
        for (u64 t = 0; t < heads * g->v_tiles; t++) {
            if (!g->cache_q8) memset(c->v + t * c->v_tile + at * 16, 0, 16 * sizeof *c->v);
            for (u64 i = 0; g->cache_q8 && i < 16; i++) value_entry(g, c, t, at)[i * 4] = 0;
        }
    }
}

/* ============================================================================== 10 transformer */

/* One pass of a stage over a batch of tokens: the paper's equations. Threads share the rows, the
 * output columns or the heads of each phase. */

/* Makes row i of n an input of matrix w. */
static void prepare(megabyte_engine *e, const struct matrix *w, u32 i, const float *x) {
    if (is_quantized(w->type))
        e->kernels.quantize(x, w->cols, (u8 *)e->q + i * e->ld_n * e->kernels.q_bytes, &e->q_sum[i],
                            &e->q_scale[i]);
}

/* The same where the largest |x| is known. */
static void prepare_known(megabyte_engine *e, const struct matrix *w, u32 i, const float *x,
                          float top) {
    if (is_quantized(w->type))
        e->kernels.quantize_known(x, w->cols, top, (u8 *)e->q + i * e->ld_n * e->kernels.q_bytes,
                                  &e->q_sum[i], &e->q_scale[i]);
}

/* y (+)= w x (+ bias); x lies at `x` with stride ldx and has gone through prepare. */
struct product {
    const struct matrix *w;
    const float *x;
    u64 ldx;
    float *y;
    u64 ldy;
    const float *bias;
    int add;
};

/* multiply's part for q4. */
static void multiply_q4(megabyte_engine *e, const struct product *p, u32 tile, u32 tiles, u64 row,
                        u32 m, u32 chunk) {
    const struct matrix *w = p->w;
    const struct kernels *kernel = &e->kernels;
    const float *bias = p->bias ? p->bias + 16 * (u64)tile : NULL, *x_scale = e->q_scale + row;
    const u8 *x = (u8 *)e->q + row * e->ld_n * kernel->q_bytes;
    float *y = p->y + row * p->ldy + 16 * (u64)tile;
    u8 *room = e->unpacked + chunk * e->unpacked_stride;
    u64 k32 = round_up(w->cols, Q4_GROUP);
    if (m <= FEW_ROWS) {
        kernel->gemm_q4(w, tile, tiles, x, e->ld_n, x_scale, m, y, p->ldy, bias, p->add, room);
        return;
    }
    for (u32 t = 0; t < tiles; t += UNPACKED) {
        u32 n = min32(tiles - t, UNPACKED);
        kernel->unpack_q4(w, tile + t, n, room);
        kernel->gemm_q8(room, 16 * k32, 64, w->scale + 16 * (u64)(tile + t), n,
                        (u32)round_up(w->cols, 4), x, e->ld_n, e->q_sum + row, x_scale, m,
                        y + 16 * t, p->ldy, bias ? bias + 16 * t : NULL, p->add);
    }
}

/* Its output columns of `tiles` tiles from `tile` on, for m rows from `row` on. */
static void multiply(megabyte_engine *e, const struct product *p, u32 tile, u32 tiles, u64 row,
                     u32 m, u32 chunk) {
    const struct matrix *w = p->w;
    const struct kernels *kernel = &e->kernels;
    const float *bias = p->bias ? p->bias + 16 * (u64)tile : NULL;
    float *y = p->y + row * p->ldy + 16 * (u64)tile;
    u64 k4 = round_up(w->cols, 4);
    if (w->type == TYPE_Q4_TILED) multiply_q4(e, p, tile, tiles, row, m, chunk);
    else if (w->type == TYPE_Q8_TILED)
        kernel->gemm_q8(w->data + tile * 16 * k4, 16 * k4, 64, w->scale + 16 * tile, tiles, (u32)k4,
                        (u8 *)e->q + row * e->ld_n * kernel->q_bytes, e->ld_n, e->q_sum + row,
                        e->q_scale + row, m, y, p->ldy, bias, p->add);
    else
        kernel->gemm_f32((const float *)(const void *)w->data + (u64)tile * 16 * w->cols,
                         (u64)16 * w->cols, tiles, w->cols, p->x + row * p->ldx, p->ldx, m, y,
                         p->ldy, bias, p->add);
}

/* What a layer does: something for each row, then a product of all; either may be missing. */
struct step {
    void (*row)(megabyte_engine *e, const struct stage *g, u32 layer, u32 i);
    const struct product *product;
    megabyte_part part; /* what `row` counts as */
};

/* With a clock: what went by since the last look at it is `part`'s, but for the waiting. */
static void spent(megabyte_engine *e, const struct worker *at, megabyte_part part) {
    struct pool *p = &e->pool;
    if (!at->leads || !p->clock) return;
    u64 now = p->clock(p->clock_context), *time = e->time[e->stage];
    time[part] += now - e->looked - p->waited;
    time[MEGABYTE_PART_WAIT] += p->waited;
    e->looked = now;
    p->waited = 0;
}

/* A pass of many rows is wide: cut into blocks of rows, each of which one thread takes through
 * several steps, while what it works on stays in the second-level cache; weights are read once for
 * every block. A block should be as large as that allows; one of too few rows would wait for its
 * weights. In narrow passes threads share the rows of each step and the columns of each product.
 * Where no run needs another one's rows, keys or values, blocks are whole runs, and go through all
 * layers by themselves. */
#define MOST_BLOCK_ROWS 48
#define LEAST_BLOCK_ROWS 24
struct block {
    u32 from, to; /* rows */
    u32 first_run, end_run; /* if apart */
    u32 chunk; /* see attend */
};

static void cut_into_blocks(megabyte_engine *e) {
    u32 n = (e->m + MOST_BLOCK_ROWS - 1) / MOST_BLOCK_ROWS;
    n = (u32)round_up(n, e->pool.threads);
    e->n_blocks = n && e->m / n >= LEAST_BLOCK_ROWS ? n : 0;
    e->apart = e->n_blocks && e->stage && !e->model->stage[e->stage].size.cross;
    for (u32 i = 0; i < e->n_runs; i++)
        if (e->rows[e->run_first[i]].follows) e->apart = 0; /* a long run that was cut */
}

static struct block block_of(const megabyte_engine *e, const struct phase *p, u32 b) {
    struct block k = {.chunk = p->chunk};
    if (e->apart) {
        k.first_run = (u32)((u64)e->n_runs * b / e->n_blocks);
        k.end_run = (u32)((u64)e->n_runs * (b + 1) / e->n_blocks);
        k.from = e->run_first[k.first_run];
        k.to = e->run_first[k.end_run];
    } else {
        k.from = (u32)((u64)e->m * b / e->n_blocks);
        k.to = (u32)((u64)e->m * (b + 1) / e->n_blocks);
    }
    return k;
}

static void run_block(megabyte_engine *e, const struct worker *at, u32 layer,
                      const struct step *step, u32 n, const struct block *k) {
    const struct stage *g = &e->model->stage[e->stage];
    for (const struct step *s = step; s < step + n; s++) {
        for (u32 i = k->from; s->row && i < k->to; i++) s->row(e, g, layer, i);
        spent(e, at, s->part);
        if (s->product)
            multiply(e, s->product, 0, s->product->w->tiles, k->from, k->to - k->from, k->chunk);
        spent(e, at, MEGABYTE_PART_PRODUCT);
    }
}

/* Too few to be shared: one thread does all of a step's rows, as the head of the next phase. */
static int few_rows(const megabyte_engine *e) { return !e->n_blocks && e->m <= e->pool.threads; }

/* Steps [0, n) of one block that is apart, or, block NULL, of the running pass; then none reads of
 * another row what one of them writes. */
static void run_steps(megabyte_engine *e, struct worker *at, u32 layer, const struct step *step,
                      u32 n, const struct block *block) {
    const struct stage *g = &e->model->stage[e->stage];
    if (block) {
        run_block(e, at, layer, step, n, block);
        return;
    }
    if (e->n_blocks) {
        for (struct phase p = next_phase(&e->pool, at, e->n_blocks); claim(&p);)
            for (u32 b = p.from; b < p.to; b++) {
                struct block k = block_of(e, &p, b);
                run_block(e, at, layer, step, n, &k);
            }
        return;
    }
    for (const struct step *s = step; s < step + n; s++) {
        int head = s->row && s->product && few_rows(e);
        if (s->row && !head) {
            for (struct phase p = next_phase(&e->pool, at, e->m); claim(&p);)
                for (u32 i = p.from; i < p.to; i++) s->row(e, g, layer, i);
            spent(e, at, s->part);
        }
        if (!s->product) continue;
        /* the widest kernel takes 4 tiles of many rows together */
        u32 tiles = s->product->w->tiles, unit = e->m > FEW_ROWS ? 4 : 1;
        struct phase p = next_headed(&e->pool, at, (tiles + unit - 1) / unit, head);
        while (claim(&p)) {
            for (u32 i = 0; p.head && i < e->m; i++) s->row(e, g, layer, i);
            if (p.head) spent(e, at, s->part);
            else
                multiply(e, s->product, unit * p.from, min32(unit * p.to, tiles) - unit * p.from, 0,
                         e->m, p.chunk);
        }
        spent(e, at, MEGABYTE_PART_PRODUCT);
    }
}

/* The stage's norm, over n elements; returns the largest |x|. */
static float normalize(const megabyte_engine *e, const struct stage *g, float *x,
                       const float *weight, const float *bias, u32 n) {
    if (g->size.norm == NORM_RMS) return e->kernels.rms_norm(x, weight, n);
    return e->kernels.layer_norm(x, weight, bias, n, g->size.norm == NORM_LAYER);
}

/* ---- embed: a row's input */

/* cos and sin of position * frequency: [cos, sin][head_dim / 2]. */
static void rotary_angles(const struct stage *g, u64 position, float *angle) {
    for (u32 j = 0, half = g->size.head_dim / 2; j < half; j++) {
        double sine, cosine;
        sin_cos((double)position * (double)g->rotary[j], &sine, &cosine);
        angle[j] = (float)cosine;
        angle[half + j] = (float)sine;
    }
}

/* An embedding x[2 pairs] turned pair by pair (MBLM's "rope" positions). */
static void rotate_pairs(float *x, const float *frequency, u32 pairs, u32 position) {
    for (u32 j = 0; j < pairs; j++, x += 2) {
        double sine, cosine;
        sin_cos((double)position * (double)frequency[j], &sine, &cosine);
        float c = (float)cosine, s = (float)sine, ac = x[0] * c, bs = x[1] * s, bc = x[1] * c,
              as = x[0] * s;
        ROUNDED(ac);
        ROUNDED(bs);
        ROUNDED(bc);
        ROUNDED(as);
        x[0] = ac - bs;
        x[1] = bc + as;
    }
}

/* The bytes' embeddings of the patch at `at`, [P, D_G], to x; if there are convolutions, through
 * these. They are causal and begin with the window: y_t = b + sum over j of W_j x_(t - width + 1 +
 * j). A patch looks back as far as all of them reach, and computes that again. Positions come
 * behind: the file has them convolved. */
static void embed_bytes(megabyte_engine *e, const struct stage *g, u32 i, float *x) {
    const megabyte_stream *s = e->rows[i].job->stream;
    u64 at = e->rows[i].at, reach = 0, n = g->bytes;
    u32 d = g->wide;
    for (u32 c = 0; c < MAX_CONVOLUTIONS; c++)
        reach += g->convolution[c] ? g->size.convolution[c] - 1 : 0;
    if (reach > at - s->base) reach = at - s->base;
    float *from = reach || g->convolution[0] ? e->bytes + i * 2 * e->bytes_stride : x, *to;
    for (u64 t = at - reach; t < at + n; t++) {
        float *y = from + (t - (at - reach)) * d;
        memcpy(y, g->embed + (u64)byte_at(s, t) * d, d * sizeof *y);
    }
    for (u32 c = 0; c < MAX_CONVOLUTIONS && g->convolution[c]; c++, from = to) {
        u32 width = g->size.convolution[c];
        to = e->bytes + (i * 2 + (c + 1) % 2) * e->bytes_stride;
        for (u64 t = 0; t < reach + n; t++)
            for (u32 o = 0; o < d; o++) {
                float sum = g->convolution_bias[c][o];
                for (u32 j = 0; j < width; j++) {
                    const float *w = g->convolution[c] + ((u64)o * width + j) * d;
                    if (t + j + 1 < width) continue;
                    const float *in = from + (t + j + 1 - width) * d;
                    for (u32 k = 0; k < d; k++) {
                        float product = w[k] * in[k];
                        ROUNDED(product);
                        sum += product;
                    }
                }
                to[t * d + o] = sum;
            }
    }
    if (from != x) memcpy(x, from + reach * d, (size_t)(n * d) * sizeof *x);
}

/* The same for a whole patch where each position and byte has a column of its own. */
static void embed_columns(megabyte_engine *e, const struct stage *g, u32 i, float *x) {
    u32 vocabulary = e->model->sizes.vocabulary, dim = g->size.dim;
    memset(x, 0, dim * sizeof *x);
    for (u64 b = 0; b < g->bytes; b++) {
        u64 column = b * vocabulary + byte_at(e->rows[i].job->stream, e->rows[i].at + b);
        e->kernels.add(x, g->embed + column * dim, dim);
    }
}

/* What the row's token brings in before the stage above adds to it: its embedding in x, or for the
 * patch projection in n, ready for the product. That projects a patch's normalized embeddings
 * (projects_bytes), or in the finest stage its part of what the stage above says. */
static void embed(megabyte_engine *e, const struct stage *g, u32 i) {
    const struct row *r = &e->rows[i];
    const float *start = !e->stage && r->job && r->job->stream->start ? r->job->stream->start
                                                                      : g->start;
    float *x = e->x + i * e->ld_x, *n = e->n + i * e->ld_n;
    u32 fine = e->model->sizes.stage[e->model->sizes.n_stages - 1].dim;
    if (r->start) memcpy(x, start, g->size.dim * sizeof *x);
    else if (g->size.flags & COLUMN_SUM) embed_columns(e, g, i, x);
    else if (g->shifted && !e->stage) embed_bytes(e, g, i, x);
    else
        for (u64 b = 0; b < g->bytes; b++)
            memcpy((g->projects_bytes ? n : x) + b * fine,
                   g->embed + (u64)byte_at(r->job->stream, r->at + b) * fine, fine * sizeof *x);
    if (!g->patch.data) return;
    if (!g->projects_bytes) memcpy(n, r->condition, g->wide * sizeof *n);
    else if (r->start) memset(n, 0, g->wide * sizeof *n); /* the projection runs over all rows */
    else e->kernels.layer_norm(n, g->in_weight, g->in_bias, g->wide, 1);
    prepare(e, &g->patch, i, n);
}

/* The input of row i: its embedding (for patches projected and normalized), the position's vector,
 * and what the stage above says. */
static void complete_input(megabyte_engine *e, const struct stage *g, u32 i) {
    const struct row *r = &e->rows[i];
    u32 dim = g->size.dim, d = g->size.head_dim, place = r->position - g->start_token;
    const float *projected = g->patch.data ? e->a + i * e->ld_a : NULL;
    float *x = e->x + i * e->ld_x;
    if (!r->start) {
        if (g->projects_bytes) {
            memcpy(x, projected, dim * sizeof *x);
            e->kernels.layer_norm(x, g->out_weight, g->out_bias, dim, 1);
        }
        if (g->input_rotary) rotate_pairs(x, g->input_rotary, dim / 2, place);
        if (g->position) e->kernels.add(x, g->position + (u64)place * dim, dim);
    }
    if (r->condition)
        e->kernels.add(x, projected && !g->projects_bytes ? projected : r->condition, dim);
    MEGABYTE_TRACE(e->stage, 0, "input", i, x, dim);
    for (u32 j = dim; j < e->ld_x; j++) x[j] = 0;
    if (g->rotary && !e->angle[e->stage]) rotary_angles(g, r->angle, e->row_angle + (u64)i * d);
}

/* ---- attend */

/* n[i] := norm of the token-shifted x[i]: the first half of the channels is the token's own, the
 * second half is the previous token's (shifted inputs: all are its own). sub: 0 attention, 1
 * feed-forward. Returns the largest |n|. */
static float shifted_norm(megabyte_engine *e, const struct stage *g, u32 layer, u32 sub, u32 i,
                          const float *weight, const float *bias) {
    u32 half = g->half, own = g->size.dim - half;
    const struct row *r = &e->rows[i];
    float *n = e->n + i * e->ld_n;
    const float *from = r->follows      ? e->x + (i - 1) * e->ld_x + own
                        : r->shift_from ? r->shift_from + (layer * 2 + sub) * (u64)half
                                        : NULL;
    memcpy(n, e->x + i * e->ld_x, own * sizeof *n);
    if (half && from) memcpy(n + own, from, half * sizeof *n);
    else memset(n + own, 0, half * sizeof *n);
    return normalize(e, g, n, weight, bias, g->size.dim);
}

static void keep_shift(megabyte_engine *e, const struct stage *g, u32 layer, u32 sub, u32 i) {
    u32 half = g->half;
    if (half && e->rows[i].shift_to)
        memcpy(e->rows[i].shift_to + (layer * 2 + sub) * (u64)half,
               e->x + i * e->ld_x + (g->size.dim - half), half * sizeof(float));
}

/* QK-LayerNorm: `heads` heads at x, each by itself; n is room for one, filled up to a multiple of
 * 16. */
static void normalize_heads(const megabyte_engine *e, const struct stage *g, float *x, u32 heads,
                            const float *weight_and_bias, float *n) {
    u32 d = g->size.head_dim;
    for (u32 h = 0; h < heads; h++, x += d) {
        memcpy(n, x, d * sizeof *n);
        normalize(e, g, n, weight_and_bias, weight_and_bias + d, d);
        memcpy(x, n, d * sizeof *n);
    }
}

/* k, v [kv_inner] become position `at` of an int8 cache's layer. */
static void keep_quantized(const struct kernels *kernels, const struct stage *g,
                           const struct cache *c, u32 layer, u32 at, const float *k,
                           const float *v) {
    u32 d = g->size.head_dim;
    u64 scale = (u64)layer * g->kv_heads * c->scale_head + at;
    u8 *k8 = c->k8 + layer * c->k_layer + (at / 16) * 16 * round_up(d, 4) + at % 16 * 4;
    for (u32 h = 0; h < g->kv_heads; h++, k += d, v += d, scale += c->scale_head) {
        kernels->keep_key(k, d, k8 + h * c->k_head, &c->k_scale[scale]);
        kernels->keep_value(v, d,
                            value_entry(g, c, ((u64)layer * g->kv_heads + h) * g->v_tiles, at),
                            c->v_tile, &c->v_scale[scale]);
    }
}
/* n keys and values of one head, `ld` floats apart, become positions from `at` on of a float
 * cache's layer. Four keys at a time share the stores. */
static void keep_head(const struct stage *g, const struct cache *c, u32 layer, u32 h, u32 at, u32 n,
                      const float *k, const float *v, u64 ld) {
    u32 d = g->size.head_dim, whole = d / 16 * 16, rest = d - whole;
    for (u32 i = 0, some; i < n; i += some, at += some, k += some * ld) {
        float *to = c->k + layer * c->k_layer + h * c->k_head + (u64)(at / 16) * d * 16 + at % 16;
        some = n - i >= 4 && at % 16 <= 12 ? 4 : 1;
        for (u32 j = 0; some == 4 && j < d; j++, to += 16) {
            float four[4] = {k[j], k[j + ld], k[j + 2 * ld], k[j + 3 * ld]};
            memcpy(to, four, sizeof four);
        }
        for (u32 j = 0; some == 1 && j < d; j++, to += 16) *to = k[j];
    }
    at -= n;
    for (u32 i = 0; i < n; i++, at++, v += ld) {
        float *to = c->v + layer * c->v_layer + h * c->v_head + (u64)at * 16;
        for (u32 j = 0; j < whole; j += 16, to += c->v_tile) memcpy(to, v + j, 16 * sizeof *to);
        if (!rest) continue;
        memset(to, 0, 16 * sizeof *to);
        memcpy(to, v + whole, rest * sizeof *to);
    }
}

/* Copies keys and values of one layer between caches of a finer stage: n from `from_key` on become
 * the first ones of `to`. */
static void copy_keys(const struct stage *g, const struct cache *from, u32 from_key,
                      const struct cache *to, u32 n, u32 layer) {
    u32 d = g->size.head_dim;
    for (u32 key = 0, at = from_key; key < n; key++, at++) {
        float *k = to->k + layer * to->k_layer + (u64)(key / 16) * d * 16 + key % 16;
        float *v = to->v + layer * to->v_layer + (u64)key * 16;
        const float *fk = from->k + layer * from->k_layer + (u64)(at / 16) * d * 16 + at % 16;
        const float *fv = from->v + layer * from->v_layer + (u64)at * 16;
        for (u32 h = 0; h < g->kv_heads; h++, k += to->k_head, fk += from->k_head)
            for (u32 i = 0; i < d; i++) k[i * 16] = fk[i * 16];
        for (u32 t = 0; t < g->kv_heads * g->v_tiles; t++, v += to->v_tile, fv += from->v_tile)
            memcpy(v, fv, 16 * sizeof *v);
    }
}

/* Sums of gemm_q8 must fit: 255 * 127 * 65536 < 2^31. Longer sums over positions are consumed in
 * parts. */
#define MOST_SUMMED 65536u

/* Queries of a run that share one way through the keys and values, and the positions that are taken
 * at a time: their keys, scores or values stay in the second-level cache. */
#define QUERIES 12
#define KEY_BLOCK 1024u /* divides MOST_SUMMED, 8 times, too */

/* What attend works on: one head of some rows that follow each other. */
struct attention {
    const struct row *row; /* [rows] */
    const float *q; /* [rows][ld_a]: queries */
    u32 rows, keys, keys16; /* keys: of the last row; rounded up to whole tiles */
    u64 k_at, v_at, scale_at; /* where the head's keys, values and scales begin in the cache */
    float *score; /* [QUERIES][score_stride]: scores, then weights */
    float *side; /* [QUERIES][side_stride]: outputs */
    float sum[QUERIES]; /* of the weights */
    /* int8: */
    i32 *total; /* [2 QUERIES][side_stride]: sums of quantized weights times values */
    u8 *quant; /* [2 QUERIES][ld_quant]: quantized queries; high, low parts of a block's weights */
    u32 block_size; /* positions whose weights are quantized at a time */
    u64 ld_quant;
    i32 q_sum[2 * QUERIES];
    float most[QUERIES][16], lane[QUERIES][16], largest[QUERIES];
};

/* Scores of all keys and their maxima. */
static void score_keys(megabyte_engine *e, const struct stage *g, struct attention *w) {
    const struct kernels *kernel = &e->kernels;
    const struct cache *c = &w->row->cache;
    u64 d4 = round_up(g->size.head_dim, 4);
    float q_scale[QUERIES];
    for (u32 r = 0; r < w->rows; r++) {
        kernel->quantize(w->q + r * e->ld_a, g->size.head_dim,
                         w->quant + r * w->ld_quant * kernel->q_bytes, &w->q_sum[r], &q_scale[r]);
        for (u32 i = 0; i < 16; i++) {
            w->most[r][i] = -FLT_MAX;
            w->lane[r][i] = 0;
        }
    }
    for (u32 at = 0; at < w->keys16; at += KEY_BLOCK) {
        u32 n = min32(w->keys16 - at, KEY_BLOCK);
        kernel->gemm_q8(c->k8 + w->k_at + at * d4, d4 * 16, 64, c->k_scale + w->scale_at + at,
                        n / 16, (u32)d4, w->quant, w->ld_quant, w->q_sum, q_scale, w->rows,
                        w->score + at, e->score_stride, NULL, 0);
        for (u32 r = 0; r < w->rows; r++)
            if (w->row[r].key + 1 > at)
                kernel->maxima(w->score + r * e->score_stride + at,
                               min32(w->row[r].key + 1 - at, n), w->most[r]);
    }
}

/* The weights of positions [from, from + part) times their values, to w->total. */
static void multiply_values(megabyte_engine *e, const struct stage *g, struct attention *w,
                            u32 from, u32 part) {
    const struct kernels *kernel = &e->kernels;
    const struct cache *c = &w->row->cache;
    u32 rows = w->rows;
    memset(w->total, 0, (size_t)(2 * rows * e->side_stride) * sizeof *w->total);
    for (u32 at = from; at < from + part; at += w->block_size) {
        u32 n = min32(from + part - at, w->block_size),
            n4 = (u32)round_up(min32(w->keys - at, n), 4);
        const u8 *v = c->v8 + w->v_at + at / 4 * c->v_step;
        for (u32 r = 0; r < rows; r++) {
            i32 two[2];
            kernel->quantize_finely(w->score + r * e->score_stride + at, n, w->largest[r],
                                    w->quant + r * w->ld_quant * kernel->q_bytes,
                                    w->quant + (rows + r) * w->ld_quant * kernel->q_bytes, two);
            w->q_sum[r] = two[0];
            w->q_sum[rows + r] = two[1];
        }
        kernel->gemm_q8(v, c->v_tile, c->v_step, e->ones, g->v_tiles, n4, w->quant, w->ld_quant,
                        w->q_sum, NULL, 2 * rows, (float *)(void *)w->total, e->side_stride, NULL,
                        0);
    }
}

/* attend for int8 keys and values, which it passes three times: for scores and their maxima; for
 * weights, their sums and largest; for quantized weights times values. Integer sums are exact and
 * floats are summed in the order of positions, so blocks change no bit. */
static void attend_q8(megabyte_engine *e, const struct stage *g, struct attention *w) {
    u32 d = g->size.head_dim;
    w->block_size = w->rows == 1 ? 8 * KEY_BLOCK
                                 : KEY_BLOCK; /* a query alone waits for memory: long streams */
    w->ld_quant = e->q_stride / 2 * (w->block_size / KEY_BLOCK);
    score_keys(e, g, w);
    for (u32 from = 0; from < w->keys; from += MOST_SUMMED) {
        u32 part = min32(w->keys16 - from, MOST_SUMMED);
        for (u32 r = 0; r < w->rows; r++) {
            u32 own = w->row[r].key + 1 > from ? w->row[r].key + 1 - from : 0;
            w->largest[r] = e->kernels.weigh(
                w->score + r * e->score_stride + from, min32(own, part), part, w->most[r],
                w->row->cache.v_scale + w->scale_at + from, w->lane[r]);
        }
        multiply_values(e, g, w, from, part);
        for (u32 r = 0; r < w->rows; r++) {
            const i32 *high = w->total + r * e->side_stride;
            e->kernels.join(high, high + w->rows * e->side_stride, d, w->largest[r],
                            w->side + r * e->side_stride, from > 0);
        }
    }
    for (u32 r = 0; r < w->rows; r++) w->sum[r] = lane_sum(w->lane[r]);
}

static void attend_f32(megabyte_engine *e, const struct stage *g, struct attention *w) {
    const struct kernels *kernel = &e->kernels;
    const struct cache *c = &w->row->cache;
    u32 d = g->size.head_dim;
    kernel->gemm_f32(c->k + w->k_at, (u64)d * 16, w->keys16 / 16, d, w->q, e->ld_a, w->rows,
                     w->score, e->score_stride, NULL, 0);
    for (u32 r = 0; r < w->rows; r++) {
        float *s = w->score + r * e->score_stride;
        u32 own = w->row[r].key + 1;
        w->sum[r] = kernel->softmax(s, own);
        for (u32 j = (u32)round_up(own, 16); j < w->keys16; j++)
            s[j] = 0; /* adding 0 * v changes no bit */
    }
    kernel->gemm_f32(c->v + w->v_at, c->v_tile, g->v_tiles, w->keys, w->score, e->score_stride,
                     w->rows, w->side, e->side_stride, NULL, 0);
}

/* Causal attention of one head for rows [first, end), up to QUERIES, that follow each other. The
 * heads' outputs go to n. The weights' sum divides at the end. */
static void attend(megabyte_engine *e, const struct stage *g, u32 layer, u32 head, u32 first,
                   u32 end, u32 chunk) {
    u32 d = g->size.head_dim, kv = head / (g->size.heads / g->kv_heads);
    const struct cache *c = &e->rows[first].cache;
    struct attention w;
    w.row = e->rows + first;
    w.rows = end - first;
    w.q = e->a + first * e->ld_a + (u64)head * d;
    w.keys = e->rows[end - 1].key + 1;
    w.keys16 = (u32)round_up(w.keys, 16);
    w.k_at = layer * c->k_layer + kv * c->k_head;
    w.v_at = layer * c->v_layer + kv * c->v_head;
    w.scale_at = (layer * (u64)g->kv_heads + kv) * c->scale_head;
    w.score = e->score + chunk * QUERIES * (e->score_stride + e->side_stride);
    w.side = w.score + QUERIES * e->score_stride;
    if (g->cache_q8) {
        w.total = e->total + chunk * 2 * QUERIES * e->side_stride;
        w.quant = e->score_q + chunk * 2 * QUERIES * e->q_stride;
        attend_q8(e, g, &w);
    } else {
        attend_f32(e, g, &w);
    }
    float *out = e->n + first * e->ld_n + (u64)head * d;
    for (u32 r = 0; r < w.rows; r++) /* from side: whole tiles may be wider than the head */
        e->kernels.scale(w.side + r * e->side_stride, 1.0f / w.sum[r], d, out + r * e->ld_n);
}

/* ---- deliver: a row's result */

/* -log2 p(byte) under these logits [n], which become the probabilities times some factor. */
static double code_length(const megabyte_engine *e, float *logits, u32 n, u8 byte) {
    float sum = e->kernels.softmax(logits, n);
    return log2_exact((double)sum / (double)logits[byte]); /* softmax leaves at least e^-87 */
}

/* A row's result goes where it is wanted: to the stage below, or out as logits, which are always
 * finite. */
static void deliver(megabyte_engine *e, const struct stage *g, u32 i) {
    struct row *r = &e->rows[i];
    float *a = g->output.data ? e->a + i * e->ld_a : e->n + i * e->ld_n;
    u32 n = g->outputs;
    if (!r->out && r->target < 0) return;
    if (e->stage + 1 == e->model->sizes.n_stages) e->kernels.scale(a, 1.0f, n, a);
    if (r->out) memcpy(r->out, a, n * sizeof *a);
    if (r->target < 0) return;
    const struct job *job = r->job;
    r->bits = code_length(e, a, job->scored ? 256 : n, (u8)r->target);
    if (job->scored) job->scored(job->to, r->index, (u8)r->target, a);
}

/* ---- the pass */

/* q, k and v [inner, kv_inner, kv_inner] of row i, as the product left them, become a query, a key
 * and a value of each head, ... */
static void complete_heads(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    const struct kernels *k = &e->kernels;
    const struct layer *w = &g->layers[l];
    const struct row *r = &e->rows[i];
    u32 d = g->size.head_dim, inner = g->inner, kv_inner = g->kv_inner;
    float *q = e->a + i * e->ld_a, *n = e->n + i * e->ld_n;
    if (w->qk_norm) {
        normalize_heads(e, g, q, g->size.heads, w->qk_norm, n);
        normalize_heads(e, g, q + inner, g->kv_heads, w->qk_norm + 2 * d, n);
    }
    if (g->rotary) {
        const float *angle = e->angle[e->stage] ? e->angle[e->stage] + r->angle * d
                                                : e->row_angle + (u64)i * d;
        for (u32 h = 0; h < g->size.heads + g->kv_heads; h++)
            k->rotate(q + (u64)h * d, angle, angle + d / 2, d / 2);
    }
    k->scale(q, 1.0f / sqrtf((float)d), inner, q);
    k->scale(q + inner, 1.0f, 2 * kv_inner, q + inner);
}

/* ... and an entry of the cache. */
static void prepare_attention(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    const struct row *r = &e->rows[i];
    const float *k = e->a + i * e->ld_a + g->inner, *v = k + g->kv_inner;
    complete_heads(e, g, l, i);
    if (l < r->known) {
        if (g->cache_q8) keep_quantized(&e->kernels, g, &r->cache, l, r->key, k, v);
        else
            for (u32 h = 0, d = g->size.head_dim; h < g->kv_heads; h++)
                keep_head(g, &r->cache, l, h, r->key, 1, k + (u64)h * d, v + (u64)h * d, e->ld_a);
    }
    if (r->first) copy_keys(g, &e->start[e->stage], 0, &r->cache, 1, l);
    keep_shift(e, g, l, 0, i);
}

static void begin_attention(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    const struct layer *w = &g->layers[l];
    if (l) MEGABYTE_TRACE(e->stage, l - 1, "feed-forward", i, e->x + i * e->ld_x, g->size.dim);
    float top = shifted_norm(e, g, l, 0, i, w->attention_norm, w->attention_norm_bias);
    prepare_known(e, &w->qkv, i, e->n + i * e->ld_n, top);
}
static void look_back(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    const struct row *r = &e->rows[i];
    if (r->before) copy_keys(g, r->before, r->before_key, &r->cache, g->size.cross, l);
}
static void end_attention(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    prepare(e, &g->layers[l].out, i, e->n + i * e->ld_n);
}

/* A run of a block that is apart. A sequence that lives in a slot of the engine's takes `slot`, the
 * one of the thread's chunk, which has the start token: small enough to stay in the caches. Head by
 * head, so that a head's keys are in the first-level cache when they are read. */
static void attend_run(megabyte_engine *e, const struct stage *g, u32 l, u32 run, u32 chunk,
                       const struct cache *slot) {
    u32 first = e->run_first[run], end = e->run_first[run + 1], group = g->size.heads / g->kv_heads;
    int own = slot && !e->rows[first].cache.k_layer;
    for (u32 i = first; i < end; i++) {
        if (!own) {
            prepare_attention(e, g, l, i);
            continue;
        }
        e->rows[i].cache = *slot;
        complete_heads(e, g, l, i);
        keep_shift(e, g, l, 0, i);
    }
    for (u32 kv = 0; kv < g->kv_heads; kv++) {
        const float *k = e->a + first * e->ld_a + g->inner + kv * (u64)g->size.head_dim;
        if (own)
            keep_head(g, slot, l, kv, e->rows[first].key, end - first, k, k + g->kv_inner, e->ld_a);
        for (u32 h = kv * group; h < (kv + 1) * group; h++) attend(e, g, l, h, first, end, chunk);
    }
}

/* All runs of a block that is apart. */
static void attend_block(megabyte_engine *e, const struct stage *g, u32 l,
                         const struct block *block) {
    struct cache slot = e->slots[e->stage];
    int slots = e->n_slots >= most_chunks(e->pool.threads);
    if (slots) {
        slot.k += block->chunk * slot.k_layer;
        slot.v += block->chunk * slot.v_layer;
        slot.k_layer = slot.v_layer = 0; /* one layer's room */
        if (g->start_token) copy_keys(g, &e->start[e->stage], 0, &slot, 1, l);
    }
    for (u32 r = block->first_run; r < block->end_run; r++)
        attend_run(e, g, l, r, block->chunk, slots ? &slot : NULL);
}

/* x += Attention(norm(shift(x))) */
static void attention_layer(megabyte_engine *e, const struct stage *g, u32 l, struct worker *at,
                            const struct block *block) {
    const struct layer *w = &g->layers[l];
    const struct product qkv = {&w->qkv, e->n, e->ld_n, e->a, e->ld_a, w->qkv_bias, 0};
    const struct product out = {&w->out, e->n, e->ld_n, e->x, e->ld_x, w->out_bias, 1};
    const struct step before = {begin_attention, &qkv, MEGABYTE_PART_NORM},
                      prepared = {prepare_attention, NULL, MEGABYTE_PART_ATTENTION},
                      between = {look_back, NULL, MEGABYTE_PART_ATTENTION},
                      after = {end_attention, &out, MEGABYTE_PART_NORM};
    int only_keys = e->only_keys && l + 1 == g->size.layers;
    int head = !block && few_rows(e) && !only_keys;
    run_steps(e, at, l, &before, 1, block);
    if (!block && !head) run_steps(e, at, l, &prepared, 1, block);
    if (only_keys) return;
    if (g->size.cross && !head) run_steps(e, at, l, &between, 1, block);
    if (block) {
        attend_block(e, g, l, block);
    } else {
        /* head by head: its keys and values are in the processor's cache for the next run */
        struct phase p = next_headed(&e->pool, at, e->n_runs * g->size.heads, head);
        while (claim(&p)) {
            for (u32 i = 0; p.head && i < e->m; i++) prepare_attention(e, g, l, i);
            for (u32 i = 0; p.head && i < e->m; i++) look_back(e, g, l, i);
            for (u32 u = p.from; !p.head && u < p.to; u++)
                attend(e, g, l, u / e->n_runs, e->run_first[u % e->n_runs],
                       e->run_first[u % e->n_runs + 1], p.chunk);
        }
    }
    spent(e, at, MEGABYTE_PART_ATTENTION);
    run_steps(e, at, l, &after, 1, block);
}

static void begin_feed_forward(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    const struct layer *w = &g->layers[l];
    MEGABYTE_TRACE(e->stage, l, "attention", i, e->x + i * e->ld_x, g->size.dim);
    float top = shifted_norm(e, g, l, 1, i, w->ff_norm, w->ff_norm_bias);
    prepare_known(e, &w->up, i, e->n + i * e->ld_n, top);
}
static void amid_feed_forward(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    float *a = e->a + i * e->ld_a;
    float top = e->kernels.activate(a, g->size.ff_dim, g->size.activation);
    prepare_known(e, &g->layers[l].down, i, a, top);
    keep_shift(e, g, l, 1, i);
}

/* x += FeedForward(norm(shift(x))). Norms come first, for all rows: `down` changes x, which the
 * next row's norm reads. */
static void feed_forward_layer(megabyte_engine *e, const struct stage *g, u32 l, struct worker *at,
                               const struct block *block) {
    const struct layer *w = &g->layers[l];
    const struct product up = {&w->up, e->n, e->ld_n, e->a, e->ld_a, w->up_bias, 0};
    const struct product down = {&w->down, e->a, e->ld_a, e->x, e->ld_x, w->down_bias, 1};
    const struct step all[] = {{begin_feed_forward, &up, MEGABYTE_PART_NORM},
                               {amid_feed_forward, &down, MEGABYTE_PART_ACTIVATION}};
    const struct step norms = {begin_feed_forward, NULL, MEGABYTE_PART_NORM};
    const struct step rest[] = {{NULL, &up, MEGABYTE_PART_PRODUCT},
                                {amid_feed_forward, &down, MEGABYTE_PART_ACTIVATION}};
    if (!block && few_rows(e)) {
        run_steps(e, at, l, all, 2, block);
        return;
    }
    run_steps(e, at, l, &norms, 1, block);
    run_steps(e, at, l, rest, 2, block);
}

static void embed_row(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    (void)l;
    embed(e, g, i);
}
static void complete_row(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    (void)l;
    complete_input(e, g, i);
}
static void final_norm(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    float *n = e->n + i * e->ld_n;
    u32 dim = g->size.dim;
    (void)l;
    MEGABYTE_TRACE(e->stage, g->size.layers - 1, "feed-forward", i, e->x + i * e->ld_x, dim);
    memcpy(n, e->x + i * e->ld_x, dim * sizeof *n);
    if (g->norm) normalize(e, g, n, g->norm, g->norm_bias, dim);
    MEGABYTE_TRACE(e->stage, 0, "output", i, n, dim);
    if (g->output.data) prepare(e, &g->output, i, n);
}
static void deliver_row(megabyte_engine *e, const struct stage *g, u32 l, u32 i) {
    (void)l;
    deliver(e, g, i);
}

/* The stage over one block that is apart, or, block NULL, over all rows. */
static void run_layers(megabyte_engine *e, struct worker *at, const struct block *block) {
    const struct stage *g = &e->model->stage[e->stage];
    const struct product patch = {&g->patch, e->n, e->ld_n, e->a, e->ld_a, g->patch_bias, 0};
    const struct product output = {&g->output, e->n, e->ld_n, e->a, e->ld_a, g->output_bias, 0};
    const struct step first[] = {{embed_row, g->patch.data ? &patch : NULL, MEGABYTE_PART_OTHER},
                                 {complete_row, NULL, MEGABYTE_PART_OTHER}};
    const struct step last[] = {{final_norm, g->output.data ? &output : NULL, MEGABYTE_PART_NORM},
                                {deliver_row, NULL, MEGABYTE_PART_OUTPUT}};
    run_steps(e, at, 0, first, 2, block);
    for (u32 l = 0; l < g->size.layers; l++) {
        attention_layer(e, g, l, at, block);
        if (e->only_keys && l + 1 == g->size.layers) return;
        feed_forward_layer(e, g, l, at, block);
    }
    run_steps(e, at, 0, last, 2, block);
}

/* One transformer pass of stage e->stage over e->rows[0..m), run by every thread of the pool.
 * Within a phase a thread writes only the rows, output columns or heads that it has claimed.
 *     x += Attention(norm(shift(x)));  x += FeedForward(norm(shift(x)));  out = output(norm(x)) */
static void pass(void *context, int leads) {
    megabyte_engine *e = context;
    struct worker me = {.leads = leads};
    spent(e, &me, MEGABYTE_PART_OTHER);
    if (!e->apart) {
        run_layers(e, &me, NULL);
        return;
    }
    for (struct phase p = next_phase(&e->pool, &me, e->n_blocks); claim(&p);)
        for (u32 b = p.from; b < p.to; b++) {
            struct block k = block_of(e, &p, b);
            run_layers(e, &me, &k);
        }
}
#define PHASES(layers) (6 + 11 * (layers)) /* in pass, counted */

/* ================================================================================= 11 schedule */

/* Jobs are cut into rounds; a round runs every stage once, coarse to fine, over the tokens that its
 * pieces need. */

/* Computes the rows gathered so far. */
static void run_pass(megabyte_engine *e) {
    e->n_runs = 0;
    e->only_keys = 1;
    for (u32 i = 0; i < e->m; i++) {
        e->only_keys &= (int)e->rows[i].only_keys;
        if (!e->rows[i].follows || i - e->run_first[e->n_runs - 1] == QUERIES)
            e->run_first[e->n_runs++] = i;
    }
    e->run_first[e->n_runs] = e->m;
    e->ld_x = round_up(e->model->stage[e->stage].size.dim, 16);
    cut_into_blocks(e);
    if (e->m) pool_run(&e->pool, pass, e);
    spent(e, &(struct worker){.leads = 1}, MEGABYTE_PART_OTHER);
    for (u32 i = 0; i < e->m; i++)
        if (e->rows[i].target >= 0) {
            e->rows[i].job->bits += e->rows[i].bits;
            if (e->rows[i].job->each)
                e->rows[i].job->each[e->rows[i].index] = (float)e->rows[i].bits;
        }
    e->m = 0;
    e->n_slots = 0;
}

/* The projection of stage s's token g, as the tokens below it see it. */
static const float *condition_of(const megabyte_engine *e, const struct piece *p, u32 s, u64 g) {
    const struct stage *stage = &e->model->stage[s];
    if (s && g % stage->size.positions == 0) return e->start_output[s];
    if (g < p->g0[s]) return p->job->stream->condition[s];
    return e->outputs[s] + (p->c0[s] + (g - p->g0[s])) * stage->outputs;
}

/* The first row of a sequence that attends across patches: finds the sequence before it, in this
 * pass or in the stream's slot `before`. Where there is none (the first; one that a rewind begins
 * with) nothing is attended to. */
static void find_before(megabyte_engine *e, u32 i, u32 s, u32 before) {
    const struct stage *g = &e->model->stage[s];
    struct row *r = &e->rows[i], *last = i ? r - 1 : NULL;
    megabyte_stream *stream = r->job->stream;
    u32 n = g->size.positions, cross = 0;
    if (last && last->job == r->job && last->sequence + 1 == r->sequence) {
        r->before = &last->cache;
        cross = last->key + 1 - n;
    } else if (r->sequence && stream->slot_sequence[before] == r->sequence - 1) {
        r->before = &stream->slot[s][before];
        cross = stream->slot_cross[before];
    } else {
        return;
    }
    r->before_key = cross + n - g->size.cross;
    r->key = g->size.cross;
}

/* Keys are kept in groups of 16: clears a group of the slot in progress when its first key comes,
 * so that scores of the others, computed and thrown away, come from no strange memory. */
static void use_keys(megabyte_stream *stream, u32 s, u32 key) {
    const struct stage *g = &stream->engine->model->stage[s];
    u32 slot = stream->current[s], *used = &stream->slot_used[s][slot];
    for (; *used <= key; *used += 16)
        each_block(g, &stream->slot[s][slot], *used, 16, clear_span, NULL);
}

/* A token of stage 0: its sequence is the stream's context. */
static void place_patch(const struct stage *g, struct row *r, u64 index, int drafted) {
    megabyte_stream *stream = r->job->stream;
    if (drafted && g->half)
        copy_floats(stream->draft.ring + (index - stream->draft.begin[0]) * shift_floats(g),
                    stream->ring + index % SHIFT_RING * shift_floats(g), shift_floats(g));
    r->cache = stream->global;
    if (index < stream->relearn + 2 * g->size.layers && stream->relearn)
        r->known = (u32)(index - stream->relearn + 1) / 2;
    if (index && index != stream->relearn)
        r->shift_from = stream->ring + (index - 1) % SHIFT_RING * shift_floats(g);
    r->shift_to = stream->ring + index % SHIFT_RING * shift_floats(g);
    if (index % 16 == 0 && r->known == UINT32_MAX)
        each_block(g, &stream->global, index, 16, clear_span, NULL);
}

/* The first row of a sequence of stage s in this pass. A sequence that begins and ends within the
 * pass (`room` rows can follow) lives in a slot of the engine, one layer's room, used again for
 * each layer; any other in the stream's own. */
static void place_sequence(megabyte_engine *e, u32 i, u32 s, u64 room) {
    const struct stage *g = &e->model->stage[s];
    struct row *r = &e->rows[i];
    megabyte_stream *stream = r->job->stream;
    u32 begins = r->position == g->start_token, cross = g->size.cross;
    u32 rest = last_position(&e->model->sizes, s) - r->position + 1;
    r->first = begins && g->start_token;
    if (cross) rest++; /* the patch after it in the pass, too: it looks back */
    if (begins && rest <= room) {
        struct cache c = e->slots[s];
        c.k += e->n_slots * c.k_layer;
        c.v += e->n_slots * c.v_layer;
        c.k_layer = c.v_layer = 0;
        e->n_slots++;
        if (cross) find_before(e, i, s, stream->current[s]);
        r->cache = c;
        r->shift_from = e->start_shift[s];
        return;
    }
    u32 before = stream->current[s]; /* it may still be read, earlier in this pass */
    u32 slots = r->job->want == WANT_DRAFT ? MOST_SLOTS : 2;
    if (begins) stream->current[s] = (before + 1) % slots;
    u32 slot = stream->current[s];
    if (cross) {
        if (begins) find_before(e, i, s, before);
        else r->key = stream->slot_cross[slot] + r->position;
        stream->slot_sequence[slot] = r->sequence;
        stream->slot_cross[slot] = r->key - r->position;
    }
    use_keys(stream, s, r->key);
    r->cache = stream->slot[s][slot];
    r->shift_to = stream->slot_shift[s][slot];
    r->shift_from = begins ? e->start_shift[s] : r->shift_to;
}

/* Where a drafted token of a finer stage leaves its shift state. */
static float *draft_shift(const megabyte_stream *s, u32 stage, u64 index) {
    return s->draft.shift[stage] +
           (index - s->draft.begin[stage]) * shift_floats(&s->engine->model->stage[stage]);
}

/* Gathers token `index` of stage s, of the piece's tokens up to `end`. */
static struct row *add_row(megabyte_engine *e, const struct piece *p, u32 s, u64 index, u64 end) {
    const struct stage *g = &e->model->stage[s];
    megabyte_stream *stream = p->job->stream;
    u32 finest = s + 1 == e->model->sizes.n_stages, n = g->size.positions, i = e->m++;
    struct row *r = &e->rows[i], *before = i ? r - 1 : NULL;
    int drafted = p->want == WANT_DRAFT && index >= stream->draft.begin[s];
    memset(r, 0, sizeof *r);
    r->job = p->job;
    r->target = -1;
    r->known = UINT32_MAX;
    r->sequence = s ? index / n : 0;
    r->position = (u32)(s ? index % n + (finest && g->start_token) : index);
    r->key = r->position;
    r->angle = g->size.cross ? index : r->position;
    r->at = stream->base + (finest ? index - g->shifted : index ? index - 1 : 0) * g->bytes;
    r->start = !r->position && (!(g->size.flags & PREVIOUS_BYTE) || !index);
    r->follows = before && before->job == p->job && before->sequence == r->sequence;
    if (!s) {
        r->only_keys = (u32)p->only_keys;
        place_patch(g, r, index, drafted);
        if (i >= SHIFT_RING && e->rows[i - SHIFT_RING].job == p->job)
            e->rows[i - SHIFT_RING].shift_to = NULL; /* this row's takes its place */
        return r;
    }
    r->condition = condition_of(e, p, s - 1, index / n);
    if (!(g->size.flags & CONDITION_FIRST))
        r->condition += (u64)(r->position - g->start_token) * g->condition_width;
    else if (r->position) r->condition = NULL;
    if (!r->follows) {
        /* drafted or not, a sequence may have to go on from any of its tokens: in the stream */
        place_sequence(e, i, s, p->want == WANT_DRAFT ? 0 : min64(end - index, e->batch - i));
        if (drafted && g->half) r->shift_to = draft_shift(stream, s, index);
        return r;
    }
    r->cache = before->cache;
    r->key = before->key + 1;
    if (drafted) {
        if (g->half) r->shift_to = draft_shift(stream, s, index);
    } else {
        r->shift_to = before->shift_to;
        before->shift_to = NULL;
    }
    if (r->cache.k == stream->slot[s][stream->current[s]].k) use_keys(stream, s, r->key);
    return r;
}

/* Where the prediction of a row of the finest stage goes, which predicts byte `next` of the piece's
 * job (or of those that a slide prefills again). */
static void aim_row(struct row *r, const struct piece *p, u64 next, u32 vocabulary) {
    struct job *job = p->job;
    if (p->want == WANT_DRAFT) {
        r->out = job->stream->draft.logits + (next - 1) * vocabulary;
    } else if (next == p->n) {
        r->out = job->stream->logits;
    } else if (p->want == WANT_ALL) {
        r->out = job->logits ? job->logits + next * vocabulary : NULL;
        r->target = job->bytes[next];
        r->index = next;
    }
}

/* All of a round's tokens of one stage. */
static void run_stage(megabyte_engine *e, u32 n_pieces, u32 s) {
    const struct stage *g = &e->model->stage[s];
    u32 finest = s + 1 == e->model->sizes.n_stages, n = g->size.positions;
    e->stage = s;
    for (u32 i = 0; i < n_pieces; i++) {
        struct piece *p = &e->pieces[i];
        u64 begin = p->g0[s], end = p->g1[s], last = (p->f1 - 1) / g->bytes / n;
        if (s && p->want == WANT_STATE) continue;
        if (s && p->want == WANT_LAST) { /* only the last sequence, and what it looks back at: */
            u64 back = g->size.cross ? g->size.layers : 0; /* one patch more for each layer */
            if (begin < (last > back ? last - back : 0) * n) begin = (last - back) * n;
        }
        if (p->want == WANT_DRAFT && end - begin > e->batch - e->m) run_pass(e); /* in one */
        for (u64 index = begin; index < end; index++) {
            if (s && !finest && index % n == 0) continue; /* a start token */
            struct row *r = add_row(e, p, s, index, end);
            if (finest)
                aim_row(r, p, p->begin + (index + 1 - g->shifted - p->t0),
                        e->model->sizes.vocabulary);
            else r->out = e->outputs[s] + (p->c0[s] + (index - p->g0[s])) * g->outputs;
            if (e->m == e->batch) run_pass(e);
        }
    }
    run_pass(e);
}

static int unfinished(const struct job *job) {
    const megabyte_stream *s = job->stream;
    return job->sliding || job->done < job->n ||
           s->tokens < s->position - s->base + ahead(s->engine->model);
}

/* A window that has no room for one more byte. */
static int window_full(const megabyte_stream *s) {
    const megabyte_model *m = s->engine->model;
    return s->position - s->base + ahead(m) == s->patches * m->stage[0].bytes;
}

/* Nothing is known of what the slots hold but the one to keep. */
static void forget_sequences(megabyte_stream *s, u32 keep) {
    for (u32 i = 0; i < MOST_SLOTS; i++)
        if (i != keep) s->slot_sequence[i] = UINT64_MAX;
}

/* What comes next begins at the window's start plus t, where a patch begins. */
static void go_back(megabyte_stream *s, u64 t) {
    s->position = s->base + t;
    s->tokens = t;
    forget_sequences(s, MOST_SLOTS);
    if (!t) s->high = 0;
}

/* The window is full: drop the older half of its patches (rounded up), prefill the rest again as a
 * beginning: whole patches, but for shifted inputs, where it is a byte short of the last one's end
 * and goes on inside it. */
static u64 slide_bytes(const megabyte_stream *s) {
    return (s->patches - s->patches / 2) * s->engine->model->stage[0].bytes;
}
static void slide(struct job *job) {
    megabyte_stream *s = job->stream;
    u64 end = s->position;
    s->base += slide_bytes(s);
    go_back(s, 0);
    job->again = end - s->base;
    job->sliding = job->again + ahead(s->engine->model) > 0;
}

/* Of a long prefill only the last patches are asked for anything but their keys and values: by the
 * finer stages, which run for the last patch (cross-patch attention: for one more a layer), by the
 * shift states that are kept, and by the first of these, whose last sublayer's input is shifted. */
static int only_keys(const megabyte_engine *e, const struct piece *p) {
    const struct sizes *z = &e->model->sizes;
    const megabyte_stream *s = p->job->stream;
    u64 patch = e->model->stage[0].bytes, cross = e->model->stage[z->n_stages - 1].size.cross;
    u64 asked = SHIFT_RING + 2 + (cross ? e->model->stage[z->n_stages - 1].size.layers : 0);
    u64 end = min64(p->t0 + (p->n - p->begin) + ahead(e->model), s->patches * patch);
    return (p->want == WANT_STATE || p->want == WANT_LAST) &&
           round_up(end, patch) / patch > p->g1[0] + asked;
}

/* The next piece of a job, of at most `bytes` bytes and `rows` tokens of stage 0, where the round's
 * tokens so far are counted; the job's bytes are put into the history. */
static void plan_piece(megabyte_engine *e, struct piece *p, struct job *job, u64 bytes, u64 *rows) {
    const struct sizes *z = &e->model->sizes;
    megabyte_stream *s = job->stream;
    u64 patch = e->model->stage[0].bytes, lead = ahead(e->model);
    p->job = job;
    p->want = !job->sliding ? job->want : lead ? WANT_LAST : WANT_STATE;
    p->begin = job->sliding ? 0 : job->done;
    p->n = job->sliding ? job->again : job->n;
    p->t0 = s->position - s->base;
    p->t1 = p->t0 + min64(min64(p->n - p->begin, bytes), s->patches * patch - lead - p->t0);
    /* as many patches as rows are left: the first may be under way already */
    p->f0 = s->tokens;
    p->f1 = min64(p->t1 + lead, (round_up(p->f0, patch) / patch + (e->batch - rows[0])) * patch);
    p->t1 = p->f1 - lead;
    if (p->want == WANT_DRAFT) p->n = job->n = p->t1 - p->t0; /* drafted ones that do not fit go */
    for (u32 i = 0; i < z->n_stages; i++) {
        u64 unit = e->model->stage[i].bytes;
        p->g0[i] = round_up(p->f0, unit) / unit;
        p->g1[i] = (p->f1 - 1) / unit + 1;
        p->c0[i] = rows[i];
        rows[i] += p->g1[i] - p->g0[i];
        if (p->want == WANT_DRAFT) s->draft.begin[i] = (p->f1 - p->n) / unit + 1;
    }
    p->only_keys = only_keys(e, p);
    if (p->only_keys) p->want = WANT_STATE;
    if (job->bytes && !job->sliding)
        for (u64 t = p->t0; t < p->t1; t++)
            s->history[(s->base + t) % s->history_bytes] = job->bytes[job->done + (t - p->t0)];
}

/* The history is as long as it may become: its oldest bytes go. */
static void forget_oldest(megabyte_stream *s) {
    u64 kept = s->history_bytes - MOST_DRAFTED;
    if (s->position > kept && s->position - kept > s->oldest) s->oldest = s->position - kept;
}

/* Is token `index` of finer stage s the first of a sequence that is computed? */
static int begins_sequence(const megabyte_model *m, u32 s, u64 index) {
    const struct stage *g = &m->stage[s];
    u32 finest = s + 1 == m->sizes.n_stages;
    return index % g->size.positions + (finest && g->start_token) == g->start_token;
}

/* A piece with drafted bytes has run: what came of these is put aside, and the piece ends with its
 * first byte. */
static void put_draft_aside(const megabyte_engine *e, struct piece *p) {
    megabyte_stream *s = p->job->stream;
    struct drafter *d = &s->draft;
    d->left = (u32)p->n - 1;
    p->t1 -= d->left;
    p->f1 -= d->left;
    p->job->n = 1;
    d->first = p->f1 - 1;
    copy_floats(s->logits, d->logits, e->model->sizes.vocabulary);
    for (u32 k = 0; k < e->model->sizes.n_stages; k++) {
        const struct stage *g = &e->model->stage[k];
        d->end[k] = p->g1[k];
        p->g1[k] = d->begin[k];
        for (u64 i = d->begin[k]; i < d->end[k]; i++) {
            if (k + 1 < e->model->sizes.n_stages)
                copy_floats(d->condition[k] + (i - d->begin[k]) * g->outputs,
                            condition_of(e, p, k, i), g->outputs);
            if (k && begins_sequence(e->model, k, i))
                s->current[k] = (s->current[k] + MOST_SLOTS - 1) % MOST_SLOTS;
        }
    }
    if (d->end[0] > d->stale) d->stale = d->end[0];
}

/* The text goes on otherwise than drafted. */
static void drop_draft(megabyte_stream *s) {
    const struct stage *g = &s->engine->model->stage[0];
    struct drafter *d = &s->draft;
    u64 floats = shift_floats(g), known = (s->tokens + g->bytes - 1) / g->bytes;
    for (u64 i = known; d->left && g->half && i < d->end[0]; i++)
        copy_floats(s->ring + i % SHIFT_RING * floats, d->ring + (i - d->begin[0]) * floats,
                    floats);
    d->left = 0;
}

/* If the text goes on as drafted, the stream moves on by a byte without a pass: 1. Else 0. */
static int take_drafted(megabyte_stream *s, u8 byte) {
    const megabyte_model *m = s->engine->model;
    struct drafter *d = &s->draft;
    u64 token = s->tokens, vocabulary = m->sizes.vocabulary;
    if (!d->left) return 0;
    int right = byte_at(s, s->position) == byte;
    d->source_rate = (u16)(d->source_rate + ((right ? 65535 : 0) - (i32)d->source_rate) / 64);
    if (!right) {
        drop_draft(s);
        return 0;
    }
    for (u32 k = 0; k < m->sizes.n_stages; k++) {
        const struct stage *g = &m->stage[k];
        u64 index = token / g->bytes, floats = k ? shift_floats(g) : 0;
        u32 finest = k + 1 == m->sizes.n_stages;
        if (token % g->bytes) continue;
        if (!finest)
            copy_floats(s->condition[k], d->condition[k] + (index - d->begin[k]) * g->outputs,
                        g->outputs);
        if (!k && index + 1 > s->high) s->high = index + 1;
        if (k && begins_sequence(m, k, index)) s->current[k] = (s->current[k] + 1) % MOST_SLOTS;
        if (floats && (finest || index % g->size.positions)) /* else a start token */
            copy_floats(s->slot_shift[k][s->current[k]], draft_shift(s, k, index), floats);
    }
    s->position++;
    s->tokens++;
    d->left--;
    d->steps++;
    copy_floats(s->logits, d->logits + (token - d->first) * vocabulary, vocabulary);
    forget_oldest(s);
    return 1;
}

/* The end of a call that drafts: the stream is as if it had drafted nothing. */
static void end_draft(megabyte_stream *s) {
    const megabyte_model *m = s->engine->model;
    struct drafter *d = &s->draft;
    u64 unit = m->stage[0].bytes, from = (s->tokens + unit - 1) / unit;
    drop_draft(s);
    clear_positions(&m->stage[0], &s->global, from, min64(d->stale, round_up(from, 16)));
    d->stale = 0;
    for (u32 k = 1; k < m->sizes.n_stages; k++) {
        u32 at = s->current[k], to = at % 2;
        const struct cache *c = &s->slot[k][at];
        u64 layers = m->sizes.stage[k].layers;
        if (at == to) continue;
        copy_floats(s->slot[k][to].k, c->k, layers * c->k_layer);
        copy_floats(s->slot[k][to].v, c->v, layers * c->v_layer);
        if (m->stage[k].half)
            copy_floats(s->slot_shift[k][to], s->slot_shift[k][at], shift_floats(&m->stage[k]));
        s->slot_used[k][to] = s->slot_used[k][at];
        s->current[k] = to;
        if (!m->stage[k].size.cross) continue;
        s->slot_sequence[to] = s->slot_sequence[at];
        s->slot_cross[to] = s->slot_cross[at];
    }
}

/* The round has run: the stream moves on. */
static void finish_piece(const megabyte_engine *e, struct piece *p) {
    struct job *job = p->job;
    megabyte_stream *s = job->stream;
    if (p->want == WANT_DRAFT) put_draft_aside(e, p);
    for (u32 k = 0; k + 1 < e->model->sizes.n_stages; k++)
        if (p->g1[k] > p->g0[k]) {
            const float *from = condition_of(e, p, k, p->g1[k] - 1);
            memcpy(s->condition[k], from, e->model->stage[k].outputs * sizeof *from);
        }
    if (job->sliding) job->sliding = (job->again -= p->t1 - p->t0) > 0;
    else job->done += p->t1 - p->t0;
    s->position = s->base + p->t1;
    s->tokens = p->f1;
    if (p->g1[0] > s->high) s->high = p->g1[0];
    forget_oldest(s);
}

/* Runs jobs of distinct streams of this engine to their ends, in rounds. A round takes at most
 * `batch` pieces, `batch` stage-0 tokens and `batch` patches of bytes. Bytes have been checked
 * against the vocabulary. */
static void run_jobs(megabyte_engine *e, struct job *jobs, size_t n_jobs) {
    u64 budget = e->batch * e->model->stage[0].bytes;
    struct worker caller = {.leads = 1};
    if (e->pool.clock) e->looked = e->pool.clock(e->pool.clock_context);
    for (size_t first = 0; first < n_jobs;) {
        u64 rows[MEGABYTE_MAX_STAGES] = {0}, bytes = 0;
        u32 n_pieces = 0;
        for (size_t j = first;
             j < n_jobs && n_pieces < e->batch && bytes < budget && rows[0] < e->batch; j++) {
            struct piece *p = &e->pieces[n_pieces];
            if (!jobs[j].sliding && jobs[j].done < jobs[j].n && window_full(jobs[j].stream))
                slide(&jobs[j]);
            if (!unfinished(&jobs[j])) continue;
            plan_piece(e, p, &jobs[j], budget - bytes, rows);
            bytes += p->t1 - p->t0;
            n_pieces++;
        }
        for (u32 s = 0; s < e->model->sizes.n_stages; s++) run_stage(e, n_pieces, s);
        for (u32 i = 0; i < n_pieces; i++) finish_piece(e, &e->pieces[i]);
        while (first < n_jobs && !unfinished(&jobs[first])) first++;
        spent(e, &caller, MEGABYTE_PART_OTHER);
    }
}

/* =================================================================================== 12 engine */

static status check_engine_options(const megabyte_engine_options *from, megabyte_engine_options *to,
                                   megabyte_error *error) {
    static const megabyte_engine_options defaults = {
        .threads = 1, .batch = 128, .isa = MEGABYTE_ISA_AUTO};
    *to = from ? *from : defaults;
    if (!to->threads) to->threads = defaults.threads;
    if (!to->batch) to->batch = defaults.batch;
    if (to->threads > 256 || to->batch > 4096)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "threads must be 1 to 256 (%u), batch 1 to 4096 (%u)", to->threads, to->batch);
    return MEGABYTE_OK;
}

static float *carve_floats(struct arena *a, u64 rows, u64 width) {
    return width && rows > UINT64_MAX / 8 / width ? (a->overflow = 1, NULL)
                                                  : carve(a, rows * width, sizeof(float));
}

static struct cache carve_cache(struct arena *a, const struct stage *g, u64 cap, u64 layers) {
    struct cache c = cache_sizes(g, cap);
    if (g->cache_q8) {
        c.k_scale = carve_floats(a, layers * g->kv_heads, c.scale_head);
        c.v_scale = carve_floats(a, layers * g->kv_heads, c.scale_head);
        c.k8 = carve(a, layers, c.k_layer);
        c.v8 = carve(a, layers, c.v_layer);
    } else {
        c.k = carve_floats(a, layers, c.k_layer);
        c.v = carve_floats(a, layers, c.v_layer);
    }
    return c;
}

/* Angles of a finer stage are computed once, at creation, if they are no more than this (256 KB);
 * else for each row, as those of stage 0. A small file can ask for gigabytes of them. */
#define MOST_ANGLES 65536u

/* What the widest of the stages needs. */
struct widths {
    u64 x, a, n, keys, angles;
    u32 layers, head;
};
static u64 max64(u64 a, u64 b) { return a > b ? a : b; }

/* The parts of an engine that belong to stage s. */
static void stage_layout(megabyte_engine *e, struct arena *a, u32 s, struct widths *w) {
    const megabyte_model *model = e->model;
    const struct sizes *z = &model->sizes;
    const struct stage *g = &model->stage[s];
    u32 last = s ? last_position(z, s) : g->size.positions - 1;
    u64 b = e->batch, keys = (u64)last + 1 + g->size.cross, sequence = last + g->shifted;
    w->x = max64(w->x, g->size.dim);
    w->a = max64(w->a, max64(g->inner + 2 * (u64)g->kv_inner, max64(g->size.ff_dim, g->size.dim)));
    w->a = max64(w->a, g->output.rows);
    w->n = max64(w->n, max64(g->inner, max64(g->patch.data ? g->wide : 0, g->size.dim)));
    w->n = max64(w->n, g->size.ff_dim); /* quantized only, but one stride serves */
    w->keys = max64(w->keys, keys);
    w->layers = (u32)max64(w->layers, g->size.layers);
    w->head = (u32)max64(w->head, g->size.head_dim);
    if (s) e->slots[s] = carve_cache(a, g, keys, sequence ? b / sequence : 0);
    if (s && g->start_token) {
        e->start[s] = carve_cache(a, g, 1, g->size.layers);
        e->start_shift[s] = carve_floats(a, shift_floats(g), 1);
        e->start_output[s] = carve_floats(a, g->output.rows, 1);
    }
    if (g->rotary && s && !g->size.cross && (last + 1) * (u64)g->size.head_dim <= MOST_ANGLES)
        e->angle[s] = carve_floats(a, last + 1, g->size.head_dim);
    else if (g->rotary) w->angles = max64(w->angles, g->size.head_dim);
    if (s + 1 < z->n_stages) /* a round's tokens: see run_jobs */
        e->outputs[s] = carve_floats(a, s ? b * (model->stage[0].bytes / g->bytes + 1) : b,
                                     g->outputs);
    for (u32 c = 0; c < MAX_CONVOLUTIONS && g->convolution[c]; c++)
        e->bytes_stride += (c ? 0 : g->bytes * g->wide) +
                           (u64)(g->size.convolution[c] - 1) * g->wide;
}

/* Lays out an engine for a model and checked options; with a base the pointers are real. */
static void engine_layout(megabyte_engine *e, struct arena *a, const megabyte_model *model,
                          const megabyte_engine_options *o) {
    u64 b = o->batch, chunks = most_chunks(o->threads);
    struct widths w = {0};
    carve(a, 1, sizeof *e);
    e->model = model;
    e->batch = o->batch;
    e->pool.clock = o->clock;
    e->pool.clock_context = o->clock_context;
    for (u32 s = 0; s < model->sizes.n_stages; s++) stage_layout(e, a, s, &w);
    e->bytes = carve_floats(a, 2 * b, e->bytes_stride);
    e->ld_x = round_up(w.x, 16);
    e->ld_a = round_up(w.a, 16);
    e->ld_n = round_up(w.n, 16);
    e->score_stride = round_up(w.keys, 16);
    e->side_stride = round_up(w.head, 16);
    e->rows = carve(a, b, sizeof *e->rows);
    e->run_first = carve(a, b + 1, sizeof *e->run_first);
    e->pieces = carve(a, b, sizeof *e->pieces);
    e->jobs = carve(a, b, sizeof *e->jobs);
    if (HAVE_CODEC) e->kept_bytes = min64(b * model->stage[0].bytes, 4096); /* a round's, or less */
    if (HAVE_CODEC && e->kept_bytes < MOST_ENSEMBLE) e->kept_bytes = MOST_ENSEMBLE;
    e->kept = carve(a, e->kept_bytes * KEPT_WORDS, sizeof *e->kept);
    e->x = carve_floats(a, b, e->ld_x);
    e->a = carve_floats(a, b, e->ld_a);
    e->n = carve_floats(a, b, e->ld_n);
    e->q = carve(a, b * e->ld_n, 2);
    e->q_sum = carve(a, b, sizeof *e->q_sum);
    e->q_scale = carve_floats(a, b, 1);
    e->row_angle = carve_floats(a, b, w.angles);
    e->score = carve_floats(a, chunks * QUERIES, e->score_stride + e->side_stride);
    if (model->stage[0].cache_q8) { /* 64: rows must not all fall on the same lines of the cache */
        e->q_stride = 2 * (max64(KEY_BLOCK, e->side_stride) + 64);
        e->score_q = carve(a, chunks * 2 * QUERIES, e->q_stride);
        e->ones = carve_floats(a, 1, e->side_stride);
        e->total = carve(a, chunks * 2 * QUERIES, e->side_stride * sizeof(i32));
    }
    if (model->quantized & 4) {
        e->unpacked_stride = Q4_ROOM(e->ld_n);
        e->unpacked = carve(a, chunks, e->unpacked_stride);
    }
    pool_layout(&e->pool, a, o->threads, PHASES(w.layers));
}

/* The start tokens of the finer stages never depend on the input: their keys, values, shift states
 * and projections are computed once, as are the angles of short sequences. */
static void run_start_tokens(megabyte_engine *e) {
    for (u32 s = 1; s < e->model->sizes.n_stages; s++) {
        const struct stage *g = &e->model->stage[s];
        struct row *r = &e->rows[0];
        for (u32 p = 0; e->angle[s] && p <= last_position(&e->model->sizes, s); p++)
            rotary_angles(g, p, e->angle[s] + (u64)p * g->size.head_dim);
        if (!g->start_token) continue;
        memset(r, 0, sizeof *r);
        r->known = UINT32_MAX;
        r->start = 1;
        r->cache = e->start[s];
        r->shift_to = e->start_shift[s];
        r->out = e->start_output[s];
        r->target = -1;
        e->stage = s;
        e->m = 1;
        run_pass(e);
    }
}

megabyte_status megabyte_engine_size(const megabyte_model *model,
                                     const megabyte_engine_options *options, size_t *bytes) {
    megabyte_engine_options o;
    megabyte_engine e;
    struct arena a = {.base = NULL};
    if (!model || !bytes) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    status r = check_engine_options(options, &o, NULL);
    if (r) return r;
    memset(&e, 0, sizeof e);
    engine_layout(&e, &a, model, &o);
    if (!arena_fits(&a)) return MEGABYTE_ERROR_OUT_OF_MEMORY;
    *bytes = (size_t)a.used;
    return MEGABYTE_OK;
}

megabyte_status megabyte_engine_create(megabyte_engine **engine, const megabyte_model *model,
                                       const megabyte_engine_options *options,
                                       const megabyte_allocator *allocator, megabyte_error *error) {
    megabyte_engine_options o;
    megabyte_allocator with;
    megabyte_engine *e;
    struct arena a = {.base = NULL};
    void *memory = NULL;
    size_t bytes = 0;
    fp_state fp;
    clear_error(error);
    if (engine) *engine = NULL;
    if (!engine || !model)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "engine and model must not be NULL");
    status r = choose_allocator(&with, allocator, error);
    if (!r) r = check_engine_options(options, &o, error);
    if (r) return r;
    struct kernels kernels;
    if ((r = choose_kernels(o.isa, &kernels, error))) return r;
    if ((r = check_arithmetic(&kernels, error))) return r;
    r = megabyte_engine_size(model, &o, &bytes);
    if ((r = new_object(&memory, &with, r, bytes, "an engine", error))) return r;
    a.base = memory;
    e = memory;
    memset(e, 0, sizeof *e);
    engine_layout(e, &a, model, &o);
    e->allocator = with;
    e->allocated = bytes;
    e->kernels = kernels;
    if ((r = start_threads(&e->pool, error))) {
        with.free(with.context, e, bytes);
        return r;
    }
    if (o.clock) e->looked = o.clock(o.clock_context);
    fp_enter(&fp);
    for (u64 i = 0; e->ones && i < e->side_stride; i++) e->ones[i] = 1;
    run_start_tokens(e);
    fp_leave(&fp);
    *engine = e;
    return MEGABYTE_OK;
}

void megabyte_engine_free(megabyte_engine *e) {
    if (!e) return;
    megabyte_allocator a = e->allocator;
    pool_stop(&e->pool);
    a.free(a.context, e, e->allocated);
}

void megabyte_engine_parts(const megabyte_engine *e,
                           uint64_t time[MEGABYTE_MAX_STAGES][MEGABYTE_PARTS]) {
    if (!time) return;
    if (e) memcpy(time, e->time, sizeof e->time);
    else memset(time, 0, sizeof e->time);
}

megabyte_isa megabyte_engine_isa(const megabyte_engine *e) {
    return e ? e->kernels.isa : MEGABYTE_ISA_AUTO;
}

/* ================================================================================== 13 streams */

/* Sliding leaves something of every window: a token ahead, one patch would not do. */
static u32 least_patches(const megabyte_model *model) { return 1 + ahead(model); }

static status check_stream_options(const megabyte_model *model, const megabyte_stream_options *from,
                                   megabyte_stream_options *to, u32 *patches,
                                   megabyte_error *error) {
    static const megabyte_stream_options defaults = {0};
    u64 patch = model->stage[0].bytes, trained = model->stage[0].size.positions * patch;
    u64 least = patch * least_patches(model);
    *to = from ? *from : defaults;
    if (!to->context) to->context = trained;
    if (to->context < least || to->context > trained)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "context must be %llu to %llu bytes, not %llu", (unsigned long long)least,
                    (unsigned long long)trained, (unsigned long long)to->context);
    if (to->file_type && !(model->stage[0].size.flags & COLUMN_SUM))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "this model does not take a file type");
    if (to->file_type && (!to->file_type[0] || strlen(to->file_type) > patch))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "a file type must have 1 to %llu bytes, such as txt",
                    (unsigned long long)patch);
    if (to->engine && to->engine->model != model)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "the engine belongs to another model");
    if (to->draft_max > MOST_DRAFTED && to->draft_max != MEGABYTE_NO_DRAFT)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "draft_max must be up to %d, or MEGABYTE_NO_DRAFT", MOST_DRAFTED);
    if (to->draft_engine && to->draft)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "draft and draft_engine: give only one of them");
    if (to->draft_engine && to->draft_engine == to->engine)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "draft_engine must be another engine than the stream's own");
    if (to->draft_engine &&
        min32(to->draft_engine->model->sizes.vocabulary, 256) < min32(model->sizes.vocabulary, 256))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "the drafting model's vocabulary of %u is too small: this model has %u",
                    to->draft_engine->model->sizes.vocabulary, model->sizes.vocabulary);
    if (!to->draft_max) to->draft_max = 11;
    if (to->draft_max == MEGABYTE_NO_DRAFT) to->draft_max = 0;
    if (!to->draft_max) to->draft_engine = NULL;
    *patches = (u32)(to->context / patch);
    return MEGABYTE_OK;
}

/* Keys of a finer stage's sequence, those of the patch before it included. */
static u64 slot_keys(const struct sizes *z, u32 s) {
    return (u64)last_position(z, s) + 1 + z->stage[s].cross;
}

/* What drafting needs besides. It lies behind everything else, so that streams with and without
 * are laid out alike, and is not touched before the first draft. */
static void draft_layout(megabyte_stream *s, struct arena *a, const megabyte_model *model,
                         u32 patches) {
    const struct sizes *z = &model->sizes;
    struct drafter *d = &s->draft;
    u64 most = d->most, entries = 1024;
    if (!most) return;
    d->logits = carve_floats(a, 1 + most, z->vocabulary);
    d->ring = carve_floats(a, DRAFT_PATCHES, shift_floats(&model->stage[0]));
    for (u32 i = 0; i + 1 < z->n_stages; i++)
        d->condition[i] = carve_floats(a, DRAFT_PATCHES, model->stage[i].outputs);
    for (u32 i = 1; i < z->n_stages; i++) {
        const struct stage *g = &model->stage[i];
        d->shift[i] = carve_floats(a, most, shift_floats(g));
        for (u32 j = 2; j < MOST_SLOTS; j++) {
            s->slot_shift[i][j] = carve_floats(a, shift_floats(g), 1);
            s->slot[i][j] = carve_cache(a, g, slot_keys(z, i), g->size.layers);
        }
    }
    while (entries < 65536 && entries < 8 * patches * model->stage[0].bytes) entries *= 2;
    d->table = carve(a, entries, sizeof *d->table);
    d->table_mask = (u32)entries - 1;
}

static void stream_layout(megabyte_stream *s, struct arena *a, const megabyte_model *model,
                          u32 patches, u32 draft_max) {
    const struct sizes *z = &model->sizes;
    const struct stage *g = &model->stage[0];
    carve(a, 1, sizeof *s);
    s->patches = patches;
    if (g->size.flags & COLUMN_SUM)
        s->start = carve_floats(a, g->size.dim, 1); /* stays when all is reset */
    s->history_bytes = ((u64)patches + (patches - patches / 2)) * g->bytes +
                       /* a rewind may undo a slide, and sampling looks further back by its window
                        * */
                       MAX_REPETITION_WINDOW + MOST_DRAFTED;
    s->cleared_from = carve(a, 0, 1);
    for (u32 i = 0; i + 1 < z->n_stages; i++)
        s->condition[i] = carve_floats(a, model->stage[i].outputs, 1);
    for (u32 i = 1; i < z->n_stages; i++)
        for (u32 j = 0; j < 2; j++)
            s->slot_shift[i][j] = carve_floats(a, shift_floats(&model->stage[i]), 1);
    s->ring = carve_floats(a, SHIFT_RING, shift_floats(g));
    s->logits = carve_floats(a, z->vocabulary, 1);
    s->cleared_to = carve(a, 0, 1);
    /* What follows can be far larger than the model file: it is never touched before it is used,
     * so that the system gives memory as a stream grows. */
    s->history = carve(a, s->history_bytes, 1);
    for (u32 i = 1; i < z->n_stages; i++) {
        const struct stage *f = &model->stage[i];
        for (u32 j = 0; j < 2; j++)
            s->slot[i][j] = carve_cache(a, f, slot_keys(z, i), f->size.layers);
    }
    s->global = carve_cache(a, g, patches, g->size.layers);
    s->draft.most = draft_max;
    draft_layout(s, a, model, patches);
}

static status stream_bytes(const megabyte_model *model, u32 patches, u32 draft_max, size_t *bytes) {
    megabyte_stream s;
    struct arena a = {.base = NULL};
    memset(&s, 0, sizeof s);
    stream_layout(&s, &a, model, patches, draft_max);
    if (!arena_fits(&a)) return MEGABYTE_ERROR_OUT_OF_MEMORY;
    *bytes = (size_t)a.used;
    return MEGABYTE_OK;
}

/* Of the drafting model's stream: as much context as the stream has, if it can. */
static megabyte_stream_options second_options(const megabyte_stream_options *o) {
    const megabyte_model *model = o->draft_engine->model;
    u64 patch = model->stage[0].bytes, most = model->stage[0].size.positions * patch;
    u64 least = patch * least_patches(model), context = o->context < least ? least : o->context;
    megabyte_stream_options second = {
        .engine = o->draft_engine, .context = min64(context, most), .draft_max = MEGABYTE_NO_DRAFT};
    return second;
}

megabyte_status megabyte_stream_size(const megabyte_model *model,
                                     const megabyte_stream_options *options, size_t *bytes) {
    megabyte_stream_options o, second;
    u32 patches = 0;
    size_t own = 0, engine = 0, drafting = 0;
    if (!model || !bytes) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    status r = check_stream_options(model, options, &o, &patches, NULL);
    if (!r) r = stream_bytes(model, patches, o.draft_max, &own);
    if (!r && !o.engine) r = megabyte_engine_size(model, NULL, &engine);
    if (!r && o.draft_engine) {
        second = second_options(&o);
        r = megabyte_stream_size(o.draft_engine->model, &second, &drafting);
    }
    if (!r && (engine > SIZE_MAX - own || drafting > SIZE_MAX - own - engine))
        r = MEGABYTE_ERROR_OUT_OF_MEMORY;
    if (!r) *bytes = own + engine + drafting;
    return r;
}

/* The start vector for a file type: its name's bytes, filled up with pads, are the first
 * patch. */
static void choose_start(megabyte_stream *s, const char *file_type) {
    const struct stage *g = &s->engine->model->stage[0];
    const struct sizes *z = &s->engine->model->sizes;
    u32 dim = g->size.dim;
    if (!s->start) return;
    memcpy(s->start, g->start, dim * sizeof *s->start);
    if (!file_type) return;
    memset(s->start, 0, dim * sizeof *s->start);
    for (u64 b = 0; b < g->bytes; b++) {
        u64 id = *file_type ? (u8)*file_type++ : z->pad_id;
        if (id >= z->vocabulary) continue; /* no pad */
        s->engine->kernels.add(s->start, g->embed + (b * z->vocabulary + id) * dim, dim);
    }
    if (g->position) s->engine->kernels.add(s->start, g->position, dim);
}

megabyte_status megabyte_stream_create(megabyte_stream **stream, const megabyte_model *model,
                                       const megabyte_stream_options *options,
                                       const megabyte_allocator *allocator, megabyte_error *error) {
    megabyte_stream_options o;
    megabyte_allocator with;
    megabyte_stream *s;
    struct arena a = {.base = NULL};
    u32 patches = 0;
    void *memory = NULL;
    size_t bytes = 0;
    fp_state fp;
    clear_error(error);
    if (stream) *stream = NULL;
    if (!stream || !model)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "stream and model must not be NULL");
    status r = choose_allocator(&with, allocator, error);
    if (!r) r = check_stream_options(model, options, &o, &patches, error);
    if (r) return r;
    r = stream_bytes(model, patches, o.draft_max, &bytes);
    if ((r = new_object(&memory, &with, r, bytes, "a stream", error))) return r;
    if (o.large_pages) advise_large_pages(memory, bytes);
    a.base = memory;
    s = memory;
    memset(s, 0, sizeof *s);
    stream_layout(s, &a, model, patches, o.draft_max);
    s->draft.source = o.draft;
    s->draft.source_context = o.draft_context;
    s->allocator = with;
    s->allocated = bytes;
    s->engine = o.engine;
    if (!s->engine) {
        if ((r = megabyte_engine_create(&s->engine, model, NULL, allocator, error))) {
            with.free(with.context, s, bytes);
            return r;
        }
        s->owns_engine = 1;
    }
    if (o.draft_engine) {
        megabyte_stream_options second = second_options(&o);
        r = megabyte_stream_create(&s->draft.second.stream, o.draft_engine->model, &second,
                                   allocator, error);
        if (r) {
            megabyte_stream_free(s);
            return r;
        }
        /* a credit, so that some dozens of passes try what it is worth */
        s->draft.second.balance = (i64)(model->stage[model->sizes.n_stages - 1].macs >> 8);
    }
    fp_enter(&fp);
    choose_start(s, o.file_type);
    fp_leave(&fp);
    megabyte_stream_reset(s);
    *stream = s;
    return MEGABYTE_OK;
}

void megabyte_stream_free(megabyte_stream *s) {
    if (!s) return;
    megabyte_allocator a = s->allocator;
    megabyte_stream_free(s->draft.second.stream);
    if (s->owns_engine) megabyte_engine_free(s->engine);
    a.free(a.context, s, s->allocated);
}

/* Runs jobs inside the library's floating-point environment. */
static void run(megabyte_engine *e, struct job *jobs, size_t n) {
    fp_state fp;
    fp_enter(&fp);
    run_jobs(e, jobs, n);
    fp_leave(&fp);
}

void megabyte_stream_reset(megabyte_stream *s) {
    if (!s) return;
    const struct sizes *z = &s->engine->model->sizes;
    struct job nothing = {.stream = s, .want = WANT_LAST};
    s->position = s->base = s->oldest = s->high = s->tokens = s->relearn = 0;
    s->draft.left = 0;
    s->draft.stale = 0;
    s->draft.second.known = UINT64_MAX;
    forget_sequences(s, MOST_SLOTS);
    memset(s->cleared_from, 0,
           (size_t)(s->cleared_to - s->cleared_from)); /* saved states show it */
    if (ahead(s->engine->model)) run(s->engine, &nothing, 1);
    else
        memcpy(s->logits, s->engine->start_output[z->n_stages - 1],
               z->vocabulary * sizeof *s->logits);
}

static int bytes_known(const megabyte_stream *s, const u8 *bytes, size_t n) {
    u32 vocabulary = s->engine->model->sizes.vocabulary;
    for (size_t i = 0; vocabulary < 256 && i < n; i++)
        if (bytes[i] >= vocabulary) return 0;
    return 1;
}

megabyte_status megabyte_stream_feed(megabyte_stream *s, const void *bytes, size_t n) {
    if (!s || (n && !bytes) || !bytes_known(s, bytes, n)) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    struct job job = {.stream = s, .bytes = bytes, .n = n, .want = WANT_LAST};
    run(s->engine, &job, 1);
    return MEGABYTE_OK;
}

megabyte_status megabyte_stream_step(megabyte_stream *s, uint8_t byte) {
    return megabyte_stream_feed(s, &byte, 1);
}

/* Appends lengths[i] bytes (NULL: one each) to streams[i], which are distinct and share one
 * engine. */
static void feed_all(megabyte_stream *const *streams, const u8 *const *bytes, const u8 *single,
                     const size_t *lengths, size_t n) {
    megabyte_engine *e = streams[0]->engine;
    for (size_t from = 0; from < n; from += e->batch) {
        size_t count = n - from < e->batch ? n - from : e->batch;
        for (size_t i = 0; i < count; i++) {
            const u8 *b = single ? single + from + i : bytes[from + i];
            struct job job = {.stream = streams[from + i],
                              .bytes = b,
                              .n = lengths ? lengths[from + i] : 1,
                              .want = WANT_LAST};
            e->jobs[i] = job;
        }
        run(e, e->jobs, count);
    }
}

static status feed_batch(megabyte_stream *const *streams, const u8 *const *bytes, const u8 *single,
                         const size_t *lengths, size_t n) {
    size_t i, good;
    if (!n) return MEGABYTE_OK;
    if (!streams || (!bytes && !single) || (bytes && !lengths))
        return MEGABYTE_ERROR_INVALID_ARGUMENT;
    for (good = 0; good < n; good++) {
        megabyte_stream *s = streams[good];
        const u8 *b = single ? single + good : bytes[good];
        size_t length = lengths ? lengths[good] : 1;
        if (!s || s->busy || s->engine != streams[0]->engine || (length && !b) ||
            !bytes_known(s, b, length))
            break;
        s->busy = 1;
    }
    for (i = 0; i < good; i++) streams[i]->busy = 0;
    if (good < n) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    feed_all(streams, bytes, single, lengths, n);
    return MEGABYTE_OK;
}

megabyte_status megabyte_stream_step_batch(megabyte_stream *const *streams, const uint8_t *bytes,
                                           size_t n) {
    return feed_batch(streams, NULL, bytes, NULL, n);
}

megabyte_status megabyte_stream_feed_batch(megabyte_stream *const *streams,
                                           const uint8_t *const *bytes, const size_t *lengths,
                                           size_t n) {
    return bytes || !n ? feed_batch(streams, bytes, NULL, lengths, n)
                       : MEGABYTE_ERROR_INVALID_ARGUMENT;
}

static status score_all(megabyte_stream *s, const u8 *b, size_t n, double *bits, float *logits,
                        float *each) {
    if (!s || (n && !b) || !bytes_known(s, b, n)) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (!n) return MEGABYTE_OK;
    megabyte_engine *e = s->engine;
    u32 vocabulary = e->model->sizes.vocabulary;
    struct job job = {
        .stream = s, .bytes = b, .n = n, .want = WANT_ALL, .logits = logits, .each = each};
    fp_state fp;
    fp_enter(&fp);
    if (logits) memcpy(logits, s->logits, vocabulary * sizeof *logits);
    memcpy(e->a, s->logits, vocabulary * sizeof *e->a);
    job.bits = code_length(e, e->a, vocabulary, b[0]);
    if (each) each[0] = (float)job.bits;
    run_jobs(e, &job, 1);
    if (bits) *bits += job.bits;
    fp_leave(&fp);
    return MEGABYTE_OK;
}

megabyte_status megabyte_stream_score(megabyte_stream *s, const void *bytes, size_t n, double *bits,
                                      float *logits) {
    return score_all(s, bytes, n, bits, logits, NULL);
}

megabyte_status megabyte_stream_score_bytes(megabyte_stream *s, const void *bytes, size_t n,
                                            float *bits) {
    return bits || !n ? score_all(s, bytes, n, NULL, NULL, bits) : MEGABYTE_ERROR_INVALID_ARGUMENT;
}

const float *megabyte_stream_logits(const megabyte_stream *s) { return s ? s->logits : NULL; }

void megabyte_stream_probabilities(const megabyte_stream *s, float *out) {
    if (!s || !out) return;
    megabyte_engine *e = s->engine;
    u32 vocabulary = e->model->sizes.vocabulary;
    fp_state fp;
    fp_enter(&fp);
    memcpy(e->a, s->logits, vocabulary * sizeof *out);
    float by = 1.0f / e->kernels.softmax(e->a, vocabulary);
    for (u32 i = 0; i < vocabulary; i++) out[i] = e->a[i] * by;
    fp_leave(&fp);
}

uint64_t megabyte_stream_position(const megabyte_stream *s) { return s ? s->position : 0; }

/* Where the window of a stream at this position begins: it slides when the byte after a full one
 * arrives. */
static u64 base_of(const megabyte_stream *s, u64 position) {
    u64 full = s->patches * s->engine->model->stage[0].bytes - ahead(s->engine->model),
        step = slide_bytes(s);
    return position <= full ? 0 : (position - full + step - 1) / step * step;
}

megabyte_status megabyte_stream_rewind(megabyte_stream *s, uint64_t position) {
    if (!s || position > s->position) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (position == s->position) return MEGABYTE_OK;
    u64 base = base_of(s, position), patch = s->engine->model->stage[0].bytes;
    if (base < s->oldest || (s->oldest && position < s->oldest + MAX_REPETITION_WINDOW))
        return MEGABYTE_ERROR_CAPACITY;
    u64 t = position - base, oldest = s->oldest, from = 0;
    const struct stage *fine = &s->engine->model->stage[s->engine->model->sizes.n_stages - 1];
    if (base == s->base && t) {
        /* Begin again with the patch that byte t - 1 lies in (shifted inputs: byte t), if the shift
         * state before it is still there; where patches look back, as many before it as run_stage
         * takes. */
        u64 g = (t - 1 + ahead(s->engine->model)) / patch,
            back = fine->size.cross ? fine->size.layers : 0;
        u64 far = 2 * s->engine->model->stage[0].size.layers + SHIFT_RING;
        if (g > back && (!s->engine->model->stage[0].half || s->high - g < SHIFT_RING))
            from = (g - back) * patch;
        else if (g > far) {
            /* Without its shift states a token is wrong, the one after it in all but the first
             * sublayer's input, and so on: after two tokens a layer all is right, and SHIFT_RING
             * later the ring is, too. What is wrong changes no keys and values, which are still
             * there. */
            from = (g - far) * patch;
            s->relearn = g - far;
            s->high = 0;
        }
    }
    fp_state fp;
    fp_enter(&fp);
    if (!t) megabyte_stream_reset(s); /* only an empty history has an empty window */
    s->oldest = oldest;
    s->base = base;
    if (t) {
        struct job job = {.stream = s, .n = t - from, .want = WANT_LAST};
        go_back(s, from);
        run_jobs(s->engine, &job, 1);
    }
    s->relearn = 0;
    if (s->draft.second.known > position) s->draft.second.known = t ? position : UINT64_MAX;
    fp_leave(&fp);
    return MEGABYTE_OK;
}

/* ---- drafting: what comes next, guessed from what came before */

/* Of each order: its last contexts, with the byte that followed them most of late. The longest
 * orders come first; the guess of the one that has been right most often wins. */
static const u8 draft_orders[DRAFT_ORDERS] = {12, 8, 6, 5, 4, 3};
#define MOST_ORDER 12
#define NEVER_TRIED 20000 /* a rate before anything is known, of 2^16 */
#define SURE 58000 /* a rate that leaves no work to a second model, of 2^16 */

/* The entry for the order's context that ends before `at`; whether it is this context's. */
static struct guess *find_guess(struct drafter *d, u32 order, const u8 *at, u16 *check) {
    u32 n = draft_orders[order];
    u64 h = get64(at - 8);
    if (n > 8) h += (get32(at - 12) + 1) * 0x9e3779b97f4a7c15ULL;
    else if (n < 8) h = h >> (64 - 8 * n) | (u64)n << 56;
    h *= 0xd6e8feb86659fd93ULL;
    h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL;
    *check = (u16)(h >> 16 | 1);
    return &d->table[h >> 32 & d->table_mask];
}

static u16 *rate_of(struct drafter *d, u32 order, u32 count) {
    u32 i = count < 5 ? count - 1 : count < 9 ? 4 : count < 17 ? 5 : count < 65 ? 6 : 7;
    return &d->rate[order][i];
}

/* The byte at `at`, after MOST_ORDER others, has come. */
static void learn_byte(struct drafter *d, const u8 *at) {
    for (u32 i = 0; i < DRAFT_ORDERS; i++) {
        u16 check;
        struct guess *g = find_guess(d, i, at, &check);
        if (g->check != check) {
            *g = (struct guess){.check = check, .byte = *at, .count = 1};
            continue;
        }
        u16 *rate = rate_of(d, i, g->count);
        i32 right = g->byte == *at, target = right ? 65535 : 0;
        *rate = (u16)(*rate + (target - (i32)*rate) / 64);
        if (right) g->count = (u8)(g->count + (g->count < 255));
        else if (g->count > 1) g->count /= 2;
        else g->byte = *at;
    }
}

/* The bytes of the history before `end` that it holds, up to n, end at `to`; returns how many. */
static u64 copy_history(const megabyte_stream *s, u64 end, u64 n, u8 *to) {
    n = min64(n, end - s->oldest);
    for (u64 i = 1; i <= n; i++) to[-(i64)i] = byte_at(s, end - i);
    return n;
}

static void learn_history(megabyte_stream *s) {
    struct drafter *d = &s->draft;
    u8 text[MOST_ORDER + 64];
    if (!d->cleared) {
        memset(d->table, 0, ((size_t)d->table_mask + 1) * sizeof *d->table);
        for (u32 i = 0; i < DRAFT_ORDERS * DRAFT_COUNTS; i++)
            d->rate[i / DRAFT_COUNTS][i % DRAFT_COUNTS] = NEVER_TRIED;
        d->source_rate = 60000;
        d->cleared = 1;
    }
    if (d->learned > s->position) d->learned = s->position; /* reset or rewound */
    if (d->learned < s->oldest + MOST_ORDER) d->learned = s->oldest + MOST_ORDER;
    while (d->learned < s->position) {
        u64 n = min64(s->position - d->learned, 64);
        copy_history(s, d->learned + n, n + MOST_ORDER, text + MOST_ORDER + n);
        for (u64 i = 0; i < n; i++) learn_byte(d, text + MOST_ORDER + i);
        d->learned += n;
    }
}

/* The likeliest byte at `at`; returns how often such a guess is right, of 2^16. */
static u32 guess_byte(struct drafter *d, u8 *at) {
    u32 best = 0;
    for (u32 i = 0; i < DRAFT_ORDERS; i++) {
        u16 check;
        const struct guess *g = find_guess(d, i, at, &check);
        u32 rate = g->check == check ? *rate_of(d, i, g->count) : 0;
        if (rate <= best) continue;
        best = rate;
        *at = g->byte;
    }
    return best;
}

/* Work of drafting byte i, and what it saves if it and all before it come true: a pass of the
 * finest stage, for about 3/8 of one. If it begins a patch, the coarser stages have a row more:
 * where they run in this pass anyway (`running`) that costs a quarter and saves the rest, else it
 * is all lost if the guess is wrong. */
struct prospect {
    u64 gain, cost;
    int runs; /* the coarser stages */
};

static struct prospect prospect_of(const megabyte_stream *s, u32 i, int running) {
    const megabyte_model *m = s->engine->model;
    u32 finest = m->sizes.n_stages - 1;
    u64 token = s->tokens + i, fine = m->stage[finest].macs >> 8, coarse = 0;
    for (u32 k = 0; k < finest; k++)
        if (token % m->stage[k].bytes == 0) coarse += m->stage[k].macs >> 8;
    struct prospect p = {.gain = fine + coarse,
                         .cost = fine * 3 / 8 + (running ? coarse / 4 : coarse),
                         .runs = running || coarse};
    return p;
}

/* With probability p / 2^16. */
static int is_worth_it(const struct prospect *prospect, u64 p) {
    return p * prospect->gain >= prospect->cost << 16;
}

/* What asking the second model has led to; whether to ask it again. As long as it takes more work
 * than it saves, only one pass in 32 tries whether that has changed. */
static int settle_second(megabyte_stream *s) {
    struct drafter *d = &s->draft;
    struct second *t = &d->second;
    if (!t->stream) return 0;
    if (t->passes) {
        const megabyte_model *m = t->stream->engine->model;
        u64 right = d->steps > t->steps ? d->steps - t->steps - 1 : 0, gain = 0, byte = 0;
        for (u64 i = 0; i < right && i < MOST_DRAFTED; i++) gain += t->gain[i];
        for (u32 k = 0; k < m->sizes.n_stages; k++)
            byte += (m->stage[k].macs >> 8) / m->stage[k].bytes;
        t->balance += ((i64)gain - (i64)(t->rows + t->passes * byte) - t->balance) / 32;
    }
    memset(t->gain, 0, sizeof t->gain);
    t->passes = t->rows = 0;
    t->steps = d->steps;
    return t->balance >= 0 || d->passes % 32 == 0;
}

/* Brings the second model's stream to the text's byte `end`: the history, and from `position` on
 * the bytes of the draft. What it holds beyond the text that it knows was a guess. */
static void follow_text(megabyte_stream *s, const u8 *draft, u64 end) {
    struct second *t = &s->draft.second;
    u64 at = t->known, patch = t->stream->engine->model->stage[0].bytes;
    u8 text[256];
    int lost = at > s->position || at < s->oldest || at < t->begin + t->stream->oldest;
    while (!lost && at < end && at < t->begin + t->stream->position &&
           byte_at(t->stream, at - t->begin) ==
               (at < s->position ? byte_at(s, at) : draft[at - s->position]))
        at++;
    if (!lost) t->passes += at < t->begin + t->stream->position;
    if (lost || megabyte_stream_rewind(t->stream, at - t->begin)) {
        u64 kept = min64(s->position - s->oldest, t->stream->patches * patch / 2);
        megabyte_stream_reset(t->stream);
        at = t->begin = s->position - kept;
    }
    for (u64 n; at < end; at += n, t->passes++) {
        n = min64(end - at, sizeof text);
        for (u64 i = 0; i < n; i++)
            text[i] = at + i < s->position ? byte_at(s, at + i) : draft[at + i - s->position];
        megabyte_stream_feed(t->stream, text, (size_t)n);
    }
    t->known = s->position;
}

/* The second model's guess of the byte after draft[0 .. count]; returns its probability, of
 * 2^16. */
static u32 ask_second(megabyte_stream *s, const u8 *draft, u32 count, u8 *guess) {
    struct second *t = &s->draft.second;
    float weights[256];
    fp_state fp;
    follow_text(s, draft, s->position + 1 + count);
    u32 n = min32(t->stream->engine->model->sizes.vocabulary, 256);
    copy_floats(weights, t->stream->logits, n);
    *guess = (u8)likeliest(weights, n);
    fp_enter(&fp);
    float sum = s->engine->kernels.softmax(weights, n);
    u32 rate = (u32)(65536.0f / sum);
    fp_leave(&fp);
    return rate;
}

/* Drafts up to `most` bytes behind draft.bytes[0], which the stream is about to step by; returns
 * how many. */
static u32 draft_bytes(megabyte_stream *s, u64 most) {
    struct drafter *d = &s->draft;
    const megabyte_model *m = s->engine->model;
    u64 n = m->stage[m->sizes.n_stages - 1].size.positions, p = 65536;
    u8 text[1024 + 1 + MOST_DRAFTED], *at = text + 1024;
    most = min64(min64(most, d->most), s->engine->batch - 1);
    most = min64(most, (DRAFT_PATCHES + 1) * n - s->tokens % n - 1);
    if (!most) return 0;
    learn_history(s);
    u64 before = copy_history(s, s->position, d->source ? 1023 : MOST_ORDER, at);
    *at = d->bytes[0];
    if (!d->source && before < MOST_ORDER) return 0;
    if (!d->source) {
        learn_byte(d, at);
        d->learned = s->position + 1;
    }
    u32 count = 0, source = 0;
    int running = s->tokens % n == 0, ask = settle_second(s);
    if (d->source)
        source = (u32)d->source(d->source_context, s->position + 1, at - before, (size_t)before + 1,
                                at + 1, (size_t)most);
    for (; count < most && !(d->source && count >= source); count++) {
        u8 *next = at + 1 + count;
        u32 rate = d->source ? d->source_rate : guess_byte(d, next); /* 0: nothing was guessed */
        int again = d->source && !count && d->passes % 32 == 0; /* it may have become better */
        const struct prospect prospect = prospect_of(s, count + 1, running);
        int asked = ask && rate < SURE && is_worth_it(&prospect, p);
        if (asked) rate = ask_second(s, at, count, next);
        p = p * rate >> 16;
        if (!rate || (!is_worth_it(&prospect, p) && !again) || *next >= m->sizes.vocabulary) break;
        running = prospect.runs;
        d->second.gain[count] = asked ? prospect.gain : 0;
        d->second.rows += asked ? prospect.cost : 0;
    }
    memcpy(d->bytes + 1, at + 1, count);
    return count;
}

/* Appends a byte to each of n streams, as feed_all does; most[i]: bytes that the caller may want
 * to append after it, one by one, for which drafts are welcome. */
static void step_drafting(megabyte_stream *const *streams, const u8 *bytes, const u64 *most,
                          size_t n) {
    megabyte_engine *e = streams[0]->engine;
    for (size_t from = 0; from < n; from += e->batch) {
        size_t count = n - from < e->batch ? n - from : e->batch;
        for (size_t i = 0; i < count; i++) {
            megabyte_stream *s = streams[from + i];
            s->draft.bytes[0] = bytes[from + i];
            u32 drafted = most[from + i] ? draft_bytes(s, most[from + i]) : 0;
            struct job job = {.stream = s,
                              .bytes = s->draft.bytes,
                              .n = 1 + drafted,
                              .want = drafted ? WANT_DRAFT : WANT_LAST};
            e->jobs[i] = job;
            s->draft.steps++;
            s->draft.passes++;
        }
        run(e, e->jobs, count);
    }
}

void megabyte_stream_draft_counts(const megabyte_stream *s, uint64_t *steps, uint64_t *passes) {
    if (steps) *steps = s ? s->draft.steps : 0;
    if (passes) *passes = s ? s->draft.passes : 0;
}

/* ---- states as bytes */

/* Visits a slot's keys and values of one layer and head, of which the first `live` are in use; the
 * others may hold anything and count as zeros. Keys stand side by side in groups of 16. */
static void each_key(const struct cache *c, u64 k_at, u64 live, span_visitor visit, void *context) {
    for (u64 row = 0, group = c->k_head / c->scale_head * 16; row < c->k_head; row += 16) {
        u64 before = row / group * 16, n = live > before ? min64(live - before, 16) : 0;
        visit(context, c->k + k_at + row, n, BOUNDED);
        visit(context, c->k + k_at + row + n, 16 - n, UNUSED);
    }
}

/* Visits what a finer stage keeps: keys, values and shift state of the sequence in progress. Those
 * of a complete one are not needed any more, unless the next patch looks back at them. */
static void each_slot(const megabyte_stream *s, u32 stage, span_visitor visit, void *context) {
    const struct stage *g = &s->engine->model->stage[stage];
    u32 finest = stage + 1 == s->engine->model->sizes.n_stages, slot = s->current[stage];
    const struct cache *c = &s->slot[stage][slot];
    u64 n = g->size.positions, at = s->tokens ? (s->tokens - 1) / g->bytes % n : n, live = 0;
    if (at + (g->size.cross ? 0 : 1) < n && (at || finest)) /* 0: the engine's start token */
        live = at + 1 + (finest && g->start_token) + (g->size.cross ? s->slot_cross[slot] : 0);
    for (u64 t = 0; t < g->kv_heads * (u64)g->size.layers; t++)
        each_key(c, t * c->k_head, live, visit, context);
    for (u64 t = 0; t < g->kv_heads * (u64)g->v_tiles * g->size.layers; t++) {
        u64 used = min64(live * 16, c->v_tile);
        visit(context, c->v + t * c->v_tile, used, BOUNDED);
        visit(context, c->v + t * c->v_tile + used, c->v_tile - used, UNUSED);
    }
    visit(context, s->slot_shift[stage][slot], shift_floats(g), live ? ANY_FLOAT : UNUSED);
}

/* Visits everything that a stream's state consists of, as spans in a fixed order. */
static void each_span(const megabyte_stream *s, span_visitor visit, void *context) {
    const megabyte_model *model = s->engine->model;
    const struct sizes *z = &model->sizes;
    const struct stage *g = &model->stage[0];
    each_block(g, &s->global, 0, (s->tokens + g->bytes - 1) / g->bytes, visit, context);
    if (s->start) visit(context, s->start, g->size.dim, ANY_FLOAT);
    visit(context, s->ring, SHIFT_RING * shift_floats(g), ANY_FLOAT);
    for (u32 i = 1; i < z->n_stages; i++) each_slot(s, i, visit, context);
    for (u32 i = 0; i + 1 < z->n_stages; i++)
        visit(context, s->condition[i], model->stage[i].outputs, ANY_FLOAT);
    visit(context, s->logits, z->vocabulary, BOUNDED);
}

/* A saved stream: 96 bytes of header | history from `oldest` | the spans, little-endian | 8 of
 * checksum. */
#define STATE_HEADER 96
static const u8 state_magic[8] = {0x8a, 'M', 'B', 'S', 'T', 'R', '\r', '\n'};

static u64 checksum_of(const u8 *p, u64 n) {
    u64 h = n * 0x9e3779b97f4a7c15ULL + 1;
    for (; n >= 8; n -= 8, p += 8) {
        h = (h ^ get64(p)) * 0x9e3779b97f4a7c15ULL;
        h ^= h >> 29;
    }
    for (; n; n--, p++) {
        h = (h ^ *p) * 0x9e3779b97f4a7c15ULL;
        h ^= h >> 29;
    }
    return h;
}

static void count_span(void *context, void *span, u64 n, int kind) {
    (void)span;
    *(u64 *)context += kind == RAW_BYTES ? n : n * 4;
}
static void write_span(void *context, void *span, u64 n, int kind) {
    u8 **to = context;
    const float *from = span;
    u64 bytes = kind == RAW_BYTES ? n : n * 4;
    if (kind == UNUSED) memset(*to, 0, (size_t)bytes);
    else if (BIG_ENDIAN_HOST && kind != RAW_BYTES)
        for (u64 i = 0; i < n; i++) put32(*to + i * 4, f32_to_bits(from[i]));
    else memcpy(*to, span, (size_t)bytes);
    *to += bytes;
}
static void read_span(void *context, void *span, u64 n, int kind) {
    const u8 **from = context;
    float *to = span;
    if (kind == RAW_BYTES) {
        memcpy(span, *from, (size_t)n);
        *from += n;
        return;
    }
    if (kind == UNUSED) { /* zeros, or what older versions left there, or a forger */
        memset(span, 0, (size_t)n * sizeof *to);
        *from += n * 4;
        return;
    }
    for (u64 i = 0; i < n; i++) {
        to[i] = bits_to_f32(get32(*from + i * 4));
        if (kind == BOUNDED) { /* whatever a forged file says, NaN too */
            to[i] = to[i] > -MOST ? to[i] : -MOST;
            to[i] = to[i] < MOST ? to[i] : MOST;
        }
    }
    *from += n * 4;
}
struct span_copy {
    u8 *to;
    const u8 *from;
};
static void copy_span(void *context, void *span, u64 n,
                      int kind) { /* both streams are laid out alike */
    struct span_copy *c = context;
    if (kind == UNUSED) return;
    memcpy(c->to + ((u8 *)span - c->from), span, (size_t)(kind == RAW_BYTES ? n : n * 4));
}

size_t megabyte_stream_save_size(const megabyte_stream *s) {
    if (!s) return 0;
    u64 bytes = STATE_HEADER + (s->position - s->oldest) + 8;
    each_span(s, count_span, &bytes);
    return (size_t)bytes;
}

megabyte_status megabyte_stream_save(const megabyte_stream *s, void *out, size_t size) {
    if (!s || !out) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    size_t bytes = megabyte_stream_save_size(s);
    if (size < bytes) return MEGABYTE_ERROR_CAPACITY;
    u8 *p = out;
    memset(p, 0, STATE_HEADER);
    memcpy(p, state_magic, 8);
    put32(p + 8, 1);
    put32(p + 12, MEGABYTE_NUMERICS_VERSION);
    memcpy(p + 16, s->engine->model->id, 16);
    put64(p + 32, bytes);
    put64(p + 40, s->patches);
    put64(p + 48, s->position);
    put64(p + 56, s->base);
    put64(p + 64, s->oldest);
    put64(p + 72, s->high);
    p += STATE_HEADER;
    for (u64 at = s->oldest; at < s->position; at++) *p++ = s->history[at % s->history_bytes];
    each_span(s, write_span, &p);
    put64(p, checksum_of(out, bytes - 8));
    return MEGABYTE_OK;
}

megabyte_status megabyte_stream_load(megabyte_stream *s, const void *data, size_t size) {
    const u8 *p = data;
    if (!s || !data) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (size < 8 || memcmp(p, state_magic, 8)) return MEGABYTE_ERROR_BAD_MAGIC;
    if (size < STATE_HEADER + 8) return MEGABYTE_ERROR_TRUNCATED;
    if (get32(p + 8) != 1 || get32(p + 12) != MEGABYTE_NUMERICS_VERSION)
        return MEGABYTE_ERROR_BAD_VERSION;
    if (get64(p + 32) > size) return MEGABYTE_ERROR_TRUNCATED;
    if (get64(p + 32) < size || get64(p + size - 8) != checksum_of(p, size - 8))
        return MEGABYTE_ERROR_CORRUPT;
    if (memcmp(p + 16, s->engine->model->id, 16) || get64(p + 40) != s->patches)
        return MEGABYTE_ERROR_WRONG_MODEL;

    /* A forged checksum is no surprise: the numbers must make a possible stream, the length must
     * follow. */
    megabyte_stream trial = *s;
    trial.position = get64(p + 48);
    trial.base = get64(p + 56);
    trial.oldest = get64(p + 64);
    trial.high = get64(p + 72);
    u64 patch = s->engine->model->stage[0].bytes;
    trial.tokens = trial.position - trial.base + ahead(s->engine->model);
    u64 computed = (trial.tokens + patch - 1) / patch;
    if (trial.position > UINT64_MAX / 2 || trial.base != base_of(s, trial.position) ||
        trial.oldest > trial.base ||
        trial.position - trial.oldest > s->history_bytes - MOST_DRAFTED || trial.high < computed ||
        trial.high > s->patches || megabyte_stream_save_size(&trial) != size)
        return MEGABYTE_ERROR_CORRUPT;
    p += STATE_HEADER;
    u64 kept = trial.position - trial.oldest;
    if (!bytes_known(s, p, (size_t)kept)) return MEGABYTE_ERROR_CORRUPT;
    s->draft.second.known = UINT64_MAX;
    for (u64 at = trial.oldest; at < trial.position; at++) s->history[at % s->history_bytes] = *p++;
    s->position = trial.position;
    s->base = trial.base;
    s->oldest = trial.oldest;
    s->high = trial.high;
    s->tokens = trial.tokens;
    const struct stage_sizes *fine =
        &s->engine->model->sizes.stage[s->engine->model->sizes.n_stages - 1];
    u32 slot = s->current[s->engine->model->sizes.n_stages - 1];
    forget_sequences(s, slot);
    s->slot_sequence[slot] = s->tokens ? (s->tokens - 1) / fine->positions : UINT64_MAX;
    s->slot_cross[slot] = s->slot_sequence[slot] ? fine->cross : 0;
    for (u32 i = 1; i < s->engine->model->sizes.n_stages; i++)
        s->slot_used[i][s->current[i]] = (u32)round_up(slot_keys(&s->engine->model->sizes, i), 16);
    each_span(s, read_span, &p);
    return MEGABYTE_OK;
}

megabyte_status megabyte_stream_copy(megabyte_stream *to, const megabyte_stream *from) {
    if (!to || !from || to->patches != from->patches ||
        memcmp(to->engine->model->id, from->engine->model->id, 16))
        return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (to == from) return MEGABYTE_OK;
    to->draft.left = 0;
    to->draft.stale = 0;
    to->draft.second.known = UINT64_MAX;
    struct span_copy c = {.to = (u8 *)to, .from = (const u8 *)from};
    for (u64 at = from->oldest, n; at < from->position; at += n) { /* up to the ring's end, again */
        u64 place = at % from->history_bytes;
        n = min64(from->position - at, from->history_bytes - place);
        memcpy(to->history + place, from->history + place, (size_t)n);
    }
    for (u32 i = 1; i < from->engine->model->sizes.n_stages; i++)
        to->slot_used[i][from->current[i]] = from->slot_used[i][from->current[i]];
    memcpy(to->current, from->current, sizeof to->current);
    to->position = from->position;
    to->base = from->base;
    to->oldest = from->oldest;
    to->high = from->high;
    to->tokens = from->tokens;
    memcpy(to->slot_sequence, from->slot_sequence, sizeof to->slot_sequence);
    memcpy(to->slot_cross, from->slot_cross, sizeof to->slot_cross);
    to->slot_sequence[from->current[from->engine->model->sizes.n_stages - 1] ^ 1] =
        UINT64_MAX; /* not it */
    each_span(from, copy_span, &c);
    return MEGABYTE_OK;
}

/* ================================================================================= 14 sampling */

/* splitmix64 */
static u64 next_random(u64 *state) {
    u64 z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
    return z ^ z >> 31;
}

/* Chooses among logits l[n], which it overwrites; n <= 257, room for round_up(n, 16). */
static u32 choose(const struct kernels *k, float *l, u32 n, megabyte_sampling *sampling) {
    u32 best = likeliest(l, n);
    u64 random = next_random(&sampling->seed);
    if (sampling->temperature < 1e-6f) return best;
    float top = l[best], by = 1.0f / sampling->temperature;
    for (u32 i = 0; i < n; i++) {
        float d = l[i] - top;
        l[i] = d * by;
    }
    k->softmax(l, n); /* now weights, the best one's is 1 */

    /* Kept bytes, likeliest first (ties: the smaller byte), until top-k or top-p or min-p ends the
     * list. */
    u16 order[257];
    u32 limit = sampling->top_k && sampling->top_k < n ? sampling->top_k : n, kept = 0;
    double total = 0, sum = 0;
    for (u32 i = 0; i < n; i++) order[i] = (u16)i;
    int sorted = limit < n || (sampling->top_p > 0 && sampling->top_p < 1);
    for (u32 i = 0; sorted && i < limit; i++) { /* a selection sort, as far as needed */
        u32 m = i;
        for (u32 j = i + 1; j < n; j++)
            if (l[order[j]] > l[order[m]] || (l[order[j]] == l[order[m]] && order[j] < order[m]))
                m = j;
        u16 t = order[i];
        order[i] = order[m];
        order[m] = t;
    }
    for (u32 i = 0; i < limit; i++) total += (double)l[order[i]];
    float min_p = sampling->min_p < 1 ? sampling->min_p
                                      : 1; /* the likeliest, whose weight is 1, always stays */
    double nucleus = sampling->top_p > 0 && sampling->top_p < 1 ? total * (double)sampling->top_p
                                                                : total * 2;
    for (u32 i = 0; i < limit && sum < nucleus; i++) {
        if (l[order[i]] < min_p) {
            if (sorted) break;
            continue;
        }
        order[kept++] = order[i];
        sum += (double)l[order[kept - 1]];
    }
    double at = (double)(random >> 11) * (1.0 / 9007199254740992.0) * sum;
    for (u32 i = 0; i < kept; i++) {
        at -= (double)l[order[i]];
        if (at < 0) return order[i];
    }
    return order[kept - 1];
}

static int field_ok(float v) { return v >= 0; } /* false for NaN */

/* `end`: the logit of the id that ends a text, or NULL. */
static status sample(const struct kernels *k, const float *logits, size_t n_logits,
                     const float *end, const u8 *recent, size_t n_recent,
                     megabyte_sampling *sampling, uint8_t *byte) {
    float l[272];
    u8 seen[257] = {0};
    if (!field_ok(sampling->temperature) || !field_ok(sampling->top_p) ||
        !field_ok(sampling->min_p) || !field_ok(sampling->repetition_penalty))
        return MEGABYTE_ERROR_INVALID_ARGUMENT;
    u32 bytes = n_logits < 256 ? (u32)n_logits : 256, n = bytes + (end != NULL), chosen;
    fp_state fp;
    fp_enter(&fp);
    float penalty = sampling->repetition_penalty;
    for (size_t i = 0; penalty > 0 && i < n_recent; i++) seen[recent[i]] = 1;
    for (u32 i = 0; i < n; i++) {
        l[i] = i < bytes ? logits[i] : *end;
        if (seen[i]) l[i] = l[i] > 0 ? l[i] / penalty : l[i] * penalty;
        l[i] = l[i] > -1e30f ? l[i]
                             : -1e30f; /* finite, whatever the caller's logits and penalty are */
        l[i] = l[i] < 1e30f ? l[i] : 1e30f;
    }
    chosen = choose(k, l, n, sampling);
    fp_leave(&fp);
    if (chosen == bytes) return MEGABYTE_END;
    *byte = (u8)chosen;
    return MEGABYTE_OK;
}

static u32 repetition_window(const megabyte_sampling *sampling) {
    return min32(sampling->repetition_window ? sampling->repetition_window : 64,
                 MAX_REPETITION_WINDOW);
}

megabyte_status megabyte_logits_sample(const float *logits, size_t n_logits, const uint8_t *recent,
                                       size_t n_recent, megabyte_sampling *sampling,
                                       uint8_t *byte) {
    if (!logits || !n_logits || !sampling || !byte || (n_recent && !recent))
        return MEGABYTE_ERROR_INVALID_ARGUMENT;
    size_t window = repetition_window(sampling);
    if (n_recent > window) {
        recent += n_recent - window;
        n_recent = window;
    }
    struct kernels plain = kernels_plain();
    return sample(&plain, logits, n_logits, NULL, recent, n_recent, sampling, byte);
}

megabyte_status megabyte_stream_sample(const megabyte_stream *s, megabyte_sampling *sampling,
                                       uint8_t *byte) {
    u8 recent[MAX_REPETITION_WINDOW];
    if (!s || !sampling || !byte) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    u64 n = min64(repetition_window(sampling), s->position - s->oldest);
    for (u64 i = 0; i < n; i++) recent[i] = s->history[(s->position - n + i) % s->history_bytes];
    const struct sizes *z = &s->engine->model->sizes;
    return sample(&s->engine->kernels, s->logits, z->vocabulary,
                  z->end_id < z->vocabulary ? s->logits + z->end_id : NULL, recent, (size_t)n,
                  sampling, byte);
}

megabyte_status megabyte_stream_generate(megabyte_stream *s, megabyte_sampling *sampling,
                                         uint8_t *out, size_t n, size_t *n_out,
                                         int (*written)(void *context, uint8_t byte),
                                         void *context) {
    status r = MEGABYTE_OK;
    if (n_out) *n_out = 0;
    if (!s || !sampling || (n && !out && !written)) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    for (size_t i = 0; i < n; i++) {
        u8 byte;
        u64 more = n - i - 1;
        if ((r = megabyte_stream_sample(s, sampling, &byte))) break;
        if (!take_drafted(s, byte)) step_drafting(&s, &byte, &more, 1);
        if (out) out[i] = byte;
        if (n_out) *n_out = i + 1;
        if (written && written(context, byte)) {
            r = MEGABYTE_ERROR_CANCELLED;
            break;
        }
    }
    end_draft(s);
    return r;
}

#if !defined(MEGABYTE_NO_CODEC) /* sections 15 to 18 */

/* ======================================================================== 15 arithmetic coding */

/* Probabilities are integers, the same on every machine: a byte is eight binary decisions, the most
 * significant bit first, each with P(1) in units of 2^-22. The bytes' weights come from their
 * softmax: the likeliest has 2^27 + 1, none less than 1, so that no byte is impossible. */
enum { PROBABILITY_BITS = 22, PROBABILITY_ONE = 1 << PROBABILITY_BITS, BYTE_BITS = 8 };

static void byte_weights(const float likely[256], u32 w[256]) {
    for (u32 i = 0; i < 256; i++) w[i] = (u32)(likely[i] * 134217728.0f) + 1;
}

/* P(1) of the decision between w's lower half (0) and its upper half (1); n is a power of two. */
static u32 upper_half(const u32 *w, u32 n) {
    u64 zeros = 0, ones = 0; /* each < 2^35 */
    for (u32 i = 0; i < n / 2; i++) zeros += w[i];
    for (u32 i = n / 2; i < n; i++) ones += w[i];
    u32 p = (u32)((ones << PROBABILITY_BITS) / (zeros + ones));
    return p < 1 ? 1 : min32(p, PROBABILITY_ONE - 1);
}

/* A job's `scored`: the eight decisions' P(1) on the way to this byte, to bits[index]. */
static void keep_decisions(void *bits, u64 index, u8 byte, const float *likely) {
    u32 w[256], *to = (u32 *)bits + index * BYTE_BITS;
    const u32 *at = w;
    byte_weights(likely, w);
    for (u32 k = 0, n = 256; k < BYTE_BITS; k++, n /= 2) {
        to[k] = upper_half(at, n);
        if (byte >> (7 - k) & 1) at += n / 2;
    }
}
_Static_assert(BYTE_BITS == KEPT_WORDS, "what an engine has room for");

/* Binary arithmetic coding (a range coder): the code is a number in [0, 1); every decision narrows
 * the interval [low, low + range) in which it lies, in units of 2^-32 of what has not been written
 * yet. The range is kept at 2^24 or more, so that the least likely decision (2^-22) has at least 4
 * units. */
struct coder {
    u32 low, range;
    u32 code; /* decoding: the code's number minus low */
    u8 *to; /* encoding: [capacity] */
    const u8 *from; /* decoding: [capacity], then zeros without end */
    u64 n, capacity; /* bytes written or read; n > capacity: the code did not fit */
};

static void begin_encoding(struct coder *c, u8 *to, u64 capacity) {
    struct coder begin = {.range = UINT32_MAX, .to = to, .capacity = capacity};
    *c = begin;
}

static u8 next_code_byte(struct coder *c) {
    u64 at = c->n++;
    return at < c->capacity ? c->from[at] : 0;
}

static void begin_decoding(struct coder *c, const u8 *from, u64 n) {
    struct coder begin = {.range = UINT32_MAX, .from = from, .capacity = n};
    *c = begin;
    for (int i = 0; i < 4; i++) c->code = c->code << 8 | next_code_byte(c);
    if (c->code >= c->range)
        c->n = UINT64_MAX / 2; /* outside of every interval, where no step leads */
}

static void carry(struct coder *c) {
    for (u64 i = min64(c->n, c->capacity); i && !++c->to[i - 1]; i--) {}
}

static void put_code_byte(struct coder *c, u8 byte) {
    if (c->n < c->capacity) c->to[c->n] = byte;
    c->n++;
}

/* p: P(bit = 1) in units of 2^-22, neither 0 nor 1. A 1 takes the lower part. */
static void encode_bit(struct coder *c, u32 p, u32 bit) {
    u32 ones = (u32)((u64)c->range * p >> PROBABILITY_BITS);
    if (bit) {
        c->range = ones;
    } else {
        c->low += ones;
        c->range -= ones;
        if (c->low < ones) carry(c);
    }
    for (; c->range < 1u << 24; c->range <<= 8, c->low <<= 8) put_code_byte(c, (u8)(c->low >> 24));
}

static u32 decode_bit(struct coder *c, u32 p) {
    u32 ones = (u32)((u64)c->range * p >> PROBABILITY_BITS), bit = c->code < ones;
    if (bit) {
        c->range = ones;
    } else {
        c->low += ones;
        c->range -= ones;
        c->code -= ones;
    }
    for (; c->range < 1u << 24; c->range <<= 8, c->low <<= 8)
        c->code = c->code << 8 | next_code_byte(c);
    return bit;
}

/* The number in [low, low + range) with the fewest bytes, of those the smallest; may be 2^32. */
static u64 shortest_in(const struct coder *c, u32 *bytes) {
    for (*bytes = 0;; ++*bytes) {
        u64 unit = 1ULL << (32 - 8 * *bytes), number = round_up(c->low, unit);
        if (number < (u64)c->low + c->range) return number;
    }
}

/* A decoder reads zeros past the end. */
static void end_encoding(struct coder *c) {
    u32 bytes;
    u64 number = shortest_in(c, &bytes);
    if (number >> 32) carry(c);
    for (u32 i = 0; i < bytes; i++) put_code_byte(c, (u8)(number >> (24 - 8 * i)));
}

/* Encoding the decisions decoded so far would have written more than there is: the code is
 * damaged. */
static int beyond_end(const struct coder *c) { return c->n - 4 > c->capacity; }

/* 1 if the code is exactly what encoding the decoded decisions gives, so that no changed bit is
 * ignored. */
static int ends_decoding(const struct coder *c) {
    u32 bytes;
    return c->code == (u32)shortest_in(c, &bytes) - c->low && c->n - 4 + bytes == c->capacity;
}

/* A symbol of n, a power of two, coded down the tree of its bits by fixed weights. */
static void encode_symbol(struct coder *c, const u32 *w, u32 n, u32 symbol) {
    for (n /= 2; n; n /= 2) {
        u32 bit = (symbol & n) != 0;
        encode_bit(c, upper_half(w, 2 * n), bit);
        w += bit * n;
    }
}
static u32 decode_symbol(struct coder *c, const u32 *w, u32 n) {
    u32 symbol = 0;
    for (n /= 2; n; n /= 2)
        if (decode_bit(c, upper_half(w, 2 * n))) {
            w += n;
            symbol += n;
        }
    return symbol;
}

/* Equiprobable bits. */
static void encode_plain(struct coder *c, u64 bits, u32 n) {
    while (n--) encode_bit(c, PROBABILITY_ONE / 2, bits >> n & 1);
}
static u64 decode_plain(struct coder *c, u32 n) {
    u64 bits = 0;
    while (n--) bits = bits << 1 | decode_bit(c, PROBABILITY_ONE / 2);
    return bits;
}

/* =========================================================================== 16 context mixing */
/* Bit predictions from what this very data has shown so far, mixed with the model's.
 *
 * Many simple models each give P(bit = 1); their opinions are added up in the logistic domain:
 *
 *     P = squash(sum of w[i] * stretch(p[i]))
 *     stretch(p) = ln(p / (1 - p)),  squash(x) = 1 / (1 + e^-x)
 *
 * and after every bit the weights follow the gradient of the code length: w[i] += rate error
 * stretch(p[i]) (logistic mixing, M. Mahoney's PAQ; what follows was written anew in the manner of
 * lpaq). The models:
 *
 *   contexts  Hashes of what came before: the last 0, 1, 2, 3, 4, 6 bytes, the word, the column,
 *             the table's field ... In each context every node of a nibble's bit tree keeps a bit
 *             history, one byte: how many 0s and 1s it saw and which came last. What a history
 *             means is learned as well: each context has a map from history to probability.
 *   match     The longest earlier string equal to the last bytes predicts the byte that followed
 *             it.
 *   model     The transformer's probability; without it the mixer runs on contexts alone.
 *
 * Several weight sets, each selected by a small context, mix the same inputs; a second mixer joins
 * their outputs, and two adaptive probability maps correct what it still gets wrong. All of it is
 * integers, the same on every machine: probabilities have 22 bits, stretched values are in 1/128
 * (inputs) or 1/4096 (sums), weights in 1/16384. Shifts to the right of negative numbers round
 * down, as every compiler has it.
 *
 * Memory, 1 << log2_memory bytes: the state (0.4 MB), the last bytes (1/8), the match table (1/16),
 * and bit histories in the rest. */

enum {
    /* contexts */
    N_ORDERS = 6,
    C_WORD = N_ORDERS,
    C_WORDS,
    C_COLUMN,
    C_SPARSE,
    C_RECORD,
    C_FIELD,
    C_EXPECTED,
    N_CONTEXTS,
    /* pairs of inputs: one per context, then */
    I_MATCH = N_CONTEXTS,
    I_MODEL,
    I_SSE,
    N_INPUTS = 2 * (I_SSE + 1),
    /* weight sets: one of each group takes part. N_SETS groups with the model, one fewer
     * without */
    SET_HITS = 0,
    SET_PARTIAL = SET_HITS + 32,
    SET_MODEL = SET_PARTIAL + 512,
    SET_BYTE1 = SET_MODEL + 256,
    SET_BYTE2 = SET_BYTE1 + 256,
    N_WEIGHTS = SET_BYTE2 + 256,
    N_SETS = 5,
    N_STATES = 256,
    N_BUCKETS = 33,
    MIN_MATCH = 6,
    X_MAX = 65535 /* stretched sums: within 16 * 4096 */
};

_Static_assert(N_INPUTS == MIX_INPUTS, "the mixing kernels have a fixed width");

/* An adaptive probability is a u32: P(1) in the upper 22 bits, a count of updates in the lower
 * 10. */
#define NOTHING ((u32)(PROBABILITY_ONE / 2) << 10 | 2) /* P(1) = 1/2: both its inputs are 0 */

struct mixer_pair {
    i16 stretched, plain;
}; /* one probability as two inputs, see mixer_mix */

/* The codec's for the same instruction set, or the widest below it that has some. */
static struct mix_kernels find_mix_kernels(megabyte_isa isa) {
#if HAVE_X86
    if (isa == MEGABYTE_ISA_AVX2 || isa == MEGABYTE_ISA_AVX512_VNNI) return mix_kernels_avx2();
#endif
#if HAVE_NEON
    if (isa == MEGABYTE_ISA_NEON || isa == MEGABYTE_ISA_NEON_DOT || isa == MEGABYTE_ISA_NEON_I8MM)
        return mix_kernels_neon();
#endif
#if HAVE_SIMD128
    if (isa == MEGABYTE_ISA_SIMD128) return mix_kernels_simd128();
#endif
    (void)isa;
    return mix_kernels_plain();
}

/* What never changes is kept once for all mixers of a codec: it stays in the processor's cache. */
struct mixer_tables {
    struct mix_kernels kernels;
    u32 squash[513]; /* at steps of 1/16 */
    struct mixer_pair pair[4096]; /* by the upper 12 bits of a probability */
    u16 log[257], reciprocal[1024];
    u8 next_state[N_STATES][2]; /* of bit histories */
    u32 first_map[N_STATES];
};

struct mixer_context {
    u64 key; /* hash of what identifies the context */
    u8 *slot; /* the histories of this nibble's bits */
    u32 at, check; /* where the first nibble's search starts; the check byte */
};

struct mixer {
    /* this bit's */
    _Alignas(64) struct mixer_pair input[N_INPUTS / 2];
    u8 state[N_CONTEXTS]; /* the contexts' histories */
    u32 chosen[N_SETS], before; /* rows of weights; the first one of the bit before */
    u32 final_row;
    i32 from_model, stretched; /* the model's P(1), and that stretched */
    i32 x_set[N_SETS], x_final;
    u32 p_set[N_SETS], p_final;
    u32 *match_p, *sse_p, *apm_row[2], *apm_p[2];

    const struct mixer_tables *tables;
    u32 n_sets, with_model;
    i32 rate;
    u64 last8; /* the last bytes, newest lowest */
    u32 position, partial, node,
        bit_position; /* partial: 1, then this byte's bits; node: this nibble's */
    u32 word, previous_word, field, line_start, line_above;
    u32 record, record_votes;
    u32 match_at, match_length, match_misses, match_bucket, match_row;
    u32 expected; /* 256 | the byte that the match predicts; 0: no match */
    u8 *history, *lines;
    u32 *match_table;
    u32 history_mask, match_bits, n_lines;
    struct sound *sound; /* MEGABYTE_CONTENTS_MULAW; else NULL */
    u32 streams; /* sound beside the model, since file version 5: how many; else 0 */
    int is_sparing; /* ... since 6: what says nothing of such sound selects nothing */
    i16 by_stream[MOST_ENSEMBLE]; /* what each says, stretched */
    struct pcm *pcm; /* MEGABYTE_CONTENTS_PCM8 ...; else NULL */
    struct mixer_context context[N_CONTEXTS];
    u32 weights_used[(N_WEIGHTS + 31) / 32]; /* a bit each */

    /* What is learned. Rows of the first three lie in one line of the cache each. */
    _Alignas(64) i16 weights[N_WEIGHTS][N_INPUTS]; /* 16384 = 1.0 */
    i32 final_weights[256][8]; /* 2^28 = 1.0 */
    u32 map[N_STATES][16]; /* [history][context]: probability */
    u32 sse[N_STATES][N_BUCKETS];
    u32 apm[2][1024][N_BUCKETS];
    u32 match_map[32 * 4], last_seen[256], last_gap[256];
};

/* The tables begin here, so that their sizes don't depend on that of a pointer. */
#define MIXER_STATE (448u << 10)
_Static_assert(sizeof(struct mixer) <= MIXER_STATE, "the mixer's state has outgrown its place");

/* ---- arithmetic */

static u32 log2_floor(u32 x) {
    u32 n = 0;
    for (u32 k = 16; k; k >>= 1)
        if (x >> k) {
            x >>= k;
            n += k;
        }
    return n;
}

/* log2(p) in 1/4096 for 0 < p < 2^22; table of log2(1 + i/256), linear between */
static i32 log2_fixed(const struct mixer_tables *t, u32 p) {
    u32 n = log2_floor(p), f = p << (PROBABILITY_BITS - n) & (PROBABILITY_ONE - 1), i = f >> 14,
        r = f & 0x3fff;
    return (i32)((n << 12) + ((t->log[i] * (0x4000 - r) + t->log[i + 1] * r) >> 14));
}

/* ln(p / (1 - p)) in 1/128: within +-1952. 1420 = ln 2 * 128 / 4096 * 65536 */
static i32 stretch(const struct mixer_tables *t, u32 p) {
    return ((log2_fixed(t, p) - log2_fixed(t, PROBABILITY_ONE - p)) * 1420 + 32768) >> 16;
}

/* ln(p / (1 - p)) in 1/2048. 22713 = ln 2 * 2048 / 4096 * 65536 */
static i32 stretch_finely(const struct mixer_tables *t, u32 p) {
    return (i32)(((i64)(log2_fixed(t, p) - log2_fixed(t, PROBABILITY_ONE - p)) * 22713 + 32768) >>
                 16);
}

/* 1 / (1 + e^-x), x in 1/4096, |x| <= X_MAX; the result lies in 1 .. 2^22 - 1 */
static u32 squash(const struct mixer_tables *t, i32 x) {
    u32 u = (u32)(x + X_MAX + 1), i = u >> 8, f = u & 255;
    return (t->squash[i] * (256 - f) + t->squash[i + 1] * f) >> 8;
}

static i32 clamp(i32 x, i32 limit) { return x > limit ? limit : x < -limit ? -limit : x; }

/* The geometric mean of n predictions of a bit, those of 0 and of 1 brought to the sum 1 again: the
 * mean of the stretched ones. */
static u32 geometric_mean(const struct mixer_tables *t, const u32 *p, u32 n) {
    i32 sum = 0;
    for (u32 i = 0; i < n; i++) sum += stretch_finely(t, p[i]);
    return squash(t, clamp(2 * sum / (i32)n, X_MAX));
}

/* Moves an adaptive probability by 1 / (count + 1.5) of the error; the count stops at the limit. */
static void adapt(const struct mixer *m, u32 *p, u32 bit, u32 limit) {
    u32 v = *p, n = v & 1023;
    i32 step =
        (i32)((i64)((i32)(bit << PROBABILITY_BITS) - (i32)(v >> 10)) * m->tables->reciprocal[n] >>
              16);
    *p = v + ((u32)step << 10) + (n < limit);
}

/* ---- tables */

/* Bit histories: all pairs of counts (n0, n1) within most[], each with the bit that came last;
 * state 0 has seen nothing, and states are numbered by n0 + n1. A bit adds to its own count and
 * cuts the other one down if that is above 2, since what came lately says more; a pair outside the
 * bounds is moved back in. */
static void make_states(struct mixer_tables *t) {
    static const u8 most[5] = {41, 20, 12, 7, 5}; /* of the larger count, by the smaller */
    u8 zeros[N_STATES], ones[N_STATES], number[48][48][2];
    u32 n = 0;
    memset(number, 0, sizeof number);
    for (u32 total = 0; total < 48; total++)
        for (u32 n1 = 0; n1 <= total; n1++)
            for (u32 last = 0; last < 2; last++) {
                u32 n0 = total - n1, low = n0 < n1 ? n0 : n1;
                if (low > 4 || total - low > most[low] || (total ? !(last ? n1 : n0) : last))
                    continue;
                zeros[n] = (u8)n0;
                ones[n] = (u8)n1;
                number[n0][n1][last] = (u8)n++; /* 226 in all */
            }
    for (u32 s = 0; s < n; s++) {
        for (u32 bit = 0; bit < 2; bit++) {
            u32 c[2] = {zeros[s], ones[s]}, o = c[!bit];
            c[bit]++;
            c[!bit] = o > 25 ? 7 : o > 14 ? 6 : o > 9 ? 5 : o > 5 ? 4 : o > 3 ? 3 : o > 2 ? 2 : o;
            for (;;) {
                u32 low = c[0] < c[1] ? c[0] : c[1], high = c[0] + c[1] - low;
                if (low <= 4 && high <= most[low]) break;
                c[c[0] <= c[1]]--;
            }
            t->next_state[s][bit] = number[c[0]][c[1]][bit];
        }
        u32 p = (ones[s] * 5u + 2) * (u32)PROBABILITY_ONE / ((zeros[s] + ones[s]) * 5u + 4);
        t->first_map[s] = p << 10 | 2;
    }
}

static void make_tables(struct mixer_tables *t, struct mix_kernels kernels) {
    memset(t, 0, sizeof *t);
    t->kernels = kernels;
    u64 e = (u64)1 << 32; /* e^-x in 1/2^32, x = i / 16 */
    for (u32 i = 0; i <= 256; i++) {
        u32 p = (u32)(((u64)1 << (PROBABILITY_BITS + 32)) / (((u64)1 << 32) + e));
        if (p > PROBABILITY_ONE - 1) p = PROBABILITY_ONE - 1;
        t->squash[256 + i] = p;
        t->squash[256 - i] = PROBABILITY_ONE - p;
        e = e * 4034750032u >> 32; /* e^(-1/16) */
    }
    for (u32 i = 0; i < 256;
         i++) { /* squaring doubles the logarithm: each carry past 2 is its next bit */
        u64 v = (u64)(256 + i) << 22;
        u32 bits = 0;
        for (u32 k = 0; k < 12; k++) {
            v = v * v >> 30;
            bits = bits << 1 | (u32)(v >> 31);
            v >>= v >> 31;
        }
        t->log[i] = (u16)bits;
    }
    t->log[256] = 4096;
    for (i32 i = 0; i < 4096; i++)
        t->pair[i] = (struct mixer_pair){(i16)stretch(t, (u32)i * 1024 + 512),
                                         (i16)((i - 2048) >> 2)};
    for (u32 i = 0; i < 1024; i++) t->reciprocal[i] = (u16)(131072 / (2 * i + 3));
    make_states(t);
}

/* ---- least squares */

/* Which weighted sum of n values x predicts y? a and b hold the sums of x x^T and x y, to which
 * earlier samples add less and less. In double: + - * / and square roots in a fixed order. */

static double weighted_sum(const double *weight, const double *x, u32 n) {
    double sum = 0;
    for (u32 i = 0; i < n; i++) {
        double product = weight[i] * x[i];
        ROUNDED(product);
        sum += product;
    }
    return sum;
}

/* x has become y. a: [n][stride], its lower half; xw: x times the sample's own weight. */
static void add_sample(double *a, u32 stride, double *b, const double *x, const double *xw, u32 n,
                       double y, double keep) {
    for (u32 i = 0; i < n; i++) {
        double *row = a + i * stride, w = xw[i];
        for (u32 j = 0; j <= i; j++) {
            double product = w * x[j], kept = row[j] * keep;
            ROUNDED(product);
            ROUNDED(kept);
            row[j] = kept + product;
        }
        double product = w * y, kept = b[i] * keep;
        ROUNDED(product);
        ROUNDED(kept);
        b[i] = kept + product;
    }
}

/* x - f y */
static double less_product(double x, double f, double y) {
    double product = f * y;
    ROUNDED(product);
    return x - product;
}

/* Solves (a + d) weight = b, d_ii = ridge + growth i^2, by Cholesky's decomposition a + d = l l^T;
 * keeps the weights where that is not positive. l^T is put into a's upper half, its diagonal into
 * `diagonal`; z: room for n. */
static void solve_squares(double *a, u32 stride, const double *b, u32 n, double ridge,
                          double growth, double *diagonal, double *z, double *weight) {
    for (u32 j = 0; j < n; j++) {
        double *row = a + j * stride, d = row[j] + (ridge + growth * j * j);
        const double *y = a;
        u32 k = 0;
        for (u32 i = j + 1; i < n; i++) row[i] = a[i * stride + j];
        for (; k + 4 <= j; k += 4, y += 4 * stride) { /* four at a time, in the same order */
            const double *y1 = y + stride, *y2 = y1 + stride, *y3 = y2 + stride;
            double f = y[j], f1 = y1[j], f2 = y2[j], f3 = y3[j];
            for (u32 i = j + 1; i < n; i++) {
                double x = less_product(less_product(row[i], f, y[i]), f1, y1[i]);
                row[i] = less_product(less_product(x, f2, y2[i]), f3, y3[i]);
            }
            d = less_product(less_product(d, f, f), f1, f1);
            d = less_product(less_product(d, f2, f2), f3, f3);
        }
        for (; k < j; k++, y += stride) {
            for (u32 i = j + 1; i < n; i++) row[i] = less_product(row[i], y[j], y[i]);
            d = less_product(d, y[j], y[j]);
        }
        if (!(d > 1e-9)) return;
        diagonal[j] = sqrt(d);
        for (u32 i = j + 1; i < n; i++) row[i] /= diagonal[j];
    }
    for (u32 i = 0; i < n; i++) {
        double s = b[i];
        for (u32 k = 0; k < i; k++) s = less_product(s, a[k * stride + i], z[k]);
        z[i] = s / diagonal[i];
    }
    for (u32 i = n; i--;) {
        double s = z[i];
        for (u32 k = i + 1; k < n; k++) s = less_product(s, a[i * stride + k], weight[k]);
        weight[i] = s / diagonal[i];
    }
}

/* x in units of 1/unit, to the nearest integer within +-limit; -limit if it is NaN. */
static i32 to_fixed(double x, i32 unit, i32 limit) {
    x *= unit;
    if (!(x > -limit)) return -limit;
    return x < limit ? (i32)(x + (x < 0 ? -0.5 : 0.5)) : limit;
}

/* ---- contexts: once a byte */

static u64 context_key(u32 number, u64 value) {
    return (value + 1) * 0xd6e8feb86659fd93u + number * 0x9fb21c651e98df25u;
}

static void byte_contexts(struct mixer *m) {
    static const u8 order[N_ORDERS] = {0, 1, 2, 3, 4, 6};
    u64 c = m->last8;
    u32 c1 = (u32)c & 255, pos = m->position, mask = m->history_mask;
    const u8 *h = m->history;

    for (u32 i = 0; i < N_ORDERS; i++)
        m->context[i].key = context_key(i, c & (((u64)1 << 8 * order[i]) - 1));

    /* words: letters, any case, and all bytes of UTF-8 sequences */
    if (((c1 | 32) >= 'a' && (c1 | 32) <= 'z') || c1 >= 128)
        m->word = (m->word + (c1 | 32) + 1) * 0x2f0b4c47u;
    else if (m->word) {
        m->previous_word = m->word;
        m->word = 0;
    }
    m->context[C_WORD].key = context_key(C_WORD, (u64)m->word << 8 | c1);
    u64 words = ((u64)m->previous_word << 32 | m->word) * 0x9e3779b97f4a7c15u;
    m->context[C_WORDS].key = context_key(C_WORDS, words + c1);

    /* lines: the column with the byte above it; fields: the field's number in the line, its bytes
     * so far */
    if (c1 == '\n') {
        m->line_above = m->line_start;
        m->line_start = pos;
        m->field = 0;
    } else if (c1 == ',' || c1 == '\t' || c1 == ';' || c1 == '|')
        m->field = (m->field | 0xffffff) + 1;
    else m->field = (m->field & 0xff000000) | ((m->field + c1 + 1) * 0x2f0b4c47u & 0xffffff);
    u32 column = pos - m->line_start, above = m->line_above + column;
    above = above < m->line_start ? h[above & mask] : 0;
    m->context[C_COLUMN].key = context_key(C_COLUMN, (column < 255 ? column : 255) << 8 | above);
    m->context[C_FIELD].key = context_key(C_FIELD, m->field);

    /* records: a gap that two pairs of equal bytes agree on, again and again, is consumed for their
     * length */
    u32 gap = pos - m->last_seen[c1];
    if (gap == m->last_gap[c1] && gap > 1 && m->last_seen[c1] > gap) {
        if (gap == m->record) m->record_votes += m->record_votes < 1000;
        else if (m->record_votes > 4) m->record_votes -= 1 + m->record_votes / 8;
        else {
            m->record = gap;
            m->record_votes = 1;
        }
    }
    m->last_gap[c1] = gap;
    m->last_seen[c1] = pos;
    u32 r = m->record && m->record < pos ? m->record : 1;
    u32 above2 = (u32)h[(pos - r) & mask] << 8 | h[(pos - 2 * r) & mask];
    m->context[C_RECORD].key = context_key(C_RECORD, (u64)r << 16 | above2);
    m->context[C_SPARSE].key = context_key(C_SPARSE, c & 0xffff00);

    u32 length = m->match_length < 15 ? m->match_length : 15;
    m->context[C_EXPECTED].key = context_key(C_EXPECTED, m->expected << 16 | length << 8 | c1);
}

/* ---- sound: mu-law samples, predicted on a linear scale */

/* MEGABYTE_CONTENTS_MULAW: three experts predict the next sample from the last 16, 32 and 60 by
 * least squares, in which what lies 50 and 100 samples back counts little already: voices change
 * fast. Loud samples count less, since they are off by more; so do distant ones, by a ridge. Each
 * expert's prediction, with the error it lately had as a scale, is a logistic distribution of the
 * sample, and so a probability of every decision on the way to its code, which halves the codes
 * that are left. The mixer has them in place of its last contexts. */
enum {
    EXPERTS = 3,
    MORE_EXPERTS = 6, /* beside the model, since file version 5 */
    MOST_LAGS = 60,
    SQUARES = 16 * 16 + 32 * 32 + 60 * 60,
    MORE_SQUARES = 8 * 8 + 12 * 12 + 16 * 16 + 20 * 20 + 24 * 24 + 32 * 32,
    LOUDEST = 8031
};
static const struct {
    u32 lags, every, at; /* solved after every so many samples; the sums' place in `squares` */
    double keep; /* of the sums, a sample later */
} expert_shapes[EXPERTS + MORE_EXPERTS] = {
    {16, 1, 0, 0.98},
    {32, 4, 16 * 16, 0.99},
    {60, 8, 16 * 16 + 32 * 32, 0.99},
    {8, 1, SQUARES, 0.95},
    {12, 1, SQUARES + 8 * 8, 0.965},
    {16, 2, SQUARES + 8 * 8 + 12 * 12, 0.998},
    {20, 2, SQUARES + 8 * 8 + 12 * 12 + 16 * 16, 0.9995},
    {24, 2, SQUARES + 8 * 8 + 12 * 12 + 16 * 16 + 20 * 20, 0.975},
    {32, 4, SQUARES + 8 * 8 + 12 * 12 + 16 * 16 + 20 * 20 + 24 * 24, 0.998}};
_Static_assert(SQUARES == 16 * 16 + 32 * 32 + MOST_LAGS * MOST_LAGS &&
                   MOST_ENSEMBLE + MORE_EXPERTS == C_RECORD && C_RECORD + EXPERTS == N_CONTEXTS,
               "the sums' places, and those among the mixer's inputs");

struct expert {
    double b[MOST_LAGS], weight[MOST_LAGS];
    i32 guess; /* in 1/16 */
    u32 error[2]; /* how far off it was, running means over 16 and 128 samples, in 1/4096 */
    u32 inverse[2]; /* 2^36 / the distribution's scale, by either */
    u32 low[2], middle[2], high[2]; /* P(sample < the ends and the middle of what is left), 2^-22 */
};

struct sound {
    double sample[MOST_LAGS]; /* newest first */
    double first_squares[SQUARES], weighed[MOST_LAGS], diagonal[MOST_LAGS], z[MOST_LAGS];
    struct expert first_expert[EXPERTS];
    u32 loud, apart; /* classes: of the first expert's error, of how much the others differ */
    u32 samples, experts;
    /* if there are more: */
    double more_squares[MORE_SQUARES];
    struct expert more_expert[MORE_EXPERTS];
};

static struct expert *sound_expert(struct sound *s, u32 k) {
    return k < EXPERTS ? &s->first_expert[k] : &s->more_expert[k - EXPERTS];
}
static double *sound_squares(struct sound *s, u32 k) {
    u32 at = expert_shapes[k].at;
    return k < EXPERTS ? s->first_squares + at : s->more_squares + (at - SQUARES);
}

/* What it takes: the same as ever where there are no more experts, since the memory after it is for
 * histories. */
static u64 sound_bytes(u32 experts) {
    return round_up(experts > EXPERTS ? sizeof(struct sound) : offsetof(struct sound, more_squares),
                    64);
}

/* Of codes 255 - size (0 and above) and 127 - size (0 and below): the least |sample| that has it;
 * and the code's own. */
static i32 mulaw_edge(u32 size) {
    return size ? (i32)(2 * (size & 15) + 32) * (1 << (size >> 4)) - 33 : 0;
}
static i32 mulaw_sample(u32 code) {
    u32 size = ~code & 127;
    i32 value = (i32)(2 * (size & 15) + 33) * (1 << (size >> 4)) - 33;
    return code & 128 ? value : -value;
}

/* The code of x/16. */
static u32 mulaw_code(i32 x) {
    u32 size = (u32)(x < 0 ? -x : x) / 16 + 33;
    if (size > LOUDEST + 160) size = LOUDEST + 160;
    u32 exponent = log2_floor(size) - 5;
    return 255 - ((x < 0 ? 128u : 0) | exponent << 4 | (size >> (exponent + 1) & 15));
}

/* Two classes an octave, 0 .. 31; x in 1/4096. */
static u32 loudness_class(u32 x) {
    u32 octave = log2_floor(x | 1024);
    return min32(2 * (octave - 10) + (x >> (octave - 1) & 1), 31);
}

static void expert_learn(struct sound *s, u32 k, i32 sample, double weight) {
    struct expert *e = sound_expert(s, k);
    u32 n = expert_shapes[k].lags, off = (u32)(sample * 16 - e->guess);
    double *a = sound_squares(s, k);
    if (off >> 31) off = 0u - off;
    for (u32 i = 0; i < n; i++) s->weighed[i] = s->sample[i] * weight;
    add_sample(a, n, e->b, s->sample, s->weighed, n, sample, expert_shapes[k].keep);
    if (s->samples % expert_shapes[k].every == 0)
        solve_squares(a, n, e->b, n, 0.25, 0.25, s->diagonal, s->z, e->weight);
    for (u32 i = 0, shift = 4; i < 2; i++, shift += 3)
        e->error[i] += (off << 8 >> shift) - (e->error[i] >> shift);
}

static void sound_learn(struct sound *s, i32 sample) {
    double scale = s->first_expert[0].error[0] / 4096.0 + 1, weight = 1 / (scale * sqrt(scale));
    s->samples++;
    for (u32 k = 0; k < s->experts; k++) expert_learn(s, k, sample, weight);
    memmove(s->sample + 1, s->sample, sizeof s->sample - sizeof *s->sample);
    s->sample[0] = sample;
}

/* Before a sample's first decision. */
static void sound_predict(struct sound *s) {
    for (u32 k = 0; k < s->experts; k++) {
        struct expert *e = sound_expert(s, k);
        e->guess = to_fixed(weighted_sum(e->weight, s->sample, expert_shapes[k].lags), 16,
                            16 * (LOUDEST + 100));
        for (u32 i = 0; i < 2; i++) {
            e->inverse[i] = (u32)(((u64)1 << 36) / ((e->error[i] * 9 >> 4) + 1229));
            e->low[i] = 0;
            e->high[i] = PROBABILITY_ONE;
        }
    }
    i32 d = s->first_expert[1].guess - s->first_expert[2].guess;
    s->loud = loudness_class(s->first_expert[0].error[0]);
    u32 apart = loudness_class((u32)(d < 0 ? -d : d) << 8) + 16;
    apart = apart > s->loud ? apart - s->loud : 0;
    s->apart = min32(apart, 31);
}

/* The decision halves the codes that are left: P(1) by each expert, stretched, to
 * x[0 .. EXPERTS - 1] and more[0 .. MORE_EXPERTS - 1]. */
static void sound_inputs(struct sound *s, const struct mixer_tables *t, u32 partial, u32 position,
                         struct mixer_pair *x, struct mixer_pair *more) {
    u32 code = (partial << 1 | 1) << (7 - position) & 255; /* the upper half's first */
    i32 edge = position ? mulaw_edge(128 - (code & 127)) * 16 : 0;
    int falls = position && code >= 128; /* larger codes are smaller samples */
    if (position && code < 128) edge = -edge;
    for (u32 k = 0; k < s->experts; k++) {
        struct expert *e = sound_expert(s, k);
        i16 in[2];
        for (u32 i = 0; i < 2; i++) {
            i64 at = (i64)(edge - e->guess) * e->inverse[i] / 65536;
            u32 m = squash(t, at > X_MAX ? X_MAX : at < -X_MAX ? -X_MAX : (i32)at);
            m = m < e->low[i] ? e->low[i] : min32(m, e->high[i]);
            u32 ones = falls ? m - e->low[i] : e->high[i] - m, all = e->high[i] - e->low[i];
            u32 p = (u32)(((u64)(ones + 1) << PROBABILITY_BITS) / (all + 2));
            e->middle[i] = m;
            in[i] = (i16)stretch(t, p ? p : 1);
        }
        if (k < EXPERTS) x[k] = (struct mixer_pair){in[0], in[1]};
        else more[k - EXPERTS] = (struct mixer_pair){in[0], in[1]};
    }
}

static void sound_decided(struct sound *s, u32 partial, u32 position, u32 bit) {
    u32 first = partial << (8 - position) & 255;
    u32 upper = position && first >= 128 ? !bit : bit;
    for (u32 k = 0; k < s->experts; k++)
        for (u32 i = 0; i < 2; i++) {
            struct expert *e = sound_expert(s, k);
            if (upper) e->low[i] = e->middle[i];
            else e->high[i] = e->middle[i];
        }
}

static void sound_contexts(struct mixer *m) {
    struct sound *s = m->sound;
    u32 c1 = (u32)m->last8 & 255, c2 = (u32)m->last8 >> 8 & 255, c3 = (u32)m->last8 >> 16 & 255;
    if (m->position) sound_learn(s, mulaw_sample(c1));
    sound_predict(s);
    i32 g[EXPERTS], mean = 0;
    for (u32 k = 0; k < EXPERTS; k++) mean += (g[k] = s->first_expert[k].guess);
    u32 fast = mulaw_code(g[0]), slow = mulaw_code(g[1]), longest = mulaw_code(g[2]),
        middle = mulaw_code(mean / 3), loud = s->loud;
    u64 value[N_CONTEXTS] = {middle,
                             c1 << 8 | loud,
                             longest << 8 | loud,
                             c1 << 8 | c2,
                             fast << 8 | slow,
                             (c1 >> 2) << 16 | (c2 >> 2) << 8 | c3 >> 3,
                             middle << 8 | s->apart,
                             middle << 8 | c1 >> 3,
                             longest << 8 | fast,
                             loud << 8 | (c1 >> 4) << 4 | c2 >> 4};
    for (u32 i = 0; i < N_CONTEXTS; i++) m->context[i].key = context_key(i, value[i]);
}

/* ---- sound: linear samples of several channels */

/* MEGABYTE_CONTENTS_PCM8 ...: a sample's decisions come with the most significant first, so that
 * each halves the range in which the sample lies. Three experts predict it by least squares from
 * the last 12, 24 and 48 samples, a third of them those of the channel before (of the same time,
 * too: that channel comes first); what the third is off by, a cascade of three adaptive filters
 * predicts from what it was off by before (normalized least mean squares). As with mu-law, each
 * prediction, with the error it lately had, is a logistic distribution and so a probability of
 * every decision; the mixer has them in place of four contexts and the model. */
enum {
    PCM_SHAPES = 3,
    PCM_LAGS = 48, /* the most */
    PCM_SQUARES = 12 * 12 + 24 * 24 + 48 * 48,
    PCM_STAGES = 3,
    PCM_TAPS = 256 + 32 + 16,
    PCM_EXPERTS = 5, /* least squares; the third and the cascade; the mean of that and the second */
    PCM_CASCADE = 3,
    PCM_SCALES = 2
};
static const struct {
    u32 lags, every, at; /* solved after every so many samples; the sums' place in `squares` */
    double keep; /* of the sums, a sample later */
} pcm_shapes[PCM_SHAPES] = {
    {12, 2, 0, 0.98}, {24, 4, 12 * 12, 0.997}, {48, 16, 12 * 12 + 24 * 24, 0.9993}};
static const struct {
    u32 taps, at;
    double rate;
} pcm_stages[PCM_STAGES] = {{256, 0, 0.0005}, {32, 256, 0.002}, {16, 256 + 32, 0.004}};

static const struct pcm_format {
    u32 bytes; /* of a sample; 0: other contents */
    u32 is_signed, is_big;
} pcm_formats[MEGABYTE_CONTENTS_COUNT] = {[MEGABYTE_CONTENTS_PCM8] = {1, 0, 0},
                                          [MEGABYTE_CONTENTS_PCM16] = {2, 1, 0},
                                          [MEGABYTE_CONTENTS_PCM24] = {3, 1, 0},
                                          [MEGABYTE_CONTENTS_PCM16_BIG] = {2, 1, 1},
                                          [MEGABYTE_CONTENTS_PCM24_BIG] = {3, 1, 1}};

static struct pcm_format pcm_format_of(megabyte_contents contents) {
    return pcm_formats[(u32)contents < MEGABYTE_CONTENTS_COUNT ? contents : 0];
}
static int is_pcm(megabyte_contents contents) { return pcm_format_of(contents).bytes != 0; }

/* The i-th byte to be coded of a block of n bytes: where it lies in the block, and the bit to be
 * turned around in it, so that larger bytes are larger samples. What is left of a sample at the
 * block's end stays as it is. */
static u32 pcm_place(const struct pcm_format *f, u32 n, u32 i) {
    u32 last = f->bytes > 1 ? f->bytes - 1 : 0, in = last ? i % f->bytes : 0;
    return !last || f->is_big || n - (i - in) < f->bytes ? i : i - in + (last - in);
}
static u8 pcm_flip(const struct pcm_format *f, u32 i) {
    return f->is_signed && i % f->bytes == 0 ? 128 : 0;
}

/* A prediction on the way from a sample's first decision to its last. */
struct pcm_expert {
    i32 guess; /* in 1/16 */
    u32 inverse[PCM_SCALES]; /* 2^44 / the distribution's scale, by either error */
    u32 low[PCM_SCALES], middle[PCM_SCALES], high[PCM_SCALES]; /* as in struct expert */
};

struct pcm_channel {
    double sample[PCM_LAGS]; /* newest first */
    double squares[PCM_SQUARES], b[PCM_SHAPES][PCM_LAGS], weight[PCM_SHAPES][PCM_LAGS];
    /* of the cascade's stages: [taps], and twice as many to move about in */
    double tap_weight[PCM_TAPS], taps[2 * PCM_TAPS], power[PCM_STAGES];
    u32 newest[PCM_STAGES]; /* in `taps` */
    /* how far off the experts were, running means over 16 and 128 samples, in 2^-20 */
    u64 error[PCM_EXPERTS][PCM_SCALES];
    i32 off; /* the last sample's, of the cascade, in 1/16 */
    u32 samples;
};

struct pcm {
    struct pcm_format format;
    u32 channels, channel; /* whose sample is next or begun, */
    u32 bits, value; /* how many of its bits are known, and they */
    /* classes: of the cascade's error; of how far it is from the first expert; of the bits that
     * are left, against that error */
    u32 octave, apart, relative;
    struct mixer_pair input[PCM_EXPERTS];
    struct pcm_expert expert[PCM_EXPERTS];
    double x[PCM_SHAPES][PCM_LAGS], guess[PCM_SHAPES + PCM_STAGES]; /* what predicts, and what */
    double diagonal[PCM_LAGS], z[PCM_LAGS];
    struct pcm_channel of[MEGABYTE_CHANNELS_MAX]; /* as many as there are have memory */
};

static u64 pcm_bytes(u32 channels) {
    return round_up(offsetof(struct pcm, of) + channels * sizeof(struct pcm_channel), 64);
}

/* A mixer of 1 MB has room for as many channels as there may be. */
_Static_assert(MIXER_STATE + (1 << 17) + (4 << 14) + sizeof(struct pcm) <= 1040000, "too large");

static void pcm_reset(struct pcm *p, megabyte_contents contents, u32 channels) {
    p->format = pcm_format_of(contents);
    p->channels = channels;
    for (u32 c = 0; c < channels; c++)
        for (u32 k = 0; k < PCM_STAGES; k++) p->of[c].newest[k] = pcm_stages[k].taps;
}

/* weighted_sum in four parts, for n a multiple of four */
static double tap_sum(const double *w, const double *x, u32 n) {
    double sum[4] = {0, 0, 0, 0};
    for (u32 i = 0; i < n; i += 4)
        for (u32 k = 0; k < 4; k++) {
            double product = w[i + k] * x[i + k];
            ROUNDED(product);
            sum[k] += product;
        }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* Each stage predicts what is left from what was left to it before. left: by least squares */
static void taps_learn(struct pcm_channel *c, const double *guess, double left) {
    for (u32 k = 0; k < PCM_STAGES; k++) {
        u32 n = pcm_stages[k].taps;
        double *w = c->tap_weight + pcm_stages[k].at, *all = c->taps + 2 * pcm_stages[k].at,
               *x = all + c->newest[k];
        double error = left - guess[k], step = pcm_stages[k].rate * error / (c->power[k] / n + 1);
        for (u32 i = 0; i < n; i++) {
            double product = step * x[i];
            ROUNDED(product);
            w[i] += product;
        }
        double in = left * left, out = x[n - 1] * x[n - 1];
        ROUNDED(in);
        ROUNDED(out);
        double power = c->power[k] + (in - out);
        c->power[k] = power > 0 ? power : 0;
        if (!c->newest[k]) {
            memcpy(all + n, all, (n - 1) * sizeof *all);
            c->newest[k] = n;
        }
        all[--c->newest[k]] = left;
        left = error;
    }
}

/* Sums that have faded away become 0: arithmetic is slow among the smallest numbers there are. */
static void forget(double *sum, u32 n) {
    for (u32 i = 0; i < n; i++)
        if (sum[i] < 1e-30 && sum[i] > -1e-30) sum[i] = 0;
}

static void pcm_learn(struct pcm *p, i32 sample) {
    struct pcm_channel *c = &p->of[p->channel];
    c->samples++;
    for (u32 k = 0; k < PCM_EXPERTS; k++) {
        i32 d = sample * 16 - p->expert[k].guess;
        u64 off = (u64)(d < 0 ? -d : d) << 16;
        if (k == PCM_CASCADE) c->off = d;
        for (u32 i = 0, shift = 4; i < PCM_SCALES; i++, shift += 3)
            c->error[k][i] += (off >> shift) - (c->error[k][i] >> shift);
    }
    for (u32 k = 0; k < PCM_SHAPES; k++) {
        u32 n = pcm_shapes[k].lags;
        double *a = c->squares + pcm_shapes[k].at;
        add_sample(a, n, c->b[k], p->x[k], p->x[k], n, sample, pcm_shapes[k].keep);
        if (c->samples % pcm_shapes[k].every) continue;
        solve_squares(a, n, c->b[k], n, 1, 0, p->diagonal, p->z, c->weight[k]);
        if (c->samples % 4096) continue;
        forget(a, n * n);
        forget(c->b[k], n);
    }
    taps_learn(c, p->guess + PCM_SHAPES, sample - p->guess[PCM_SHAPES - 1]);
    memmove(c->sample + 1, c->sample, sizeof c->sample - sizeof *c->sample);
    c->sample[0] = sample;
}

/* 0 .. 24, for errors of 1/16 and less, of up to 1/8 ... */
static u32 octave_of(u64 error) {
    u32 e = (u32)(error >> 16);
    return e ? min32(log2_floor(e) + 1, 24) : 0;
}

/* Before a sample's first decision. */
static void pcm_predict(struct pcm *p) {
    struct pcm_channel *c = &p->of[p->channel];
    const double *other = p->of[p->channel ? p->channel - 1 : p->channels > 1].sample;
    double *g = p->guess, guess[PCM_EXPERTS];
    for (u32 k = 0; k < PCM_SHAPES; k++) {
        u32 n = pcm_shapes[k].lags, own = p->channels > 1 ? n - n / 3 : n;
        memcpy(p->x[k], c->sample, own * sizeof *other);
        memcpy(p->x[k] + own, other, (n - own) * sizeof *other);
        guess[k] = g[k] = weighted_sum(c->weight[k], p->x[k], n);
    }
    guess[PCM_CASCADE] = g[PCM_SHAPES - 1];
    for (u32 k = 0; k < PCM_STAGES; k++) {
        const double *x = c->taps + 2 * pcm_stages[k].at + c->newest[k];
        g[PCM_SHAPES + k] = tap_sum(c->tap_weight + pcm_stages[k].at, x, pcm_stages[k].taps);
        guess[PCM_CASCADE] += g[PCM_SHAPES + k];
    }
    guess[PCM_CASCADE + 1] = (guess[PCM_CASCADE] + guess[1]) / 2;
    for (u32 k = 0; k < PCM_EXPERTS; k++) {
        struct pcm_expert *e = &p->expert[k];
        e->guess = to_fixed(guess[k], 16, 16 << (8 * p->format.bytes - 1));
        for (u32 i = 0; i < PCM_SCALES; i++) {
            e->inverse[i] = (u32)(((u64)1 << 44) / ((c->error[k][i] * 9 >> 4) + 314573));
            e->low[i] = 0;
            e->high[i] = PROBABILITY_ONE;
        }
    }
    i32 d = p->expert[1].guess - p->expert[PCM_CASCADE].guess;
    p->octave = octave_of(c->error[PCM_CASCADE][0]);
    u32 apart = octave_of((u64)(d < 0 ? -d : d) << 16) + 4;
    p->apart = apart > p->octave ? min32(apart - p->octave, 7) : 0;
}

/* The decision halves the samples that are left: P(1) by each expert, stretched. */
static void pcm_inputs(struct pcm *p, const struct mixer_tables *t) {
    u32 width = 8 * p->format.bytes, left = width - p->bits;
    i32 upper = (i32)((p->value << 1 | 1) << (left - 1)) - (1 << (width - 1)); /* half's least */
    for (u32 k = 0; k < PCM_EXPERTS; k++) {
        struct pcm_expert *e = &p->expert[k];
        i16 in[PCM_SCALES];
        for (u32 i = 0; i < PCM_SCALES; i++) {
            i64 at = (i64)(upper * 16 - 8 - e->guess) * e->inverse[i] / 65536;
            u32 m = squash(t, at > X_MAX ? X_MAX : at < -X_MAX ? -X_MAX : (i32)at);
            m = m < e->low[i] ? e->low[i] : min32(m, e->high[i]);
            e->middle[i] = m;
            i32 odds = log2_fixed(t, e->high[i] - m + 1) - log2_fixed(t, m - e->low[i] + 1);
            in[i] = (i16)((odds * 1420 + 32768) >> 16); /* as in `stretch` */
        }
        p->input[k] = (struct mixer_pair){in[0], in[1]};
    }
    u32 relative = left + 8 > p->octave ? left + 8 - p->octave : 0;
    p->relative = min32(relative, 15);
}

static void pcm_decided(struct pcm *p, u32 bit) {
    for (u32 k = 0; k < PCM_EXPERTS; k++)
        for (u32 i = 0; i < PCM_SCALES; i++) {
            struct pcm_expert *e = &p->expert[k];
            if (bit) e->low[i] = e->middle[i];
            else e->high[i] = e->middle[i];
        }
    p->value = p->value << 1 | bit;
    p->bits++;
}

/* What the contexts are: the bits that are known (a histogram: many files do not have all values),
 * where the experts guess the sample to be from there on, and what the last samples were. */
static void pcm_contexts(struct mixer *m) {
    struct pcm *p = m->pcm;
    u32 width = 8 * p->format.bytes;
    if (p->bits == width) {
        pcm_learn(p, (i32)p->value - (1 << (width - 1)));
        p->channel = p->channel + 1 < p->channels ? p->channel + 1 : 0;
        p->bits = p->value = 0;
    }
    if (p->bits == 0) pcm_predict(p);
    const struct pcm_channel *c = &p->of[p->channel];
    u32 left = width - p->bits, fine = p->octave < 9 ? 0 : min32(p->octave - 9, 5);
    i32 base = (i32)(p->value << left) - (1 << (width - 1));
    u64 g[PCM_CASCADE + 1], v = p->value; /* guesses in steps that go with the error */
    for (u32 k = 0; k <= PCM_CASCADE; k++) {
        i32 d = (p->expert[k].guess >> 4) - base;
        d = left == 8 ? clamp(d - 128, 1023) : d >> (left - 12);
        g[k] = (u32)(d >> fine) + (1u << 31);
    }
    u64 last = (u64)(i64)c->sample[0] & 0xffffff, before = (u64)(i64)c->sample[1] & 0xffff;
    u32 off = (u32)(clamp(c->off >> (p->octave ? p->octave - 1 : 0), 31) + 32) >> 1;
    u64 value[N_CONTEXTS] = {v,
                             g[3],
                             g[3] >> 2 << 8 | p->octave,
                             v << 24 | last,
                             g[3] >> 1 << 32 | g[1] >> 1,
                             v << 32 | (last & 0xffff) << 16 | before,
                             g[3] >> 1 << 8 | p->apart,
                             g[3] >> 2 << 32 | off,
                             g[1] << 8 | p->octave};
    for (u32 i = 0; i < N_CONTEXTS; i++)
        m->context[i].key = context_key(i, (value[i] * 4 + p->bits / 8) * 8 + p->channel);
}

static void mixer_contexts(struct mixer *m) {
    if (m->pcm) pcm_contexts(m);
    else if (m->sound) sound_contexts(m);
    else byte_contexts(m);
}

/* Bit histories lie in slots of 16 bytes: a check byte and the 15 nodes of a nibble's bits. A line
 * of the cache holds four. A key names a line and the slot where the search starts; the second
 * nibble's slot is in the same 4 KB as the first's. */

static u32 nibble_hash(u32 partial) { return partial * 0x9e3779b1u; }
static u32 second_slot(u32 at, u32 nibble) {
    return at ^ (nibble >> 20 & 0xfc0) ^ (nibble >> 16 & 48);
}

/* The second nibble's, one bit before it is known: both that it may be. */
static void slots_ahead(const struct mixer *m) {
    u32 zero = nibble_hash(m->partial << 1), one = nibble_hash(m->partial << 1 | 1);
    for (u32 i = 0; i < N_CONTEXTS; i++) {
        PREFETCH(m->lines + second_slot(m->context[i].at, zero));
        PREFETCH(m->lines + second_slot(m->context[i].at, one));
    }
}

/* As soon as the key is known; the search comes when the next bit needs it. */
static void slots_prefetch(struct mixer *m) {
    u32 nibble = m->bit_position ? nibble_hash(m->partial) : 0;
    for (u32 i = 0; i < N_CONTEXTS; i++) {
        struct mixer_context *c = &m->context[i];
        if (nibble) {
            c->slot = m->lines + second_slot(c->at, nibble);
            c->check ^= nibble >> 8 & 255;
        } else {
            u64 k = (c->key ^ c->key >> 29) * 0x9e3779b97f4a7c15u;
            c->at = (u32)((k >> 32) * m->n_lines >> 32) * 64 + (u32)(k >> 16 & 48);
            c->check = (u32)(k >> 24 & 255);
            c->slot = m->lines + c->at;
        }
        PREFETCH(c->slot);
    }
}

static void slots_find(struct mixer *m) {
    for (u32 i = 0; i < N_CONTEXTS; i++) {
        struct mixer_context *c = &m->context[i];
        u8 *first = c->slot, *worst = first;
        if (*first == c->check) continue;
        u32 at = (u32)(first - m->lines), k = 16;
        for (; k < 64; k += 16) {
            u8 *s = m->lines + (at ^ k);
            if (*s == c->check) {
                worst = s;
                break;
            }
            if (s[1] < worst[1]) worst = s; /* its first node has seen the fewest bits */
        }
        c->slot = worst;
        if (k < 64) continue;
        memset(worst, 0, 16);
        *worst = (u8)c->check;
    }
}

/* ---- match model */

/* Follows the match, or looks for one: positions are found by the hash of the last 6 bytes, whose
 * line in the table is named by the first 5 of them and so fetched a byte ahead. A match that
 * failed goes on as a weak one (its length counts from 0 again) until a better is found: records
 * differ in a field and go on alike. */
static void match_find(struct mixer *m) {
    const u8 *h = m->history;
    u32 mask = m->history_mask, pos = m->position;
    u32 *entry = m->match_table + (m->match_row | (u32)(m->last8 & 255) * 0x9e3779b1u >> 28);
    m->match_row = (u32)((m->last8 & 0xffffffffff) * 0x9e3779b97f4a7c15u >> (64 - m->match_bits)) &
                   ~15u;
    PREFETCH(m->match_table + m->match_row);
    if (m->match_length | m->match_misses) m->match_at++;
    if (m->match_length && m->match_length < 65535) m->match_length++;
    if (m->match_length < 16 && *entry) {
        u32 found = *entry, n = 0;
        while (n < 400 && n < found && pos - found + n < mask &&
               h[(found - n - 1) & mask] == h[(pos - n - 1) & mask])
            n++;
        if (n >= MIN_MATCH && n > m->match_length) {
            m->match_at = found;
            m->match_length = n;
            m->match_misses = 0;
        }
    }
    *entry = pos;
    if (m->match_misses > 16 || pos - m->match_at > mask - 8) m->match_length = m->match_misses = 0;
    u32 n = m->match_length;
    m->match_bucket = n < 16    ? n
                      : n < 32  ? 12 + n / 4
                      : n < 64  ? 16 + n / 8
                      : n < 512 ? 18 + log2_floor(n)
                                : 27;
    m->expected = m->match_length | m->match_misses ? 256u | h[m->match_at & mask] : 0;
}

/* ---- setting up */

/* Contexts alone learn fast at first; beside the model, which is good already, slowly. */
static i32 mixer_rate(const struct mixer *m) {
    i32 n = (i32)(m->position < 65536 ? m->position : 65536);
    if (m->streams) return 12 + 20 * 4096 / (4096 + n);
    if (m->with_model && m->sound) return 6; /* it has little to learn */
    if (m->pcm) return 12 + 40 * 64 / (64 + n); /* most decisions are noise */
    return 24 + (m->with_model ? -16 : 40) * 64 / (64 + n);
}

static u64 mixer_bytes(u32 log2_memory) { return (u64)1 << log2_memory; }

/* What lies behind the mixer's state. */
static void mixer_layout(struct mixer *m, u32 log2_memory, megabyte_contents contents,
                         u32 channels) {
    u8 *at = (u8 *)m + MIXER_STATE, *end = (u8 *)m + mixer_bytes(log2_memory);
    m->history = at;
    m->history_mask = (1u << (log2_memory - 3)) - 1;
    at += (size_t)m->history_mask + 1;
    m->match_table = (void *)at;
    m->match_bits = log2_memory - 6;
    at += (size_t)4 << m->match_bits;
    if (contents == MEGABYTE_CONTENTS_MULAW) {
        m->sound = (void *)at;
        m->sound->experts = EXPERTS + (m->streams ? MORE_EXPERTS : 0);
        at += sound_bytes(m->sound->experts);
    }
    if (is_pcm(contents)) {
        m->pcm = (void *)at;
        pcm_reset(m->pcm, contents, channels);
        at += pcm_bytes(channels);
    }
    m->lines = at;
    m->n_lines = (u32)((size_t)(end - at) / 64) & ~63u;
}

/* m: mixer_bytes(log2_memory) bytes, aligned to 64; log2_memory 20 .. 28; streams: of the model, 0
 * without; version: of the file */
static void mixer_reset(struct mixer *m, const struct mixer_tables *tables, u32 log2_memory,
                        u32 streams, megabyte_contents contents, u32 channels, u32 version) {
    const int with_model = streams != 0;
    memset(m, 0, (size_t)mixer_bytes(log2_memory));
    m->streams = contents == MEGABYTE_CONTENTS_MULAW && version >= 5 ? streams : 0;
    m->is_sparing = m->streams && version >= 6;
    mixer_layout(m, log2_memory, contents, channels);
    m->tables = tables;
    for (u32 i = 0; i < N_STATES; i++)
        for (u32 k = 0; k < N_CONTEXTS; k++) m->map[i][k] = tables->first_map[i];
    for (u32 i = 0; i < 128; i++)
        m->match_map[i] = (PROBABILITY_ONE - PROBABILITY_ONE / ((i >> 2 & 15) + 3)) << 10 | 8;
    for (u32 k = 0; k < N_BUCKETS; k++) { /* maps of probabilities start as the identity */
        u32 p = squash(tables, clamp(((i32)k - 16) * 4096, X_MAX)) << 10;
        m->apm[0][0][k] = p | (with_model ? 20 : 6);
        m->sse[0][k] = p | 60;
    }
    for (u32 i = 1; i < 2 * 1024; i++)
        memcpy(m->apm[i / 1024][i % 1024], m->apm[0][0], sizeof m->apm[0][0]);
    for (u32 i = 1; i < N_STATES; i++) memcpy(m->sse[i], m->sse[0], sizeof m->sse[0]);
    m->with_model = (u32)with_model;
    m->n_sets = with_model || m->pcm ? N_SETS : N_SETS - 1;
    /* Starting weights, averages of what was learned on some thirty files (7/10 of the way back to
     * the model alone in the second row, so that short messages lose nothing). Row 0 hands them
     * on to new rows. */
    static const i16 start[6][N_INPUTS] = {
        {/* contexts alone */
         3336, -492, 2816, -1012, 3040, -297, 2703, -263, 2841, -157, 2982,
         -124, 3330, -327, 2649,  -622, 2901, -705, 2457, -621, 2766, -580,
         3046, -400, 3188, 2,     3003, 1,    0,    0,    0,    471},
        {/* with the model */
         92,  -107, 134, -157, 228, -36, 222, -9, 217, 5,  219, 19, 375,   48,   291,  45,
         183, -29,  135, -53,  127, -37, 284, 13, 251, 57, 132, 67, 13822, -218, 1561, 57},
        {/* sound, contexts alone */
         300, 0, 300, 0, 300,  0,    300,  0,    300,  0,    300, 0, 300, 0, 300, 0,
         300, 0, 300, 0, 2700, 2700, 2700, 2700, 2700, 2700, 300, 0, 0,   0, 0,   0},
        {/* sound, with the model */
         0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,     0, 0,    0,
         0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 14800, 0, 1584, 0},
        {/* linear samples */
         300, 0, 300,  0,    300,  0,    300,  0,    300,  0,    300, 0, 300,  0,    300, 0,
         300, 0, 1600, 1600, 1600, 1600, 1600, 1600, 1600, 1600, 300, 0, 1600, 1600, 0,   0},
        {/* sound, with the model, since file version 5 */
         0,    0,    0,    0,    0,   0,    0,     0,    150,  100,  -50,
         -15,  -350, -350, 0,    -50, -800, -650,  1000, 400,  -180, -200,
         -350, -700, 3700, 1200, 0,   100,  14200, -600, 1240, -180}};
    memcpy(m->weights[0],
           start[m->streams ? 5
                 : m->pcm   ? 4
                            : m->with_model + (m->sound ? 2 : 0)],
           sizeof start[0]);
    m->weights_used[0] = 1; /* row 0 */
    for (u32 i = 0; i < 256; i++)
        for (u32 k = 0; k < m->n_sets; k++) m->final_weights[i][k] = (1 << 28) / (i32)m->n_sets;
    m->rate = mixer_rate(m);
    m->partial = m->node = 1;
    mixer_contexts(m);
    slots_prefetch(m);
}

/* ---- each bit */

static u32 bucket(i32 x) { return (u32)(x + X_MAX + 1) >> 12; } /* 0 .. N_BUCKETS - 2 */

/* A row of adaptive probabilities at stretched values -16 .. 16, read at x between two of them;
 * *nearest is the one to adapt. */
static u32 interpolate(u32 *row, i32 x, u32 **nearest) {
    u32 f = (u32)(x + X_MAX + 1) & 4095, *a = row + bucket(x);
    *nearest = a + (f >> 11);
    u32 p = ((a[0] >> 12) * (4096 - f) + (a[1] >> 12) * f) >> 10;
    return p ? p : 1;
}

/* Of linear samples: which decision it is, against the error that is to be expected; what the
 * cascade says; the channel. */
static void pcm_select(struct mixer *m) {
    struct pcm *p = m->pcm;
    pcm_inputs(p, m->tables);
    const struct mixer_pair *cascade = &p->input[PCM_CASCADE];
    u32 bit = p->bits, relative = p->relative;
    i32 sum = (cascade->stretched + cascade->plain) / 2;
    m->stretched = clamp(sum, 1900);
    m->chosen[1] = SET_PARTIAL + bit * 16 + relative;
    m->chosen[2] = SET_MODEL + bit * 8 + p->apart;
    m->chosen[3] = SET_BYTE1 + ((u32)(clamp(sum, 255) + 256) >> 5) * 16 + relative;
    m->chosen[4] = SET_BYTE2 + bit * MEGABYTE_CHANNELS_MAX + p->channel;
    m->apm_row[0] = m->apm[0][bit * 16 + relative];
    m->apm_row[1] = m->apm[1][relative * 32 + p->octave];
}

static void pcm_mix(struct mixer *m) {
    const struct mixer_tables *t = m->tables;
    const struct pcm *p = m->pcm;
    memcpy(m->input + C_SPARSE, p->input, (PCM_EXPERTS - 1) * sizeof *p->input);
    m->input[I_MODEL] = p->input[PCM_EXPERTS - 1];
    u32 row = p->relative * 16 + min32(p->octave, 15);
    u32 refined = interpolate(m->sse[row], m->stretched * 32, &m->sse_p);
    m->input[I_SSE].stretched = (i16)stretch(t, refined);
}

/* The next bit, first step: what takes part in it. from_model: the model's P(1) */
static void mixer_select(struct mixer *m, u32 from_model) {
    u32 partial = m->partial, hits = 0, matching = 0;
    u32 c1 = (u32)m->last8 & 255, c2 = (u32)m->last8 >> 8 & 255;

    if (m->node == 1) slots_find(m);
    UNROLLED for (u32 i = 0; i < N_CONTEXTS; i++) {
        u32 s = m->state[i] = m->context[i].slot[m->node];
        hits += s != 0 && i < N_ORDERS;
    }
    m->match_p = NULL;
    if (m->expected >> (8 - m->bit_position) == partial) {
        u32 length = m->match_length ? m->match_bucket : 0;
        m->match_p = &m->match_map[length * 4 + (m->match_misses < 3 ? m->match_misses : 3)];
        matching = length < 16 ? 1 : length < 24 ? 2 : 3;
    }
    if (m->is_sparing) { /* what histories and matches say of such sound is noise */
        hits = matching = 0;
        m->match_p = NULL;
    }
    m->from_model = (i32)from_model;
    m->stretched = m->with_model ? stretch(m->tables, from_model) : 0;
    u32 confidence = (u32)(m->stretched < 0 ? -m->stretched : m->stretched) / 128;
    m->before = m->chosen[0];
    m->chosen[0] = SET_HITS + hits * 4 + matching;
    m->chosen[1] = SET_PARTIAL + (partial | (u32)(matching > 1) << 8);
    if (m->pcm) {
        pcm_select(m);
        return;
    }
    if (m->sound) {
        c1 = m->bit_position << 5 | m->sound->loud;
        c2 = m->bit_position << 5 | m->sound->apart;
    }
    m->chosen[2] = SET_MODEL +
                   (m->with_model
                        ? matching + ((confidence < 7 ? confidence : 7) * 8 + m->bit_position) * 4
                    : m->sound ? c2
                               : matching + (c1 >> 5) * 32 + (c2 >> 5) * 4);
    m->chosen[3] = SET_BYTE1 + c1;
    m->chosen[4] = SET_BYTE2 + c2;
    if (m->sound) c1 &= 31;
    m->apm_row[0] = m->apm[0][partial | matching << 8];
    m->apm_row[1] = m->apm[1][(c1 << 8 | partial) * 0x9e3779b1u >> 22];
}

/* Second step: all are weighed. */
static void mixer_mix(struct mixer *m) {
    const struct mixer_tables *t = m->tables;
    struct mixer_pair *x = m->input;

    /* Each probability comes in twice: stretched, which counts where it is sure, and plain, where
     * it is not. */
    UNROLLED for (u32 i = 0; i < N_CONTEXTS; i++) x[i] = t->pair[m->map[m->state[i]][i] >> 20];
    if (m->sound) /* in place of the last contexts; of others, too, if there are more experts */
        sound_inputs(m->sound, t, m->partial, m->bit_position, x + C_RECORD, x + MOST_ENSEMBLE);
    for (u32 k = 0; m->streams && k < MOST_ENSEMBLE; k++)
        x[k] = (struct mixer_pair){(i16)(k < m->streams ? m->by_stream[k] - m->stretched : 0), 0};
    if (m->pcm) pcm_mix(m);
    x[I_MATCH] = (struct mixer_pair){0, 0};
    if (m->match_p) {
        struct mixer_pair p = t->pair[*m->match_p >> 20]; /* of the expected bit */
        i32 sign = m->expected >> (7 - m->bit_position) & 1 ? 1 : -1;
        x[I_MATCH] = (struct mixer_pair){(i16)(p.stretched * sign), (i16)(p.plain * 2 * sign)};
    }
    /* The model: as it says, and as it turned out in its like where the order-2 history was the
     * same. */
    if (m->with_model) {
        x[I_MODEL] = (struct mixer_pair){(i16)m->stretched,
                                         (i16)((m->from_model - PROBABILITY_ONE / 2) >> 12)};
        u32 refined = interpolate(m->sse[m->state[2]], m->stretched * 32, &m->sse_p);
        x[I_SSE].stretched = (i16)stretch(t, refined);
    }
    x[I_SSE].plain = 64; /* the bias */

    m->final_row = m->pcm ? m->pcm->bits : m->is_sparing ? 0 : m->partial;
    i32 sum = 0, *final = m->final_weights[m->final_row];
    for (u32 k = 0; k < m->n_sets; k++) {
        u32 row = m->chosen[k], *used = &m->weights_used[row / 32];
        i16 *w = m->weights[row];
        if (!(*used >> row % 32 & 1)) { /* new: goes on from what row 0's group has just learned */
            *used |= 1u << row % 32;
            memcpy(w, m->weights[m->before], sizeof m->weights[0]);
        }
        i32 d = clamp(t->kernels.dot((const void *)x, w) >> 9, X_MAX);
        m->p_set[k] = squash(t, d);
        m->x_set[k] = d >> 5;
        sum += (d >> 5) * (final[k] >> 16);
    }
    m->x_final = clamp(sum >> 7, X_MAX);
}

/* Third step: the final maps give P(1). */
static u32 mixer_finish(struct mixer *m) {
    u32 p = m->p_final = squash(m->tables, m->x_final);
    u32 p0 = interpolate(m->apm_row[0], m->x_final, &m->apm_p[0]);
    u32 p1 = interpolate(m->apm_row[1], m->x_final, &m->apm_p[1]);
    if (!m->sound || !m->with_model) p = (2 * p + p0 + p1) / 4; /* a good model of sound is right */
    return p < 32 ? 32 : p > PROBABILITY_ONE - 32 ? PROBABILITY_ONE - 32 : p;
}

static void mixer_update(struct mixer *m, int bit) {
    const struct mixer_tables *t = m->tables;
    u32 b = (u32)bit, node = m->node;
    UNROLLED for (u32 i = 0; i < N_CONTEXTS; i++) {
        u8 *at = m->context[i].slot + node;
        m->state[i] = *at; /* again: two may have met in one slot */
        *at = t->next_state[*at][b];
    }
    if (m->match_p) {
        u32 right = (m->expected >> (7 - m->bit_position) & 1) == b;
        adapt(m, m->match_p, right, 255);
        if (!right) {
            m->match_length = 0;
            m->match_misses++;
        }
    }
    u32 partial = m->partial;
    if (m->sound) sound_decided(m->sound, partial, m->bit_position, b);
    if (m->pcm) pcm_decided(m->pcm, b);
    m->partial = partial << 1 | b;
    m->node = node << 1 | b;
    m->bit_position = (m->bit_position + 1) & 7;
    if (m->bit_position == 0) {
        m->history[m->position++ & m->history_mask] = (u8)m->partial;
        m->last8 = m->last8 << 8 | (m->partial & 255);
        m->partial = 1;
        match_find(m);
        mixer_contexts(m);
    }
    if ((m->bit_position & 3) == 0) {
        m->node = 1;
        slots_prefetch(m);
    }
    if (m->bit_position == 3) slots_ahead(m);

    /* what is learned: the prefetched lines need some time */
    UNROLLED for (u32 i = 0; i < N_CONTEXTS; i++) adapt(m, &m->map[m->state[i]][i], b, 255);
    UNROLLED for (u32 i = 0; i < 16; i++)
        m->map[0][i] = NOTHING; /* a context never seen keeps silent */
    i32 target = bit << PROBABILITY_BITS, *final = m->final_weights[m->final_row],
        error = (target - (i32)m->p_final) >> (m->is_sparing ? 12 : 10);
    for (u32 k = 0; k < m->n_sets; k++) {
        i32 e = clamp((target - (i32)m->p_set[k]) * m->rate >> 12, 32767);
        t->kernels.train((const void *)m->input, m->weights[m->chosen[k]], (i16)e);
        final[k] = clamp(final[k] + m->x_set[k] * error, 1 << 30);
    }
    if (m->with_model || m->pcm) adapt(m, m->sse_p, b, 255);
    adapt(m, m->apm_p[0], b, 127);
    adapt(m, m->apm_p[1], b, 127);
    if (m->bit_position == 0) m->rate = mixer_rate(m);
}

/* Several mixers side by side: p[i], the model's P(1), becomes mixer i's. Each bit reads some
 * twenty lines all over a mixer's memory, and when the model has run in between none is in the
 * caches any more. What a step needs is therefore prefetched for all mixers before any takes it:
 * then they all come at once, not one after the other. (64 streams, one thread: 2.5 us a byte
 * instead of 6.4.) */
static void mixers_predict(struct mixer *const *mixers, u32 n, u32 *p) {
    u32 ahead = n > 1 ? n : 0; /* one alone would just wait for what it prefetches */
    for (u32 i = 0; i < n; i++) mixer_select(mixers[i], p[i]);
    for (u32 i = 0; i < ahead; i++) {
        const struct mixer *m = mixers[i];
        for (u32 k = 0; k < N_SETS; k++) PREFETCH(m->weights[m->chosen[k]]);
        UNROLLED for (u32 k = 0; k < N_CONTEXTS; k++) PREFETCH(&m->map[m->state[k]][k]);
        PREFETCH(m->final_weights[m->partial]);
        PREFETCH(m->sse[m->state[2]] + bucket(m->stretched * 32));
    }
    for (u32 i = 0; i < n; i++) mixer_mix(mixers[i]);
    for (u32 i = 0; i < ahead; i++)
        for (u32 k = 0; k < 2; k++) PREFETCH(mixers[i]->apm_row[k] + bucket(mixers[i]->x_final));
    for (u32 i = 0; i < n; i++) p[i] = mixer_finish(mixers[i]);
}

/* ... and what a byte needs, before its first bit */
static void mixers_begin(struct mixer *const *mixers, u32 n) {
    for (u32 i = 0; i < n; i++)
        for (const u8 *at = (const u8 *)mixers[i], *end = (const u8 *)mixers[i]->weights; at < end;
             at += 64)
            PREFETCH(at);
    for (u32 i = 0; i < n; i++) {
        const struct mixer *m = mixers[i];
        for (u32 k = 0; k < N_CONTEXTS; k++) PREFETCH(m->context[k].slot);
        PREFETCH(m->match_table + m->match_row);
        PREFETCH(m->history + (m->position & m->history_mask));
        PREFETCH(m->history + ((m->match_at + 1) & m->history_mask));
    }
}

/* `to` has as much memory as `from`, which is between two bytes. */
static void mixer_copy(struct mixer *to, const struct mixer *from, u32 log2_memory) {
    memcpy(to, from, (size_t)mixer_bytes(log2_memory));
    to->history = (u8 *)to + (from->history - (const u8 *)from);
    to->match_table = (void *)((u8 *)to + ((const u8 *)from->match_table - (const u8 *)from));
    to->lines = (u8 *)to + (from->lines - (const u8 *)from);
    for (u32 i = 0; i < N_CONTEXTS; i++)
        to->context[i].slot = to->lines + (from->context[i].slot - from->lines);
}

/* ================================================================================= 17 messages */

/* What predicts the bytes of a message or block, alone or mixed: a stream of the model or an
 * ensemble of them, whose predictions are averaged, and context mixing. */
struct predictor {
    megabyte_stream *const *streams; /* [ensemble] of one engine */
    u32 ensemble; /* 0, 1, 2 or 4 */
    const struct mixer_tables *tables; /* of an ensemble */
    struct mixer *mixer; /* or NULL */
    double ideal, alone; /* encoding: -log2 of the coded, of the model's probabilities, summed up */
    /* messages of codecs: NULL, or what the stream comes to when it slides but for the message's
     * bytes, after `free` of which it does */
    const megabyte_stream *slid;
    u64 free;
};

/* The most bytes to be coded at a time. */
#define PIECE 4096
static u64 piece_bytes(const struct predictor *by) {
    return by->ensemble ? by->streams[0]->engine->kept_bytes / by->ensemble : PIECE;
}

/* Each stream's P(1) of the bytes' decisions, [ensemble][n][BYTE_BITS], to the engine's `kept`: of
 * many bytes, and by all streams, computed at once. */
static void score_bytes(struct predictor *by, const u8 *bytes, u64 n) {
    megabyte_engine *e = by->streams[0]->engine;
    struct job jobs[MOST_ENSEMBLE];
    const u64 words = n * BYTE_BITS;
    for (u32 k = 0; k < by->ensemble; k++) {
        struct job job = {.stream = by->streams[k],
                          .bytes = bytes,
                          .n = n,
                          .want = WANT_ALL,
                          .scored = keep_decisions,
                          .to = e->kept + k * words};
        memcpy(e->a, job.stream->logits, 256 * sizeof *e->a);
        job.bits = code_length(e, e->a, 256, bytes[0]);
        keep_decisions(job.to, 0, bytes[0], e->a);
        jobs[k] = job;
    }
    run_jobs(e, jobs, by->ensemble);
    if (by->ensemble == 1) by->alone += jobs[0].bits;
}

/* The model's P(1), of what each stream says. */
static u32 join_predictions(const struct predictor *by, const u32 *each) {
    if (by->mixer && by->mixer->streams)
        for (u32 k = 0; k < by->ensemble; k++)
            by->mixer->by_stream[k] = (i16)stretch(by->tables, each[k]);
    return by->ensemble > 1    ? geometric_mean(by->tables, each, by->ensemble)
           : by->ensemble == 1 ? each[0]
                               : PROBABILITY_ONE / 2;
}

static double probability_of(u32 p, u32 bit) {
    return (double)(bit ? p : PROBABILITY_ONE - p) / PROBABILITY_ONE;
}

/* Codes bytes, 1 to piece_bytes at a time; the streams' and the mixer's histories then hold them,
 * too. */
static void encode_bytes(struct predictor *by, struct coder *c, const u8 *bytes, u64 n) {
    if (by->ensemble) score_bytes(by, bytes, n);
    for (u64 i = 0; i < n; i++) {
        double likely = 1, alone = 1; /* products of eight probabilities of 2^-22 or more */
        for (u32 j = 0; j < BYTE_BITS; j++) {
            u32 each[MOST_ENSEMBLE] = {0}, bit = bytes[i] >> (7 - j) & 1;
            for (u32 k = 0; k < by->ensemble; k++)
                each[k] = by->streams[0]->engine->kept[(k * n + i) * BYTE_BITS + j];
            u32 p = join_predictions(by, each);
            if (by->ensemble > 1) alone *= probability_of(p, bit);
            if (by->mixer) mixers_predict(&by->mixer, 1, &p);
            encode_bit(c, p, bit);
            if (by->mixer) mixer_update(by->mixer, (int)bit);
            likely *= probability_of(p, bit);
        }
        by->ideal -= log2_exact(likely);
        if (by->ensemble > 1) by->alone -= log2_exact(alone);
    }
}

/* Decodes the next byte of each of 1 or more predictors of one kind (with as many streams, with
 * mixers or without), MOST_AT_ONCE streams at most. The mixers learn it; the streams are not moved
 * on. */
#define MOST_AT_ONCE 8
static void decode_bytes(const struct predictor *const *by, struct coder *const *coders, u32 count,
                         u8 *bytes) {
    u32 weights[MOST_AT_ONCE][256], at[MOST_AT_ONCE] = {0}, p[MOST_AT_ONCE];
    struct mixer *mixers[MOST_AT_ONCE];
    const u32 ensemble = by[0]->ensemble;
    int with_mixer = by[0]->mixer != NULL;
    for (u32 i = 0; i < count; i++) {
        mixers[i] = by[i]->mixer;
        bytes[i] = 0;
        for (u32 k = 0; k < ensemble; k++) {
            const megabyte_stream *s = by[i]->streams[k];
            float a[256];
            memcpy(a, s->logits, sizeof a);
            s->engine->kernels.softmax(a, 256);
            byte_weights(a, weights[i * ensemble + k]);
        }
    }
    if (with_mixer && count > 1) mixers_begin(mixers, count);
    for (u32 n = 256; n > 1; n /= 2) {
        for (u32 i = 0; i < count; i++) {
            u32 each[MOST_ENSEMBLE];
            for (u32 k = 0; k < ensemble; k++)
                each[k] = upper_half(weights[i * ensemble + k] + at[i], n);
            p[i] = join_predictions(by[i], each);
        }
        if (with_mixer) mixers_predict(mixers, count, p);
        for (u32 i = 0; i < count; i++) {
            u32 bit = decode_bit(coders[i], p[i]);
            if (with_mixer) mixer_update(mixers[i], (int)bit);
            at[i] += bit * n / 2;
            bytes[i] = (u8)((u32)bytes[i] << 1 | bit);
        }
    }
}

/* A message: is it stored? | its length + 1 | its bytes. The length's number of bits comes by these
 * weights, which favour 15 to 254 bytes (of 1053: 100 bytes take 1.6 bits and 6 more), the rest as
 * it is. */
static const u32 length_weights[64] = {
    10, 10, 20, 40, 90, 200, 340, 200, 60, 20, 10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1,  1,  1,  1,  1,  1,   1,   1,   1,  1,  1,  1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1,  1,  1,  1,  1,  1,   1,   1,   1,  1,  1,  1, 1, 1, 1, 1, 1, 1, 1, 1};
#define STORED_PROBABILITY (PROBABILITY_ONE / 64)

static void begin_message(struct coder *c, u64 n, u32 stored) {
    u32 bits = 0;
    while ((n + 1) >> bits > 1) bits++;
    encode_bit(c, STORED_PROBABILITY, stored);
    encode_symbol(c, length_weights, 64, bits);
    encode_plain(c, n + 1, bits);
}

size_t megabyte_message_bound(size_t n) { return n <= SIZE_MAX - 16 ? n + 16 : SIZE_MAX; }

static void encode_stored(struct coder *c, u8 *to, u64 capacity, const u8 *bytes, u64 n) {
    begin_encoding(c, to, capacity); /* 6 bits, 10 and up to 63 of length, 8 n: n + 16 will do */
    begin_message(c, n, 1);
    for (u64 i = 0; i < n; i++) encode_plain(c, bytes[i], 8);
    end_encoding(c);
}

/* The message's first bytes have filled the context: the stream becomes what it would as it slid
 * with the next one, without reading again what it keeps of the dictionary. */
static void slide_at_once(const struct predictor *by, const u8 *bytes) {
    float next[256]; /* what the full context predicts: of bytes, more is not asked for */
    memcpy(next, by->streams[0]->logits, sizeof next);
    megabyte_stream_copy(by->streams[0], by->slid);
    megabyte_stream_feed(by->streams[0], bytes, (size_t)by->free);
    memcpy(by->streams[0]->logits, next, sizeof next);
}

/* The code of one message; capacity is n + 16 or more. */
static u64 encode_message(struct predictor *by, const u8 *bytes, u64 n, u8 *to) {
    struct coder c, stored;
    begin_encoding(&c, to, n + 16);
    begin_message(&c, n, 0);
    for (u64 done = 0, some; done < n; done += some) {
        some = min64(n - done, piece_bytes(by));
        if (by->slid && done < by->free) some = min64(some, by->free - done);
        if (by->slid && done == by->free) slide_at_once(by, bytes);
        encode_bytes(by, &c, bytes + done, some);
    }
    end_encoding(&c);
    if (c.n <= n) return c.n;
    encode_stored(&stored, NULL, 0, bytes, n); /* only counted */
    if (stored.n < c.n) encode_stored(&c, to, n + 16, bytes, n);
    return c.n;
}

/* What a code says before the bytes. A claim costs nothing to forge: what is accepted is up to the
 * caller's limit. No message has an empty code: the first two decisions alone take a byte. */
struct claim {
    struct coder coder;
    u32 stored;
    u64 length;
};

static status read_claim(struct claim *m, const u8 *coded, u64 n_coded, u64 limit,
                         megabyte_error *error) {
    if (!n_coded)
        return fail(error, MEGABYTE_ERROR_CORRUPT, 0,
                    "the code is empty: that of an empty message, too, has a byte or more");
    begin_decoding(&m->coder, coded, n_coded);
    m->stored = decode_bit(&m->coder, STORED_PROBABILITY);
    u32 bits = decode_symbol(&m->coder, length_weights, 64);
    m->length = (1ULL << bits | decode_plain(&m->coder, bits)) - 1;
    if (beyond_end(&m->coder))
        return fail(error, MEGABYTE_ERROR_CORRUPT, n_coded,
                    "the code of %llu bytes is damaged or cut off: it ends within its length",
                    (unsigned long long)n_coded);
    if (m->length > limit)
        return fail(error, MEGABYTE_ERROR_CORRUPT, 0,
                    "the code claims a message of %llu bytes, over the limit of %llu: it is "
                    "damaged, or the limit too low",
                    (unsigned long long)m->length, (unsigned long long)limit);
    return MEGABYTE_OK;
}

/* The longest message, by an option; 0: the default. */
static u64 message_limit(u64 given) {
    return min64(given ? given : MEGABYTE_MESSAGE_MAX, SIZE_MAX - 16);
}

static status check_message(size_t n, size_t capacity, u64 limit, megabyte_error *error) {
    if (n > limit)
        return fail(error, MEGABYTE_ERROR_LIMIT, 0,
                    "a message of %llu bytes is over the limit of %llu", (unsigned long long)n,
                    (unsigned long long)limit);
    if (capacity < n + 16)
        return fail(error, MEGABYTE_ERROR_CAPACITY, 0,
                    "a message of %llu bytes needs room for a code of %llu, not %llu: "
                    "megabyte_message_bound",
                    (unsigned long long)n, (unsigned long long)n + 16,
                    (unsigned long long)capacity);
    return MEGABYTE_OK;
}

static status check_room(const struct claim *m, u64 capacity, megabyte_error *error) {
    if (m->length <= capacity) return MEGABYTE_OK;
    return fail(error, MEGABYTE_ERROR_CAPACITY, 0,
                "the message has %llu bytes, and there is room for %llu",
                (unsigned long long)m->length, (unsigned long long)capacity);
}

/* Messages have one stream or none. */
static status decode_message(struct predictor *by, struct claim *m, u8 *bytes, size_t *n,
                             megabyte_error *error) {
    struct coder *c = &m->coder;
    const struct predictor *const predictor = by;
    megabyte_stream *stream = by->ensemble ? by->streams[0] : NULL;
    u64 length = m->length;
    u32 stored = m->stored;
    for (u64 i = 0; i < length && !beyond_end(c); i++) {
        if (by->slid && i == by->free && !stored) slide_at_once(by, bytes);
        if (stored) bytes[i] = (u8)decode_plain(c, 8);
        else decode_bytes(&predictor, &c, 1, &bytes[i]);
        if (stored || !stream || take_drafted(stream, bytes[i])) continue;
        u64 more = length - i - 1;
        step_drafting(&stream, &bytes[i], &more, 1);
    }
    if (stream) end_draft(stream);
    if (stored && stream && !by->slid && !beyond_end(c))
        megabyte_stream_feed(stream, bytes, (size_t)length);
    if (ends_decoding(c)) return MEGABYTE_OK;
    *n = 0;
    return fail(error, MEGABYTE_ERROR_CORRUPT, 0,
                "the code is damaged, or made with another model, dictionary or options");
}

megabyte_status megabyte_message_length(const void *coded, size_t n_coded, uint64_t limit,
                                        size_t *n) {
    struct claim m;
    if (n) *n = 0;
    if ((n_coded && !coded) || !n) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    status r = read_claim(&m, coded, n_coded, message_limit(limit), NULL);
    if (!r) *n = (size_t)m.length;
    return r;
}

megabyte_status megabyte_stream_encode(megabyte_stream *s, const void *bytes, size_t n, void *coded,
                                       size_t capacity, size_t *n_coded) {
    struct predictor by = {.streams = &s, .ensemble = 1};
    fp_state fp;
    if (!s || (n && !bytes) || !coded || !n_coded) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (s->engine->model->sizes.vocabulary < 256) return MEGABYTE_ERROR_UNSUPPORTED;
    status r = check_message(n, capacity, message_limit(0), NULL);
    if (r) return r;
    fp_enter(&fp);
    *n_coded = (size_t)encode_message(&by, bytes, n, coded);
    fp_leave(&fp);
    return MEGABYTE_OK;
}

megabyte_status megabyte_stream_decode(megabyte_stream *s, const void *coded, size_t n_coded,
                                       void *bytes, size_t capacity, size_t *n) {
    struct predictor by = {.streams = &s, .ensemble = 1};
    fp_state fp;
    if (n) *n = 0;
    if (!s || (n_coded && !coded) || (capacity && !bytes) || !n)
        return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (s->engine->model->sizes.vocabulary < 256) return MEGABYTE_ERROR_UNSUPPORTED;
    struct claim m;
    status r = read_claim(&m, coded, n_coded, message_limit(0), NULL);
    if (r) return r;
    *n = (size_t)m.length;
    if ((r = check_room(&m, capacity, NULL))) return r;
    fp_enter(&fp);
    r = decode_message(&by, &m, bytes, n, NULL);
    fp_leave(&fp);
    return r;
}

/* ========================================================================== 18 compressed files */

/* ---- the file's headers; models/FORMAT.md has them byte by byte */

static const u8 file_magic[4] = {0xb5, 'm', 'b', 'z'};
/* 1: with a model, 2: without, 3: says so, and what the contents are, 4: linear samples, 5: an
 * ensemble, 6: mu-law beside a model */
#define FILE_VERSION 6
#define MODEL_ID_BYTES 6
#define CHECK_BYTES 4 /* of a block */
#define WHOLE_BYTES 8 /* of everything, in the end mark */
#define HEADER_CHECK 2
/* Is this method's code made with the model, with context mixing? */
static int uses_model(megabyte_method method) {
    return method == MEGABYTE_METHOD_MODEL || method == MEGABYTE_METHOD_MIXED;
}
static int uses_mixing(megabyte_method method) {
    return method == MEGABYTE_METHOD_CONTEXT_MIXING || method == MEGABYTE_METHOD_MIXED;
}

/* Memory for context mixing is 1, 4, 16 or 64 MB, which a file calls 1 to 4; 0 is none. */
#define MOST_MEMORY 4
static u32 memory_log2(u32 code) { return 18 + 2 * code; }
static u32 memory_megabytes(u32 code) { return code ? 1u << (memory_log2(code) - 20) : 0; }
static u32 memory_code(u32 megabytes) {
    u32 code = 0;
    while (code < MOST_MEMORY && memory_megabytes(code) < megabytes) code++;
    return code;
}

enum {
    FLAG_SINGLE = 1,
    FLAG_SIZE = 2,
    FLAG_DICTIONARY = 4,
    FLAG_MODEL = 8, /* version 3 */
    METHOD_SHIFT = 4
};

/* 7 bits a byte, the lowest first; the top bit says that more follow. */
static u32 put_varint(u8 *to, u64 v) {
    u32 n = 0;
    for (; v >= 128; v >>= 7) to[n++] = (u8)(v | 128);
    to[n++] = (u8)v;
    return n;
}

/* What is left to read of a header. The first failure stays: more bytes are needed, or they are
 * wrong. */
struct reader {
    const u8 *at;
    size_t n, used;
    status result;
};

static u32 read_byte(struct reader *r) {
    if (r->result) return 0;
    if (r->used == r->n) {
        r->result = MEGABYTE_ERROR_TRUNCATED;
        return 0;
    }
    return r->at[r->used++];
}

/* At most `most`, in as few bytes as can be. */
static u64 read_varint(struct reader *r, u64 most) {
    u64 v = 0;
    for (u32 shift = 0; !r->result; shift += 7) {
        u32 byte = read_byte(r);
        v |= (u64)(byte & 127) << shift;
        if (v > most || (shift && !byte)) break;
        if (byte < 128) return v;
        if (shift == 56) break; /* 2^63 and more would not fit */
    }
    if (!r->result) r->result = MEGABYTE_ERROR_CORRUPT;
    return 0;
}

static void read_bytes(struct reader *r, u8 *to, u32 n) {
    for (u32 i = 0; i < n; i++) to[i] = (u8)read_byte(r);
}

/* Bytes of code that a block of this method and size has, if that is known without saying. */
static int code_is_implied(megabyte_method method, u32 size, u32 *coded) {
    if (method > MEGABYTE_METHOD_CONSTANT) return 0;
    *coded = method == MEGABYTE_METHOD_STORED ? size : 1;
    return 1;
}

/* Could a file with this header have blocks of this method? */
static int method_fits(const megabyte_file_header *h, megabyte_method method) {
    return (!uses_mixing(method) || h->mixing_memory) && (!uses_model(method) || h->has_model);
}

static u32 write_file_header(const megabyte_file_header *h, u8 *to) {
    u8 digest[32];
    u32 n = 4, coded;
    memcpy(to, file_magic, 4);
    to[n++] = (u8)h->format_version;
    to[n++] = (u8)((h->single ? FLAG_SINGLE | h->method << METHOD_SHIFT : 0) |
                   (h->has_dictionary ? FLAG_DICTIONARY : 0) |
                   (h->format_version > 2 && h->has_model ? FLAG_MODEL : 0) |
                   (!h->single && h->size != MEGABYTE_SIZE_UNKNOWN ? FLAG_SIZE : 0));
    to[n++] = (u8)h->numerics_version;
    if (h->has_model) {
        memcpy(to + n, h->model_id, MODEL_ID_BYTES);
        n += MODEL_ID_BYTES;
    }
    to[n++] = (u8)(h->context_shift | memory_code(h->mixing_memory) << 4);
    if (h->format_version > 2) to[n++] = (u8)h->contents;
    if (h->format_version == 4) to[n++] = (u8)h->channels;
    if (h->format_version > 4) to[n++] = (u8)h->ensemble;
    if (!h->single) n += put_varint(to + n, h->block_size);
    if (h->size != MEGABYTE_SIZE_UNKNOWN) n += put_varint(to + n, h->size);
    if (h->single && !code_is_implied(h->method, (u32)h->size, &coded))
        n += put_varint(to + n, h->coded);
    if (h->has_dictionary) {
        memcpy(to + n, h->dictionary_id, sizeof h->dictionary_id);
        n += sizeof h->dictionary_id;
    }
    sha256(to, n, NULL, 0, digest);
    memcpy(to + n, digest, HEADER_CHECK);
    return n + HEADER_CHECK;
}

/* From version 3 on. 0: they are wrong. */
static int read_contents(struct reader *r, megabyte_file_header *h) {
    if (h->format_version < 3) return 1;
    h->contents = (megabyte_contents)read_byte(r);
    if (h->has_dictionary || (h->contents && !h->mixing_memory)) return 0;
    if (h->format_version == 3) return h->contents == MEGABYTE_CONTENTS_MULAW;
    if (h->format_version > 4) {
        u32 n = h->ensemble = read_byte(r);
        return h->has_model && (n == 2 || n == 4 || (n == 1 && h->contents)) &&
               (h->contents == MEGABYTE_CONTENTS_MULAW || (h->format_version == 5 && !h->contents));
    }
    h->channels = read_byte(r);
    if (h->channels < 1 || h->channels > MEGABYTE_CHANNELS_MAX) return 0;
    return is_pcm(h->contents) && !h->has_model;
}

megabyte_status megabyte_file_header_read(const void *bytes, size_t n, megabyte_file_header *h,
                                          megabyte_error *error) {
    struct reader r = {.at = bytes, .n = n, .used = 4};
    u8 digest[32], check[HEADER_CHECK];
    clear_error(error);
    if (!h || (n && !bytes))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "NULL is not a header");
    memset(h, 0, sizeof *h);
    if (n && memcmp(r.at, file_magic, n < 4 ? n : 4))
        return fail(error, MEGABYTE_ERROR_BAD_MAGIC, 0, "this is not a .mbz file");
    if (n < 4) return fail(error, MEGABYTE_ERROR_TRUNCATED, n, "the header is cut off");
    h->format_version = read_byte(&r);
    if (h->format_version > FILE_VERSION)
        return fail(error, MEGABYTE_ERROR_BAD_VERSION, 4,
                    "format version %u is newer than this megabyte's (%u): "
                    "update it",
                    h->format_version, FILE_VERSION);
    u32 flags = read_byte(&r);
    h->numerics_version = read_byte(&r);
    h->has_model = h->format_version < 2 || (h->format_version > 2 && flags & FLAG_MODEL);
    if (h->format_version > 2) flags &= ~(u32)FLAG_MODEL;
    if (h->has_model) read_bytes(&r, h->model_id, MODEL_ID_BYTES);
    u32 shape = read_byte(&r), memory = shape >> 4;
    h->context_shift = shape & 15;
    h->mixing_memory = memory <= MOST_MEMORY ? memory_megabytes(memory) : 0;
    h->has_dictionary = (flags & FLAG_DICTIONARY) != 0;
    h->single = (flags & FLAG_SINGLE) != 0;
    h->size = MEGABYTE_SIZE_UNKNOWN;
    int wrong = h->format_version < 1 || memory > MOST_MEMORY ||
                (!h->has_model && h->context_shift);
    h->ensemble = h->has_model != 0;
    wrong |= !read_contents(&r, h);
    if (h->single) {
        h->method = (int)(flags >> METHOD_SHIFT);
        h->size = read_varint(&r, MEGABYTE_BLOCK_MAX);
        h->block_size = (u32)h->size;
        wrong |= flags & (FLAG_SIZE | 8) || h->method >= MEGABYTE_METHOD_COUNT ||
                 !method_fits(h, h->method) || (!h->size && h->method != MEGABYTE_METHOD_STORED);
        if (!wrong && !code_is_implied(h->method, h->block_size, &h->coded)) {
            h->coded = (u32)read_varint(&r, MEGABYTE_BLOCK_MAX);
            wrong |= !r.result && h->coded >= h->size;
        }
    } else {
        h->block_size = (u32)read_varint(&r, MEGABYTE_BLOCK_MAX);
        if (flags & FLAG_SIZE) h->size = read_varint(&r, INT64_MAX);
        wrong |= (!r.result && !h->block_size) ||
                 (flags | FLAG_SIZE | FLAG_DICTIONARY) != (FLAG_SIZE | FLAG_DICTIONARY);
    }
    if (h->has_dictionary) read_bytes(&r, h->dictionary_id, sizeof h->dictionary_id);
    h->header_bytes = (u32)r.used + HEADER_CHECK;
    read_bytes(&r, check, HEADER_CHECK);
    if (r.result == MEGABYTE_ERROR_TRUNCATED)
        return fail(error, r.result, n, "the header is cut off");
    if (!r.result) sha256(r.at, h->header_bytes - HEADER_CHECK, NULL, 0, digest);
    if (wrong || r.result || memcmp(digest, check, HEADER_CHECK))
        return fail(error, MEGABYTE_ERROR_CORRUPT, r.used, "the header is damaged");
    return MEGABYTE_OK;
}

megabyte_status megabyte_block_header_read(const void *bytes, size_t n,
                                           const megabyte_file_header *h, megabyte_block_header *b,
                                           megabyte_error *error) {
    struct reader r = {.at = bytes, .n = n};
    clear_error(error);
    if (!h || !b || (n && !bytes))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "NULL is not a header");
    memset(b, 0, sizeof *b);
    u32 tag = read_byte(&r), check = CHECK_BYTES;
    b->method = (int)tag - 1;
    if (b->method >= MEGABYTE_METHOD_COUNT || !method_fits(h, b->method))
        r.result = MEGABYTE_ERROR_CORRUPT;
    if (b->method >= 0) {
        b->size = (u32)read_varint(&r, h->block_size);
        if (!r.result && !b->size) r.result = MEGABYTE_ERROR_CORRUPT;
        if (!r.result && !code_is_implied(b->method, b->size, &b->coded))
            b->coded = (u32)read_varint(&r, b->size - 1);
    } else {
        check = WHOLE_BYTES;
    }
    b->header_bytes = (u32)r.used + check;
    if (!r.result && n - r.used < check) r.result = MEGABYTE_ERROR_TRUNCATED;
    if (r.result)
        return fail(error, r.result, r.used, "a block's header is %s",
                    r.result == MEGABYTE_ERROR_CORRUPT ? "damaged" : "cut off");
    return MEGABYTE_OK;
}

/* ---- codec: layout and creation */

/* A block in flight. Compressing, only the first has a stream unless blocks are verified. */
struct block_job {
    megabyte_stream **streams; /* [ensemble] of the codec, if it has a model */
    u8 *bytes, *code; /* [codec->block] each: original and coded */
    u32 n, n_code; /* how many there are; decompressing: how many there will be */
    u32 done; /* decompressing: bytes of code gathered, then bytes decoded */
    struct mixer *mixer; /* memory for context mixing, or NULL */
    struct predictor by;
    megabyte_method method;
    u32 waiting; /* decoding: the streams that do not have the last byte yet, a bit each */
    int bad;
    u8 check[CHECK_BYTES];
    u8 head[24];
    u32 n_head; /* compressing: the block's header */
    u64 index, at; /* which block, and where it begins in the compressed file */
    struct coder coder;
};

struct span {
    const u8 *at;
    u64 n;
};

#define TRIAL \
    16384 /* of a block's bytes, coded by context mixing alone to see what the model gains */

struct megabyte_codec {
    megabyte_allocator allocator;
    size_t allocated;
    const megabyte_model *model; /* NULL: none is used */
    megabyte_engine *engine; /* may then be NULL, too, */
    struct pool *pool, own_pool; /* and the codec has threads of its own */
    megabyte_mode mode;
    int owns_engine;
    megabyte_codec_options options;
    u32 block_size, n_jobs, ensemble; /* streams a job: 0 without a model */
    struct block_job *jobs;
    struct block_job **active; /* [n_jobs] that are being decoded */
    u32 n_active;
    int verifying;
    megabyte_stream **stepped; /* [n_jobs * ensemble], for step_drafting ... */
    u8 *step; /* ... the bytes ... */
    u64 *follow; /* ... and how many follow */
    u32 memory; /* code of the memory that a mixer has; 0: there is none */
    struct mixer_tables *tables;
    int has_dictionary; /* or a file type */
    megabyte_stream *dictionary; /* what every block then begins with; NULL without a model */
    struct mixer *dictionary_mixer[2]; /* for context mixing alone, mixed; NULL if not in use */
    megabyte_stream *slid; /* NULL, or what a slide keeps of the dictionary's: slide_at_once */
    /* (all four are another codec's if options.dictionary_of is set: they never change) */
    u8 dictionary_id[4];

    struct span *out; /* [2 n_jobs + 2] output that has not been pulled yet */
    u32 n_out, next_out;
    u32 filled; /* jobs that are complete */
    int begun, finished,
        ended; /* compressing: the header is out; no more input; the end mark is out */
    int flush, more; /* push had more than fits */
    u64 pushed; /* bytes consumed in */
    u64 reported; /* to options.progress */
    fp_state caller; /* while pull works */
    u64 blocks; /* of the running file */
    struct sha256 whole; /* of its original bytes */
    megabyte_statistics counts;
    megabyte_error error; /* reported once all output has been pulled */

    /* compressing: the file's header; decompressing: and what is being gathered */
    megabyte_file_header header;
    u8 head[MEGABYTE_HEADER_MAX], end[1 + WHOLE_BYTES];
    u32 n_head, end_seen;
    enum { IN_HEADER, IN_BLOCK, IN_CODE, IN_CHECK } state;
    u64 files, member, declared; /* files begun; bytes of this one, of all, by the headers */
    u64 work; /* of `declared`, what the model must predict, and a part of the rest */
};

/* Levels 1 to 4 are context mixing alone, with 1 to 64 MB; 5 the model alone; 6 to 9 both, with 4
 * to
 * 64 MB. */
static u32 level_of(const megabyte_codec_options *o) { return o && o->level ? (u32)o->level : 7; }
static const u8 level_memory[10] = {0, 1, 2, 3, 4, 0, 2, 3, 4, 4};

/* Levels 1 to 4; and a model knows nothing of linear samples. */
static int does_without(const megabyte_codec_options *o) {
    return level_of(o) < 5 || (level_of(o) > 5 && is_pcm(o->contents) &&
                               o->mixing_memory != MEGABYTE_NO_CONTEXT_MIXING);
}

static u32 usual_block_size(const megabyte_codec_options *o) {
    u64 size = o && o->size != MEGABYTE_SIZE_UNKNOWN ? o->size : 0, n = o ? o->streams : 0;
    if (o && o->block_size) return o->block_size;
    if (!size) return 1u << 18;
    if (!n && level_of(o) < 9) n = min64(size >> 18, 16); /* 256 KB a block, then 16 blocks */
    u64 block = n ? size / n + (size % n != 0) : size;
    if (block < 1u << 14) block = min64(size, 1u << 14); /* headers take their share */
    return (u32)min64(block, MEGABYTE_BLOCK_DEFAULT);
}

/* Blocks of linear samples end where all channels do. */
u32 megabyte_codec_block_size(const megabyte_codec_options *o) {
    u32 size = usual_block_size(o), channels = o && o->channels ? o->channels : 1;
    u64 all = o ? (u64)channels * pcm_format_of(o->contents).bytes : 0;
    return all && size > all ? (u32)(size - size % all) : size;
}

/* What a codec is made for. */
struct plan {
    megabyte_codec_options options;
    megabyte_mode mode;
    const megabyte_model *model; /* NULL: none is used */
    megabyte_stream_options stream; /* of the model */
    u64 seen; /* messages: bytes of the dictionary, its last, that are in view as one begins */
    u64 kept; /* messages: of these, those that are after a slide, if most messages slide; else 0 */
    u32 jobs, block_size, memory, ensemble;
    int has_dictionary;
};

static status check_codec_options(const struct plan *p, megabyte_error *error) {
    const megabyte_codec_options *o = &p->options;
    if (p->mode < MEGABYTE_MODE_COMPRESS || p->mode > MEGABYTE_MODE_MESSAGES || o->level < 0 ||
        o->level > 9)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "no such mode (%d) or level (%d)",
                    p->mode, o->level);
    if (o->streams > 256 || o->block_size > MEGABYTE_BLOCK_MAX || o->context_shift > 15 ||
        o->threads > 256 || o->max_ratio >> 32 || (o->dictionary_size && !o->dictionary))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "streams and threads must be up to 256 (%u, %u), block_size %u (%u), "
                    "context_shift 15 (%u)",
                    o->streams, o->threads, MEGABYTE_BLOCK_MAX, o->block_size, o->context_shift);
    if ((u32)o->contents >= MEGABYTE_CONTENTS_COUNT || o->channels > MEGABYTE_CHANNELS_MAX)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "no such contents (%d), or more than %d channels (%u)", o->contents,
                    MEGABYTE_CHANNELS_MAX, o->channels);
    if (o->ensemble > MOST_ENSEMBLE || o->ensemble == 3)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "an ensemble is of 1, 2 or 4, not %u", o->ensemble);
    if (o->ensemble > 1 && (p->mode == MEGABYTE_MODE_MESSAGES || o->dictionary_size ||
                            o->file_type || o->dictionary_of))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "an ensemble goes without messages, a dictionary and a file type");
    if (o->contents && p->mode != MEGABYTE_MODE_DECOMPRESS &&
        (p->mode == MEGABYTE_MODE_MESSAGES || o->dictionary_size || o->file_type ||
         o->dictionary_of))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "contents go with compressing, without a dictionary or file type");
    if (o->mixing_memory == MEGABYTE_NO_CONTEXT_MIXING) {
        if (level_of(o) < 5 && p->mode != MEGABYTE_MODE_DECOMPRESS)
            return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                        "levels 1 to 4 are context mixing: they need mixing_memory");
    } else if (o->mixing_memory != memory_megabytes(memory_code(o->mixing_memory))) {
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "mixing_memory must be 1, 4, 16 or 64 MB, not %u", o->mixing_memory);
    }
    return MEGABYTE_OK;
}

/* What a dictionary of n bytes leaves of itself in the window, and a slide then of that. Where less
 * than an eighth of the window is free, a codec prepares for messages that slide. */
static void plan_sliding(struct plan *p) {
    u64 patch = p->model->stage[0].bytes, patches = p->stream.context / patch;
    u64 window = patches * patch - ahead(p->model), drop = (patches - patches / 2) * patch;
    u64 n = p->options.dictionary_size;
    if (n > window) n -= (n - window + drop - 1) / drop * drop;
    if (window - n < window / 8 && n > drop) p->kept = n - drop;
}

/* Is the model used, and what for? */
static status plan_streams(struct plan *p, const megabyte_model *model, megabyte_error *error) {
    const megabyte_codec_options *o = &p->options;
    int coding = p->mode != MEGABYTE_MODE_DECOMPRESS;
    if (!model && coding && !does_without(o))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "level %u needs a model: only levels 1 to 4 do without", level_of(o));
    if (model && o->engine && o->engine->model != model)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "the engine belongs to another model");
    p->model = coding && does_without(o) ? NULL : model;
    if (!p->model && o->file_type)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "a file type is for models: levels 1 to 4 use none");
    p->ensemble = !p->model ? 0 : o->ensemble ? o->ensemble : 1;
    if (!p->model) return MEGABYTE_OK;
    if (model->sizes.vocabulary < 256)
        return fail(error, MEGABYTE_ERROR_UNSUPPORTED, 0,
                    "a model of %u symbols cannot code all bytes", model->sizes.vocabulary);
    u64 patch = model->stage[0].bytes, trained = model->stage[0].size.positions * patch;
    patch *= least_patches(model);
    p->stream.engine = o->engine;
    p->stream.context = trained >> o->context_shift > patch ? trained >> o->context_shift : patch;
    p->stream.file_type = o->file_type;
    p->stream.draft_engine = o->draft_engine;
    p->seen = UINT64_MAX;
    if (p->mode == MEGABYTE_MODE_MESSAGES && o->room) {
        u64 window = p->stream.context / model->stage[0].bytes * model->stage[0].bytes -
                     ahead(model);
        if (o->room > window / 2)
            return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                        "room must be at most half the context (%llu bytes), not %u",
                        (unsigned long long)window / 2, o->room);
        p->seen = window - o->room;
    }
    if (p->mode == MEGABYTE_MODE_MESSAGES && !o->room) plan_sliding(p);
    p->stream.draft_max = p->mode == MEGABYTE_MODE_COMPRESS && !o->verify ? MEGABYTE_NO_DRAFT
                                                                          : o->draft_max;
    return MEGABYTE_OK;
}

/* Does the dictionary take mixers for contexts alone (0), for both (1)? */
static int takes_mixer(const struct plan *p, int mixed) {
    return p->has_dictionary && p->memory &&
           (mixed ? p->model != NULL : !p->model || p->mode != MEGABYTE_MODE_MESSAGES);
}

/* Could this codec have read its dictionary as that one did which it is to share it with? */
static status check_shared(const struct plan *p, megabyte_error *error) {
    const megabyte_codec *with = p->options.dictionary_of;
    if (!with) return MEGABYTE_OK;
    if (p->options.dictionary_size || p->options.file_type || !with->has_dictionary)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    with->has_dictionary
                        ? "dictionary_of comes instead of a dictionary and a file type"
                        : "dictionary_of: that codec has no dictionary");
    int same = with->memory == p->memory &&
               (with->mode == MEGABYTE_MODE_MESSAGES) == (p->mode == MEGABYTE_MODE_MESSAGES);
    for (int mixed = 0; mixed < 2; mixed++)
        same &= !takes_mixer(p, mixed) || with->dictionary_mixer[mixed];
    if (p->model)
        same &= with->dictionary && !memcmp(with->model->id, p->model->id, sizeof p->model->id) &&
                with->dictionary->patches == p->stream.context / p->model->stage[0].bytes;
    if (same) return MEGABYTE_OK;
    return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                "dictionary_of: that codec is not for the same model, mode, level, mixing_memory "
                "and context_shift");
}

static status make_plan(struct plan *p, const megabyte_model *model, megabyte_mode mode,
                        const megabyte_codec_options *from, megabyte_error *error) {
    megabyte_codec_options *o = &p->options;
    u32 most;
    memset(p, 0, sizeof *p);
    if (from) *o = *from;
    if (o->size == MEGABYTE_SIZE_UNKNOWN) o->size = 0;
    p->mode = mode;
    status r = check_codec_options(p, error);
    if (!r) r = plan_streams(p, model, error);
    if (r) return r;
    o->channels = !is_pcm(o->contents) ? 0 : o->channels ? o->channels : 1;
    p->has_dictionary = o->dictionary_size || o->file_type || o->dictionary_of;
    p->block_size = mode == MEGABYTE_MODE_COMPRESS   ? megabyte_codec_block_size(o)
                    : mode == MEGABYTE_MODE_MESSAGES ? 1
                    : o->block_size                  ? o->block_size
                                                     : MEGABYTE_BLOCK_DEFAULT;
    p->jobs = o->streams && (mode == MEGABYTE_MODE_DECOMPRESS || o->verify) ? o->streams : 1;
    if (mode == MEGABYTE_MODE_MESSAGES) p->jobs = 1;
    /* few, with blocks that fill their contexts */
    p->stream.large_pages = p->jobs <= 4 && p->block_size >= p->stream.context;
    p->memory = mode == MEGABYTE_MODE_DECOMPRESS ? 3 : level_memory[level_of(o)];
    if (mode == MEGABYTE_MODE_MESSAGES)
        p->memory = min32(p->memory, 1); /* short, and begun anew each time */
    if (o->mixing_memory)
        p->memory = o->mixing_memory == MEGABYTE_NO_CONTEXT_MIXING ? 0
                                                                   : memory_code(o->mixing_memory);
    /* A short block cannot fill much: a byte takes two slots in each of 13 contexts, mostly far
     * fewer. */
    for (most = 1; most < MOST_MEMORY && (u64)p->block_size << 7 > 1ULL << memory_log2(most);
         most++) {}
    if (mode == MEGABYTE_MODE_COMPRESS && !p->has_dictionary) p->memory = min32(p->memory, most);
    return check_shared(p, error);
}

/* Of the codec's own engine. */
static megabyte_engine_options own_engine(const struct plan *p) {
    megabyte_engine_options o = {.threads = p->options.threads, .isa = p->options.isa};
    return o;
}

static struct mixer *carve_mixer(struct arena *a, u32 memory) {
    return memory ? carve(a, mixer_bytes(memory_log2(memory)), 1) : NULL;
}

static void codec_layout(megabyte_codec *c, struct arena *a, const struct plan *p) {
    const megabyte_codec *shared = p->options.dictionary_of;
    carve(a, 1, sizeof *c);
    c->n_jobs = p->jobs;
    c->block_size = p->block_size;
    c->memory = p->memory;
    c->jobs = carve(a, p->jobs, sizeof *c->jobs);
    c->active = carve(a, p->jobs, sizeof *c->active);
    c->ensemble = p->ensemble;
    u64 streams = (u64)p->jobs * p->ensemble;
    c->stepped = carve(a, streams, sizeof *c->stepped);
    c->step = carve(a, streams, 1);
    c->follow = carve(a, streams, sizeof *c->follow);
    c->out = carve(a, 2 * (u64)p->jobs + 2, sizeof *c->out);
    c->tables = carve(a, p->memory || p->ensemble > 1, sizeof *c->tables);
    pool_layout(&c->own_pool, a, p->model || p->options.engine ? 1 : p->options.threads, 1);
    for (u32 i = 0; i < p->jobs; i++) {
        u8 *bytes = carve(a, p->block_size, 1), *code = carve(a, p->block_size, 1);
        struct mixer *mixer = carve_mixer(a, p->memory);
        megabyte_stream **its = carve(a, p->ensemble, sizeof *its);
        if (!a->base) continue;
        memset(&c->jobs[i], 0, sizeof c->jobs[i]);
        if (p->ensemble) memset(its, 0, p->ensemble * sizeof *its);
        c->jobs[i].streams = its;
        c->jobs[i].bytes = bytes;
        c->jobs[i].code = code;
        c->jobs[i].mixer = mixer;
    }
    for (int i = 0; i < 2; i++)
        c->dictionary_mixer[i] = shared              ? shared->dictionary_mixer[i]
                                 : takes_mixer(p, i) ? carve_mixer(a, p->memory)
                                                     : NULL;
}

/* The codec's own engine, if it makes one; a stream. */
static status parts_bytes(const struct plan *p, size_t *engine, size_t *stream) {
    const megabyte_engine_options own = own_engine(p);
    size_t usual = 0;
    status r = MEGABYTE_OK;
    if (!p->model) return r;
    if (!p->options.engine) {
        r = megabyte_engine_size(p->model, &own, engine);
        if (!r) r = megabyte_engine_size(p->model, NULL, &usual); /* counted in with the stream */
    }
    if (!r) r = megabyte_stream_size(p->model, &p->stream, stream);
    *stream -= r ? 0 : usual;
    return r;
}

megabyte_status megabyte_codec_size(const megabyte_model *model, megabyte_mode mode,
                                    const megabyte_codec_options *options, size_t *bytes) {
    struct plan p;
    megabyte_codec c;
    struct arena a = {.base = NULL};
    size_t engine = 0, stream = 0;
    if (!bytes) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    status r = make_plan(&p, model, mode, options, NULL);
    if (!r) r = parts_bytes(&p, &engine, &stream);
    if (r) return r;
    codec_layout(&c, &a, &p);
    u64 streams = (u64)p.jobs * p.ensemble +
                  (p.model && p.has_dictionary && !p.options.dictionary_of) + (p.kept > 0),
        sum = a.used + engine;
    if (!arena_fits(&a) || sum > SIZE_MAX / 2 ||
        (streams && stream > (SIZE_MAX / 2 - sum) / streams))
        return MEGABYTE_ERROR_OUT_OF_MEMORY;
    *bytes = (size_t)(sum + streams * stream);
    return MEGABYTE_OK;
}

void megabyte_codec_free(megabyte_codec *c) {
    if (!c) return;
    megabyte_allocator a = c->allocator;
    for (u32 i = 0; i < c->n_jobs; i++)
        for (u32 k = 0; k < c->ensemble; k++) megabyte_stream_free(c->jobs[i].streams[k]);
    if (!c->options.dictionary_of) megabyte_stream_free(c->dictionary);
    if (!c->options.dictionary_of) megabyte_stream_free(c->slid);
    pool_stop(&c->own_pool);
    if (c->owns_engine) megabyte_engine_free(c->engine);
    a.free(a.context, c, c->allocated);
}

void megabyte_codec_reset(megabyte_codec *c) {
    if (!c) return;
    c->n_out = c->next_out = c->filled = c->n_head = c->end_seen = 0;
    c->begun = c->finished = c->ended = c->flush = c->more = 0;
    c->pushed = c->blocks = c->files = c->member = c->declared = c->work = 0;
    c->state = IN_HEADER;
    for (u32 i = 0; i < c->n_jobs; i++) c->jobs[i].n = 0, c->jobs[i].bad = 0;
    c->reported = 0;
    memset(&c->counts, 0, sizeof c->counts);
    memset(&c->header, 0, sizeof c->header);
    /* decompressing: until the header says */
    c->header.context_shift = c->model ? c->options.context_shift : 0;
    c->header.mixing_memory = memory_megabytes(c->memory);
    c->header.contents = c->options.contents;
    c->header.channels = c->options.channels;
    c->header.ensemble = c->ensemble;
    clear_error(&c->error);
    sha256_begin(&c->whole);
}

/* Tells the caller how far the work is; 1 if it is to stop. */
static int cancelled(megabyte_codec *c, u64 done) {
    if (!c->options.progress) return 0;
    if (c->counts.original + done > c->reported) c->reported = c->counts.original + done;
    fp_leave(&c->caller); /* the callback is the caller's */
    int stop = c->options.progress(c->options.progress_context, c->reported);
    fp_enter(&c->caller);
    if (stop) fail(&c->error, MEGABYTE_ERROR_CANCELLED, c->counts.compressed, "cancelled");
    return stop != 0;
}

/* What every block or message begins with: a stream and mixers that have read the file type and
 * the dictionary. Mixing learns from the model's predictions of all of it, whatever is then in
 * view: a stream that ends so near its context's end that a message would make it slide again,
 * each time, reads the dictionary's end once more. 0 if cancelled. */
static int read_dictionary(megabyte_codec *c, const struct plan *p) {
    u8 digest[32];
    struct coder nowhere;
    const char *file_type = p->options.file_type;
    const u8 *bytes = p->options.dictionary;
    u64 n = p->options.dictionary_size, seen = min64(n, p->seen);
    sha256((const u8 *)file_type, file_type ? strlen(file_type) + 1 : 0, bytes, n, digest);
    memcpy(c->dictionary_id, digest, sizeof c->dictionary_id);
    for (int mixed = 0; mixed < 2; mixed++) {
        if (!c->dictionary_mixer[mixed]) continue;
        struct predictor by = {
            .streams = &c->dictionary, .ensemble = mixed != 0, .mixer = c->dictionary_mixer[mixed]};
        mixer_reset(by.mixer, c->tables, memory_log2(c->memory), (u32)mixed,
                    MEGABYTE_CONTENTS_GENERAL, 0, 0);
        begin_encoding(&nowhere, NULL, 0);
        for (u64 done = 0, some; done < n; done += some) {
            some = min64(n - done, piece_bytes(&by));
            if (cancelled(c, 0)) return 0;
            encode_bytes(&by, &nowhere, bytes + done, some);
        }
    }
    if (c->slid) megabyte_stream_feed(c->slid, bytes + (n - p->kept), (size_t)p->kept);
    if (!c->dictionary || (c->memory && seen == n)) return 1; /* it has read all */
    megabyte_stream_reset(c->dictionary);
    megabyte_stream_feed(c->dictionary, seen ? bytes + (n - seen) : NULL, (size_t)seen);
    return 1;
}

/* What does not lie in the codec's own memory, and threads. */
static status make_parts(megabyte_codec *c, struct plan *p, const megabyte_allocator *allocator,
                         megabyte_error *error) {
    const megabyte_engine_options own = own_engine(p);
    struct kernels kernels;
    status r = MEGABYTE_OK;
    c->engine = p->options.engine;
    if (p->model && !c->engine) {
        r = megabyte_engine_create(&c->engine, p->model, &own, allocator, error);
        c->owns_engine = !r;
    } else if (!c->engine) {
        r = choose_kernels(own.isa, &kernels, error);
        if (!r) r = check_arithmetic(&kernels, error); /* contents have regressions */
        if (!r) r = start_threads(&c->own_pool, error);
    }
    if (r) return r;
    c->pool = c->engine ? &c->engine->pool : &c->own_pool;
    if (c->memory || c->ensemble > 1)
        make_tables(c->tables, find_mix_kernels((c->engine ? &c->engine->kernels : &kernels)->isa));
    p->stream.engine = c->engine;
    for (u32 i = 0; i < p->jobs; i++)
        for (u32 k = 0; k < c->ensemble && !r; k++)
            r = megabyte_stream_create(&c->jobs[i].streams[k], p->model, &p->stream, allocator,
                                       error);
    const megabyte_codec *shared = p->options.dictionary_of;
    if (shared) c->dictionary = shared->dictionary, c->slid = shared->slid;
    else if (p->model && p->has_dictionary && !r)
        r = megabyte_stream_create(&c->dictionary, p->model, &p->stream, allocator, error);
    if (p->kept && !r) r = megabyte_stream_create(&c->slid, p->model, &p->stream, allocator, error);
    return r;
}

megabyte_status megabyte_codec_create(megabyte_codec **codec, const megabyte_model *model,
                                      megabyte_mode mode, const megabyte_codec_options *options,
                                      const megabyte_allocator *allocator, megabyte_error *error) {
    struct plan p;
    megabyte_allocator memory;
    megabyte_codec *c, sizes;
    struct arena a = {.base = NULL};
    void *object = NULL;
    clear_error(error);
    if (codec) *codec = NULL;
    if (!codec) return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "codec must not be NULL");
    status r = choose_allocator(&memory, allocator, error);
    if (!r) r = make_plan(&p, model, mode, options, error);
    if (r) return r;
    codec_layout(&sizes, &a, &p);
    size_t bytes = (size_t)a.used;
    r = new_object(&object, &memory, arena_fits(&a) ? MEGABYTE_OK : MEGABYTE_ERROR_OUT_OF_MEMORY,
                   bytes, "a codec", error);
    if (r) return r;
    advise_large_pages(object, bytes);
    c = object;
    memset(c, 0, sizeof *c);
    a.base = object;
    a.used = 0;
    codec_layout(c, &a, &p);
    c->allocator = memory;
    c->allocated = bytes;
    c->model = p.model;
    c->mode = mode;
    c->options = p.options;
    c->options.dictionary = NULL; /* they need not live on */
    c->options.file_type = NULL;
    c->has_dictionary = p.has_dictionary;
    r = make_parts(c, &p, allocator, error);
    fp_enter(&c->caller);
    if (p.options.dictionary_of)
        memcpy(c->dictionary_id, p.options.dictionary_of->dictionary_id, sizeof c->dictionary_id);
    else if (!r && c->has_dictionary && !read_dictionary(c, &p))
        r = fail(error, MEGABYTE_ERROR_CANCELLED, 0, "cancelled while the dictionary was read");
    fp_leave(&c->caller);
    if (r) {
        megabyte_codec_free(c);
        return r;
    }
    megabyte_codec_reset(c);
    *codec = c;
    return MEGABYTE_OK;
}

const megabyte_error *megabyte_codec_error(const megabyte_codec *c) {
    static const megabyte_error none;
    return c ? &c->error : &none;
}

void megabyte_codec_statistics(const megabyte_codec *c, megabyte_statistics *counts) {
    if (c && counts) *counts = c->counts;
}

/* ---- blocks */

/* The streams of an ensemble stand at different places of a patch: before the block, each reads so
 * many more bytes that are no part of it. */
static void begin_stream(const megabyte_codec *c, megabyte_stream *s, u32 k) {
    u8 filler[16];
    u32 patches = c->model->stage[0].size.positions >> c->header.context_shift,
        n = k * (u32)c->model->stage[0].bytes / c->header.ensemble;
    megabyte_stream_reset(s);
    s->patches = patches > least_patches(c->model) ? patches : least_patches(c->model);
    int silence = c->header.contents && c->header.mixing_memory; /* else contents are not kept */
    memset(filler, silence ? 0xff : '\n', sizeof filler);
    for (u32 some; n; n -= some) {
        some = min32(n, sizeof filler);
        megabyte_stream_feed(s, filler, some);
    }
}

/* A block's or message's predictor at its beginning. */
static struct predictor start(const megabyte_codec *c, megabyte_method method,
                              const struct block_job *l) {
    struct predictor by = {.streams = l->streams,
                           .ensemble = uses_model(method) ? c->header.ensemble : 0,
                           .tables = c->tables,
                           .mixer = uses_mixing(method) ? l->mixer : NULL};
    u32 memory = memory_log2(memory_code(c->header.mixing_memory));
    if (by.ensemble && c->has_dictionary) {
        megabyte_stream *s = l->streams[0];
        megabyte_stream_copy(s, c->dictionary); /* cannot fail between streams made alike */
        by.slid = c->slid;
        by.free = s->patches * c->model->stage[0].bytes - ahead(c->model) - (s->position - s->base);
    } else {
        for (u32 k = 0; k < by.ensemble; k++) begin_stream(c, l->streams[k], k);
    }
    if (by.mixer && c->has_dictionary) {
        mixer_copy(by.mixer, c->dictionary_mixer[by.ensemble != 0], memory);
        by.mixer->tables = c->tables; /* not those of a codec that shares the dictionary */
    } else if (by.mixer) {
        u32 version = c->mode == MEGABYTE_MODE_DECOMPRESS ? c->header.format_version : FILE_VERSION;
        mixer_reset(by.mixer, c->tables, memory, by.ensemble, c->header.contents,
                    c->header.channels, version);
    }
    return by;
}

static int best_method(const megabyte_codec *c) {
    return !c->model   ? MEGABYTE_METHOD_CONTEXT_MIXING
           : c->memory ? MEGABYTE_METHOD_MIXED
                       : MEGABYTE_METHOD_MODEL;
}

static void add_check(megabyte_codec *c, const struct block_job *l, u8 check[CHECK_BYTES]) {
    u8 digest[32];
    sha256(l->bytes, l->n, NULL, 0, digest);
    memcpy(check, digest, CHECK_BYTES);
    sha256_add(&c->whole, l->bytes, l->n);
}

/* How the bytes of a block that has begun are ordered. */
static struct pcm_format order_of(const struct block_job *l) {
    const struct pcm_format as_they_are = {0};
    return l->by.mixer && l->by.mixer->pcm ? l->by.mixer->pcm->format : as_they_are;
}

/* Codes the block's first n bytes; `before`: bytes of the jobs before it. *late is what their
 * second half comes to, in bits; the block is given up if that is more than `most`. 0 if
 * cancelled. */
static int encode_block(megabyte_codec *c, struct block_job *l, megabyte_method method, u32 n,
                        u64 before, double *late, double most) {
    u32 half = min32(n, TRIAL) / 2, trial = 2 * half;
    l->method = method;
    l->by = start(c, method, c->jobs);
    const struct pcm_format format = order_of(l);
    u8 samples[PIECE];
    begin_encoding(&l->coder, l->code, l->n - 1);
    for (u32 done = 0, some; done < n && l->coder.n <= l->coder.capacity; done += some) {
        if (done == half) *late = -l->by.ideal;
        if (done == trial && done && (*late += l->by.ideal) > most) return 1;
        if (cancelled(c, before + done)) return 0;
        u32 next = done < half ? half : done < trial ? trial : n;
        some = (u32)min64(next - done, piece_bytes(&l->by));
        for (u32 i = 0; format.bytes && i < some; i++)
            samples[i] = l->bytes[pcm_place(&format, l->n, done + i)] ^ pcm_flip(&format, done + i);
        encode_bytes(&l->by, &l->coder, format.bytes ? samples : l->bytes + done, some);
    }
    if (n == trial) *late += l->by.ideal;
    end_encoding(&l->coder);
    return 1;
}

/* Does a block, coded by contexts now, begin with what tells little of the rest (silence before
 * speech, zeros before text)? late: bits of the trial's second half. Not where the rest is as dense
 * as noise, or the whole not worth the model's time. */
static int is_trial_misleading(const struct block_job *l, u32 trial, double late) {
    const double bits = l->by.ideal, n = l->n;
    return bits > n && bits * trial > 4 * late * n && bits < 7.5 * (n - trial);
}

/* Makes the code by contexts and the model, or by contexts alone. These are tried on the block's
 * beginning: where the model gains less than half a percent there, it is not worth its time. What
 * was coded of the beginning is not kept: to go on from it would take a second mixer's memory (up
 * to 64 MB) and save what context mixing alone takes there, a hundredth of the model's time. 0 if
 * cancelled. */
static int encode_mixed(megabyte_codec *c, struct block_job *l, u64 before) {
    const u32 trial = min32(l->n, TRIAL);
    double contexts = 0, mixed = 0, most = INFINITY, ignored;
    if (!encode_block(c, l, MEGABYTE_METHOD_CONTEXT_MIXING, trial, before, &contexts, INFINITY))
        return 0;
    u64 whole = l->coder.n;
    if (trial < l->n) most = contexts * 0.995;
    if (!encode_block(c, l, MEGABYTE_METHOD_MIXED, l->n, before, &mixed, most)) return 0;
    /* beyond the capacity it may not have got as far as the trial's end */
    if (l->coder.n <= l->coder.capacity && (trial < l->n ? mixed <= most : l->coder.n < whole))
        return 1;
    if (!encode_block(c, l, MEGABYTE_METHOD_CONTEXT_MIXING, l->n, before, &ignored, INFINITY))
        return 0;
    whole = l->coder.n;
    if (trial == l->n || !is_trial_misleading(l, trial, contexts)) return 1;
    if (!encode_block(c, l, MEGABYTE_METHOD_MIXED, l->n, before, &ignored, INFINITY)) return 0;
    if (l->coder.n < whole) return 1;
    return encode_block(c, l, MEGABYTE_METHOD_CONTEXT_MIXING, l->n, before, &ignored, INFINITY);
}

/* Chooses the method and makes the code. 0 if cancelled. */
static int encode_job(megabyte_codec *c, struct block_job *l, u64 before) {
    u32 same = 1;
    double ignored;
    while (same < l->n && l->bytes[same] == l->bytes[0]) same++;
    l->method = MEGABYTE_METHOD_STORED;
    l->n_code = l->n;
    if (l->n > 1 && same == l->n) {
        l->method = MEGABYTE_METHOD_CONSTANT;
        l->n_code = 1;
        l->code[0] = l->bytes[0];
    } else if (l->n) {
        megabyte_method method = best_method(c);
        if (!(method == MEGABYTE_METHOD_MIXED
                  ? encode_mixed(c, l, before)
                  : encode_block(c, l, method, l->n, before, &ignored, INFINITY)))
            return 0;
        method = l->method;
        l->method = MEGABYTE_METHOD_STORED;
        if (l->coder.n <= l->coder.capacity) {
            l->method = method;
            l->n_code = (u32)l->coder.n;
            c->counts.ideal_bits += l->by.ideal;
            c->counts.model_bits += l->by.alone;
            c->counts.coded_bits += 8 * l->coder.n;
        }
    }
    return !cancelled(c, before + l->n);
}

/* The next byte of n jobs whose method is the same, and those after it that were drafted. */
static void decode_at_once(megabyte_codec *c, struct block_job **jobs, u32 n) {
    const struct predictor *by[MOST_AT_ONCE] = {&jobs[0]->by};
    struct coder *coders[MOST_AT_ONCE] = {&jobs[0]->coder};
    u8 bytes[MOST_AT_ONCE];
    for (u32 i = 0; i < n; i++) by[i] = &jobs[i]->by, coders[i] = &jobs[i]->coder;
    decode_bytes(by, coders, n, bytes);
    for (u32 i = 0; i < n; i++) {
        struct block_job *l = jobs[i];
        const struct pcm_format format = order_of(l);
        u8 *to = l->bytes + pcm_place(&format, l->n, l->done);
        bytes[i] ^= pcm_flip(&format, l->done);
        if (!c->verifying) *to = bytes[i];
        l->bad = *to != bytes[i] || beyond_end(&l->coder);
        l->done += !l->bad;
        l->waiting = 0;
        for (u32 k = 0; k < l->by.ensemble && !l->bad && l->done < l->n; k++)
            l->waiting |= (u32)!take_drafted(l->by.streams[k], bytes[i]) << k;
    }
}

/* The next byte of every active job whose stream all are waiting for; of the others a good many,
 * so that their contexts stay in the caches: PROGRESS_BYTES bytes of all together, after which the
 * caller hears of progress. Run by every thread of the pool. */
#define PROGRESS_BYTES 65536u
static void decode_step(void *context, int leads) {
    megabyte_codec *c = context;
    struct worker at = {.leads = leads};
    u32 most = PROGRESS_BYTES / min32(c->n_active, 16);
    for (struct phase p = next_phase(c->pool, &at, c->n_active); claim(&p);)
        for (u32 i = p.from, n; i < p.to; i += n) {
            struct block_job **jobs = c->active + i;
            u32 ensemble = jobs[0]->by.ensemble;
            n = min32(p.to - i, ensemble ? MOST_AT_ONCE / ensemble : 1);
            for (u32 k = 1; k < n; k++)
                if (jobs[k]->method != jobs[0]->method) n = k;
            u32 length = ensemble ? 1 : min32(jobs[0]->n - jobs[0]->done, most);
            while (length-- && !jobs[0]->bad) decode_at_once(c, jobs, n);
            for (u32 k = 0; k < n; k++) /* drafts that prove right go on alone */
                while (ensemble && !jobs[k]->waiting && !jobs[k]->bad && jobs[k]->done < jobs[k]->n)
                    decode_at_once(c, &jobs[k], 1);
        }
}

/* Streams side by side read the weights once for all, as drafted bytes do, and none of theirs are
 * wrong: more than this many draft nothing. */
#define MOST_DRAFTING 4

/* Decodes the first `count` jobs side by side, into their bytes or, to verify, beside them; sets
 * `bad` where the code is wrong. 0 if cancelled. */
static int decode_jobs(megabyte_codec *c, u32 count, int verify) {
    u64 all = 0;
    c->n_active = 0;
    c->verifying = verify;
    for (u32 i = 0; i < count; i++) {
        struct block_job *l = &c->jobs[i];
        all += l->n;
        l->done = 0;
        l->bad = 0;
        if (l->method <= MEGABYTE_METHOD_CONSTANT) {
            if (!verify && l->method == MEGABYTE_METHOD_STORED) memcpy(l->bytes, l->code, l->n);
            if (!verify && l->method == MEGABYTE_METHOD_CONSTANT)
                memset(l->bytes, l->code[0], l->n);
            l->done = l->n;
        } else {
            begin_decoding(&l->coder, l->code, l->n_code);
            l->by = start(c, l->method, l);
            for (u32 k = 0; k < l->by.ensemble; k++)
                l->streams[k]->draft.steps = l->streams[k]->draft.passes = 0;
            c->active[c->n_active++] = l;
        }
    }
    u64 told = 0, often = 64 * (u64)count; /* by bytes: steps come in drafts */
    for (u32 step = 0; c->n_active; step++) {
        u32 active = 0, streams = 0;
        u64 done = 0;
        for (u32 i = 0; i < count; i++) done += c->jobs[i].done;
        if (!step || done / often > told / often) {
            told = done;
            if (cancelled(c, verify ? all : done)) return 0;
        }
        pool_run(c->pool, decode_step, c);
        for (u32 i = 0; i < c->n_active; i++) {
            struct block_job *l = c->active[i];
            if (l->bad || l->done == l->n) {
                l->bad |= !ends_decoding(&l->coder);
                for (u32 k = 0; k < l->by.ensemble && !verify; k++) {
                    c->counts.steps += l->streams[k]->draft.steps;
                    c->counts.passes += l->streams[k]->draft.passes;
                }
                continue;
            }
            c->active[active++] = l;
            for (u32 k = 0; k < l->by.ensemble; k++) {
                if (!(l->waiting >> k & 1)) continue;
                c->step[streams] = l->bytes[l->done - 1];
                c->follow[streams] = c->n_active * l->by.ensemble > MOST_DRAFTING ? 0
                                                                                  : l->n - l->done;
                c->stepped[streams++] = l->by.streams[k];
            }
        }
        c->n_active = active;
        if (streams) step_drafting(c->stepped, c->step, c->follow, streams);
    }
    return !cancelled(c, all);
}

/* ---- messages of a codec */

static status message_arguments(megabyte_codec *c, const void *from, size_t n, const void *to,
                                size_t capacity, const size_t *n_to) {
    if (!c || c->mode != MEGABYTE_MODE_MESSAGES) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    clear_error(&c->error);
    if ((!n || from) && (!capacity || to) && n_to) return MEGABYTE_OK;
    return fail(&c->error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                "the bytes, the code and where its length goes must not be NULL");
}

megabyte_status megabyte_codec_encode(megabyte_codec *c, const void *bytes, size_t n, void *coded,
                                      size_t capacity, size_t *n_coded) {
    struct predictor by;
    fp_state fp;
    status r = message_arguments(c, bytes, n, coded, capacity, n_coded);
    if (!r) r = check_message(n, capacity, message_limit(c->options.limit), &c->error);
    if (r) return r;
    fp_enter(&fp);
    by = start(c, best_method(c), c->jobs);
    *n_coded = (size_t)encode_message(&by, bytes, n, coded);
    fp_leave(&fp);
    return MEGABYTE_OK;
}

megabyte_status megabyte_codec_decode(megabyte_codec *c, const void *coded, size_t n_coded,
                                      void *bytes, size_t capacity, size_t *n) {
    struct predictor by;
    struct claim m;
    fp_state fp;
    if (n) *n = 0;
    status r = message_arguments(c, coded, n_coded, bytes, capacity, n);
    if (!r) r = read_claim(&m, coded, n_coded, message_limit(c->options.limit), &c->error);
    if (r) return r;
    *n = (size_t)m.length;
    if ((r = check_room(&m, capacity, &c->error))) return r;
    fp_enter(&fp);
    by = start(c, best_method(c), c->jobs);
    r = decode_message(&by, &m, bytes, n, &c->error);
    fp_leave(&fp);
    return r;
}

/* ---- pushing and pulling */

static void emit(megabyte_codec *c, const u8 *at, u64 n) {
    struct span span = {.at = at, .n = n};
    if (n) c->out[c->n_out++] = span;
}

/* Where a header is for its jobs' data, or the whole file is one block. */
static void begin_file(megabyte_codec *c, const struct block_job *single) {
    megabyte_file_header *h = &c->header;
    h->has_model = c->model != NULL;
    h->numerics_version = MEGABYTE_NUMERICS_VERSION;
    if (c->model) memcpy(h->model_id, c->model->id, MODEL_ID_BYTES);
    memcpy(h->dictionary_id, c->dictionary_id, sizeof h->dictionary_id);
    h->has_dictionary = c->has_dictionary;
    h->size = single ? single->n : c->options.size ? c->options.size : MEGABYTE_SIZE_UNKNOWN;
    h->block_size = c->block_size;
    if (single) {
        h->single = 1;
        h->method = single->method;
        /* nothing that a small codec could not decode */
        if (!uses_mixing(h->method)) h->mixing_memory = 0;
        if (!uses_model(h->method)) h->ensemble = min32(h->ensemble, 1);
        h->coded = single->n_code;
    }
    if (!h->mixing_memory) h->contents = MEGABYTE_CONTENTS_GENERAL; /* no difference */
    if (!h->contents) h->channels = 0;
    h->format_version = h->contents == MEGABYTE_CONTENTS_MULAW && h->has_model ? 6
                        : h->ensemble > 1                                      ? 5
                        : h->channels                                          ? 4
                        : h->contents                                          ? 3
                        : h->has_model                                         ? 1
                                                                               : 2;
    c->n_head = write_file_header(h, c->head);
    emit(c, c->head, c->n_head);
    c->begun = 1;
}

/* Codes what was gathered, if it is time to. */
static void compress_blocks(megabyte_codec *c) {
    u32 count = c->filled + (c->filled < c->n_jobs && c->jobs[c->filled].n);
    u64 before = 0;
    if (c->ended || !(c->finished || (c->flush && count) || (c->more && c->filled == c->n_jobs)))
        return;
    if (c->finished && c->options.size && c->pushed != c->options.size) {
        fail(&c->error, MEGABYTE_ERROR_INVALID_ARGUMENT, c->pushed,
             "%llu bytes came, not the %llu announced", (unsigned long long)c->pushed,
             (unsigned long long)c->options.size);
        return;
    }
    int single = c->finished && !c->begun && count <= 1;
    for (u32 i = 0; i < count || (single && !i); before += c->jobs[i].n, i++)
        if (!encode_job(c, &c->jobs[i], before)) return;
    if (c->options.verify && !decode_jobs(c, count, 1)) return;
    if (!c->begun) begin_file(c, single ? c->jobs : NULL);
    for (u32 i = 0; i < count || (single && !i); i++) {
        struct block_job *l = &c->jobs[i];
        u32 coded;
        if (c->options.verify && l->bad) {
            fail(&c->error, MEGABYTE_ERROR_CORRUPT, 0,
                 "block %llu did not decode to its bytes: a defect of this "
                 "machine or of megabyte, please report it",
                 (unsigned long long)c->blocks);
            return;
        }
        add_check(c, l, l->check);
        if (!single) {
            l->head[0] = (u8)(l->method + 1);
            l->n_head = 1 + put_varint(l->head + 1, l->n);
            if (!code_is_implied(l->method, l->n, &coded))
                l->n_head += put_varint(l->head + l->n_head, l->n_code);
            memcpy(l->head + l->n_head, l->check, CHECK_BYTES);
            l->n_head += CHECK_BYTES;
            emit(c, l->head, l->n_head);
        }
        emit(c, l->method == MEGABYTE_METHOD_STORED ? l->bytes : l->code, l->n_code);
        if (single) emit(c, l->check, CHECK_BYTES);
        c->counts.original += l->n;
        c->counts.blocks[l->method] += l->n || single;
        c->blocks++;
    }
    if (c->finished) {
        u8 digest[32];
        sha256_end(&c->whole, digest);
        c->end[0] = 0;
        memcpy(c->end + 1, digest, WHOLE_BYTES);
        if (!single) emit(c, c->end, 1 + WHOLE_BYTES);
        c->ended = 1;
    }
    for (u32 i = 0; i < c->n_out; i++) c->counts.compressed += c->out[i].n;
}

/* Decodes the gathered blocks, if it is time to, and checks the file's end. */
static void decompress_blocks(megabyte_codec *c) {
    u32 count = c->filled;
    if (count &&
        (count == c->n_jobs || c->finished || c->flush || c->end_seen || c->error.status)) {
        megabyte_error later = c->error; /* found while gathering what follows */
        clear_error(&c->error);
        if (!decode_jobs(c, count, 0)) {
            c->filled = 0; /* cancelled: that stays */
            return;
        }
        for (u32 i = 0; i < count; i++) {
            struct block_job *l = &c->jobs[i];
            u8 check[CHECK_BYTES];
            add_check(c, l, check);
            if (l->bad || memcmp(check, l->check, CHECK_BYTES)) {
                fail(&c->error, MEGABYTE_ERROR_CORRUPT, l->at,
                     "block %llu, at offset %llu, is damaged: its %s", (unsigned long long)l->index,
                     (unsigned long long)l->at,
                     l->bad ? "code is not one that compressing gives"
                            : "bytes do not match their checksum");
                c->filled = 0; /* nothing more is to come, after the intact blocks before it */
                return;
            }
            emit(c, l->bytes, l->n);
            c->counts.original += l->n;
            c->counts.blocks[l->method]++;
            c->counts.compressed = l->at + l->n_head + l->n_code;
            if (l->method > MEGABYTE_METHOD_CONSTANT) c->counts.coded_bits += 8ULL * l->n_code;
        }
        c->error = later;
        c->filled = 0;
        c->flush = 0;
        if (c->state == IN_CODE && count < c->n_jobs) { /* a block is on its way already */
            struct block_job half = c->jobs[count];
            c->jobs[count] = c->jobs[0];
            c->jobs[0] = half;
        }
    }
    if (c->end_seen && !c->filled) {
        u8 digest[32];
        sha256_end(&c->whole, digest);
        if (!c->header.single && memcmp(digest, c->end + 1, WHOLE_BYTES))
            fail(&c->error, MEGABYTE_ERROR_CORRUPT, c->pushed,
                 "every block is intact, but the file's checksum, "
                 "before offset %llu, does not match: blocks are missing or out of order",
                 (unsigned long long)c->pushed);
        sha256_begin(&c->whole);
        c->end_seen = 0;
        c->counts.compressed = c->pushed;
    }
}

/* The next job begins to gather the code of a block. Its checksum comes before or after. */
static void begin_job(megabyte_codec *c, megabyte_method method, u32 n, u32 n_code) {
    struct block_job *l = &c->jobs[c->filled];
    c->declared += n;
    c->member += n;
    if (c->options.limit && c->declared > c->options.limit) {
        fail(&c->error, MEGABYTE_ERROR_LIMIT, c->pushed,
             "this decodes to %llu bytes or more, over the limit of %llu",
             (unsigned long long)c->declared, (unsigned long long)c->options.limit);
        return;
    }
    /* Headers are cheap to forge: 30 bytes can claim hours of work. */
    c->work += uses_model(method) ? (u64)n * c->header.ensemble
                                  : n / (c->header.contents ? 8 : 128);
    if (c->options.max_ratio && c->work > MEGABYTE_RATIO_FREE && /* a product could wrap */
        (c->work - MEGABYTE_RATIO_FREE - 1) / c->options.max_ratio >= c->pushed + n_code) {
        fail(&c->error, MEGABYTE_ERROR_LIMIT, c->pushed,
             "%llu compressed bytes claim to be %llu or more, over the limit on ratio",
             (unsigned long long)(c->pushed + n_code), (unsigned long long)c->declared);
        return;
    }
    l->method = method;
    l->n = n;
    l->n_code = n_code;
    l->done = 0;
    l->index = c->blocks++;
    l->at = c->pushed - c->n_head;
    l->n_head = c->n_head;
    c->state = IN_CODE;
}

/* A header is complete: can this codec decode the file? */
static void accept_file(megabyte_codec *c) {
    const megabyte_file_header *h = &c->header;
    u64 at = c->pushed - c->n_head;
    char id[2][2 * MODEL_ID_BYTES + 1];
    for (u32 i = 0; i < MODEL_ID_BYTES; i++) {
        snprintf(id[0] + 2 * i, 3, "%02x", h->model_id[i]);
        if (c->model) snprintf(id[1] + 2 * i, 3, "%02x", c->model->id[i]);
    }
    if (h->has_model && !c->model)
        fail(&c->error, MEGABYTE_ERROR_WRONG_MODEL, at,
             "compressed with the model %s, which decompressing needs, too", id[0]);
    else if (h->has_model && memcmp(h->model_id, c->model->id, MODEL_ID_BYTES))
        fail(&c->error, MEGABYTE_ERROR_WRONG_MODEL, at,
             "compressed with the model %s, but this one is %s", id[0], id[1]);
    else if (h->numerics_version != MEGABYTE_NUMERICS_VERSION)
        fail(&c->error, MEGABYTE_ERROR_BAD_VERSION, at,
             "compressed with numerics %u, but this megabyte has %u: "
             "use %s one",
             h->numerics_version, MEGABYTE_NUMERICS_VERSION,
             h->numerics_version > MEGABYTE_NUMERICS_VERSION ? "a newer" : "an older");
    else if (h->has_dictionary != c->has_dictionary ||
             (h->has_dictionary && memcmp(h->dictionary_id, c->dictionary_id, 4)))
        fail(&c->error, MEGABYTE_ERROR_WRONG_DICTIONARY, at,
             "compressed %s: give the same to decompress",
             !h->has_dictionary  ? "without a dictionary"
             : c->has_dictionary ? "with another dictionary or file type"
                                 : "with a dictionary or file type");
    else if (h->block_size > c->block_size)
        fail(&c->error, MEGABYTE_ERROR_CAPACITY, at,
             "blocks of %u bytes need a codec made for them (option block_size), not for %u",
             h->block_size, c->block_size);
    else if (h->has_model && (h->context_shift < c->options.context_shift ||
                              (h->has_dictionary && h->context_shift != c->options.context_shift)))
        fail(&c->error, MEGABYTE_ERROR_CAPACITY, at,
             "a context shifted by %u needs a codec made for it (option context_shift), not for %u",
             h->context_shift, c->options.context_shift);
    else if (h->ensemble > c->ensemble)
        fail(&c->error, MEGABYTE_ERROR_CAPACITY, at,
             "an ensemble of %u needs a codec made for it (option ensemble), not for %u",
             h->ensemble, c->ensemble);
    else if (memory_code(h->mixing_memory) > c->memory ||
             (h->has_dictionary && h->mixing_memory && memory_code(h->mixing_memory) != c->memory))
        fail(&c->error, MEGABYTE_ERROR_CAPACITY, at,
             "context mixing in %u MB needs a codec made for %s (option mixing_memory), not %u",
             h->mixing_memory, h->has_dictionary ? "just that, as there is a dictionary" : "that",
             memory_megabytes(c->memory));
    else if (h->single) begin_job(c, h->method, h->block_size, h->coded);
    else c->state = IN_BLOCK;
}

/* Takes a header's next byte, or finds out what is wrong with it. */
static void gather_header(megabyte_codec *c, u8 byte) {
    megabyte_error error;
    megabyte_block_header b;
    status r;
    c->head[c->n_head++] = byte;
    c->pushed++;
    u64 at = c->pushed - c->n_head;
    if (c->state == IN_HEADER) {
        if (c->n_head == 1) c->member = c->blocks = 0;
        r = megabyte_file_header_read(c->head, c->n_head, &c->header, &error);
        if (r == MEGABYTE_ERROR_BAD_MAGIC && c->files)
            fail(&c->error, MEGABYTE_ERROR_TRAILING_DATA, at,
                 "all was decoded, but what follows at offset %llu is "
                 "not compressed data",
                 (unsigned long long)at);
        else if (r && r != MEGABYTE_ERROR_TRUNCATED)
            fail(&c->error, r, at, "%s (file at offset %llu)", error.text, (unsigned long long)at);
        if (r) return;
        c->files++;
        accept_file(c);
    } else if (c->state == IN_BLOCK) {
        r = megabyte_block_header_read(c->head, c->n_head, &c->header, &b, &error);
        if (r == MEGABYTE_ERROR_TRUNCATED) return;
        if (r) {
            fail(&c->error, r, at, "block %llu, at offset %llu: its header is damaged",
                 (unsigned long long)c->blocks, (unsigned long long)at);
        } else if (b.method < 0) {
            if (c->header.size != MEGABYTE_SIZE_UNKNOWN && c->header.size != c->member)
                fail(&c->error, MEGABYTE_ERROR_CORRUPT, at,
                     "the file ends after %llu bytes, but its header said "
                     "%llu",
                     (unsigned long long)c->member, (unsigned long long)c->header.size);
            memcpy(c->end, c->head, 1 + WHOLE_BYTES);
            c->end_seen = 1;
            c->state = IN_HEADER;
        } else {
            memcpy(c->jobs[c->filled].check, c->head + b.header_bytes - CHECK_BYTES, CHECK_BYTES);
            begin_job(c, b.method, b.size, b.coded);
        }
    } else {
        if (c->n_head < CHECK_BYTES) return;
        memcpy(c->jobs[c->filled++].check, c->head, CHECK_BYTES);
        c->end_seen = 1;
        c->state = IN_HEADER;
    }
    c->n_head = 0;
}

static size_t gather(megabyte_codec *c, const u8 *from, size_t n) {
    size_t consumed = 0;
    for (;;) {
        struct block_job *l = &c->jobs[min32(c->filled, c->n_jobs - 1)];
        if (c->error.status || c->end_seen || c->filled == c->n_jobs) return consumed;
        if (c->state == IN_CODE) { /* a block may have no code at all */
            u32 some = (u32)min64(l->n_code - l->done, n - consumed);
            if (some) memcpy(l->code + l->done, from + consumed, some);
            l->done += some;
            consumed += some;
            c->pushed += some;
            if (l->done < l->n_code) return consumed;
            c->state = c->header.single ? IN_CHECK : IN_BLOCK;
            if (!c->header.single) c->filled++;
        } else {
            if (consumed == n) return consumed;
            gather_header(c, from[consumed++]);
        }
    }
}

static size_t collect(megabyte_codec *c, const u8 *from, size_t n) {
    size_t consumed = 0;
    while (consumed < n && c->filled < c->n_jobs) {
        struct block_job *l = &c->jobs[c->filled];
        u32 some = (u32)min64(c->block_size - l->n, n - consumed);
        memcpy(l->bytes + l->n, from + consumed, some);
        l->n += some;
        consumed += some;
        if (l->n == c->block_size) c->filled++;
    }
    c->more = consumed < n; /* only then is a full codec known not to be at the end */
    c->pushed += consumed;
    return consumed;
}

megabyte_status megabyte_codec_push(megabyte_codec *c, const void *bytes, size_t n,
                                    size_t *consumed) {
    if (consumed) *consumed = 0;
    if (!c || (n && !bytes) || !consumed) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (c->mode == MEGABYTE_MODE_MESSAGES) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (!n || c->n_out) return MEGABYTE_OK; /* pull first */
    if (c->error.status && !(c->mode == MEGABYTE_MODE_DECOMPRESS && c->filled))
        return c->error.status;
    if (c->finished) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (c->mode == MEGABYTE_MODE_DECOMPRESS) *consumed = gather(c, bytes, n);
    else if (c->options.size && n > c->options.size - c->pushed)
        return fail(&c->error, MEGABYTE_ERROR_INVALID_ARGUMENT, c->pushed,
                    "more bytes come than the %llu "
                    "announced",
                    (unsigned long long)c->options.size);
    else *consumed = collect(c, bytes, n);
    return MEGABYTE_OK;
}

megabyte_status megabyte_codec_pull(megabyte_codec *c, void *bytes, size_t capacity,
                                    size_t *produced) {
    u8 *to = bytes;
    if (produced) *produced = 0;
    if (!c || (capacity && !to) || !produced || c->mode == MEGABYTE_MODE_MESSAGES)
        return MEGABYTE_ERROR_INVALID_ARGUMENT;
    for (;;) {
        while (c->next_out < c->n_out) {
            struct span *span = &c->out[c->next_out];
            size_t some = (size_t)min64(span->n, capacity - *produced);
            if (!some) return MEGABYTE_OK;
            memcpy(to + *produced, span->at, some);
            *produced += some;
            span->at += some;
            span->n -= some;
            c->next_out += !span->n;
        }
        if (c->n_out && c->mode == MEGABYTE_MODE_COMPRESS) {
            for (u32 i = 0; i < c->n_jobs; i++) c->jobs[i].n = 0;
            c->filled = 0;
            c->more = c->flush = 0;
        }
        c->n_out = c->next_out = 0;
        if (*produced) return MEGABYTE_OK;
        if (c->error.status && (c->mode == MEGABYTE_MODE_COMPRESS || !c->filled))
            return c->error.status;
        fp_enter(&c->caller);
        if (c->mode == MEGABYTE_MODE_COMPRESS) compress_blocks(c);
        else decompress_blocks(c);
        fp_leave(&c->caller);
        if (!c->n_out) return c->error.status;
        if (!capacity) return MEGABYTE_OK;
    }
}

megabyte_status megabyte_codec_flush(megabyte_codec *c) {
    if (!c) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    c->flush = c->filled || (c->mode == MEGABYTE_MODE_COMPRESS && c->jobs[0].n);
    return MEGABYTE_OK;
}

megabyte_status megabyte_codec_finish(megabyte_codec *c) {
    if (!c) return MEGABYTE_ERROR_INVALID_ARGUMENT;
    c->finished = 1;
    if (c->mode == MEGABYTE_MODE_DECOMPRESS && !c->error.status && !c->end_seen && c->files &&
        c->state == IN_HEADER && c->n_head && c->n_head < sizeof file_magic)
        fail(&c->error, MEGABYTE_ERROR_TRAILING_DATA, c->pushed - c->n_head,
             "all was decoded, but %u bytes follow", c->n_head);
    else if (c->mode == MEGABYTE_MODE_DECOMPRESS && !c->error.status && !c->end_seen &&
             (c->state != IN_HEADER || c->n_head || !c->files))
        fail(&c->error, MEGABYTE_ERROR_TRUNCATED, c->pushed,
             "the compressed data ends too early, at offset %llu", (unsigned long long)c->pushed);
    return MEGABYTE_OK;
}

/* ---- in memory */

/* The bound of blocks of 16 KB and more: 8 to 11 bytes of header for each that is stored. */
size_t megabyte_compress_bound(size_t n) {
    return n <= SIZE_MAX - n / 2000 - 64 ? n + n / 2000 + 64 : SIZE_MAX;
}

static status code_at_once(const megabyte_model *model, megabyte_mode mode,
                           const megabyte_codec_options *options, const u8 *bytes, size_t n,
                           u8 *out, size_t capacity, size_t *n_out,
                           const megabyte_allocator *allocator, megabyte_error *error) {
    megabyte_codec_options o = {0};
    megabyte_codec *c;
    if (options) o = *options;
    if (n_out) *n_out = 0;
    if ((n && !bytes) || (capacity && !out) || !n_out)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "bytes, out and n_out must not be NULL");
    if (mode == MEGABYTE_MODE_COMPRESS) o.size = n;
    status r = megabyte_codec_create(&c, model, mode, &o, allocator, error);
    if (r) return r;
    for (size_t produced = 0; !r && (n || !c->finished || produced);) {
        size_t consumed = 0;
        if (n && (r = megabyte_codec_push(c, bytes, n, &consumed))) break;
        if (n) bytes += consumed;
        n -= consumed;
        if (!n && !c->finished) megabyte_codec_finish(c);
        r = megabyte_codec_pull(c, out ? out + *n_out : NULL, capacity - *n_out, &produced);
        *n_out += produced;
        if (!r && !produced && c->n_out)
            r = fail(&c->error, MEGABYTE_ERROR_CAPACITY, c->pushed,
                     "the output does not fit into %llu bytes", (unsigned long long)capacity);
    }
    if (error) *error = c->error;
    megabyte_codec_free(c);
    return r;
}

megabyte_status megabyte_compress(const megabyte_model *model,
                                  const megabyte_codec_options *options, const void *bytes,
                                  size_t n, void *out, size_t capacity, size_t *n_out,
                                  const megabyte_allocator *allocator, megabyte_error *error) {
    return code_at_once(model, MEGABYTE_MODE_COMPRESS, options, bytes, n, out, capacity, n_out,
                        allocator, error);
}

megabyte_status megabyte_decompress(const megabyte_model *model,
                                    const megabyte_codec_options *options, const void *bytes,
                                    size_t n, void *out, size_t capacity, size_t *n_out,
                                    const megabyte_allocator *allocator, megabyte_error *error) {
    return code_at_once(model, MEGABYTE_MODE_DECOMPRESS, options, bytes, n, out, capacity, n_out,
                        allocator, error);
}

#endif /* MEGABYTE_NO_CODEC */

/* =================================================================================== 19 images */

/* ---- scans: pixels in the order that a model reads them */

megabyte_status megabyte_image_describe(const megabyte_model *model, megabyte_image_info *info,
                                        megabyte_error *error) {
    clear_error(error);
    if (!model || !info)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "model and info must not be NULL");
    *info = model->image;
    if (!info->channels)
        return fail(error, MEGABYTE_ERROR_UNSUPPORTED, 0,
                    "this is not an image model: its metadata have no image.tile");
    return MEGABYTE_OK;
}

uint32_t megabyte_image_index(const megabyte_image_info *f, uint32_t x, uint32_t y) {
    if (f->scan == MEGABYTE_SCAN_RASTER) return (y * f->tile_width + x) * f->channels;
    u32 w = f->patch_width, h = f->patch_height;
    u32 patch = y / h * (f->tile_width / w) + x / w;
    return (patch * w * h + y % h * w + x % w) * f->channels;
}

/* A pixel's samples as its ids, and back. */
static void to_ids(const megabyte_image_info *f, const u8 *samples, u8 *ids) {
    if (f->colour == MEGABYTE_COLOUR_NONE) {
        memcpy(ids, samples, f->channels);
        return;
    }
    u8 r = samples[0], g = samples[1], b = samples[2];
    ids[0] = g;
    ids[1] = (u8)(r - g);
    ids[2] = (u8)(b - g);
}
static void from_ids(const megabyte_image_info *f, const u8 *ids, u8 *samples) {
    if (f->colour == MEGABYTE_COLOUR_NONE) {
        memcpy(samples, ids, f->channels);
        return;
    }
    u8 g = ids[0], r = (u8)(ids[1] + g), b = (u8)(ids[2] + g);
    samples[0] = r;
    samples[1] = g;
    samples[2] = b;
}

void megabyte_image_scan(const megabyte_image_info *f, const uint8_t *pixels, size_t row_bytes,
                         uint8_t *ids) {
    for (u32 y = 0; y < f->tile_height; y++)
        for (u32 x = 0; x < f->tile_width; x++)
            to_ids(f, pixels + y * row_bytes + (size_t)x * f->channels,
                   ids + megabyte_image_index(f, x, y));
}

void megabyte_image_unscan(const megabyte_image_info *f, const uint8_t *ids, uint8_t *pixels,
                           size_t row_bytes) {
    for (u32 y = 0; y < f->tile_height; y++)
        for (u32 x = 0; x < f->tile_width; x++)
            from_ids(f, ids + megabyte_image_index(f, x, y),
                     pixels + y * row_bytes + (size_t)x * f->channels);
}

#if HAVE_CODEC
/* ---- samples as decisions */

/* A sample is coded as its distance r = -128 .. 127 from the median of the model's prediction,
 * modulo 256, by binary decisions that say the most at first: is r 0? is it negative? is |r| at
 * most 1, 2, 4, ... 64? which of those? About four decisions name a sample of a photograph, and as
 * they are relative to what was expected, context mixing soon knows them. The model's probability
 * of each is exact: sums of the samples' weights. */
struct forecast {
    u64 below[257]; /* weights of all r < i - 128 */
    u32 median;
    u32 spread; /* mean |r|, in 1/64 */
    i32 mean; /* of r, in 1/64 */
};

static void make_forecast(struct forecast *f, const float likely[256]) {
    u32 w[256], best = 0;
    u64 sum = 0, half = 0;
    byte_weights(likely, w);
    for (u32 i = 0; i < 256; i++) {
        sum += w[i];
        if (w[i] > w[best]) best = i;
    }
    u32 at = best + 128; /* the ring of samples is cut opposite to the likeliest */
    while ((half += w[at & 255]) * 2 < sum) at++;
    f->median = at & 255;
    i64 far = 0, mean = 0;
    f->below[0] = 0;
    for (u32 i = 0; i < 256; i++) {
        u64 here = w[(f->median + i - 128) & 255];
        i32 r = (i32)i - 128;
        f->below[i + 1] = f->below[i] + here;
        far += (i64)here * (r < 0 ? -r : r);
        mean += (i64)here * r;
    }
    f->spread = (u32)(far * 64 / (i64)sum);
    f->mean = (i32)(mean * 64 / (i64)sum);
}

/* The weight of |r| in low .. high on one side. */
static u64 weight_between(const struct forecast *f, u32 negative, u32 low, u32 high) {
    if (negative) return f->below[129 - low] - f->below[128 - high];
    return f->below[high < 128 ? 129 + high : 256] - f->below[128 + low];
}

/* The way down the tree of decisions: node 0 asks for 0, 1 for the sign; 2 to 15, 7 for each sign,
 * whether |r| is at most `high`; the others bisect low .. high. */
struct walk {
    u32 node, negative, low, high, heap, base;
    enum { ASKS_ZERO, ASKS_SIGN, ASKS_SIZE, BISECTS, ARRIVED } asks;
};
enum { TREE_NODES = 256, MOST_DECISIONS = 15 };

static u32 walk_middle(const struct walk *w) { return (w->low + w->high + 1) / 2; }

/* P(1) by the model. */
static u32 walk_probability(const struct walk *w, const struct forecast *f) {
    u64 one, all;
    u32 negative = w->negative;
    switch (w->asks) {
    case ASKS_ZERO:
        one = f->below[129] - f->below[128];
        all = f->below[256];
        break;
    case ASKS_SIGN:
        one = f->below[128];
        all = one + (f->below[256] - f->below[129]);
        break;
    case ASKS_SIZE:
        one = weight_between(f, negative, w->low, w->high);
        all = weight_between(f, negative, w->low, 128);
        break;
    default:
        one = weight_between(f, negative, walk_middle(w), w->high);
        all = weight_between(f, negative, w->low, w->high);
    }
    u32 p = all ? (u32)((one << PROBABILITY_BITS) / all) : 0;
    return p < 1 ? 1 : min32(p, PROBABILITY_ONE - 1);
}

/* Which decision the way to r takes. */
static u32 walk_bit(const struct walk *w, i32 r) {
    u32 size = (u32)(r < 0 ? -r : r);
    switch (w->asks) {
    case ASKS_ZERO: return !r;
    case ASKS_SIGN: return r < 0;
    case ASKS_SIZE: return size <= w->high;
    default: return size >= walk_middle(w);
    }
}

static void walk_down(struct walk *w, u32 bit) {
    if (w->asks == ASKS_ZERO) {
        w->asks = bit ? ARRIVED : ASKS_SIGN;
        w->node = 1;
    } else if (w->asks == ASKS_SIGN) {
        w->asks = ASKS_SIZE;
        w->negative = bit;
        w->node = 2 + 7 * bit;
        w->low = w->high = 1;
    } else if (w->asks == ASKS_SIZE) {
        if (!bit) {
            w->node++;
            w->low = w->high + 1;
            w->high *= 2;
            if (w->high < 128) return;
        }
        /* 2^n sizes are bisected by a heap of 2^n - 1 nodes */
        u32 n = log2_floor(w->high - w->low + 1);
        w->asks = n ? BISECTS : ARRIVED;
        w->heap = 1;
        w->base = 16 + 120 * w->negative + (1u << n) - n - 2;
        w->node = w->base + 1;
    } else {
        u32 middle = walk_middle(w);
        if (bit) w->low = middle;
        else w->high = middle - 1;
        w->asks = w->low == w->high ? ARRIVED : BISECTS;
        w->heap = 2 * w->heap + bit;
        w->node = w->base + w->heap;
    }
}

static i32 walk_end(const struct walk *w) {
    return w->negative ? -(i32)w->low : (i32)w->low; /* 0, too */
}

/* What the encoder keeps of each sample's forecast: tiles are scored ahead, patches in parallel,
 * and coded in the decoder's order. Both round the model's probabilities alike: stretched, in
 * 1/2048. */
struct record {
    u8 median, unused;
    u16 spread;
    i16 mean, decision[MOST_DECISIONS];
};

struct recorder {
    const struct mixer_tables *tables;
    struct record *records;
};

/* A job's `scored`. */
static void keep_forecast(void *to, u64 index, u8 sample, const float *likely) {
    const struct recorder *into = to;
    struct record *r = &into->records[index];
    struct forecast f;
    struct walk w = {.asks = ASKS_ZERO};
    make_forecast(&f, likely);
    i32 distance = (i8)(u8)(sample - f.median);
    r->median = (u8)f.median;
    r->spread = (u16)f.spread;
    r->mean = (i16)f.mean;
    for (u32 i = 0; w.asks != ARRIVED; i++) {
        r->decision[i] = (i16)stretch_finely(into->tables, walk_probability(&w, &f));
        walk_down(&w, walk_bit(&w, distance));
    }
}

/* ---- pictures in flight */

struct flying {
    megabyte_stream *stream; /* decoding: each its own */
    struct record *records; /* encoding: [tile_bytes] */
    u8 *ids; /* [tile_bytes] */
    u32 tile, x, y; /* its number; its first pixel */
    u32 at, end; /* ids done; those to be done: up to the last real pixel's */
    u32 fed; /* decoding: ids that the stream has */
    int busy;
};

struct picture {
    megabyte_image_info info;
    megabyte_image_options options;
    const megabyte_image *image;
    megabyte_engine *engine;
    const struct mixer_tables *tables;
    int decoding;
    u32 planes; /* ids of a pixel that are coded: 1 or the model's */
    u32 columns, rows; /* of tiles */
    u32 next; /* the next tile to take off */
    u32 *progress; /* [rows * columns] ids done of each */
    struct flying *flying; /* [options.tiles] */
    megabyte_stream **streams; /* [options.tiles] the moved ones', ... */
    const u8 **bytes; /* ... their next ids ... */
    size_t *lengths; /* ... and how many */
    u16 (*place)[2]; /* [tile pixels] x, y in the tile, in the model's order */
    u8 *canvas; /* [height][width][CANVAS]: see surroundings */
    struct picture_mixer *mixer; /* NULL: the model alone */
    struct coder coder;
    u64 samples; /* done */
    u64 alone; /* encoding: bits that they cost the model alone, in 1/4096 */
    fp_state caller;
};

static int real_pixel(const struct picture *p, const struct flying *t, u32 x, u32 y) {
    return t->x + x < p->image->width && t->y + y < p->image->height;
}

/* Ids from t->at on that both sides know without a code: of pixels outside, which repeat their
 * neighbours, and the further planes of a grey picture. Returns how many there are before the next
 * coded one. */
static void fill_known(const struct picture *p, struct flying *t) {
    const megabyte_image_info *f = &p->info;
    u32 n = f->channels;
    for (; t->at < t->end; t->at++) {
        u32 plane = t->at % n, x = p->place[t->at / n][0], y = p->place[t->at / n][1];
        if (!real_pixel(p, t, x, y)) {
            int beyond = t->x + x >= p->image->width;
            t->ids[t->at] =
                t->ids[megabyte_image_index(f, beyond ? x - 1 : x, beyond ? y : y - 1) + plane];
        } else if (plane >= p->planes) {
            t->ids[t->at] = f->colour == MEGABYTE_COLOUR_NONE ? t->ids[t->at - plane] : 0;
        } else {
            return;
        }
    }
}

static u8 *image_pixel(const struct picture *p, u32 x, u32 y) {
    return p->image->pixels + y * p->image->row_bytes + (size_t)x * p->image->channels;
}

/* Encoding: the ids of the tile's real pixels. */
static void read_tile(const struct picture *p, struct flying *t) {
    u32 n = p->info.channels;
    for (t->at = 0; fill_known(p, t), t->at < t->end;) {
        u32 x = p->place[t->at / n][0], y = p->place[t->at / n][1];
        const u8 *from = image_pixel(p, t->x + x, t->y + y);
        if (p->planes < n) t->ids[t->at++] = *from;
        else {
            to_ids(&p->info, from, t->ids + t->at);
            t->at += n;
        }
    }
}

/* Decoding: a pixel is complete. */
static void write_pixel(const struct picture *p, const struct flying *t, u32 x, u32 y) {
    const u8 *ids = t->ids + megabyte_image_index(&p->info, x, y);
    u8 *to = image_pixel(p, t->x + x, t->y + y);
    if (p->planes < p->info.channels) *to = *ids;
    else from_ids(&p->info, ids, to);
}

/* Encoding: the model's forecasts of a tile's ids, of all at once. */
static void score_tile(struct picture *p, struct flying *t) {
    megabyte_stream *s = t->stream;
    struct recorder to = {p->tables, t->records};
    struct job job = {.stream = s,
                      .bytes = t->ids,
                      .n = t->end - 1, /* the last one is not needed */
                      .want = WANT_ALL,
                      .scored = keep_forecast,
                      .to = &to};
    float a[256];
    megabyte_stream_reset(s);
    memcpy(a, s->logits, sizeof a);
    p->engine->kernels.softmax(a, 256);
    keep_forecast(&to, 0, t->ids[0], a);
    if (t->end < 2) return;
    run_jobs(p->engine, &job, 1);
    memcpy(a, s->logits, sizeof a);
    p->engine->kernels.softmax(a, 256);
    keep_forecast(&to, t->end - 1, t->ids[t->end - 1], a);
}

/* A tile begins when that to the west is a row of patches ahead and those to the north and
 * north-east are done, all but the north-east's last row of patches: then what the contexts look at
 * is known as if the picture were read row by row. */
static int may_begin_tile(const struct picture *p, u32 tile) {
    const megabyte_image_info *f = &p->info;
    u32 column = tile % p->columns, *done = p->progress + tile;
    u32 height = f->scan == MEGABYTE_SCAN_PATCH ? f->patch_height : 1;
    u32 row = f->tile_width * height * f->channels;
    if (column && done[-1] < row) return 0;
    if (tile < p->columns) return 1;
    done -= p->columns;
    return done[0] == UINT32_MAX && (column + 1 == p->columns || done[1] >= f->tile_bytes - row);
}

static void begin_tile(struct picture *p, struct flying *t) {
    const megabyte_image_info *f = &p->info;
    u32 tile = t->tile = p->next++;
    t->x = tile % p->columns * f->tile_width;
    t->y = tile / p->columns * f->tile_height;
    u32 w = min32(f->tile_width, p->image->width - t->x),
        h = min32(f->tile_height, p->image->height - t->y);
    t->end = megabyte_image_index(f, w - 1, h - 1) + p->planes;
    t->busy = 1;
    if (p->decoding) {
        megabyte_stream_reset(t->stream);
    } else {
        read_tile(p, t);
        score_tile(p, t);
    }
    t->at = t->fed = 0;
}

/* ---- context mixing of two dimensions */

/* What the picture itself has shown corrects the model, for every decision:
 *
 *   contexts    Each is a hash of what lies about the sample (neighbours relative to the model's
 *               median, how wrong the model was there, what the pixel's planes before were, ...).
 *               In it, every node of the tree of decisions has an adaptive probability, which
 *               begins as the model's.
 *   regression  Least squares over neighbours and their errors predict how far the sample is from
 *               the model's mean: one learns from a tile in flight, forgetting soon, one from the
 *               whole picture. Their predictions are contexts.
 *   mixing      As in section 16: all inputs, by weight sets that the node, the model's spread, the
 *               errors around, the model's confidence, the tile's border and the tile choose; a
 *               second mixer joins them; two adaptive maps correct the result.
 *
 * All tiles share what is learned, in the order of coding, which encoder and decoder have alike.
 * Regression is in double: + - * / and square roots in a fixed order; the rest is in integers. */
enum {
    P_CONTEXTS = 24,
    P_INPUTS = 2 * MIX_INPUTS, /* one pair a context; the model's and the bias are the last */
    P_MODEL = P_INPUTS / 2 - 2,
    P_BIAS = P_INPUTS / 2 - 1,
    P_LINES = 1 << 14, /* of a context's table: 16 probabilities, nodes 0 to 15 or part of a heap */
    LEVELS = 10, /* kinds of nodes: zero, sign, seven sizes, bisecting */
    BY_SPREAD = 3 * TREE_NODES, /* where the groups of weight sets begin */
    BY_ERRORS = BY_SPREAD + 3 * 16 * LEVELS,
    BY_CONFIDENCE = BY_ERRORS + 3 * 16 * LEVELS,
    BY_BORDER = BY_CONFIDENCE + 3 * 16 * LEVELS,
    BY_TILE = BY_BORDER + 3 * 16 * LEVELS, /* and 3 * LEVELS for each tile in flight */
    P_SETS = 6,
    CORRECTIONS = 3 * 32 * 32,
    REGRESSORS = 14
};

struct regression {
    double a[REGRESSORS][REGRESSORS], b[REGRESSORS]; /* see add_sample */
    double weight[REGRESSORS], x[REGRESSORS];
    u32 n, count;
};

struct picture_mixer {
    _Alignas(64) struct mixer_pair input[P_INPUTS / 2];
    /* this sample's: */
    u32 hash[P_CONTEXTS];
    u32 *line[P_CONTEXTS];
    u32 plane, tile; /* number among those in flight */
    u32 spread, errors, border, offset; /* in classes; offset: of the tile's regression */
    /* this decision's: */
    u32 *slot[P_CONTEXTS], nothing, node;
    u32 set[P_SETS], p_set[P_SETS], p_final, *correction_p[2];
    i32 x_set[P_SETS], x_final;
    /* what is learned: */
    const struct mixer_tables *tables;
    u64 samples;
    i32 rate;
    u32 *table; /* [P_CONTEXTS][P_LINES][16]: adaptive probabilities; 0: new */
    i16 (*weights)[P_INPUTS]; /* [BY_TILE + 3 * LEVELS * tiles]; 16384 = 1.0 */
    struct regression *tile_regression; /* [tiles][3] */
    struct regression regression[3];
    i32 final_weights[3 * TREE_NODES][P_SETS]; /* 2^28 = 1.0 */
    u32 correction[2][CORRECTIONS][N_BUCKETS];
};

static i32 regression_predict(const struct regression *g) { /* in 1/64 */
    return to_fixed(weighted_sum(g->weight, g->x, g->n), 64, 16000);
}

/* What x has become: y. Earlier samples count `keep` times as much as the next; the weights are
 * computed anew every so many samples. */
static void regression_learn(struct regression *g, double y, double keep, u32 every) {
    double diagonal[REGRESSORS], z[REGRESSORS];
    add_sample(g->a[0], REGRESSORS, g->b, g->x, g->x, g->n, y, keep);
    if (++g->count % every == 0)
        solve_squares(g->a[0], REGRESSORS, g->b, g->n, 64, 0, diagonal, z, g->weight);
}

/* Classes: of a difference, -14 .. 14 or within +-limit; of a sum, two an octave. */
static i32 difference_class(i32 d, i32 limit) {
    i32 a = d < 0 ? -d : d, c = a < 4    ? a
                                : a < 8  ? 4 + (a - 4) / 2
                                : a < 16 ? 6 + (a - 8) / 4
                                : a < 32 ? 8 + (a - 16) / 8
                                : a < 64 ? 10 + (a - 32) / 16
                                         : 12 + (a - 64) / 64;
    if (c > limit) c = limit;
    return d < 0 ? -c : c;
}
static u32 sum_class(u32 sum, u32 limit) {
    u32 n = log2_floor(sum + 1), c = 2 * n + (n ? (sum + 1) >> (n - 1) & 1 : 0);
    return min32(c, limit);
}

/* A sample's surroundings. The canvas has, for each pixel that is done, its ids, a 1, and how far
 * each id was from the model's median. */
enum { AT_W, AT_N, AT_NW, AT_NE, AT_WW, AT_NN, AT_NNE, AT_NWW, PLACES };
#define CANVAS 8 /* bytes a pixel */
struct surroundings {
    const u8 *pixel[PLACES]; /* what is not known repeats its neighbour, else the median */
    u8 median[CANVAS];
    const u8 *self; /* the planes before, and their errors at CANVAS / 2 */
    i32 value[PLACES], error[PLACES]; /* of this plane; error: only the first four */
    i32 mean64; /* the model's mean, in 1/64 */
};

static u8 *canvas_at(const struct picture *p, u32 x, u32 y) {
    return p->canvas + ((u64)y * p->image->width + x) * CANVAS;
}

/* Differences of planes are signed. */
static i32 sample_value(const struct picture *p, const u8 *pixel, u32 plane) {
    int is_signed = plane && p->info.colour == MEGABYTE_COLOUR_GREEN_DIFFERENCE;
    return is_signed ? (i8)pixel[plane] : pixel[plane];
}
static i32 sample_error(const u8 *pixel, u32 plane) { return (i8)pixel[CANVAS / 2 + plane]; }

static void look_around(const struct picture *p, struct surroundings *s, u32 plane, u32 x, u32 y,
                        const struct record *r) {
    static const i8 by[PLACES][2] = {{-1, 0}, {0, -1}, {-1, -1}, {1, -1},
                                     {-2, 0}, {0, -2}, {1, -2},  {-2, -1}};
    static const u8 instead[PLACES] = {AT_N, AT_W, AT_N, AT_N, AT_W, AT_N, AT_NE, AT_NW};
    memset(s->median, 0, sizeof s->median);
    memset(s->median, r->median, 3);
    for (u32 i = 0; i < PLACES; i++) {
        i64 at_x = (i64)x + by[i][0], at_y = (i64)y + by[i][1];
        int inside = at_x >= 0 && at_y >= 0 && at_x < p->image->width;
        const u8 *c = inside ? canvas_at(p, (u32)at_x, (u32)at_y) : NULL;
        s->pixel[i] = c && c[3] ? c : NULL;
    }
    if (!s->pixel[AT_W] && !s->pixel[AT_N]) s->pixel[AT_N] = s->median;
    for (u32 i = 0; i < PLACES; i++) {
        if (!s->pixel[i]) s->pixel[i] = s->pixel[instead[i]];
        s->value[i] = sample_value(p, s->pixel[i], plane);
        s->error[i] = i < AT_WW ? sample_error(s->pixel[i], plane) : 0;
    }
    s->self = canvas_at(p, x, y);
    s->mean64 = sample_value(p, s->median, plane) * 64 + r->mean;
}

static void regressors_of(const struct picture *p, const struct surroundings *s, u32 plane,
                          struct regression *g) {
    double mean = s->mean64 / 64.0, *x = g->x;
    const i32 *v = s->value;
    u32 n = 0;
    for (u32 i = 0; i <= AT_NN; i++) x[n++] = v[i] - mean;
    if (!plane) {
        x[n++] = v[AT_NNE] - mean;
        for (u32 i = 0; i <= AT_NE; i++) x[n++] = s->error[i];
        x[n++] = v[AT_NWW] - mean;
    } else {
        i32 self = sample_value(p, s->self, 0), north = sample_value(p, s->pixel[AT_N], 0);
        x[n++] = sample_error(s->self, 0);
        x[n++] = self - sample_value(p, s->pixel[AT_W], 0);
        x[n++] = self - north;
        x[n++] = sample_value(p, s->pixel[AT_NE], 0) - north;
        x[n++] = s->error[AT_W];
        x[n++] = s->error[AT_N];
        if (plane == 2) {
            x[n++] = sample_error(s->self, 1);
            x[n++] = sample_value(p, s->self, 1) - sample_value(p, s->pixel[AT_W], 1);
        }
    }
    g->n = n;
}

/* A context's value from a few classes: differences count from -32 on. */
static u32 join_classes(i32 a, i32 b, i32 c, i32 d) {
    return (((u32)(a + 32) * 64 + (u32)(b + 32)) * 64 + (u32)(c + 32)) * 64 + (u32)(d + 32);
}
#define CLASS(d, limit) difference_class(d, limit)

/* The contexts' values, given the regressions' offsets from the median, in 1/64. */
static void picture_contexts(const struct picture *p, struct picture_mixer *m,
                             const struct surroundings *s, const struct record *r, i32 by_tile,
                             i32 by_picture, u32 *c) {
    u32 plane = m->plane;
    i32 median = sample_value(p, s->median, plane), v[PLACES];
    for (u32 i = 0; i < PLACES; i++) v[i] = s->value[i] - median;
    i32 w = v[AT_W], n = v[AT_N], nw = v[AT_NW], ne = v[AT_NE];
    i32 high = w > n ? w : n, low = w < n ? w : n, plain = w + n - nw;
    i32 gradient = plain > high ? high : plain < low ? low : plain;
    u32 texture = sum_class(
        (u32)((w > nw ? w - nw : nw - w) + (n > nw ? n - nw : nw - n) + (n > ne ? n - ne : ne - n)),
        15);
    const i32 *e = s->error;
    i32 e0 = plane ? sample_error(s->self, 0) : 0, e1 = plane > 1 ? sample_error(s->self, 1) : 0;
    i32 tile = CLASS(by_tile / 16, 13), whole = CLASS(by_picture / 16, 13);
    i32 west = 0, north = 0;
    int difference = p->info.colour == MEGABYTE_COLOUR_GREEN_DIFFERENCE;
    u32 level = plane && difference ? (u32)(s->self[0] + r->median) & 255 : r->median;
    if (plane) {
        i32 self = sample_value(p, s->self, 0);
        west = CLASS(sample_value(p, s->pixel[AT_W], 0) - self, 9);
        north = CLASS(sample_value(p, s->pixel[AT_N], 0) - self, 9);
    }
    *c++ = join_classes(0, 0, CLASS(r->mean / 16, 13), (i32)m->spread);
    *c++ = join_classes(0, 0, tile, (i32)m->spread);
    *c++ = join_classes(0, 0, whole, (i32)m->errors);
    *c++ = join_classes(0, 0, CLASS(w, 12), CLASS(n, 12));
    *c++ = join_classes(0, CLASS(w, 9), CLASS(n, 9), CLASS(ne, 9));
    *c++ = join_classes(0, CLASS(w, 9), CLASS(n, 9), CLASS(nw, 9));
    *c++ = join_classes(CLASS(w, 6), CLASS(n, 6), CLASS(ne, 6), CLASS(nw, 6));
    *c++ = join_classes(0, 0, CLASS(2 * n - v[AT_NN], 12), CLASS(2 * w - v[AT_WW], 12));
    *c++ = join_classes(0, 0, CLASS(v[AT_NN], 10), CLASS(v[AT_WW], 10));
    *c++ = join_classes(0, 0, CLASS(gradient, 13), (i32)texture);
    *c++ = join_classes(0, 0, CLASS(e[AT_W], 9), CLASS(e[AT_N], 9));
    *c++ = join_classes(CLASS(e[AT_W], 5), CLASS(e[AT_N], 5), CLASS(e[AT_NW], 5),
                        CLASS(e[AT_NE], 5));
    *c++ = plane ? join_classes(0, CLASS(e0, 10), CLASS(e1, 10), CLASS(w, 8))
                 : join_classes(0, 0, CLASS(ne, 10), CLASS(nw, 10));
    *c++ = plane ? join_classes(0, CLASS(e0, 10), CLASS(e1, 10), CLASS(n, 8))
                 : join_classes(0, 0, CLASS(n + ne - v[AT_NNE], 10), CLASS(w, 10));
    *c++ = r->median;
    *c++ = 256 + level;
    *c++ = join_classes((i32)(level >> 6), (i32)(level & 63) - 32, 0, tile);
    *c++ = (u32)s->pixel[AT_W][plane] << 8 | s->pixel[AT_N][plane] | 1u << 16;
    *c++ = plane ? join_classes(0, CLASS(e0, 11), west, north)
                 : join_classes(0, CLASS(v[AT_NNE], 9), CLASS(v[AT_WW], 9), CLASS(v[AT_NN], 9));
    *c++ = (s->pixel[AT_W][0] * 0x9e3779b1u + s->pixel[AT_W][1] * 77777u +
            s->pixel[AT_N][0] * 0x85ebca6bu + s->pixel[AT_W][2] * 3331u +
            (plane ? s->self[0] * 0x12345671u : 0) + (plane > 1 ? s->self[1] * 0x7654321u : 0)) >>
           8;
    *c++ = join_classes(0, tile, whole, CLASS(e0, 8));
    *c++ = join_classes(0, 0, clamp(by_tile / 8, 31), (i32)m->errors);
    *c++ = plane ? join_classes((i32)(level >> 6), (i32)(level & 63) - 32, 1, west)
                 : level << 8 | s->pixel[AT_W][0] | 1u << 17;
    *c = join_classes(0, 0, (i32)m->border, CLASS(gradient, 12));
}

/* Before the decisions of a sample at (x, y). */
static void mix_begin_sample(const struct picture *p, const struct flying *t, u32 x, u32 y,
                             u32 plane, const struct record *r) {
    struct picture_mixer *m = p->mixer;
    struct surroundings s;
    u32 c[P_CONTEXTS], errors = 0;
    m->plane = plane;
    m->tile = (u32)(t - p->flying);
    look_around(p, &s, plane, x, y, r);
    struct regression *tile = &m->tile_regression[m->tile * 3 + plane],
                      *whole = &m->regression[plane];
    regressors_of(p, &s, plane, tile);
    whole->n = tile->n;
    memcpy(whole->x, tile->x, sizeof whole->x);
    i32 by_tile = r->mean + regression_predict(tile);
    for (u32 i = 0; i <= AT_NE; i++) errors += (u32)(s.error[i] < 0 ? -s.error[i] : s.error[i]);
    m->spread = sum_class(r->spread / 8, 15);
    m->errors = sum_class(errors, 11);
    m->border = min32(x - t->x, 3) * 4 + min32(y - t->y, 3);
    m->offset = (u32)(clamp(by_tile / 16, 15) + 16);
    picture_contexts(p, m, &s, r, by_tile, r->mean + regression_predict(whole), c);
    for (u32 i = 0; i < P_CONTEXTS; i++) {
        m->hash[i] = (c[i] * 4 + plane + 1) * 0x9e3779b1u * (2 * i + 1);
        m->line[i] = m->table + ((u64)i * P_LINES + (m->hash[i] >> 18)) * 16;
        PREFETCH(m->line[i]);
    }
}

/* Where context i has its adaptive probability of a decision: the heaps of bisected sizes, but for
 * what is deep in them, lie in lines of their own. */
static u32 *context_slot(struct picture_mixer *m, const struct walk *w, u32 i) {
    if (w->node < 16) return m->line[i] + w->node;
    u32 hash = (m->hash[i] + (w->base + 1) * 0x85ebca6bu) * 0x9e3779b1u;
    return m->table + ((u64)i * P_LINES + (hash >> 18)) * 16 + w->heap;
}

/* P(1) of the next decision; from_model: the model's, stretched, in 1/2048. */
static u32 mix_decision(struct picture_mixer *m, const struct walk *w, i32 from_model) {
    const struct mixer_tables *t = m->tables;
    u32 node = m->node = w->node, plane = m->plane,
        by_model = squash(t, clamp(2 * from_model, X_MAX));
    u32 level = node < 2 ? node : node < 16 ? 2 + (node - 2) % 7 : 9;
    i32 stretched = from_model / 16, sum = 0, *final = m->final_weights[plane * TREE_NODES + node];
    for (u32 i = 0; i < P_CONTEXTS; i++) {
        if (node >= 16 && w->heap > 15) {
            m->slot[i] = &m->nothing;
            m->input[i] = (struct mixer_pair){0, 0};
            continue;
        }
        u32 *p = m->slot[i] = context_slot(m, w, i);
        if (!*p) *p = by_model << 10 | 6;
        m->input[i] = t->pair[*p >> 20];
        m->input[i].stretched = (i16)clamp(m->input[i].stretched - stretched, 2047);
    }
    m->nothing = NOTHING;
    m->input[P_MODEL] = (struct mixer_pair){
        (i16)stretched, (i16)(((i32)by_model - (i32)(PROBABILITY_ONE / 2)) >> 12)};
    m->input[P_BIAS] = (struct mixer_pair){0, 64};
    u32 confidence = min32((u32)(stretched < 0 ? -stretched : stretched) / 64, 15);
    m->set[0] = plane * TREE_NODES + node;
    m->set[1] = BY_SPREAD + (plane * 16 + m->spread) * LEVELS + level;
    m->set[2] = BY_ERRORS + (plane * 16 + m->errors) * LEVELS + level;
    m->set[3] = BY_CONFIDENCE + (plane * 16 + confidence) * LEVELS + level;
    m->set[4] = BY_BORDER + (plane * 16 + m->border) * LEVELS + level;
    m->set[5] = BY_TILE + (m->tile * 3 + plane) * LEVELS + level;
    for (u32 k = 0; k < P_SETS; k++) {
        const i16 *weight = m->weights[m->set[k]], *x = (const void *)m->input;
        i64 dot = (i64)t->kernels.dot(x, weight) +
                  t->kernels.dot(x + MIX_INPUTS, weight + MIX_INPUTS);
        i32 d = dot >> 9 > X_MAX ? X_MAX : dot >> 9 < -X_MAX ? -X_MAX : (i32)(dot >> 9);
        m->p_set[k] = squash(t, d);
        m->x_set[k] = d >> 5;
        sum += (d >> 5) * (final[k] >> 16);
    }
    m->x_final = clamp(sum >> 7, X_MAX);
    m->p_final = squash(t, m->x_final);
    u32 one = interpolate(m->correction[0][plane * TREE_NODES + node], m->x_final,
                          &m->correction_p[0]);
    u32 two = interpolate(m->correction[1][(m->offset * 3 + plane) * 32 + min32(node, 31)],
                          m->x_final, &m->correction_p[1]);
    u32 p = (2 * m->p_final + one + two) / 4;
    return p < 32 ? 32 : min32(p, PROBABILITY_ONE - 32);
}

static void adapt_picture(const struct mixer_tables *t, u32 *p, u32 bit) {
    u32 v = *p, n = v & 1023;
    i32 error = (i32)(bit << PROBABILITY_BITS) - (i32)(v >> 10);
    *p = v + ((u32)(i32)((i64)error * t->reciprocal[n] >> 16) << 10) + (n < 255);
}

/* The decision was `bit`. */
static void mix_learn(struct picture_mixer *m, u32 bit) {
    const struct mixer_tables *t = m->tables;
    const i16 *x = (const void *)m->input;
    i32 target = (i32)(bit << PROBABILITY_BITS), error = (target - (i32)m->p_final) >> 10;
    i32 *final = m->final_weights[m->plane * TREE_NODES + m->node];
    for (u32 i = 0; i < P_CONTEXTS; i++) adapt_picture(t, m->slot[i], bit);
    for (u32 k = 0; k < P_SETS; k++) {
        i16 *weight = m->weights[m->set[k]];
        i16 by = (i16)clamp((i32)((i64)(target - (i32)m->p_set[k]) * m->rate >> 12), 32767);
        t->kernels.train(x, weight, by);
        t->kernels.train(x + MIX_INPUTS, weight + MIX_INPUTS, by);
        final[k] = clamp(final[k] + m->x_set[k] * error, 1 << 30);
    }
    for (u32 k = 0; k < 2; k++) adapt_picture(t, m->correction_p[k], bit);
}

/* The sample at (x, y) was `distance` from the model's median. */
static void mix_end_sample(const struct picture *p, u32 x, u32 y, const struct record *r,
                           i32 distance) {
    struct picture_mixer *m = p->mixer;
    double error = distance - r->mean / 64.0;
    regression_learn(&m->tile_regression[m->tile * 3 + m->plane], error, 0.998, 1);
    regression_learn(&m->regression[m->plane], error, 0.9998, 4);
    m->samples++;
    m->rate = 14 + (i32)(20u * 16384 / (16384 + m->samples));
    canvas_at(p, x, y)[CANVAS / 2 + m->plane] = (u8)distance;
}

/* A tile takes off in place `tile`: nothing is known of it, and the weights are those that have
 * been learned where the model is rather sure. */
static void mix_begin_tile(struct picture_mixer *m, u32 tile) {
    memset(&m->tile_regression[tile * 3], 0, 3 * sizeof *m->tile_regression);
    for (u32 plane = 0; plane < 3; plane++)
        memcpy(m->weights[BY_TILE + (tile * 3 + plane) * LEVELS],
               m->weights[BY_CONFIDENCE + (plane * 16 + 6) * LEVELS], LEVELS * sizeof *m->weights);
}

static void mix_begin_picture(struct picture_mixer *m, const struct mixer_tables *tables,
                              u32 tiles) {
    memset(m->table, 0, (size_t)P_CONTEXTS * P_LINES * 16 * sizeof *m->table);
    memset(m->regression, 0, sizeof m->regression);
    m->tables = tables;
    m->samples = 0;
    m->rate = 14 + 20;
    m->nothing = NOTHING;
    memset(m->input, 0, sizeof m->input);
    for (u32 i = 0; i < BY_TILE + 3 * LEVELS * tiles; i++) {
        memset(m->weights[i], 0, sizeof m->weights[i]);
        m->weights[i][2 * P_MODEL] = 14000;
    }
    for (u32 i = 0; i < 3 * TREE_NODES; i++)
        for (u32 k = 0; k < P_SETS; k++) m->final_weights[i][k] = (1 << 28) / P_SETS;
    for (u32 i = 0; i < CORRECTIONS; i++)
        for (u32 k = 0; k < N_BUCKETS; k++)
            m->correction[0][i][k] = m->correction[1][i][k] =
                squash(tables, clamp(((i32)k - 16) * 4096, X_MAX)) << 10 | 20;
}

/* ---- coding */

/* The next sample of a tile in flight, both ways. */
static void code_sample(struct picture *p, struct flying *t) {
    const struct mixer_tables *tables = p->tables;
    u32 n = p->info.channels, plane = t->at % n;
    u32 x = t->x + p->place[t->at / n][0], y = t->y + p->place[t->at / n][1];
    struct forecast f;
    struct record made, *r = &made;
    struct walk w = {.asks = ASKS_ZERO};
    i32 distance = 0;
    double likely = 1; /* the product of 15 probabilities of 2^-22 or more */
    if (p->decoding) {
        float a[256];
        memcpy(a, t->stream->logits, sizeof a);
        p->engine->kernels.softmax(a, 256);
        make_forecast(&f, a);
        made.median = (u8)f.median;
        made.spread = (u16)f.spread;
        made.mean = (i16)f.mean;
    } else {
        r = &t->records[t->at];
        distance = (i8)(u8)(t->ids[t->at] - r->median);
    }
    if (p->mixer) mix_begin_sample(p, t, x, y, plane, r);
    for (u32 i = 0; w.asks != ARRIVED; i++) {
        i32 from_model = p->decoding ? stretch_finely(tables, walk_probability(&w, &f))
                                     : r->decision[i];
        u32 alone = squash(tables, clamp(2 * from_model, X_MAX)), bit;
        u32 one = p->mixer ? mix_decision(p->mixer, &w, from_model) : alone;
        if (p->decoding) {
            bit = decode_bit(&p->coder, one);
        } else {
            bit = walk_bit(&w, distance);
            encode_bit(&p->coder, one, bit);
            likely *= (double)(bit ? one : PROBABILITY_ONE - one) / PROBABILITY_ONE;
            i32 bits = log2_fixed(tables, bit ? alone : PROBABILITY_ONE - alone);
            p->alone += (u64)((PROBABILITY_BITS << 12) - bits);
        }
        if (p->mixer) mix_learn(p->mixer, bit);
        walk_down(&w, bit);
    }
    t->ids[t->at] = (u8)(r->median + (u32)walk_end(&w));
    u8 *to = canvas_at(p, x, y);
    to[plane] = t->ids[t->at];
    if (p->mixer) mix_end_sample(p, x, y, r, walk_end(&w));
    if (p->options.cost) {
        u32 sample = p->info.colour == MEGABYTE_COLOUR_NONE ? plane : plane ? 2 * plane - 2 : 1;
        u64 at = ((u64)y * p->image->width + x) * p->planes + (p->planes > 1 ? sample : 0);
        p->options.cost[at] = (float)-log2_exact(likely);
    }
    t->at++;
    p->samples++;
    if (plane + 1 < p->planes) return;
    to[3] = 1;
    if (p->decoding) write_pixel(p, t, x - t->x, y - t->y);
}

/* Decoding: the streams read what has come. */
static void move_streams(struct picture *p) {
    u32 n = 0;
    for (u32 i = 0; i < p->options.tiles; i++) {
        struct flying *t = &p->flying[i];
        if (!t->busy || t->at == t->end) continue; /* no more is asked of it */
        p->streams[n] = t->stream;
        p->bytes[n] = t->ids + t->fed;
        p->lengths[n++] = t->at - t->fed;
        t->fed = t->at;
    }
    if (n) feed_all(p->streams, p->bytes, NULL, p->lengths, n);
}

static int picture_cancelled(struct picture *p) {
    if (!p->options.progress) return 0;
    fp_leave(&p->caller); /* the callback is the caller's */
    int stop = p->options.progress(p->options.progress_context, p->samples);
    fp_enter(&p->caller);
    return stop;
}

/* All tiles, in steps: a step codes one sample of each tile in flight. */
static status code_picture(struct picture *p) {
    u32 tiles = p->columns * p->rows, busy = 0;
    for (u64 step = 0; busy || p->next < tiles; step++) {
        for (u32 i = 0; i < p->options.tiles && p->next < tiles; i++)
            if (!p->flying[i].busy) {
                if (!may_begin_tile(p, p->next)) break;
                begin_tile(p, &p->flying[i]);
                if (p->mixer) mix_begin_tile(p->mixer, i);
                busy++;
            }
        if (step % 64 == 0 && picture_cancelled(p)) return MEGABYTE_ERROR_CANCELLED;
        for (u32 i = 0; i < p->options.tiles; i++) {
            struct flying *t = &p->flying[i];
            if (!t->busy) continue;
            code_sample(p, t);
            fill_known(p, t);
        }
        if (p->decoding) {
            if (beyond_end(&p->coder)) return MEGABYTE_ERROR_CORRUPT;
            move_streams(p);
        } else if (p->coder.n > p->coder.capacity) {
            return MEGABYTE_ERROR_CAPACITY;
        }
        for (u32 i = 0; i < p->options.tiles; i++) {
            struct flying *t = &p->flying[i];
            if (!t->busy) continue;
            t->busy = t->at < t->end;
            busy -= !t->busy;
            p->progress[t->tile] = t->busy ? t->at : UINT32_MAX;
        }
    }
    return MEGABYTE_OK;
}

/* ---- the file: models/FORMAT.md has it byte by byte */

static const u8 image_magic[4] = {0xb5, 'm', 'b', 'i'};
#define IMAGE_VERSION 1
#define IMAGE_SIDE (1u << 24)
#define IMAGE_OVERHEAD \
    64 /* header and check, without a layout: 4 + 3 + 6 + 4 + 4 + 2 + 8 + 3 + 4 + 8 */
#define DEFAULT_TILES 12
enum { IMAGE_ALONE = 1, IMAGE_STORED = 2, IMAGE_GREY = 4, IMAGE_LAYOUT = 8 };

static u32 write_image_header(const megabyte_image_header *h, const u8 *layout, u8 *to) {
    u8 digest[32];
    u32 n = 4;
    memcpy(to, image_magic, 4);
    to[n++] = (u8)h->format_version;
    to[n++] = (u8)((h->model_alone ? IMAGE_ALONE : 0) | (h->stored ? IMAGE_STORED : 0) |
                   (h->channels == 1 ? IMAGE_GREY : 0) | (h->layout_bytes ? IMAGE_LAYOUT : 0));
    to[n++] = (u8)h->numerics_version;
    memcpy(to + n, h->model_id, MODEL_ID_BYTES);
    n += MODEL_ID_BYTES;
    n += put_varint(to + n, h->width);
    n += put_varint(to + n, h->height);
    n += put_varint(to + n, h->tiles);
    n += put_varint(to + n, h->coded);
    if (h->layout_bytes) {
        n += put_varint(to + n, h->layout_bytes);
        memcpy(to + n, layout, h->layout_bytes);
        n += h->layout_bytes;
    }
    sha256(to, n, NULL, 0, digest);
    memcpy(to + n, digest, CHECK_BYTES);
    return n + CHECK_BYTES;
}

megabyte_status megabyte_image_header_read(const void *bytes, size_t n, megabyte_image_header *h,
                                           megabyte_error *error) {
    struct reader r = {.at = bytes, .n = n, .used = 4};
    u8 digest[32], check[CHECK_BYTES];
    clear_error(error);
    if (!h || (n && !bytes))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "NULL is not a header");
    memset(h, 0, sizeof *h);
    if (n && memcmp(r.at, image_magic, n < 4 ? n : 4))
        return fail(error, MEGABYTE_ERROR_BAD_MAGIC, 0, "this is not a .mbi file");
    if (n < 4) return fail(error, MEGABYTE_ERROR_TRUNCATED, n, "the header is cut off");
    h->format_version = read_byte(&r);
    if (h->format_version > IMAGE_VERSION)
        return fail(error, MEGABYTE_ERROR_BAD_VERSION, 4,
                    "format version %u is newer than this megabyte's (%u): update it",
                    h->format_version, IMAGE_VERSION);
    u32 flags = read_byte(&r);
    h->numerics_version = read_byte(&r);
    read_bytes(&r, h->model_id, MODEL_ID_BYTES);
    h->width = (u32)read_varint(&r, IMAGE_SIDE);
    h->height = (u32)read_varint(&r, IMAGE_SIDE);
    h->tiles = (u32)read_varint(&r, 256);
    h->coded = read_varint(&r, INT64_MAX);
    h->channels = flags & IMAGE_GREY ? 1 : 3;
    h->model_alone = (flags & IMAGE_ALONE) != 0;
    h->stored = (flags & IMAGE_STORED) != 0;
    u64 samples = (u64)h->width * h->height * h->channels; /* < 2^50 */
    int wrong = h->format_version < 1 || flags > 15 || !h->width || !h->height || !h->tiles ||
                (h->stored ? h->coded != samples : h->coded >= samples);
    if (flags & IMAGE_LAYOUT) {
        h->layout_bytes = (u32)read_varint(&r, MEGABYTE_LAYOUT_MAX);
        h->layout_at = (u32)r.used;
        wrong |= !h->layout_bytes;
        if (!r.result && h->layout_bytes > n - r.used) r.result = MEGABYTE_ERROR_TRUNCATED;
        else r.used += h->layout_bytes;
    }
    h->header_bytes = (u32)r.used + CHECK_BYTES;
    h->file_bytes = h->header_bytes + h->coded + WHOLE_BYTES;
    read_bytes(&r, check, CHECK_BYTES);
    if (r.result == MEGABYTE_ERROR_TRUNCATED)
        return fail(error, r.result, n, "the header is cut off");
    if (!r.result) sha256(r.at, h->header_bytes - CHECK_BYTES, NULL, 0, digest);
    if (wrong || r.result || memcmp(digest, check, CHECK_BYTES))
        return fail(error, MEGABYTE_ERROR_CORRUPT, r.used, "the header is damaged");
    return MEGABYTE_OK;
}

/* The check at a file's end: of its header and its samples. */
static void check_picture(const megabyte_image *image, const u8 *head, u32 n_head,
                          u8 check[WHOLE_BYTES]) {
    u8 digest[32];
    struct sha256 whole;
    sha256_begin(&whole);
    sha256_add(&whole, head, n_head);
    for (u32 y = 0; y < image->height; y++)
        sha256_add(&whole, image->pixels + y * image->row_bytes,
                   (u64)image->width * image->channels);
    sha256_end(&whole, digest);
    memcpy(check, digest, WHOLE_BYTES);
}

/* ---- setting up */

static status check_picture_options(const megabyte_model *model, const megabyte_image_options *from,
                                    int decoding, u32 width, u32 height, u32 channels,
                                    struct picture *p, megabyte_error *error) {
    static const megabyte_image_options defaults;
    memset(p, 0, sizeof *p);
    megabyte_image_options *o = &p->options;
    *o = from ? *from : defaults;
    p->decoding = decoding;
    status r = megabyte_image_describe(model, &p->info, error);
    if (r) return r;
    if (!o->tiles) o->tiles = decoding ? 64 : DEFAULT_TILES;
    if (o->tiles > 256 || o->layout_bytes > MEGABYTE_LAYOUT_MAX ||
        (o->layout_bytes && !o->layout) || o->max_ratio >> 32)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "tiles must be up to 256 (%u), layout_bytes %u (%zu), max_ratio 2^32 - 1",
                    o->tiles, MEGABYTE_LAYOUT_MAX, o->layout_bytes);
    if (o->engine && o->engine->model != model)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "the engine belongs to another model");
    if (!width || !height || width > IMAGE_SIDE || height > IMAGE_SIDE ||
        (channels != 1 && channels != 3))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "a picture has 1 to %u pixels a side (%u x %u) and 1 or 3 channels (%u)",
                    IMAGE_SIDE, width, height, channels);
    if (channels > p->info.channels)
        return fail(error, MEGABYTE_ERROR_UNSUPPORTED, 0, "this model knows grey pictures only");
    if (model->sizes.vocabulary < 256)
        return fail(error, MEGABYTE_ERROR_UNSUPPORTED, 0,
                    "a model of %u symbols cannot code all bytes", model->sizes.vocabulary);
    p->planes = channels;
    u64 columns = (width + (u64)p->info.tile_width - 1) / p->info.tile_width,
        rows = (height + (u64)p->info.tile_height - 1) / p->info.tile_height;
    if (columns * rows >= UINT32_MAX)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0, "too many tiles");
    p->columns = (u32)columns;
    p->rows = (u32)rows;
    return MEGABYTE_OK;
}

/* Fills p's pointers; with a base they are real. The canvas comes last: it is touched as it is
 * used. */
static void picture_layout(struct picture *p, struct arena *a, u32 width, u32 height) {
    u64 tile = p->info.tile_bytes, pixels = tile / p->info.channels, n = p->options.tiles;
    struct mixer_tables *tables = carve(a, 1, sizeof *tables);
    p->tables = tables;
    p->place = carve(a, pixels, sizeof *p->place);
    p->progress = carve(a, (u64)p->columns * p->rows, sizeof *p->progress);
    p->flying = carve(a, n, sizeof *p->flying);
    p->streams = carve(a, n, sizeof *p->streams);
    p->bytes = carve(a, n, sizeof *p->bytes);
    p->lengths = carve(a, n, sizeof *p->lengths);
    u8 *ids = carve(a, n, tile);
    struct record *records = carve(a, p->decoding ? 0 : n * tile, sizeof *records);
    struct picture_mixer *m = p->mixer = carve(a, p->options.model_alone ? 0 : 1, sizeof *m);
    u64 mixing = !p->options.model_alone, sets = BY_TILE + 3 * LEVELS * n;
    u32 *table = carve(a, mixing * P_CONTEXTS * P_LINES, 16 * sizeof *table);
    i16(*weights)[P_INPUTS] = carve(a, mixing * sets, sizeof *weights);
    struct regression *regression = carve(a, mixing * 3 * n, sizeof *regression);
    p->canvas = carve(a, (u64)width * height, CANVAS);
    if (!a->base) return;
    make_tables(tables, find_mix_kernels(p->engine->kernels.isa));
    memset(p->progress, 0, (size_t)p->columns * p->rows * sizeof *p->progress);
    memset(p->flying, 0, (size_t)n * sizeof *p->flying);
    for (u64 i = 0; i < n; i++) {
        p->flying[i].ids = ids + i * tile;
        if (!p->decoding) p->flying[i].records = records + i * tile;
    }
    for (u32 y = 0; y < p->info.tile_height; y++)
        for (u32 x = 0; x < p->info.tile_width; x++) {
            u16 *at = p->place[megabyte_image_index(&p->info, x, y) / p->info.channels];
            at[0] = (u16)x;
            at[1] = (u16)y;
        }
    memset(p->canvas, 0, (size_t)width * height * CANVAS);
    if (!mixing) {
        p->mixer = NULL;
        return;
    }
    m->table = table;
    m->weights = weights;
    m->tile_regression = regression;
    mix_begin_picture(m, tables, (u32)n);
}

static megabyte_stream_options picture_stream(const struct picture *p) {
    megabyte_stream_options o = {.engine = p->engine, .draft_max = MEGABYTE_NO_DRAFT};
    return o;
}

/* The memory of a call but for its engine; 0: too much. */
static u64 picture_bytes(const megabyte_model *model, const struct picture *from, u32 width,
                         u32 height) {
    struct picture p = *from;
    struct arena a = {.base = NULL};
    megabyte_stream_options o = picture_stream(&p);
    size_t all = 0, engine = 0;
    picture_layout(&p, &a, width, height);
    if (!arena_fits(&a) || megabyte_stream_size(model, &o, &all) ||
        (!p.engine && megabyte_engine_size(model, NULL, &engine)))
        return 0;
    u64 streams = p.decoding ? p.options.tiles : 1, stream = all - engine;
    return stream > (SIZE_MAX / 2 - a.used) / streams ? 0 : a.used + streams * stream;
}

megabyte_status megabyte_image_memory(const megabyte_model *model, megabyte_mode mode,
                                      const megabyte_image_options *options, uint32_t width,
                                      uint32_t height, uint32_t channels, size_t *bytes) {
    struct picture p;
    megabyte_image_options o = {0};
    size_t engine = 0;
    if (!bytes || (mode != MEGABYTE_MODE_COMPRESS && mode != MEGABYTE_MODE_DECOMPRESS))
        return MEGABYTE_ERROR_INVALID_ARGUMENT;
    if (options) o = *options;
    if (!o.tiles) o.tiles = DEFAULT_TILES; /* what a file asks for unless told otherwise */
    status r = check_picture_options(model, &o, mode == MEGABYTE_MODE_DECOMPRESS, width, height,
                                     channels, &p, NULL);
    if (!r && !o.engine) r = megabyte_engine_size(model, NULL, &engine);
    if (r) return r;
    if (p.decoding) p.options.tiles = min32(p.options.tiles, p.columns * p.rows);
    u64 all = picture_bytes(model, &p, width, height);
    if (!all || engine > SIZE_MAX - all) return MEGABYTE_ERROR_OUT_OF_MEMORY;
    *bytes = (size_t)(all + engine);
    return MEGABYTE_OK;
}

/* Everything that a picture in work needs, then the work: coder is ready. */
static status run_picture(struct picture *p, const megabyte_model *model,
                          const megabyte_image *image, const megabyte_allocator *allocator,
                          megabyte_error *error) {
    megabyte_allocator memory;
    megabyte_engine *own = NULL;
    struct arena a = {.base = NULL};
    void *object = NULL;
    status r = choose_allocator(&memory, allocator, error);
    p->engine = p->options.engine;
    if (!r && !p->engine) {
        r = megabyte_engine_create(&own, model, NULL, allocator, error);
        p->engine = own;
    }
    if (r) return r;
    p->image = image;
    picture_layout(p, &a, image->width, image->height);
    r = new_object(&object, &memory, arena_fits(&a) ? MEGABYTE_OK : MEGABYTE_ERROR_OUT_OF_MEMORY,
                   (size_t)a.used, "a picture", error);
    if (!r) {
        size_t allocated = (size_t)a.used;
        megabyte_stream_options o = picture_stream(p);
        a.base = object;
        a.used = 0;
        picture_layout(p, &a, image->width, image->height);
        for (u32 i = 0; i < p->options.tiles && !r; i++) {
            struct flying *t = &p->flying[i];
            if (i && !p->decoding) t->stream = p->flying[0].stream; /* scores one after another */
            else r = megabyte_stream_create(&t->stream, model, &o, allocator, error);
        }
        if (!r) {
            fp_enter(&p->caller);
            r = code_picture(p);
            fp_leave(&p->caller);
            if (r == MEGABYTE_ERROR_CANCELLED) fail(error, r, 0, "cancelled");
        }
        for (u32 i = 0; i < (p->decoding ? p->options.tiles : 1); i++)
            megabyte_stream_free(p->flying[i].stream);
        memory.free(memory.context, object, allocated);
    }
    megabyte_engine_free(own);
    return r;
}

static status check_pixels(const megabyte_image *image, megabyte_error *error) {
    if (!image || !image->pixels || image->row_bytes < (u64)image->width * image->channels ||
        (image->height && image->row_bytes > SIZE_MAX / 2 / image->height))
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "a picture needs pixels, and row_bytes of width * channels or more");
    return MEGABYTE_OK;
}

size_t megabyte_image_bound(uint32_t width, uint32_t height, uint32_t channels) {
    if (!width || !height || !channels) return IMAGE_OVERHEAD;
    if (width > (SIZE_MAX - IMAGE_OVERHEAD) / height / channels) return SIZE_MAX;
    return (size_t)width * height * channels + IMAGE_OVERHEAD;
}

megabyte_status megabyte_image_encode(const megabyte_model *model,
                                      const megabyte_image_options *options,
                                      const megabyte_image *image, void *out, size_t capacity,
                                      size_t *n_out, const megabyte_allocator *allocator,
                                      megabyte_error *error) {
    struct picture p;
    clear_error(error);
    if (n_out) *n_out = 0;
    if (!model || !out || !n_out)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "model, out and n_out must not be NULL");
    u64 room, line, samples;
    u8 *to = out;
    int alone = 0;
    status r = check_pixels(image, error);
    if (r) return r;
    do { /* mixed; again by the model alone if that is smaller: a small picture teaches little */
        r = check_picture_options(model, options, 0, image->width, image->height, image->channels,
                                  &p, error);
        if (r) return r;
        p.options.model_alone |= alone;
        room = IMAGE_OVERHEAD + p.options.layout_bytes;
        line = (u64)image->width * image->channels;
        samples = line * image->height;
        if (capacity >= room)
            begin_encoding(&p.coder, to + room - WHOLE_BYTES, min64(capacity - room, samples - 1));
        r = capacity < room ? MEGABYTE_ERROR_CAPACITY
                            : run_picture(&p, model, image, allocator, error);
        if (!r) end_encoding(&p.coder);
        alone = (!r || r == MEGABYTE_ERROR_CAPACITY) && !p.options.model_alone &&
                p.alone >> 15 < p.coder.n;
    } while (alone);
    int stored = r ? r == MEGABYTE_ERROR_CAPACITY : p.coder.n >= samples;
    if (stored && capacity >= room && capacity - room >= samples) r = MEGABYTE_OK;
    else if (!r && p.coder.n > capacity - room) r = MEGABYTE_ERROR_CAPACITY;
    if (r == MEGABYTE_ERROR_CAPACITY)
        return fail(error, r, 0, "the buffer of %zu bytes is too small: megabyte_image_bound",
                    capacity);
    if (r) return r;
    megabyte_image_header h = {.format_version = IMAGE_VERSION,
                               .numerics_version = MEGABYTE_NUMERICS_VERSION,
                               .width = image->width,
                               .height = image->height,
                               .channels = image->channels,
                               .tiles = p.options.tiles,
                               .model_alone = p.options.model_alone != 0,
                               .stored = stored,
                               .layout_bytes = (u32)p.options.layout_bytes,
                               .coded = stored ? samples : p.coder.n};
    memcpy(h.model_id, model->id, MODEL_ID_BYTES);
    u32 n = write_image_header(&h, p.options.layout, to);
    if (!stored) memmove(to + n, to + room - WHOLE_BYTES, (size_t)h.coded);
    for (u32 y = 0; stored && y < image->height; y++)
        memcpy(to + n + y * line, image->pixels + y * image->row_bytes, (size_t)line);
    for (u64 i = 0; stored && p.options.cost && i < samples; i++) p.options.cost[i] = 8;
    check_picture(image, to, n, to + n + h.coded);
    *n_out = (size_t)(n + h.coded + WHOLE_BYTES);
    return MEGABYTE_OK;
}

/* Can this call decode the file? */
static status accept_picture(const megabyte_image_header *h, const megabyte_model *model,
                             const struct picture *p, size_t n, megabyte_error *error) {
    u64 samples = (u64)h->width * h->height * h->channels;
    if (memcmp(h->model_id, model->id, MODEL_ID_BYTES))
        return fail(error, MEGABYTE_ERROR_WRONG_MODEL, 0,
                    "compressed with another model: its id begins with %02x%02x%02x%02x%02x%02x",
                    h->model_id[0], h->model_id[1], h->model_id[2], h->model_id[3], h->model_id[4],
                    h->model_id[5]);
    if (h->numerics_version != MEGABYTE_NUMERICS_VERSION)
        return fail(error, MEGABYTE_ERROR_BAD_VERSION, 0,
                    "compressed with numerics %u, but this megabyte has %u", h->numerics_version,
                    MEGABYTE_NUMERICS_VERSION);
    if (h->tiles > p->options.tiles)
        return fail(error, MEGABYTE_ERROR_CAPACITY, 0,
                    "%u tiles in flight need the option tiles to be so many, not %u", h->tiles,
                    p->options.tiles);
    if (p->options.limit && samples > p->options.limit)
        return fail(error, MEGABYTE_ERROR_LIMIT, 0, "%llu samples are over the limit of %llu",
                    (unsigned long long)samples, (unsigned long long)p->options.limit);
    if (p->options.max_ratio && samples > MEGABYTE_RATIO_FREE + p->options.max_ratio * n)
        return fail(error, MEGABYTE_ERROR_LIMIT, 0,
                    "%zu compressed bytes claim to be %llu samples, over the limit on ratio", n,
                    (unsigned long long)samples);
    if (n < h->file_bytes)
        return fail(error, MEGABYTE_ERROR_TRUNCATED, n, "the file is cut off: it has %llu bytes",
                    (unsigned long long)h->file_bytes);
    return MEGABYTE_OK;
}

megabyte_status megabyte_image_decode(const megabyte_model *model,
                                      const megabyte_image_options *options, const void *bytes,
                                      size_t n, const megabyte_image *image,
                                      const megabyte_allocator *allocator, megabyte_error *error) {
    struct picture p;
    megabyte_image_header h;
    u8 check[WHOLE_BYTES];
    const u8 *from = bytes;
    status r = megabyte_image_header_read(bytes, n, &h, error);
    if (r) return r;
    if (!model || check_pixels(image, NULL) || image->width != h.width ||
        image->height != h.height || image->channels != h.channels)
        return fail(error, MEGABYTE_ERROR_INVALID_ARGUMENT, 0,
                    "needs a model, and pixels for a picture of %u x %u x %u", h.width, h.height,
                    h.channels);
    r = check_picture_options(model, options, 1, h.width, h.height, h.channels, &p, error);
    if (!r) r = accept_picture(&h, model, &p, n, error);
    if (r) return r;
    p.options.tiles = min32(h.tiles, p.columns * p.rows); /* places beyond stay free */
    p.options.model_alone = h.model_alone;
    p.options.cost = NULL;
    from += h.header_bytes;
    u64 line = (u64)h.width * h.channels;
    for (u32 y = 0; h.stored && y < h.height; y++)
        memcpy(image->pixels + y * image->row_bytes, from + y * line, (size_t)line);
    if (!h.stored) {
        begin_decoding(&p.coder, from, h.coded);
        r = run_picture(&p, model, image, allocator, error);
        if (!r && !ends_decoding(&p.coder)) r = MEGABYTE_ERROR_CORRUPT;
        if (r && r != MEGABYTE_ERROR_CORRUPT) return r;
    }
    check_picture(image, bytes, h.header_bytes, check);
    if (r || memcmp(check, from + h.coded, WHOLE_BYTES))
        return fail(error, MEGABYTE_ERROR_CORRUPT, h.header_bytes,
                    "the code is damaged: the picture is not what was encoded");
    if (n > h.file_bytes)
        return fail(error, MEGABYTE_ERROR_TRAILING_DATA, h.file_bytes,
                    "the picture was decoded, but other data follow");
    return MEGABYTE_OK;
}
#endif

/* ================================================================================ 20 self-test */

/* In memory, models with odd sizes, generated weights, q4, q8 and f32 matrices mixed: between them
 * they have every option of every family. */
struct draft {
    u8 *file;
    u64 at, end, data;
    u32 seed;
};

static float draft_value(struct draft *d, float mean, float spread) {
    d->seed = d->seed * 1664525u + 1013904223u;
    float v = (float)((i32)(d->seed >> 8) - (1 << 23)) * (1.0f / 8388608.0f) *
              spread; /* [-spread, spread) */
    ROUNDED(v);
    return mean + v;
}

static status draft_tensor(void *context, struct tensor *t) {
    struct draft *d = context;
    int down = t->role == ROLE_FF_DOWN || t->role == ROLE_ATTENTION_OUT;
    t->type = !is_matrix(t->role)                     ? TYPE_F32
              : t->layer % 2 || t->role == ROLE_PATCH ? TYPE_F32_TILED
              : down                                  ? TYPE_Q4_TILED
                                                      : TYPE_Q8_TILED;
    u64 bytes = tensor_data_bytes(t);
    if (d->file) {
        u8 *entry = d->file + d->at, *data = d->file + d->end;
        t->offset = d->end;
        put_entry(entry, t, d->data);
        u64 quantized = quantized_bytes(t);
        int norm = t->role == ROLE_NORM || t->role == ROLE_ATTENTION_NORM ||
                   t->role == ROLE_FF_NORM || t->role == ROLE_PATCH_NORM_IN_WEIGHT ||
                   t->role == ROLE_PATCH_NORM_OUT_WEIGHT || t->role == ROLE_QK_NORM ||
                   t->role == ROLE_ROTARY;
        for (u64 i = 0; i < quantized; i++) data[i] = (u8)(draft_value(d, 128, 127));
        for (u64 i = quantized; i < bytes; i += 4)
            put32(data + i,
                  f32_to_bits(quantized ? draft_value(d, 0.002f, 0.001f)
                                        : draft_value(d, norm ? 1.0f : 0.0f, norm ? 0.5f : 0.3f)));
    }
    d->at += TENSOR_BYTES;
    d->end = round_up(d->end + bytes, ALIGN);
    return MEGABYTE_OK;
}

#define SELF_TEST_FINGERPRINT 0xa3231c5610fb0914ULL
static const struct sizes drafts[] = {
    {.vocabulary = 256,
     .pad_id = UINT32_MAX,
     .family = FAMILY_LUCIDRAINS,
     .n_stages = 3,
     .end_id = UINT32_MAX,
     .stage = {{.dim = 40,
                .layers = 2,
                .heads = 2,
                .head_dim = 18,
                .ff_dim = 72,
                .positions = 6,
                .flags = POSITION_LEARNED | POSITION_ROTARY},
               {.dim = 33,
                .layers = 1,
                .heads = 3,
                .head_dim = 8,
                .ff_dim = 50,
                .positions = 3,
                .flags = POSITION_ROTARY},
               {.dim = 24,
                .layers = 2,
                .heads = 1,
                .head_dim = 20,
                .ff_dim = 96,
                .positions = 4,
                .flags = POSITION_LEARNED}}},
    {.vocabulary = 257,
     .pad_id = 256,
     .family = FAMILY_MBLM,
     .n_stages = 2,
     .end_id = UINT32_MAX,
     .stage = {{.dim = 36,
                .layers = 1,
                .heads = 2,
                .head_dim = 10,
                .ff_dim = 40,
                .positions = 9,
                .flags = INPUT_ROTARY | POSITION_ROTARY},
               {.dim = 22,
                .layers = 1,
                .heads = 1,
                .head_dim = 24,
                .ff_dim = 30,
                .positions = 5,
                .flags = INPUT_ROTARY}}},
    {.vocabulary = 256,
     .pad_id = UINT32_MAX,
     .family = FAMILY_SPACEBYTE,
     .n_stages = 2,
     .end_id = UINT32_MAX,
     .stage = {{.dim = 45,
                .layers = 2,
                .heads = 4,
                .head_dim = 10,
                .ff_dim = 70,
                .positions = 11,
                .flags = POSITION_LEARNED | POSITION_ROTARY | QK_NORM,
                .kv_heads = 2,
                .norm = NORM_DEVIATION,
                .activation = SILU,
                .convolution = {3, 5}},
               {.dim = 20,
                .layers = 2,
                .heads = 3,
                .head_dim = 6,
                .ff_dim = 33,
                .positions = 5,
                .flags = POSITION_LEARNED | POSITION_ROTARY | PATCH_PROJECTION | PREVIOUS_BYTE |
                         FINAL_NORM | QK_NORM,
                .kv_heads = 1,
                .norm = NORM_LAYER,
                .activation = RELU,
                .cross = 4}}},
    {.vocabulary = 257,
     .pad_id = 256,
     .family = FAMILY_BGPT,
     .n_stages = 2,
     .end_id = 256,
     .stage = {{.dim = 28,
                .layers = 1,
                .heads = 2,
                .head_dim = 14,
                .ff_dim = 56,
                .positions = 8,
                .flags = POSITION_LEARNED | COLUMN_SUM | FINAL_NORM,
                .kv_heads = 2,
                .norm = NORM_LAYER,
                .activation = GELU_TANH},
               {.dim = 28,
                .layers = 2,
                .heads = 2,
                .head_dim = 14,
                .ff_dim = 56,
                .positions = 6,
                .flags = POSITION_LEARNED | CONDITION_FIRST | FINAL_NORM,
                .kv_heads = 2,
                .norm = NORM_LAYER,
                .activation = GELU_ERF}}}};

static status self_test(megabyte_isa isa, const struct sizes *z, u64 *fingerprint) {
    enum { BYTES = 100 };
    megabyte_model *model = NULL;
    megabyte_engine *engine = NULL;
    megabyte_stream *stream = NULL;
    u32 tensors = 0;
    u8 text[BYTES];
    double bits = 0;
    u32 vocabulary = z->vocabulary;
    each_tensor(z, count_tensor, &tensors);
    u64 table = HEADER_BYTES + z->n_stages * STAGE_BYTES,
        data = round_up(table + tensors * TENSOR_BYTES + 4, ALIGN);
    struct draft d = {.at = table, .end = data, .data = data, .seed = 1};
    each_tensor(z, draft_tensor, &d);
    size_t size = (size_t)d.end, logit_bytes = BYTES * vocabulary * sizeof(float);
    u8 *file = libc_alloc(NULL, size + logit_bytes, ALIGN);
    if (!file) return MEGABYTE_ERROR_OUT_OF_MEMORY;
    memset(file, 0, size);
    float *logits = (void *)(file + size);
    put_header(file, z, tensors, 4, data, size);
    struct draft real = {.file = file, .at = table, .end = data, .data = data, .seed = 1};
    fp_state fp;
    fp_enter(&fp);
    each_tensor(z, draft_tensor, &real);
    fp_leave(&fp);
    sha256(file + data, size - data, NULL, 0, file + 64);
    sha256(file, 96, file + HEADER_BYTES, data - HEADER_BYTES, file + 96);

    megabyte_engine_options options = {.batch = 7, .isa = isa};
    status r = megabyte_model_open_memory(&model, file, size, NULL, NULL);
    if (!r) r = megabyte_engine_create(&engine, model, &options, NULL, NULL);
    megabyte_stream_options on = {.engine = engine};
    if (!r) r = megabyte_stream_create(&stream, model, &on, NULL, NULL);
    if (!r) {
        for (u32 i = 0; i < BYTES; i++) text[i] = (u8)(i * i * 7 + i);
        megabyte_stream_score(stream, text, BYTES, &bits, logits);
        for (u32 i = 0; i < BYTES * vocabulary; i++)
            *fingerprint = (*fingerprint ^ f32_to_bits(logits[i])) * 1099511628211ULL;
    }
    megabyte_stream_free(stream);
    megabyte_engine_free(engine);
    megabyte_model_close(model);
    libc_free(NULL, file, size + logit_bytes);
    return r;
}

megabyte_status megabyte_self_test(megabyte_isa isa) {
    u64 fingerprint = 14695981039346656037ULL;
    status r = MEGABYTE_OK;
    for (u32 i = 0; i < sizeof drafts / sizeof *drafts && !r; i++)
        r = self_test(isa, &drafts[i], &fingerprint);
    return r ? r : fingerprint == SELF_TEST_FINGERPRINT ? MEGABYTE_OK : MEGABYTE_ERROR_ARITHMETIC;
}

#if defined(__GNUC__) && !defined(__clang__) && \
    !defined(MEGABYTE_KEEP_OPTIONS) /* mbconvert keeps them */
#pragma GCC pop_options
#endif
/* MEGABYTE_BACKEND: from here on this file is compiled once per instruction set (section 6) */
#else

/* ======================================================================== 21 vector operations */

/* 16 lanes at a time. Each instruction set below is one complete chapter; a new operation is a line
 * in this list and a function in every chapter. The list is the same in every pass, so nothing of
 * it has to be undefined.
 *     vf  16 floats, vi  16 int32; vf_* and vi_* work lane by lane
 *     vq  a quantized activation, va  the accumulators of 16 int8 dot products
 *   vf_max(a, b) = a > b ? a : b;  vf_min(a, b) = a < b ? a : b
 *   vf_exponent(p, t): p * 2^n where t = n + MAGIC, by adding n to p's exponent bits
 *   vf_sum: of the lanes, by lane_sum's tree;  vf_top: the largest lane, none being NaN
 *   vf_first(a, n, b): the first n < 16 lanes of a; all others are b, whatever a's are
 *   vf_round(v): nearest integer, |v| < 2^22;  vq_store: 16 of them as vq
 *   va_dot(acc, w, x): 16 rows x 4 columns of weights times 4 activations, exact
 *   va_total: the 16 sums, corrected by the activations' sum where products took weight + 128
 *   VA_PIN(acc): keeps accumulators in registers where gcc would copy them about
 *   TWO_TILES: 1 if gemm_f32 has registers for two tiles of four rows
 * For q4 (see tensor_data_bytes), whose group is 32 columns:
 *     vn  w4 or w4 + 8 of 16 rows x 8 columns, vg  16 dot products within a group, vm  a group's m
 *   vn_pack: 32 activations as int8; the offset is what vg_start wants where products take w4 + 8
 *   vn_load: from 64 bytes; vn_dot(g, n, x): 8 more columns of a group, exact
 *   vm_load(p, high): from 16 bytes, their low or high nibbles; vg_end(acc, g, m): acc + g * m
 *   vn_unpack(n, m, to): w4 * m + 128 of 16 rows x 8 columns, as va_dot reads them */
#define vf NAME(vf)
#define vi NAME(vi)
#define vq NAME(vq)
#define va NAME(va)
#define vf_load NAME(vf_load)
#define vf_store NAME(vf_store)
#define vf_part NAME(vf_part)
#define vf_set NAME(vf_set)
#define vf_add NAME(vf_add)
#define vf_sub NAME(vf_sub)
#define vf_mul NAME(vf_mul)
#define vf_div NAME(vf_div)
#define vf_max NAME(vf_max)
#define vf_min NAME(vf_min)
#define vf_abs NAME(vf_abs)
#define vf_exp NAME(vf_exp)
#define vf_exponent NAME(vf_exponent)
#define vf_sum NAME(vf_sum)
#define vf_top NAME(vf_top)
#define vf_first NAME(vf_first)
#define vf_round NAME(vf_round)
#define vf_from_i NAME(vf_from_i)
#define vi_add NAME(vi_add)
#define vi_sum NAME(vi_sum)
#define vq_store NAME(vq_store)
#define va_zero NAME(va_zero)
#define va_dot NAME(va_dot)
#define va_total NAME(va_total)
#define vn NAME(vn)
#define vg NAME(vg)
#define vm NAME(vm)
#define vn_pack NAME(vn_pack)
#define vn_load NAME(vn_load)
#define vn_dot NAME(vn_dot)
#define vn_unpack NAME(vn_unpack)
#define vg_start NAME(vg_start)
#define vg_end NAME(vg_end)
#define vm_load NAME(vm_load)
#define vf_finish NAME(finish)
#define va_finish NAME(va_finish)
#define half_finish NAME(half_finish)
#define some_rows NAME(some_rows)
#define V INLINE TARGETED
/* of row i; NULL: sums are wanted as they are */
#define VA_SCALE_OF(i) (x_scale ? x_scale + (i) : NULL)

/* ---- plain C */
#if MEGABYTE_BACKEND == BACKEND_PLAIN
#define NAME(x) x##_plain
#define TARGETED
#undef V
#define V static inline /* forced, loops over lanes would make sanitizer builds take minutes */
#define TWO_TILES 0
typedef struct {
    float v[16];
} vf;
typedef struct {
    i32 v[16];
} vi;
typedef i8 vq;
typedef vi va;
#define VA_PIN(s) ((void)0)
#define LANES for (int i = 0; i < 16; i++)
#define UNROLLED_Q4 /* its steps are long enough: 97 KB of code otherwise */
V vf vf_load(const float *p) {
    vf r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}
V void vf_store(float *p, vf a) { memcpy(p, a.v, sizeof a.v); }
V vf vf_set(float a) {
    vf r;
    LANES r.v[i] = a;
    return r;
}
V vf vf_add(vf a, vf b) {
    LANES a.v[i] = a.v[i] + b.v[i];
    return a;
}
V vf vf_sub(vf a, vf b) {
    LANES a.v[i] = a.v[i] - b.v[i];
    return a;
}
V vf vf_mul(vf a, vf b) {
    LANES {
        a.v[i] = a.v[i] * b.v[i];
        ROUNDED(a.v[i]);
    }
    return a;
}
V vf vf_div(vf a, vf b) {
    LANES a.v[i] = a.v[i] / b.v[i];
    return a;
}
V vf vf_max(vf a, vf b) {
    LANES a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}
V vf vf_min(vf a, vf b) {
    LANES a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}
V vf vf_abs(vf a) {
    LANES a.v[i] = bits_to_f32(f32_to_bits(a.v[i]) & 0x7fffffffu);
    return a;
}
V vf vf_exponent(vf p, vf t) {
    LANES p.v[i] = bits_to_f32(f32_to_bits(p.v[i]) + (f32_to_bits(t.v[i]) << 23));
    return p;
}
V float vf_sum(vf a) { return lane_sum(a.v); }
V float vf_top(vf a) { return lane_max(a.v); }
V vf vf_first(vf a, u32 n, float b) {
    LANES a.v[i] = i < (int)n ? a.v[i] : b;
    return a;
}
V vi vf_round(vf a) {
    vi r;
    LANES r.v[i] = (i32)(f32_to_bits(a.v[i] + MAGIC) - MAGIC_BITS);
    return r;
}
V vf vf_from_i(vi a) {
    vf r;
    LANES r.v[i] = (float)a.v[i];
    return r;
}
V vi vi_add(vi a, vi b) {
    LANES a.v[i] += b.v[i];
    return a;
}
V i32 vi_sum(vi a) {
    i32 s = 0;
    LANES s += a.v[i];
    return s;
}
V void vq_store(vq *p, vi a) { LANES p[i] = (i8)a.v[i]; }
V va va_zero(void) {
    va r;
    LANES r.v[i] = 0;
    return r;
}
V va va_dot(va a, const u8 *w, const vq *x) {
    LANES a.v[i] += w[4 * i] * x[0] + w[4 * i + 1] * x[1] + w[4 * i + 2] * x[2] +
                    w[4 * i + 3] * x[3];
    return a;
}
V vi va_total(va a, i32 sum) {
    LANES a.v[i] -= 128 * sum;
    return a;
}
typedef struct {
    i8 v[2][64];
} vn;
typedef vi vg, vm;
V void vn_pack(const vq *x, i8 *to, i32 *offset) {
    memcpy(to, x, Q4_GROUP);
    *offset = 0;
}
V vn vn_load(const u8 *w) {
    vn r;
    for (int i = 0; i < 64; i++) {
        r.v[0][i] = (i8)((w[i] & 15) - 8);
        r.v[1][i] = (i8)((w[i] >> 4) - 8);
    }
    return r;
}
V vm vm_load(const u8 *p, u32 high) {
    vm r;
    LANES r.v[i] = p[i] >> 4 * high & 15;
    return r;
}
V vg vg_start(i32 offset) {
    vg r;
    LANES r.v[i] = offset;
    return r;
}
V vg vn_dot(vg g, const vn *n, const i8 *x) {
    for (int half = 0; half < 2; half++, x += 4) {
        const i8 *w = n->v[half];
        LANES g.v[i] += w[4 * i] * x[0] + w[4 * i + 1] * x[1] + w[4 * i + 2] * x[2] +
                        w[4 * i + 3] * x[3];
    }
    return g;
}
V vi vg_end(vi acc, vg g, vm m) {
    LANES acc.v[i] += g.v[i] * m.v[i];
    return acc;
}
V void vn_unpack(const vn *n, vm m, u8 *to) {
    for (int i = 0; i < 128; i++) to[i] = (u8)(n->v[i / 64][i % 64] * m.v[i % 64 / 4] + 128);
}
#undef LANES
#ifndef MEGABYTE_NO_CODEC
static i32 NAME(mix_dot)(const i16 *x, const i16 *w) {
    i32 sum = 0;
    for (int i = 0; i < MIX_INPUTS; i++) sum += x[i] * w[i];
    return sum;
}
static void NAME(mix_train)(const i16 *x, i16 *w, i16 error) {
    for (int i = 0; i < MIX_INPUTS; i++) {
        i32 v = w[i] + ((x[i] * error + (1 << 15)) >> 16);
        w[i] = (i16)(v > 32767 ? 32767 : v < -32768 ? -32768 : v);
    }
}
static struct mix_kernels NAME(mix_kernels)(void) {
    return (struct mix_kernels){.dot = NAME(mix_dot), .train = NAME(mix_train)};
}
#endif

/* ---- AVX2: two registers of 8 lanes; int8 widened to int16, exact in vpmaddwd */
#elif MEGABYTE_BACKEND == BACKEND_AVX2
#define NAME(x) x##_avx2
#define TARGETED TARGET("avx2")
#define TWO_TILES 0
typedef struct {
    __m256 a, b;
} vf;
typedef struct {
    __m256i a, b;
} vi;
typedef int16_t vq;
typedef struct {
    __m256i a, b, c, d;
} va; /* rows 4i .. 4i+3, two partial sums each */
#define VA_PIN(s) __asm__("" : "+x"(s.a), "+x"(s.b), "+x"(s.c), "+x"(s.d))
V vf vf_load(const float *p) {
    vf r = {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
    return r;
}
V void vf_store(float *p, vf a) {
    _mm256_storeu_ps(p, a.a);
    _mm256_storeu_ps(p + 8, a.b);
}
V vf vf_set(float a) {
    vf r = {_mm256_set1_ps(a), _mm256_set1_ps(a)};
    return r;
}
V vf vf_add(vf a, vf b) {
    a.a = _mm256_add_ps(a.a, b.a);
    a.b = _mm256_add_ps(a.b, b.b);
    return a;
}
V vf vf_sub(vf a, vf b) {
    a.a = _mm256_sub_ps(a.a, b.a);
    a.b = _mm256_sub_ps(a.b, b.b);
    return a;
}
V vf vf_mul(vf a, vf b) {
    a.a = _mm256_mul_ps(a.a, b.a);
    a.b = _mm256_mul_ps(a.b, b.b);
    ROUNDED(a.a);
    ROUNDED(a.b);
    return a;
}
V vf vf_div(vf a, vf b) {
    a.a = _mm256_div_ps(a.a, b.a);
    a.b = _mm256_div_ps(a.b, b.b);
    return a;
}
V vf vf_max(vf a, vf b) {
    a.a = _mm256_max_ps(a.a, b.a);
    a.b = _mm256_max_ps(a.b, b.b);
    return a;
}
V vf vf_min(vf a, vf b) {
    a.a = _mm256_min_ps(a.a, b.a);
    a.b = _mm256_min_ps(a.b, b.b);
    return a;
}
V vf vf_abs(vf a) {
    __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    a.a = _mm256_and_ps(a.a, m);
    a.b = _mm256_and_ps(a.b, m);
    return a;
}
V vf vf_exponent(vf p, vf t) {
    p.a = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.a),
                                               _mm256_slli_epi32(_mm256_castps_si256(t.a), 23)));
    p.b = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.b),
                                               _mm256_slli_epi32(_mm256_castps_si256(t.b), 23)));
    return p;
}
V float vf_sum(vf a) {
    __m256 s = _mm256_add_ps(a.a, a.b);
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_shuffle_ps(t, t, 1)));
}
V float vf_top(vf a) {
    __m256 s = _mm256_max_ps(a.a, a.b);
    __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(t, _mm_shuffle_ps(t, t, 1)));
}
V vf vf_first(vf a, u32 n, float b) {
    __m256i i = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), m = _mm256_set1_epi32((i32)n);
    __m256 low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(m, i)), v = _mm256_set1_ps(b);
    i = _mm256_add_epi32(i, _mm256_set1_epi32(8));
    a.a = _mm256_blendv_ps(v, a.a, low);
    a.b = _mm256_blendv_ps(v, a.b, _mm256_castsi256_ps(_mm256_cmpgt_epi32(m, i)));
    return a;
}
V vi vf_round(vf a) {
    __m256 m = _mm256_set1_ps(MAGIC);
    __m256i o = _mm256_set1_epi32(MAGIC_BITS);
    vi r = {_mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(a.a, m)), o),
            _mm256_sub_epi32(_mm256_castps_si256(_mm256_add_ps(a.b, m)), o)};
    return r;
}
V vf vf_from_i(vi a) {
    vf r = {_mm256_cvtepi32_ps(a.a), _mm256_cvtepi32_ps(a.b)};
    return r;
}
V vi vi_add(vi a, vi b) {
    a.a = _mm256_add_epi32(a.a, b.a);
    a.b = _mm256_add_epi32(a.b, b.b);
    return a;
}
V i32 vi_sum(vi a) {
    i32 t[8], s = 0;
    _mm256_storeu_si256((__m256i *)(void *)t, _mm256_add_epi32(a.a, a.b));
    for (int i = 0; i < 8; i++) s += t[i];
    return s;
}
V void vq_store(vq *p, vi a) {
    __m256i s = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.a, a.b), 0xd8);
    _mm256_storeu_si256((__m256i *)(void *)p, s);
}
V va va_zero(void) {
    __m256i z = _mm256_setzero_si256();
    va r = {z, z, z, z};
    return r;
}
V va va_dot(va s, const u8 *w, const vq *x) {
    int64_t four;
    memcpy(&four, x, 8);
    __m256i b = _mm256_set1_epi64x(four);
    const __m128i *p = (const __m128i *)(const void *)w;
    s.a = _mm256_add_epi32(s.a, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(p)), b));
    s.b = _mm256_add_epi32(s.b, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(p + 1)), b));
    s.c = _mm256_add_epi32(s.c, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(p + 2)), b));
    s.d = _mm256_add_epi32(s.d, _mm256_madd_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128(p + 3)), b));
    return s;
}
V vi va_total(va s, i32 sum) {
    __m256i c = _mm256_set1_epi32(128 * sum);
    vi r = {_mm256_sub_epi32(_mm256_permute4x64_epi64(_mm256_hadd_epi32(s.a, s.b), 0xd8), c),
            _mm256_sub_epi32(_mm256_permute4x64_epi64(_mm256_hadd_epi32(s.c, s.d), 0xd8), c)};
    return r;
}

/* y for half a tile and one row, as va_finish makes it. */
V void half_finish(__m256i a, __m256i b, i32 sum, const float *x_scale, const float *w_scale,
                   float *to, const float *bias, int add) {
    __m256i total = _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
    total = _mm256_sub_epi32(total, _mm256_set1_epi32(128 * sum));
    if (!x_scale) {
        __m256i *sums = (__m256i *)(void *)to;
        _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), total));
        return;
    }
    __m256 scale = _mm256_mul_ps(_mm256_set1_ps(*x_scale), _mm256_loadu_ps(w_scale));
    __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(total), scale);
    ROUNDED(y);
    if (bias) y = _mm256_add_ps(y, _mm256_loadu_ps(bias));
    if (add) y = _mm256_add_ps(_mm256_loadu_ps(to), y);
    _mm256_storeu_ps(to, y);
}
/* q4: bytes of w4 + 8 times int8, 8 pairs of products summed in 16 bit: what the 8 adds is in the
 * offsets, -8 times the sums of the columns that the halves of a lane take, so that the end fits
 * again. */
typedef struct {
    __m256i a[2], b[2];
} vn; /* rows 0 to 7, 8 to 15; columns 0 to 3, 4 to 7 */
typedef vi vg, vm; /* each 32-bit lane two of 16 bit; an m in both */
V void vn_pack(const vq *x, i8 *to, i32 *offset) {
    const __m256i *p = (const __m256i *)(const void *)x;
    __m256i a = _mm256_loadu_si256(p), b = _mm256_loadu_si256(p + 1), one = _mm256_set1_epi16(1);
    _mm256_storeu_si256((__m256i *)(void *)to,
                        _mm256_permute4x64_epi64(_mm256_packs_epi16(a, b), 0xd8));
    __m256i s = _mm256_add_epi32(_mm256_madd_epi16(a, one), _mm256_madd_epi16(b, one));
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_sub_epi32(_mm_setzero_si128(), _mm_slli_epi32(t, 3));
    *offset = _mm_cvtsi128_si32(_mm_shufflelo_epi16(t, 0x08)); /* 16 bits of both */
}
V vn vn_load(const u8 *w) {
    const __m256i *p = (const __m256i *)(const void *)w;
    __m256i a = _mm256_loadu_si256(p), b = _mm256_loadu_si256(p + 1), low = _mm256_set1_epi8(15);
    vn r = {{_mm256_and_si256(a, low), _mm256_and_si256(_mm256_srli_epi16(a, 4), low)},
            {_mm256_and_si256(b, low), _mm256_and_si256(_mm256_srli_epi16(b, 4), low)}};
    return r;
}
V vm vm_load(const u8 *p, u32 high) {
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    v = _mm_and_si128(_mm_srl_epi16(v, _mm_cvtsi32_si128((int)(4 * high))), _mm_set1_epi8(15));
    __m256i a = _mm256_cvtepu8_epi32(v), b = _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(v, v));
    vm r = {_mm256_or_si256(a, _mm256_slli_epi32(a, 16)),
            _mm256_or_si256(b, _mm256_slli_epi32(b, 16))};
    return r;
}
V vg vg_start(i32 offset) {
    vg r = {_mm256_set1_epi32(offset), _mm256_set1_epi32(offset)};
    return r;
}
V vg vn_dot(vg g, const vn *n, const i8 *x) {
    i32 four, more; /* one by one: gcc takes eight bytes apart in other registers */
    memcpy(&four, x, 4);
    memcpy(&more, x + 4, 4);
    __m256i u = _mm256_set1_epi32(four), v = _mm256_set1_epi32(more);
    g.a = _mm256_add_epi16(g.a, _mm256_maddubs_epi16(n->a[0], u));
    g.b = _mm256_add_epi16(g.b, _mm256_maddubs_epi16(n->b[0], u));
    g.a = _mm256_add_epi16(g.a, _mm256_maddubs_epi16(n->a[1], v));
    g.b = _mm256_add_epi16(g.b, _mm256_maddubs_epi16(n->b[1], v));
    return g;
}
V vi vg_end(vi acc, vg g, vm m) {
    acc.a = _mm256_add_epi32(acc.a, _mm256_madd_epi16(g.a, m.a));
    acc.b = _mm256_add_epi32(acc.b, _mm256_madd_epi16(g.b, m.b));
    return acc;
}
/* Two bytes (w4 + 8) m at a time, each below 256; then 128 - 8 m is added to each. */
V __m256i NAME(unpacked)(__m256i n, __m256i m) {
    __m256i by = _mm256_sub_epi8(_mm256_set1_epi8((char)128), _mm256_slli_epi16(m, 3));
    return _mm256_add_epi8(
        _mm256_mullo_epi16(n, m),
        _mm256_or_si256(_mm256_and_si256(by, _mm256_set1_epi16(255)), _mm256_slli_epi16(by, 8)));
}
V void vn_unpack(const vn *n, vm m, u8 *to) {
    __m256i *p = (__m256i *)(void *)to;
    _mm256_storeu_si256(p, NAME(unpacked)(n->a[0], m.a));
    _mm256_storeu_si256(p + 1, NAME(unpacked)(n->b[0], m.b));
    _mm256_storeu_si256(p + 2, NAME(unpacked)(n->a[1], m.a));
    _mm256_storeu_si256(p + 3, NAME(unpacked)(n->b[1], m.b));
}
#define OWN_ROWS 1
#define TILE_PAIRS 0 /* a row alone waits for memory: one straight stream comes faster than two */
/* One tile for 3 to 6 rows, half by half, 16 columns at a time: 12 sums, and each widened weight
 * serves six products; the other four registers hold two weights, an activation and a product. In
 * assembly, since gcc 12 adds a fifth to its instructions. */
#define EACH_ROW_3(f, k) f(0, k "(%[x])") f(1, k "(%[x],%[ld])") f(2, k "(%[x],%[ld],2)")
#define EACH_ROW_4(f, k) EACH_ROW_3(f, k) f(3, k "(%[far])")
#define EACH_ROW_5(f, k) EACH_ROW_4(f, k) f(4, k "(%[far],%[ld])")
#define EACH_ROW_6(f, k) EACH_ROW_5(f, k) f(5, k "(%[far],%[ld],2)")
#define BEGIN(i, at) __m256i a##i = _mm256_setzero_si256(), b##i = a##i;
#define WEIGHTS(index)                    \
    "vpmovzxbw (%[w]" index "),%%ymm12\n" \
    "vpmovzxbw 16(%[w]" index "),%%ymm13\n"
/* Compilers need not take more than 4095 characters. */
#define PRODUCT(i, at)                       \
    "vpbroadcastq " at ",%%ymm14\n"          \
    "vpmaddwd %%ymm14,%%ymm12,%%ymm15\n"     \
    "vpmaddwd %%ymm14,%%ymm13,%%ymm14\n"     \
    "vpaddd %%ymm15,%[a" #i "],%[a" #i "]\n" \
    "vpaddd %%ymm14,%[b" #i "],%[b" #i "]\n"
#define SUMS_3 \
    [a0] "+x"(a0), [b0] "+x"(b0), [a1] "+x"(a1), [b1] "+x"(b1), [a2] "+x"(a2), [b2] "+x"(b2)
#define SUMS_4 SUMS_3, [a3] "+x"(a3), [b3] "+x"(b3)
#define SUMS_5 SUMS_4, [a4] "+x"(a4), [b4] "+x"(b4)
#define SUMS_6 SUMS_5, [a5] "+x"(a5), [b5] "+x"(b5)
#define COLUMNS(rows, text)                                                       \
    __asm__(text                                                                  \
            : SUMS_##rows                                                         \
            : [w] "r"(p), [x] "r"(at), [far] "r"(at + 3 * ldx), [step] "r"(step), \
              [step3] "r"(3 * step), [ld] "r"(ldx * sizeof *x)                    \
            : "memory", "xmm12", "xmm13", "xmm14", "xmm15");
#define FOUR(rows, index, k) WEIGHTS(index) EACH_ROW_##rows(PRODUCT, k)
#define END(i, at) half_finish(a##i, b##i, sum[i], VA_SCALE_OF(i), w_scale, y + i * ldy, bias, add);
#define HALF_TILES(rows)                                                                           \
    static TARGETED void half_tiles_##rows(                                                        \
        const u8 *w, u64 step, const float *w_scale, u32 k4, const vq *x, u64 ldx, const i32 *sum, \
        const float *x_scale, float *y, u64 ldy, const float *bias, int add) {                     \
        for (u32 half = 0; half < 2; half++, w += 32, w_scale += 8, y += 8) {                      \
            const vq *at = x, *end = x + k4 / 16 * 16;                                             \
            const u8 *p = w;                                                                       \
            EACH_ROW_##rows(BEGIN, "") for (; at < end; at += 16, p += 4 * step) {                 \
                COLUMNS(rows, FOUR(rows, "", "") FOUR(rows, ",%[step]", "8")                       \
                                  FOUR(rows, ",%[step],2", "16") FOUR(rows, ",%[step3]", "24"))    \
            }                                                                                      \
            for (; at < x + k4; at += 4, p += step) {                                              \
                COLUMNS(rows, FOUR(rows, "", ""))                                                  \
            }                                                                                      \
            EACH_ROW_##rows(END, "") if (bias) bias += 8;                                          \
        }                                                                                          \
    }
/* clang-format off */
HALF_TILES(3)
HALF_TILES(4)
HALF_TILES(5)
HALF_TILES(6)
/* clang-format on */
#undef EACH_ROW_3
#undef EACH_ROW_4
#undef EACH_ROW_5
#undef EACH_ROW_6
#undef BEGIN
#undef WEIGHTS
#undef PRODUCT
#undef SUMS_3
#undef SUMS_4
#undef SUMS_5
#undef SUMS_6
#undef COLUMNS
#undef FOUR
#undef END
#undef HALF_TILES

/* The first rows of m > 2, spread evenly: returns how many. */
V u32 some_rows(const u8 *w, u64 step, const float *w_scale, u32 k4, const vq *x, u64 ldx,
                const i32 *sum, const float *x_scale, u32 m, float *y, u64 ldy, const float *bias,
                int add) {
    u32 rows = m / ((m + 5) / 6);
    if (rows == 6) half_tiles_6(w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add);
    if (rows == 5) half_tiles_5(w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add);
    if (rows == 4) half_tiles_4(w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add);
    if (rows == 3) half_tiles_3(w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add);
    return rows;
}
#ifndef MEGABYTE_NO_CODEC
static TARGETED i32 NAME(mix_dot)(const i16 *x, const i16 *w) {
    const __m256i *a = (const __m256i *)(const void *)x, *b = (const __m256i *)(const void *)w;
    __m256i s = _mm256_add_epi32(_mm256_madd_epi16(a[0], b[0]), _mm256_madd_epi16(a[1], b[1]));
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1)));
}
static TARGETED void NAME(mix_train)(const i16 *x, i16 *w, i16 error) {
    const __m256i *a = (const __m256i *)(const void *)x, e = _mm256_set1_epi16(error);
    __m256i *b = (__m256i *)(void *)w;
    for (int i = 0; i < 2;
         i++) { /* the product's high half, rounded by the top bit of its low half */
        __m256i low = _mm256_srli_epi16(_mm256_mullo_epi16(a[i], e), 15);
        b[i] = _mm256_adds_epi16(b[i], _mm256_add_epi16(_mm256_mulhi_epi16(a[i], e), low));
    }
}
static struct mix_kernels NAME(mix_kernels)(void) {
    return (struct mix_kernels){.dot = NAME(mix_dot), .train = NAME(mix_train)};
}
#endif

/* ---- AVX-512 with VNNI: one register is 16 lanes */
#elif MEGABYTE_BACKEND == BACKEND_AVX512_VNNI
#define NAME(x) x##_avx512
#define TARGETED TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#define TWO_TILES 1
typedef __m512 vf;
typedef __m512i vi;
typedef i8 vq;
typedef __m512i va;
V vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
V void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
V vf vf_set(float a) { return _mm512_set1_ps(a); }
V vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
V vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
V vf vf_mul(vf a, vf b) {
    vf r = _mm512_mul_ps(a, b);
    ROUNDED_512(r);
    return r;
}
V vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
V vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
V vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
V vf vf_abs(vf a) { return _mm512_abs_ps(a); }
V vf vf_exponent(vf p, vf t) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(p), _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}
V float vf_sum(vf a) {
    __m256 s = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_shuffle_ps(t, t, 1)));
}
V float vf_top(vf a) {
    __m256 s = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(t, _mm_shuffle_ps(t, t, 1)));
}
V vf vf_first(vf a, u32 n, float b) {
    return _mm512_mask_mov_ps(_mm512_set1_ps(b), (__mmask16)((1u << n) - 1), a);
}
V vi vf_round(vf a) {
    return _mm512_sub_epi32(_mm512_castps_si512(_mm512_add_ps(a, _mm512_set1_ps(MAGIC))),
                            _mm512_set1_epi32(MAGIC_BITS));
}
V vf vf_from_i(vi a) { return _mm512_cvtepi32_ps(a); }
V vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
V i32 vi_sum(vi a) { return _mm512_reduce_add_epi32(a); }
V void vq_store(vq *p, vi a) { _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(a)); }
V vi va_total(va a, i32 sum) { return _mm512_sub_epi32(a, _mm512_set1_epi32(128 * sum)); }

/* q4: bytes of w4 + 8 times int8; the offset takes away what the 8 adds. A group's sum fits 16 bit,
 * so that vpdpwssd multiplies it by m and adds it in one. */
typedef struct {
    __m512i a, b;
} vn; /* columns 0 to 3, 4 to 7 */
typedef __m512i vg, vm;
V void vn_pack(const vq *x, i8 *to, i32 *offset) {
    __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)x);
    _mm256_storeu_si256((__m256i *)(void *)to, v);
    v = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(8), v);
    __m128i t = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    *offset = -_mm_cvtsi128_si32(_mm_add_epi32(t, _mm_shuffle_epi32(t, 0xb1)));
}
V vn vn_load(const u8 *w) {
    __m512i v = _mm512_loadu_si512(w), low = _mm512_set1_epi8(15);
    vn r = {_mm512_and_si512(v, low), _mm512_and_si512(_mm512_srli_epi16(v, 4), low)};
    return r;
}
V vm vm_load(const u8 *p, u32 high) {
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    v = _mm_srl_epi16(v, _mm_cvtsi32_si128((int)(4 * high)));
    return _mm512_cvtepu8_epi32(_mm_and_si128(v, _mm_set1_epi8(15)));
}
V vg vg_start(i32 offset) { return _mm512_set1_epi32(offset); }
V vg vn_dot(vg g, const vn *n, const i8 *x) {
    i32 a, b; /* one by one: gcc takes eight bytes apart in other registers */
    memcpy(&a, x, 4);
    memcpy(&b, x + 4, 4);
    g = _mm512_dpbusd_epi32(g, n->a, _mm512_set1_epi32(a));
    return _mm512_dpbusd_epi32(g, n->b, _mm512_set1_epi32(b));
}
V vi vg_end(vi acc, vg g, vm m) { return _mm512_dpwssd_epi32(acc, g, m); }
/* Two bytes (w4 + 8) m at a time, each below 256; then 128 - 8 m is added to each. */
V void vn_unpack(const vn *n, vm m, u8 *to) {
    __m512i both = _mm512_or_si512(m, _mm512_slli_epi32(m, 16));
    __m512i all = _mm512_or_si512(both, _mm512_slli_epi32(both, 8));
    __m512i by = _mm512_sub_epi8(_mm512_set1_epi8((char)128), _mm512_slli_epi16(all, 3));
    _mm512_storeu_si512(to, _mm512_add_epi8(_mm512_mullo_epi16(n->a, both), by));
    _mm512_storeu_si512(to + 64, _mm512_add_epi8(_mm512_mullo_epi16(n->b, both), by));
}

/* y for one tile and one row, from its accumulators: in section 22, for all. */
V void va_finish(va acc, i32 sum, const float *x_scale, const float *w_scale, float *to,
                 const float *bias, int add);
#define OWN_GEMM_Q8 1
/* AVX-512: 16 accumulators and more, which must stay in registers. gcc 12 copies them about unless
 * each is a variable of its own (measured: 260 against 470 GMAC/s), hence the macros. Activations
 * are broadcast as they are read; a row's columns, k on, are found from the first row's: l1 is ldx,
 * l3 3 ldx ... */
#define EACH_ROW_1(f, k) f(0, k "(%[x])", l1)
#define EACH_ROW_2(f, k) EACH_ROW_1(f, k) f(1, k "(%[x],%[row])", l1)
#define EACH_ROW_3(f, k) EACH_ROW_2(f, k) f(2, k "(%[x],%[row],2)", l1)
#define EACH_ROW_4(f, k) EACH_ROW_3(f, k) f(3, k "(%[x],%[row])", l3)
#define EACH_ROW_5(f, k) EACH_ROW_4(f, k) f(4, k "(%[x],%[row],4)", l1)
#define EACH_ROW_6(f, k) EACH_ROW_5(f, k) f(5, k "(%[x],%[row])", l5)
#define EACH_ROW_7(f, k) EACH_ROW_6(f, k) f(6, k "(%[x],%[row],2)", l3)
#define EACH_ROW_8(f, k) EACH_ROW_7(f, k) f(7, k "(%[x],%[row])", l7)
#define FROM(n)         \
    u64 l##n = n * ldx; \
    __asm__("" : "+r"(l##n));
#define DOT(at, w, a) "vpdpbusd " at "%{1to16%}, %[" #w "], %[" #a "]\n\t"
#define SUMS(i) [a] "+&v"(a##i), [b] "+&v"(b##i)
#define MORE_SUMS(i) [c] "+&v"(c##i), [d] "+&v"(d##i)
#define READS(l) [u] "v"(wa), [v] "v"(wb), [x] "r"(x), [row] "r"(l)
V void add_sums(va a, float *to) {
    _mm512_storeu_si512(to, _mm512_add_epi32(_mm512_loadu_si512(to), a));
}
/* y for two tiles and one row, as va_finish makes it, `by` being their scales; the sums begin with
 * the correction for weight + 128. */
V void vf_finish(vf y, float *to, const float *bias, int add);
V void two_finish(va a, va b, const vf by[2], const float *x_scale, float *to, const float *bias,
                  int add) {
    if (!x_scale) {
        add_sums(a, to);
        add_sums(b, to + 16);
        return;
    }
    vf x = vf_set(*x_scale), ya = vf_mul(vf_from_i(a), vf_mul(x, by[0]));
    vf yb = vf_mul(vf_from_i(b), vf_mul(x, by[1]));
    if (bias) {
        ya = vf_add(ya, vf_load(bias));
        yb = vf_add(yb, vf_load(bias + 16));
    }
    vf_finish(ya, to, NULL, add);
    vf_finish(yb, to + 16, NULL, add);
}

/* Two tiles, each one straight stream, for 4 to 8 rows, 16 columns at a time. A matrix's first rows
 * would wait for memory: meanwhile what comes next is fetched into the second-level cache, which
 * does not fault: both next tiles by rows that are alone; else a tile by some rows in turn, from
 * `next` bytes on. */
#define BEGIN(i, at, l)                                      \
    va a##i = _mm512_set1_epi32(-128 * sum[i]), b##i = a##i; \
    __asm__("" : "+v"(a##i), "+v"(b##i)); /* gcc 12 copies b later, and often */
#define PRODUCT(i, at, l) __asm__(DOT(at, u, a) DOT(at, v, b) : SUMS(i) : READS(l) : "memory");
#define END(i, at, l) two_finish(a##i, b##i, by, VA_SCALE_OF(i), y + i * ldy, bias, add);
#define FETCH(k) __asm__ volatile("prefetcht1 16*" #k "(%0,%1)" : : "r"(w), "r"(next));
#define FETCH_BOTH(k) \
    FETCH(k)          \
    __asm__ volatile("prefetcht1 16*" #k "(%0,%1)" : : "r"(w), "r"(third));
#define FOUR(rows, k, fetch)                                  \
    {                                                         \
        __m512i wa = _mm512_loadu_si512(w + 16 * k);          \
        __m512i wb = _mm512_loadu_si512(w + stride + 16 * k); \
        fetch(k) EACH_ROW_##rows(PRODUCT, #k)                 \
    }
#define TILES_FOR(name, rows, fetch)                                                               \
    static TARGETED void name##_##rows(const u8 *w, u64 stride, u64 step, const float *w_scale,    \
                                       u32 k4, const vq *x, u64 ldx, const i32 *sum,               \
                                       const float *x_scale, float *y, u64 ldy, const float *bias, \
                                       int add, u64 next) {                                        \
        const vq *end = x + k4 / 16 * 16, *last = x + k4;                                          \
        u64 third = 3 * stride;                                                                    \
        (void)third, (void)step;                                                                   \
        FROM(1)                                                                                    \
        FROM(3)                                                                                    \
        FROM(5)                                                                                    \
        FROM(7)                                                                                    \
        EACH_ROW_##rows(BEGIN, "") for (; x < end; x += 16, w += 256) {                            \
            FOUR(rows, 0, fetch)                                                                   \
            FOUR(rows, 4, fetch)                                                                   \
            FOUR(rows, 8, fetch)                                                                   \
            FOUR(rows, 12, fetch)                                                                  \
        }                                                                                          \
        for (; x < last; x += 4, w += 64) FOUR(rows, 0, fetch)                                     \
        vf by[2] = {vf_load(w_scale), vf_load(w_scale + 16)};                                      \
        EACH_ROW_##rows(END, "")                                                                   \
    }
/* clang-format off */
TILES_FOR(lone_rows, 5, FETCH_BOTH)
TILES_FOR(lone_rows, 6, FETCH_BOTH)
TILES_FOR(lone_rows, 7, FETCH_BOTH)
TILES_FOR(lone_rows, 8, FETCH_BOTH)
TILES_FOR(two_tiles, 4, FETCH)
TILES_FOR(two_tiles, 5, FETCH)
TILES_FOR(two_tiles, 6, FETCH)
TILES_FOR(two_tiles, 7, FETCH)
TILES_FOR(two_tiles, 8, FETCH)
/* clang-format on */
#undef FETCH
#undef FETCH_BOTH
#undef BEGIN
#undef PRODUCT
#undef END
#undef FOUR
#undef TILES_FOR

/* Four tiles, for many rows or side by side, which is one straight stream, so that nothing is
 * fetched. Many rows are a hundredth slower with two tiles, in twice as many calls. */
#define FETCH __asm__ volatile("prefetcht1 (%0,%1)" : : "r"(w), "r"(next));
#define DO_NOT_FETCH (void)next;
#define BEGIN(i, at, l) \
    va a##i = _mm512_set1_epi32(-128 * sum[i]), b##i = a##i, c##i = a##i, d##i = a##i;
#define PRODUCT(i, at, l)                                           \
    __asm__(DOT(at, u, a) DOT(at, v, b) DOT(at, s, c) DOT(at, t, d) \
            : SUMS(i), MORE_SUMS(i)                                 \
            : READS(l), [s] "v"(wc), [t] "v"(wd)                    \
            : "memory");
#define END(i, at, l) \
    four_finish(a##i, b##i, c##i, d##i, by, VA_SCALE_OF(i), y + i * ldy, bias, add);
V void four_finish(va a, va b, va c, va d, const vf by[4], const float *x_scale, float *to,
                   const float *bias, int add) {
    if (x_scale) {
        two_finish(a, b, by, x_scale, to, bias, add);
        two_finish(c, d, by + 2, x_scale, to + 32, bias ? bias + 32 : NULL, add);
        return;
    }
    add_sums(a, to);
    add_sums(b, to + 16);
    add_sums(c, to + 32);
    add_sums(d, to + 48);
}
#define TILES_FOR(name, rows, fetch)                                                               \
    static TARGETED void name##_##rows(const u8 *w, u64 stride, u64 step, const float *w_scale,    \
                                       u32 k4, const vq *x, u64 ldx, const i32 *sum,               \
                                       const float *x_scale, float *y, u64 ldy, const float *bias, \
                                       int add, u64 next) {                                        \
        const vq *end = x + k4;                                                                    \
        FROM(1)                                                                                    \
        FROM(3)                                                                                    \
        FROM(5)                                                                                    \
        EACH_ROW_##rows(BEGIN, "") for (; x < end; x += 4, w += step) {                            \
            __m512i wa = _mm512_loadu_si512(w), wb = _mm512_loadu_si512(w + stride);               \
            __m512i wc = _mm512_loadu_si512(w + 2 * stride),                                       \
                    wd = _mm512_loadu_si512(w + 3 * stride);                                       \
            fetch EACH_ROW_##rows(PRODUCT, "")                                                     \
        }                                                                                          \
        vf by[4] = {vf_load(w_scale), vf_load(w_scale + 16), vf_load(w_scale + 32),                \
                    vf_load(w_scale + 48)};                                                        \
        EACH_ROW_##rows(END, "")                                                                   \
    }
/* clang-format off */
TILES_FOR(four_fetching, 5, FETCH)
TILES_FOR(four_fetching, 6, FETCH)
TILES_FOR(four_tiles, 1, DO_NOT_FETCH)
TILES_FOR(four_tiles, 2, DO_NOT_FETCH)
TILES_FOR(four_tiles, 3, DO_NOT_FETCH)
TILES_FOR(four_tiles, 4, DO_NOT_FETCH)
TILES_FOR(four_tiles, 5, DO_NOT_FETCH)
TILES_FOR(four_tiles, 6, DO_NOT_FETCH)
/* clang-format on */
#undef FETCH
#undef DO_NOT_FETCH
#undef BEGIN
#undef PRODUCT
#undef END
#undef TILES_FOR

/* Up to 4 rows, or a matrix's last tile: tile by tile, in the order of the file. They wait
 * for memory, and one straight stream comes fastest; four chains along k keep up with it. Nothing
 * is asked for ahead: the processor sees a straight stream coming, and prefetches of every line,
 * near or far, took bandwidth away. */
#define BEGIN(i, at, l) va a##i = _mm512_setzero_si512(), b##i = a##i, c##i = a##i, d##i = a##i;
#define SIXTEEN(i, at, l)                                                        \
    __asm__(DOT(at, u, a) DOT("4" at, v, b) DOT("8" at, s, c) DOT("12" at, t, d) \
            : SUMS(i), MORE_SUMS(i)                                              \
            : READS(l), [s] "v"(wc), [t] "v"(wd)                                 \
            : "memory");
#define LAST_FOUR(i, at, l) \
    __asm__(DOT(at, u, a) : [a] "+v"(a##i) : [u] "v"(wa), [x] "r"(x), [row] "r"(l) : "memory");
#define END(i, at, l)                                                                    \
    a##i = _mm512_add_epi32(_mm512_add_epi32(a##i, b##i), _mm512_add_epi32(c##i, d##i)); \
    va_finish(a##i, sum[i], VA_SCALE_OF(i), w_scale, y + i * ldy, bias, add);
#define ONE_TILE(rows)                                                                             \
    static TARGETED void one_tile_##rows(                                                          \
        const u8 *w, u64 step, const float *w_scale, u32 k4, const vq *x, u64 ldx, const i32 *sum, \
        const float *x_scale, float *y, u64 ldy, const float *bias, int add) {                     \
        const vq *end = x + k4 / 16 * 16, *last = x + k4;                                          \
        FROM(1)                                                                                    \
        FROM(3)                                                                                    \
        EACH_ROW_##rows(BEGIN, "") for (; x < end; x += 16, w += 4 * step) {                       \
            __m512i wa = _mm512_loadu_si512(w), wb = _mm512_loadu_si512(w + step);                 \
            __m512i wc = _mm512_loadu_si512(w + 2 * step), wd = _mm512_loadu_si512(w + 3 * step);  \
            EACH_ROW_##rows(SIXTEEN, "")                                                           \
        }                                                                                          \
        for (; x < last; x += 4, w += step) {                                                      \
            __m512i wa = _mm512_loadu_si512(w);                                                    \
            EACH_ROW_##rows(LAST_FOUR, "")                                                         \
        }                                                                                          \
        EACH_ROW_##rows(END, "")                                                                   \
    }
/* clang-format off */
ONE_TILE(1)
ONE_TILE(2)
ONE_TILE(3)
ONE_TILE(4)
/* clang-format on */
#undef BEGIN
#undef SIXTEEN
#undef LAST_FOUR
#undef END
#undef ONE_TILE
#undef FROM
#undef DOT
#undef SUMS
#undef MORE_SUMS
#undef READS

static TARGETED void one_tile(const u8 *w, u64 step, const float *w_scale, u32 k4, const vq *x,
                              u64 ldx, const i32 *sum, const float *x_scale, u32 m, float *y,
                              u64 ldy, const float *bias, int add) {
    for (; m; x += 4 * ldx, y += 4 * ldy, sum += 4, x_scale = VA_SCALE_OF(4), m -= 4) {
        if (m == 1) one_tile_1(w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add);
        if (m == 2) one_tile_2(w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add);
        if (m == 3) one_tile_3(w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add);
        if (m < 4) return;
        one_tile_4(w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add);
    }
}

#define ROWS(name, n) \
    if (rows == n)    \
        name##_##n(p, stride, step, ws, k4, x, ldx, sum + i, VA_SCALE_OF(i), yi, ldy, b, add, next);
static TARGETED void NAME(gemm_q8)(const u8 *w, u64 stride, u64 step, const float *w_scale,
                                   u32 tiles, u32 k4, const void *x_, u64 ldx, const i32 *sum,
                                   const float *x_scale, u32 m, float *y, u64 ldy,
                                   const float *bias, int add) {
    u32 t = 0, side = step > 64, four = side || m > 24, done = four ? 4 : 2, most = four ? 6 : 8;
    for (; (side || m > 4) && t + done <= tiles; t += done) {
        const float *b = bias ? bias + 16 * t : NULL, *ws = w_scale + 16 * t;
        const u8 *p = w + t * stride;
        u64 next = done * stride;
        for (u32 i = 0, rows; i < m; i += rows, next += 16 * (u64)k4) {
            const vq *x = (const vq *)x_ + i * ldx;
            float *yi = y + 16 * t + i * ldy;
            rows = (m - i) / ((m - i + most - 1) / most); /* the most, or some less, or all left */
            if (side) {
                ROWS(four_tiles, 1)
                ROWS(four_tiles, 2)
                ROWS(four_tiles, 3)
                ROWS(four_tiles, 4)
                ROWS(four_tiles, 5)
                ROWS(four_tiles, 6)
            } else if (four) {
                ROWS(four_fetching, 5)
                ROWS(four_fetching, 6)
            } else if (rows == m) {
                ROWS(lone_rows, 5)
                ROWS(lone_rows, 6)
                ROWS(lone_rows, 7)
                ROWS(lone_rows, 8)
            } else {
                ROWS(two_tiles, 4)
                ROWS(two_tiles, 5)
                ROWS(two_tiles, 6)
                ROWS(two_tiles, 7)
                ROWS(two_tiles, 8)
            }
        }
    }
    for (; t < tiles; t++)
        one_tile(w + t * stride, step, w_scale + 16 * t, k4, (const vq *)x_, ldx, sum, x_scale, m,
                 y + 16 * t, ldy, bias ? bias + 16 * t : NULL, add);
}
#undef ROWS
#undef EACH_ROW_1
#undef EACH_ROW_2
#undef EACH_ROW_3
#undef EACH_ROW_4
#undef EACH_ROW_5
#undef EACH_ROW_6
#undef EACH_ROW_7
#undef EACH_ROW_8

/* ---- NEON: four registers of 4 lanes */
#elif MEGABYTE_BACKEND == BACKEND_NEON || MEGABYTE_BACKEND == BACKEND_NEON_DOT
#if MEGABYTE_BACKEND == BACKEND_NEON
#define NAME(x) x##_neon
#define TARGETED
#else
#define NAME(x) x##_neon_dot
#define TARGETED TARGET(TARGET_DOTPROD)
#endif
#define TWO_TILES 0
#define VA_PIN(s) ((void)0)
typedef struct {
    float32x4_t a, b, c, d;
} vf;
typedef struct {
    int32x4_t a, b, c, d;
} vi;
typedef i8 vq;
#define EACH(r, f) vf r = {f(a), f(b), f(c), f(d)}
V vf vf_load(const float *p) {
    vf r = {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
    return r;
}
V void vf_store(float *p, vf x) {
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}
V vf vf_set(float v) {
    float32x4_t q = vdupq_n_f32(v);
    vf r = {q, q, q, q};
    return r;
}
#define EACH_OF(m) vaddq_f32(x.m, y.m)
V vf vf_add(vf x, vf y) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
#define EACH_OF(m) vsubq_f32(x.m, y.m)
V vf vf_sub(vf x, vf y) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
#define EACH_OF(m) vmulq_f32(x.m, y.m)
V vf vf_mul(vf x, vf y) {
    EACH(r, EACH_OF);
    ROUNDED(r.a);
    ROUNDED(r.b);
    ROUNDED(r.c);
    ROUNDED(r.d);
    return r;
}
#undef EACH_OF
#define EACH_OF(m) vdivq_f32(x.m, y.m)
V vf vf_div(vf x, vf y) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
#define EACH_OF(m) vbslq_f32(vcgtq_f32(x.m, y.m), x.m, y.m)
V vf vf_max(vf x, vf y) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
#define EACH_OF(m) vbslq_f32(vcltq_f32(x.m, y.m), x.m, y.m)
V vf vf_min(vf x, vf y) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
#define EACH_OF(m) vabsq_f32(x.m)
V vf vf_abs(vf x) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
V float vf_sum(vf x) {
    float32x4_t t = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    float32x2_t u = vadd_f32(vget_low_f32(t), vget_high_f32(t));
    return vget_lane_f32(u, 0) + vget_lane_f32(u, 1);
}
V vf vf_first(vf x, u32 n, float b) {
    static const u32 lanes[4] = {0, 1, 2, 3};
    uint32x4_t i = vld1q_u32(lanes);
    float32x4_t v = vdupq_n_f32(b);
    x.a = vbslq_f32(vcltq_u32(i, vdupq_n_u32(n)), x.a, v);
    x.b = vbslq_f32(vcltq_u32(vaddq_u32(i, vdupq_n_u32(4)), vdupq_n_u32(n)), x.b, v);
    x.c = vbslq_f32(vcltq_u32(vaddq_u32(i, vdupq_n_u32(8)), vdupq_n_u32(n)), x.c, v);
    x.d = vbslq_f32(vcltq_u32(vaddq_u32(i, vdupq_n_u32(12)), vdupq_n_u32(n)), x.d, v);
    return x;
}
V float vf_top(vf x) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.a, x.c), vmaxq_f32(x.b, x.d))); }
#define BITS(x) vreinterpretq_s32_f32(x)
#define EACH_OF(m) vreinterpretq_f32_s32(vaddq_s32(BITS(p.m), vshlq_n_s32(BITS(t.m), 23)))
V vf vf_exponent(vf p, vf t) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
#define EACH_OF(m) vcvtq_f32_s32(x.m)
V vf vf_from_i(vi x) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
#undef EACH
#define EACH(r, f) vi r = {f(a), f(b), f(c), f(d)}
#define EACH_OF(m) vsubq_s32(BITS(vaddq_f32(x.m, vdupq_n_f32(MAGIC))), vdupq_n_s32(MAGIC_BITS))
V vi vf_round(vf x) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
#undef BITS
#define EACH_OF(m) vaddq_s32(x.m, y.m)
V vi vi_add(vi x, vi y) {
    EACH(r, EACH_OF);
    return r;
}
#undef EACH_OF
#undef EACH
V i32 vi_sum(vi x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.b), vaddq_s32(x.c, x.d))); }
V void vq_store(vq *p, vi x) {
    vst1q_s8(p, vcombine_s8(vmovn_s16(vcombine_s16(vmovn_s32(x.a), vmovn_s32(x.b))),
                            vmovn_s16(vcombine_s16(vmovn_s32(x.c), vmovn_s32(x.d)))));
}
/* q4: signed nibbles */
typedef struct {
    int8x16_t v[2][4];
} vn; /* columns 0 to 3, 4 to 7; four rows each */
typedef vi vm;
V void vn_pack(const vq *x, i8 *to, i32 *offset) {
    memcpy(to, x, Q4_GROUP);
    *offset = 0;
}
V vn vn_load(const u8 *w) {
    uint8x16_t low = vdupq_n_u8(15);
    int8x16_t eight = vdupq_n_s8(8);
    vn r;
    UNROLLED
    for (int i = 0; i < 4; i++) {
        uint8x16_t v = vld1q_u8(w + 16 * i);
        r.v[0][i] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(v, low)), eight);
        r.v[1][i] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(v, 4)), eight);
    }
    return r;
}
V vm vm_load(const u8 *p, u32 high) {
    uint8x16_t v = vld1q_u8(p);
    v = high ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(15));
    int16x8_t a = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(v)));
    int16x8_t b = vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(v)));
    vm r = {vmovl_s16(vget_low_s16(a)), vmovl_s16(vget_high_s16(a)), vmovl_s16(vget_low_s16(b)),
            vmovl_s16(vget_high_s16(b))};
    return r;
}
V void vn_unpack(const vn *n, vm m, u8 *to) {
    int32x4_t by[4] = {m.a, m.b, m.c, m.d};
    uint8x16_t flip = vdupq_n_u8(128);
    UNROLLED
    for (int i = 0; i < 8; i++) {
        int8x16_t all = vreinterpretq_s8_s32(vmulq_n_s32(by[i % 4], 0x01010101));
        all = vmulq_s8(n->v[i / 4][i % 4], all);
        vst1q_u8(to + 16 * i, veorq_u8(vreinterpretq_u8_s8(all), flip));
    }
}
#define OWN_ROWS 1
/* Half a tile of one row, as va_finish and vf_finish make it. */
V void half_finish(int32x4_t a, int32x4_t b, const float *x_scale, const float *w_scale, float *to,
                   const float *bias, int add) {
    if (!x_scale) {
        i32 *sums = (i32 *)(void *)to;
        vst1q_s32(sums, vaddq_s32(vld1q_s32(sums), a));
        vst1q_s32(sums + 4, vaddq_s32(vld1q_s32(sums + 4), b));
        return;
    }
    float32x4_t x = vdupq_n_f32(*x_scale);
    float32x4_t ya = vmulq_f32(vcvtq_f32_s32(a), vmulq_f32(x, vld1q_f32(w_scale)));
    float32x4_t yb = vmulq_f32(vcvtq_f32_s32(b), vmulq_f32(x, vld1q_f32(w_scale + 4)));
    ROUNDED(ya);
    ROUNDED(yb);
    if (bias) ya = vaddq_f32(ya, vld1q_f32(bias)), yb = vaddq_f32(yb, vld1q_f32(bias + 4));
    if (add) ya = vaddq_f32(vld1q_f32(to), ya), yb = vaddq_f32(vld1q_f32(to + 4), yb);
    vst1q_f32(to, ya);
    vst1q_f32(to + 4, yb);
}
#define EACH_ROW_3(f, k) f(0, k) f(1, k) f(2, k)
#define EACH_ROW_4(f, k) EACH_ROW_3(f, k) f(3, k)
#define EACH_ROW_5(f, k) EACH_ROW_4(f, k) f(4, k)
#define EACH_ROW_6(f, k) EACH_ROW_5(f, k) f(5, k)
#define EACH_ROW_7(f, k) EACH_ROW_6(f, k) f(6, k)
#define EACH_ROW_8(f, k) EACH_ROW_7(f, k) f(7, k)
#if MEGABYTE_BACKEND == BACKEND_NEON
/* ---- without dot products: of 8 bit in 16 bit, added pairwise: two partial sums a row */
typedef struct {
    vi lo, hi;
} va;
V va va_zero(void) {
    int32x4_t z = vdupq_n_s32(0);
    va r = {{z, z, z, z}, {z, z, z, z}};
    return r;
}
V va va_dot(va s, const u8 *w, const vq *x) {
    i32 four;
    memcpy(&four, x, 4);
    int8x16_t b = vreinterpretq_s8_s32(vdupq_n_s32(four));
    uint8x16_t flip = vdupq_n_u8(128); /* weight + 128 -> signed weight */
#define FOUR_ROWS(m, i)                                                          \
    do {                                                                         \
        int8x16_t v = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + 16 * i), flip)); \
        s.lo.m = vpadalq_s16(s.lo.m, vmull_s8(vget_low_s8(v), vget_low_s8(b)));  \
        s.hi.m = vpadalq_s16(s.hi.m, vmull_high_s8(v, b));                       \
    } while (0)
    FOUR_ROWS(a, 0);
    FOUR_ROWS(b, 1);
    FOUR_ROWS(c, 2);
    FOUR_ROWS(d, 3);
#undef FOUR_ROWS
    return s;
}
V vi va_total(va s, i32 sum) {
    (void)sum;
    vi r = {vpaddq_s32(s.lo.a, s.hi.a), vpaddq_s32(s.lo.b, s.hi.b), vpaddq_s32(s.lo.c, s.hi.c),
            vpaddq_s32(s.lo.d, s.hi.d)};
    return r;
}
typedef struct {
    int16x8_t v[8];
} vg; /* two rows each, four columns: 8 products of 8 * 127 at most */
V vg vg_start(i32 offset) {
    vg r;
    UNROLLED
    for (int i = 0; i < 8; i++) r.v[i] = vdupq_n_s16((i16)offset);
    return r;
}
V vg vn_dot(vg g, const vn *n, const i8 *x) {
    UNROLLED
    for (int i = 0; i < 8; i++) {
        i32 four;
        memcpy(&four, x + i / 4 * 4, 4);
        int8x16_t b = vreinterpretq_s8_s32(vdupq_n_s32(four)), w = n->v[i / 4][i % 4];
        g.v[i % 4 * 2] = vmlal_s8(g.v[i % 4 * 2], vget_low_s8(w), vget_low_s8(b));
        g.v[i % 4 * 2 + 1] = vmlal_high_s8(g.v[i % 4 * 2 + 1], w, b);
    }
    return g;
}
V vi vg_end(vi acc, vg g, vm m) {
    acc.a = vmlaq_s32(acc.a, vpaddlq_s16(vpaddq_s16(g.v[0], g.v[1])), m.a);
    acc.b = vmlaq_s32(acc.b, vpaddlq_s16(vpaddq_s16(g.v[2], g.v[3])), m.b);
    acc.c = vmlaq_s32(acc.c, vpaddlq_s16(vpaddq_s16(g.v[4], g.v[5])), m.c);
    acc.d = vmlaq_s32(acc.d, vpaddlq_s16(vpaddq_s16(g.v[6], g.v[7])), m.d);
    return acc;
}
#ifndef MEGABYTE_NO_CODEC
static i32 NAME(mix_dot)(const i16 *x, const i16 *w) {
    int32x4_t a = vdupq_n_s32(0), b = a;
    for (int i = 0; i < MIX_INPUTS; i += 8) {
        a = vmlal_s16(a, vld1_s16(x + i), vld1_s16(w + i));
        b = vmlal_s16(b, vld1_s16(x + i + 4), vld1_s16(w + i + 4));
    }
    return vaddvq_s32(vaddq_s32(a, b));
}
static void NAME(mix_train)(const i16 *x, i16 *w, i16 error) {
    int16x4_t e = vdup_n_s16(error);
    for (int i = 0; i < MIX_INPUTS; i += 8) {
        int16x4_t a = vrshrn_n_s32(vmull_s16(vld1_s16(x + i), e), 16);
        int16x4_t b = vrshrn_n_s32(vmull_s16(vld1_s16(x + i + 4), e), 16);
        vst1q_s16(w + i, vqaddq_s16(vld1q_s16(w + i), vcombine_s16(a, b)));
    }
}
static struct mix_kernels NAME(mix_kernels)(void) {
    return (struct mix_kernels){.dot = NAME(mix_dot), .train = NAME(mix_train)};
}
#endif
/* Half a tile for some rows: of 8 columns the products of two fit into 16 bit, 2 * 128 * 127 at
 * most, before they are added pairwise. 16 sums, 4 weights, two times four columns of a row, 4
 * products. In assembly, since gcc 12 keeps sums in memory. */
#define BEGIN(i, k)                                                                \
    int32x4_t al##i = vdupq_n_s32(0), ah##i = al##i, bl##i = al##i, bh##i = al##i; \
    const vq *x##i = x + i * ldx;
#define EIGHT(i, k)                                                                             \
    {                                                                                           \
        int8x16_t u, v;                                                                         \
        int16x8_t s, t, m, n;                                                                   \
        __asm__("ld1r {%4.4s}, [%10], #4\n\tld1r {%5.4s}, [%10], #4\n\t"                        \
                "smull %6.8h, %11.8b, %4.8b\n\tsmull2 %7.8h, %11.16b, %4.16b\n\t"               \
                "smull %8.8h, %12.8b, %4.8b\n\tsmull2 %9.8h, %12.16b, %4.16b\n\t"               \
                "smlal %6.8h, %13.8b, %5.8b\n\tsmlal2 %7.8h, %13.16b, %5.16b\n\t"               \
                "smlal %8.8h, %14.8b, %5.8b\n\tsmlal2 %9.8h, %14.16b, %5.16b\n\t"               \
                "sadalp %0.4s, %6.8h\n\tsadalp %1.4s, %7.8h\n\t"                                \
                "sadalp %2.4s, %8.8h\n\tsadalp %3.4s, %9.8h"                                    \
                : "+w"(al##i), "+w"(ah##i), "+w"(bl##i), "+w"(bh##i), "=&w"(u), "=&w"(v),       \
                  "=&w"(s), "=&w"(t), "=&w"(m), "=&w"(n), "+r"(x##i)                            \
                : "w"(wa), "w"(wb), "w"(wc), "w"(wd), "m"(*(const struct { vq v[8]; } *)x##i)); \
    }
#define LAST_FOUR(i, k)                                                        \
    {                                                                          \
        i32 four;                                                              \
        memcpy(&four, x##i, 4);                                                \
        int8x16_t v = vreinterpretq_s8_s32(vdupq_n_s32(four));                 \
        al##i = vpadalq_s16(al##i, vmull_s8(vget_low_s8(wa), vget_low_s8(v))); \
        bl##i = vpadalq_s16(bl##i, vmull_s8(vget_low_s8(wb), vget_low_s8(v))); \
        ah##i = vpadalq_s16(ah##i, vmull_high_s8(wa, v));                      \
        bh##i = vpadalq_s16(bh##i, vmull_high_s8(wb, v));                      \
    }
#define WEIGHTS(v, at) int8x16_t v = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(at), flip));
#define END(i, k)                                                                            \
    half_finish(vpaddq_s32(al##i, ah##i), vpaddq_s32(bl##i, bh##i), VA_SCALE_OF(i), w_scale, \
                y + i * ldy, bias, add);
#define HALF_TILES(rows)                                                           \
    static TARGETED void half_tiles_neon_##rows(                                   \
        const u8 *w, u64 step, const float *w_scale, u32 k4, const vq *x, u64 ldx, \
        const float *x_scale, float *y, u64 ldy, const float *bias, int add) {     \
        const uint8x16_t flip = vdupq_n_u8(128);                                   \
        for (u32 half = 0; half < 2; half++, w += 32, w_scale += 8, y += 8) {      \
            const u8 *p = w;                                                       \
            const vq *end = x + k4 / 8 * 8;                                        \
            EACH_ROW_##rows(BEGIN, 0) while (x0 < end) {                           \
                WEIGHTS(wa, p)                                                     \
                WEIGHTS(wb, p + 16)                                                \
                p += step;                                                         \
                WEIGHTS(wc, p)                                                     \
                WEIGHTS(wd, p + 16)                                                \
                p += step;                                                         \
                EACH_ROW_##rows(EIGHT, 0)                                          \
            }                                                                      \
            if (k4 % 8) {                                                          \
                WEIGHTS(wa, p)                                                     \
                WEIGHTS(wb, p + 16)                                                \
                EACH_ROW_##rows(LAST_FOUR, 0)                                      \
            }                                                                      \
            EACH_ROW_##rows(END, 0) if (bias) bias += 8;                           \
        }                                                                          \
    }
/* clang-format off */
HALF_TILES(3)
HALF_TILES(4)
/* clang-format on */
#undef BEGIN
#undef WEIGHTS
#undef EIGHT
#undef LAST_FOUR
#undef END
#undef HALF_TILES

/* The first rows of m > 2: returns how many. */
V u32 some_rows(const u8 *w, u64 step, const float *w_scale, u32 k4, const vq *x, u64 ldx,
                const i32 *sum, const float *x_scale, u32 m, float *y, u64 ldy, const float *bias,
                int add) {
    u32 rows = m == 3 || m == 5 || m == 6 ? 3 : 4;
    (void)sum;
    if (rows == 4) half_tiles_neon_4(w, step, w_scale, k4, x, ldx, x_scale, y, ldy, bias, add);
    if (rows == 3) half_tiles_neon_3(w, step, w_scale, k4, x, ldx, x_scale, y, ldy, bias, add);
    return rows;
}
#else
/* ---- with them: four products a lane */
typedef vi va;
V va va_zero(void) {
    int32x4_t z = vdupq_n_s32(0);
    va r = {z, z, z, z};
    return r;
}
V va va_dot(va s, const u8 *w, const vq *x) {
    i32 four;
    memcpy(&four, x, 4);
    int8x16_t b = vreinterpretq_s8_s32(vdupq_n_s32(four));
    uint8x16_t flip = vdupq_n_u8(128);
#define SDOT(to, from)                                                               \
    do {                                                                             \
        uint8x16_t v = veorq_u8(vld1q_u8(from), flip);                               \
        __asm__(SDOT_ARCH "sdot %0.4s, %1.16b, %2.16b" : "+w"(to) : "w"(v), "w"(b)); \
    } while (0)
    SDOT(s.a, w);
    SDOT(s.b, w + 16);
    SDOT(s.c, w + 32);
    SDOT(s.d, w + 48);
#undef SDOT
    return s;
}
V vi va_total(va s, i32 sum) {
    (void)sum;
    return s;
}
/* Half a tile for some rows, 16 columns at a time: a row's are one register, of which a product
 * takes four columns as a lane. Weights are not loaded before their turn: 16 sums, 8 rows and two
 * weights leave no room. */
#define BEGIN(i, k) int32x4_t a##i = vdupq_n_s32(0), b##i = a##i;
#define SIXTEEN(i, k) int8x16_t x##i = vld1q_s8(at + l##i);
#define LANE(to, v, x, k) \
    __asm__(SDOT_ARCH "sdot %0.4s, %1.16b, %2.4b[" #k "]" : "+w"(to) : "w"(v), "w"(x));
#define PRODUCT(i, k) LANE(a##i, wa, x##i, k) LANE(b##i, wb, x##i, k)
#define LAST_FOUR(i, k)                                           \
    {                                                             \
        i32 four;                                                 \
        memcpy(&four, at + l##i, 4);                              \
        int8x16_t x##i = vreinterpretq_s8_s32(vdupq_n_s32(four)); \
        PRODUCT(i, 0)                                             \
    }
#define END(i, k) half_finish(a##i, b##i, VA_SCALE_OF(i), w_scale, y + i * ldy, bias, add);
#define COLUMNS(rows, k, part)                                                            \
    __asm__("ld1 {v30.16b, v31.16b}, [%0], %4\n\t"                                        \
            "eor v30.16b, v30.16b, %5.16b\n\teor v31.16b, v31.16b, %5.16b"                \
            : "+r"(p), "=&w"(wa), "=&w"(wb), "+w"(b0)                                     \
            : "r"(step), "w"(flip), "m"(*(const struct { u8 v[32]; } *)(const void *)p)); \
    EACH_ROW_##rows(part, k)
#define FROM(i, k)      \
    u64 l##i = (i)*ldx; \
    __asm__("" : "+r"(l##i));
#define HALF_TILES(rows)                                                                         \
    static TARGETED void half_tiles_##rows(const u8 *w, u64 step, const float *w_scale, u32 k4,  \
                                           const vq *x, u64 ldx, const float *x_scale, float *y, \
                                           u64 ldy, const float *bias, int add) {                \
        const uint8x16_t flip = vdupq_n_u8(128);                                                 \
        register uint8x16_t wa __asm__("v30"), wb __asm__("v31");                                \
        EACH_ROW_##rows(FROM, 0) for (u32 half = 0; half < 2;                                    \
                                      half++, w += 32, w_scale += 8, y += 8) {                   \
            const u8 *p = w;                                                                     \
            const vq *at = x, *end = x + k4 / 16 * 16;                                           \
            EACH_ROW_##rows(BEGIN, 0) for (; at < end; at += 16) {                               \
                EACH_ROW_##rows(SIXTEEN, 0) COLUMNS(rows, 0, PRODUCT) COLUMNS(rows, 1, PRODUCT)  \
                    COLUMNS(rows, 2, PRODUCT) COLUMNS(rows, 3, PRODUCT)                          \
            }                                                                                    \
            for (; at < x + k4; at += 4) {                                                       \
                COLUMNS(rows, 0, LAST_FOUR)                                                      \
            }                                                                                    \
            EACH_ROW_##rows(END, 0) if (bias) bias += 8;                                         \
        }                                                                                        \
    }
/* clang-format off */
HALF_TILES(3)
HALF_TILES(4)
HALF_TILES(5)
HALF_TILES(6)
HALF_TILES(7)
HALF_TILES(8)
/* clang-format on */
#undef BEGIN
#undef SIXTEEN
#undef LANE
#undef PRODUCT
#undef LAST_FOUR
#undef END
#undef COLUMNS
#undef HALF_TILES

/* The first rows of m > 2, spread evenly: returns how many. */
V u32 some_rows(const u8 *w, u64 step, const float *w_scale, u32 k4, const vq *x, u64 ldx,
                const i32 *sum, const float *x_scale, u32 m, float *y, u64 ldy, const float *bias,
                int add) {
    u32 rows = m / ((m + 7) / 8);
    (void)sum;
    if (rows == 8) half_tiles_8(w, step, w_scale, k4, x, ldx, x_scale, y, ldy, bias, add);
    if (rows == 7) half_tiles_7(w, step, w_scale, k4, x, ldx, x_scale, y, ldy, bias, add);
    if (rows == 6) half_tiles_6(w, step, w_scale, k4, x, ldx, x_scale, y, ldy, bias, add);
    if (rows == 5) half_tiles_5(w, step, w_scale, k4, x, ldx, x_scale, y, ldy, bias, add);
    if (rows == 4) half_tiles_4(w, step, w_scale, k4, x, ldx, x_scale, y, ldy, bias, add);
    if (rows == 3) half_tiles_3(w, step, w_scale, k4, x, ldx, x_scale, y, ldy, bias, add);
    return rows;
}
typedef vi vg;
V vg vg_start(i32 offset) {
    int32x4_t v = vdupq_n_s32(offset);
    vg r = {v, v, v, v};
    return r;
}
V vg vn_dot(vg g, const vn *n, const i8 *x) {
    UNROLLED
    for (int i = 0; i < 2; i++) {
        i32 four;
        memcpy(&four, x + 4 * i, 4);
        int8x16_t b = vreinterpretq_s8_s32(vdupq_n_s32(four));
#define SDOT(to, v) __asm__(SDOT_ARCH "sdot %0.4s, %1.16b, %2.16b" : "+w"(to) : "w"(v), "w"(b))
        SDOT(g.a, n->v[i][0]);
        SDOT(g.b, n->v[i][1]);
        SDOT(g.c, n->v[i][2]);
        SDOT(g.d, n->v[i][3]);
#undef SDOT
    }
    return g;
}
V vi vg_end(vi acc, vg g, vm m) {
    acc.a = vmlaq_s32(acc.a, g.a, m.a);
    acc.b = vmlaq_s32(acc.b, g.b, m.b);
    acc.c = vmlaq_s32(acc.c, g.c, m.c);
    acc.d = vmlaq_s32(acc.d, g.d, m.d);
    return acc;
}
#endif
#undef EACH_ROW_3
#undef EACH_ROW_4
#undef EACH_ROW_5
#undef EACH_ROW_6
#undef EACH_ROW_7
#undef EACH_ROW_8

/* ---- NEON with matrix products (i8mm): two rows of weights by two of activations, 8 columns of
 * each, in one instruction. The rest is neon-dot's. */
#elif MEGABYTE_BACKEND == BACKEND_NEON_I8MM
#define NAME(x) x##_neon_dot
#define TARGETED TARGET(TARGET_I8MM)
#define PAIRS 6 /* of rows of activations: 24 sums, 4 weights and what they are made of */
#define PACKED_PAIRS 32 /* of rows, at a time */
#define PACKED_BYTES 18432u /* of the stack: activations, and weights where they are shared */

/* Rows of x two by two, [k4 / 8][pairs][2][8], zeros beyond k4. The last one may be alone: then it
 * is its own partner, whose products go nowhere. */
static TARGETED void pack_pairs(const i8 *x, u64 ldx, u32 rows, u32 k4, i8 *to) {
    u32 pairs = (rows + 1) / 2;
    for (u32 i = 0; i < pairs; i++, to += 16) {
        const i8 *a = x + 2 * i * ldx, *b = 2 * i + 1 < rows ? a + ldx : a;
        u32 j = 0;
        i8 *at = to;
        for (; j + 16 <= k4; j += 16, at += 32 * pairs) {
            int64x2_t qa = vreinterpretq_s64_s8(vld1q_s8(a + j));
            int64x2_t qb = vreinterpretq_s64_s8(vld1q_s8(b + j));
            vst1q_s8(at, vreinterpretq_s8_s64(vzip1q_s64(qa, qb)));
            vst1q_s8(at + 16 * pairs, vreinterpretq_s8_s64(vzip2q_s64(qa, qb)));
        }
        for (u32 n; j < k4; j += n, at += 16 * pairs) {
            n = min32(k4 - j, 8);
            memset(at, 0, 16);
            memcpy(at, a + j, n);
            memcpy(at + 8, b + j, n);
        }
    }
}

/* Half a tile, of which rows lie in fours of 4 columns each, in twos of 8, [k4 / 8][4][2][8], zeros
 * beyond k4. */
static TARGETED void pack_weights(const u8 *w, u32 k4, u8 *to) {
    const u8 *end = to + k4 / 32 * 256;
    while (to < end)
        __asm__("ldp q16, q18, [%1]\n\tldp q17, q19, [%1, #64]\n\t"
                "ldp q20, q22, [%1, #128]\n\tldp q21, q23, [%1, #192]\n\t"
                "ldp q24, q26, [%1, #256]\n\tldp q25, q27, [%1, #320]\n\t"
                "ldp q28, q30, [%1, #384]\n\tldp q29, q31, [%1, #448]\n\tadd %1, %1, #512\n\t"
                "st2 {v16.4s, v17.4s}, [%0], #32\n\tst2 {v18.4s, v19.4s}, [%0], #32\n\t"
                "st2 {v20.4s, v21.4s}, [%0], #32\n\tst2 {v22.4s, v23.4s}, [%0], #32\n\t"
                "st2 {v24.4s, v25.4s}, [%0], #32\n\tst2 {v26.4s, v27.4s}, [%0], #32\n\t"
                "st2 {v28.4s, v29.4s}, [%0], #32\n\tst2 {v30.4s, v31.4s}, [%0], #32"
                : "+r"(to), "+r"(w)
                :
                : "memory", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25",
                  "v26", "v27", "v28", "v29", "v30", "v31");
    u32 j = k4 / 32 * 32;
    for (; j < k4; j += 8, w += 128, to += 64) {
        memset(to, 0, 64);
        for (u32 r = 0; r < 8; r++) memcpy(to + 8 * r, w + 4 * r, 4);
        for (u32 r = 0; r < 8 && j + 4 < k4; r++) memcpy(to + 8 * r + 4, w + 64 + 4 * r, 4);
    }
}

/* So many of `left` at a time, evenly. */
static u32 block_of_pairs(u32 left) { return left / ((left + PAIRS - 1) / PAIRS); }

/* Half a tile for some pairs, 8 columns at a time: of weights as they lie in the file, which are
 * zipped each time, or of packed ones. The correction for weight + 128 comes first. */
#define EACH_PAIR_1(f) f(0)
#define EACH_PAIR_2(f) EACH_PAIR_1(f) f(1)
#define EACH_PAIR_3(f) EACH_PAIR_2(f) f(2)
#define EACH_PAIR_4(f) EACH_PAIR_3(f) f(3)
#define EACH_PAIR_5(f) EACH_PAIR_4(f) f(4)
#define EACH_PAIR_6(f) EACH_PAIR_5(f) f(5)
#define BEGIN(i) int32x4_t a##i = vld1q_s32(start + 4 * i), b##i = a##i, c##i = a##i, d##i = a##i;
#define MMLA(to, v, x) \
    __asm__(I8MM_ARCH "usmmla %0.4s, %1.16b, %2.16b" : "+w"(to) : "w"(v), "w"(x));
#define PRODUCT(i, v) \
    MMLA(a##i, wa, v) \
    MMLA(b##i, wb, v) \
    MMLA(c##i, wc, v) \
    MMLA(d##i, wd, v)
#define LOAD(list, registers, n)         \
    __asm__("ld1 {" list "}, [%0], #" #n \
            : "+r"(x), registers         \
            : "m"(*(const struct { i8 v[n]; } *)(const void *)x));
#define NEXT_4(i, j, k, l)                                           \
    {                                                                \
        LOAD("v28.16b, v29.16b, v30.16b, v31.16b",                   \
             "=w"(xz)COMMA "=w"(xa)COMMA "=w"(xb)COMMA "=w"(xc), 64) \
        PRODUCT(i, xz)                                               \
        PRODUCT(j, xa)                                               \
        PRODUCT(k, xb)                                               \
        PRODUCT(l, xc)                                               \
    }
#define NEXT_1(i)                     \
    {                                 \
        LOAD("v29.16b", "=w"(xa), 16) \
        PRODUCT(i, xa)                \
    }
#define NEXT_2(i, j)                                         \
    {                                                        \
        LOAD("v29.16b, v30.16b", "=w"(xa)COMMA "=w"(xb), 32) \
        PRODUCT(i, xa)                                       \
        PRODUCT(j, xb)                                       \
    }
#define NEXT_3(i, j, k)                                                             \
    {                                                                               \
        LOAD("v29.16b, v30.16b, v31.16b", "=w"(xa)COMMA "=w"(xb)COMMA "=w"(xc), 48) \
        PRODUCT(i, xa)                                                              \
        PRODUCT(j, xb)                                                              \
        PRODUCT(k, xc)                                                              \
    }
#define COMMA ,
#define ALL_1 NEXT_1(0)
#define ALL_2 NEXT_2(0, 1)
#define ALL_3 NEXT_3(0, 1, 2)
#define ALL_4 NEXT_2(0, 1) NEXT_2(2, 3)
#define ALL_5 NEXT_3(0, 1, 2) NEXT_2(3, 4)
#define ALL_6 NEXT_3(0, 1, 2) NEXT_3(3, 4, 5)
#define ROW(i, j, uzp)                                                             \
    half_finish(uzp(a##i, b##i), uzp(c##i, d##i), VA_SCALE_OF(2 * i + j), w_scale, \
                y + (2 * i + j) * ldy, bias, add);
#define END(i) ROW(i, 0, vuzp1q_s32) if (i < last || 2 * i + 1 < rows) ROW(i, 1, vuzp2q_s32)
#define PLAIN_ROW(i, j, uzp)                                                       \
    plain_finish(uzp(a##i, b##i), uzp(c##i, d##i), x_scale[2 * i + j], wl, wh, y); \
    y += ldy;                                                                      \
    __asm__("" : "+r"(y));
#define PLAIN_END(i)                    \
    PLAIN_ROW(i, 0, vuzp1q_s32)         \
    if (i < last || 2 * i + 1 < rows) { \
        PLAIN_ROW(i, 1, vuzp2q_s32)     \
    }
/* What half_finish does where there is nothing to be added. */
V void plain_finish(int32x4_t a, int32x4_t b, float x_scale, float32x4_t wl, float32x4_t wh,
                    float *to) {
    float32x4_t ya = vmulq_f32(vcvtq_f32_s32(a), vmulq_n_f32(wl, x_scale));
    float32x4_t yb = vmulq_f32(vcvtq_f32_s32(b), vmulq_n_f32(wh, x_scale));
    __asm__("stp %q1, %q2, [%0]" : : "r"(to), "w"(ya), "w"(yb) : "memory");
}
#define ZIP                                                          \
    "zip1 v28.4s, v24.4s, v26.4s\n\tzip2 v24.4s, v24.4s, v26.4s\n\t" \
    "zip1 v26.4s, v25.4s, v27.4s\n\tzip2 v25.4s, v25.4s, v27.4s"
#define IN_FILE(all)                                                                   \
    __asm__("ld1 {v24.4s, v25.4s}, [%0], %6\n\tld1 {v26.4s, v27.4s}, [%0], %6\n\t" ZIP \
            : "+&r"(w), "=&w"(wa), "=&w"(wb), "=&w"(wc), "=&w"(wd), "+w"(a0)           \
            : "r"(step)                                                                \
            : "v27", "memory");                                                        \
    all
#define LAST_IN_FILE(all)                                                                  \
    if (k4 % 8) {                                                                          \
        __asm__("ld1 {v24.4s, v25.4s}, [%0]\n\tmovi v26.4s, #0\n\tmovi v27.4s, #0\n\t" ZIP \
                : "+&r"(w), "=&w"(wa), "=&w"(wb), "=&w"(wc), "=&w"(wd)                     \
                :                                                                          \
                : "v27", "memory");                                                        \
        all                                                                                \
    }
#define PACKED(all)                                                     \
    __asm__("ld1 {v24.16b, v25.16b, v26.16b, v27.16b}, [%0], #64"       \
            : "+r"(w), "=w"(wa), "=w"(wb), "=w"(wc), "=w"(wd), "+w"(a0) \
            :                                                           \
            : "memory");                                                \
    all
#define LAST_PACKED(all) \
    if (k4 % 8) {        \
        PACKED(all)      \
    }
#define ALONE(pairs) HALF_TILES(in_file, pairs, IN_FILE, ALL_##pairs, "v28", "v24", "v26", "v25")
#define SHARED(pairs, all) HALF_TILES(packed, pairs, PACKED, all, "v24", "v25", "v26", "v27")
#define HALF_TILES(name, pairs, eight, all, ra, rb, rc, rd)                                        \
    static TARGETED void name##_##pairs(const u8 *w, u64 step, const float *w_scale, u32 k4,       \
                                        const i8 *x, const i32 *start, const float *x_scale,       \
                                        u32 rows, float *y, u64 ldy, const float *bias, int add) { \
        register int8x16_t wa __asm__(ra), wb __asm__(rb), wc __asm__(rc), wd __asm__(rd);         \
        register int8x16_t xz __asm__("v28"), xa __asm__("v29"), xb __asm__("v30"),                \
            xc __asm__("v31");                                                                     \
        const u32 last = pairs - 1;                                                                \
        const i8 *end = x + (u64)(k4 / 8) * 16 * pairs, *four = x + (u64)(k4 / 32) * 64 * pairs;   \
        (void)xz, (void)xb, (void)xc, (void)step;                                                  \
        EACH_PAIR_##pairs(BEGIN) while (x < four) { eight(all) eight(all) eight(all) eight(all) }  \
        while (x < end) {                                                                          \
            eight(all)                                                                             \
        }                                                                                          \
        LAST_##eight(all) if (x_scale && !bias && !add) {                                          \
            float32x4_t wl = vld1q_f32(w_scale), wh = vld1q_f32(w_scale + 4);                      \
            EACH_PAIR_##pairs(PLAIN_END)                                                           \
        }                                                                                          \
        else {                                                                                     \
            EACH_PAIR_##pairs(END)                                                                 \
        }                                                                                          \
    }
/* clang-format off */
ALONE(1)
ALONE(2)
ALONE(3)
ALONE(4)
ALONE(5)
ALONE(6)
SHARED(3, ALL_3)
SHARED(4, NEXT_4(0, 1, 2, 3))
SHARED(5, ALL_5)
SHARED(6, ALL_6)
/* clang-format on */
#define PAIRS_OF(name, n) \
    if (pairs == n) name##_##n(p, step, ws, k4, xi, start + 4 * i, xs, rows, yi, ldy, b, add);
/* Half a tile for packed rows. With room for packed weights, blocks of pairs share them. */
static TARGETED void rows_i8mm(const u8 *w, u64 step, const float *ws, u32 k4, const i8 *x,
                               const i32 *start, const float *x_scale, u32 m, float *y, u64 ldy,
                               const float *b, int add, u8 *room) {
    u32 k8 = (u32)round_up(k4, 8), all = (m + 1) / 2;
    int share = all > PAIRS && room;
    const u8 *p = share ? room : w;
    if (share) pack_weights(w, k4, room);
    for (u32 i = 0, pairs; i < all; i += pairs) {
        const i8 *xi = x + (u64)i * 2 * k8;
        const float *xs = VA_SCALE_OF(2 * i);
        float *yi = y + 2 * i * ldy;
        pairs = block_of_pairs(all - i);
        u32 rows = min32(2 * pairs, m - 2 * i);
        if (share) {
            PAIRS_OF(packed, 3)
            PAIRS_OF(packed, 4)
            PAIRS_OF(packed, 5)
            PAIRS_OF(packed, 6)
        } else {
            PAIRS_OF(in_file, 1)
            PAIRS_OF(in_file, 2)
            PAIRS_OF(in_file, 3)
            PAIRS_OF(in_file, 4)
            PAIRS_OF(in_file, 5)
            PAIRS_OF(in_file, 6)
        }
    }
}
/* Blocks of tiles, which stay in the second-level cache, for some rows at a time. */
static TARGETED void gemm_q8_neon_i8mm(const u8 *w, u64 stride, u64 step, const float *w_scale,
                                       u32 tiles, u32 k4, const void *x, u64 ldx, const i32 *sum,
                                       const float *x_scale, u32 m, float *y, u64 ldy,
                                       const float *bias, int add) {
    u32 k8 = (u32)round_up(k4, 8), block = (1u << 18) / (16 * k8) + 1;
    int share = step == 64 && PACKED_BYTES >= (8 + 2 * (PAIRS + 1)) * k8;
    u32 most = min32(PACKED_PAIRS, (PACKED_BYTES - (share ? 8 * k8 : 0)) / 2 / k8);
    if (m == 1 || !most) {
        gemm_q8_neon_dot(w, stride, step, w_scale, tiles, k4, x, ldx, sum, x_scale, m, y, ldy, bias,
                         add);
        return;
    }
    for (u32 from = 0; from < tiles; from += block)
        for (u32 i = 0, rows; i < m; i += rows) {
            i8 packed[PACKED_BYTES];
            i32 start[4 * PACKED_PAIRS];
            u32 left = (m - i + 1) / 2, all = left / ((left + most - 1) / most);
            rows = min32(2 * all, m - i);
            for (u32 j = 0, pairs; j < all; j += pairs) {
                pairs = block_of_pairs(all - j);
                pack_pairs((const i8 *)x + (i + 2 * j) * ldx, ldx, min32(2 * pairs, rows - 2 * j),
                           k4, packed + (u64)j * 2 * k8);
            }
            for (u32 r = 0; r < 2 * all; r++)
                start[2 * r - r % 2] = start[2 * r - r % 2 + 2] = -128 *
                                                                  sum[i + min32(r, rows - 1)];
            for (u32 h = 2 * from; h < 2 * tiles && h < 2 * (from + block); h++)
                rows_i8mm(w + h / 2 * stride + h % 2 * 32, step, w_scale + 8 * h, k4, packed, start,
                          VA_SCALE_OF(i), rows, y + 8 * h + i * ldy, ldy,
                          bias ? bias + 8 * h : NULL, add,
                          share ? (u8 *)packed + PACKED_BYTES - 8 * k8 : NULL);
        }
}
#undef EACH_PAIR_1
#undef EACH_PAIR_2
#undef EACH_PAIR_3
#undef EACH_PAIR_4
#undef EACH_PAIR_5
#undef EACH_PAIR_6
#undef BEGIN
#undef MMLA
#undef PRODUCT
#undef ROW
#undef END
#undef LOAD
#undef NEXT_1
#undef NEXT_2
#undef NEXT_3
#undef NEXT_4
#undef COMMA
#undef ALL_1
#undef ALL_2
#undef ALL_3
#undef ALL_4
#undef ALL_5
#undef ALL_6
#undef PLAIN_ROW
#undef PLAIN_END
#undef ZIP
#undef IN_FILE
#undef LAST_IN_FILE
#undef PACKED
#undef LAST_PACKED
#undef ALONE
#undef SHARED
#undef HALF_TILES
#undef PAIRS_OF
#undef PAIRS
#undef PACKED_PAIRS
#undef PACKED_BYTES

static struct kernels kernels_neon_i8mm(void) {
    struct kernels k = kernels_neon_dot();
    k.isa = MEGABYTE_ISA_NEON_I8MM;
    k.gemm_q8 = gemm_q8_neon_i8mm;
    return k;
}

/* ---- WebAssembly's SIMD128: four registers of 4 lanes; int8 widened to int16, exact in
 * i32x4.dot_i16x8. The relaxed instructions are left alone: they may differ between machines. */
#elif MEGABYTE_BACKEND == BACKEND_SIMD128
#define NAME(x) x##_simd128
#define TARGETED
#define TWO_TILES 0
#define VA_PIN(s) ((void)0)
typedef struct {
    v128_t a, b, c, d;
} vf;
typedef struct {
    v128_t a, b, c, d;
} vi;
typedef int16_t vq;
typedef struct {
    v128_t v[8];
} va; /* rows 2i and 2i + 1, two partial sums each */
V vf vf_load(const float *p) {
    vf r = {wasm_v128_load(p), wasm_v128_load(p + 4), wasm_v128_load(p + 8),
            wasm_v128_load(p + 12)};
    return r;
}
V void vf_store(float *p, vf x) {
    wasm_v128_store(p, x.a);
    wasm_v128_store(p + 4, x.b);
    wasm_v128_store(p + 8, x.c);
    wasm_v128_store(p + 12, x.d);
}
V vf vf_set(float v) {
    v128_t q = wasm_f32x4_splat(v);
    vf r = {q, q, q, q};
    return r;
}
#define LANE_BY_LANE(type, name, op)                                       \
    V type name(type x, type y) {                                          \
        type r = {op(x.a, y.a), op(x.b, y.b), op(x.c, y.c), op(x.d, y.d)}; \
        return r;                                                          \
    }
/* pmax(y, x) is y < x ? x : y, NaN or not */
#define MAX_OF(x, y) wasm_f32x4_pmax(y, x)
#define MIN_OF(x, y) wasm_f32x4_pmin(y, x)
#define TO_EXPONENT(p, t) wasm_i32x4_add(p, wasm_i32x4_shl(t, 23))
/* clang-format off */
LANE_BY_LANE(vf, vf_add, wasm_f32x4_add)
LANE_BY_LANE(vf, vf_sub, wasm_f32x4_sub)
LANE_BY_LANE(vf, vf_mul, wasm_f32x4_mul)
LANE_BY_LANE(vf, vf_div, wasm_f32x4_div)
LANE_BY_LANE(vf, vf_max, MAX_OF)
LANE_BY_LANE(vf, vf_min, MIN_OF)
LANE_BY_LANE(vf, vf_exponent, TO_EXPONENT)
LANE_BY_LANE(vi, vi_add, wasm_i32x4_add)
/* clang-format on */
#undef LANE_BY_LANE
#undef TO_EXPONENT
V vf vf_abs(vf x) {
    vf r = {wasm_f32x4_abs(x.a), wasm_f32x4_abs(x.b), wasm_f32x4_abs(x.c), wasm_f32x4_abs(x.d)};
    return r;
}
V float vf_sum(vf x) {
    v128_t t = wasm_f32x4_add(wasm_f32x4_add(x.a, x.c), wasm_f32x4_add(x.b, x.d));
    t = wasm_f32x4_add(t, wasm_i64x2_shuffle(t, t, 1, 1));
    return wasm_f32x4_extract_lane(t, 0) + wasm_f32x4_extract_lane(t, 1);
}
V float vf_top(vf x) {
    v128_t t = MAX_OF(MAX_OF(x.a, x.c), MAX_OF(x.b, x.d));
    t = MAX_OF(t, wasm_i64x2_shuffle(t, t, 1, 1));
    return wasm_f32x4_extract_lane(MAX_OF(t, wasm_i32x4_shuffle(t, t, 1, 1, 1, 1)), 0);
}
#undef MAX_OF
#undef MIN_OF
V vf vf_first(vf x, u32 n, float b) {
    v128_t i = wasm_i32x4_const(0, 1, 2, 3), four = wasm_i32x4_const_splat(4);
    v128_t m = wasm_i32x4_splat((i32)n), v = wasm_f32x4_splat(b);
    x.a = wasm_v128_bitselect(x.a, v, wasm_i32x4_lt(i, m));
    x.b = wasm_v128_bitselect(x.b, v, wasm_i32x4_lt(i = wasm_i32x4_add(i, four), m));
    x.c = wasm_v128_bitselect(x.c, v, wasm_i32x4_lt(i = wasm_i32x4_add(i, four), m));
    x.d = wasm_v128_bitselect(x.d, v, wasm_i32x4_lt(wasm_i32x4_add(i, four), m));
    return x;
}
V vi vf_round(vf x) {
    v128_t m = wasm_f32x4_const_splat(MAGIC), o = wasm_i32x4_const_splat(MAGIC_BITS);
    vi r = {wasm_i32x4_sub(wasm_f32x4_add(x.a, m), o), wasm_i32x4_sub(wasm_f32x4_add(x.b, m), o),
            wasm_i32x4_sub(wasm_f32x4_add(x.c, m), o), wasm_i32x4_sub(wasm_f32x4_add(x.d, m), o)};
    return r;
}
V vf vf_from_i(vi x) {
    vf r = {wasm_f32x4_convert_i32x4(x.a), wasm_f32x4_convert_i32x4(x.b),
            wasm_f32x4_convert_i32x4(x.c), wasm_f32x4_convert_i32x4(x.d)};
    return r;
}
V i32 NAME(sum_of_four)(v128_t t) {
    t = wasm_i32x4_add(t, wasm_i64x2_shuffle(t, t, 1, 1));
    return wasm_i32x4_extract_lane(t, 0) + wasm_i32x4_extract_lane(t, 1);
}
V i32 vi_sum(vi x) {
    return NAME(sum_of_four)(wasm_i32x4_add(wasm_i32x4_add(x.a, x.b), wasm_i32x4_add(x.c, x.d)));
}
V void vq_store(vq *p, vi x) {
    wasm_v128_store(p, wasm_i16x8_narrow_i32x4(x.a, x.b));
    wasm_v128_store(p + 8, wasm_i16x8_narrow_i32x4(x.c, x.d));
}
V v128_t NAME(add_dot)(v128_t acc, v128_t w, v128_t x) {
    return wasm_i32x4_add(acc, wasm_i32x4_dot_i16x8(w, x));
}
/* Four rows' sums from two partial ones each. */
V v128_t NAME(pairs)(v128_t p, v128_t q) {
    return wasm_i32x4_add(wasm_i32x4_shuffle(p, q, 0, 2, 4, 6),
                          wasm_i32x4_shuffle(p, q, 1, 3, 5, 7));
}
V va va_zero(void) {
    v128_t z = wasm_i32x4_const_splat(0);
    va r = {{z, z, z, z, z, z, z, z}};
    return r;
}
V va va_dot(va s, const u8 *w, const vq *x) {
    v128_t b = wasm_v128_load64_splat(x);
    for (int i = 0; i < 8; i++) s.v[i] = NAME(add_dot)(s.v[i], wasm_u16x8_load8x8(w + 8 * i), b);
    return s;
}
V vi va_total(va s, i32 sum) {
    v128_t c = wasm_i32x4_splat(128 * sum);
    vi r = {wasm_i32x4_sub(NAME(pairs)(s.v[0], s.v[1]), c),
            wasm_i32x4_sub(NAME(pairs)(s.v[2], s.v[3]), c),
            wasm_i32x4_sub(NAME(pairs)(s.v[4], s.v[5]), c),
            wasm_i32x4_sub(NAME(pairs)(s.v[6], s.v[7]), c)};
    return r;
}
#define OWN_ROWS 1
#define TILE_PAIRS 0 /* 16 accumulators are all the registers of x86 */
/* y for a quarter of a tile and one row, as va_finish makes it. */
V void NAME(quarter_finish)(v128_t total, i32 sum, const float *x_scale, const float *w_scale,
                            float *to, const float *bias, int add) {
    total = wasm_i32x4_sub(total, wasm_i32x4_splat(128 * sum));
    if (!x_scale) {
        wasm_v128_store(to, wasm_i32x4_add(wasm_v128_load(to), total));
        return;
    }
    v128_t scale = wasm_f32x4_mul(wasm_f32x4_splat(*x_scale), wasm_v128_load(w_scale));
    v128_t y = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(total), scale);
    if (bias) y = wasm_f32x4_add(y, wasm_v128_load(bias));
    if (add) y = wasm_f32x4_add(wasm_v128_load(to), y);
    wasm_v128_store(to, y);
}
/* One tile for `rows` rows, four rows of weights at a time: each widened weight serves all of them,
 * and with two weights, an activation and a product their 12 accumulators fill x86's registers. */
V void NAME(quarters)(u32 rows, const u8 *w, u64 step, const float *w_scale, u32 k4, const vq *x,
                      u64 ldx, const i32 *sum, const float *x_scale, float *y, u64 ldy,
                      const float *bias, int add) {
    for (u32 q = 0; q < 16; q += 4) {
        v128_t zero = wasm_i32x4_const_splat(0);
        v128_t a[6] = {zero, zero, zero, zero, zero, zero}, b[6];
        const u8 *p = w + 4 * q;
        for (u32 i = 0; i < 6; i++) b[i] = zero;
        for (u32 j = 0; j < k4; j += 4, p += step) {
            v128_t wa = wasm_u16x8_load8x8(p), wb = wasm_u16x8_load8x8(p + 8);
            for (u32 i = 0; i < rows; i++) {
                v128_t v = wasm_v128_load64_splat(x + i * ldx + j);
                a[i] = NAME(add_dot)(a[i], wa, v);
                b[i] = NAME(add_dot)(b[i], wb, v);
            }
        }
        for (u32 i = 0; i < rows; i++) NAME(quarter_finish)
        (NAME(pairs)(a[i], b[i]), sum[i], VA_SCALE_OF(i), w_scale + q, y + i * ldy + q,
         bias ? bias + q : NULL, add);
    }
}
/* The first rows of m > 2, spread evenly: returns how many. */
V u32 some_rows(const u8 *w, u64 step, const float *w_scale, u32 k4, const vq *x, u64 ldx,
                const i32 *sum, const float *x_scale, u32 m, float *y, u64 ldy, const float *bias,
                int add) {
    u32 rows = m / ((m + 5) / 6);
    switch (rows) { /* a constant each, for the loops to be unrolled */
    case 6: NAME(quarters)(6, w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add); break;
    case 5: NAME(quarters)(5, w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add); break;
    case 4: NAME(quarters)(4, w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add); break;
    default:
        NAME(quarters)(3, w, step, w_scale, k4, x, ldx, sum, x_scale, y, ldy, bias, add);
        break;
    }
    return rows;
}
/* q4: w4 + 8 as int16; what the 8 adds is in the offsets, half of it in each partial sum. */
typedef struct {
    v128_t v[16];
} vn; /* columns 0 to 3, then 4 to 7; two rows each */
typedef va vg;
typedef vi vm;
V void vn_pack(const vq *x, i8 *to, i32 *offset) {
    v128_t s = wasm_i32x4_const_splat(0), one = wasm_i16x8_const_splat(1);
    for (int i = 0; i < Q4_GROUP; i += 16) {
        v128_t a = wasm_v128_load(x + i), b = wasm_v128_load(x + i + 8);
        wasm_v128_store(to + i, wasm_i8x16_narrow_i16x8(a, b));
        s = NAME(add_dot)(NAME(add_dot)(s, a, one), b, one);
    }
    *offset = -4 * NAME(sum_of_four)(s);
}
V vn vn_load(const u8 *w) {
    v128_t low = wasm_i8x16_const_splat(15);
    vn r;
    for (int i = 0; i < 4; i++) {
        v128_t v = wasm_v128_load(w + 16 * i), a = wasm_v128_and(v, low), b = wasm_u8x16_shr(v, 4);
        r.v[2 * i] = wasm_u16x8_extend_low_u8x16(a);
        r.v[2 * i + 1] = wasm_u16x8_extend_high_u8x16(a);
        r.v[2 * i + 8] = wasm_u16x8_extend_low_u8x16(b);
        r.v[2 * i + 9] = wasm_u16x8_extend_high_u8x16(b);
    }
    return r;
}
V vm vm_load(const u8 *p, u32 high) {
    v128_t v = wasm_v128_load(p);
    v = high ? wasm_u8x16_shr(v, 4) : wasm_v128_and(v, wasm_i8x16_const_splat(15));
    v128_t a = wasm_u16x8_extend_low_u8x16(v), b = wasm_u16x8_extend_high_u8x16(v);
    vm r = {wasm_u32x4_extend_low_u16x8(a), wasm_u32x4_extend_high_u16x8(a),
            wasm_u32x4_extend_low_u16x8(b), wasm_u32x4_extend_high_u16x8(b)};
    return r;
}
V vg vg_start(i32 offset) {
    v128_t o = wasm_i32x4_splat(offset);
    vg r = {{o, o, o, o, o, o, o, o}};
    return r;
}
V vg vn_dot(vg g, const vn *n, const i8 *x) {
    v128_t v = wasm_i16x8_load8x8(x), a = wasm_i64x2_shuffle(v, v, 0, 0),
           b = wasm_i64x2_shuffle(v, v, 1, 1);
    for (int i = 0; i < 8; i++)
        g.v[i] = NAME(add_dot)(NAME(add_dot)(g.v[i], n->v[i], a), n->v[i + 8], b);
    return g;
}
V vi vg_end(vi acc, vg g, vm m) {
    acc.a = wasm_i32x4_add(acc.a, wasm_i32x4_mul(NAME(pairs)(g.v[0], g.v[1]), m.a));
    acc.b = wasm_i32x4_add(acc.b, wasm_i32x4_mul(NAME(pairs)(g.v[2], g.v[3]), m.b));
    acc.c = wasm_i32x4_add(acc.c, wasm_i32x4_mul(NAME(pairs)(g.v[4], g.v[5]), m.c));
    acc.d = wasm_i32x4_add(acc.d, wasm_i32x4_mul(NAME(pairs)(g.v[6], g.v[7]), m.d));
    return acc;
}
/* (w4 + 8) m + (128 - 8 m), by two rows, is within a byte. */
V v128_t NAME(unpacked)(v128_t n, v128_t m) {
    v128_t by = wasm_i16x8_sub(wasm_i16x8_const_splat(128), wasm_i16x8_shl(m, 3));
    return wasm_i16x8_add(wasm_i16x8_mul(n, m), by);
}
V void vn_unpack(const vn *n, vm m, u8 *to) {
    v128_t by[4] = {m.a, m.b, m.c, m.d};
    for (int i = 0; i < 8; i++) {
        v128_t four = by[i % 4], a = wasm_i16x8_shuffle(four, four, 0, 0, 0, 0, 2, 2, 2, 2),
               b = wasm_i16x8_shuffle(four, four, 4, 4, 4, 4, 6, 6, 6, 6);
        wasm_v128_store(to + 16 * i, wasm_u8x16_narrow_i16x8(NAME(unpacked)(n->v[2 * i], a),
                                                             NAME(unpacked)(n->v[2 * i + 1], b)));
    }
}
#ifndef MEGABYTE_NO_CODEC
static i32 NAME(mix_dot)(const i16 *x, const i16 *w) {
    v128_t s = wasm_i32x4_const_splat(0);
    for (int i = 0; i < MIX_INPUTS; i += 8)
        s = NAME(add_dot)(s, wasm_v128_load(x + i), wasm_v128_load(w + i));
    return NAME(sum_of_four)(s);
}
static void NAME(mix_train)(const i16 *x, i16 *w, i16 error) {
    v128_t e = wasm_i16x8_splat(error), half = wasm_i32x4_const_splat(1 << 15);
    for (int i = 0; i < MIX_INPUTS; i += 8) {
        v128_t v = wasm_v128_load(x + i);
        v128_t a = wasm_i32x4_shr(wasm_i32x4_add(wasm_i32x4_extmul_low_i16x8(v, e), half), 16);
        v128_t b = wasm_i32x4_shr(wasm_i32x4_add(wasm_i32x4_extmul_high_i16x8(v, e), half), 16);
        v = wasm_i16x8_narrow_i32x4(a, b);
        wasm_v128_store(w + i, wasm_i16x8_add_sat(wasm_v128_load(w + i), v));
    }
}
static struct mix_kernels NAME(mix_kernels)(void) {
    return (struct mix_kernels){.dot = NAME(mix_dot), .train = NAME(mix_train)};
}
#endif
#endif

/* =================================================================================== 22 kernels */

/* What section 6 declares, once for all instruction sets: no intrinsics from here on. */
#if MEGABYTE_BACKEND != BACKEND_NEON_I8MM /* it has neon-dot's */

/* The last, partial block of a row: zeros beyond n < 16. */
V vf vf_part(const float *p, u32 n) {
    float t[16] = {0};
    memcpy(t, p, n * sizeof *t);
    return vf_load(t);
}

V void vf_finish(vf y, float *to, const float *bias, int add) {
    if (bias) y = vf_add(y, vf_load(bias));
    if (add) y = vf_add(vf_load(to), y);
    vf_store(to, y);
}

/* Four rows of x: one tile at a time is four independent chains. */
static TARGETED void NAME(four_rows_f32)(const float *w, u64 stride, u32 tiles, u32 k,
                                         const float *x, u64 ldx, float *y, u64 ldy,
                                         const float *bias, int add) {
    const float *x0 = x, *x1 = x0 + ldx, *x2 = x1 + ldx, *x3 = x2 + ldx;
    u32 t = 0;
    for (; TWO_TILES && t + 2 <= tiles; t += 2) { /* eight chains hide the adds' latency */
        const float *p = w + t * stride, *b = bias ? bias + 16 * t : NULL;
        vf a0 = vf_set(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
        for (u32 j = 0; j < k; j++, p += 16) {
            vf v = vf_load(p), u = vf_load(p + stride), x0j = vf_set(x0[j]), x1j = vf_set(x1[j]),
               x2j = vf_set(x2[j]), x3j = vf_set(x3[j]);
            a0 = vf_add(a0, vf_mul(v, x0j));
            b0 = vf_add(b0, vf_mul(u, x0j));
            a1 = vf_add(a1, vf_mul(v, x1j));
            b1 = vf_add(b1, vf_mul(u, x1j));
            a2 = vf_add(a2, vf_mul(v, x2j));
            b2 = vf_add(b2, vf_mul(u, x2j));
            a3 = vf_add(a3, vf_mul(v, x3j));
            b3 = vf_add(b3, vf_mul(u, x3j));
        }
        float *to = y + 16 * t;
        vf_finish(a0, to, b, add);
        vf_finish(a1, to + ldy, b, add);
        vf_finish(a2, to + 2 * ldy, b, add);
        vf_finish(a3, to + 3 * ldy, b, add);
        to += 16;
        if (b) b += 16;
        vf_finish(b0, to, b, add);
        vf_finish(b1, to + ldy, b, add);
        vf_finish(b2, to + 2 * ldy, b, add);
        vf_finish(b3, to + 3 * ldy, b, add);
    }
    for (; t < tiles; t++) {
        const float *p = w + t * stride;
        vf a0 = vf_set(0), a1 = a0, a2 = a0, a3 = a0;
        for (u32 j = 0; j < k; j++, p += 16) {
            vf v = vf_load(p);
            a0 = vf_add(a0, vf_mul(v, vf_set(x0[j])));
            a1 = vf_add(a1, vf_mul(v, vf_set(x1[j])));
            a2 = vf_add(a2, vf_mul(v, vf_set(x2[j])));
            a3 = vf_add(a3, vf_mul(v, vf_set(x3[j])));
        }
        float *to = y + 16 * t;
        const float *b = bias ? bias + 16 * t : NULL;
        vf_finish(a0, to, b, add);
        vf_finish(a1, to + ldy, b, add);
        vf_finish(a2, to + 2 * ldy, b, add);
        vf_finish(a3, to + 3 * ldy, b, add);
    }
}

/* One row: four tiles at a time. */
static TARGETED void NAME(one_row_f32)(const float *w, u64 stride, u32 tiles, u32 k, const float *x,
                                       float *y, const float *bias, int add) {
    u32 t = 0;
    for (; t + 4 <= tiles; t += 4) {
        const float *p = w + t * stride;
        vf a0 = vf_set(0), a1 = a0, a2 = a0, a3 = a0;
        for (u32 j = 0; j < k; j++, p += 16) {
            vf v = vf_set(x[j]);
            a0 = vf_add(a0, vf_mul(vf_load(p), v));
            a1 = vf_add(a1, vf_mul(vf_load(p + stride), v));
            a2 = vf_add(a2, vf_mul(vf_load(p + 2 * stride), v));
            a3 = vf_add(a3, vf_mul(vf_load(p + 3 * stride), v));
        }
        float *to = y + 16 * t;
        vf_finish(a0, to, bias ? bias + 16 * t : NULL, add);
        vf_finish(a1, to + 16, bias ? bias + 16 * t + 16 : NULL, add);
        vf_finish(a2, to + 32, bias ? bias + 16 * t + 32 : NULL, add);
        vf_finish(a3, to + 48, bias ? bias + 16 * t + 48 : NULL, add);
    }
    for (; t < tiles; t++) {
        const float *p = w + t * stride;
        vf a0 = vf_set(0);
        for (u32 j = 0; j < k; j++, p += 16) a0 = vf_add(a0, vf_mul(vf_load(p), vf_set(x[j])));
        vf_finish(a0, y + 16 * t, bias ? bias + 16 * t : NULL, add);
    }
}

static TARGETED void NAME(gemm_f32)(const float *w, u64 stride, u32 tiles, u32 k, const float *x,
                                    u64 ldx, u32 m, float *y, u64 ldy, const float *bias, int add) {
    u32 i = 0;
    for (; i + 4 <= m; i += 4)
        NAME(four_rows_f32)(w, stride, tiles, k, x + i * ldx, ldx, y + i * ldy, ldy, bias, add);
    for (; i < m; i++) NAME(one_row_f32)(w, stride, tiles, k, x + i * ldx, y + i * ldy, bias, add);
}

/* y for one tile and one row, from its accumulators. */
V void va_finish(va acc, i32 sum, const float *x_scale, const float *w_scale, float *to,
                 const float *bias, int add) {
    vi total = va_total(acc, sum), before;
    if (x_scale) {
        vf_finish(vf_mul(vf_from_i(total), vf_mul(vf_set(*x_scale), vf_load(w_scale))), to, bias,
                  add);
    } else {
        memcpy(&before, to, sizeof before);
        total = vi_add(before, total);
        memcpy(to, &total, sizeof total);
    }
}

#if !OWN_GEMM_Q8
#ifndef TILE_PAIRS
#define TILE_PAIRS 1
#endif
/* One tile for two rows, or two tiles for one, as many accumulators as 16 registers hold. */
static TARGETED void NAME(gemm_q8)(const u8 *w, u64 stride, u64 step, const float *w_scale,
                                   u32 tiles, u32 k4, const void *x_, u64 ldx, const i32 *sum,
                                   const float *x_scale, u32 m, float *y, u64 ldy,
                                   const float *bias, int add) {
    u32 done;
    for (u32 t = 0; t < tiles;
         t += done, w += done * stride, w_scale += 16 * done, y += 16 * done) {
        const float *b0 = bias ? bias + 16 * t : NULL;
        const vq *x = (const vq *)x_;
        u32 i = 0;
        done = 1;
#if OWN_ROWS
        for (u32 rows; i + 2 < m; i += rows, x += rows * ldx)
            rows = some_rows(w, step, w_scale, k4, x, ldx, sum + i, VA_SCALE_OF(i), m - i,
                             y + i * ldy, ldy, b0, add);
#endif
        for (; i + 2 <= m; i += 2, x += 2 * ldx) {
            va a0 = va_zero(), a1 = a0;
            const u8 *p = w;
            for (u32 j = 0; j < k4; j += 4, p += step) {
                a0 = va_dot(a0, p, x + j);
                a1 = va_dot(a1, p, x + ldx + j);
                VA_PIN(a0);
                VA_PIN(a1);
            }
            va_finish(a0, sum[i], VA_SCALE_OF(i), w_scale, y + i * ldy, b0, add);
            va_finish(a1, sum[i + 1], VA_SCALE_OF(i + 1), w_scale, y + (i + 1) * ldy, b0, add);
        }
        if (m == 1 && TILE_PAIRS && t + 2 <= tiles) {
            va a0 = va_zero(), a1 = a0;
            const u8 *p = w;
            for (u32 j = 0; j < k4; j += 4, p += step) {
                a0 = va_dot(a0, p, x + j);
                a1 = va_dot(a1, p + stride, x + j);
                VA_PIN(a0);
                VA_PIN(a1);
            }
            va_finish(a0, sum[0], VA_SCALE_OF(0), w_scale, y, b0, add);
            va_finish(a1, sum[0], VA_SCALE_OF(0), w_scale + 16, y + 16, b0 ? b0 + 16 : NULL, add);
            done = 2;
        } else if (i < m) {
            va a0 = va_zero();
            const u8 *p = w;
            for (u32 j = 0; j < k4; j += 4, p += step) a0 = va_dot(a0, p, x + j);
            va_finish(a0, sum[i], VA_SCALE_OF(i), w_scale, y + i * ldy, b0, add);
        }
    }
}
#endif

/* q4, one tile for some rows of inputs: x is [row][k32] int8, offset [row][k32 / Q4_GROUP]. A
 * group's sums start anew, so that groups are independent chains. */
#define EACH_ROW_1(f) f(0)
#define EACH_ROW_2(f) f(0) f(1)
#define EACH_ROW_3(f) f(0) f(1) f(2)
#define EACH_ROW_4(f) f(0) f(1) f(2) f(3)
#define BEGIN(i) vi acc##i = vf_round(vf_set(0));
#define START(i) vg g##i = vg_start(offset[i * groups]);
#define PRODUCT(i) g##i = vn_dot(g##i, &n, x + i * k32 + 8 * eight);
#define FINISH(i) acc##i = vg_end(acc##i, g##i, m);
#define END(i) \
    vf_finish(vf_mul(vf_from_i(acc##i), vf_mul(vf_set(x_scale[i]), scale)), y + i * ldy, bias, add);
#ifndef UNROLLED_Q4
#define UNROLLED_Q4 UNROLLED
#endif
#define TILE_Q4(rows)                                                                             \
    static TARGETED void NAME(tile_q4_##rows)(                                                    \
        const u8 *w, const u8 *multiplier, const float *w_scale, u64 k32, const i8 *x,            \
        const i32 *offset, const float *x_scale, float *y, u64 ldy, const float *bias, int add) { \
        u64 groups = k32 / Q4_GROUP;                                                              \
        const i8 *end = x + k32;                                                                  \
        vf scale = vf_load(w_scale);                                                              \
        EACH_ROW_##rows(BEGIN) for (; x < end; multiplier += 16) {                                \
            UNROLLED_Q4 for (u32 high = 0; high < 2; high++, x += Q4_GROUP, offset++) {           \
                if (x == end) break;                                                              \
                vm m = vm_load(multiplier, high);                                                 \
                EACH_ROW_##rows(START)                                                            \
                    UNROLLED_Q4 for (u32 eight = 0; eight < 4; eight++, w += 64) {                \
                    vn n = vn_load(w);                                                            \
                    EACH_ROW_##rows(PRODUCT)                                                      \
                }                                                                                 \
                EACH_ROW_##rows(FINISH)                                                           \
            }                                                                                     \
        }                                                                                         \
        EACH_ROW_##rows(END)                                                                      \
    }
/* clang-format off */
TILE_Q4(1)
TILE_Q4(2)
TILE_Q4(3)
TILE_Q4(4)
/* clang-format on */
#undef EACH_ROW_1
#undef EACH_ROW_2
#undef EACH_ROW_3
#undef EACH_ROW_4
#undef BEGIN
#undef START
#undef PRODUCT
#undef FINISH
#undef END
#undef TILE_Q4
#undef UNROLLED_Q4

static TARGETED void NAME(gemm_q4)(const struct matrix *w, u32 tile, u32 tiles, const void *x_,
                                   u64 ldx, const float *x_scale, u32 m, float *y, u64 ldy,
                                   const float *bias, int add, u8 *room) {
    u64 k32 = round_up(w->cols, Q4_GROUP), groups = k32 / Q4_GROUP, known = round_up(w->cols, 16);
    i8 *x = (i8 *)room;
    i32 *offset = (i32 *)(void *)(room + m * k32);
    for (u32 i = 0; i < m; i++)
        for (u64 g = 0; g < groups; g++) {
            const vq *from = (const vq *)x_ + i * ldx + g * Q4_GROUP;
            vq last[Q4_GROUP] = {0}; /* beyond `known` there may be anything */
            if (known - g * Q4_GROUP < Q4_GROUP) from = memcpy(last, from, 16 * sizeof *last);
            vn_pack(from, x + i * k32 + g * Q4_GROUP, offset + i * groups + g);
        }
    for (u64 t = tile; t < (u64)tile + tiles; t++, y += 16, bias = bias ? bias + 16 : NULL) {
        const u8 *p = w->data + t * 8 * k32, *by = w->multiplier + t * 16 * ((groups + 1) / 2);
        const float *scale = w->scale + 16 * t;
        for (u32 i = 0, rows; i < m; i += rows) {
            const i8 *xi = x + i * k32;
            const i32 *of = offset + i * groups;
            const float *xs = x_scale + i;
            float *yi = y + i * ldy;
            rows = min32(m - i, 4);
            if (rows == 4) NAME(tile_q4_4)(p, by, scale, k32, xi, of, xs, yi, ldy, bias, add);
            if (rows == 3) NAME(tile_q4_3)(p, by, scale, k32, xi, of, xs, yi, ldy, bias, add);
            if (rows == 2) NAME(tile_q4_2)(p, by, scale, k32, xi, of, xs, yi, ldy, bias, add);
            if (rows == 1) NAME(tile_q4_1)(p, by, scale, k32, xi, of, xs, yi, ldy, bias, add);
        }
    }
}

static TARGETED void NAME(unpack_q4)(const struct matrix *w, u32 tile, u32 tiles, u8 *to) {
    u64 k32 = round_up(w->cols, Q4_GROUP), groups = k32 / Q4_GROUP, pairs = (groups + 1) / 2;
    const u8 *p = w->data + (u64)tile * 8 * k32;
    for (u64 t = tile; t < (u64)tile + tiles; t++)
        for (u64 g = 0; g < groups; g++) {
            vm m = vm_load(w->multiplier + (t * pairs + g / 2) * 16, g % 2);
            for (u32 eight = 0; eight < 4; eight++, p += 64, to += 128) {
                vn n = vn_load(p);
                vn_unpack(&n, m, to);
            }
        }
}

static TARGETED void NAME(quantize_known)(const float *x, u32 n, float top, void *q, i32 *sum,
                                          float *scale) {
    vf low = vf_set(-127), high = vf_set(127), times = vf_set(top > 1e-30f ? 127.0f / top : 0);
    vi total = vf_round(vf_set(0));
    u32 whole = n / 16 * 16;
    for (u32 i = 0; i < n; i += 16) {
        vf v = i < whole ? vf_load(x + i) : vf_part(x + i, n - i);
        vi r = vf_round(vf_min(vf_max(vf_mul(v, times), low), high));
        vq_store((vq *)q + i, r);
        total = vi_add(total, r);
    }
    *sum = vi_sum(total);
    *scale = top / 127.0f;
}

/* The largest of `most` and |x[i]|; what is behind the last whole 16 is of no account. */
V float NAME(top_of)(vf most, const float *x, u32 n) {
    if (n % 16) most = vf_max(vf_abs(vf_part(x + n / 16 * 16, n % 16)), most);
    return vf_top(most);
}

static TARGETED void NAME(quantize)(const float *x, u32 n, void *q, i32 *sum, float *scale) {
    vf most = vf_set(0);
    for (u32 i = 0; i + 16 <= n; i += 16) most = vf_max(vf_abs(vf_load(x + i)), most);
    NAME(quantize_known)(x, n, NAME(top_of)(most, x, n), q, sum, scale);
}

/* What `quantize` multiplies x by, as it sets the scale. */
V vf NAME(times_of)(const float *x, u32 n, float *scale) {
    vf most = vf_set(0);
    for (u32 i = 0; i + 16 <= n; i += 16) most = vf_max(vf_abs(vf_load(x + i)), most);
    float top = NAME(top_of)(most, x, n);
    *scale = top / 127.0f;
    return vf_set(top > 1e-30f ? 127.0f / top : 0);
}
/* Up to 16 of n that remain. */
V void NAME(bytes_of)(const float *x, u32 n, vf times, u8 to[16]) {
    vf v = vf_mul(n >= 16 ? vf_load(x) : vf_part(x, n), times);
    vq q[16];
    vq_store(q, vf_round(vf_min(vf_max(v, vf_set(-127)), vf_set(127))));
    for (int i = 0; i < 16; i++) to[i] = (u8)(q[i] + 128);
}
static TARGETED void NAME(keep_key)(const float *x, u32 n, u8 *to, float *scale) {
    vf times = NAME(times_of)(x, n, scale);
    u8 q[16];
    for (u32 i = 0; i < n; i += 16, to += 256) {
        NAME(bytes_of)(x + i, n - i, times, q);
        for (u32 j = 0; j < 16 && j < n - i; j += 4) memcpy(to + 16 * j, q + j, 4);
    }
}
static TARGETED void NAME(keep_value)(const float *x, u32 n, u8 *to, u64 tile, float *scale) {
    vf times = NAME(times_of)(x, n, scale);
    u8 q[16];
    for (u32 i = 0; i < n; i += 16, to += tile) {
        NAME(bytes_of)(x + i, n - i, times, q);
        for (u32 j = 0; j < 16; j++) to[4 * j] = q[j];
    }
}

/* Nothing to clamp: |v| <= 127 (1 + 2^-23), |v - a| <= 1/2. */
static TARGETED void NAME(quantize_finely)(const float *x, u32 n, float largest, void *high,
                                           void *low, i32 sum[2]) {
    vf times = vf_set(largest > 1e-30f ? 127.0f / largest : 0);
    vi total = vf_round(vf_set(0)), rest = total;
    for (u32 i = 0; i < n; i += 16) {
        vf v = vf_mul(vf_load(x + i), times);
        vi a = vf_round(v), b = vf_round(vf_mul(vf_sub(v, vf_from_i(a)), vf_set(254)));
        vq_store((vq *)high + i, a);
        vq_store((vq *)low + i, b);
        total = vi_add(total, a);
        rest = vi_add(rest, b);
    }
    sum[0] = vi_sum(total);
    sum[1] = vi_sum(rest);
}

static TARGETED void NAME(join)(const i32 *high, const i32 *low, u32 n, float largest, float *y,
                                int add) {
    vf high_by = vf_set(largest / 127.0f), low_by = vf_set(largest / (127.0f * 254.0f));
    for (u32 i = 0; i < n; i += 16) {
        vi h, l;
        memcpy(&h, high + i, sizeof h);
        memcpy(&l, low + i, sizeof l);
        vf a = vf_mul(vf_from_i(h), high_by);
        if (add) a = vf_add(vf_load(y + i), a);
        vf_store(y + i, vf_add(a, vf_mul(vf_from_i(l), low_by)));
    }
}

/* The sum over 16 lanes of x[i] * x[i]. */
V float NAME(sum_of_squares)(const float *x, u32 n) {
    vf s = vf_set(0);
    u32 i = 0;
    for (; i + 16 <= n; i += 16) {
        vf v = vf_load(x + i);
        s = vf_add(s, vf_mul(v, v));
    }
    if (i < n) {
        vf v = vf_part(x + i, n - i);
        s = vf_add(s, vf_mul(v, v));
    }
    return vf_sum(s);
}

static TARGETED float NAME(rms_norm)(float *x, const float *g, u32 n) {
    float norm = sqrtf(NAME(sum_of_squares)(x, n)) * (1.0f / sqrtf((float)n));
    vf by = vf_set(1.0f / (norm > 1e-8f ? norm : 1e-8f)), most = vf_set(0);
    for (u32 i = 0; i < n; i += 16) {
        vf v = vf_mul(vf_mul(vf_load(x + i), by), vf_load(g + i));
        vf_store(x + i, v);
        if (i + 16 <= n) most = vf_max(vf_abs(v), most);
    }
    return NAME(top_of)(most, x, n);
}

static TARGETED float NAME(layer_norm)(float *x, const float *weight, const float *bias, u32 n,
                                       int centred) {
    vf s = vf_set(0), most = s;
    float lane[16];
    u32 i = 0, whole = n / 16 * 16;
    for (; i < whole; i += 16) s = vf_add(s, vf_load(x + i));
    if (i < n) s = vf_add(s, vf_part(x + i, n - i));
    vf mean = vf_set(vf_sum(s) / (float)n), v;
    s = vf_set(0);
    for (i = 0; i < whole; i += 16) {
        v = vf_sub(vf_load(x + i), mean);
        s = vf_add(s, vf_mul(v, v));
    }
    if (i < n) {
        vf_store(lane, vf_sub(vf_load(x + i), mean));
        v = vf_part(lane, n - i);
        s = vf_add(s, vf_mul(v, v));
    }
    vf by = vf_set(1.0f / sqrtf(vf_sum(s) / (float)n + 1e-5f));
    for (i = 0; i < n; i += 16) {
        v = centred ? vf_sub(vf_load(x + i), mean) : vf_load(x + i);
        v = vf_add(vf_mul(vf_mul(v, by), vf_load(weight + i)), vf_load(bias + i));
        vf_store(x + i, v);
        if (i < whole) most = vf_max(vf_abs(v), most);
    }
    return NAME(top_of)(most, x, n);
}

/* exp(x), x clamped to [-87, 88]: x = n ln2 + r, |r| <= ln2/2; e^r = 1 + r + r^2 p(r). Relative
 * error 1e-7. Coefficients here and in gelu: tests/fit_constants.py. */
V vf NAME(exp_within)(vf x) {
    vf t = vf_add(vf_mul(x, vf_set(1.44269504f)), vf_set(MAGIC)), n = vf_sub(t, vf_set(MAGIC));
    vf r = vf_sub(vf_sub(x, vf_mul(n, vf_set(0.693359375f))), vf_mul(n, vf_set(-2.12194440e-4f)));
    vf p = vf_set(1.395171159e-3f);
    p = vf_add(vf_mul(p, r), vf_set(8.369599469e-3f));
    p = vf_add(vf_mul(p, r), vf_set(4.166618735e-2f));
    p = vf_add(vf_mul(p, r), vf_set(1.666651219e-1f));
    p = vf_add(vf_mul(p, r), vf_set(5.0e-1f));
    p = vf_add(vf_add(vf_mul(vf_mul(p, r), r), r), vf_set(1.0f));
    return vf_exponent(p, t);
}
V vf vf_exp(vf x) { return NAME(exp_within)(vf_min(vf_max(x, vf_set(-87.0f)), vf_set(88.0f))); }

/* x/2 (1 + erf(x / sqrt 2)); erf(z) = z P(z^2) / Q(z^2) for |z| <= 3.92, +-1 beyond; absolute error
 * 4e-7. */
V float NAME(gelu)(float *x, u32 n) {
    vf most = vf_set(0);
    for (u32 i = 0; i < n; i += 16) {
        vf v = vf_load(x + i);
        vf z = vf_min(vf_max(vf_mul(v, vf_set(0.707106781f)), vf_set(-3.92f)), vf_set(3.92f)),
           u = vf_mul(z, z);
        vf p = vf_set(2.034712452e-6f), q = vf_set(3.806825043e-5f);
        p = vf_add(vf_mul(p, u), vf_set(2.874386846e-4f));
        q = vf_add(vf_mul(q, u), vf_set(1.187819289e-3f));
        p = vf_add(vf_mul(p, u), vf_set(3.867238760e-3f));
        q = vf_add(vf_mul(q, u), vf_set(1.517015789e-2f));
        p = vf_add(vf_mul(p, u), vf_set(5.305714160e-2f));
        q = vf_add(vf_mul(q, u), vf_set(1.150747761e-1f));
        p = vf_add(vf_mul(p, u), vf_set(1.927408725e-1f));
        q = vf_add(vf_mul(q, u), vf_set(5.041438341e-1f));
        p = vf_add(vf_mul(p, u), vf_set(1.128378987f));
        q = vf_add(vf_mul(q, u), vf_set(1.0f));
        vf erf = vf_min(vf_max(vf_div(vf_mul(z, p), q), vf_set(-1.0f)), vf_set(1.0f));
        v = vf_mul(vf_mul(v, vf_set(0.5f)), vf_add(vf_set(1.0f), erf));
        vf_store(x + i, v);
        if (i + 16 <= n) most = vf_max(vf_abs(v), most);
    }
    return NAME(top_of)(most, x, n);
}

/* GELU_TANH: x/2 (1 + tanh(u/2)) = x sigmoid(u), u = 2 sqrt(2/pi) (x + 0.044715 x^3); SILU: u =
 * x. */
static TARGETED float NAME(activate)(float *x, u32 n, u32 kind) {
    vf most = vf_set(0);
    if (kind == GELU_ERF) return NAME(gelu)(x, n);
    for (u32 i = 0; i < n; i += 16) {
        vf v = vf_load(x + i), u = v;
        if (kind == GELU_TANH) {
            u = vf_add(v, vf_mul(vf_mul(vf_mul(v, v), v), vf_set(0.044715f)));
            u = vf_mul(u, vf_set(1.59576912f));
        }
        if (kind == RELU) v = vf_max(v, vf_set(0));
        else v = vf_div(v, vf_add(vf_set(1), vf_exp(vf_sub(vf_set(0), u))));
        vf_store(x + i, v);
        if (i + 16 <= n) most = vf_max(vf_abs(v), most);
    }
    return NAME(top_of)(most, x, n);
}

static TARGETED void NAME(rotate)(float *x, const float *cosine, const float *sine, u32 half) {
    u32 i = 0;
    for (; i + 16 <= half; i += 16) {
        vf a = vf_load(x + i), b = vf_load(x + half + i), c = vf_load(cosine + i),
           s = vf_load(sine + i);
        vf_store(x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store(x + half + i, vf_add(vf_mul(b, c), vf_mul(a, s)));
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i], ac = a * cosine[i], bs = b * sine[i], bc = b * cosine[i],
              as = a * sine[i];
        ROUNDED(ac);
        ROUNDED(bs);
        ROUNDED(bc);
        ROUNDED(as);
        x[i] = ac - bs;
        x[half + i] = bc + as;
    }
}

static TARGETED void NAME(scale)(const float *x, float by, u32 n, float *y) {
    vf low = vf_set(-MOST), high = vf_set(MOST), f = vf_set(by);
    u32 i = 0;
    for (; i + 16 <= n; i += 16)
        vf_store(y + i, vf_min(vf_max(vf_mul(vf_load(x + i), f), low), high));
    if (i < n) {
        float t[16];
        vf_store(t, vf_min(vf_max(vf_mul(vf_part(x + i, n - i), f), low), high));
        memcpy(y + i, t, (n - i) * sizeof *t);
    }
}

static TARGETED void NAME(add)(float *x, const float *y, u32 n) {
    u32 i = 0;
    for (; i + 16 <= n; i += 16) vf_store(x + i, vf_add(vf_load(x + i), vf_load(y + i)));
    for (; i < n; i++) x[i] += y[i];
}

static TARGETED float NAME(softmax)(float *x, u32 n) {
    u32 whole = n / 16 * 16, rest = n % 16;
    vf most = vf_set(-FLT_MAX), s = vf_set(0), last = most;
    for (u32 i = 0; i < whole; i += 16) most = vf_max(vf_load(x + i), most);
    if (rest) {
        last = vf_first(vf_load(x + whole), rest, -FLT_MAX);
        most = vf_max(last, most);
    }
    most = vf_set(vf_top(most));
    for (u32 i = 0; i < whole; i += 16) {
        vf v = vf_exp(vf_sub(vf_load(x + i), most));
        vf_store(x + i, v);
        s = vf_add(s, v);
    }
    if (rest) {
        last = vf_first(vf_exp(vf_sub(last, most)), rest, 0);
        vf_store(x + whole, last);
        s = vf_add(s, last);
    }
    return vf_sum(s);
}

static TARGETED void NAME(maxima)(const float *x, u32 n, float most[16]) {
    vf m = vf_load(most);
    u32 i = 0;
    for (; i + 16 <= n; i += 16) m = vf_max(vf_load(x + i), m);
    if (i < n) m = vf_max(vf_first(vf_load(x + i), n - i, -FLT_MAX), m);
    vf_store(most, m);
}

static TARGETED float NAME(weigh)(float *x, u32 n, u32 end, const float most[16], const float *by,
                                  float sum[16]) {
    vf m = vf_set(vf_top(vf_load(most))), s = vf_load(sum), largest = vf_set(0);
    vf bottom = vf_set(-87.0f);
    u32 i = 0;
    for (; i < n; i += 16) {
        vf v = vf_load(x + i);
        if (n - i < 16) v = vf_first(v, n - i, -FLT_MAX);
        v = NAME(exp_within)(vf_max(vf_sub(v, m), bottom));
        if (n - i < 16) v = vf_first(v, n - i, 0);
        s = vf_add(s, v);
        v = vf_mul(v, vf_load(by + i));
        vf_store(x + i, v);
        largest = vf_max(vf_abs(v), largest);
    }
    for (; i < end; i += 16) vf_store(x + i, vf_set(0));
    vf_store(sum, s);
    return vf_top(largest);
}

/* The table is a value, not an object: position-independent code would have to write its pointers
 * at load. */
static struct kernels NAME(kernels)(void) {
    return (struct kernels){.isa = (megabyte_isa)MEGABYTE_BACKEND,
                            .q_bytes = sizeof(vq),
                            .gemm_f32 = NAME(gemm_f32),
                            .gemm_q8 = NAME(gemm_q8),
                            .gemm_q4 = NAME(gemm_q4),
                            .unpack_q4 = NAME(unpack_q4),
                            .quantize = NAME(quantize),
                            .quantize_known = NAME(quantize_known),
                            .keep_key = NAME(keep_key),
                            .keep_value = NAME(keep_value),
                            .quantize_finely = NAME(quantize_finely),
                            .join = NAME(join),
                            .maxima = NAME(maxima),
                            .weigh = NAME(weigh),
                            .rms_norm = NAME(rms_norm),
                            .layer_norm = NAME(layer_norm),
                            .activate = NAME(activate),
                            .rotate = NAME(rotate),
                            .scale = NAME(scale),
                            .add = NAME(add),
                            .softmax = NAME(softmax)};
}
#endif

#undef MEGABYTE_BACKEND
#undef NAME
#undef TARGETED
#undef V
#undef TWO_TILES
#undef VA_PIN
#undef OWN_GEMM_Q8
#undef OWN_ROWS
#undef TILE_PAIRS
#endif /* MEGABYTE_BACKEND */
