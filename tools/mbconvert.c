/* mbconvert.c - makes a model file (.mb) from a safetensors checkpoint of lucidrains/MEGABYTE-pytorch.
 * SPDX-License-Identifier: MIT (text at the end of megabyte.h)
 *
 *     cc -O2 -o mbconvert tools/mbconvert.c -lm
 *
 * It includes megabyte.c, so that writer and reader share one description of the file: struct sizes,
 * each_tensor, check_sizes, tensor_data_bytes, the little-endian accessors and SHA-256. In words, the file is
 * described in models/README.md.
 *
 * What happens, in reading order below:
 *    1 messages      one way to fail: say what and why, remove the temporary file, exit
 *    2 JSON          a strict pull parser, for the checkpoint's header and the configuration
 *    3 checkpoint    the safetensors file: its tensors, checked before anything is believed
 *    4 configuration the constructor's arguments and the texts, from .json files and the command line
 *    5 family        tensor names -> stages, layers and sizes; what is missing, left over or contradictory
 *    6 quantization  rows of floats -> tiles of 16 rows, f32 or int8
 *    7 model file    header, stages, table, metadata, data; written beside OUT, checked, then renamed
 *    8 command line
 *
 * The checkpoint is hostile until proved otherwise. Only its header is held in memory (with 3 to 4 times its
 * size in tables); tensors are read a few rows at a time. */
#define _FILE_OFFSET_BITS 64 /* files beyond 2 GiB on 32-bit systems */
#define MEGABYTE_KEEP_OPTIONS /* quantization, too, must give the same bytes under -Ofast */
#include "../megabyte.c"
#include <errno.h>
#include <limits.h>
#include <signal.h>

#if defined(__GNUC__)
#  define PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#  define PRINTF(text, first)
#endif

typedef long long ll;
typedef unsigned long long ull; /* for printf */

/* ================================================================================== 1 messages */

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

static int quiet;                              /* -q: errors only */
static char temporary_path[4096];              /* what an early end must remove ... */
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

/* Texts of a checkpoint reach the terminal through here: control characters (C1 in UTF-8, too) become '?'. */
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
struct names { u32 count; char text[1536]; };

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

/* A pull parser: the caller says what it expects next. RFC 8259 to the letter, with UTF-8 checked, nesting
 * bounded and NUL in strings refused. Strings are decoded in place (an escape is never shorter than what it
 * stands for) and end in NUL: parsing allocates nothing. The text must be writable and end in NUL, too. */
#define JSON_DEPTH 32
struct json { char *at, *end; const char *start, *file; u32 depth; };

static struct json json_begin(char *text, u64 size, const char *file) {
    struct json j = { text, text + size, text, file, 0 };
    return j;
}

_Noreturn static void json_die(const struct json *j, const char *why) {
    die(j->file, "JSON, byte %llu: %s", (ull)(j->at - j->start), why);
}

