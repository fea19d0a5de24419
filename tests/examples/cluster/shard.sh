#!/bin/sh
# One shard: shard.sh score|compress|decompress FILE
#     makes FILE.score ("bytes bits"), FILE.mbz, or FILE from FILE.mbz, if it is not there already.
# Their names: shard.sh list score|compress|decompress FOLDER
#     always in the same order, without the .mbz.
# MBRUN, MEGABYTE_MODEL: the tool and the model; MBRUN_OPTIONS: its options (-7 --window 8192 ...).
set -eu
verb=$1 file=$2 mbrun=${MBRUN-mbrun}
# -T 1: shards run side by side instead. The options are words.
# shellcheck disable=SC2086
case $verb in
score)
    [ ! -e "$file.score" ] || exit 0
    "$mbrun" score -T 1 ${MBRUN_OPTIONS-} --json "$file" >"$file.json.score"
    sed 's/.*"total": {"bytes": \([0-9]*\),.*"bits": \([0-9.]*\),.*/\1 \2/' "$file.json.score" \
        >"$file.new.score"
    rm "$file.json.score"
    mv "$file.new.score" "$file.score"
    ;;
compress) [ -e "$file.mbz" ] || "$mbrun" compress -q -T 1 ${MBRUN_OPTIONS-} "$file" ;;
decompress) [ -e "$file" ] || "$mbrun" decompress -q -T 1 ${MBRUN_OPTIONS-} "$file.mbz" ;;
list)
    cd "$3"
    for file in *; do
        case $file in
        *.score) continue ;;
        *.mbz) [ "$2" = decompress ] || continue ;;
        *) [ "$2" != decompress ] || continue ;;
        esac
        [ ! -f "$file" ] || printf '%s\n' "${file%.mbz}"
    done | LC_ALL=C sort
    ;;
*) echo "shard.sh: $verb: score, compress, decompress and list are possible" >&2; exit 2 ;;
esac
