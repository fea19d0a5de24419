/* megabyte.h - run MEGABYTE byte models from C: generate, score, compress. Version 0.1.0.
 * SPDX-License-Identifier: MIT
 *
 * A MEGABYTE model (arXiv 2305.07185) is a byte-level transformer in stages: a large global stage
 * runs once per patch of P bytes, a small local stage writes the bytes inside each patch. This
 * library is megabyte.h and megabyte.c: drop both into a C or C++ program and compile megabyte.c as
 * C11:
 *
 *     cc -O2 app.c megabyte.c -lm            (add -pthread with glibc before 2.34)
 *
 * SYNOPSIS (a whole program; the tests compile and run it as it stands here)
 *
 *     #include "megabyte.h"
 *     #include <stdio.h>
 *     int main(void) {
 *         megabyte_model *model;
 *         megabyte_stream *stream;
 *         megabyte_error error;
 *         if (megabyte_model_open(&model, "models/text.mb", NULL, &error) ||
 *             megabyte_stream_create(&stream, model, NULL, NULL, &error))
 *             return puts(error.text), 1;
 *         megabyte_stream_feed(stream, "It was a dark and stormy night", 30);
 *         megabyte_sampling sampling = { .temperature = 0.7f, .top_p = 0.95f, .seed = 1 };
 *         for (int i = 0; i < 200; i++) {
 *             uint8_t byte;
 *             megabyte_stream_sample(stream, &sampling, &byte); // draws a byte, moves the seed on
 *             putchar(byte);
 *             megabyte_stream_step(stream, byte); // appends it to the stream's history
 *         }
 *         megabyte_stream_free(stream);
 *         megabyte_model_close(model);
 *         return 0;
 *     }
 *
 * THE MODEL, AND THE NAMES USED HERE
 *
 *     S          stages, coarse to fine; stage 0 is the paper's global model, stage S-1 its local
 *                model
 *     dim[s]     width of stage s; heads x head_dim: its attention; ff_dim: its feed-forward width
 *     n[s]       positions of a sequence of stage s: stage 0 has one sequence of n[0] patches (the
 *                context), every finer stage restarts its sequence of n[s] tokens inside each token
 *                of the stage above
 *     P          bytes per global patch = n[1] * ... * n[S-1];  the trained context is n[0] * P
 *                bytes
 *     V          vocabulary: ids 0..255 are the bytes, further ids (pad, end ...) may follow
 *     logits     float[V], natural-log domain, unnormalised: the prediction of the next byte
 *
 *     Families   lucidrains/MEGABYTE-pytorch and MBLM begin every sequence with a start token and
 *                predict a patch's first byte from the end of the patch before it. The paper's own
 *                architecture, SpaceByte's MegaByte and bGPT (two stages) shift their inputs by one
 *                instead and predict each byte inside its own patch. models/README.md has the
 *                options of each.
 *
 *     A stream is one byte history with its key/value caches. Feeding n bytes runs the global stage
 *     over all their patches as matrix products; every byte then costs one position of the local
 *     stage. Past the context a stream slides: it forgets the older half of the window and goes on
 *     (megabyte_stream_feed).
 *
 * GUARANTEES
 *
 *     One answer   For one model file and one byte history (and one context option) the logits are
 *                  the same bits on every CPU, instruction set, thread count, batch, compiler and
 *                  way of cutting the bytes into calls.
 *     Errors       Every function that can fail returns a megabyte_status and, where it says so, a
 *                  text. Nothing is printed, nothing exits. After a failure the objects are as they
 *                  were before the call.
 *     Memory       Objects are one allocation each, made at creation through the allocator given
 *                  there. Feeding, stepping, sampling, saving and loading allocate nothing. The
 *                  size queries report the bytes beforehand.
 *     Threads      A model never changes after opening: any number of threads may use it. An engine
 *                  with its streams, a codec, is used by one thread at a time. No global state: two
 *                  copies of the library in one program do not meet.
 *     Input        Model files, saved streams and all bytes may come from strangers: they are
 *                  checked before use and never crash the caller. A hostile model can predict
 *                  nonsense, nothing worse.
 *     Hosts        The caller's rounding mode, flush-to-zero flags and floating-point traps do not
 *                  matter, are found again after each call, and hold in its callbacks. Stack: 64 KB
 *                  are enough for every call (compiled with optimization; without 128 KB), also in
 *                  a signal handler's way. Threads of the library's own block all signals but those
 *                  of faults (SIGBUS ...); calls go on after a signal. Nothing here may be called
 *                  from a signal handler.
 *     Stopping     Compressing, pictures and generating ask a callback whether to stop; what can
 *                  take long and has none (feeding, scoring) may be cut into calls. The callback
 *                  may read a flag that another thread sets.
 *     Forking      A child may go on with what it inherits, if no call was under way in another
 *                  thread: an engine or codec that had threads works there with one, the same bits.
 *                  Those that the child creates have threads again. What both use is copied by the
 *                  system, page by page.
 */
#ifndef MEGABYTE_H
#define MEGABYTE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Compile-time options, for megabyte.c (none of them changes this header):
 *   MEGABYTE_NO_THREADS   no threads; engines then run on the caller's thread only
 *   MEGABYTE_NO_FILE      no file access; models are opened from memory
 *   MEGABYTE_NO_SIMD      the plain C kernels only
 *   MEGABYTE_NO_CODEC     no compression: everything from "messages" on is left out
 *   MEGABYTE_API          put before every public declaration (a visibility attribute, say)
 *   MEGABYTE_SELF         the file's name if it is not "megabyte.c", which includes itself
 * And for debugging and tests that include megabyte.c:
 *   MEGABYTE_TRACE        a macro that sees every layer's activations (section 1 of megabyte.c)
 *   MEGABYTE_KEEP_OPTIONS do not restore the compiler's floating-point options at the end
 *   MEGABYTE_ALL_THREADS  start as many threads as asked for, even if there are fewer cores */
#ifndef MEGABYTE_API
#define MEGABYTE_API
#endif

#define MEGABYTE_VERSION_MAJOR 0
#define MEGABYTE_VERSION_MINOR 1
#define MEGABYTE_VERSION_PATCH 0
#define MEGABYTE_VERSION_STRING "0.1.0"
#define MEGABYTE_VERSION_NUMBER 100 /* major * 10000 + minor * 100 + patch */
#define MEGABYTE_FORMAT_VERSION 1 /* of the model file */
#define MEGABYTE_NUMERICS_VERSION 2 /* grows whenever any logit's bits or any code changes */
#define MEGABYTE_MAX_STAGES 8

/* The version of the megabyte.c that was linked; compare with MEGABYTE_VERSION_NUMBER. */
MEGABYTE_API uint32_t megabyte_version(void);

/* --------------------------------------------------------------------------------------- status */

