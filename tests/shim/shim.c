/* File calls of one folder, watched: counted, made to fail, made to kill, or recorded (LD_PRELOAD, Linux).

   SIFAKA_SHIM_FOLDER   absolute path: only calls on files below it are looked at
   SIFAKA_SHIM_CONTROL  file that holds `struct control`; the test maps it too, and arms the shim through it
   SIFAKA_SHIM_TRACE    file that calls are appended to while `tracing` is set; see powercut.py

   A write is recorded after it was made, a sync at its beginning and again at its end. So whatever one
   process does because of what another has done stands behind it in the record, without a lock: a sync
   that ended covers the writes recorded before its beginning, and claims no other. Each entry is one
   append to the trace, which the kernel keeps whole.

   Not seen: memory maps, io_uring, pwritev2, copy_file_range, O_SYNC. What stdio writes is seen as one
   write of the whole file, when it is synced or closed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, TRUNCATE = 4, SYNC = 8, RENAME = 16, UNLINK = 32, CLOSE = 64, ALLOCATE = 128, READ = 256 };
enum { OFF = 0, COUNT = 1, KILL_BEFORE = 2, KILL_AFTER = 3, KILL_HALFWAY = 4, FAIL = 5 };
enum { PASS, FAULT, SHORT, HALF };

/* The same fields, in this order, are in __init__.py. */
struct control {
    _Atomic uint64_t mode;    /* one of the above */
    _Atomic uint64_t first;   /* the first call that is hit, from 1 */
    _Atomic uint64_t last;    /* the last one */
    _Atomic uint64_t ops;     /* which kinds of call count */
    _Atomic uint64_t error;   /* errno of a failing call (EIO for a sync); 0: none fails */
    _Atomic uint64_t cut;     /* the first write that is hit is made by half, and succeeds */
    _Atomic uint64_t also;    /* a process that is killed too, 0: none */
    _Atomic uint64_t tracing; /* calls are recorded */
    _Atomic uint64_t count;   /* calls that counted so far */
    _Atomic uint64_t hits;    /* faults that were made so far */
    _Atomic uint64_t kind;    /* the kind of call hit last */
};

struct entry { /* what stands before path and data in the trace */
    uint32_t total;
    uint16_t path;
    uint8_t op, spare;
    uint32_t pid, data;
    int64_t offset;
} __attribute__((packed));

#define STREAMS 4096
static struct control none, *ctl = &none;
static char folder[PATH_MAX];
static size_t folder_length;
static char trace_path[PATH_MAX];
static int trace_fd = -1;
static unsigned char is_stream[STREAMS];

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("SIFAKA_SHIM_FOLDER"), *control = getenv("SIFAKA_SHIM_CONTROL");
    if (!where || !control) return;
    snprintf(folder, sizeof folder, "%s", where);
    folder_length = strlen(folder);
    const char *trace = getenv("SIFAKA_SHIM_TRACE"); /* copied: redis-server writes its title over the environment */
    snprintf(trace_path, sizeof trace_path, "%s", trace ? trace : "");
    int fd = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof *ctl, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (page != MAP_FAILED) ctl = page;
}

/* Which calls are meant ------------------------------------------------------------------ */

static int is_awake(void) { return ctl->mode != OFF || ctl->tracing; }

static int is_inside(const char *path) {
    return !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[n < 0 ? 0 : n] = 0;
    return n > 0;
}

static int absolute(int dir, const char *path, char *whole) {
    char base[PATH_MAX];
    if (*path == '/') return snprintf(whole, PATH_MAX, "%s", path) < PATH_MAX;
    if (dir == AT_FDCWD ? syscall(SYS_getcwd, base, sizeof base) < 0 : !path_of(dir, base)) return 0;
    if (path[0] == '.' && path[1] == '/') path += 2;
    return snprintf(whole, PATH_MAX, "%s/%s", base, path) < PATH_MAX;
}

/* Only looked at while somebody wants to know: a server's sockets cost nothing otherwise. */
static int is_meant(int fd, char *path) {
    int kept = errno, meant = is_awake() && path_of(fd, path) && is_inside(path);
    errno = kept;
    return meant;
}

