/* copies.c - two copies of the library in one program: one linked into it, its names exported, the
 * other in a shared library that is opened when it runs. Threads of both work on two models at
 * once; the bits are the same. Built and run by cli_hosts.sh:
 *
 *     copies LIBRARY MODEL MODEL
 *
 * With -DFOREIGN the program has functions of the library's names that are something else: the
 * shared library must not call them. */
#define _GNU_SOURCE
#include "../megabyte.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COPIES = 2, MODELS = 2, N = 600, MOST = 2 * COPIES * MODELS };

/* What is used of a copy. */
#define EACH(F)      \
    F(model_load)    \
    F(model_close)   \
    F(engine_create) \
    F(engine_free)   \
    F(stream_create) \
    F(stream_free)   \
    F(stream_score)  \
    F(compress)      \
    F(decompress)    \
    F(self_test)
struct copy {
#define FIELD(name) __typeof__(&megabyte_##name) name;
    EACH(FIELD)
};

struct task {
    const struct copy *library;
    const char *path;
    uint64_t hash;
};

static void need(int good, const char *what) {
    if (good) return;
    printf("copies: %s\n", what);
    exit(1);
}

static void mix(uint64_t *hash, const void *data, size_t n) { /* FNV-1a */
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++) *hash = (*hash ^ p[i]) * 0x100000001b3u;
}

static void *work(void *context) {
    struct task *t = context;
    const struct copy *l = t->library;
    megabyte_model *model;
    megabyte_engine *engine;
    megabyte_stream *stream;
    megabyte_error error;
    unsigned char bytes[N], packed[2 * N], back[N];
    size_t n, n_back;
    double bits = 0;
    for (int i = 0; i < N; i++) bytes[i] = (unsigned char)("one copy and another copy, "[i % 27]);
    need(!l->model_load(&model, t->path, NULL, &error), error.text);
    megabyte_engine_options how = {.threads = 2};
    need(!l->engine_create(&engine, model, &how, NULL, &error), error.text);
    megabyte_stream_options options = {.engine = engine};
    need(!l->stream_create(&stream, model, &options, NULL, &error), error.text);
    need(!l->stream_score(stream, bytes, N, &bits, NULL), "score");
    t->hash = 0xcbf29ce484222325u;
    mix(&t->hash, &bits, sizeof bits);
    need(!l->compress(model, NULL, bytes, N, packed, sizeof packed, &n, NULL, &error), error.text);
    mix(&t->hash, packed, n);
    need(!l->decompress(model, NULL, packed, n, back, N, &n_back, NULL, &error), error.text);
    need(n_back == N && !memcmp(bytes, back, N), "other bytes come back");
    need(!l->self_test(MEGABYTE_ISA_AUTO), "self-test");
    l->stream_free(stream);
    l->engine_free(engine);
    l->model_close(model);
    return NULL;
}

#ifdef FOREIGN
static void strange(const char *name) {
    printf("copies: the library calls the program's megabyte_%s\n", name);
    exit(1);
}
#define OWN(name)                                     \
    void own_##name(void) __asm__("megabyte_" #name); \
    void own_##name(void) { strange(#name); }
EACH(OWN)
OWN(stream_feed)
OWN(stream_step)
OWN(stream_copy)
OWN(stream_reset)
OWN(codec_create)
OWN(codec_push)
OWN(codec_pull)
OWN(codec_finish)
OWN(codec_free)
OWN(codec_reset)
OWN(engine_size)
OWN(model_open_memory)
#endif

static struct copy linked_copy(void) {
    struct copy c;
#define LINKED(name) c.name = megabyte_##name;
    EACH(LINKED)
    return c;
}

static struct copy opened_copy(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL), *found;
    struct copy c;
    need(library != NULL, "dlopen");
#define OPENED(name)                           \
    found = dlsym(library, "megabyte_" #name); \
    need(found != NULL, "no megabyte_" #name); \
    memcpy(&c.name, &found, sizeof found);
    EACH(OPENED)
    return c;
}

int main(int argc, char **argv) {
    need(argc == 4, "usage: copies LIBRARY MODEL MODEL");
    struct copy copy[COPIES] = {linked_copy(), opened_copy(argv[1])};
    struct task task[MOST];
    pthread_t thread[MOST];
    int n = 0, first = 0;
#ifdef FOREIGN
    first = 1;
#else
    need(copy[0].stream_score != copy[1].stream_score, "there is one copy only");
#endif
    for (int twice = 0; twice < 2; twice++)
        for (int c = first; c < COPIES; c++)
            for (int m = 0; m < MODELS; m++)
                task[n++] = (struct task){.library = &copy[c], .path = argv[2 + m]};
    for (int i = 0; i < n; i++)
        need(!pthread_create(&thread[i], NULL, work, &task[i]), "pthread_create");
    for (int i = 0; i < n; i++) need(!pthread_join(thread[i], NULL), "pthread_join");
    for (int i = 0; i < n; i++)
        need(task[i].hash == task[i % MODELS].hash, "the copies compute other bits");
    need(task[0].hash != task[1].hash, "two models, one answer");
    return 0;
}
