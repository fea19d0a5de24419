// The page in tools/web/dist, in headless Chromium, beside the native tool: what it compresses,
// decompresses and writes; at a phone's width, too; that nothing leaves it. From the repository's
// root, after make and make web: node --test tests/web_page.test.mjs. Pictures of the page are
// left in tests/tmp/web-*.png. CHROMIUM names another browser.
import assert from 'node:assert/strict';
import {execFileSync, spawn} from 'node:child_process';
import {existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {createServer} from 'node:http';
import {tmpdir} from 'node:os';
import {extname, join, resolve} from 'node:path';
import test from 'node:test';

const root = resolve('tools/web/dist'), tmp = resolve('tests/tmp');
mkdirSync(tmp, {recursive: true});
const native = (args, input = '') => execFileSync('tools/mbrun', args, {input, maxBuffer: 1 << 26});
const later = ms => new Promise(done => setTimeout(done, ms));

const types = {'.html': 'text/html', '.css': 'text/css', '.mjs': 'text/javascript',
  '.wasm': 'application/wasm'};
const asked = []; // paths, of this server
const server = createServer((request, response) => {
  const path = new URL(request.url, 'http://localhost').pathname;
  asked.push(path);
  const file = join(root, path === '/' ? 'index.html' : path);
  if (request.method !== 'GET' || !file.startsWith(root) || !existsSync(file))
    return response.writeHead(404).end();
  const bytes = readFileSync(file);
  response.writeHead(200, {'content-type': types[extname(file)] ?? 'application/octet-stream',
    'content-length': bytes.length}).end(bytes);
});

// Chromium's DevTools protocol through a pipe: JSON texts that end in NUL.
class Browser {
  #next = 0;
  #waiting = new Map();
  #rest = '';
  events = [];
  constructor(profile) {
    this.process = spawn(process.env.CHROMIUM ?? 'chromium', ['--headless=new', '--no-sandbox',
      '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-extensions',
      '--disable-background-networking', `--user-data-dir=${profile}`, '--remote-debugging-pipe',
      'about:blank'], {stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe']});
    this.process.stdio[4].setEncoding('utf8').on('data', text => {
      const parts = (this.#rest + text).split('\0');
      this.#rest = parts.pop();
      for (const part of parts) {
        const m = JSON.parse(part), w = this.#waiting.get(m.id);
        if (!w) this.events.push(m);
        else if (m.error) w.reject(new Error(m.error.message));
        else w.resolve(m.result);
      }
    });
  }
  send(method, params = {}, sessionId = this.session) {
    const id = ++this.#next;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, {resolve, reject});
      this.process.stdio[3].write(JSON.stringify({id, method, params, sessionId}) + '\0');
    });
  }
  async evaluate(expression) {
    const r = await this.send('Runtime.evaluate',
      {expression, awaitPromise: true, returnByValue: true});
    assert.ok(!r.exceptionDetails, r.exceptionDetails?.exception?.description);
    return r.result.value;
  }
  async until(expression, seconds = 120) {
    for (const end = Date.now() + seconds * 1000; Date.now() < end; await later(100))
      if (await this.evaluate(expression)) return;
    assert.fail(`never: ${expression}; ${await this.evaluate('document.body.innerText')}`);
  }
  async press(key, code, modifiers = 0) {
    const text = key === 'Enter' ? '\r' : undefined;
    for (const type of ['keyDown', 'keyUp'])
      await this.send('Input.dispatchKeyEvent', {type, key, code: key, text,
        windowsVirtualKeyCode: code, modifiers});
  }
  async picture(name, width, height, mobile) {
    await this.send('Emulation.setDeviceMetricsOverride',
      {width, height, deviceScaleFactor: 1, mobile});
    await later(300);
    const {data} = await this.send('Page.captureScreenshot', {captureBeyondViewport: true});
    writeFileSync(join(tmp, `web-${name}.png`), Buffer.from(data, 'base64'));
  }
}

test('the page', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'web-page-'));
  await new Promise(done => server.listen(0, '127.0.0.1', done));
  const origin = `http://127.0.0.1:${server.address().port}`;
  const b = new Browser(join(folder, 'profile'));
  t.after(async () => {
    server.close();
    server.closeAllConnections();
    const gone = new Promise(done => b.process.once('exit', done));
    b.process.kill();
    await gone;
    rmSync(folder, {recursive: true, force: true, maxRetries: 5});
  });
  const {targetId} = await b.send('Target.createTarget', {url: 'about:blank'});
  b.session = (await b.send('Target.attachToTarget', {targetId, flatten: true})).sessionId;
  for (const domain of ['Page', 'Runtime', 'Network', 'DOM', 'Log'])
    await b.send(`${domain}.enable`);
  await b.send('Browser.setDownloadBehavior', {behavior: 'allow', downloadPath: folder});
  await b.send('Emulation.setDeviceMetricsOverride',
    {width: 1280, height: 900, deviceScaleFactor: 1, mobile: false});
  await b.send('Page.navigate', {url: origin});
  const ready = 'Boolean(document.querySelector("#generate") && !generate.disabled)';
  const value = id => b.evaluate(`document.getElementById('${id}').textContent`);
  const click = async id => {
    await b.evaluate(`document.getElementById('${id}').click()`);
    await b.until(`!document.getElementById('generate').disabled`);
    assert.equal(await value('failure'), '');
  };
  const choose = async path => {
    const {root: {nodeId}} = await b.send('DOM.getDocument');
    const input = await b.send('DOM.querySelector', {nodeId, selector: '#file'});
    await b.send('DOM.setFileInputFiles', {nodeId: input.nodeId, files: [path]});
    await b.until(`chosen.textContent !== ''`);
  };
  const saved = async name => {
    await b.evaluate(`document.querySelector('#download a').click()`);
    for (let i = 0; i < 100 && !existsSync(join(folder, name)); i++) await later(100);
    return readFileSync(join(folder, name));
  };
  await b.until(ready);
  assert.match(await value('model'), /text-small.*SIMD/);

  const text = await b.evaluate('text.value');
  await t.test('colours and sizes, by keyboard', async () => {
    await b.evaluate('text.focus()');
    await b.press('Tab', 9); // the file
    await b.press('Tab', 9);
    assert.equal(await b.evaluate('document.activeElement.id'), 'score');
    await b.press('Enter', 13);
    await b.until('document.querySelector("#cost span")');
    await b.until(`!document.getElementById('generate').disabled`);
    assert.equal(await value('cost'), text);
    const told = JSON.parse(native(['score', '-m', 'text-small', '--json', '-'], text));
    const perByte = (told.total ?? told).bits_per_byte.toFixed(3);
    assert.ok((await value('summary')).includes(` ${perByte} bits a byte`), await value('summary'));
    const rows = await b.evaluate('[...sizes.rows].map(r => r.innerText.replace(/\\s+/g, " "))');
    assert.equal(rows.length, 3);
    const size = native(['compress', '-m', 'text-small', '-c', '-q'], text).length;
    assert.match(rows[2], new RegExp(`\\(\\.mbz\\) ${size} bytes`));
  });
  await t.test('writes what mbrun writes', async () => {
    await b.evaluate('bytes.value = 60');
    await click('generate');
    assert.equal(await value('written'), native(['generate', '-m', 'text-small', '-p', text, '-n',
      '60', '--seed', '1']).toString());
  });
  await t.test('pictures, without scrolling sideways', async () => {
    await b.picture('desktop', 1280, 900, false);
    await b.picture('phone', 390, 844, true);
    assert.ok(await b.evaluate('document.documentElement.scrollWidth <= 390'));
  });
  await t.test('compresses: mbrun decompresses', async () => {
    const path = resolve('tests/data/text.txt');
    writeFileSync(join(folder, 'a.txt'), readFileSync(path).subarray(0, 2500));
    await choose(join(folder, 'a.txt'));
    await click('compress');
    const plain = native(['decompress', '-m', 'text-small', '-c'], await saved('a.txt.mbz'));
    assert.ok(plain.equals(readFileSync(join(folder, 'a.txt'))));
  });
  await t.test('decompresses what mbrun has compressed', async () => {
    const bytes = readFileSync('tests/data/text.txt').subarray(2500, 4000);
    writeFileSync(join(folder, 'b.txt.mbz'), native(['compress', '-m', 'text-small', '-c', '-q'],
      bytes));
    await choose(join(folder, 'b.txt.mbz'));
    await click('decompress');
    assert.ok((await saved('b.txt')).equals(bytes));
  });
  await t.test('a damaged file is told; the page goes on; Stop', async () => {
    const bytes = readFileSync(join(folder, 'b.txt.mbz'));
    bytes[bytes.length - 2] ^= 4;
    writeFileSync(join(folder, 'c.mbz'), bytes);
    await choose(join(folder, 'c.mbz'));
    await b.evaluate('decompress.click()');
    await b.until('failure.textContent !== ""');
    assert.match(await value('failure'), /corrupt|damaged|checksum/i);
    await b.evaluate('forget.click(); bytes.value = 4000; generate.click()');
    await b.until('written.children.length === 2 && written.children[1].textContent !== ""');
    await b.evaluate('document.getElementById("stop").click()');
    await b.until(`failure.textContent === 'Stopped.' && ${ready}`);
    await b.evaluate('bytes.value = 8');
    await click('generate');
  });
  await t.test('nothing leaves the page', () => {
    const files = ['/', '/megabyte.mjs', '/megabyte.wasm', '/page.css', '/page.mjs',
      '/text-small.mb', '/worker.mjs'];
    assert.deepEqual([...new Set(asked)].sort(), files);
    for (const e of b.events)
      if (e.method === 'Network.requestWillBeSent')
        assert.match(e.params.request.url, new RegExp(`^(${origin}/|data:|blob:)`));
    const said = b.events.filter(e => e.method === 'Log.entryAdded' ||
      e.method === 'Runtime.exceptionThrown' || e.method === 'Runtime.consoleAPICalled');
    assert.deepEqual(said, []);
  });
});
