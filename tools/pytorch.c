/* pytorch.c - see pytorch.h.
 * SPDX-License-Identifier: MIT */

#include "pytorch.h"

#include "names.h"

#include <stdlib.h>
#include <string.h>

static u64 smaller(u64 a, u64 b) { return a < b ? a : b; }

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
    u64 tail = smaller(size, 65535 + 22), at = tail;
    u8 *p = allocate(tail, 1), wide[56];
    read_at(in, size - tail, p, tail, "the end of the archive");
    for (;; at--) {
        if (at < 22)
            die(in->path,
                "a zip archive without its directory: truncated? copy or download it again");
        const u8 *e = p + at - 22;
        if (!memcmp(e, "PK\5\6", 4) && read16(e + 20) == tail - at) break;
    }
    const u8 *end = p + at - 22;
    u64 end_offset = size - tail + at - 22;
    *count = read16(end + 10);
    *bytes = read32(end + 12);
    *offset = read32(end + 16);
    if (at - 22 >= 20 && !memcmp(end - 20, "PK\6\7", 4)) {
        u64 record = read64(end - 12);
        if (record > end_offset || end_offset - record < sizeof wide)
            die(in->path, "the archive's zip64 record lies outside the file");
        read_at(in, record, wide, sizeof wide, "the archive's zip64 record");
        if (memcmp(wide, "PK\6\6", 4)) die(in->path, "the archive's zip64 record is damaged");
        *count = read64(wide + 32);
        *bytes = read64(wide + 40);
        *offset = read64(wide + 48);
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
        u32 id = read16(extra), bytes = read16(extra + 2);
        if (bytes > n - 4) break;
        extra += 4;
        for (u32 at = 0; id == 1 && i < 3; i++) {
            if (*wide[i] != UINT32_MAX) continue;
            if (bytes - at < 8)
                die(in->path, "the archive's directory is damaged: a zip64 field cut short");
            *wide[i] = read64(extra + at);
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
            rest = left < 46 ? 0 : (u64)read16(p + 28) + read16(p + 30) + read16(p + 32);
        if (left < 46 || memcmp(p, "PK\1\2", 4) || rest > left - 46)
            die(in->path, "the archive's directory is damaged at entry %llu", (ull)i);
        struct zip_entry e = {p + 46,         read16(p + 28), read16(p + 10), read16(p + 8),
                              read32(p + 42), read32(p + 20), read32(p + 24)};
        read_zip64(in, &e, p + 46 + e.name_bytes, read16(p + 30));
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
    int n = (int)(u32)smaller(e->name_bytes, 200);
    if (e->flags & 1) die(in->path, "%.*s in the archive is encrypted", n, (const char *)e->name);
    if (e->method)
        die(in->path,
            "%.*s in the archive is compressed (%s); torch.save does not: repack it with zip -0", n,
            (const char *)e->name, e->method == 8 ? "deflated" : "in an unknown way");
    if (e->offset > z->end || z->end - e->offset < sizeof head)
        die(in->path, "%.*s in the archive lies outside the file", n, (const char *)e->name);
    read_at(in, e->offset, head, sizeof head, "an entry of the archive");
    u64 data = e->offset + sizeof head + read16(head + 26) + read16(head + 28);
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
        pickle_die(p, "items for something other than a %s", kind == IS_DICT ? "dict" : "list");
    if (kind == IS_DICT && (p->depth - from) % 2) pickle_die(p, "a key without a value; damaged?");
    for (u32 i = from; i < p->depth && to.kind == kind; i++) add_item(p, to.at, p->stack[i]);
    p->depth = from - below;
}

static int text_is(const struct pickle *p, struct value v, const char *text) {
    return v.kind == IS_TEXT && v.count == strlen(text) && !memcmp(p->bytes + v.at, text, v.count);
}

/* For messages: "os.system", or what kind of value it is instead. */
static const char *show_global(const struct pickle *p, struct value v, char out[200]) {
    if (v.kind != IS_GLOBAL) return "something that is not a class or function";
    struct value module = item(p, v, 0), name = item(p, v, 1);
    snprintf(out, 200, "%.*s.%.*s", (int)(u32)smaller(module.count, 90),
             (const char *)p->bytes + module.at, (int)(u32)smaller(name.count, 90),
             (const char *)p->bytes + name.at);
    return out;
}

static void push_global(struct pickle *p, struct value module, struct value name) {
    u32 node = new_node(p), known = 0;
    if (module.kind != IS_TEXT || name.kind != IS_TEXT)
        pickle_die(p, "a global whose name is not text; damaged?");
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
    if (arguments.kind != IS_TUPLE)
        pickle_die(p, "a call whose arguments are not a tuple; damaged?");
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
        u64 room = smaller(index + index / 2 + 64, p->size);
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
        pickle_die(p, "opcode BUILD on an object that is not part of a state dict: refused");
    push(p, to.kind, to.count, to.at);
}

static void load_storage(struct pickle *p) {
    struct value id = pop(p);
    if (id.kind != IS_TUPLE || !text_is(p, item(p, id, 0), "storage"))
        pickle_die(p, "a persistent id that names no storage: not a file of torch.save");
    push(p, IS_STORAGE, 0, id.at);
}

/* Opcodes, by what they do: each of these runs `code` and returns 1, or 0 if it is none of its
 * own. */

static int run_literal(struct pickle *p, u32 code) {
    switch (code) {
    case 'X':
    case 'T': push_text(p, IS_TEXT, read32(take(p, 4))); break; /* BINUNICODE, BINSTRING */
    case 0x8c:
    case 'U': push_text(p, IS_TEXT, *take(p, 1)); break; /* SHORT_BINUNICODE, _BINSTRING */
    case 0x8d: push_text(p, IS_TEXT, read64(take(p, 8))); break; /* BINUNICODE8 */
    case 'B': push_text(p, IS_OPAQUE, read32(take(p, 4))); break; /* BINBYTES */
    case 'C': push_text(p, IS_OPAQUE, *take(p, 1)); break; /* SHORT_BINBYTES */
    case 0x8e: push_text(p, IS_OPAQUE, read64(take(p, 8))); break; /* BINBYTES8 */
    case 'J': /* BININT */ push(p, IS_NUMBER, 0, (u64)(int64_t)(int32_t)read32(take(p, 4))); break;
    case 'K': push(p, IS_NUMBER, 0, *take(p, 1)); break; /* BININT1 */
    case 'M': push(p, IS_NUMBER, 0, read16(take(p, 2))); break; /* BININT2 */
    case 0x8a: push_long(p, *take(p, 1)); break; /* LONG1 */
    case 0x8b: push_long(p, read32(take(p, 4))); break; /* LONG4 */
    case 'G': /* BINFLOAT */
        take(p, 8);
        push(p, IS_OPAQUE, 0, 0);
        break;
    case 'N': push(p, IS_NONE, 0, 0); break;
    case 0x88:
    case 0x89: push(p, IS_NUMBER, 0, code == 0x88); break; /* NEWTRUE, NEWFALSE */
    default: return 0;
    }
    return 1;
}

static int run_stack(struct pickle *p, u32 code) {
    struct value top;
    switch (code) {
    case 0x80: /* PROTO */
        if (*take(p, 1) > 5)
            pickle_die(p, "pickle protocol %u; 2 to 5 can be read", p->bytes[p->at - 1]);
        break;
    case 0x95: take(p, 8); break; /* FRAME */
    case '(': push(p, IS_MARK, 0, 0); break;
    case '0': pop(p); break; /* POP */
    case '1': p->depth = marked(p) - 1; break; /* POP_MARK */
    case '2': /* DUP */
        top = pop(p);
        p->depth++;
        push(p, top.kind, top.count, top.at);
        break;
    case 'q': put_memo(p, *take(p, 1)); break;
    case 'r': put_memo(p, read32(take(p, 4))); break;
    case 0x94: put_memo(p, p->memo_count); break; /* MEMOIZE */
    case 'h': get_memo(p, *take(p, 1)); break;
    case 'j': get_memo(p, read32(take(p, 4))); break;
    default: return 0;
    }
    return 1;
}

static int run_container(struct pickle *p, u32 code) {
    switch (code) {
    case '}': push(p, IS_DICT, 0, new_node(p)); break;
    case ']': push(p, IS_LIST, 0, new_node(p)); break;
    case ')': pack(p, IS_TUPLE, p->depth); break; /* EMPTY_TUPLE */
    case 't': pack_marked(p, IS_TUPLE); break;
    case 'l': pack_marked(p, IS_LIST); break;
    case 'd': pack_marked(p, IS_DICT); break;
    case 0x85:
    case 0x86:
    case 0x87: pack_last(p, code - 0x84); break; /* TUPLE1, 2, 3 */
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
    default: return 0;
    }
    return 1;
}

static int run_call(struct pickle *p, u32 code) {
    struct value a, b;
    switch (code) {
    case 'c': /* GLOBAL */
        a = take_line(p);
        b = take_line(p);
        push_global(p, a, b);
        break;
    case 0x93: /* STACK_GLOBAL */
        b = pop(p);
        a = pop(p);
        push_global(p, a, b);
        break;
    case 'R':
    case 0x81: /* REDUCE, NEWOBJ */
        b = pop(p);
        a = pop(p);
        call(p, a, b);
        break;
    case 0x92: /* NEWOBJ_EX */
        pop(p);
        b = pop(p);
        a = pop(p);
        call(p, a, b);
        break;
    case 'o': call_object(p); break;
    case 'i': /* INST */
        a = take_line(p);
        b = take_line(p);
        pack_marked(p, IS_TUPLE);
        push_global(p, a, b);
        a = pop(p);
        b = pop(p);
        call(p, a, b);
        break;
    case 'b': build(p); break;
    case 'Q': load_storage(p); break; /* BINPERSID */
    default: return 0;
    }
    return 1;
}

/* Runs the pickle; returns the object it leaves. */
static struct value run_pickle(struct pickle *p) {
    for (;;) {
        p->op = p->at;
        u32 code = *take(p, 1);
        if (code == '.') return pop(p); /* STOP */
        if (!run_literal(p, code) && !run_stack(p, code) && !run_container(p, code) &&
            !run_call(p, code))
            pickle_die(p, "opcode 0x%02x (%s), which no state dict needs: refused", code,
                       opcode_name(code));
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
        snprintf(name, sizeof name, "%.*s", (int)(u32)smaller(key.count, 120),
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
        die(in->path, "tensor %.200s: its %s is not a non-negative whole number", t->name, what);
    return v.at;
}

static void read_type(const struct checkpoint *in, const struct pickle *p, struct value type,
                      struct source *t) {
    char text[200];
    if (type.kind != IS_GLOBAL || type.count == N_GLOBALS ||
        globals[type.count].use != STORAGE_TYPE)
        die(in->path, "tensor %.200s: its elements are of %s, which this version cannot read",
            t->name, show_global(p, type, text));
    t->type = globals[type.count].type;
}

/* Where the storage named `key` is in the file, all of its `held` elements. */
static u64 storage_data(const struct checkpoint *in, const struct archive *a, struct value key,
                        u64 held, const struct source *t) {
    const char *name = (const char *)a->pickle.bytes + (key.kind == IS_TEXT ? key.at : 0);
    const struct zip_entry *e = key.kind == IS_TEXT && key.count <= 100
                                    ? find_member(a, "data/", name, key.count)
                                    : NULL;
    if (!e)
        die(in->path, "tensor %.200s: its storage data/%.*s is not in the archive", t->name,
            key.kind == IS_TEXT ? (int)(u32)smaller(key.count, 100) : 0, name);
    u64 data = entry_data(in, &a->zip, e);
    if (held > e->size / element_types[t->type].bytes)
        die(in->path, "tensor %.200s: a storage of %llu elements in %llu bytes; truncated?",
            t->name, (ull)held, (ull)e->size);
    return data;
}

/* Returns how many elements of its storage, which has `held`, the tensor spans from its first to
 * its last one: at most `held`. */
static u64 read_shape(const struct checkpoint *in, const struct pickle *p, struct value shape,
                      struct value strides, u64 held, struct source *t) {
    t->rank = p->nodes[shape.at].count;
    if (t->rank > 16 || p->nodes[strides.at].count != t->rank)
        die(in->path, "tensor %.200s: %u dimensions, %u strides", t->name, t->rank,
            p->nodes[strides.at].count);
    u64 span = 1;
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
                "tensor %.200s: more elements than its storage's %llu (expanded?); save a "
                "contiguous copy",
                t->name, (ull)held);
        t->elements *= n;
        if (i < MAX_RANK) {
            t->shape[i] = n;
            t->stride[i] = n > 1 ? stride : 0;
        }
    }
    return t->elements ? span : 0;
}

/* A tensor is _rebuild_tensor_v2(storage, offset, shape, strides, ...), all counted in elements; a
 * storage is ("storage", type, key, device, elements). */
static void read_tensor(struct checkpoint *in, const struct archive *a, struct value v,
                        struct source *t) {
    const struct pickle *p = &a->pickle;
    struct value storage = item(p, v, 0), shape = item(p, v, 2), strides = item(p, v, 3);
    if (storage.kind != IS_STORAGE || shape.kind != IS_TUPLE || strides.kind != IS_TUPLE)
        die(in->path, "tensor %.200s: is not made of a storage, a shape and strides", t->name);
    read_type(in, p, item(p, storage, 1), t);
    u32 bytes = element_types[t->type].bytes;
    u64 held = whole(in, t, item(p, storage, 4), "storage's size"),
        offset = whole(in, t, item(p, v, 1), "offset");
    u64 data = storage_data(in, a, item(p, storage, 2), held, t);
    u64 span = read_shape(in, p, shape, strides, held, t);
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
    read_at(in, data, order, smaller(e->size, 16), "the byte order");
    if (strcmp(order, "little"))
        die(in->path,
            "its byte order is '%s'; only little-endian files can be read: save it again on a "
            "little-endian machine",
            order);
}

/* Finds data.pkl, in the one folder at the top. */
static void find_objects(const struct checkpoint *in, struct archive *a) {
    for (u64 i = 0; i < a->zip.count; i++) {
        const struct zip_entry *e = &a->zip.entries[i];
        const u8 *slash = memchr(e->name, '/', e->name_bytes), *name = slash ? slash + 1 : e->name;
        if (e->name + e->name_bytes - name == 8 && !memcmp(name, "data.pkl", 8) && !a->objects)
            a->objects = e;
    }
    if (!a->objects || a->objects->name_bytes > 400)
        die(in->path, "a zip archive, but not from torch.save: it has no data.pkl");
}

/* Returns the pickle's bytes, in which the tensors' names will stay. */
static u8 *read_objects(const struct checkpoint *in, struct archive *a) {
    struct pickle *p = &a->pickle;
    u64 at = entry_data(in, &a->zip, a->objects);
    p->path = in->path;
    p->size = a->objects->size;
    if (p->size > MAX_PICKLE)
        die(in->path, "data.pkl has %llu bytes; %u are possible", (ull)p->size, MAX_PICKLE);
    u8 *bytes = allocate(p->size, 1);
    read_at(in, at, bytes, p->size, "data.pkl");
    p->bytes = bytes;
    return bytes;
}

static void read_weights(struct checkpoint *in, const struct archive *a, struct value weights,
                         u8 *bytes) {
    const struct pickle *p = &a->pickle;
    in->tensors = allocate(count_tensors(p, weights), sizeof *in->tensors);
    u32 cell = p->nodes[weights.at].first;
    for (u32 i = p->nodes[weights.at].count / 2; i--; cell = p->cells[p->cells[cell].next].next) {
        struct value name = p->cells[cell].value, tensor = p->cells[p->cells[cell].next].value;
        if (name.kind != IS_TEXT || tensor.kind != IS_TENSOR) continue;
        bytes[name.at + name.count] = 0; /* where an opcode was, which has been run */
        in->tensors[in->count].name = (const char *)bytes + name.at;
        if (strlen(in->tensors[in->count].name) != name.count)
            die(in->path, "a tensor whose name holds NUL: %.200s", in->tensors[in->count].name);
        read_tensor(in, a, tensor, &in->tensors[in->count++]);
    }
}

void open_pytorch(struct checkpoint *in, u64 size) {
    struct archive a;
    struct pickle *p = &a.pickle;
    struct value weights;
    memset(&a, 0, sizeof a);
    open_zip(in, &a.zip, size);
    find_objects(in, &a);
    read_byteorder(in, &a);
    u8 *bytes = read_objects(in, &a);
    if (!choose_dict(p, run_pickle(p), 0, &weights))
        die(in->path, "holds no dict of tensors; save the model's state dict: "
                      "torch.save(model.state_dict(), ...)");
    in->data_bytes = size;
    read_weights(in, &a, weights, bytes);
    free(p->stack);
    free(p->memo);
    free(p->nodes);
    free(p->cells);
    free(a.zip.entries);
}
