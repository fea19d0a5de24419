/* fuzz.h - what the programs tests/fuzz_*.c share. Each has one function, LLVMFuzzerTestOneInput,
 * that takes any bytes and ends the program where something is wrong. It is linked in two ways:
 *
 *     clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz_X.c -o fuzz_X -lm -pthread
 *     cc -O1 -DSTANDALONE tests/fuzz_X.c -o replay_X -lm -pthread
 *
 * The first is libFuzzer's program, the second has the main below:
 *
 *     replay_X FILE|FOLDER...           each file is one input
 *     replay_X COUNT SEED [FOLDER]      COUNT inputs, seeds that are spoilt at random; FOLDER
 *                                       receives the seeds that the program makes itself
 *
 * What crashes is left in tests/tmp/crash-input. `make fuzz` runs all of them: tests/fuzz.sh. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(condition)                                                               \
    do {                                                                              \
        if (!(condition)) {                                                           \
            fprintf(stderr, "%s:%d: %s is not so\n", __FILE__, __LINE__, #condition); \
            abort();                                                                  \
        }                                                                             \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

#if defined(__GNUC__)
#define MAY_BE_UNUSED __attribute__((unused))
#else
#define MAY_BE_UNUSED
#endif

/* A copy of its own, so that reading past it shows; free() it. */
static MAY_BE_UNUSED uint8_t *own_copy(const void *bytes, size_t n) {
    uint8_t *copy = (uint8_t *)malloc(n + !n);
    MUST(copy);
    if (n) memcpy(copy, bytes, n);
    return copy;
}

/* ---- choices that the input's bytes make: what is done, not what it is done to */

static const uint8_t *picks;
static size_t picks_left;

static MAY_BE_UNUSED void pick_from(const uint8_t *bytes, size_t n) {
    picks = bytes;
    picks_left = n;
}

/* Below n; 0 when all bytes are used up. */
static MAY_BE_UNUSED uint64_t pick(uint64_t n) {
    uint64_t v = 0;
    for (uint64_t reach = 1; reach < n && picks_left; reach = reach >> 56 ? n : reach << 8) {
        v = v << 8 | *picks++;
        picks_left--;
    }
    return v % n;
}

/* Some of the bytes themselves; *n: how many, at most `most`. */
static MAY_BE_UNUSED const uint8_t *pick_bytes(size_t most, size_t *n) {
    const uint8_t *bytes = picks;
    *n = (size_t)pick((uint64_t)most + 1);
    if (*n > picks_left) *n = picks_left;
    bytes = picks;
    picks += *n;
    picks_left -= *n;
    return bytes;
}

/* ---- what became of the inputs, for the last line */

static struct {
    const char *what;
    unsigned long long n;
} tallies[24];

static MAY_BE_UNUSED void tally(const char *what) {
    int i = 0;
    while (tallies[i].what && strcmp(tallies[i].what, what)) i++;
    MUST(i < 23);
    tallies[i].what = what;
    tallies[i].n++;
}

/* ---- changes at random */

static uint64_t chance_state;
static MAY_BE_UNUSED uint64_t chance(uint64_t n) { /* splitmix64 */
    uint64_t z = chance_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % n;
}

/* Bytes that mean something in the format; the fuzzed file may have others. */
#ifndef LIKELY_BYTES
#define LIKELY_BYTES "\0\1\2\3\4\x7f\x80\xff"
#endif

/* A few changes to bad[n], which has room for `most`; draw(n) says which. Returns the length. */
static MAY_BE_UNUSED size_t spoil(uint8_t *bad, size_t n, size_t most, uint64_t draw(uint64_t n)) {
    static const char likely[] = LIKELY_BYTES;
    static const uint32_t numbers[] = {0,   1,     127,   128,      255,        256,
                                       257, 65535, 65536, 1u << 24, 0x7fffffff, UINT32_MAX};
    for (uint64_t k = 1 + draw(4); k && n; k--) {
        size_t at = (size_t)draw(n), from = (size_t)draw(n), some = (size_t)draw(60);
        if (draw(3) == 0) at %= 48; /* headers */
        if (at >= n) at = 0;
        if (draw(2)) some %= 4;
        if (some > n - (at > from ? at : from)) some = n - (at > from ? at : from);
        switch (draw(9)) {
        case 0: bad[at] ^= (uint8_t)(1u << draw(8)); break;
        case 1: bad[at] = (uint8_t)draw(256); break;
        case 2: bad[at] = (uint8_t)likely[draw(sizeof likely - 1)]; break;
        case 3: bad[at] = (uint8_t)(bad[at] + (draw(2) ? 1 : 255)); break;
        case 4:
            for (uint32_t i = 0, v = numbers[draw(12)], width = draw(2) ? 4 : 2; i < width; i++)
                if (at + i < n) bad[at + i] = (uint8_t)(v >> 8 * i);
            break;
        case 5: memmove(bad + at, bad + from, some); break;
        case 6: /* out */
            memmove(bad + at, bad + at + some, n - at - some);
            n -= some;
            break;
        case 7: /* in again */
            if (n + some > most) break;
            memmove(bad + at + some, bad + at, n - at);
            n += some;
            break;
        default:
            if (draw(4) == 0) n = at;
        }
    }
    return n;
}

