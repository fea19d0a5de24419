#!/bin/sh
# mbrun generate, score, info and every --help: options, exit statuses, what the JSON says.
# Strided inference itself is checked by test_score.c. Run from the repository's root, with the
# tools and models/text-small.mb there.
set -u
folder=score
. tests/cli.sh
tells() { grep -q -- "$1" out || fail "the output has no '$1': $(head -c 600 out)"; }
bits() { sed 's/.*"bits": \([0-9.]*\).*/\1/' out; } # the total of score --json

head -c 3000 "$data/text.txt" >text

# -------------------------------------------------------------------------------------------- help
for command in generate score compress decompress test list info bench; do
    run 0 "$mbrun" $command --help
    tells "^Usage: mbrun $command "
    [ -z "$(cut -c 121- out | tr -d '\n')" ] ||
        fail "$command --help is too wide: $(cut -c 121- out)"
    case $command in list | info) ;; *) tells '--type EXT' ;; esac
    run 2 "$mbrun" $command --no-such-option
done
group "every --help"

# --------------------------------------------------------------------------------- score --strided
run 0 "$mbrun" score --json --context 512 text
tells '"strided": false'
plain=$(bits)
run 0 "$mbrun" score --json --context 512 --strided text
tells '"strided": true'
both=$(bits)
awk "BEGIN { exit !($both < $plain) }" || fail "strided: $both bits, otherwise $plain"
"$mbrun" score --json --context 512 --strided - <text >out 2>said || fail "from standard input"
[ "$(bits)" = "$both" ] || fail "from standard input: $(bits) bits, not $both"
run 0 "$mbrun" score --json --strided --window 1000 text
windows=$(bits)
for i in 0 1 2; do dd if=text of="text.$i" bs=1000 skip=$i count=1 2>/dev/null; done
run 0 "$mbrun" score --json --strided text.0 text.1 text.2
awk "BEGIN { d = $windows - $(bits); exit !(d * d < 1e-12) }" ||
    fail "windows: $windows, files: $(bits)"
run 0 "$mbrun" score --json --mmap --strided text.0 text.1 text.2 # mapped or read: the same
awk "BEGIN { d = $windows - $(bits); exit !(d * d < 1e-12) }" || fail "--mmap: $(bits) bits"
: >empty
run 0 "$mbrun" score --json --strided empty
run 2 "$mbrun" score --strided --logits out.f32 text
says strided
run 2 "$mbrun" score --strided --mix text
says strided
run 1 "$mbrun" score --context 1 text
says context
group "score --strided"

# ------------------------------------------------------------------------------------------ --type
for command in generate "score text" "score --mix text" "score --strided text" "compress text" \
    "compress -c text" "compress --against text" "bench --seconds 0.01"; do
    run 1 "$mbrun" ${command%% *} --type txt $(echo "$command " | cut -d ' ' -f 2-)
    says --type
    says 'file type'
done
[ ! -e text.mbz ] || fail "compress --type leaves an output"
run 0 "$mbrun" compress text
run 1 "$mbrun" test --type txt text.mbz
says --type
run 0 "$mbrun" compress -f --dictionary text.0 text
run 1 "$mbrun" decompress -c text.mbz
says --dictionary
says --type
# told txt, wav ...
run 0 "$convert" "$data/small-bgpt.safetensors" -q -o bgpt.mb --config "$data/small-bgpt.json"
run 0 "$mbrun" score -m bgpt.mb --json --type txt text
txt=$(bits)
run 0 "$mbrun" score -m bgpt.mb --json --type wav text
[ "$(bits)" != "$txt" ] || fail "txt and wav are all one"
run 1 "$mbrun" score -m bgpt.mb --type '' text
run 1 "$mbrun" score -m bgpt.mb --type 12345678901234567 text
says 'file type'
run 2 "$mbrun" compress -m bgpt.mb -1 --type wav text
says --type
run 0 "$mbrun" compress -1 -f text
run 1 "$mbrun" test -m bgpt.mb --type wav text.mbz
says --type
for level in 5 7; do
    run 0 "$mbrun" compress -m bgpt.mb -f -$level --type wav text
    run 0 "$mbrun" test -m bgpt.mb --type wav text.mbz
    run 0 "$mbrun" decompress -m bgpt.mb -c --type wav text.mbz
    cmp out text || fail "-$level --type wav: other bytes"
    for wrong in '' '--type txt' '--type wav --dictionary text.0'; do
        run 1 "$mbrun" decompress -m bgpt.mb -c $wrong text.mbz
        says --type
    done
    run 0 "$mbrun" compress -m bgpt.mb -f -$level --dictionary text.0 --type wav text
    run 1 "$mbrun" test -m bgpt.mb --dictionary text.0 text.mbz
    run 0 "$mbrun" test -m bgpt.mb --dictionary text.0 --type wav text.mbz
done
run 0 "$mbrun" generate -m bgpt.mb --type txt --json -n 100000 --seed 1 -t 1 --top-p 1
tells '"ended": true'
run 0 "$mbrun" generate -m bgpt.mb --type txt -n 0 --seed 1 -t 1 --top-p 1 --no-echo
group "--type"

