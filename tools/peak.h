/* peak.h - the machine's own limits, for mbrun bench: bursts of the arithmetic that the library's
 * kernels are made of, and of plain reading.
 * SPDX-License-Identifier: MIT */
#ifndef PEAK_H
#define PEAK_H

#include "../megabyte.h"

#include <stddef.h>
#include <stdint.h>

/* Runs n rounds and returns the work done: multiply-accumulates, or bytes read. `memory` is
 * readable: `size` bytes, 64-byte aligned, a multiple of 4096. */
typedef double (*burst)(const void *memory, size_t size, size_t n);

typedef struct peak_kernels {
    /* exact int8 products into int32 sums; the faster one counts; the second may be NULL */
    burst int8[2];
    burst f32; /* multiply, then add, not fused */
    burst read;
} peak_kernels;

/* The instructions that the library's kernels of this instruction set can use at best. */
peak_kernels kernels_for(megabyte_isa isa);

#endif
