#!/usr/bin/env python3
"""Instructions per multiply-accumulate of int8 matrix products, as a Markdown table.

    python3 tests/bench/instructions.py

For each instruction set a product of a 384 x 384 matrix for 1, 4, 8, 16 and 64 rows
(instructions.c): on x86 counted step by step, on ARM by Debian's qemu-user and
gcc-aarch64-linux-gnu. The least is what the set's widest exact products and their sums take and
nothing else: no load, no loop. From the repository's root."""
import collections, os, re, subprocess, sys, tempfile

SIZE, ROWS = 384, (1, 4, 8, 16, 64)
SETS = [  # name, multiply-accumulates of an instruction, emulated CPU
    ('avx512-vnni', 64, None),
    ('avx2', 8, None),
    ('neon-i8mm', 32, 'max'),
    ('neon-dot', 16, 'max'),
    ('neon', 16 / 3, 'cortex-a53'),
]

def emulated(program, cpu, *words):
    """Instructions that a run takes: those of each block of code, times how often it runs."""
    with tempfile.NamedTemporaryFile() as log:
        subprocess.run(['qemu-aarch64', '-cpu', cpu, '-d', 'in_asm,exec,nochain', '-D', log.name,
                        program, *words], check=True)
        size, runs, at = {}, collections.Counter(), None
        for line in open(log.name, errors='replace'):
            if line.startswith('IN:'): at = None
            elif line.startswith('0x'):
                if at is None: at = int(line[2:line.index(':')], 16); size[at] = 0
                size[at] += 1
            elif line.startswith('Trace'): runs[int(line.split('/')[1], 16)] += 1
    return sum(n * size[at] for at, n in runs.items())

def build(compiler, to, *options):
    subprocess.run([compiler, '-std=c11', '-D_GNU_SOURCE', '-O3', *options,
                    'tests/bench/instructions.c', '-o', to, '-lm', '-pthread'], check=True)

with tempfile.TemporaryDirectory() as folder:
    here, arm = os.path.join(folder, 'here'), os.path.join(folder, 'arm')
    build('gcc', here)
    build('aarch64-linux-gnu-gcc', arm, '-static')
    print('| instruction set | the least |',
          ' | '.join('%d row%s' % (n, 's' * (n > 1)) for n in ROWS), '|\n|---|--:|' +
          '--:|' * len(ROWS))
    for name, wide, cpu in SETS:
        cells = []
        for rows in ROWS:
            if cpu:
                n = emulated(arm, cpu, name, str(rows), '2') - \
                    emulated(arm, cpu, name, str(rows), '1')
            else:
                done = subprocess.run([here, name, str(rows)], capture_output=True, text=True)
                if done.returncode: cells.append('not here'); continue
                n = int(done.stdout)
            each = n / (rows * SIZE * SIZE / 64)
            cells.append('%.2f (%.2fx)' % (each, each * wide / 64))
        print('| %s | %.2f |' % (name, 64 / wide), ' | '.join(cells), '|', flush=True)
