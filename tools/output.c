/* output.c - see output.h.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "output.h"
#include "common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int failed(output *o, const char *why) {
    snprintf(o->why, sizeof o->why, "%s", why);
    return 0;
}

static char *copy_text(const char *text) { return strcpy(allocate(strlen(text) + 1, 1), text); }

static int same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

int name_output(output *o, const char *path, int may_replace, int follow, const struct stat *inputs,
                size_t n_inputs) {
    struct stat there;
    int is_link = follow && !lstat(path, &there) && S_ISLNK(there.st_mode);
    *o = (output){.file = -1, .may_replace = may_replace};
    o->path = is_link ? realpath(path, NULL) : NULL;
    if (!o->path) o->path = copy_text(path);
    if (!stat(o->path, &there)) {
        if (S_ISDIR(there.st_mode)) return failed(o, "is a directory");
        for (size_t i = 0; i < n_inputs; i++)
            if (S_ISREG(inputs[i].st_mode) && same_file(&there, &inputs[i]))
                return failed(o, "is the input");
        if (!S_ISREG(there.st_mode) && follow) { /* not to be replaced */
            o->file = open(o->path, O_WRONLY | O_NOCTTY);
            return o->file >= 0 || failed(o, strerror(errno));
        }
    }
    if (lstat(o->path, &there)) return errno == ENOENT || failed(o, strerror(errno));
    return may_replace || failed(o, "already exists; overwritten with -f only");
}

int create_output(output *o) {
    static const char suffix[] = "-XXXXXX";
    if (!o->path || o->file >= 0) return 1;
    const char *slash = last_slash(o->path);
    size_t n = slash ? (size_t)(slash + 1 - o->path) : 0;
    size_t room = n + 1 + strlen(tool_name) + sizeof suffix;
    char *name = allocate(room, 1);
    snprintf(name, room, "%.*s.%s%s", (int)n, o->path, tool_name, suffix);
    hold_signals();
    o->file = mkstemp(name);
    if (o->file >= 0) remove_if_killed(o->temporary = name);
    else failed(o, strerror(errno));
    release_signals();
    if (o->file < 0) free(name);
    return o->file >= 0;
}

int write_output(output *o, const void *data, size_t n) {
    const uint8_t *p = data;
    *o->why = 0;
    while (n) {
        ssize_t done = write(o->file, p, n);
        if (done >= 0) {
            p += done;
            n -= (size_t)done;
        } else if (stop_requested()) {
            return 0;
        } else if (errno == EAGAIN) {
            poll(&(struct pollfd){.fd = o->file, .events = POLLOUT}, 1, -1);
        } else if (errno != EINTR) {
            return failed(o, strerror(errno));
        }
    }
    return 1;
}

static int take_final_name(output *o) {
    if (!take_name(o->temporary, o->path, o->may_replace)) return 1;
    int appeared = !o->may_replace && errno == EEXIST;
    return failed(o, appeared ? "appeared meanwhile; not overwritten" : strerror(errno));
}

int finish_output(output *o, int good, const struct stat *like) {
    if (good) *o->why = 0; /* else it tells already what failed */
    if (o->temporary) {
        if (good) copy_attributes(o->file, like);
        if (good && sync_file(o->file)) good = failed(o, strerror(errno));
        if (close(o->file) && good) good = failed(o, strerror(errno));
        good = good && take_final_name(o);
        if (!good) unlink(o->temporary);
        remove_if_killed(NULL);
        if (good && sync_folder(o->path)) good = failed(o, strerror(errno));
        o->is_saved = good;
    } else if (o->file >= 0) {
        if (close(o->file) && good) good = failed(o, strerror(errno));
    }
    o->file = -1;
    free(o->temporary);
    o->temporary = NULL;
    return good;
}

void free_output(output *o) {
    free(o->path);
    o->path = NULL;
}
