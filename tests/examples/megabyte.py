"""megabyte.py - the library in Python, without building anything but the shared library
(`make shared`, or Debian's libmegabyte0). MEGABYTE_LIBRARY may name it. Bytes in, bytes out:

    import megabyte
    stream = megabyte.Stream(megabyte.Model("models/text.mb"))
    stream.feed(b"Once upon a time")
    print(stream.generate(200, temperature=0.7, top_p=0.95, seed=1))

SPDX-License-Identifier: MIT"""
import ctypes as c, ctypes.util, os

_lib = c.CDLL(os.environ.get("MEGABYTE_LIBRARY") or c.util.find_library("megabyte"))
_lib.megabyte_status_string.restype = c.c_char_p
_lib.megabyte_stream_position.restype = c.c_uint64

class Sampling(c.Structure):  # megabyte_sampling
    _fields_ = [("temperature", c.c_float), ("top_k", c.c_uint32), ("top_p", c.c_float),
                ("min_p", c.c_float), ("repetition_penalty", c.c_float),
                ("repetition_window", c.c_uint32), ("seed", c.c_uint64)]

class Error(Exception): pass

def _call(name, *args):
    status = getattr(_lib, "megabyte_" + name)(*args)
    if status < 0:
        raise Error(f"{name}: {_lib.megabyte_status_string(status).decode()}")

class Model:
    def __init__(self, path):
        self._as_parameter_ = c.c_void_p()
        _call("model_open", c.byref(self._as_parameter_), os.fsencode(path), None, None)

    def __del__(self):
        _lib.megabyte_model_close(self)

class Stream:  # one history of bytes; keeps its model
    def __init__(self, model):
        self._as_parameter_, self.model = c.c_void_p(), model
        _call("stream_create", c.byref(self._as_parameter_), model, None, None, None)

    def __del__(self):
        _lib.megabyte_stream_free(self)

    def position(self):
        return _lib.megabyte_stream_position(self)

    def feed(self, data):
        _call("stream_feed", self, data, c.c_size_t(len(data)))

    def rewind(self, position):
        _call("stream_rewind", self, c.c_uint64(position))

    def generate(self, n, **sampling):
        out, n_out = c.create_string_buffer(n), c.c_size_t()
        _call("stream_generate", self, c.byref(Sampling(**sampling)), out, c.c_size_t(n),
              c.byref(n_out), None, None)
        return out.raw[:n_out.value]

    def score(self, data):  # in bits
        bits = c.c_double()
        _call("stream_score", self, data, c.c_size_t(len(data)), c.byref(bits), None)
        return bits.value

    def encode(self, data):  # decode of a stream with the same history reads it
        out, n = c.create_string_buffer(len(data) + 16), c.c_size_t()  # megabyte_message_bound
        _call("stream_encode", self, data, c.c_size_t(len(data)), out, c.c_size_t(len(out)),
              c.byref(n))
        return out.raw[:n.value]

    def decode(self, code, most=1 << 16):
        out, n = c.create_string_buffer(most), c.c_size_t()
        _call("stream_decode", self, code, c.c_size_t(len(code)), out, c.c_size_t(most), c.byref(n))
        return out.raw[:n.value]
