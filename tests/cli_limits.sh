#!/bin/sh
# mbrun and what strangers ask for: time (a forged .mbz) and memory (--memory). Run from the
# repository's root, with tools/mbrun and models/text-small.mb there.
set -u
folder=limits
. tests/cli.sh

octal() { printf '\\%03o' "0x$1"; }
# forge BYTES_AS_VARINT: a header that claims so many original bytes, and 16 zeros as their code
forge() {
    { head -c 14 plain.mbz; printf '%b' "$1\\020"; } >header
    sum=$(sha256sum <header | cut -c 1-4)
    printf "$(octal "${sum%??}")$(octal "${sum#??}")" >sum
    { cat header sum; head -c 20 /dev/zero; } >forged.mbz
}

head -c 300 "$data/text.txt" >plain
run 0 "$mbrun" compress -5 plain
forge '\0200\0200\0200\0040' # 2^26
for command in "decompress" "decompress -c" "test" "decompress -v --rm"; do
    run 1 "$mbrun" $command forged.mbz
    says 'over the limit on ratio'
    says 'claim 67108864 bytes, up to [0-9]* \(s\|min\|h\) at [0-9.]* KB/s'
    says '--limit'
    [ ! -s out ] && [ ! -e forged ] && [ -e forged.mbz ] ||
        fail "$command: something was written or removed"
done
"$mbrun" test - <forged.mbz 2>said && fail "a forged file through a pipe"
says 'over the limit on ratio'
run 1 "$mbrun" test --limit 1M forged.mbz
says 'over the limit of 1048576'
run 1 "$mbrun" test --limit 0 forged.mbz # taken at its word: its code is wrong
says damaged
forge '\0200\0200\0002' # 32768: not worth a word
run 1 "$mbrun" test forged.mbz
says damaged
head -c 3000000 /dev/zero >zeros # honest, however much smaller it gets
run 0 "$mbrun" compress zeros
run 0 "$mbrun" decompress -c zeros.mbz
cmp out zeros || fail "zeros"
run 1 "$mbrun" test --limit 2999999 zeros.mbz
run 0 "$mbrun" test --limit 3000000 zeros.mbz
group "what a file may claim"

for command in "generate -n 1" "score plain" "score --mix plain" "compress -f plain" \
    "test plain.mbz" "info" "bench --seconds 0.01"; do
    run 1 "$mbrun" $command --memory 1M
    says 'needs up to [0-9]* MB of memory, more than the 1 MB allowed; --memory [0-9]*M'
done
run 0 "$mbrun" generate -n 1 --memory 64M
run 2 "$mbrun" generate -n 1 --memory x
group "--memory"

cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun and strangers ... ok"
