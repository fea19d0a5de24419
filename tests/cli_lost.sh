#!/bin/sh
# mbrun never destroys what it did not first save: --rm beside writers, outputs that keep nothing,
# score --logits over its input, readers that go away, signals, names. Run from the repository's
# root, with tools/mbrun and models/text-small.mb there.
set -u
folder=lost
. tests/cli.sh
nothing_else() { # no temporary file stays
    ! ls -A | grep -q '^\.mbrun-' || fail "left behind: $(ls -A | grep '^\.mbrun-')"
}
# meanwhile COMMAND...: runs `mbrun compress --rm log`, and COMMAND while it is at work
meanwhile() {
    rm -f log.mbz
    head -c 30000 "$data/text.txt" >log
    "$mbrun" compress -7 -q -T 1 --rm log 2>said &
    pid=$!
    tries=0
    until ls -A | grep -q '^\.mbrun-' || [ $tries = 100 ]; do sleep 0.05; tries=$((tries + 1)); done
    sleep 0.3
    kill -0 $pid 2>/dev/null || fail "compress was too fast for this test"
    "$@"
    wait $pid
    status=$?
    nothing_else
}

# ---------------------------------------------------------------------------- --rm beside a writer
append() { echo NEW >>log; }
replace() { echo NEW >other; mv other log; }
overwrite() { printf 'NEW' | dd of=log conv=notrunc 2>/dev/null; }
overwrite_in_secret() { # same size, and the time of before
    touch -r log time
    overwrite
    touch -r time log
}
truncate_it() { : >log; }
for how in append replace overwrite overwrite_in_secret; do
    meanwhile $how
    [ $status = 1 ] || fail "$how: exit status $status"
    grep -q NEW log || fail "$how: what came meanwhile is gone"
    says changed
done
meanwhile truncate_it
[ $status = 1 ] && [ -e log ] || fail "truncated: exit status $status"
meanwhile rm log
[ $status = 1 ] || fail "removed meanwhile: exit status $status"
meanwhile true
[ $status = 0 ] && [ ! -e log ] && [ -s log.mbz ] || fail "undisturbed: exit status $status"
run 0 "$mbrun" decompress --rm log.mbz
head -c 30000 "$data/text.txt" | cmp - log || fail "--rm there and back"
[ ! -e log.mbz ] || fail "decompress --rm"

head -c 30000 "$data/text.txt" >log # and the other way
run 0 "$mbrun" compress -f log
rm log
"$mbrun" decompress -q -T 1 --rm log.mbz 2>said &
pid=$!
sleep 0.4
kill -0 $pid 2>/dev/null || fail "decompress was too fast for this test"
echo NEW >>log.mbz
wait $pid && fail "decompress --rm beside a writer: status 0"
[ -e log.mbz ] || fail "decompress --rm removes what was appended to"
nothing_else
group "--rm beside a writer"

# ----------------------------------------------------------------------- outputs that keep nothing
head -c 500 "$data/text.txt" >in
run 0 "$mbrun" compress -f in
mkfifo pipe
for out in /dev/null pipe; do
    run 1 "$mbrun" compress --rm -o $out in
    says --rm
    run 1 "$mbrun" decompress --rm -o $out in.mbz
    says --rm
    [ -e in ] && [ -e in.mbz ] || fail "--rm -o $out removes the input"
done
for direction in "compress in" "decompress in.mbz"; do
    "$mbrun" ${direction% *} --rm -o /dev/stdout "${direction#* }" 2>said | cat >out
    says --rm
    [ -e in ] && [ -e in.mbz ] || fail "--rm -o /dev/stdout removes the input"
done
run 0 "$mbrun" compress -o /dev/null in
run 2 "$mbrun" compress --rm -c in
ln in second
run 1 "$mbrun" compress --rm -f -o second in # the input by another name
[ -s in ] && [ -s second ] || fail "-o second"
rm in.mbz
run 1 "$mbrun" compress --rm in
says 'hard link'
[ -e in ] && [ ! -e in.mbz ] || fail "hard-linked"
run 0 "$mbrun" compress --rm -f in
[ ! -e in ] && [ -e second ] || fail "-f and hard-linked"
mv second in
rm in.mbz
for mode in 4644 2644 1644; do
    chmod $mode in
    run 1 "$mbrun" compress --rm in
    says setuid
    [ -e in ] && [ ! -e in.mbz ] || fail "mode $mode"
done
chmod 644 in
group "--rm: devices, pipes, links, setuid"

# ---------------------------------------------------------------------------------- score --logits
cp in page
for out in page ./page "$PWD/page"; do
    run 1 "$mbrun" score --logits "$out" page
    says 'is the input'
    run 1 "$mbrun" score -f --logits "$out" page
    cmp page in || fail "score --logits over its input"
