#!/bin/sh
# Bytes per second natively and as WebAssembly under node, one thread, builds in turn, the best of
# three rounds: sh tests/bench/wasm.sh [MODEL.mb [TEXT]]. Needs what `make web` needs.
set -eu
model=${1-models/text-small.mb} text=${2-models/FORMAT.md} dir=tests/tmp
mkdir -p $dir
flags='-std=c11 -O3 tests/bench/wasm.c megabyte.c'
# shellcheck disable=SC2086
{
    ${CC-cc} $flags -o $dir/bench-native -lm -pthread
    clang --target=wasm32-wasi $flags -o $dir/bench-plain.wasm -lm
    clang --target=wasm32-wasi -msimd128 $flags -o $dir/bench-simd.wasm -lm
}
node="node tests/wasi.mjs"
for round in $(seq ${ROUNDS-3}); do
    $dir/bench-native auto $model "$text" | sed 's/ /|native, as it is|/'
    $dir/bench-native plain $model "$text" | sed 's/ /|native, plain C|/'
    $node $dir/bench-simd.wasm simd128 $model "$text" | sed 's/ /|wasm, SIMD128|/'
    $node $dir/bench-plain.wasm plain $model "$text" | sed 's/ /|wasm, plain C|/'
done | awk -F'|' '
    !($2 in seen) { seen[$2] = ++builds; build[builds] = $2 }
    !($3 in found) { found[$3] = ++whats; what[whats] = $3 }
    $1 > best[$2, $3] { best[$2, $3] = $1 }
    END {
        printf "| bytes/s |"
        for (j = 1; j <= whats; j++) printf " %s |", what[j]
        printf "\n|---|"
        for (j = 1; j <= whats; j++) printf "--:|"
        for (i = 1; i <= builds; i++) {
            printf "\n| %s |", build[i]
            for (j = 1; j <= whats; j++) printf " %d |", best[build[i], what[j]]
        }
        printf "\n"
    }'
