// page.mjs - what the page does. All work with the model is the worker's.
const $ = id => document.getElementById(id);
const SHOWN = 20000; // bytes that are shown in colours
const READ = 4 << 20; // the largest file that is taken: the model reads some KB/s
const MOST = 256 << 20; // bytes that it may decompress to

let worker = null, file = null, model = null, busy = false, waiting = new Map(), last = 0;

function start() {
  worker?.terminate();
  waiting = new Map();
  worker = new Worker('worker.mjs', {type: 'module'});
  worker.onmessage = ({data}) => {
    const w = waiting.get(data.id);
    if ('progress' in data) return w?.progress(data.progress);
    if ('part' in data) return w?.part(data.part);
    waiting.delete(data.id);
    if ('failure' in data) w?.reject(new Error(data.failure));
    else w?.resolve(data.result);
  };
  worker.onerror = e => say('failure', `The worker stopped: ${e.message ?? 'it did not load'}`);
}
const ask = (call, bytes, options = {}, progress = () => {}, part = () => {}) =>
  new Promise((resolve, reject) => {
    waiting.set(++last, {resolve, reject, progress, part});
    worker.postMessage({id: last, call, bytes, options});
  });

const say = (id, text) => { $(id).textContent = text; };
const count = (n, what) => `${n.toLocaleString('en')} ${what}${n === 1 ? '' : 's'}`;

async function load() {
  const response = await fetch('text-small.mb');
  if (!response.ok) throw new Error(`text-small.mb: ${response.status} ${response.statusText}`);
  const total = Number(response.headers.get('content-length')) || 6687424, parts = [];
  let n = 0;
  for (let reader = response.body.getReader(), r; !(r = await reader.read()).done;) {
    parts.push(r.value);
    n += r.value.length;
    $('loaded').value = n / total;
    say('model', `Loading the model: ${(n / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`);
  }
  model = new Uint8Array(await new Blob(parts).arrayBuffer());
  await openModel();
  $('loaded').hidden = true;
}
async function openModel() {
  const info = await ask('open', model);
  say('model', `${info.name}: ${(info.parameters / 1e6).toFixed(1)} million parameters` +
    `${info.simd ? ', SIMD' : ''}. Ready.`);
  if (!busy) idle(); // after Stop another action may have begun
}

const BUTTONS = ['score', 'compress', 'decompress', 'generate'];
function idle() {
  busy = false;
  for (const id of BUTTONS) $(id).disabled = !model;
  $('stop').disabled = true;
}
// Runs one action: buttons, progress, failures.
async function run(name, action) {
  if (busy || !model) return;
  busy = true;
  for (const id of BUTTONS) $(id).disabled = true;
  $('stop').disabled = false;
  say('failure', '');
  say('download', '');
  say('status', name);
  $('done').value = 0;
  const began = performance.now();
  try {
    const told = await action(n => { $('done').value = n; });
    $('done').value = 1;
    say('status', `${told} ${((performance.now() - began) / 1000).toFixed(1)} s.`);
  } catch (e) {
    say('status', '');
    say('failure', e.message);
  }
  idle();
}

const input = async () => {
  const bytes = file ? new Uint8Array(await file.arrayBuffer())
    : new TextEncoder().encode($('text').value);
  if (!bytes.length) throw new Error('There is nothing yet: type a text or choose a file.');
  if (bytes.length > READ)
    throw new Error(`${count(bytes.length, 'byte')} are too many for this page; mbrun takes them.`);
  return bytes;
};

async function gzipped(bytes) {
  if (typeof CompressionStream === 'undefined') return null;
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream('gzip'));
  return (await new Response(stream).arrayBuffer()).byteLength;
}

// The text in characters where it is UTF-8, each with the bits of its bytes.
function* characters(bytes, bits) {
  for (let at = 0; at < bytes.length;) {
    const b = bytes[at];
    let n = b < 0x80 ? 1 : b >= 0xf0 ? 4 : b >= 0xe0 ? 3 : b >= 0xc0 ? 2 : 1, text = null;
    try {
      text = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true})
        .decode(bytes.subarray(at, at + n));
    } catch {
      n = 1;
    }
    if (text === null || (b < 32 && b !== 9 && b !== 10 && b !== 13) || b === 127)
      text = `\\x${b.toString(16).padStart(2, '0')}`;
    let cost = 0;
    for (let i = at; i < at + n && i < bytes.length; i++) cost += bits[i];
    yield [text, cost, n];
    at += n;
  }
}
function colour(bytes, bits) {
  const out = document.createDocumentFragment();
  for (const [text, cost, n] of characters(bytes.subarray(0, SHOWN), bits)) {
    const span = document.createElement('span');
    span.className = `c${Math.min(7, Math.floor(cost / n))}`;
    span.title = `${cost.toFixed(2)} bits`;
    span.textContent = text === '\n' ? '\u23ce\n' : text;
    out.append(span);
  }
  $('cost').replaceChildren(out);
}
function sizes(rows) {
  const most = Math.max(...rows.map(r => r[1]));
  $('sizes').tBodies[0].replaceChildren(...rows.map(([name, n]) => {
    const tr = document.createElement('tr'), th = document.createElement('th'),
      bar = document.createElement('td'), td = document.createElement('td'),
      meter = document.createElement('meter');
    th.scope = 'row';
    th.textContent = name;
    meter.max = most;
    meter.value = n;
    meter.setAttribute('aria-hidden', 'true');
    bar.className = 'bar';
    bar.append(meter);
    td.textContent = count(n, 'byte');
    tr.append(th, bar, td);
    return tr;
  }));
  $('sizes').hidden = false;
}

