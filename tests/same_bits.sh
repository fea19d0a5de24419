#!/bin/sh
# One number per model, from every build and way of calling. Run from the repository's root, with
# tools/mbconvert built.
#   COMPILERS  default $CC; .ci/run gives "gcc clang" and cross compilers
#   LEVELS     optimisation levels, separated by ;
#   RUNNER     what runs the programs, such as "qemu-aarch64 -L /usr/aarch64-linux-gnu"
#   THREADS    the option for them, -pthread by default
#   ISAS       to be forced in turn (those that are missing are skipped)
#   MODELS     further models, with their numbers: "HASH FILE", "HASH FILE compressed" and "HASH
#              FILE ensembles" lines
# With --pin: writes the numbers of the first build anew into this file, and checks nothing.
# The numbers change only together with MEGABYTE_NUMERICS_VERSION; those of compressed bytes with
# the format, too.
set -u
expected='8084ec20ddb57686 tests/tmp/bits-rope-q8.mb
b50fa0ba64a74299 tests/tmp/bits-rope-q8.mb compressed
8bcbbb3397f2895f tests/tmp/bits-rope-q8.mb ensembles
1468a2f6a9283c76 tests/tmp/bits-rope-f32.mb
7e820e156db836c2 tests/tmp/bits-rope-f32.mb compressed
3d2722432370d501 tests/tmp/bits-rope-f32.mb ensembles
56e67ebd5bc61310 tests/tmp/bits-three-q8.mb
864193a3a923d644 tests/tmp/bits-three-q8.mb compressed
b15870c58e1db3af tests/tmp/bits-three-q8.mb ensembles
fb1073c0a1516960 tests/tmp/bits-three-f32.mb
0f77c766eac249f8 tests/tmp/bits-three-f32.mb compressed
ec008c45549e1fd7 tests/tmp/bits-three-f32.mb ensembles
9f851c5a96349a30 tests/tmp/bits-mblm-q8.mb
a6697292bb9b03e1 tests/tmp/bits-mblm-q8.mb compressed
f4481d7662473143 tests/tmp/bits-mblm-q8.mb ensembles
54e4a6126069ab05 tests/tmp/bits-spacebyte-q8.mb
c92215c42c7a51e4 tests/tmp/bits-spacebyte-q8.mb compressed
723d2734ed9e2f7e tests/tmp/bits-spacebyte-q8.mb ensembles
77221e9f20bf5755 tests/tmp/bits-bgpt-q8.mb
02375a7211e527d2 tests/tmp/bits-bgpt-q8.mb compressed
b075c3bd017bac4a tests/tmp/bits-bgpt-q8.mb ensembles
917e6aac26569107 tests/tmp/bits-paper-q8.mb
36f44bd98a9e69af tests/tmp/bits-paper-q8.mb compressed
3b66edacb90e5afb tests/tmp/bits-paper-q8.mb ensembles
bf087d4f703259a6 tests/tmp/bits-three-q4.mb
9c3df9fe050f2a51 tests/tmp/bits-three-q4.mb compressed
d2ca129c27f41484 tests/tmp/bits-three-q4.mb ensembles
fea6c996cb2e0942 tests/tmp/bits-paper-q4.mb
1f22c17b616fbbf1 tests/tmp/bits-paper-q4.mb compressed
cf4891197c3d6554 tests/tmp/bits-paper-q4.mb ensembles'
[ -z "${MODELS-}" ] || expected="$expected
$MODELS"
compilers=${COMPILERS-${CC-cc}}
levels=${LEVELS--O0;-O2;-O3 -march=native;-Ofast}
isas=${ISAS-plain avx2 avx512-vnni neon neon-dot neon-i8mm simd128}
mkdir -p tests/tmp
failed=0

convert() { # name, checkpoint, quantization
    tools/mbconvert tests/data/$2.safetensors -f -o tests/tmp/bits-$1-$3.mb --quant $3 \
        --config tests/data/$2.json >tests/tmp/output.txt 2>&1 || { cat tests/tmp/output.txt;
            exit 1; }
}
for quant in q8 f32; do
    convert rope lucid-2stage-rope $quant
    convert three lucid-3stage $quant