typedef enum megabyte_status {
    MEGABYTE_OK = 0,
    MEGABYTE_END = 1, /* no error: the model ends its text (megabyte_stream_sample) */
    MEGABYTE_ERROR_INVALID_ARGUMENT = -1, /* an argument is outside its documented range */
    MEGABYTE_ERROR_OUT_OF_MEMORY = -2, /* the allocator returned NULL */
    MEGABYTE_ERROR_IO = -3, /* the file cannot be opened or read */
    MEGABYTE_ERROR_BAD_MAGIC = -4, /* not a model file / not a saved stream */
    MEGABYTE_ERROR_BAD_VERSION = -5, /* written by a newer megabyte, or with other numerics */
    MEGABYTE_ERROR_TRUNCATED = -6, /* shorter than its header says */
    MEGABYTE_ERROR_CORRUPT = -7, /* a checksum or a value is wrong */
    MEGABYTE_ERROR_UNSUPPORTED = -8, /* well formed, but this build or CPU cannot run it */
    MEGABYTE_ERROR_WRONG_MODEL = -9, /* made with another model */
    MEGABYTE_ERROR_CAPACITY = -10, /* a buffer is too small, or a rewind goes too far back */
    MEGABYTE_ERROR_ARITHMETIC = -11, /* this build's floating point is not IEEE: see the README */
    MEGABYTE_ERROR_LIMIT = -12, /* more output than options->limit or max_ratio allows */
    MEGABYTE_ERROR_TRAILING_DATA = -13, /* everything was decoded, but other data follows */
    MEGABYTE_ERROR_WRONG_DICTIONARY = -14, /* compressed with another dictionary, or none */
    MEGABYTE_ERROR_CANCELLED = -15 /* options->progress asked to stop */
} megabyte_status;

/* A short English text for a status; never NULL, static. */
MEGABYTE_API const char *megabyte_status_string(megabyte_status status);

/* An optional output: pass NULL, or a struct that is filled on failure and zeroed on success. */
typedef struct megabyte_error {
    megabyte_status status;
    uint64_t offset; /* in the file, where that makes sense */
    char text[192]; /* what, where, what to do; always ends in NUL */
} megabyte_error;

/* --------------------------------------------------------------------------------------- memory */

/* Set both functions, or pass NULL instead of the struct for libc's. Copied at creation. alloc
 * returns at least `size` bytes aligned to `align` (a power of two: 64, or 2 MB for a model file's
 * bytes), or NULL; free is called with the same size. */
typedef struct megabyte_allocator {
    void *(*alloc)(void *context, size_t size, size_t align);
    void (*free)(void *context, void *memory, size_t size);
    void *context;
} megabyte_allocator;

/* ---------------------------------------------------------------------------------------- model */

typedef struct megabyte_model megabyte_model; /* immutable; shareable between threads */
typedef struct megabyte_engine megabyte_engine; /* scratch memory, kernels and threads */
typedef struct megabyte_stream megabyte_stream; /* one byte history */

/* Opens a model file. It is mapped, not read: only the header and tables are examined and their
 * checksum verified; weights are paged in as they are used. Without mmap the file is read into
 * allocated memory.
 *
 *   model      set on success; free with megabyte_model_close. Must outlive its engines and
 *              streams.
 *   path       on Windows in UTF-8
 *   allocator  NULL for libc
 *   error      may be NULL
 *
 * Lifetime: the file must not be changed in place or truncated before megabyte_model_close (the
 * system would stop the program); replacing it by renaming another over it is fine (Windows refuses
 * that). Returns: OK; INVALID_ARGUMENT, OUT_OF_MEMORY, IO, BAD_MAGIC, BAD_VERSION, TRUNCATED,
 * CORRUPT, UNSUPPORTED.
 */
MEGABYTE_API megabyte_status megabyte_model_open(megabyte_model **model, const char *path,
                                                 const megabyte_allocator *allocator,
                                                 megabyte_error *error);

/* The same, but all of the file is read into memory of the model's own, in large pages where the
 * system has them: opening takes as long as reading does, and the memory is not shared with other
 * processes, but one stream then writes a quarter faster and more where the system keeps files in
 * scattered small pages, and the file may be changed or removed afterwards.
 *
 *   allocator  is asked for the file's size, aligned to 2 MB if that is 4 MB or more
 *   Returns:   as megabyte_model_open. */
MEGABYTE_API megabyte_status megabyte_model_load(megabyte_model **model, const char *path,
                                                 const megabyte_allocator *allocator,
                                                 megabyte_error *error);

/* The same from memory that holds a whole model file. `data` must be aligned to 64 bytes, stay
 * valid and unmodified until megabyte_model_close; weights are used in place (big-endian hosts make
 * a copy). */
MEGABYTE_API megabyte_status megabyte_model_open_memory(megabyte_model **model, const void *data,
                                                        size_t size,
                                                        const megabyte_allocator *allocator,
                                                        megabyte_error *error);

MEGABYTE_API void megabyte_model_close(megabyte_model *model); /* NULL is allowed */

/* Reads all weights once and compares their SHA-256 with the one in the header.
 * Returns: OK; CORRUPT. Cost: a few ms per MB. */
MEGABYTE_API megabyte_status megabyte_model_verify(const megabyte_model *model,
                                                   megabyte_error *error);

typedef struct megabyte_stage_info {
    uint32_t dim, layers, heads, head_dim, ff_dim;
    uint32_t positions; /* n[s] */
    int learned_positions; /* 1 if a trained vector is added per position */
    int rotary_positions; /* 1 if queries and keys are rotated */
    uint64_t parameters;
    uint64_t macs_per_token; /* multiply-accumulates with weights for one position of this stage */
    uint64_t bytes_per_token; /* bytes that one token of this stage stands for: P, ..., 1 */
    uint32_t kv_heads; /* heads of keys and values; fewer than `heads`: grouped queries */
    const char *norm; /* "RMSNorm", "LayerNorm" or "deviation norm": x / sd(x) */
    const char *activation; /* "GELU", "tanh-GELU", "ReLU" or "SiLU" */
    int input_rotary_positions; /* 1 if the tokens' embeddings themselves are rotated (MBLM) */
    int qk_norm, final_norm; /* 1 if queries and keys, the stage's output, are normalized */
    int token_shift; /* 1 if half of the channels come from the token before (lucidrains, MBLM) */
    /* positions of the patch before that are attended to, too (local stage) */
    uint32_t cross_patch;
    /* widths of those over the bytes' embeddings; 0 ends the list (global) */
    uint32_t convolutions[4];
} megabyte_stage_info;

typedef struct megabyte_info {
    uint32_t n_stages;
    megabyte_stage_info stage[MEGABYTE_MAX_STAGES]; /* coarse to fine */
    uint32_t vocabulary; /* V */
    uint32_t pad_id; /* UINT32_MAX if none */
    uint32_t end_id; /* the id that ends a text: megabyte_stream_sample; UINT32_MAX if none */
    uint32_t patch_bytes; /* P */
    uint64_t context_bytes; /* n[0] * P */
    uint64_t parameters;
    uint64_t file_bytes;
    double macs_per_byte; /* with weights; attention comes on top */
    double weight_bytes_per_byte; /* bytes of weight matrices that one stepped byte reads */
    const char *family; /* "lucidrains", "mblm", "paper", "spacebyte" or "bgpt" */
    const char *quantization; /* "f32", "q8", "q4" (with q8, but no f32 matrices) or "mixed" */
    uint8_t id[16]; /* names the weights and sizes; metadata does not count */
} megabyte_info;

MEGABYTE_API void megabyte_model_describe(const megabyte_model *model, megabyte_info *info);

/* Metadata: UTF-8 texts, valid until the model is closed. _metadata returns NULL if the key is
 * absent (keys in use: name, licence, source, training_data, description); _metadata_at returns
 * NULL past the last index.
 */
MEGABYTE_API const char *megabyte_model_metadata(const megabyte_model *model, const char *key);
MEGABYTE_API const char *megabyte_model_metadata_at(const megabyte_model *model, uint32_t index,
                                                    const char **value);

/* --------------------------------------------------------------------------------------- engine */

