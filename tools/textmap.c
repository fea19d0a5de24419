/* textmap.c - see textmap.h.
 * SPDX-License-Identifier: MIT
 *
 * CONTENTS
 *    1 characters    costs, characters, what is shown of them
 *    2 terminals     colours, or figures below each line
 *    3 pages         HTML */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "textmap.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ================================================================================ 1 characters */

void add_costs(costs *c, const uint8_t *text, const float *bits, size_t n) {
    append(&c->text, text, n);
    append(&c->bits, bits, n * sizeof *bits);
}

void free_costs(costs *c) {
    free(c->text.data);
    free(c->bits.data);
    *c = (costs){.text = {.n = 0}};
}

static float bits_at(const costs *c, size_t i) {
    float bits;
    memcpy(&bits, c->bits.data + i * sizeof bits, sizeof bits);
    return bits;
}

/* Classes of cost: below 1 bit, below 2 ... */
static const double class_ends[] = {1, 2, 3, 4, 6, 8, 12};
enum { CLASSES = COUNT_OF(class_ends) + 1 };
static const char *const class_names[CLASSES] = {"0-1", "1-2", "2-3",  "3-4",
                                                 "4-6", "6-8", "8-12", "12+"};

static size_t class_of(double bits) {
    size_t i = 0;
    while (i < COUNT_OF(class_ends) && bits >= class_ends[i]) i++;
    return i;
}

typedef struct character {
    const uint8_t *text;
    size_t at, n; /* its bytes */
    uint32_t code; /* its Unicode number; what is not UTF-8: the byte, and is_escaped */
    int is_escaped;
    double bits;
    size_t class;
    char shown[16]; /* harmless; "": nothing, of a line feed or tab that cost little, ... */
    const char *layout; /* ... behind which this comes */
    unsigned columns; /* that `shown` takes */
} character;

typedef struct range {
    uint32_t from, to;
} range;

static int is_within(const range *ranges, size_t n, uint32_t code) {
    for (size_t i = 0; i < n; i++)
        if (code >= ranges[i].from && code <= ranges[i].to) return 1;
    return 0;
}

/* Controls, what is not seen (Unicode's Default_Ignorable_Code_Point) or turns the text around it,
 * and what is not a character. */
static const range commanding[] = {
    {0, 0x1f},         {0x7f, 0x9f},     {0xad, 0xad},     {0x34f, 0x34f},     {0x61c, 0x61c},
    {0x115f, 0x1160},  {0x17b4, 0x17b5}, {0x180b, 0x180f}, {0x200b, 0x200f},   {0x2028, 0x202e},
    {0x2060, 0x206f},  {0x3164, 0x3164}, {0xfdd0, 0xfdef}, {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},
    {0xffa0, 0xffa0},  {0xfff0, 0xfffb}, {0xfffe, 0xffff}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a},
    {0xe0000, 0xe0fff}};
