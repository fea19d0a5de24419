/* context.c - what a byte costs as the context grows: feeds one stream of a model up to its whole
 * context and measures scoring and generating on the way, checks the bits at the far end, prints a
 * Markdown table and draws it. Built and run by context.sh. It includes the library to hear its
 * trace points: they tell attention's time from the feed-forward part's. */
static void traced(unsigned stage, const char *point, unsigned long row);
#define MEGABYTE_API static __attribute__((unused))
#define MEGABYTE_TRACE(stage, layer, point, row, x, n) traced(stage, point, row)
#include "../../megabyte.c"
#include <time.h>

#define POINTS 12
#define PIECE 1024 /* bytes scored at once: a round of 128 patches of 8 */
#define PIECES 8 /* at each point; the median counts */
#define STEPPED 8 /* patches stepped through byte by byte, as well */
#define GENERATED 256 /* bytes beyond position FAR, by sampling */
#define FAR 1000000

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double mark, attention, feed_forward; /* of the global stage; of all stages */

/* The first row passes a point when the phase before it is done: the time since the last point
 * belongs to what lies between them. Phases are ordered, so no two threads are here at once. */
static void traced(unsigned stage, const char *point, unsigned long row) {
    if (row) return;
    double t = now();
    if (*point == 'a' && !stage) attention += t - mark;
    if (*point == 'f') feed_forward += t - mark;
    mark = t;
}

static _Noreturn void stop(const char *what, const char *why) {
    fprintf(stderr, "context: %s: %s\n", what, why);
    exit(1);
}
static void need(megabyte_status r, const char *what) {
    if (r) stop(what, megabyte_status_string(r));
}

static double resident(void) { /* bytes; 0 where the system doesn't say */
    unsigned long pages = 0, all;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f && fscanf(f, "%lu %lu", &all, &pages) != 2) pages = 0;
    if (f) fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return (v[(n - 1) / 2] + v[n / 2]) / 2;
}

struct point {
    double context; /* bytes, in the middle of what was scored */
    double score, attention, feed_forward; /* microseconds per byte */
    double step, step_attention;
    double memory, keys; /* bytes: resident since the stream was made; keys and values */
};

static u64 random_state = 1;
static void random_bytes(u8 *to, u64 n) {
    for (u64 i = 0; i < n; i++) to[i] = (u8)(next_random(&random_state) >> 56);
}

static void feed_to(megabyte_stream *s, u64 position) {
    u8 bytes[4096];
    while (s->position < position) {
        u64 n = min64(position - s->position, sizeof bytes);
        random_bytes(bytes, n);
        need(megabyte_stream_feed(s, bytes, (size_t)n), "feeding");
    }
}

/* Scores pieces from here, then steps; `empty`: each piece is a document's beginning. */
static struct point measure(megabyte_stream *s, int empty, double before) {
    double v[5][PIECES > STEPPED ? PIECES : STEPPED], bits = 0;
    u8 bytes[PIECE];
    struct point p = {(double)s->position + (empty ? 1 : PIECES) * PIECE / 2, 0, 0, 0, 0, 0, 0, 0};
    for (int i = 0; i < PIECES; i++) {
        random_bytes(bytes, PIECE);
        if (empty) megabyte_stream_reset(s);
        attention = feed_forward = 0;
        double start = now();
        need(megabyte_stream_score(s, bytes, PIECE, &bits, NULL), "scoring");
        v[0][i] = now() - start;
        v[1][i] = attention;
        v[2][i] = feed_forward;
    }
    u64 patch = s->engine->model->stage[0].bytes;
    for (int i = 0; i < STEPPED; i++) {
        random_bytes(bytes, patch);
        attention = 0;
        double start = now();
        for (u64 b = 0; b < patch; b++) need(megabyte_stream_step(s, bytes[b]), "stepping");
        v[3][i] = now() - start;
        v[4][i] = attention;
    }
    p.score = 1e6 / PIECE * median(v[0], PIECES);
    p.attention = 1e6 / PIECE * median(v[1], PIECES);
    p.feed_forward = 1e6 / PIECE * median(v[2], PIECES);
    p.step = 1e6 / (double)patch * median(v[3], STEPPED);
    p.step_attention = 1e6 / (double)patch * median(v[4], STEPPED);
    p.memory = resident() - before;
    u64 keys = 0;
    each_block(s->engine->model->stage, &s->global, 0, (s->tokens + patch - 1) / patch, count_span,
               &keys);
    p.keys = (double)keys;
    return p;
}

