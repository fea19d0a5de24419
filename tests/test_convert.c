/* test_convert.c - the converter on right, wrong and hostile checkpoints of every family. Each
 * conversion runs in a child process, so that exit statuses and crashes are seen; memory asked for
 * is bounded by the input's size. */
#define MEGABYTE_API static __attribute__((unused))
#define _GNU_SOURCE
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static size_t memory_limit = SIZE_MAX, memory_used;
enum { EXIT_GREEDY = 77 };

static size_t charged(size_t count, size_t size) {
    if (size && count > (memory_limit - memory_used) / size) _exit(EXIT_GREEDY);
    memory_used += count * size;
    return size;
}
#define malloc(size) malloc(charged(1, size))
#define calloc(count, size) calloc(count, charged(count, size))
#define realloc(memory, size) realloc(memory, charged(1, size))
#include "mbconvert.h"
#undef malloc
#undef calloc
#undef realloc

#include "synthetic.h"
#include "torch.h"

#define IN "tests/tmp/hostile.safetensors"
#define CONFIG "tests/tmp/hostile.json"
#define OUT "tests/tmp/hostile.mb"

/* Sanitizers exit with statuses that cannot be mistaken for a refusal; memory is given back by the
 * exit. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__asan_default_options(void) { return "exitcode=99:detect_leaks=0"; }
const char *__ubsan_default_options(void) { return "halt_on_error=1:exitcode=99"; }

static const synthetic base = {"convert", 2, {4, 3}, {9, 6}, {1, 1}, 2, 4, 2, 20, 1, 1, "F16"};
static uint8_t *checkpoint;
static char *config, said[4096];
static size_t checkpoint_size, config_size;

/* Runs mbconvert with these arguments (ending in NULL), its messages go to `said`. Returns its exit
 * status. */
static int run_converter(const char *const *arguments, size_t limit) {
    char *argv[20] = {"mbconvert"};
    int argc = 1, wait_status;
    while (*arguments) argv[argc++] = (char *)*arguments++;
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (!child) {
        if (!freopen("tests/tmp/said.txt", "wb", stderr) || !freopen("/dev/null", "wb", stdout))
            _exit(98);
        memory_limit = limit, memory_used = 0;
        exit(mbconvert_main(argc, argv));
    }
    CHECK(waitpid(child, &wait_status, 0) == child);
    FILE *f = fopen("tests/tmp/said.txt", "rb");
    CHECK(f);
    said[fread(said, 1, sizeof said - 1, f)] = 0;
    fclose(f);
    CHECK(WIFEXITED(wait_status), "killed by signal %d: %s", WTERMSIG(wait_status), said);
    return WEXITSTATUS(wait_status);
}
#define RUN(...) run_converter((const char *const[]){__VA_ARGS__, NULL}, SIZE_MAX)

/* Refused or converted into a good model; nothing else, and nothing left behind. */
static void check_conversion(const char *quant, size_t input_size) {
    static const char *const leftovers = "ls tests/tmp | grep -q '^hostile\\.mb.'";
    remove(OUT);
    int status = run_converter(
        (const char *const[]){IN, "-o", OUT, "--config", CONFIG, "--quant", quant, NULL},
        8 * input_size + (2u << 20));
    CHECK(status == 0 || status == 1, "exit status %d: %s", status, said);
    if (status) {
        CHECK(strlen(said) > 30 && strstr(said, "mbconvert: "), "says only '%s'", said);
        CHECK(access(OUT, F_OK), "a refused checkpoint leaves a model: %s", said);
    } else {
        megabyte_model *model = open_model(OUT);
        OK(megabyte_model_verify(model, NULL));
        megabyte_model_close(model);
    }
    if (random_below(50) == 0) CHECK(shell("%s", leftovers) == 1, "a temporary file is left");
}

static void set_up(void) {
    make_tmp();
    name_case("set up");
    synthetic_write(&base, 5);
    checkpoint = read_file("tests/tmp/convert.safetensors", &checkpoint_size);
    config = (char *)read_file("tests/tmp/convert.json", &config_size);
    write_file(IN, checkpoint, checkpoint_size);
    write_file(CONFIG, config, config_size);
    check_conversion("f32", checkpoint_size);
    CHECK(!access(OUT, F_OK), "the checkpoint to be mutated is refused: %s", said);
}

/* ------------------------------------------------------------------------------------- refusals */

/* The checkpoint with every `from` in its header replaced by `to` (of the same length), or cut to
 * `size`. */
static void write_changed(const char *from, const char *to, size_t size) {
    uint8_t *p = need(checkpoint_size, 1);
    memcpy(p, checkpoint, checkpoint_size);
    size_t n = from ? strlen(from) : 0, found = 0;
    for (size_t i = 8; from && i + n < 8 + (size_t)get32(checkpoint); i++)
        if (!memcmp(p + i, from, n)) memcpy(p + i, to, n), found++;
    CHECK(!from || found, "no '%s' in the header", from);
    write_file(IN, p, size);
    free(p);
}

/* Exit status 1, and the message names what is wrong. */
static void check_refusal(const char *about) {
    remove(OUT);
    int status = RUN(IN, "-o", OUT, "--config", CONFIG);
    CHECK(status == 1 && strstr(said, about), "exit status %d, '%s' does not name '%s'", status,
          said, about);
    CHECK(access(OUT, F_OK), "refused, but there is a model");
}

