#!/bin/sh
# A million bytes in one context: time per byte and memory against context length, with a model of
# random weights.
# Run from the repository's root:
#     sh tests/bench/context.sh [THREADS [NAME=NUMBER ...]]
# THREADS: 2. The NAMEs are sizes of the model, see random_model.c. Prints a Markdown table and
# writes tests/bench/context.svg; takes minutes, and 900 MB of memory while it checks loaded copies.
set -eu
threads=${1-2}
[ $# = 0 ] || shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for program in random_model context; do
    ${CC-cc} -std=c11 -O2 -pthread tests/bench/$program.c -o "$work/$program" -lm
done
"$work/random_model" "$work/random.mb" "$@"
"$work/context" "$work/random.mb" "$threads" tests/bench/context.svg
