/* image.c - mbrun image: pictures to .mbi and back, with the habits of mbrun compress; the bits
 * that each pixel costs, as a picture. SPDX-License-Identifier: MIT
 *
 * CONTENTS
 *    1 reading           a whole file, its picture
 *    2 pack, map
 *    3 unpack, test
 *    4 list
 *    5 the subcommands */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "compress.h"
#include "heatmap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* All files of one call. */
typedef struct packer {
    zipper z;
    uint64_t tiles;
    int model_alone;
    const char *format; /* of what is unpacked: png, pnm, bmp; NULL: by the output's name */
    int is_map;
} packer;

/* One file on its way. */
typedef struct picture_job {
    job j;
    packer *p;
    picture picture;
    bytes file; /* what was read */
    uint64_t memory;
} picture_job;

/* =================================================================================== 1 reading */

/* The whole input. Returns 1, or 0 after a message (or without one after Ctrl-C). */
static int read_whole(picture_job *d) {
    static const char too_large[] = "is too large for a picture (more than 1 GB)";
    job *j = &d->j;
    if (j->size != MEGABYTE_SIZE_UNKNOWN && j->size > FILE_MOST)
        return complain(j->name, "%s", too_large);
    for (ssize_t n; (n = read_some(j->in, j->z->input, PIECE, j->name)) != 0;) {
        if (n < 0) return 0;
        if (d->file.n + (size_t)n > FILE_MOST) return complain(j->name, "%s", too_large);
        append(&d->file, j->z->input, (size_t)n);
    }
    j->bytes_in = d->file.n;
    if (!d->file.n) append(&d->file, "", 0);
    return 1;
}

static uint64_t count_samples(const picture *p) {
    return (uint64_t)p->width * p->height * p->channels;
}

/* Bytes that pixels may take: with file, code and the model's share it must all fit. */
static uint64_t pixels_most(const zipper *z) { return z->s.memory / 8; }

static int read_input_picture(picture_job *d) {
    char why[256];
    if (!read_whole(d)) return 0;
    if (!read_picture(&d->picture, d->file.data, d->file.n, pixels_most(d->j.z), why))
        return complain(d->j.name, "%s", why);
    d->j.expected = count_samples(&d->picture);
    if (*d->picture.dropped && !d->j.z->quiet)
        note(d->j.name, "only the pixels are kept, not its %s", d->picture.dropped);
    if (*d->picture.dropped && d->j.z->remove_input && !d->j.z->force)
        return complain(d->j.name, "skipped with --rm: that would be lost (not with -f)");
    free(d->file.data);
    d->file = (bytes){0};
    return 1;
}

static megabyte_image_options image_options(picture_job *d) {
    return (megabyte_image_options){.engine = d->p->z.s.engine,
                                    .tiles = (uint32_t)d->p->tiles,
                                    .model_alone = d->p->model_alone,
                                    .progress = on_samples,
                                    .progress_context = &d->j};
}

/* What the library asks for to pack or to unpack; 0 after a message. */
static size_t library_memory(const picture_job *d, megabyte_mode mode,
                             const megabyte_image_options *o) {
    const zipper *z = d->j.z;
    const picture *p = &d->picture;
    megabyte_error error;
    megabyte_image_info info;
    size_t size = 0;
    megabyte_status status = megabyte_image_memory(z->s.model, mode, o, p->width, p->height,
                                                   p->channels, &size);
    if (!status) return size;
    if (megabyte_image_describe(z->s.model, &info, &error))
        return (size_t)complain(z->s.path, "%s", error.text);
    if (status == MEGABYTE_ERROR_UNSUPPORTED && p->channels > info.channels)
        return (size_t)complain(d->j.name, "is in colour, and the model knows grey only");
    return (size_t)complain(d->j.name, "%s", megabyte_status_string(status));
}

