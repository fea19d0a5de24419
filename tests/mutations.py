#!/usr/bin/env python3
"""Do the tests notice? Applies one-line mutations to megabyte.c, one at a time, and runs tests.

    tests/mutations.py               all of them (half an hour)
    tests/mutations.py --sample 10 [SEED]
    tests/mutations.py NAME...       these
    tests/mutations.py --list

Each mutation names a fragment of megabyte.c that stands there once (white space does not matter),
what it becomes, and the tests that are to notice, as PROGRAM or PROGRAM:GROUP. Exit status 1 if one
survives without an explanation or does not compile, or if any of them all no longer applies. Run
from the repository.
"""
import os, random, re, shutil, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed

M = [  # name, fragment, replacement, tests
    # -- bytes, memory, model file
    ("get16", "(u32)p[0] | (u32)p[1] << 8; }", "(u32)p[0] | (u32)p[1] << 7; }", "gaps"),
    ("sha-padding", "1 + (119 - s->total % 64) % 64", "1 + (120 - s->total % 64) % 64", "gaps"),
    ("sha-round", "ROR(s[e], 25)", "ROR(s[e], 24)", "gaps"),
    ("arena-overflow", "if (size && count > (UINT64_MAX / 4 - a->used) / size) {",
     "if (0) {", "hostile gaps"),
    ("heads-product", "!g->head_dim || (u64)g->heads * g->head_dim > MAX_WIDTH",
     "!g->head_dim || g->heads * g->head_dim > MAX_WIDTH", "gaps"),
    ("patch-limit", "if (wide * fine->dim <= MAX_WIDTH) return MEGABYTE_OK;",
     "if (wide * fine->dim <= 2 * MAX_WIDTH) return MEGABYTE_OK;", "gaps"),
    ("patch-bytes", "if (!n || wide > MAX_WIDTH ||", "if (!n || wide > 2 * MAX_WIDTH ||", "gaps"),
    ("unknown-flags", "if (g->flags & ~known)", "if (0)", "gaps"),
    ("family-range", "z->family > FAMILY_BGPT)", "z->family > FAMILY_BGPT + 1)", "gaps"),
    ("q4-offset", "g = _mm512_dpbusd_epi32(g, n->a, _mm512_set1_epi32(a));",
     "g = _mm512_dpbusd_epi32(g, n->b, _mm512_set1_epi32(a));", "q4:kernels"),
    ("q4-high", "i32 a, b; /* one by one", "i32 a, b = 0; x -= 4; /* one by one", "q4:kernels"),
    ("q4-multiplier-bytes", "return rows16 * (round_up(cols, 2 * Q4_GROUP) / (2 * Q4_GROUP));",
     "return rows16 * (round_up(cols, Q4_GROUP) / Q4_GROUP);", "q4"),
    ("q4-unknown", "? t->type != TYPE_F32_TILED && !is_quantized(t->type)",
     "? 0 && !is_quantized(t->type)", "q4"),
    ("q4-last-group", "if (known - g * Q4_GROUP < Q4_GROUP)", "if (0)", "q4"),
    ("q4-room", "e->unpacked = carve(a, chunks, e->unpacked_stride);",
     "e->unpacked = carve(a, 1, e->unpacked_stride / 4);", "q4"),
    ("q4-panel", "kernel->unpack_q4(w, tile + t, n, room);",
     "kernel->unpack_q4(w, tile, n, room);", "q4"),
    ("q4-cache", "model->stage[0].cache_q8 = is_quantized(model->stage[0].layers[0].qkv.type);",
     "model->stage[0].cache_q8 = model->stage[0].layers[0].qkv.type == TYPE_Q8_TILED;", "q4"),
    # -- numerics
    ("weights-floor", "(u32)(likely[i] * 134217728.0f) + 1;", "(u32)(likely[i] * 134217728.0f);",
     "codec_format:golden codec_messages"),
    ("upper-half", "/ (zeros + ones)); return p < 1 ? 1 : min32(p, PROBABILITY_ONE - 1);",
     "/ (zeros + ones)); return p < 1 ? 1 : min32(p, PROBABILITY_ONE - 2);",
     "codec_format codec_messages"),
    ("likeliest-tie", "if (logits[i] > logits[best]) best = i;",
     "if (logits[i] >= logits[best]) best = i;", "api"),
    ("lane-tree", "return (t[0] + t[2]) + (t[1] + t[3]);",
     "return (t[0] + t[1]) + (t[2] + t[3]);", "gaps"),
    ("sine-limit", "if (!(angle >= 0 && angle < 1e9)) angle = 0;",
     "if (!(angle >= 0)) angle = 0;", "gaps"),
    ("picture-alone", "u32 alone = squash(tables, clamp(2 * from_model, X_MAX)), bit;",
     "u32 alone = squash(tables, clamp(2 * from_model + p->decoding, X_MAX)), bit;", "image"),
    ("picture-error", "return (i8)pixel[CANVAS / 2 + plane]; }",
     "return pixel[CANVAS / 2 + plane]; }", "image"),
    ("only-keys", "u64 asked = SHIFT_RING + 2 +", "u64 asked = 0 +", "api long"),
    # -- threads
    ("threads-refused", "if (pool_start(p)) return MEGABYTE_OK;",
     "if (pool_start(p) <= 1) return MEGABYTE_OK;", "gaps"),
    ("arithmetic", "if (fingerprint == ARITHMETIC_FINGERPRINT) return", "return", "gaps"),
    ("engine-threads", "p->quit, 1, __ATOMIC_SEQ_CST);\n    pool_wake(p);",
     "p->quit, 1, __ATOMIC_SEQ_CST);", "gaps"),
    # -- stages and hierarchy
    ("rotary-cosine", "angle[j] = (float)cosine;", "angle[j] = (float)sine;", "gaps golden"),
    ("pair-rotation", "x[1] = bc + as;", "x[1] = bc - as;", "families"),
    ("position-row", "place = r->position - g->start_token;",
     "place = r->position ? r->position - 1 : 0;", "families"),
    ("query-scale", "k->scale(q, 1.0f / sqrtf((float)d), inner, q);",
     "k->scale(q, 1.0f, inner, q);",
     "gaps golden"),
    ("cross-key", "r->before_key = cross + n - g->size.cross;", "r->before_key = cross;",
     "families"),
    ("cross-rest", "if (cross) rest++; /*", "if (0) rest++; /*", "families api"),
    ("ring-place", "r->shift_to = stream->ring + index % SHIFT_RING * shift_floats(g);",
     "r->shift_to = stream->ring + index % 4 * shift_floats(g);", "api"),
    ("rewind-back", "u64 far = 2 * s->engine->model->stage[0].size.layers + SHIFT_RING;",
     "u64 far = SHIFT_RING;", "api long"),
    ("window-full", "s->position - s->base + ahead(m) == s->patches * m->stage[0].bytes;",
     "s->position - s->base + ahead(m) + 1 == s->patches * m->stage[0].bytes;", "api"),
    ("use-keys", "for (; *used <= key; *used += 16)", "for (; *used < key; *used += 16)",
     "api families"),
    ("angles-never", "(last + 1) * (u64)g->size.head_dim <= MOST_ANGLES)",
     "(last + 1) * (u64)g->size.head_dim <= UINT64_MAX / 2)", "api:untouched api"),
    # -- streams
    ("history-length", "((u64)patches + (patches - patches / 2)) * g->bytes +",
     "((u64)patches + (patches - patches / 2) - 1) * g->bytes +", "api gaps"),
    ("rewind-margin", "(s->oldest && position < s->oldest + MAX_REPETITION_WINDOW))",
     "(s->oldest && position < s->oldest))", "gaps"),
    ("rewind-base", "if (base < s->oldest ||", "if (", "gaps"),
    ("saved-vocabulary", "if (!bytes_known(s, p, (size_t)kept)) return MEGABYTE_ERROR_CORRUPT;", "",
     "gaps"),
    ("saved-ring", "trial.position - trial.oldest > s->history_bytes - MOST_DRAFTED ||", "",
     "gaps"),
    ("saved-high", "trial.high < computed || trial.high > s->patches ||", "", "gaps"),
    ("saved-numerics", "get32(p + 12) != MEGABYTE_NUMERICS_VERSION)\n        return",
     "0)\n        return", "gaps"),
    ("saved-bound", "to[i] = to[i] < MOST ? to[i] : MOST;", "", "gaps"),
    ("load-slot", "forget_sequences(s, slot);", "", "families api"),
    ("copy-slot",
     "to->slot_sequence[from->current[from->engine->model->sizes.n_stages - 1] ^ 1] =\n"
     "        UINT64_MAX; /* not it */", "", "families api"),
    ("copy-history", "n = min64(from->position - at, from->history_bytes - place);",
     "n = from->history_bytes - place;", "api"),
    ("save-zeros", "if (kind == UNUSED) memset(*to, 0, (size_t)bytes);\n    else if", "if",
     "api:untouched api"),
    # -- sampling
    ("negative-penalty", "l[i] > 0 ? l[i] / penalty : l[i] * penalty;", "l[i] / penalty;", "gaps"),
    ("window-63", "sampling->repetition_window ? sampling->repetition_window : 64, MAX",
     "sampling->repetition_window ? sampling->repetition_window : 63, MAX", "gaps"),
    ("last-resort", "return order[kept - 1];", "return order[0];", "gaps"),
    ("top-k", "sampling->top_k && sampling->top_k < n ? sampling->top_k : n, kept = 0;",
     "sampling->top_k && sampling->top_k < n ? sampling->top_k + 1 : n, kept = 0;", "api"),
    ("min-p", "if (l[order[i]] < min_p) {", "if (l[order[i]] <= min_p) {", "api"),
    ("cold", "if (sampling->temperature < 1e-6f) return best;", "", "api gaps"),
    # -- codec
    ("carry-equality", "if (c->low < ones) carry(c);", "if (c->low <= ones) carry(c);", "gaps"),
    ("carry-end", "if (number >> 32) carry(c);", "", "codec_messages codec_roundtrip"),
    ("code-end", "c->n - 4 + bytes == c->capacity;", "c->n - 4 + bytes <= c->capacity;",
     "codec_messages codec_roundtrip"),
    ("code-beyond", "return c->n - 4 > c->capacity;", "return c->n - 4 > c->capacity + 9;",
     "codec_messages codec_damage"),
    ("code-range", "if (c->code >= c->range)\n        c->n = UINT64_MAX / 2;",
     "if (0)\n        c->n = UINT64_MAX / 2;", "codec_damage codec_messages"),
    ("single-size", "wrong |= !r.result && h->coded >= h->size;", "", "gaps codec_forged"),
    ("verify-blind", "if (c->options.verify && l->bad) {", "if (0) {", "gaps"),
    ("limit", "if (c->options.limit && c->declared > c->options.limit) {",
     "if (c->options.limit && c->declared > c->options.limit + 1) {", "codec_calls:limits"),
    ("ratio", "c->work > MEGABYTE_RATIO_FREE && /*", "c->work / 4 > MEGABYTE_RATIO_FREE && /*",
     "codec_forged:ratios"),
    ("checksum", "if (l->bad || memcmp(check, l->check, CHECK_BYTES)) {", "if (l->bad) {",
     "codec_damage"),
    ("whole-checksum", "if (!c->header.single && memcmp(digest, c->end + 1, WHOLE_BYTES))",
     "if (0)", "codec_damage"),
    ("wrong-model", "else if (h->has_model && memcmp(h->model_id, c->model->id, MODEL_ID_BYTES))",
     "else if (0)", "codec_forged"),
    ("model-missing", "if (h->has_model && !c->model)",
     "if (h->has_model && !c->model && c->files > 1)", "codec_contexts"),
    ("no-model-shift", "(!h->has_model && h->context_shift);", "0;", "codec_forged"),
    ("no-model-method", "&& (!uses_model(method) || h->has_model);", ";", "codec_forged"),
    ("no-model-context", "else if (h->has_model && (h->context_shift < c->options.context_shift ||",
     "else if ((h->context_shift < c->options.context_shift ||", "codec_contexts"),
    ("no-model-needed", "return level_of(o) < 5 || (level_of(o) > 5 &&",
     "return level_of(o) < 4 || (level_of(o) > 5 &&", "codec_contexts"),
    ("own-pool", "pool_layout(&c->own_pool, a, p->model || p->options.engine ? 1",
     "pool_layout(&c->own_pool, a, 1 ? 1", "codec_contexts"),
    ("message-stored", "if (stored.n < c.n) encode_stored(&c, to, n + 16, bytes, n);",
     "if (stored.n < c.n + 1) encode_stored(&c, to, n + 16, bytes, n);", "codec_messages"),
    ("message-length", "if (m->length <= capacity) return MEGABYTE_OK;",
     "if (m->length <= capacity + 1) return MEGABYTE_OK;", "codec_messages"),
    ("message-empty", "if (!n_coded) return fail(error, MEGABYTE_ERROR_CORRUPT, 0,",
     "if (0) return fail(error, MEGABYTE_ERROR_CORRUPT, 0,", "codec_messages:limits"),
    ("message-claim", "if (m->length > limit)", "if (m->length > limit + 1)",
     "codec_messages:limits"),
    ("message-limit", "if (n > limit)", "if (n > limit + 1)", "codec_messages:limits"),
    ("message-most", "given ? given : MEGABYTE_MESSAGE_MAX",
     "given ? given : MEGABYTE_MESSAGE_MAX + 1", "codec_messages:limits"),
    ("room", "p->seen = window - o->room;", "p->seen = window - o->room + 1;",
     "codec_messages:room"),
    ("room-ahead", "* model->stage[0].bytes - ahead(model); if (o->room",
     "* model->stage[0].bytes; if (o->room", "codec_messages:room"),
    ("shared-memory", "int same = with->memory == p->memory &&", "int same =",
     "codec_messages:shared"),
    ("shared-mode",
     "(with->mode == MEGABYTE_MODE_MESSAGES) == (p->mode == MEGABYTE_MODE_MESSAGES);", "1;",
     "codec_messages:shared"),
    ("shared-context", "with->dictionary->patches == p->stream.context / p->model->stage[0].bytes;",
     "1;", "codec_messages:shared"),
    ("draft-shift", "if (floats && (finest || index % g->size.positions))", "if (0)", "api:drafts"),
    ("draft-ring", "for (u64 i = known; d->left && g->half && i < d->end[0]; i++)",
     "for (u64 i = d->end[0]; i < d->end[0]; i++)", "api:drafts"),
    ("draft-keys", "clear_positions(&m->stage[0], &s->global, from,",
     "clear_positions(&m->stage[0], &s->global, from + 1,", "api:drafts"),
    ("draft-slots", "u32 slots = r->job->want == WANT_DRAFT ? MOST_SLOTS : 2;", "u32 slots = 2;",
     "api:drafts"),
    ("draft-high", "if (!k && index + 1 > s->high) s->high = index + 1;", "", "api:drafts"),
    ("draft-patches", "(DRAFT_PATCHES + 1) * n - s->tokens % n - 1",
     "(DRAFT_PATCHES + 2) * n - s->tokens % n - 1", "api:drafts"),
    ("sound-edge", "i32 edge = position ? mulaw_edge(128 - (code & 127)) * 16 : 0;",
     "i32 edge = position ? mulaw_edge(127 - (code & 127)) * 16 : 0;", "codec_mulaw:levels"),
    ("sound-half", "u32 upper = position && first >= 128 ? !bit : bit;", "u32 upper = bit;",
     "codec_mulaw:levels"),
    ("sound-weight", "weight = 1 / (scale * sqrt(scale));", "weight = 1 / scale;",
     "codec_mulaw:levels"),
    ("least-squares-four", "d = less_product(less_product(d, f2, f2), f3, f3);",
     "d = less_product(d, f2, f2);", "codec_mulaw:levels"),
    ("contents-dictionary",
     "if (h->has_dictionary || (h->contents && !h->mixing_memory)) return 0;",
     "if (h->contents && !h->mixing_memory) return 0;", "codec_mulaw:headers"),
    ("pcm-edge", "i64 at = (i64)(upper * 16 - 8 - e->guess)",
     "i64 at = (i64)(upper * 16 - e->guess)", "codec_pcm:levels"),
    ("pcm-scale", "(c->error[k][i] * 9 >> 4) + 314573", "(c->error[k][i] * 9 >> 4) + 314572",
     "codec_pcm:levels"),
    ("pcm-other", "p->of[p->channel ? p->channel - 1 : p->channels > 1].sample;",
     "p->of[p->channel ? p->channel - 1 : 0].sample;", "codec_pcm:levels"),
    ("pcm-place", "f->is_big || n - (i - in) < f->bytes ? i :", "f->is_big ? i :",
     "codec_pcm:any_bytes"),
    ("pcm-big", "return !last || f->is_big ||", "return !last ||", "codec_pcm:gain"),
    ("pcm-flip", "f->is_signed && i % f->bytes == 0 ? 128 : 0;", "0;", "codec_pcm:levels"),
    ("pcm-taps", "memcpy(all + n, all, (n - 1) * sizeof *all);",
     "memcpy(all + n, all, (n - 2) * sizeof *all);", "codec_pcm:levels"),
    ("pcm-stages", "left = error; } }", "} }", "codec_pcm:levels"),
    ("pcm-channels", "if (h->channels < 1 || h->channels > MEGABYTE_CHANNELS_MAX) return 0;",
     "if (h->channels > MEGABYTE_CHANNELS_MAX) return 0;", "codec_pcm:headers"),
    ("pcm-many", "if (h->channels < 1 || h->channels > MEGABYTE_CHANNELS_MAX) return 0;",
     "if (h->channels < 1) return 0;", "codec_pcm:headers"),
    ("pcm-model", "return is_pcm(h->contents) && !h->has_model;", "return is_pcm(h->contents);",
     "codec_pcm:headers"),
    ("pcm-blocks", "return all && size > all ? (u32)(size - size % all) : size;", "return size;",
     "codec_pcm:blocks"),
    ("pcm-alone", "level_of(o) < 5 || (level_of(o) > 5 && is_pcm(o->contents) &&",
     "level_of(o) < 5 || (is_pcm(o->contents) &&", "codec_pcm:levels"),
    ("contents-ratio", "n / (c->header.contents ? 8 : 128);", "n / 128;", "codec_mulaw:ratio"),
    ("sparing-before", "m->is_sparing = m->streams && version >= 6;",
     "m->is_sparing = m->streams && version >= 5;", "codec_format:golden"),
    ("sparing-row", "m->is_sparing ? 0 : m->partial;", "m->partial;",
     "codec_format:golden"),
    ("sparing-header", "(h->format_version == 5 && !h->contents)", "!h->contents",
     "codec_ensemble:headers"),
    ("ensemble-mean", "squash(t, clamp(2 * sum / (i32)n, X_MAX))",
     "squash(t, clamp(sum / (i32)n, X_MAX))", "codec_ensemble:averages"),
    ("ensemble-places", "n = k * (u32)c->model->stage[0].bytes / c->header.ensemble;", "n = k;",
     "codec_ensemble:averages"),
    ("ensemble-silence", "memset(filler, silence ? 0xff : '\\n', sizeof filler);",
     "memset(filler, '\\n', sizeof filler);", "codec_ensemble:every_decoder"),
    ("ensemble-kept", "int silence = c->header.contents && c->header.mixing_memory;",
     "int silence = c->header.contents;", "codec_ensemble:every_decoder"),
    ("ensemble-unused", "if (!uses_model(h->method)) h->ensemble = min32(h->ensemble, 1);", "",
     "codec_ensemble:any_sizes"),
    ("ensemble-waiting", "l->waiting |= (u32)!take_drafted(l->by.streams[k], bytes[i]) << k;",
     "l->waiting = (u32)!take_drafted(l->by.streams[k], bytes[i]) << k;",
     "codec_ensemble:every_decoder"),
    ("ensemble-engine", "if (HAVE_CODEC && e->kept_bytes < MOST_ENSEMBLE) e->kept_bytes =",
     "if (0) e->kept_bytes =", "codec_ensemble:small_engine"),
    ("mixer-adapt", "*p = v + ((u32)step << 10) + (n < limit);", "*p = v + ((u32)step << 10);",
     "codec_format codec_messages"),
]

