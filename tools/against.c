/* against.c - mbrun compress --against: sizes beside those of other compressors, which it runs.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "compress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FAILED PROGRAM_FAILED

/* They read standard input. 7z needs a name for its output, which is appended. */
typedef struct rival {
    const char *label, *programs[3];
    const char *arguments[8];
    int needs_file;
} rival;

static const rival rivals[] = {
    {"gzip -9", {"gzip"}, {"-9", "-c"}, 0},
    {"xz -9e", {"xz"}, {"-9e", "-c"}, 0},
    {"zstd --ultra -22", {"zstd"}, {"-q", "--ultra", "-22", "-c"}, 0},
    {"brotli -q 11 -w 24", {"brotli"}, {"-q", "11", "-w", "24", "-c"}, 0},
    {"bzip2 -9", {"bzip2"}, {"-9", "-c"}, 0},
    {"bzip3 -b 16", {"bzip3"}, {"-e", "-b", "16", "-c"}, 0},
    {"7z PPMd o16",
     {"7z", "7zz", "7za"},
     {"a", "-bd", "-y", "-mx=9", "-m0=PPMd:o=16", "-sidata"},
     1},
};

typedef struct comparison {
    zipper *z;
    const char *program[COUNT_OF(rivals)]; /* NULL: not found */
    char directory[1024], archive[1040]; /* for 7z; "" before it is made */
} comparison;

static uint64_t size_by_rival(comparison *c, size_t i, const char *path) {
    const rival *r = &rivals[i];
    const char *arguments[COUNT_OF(r->arguments) + 3] = {c->program[i]};
    struct stat status;
    size_t n = 1;
    while (n <= COUNT_OF(r->arguments) && r->arguments[n - 1]) {
        arguments[n] = r->arguments[n - 1];
        n++;
    }
    if (!r->needs_file) return run_program((char *const *)arguments, path);

    if (!c->directory[0]) {
        int length = snprintf(c->directory, sizeof c->directory, "%s/mbrun-XXXXXX",
                              temporary_folder());
        if (length < 0 || (size_t)length >= sizeof c->directory || !mkdtemp(c->directory)) {
            c->directory[0] = 0;
            return FAILED;
        }
        snprintf(c->archive, sizeof c->archive, "%s/out.7z", c->directory);
        remove_if_killed(c->archive);
    }
    arguments[n] = c->archive;
    uint64_t size = run_program((char *const *)arguments, path);
    if (size != FAILED) size = stat(c->archive, &status) ? FAILED : (uint64_t)status.st_size;
    unlink(c->archive);
    return size;
}

static uint64_t size_by_us(comparison *c, char *path, uint64_t *original) {
    job j = {.z = c->z, .path = path, .name = path, .in = -1, .to = {.file = -1}};
    int good = process(&j);
    close_input(&j);
    *original = good ? j.bytes_in : (uint64_t)j.status.st_size;
    return good ? j.bytes_out : FAILED;
}

static void print_row(const comparison *c, const char *name, uint64_t original, uint64_t ours,
                      const uint64_t *theirs) {
    uint64_t least = ours;
    for (size_t i = 0; i < COUNT_OF(rivals); i++)
        if (c->program[i] && theirs[i] < least) least = theirs[i];
    printf("| ");
    for (size_t n; *name; name += n) { /* character by character, so that `|` can be escaped */
        char part[8] = {0};
        n = utf8_length((const uint8_t *)name, strlen(name));
        if (!n) n = 1;
        memcpy(part, name, n);
        if (*part == '|') putchar('\\');
        print_harmless(stdout, part);
    }
    printf(" | %llu |", (unsigned long long)original);
    for (size_t i = 0; i <= COUNT_OF(rivals); i++) {
        if (i > 0 && !c->program[i - 1]) continue;
        uint64_t size = i > 0 ? theirs[i - 1] : ours;
        const char *stars = size == least ? "**" : "";
        if (size == FAILED) printf(" - |");
        else printf(" %s%llu%s |", stars, (unsigned long long)size, stars);
    }
    putchar('\n');
    flush_output();
}

static void print_head(const comparison *c) {
    const zipper *z = c->z;
    int n_missing = 0;
    printf("Compressed sizes in bytes; mbrun's model: ");
    if (z->is_open) {
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)name_length(z->s.path), base_name(z->s.path));
        print_harmless(stdout, name);
        printf(", %llu bytes", (unsigned long long)z->s.info.file_bytes);
    } else {
        printf("none");
    }
    if (z->streams) printf(", -S %llu", (unsigned long long)z->streams);
    if (z->level) printf(", -%llu", (unsigned long long)z->level);
    if (z->block_size) printf(", -B %llu", (unsigned long long)z->block_size);
    if (z->dictionary_file) {
        printf(", --dictionary ");
        print_harmless(stdout, base_name(z->dictionary_file));
    }
    if (z->file_type) {
        printf(", --type ");
        print_harmless(stdout, z->file_type);
    }
    for (size_t i = 0; i < COUNT_OF(rivals); i++)
        if (!c->program[i])
            printf("%s%s", n_missing++ ? ", " : ". Not on this machine: ", rivals[i].programs[0]);
    printf(".\n\n| file | bytes | mbrun |");
    for (size_t i = 0; i < COUNT_OF(rivals); i++)
        if (c->program[i]) printf(" %s |", rivals[i].label);
    printf("\n|---|--:|--:|");
    for (size_t i = 0; i < COUNT_OF(rivals); i++)
        if (c->program[i]) printf("--:|");
    putchar('\n');
    flush_output();
}

static uint64_t sum(uint64_t a, uint64_t b) { return a == FAILED || b == FAILED ? FAILED : a + b; }

int compare_all(zipper *z, char **paths, int n) {
    comparison c = {.z = z};
    uint64_t total[COUNT_OF(rivals)] = {0}, total_ours = 0, total_original = 0;
    int good = 1, n_rows = 0;
    z->writes = 0;
    for (size_t i = 0; i < COUNT_OF(rivals); i++)
        for (size_t k = COUNT_OF(rivals[i].programs); k-- > 0;) /* the first one wins */
            if (rivals[i].programs[k] && is_on_path(rivals[i].programs[k]))
                c.program[i] = rivals[i].programs[k];
    if (z->needs_model) open_with(z, &z->shared);
    print_head(&c);
    for (int i = 0; i < n && !stop_requested(); i++) {
        uint64_t sizes[COUNT_OF(rivals)] = {0}, original;
        struct stat status;
        int is_there = !stat(paths[i], &status);
        if (!is_there || !S_ISREG(status.st_mode)) {
            good = complain(paths[i], "%s",
                            is_there ? "not a regular file, which is read several times"
                                     : strerror(errno));
            continue;
        }
        uint64_t ours = size_by_us(&c, paths[i], &original);
        if (ours == FAILED) good = 0;
        for (size_t k = 0; k < COUNT_OF(rivals) && !stop_requested(); k++)
            if (c.program[k]) sizes[k] = size_by_rival(&c, k, paths[i]);
        if (stop_requested()) break;
        print_row(&c, base_name(paths[i]), original, ours, sizes);
        for (size_t k = 0; k < COUNT_OF(rivals); k++) total[k] = sum(total[k], sizes[k]);
        total_ours = sum(total_ours, ours);
        total_original += original;
        n_rows++;
    }
    if (n_rows > 1 && !stop_requested()) print_row(&c, "total", total_original, total_ours, total);
    if (c.directory[0]) {
        unlink(c.archive);
        rmdir(c.directory);
        remove_if_killed(NULL);
    }
    return stop_requested() ? stop_requested() : !good;
}
