#!/bin/sh
# mbrun compress, decompress, test, list: files, pipes, options, exit statuses, what is left
# behind when something goes wrong. Run from the repository's root, with tools/mbrun and
# models/text-small.mb there. CODEC_FILES: further files for a round trip each (.ci/run gives
# large ones).
set -u
folder=cli
. tests/cli.sh
absent() { for f; do [ ! -e "$f" ] || fail "$f is there"; done; }
nothing_else() { # no temporary file stays
    others=$(ls -A | grep -v \
        -E '^(in|out|said|list)|^(text|back|a|b|zeros|noise|empty|byte|jpeg)(\.|$)')
    [ -z "$others" ] || fail "left behind: $others"
}

head -c 3000 "$data/text.txt" >text
head -c 1 text >byte
: >empty
head -c 100000 /dev/zero >zeros
head -c 5000 /dev/urandom >noise
printf '\377\330\377\340\0\020JFIF\0\001' >jpeg
head -c 3000 /dev/urandom >>jpeg

# ------------------------------------------------------------------------------------- round trips
for f in text byte empty zeros noise jpeg; do
    run 0 "$mbrun" compress "$f"
    [ -f "$f" ] && [ -f "$f.mbz" ] || fail "$f: the input is gone, or no output"
    mv "$f" in
    run 0 "$mbrun" test "$f.mbz"
    absent "$f"
    run 0 "$mbrun" decompress "$f.mbz"
    cmp "$f" in || fail "$f: other bytes"
    [ -f "$f.mbz" ] || fail "$f.mbz is gone"
    [ "$(wc -c <"$f.mbz")" -le $(($(wc -c <in) * 20010 / 20000 + 32)) ] ||
        fail "$f grows to $(wc -c <"$f.mbz") bytes"
done
[ "$(wc -c <text.mbz)" -lt 1200 ] || fail "3000 bytes of text become $(wc -c <text.mbz)"
[ "$(wc -c <zeros.mbz)" -lt 80 ] || fail "zeros become $(wc -c <zeros.mbz) bytes"
nothing_else
group "files there and back"

"$mbrun" compress <text >a.mbz 2>said || fail "from standard input"
"$mbrun" decompress <a.mbz 2>said | cmp - text || fail "through pipes"
cat text | "$mbrun" compress - 2>said | "$mbrun" decompress - 2>said | cmp - text ||
    fail "through pipes, -"
run 0 "$mbrun" compress -c text
"$mbrun" decompress -c <out 2>said | cmp - text || fail "-c"
cat text.mbz zeros.mbz text.mbz >b.mbz
cat text zeros text >b
"$mbrun" decompress -c b.mbz 2>said | cmp - b || fail "concatenated"
head -c 400 text | "$mbrun" compress -m "${MEGABYTE_MODEL%-small.mb}.mb" >b.mbz 2>said ||
    fail "another model"
cat text.mbz b.mbz text.mbz >a.mbz
{ cat text; head -c 400 text; cat text; } >b
run 0 "$mbrun" decompress -c a.mbz
cmp out b || fail "concatenated files of two models"
cat a.mbz | "$mbrun" test -v - 2>said || fail "concatenated files of two models, by a pipe"
run 1 "$mbrun" decompress -c -m "$MEGABYTE_MODEL" a.mbz
says 'model'
run 0 "$mbrun" compress -o b.other text -f
run 0 "$mbrun" decompress -o back b.other -f
cmp back text || fail "-o"
rm b b.mbz b.other a.mbz
"$mbrun" compress -c -S 3 --verify zeros text 2>said >a.mbz || fail "two files to standard output"
cat zeros text >in
"$mbrun" decompress -c a.mbz 2>said | cmp - in || fail "two files to standard output"
run 0 "$mbrun" compress -f -B 1K --dictionary noise text
run 1 "$mbrun" decompress -f text.mbz
run 0 "$mbrun" decompress -c --dictionary noise text.mbz
cmp out text || fail "--dictionary"
nothing_else
group "pipes, -c, -o, --dictionary, concatenation"

# ------------------------------------------------------------------------------------------ levels
method() { # LEVEL METHOD: of text's blocks, as `list` tells
    run 0 "$mbrun" list --json text.mbz
    grep -q "\"$2\": [1-9]" out || fail "-$1: no block is $2: $(cat out)"
    run 0 "$mbrun" list text.mbz
    head -n 1 out | grep -q "$2" || fail "list has no column $2: $(head -n 1 out)"
}
for case in 1:context-mixing 3:context-mixing 5:model 7:mixed; do
    level=${case%:*}
    if [ "$level" -lt 5 ]; then cp "$data/text.txt" text;
        else head -c 2000 "$data/text.txt" >text; fi
    run 0 "$mbrun" compress -f -v "-$level" text
    says "${case#*:}"
    method "$level" "${case#*:}"
    run 0 "$mbrun" test -v text.mbz
    run 0 "$mbrun" decompress -c text.mbz
    cmp out text || fail "-$level: other bytes"
    [ "$(wc -c <text.mbz)" -lt $(($(wc -c <text) * 3 / 5)) ] ||
        fail "-$level: $(wc -c <text.mbz) bytes"
    cp text.mbz a.mbz
    run 0 "$mbrun" compress -f --level "$level" -T 2 --verify text
    cmp text.mbz a.mbz || fail "--level $level, -T 2 and --verify: other bytes than with -$level"
    cat text.mbz >>b.mbz
    cat text >>b
