#!/usr/bin/env python3
"""How fast is megabyte beside what a user would take instead? Measures both in one run and prints a
Markdown table of ratios. Fetches and builds nothing: it runs programs that are already there.

    tests/bench/peers.py [-m MODEL] [-T 1,2] [--repeats 3] [--file FILE] [--under COMMAND]
                         [--mbrun PROGRAM] PEERS

Peers, each optional:
    --llama PATH             llama.cpp: the program llama-bench, or a folder that holds it
    --megabyte-pytorch DIR   lucidrains/MEGABYTE-pytorch: the folder that holds MEGABYTE_pytorch
    --python-path DIR        more folders to import from (einops, beartype ...); may be repeated
    --python PROGRAM         a Python that can import torch (else this one or /usr/bin/python3)
    --paq8px PATH            the program paq8px; --paq8px-level LEVEL: 8
    --lpaq PATH              the program lpaq8; it runs at level 7

FILE (README.md) is compressed, and its first 2 KB are the prompt that is gone on from. COMMAND is
put before every program that is measured, for example: --under "taskset -c 0". Run it from the
repository's root after `make`; progress and every single figure go to standard error. Writes only
to a temporary folder.

How it is measured. Both sides take turns, and who begins alternates. A figure is the median of the
repeats; where a program gives many short samples (mbrun bench, llama-bench), each repeat counts
with its 90th percentile. In brackets: the lowest and the highest ratio of any repeat.

llama.cpp has no MEGABYTE, so it runs one llama model of random weights for each stage, with the
stage's width, layers and heads, and a feed-forward as wide as makes the multiply-accumulates of a
token equal (rounded down to blocks of 32: never more of them). A byte costs it one token of the
local stage and one token of the global stage divided by the bytes of a patch. When llama-bench
reads a prompt, it computes the logits of its last token only; when it writes, it samples nothing.
The local model reads 128 tokens at once and writes 64, the global one as many as mbrun bench does.

PyTorch runs the package's own `generate`, which computes the whole sequence again for each byte, on
a model of the same sizes with random weights (float32, in inference mode).
"""
import argparse, enum, io, json, os, random, shlex, shutil, statistics, struct, subprocess, sys
import tempfile, textwrap, time, types

WINDOW, PREFILL, CONTEXT, PROMPT = 512, 4096, 256, 2048 # bytes; the first three: of mbrun bench
VOCABULARY, LOCAL_TOKENS, ROUNDS = 256, 128, 3
TYPES = {"Q8_0": (8, 34), "Q4_0": (2, 18)} # GGUF's number, bytes of a block of 32


def log(*words):
    print(*words, file=sys.stderr, flush=True)


def run(words, **how):
    done = subprocess.run(words, capture_output=True, **how)
    if done.returncode:
        sys.exit("%s: exit status %d\n%s" % (" ".join(words), done.returncode,
                                             done.stderr.decode(errors="replace")[-2000:]))
    return done.stdout