static int is_meant_at(int dir, const char *name, char *path) {
    int kept = errno, meant = is_awake() && absolute(dir, name, path) && is_inside(path);
    errno = kept;
    return meant;
}

/* What is done to them ------------------------------------------------------------------- */

static void die(void) {
    if (ctl->also) syscall(SYS_kill, (pid_t)ctl->also, SIGKILL);
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static int before(int op, uint64_t *number) {
    *number = 0;
    if (ctl->mode == OFF || !(ctl->ops & (uint64_t)op)) return PASS;
    uint64_t mode = ctl->mode, n = *number = atomic_fetch_add(&ctl->count, 1) + 1;
    if (n < ctl->first || n > ctl->last || mode == COUNT) return PASS;
    ctl->kind = (uint64_t)op;
    if (mode == KILL_AFTER) return PASS;
    uint64_t hit = atomic_fetch_add(&ctl->hits, 1);
    if (mode == KILL_HALFWAY && op == WRITE) return HALF;
    if (mode != FAIL) die();
    if (!hit && ctl->cut && op == WRITE) return SHORT;
    if (!ctl->error) return PASS;
    errno = op == SYNC ? EIO : (int)ctl->error;
    return FAULT;
}

static void after(uint64_t number) {
    if (number && number == ctl->first && ctl->mode == KILL_AFTER) die();
}

static void record(char op, const char *path, int64_t offset, const struct iovec *data, int parts, size_t size) {
    if (!ctl->tracing || !*trace_path) return;
    int kept = errno;
    if (trace_fd < 0) trace_fd = (int)syscall(SYS_openat, AT_FDCWD, trace_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    struct entry head = {0, (uint16_t)strlen(path), (uint8_t)op, 0, (uint32_t)getpid(), (uint32_t)size, offset};
    head.total = (uint32_t)(sizeof head + head.path + size);
    char *entry = malloc(head.total), *at = entry;
    if (!entry) abort();
    at = mempcpy(at, &head, sizeof head);
    at = mempcpy(at, path, head.path);
    for (int i = 0; i < parts && size; i++) {
        size_t n = data[i].iov_len < size ? data[i].iov_len : size;
        at = mempcpy(at, data[i].iov_base, n);
        size -= n;
    }
    if (syscall(SYS_write, trace_fd, entry, head.total) != (long)head.total) abort(); /* a gap would be a lie */
    free(entry);
    errno = kept;
}

static void record_names(char op, const char *old, const char *new) {
    struct iovec to = {(void *)new, strlen(new)};
    record(op, old, 0, &to, 1, to.iov_len);
}

/* Writing -------------------------------------------------------------------------------- */

static ssize_t put(int fd, const struct iovec *v, int n, off_t offset) {
    return offset < 0 ? syscall(SYS_writev, fd, v, n) : syscall(SYS_pwritev, fd, v, n, offset, 0L);
}

static ssize_t put_half(int fd, const struct iovec *v, off_t offset) {
    struct iovec half = {v->iov_base, v->iov_len > 1 ? v->iov_len / 2 : v->iov_len};
    return put(fd, &half, 1, offset);
}

static ssize_t watched(int fd, const struct iovec *v, int n, off_t offset) {
    char path[PATH_MAX];
    uint64_t number;
    if (!is_meant(fd, path)) return put(fd, v, n, offset);
    int fate = before(WRITE, &number);
    if (fate == FAULT) return -1;
    ssize_t done = fate == PASS ? put(fd, v, n, offset) : put_half(fd, v, offset);
    if (done > 0) {
        int64_t at = offset >= 0 ? offset : syscall(SYS_lseek, fd, 0L, SEEK_CUR) - done;
        record('W', path, at, v, n, (size_t)done);
    }
    if (fate == HALF) die();
    after(number);
    return done;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!is_awake()) return syscall(SYS_write, fd, data, size);
    struct iovec one = {(void *)data, size};
    return watched(fd, &one, 1, -1);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    if (!is_awake()) return syscall(SYS_pwrite64, fd, data, size, offset);
    struct iovec one = {(void *)data, size};
    return watched(fd, &one, 1, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }
ssize_t writev(int fd, const struct iovec *v, int n) { return watched(fd, v, n, -1); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t offset) { return watched(fd, v, n, offset); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t offset) { return watched(fd, v, n, offset); }

/* Reading, which can only fail ----------------------------------------------------------- */

static int read_fails(int fd) {
    char path[PATH_MAX];
    uint64_t number;
    return ctl->mode != OFF && (ctl->ops & READ) && is_meant(fd, path) && before(READ, &number) == FAULT;
}

ssize_t read(int fd, void *data, size_t size) { return read_fails(fd) ? -1 : syscall(SYS_read, fd, data, size); }

ssize_t pread64(int fd, void *data, size_t size, off64_t offset) {
    return read_fails(fd) ? -1 : syscall(SYS_pread64, fd, data, size, offset);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset) { return pread64(fd, data, size, offset); }

/* Size ----------------------------------------------------------------------------------- */

int ftruncate64(int fd, off64_t size) {
    char path[PATH_MAX];
    uint64_t number;
    if (!is_meant(fd, path)) return (int)syscall(SYS_ftruncate, fd, size);
    if (before(TRUNCATE, &number) == FAULT) return -1;
    int done = (int)syscall(SYS_ftruncate, fd, size);
    if (!done) record('T', path, size, NULL, 0, 0);
    after(number);
    return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int fallocate64(int fd, int mode, off64_t offset, off64_t size) {
    char path[PATH_MAX];
    uint64_t number;
    if (!is_meant(fd, path)) return (int)syscall(SYS_fallocate, fd, mode, offset, size);
    if (before(ALLOCATE, &number) == FAULT) return -1;
    int done = (int)syscall(SYS_fallocate, fd, mode, offset, size);
    if (!done && !mode) record('A', path, offset + size, NULL, 0, 0); /* grows to at least this */
    after(number);
    return done;
}

int fallocate(int fd, int mode, off_t offset, off_t size) { return fallocate64(fd, mode, offset, size); }

int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    int kept = errno, failed = fallocate64(fd, 0, offset, size) ? errno : 0;
    errno = kept;
    return failed;
}

int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }

/* Syncing -------------------------------------------------------------------------------- */

static void record_stream(int fd, const char *path) {
    struct stat found;
    if (!ctl->tracing || fstat(fd, &found)) return;
    struct iovec all = {malloc((size_t)found.st_size + 1), (size_t)found.st_size};
    int again = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC); /* it may be open for writing only */
    ssize_t n = all.iov_base && again >= 0 ? syscall(SYS_pread64, again, all.iov_base, all.iov_len, 0L) : -1;
    syscall(SYS_close, again);
    if (n >= 0) record('T', path, n, NULL, 0, 0), record('W', path, 0, &all, 1, (size_t)n);
    free(all.iov_base);
}

