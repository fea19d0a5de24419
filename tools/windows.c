/* windows.c - see host.h: Windows 7 and newer, built by mingw-w64.
 * SPDX-License-Identifier: MIT
 *
 * Files are opened so that others may read, write, rename and remove them meanwhile, as elsewhere:
 * --rm removes an input that is still open, and a temporary file goes while it is written. */

#define _FILE_OFFSET_BITS 64
#include "host.h"

#if defined(_WIN32)

#include "common.h"

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#define NOGDI
#if !defined(_WIN32_WINNT) || _WIN32_WINNT < 0x0601
#undef _WIN32_WINNT
#define _WIN32_WINNT 0x0601
#endif
#include <windows.h>

#include <errno.h>
#include <signal.h>
#include <string.h>

/* ---------------------------------------------------------------------------------------- texts */

static wchar_t *to_wide(const char *text) { /* NULL: not UTF-8, errno is set */
    int n = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0);
    if (n <= 0) {
        errno = EILSEQ;
        return NULL;
    }
    wchar_t *wide = allocate((uint64_t)n, sizeof *wide);
    MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, wide, n);
    return wide;
}

static char *to_utf8(const wchar_t *wide) {
    int n = WideCharToMultiByte(CP_UTF8, 0, wide, -1, NULL, 0, NULL, NULL);
    char *text = allocate(n > 0 ? (uint64_t)n : 1, 1);
    WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, n, NULL, NULL);
    return text;
}

/* A file's name. Those of 260 characters and more must be complete and marked. */
static wchar_t *to_name(const char *path) {
    static const wchar_t local[] = L"\\\\?\\", far_away[] = L"\\\\?\\UNC\\";
    wchar_t *wide = to_wide(path);
    if (!wide || wcslen(wide) < 240 || !wcsncmp(wide, local, 4)) return wide;
    DWORD n = GetFullPathNameW(wide, 0, NULL, NULL);
    wchar_t *whole = allocate((uint64_t)n + 1, sizeof *whole);
    wchar_t *marked = allocate((uint64_t)n + COUNT_OF(far_away), sizeof *marked);
    GetFullPathNameW(wide, n, whole, NULL);
    int is_far = !wcsncmp(whole, L"\\\\", 2);
    wcscpy(marked, is_far ? far_away : local);
    wcscat(marked, whole + (is_far ? 2 : 0));
    free(wide);
    free(whole);
    return marked;
}

/* Sets errno after a call of the system has failed; returns -1. */
static int failed(void) {
    switch (GetLastError()) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_INVALID_NAME:
    case ERROR_BAD_PATHNAME:
    case ERROR_BAD_NETPATH:
    case ERROR_INVALID_DRIVE: errno = ENOENT; break;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
    case ERROR_WRITE_PROTECT: errno = EACCES; break;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS: errno = EEXIST; break;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL: errno = ENOSPC; break;
    case ERROR_FILE_TOO_LARGE: errno = EFBIG; break;
    case ERROR_BROKEN_PIPE:
    case ERROR_NO_DATA: errno = EPIPE; break;
    case ERROR_INVALID_HANDLE: errno = EBADF; break;
    case ERROR_TOO_MANY_OPEN_FILES: errno = EMFILE; break;
    case ERROR_NOT_ENOUGH_MEMORY: errno = ENOMEM; break;
    case ERROR_OPERATION_ABORTED: errno = EINTR; break;
    default: errno = EIO;
    }
    return -1;
}

/* ---------------------------------------------------------------------------------------- files */

static HANDLE open_handle(const char *path, DWORD access, DWORD how, DWORD flags) {
    wchar_t *name = to_name(path);
    if (!name) return INVALID_HANDLE_VALUE;
    HANDLE h = CreateFileW(name, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                           NULL, how, flags, NULL);
    if (h == INVALID_HANDLE_VALUE) failed();
    free(name);
    return h;
}