def high(samples):
    return sorted(samples)[(len(samples) - 1) * 9 // 10]


# ------------------------------------------------------------------------------------- GGUF models
class Llama:
    """A llama model of the sizes of one stage."""

    def __init__(self, stage):
        self.name, self.patch = stage["name"], stage["bytes_per_token"]
        self.dim, self.layers, self.heads = stage["dim"], stage["layers"], stage["heads"]
        self.kv_heads, self.head_dim = stage["kv_heads"], stage["head_dim"]
        inner, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * self.dim * (inner + kv)
        left = stage["macs_per_token"] - VOCABULARY * self.dim - self.layers * attention
        self.ff = left // (self.layers * 3 * self.dim) // 32 * 32
        if self.ff <= 0 or self.dim % 32 or inner % 32:
            sys.exit("no llama model has the sizes of stage " + self.name)
        self.macs = VOCABULARY * self.dim + self.layers * (attention + 3 * self.dim * self.ff)
        self.tensors = [("token_embd", self.dim, VOCABULARY), ("output_norm", self.dim, 0),
                        ("output", self.dim, VOCABULARY)]
        for i in range(self.layers):
            self.tensors += [("blk.%d.%s" % (i, name), columns, rows) for name, columns, rows in [
                ("attn_norm", self.dim, 0), ("attn_q", self.dim, inner),
                ("attn_k", self.dim, kv), ("attn_v", self.dim, kv),
                ("attn_output", inner, self.dim), ("ffn_norm", self.dim, 0),
                ("ffn_gate", self.dim, self.ff), ("ffn_up", self.dim, self.ff),
                ("ffn_down", self.ff, self.dim)]]

    def write(self, path, kind):
        number, block = TYPES[kind]
        text = lambda s: struct.pack("<Q", len(s)) + s.encode()
        keys = {"llama.context_length": 8192, "llama.embedding_length": self.dim,
                "llama.block_count": self.layers, "llama.feed_forward_length": self.ff,
                "llama.attention.head_count": self.heads,
                "llama.attention.head_count_kv": self.kv_heads,
                "llama.attention.key_length": self.head_dim,
                "llama.attention.value_length": self.head_dim,
                "llama.rope.dimension_count": self.head_dim,
                "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.vocab_size": VOCABULARY,
                "general.architecture": "llama", "tokenizer.ggml.model": "no_vocab"}
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(keys))
        for key, value in keys.items():
            head += text(key)
            if isinstance(value, str): head += struct.pack("<I", 8) + text(value)
            elif isinstance(value, float): head += struct.pack("<If", 6, value)
            else: head += struct.pack("<II", 4, value)
        at = 0
        for name, columns, rows in self.tensors:
            shape = (columns, rows) if rows else (columns,)
            head += text(name + ".weight") + struct.pack("<I%dQ" % len(shape), len(shape), *shape)
            head += struct.pack("<IQ", number if rows else 0, at)
            at += self.size(columns, rows, block)
        noise = random.Random(1)
        with open(path, "wb") as out:
            out.write(head + bytes(-len(head) % 32))
            for _, columns, rows in self.tensors:
                size = self.size(columns, rows, block)
                if rows:
                    scale = struct.pack("<e", columns ** -0.5 / (74 if block == 34 else 4.6))
                    data = bytearray(noise.randbytes(size)) # deviates by 74 or 4.6 before the scale
                    n = columns * rows // 32
                    data[0:n * block:block], data[1:n * block:block] = scale[:1] * n, scale[1:] * n
                    out.write(data)
                else:
                    out.write(struct.pack("<f", 1.0) * columns + bytes(size - 4 * columns))

    @staticmethod
    def size(columns, rows, block): # in the file, padded to 32
        n = columns * rows // 32 * block if rows else 4 * columns
        return n + -n % 32

    def weight_bytes(self, kind): # read for one token
        return self.macs // 32 * TYPES[kind][1]


def find_llama(path):
    for place in ("", "llama-bench", "bin/llama-bench", "build/bin/llama-bench"):
        program = os.path.join(path, place) if place else path
        if os.path.isfile(program): return program
    sys.exit("no llama-bench in " + path)


