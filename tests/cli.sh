# What the tests of the command line share: read by tests/cli_*.sh with `folder` set. They go on
# in that folder of tests/tmp, which is emptied.
mbrun=$PWD/tools/mbrun convert=$PWD/tools/mbconvert MEGABYTE_MODEL=$PWD/models/text-small.mb \
    data=$PWD/tests/data
export MEGABYTE_MODEL
dir=$PWD/tests/tmp/$folder
rm -rf "$dir"
mkdir -p "$dir"
cd "$dir" || exit 1
fail() { echo "FAILED: $*"; [ ! -f said ] || sed 's/^/    /' said; exit 1; }
group() { printf '%s ... ok\n' "$1"; }
# run STATUS COMMAND...: output to `out`, errors to `said`
run() {
    expected=$1
    shift
    "$@" >out 2>said </dev/null
    status=$?
    [ $status = "$expected" ] || fail "$* exits with $status, not $expected"
}
says() { grep -q -- "$1" said || fail "no word of '$1'"; }