/* Instruction sets. All give the same bits; AUTO takes the fastest that this CPU has. */
typedef enum megabyte_isa {
    MEGABYTE_ISA_AUTO = 0,
    MEGABYTE_ISA_PLAIN = 1,
    MEGABYTE_ISA_AVX2 = 2,
    MEGABYTE_ISA_AVX512_VNNI = 3,
    MEGABYTE_ISA_NEON = 4,
    MEGABYTE_ISA_NEON_DOT = 5,
    MEGABYTE_ISA_SIMD128 = 6, /* WebAssembly; built with -msimd128 */
    MEGABYTE_ISA_NEON_I8MM = 7
} megabyte_isa;

MEGABYTE_API int megabyte_isa_available(megabyte_isa isa); /* 1 if this build and CPU have it */
MEGABYTE_API const char *megabyte_isa_name(
    megabyte_isa isa); /* "avx512-vnni" ...; "?" if unknown */

/* Zero means default in every field; start from { 0 }. */
typedef struct megabyte_engine_options {
    /* 1..256, the caller's included; default 1. No more are started than the thread that creates
     * the engine may use cores: the others would only be in the way */
    uint32_t threads;
    uint32_t batch; /* tokens computed together, 1..4096; default 128; no effect on results */
    megabyte_isa isa; /* default AUTO */
    /* NULL, or a clock: the engine looks at it between the parts of its work, some hundred times a
     * byte, from the thread that calls it, and adds up what each part took: see
     * megabyte_engine_parts */
    uint64_t (*clock)(void *context);
    void *clock_context;
} megabyte_engine_options;

/* Where an engine's time goes. */
typedef enum megabyte_part {
    MEGABYTE_PART_OTHER, /* embeddings, and what lies between the stages' passes */
    MEGABYTE_PART_NORM, /* token shift, norms, quantizing the products' inputs */
    MEGABYTE_PART_PRODUCT, /* products with weights */
    MEGABYTE_PART_ATTENTION, /* rotary positions, keys and values, scores, weighted sums */
    MEGABYTE_PART_ACTIVATION, /* GELU and the like, quantizing what they give */
    MEGABYTE_PART_OUTPUT, /* logits, code lengths */
    MEGABYTE_PART_WAIT, /* for the other threads */
    MEGABYTE_PARTS
} megabyte_part;

/* An engine is what streams compute with: scratch memory and, with threads > 1, a thread pool that
 * sleeps between calls. Streams that are stepped together must share one engine. A stream created
 * without an engine gets its own.
 *
 *   options    NULL for defaults
 *   Returns:   OK; INVALID_ARGUMENT, OUT_OF_MEMORY, UNSUPPORTED (the CPU lacks options->isa, or
 *              threads could not be started), ARITHMETIC.
 *   Lifetime:  must outlive its streams. */
MEGABYTE_API megabyte_status megabyte_engine_create(megabyte_engine **engine,
                                                    const megabyte_model *model,
                                                    const megabyte_engine_options *options,
                                                    const megabyte_allocator *allocator,
                                                    megabyte_error *error);
MEGABYTE_API void megabyte_engine_free(megabyte_engine *engine); /* NULL is allowed */
MEGABYTE_API megabyte_status megabyte_engine_size(const megabyte_model *model,
                                                  const megabyte_engine_options *options,
                                                  size_t *bytes);
MEGABYTE_API megabyte_isa megabyte_engine_isa(const megabyte_engine *engine);
/* Copies what each part of each stage has taken since creation, in the unit of options->clock;
 * zeros without a clock. */
MEGABYTE_API void megabyte_engine_parts(const megabyte_engine *engine,
                                        uint64_t time[MEGABYTE_MAX_STAGES][MEGABYTE_PARTS]);

/* Runs a tiny built-in model (q4, q8 and f32 weights) on one instruction set and compares the bits
 * of its logits with a constant. Returns: OK; ARITHMETIC, UNSUPPORTED, OUT_OF_MEMORY. Takes
 * milliseconds. */
MEGABYTE_API megabyte_status megabyte_self_test(megabyte_isa isa);

/* --------------------------------------------------------------------------------------- stream */

typedef struct megabyte_stream_options {
    megabyte_engine *engine; /* NULL: the stream makes its own (1 thread, default batch) */
    /* bytes kept before sliding, P (paper, SpaceByte, bGPT: 2P) to n[0]*P, rounded down to
     * patches; 0 = n[0]*P. A stream's memory is nearly proportional to it and comes as it is
     * used; logits past it depend on it. */
    uint64_t context;
    /* bGPT: the file type, 1 to P bytes such as "txt", "wav" or "bmp", which these models see
     * first (read now, not kept); NULL: the model's default. Other models: NULL */
    const char *file_type;
    /* 0..15, 0 meaning 11, or MEGABYTE_NO_DRAFT: bytes that megabyte_stream_generate and _decode
     * guess at a time and compute together with the one that is known. Right guesses save time;
     * results are the same. A stream without is smaller (text.mb: by 0.64 MB, see _stream_size) */
    uint32_t draft_max;
    /* 1: ask the system for large pages. All of the stream's memory may then come at once, not as
     * it is used; far into its context a stream is faster (mbrun bench, with and without --mmap) */
    int large_pages;
    /* NULL: the guesses come from the stream's own history. Else this writes up to `most` bytes
     * that may follow the n bytes at `before`, the last of which is number position - 1, to
     * `bytes` and returns how many (a second, smaller model's, say). It must not use the stream,
     * and may find the floating-point environment changed (rounding to nearest, denormals kept);
     * what it guesses changes no result */
    size_t (*draft)(void *context, uint64_t position, const uint8_t *before, size_t n,
                    uint8_t *bytes, size_t most);
    void *draft_context;
    /* NULL, or an engine of a second, much smaller model (and without `draft`): where the stream's
     * own history tells little, a stream of that model guesses, too. The result is still the same.
     * This adds that stream's memory. The engine is used whenever this stream generates or decodes,
     * on the same thread; it may serve several streams of one thread, and must outlive them. The
     * model's bytes must be in the second one's vocabulary. It must be small and yet often right:
     * where it saves nothing it is hardly used, but reads along */
    megabyte_engine *draft_engine;
} megabyte_stream_options;
#define MEGABYTE_NO_DRAFT UINT32_MAX

/* Creates an empty stream: its logits predict the first byte of a document.
 *   Returns: OK; INVALID_ARGUMENT, OUT_OF_MEMORY, and without options->engine what
 *   megabyte_engine_create returns. */
MEGABYTE_API megabyte_status megabyte_stream_create(megabyte_stream **stream,
                                                    const megabyte_model *model,
                                                    const megabyte_stream_options *options,
                                                    const megabyte_allocator *allocator,
                                                    megabyte_error *error);
MEGABYTE_API void megabyte_stream_free(megabyte_stream *stream); /* NULL is allowed */

/* Bytes that megabyte_stream_create will allocate, its private engine included if options->engine
 * is NULL. */
MEGABYTE_API megabyte_status megabyte_stream_size(const megabyte_model *model,
                                                  const megabyte_stream_options *options,
                                                  size_t *bytes);

/* Appends n bytes to the history (bytes may be NULL if n == 0). Computes only what later
 * predictions need: the global stage over all patches, the finer stages over the last ones.
 *
 * Sliding: when the context is full, the next byte first drops the older half of the window (its
 * patches, rounded up) and the kept half is prefilled again as if it were a document's beginning;
 * so a prediction sees between half and all of the context (paper, SpaceByte, bGPT: all but a
 * byte).
 *
 *   Returns: OK; INVALID_ARGUMENT if a byte is outside the vocabulary (possible only where V <
 *   256). */
