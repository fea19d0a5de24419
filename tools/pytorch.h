/* pytorch.h - the table of what torch.save wrote: a zip archive with a pickle, nothing of which is
 * executed.
 * SPDX-License-Identifier: MIT */
#ifndef PYTORCH_H
#define PYTORCH_H

#include "checkpoint.h"

/* Reads the table of in->file, which has `size` bytes. Fills in->tensors; every tensor's elements
 * lie within its storage, and that within the file. Tensors may share storages. */
void open_pytorch(struct checkpoint *in, u64 size);

#endif
