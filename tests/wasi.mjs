// Runs a program built for wasm32-wasi: node tests/wasi.mjs PROGRAM [ARGUMENT...]. It sees the
// files under the current directory. Needs node 18 or newer.
import {readFileSync} from 'node:fs';

const warn = process.emitWarning; // node calls its WASI experimental every time
process.emitWarning = (text, ...rest) => /WASI/.test(text) || warn.call(process, text, ...rest);
const {WASI} = await import('node:wasi');

const [, , program, ...args] = process.argv;
const wasi = new WASI({
  version: 'preview1',
  args: [program, ...args],
  env: process.env,
  preopens: {'.': '.'},
  returnOnExit: true,
});
const module = await WebAssembly.compile(readFileSync(program));
const instance = await WebAssembly.instantiate(module, {wasi_snapshot_preview1: wasi.wasiImport});
process.exitCode = wasi.start(instance);
