"""MEGABYTE in PyTorch, to train. Its tensors have the names and the meaning that they have in
lucidrains/MEGABYTE-pytorch: either loads the other's state dict, and mbconvert reads both."""
import torch
from torch import nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.g = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True)) * self.g


class RotaryEmbedding(nn.Module):  # turns pairs of channels by an angle that grows with position
    def __init__(self, width):
        super().__init__()
        self.register_buffer("inv_freq", 10000 ** (-torch.arange(0, width, 2) / width))

    def forward(self, x):
        angle = torch.arange(x.shape[-2], device=x.device)[:, None] * self.inv_freq
        a, b = x.chunk(2, -1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


class Attention(nn.Module):
    def __init__(self, dim, heads, width):
        super().__init__()
        self.heads, self.width, self.norm = heads, width, RMSNorm(dim)
        self.to_q = nn.Linear(dim, heads * width, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * width, bias=False)
        self.to_out = nn.Linear(heads * width, dim, bias=False)

    def forward(self, x, rotate):
        x = self.norm(x)
        q, k, v = (t.unflatten(-1, (self.heads, self.width)).transpose(-2, -3)
                   for t in (self.to_q(x), *self.to_kv(x).chunk(2, -1)))
        n = x.shape[-2]
        future = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        score = rotate(q) @ rotate(k).transpose(-1, -2) * self.width ** -0.5
        weight = score.masked_fill(future, float("-inf")).softmax(-1)
        return self.to_out((weight @ v).transpose(-2, -3).flatten(-2))


def shift(x):  # the second half of the channels comes from the token before
    now, before = x.chunk(2, -1)
    return torch.cat([now, F.pad(before, (0, 0, 1, -1))], -1)


class Transformer(nn.Module):
    def __init__(self, dim, depth, heads, width):
        super().__init__()
        self.rotary_emb, self.norm = RotaryEmbedding(width), RMSNorm(dim)
        self.layers = nn.ModuleList(nn.ModuleList([
            Attention(dim, heads, width),
            nn.Sequential(RMSNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Identity(),
                          nn.Linear(4 * dim, dim))]) for _ in range(depth))

    def forward(self, x):
        for attend, feed_forward in self.layers:
            x = x + attend(shift(x), self.rotary_emb)
            x = x + feed_forward(shift(x))
        return self.norm(x)


class Megabyte(nn.Module):
    """Two stages, coarse to fine: dim, depth and max_seq_len (patches, their bytes) of each."""

    def __init__(self, dim, depth, max_seq_len, heads, dim_head):
        super().__init__()
        self.patches, self.patch = max_seq_len
        self.start_tokens = nn.ParameterList(nn.Parameter(torch.randn(d)) for d in dim)
        self.token_embs = nn.ModuleList([nn.Embedding(256, dim[1]), nn.Sequential(
            nn.Embedding(256, dim[1]), nn.Flatten(-2), nn.LayerNorm(self.patch * dim[1]),
            nn.Linear(self.patch * dim[1], dim[0]), nn.LayerNorm(dim[0]))])
        self.transformers = nn.ModuleList(Transformer(d, n, heads, dim_head)
                                          for d, n in zip(dim, depth))
        self.to_next_transformer_projections = nn.ModuleList([
            nn.Sequential(nn.Identity(), nn.Linear(dim[0], dim[1] * self.patch)), nn.Identity()])
        self.to_logits = nn.Linear(dim[1], 256)

    def forward(self, ids):
        """[batch, n] bytes to the logits of each, given those before it: [batch, n, 256]."""
        n = ids.shape[1]
        ids = F.pad(ids, (0, -n % self.patch)).unflatten(1, (-1, self.patch))
        batch, patches = ids.shape[:2]
        begin = [t.expand(batch, 1, -1) for t in self.start_tokens]
        # position j of the global stage has seen the patches before patch j
        seen = self.transformers[0](torch.cat([begin[0], self.token_embs[1](ids)], 1))[:, :-1]
        seen = self.to_next_transformer_projections[0](seen).unflatten(-1, (self.patch, -1))
        x = self.token_embs[0](ids) + seen
        x = torch.cat([begin[1][:, None].expand(-1, patches, -1, -1), x], 2)
        logits = self.to_logits(self.transformers[1](x))
        # the last position of a patch predicts the first byte of the next
        return torch.cat([logits[:, 0, :1], logits[:, :, 1:].flatten(1, 2)], 1)[:, :n]
