#!/bin/sh
# Files of more than 4 GB, sparse ones, where sizes have 32 bits: what cannot hold them says so and
# leaves nothing behind, what reads a part of them works. Run from the repository's root with the
# tools built for 32 bits: make CC=i686-linux-gnu-gcc LDFLAGS=-static
set -u
folder=large
. tests/cli.sh
trap 'rm -f "$dir"/big* "$dir"/medium.mb' EXIT
truncate -s 5G big && truncate -s 3G medium.mb || fail "no sparse files here"
for suffix in .mb .safetensors .mbz; do ln big big$suffix; done
{ printf 'P5\n70000 70000\n255\n'; cat "$data/text.txt"; } >big.ppm
truncate -s 4900000017 big.ppm
refused() { # TEXT COMMAND...
    text=$1
    shift
    run 1 timeout 20 "$@"
    says "$text"
    ! ls -A | grep -e '^\.mb' -e '^new' || fail "left behind, see above"
}

for model in big.mb medium.mb; do
    for how in "generate -n 4" "generate --mmap -n 4" info "compress -7 -o new"; do
        refused "$model: [35][0-9]* bytes cannot be a megabyte model" "$mbrun" $how -m $model
    done
done
group "models"

refused 'big: 5368709120 bytes are too many' "$mbrun" generate -f big
refused 'big: 5368709120 bytes are too many' "$mbrun" compress --dictionary big -o new small
refused 'big.mbz: this is not a .mbz file' "$mbrun" decompress big.mbz -o new
refused 'big.mbz: this is not a .mbz file' "$mbrun" list big.mbz
refused 'too large for a picture' "$mbrun" image pack big.ppm -o new.mbi
refused 'neither a safetensors file nor' "$convert" big.safetensors -o new.mb
refused 'not a configuration' "$convert" "$data/lucid-3stage.safetensors" --config big -o new.mb
run 0 "$mbrun" score --limit 100 big
grep -q '^ *100 ' out || fail "score --limit"
# how far compressing has come after some seconds does not matter
run 124 timeout 4 "$mbrun" compress -1 -q big -o new.mbz
! ls -A | grep -e '^\.mb' -e '^new' || fail "left behind, see above"
group "other files"
echo "files of 5 GB ... ok"
