#!/bin/sh
# The programs of tests/examples: they compile without warnings, have less than 80 lines, and do
# what they say.
set -eu
dir=tests/tmp/examples cc=${CC-cc} here=$PWD model=$PWD/models/text-small.mb
rm -rf $dir
mkdir -p $dir
fail() { echo "FAILED: $*"; exit 1; }
group() { printf '%s ... ok\n' "$1"; }
warn="-Wall -Wextra -Werror -I."
MAKEFLAGS= ${MAKE-make} -s shared megabyte.o # as `make` has done already
so=$(ls libmegabyte.so.*.*)
for f in tests/examples/*; do
    case $f in *.md | */__pycache__) continue ;; esac
    [ ! -d "$f" ] || f=$f/README.md # a page with files of its own
    grep -q "(${f#tests/examples/})" tests/examples/README.md || fail "README.md does not list $f"
    [ "${f%.md}" != "$f" ] || [ "$(wc -l <"$f")" -lt 80 ] || fail "$f has 80 lines or more"
done
for name in event_loop messages ranking batch; do # $warn is words
    # shellcheck disable=SC2086
    $cc -std=c11 -O1 $warn -Wpedantic -Wconversion -Wshadow tests/examples/$name.c megabyte.o \
        -o $dir/$name -lm -pthread
done
write() { tools/mbrun generate -m "$model" -T 1 -n "$2" -p "$1" --seed 1; } # -t 0.7 --top-p 0.95

