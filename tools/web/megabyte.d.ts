// Types of megabyte.mjs. SPDX-License-Identifier: MIT

/** Strings are encoded as UTF-8. */
export type Data = string | Uint8Array | ArrayBuffer | ArrayBufferView;

/** Called now and then with the number of bytes done. What it throws ends the call. */
export type Progress = (bytes: number) => void;

/** What the library says went wrong. */
export class MegabyteError extends Error {
  /** A megabyte_status of megabyte.h: -1 invalid argument, -7 corrupt, -9 wrong model ... */
  readonly status: number;
}

export interface Info {
  name: string;
  licence: string;
  description: string;
  vocabulary: number;
  contextBytes: number;
  parameters: number;
  fileBytes: number;
  /** computed with SIMD128; the bits are the same without */
  simd: boolean;
}

export interface GenerateOptions {
  /** default 200 */
  bytes?: number;
  /** 0, the default: always the likeliest byte */
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  /** the same seed gives the same bytes everywhere, natively too; default 0 */
  seed?: number | bigint;
  /** called with each few bytes as they are written */
  onBytes?: (bytes: Uint8Array) => void;
}

export interface Megabyte {
  /** null without a model */
  readonly info: Info | null;
  /** What follows the prompt. Throws MegabyteError, as all others. */
  generate(prompt: Data, options?: GenerateOptions): Uint8Array;
  /** The code length of each byte in bits. */
  score(data: Data, options?: { onProgress?: Progress }): Float32Array;
  /** A whole .mbz file. level: 1 to 4 need no model; default 7, or 1 without a model. */
  encode(data: Data, options?: { level?: number; onProgress?: Progress }): Uint8Array;
  /**
   * What a .mbz file holds. limit: the most bytes accepted, 0: any number. Without one, a file that
   * claims more than 1 MB and 1024 times its own size is refused (what needs no model counts a
   * 128th): headers are easily forged.
   */
  decode(data: Data, options?: { limit?: number; onProgress?: Progress }): Uint8Array;
  /** Lets go of the memory. */
  close(): void;
}

/** Opens a model: its file's bytes, or where to fetch them from; null: none, for levels 1 to 4. */
export function open(
  source: string | URL | Uint8Array | ArrayBuffer | null,
  options?: { simd?: boolean; onProgress?: (loaded: number, total: number) => void },
): Promise<Megabyte>;
