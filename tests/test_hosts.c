/* test_hosts.c - programs that treat the library roughly: floating-point environments that change
 * between calls, small stacks, signals on a stack of their own, forks, files cut off under their
 * model, cancelling from another thread, more threads than cores. Whatever they do, one piece of
 * work that calls every public function must come to the same number. */
#define _GNU_SOURCE
#define MEGABYTE_KEEP_OPTIONS
#include <pthread.h>
static int threads_left = -1; /* that the system gives; -1: any number */
static int create_thread(pthread_t *t, const pthread_attr_t *how, void *(*run)(void *),
                         void *with) {
    if (!threads_left) return 11; /* EAGAIN */
    threads_left -= threads_left > 0;
    return pthread_create(t, how, run, with);
}
#define pthread_create create_thread
#include "../megabyte.c"
#undef pthread_create
#include "random_model.h"
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

const char *__tsan_default_options(void); /* children make threads, too */
const char *__tsan_default_options(void) { return "die_after_fork=0"; }

static const char text_file[] = "tests/tmp/hosts-text.mb",
                  image_file[] = "tests/tmp/hosts-image.mb";

static void write_model(const char *path, const struct sizes *z, const char *const *texts, u32 n) {
    megabyte_error error;
    size_t size;
    u8 *file = random_model_with(z, 7, texts, n, &size, &error);
    CHECK(file, "%s", error.text);
    write_file(path, file, size);
    libc_free(NULL, file, size);
}

static void write_models(void) {
    static const char *const tile[] = {"image.tile",     "8x8",  "image.patch",  "2x2",
                                       "image.channels", "3",    "image.colour", "green-difference",
                                       "image.scan",     "patch"};
    struct sizes text = random_sizes(24, 4, 64, 2, 2, 32, 32, 2, 2, 16);
    struct sizes image = random_sizes(16, 12, 16, 1, 2, 8, 16, 1, 2, 8);
    (void)random_history, (void)random_model; /* of the header, not needed here */
    write_model(text_file, &text, NULL, 0);
    write_model(image_file, &image, tile, 5);
}

/* ------------------------------------------------------------------------------------- the work */

enum { N = 150, SIDE = 13, ROOM = 4096 };

/* Nothing here lies on the stack: the stack is measured. */
struct work {
    u32 threads;
    void (*before)(struct work *); /* NULL, or called before each call of the library */
    void (*after)(struct work *, const char *call);
    u64 hash, word;
    u32 calls;
    int quits; /* what callbacks answer */
    megabyte_model *text, *image, *own, *mapped;
    megabyte_engine *engine;
    megabyte_stream *s, *t;
    megabyte_codec *codec;
    megabyte_error error;
    megabyte_info info;
    megabyte_image_info tile;
    megabyte_image_header picture;
    megabyte_file_header header;
    megabyte_block_header block;
    megabyte_statistics counts;
    u64 parts[MEGABYTE_MAX_STAGES][MEGABYTE_PARTS];
    u8 bytes[N], back[N], code[ROOM], pixels[SIDE * SIDE * 3], seen[SIDE * SIDE * 3];
    float rows[N * 256], logits[256], each[N];
};

static void mix(struct work *w, const void *data, size_t n) { /* FNV-1a */
    const u8 *p = data;
    for (size_t i = 0; i < n; i++) w->hash = (w->hash ^ p[i]) * 0x100000001b3u;
}