cd $dir
prompt="It was a dark and stormy night"
echo "$prompt" | ./event_loop "$model" >out
(cd "$here" && write "$prompt" 100) >whole
{ tail -c +$((${#prompt} + 1)) whole; echo; } | cmp - out
printf 'The\n%s\n' "$prompt" | ./event_loop "$model" >again # the second ends the first
cmp out again
echo "It was" | ./event_loop "$here/README.md" >out 2>&1 && fail "event_loop runs README.md"
grep -q "not a megabyte model" out || fail "event_loop says no reason: $(cat out)"
group "event_loop"

i=0
while [ $i -lt 60 ]; do # some lines of a log
    i=$((i + 1))
    printf '2026-11-28 08:%02d:%02d INFO request %d: GET /page/%d.html 200 in %d ms\n' \
        $((i * 7 % 60)) $((i * 13 % 60)) $((7000 + i)) $((i * i % 97)) $((i * 31 % 83))
done >log
head -n 40 log >typical
tail -n 20 log >new
./messages "$model" typical <new >out
set -- $(tr -c '0-9\n' ' ' <out) # records, bytes, bytes of code
[ "$1" = 20 ] && [ "$2" = $(($(wc -c <new) - 20)) ] && [ "$3" -lt $(($2 / 4)) ] ||
    fail "messages: $(cat out)"
with=$(cat out)
./messages - typical <new >out
set -- $(tr -c '0-9\n' ' ' <out)
[ "$1" = 20 ] && [ "$3" -lt $(($2 / 3)) ] || fail "messages without a model: $(cat out)"
group "messages: $with, without a model $3"

printf '%s\n' door elephant xyzzy window >words
./ranking "$model" "He went out and closed the " <words >out
case $(sed -n 's/ *[0-9.]*  //p' out | tr '\n' ' ') in
door\ *xyzzy\ ) ;;
*) fail "ranking: $(cat out)" ;;
esac
{ cat new; echo '2026-11-28 08:59:59 PANIC kernel stack smashed, halting'; cat new; } |
    ./ranking "$model" "$(cat typical)" per-byte | tail -n 1 | grep -q PANIC ||
    fail "ranking: PANIC is not the oddest line"
seq 1001 | ./ranking "$model" "1, 2, 3, " >out 2>said
[ "$(wc -l <out)" = 1000 ] && grep -q 'first 1000' said || fail "ranking: silent: $(cat said)"
group "ranking: completion, odd lines"

for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo "Chapter $i, of the "; done >in
./batch "$model" 2 <in >out
[ "$(wc -l <out)" = 20 ] || fail "batch: $(cat out)"
for i in 1 17 20; do
    (cd "$here" && write "Chapter $i, of the " 60) | tr '\n' ' ' >expected
    sed -n "s/^\[$i\] //p" out | tr -d '\n' | cmp - expected || fail "batch: request $i"
done
group "batch: 20 requests, each answered as if alone"

if [ "$(od -An -c -N 4 "$here/megabyte.o" | tr -d ' ')" = '177ELF' ]; then # .section is ELF's
    cd "$here"
    # shellcheck disable=SC2086
    $cc -std=c11 -O0 $warn -DMODEL='"models/text-small.mb"' -DMEGABYTE_NO_FILE \
        -DMEGABYTE_NO_THREADS tests/examples/linked_in.c megabyte.c -o $dir/linked_in -lm
    cd $dir
    mkdir -p empty && (cd empty && ../linked_in >../out 2>../said)
    (cd "$here" && tools/mbrun generate -m "$model" -p "$prompt" -n 100 --seed 1 \
        --context 512) | cmp - out
    [ "$(sed 's/ .*//' said)" -lt 1000000 ] || fail "linked_in: $(cat said)"
    group "linked_in: $(cat said)"
fi

cxx=${CXX-c++}
if command -v "$cxx" >/dev/null; then
    "$cxx" -std=c++17 -O1 -Wall -Wextra -Werror -I"$here" "$here/tests/examples/raii.cpp" \
        "$here/megabyte.o" -o raii -lm -pthread
    ./raii "$model" >out
    tail -c +$((${#prompt} + 1)) whole | cmp - out
    ! ./raii /nowhere 2>out >&2 || fail "raii opens /nowhere"
    grep -q nowhere out || fail "raii says no reason"
    group "raii.cpp"
fi

if command -v python3 >/dev/null; then
    cat >try.py <<'END'
import sys, megabyte
model = megabyte.Model(sys.argv[1])
prompt = b"It was a dark and stormy night"
stream = megabyte.Stream(model)
stream.feed(prompt)
text = stream.generate(100, temperature=0.7, top_p=0.95, seed=1)
sys.stdout.buffer.write(prompt + text)
stream.rewind(len(prompt))
assert 100 < stream.score(text) < 400
stream.rewind(len(prompt))
assert stream.generate(100, temperature=0.7, top_p=0.95, seed=1) == text
a, b = megabyte.Stream(model), megabyte.Stream(model)
for record in (b"the first record", b"the second record", b""):
    code = a.encode(record)
    assert len(code) <= len(record) + 2 and b.decode(code) == record, (record, code)
try:
    megabyte.Model("/nowhere")
    assert False
except megabyte.Error as e:
    assert "model_open" in str(e), e
try:
    stream.feed("a str")
    assert False
except TypeError:
    pass
END
    MEGABYTE_LIBRARY=$here/$so PYTHONPATH=$here/tests/examples \
        PYTHONDONTWRITEBYTECODE=1 python3 try.py "$model" >out
    cmp out whole
    [ "$(wc -l <"$here/tests/examples/megabyte.py")" -le 50 ] || fail "megabyte.py: over 50 lines"
    group "megabyte.py"
fi

if command -v sqlite3 >/dev/null && echo '#include <sqlite3ext.h>' | $cc -E - >/dev/null 2>&1; then
    ln -s "$here/$so" libmegabyte.so.0
    $cc -std=c11 -O1 -Wall -Wextra -Werror -I"$here" -shared -fPIC -fvisibility=hidden \
        "$here/tests/examples/sqlite.c" "$here/$so" -Wl,-rpath,"$PWD" -o megabyte_sqlite.so
    [ "$(nm -D --defined-only megabyte_sqlite.so | awk '{ print $3 }')" = \
        sqlite3_megabytesqlite_init ] || fail "megabyte_sqlite.so exports more than its entry"
    sed 's/LONGEST = 1 << 20/LONGEST = 300/' "$here/tests/examples/sqlite.c" >short.c
    $cc -std=c11 -O1 -I"$here" -shared -fPIC -fvisibility=hidden short.c "$here/$so" \
        -Wl,-rpath,"$PWD" -o megabyte_sqlite_short.so
    MEGABYTE_MODEL=$model sqlite3 >out <<'END'
.load ./megabyte_sqlite_short sqlite3_megabytesqlite_init
CREATE TABLE megabyte_dictionary(name TEXT PRIMARY KEY, bytes);
INSERT INTO megabyte_dictionary VALUES('none', x'');
CREATE TABLE noise AS SELECT randomblob(300) AS bytes;
SELECT CAST(mb_decode('none', mb_encode('none', bytes)) AS BLOB) IS bytes FROM noise;
END
    [ "$(cat out)" = 1 ] || fail "SQLite: the longest value does not come back"
    rm -f log.db
    MEGABYTE_MODEL=$model sqlite3 log.db >out <<'END'
.load ./megabyte_sqlite
CREATE TABLE sample(line);
CREATE TABLE new(line);
.import typical sample
.import new new
INSERT INTO new VALUES(NULL), ('');
CREATE TABLE megabyte_dictionary(name TEXT PRIMARY KEY, bytes);
INSERT INTO megabyte_dictionary SELECT 'log', group_concat(line || x'0a', '') FROM sample;
CREATE TABLE log(code);
INSERT INTO log SELECT mb_encode('log', line) FROM new;
END
    MEGABYTE_MODEL=$model sqlite3 log.db >out <<'END'
.load ./megabyte_sqlite
SELECT count(*) || ' lines of ' || sum(length(new.line)) || ' bytes take ' || sum(length(code))
    FROM new JOIN log ON new.rowid = log.rowid
    WHERE new.line IS mb_decode('log', log.code);
END
    grep -q '^22 lines' out || fail "SQLite: $(cat out)"
    for bad in "mb_decode('none', x'00')" "mb_decode('log', x'')" "mb_encode('none', 'text')"; do
        echo "SELECT $bad;" | MEGABYTE_MODEL=$model sqlite3 log.db -cmd '.load ./megabyte_sqlite' \
            >said 2>&1 || true
        grep -qi error said || fail "SQLite takes $bad: $(cat said)"
    done
    if command -v zstd >/dev/null; then
        zstd=0
        while read -r line; do
            zstd=$((zstd + $(printf %s "$line" | zstd -q -19 -D typical -c | wc -c)))
        done <new
        echo ", zstd -19 -D: $zstd" >>out
    fi
    group "SQLite: $(tr -d '\n' <out)"
fi

if command -v curl >/dev/null && echo '#include <microhttpd.h>' | $cc -E - >/dev/null 2>&1; then
    $cc -O1 -Wall -Wextra -Werror -Wconversion -Wshadow -I"$here" "$here/tests/examples/http.c" \
        "$here/megabyte.o" -o http -lmicrohttpd -lm -pthread
    ./http "$model" 0 >port &
    server=$!
    trap 'kill $server' EXIT
    for i in $(seq 100); do [ -s port ] || sleep 0.1; done
    url=http://127.0.0.1:$(sed -n 's/^port //p' port)/
    get() { curl -sfN -G --max-time 100 --data-urlencode "prompt=$prompt" "$@" "$url"; }
    get -d bytes=100000000 -d seed=3 >endless & # one that does not end, beside all others
    endless=$!
    for i in $(seq 100); do [ -s endless ] || sleep 0.1; done
    get -d bytes=100 -d seed=1 -D headers >out
    grep -qi '^Transfer-Encoding: chunked' headers || fail "http: not in chunks: $(cat headers)"
    tail -c +$((${#prompt} + 1)) whole | cmp - out
    get -d bytes=300 -d seed=3 >longer &
    get -d bytes=100 -d seed=1 | cmp - out
    wait $! || fail "http: two at once"
    kill $endless 2>/dev/null || fail "http: the endless answer ended"
    wait $endless 2>/dev/null || true
    [ "$(wc -c <longer)" = 300 ] && head -c "$(wc -c <endless)" longer >a
    head -c "$(wc -c <a)" endless | cmp - a || fail "http: two of the same seed differ"
    get -d bytes=0 | cmp - /dev/null
    ! get -X POST 2>/dev/null || fail "http answers POST"
    get -d bytes=100 -d seed=1 | cmp - out # the server goes on
    kill $server
    trap - EXIT
    group "libmicrohttpd: chunks, three clients at once"
fi

if tar --version 2>/dev/null | grep -q GNU; then
    export MBRUN="$here/tools/mbrun" MEGABYTE_MODEL="$model"
    mkdir -p files
    cp "$here"/tests/examples/*.c files
    MBZ='-3 -T 1' tar --use-compress-program="$here/tests/examples/mbz" -cf files.tar.mbz files
    [ "$(wc -c <files.tar.mbz)" -lt "$(tar -cf - files | gzip -9 | wc -c)" ] || fail "tar: too big"
    tar --use-compress-program="$here/tests/examples/mbz" -tf files.tar.mbz | grep -q batch.c
    mkdir -p back
    tar -C back --use-compress-program="$here/tests/examples/mbz" -xf files.tar.mbz
    diff -r files back/files
    group "tar --use-compress-program"
fi
