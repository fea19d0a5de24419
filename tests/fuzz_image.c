/* fuzz_image.c - any bytes as a .mbi file, its header, as pixels and options of encoding, or as
 * what is done to a right file: no crash, nothing wrong is said to be right, and what is right is
 * what encoding writes. The first byte says which. See fuzz.h. */
#define MEGABYTE_KEEP_OPTIONS
#include "../megabyte.c"

#include "fuzz.h"

#include "random_model.h"

enum { KEPT = 32 << 20, MODELS = 3, SAMPLES = 1200, LARGEST = 3000, TILES = 9 };
static struct {
    const char *tile, *patch, *channels, *colour, *scan;
    u32 patches, bytes;
    u8 *file;
    size_t size;
    megabyte_model *model;
    megabyte_engine *engine;
} of[MODELS] = {{"4x4", "2x2", "3", "green-difference", "patch", 4, 12, NULL, 0, NULL, NULL},
                {"8x3", "4x1", "1", "none", "raster", 6, 4, NULL, 0, NULL, NULL},
                {"6x2", "3x2", "3", "none", "patch", 2, 18, NULL, 0, NULL, NULL}};

/* Contexts are 25 MB: as fresh memory from the system they would take most of the time. What an
 * earlier call left in them must not matter. The object lies at the block's end: what is past it
 * shows. */
static u8 *kept;
static int kept_used;
static void *keeping_alloc(void *context, size_t size, size_t align) {
    if (size < KEPT / 2 || size > KEPT || kept_used) return libc_alloc(context, size, align);
    if (!kept) kept = (u8 *)libc_alloc(context, KEPT, align);
    kept_used = kept != NULL;
    return kept ? kept + KEPT - round_up(size, ALIGN) : NULL;
}
static void keeping_free(void *context, void *memory, size_t size) {
    if (kept_used && memory == kept + KEPT - round_up(size, ALIGN)) kept_used = 0;
    else libc_free(context, memory, size);
}
static const megabyte_allocator keeping = {keeping_alloc, keeping_free, NULL};

static void set_up(void) {
    (void)random_history, (void)random_model; /* of the header, not needed here */
    for (u32 i = 0; i < MODELS; i++) {
        const char *texts[] = {"image.tile",     of[i].tile,     "image.patch",  of[i].patch,
                               "image.channels", of[i].channels, "image.colour", of[i].colour,
                               "image.scan",     of[i].scan};
        struct sizes z = random_sizes(of[i].patches, of[i].bytes, 16, 1, 2, 8, 16, 1, 2, 8);
        megabyte_error error;
        of[i].file = random_model_with(&z, 5 + i, texts, 5, &of[i].size, &error);
        MUST(of[i].file);
        MUST(!megabyte_model_open_memory(&of[i].model, of[i].file, of[i].size, NULL, &error));
        MUST(!megabyte_engine_create(&of[i].engine, of[i].model, NULL, NULL, &error));
    }
}

/* Where a file's header ends, whether or not its check is right; 0: nowhere. */
static size_t header_end(const u8 *in, size_t n, megabyte_image_header *h) {
    status r = megabyte_image_header_read(in, n, h, NULL);
    if (r && r != MEGABYTE_ERROR_CORRUPT) return 0;
    return h->header_bytes <= n && h->header_bytes > CHECK_BYTES ? h->header_bytes : 0;
}

static void mend_header(u8 *in, size_t n) {
    u8 digest[32];
    megabyte_image_header h;
    size_t end = header_end(in, n, &h);
    if (!end) return;
    sha256(in, end - CHECK_BYTES, NULL, 0, digest);
    memcpy(in + end - CHECK_BYTES, digest, CHECK_BYTES);
}

static megabyte_image new_picture(u32 width, u32 height, u32 channels, u32 gap) {
    megabyte_image p = {width, height, channels, (size_t)width * channels + gap, NULL};
    p.pixels = (u8 *)malloc(p.row_bytes * height);
    MUST(p.pixels);
    memset(p.pixels, 0x5e, p.row_bytes * height);
    return p;
}

static int same_pixels(const megabyte_image *a, const megabyte_image *b) {
    for (u32 y = 0; y < a->height; y++)
        if (memcmp(a->pixels + y * a->row_bytes, b->pixels + y * b->row_bytes,
                   (size_t)a->width * a->channels))
            return 0;
    return 1;
}

