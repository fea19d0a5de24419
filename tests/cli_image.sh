#!/bin/sh
# mbrun image and generate with image models: pictures there and back, options, refusals, damage,
# metadata, sheets and completions; mbrun compress of pictures. Run from the repository's root, with
# tools/mbrun, tools/mbconvert and models/image.mb there; most models are tiny ones made here: they
# predict nothing, and lose nothing.
set -u
folder=image
. tests/cli.sh
octal() { printf '\\%03o' "$1"; }
number32() { for shift in 24 16 8 0; do printf "$(octal $(($1 >> shift & 255)))"; done; }

run 0 "$convert" "$data/small-mblm.safetensors" --config "$data/small-mblm.json" -q -o rgb.mb \
    --image-tile 5x4 --image-patch 5x1 --image-channels 3 --image-colour green-difference \
    --image-scan raster
run 0 "$convert" "$data/lucid-2stage-nopos.safetensors" --config "$data/lucid-2stage-nopos.json" \
    -q -o grey.mb --image-tile 16x8 --image-patch 2x2 --image-channels 1 --image-scan patch
image() { # STATUS VERB ARGUMENTS
    expected=$1 verb=$2
    shift 2
    [ "$verb" = list ] && threads= || threads="-T 1"
    # shellcheck disable=SC2086
    run "$expected" "$mbrun" image "$verb" -m rgb.mb $threads "$@"
}
nothing_else() { ! ls -A | grep -q '^\.mbrun-' || fail "left behind: $(ls -A | grep '^\.mbrun-')"; }

# colours that differ from pixel to pixel, in a picture of WIDTH x HEIGHT
pixels() { head -c $(($1 * $2 * $3)) "$data/text.txt"; }
{ printf 'P6\n23 14\n255\n'; pixels 23 14 3; } >colour.ppm
{ printf 'P5\n9 13\n255\n'; pixels 9 13 1; } >grey.pgm
{ printf 'P6\n1 1\n255\n'; pixels 1 1 3; } >dot.ppm

# ------------------------------------------------------------------------------------- round trips
for f in colour.ppm grey.pgm dot.ppm; do
    image 0 pack $f
    [ -f $f ] && [ -f $f.mbi ] || fail "$f: the input is gone, or no output"
    mv $f in
    image 0 test $f.mbi
    image 0 unpack $f.mbi
    cmp $f in || fail "$f: other pixels"
    [ "$(wc -c <$f.mbi)" -le $(($(wc -c <in) + 200)) ] || fail "$f grows to $(wc -c <$f.mbi) bytes"
done
image 0 unpack colour.ppm.mbi -o colour.png # and through the other formats
image 0 unpack colour.ppm.mbi -o colour.bmp
image 0 pack -v colour.png colour.bmp
says 'needs [0-9.]* MB of memory'
cmp colour.png.mbi colour.ppm.mbi || fail "the same pixels from PNG give another file"
cmp colour.bmp.mbi colour.ppm.mbi || fail "the same pixels from BMP give another file"
cp colour.png was
image 0 unpack -f colour.png.mbi
cmp colour.png was || fail "PNG, unpacked as PNG"
image 0 unpack -c --format pnm colour.bmp.mbi
cmp out colour.ppm || fail "--format pnm -c"
image 0 unpack colour.ppm.mbi -o nameless
head -c 4 nameless | tail -c 3 >out
[ "$(cat out)" = PNG ] || fail "an output without suffix is no PNG"
mv colour.ppm.mbi plain.mbi
image 0 unpack plain.mbi
cmp plain.png colour.png || fail "plain.mbi does not become plain.png"
"$mbrun" image pack -m rgb.mb -q - <colour.ppm >out 2>said || fail "standard input"
cmp out plain.mbi || fail "through pipes"
"$mbrun" image unpack -m rgb.mb - --format pnm <out 2>said | cmp - colour.ppm || fail "pipes"
image 0 pack -f --verify --model-alone colour.ppm -o alone.mbi
image 0 list --json alone.mbi plain.mbi
grep -q '"width": 23, "height": 14, "channels": 3, .*"method": "\(model\|stored\)"' out ||
    fail "list: $(cat out)"
