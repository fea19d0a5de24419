#!/bin/sh
# mbrun generate with an audio model: sound made, recordings of every kind continued, refusals;
# mbrun compress of mu-law samples. Run from the repository's root, with tools/mbrun and
# models/audio.mb there.
set -u
folder=sound
. tests/cli.sh
models=$OLDPWD/models
octal() { printf '\\%03o' "$1"; }
number() { for shift in 0 8 16 24; do printf "$(octal $(($1 >> shift & 255)))"; done; }
make() { # STATUS ARGUMENTS
    expected=$1
    shift
    run "$expected" "$mbrun" generate -m audio -T 1 --seed 1 "$@"
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
make 0 -n 0.01 -o a.au -T 2
make 0 -n 0.01 -o a.ul --json
grep -q '"output": "a.ul", "rate": 8000, "given": 0, "samples": 80, "seed": 1, ' out ||
    fail "$(cat out)"
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
"$mbrun" generate -m audio --seed 1 -f - -n 0.005 -o whole.wav <begin.wav 2>said || fail "-f -"
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
    says 'mu-law or 16-bit PCM, mono, 8000 Hz is needed'
done
make 1 -f "$data/text.txt" -o x.wav
says 'is not a WAV or AU file (raw mu-law needs a name in .ul)'
make 1 -f missing.wav -o x.wav
make 1 -o a.wav
says 'already exists'
make 1 -f begin.ul -o begin.ul --force
says 'is the input'
"$convert" -q --audio "mu-law 999999999 Hz" -o fast.mb "$data/lucid-257tokens.safetensors" \
    --config "$data/lucid-257tokens.json" 2>said || fail "a model of another rate"
run 1 timeout 20 "$mbrun" generate -m fast.mb -n 3 -o x.wav
says 'too long for one file'
make 1 -o nowhere/x.wav # at once
says 'nowhere/x.wav: No such file'
if [ -c /dev/full ]; then
    make 1 -n 0.001 -o /dev/full
    says '/dev/full: No space left'
fi
for wrong in "" "-o x.wav -p text" "-o x.wav -n 0" "-o x.wav -n 3601" "-o x.wav -n ten" \
    "-o - --json" "-o x.wav --type wav"; do
    make 2 $wrong
done
"$mbrun" generate -m audio -T 1 -n 3600 -o x.wav 2>said &
pid=$!
sleep 1
kill -TERM $pid
wait $pid
[ $? = 143 ] || fail "generate: interrupted"
[ ! -e x.wav ] || fail "x.wav is there"
"$mbrun" generate -m audio --seed 1 -n 0.01 -o - 2>said | cmp - a.wav || fail "-o -"
nothing_else
group "generate"

# --------------------------------------------------------------------------------------- compress
zip() { # STATUS COMMAND ARGUMENTS
    expected=$1 verb=$2
    shift 2
    run "$expected" "$mbrun" $verb -T 1 "$@"
}
# 1501 samples of what the model itself has made, so that it predicts them
tail -c +60 "$models/audio-1.wav" | head -c 1501 >call.ul
wav() { # SIZE-OF-DATA: with a chunk before the samples and a text behind them
    printf 'RIFF\0\0\0\0WAVELIST'; number 3; printf 'odd\0fmt '; number 16
    printf '\7\0\1\0'; number 8000; number 8000; printf '\1\0\10\0data'; number "$1"
    cat call.ul; printf '\0LIST'; number 400; head -c 400 "$data/text.txt"
}
wav 1501 >call.wav
wav 4294967295 >long.wav
wav 99999 >short.wav
{ printf '.snd\0\0\0\34\377\377\377\377\0\0\0\1\0\0\37\100\0\0\0\1abcd'; cat call.ul; } >call.au
{ printf '.snd\0\0\0\30\377\377\377\377\0\0\0\1\0\0\254\104\0\0\0\2'; cat call.ul; } >two.au
for f in call.ul call.wav call.au long.wav short.wav; do
    zip 0 compress -v $f
    says 'by the model of sound'
    levels='4 7'
    case $f in long.wav | short.wav) levels=7 ;; esac # their text passes for samples
    for level in $levels; do
        zip 0 compress -m "$MEGABYTE_MODEL" -$level -c $f
        [ "$(wc -c <$f.mbz)" -lt "$(wc -c <out)" ] || fail "$f: larger than without, at -$level"
    done
    mv $f in
    zip 0 test $f.mbz
    zip 0 decompress $f.mbz
    cmp $f in || fail "$f: other bytes"
    run 0 "$mbrun" list $f.mbz
    grep -q ' audio  *'$f out || fail "list: $(cat out)"
