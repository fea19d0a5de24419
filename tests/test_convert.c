/* test_convert.c - the converter on wrong and hostile checkpoints. Each conversion runs in a child
 * process, so that exit statuses and crashes are seen; memory asked for is bounded by the input's size. */
#define MEGABYTE_API static __attribute__((unused))
#if !defined(_POSIX_C_SOURCE) && !defined(_GNU_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
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
#define main mbconvert_main
#include "../tools/mbconvert.c"
#undef main
#undef malloc
#undef calloc
#undef realloc

#include "synthetic.h"

#define IN "tests/tmp/hostile.safetensors"
#define CONFIG "tests/tmp/hostile.json"
#define OUT "tests/tmp/hostile.mb"

/* Sanitizers exit with statuses that cannot be mistaken for a refusal; memory is given back by the exit. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__asan_default_options(void) { return "exitcode=99:detect_leaks=0"; }
const char *__ubsan_default_options(void) { return "halt_on_error=1:exitcode=99"; }

static const synthetic base = { "convert", 2, { 4, 3 }, { 9, 6 }, { 1, 1 }, 2, 4, 2, 20, 1, 1, "F16" };
static uint8_t *checkpoint;
static char *config, said[4096];
static size_t checkpoint_size, config_size;

/* Runs mbconvert with these arguments (ending in NULL), its messages go to `said`. Returns its exit
 * status. */