image 0 list plain.mbi
grep -q '23 x 14 .*RGB.* rgb  *plain.mbi' out || fail "list: $(cat out)"
run 0 "$mbrun" image pack -m grey.mb -f grey.pgm
mv grey.pgm in
run 0 "$mbrun" image unpack -m grey.mb grey.pgm.mbi
cmp in grey.pgm || fail "a grey model"
run 1 "$mbrun" image pack -m grey.mb colour.ppm -f
says 'knows grey only'
nothing_else
group "pictures there and back"

# ------------------------------------------------------------------------- options, names, refusals
image 1 pack colour.ppm -o plain.mbi
says 'already exists'
image 1 pack colour.ppm -f -o colour.ppm
says 'is the input'
image 1 pack plain.mbi
says 'already has the suffix .mbi'
image 1 unpack colour.ppm
says 'does not end in .mbi'
image 1 unpack -o x.png colour.ppm
[ ! -e x.png ] || fail "an output of what is no .mbi"
image 1 pack "$data/text.txt" -o x.mbi
says 'not a PNG, PNM'
image 1 pack missing.png colour.ppm -q
says missing.png
[ -f colour.ppm.mbi ] || fail "a missing file stops the others"
run 1 "$mbrun" image pack -m "$MEGABYTE_MODEL" -f colour.ppm
says 'not an image model'
run 1 "$mbrun" image unpack -m grey.mb -f plain.mbi
says 'model'
run 1 "$mbrun" image test plain.mbi
says 'was compressed with the model [0-9a-f]*, which was not found; give it with -m'
for wrong in "pack" "pack -o a -c colour.ppm" "pack -o a b c" "pack --rm -c colour.ppm" "map a b" \
    "map colour.ppm" "pack --rm -k colour.ppm" "unpack --format jpeg a" "pack --json -c a" \
    "pack --tiles 0 a" "paint a" ""; do
    run 2 "$mbrun" image $wrong
done
image 1 pack --memory 1M colour.ppm -f
says 'memory'
image 0 pack -f --json colour.ppm grey.pgm
grep -q '^{"files": \[{.*"width": 23, .*}, {.*"channels": 1, .*}\]}$' out ||
    fail "--json: $(cat out)"
cp colour.ppm in
image 0 pack -f --rm colour.ppm
[ ! -e colour.ppm ] && [ -e colour.ppm.mbi ] || fail "pack --rm"
image 0 unpack --rm colour.ppm.mbi
[ ! -e colour.ppm.mbi ] && cmp colour.ppm in || fail "unpack --rm"
{ printf 'P5\n# by nobody\n2 1\n255\nab'; } >noted.pgm
image 1 pack --rm noted.pgm
says 'only the pixels are kept, not its comments'
says 'would be lost'
[ -e noted.pgm ] && [ ! -e noted.pgm.mbi ] || fail "--rm removes what was not kept"
image 0 pack --rm -f noted.pgm
says 'only the pixels are kept, not its comments'
[ ! -e noted.pgm ] || fail "--rm -f"
{ printf 'P6 1 1 65535\n'; pixels 1 2 3; } >deep.ppm
image 1 pack deep.ppm
says 'mbrun compress keeps every file'
[ ! -e deep.ppm.mbi ] || fail "16 bits"
for verb in pack unpack test list map; do
    run 0 "$mbrun" image $verb --help
    grep -q "^Usage: mbrun image $verb" out || fail "image $verb --help"
done
grep -q 'Without -m: image' out || fail "--help tells no model"
run 0 "$mbrun" image --help
nothing_else
group "options, names, refusals"

# ----------------------------------------------------------------------------------------- damage
size=$(wc -c <plain.mbi)
rm -f x.png
for n in 0 1 3 7 20 40 $((size / 2)) $((size - 1)); do
    head -c $n plain.mbi >bad.mbi
    image 1 unpack bad.mbi -o x.png
