"""Golden cases against mbconvert and `mbrun score --logits`:

    python3 tests/ci_golden.py FOLDER PREFIX...

Every FOLDER/PREFIX*.golden.safetensors holds ids and the reference's logits, its .json names the
checkpoint (default: the .safetensors beside it, and the .pt if there is one). f32 within 1e-5
relative, its bits per byte as expected; q8's within 1%. From the repository's root, tools built."""
import glob, json, math, os, struct, subprocess, sys, tempfile
from array import array

def tensors(path):
    with open(path, 'rb') as f: data = f.read()
    n, = struct.unpack('<Q', data[:8])
    for name, t in json.loads(data[8:8 + n]).items():
        if name == '__metadata__': continue
        begin, end = t['data_offsets']
        values = array({'F32': 'f', 'I32': 'i'}[t['dtype']])
        values.frombytes(data[8 + n + begin:8 + n + end])
        yield name, (t['shape'], values)

def error(x, y):
    return math.sqrt(sum((p - q) ** 2 for p, q in zip(x, y)) / sum(q * q for q in y))

def run(*command): return subprocess.run(command, check=True, capture_output=True, text=True).stdout

def convert_and_score(source, base, quant, ids, length, extra):
    """All logits, and the bits per byte."""
    out, bits = array('f'), 0.0
    with tempfile.TemporaryDirectory() as t:
        run('tools/mbconvert', source, '-q', '-o', t + '/m.mb', '--quant', quant,
            '--config', base + '.json')
        for b in range(0, len(ids), length):
            with open(t + '/in', 'wb') as f: f.write(bytes(list(ids[b:b + length])))
            told = json.loads(run('tools/mbrun', 'score', '-m', t + '/m.mb', *extra, '--json', '-f',
                                  '--logits', t + '/out', t + '/in'))
            with open(t + '/out', 'rb') as f: out.frombytes(f.read())
            bits += told['files'][0]['bits']
    return out, bits / len(ids)

folder, wrong, cases = sys.argv[1], 0, 0
for path in sorted(sum((glob.glob(f'{folder}/{p}*.golden.safetensors') for p in sys.argv[2:]), [])):
    base = path[:-len('.golden.safetensors')]
    with open(base + '.json') as f: config = json.load(f)
    source = base + '.safetensors'
    if 'checkpoint' in config: source = os.path.join(folder, '..', config['checkpoint'])
    golden = dict(tensors(path))
    ((rows, length), ids), (shape, logits) = golden['ids'], golden['logits']
    extra = ['--type', 'txt'] if 'bgpt' in path else []
    expected = config['expected_bits_per_byte']
    for checkpoint in [source] + [p for p in [base + '.pt'] if os.path.exists(p)]:
        errors, bits = {}, {}
        for quant in 'f32', 'q8':
            out, bits[quant] = convert_and_score(checkpoint, base, quant, ids, length, extra)
            assert len(out) == len(logits), f'{len(out)} logits written, not {len(logits)}'
            errors[quant] = max(error(out[i:i + len(out) // rows], logits[i:i + len(out) // rows])
                                for i in range(0, len(out), len(out) // rows))
        cases += 1
        good = (errors['f32'] < 1e-5 and abs(bits['f32'] / expected - 1) < 1e-4
                and abs(bits['q8'] / expected - 1) < 0.01)
        wrong += not good
        print(f'{os.path.basename(checkpoint):32s} f32 {errors["f32"]:.2e}   q8 {errors["q8"]:.2e}'
              f'   bits per byte {bits["f32"]:.5f} {bits["q8"]:.5f}, expected {expected:.5f}'
              f'{"" if good else "   WRONG"}', flush=True)
print(f'{cases} cases, {wrong} out of tolerance')
sys.exit(wrong != 0 or not cases)
