#!/bin/sh
# WebAssembly: the same bits with SIMD128 and without, golden .mbz and .mbi files, under node; a
# build without a libc's headers, and which functions it needs. Run from the repository's root,
# after make test (which makes the models). Debian: clang lld wasi-libc libclang-rt-14-dev-wasm32
# nodejs.
set -eu
dir=tests/tmp
mkdir -p $dir
fail() { echo "FAILED: $*"; exit 1; }
group() { printf '%s ... ok\n' "$1"; }
node="node tests/wasi.mjs"

# malloc and free: by what is given no allocator
few='free malloc memchr memcmp memcpy memset strcmp strlen vsnprintf'
no='-DMEGABYTE_NO_THREADS -DMEGABYTE_NO_FILE -DMEGABYTE_NO_SIMD'
alone() { # symbols, options ...
    expected=$1
    shift
    clang --target=wasm32-unknown-unknown -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion \
        -Werror -O1 "$@" -c megabyte.c -o $dir/alone.o || fail "$* does not build"
    needs=$(llvm-nm -u $dir/alone.o | sed 's/.* U //; /^__stack_pointer$/d' | LC_ALL=C sort |
        tr '\n' ' ')
    [ "$needs" = "$expected " ] || fail "$* needs $needs"
    group "without a libc's headers, $*: $needs"
}
# shellcheck disable=SC2086
alone "$few" $no -DMEGABYTE_NO_CODEC -ffreestanding
alone "free malloc memchr memcmp memcpy memmove memset snprintf strcmp strlen vsnprintf" \
    -DMEGABYTE_NO_FILE -msimd128

target='--target=wasm32-wasi'
RUNNER=$node COMPILERS=clang LEVELS="$target -O3;$target -msimd128 -O3" ISAS=simd128 \
    THREADS='' sh tests/same_bits.sh
for ways in '' '--chunk 50 --batch 7 --beside 5'; do
    # shellcheck disable=SC2086
    $node $dir/same_bits-2 $ways tests/data/text.txt $dir/bits-three-q[48].mb
done >$dir/wasm-bits
# logits', compressed bytes' and ensembles' number, of two models
[ "$(sort -u $dir/wasm-bits | wc -l)" = 6 ] || fail "other bits: $(cat $dir/wasm-bits)"

[ -f $dir/codec-format-tiny-q8.mb ] || fail "make run-test_codec_format first: it makes the models"
clang $target -std=c11 -msimd128 -O2 tests/test_codec_format.c megabyte.c -o $dir/format.wasm -lm
$node $dir/format.wasm golden
for simd in -mno-simd128 -msimd128; do
    clang $target -std=c11 $simd -O2 tests/test_image.c -o $dir/image.wasm -lm
    $node $dir/image.wasm pinned
done