static int as_descriptor(HANDLE h, int flags) {
    if (h == INVALID_HANDLE_VALUE) return -1;
    int file = _open_osfhandle((intptr_t)h, flags | _O_BINARY | _O_NOINHERIT);
    if (file < 0) CloseHandle(h);
    return file;
}

int host_open(const char *path, int flags) {
    DWORD access = (flags & O_RDWR ? GENERIC_READ : 0) | GENERIC_WRITE;
    if (!(flags & (O_RDWR | O_WRONLY))) access = GENERIC_READ;
    return as_descriptor(open_handle(path, access, OPEN_EXISTING, 0), flags);
}

/* A name with another six characters at its end for every try of `make`. */
static int make_unique(char *name, int (*make)(const char *name)) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    char *end = name + strlen(name) - 6;
    int result = -1;
    for (int tries = 0; tries < 1000 && result < 0; tries++) {
        LARGE_INTEGER ticks;
        QueryPerformanceCounter(&ticks);
        uint64_t n = (uint64_t)ticks.QuadPart * 0x9e3779b97f4a7c15u;
        n = (n ^ GetCurrentProcessId() ^ n >> 32) * 0xd6e8feb86659fd93u;
        for (int i = 0; i < 6; i++, n /= 36) end[i] = letters[n % 36];
        result = make(name);
        if (result < 0 && errno != EEXIST) break;
    }
    return result;
}

static int make_file(const char *name) {
    return as_descriptor(open_handle(name, GENERIC_READ | GENERIC_WRITE, CREATE_NEW, 0), _O_RDWR);
}

static int make_folder(const char *path) {
    wchar_t *name = to_name(path);
    int result = name && CreateDirectoryW(name, NULL) ? 0 : name ? failed() : -1;
    free(name);
    return result;
}

int host_mkstemp(char *name) { return make_unique(name, make_file); }
char *host_mkdtemp(char *name) { return make_unique(name, make_folder) < 0 ? NULL : name; }

FILE *host_fopen(const char *path, const char *mode) {
    wchar_t *name = to_name(path), *how = to_wide(mode);
    FILE *f = name && how ? _wfopen(name, how) : NULL;
    free(name);
    free(how);
    return f;
}

static struct host_time as_time(LARGE_INTEGER t) { /* 100 ns since 1601 */
    int64_t since_1970 = t.QuadPart - 116444736000000000;
    return (struct host_time){.tv_sec = since_1970 / 10000000,
                              .tv_nsec = (int32_t)(since_1970 % 10000000 * 100)};
}

static FILETIME as_file_time(struct host_time t) {
    uint64_t n = (uint64_t)(t.tv_sec * 10000000 + t.tv_nsec / 100 + 116444736000000000);
    return (FILETIME){.dwLowDateTime = (DWORD)n, .dwHighDateTime = (DWORD)(n >> 32)};
}

static int describe(HANDLE h, struct host_stat *out) {
    BY_HANDLE_FILE_INFORMATION identity;
    FILE_STANDARD_INFO file;
    FILE_BASIC_INFO times;
    memset(out, 0, sizeof *out);
    DWORD kind = GetFileType(h);
    out->st_nlink = 1;
    if (kind == FILE_TYPE_UNKNOWN && GetLastError()) return failed();
    out->st_mode = kind == FILE_TYPE_PIPE ? S_IFIFO : S_IFCHR;
    if (kind != FILE_TYPE_DISK) return 0;
    if (!GetFileInformationByHandleEx(h, FileStandardInfo, &file, sizeof file) ||
        !GetFileInformationByHandleEx(h, FileBasicInfo, &times, sizeof times))
        return failed();
    if (GetFileInformationByHandle(h, &identity)) { /* wine fails for standard input */
        out->st_dev = identity.dwVolumeSerialNumber;
        out->st_ino = (uint64_t)identity.nFileIndexHigh << 32 | identity.nFileIndexLow;
    }
    out->st_mode = file.Directory ? S_IFDIR : S_IFREG;
    out->st_nlink = file.NumberOfLinks;
    out->st_size = file.EndOfFile.QuadPart;
    out->st_atim = as_time(times.LastAccessTime);
    out->st_mtim = as_time(times.LastWriteTime);
    out->st_ctim = as_time(times.ChangeTime);
    return 0;
}

