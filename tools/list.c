/* list.c - mbrun list: what the headers of .mbz files say.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "compress.h"

#include <string.h>

void print_column(const char *text, int width) {
    int n = (int)strlen(text);
    print_harmless(stdout, text);
    printf("%*s", n < width ? width - n : 0, "");
}

#define METHOD_WIDTH(i) (strlen(method_names[i]) > 8 ? (int)strlen(method_names[i]) : 8)
static void print_line(const survey *v, const char *version, const char *model, const char *name) {
    printf("%12llu  %12llu  %7.3f  %9.5f ", (unsigned long long)v->original,
           (unsigned long long)v->compressed,
           or_zero(quotient((double)v->original, (double)v->compressed)),
           or_zero(quotient(8 * (double)v->compressed, (double)v->original)));
    for (int i = 0; i < MEGABYTE_METHOD_COUNT; i++)
        printf(" %*llu", METHOD_WIDTH(i), (unsigned long long)v->by_method[i]);
    printf("  %7s  ", version);
    print_column(model, 23);
    printf("  ");
    print_harmless(stdout, name);
    putchar('\n');
}

static void print_line_json(const survey *v) {
    printf("\"original\": %llu, \"compressed\": %llu", (unsigned long long)v->original,
           (unsigned long long)v->compressed);
    json_field("ratio", quotient((double)v->original, (double)v->compressed));
    json_field("bits_per_byte", quotient(8 * (double)v->compressed, (double)v->original));
    json_field("members", (double)v->members);
    json_blocks(v->by_method);
}

/* "text" for models/text.mb; NULL if there is none with the file's id. */
static const known_model *model_of(zipper *z, const survey *v) {
    if (!v->has_model) return NULL;
    return known_model_of(models_at_hand(z), v->model_id, sizeof v->model_id);
}

size_t name_length(const char *path) {
    size_t n = strlen(base_name(path));
    return n > 3 ? n - 3 : n;
}

static void list_as_text(zipper *z, const survey *v, const char *name) {
    char model[64], version[32], contents_text[16];
    const known_model *known = model_of(z, v);
    int n = 0;
    for (size_t i = 0; i < sizeof v->model_id; i++)
        n += snprintf(model + n, sizeof model - (size_t)n, "%02x", v->model_id[i]);
    const char *contents = v->first.channels ? name_contents(&v->first, contents_text) : NULL;
    if (!v->has_model)
        snprintf(model, sizeof model, "none%s%s", contents ? ", " : "", contents ? contents : "");
    else if (v->has_several_models) snprintf(model, sizeof model, "several");
    else if (known)
        snprintf(model + n, sizeof model - (size_t)n, " %.*s", (int)name_length(known->path),
                 base_name(known->path));
    snprintf(version, sizeof version, "%u.%u%s", v->format_version, v->first.numerics_version,
             v->first.has_dictionary ? "d" : "");
    print_line(v, version, model, name);
}

static void list_as_json(zipper *z, const survey *v, const char *name) {
    const known_model *known = model_of(z, v);
    char contents_text[16];
    printf("{\"name\": ");
    json_text(stdout, name, strlen(name));
    printf(", ");
    print_line_json(v);
    json_field("block_bytes", v->block_size);
    json_field("context_shift", v->context_shift);
    json_field("ensemble", v->ensemble);
    json_field("format_version", v->format_version);
    const char *contents = name_contents(&v->first, contents_text);
    if (contents) printf(", \"contents\": \"%s\"", contents);
    else printf(", \"contents\": null");
    json_field("numerics_version", v->first.numerics_version);
    printf(", \"dictionary\": %s, \"several_models\": %s, \"model_id\": ",
           v->first.has_dictionary ? "true" : "false", v->has_several_models ? "true" : "false");
    if (v->has_model) {
        putchar('"');
        print_id(stdout, v->model_id, sizeof v->model_id);
        putchar('"');
    } else {
        printf("null");
    }
    printf(", \"model\": ");
    if (known) json_text(stdout, base_name(known->path), name_length(known->path));
    else printf("null");
    printf("}");
}

/* A file with a fault gets its line only if the fault is data that follows. */
static int list_file(zipper *z, char *path, survey *total, int n_printed, int *is_listed) {
    job j = {.z = z, .path = path, .in = -1};
    megabyte_error error;
    survey v;
    *is_listed = 0;
    if (!open_input(&j, 1, 1)) return 0;
    megabyte_status status = survey_file(&j, UINT64_MAX, &v, &error);
    close_input(&j);
    if (status && status != MEGABYTE_ERROR_IO) {
        char why[256];
        int is_told = error.text[0] && status != MEGABYTE_ERROR_TRAILING_DATA;
        const char *text = is_told ? error.text : megabyte_status_string(status);
        snprintf(why, sizeof why, "%.190s (at byte %llu)", text, (unsigned long long)error.offset);
        complain(j.name, "%s", why);
    }
    if (status && status != MEGABYTE_ERROR_TRAILING_DATA) return 0;
    if (n_printed && z->shared.json) printf(", ");
    if (z->shared.json) list_as_json(z, &v, path);
    else list_as_text(z, &v, path);
    flush_output();
    *is_listed = 1;
    total->original += v.original;
    total->compressed += v.compressed;
    total->members += v.members;
    for (int i = 0; i < MEGABYTE_METHOD_COUNT; i++) total->by_method[i] += v.by_method[i];
    return !status;
}

int run_list(const command *self, int argc, char **argv) {
    zipper z = {.self = self,
                .suffix = ".mbz",
                .mode = MEGABYTE_MODE_DECOMPRESS,
                .shared.computes_nothing = 1};
    const option own[] = {
        {"force", 'f', OPTION_FLAG, &z.force, 0, 0, NULL, "read from a terminal"},
        {"recursive", 'r', OPTION_FLAG, &z.recursive, 0, 0, NULL, RECURSIVE_HELP},
        {"quiet", 'q', OPTION_FLAG, &z.quiet, 0, 0, NULL, "not a word about skipped files"},
    };
    static char standard_input[] = "-";
    char *no_paths[] = {standard_input};
    int n = parse_options(self, own, COUNT_OF(own), &z.shared, argc, argv), n_printed = 0;
    if (z.recursive && !n) usage_error(self, "-r", "name a folder");
    path_list list = {.n = 0};
    int good = find_files(&z, n ? argv : no_paths, n ? n : 1, &list);
    survey total = {.original = 0};
    catch_interrupt();
    if (z.shared.json) {
        printf("{\"files\": [");
    } else {
        printf("%12s  %12s  %7s  %9s ", "original", "compressed", "ratio", "bits/byte");
        for (int i = 0; i < MEGABYTE_METHOD_COUNT; i++)
            printf(" %*s", METHOD_WIDTH(i), method_names[i]);
        printf("  %7s  %-23s  %s\n", "version", "model", "name");
    }
    for (size_t i = 0; i < list.n && !stop_requested(); i++) {
        int is_listed;
        if (!list_file(&z, list.path[i], &total, n_printed, &is_listed)) good = 0;
        n_printed += is_listed;
    }
    if (z.shared.json) {
        printf("], \"total\": {");
        print_line_json(&total);
        puts("}}");
    } else if (n_printed > 1) {
        print_line(&total, "", "", "total");
    }
    free_known_models(&z.known);
    free_paths(&list);
    return stop_requested() ? stop_requested() : !good;
}