done
zip 0 compress --verify -5 call.wav -o five.mbz --json
grep -q '"sounds": 1' out || fail "--json: $(cat out)"
zip 0 decompress -m audio -c five.mbz
cmp out call.wav || fail "-5"
cp call.ul call.raw
zip 0 compress -v call.raw -o raw.mbz
grep -q sound said && fail "raw samples without --as"
zip 0 compress --as mulaw -f -c call.raw
cmp out call.ul.mbz || fail "--as mulaw"
for f in two.au pcm.wav begin.ul; do # another rate, 16 bits, a text: whatever is smaller
    zip 0 compress -v -f $f
    zip 0 compress -m "$MEGABYTE_MODEL" -c $f
    [ "$(wc -c <$f.mbz)" -le "$(wc -c <out)" ] || fail "$f: larger than without"
    [ $f = two.au ] || cmp $f.mbz out || fail "$f: not as before"
    zip 0 decompress -c $f.mbz
    cmp out $f || fail "$f: other bytes"
done
zip 0 compress -1 -v -c call.ul
grep -q sound said && fail "-1 takes the model"
zip 2 compress --as alaw call.ul
zip 2 compress --as mulaw --type wav call.ul
zip 0 compress --as mulaw -m audio -c call.raw
zip 0 compress --as mulaw -3 -c call.raw
for f in call.ul call.au; do # without a model: contexts made for it
    zip 0 compress -3 -f $f -o three.mbz
    run 0 "$mbrun" list three.mbz
    grep -q ' 3\.[0-9]* *none ' out || fail "$f, -3: $(cat out)"
    zip 0 decompress -c three.mbz
    cmp out $f || fail "$f, -3: other bytes"
    cat $f | "$mbrun" compress -3 >out 2>said || fail "$f: by a pipe"
    [ "$(wc -c <three.mbz)" -lt "$(wc -c <out)" ] || fail "$f, -3: not smaller than as any bytes"
done
cat call.ul | "$mbrun" compress --as mulaw >out 2>said && fail "--as of a pipe"
says 'a regular file'
"$mbrun" compress --as mulaw <call.raw 2>said | cmp - call.ul.mbz || fail "--as of a file, by <"
# members of several models, one after the other; damage; a model that is missing
run 0 "$mbrun" compress -c begin.ul
cat call.wav.mbz out call.au.mbz >all.mbz
cat call.wav begin.ul call.au >all
run 0 "$mbrun" decompress -c all.mbz
cmp out all || fail "members of several models"
size=$(wc -c <call.wav.mbz) at=0
while [ $at -lt $size ]; do
    byte=$(od -An -tu1 -j $at -N 1 call.wav.mbz)
    { head -c $at call.wav.mbz; printf "$(octal $((byte ^ 1 << at % 8)))";
        tail -c +$((at + 2)) call.wav.mbz; } >bad.mbz
    run 1 "$mbrun" decompress -o x.wav bad.mbz
    at=$((at + 97))
done
[ ! -e x.wav ] || fail "a damaged file leaves an output"
mkdir alone
cp "$mbrun" alone/mbrun # without the models beside it
run 1 alone/mbrun decompress -o x.wav call.wav.mbz
says 'compressed with the model f2261a973e92, but this one is'
run 1 env -u MEGABYTE_MODEL alone/mbrun decompress -o x.wav call.wav.mbz
says 'the model f2261a973e92, but no model was found; give it with -m'
zip 0 compress --rm call.au -o gone.mbz
[ ! -e call.au ] || fail "--rm"
zip 0 decompress -c gone.mbz
nothing_else
group "compress: mu-law samples in files"

# ------------------------------------------------------------------------- compress: linear samples
# A recording's mu-law codes as samples of 16 bits, 150 times their distance from silence, and some
# noise: they ring as sound does.
tail -c +60 "$models/audio-1.wav" | head -c 3000 | od -An -v -tu1 -w1 |
    awk '{ v = $1 > 127 ? (255 - $1) * 150 : ($1 - 127) * 150; v += NR * 7919 % 64
           if (v < 0) v += 65536
           printf "\\%03o\\%03o\n", v % 256, v / 256 }' >codes
