#!/bin/sh
# mbrun score --map and --html: what is shown of hostile bytes, that the figures add up, colours or
# not; Ctrl-C in score. Run from the repository's root, with tools/mbrun and models/text-small.mb
# there.
set -u
folder=map
. tests/cli.sh
tells() { grep -q -- "$1" out || fail "the output has no '$1': $(head -c 600 out)"; }
escape=$(printf '\033')

head -c 1500 "$data/text.txt" | tr -d '\r' >text
printf 'Gr\303\274\303\237e \342\200\224 \346\235\261\344\272\254 e\314\201\n\ttab\r\n' >hostile
# titles, colours and a C1 control; no UTF-8, a surrogate, overlong, beyond Unicode; bidirectional
# overrides, a tag, a byte order mark; HTML; half a character at the end
printf '\033]0;title\007\033[31m\2331m\302\233[H\377\355\240\200\300\257\364\220\200\200' >>hostile
printf '\342\200\256\342\201\246\363\240\200\201\357\273\277' >>hostile
printf '\343\205\244\315\217\177\000\010\n' >>hostile # a filler, a joiner: not seen
printf '<script>alert("&amp;")</script>\047 </pre></title>\n\346\235' >>hostile

# ------------------------------------------------------------------------------------- a terminal
run 0 "$mbrun" score --map --color always hostile text
sed "s/$escape\[0m//g; s/$escape\[0;38;5;[0-9]*;48;5;[0-9]*m//g" out >bare
LC_ALL=C tr -d '\n\t\040-\176\200-\377' <bare >rest
[ ! -s rest ] || fail "control characters are left: $(od -c rest | head -n 5)"
for shown in '^[]0;title^G^[[31m<9b>1m<U+009B>[H<ff><ed><a0><80><c0><af><f4><90><80><80>' \
    '<U+202E><U+2066><U+E0001><U+FEFF><U+3164><U+034F>^?^@^H' '<e6><9d>' \
    "$(printf 'Gr\303\274\303\237e \342\200\224 \346\235\261\344\272\254 e\314\201')"; do
    LC_ALL=C grep -qF -- "$shown" bare || fail "no $shown in $(cat bare)"
done
tells ' 8-12 '
[ "$(grep -c 'bits a character' bare)" = 2 ] || fail "not a legend for each"
# all of the text, in order, with arrows where line feeds cost something
tail -n +2 bare | sed 's/↵$//' >lines
grep -qF "$(sed -n 5p text)" lines || fail "line 5 is not there"
n=$(grep -c "$escape" out)
[ "$n" -gt 20 ] || fail "only $n lines have colours"
# a character of several bytes is one: no escape sequence within it
LC_ALL=C grep -q "[$(printf '\302')-$(printf '\364')]$escape" out &&
    fail "a colour within a character"

run 0 "$mbrun" score --map hostile # no terminal
! grep -q "$escape" out || fail "colours without a terminal"
NO_COLOR=1 run 0 "$mbrun" score --map --colour never hostile
tells '^Below each character'
grep -A 1 '^<script>' out | tail -n 1 | grep -q '^[0-9.+ ]*$' || fail "no figures: $(cat out)"
run 0 "$mbrun" score --map text # as many figures as characters
head -n 40 out | grep -q . || fail "nothing is shown"
[ "$(sed -n '/^Below/q; p' out | awk 'NR % 2 == 0' | tr -d '.+0-9 \n' | wc -c)" = 0 ] ||
    fail "every second line should have figures only: $(cat out)"
# util-linux's, with a terminal to be had
if script -qec true /dev/null >/dev/null 2>&1; then
    TERM=xterm script -qec "'$mbrun' score --map text" /dev/null >out 2>&1 </dev/null
    tells "$escape\[0;38;5"
    TERM=dumb script -qec "'$mbrun' score --map text" /dev/null >out 2>&1 </dev/null
    ! grep -q "$escape\[0;38" out || fail "colours on a dumb terminal"
    NO_COLOR=1 TERM=xterm script -qec "'$mbrun' score --map text" /dev/null >out 2>&1 </dev/null
    ! grep -q "$escape\[0;38" out || fail "colours in spite of NO_COLOR"
fi
: >empty
run 0 "$mbrun" score --map empty
run 2 "$mbrun" score --map --color sometimes text
for with in --mix --json "--logits x.f32"; do
    run 2 "$mbrun" score --map $with text
    says 'not together'
done
group "score --map"