done
for family in mblm spacebyte bgpt paper; do convert $family small-$family q8; done
convert three lucid-3stage q4
convert paper small-paper q4
# The other families' models take part where a build or an instruction set is new; ways of calling
# are tried with the first family's (and with all in test_api).
first=$(echo "$expected" | grep -v -e -mblm- -e -spacebyte- -e -bgpt- -e -paper-)
models() { echo "$1" | sed '/ compressed$/d; / ensembles$/d' | cut -d' ' -f2-; }

check() { # what, program, options ...
    what=$1 program=$2 right=$first
    shift 2
    case $#$* in 0 | 2--isa*) right=$expected ;; esac
    # shellcheck disable=SC2046
    got=$(${RUNNER-} "$program" "$@" tests/data/text.txt $(models "$right") 2>&1)
    status=$?
    got=$(echo "$got" | tr -d '\r') # Windows ends lines so
    if [ $status = 3 ]; then return; fi
    if [ $status != 0 ] || [ "$got" != "$right" ]; then
        echo "FAILED: $what $*"
        echo "$got" | sed 's/^/    /'
        failed=1
    else
        runs=$((runs + 1))
    fi
}

if [ "${1-}" = --pin ]; then
    for first in $compilers; do break; done
    $first -std=c11 -O2 -o tests/tmp/same_bits-pin tests/same_bits.c megabyte.c -lm -pthread ||
        exit 1
    # shellcheck disable=SC2086
    tests/tmp/same_bits-pin tests/data/text.txt $(models "$expected" |
        grep '^tests/tmp/') >tests/tmp/bits-pin || exit 1
    awk 'FNR == NR { all = all (FNR > 1 ? "\n" : "") $0; next }
         /^expected='"'"'/ { print "expected='"'"'" all "'"'"'"; skip = 1 }
         !skip { print }
         /'"'"'$/ { skip = 0 }' tests/tmp/bits-pin tests/same_bits.sh \
        >tests/tmp/same_bits-pinned.sh || exit 1
    cp tests/tmp/same_bits-pinned.sh tests/same_bits.sh
    cat tests/tmp/bits-pin
    exit
fi

# Builds first, two at a time.
id=0
oldifs=$IFS
for compiler in $compilers; do
    command -v "$compiler" >/dev/null || continue
    IFS=';'
    for level in $levels; do
        IFS=$oldifs
        id=$((id + 1))
        rm -f tests/tmp/same_bits-$id tests/tmp/same_bits-$id.exe
        echo "$compiler $level" >tests/tmp/same_bits-$id.name
        # shellcheck disable=SC2086
        $compiler -std=c11 $level -o tests/tmp/same_bits-$id tests/same_bits.c megabyte.c -lm \
            ${THREADS--pthread} >tests/tmp/same_bits-$id.log 2>&1 &
        [ $((id % 2)) = 1 ] || wait
        IFS=';'
    done
    IFS=$oldifs
done
wait
for i in $(seq $id); do
    name=$(cat tests/tmp/same_bits-$i.name) program=tests/tmp/same_bits-$i runs=0
    [ ! -f $program.exe ] || program=$program.exe
    if [ ! -f $program ]; then
        if grep -q 'megabyte.c promises the same bits' tests/tmp/same_bits-$i.log; then
            echo "  $name: refused to build, as it should"
        else
            echo "FAILED: $name does not build"
            sed 's/^/    /' tests/tmp/same_bits-$i.log
            failed=1
        fi
        continue
    fi
    check "$name" $program
    for isa in $isas; do check "$name" $program --isa $isa; done
    case $name in *-O2)
        check "$name" $program --threads 2
        check "$name" $program --chunk 1
        check "$name" $program --chunk 3 --batch 1
        check "$name" $program --chunk 50 --batch 7
        check "$name" $program --chunk 333 --batch 1000 --threads 2
        check "$name" $program --beside 9
        check "$name" $program --beside 63 --batch 20
        check "$name" $program --ftz --round
        for isa in $isas; do
            check "$name" $program --isa $isa --chunk 7 --ftz
            check "$name" $program --isa $isa --beside 5 --round --threads 2
        done ;;
    esac
    echo "  $name: the same from $runs runs"
done
[ $failed = 0 ] && echo "same bits ... ok"
exit $failed