/* For the library, and `besides`. */
static int check_memory(picture_job *d, const megabyte_image_options *o, uint64_t besides) {
    const zipper *z = d->j.z;
    const picture *p = &d->picture;
    char why[256];
    size_t size = library_memory(d, z->mode, o), unpacking = 0;
    if (!size) return 0;
    if (z->verify && !(unpacking = library_memory(d, MEGABYTE_MODE_DECOMPRESS, o))) return 0;
    d->memory = (size > unpacking ? size : unpacking) + besides;
    if (!memory_suffices(&z->s, "this picture", d->memory, why))
        return complain(d->j.name, "%s", why);
    if (z->verbose)
        note(d->j.name, "%u x %u %s, needs %.1f MB of memory, and the model %.1f MB", p->width,
             p->height, p->channels == 3 ? "RGB" : "grey", 1e-6 * (double)d->memory,
             1e-6 * (double)z->s.info.file_bytes);
    return 1;
}

/* Takes the output's name when all of it is there. */
static int write_result(picture_job *d, const uint8_t *data, size_t n) {
    job *j = &d->j;
    if (j->z->writes && !create_output(&j->to)) return complain(j->to.path, "%s", j->to.why);
    return write_out(j, data, n);
}

/* ================================================================================= 2 pack, map */

static int write_map(picture_job *d, const float *cost, size_t coded) {
    char why[256];
    uint8_t *out;
    size_t n;
    picture map = draw_heatmap(&d->picture, cost, coded);
    const char *name = d->j.to.path ? d->j.to.path : "";
    picture_format format = picture_format_named(name);
    int good = write_picture(&map, format ? format : PICTURE_PNG, &out, &n, why);
    free_picture(&map);
    if (!good) return complain(d->j.name, "%s", why);
    good = write_result(d, out, n);
    free(out);
    return good;
}

static int pack(picture_job *d) {
    zipper *z = &d->p->z;
    picture *p = &d->picture;
    megabyte_image_options o = image_options(d);
    megabyte_error error;
    megabyte_image image;
    if (!read_input_picture(d)) return 0;
    size_t bound = megabyte_image_bound(p->width, p->height, p->channels), n = 0;
    uint64_t besides = d->j.expected * (z->verify ? 2 : 1) + bound;
    if (d->p->is_map)
        besides += d->j.expected * sizeof(float) + 3 * heatmap_bytes(p->width, p->height);
    if (!check_memory(d, &o, besides)) return 0;
    uint8_t *coded = allocate(bound, 1);
    if (d->p->is_map) o.cost = allocate(d->j.expected, sizeof(float));
    image = as_image(p);
    z->bar = (progress){.start = now()};
    megabyte_status status = megabyte_image_encode(z->s.model, &o, &image, coded, bound, &n, NULL,
                                                   &error);
    int good = status ? packing_failed(&d->j, status, &error)
                      : !z->verify || verify_picture(&d->j, &z->s, coded, n, p);
    d->j.seconds = now() - z->bar.start;
    end_progress(&z->bar);
    d->j.counts.compressed = n;
    if (good && !z->quiet && !d->p->is_map && n > d->j.bytes_in)
        note(d->j.name, "is smaller than what it is packed to (%llu and %llu bytes)",
             (unsigned long long)d->j.bytes_in, (unsigned long long)n);
    if (good) good = d->p->is_map ? write_map(d, o.cost, n) : write_result(d, coded, n);
    free(coded);
    free(o.cost);
    return good;
}

/* ============================================================================== 3 unpack, test */

static int write_unpacked(picture_job *d) {
    char why[256];
    uint8_t *out;
    size_t n;
    picture_format format = picture_format_named(d->j.to.path ? d->j.to.path : "");
    if (d->p->format) {
        char name[8];
        snprintf(name, sizeof name, ".%.4s", d->p->format);
        format = picture_format_named(name);
    }
    if (!write_picture(&d->picture, format ? format : PICTURE_PNG, &out, &n, why))
        return complain(d->j.name, "%s", why);
    int good = write_result(d, out, n);
    free(out);
    return good;
}