/* ---- the far end */

static void same(const float *a, const float *b, size_t n, const char *what) {
    if (memcmp(a, b, n * sizeof *a)) stop(what, "the logits are other bits");
}

/* From the same state, TAIL bytes: scored in one piece; stepped, after a short rewind; and
 * loaded and stepped with every instruction set and one or two threads. The stream comes back as
 * it was. */
static void check_bits(megabyte_stream *s, const megabyte_model *model) {
    enum { TAIL = 64, BACK = 40 };
    u32 V = model->sizes.vocabulary;
    u8 tail[TAIL];
    size_t size = megabyte_stream_save_size(s);
    u8 *saved = malloc(size);
    float *row = malloc((TAIL + 1) * V * sizeof *row);
    if (!saved || !row) stop("checking", "out of memory");
    double t = now(), bits = 0;
    need(megabyte_stream_save(s, saved, size), "saving");
    printf("saved at %llu: %.1f MB in %.0f ms", (unsigned long long)s->position,
           1e-6 * (double)size, 1e3 * (now() - t));
    random_bytes(tail, TAIL);
    need(megabyte_stream_score(s, tail, TAIL, &bits, row), "scoring");
    memcpy(row + TAIL * V, s->logits, V * sizeof *row);
    t = now();
    need(megabyte_stream_rewind(s, s->position - BACK), "rewinding");
    double rewound = now() - t;
    for (u32 i = TAIL - BACK;; i++) {
        same(s->logits, row + i * V, V, "rewound and stepped");
        if (i == TAIL) break;
        need(megabyte_stream_step(s, tail[i]), "stepping");
    }
    t = now();
    need(megabyte_stream_load(s, saved, size), "loading");
    printf(", loaded in %.0f ms; rewound by %d bytes in %.1f ms\n", 1e3 * (now() - t), BACK,
           1e3 * rewound);
    same(s->logits, row, V, "loaded");
    printf("the same bits, scoring %d bytes in one piece and stepping them loaded:", TAIL);
    for (int isa = MEGABYTE_ISA_PLAIN; isa <= MEGABYTE_ISA_SIMD128; isa++)
        for (u32 threads = 1; threads <= 2 && megabyte_isa_available((megabyte_isa)isa);
             threads++) {
            megabyte_engine_options how = {threads, 0, (megabyte_isa)isa};
            megabyte_stream_options on = {NULL, 0, NULL};
            megabyte_stream *other;
            need(megabyte_engine_create(&on.engine, model, &how, NULL, NULL), "engine");
            need(megabyte_stream_create(&other, model, &on, NULL, NULL), "stream");
            need(megabyte_stream_load(other, saved, size), "loading");
            for (u32 i = 0;; i++) {
                same(other->logits, row + i * V, V, "loaded and stepped");
                if (i == TAIL) break;
                need(megabyte_stream_step(other, tail[i]), "stepping");
            }
            printf(" %s x %u", megabyte_isa_name((megabyte_isa)isa), threads);
            fflush(stdout);
            megabyte_stream_free(other);
            megabyte_engine_free(on.engine);
        }
    printf("\n");
    free(saved);
    free(row);
}

static void generate(megabyte_stream *s) {
    megabyte_sampling how = {1.0f, 0, 0.95f, 0, 0, 0, 1};
    u8 bytes[GENERATED];
    double bits = 0, t = now();
    u64 from = s->position;
    for (int i = 0; i < GENERATED; i++) {
        need(megabyte_stream_sample(s, &how, &bytes[i]), "sampling");
        need(megabyte_stream_step(s, bytes[i]), "stepping");
    }
    printf("%d bytes generated from position %llu on, %.0f bytes/s\n", GENERATED,
           (unsigned long long)from, GENERATED / (now() - t));
    t = now();
    need(megabyte_stream_score(s, bytes, GENERATED, &bits, NULL), "scoring");
    printf("the same %d bytes scored after them, %.0f bytes/s, %.2f bits per byte\n", GENERATED,
           GENERATED / (now() - t), bits / GENERATED);
}

