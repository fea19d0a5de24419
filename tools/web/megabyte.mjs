// megabyte.mjs - MEGABYTE byte models in the browser and in node: generate, score, compress.
// The same bytes and bits as the native library's. SPDX-License-Identifier: MIT

const STATUS_END = 1;
const PIECE = 65536; // bytes that cross the border at a time

/** What the library says went wrong; `status` is its megabyte_status (megabyte.h). */
export class MegabyteError extends Error {
  constructor(text, status) {
    super(text);
    this.name = 'MegabyteError';
    this.status = status;
  }
}

async function bytesOf(url) {
  if (url.protocol === 'file:') return (await import('node:fs/promises')).readFile(url);
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
  return new Uint8Array(await response.arrayBuffer());
}

// (module (func (drop (v128.const i32x4 0 0 0 0)))): what tells an engine with SIMD128
const SIMD = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 23, 1,
  21, 0, 253, 12, ...new Array(16).fill(0), 26, 11]);
const compiled = {};
function compile(simd) {
  compiled[simd] ??= bytesOf(new URL(simd ? 'megabyte.wasm' : 'megabyte-plain.wasm',
    import.meta.url)).then(bytes => WebAssembly.compile(bytes)).catch(e => {
    delete compiled[simd]; // the next call tries again
    throw e;
  });
  return compiled[simd];
}

const asBytes = data => typeof data === 'string' ? new TextEncoder().encode(data)
  : data instanceof Uint8Array ? data
    : ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      : new Uint8Array(data);