/* A right file: its picture encodes to these very bytes, but where another way is smaller. */
static void encodes_again(u32 i, const megabyte_image_header *h, const u8 *in,
                          const megabyte_image *p) {
    static u8 again[LARGEST + 70000], other[LARGEST + 70000];
    megabyte_image_options o = {.engine = of[i].engine,
                                .tiles = h->tiles,
                                .model_alone = h->model_alone,
                                .layout = h->layout_bytes ? in + h->layout_at : NULL,
                                .layout_bytes = h->layout_bytes};
    megabyte_image_header now;
    size_t n, n_other;
    MUST(!megabyte_image_encode(of[i].model, &o, p, again, sizeof again, &n, &keeping, NULL));
    MUST(!megabyte_image_header_read(again, n, &now, NULL) && now.file_bytes == n);
    if (!h->stored && !now.stored && now.model_alone == h->model_alone)
        MUST(n == h->file_bytes && !memcmp(again, in, n));
    o.model_alone = 1;
    MUST(!megabyte_image_encode(of[i].model, &o, p, other, sizeof other, &n_other, &keeping, NULL));
    MUST(n <= n_other + 4); /* never more than by the model alone, whose size is estimated */
}

/* n bytes as a file: the status; `expected`, unless NULL, is what it holds if it is right.
 * remake: the check at its end, too, is made anew. */
static status decode(u32 i, const u8 *in, size_t n, int remake, const megabyte_image *expected) {
    megabyte_image_header h;
    megabyte_error error;
    megabyte_image_options o = {
        .engine = of[i].engine, .tiles = TILES, .limit = SAMPLES, .max_ratio = 1000};
    u8 *own = own_copy(in, n);
    status r = megabyte_image_header_read(own, n, &h, &error);
    MUST(error.status == r && !r == !error.text[0]);
    if (r) {
        megabyte_image none = {1, 1, 1, 1, own};
        if (n) MUST(megabyte_image_decode(of[i].model, &o, own, n, &none, &keeping, &error) == r);
        free(own);
        return r;
    }
    MUST(h.header_bytes <= n && h.tiles >= 1 && h.tiles <= 256 && h.width && h.height &&
         h.layout_at + h.layout_bytes <= h.header_bytes);
    if ((u64)h.width * h.height * h.channels > SAMPLES) {
        /* claims too much: refused before a pixel is touched */
        megabyte_image none = {h.width, h.height, h.channels, (size_t)h.width * h.channels, own};
        r = megabyte_image_decode(of[i].model, &o, own, n, &none, &keeping, &error);
        MUST(r && r != MEGABYTE_ERROR_OUT_OF_MEMORY);
    } else {
        megabyte_image p = new_picture(h.width, h.height, h.channels, n % 3);
        r = megabyte_image_decode(of[i].model, &o, own, n, &p, &keeping, &error);
        if (r == MEGABYTE_ERROR_CORRUPT && remake && n >= h.file_bytes) {
            check_picture(&p, own, h.header_bytes, own + h.header_bytes + h.coded);
            r = megabyte_image_decode(of[i].model, &o, own, n, &p, &keeping, &error);
            if (!r) encodes_again(i, &h, own, &p);
        } else if (!r && expected) {
            MUST(p.width == expected->width && p.height == expected->height &&
                 p.channels == expected->channels && same_pixels(&p, expected));
        }
        MUST(error.status == r && !r == !error.text[0] && r <= 0);
        free(p.pixels);
    }
    free(own);
    return r;
}

/* Options and sizes from the first bytes, pixels from the rest, over and over. */
static void round_trip(const u8 *in, size_t n) {
    static u8 packed[LARGEST];
    u8 how[6] = {0};
    size_t n_out, take = n < 6 ? n : 6;
    memcpy(how, in, take);
    in += take, n -= take;
    u32 i = how[0] % MODELS, width = how[1] % 40 + 1u, height = how[2] % 9 + 1u;
    u32 channels = of[i].channels[0] == '1' || how[0] & 128 ? 1 : 3;
    megabyte_image p = new_picture(width, height, channels, how[4] % 5);
    megabyte_image_header h;
    megabyte_image_options o = {.engine = of[i].engine,
                                .tiles = how[3] % (TILES + 1u),
                                .model_alone = how[5] & 1,
                                .layout = how,
                                .layout_bytes = how[4] % 7};
    if (!o.tiles) o.tiles = TILES;
    for (size_t y = 0, at = 0; n && y < height; y++)
        for (size_t x = 0; x < (size_t)width * channels; x++, at++)
            p.pixels[y * p.row_bytes + x] = in[at % n];
    size_t room = megabyte_image_bound(width, height, channels) + o.layout_bytes;
    if (how[5] & 64) room -= room * (how[5] >> 1 & 31) / 32; /* may be too little */
    u8 *out = (u8 *)malloc(room + !room);
    MUST(out);
    status r = megabyte_image_encode(of[i].model, &o, &p, out, room, &n_out, &keeping, NULL);
    MUST(!r || (how[5] & 64 && r == MEGABYTE_ERROR_CAPACITY && !n_out));
    if (!r) {
        MUST(n_out <= room && n_out <= sizeof packed);
        MUST(!decode(i, out, n_out, 0, &p));
        MUST(!megabyte_image_header_read(out, n_out, &h, NULL));
        encodes_again(i, &h, out, &p);
    }
    free(out), free(p.pixels);
}

/* ---- right files */

enum { FILES = 30 };
static struct {
    megabyte_image picture;
    u8 packed[LARGEST];
    size_t n;
    u32 by;
} file[FILES];