MEGABYTE_API megabyte_status megabyte_stream_feed(megabyte_stream *stream, const void *bytes,
                                                  size_t n);

/* Appends one byte: the step of generation. */
MEGABYTE_API megabyte_status megabyte_stream_step(megabyte_stream *stream, uint8_t byte);

/* Appends bytes[i] to streams[i] for all i < n, in batches of the engine's `batch`: the weights are
 * read once for each. The streams must be distinct and share one engine.
 *   Returns: OK; INVALID_ARGUMENT (then no stream has changed). */
MEGABYTE_API megabyte_status megabyte_stream_step_batch(megabyte_stream *const *streams,
                                                        const uint8_t *bytes, size_t n);

/* Appends lengths[i] bytes at bytes[i] to streams[i], the global stage in parallel over the patches
 * of all of them: prompts of many streams take little more than one long prompt. As
 * megabyte_stream_step_batch otherwise. */
MEGABYTE_API megabyte_status megabyte_stream_feed_batch(megabyte_stream *const *streams,
                                                        const uint8_t *const *bytes,
                                                        const size_t *lengths, size_t n);

/* Appends n bytes and adds their code length under the model, sum of -log2 p(byte | all before), to
 * *bits.
 *   logits   NULL, or float[n * V]: row i receives the prediction of bytes[i], made from the bytes
 *            before it. */
MEGABYTE_API megabyte_status megabyte_stream_score(megabyte_stream *stream, const void *bytes,
                                                   size_t n, double *bits, float *logits);

/* The same with the code length of every byte by itself: bits[n]. Two streams, the second begun P/2
 * bytes later (rounded up), so give strided inference (paper, section 4): a byte's code length is
 * taken from the one that predicts it with one of the first positions of its patch's sequence. */
MEGABYTE_API megabyte_status megabyte_stream_score_bytes(megabyte_stream *stream, const void *bytes,
                                                         size_t n, float *bits);

/* The prediction of the next byte: float[V], always finite; valid until the stream is next
 * changed. */
MEGABYTE_API const float *megabyte_stream_logits(const megabyte_stream *stream);

/* The same as probabilities that sum to 1 up to rounding: out float[V], caller-owned. */
MEGABYTE_API void megabyte_stream_probabilities(const megabyte_stream *stream, float *out);

MEGABYTE_API uint64_t
megabyte_stream_position(const megabyte_stream *stream); /* bytes in the history */
/* Back to the empty history; the file type stays, also one that was loaded or copied. Uses the
 * engine, as feeding does. */
MEGABYTE_API void megabyte_stream_reset(megabyte_stream *stream);

/* Back to an earlier position: the stream is then as if only the first `position` bytes had been
 * fed. Going back a few patches costs a step or two; further back, the window is prefilled again.
 *   Returns: OK; INVALID_ARGUMENT if position is ahead; CAPACITY if it lies further back than the
 *   history that is kept: at least half the context, and all of it while the history is no longer
 *   than the context, counted from the longest history since the last reset. */
MEGABYTE_API megabyte_status megabyte_stream_rewind(megabyte_stream *stream, uint64_t position);

/* Makes `to` equal to `from` (same model and context option, else INVALID_ARGUMENT), the file type
 * included. */
MEGABYTE_API megabyte_status megabyte_stream_copy(megabyte_stream *to, const megabyte_stream *from);

/* A stream's state as bytes, the same on every machine: a prefix cache. Loading checks everything
 * and needs the same model and context option. _save writes exactly _save_size bytes.
 *   Returns: OK; CAPACITY (size too small); BAD_MAGIC, BAD_VERSION, WRONG_MODEL, TRUNCATED,
 *   CORRUPT: then the stream is unchanged. */
MEGABYTE_API size_t megabyte_stream_save_size(const megabyte_stream *stream);
MEGABYTE_API megabyte_status megabyte_stream_save(const megabyte_stream *stream, void *out,
                                                  size_t size);
MEGABYTE_API megabyte_status megabyte_stream_load(megabyte_stream *stream, const void *data,
                                                  size_t size);

/* ------------------------------------------------------------------------------------- sampling */

/* A zero field is off; { 0 } chooses greedily. Applied in this order: repetition penalty,
 * temperature, top-k, top-p, min-p. The same bytes are drawn on every machine. Only bytes are
 * drawn, and the id that ends a text if the model has one; other ids from 256 on are excluded. */
typedef struct megabyte_sampling {
    float temperature; /* 0: always the likeliest byte (ties: the smallest) */
    uint32_t top_k; /* keep the K likeliest */
    float
        top_p; /* keep the smallest set with at least this probability (nucleus); 0 or >= 1: off */
    float min_p; /* keep bytes at least this fraction as likely as the likeliest */
    float
        repetition_penalty; /* > 1: recent bytes' logits are divided (if > 0) or multiplied by it */
    uint32_t repetition_window; /* bytes looked back, default 64, at most 1024 */
    uint64_t seed; /* the generator's state: any value; every draw moves it on */
} megabyte_sampling;

/* Draws the next byte from a stream's prediction; the stream does not change, sampling->seed does.
 *   Returns: OK; END: the model ends the text here (models with an end id only), *byte is
 *   unchanged; INVALID_ARGUMENT (a NULL; a field that is NaN or negative). */
MEGABYTE_API megabyte_status megabyte_stream_sample(const megabyte_stream *stream,
                                                    megabyte_sampling *sampling, uint8_t *byte);

/* The same from any logits: float[n_logits], of which only bytes are drawn; recent: the last bytes
 * written (NULL if n_recent == 0). */
MEGABYTE_API megabyte_status megabyte_logits_sample(const float *logits, size_t n_logits,
                                                    const uint8_t *recent, size_t n_recent,
                                                    megabyte_sampling *sampling, uint8_t *byte);

/* Draws n bytes, one after the other, and appends each: what a loop of megabyte_stream_sample and
 * megabyte_stream_step writes, the same bytes and the same stream, but faster where it can guess
 * what comes (speculative decoding, arXiv 2211.17192: megabyte_stream_options.draft_max).
 *   out      [n], or NULL; receives *n_out bytes (n_out may be NULL)
 *   written  NULL, or called with each byte; nonzero stops. It must not use the stream
 *   Returns: OK: n bytes; END: the model ends the text (models with an end id only); CANCELLED:
 *            `written` stopped it; INVALID_ARGUMENT, also in sampling: no byte was written. */
MEGABYTE_API megabyte_status megabyte_stream_generate(megabyte_stream *stream,
                                                      megabyte_sampling *sampling, uint8_t *out,
                                                      size_t n, size_t *n_out,
                                                      int (*written)(void *context, uint8_t byte),
                                                      void *context);

/* How well guessing goes: bytes that megabyte_stream_generate and _decode have appended since the
 * stream was created, and the passes of the model that they took. Either may be NULL. */
MEGABYTE_API void megabyte_stream_draft_counts(const megabyte_stream *stream, uint64_t *steps,
                                               uint64_t *passes);

/* ------------------------------------------------------------------------------------- messages */

/* Raw messages: a message becomes arithmetic code and nothing else - no header, no checksum - for
 * records, packets and database cells. Both sides hold streams with the same model, context option
 * and history; the message is appended to the history of both. A dictionary (typical text, a
 * sample, the record before) makes short messages much smaller: feed it once, then copy that stream
 * with megabyte_stream_copy for every message, or go back to its end with megabyte_stream_rewind.
 *
 * The code carries the message's length (about one byte) and is as long as the model's ideal code
 * length rounded up, plus at most one byte for messages up to 126 bytes; it never exceeds
 * megabyte_message_bound(n). Probabilities are integers made by one rule, so that every machine
 * decodes every other's messages (MEGABYTE_NUMERICS_VERSION names the rule). */
