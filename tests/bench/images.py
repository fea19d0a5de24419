#!/usr/bin/env python3
"""Lossless sizes of pictures beside other programs', as a Markdown table.

    python3 tests/bench/images.py [-T N] [--unpack] PICTURE.png...

Runs `tools/mbrun image pack` (context mixing, and the model alone) and those of cjxl (-d 0 -e 9),
cwebp (-lossless -z 9) and optipng (-o7) that are installed; Debian has them in libjxl-tools, webp
and optipng. One program at a time, with N threads (1) where it can be told. --unpack also unpacks
and compares the pixels. From the repository's root, with the tools built. Bits are per byte of
pixels; seconds and memory are of the whole command."""
import argparse, os, shutil, subprocess, sys, tempfile, time

arguments = argparse.ArgumentParser(description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument('pictures', nargs='+')
arguments.add_argument('-T', '--threads', type=int, default=1)
arguments.add_argument('--unpack', action='store_true')
options = arguments.parse_args()
threads = str(options.threads)

def run(*command):
    """Seconds and megabytes of a command that must succeed."""
    start = time.time()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status: sys.exit('%s: %s' % (' '.join(command), said.decode(errors='replace')))
    return time.time() - start, usage.ru_maxrss / 1024

def size_of(path):
    with open(path, 'rb') as f: head = f.read(32)
    width, height = (int.from_bytes(head[i:i + 4], 'big') for i in (16, 20))
    return width * height * {0: 1, 2: 3, 3: 3}.get(head[25], 0)

rivals = [
    ('cjxl -e 9', 'cjxl', lambda i, o: ('cjxl', '-d', '0', '-e', '9', '--num_threads',
                                        '0' if threads == '1' else threads, i, o + '.jxl'), '.jxl'),
    ('cwebp -z 9', 'cwebp', lambda i, o: ('cwebp', '-quiet', '-lossless', '-z', '9', i, '-o',
                                          o + '.webp'), '.webp'),
    ('optipng -o7', 'optipng', lambda i, o: ('optipng', '-quiet', '-o7', '-strip', 'all', '-out',
                                             o + '.opt.png', i), '.opt.png'),
]
columns = [('mbrun', lambda i, o: ('tools/mbrun', 'image', 'pack', '-q', '-f', '-T', threads, '-o',
                                   o + '.mbi', i), '.mbi'),
           ('model alone', lambda i, o: ('tools/mbrun', 'image', 'pack', '--model-alone', '-q',
                                         '-f', '-T', threads, '-o', o + '.net.mbi', i),
            '.net.mbi')]
for name, program, command, suffix in rivals:
    if shutil.which(program): columns.append((name, command, suffix))
    else: print('%s is not installed: left out' % program, file=sys.stderr)

totals = [[0, 0.0, 0.0] for _ in columns]
unpacked, all_bytes = [0.0, 0.0], 0
print('| picture | %s |' % ' | '.join(name for name, _, _ in columns))
print('|---|%s' % ('--:|' * len(columns)))
with tempfile.TemporaryDirectory() as folder:
    for picture in options.pictures:
        out = os.path.join(folder, 'x')
        n = size_of(picture)
        if not n: sys.exit('%s: not a PNG of 8-bit grey or RGB' % picture)
        all_bytes += n
        sizes = []
        for i, (_, command, suffix) in enumerate(columns):
            if os.path.exists(out + suffix): os.remove(out + suffix)
            seconds, memory = run(*command(picture, out))
            sizes.append(os.path.getsize(out + suffix))
            total = totals[i]
            totals[i] = [total[0] + sizes[-1], total[1] + seconds, max(total[2], memory)]
        if options.unpack:
            seconds, memory = run('tools/mbrun', 'image', 'unpack', '-q', '-f', '-T', threads, '-o',
                                  out + '.png', out + '.mbi')
            unpacked = [unpacked[0] + seconds, max(unpacked[1], memory)]
            run('tools/mbrun', 'image', 'pack', '-q', '-f', '-T', threads, '-o', out + '.2.mbi',
                out + '.png')
            with open(out + '.mbi', 'rb') as a, open(out + '.2.mbi', 'rb') as b:
                if a.read() != b.read(): sys.exit('%s: other pixels' % picture)
        print('| %s | %s |' % (os.path.basename(picture), ' | '.join('{:,}'.format(s)
                                                                       for s in sizes)))
        sys.stdout.flush()
print('| **all**, %s bytes | %s |' % ('{:,}'.format(all_bytes),
                                      ' | '.join('{:,}'.format(t[0]) for t in totals)))
print('| bits per byte | %s |' % ' | '.join('%.3f' % (8 * t[0] / all_bytes) for t in totals))
print('| KB/s | %s |' % ' | '.join('%.1f' % (all_bytes / t[1] / 1000) for t in totals))
print('| MB of memory | %s |' % ' | '.join('%.0f' % t[2] for t in totals))
if options.unpack:
    print('\nmbrun image unpack: %.1f KB/s, %.0f MB.' % (all_bytes / unpacked[0] / 1000,
                                                          unpacked[1]))