static void refusals_name_the_cause(void) {
    static const char *const changes[][3] = {
        {"transformers.1.layers.0.1.4.bias", "transformers.1.layers.0.1.4.bia_",
         "transformers.1.layers.0.1.4.bia"},
        {"start_tokens.1", "start_tokens_1", "start_tokens.1"},
        {"to_logits.weight", "to_logits.Weight", "to_logits.weight"},
        {"\"shape\":[20,6]", "\"shape\":[10,6]", "token_embs"},
        {"\"to_logits.bias\":{\"dtype\":\"F16\"", "\"to_logits.bias\":{\"dtype\":\"F64\"",
         "to_logits.bias"},
        {"\"to_logits.bias\":{\"dtype\":\"F16\"", "\"to_logits.bias\":{\"dtype\":\"F32\"",
         "to_logits.bias"},
        {"token_embs.1.4.bias\":{", "token_embs.1.4.bias\":[", "JSON"},
        {"\"data_offsets\":[0,", "\"data_offsets\":[2,", "data"},
    };
    for (size_t i = 0; i < COUNT_OF(changes); i++) {
        name_case("%s -> %s", changes[i][0], changes[i][1]);
        write_changed(changes[i][0], changes[i][1], checkpoint_size);
        check_refusal(changes[i][2]);
        CHECK(strstr(said, IN), "'%s' does not name the file", said);
    }
    static const size_t cuts[] = {0, 1, 7, 8, 9, 100};
    for (size_t i = 0; i < COUNT_OF(cuts); i++) {
        name_case("%zu bytes", cuts[i]);
        write_changed(NULL, NULL, cuts[i]);
        check_refusal(IN);
    }
    name_case("one byte short");
    write_changed(NULL, NULL, checkpoint_size - 1);
    check_refusal(IN);

    static const char *const configs[][2] = {
        {"{\"heads\": 3, \"dim_head\": 4, \"max_seq_len\": [4, 3]}", "heads"},
        {"{\"heads\": 2, \"dim_head\": 4, \"max_seq_len\": [4, 5]}", "max_seq_len"},
        {"{\"heads\": 2, \"dim_head\": 4, \"max_seq_len\": [4, 3], \"dim\": [9, 7]}", "dim"},
        {"{\"heads\": 2, \"dim_head\": 4, \"max_seq_len\": [4, 3], \"num_tokens\": 256}",
         "num_tokens"},
        {"{\"heads\": \"two\"}", "JSON"},
    };
    write_changed(NULL, NULL, checkpoint_size);
    for (size_t i = 0; i < COUNT_OF(configs); i++) {
        name_case("%s", configs[i][0]);
        write_file(CONFIG, configs[i][0], strlen(configs[i][0]));
        check_refusal(configs[i][1]);
    }
    write_file(CONFIG, config, config_size);
    name_case("no configuration, no rotary frequencies");
    size_t size;
    uint8_t *bare = read_file("tests/data/lucid-2stage-nopos.safetensors", &size);
    write_file("tests/tmp/bare.safetensors", bare, size);
    free(bare);
    CHECK(RUN("tests/tmp/bare.safetensors", "-o", OUT) == 1 && strstr(said, "--seq-len"), "%s",
          said);
    CHECK(RUN("tests/tmp/bare.safetensors", "-o", OUT, "--seq-len", "32") == 1 &&
              strstr(said, "--heads"),
          "%s", said);
}

static void command_line(void) {
    name_case("command line");
    write_changed(NULL, NULL, checkpoint_size);
    CHECK(RUN("--help") == 0 && RUN("--version") == 0);
    CHECK(RUN(IN) == 2 && RUN("-o", OUT) == 2 && RUN(IN, "-o", OUT, "--quant", "q3") == 2, "%s",
          said);
    CHECK(RUN(IN, "-o", OUT, "--no-such-option") == 2 && strstr(said, "--no-such-option"), "%s",
          said);
    CHECK(RUN("tests/tmp/missing.safetensors", "-o", OUT) == 1 &&
              strstr(said, "missing.safetensors"),
          "%s", said);
    CHECK(RUN("tests/data", "-o", OUT) == 1 && strstr(said, "tests/data"), "%s", said);
    CHECK(RUN("tests/data/text.txt", "-o", OUT) == 1 && strstr(said, "text.txt"), "%s", said);
    CHECK(RUN(IN, "-o", "tests/tmp/no such folder/out.mb") == 1 && strstr(said, "no such folder"),
          "%s", said);
    write_file(OUT, "keep me", 7);
    CHECK(RUN(IN, "-o", OUT) == 1 && strstr(said, OUT), "%s", said);
    size_t size;
    free(read_file(OUT, &size));
    CHECK(size == 7, "an existing file is overwritten without -f");
    CHECK(RUN(IN, "-o", OUT, "-f") == 0, "%s", said);
    remove(OUT);
    CHECK(RUN(IN, "-o", OUT, "--config", "/dev/null", "--heads", "2", "--dim-head", "4",
              "--seq-len", "4") == 0,
          "%s", said);
    megabyte_model *model = open_model(OUT);
    CHECK(describe(model).stage[0].heads == 2 && describe(model).stage[0].positions == 4);
    megabyte_model_close(model);
}

/* ------------------------------------------------------------------------------------ mutations */

typedef struct text {
    uint8_t *data;
    size_t size, room;
} text;

static void replace(text *t, size_t at, size_t remove_n, const void *with, size_t n) {
    CHECK(at + remove_n <= t->size && t->size - remove_n + n <= t->room);
    memmove(t->data + at + n, t->data + at + remove_n, t->size - at - remove_n);
    memcpy(t->data + at, with, n);
    t->size = t->size - remove_n + n;
}

static int is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

