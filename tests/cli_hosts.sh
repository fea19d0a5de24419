#!/bin/sh
# The tools under SIGTERM, SIGINT and SIGKILL, after every call that they make to the system and in
# the middle of their work; with small stacks; and two copies of the library in one program. Run
# from the repository's root, with the tools, libmegabyte.so and models/ there.
set -u
folder=hosts
root=$PWD
library=$(echo "$PWD"/libmegabyte.so.*)
. tests/cli.sh
: "${CC:=cc}"
models=$root/models
for name in text-small audio image; do
    [ -s "$models/$name.mb" ] || { echo "mbrun and hosts ... skipped: no models"; exit 0; }
done
head -c 700 "$data/text.txt" >in
{ printf 'P6\n9 7\n255\n'; head -c 189 "$data/text.txt"; } >p.ppm
mkdir work kept
files=$dir/kept
cp in p.ppm "$files"
# Whole outputs, to compare with.
"$mbrun" compress -q -1 -o "$files/in.mbz" in && "$mbrun" compress -q -5 -o "$files/in5.mbz" in &&
    "$mbrun" image pack -q -o "$files/p.mbi" p.ppm &&
    "$mbrun" image map -q -o "$files/map.png" p.ppm &&
    "$mbrun" generate -m audio -n 0.004 --seed 1 -o "$files/a.wav" 2>said &&
    "$mbrun" score --logits "$files/logits" in >out 2>said &&
    "$mbrun" score --html "$files/page" in >out 2>said || fail "without signals"
cp "$data/small-paper.safetensors" "$files/model.safetensors"
cp "$data/small-paper.json" "$files/model.json"
"$convert" "$files/model.safetensors" -q -o "$files/model.mb" || fail "without signals"
echo old >"$files/old"

# ------------------------------------------------------------------------- signals after each call
cd work || exit 1
fail() { echo "FAILED: $*"; [ ! -f "$dir/said" ] || sed 's/^/    /' "$dir/said"; exit 1; }
shim=$dir/faults.so
points=0

