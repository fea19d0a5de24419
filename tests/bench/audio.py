#!/usr/bin/env python3
"""Lossless sizes of sound, mu-law or linear samples, beside other programs', as a Markdown table.

    python3 tests/bench/audio.py [-T N] [--unpack] SOUND.ul|.wav|.au...
    python3 tests/bench/audio.py [-T N] [--unpack] LINEAR.wav...

Runs `tools/mbrun compress` (context mixing and the network, and the network alone: -5) and those of
flac (-8 -e -p), xz (-9e), 7z (PPMd, order 16) and zstd (--ultra -22) that are installed; Debian has
them in flac, xz-utils, p7zip-full and zstd. Linear samples (PCM) are compressed by contexts made
for them; "any -3", "any -9" are the same file as mbrun compresses any data: its first byte, which
names the format, is another then. flac knows no mu-law. It gets the same samples decoded
to 16-bit PCM (16), and the codes in the order of what they mean, as samples of 8 bits (8); the
others get the file. One program at a time, with N threads (1) where it can be
told. All files must be of one kind. --unpack also decompresses and compares. From the repository's
root, with the tools built.
Bits are per sample (a byte); seconds are of CPU time and memory is the most, of the whole
command."""
import argparse, os, shutil, struct, subprocess, sys, tempfile