/* One random change of a JSON text: numbers, brackets, slices, strings, bytes. */
static void mutate_json(text *t) {
    static const char *const numbers[] = {"0",
                                          "1",
                                          "-1",
                                          "2",
                                          "3",
                                          "65535",
                                          "65536",
                                          "16777217",
                                          "2147483647",
                                          "2147483648",
                                          "4294967295",
                                          "4294967296",
                                          "9223372036854775807",
                                          "9223372036854775808",
                                          "18446744073709551615",
                                          "18446744073709551616",
                                          "1e5",
                                          "1e999",
                                          "-0",
                                          "0.5",
                                          "00",
                                          "0x10",
                                          "99999999999999999999999999999999999999999999",
                                          "null",
                                          "true",
                                          "[]",
                                          "{}",
                                          "\"\""};
    static const char *const pieces[] = {
        "\"",           "\\",      "{",    "}",    "[",  "]",   ",",    ":",   "\\u0000",
        "\\ud800",      "\\u00e9", "\xff", "\xc3", "\n", "F32", "BF16", "F64", "I8",
        "__metadata__", "\\\"",    "1",    "start"};
    static char deep[4000];
    size_t at = random_below(t->size), end = at, n, from;
    switch (random_below(8)) {
    case 0:
    case 1:
    case 2: /* another number */
        while (at < t->size && !is_digit(t->data[at])) at++;
        for (end = at; end < t->size && is_digit(t->data[end]);) end++;
        const char *number = numbers[random_below(COUNT_OF(numbers))];
        replace(t, at, end - at, number, strlen(number));
        break;
    case 3: /* a piece put in, or in the place of something */
        n = random_below(COUNT_OF(pieces));
        replace(t, at, random_below(2) && at < t->size, pieces[n], strlen(pieces[n]));
        break;
    case 4: /* a slice left out, or doubled */
        n = random_below(t->size - at < 200 ? t->size - at : 200);
        if (random_below(2)) replace(t, at, n, "", 0);
        else {
            uint8_t slice[200];
            memcpy(slice, t->data + at, n);
            replace(t, at, 0, slice, n);
        }
        break;
    case 5: /* a slice of elsewhere */
        from = random_below(t->size);
        n = random_below(60);
        if (from + n <= t->size && at + n <= t->size) memmove(t->data + at, t->data + from, n);
        break;
    case 6: /* deep nesting or a long string */
        memset(deep, "[{\"a9"[random_below(5)], sizeof deep);
        replace(t, at, 0, deep, 1 + random_below(sizeof deep));
        break;
    default: t->data[at] ^= (uint8_t)(1u << random_below(8));
    }
}

/* `count` mutations of the checkpoint and its configuration: between `least` and half of them are
 * converted. */
static void mutate_case(int count, int least) {
    size_t header = get32(checkpoint), room = checkpoint_size + 100000;
    text t = {need(room, 1), 0, room};
    int converted = 0;
    for (uint64_t seed = 1; seed <= (uint64_t)count; seed++) {
        seed_random(seed);
        name_case("a mutated checkpoint: see " IN " and " CONFIG);
        if (random_below(4) == 0) { /* its configuration */
            t.size = config_size;
            memcpy(t.data, config, config_size);
            for (size_t n = 1 + random_below(3); n; n--) mutate_json(&t);
            write_file(CONFIG, t.data, t.size);
            write_file(IN, checkpoint, checkpoint_size);
        } else {
            t.size = header;
            memcpy(t.data, checkpoint + 8, header);
            size_t kind = random_below(8);
            for (size_t n = 1 + random_below(3); kind && n; n--) mutate_json(&t);
            uint64_t told = random_below(8) ? t.size : random64() >> random_below(64);
            uint8_t length[8];
            put64(length, told);
            replace(&t, 0, 0, length, 8);
            memcpy(t.data + t.size, checkpoint + 8 + header, checkpoint_size - 8 - header);
            t.size += checkpoint_size - 8 - header;
            if (!kind) /* bits and the length */
                for (size_t n = random_below(4); n; n--)
                    t.data[random_below(t.size)] ^= (uint8_t)(1u << random_below(8));
            if (random_below(8) == 0) t.size -= random_below(t.size);
            write_file(IN, t.data, t.size);
            write_file(CONFIG, config, config_size);
        }
        check_conversion(seed & 1   ? "f32"
                         : seed & 2 ? "q4"
                                    : "q8",
                         t.size > checkpoint_size ? t.size : checkpoint_size);
        converted += !access(OUT, F_OK);
    }
    CHECK(converted > least && converted < count / 2,
          "%d of %d were converted: the mutations are no good", converted, count);
    write_file(IN, checkpoint, checkpoint_size);
    write_file(CONFIG, config, config_size);
    free(t.data);
}

static void mutations(void) { mutate_case(3000, 20); }

/* ------------------------------------------------------------------------------ PyTorch's files */

#define PT "tests/tmp/hostile.pt" /* its content tells what it is, not this name */
#define AGAIN "tests/tmp/again.mb"

/* The .pt file gives the same model as the .safetensors file. */
static void check_same_model(const char *name) {
    char pt[200], safetensors[200], json[200];
    size_t n, m;
    snprintf(pt, sizeof pt, "tests/tmp/%s.pt", name);
    snprintf(safetensors, sizeof safetensors, "tests/tmp/%s.safetensors", name);
    snprintf(json, sizeof json, "tests/tmp/%s.json", name);
    remove(OUT), remove(AGAIN);
    CHECK(RUN(safetensors, "-o", OUT, "--config", json) == 0, "%s", said);
    for (int how = 0; how < LAYOUTS; how++) {
        name_case("%s as a .pt file, layout %d", name, how);
        write_torch(pt, safetensors, how);
        CHECK(RUN(pt, "-o", AGAIN, "-f", "--config", json) == 0, "%s", said);
        uint8_t *a = read_file(OUT, &n), *b = read_file(AGAIN, &m);
        CHECK(n == m && !memcmp(a, b, n), "another model");
        free(a), free(b);
    }
}

