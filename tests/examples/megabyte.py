"""megabyte.py - the library in Python: bytes in, bytes out. SPDX-License-Identifier: MIT
MEGABYTE_LIBRARY names what `make shared` has built; else an installed libmegabyte.so.0 is used.

    stream = megabyte.Stream(megabyte.Model("models/text.mb"))
    stream.feed(b"Once upon a time")
    print(stream.generate(200, temperature=0.7, top_p=0.95, seed=1))"""
import ctypes as c, os
_lib = c.CDLL(os.environ.get("MEGABYTE_LIBRARY", "libmegabyte.so.0"))
_lib.megabyte_status_string.restype = c.c_char_p

class Error(Exception): pass
class Sampling(c.Structure):  # megabyte_sampling
    _fields_ = [("temperature", c.c_float), ("top_k", c.c_uint32), ("top_p", c.c_float),
                ("min_p", c.c_float), ("repetition_penalty", c.c_float),
                ("repetition_window", c.c_uint32), ("seed", c.c_uint64)]

def _call(name, *args):
    if str in map(type, args): raise TypeError(f"{name}: bytes are wanted, not str")
    status = getattr(_lib, "megabyte_" + name)(*args)
    if status < 0: raise Error(f"{name}: {_lib.megabyte_status_string(status).decode()}")

def _bytes(name, capacity, *args, then=()):  # what it writes to out[capacity], *n
    out, n = c.create_string_buffer(capacity), c.c_size_t()
    _call(name, *args, out, c.c_size_t(capacity), c.byref(n), *then)
    return out.raw[:n.value]

class Model:
    def __init__(self, path):
        self._as_parameter_ = c.c_void_p()
        _call("model_open", c.byref(self._as_parameter_), os.fsencode(path), None, None)
    def __del__(self): _lib.megabyte_model_close(self)

class Stream:  # one history of bytes; keeps its model
    def __init__(self, model):
        self._as_parameter_, self.model = c.c_void_p(), model
        _call("stream_create", c.byref(self._as_parameter_), model, None, None, None)
    def __del__(self): _lib.megabyte_stream_free(self)
    def feed(self, data): _call("stream_feed", self, data, c.c_size_t(len(data)))
    def rewind(self, position): _call("stream_rewind", self, c.c_uint64(position))
    def generate(self, n, **sampling):
        sampling = c.byref(Sampling(**sampling))
        return _bytes("stream_generate", n, self, sampling, then=(None, None))
    def score(self, data):  # in bits
        bits = c.c_double()
        _call("stream_score", self, data, c.c_size_t(len(data)), c.byref(bits), None)
        return bits.value
    def encode(self, data):  # decode of a stream with the same history reads it
        return _bytes("stream_encode", len(data) + 16, self, data, c.c_size_t(len(data)))
    def decode(self, code, most=1 << 16):
        return _bytes("stream_decode", most, self, code, c.c_size_t(len(code)))
