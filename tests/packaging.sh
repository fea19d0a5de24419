#!/bin/sh
# make install and uninstall; programs that use what was installed, by pkg-config and by CMake
# (where these are here); the shared library's name and symbols; manual pages and completions: they
# hold every option of --help and every function of megabyte.h.
set -eu
dir=tests/tmp/packaging root=$PWD/tests/tmp/packaging/root cc=${CC-cc}
rm -rf $dir
mkdir -p $dir
fail() { echo "FAILED: $*"; exit 1; }
group() { printf '%s ... ok\n' "$1"; }
put() { # install or uninstall
    MAKEFLAGS= ${MAKE-make} -s "$1" "DESTDIR=$root" PREFIX=/usr MODELS=models/text-small.mb \
        >$dir/log 2>&1 || { cat $dir/log; fail "make $1"; }
}
put install
lib=$root/usr/lib share=$root/usr/share
functions=$(grep -o '\bmegabyte_[a-z_]*(' megabyte.h | tr -d '(' | sort -u)
(cd / && env -u MEGABYTE_MODEL PATH="$root/usr/bin:$PATH" \
    mbrun generate -m text-small -p "It was" -n 40 --seed 1) >$dir/installed
tools/mbrun generate -m models/text-small.mb -p "It was" -n 40 --seed 1 | cmp - $dir/installed
cmp .github/LICENSE "$share/doc/megabyte/LICENSE"
sed -n '/^\/\* MIT/,$p' megabyte.h | sed 's/^[ /]\*\**//; s/^ //; s/ \*\/$//' >$dir/mit
head -n "$(wc -l <$dir/mit)" .github/LICENSE | cmp - $dir/mit ||
    fail "the licence in megabyte.h is not the one in .github/LICENSE"
for file in models/*.mb; do # each model's licence, as its metadata tells it
    licence=$(tools/mbrun info -m "$file" | sed -n 's/^ *licence  *//p')
    grep -q "^${file#models/}  *$licence\( \|\$\)" .github/LICENSE ||
        fail ".github/LICENSE does not say that $file is under $licence"
done
group "make install; mbrun runs there; licences"

so=$lib/libmegabyte.so
nm -D --defined-only --with-symbol-versions "$so" | awk '$2 != "A" { print $2, $3 }' |
    sort >$dir/symbols
for f in $functions; do echo "T $f@@MEGABYTE_0"; done | sort >$dir/expected
diff $dir/expected $dir/symbols || fail "libmegabyte.so exports other symbols than megabyte.h has"
readelf -d "$so" >$dir/dynamic
grep -q 'SONAME.*\[libmegabyte.so.0\]' $dir/dynamic || fail "another soname"
! grep NEEDED $dir/dynamic | grep -Ev '\[(libc|libm|libpthread|ld-linux[a-z0-9-]*)\.so\.[0-9]+\]' ||
    fail "libmegabyte.so needs more than libc and libm"
group "libmegabyte.so.0: $(wc -l <$dir/symbols) functions, no other symbols"

cat >$dir/app.c <<'END'
#include <megabyte.h>
#include <stdio.h>
int main(int argc, char **argv) {
    megabyte_model *model;
    megabyte_stream *stream;
    megabyte_sampling sampling = { .temperature = 0.7f, .seed = 5 };
    uint8_t text[40];
    if (argc != 2 || megabyte_version() != MEGABYTE_VERSION_NUMBER) return 1;
    if (megabyte_model_open(&model, argv[1], NULL, NULL)) return 2;
    if (megabyte_stream_create(&stream, model, NULL, NULL, NULL)) return 3;
    megabyte_stream_generate(stream, &sampling, text, sizeof text, NULL, NULL, NULL);
    megabyte_stream_free(stream);
    megabyte_model_close(model);
    return fwrite(text, 1, sizeof text, stdout) != sizeof text;
}
END
model=$share/megabyte/text-small.mb
$cc -std=c11 -O1 -I. $dir/app.c megabyte.o -o $dir/app -lm -pthread
$dir/app models/text-small.mb >$dir/expected
writes_it() { # NAME PROGRAM: as the program linked with megabyte.o does
    LD_LIBRARY_PATH=$lib "$2" "$model" | cmp - $dir/expected || fail "$1: other bytes"
}
if command -v pkg-config >/dev/null; then
    export PKG_CONFIG_PATH="$lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
    export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
    [ "megabyte-$(pkg-config --modversion megabyte)" = "$(tools/mbrun --version |
        sed -n '1s/^[a-z]* \([0-9.]*\).*/megabyte-\1/p')" ] || fail "pkg-config's version"
    # shellcheck disable=SC2046
    $cc -std=c11 $dir/app.c $(pkg-config --cflags --libs megabyte) -o $dir/shared
    writes_it "shared library" $dir/shared
    readelf -d $dir/shared | grep -q 'NEEDED.*\[libmegabyte.so.0\]' ||
        fail "not linked with the shared library"
    mv "$lib/libmegabyte.so" "$lib/aside"
    # shellcheck disable=SC2046
    $cc -std=c11 $dir/app.c $(pkg-config --static --cflags --libs megabyte) -o $dir/static
    mv "$lib/aside" "$lib/libmegabyte.so"
    $dir/static "$model" | cmp - $dir/expected || fail "libmegabyte.a: other bytes"
    group "pkg-config: shared and static"
else
    group "(no pkg-config here)"