static void torch_models(void) {
    static const synthetic halves = {"torch-bf16", 3, {4, 3, 2}, {9, 6, 8}, {1, 1, 1}, 2, 4, 2,
                                     20,           1, 1,         "BF16"};
    static const synthetic_bgpt bgpt = {"torch-bgpt", 3, 4, 16, 2, {1, 1}, "F32"};
    static const synthetic_paper paper = {.name = "torch-paper",
                                          .patch = 3,
                                          .patches = 4,
                                          .vocabulary = 20,
                                          .dim = {4, 6},
                                          .depth = {1, 1},
                                          .heads = {2, 1},
                                          .kv_heads = {1, 1},
                                          .dim_head = {4, 6},
                                          .ff = {9, 7},
                                          .rope = {1, 1},
                                          .learned = {1, 1},
                                          .final_norm = {1, 1},
                                          .trained = 1,
                                          .convs = 2,
                                          .biases = 1,
                                          .qk_norm = 1,
                                          .to_local = 1,
                                          .norm = "LayerNorm",
                                          .activation = "relu",
                                          .type = "F16"};
    synthetic_write(&halves, 6);
    synthetic_write_bgpt(&bgpt, 7);
    synthetic_write_paper(&paper, 8);
    check_same_model("convert");
    check_same_model("torch-bf16");
    check_same_model("torch-bgpt");
    check_same_model("torch-paper");
}

/* ... ends in refusal, and the message names what is wrong. */
static void refused(const bytes *file, const char *about) {
    write_file(PT, file->at, file->size);
    int status = run_converter(
        (const char *const[]){PT, "-o", AGAIN, "-f", "--config", CONFIG, NULL},
        32 * file->size + (4u << 20)); /* tables that grow are charged again each time */
    CHECK(status == 1 && strstr(said, about), "exit status %d, '%s' does not name '%s'", status,
          said, about);
    CHECK(strstr(said, PT), "'%s' does not name the file", said);
}

static void refused_pickle(const char *code, size_t n, const char *about) {
    static const float values[16];
    zip_file z = {0};
    bytes pickle = {0}, data = {0};
    append(&pickle, code, n), append(&data, values, sizeof values);
    torch_begin(&z, "x", &pickle, NULL);
    torch_storage(&z, "x", 0, &data);
    bytes file = zip_end(&z);
    refused(&file, about);
    free(file.at), free(pickle.at), free(data.at);
}

static void torch_refuses_calls(void) {
#define PICKLE(code, about) \
    { code, sizeof(code) - 1, about }
    static const struct {
        const char *code;
        size_t n;
        const char *about;
    } cases[] = {
        PICKLE("\x80\2cos\nsystem\nX\2\0\0\0ls\x85R.", "os.system (opcode REDUCE at 21): refused"),
        PICKLE("\x80\4\x8c\2os\x8c\6system\x93\x8c\2ls\x85R.", "os.system (opcode REDUCE at "),
        PICKLE("\x80\2cposix\nsystem\nq\0X\2\0\0\0ls\x85q\1R.", "posix.system"),
        PICKLE("\x80\2}(X\1\0\0\0ac__builtin__\neval\nX\1\0\0\0001\x85Ru.",
               "__builtin__.eval (opcode REDUCE"),
        PICKLE("\x80\2c__main__\nConfig\n)\x81}b.", "__main__.Config (opcode NEWOBJ at 20)"),
        PICKLE("\x80\4c__main__\nConfig\n)}\x92.", "__main__.Config (opcode NEWOBJ_EX"),
        PICKLE("(X\2\0\0\0lsios\nsystem\n.", "os.system (opcode INST"),
        PICKLE("(cos\nsystem\nX\2\0\0\0lso.", "os.system (opcode OBJ"),
        PICKLE("ctorch\nload\nX\1\0\0\0a\x85R.", "torch.load (opcode REDUCE"),
        PICKLE("ctorch._utils\n_rebuild_tensor_v3\n)R.",
               "torch._utils._rebuild_tensor_v3 (opcode REDUCE"),
        PICKLE("ctorch\nFloatStorage\n)R.", "torch.FloatStorage (opcode REDUCE"),
        PICKLE("ccollections\nOrderedDict\n)R)R.", "not a class or function (opcode REDUCE"),
        PICKLE("cos\nsystem\n}b.", "BUILD"),
        PICKLE("\x82\1.", "EXT1"),
        PICKLE("\x8f.", "EMPTY_SET"),
        PICKLE("I1\n.", "INT"),
        PICKLE("\xff.", "0xff"),
        PICKLE("\x80\6}.", "protocol 6"),
        PICKLE("", "ends too early"),
        PICKLE("}", "ends too early"),
        PICKLE("X\xff\xff\xff\xff"
               "a.",
               "ends too early"),
        PICKLE("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
               "a.",
               "ends too early"),
        PICKLE("cos\nsystem", "ends too early"),
        PICKLE(".", "stack"),
        PICKLE("(.", "stack"),
        PICKLE("R.", "stack"),
        PICKLE("\x87.", "stack"),
        PICKLE("K\1K\2s.", "stack"),
        PICKLE("NNu.", "mark"),
        PICKLE("t.", "mark"),
        PICKLE("}(NNNu.", "key without a value"),
        PICKLE("](Nu.", "other than a dict"),
        PICKLE("}(Ne.", "other than a list"),
        PICKLE("h\1.", "memo 1"),
        PICKLE("}j\xff\xff\xff\xff.", "memo 4294967295"),
        PICKLE("}r\xff\xff\xff\xff.", "memo 4294967295"),
        PICKLE("NQ.", "persistent id"),
        PICKLE("}.", "no dict of tensors"),
        PICKLE("K\1.", "no dict of tensors"),
        PICKLE("}q\0X\5\0\0\0modelh\0s.", "no dict of tensors"), /* holds itself */
        PICKLE("}X\5\0\0\0modelK\1s.", "no dict of tensors"),
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        name_case("pickle %zu, about '%s'", i, cases[i].about);
        refused_pickle(cases[i].code, cases[i].n, cases[i].about);
    }
    name_case("a stack without end");
    static char deep[100000];
    memset(deep, 'N', sizeof deep);
    refused_pickle(deep, sizeof deep, "65536 values");
    memset(deep, '(', sizeof deep);
    refused_pickle(deep, sizeof deep, "65536 values");
    for (size_t i = 0; i < sizeof deep; i++)
        deep[i] = "]2a"[i % 3]; /* lists that hold themselves */
    refused_pickle(deep, sizeof deep, "ends too early");
}

