#!/bin/sh
# The tools built for Windows, under wine, beside those of this machine: the same bytes, names that
# are no ASCII, nothing lost, nothing left behind. Run from the repository's root with the tools
# built there. Needs mingw-w64, wine and script (util-linux).
#   CC_WINDOWS  the compiler; default x86_64-w64-mingw32-gcc
#   WINE        default wine64, in /usr/lib/wine or along PATH
set -u
compiler=${CC_WINDOWS-x86_64-w64-mingw32-gcc}
wine=${WINE-$(PATH=$PATH:/usr/lib/wine command -v wine64)} || { echo "no wine64"; exit 1; }
warnings='-Wpedantic -Wconversion -Wshadow -Werror'
make -s CC="$compiler" CFLAGS="-O1 $warnings" || exit 1
mkdir -p tests/tmp
"$compiler" -std=c11 -O1 tests/test_codec_format.c megabyte.obj -static \
    -o tests/tmp/test_codec_format.exe || exit 1
native=$PWD/tools root=$PWD
folder=windows
. tests/cli.sh
export WINEDEBUG=-all WINEPREFIX="$dir/wine"
"$wine" wineboot >boot 2>&1 # it has much to say
trap '"$wine" wineboot -k >boot 2>&1' EXIT
for tool in mbrun mbconvert; do
    printf '#!/bin/sh\nexec %s %s.exe "$@"\n' "$wine" "$native/$tool" >$tool
    chmod +x $tool
done
mbrun=$dir/mbrun convert=$dir/mbconvert
nothing_else() { ! ls -A . sub | grep '^\.mb' || fail "left behind, see above"; }
mkdir sub

# no files beside them but the system's
"${compiler%gcc}objdump" -p "$native/mbrun.exe" "$native/mbconvert.exe" |
    sed -n 's/.*DLL Name: //p' | tr a-z A-Z | sort -u >out
! grep -v -x -e KERNEL32.DLL -e MSVCRT.DLL -e SHELL32.DLL -e USER32.DLL -e ADVAPI32.DLL out ||
    fail "needs those DLLs"

# ------------------------------------------------------------------------------- the same answers
name='größe 日本.txt'
for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 26 128 255; do
    printf "$(printf '\\%03o\\r\\n' $i)" # what text mode would change, or stop at
done >odd
cat "$data/text.txt" odd "$data/text.txt" >"$name"
run 0 "$mbrun" generate -p 'größe 日本' -n 40 --seed 3 -T 2
mv out was
"$native/mbrun" generate -p 'größe 日本' -n 40 --seed 3 | cmp - was || fail "generate"
run 0 "$mbrun" generate -f "$name" -n 9 --seed 1
"$native/mbrun" generate -f "$name" -n 9 --seed 1 | cmp - out || fail "generate -f"
head -c 500 "$name" >small
run 0 "$mbrun" score "$name" --limit 500 small -T 2
mv out was
"$native/mbrun" score "$name" --limit 500 small | cmp - was || fail "score"
run 0 "$mbrun" score small --logits here
"$native/mbrun" score small --logits there >out && cmp here there || fail "score --logits"
run 0 "$mbrun" score small --html sub/page.html
"$native/mbrun" score small --html there.html >out && cmp sub/page.html there.html ||
    fail "score --html"
printf 'It was\n\nThen\n' | "$mbrun" generate -i -n 20 --seed 1 >was 2>said || fail "generate -i"
printf 'It was\n\nThen\n' | "$native/mbrun" generate -i -n 20 --seed 1 2>said | cmp - was ||
    fail "generate -i"
group "generate, score"

run 0 "$mbrun" compress -2 "$name"
[ -f "$name" ] || fail "the input is gone"
[ "$(stat -c %Y "$name")" = "$(stat -c %Y "$name.mbz")" ] || fail "another time"
"$native/mbrun" compress -2 -c "$name" | cmp - "$name.mbz" || fail "compress: other bytes"
"$native/mbrun" decompress -c "$name.mbz" | cmp - "$name" || fail "decompress, not on Windows"
run 0 "$mbrun" decompress "$name.mbz" -o 'sub\back'
cmp "$name" sub/back || fail "decompress -o sub\\back"
for level in 1 7; do # through pipes and files as standard input and output
    "$mbrun" compress -$level -q <small >piped.mbz 2>said || fail "compress -$level <small"
    cat piped.mbz | "$mbrun" decompress -q 2>said | cat >back || fail "decompress through pipes"
    cmp small back || fail "-$level, standard input and output"
done
run 0 "$mbrun" test piped.mbz "$name.mbz"
cp "$name.mbz" sub/1.mbz
run 0 "$mbrun" list 'sub/*.mbz' "$name.mbz" # no shell there expands names
grep -q 'sub.1\.mbz' out && grep -q "$name.mbz" out || fail "list"
mkdir tree tree/größer
cp small tree/größer/x
cp odd tree/y
run 0 "$mbrun" compress -1 -r --rm tree
[ "$(cd tree && find . -type f | sort | tr '\n' ' ')" = './größer/x.mbz ./y.mbz ' ] || fail "-r"
"$native/mbrun" decompress -c tree/größer/x.mbz | cmp - small || fail "-r: other bytes"
cd "$root" && "$wine" tests/tmp/test_codec_format.exe golden >"$dir/said" 2>&1 ||
    fail "golden files: $(cat "$dir/said")"