/* A member of a .mbz file holds what lies around the pixels, too. */
static int may_unpack(const picture_job *d, const megabyte_image_header *h) {
    const zipper *z = d->j.z;
    if (!h->layout_bytes) return 1;
    if (z->remove_input && !z->force)
        return complain(d->j.name, "holds a whole file, of which only the pixels are unpacked; "
                                   "skipped with --rm (not with -f): see mbrun decompress");
    if (!z->quiet && z->writes)
        note(d->j.name, "only its pixels are unpacked; mbrun decompress gives the whole file");
    return 1;
}

static int unpack(picture_job *d) {
    zipper *z = &d->p->z;
    picture *p = &d->picture;
    megabyte_image_header h;
    megabyte_error error;
    char why[256];
    if (!read_whole(d)) return 0;
    megabyte_status status = megabyte_image_header_read(d->file.data, d->file.n, &h, &error);
    if (status) return packing_failed(&d->j, status, &error);
    if (!may_unpack(d, &h)) return 0;
    if (!use_model_of(z, &d->j, h.model_id, sizeof h.model_id)) return 0;
    megabyte_image_options o = image_options(d);
    o.tiles = h.tiles;
    o.model_alone = h.model_alone;
    *p = (picture){.width = h.width, .height = h.height, .channels = h.channels};
    d->j.expected = count_samples(p);
    d->j.counts.compressed = d->file.n;
    if (z->limit == UNLIKELY_ONLY) o.max_ratio = LIKELY_RATIO;
    else o.limit = z->limit;
    uint64_t claimed_most = MEGABYTE_RATIO_FREE + LIKELY_RATIO * (uint64_t)d->file.n;
    if ((o.limit && d->j.expected > o.limit) || (o.max_ratio && d->j.expected > claimed_most))
        return complain(d->j.name,
                        "claims %u x %u pixels, over the limit%s; --limit BYTES allows more, 0 "
                        "anything",
                        h.width, h.height, o.limit ? "" : " on ratio");
    uint64_t besides = (z->writes ? 3 : 1) * d->j.expected + d->file.n;
    if (!check_memory(d, &o, besides)) return 0;
    if (!allocate_pixels(p, UINT64_MAX, why)) return complain(d->j.name, "%s", why);
    const megabyte_image image = as_image(p);
    z->bar = (progress){.start = now()};
    o.tiles = 256; /* accepted */
    status = megabyte_image_decode(z->s.model, &o, d->file.data, d->file.n, &image, NULL, &error);
    d->j.seconds = now() - z->bar.start;
    end_progress(&z->bar);
    if (status) return packing_failed(&d->j, status, &error);
    if (z->writes) return write_unpacked(d);
    d->j.bytes_out = d->j.expected;
    return 1;
}

/* ====================================================================================== 4 list */

static void print_listed(zipper *z, const megabyte_image_header *h, const char *name) {
    const known_model *known = known_model_of(models_at_hand(z), h->model_id, sizeof h->model_id);
    const double samples = (double)h->width * h->height * h->channels;
    if (z->shared.json) {
        printf("{\"name\": ");
        json_text(stdout, name, strlen(name));
        printf(", \"width\": %u, \"height\": %u, \"channels\": %u", h->width, h->height,
               h->channels);
        json_field("compressed", (double)h->file_bytes);
        json_field("bits_per_byte", 8 * (double)h->file_bytes / samples);
        json_field("tiles", h->tiles);
        printf(", \"method\": \"%s\", \"layout_bytes\": %u, \"format_version\": %u, "
               "\"numerics_version\": %u, \"model_id\": \"",
               h->stored        ? "stored"
               : h->model_alone ? "model"
                                : "mixed",
               h->layout_bytes, h->format_version, h->numerics_version);
        print_id(stdout, h->model_id, sizeof h->model_id);
        printf("\", \"model\": ");
        if (known) json_text(stdout, base_name(known->path), name_length(known->path));
        else printf("null");
        printf("}");
        return;
    }
    printf("%8u x %-8u  %-4s  %12llu  %9.5f  %-6s  %5u  %4u.%u  ", h->width, h->height,
           h->channels == 3 ? "RGB" : "grey", (unsigned long long)h->file_bytes,
           8 * (double)h->file_bytes / samples,
           h->stored        ? "stored"
           : h->model_alone ? "model"
                            : "mixed",
           h->tiles, h->format_version, h->numerics_version);
    print_id(stdout, h->model_id, sizeof h->model_id);
    char model[64] = "";
    if (known)
        snprintf(model, sizeof model, "%.*s", (int)name_length(known->path),
                 base_name(known->path));
    putchar(' ');
    print_column(model, 10);
    printf("  ");
    print_harmless(stdout, name);
    putchar('\n');
}