done
ln page other
run 1 "$mbrun" score -f --logits other page
says 'is the input'
cmp page in || fail "score --logits over its input by another name"
rm other
echo old >logits
run 1 "$mbrun" score --logits logits page
says 'already exists'
run 1 "$mbrun" score -f --logits logits missing
[ "$(cat logits)" = old ] || fail "score --logits: an old output is gone for a missing input"
run 0 "$mbrun" score -f --logits logits page
[ "$(wc -c <logits)" = $((500 * 256 * 4)) ] || fail "logits of $(wc -c <logits) bytes"
run 0 "$mbrun" score --logits - page
cmp out logits || fail "logits to standard output"
"$mbrun" score --logits new "$data/text.txt" >out 2>said &
pid=$!
sleep 0.3
kill -TERM $pid
wait $pid
[ ! -e new ] || fail "half the logits stay"
nothing_else
group "score --logits"

cp "$data/small-bgpt.json" config.json
run 1 "$convert" "$data/small-bgpt.safetensors" -q -f -o config.json --config config.json
says 'is the input'
cmp config.json "$data/small-bgpt.json" || fail "mbconvert overwrites its configuration"
cp "$data/small-bgpt.safetensors" checkpoint.safetensors
run 1 "$convert" checkpoint.safetensors -q -f -o checkpoint.safetensors --config config.json
cmp checkpoint.safetensors "$data/small-bgpt.safetensors" || fail "mbconvert overwrites its input"
group "mbconvert"

# ---------------------------------------------------------------------------- readers that go away
head -c 60000 /dev/urandom >big
ends() { # EXPECTED COMMAND...: its status when its reader takes nothing
    expected=$1
    shift
    { "$@" 2>said; echo $? >status; } | { sleep 0.5; head -c 10; } >out
    [ "$(cat status)" = "$expected" ] || fail "$*: status $(cat status), not $expected"
}
cat big big >bigger
ends 141 "$mbrun" compress -c -1 bigger bigger
run 0 "$mbrun" compress -1 bigger
ends 141 "$mbrun" decompress -c bigger.mbz bigger.mbz
ends 141 "$mbrun" generate -n 200000
ends 141 "$mbrun" score --logits - page
[ ! -s said ] || grep -q 'bits/byte' said || fail "words about a reader that went away"
for i in 1 2 3; do head -c 200 in >j$i; done
{ "$mbrun" compress --json -f j1 j2 j3 2>said; echo $? >status; } | true
[ "$(cat status)" = 141 ] || fail "compress --json without a reader: status $(cat status)"
for i in 1 2 3; do
    "$mbrun" test j$i.mbz 2>said || fail "j$i was not compressed: its report could not be printed"
done
rm j?.mbz
run 1 sh -c "exec '$mbrun' compress --json j1 j2 j3 >/dev/full"
[ -e j1.mbz ] && [ -e j2.mbz ] && [ -e j3.mbz ] || fail "a full device for reports stops the work"
rm j?.mbz
{ "$mbrun" compress -v j1 j2 j3 2>&1 >/dev/null; echo $? >status; } | true
[ -e j3.mbz ] || fail "messages without a reader stop the work"
nothing_else
group "readers that go away"

# ---------------------------------------------------------------------------------- signals, names
head -c 60000 "$data/text.txt" >log
signals='INT TERM HUP QUIT'
env --default-signal=INT,QUIT,HUP true 2>/dev/null || signals=TERM # not everybody's env can
for signal in $signals; do
    rm -f log.mbz
    set -- "$mbrun" compress -q -T 1 log
    # sh and nohup ignore them
    [ "${signals%% *}" != INT ] || set -- env --default-signal=INT,QUIT,HUP "$@"
    "$@" 2>said &
    pid=$!
    tries=0
    until ls -A | grep -q '^\.mbrun-' || [ $tries = 100 ]; do sleep 0.05; tries=$((tries + 1)); done
    kill -$signal $pid
    wait $pid
    status=$?
    case $signal in INT) number=130 ;; TERM) number=143 ;; HUP) number=129 ;; QUIT) number=131 ;; \
        esac
    [ $status = $number ] || fail "SIG$signal: exit status $status, not $number"
    [ ! -e log.mbz ] || fail "SIG$signal: an output"
    nothing_else
done
name=$(printf 'a\033[31mb\nc\302\233d\377e')
cp in "$name"
run 0 "$mbrun" compress -v "$name"
run 1 "$mbrun" compress -v "$name"
cat said >all
for command in "list" "test -v" "score" "compress --against" "test -v missing"; do
    "$mbrun" $command "$name" "$name.mbz" >out 2>said </dev/null
    cat out said >>all
done
cp "$MEGABYTE_MODEL" "$name.mb"
head -c 500 in >some
for command in "compress -f -o in.mbz" "compress --against"; do
    "$mbrun" $command -m "$name.mb" some >out 2>said </dev/null
    cat out said >>all
done
"$mbrun" list -m "$name.mb" in.mbz >>all 2>&1
"$mbrun" score --isa "$name" some >>all 2>&1
"$mbrun" compress --against -3 --dictionary "$name" some >>all 2>&1
grep -q 'a?\[31mb?c?d?e' all || fail "the name is not there: $(cat -v all)"
LC_ALL=C grep -q "$(printf '[\033\233\377]')" all && fail "escape sequences reach the terminal"
rm -f "$name" "$name.mbz" "$name.mb" some
nothing_else
group "signals, names with escape sequences"

cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun loses nothing ... ok"