#define CALL(call)                        \
    do {                                  \
        if (w->before) w->before(w);      \
        call;                             \
        w->calls++;                       \
        if (w->after) w->after(w, #call); \
    } while (0)
#define GOOD(call)                         \
    do {                                   \
        megabyte_status result;            \
        CALL(result = call);               \
        CHECK_STATUS(result, MEGABYTE_OK); \
    } while (0)

static int go_on(void *context, u64 done) {
    struct work *w = context;
    (void)done;
    if (w->after) w->after(w, "a callback");
    return w->quits;
}
static int take_byte(void *context, u8 byte) {
    struct work *w = context;
    mix(w, &byte, 1);
    return w->quits;
}

static void open_all(struct work *w) {
    u32 version;
    const char *said, *value;
    size_t size, n;
    int has;
    megabyte_engine_options how = {.threads = w->threads};
    CALL(version = megabyte_version());
    CALL(said = megabyte_status_string(MEGABYTE_ERROR_IO));
    CHECK(version && said[0]);
    GOOD(megabyte_model_load(&w->text, text_file, NULL, &w->error));
    GOOD(megabyte_model_open(&w->image, image_file, NULL, &w->error));
    u8 *file = read_file(text_file, &size), *aligned = aligned_alloc(64, (size + 63) / 64 * 64);
    CHECK(aligned);
    memcpy(aligned, file, size);
    free(file);
    GOOD(megabyte_model_open_memory(&w->own, aligned, size, NULL, &w->error));
    GOOD(megabyte_model_verify(w->own, &w->error));
    CALL(megabyte_model_describe(w->own, &w->info));
    CALL(value = megabyte_model_metadata(w->image, "image.tile"));
    CHECK(!strcmp(value, "8x8"));
    CALL(said = megabyte_model_metadata_at(w->image, 0, &value));
    CHECK(said && value);
    CALL(megabyte_model_close(w->own));
    aligned_free(aligned);
    mix(w, &w->info.macs_per_byte, sizeof w->info.macs_per_byte);
    mix(w, &w->info.weight_bytes_per_byte, sizeof w->info.weight_bytes_per_byte);
    CALL(has = megabyte_isa_available(MEGABYTE_ISA_PLAIN));
    CALL(said = megabyte_isa_name(MEGABYTE_ISA_PLAIN));
    CHECK(has && !strcmp(said, "plain"));
    GOOD(megabyte_engine_size(w->text, &how, &n));
    GOOD(megabyte_engine_create(&w->engine, w->text, &how, NULL, &w->error));
    CALL(has = (int)megabyte_engine_isa(w->engine));
    CALL(megabyte_engine_parts(w->engine, w->parts));
    GOOD(megabyte_self_test(MEGABYTE_ISA_PLAIN));
    GOOD(megabyte_self_test(MEGABYTE_ISA_AUTO));
    megabyte_stream_options to = {.engine = w->engine};
    GOOD(megabyte_stream_size(w->text, &to, &n));
    GOOD(megabyte_stream_create(&w->s, w->text, &to, NULL, &w->error));
    GOOD(megabyte_stream_create(&w->t, w->text, &to, NULL, &w->error));
}

static void mix_logits(struct work *w, const megabyte_stream *s) {
    const float *logits;
    CALL(logits = megabyte_stream_logits(s));
    mix(w, logits, 256 * sizeof *logits);
}

static void use_streams(struct work *w) {
    double bits = 0;
    size_t size, lengths[2] = {20, 9};
    megabyte_stream *both[2] = {w->s, w->t};
    const u8 *texts[2] = {w->bytes, w->bytes + 20};
    u64 position;
    CALL(megabyte_stream_reset(w->s));
    CALL(megabyte_stream_reset(w->t));
    GOOD(megabyte_stream_feed(w->s, w->bytes, N));
    mix_logits(w, w->s);
    GOOD(megabyte_stream_step(w->s, 'x'));
    GOOD(megabyte_stream_score(w->t, w->bytes, N, &bits, w->rows));
    mix(w, w->rows, sizeof w->rows);
    GOOD(megabyte_stream_score_bytes(w->t, w->bytes, N, w->each));
    mix(w, w->each, sizeof w->each);
    mix(w, &bits, sizeof bits);
    GOOD(megabyte_stream_step_batch(both, w->bytes, 2));
    GOOD(megabyte_stream_feed_batch(both, texts, lengths, 2));
    CALL(megabyte_stream_probabilities(w->t, w->logits));
    mix(w, w->logits, sizeof w->logits);
    CALL(position = megabyte_stream_position(w->t));
    GOOD(megabyte_stream_rewind(w->t, position - 6));
    mix_logits(w, w->t);
    GOOD(megabyte_stream_copy(w->s, w->t));
    CALL(size = megabyte_stream_save_size(w->s));
    u8 *saved = need(size, 1);
    GOOD(megabyte_stream_save(w->s, saved, size));
    mix(w, saved, size);
    CALL(megabyte_stream_reset(w->s));
    GOOD(megabyte_stream_load(w->s, saved, size));
    free(saved);
    mix_logits(w, w->s);
}

static void write_and_code(struct work *w) {
    megabyte_sampling how = {.temperature = 0.8f,
                             .top_p = 0.9f,
                             .min_p = 0.01f,
                             .top_k = 50,
                             .seed = 5,
                             .repetition_penalty = 1.2f};
    size_t n, length, bound;
    u64 steps;
    u8 byte;
    GOOD(megabyte_stream_sample(w->s, &how, &byte));
    mix(w, &byte, 1);
    const float *logits = megabyte_stream_logits(w->s);
    GOOD(megabyte_logits_sample(logits, 256, w->bytes, 30, &how, &byte));
    mix(w, &byte, 1);
    GOOD(megabyte_stream_generate(w->s, &how, w->back, 60, &n, take_byte, w));
    mix(w, w->back, n);
    CALL(megabyte_stream_draft_counts(w->s, &steps, NULL));
    CALL(megabyte_stream_reset(w->s));
    CALL(megabyte_stream_reset(w->t));
    CALL(bound = megabyte_message_bound(N));
    CHECK(bound < ROOM);
    GOOD(megabyte_stream_encode(w->s, w->bytes, N, w->code, ROOM, &n));
    mix(w, w->code, n);
    GOOD(megabyte_message_length(w->code, n, 0, &length));
    GOOD(megabyte_stream_decode(w->t, w->code, n, w->back, N, &length));
    CHECK(length == N && !memcmp(w->back, w->bytes, N), "a message comes back otherwise");
}

/* Compresses and decompresses, at one call or piecewise. */
static void use_files(struct work *w, const megabyte_model *model, int level) {
    megabyte_codec_options o = {
        .level = level, .threads = w->threads, .verify = 1, .progress = go_on};
    size_t n, taken, given, size;
    u32 block;
    const megabyte_error *error;
    o.progress_context = w;
    CALL(size = megabyte_compress_bound(N));
    CALL(block = megabyte_codec_block_size(&o));
    CHECK(size < ROOM && block);
    GOOD(megabyte_codec_size(model, MEGABYTE_MODE_COMPRESS, &o, &size));
    GOOD(megabyte_codec_create(&w->codec, model, MEGABYTE_MODE_COMPRESS, &o, NULL, &w->error));
    CALL(megabyte_codec_reset(w->codec));
    GOOD(megabyte_codec_push(w->codec, w->bytes, N, &taken));
    GOOD(megabyte_codec_flush(w->codec));
    GOOD(megabyte_codec_finish(w->codec));
    for (n = 0, given = 1; given; n += given)
        GOOD(megabyte_codec_pull(w->codec, w->code + n, ROOM - n, &given));
    CALL(megabyte_codec_statistics(w->codec, &w->counts));
    CALL(error = megabyte_codec_error(w->codec));
    CHECK(!error->status);
    mix(w, &w->counts.ideal_bits, sizeof w->counts.ideal_bits);
    CALL(megabyte_codec_free(w->codec));
    mix(w, w->code, n);
    o.verify = 0;
    GOOD(megabyte_decompress(model, &o, w->code, n, w->back, N, &taken, NULL, &w->error));
    CHECK(taken == N && !memcmp(w->back, w->bytes, N), "level %d: other bytes", level);
    GOOD(megabyte_compress(model, &o, w->bytes, N, w->code, ROOM, &n, NULL, &w->error));
    mix(w, w->code, n);
    GOOD(megabyte_file_header_read(w->code, n, &w->header, &w->error));
}

static void use_codec(struct work *w) {
    megabyte_codec_options o = {.dictionary = w->bytes, .dictionary_size = 70, .room = 48};
    size_t n, length;
    use_files(w, w->text, 7);
    use_files(w, w->text, 5);
    use_files(w, NULL, 2);
    GOOD(megabyte_codec_create(&w->codec, w->text, MEGABYTE_MODE_MESSAGES, &o, NULL, &w->error));
    GOOD(megabyte_codec_encode(w->codec, w->bytes, 50, w->code, ROOM, &n));
    mix(w, w->code, n);
    GOOD(megabyte_codec_decode(w->codec, w->code, n, w->back, N, &length));
    CHECK(length == 50 && !memcmp(w->back, w->bytes, 50), "a record comes back otherwise");
    CALL(megabyte_codec_free(w->codec));
    megabyte_status none;
    CALL(none = megabyte_block_header_read(w->code, 0, &w->header, &w->block, &w->error));
    CHECK_STATUS(none, MEGABYTE_ERROR_TRUNCATED);
}

static void use_pictures(struct work *w) {
    megabyte_image p = {SIDE, SIDE, 3, (size_t)SIDE * 3, w->pixels}, q = p;
    megabyte_image_options o = {.progress = go_on, .progress_context = w};
    size_t bound, n, size;
    u32 at;
    q.pixels = w->seen;
    GOOD(megabyte_image_describe(w->image, &w->tile, &w->error));
    CALL(megabyte_image_scan(&w->tile, w->pixels, (size_t)SIDE * 3, w->code));
    mix(w, w->code, w->tile.tile_bytes);
    CALL(megabyte_image_unscan(&w->tile, w->code, w->seen, (size_t)SIDE * 3));
    CALL(at = megabyte_image_index(&w->tile, 1, 1));
    mix(w, &at, sizeof at);
    CALL(bound = megabyte_image_bound(SIDE, SIDE, 3));
    CHECK(bound <= ROOM);
    GOOD(megabyte_image_memory(w->image, MEGABYTE_MODE_COMPRESS, &o, SIDE, SIDE, 3, &size));
    GOOD(megabyte_image_encode(w->image, &o, &p, w->code, ROOM, &n, NULL, &w->error));
    mix(w, w->code, n);
    GOOD(megabyte_image_header_read(w->code, n, &w->picture, &w->error));
    GOOD(megabyte_image_decode(w->image, &o, w->code, n, &q, NULL, &w->error));
    CHECK(!memcmp(w->pixels, w->seen, sizeof w->pixels), "a picture comes back otherwise");
}

static void close_all(struct work *w) {
    CALL(megabyte_stream_free(w->s));
    CALL(megabyte_stream_free(w->t));
    CALL(megabyte_engine_free(w->engine));
    CALL(megabyte_model_close(w->text));
    CALL(megabyte_model_close(w->image));
}

static struct work *new_work(u32 threads) {
    struct work *w = need(1, sizeof *w);
    w->threads = threads;
    w->hash = 0xcbf29ce484222325u;
    for (u32 i = 0; i < N; i++) w->bytes[i] = (u8) "a rough host, a rough sea"[i % 25];
    for (u32 i = 0; i < SIDE * SIDE * 3; i++) w->pixels[i] = (u8)(i / 3 % SIDE * 9 + i / 40);
    return w;
}

static void use_all(struct work *w) {
    use_streams(w);
    write_and_code(w);
    use_codec(w);
    use_pictures(w);
}
static void *whole_work(void *context) {
    struct work *w = context;
    open_all(w);
    use_all(w);
    close_all(w);
    return NULL;
}

static u64 expected; /* what the work comes to in a quiet place */

static void quiet_place(void) {
    u32 calls = 0;
    for (u32 threads = 1; threads <= 3; threads += 2) {
        struct work *w = new_work(threads);
        whole_work(w);
        CHECK(!expected || w->hash == expected, "%u threads come to another number", threads);
        expected = w->hash;
        calls = w->calls;
        free(w);
    }
    CHECK(calls > 100);
}

/* Each function of megabyte.h is called above; megabyte.h says which there are. */
static void all_functions(void) {
    size_t size, n = 0;
    char *header = (char *)read_file("megabyte.h", &size),
         *here = (char *)read_file("tests/test_hosts.c", &size);
    for (char *p = header; (p = strstr(p, "megabyte_")); p++) {
        size_t length = strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789_");
        char name[80], call[90];
        if (p[length] != '(' || length >= sizeof name) continue;
        memcpy(name, p, length);
        name[length] = 0;
        snprintf(call, sizeof call, "%s(", name);
        CHECK(strstr(here, call), "%s is not called", name);
        n++;
    }
    CHECK(n > 70);
    free(header), free(here);
}

/* ------------------------------------------------------------------- floating-point environment */

#if defined(__x86_64__) || (defined(__i386__) && defined(__SSE__))
static u64 get_control(void) { return _mm_getcsr() & 0xffc0; }
static void set_control(u64 word) { _mm_setcsr((unsigned)word); }
/* flush to zero and denormals are zero; down, up, towards zero; everything trapping */
static const u64 controls[] = {0x9fc0, 0x3f80, 0x5f80, 0x7f80, 0xffc0, 0xe040};
#elif defined(__aarch64__)
static u64 get_control(void) {
    u64 word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word & 7u << 22;
}
static void set_control(u64 word) { __asm__ volatile("msr fpcr, %0" : : "r"(word) : "memory"); }
static const u64 controls[] = {1u << 24, 1u << 22, 2u << 22, 3u << 22, 7u << 22};
#else
static u64 get_control(void) { return (u64)fegetround(); }
static void set_control(u64 word) { fesetround((int)word); }
static const u64 controls[] = {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
#endif

static void next_environment(struct work *w) {
    w->word = controls[w->calls % COUNT_OF(controls)];
    set_control(w->word);
}
static void same_environment(struct work *w, const char *call) {
    u64 now = get_control(), was = w->word;
    set_control(w->word);
    CHECK(now == (get_control() & now) && now == get_control(), "%s: %llx became %llx", call,
          (unsigned long long)was, (unsigned long long)now);
}

/* Another environment before each call, found again after it and in the callbacks. */
static void environments_between_calls(void) {
    for (u32 threads = 1; threads <= 2; threads++) {
        fenv_t usual;
        struct work *w = new_work(threads);
        fegetenv(&usual);
        w->before = next_environment;
        w->after = same_environment;
        for (u32 turn = 0; turn < COUNT_OF(controls); turn++) {
            w->hash = 0xcbf29ce484222325u;
            w->calls = turn; /* each call meets each environment */
            whole_work(w);
            CHECK(w->hash == expected, "%u threads, turn %u: other bits", threads, turn);
        }
        fesetenv(&usual);
        free(w);
    }
}

/* --------------------------------------------------------------------------------- small stacks */

/* What the work leaves of a stack of its own; `kept`: bytes that it may take. */
static void stacks(void) {
    enum { SIZE = 1 << 20, SMALL = 64 << 10 };
#if SANITIZED || !defined(__OPTIMIZE__)
    size_t most = SIZE;
#else
    size_t most = 40 << 10;
#endif
    pthread_t thread;
    pthread_attr_t how;
    struct work *w = new_work(2);
    u8 *stack = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t untouched = 0;
    CHECK(stack != MAP_FAILED);
    memset(stack, 0xa5, SIZE);
    CHECK(!pthread_attr_init(&how) && !pthread_attr_setstack(&how, stack, SIZE));
    CHECK(!pthread_create(&thread, &how, whole_work, w) && !pthread_join(thread, NULL));
    while (untouched < SIZE && stack[untouched] == 0xa5) untouched++;
    CHECK(w->hash == expected);
    CHECK(SIZE - untouched <= most, "%zu bytes of stack", SIZE - untouched);
    printf("%zu KB ... ", (SIZE - untouched + 1023) / 1024);
    munmap(stack, SIZE);
    pthread_attr_destroy(&how);
    free(w);
    if (most == SIZE) return;
    w = new_work(2);
    size_t small = (size_t)sysconf(_SC_THREAD_STACK_MIN); /* aarch64: 128 KB */
    if (small < SMALL) small = SMALL;
    CHECK(!pthread_attr_init(&how) && !pthread_attr_setstacksize(&how, small));
    CHECK(!pthread_create(&thread, &how, whole_work, w) && !pthread_join(thread, NULL));
    CHECK(w->hash == expected);
    pthread_attr_destroy(&how);
    free(w);
}

/* -------------------------------------------------------------------------------------- signals */

static volatile sig_atomic_t signals_seen, on_its_stack;
static u8 *alternate;
enum { ALTERNATE = 128 << 10 };
static void disturb(int number) { /* computes, in an environment of its own */
    volatile float x = 1e-39f;
    u8 here;
    (void)number;
    fesetround(FE_UPWARD);
    x = x * 3 + 1 / (x + 7);
    signals_seen++;
    if (&here >= alternate && &here < alternate + ALTERNATE) on_its_stack++;
    /* Returning puts the interrupted code's environment back. ThreadSanitizer calls handlers later,
     * like functions. */
    if (SANITIZED) fesetround(FE_TONEAREST);
}

/* A profiler's signals, on a stack of their own, without SA_RESTART. */
static void alternate_stack(void) {
    struct sigaction action, before;
    stack_t stack, old;
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    alternate = need(ALTERNATE, 1);
    memset(&action, 0, sizeof action);
    memset(&stack, 0, sizeof stack);
    stack.ss_sp = alternate;
    stack.ss_size = ALTERNATE;
    action.sa_handler = disturb;
    action.sa_flags = SA_ONSTACK;
    CHECK(!sigaltstack(&stack, &old) && !sigaction(SIGALRM, &action, &before));
    setitimer(ITIMER_REAL, &often, NULL);
    for (u32 turn = 0; turn < 4 || (signals_seen < 50 && turn < 100); turn++) {
        struct work *w = new_work(1 + turn % 2);
        whole_work(w);
        CHECK(w->hash == expected, "%d signals: other bits", (int)signals_seen);
        free(w);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    CHECK(signals_seen >= 50 && (SANITIZED || on_its_stack == signals_seen),
          "%d signals, %d on the stack", (int)signals_seen, (int)on_its_stack);
    sigaction(SIGALRM, &before, NULL);
    old.ss_flags |= old.ss_sp ? 0 : SS_DISABLE;
    sigaltstack(&old, NULL);
    free(alternate);
}

/* ----------------------------------------------------------------------------------------- fork */

/* How a child ended, which runs `work` and hangs for no longer than a minute. */
static int in_child(void (*work)(void *), void *context) {
    int ended;
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (!child) {
        signal(SIGBUS, SIG_DFL);
        alarm(60);
        work(context);
        fflush(stdout);
        _exit(0);
    }
    while (waitpid(child, &ended, 0) < 0) CHECK(errno == EINTR);
    return ended;
}

static u64 usual_use; /* the number of use_all alone */

static void inherited(void *context) {
    struct work *w = context;
    w->hash = 0;
    use_all(w);
    CHECK(w->hash == usual_use, "a forked child computes other bits");
    close_all(w);
    struct work *own = new_work(2); /* threads again */
    whole_work(own);
    CHECK(own->hash == expected);
    free(own);
}

/* Children inherit what their parent was just using, its threads still spinning or asleep. */
static void forks(void) {
    for (int turn = 0; turn < 8; turn++) {
        struct work *w = new_work(1 + (u32)turn % 3);
        open_all(w);
        w->hash = 0;
        use_all(w);
        if (!usual_use) usual_use = w->hash;
        CHECK(w->hash == usual_use);
        if (turn & 4) nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        int ended = in_child(inherited, w);
        CHECK(WIFEXITED(ended) && !WEXITSTATUS(ended), "turn %d: a child ends with %x", turn,
              (unsigned)ended);
        w->hash = 0; /* and the parent goes on */
        use_all(w);
        CHECK(w->hash == usual_use);
        close_all(w);
        free(w);
    }
}

/* -------------------------------------------------------------------------- files under a model */

static const char cut_file[] = "tests/tmp/hosts-cut.mb";

static u64 model_hash(const megabyte_model *model) {
    struct work *w = new_work(1);
    megabyte_stream *s = new_stream(model, NULL, 0);
    double bits = 0;
    w->hash = 0;
    OK(megabyte_stream_score(s, w->bytes, N, &bits, w->rows));
    mix(w, w->rows, sizeof w->rows);
    u64 hash = w->hash;
    megabyte_stream_free(s);
    free(w);
    return hash;
}
static void score_it(void *model) { model_hash(model); }

/* A program's own handler hears of it, whichever thread it was that read: here the first one waits
 * for the other. */
static int heard; /* atomic */
static void hear_it(int number) {
    (void)number;
    if (!__atomic_fetch_add(&heard, 1, __ATOMIC_RELAXED))
        nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    _exit(77);
}
static void score_with_threads(void *path) {
    megabyte_model *model = open_model(path);
    megabyte_engine *engine = new_engine(model, 2, 0, MEGABYTE_ISA_AUTO);
    megabyte_stream *s = new_stream(model, engine, 0);
    u8 bytes[N] = {0};
    signal(SIGBUS, hear_it);
    CHECK(!truncate(path, 100));
    megabyte_stream_feed(s, bytes, N);
}

/* A model that was read does not need its file; one that was mapped needs what is in it. */
static void truncated_files(void) {
    size_t size;
    u8 *file = read_file(text_file, &size);
    megabyte_model *loaded, *mapped = open_model(text_file);
    u64 usual = model_hash(mapped);
    megabyte_model_close(mapped);
    write_file(cut_file, file, size);
    OK(megabyte_model_load(&loaded, cut_file, NULL, NULL));
    mapped = open_model(cut_file);
    CHECK(model_hash(mapped) == usual);
    write_file("tests/tmp/hosts-other.mb", file, size / 2); /* renamed over it: the mapping stays */
    CHECK(!rename("tests/tmp/hosts-other.mb", cut_file));
    CHECK(model_hash(mapped) == usual, "another file under the name changes a mapped model");
    megabyte_model_close(mapped);
    CHECK(model_hash(loaded) == usual);
    megabyte_model_close(loaded);

    write_file(cut_file, file, size);
    OK(megabyte_model_load(&loaded, cut_file, NULL, NULL));
    mapped = open_model(cut_file);
    CHECK(!truncate(cut_file, 100));
    CHECK(model_hash(loaded) == usual, "a loaded model changes with its file");
    OK(megabyte_model_verify(loaded, NULL));
    int ended = in_child(score_it, mapped);
    CHECK(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGBUS, "a mapping cut off: %x, not SIGBUS",
          (unsigned)ended);
    for (int turn = 0; turn < 3; turn++) {
        static char path[] = "tests/tmp/hosts-other.mb";
        write_file(path, file, size);
        ended = in_child(score_with_threads, path);
        CHECK(WIFEXITED(ended) && WEXITSTATUS(ended) == 77, "a handler of SIGBUS: %x",
              (unsigned)ended);
        CHECK(!remove(path));
    }
    megabyte_model_close(mapped); /* touches nothing of it */
    CHECK(!remove(cut_file));
    CHECK(model_hash(loaded) == usual);
    megabyte_model_close(loaded);
    free(file);
}

/* ---------------------------------------------------------------------------------- cancelling */

static int button, begun, calls_after; /* between threads: atomic */
static int is_armed;
static u64 longest_gap, last_done;

static void *press_it(void *context) {
    (void)context;
    while (!__atomic_load_n(&begun, __ATOMIC_ACQUIRE)) sched_yield();
    __atomic_store_n(&button, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* The callback of a program with a stop button, a flag that another thread sets: here when it has
 * seen the work begin. */
static int wants_stop(u64 done) {
    if (!is_armed) return 0;
    if (done - last_done > longest_gap) longest_gap = done - last_done;
    last_done = done;
    if (done > 200) __atomic_store_n(&begun, 1, __ATOMIC_RELEASE);
    while (done > 1000 && !__atomic_load_n(&button, __ATOMIC_ACQUIRE)) sched_yield();
    int stop = __atomic_load_n(&button, __ATOMIC_ACQUIRE);
    calls_after += stop;
    return stop;
}
static int stop_work(void *context, u64 done) { return (void)context, wants_stop(done); }
static int stop_writing(void *context, u8 byte) {
    u64 *n = context;
    (void)byte;
    return wants_stop(++*n);
}

static pthread_t arm(void) {
    pthread_t thread;
    button = begun = calls_after = 0;
    longest_gap = last_done = 0;
    is_armed = 1;
    CHECK(!pthread_create(&thread, NULL, press_it, NULL));
    return thread;
}
/* The callback that said stop was the last one, and none came long after the one before. */
static void was_stopped(pthread_t thread, const char *what, u64 gap) {
    CHECK(!pthread_join(thread, NULL));
    is_armed = 0;
    CHECK(calls_after == 1, "%s: %d calls after the flag was set", what, calls_after);
    CHECK(longest_gap <= gap, "%s: %llu without a call", what, (unsigned long long)longest_gap);
}

enum { LONG = 12000 };

/* What the model predicts, or words. */
static void make_bytes(const megabyte_model *m, u8 *bytes, size_t n) {
    seed_random(3);
    for (size_t i = 0; i < n; i++) bytes[i] = (u8) "a sea of words "[random_below(15)];
    if (!m) return;
    megabyte_stream *s = new_stream(m, NULL, 0);
    megabyte_sampling cool = {.temperature = 0.3f, .seed = 3};
    OK(megabyte_stream_generate(s, &cool, bytes, n, NULL, NULL, NULL));
    megabyte_stream_free(s);
}

/* gap: bytes that may be coded between two callbacks. */
static void cancel_codec(const megabyte_model *m, int level, u32 size, u64 gap) {
    megabyte_codec_options o = {.level = level, .threads = 2, .size = size, .progress = stop_work};
    u8 *bytes = need(size, 1), *packed = need(size + 100, 1), *again = need(size + 100, 1);
    size_t n, n_again = 0, taken, given;
    megabyte_codec *c;
    name_case("level %d", level);
    make_bytes(m, bytes, size);
    OK(megabyte_compress(m, &o, bytes, size, packed, size + 100, &n, NULL, NULL));
    OK(megabyte_codec_create(&c, m, MEGABYTE_MODE_COMPRESS, &o, NULL, NULL));
    for (int turn = 0; turn < 2; turn++) { /* stopped; then begun anew */
        pthread_t thread = turn ? pthread_self() : arm();
        OK(megabyte_codec_push(c, bytes, size, &taken));
        OK(megabyte_codec_finish(c));
        megabyte_status r = megabyte_codec_pull(c, again, size + 100, &given);
        CHECK_STATUS(r, turn ? MEGABYTE_OK : MEGABYTE_ERROR_CANCELLED);
        n_again = given;
        if (turn) break;
        was_stopped(thread, "compressing", gap);
        CHECK_STATUS(megabyte_codec_pull(c, again, size, &given), MEGABYTE_ERROR_CANCELLED);
        CHECK(megabyte_codec_error(c)->status == MEGABYTE_ERROR_CANCELLED);
        megabyte_codec_reset(c);
    }
    CHECK(n == n_again && !memcmp(packed, again, n),
          "a codec that was stopped and reset writes otherwise");
    megabyte_codec_free(c);
    pthread_t thread = arm();
    CHECK_STATUS(megabyte_decompress(m, &o, packed, n, again, size, &n_again, NULL, NULL),
                 MEGABYTE_ERROR_CANCELLED);
    was_stopped(thread, "decompressing", gap);
    OK(megabyte_decompress(m, &o, packed, n, again, size, &n_again, NULL, NULL));
    CHECK(n_again == size && !memcmp(again, bytes, size));
    free(bytes), free(packed), free(again);
}

static int third_call(void *context, u64 done) {
    u32 *calls = context;
    (void)done;
    return ++*calls == 3;
}
/* Reading a long dictionary is stopped; nothing is left of the codec. */
static void cancel_dictionary(const megabyte_model *m, megabyte_mode mode, int level, size_t size) {
    u8 *bytes = need(size, 1);
    u32 calls = 0;
    counter c = {0};
    megabyte_allocator a = counting(&c);
    megabyte_codec_options o = {.level = level, .progress = third_call};
    megabyte_codec *codec;
    megabyte_error error;
    name_case("a dictionary, level %d", level);
    make_bytes(NULL, bytes, size);
    o.dictionary = bytes;
    o.dictionary_size = size;
    o.progress_context = &calls;
    CHECK_STATUS(megabyte_codec_create(&codec, m, mode, &o, &a, &error), MEGABYTE_ERROR_CANCELLED);
    CHECK(!codec && calls == 3 && !c.live && strstr(error.text, "dictionary"));
    OK(megabyte_codec_create(&codec, m, mode, &o, &a, &error));
    CHECK(calls > 5);
    megabyte_codec_free(codec);
    free(bytes);
}

/* What was written until then is what would have been written; the stream goes on from there. */
static void cancel_generate(const megabyte_model *m) {
    megabyte_engine *engine = new_engine(m, 2, 0, MEGABYTE_ISA_AUTO);
    megabyte_stream *s = new_stream(m, engine, 0), *t = new_stream(m, engine, 0);
    megabyte_sampling how = {.temperature = 1, .seed = 2}, same = how;
    u8 *whole = need(LONG, 1), *part = need(LONG, 1);
    size_t n, rest;
    u64 written = 0;
    name_case("generating");
    pthread_t thread = arm();
    CHECK_STATUS(megabyte_stream_generate(s, &how, part, LONG, &n, stop_writing, &written),
                 MEGABYTE_ERROR_CANCELLED);
    was_stopped(thread, "generating", 1);
    CHECK(n == written && megabyte_stream_position(s) == n);
    OK(megabyte_stream_generate(s, &how, part + n, 50, &rest, NULL, NULL));
    OK(megabyte_stream_generate(t, &same, whole, n + 50, &rest, NULL, NULL));
    CHECK(!memcmp(whole, part, n + 50) && how.seed == same.seed, "other bytes after a stop");
    megabyte_stream_free(s);
    megabyte_stream_free(t);
    megabyte_engine_free(engine);
    free(whole), free(part);
}

/* Scoring and feeding have no callback: they are cut into calls, and the flag is read between. */
static void cancel_score(const megabyte_model *m) {
    megabyte_stream *s = new_stream(m, NULL, 0), *t = new_stream(m, NULL, 0);
    u8 *bytes = need(LONG, 1);
    double bits = 0, whole = 0;
    size_t done = 0;
    name_case("scoring");
    seed_random(4);
    random_bytes(bytes, LONG, 256);
    pthread_t thread = arm();
    for (; !wants_stop(done); done += 96) {
        CHECK(done + 96 <= LONG);
        OK(megabyte_stream_score(s, bytes + done, 96, &bits, NULL));
    }
    was_stopped(thread, "scoring", 96);
    OK(megabyte_stream_score(t, bytes, done, &whole, NULL));
    CHECK(same_floats(megabyte_stream_logits(s), megabyte_stream_logits(t), 256));
    megabyte_stream_free(s);
    megabyte_stream_free(t);
    free(bytes);
}

static void cancel_pictures(const megabyte_model *m) {
    enum { EDGE = 48, SAMPLES = EDGE * EDGE * 3 };
    megabyte_engine *engine = new_engine(m, 2, 0, MEGABYTE_ISA_AUTO);
    megabyte_image p = {EDGE, EDGE, 3, (size_t)EDGE * 3, need(SAMPLES, 1)}, q = p;
    megabyte_image_options o = {.engine = engine, .progress = stop_work};
    size_t room = megabyte_image_bound(EDGE, EDGE, 3), n, n_again;
    u8 *packed = need(room, 1), *again = need(room, 1);
    q.pixels = need(SAMPLES, 1);
    name_case("pictures");
    for (u32 i = 0; i < SAMPLES; i++) p.pixels[i] = (u8)(i / 3 % EDGE * 3 + i / 300);
    OK(megabyte_image_encode(m, &o, &p, packed, room, &n, NULL, NULL));
    pthread_t thread = arm();
    CHECK_STATUS(megabyte_image_encode(m, &o, &p, again, room, &n_again, NULL, NULL),
                 MEGABYTE_ERROR_CANCELLED);
    was_stopped(thread, "encoding", 1024);
    OK(megabyte_image_encode(m, &o, &p, again, room, &n_again, NULL, NULL));
    CHECK(n == n_again && !memcmp(packed, again, n));
    thread = arm();
    CHECK_STATUS(megabyte_image_decode(m, &o, packed, n, &q, NULL, NULL), MEGABYTE_ERROR_CANCELLED);
    was_stopped(thread, "decoding", 1024);
    OK(megabyte_image_decode(m, &o, packed, n, &q, NULL, NULL));
    CHECK(!memcmp(p.pixels, q.pixels, SAMPLES));
    megabyte_engine_free(engine);
    free(p.pixels), free(q.pixels), free(packed), free(again);
}

static void cancelling(void) {
    megabyte_model *text = open_model(text_file), *image = open_model(image_file);
    cancel_codec(text, 5, LONG, 4096);
    cancel_codec(text, 7, LONG, 4096);
    cancel_codec(NULL, 2, 150000, 65536);
    cancel_dictionary(text, MEGABYTE_MODE_COMPRESS, 7, LONG);
    cancel_dictionary(text, MEGABYTE_MODE_MESSAGES, 7, LONG);
    cancel_dictionary(NULL, MEGABYTE_MODE_DECOMPRESS, 2, 350000);
    cancel_generate(text);
    cancel_score(text);
    cancel_pictures(image);
    megabyte_model_close(text);
    megabyte_model_close(image);
}

/* ------------------------------------------------------------------------------ threads, cores */

#if defined(__linux__)
static u32 running_threads(void) { /* of this process; 0 where the system does not say */
    DIR *d = opendir("/proc/self/task");
    u32 n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += e->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

/* As many as there are cores that this thread may use, and the same bits. */
static void more_threads_than_cores(void) {
    megabyte_model *m = open_model(text_file);
    u64 usual = 0;
    u32 before = running_threads();
    cpu_set_t all, one;
    CHECK(!sched_getaffinity(0, sizeof all, &all));
    for (int turn = 0; turn < 2; turn++) {
        u32 cores = turn ? 1 : (u32)CPU_COUNT(&all);
        CPU_ZERO(&one);
        for (size_t i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
            if (CPU_ISSET(i, &all)) CPU_SET(i, &one);
        if (turn && sched_setaffinity(0, sizeof one, &one)) break;
        megabyte_engine *engine = new_engine(m, 8, 0, MEGABYTE_ISA_AUTO);
        u32 threads = MEGABYTE_ALL_THREADS || cores > 8 ? 8 : cores;
        CHECK(!before || running_threads() - before == threads - 1, "%u threads on %u cores",
              running_threads() - before + 1, cores);
        struct work *w = new_work(8);
        whole_work(w);
        CHECK(w->hash == expected && (!usual || usual == w->hash));
        usual = w->hash;
        free(w);
        megabyte_engine_free(engine);
        CHECK(running_threads() == before);
    }
    sched_setaffinity(0, sizeof all, &all);
    megabyte_model_close(m);
}
#else
static void more_threads_than_cores(void) {}
#endif

/* The k-th thread cannot be had: a refusal, nothing is left of the others. */
static void threads_that_fail(void) {
    megabyte_model *m = open_model(text_file);
    megabyte_engine_options how = {.threads = 8};
    megabyte_codec_options alone = {.level = 2, .threads = 8};
    megabyte_error error;
    for (int made = 0, done = 0; !done; made++) {
        counter c = {0};
        megabyte_allocator a = counting(&c);
        megabyte_engine *engine = NULL;
        megabyte_codec *codec = NULL;
        threads_left = made;
        megabyte_status e = megabyte_engine_create(&engine, m, &how, &a, &error);
        CHECK(e == error.status && !e == !error.text[0]);
        threads_left = made;
        megabyte_status r = megabyte_codec_create(&codec, NULL, MEGABYTE_MODE_COMPRESS, &alone, &a,
                                                  &error);
        CHECK(e == r && (!e || e == MEGABYTE_ERROR_UNSUPPORTED), "%d threads: %d, %d", made, e, r);
        done = !e;
        megabyte_engine_free(engine);
        megabyte_codec_free(codec);
        CHECK(!c.live, "%d threads: memory is left", made);
        CHECK(made < 8);
    }
    threads_left = -1;
    megabyte_model_close(m);
}

int main(void) {
    make_tmp();
    write_models();
    GROUP(quiet_place);
    GROUP(all_functions);
    GROUP(environments_between_calls);
    GROUP(stacks);
    GROUP(alternate_stack);
    GROUP(forks);
    GROUP(truncated_files);
    GROUP(cancelling);
    GROUP(more_threads_than_cores);
    GROUP(threads_that_fail);
    return 0;
}