done
"$mbrun" decompress -c b.mbz 2>said | cmp - b || fail "a file of all levels"
rm b b.mbz
head -c 3000 "$data/text.txt" >text
for level in 1 3 5 7; do # the end of the text, primed with its beginning and more
    tail -c 1500 text >a
    run 0 "$mbrun" compress -f "-$level" a
    plain=$(wc -c <a.mbz)
    run 0 "$mbrun" compress -f "-$level" --dictionary text a
    [ "$level" = 5 ] || [ "$(wc -c <a.mbz)" -lt $((plain / 3)) ] ||
        fail "-$level: $plain bytes, primed $(wc -c <a.mbz)"
    run 1 "$mbrun" test a.mbz
    run 1 "$mbrun" test --dictionary byte a.mbz
    run 0 "$mbrun" test --dictionary text a.mbz
    run 0 "$mbrun" decompress -c --dictionary text a.mbz
    cmp out a || fail "-$level --dictionary: other bytes"
done
# Levels 1 to 4 need no model, in a place where there is none; any model decodes what they write.
head -c 700 "$data/text.txt" >b
run 0 "$mbrun" compress -f -7 b
mkdir out.d
cp "$mbrun" out.d/mbrun
alone() { expected=$1; shift; run "$expected" env MEGABYTE_MODEL="" out.d/mbrun "$@"; }
for level in 1 4; do
    for options in '' '--dictionary b' '-B 500 --verify -T 2 --isa plain'; do
        alone 0 compress -f -v -$level $options text
        cp text.mbz a.mbz
        case $options in --dict*) given=$options ;; *) given= ;; esac
        alone 0 test $given a.mbz
        alone 0 decompress -v -c -T 2 $given a.mbz
        cmp out text || fail "-$level $options, no model: other bytes"
        alone 0 list a.mbz
        grep -q ' 2\.[0-9]*d* *none ' out || fail "list: $(cat out)"
        alone 0 list --json a.mbz
        grep -q '"format_version": 2.*"model_id": null, "model": null' out ||
            fail "list: $(cat out)"
        run 0 "$mbrun" compress -f -$level $options text
        cmp text.mbz a.mbz || fail "-$level $options: with a model other bytes"
        run 0 "$mbrun" test -m "$MEGABYTE_MODEL" $given a.mbz
    done
done
for level in 2 7; do # what the bytes are told to be; they may be anything
    run 0 "$mbrun" compress -f -$level --as mulaw b
    run 0 "$mbrun" decompress -c b.mbz
    cmp out b || fail "-$level --as mulaw: other bytes"
    run 0 "$mbrun" list b.mbz
    grep -q " $((level < 5 ? 3 : 6))\.[0-9]* " out || fail "list: $(cat out)"
done
run 2 "$mbrun" compress --as alaw b
says 'knows only mulaw'
run 2 "$mbrun" compress --as mulaw --dictionary text b
says 'not together'
run 0 "$mbrun" compress -f -7 b
alone 1 compress -f text
says 'levels -1 to -4 need none'
alone 0 compress --against -2 text
grep -q 'model: none' out || fail "--against: $(cat out)"
alone 1 test b.mbz
says 'no model was found'
alone 0 compress -f -1 text
cat text.mbz b.mbz text.mbz >a.mbz # as far as it can, without the model of one member
alone 1 decompress -c a.mbz
says 'no model was found'
cmp out text || fail "members: $(wc -c <out) bytes before the one that needs a model"
cat text b text >a
for option in '' "-m $MEGABYTE_MODEL" '-T 2'; do
    run 0 "$mbrun" decompress -c $option a.mbz
    cmp out a || fail "members with and without a model, $option"
    cat a.mbz | "$mbrun" decompress $option 2>said | cmp - a || fail "the same, by a pipe"
done
run 0 "$mbrun" list --json a.mbz
grep -q '"members": 3.*"several_models": false, "model_id": "[0-9a-f]*", "model": "text-small"' \
    out || fail "list: $(cat out)"
rm -r out.d b b.mbz
run 2 "$mbrun" compress -0 text
run 2 "$mbrun" compress --level 10 text
rm a a.mbz text.mbz
nothing_else
group "levels 1, 3, 5, 7, primed, too; 1 to 4 without a model"