# ----------------------------------------------------------------------------------------- a page
name='<b>&"name.txt'
cp hostile "$name"
run 0 "$mbrun" score --html page.html "$name"
tells '<b>&"name.txt$'
bits=$(awk 'NR == 2 { printf "%.1f", $1 * $2 }' out)
LC_ALL=C tr -d '\n\t\040-\176\200-\377' <page.html >rest
[ ! -s rest ] || fail "control characters in the page"
! grep -qi '<script\|<b>&"\|&amp;amp;\")</' page.html || fail "HTML of the text is in the page"
grep -q '&lt;script&gt;' page.html && fail "characters are not apart"
grep -q "default-src 'none'" page.html || fail "no policy"
! grep -q 'http:\|https:\|url(\|src=' page.html || fail "the page needs others"
awk -v total="$bits" '{ while (match($0, /[0-9.]+ bits">/)) { line = substr($0, RSTART, RLENGTH)
        sum += line; $0 = substr($0, RSTART + RLENGTH) } }
    END { d = sum - total; exit !(d * d < 1) }' page.html || fail "figures do not add up to $bits"
if command -v python3 >/dev/null; then
    cat >check.py <<'END'
import html.parser, sys
class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(); self.stack = []; self.text = []; self.titles = 0
    def handle_starttag(self, tag, attributes):
        assert tag in "html meta title style header h1 p ul li b br main div u s pre i".split(), tag
        if tag not in ("meta", "br", "li"): self.stack.append(tag)
        self.titles += tag == "i" and "title" in dict(attributes)
        if tag == "i": # the class that its bits ask for
            bits = float(dict(attributes)["title"].split()[-2])
            known = int(dict(attributes).get("class", "c0")[1])
            assert (0, 1, 2, 3, 4, 6, 8, 12, 1e9)[known] - 0.01 < bits, (known, bits)
            assert bits < (1, 2, 3, 4, 6, 8, 12, 1e9)[known] + 0.01, (known, bits)
        assert all(name in ("class", "title", "style", "translate", "lang", "charset", "name",
                            "content", "http-equiv", "aria-label") for name, _ in attributes)
    def handle_endtag(self, tag): assert self.stack.pop() == tag, tag
    def handle_data(self, data):
        if "pre" in self.stack: self.text.append(data)
page = Page()
page.feed(open("page.html", encoding="utf-8", newline="").read())
text = "".join(page.text)
assert not page.stack
assert "<script>alert(\"&amp;\")</script>' </pre></title>" in text.replace("\u21b5", "")
assert "^[]0;title^G" in text and "<U+202E>" in text and "東京" in text
known = len(open("hostile", "rb").read().decode("utf-8", "surrogateescape"))
assert page.titles == known, (page.titles, known)
END
    PYTHONUTF8=1 python3 check.py || fail "the page is not what it should be"
fi
run 1 "$mbrun" score --html page.html text
says 'already exists'
if [ -c /dev/full ]; then
    run 1 "$mbrun" score --html /dev/full text
    says '/dev/full: No space left'
fi
run 0 "$mbrun" score --map --strided -f --html page.html text
! grep -q "$escape\|^Below" out || fail "--html prints a map, too"
cp page.html again.html
run 0 "$mbrun" score --strided --html - text
cmp out again.html || fail "--html -: another page"
says '  text$'
[ ! -e ./- ] || fail "a file called -"
"$mbrun" score --html - long-name 2>said && fail "a page of a file that is not there"
"$mbrun" score --html - text 2>said | head -c 5 >out
[ "$(cat out)" = '<!DOC' ] && [ "$(grep -c ' text$' said)" -le 1 ] || fail "--html - | head"
run 1 "$mbrun" score -f --html text text
says 'is the input'
run 2 "$mbrun" score --html x.html text text
run 2 "$mbrun" score --html x.html --mix text
[ ! -e x.html ] || fail "x.html is there"
group "score --html"

# ----------------------------------------------------------------------------------------- Ctrl-C
i=0
while [ $i -lt 9 ]; do
    cat "$data/text.txt" "$data/text.txt"
    i=$((i + 1))
done >long
interrupted() { # ARGUMENTS: in the middle of `long`
    "$mbrun" score -T 1 "$@" long >out 2>said &
    pid=$!
    sleep 1
    kill -TERM $pid # what sh starts beside itself ignores Ctrl-C's signal
    wait $pid
    status=$?
    [ $status = 143 ] || fail "score $* exits with $status, not 143"
}
while [ "$(wc -c <long)" -lt 2000000 ]; do cat long long >longer && mv longer long; done
interrupted
tells '^ *[1-9][0-9]*  *[0-9.]*  *[0-9]*  long (interrupted)$'
interrupted --json
tells '"bytes": [1-9].*"interrupted": true'
interrupted --html part.html
[ ! -e part.html ] || fail "half a page is kept"
group "Ctrl-C in score"

cd "$OLDPWD" && rm -rf "$dir"
echo "mbrun score --map ... ok"
