#!/bin/sh
# mbrun generate with an audio model: sound made, recordings of every kind continued, refusals. Run
# from the repository's root, with tools/mbrun and models/audio.mb there.
set -u
folder=sound
. tests/cli.sh
octal() { printf '\\%03o' "$1"; }
number() { for shift in 0 8 16 24; do printf "$(octal $(($1 >> shift & 255)))"; done; }
make() { # STATUS ARGUMENTS
    expected=$1
    shift
    run "$expected" "$mbrun" generate -m audio -T 1 "$@"
}
nothing_else() { ! ls -A | grep -q '^\.mbrun-' || fail "left behind: $(ls -A | grep '^\.mbrun-')"; }
# the same samples, G.711 of the first 300 bytes of a text, as files of each kind
head -c 300 "$data/text.txt" >begin.ul
{ printf 'RIFF\0\0\0\0WAVELIST'; number 3; printf 'odd\0fmt '; number 16
    printf '\7\0\1\0'; number 8000; number 8000; printf '\1\0\10\0data'; number 300
    cat begin.ul; } >begin.wav
{ printf '.snd\0\0\0\34\377\377\377\377\0\0\0\1\0\0\37\100\0\0\0\1abcd'; cat begin.ul; } >begin.au

# --------------------------------------------------------------------------------------- generate
make 0 -n 0.01 -o a.wav -v
says '0.01 s of sound in .* samples/s'
[ "$(wc -c <a.wav)" = 138 ] || fail "a.wav has $(wc -c <a.wav) bytes"
make 0 -n 0.01 -o a.au --seed 1 -T 2
make 0 -n 0.01 -o a.ul --json
grep -q '"output": "a.ul", "rate": 8000, "given": 0, "samples": 80, ' out || fail "--json: $(cat out)"
tail -c 80 a.wav | cmp - a.ul || fail "WAV and raw differ"
tail -c 80 a.au | cmp - a.ul || fail "AU and raw differ"
make 0 -n 0.01 -o other.ul --seed 2
cmp -s a.ul other.ul && fail "another seed, the same samples"
for f in begin.ul begin.wav begin.au; do
    make 0 -f $f -n 0.005 -o whole.ul --force
    [ "$(wc -c <whole.ul)" = 340 ] || fail "$f: $(wc -c <whole.ul) bytes"
    head -c 300 whole.ul | cmp - begin.ul || fail "$f: what was given has changed"
    [ $f = begin.ul ] || cmp first.ul whole.ul || fail "$f goes on in another way"
    cp whole.ul first.ul
done
make 0 -f begin.wav -n 0.005 --no-echo -o rest.ul
tail -c 40 first.ul | cmp - rest.ul || fail "--no-echo"
"$mbrun" generate -m audio -f - -n 0.005 -o whole.wav <begin.wav 2>said || fail "-f -"
tail -c 340 whole.wav | cmp - first.ul || fail "-f - goes on in another way"
make 0 -f a.wav -n 0.001 -o odd.wav --context 64
# 16-bit PCM: zeros and the largest and smallest sample
{ printf 'RIFF\0\0\0\0WAVEfmt '; number 16; printf '\1\0\1\0'; number 8000; number 16000
    printf '\2\0\20\0data'; number 8; printf '\0\0\377\177\0\200\1\0'; } >pcm.wav
make 0 -f pcm.wav -n 0.001 -o pcm.ul
[ "$(head -c 4 pcm.ul | od -An -tx1)" = " ff 80 00 ff" ] || fail "PCM: $(od -An -tx1 pcm.ul)"
head -c 50 begin.wav >bad.wav
make 1 -f bad.wav -o x.wav
says 'no data chunk'
head -c 100 begin.wav >bad.wav
make 0 -f bad.wav -n 0.001 -o x.ul
says 'ends early: its header claims 256 bytes more'
rm x.ul
{ head -c 34 begin.wav; printf '\2'; tail -c +36 begin.wav; } >two.wav
{ head -c 36 begin.wav; number 16000; tail -c +41 begin.wav; } >fast.wav
for f in two.wav fast.wav; do
    make 1 -f $f -o x.wav
    says 'wanted is mu-law or 16-bit PCM, mono, 8000 Hz'
done
make 1 -f "$data/text.txt" -o x.wav
says 'is no WAV or AU file (raw mu-law needs a name in .ul)'
make 1 -f missing.wav -o x.wav
make 1 -o a.wav
says 'already exists'
make 1 -f begin.ul -o begin.ul --force
says 'is the input'
for wrong in "" "-o x.wav -p text" "-o x.wav -n 0" "-o x.wav -n 3601" "-o x.wav -n ten" \
    "-o - --json" "-o x.wav --type wav"; do
    make 2 $wrong
done
[ ! -e x.wav ] || fail "x.wav is there"
"$mbrun" generate -m audio -n 0.01 -o - 2>said | cmp - a.wav || fail "-o -"
nothing_else
group "generate"

cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun sound ... ok"
