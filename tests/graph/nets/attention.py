"""Attention and transformer blocks."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.nets.case import Case, tokens


class SelfAttention(nn.Module):
    """What surrounds a block: an embedding before, a classifier after, a residual around."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.embed, self.block, self.head = nn.Linear(8, 16), block, nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(x + self.block(x))


class Positions(SelfAttention):
    """With a learned position embedding, whose positions are no channels and no zeros either."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__(block)
        self.positions = nn.Parameter(torch.randn(1, 5, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x) + self.positions
        return self.head(x + self.block(x))


class Packed(nn.Module):
    """One layer for queries, keys and values; the width of a head is derived, the number of heads is fixed."""

    def __init__(self, inner: int = 32) -> None:
        super().__init__()
        self.qkv, self.out, self.scale = nn.Linear(16, 3 * inner), nn.Linear(inner, 16), 0.4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
        return self.out(x.transpose(1, 2).reshape(b, n, -1))


class ConstantBias(nn.Module):
    """PyTorch's function with a bias that is no parameter, and so cannot lose what the projection would."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(16, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own, x, bias = self.inner, x.transpose(0, 1), torch.ones(48).to(x)
        weights = own.in_proj_weight, bias, None, None, False, 0.0, own.out_proj.weight, None
        return F.multi_head_attention_forward(x, x, x, 16, 4, *weights, training=False)[0].transpose(0, 1)


class WidthOfInput(Packed):
    """Heads cut by the width of the input, as in early ViTs: both must shrink equally."""

    def __init__(self) -> None:
        super().__init__(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        x = (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v
        return self.out(x.transpose(1, 2).reshape(b, n, c))


class Heads(nn.Module):
    """Separate layers; the width of a head is fixed, their number is not, so heads go as a whole."""

    def __init__(self, rope: bool = False, kv_heads: int = 4, fused: bool = True) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(16, 32), nn.Linear(16, 8 * kv_heads), nn.Linear(16, 8 * kv_heads)
        self.out, self.rope, self.repeat, self.fused = nn.Linear(32, 16), rope, 4 // kv_heads, fused

    def _turn(self, x: torch.Tensor) -> torch.Tensor:
        angle = torch.outer(torch.arange(x.shape[-2]), 100.0 ** -torch.linspace(0, 1, 4)).to(x.dtype)
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
        first, second = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return x * cos + torch.cat([-second, first], -1) * sin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (*x.shape[:-1], -1, 8)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.rope:
            q, k = self._turn(q), self._turn(k)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.repeat > 1)
        else:
            if self.repeat > 1:
                k, v = (_repeated(t, self.repeat) for t in (k, v))
            y = (q @ k.transpose(2, 3) / math.sqrt(8)).softmax(-1) @ v
        return self.out(y.transpose(1, 2).reshape(*x.shape[:-1], -1))


def _repeated(x: torch.Tensor, times: int) -> torch.Tensor:
    b, heads, n, width = x.shape
    return x[:, :, None].expand(b, heads, times, n, width).reshape(b, heads * times, n, width)


class Scaled(Packed):
    """Scores are divided by the root of the width at hand, so q and k stay, and v, which is cut as they are."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out((q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v)


class Fused(Packed):
    """As `Scaled`, within torch's own function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1)))


class FusedScale(Packed):
    """A fixed scale: any width will do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1), scale=self.scale))


class Torch(nn.Module):
    def __init__(self, weights: bool = True, **options: object) -> None:
        super().__init__()
        self.attention, self.weights = nn.MultiheadAttention(16, 4, batch_first=True, **options), weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]


class Cross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(8, 12), nn.Linear(8, 10)
        self.attention = nn.MultiheadAttention(16, 4, kdim=12, vdim=10, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(self.a(x), self.b(x), self.c(x))[0])


class Coder(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, 16), nn.Linear(16, 4)
        options = {"d_model": 16, "nhead": 4, "dim_feedforward": 24, "batch_first": True} | options
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**options), 2, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**options), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        return self.head(self.decoder(x, self.encoder(x)))


class Encoder(Coder):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x)))


class Llama(nn.Module):
    """RMS norm, rotary grouped-query attention, SwiGLU."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 16), nn.Linear(16, 20, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(16) for _ in range(3))
        self.attention = Heads(rope=True, kv_heads=2, fused=False)
        self.gate, self.up, self.down = nn.Linear(16, 24), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        x = x + self.attention(self.norms[0](x))
        y = self.norms[1](x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(self.norms[2](x))


class Linear(Packed):
    """Attention without softmax: contracts tokens first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(q.relu() @ (k.relu().transpose(-2, -1) @ v))


def _around(block: object, **options: object) -> object:
    return lambda: SelfAttention(block(**options))


CASES = [
    Case("packed heads", _around(Packed), tokens()),
    Case("packed heads after a position embedding", lambda: Positions(Packed()), tokens()),
    Case("heads of fixed width after a position embedding", lambda: Positions(Heads(fused=False)), tokens()),
    Case("heads cut by the input's width", _around(WidthOfInput), tokens()),
    Case("heads of fixed width, fused", _around(Heads), tokens()),
    Case("heads of fixed width, by hand", _around(Heads, fused=False), tokens()),
    Case("rotary embedding", _around(Heads, rope=True), tokens()),
    Case("grouped queries, fused", _around(Heads, kv_heads=2), tokens()),
    Case("grouped queries, by hand", _around(Heads, kv_heads=2, fused=False), tokens()),
    Case("one head for all keys", _around(Heads, kv_heads=1, fused=False), tokens(), share=16 / 25),
    Case("scaled by the width", _around(Scaled), tokens(), share=16 / 80),
    Case("fused, scaled by the width", _around(Fused), tokens(), share=16 / 112),
    Case("fused with a fixed scale", _around(FusedScale), tokens()),
    Case("linear attention", _around(Linear), tokens()),
    Case("MultiheadAttention", _around(Torch), tokens()),
    Case("MultiheadAttention without weights, without biases", _around(Torch, weights=False, bias=False), tokens()),
    Case(
        "MultiheadAttention with key and value biases", _around(Torch, add_bias_kv=True, add_zero_attn=True), tokens()
    ),
    Case("MultiheadAttention, separate projections", Cross, tokens()),
    Case("attention with a constant bias", _around(ConstantBias), tokens(), share=0.0),
    Case("TransformerEncoder", Encoder, tokens(), statistics=True),
    Case(
        "TransformerEncoder, norm first, gelu",
        lambda: Encoder(norm_first=True, activation="gelu"),
        tokens(),
        statistics=True,
    ),
    Case("TransformerDecoder", Coder, tokens(), statistics=True),
    Case("Llama block", Llama, lambda: (torch.randint(0, 20, (2, 5)),), statistics=True),
]
