/* host.c - see host.h: POSIX systems.
 * SPDX-License-Identifier: MIT */

#define _GNU_SOURCE /* sched_getaffinity, and POSIX under -std=c11 */
#define _DARWIN_C_SOURCE
#define _FILE_OFFSET_BITS 64 /* files beyond 2 GiB on 32-bit systems */
#include "host.h"

#if !defined(_WIN32)

#include "common.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#if defined(__linux__)
#include <sched.h>
#endif

/* ------------------------------------------------------------------------------------- programs */

int begin_program(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    signal(SIGXFSZ, SIG_IGN); /* a file-size limit then shows as a failed write */
    for (int i = 0; i < 3; i++)
        if (fcntl(i, F_GETFD) < 0 && open(NULL_DEVICE, i ? O_RDONLY : O_WRONLY) != i) return 0;
    return 1;
}

/* Where the shell found the program, if it was called by its name alone; returns as snprintf. */
static int look_along_path(const char *name, char *out, size_t size) {
    const char *path = getenv("PATH");
    while (path && *path && !strchr(name, '/')) {
        size_t n = strcspn(path, ":");
        int length = snprintf(out, size, "%.*s/%s", (int)n, path, name);
        if (n && n < size && !access(out, X_OK)) return length;
        path += n + (path[n] == ':');
    }
    return snprintf(out, size, "%s", name);
}

size_t program_path(const char *name, char *out, size_t size) {
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    if (n <= 0) n = look_along_path(name, out, size); /* a root without /proc, or not Linux */
    if (n < 0 || n >= (ssize_t)size) n = 0; /* cut: useless */
    out[n] = 0;
    return (size_t)n;
}

int is_on_path(const char *name) {
    const char *path = getenv("PATH");
    char file[4096];
    for (size_t n; path && *path; path += n + (path[n] == ':')) {
        n = strcspn(path, ":");
        int length = snprintf(file, sizeof file, "%.*s/%s", n < 3000 ? (int)n : 0, path, name);
        if (n && length > 0 && !access(file, X_OK)) return 1;
    }
    return 0;
}

uint64_t run_program(char *const *arguments, const char *path) {
    static uint8_t piece[65536];
    int ends[2] = {-1, -1}, result = 0;
    uint64_t n = 0;
    int in = open(path, O_RDONLY), null = open(NULL_DEVICE, O_WRONLY);
    pid_t child = in < 0 || null < 0 || pipe(ends) ? -1 : fork();
    if (!child) {
        signal(SIGPIPE, SIG_DFL);
        signal(SIGXFSZ, SIG_DFL);
        dup2(in, STDIN_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        close(in);
        close(null);
        execvp(arguments[0], arguments);
        _exit(127);
    }
    if (in >= 0) close(in);
    if (null >= 0) close(null);
    if (ends[1] >= 0) close(ends[1]);
    while (child > 0 && !stop_requested()) {
        ssize_t got = read(ends[0], piece, sizeof piece);
        if (got == 0 || (got < 0 && errno != EINTR)) break;
        if (got > 0) n += (size_t)got;
    }
    if (child > 0 && stop_requested()) kill(child, SIGTERM);
    if (ends[0] >= 0) close(ends[0]);
    while (child > 0 && waitpid(child, &result, 0) < 0 && errno == EINTR)
        if (stop_requested()) kill(child, SIGTERM);
    return child < 0 || stop_requested() || !WIFEXITED(result) || WEXITSTATUS(result)
               ? PROGRAM_FAILED
               : n;
}

uint64_t physical_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : (uint64_t)4 << 30;
}

long usable_cores(void) {
    long n = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__linux__) && defined(CPU_COUNT) /* taskset and containers may leave us fewer */
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed)) n = CPU_COUNT(&allowed);
#endif
    return n;
}

void *allocate_pages(size_t size) {
    void *memory;
    if (posix_memalign(&memory, (size_t)2 << 20, size)) die("memory", "not enough of it");
#ifdef MADV_HUGEPAGE
    madvise(memory, size, MADV_HUGEPAGE);
#endif
    return memory;
}

void free_pages(void *memory) { free(memory); }

const char *temporary_folder(void) {
    const char *place = getenv("TMPDIR");
    return place && *place ? place : "/tmp";
}

/* -------------------------------------------------------------------------------------- signals */

void call_on_signals(void (*handler)(int number)) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        struct sigaction action, before;
        memset(&action, 0, sizeof action);
        action.sa_handler = handler;
        if (sigaction(numbers[i], NULL, &before) || before.sa_handler == SIG_IGN) continue;
        sigaction(numbers[i], &action, NULL);
    }
}

void call_on_lost_pages(void (*handler)(int number)) { signal(SIGBUS, handler); }

_Noreturn void end_by_signal(int number) {
    sigset_t one; /* a handler's own signal is blocked */
    signal(number, SIG_DFL);
    sigemptyset(&one);
    sigaddset(&one, number);
    sigprocmask(SIG_UNBLOCK, &one, NULL);
    raise(number);
    _exit(128 + number);
}

int ignore_closed_pipes(void) { return signal(SIGPIPE, SIG_IGN) == SIG_IGN; }

int is_closed_pipe(int error) { return error == EPIPE; }

_Noreturn void end_by_closed_pipe(void) { end_by_signal(SIGPIPE); }

/* ---------------------------------------------------------------------------------------- files */

const char *last_slash(const char *path) { return strrchr(path, '/'); }

int take_name(const char *from, const char *to, int may_replace) {
    struct stat there;
    if (!may_replace) {
        if (!link(from, to)) {
            unlink(from);
            return 0;
        }
        if (errno == EEXIST || !lstat(to, &there)) {
            errno = EEXIST;
            return -1;
        }
    } /* and where file systems have no hard links */
    return rename(from, to);
}

int sync_file(int file) {
    return !fsync(file) || errno == EINVAL || errno == ENOTSUP || errno == ENOSYS ? 0 : -1;
}

/* A folder that may be written but not read cannot be opened: then everything is synced. */
int sync_folder(const char *path) {
    const char *slash = last_slash(path);
    char *folder = strcpy(allocate(strlen(path) + 2, 1), slash ? path : ".");
    if (slash) folder[slash == path ? 1 : slash - path] = 0;
    int file = open(folder, O_RDONLY);
    free(folder);
    if (file < 0) {
        sync();
        return 0;
    }
    int good = !sync_file(file) || errno == EBADF;
    close(file);
    return good ? 0 : -1;
}

/* Mode bits that would serve another group are dropped. */
void copy_attributes(int file, const struct stat *like) {
    if (!like || !S_ISREG(like->st_mode)) {
        mode_t mask = umask(0);
        umask(mask);
        fchmod(file, 0666 & ~mask);
        return;
    }
    mode_t mode = like->st_mode & 0777;
    if (fchown(file, (uid_t)-1, like->st_gid)) mode &= 0707 | ((mode & 0007) << 3);
    if (fchown(file, like->st_uid, (gid_t)-1)) errno = 0; /* then it is ours */
    fchmod(file, mode);
    futimens(file, (const struct timespec[2]){like->st_atim, like->st_mtim});
}

#endif
