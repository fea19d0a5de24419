#!/bin/sh
# The commands of tests/examples/own-checkpoint/README.md, as they stand there (but 40 steps instead
# of 1000, and megabyte.c alone): PyTorch trains and saves, mbconvert imports, mbrun scores as
# PyTorch does. PYTHON: one that has torch (/usr/bin/python3: Debian's python3-torch).
set -eu
here=$PWD dir=tests/tmp/own-checkpoint python=${PYTHON-/usr/bin/python3}
fail() { echo "FAILED: $*"; exit 1; }
"$python" -c 'import torch' || fail "$python has no torch: install python3-torch, or set PYTHON"
rm -rf $dir
mkdir -p $dir/bin
ln -s "$python" $dir/bin/python3
for part in tools tests megabyte.c megabyte.h; do ln -s "$here/$part" $dir/$part; done
export PATH="$here/$dir/bin:$PATH" OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1
sed -n 's/^    \([a-z]\)/\1/p' tests/examples/own-checkpoint/README.md >$dir/commands
cd $dir
grep -q '1000$' commands || fail "README.md trains in another way"
sed -i 's/1000$/40/; s|^cat .* >|cat megabyte.c >|' commands
lines=0
while read -r command; do
    echo "$command"
    case $command in
    *train.py*) sh -c "$command" >out ;;
    *loss.py*) sh -c "$command" >pytorch ;;
    *"mbrun score -m code-q8.mb"*) sh -c "$command --json" >q8 ;;
    *"mbrun score"*) sh -c "$command --json" >f32 ;;
    *) sh -c "$command" >out ;;
    esac
    lines=$((lines + 1))
done <commands
[ $lines -ge 7 ] || fail "README.md has $lines commands"
"$python" - <<'END'
import json
pytorch = float(open("pytorch").read())
f32, q8 = (json.load(open(name))["total"]["bits_per_byte"] for name in ("f32", "q8"))
print(f"PyTorch {pytorch}, f32 {f32:.6f}, q8 {q8:.6f} bits per byte")
assert pytorch < 7, "it has learned nothing"
assert abs(f32 - pytorch) < 0.00002, "f32: more than 0.00002 bits per byte off"
assert abs(q8 / pytorch - 1) < 0.005, "q8: more than 0.5% off"
END