function concatenate(parts, total) {
  const all = new Uint8Array(total);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

class Megabyte {
  #c; // the instance's functions
  #piece; // PIECE bytes in its memory
  #floats; // and room for as many floats
  #progress = null;
  #thrown = null; // what it threw, in an array
  #busy = false;

  static async create(file, simd) {
    const m = new Megabyte();
    const module = await compile(simd);
    const none = () => 8; // files: libc's streams, which nobody uses
    m.#c = (await WebAssembly.instantiate(module, {
      page: {progress: bytes => m.#tell(bytes)},
      wasi_snapshot_preview1: {fd_close: none, fd_seek: none, fd_write: none},
    })).exports;
    m.#c._initialize();
    m.#piece = m.#alloc(PIECE);
    m.#floats = m.#alloc(4 * PIECE);
    if (file) {
      const at = m.#alloc(file.length);
      m.#memory(at, file.length).set(file);
      m.#check(m.#c.web_open(at, file.length));
    }
    m.info = file ? m.#describe() : null;
    return m;
  }

  #alloc(n) {
    const at = this.#c.web_alloc(n);
    if (!at) throw new MegabyteError('out of memory', -2);
    return at;
  }
  #memory(at, n) { return new Uint8Array(this.#c.memory.buffer, at, n); }
  #text(at) {
    const all = new Uint8Array(this.#c.memory.buffer, at);
    return new TextDecoder().decode(all.slice(0, all.indexOf(0)));
  }
  // Nothing may be thrown through the instance's functions: they would leave their stack behind.
  #tell(bytes) {
    try {
      this.#progress?.(bytes);
    } catch (e) {
      this.#thrown = [e];
    }
    return this.#thrown ? 1 : 0;
  }
  #check(status) {
    if (this.#thrown) {
      const [reason] = this.#thrown;
      this.#thrown = null;
      throw reason;
    }
    if (status < 0) throw new MegabyteError(this.#text(this.#c.web_error()), status);
    return status;
  }
  #put(bytes) { this.#memory(this.#piece, bytes.length).set(bytes); }
  // One call at a time: they share the stream, the codec and the buffers.
  #alone(needsModel, work) {
    if (!this.#c) throw new MegabyteError('the model is closed', -1);
    if (needsModel && !this.info) throw new MegabyteError('open a model first', -1);
    if (this.#busy) throw new MegabyteError('another call is at work, which called this one', -1);
    this.#busy = true;
    try {
      return work();
    } finally {
      this.#busy = false;
    }
  }
  #describe() {
    const number = which => this.#c.web_info(which);
    const text = key => {
      this.#put(new TextEncoder().encode(key + '\0'));
      const at = this.#c.web_metadata(this.#piece);
      return at ? this.#text(at) : '';
    };
    return {name: text('name'), licence: text('licence'), description: text('description'),
      vocabulary: number(0), contextBytes: number(1), parameters: number(2), fileBytes: number(3),
      simd: number(4) !== 1};
  }
  #feed(bytes) {
    this.#c.web_reset();
    for (let at = 0; at < bytes.length; at += PIECE) {
      const part = bytes.subarray(at, at + PIECE);
      this.#put(part);
      this.#check(this.#c.web_feed(this.#piece, part.length));
    }
  }

  generate(prompt, options = {}) {
    return this.#alone(true, () => this.#generate(prompt, options));
  }
  #generate(prompt, options) {
    const {bytes = 200, temperature = 0, topK = 0, topP = 0, minP = 0, repetitionPenalty = 0,
      seed = 0, onBytes} = options;
    if (!(Number.isInteger(bytes) && bytes >= 0))
      throw new MegabyteError('bytes: a whole number, 0 or more', -1);
    this.#feed(asBytes(prompt));
    const wide = BigInt.asUintN(64, BigInt(seed));
    this.#c.web_sampling(temperature, topK, topP, minP, repetitionPenalty,
      Number(wide & 0xffffffffn), Number(wide >> 32n));
    const parts = [];
    let total = 0;
    for (let status = 0; total < bytes && status !== STATUS_END;) {
      status = this.#check(this.#c.web_generate(this.#piece, Math.min(16, bytes - total)));
      const part = this.#memory(this.#piece, this.#c.web_count()).slice();
      parts.push(part);
      total += part.length;
      onBytes?.(part);
    }
    return concatenate(parts, total);
  }

  score(data, options = {}) { return this.#alone(true, () => this.#score(data, options)); }
  #score(data, {onProgress}) {
    const bytes = asBytes(data), bits = new Float32Array(bytes.length);
    this.#c.web_reset();
    for (let at = 0; at < bytes.length; at += 1024) {
      const part = bytes.subarray(at, at + 1024);
      this.#put(part);
      this.#check(this.#c.web_score(this.#piece, part.length, this.#floats));
      bits.set(new Float32Array(this.#c.memory.buffer, this.#floats, part.length), at);
      onProgress?.(at + part.length);
    }
    return bits;
  }

  #run(bytes, onProgress) {
    const parts = [];
    let total = 0, at = 0;
    this.#progress = onProgress ?? null;
    try {
      for (let finished = false; !finished;) {
        if (at < bytes.length) {
          const part = bytes.subarray(at, at + PIECE);
          this.#put(part);
          this.#check(this.#c.web_push(this.#piece, part.length));
          at += this.#c.web_count();
        } else {
          this.#check(this.#c.web_finish());
          finished = true;
        }
        for (let n = 1; n;) {
          this.#check(this.#c.web_pull(this.#piece, PIECE));
          n = this.#c.web_count();
          parts.push(this.#memory(this.#piece, n).slice());
          total += n;
        }
      }
    } finally {
      this.#progress = null;
      this.#c.web_end();
    }
    return concatenate(parts, total);
  }

  encode(data, {level = this.info ? 7 : 1, onProgress} = {}) {
    const bytes = asBytes(data);
    return this.#alone(false, () => {
      this.#check(this.#c.web_encode(bytes.length, level));
      return this.#run(bytes, onProgress);
    });
  }

  decode(data, {limit = -1, onProgress} = {}) {
    const bytes = asBytes(data), head = bytes.subarray(0, 64);
    return this.#alone(false, () => {
      this.#put(head);
      this.#check(this.#c.web_decode(this.#piece, head.length, limit));
      return this.#run(bytes, onProgress);
    });
  }

  close() { // all memory is the instance's
    if (this.#c) this.#alone(false, () => { this.#c = null; });
  }
}

/**
 * Opens a model: its file's bytes, or where to fetch them from. null: none, for levels 1 to 4.
 * options.simd: false takes the build without SIMD; options.onProgress(loaded, total).
 */
export async function open(source, {simd = WebAssembly.validate(SIMD), onProgress} = {}) {
  let file = source;
  if (typeof source === 'string' || source instanceof URL) {
    const response = await fetch(source);
    if (!response.ok)
      throw new MegabyteError(`${source}: ${response.status} ${response.statusText}`, -3);
    const total = Number(response.headers.get('content-length')) || 0, parts = [];
    let loaded = 0;
    for (let reader = response.body.getReader(), r; !(r = await reader.read()).done;) {
      parts.push(r.value);
      loaded += r.value.length;
      onProgress?.(loaded, total);
    }
    file = concatenate(parts, loaded);
  }
  return Megabyte.create(file ? asBytes(file) : null, Boolean(simd));
}
