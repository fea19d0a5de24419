#!/bin/sh
# Scores, compresses or decompresses the shards in a folder on many machines, by GNU parallel:
#     cluster.sh score|compress|decompress FOLDER HOSTS [OPTION OF mbrun]...
# HOSTS is a file with a line a machine (parallel's --sshloginfile): 8/alpha is eight shards at a
# time on alpha. The machines need sshd, a key instead of a password, and rsync: the tool (MBRUN),
# the model (MEGABYTE_MODEL) and each shard are copied there and removed again. What failed is tried
# anew; what is there already is not done again. FOLDER.log tells which machine took how long.
set -eu
fail() { echo "cluster.sh: $*" >&2; exit 1; }
[ $# -ge 3 ] || { sed -n '2,7s/^# //p' "$0" >&2; exit 2; }
verb=$1 folder=$(realpath "$2") hosts=$(realpath "$3")
shift 3
here=$(cd "$(dirname "$0")" && pwd)
mbrun=$(realpath "${MBRUN-$here/../../../tools/mbrun}")
model=$(realpath "${MEGABYTE_MODEL-$here/../../../models/text.mb}")
for program in parallel rsync ssh; do
    command -v $program >/dev/null || fail "$program is not installed"
done
! grep -Eq '^([0-9]+/)?:' "$hosts" || fail "$hosts: this machine is localhost here, not :"
case $verb in
score) from='' to=.score ;;
compress) from='' to=.mbz ;;
decompress) from=.mbz to='' ;;
*) fail "$verb: score, compress and decompress are possible" ;;
esac
cd "$folder"
shards() { # their names, in one order on every machine
    sh "$here/shard.sh" list "$verb" .
}
missing() { shards | while read -r file; do [ -e "$file$to" ] || printf '%s\n' "$file"; done; }
[ -n "$(shards)" ] || fail "$folder has no shards"
# rsync and parallel disagree about how to quote others
! shards | grep '[^A-Za-z0-9._-]' >&2 || fail "only letters, digits and ._- in names of shards"
result=0
missing | env MBRUN="./${mbrun##*/}" MEGABYTE_MODEL="./${model##*/}" MBRUN_OPTIONS="$*" \
    parallel --will-cite --sshloginfile "$hosts" --retries 3 --joblog "+$folder.log" \
    --env MBRUN --env MEGABYTE_MODEL --env MBRUN_OPTIONS \
    --workdir ".megabyte-$(hostname)-$$" --cleanup \
    --basefile "${mbrun%/*}/./${mbrun##*/}" --basefile "${model%/*}/./${model##*/}" \
    --basefile "$here/./shard.sh" --transferfile "{}$from" --return "{}$to" \
    "sh ./shard.sh $verb {}" || result=$?
[ -z "$(missing)" ] || fail "not done ($result): $(missing | tr '\n' ' ')"
if [ "$verb" = score ]; then
    shards | sed 's/$/.score/' | xargs cat | LC_ALL=C awk '{ bytes += $1; bits += $2 }
        END { printf "%.0f bytes, %.6f bits per byte\n", bytes, bits / bytes }'
fi