static int run_converter(const char *const *arguments, size_t limit) {
    char *argv[20] = { "mbconvert" };
    int argc = 1, wait_status;
    while (*arguments) argv[argc++] = (char *)*arguments++;
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (!child) {
        if (!freopen("tests/tmp/said.txt", "wb", stderr) || !freopen("/dev/null", "wb", stdout)) _exit(98);
        memory_limit = limit;
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
#define RUN(...) run_converter((const char *const[]){ __VA_ARGS__, NULL }, SIZE_MAX)

/* Refused or converted into a good model; nothing else, and nothing left behind. */
static void check_conversion(const char *quant, size_t input_size) {
    static const char *const leftovers = "ls tests/tmp | grep -q '^hostile\\.mb.'";
    remove(OUT);
    int status = run_converter(
        (const char *const[]){ IN, "-o", OUT, "--config", CONFIG, "--quant", quant, NULL },
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

/* ---------------------------------------------------------------------------------------------- refusals */

/* The checkpoint with every `from` in its header replaced by `to` (of the same length), or cut to `size`. */
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
    CHECK(status == 1 && strstr(said, about), "exit status %d, '%s' does not name '%s'", status, said, about);
    CHECK(access(OUT, F_OK), "refused, but there is a model");
}

static void refusals_name_the_cause(void) {
    static const char *const changes[][3] = {
        { "transformers.1.layers.0.1.4.bias", "transformers.1.layers.0.1.4.bia_",
          "transformers.1.layers.0.1.4.bia" },
        { "start_tokens.1", "start_tokens_1", "start_tokens.1" },
        { "to_logits.weight", "to_logits.Weight", "to_logits.weight" },
        { "\"shape\":[20,6]", "\"shape\":[10,6]", "token_embs" },
        { "\"to_logits.bias\":{\"dtype\":\"F16\"", "\"to_logits.bias\":{\"dtype\":\"F64\"",
          "to_logits.bias" },
        { "\"to_logits.bias\":{\"dtype\":\"F16\"", "\"to_logits.bias\":{\"dtype\":\"F32\"",
          "to_logits.bias" },
        { "token_embs.1.4.bias\":{", "token_embs.1.4.bias\":[", "JSON" },
        { "\"data_offsets\":[0,", "\"data_offsets\":[2,", "data" },
    };
    for (size_t i = 0; i < COUNT_OF(changes); i++) {
        name_case("%s -> %s", changes[i][0], changes[i][1]);
        write_changed(changes[i][0], changes[i][1], checkpoint_size);
        check_refusal(changes[i][2]);
        CHECK(strstr(said, IN), "'%s' does not name the file", said);
    }
    static const size_t cuts[] = { 0, 1, 7, 8, 9, 100 };
    for (size_t i = 0; i < COUNT_OF(cuts); i++) {
        name_case("%zu bytes", cuts[i]);
        write_changed(NULL, NULL, cuts[i]);
        check_refusal(IN);
    }
    name_case("one byte short");
    write_changed(NULL, NULL, checkpoint_size - 1);
    check_refusal(IN);

    static const char *const configs[][2] = {
        { "{\"heads\": 3, \"dim_head\": 4, \"max_seq_len\": [4, 3]}", "heads" },
        { "{\"heads\": 2, \"dim_head\": 4, \"max_seq_len\": [4, 5]}", "max_seq_len" },
        { "{\"heads\": 2, \"dim_head\": 4, \"max_seq_len\": [4, 3], \"dim\": [9, 7]}", "dim" },
        { "{\"heads\": 2, \"dim_head\": 4, \"max_seq_len\": [4, 3], \"num_tokens\": 256}", "num_tokens" },
        { "{\"heads\": \"two\"}", "JSON" },
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
    CHECK(RUN("tests/tmp/bare.safetensors", "-o", OUT) == 1 && strstr(said, "--seq-len"), "%s", said);
    CHECK(RUN("tests/tmp/bare.safetensors", "-o", OUT, "--seq-len", "32") == 1 && strstr(said, "--heads"),
          "%s", said);
}

static void command_line(void) {
    name_case("command line");
    write_changed(NULL, NULL, checkpoint_size);
    CHECK(RUN("--help") == 0 && RUN("--version") == 0);
    CHECK(RUN(IN) == 2 && RUN("-o", OUT) == 2 && RUN(IN, "-o", OUT, "--quant", "q3") == 2, "%s", said);
    CHECK(RUN(IN, "-o", OUT, "--no-such-option") == 2 && strstr(said, "--no-such-option"), "%s", said);
    CHECK(RUN("tests/tmp/missing.safetensors", "-o", OUT) == 1 && strstr(said, "missing.safetensors"), "%s",
          said);
    CHECK(RUN("tests/data", "-o", OUT) == 1 && strstr(said, "tests/data"), "%s", said);
    CHECK(RUN("tests/data/text.txt", "-o", OUT) == 1 && strstr(said, "text.txt"), "%s", said);
    CHECK(RUN(IN, "-o", "tests/tmp/no such folder/out.mb") == 1 && strstr(said, "no such folder"), "%s",
          said);
    write_file(OUT, "keep me", 7);
    CHECK(RUN(IN, "-o", OUT) == 1 && strstr(said, OUT), "%s", said);
    size_t size;
    free(read_file(OUT, &size));
    CHECK(size == 7, "an existing file is overwritten without -f");
    CHECK(RUN(IN, "-o", OUT, "-f") == 0, "%s", said);
    remove(OUT);
    CHECK(RUN(IN, "-o", OUT, "--config", "/dev/null", "--heads", "2", "--dim-head", "4", "--seq-len", "4") ==
              0,
          "%s", said);
    megabyte_model *model = open_model(OUT);
    CHECK(describe(model).stage[0].heads == 2 && describe(model).stage[0].positions == 4);
    megabyte_model_close(model);
}

/* --------------------------------------------------------------------------------------------- mutations */

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
    static const char *const numbers[] = {
        "0", "1", "-1", "2", "3", "65535", "65536", "16777217", "2147483647", "2147483648", "4294967295",
        "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551615",
        "18446744073709551616", "1e5", "1e999", "-0", "0.5", "00", "0x10",
        "99999999999999999999999999999999999999999999", "null", "true", "[]", "{}", "\"\"" };
    static const char *const pieces[] = {
        "\"", "\\", "{", "}", "[", "]", ",", ":", "\\u0000", "\\ud800", "\\u00e9", "\xff", "\xc3", "\n",
        "F32", "BF16", "F64", "I8", "__metadata__", "\\\"", "1", "start" };
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

static void mutations(void) {
    size_t header = get32(checkpoint), room = checkpoint_size + 100000;
    text t = { need(room, 1), 0, room };
    int converted = 0;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
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
        check_conversion(seed & 1 ? "f32" : "q8", t.size > checkpoint_size ? t.size : checkpoint_size);
        converted += !access(OUT, F_OK);
    }
    CHECK(converted > 20 && converted < 1500, "%d of 3000 were converted: the mutations are no good",
          converted);
    free(t.data);
}

int main(void) {
    GROUP(set_up);
    GROUP(refusals_name_the_cause);
    GROUP(command_line);
    GROUP(mutations);
    free(checkpoint), free(config);
    return 0;
}
