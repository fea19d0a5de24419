#!/bin/sh
# What `make fuzz` runs once the programs are built: sh tests/fuzz.sh SECONDS NAME..., from the
# repository's root. Each tests/bin/fuzz_NAME (libFuzzer) goes on for SECONDS from its seeds: those
# that replay_NAME makes, those in tests/data/fuzz/NAME, what earlier runs left in
# tests/tmp/fuzz/NAME/corpus. Then cover_NAME, if it is there, reads all of them, and the lines that
# were reached are counted (llvm-profdata, llvm-cov). With `replay` for SECONDS only replay_NAME is
# run, over the seeds: the part of `make test`. FUZZ_JOBS=N runs N processes of each.
set -u
seconds=$1
shift
fail() { echo "FAILED: $*"; exit 1; }

# Of what the lines are counted: numbers are sections of megabyte.c.
scope() {
    case $1 in
        model) echo 4 9 10 11 12 13 14 ;;
        stream) echo 9 11 13 14 ;;
        codec) echo 15 16 17 18 ;;
        image) echo 19 ;;
        picture) echo picture.c png.c inflate.c deflate.c ;;
        json) echo json.c config.c ;;
        convert) echo json.c config.c checkpoint.c safetensors.c pytorch.c families.c mbconvert.c ;;
        *) echo "$1.c" ;;
    esac
}

# cover NAME FOLDER...: "PART covered/lines" for every part of its scope, and of all
cover() {
    name=$1
    shift
    LLVM_PROFILE_FILE=$at/profile.raw tests/bin/cover_$name "$@" >"$at/covered.log" 2>&1 ||
        { cat "$at/covered.log"; return 1; }
    llvm-profdata merge -sparse "$at/profile.raw" -o "$at/profile" &&
        llvm-cov export -format=lcov -instr-profile="$at/profile" tests/bin/cover_$name \
            >"$at/lines" 2>"$at/covered.log" || return 1
    grep -n '^/\* ==* [0-9]' megabyte.c | sed 's|:/\* =* *| |' >"$at/sections"
    awk -v scope="$(scope "$name")" -v sections="$at/sections" '
        BEGIN {
            n = split(scope, part, " ")
            for (i = 1; i <= n; i++) wanted[part[i]] = 1
            while ((getline line < sections) > 0) {
                split(line, s, " ")
                begins[++count] = s[1]; number[count] = s[2]
            }
        }
        /^SF:/ { file = $0; sub(/.*\//, "", file); sub(/^SF:/, "", file); section = 0 }
        /^DA:/ {
            split(substr($0, 4), d, ",")
            where = file
            if (file == "megabyte.c") {
                if (d[1] < begins[section]) section = 0
                while (section < count && d[1] >= begins[section + 1]) section++
                where = number[section]
            }
            if (!(where in wanted)) next
            lines[where]++; all++
            if (d[2] > 0) { hit[where]++; hits++ }
        }
        END {
            printf "%d%% of %d lines:", all ? 100 * hits / all : 0, all
            for (i = 1; i <= n; i++) {
                what = part[i] ~ /[.]/ ? part[i] : "section " part[i]
                percent = lines[part[i]] ? 100 * hit[part[i]] / lines[part[i]] : 0
                printf "%s %s %d%%", (i == 1 ? "" : ","), what, percent
            }
            print ""
        }' "$at/lines"
}

for name; do
    at=tests/tmp/fuzz/$name data=tests/data/fuzz/$name
    [ -d "$data" ] || data=
    if [ "$seconds" = replay ]; then
        tests/bin/replay_$name 0 1 || fail "replay_$name 0 1"
        [ -z "$data" ] || tests/bin/replay_$name "$data" || fail "replay_$name $data"
        continue
    fi
    mkdir -p "$at/corpus" "$at/seeds" "$at/crashes"
    tests/bin/replay_$name 0 1 "$at/seeds" >"$at/seeds.log" 2>&1 ||
        { cat "$at/seeds.log"; fail "replay_$name, its own seeds"; }
    tests/bin/fuzz_$name -fork="${FUZZ_JOBS:-0}" -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=4000 -artifact_prefix="$at/crashes/" "$at/corpus" "$at/seeds" $data \
        >"$at/log" 2>&1 ||
        { grep -v '^#[0-9]*.*\(NEW\|REDUCE\|pulse\)' "$at/log" | tail -n 60
            fail "fuzz_$name; its input is in $at/crashes"; }
    # the last number of executions: "#N DONE", or "#N: cov ..." of many processes
    runs=$(sed -n 's/^#\([0-9]*\)[: ].*/\1/p; s/^#\([0-9]*\)\t.*/\1/p' "$at/log" | tail -n 1)
    echo "fuzz_$name: $runs executions in $seconds s," \
        "$(ls "$at/corpus" | wc -l) inputs kept"
    [ -x tests/bin/cover_$name ] || continue
    lines=$(cover "$name" "$at/corpus" "$at/seeds" $data) || fail "cover_$name: $lines"
    echo "    $lines"
done