fi
built_by_cmake() { # NAME LINES...: builds app.c with these lines of CMakeLists.txt
    mkdir -p "$dir/$1"
    printf '%s\n' 'cmake_minimum_required(VERSION 3.13)' 'project(app C)' \
        'add_executable(app ../app.c)' >"$dir/$1/CMakeLists.txt"
    awk "/^$2\$/ { found = 1; next } found && /^    [a-z]/ { inside = 1; print substr(\$0, 5) }
         inside && !/^    / { exit }" tools/packaging/README.md |
        sed "s|third_party/megabyte|$PWD|" >>"$dir/$1/CMakeLists.txt"
    [ "$(wc -l <"$dir/$1/CMakeLists.txt")" -ge 6 ] || fail "no lines for CMake: $2"
    { CC=$cc cmake -S "$dir/$1" -B "$dir/$1/build" && cmake --build "$dir/$1/build"; } \
        >$dir/log 2>&1 || { cat $dir/log; fail "CMake: $2"; }
    writes_it "$2" "$dir/$1/build/app"
}
if command -v cmake >/dev/null && command -v pkg-config >/dev/null; then
    built_by_cmake cmake-installed "Installed, with CMake:"
    built_by_cmake cmake-source "Two files in your tree, with CMake:"
    group "CMake: the lines of tools/packaging/README.md"
else
    group "(no cmake or no pkg-config here)"
fi

# every option of --help is in the page and in each completion
for tool in mbrun mbconvert; do
    subs=$(tools/$tool --help | sed -n "s/^  $tool \([a-z]*\).*/\1/p" | sort -u)
    for sub in ${subs:--}; do
        nested= # commands of a subcommand's own
        [ "$sub" = - ] || nested=$(tools/$tool "$sub" --help |
            sed -n "s/^  $tool $sub \([a-z]*\) .*/\1/p")
        for words in ${nested:--}; do
            [ "$words" != - ] || words=
            tools/$tool ${sub#-} $words --help
        done | sed -n 's/^  \(-[^ ,]*, *\| *\)--\([a-z-]*\).*/\2/p' | sort -u >$dir/options
        [ -s $dir/options ] || fail "$tool $sub --help has no options"
        while read -r option; do
            roff=$(printf %s "$option" | sed 's/-/\\-/g')
            grep -qF -- "\\fB\\-\\-$roff\\fR" "$share/man/man1/$tool.1" ||
                fail "$tool(1) lacks --$option"
            grep -q "seen_subcommand_from $sub'.* -l $option \|mbconvert .*-l $option " \
                "$share/fish/vendor_completions.d/$tool.fish" || fail "fish: no $sub --$option"
        done <$dir/options
        cat >$dir/complete.bash <<END
. "$share/bash-completion/completions/$tool"
COMP_WORDS=($tool ${sub#-} --) COMP_CWORD=$([ "$sub" = - ] && echo 1 || echo 2)
_$tool && printf '%s\n' "\${COMPREPLY[@]#--}"
END
        if command -v bash >/dev/null; then
            bash $dir/complete.bash | sort >$dir/completed
            sort $dir/options | diff - $dir/completed || fail "bash completes other $sub options"
        fi
        if command -v zsh >/dev/null; then
            zsh -fc "_arguments() { print -rl -- \"\$@\" }; words=($tool ${sub#-} --); CURRENT=3
                . $share/zsh/site-functions/_$tool" | grep -o -- '--[a-z-]*\[' |
                tr -d '[' | sort >$dir/completed
            sed 's/^/--/' $dir/options | sort | diff - $dir/completed || fail "zsh: $sub"
        fi
    done
done
if command -v bash >/dev/null; then # a subcommand's own commands
    [ "$(bash -c ". $share/bash-completion/completions/mbrun
        COMP_WORDS=(mbrun image u) COMP_CWORD=2; _mbrun; echo \${COMPREPLY[*]}")" = unpack ] ||
        fail "bash does not complete mbrun image"
fi
if command -v fish >/dev/null; then
    HOME=$PWD/$dir fish --no-config -c "source $share/fish/vendor_completions.d/mbrun.fish
        complete -C 'mbrun generate --pr'; complete -C 'mbrun image unp'" >$dir/completed
    grep -q -- '^--prompt' $dir/completed && grep -q '^unpack' $dir/completed ||
        fail "fish completes nothing"
fi
for f in $functions; do
    grep -q "$f(" "$share/man/man3/megabyte.3" || fail "megabyte(3) lacks $f"
    [ -f "$share/man/man3/$f.3" ] || fail "no page $f(3)"
done
if command -v man >/dev/null && command -v groff >/dev/null; then
    for page in "$share"/man/man1/*.1 "$share/man/man3/megabyte.3"; do
        LC_ALL=C.UTF-8 MANWIDTH=100 man --warnings -l "$page" 2>&1 >$dir/page </dev/null |
            grep -v "can.t break line" >$dir/log || true
        [ ! -s $dir/log ] || { cat $dir/log; fail "$page"; }
        [ "$(wc -l <$dir/page)" -ge 50 ] || fail "$page is empty"
    done
fi
group "manual pages and completions hold every option and function"

echo "somebody else's" >"$lib/other"
put uninstall
[ "$(find "$root" ! -type d)" = "$lib/other" ] || fail "uninstall leaves $(find "$root" ! -type d)"
group "make uninstall"
