/* powerloss.c - what a power cut would leave. Reads the records of faults.c and tries every moment:
 * what was written and not synced may be lost or half there; each change of the folder's names
 * since it was last synced may have reached the disk or not, in any combination.
 *
 *     powerloss LOG NAME=FILE...
 *
 * At every moment and in every case one NAME of the folder must hold exactly the bytes of its FILE,
 * and these must be synced. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64, PENDING = 14, NAME = 256 };

struct content {
    uint8_t *bytes;
    size_t n;
};
static struct inode { /* one file's life: a number that is used again is another one */
    uint64_t number;
    struct content now;
    int is_synced; /* its bytes are on the disk, all of them */
} inode[MOST];
static int n_inodes;

struct change { /* of the folder: a name for an inode, instead of another name; -1: none */
    char name[NAME], instead[NAME];
    int inode;
};
struct folder {
    struct change entry[MOST];
    int n;
};
static struct folder on_disk;
static struct change pending[PENDING];
static int n_pending;

static struct {
    const char *name;
    struct content content;
} wanted[8];
static int n_wanted;
static uint64_t moments, cases;

static _Noreturn void fail(const char *why, const char *what) {
    printf("powerloss: %s%s\n", why, what);
    exit(1);
}

static struct content read_content(const char *path) {
    struct content c = {malloc(1 << 24), 0};
    FILE *f = fopen(path, "rb");
    if (!f || !c.bytes) fail("cannot open ", path);
    c.n = fread(c.bytes, 1, 1 << 24, f);
    fclose(f);
    return c;
}

static int find_inode(uint64_t number) { /* the last one; -1: none */
    for (int i = n_inodes; i--;)
        if (inode[i].number == number) return i;
    return -1;
}

static int new_inode(uint64_t number, int is_synced) {
    if (n_inodes == MOST) fail("too many files", "");
    inode[n_inodes] = (struct inode){.number = number, .is_synced = is_synced};
    return n_inodes++;
}

static void write_at(struct inode *f, uint64_t at, const uint8_t *data, uint64_t n) {
    uint64_t end = at + n > f->now.n ? at + n : f->now.n;
    f->now.bytes = realloc(f->now.bytes, end + 1);
    if (!f->now.bytes) fail("memory", "");
    if (at > f->now.n) memset(f->now.bytes + f->now.n, 0, at - f->now.n);
    if (n) memcpy(f->now.bytes + at, data, n);
    f->now.n = end;
    f->is_synced = 0;
}

/* ---- the folder */

static void forget_name(struct folder *d, const char *name) {
    for (int i = 0; i < d->n; i++)
        if (!strcmp(d->entry[i].name, name)) d->entry[i--] = d->entry[--d->n];
}

static void apply(struct folder *d, const struct change *c) {
    if (*c->instead) forget_name(d, c->instead);
    forget_name(d, c->name);
    if (c->inode < 0) return;
    if (d->n == MOST) fail("too many names", "");
    d->entry[d->n++] = *c;
}

static void change(const char *name, const char *instead, int of) {
    if (n_pending == PENDING) fail("too many changes that are not synced", "");
    struct change *c = &pending[n_pending++];
    snprintf(c->name, NAME, "%s", name);
    snprintf(c->instead, NAME, "%s", instead);
    c->inode = of;
}

static void sync_folder(void) {
    for (int i = 0; i < n_pending; i++) apply(&on_disk, &pending[i]);
    n_pending = 0;
}

/* ---- what would be left */

static int survives(const struct folder *d) {
    for (int i = 0; i < d->n; i++)
        for (int k = 0; k < n_wanted; k++) {
            const struct inode *f = &inode[d->entry[i].inode];
            const struct content *c = &wanted[k].content;
            if (!strcmp(d->entry[i].name, wanted[k].name) && f->is_synced && f->now.n == c->n &&
                !memcmp(f->now.bytes, c->bytes, c->n))
                return 1;
        }
    return 0;
}

static void cut_here(void) {
    moments++;
    for (uint32_t some = 0; some < 1u << n_pending; some++, cases++) {
        struct folder d = on_disk;
        for (int i = 0; i < n_pending; i++)
            if (some >> i & 1) apply(&d, &pending[i]);
        if (survives(&d)) continue;
        printf("powerloss: nothing whole is left after operation %llu; of %d changes of names that "
               "were not synced these reached the disk: ",
               (unsigned long long)moments, n_pending);
        for (int i = 0; i < n_pending; i++)
            if (some >> i & 1)
                printf(" %s%s%s", pending[i].instead, *pending[i].instead ? "->" : "",
                       pending[i].name);
        puts("");
        exit(1);
    }
}

static void take(int what, const uint64_t head[4], const char *name, const uint8_t *data) {
    char to[NAME] = "";
    int of = find_inode(head[0]);
    if (what == 'I') {
        of = new_inode(head[0], 1);
        write_at(&inode[of], 0, data, head[3]);
        inode[of].is_synced = 1;
        change(name, "", of);
        sync_folder();
    } else if (what == 'N') {
        new_inode(head[0], 0);
    } else if (what == 'W' && of >= 0) {
        write_at(&inode[of], head[1], data, head[3]);
    } else if (what == 'T' && of >= 0) {
        if (head[1] < inode[of].now.n) inode[of].now.n = head[1];
        write_at(&inode[of], head[1], NULL, 0);
    } else if (what == 'S' && of >= 0) {
        inode[of].is_synced = 1;
    } else if (what == 'D') {
        sync_folder();
    } else if (what == 'A') {
        for (int i = 0; i < n_inodes; i++) inode[i].is_synced = 1;
        sync_folder();
    } else if (what == 'L') {
        change(name, "", of);
    } else if (what == 'U') {
        change(name, "", -1);
    } else if (what == 'R') {
        snprintf(to, sizeof to, "%.*s", (int)head[3], (const char *)data);
        change(to, name, of);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) return fprintf(stderr, "usage: powerloss LOG NAME=FILE...\n"), 2;
    struct content log = read_content(argv[1]);
    for (int i = 2; i < argc && n_wanted < 8; i++, n_wanted++) {
        char *equals = strchr(argv[i], '=');
        if (!equals) fail("no = in ", argv[i]);
        *equals = 0;
        wanted[n_wanted].name = argv[i];
        wanted[n_wanted].content = read_content(equals + 1);
    }
    size_t at = 0;
    for (int begun = 0; at + 33 <= log.n;) {
        uint64_t head[4];
        char name[NAME] = "";
        int what = log.bytes[at];
        memcpy(head, log.bytes + at + 1, 32);
        if (head[2] >= NAME || head[3] > log.n || at + 33 + head[2] + head[3] > log.n) break;
        memcpy(name, log.bytes + at + 33, head[2]);
        begun |= what != 'I';
        take(what, head, name, log.bytes + at + 33 + head[2]);
        at += 33 + head[2] + head[3];
        if (begun) cut_here();
    }
    if (at != log.n || !moments) fail("the records are damaged, or there are none: ", argv[1]);
    printf("%llu moments, %llu cases: one of the files is always whole\n",
           (unsigned long long)moments, (unsigned long long)cases);
    return 0;
}