MEGABYTE_API size_t megabyte_message_bound(size_t n); /* n + 16; SIZE_MAX where that overflows */

/* The longest message of a stream; of a codec, if its option `limit` says nothing else. */
#define MEGABYTE_MESSAGE_MAX 67108864u /* 64 MB */

/* The length of a code's message, which it begins with: nothing is decoded, no model needed. Codes
 * from strangers can claim any length for a few bytes: allocate no more than `limit` says.
 *   limit     the longest that is accepted; 0: MEGABYTE_MESSAGE_MAX
 *   Returns:  OK; INVALID_ARGUMENT (a NULL); CORRUPT: the code is empty or cut off, or claims more
 *             than `limit`: *n is 0. */
MEGABYTE_API megabyte_status megabyte_message_length(const void *coded, size_t n_coded,
                                                     uint64_t limit, size_t *n);

/* coded     receives *n_coded bytes; capacity must be at least megabyte_message_bound(n)
 *   Returns:  OK; INVALID_ARGUMENT, CAPACITY, UNSUPPORTED (a vocabulary below 256), LIMIT (n is
 *             more than MEGABYTE_MESSAGE_MAX): nothing has changed. */
MEGABYTE_API megabyte_status megabyte_stream_encode(megabyte_stream *stream, const void *bytes,
                                                    size_t n, void *coded, size_t capacity,
                                                    size_t *n_coded);

/* coded     exactly the bytes that megabyte_stream_encode wrote
 *   bytes     receives *n bytes
 *   Returns:  OK; INVALID_ARGUMENT, UNSUPPORTED; CAPACITY: the message is longer than `capacity`,
 *             *n says how long (a damaged code can claim up to MEGABYTE_MESSAGE_MAX): nothing has
 *             changed; CORRUPT: the code is damaged or empty, or claims more than that: *n is 0,
 *             and the stream's history is undefined until the stream is reset, loaded or copied
 *             to.
 *   There is no checksum, so damage may go unnoticed: add one where the transport has none. */
MEGABYTE_API megabyte_status megabyte_stream_decode(megabyte_stream *stream, const void *coded,
                                                    size_t n_coded, void *bytes, size_t capacity,
                                                    size_t *n);

/* ----------------------------------------------------------------------------- compressed files */

/* The file format .mbz, described byte by byte in models/FORMAT.md: a header that names the model
 * if there is one, independent blocks with checksums, an end mark with the checksum of everything.
 * Files may be concatenated. Blocks are decoded side by side, one stream each, the weights read
 * once for all: that is what makes decompression fast, so long data is cut into blocks, which costs
 * some ratio.
 *
 * A codec compresses or decompresses one sequence of bytes, pushed in and pulled out in pieces of
 * any size:
 *
 *     size_t n, used, consumed, produced;
 *     do {
 *         if (!(n = fread(in, 1, sizeof in, from))) megabyte_codec_finish(codec);
 *         used = 0;
 *         do {
 *             if (megabyte_codec_push(codec, in + used, n - used, &consumed)) goto failed;
 *             used += consumed;
 *             do {
 *                 if (megabyte_codec_pull(codec, out, sizeof out, &produced)) goto failed;
 *                 fwrite(out, 1, produced, to);
 *             } while (produced);
 *         } while (used < n);
 *     } while (n);
 *
 * Push consumes input until the codec's blocks are full and computes nothing; pull does the work
 * once they are full (or after flush or finish) and produces the output. A decompressed block is
 * released only after its checksum verifies. */
typedef struct megabyte_codec megabyte_codec;

typedef enum megabyte_mode {
    MEGABYTE_MODE_COMPRESS = 1,
    MEGABYTE_MODE_DECOMPRESS = 2,
    MEGABYTE_MODE_MESSAGES = 3
} megabyte_mode;

/* What the bytes are: context mixing (levels but 5) then looks at them in that way. */
typedef enum megabyte_contents {
    MEGABYTE_CONTENTS_GENERAL = 0,
    MEGABYTE_CONTENTS_MULAW = 1, /* G.711 mu-law samples of one channel */
    /* linear samples (PCM) of several channels that take turns, as in WAV files: */
    MEGABYTE_CONTENTS_PCM8 = 2, /* 8 bits without a sign, */
    MEGABYTE_CONTENTS_PCM16 = 3, /* 16 and 24 bits with a sign, the lowest byte first */
    MEGABYTE_CONTENTS_PCM24 = 4,
    MEGABYTE_CONTENTS_PCM16_BIG = 5, /* the highest byte first, as in AU and AIFF files */
    MEGABYTE_CONTENTS_PCM24_BIG = 6,
    MEGABYTE_CONTENTS_COUNT = 7
} megabyte_contents;

#define MEGABYTE_CHANNELS_MAX 8
#define MEGABYTE_BLOCK_MAX 67108864u /* 64 MB */
/* The largest block that a decompressing codec accepts, and that compressing chooses, by default.
 * */
#define MEGABYTE_BLOCK_DEFAULT 1048576u
#define MEGABYTE_SIZE_UNKNOWN UINT64_MAX
#define MEGABYTE_RATIO_FREE 1048576u /* bytes that any file may decode to, whatever max_ratio */
#define MEGABYTE_NO_CONTEXT_MIXING UINT32_MAX /* for mixing_memory: the model alone */

/* Zero means default in every field; start from { 0 }. Which fields each mode reads:
 *
 *     field              compress              decompress                messages
 *     engine, threads, isa: x                  x                         x
 *     streams            blocks, at least      blocks decoded at once    -
 *     block_size         bytes per block       largest accepted          -
 *     size               input bytes           -                         -
 *     context_shift      of the streams        largest context accepted  of the stream
 *     level              1 to 9                -                         1 to 9
 *     mixing_memory      default by level      most accepted             default 1
 *     dictionary, file_type: x                 the same                  the same on both sides
 *     dictionary_of      x                     x                         x
 *     room               -                     -                         the same on both sides
 *     limit              -                     x                         x
 *     max_ratio          -                     x                         -
 *     contents, channels: x                    -                         -
 *     ensemble           default 1             most accepted             -
 *     verify             x                     -                         -
 *     draft_max, draft_engine: verifying       x                         x
 *     progress           x                     x                         while it is created     */