/* ---- the table and the picture */

static double score_of(const struct point *p) { return p->score; }
static double step_of(const struct point *p) { return p->step; }
static double feed_forward_of(const struct point *p) { return p->feed_forward; }

/* a + b T through the first and the last point: attention reads T / P positions for each patch of P
 * bytes, so a byte's time has one part that is constant and one proportional to T. */
struct line {
    double a, b;
};
static struct line fit(const struct point *p, int n, double (*of)(const struct point *)) {
    double b = (of(&p[n - 1]) - of(&p[0])) / (p[n - 1].context - p[0].context);
    struct line l = {of(&p[0]) - b * p[0].context, b};
    return l;
}

static void print_table(const struct point *p, int n) {
    struct line score = fit(p, n, score_of), step = fit(p, n, step_of);
    printf("\n| context, bytes | scoring, us/byte | a + b T | of it attention | feed-forward | "
           "generating, us/byte | a + b T | resident, MB | of it keys and values |\n"
           "|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for (int i = 0; i < n; i++, p++)
        printf("| %.0f | %.1f | %.1f | %.1f | %.2f | %.1f | %.1f | %.1f | %.1f |\n", p->context,
               p->score, score.a + score.b * p->context, p->attention, p->feed_forward, p->step,
               step.a + step.b * p->context, 1e-6 * p->memory, 1e-6 * p->keys);
    printf("\n");
}

#define WIDTH 640
#define HEIGHT 380
#define LEFT 64
#define RIGHT 500 /* names of the curves behind it */
#define TOP 30
#define BOTTOM 320
struct axes {
    double x0, x1, y0, y1;
}; /* log2 */
static double x_of(const struct axes *a, double v) {
    return LEFT + (log2(v) - a->x0) / (a->x1 - a->x0) * (RIGHT - LEFT);
}
static double y_of(const struct axes *a, double v) {
    return BOTTOM - (log2(v) - a->y0) / (a->y1 - a->y0) * (BOTTOM - TOP);
}

static void curve(FILE *f, const struct axes *a, const struct point *p, int n,
                  double (*of)(const struct point *), const char *colour, const char *name,
                  int fitted) {
    fprintf(f, "<g fill=\"none\" stroke=\"%s\" stroke-width=\"2\"><polyline points=\"", colour);
    for (int i = 0; i < n; i++) fprintf(f, "%.1f,%.1f ", x_of(a, p[i].context), y_of(a, of(&p[i])));
    fprintf(f, "\"/>\n");
    if (fitted) {
        struct line l = fit(p, n, of);
        fprintf(
            f, "<polyline stroke-width=\"1.5\" stroke-dasharray=\"3 4\" stroke=\"#888\" points=\"");
        for (double x = log2(p[0].context); x < log2(p[n - 1].context) + 0.2; x += 0.25) {
            double t = exp2(x) < p[n - 1].context ? exp2(x) : p[n - 1].context;
            fprintf(f, "%.1f,%.1f ", x_of(a, t), y_of(a, l.a + l.b * t));
        }
        fprintf(f, "\"/>\n");
    }
    for (int i = 0; i < n; i++)
        fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\" fill=\"%s\"/>\n",
                x_of(a, p[i].context), y_of(a, of(&p[i])), colour);
    fprintf(f, "</g><text x=\"%d\" y=\"%.1f\" style=\"fill:%s\">%s</text>\n", RIGHT + 10,
            y_of(a, of(&p[n - 1])) + 4, colour, name);
}