static void torch_refuses_tensors(void) {
    static const struct {
        torch_view v;
        const char *about;
    } cases[] = {
        {{"ComplexFloatStorage", 0, 8, 0, {8}, {1}, 1}, "torch.ComplexFloatStorage"},
        {{"FloatStorage", 7, 8, 0, {8}, {1}, 1}, "data/7"},
        {{"FloatStorage", 0, 17, 0, {8}, {1}, 1}, "17 elements in 64 bytes"},
        {{"DoubleStorage", 0, 16, 0, {8}, {1}, 1}, "16 elements in 64 bytes"},
        {{"FloatStorage", 0, (uint64_t)1 << 62, 0, {8}, {1}, 1}, "truncated"},
        {{"FloatStorage", 0, (uint64_t)1 << 63, 0, {8}, {1}, 1}, "non-negative"},
        {{"FloatStorage", 0, 16, 9, {8}, {1}, 1}, "beyond its storage"},
        {{"FloatStorage", 0, 16, (uint64_t)1 << 62, {8}, {1}, 1}, "beyond its storage"},
        {{"FloatStorage", 0, 16, 0, {17}, {1}, 1}, "beyond its storage"},
        {{"FloatStorage", 0, 16, 0, {9}, {2}, 1}, "beyond its storage"},
        {{"FloatStorage", 0, 16, 0, {4, 4}, {5, 1}, 2}, "beyond its storage"},
        {{"FloatStorage", 0, 16, 0, {2}, {(uint64_t)1 << 62}, 1}, "beyond its storage"},
        {{"FloatStorage", 0, 16, 0, {(uint64_t)1 << 62, 4}, {0, 1}, 2}, "beyond its storage"},
        {{"FloatStorage", 0, 16, 0, {5, 4}, {0, 1}, 2}, "expanded"},
        {{"FloatStorage", 0, 16, 0, {8}, {1}, 1}, "no tensor of a known model"},
        {{"FloatStorage", 0, 16, 16, {0, 4}, {4, 1}, 2}, "no tensor of a known model"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        name_case("tensor %zu, about '%s'", i, cases[i].about);
        bytes pickle = {0};
        append_text(&pickle, "}(");
        pickle_text(&pickle, "w"), pickle_tensor(&pickle, &cases[i].v, 0);
        append_text(&pickle, "u.");
        refused_pickle((char *)pickle.at, pickle.size, cases[i].about);
        free(pickle.at);
    }
    name_case("two dicts of tensors");
    bytes pickle = {0};
    append_text(&pickle, "}(");
    for (int i = 0; i < 2; i++) {
        pickle_text(&pickle, i ? "generator" : "critic"), append_text(&pickle, "}");
        pickle_text(&pickle, "w"), pickle_tensor(&pickle, &cases[14].v, 0),
            append_text(&pickle, "s");
    }
    append_text(&pickle, "u.");
    refused_pickle((char *)pickle.at, pickle.size, "critic, generator");
    free(pickle.at);
    name_case("a tensor twice");
    memset(&pickle, 0, sizeof pickle);
    append_text(&pickle, "}(");
    for (int i = 0; i < 2; i++) pickle_text(&pickle, "w"), pickle_tensor(&pickle, &cases[14].v, 0);
    append_text(&pickle, "u.");
    refused_pickle((char *)pickle.at, pickle.size, "tensor w is there twice");
    free(pickle.at);
}

/* Writes `value` at the place of the first `what` of the archive plus `offset`. */
static void spoil(bytes *file, const char *what, size_t offset, uint64_t value, int width) {
    size_t at = 0, n = strlen(what);
    while (at + n <= file->size && memcmp(file->at + at, what, n)) at++;
    CHECK(at + offset + (size_t)width <= file->size, "no %s", what);
    for (int i = 0; i < width; i++) file->at[at + offset + (size_t)i] = (uint8_t)(value >> 8 * i);
}

static void torch_refuses_archives(void) {
    static const struct {
        const char *what;
        size_t offset;
        uint64_t value;
        int width;
        const char *about;
    } cases[] = {
        {"PK\1\2", 10, 8, 2, "archive/data.pkl in the archive is compressed (deflated)"},
        {"PK\1\2", 10, 99, 2, "compressed"},
        {"PK\1\2", 8, 1, 2, "encrypted"},
        {"PK\1\2", 20, 5, 4, "damaged"},
        {"PK\1\2", 42, 0xfffffff0, 4, "outside"},
        {"PK\1\2", 42, 4, 4, "damaged"},
        {"PK\1\2", 28, 0xffff, 2, "directory is damaged"},
        {"PK\1\2", 0, 0, 4, "directory is damaged"},
        {"PK\1\2", 24, 0x7fffffff, 4, "damaged"},
        {"PK\3\4", 26, 0xffff, 2, "archive/data.pkl"},
        {"PK\5\6", 0, 0, 4, "without its directory"},
        {"PK\5\6", 10, 0xfffe, 2, "does not lie in the file"},
        {"PK\5\6", 12, 0xfffffff0, 4, "does not lie in the file"},
        {"PK\5\6", 16, 0xfffffff0, 4, "does not lie in the file"},
        {"PK\5\6", 20, 7, 2, "without its directory"},
        {"little", 0, 0x20676962, 4, "byte order is 'big le'"},
    };
    size_t n;
    write_torch(PT, IN, PLAIN);
    uint8_t *good = read_file(PT, &n);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        name_case("archive %zu, about '%s'", i, cases[i].about);
        bytes file = {0};
        append(&file, good, n);
        spoil(&file, cases[i].what, cases[i].offset, cases[i].value, cases[i].width);
        refused(&file, cases[i].about);
        free(file.at);
    }
    bytes old = {0}, tar = {0};
    name_case("files of before PyTorch 1.6");
    append(&old,
           "\x80\2\x8a\nl\xfc\x9c"
           "F\xf9 j\xa8P\x19.\x80\2M\xe9\3.",
           21);
    refused(&old, "before 1.6");
    append(&tar, good, 257), append_text(&tar, "ustar"), append(&tar, good, 250);
    tar.at[0] = 's';
    refused(&tar, "before 1.6");
    name_case("another zip archive");
    zip_file z = {0};
    zip_add(&z, "word/document.xml", "<w>", 3), zip_add(&z, "a/b/data.pkl", ".", 1);
    bytes file = zip_end(&z);
    refused(&file, "no data.pkl");
    for (size_t i = 0; i < n; i += 1 + random_below(n / 100)) {
        name_case("%zu of %zu bytes", i, n);
        bytes part = {good, i, i};
        refused(&part, "");
    }
    free(old.at), free(tar.at), free(file.at), free(good);
}

