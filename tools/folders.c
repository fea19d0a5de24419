/* folders.c - mbrun's -r: the files in folders.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "compress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void add_path(path_list *list, char *path) {
    char **larger = realloc(list->path, (list->n + 1) * sizeof *larger);
    if (!larger) die("memory", "not enough of it");
    list->path = larger;
    list->path[list->n++] = path;
}

static int compare_paths(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What stands in a folder, in order, each with the folder's path before it. */
static int read_folder(const char *folder, path_list *list) {
    size_t n = strlen(folder);
    const char *last = last_slash(folder), *slash = last && !last[1] ? "" : "/";
    DIR *directory = opendir(folder);
    if (!directory) return complain(folder, "%s", strerror(errno));
    for (struct dirent *entry; errno = 0, (entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        size_t room = n + strlen(entry->d_name) + 2;
        char *path = allocate(room, 1);
        snprintf(path, room, "%s%s%s", folder, slash, entry->d_name);
        add_path(list, path);
    }
    int why = errno;
    closedir(directory);
    if (list->n) qsort(list->path, list->n, sizeof *list->path, compare_paths);
    return !why || complain(folder, "%s", strerror(why));
}

/* Files that the subcommand has work for: compressed ones, or others. Links are not followed. */
static int add_folder(const zipper *z, const char *folder, path_list *list) {
    path_list inside = {.n = 0};
    int good = read_folder(folder, &inside);
    for (size_t i = 0; i < inside.n; i++) {
        char *path = inside.path[i];
        struct stat status;
        int is_there = !lstat(path, &status);
        int is_wanted = is_there && S_ISREG(status.st_mode) &&
                        has_suffix(z, path) == (z->mode == MEGABYTE_MODE_DECOMPRESS);
        if (!is_there) good = complain(path, "%s", strerror(errno));
        else if (S_ISDIR(status.st_mode) && !add_folder(z, path, list)) good = 0;
        if (is_wanted) add_path(list, path);
        else free(path);
    }
    free(inside.path);
    return good;
}

int find_files(const zipper *z, char **paths, int n, path_list *list) {
    int good = 1;
    for (int i = 0; i < n; i++) {
        struct stat status;
        if (z->recursive && !stat(paths[i], &status) && S_ISDIR(status.st_mode)) {
            if (!add_folder(z, paths[i], list)) good = 0;
        } else {
            char *copy = allocate(strlen(paths[i]) + 1, 1);
            add_path(list, strcpy(copy, paths[i]));
        }
    }
    return good;
}

void free_paths(path_list *list) {
    for (size_t i = 0; i < list->n; i++) free(list->path[i]);
    free(list->path);
}