$('score').onclick = () => run('Reading', async progress => {
  const bytes = await input();
  const bits = await ask('score', bytes, {}, n => progress(n / bytes.length / 2));
  colour(bytes, bits);
  const sum = bits.reduce((a, b) => a + b, 0);
  let worst = 0;
  for (let i = 0; i < bits.length; i++) if (bits[i] > bits[worst]) worst = i;
  const mean = (sum / bytes.length).toFixed(3), most = bits[worst].toFixed(1);
  say('summary', `${count(bytes.length, 'byte')} at ${mean} bits a byte;` +
    ` the costliest is byte ${(worst + 1).toLocaleString('en')}, ${most} bits.` +
    (bytes.length > SHOWN ? ` The first ${count(SHOWN, 'byte')} are shown.` : ''));
  say('status', 'Compressing');
  const coded = await ask('encode', bytes, {}, n => progress(.5 + n / bytes.length / 2));
  const gzip = await gzipped(bytes);
  sizes([['as it is', bytes.length], ...(gzip === null ? [] : [['gzip', gzip]]),
    ['megabyte (.mbz)', coded.length]]);
  return `Read and compressed ${count(bytes.length, 'byte')} in`;
});

let url = null;
function offer(bytes, name) {
  if (url) URL.revokeObjectURL(url);
  url = URL.createObjectURL(new Blob([bytes], {type: 'application/octet-stream'}));
  const a = document.createElement('a');
  a.href = url;
  a.download = name;
  a.textContent = `Save ${name} (${count(bytes.length, 'byte')})`;
  $('download').replaceChildren(a);
  a.focus();
}
$('compress').onclick = () => run('Compressing', async progress => {
  const bytes = await input();
  const coded = await ask('encode', bytes, {}, n => progress(n / bytes.length));
  offer(coded, `${file?.name ?? 'text.txt'}.mbz`);
  return `${count(bytes.length, 'byte')} became ${count(coded.length, 'byte')} in`;
});
$('decompress').onclick = () => run('Decompressing', async progress => {
  if (!file) throw new Error('Choose or drop a .mbz file first.');
  const bytes = await input();
  let seen = 0;
  const plain = await ask('decode', bytes, {limit: MOST}, n => {
    seen = n;
    progress(1 - 1 / (1 + seen / (bytes.length * 4)));
    say('status', `Decompressing: ${count(seen, 'byte')}`);
  });
  offer(plain, file.name.replace(/\.mbz$/i, '') || 'decompressed');
  return `${count(bytes.length, 'byte')} became ${count(plain.length, 'byte')} in`;
});
$('generate').onclick = () => run('Writing', async progress => {
  const prompt = await input(), n = Number($('bytes').value), decoder = new TextDecoder();
  const head = document.createElement('span'), tail = document.createElement('span');
  if (!(n >= 1 && n <= 4000)) throw new Error('Bytes: 1 to 4000.');
  head.className = 'prompt';
  head.textContent = new TextDecoder().decode(prompt);
  $('written').replaceChildren(head, tail);
  let written = 0;
  const options = {bytes: n, temperature: Number($('temperature').value),
    topP: Number($('top-p').value), seed: Math.max(0, Math.floor(Number($('seed').value) || 0))};
  const result = await ask('generate', prompt, options, () => {}, part => {
    tail.append(decoder.decode(part, {stream: true}));
    written += part.length;
    progress(written / n);
    $('written').scrollTop = $('written').scrollHeight;
  });
  return `${count(result.length, 'byte')} in`;
});
$('stop').onclick = async () => { // what the worker computes cannot be stopped otherwise
  const jobs = [...waiting.values()];
  start();
  for (const w of jobs) w.reject(new Error('Stopped.'));
  $('stop').disabled = true;
  try {
    await openModel();
  } catch (e) {
    say('failure', e.message);
  }
};

function choose(f) {
  file = f;
  say('chosen', f ? `${f.name}, ${count(f.size, 'byte')}` : '');
  $('forget').hidden = !f;
  $('text').disabled = Boolean(f);
}
$('file').onchange = () => choose($('file').files[0] ?? null);
$('forget').onclick = () => {
  $('file').value = '';
  choose(null);
  $('text').focus();
};
addEventListener('dragover', e => {
  e.preventDefault();
  document.body.classList.add('over');
});
addEventListener('dragleave', e => {
  if (!e.relatedTarget) document.body.classList.remove('over');
});
addEventListener('drop', e => {
  e.preventDefault();
  document.body.classList.remove('over');
  if (e.dataTransfer.files.length) choose(e.dataTransfer.files[0]);
});

start();
load().catch(e => {
  say('model', 'The model could not be loaded.');
  say('failure', e.message);
});