static void torch_survives(void) {
    size_t n;
    write_torch(PT, IN, WRAPPED);
    uint8_t *good = read_file(PT, &n);
    int converted = 0;
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        seed_random(seed);
        name_case("a mutated .pt file: see " IN);
        bytes file = {0};
        append(&file, good, n);
        size_t head = 6000 < n ? 6000 : n; /* the pickle comes first */
        for (size_t k = 1 + random_below(3); k; k--) {
            size_t at = random_below(2) ? random_below(head) : n - 1 - random_below(n / 3);
            if (random_below(2)) file.at[at] ^= (uint8_t)(1u << random_below(8));
            else file.at[at] = (uint8_t) "(}]tuR.Q\x81qrhjXKMJNbc\xff\0\x94\x93"[random_below(25)];
        }
        if (random_below(10) == 0) file.size = random_below(n);
        write_file(IN, file.at, file.size);
        check_conversion(seed & 1 ? "f32" : seed & 2 ? "q4" : "q8", n);
        converted += !access(OUT, F_OK);
        free(file.at);
    }
    CHECK(converted > 20 && converted < 500, "%d of 1000 were converted: the mutations are no good",
          converted);
    write_file(IN, checkpoint, checkpoint_size);
    free(good);
}

/* ------------------------------------------------------------------------------------- families */

static const synthetic_mblm mblm = {
    "convert-mblm",    2,   {4, 3}, {8, 6}, {1, 1}, {2, 1}, {4, 6}, {2, 1}, {1, 0},
    {"rope", "fixed"}, 257, 256,    "F16"};
static const synthetic_spacebyte spacebyte = {
    "convert-spacebyte", 3,    4, 20, 5, {12, 8}, {1, 1}, 4, 2, 1, 0, 0, 1, "RMSNorm", "GELU",
    "muTransfer",        "F16"};
static const synthetic_spacebyte padded = {
    "convert-padded", 3,      4,        20,   5, {12, 8}, {1, 1}, 4, 2, 0, 1, 1, 0,
    "LayerNorm",      "ReLU", "simple", "F16"};
static const synthetic_bgpt bgpt = {"convert-bgpt", 3, 4, 8, 2, {1, 1}, "F16"};
static const synthetic_paper paper = {.name = "convert-paper",
                                      .patch = 3,
                                      .patches = 4,
                                      .vocabulary = 260,
                                      .dim = {4, 6},
                                      .depth = {1, 1},
                                      .heads = {2, 1},
                                      .kv_heads = {1, 1},
                                      .dim_head = {4, 6},
                                      .ff = {9, 7},
                                      .rope = {1, 1},
                                      .learned = {1, 1},
                                      .final_norm = {1, 0},
                                      .convs = 2,
                                      .cross_patch = 2,
                                      .biases = 1,
                                      .qk_norm = 1,
                                      .to_local = 1,
                                      .tied = 1,
                                      .norm = "LayerNorm",
                                      .activation = "silu",
                                      .type = "F16"};

/* The checkpoint NAME of tests/tmp becomes the one that is changed and refused: IN and CONFIG. */
static void choose_case(const char *name) {
    char path[200];
    free(checkpoint), free(config);
    snprintf(path, sizeof path, "tests/tmp/%s.safetensors", name);
    checkpoint = read_file(path, &checkpoint_size);
    snprintf(path, sizeof path, "tests/tmp/%s.json", name);
    config = (char *)read_file(path, &config_size);
    write_file(IN, checkpoint, checkpoint_size);
    write_file(CONFIG, config, config_size);
}

static struct sizes converted_sizes(const char *quant) {
    name_case("%s", quant);
    remove(OUT);
    CHECK(RUN(IN, "-o", OUT, "--config", CONFIG, "--quant", quant) == 0, "%s", said);
    megabyte_model *model = open_model(OUT);
    OK(megabyte_model_verify(model, NULL));
    struct sizes z = model->sizes;
    megabyte_model_close(model);
    return z;
}