int host_fstat(int file, struct host_stat *out) {
    HANDLE h = (HANDLE)_get_osfhandle(file);
    if (h != INVALID_HANDLE_VALUE) return describe(h, out);
    errno = EBADF;
    return -1;
}

int host_stat(const char *path, struct host_stat *out) {
    HANDLE h = open_handle(path, FILE_READ_ATTRIBUTES, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS);
    if (h == INVALID_HANDLE_VALUE) return -1;
    int result = describe(h, out);
    CloseHandle(h);
    return result;
}

int host_lstat(const char *path, struct host_stat *out) {
    FILE_ATTRIBUTE_TAG_INFO tag;
    HANDLE h = open_handle(path, FILE_READ_ATTRIBUTES, OPEN_EXISTING,
                           FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT);
    if (h == INVALID_HANDLE_VALUE) return -1;
    int is_link = GetFileInformationByHandleEx(h, FileAttributeTagInfo, &tag, sizeof tag) &&
                  tag.FileAttributes & FILE_ATTRIBUTE_REPARSE_POINT &&
                  (tag.ReparseTag == IO_REPARSE_TAG_SYMLINK ||
                   tag.ReparseTag == IO_REPARSE_TAG_MOUNT_POINT);
    int result = is_link ? describe(h, out) : 0;
    CloseHandle(h);
    if (!is_link) return host_stat(path, out); /* other such points are the files they stand for */
    out->st_mode = S_IFLNK;
    return result;
}

char *host_realpath(const char *path) {
    HANDLE h = open_handle(path, FILE_READ_ATTRIBUTES, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS);
    if (h == INVALID_HANDLE_VALUE) return NULL;
    DWORD n = GetFinalPathNameByHandleW(h, NULL, 0, 0);
    wchar_t *name = allocate((uint64_t)n + 1, sizeof *name);
    n = n ? GetFinalPathNameByHandleW(h, name, n, 0) : 0;
    if (!n) failed();
    char *result = n ? to_utf8(name) : NULL;
    free(name);
    CloseHandle(h);
    return result;
}

int host_unlink(const char *path) {
    wchar_t *name = to_name(path);
    int result = !name ? -1 : DeleteFileW(name) ? 0 : failed();
    free(name);
    return result;
}

int host_rmdir(const char *path) {
    wchar_t *name = to_name(path);
    int result = !name ? -1 : RemoveDirectoryW(name) ? 0 : failed();
    free(name);
    return result;
}

const char *last_slash(const char *path) {
    const char *found = NULL;
    for (const char *p = path; *p; p++)
        if (*p == '/' || *p == '\\' || (*p == ':' && p == path + 1)) found = p;
    return found;
}

/* Virus scanners and the like hold new files for moments. */
int take_name(const char *from, const char *to, int may_replace) {
    wchar_t *old_name = to_name(from), *new_name = to_name(to);
    DWORD how = MOVEFILE_WRITE_THROUGH | (may_replace ? MOVEFILE_REPLACE_EXISTING : 0);
    int result = -1;
    for (DWORD wait = 10; old_name && new_name && wait < 400; wait *= 2) {
        result = MoveFileExW(old_name, new_name, how) ? 0 : failed();
        if (!result || errno != EACCES) break;
        Sleep(wait);
    }
    free(old_name);
    free(new_name);
    return result;
}

int sync_file(int file) { return _commit(file); }

int sync_folder(const char *path) { /* take_name wrote through */
    (void)path;
    return 0;
}

void copy_attributes(int file, const struct stat *like) {
    if (!like || !S_ISREG(like->st_mode)) return;
    const FILETIME accessed = as_file_time(like->st_atim), modified = as_file_time(like->st_mtim);
    SetFileTime((HANDLE)_get_osfhandle(file), NULL, &accessed, &modified);
}