cd "$dir" || exit 1
group "compress, decompress, list, golden files"

{ printf 'P6\n23 14\n255\n'; head -c 966 "$data/text.txt"; } >'bild ä.ppm'
run 0 "$mbrun" image pack 'bild ä.ppm'
"$native/mbrun" image pack -c 'bild ä.ppm' | cmp - 'bild ä.ppm.mbi' || fail "image pack"
run 0 "$mbrun" image unpack 'bild ä.ppm.mbi' -o back.ppm
cmp 'bild ä.ppm' back.ppm || fail "image unpack"
for quant in f32 q4; do
    run 0 "$convert" -q "$data/lucid-2stage-rope.safetensors" -o 'modèle.mb' --quant $quant \
        --config "$data/lucid-2stage-rope.json" --force
    "$native/mbconvert" -q "$data/lucid-2stage-rope.safetensors" -o there.mb --quant $quant \
        --config "$data/lucid-2stage-rope.json" --force && cmp 'modèle.mb' there.mb ||
        fail "mbconvert --quant $quant"
done
run 0 "$mbrun" generate -m 'modèle.mb' -p a -n 5 --mmap
group "image, mbconvert"

# ---------------------------------------------------------------------------------- nothing is lost
cp small keep
run 1 "$mbrun" compress -2 "$name"
says 'already exists'
run 1 "$mbrun" decompress "$name.mbz"
says 'already exists'
run 1 "$mbrun" compress -2 -f small -o 'sub\..\small'
says 'is the input'
ln small sub/linked
run 1 "$mbrun" compress -2 -f small -o sub/linked
says 'is the input'
run 1 "$mbrun" compress -2 --rm small
says 'other hard links'
rm sub/linked
cmp small keep || fail "the input has changed"
head -c 100 "$name.mbz" >sub/cut.mbz
run 1 "$mbrun" decompress sub/cut.mbz
[ ! -e sub/cut ] || fail "half a file"
run 1 "$mbrun" compress -2 nosuch sub
says 'nosuch: No such file'
says 'sub: is a directory'
run 0 "$mbrun" decompress "$name.mbz" -o NUL
nothing_else
run 0 "$mbrun" compress -1 --rm small
[ ! -e small ] && [ -f small.mbz ] || fail "--rm"
run 0 "$mbrun" decompress --rm -f small.mbz
[ ! -e small.mbz ] && cmp small keep || fail "there and back with --rm"
run 0 "$mbrun" compress -1 -f -o "$name.mbz" small
"$native/mbrun" decompress -c "$name.mbz" | cmp - small || fail "-f"
long=sub/$(printf '%0100d' 1)/$(printf '%0100d' 2)/$(printf '%0100d' 3)
mkdir -p "$long"
cp small "$long/x"
run 0 "$mbrun" compress -1 --rm "$PWD/$long/x"
[ "$(ls "$long")" = x.mbz ] || fail "names of more than 260 characters"
truncate -s 5G deep
run 1 "$mbrun" image pack -q deep
says 'too large for a picture'
run 0 "$mbrun" score --limit 10 deep
rm deep
group "nothing is lost"

# Ctrl-C on a console; a reader that goes away
head -c 2000000 /dev/urandom >large
begun() { # once there is a temporary file
    i=0
    while [ $((i += 1)) -lt 300 ] && ! ls -A | grep -q '^\.mbrun-'; do sleep 0.2; done
    sleep 1
}
(begun; printf '\003'; sleep 2) | script -qec "$mbrun compress -7 -B 4K large" said >out
grep -q 'COMMAND_EXIT_CODE="130"' said || fail "Ctrl-C does not end it with 130"
[ ! -e large.mbz ] || fail "an output after Ctrl-C"
nothing_else
"$mbrun" generate -n 0 2>said | head -c 10 >out
[ ! -s said ] || fail "complains about a reader that went away"
# other compressors are run: here one that changes nothing
cat >gzip.c <<'END'
#include <stdio.h>
#include <io.h>
#include <fcntl.h>
int main(void) {
    int c;
    _setmode(0, _O_BINARY);
    _setmode(1, _O_BINARY);
    while ((c = getchar()) != EOF) putchar(c);
    return 0;
}
END
"$compiler" gzip.c -o gzip.exe || fail "gzip.c"
run 0 "$mbrun" compress --against -1 "$name"
grep -q 'Not on this machine: gzip,' out || fail "a program of the current folder is run"
WINEPATH=$(echo "Z:$dir" | tr / '\\') run 0 "$mbrun" compress --against -1 "$name"
grep -q "| $(wc -c <"$name") |\$" out || fail "--against: $(cat out)"
group "Ctrl-C, pipes, other programs"
echo "Windows, under wine ... ok"