static int list_picture(zipper *z, char *path, int *n_printed) {
    job j = {.z = z, .path = path, .in = -1};
    megabyte_image_header h;
    megabyte_error error;
    size_t n = 0;
    if (!open_input(&j, 1, 1)) return 0;
    for (ssize_t got; n < PIECE; n += (size_t)got) {
        got = read_some(j.in, z->input + n, PIECE - n, j.name);
        if (got < 0) n = SIZE_MAX;
        if (got <= 0) break;
    }
    close_input(&j);
    if (n == SIZE_MAX) return 0;
    if (megabyte_image_header_read(z->input, n, &h, &error))
        return complain(j.name, "%s", error.text);
    if (j.size != MEGABYTE_SIZE_UNKNOWN && j.size != h.file_bytes)
        return complain(j.name, "has %llu bytes, and not %llu as its header says",
                        (unsigned long long)j.size, (unsigned long long)h.file_bytes);
    if ((*n_printed)++ && z->shared.json) printf(", ");
    print_listed(z, &h, path);
    return 1;
}

static int list_all(packer *p, char **paths, int n) {
    zipper *z = &p->z;
    int good = 1, n_printed = 0;
    if (z->shared.json) printf("{\"files\": [");
    else
        printf("%8s   %-8s  %-4s  %12s  %9s  %-6s  %5s  %-6s  %-23s  %s\n", "width", "height", "",
               "compressed", "bits/byte", "method", "tiles", "version", "model", "name");
    for (int i = 0; i < n && !stop_requested(); i++)
        if (!list_picture(z, paths[i], &n_printed)) good = 0;
    if (z->shared.json) puts("]}");
    return stop_requested() ? stop_requested() : !good;
}

/* =========================================================================== 5 the subcommands */

static int is_packing(const zipper *z) { return z->mode == MEGABYTE_MODE_COMPRESS; }

static void print_packed(const picture_job *d) {
    const job *j = &d->j;
    const picture *p = &d->picture;
    const double packed = (double)j->counts.compressed;
    print_harmless(stderr, j->name);
    fprintf(stderr, ": %s%u x %u %s, %llu -> %llu bytes", j->z->writes ? "" : "OK, ", p->width,
            p->height, p->channels == 3 ? "RGB" : "grey", (unsigned long long)j->bytes_in,
            (unsigned long long)(d->p->is_map ? j->counts.compressed : j->bytes_out));
    fprintf(stderr, ", %.5f bits/byte of pixels, %.2f s, %.1f KB/s\n",
            or_zero(quotient(8 * packed, (double)d->j.expected)), j->seconds,
            or_zero(quotient(1e-3 * (double)d->j.expected, j->seconds)));
}

