/* pytorch.h - the tensors of what torch.save wrote: a zip archive with a pickle, none of
 * which is executed; and the opening of checkpoints of either kind.
 * SPDX-License-Identifier: MIT */
#ifndef PYTORCH_H
#define PYTORCH_H

#include "common.h"
#include "safetensors.h"

void open_checkpoint(struct checkpoint *in, const char *path);

struct source *find_source(const struct checkpoint *in, const char *name);

#endif
