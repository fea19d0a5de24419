"""Trains a small MEGABYTE on text and saves it: train.py TEXT CHECKPOINT.pt [STEPS]."""
import json
import math
import sys
import torch
from torch.nn import functional as F
from megabyte_torch import Megabyte  # or: from MEGABYTE_pytorch import MEGABYTE (README.md)

text, out, steps = sys.argv[1], sys.argv[2], int((sys.argv + ["1000"])[3])
args = {"dim": [128, 64], "depth": [3, 2], "max_seq_len": [64, 8], "heads": 4, "dim_head": 32}
torch.manual_seed(1)
model = Megabyte(**args)
context = math.prod(args["max_seq_len"])
ids = torch.frombuffer(bytearray(open(text, "rb").read()), dtype=torch.uint8).long()
if len(ids) < context:
    sys.exit(f"{text}: {len(ids)} bytes; at least {context} are needed")
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95))
schedule = torch.optim.lr_scheduler.LambdaLR(
    optimizer, lambda step: min(1, (step + 1) / 50) * (1 - 0.95 * step / steps))
for step in range(steps):
    starts = torch.randint(0, len(ids) - context + 1, (8, 1))
    batch = ids[starts + torch.arange(context)]
    loss = F.cross_entropy(model(batch).flatten(0, 1), batch.flatten())
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    if step % 100 == 0 or step == steps - 1:
        print(f"step {step}: {loss.item() / math.log(2):.3f} bits per byte", flush=True)

torch.save(model.state_dict(), out)
with open(out.rsplit(".", 1)[0] + ".json", "w") as config:  # mbconvert finds it there
    json.dump({"num_tokens": 256, "rel_pos": True, **args}, config)
