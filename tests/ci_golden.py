"""Golden cases against mbconvert and `mbrun score --logits`:  python3 tests/ci_golden.py FOLDER PREFIX...
Every FOLDER/PREFIX*.golden.safetensors holds ids and the reference's logits, its .json names the checkpoint (default:
the .safetensors beside it). f32 within 1e-5 relative; q8 is printed. From the repository's root, tools built."""
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

folder, wrong, cases = sys.argv[1], 0, 0
for path in sorted(sum((glob.glob(f'{folder}/{p}*.golden.safetensors') for p in sys.argv[2:]), [])):
    base = path[:-len('.golden.safetensors')]
    with open(base + '.json') as f: config = json.load(f)
    source = os.path.join(folder, '..', config['checkpoint']) if 'checkpoint' in config else base + '.safetensors'
    golden = dict(tensors(path))
    ((rows, length), ids), (shape, logits) = golden['ids'], golden['logits']
    per_row, errors = length * shape[2], {}
    for quant in 'f32', 'q8':
        with tempfile.TemporaryDirectory() as t:
            run = lambda *c: subprocess.run(c, check=True, stdout=subprocess.DEVNULL)
            run('tools/mbconvert', source, '-o', t + '/m.mb', '--quant', quant, '--config', base + '.json')
            errors[quant] = 0
            for b in range(rows):
                with open(t + '/in', 'wb') as f: f.write(bytes(list(ids[b * length:(b + 1) * length])))
                run('tools/mbrun', 'score', '-m', t + '/m.mb', '--logits', t + '/out', t + '/in')
                out = array('f')
                with open(t + '/out', 'rb') as f: out.frombytes(f.read())
                assert len(out) == per_row, f'{len(out)} logits written, not {per_row}'
                errors[quant] = max(errors[quant], error(out, logits[b * per_row:(b + 1) * per_row]))
    cases += 1
    wrong += not errors['f32'] < 1e-5
    print(f'{os.path.basename(base):24s} f32 {errors["f32"]:.2e}   q8 {errors["q8"]:.2e}', flush=True)
print(f'{cases} cases, {wrong} out of tolerance')
sys.exit(wrong != 0 or not cases)
