/* fuzz_json.c - any bytes as JSON: what the parser passes over it also takes apart, with the same
 * end, and written again it is the same; and as the configuration of a model of each family. See
 * fuzz.h. The first byte says which. */
#define LIKELY_BYTES "{}[]\",:\\/u0189dDcCtfn-+.eE \n\t\xc3\xa9\xed\xa0\xf0"
#include "fuzz_mbconvert.h"

#include "fuzz.h"

static const struct key *const families_keys[] = {lucidrains_keys, mblm_keys, spacebyte_keys,
                                                  bgpt_keys, paper_keys};

/* ---- taken apart, and written again: strings, names and numbers as they are read */

static struct {
    char *at;
    size_t n, room;
} written;

static void put(const char *text, size_t n) {
    if (written.n + n > written.room) {
        written.room = 2 * (written.n + n) + 64;
        written.at = realloc(written.at, written.room);
        MUST(written.at);
    }
    memcpy(written.at + written.n, text, n);
    written.n += n;
}

static void put_string(const char *s) {
    put("\"", 1);
    for (const char *p = s; *p; p++) {
        char escape[8];
        size_t n = utf8_length((const u8 *)p, strlen(p));
        MUST(n);
        if ((u8)*p < 0x20) {
            put(escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", (u8)*p));
        } else {
            if (*p == '"' || *p == '\\') put("\\", 1);
            put(p, n);
            p += n - 1;
        }
    }
    put("\"", 1);
}

static void take_apart(struct json *j) {
    char c = json_peek(j);
    if (c == '{' || c == '[') {
        char end = c == '{' ? '}' : ']';
        int some = 0;
        put(&c, 1);
        for (int first = (json_open(j, c), 1); json_more(j, end, &first); some = 1) {
            if (some) put(",", 1);
            if (c == '{') put_string(json_key(j)), put(":", 1);
            take_apart(j);
        }
        put(&end, 1);
    } else if (c == '"') {
        put_string(json_string(j));
    } else {
        const char *from = j->at;
        json_skip(j);
        put(from, (size_t)(j->at - from));
    }
}

static struct json begin(const char *text, size_t n) {
    char *copy = allocate((u64)n + 1, 1);
    memcpy(copy, text, n);
    return json_begin(copy, n, "input");
}

static void generic(const char *text, size_t n) {
    volatile int skipped = 0, taken = 0;
    struct json j;
    written.n = 0;
    if (!setjmp(refused)) {
        j = begin(text, n);
        json_skip(&j);
        json_finish(&j);
        skipped = 1;
    }
    if (!setjmp(refused)) {
        j = begin(text, n);
        take_apart(&j);
        json_finish(&j);
        taken = 1;
    }
    MUST(skipped == taken);
    tally(taken ? "JSON" : "no JSON");
    if (!taken) return;
    char *once = (char *)own_copy(written.at, written.n);
    size_t n_once = written.n;
    taken = written.n = 0;
    if (!setjmp(refused)) {
        j = begin(once, n_once);
        take_apart(&j);
        json_finish(&j);
        taken = 1;
    }
    MUST(taken && written.n == n_once && !memcmp(written.at, once, n_once));
    (free)(once);
}

static void configuration(const struct key *keys, const u8 *text, size_t n) {
    static struct config c;
    volatile int read = 0;
    memset(&c, 0, sizeof c);
    c.keys = keys;
    memory_file[0] = (struct memory_file){"input", text, n};
    if (!setjmp(refused)) read = 1 + read_config(&c, "input");
    if (read == 2) {
        for (u32 a = 0; c.path && a < ARG_COUNT; a++) {
            MUST(c.arguments.count[a] <= MEGABYTE_MAX_STAGES);
            for (u32 s = 0; s < MEGABYTE_MAX_STAGES; s++)
                MUST(c.arguments.at[a][s] == ABSENT || c.arguments.key[a][s]);
        }
        for (int i = 0; i < TEXT_COUNT; i++)
            for (const char *p = c.text[i]; p && *p;) {
                size_t bytes = utf8_length((const u8 *)p, strlen(p));
                MUST(bytes);
                p += bytes;
            }
    }
    tally(read == 2 && c.path ? "arguments" : read ? "no arguments" : "refused");
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    if (size < 2) return 0;
    u8 how = *input++, *text = own_copy(input, --size);
    quiet = 1;
    if (how % 6 == 5) generic((const char *)text, size);
    else configuration(families_keys[how % 6], text, size);
    give_back();
    free(text);
    return 0;
}

#ifdef STANDALONE
static void add_text(int how, const char *text) {
    u8 seed[2000];
    size_t n = strlen(text);
    MUST(n + 1 < sizeof seed);
    seed[0] = (u8)how;
    memcpy(seed + 1, text, n);
    add_seed(seed, n + 1);
}

/* An argument of each kind, for every family; and every kind of JSON. */
static void make_seeds(void) {
    add_text(
        5, "{\"a\": [1, -2.5e+3, 0, true, false, null, \"\\u00e9\\ud83d\\ude00\\n\"], \"b\": {}}");
    add_text(5, " [ [[]], {\"\\\"\\\\\\/\\b\\f\\r\\t\":\t0.5E-1} ]\n");
    add_text(5, "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"");
    for (int f = 0; f < 5; f++) {
        char text[2000] = "{\"name\": \"A model\", \"source\": \"tests\", \"args\": {", one[300];
        for (const struct key *k = families_keys[f]; k->name; k++) {
            const char *value = k->kind == WHOLE    ? "4"
                                : k->kind == FLAG   ? "true"
                                : k->kind == CHOICE ? "\"?\""
                                : k->kind == LIST   ? "[4, 2.0]"
                                : k->kind == BLOCKS ? "[{\"attn_num_heads\": 2}, {}]"
                                                    : "false";
            char choice[100];
            if (k->kind == CHOICE) {
                snprintf(choice, sizeof choice, "\"%s\"", k->choices->text);
                value = choice;
            }
            add_text(f, (snprintf(one, sizeof one, "{\"%s\": %s}", k->name, value), one));
            snprintf(one, sizeof one, "%s\"%s\": %s", k == families_keys[f] ? "" : ", ", k->name,
                     value);
            if (strlen(text) + strlen(one) < sizeof text - 4) strcat(text, one);
        }
        add_text(f, strcat(text, "}}"));
    }
}
#endif
