#!/bin/sh
# Single records (log lines, CSV rows, JSON objects), each compressed for itself after the first
# bytes of its file, which are the dictionary.
# Run from the repository's root:    sh tests/bench/records.sh FILE[=BEGIN] ...
# BEGIN is what a record begins with; lines if it is missing. Prints a Markdown table of mean
# sizes in bytes, and of the milliseconds to encode one.
# MODEL (models/text.mb), RECORDS (100), DICTIONARIES (4096 8192 65536, the most) and ROOM (512) may
# be set.
# zstd gets a dictionary trained on the records in the same bytes, or these themselves where that is
# too little to train on or comes out smaller; brotli has none.
set -eu
model=${MODEL-models/text.mb} records=${RECORDS-100} dictionaries=${DICTIONARIES-4096 8192 65536}
command -v zstd >/dev/null || { echo "records.sh: zstd is not installed" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${CC-cc} -O2 -pthread tests/bench/records.c megabyte.c -o "$work/records" -lm

sizes() { # what prints one record's code
    total=0
    for r in "$work"/record-*; do total=$((total + $("$@" <"$r" | wc -c))); done
    echo "$total"
}

row() { # FILE BEGIN DICTIONARY
    file=$1 most=$3
    rm -rf "$work"/record-* "$work"/sample*
    # shellcheck disable=SC2046
    set -- $("$work/records" "$model" "$file" "$2" "$records" "$work" "$most" \
        "${ROOM-512}")
    best=$(sizes zstd -19 --no-check -q -c -D "$work/sample")
    mkdir -p "$work/samples"
    rm -f "$work"/samples/*
    split -a 4 -l 1 "$work/sample" "$work/samples/"
    if zstd --train -q -r "$work/samples" --maxdict="$most" -o "$work/sample.dict" \
        2>"$work/log"; then
        trained=$(sizes zstd -19 --no-check -q -c -D "$work/sample.dict")
        if [ "$trained" -lt "$best" ]; then best=$trained; fi
    fi
    plain=$(sizes zstd -19 --no-check -q -c)
    brotli=0
    if command -v brotli >/dev/null; then brotli=$(sizes brotli -q 11 -c); fi
    echo "$*" | awk -v name="$(basename "$file")" -v d="$most" -v z="$best" -v p="$plain" \
        -v k="$brotli" '{
        printf "| %s | %.1f | %d KB | %.1f | %.1f | %.1f | %.1f | ",
            name, $2 / $1, d / 1024, $3 / $1, $5 / $1, $7 / $1, $9 / $1
        printf "%.1f | %.1f | %s | %.2f | %.1f |\n",
            z / $1, p / $1, k ? sprintf("%.1f", k / $1) : "-", $8, $10 }'
}

echo '| file | a record | dict. | no dict. | model | contexts | both |' \
    'zstd, dict. | zstd | brotli | ms, contexts | ms, both |'
echo '|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|'
for argument; do
    begin=
    case $argument in *=*) begin=${argument#*=} ;; esac
    for n in $dictionaries; do row "${argument%%=*}" "$begin" "$n"; done
done
