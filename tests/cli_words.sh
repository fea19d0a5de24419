#!/bin/sh
# The words of the command lines: help, subcommands and options that are misspelt, levels, sizes,
# names of models, seeds, the letters of gzip and zstd. Run from the repository's root, with the
# tools and models/text-small.mb there.
set -u
folder=words
. tests/cli.sh
tells() { grep -q -- "$1" out || fail "the output has no '$1': $(head -c 600 out)"; }

# -------------------------------------------------------------------------------------------- help
for tool in "$mbrun" "$convert"; do
    name=${tool##*/}
    run 2 "$tool"
    says "^Usage: $name "
    for word in --help -h; do
        run 0 "$tool" $word
        tells "^Usage: $name "
    done
    run 0 "$tool" --version
    mv out version
    run 0 "$tool" -V
    cmp out version || fail "-V is not --version"
done
for words in score compress "image pack" image; do
    run 0 "$mbrun" $words --help
    mv out help
    run 0 "$mbrun" help $words
    cmp out help || fail "help $words is not $words --help"
done
run 0 "$mbrun" help
tells '^  mbrun compress  *[a-z]'
tells 'MEGABYTE_MODEL'
run 0 "$mbrun" score --help
tells 'Without -m: $MEGABYTE_MODEL, else text'
group "help"

# -------------------------------------------------------------------------------------- misspelt
meant() { # WORDS... : what was meant
    for what; do :; done
    n=$# words=
    for word; do
        n=$((n - 1))
        [ $n = 0 ] || words="$words $word"
    done
    # shellcheck disable=SC2086
    run 2 "$mbrun" $words
    says "did you mean $what?"
}
meant compres compress
meant decmopress decompress
meant scroe score
meant gen generate
meant help lits list
meant --verison --version
meant image pcak pack
meant compress --verfy --verify
meant score -strided --strided
meant generate --tempreature=2 --temperature
meant bench --secnods 1 --seconds
run 2 "$convert" --quanti q8
says 'did you mean --quant?'
for words in qqqqqq --qqqqqq "score --qqqqqq"; do
    run 2 "$mbrun" $words
    ! grep -q 'did you mean' said || fail "$words: $(cat said)"
done
echo text >some-file
run 2 "$mbrun" some-file
says 'is a file'
group "misspelt"

# ----------------------------------------------------------------------------- levels, sizes, names
for level in -12 -19 -0 -v22; do
    run 2 "$mbrun" compress $level some-file
    says 'levels are 1 to 9'
done
[ ! -e some-file.mbz ] || fail "written with no level"
head -c 3000 "$data/text.txt" >text
scored() { # SIZE BYTES
    run 0 "$mbrun" score --limit "$1" text
    tells "^ *$2 "
}
scored 1.5K 1536
scored 0.1k 102
scored 0.00125M 1310
for size in 1.5 .5K 1.K K 1.5KB 1,5K 1.5.1K -1K 17179869184G; do
    run 2 "$mbrun" score --limit=$size text
    says 'is not a whole number'
done
run 1 "$mbrun" info -m nosuch
says 'no such model; there are .*text-small'
run 1 "$mbrun" info -m text-smal
says 'did you mean text-small?'
for words in "list -T 1" "list --isa auto" "list --memory 1G" "image list -T 1"; do
    run 2 "$mbrun" $words text
    says 'no such option'
done
group "levels, sizes, models"

# ------------------------------------------------------------------------------------------- seeds
write() { run 0 "$mbrun" generate -n 60 -t 1 --top-p 1 "$@"; }
write -v
seed=$(sed -n 's/^seed //p' said)
cp out first
write --seed "$seed"
cmp out first || fail "seed $seed again: other bytes"
write
! cmp -s out first || fail "two runs without a seed write the same"
write --seed random --json
tells '"seed": [0-9]*,'
run 2 "$mbrun" generate --seed 1.5
group "seeds"

# ------------------------------------------------------------------------------- whole characters
# with a temperature of 1000 any byte comes: some outputs would end within a character
cut=0 seed=0
while [ $seed -lt 40 ]; do
    seed=$((seed + 1))
    run 0 "$mbrun" generate -t 1000 --top-p 1 -n 24 --seed $seed
    cp out whole
    run 0 "$mbrun" generate -t 1000 --top-p 1 --bytes 24 --seed $seed
    [ "$(wc -c <out)" = 24 ] || fail "--bytes 24 writes $(wc -c <out)"
    n=$(wc -c <whole)
    [ "$n" -le 24 ] && [ "$n" -ge 21 ] || fail "-n 24 writes $n"
    head -c "$n" out | cmp - whole || fail "-n and --bytes write different bytes"
    [ "$n" = 24 ] || cut=$((cut + 1))
done
[ $cut -gt 0 ] || fail "nothing ended within a character"
run 2 "$mbrun" generate -n 5 --bytes 5
group "whole characters ($cut of 40 cut)"

# ------------------------------------------------------------------------------------- interactive
talk() { "$mbrun" generate -i -n 30 -t 0 --seed 1 "$@" 2>said || fail "-i exits with $?"; }
printf 'The old man\n\nThe sea' | talk >out
"$mbrun" generate -n 60 -t 0 -p 'The old man' --no-echo | tr -d '\n' >plain
tr -d '\n' <out | head -c "$(wc -c <plain)" | cmp - plain || fail "two lines: $(cat out)"
[ "$(tr -d '\n' <out | wc -c)" -ge 85 ] || fail "the third answer is short"
printf 'x\n' | talk -p 'Once' >out
grep -q '^Once' out || fail "-i -p leaves the prompt out"
run 2 "$mbrun" generate -i --json
group "generate -i"

# --------------------------------------------------------------------------------- other programs'
run 0 "$mbrun" --compress -3v text
says '^    \[##* *\] [0-9.]*% of the original$'
for words in "-d -c" -dc "--decompress -c" "compress -d -c" "compress -3 -dc"; do
    run 0 "$mbrun" $words text.mbz
    cmp out text || fail "$words: other bytes"
done
run 0 "$mbrun" -t text.mbz
run 0 "$mbrun" -tv text.mbz
says OK
run 0 "$mbrun" -l text.mbz
tells 'text.mbz'
run 1 "$mbrun" -t text
if tar --version 2>/dev/null | grep -q GNU; then
    PATH=${mbrun%/*}:$PATH tar -I 'mbrun compress -3' -cf text.tar.mbz text some-file
    PATH=${mbrun%/*}:$PATH tar -I 'mbrun compress -3' -xOf text.tar.mbz text | cmp - text ||
        fail "tar -I"
fi
group "-d, -t, -l"

# ------------------------------------------------------------------------------------------ folders
mkdir -p tree/a/b tree/c
cp text tree/a/one
echo two >tree/a/b/two
echo three >tree/c/three
ln -s ../a tree/c/link
ln -s one tree/a/link
run 1 "$mbrun" compress -1 tree
run 0 "$mbrun" compress -1 -r tree some-file
[ "$(find tree -name '*.mbz' | sort | tr '\n' ' ')" = \
    "tree/a/b/two.mbz tree/a/one.mbz tree/c/three.mbz " ] || fail "$(find tree)"
[ -e some-file.mbz ] || fail "some-file.mbz is missing"
run 0 "$mbrun" list -r tree
[ "$(grep -c 'mbz$' out)" = 3 ] || fail "list -r: $(cat out)"
tells ' total$'
run 0 "$mbrun" test -r tree/
rm tree/a/one tree/a/b/two tree/c/three
run 0 "$mbrun" -dr tree
cmp tree/a/one text
echo two | cmp - tree/a/b/two || fail "decompress -r"
run 1 "$mbrun" compress -1 -r tree # all are there
says 'already exists'
printf x | dd of=tree/a/one.mbz bs=1 seek=40 conv=notrunc 2>/dev/null
run 1 "$mbrun" test -rv tree
says 'OK, '
run 2 "$mbrun" compress -r -o all.mbz tree
run 2 "$mbrun" compress -r
group "-r"

cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun's words ... ok"
