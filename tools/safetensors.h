/* safetensors.h - the table of a safetensors file: u64 header length, JSON object
 * { name: { dtype, shape, data_offsets } }, data without gaps.
 * SPDX-License-Identifier: MIT */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "checkpoint.h"

/* Reads the table of in->file, which has `size` bytes (8 at least), stands behind the header's
 * length and says that this is `header`. Fills in->tensors; every tensor's bytes are its own and
 * lie in the file. */
void open_safetensors(struct checkpoint *in, u64 size, u64 header);

#endif