# ---------------------------------------------------------------------------------- generate, info
run 0 "$mbrun" generate --json -n 20 -p "The "
tells '"bytes": 20, "ended": false'
run 0 "$mbrun" info
tells 'no pad id, no end id'
tells 'rotary positions, RMSNorm, final norm, GELU, token shift'
[ -z "$(sed -n '/^  stage/,$p' out | cut -c 111- | tr -d '\n')" ] ||
    fail "info's table is wider than 110 columns"
run 0 "$mbrun" info --json
for field in '"end_id": null' '"kv_heads": 4' '"norm": "RMSNorm"' '"activation": "GELU"' \
    '"convolutions": \[\]' \
    '"position_kind": "rotary"' '"token_shift": true' '"qk_norm": false' '"dim_per_byte": null' \
        '"cross_patch": 0'; do
    tells "$field"
done
group "generate, info"

# ------------------------------------------------------------------------------------------ drafts
# the same bytes with and without, fewer passes where data repeat themselves
i=0
while [ $i -lt 40 ]; do
    printf 'a line that comes again and again, number %d\n' $((i % 4))
    i=$((i + 1))
done >lines
run 0 "$mbrun" generate -f lines --no-echo -n 400 --seed 1 -t 0.2 --draft 0 -v
says '400 bytes in .* s: .* bytes/s, 1.00 bytes a pass'
cp out plain
run 0 "$mbrun" generate -f lines --no-echo -n 400 --seed 1 -t 0.2 -v
cmp -s out plain || fail "other bytes with drafts"
says ', \([2-9]\|1[0-9]\)\.[0-9]* bytes a pass'
run 0 "$mbrun" generate -f lines --no-echo -n 400 --seed 1 -t 0.2 --draft 3
cmp -s out plain || fail "other bytes with --draft 3"
run 2 "$mbrun" generate -n 1 --draft 16
run 0 "$mbrun" compress -5 -f -o lines.mbz lines
run 0 "$mbrun" decompress -f -v --draft 0 -o lines.out lines.mbz
says '; 1.00 bytes a pass'
cmp -s lines lines.out || fail "decompressed without drafts"
run 0 "$mbrun" decompress -f -v -o lines.out lines.mbz
says '; \([2-9]\|1[0-9]\)\.[0-9]* bytes a pass'
cmp -s lines lines.out || fail "decompressed with drafts"
run 0 "$mbrun" test --json lines.mbz
tells '"bytes_per_pass": [2-9]'
group "--draft"

# a second model that guesses: the same bytes, whatever it is
run 0 "$convert" "$data/small-paper.safetensors" -q -f -o paper.mb --quant f32 \
    --config "$data/small-paper.json"
for sampler in "-t 0" "-t 0.7 --seed 5" "-t 1 --top-p 1 --top-k 20 --seed 1" \
    "-t 1.2 --min-p 0.05 --seed 1" "-t 0.5 --repetition-penalty 1.2 --seed 1"; do
    run 0 "$mbrun" generate -f lines --no-echo -n 150 $sampler --draft 0
    cp out plain
    for second in text-small "$OLDPWD/models/text.mb" paper.mb; do
        run 0 "$mbrun" generate -f lines --no-echo -n 150 $sampler -v -T 2 --draft $second
        says 'bytes a pass'
        cmp -s out plain || fail "$sampler --draft $second: other bytes"
    done
done
run 0 "$mbrun" generate -m paper.mb -f lines --no-echo -n 200 --seed 1 --draft 0
cp out plain
run 0 "$mbrun" generate -m paper.mb -f lines --no-echo -n 200 --seed 1 --draft text-small
cmp -s out plain || fail "an f32 model and a second one with int8: other bytes"
head -c 4000 "$data/text.txt" >several
for blocks in 1K 2K 64K; do # four side by side, two, one
    run 0 "$mbrun" compress -f -B $blocks --verify --draft text-small several
    cp several.mbz once.mbz
    run 0 "$mbrun" compress -f -B $blocks several
    cmp -s several.mbz once.mbz || fail "--draft changes what compress writes"
    for second in text-small paper.mb; do
        run 0 "$mbrun" decompress -f -v -T 2 --draft $second -o several.out several.mbz
        says 'bytes a pass'
        cmp -s several several.out || fail "-B $blocks --draft $second: other bytes"
        run 0 "$mbrun" test --draft $second several.mbz
    done
done
for command in "generate -n 1" "test lines.mbz" "compress -f --verify lines"; do
    run 1 "$mbrun" $command --draft nowhere
    says 'nowhere: no such model'
    run 2 "$mbrun" $command --draft 16
    says 'from 0 to 15'
done
few=$OLDPWD/tests/tmp/api-four-q8.mb # its vocabulary: 100
if [ -e "$few" ]; then
    run 1 "$mbrun" generate -n 1 --draft "$few"
    says 'has a vocabulary of 100, too small'
    run 0 "$mbrun" generate -m "$few" --no-echo -n 30 --seed 1 --draft 0
    cp out plain
    run 0 "$mbrun" generate -m "$few" --no-echo -n 30 --seed 1 --draft text-small
    cmp -s out plain || fail "a model of few bytes: others with a second one"
fi
group "--draft MODEL"

cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun generate, score, info ... ok"