# Mutations that change nothing that can be observed, and why.
EXPLAINED = {
    "arena-overflow": "no sizes that check_sizes lets through come near 2^64: a second defence",
    "load-slot": "the next patch overwrites the slot before anything looks back at it",
    "copy-slot": "the same",
    "code-beyond": "only ends decoding of damaged code sooner; ends_decoding finds the damage",
    "copy-history": "copies bytes, up to the end of the ring, that nobody reads",
    "history-length": "rewinds reach a patch less far back; how far is promised nowhere",
}


def pattern(fragment):
    return re.compile(r"\s+".join(re.escape(word) for word in fragment.split()))


def run(mutation, tree, built):
    name, fragment, replacement, tests = mutation
    source = open(os.path.join(tree, "megabyte.c")).read()
    with tempfile.TemporaryDirectory() as folder:
        for part in ("Makefile", "megabyte.h", "tools", "tests"):
            path = os.path.join(tree, part)
            ignore = shutil.ignore_patterns("tmp", "bin")
            if os.path.isdir(path):
                shutil.copytree(path, os.path.join(folder, part), ignore=ignore)
            else:
                shutil.copy(path, folder)
        os.symlink(os.path.join(tree, "models"), os.path.join(folder, "models"))
        shutil.copy2(os.path.join(built, "mbconvert"), os.path.join(folder, "tools", "mbconvert"))
        with open(os.path.join(folder, "megabyte.c"), "w") as out:
            out.write(pattern(fragment).sub(lambda _: replacement, source))
        for test in tests.split():
            program, _, group = test.partition(":")
            target = "tests/bin/test_" + program
            make = subprocess.run(["make", "-s", target, "CFLAGS=-O1 -w"], cwd=folder,
                                  capture_output=True, text=True)
            if make.returncode:
                return name, "does not compile: " + make.stderr[:300]
            try:
                done = subprocess.run([target] + ([group] if group else []), cwd=folder,
                                      capture_output=True, timeout=150)
            except subprocess.TimeoutExpired:
                return name, "killed by test_%s (hangs)" % program
            if done.returncode:
                return name, "killed by test_%s" % test
    if name in EXPLAINED:
        return name, "survives: " + EXPLAINED[name]
    return name, "SURVIVES"


