/* names.h - lists of names for messages.
 * SPDX-License-Identifier: MIT */
#ifndef NAMES_H
#define NAMES_H

#include "common.h"

/* A list of names for a message: the first ten, then a count. */
struct names {
    uint32_t count;
    char text[1536];
};

void add_name(struct names *list, const char *name);

const char *show_names(struct names *list);

#endif