/* What takes two columns. */
static const range wide[] = {{0x1100, 0x115f}, {0x2e80, 0xa4cf},   {0xac00, 0xd7a3},
                             {0xf900, 0xfaff}, {0xfe30, 0xfe6f},   {0xff00, 0xff60},
                             {0xffe0, 0xffe6}, {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};
static const range combining[] = {{0x300, 0x36f}, {0x20d0, 0x20ff}, {0xfe20, 0xfe2f}};

static uint32_t code_of(const uint8_t *p, size_t n) {
    static const uint8_t first[] = {0x7f, 0x7f, 0x1f, 0x0f, 0x07}; /* bits of the first byte */
    uint32_t code = p[0] & first[n];
    for (size_t i = 1; i < n; i++) code = code << 6 | (p[i] & 0x3f);
    return code;
}

/* Line feeds, tabs and the carriage returns of line ends are seen where they cost something. */
static int read_layout(const costs *c, character *one) {
    int is_end = one->code == '\r' && one->at + 1 < c->text.n && one->text[1] == '\n';
    const char *seen = one->code == '\n'   ? "\xe2\x86\xb5" /* arrows */
                       : one->code == '\t' ? "\xe2\x86\x92"
                       : is_end            ? "^M"
                                           : NULL;
    if (!seen) return 0;
    one->layout = is_end ? "" : one->code == '\n' ? "\n" : "\t";
    if (one->class) strcpy(one->shown, seen);
    one->columns = !one->class ? 0 : is_end ? 2 : 1;
    return 1;
}

/* The character at byte `at`; returns where the next one begins. */
static size_t read_character(const costs *c, size_t at, character *out) {
    const uint8_t *p = c->text.data + at;
    size_t n = utf8_length(p, c->text.n - at);
    *out = (character){.text = p, .at = at, .n = n ? n : 1, .layout = ""};
    out->code = n ? code_of(p, n) : *p;
    for (size_t i = 0; i < out->n; i++) out->bits += (double)bits_at(c, at + i);
    out->class = class_of(out->bits);
    if (read_layout(c, out)) return at + 1;
    out->columns = !is_within(combining, COUNT_OF(combining), out->code);
    out->is_escaped = !n || is_within(commanding, COUNT_OF(commanding), out->code);
    if (!n) snprintf(out->shown, sizeof out->shown, "<%02x>", *p);
    else if (out->is_escaped && out->code < 0x80)
        snprintf(out->shown, sizeof out->shown, "^%c", (int)(out->code ^ 0x40));
    else if (out->is_escaped) snprintf(out->shown, sizeof out->shown, "<U+%04X>", out->code);
    else memcpy(out->shown, p, n);
    if (out->is_escaped) out->columns = (unsigned)strlen(out->shown);
    else if (is_within(wide, COUNT_OF(wide), out->code)) out->columns = 2;
    return at + out->n;
}

/* ================================================================================= 2 terminals */

int wants_colours(const command *self, const char *when) {
    const char *none = getenv("NO_COLOR"), *terminal = getenv("TERM");
    if (when && !strcmp(when, "always")) return 1;
    if (when && !strcmp(when, "never")) return 0;
    if (when && strcmp(when, "auto"))
        usage_error(self, "--color", "'%.40s' is none of auto, always, never", when);
    return isatty(STDOUT_FILENO) && (!none || !*none) && (!terminal || strcmp(terminal, "dumb"));
}

/* Of the 256 colours that terminals have: background and ink; the first class has none. */
static const struct {
    int paper, ink;
} terminal_colours[CLASSES] = {{0, 0},    {151, 16}, {186, 16}, {221, 16},
                               {214, 16}, {208, 16}, {197, 16}, {90, 231}};

static void set_class(FILE *out, size_t *now, size_t class) {
    if (*now == class) return;
    *now = class;
    if (class)
        fprintf(out, "\033[0;38;5;%d;48;5;%dm", terminal_colours[class].ink,
                terminal_colours[class].paper);
    else fputs("\033[0m", out);
}

static void print_coloured(FILE *out, const costs *c) {
    character one = {.code = '\n'};
    size_t now = 0;
    for (size_t at = 0; at < c->text.n;) {
        at = read_character(c, at, &one);
        if (*one.shown) {
            set_class(out, &now, one.class);
            fputs(one.shown, out);
        }
        if (*one.layout) { /* colours may not reach the end of the line */
            set_class(out, &now, 0);
            fputs(one.layout, out);
        }
    }
    set_class(out, &now, 0);
    if (one.code != '\n') fputc('\n', out);
    fputs("\nbits a character: ", out);
    for (size_t i = 0; i < CLASSES; i++) {
        set_class(out, &now, i);
        fprintf(out, " %s ", class_names[i]);
    }
    set_class(out, &now, 0);
    fputs("\n\n", out);
}

/* A line of text, and the figures to be put below it. */
enum { FIGURE_COLUMNS = 78 };
typedef struct figures {
    FILE *out;
    bytes line;
    char below[FIGURE_COLUMNS + 16];
    size_t columns;
} figures;

static void put_figures(figures *f) {
    size_t n = f->columns;
    if (f->line.n) fwrite(f->line.data, 1, f->line.n, f->out);
    while (n && f->below[n - 1] == ' ') n--;
    fprintf(f->out, "\n%.*s\n", (int)n, f->below);
    f->line.n = f->columns = 0;
}

static void print_figures(FILE *out, const costs *c) {
    figures f = {.out = out};
    character one;
    for (size_t at = 0; at < c->text.n;) {
        at = read_character(c, at, &one);
        if (one.code == '\t' && !one.columns) one.columns = 1;
        if (f.columns + one.columns > FIGURE_COLUMNS) put_figures(&f);
        const char *shown = *one.shown || one.code != '\t' ? one.shown : " ";
        append(&f.line, shown, strlen(shown));
        memset(f.below + f.columns, ' ', one.columns);
        if (one.columns)
            f.below[f.columns] = (char)(one.bits < 1    ? '.'
                                        : one.bits < 10 ? '0' + (int)one.bits
                                                        : '+');
        f.columns += one.columns;
        if (one.code == '\n') put_figures(&f);
    }
    if (f.columns) put_figures(&f);
    free(f.line.data);
    fputs("\nBelow each character its bits: . less than 1, 1 to 9 whole ones, + 10 and more.\n\n",
          out);
}

void print_map(FILE *out, const costs *c, int has_colours) {
    if (has_colours) print_coloured(out, c);
    else print_figures(out, c);
}

/* ===================================================================================== 3 pages */

typedef struct page {
    output *to;
    size_t n;
    int good;
    char room[65536];
} page;

static void flush_page(page *p) {
    p->good = p->good && write_output(p->to, p->room, p->n);
    p->n = 0;
}

static void put_text(page *p, const char *text) { /* HTML */
    for (size_t n = strlen(text); n;) {
        size_t part = n < sizeof p->room - p->n ? n : sizeof p->room - p->n;
        memcpy(p->room + p->n, text, part);
        p->n += part;
        text += part;
        n -= part;
        if (p->n == sizeof p->room) flush_page(p);
    }
}

PRINTF(2, 3) static void put(page *p, const char *format, ...) { /* HTML, too; short */
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    put_text(p, text);
}

static void put_escaped(page *p, const char *text) {
    for (; *text; text++) {
        const char one[] = {*text, 0};
        put_text(p, *text == '&'    ? "&amp;"
                    : *text == '<'  ? "&lt;"
                    : *text == '>'  ? "&gt;"
                    : *text == '"'  ? "&quot;"
                    : *text == '\'' ? "&#39;"
                                    : one);
    }
}

/* A name from outside: what it might do is escaped as in the text. */
static void put_name(page *p, const char *name) {
    costs c = {.text = {.n = 0}};
    character one;
    const float nothing = 0;
    for (const char *at = name; *at; at++) add_costs(&c, (const uint8_t *)at, &nothing, 1);
    for (size_t at = 0; at < c.text.n;) {
        at = read_character(&c, at, &one);
        put_escaped(p, *one.layout ? " " : one.shown);
    }
    free_costs(&c);
}

static const char style[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1b1b1f;--dim:#6a6a74;--rule:#d9d9e0;"
    "--bar:#4a6fa5;--c1:#fbf3cd;--c2:#f8e08e;--c3:#f6c35f;--c4:#f19d49;--c5:#e3713e;--c6:#c3363f;"
    "--c7:#6f1d5b;--i5:#1b1b1f;--i6:#fff;--i7:#fff}\n"
    "@media(prefers-color-scheme:dark){:root{--paper:#15171c;--ink:#e4e4e8;--dim:#9a9aa6;"
    "--rule:#32353d;--bar:#7da3d9;--c1:#35321f;--c2:#51481c;--c3:#705512;--c4:#8f5310;"
    "--c5:#b04a1c;--c6:#cc3444;--c7:#f3b0de;--i5:#fff;--i6:#fff;--i7:#1b1b1f}}\n"
    "body{margin:0 auto;max-width:72rem;padding:1rem;background:var(--paper);color:var(--ink);"
    "font:16px/1.5 system-ui,sans-serif}\n"
    "h1{font-size:1.3rem;margin:0;overflow-wrap:anywhere}p{margin:.2rem 0 .8rem;"
    "color:var(--dim)}\n"
    "header ul{display:flex;flex-wrap:wrap;gap:.3rem;list-style:none;padding:.4rem 0;margin:0}\n"
    "header li{flex:1 0 6.5rem;font-size:.8rem;line-height:1.3;color:var(--dim)}\n"
    "header li b{display:block;padding:.1rem .4rem;border-radius:.2rem;"
    "border:1px solid var(--rule);font-size:.9rem;color:var(--ink)}\n"
    "main{font:14px/1.45 ui-monospace,monospace;border-top:1px solid var(--rule);"
    "padding-top:.5rem}\n"
    "main>div{display:flex}main>div:hover{background:color-mix(in srgb,var(--bar) 9%,transparent)}"
    "\n"
    "u{flex:none;width:4ch;padding-right:1ch;text-align:right;text-decoration:none;"
    "color:var(--dim);user-select:none}\n"
    "s{flex:none;width:6rem;margin-right:1ch;text-decoration:none}\n"
    "s b{display:block;height:.9em;margin-top:.25em;min-width:1px;background:var(--bar);"
    "border-radius:.1em}\n"
    "pre{flex:1;margin:0;font:inherit;white-space:pre-wrap;overflow-wrap:anywhere;tab-size:4}\n"
    "i{font-style:normal}i:hover{outline:2px solid var(--bar)}"
    ".e{opacity:.75}\n"
    ".c1{background:var(--c1)}.c2{background:var(--c2)}.c3{background:var(--c3)}"
    ".c4{background:var(--c4)}\n"
    "i.c5,header li .c5{background:var(--c5);color:var(--i5)}"
    "i.c6,header li .c6{background:var(--c6);color:var(--i6)}"
    "i.c7,header li .c7{background:var(--c7);color:var(--i7)}\n"
    "@media(max-width:40rem){s{width:2.5rem}header li{flex-basis:5rem}body{padding:.6rem}}\n"
    "@media print{body{max-width:none}i,s b,header li b{print-color-adjust:exact}}\n";

static void put_legend(page *p, const costs *c) {
    size_t count[CLASSES] = {0}, n = 0;
    double bits[CLASSES] = {0}, total = 0;
    character one;
    for (size_t at = 0; at < c->text.n; n++) {
        at = read_character(c, at, &one);
        count[one.class]++;
        bits[one.class] += one.bits;
        total += one.bits;
    }
    put_text(p, "<ul aria-label=\"Legend: bits a character\">\n");
    for (size_t i = 0; i < CLASSES; i++)
        put(p, "<li><b class=c%zu>%s bit%s</b>%.1f%% of characters<br>%.1f%% of bits\n", i,
            class_names[i], i ? "s" : "", n ? 100 * (double)count[i] / (double)n : 0,
            total > 0 ? 100 * bits[i] / total : 0);
    put_text(p, "</ul>\n");
}

/* One with its figures: of several bytes, each one's. */
static void put_character(page *p, const costs *c, const character *one) {
    int is_special = one->is_escaped || one->code < ' ';
    put_text(p, "<i");
    if (one->class || is_special) put(p, " class=\"c%zu%s\"", one->class, is_special ? " e" : "");
    put_text(p, " title=\"");
    if (one->n > 1 || is_special) {
        for (size_t i = 0; i < one->n; i++) put(p, "%02x ", one->text[i]);
        for (size_t i = 0; i < one->n && one->n > 1; i++)
            put(p, "%s%.2f", i ? " + " : "", (double)bits_at(c, one->at + i));
        if (one->n > 1) put_text(p, " = ");
    }
    put(p, "%.2f bits\">", one->bits);
    put_escaped(p, one->shown);
    put_text(p, "</i>");
    if (*one->layout == '\t') put_text(p, "\t");
}

typedef struct text_line {
    size_t begin, end; /* bytes; with the line feed */
    double bits;
} text_line;

static text_line read_line(const costs *c, size_t begin) {
    text_line line = {.begin = begin, .end = begin};
    while (line.end < c->text.n) {
        line.bits += (double)bits_at(c, line.end);
        if (c->text.data[line.end++] == '\n') break;
    }
    return line;
}

static void put_lines(page *p, const costs *c) {
    double most = 0;
    size_t number = 0;
    character one;
    for (text_line line = {.end = 0}; line.end < c->text.n;) {
        line = read_line(c, line.end);
        if (line.bits > most) most = line.bits;
    }
    put_text(p, "<main translate=no>\n");
    for (text_line line = {.end = 0}; line.end < c->text.n && p->good;) {
        line = read_line(c, line.end);
        double n = (double)(line.end - line.begin);
        put(p, "<div><u>%zu</u><s title=\"line %zu: %.0f bytes, %.1f bits, %.2f bits a byte\">",
            number + 1, number + 1, n, line.bits, line.bits / n);
        put(p, "<b style=\"width:%.1f%%\"></b></s><pre>", most > 0 ? 100 * line.bits / most : 0);
        for (size_t at = line.begin; at < line.end;) {
            at = read_character(c, at, &one);
            put_character(p, c, &one);
        }
        put_text(p, "</pre></div>\n");
        number++;
    }
    put_text(p, "</main>\n");
}

int write_page(output *to, const costs *c, const page_words *words) {
    page *p = allocate(1, sizeof *p);
    const double n = (double)c->text.n;
    p->to = to;
    p->good = 1;
    put_text(p, "<!DOCTYPE html>\n<html lang=en>\n<meta charset=utf-8>\n"
                "<meta name=viewport content=\"width=device-width,initial-scale=1\">\n"
                "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; "
                "style-src 'unsafe-inline'\">\n<title>");
    put_name(p, words->name);
    put_text(p, ": bits</title>\n<style>\n");
    put_text(p, style);
    put_text(p, "</style>\n<header>\n<h1>");
    put_name(p, words->name);
    put(p,
        "</h1>\n<p>%.0f bytes, %.5f bits a byte: %.0f bytes at best. Colours: bits that each "
        "character cost ",
        n, n > 0 ? words->bits / n : 0, ceil(words->bits / 8));
    put_name(p, words->model);
    put_text(p, "; bars: bits of a line; point at them for figures.</p>\n");
    put_legend(p, c);
    put_text(p, "</header>\n");
    put_lines(p, c);
    put_text(p, "</html>\n");
    flush_page(p);
    int good = p->good;
    free(p);
    return good;
}