arguments = argparse.ArgumentParser(description=__doc__,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
arguments.add_argument('sounds', nargs='+')
arguments.add_argument('-T', '--threads', type=int, default=1)
arguments.add_argument('--unpack', action='store_true')
options = arguments.parse_args()
threads = str(options.threads)

def run(*command):
    """Seconds and megabytes of a command that must succeed."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.PIPE)
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status: sys.exit('%s: %s' % (' '.join(command), said.decode(errors='replace')))
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024

def samples_of(path):
    """The mu-law bytes of a file, its rate and channels."""
    with open(path, 'rb') as f: data = f.read()
    if data[:4] == b'.snd':
        offset, n, coding, rate, channels = struct.unpack('>5I', data[4:24])
        if coding != 1: sys.exit('%s: no mu-law' % path)
        return data[offset:offset + n], rate, channels
    if data[:4] != b'RIFF': return data, 8000, 1
    at, kind, rate, channels = 12, 0, 8000, 1
    while at + 8 <= len(data):
        name, n = data[at:at + 4], struct.unpack('<I', data[at + 4:at + 8])[0]
        if name == b'fmt ': kind, channels, rate = struct.unpack('<HHI', data[at + 8:at + 16])
        if name == b'data' and kind == 7: return data[at + 8:at + 8 + n], rate, channels
        if name == b'data' and kind in (1, 0xfffe): return None, rate, channels
        at += 8 + n + n % 2
    sys.exit('%s: no mu-law' % path)

def linear(code):
    code = ~code & 255
    size = (((2 * (code & 15) + 33) << (code >> 4 & 7)) - 33) * 4
    return -size if code & 128 else size

pcm_of = {16: [struct.pack('<h', linear(code)) for code in range(256)],
          8: [struct.pack('b', 255 - code if code & 128 else code - 128) for code in range(256)]}

def flac(bits):
    return lambda i, o, pcm, rate, channels: (
        'flac', '-s', '-f', '-8', '-e', '--force-raw-format', '--endian=little', '--sign=signed',
        '--bps=%d' % bits, '--channels=%d' % channels, '--sample-rate=%d' % rate, '-o', o,
        pcm + str(bits))

def mbrun(*level):
    return lambda i, o, pcm, rate, channels: ('tools/mbrun', 'compress', *level, '-q', '-f', '-T',
                                              threads, '-o', o, i)

def any_data(level):
    """As mbrun() with a file that is no sound."""
    def command(i, o, *_):
        with open(i, 'rb') as f: data = f.read()
        with open(o + '.in', 'wb') as f: f.write(b'r' + data[1:])
        return mbrun(level)(o + '.in', o, *_)
    return command

rivals = [
    ('flac 8', 'flac', flac(8)),
    ('flac 16', 'flac', flac(16)),
    ('xz -9e', 'xz', lambda i, o, *_: ('sh', '-c', 'exec xz -9e -c "$0" >"$1"', i, o)),
    ('7z PPMd', '7z', lambda i, o, *_: ('7z', 'a', '-bd', '-y', '-mx=9', '-m0=PPMd:o=16',
                                        '-mmt=1', o, i)),
    ('zstd -22', 'zstd', lambda i, o, *_: ('zstd', '-q', '-f', '--ultra', '-22', '-o', o, i)),
]
columns = [('mbrun', mbrun()), ('network alone', mbrun('-5'))]
is_linear = samples_of(options.sounds[0])[0] is None
if is_linear:
    columns = [('mbrun', mbrun()), ('any -3', any_data('-3')), ('any -9', any_data('-9'))]
    rivals[:2] = [('flac -8ep', 'flac', lambda i, o, *_: ('flac', '-s', '-f', '-8', '-e', '-p',
                                                          '--no-padding', '--no-seektable', '-o',
                                                          o, i))]
for name, program, command in rivals:
    if shutil.which(program): columns.append((name, command))
    else: print('%s is not installed: left out' % program, file=sys.stderr)

totals = [[0, 0.0, 0.0] for _ in columns]
unpacked, all_samples = [0.0, 0.0], 0
print('| sound | %s |' % ' | '.join(name for name, _ in columns))
print('|---|%s' % ('--:|' * len(columns)))
with tempfile.TemporaryDirectory() as folder:
    pcm = os.path.join(folder, 'pcm')
    for sound in options.sounds:
        samples, rate, channels = samples_of(sound)
        if (samples is None) != is_linear: sys.exit('%s: of another kind' % sound)
        n = os.path.getsize(sound) if is_linear else len(samples)
        all_samples += n
        for bits, codes in () if is_linear else pcm_of.items():
            with open(pcm + str(bits), 'wb') as f: # little at a time: a child's memory counts ours
                for at in range(0, len(samples), 4096):
                    f.write(b''.join(codes[c] for c in samples[at:at + 4096]))
        sizes = []
        for i, (_, command) in enumerate(columns):
            out = os.path.join(folder, 'out%d' % i)
            if os.path.exists(out): os.remove(out)
            seconds, memory = run(*command(sound, out, pcm, rate, channels))
            if not os.path.exists(out): out += '.7z'
            sizes.append(os.path.getsize(out))
            total = totals[i]
            totals[i] = [total[0] + sizes[-1], total[1] + seconds, max(total[2], memory)]
            os.rename(out, os.path.join(folder, 'out%d' % i))
        if options.unpack:
            back = os.path.join(folder, 'back')
            seconds, memory = run('tools/mbrun', 'decompress', '-q', '-f', '-T', threads, '-o',
                                  back, os.path.join(folder, 'out0'))
            unpacked = [unpacked[0] + seconds, max(unpacked[1], memory)]
            with open(sound, 'rb') as a, open(back, 'rb') as b:
                if a.read() != b.read(): sys.exit('%s: other bytes' % sound)
        print('| %s, %s %s | %s |' % (os.path.basename(sound), '{:,}'.format(n),
                                      'bytes' if is_linear else 'samples',
                                      ' | '.join('{:,}'.format(s) for s in sizes)))
        sys.stdout.flush()
if is_linear: print('| bytes in all | %s |' % ' | '.join('{:,}'.format(t[0]) for t in totals))
else:
    print('| bits per sample | %s |' % ' | '.join('%.3f' % (8 * t[0] / all_samples)
                                                  for t in totals))
print('| seconds of CPU | %s |' % ' | '.join('%.1f' % t[1] for t in totals))
print('| MB of memory | %s |' % ' | '.join('%.0f' % t[2] for t in totals))
if options.unpack:
    print('\nmbrun decompress: %.1f s of CPU, %.0f MB.' % tuple(unpacked))