static void print_packed_json(const picture_job *d) {
    const job *j = &d->j;
    const picture *p = &d->picture;
    printf("{\"name\": ");
    json_text(stdout, j->path, strlen(j->path));
    if (j->to.path) {
        printf(", \"output\": ");
        json_text(stdout, j->to.path, strlen(j->to.path));
    }
    printf(", \"width\": %u, \"height\": %u, \"channels\": %u, \"dropped\": ", p->width, p->height,
           p->channels);
    json_text(stdout, p->dropped, strlen(p->dropped));
    json_field("bytes_in", (double)j->bytes_in);
    json_field("bytes_out", (double)j->bytes_out);
    json_field("compressed", (double)j->counts.compressed);
    json_field("bits_per_byte", quotient(8 * (double)j->counts.compressed, (double)d->j.expected));
    json_field("memory_bytes", (double)d->memory);
    json_field("seconds", j->seconds);
    json_field("bytes_per_second", quotient((double)d->j.expected, j->seconds));
    printf("}");
}

/* Returns 1, or 0 after a message. */
static int process_picture(packer *p, char *path, int *n_printed) {
    zipper *z = &p->z;
    picture_job d = {.p = p,
                     .j = {.z = z, .path = path, .name = path, .in = -1, .to = {.file = -1}}};
    const int elsewhere = !z->writes || z->to_stdout || z->output;
    int good = open_input(&d.j, z->force || elsewhere, elsewhere) && choose_output(&d.j);
    if (good && is_packing(z) && !z->is_open) open_with(z, &z->shared);
    good = good && (is_packing(z) ? pack(&d) : unpack(&d));
    if (p->is_map) d.j.status.st_mode = 0; /* a map is a new file: not with the picture's times */
    good = close_output(&d.j, good) && good;
    if (good && z->remove_input && d.j.in != STDIN_FILENO) good = remove_input(&d.j);
    close_input(&d.j);
    if (good && z->verbose) print_packed(&d);
    if (good && z->shared.json) {
        if ((*n_printed)++) printf(", ");
        print_packed_json(&d);
        flush_report();
    }
    free_picture(&d.picture);
    free(d.file.data);
    free_output(&d.j.to);
    return good;
}

static int process_pictures(packer *p, char **paths, int n) {
    int good = 1, n_printed = 0;
    if (p->z.shared.json) printf("{\"files\": [");
    for (int i = 0; i < n && !stop_requested(); i++)
        if (!process_picture(p, paths[i], &n_printed)) good = 0;
    if (p->z.shared.json) puts("]}");
    if (report_failure()) good = 0;
    return stop_requested() ? stop_requested() : !good;
}

static void check_options(const command *self, packer *p, int n) {
    zipper *z = &p->z;
    if (z->output && !strcmp(z->output, "-")) {
        z->output = NULL;
        z->to_stdout = 1;
    }
    if (!n) usage_error(self, "FILE", "none given (- is standard input)");
    if (z->output && z->to_stdout) usage_error(self, "-o and -c", "give only one of them");
    if (z->output && n > 1) usage_error(self, "-o", "takes only one FILE");
    if (p->is_map && (n != 1 || (!z->output && !z->to_stdout)))
        usage_error(self, "map", "takes one FILE and -o OUT.png");
    if (z->keep && z->remove_input) usage_error(self, "-k and --rm", "give only one of them");
    if (z->to_stdout && z->remove_input)
        usage_error(self, "--rm", "not together with -c: what is written there may get lost");
    if (z->to_stdout && z->shared.json)
        usage_error(self, "--json", "would mix with the output of -c");
    if (p->format && strcmp(p->format, "png") && strcmp(p->format, "pnm") &&
        strcmp(p->format, "bmp"))
        usage_error(self, "--format", "'%.40s' is none of png, pnm, bmp", p->format);
    if (z->remove_input) z->verify = 1;
}

enum { PACKS = 1, UNPACKS = 2, TESTS = 4, LISTS = 8, MAPS = 16 };

