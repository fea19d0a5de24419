#!/bin/sh
# Single records (log lines, CSV rows, JSON objects), each compressed for itself after the first 4
# KB of its file.
# Run from the repository's root:    sh tests/bench/records.sh FILE[=BEGIN] ...
# BEGIN is what a record begins with; lines if it is missing. Prints a Markdown table of mean
# sizes in bytes.
# MODEL (models/text.mb) and RECORDS (100) may be set. zstd gets a dictionary trained on the
# records in the same
# 4 KB, or the 4 KB themselves where that is too little to train on or comes out smaller; brotli
# has none.
set -eu
model=${MODEL-models/text.mb} records=${RECORDS-100}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${CC-cc} -O2 -pthread tests/bench/records.c megabyte.c -o "$work/records" -lm

sizes() { # what prints one record's code
    total=0
    for r in "$work"/record-*; do total=$((total + $("$@" <"$r" | wc -c))); done
    echo "$total"
}

echo \
    '| file | mean bytes of a record | model | dictionary | dictionary, mixed |' \
    'zstd -19, dictionary | zstd -19 | brotli -q 11 |'
echo '|---|--:|--:|--:|--:|--:|--:|--:|'
for argument; do
    file=${argument%%=*} begin=
    case $argument in *=*) begin=${argument#*=} ;; esac
    rm -rf "$work"/record-* "$work"/sample*
    # shellcheck disable=SC2046
    set -- $("$work/records" "$model" "$file" "$begin" "$records" "$work")
    best=$(sizes zstd -19 --no-check -q -c -D "$work/sample")
    mkdir -p "$work/samples"
    rm -f "$work"/samples/*
    split -l 1 "$work/sample" "$work/samples/"
    if zstd --train -q "$work"/samples/* --maxdict=4096 -o "$work/sample.dict" 2>"$work/log"; then
        trained=$(sizes zstd -19 --no-check -q -c -D "$work/sample.dict")
        if [ "$trained" -lt "$best" ]; then best=$trained; fi
    fi
    plain=$(sizes zstd -19 --no-check -q -c)
    brotli=0
    if command -v brotli >/dev/null; then brotli=$(sizes brotli -q 11 -c); fi
    awk -v name="$(basename "$file")" -v n="$1" -v t="$2" -v a="$3" -v b="$4" -v c="$5" \
        -v z="$best" -v p="$plain" -v k="$brotli" \
            'BEGIN { printf "| %s | %.1f | %.1f | %.1f | **%.1f** | %.1f | %.1f | %s |\n",
        name, t / n, a / n, b / n, c / n, z / n, p / n, k ? sprintf("%.1f", k / n) : "-" }'
done
