#!/bin/sh
# The program in megabyte.h's SYNOPSIS, verbatim: it compiles, and with models/text.mb writes its 200 bytes.
set -eu
mkdir -p tests/tmp
sed -n '/^ \* SYNOPSIS/,/^ \* THE MODEL/s/^ \*     //p' megabyte.h >tests/tmp/synopsis.c
grep -q 'int main' tests/tmp/synopsis.c || { echo "FAILED: no program in megabyte.h"; exit 1; }
${CC-cc} -O2 -Wall -Wextra -Werror -I. tests/tmp/synopsis.c megabyte.c -o tests/tmp/synopsis -lm -pthread
if [ -f models/text.mb ]; then
    bytes=$(tests/tmp/synopsis | wc -c)
    [ "$bytes" -eq 200 ] || { echo "FAILED: the SYNOPSIS wrote $bytes bytes, not 200"; exit 1; }
    echo "synopsis (compiled and run) ... ok"
else
    [ "$(tests/tmp/synopsis | grep -c text.mb)" -eq 1 ] ||
        { echo "FAILED: no message without a model"; exit 1; }
    echo "synopsis (compiled; models/text.mb is missing) ... ok"
fi