class LlamaBench:
    """Bytes per second of llama.cpp, from its tokens per second."""

    def __init__(self, program, info, folder, under):
        self.program, self.under = find_llama(program), under
        self.stages = [Llama(stage) for stage in info["stages"]]
        self.paths = {}
        for kind in TYPES:
            for i, stage in enumerate(self.stages):
                path = self.paths[kind, i] = os.path.join(folder, "%d-%s.gguf" % (i, kind))
                stage.write(path, kind)
        for stage, own in zip(self.stages, info["stages"]):
            log("llama model of stage %s: %d wide, %d layers, feed-forward %d: %d of %d "
                "multiply-accumulates a token" % (stage.name, stage.dim, stage.layers, stage.ff,
                                                  stage.macs, own["macs_per_token"]))
        self.commit = None

    def tokens(self, i):
        """Of the stage: what is read for `score` and for `prefill`, and what is written."""
        if i: return {"score": LOCAL_TOKENS, "write": LOCAL_TOKENS // 2}
        patch = self.stages[0].patch
        return {"score": WINDOW // patch, "prefill": PREFILL // patch, "write": CONTEXT // patch}

    def measure(self, threads):
        """In rounds, as mbrun bench does: what disturbs lasts. Some is measured for nothing."""
        wanted = [self.tokens(i) for i in range(len(self.stages))]
        words = ["-t", threads, "-r", 4, "-o", "json"]
        for path in self.paths.values(): words += ["-m", path]
        for n in {n for w in wanted for key, n in w.items() if key != "write"}: words += ["-p", n]
        for n in {w["write"] for w in wanted}: words += ["-n", n]
        tests = []
        for _ in range(ROUNDS):
            tests += json.loads(run(self.under + [self.program] + [str(w) for w in words]))
        self.commit = tests[0]["build_commit"]
        rates = {} # tokens per second
        for test in tests:
            name, n = test["model_filename"], test["n_prompt"] + test["n_gen"]
            rates.setdefault((name, n, test["n_gen"] > 0), []).extend(
                1e9 * n / nanoseconds for nanoseconds in test["samples_ns"])
        out = {}
        for kind, i in self.paths:
            for key, n in wanted[i].items():
                rate = high(rates[self.paths[kind, i], n, key == "write"])
                log("    %s, stage %s, %s %d: %.0f tokens/s" % (kind, self.stages[i].name, key, n,
                                                                 rate))
                out[kind + key] = out.get(kind + key, 0) + 1 / rate / self.stages[i].patch
        return {key: 1 / seconds for key, seconds in out.items()}


# ----------------------------------------------------------------------------------------- PyTorch
def torch_worker(setting):
    """In a Python that has torch: prints the seconds of each byte."""
    import torch
    note = ""
    try:
        import torch.nn.attention
    except ImportError: # before 2.3; the package wants the name of an enumeration it does not use
        module = types.ModuleType("torch.nn.attention")
        module.SDPBackend = enum.Enum("SDPBackend", "FLASH_ATTENTION MATH EFFICIENT_ATTENTION")
        sys.modules["torch.nn.attention"] = torch.nn.attention = module
        note = " (SDPBackend by this script)"
    from MEGABYTE_pytorch import MEGABYTE
    torch.set_num_threads(setting["threads"])
    torch.manual_seed(1)
    n, patch = setting["bytes"], setting["patch"]
    full = setting["prompt"] + n # generate goes on to the product of max_seq_len
    lengths = [full // patch] + setting["lengths"][1:]
    model = MEGABYTE(**setting["model"], max_seq_len=tuple(lengths), dim=tuple(setting["dim"]),
                     depth=tuple(setting["depth"])).eval()
    linear = torch.nn.Linear(512, 2048)
    rows = torch.randn(512, 512)
    sys.stderr = io.StringIO() # progress bars
    with torch.inference_mode():
        product = []
        for _ in range(20):
            start = time.perf_counter()
            linear(rows)
            product.append(time.perf_counter() - start)
        prompt = torch.randint(0, 256, (1, full))
        model.generate(prompt[:, :full - 1])
        start = time.perf_counter()
        model.generate(prompt[:, :full - n])
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds / n, "version": torch.__version__, "note": note,
                      "gmacs": 1e-9 * 512 * 512 * 2048 / statistics.median(product)}))


