/* families.h - the families of checkpoints: where each of the model's tensors comes from, the
 * model's sizes, and the tensors' rows as floats.
 * SPDX-License-Identifier: MIT */
#ifndef FAMILIES_H
#define FAMILIES_H

#include "library.h"

#include "checkpoint.h"
#include "config.h"
#include "names.h"

/* The command line. Its numbers win over the configuration; ABSENT: not given. */
struct options {
    const char *in, *out, *config, *extension;
    u32 matrix_type; /* TYPE_F32_TILED, TYPE_Q8_TILED, TYPE_Q4_TILED */
    ll heads, dim_head, positions, pad_id;
    const char *text[TEXT_COUNT];
    int force, ignore_unknown;
};

/* One checkpoint on its way into a model file. */
struct conversion {
    const struct options *options;
    const struct family *family;
    struct config config;
    struct checkpoint in;
    struct sizes sizes;
    u32 interleaved; /* bit s: rotary pairs of stage s lie side by side, not half a head apart */
    /* they are divided by sqrt(head width) once more where they are not normalized */
    int scaled_queries;
    u32 first_id; /* what the text is taken to begin with where no pad was trained */
    const char *extension; /* bGPT: what stands before it */
    struct names missing; /* find_tensor */
    u32 n_tensors;
    struct tensor *tensors; /* plan_tensor: the table of the model file */
    u64 offset; /* plan_tensor: where the next tensor goes */
    u32 longest; /* plan_tensor: columns of the widest tensor */
    const double *positions; /* convolved_positions */
};

/* These die of what is wrong with the checkpoint or the configuration. Call them in this order. */

/* What names alone tell: the family, how many stages and layers. Sets config.keys: the
 * configuration can then be read. */
void recognise_names(struct conversion *c);

/* What shapes tell, and what the configuration and the options add. All sizes are then within the
 * library's bounds, and every tensor of the model is there with its shape. */
void derive_sizes(struct conversion *c);

/* Row `row` of the model's tensor t, all t->cols of it; every value is finite in the checkpoint. */
void read_row(struct conversion *c, const struct tensor *t, u32 row, float *to);

#endif
