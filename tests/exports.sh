#!/bin/sh
# What megabyte.c exports, imports and keeps; megabyte.h as C99 and C++; the compile-time options.
set -eu
cc=${CC-cc}
dir=tests/tmp
mkdir -p $dir
fail() { echo "FAILED: $*"; exit 1; }
group() { printf '%s ... ok\n' "$1"; }

[ -f megabyte.o ] || $cc -std=c11 -O2 -pthread -c megabyte.c -o megabyte.o
nm megabyte.o >$dir/symbols
foreign=$(awk 'NF == 3 && $2 ~ /[A-Z]/ && $3 !~ /^_?megabyte_/ { print $3 }' $dir/symbols)
[ -z "$foreign" ] || fail "exported, but not megabyte_*: $foreign"
for f in $(grep -o '\bmegabyte_[a-z_]*(' megabyte.h | tr -d '(' | sort -u); do
    grep -q " T _*$f\$" $dir/symbols || fail "$f is declared in megabyte.h, but not defined"
done
group "exports"

# .data and .bss (relocated constants, .data.rel.ro, are read-only at run time)
writable=$(size -A megabyte.o | awk '$1 ~ /^\.data\.rel\.ro/ { next }
         $1 ~ /^(\.data|\.bss|\.tdata|\.tbss|COMMON)/ && $2 > 0 { print $1, $2 }')
[ -z "$writable" ] || fail "writable global data: $writable"
group "no writable data"

banned='^(v?f?printf|puts|fputs|fputc|putchar|perror|fwrite|exit|_exit|abort|raise|getenv|system)$'
banned="$banned|^(__assert_fail|setlocale|rand|srand|time)\$"
bad=$(awk '$1 == "U" { print $2 }' $dir/symbols | grep -E "$banned" || true)
[ -z "$bad" ] || fail "megabyte.c calls $bad"
libm='exp|exp2|expm1|log|log2|log10|log1p|pow|sin|cos|sincos|tan|tanh|erf|erfc|fma|cbrt|fmod'
libm="^($libm)[fl]?\$"
bad=$(awk '$1 == "U" { print $2 }' $dir/symbols | grep -E "$libm" || true)
[ -z "$bad" ] || fail "megabyte.c calls libm's $bad"
group "no printing, no exit, nothing of libm but sqrt"

cat >$dir/header.c <<'EOF'
#include "../../megabyte.h"
int main(void) { return megabyte_version() != MEGABYTE_VERSION_NUMBER; }
EOF
$cc -std=c99 -pedantic -Wall -Wextra -Werror -fsyntax-only $dir/header.c || fail "megabyte.h in C99"
cxx=${CXX-c++}
if command -v "$cxx" >/dev/null; then
    cp $dir/header.c $dir/header.cpp
    "$cxx" -std=c++11 -pedantic -Wall -Wextra -Werror $dir/header.cpp megabyte.o -o $dir/header \
        -lm -pthread
    $dir/header || fail "the library's version is not the header's"
    group "megabyte.h in C99 and C++"
else
    group "megabyte.h in C99 (no C++ compiler here)"
fi

for options in -DMEGABYTE_NO_THREADS -DMEGABYTE_NO_FILE -DMEGABYTE_NO_SIMD -DMEGABYTE_NO_CODEC \
               "-DMEGABYTE_NO_THREADS -DMEGABYTE_NO_FILE -DMEGABYTE_NO_SIMD" \
               "-DMEGABYTE_NO_THREADS -DMEGABYTE_NO_FILE -DMEGABYTE_NO_SIMD -DMEGABYTE_NO_CODEC"; do
    # shellcheck disable=SC2086
    $cc -std=c11 -Wall -Wextra -Werror -O0 $options -c megabyte.c -o $dir/option.o ||
        fail "$options does not build"
    nm $dir/option.o | awk '$1 == "U" { print $2 }' >$dir/imports
    case $options in *NO_THREADS*) ! grep -q '^pthread\|^sched' $dir/imports ||
        fail "$options uses pthreads" ;; esac
    case $options in *NO_FILE*) ! grep -Eq '^(open|open64|mmap|mmap64|fopen|fopen64)$' \
        $dir/imports ||
        fail "$options opens files" ;; esac
    case $options in *NO_CODEC*) ! nm $dir/option.o |
        grep -q 'megabyte_.*\(codec\|code$\|compress\)' ||
        fail "$options keeps the codec" ;; esac
done
group "compile-time options"

code() { size -A "$1" | awk '/^\.(text|rodata)/ { n += $2 } END { print n }'; }
$cc -std=c11 -O2 -pthread -DMEGABYTE_NO_CODEC -c megabyte.c -o $dir/option.o
# and no function takes more than 12 KB of stack: tests/test_hosts.c calls all on 64 KB
$cc -std=c11 -O2 -pthread -Wframe-larger-than=12288 -Werror -c megabyte.c -o $dir/whole.o ||
    fail "a frame of more than 12 KB"
$cc -std=c11 -O2 tests/test_golden.c $dir/option.o -o $dir/no_codec -lm -pthread
$dir/no_codec >$dir/no_codec.txt || fail "without the codec: $(tail -n 1 $dir/no_codec.txt)"
whole=$(code $dir/whole.o) rest=$(code $dir/option.o)
[ "$rest" -lt $((whole * 9 / 10)) ] \
    || fail "the codec is $((whole - rest)) of $whole bytes of code only"
group "MEGABYTE_NO_CODEC: $rest instead of $whole bytes of code; the model's golden cases pass"

warnings=$($cc -std=c11 -pedantic -Wall -Wextra -Wshadow -Wconversion -O1 -fsyntax-only \
    megabyte.c 2>&1 |
           grep -c 'warning:' || true)
echo "  -pedantic -Wall -Wextra -Wshadow -Wconversion: $warnings warnings"