done
{ cat plain.mbi; printf x; } >bad.mbi
image 1 test bad.mbi
image 1 list bad.mbi
at=0
while [ $at -lt $size ]; do # a bit of every seventh byte
    byte=$(od -An -tu1 -j $at -N 1 plain.mbi)
    { head -c $at plain.mbi; printf "$(octal $((byte ^ 1 << at % 8)))";
        tail -c +$((at + 2)) plain.mbi; } >bad.mbi
    image 1 unpack bad.mbi -o x.png
    at=$((at + 7))
done
[ ! -e x.png ] || fail "a damaged file leaves a picture"
image 0 unpack -c --format pnm plain.mbi
cmp out colour.ppm || fail "the right file after all"
image 1 test --limit 965 plain.mbi
says 'over the limit; --limit'
image 0 test --limit 966 plain.mbi
# a PNG that claims 2^31 - 1 pixels in each direction, its checksum right
{ printf '\211PNG\r\n\032\n'; number32 13; printf 'IHDR'; number32 2147483647
    number32 2147483647; printf '\010\002\0\0\0' # a checksum, 99 zeros as IDAT, IEND:
    printf '\233\253\234\061\000\000\000\014\111\104\101\124\170\234\143\140\240\071\000\000'
    printf '\000\143\000\001\167\144\016\243\000\000\000\000\111\105\116\104\256\102\140\202'
} >huge.png
image 1 pack huge.png
says 'claims more pixels than its data can hold'
nothing_else
group "damage"

# -------------------------------------------------------------------------------------------- map
image 0 map colour.ppm -o map.png
image 0 pack map.png -o map.mbi
says 'is smaller than what it is packed to'
image 0 list --json map.mbi # twice 23 x 11 pixels of colour.ppm, and the margins
grep -q '"width": 542, "height": 240, "channels": 3' out || fail "map: $(cat out)"
image 0 map grey.pgm -o map.bmp
image 1 map colour.ppm -o map.png
says 'already exists'
group "map"

# --------------------------------------------------------------------------------------- generate
make() { # STATUS ARGUMENTS
    expected=$1
    shift
    run "$expected" "$mbrun" generate -m rgb.mb -T 1 "$@"
}
size_of() { head -n 2 "$1" | tail -n 1; }
make 0 -o sheet.ppm --seed 1
[ "$(size_of sheet.ppm)" = "30 26" ] || fail "16 tiles: $(size_of sheet.ppm)"
make 0 -o again.ppm -T 2 --seed 1
cmp sheet.ppm again.ppm || fail "the same seed, other pixels"
make 0 -o again.ppm --force --seed 2
cmp -s sheet.ppm again.ppm && fail "another seed, the same pixels"
make 0 -n 1 -o first.ppm
[ "$(size_of first.ppm)" = "5 4" ] || fail "one tile: $(size_of first.ppm)"
make 0 -n 150 --seed 1 -o many.ppm # more than run together
make 0 -n 1 --seed 150 -o last.ppm
# the last tile of the sheet: row 11, column 6 of 13
row() { tail -c +$((1 + $(wc -c <many.ppm) - 93 * 74 * 3 + ((2 + 11 * 6 + $1) * 93 + 44) * 3)) \
    many.ppm | head -c 15; }
[ "$(size_of many.ppm)" = "93 74" ] || fail "150 tiles: $(size_of many.ppm)"
{ row 0; row 1; row 2; row 3; } >tile
tail -c 60 last.ppm | cmp - tile || fail "tile 150 of a sheet is not that of seed 150 alone"
{ printf 'P6\n13 6\n255\n'; pixels 13 6 3; } >half.ppm
make 0 -f half.ppm -o whole.ppm --json
grep -q '"pictures": 1, "width": 15, "height": 8, "tiles": 4, "bytes": 126,' out ||
    fail "--json: $(cat out)"
[ "$(size_of whole.ppm)" = "15 8" ] || fail "completed: $(size_of whole.ppm)"
y=0
while [ $y -lt 6 ]; do
    tail -c +$((1 + $(wc -c <whole.ppm) - 360 + 45 * y)) whole.ppm | head -c 39 >a
    tail -c +$((1 + $(wc -c <half.ppm) - 234 + 39 * y)) half.ppm | head -c 39 | cmp - a ||
        fail "row $y of what was given has changed"
    y=$((y + 1))
