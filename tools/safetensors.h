/* safetensors.h - the tensors of a checkpoint, checked before anything is believed, and the
 * safetensors file that may hold them. The checkpoint is hostile until proved otherwise; only its
 * tables are held in memory, and the tensors that the one being written is made of.
 * SPDX-License-Identifier: MIT */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "common.h"
#include "json.h"

/* safetensors: u64 header length, JSON object { name: { dtype, shape, data_offsets } }, data
 * without gaps */
#define MAX_RANK 4 /* shapes of higher rank are only counted: this family has none */

struct element_type {
    const char *name;
    u32 bytes;
    int readable;
};
extern const struct element_type element_types[];
enum {
    ELEMENT_F32,
    ELEMENT_F16,
    ELEMENT_BF16,
    ELEMENT_F64,
    ELEMENT_I64,
    ELEMENT_I32,
    ELEMENT_I16,
    ELEMENT_I8,
    ELEMENT_U8,
    ELEMENT_BOOL
}; /* indices into it */

struct source { /* one tensor of the checkpoint */
    const char *name;
    u32 type, rank;
    u64 shape[MAX_RANK], stride[MAX_RANK], elements; /* strides: in elements */
    u64 begin, end; /* bytes in the data part, from the first element to behind the last */
    int used;
};

#define HELD 4
struct checkpoint {
    const char *path;
    FILE *file;
    u64 data; /* where the data part starts */
    u64 data_bytes;
    struct source *tensors; /* sorted by name */
    u64 count;
    struct held {
        const struct source *of;
        u8 *bytes;
        u64 room;
    } held[HELD]; /* load */
    u32 next_held;
};

int by_name(const void *a, const void *b);

void open_safetensors(struct checkpoint *in, u64 size, u64 header);

/* The bytes of a tensor; those of the last four tensors that were asked for are held. */
const u8 *load(struct checkpoint *in, const struct source *t);

/* n elements of a tensor, `step` apart, from element `from` on (counted as strides are). All must
 * be finite. */
void read_line(struct checkpoint *in, const struct source *t, u64 from, u64 step, u32 n, float *to);

#endif
