"""PyTorch's own loss, in windows of the context: loss.py CHECKPOINT.pt TEXT."""
import json
import math
import sys
import torch
from torch.nn import functional as F
from megabyte_torch import Megabyte

checkpoint, text = sys.argv[1:]
args = json.load(open(checkpoint.rsplit(".", 1)[0] + ".json"))
model = Megabyte(**{k: args[k] for k in ("dim", "depth", "max_seq_len", "heads", "dim_head")})
model.load_state_dict(torch.load(checkpoint))
ids = torch.frombuffer(bytearray(open(text, "rb").read()), dtype=torch.uint8).long()
total = 0.0
with torch.no_grad():
    for window in ids.split(math.prod(args["max_seq_len"])):
        total += F.cross_entropy(model(window[None])[0], window, reduction="sum").item()
print(f"{total / math.log(2) / len(ids):.6f}")