#ifdef STANDALONE
#include <dirent.h>
#include <signal.h>
#include <time.h>

static struct {
    uint8_t *bytes;
    size_t n;
} * fuzz_seeds;
static size_t n_fuzz_seeds, longest_seed;

static void add_seed(const void *bytes, size_t n) {
    fuzz_seeds = realloc(fuzz_seeds, (n_fuzz_seeds + 1) * sizeof *fuzz_seeds);
    MUST(fuzz_seeds);
    fuzz_seeds[n_fuzz_seeds].bytes = own_copy(bytes, n);
    fuzz_seeds[n_fuzz_seeds++].n = n;
    if (n > longest_seed) longest_seed = n;
}

static const char *seeds_folder; /* FOLDER, or NULL */
static void make_seeds(void); /* of each program: adds its seeds */

static const uint8_t *volatile running;
static volatile size_t running_size;

static void leave_input(int number) {
    /* nothing for handlers, but the program ends here anyway */
    FILE *f = fopen("tests/tmp/crash-input", "wb");
    if (!f) f = fopen("crash-input", "wb");
    if (f && running) fwrite((const void *)running, 1, running_size, f);
    if (f) fclose(f);
    signal(number, SIG_DFL);
    raise(number);
}

static void run_input(const uint8_t *bytes, size_t n) {
    uint8_t *copy = own_copy(bytes, n);
    running = copy;
    running_size = n;
    LLVMFuzzerTestOneInput(copy, n);
    running = NULL;
    free(copy);
}

static size_t replay(const char *path) { /* returns how many inputs there were */
    size_t n = 0, room = 1 << 16;
    DIR *folder = opendir(path);
    for (struct dirent *e; folder && (e = readdir(folder));) {
        char inner[4096];
        if (*e->d_name == '.') continue;
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        n += replay(inner);
    }
    if (folder) return closedir(folder), n;
    FILE *f = fopen(path, "rb");
    if (!f) return fprintf(stderr, "%s: cannot open\n", path), exit(2), 0;
    uint8_t *bytes = malloc(room);
    while (bytes && (n += fread(bytes + n, 1, room - n, f)) == room)
        bytes = realloc(bytes, room *= 2);
    MUST(bytes);
    fclose(f);
    run_input(bytes, n);
    free(bytes);
    return 1;
}

static void leave_seeds(const char *folder) {
    for (size_t i = 0; i < n_fuzz_seeds; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/seed-%zu", folder, i);
        FILE *f = fopen(path, "wb");
        MUST(f && fwrite(fuzz_seeds[i].bytes, 1, fuzz_seeds[i].n, f) == fuzz_seeds[i].n);
        MUST(!fclose(f));
    }
}

static size_t mutate(uint64_t turns, uint64_t seed) {
    size_t most = 2 * longest_seed + 64;
    uint8_t *bad = malloc(most);
    MUST(bad && n_fuzz_seeds);
    for (size_t i = 0; i < n_fuzz_seeds; i++) run_input(fuzz_seeds[i].bytes, fuzz_seeds[i].n);
    for (uint64_t turn = 0; turn < turns; turn++) {
        chance_state = seed * 1000003 + turn;
        size_t of = (size_t)chance(n_fuzz_seeds), n = fuzz_seeds[of].n;
        memcpy(bad, fuzz_seeds[of].bytes, n);
        run_input(bad, spoil(bad, n, most, chance));
    }
    free(bad);
    return n_fuzz_seeds + (size_t)turns;
}

int main(int argc, char **argv) {
    static const int ends[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    char *end = NULL;
    size_t n = 0;
    clock_t start = clock();
    if (argc < 2)
        return fprintf(stderr, "usage: %s FILE...  or  COUNT SEED [FOLDER]\n", argv[0]), 2;
    for (int i = 0; i < 6; i++) signal(ends[i], leave_input);
    unsigned long long turns = strtoull(argv[1], &end, 10);
    if (argc > 2 && *end == 0) {
        seeds_folder = argc > 3 ? argv[3] : NULL;
        make_seeds();
        if (seeds_folder) leave_seeds(seeds_folder);
        n = mutate(turns, strtoull(argv[2], NULL, 10));
    } else {
        for (int i = 1; i < argc; i++) n += replay(argv[i]);
    }
    double s = (double)(clock() - start) / CLOCKS_PER_SEC;
    printf("%s: %zu inputs, %.0f per second",
           strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0], n,
           (double)n / (s > 1e-3 ? s : 1e-3));
    for (int i = 0; tallies[i].what; i++) printf("; %llu %s", tallies[i].n, tallies[i].what);
    puts("");
    for (size_t i = 0; i < n_fuzz_seeds; i++) free(fuzz_seeds[i].bytes);
    free(fuzz_seeds);
    return 0;
}
#endif
#endif