def main(words):
    tree = os.getcwd()
    chosen = M
    if words[:1] == ["--list"]:
        print("\n".join(m[0] for m in M))
        return 0
    if words[:1] == ["--sample"]:
        seed = int(words[2]) if len(words) > 2 else random.randrange(1 << 30)
        chosen = random.Random(seed).sample(M, int(words[1]))
        print("seed", seed)
    elif words:
        chosen = [m for m in M if m[0] in words]
        assert len(chosen) == len(words), "no such mutation"
    source = open("megabyte.c").read()
    stale = [m[0] for m in M if len(pattern(m[1]).findall(source)) != 1]
    if stale:
        print("what these change does not stand in megabyte.c once:", *stale)
        return 1
    with tempfile.TemporaryDirectory() as built:
        subprocess.run(["make", "-s", "tools/mbconvert"], check=True)
        shutil.copy2("tools/mbconvert", built)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = []
            work = [pool.submit(run, m, tree, built) for m in chosen]
            for name, result in (done.result() for done in as_completed(work)):
                print("%-18s %s" % (name, result), flush=True)
                results.append(result)
    bad = [r for r in results if not r.startswith(("killed", "survives: "))]
    killed = sum(r.startswith("killed") for r in results)
    print("%d mutations: %d killed, %d explained, %d not" %
          (len(results), killed, len(results) - killed - len(bad), len(bad)))
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
