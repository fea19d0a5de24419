#!/bin/sh
# tests/examples/cluster: GNU parallel over a real sshd on loopback, three machines by name of which
# one is gone; the results are those of one machine, byte for byte. Then Slurm's and Spark's
# commands, run as these run them. Needs parallel, rsync, sshd.
set -eu
here=$PWD dir=tests/tmp/cluster cluster=$PWD/tests/examples/cluster
fail() { echo "FAILED: $*"; [ ! -e said ] || tail -n 20 said; exit 1; }
group() { printf '%s ... ok\n' "$1"; }
sshd=$(PATH=$PATH:/usr/sbin command -v sshd) || fail "sshd is not installed"
rm -rf $dir
mkdir -p $dir/ssh $dir/one $dir/home
cd $dir
at=$PWD/ssh
export MBRUN="$here/tools/mbrun" MEGABYTE_MODEL="$here/models/text-small.mb" HOME="$PWD/home"

ssh-keygen -q -t ed25519 -N '' -f ssh/host
ssh-keygen -q -t ed25519 -N '' -f ssh/key
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
for port in $(seq 22401 22500); do
    # SHLVL: bash then does not read its start-up files
    printf '%s\n' "Port $port" "ListenAddress 127.0.0.1" "HostKey $at/host" "UsePAM no" \
        "AuthorizedKeysFile $at/key.pub" "StrictModes no" "PidFile $at/pid" "SetEnv SHLVL=2" \
        "MaxStartups 100" >ssh/sshd_config
    "$sshd" -f "$at/sshd_config" -E "$at/log"
    i=0
    while [ ! -s ssh/pid ] && ! grep -q 'Cannot bind' ssh/log && [ $i -lt 50 ]; do
        sleep 0.1
        i=$((i + 1))
    done
    [ ! -s ssh/pid ] || break
    : >ssh/log
done
[ -s ssh/pid ] || fail "sshd does not start: $(cat ssh/log)"
trap 'kill "$(cat "$at/pid")"' EXIT
for name in alpha beta gone; do
    printf '%s\n' "Host $name" "HostName 127.0.0.1" "IdentityFile $at/key" "IdentitiesOnly yes" \
        "Port $([ $name = gone ] && echo 1 || echo "$port")" "StrictHostKeyChecking no" \
        "UserKnownHostsFile $at/known" "LogLevel ERROR"
done >ssh/config
export PARALLEL_SSH="ssh -F $at/config"
printf '%s\n' 2/alpha 1/beta 1/gone >hosts

# what one machine makes of the shards
head -c 20000 "$here/megabyte.h" >corpus
mkdir shards
split -b 4096 -a 3 -d corpus shards/
cp shards/* one
for file in one/*; do "$MBRUN" compress -q -1 "$file"; done
score="$("$MBRUN" score --window 1024 --json corpus |
    sed 's/.*"total".*"bits_per_byte": \([0-9.]*\).*/\1/')"

on_many() { sh "$cluster/cluster.sh" "$@" 2>said; }
on_many score shards hosts --window 1024 >out || fail "score"
LC_ALL=C printf '20000 bytes, %.6f bits per byte\n' "$score" >expected
cmp expected out
on_many compress shards hosts -1 || fail "compress"
for file in one/*.mbz; do cmp "$file" "shards/${file#one/}"; done
cat shards/*.mbz >corpus.mbz
"$MBRUN" decompress -q corpus.mbz -o copy
cmp copy corpus
for name in alpha beta; do cut -f 2 shards.log | grep -q $name || fail "$name did nothing"; done
group "GNU parallel over ssh: $(cat out), $(wc -c <corpus.mbz) bytes, as on one machine"

rm shards/001.mbz shards/003.mbz
touch -d 2001-01-01 shards/000.mbz
on_many compress shards hosts -1 || fail "compress what is missing"
[ "$(find shards -name '*.mbz' -newermt 2002-01-01 | wc -l)" = 4 ] || fail "all was done anew"
cmp shards/003.mbz one/003.mbz
mkdir back
cp shards/*.mbz back
on_many decompress back hosts || fail "decompress"
rm back/*.mbz
cat back/* | cmp - corpus
mkdir bad
cp one/000.mbz one/001.mbz bad
printf x | dd of=bad/001.mbz bs=1 seek=90 conv=notrunc 2>/dev/null
! on_many decompress bad hosts || fail "damage is not noticed"
grep -q 'not done.*: 001 $' said || fail "no word about 001"
cmp bad/000 one/000
[ ! -e bad/001 ] || fail "a damaged shard is there"
group "what is missing is done, damage is told"

echo 2/: >colon
! on_many compress shards colon || fail "cluster.sh takes :"
grep -q localhost said || fail "no word about localhost"
touch 'shards/a b'
! on_many compress shards hosts || fail "cluster.sh takes a name with a blank"
rm 'shards/a b'
group "what cannot be is refused"

slurm() { # VERB FOLDER OPTIONS: Slurm would run the tasks at the same time
    for task in 0 1 2; do
        (cd "$here" && SLURM_ARRAY_TASK_ID=$task SLURM_ARRAY_TASK_COUNT=3 MBRUN_OPTIONS=$3 \
            sh "$cluster/slurm.sh" "$1" "$PWD/$dir/$2")
    done
}
mkdir slurm
cp shards/??? slurm
slurm compress slurm -1
for file in one/*.mbz; do cmp "$file" "slurm/${file#one/}"; done
rm slurm/???
slurm decompress slurm ''
for file in one/???; do cmp "$file" "slurm/${file#one/}"; done
! slurm compress nowhere '' 2>said || fail "slurm.sh takes a folder that is not there"
group "Slurm's tasks"

mkdir spark module # a pyspark with what the job needs: pipe runs its command with a line an element
cp shards/??? spark
cat >module/pyspark.py <<'END'
import shlex, subprocess
class SparkContext:
    @staticmethod
    def getOrCreate(): return SparkContext()
    def parallelize(self, elements, partitions):
        assert len(elements) == partitions == 5
        self.elements = elements
        return self
    def pipe(self, command, env, checkCode=False):
        for element in self.elements:
            subprocess.run(shlex.split(command), input=element + "\n", text=True, check=checkCode,
                           env=env)
        return self
    def count(self): return 0
END
(cd "$here" && MBRUN_OPTIONS=-1 PYTHONPATH="$dir/module" PYTHONDONTWRITEBYTECODE=1 \
    python3 tests/examples/cluster/spark.py compress $dir/spark)
for file in one/*.mbz; do cmp "$file" "spark/${file#one/}"; done
group "Spark's pipe"
