/* library.h - the library from inside, for those files of mbconvert that describe a model file as
 * the library itself does: struct sizes, struct tensor, each_tensor, check_sizes,
 * tensor_data_bytes, the little-endian accessors, SHA-256. Include it first. Each file gets a copy
 * of its own, of which the compiler keeps what is used.
 * SPDX-License-Identifier: MIT */
#ifndef LIBRARY_H
#define LIBRARY_H

#define MEGABYTE_KEEP_OPTIONS /* what is computed here, too, is the same under -Ofast */
#ifndef MEGABYTE_API
#define MEGABYTE_API static __attribute__((unused))
#endif
#include "../megabyte.c"

#endif
