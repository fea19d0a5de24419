#!/bin/sh
# The tools when the power goes (every moment, in every way that a file system may lose what was not
# synced), when calls to the system fail, and when they do less than was asked for: an input or a
# complete output is left, nothing half, no temporary file. Run from the repository's root, with the
# tools and models/text-small.mb there. Needs glibc, elsewhere there is nothing to be done.
set -u
folder=faults
root=$PWD
. tests/cli.sh
: "${CC:=cc}"
skip() { echo "mbrun and faults ... skipped: no glibc"; exit 0; }
printf '#include <features.h>\n#ifndef __GLIBC__\n#error none\n#endif\n' |
    $CC -E -x c - >/dev/null 2>&1 || skip
$CC -shared -fPIC -O1 "$root/tests/faults.c" -o faults.so -ldl 2>said || fail "faults.c"
echo 'int main(void) { return 0; }' | $CC -x c - -o nothing &&
    [ "$(LD_PRELOAD=$dir/faults.so ./nothing 2>&1)" = '' ] || skip
$CC -O1 "$root/tests/powerloss.c" -o powerloss || fail "powerloss.c"
shim=$dir/faults.so powerloss=$dir/powerloss
mkdir work kept
cd work || exit 1
files=$dir/kept
fail() { echo "FAILED: $*"; [ ! -f "$dir/said" ] || sed 's/^/    /' "$dir/said"; exit 1; }

# recorded COMMAND...: in an empty folder with what `prepare` puts there
recorded() {
    rm -rf ./* ./.[!.]*
    prepare
    FAULTS_FOLDER=$PWD FAULTS_LOG=$dir/log LD_PRELOAD=$shim "$@" >../out 2>../said ||
        fail "$* exits with $?"
}
whole() { # NAME=FILE...: one is always there
    "$powerloss" "$dir/log" "$@" >../said || fail "a power cut loses everything: $(cat ../said)"
    moments=$((moments + $(sed 's/ .*//' ../said)))
}
# Without what the tool does for it, this test must fail.
noticed() { # WHAT COMMAND NAME=FILE...
    what=$1 command=$2
    shift 2
    export FAULTS_FORGET=$what
    recorded $command
    unset FAULTS_FORGET
    if "$powerloss" "$dir/log" "$@" >../said; then
        fail "$command without syncing the $what: this test does not notice"; fi
}

head -c 3000 "$data/text.txt" >"$files/in"
"$mbrun" compress -1 -q -o "$files/in.mbz" "$files/in" 2>../said
"$mbrun" compress -5 -q -o "$files/in5.mbz" "$files/in" 2>../said
cp "$data/small-paper.safetensors" "$files/model.safetensors"
cp "$data/small-paper.json" "$files/model.json"
"$convert" "$files/model.safetensors" -q -o "$files/model.mb"
echo old >"$files/old"
if [ -s "$root/models/image.mb" ] && [ -s "$root/models/audio.mb" ]; then
    { printf 'P6\n9 7\n255\n'; head -c 189 "$data/text.txt"; } >"$files/p.ppm"
    "$mbrun" image pack -q -o "$files/p.mbi" "$files/p.ppm"
    "$mbrun" generate -m audio -n 0.002 --seed 1 -o "$files/a.wav"
fi

# --------------------------------------------------------------------------------- the power goes
moments=0
prepare() { cp "$files/in" .; }
recorded "$mbrun" compress --rm -1 in
cmp in.mbz "$files/in.mbz" || fail "another .mbz"
[ ! -e in ] || fail "--rm"
whole in="$files/in" in.mbz="$files/in.mbz"
recorded "$mbrun" compress --rm -5 -T 2 "$PWD/in"
whole in="$files/in" in.mbz="$files/in5.mbz"
recorded "$mbrun" compress --rm -1 -o ./other in
whole in="$files/in" other="$files/in.mbz"
noticed fsync "$mbrun compress --rm -1 in" in="$files/in" in.mbz="$files/in.mbz"
noticed folder "$mbrun compress --rm -1 in" in="$files/in" in.mbz="$files/in.mbz"
prepare() { cp "$files/in" .; cp "$files/old" in.mbz; }
recorded "$mbrun" compress -f -1 in
whole in.mbz="$files/in.mbz" in.mbz="$files/old"
recorded "$mbrun" compress -f --rm -1 in
whole in="$files/in" in.mbz="$files/in.mbz"
noticed fsync "$mbrun compress -f -1 in" in.mbz="$files/in.mbz" in.mbz="$files/old"
prepare() { cp "$files/in.mbz" .; }
recorded "$mbrun" decompress --rm in.mbz
cmp in "$files/in" || fail "other bytes"
[ ! -e in.mbz ] || fail "decompress --rm"
whole in="$files/in" in.mbz="$files/in.mbz"
noticed folder "$mbrun decompress --rm in.mbz" in="$files/in" in.mbz="$files/in.mbz"
prepare() { cp "$files/in.mbz" .; mkdir there; ln -s in link; cp "$files/old" in; }
recorded "$mbrun" decompress -f --rm -o link in.mbz # through the link
cmp in "$files/in" || fail "through a link"
whole in="$files/in" in.mbz="$files/in.mbz"
prepare() { cp "$files"/model.safetensors "$files"/model.json .; }
recorded "$convert" model.safetensors -q -o model.mb
cmp model.mb "$files/model.mb" || fail "another model"
prepare() { cp "$files"/model.safetensors "$files"/model.json .; cp "$files/old" model.mb; }
recorded "$convert" model.safetensors -q -f -o model.mb
whole model.mb="$files/model.mb" model.mb="$files/old"
noticed fsync "$convert model.safetensors -q -f -o model.mb" model.mb="$files/model.mb" \
    model.mb="$files/old"
