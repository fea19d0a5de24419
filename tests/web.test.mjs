// The module in tools/web/dist beside the native tool, with SIMD128 and without. From the
// repository's root, after make and make web: node --test tests/web.test.mjs
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import {copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import test from 'node:test';
import {open, MegabyteError} from '../tools/web/dist/megabyte.mjs';

mkdirSync('tests/tmp', {recursive: true});
const file = readFileSync('models/text-small.mb');
const text = readFileSync('tests/data/text.txt').subarray(0, 3000);
const native = (args, input = '') => execFileSync('tools/mbrun', args, {input, maxBuffer: 1 << 26});
const same = (a, b, what) => assert.ok(Buffer.from(a).equals(Buffer.from(b)), what);
const fails = (status, text) => e =>
  e instanceof MegabyteError && e.status === status && text.test(e.message);

for (const simd of [true, false]) {
  const n = simd ? text.length : 600;
  test(`simd: ${simd}`, async t => {
    const m = await open(file, {simd});
    await t.test('info', () => {
      assert.equal(m.info.simd, simd);
      assert.equal(m.info.name, 'text-small');
      assert.equal(m.info.contextBytes, 8192);
      assert.equal(m.info.fileBytes, file.length);
    });
    await t.test('generate: the bytes of mbrun', () => {
      const seen = [];
      const options = {bytes: 40, temperature: 0.8, topP: 0.95, seed: 2n ** 40n + 7n};
      const got = m.generate('It was', {...options, onBytes: part => seen.push(...part)});
      same(got, native(['generate', '-m', 'text-small', '-p', 'It was', '-n', '40',
        '--temperature', '0.8', '--top-p', '0.95', '--seed', String(options.seed),
        '--no-echo']), 'other bytes');
      same(got, seen, 'onBytes saw others');
    });
    await t.test('score: the bits of mbrun', () => {
      let last = 0;
      const bits = m.score(text.subarray(0, n), {onProgress: at => { last = at; }});
      writeFileSync('tests/tmp/web.txt', text.subarray(0, n));
      const told = JSON.parse(native(['score', '-m', 'text-small', '--json', 'tests/tmp/web.txt']));
      const perByte = (told.total ?? told).bits_per_byte;
      const sum = bits.reduce((a, b) => a + b, 0);
      assert.ok(Math.abs(sum / n - perByte) < 1e-4, `${sum / n} is not ${perByte}`);
      assert.equal(last, n);
    });
    await t.test('encode and decode: both ways with mbrun', () => {
      for (const level of [1, 5, 7]) {
        const coded = m.encode(text.subarray(0, n), {level});
        same(native(['decompress', '-m', 'text-small', '-c'], coded), text.subarray(0, n),
          `level ${level}`);
        const theirs = native(['compress', '-m', 'text-small', '-c', `-${level}`, '-q'],
          text.subarray(0, n));
        same(m.decode(theirs), text.subarray(0, n), `level ${level}, mbrun's`);
      }
      same(m.decode(m.encode('')), '', 'nothing');
    });
    await t.test('failures are exceptions with the library\'s text', () => {
      const coded = m.encode('It was a dark and stormy night, and the rain fell in torrents.');
      const spoilt = coded.slice();
      spoilt[spoilt.length - 3] ^= 1;
      assert.throws(() => m.decode(spoilt), fails(-7, /\w/));
      assert.throws(() => m.decode(coded.subarray(0, coded.length - 4)), fails(-6, /\w/));
      assert.throws(() => m.decode('not compressed at all'), fails(-4, /\w/));
      assert.throws(() => m.decode(coded, {limit: 5}), fails(-12, /\w/));
      assert.throws(() => m.generate('', {bytes: 5, temperature: -1}), fails(-1, /\w/));
      same(m.decode(coded), 'It was a dark and stormy night, and the rain fell in torrents.');
    });
    m.close();
    assert.throws(() => m.score('a'), fails(-1, /closed/));
  });
}

test('without a model', async () => {
  const m = await open(null);
  const coded = m.encode(text);
  assert.ok(coded.length < text.length * 0.6);
  same(m.decode(coded), text);
  same(native(['decompress', '-c'], coded), text);
  assert.throws(() => m.generate('a'), fails(-1, /model/));
  assert.throws(() => m.encode(text, {level: 7}), fails(-1, /model/));
});

test('limits; callbacks that throw, or call again', async () => {
  const m = await open(null), some = new Uint8Array(200000).map((_, i) => i * i >> 6);
  const zeros = m.encode(new Uint8Array(3e6));
  assert.throws(() => m.decode(zeros, {limit: 1e6}), fails(-12, /limit/));
  for (const limit of [0, 3e6, undefined]) assert.equal(m.decode(zeros, {limit}).length, 3e6);
  const reason = new Error('enough');
  for (let i = 0; i < 700; i++) // more than the instance's stack would bear
    assert.throws(() => m.encode(some, {onProgress: () => { throw reason; }}), e => e === reason);
  for (const again of [() => m.encode('a'), () => m.decode(zeros), () => m.close()])
    assert.throws(() => m.encode(some, {onProgress: again}), fails(-1, /another call/));
  same(m.decode(m.encode(some)), some, 'another answer after failures');
  const model = await open(file);
  assert.throws(() => model.generate('It was', {onBytes: () => model.score('a')}),
    fails(-1, /another call/));
  model.close();
  model.close();
});

test('models that are none', async () => {
  await assert.rejects(open(new Uint8Array(100)), fails(-4, /\w/));
  await assert.rejects(open(file.subarray(0, 5000)), fails(-6, /\w/));
  const spoilt = Uint8Array.from(file);
  spoilt[file.length - 100] ^= 1;
  await assert.rejects(open(spoilt), fails(-7, /\w/));
});

test('a module that could not be loaded is tried again', async () => {
  const folder = 'tests/tmp/web-module';
  rmSync(folder, {recursive: true, force: true});
  mkdirSync(folder);
  const copy = name => copyFileSync(`tools/web/dist/${name}`, `${folder}/${name}`);
  copy('megabyte.mjs');
  const {open} = await import('./tmp/web-module/megabyte.mjs');
  await assert.rejects(open(null, {simd: false}), /no such file/);
  copy('megabyte-plain.wasm');
  (await open(null, {simd: false})).close();
});

test('the types name everything that is exported', async () => {
  const types = readFileSync('tools/web/dist/megabyte.d.ts', 'utf8');
  for (const name of Object.keys(await import('../tools/web/dist/megabyte.mjs')))
    assert.match(types, new RegExp(`export (class|function) ${name}\\b`));
});
