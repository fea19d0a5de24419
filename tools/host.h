/* host.h - the system under the tools. Include it in place of the POSIX headers: elsewhere it is
 * they that it includes; on Windows it declares those calls that the tools use, under their own
 * names, with file names in UTF-8 and bytes that nobody converts (windows.c). Below are the few
 * things that have no common name; host.c has them for POSIX.
 * SPDX-License-Identifier: MIT */
#ifndef HOST_H
#define HOST_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>

#if !defined(_WIN32)

#include <dirent.h>
#include <poll.h>
#include <unistd.h>
#if defined(__APPLE__)
#define st_atim st_atimespec
#define st_mtim st_mtimespec
#define st_ctim st_ctimespec
#endif

#else

#include <io.h>
#include <process.h>
#include <stdlib.h>

#define STDIN_FILENO 0
#define STDOUT_FILENO 1
#define STDERR_FILENO 2
#define O_NOCTTY 0

struct host_time {
    int64_t tv_sec;
    int32_t tv_nsec;
};
struct host_stat {
    uint64_t st_dev, st_ino; /* the volume, the file's number there */
    uint32_t st_mode, st_nlink;
    int64_t st_size;
    struct host_time st_atim, st_mtim, st_ctim;
};
#undef stat
#undef fstat
#undef S_ISREG
#undef S_ISDIR
#define S_IFLNK 0xa000
#define S_ISREG(mode) (((mode)&0xf000) == S_IFREG)
#define S_ISDIR(mode) (((mode)&0xf000) == S_IFDIR)
#define S_ISLNK(mode) (((mode)&0xf000) == S_IFLNK)
#define S_ISUID 0
#define S_ISGID 0
#define S_ISVTX 0
#define stat host_stat /* the struct and the function */
#define lstat(path, out) host_lstat(path, out)
#define fstat(file, out) host_fstat(file, out)
int host_stat(const char *path, struct host_stat *out);
int host_lstat(const char *path, struct host_stat *out); /* of a link itself */
int host_fstat(int file, struct host_stat *out);

#undef lseek
#undef open
#define open(path, flags) host_open(path, flags) /* what exists */
#define read(file, out, n) host_read(file, out, n)
#define write(file, data, n) host_write(file, data, n)
#define pread(file, out, n, at) host_pread(file, out, n, at)
#define getpid() _getpid()
#define lseek(file, at, from) _lseeki64(file, at, from)
#define isatty(file) host_isatty(file)
#define mkstemp(name) host_mkstemp(name)
#define unlink(path) host_unlink(path)
#define rmdir(path) host_rmdir(path)
#define mkdtemp(name) host_mkdtemp(name)
#define realpath(path, out) host_realpath(path) /* out: NULL */
#define fopen(path, mode) host_fopen(path, mode)
#define getenv(name) host_getenv(name)
int host_open(const char *path, int flags);
ssize_t host_read(int file, void *out, size_t n);
ssize_t host_write(int file, const void *data, size_t n);
ssize_t host_pread(int file, void *out, size_t n, int64_t at);
int host_isatty(int file); /* a console, not just a device */
int host_mkstemp(char *name);
int host_unlink(const char *path);
int host_rmdir(const char *path);
char *host_mkdtemp(char *name);
char *host_realpath(const char *path);
FILE *host_fopen(const char *path, const char *mode);
char *host_getenv(const char *name); /* in UTF-8; never freed */

#define POLLIN 1
#define POLLOUT 4
struct pollfd {
    int fd;
    short events, revents;
};
int poll(struct pollfd *one, unsigned n, int timeout); /* n: 1 */

struct dirent {
    char d_name[1024];
};
typedef struct host_folder DIR;
DIR *opendir(const char *path);
struct dirent *readdir(DIR *folder);
void closedir(DIR *folder);

#endif

/* ------------------------------------------------------------------------------------- programs */

#if defined(_WIN32)
#define NULL_DEVICE "NUL"
#else
#define NULL_DEVICE "/dev/null"
#endif

/* First in main: arguments become UTF-8, standard input and output binary; of the three standard
 * files those that were closed become NULL_DEVICE, which still fails where it is used. Returns 0 if
 * that cannot be. */
int begin_program(int *argc, char ***argv);

/* Where this program's file is; `name` is its argv[0]. Returns 0 if it cannot be told. */
size_t program_path(const char *name, char *out, size_t size);
int is_on_path(const char *name); /* a program that can be run by its name */
/* Runs a program with `path` as its standard input; returns the bytes that it wrote to its standard
 * output, PROGRAM_FAILED if it did not end well. */
uint64_t run_program(char *const *arguments, const char *path);
#define PROGRAM_FAILED UINT64_MAX

uint64_t physical_memory(void); /* bytes that this machine has */
long usable_cores(void); /* that this process may use; < 1: unknown */
void *allocate_pages(size_t size); /* in large pages if possible */
void free_pages(void *memory);
const char *temporary_folder(void);

/* -------------------------------------------------------------------------------------- signals */

/* The handler is called for SIGINT (Ctrl-C), SIGTERM, SIGHUP, SIGQUIT, but for those that were
 * ignored when the program began (nohup, a shell's background job). On Windows Ctrl-C, Ctrl-Break
 * (SIGTERM), a closed console and a shutdown (SIGHUP) call it, in a thread of its own. */
void call_on_signals(void (*handler)(int number));
/* The same for what a mapped file's missing pages cause. Windows lets nobody cut such a file. */
void call_on_lost_pages(void (*handler)(int number));
_Noreturn void end_by_signal(int number); /* so that the parent sees why we ended */
/* Writing to a pipe that nobody reads then fails: is_closed_pipe(errno). Returns 1 if it did so
 * already. */
int ignore_closed_pipes(void);
int is_closed_pipe(int error);
_Noreturn void end_by_closed_pipe(void); /* as filters end that do not ignore it */

/* ---------------------------------------------------------------------------------------- files */

const char *last_slash(const char *path); /* what the folder's name ends with; NULL: nothing */
/* Gives `from` the name `to`, in one step and on disk once sync_folder has returned. Without
 * may_replace never in place of another file, even one that appeared meanwhile: then errno is
 * EEXIST. 0, or -1. */
int take_name(const char *from, const char *to, int may_replace);
int sync_file(int file); /* 0, or -1; some file systems and devices have nothing to sync */
int sync_folder(const char *path); /* of this file: its entry, too, must be on disk; 0, or -1 */
/* Owner, mode and times (Windows: times), as far as we may, or those of any new file (NULL). */
void copy_attributes(int file, const struct stat *like);

#endif