# One of these is the folder's, whose names must be synced all the same.
prepare() { cp "$files/in" .; }
n=0
while :; do
    n=$((n + 1))
    rm -rf ./* ../reached
    prepare
    FAULTS_FAIL="open $n 13" FAULTS_REACHED=$dir/reached FAULTS_FOLDER=$PWD FAULTS_LOG=$dir/log \
        LD_PRELOAD=$shim "$mbrun" compress --rm -1 in >../out 2>../said
    status=$?
    [ -e ../reached ] || break
    [ $status != 0 ] || whole in="$files/in" in.mbz="$files/in.mbz"
done
[ $n -gt 2 ] || fail "no open was made to fail"
group "the power goes at $moments moments"

# --------------------------------------------------------------------------------- calls that fail
# failing CALL ERRNO NAME=FILE... -- COMMAND...: the Nth CALL fails, for every N. A refusal leaves
# one of the files whole and no temporary one; success leaves the last one.
failing() {
    call=$1 errno=$2 files_left= n=0 last=
    shift 2
    while [ "$1" != -- ]; do files_left="$files_left $1" last=$1; shift; done
    shift
    while :; do
        n=$((n + 1))
        rm -rf ./* ./.[!.]* ../reached
        prepare
        FAULTS_FAIL="$call $n $errno" FAULTS_REACHED=$dir/reached LD_PRELOAD=$shim "$@" \
            >../out 2>../said </dev/null
        status=$?
        [ -e ../reached ] || break
        points=$((points + 1))
        [ $status -lt 126 ] || fail "$*: $call number $n fails, exit status $status"
        [ $status = 0 ] || [ -s ../said ] || fail "$*: $call number $n fails without a word"
        [ $call = unlink ] || ! ls -A | grep -q '^\.mb' ||
            fail "$*: $call number $n leaves $(ls -A | grep '^\.mb')"
        found=
        for pair in $files_left; do
            ! cmp -s "${pair%%=*}" "${pair#*=}" || found=$pair
        done
        [ -n "$found" ] || fail "$*: $call number $n fails, and nothing whole is left: $(ls -A)"
        [ $status != 0 ] || cmp -s "${last%%=*}" "${last#*=}" ||
            fail "$*: $call number $n fails, exit status 0, no output"
    done
    [ $status = 0 ] || fail "$*: exits with $status though nothing failed"
}
# EIO 5, ENOMEM 12, ENOSPC 28, EINTR 4
points=0
each_call() {
    for call in "write 28" "fsync 5" "close 5" "rename 5" "link 1" "unlink 5" "mkstemp 28" \
        "open 24" "read 5" "memory 12"; do
        failing $call "$@"
    done
}
prepare() { cp "$files/in" .; }
each_call in="$files/in" in.mbz="$files/in.mbz" -- "$mbrun" compress --rm -1 in
prepare() { cp "$files/in.mbz" .; cp "$files/old" in; }
each_call in.mbz="$files/in.mbz" in="$files/in" -- "$mbrun" decompress -f --rm in.mbz
prepare() { cp "$files/in" .; }
failing memory 12 in="$files/in" in.mbz="$files/in5.mbz" -- "$mbrun" compress --rm -5 in
prepare() { mkdir d && cp "$files/in" d; }
failing readdir 5 d/in="$files/in" d/in.mbz="$files/in.mbz" -- "$mbrun" compress -r -1 d
prepare() { cp "$files"/model.safetensors "$files"/model.json .; cp "$files/old" model.mb; }
each_call model.mb="$files/old" model.mb="$files/model.mb" -- \
    "$convert" model.safetensors -q -f -o model.mb
prepare() { cp "$files/in" "$files/in5.mbz" .; }
for command in "generate -n 2" "score in" "list in5.mbz" "test in5.mbz" info; do
    for call in "memory 12" "read 5" "open 24"; do
        failing $call in="$files/in" -- "$mbrun" $command
    done
done
prepare() { cp "$files/in" .; }
for command in "score --mix in" "score --json --strided in" "score --html page in"; do
    failing memory 12 in="$files/in" -- "$mbrun" $command
done
failing thread 11 in="$files/in" in.mbz="$files/in5.mbz" -- "$mbrun" compress --rm -T 2 -5 in
failing thread 11 in="$files/in" in.mbz="$files/in.mbz" -- "$mbrun" compress --rm -T 2 -1 in
failing read 0 in="$files/in" in.mbz="$files/in5.mbz" -- "$mbrun" compress --rm -5 in # cut off
prepare() { cp "$files/in5.mbz" .; }
failing read 0 in5.mbz="$files/in5.mbz" in5="$files/in" -- "$mbrun" decompress --rm in5.mbz
prepare() { cp "$files"/model.safetensors "$files"/model.json .; cp "$files/old" model.mb; }
failing read 0 model.mb="$files/old" model.mb="$files/model.mb" -- \
    "$convert" model.safetensors -q -f -o model.mb
if [ -s "$root/models/image.mb" ] && [ -s "$root/models/audio.mb" ]; then
    prepare() { cp "$files/p.ppm" .; }
    for call in "memory 12" "write 28" "close 28" "read 0" "thread 11"; do
        failing $call p.ppm="$files/p.ppm" p.ppm.mbi="$files/p.mbi" -- \
            "$mbrun" image pack --rm -T 2 p.ppm
    done
    prepare() { cp "$files/p.mbi" .; }
    for call in "memory 12" "write 28" "close 28" "read 0"; do
        failing $call p.mbi="$files/p.mbi" p.ppm="$files/p.ppm" -- \
            "$mbrun" image unpack --rm -o p.ppm p.mbi
    done
    prepare() { cp "$files/in" .; }
    for call in "memory 12" "write 28" "close 28"; do
        failing $call in="$files/in" a.wav="$files/a.wav" -- \
            "$mbrun" generate -m audio -n 0.002 --seed 1 -o a.wav
    done
fi
group "a call fails at $points points"

# ----------------------------------------------------------------------------- less than asked for
prepare() { cp "$files"/* .; }
rm -rf ./* && prepare
for command in "$mbrun compress -q -f -1 in" "$mbrun compress -q -f -1 -o in.mbz -" \
    "$mbrun compress -q -c -1 in" "$mbrun compress -q -c -1 -"; do
    FAULTS_SHORT=1 LD_PRELOAD=$shim $command <in >../out 2>../said || fail "$command: short"
    case $command in *-c*) cmp ../out "$files/in.mbz" ;; *) cmp in.mbz "$files/in.mbz" ;; esac ||
        fail "$command: short reads and writes change the output"
done
if [ -s a.wav ]; then
    FAULTS_SHORT=1 LD_PRELOAD=$shim "$mbrun" image pack -f -o short.mbi p.ppm 2>../said &&
        cmp short.mbi p.mbi || fail "image pack: short"
    FAULTS_SHORT=1 LD_PRELOAD=$shim "$mbrun" image unpack -f -o short.ppm p.mbi 2>../said &&
        cmp short.ppm p.ppm || fail "image unpack: short"
    FAULTS_SHORT=1 LD_PRELOAD=$shim "$mbrun" generate -m audio -n 0.002 --seed 1 -o short.wav \
        2>../said && cmp short.wav a.wav || fail "generate: short"
fi
FAULTS_SHORT=1 LD_PRELOAD=$shim "$mbrun" score in >../out 2>../said || fail "score: short"
"$mbrun" score in 2>../said | cmp - ../out || fail "score: short reads change the figures"
for command in "$mbrun decompress -q -f -o in in.mbz" "$mbrun decompress -q -c in.mbz" \
    "$mbrun decompress -q -c -" "$mbrun test -q in.mbz"; do
    cp "$files/in" in
    FAULTS_SHORT=1 LD_PRELOAD=$shim $command <in.mbz >../out 2>../said || fail "$command: short"
    case $command in *-c*) cmp ../out in ;; *) cmp in "$files/in" ;; esac ||
        fail "$command: short reads and writes change the output"
done
FAULTS_SHORT=1 LD_PRELOAD=$shim "$convert" model.safetensors -q -f -o model.mb 2>../said ||
    fail "mbconvert: short"
cmp model.mb "$files/model.mb" || fail "mbconvert: short writes change the model"
group "short reads and writes, interrupted calls"

cd "$root" && rm -rf "$dir"
echo "the tools and faults ... ok"
