/* mbconvert.h - the whole converter in one translation unit, for tests that look inside; its main
 * is mbconvert_main. Define _GNU_SOURCE before anything is included. */
#ifndef TESTS_MBCONVERT_H
#define TESTS_MBCONVERT_H

#define main mbconvert_main
#include "../tools/checkpoint.c"
#include "../tools/common.c"
#include "../tools/config.c"
#include "../tools/host.c"
#include "../tools/json.c"
#include "../tools/names.c"
#include "../tools/options.c"
#include "../tools/output.c"
#include "../tools/pytorch.c"
#include "../tools/safetensors.c"
/* after the others, whose system headers and macros it must not change */
#include "../tools/families.c"
#include "../tools/mbconvert.c"
#undef main

#endif
