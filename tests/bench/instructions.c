/* How many instructions does a matrix product of int8 take? One of 384 x 384 for ROWS rows:
 *
 *     instructions ISA ROWS        counts them, step by step (x86-64 Linux)
 *     instructions ISA ROWS TIMES  multiplies so many times, for an emulator that counts
 *
 * instructions.py asks for all. */
#include "../../megabyte.c"
#include <stdio.h>

#if defined(__x86_64__) && defined(__linux__)
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
#define HAVE_STEPS 1
#else
#define HAVE_STEPS 0
#endif

enum { SIZE = 384, MOST_ROWS = 64 };

static u8 weights[SIZE * SIZE];
static float w_scale[SIZE], x_scale[MOST_ROWS], y[MOST_ROWS * SIZE];
static i16 x[MOST_ROWS * SIZE]; /* of bytes for some */
static i32 sum[MOST_ROWS];

static void multiply_once(const struct kernels *k, u32 rows) {
    k->gemm_q8(weights, 16 * SIZE, 64, w_scale, SIZE / 16, SIZE, x, SIZE, sum, x_scale, rows, y,
               SIZE, NULL, 0);
}

#if HAVE_STEPS
static long count_steps(const struct kernels *k, u32 rows, int times) {
    int state;
    long n = 0;
    pid_t child = fork();
    if (!child) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        raise(SIGSTOP);
        while (times--) multiply_once(k, rows);
        _exit(0);
    }
    waitpid(child, &state, 0);
    while (WIFSTOPPED(state)) {
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL)) return -1;
        waitpid(child, &state, 0);
        n++;
    }
    return n;
}
#endif

int main(int argc, char **argv) {
    struct kernels k;
    u32 rows = argc > 2 ? (u32)atoi(argv[2]) : 0;
    int isa = 1;
    while (argc > 1 && megabyte_isa_name((megabyte_isa)isa)[0] != '?' &&
           strcmp(megabyte_isa_name((megabyte_isa)isa), argv[1]))
        isa++;
    if (rows < 1 || rows > MOST_ROWS || !find_kernels((megabyte_isa)isa, &k)) {
        fprintf(stderr, "usage: instructions ISA ROWS [TIMES]; this CPU must have the ISA\n");
        return 2;
    }
    for (int i = argc > 3 ? atoi(argv[3]) : 0; i > 0; i--) multiply_once(&k, rows);
    if (argc > 3) return 0;
#if HAVE_STEPS
    long once = count_steps(&k, rows, 1), twice = count_steps(&k, rows, 2);
    if (once < 0 || twice < 0) return 1;
    printf("%ld\n", twice - once); /* without what comes before and after */
    return 0;
#else
    fprintf(stderr, "instructions: nothing counts steps here\n");
    return 1;
#endif
}
