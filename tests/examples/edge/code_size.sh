#!/bin/sh
# code_size.sh [COMPILER] - bytes of code and constants in megabyte.c, by what is left out; from the
# repository.
set -eu
cc=${1-cc} object=$(mktemp)
trap 'rm -f "$object"' EXIT
echo "| options | KB |"
echo "|---|--:|"
row() {
    options="${options:+$options }$*"
    # shellcheck disable=SC2086
    $cc -std=c11 $options -c megabyte.c -o "$object"
    size -A "$object" | awk -v options="$options" '/^\.(text|rodata|data)/ { n += $2 }
        END { printf "| `%s` | %.0f |\n", options, n / 1024 }'
}
options='' && row -O2
options='' && row -Os
row -DMEGABYTE_NO_SIMD
row -DMEGABYTE_NO_CODEC
row -DMEGABYTE_NO_THREADS -DMEGABYTE_NO_FILE