static void families_are_told(void) {
    synthetic_write_mblm(&mblm, 21);
    synthetic_write_spacebyte(&spacebyte, 22);
    synthetic_write_spacebyte(&padded, 23);
    synthetic_write_bgpt(&bgpt, 24);
    synthetic_write_paper(&paper, 25);
    for (int q = 0; q < 3; q++) {
        const char *quant = q == 2 ? "q4" : q ? "q8" : "f32";
        struct sizes z;
        choose_case(mblm.name);
        z = converted_sizes(quant);
        CHECK(z.family == FAMILY_MBLM && z.n_stages == 2 && z.vocabulary == 257 && z.pad_id == 256);
        CHECK(z.stage[0].flags == (INPUT_ROTARY | POSITION_ROTARY) &&
              z.stage[1].flags == POSITION_LEARNED);
        CHECK(z.stage[0].heads == 2 && z.stage[0].head_dim == 4 && z.stage[1].heads == 1 &&
              z.stage[1].head_dim == 6 && z.stage[0].positions == 4 && z.stage[1].positions == 3);
        choose_case(spacebyte.name);
        z = converted_sizes(quant);
        CHECK(z.family == FAMILY_SPACEBYTE && z.vocabulary == 20 && z.pad_id == UINT32_MAX &&
              z.end_id == UINT32_MAX);
        CHECK(z.stage[0].flags == (POSITION_LEARNED | POSITION_ROTARY) &&
              z.stage[0].positions == 4);
        CHECK(z.stage[1].flags ==
              (POSITION_LEARNED | POSITION_ROTARY | PREVIOUS_BYTE | PATCH_PROJECTION | FINAL_NORM));
        CHECK(z.stage[0].heads == 3 && z.stage[0].kv_heads == 1 && z.stage[1].heads == 2 &&
              z.stage[1].kv_heads == 1 && z.stage[0].norm == NORM_DEVIATION &&
              z.stage[1].activation == GELU_TANH);
        choose_case(padded.name);
        z = converted_sizes(quant);
        CHECK(z.stage[0].flags == (POSITION_LEARNED | QK_NORM) && z.stage[0].kv_heads == 3 &&
              z.stage[1].flags == (POSITION_LEARNED | QK_NORM | PATCH_PROJECTION | FINAL_NORM) &&
              z.stage[0].norm == NORM_LAYER && z.stage[1].activation == RELU);
        choose_case(bgpt.name);
        z = converted_sizes(quant);
        CHECK(z.family == FAMILY_BGPT && z.vocabulary == 257 && z.pad_id == 256 && z.end_id == 256);
        CHECK(z.stage[0].flags == (POSITION_LEARNED | FINAL_NORM | COLUMN_SUM) &&
              z.stage[0].positions == 4 &&
              z.stage[1].flags == (POSITION_LEARNED | FINAL_NORM | CONDITION_FIRST) &&
              z.stage[1].positions == 3);
        choose_case(paper.name);
        z = converted_sizes(quant);
        CHECK(z.family == FAMILY_PAPER && z.vocabulary == 260 && z.end_id == UINT32_MAX &&
              z.stage[1].cross == 2);
        CHECK(z.stage[0].flags == (POSITION_LEARNED | POSITION_ROTARY | QK_NORM | FINAL_NORM) &&
              z.stage[0].convolution[0] == 3 && z.stage[0].convolution[1] == 5 &&
              !z.stage[0].convolution[2] && z.stage[0].kv_heads == 1 && z.stage[0].heads == 2 &&
              z.stage[0].dim == 12);
    }
}

/* `from` in the configuration replaced by `to`: refused, about `about`. */
static void check_config(const char *from, const char *to, const char *about) {
    char text[3000], *at = strstr(config, from);
    name_case("%s -> %s", from, to);
    CHECK(at, "not in the configuration");
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config), config, to, at + strlen(from));
    write_file(CONFIG, text, strlen(text));
    check_refusal(about);
    write_file(CONFIG, config, config_size);
}
static void check_names_changed(const char *from, const char *to, const char *about) {
    name_case("%s -> %s", from, to);
    write_changed(from, to, checkpoint_size);
    check_refusal(about);
    write_changed(NULL, NULL, checkpoint_size);
}