run 0 "$mbrun" compress -o b.one.mbz text
for n in 2 4; do
    run 0 "$mbrun" compress --verify -v --ensemble $n -o b.mbz -f text
    [ "$(wc -c <b.mbz)" -lt "$(wc -c <b.one.mbz)" ] || fail "--ensemble $n: not smaller"
    run 0 "$mbrun" decompress -c b.mbz
    cmp out text || fail "--ensemble $n: other bytes"
    "$mbrun" list --json b.mbz | grep -q "\"ensemble\": $n,.*\"format_version\": 5" ||
        fail "--ensemble $n: list"
    cat b.one.mbz b.mbz >a.mbz
    cat text text >b
    "$mbrun" decompress -c a.mbz 2>said | cmp - b || fail "concatenated with an ensemble"
    cat b.mbz | "$mbrun" decompress 2>said | cmp - text || fail "an ensemble by a pipe"
done
for o in "--ensemble 3" "--ensemble 8" "--ensemble 2 -3" "--ensemble 2 --dictionary text"; do
    run 2 "$mbrun" compress $o text
    says ensemble
done
rm -f a.mbz b b.mbz b.one.mbz
nothing_else
group "--ensemble 2 and 4"

# ------------------------------------------------------------------------- what is kept, and not
rm -f ./*.mbz back
chmod 640 text
touch -d '2001-02-03 04:05:06' text
run 0 "$mbrun" compress text
[ "$(stat -c '%a %Y' text.mbz)" = "$(stat -c '%a %Y' text)" ] ||
    fail "mode and time: $(stat -c '%a %y' text.mbz)"
cp text in
run 0 "$mbrun" decompress -f text.mbz
[ "$(stat -c '%a %y' text)" = "$(stat -c '%a %y' text.mbz)" ] ||
    fail "mode and time, decompressed: $(stat -c '%a %y' text)"
run 1 "$mbrun" compress text
says text.mbz
echo other >text
run 1 "$mbrun" decompress text.mbz
[ "$(cat text)" = other ] || fail "overwritten without -f"
run 0 "$mbrun" decompress -f text.mbz
cmp text in || fail "not overwritten with -f"
run 0 "$mbrun" compress -f text
rm text
run 0 "$mbrun" decompress --rm text.mbz
absent text.mbz
cmp text in || fail "decompress --rm"
run 0 "$mbrun" compress --rm text
absent text
run 0 "$mbrun" decompress text.mbz
cmp text in || fail "compress --rm"
nothing_else
group "mode, time, -f, --rm"

# ------------------------------------------------------------------------------------------ damage
size=$(wc -c <text.mbz)
for cut in 3 10 20 500 $((size - 1)); do
    head -c "$cut" text.mbz >a.mbz
    rm -f a
    run 1 "$mbrun" decompress a.mbz
    absent a
    run 1 "$mbrun" test a.mbz
    run 1 "$mbrun" decompress --rm a.mbz
    [ -f a.mbz ] || fail "--rm removes a truncated file"
done
cp text.mbz a.mbz
printf '\0' | dd of=a.mbz bs=1 seek=300 conv=notrunc 2>/dev/null
printf '\1' | dd of=a.mbz bs=1 seek=301 conv=notrunc 2>/dev/null
run 1 "$mbrun" test a.mbz
says a.mbz
run 1 "$mbrun" decompress a.mbz
absent a
cat text.mbz noise >a.mbz
run 1 "$mbrun" test a.mbz
says offset
cp noise a.mbz
run 1 "$mbrun" decompress a.mbz
says a.mbz
absent a
run 1 "$mbrun" decompress missing.mbz
says missing
cp text.mbz a.mbz
run 1 "$mbrun" test a.mbz missing.mbz
run 1 "$mbrun" decompress missing.mbz a.mbz # the others get their turn
cmp a text || fail "a file after one that fails"
rm -f a a.mbz
nothing_else
group "truncated, damaged, missing files"

run 0 "$mbrun" list text.mbz
cp out list
grep -q 3000 list || fail "list: no size"
run 0 "$mbrun" list --json text.mbz
run 1 "$mbrun" list noise
run 2 "$mbrun" compress --no-such-option text
run 2 "$mbrun" compress -S 100000 text
run 2 "$mbrun" decompress -o a -c text.mbz
run 2 "$mbrun" compress -o a text noise
absent a
group "list, exit statuses"

other=$(ls "$OLDPWD"/tests/tmp/codec-format-three-f32.mb 2>/dev/null)
if [ -n "$other" ]; then
    "$mbrun" compress -m "$other" -c text >a.mbz 2>said || fail "with another model"
    run 1 "$mbrun" decompress -m "$MEGABYTE_MODEL" a.mbz
    for model in "$other" "$MEGABYTE_MODEL"; do
        says "$("$mbrun" info -m "$model" | grep -oE '\b[0-9a-f]{32}\b' | head -n 1 | cut -c 1-12)"
    done
    absent a
    rm -f a.mbz
    group "another model: both are named"
fi

for f in ${CODEC_FILES-}; do
    "$mbrun" compress -T 2 -c "$f" 2>said >a.mbz || fail "$f: compress"
    "$mbrun" decompress -T 2 -c a.mbz 2>said | cmp - "$f" || fail "$f: other bytes"
    echo "  $f: $(wc -c <"$f") -> $(wc -c <a.mbz)"
done
cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun compress, decompress, test, list ... ok"
