#!/bin/sh
# README.md: its commands run, its links lead somewhere, it keeps its length, and no text has lines
# of more than 100 bytes. The commands are run in a folder with the repository's files and some
# inputs of the names that README uses; targets of make are only looked up (this script is run by
# one), and its program is compiled and run by tests/synopsis.sh. Run from the repository with the
# tools built.
set -u
fail() { echo "FAILED: README.md: $*"; exit 1; }
here=$PWD dir=tests/tmp/readme-commands
rm -rf $dir
mkdir -p $dir
lines=$(wc -l <README.md)
[ "$lines" -le 150 ] || fail "$lines lines, more than 150"

for document in README.md models/README.md models/FORMAT.md tests/bench/README.md \
    tools/packaging/README.md tests/examples/README.md tests/examples/*/README.md \
    .github/CONTRIBUTING.md .github/SECURITY.md; do
    wide=$(LC_ALL=C awk 'length > 100 { printf " %d", FNR }' $document)
    [ -z "$wide" ] || fail "$document: over 100 columns in line$wide"
    for link in $(grep -o '](\([^)]*\))' $document | sed 's/^](//; s/)$//'); do
        case $link in https:*) continue ;; \#*) link=${document##*/}$link ;; esac
        path=${link%%#*} part=${link#"${link%%#*}"}
        [ -e "$(dirname $document)/$path" ] || fail "$document links to $link, which is not there"
        [ -z "$part" ] || sed -n 's/^##* *//p' "$(dirname $document)/$path" | tr 'A-Z ' 'a-z-' |
            tr -cd "a-z0-9\n-" | grep -qx -e "${part#\#}" || fail "$document: no heading $link"
    done
done

cd $dir || exit 1
for part in tools models Makefile megabyte.c megabyte.h tests; do ln -s "$here/$part" $part; done
head -c 3000 "$here/tests/data/text.txt" >notes.txt
head -c 500 "$here/tests/data/text.txt" >page.txt
sed -n '/^```c$/,/^```$/p' "$here/README.md" | sed '/^```/d' >app.c
cp "$here/tests/data/small-bgpt.safetensors" checkpoint.safetensors
cp "$here/tests/data/small-bgpt.json" checkpoint.json
{ printf 'P6 10 5 255\n'; head -c 150 notes.txt; } >photo.ppm
tools/mbrun image pack -q photo.ppm -o photo.mbi &&
    tools/mbrun image unpack -q photo.mbi -o photo.png ||
    fail "no photo.png was made"
rm photo.mbi
sed '/^```c$/,/^```$/d' "$here/README.md" | grep '^    [a-z]' >commands
count=0
while read -r command; do
    case $command in
    make*) sh -c "make -n ${command#make}" >/dev/null 2>said || fail "$command: $(cat said)" ;;
    cc*) sh -c "${CC-cc} ${command#cc}" >out 2>said || fail "$command: $(cat said)" ;;
    *) sh -c "$command" >out 2>said || fail "$command: $(cat said)"
        case $command in *score*|*compress*|*pack*|*" -o "*) ;;
            *) [ -s out ] || [ -s said ] || fail "$command says nothing" ;; esac ;;
    esac
    count=$((count + 1))
done <commands
[ $count -ge 12 ] || fail "only $count commands were found"
tools/mbrun decompress -c notes.txt.mbz 2>said |
    cmp - notes.txt || fail "another notes.txt came back"
echo "README: $count commands run, links lead somewhere, $lines lines ... ok"