/* -------------------------------------------------------------------------------------- folders */

struct host_folder {
    HANDLE find;
    WIN32_FIND_DATAW found;
    int is_new; /* `found` was not given yet */
    struct dirent entry;
};

DIR *opendir(const char *path) {
    char *pattern = allocate(strlen(path) + 3, 1);
    strcpy(pattern, path);
    strcat(pattern, "/*");
    wchar_t *name = to_name(pattern);
    DIR *folder = allocate(1, sizeof *folder);
    folder->is_new = 1;
    folder->find = name ? FindFirstFileW(name, &folder->found) : INVALID_HANDLE_VALUE;
    if (folder->find == INVALID_HANDLE_VALUE) {
        if (name) failed();
        free(folder);
        folder = NULL;
    }
    free(name);
    free(pattern);
    return folder;
}

struct dirent *readdir(DIR *folder) {
    if (!folder->is_new && !FindNextFileW(folder->find, &folder->found)) {
        if (GetLastError() != ERROR_NO_MORE_FILES) failed();
        return NULL;
    }
    folder->is_new = 0;
    char *name = to_utf8(folder->found.cFileName);
    snprintf(folder->entry.d_name, sizeof folder->entry.d_name, "%s", name);
    free(name);
    return &folder->entry;
}

void closedir(DIR *folder) {
    FindClose(folder->find);
    free(folder);
}

/* ----------------------------------------------------------------------------- reading, writing */

static volatile LONG is_reading; /* what a signal interrupts */
static HANDLE main_thread;

ssize_t host_read(int file, void *out, size_t n) {
    SetLastError(0);
    is_reading = 1;
    int got = _read(file, out, n < 1 << 30 ? (unsigned)n : 1u << 30);
    is_reading = 0;
    if (got > 0 || GetLastError() != ERROR_OPERATION_ABORTED) return got;
    Sleep(50); /* a console's Ctrl-C: the handler is on its way */
    errno = EINTR;
    return -1;
}

ssize_t host_write(int file, const void *data, size_t n) {
    int done = _write(file, data, n < 1 << 30 ? (unsigned)n : 1u << 30);
    if (done < 0 && is_closed_pipe(errno)) errno = EPIPE;
    return done;
}

ssize_t host_pread(int file, void *out, size_t n, int64_t at) {
    int64_t before = _lseeki64(file, 0, SEEK_CUR);
    if (before < 0 || _lseeki64(file, at, SEEK_SET) < 0) return -1;
    ssize_t got = host_read(file, out, n);
    return _lseeki64(file, before, SEEK_SET) < 0 ? -1 : got;
}

int host_isatty(int file) {
    DWORD mode;
    HANDLE h = (HANDLE)_get_osfhandle(file);
    return h != INVALID_HANDLE_VALUE && GetConsoleMode(h, &mode);
}

int poll(struct pollfd *one, unsigned n, int timeout) {
    HANDLE h = (HANDLE)_get_osfhandle(one->fd);
    DWORD waiting;
    (void)n;
    if (one->events != POLLIN || GetFileType(h) != FILE_TYPE_PIPE) return 1;
    for (int waited = 0;; waited += 5) {
        if (!PeekNamedPipe(h, NULL, 0, NULL, &waiting, NULL) || waiting) return 1; /* or the end */
        if (timeout >= 0 && waited >= timeout) return 0;
        if (stop_requested()) {
            errno = EINTR;
            return -1;
        }
        Sleep(5);
    }
}

/* ------------------------------------------------------------------------------------- programs */

typedef struct start_info {
    int new_mode;
} start_info;
/* of the C library, as for its own wmain */
int __wgetmainargs(int *n, wchar_t ***arguments, wchar_t ***environment, int wildcards,
                   start_info *start);

static UINT console_page; /* to be given back */
static void give_back_console(void) { SetConsoleOutputCP(console_page); }