/* Long, as it holds the table of all options. */
static int run_verb(const command *self, int argc, char **argv, int who) {
    const uint32_t cores = count_cores();
    const int all = PACKS | UNPACKS | TESTS | LISTS | MAPS;
    packer p = {.is_map = who == MAPS};
    zipper *z = &p.z;
    *z = (zipper){.self = self,
                  .suffix = ".mbi",
                  .gives_pictures = !(who & (PACKS | MAPS)),
                  .writes = !(who & (TESTS | LISTS)),
                  .mode = who & (PACKS | MAPS) ? MEGABYTE_MODE_COMPRESS : MEGABYTE_MODE_DECOMPRESS,
                  .limit = UNLIKELY_ONLY,
                  .shared = {.usual = "image", .threads = cores, .computes_nothing = who == LISTS}};
    const struct {
        int who;
        option o;
    } table[] = {
        {PACKS | UNPACKS | MAPS,
         {"output", 'o', OPTION_TEXT, &z->output, 0, 0, "OUT",
          "write to this file or device (one FILE only; -: standard output)"}},
        {PACKS | UNPACKS,
         {"stdout", 'c', OPTION_FLAG, &z->to_stdout, 0, 0, NULL, "write to standard output"}},
        {UNPACKS,
         {"format", 0, OPTION_TEXT, &p.format, 0, 0, "NAME",
          "png, pnm or bmp (default: by the suffix of OUT, else png)"}},
        {PACKS | UNPACKS,
         {"keep", 'k', OPTION_FLAG, &z->keep, 0, 0, NULL,
          "keep the input (so it is without -k, too)"}},
        {PACKS | UNPACKS,
         {"rm", 0, OPTION_FLAG, &z->remove_input, 0, 0, NULL,
          who == PACKS ? "remove the input after success; implies --verify"
                       : "remove the input after success"}},
        {all,
         {"force", 'f', OPTION_FLAG, &z->force, 0, 0, NULL,
          who & (TESTS | LISTS) ? "read from a terminal"
                                : "overwrite; follow links; use terminals; --rm despite metadata"}},
        {PACKS,
         {"verify", 0, OPTION_FLAG, &z->verify, 0, 0, NULL,
          "unpack each picture before it is written, and compare"}},
        {PACKS | MAPS,
         {"tiles", 0, OPTION_NUMBER, &p.tiles, 1, 256, "N",
          "tiles in flight when it is unpacked (12), each with a stream's memory"}},
        {PACKS | MAPS,
         {"model-alone", 0, OPTION_FLAG, &p.model_alone, 0, 0, NULL, "no context mixing"}},
        {UNPACKS | TESTS,
         {"limit", 0, OPTION_SIZE, &z->limit, 0, ANY, "SIZE",
          "refuse a picture of more bytes of pixels (0: none; default: see above)"}},
        {PACKS | UNPACKS | TESTS | MAPS,
         {"verbose", 'v', OPTION_FLAG, &z->verbose, 0, 0, NULL,
          "tell memory beforehand, sizes and speed of each file"}},
        {all,
         {"quiet", 'q', OPTION_FLAG, &z->quiet, 0, 0, NULL,
          "no progress bar, not a word about dropped metadata"}},
    };
    option own[COUNT_OF(table)];
    size_t n_own = 0;
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (table[i].who & who) own[n_own++] = table[i].o;
    int n = parse_options(self, own, n_own, &z->shared, argc, argv);
    check_options(self, &p, n);
    z->input = allocate(PIECE, 1);
    catch_interrupt();
    int status = who == LISTS ? list_all(&p, argv, n) : process_pictures(&p, argv, n);
    close_model(z);
    free_known_models(&z->known);
    free(z->input);
    return status;
}

static int run_pack(const command *self, int argc, char **argv) {
    return run_verb(self, argc, argv, PACKS);
}
static int run_unpack(const command *self, int argc, char **argv) {
    return run_verb(self, argc, argv, UNPACKS);
}
static int run_test_pictures(const command *self, int argc, char **argv) {
    return run_verb(self, argc, argv, TESTS);
}
static int run_list_pictures(const command *self, int argc, char **argv) {
    return run_verb(self, argc, argv, LISTS);
}
static int run_map(const command *self, int argc, char **argv) {
    return run_verb(self, argc, argv, MAPS);
}