typedef struct megabyte_codec_options {
    /* computes; NULL: the codec makes its own, or does without where there is no model. A codec
     * without a model takes any engine, for its threads alone */
    megabyte_engine *engine;
    uint32_t threads; /* without `engine`: of the codec's own, as in megabyte_engine_options */
    megabyte_isa isa; /* the same */
    /* 1..256. Decompressing (and verifying): blocks decoded side by side, each with a stream's
     * memory; default 1. Compressing: a known size is cut into at least this many blocks, of 16 KB
     * or more; default by size: megabyte_codec_block_size */
    uint32_t streams;
    /* 1..MEGABYTE_BLOCK_MAX. Compressing: bytes per block; default by `streams` and `size`.
     * Decompressing: the largest block accepted; default MEGABYTE_BLOCK_DEFAULT */
    uint32_t block_size;
    /* compressing: how many bytes will be pushed, if known (then it must be exact); 0: unknown */
    uint64_t size;
    /* 0..15: the streams' context is the model's shifted right by this (rounded down to patches, at
     * least the shortest): less memory, less ratio. Decompressing: the largest context accepted */
    uint32_t context_shift;
    /* 1..9, default 7. 1 to 4: context mixing alone, with 1, 4, 16, 64 MB, for speed: no model is
     * needed, a given one is not used, and the files name none. 5: the model alone; 6 to 8: both
     * mixed, with 4, 16, 64 MB; 9: as 8, in as few blocks as possible */
    int level;
    /* megabytes of context-mixing memory for each block: 1, 4, 16 or 64, or
     * MEGABYTE_NO_CONTEXT_MIXING. Compressing: default by level; short blocks use less.
     * Decompressing: the most that a file may need; default 16. Messages: default 1. A file made
     * with a dictionary needs exactly the mixing_memory and context_shift that it was made with */
    uint32_t mixing_memory;
    /* [dictionary_size] read before every block, at creation only; both sides need the same. A
     * model reads some 10 KB a second and gains little past 4 KB, of which it sees what its context
     * holds; contexts read a megabyte a second and still gain from 64 KB of logs
     * (tests/bench/README.md, Records) */
    const void *dictionary;
    size_t dictionary_size;
    /* as in megabyte_stream_options; both sides need the same; NULL without a model */
    const char *file_type;
    /* NULL, or a codec whose dictionary (and file type, and room) this one uses as well, instead of
     * reading one: that takes neither time nor memory. It must have the same model, level,
     * mixing_memory and context_shift, and both or neither must be for messages (else
     * INVALID_ARGUMENT); it must outlive this one. What is shared never changes: any number of
     * threads may each use such a codec, and that codec itself, at once */
    const struct megabyte_codec *dictionary_of;
    /* messages with a dictionary, and a model: bytes that each message finds free in the context,
     * up to half of it. Give the length of the longest usual message, 512 say. The model begins
     * messages as if the dictionary were only its last bytes, the context less `room`, if it is
     * longer (models/FORMAT.md has the rule). 0: the context is as the dictionary left it. Where
     * less than an eighth of it is free, messages will slide, and the codec keeps what they slide
     * to, with a stream's memory more: to make that for each would take ten times as long as a log
     * line. Codes are as short either way */
    uint32_t room;
    /* compressing, without a dictionary or file type: what the bytes are; the file keeps it. Wrong
     * contents cost ratio, nothing else; level 5 makes no difference. Of PCM, levels 6 to 9 are
     * context mixing alone, too, as 2, 3, 4 and 4: they take a model, but do not use it */
    megabyte_contents contents;
    /* contents PCM: 1..MEGABYTE_CHANNELS_MAX; default 1. Every block begins with the first one's
     * sample: flush only behind the last one's */
    uint32_t channels;
    /* 1, 2 or 4 streams of the model read each block, a half or quarter patch apart, and their
     * predictions are averaged: files 0.5% to 3% smaller, for as many times the streams' memory and
     * scoring's time. Default 1. Compressing: not with a dictionary or file type; no difference
     * without a model. Decompressing: the most that a file may need */
    uint32_t ensemble;
    /* decompressing: the most bytes to produce in all; 0: no limit. Messages: the longest, to
     * encode (else LIMIT) and to decode (else CORRUPT); 0: MEGABYTE_MESSAGE_MAX */
    uint64_t limit;
    /* decompressing: up to 2^32; 0: no limit. Refuses (LIMIT) a block up to which the headers claim
     * more than MEGABYTE_RATIO_FREE + max_ratio * (compressed bytes so far). Blocks that do not
     * need the model are a hundred times faster and count a 128th (other contents: an 8th); those
     * of an ensemble count as often as it has streams. 1024 is far above what honest data reaches
     * and bounds the time that a forged file can ask for */
    uint64_t max_ratio;
    int verify; /* compressing: decode each block before it is released */
    uint32_t draft_max; /* decoding: as in megabyte_stream_options */
    megabyte_engine *draft_engine; /* the same; one for all blocks */
    /* called with the number of original bytes done since creation or reset, after 4 KB that the
     * model codes at most, 64 KB of context mixing alone; as often while the dictionary is read;
     * nonzero cancels */
    int (*progress)(void *context, uint64_t bytes);
    void *progress_context;
} megabyte_codec_options;

/*   model     NULL at levels 1 to 4, which are context mixing alone: megabytes and milliseconds
 *             instead of a model's, for files and messages; to decompress, NULL takes what these
 *             levels have made (WRONG_MODEL for other files), and any model takes it, too
 *   Returns:  OK; INVALID_ARGUMENT, OUT_OF_MEMORY, UNSUPPORTED (a vocabulary below 256, ...),
 *             ARITHMETIC, CANCELLED.
 *   Memory:   allocated here: megabyte_codec_size says how much (the codec's own engine, streams
 *             and block buffers included; level 1 for messages: 1.1 MB, with a dictionary 2.1).
 *             Nothing later. */
MEGABYTE_API megabyte_status megabyte_codec_create(megabyte_codec **codec,
                                                   const megabyte_model *model, megabyte_mode mode,
                                                   const megabyte_codec_options *options,
                                                   const megabyte_allocator *allocator,
                                                   megabyte_error *error);
MEGABYTE_API void megabyte_codec_free(megabyte_codec *codec); /* NULL is allowed */
MEGABYTE_API megabyte_status megabyte_codec_size(const megabyte_model *model, megabyte_mode mode,
                                                 const megabyte_codec_options *options,
                                                 size_t *bytes);
/* Starts a new sequence with the same options. */
MEGABYTE_API void megabyte_codec_reset(megabyte_codec *codec);

/* The bytes per block that compressing with these options uses. By default: 256 KB for an unknown
 * size; one block below 512 KB, then blocks of 256 KB, from 4 MB on 16 blocks of up to 1 MB. Level
 * 9: 1 MB. With contents PCM, given or not, rounded down to whole samples of all channels. */
MEGABYTE_API uint32_t megabyte_codec_block_size(const megabyte_codec_options *options);

/* Consumes up to n bytes; *consumed < n when the codec is full: pull, then push the rest.
 *   Returns:  OK; INVALID_ARGUMENT (after finish; more than options->size); or the error that
 *             stopped the codec, which persists until reset. */
MEGABYTE_API megabyte_status megabyte_codec_push(megabyte_codec *codec, const void *bytes, size_t n,
                                                 size_t *consumed);

/* Writes up to `capacity` bytes; *produced == 0 when there is nothing (more) to do before the next
 * push, flush or finish. After finish: OK with *produced == 0 means that everything is done.
 *   Returns:  OK; CANCELLED; compressing: CORRUPT (verification failed: please report it),
 *             INVALID_ARGUMENT (options->size was wrong); decompressing: BAD_MAGIC, BAD_VERSION,
 *             WRONG_MODEL, WRONG_DICTIONARY, TRUNCATED, CORRUPT, CAPACITY (blocks, a context,
 *             mixing memory or an ensemble larger than this codec accepts), LIMIT, TRAILING_DATA
 *             (everything before it has been produced). What was decoded before a failure is
 *             produced first, so a failing call writes nothing. */
MEGABYTE_API megabyte_status megabyte_codec_pull(megabyte_codec *codec, void *bytes,
                                                 size_t capacity, size_t *produced);

/* Makes all input so far available to the next pulls. Compressing: this ends a block.
 * Decompressing: complete blocks are decoded even if there are fewer than `streams`. */