done
make 0 -f half.ppm -n 4 -o four.ppm
make 0 -f grey.pgm -o grey.ppm
run 0 "$mbrun" generate -m grey.mb -n 2 -o grey-tiles.png -t 0.9 --top-k 20 -v
run 1 "$mbrun" generate -m grey.mb -f half.ppm -o x.png
says 'knows grey only'
make 1 -f whole.ppm -o x.png
says 'nothing is missing'
make 1 -f half.ppm -o whole.ppm
says 'already exists'
make 1 -f half.ppm -o half.ppm --force
says 'is the input'
make 1 -o nowhere/x.png # at once
says 'nowhere/x.png: No such file'
if [ -c /dev/full ]; then
    make 1 -n 1 -o /dev/full
    says '/dev/full: No space left'
fi
make 1 -f "$data/text.txt" -o x.png
make 2
says 'OUT.png is needed'
make 2 -p text -o x.png
make 2 -n 0 -o x.png
run 2 "$mbrun" generate -n 1 -o x.png
says 'is for image and audio models'
[ ! -e x.png ] || fail "x.png is there"
"$mbrun" generate -m rgb.mb -n 2 -o - 2>said | head -c 4 | tail -c 3 >out
[ "$(cat out)" = PNG ] || fail "-o -"
nothing_else
group "generate"

# --------------------------------------------------------------------------------------- compress
# two files of smooth pixels, which a picture's contexts predict better than a text's
rows() { # ORDER (1: from above, -1: from below) END-OF-A-ROW
    # shellcheck disable=SC2059
    printf "$(awk -v order="$1" -v end="$2" 'BEGIN {
        for (i = 0; i < 20; i++) {
            y = order > 0 ? i : 19 - i
            noise = y * 7919
            for (x = 0; x < 37; x++) {
                noise = (noise * 1103 + 12345) % 65536
                v = 120 + int(60 * ((x / 18 - 1) ^ 2 - (y / 10 - 1) ^ 2)) + int(noise / 256) % 5
                printf "\\%03o\\%03o\\%03o", v, v + 9, v + 20
            }
            printf "%s", end
        }
    }')"
}
little32() { printf "\\$(printf %o $(($1 % 256)))\\$(printf %o $(($1 / 256)))\\0\\0"; }
{ printf 'P6\n# made by a test\n37 20\n255\n'; rows 1 ''; } >smooth.ppm
{ printf BM; for n in 2294 0 54 40 37 20; do little32 $n; done; printf '\1\0\30\0'
    head -c 24 /dev/zero; rows -1 '\\000'; printf end; } >smooth.bmp
zip() { # STATUS COMMAND ARGUMENTS
    expected=$1 verb=$2
    shift 2
    [ "$verb" = list ] && threads= || threads="-T 1"
    # shellcheck disable=SC2086
    run "$expected" "$mbrun" $verb $threads "$@"
}
for f in smooth.ppm smooth.bmp; do
    zip 0 compress -v $f
    says 'of these 1 picture'
    zip 0 compress -1 $f -o quick.mbz -f -v
    grep -q picture said && fail "-1 takes the model"
    [ "$(wc -c <$f.mbz)" -lt "$(wc -c <quick.mbz)" ] || fail "$f: larger than without"
    mv $f in
    zip 0 test $f.mbz
    zip 0 decompress -v $f.mbz
    cmp $f in || fail "$f: other bytes"
    size=$(wc -c <$f)
    zip 1 decompress --limit $((size - 1)) -c $f.mbz
    says 'over the limit'
    zip 0 decompress --limit $size -c $f.mbz
    zip 0 list --json $f.mbz
    grep -q "\"original\": $size," out || fail "list: $(cat out)"
done
cp smooth.ppm.mbz inner.mbi # as a picture: the comment would be lost
zip 1 "image unpack" --rm inner.mbi -o inner.ppm
says 'only the pixels'
zip 0 "image unpack" inner.mbi -o inner.ppm
says 'only its pixels'
[ -e inner.mbi ] || fail "image unpack --rm removes what was not unpacked"
i=0
: >icons.mbz
: >icons
while [ $i -lt 30 ]; do # little by little it claims no more than a file may
    cat smooth.ppm.mbz >>icons.mbz
    cat smooth.ppm >>icons
    i=$((i + 1))