/* Length of the UTF-8 sequence at p, of at most n bytes; 0 if it is not one (Unicode 15, table 3-7). */
static u32 utf8_sequence(const u8 *p, u64 n) {
    u32 length = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
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
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r')) j->at++;
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
        u32 digit = c >= '0' && c <= '9' ? (u32)(c - '0') : c >= 'a' && c <= 'f' ? (u32)(c - 'a' + 10)
                  : c >= 'A' && c <= 'F' ? (u32)(c - 'A' + 10) : 16;
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
    if (v == 0 || (v >= 0xd800 && v < 0xe000)) json_die(j, "NUL or half a surrogate pair in a string");
    if (v < 0x80) {
        *out++ = (char)v;
    } else {
        u32 more = v < 0x800 ? 1 : v < 0x10000 ? 2 : 3;
        *out++ = (char)(u8)(0xf00u >> (more + 1) | v >> 6 * more); /* 110xxxxx, 1110xxxx, 11110xxx */
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
    else while (*j->at >= '0' && *j->at <= '9') j->at++;
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

static int json_word(struct json *j, const char *word) { /* true, false, null: taken if it stands there */
    size_t n = strlen(word);
    json_peek(j);
    if ((size_t)(j->end - j->at) < n || memcmp(j->at, word, n)) return 0;
    j->at += n;
    return 1;
}

static void json_skip(struct json *j) {
    char c = json_peek(j);
    if (c == '{') {
        for (int first = (json_open(j, '{'), 1); json_more(j, '}', &first);) { json_key(j); json_skip(j); }
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

/* ================================================================================== 3 checkpoint */

/* safetensors: u64 header length, JSON object { name: { dtype, shape, data_offsets } }, data without gaps */
#define MAX_RANK 4              /* shapes of higher rank are only counted: this family has none */
#define MAX_HEADER 100000000u   /* the safetensors library's own limit; two million tensors */

struct element_type { const char *name; u32 bytes; int readable; };
static const struct element_type element_types[] = {
    { "F32", 4, 1 }, { "F16", 2, 1 }, { "BF16", 2, 1 },
    { "F64", 8, 0 }, { "I64", 8, 0 }, { "U64", 8, 0 }, { "I32", 4, 0 }, { "U32", 4, 0 }, { "I16", 2, 0 },
    { "U16", 2, 0 }, { "I8", 1, 0 }, { "U8", 1, 0 }, { "BOOL", 1, 0 }, { "F8_E4M3", 1, 0 },
    { "F8_E5M2", 1, 0 },
};
enum { ELEMENT_F32, ELEMENT_F16, ELEMENT_BF16 }; /* indices into it */
#define N_ELEMENT_TYPES (sizeof element_types / sizeof *element_types)

struct source {                    /* one tensor of the checkpoint */
    const char *name;
    u32 type, rank;
    u64 shape[MAX_RANK], elements;
    u64 begin, end;                /* bytes in the data part */
    int used;
};

struct checkpoint {
    const char *path;
    FILE *file;
    u64 data;                      /* where the data part starts */
    u64 data_bytes;
    struct source *tensors;        /* sorted by name */
    u64 count;
};

static void parse_source(struct json *j, struct source *t) {
    int seen_type = 0, seen_shape = 0, seen_offsets = 0;
    char why[200];
    for (int first = (json_open(j, '{'), 1); json_more(j, '}', &first);) {
        const char *key = json_key(j);
        if (!strcmp(key, "dtype") && !seen_type++) {
            const char *type = json_string(j);
            while (t->type < N_ELEMENT_TYPES && strcmp(type, element_types[t->type].name)) t->type++;
            if (t->type == N_ELEMENT_TYPES)
                die(j->file, "tensor %.200s: unknown dtype %.40s; F32, F16 and BF16 can be read", t->name,
                    type);
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
            u64 offsets[2] = { 0, 0 };
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
        if (!strcmp(name, "__metadata__")) { json_skip(&j); continue; }
        if (in->count == room) { /* grows by halves; an entry of the text is never shorter than 40 bytes */
            room += room / 2 + 64;
            struct source *more = realloc(in->tensors, (size_t)room * sizeof *more); /* < 2^30: MAX_HEADER */
            if (!more) die("memory", "cannot allocate a table of %llu tensors", (ull)room);
            in->tensors = more;
        }
        struct source *t = &in->tensors[in->count++];
        memset(t, 0, sizeof *t);
        t->name = name;
        parse_source(&j, t);
        if (t->begin > t->end || t->end > in->data_bytes)
            die(in->path, "tensor %.200s: its data_offsets %llu..%llu lie outside the %llu bytes of data "
                "in the file; truncated?", name, (ull)t->begin, (ull)t->end, (ull)in->data_bytes);
        u32 bytes = element_types[t->type].bytes; /* compare by dividing: the product could overflow */
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
            die(in->path, "%llu bytes before the data of tensor %.200s belong to no tensor; damaged?",
                (ull)(t->begin - at), t->name);
        at = t->end;
    }
    if (at != in->data_bytes)
        die(in->path, "%llu bytes behind the last tensor; damaged?", (ull)(in->data_bytes - at));

    qsort(in->tensors, (size_t)in->count, sizeof *in->tensors, by_name);
    for (u64 i = 1; i < in->count; i++)
        if (!strcmp(in->tensors[i - 1].name, in->tensors[i].name))
            die(in->path, "tensor %.200s is there twice", in->tensors[i].name);
}

static void open_checkpoint(struct checkpoint *in, const char *path) {
    u8 head[8];
    in->path = path;
    in->file = fopen(path, "rb");
    if (!in->file) die(path, "cannot open: %s", strerror(errno));
    ll size = file_size(in->file);
    if (size < 0 || seek(in->file, 0)) die(path, "cannot seek: a regular file is needed, not a pipe");
    size_t got = fread(head, 1, sizeof head, in->file);
    if (ferror(in->file)) die(path, "cannot read: %s", strerror(errno));
    if (got >= 2 && !memcmp(head, "PK", 2))
        die(path, "a PyTorch archive (.pt, .pth): recognised, but not yet supported by this version; "
            "save the state dict as safetensors");
    if (got == sizeof head && !memcmp(head, model_magic, sizeof head))
        die(path, "is a megabyte model file already");
    if (got < sizeof head) die(path, "%llu bytes: too short to be a safetensors file", (ull)got);
    u64 header = get64(head);
    if (header < 2 || header > MAX_HEADER || header > (u64)size - sizeof head)
        die(path, "a header of %llu bytes in a file of %llu: not a safetensors file, or truncated",
            (ull)header, (ull)size);
    char *text = allocate(header + 1, 1);
    if (fread(text, 1, (size_t)header, in->file) != header) die(path, "cannot read the header");
    in->data = sizeof head + header;
    in->data_bytes = (u64)size - in->data;
    parse_header(in, text, header);
}

static struct source *find_source(const struct checkpoint *in, const char *name) {
    struct source key = { .name = name };
    return bsearch(&key, in->tensors, (size_t)in->count, sizeof *in->tensors, by_name);
}

/* Reads one or several tensors, end to end, as one sequence of floats. */
struct float_reader {
    const struct checkpoint *in;
    const struct source *part[2];
    u32 n_parts, current;
    u64 done;                      /* elements of the current part */
};

static float half_to_float(u32 h) { /* binary16: every value is a float */
    u32 sign = (h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return bits_to_f32(sign | 0x7f800000 | fraction << 13);
    if (exponent) return bits_to_f32(sign | (exponent + 112) << 23 | fraction << 13);
    float tiny = (float)fraction * 0x1p-24f;
    return sign ? -tiny : tiny;
}

/* The next n floats; the caller asks for no more than there are. All must be finite. */
static void read_floats(struct float_reader *r, float *to, u64 n) {
    u8 bytes[16384];
    while (n) {
        const struct source *t = r->part[r->current];
        if (r->done == t->elements) {
            r->current++;
            r->done = 0;
            continue;
        }
        u32 size = element_types[t->type].bytes;
        if (!r->done && seek(r->in->file, r->in->data + t->begin))
            die(r->in->path, "cannot seek: %s", strerror(errno));
        u64 take = min64(n, min64(sizeof bytes / size, t->elements - r->done));
        if (fread(bytes, size, (size_t)take, r->in->file) != take)
            die(r->in->path, "tensor %.200s: cannot read: %s", t->name,
                ferror(r->in->file) ? strerror(errno) : "the file has become shorter");
        for (u64 i = 0; i < take; i++) {
            const u8 *p = bytes + i * size;
            float v = t->type == ELEMENT_F32 ? bits_to_f32(get32(p))
                    : t->type == ELEMENT_F16 ? half_to_float(get16(p)) : bits_to_f32(get16(p) << 16);
            if ((f32_to_bits(v) & 0x7f800000) == 0x7f800000)
                die(r->in->path, "tensor %.200s: element %llu is %s; the checkpoint is damaged, or its "
                    "training diverged", t->name, (ull)(r->done + i),
                    f32_to_bits(v) & 0x7fffff ? "NaN" : "infinite");
            to[i] = v;
        }
        to += take;
        n -= take;
        r->done += take;
    }
}

/* ================================================================================== 4 configuration */

/* The constructor of MEGABYTE-pytorch, and its defaults:
 *   MEGABYTE(num_tokens, dim, depth, max_seq_len, dim_head = 64, heads = 8, attn_dropout = 0., ff_mult = 4,
 *            ff_dropout = 0., rel_pos = False, pos_emb = False, pad_id = 0, flash_attn = False)
 * Tensors tell all of it but heads and dim_head, max_seq_len[0] and pad_id; what they tell is compared. */
#define ABSENT INT64_MIN

struct list { u32 count; int scalar; ll at[MEGABYTE_MAX_STAGES]; }; /* scalar: one value for all stages */

struct arguments {
    u32 known;                     /* how many of the constructor's keys were there */
    ll num_tokens, heads, dim_head, ff_mult, pad_id, rel_pos, pos_emb;
    struct list dim, depth, max_seq_len;
    struct names unknown;
};
static const struct arguments no_arguments = { .num_tokens = ABSENT, .heads = ABSENT, .dim_head = ABSENT,
    .ff_mult = ABSENT, .pad_id = ABSENT, .rel_pos = ABSENT, .pos_emb = ABSENT };

/* Metadata that goes into the model file, in this order. */
enum { TEXT_NAME, TEXT_LICENCE, TEXT_SOURCE, TEXT_TRAINING_DATA, TEXT_DESCRIPTION, TEXT_COUNT };
static const char *const text_keys[TEXT_COUNT] = {
    "name", "licence", "source", "training_data", "description"
};

struct config {
    const char *path;              /* of the file that held the arguments; NULL: none did */
    struct arguments arguments;
    const char *text[TEXT_COUNT];  /* NULL or "": absent */
    char *files[2];                /* contents of the .json files, which the texts point into */
    u32 n_files;
};

static void parse_list(struct json *j, struct list *list) {
    list->count = 0;
    list->scalar = json_peek(j) != '[';
    if (list->scalar) {
        list->at[list->count++] = json_whole(j);
        return;
    }
    for (int first = (json_open(j, '['), 1); json_more(j, ']', &first); list->count++) {
        if (list->count == MEGABYTE_MAX_STAGES) json_die(j, "more than 8 stages; this version runs 2 to 8");
        list->at[list->count] = json_whole(j);
    }
    if (!list->count) json_die(j, "an empty list");
}

/* Parses the value if `key` is one of the constructor's. */
static int parse_argument(struct json *j, struct arguments *a, const char *key) {
    static const char *const without_effect[] = { "attn_dropout", "ff_dropout", "flash_attn" };
    struct { const char *key; ll *number; struct list *list; ll *flag; } known[] = {
        { "num_tokens", &a->num_tokens, NULL, NULL }, { "heads", &a->heads, NULL, NULL },
        { "dim_head", &a->dim_head, NULL, NULL },     { "ff_mult", &a->ff_mult, NULL, NULL },
        { "pad_id", &a->pad_id, NULL, NULL },         { "dim", NULL, &a->dim, NULL },
        { "depth", NULL, &a->depth, NULL },           { "max_seq_len", NULL, &a->max_seq_len, NULL },
        { "rel_pos", NULL, NULL, &a->rel_pos },       { "pos_emb", NULL, NULL, &a->pos_emb },
    };
    for (size_t i = 0; i < sizeof without_effect / sizeof *without_effect; i++)
        if (!strcmp(key, without_effect[i])) {
            json_skip(j);
            a->known++;
            return 1;
        }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(key, known[i].key)) continue;
        a->known++;
        if (json_word(j, "null")) return 1; /* as good as absent */
        if (known[i].number) *known[i].number = json_whole(j);
        if (known[i].list) parse_list(j, known[i].list);
        if (known[i].flag) {
            int yes = json_word(j, "true");
            if (!yes && !json_word(j, "false")) json_die(j, "expected true or false");
            *known[i].flag = yes;
        }
        return 1;
    }
    return 0;
}

/* Takes arguments and texts from a .json file: an object of constructor arguments, or one that holds such an
 * object under "args". Texts that are set already stay. Returns 0 if there is no such file. */
static int read_config(struct config *c, const char *path) {
    struct arguments top = no_arguments, nested = no_arguments;
    int has_nested = 0;
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
        while (which < TEXT_COUNT && strcmp(key, text_keys[which])) which++;
        if (!strcmp(key, "license")) which = TEXT_LICENCE;
        if (which < TEXT_COUNT) {
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
                if (parse_argument(&j, &nested, name)) continue;
                add_name(&nested.unknown, name);
                json_skip(&j);
            }
        } else if (!parse_argument(&j, &top, key)) {
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
        if (path[i] == '.' && i && path[i - 1] != '/') { stem = i; break; }
    char *to = allocate((u64)stem + 6, 1);
    memcpy(to, path, stem);
    memcpy(to + stem, ".json", 6);
    return to;
}

/* ================================================================================== 5 family */

/* Settings of the command line win over the configuration; `from` says in messages where one comes from. */
struct setting { ll value; const char *from; };

struct options {
    const char *in, *out, *config;
    u32 matrix_type;               /* TYPE_F32_TILED, TYPE_Q8_TILED */
    ll heads, dim_head, positions, pad_id;
    const char *text[TEXT_COUNT];
    int force, ignore_unknown;
};

/* Checkpoint names by role: {s} stage, {l} layer, {e} = S-1-s, since token_embs counts from the finest stage
 * up. Rotary frequencies are taken as stored, even where a 16-bit checkpoint has rounded them: they are what
 * its own PyTorch code computes with after loading. */
static const char *const checkpoint_names[ROLE_COUNT] = {
    [ROLE_START] = "start_tokens.{s}",
    [ROLE_POSITION] = "pos_embs.{s}.weight",
    [ROLE_ROTARY] = "transformers.{s}.rotary_emb.inv_freq",
    [ROLE_EMBED] = "token_embs.{e}.0.weight",
    [ROLE_PATCH_NORM_IN_WEIGHT] = "token_embs.{e}.2.weight",
    [ROLE_PATCH_NORM_IN_BIAS] = "token_embs.{e}.2.bias",
    [ROLE_PATCH] = "token_embs.{e}.3.weight",
    [ROLE_PATCH_BIAS] = "token_embs.{e}.3.bias",
    [ROLE_PATCH_NORM_OUT_WEIGHT] = "token_embs.{e}.4.weight",
    [ROLE_PATCH_NORM_OUT_BIAS] = "token_embs.{e}.4.bias",
    [ROLE_ATTENTION_NORM] = "transformers.{s}.layers.{l}.0.norm.g",
    [ROLE_QKV] = "transformers.{s}.layers.{l}.0.to_q.weight", /* followed by to_kv: see source_name */
    [ROLE_ATTENTION_OUT] = "transformers.{s}.layers.{l}.0.to_out.weight",
    [ROLE_FF_NORM] = "transformers.{s}.layers.{l}.1.0.g",
    [ROLE_FF_UP] = "transformers.{s}.layers.{l}.1.1.weight",
    [ROLE_FF_UP_BIAS] = "transformers.{s}.layers.{l}.1.1.bias",
    [ROLE_FF_DOWN] = "transformers.{s}.layers.{l}.1.4.weight",
    [ROLE_FF_DOWN_BIAS] = "transformers.{s}.layers.{l}.1.4.bias",
    [ROLE_NORM] = "transformers.{s}.norm.g",
    [ROLE_NEXT] = "to_next_transformer_projections.{s}.1.weight",
    [ROLE_NEXT_BIAS] = "to_next_transformer_projections.{s}.1.bias",
};

/* The model's qkv rows come from two checkpoint tensors: to_q, then to_kv, whose first half are the keys. */
static u32 source_parts(u32 role) { return role == ROLE_QKV ? 2 : 1; }

/* The checkpoint's name for a part of a tensor; out has room for 96 bytes. */
static void source_name(char *out, u32 n_stages, u32 role, u32 stage, u32 layer, u32 part) {
    const char *p = checkpoint_names[role];
    if (stage + 1 == n_stages) { /* the finest stage embeds single bytes, and projects to logits */
        if (role == ROLE_EMBED) p = "token_embs.0.weight";
        if (role == ROLE_NEXT) p = "to_logits.weight";
        if (role == ROLE_NEXT_BIAS) p = "to_logits.bias";
    }
    if (part) p = "transformers.{s}.layers.{l}.0.to_kv.weight";
    for (; *p; p++) {
        if (*p != '{') { *out++ = *p; continue; }
        out += sprintf(out, "%u", p[1] == 's' ? stage : p[1] == 'l' ? layer : n_stages - 1 - stage);
        p += 2;
    }
    *out = 0;
}

struct conversion {
    const struct options *options;
    struct config config;
    struct checkpoint in;
    struct sizes sizes;
    struct names missing;          /* find_tensor */
    u32 n_tensors;
    struct tensor *tensors;        /* plan_tensor: the table of the model file */
    u64 offset;                    /* plan_tensor: where the next tensor goes */
};

static struct source *source_of(const struct conversion *c, u32 role, u32 stage, u32 layer, u32 part) {
    char name[96];
    source_name(name, c->sizes.n_stages, role, stage, layer, part);
    return find_source(&c->in, name);
}

/* Does `name` begin with `pattern`? '#' stands for a decimal number; the last one goes to *number. */
static int name_matches(const char *name, const char *pattern, u32 *number) {
    for (; *pattern; pattern++) {
        if (*pattern != '#') {
            if (*name++ != *pattern) return 0;
            continue;
        }
        u32 n = 0, digits = 0;
        for (; *name >= '0' && *name <= '9' && digits < 6; name++, digits++) n = n * 10 + (u32)(*name - '0');
        if (!digits) return 0;
        *number = n;
    }
    return 1;
}

/* One more than the largest number that tensors of this pattern have; 0 if there are none. */
static u32 count_numbered(const struct checkpoint *in, const char *pattern) {
    u32 count = 0, n = 0;
    for (u64 i = 0; i < in->count; i++)
        if (name_matches(in->tensors[i].name, pattern, &n) && n + 1 > count) count = n + 1;
    return count;
}

static void recognise_other_families(const struct checkpoint *in) {
    static const struct { const char *pattern, *family; } others[] = {
        { "stage_models.#", "MBLM (ai4sd/multiscale-byte-lm)" },
        { "token_embs_rev.#", "MBLM (ai4sd/multiscale-byte-lm)" },
        { "global_blocks.#", "SpaceByte's MegaByte (kjslag/spacebyte)" },
        { "patch_level_decoder.", "bGPT (sander-wood/bgpt)" },
    };
    u32 n;
    for (size_t f = 0; f < sizeof others / sizeof *others; f++)
        for (u64 i = 0; i < in->count; i++)
            if (name_matches(in->tensors[i].name, others[f].pattern, &n))
                die(in->path, "a checkpoint of %s: recognised, but not yet supported by this version",
                    others[f].family);
}

static status find_tensor(void *context, struct tensor *t) {
    struct conversion *c = context;
    char name[96];
    for (u32 part = 0; part < source_parts(t->role); part++) {
        source_name(name, c->sizes.n_stages, t->role, t->stage, t->layer, part);
        struct source *found = find_source(&c->in, name);
        if (!found) {
            add_name(&c->missing, name);
            continue;
        }
        found->used = 1;
        if (!element_types[found->type].readable)
            die(c->in.path, "tensor %s: its elements are %s; F32, F16 and BF16 can be read", name,
                element_types[found->type].name);
    }
    return MEGABYTE_OK;
}

/* What names alone tell: how many stages and layers, which positions; then whether all tensors are there. */
static void recognise_names(struct conversion *c) {
    static const char *const numbered[] = {
        "start_tokens.#", "pos_embs.#.", "token_embs.#.", "transformers.#."
    };
    struct checkpoint *in = &c->in;
    struct sizes *z = &c->sizes;
    recognise_other_families(in);
    for (size_t i = 0; i < sizeof numbered / sizeof *numbered; i++) {
        u32 n = count_numbered(in, numbered[i]);
        if (n > z->n_stages) z->n_stages = n;
    }
    if (!z->n_stages)
        die(in->path, "holds no tensor of a known model; MEGABYTE-pytorch's are named start_tokens.0, "
            "token_embs.0.weight, transformers.0. and so on");
    if (z->n_stages < 2 || z->n_stages > MEGABYTE_MAX_STAGES)
        die(in->path, "its tensors are numbered for %u stage%s; this version runs 2 to %d", z->n_stages,
            z->n_stages == 1 ? "" : "s", MEGABYTE_MAX_STAGES);
    z->family = FAMILY_LUCIDRAINS;
    z->end_id = UINT32_MAX;
    for (u32 s = 0; s < z->n_stages; s++) {
        struct stage_sizes *g = &z->stage[s];
        char pattern[64];
        snprintf(pattern, sizeof pattern, "transformers.%u.layers.#.", s);
        g->layers = count_numbered(in, pattern);
        if (g->layers > 4096) die(in->path, "stage %u has %u layers; 4096 are possible", s, g->layers);
        if (source_of(c, ROLE_POSITION, s, 0, 0)) g->flags |= POSITION_LEARNED;
        if (source_of(c, ROLE_ROTARY, s, 0, 0)) g->flags |= POSITION_ROTARY;
        if (!g->layers) g->layers = 1; /* then that one's tensors are what is missing */
    }
    each_tensor(z, find_tensor, c);
    if (c->missing.count)
        die(in->path, "lacks %u of the model's tensors: %s", c->missing.count, show_names(&c->missing));

    struct names unused = { 0, "" };
    for (u64 i = 0; i < in->count; i++)
        if (!in->tensors[i].used) add_name(&unused, in->tensors[i].name);
    if (unused.count && !c->options->ignore_unknown)
        die(in->path, "tensors that are not part of the model, %u: %s; --ignore-unknown leaves them out",
            unused.count, show_names(&unused));
    if (unused.count) warn(in->path, "tensors left out, %u: %s", unused.count, show_names(&unused));
}

static const char *show_shape(char out[100], const struct source *t) {
    size_t n = 0;
    out[n++] = '[';
    for (u32 i = 0; i < t->rank && i < MAX_RANK; i++)
        n += (size_t)snprintf(out + n, 100 - n, "%s%llu", i ? ", " : "", (ull)t->shape[i]);
    snprintf(out + n, 100 - n, t->rank > MAX_RANK ? ", ...]" : "]");
    return out;
}

/* Dimension i of a tensor that is known to be there. */
static u32 dimension(const struct conversion *c, u32 role, u32 stage, u32 rank, u32 i) {
    const struct source *t = source_of(c, role, stage, 0, 0);
    char shape[100];
    if (t->rank != rank)
        die(c->in.path, "tensor %s: shape %s, but %u dimension%s expected", t->name, show_shape(shape, t),
            rank, rank == 1 ? " is" : "s are");
    if (!t->shape[i] || t->shape[i] > 1u << 24)
        die(c->in.path, "tensor %.200s: a dimension of %llu; 1 to %u are possible", t->name,
            (ull)t->shape[i], 1u << 24);
    return (u32)t->shape[i];
}

/* Contradictions between the configuration and the tensors. */
static void compare(const struct conversion *c, const char *argument, ll value, u64 actual, u32 stage) {
    if (value == ABSENT || (value >= 0 && (u64)value == actual)) return;
    die(c->config.path, "%s is %lld for stage %u, but the tensors of %s make it %llu", argument, value, stage,
        c->in.path, (ull)actual);
}

static ll list_item(const struct conversion *c, const struct list *list, const char *argument, u32 stage) {
    if (!list->count) return ABSENT;
    if (list->scalar) return list->at[0];
    if (list->count != c->sizes.n_stages)
        die(c->config.path, "%s lists %u stages, but %s has %u", argument, list->count, c->in.path,
            c->sizes.n_stages);
    return list->at[stage];
}

static void compare_flag(const struct conversion *c, const char *argument, ll value, u32 flag, u32 stage) {
    int there = (c->sizes.stage[stage].flags & flag) != 0;
    if (value == ABSENT || value == there) return;
    char name[96];
    source_name(name, c->sizes.n_stages, flag == POSITION_ROTARY ? ROLE_ROTARY : ROLE_POSITION, stage, 0, 0);
    die(c->config.path, "%s is %s, but %s has %s tensor %s", argument, value ? "true" : "false", c->in.path,
        there ? "a" : "no", name);
}

static struct setting choose_setting(const struct conversion *c, ll option, const char *option_name,
                                     ll argument) {
    struct setting s = { ABSENT, NULL };
    if (option != ABSENT) {
        s.value = option;
        s.from = option_name;
    } else if (argument != ABSENT) {
        s.value = argument;
        s.from = c->config.path;
    }
    return s;
}

/* Heads and their width: to_q only has the product. Known, in this order: options and configuration; rotary
 * tables, which are half a head wide; if one of the two is known, the other by division; the constructor's
 * defaults. */
static void derive_heads(struct conversion *c) {
    struct sizes *z = &c->sizes;
    const struct arguments *a = &c->config.arguments;
    struct setting heads = choose_setting(c, c->options->heads, "--heads", a->heads);
    struct setting width = choose_setting(c, c->options->dim_head, "--dim-head", a->dim_head);
    if (heads.from && (heads.value < 1 || heads.value > MAX_WIDTH))
        die(heads.from, "%lld heads; 1 to 65536 are possible", heads.value);
    if (width.from && (width.value < 1 || width.value > MAX_WIDTH))
        die(width.from, "heads %lld wide; 1 to 65536 are possible", width.value);
    for (u32 s = 0; s < z->n_stages; s++) {
        if (!(z->stage[s].flags & POSITION_ROTARY)) continue;
        const struct source *t = source_of(c, ROLE_ROTARY, s, 0, 0);
        ll rotary = 2 * (ll)dimension(c, ROLE_ROTARY, s, 1, 0);
        if (width.from && width.value != rotary)
            die(width.from, "dim_head is %lld, but tensor %s of %s makes it %lld", width.value, t->name,
                c->in.path, rotary);
        width.value = rotary;
        width.from = t->name;
    }
    if (!heads.from && !width.from) {
        if (!c->config.path)
            die(c->in.path, "the tensors don't tell the number of heads: give --heads or --config");
        heads.value = 8;
        width.value = 64;
        heads.from = width.from = "the constructor's default";
    }
    for (u32 s = 0; s < z->n_stages; s++) {
        u32 inner = dimension(c, ROLE_QKV, s, 2, 0);
        if (heads.from && width.from) {
            if (heads.value * width.value != inner)
                die(c->in.path, "stage %u: heads %lld (%s) x dim_head %lld (%s) is %lld, to_q has %u rows", s,
                    heads.value, heads.from, width.value, width.from, heads.value * width.value, inner);
        } else if (inner % (heads.from ? heads.value : width.value)) {
            die(c->in.path, "stage %u: to_q has %u rows, which %s %lld (%s) does not divide", s, inner,
                heads.from ? "heads" : "dim_head", heads.from ? heads.value : width.value,
                heads.from ? heads.from : width.from);
        }
        z->stage[s].heads = heads.from ? (u32)heads.value : inner / (u32)width.value;
        z->stage[s].head_dim = inner / z->stage[s].heads;
    }
}

static status check_shape(void *context, struct tensor *t) {
    const struct conversion *c = context;
    char shape[100];
    u32 inner = c->sizes.stage[t->stage].heads * c->sizes.stage[t->stage].head_dim;
    for (u32 part = 0; part < source_parts(t->role); part++) {
        const struct source *from = source_of(c, t->role, t->stage, t->layer, part);
        u32 rows = t->role != ROLE_QKV ? t->rows : part ? 2 * inner : inner;
        int flat = !is_matrix(t->role) && t->role != ROLE_POSITION && t->role != ROLE_EMBED;
        if (flat && (from->rank != 1 || from->shape[0] != t->cols))
            die(c->in.path, "tensor %s: shape %s instead of [%u]", from->name, show_shape(shape, from),
                t->cols);
        if (!flat && (from->rank != 2 || from->shape[0] != rows || from->shape[1] != t->cols))
            die(c->in.path, "tensor %s: shape %s instead of [%u, %u]", from->name, show_shape(shape, from),
                rows, t->cols);
    }
    return MEGABYTE_OK;
}

/* What shapes tell, and what the configuration and the options add. */
static void derive_sizes(struct conversion *c) {
    struct sizes *z = &c->sizes;
    const struct arguments *a = &c->config.arguments;
    u32 last = z->n_stages - 1;
    z->vocabulary = dimension(c, ROLE_EMBED, last, 2, 0);
    compare(c, "num_tokens", a->num_tokens, z->vocabulary, last);
    for (u32 s = 0; s <= last; s++) {
        struct stage_sizes *g = &z->stage[s];
        g->dim = dimension(c, ROLE_START, s, 1, 0);
        g->ff_dim = dimension(c, ROLE_FF_UP, s, 2, 0);
        if (s) {
            u32 rows = dimension(c, ROLE_NEXT, s - 1, 2, 0);
            if (rows % g->dim)
                die(c->in.path, "tensor %s has %u rows, no multiple of stage %u's width %u",
                    source_of(c, ROLE_NEXT, s - 1, 0, 0)->name, rows, s, g->dim);
            g->positions = rows / g->dim;
        } else if (g->flags & POSITION_LEARNED) {
            g->positions = dimension(c, ROLE_POSITION, s, 2, 0);
        }
        ll positions = list_item(c, &a->max_seq_len, "max_seq_len", s);
        if (s == 0) {
            struct setting n = choose_setting(c, c->options->positions, "--seq-len", positions);
            if (!n.from && !g->positions)
                die(c->in.path, "the tensors don't tell the context's length in patches: give --seq-len or "
                    "--config");
            if (n.from && (n.value < 1 || n.value > 1 << 24))
                die(n.from, "max_seq_len[0] is %lld; 1 to %d are possible", n.value, 1 << 24);
            if (n.from && g->positions && n.value != g->positions)
                die(n.from, "max_seq_len[0] is %lld, but tensor pos_embs.0.weight of %s has %u rows", n.value,
                    c->in.path, g->positions);
            if (n.from) g->positions = (u32)n.value;
        } else {
            compare(c, "max_seq_len", positions, g->positions, s);
        }
        compare(c, "dim", list_item(c, &a->dim, "dim", s), g->dim, s);
        compare(c, "depth", list_item(c, &a->depth, "depth", s), g->layers, s);
        if (a->ff_mult != ABSENT) compare(c, "ff_mult x dim", a->ff_mult * (ll)g->dim, g->ff_dim, s);
        compare_flag(c, "rel_pos", a->rel_pos, POSITION_ROTARY, s);
        compare_flag(c, "pos_emb", a->pos_emb, POSITION_LEARNED, s);
    }
    derive_heads(c);

    /* Training code often passes an id outside the vocabulary to say that no byte is padding. */
    ll pad = choose_setting(c, c->options->pad_id, "--pad-id", a->pad_id).value;
    if (pad == ABSENT && c->config.path) pad = 0;
    z->pad_id = pad >= 0 && pad < z->vocabulary ? (u32)pad : UINT32_MAX;

    megabyte_error e;
    clear_error(&e);
    if (check_sizes(z, &e)) die(c->in.path, "%s", e.text);
    each_tensor(z, check_shape, c);
}

/* ================================================================================== 6 quantization */

/* Everything that is written goes through here, so that a full disk is noticed. */
struct writer { FILE *file; u64 at; };

static void write_bytes(struct writer *w, const void *bytes, u64 n) {
    if (n && fwrite(bytes, 1, (size_t)n, w->file) != n)
        die(temporary_path, "cannot write: %s", strerror(errno));
    w->at += n;
}
static void write_zeros(struct writer *w, u64 until) {
    static const u8 zeros[64];
    while (w->at < until) write_bytes(w, zeros, min64(until - w->at, sizeof zeros));
}

static float row_values[MAX_WIDTH];      /* check_sizes bounds the columns of matrices */
static u8 tile_bytes[MAX_WIDTH * 64];    /* 16 rows, f32 or q8 */

static void put_f32(u8 *p, float v) { put32(p, f32_to_bits(v)); }

/* Vectors and embeddings: row-major floats. */
static void write_f32(struct writer *w, struct float_reader *from, const struct tensor *t) {
    for (u64 left = (u64)t->rows * t->cols; left;) {
        u64 n = min64(left, MAX_WIDTH);
        read_floats(from, row_values, n);
        for (u64 i = 0; i < n; i++) put_f32(tile_bytes + 4 * i, row_values[i]);
        write_bytes(w, tile_bytes, 4 * n);
        left -= n;
    }
}

/* Tiles of 16 output rows: [tile][cols][16]. */
static void write_f32_tiled(struct writer *w, struct float_reader *from, const struct tensor *t) {
    for (u32 tile = 0; tile < t->rows; tile += 16) {
        memset(tile_bytes, 0, (size_t)t->cols * 64);
        for (u32 r = 0; r < min32(16, t->rows - tile); r++) {
            read_floats(from, row_values, t->cols);
            for (u32 k = 0; k < t->cols; k++) put_f32(tile_bytes + 4 * ((size_t)k * 16 + r), row_values[k]);
        }
        write_bytes(w, tile_bytes, (u64)t->cols * 64);
    }
}

/* One row to int8 with one scale: w ~ scale * q, q in -127..127, |error| <= scale / 2. In double, and rounded
 * to even on ties: the same bytes on every machine. Returns the scale. */
static float quantize_row(const float *w, u32 n, i8 *q) {
    float largest = 0;
    for (u32 k = 0; k < n; k++)
        if (fabsf(w[k]) > largest) largest = fabsf(w[k]);
    float scale = (float)((double)largest / 127.0);
    for (u32 k = 0; k < n; k++) { /* denormals: the scale may be 0, or so rounded that q passes 127 */
        double v = scale > 0 ? rint((double)w[k] / (double)scale) : 0.0;
        q[k] = (i8)(v > 127 ? 127 : v < -127 ? -127 : v);
    }
    return scale;
}

/* Tiles of 16 output rows of q + 128: [tile][cols / 4][16][4], filled up with 128; then the rows' scales. */
static void write_q8_tiled(struct writer *w, struct float_reader *from, const struct tensor *t) {
    static i8 q[MAX_WIDTH];
    u64 rows = round_up(t->rows, 16), tile_size = round_up(t->cols, 4) * 16;
    u8 *scales = allocate(rows, 4);
    for (u32 tile = 0; tile < t->rows; tile += 16) {
        memset(tile_bytes, 128, (size_t)tile_size);
        for (u32 r = 0; r < min32(16, t->rows - tile); r++) {
            read_floats(from, row_values, t->cols);
            put_f32(scales + 4 * ((u64)tile + r), quantize_row(row_values, t->cols, q));
            for (u32 k = 0; k < t->cols; k++) tile_bytes[(k / 4) * 64 + r * 4 + k % 4] = (u8)(q[k] + 128);
        }
        write_bytes(w, tile_bytes, tile_size);
    }
    write_bytes(w, scales, rows * 4);
    free(scales);
}

/* ================================================================================== 7 model file */

static status plan_tensor(void *context, struct tensor *t) {
    struct conversion *c = context;
    t->type = is_matrix(t->role) ? c->options->matrix_type : TYPE_F32;
    t->offset = c->offset;
    c->offset = round_up(t->offset + tensor_data_bytes(t), ALIGN);
    c->tensors[c->n_tensors++] = *t;
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

/* Everything before the data, but for the two hashes. Fills c->tensors; *bytes is the data's offset. */
static u8 *make_head(struct conversion *c, u64 *bytes) {
    const struct sizes *z = &c->sizes;
    each_tensor(z, count_tensor, &c->n_tensors);
    c->tensors = allocate(c->n_tensors, sizeof *c->tensors);
    u64 table = HEADER_BYTES + (u64)z->n_stages * STAGE_BYTES;
    u64 metadata = table + (u64)c->n_tensors * TENSOR_BYTES, metadata_bytes = put_metadata(NULL, &c->config);
    u64 data = *bytes = round_up(metadata + metadata_bytes, ALIGN);
    c->n_tensors = 0;
    c->offset = data;
    each_tensor(z, plan_tensor, c);

    u8 *head = allocate(data, 1);
    put_header(head, z, c->n_tensors, (u32)metadata_bytes, data, c->offset);
    for (u32 i = 0; i < c->n_tensors; i++) put_entry(head + table + (u64)i * TENSOR_BYTES, &c->tensors[i], data);
    put_metadata(head + metadata, &c->config);
    return head;
}

/* The digest of a file from `offset` on, read back rather than taken while writing: what counts is what is on
 * the disk. */
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
#else
    FILE *f = fopen(o->out, "rb");
    if (!f) return;
    fclose(f);
#endif
    if (!o->force) die(o->out, "exists already; -f overwrites it");
}

static void write_model(struct conversion *c) {
    const char *out = c->options->out;
    u64 data;
    u8 *head = make_head(c, &data);
    struct writer w = { create_temporary(out), 0 };
    write_bytes(&w, head, data);
    for (u32 i = 0; i < c->n_tensors; i++) {
        const struct tensor *t = &c->tensors[i];
        struct float_reader from = { &c->in, { NULL, NULL }, source_parts(t->role), 0, 0 };
        for (u32 part = 0; part < from.n_parts; part++)
            from.part[part] = source_of(c, t->role, t->stage, t->layer, part);
        write_zeros(&w, t->offset);
        if (t->type == TYPE_F32) write_f32(&w, &from, t);
        else if (t->type == TYPE_F32_TILED) write_f32_tiled(&w, &from, t);
        else write_q8_tiled(&w, &from, t);
    }
    write_zeros(&w, c->offset);

    if (fflush(w.file)) die(temporary_path, "cannot write: %s", strerror(errno));
    hash_file(temporary_path, data, c->offset, head + 64);
    sha256(head, 96, head + HEADER_BYTES, data - HEADER_BYTES, head + 96);
    if (seek(w.file, 0) || fwrite(head, 1, HEADER_BYTES, w.file) != HEADER_BYTES || fclose(w.file))
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
    remove(o->out);  /* POSIX rename replaces, others refuse */
#endif
    if (rename(temporary_path, o->out))
        die(o->out, "cannot rename %s to it: %s", temporary_path, strerror(errno));
    temporary_exists = 0;
}

/* ================================================================================== 8 command line */

static const char help[] =
    "usage: mbconvert IN.safetensors -o OUT.mb [options]\n"
    "Makes a megabyte model file from a checkpoint of lucidrains/MEGABYTE-pytorch.\n"
    "\n"
    "  -o, --output FILE     the model file to write\n"
    "  --quant f32|q8        matrices as they are, or as int8 with a scale per row (default q8)\n"
    "  --config FILE         JSON: the constructor's arguments, or an object that holds them under \"args\"\n"
    "                        (default: the .json beside IN, if there is one)\n"
    "  --heads N, --dim-head N, --seq-len N, --pad-id N\n"
    "                        what tensors don't tell: attention heads, their width (one of both will do),\n"
    "                        patches of the context (max_seq_len[0]), padding id (outside the vocabulary:\n"
    "                        none); these win over the configuration\n"
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
    char letter;               /* 0: none */
    int *flag;                 /* at most one of the four is set, and none for --quant */
    const char **string;
    ll *number;
    const char **text;         /* UTF-8 */
};

static const struct known_option *find_option(const struct known_option *k, const char *arg, char letter) {
    size_t length = strcspn(arg, "="); /* --name=value */
    for (; k->name; k++)
        if (letter ? k->letter == letter : strlen(k->name) == length && !memcmp(k->name, arg, length))
            return k;
    die_usage(arg, "no such option");
}

static void parse_options(struct options *o, int argc, char **argv) {
    int only_files = 0;
    const struct known_option known[] = {
        { "--output", 'o', NULL, &o->out, NULL, NULL },      { "--config", 0, NULL, &o->config, NULL, NULL },
        { "--quant", 0, NULL, NULL, NULL, NULL },            { "--heads", 0, NULL, NULL, &o->heads, NULL },
        { "--dim-head", 0, NULL, NULL, &o->dim_head, NULL },
        { "--seq-len", 0, NULL, NULL, &o->positions, NULL }, { "--pad-id", 0, NULL, NULL, &o->pad_id, NULL },
        { "--name", 0, NULL, NULL, NULL, &o->text[TEXT_NAME] },
        { "--licence", 0, NULL, NULL, NULL, &o->text[TEXT_LICENCE] },
        { "--license", 0, NULL, NULL, NULL, &o->text[TEXT_LICENCE] },
        { "--source", 0, NULL, NULL, NULL, &o->text[TEXT_SOURCE] },
        { "--training-data", 0, NULL, NULL, NULL, &o->text[TEXT_TRAINING_DATA] },
        { "--description", 0, NULL, NULL, NULL, &o->text[TEXT_DESCRIPTION] },
        { "--ignore-unknown", 0, &o->ignore_unknown, NULL, NULL, NULL },
        { "--force", 'f', &o->force, NULL, NULL, NULL },     { "--quiet", 'q', &quiet, NULL, NULL, NULL },
        { NULL, 0, NULL, NULL, NULL, NULL }
    };
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (only_files || arg[0] != '-' || !arg[1]) {
            if (o->in) die_usage(arg, "one checkpoint at a time; %s was given already", o->in);
            o->in = arg;
            continue;
        }
        if (!strcmp(arg, "--")) { only_files = 1; continue; }
        if (!strcmp(arg, "--help") || !strcmp(arg, "-h")) {
            fputs(help, stdout);
            exit(fflush(stdout) ? EXIT_FAILED : 0);
        }
        if (!strcmp(arg, "--version")) {
            printf("mbconvert %s (model file format %d)\n", MEGABYTE_VERSION_STRING, MEGABYTE_FORMAT_VERSION);
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
        if (k->flag) { *k->flag = 1; continue; }
        if (!value && ++i == argc) die_usage(arg, "needs a value");
        if (!value) value = argv[i];
        if (k->string) *k->string = value;
        else if (k->number) *k->number = parse_number(k->name, value);
        else if (k->text) *k->text = check_utf8(k->name, value);
        else parse_quant(o, value);
    }
    if (!o->in) die_usage("IN", "which checkpoint? name a .safetensors file");
    if (!o->out || !*o->out) die_usage("-o", "where to? name the .mb file to write");
    if (!strcmp(o->out, "-")) die_usage("-o", "the model cannot go to standard output; name a file");
}

static void choose_config(struct conversion *c) {
    const struct options *o = c->options;
    c->config.arguments = no_arguments;
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
    static struct options options = { .matrix_type = TYPE_Q8_TILED, .heads = ABSENT, .dim_head = ABSENT,
                                      .positions = ABSENT, .pad_id = ABSENT };
    static struct conversion c;
    static const int signals[] = { SIGINT, SIGTERM,
#ifdef SIGHUP
        SIGHUP,
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
