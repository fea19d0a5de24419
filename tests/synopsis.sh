#!/bin/sh
# The programs in megabyte.h's SYNOPSIS and in README.md, verbatim: they compile, and write their
# 200 bytes.
set -eu
mkdir -p tests/tmp
sed -n '/^ \* SYNOPSIS/,/^ \* THE MODEL/s/^ \*     //p' megabyte.h >tests/tmp/synopsis.c
sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d' >tests/tmp/readme.c
for program in synopsis readme; do
    grep -q 'int main' tests/tmp/$program.c || { echo "FAILED: no program found for $program";
        exit 1; }
    ${CC-cc} -O2 -Wall -Wextra -Werror -I. tests/tmp/$program.c megabyte.c -o tests/tmp/$program \
        -lm -pthread
    bytes=$(tests/tmp/$program | wc -c)
    [ "$bytes" -eq 200 ] || { echo "FAILED: the program of $program wrote $bytes bytes, not 200";
        exit 1; }
done
echo "synopsis and README's program (compiled and run) ... ok"