/* Texts are UTF-8, and the progress bar clears the end of its line. */
static void prepare_console(void) {
    HANDLE h = GetStdHandle(STD_ERROR_HANDLE);
    DWORD mode;
    if (!host_isatty(STDOUT_FILENO) && !host_isatty(STDERR_FILENO)) return;
    console_page = GetConsoleOutputCP();
    if (SetConsoleOutputCP(CP_UTF8)) atexit(give_back_console);
    if (GetConsoleMode(h, &mode)) SetConsoleMode(h, mode | 4 /* terminal sequences */);
}

int begin_program(int *argc, char ***argv) {
    wchar_t **arguments, **environment;
    start_info start = {0};
    int n;
    for (int i = 0; i < 3; i++)
        if (_get_osfhandle(i) < 0 && host_open(NULL_DEVICE, i ? O_RDONLY : O_WRONLY) != i) return 0;
    if (!host_isatty(STDIN_FILENO)) _setmode(STDIN_FILENO, _O_BINARY);
    _setmode(STDOUT_FILENO, _O_BINARY);
    _setmode(STDERR_FILENO, _O_BINARY);
    prepare_console();
    if (__wgetmainargs(&n, &arguments, &environment, 1, &start)) return 0;
    *argc = n;
    *argv = allocate((uint64_t)n + 1, sizeof **argv);
    for (int i = 0; i < n; i++) (*argv)[i] = to_utf8(arguments[i]);
    return 1;
}

char *host_getenv(const char *name) {
    wchar_t *wide = to_wide(name), *value = wide ? _wgetenv(wide) : NULL;
    free(wide);
    return value ? to_utf8(value) : NULL;
}

size_t program_path(const char *name, char *out, size_t size) {
    static wchar_t wide[32768];
    (void)name;
    DWORD n = GetModuleFileNameW(NULL, wide, COUNT_OF(wide));
    if (!n || n >= COUNT_OF(wide)) return 0;
    char *path = to_utf8(wide);
    int length = snprintf(out, size, "%s", path);
    free(path);
    return length > 0 && (size_t)length < size ? (size_t)length : 0;
}

/* Along PATH alone: the system itself would begin with the current folder, where a stranger's file
 * may have the name. NULL: there is none. */
static const wchar_t *find_program(const char *name) {
    static wchar_t found[32768];
    const wchar_t *path = _wgetenv(L"PATH");
    wchar_t *wide = to_wide(name);
    DWORD n = path && *path && wide ? SearchPathW(path, wide, L".exe", COUNT_OF(found), found, NULL)
                                    : 0;
    free(wide);
    return n && n < COUNT_OF(found) ? found : NULL;
}

int is_on_path(const char *name) { return find_program(name) != NULL; }

/* Arguments with spaces are put in quotes; none here ends in a backslash or holds a quote. */
static wchar_t *join_arguments(char *const *arguments) {
    size_t room = 1;
    for (size_t i = 0; arguments[i]; i++) room += strlen(arguments[i]) + 3;
    char *line = allocate(room, 1);
    for (size_t i = 0; arguments[i]; i++) {
        const char *quote = strchr(arguments[i], ' ') ? "\"" : "";
        snprintf(line + strlen(line), room - strlen(line), "%s%s%s%s", i ? " " : "", quote,
                 arguments[i], quote);
    }
    wchar_t *wide = to_wide(line);
    free(line);
    return wide;
}