MEGABYTE_API megabyte_status megabyte_codec_flush(megabyte_codec *codec);
MEGABYTE_API megabyte_status
megabyte_codec_finish(megabyte_codec *codec); /* no more bytes will be pushed */

/* MEGABYTE_MODE_MESSAGES: as megabyte_stream_encode and _decode, but every message starts from the
 * same state, that of the dictionary, and context mixing (`level`, `mixing_memory`: the same on
 * both sides; fresh for each message) makes messages with a dictionary much smaller.
 *   Returns:  as megabyte_stream_encode and megabyte_stream_decode, with options->limit for
 *             MEGABYTE_MESSAGE_MAX; INVALID_ARGUMENT also in another mode. megabyte_codec_error has
 *             the last call's text. Every message begins anew: a failure leaves no trace. */
MEGABYTE_API megabyte_status megabyte_codec_encode(megabyte_codec *codec, const void *bytes,
                                                   size_t n, void *coded, size_t capacity,
                                                   size_t *n_coded);
MEGABYTE_API megabyte_status megabyte_codec_decode(megabyte_codec *codec, const void *coded,
                                                   size_t n_coded, void *bytes, size_t capacity,
                                                   size_t *n);

/* The error that stopped the codec, with the text (which block, which offset); of messages, that of
 * the last call; never NULL. */
MEGABYTE_API const megabyte_error *megabyte_codec_error(const megabyte_codec *codec);

/* How a block is stored. */
typedef enum megabyte_method {
    MEGABYTE_METHOD_END_MARK = -1, /* no block */
    MEGABYTE_METHOD_STORED = 0, /* its bytes as they are */
    MEGABYTE_METHOD_CONSTANT = 1, /* one byte repeated */
    MEGABYTE_METHOD_MODEL = 2, /* coded with the model's predictions, */
    MEGABYTE_METHOD_CONTEXT_MIXING =
        3, /* with those of contexts that learn from the block itself, */
    MEGABYTE_METHOD_MIXED = 4, /* with both mixed */
    MEGABYTE_METHOD_COUNT = 5
} megabyte_method;

typedef struct megabyte_statistics {
    uint64_t original, compressed; /* bytes pushed or pulled so far, of complete blocks */
    uint64_t blocks[MEGABYTE_METHOD_COUNT]; /* by method */
    double ideal_bits; /* compressing: sum of -log2 p over the bytes of coded blocks, */
    double model_bits; /* by the model alone (blocks that it was used for), */
    uint64_t coded_bits; /* and their coded size: 8 * bytes */
    uint64_t steps; /* decompressing: bytes decoded with the model, */
    uint64_t passes; /* and the passes that they took: fewer where guesses were right */
} megabyte_statistics;
MEGABYTE_API void megabyte_codec_statistics(const megabyte_codec *codec,
                                            megabyte_statistics *statistics);

/* One call for data in memory. The bound holds for all options with blocks of at least 16 KB:
 * n + n / 2000 + 64.
 *   out       receives *n_out bytes; the buffers must not overlap
 *   Returns:  as the codec's functions; CAPACITY also if `capacity` is too small. */
MEGABYTE_API size_t megabyte_compress_bound(size_t n);
MEGABYTE_API megabyte_status megabyte_compress(const megabyte_model *model,
                                               const megabyte_codec_options *options,
                                               const void *bytes, size_t n, void *out,
                                               size_t capacity, size_t *n_out,
                                               const megabyte_allocator *allocator,
                                               megabyte_error *error);
MEGABYTE_API megabyte_status megabyte_decompress(const megabyte_model *model,
                                                 const megabyte_codec_options *options,
                                                 const void *bytes, size_t n, void *out,
                                                 size_t capacity, size_t *n_out,
                                                 const megabyte_allocator *allocator,
                                                 megabyte_error *error);

/* What the header of a compressed file says, read without a model. */
#define MEGABYTE_HEADER_MAX 64
typedef struct megabyte_file_header {
    uint32_t format_version, numerics_version;
    int has_model; /* 0: none is needed (format versions 2 and 4: levels 1 to 4) */
    uint8_t model_id[6]; /* the first bytes of megabyte_info.id; zeros without a model */
    uint8_t dictionary_id[4]; /* of the dictionary's SHA-256, if there is one */
    int has_dictionary; /* or a file type */
    megabyte_contents contents;
    uint32_t channels; /* of contents PCM; else 0 */
    uint32_t ensemble; /* streams of the model for each block: 0 without one, 1, 2 or 4 */
    int single; /* one block that needs no block header and no end mark */
    uint64_t size; /* original bytes, or MEGABYTE_SIZE_UNKNOWN */
    uint32_t context_shift; /* of the streams' context */
    uint32_t mixing_memory; /* megabytes for each block: 0, 1, 4, 16 or 64 */
    uint32_t block_size; /* original bytes per block, at most */
    uint32_t header_bytes; /* where the first block (if single: its code) begins */
    uint32_t coded; /* single: bytes of code, followed by 4 of checksum */
    megabyte_method method; /* single: of the block */
} megabyte_file_header;
typedef struct megabyte_block_header {
    megabyte_method method;
    uint32_t size, coded; /* original bytes; bytes that follow the header (0 at the end mark) */
    uint32_t header_bytes; /* including checksums */
} megabyte_block_header;

/* bytes[n]: the beginning of a file, or of a block; MEGABYTE_HEADER_MAX bytes are always enough.
 *   Returns:  OK; BAD_MAGIC, BAD_VERSION, TRUNCATED (n is too small), CORRUPT. */
MEGABYTE_API megabyte_status megabyte_file_header_read(const void *bytes, size_t n,
                                                       megabyte_file_header *header,
                                                       megabyte_error *error);
MEGABYTE_API megabyte_status megabyte_block_header_read(const void *bytes, size_t n,
                                                        const megabyte_file_header *header,
                                                        megabyte_block_header *block,
                                                        megabyte_error *error);

/* --------------------------------------------------------------------------------------- images */

/* Image models predict pictures as bytes: one tile of pixels, in the order that the model was
 * trained on, is one sequence that begins from nothing. The model file's metadata say which:
 *
 *     key              example              meaning
 *     image.tile       64x64                pixels of a tile, width x height
 *     image.patch      2x2                  pixels of a patch; raster scan: Nx1
 *     image.channels   3                    bytes of a pixel: 3, or 1 (grey)
 *     image.colour     green-difference     or none: the pixel's bytes as they are
 *     image.scan       patch                or raster
 *
 * Opening a model whose metadata contradict its sizes fails (CORRUPT, or UNSUPPORTED for what this
 * version does not know): the bytes of a patch are P, those of a tile the context.
 *
 * A picture here has 8 bits a sample; width, height >= 1; sample c of pixel (x, y) lies at pixels[y
 * * row_bytes + x * channels + c]. Colour is R, G, B in this order. */
typedef enum megabyte_image_colour {
    MEGABYTE_COLOUR_NONE = 0, /* id c of a pixel is its sample c */
    MEGABYTE_COLOUR_GREEN_DIFFERENCE = 1 /* its ids are G, R - G, B - G modulo 256 */
} megabyte_image_colour;

typedef enum megabyte_image_scan_order {
    MEGABYTE_SCAN_RASTER = 0, /* pixels row by row */
    MEGABYTE_SCAN_PATCH = 1 /* patches row by row, in each of them pixels row by row */
} megabyte_image_scan_order;

