#!/bin/sh
# mbrun bench: workloads by name, what they are compared with, --parts, --json. No figure is
# checked. Run from the repository's root, with the tools and models/text-small.mb there.
set -u
folder=bench
. tests/cli.sh
tells() { grep -q -- "$1" out || fail "the output has no '$1': $(head -c 2000 out)"; }
is_silent() { ! grep -q -- "$1" out || fail "the output has '$1': $(head -c 2000 out)"; }
bench() { run 0 "$mbrun" bench --seconds 0.01 "$@"; }
is_json() { # by a strict parser, if there is one
    command -v python3 >/dev/null || return
    python3 -c 'import json, sys; json.load(sys.stdin, parse_constant=sys.exit)' <out ||
        fail "no JSON: $(cat out)"
}

# ------------------------------------------------------------------------------------------- names
run 2 "$mbrun" bench nothing
says "nothing: no such workload; there are all, score_short, .*, streams_64_mixed, .*"
run 2 "$mbrun" bench stream_1 stream_2
says stream_2
run 0 "$mbrun" bench --help
for name in score_long stream_1_far streams_16_far streams_64_far streams_64_mixed generate \
    decompress_one compress_context_mixing; do
    tells "\<$name\>"
done
bench -T 1 feed
tells 'feed (prefill) 4096 .* bytes/s  \[##########\]'
tells 'read bandwidth '
is_silent stream
is_silent score
group "names"

# ------------------------------------------------------------------------------------------- pairs
bench -T 2 --json stream_1_far streams_64_mixed
is_json
for key in '"trials": \[{"threads": 2, ' '"read_bytes_per_second": ' '"stream_1": {"bytes": 256, ' \
    '"stream_1_far": {"bytes": 6144, "streams": 1, "bytes_per_second": [1-9]' \
    '"streams_64": {' '"streams_64_mixed": {"bytes": 256, "streams": 64, ' \
    '"stream_1_far_over_short": [0-9]' '"streams_64_mixed_over_aligned": [0-9]' \
    '"stream_of_bandwidth": [0-9]'; do
    tells "$key"
done
is_silent '"score_short"'
is_silent '"scoring_of_peak"'
bench -T 1 generate decompress_one
tells 'generate 512 .* a pass .*% of generate 512, --draft 0'
tells 'generate 512, --draft 0 .* 1.00 a pass'
tells 'decompress -7, once 4096 .* a pass'
tells 'generate, with drafts over without  *[0-9.]*x'
tells 'decompress once, with drafts over without  *[0-9.]*x'
bench -T 1 --json generate_draft_0
is_json
tells '"generate_draft_0": {.*"bytes_per_pass": 1[,}]'
is_silent '"generate": '
group "what a workload is compared with"

# ------------------------------------------------------------------------------------------- parts
run 2 "$mbrun" bench --parts feed
says '--parts'
bench --parts -T 1
for words in '^1 thread, the first 256 bytes' '^1 thread, after 6144 bytes' \
    '^ * global  *local  *all' '^  products ' '^  attention ' '^  sum  *[0-9].*100.0%$' \
    'The whole byte: .* us without it' \
    'weights a byte at .* GB/s'; do
    tells "$words"
done
bench --parts --json -T 2
is_json
for key in '"parts": \[{"threads": 2, "bytes": 256, "far": false, ' '"far": true' \
    '"seconds_per_byte": [0-9]' '"product_bytes_per_second": [0-9]' \
    '"stages": \[{"name": "global", "products": [0-9]' '"waiting": [0-9]'; do
    tells "$key"
done
group "--parts"

# -------------------------------------------------------------------------------------- any model
for family in bgpt paper mblm spacebyte; do
    run 0 "$convert" "$data/small-$family.safetensors" -q -o $family.mb \
        --config "$data/small-$family.json"
    bench -m $family.mb -T 2 --json stream_1_far streams_64_far streams_64_mixed generate score_long
    is_json
    tells '"generate": {"bytes": '
    bench -m $family.mb -T 1 --parts
    tells 'after [1-9][0-9]* bytes'
done
bench -m mblm.mb -T 1 # the usual workloads; all: every one
tells 'decompress -7, once 4096 '
is_silent 'draft 0'
is_silent inf
bench -m mblm.mb -T 1 --json all
is_json
tells '"compress_context_mixing_1mb"'
run 0 "$mbrun" bench --seconds 0.01 -T 1 --memory 100M stream_1 streams_64_far
says 'streams_64_far: left out: .* --memory [0-9]*M'
is_silent '64 streams after'
group "other families, little memory"

cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun bench ... ok"
