/* q4.h - 4-bit weights, slow and plain: the rule of quantization, and a file's weights one by one,
 * straight from models/FORMAT.md; a model file with its q4 matrices expanded to q8. Include
 * ../megabyte.c before it. */
#ifndef TESTS_Q4_H
#define TESTS_Q4_H

#include "test.h"

/* One row of n weights as scale * m[group] * w4. Volatile: each operation is rounded by itself. */
static UNUSED_OK float q4_quantize(const float *w, u32 n, int *w4, int *m) {
    volatile double largest = 0, scale, x;
    for (u32 k = 0; k < n; k++) largest = fmax(largest, fabs((double)w[k]));
    scale = largest / 105;
    for (u32 g = 0; g < (n + 31) / 32; g++) {
        u32 end = n < 32 * g + 32 ? n : 32 * g + 32;
        double least = INFINITY;
        largest = 0;
        for (u32 k = 32 * g; k < end; k++) largest = fmax(largest, fabs((double)w[k]));
        x = 7 * scale;
        x = largest / x;
        int m0 = !(x >= 0) ? 1 : (int)fmin(fmax(rint(x), 1), 15); /* NaN: zeros only */
        for (int tried = m0; tried >= 1 && tried >= m0 - 4; tried--) {
            volatile double step = scale * tried, error = 0, off;
            for (u32 k = 32 * g; k < end; k++) {
                x = (double)w[k] / step;
                off = step * (scale > 0 ? fmin(fmax(rint(x), -8), 7) : 0);
                off = off - (double)w[k];
                off = off * off;
                error = error + off;
            }
            if (error >= least) continue;
            least = error, m[g] = tried;
        }
        for (u32 k = 32 * g; k < end; k++) {
            x = scale * m[g];
            x = (double)w[k] / x;
            w4[k] = scale > 0 ? (int)fmin(fmax(rint(x), -8), 7) : 0;
        }
    }
    return (float)scale;
}

/* The parts of row r, column c of a q4 tensor of these columns; rows16: its rows, filled up. */
static UNUSED_OK int q4_weight(const u8 *data, u64 cols, u64 r, u64 c) {
    u64 c32 = (cols + 31) / 32 * 32;
    u8 two = data[r / 16 * 8 * c32 + c / 8 * 64 + r % 16 * 4 + c % 4];
    return (c % 8 < 4 ? two & 15 : two >> 4) - 8;
}
static UNUSED_OK int q4_multiplier(const u8 *data, u64 rows16, u64 cols, u64 r, u64 group) {
    u64 c32 = (cols + 31) / 32 * 32, pairs = (c32 / 32 + 1) / 2;
    u8 two = data[rows16 * c32 / 2 + r / 16 * 16 * pairs + group / 2 * 16 + r % 16];
    return group % 2 ? two >> 4 : two & 15;
}
static UNUSED_OK u32 q4_scale_bits(const u8 *data, u64 rows16, u64 cols, u64 r) {
    u64 c32 = (cols + 31) / 32 * 32, pairs = (c32 / 32 + 1) / 2;
    return get32(data + rows16 * c32 / 2 + rows16 * pairs + 4 * r);
}

/* A model file whose q4 tensors are being expanded. */
struct q4_expansion {
    const u8 *from;
    u8 *to; /* NULL: only the size is wanted */
    u64 entry, from_data, data, end; /* the next entry; where data begin, in both; end so far */
    u32 expanded;
};

static status q4_expand_tensor(void *context, struct tensor *t) {
    struct q4_expansion *x = context;
    const u8 *data = x->from + x->from_data + get64(x->from + x->entry + 24);
    u64 rows16 = round_up(t->rows, 16), c4 = round_up(t->cols, 4);
    t->type = get32(x->from + x->entry + 8);
    u64 bytes = tensor_data_bytes(t);
    int packed = t->type == TYPE_Q4_TILED;
    if (packed) t->type = TYPE_Q8_TILED, bytes = tensor_data_bytes(t), x->expanded++;
    t->offset = x->end;
    if (x->to) {
        u8 *to = x->to + x->end;
        put_entry(x->to + x->entry, t, x->data);
        if (!packed) memcpy(to, data, bytes);
        for (u64 r = 0; packed && r < rows16; r++) {
            for (u64 c = 0; c < c4; c++)
                to[r / 16 * 16 * c4 + c / 4 * 64 + r % 16 * 4 + c % 4] =
                    (u8)(128 + q4_weight(data, t->cols, r, c) *
                                   q4_multiplier(data, rows16, t->cols, r, c / 32));
            put32(to + rows16 * c4 + 4 * r, q4_scale_bits(data, rows16, t->cols, r));
        }
    }
    x->entry += TENSOR_BYTES;
    x->end = round_up(x->end + bytes, ALIGN);
    return MEGABYTE_OK;
}

/* The same model with every q4 matrix as q8: to be freed; aligned. */
static UNUSED_OK u8 *q4_expand(const u8 *file, const struct sizes *z, size_t *size, u32 *expanded) {
    u64 data = get64(file + 24), table = HEADER_BYTES + (u64)z->n_stages * STAGE_BYTES;
    struct q4_expansion x = {file, NULL, table, data, data, data, 0};
    each_tensor(z, q4_expand_tensor, &x);
    *size = (size_t)x.end;
    *expanded = x.expanded;
    u8 *to = aligned_alloc(ALIGN, *size);
    CHECK(to, "out of memory in the test itself");
    memset(to, 0, *size);
    memcpy(to, file, (size_t)data);
    x = (struct q4_expansion){file, to, table, data, data, data, 0};
    each_tensor(z, q4_expand_tensor, &x);
    put64(to + 16, *size);
    sha256(to + data, *size - data, NULL, 0, to + 64);
    sha256(to, 96, to + HEADER_BYTES, data - HEADER_BYTES, to + 96);
    return to;
}
#endif