/* A picture that the model itself has made, rather cool: alone, too, it makes it smaller. */
static megabyte_image new_likely(u32 i, u32 width, u32 height, u64 seed) {
    megabyte_image_info f = of[i].model->image;
    u32 columns = (width + f.tile_width - 1) / f.tile_width,
        rows = (height + f.tile_height - 1) / f.tile_height;
    megabyte_image p = new_picture(columns * f.tile_width, rows * f.tile_height, f.channels, 1);
    megabyte_sampling how = {.temperature = 0.4f, .seed = seed};
    megabyte_stream_options with = {.engine = of[i].engine};
    megabyte_stream *author;
    u8 ids[100];
    MUST(!megabyte_stream_create(&author, of[i].model, &with, NULL, NULL));
    for (u32 t = 0; t < columns * rows; t++) {
        u32 x = t % columns * f.tile_width, y = t / columns * f.tile_height;
        megabyte_stream_reset(author);
        for (u32 at = 0; at < f.tile_bytes; at++)
            MUST(!megabyte_stream_sample(author, &how, &ids[at]) &&
                 !megabyte_stream_step(author, ids[at]));
        megabyte_image_unscan(&f, ids, p.pixels + y * p.row_bytes + x * f.channels, p.row_bytes);
    }
    megabyte_stream_free(author);
    p.width = width;
    p.height = height;
    return p;
}

/* Mixed, by the model alone, stored; with and without a layout; grey by a model of colours. */
static void make_files(void) {
    u32 ways[3] = {0};
    chance_state = 1;
    for (u32 k = 0; k < FILES; k++) {
        u32 i = file[k].by = k % MODELS, noise = k % 10 == 8 ? 256 : 4;
        u32 channels = of[i].channels[0] == '1' || k % 7 == 3 ? 1 : 3;
        megabyte_image *p = &file[k].picture;
        megabyte_image_options o = {.engine = of[i].engine,
                                    .tiles = 1 + k % TILES,
                                    .model_alone = k / 3 % 2,
                                    .layout = "a layout",
                                    .layout_bytes = k % 4 ? 0 : k % 8 + 1};
        u32 width = 1 + k * 5 % 23, height = 1 + k * 3 % 14;
        *p = k % 2 ? new_likely(i, width, height, k) : new_picture(width, height, channels, k % 5);
        for (u32 y = 0; y < height && k % 2 == 0; y++)
            for (u32 x = 0; x < width * channels; x++)
                p->pixels[y * p->row_bytes + x] =
                    (u8)(noise > 4 ? chance(256) : 100 + 2 * y + x / channels + chance(noise));
        MUST(!megabyte_image_encode(of[i].model, &o, p, file[k].packed, LARGEST, &file[k].n,
                                    &keeping, NULL));
        megabyte_image_header h;
        MUST(!megabyte_image_header_read(file[k].packed, file[k].n, &h, NULL));
        ways[h.stored ? 2 : h.model_alone]++;
    }
    MUST(ways[0] > 4 && ways[1] > 4 && ways[2] > 4);
}

/* A right file, spoilt as the bytes say: refused, or its own picture comes out. */
static void spoil_file(const u8 *in, size_t n) {
    static u8 bad[LARGEST];
    if (!file[0].n) make_files();
    pick_from(in, n);
    u32 k = (u32)pick(FILES);
    int mended = pick(2) == 0, remake = mended && pick(3) == 0;
    memcpy(bad, file[k].packed, file[k].n);
    n = picks_left ? spoil(bad, file[k].n, LARGEST, pick) : file[k].n;
    if (mended) mend_header(bad, n);
    status r = decode(file[k].by, bad, n, remake, mended ? NULL : &file[k].picture);
    tally(r ? "spoilt files refused" : remake ? "made right" : "right all the same");
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size) {
    if (!of[0].model) set_up();
    if (!size) return 0;
    u8 *bad = own_copy(input + 1, --size);
    if (input[0] & 32) mend_header(bad, size);
    if (input[0] & 128) spoil_file(bad, size);
    else if (input[0] & 64) round_trip(bad, size);
    else tally(decode(input[0] % MODELS, bad, size, input[0] & 16, NULL) ? "refused" : "decoded");
    free(bad);
    return 0;
}

#ifdef STANDALONE
static void make_seeds(void) {
    static u8 seed[LARGEST + 1];
    set_up();
    make_files();
    for (u32 k = 0; k < FILES; k++) {
        seed[0] = (u8)(k % 5 ? file[k].by + 48 : 64);
        memcpy(seed + 1, file[k].packed, file[k].n);
        add_seed(seed, 1 + file[k].n);
        for (u32 i = 0; i < 40; i++) seed[1 + i] = (u8)(k * 41 + i * i * 37);
        seed[0] = 128, seed[1] = (u8)k; /* what to spoil */
        add_seed(seed, 41);
    }
}
#endif
