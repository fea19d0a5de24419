/* output.c - see output.h.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64
#include "output.h"
#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __APPLE__
#define st_atim st_atimespec
#define st_mtim st_mtimespec
#endif

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
    const char *slash = strrchr(o->path, '/');
    size_t n = slash ? (size_t)(slash + 1 - o->path) : 0;
    size_t room = n + 1 + strlen(tool_name) + sizeof suffix;
    char *name = allocate(room, 1);
    snprintf(name, room, "%.*s.%s%s", (int)n, o->path, tool_name, suffix);
    o->file = mkstemp(name);
    if (o->file < 0) {
        free(name);
        return failed(o, strerror(errno));
    }
    o->temporary = name;
    remove_if_killed(name);
    return 1;
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

/* Owner, mode and times, as far as we may; mode bits that would serve another group are dropped. */
static void copy_attributes(const output *o, const struct stat *like) {
    if (!like || !S_ISREG(like->st_mode)) {
        mode_t mask = umask(0);
        umask(mask);
        fchmod(o->file, 0666 & ~mask);
        return;
    }
    mode_t mode = like->st_mode & 0777;
    if (fchown(o->file, (uid_t)-1, like->st_gid)) mode &= 0707 | ((mode & 0007) << 3);
    if (fchown(o->file, like->st_uid, (gid_t)-1)) errno = 0; /* then it is ours */
    fchmod(o->file, mode);
    futimens(o->file, (const struct timespec[2]){like->st_atim, like->st_mtim});
}

/* Some file systems and devices have nothing to sync. */
static int is_synced(int file) {
    return !fsync(file) || errno == EINVAL || errno == ENOTSUP || errno == ENOSYS;
}

/* The folder's entry, too, must be on disk before the input may go. A folder that may be written but
 * not read cannot be opened: then everything is synced. */
static int sync_folder(const output *o) {
    const char *slash = strrchr(o->path, '/');
    char *folder = copy_text(slash ? o->path : ".");
    if (slash) folder[slash == o->path ? 1 : slash - o->path] = 0;
    int file = open(folder, O_RDONLY), good;
    free(folder);
    if (file < 0) {
        sync();
        return 1;
    }
    good = is_synced(file) || errno == EBADF;
    close(file);
    return good;
}

/* Without may_replace never in place of another file, even one that appeared meanwhile. */
static int take_name(output *o) {
    struct stat there;
    if (!o->may_replace) {
        if (!link(o->temporary, o->path)) {
            unlink(o->temporary);
            return 1;
        }
        if (errno == EEXIST || !lstat(o->path, &there))
            return failed(o, "appeared meanwhile; not overwritten");
    } /* and where file systems have no hard links */
    return !rename(o->temporary, o->path) || failed(o, strerror(errno));
}

int finish_output(output *o, int good, const struct stat *like) {
    *o->why = 0;
    if (o->temporary) {
        if (good) copy_attributes(o, like);
        if (good && !is_synced(o->file)) good = failed(o, strerror(errno));
        if (close(o->file) && good) good = failed(o, strerror(errno));
        good = good && take_name(o);
        if (!good) unlink(o->temporary);
        remove_if_killed(NULL);
        if (good && !sync_folder(o)) good = failed(o, strerror(errno));
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
