/* names.c - see names.h.
 * SPDX-License-Identifier: MIT */

#include "names.h"

#include <string.h>

void add_name(struct names *list, const char *name) {
    size_t used = strlen(list->text);
    if (list->count++ < 10)
        snprintf(list->text + used, sizeof list->text - used, "%s%.120s", used ? ", " : "", name);
}

const char *show_names(struct names *list) {
    size_t used = strlen(list->text);
    if (list->count > 10)
        snprintf(list->text + used, sizeof list->text - used, " and %u more", list->count - 10);
    return list->text;
}
