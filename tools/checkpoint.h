/* checkpoint.h - the tensors of a checkpoint, of either kind of file: their table, checked before
 * anything is believed, and their elements as floats. The checkpoint is hostile until proved
 * otherwise; only its table is held in memory, and the tensors that the one being written is made
 * of.
 * SPDX-License-Identifier: MIT */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include "common.h"
#include "json.h"

#define MAX_RANK 4 /* shapes of higher rank are only counted: no family has one */

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
    ELEMENT_BOOL,
    ELEMENT_U64,
    ELEMENT_U32,
    ELEMENT_U16,
    ELEMENT_F8_E4M3,
    ELEMENT_F8_E5M2,
    ELEMENT_TYPES /* how many */
};
struct element_type {
    const char *name; /* as safetensors have it */
    u32 bytes;
    int readable; /* as weights; tensors of other types may only be passed over */
};
extern const struct element_type element_types[ELEMENT_TYPES];

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
    } held[HELD]; /* the bytes of the tensors that were read last, */
    u32 next_held; /* and which of them goes next */
};

/* Opens a file of either kind and reads its table: no name is there twice, wrappers' prefixes
 * ("module.") are gone, and every tensor's elements lie in the file. `in` must be zeros; the file
 * stays open, and the names stay allocated, until the program ends. Dies of what is wrong. */
void open_checkpoint(struct checkpoint *in, const char *path);

struct source *find_source(const struct checkpoint *in, const char *name); /* or NULL */

/* n elements of a tensor, `step` apart, from element `from` on (counted as strides are); the caller
 * has checked the shape. Dies of what is not finite. */
void read_line(struct checkpoint *in, const struct source *t, u64 from, u64 step, u32 n, float *to);

#endif