typedef struct megabyte_image_info {
    uint32_t tile_width, tile_height; /* pixels; multiples of the patch's */
    uint32_t patch_width, patch_height; /* pixels */
    uint32_t channels; /* 1 or 3 */
    uint32_t tile_bytes; /* tile_width * tile_height * channels */
    megabyte_image_colour colour; /* NONE unless channels is 3 */
    megabyte_image_scan_order scan;
} megabyte_image_info;

/* Returns: OK; INVALID_ARGUMENT (a NULL); UNSUPPORTED: it is not an image model. `error` may be
 * NULL. */
MEGABYTE_API megabyte_status megabyte_image_describe(const megabyte_model *model,
                                                     megabyte_image_info *info,
                                                     megabyte_error *error);

/* One whole tile: pixels (tile_height rows of tile_width pixels, row_bytes apart) to the model's
 * ids[tile_bytes], and back. */
MEGABYTE_API void megabyte_image_scan(const megabyte_image_info *info, const uint8_t *pixels,
                                      size_t row_bytes, uint8_t *ids);
MEGABYTE_API void megabyte_image_unscan(const megabyte_image_info *info, const uint8_t *ids,
                                        uint8_t *pixels, size_t row_bytes);

/* Where a pixel's bytes lie in its tile: ids[index] to ids[index + channels - 1]. */
MEGABYTE_API uint32_t megabyte_image_index(const megabyte_image_info *info, uint32_t x, uint32_t y);

/* Lossless compression of pictures: the file format .mbi (models/FORMAT.md). The picture is cut
 * into tiles; the model predicts each by itself, context mixing adds what it learns from the
 * picture, across tiles, and an arithmetic coder writes the rest; never more than by the model
 * alone. Tiles are decoded side by side, in a wave that keeps what lies west and north of a pixel
 * known. Any width and height: of a tile that reaches beyond the picture only real pixels are
 * coded. A model of 3 channels takes grey pictures (channels 1), too. More than 8 bits a sample and
 * alpha are not pictures here. */
typedef struct megabyte_image {
    uint32_t width, height; /* 1 .. 2^24 */
    uint32_t channels; /* 1 (grey) or 3 (R, G, B) */
    size_t row_bytes; /* from one row to the next; at least width * channels */
    uint8_t *pixels; /* caller's: [height][row_bytes]; encoding only reads them */
} megabyte_image;

/* Zero means default in every field; start from { 0 }. */
typedef struct megabyte_image_options {
    megabyte_engine *engine; /* computes; NULL: one is made for the call (1 thread) */
    /* encoding: 1..256, tiles in flight when it is decoded, each with a stream's memory; more than
     * 12 hardly help. Default 12. Decoding: the most accepted; default 64 */
    uint32_t tiles;
    int model_alone; /* encoding: 1: no context mixing, as level 5 of a codec */
    /* encoding, or NULL: receives the bits that each sample cost, float[height * width * channels],
     * rows without gaps */
    float *cost;
    /* encoding, or NULL: up to MEGABYTE_LAYOUT_MAX bytes that the file keeps beside the picture (a
     * file header to be restored, say); megabyte_image_header tells where */
    const void *layout;
    size_t layout_bytes;
    uint64_t limit; /* decoding: the most samples (width * height * channels); 0: no limit */
    /* decoding: up to 2^32; 0: no limit. Refuses (LIMIT) a file that claims more samples than
     * MEGABYTE_RATIO_FREE + max_ratio * (its bytes): bounds the time that a forged file can take */
    uint64_t max_ratio;
    /* called now and then with the number of samples done; nonzero cancels. Encoding may begin
     * anew, by the model alone */
    int (*progress)(void *context, uint64_t samples);
    void *progress_context;
} megabyte_image_options;
#define MEGABYTE_LAYOUT_MAX 65535u

/* Bytes that are always enough for a picture of this size without a layout; SIZE_MAX where they do
 * not fit. */
MEGABYTE_API size_t megabyte_image_bound(uint32_t width, uint32_t height, uint32_t channels);

/* What encoding (MEGABYTE_MODE_COMPRESS) or decoding (MEGABYTE_MODE_DECOMPRESS; options->tiles: as
 * encoded) will allocate, its own engine included if options->engine is NULL.
 *   Returns:  OK; INVALID_ARGUMENT, OUT_OF_MEMORY, UNSUPPORTED as below. */
MEGABYTE_API megabyte_status megabyte_image_memory(const megabyte_model *model, megabyte_mode mode,
                                                   const megabyte_image_options *options,
                                                   uint32_t width, uint32_t height,
                                                   uint32_t channels, size_t *bytes);

/* out       receives *n_out bytes; capacity: megabyte_image_bound + layout_bytes is always enough
 *   Memory:   allocated during the call, see megabyte_image_memory; allocator: NULL for libc
 *   Returns:  OK; INVALID_ARGUMENT, OUT_OF_MEMORY, UNSUPPORTED (no image model; 3 channels with a
 *             grey model; a vocabulary below 256), CAPACITY, CANCELLED, ARITHMETIC. */
MEGABYTE_API megabyte_status megabyte_image_encode(const megabyte_model *model,
                                                   const megabyte_image_options *options,
                                                   const megabyte_image *image, void *out,
                                                   size_t capacity, size_t *n_out,
                                                   const megabyte_allocator *allocator,
                                                   megabyte_error *error);

/* What a compressed picture says of itself, read without a model. */
typedef struct megabyte_image_header {
    uint32_t format_version, numerics_version;
    uint8_t model_id[6]; /* the first bytes of megabyte_info.id */
    uint32_t width, height, channels;
    uint32_t tiles; /* in flight */
    int model_alone;
    int stored; /* the samples as they are: nothing was gained */
    uint32_t layout_at, layout_bytes; /* where the layout lies in the file */
    uint32_t header_bytes; /* where the code begins */
    uint64_t coded; /* bytes of code, ... */
    uint64_t file_bytes; /* ... and of all */
} megabyte_image_header;

/* bytes[n]: the beginning of a file, 64 + layout_bytes are enough.
 *   Returns:  OK; INVALID_ARGUMENT, BAD_MAGIC, BAD_VERSION, TRUNCATED (n is too small), CORRUPT. */
MEGABYTE_API megabyte_status megabyte_image_header_read(const void *bytes, size_t n,
                                                        megabyte_image_header *header,
                                                        megabyte_error *error);

/* bytes[n]  a whole file
 *   image     width, height and channels as its header says, pixels the caller's; after a failure
 *             the pixels are undefined
 *   Returns:  OK; INVALID_ARGUMENT (another size), OUT_OF_MEMORY, UNSUPPORTED, BAD_MAGIC,
 *             BAD_VERSION, WRONG_MODEL, TRUNCATED, CORRUPT, CAPACITY (more tiles than accepted),
 *             LIMIT, TRAILING_DATA, CANCELLED, ARITHMETIC. */
MEGABYTE_API megabyte_status megabyte_image_decode(
    const megabyte_model *model, const megabyte_image_options *options, const void *bytes, size_t n,
    const megabyte_image *image, const megabyte_allocator *allocator, megabyte_error *error);

#ifdef __cplusplus
}
#endif
#endif /* MEGABYTE_H */

/* MIT License
 *
 * Copyright (c) 2026 the megabyte authors
 *
 * Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
 * associated documentation files (the "Software"), to deal in the Software without restriction,
 * including without limitation the rights to use, copy, modify, merge, publish, distribute,
 * sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
 * furnished to do so, subject to the following conditions:
 *
 * The above copyright notice and this permission notice shall be included in all copies or
 * substantial portions of the Software.
 *
 * THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
 * NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
 * NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
 * DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
 * OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */
