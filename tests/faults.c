/* faults.c - stands between a program and the system (LD_PRELOAD, glibc): what it does to the files
 * of one folder is recorded, so that powerloss.c can tell what a power cut would leave at any
 * moment; and calls fail, or do less than was asked for.
 *
 *     cc -shared -fPIC -O1 tests/faults.c -o faults.so
 *     FAULTS_FOLDER=/a/folder FAULTS_LOG=/elsewhere/log LD_PRELOAD=./faults.so COMMAND
 *
 *     FAULTS_FORGET=fsync|folder    such calls are not recorded: as if the program had made none
 *     FAULTS_FAIL="NAME N ERRNO"    the Nth call of NAME fails so: open, mkstemp, read, write,
 *                                   fsync, close, rename, link, unlink, readdir, memory, thread;
 *                                   read with ERRNO 0: the file ends there; the file of
 *                                   FAULTS_REACHED is made when it does
 *     FAULTS_SIGNAL="N NUMBER"      after the Nth call of all but memory the signal comes; the same
 *     FAULTS_SHORT=1                reads and writes do a part of what was asked for, every third
 *                                   fails with EINTR
 *
 * Records, in the machine's byte order: a letter, inode, a number, the bytes of a name and of data
 * with their length before them. I: a file that was there, its contents; N: a new inode; W: data at
 * an offset; T: a length; S: fsync; D: fsync of the folder; A: sync; L: a name for an inode;
 * R: rename, the data is the new name; U: unlink. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int log_file = -1, is_short, fail_at, turn, signal_at, signal_number;
static char fail_name[20], folder[4096];
static int fail_with, failed_calls;
static uint64_t folder_inode;

/* ---- faults */

static void tell_reached(void) {
    const char *reached = getenv("FAULTS_REACHED");
    if (reached)
        syscall(SYS_close, syscall(SYS_openat, AT_FDCWD, reached, O_CREAT | O_WRONLY, 0666));
}

/* 1 if this call is to fail; errno says how. */
static int fails(const char *name) {
    if (!fail_at || strcmp(name, fail_name) || __atomic_add_fetch(&failed_calls, 1, 5) != fail_at)
        return 0;
    tell_reached();
    errno = fail_with;
    return 1;
}

/* A call is over; its result. The signal may come now. */
static long over(long result) {
    static int calls;
    int number = signal_number, saved = errno;
    if (!signal_at || __atomic_add_fetch(&calls, 1, 5) != signal_at) return result;
    tell_reached();
    raise(number);
    errno = saved;
    return result;
}

/* How much of n is done; 0: interrupted. */
static size_t part_of(size_t n) {
    if (!is_short) return n;
    int t = __atomic_add_fetch(&turn, 1, 5);
    if (t % 3 == 0) {
        errno = EINTR;
        return 0;
    }
    return n > 1 ? 1 + (size_t)(t * 7919) % n : n;
}

/* ---- records */

static void record(char what, uint64_t inode, uint64_t number, const char *name, const void *data,
                   uint64_t n) {
    static char piece[1 << 16];
    static int busy;
    uint64_t n_name = name ? strlen(name) : 0, head[4] = {inode, number, n_name, n};
    if (log_file < 0) return;
    while (__atomic_exchange_n(&busy, 1, 5)) {}
    piece[0] = what;
    memcpy(piece + 1, head, sizeof head);
    memcpy(piece + 33, name ? name : "", n_name);
    if (syscall(SYS_write, log_file, piece, 33 + n_name) < 0 ||
        (n && syscall(SYS_write, log_file, data, n) != (long)n))
        _exit(99);
    __atomic_store_n(&busy, 0, 5);
}

/* The name in the folder, or NULL: another's file. */
static const char *name_of(const char *path) {
    static char in[4096];
    const char *slash = strrchr(path, '/');
    if (log_file < 0) return NULL;
    snprintf(in, sizeof in, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    struct stat s;
    if (stat(in, &s) || s.st_ino != folder_inode) return NULL;
    return slash ? slash + 1 : path;
}

static uint64_t inode_of(int file) { /* 0: not a regular file of ours */
    struct stat s;
    return log_file >= 0 && !fstat(file, &s) && S_ISREG(s.st_mode) ? s.st_ino : 0;
}

static void record_folder(void) {
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[8192];
        struct stat s;
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        int f = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
        if (f >= 0 && !fstat(f, &s) && S_ISREG(s.st_mode)) {
            char *bytes = malloc((size_t)s.st_size + 1);
            if (syscall(SYS_read, f, bytes, s.st_size) != s.st_size) _exit(99);
            record('I', s.st_ino, 0, e->d_name, bytes, (uint64_t)s.st_size);
            free(bytes);
        }
        syscall(SYS_close, f);
    }
    closedir(d);
}

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("FAULTS_LOG"), *fail = getenv("FAULTS_FAIL");
    struct stat s;
    is_short = getenv("FAULTS_SHORT") != NULL;
    if (log && getenv("FAULTS_FOLDER")) {
        snprintf(folder, sizeof folder, "%s", getenv("FAULTS_FOLDER"));
        if (stat(folder, &s)) _exit(99);
        folder_inode = s.st_ino;
        int f = (int)syscall(SYS_openat, AT_FDCWD, log, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND,
                             0666);
        log_file = fcntl(f, F_DUPFD_CLOEXEC, 200);
        syscall(SYS_close, f);
        record_folder();
    }
    const char *strike = getenv("FAULTS_SIGNAL");
    if (strike && sscanf(strike, "%d %d", &signal_at, &signal_number) != 2) _exit(99);
    if (fail && sscanf(fail, "%19s %d %d", fail_name, &fail_at, &fail_with) != 3) _exit(99);
}

/* ---- the calls */

#define NEXT(name) (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static int opened(int file, const char *path, int was_there, int flags) {
    const char *name = file >= 0 ? name_of(path) : NULL;
    uint64_t inode = name ? inode_of(file) : 0;
    if (!inode) return file;
    if (!was_there) record('N', inode, 0, NULL, NULL, 0), record('L', inode, 0, name, NULL, 0);
    else if (flags & O_TRUNC) record('T', inode, 0, NULL, NULL, 0);
    return file;
}

static int open_any(const char *path, int flags, int mode) {
    if (fails("open")) return -1;
    int was_there = !faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW);
    return opened((int)syscall(SYS_openat, AT_FDCWD, path, flags, mode), path, was_there, flags);
}
#define OPEN(name)                                     \
    int name(const char *path, int flags, ...) {       \
        va_list args;                                  \
        va_start(args, flags);                         \
        int mode = va_arg(args, int);                  \
        va_end(args);                                  \
        return (int)over(open_any(path, flags, mode)); \
    }
OPEN(open)
OPEN(open64)

#define MKSTEMP(name)                               \
    int name(char *path) {                          \
        if (fails("mkstemp")) return -1;            \
        int saved = fail_at;                        \
        fail_at = 0; /* not its own open */         \
        int file = (NEXT(name))(path);              \
        fail_at = saved;                            \
        return (int)over(opened(file, path, 0, 0)); \
    }
MKSTEMP(mkstemp)
MKSTEMP(mkstemp64)

ssize_t read(int file, void *to, size_t n) {
    if (fails("read")) return fail_with ? -1 : 0;
    size_t some = n ? part_of(n) : 0;
    return over(n && !some ? -1 : syscall(SYS_read, file, to, some));
}

ssize_t write(int file, const void *from, size_t n) {
    if (fails("write")) return -1;
    size_t some = n ? part_of(n) : 0;
    if (n && !some) return -1;
    uint64_t inode = inode_of(file);
    off_t at = inode ? lseek(file, 0, SEEK_CUR) : 0;
    ssize_t done = syscall(SYS_write, file, from, some);
    if (inode && done > 0) record('W', inode, (uint64_t)at, NULL, from, (uint64_t)done);
    return over(done);
}

static int truncated(int result, int file, off_t size) {
    uint64_t inode = result ? 0 : inode_of(file);
    if (inode) record('T', inode, (uint64_t)size, NULL, NULL, 0);
    return result;
}
int ftruncate(int file, off_t n) {
    return truncated((int)syscall(SYS_ftruncate, file, n), file, n);
}
int ftruncate64(int file, off_t n) { return ftruncate(file, n); }

static int synced(int file) {
    const char *forget = getenv("FAULTS_FORGET");
    struct stat s;
    if (fails("fsync")) return -1;
    if (log_file < 0 || fstat(file, &s)) return 0;
    int is_folder = S_ISDIR(s.st_mode);
    if (forget && !strcmp(forget, is_folder ? "folder" : "fsync")) return 0;
    if (!is_folder) record('S', s.st_ino, 0, NULL, NULL, 0);
    else if (s.st_ino == folder_inode) record('D', 0, 0, NULL, NULL, 0);
    return 0; /* the disk itself may rest */
}
int fsync(int file) { return (int)over(synced(file)); }
int fdatasync(int file) { return (int)over(synced(file)); }
void sync(void) { record('A', 0, 0, NULL, NULL, 0); }

int close(int file) {
    int result = (int)syscall(SYS_close, file);
    return (int)over(fails("close") ? -1 : result);
}

int rename(const char *from, const char *to) {
    char old[4096] = "";
    struct stat s;
    if (fails("rename")) return -1;
    const char *name = lstat(from, &s) ? NULL : name_of(from);
    if (name) snprintf(old, sizeof old, "%s", name);
    int result = (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (!result && name && (name = name_of(to))) record('R', s.st_ino, 0, old, name, strlen(name));
    return (int)over(result);
}

int link(const char *from, const char *to) {
    struct stat s;
    if (fails("link")) return -1;
    int result = (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
    const char *name = result ? NULL : name_of(to);
    if (name && !lstat(to, &s)) record('L', s.st_ino, 0, name, NULL, 0);
    return (int)over(result);
}

int unlink(const char *path) {
    if (fails("unlink")) return -1;
    int result = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    const char *name = result ? NULL : name_of(path);
    if (name) record('U', 0, 0, name, NULL, 0);
    return (int)over(result);
}

struct dirent *readdir(DIR *d) {
    if (fails("readdir")) return NULL;
    return (NEXT(readdir))(d);
}
struct dirent64 *readdir64(DIR *d) {
    if (fails("readdir")) return NULL;
    return (NEXT(readdir64))(d);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *with) {
    return fails("thread") ? fail_with : (NEXT(pthread_create))(thread, how, run, with);
}

/* Memory: glibc's own names for what it does. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t align, size_t size);
void *malloc(size_t n) { return fails("memory") ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails("memory") ? NULL : __libc_calloc(n, size); }
void *realloc(void *old, size_t n) { return fails("memory") ? NULL : __libc_realloc(old, n); }
void *aligned_alloc(size_t align, size_t n) {
    return fails("memory") ? NULL : __libc_memalign(align, n);
}
int posix_memalign(void **to, size_t align, size_t n) {
    if (fails("memory")) return ENOMEM;
    *to = __libc_memalign(align, n);
    return *to ? 0 : ENOMEM;
}