# Of NAME=FILE..., what is there is whole, and so is one of them at least.
check_files() { # WHEN NAME=FILE...
    when=$1 found=
    shift
    for pair; do
        [ -e "${pair%%=*}" ] || continue
        good=
        for other; do
            [ "${other%%=*}" != "${pair%%=*}" ] || ! cmp -s "${pair%%=*}" "${other#*=}" || good=1
        done
        [ -n "$good" ] || fail "$when: half a ${pair%%=*}: $(ls -lA)"
        found=1
    done
    [ -n "$found" ] || fail "$when: nothing is left: $(ls -A)"
}
# struck SIGNAL NAME=FILE... -- COMMAND...: the signal comes after the Nth call, for every N. The
# last file is what the command makes.
struck() {
    signal=$1 pairs= n=0 first=${2%%=*}
    shift
    while [ "$1" != -- ]; do pairs="$pairs $1" last=$1; shift; done
    shift
    case $signal in TERM) number=15 ;; INT) number=2 ;; KILL) number=9 ;; esac
    while :; do
        n=$((n + 1))
        rm -rf ./* ./.[!.]* ../reached
        prepare
        $default FAULTS_SIGNAL="$n $number" FAULTS_REACHED="$dir/reached" LD_PRELOAD="$shim" "$@" \
            >../out 2>../said </dev/null
        status=$?
        [ -e ../reached ] || break
        points=$((points + 1))
        when="$*: SIG$signal after call $n, exit status $status"
        [ $status = $((128 + number)) ] || [ $status = 0 -a $signal != KILL ] || fail "$when"
        check_files "$when" $pairs
        [ $status != 0 ] || cmp -s "${last%%=*}" "${last#*=}" || fail "$when: no output"
        if [ $signal != KILL ]; then
            ! ls -A | grep -q '^\.mb' || fail "$when: leaves $(ls -A | grep '^\.mb')"
        elif [ -e "$first" ]; then # once more
            "$@" >../out 2>../said </dev/null || fail "$when: and then it fails"
            cmp -s "${last%%=*}" "${last#*=}" || fail "$when: and then no output"
        fi
    done
    [ $status = 0 ] || fail "$*: exits with $status without a signal"
    [ $n -gt 2 ] || fail "$*: only $n calls"
}
each_signal() { struck TERM "$@"; struck KILL "$@"; }
default=env

if $CC -shared -fPIC -O1 "$root/tests/faults.c" -o "$shim" -ldl 2>../said &&
    echo 'int main(void) { return 0; }' | $CC -x c - -o ../nothing &&
    [ "$(LD_PRELOAD=$shim ../nothing 2>&1)" = '' ]; then
    prepare() { cp "$files/in" .; }
    each_signal in="$files/in" in.mbz="$files/in.mbz" -- "$mbrun" compress -f --rm -1 in
    each_signal in="$files/in" in.mbz="$files/in5.mbz" -- "$mbrun" compress -f --rm -5 in
    each_signal in="$files/in" logits="$files/logits" -- "$mbrun" score -f --logits logits in
    struck TERM in="$files/in" page="$files/page" -- "$mbrun" score -f --html page in
    for command in "generate -n 2" "score --mix in" "score --map in" info; do
        struck TERM in="$files/in" -- "$mbrun" $command
    done
    prepare() { cp "$files/in" .; cp "$files/old" in.mbz; }
    each_signal in="$files/in" in.mbz="$files/old" in.mbz="$files/in.mbz" -- \
        "$mbrun" compress -f -1 in
    prepare() { cp "$files/in.mbz" .; }
    each_signal in.mbz="$files/in.mbz" in="$files/in" -- "$mbrun" decompress -f --rm in.mbz
    struck TERM in.mbz="$files/in.mbz" -- "$mbrun" test in.mbz
    struck TERM in.mbz="$files/in.mbz" -- "$mbrun" list in.mbz
    prepare() { cp "$files/in5.mbz" in.mbz; }
    each_signal in.mbz="$files/in5.mbz" in="$files/in" -- "$mbrun" decompress -f --rm in.mbz
    prepare() { cp "$files/p.ppm" .; }
    each_signal p.ppm="$files/p.ppm" p.ppm.mbi="$files/p.mbi" -- \
        "$mbrun" image pack -f --rm p.ppm
    struck TERM p.ppm="$files/p.ppm" map.png="$files/map.png" -- \
        "$mbrun" image map -f -o map.png p.ppm
    prepare() { cp "$files/p.mbi" .; }
    each_signal p.mbi="$files/p.mbi" p.ppm="$files/p.ppm" -- \
        "$mbrun" image unpack -f --rm -o p.ppm p.mbi
    prepare() { cp "$files/in" .; }
    each_signal in="$files/in" a.wav="$files/a.wav" -- \
        "$mbrun" generate -m audio -n 0.004 --seed 1 --force -o a.wav
    prepare() { cp "$files"/model.safetensors "$files"/model.json .; cp "$files/old" model.mb; }
    each_signal model.mb="$files/old" model.mb="$files/model.mb" -- \
        "$convert" model.safetensors -q -f -o model.mb
    if env --default-signal=INT true 2>/dev/null; then # not everybody's env can; sh may ignore it
        default="env --default-signal=INT"
        prepare() { cp "$files/in" .; }
        struck INT in="$files/in" in.mbz="$files/in.mbz" -- "$mbrun" compress -f --rm -1 in
        prepare() { cp "$files"/model.safetensors "$files"/model.json .; cp "$files/old" model.mb; }
        struck INT model.mb="$files/old" model.mb="$files/model.mb" -- \
            "$convert" model.safetensors -q -f -o model.mb
    fi
    group "signals at $points points"
else
    group "signals after each call: skipped, no glibc"
fi

# ---------------------------------------------------------------------- signals in the middle of it
# stopped FILE... -- COMMAND...: SIGTERM while it is at work; what is there then is FILE... alone
stopped() {
    left=
    while [ "$1" != -- ]; do left="$left$1 "; shift; done
    shift
    "$@" >../out 2>../said </dev/null &
    pid=$!
    (seconds=0; while [ $seconds -lt 60 ]; do sleep 1; seconds=$((seconds + 1)); done
        kill -9 $pid) >/dev/null 2>&1 &
    guard=$!
    sleep 0.4
    kill -0 $pid 2>/dev/null || fail "$* was too fast for this test"
    kill -TERM $pid
    wait $pid
    status=$?
    { kill $guard; wait $guard; } 2>/dev/null
    [ $status = 143 ] || fail "$*: SIGTERM, exit status $status"
    [ "$(ls -A | tr '\n' ' ')" = "$left" ] || fail "$*: SIGTERM leaves $(ls -A)"
}
rm -rf ./* ./.[!.]*
{ printf 'P6\n128 128\n255\n'; head -c 49152 /dev/urandom; } >noise.ppm
for i in 1 2 3 4 5 6 7 8; do cat "$data/text.txt"; done >long
"$mbrun" image pack -q --model-alone noise.ppm 2>../said || fail "image pack"
head -c 40000 "$data/text.txt" | "$mbrun" compress -5 >long.mbz 2>../said || fail "compress -5"
all="long long.mbz noise.ppm noise.ppm.mbi"
stopped $all -- "$mbrun" generate -n 100000000
stopped $all -- "$mbrun" generate -n 0
stopped $all -- "$mbrun" generate -m audio -n 3000 -o a.wav
stopped $all -- "$mbrun" generate -m image -n 50 -o a.png
for how in "" --strided "--window 512" --mix --map "--logits logits" "--html page"; do
    stopped $all -- "$mbrun" score $how long
done
for how in "-f -5" "-f -7" "-f --rm -9" "--verify -6 -o other"; do
    stopped $all -- "$mbrun" compress -T 1 $how long
done
for how in "compress -T 1 -6 --dictionary long -o other noise.ppm" "compress --against long" \
    "decompress -T 1 -o other long.mbz" "test -T 1 long.mbz" \
    "image pack -f noise.ppm" "image map -o map.png noise.ppm" "bench --seconds 3"; do
    stopped $all -- "$mbrun" $how
done
group "SIGTERM in the middle of the work"

# ------------------------------------------------------------- a file cut off while it is mapped
cut() { # STATUS COMMAND...: its model is cut off meanwhile
    expected=$1
    shift
    cp "$MEGABYTE_MODEL" model.mb
    "$@" >../out 2>../said </dev/null &
    pid=$!
    sleep 0.4
    : >model.mb
    [ $expected != 143 ] || { sleep 0.3; kill -TERM $pid; }
    wait $pid
    status=$?
    rm model.mb
    [ $status = $expected ] || fail "$*: the model is cut off, exit status $status"
    [ "$(ls -A | tr '\n' ' ')" = "$all " ] || fail "$*: the model is cut off: $(ls -A)"
}
bus=135
[ "$(kill -l 7)" = BUS ] || bus=138
for how in "score long" "compress -T 2 -5 -o other long" "generate -T 1 -n 100000000"; do
    cut $bus "$mbrun" $how -m ./model.mb --mmap
    grep -q 'was cut off while it was mapped' ../said || fail "$how: no word of it"
    cut 143 "$mbrun" $how -m ./model.mb
done
group "a model's file cut off, mapped and read"

# ------------------------------------------------------------------------------------ small stacks
# The main thread's own, and those of the library's threads, which the system makes as large.
cp "$files"/* .
for command in "compress -q -f -T 3 -5 -o out.mbz in" "decompress -q -f -T 3 -o back in5.mbz" \
    "image unpack -q -f -o back.ppm p.mbi" "score in" "generate -n 20 --seed 1" \
    "compress -q -f -1 in"; do
    (ulimit -s 256 && exec "$mbrun" $command) >../out 2>../said || fail "$command: stack of 256 KB"
done
cmp out.mbz "$files/in5.mbz" && cmp back in && cmp back.ppm p.ppm ||
    fail "small stacks: other bytes"
(ulimit -s 256 && exec "$convert" model.safetensors -q -f -o other.mb) 2>../said ||
    fail "mbconvert: stack of 256 KB"
cmp other.mb model.mb || fail "mbconvert: small stack: another model"
group "stacks of 256 KB"

# -------------------------------------------------------------------------------------- two copies
cd .. || exit 1
if [ -s "$library" ] && $CC -O1 -pthread -rdynamic "$root/tests/copies.c" "$root/megabyte.o" \
    -o copies -lm -ldl 2>said; then
    run 0 ./copies "$library" "$models/text-small.mb" "$models/audio.mb"
    cat out
    $CC -O1 -pthread -rdynamic -DFOREIGN "$root/tests/copies.c" -o foreign -lm -ldl 2>said ||
        fail "copies.c -DFOREIGN"
    run 0 ./foreign "$library" "$models/text-small.mb" "$models/audio.mb"
    group "two copies in one program"
else
    group "two copies in one program: skipped, no shared library"
fi

cd "$root" && rm -rf "$dir"
echo "the tools and hosts ... ok"
