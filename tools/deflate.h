/* deflate.h - zlib streams (RFC 1950, 1951) from memory to memory, for PNG.
 * SPDX-License-Identifier: MIT */
#ifndef DEFLATE_H
#define DEFLATE_H

#include <stddef.h>
#include <stdint.h>

/* A byte of deflate's code stands for at most 1032: 258 for one bit each of length and distance. */
#define INFLATE_MOST 1032

/* Fills out[size] from in[n], exactly: more or less data is a fault, as is anything that follows.
 * Returns NULL, or a text that says what is wrong. */
const char *inflate_zlib(uint8_t *out, size_t size, const uint8_t *in, size_t n);

/* Bytes that deflate_zlib writes at most. */
size_t deflate_bound(size_t n);
/* out[deflate_bound(n)]. Returns the bytes written; 0: no memory. */
size_t deflate_zlib(uint8_t *out, const uint8_t *in, size_t n);

/* Shared by both sides: lengths 3..258 and distances 1..32768 have a symbol and extra bits. */
enum { LITERALS = 288, DISTANCES = 32, END_OF_BLOCK = 256, LONGEST_CODE = 15 };
extern const uint16_t length_base[29], distance_base[30];
extern const uint8_t length_extra[29], distance_extra[30];
extern const uint8_t code_length_order[19]; /* in which a dynamic block's header has them */
uint32_t adler32(const uint8_t *data, size_t n);

#endif
