#!/bin/bash
# Builds what OSS-Fuzz and ClusterFuzzLite run: $OUT/fuzz_NAME, and its seeds in
# $OUT/fuzz_NAME_seed_corpus.zip. They set CC, CFLAGS, CXX, CXXFLAGS, LIB_FUZZING_ENGINE, OUT and
# SRC. By hand, from the repository's root, with clang, clang++ and zip:
#
#     CC=clang CXX=clang++ CFLAGS='-O1 -g -fsanitize=address,fuzzer-no-link' \
#         CXXFLAGS="$CFLAGS" LIB_FUZZING_ENGINE=-fsanitize=fuzzer OUT=/tmp/out SRC=$PWD/.. \
#         bash tests/oss-fuzz/build.sh [NAME...]
set -eu
cd "$(dirname "$0")"
[ -f megabyte.c ] || cd "$SRC/megabyte" 2>/dev/null || cd ../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$OUT" tests/tmp
[ $# -gt 0 ] || set -- $(ls tests/fuzz_*.c | sed 's|tests/fuzz_||; s|\.c$||' | grep -v '^sizes$')
for name; do
    $CC $CFLAGS -std=c11 -c tests/fuzz_$name.c -o "$work/$name.o"
    $CXX ${CXXFLAGS:-$CFLAGS} "$work/$name.o" -o "$OUT/fuzz_$name" $LIB_FUZZING_ENGINE -lm -pthread
    # another program, without the engine's flags, makes the seeds
    $CC -O1 -std=c11 -DSTANDALONE tests/fuzz_$name.c -o "$work/replay" -lm -pthread
    mkdir "$work/$name"
    "$work/replay" 0 1 "$work/$name"
    [ ! -d tests/data/fuzz/$name ] || cp tests/data/fuzz/$name/* "$work/$name"
    find "$work/$name" -maxdepth 1 -type f | zip -jq "$OUT/fuzz_${name}_seed_corpus.zip" -@
done