static const command verbs[] = {
    {"image pack", "[-m MODEL] [-o OUT | -c] [-f] [--rm] [options] FILE...",
     "Writes FILE.mbi beside each FILE, a PNG, PNM (PGM, PPM) or BMP: size and pixels, without "
     "any\n"
     "loss. The model itself is needed to unpack. What else is in FILE (metadata, comments) is "
     "not\n"
     "kept; its name is told. More than 8 bits a sample and transparent pixels are refused: mbrun\n"
     "compress keeps every file byte for byte. Uses all cores unless told otherwise.\n"
     "--rm removes FILE only if nothing of it was left out (but with -f), it is still what was "
     "read,\n"
     "and the output is on disk.\n"
     "Exit status: 0 done, 1 something failed or was skipped, 2 wrong usage, 130 interrupted.",
     run_pack, "makes FILE.mbi of each FILE"},
    {"image unpack", "[-m MODEL] [-o OUT | -c] [-f] [--rm] [options] FILE...",
     "Writes FILE for each FILE.mbi, as PNG, PNM or BMP by its suffix; without one of these, "
     "FILE.png.\n"
     "Without -m, the model that a file needs is looked for by its id: first image, then the "
     "others\n"
     "beside it. Every pixel is checked before anything is written. A file that claims more than\n"
     "1 MB + 1024 times its own size is refused before any work, unless --limit says how much is\n"
     "allowed; 0: any amount.\n"
     "Exit status: 0 done, 1 something failed or was skipped, 2 wrong usage, 130 interrupted.",
     run_unpack, "makes a picture of each FILE.mbi"},
    {"image test", "[-m MODEL] [--limit SIZE] [-v] [options] FILE...",
     "Unpacks without writing anything. Exit status: 0 if every FILE is intact, 1 if not, 2 wrong\n"
     "usage, 130 interrupted.",
     run_test_pictures, "checks .mbi files"},
    {"image list", "[--json] FILE...",
     "Prints what the headers of .mbi files say, without unpacking anything (test does).\n"
     "Exit status: 0 done, 1 if a FILE is not a .mbi file or ends too early, 2 wrong usage.",
     run_list_pictures, "tells what is in .mbi files"},
    {"image map", "[-m MODEL] -o OUT [-f] [options] FILE",
     "Draws what packing a picture costs: the picture, beside it the bits of each pixel as "
     "colours,\n"
     "below the scale and the total. Nothing is packed.",
     run_map, "draws what packing a picture costs"},
};

int run_image(const command *self, int argc, char **argv) {
    const size_t prefix = strlen("image ");
    if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
        puts("Usage: mbrun image pack | unpack | test | list | map [options] FILE...\n");
        for (size_t i = 0; i < COUNT_OF(verbs); i++)
            printf("  mbrun %-12s  %s\n", verbs[i].name, verbs[i].brief);
        puts("\nmbrun help image pack (or image pack --help) tells the options, and so on.");
        return 0;
    }
    nearest best = {.word = NULL};
    for (size_t i = 0; argc > 1 && i < COUNT_OF(verbs); i++)
        if (!strcmp(argv[1], verbs[i].name + prefix))
            return verbs[i].run(&verbs[i], argc - 1, argv + 1);
    for (size_t i = 0; argc > 1 && i < COUNT_OF(verbs); i++)
        consider(&best, argv[1], strlen(argv[1]), verbs[i].name + prefix);
    if (best.word) usage_error(self, argv[1], "did you mean %s?", best.word);
    usage_error(self, argc > 1 ? argv[1] : "image", "%s",
                argc > 1 ? "is none of pack, unpack, test, list, map"
                         : "say what: pack, unpack, test, list or map");
}