static void families_refuse(void) {
    choose_case(mblm.name);
    check_config("\"attn_num_heads\": 2", "\"attn_num_heads\": 3", "heads 3");
    check_config("\"attn_head_dims\": 6", "\"attn_head_dims\": 5", "5");
    check_config("\"attn_num_heads\": 2, ", "\"d_state\": 64, ", "d_state");
    check_config("\"pos_emb_type\": \"rope\"", "\"pos_emb_type\": \"alibi\"", "alibi");
    check_config("\"pos_emb_type\": \"fixed\"", "\"pos_emb_type\": \"rope\"", "pos_emb_type");
    check_config("\"attn_use_rot_embs\": true", "\"attn_use_rot_embs\": false",
                 "attn_use_rot_embs");
    check_config("\"ff_multiplier\": 2", "\"ff_multiplier\": 3", "ff_multiplier is 3");
    check_config("\"seq_lens\": [4, 3]", "\"seq_lens\": [4, 5]", "seq_lens is 5");
    check_config("\"seq_lens\": [4, 3]", "\"seq_lens\": [4]", "seq_lens lists 1");
    check_config("\"block\": [", "\"block\": [{}, ", "block lists 3");
    check_config("\"ff_multiplier\": 2", "\"ff_multiplier\": 2, \"block_type\": \"mamba2\"",
                 "mamba2");
    check_names_changed("stage_models.0.layers.0.0.to_out.weight",
                        "stage_models.0.layers.0.mixer.A_log_ght", "Mamba");
    check_names_changed("stage_models.1.norm.g", "stage_models.1.norm.G", "stage_models.1.norm.g");

    choose_case(spacebyte.name);
    check_config("\"BOS\": 5", "\"BOS\": null", "BOS is missing");
    check_config("\"BOS\": 5", "\"BOS\": 20", "BOS is 20");
    check_config("\"attention_window\": null", "\"attention_window\": 3", "attention_window");
    check_config("\"sparse_attention\": null", "\"sparse_attention\": true", "sparse_attention");
    check_config("\"tie_embedding\": false", "\"tie_embedding\": true", "tie_embedding");
    check_config("\"tokenizer\": null", "\"tokenizer\": \"sp\"", "tokenizer");
    check_config("\"nonlinear\": \"GELU\"", "\"nonlinear\": \"Mish\"", "Mish");
    check_config("\"layer_norm\": \"RMSNorm\"", "\"layer_norm\": \"ScaleNorm\"",
                 "known are LayerNorm, RMSNorm");
    check_config("\"d_key\": 4", "\"d_key\": 5", "5");
    check_config("\"patch_size\": 3", "\"patch_size\": 4", "patch_size is 4");
    check_config("\"context_size\": 12", "\"context_size\": 13", "context_size is 13");
    check_config("\"attention_groups\": 1", "\"attention_groups\": 2", "attention_groups is 2");
    check_config("\"use_padding\": false", "\"use_padding\": true", "use_padding");
    check_config("\"qk_layer_norm\": false", "\"qk_layer_norm\": true", "qk_layer_norm");
    check_config("\"d_local\": 8", "\"d_local\": 16", "d_local is 16");
    check_config("\"n_local_layers\": 1", "\"n_local_layers\": 2", "n_local_layers is 2");
    check_config("\"d_ff_mult\": 2", "\"d_ff_mult\": 4", "d_ff_mult is 4");
    check_names_changed("local_blocks.0.attention.KV_linear.weight",
                        "local_blocks.0.attention.kv_linear.weight", "KV_linear");
    name_case("no configuration");
    CHECK(RUN(IN, "-o", OUT, "--config", "/dev/null") == 0, "IN's own is taken: %s", said);
    remove("tests/tmp/alone.json");
    write_file("tests/tmp/alone.safetensors", checkpoint, checkpoint_size);
    CHECK(RUN("tests/tmp/alone.safetensors", "-o", AGAIN, "-f") == 1 && strstr(said, "--config"),
          "%s", said);
    choose_case(padded.name);
    check_names_changed("local_pad", "local_paD", "local_pad");

    choose_case(bgpt.name);
    check_config("\"PATCH_SIZE\": 3", "\"PATCH_SIZE\": 4", "PATCH_SIZE is 4");
    check_config("\"PATCH_LENGTH\": 4", "\"PATCH_LENGTH\": 5", "PATCH_LENGTH");
    check_config("\"HIDDEN_SIZE\": 8", "\"HIDDEN_SIZE\": 9", "HIDDEN_SIZE is 9");
    check_config("\"n_head\": 2", "\"n_head\": 3", "heads");
    check_config("\"n_head\": 2", "\"n_head\": null", "--heads");
    check_names_changed("byte_level_decoder.base.transformer.ln_f.bias",
                        "byte_level_decoder.base.transformer.ln_f.biaS", "ln_f.bias");
    name_case("--type");
    CHECK(RUN(IN, "-o", OUT, "-f", "--config", CONFIG, "--type", "jpeg") == 2 &&
              strstr(said, "--type"),
          "%s", said);
    CHECK(RUN(IN, "-o", OUT, "-f", "--config", CONFIG, "--type", "wav") == 0, "%s", said);
    CHECK(RUN(IN, "-o", AGAIN, "-f", "--config", CONFIG, "--type", "txt") == 0, "%s", said);
    CHECK(shell("cmp " OUT " " AGAIN) == 1, "--type has no effect");

    choose_case(paper.name);
    name_case("--type");
    CHECK(RUN(IN, "-o", OUT, "-f", "--config", CONFIG, "--type", "txt") == 2 &&
              strstr(said, "--type"),
          "%s", said);
    check_config("\"patch_size\": 3", "\"patch_size\": null", "patch_size is missing");
    check_config("\"patch_size\": 3", "\"patch_size\": 4", "4");
    check_config("\"patch_size\": 3", "\"patch_size\": 0", "patch_size is 0");
    check_config("\"patches\": 4", "\"patches\": 5", "patches");
    check_config("\"pad\": \"zero\"", "\"pad\": \"trained\"", "global.pad");
    check_config("\"pad\": \"zero\"", "\"pad\": null", "pad is missing");
    check_config("\"norm\": \"LayerNorm\"", "\"norm\": null", "norm is missing");
    check_config("\"activation\": \"silu\"", "\"activation\": null", "activation is missing");
    check_config("\"activation\": \"silu\"", "\"activation\": \"swish\"", "swish");
    check_config("\"cross_patch\": 2", "\"cross_patch\": 4", "cross_patch is 4");
    check_config("\"local_rope\": true", "\"local_rope\": false", "rotary");
    check_config("\"global_heads\": 2", "\"global_heads\": 5", "5");
    check_config("\"patches\": 4", "\"patches\": 4, \"end_id\": 10", "end_id is 10");
    check_config("\"patches\": 4", "\"patches\": 4, \"end_id\": 260", "end_id is 260");
    check_names_changed("global.conv.0.weight", "global.conv.7.weight", "conv");
    check_names_changed("global_to_local.weight", "global_to_local.weighT", "global_to_local");
    check_names_changed("local.layers.0.key.weight", "local.layers.0.Key.weight", "key.weight");
    choose_case("convert");
}

static void families_survive(void) {
    static const char *const names[] = {"convert-mblm", "convert-spacebyte", "convert-padded",
                                        "convert-bgpt", "convert-paper"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        choose_case(names[i]);
        mutate_case(200, 1);
    }
    choose_case("convert");
}

int main(void) {
    GROUP(set_up);
    GROUP(refusals_name_the_cause);
    GROUP(command_line);
    GROUP(mutations);
    GROUP(torch_models);
    GROUP(torch_refuses_calls);
    GROUP(torch_refuses_tensors);
    GROUP(torch_refuses_archives);
    GROUP(torch_survives);
    GROUP(families_are_told);
    GROUP(families_refuse);
    GROUP(families_survive);
    free(checkpoint), free(config);
    return 0;
}
