/* mbconvert.c - makes a model file (.mb) from a checkpoint: safetensors or PyTorch's own files, of
 * the families in section 6. SPDX-License-Identifier: MIT (text at the end of megabyte.h)
 *
 *     cc -O2 -o mbconvert tools/mbconvert.c -lm
 *
 * It includes megabyte.c, so that writer and reader share one description of the file: struct
 * sizes, each_tensor, check_sizes, tensor_data_bytes, the little-endian accessors and SHA-256. In
 * words, the file is described in models/README.md.
 *
 * What happens, in reading order below:
 *    1 messages      one way to fail: say what and why, remove the temporary file, exit
 *    2 JSON          a strict pull parser, for the checkpoint's header and the configuration
 *    3 checkpoint    its tensors, checked before anything is believed; the safetensors file
 *    4 PyTorch files zip and pickle: the same table of tensors, without executing anything 5
 *    configuration the constructors' arguments and the texts, from .json files and the command line
 *    6 families      tables of where each of the model's tensors comes from; names and arguments ->
 *                    stages, layers and sizes; what is missing, left over or contradictory; the
 *                    tensors' rows
 *    7 quantization  rows of floats -> tiles of 16 rows, f32 or int8
 *    8 model file    header, stages, table, metadata, data; written beside OUT, checked, renamed
 *    9 command line
 *
 * The checkpoint is hostile until proved otherwise. Only its tables are held in memory, and the
 * tensors that the one being written is made of. */
#define _FILE_OFFSET_BITS 64 /* files beyond 2 GiB on 32-bit systems */
#define MEGABYTE_KEEP_OPTIONS /* quantization, too, must give the same bytes under -Ofast */
#include "../megabyte.c"
#include <errno.h>
#include <limits.h>
#include <signal.h>

#if defined(__GNUC__)
#define PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define PRINTF(text, first)
#endif

typedef long long ll;
typedef unsigned long long ull; /* for printf */

/* ================================================================================== 1 messages */

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static int quiet; /* -q: errors only */
static char temporary_path[4096]; /* what an early end must remove ... */
static volatile sig_atomic_t temporary_exists; /* ... if it is there */

static void remove_temporary(void) {
    if (temporary_exists) {
        temporary_exists = 0;
#if HAVE_MMAP
        unlink(temporary_path); /* unlike remove, allowed in a signal handler */
#else
        remove(temporary_path);
#endif
    }
}

static void on_signal(int number) {
    remove_temporary();
    signal(number, SIG_DFL);
    raise(number); /* so that the parent sees why we ended */
}

/* Texts of a checkpoint reach the terminal through here: control characters (C1 in UTF-8, too)
 * become '?'. */
static void print_line(const char *what, const char *prefix, const char *format, va_list args) {
    char line[4096];
    int n = snprintf(line, sizeof line, "%.300s: %s", what, prefix);
    if (n < 0 || n >= (int)sizeof line) n = 0;
    vsnprintf(line + n, sizeof line - (size_t)n, format, args);
    for (u8 *p = (u8 *)line; *p; p++) {
        if (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0) *p = '?', p[1] = '?';
        if (*p < 0x20 || *p == 0x7f) *p = '?';
    }
    fprintf(stderr, "mbconvert: %s\n", line);
}

/* `what` is the file or option that the message is about. */
_Noreturn PRINTF(2, 3) static void die(const char *what, const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_line(what, "", format, args);
    va_end(args);
    remove_temporary();
    exit(EXIT_FAILED);
}

_Noreturn PRINTF(2, 3) static void die_usage(const char *what, const char *format, ...) {
    va_list args;
    va_start(args, format);
    print_line(what, "", format, args);
    va_end(args);
    fputs("try: mbconvert --help\n", stderr);
    exit(EXIT_USAGE);
}

PRINTF(2, 3) static void warn(const char *what, const char *format, ...) {
    if (quiet) return;
    va_list args;
    va_start(args, format);
    print_line(what, "warning: ", format, args);
    va_end(args);
}

PRINTF(2, 3) static void note(const char *what, const char *format, ...) {
    if (quiet) return;
    va_list args;
    va_start(args, format);
    print_line(what, "", format, args);
    va_end(args);
}

/* A list of names for a message: the first ten, then a count. */
struct names {
    u32 count;
    char text[1536];
};

static void add_name(struct names *list, const char *name) {
    size_t used = strlen(list->text);
    if (list->count++ < 10)
        snprintf(list->text + used, sizeof list->text - used, "%s%.120s", used ? ", " : "", name);
}
static const char *show_names(struct names *list) {
    size_t used = strlen(list->text);
    if (list->count > 10)
        snprintf(list->text + used, sizeof list->text - used, " and %u more", list->count - 10);
    return list->text;
}

/* Memory is given back by the exit of the process. */
static void *allocate(u64 count, size_t size) {
    void *p = count <= SIZE_MAX / size ? calloc(count ? (size_t)count : 1, size) : NULL;
    if (!p) die("memory", "cannot allocate %llu x %zu bytes", (ull)count, size);
    return p;
}

/* Seeking with 64 bits is the one thing that C11 leaves to the system. */
static int seek(FILE *f, u64 to) {
    if (to > INT64_MAX) return -1;
#if HAVE_MMAP
    return fseeko(f, (off_t)to, SEEK_SET);
#elif defined(_WIN32)
    return _fseeki64(f, (ll)to, SEEK_SET);
#else
    return to <= LONG_MAX ? fseek(f, (long)to, SEEK_SET) : -1;
#endif
}
static ll file_size(FILE *f) { /* -1: it cannot be told, as with pipes */
#if HAVE_MMAP
    return fseeko(f, 0, SEEK_END) ? -1 : (ll)ftello(f);
#elif defined(_WIN32)
    return _fseeki64(f, 0, SEEK_END) ? -1 : _ftelli64(f);
#else
    return fseek(f, 0, SEEK_END) ? -1 : ftell(f);
#endif
}

/* ================================================================================== 2 JSON */

/* A pull parser: the caller says what it expects next. RFC 8259 to the letter, with UTF-8 checked,
 * nesting bounded and NUL in strings refused. Strings are decoded in place (an escape is never
 * shorter than what it stands for) and end in NUL: parsing allocates nothing. The text must be
 * writable and end in NUL, too. */
#define JSON_DEPTH 32
struct json {
    char *at, *end;
    const char *start, *file, *about;
    u32 depth;
}; /* about: an argument, or NULL */

static struct json json_begin(char *text, u64 size, const char *file) {
    struct json j = {text, text + size, text, file, NULL, 0};
    return j;
}

_Noreturn static void json_die(const struct json *j, const char *why) {
    die(j->file, "JSON, byte %llu: %s%s%s", (ull)(j->at - j->start), j->about ? j->about : "",
        j->about ? ": " : "", why);
}

/* Length of the UTF-8 sequence at p, of at most n bytes; 0 if it is not one (Unicode 15, table
 * 3-7). */
static u32 utf8_sequence(const u8 *p, u64 n) {
    u32 length = p[0] < 0x80   ? 1
                 : p[0] < 0xc2 ? 0
                 : p[0] < 0xe0 ? 2
                 : p[0] < 0xf0 ? 3
                 : p[0] < 0xf5 ? 4
                               : 0;
    if (!length || length > n) return 0;
    for (u32 i = 1; i < length; i++)
        if (p[i] >> 6 != 2) return 0;
    if (p[0] == 0xe0 && p[1] < 0xa0) return 0; /* could be shorter */
    if (p[0] == 0xed && p[1] > 0x9f) return 0; /* surrogates */
    if (p[0] == 0xf0 && p[1] < 0x90) return 0; /* could be shorter */
    if (p[0] == 0xf4 && p[1] > 0x8f) return 0; /* beyond U+10FFFF */
    return length;
}

static char json_peek(struct json *j) {
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
        j->at++;
    return *j->at; /* NUL at the end */
}

/* for (int first = (json_open(j, '['), 1); json_more(j, ']', &first);) ...one value... */
static void json_open(struct json *j, char bracket) {
    if (json_peek(j) != bracket)
        json_die(j, bracket == '{' ? "expected an object, { ... }" : "expected a list, [ ... ]");
    if (++j->depth > JSON_DEPTH) json_die(j, "nested too deeply");
    j->at++;
}
static int json_more(struct json *j, char bracket, int *first) {
    char c = json_peek(j);
    if (c == bracket) {
        j->at++;
        j->depth--;
        return 0;
    }
    if (!*first) {
        if (c != ',') json_die(j, bracket == '}' ? "expected , or }" : "expected , or ]");
        j->at++;
        if (json_peek(j) == bracket) json_die(j, "a comma with nothing behind it");
    }
    *first = 0;
    return 1;
}

static u32 json_hex4(struct json *j) {
    u32 v = 0;
    for (int i = 0; i < 4; i++, j->at++) { /* the NUL at the end is no digit */
        char c = *j->at;
        u32 digit = c >= '0' && c <= '9'   ? (u32)(c - '0')
                    : c >= 'a' && c <= 'f' ? (u32)(c - 'a' + 10)
                    : c >= 'A' && c <= 'F' ? (u32)(c - 'A' + 10)
                                           : 16;
        if (digit == 16) json_die(j, "expected 4 hexadecimal digits after \\u");
        v = v << 4 | digit;
    }
    return v;
}

static char *json_escape(struct json *j, char *out) { /* j->at is behind the backslash */
    static const char codes[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    char c = *j->at;
    const char *known = c ? strchr(codes, c) : NULL;
    if (known) {
        j->at++;
        *out++ = means[known - codes];
        return out;
    }
    if (c != 'u') json_die(j, "unknown escape in a string");
    j->at++;
    u32 v = json_hex4(j);
    if (v >= 0xd800 && v < 0xdc00 && j->at[0] == '\\' && j->at[1] == 'u') {
        j->at += 2;
        u32 low = json_hex4(j);
        if (low < 0xdc00 || low > 0xdfff) json_die(j, "half a surrogate pair in a string");
        v = 0x10000 + ((v - 0xd800) << 10) + (low - 0xdc00);
    }
    if (v == 0 || (v >= 0xd800 && v < 0xe000))
        json_die(j, "NUL or half a surrogate pair in a string");
    if (v < 0x80) {
        *out++ = (char)v;
    } else {
        u32 more = v < 0x800 ? 1 : v < 0x10000 ? 2 : 3;
        *out++ = (char)(u8)(0xf00u >> (more + 1) |
                            v >> 6 * more); /* 110xxxxx, 1110xxxx, 11110xxx */
        while (more--) *out++ = (char)(u8)(0x80 | (v >> 6 * more & 0x3f));
    }
    return out;
}

static char *json_string(struct json *j) {
    if (json_peek(j) != '"') json_die(j, "expected a string");
    char *s = ++j->at, *out = s;
    while (*j->at != '"') {
        if ((u8)*j->at < 0x20) json_die(j, "a string without end, or a control character in it");
        if (*j->at == '\\') {
            j->at++;
            out = json_escape(j, out);
        } else {
            u32 n = utf8_sequence((const u8 *)j->at, (u64)(j->end - j->at));
            if (!n) json_die(j, "a string that is not UTF-8");
            memmove(out, j->at, n);
            out += n;
            j->at += n;
        }
    }
    j->at++;
    *out = 0;
    return s;
}

static char *json_key(struct json *j) {
    char *key = json_string(j);
    if (json_peek(j) != ':') json_die(j, "expected :");
    j->at++;
    return key;
}

/* Steps over a number and returns where it starts. */
static const char *json_number(struct json *j) {
    json_peek(j);
    const char *start = j->at;
    if (*j->at == '-') j->at++;
    if (*j->at < '0' || *j->at > '9') json_die(j, "expected a value");
    if (*j->at == '0') j->at++;
    else
        while (*j->at >= '0' && *j->at <= '9') j->at++;
    if (*j->at == '.') {
        j->at++;
        if (*j->at < '0' || *j->at > '9') json_die(j, "expected a digit");
        while (*j->at >= '0' && *j->at <= '9') j->at++;
    }
    if (*j->at == 'e' || *j->at == 'E') {
        j->at++;
        if (*j->at == '+' || *j->at == '-') j->at++;
        if (*j->at < '0' || *j->at > '9') json_die(j, "expected a digit");
        while (*j->at >= '0' && *j->at <= '9') j->at++;
    }
    return start;
}

/* Sizes and offsets of the checkpoint: decimal digits, nothing else. */
static u64 json_u64(struct json *j) {
    u64 v = 0;
    for (const char *p = json_number(j); p < j->at; p++) {
        u32 digit = (u32)(*p - '0');
        if (digit > 9) json_die(j, "expected a whole number that is not negative");
        if (v > (UINT64_MAX - digit) / 10) json_die(j, "a number beyond 64 bits");
        v = v * 10 + digit;
    }
    return v;
}

/* Arguments of the configuration: 4 and 4.0 alike. */
static ll json_whole(struct json *j) {
    double v = strtod(json_number(j), NULL);
    if (!(v >= INT32_MIN && v <= INT32_MAX) || v != floor(v))
        json_die(j, "expected a whole number of 32 bits");
    return (ll)v;
}

static int json_word(struct json *j,
                     const char *word) { /* true, false, null: taken if it stands there */
    size_t n = strlen(word);
    json_peek(j);
    if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n)) return 0;
    j->at += n;
    return 1;
}

static void json_skip(struct json *j) {
    char c = json_peek(j);
    if (c == '{') {
        for (int first = (json_open(j, '{'), 1); json_more(j, '}', &first);) {
            json_key(j);
            json_skip(j);
        }
    } else if (c == '[') {
        for (int first = (json_open(j, '['), 1); json_more(j, ']', &first);) json_skip(j);
    } else if (c == '"') {
        json_string(j);
    } else if (!json_word(j, "true") && !json_word(j, "false") && !json_word(j, "null")) {
        json_number(j);
    }
}

static void json_finish(struct json *j) {
    if (json_peek(j) || j->at < j->end) json_die(j, "something follows the end of the object");
}

/* ================================================================================= 3 checkpoint */

/* safetensors: u64 header length, JSON object { name: { dtype, shape, data_offsets } }, data
 * without gaps */
#define MAX_RANK 4 /* shapes of higher rank are only counted: this family has none */
#define MAX_HEADER 100000000u /* the safetensors library's own limit; two million tensors */

struct element_type {
    const char *name;
    u32 bytes;
    int readable;
};
static const struct element_type element_types[] = {
    {"F32", 4, 1}, {"F16", 2, 1}, {"BF16", 2, 1}, {"F64", 8, 1},     {"I64", 8, 0},
    {"I32", 4, 0}, {"I16", 2, 0}, {"I8", 1, 0},   {"U8", 1, 0},      {"BOOL", 1, 0},
    {"U64", 8, 0}, {"U32", 4, 0}, {"U16", 2, 0},  {"F8_E4M3", 1, 0}, {"F8_E5M2", 1, 0},
};
enum {
    ELEMENT_F32,
    ELEMENT_F16,
    ELEMENT_BF16,
    ELEMENT_F64,
    ELEMENT_I64,
    ELEMENT_I32,
    ELEMENT_I16,
    ELEMENT_I8,
    ELEMENT_U8,
    ELEMENT_BOOL
}; /* indices into it */
#define N_ELEMENT_TYPES (sizeof element_types / sizeof *element_types)

struct source { /* one tensor of the checkpoint */
    const char *name;
    u32 type, rank;
    u64 shape[MAX_RANK], stride[MAX_RANK], elements; /* strides: in elements */
    u64 begin, end; /* bytes in the data part, from the first element to behind the last */
    int used;
};

#define HELD 4
struct checkpoint {
    const char *path;
    FILE *file;
    u64 data; /* where the data part starts */
    u64 data_bytes;
    struct source *tensors; /* sorted by name */
    u64 count;
    struct held {
        const struct source *of;
        u8 *bytes;
        u64 room;
    } held[HELD]; /* load */
    u32 next_held;
};