static int synced(int fd, long call) {
    char path[PATH_MAX];
    uint64_t number;
    if (!is_meant(fd, path)) return (int)syscall(call, fd);
    int fate = before(SYNC, &number), kept = errno;
    if (fd < STREAMS && is_stream[fd]) record_stream(fd, path);
    record('S', path, 0, NULL, 0, 0);
    int done = fate == FAULT ? -1 : (int)syscall(call, fd);
    if (fate == FAULT) errno = kept;
    record(done ? 'F' : 'E', path, 0, NULL, 0, 0);
    after(number);
    return done;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int sync_file_range(int fd, off64_t offset, off64_t size, unsigned flags) { /* promises nothing: not recorded */
    char path[PATH_MAX];
    uint64_t number = 0;
    if (is_meant(fd, path) && before(SYNC, &number) == FAULT) return -1;
    int done = (int)syscall(SYS_sync_file_range, fd, offset, size, flags);
    after(number);
    return done;
}

/* Opening and closing -------------------------------------------------------------------- */

static int opened(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    struct stat found;
    uint64_t number = 0;
    int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
    if (!writes || !is_meant_at(dir, name, path)) return (int)syscall(SYS_openat, dir, name, flags, mode);
    if (before(OPEN, &number) == FAULT) return -1;
    int was_there = !fstatat(dir, name, &found, 0);
    int fd = (int)syscall(SYS_openat, dir, name, flags, mode);
    if (fd >= 0 && !was_there) record('C', path, 0, NULL, 0, 0);
    if (fd >= 0 && was_there && (flags & O_TRUNC)) record('T', path, 0, NULL, 0, 0);
    after(number);
    return fd;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags) return opened(AT_FDCWD, name, flags, mode); }