/* No background and middle tones: to be read on light and on dark pages. */
static void draw(const char *path, const struct point *p, int n) {
    FILE *f = fopen(path, "w");
    if (!f) stop(path, "cannot be written");
    struct axes a = {floor(log2(p[0].context)), ceil(log2(p[n - 1].context)), 1e9, -1e9};
    for (int i = 0; i < n; i++) {
        const double v[3] = {log2(p[i].score), log2(p[i].step), log2(p[i].feed_forward)};
        for (int k = 0; k < 3; k++) {
            if (v[k] - 0.3 < a.y0) a.y0 = floor(v[k] - 0.3);
            if (v[k] > a.y1) a.y1 = ceil(v[k]);
        }
    }
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
            "height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"
            "<style>text{fill:#888}</style>\n"
            "<title>Time per byte against context length</title>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT);
    for (double x = a.x0; x <= a.x1; x++) {
        double at = x_of(&a, exp2(x)), kilo = exp2(x - 10);
        fprintf(f,
                "<path d=\"M%.1f %dV%d\" stroke=\"#888\" stroke-opacity=\".3\"/>"
                "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g%s</text>\n",
                at, TOP, BOTTOM, at, BOTTOM + 18,
                kilo < 1      ? kilo * 1024
                : kilo < 1024 ? kilo
                              : kilo / 1024,
                kilo < 1      ? ""
                : kilo < 1024 ? "K"
                              : "M");
    }
    for (double y = a.y0; y <= a.y1; y++)
        fprintf(f,
                "<path d=\"M%d %.1fH%d\" stroke=\"#888\" stroke-opacity=\".3\"/>"
                "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n",
                LEFT, y_of(&a, exp2(y)), RIGHT, LEFT - 8, y_of(&a, exp2(y)) + 4, exp2(y));
    curve(f, &a, p, n, step_of, "#d9730d", "generating", 1);
    curve(f, &a, p, n, score_of, "#2f81f7", "scoring", 1);
    curve(f, &a, p, n, feed_forward_of, "#2da44e", "of it feed-forward", 0);
    fprintf(f,
            "<text x=\"%d\" y=\"18\">microseconds per byte</text>\n"
            "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">context, bytes; dashed: a + b T, as "
            "T\302\262/P\302\262 attention predicts</text>\n</svg>\n",
            LEFT - 40, (LEFT + RIGHT) / 2, BOTTOM + 44);
    if (fclose(f)) stop(path, "cannot be written");
}

int main(int argc, char **argv) {
    megabyte_model *model;
    megabyte_error error;
    megabyte_stream_options on = {NULL, 0, NULL};
    megabyte_stream *s;
    struct point point[POINTS];
    int n = 0;
    if (argc < 2) return fprintf(stderr, "usage: context MODEL.mb [THREADS [OUT.svg]]\n"), 2;
    if (megabyte_model_open(&model, argv[1], NULL, &error)) stop(argv[1], error.text);
    megabyte_engine_options how = {argc > 2 ? (u32)atoi(argv[2]) : 2, 0, MEGABYTE_ISA_AUTO};
    if (megabyte_engine_create(&on.engine, model, &how, NULL, &error)) stop("engine", error.text);
    double before = resident();
    if (megabyte_stream_create(&s, model, &on, NULL, &error)) stop("stream", error.text);
    const struct stage *g = model->stage;
    u64 whole = g->bytes * g->size.positions, measured = PIECES * PIECE + STEPPED * g->bytes;
    printf("%llu bytes of context, patches of %llu; global %u wide, %u layers, %u x %u heads; "
           "local %u wide, %u layers; %s, %u threads\n",
           (unsigned long long)whole, (unsigned long long)g->bytes, g->size.dim, g->size.layers,
           g->size.heads, g->size.head_dim, g[1].size.dim, g[1].size.layers,
           megabyte_isa_name(on.engine->kernels.isa), how.threads);
    fflush(stdout);
    double start = now();
    point[n++] = measure(s, 1, before);
    for (u64 at = 8192; n < POINTS - 1 && at + 2 * measured < whole; at *= 2) {
        feed_to(s, at - PIECES * PIECE / 2);
        point[n++] = measure(s, 0, before);
        fprintf(stderr, "%8llu bytes, %.0f s\n", (unsigned long long)s->position, now() - start);
    }
    if (whole > FAR + 2 * GENERATED + measured) {
        feed_to(s, FAR);
        fprintf(stderr, "%8llu bytes, %.0f s\n", (unsigned long long)s->position, now() - start);
        generate(s);
        check_bits(s, model);
    }
    feed_to(s, whole - measured); /* which ends where the stream would slide */
    point[n++] = measure(s, 0, before);
    printf("%llu bytes, all in all, in %.0f s\n", (unsigned long long)s->position, now() - start);
    print_table(point, n);
    if (argc > 3) draw(argv[3], point, n);
    megabyte_stream_free(s);
    megabyte_engine_free(on.engine);
    megabyte_model_close(model);
    return 0;
}
