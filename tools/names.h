/* names.h - lists of names for messages.
 * SPDX-License-Identifier: MIT */
#ifndef NAMES_H
#define NAMES_H

#include "common.h"

/* A list of names for a message: the first ten, then a count. */
struct names {
    uint32_t count; /* of all */
    char text[1536];
};

void add_name(struct names *list, const char *name); /* cut to 120 bytes */
const char *show_names(struct names *list); /* call it once, when all are there */

#endif