static void parse_source(struct json *j, struct source *t) {
    int seen_type = 0, seen_shape = 0, seen_offsets = 0;
    char why[200];
    for (int first = (json_open(j, '{'), 1); json_more(j, '}', &first);) {
        const char *key = json_key(j);
        if (!strcmp(key, "dtype") && !seen_type++) {
            const char *type = json_string(j);
            while (t->type < N_ELEMENT_TYPES && strcmp(type, element_types[t->type].name))
                t->type++;
            if (t->type == N_ELEMENT_TYPES)
                die(j->file,
                    "tensor %.200s: unknown dtype %.40s; F32, F16, BF16 and F64 can be read",
                    t->name, type);
        } else if (!strcmp(key, "shape") && !seen_shape++) {
            t->elements = 1;
            for (int f = (json_open(j, '['), 1); json_more(j, ']', &f); t->rank++) {
                u64 n = json_u64(j);
                if (n && t->elements > UINT64_MAX / n)
                    die(j->file, "tensor %.200s: its shape overflows", t->name);
                t->elements *= n;
                if (t->rank < MAX_RANK) t->shape[t->rank] = n;
            }
        } else if (!strcmp(key, "data_offsets") && !seen_offsets++) {
            u64 offsets[2] = {0, 0};
            u32 n = 0;
            for (int f = (json_open(j, '['), 1); json_more(j, ']', &f); n++) {
                u64 v = json_u64(j);
                if (n < 2) offsets[n] = v;
            }
            if (n != 2) json_die(j, "data_offsets takes two numbers");
            t->begin = offsets[0];
            t->end = offsets[1];
        } else {
            snprintf(why, sizeof why, "unknown or repeated key \"%.100s\"", key);
            json_die(j, why);
        }
    }
    if (!seen_type || !seen_shape || !seen_offsets)
        die(j->file, "tensor %.200s: dtype, shape and data_offsets are needed", t->name);
    u64 stride = 1;
    for (u32 i = t->rank < MAX_RANK ? t->rank : MAX_RANK; i--; stride *= t->shape[i])
        t->stride[i] = stride;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct source *)a)->name, ((const struct source *)b)->name);
}
static int by_offset(const void *a, const void *b) {
    const struct source *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static void parse_header(struct checkpoint *in, char *text, u64 size) {
    struct json j = json_begin(text, size, in->path);
    u64 room = 0;
    for (int first = (json_open(&j, '{'), 1); json_more(&j, '}', &first);) {
        const char *name = json_key(&j);
        if (!strcmp(name, "__metadata__")) {
            json_skip(&j);
            continue;
        }
        if (in->count ==
            room) { /* grows by halves; an entry of the text is never shorter than 40 bytes */
            room += room / 2 + 64;
            struct source *more = realloc(in->tensors,
                                          (size_t)room * sizeof *more); /* < 2^30: MAX_HEADER */
            if (!more) die("memory", "cannot allocate a table of %llu tensors", (ull)room);
            in->tensors = more;
        }
        struct source *t = &in->tensors[in->count++];
        memset(t, 0, sizeof *t);
        t->name = name;
        parse_source(&j, t);
        if (t->begin > t->end || t->end > in->data_bytes)
            die(in->path,
                "tensor %.200s: its data_offsets %llu..%llu lie outside the %llu bytes of data "
                "in the file; truncated?",
                name, (ull)t->begin, (ull)t->end, (ull)in->data_bytes);
        u32 bytes =
            element_types[t->type].bytes; /* compare by dividing: the product could overflow */
        if ((t->end - t->begin) % bytes || (t->end - t->begin) / bytes != t->elements)
            die(in->path, "tensor %.200s: %llu bytes of data for %llu elements of %s", name,
                (ull)(t->end - t->begin), (ull)t->elements, element_types[t->type].name);
    }
    json_finish(&j);
    if (!in->count) die(in->path, "holds no tensors");

    qsort(in->tensors, (size_t)in->count, sizeof *in->tensors, by_offset);
    u64 at = 0;
    for (u64 i = 0; i < in->count; i++) {
        const struct source *t = &in->tensors[i];
        if (t->begin < at)
            die(in->path, "tensors %.200s and %.200s overlap", in->tensors[i - 1].name, t->name);
        if (t->begin > at)
            die(in->path,
                "%llu bytes before the data of tensor %.200s belong to no tensor; damaged?",
                (ull)(t->begin - at), t->name);
        at = t->end;
    }
    if (at != in->data_bytes)
        die(in->path, "%llu bytes behind the last tensor; damaged?", (ull)(in->data_bytes - at));
}

static void open_safetensors(struct checkpoint *in, u64 size, u64 header) {
    if (header < 2 || header > MAX_HEADER || header > size - 8)
        die(in->path,
            "a header of %llu bytes in a file of %llu: neither a safetensors file nor one of torch.save, "
            "or truncated",
            (ull)header, (ull)size);
    char *text = allocate(header + 1, 1);
    if (fread(text, 1, (size_t)header, in->file) != header) die(in->path, "cannot read the header");
    in->data = 8 + header;
    in->data_bytes = size - in->data;
    parse_header(in, text, header);
}

static float half_to_float(u32 h) { /* binary16: every value is a float */
    u32 sign = (h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return bits_to_f32(sign | 0x7f800000 | fraction << 13);
    if (exponent) return bits_to_f32(sign | (exponent + 112) << 23 | fraction << 13);
    float tiny = (float)fraction * 0x1p-24f;
    return sign ? -tiny : tiny;
}

static float double_to_float(u64 bits) {
    double v;
    memcpy(&v, &bits, 8);
    return (float)v;
}

/* The bytes of a tensor; those of the last four tensors that were asked for are held. */
static const u8 *load(struct checkpoint *in, const struct source *t) {
    for (u32 i = 0; i < HELD; i++)
        if (in->held[i].of == t) return in->held[i].bytes;
    struct held *h = &in->held[in->next_held++ % HELD];
    u64 bytes = t->end - t->begin;
    h->of = NULL;
    if (bytes > h->room) {
        free(h->bytes);
        h->bytes = allocate(bytes, 1);
        h->room = bytes;
    }
    if (seek(in->file, in->data + t->begin)) die(in->path, "cannot seek: %s", strerror(errno));
    if (fread(h->bytes, 1, (size_t)bytes, in->file) != bytes)
        die(in->path, "tensor %.200s: cannot read: %s", t->name,
            ferror(in->file) ? strerror(errno) : "the file has become shorter");
    h->of = t;
    return h->bytes;
}

/* n elements of a tensor, `step` apart, from element `from` on (counted as strides are). All must
 * be finite. */
static void read_line(struct checkpoint *in, const struct source *t, u64 from, u64 step, u32 n,
                      float *to) {
    u32 size = element_types[t->type].bytes;
    const u8 *bytes = load(in, t);
    for (u32 i = 0; i < n; i++) {
        const u8 *p = bytes + (from + i * step) * size;
        float v;
        if (t->type == ELEMENT_F32) v = bits_to_f32(get32(p));
        else if (t->type == ELEMENT_F16) v = half_to_float(get16(p));
        else if (t->type == ELEMENT_BF16) v = bits_to_f32(get16(p) << 16);
        else v = double_to_float(get64(p));
        if ((f32_to_bits(v) & 0x7f800000) == 0x7f800000)
            die(in->path,
                "tensor %.200s: element %llu is %s; the checkpoint is damaged, or its training diverged",
                t->name, (ull)(from + i * step), f32_to_bits(v) & 0x7fffff ? "NaN" : "infinite");
        to[i] = v;
    }
}

/* ============================================================================== 4 PyTorch files */

/* torch.save since PyTorch 1.6: a zip archive of stored files, NAME/data.pkl (a pickle: the
 * objects, with tensors as views of storages), NAME/data/KEY (the storages' elements) and
 * NAME/byteorder.
 *
 * A pickle is a program for a stack machine that may call anything. The machine below cannot: a
 * "call" of one of the few names in `globals` makes a value of ours, a call of any other is
 * refused. */

/* ---------------------------------------------------------------------------------- zip */

struct zip_entry {
    const u8 *name;
    u32 name_bytes, method, flags;
    u64 offset, packed, size;
};
struct zip {
    struct zip_entry *entries;
    u64 count, end;
}; /* sorted by name; `end`: where the directory begins */

static void read_at(const struct checkpoint *in, u64 offset, void *to, u64 n, const char *what) {
    if (seek(in->file, offset) || fread(to, 1, (size_t)n, in->file) != n)
        die(in->path, "cannot read %s", what);
}

static int by_entry_name(const void *a, const void *b) {
    const struct zip_entry *x = a, *y = b;
    int order = memcmp(x->name, y->name,
                       x->name_bytes < y->name_bytes ? x->name_bytes : y->name_bytes);
    return order ? order : x->name_bytes < y->name_bytes ? -1 : x->name_bytes > y->name_bytes;
}

/* Where the directory is: the end record lies in the last 64 KiB; if it is too small for a number,
 * another record before it has 64 bits for each. */
static void find_directory(const struct checkpoint *in, u64 size, u64 *offset, u64 *bytes,
                           u64 *count) {
    u64 tail = min64(size, 65535 + 22), at = tail;
    u8 *p = allocate(tail, 1), wide[56];
    read_at(in, size - tail, p, tail, "the end of the archive");
    for (;; at--) {
        if (at < 22)
            die(in->path,
                "a zip archive without its directory: truncated? copy or download it again");
        const u8 *e = p + at - 22;
        if (!memcmp(e, "PK\5\6", 4) && get16(e + 20) == tail - at) break;
    }
    const u8 *end = p + at - 22;
    u64 end_offset = size - tail + at - 22;
    *count = get16(end + 10);
    *bytes = get32(end + 12);
    *offset = get32(end + 16);
    if (at - 22 >= 20 && !memcmp(end - 20, "PK\6\7", 4)) {
        u64 record = get64(end - 12);
        if (record > end_offset || end_offset - record < sizeof wide)
            die(in->path, "the archive's zip64 record lies outside the file");
        read_at(in, record, wide, sizeof wide, "the archive's zip64 record");
        if (memcmp(wide, "PK\6\6", 4)) die(in->path, "the archive's zip64 record is damaged");
        *count = get64(wide + 32);
        *bytes = get64(wide + 40);
        *offset = get64(wide + 48);
    }
    if (*offset > end_offset || *bytes > end_offset - *offset || *count > *bytes / 46)
        die(in->path,
            "the archive's directory (%llu entries, %llu bytes at %llu) does not lie in the file",
            (ull)*count, (ull)*bytes, (ull)*offset);
    free(p);
}

/* Numbers that 32 bits cannot hold stand in an extra field, in this order. */
static void read_zip64(const struct checkpoint *in, struct zip_entry *e, const u8 *extra, u32 n) {
    u64 *wide[3] = {&e->size, &e->packed, &e->offset};
    for (u32 i = 0; n >= 4;) {
        u32 id = get16(extra), bytes = get16(extra + 2);
        if (bytes > n - 4) break;
        extra += 4;
        for (u32 at = 0; id == 1 && i < 3; i++) {
            if (*wide[i] != UINT32_MAX) continue;
            if (bytes - at < 8)
                die(in->path, "the archive's directory is damaged: a zip64 field cut short");
            *wide[i] = get64(extra + at);
            at += 8;
        }
        extra += bytes;
        n -= 4 + bytes;
    }
}

static void open_zip(const struct checkpoint *in, struct zip *z, u64 size) {
    u64 offset, bytes;
    find_directory(in, size, &offset, &bytes, &z->count);
    u8 *p = allocate(bytes, 1), *end = p + bytes;
    read_at(in, offset, p, bytes, "the archive's directory");
    z->end = offset;
    z->entries = allocate(z->count, sizeof *z->entries);
    for (u64 i = 0; i < z->count; i++) {
        u64 left = (u64)(end - p),
            rest = left < 46 ? 0 : (u64)get16(p + 28) + get16(p + 30) + get16(p + 32);
        if (left < 46 || memcmp(p, "PK\1\2", 4) || rest > left - 46)
            die(in->path, "the archive's directory is damaged at entry %llu", (ull)i);
        struct zip_entry e = {p + 46,        get16(p + 28), get16(p + 10), get16(p + 8),
                              get32(p + 42), get32(p + 20), get32(p + 24)};
        read_zip64(in, &e, p + 46 + e.name_bytes, get16(p + 30));
        z->entries[i] = e;
        p += 46 + rest;
    }
    qsort(z->entries, (size_t)z->count, sizeof *z->entries, by_entry_name);
}

static const struct zip_entry *find_entry(const struct zip *z, const char *name, u64 n) {
    struct zip_entry key = {(const u8 *)name, (u32)n, 0, 0, 0, 0, 0};
    return z->count ? bsearch(&key, z->entries, (size_t)z->count, sizeof key, by_entry_name) : NULL;
}

/* Where an entry's bytes are in the file; all `size` of them lie before the directory. */
static u64 entry_data(const struct checkpoint *in, const struct zip *z, const struct zip_entry *e) {
    u8 head[30];
    int n = (int)min32(e->name_bytes, 200);
    if (e->flags & 1) die(in->path, "%.*s in the archive is encrypted", n, (const char *)e->name);
    if (e->method)
        die(in->path,
            "%.*s in the archive is compressed (%s); torch.save does not: repack it with zip -0", n,
            (const char *)e->name, e->method == 8 ? "deflated" : "in an unknown way");
    if (e->offset > z->end || z->end - e->offset < sizeof head)
        die(in->path, "%.*s in the archive lies outside the file", n, (const char *)e->name);
    read_at(in, e->offset, head, sizeof head, "an entry of the archive");
    u64 data = e->offset + sizeof head + get16(head + 26) + get16(head + 28);
    if (memcmp(head, "PK\3\4", 4) || data > z->end || e->size > z->end - data ||
        e->packed != e->size)
        die(in->path, "%.*s in the archive is damaged or cut short", n, (const char *)e->name);
    return data;
}

/* ---------------------------------------------------------------------------------- pickle */

#define MAX_PICKLE (16u << 20) /* a hundred bytes a tensor are usual */
#define MAX_STACK 65536 /* values; pickles hand over lists and dicts in pieces of 1000 */

enum value_kind {
    IS_MARK,
    IS_NONE,
    IS_NUMBER,
    IS_TEXT,
    IS_TUPLE,
    IS_LIST,
    IS_DICT,
    IS_GLOBAL,
    IS_STORAGE,
    IS_TENSOR,
    IS_OPAQUE
};
/* at: a whole number; where a text begins in the pickle; or the index of a node with the items (of
 * a global: module and name; of a storage and a tensor: the arguments that made it). count: bytes
 * of a text, index into `globals`. */
struct value {
    u32 kind, count;
    u64 at;
};
struct cell {
    struct value value;
    u32 next;
}; /* an item of a node; 0: no next one */
struct node {
    u32 first, last, count, seen;
}; /* a dict's items: key, value, key, value ... */

struct pickle {
    const char *path;
    const u8 *bytes;
    u64 size, at, op; /* op: where the current opcode is */
    struct value *stack, *memo;
    struct node *nodes;
    struct cell *cells;
    u32 depth, n_nodes, n_cells, stack_room, node_room, cell_room;
    u64 memo_count, memo_room;
};

enum global_use { REBUILD_TENSOR, REBUILD_PARAMETER, NEW_DICT, SAME_TUPLE, STORAGE_TYPE, DATA };
static const struct global {
    const char *module, *name;
    u32 use, type;
} globals[] = {
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, 0},
    {"torch._utils", "_rebuild_tensor", REBUILD_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, 0},
    {"torch._utils", "_rebuild_parameter_with_state", REBUILD_PARAMETER, 0},
    {"collections", "OrderedDict", NEW_DICT, 0},
    {"collections", "defaultdict", NEW_DICT, 0},
    {"torch", "Size", SAME_TUPLE, 0},
    {"torch", "FloatStorage", STORAGE_TYPE, ELEMENT_F32},
    {"torch", "HalfStorage", STORAGE_TYPE, ELEMENT_F16},
    {"torch", "BFloat16Storage", STORAGE_TYPE, ELEMENT_BF16},
    {"torch", "DoubleStorage", STORAGE_TYPE, ELEMENT_F64},
    {"torch", "LongStorage", STORAGE_TYPE, ELEMENT_I64},
    {"torch", "IntStorage", STORAGE_TYPE, ELEMENT_I32},
    {"torch", "ShortStorage", STORAGE_TYPE, ELEMENT_I16},
    {"torch", "CharStorage", STORAGE_TYPE, ELEMENT_I8},
    {"torch", "ByteStorage", STORAGE_TYPE, ELEMENT_U8},
    {"torch", "BoolStorage", STORAGE_TYPE, ELEMENT_BOOL},
    /* beside the weights in training checkpoints: passed over */
    {"argparse", "Namespace", DATA, 0},
    {"torch", "device", DATA, 0},
    {"pathlib", "PosixPath", DATA, 0},
    {"numpy", "dtype", DATA, 0},
    {"numpy.core.multiarray", "scalar", DATA, 0},
    {"numpy._core.multiarray", "scalar", DATA, 0},
    {"_codecs", "encode", DATA, 0},
};
#define N_GLOBALS (sizeof globals / sizeof *globals)

_Noreturn PRINTF(2, 3) static void pickle_die(const struct pickle *p, const char *format, ...) {
    char why[600];
    va_list args;
    va_start(args, format);
    vsnprintf(why, sizeof why, format, args);
    va_end(args);
    die(p->path, "data.pkl, byte %llu: %s", (ull)p->op, why);
}

static const char *opcode_name(u32 code) {
    static const struct {
        u8 code;
        const char *name;
    } names[] = {
        {'R', "REDUCE"},       {0x81, "NEWOBJ"},
        {0x92, "NEWOBJ_EX"},   {'i', "INST"},
        {'o', "OBJ"},          {0x82, "EXT1"},
        {0x83, "EXT2"},        {0x84, "EXT4"},
        {'P', "PERSID"},       {'I', "INT"},
        {'L', "LONG"},         {'F', "FLOAT"},
        {'S', "STRING"},       {'V', "UNICODE"},
        {'p', "PUT"},          {'g', "GET"},
        {0x8f, "EMPTY_SET"},   {0x90, "ADDITEMS"},
        {0x91, "FROZENSET"},   {0x96, "BYTEARRAY8"},
        {0x97, "NEXT_BUFFER"}, {0x98, "READONLY_BUFFER"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == code) return names[i].name;
    return "unknown";
}

static const u8 *take(struct pickle *p, u64 n) {
    if (n > p->size - p->at) pickle_die(p, "the pickle ends too early; damaged?");
    p->at += n;
    return p->bytes + p->at - n;
}

/* Room for one more of `count` things, grown by halves: never more than the pickle's bytes call
 * for. */
static void *grown(void *things, u32 count, u32 *room, size_t size) {
    if (count < *room) return things;
    *room += *room / 2 + 64; /* < 2^25: an opcode makes one thing */
    things = realloc(things, *room * size);
    if (!things) die("memory", "cannot allocate %u x %zu bytes", *room, size);
    return things;
}

static void push(struct pickle *p, u32 kind, u32 count, u64 at) {
    if (p->depth == MAX_STACK) pickle_die(p, "more than %d values on the stack", MAX_STACK);
    struct value v = {kind, count, at};
    p->stack = grown(p->stack, p->depth, &p->stack_room, sizeof v);
    p->stack[p->depth++] = v;
}
static struct value pop(struct pickle *p) {
    if (!p->depth || p->stack[p->depth - 1].kind == IS_MARK)
        pickle_die(p, "the stack is empty; damaged?");
    return p->stack[--p->depth];
}
/* Where the values above the topmost mark begin. */
static u32 marked(const struct pickle *p) {
    u32 i = p->depth;
    while (i && p->stack[i - 1].kind != IS_MARK) i--;
    if (!i) pickle_die(p, "there is no mark on the stack; damaged?");
    return i;
}

static u32 new_node(struct pickle *p) {
    p->nodes = grown(p->nodes, p->n_nodes, &p->node_room, sizeof *p->nodes);
    memset(&p->nodes[p->n_nodes], 0, sizeof *p->nodes);
    return p->n_nodes++;
}

static void add_item(struct pickle *p, u64 node, struct value v) {
    p->cells = grown(p->cells, p->n_cells, &p->cell_room, sizeof *p->cells);
    struct cell cell = {v, 0};
    struct node *n = &p->nodes[node];
    p->cells[p->n_cells] = cell;
    if (n->count++) p->cells[n->last].next = p->n_cells;
    else n->first = p->n_cells;
    n->last = p->n_cells++;
}

/* Item i of a tuple; a mark if there are not so many. */
static struct value item(const struct pickle *p, struct value of, u32 i) {
    struct value none = {IS_MARK, 0, 0};
    const struct node *n = &p->nodes[of.at];
    if (i >= n->count) return none;
    u32 at = n->first;
    while (i--) at = p->cells[at].next;
    return p->cells[at].value;
}

/* The values from `from` up become one tuple, list or dict. */
static void pack(struct pickle *p, u32 kind, u32 from) {
    u32 node = new_node(p);
    for (u32 i = from; i < p->depth; i++) {
        if (p->stack[i].kind == IS_MARK) pickle_die(p, "a mark inside a tuple; damaged?");
        add_item(p, node, p->stack[i]);
    }
    p->depth = from;
    push(p, kind, 0, node);
}
static void pack_last(struct pickle *p, u32 n) {
    if (p->depth < n) pickle_die(p, "the stack is empty; damaged?");
    pack(p, IS_TUPLE, p->depth - n);
}
static void pack_marked(struct pickle *p, u32 kind) {
    u32 from = marked(p);
    if (kind == IS_DICT && (p->depth - from) % 2) pickle_die(p, "a key without a value; damaged?");
    memmove(p->stack + from - 1, p->stack + from,
            (p->depth - from) * sizeof *p->stack); /* the mark goes */
    p->depth--;
    pack(p, kind, from - 1);
}

/* Adds the values from `from` up to the list or dict below them; to an object that is passed over,
 * nothing. */
static void extend(struct pickle *p, u32 kind, u32 from, u32 below) {
    if (from < below + 1) pickle_die(p, "the stack is empty; damaged?");
    struct value to = p->stack[from - below - 1];
    if (to.kind != kind && to.kind != IS_OPAQUE)
        pickle_die(p, "items for what is no %s", kind == IS_DICT ? "dict" : "list");
    if (kind == IS_DICT && (p->depth - from) % 2) pickle_die(p, "a key without a value; damaged?");
    for (u32 i = from; i < p->depth && to.kind == kind; i++) add_item(p, to.at, p->stack[i]);
    p->depth = from - below;
}

static int text_is(const struct pickle *p, struct value v, const char *text) {
    return v.kind == IS_TEXT && v.count == strlen(text) && !memcmp(p->bytes + v.at, text, v.count);
}

/* For messages: "os.system", or what kind of value it is instead. */
static const char *show_global(const struct pickle *p, struct value v, char out[200]) {
    if (v.kind != IS_GLOBAL) return "what is no class or function";
    struct value module = item(p, v, 0), name = item(p, v, 1);
    snprintf(out, 200, "%.*s.%.*s", (int)min32(module.count, 90),
             (const char *)p->bytes + module.at, (int)min32(name.count, 90),
             (const char *)p->bytes + name.at);
    return out;
}

static void push_global(struct pickle *p, struct value module, struct value name) {
    u32 node = new_node(p), known = 0;
    if (module.kind != IS_TEXT || name.kind != IS_TEXT)
        pickle_die(p, "a global whose name is no text; damaged?");
    add_item(p, node, module);
    add_item(p, node, name);
    while (known < N_GLOBALS &&
           !(text_is(p, module, globals[known].module) && text_is(p, name, globals[known].name)))
        known++;
    push(p, IS_GLOBAL, known, node);
}

static struct value take_line(struct pickle *p) {
    struct value v = {IS_TEXT, 0, p->at};
    while (*take(p, 1) != '\n') v.count++;
    return v;
}

static void call(struct pickle *p, struct value what, struct value arguments) {
    char name[200];
    u32 known = what.kind == IS_GLOBAL ? what.count : N_GLOBALS;
    if (arguments.kind != IS_TUPLE) pickle_die(p, "a call whose arguments are no tuple; damaged?");
    if (known == N_GLOBALS || globals[known].use == STORAGE_TYPE)
        die(p->path,
            "the pickle calls %s (opcode %s at %llu): refused; save the weights alone: "
            "torch.save(model.state_dict(), ...)",
            show_global(p, what, name), opcode_name(p->bytes[p->op]), (ull)p->op);
    struct value first = item(p, arguments, 0);
    switch (globals[known].use) {
    case REBUILD_TENSOR: push(p, IS_TENSOR, 0, arguments.at); break;
    case REBUILD_PARAMETER:
    case SAME_TUPLE:
        if (first.kind == IS_MARK) pickle_die(p, "a call without arguments; damaged?");
        push(p, first.kind, first.count, first.at);
        break;
    case NEW_DICT: push(p, IS_DICT, 0, new_node(p)); break; /* filled by what follows */
    default: push(p, IS_OPAQUE, 0, 0);
    }
}

static void call_object(struct pickle *p) { /* OBJ: the class is the first value behind the mark */
    u32 from = marked(p);
    if (from == p->depth) pickle_die(p, "the stack is empty; damaged?");
    struct value what = p->stack[from];
    pack(p, IS_TUPLE, from + 1);
    struct value arguments = pop(p);
    p->depth = from - 1;
    call(p, what, arguments);
}

static void put_memo(struct pickle *p, u64 index) {
    if (!p->depth || p->stack[p->depth - 1].kind == IS_MARK)
        pickle_die(p, "the stack is empty; damaged?");
    if (index >= p->size)
        pickle_die(p, "memo %llu: more than there are bytes; damaged?", (ull)index);
    if (index >= p->memo_room) {
        u64 room = min64(index + index / 2 + 64, p->size);
        p->memo = realloc(p->memo, (size_t)room * sizeof *p->memo);
        if (!p->memo) die("memory", "cannot allocate a memo of %llu", (ull)room);
        memset(p->memo + p->memo_room, 0,
               (size_t)(room - p->memo_room) * sizeof *p->memo); /* marks: not set */
        p->memo_room = room;
    }
    p->memo[index] = p->stack[p->depth - 1];
    p->memo_count++;
}
static void get_memo(struct pickle *p, u64 index) {
    if (index >= p->memo_room || p->memo[index].kind == IS_MARK)
        pickle_die(p, "memo %llu is not set; damaged?", (ull)index);
    push(p, p->memo[index].kind, p->memo[index].count, p->memo[index].at);
}

static void push_text(struct pickle *p, u32 kind, u64 n) {
    take(p, n);
    if (n > UINT32_MAX) pickle_die(p, "a text of %llu bytes", (ull)n);
    push(p, kind, (u32)n, p->at - n);
}

/* Whole numbers are little-endian two's complement; longer ones than 8 bytes are only carried
 * along. */
static void push_long(struct pickle *p, u64 n) {
    const u8 *bytes = take(p, n);
    u64 v = n && bytes[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (u64 i = n; i-- && n <= 8;) v = v << 8 | bytes[i];
    push(p, n > 8 ? IS_OPAQUE : IS_NUMBER, 0, v);
}

/* BUILD: attributes of an object, such as the _metadata of a state dict. None of them matter. */
static void build(struct pickle *p) {
    pop(p);
    struct value to = pop(p);
    if (to.kind != IS_DICT && to.kind != IS_TENSOR && to.kind != IS_OPAQUE)
        pickle_die(p, "opcode BUILD on what is no object of a state dict: refused");
    push(p, to.kind, to.count, to.at);
}

static void load_storage(struct pickle *p) {
    struct value id = pop(p);
    if (id.kind != IS_TUPLE || !text_is(p, item(p, id, 0), "storage"))
        pickle_die(p, "a persistent id that names no storage: not a file of torch.save");
    push(p, IS_STORAGE, 0, id.at);
}

/* Runs the pickle; returns the object it leaves. */
static struct value run_pickle(struct pickle *p) {
    struct value a, b;
    for (;;) {
        p->op = p->at;
        u32 code = *take(p, 1);
        switch (code) {
        case 0x80: /* PROTO */
            if (*take(p, 1) > 5)
                pickle_die(p, "pickle protocol %u; 2 to 5 can be read", p->bytes[p->at - 1]);
            break;
        case 0x95: take(p, 8); break; /* FRAME */
        case '(': push(p, IS_MARK, 0, 0); break;
        case '.': return pop(p); /* STOP */
        case '0': pop(p); break; /* POP */
        case '1': p->depth = marked(p) - 1; break; /* POP_MARK */
        case '2':
            a = pop(p), p->depth++;
            push(p, a.kind, a.count, a.at);
            break; /* DUP */
        case '}': push(p, IS_DICT, 0, new_node(p)); break;
        case ']': push(p, IS_LIST, 0, new_node(p)); break;
        case ')': pack(p, IS_TUPLE, p->depth); break; /* EMPTY_TUPLE */
        case 't': pack_marked(p, IS_TUPLE); break;
        case 'l': pack_marked(p, IS_LIST); break;
        case 'd': pack_marked(p, IS_DICT); break;
        case 0x85:
        case 0x86:
        case 0x87: pack_last(p, code - 0x84); break; /* TUPLE1, 2, 3 */
        case 'X':
        case 'T': push_text(p, IS_TEXT, get32(take(p, 4))); break; /* BINUNICODE, BINSTRING */
        case 0x8c:
        case 'U': push_text(p, IS_TEXT, *take(p, 1)); break; /* SHORT_BINUNICODE, _BINSTRING */
        case 0x8d: push_text(p, IS_TEXT, get64(take(p, 8))); break; /* BINUNICODE8 */
        case 'B': push_text(p, IS_OPAQUE, get32(take(p, 4))); break; /* BINBYTES */
        case 'C': push_text(p, IS_OPAQUE, *take(p, 1)); break;
        case 0x8e: push_text(p, IS_OPAQUE, get64(take(p, 8))); break;
        case 'J': push(p, IS_NUMBER, 0, (u64)(i64)(i32)get32(take(p, 4))); break; /* BININT */
        case 'K': push(p, IS_NUMBER, 0, *take(p, 1)); break;
        case 'M': push(p, IS_NUMBER, 0, get16(take(p, 2))); break;
        case 0x8a: push_long(p, *take(p, 1)); break; /* LONG1 */
        case 0x8b: push_long(p, get32(take(p, 4))); break; /* LONG4 */
        case 'G':
            take(p, 8);
            push(p, IS_OPAQUE, 0, 0);
            break; /* BINFLOAT */
        case 'N': push(p, IS_NONE, 0, 0); break;
        case 0x88:
        case 0x89: push(p, IS_NUMBER, 0, code == 0x88); break; /* NEWTRUE, NEWFALSE */
        case 'q': put_memo(p, *take(p, 1)); break;
        case 'r': put_memo(p, get32(take(p, 4))); break;
        case 0x94: put_memo(p, p->memo_count); break; /* MEMOIZE */
        case 'h': get_memo(p, *take(p, 1)); break;
        case 'j': get_memo(p, get32(take(p, 4))); break;
        case 'c':
            a = take_line(p), b = take_line(p);
            push_global(p, a, b);
            break;
        case 0x93:
            b = pop(p), a = pop(p);
            push_global(p, a, b);
            break; /* STACK_GLOBAL */
        case 'R':
        case 0x81:
            b = pop(p), a = pop(p);
            call(p, a, b);
            break; /* REDUCE, NEWOBJ */
        case 0x92:
            pop(p), b = pop(p), a = pop(p);
            call(p, a, b);
            break; /* NEWOBJ_EX */
        case 'o': call_object(p); break;
        case 'i': /* INST */
            a = take_line(p), b = take_line(p);
            pack_marked(p, IS_TUPLE);
            push_global(p, a, b);
            a = pop(p), b = pop(p);
            call(p, a, b);
            break;
        case 'b': build(p); break;
        case 's': /* SETITEM */
            if (p->depth < 2) pickle_die(p, "the stack is empty; damaged?");
            extend(p, IS_DICT, p->depth - 2, 0);
            break;
        case 'u': extend(p, IS_DICT, marked(p), 1); break; /* SETITEMS */
        case 'a': /* APPEND */
            if (!p->depth) pickle_die(p, "the stack is empty; damaged?");
            extend(p, IS_LIST, p->depth - 1, 0);
            break;
        case 'e': extend(p, IS_LIST, marked(p), 1); break; /* APPENDS */
        case 'Q': load_storage(p); break; /* BINPERSID */
        default:
            pickle_die(p, "opcode 0x%02x (%s), which no state dict needs: refused", code,
                       opcode_name(code));
        }
    }
}

/* ---------------------------------------------------------------------------------- state dict */

static struct value find_key(const struct pickle *p, struct value dict, const char *key) {
    u32 at = p->nodes[dict.at].first;
    struct value found = {IS_MARK, 0, 0};
    for (u32 i = p->nodes[dict.at].count / 2; i--; at = p->cells[p->cells[at].next].next)
        if (text_is(p, p->cells[at].value, key)) found = p->cells[p->cells[at].next].value;
    return found;
}

static u32 count_tensors(const struct pickle *p, struct value dict) {
    u32 at = p->nodes[dict.at].first, count = 0;
    for (u32 i = p->nodes[dict.at].count / 2; i--; at = p->cells[p->cells[at].next].next)
        count += p->cells[at].value.kind == IS_TEXT &&
                 p->cells[p->cells[at].next].value.kind == IS_TENSOR;
    return count;
}

/* The dict with the weights: one inside `v` by its usual name, or the only one inside it that holds
 * more tensors than `v`, or `v` itself. Looks at every dict once. */
static int choose_dict(struct pickle *p, struct value v, u32 depth, struct value *chosen) {
    static const char *const usual[] = {
        "state_dict", "model_state_dict",         "model",          "module",   "net", "weights",
        "MODEL",      /* MBLM's trainer */ "ema", "ema_state_dict", "ema_model"};
    if (v.kind != IS_DICT || depth > 4 || p->nodes[v.at].seen) return 0;
    p->nodes[v.at].seen = 1;
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (choose_dict(p, find_key(p, v, usual[i]), depth + 1, chosen)) return 1;
    u32 own =
        count_tensors(p, v); /* a few may stand beside the dict with the weights: a step, a loss */
    *chosen = v;
    struct names found = {0, ""};
    u32 at = p->nodes[v.at].first;
    for (u32 i = p->nodes[v.at].count / 2; i--; at = p->cells[p->cells[at].next].next) {
        struct value key = p->cells[at].value, inner = p->cells[p->cells[at].next].value;
        if (key.kind != IS_TEXT || inner.kind != IS_DICT || p->nodes[inner.at].seen) continue;
        p->nodes[inner.at].seen = 1;
        if (count_tensors(p, inner) <= own) continue;
        char name[121];
        snprintf(name, sizeof name, "%.*s", (int)min32(key.count, 120),
                 (const char *)p->bytes + key.at);
        add_name(&found, name);
        *chosen = inner;
    }
    if (found.count > 1)
        die(p->path, "%u dicts in it hold tensors (%s): save the model's state dict alone",
            found.count, show_names(&found));
    return found.count || own;
}

/* The parts of a PyTorch file, and how the names of its entries begin. */
struct archive {
    struct zip zip;
    struct pickle pickle;
    const struct zip_entry *objects;
};

static const struct zip_entry *find_member(const struct archive *a, const char *folder,
                                           const char *name, u32 n) {
    char path[600];
    int prefix = (int)a->objects->name_bytes - (int)strlen("data.pkl");
    int length = snprintf(path, sizeof path, "%.*s%s%.*s", prefix, (const char *)a->objects->name,
                          folder, (int)n, name);
    return length < (int)sizeof path ? find_entry(&a->zip, path, (u64)length) : NULL;
}

static u64 whole(const struct checkpoint *in, const struct source *t, struct value v,
                 const char *what) {
    if (v.kind != IS_NUMBER || v.at > INT64_MAX)
        die(in->path, "tensor %.200s: its %s is no whole number that is not negative", t->name,
            what);
    return v.at;
}

/* A tensor is _rebuild_tensor_v2(storage, offset, shape, strides, ...), all counted in elements; a
 * storage is ("storage", type, key, device, elements). */
static void read_tensor(struct checkpoint *in, const struct archive *a, struct value v,
                        struct source *t) {
    const struct pickle *p = &a->pickle;
    struct value storage = item(p, v, 0), shape = item(p, v, 2), strides = item(p, v, 3);
    if (storage.kind != IS_STORAGE || shape.kind != IS_TUPLE || strides.kind != IS_TUPLE)
        die(in->path, "tensor %.200s: is not made of a storage, a shape and strides", t->name);
    struct value type = item(p, storage, 1), key = item(p, storage, 2);
    char text[200];
    if (type.kind != IS_GLOBAL || type.count == N_GLOBALS ||
        globals[type.count].use != STORAGE_TYPE)
        die(in->path, "tensor %.200s: its elements are of %s, which this version cannot read",
            t->name, show_global(p, type, text));
    t->type = globals[type.count].type;
    u32 bytes = element_types[t->type].bytes;
    u64 held = whole(in, t, item(p, storage, 4), "storage's size"),
        offset = whole(in, t, item(p, v, 1), "offset");
    const struct zip_entry *e = key.kind == IS_TEXT && key.count <= 100
                                    ? find_member(a, "data/", (const char *)p->bytes + key.at,
                                                  key.count)
                                    : NULL;
    if (!e)
        die(in->path, "tensor %.200s: its storage data/%.*s is not in the archive", t->name,
            key.kind == IS_TEXT ? (int)min32(key.count, 100) : 0,
            (const char *)p->bytes + (key.kind == IS_TEXT ? key.at : 0));
    u64 data = entry_data(in, &a->zip, e);
    if (held > e->size / bytes)
        die(in->path, "tensor %.200s: a storage of %llu elements in %llu bytes; truncated?",
            t->name, (ull)held, (ull)e->size);

    t->rank = p->nodes[shape.at].count;
    if (t->rank > 16 || p->nodes[strides.at].count != t->rank)
        die(in->path, "tensor %.200s: %u dimensions, %u strides", t->name, t->rank,
            p->nodes[strides.at].count);
    u64 span = 1; /* elements from the first to the last one */
    t->elements = 1;
    for (u32 i = 0; i < t->rank; i++) {
        u64 n = whole(in, t, item(p, shape, i), "shape"),
            stride = whole(in, t, item(p, strides, i), "stride");
        if (n > 1 && (stride > held || n - 1 > held / (stride + !stride) ||
                      (span += (n - 1) * stride) > held))
            die(in->path, "tensor %.200s: reaches beyond its storage of %llu elements", t->name,
                (ull)held);
        if (n && t->elements > held / n)
            die(in->path,
                "tensor %.200s: more elements than its storage's %llu (expanded?); save a contiguous "
                "copy",
                t->name, (ull)held);
        t->elements *= n;
        if (i < MAX_RANK) t->shape[i] = n, t->stride[i] = n > 1 ? stride : 0;
    }
    if (!t->elements) span = 0;
    if (offset > held || span > held - offset)
        die(in->path, "tensor %.200s: reaches beyond its storage of %llu elements", t->name,
            (ull)held);
    t->begin = data + offset * bytes;
    t->end = t->begin + span * bytes;
}

static void read_byteorder(const struct checkpoint *in, const struct archive *a) {
    char order[17] = "";
    const struct zip_entry *e = find_member(a, "", "byteorder", 9);
    if (!e) return; /* files of before PyTorch 2.1 have none, and are little-endian in practice */
    u64 data = entry_data(in, &a->zip, e);
    read_at(in, data, order, min64(e->size, 16), "the byte order");
    if (strcmp(order, "little"))
        die(in->path,
            "its byte order is '%s'; only little-endian files can be read: save it again on a "
            "little-endian machine",
            order);
}

static void open_pytorch(struct checkpoint *in, u64 size) {
    struct archive a;
    struct pickle *p = &a.pickle;
    struct value v, weights;
    memset(&a, 0, sizeof a);
    open_zip(in, &a.zip, size);
    for (u64 i = 0; i < a.zip.count; i++) { /* in the one folder at the top */
        const struct zip_entry *e = &a.zip.entries[i];
        const u8 *slash = memchr(e->name, '/', e->name_bytes), *name = slash ? slash + 1 : e->name;
        if (e->name + e->name_bytes - name == 8 && !memcmp(name, "data.pkl", 8) && !a.objects)
            a.objects = e;
    }
    if (!a.objects || a.objects->name_bytes > 400)
        die(in->path, "a zip archive, but none of torch.save: there is no data.pkl in it");
    read_byteorder(in, &a);
    u64 at = entry_data(in, &a.zip, a.objects);
    p->path = in->path;
    p->size = a.objects->size;
    if (p->size > MAX_PICKLE)
        die(in->path, "data.pkl has %llu bytes; %u are possible", (ull)p->size, MAX_PICKLE);
    u8 *bytes = allocate(p->size, 1);
    read_at(in, at, bytes, p->size, "data.pkl");
    p->bytes = bytes;
    v = run_pickle(p);
    if (!choose_dict(p, v, 0, &weights))
        die(in->path,
            "holds no dict of tensors; save the model's state dict: torch.save(model.state_dict(), ...)");

    in->data_bytes = size;
    in->tensors = allocate(count_tensors(p, weights), sizeof *in->tensors);
    u32 cell = p->nodes[weights.at].first;
    for (u32 i = p->nodes[weights.at].count / 2; i--; cell = p->cells[p->cells[cell].next].next) {
        struct value name = p->cells[cell].value, tensor = p->cells[p->cells[cell].next].value;
        if (name.kind != IS_TEXT || tensor.kind != IS_TENSOR) continue;
        bytes[name.at + name.count] = 0; /* where an opcode was, which has been run */
        in->tensors[in->count].name = (const char *)bytes + name.at;
        if (strlen(in->tensors[in->count].name) != name.count)
            die(in->path, "a tensor whose name holds NUL: %.200s", in->tensors[in->count].name);
        read_tensor(in, &a, tensor, &in->tensors[in->count++]);
    }
    free(p->stack), free(p->memo), free(p->nodes),
        free(p->cells); /* names stay in the pickle's bytes */
    free(a.zip.entries);
}

/* ------------------------------------------------------------------------------- any checkpoint */

/* Wrappers put a word before all names. */
static void strip_prefixes(struct checkpoint *in) {
    static const char *const words[] = {"module.", "_orig_mod.", "model."};
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
        size_t n = strlen(words[w]);
        u64 with = 0;
        u64 others = 0; /* counters, such as AveragedModel's n_averaged */
        for (u64 i = 0; i < in->count; i++) {
            if (!strncmp(in->tensors[i].name, words[w], n)) with++;
            else others += !element_types[in->tensors[i].type].readable;
        }
        if (!with || with + others < in->count) continue;
        for (u64 i = 0; i < in->count; i++)
            if (!strncmp(in->tensors[i].name, words[w], n)) in->tensors[i].name += n;
        w = (size_t)-1; /* from the beginning: they may be nested */
    }
}

static void open_checkpoint(struct checkpoint *in, const char *path) {
    u8 head[265] = {0};
    in->path = path;
    in->file = fopen(path, "rb");
    if (!in->file) die(path, "cannot open: %s", strerror(errno));
    ll size = file_size(in->file);
    if (size < 0 || seek(in->file, 0))
        die(path, "cannot seek: a regular file is needed, not a pipe");
    size_t got = fread(head, 1, sizeof head, in->file);
    if (ferror(in->file)) die(path, "cannot read: %s", strerror(errno));
    if (!memcmp(head, model_magic, 8)) die(path, "is a megabyte model file already");
    if ((head[0] == 0x80 && !memcmp(head + 2,
                                    "\x8a\nl\xfc\x9c"
                                    "F\xf9",
                                    7)) ||
        !memcmp(head + 257, "ustar", 5))
        die(path, "a file of PyTorch before 1.6: load it there and torch.save it again");
    if (got < 8) die(path, "%llu bytes: too short to be a checkpoint", (ull)got);
    if (!memcmp(head, "PK\3\4", 4)) {
        open_pytorch(in, (u64)size);
    } else {
        if (seek(in->file, 8)) die(path, "cannot seek: %s", strerror(errno));
        open_safetensors(in, (u64)size, get64(head));
    }
    strip_prefixes(in);
    qsort(in->tensors, (size_t)in->count, sizeof *in->tensors, by_name);
    for (u64 i = 1; i < in->count; i++)
        if (!strcmp(in->tensors[i - 1].name, in->tensors[i].name))
            die(in->path, "tensor %.200s is there twice", in->tensors[i].name);
}

static struct source *find_source(const struct checkpoint *in, const char *name) {
    struct source key = {.name = name};
    return bsearch(&key, in->tensors, (size_t)in->count, sizeof *in->tensors, by_name);
}

/* ============================================================================== 5 configuration */

/* What a family's configuration may say, by meaning. Most of it the tensors tell, too: it is
 * compared. */
enum argument {
    ARG_VOCABULARY,
    ARG_DIM,
    ARG_DEPTH,
    ARG_POSITIONS,
    ARG_HEADS,
    ARG_KV_HEADS,
    ARG_HEAD_DIM,
    ARG_FF_MULT,
    ARG_BYTES,
    ARG_PAD_ID,
    ARG_END_ID,
    ARG_FIRST_ID,
    ARG_PADDING,
    ARG_ROTARY,
    ARG_LEARNED,
    ARG_QK_NORM,
    ARG_NORM,
    ARG_ACTIVATION,
    ARG_INIT,
    ARG_CROSS,
    ARG_COUNT
};
#define ABSENT INT64_MIN
#define EVERY MEGABYTE_MAX_STAGES /* of a key: what it says holds for every stage */

struct arguments {
    u32 known; /* how many of the family's keys were there */
    ll at[ARG_COUNT][MEGABYTE_MAX_STAGES]; /* ABSENT, or the value for a stage */
    const char *key[ARG_COUNT][MEGABYTE_MAX_STAGES]; /* who said so */
    u32 count[ARG_COUNT]; /* of a list's items; 0: it was no list ... */
    const char *list[ARG_COUNT]; /* ... and its name */
    struct names unknown;
};

enum key_kind { WHOLE, FLAG, CHOICE, LIST, BLOCKS, WITHOUT_EFFECT, UNSUPPORTED };
struct choice {
    const char *text;
    ll value;
};
struct key {
    const char *name;
    u32 kind, argument, stage;
    const struct choice *choices;
};

/* MEGABYTE(num_tokens, dim, depth, max_seq_len, dim_head = 64, heads = 8, attn_dropout = 0.,
 * ff_mult = 4,
 *          ff_dropout = 0., rel_pos = False, pos_emb = False, pad_id = 0, flash_attn = False) */
static const struct key lucidrains_keys[] = {{"num_tokens", WHOLE, ARG_VOCABULARY, EVERY, NULL},
                                             {"heads", WHOLE, ARG_HEADS, EVERY, NULL},
                                             {"dim_head", WHOLE, ARG_HEAD_DIM, EVERY, NULL},
                                             {"ff_mult", WHOLE, ARG_FF_MULT, EVERY, NULL},
                                             {"pad_id", WHOLE, ARG_PAD_ID, EVERY, NULL},
                                             {"dim", LIST, ARG_DIM, 0, NULL},
                                             {"depth", LIST, ARG_DEPTH, 0, NULL},
                                             {"max_seq_len", LIST, ARG_POSITIONS, 0, NULL},
                                             {"rel_pos", FLAG, ARG_ROTARY, EVERY, NULL},
                                             {"pos_emb", FLAG, ARG_LEARNED, EVERY, NULL},
                                             {"attn_dropout", WITHOUT_EFFECT, 0, 0, NULL},
                                             {"ff_dropout", WITHOUT_EFFECT, 0, 0, NULL},
                                             {"flash_attn", WITHOUT_EFFECT, 0, 0, NULL},
                                             {NULL, 0, 0, 0, NULL}};

/* MBLMModelConfig, and under "block" a TransformerBlock for all stages or a list with one for
 * each */
enum { TABLE_ADDED = 1, INPUT_ROTATED = 2 }; /* ARG_LEARNED of pos_emb_type */
static const struct key mblm_keys[] = {{"num_tokens", WHOLE, ARG_VOCABULARY, EVERY, NULL},
                                       {"pad_token_id", WHOLE, ARG_PAD_ID, EVERY, NULL},
                                       {"hidden_dims", LIST, ARG_DIM, 0, NULL},
                                       {"num_layers", LIST, ARG_DEPTH, 0, NULL},
                                       {"seq_lens", LIST, ARG_POSITIONS, 0, NULL},
                                       {"block", BLOCKS, 0, 0, NULL},
                                       {"train_checkpoint_chunks", WITHOUT_EFFECT, 0, 0, NULL},
                                       {NULL, 0, 0, 0, NULL}};
static const struct choice mblm_blocks[] = {{"transformer", 0}, {NULL, 0}};
static const struct choice mblm_positions[] = {
    {"fixed", TABLE_ADDED}, {"rope", INPUT_ROTATED}, {NULL, 0}};
static const struct key block_keys[] = {{"attn_head_dims", WHOLE, ARG_HEAD_DIM, 0, NULL},
                                        {"attn_num_heads", WHOLE, ARG_HEADS, 0, NULL},
                                        {"attn_use_rot_embs", FLAG, ARG_ROTARY, 0, NULL},
                                        {"ff_multiplier", WHOLE, ARG_FF_MULT, 0, NULL},
                                        {"pos_emb_type", CHOICE, ARG_LEARNED, 0, mblm_positions},
                                        {"block_type", CHOICE, ARG_INIT, 0, mblm_blocks},
                                        {"attn_dropout", WITHOUT_EFFECT, 0, 0, NULL},
                                        {"ff_dropout", WITHOUT_EFFECT, 0, 0, NULL},
                                        {"use_flash_attn", WITHOUT_EFFECT, 0, 0, NULL},
                                        {"d_state", UNSUPPORTED, 0, 0, NULL}, /* Mamba's */
                                        {NULL, 0, 0, 0, NULL}};

/* class MegaByteConfig(TransformerConfig) */
static const struct choice spacebyte_norms[] = {
    {"LayerNorm", NORM_LAYER}, {"RMSNorm", NORM_DEVIATION}, {NULL, 0}};
static const struct choice spacebyte_activations[] = {
    {"ReLU", RELU}, {"GELU", GELU_TANH}, {"SiLU", SILU}, {NULL, 0}};
enum { SCALED_QUERIES = 1 }; /* ARG_INIT */
static const struct choice spacebyte_inits[] = {
    {"simple", 0}, {"standard", 0}, {"muTransfer", SCALED_QUERIES}, {NULL, 0}};
static const struct key spacebyte_keys[] = {
    {"vocab_size", WHOLE, ARG_VOCABULARY, EVERY, NULL},
    {"BOS", WHOLE, ARG_FIRST_ID, EVERY, NULL},
    {"d_model", WHOLE, ARG_DIM, 0, NULL},
    {"d_local", WHOLE, ARG_DIM, 1, NULL},
    {"n_layers", WHOLE, ARG_DEPTH, 0, NULL},
    {"n_local_layers", WHOLE, ARG_DEPTH, 1, NULL},
    {"context_size", WHOLE, ARG_BYTES, EVERY, NULL},
    {"patch_size", WHOLE, ARG_POSITIONS, 1, NULL},
    {"d_key", WHOLE, ARG_HEAD_DIM, EVERY, NULL},
    {"d_ff_mult", WHOLE, ARG_FF_MULT, EVERY, NULL},
    {"attention_groups", WHOLE, ARG_KV_HEADS, EVERY, NULL},
    {"qk_layer_norm", FLAG, ARG_QK_NORM, EVERY, NULL},
    {"rope", FLAG, ARG_ROTARY, EVERY, NULL},
    {"position_encoding", FLAG, ARG_LEARNED, EVERY, NULL},
    {"use_padding", FLAG, ARG_PADDING, EVERY, NULL},
    {"layer_norm", CHOICE, ARG_NORM, EVERY, spacebyte_norms},
    {"nonlinear", CHOICE, ARG_ACTIVATION, EVERY, spacebyte_activations},
    {"init", CHOICE, ARG_INIT, EVERY, spacebyte_inits},
    {"tokenizer", UNSUPPORTED, 0, 0, NULL},
    {"tie_embedding", UNSUPPORTED, 0, 0, NULL},
    {"attention_window", UNSUPPORTED, 0, 0, NULL},
    {"sparse_attention", UNSUPPORTED, 0, 0, NULL},
    {NULL, 0, 0, 0, NULL}};

/* The constants of bGPT's config.py, and of GPT2Config what it sets from them */
static const struct key bgpt_keys[] = {{"PATCH_SIZE", WHOLE, ARG_POSITIONS, 1, NULL},
                                       {"PATCH_LENGTH", WHOLE, ARG_POSITIONS, 0, NULL},
                                       {"HIDDEN_SIZE", WHOLE, ARG_DIM, EVERY, NULL},
                                       {"PATCH_NUM_LAYERS", WHOLE, ARG_DEPTH, 0, NULL},
                                       {"BYTE_NUM_LAYERS", WHOLE, ARG_DEPTH, 1, NULL},
                                       {"n_head", WHOLE, ARG_HEADS, EVERY, NULL},
                                       {NULL, 0, 0, 0, NULL}};

/* Our own, for models that follow the paper */
static const struct choice paper_activations[] = {
    {"relu", RELU}, {"gelu", GELU_ERF}, {"gelu_tanh", GELU_TANH}, {"silu", SILU}, {NULL, 0}};
static const struct choice paper_pads[] = {{"zero", 0}, {"trained", 1}, {NULL, 0}};
static const struct key paper_keys[] = {
    {"vocabulary", WHOLE, ARG_VOCABULARY, EVERY, NULL},
    {"patch_size", WHOLE, ARG_POSITIONS, 1, NULL},
    {"patches", WHOLE, ARG_POSITIONS, 0, NULL},
    {"pad", CHOICE, ARG_PADDING, EVERY, paper_pads},
    {"global_heads", WHOLE, ARG_HEADS, 0, NULL},
    {"local_heads", WHOLE, ARG_HEADS, 1, NULL},
    {"activation", CHOICE, ARG_ACTIVATION, EVERY, paper_activations},
    {"norm", CHOICE, ARG_NORM, EVERY, spacebyte_norms},
    {"cross_patch", WHOLE, ARG_CROSS, 1, NULL},
    {"global_rope", FLAG, ARG_ROTARY, 0, NULL},
    {"local_rope", FLAG, ARG_ROTARY, 1, NULL},
    {"pad_id", WHOLE, ARG_PAD_ID, EVERY, NULL},
    {"end_id", WHOLE, ARG_END_ID, EVERY, NULL},
    {NULL, 0, 0, 0, NULL}};

/* Metadata that goes into the model file, in this order. The last is bGPT's: what texts begin
 * as. */
enum {
    TEXT_NAME,
    TEXT_LICENCE,
    TEXT_SOURCE,
    TEXT_TRAINING_DATA,
    TEXT_DESCRIPTION,
    TEXT_EXTENSION,
    TEXT_COUNT
};
static const char *const text_keys[TEXT_COUNT] = {"name",          "licence",     "source",
                                                  "training_data", "description", "extension"};

struct config {
    const char *path; /* of the file that held the arguments; NULL: none did */
    const struct key *keys; /* of the checkpoint's family */
    struct arguments arguments;
    const char *text[TEXT_COUNT]; /* NULL or "": absent */
    char *files[2]; /* contents of the .json files, which the texts point into */
    u32 n_files;
};

static void clear_arguments(struct arguments *a) {
    memset(a, 0, sizeof *a);
    for (u32 i = 0; i < ARG_COUNT; i++)
        for (u32 s = 0; s < MEGABYTE_MAX_STAGES; s++) a->at[i][s] = ABSENT;
}

static void set_argument(struct arguments *a, const struct key *k, u32 stage, ll value) {
    for (u32 s = stage == EVERY ? 0 : stage; s < (stage == EVERY ? EVERY : stage + 1); s++) {
        a->at[k->argument][s] = value;
        a->key[k->argument][s] = k->name;
    }
}

static void parse_list(struct json *j, struct arguments *a, const struct key *k) {
    u32 n = 0;
    if (json_peek(j) != '[') {
        set_argument(a, k, EVERY, json_whole(j));
        return;
    }
    for (int first = (json_open(j, '['), 1); json_more(j, ']', &first);) {
        if (n == MEGABYTE_MAX_STAGES) json_die(j, "more than 8 stages; this version runs 2 to 8");
        set_argument(a, k, n++, json_whole(j));
    }
    if (!n) json_die(j, "an empty list");
    a->count[k->argument] = n;
    a->list[k->argument] = k->name;
}

static ll parse_choice(struct json *j, const struct key *k) {
    char why[400];
    const char *text = json_string(j);
    size_t n = (size_t)snprintf(why, sizeof why, "\"%.100s\"; known are", text);
    for (const struct choice *c = k->choices; c->text; c++) {
        if (!strcmp(text, c->text)) return c->value;
        n += (size_t)snprintf(why + n, sizeof why - n, "%s %s", c == k->choices ? "" : ",",
                              c->text);
    }
    json_die(j, why);
}

static int json_flag(struct json *j) {
    int yes = json_word(j, "true");
    if (!yes && !json_word(j, "false")) json_die(j, "expected true or false");
    return yes;
}

/* What this version cannot compute may be named only to say that it is off. */
static void parse_unsupported(struct json *j) {
    if (!json_word(j, "false")) json_die(j, "this version does not run models with it");
}

static int parse_argument(struct json *j, struct arguments *a, const struct key *keys,
                          const char *key, u32 stage);

static void parse_block(struct json *j, struct arguments *a, u32 stage) {
    for (int first = (json_open(j, '{'), 1); json_more(j, '}', &first);) {
        const char *key = json_key(j);
        if (parse_argument(j, a, block_keys, key, stage)) continue;
        add_name(&a->unknown, key);
        json_skip(j);
    }
}
static void parse_blocks(struct json *j, struct arguments *a) {
    u32 n = 0;
    if (json_peek(j) != '[') {
        parse_block(j, a, EVERY);
        return;
    }
    for (int first = (json_open(j, '['), 1); json_more(j, ']', &first);) {
        if (n == MEGABYTE_MAX_STAGES) json_die(j, "more than 8 stages; this version runs 2 to 8");
        parse_block(j, a, n++);
    }
    for (const struct key *k = block_keys; k->name; k++)
        if (k->kind < LIST) a->count[k->argument] = n, a->list[k->argument] = "block";
}

/* Parses the value if `key` is one of `keys`. `stage` is that of a block's keys, which do not name
 * one. */
static int parse_argument(struct json *j, struct arguments *a, const struct key *keys,
                          const char *key, u32 stage) {
    const struct key *k = keys;
    while (k->name && strcmp(key, k->name)) k++;
    if (!k->name) return 0;
    a->known++;
    if (keys != block_keys) stage = k->stage;
    j->about = k->name; /* in messages */
    if (k->kind == WITHOUT_EFFECT) json_skip(j);
    else if (json_word(j, "null"))
        ; /* as good as absent */
    else if (k->kind == WHOLE) set_argument(a, k, stage, json_whole(j));
    else if (k->kind == FLAG) set_argument(a, k, stage, json_flag(j));
    else if (k->kind == CHOICE) set_argument(a, k, stage, parse_choice(j, k));
    else if (k->kind == LIST) parse_list(j, a, k);
    else if (k->kind == BLOCKS) parse_blocks(j, a);
    else parse_unsupported(j);
    j->about = NULL;
    return 1;
}

/* Takes arguments and texts from a .json file: an object of constructor arguments, or one that
 * holds such an object under "args". Texts that are set already stay. Returns 0 if there is no such
 * file. */
static int read_config(struct config *c, const char *path) {
    static struct arguments top, nested;
    int has_nested = 0;
    clear_arguments(&top);
    clear_arguments(&nested);
    FILE *f = fopen(path, "rb");
    if (!f) {
        if (errno == ENOENT) return 0;
        die(path, "cannot open: %s", strerror(errno));
    }
    size_t size = 0, room = 4096; /* grown as needed: it may be a pipe */
    char *text = allocate(room, 1);
    while ((size += fread(text + size, 1, room - 1 - size, f)) == room - 1) {
        if (room >= 1u << 20) die(path, "longer than 1 MiB: not a configuration");
        text = realloc(text, room *= 2);
        if (!text) die("memory", "cannot allocate %zu bytes", room);
    }
    if (ferror(f)) die(path, "cannot read: %s", strerror(errno));
    fclose(f);
    text[size] = 0;
    c->files[c->n_files++] = text;

    struct json j = json_begin(text, size, path);
    if (!json_peek(&j) && j.at == j.end) return 1; /* empty, as /dev/null is: says nothing */
    for (int first = (json_open(&j, '{'), 1); json_more(&j, '}', &first);) {
        const char *key = json_key(&j);
        int which = 0;
        while (which < TEXT_EXTENSION && strcmp(key, text_keys[which])) which++;
        if (!strcmp(key, "license")) which = TEXT_LICENCE;
        if (which < TEXT_EXTENSION) {
            if (json_peek(&j) == '"') {
                const char *value = json_string(&j);
                if (!c->text[which]) c->text[which] = value;
            } else {
                warn(path, "%s is not a text: left out", key);
                json_skip(&j);
            }
        } else if (!strcmp(key, "args") && json_peek(&j) == '{') {
            has_nested = 1;
            for (int inner = (json_open(&j, '{'), 1); json_more(&j, '}', &inner);) {
                const char *name = json_key(&j);
                if (parse_argument(&j, &nested, c->keys, name, EVERY)) continue;
                add_name(&nested.unknown, name);
                json_skip(&j);
            }
        } else if (!parse_argument(&j, &top, c->keys, key, EVERY)) {
            add_name(&top.unknown, key);
            json_skip(&j);
        }
    }
    json_finish(&j);
    struct arguments *found = has_nested ? &nested : &top;
    if (found->known) {
        c->path = path;
        c->arguments = *found;
        if (found->unknown.count)
            warn(path, "unknown arguments, without effect: %s", show_names(&found->unknown));
    }
    return 1;
}

/* IN with its extension replaced by .json. */
static char *config_beside(const char *path) {
    size_t n = strlen(path), stem = n;
    for (size_t i = n; i-- && path[i] != '/';)
        if (path[i] == '.' && i && path[i - 1] != '/') {
            stem = i;
            break;
        }
    char *to = allocate((u64)stem + 6, 1);
    memcpy(to, path, stem);
    memcpy(to + stem, ".json", 6);
    return to;
}

/* ================================================================================== 6 families */

/* Settings of the command line win over the configuration; `from` says in messages where one comes
 * from. */
struct setting {
    ll value;
    const char *from;
};

struct options {
    const char *in, *out, *config, *extension;
    u32 matrix_type; /* TYPE_F32_TILED, TYPE_Q8_TILED */
    ll heads, dim_head, positions, pad_id;
    const char *text[TEXT_COUNT];
    int force, ignore_unknown;
};

struct conversion {
    const struct options *options;
    const struct family *family;
    struct config config;
    struct checkpoint in;
    struct sizes sizes;
    u32 interleaved; /* bit s: rotary pairs of stage s lie side by side, not half a head apart */
    /* they are divided by sqrt(head width) once more where they are not normalized */
    int scaled_queries;
    u32 first_id; /* what the text is taken to begin with where no pad was trained */
    const char *extension; /* bGPT: what stands before it */
    struct names missing; /* find_tensor */
    u32 n_tensors;
    struct tensor *tensors; /* plan_tensor: the table of the model file */
    u64 offset; /* plan_tensor: where the next tensor goes */
    u32 longest; /* plan_tensor: columns of the widest tensor */
    const double *positions; /* convolved_positions */
};

/* How a tensor of the model comes from tensors ("parts") of the checkpoint. */
enum how {
    STORED, /* rows as they are, one part after the other; without parts, zeros */
    FIRST_ROWS, /* the same, but the checkpoint may have more of them */
    COLUMNS, /* a matrix stored as [in, out] */
    PER_BYTE, /* a row for each byte of a patch: P of them make one */
    PER_BYTE_BEFORE, /* the same, but row k takes those of patch k - 1; row 0 is zeros */
    SUM, /* rows of the first part, each plus the second part */
    VECTORS, /* each row is a part */
    TAPS, /* a convolution's [out, in, width] as [out, width, in] */
    FREQUENCIES, /* 10000^(-i / n), i < n: rotary positions that the checkpoint does not hold */
    COMPUTED /* the part if it is there, else what the family's `start` makes */
};
#define MAX_PARTS 4
struct origin {
    const char *part[MAX_PARTS];
    u32 how, optional; /* bit i: part i may be missing, and is zeros then */
    const struct origin *instead; /* taken if only its first part is there */
};

struct family {
    const char *title;
    u32 id;
    const char *marks[4]; /* names that no other family has; '#' stands for a number */
    const char *words[2][3]; /* {0} {1} {2} in names: of the stages but the last, of the last */
    const char *layers; /* '#' counts a stage's layers */
    const struct origin *origins, *finest; /* by role; what the finest stage has otherwise */
    const char *ignored[6]; /* not part of the model's function */
    const struct key *keys;
    int needs_config; /* the tensors don't tell enough */
    ll heads, head_dim; /* the constructor's defaults, or ABSENT */
    void (*derive)(struct conversion *c);
    void (*start)(struct conversion *c, u32 stage, float *to);
};

/* In names: {s} stage, {l} layer, {e} = S-1-s, since token_embs counts from the finest stage up,
 * {0} to {2} the family's words. Rotary frequencies are taken as stored, even where a 16-bit
 * checkpoint has rounded them: they are what its own PyTorch code computes with after loading. */
static const struct origin staged_origins[ROLE_COUNT] = {
    /* MEGABYTE-pytorch and MBLM */
    [ROLE_START] = {.part = {"start_tokens.{s}"}},
    [ROLE_POSITION] = {.part = {"pos_embs.{s}.weight"}},
    [ROLE_ROTARY] = {.part = {"{0}.{s}.rotary_emb.inv_freq"}},
    [ROLE_INPUT_ROTARY] = {.how = FREQUENCIES},
    [ROLE_EMBED] = {.part = {"{1}.{e}.0.weight"}},
    [ROLE_PATCH_NORM_IN_WEIGHT] = {.part = {"{1}.{e}.2.weight"}},
    [ROLE_PATCH_NORM_IN_BIAS] = {.part = {"{1}.{e}.2.bias"}},
    [ROLE_PATCH] = {.part = {"{1}.{e}.3.weight"}},
    [ROLE_PATCH_BIAS] = {.part = {"{1}.{e}.3.bias"}},
    [ROLE_PATCH_NORM_OUT_WEIGHT] = {.part = {"{1}.{e}.4.weight"}},
    [ROLE_PATCH_NORM_OUT_BIAS] = {.part = {"{1}.{e}.4.bias"}},
    [ROLE_ATTENTION_NORM] = {.part = {"{0}.{s}.layers.{l}.0.norm.g"}},
    [ROLE_QKV] = {.part = {"{0}.{s}.layers.{l}.0.to_q.weight",
                           "{0}.{s}.layers.{l}.0.to_kv.weight"}},
    [ROLE_ATTENTION_OUT] = {.part = {"{0}.{s}.layers.{l}.0.to_out.weight"}},
    [ROLE_FF_NORM] = {.part = {"{0}.{s}.layers.{l}.1.0.g"}},
    [ROLE_FF_UP] = {.part = {"{0}.{s}.layers.{l}.1.1.weight"}},
    [ROLE_FF_UP_BIAS] = {.part = {"{0}.{s}.layers.{l}.1.1.bias"}},
    [ROLE_FF_DOWN] = {.part = {"{0}.{s}.layers.{l}.1.4.weight"}},
    [ROLE_FF_DOWN_BIAS] = {.part = {"{0}.{s}.layers.{l}.1.4.bias"}},
    [ROLE_NORM] = {.part = {"{0}.{s}.norm.g"}},
    [ROLE_OUTPUT] = {.part = {"{2}.{s}.1.weight"}},
    [ROLE_OUTPUT_BIAS] = {.part = {"{2}.{s}.1.bias"}},
};
static const struct origin staged_finest[ROLE_COUNT] = {
    /* embeds single bytes, and projects to logits */
    [ROLE_EMBED] = {.part = {"{1}.0.weight"}},
    [ROLE_OUTPUT] = {.part = {"to_logits.weight"}},
    [ROLE_OUTPUT_BIAS] = {.part = {"to_logits.bias"}},
};

/* Models after the paper, in names of our own. Matrices are [out, in], D_G is the global width per
 * byte, P the patch size, K the patches of a context:
 *   global.embedding.weight [V, D_G], global.position.weight [K P, D_G]: h_t = embedding[x_t] +
 *   position[t] global.conv.{0..3}.weight [D_G, D_G, width], as of a causal Conv1d: h_t = bias +
 *   sum_j W[:, :, width-1-j] h_{t-j} global.pad [P D_G]: row 0 ("pad": "trained"); else row 0 is
 *   made of P bytes 0 as a patch is {global,local}.layers.{l}: attention_norm, query, key, value,
 *   output, ff_norm, up, down, query_norm, key_norm {global,local}.norm, global_to_local [D_L,
 *   D_G], local.embedding [V, D_L], local.position [P, D_L], logits local.pad [D_L]: input at p =
 *   0; else local.embedding[0] + local.position[0]
 * Biases, positions, convolutions, query_norm and key_norm, the final norms, global_to_local (where
 * D_G = D_L) and logits.weight (then tied to local.embedding) may be missing. */
static const struct origin tied_logits = {.part = {"local.embedding.weight"}};
static const struct origin paper_origins[ROLE_COUNT] = {
    [ROLE_START] = {.part = {"{0}.pad"}, .how = COMPUTED},
    [ROLE_POSITION] = {.part = {"global.position.weight"}, .how = PER_BYTE_BEFORE},
    [ROLE_ROTARY] = {.how = FREQUENCIES},
    [ROLE_EMBED] = {.part = {"{0}.embedding.weight"}},
    [ROLE_CONVOLUTION] = {.part = {"global.conv.{l}.weight"}, .how = TAPS},
    [ROLE_CONVOLUTION_BIAS] = {.part = {"global.conv.{l}.bias"}, .optional = 1},
    [ROLE_PATCH] = {.part = {"global_to_local.weight"}},
    [ROLE_PATCH_BIAS] = {.part = {"global_to_local.bias"}, .optional = 1},
    [ROLE_ATTENTION_NORM] = {.part = {"{0}.layers.{l}.attention_norm.weight"}},
    [ROLE_ATTENTION_NORM_BIAS] = {.part = {"{0}.layers.{l}.attention_norm.bias"}, .optional = 1},
    [ROLE_QKV] = {.part = {"{0}.layers.{l}.query.weight", "{0}.layers.{l}.key.weight",
                           "{0}.layers.{l}.value.weight"}},
    [ROLE_QKV_BIAS] = {.part = {"{0}.layers.{l}.query.bias", "{0}.layers.{l}.key.bias",
                                "{0}.layers.{l}.value.bias"},
                       .optional = 7},
    [ROLE_QK_NORM] = {.part = {"{0}.layers.{l}.query_norm.weight", "{0}.layers.{l}.query_norm.bias",
                               "{0}.layers.{l}.key_norm.weight", "{0}.layers.{l}.key_norm.bias"},
                      .how = VECTORS,
                      .optional = 2 | 8},
    [ROLE_ATTENTION_OUT] = {.part = {"{0}.layers.{l}.output.weight"}},
    [ROLE_ATTENTION_OUT_BIAS] = {.part = {"{0}.layers.{l}.output.bias"}, .optional = 1},
    [ROLE_FF_NORM] = {.part = {"{0}.layers.{l}.ff_norm.weight"}},
    [ROLE_FF_NORM_BIAS] = {.part = {"{0}.layers.{l}.ff_norm.bias"}, .optional = 1},
    [ROLE_FF_UP] = {.part = {"{0}.layers.{l}.up.weight"}},
    [ROLE_FF_UP_BIAS] = {.part = {"{0}.layers.{l}.up.bias"}, .optional = 1},
    [ROLE_FF_DOWN] = {.part = {"{0}.layers.{l}.down.weight"}},
    [ROLE_FF_DOWN_BIAS] = {.part = {"{0}.layers.{l}.down.bias"}, .optional = 1},
    [ROLE_NORM] = {.part = {"{0}.norm.weight"}},
    [ROLE_NORM_BIAS] = {.part = {"{0}.norm.bias"}, .optional = 1},
    [ROLE_OUTPUT] = {.part = {"logits.weight"}, .instead = &tied_logits},
    [ROLE_OUTPUT_BIAS] = {.part = {"logits.bias"}, .optional = 1},
};
static const struct origin paper_finest[ROLE_COUNT] = {
    [ROLE_POSITION] = {.part = {"local.position.weight"}},
};

static const struct origin grouped_queries = {
    .part = {"{0}_blocks.{l}.attention.Q_linear.weight",
             "{0}_blocks.{l}.attention.KV_linear.weight"}};
static const struct origin spacebyte_origins[ROLE_COUNT] = {
    [ROLE_START] = {.part = {"{0}_pad"}, .how = COMPUTED},
    [ROLE_POSITION] = {.part = {"global_position_encoding"}, .how = PER_BYTE},
    [ROLE_ROTARY] = {.how = FREQUENCIES},
    [ROLE_EMBED] = {.part = {"{0}_token_embedding.weight"}},
    [ROLE_PATCH] = {.part = {"global_to_local.weight"}},
    [ROLE_PATCH_BIAS] = {.part = {"global_to_local.bias"}},
    [ROLE_ATTENTION_NORM] = {.part = {"{0}_blocks.{l}.attention.layer_norm.scale"}},
    [ROLE_QKV] = {.part = {"{0}_blocks.{l}.attention.QKV_linear.weight"},
                  .instead = &grouped_queries},
    [ROLE_QK_NORM] = {.part = {"{0}_blocks.{l}.attention.Q_layer_norm.scale", NULL,
                               "{0}_blocks.{l}.attention.K_layer_norm.scale", NULL},
                      .how = VECTORS},
    [ROLE_ATTENTION_OUT] = {.part = {"{0}_blocks.{l}.attention.linear.weight"}},
    [ROLE_FF_NORM] = {.part = {"{0}_blocks.{l}.feedforward.layer_norm.scale"}},
    [ROLE_FF_UP] = {.part = {"{0}_blocks.{l}.feedforward.linear_1.weight"}},
    [ROLE_FF_DOWN] = {.part = {"{0}_blocks.{l}.feedforward.linear_2.weight"}},
    [ROLE_OUTPUT] = {.part = {"logits.logits_linear.weight"},
                     .how = FIRST_ROWS}, /* filled up to 64 n rows */
};
static const struct origin spacebyte_finest[ROLE_COUNT] = {
    [ROLE_POSITION] = {.part = {"local_position_encoding"}},
    [ROLE_NORM] = {.part = {"logits.layer_norm.scale"}},
};

static const struct origin tied_head = {.part = {"{0}.wte.weight"}};
static const struct origin bgpt_origins[ROLE_COUNT] = {
    [ROLE_START] = {.how = COMPUTED},
    [ROLE_POSITION] = {.part = {"{0}.wpe.weight", "patch_level_decoder.patch_embedding.bias"},
                       .how = SUM},
    [ROLE_EMBED] = {.part = {"patch_level_decoder.patch_embedding.weight"}, .how = COLUMNS},
    [ROLE_ATTENTION_NORM] = {.part = {"{0}.h.{l}.ln_1.weight"}},
    [ROLE_ATTENTION_NORM_BIAS] = {.part = {"{0}.h.{l}.ln_1.bias"}},
    [ROLE_QKV] = {.part = {"{0}.h.{l}.attn.c_attn.weight"}, .how = COLUMNS},
    [ROLE_QKV_BIAS] = {.part = {"{0}.h.{l}.attn.c_attn.bias"}},
    [ROLE_ATTENTION_OUT] = {.part = {"{0}.h.{l}.attn.c_proj.weight"}, .how = COLUMNS},
    [ROLE_ATTENTION_OUT_BIAS] = {.part = {"{0}.h.{l}.attn.c_proj.bias"}},
    [ROLE_FF_NORM] = {.part = {"{0}.h.{l}.ln_2.weight"}},
    [ROLE_FF_NORM_BIAS] = {.part = {"{0}.h.{l}.ln_2.bias"}},
    [ROLE_FF_UP] = {.part = {"{0}.h.{l}.mlp.c_fc.weight"}, .how = COLUMNS},
    [ROLE_FF_UP_BIAS] = {.part = {"{0}.h.{l}.mlp.c_fc.bias"}},
    [ROLE_FF_DOWN] = {.part = {"{0}.h.{l}.mlp.c_proj.weight"}, .how = COLUMNS},
    [ROLE_FF_DOWN_BIAS] = {.part = {"{0}.h.{l}.mlp.c_proj.bias"}},
    [ROLE_NORM] = {.part = {"{0}.ln_f.weight"}},
    [ROLE_NORM_BIAS] = {.part = {"{0}.ln_f.bias"}},
    [ROLE_OUTPUT] = {.part = {"byte_level_decoder.base.lm_head.weight"}, .instead = &tied_head},
};
static const struct origin tied_embedding = {.part = {"byte_level_decoder.base.lm_head.weight"}};
static const struct origin bgpt_finest[ROLE_COUNT] = {
    [ROLE_POSITION] = {.part = {"{0}.wpe.weight"},
                       .how = FIRST_ROWS}, /* has one for the byte after a patch */
    [ROLE_EMBED] = {.part = {"{0}.wte.weight"},
                    .instead = &tied_embedding}, /* safetensors keep one of the two */
};

/* ---------------------------------------------------------------------------------- names */

static int is_finest(const struct conversion *c, u32 stage) {
    return stage + 1 == c->sizes.n_stages;
}

/* A pattern with its {...} replaced, in `out`, which has room for NAME_BYTES. */
#define NAME_BYTES 128
static const char *expand(const struct conversion *c, char *out, const char *pattern, u32 stage,
                          u32 layer) {
    char *to = out;
    for (const char *p = pattern; *p; p++) {
        if (*p != '{') {
            *to++ = *p;
            continue;
        }
        if (p[1] <= '9') to += sprintf(to, "%s", c->family->words[is_finest(c, stage)][p[1] - '0']);
        else
            to += sprintf(to, "%u",
                          p[1] == 's'   ? stage
                          : p[1] == 'l' ? layer
                                        : c->sizes.n_stages - 1 - stage);
        p += 2;
    }
    *to = 0;
    return out;
}

static struct source *find_pattern(const struct conversion *c, const char *pattern, u32 stage,
                                   u32 layer) {
    char name[NAME_BYTES];
    return find_source(&c->in, expand(c, name, pattern, stage, layer));
}

static const struct origin *origin_of(const struct conversion *c, u32 role, u32 stage, u32 layer) {
    const struct origin *o = &c->family->finest[role];
    if (!is_finest(c, stage) || (!o->part[0] && !o->how)) o = &c->family->origins[role];
    if (o->instead && !find_pattern(c, o->part[0], stage, layer) &&
        find_pattern(c, o->instead->part[0], stage, layer))
        o = o->instead;
    return o;
}

static u32 parts_of(const struct origin *o) {
    u32 n = MAX_PARTS;
    while (n && !o->part[n - 1]) n--;
    return n;
}

static struct source *source_of(const struct conversion *c, u32 role, u32 stage, u32 layer,
                                u32 part) {
    const struct origin *o = origin_of(c, role, stage, layer);
    return o->part[part] ? find_pattern(c, o->part[part], stage, layer) : NULL;
}

/* Does `name` begin with `pattern`? Returns the rest of it, or NULL. '#' stands for a decimal
 * number; the last one goes to *number. */
static const char *match_name(const char *name, const char *pattern, u32 *number) {
    for (; *pattern; pattern++) {
        if (*pattern != '#') {
            if (*name++ != *pattern) return NULL;
            continue;
        }
        u32 n = 0, digits = 0;
        for (; *name >= '0' && *name <= '9' && digits < 6; name++, digits++)
            n = n * 10 + (u32)(*name - '0');
        if (!digits) return NULL;
        *number = n;
    }
    return name;
}

/* One more than the largest number that tensors of this pattern have; 0 if there are none. */
static u32 count_numbered(const struct checkpoint *in, const char *pattern) {
    u32 count = 0, n = 0;
    for (u64 i = 0; i < in->count; i++)
        if (match_name(in->tensors[i].name, pattern, &n) && n + 1 > count) count = n + 1;
    return count;
}

static int has_name(const struct checkpoint *in, const char *pattern) {
    u32 n;
    for (u64 i = 0; i < in->count; i++)
        if (match_name(in->tensors[i].name, pattern, &n)) return 1;
    return 0;
}

static status find_tensor(void *context, struct tensor *t) {
    struct conversion *c = context;
    const struct origin *o = origin_of(c, t->role, t->stage, t->layer);
    char name[NAME_BYTES];
    for (u32 part = 0; part < parts_of(o); part++) {
        if (!o->part[part]) continue;
        struct source *found = find_source(&c->in,
                                           expand(c, name, o->part[part], t->stage, t->layer));
        if (!found) {
            if (o->how != COMPUTED && !(o->optional >> part & 1)) add_name(&c->missing, name);
            continue;
        }
        found->used = 1;
        if (!element_types[found->type].readable)
            die(c->in.path, "tensor %s: its elements are %s; F32, F16, BF16 and F64 can be read",
                name, element_types[found->type].name);
    }
    return MEGABYTE_OK;
}

/* All tensors are there, and no others. */
static void check_names(struct conversion *c) {
    struct checkpoint *in = &c->in;
    each_tensor(&c->sizes, find_tensor, c);
    if (c->missing.count)
        die(in->path, "lacks %u of the model's tensors: %s", c->missing.count,
            show_names(&c->missing));
    struct names unused = {0, ""};
    for (u64 i = 0; i < in->count; i++) {
        const struct source *t = &in->tensors[i];
        int known = t->used || !element_types[t->type].readable; /* such as masks: no weights */
        for (u32 k = 0; k < 6 && c->family->ignored[k]; k++) {
            u32 n;
            const char *rest = match_name(t->name, c->family->ignored[k], &n);
            known |= rest && !*rest;
        }
        if (!known) add_name(&unused, t->name);
    }
    if (unused.count && !c->options->ignore_unknown)
        die(in->path,
            "tensors that are not part of the model, %u: %s; --ignore-unknown leaves them out",
            unused.count, show_names(&unused));
    if (unused.count) warn(in->path, "tensors left out, %u: %s", unused.count, show_names(&unused));
}

/* ---------------------------------------------------------------------------------- sizes */

static const char *show_shape(char out[100], const struct source *t) {
    size_t n = 0;
    out[n++] = '[';
    for (u32 i = 0; i < t->rank && i < MAX_RANK; i++)
        n += (size_t)snprintf(out + n, 100 - n, "%s%llu", i ? ", " : "", (ull)t->shape[i]);
    snprintf(out + n, 100 - n, t->rank > MAX_RANK ? ", ...]" : "]");
    return out;
}

/* Dimension i of a tensor that must be there. */
static u32 dimension(const struct conversion *c, u32 role, u32 stage, u32 part, u32 rank, u32 i) {
    const struct source *t = source_of(c, role, stage, 0, part);
    char shape[100], name[NAME_BYTES];
    if (!t)
        die(c->in.path, "lacks tensor %s",
            expand(c, name, origin_of(c, role, stage, 0)->part[part], stage, 0));
    if (t->rank != rank)
        die(c->in.path, "tensor %s: shape %s, but %u dimension%s expected", t->name,
            show_shape(shape, t), rank, rank == 1 ? " is" : "s are");
    if (!t->shape[i] || t->shape[i] > 1u << 24)
        die(c->in.path, "tensor %.200s: a dimension of %llu; 1 to %u are possible", t->name,
            (ull)t->shape[i], 1u << 24);
    return (u32)t->shape[i];
}

/* Of a matrix that may be stored either way. */
static u32 matrix_rows(const struct conversion *c, u32 role, u32 stage, u32 part) {
    return dimension(c, role, stage, part, 2, origin_of(c, role, stage, 0)->how == COLUMNS);
}

static ll argument(const struct conversion *c, u32 what, u32 stage) {
    const struct arguments *a = &c->config.arguments;
    if (a->count[what] && a->count[what] != c->sizes.n_stages)
        die(c->config.path, "%s lists %u stages, but %s has %u", a->list[what], a->count[what],
            c->in.path, c->sizes.n_stages);
    return a->at[what][stage];
}

/* An argument that the tensors don't tell and that has no default. */
static ll needed(const struct conversion *c, u32 what, u32 stage) {
    ll value = argument(c, what, stage);
    const struct key *k = c->config.keys;
    while (k->name && !(k->argument == what && k->kind < WITHOUT_EFFECT &&
                        (k->stage == stage || k->stage == EVERY)))
        k++;
    if (value == ABSENT) die(c->config.path, "%s is missing: the tensors don't tell it", k->name);
    return value;
}

static ll argument_or(const struct conversion *c, u32 what, u32 stage, ll otherwise) {
    ll value = argument(c, what, stage);
    return value == ABSENT ? otherwise : value;
}

/* Contradictions between the configuration and the tensors. */
static void compare(const struct conversion *c, u32 what, u32 stage, u64 actual) {
    ll value = argument(c, what, stage);
    if (value == ABSENT || (value >= 0 && (u64)value == actual)) return;
    die(c->config.path, "%s is %lld for stage %u, but the tensors of %s make it %llu",
        c->config.arguments.key[what][stage], value, stage, c->in.path, (ull)actual);
}

/* ... where a tensor is there exactly if the argument is set. */
static void compare_tensor(const struct conversion *c, u32 what, u32 stage, u32 role) {
    ll value = argument(c, what, stage);
    int there = source_of(c, role, stage, 0, 0) != NULL;
    char name[NAME_BYTES];
    if (value == ABSENT || value == there) return;
    die(c->config.path, "%s %s, but %s has %s tensor %s", c->config.arguments.key[what][stage],
        value ? "is set" : "is not set", c->in.path, there ? "a" : "no",
        expand(c, name, origin_of(c, role, stage, 0)->part[0], stage, 0));
}

static struct setting choose_setting(const struct conversion *c, ll option, const char *option_name,
                                     u32 what, u32 stage) {
    struct setting s = {ABSENT, NULL};
    ll otherwise = argument(c, what, stage);
    if (option != ABSENT) {
        s.value = option;
        s.from = option_name;
    } else if (otherwise != ABSENT) {
        size_t room = strlen(c->config.path) + 40; /* keys are shorter than 30 */
        char *from = allocate(room, 1);
        snprintf(from, room, "%s of %s", c->config.arguments.key[what][stage], c->config.path);
        s.value = otherwise;
        s.from = from;
    }
    return s;
}

/* Heads and their width: the projections only have the product, `inner`. Known, in this order:
 * options and configuration; a tensor that is as wide as a head (`told`, or 0); if one of the two
 * is known, the other by division; the constructor's defaults. */
static void derive_heads(struct conversion *c, u32 s, u32 inner, u32 told, const char *teller) {
    struct stage_sizes *g = &c->sizes.stage[s];
    struct setting heads = choose_setting(c, c->options->heads, "--heads", ARG_HEADS, s);
    struct setting width = choose_setting(c, c->options->dim_head, "--dim-head", ARG_HEAD_DIM, s);
    if (heads.from && (heads.value < 1 || heads.value > MAX_WIDTH))
        die(heads.from, "%lld heads; 1 to 65536 are possible", heads.value);
    if (width.from && (width.value < 1 || width.value > MAX_WIDTH))
        die(width.from, "heads %lld wide; 1 to 65536 are possible", width.value);
    if (told) {
        if (width.from && width.value != told)
            die(width.from, "heads are %lld wide, but tensor %s of %s makes it %u", width.value,
                teller, c->in.path, told);
        width.value = told;
        width.from = teller;
    }
    if (c->config.path && c->family->heads != ABSENT && c->options->heads == ABSENT &&
        c->options->dim_head ==
            ABSENT) { /* what the arguments leave out, the constructor fills in */
        if (!heads.from) heads.value = c->family->heads, heads.from = "the constructor's default";
        if (!width.from)
            width.value = c->family->head_dim, width.from = "the constructor's default";
    }
    if (!heads.from && !width.from) {
        ll usual = c->family->head_dim;
        if (usual == ABSENT || (!c->config.path && c->family->heads != ABSENT) || inner % usual)
            die(c->in.path, "the tensors don't tell the number of heads: give --heads or --config");
        if ((heads.value = c->family->heads) != ABSENT) heads.from = "the constructor's default";
        width.value = usual;
        width.from = "the constructor's default";
    }
    if (heads.from && width.from) {
        if (heads.value * width.value != inner)
            die(c->in.path,
                "stage %u: heads %lld (%s) x width %lld (%s) is %lld, but queries are %u wide", s,
                heads.value, heads.from, width.value, width.from, heads.value * width.value, inner);
    } else if (inner % (heads.from ? heads.value : width.value)) {
        die(c->in.path, "stage %u: queries are %u wide, which %s %lld (%s) does not divide", s,
            inner, heads.from ? "heads" : "head width", heads.from ? heads.value : width.value,
            heads.from ? heads.from : width.from);
    }
    g->heads = heads.from ? (u32)heads.value : inner / (u32)width.value;
    g->head_dim = inner / g->heads;
}

/* How many tokens stage 0 has: `told` by the tensors, or 0. */
static void derive_context(struct conversion *c, u32 told) {
    struct setting n = choose_setting(c, c->options->positions, "--seq-len", ARG_POSITIONS, 0);
    if (!n.from && !told)
        die(c->in.path,
            "the tensors don't tell the context's length in patches: give --seq-len or --config");
    if (n.from && (n.value < 1 || n.value > 1 << 24))
        die(n.from, "a context of %lld patches; 1 to %d are possible", n.value, 1 << 24);
    if (n.from && told && n.value != told)
        die(n.from, "a context of %lld patches, but tensor %s of %s is for %u", n.value,
            source_of(c, ROLE_POSITION, 0, 0, 0)->name, c->in.path, told);
    c->sizes.stage[0].positions = n.from ? (u32)n.value : told;
}

static void compare_widths(const struct conversion *c, u32 s) {
    const struct stage_sizes *g = &c->sizes.stage[s];
    ll times = argument(c, ARG_FF_MULT, s);
    compare(c, ARG_DIM, s, g->dim);
    compare(c, ARG_DEPTH, s, g->layers);
    if (times != ABSENT && times * (ll)g->dim != g->ff_dim)
        die(c->config.path, "%s is %lld for stage %u, but the tensors of %s have %u x %u",
            c->config.arguments.key[ARG_FF_MULT][s], times, s, c->in.path, g->dim, g->ff_dim);
}

/* Training code often passes an id outside the vocabulary to say that no byte is padding. */
static void derive_pad(struct conversion *c, ll otherwise) {
    struct sizes *z = &c->sizes;
    ll pad = choose_setting(c, c->options->pad_id, "--pad-id", ARG_PAD_ID, 0).value;
    if (pad == ABSENT) pad = otherwise;
    z->pad_id = pad >= 0 && pad < z->vocabulary ? (u32)pad : UINT32_MAX;
}

static void derive_staged(struct conversion *c) {
    struct sizes *z = &c->sizes;
    u32 last = z->n_stages - 1;
    z->vocabulary = dimension(c, ROLE_EMBED, last, 0, 2, 0);
    compare(c, ARG_VOCABULARY, last, z->vocabulary);
    for (u32 s = 0; s <= last; s++) {
        struct stage_sizes *g = &z->stage[s];
        const struct source *rotary = source_of(c, ROLE_ROTARY, s, 0, 0);
        int table = source_of(c, ROLE_POSITION, s, 0, 0) != NULL;
        ll learned = argument(c, ARG_LEARNED, s);
        g->flags = (table ? POSITION_LEARNED : 0) | (rotary ? POSITION_ROTARY : 0);
        if (learned == INPUT_ROTATED && !table) g->flags |= INPUT_ROTARY;
        else compare_tensor(c, ARG_LEARNED, s, ROLE_POSITION);
        compare_tensor(c, ARG_ROTARY, s, ROLE_ROTARY);
        g->dim = dimension(c, ROLE_START, s, 0, 1, 0);
        g->ff_dim = dimension(c, ROLE_FF_UP, s, 0, 2, 0);
        if (s) {
            u32 rows = dimension(c, ROLE_OUTPUT, s - 1, 0, 2, 0);
            if (rows % g->dim)
                die(c->in.path, "tensor %s has %u rows, no multiple of stage %u's width %u",
                    source_of(c, ROLE_OUTPUT, s - 1, 0, 0)->name, rows, s, g->dim);
            g->positions = rows / g->dim;
            compare(c, ARG_POSITIONS, s, g->positions);
        } else {
            derive_context(c, table ? dimension(c, ROLE_POSITION, 0, 0, 2, 0) : 0);
        }
        compare_widths(c, s);
    }
    for (u32 s = 0; s <= last; s++) {
        const struct source *rotary = source_of(c, ROLE_ROTARY, s, 0, 0);
        derive_heads(c, s, dimension(c, ROLE_QKV, s, 0, 2, 0),
                     rotary ? 2 * dimension(c, ROLE_ROTARY, s, 0, 1, 0) : 0,
                     rotary ? rotary->name : NULL);
    }
    derive_pad(c, z->family == FAMILY_LUCIDRAINS && c->config.path ? 0 : ABSENT);
}

/* What the three families without start tokens have in common; their dims, patch size and
 * vocabulary are known. */
static void derive_paper_stage(struct conversion *c, u32 s) {
    struct stage_sizes *g = &c->sizes.stage[s];
    const struct source *norm = source_of(c, ROLE_QK_NORM, s, 0, 0);
    u32 n = parts_of(origin_of(c, ROLE_QKV, s, 0)), rows = matrix_rows(c, ROLE_QKV, s, 0);
    u32 inner = n == 1 ? rows / 3 : rows;
    if (!inner)
        die(c->in.path, "tensor %s: %u rows are too few for queries, keys and values",
            source_of(c, ROLE_QKV, s, 0, 0)->name, rows);
    u32 kv = n == 1 ? inner : matrix_rows(c, ROLE_QKV, s, 1) / (n == 2 ? 2 : 1);
    derive_heads(c, s, inner, norm ? dimension(c, ROLE_QK_NORM, s, 0, 1, 0) : 0,
                 norm ? norm->name : NULL);
    g->kv_heads = kv / g->head_dim; /* check_shape sees what is left over */
    g->ff_dim = matrix_rows(c, ROLE_FF_UP, s, 0);
    if (source_of(c, ROLE_POSITION, s, 0, 0)) g->flags |= POSITION_LEARNED;
    if (source_of(c, ROLE_NORM, s, 0, 0)) g->flags |= FINAL_NORM;
    if (argument(c, ARG_ROTARY, s) == 1) g->flags |= POSITION_ROTARY;
    if (norm) g->flags |= QK_NORM;
    compare_tensor(c, ARG_QK_NORM, s, ROLE_QK_NORM);
    compare(c, ARG_VOCABULARY, s, c->sizes.vocabulary);
    compare_widths(c, s);
}

static void derive_megabyte(struct conversion *c) {
    struct sizes *z = &c->sizes;
    struct stage_sizes *g = z->stage;
    u32 narrow = dimension(c, ROLE_EMBED, 0, 0, 2, 1);
    ll patch = needed(c, ARG_POSITIONS, 1), end = argument(c, ARG_END_ID, 0),
       cross = argument_or(c, ARG_CROSS, 1, 0);
    if (patch < 1 || patch > MAX_WIDTH || (u64)patch * narrow > MAX_WIDTH)
        die(c->config.path, "patch_size is %lld: patches of 65536 / %u bytes are possible", patch,
            narrow);
    z->vocabulary = dimension(c, ROLE_EMBED, 1, 0, 2, 0);
    g[1].positions = (u32)patch;
    g[0].dim = (u32)patch * narrow;
    g[1].dim = dimension(c, ROLE_EMBED, 1, 0, 2, 1);
    if (source_of(c, ROLE_POSITION, 0, 0, 0)) {
        u32 rows = dimension(c, ROLE_POSITION, 0, 0, 2, 0);
        if (rows % (u32)patch)
            die(c->config.path, "patch_size is %lld, which does not divide the %u rows of %s",
                patch, rows, source_of(c, ROLE_POSITION, 0, 0, 0)->name);
        derive_context(c, rows / (u32)patch);
    } else {
        derive_context(c, 0);
    }
    if (source_of(c, ROLE_PATCH, 1, 0, 0)) g[1].flags |= PATCH_PROJECTION;
    else if (narrow != g[1].dim)
        die(c->in.path, "lacks tensor global_to_local.weight, which widths of %u and %u need",
            narrow, g[1].dim);
    for (u32 i = 0; i < MAX_CONVOLUTIONS; i++) {
        const struct source *t = source_of(c, ROLE_CONVOLUTION, 0, i, 0);
        if (t) g[0].convolution[i] = t->rank == 3 ? (u32)min64(t->shape[2], UINT32_MAX) : 0;
        if (t && (!g[0].convolution[i] || (i && !g[0].convolution[i - 1])))
            die(c->in.path,
                "tensor %s: [out, in, width] is expected, after those with lower numbers", t->name);
    }
    if (cross < 0 || cross > patch)
        die(c->config.path, "cross_patch is %lld; 0 to %lld are possible", cross, patch);
    g[1].cross = (u32)cross;
    for (u32 s = 0; s < 2; s++) {
        g[s].norm = (u32)needed(c, ARG_NORM, s);
        g[s].activation = (u32)needed(c, ARG_ACTIVATION, s);
        needed(c, ARG_PADDING, s);
        compare_tensor(c, ARG_PADDING, s, ROLE_START);
        derive_paper_stage(c, s);
    }
    derive_pad(c, ABSENT);
    if (end != ABSENT && (end < 256 || end >= z->vocabulary))
        die(c->config.path,
            "end_id is %lld: it must be one of the vocabulary's %u ids, beyond the 256 bytes", end,
            z->vocabulary);
    if (end != ABSENT) z->end_id = (u32)end;
}

static void derive_spacebyte(struct conversion *c) {
    struct sizes *z = &c->sizes;
    struct stage_sizes *g = z->stage;
    u32 narrow = dimension(c, ROLE_EMBED, 0, 0, 2, 1),
        bytes = dimension(c, ROLE_POSITION, 0, 0, 2, 0);
    g[1].positions = dimension(c, ROLE_POSITION, 1, 0, 2, 0);
    if (bytes % g[1].positions || (u64)g[1].positions * narrow > MAX_WIDTH)
        die(c->in.path, "tensor %s has %u rows: no whole patches of %u bytes, %u wide each",
            source_of(c, ROLE_POSITION, 0, 0, 0)->name, bytes, g[1].positions, narrow);
    z->vocabulary = dimension(c, ROLE_EMBED, 1, 0, 2, 0);
    compare(c, ARG_POSITIONS, 1, g[1].positions);
    compare(c, ARG_BYTES, 0, bytes);
    derive_context(c, bytes / g[1].positions);
    g[0].dim = g[1].positions * narrow;
    g[1].dim = dimension(c, ROLE_EMBED, 1, 0, 2, 1);
    g[1].flags = PATCH_PROJECTION;
    for (u32 s = 0; s < 2; s++) {
        g[s].norm = (u32)argument_or(c, ARG_NORM, s, NORM_LAYER);
        g[s].activation = (u32)argument_or(c, ARG_ACTIVATION, s, RELU);
        compare_tensor(c, ARG_PADDING, s, ROLE_START);
        compare_tensor(c, ARG_LEARNED, s, ROLE_POSITION);
        derive_paper_stage(c, s);
        if (g[s].flags & POSITION_ROTARY) c->interleaved |= 1u << s;
        if (argument(c, ARG_KV_HEADS, s) != ABSENT) compare(c, ARG_KV_HEADS, s, g[s].kv_heads);
    }
    c->scaled_queries = argument(c, ARG_INIT, 0) == SCALED_QUERIES;
    int padded = source_of(c, ROLE_START, 0, 0, 0) != NULL;
    if (padded != (source_of(c, ROLE_START, 1, 0, 0) != NULL))
        die(c->in.path, "lacks tensor %s, or has one too many",
            padded ? "local_pad" : "global_pad");
    if (!padded) {
        ll first = needed(c, ARG_FIRST_ID, 0);
        if (first < 0 || first >= z->vocabulary)
            die(c->config.path, "BOS is %lld, which is none of the vocabulary's %u ids", first,
                z->vocabulary);
        c->first_id = (u32)first;
        g[1].flags |= PREVIOUS_BYTE;
    }
    derive_pad(c, ABSENT);
}

static void derive_bgpt(struct conversion *c) {
    struct sizes *z = &c->sizes;
    struct stage_sizes *g = z->stage;
    u32 columns = dimension(c, ROLE_EMBED, 0, 0, 2, 1);
    z->vocabulary = dimension(c, ROLE_EMBED, 1, 0, 2, 0);
    if (z->vocabulary != 257 || columns % 257)
        die(c->in.path, "an embedding of %u ids and one of %u columns: bGPT has 257 ids",
            z->vocabulary, columns);
    g[1].positions = columns / 257;
    compare(c, ARG_POSITIONS, 1, g[1].positions);
    c->config.text[TEXT_EXTENSION] = c->extension = c->options->extension ? c->options->extension
                                                                          : "txt";
    if (strlen(c->extension) > g[1].positions)
        die_usage("--type", "'%.100s' is longer than a patch, of %u bytes", c->extension,
                  g[1].positions);
    derive_context(c, dimension(c, ROLE_POSITION, 0, 0, 2, 0));
    g[0].flags = COLUMN_SUM;
    g[1].flags = CONDITION_FIRST;
    for (u32 s = 0; s < 2; s++) {
        g[s].dim = dimension(c, ROLE_POSITION, s, 0, 2, 1);
        g[s].norm = NORM_LAYER;
        g[s].activation = GELU_TANH;
        derive_paper_stage(c, s);
    }
    derive_pad(c, 256);
    z->end_id = 256;
}

/* Vectors: one row. Embeddings and positions are kept like them, row by row, but are tables. */
static int is_vector(u32 role) {
    return !is_matrix(role) && role != ROLE_POSITION && role != ROLE_EMBED &&
           role != ROLE_CONVOLUTION && role != ROLE_QK_NORM;
}

/* The length of a part's first dimension, where parts are joined: those of queries, keys and
 * values. */
static u32 part_length(const struct conversion *c, const struct tensor *t, u32 n_parts, u32 part) {
    const struct stage_sizes *g = &c->sizes.stage[t->stage];
    u32 kv = (g->kv_heads ? g->kv_heads : g->heads) * g->head_dim;
    if (n_parts > 1 && (t->role == ROLE_QKV || t->role == ROLE_QKV_BIAS))
        return !part ? g->heads * g->head_dim : n_parts == 2 ? 2 * kv : kv;
    return is_vector(t->role) ? t->cols : t->rows;
}

static u32 expected_shape(const struct conversion *c, const struct origin *o,
                          const struct tensor *t, u32 part, u64 shape[3]) {
    u64 patch = c->sizes.stage[1].positions, rows = part_length(c, t, parts_of(o), part),
        cols = t->cols;
    u32 rank = is_vector(t->role) || o->how == VECTORS || (o->how == SUM && part) ? 1
               : o->how == TAPS                                                   ? 3
                                                                                  : 2;
    if (o->how == COLUMNS) rows = t->cols, cols = t->rows;
    if (o->how == PER_BYTE || o->how == PER_BYTE_BEFORE)
        rows = t->rows * patch, cols = t->cols / patch;
    if (o->how == TAPS) cols = t->rows;
    if (rank == 1 && !is_vector(t->role)) rows = t->cols;
    shape[0] = rows;
    shape[1] = cols;
    shape[2] = t->cols / t->rows; /* TAPS */
    return rank;
}

static status check_shape(void *context, struct tensor *t) {
    const struct conversion *c = context;
    const struct origin *o = origin_of(c, t->role, t->stage, t->layer);
    for (u32 part = 0; part < parts_of(o); part++) {
        const struct source *from = source_of(c, t->role, t->stage, t->layer, part);
        char shape[100], wanted[100];
        struct source expected = {0};
        if (!from) continue;
        expected.rank = expected_shape(c, o, t, part, expected.shape);
        int same = from->rank == expected.rank;
        for (u32 i = 0; same && i < expected.rank; i++)
            same = from->shape[i] == expected.shape[i] ||
                   (o->how == FIRST_ROWS && i == 0 && from->shape[0] > expected.shape[0]);
        if (!same)
            die(c->in.path, "tensor %s: shape %s instead of %s", from->name,
                show_shape(shape, from), show_shape(wanted, &expected));
    }
    return MEGABYTE_OK;
}

/* ---------------------------------------------------------------------------------- rows */

/* Channel i of a head, where pairs that rotate together lie side by side instead of half a head
 * apart. */
static u32 interleaved_channel(u32 i, u32 head_dim) {
    return i < head_dim / 2 ? 2 * i : 2 * (i - head_dim / 2) + 1;
}

/* Which of the checkpoint's rows row `row` is. */
static u32 source_row(const struct conversion *c, const struct tensor *t, u32 row) {
    const struct stage_sizes *g = &c->sizes.stage[t->stage];
    u32 within = row % g->head_dim;
    if (t->role != ROLE_QKV || !(c->interleaved >> t->stage & 1) ||
        row >= (g->heads + g->kv_heads) * g->head_dim)
        return row;
    return row - within + interleaved_channel(within, g->head_dim);
}

static float addend[MAX_WIDTH]; /* a row that something is made of */

static void read_vector(struct conversion *c, const struct source *t, u32 n, float *to) {
    if (t) read_line(&c->in, t, 0, t->stride[0], n, to);
    else memset(to, 0, n * sizeof *to);
}
static void read_table_row(struct conversion *c, const struct source *t, u64 row, u32 n,
                           float *to) {
    read_line(&c->in, t, row * t->stride[0], t->stride[1], n, to);
}

/* Parts one after the other: rows of a matrix or table, pieces of a vector. */
static void read_joined(struct conversion *c, const struct origin *o, const struct tensor *t,
                        u32 row, float *to) {
    u32 n = parts_of(o), at = source_row(c, t, row);
    if (!n) memset(to, 0, t->cols * sizeof *to);
    for (u32 part = 0; part < n; part++) {
        const struct source *from = source_of(c, t->role, t->stage, t->layer, part);
        u32 length = part_length(c, t, n, part);
        if (is_vector(t->role)) {
            read_vector(c, from, length, to);
            to += length;
        } else if (at < length) {
            read_table_row(c, from, at, t->cols, to);
            return;
        } else {
            at -= length;
        }
    }
}

/* The convolutions of stage 0 over x[count][width], nothing standing before the first row; without
 * their biases if `linear`. Returns x or y, whichever has the result. */
static double *convolve(struct conversion *c, double *x, double *y, u64 count, u32 width,
                        int linear) {
    const struct stage_sizes *g = c->sizes.stage;
    for (u32 l = 0; l < MAX_CONVOLUTIONS && g->convolution[l]; l++) {
        const struct source *w = source_of(c, ROLE_CONVOLUTION, 0, l, 0);
        read_vector(c, linear ? NULL : source_of(c, ROLE_CONVOLUTION_BIAS, 0, l, 0), width, addend);
        for (u64 t = 0; t < count; t++)
            for (u32 i = 0; i < width; i++) y[t * width + i] = addend[i];
        for (u32 out = 0; out < width; out++)
            for (u32 back = 0; back < g->convolution[l];
                 back++) { /* y_t += W[out, :, last - back] x_{t - back} */
                read_line(&c->in, w,
                          out * w->stride[0] + (g->convolution[l] - 1 - back) * w->stride[2],
                          w->stride[1], width, addend);
                for (u64 t = back; t < count; t++)
                    for (u32 i = 0; i < width; i++)
                        y[t * width + out] += addend[i] * x[(t - back) * width + i];
            }
        double *swap = x;
        x = y;
        y = swap;
    }
    return x;
}

/* Positions are added before the convolutions; the runtime adds them behind. That is the same, if
 * they have gone through the convolutions (without biases) by themselves: [bytes, D_G], in double
 * until rounded once. */
static const double *convolved_positions(struct conversion *c, const struct source *t, u32 width) {
    if (c->positions) return c->positions;
    double *x = allocate(t->elements, sizeof *x), *y = allocate(t->elements, sizeof *y);
    for (u64 row = 0; row < t->shape[0]; row++) {
        read_table_row(c, t, row, width, addend);
        for (u32 i = 0; i < width; i++) x[row * width + i] = addend[i];
    }
    return c->positions = convolve(c, x, y, t->shape[0], width, 1);
}

/* Row `row` of the model's tensor t, all cols of it. */
static void read_row(struct conversion *c, const struct tensor *t, u32 row, float *to) {
    const struct origin *o = origin_of(c, t->role, t->stage, t->layer);
    const struct source *from = source_of(c, t->role, t->stage, t->layer, 0);
    const struct stage_sizes *g = &c->sizes.stage[t->stage];
    u32 patch = c->sizes.stage[1].positions, piece = t->cols / patch;
    switch (o->how) {
    case COLUMNS:
        read_line(&c->in, from, row * from->stride[1], from->stride[0], t->cols, to);
        break;
    case PER_BYTE_BEFORE:
        memset(to, 0, t->cols * sizeof *to);
        if (!row--) break;
        if (g->convolution[0]) {
            const double *table = convolved_positions(c, from, piece) + (u64)row * t->cols;
            for (u32 i = 0; i < t->cols; i++) to[i] = (float)table[i];
            break;
        } /* fall through */
    case PER_BYTE:
        for (u32 p = 0; p < patch; p++)
            read_table_row(c, from, (u64)row * patch + p, piece, to + p * piece);
        break;
    case SUM:
        read_table_row(c, from, row, t->cols, to);
        read_vector(c, source_of(c, t->role, t->stage, t->layer, 1), t->cols, addend);
        for (u32 i = 0; i < t->cols; i++) to[i] += addend[i];
        break;
    case VECTORS:
        read_vector(c, source_of(c, t->role, t->stage, t->layer, row), t->cols, addend);
        for (u32 i = 0; i < t->cols; i++)
            to[i] = addend[c->interleaved >> t->stage & 1 ? interleaved_channel(i, t->cols) : i];
        break;
    case TAPS:
        for (u32 k = 0; k < t->cols / t->rows; k++)
            read_line(&c->in, from, row * from->stride[0] + k * from->stride[2], from->stride[1],
                      t->rows, to + k * t->rows);
        break;
    case FREQUENCIES:
        for (u32 i = 0; i < t->cols; i++) to[i] = (float)pow(10000, -(double)i / t->cols);
        break;
    case COMPUTED:
        if (from) read_vector(c, from, t->cols, to);
        else c->family->start(c, t->stage, to);
        break;
    default: read_joined(c, o, t, row, to);
    }
    if (t->role != ROLE_QKV || !c->scaled_queries || g->flags & QK_NORM ||
        row >= g->heads * g->head_dim)
        return;
    for (u32 i = 0; i < t->cols; i++) to[i] = (float)(to[i] / sqrt(g->head_dim));
}

/* Without a trained pad: what `first_id` at every byte before the text gives, positions included.
 * The runtime adds no positions to it. */
static void start_of_bytes(struct conversion *c, u32 stage, float *to) {
    const struct stage_sizes *g = &c->sizes.stage[stage];
    const struct source *position = source_of(c, ROLE_POSITION, stage, 0, 0);
    u32 patch = stage ? 1 : c->sizes.stage[1].positions, width = g->dim / patch;
    double *x = allocate(g->dim, sizeof *x), *y = allocate(g->dim, sizeof *y), *result = x;
    for (u32 p = 0; p < patch; p++) {
        read_table_row(c, source_of(c, ROLE_EMBED, stage, 0, 0), c->first_id, width, to);
        memset(addend, 0, width * sizeof *addend);
        if (position) read_table_row(c, position, p, width, addend);
        for (u32 i = 0; i < width; i++) x[p * width + i] = (double)to[i] + addend[i];
    }
    if (!stage) result = convolve(c, x, y, patch, width, 0);
    for (u32 i = 0; i < g->dim; i++) to[i] = (float)result[i];
    free(x), free(y);
}

/* Patch 0 is the file's extension, filled up with the end id; the local stage begins with nothing
 * but a position. */
static void start_of_bgpt(struct conversion *c, u32 stage, float *to) {
    const struct source *embed = source_of(c, ROLE_EMBED, 0, 0, 0);
    const char *extension = c->extension;
    u32 dim = c->sizes.stage[stage].dim, patch = c->sizes.stage[1].positions,
        n = (u32)strlen(extension);
    double *sum = allocate(dim, sizeof *sum);
    read_table_row(c, source_of(c, ROLE_POSITION, stage, 0, 0), 0, dim, to);
    for (u32 i = 0; i < dim; i++) sum[i] = to[i];
    for (u32 p = 0; !stage && p <= patch; p++) { /* last, the bias */
        u64 column = (u64)p * c->sizes.vocabulary + (p < n ? (u8)extension[p] : 256);
        if (p == patch) read_vector(c, source_of(c, ROLE_POSITION, 0, 0, 1), dim, addend);
        else read_line(&c->in, embed, column * embed->stride[1], embed->stride[0], dim, addend);
        for (u32 i = 0; i < dim; i++) sum[i] += addend[i];
    }
    for (u32 i = 0; i < dim; i++) to[i] = (float)sum[i];
    free(sum);
}

static const struct family families[] = {
    {"ai4sd/multiscale-byte-lm (MBLM)",
     FAMILY_MBLM,
     {"stage_models.#", "token_embs_rev.#"},
     {{"stage_models", "token_embs_rev", "to_next_stage_proj"},
      {"stage_models", "token_embs_rev", "to_next_stage_proj"}},
     "stage_models.{s}.layers.#.",
     staged_origins,
     staged_finest,
     {NULL},
     mblm_keys,
     1,
     ABSENT,
     ABSENT,
     derive_staged,
     NULL},
    {"kjslag/spacebyte (MegaByte)",
     FAMILY_SPACEBYTE,
     {"global_blocks.#", "local_blocks.#"},
     {{"global"}, {"local"}},
     "{0}_blocks.#.",
     spacebyte_origins,
     spacebyte_finest,
     {NULL},
     spacebyte_keys,
     1,
     ABSENT,
     64,
     derive_spacebyte,
     start_of_bytes},
    {"sander-wood/bgpt",
     FAMILY_BGPT,
     {"patch_level_decoder.", "byte_level_decoder."},
     {{"patch_level_decoder.base"}, {"byte_level_decoder.base.transformer"}},
     "{0}.h.#.",
     bgpt_origins,
     bgpt_finest,
     {"patch_level_decoder.base.wte.weight", "patch_level_decoder.base.h.#.attn.bias",
      "patch_level_decoder.base.h.#.attn.masked_bias",
      "byte_level_decoder.base.transformer.h.#.attn.bias",
      "byte_level_decoder.base.transformer.h.#.attn.masked_bias"},
     bgpt_keys,
     0,
     ABSENT,
     64,
     derive_bgpt,
     start_of_bgpt},
    {"the paper (megabyte-paper)",
     FAMILY_PAPER,
     {"global.layers.#.", "global.embedding.", "local.layers.#."},
     {{"global"}, {"local"}},
     "{0}.layers.#.",
     paper_origins,
     paper_finest,
     {NULL},
     paper_keys,
     1,
     ABSENT,
     ABSENT,
     derive_megabyte,
     start_of_bytes},
    {"lucidrains/MEGABYTE-pytorch",
     FAMILY_LUCIDRAINS,
     {"start_tokens.#", "pos_embs.#.", "token_embs.#.", "transformers.#."},
     {{"transformers", "token_embs", "to_next_transformer_projections"},
      {"transformers", "token_embs", "to_next_transformer_projections"}},
     "transformers.{s}.layers.#.",
     staged_origins,
     staged_finest,
     {NULL},
     lucidrains_keys,
     0,
     8,
     64,
     derive_staged,
     NULL},
    {.title = NULL}};

static void check_mamba(const struct checkpoint *in) {
    for (u64 i = 0; i < in->count; i++)
        if (!strncmp(in->tensors[i].name, "stage_models.", 13) &&
            strstr(in->tensors[i].name, "A_log"))
            die(in->path,
                "tensor %s belongs to a Mamba stage; this version runs transformer stages only",
                in->tensors[i].name);
}

/* What names alone tell: the family, how many stages and layers. */
static void recognise_names(struct conversion *c) {
    static const char *const numbered[] = {"start_tokens.#", "pos_embs.#.", "{1}.#.", "{0}.#."};
    struct checkpoint *in = &c->in;
    struct sizes *z = &c->sizes;
    char name[NAME_BYTES];
    for (const struct family *f = families; f->title && !c->family; f++)
        for (u32 i = 0; i < 4 && f->marks[i]; i++)
            if (has_name(in, f->marks[i])) c->family = f;
    if (!c->family)
        die(in->path,
            "holds no tensor of a known model; MEGABYTE-pytorch's are named start_tokens.0, "
            "token_embs.0.weight, transformers.0. and so on, MBLM's stage_models.0., SpaceByte's global_blocks.0., "
            "bGPT's patch_level_decoder., and models after the paper have global.layers.0. and local.layers.0.");
    z->family = c->family->id;
    z->end_id = z->pad_id = UINT32_MAX;
    check_mamba(in);
    if (!has_start_token(z)) z->n_stages = 2;
    for (size_t i = 0; has_start_token(z) && i < sizeof numbered / sizeof *numbered; i++) {
        u32 n = count_numbered(in, expand(c, name, numbered[i], 0, 0));
        if (n > z->n_stages) z->n_stages = n;
    }
    if (z->n_stages < 2 || z->n_stages > MEGABYTE_MAX_STAGES)
        die(in->path, "its tensors are numbered for %u stage%s; this version runs 2 to %d",
            z->n_stages, z->n_stages == 1 ? "" : "s", MEGABYTE_MAX_STAGES);
    for (u32 s = 0; s < z->n_stages; s++) {
        struct stage_sizes *g = &z->stage[s];
        g->layers = count_numbered(in, expand(c, name, c->family->layers, s, 0));
        if (g->layers > 4096)
            die(in->path, "stage %u has %u layers; 4096 are possible", s, g->layers);
        if (!g->layers) g->layers = 1; /* then that one's tensors are what is missing */
    }
}

/* What shapes tell, and what the configuration and the options add. */
static void derive_sizes(struct conversion *c) {
    megabyte_error e;
    if (c->family->needs_config && !c->config.path)
        die(c->in.path,
            "a checkpoint of %s: its tensors don't tell all of the model; give its configuration by "
            "--config",
            c->family->title);
    if (c->options->extension && c->family->id != FAMILY_BGPT)
        die_usage("--type", "a model of %s does not ask what kind of file it reads",
                  c->family->title);
    c->family->derive(c);
    clear_error(&e);
    if (check_sizes(&c->sizes, &e)) die(c->in.path, "%s", e.text);
    check_names(c);
    each_tensor(&c->sizes, check_shape, c);
}

/* =============================================================================== 7 quantization */

/* Everything that is written goes through here, so that a full disk is noticed. */
struct writer {
    FILE *file;
    u64 at;
};

static void write_bytes(struct writer *w, const void *bytes, u64 n) {
    if (n && fwrite(bytes, 1, (size_t)n, w->file) != n)
        die(temporary_path, "cannot write: %s", strerror(errno));
    w->at += n;
}
static void write_zeros(struct writer *w, u64 until) {
    static const u8 zeros[64];
    while (w->at < until) write_bytes(w, zeros, min64(until - w->at, sizeof zeros));
}

static float *row_values; /* as long as the model's longest row */
static u8
    tile_bytes[MAX_WIDTH * 64]; /* 16 rows, f32 or q8: check_sizes bounds the columns of matrices */

static void put_f32(u8 *p, float v) { put32(p, f32_to_bits(v)); }

/* Vectors and embeddings: row-major floats. */
static void write_f32(struct writer *w, struct conversion *c, const struct tensor *t) {
    for (u32 row = 0; row < t->rows; row++) {
        read_row(c, t, row, row_values);
        for (u32 at = 0, n; at < t->cols; at += n) {
            n = min32(t->cols - at, MAX_WIDTH);
            for (u32 i = 0; i < n; i++) put_f32(tile_bytes + 4 * i, row_values[at + i]);
            write_bytes(w, tile_bytes, 4 * (u64)n);
        }
    }
}

/* Tiles of 16 output rows: [tile][cols][16]. */
static void write_f32_tiled(struct writer *w, struct conversion *c, const struct tensor *t) {
    for (u32 tile = 0; tile < t->rows; tile += 16) {
        memset(tile_bytes, 0, (size_t)t->cols * 64);
        for (u32 r = 0; r < min32(16, t->rows - tile); r++) {
            read_row(c, t, tile + r, row_values);
            for (u32 k = 0; k < t->cols; k++)
                put_f32(tile_bytes + 4 * ((size_t)k * 16 + r), row_values[k]);
        }
        write_bytes(w, tile_bytes, (u64)t->cols * 64);
    }
}

/* One row to int8 with one scale: w ~ scale * q, q in -127..127, |error| <= scale / 2. In double,
 * and rounded to even on ties: the same bytes on every machine. Returns the scale. */
static float quantize_row(const float *w, u32 n, i8 *q) {
    float largest = 0;
    for (u32 k = 0; k < n; k++)
        if (fabsf(w[k]) > largest) largest = fabsf(w[k]);
    float scale = (float)((double)largest / 127.0);
    for (u32 k = 0; k < n;
         k++) { /* denormals: the scale may be 0, or so rounded that q passes 127 */
        double v = scale > 0 ? rint((double)w[k] / (double)scale) : 0.0;
        q[k] = (i8)(v > 127 ? 127 : v < -127 ? -127 : v);
    }
    return scale;
}

/* Tiles of 16 output rows of q + 128: [tile][cols / 4][16][4], filled up with 128; then the rows'
 * scales. */
static void write_q8_tiled(struct writer *w, struct conversion *c, const struct tensor *t) {
    static i8 q[MAX_WIDTH];
    u64 rows = round_up(t->rows, 16), tile_size = round_up(t->cols, 4) * 16;
    u8 *scales = allocate(rows, 4);
    for (u32 tile = 0; tile < t->rows; tile += 16) {
        memset(tile_bytes, 128, (size_t)tile_size);
        for (u32 r = 0; r < min32(16, t->rows - tile); r++) {
            read_row(c, t, tile + r, row_values);
            put_f32(scales + 4 * ((u64)tile + r), quantize_row(row_values, t->cols, q));
            for (u32 k = 0; k < t->cols; k++)
                tile_bytes[(k / 4) * 64 + r * 4 + k % 4] = (u8)(q[k] + 128);
        }
        write_bytes(w, tile_bytes, tile_size);
    }
    write_bytes(w, scales, rows * 4);
    free(scales);
}

/* ================================================================================= 8 model file */

static status plan_tensor(void *context, struct tensor *t) {
    struct conversion *c = context;
    t->type = is_matrix(t->role) ? c->options->matrix_type : TYPE_F32;
    t->offset = c->offset;
    c->offset = round_up(t->offset + tensor_data_bytes(t), ALIGN);
    c->tensors[c->n_tensors++] = *t;
    if (t->cols > c->longest) c->longest = t->cols;
    return MEGABYTE_OK;
}

/* Appends key NUL value NUL with their lengths in front; with out NULL, only tells the bytes. */
static u64 put_text(u8 *out, const char *key, const char *value) {
    u64 n_key = strlen(key), n_value = strlen(value);
    if (out) {
        put32(out, (u32)n_key);
        put32(out + 4, (u32)n_value);
        memcpy(out + 8, key, (size_t)n_key + 1);
        memcpy(out + 8 + n_key + 1, value, (size_t)n_value + 1);
    }
    return 8 + n_key + 1 + n_value + 1;
}

static u64 put_metadata(u8 *out, const struct config *config) {
    u64 at = 4;
    u32 count = 0;
    for (int i = 0; i < TEXT_COUNT; i++)
        if (config->text[i] && *config->text[i]) {
            at += put_text(out ? out + at : NULL, text_keys[i], config->text[i]);
            count++;
        }
    if (out) put32(out, count);
    return at;
}

/* Everything before the data, but for the two hashes. Fills c->tensors; *bytes is the data's
 * offset. */
static u8 *make_head(struct conversion *c, u64 *bytes) {
    const struct sizes *z = &c->sizes;
    each_tensor(z, count_tensor, &c->n_tensors);
    c->tensors = allocate(c->n_tensors, sizeof *c->tensors);
    u64 table = HEADER_BYTES + (u64)z->n_stages * STAGE_BYTES;
    u64 metadata = table + (u64)c->n_tensors * TENSOR_BYTES,
        metadata_bytes = put_metadata(NULL, &c->config);
    u64 data = *bytes = round_up(metadata + metadata_bytes, ALIGN);
    c->n_tensors = 0;
    c->offset = data;
    each_tensor(z, plan_tensor, c);

    u8 *head = allocate(data, 1);
    put_header(head, z, c->n_tensors, (u32)metadata_bytes, data, c->offset);
    for (u32 i = 0; i < c->n_tensors; i++)
        put_entry(head + table + (u64)i * TENSOR_BYTES, &c->tensors[i], data);
    put_metadata(head + metadata, &c->config);
    return head;
}

/* The digest of a file from `offset` on, read back rather than taken while writing: what counts is
 * what is on the disk. */
static void hash_file(const char *path, u64 offset, u64 size, u8 digest[32]) {
#if HAVE_MMAP
    int fd = open(path, O_RDONLY);
    void *p = fd >= 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    if (p == MAP_FAILED) die(path, "cannot read back: %s", strerror(errno));
    sha256((const u8 *)p + offset, size - offset, NULL, 0, digest);
    munmap(p, (size_t)size);
    close(fd);
#else
    FILE *f = fopen(path, "rb");
    u8 *p = allocate(size, 1);
    if (!f || fread(p, 1, (size_t)size, f) != size) die(path, "cannot read back");
    sha256(p + offset, size - offset, NULL, 0, digest);
    free(p);
    fclose(f);
#endif
}

/* A new file beside OUT, so that the final rename stays within one file system. */
static FILE *create_temporary(const char *out) {
    for (u32 i = 0; i < 100; i++) {
        int n = snprintf(temporary_path, sizeof temporary_path, "%s.tmp%u", out, i);
        if (n < 0 || n >= (int)sizeof temporary_path) die(out, "the path is too long");
        FILE *f = fopen(temporary_path, "wbx");
        if (f) {
            temporary_exists = 1;
            return f;
        }
        if (errno != EEXIST) die(temporary_path, "cannot create: %s", strerror(errno));
    }
    die(out, "a hundred temporary files %s.tmp* are in the way; remove them", out);
}

/* Refuses to write over what must not be lost. */
static void check_output(const struct options *o) {
#if HAVE_MMAP
    struct stat out, in;
    if (stat(o->out, &out)) return;
    if (!S_ISREG(out.st_mode)) die(o->out, "is not a regular file");
    if (!stat(o->in, &in) && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
        die(o->out, "is the checkpoint itself");
    if (o->config && !stat(o->config, &in) && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
        die(o->out, "is the configuration itself");
#else
    FILE *f = fopen(o->out, "rb");
    if (!f) return;
    fclose(f);
#endif
    if (!o->force) die(o->out, "exists already; -f overwrites it");
}

/* On disk before the name of an older file is given to it; some file systems cannot sync. */
static int is_synced(FILE *f) {
#if HAVE_MMAP
    return !fsync(fileno(f)) || errno == EINVAL || errno == ENOTSUP || errno == ENOSYS;
#else
    return f != NULL;
#endif
}

static void write_model(struct conversion *c) {
    const char *out = c->options->out;
    u64 data;
    u8 *head = make_head(c, &data);
    struct writer w = {create_temporary(out), 0};
    write_bytes(&w, head, data);
    row_values = allocate(c->longest, sizeof *row_values);
    for (u32 i = 0; i < c->n_tensors; i++) {
        const struct tensor *t = &c->tensors[i];
        write_zeros(&w, t->offset);
        if (t->type == TYPE_F32) write_f32(&w, c, t);
        else if (t->type == TYPE_F32_TILED) write_f32_tiled(&w, c, t);
        else write_q8_tiled(&w, c, t);
    }
    write_zeros(&w, c->offset);

    if (fflush(w.file)) die(temporary_path, "cannot write: %s", strerror(errno));
    hash_file(temporary_path, data, c->offset, head + 64);
    sha256(head, 96, head + HEADER_BYTES, data - HEADER_BYTES, head + 96);
    if (seek(w.file, 0) || fwrite(head, 1, HEADER_BYTES, w.file) != HEADER_BYTES ||
        fflush(w.file) || !is_synced(w.file) || fclose(w.file))
        die(temporary_path, "cannot write: %s", strerror(errno));
    free(head);
}

/* Opens the new file with the library: what it would refuse must not leave this tool. */
static void check_model(const struct conversion *c, megabyte_info *info) {
    megabyte_model *model;
    megabyte_error e;
    if (megabyte_model_open(&model, temporary_path, NULL, &e) || megabyte_model_verify(model, &e))
        die(c->options->out, "the new file was refused: %s (byte %llu); please report this", e.text,
            (ull)e.offset);
    megabyte_model_describe(model, info);
    megabyte_model_close(model);
}

static void finish(const struct options *o) {
    check_output(o); /* it may have appeared meanwhile */
#if !HAVE_MMAP
    remove(o->out); /* POSIX rename replaces, others refuse */
#endif
    if (rename(temporary_path, o->out))
        die(o->out, "cannot rename %s to it: %s", temporary_path, strerror(errno));
    temporary_exists = 0;
}

/* =============================================================================== 9 command line */

static const char help[] =
    "usage: mbconvert IN -o OUT.mb [options]\n"
    "Makes a megabyte model file from a checkpoint, a .safetensors file or what torch.save wrote (.pt, .pth; nothing\n"
    "in it is executed), of one of these families, told apart by their tensors' names:\n"
    "  lucidrains/MEGABYTE-pytorch; ai4sd/multiscale-byte-lm (MBLM), transformer stages; kjslag/spacebyte, its class\n"
    "  MegaByte; sander-wood/bgpt; models after the paper, with the names that tools/mbconvert.c lists\n"
    "\n"
    "  -o, --output FILE     the model file to write\n"
    "  --quant f32|q8        matrices as they are, or as int8 with a scale per row (default q8)\n"
    "  --config FILE         JSON: the constructor's arguments, or an object that holds them under \"args\"\n"
    "                        (default: the .json beside IN, if there is one)\n"
    "  --heads N, --dim-head N, --seq-len N, --pad-id N\n"
    "                        what tensors don't tell: attention heads, their width (one of both will do),\n"
    "                        patches of the context (max_seq_len[0]), padding id (outside the vocabulary:\n"
    "                        none); these win over the configuration\n"
    "  --type EXT            bGPT: what kind of file texts are taken for, by extension (default txt)\n"
    "  --name, --licence, --source, --training-data, --description TEXT\n"
    "                        metadata; empty: none. Default: the configuration's texts of these names\n"
    "  --ignore-unknown      leave out tensors that are not part of the model\n"
    "  -f, --force           overwrite OUT\n"
    "  -q, --quiet           errors only\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static ll parse_number(const char *option, const char *text) {
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (!*text || *end || errno || v < INT32_MIN || v > INT32_MAX)
        die_usage(option, "'%.100s' is not a whole number of 32 bits", text);
    return v;
}

static const char *check_utf8(const char *option, const char *text) {
    for (const u8 *p = (const u8 *)text; *p;) {
        u32 n = utf8_sequence(p, strlen((const char *)p));
        if (!n) die_usage(option, "the text is not UTF-8");
        p += n;
    }
    return text;
}

static void parse_quant(struct options *o, const char *value) {
    if (!strcmp(value, "f32")) o->matrix_type = TYPE_F32_TILED;
    else if (!strcmp(value, "q8")) o->matrix_type = TYPE_Q8_TILED;
    else die_usage("--quant", "'%.100s' is neither f32 nor q8", value);
}

struct known_option {
    const char *name;
    char letter; /* 0: none */
    int *flag; /* at most one of the four is set, and none for --quant */
    const char **string;
    ll *number;
    const char **text; /* UTF-8 */
};

static const struct known_option *find_option(const struct known_option *k, const char *arg,
                                              char letter) {
    size_t length = strcspn(arg, "="); /* --name=value */
    for (; k->name; k++)
        if (letter ? k->letter == letter
                   : strlen(k->name) == length && !memcmp(k->name, arg, length))
            return k;
    die_usage(arg, "no such option");
}

static void parse_options(struct options *o, int argc, char **argv) {
    int only_files = 0;
    const struct known_option known[] = {
        {"--output", 'o', NULL, &o->out, NULL, NULL},
        {"--config", 0, NULL, &o->config, NULL, NULL},
        {"--quant", 0, NULL, NULL, NULL, NULL},
        {"--heads", 0, NULL, NULL, &o->heads, NULL},
        {"--dim-head", 0, NULL, NULL, &o->dim_head, NULL},
        {"--type", 0, NULL, NULL, NULL, &o->extension},
        {"--seq-len", 0, NULL, NULL, &o->positions, NULL},
        {"--pad-id", 0, NULL, NULL, &o->pad_id, NULL},
        {"--name", 0, NULL, NULL, NULL, &o->text[TEXT_NAME]},
        {"--licence", 0, NULL, NULL, NULL, &o->text[TEXT_LICENCE]},
        {"--license", 0, NULL, NULL, NULL, &o->text[TEXT_LICENCE]},
        {"--source", 0, NULL, NULL, NULL, &o->text[TEXT_SOURCE]},
        {"--training-data", 0, NULL, NULL, NULL, &o->text[TEXT_TRAINING_DATA]},
        {"--description", 0, NULL, NULL, NULL, &o->text[TEXT_DESCRIPTION]},
        {"--ignore-unknown", 0, &o->ignore_unknown, NULL, NULL, NULL},
        {"--force", 'f', &o->force, NULL, NULL, NULL},
        {"--quiet", 'q', &quiet, NULL, NULL, NULL},
        {NULL, 0, NULL, NULL, NULL, NULL}};
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (only_files || arg[0] != '-' || !arg[1]) {
            if (o->in) die_usage(arg, "one checkpoint at a time; %s was given already", o->in);
            o->in = arg;
            continue;
        }
        if (!strcmp(arg, "--")) {
            only_files = 1;
            continue;
        }
        if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
            fputs(help, stdout);
            exit(fflush(stdout) ? EXIT_FAILED : 0);
        }
        if (!strcmp(arg, "--version")) {
            printf("mbconvert %s (model file format %d)\n", MEGABYTE_VERSION_STRING,
                   MEGABYTE_FORMAT_VERSION);
            exit(fflush(stdout) ? EXIT_FAILED : 0);
        }
        /* --name, --name=value, --name value; -f, -fq, -oFILE, -o FILE, -fo FILE */
        const struct known_option *k;
        const char *value;
        if (arg[1] == '-') {
            k = find_option(known, arg, 0);
            value = strchr(arg, '=');
            if (value) value++;
            if (value && k->flag) die_usage(arg, "takes no value");
        } else {
            const char *letter = arg + 1;
            while ((k = find_option(known, arg, *letter))->flag && letter[1]) {
                *k->flag = 1;
                letter++;
            }
            value = letter[1] ? letter + 1 : NULL;
        }
        if (k->flag) {
            *k->flag = 1;
            continue;
        }
        if (!value && ++i == argc) die_usage(arg, "needs a value");
        if (!value) value = argv[i];
        if (k->string) *k->string = value;
        else if (k->number) *k->number = parse_number(k->name, value);
        else if (k->text) *k->text = check_utf8(k->name, value);
        else parse_quant(o, value);
    }
    if (!o->in) die_usage("IN", "which checkpoint? name a .safetensors or .pt file");
    if (!o->out || !*o->out) die_usage("-o", "where to? name the .mb file to write");
    if (!strcmp(o->out, "-"))
        die_usage("-o", "the model cannot go to standard output; name a file");
}

static void choose_config(struct conversion *c) {
    const struct options *o = c->options;
    clear_arguments(&c->config.arguments);
    c->config.keys = c->family->keys;
    memcpy(c->config.text, o->text, sizeof o->text);
    if (o->config && !read_config(&c->config, o->config)) die(o->config, "there is no such file");
    if (c->config.path) return;
    char *beside = config_beside(o->in);
    if (!read_config(&c->config, beside)) {
        if (o->config) warn(o->config, "holds no constructor arguments");
    } else if (!c->config.path) {
        warn(beside, "holds no constructor arguments");
    } else if (o->config) {
        note(o->config, "holds no constructor arguments; those of %s are taken", beside);
    }
    if (!c->config.path) free(beside);
}

int main(int argc, char **argv) {
    static struct options options = {.matrix_type = TYPE_Q8_TILED,
                                     .heads = ABSENT,
                                     .dim_head = ABSENT,
                                     .positions = ABSENT,
                                     .pad_id = ABSENT};
    static struct conversion c;
    static const int signals[] = {
        SIGINT,
        SIGTERM,
#ifdef SIGHUP
        SIGHUP,
        SIGQUIT,
#endif
    };
    fp_state fp;
    fp_enter(&fp); /* -Ofast programs start with denormals flushed */
    parse_options(&options, argc, argv);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        if (signal(signals[i], SIG_IGN) != SIG_IGN) signal(signals[i], on_signal);
#ifdef SIGXFSZ
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit then shows as a failed write */
#endif
    c.options = &options;
    check_output(&options);
    open_checkpoint(&c.in, options.in);
    recognise_names(&c);
    choose_config(&c);
    derive_sizes(&c);
    write_model(&c);
    megabyte_info info;
    check_model(&c, &info);
    finish(&options);
    if (!quiet) {
        char id[33];
        for (int i = 0; i < 16; i++) snprintf(id + 2 * i, 3, "%02x", info.id[i]);
        note(options.out, "%u stages, %llu parameters, %s, %llu bytes, id %s", info.n_stages,
             (ull)info.parameters, info.quantization, (ull)info.file_bytes, id);
    }
    return 0;
}