class PyTorch:
    def __init__(self, o, info, under):
        self.under, self.missing, self.told = under, None, {}
        path = [os.path.abspath(p) for p in [o.megabyte_pytorch] + o.python_path]
        self.env = dict(os.environ, PYTHONPATH=os.pathsep.join(path), PYTHONDONTWRITEBYTECODE="1")
        stages = info["stages"]
        same = {(s["heads"], s["head_dim"], s["ff_dim"] // s["dim"]) for s in stages}
        if len(same) > 1 or any(s["ff_dim"] % s["dim"] for s in stages):
            self.missing = "the package has no model of these sizes"
            return
        heads, head_dim, mult = same.pop()
        kinds = stages[0]["position_kind"]
        self.setting = {"dim": [s["dim"] for s in stages], "depth": [s["layers"] for s in stages],
                        "lengths": [s["positions"] for s in stages], "prompt": PROMPT, "bytes": 4,
                        "patch": info["patch_bytes"],
                        "model": {"num_tokens": info["vocabulary"], "heads": heads,
                                  "dim_head": head_dim, "ff_mult": mult,
                                  "rel_pos": "rotary" in kinds, "pos_emb": "learned" in kinds}}
        self.setting["bytes"] *= -(-info["patch_bytes"] // 4) # whole patches
        for python in [o.python] if o.python else [sys.executable, "/usr/bin/python3"]:
            tried = subprocess.run([python, "-c", "import torch; from einops import rearrange; "
                                    "import beartype, tqdm, packaging"], env=self.env,
                                   capture_output=True, text=True)
            if not tried.returncode:
                self.python = python
                return
        self.missing = tried.stderr.strip().splitlines()[-1]

    def measure(self, threads):
        env = dict(self.env, OMP_NUM_THREADS=str(threads))
        setting = json.dumps(dict(self.setting, threads=threads))
        out = json.loads(run(self.under + [self.python, os.path.abspath(__file__), "--torch-worker",
                                           setting], env=env))
        self.told = out
        log("    PyTorch %s%s: %.3f s a byte; its matrix product does %.0f GMAC/s" %
            (out["version"], out["note"], out["seconds"], out["gmacs"]))
        return 1 / out["seconds"]


# ------------------------------------------------------------------------------------- compressors
def compressors(o):
    """Name, mbrun's level to compare with, and how to compress and decompress a file to another."""
    out = []
    if o.paq8px:
        out.append(("paq8px -" + o.paq8px_level, "default",
                    lambda a, b: [o.paq8px, "-" + o.paq8px_level, a, b],
                    lambda a, b: [o.paq8px, "-d", a, b]))
    if o.lpaq:
        out.append(("lpaq8 7", "-3", lambda a, b: [o.lpaq, "7", a, b],
                    lambda a, b: [o.lpaq, "d", a, b]))
    return out


def time_commands(commands):
    """Prints their seconds. In a process of its own: should COMMAND wait, that does not count."""
    seconds = []
    for words in commands:
        start = time.perf_counter()
        run(words)
        seconds.append(time.perf_counter() - start)
    print(json.dumps(seconds))


def round_trip(name, compress, decompress, file, folder, under):
    """Bytes per second both ways, and the size in between."""
    packed, back = os.path.join(folder, "packed"), os.path.join(folder, "back")
    for path in packed, back:
        if os.path.exists(path): os.remove(path)
    commands = json.dumps([compress(file, packed), decompress(packed, back)])
    out = run(under + [sys.executable, os.path.abspath(__file__), "--time", commands], cwd=folder)
    rates = [os.path.getsize(file) / seconds for seconds in json.loads(out)]
    with open(file, "rb") as a, open(back, "rb") as b:
        if a.read() != b.read(): sys.exit(name + ": not what was compressed")
    size = os.path.getsize(packed)
    log("    %s: %d bytes; %.0f and %.0f bytes/s" % (name, size, *rates))
    return rates + [size]


# --------------------------------------------------------------------------------------- the table
class Row:
    def __init__(self, what, peer):
        self.what, self.peer, self.own, self.other = what, peer, [], []
        self.limit = None # work of a byte of either side, and which limit of the machine holds

    def print(self, threads, limits):
        cells = []
        for i, rates in enumerate((self.own, self.other)):
            rate, share = statistics.median(rates), ""
            if self.limit:
                share = " (%.0f%%)" % (100 * rate * self.limit[i] / limits[self.limit[2]])
            cells.append(("{:,.0f}" if rate >= 100 else "{:.2f}").format(rate) + share)
        each = [a / b for a, b in zip(self.own, self.other)]
        digits = "%.0f" if min(each) >= 20 else "%.2f"
        spread = " (%s to %s)" % (digits, digits) % (min(each), max(each)) if len(each) > 1 else ""
        ratio = digits % (statistics.median(self.own) / statistics.median(self.other))
        print("| %s | %s | %d | %s | %s | **%s**%s |" %
              (self.what, self.peer, threads, *cells, ratio, spread))


def main():
    p = argparse.ArgumentParser(usage="tests/bench/peers.py [options]; --help tells all",
                                add_help=False, allow_abbrev=False)
    p.add_argument("-h", "--help", action="store_true")
    p.add_argument("-m", "--model", default="models/text.mb")
    p.add_argument("-T", "--threads", default="1")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--mbrun", default="tools/mbrun")
    p.add_argument("--file", default="README.md")
    p.add_argument("--under", default="")
    p.add_argument("--llama")
    p.add_argument("--megabyte-pytorch")
    p.add_argument("--python-path", action="append", default=[])
    p.add_argument("--python")
    p.add_argument("--paq8px")
    p.add_argument("--paq8px-level", default="8")
    p.add_argument("--lpaq")
    o = p.parse_args()
    if o.help:
        print(__doc__.strip())
        return
    for name in "mbrun", "file", "paq8px", "lpaq":
        path = getattr(o, name)
        if path and not os.path.isfile(path): sys.exit("no such file: " + path)
        if path: setattr(o, name, os.path.abspath(path))
    if o.repeats < 1: sys.exit("--repeats: at least 1")
    under = shlex.split(o.under)
    if under: under[0] = shutil.which(under[0]) or under[0]
    info = json.loads(run([o.mbrun, "info", "--json", "-m", o.model]))
    with tempfile.TemporaryDirectory() as folder:
        measure_all(o, info, under, folder)


def measure_all(o, info, under, folder):
    skipped = [name for name in ("llama", "megabyte_pytorch", "paq8px", "lpaq")
               if not getattr(o, name)]
    if skipped: log("not given, so skipped:", ", ".join(s.replace("_", "-") for s in skipped))
    llama = LlamaBench(o.llama, info, folder, under) if o.llama else None
    torch = PyTorch(o, info, under) if o.megabyte_pytorch else None
    if torch and torch.missing:
        log("PyTorch is skipped: " + torch.missing)
        torch = None
    packers = compressors(o)
    if not (llama or torch or packers): sys.exit("nothing to measure beside; see --help")
    prompt = os.path.join(folder, "prompt")
    with open(o.file, "rb") as source, open(prompt, "wb") as out: out.write(source.read(PROMPT))
    model = ["-m", o.model if not os.path.exists(o.model) else os.path.abspath(o.model)]

    tables, sizes = [], {}
    for threads in [int(t) for t in o.threads.split(",")]:
        tables.append((threads, *measure(o, info, under, folder, threads, llama, torch, packers,
                                         prompt, model, sizes)))

    notes = ["%s, %s" % (os.path.basename(info["path"]), tables[0][1]["isa"])]
    notes += ["%d thread%s: int8 peak %.0f GMAC/s, read bandwidth %.0f GB/s" %
              (threads, "s" if threads > 1 else "", 1e-9 * limits["peak"], 1e-9 * limits["read"])
              for threads, limits, _ in tables]
    if llama and llama.commit != "unknown": notes.append("llama-bench of commit " + llama.commit)
    if torch:
        notes.append("PyTorch %s, whose product of 512 x 512 by 512 x 2048 does %.0f GMAC/s "
                     "(threads: %s)" % (torch.told["version"], torch.told["gmacs"], tables[-1][0]))
    if sizes:
        notes.append("%s, %d bytes, becomes %s" % (
            os.path.basename(o.file), os.path.getsize(o.file),
            ", ".join("%d (%s)" % (size, name) for name, size in sizes.items())))
    print(textwrap.fill(". ".join(notes) + ".", 100))
    print("\n| | beside | threads | megabyte, bytes/s | the other, bytes/s | ratio |")
    print("|---|---|--:|--:|--:|--:|")
    for threads, limits, rows in tables:
        for row in rows: row.print(threads, limits)


def measure(o, info, under, folder, threads, llama, torch, packers, prompt, model, sizes):
    """The machine's limits, and the rows of the table for one number of threads."""
    t = ["-T", str(threads)]
    rows, limits = {}, {"peak": [], "read": []}

    def add(key, what, peer, limit=None):
        rows[key] = Row(what, peer)
        rows[key].limit = limit

    for kind in TYPES if llama else ():
        peer, patches = "llama.cpp " + kind, llama.stages[0].patch
        macs = sum(s.macs / s.patch for s in llama.stages)
        weights = sum(s.weight_bytes(kind) / s.patch for s in llama.stages)
        first = info["stages"][0]["macs_per_byte"], llama.stages[0].macs / patches
        add(kind + "write", "one stream, %d bytes" % CONTEXT, peer,
            (info["weight_bytes_per_byte"], weights, "read"))
        add(kind + "score", "scoring, %d bytes" % WINDOW, peer,
            (info["macs_per_byte"], macs, "peak"))
        add(kind + "prefill", "prefill, %d bytes" % PREFILL, peer, (*first, "peak"))
    if torch:
        add("plain", "generate after %d, no drafts" % PROMPT, "PyTorch")
        add("draft", "generate after %d bytes" % PROMPT, "PyTorch")
    for name, level, *_ in packers:
        setting = ", default" if level == "default" else " " + level
        add(name + "c", "compress" + setting, name)
        add(name + "d", "decompress" + setting, name)

    def own_bench():
        names = {"write": "stream_1", "score": "score_short", "prefill": "feed"}
        out = json.loads(run(under + [o.mbrun, "bench", "--json"] + model + t +
                             list(names.values())))
        trial = out["trials"][0]
        limits["isa"] = out["isa"]
        limits["peak"].append(trial["peak_macs_per_second"])
        limits["read"].append(trial["read_bytes_per_second"])
        rates = {key: trial[name]["bytes_per_second"] for key, name in names.items()}
        log("    mbrun bench:", ", ".join("%s %.0f" % pair for pair in rates.items()), "bytes/s")
        for kind in TYPES if llama else ():
            for key, rate in rates.items(): rows[kind + key].own.append(rate)

    def peer_bench():
        for key, rate in llama.measure(threads).items(): rows[key].other.append(rate)

    def own_generate():
        for key, more in ("plain", ["--draft", "0"]), ("draft", []):
            out = run(under + [o.mbrun, "generate", "-f", prompt, "-n", "512", "--seed", "1",
                               "--json"] + more + model + t)
            rows[key].own.append(json.loads(out)["bytes_per_second"])
            log("    mbrun generate, %s: %.0f bytes/s" % (key, rows[key].own[-1]))

    def peer_generate():
        rate = torch.measure(threads)
        rows["plain"].other.append(rate)
        rows["draft"].other.append(rate)

    def pack(name, side, compress, decompress, sized):
        *rates, sizes[sized] = round_trip(sized, compress, decompress, o.file, folder, under)
        for key, rate in zip("cd", rates): getattr(rows[name + key], side).append(rate)

    def pair(name, level, compress, decompress):
        words = [] if level == "default" else [level]
        own = lambda verb, more: lambda a, b: [o.mbrun, verb, "-q", "-o", b, a] + t + model + more
        return (lambda: pack(name, "own", own("compress", words), own("decompress", []),
                             "mbrun " + level if words else "mbrun"),
                lambda: pack(name, "other", compress, decompress, name))

    pairs = [(own_bench, peer_bench if llama else None)]
    if torch: pairs.append((own_generate, peer_generate))
    pairs += [pair(*packer) for packer in packers]
    for repeat in range(o.repeats):
        log("%d thread%s, repeat %d" % (threads, "s" if threads > 1 else "", repeat + 1))
        for sides in pairs:
            for side in sides[::-1 if repeat % 2 else 1]:
                if side: side()
    return ({key: statistics.median(v) if isinstance(v, list) else v for key, v in limits.items()},
            list(rows.values()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--time"]: time_commands(json.loads(sys.argv[2]))
    elif sys.argv[1:2] == ["--torch-worker"]: torch_worker(json.loads(sys.argv[2]))
    else: main()
