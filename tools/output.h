/* output.h - the one way in which the tools write files: nothing that was there is touched before
 * all of its replacement is on disk.
 * SPDX-License-Identifier: MIT */
#ifndef OUTPUT_H
#define OUTPUT_H

#include "host.h"

/* A regular file is written under a temporary name in its folder, private until it is complete,
 * and then synced and renamed. What exists and is not a regular file (a device, a pipe) is written
 * directly. Functions return 1, or 0 with the reason in `why`. */
typedef struct output {
    char *path; /* of the file in the end; NULL: nothing was named */
    char *temporary; /* NULL: written directly, or not created yet */
    int file; /* -1: not open */
    int may_replace; /* an existing regular file */
    int is_saved; /* a regular file made here, complete, synced and closed */
    char why[256];
} output;

/* Decides where the output goes and opens it if it is a device or a pipe; creates nothing.
 *   follow     through a symbolic link to what it means
 *   inputs     [n_inputs] what is read: refused as the output, also under another name */
int name_output(output *o, const char *path, int may_replace, int follow, const struct stat *inputs,
                size_t n_inputs);
int create_output(output *o); /* the temporary file; removed if the program is killed */
int write_output(output *o, const void *data, size_t n); /* 0 with *why == 0: interrupted */

/* Keeps the output if `good`, else removes it and leaves `why` as it is. Owner, mode and times are
 * taken from `like`, if that is a regular file; NULL: as any new file. */
int finish_output(output *o, int good, const struct stat *like);
void free_output(output *o);

#endif
