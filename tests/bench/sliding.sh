#!/bin/sh
# How best to slide past the context? Builds a patched copy of the library and prints bits per byte
# of TEXT for each way. Needs patch(1), takes minutes; from the repository's root:
#     sh tests/bench/sliding.sh TEXT [MODEL [BYTES]]
set -eu
text=$1 model=${2:-models/text-small.mb} bytes=${3:-400000}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# Rings were measured with float keys and values, which numerics 1 had everywhere: from this
# clone's history.
for file in megabyte.h megabyte.c; do git show 9bba551:$file > "$dir/$file"; done
patch -s -d "$dir" megabyte.c < tests/bench/sliding.patch
cat > "$dir/main.c" <<'C'
#include "megabyte.h"
#include <stdio.h>
#include <stdlib.h>
int RING;
double KEEP;
int main(int argc, char **argv) { /* TEXT MODEL BYTES RING KEEP CONTEXT */
    megabyte_model *model;
    megabyte_engine *engine;
    megabyte_stream *stream;
    size_t n = argc == 7 ? (size_t)atol(argv[3]) : 0;
    char *text = malloc(n + 1);
    FILE *in = n ? fopen(argv[1], "rb") : NULL;
    if (!in || megabyte_model_open(&model, argv[2], NULL, NULL)) return 1;
    RING = atoi(argv[4]);
    KEEP = atof(argv[5]);
    /* a ring has no causal mask: row by row */
    megabyte_engine_options options = { 1, RING ? 1 : 0, MEGABYTE_ISA_AUTO };
    if (megabyte_engine_create(&engine, model, &options, NULL, NULL)) return 1;
    megabyte_stream_options on = { engine, (uint64_t)atol(argv[6]) };
    if (megabyte_stream_create(&stream, model, &on, NULL, NULL)) return 1;
    double bits = 0;
    n = fread(text, 1, n, in);
    megabyte_stream_score(stream, text, n, &bits, NULL);
    printf("context %s  %s  %.2f  %.5f bits/byte\n", argv[6], RING ? "ring" : "keep",
           RING ? (double)RING : KEEP, bits / (double)n);
    return 0;
}
C
${CC:-cc} -O2 "$dir/main.c" "$dir/megabyte.c" -o "$dir/sliding" -lm -pthread
for context in 8192 2048; do
    for keep in 0.25 0.5 0.75; do "$dir/sliding" "$text" "$model" "$bytes" 0 $keep $context; done
    for ring in 1 2; do "$dir/sliding" "$text" "$model" "$bytes" $ring 0.5 $context; done
done