int openat(int dir, const char *name, int flags, ...) { MODE(flags) return opened(dir, name, flags, mode); }
int openat64(int dir, const char *name, int flags, ...) { MODE(flags) return opened(dir, name, flags, mode); }
int __open_2(const char *name, int flags) { return opened(AT_FDCWD, name, flags, 0); }
int __open64_2(const char *name, int flags) { return opened(AT_FDCWD, name, flags, 0); }
int creat(const char *name, mode_t mode) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    char path[PATH_MAX];
    uint64_t number = 0;
    int fate = is_meant(fd, path) ? before(CLOSE, &number) : PASS, kept = errno;
    int done = (int)syscall(SYS_close, fd);
    if (fate == FAULT) errno = kept, done = -1; /* the descriptor is gone all the same, as it really is */
    after(number);
    return done;
}

static FILE *streamed(const char *call, const char *name, const char *how) {
    char path[PATH_MAX];
    struct stat found;
    uint64_t number = 0;
    FILE *(*real)(const char *, const char *) = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, call);
    if (!strpbrk(how, "wa+") || !is_meant_at(AT_FDCWD, name, path)) return real(name, how);
    if (before(OPEN, &number) == FAULT) return NULL;
    int was_there = !stat(name, &found);
    FILE *file = real(name, how);
    if (file && fileno(file) < STREAMS) is_stream[fileno(file)] = 1;
    if (file && !was_there) record('C', path, 0, NULL, 0, 0);
    after(number);
    return file;
}

FILE *fopen(const char *name, const char *how) { return streamed("fopen", name, how); }
FILE *fopen64(const char *name, const char *how) { return streamed("fopen64", name, how); }

int fclose(FILE *file) {
    char path[PATH_MAX];
    int (*real)(FILE *) = (int (*)(FILE *))dlsym(RTLD_NEXT, "fclose");
    int fd = fileno(file);
    if (fd >= 0 && fd < STREAMS && is_stream[fd]) {
        is_stream[fd] = 0;
        if (!fflush(file) && is_meant(fd, path)) record_stream(fd, path);
    }
    return real(file);
}

/* Names ---------------------------------------------------------------------------------- */

static int renamed(char op, int from, const char *old, int to, const char *new, unsigned flags) {
    char a[PATH_MAX], b[PATH_MAX];
    uint64_t number = 0;
    int meant = is_meant_at(from, old, a) && is_meant_at(to, new, b);
    if (meant && before(RENAME, &number) == FAULT) return -1;
    int done = (int)syscall(op == 'R' ? SYS_renameat2 : SYS_linkat, from, old, to, new, flags);
    if (meant && !done) record_names(op, a, b);
    after(number);
    return done;
}

int rename(const char *old, const char *new) { return renamed('R', AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return renamed('R', from, old, to, new, 0); }
int link(const char *old, const char *new) { return renamed('L', AT_FDCWD, old, AT_FDCWD, new, 0); }

static int unlinked(int dir, const char *name, int flags) {
    char path[PATH_MAX];
    uint64_t number = 0;
    int meant = !(flags & AT_REMOVEDIR) && is_meant_at(dir, name, path);
    if (meant && before(UNLINK, &number) == FAULT) return -1;
    int done = (int)syscall(SYS_unlinkat, dir, name, flags);
    if (meant && !done) record('U', path, 0, NULL, 0, 0);
    after(number);
    return done;
}

int unlink(const char *name) { return unlinked(AT_FDCWD, name, 0); }
int unlinkat(int dir, const char *name, int flags) { return unlinked(dir, name, flags); }