uint64_t run_program(char *const *arguments, const char *path) {
    static uint8_t piece[65536];
    SECURITY_ATTRIBUTES inherited = {.nLength = sizeof inherited, .bInheritHandle = TRUE};
    STARTUPINFOW start = {.cb = sizeof start, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION child = {0};
    HANDLE from = NULL;
    DWORD got, status = 1;
    uint64_t n = 0;
    const wchar_t *program = find_program(arguments[0]);
    wchar_t *line = join_arguments(arguments), *name = to_name(path);
    start.hStdInput = name ? CreateFileW(name, GENERIC_READ, FILE_SHARE_READ, &inherited,
                                         OPEN_EXISTING, 0, NULL)
                           : INVALID_HANDLE_VALUE;
    start.hStdError = CreateFileW(L"NUL", GENERIC_WRITE, FILE_SHARE_WRITE, &inherited,
                                  OPEN_EXISTING, 0, NULL);
    int is_running = line && program && start.hStdInput != INVALID_HANDLE_VALUE &&
                     CreatePipe(&from, &start.hStdOutput, &inherited, 0) &&
                     SetHandleInformation(from, HANDLE_FLAG_INHERIT, 0) &&
                     CreateProcessW(program, line, NULL, NULL, TRUE, 0, NULL, NULL, &start, &child);
    if (start.hStdInput != INVALID_HANDLE_VALUE) CloseHandle(start.hStdInput);
    if (start.hStdError != INVALID_HANDLE_VALUE) CloseHandle(start.hStdError);
    if (from) CloseHandle(start.hStdOutput);
    while (is_running && !stop_requested() && ReadFile(from, piece, sizeof piece, &got, NULL))
        n += got;
    if (from) CloseHandle(from);
    free(line);
    free(name);
    if (!is_running) return PROGRAM_FAILED;
    if (stop_requested()) TerminateProcess(child.hProcess, 1);
    WaitForSingleObject(child.hProcess, INFINITE);
    GetExitCodeProcess(child.hProcess, &status);
    CloseHandle(child.hProcess);
    CloseHandle(child.hThread);
    return status || stop_requested() ? PROGRAM_FAILED : n;
}

uint64_t physical_memory(void) {
    MEMORYSTATUSEX memory = {.dwLength = sizeof memory};
    return GlobalMemoryStatusEx(&memory) ? memory.ullTotalPhys : (uint64_t)4 << 30;
}

long usable_cores(void) {
    DWORD_PTR ours, all;
    long n = 0;
    if (!GetProcessAffinityMask(GetCurrentProcess(), &ours, &all)) return 0;
    for (; ours; ours &= ours - 1) n++;
    return n;
}

void *allocate_pages(size_t size) {
    void *memory = VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (!memory) die("memory", "not enough of it");
    return memory;
}

void free_pages(void *memory) {
    if (memory) VirtualFree(memory, 0, MEM_RELEASE);
}

const char *temporary_folder(void) {
    const char *place = getenv("TEMP");
    return place && *place ? place : ".";
}

/* -------------------------------------------------------------------------------------- signals */

enum { HANG_UP = 1 }; /* SIGHUP elsewhere */

static void (*volatile signal_handler)(int number);

static BOOL WINAPI on_event(DWORD event) {
    int closes = event != CTRL_C_EVENT && event != CTRL_BREAK_EVENT;
    signal_handler(closes ? HANG_UP : event == CTRL_C_EVENT ? SIGINT : SIGTERM);
    if (is_reading) CancelSynchronousIo(main_thread);
    if (closes) { /* when this returns, the process ends; it has five seconds to do so itself */
        Sleep(4000);
        remove_unfinished();
    }
    return TRUE;
}

void call_on_signals(void (*handler)(int number)) {
    DuplicateHandle(GetCurrentProcess(), GetCurrentThread(), GetCurrentProcess(), &main_thread, 0,
                    FALSE, DUPLICATE_SAME_ACCESS);
    signal_handler = handler;
    SetConsoleCtrlHandler(on_event, TRUE);
}

void call_on_lost_pages(void (*handler)(int number)) { (void)handler; }

_Noreturn void end_by_signal(int number) { _exit(128 + number); }

int ignore_closed_pipes(void) { return 0; } /* there is no signal */

/* The C library knows only one of the errors by its right name. */
int is_closed_pipe(int error) {
    DWORD why = _doserrno;
    return error == EPIPE ||
           (error == EINVAL && (why == ERROR_NO_DATA || why == ERROR_PIPE_NOT_CONNECTED));
}

_Noreturn void end_by_closed_pipe(void) { _exit(1); }

#endif