while read -r code; do printf "$code"; done <codes >little.raw
sed 's/\(.*\)\(\\[0-7]*\)$/\2\1/' codes >swapped
while read -r code; do printf "$code"; done <swapped >big.raw
[ "$(wc -c <little.raw) $(wc -c <big.raw)" = "6000 6000" ] || fail "$(wc -c little.raw big.raw)"
pcm() { # CHANNELS SIZE-OF-DATA FILE-OF-SAMPLES: with a text behind them
    printf 'RIFF\0\0\0\0WAVEfmt '; number 16; printf "\\1\\0$(octal $1)\\0"; number 44100
    number $((88200 * $1)); printf "$(octal $((2 * $1)))\\0\\20\\0data"; number "$2"
    cat $3; printf 'LIST'; number 90; head -c 90 "$data/text.txt"
}
pcm 1 6000 little.raw >mono.wav
pcm 2 6000 little.raw >stereo.wav
pcm 2 4294967295 little.raw >endless.wav
head -c 4001 little.raw >odd.raw
pcm 2 4001 odd.raw >odd.wav
{ printf '.snd\0\0\0\30\377\377\377\377\0\0\0\3\0\0\254\104\0\0\0\1'; cat big.raw; } >mono.au
for f in mono.wav stereo.wav endless.wav odd.wav mono.au; do
    case $f in mono.wav) kind=s16le ;; mono.au) kind=s16be ;; *) kind=s16le:2 ;; esac
    for level in 1 4 7; do
        zip 0 compress -v -f -$level $f
        says 'as linear samples'
        cat $f | "$mbrun" compress -m "$MEGABYTE_MODEL" -$level >out 2>said || fail "$f, a pipe"
        [ "$(wc -c <$f.mbz)" -lt "$(wc -c <out)" ] || fail "$f: larger than by a pipe, at -$level"
        run 0 "$mbrun" list $f.mbz
        grep -q " 4\.[0-9]* *none, $kind  *$f.mbz" out || fail "list: $(cat out)"
        zip 0 test $f.mbz
        zip 0 decompress -c $f.mbz
        cmp out $f || fail "$f, -$level: other bytes"
    done
done
run 0 "$mbrun" list --json stereo.wav.mbz
grep -q '"format_version": 4, .*"contents": "s16le:2"' out || fail "list --json: $(cat out)"
zip 0 compress --json -f -3 --verify -B 1001 mono.wav
grep -q '"linear": 1' out || fail "--json: $(cat out)"
alone/mbrun decompress -c mono.wav.mbz 2>said | cmp - mono.wav || fail "without models"
zip 0 compress -5 -v -f mono.wav
grep -q linear said && fail "-5 is the network alone"
# a text as samples: not larger than as any bytes
head -c 3000 "$data/text.txt" >text.raw
pcm 1 3000 text.raw >text.wav
for level in 2 6; do
    zip 0 compress -v -f -$level text.wav
    { printf r; tail -c +2 text.wav; } >no.wav
    zip 0 compress -m "$MEGABYTE_MODEL" -$level -c no.wav
    [ "$(wc -c <text.wav.mbz)" -le $(($(wc -c <out) + 2)) ] || fail "text.wav: larger, -$level"
    zip 0 decompress -c text.wav.mbz
    cmp out text.wav || fail "text.wav, -$level: other bytes"
done
# raw samples: of files, of pipes, at every level without a model
cp little.raw little
for level in 1 7; do
    zip 0 compress --as s16le -f -$level little
    cat little | alone/mbrun compress --as s16le -$level >pipe.mbz 2>said ||
        fail "--as s16le of a pipe"
    zip 0 decompress -c pipe.mbz
    cmp out little || fail "--as s16le of a pipe: other bytes"
    zip 0 compress --as s16be -c -$level big.raw
    [ $(wc -c <out) = $(wc -c <little.mbz) ] || fail "big-endian samples cost other bytes"
    zip 0 decompress -c little.mbz
    cmp out little || fail "--as s16le: other bytes"
done
for kind in u8 s24le:8 s24be:3 s16be:7; do
    zip 0 compress --as $kind -2 -f odd.raw
    run 0 "$mbrun" list odd.raw.mbz
    grep -q "none, $kind " out || fail "list: $(cat out)"
    zip 0 decompress -c odd.raw.mbz
    cmp out odd.raw || fail "--as $kind: other bytes"
done
for wrong in s16 s16le: s16le:0 s16le:9 s16le:22 s16le,2 mulaw:1 S16LE; do
    zip 2 compress --as $wrong -c little
    says 'knows only mulaw'
done
zip 2 compress --as s16le --dictionary little -c little
nothing_else
group "compress: linear samples"

cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun sound ... ok"
