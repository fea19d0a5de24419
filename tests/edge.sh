#!/bin/sh
# tests/examples/edge: a model linked in, aligned and not; the table of sizes; a small static
# program (where musl-gcc is here); what a host's shared library exports.
set -eu
here=$PWD dir=tests/tmp/edge cc=${CC-cc} edge=tests/examples/edge
fail() { echo "FAILED: $*"; exit 1; }
group() { printf '%s ... ok\n' "$1"; }
rm -rf $dir
mkdir -p $dir
[ -f megabyte.o ] || MAKEFLAGS='' ${MAKE-make} -s megabyte.o

if command -v objcopy >/dev/null && readelf -h megabyte.o >/dev/null 2>&1; then
    cat >$dir/linked.c <<'END'
#include "megabyte.h"
#include <stdio.h>
extern const unsigned char _binary_models_text_small_mb_start[], _binary_models_text_small_mb_end[];
int main(void) {
    const unsigned char *at = _binary_models_text_small_mb_start;
    megabyte_model *model;
    megabyte_error error;
    megabyte_status bad;
    size_t size = (size_t)(_binary_models_text_small_mb_end - at);
    if (megabyte_model_open_memory(&model, at, size, NULL, &error))
        return puts(error.text), error.status == MEGABYTE_ERROR_INVALID_ARGUMENT ? 3 : 4;
    bad = megabyte_model_verify(model, NULL);
    megabyte_model_close(model);
    return bad != MEGABYTE_OK;
}
END
    (cd $dir && ln -s "$here/models" models
    sed -n 's/^    \(ld -r\|objcopy\|    --rename\)/\1/p' "$here/$edge/README.md" >lines
    echo ".data; .byte 1" | $cc -x assembler -c - -o byte.o # what else may be there
    $cc -std=c11 -I"$here" -c linked.c -o linked.o
    head -n 1 lines | sh -e
    $cc linked.o byte.o model.o "$here/megabyte.o" -o trap -lm -pthread -z noexecstack
    sh -e lines
    $cc linked.o byte.o model.o "$here/megabyte.o" -o linked -lm -pthread -z noexecstack)
    readelf -SW $dir/model.o | grep -q ' \.rodata .* 64$' || fail "objcopy does not align model.o"
    result=0
    $dir/trap >$dir/said || result=$?
    [ $result = 3 ] || fail "a model that is not aligned: $result, $(cat $dir/said)"
    grep -q "aligned to 64" $dir/said || fail "$(cat $dir/said)"
    $dir/linked || fail "ld -r -b binary, mended"
    group "ld -r -b binary: refused as it is, taken when it is aligned"
fi

$cc -std=c11 -O1 -Wall -Wextra -Werror -I. $edge/sizes.c megabyte.o -o $dir/sizes -lm -pthread
$dir/sizes models/text-small.mb | grep '^| 1' >$dir/table
sed -n '/^| batch | context/,/^$/p' $edge/README.md | grep '^| 1' >$dir/told
paste -d'|' $dir/table $dir/told | awk -F'|' '
    function far(a, b) { return a - b > 10 + b / 10 || b - a > 10 + b / 10 }
    { if ($2 != $10 || $3 != $11) exit 1
      for (i = 4; i <= 7; i++) if (far($i, $(i + 8))) exit 1 }' && [ "$(wc -l <$dir/table)" = 6 ] ||
    fail "the table of $edge/README.md is not this one within a tenth: $(cat $dir/table)"
group "memory, as the page tells it"

if command -v musl-gcc >/dev/null; then # the command in its first lines
    sed -n '/^ \*     musl-gcc/,/-o generate$/s/^ \* *//p' $edge/generate.c |
        sed "s|-o generate|-o $dir/generate|" >$dir/command
    sh -e $dir/command
    size=$(wc -c <$dir/generate)
    [ "$size" -lt 102400 ] || fail "generate has $size bytes"
    prompt="It was a dark and stormy night"
    { printf %s "$prompt"; $dir/generate models/text-small.mb "$prompt" 200; } >$dir/written
    tools/mbrun generate -m models/text-small.mb -p "$prompt" -n 200 --seed 1 --context 512 |
        cmp - $dir/written || fail "generate writes other bytes"
    ! $dir/generate README.md x 10 2>$dir/said || fail "generate runs README.md"
    grep -q "not a megabyte model" $dir/said || fail "generate says no reason"
    ! $dir/generate models/text-small.mb x 10 >/dev/full 2>$dir/said || fail "generate, full disk"
    group "a static program of $size bytes that generates"
fi

sh $edge/code_size.sh "$cc" >$dir/code
awk -F'[|] *' 'NR > 2 { if (n && $3 >= n && $2 !~ /NO_THREADS/) exit 1; n = $3 }
    END { exit NR != 7 || n > 150 }' $dir/code || fail "code: $(cat $dir/code)"
group "code: $(sed -n 's/^| `.* | \(.*\) |$/\1/p' $dir/code | paste -sd' ') KB"

cat >$dir/plugin.c <<'END'
#include "megabyte.h"
__attribute__((visibility("default"))) extern int plugin(void);
int plugin(void) { return megabyte_version() == MEGABYTE_VERSION_NUMBER; }
END
{ echo '#define MEGABYTE_API static'; echo '#include "megabyte.c"'; cat $dir/plugin.c; } \
    >$dir/one.c
exports() { # what a library made of these shows
    $cc -std=c11 -O0 -w -I. -shared -fPIC "$@" -o $dir/plugin.so -lm -pthread
    nm -D --defined-only $dir/plugin.so | awk '{ print $3 }' | paste -sd' '
}
[ "$(exports -fvisibility=hidden $dir/plugin.c megabyte.c)" = plugin ] || fail "-fvisibility=hidden"
[ "$(exports '-DMEGABYTE_API=__attribute__((visibility("hidden")))' $dir/plugin.c megabyte.c)" = \
    plugin ] || fail "MEGABYTE_API: hidden"
[ "$(exports $dir/one.c)" = plugin ] || fail "MEGABYTE_API: static"
exports $dir/plugin.c megabyte.c | grep -q megabyte_stream_feed || fail "nothing to hide"
group "a plugin exports its own function only, in three ways"