done
zip 0 decompress -c icons.mbz
cmp out icons || fail "many pictures"
printf 'It was a dark and stormy night' >few
zip 0 compress -5 -m text-small few -o small.mbz
zip 0 compress -5 -m text few -o large.mbz
: >turns.mbz
for i in 1 2 3 4 5 6; do cat small.mbz large.mbz >>turns.mbz; done
zip 1 decompress --mmap -c turns.mbz # but each change of model takes time
says 'changes its model too often'
zip 0 decompress --mmap --limit 0 -c turns.mbz
[ "$(wc -c <out)" = 360 ] || fail "members of two models in turns"
zip 0 compress --verify -5 smooth.ppm -o five.mbz
zip 0 decompress -c five.mbz
cmp out smooth.ppm || fail "-5"
zip 0 compress -f colour.ppm -v # text as pixels: no picture
grep -q picture said && fail "a picture that is larger than without"
{ cat smooth.ppm; printf x; } >more.ppm # a second picture, or whatever it is
zip 0 compress more.ppm
zip 0 decompress -c more.ppm.mbz
cmp out more.ppm || fail "a PPM with data behind it"
# members of both kinds, one after the other, of several models
head -c 3000 "$data/text.txt" >text
run 0 "$mbrun" compress text
cat text.mbz smooth.ppm.mbz smooth.bmp.mbz text.mbz text.mbz smooth.ppm.mbz >all.mbz
cat text smooth.ppm smooth.bmp text text smooth.ppm >all
run 0 "$mbrun" decompress -c all.mbz
cmp out all || fail "members of both kinds"
cat all.mbz | "$mbrun" decompress 2>said | cmp - all || fail "members of both kinds, by a pipe"
run 0 "$mbrun" test -v all.mbz
says 'of these 3 pictures'
run 0 "$mbrun" list --json all.mbz
grep -q '"original": '$(wc -c <all)', .*"members": 6, .*"several_models": true' out ||
    fail "list: $(cat out)"
cat all.mbz | "$mbrun" list - 2>said | grep -q ' several ' || fail "list, by a pipe"
cat smooth.ppm.mbz text.mbz >two.mbz # the picture first
run 0 "$mbrun" decompress -c two.mbz
cat smooth.ppm text | cmp - out || fail "a picture first"
{ cat all.mbz; echo trailing; } >bad.mbz
run 1 "$mbrun" decompress -c bad.mbz
cmp out all || fail "what comes before other data"
says 'something else follows'
size=$(wc -c <two.mbz)
for n in 5 20 60 $(($(wc -c <smooth.ppm.mbz) - 1)) $(($(wc -c <smooth.ppm.mbz) + 9)); do
    head -c $n two.mbz >bad.mbz
    run 1 "$mbrun" decompress -o x.ppm bad.mbz
done
at=0
while [ $at -lt $(wc -c <smooth.ppm.mbz) ]; do
    byte=$(od -An -tu1 -j $at -N 1 two.mbz)
    { head -c $at two.mbz; printf "$(octal $((byte ^ 1 << at % 8)))";
        tail -c +$((at + 2)) two.mbz; } >bad.mbz
    run 1 "$mbrun" decompress -o x.ppm bad.mbz
    at=$((at + 301))
done
[ ! -e x.ppm ] || fail "a damaged file leaves an output"
i=0
: >bad.mbz
while [ $i -lt 20 ]; do cat plain.mbi >>bad.mbz; i=$((i + 1)); done
run 1 "$mbrun" test bad.mbz # pictures, but no files
says 'is a packed picture, not a compressed file'
run 1 "$mbrun" list plain.mbi
says 'mbrun image'
mkdir alone
cp "$mbrun" alone/mbrun # without the models beside it
run 1 alone/mbrun decompress -c two.mbz
says 'holds a picture packed with the model [0-9a-f]*, which was not found; give it with -m'
nothing_else
group "compress: pictures in files"

cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun image ... ok"
