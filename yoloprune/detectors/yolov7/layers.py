"""Layers of YOLOv7 and of the original YOLOv5, written from the papers and the published names and shapes.

Classes, attributes and constructors are named as checkpoints name them, so that state dicts and pickles fit. Wang,
Bochkovskiy and Liao, "YOLOv7: Trainable bag-of-freebies sets new state-of-the-art for real-time object detectors",
CVPR 2023; Ding et al., "RepVGG: Making VGG-style ConvNets great again", CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from yoloprune.graph.attributes import Shapes, attribute_handler

__all__ = [
    "C3",
    "MP",
    "SP",
    "SPP",
    "SPPCSPC",
    "SPPF",
    "Bottleneck",
    "Concat",
    "Conv",
    "DownC",
    "Focus",
    "ReOrg",
    "RepConv",
    "Shortcut",
]


def _activation(act: bool | nn.Module) -> nn.Module:
    if isinstance(act, nn.Module):
        return act
    return nn.SiLU() if act else nn.Identity()


class Conv(nn.Module):
    """Convolution, batch norm and activation.

    Args:
        c1: Input channels.
        c2: Output channels.
        k: Kernel size.
        s: Stride.
        p: Padding; None keeps the size at stride 1.
        g: Groups.
        act: True is SiLU, False none.
    """

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, groups=g, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(c2)
        self.act = _activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h / s, w / s)."""
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution."""
        if not isinstance(self.bn, nn.Identity):
            self.conv, self.bn = _folded(self.conv, self.bn), nn.Identity()


class RepConv(nn.Module):
    """A 3 x 3 and a 1 x 1 convolution, each with a batch norm, and one more where the width stays: RepVGG's block.

    `fuse` makes one 3 x 3 convolution of them.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        act: bool | nn.Module = True,
        deploy: bool = False,
    ) -> None:
        super().__init__()
        if k != 3 or p not in (None, 1):
            raise ValueError(f"RepConv is a 3 x 3 convolution with padding 1, not k={k} with p={p}")
        self.deploy, self.groups, self.in_channels, self.out_channels = deploy, g, c1, c2
        self.act = _activation(act)
        if deploy:
            self.rbr_reparam = nn.Conv2d(c1, c2, 3, s, 1, groups=g)
        else:
            self.rbr_identity = nn.BatchNorm2d(c1) if c1 == c2 and s == 1 else None
            self.rbr_dense = nn.Sequential(nn.Conv2d(c1, c2, 3, s, 1, groups=g, bias=False), nn.BatchNorm2d(c2))
            self.rbr_1x1 = nn.Sequential(nn.Conv2d(c1, c2, 1, s, groups=g, bias=False), nn.BatchNorm2d(c2))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h / s, w / s)."""
        if hasattr(self, "rbr_reparam"):
            return self.act(self.rbr_reparam(x))
        y = self.rbr_dense(x) + self.rbr_1x1(x)
        return self.act(y if self.rbr_identity is None else y + self.rbr_identity(x))

    def fuse(self) -> None:
        """Make one convolution of the branches."""
        if hasattr(self, "rbr_reparam"):
            return
        merged, pointwise = (_folded(branch[0], branch[1]) for branch in (self.rbr_dense, self.rbr_1x1))
        with torch.no_grad():
            merged.weight += F.pad(pointwise.weight, [1, 1, 1, 1])
            merged.bias += pointwise.bias
            if self.rbr_identity is not None:
                scale, shift = _affine(self.rbr_identity)
                rows = torch.arange(len(scale), device=scale.device)
                merged.weight[rows, rows % merged.weight.shape[1], 1, 1] += scale
                merged.bias += shift
        self.rbr_reparam, self.deploy = merged, True
        del self.rbr_dense, self.rbr_1x1, self.rbr_identity


def _folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """A convolution that does what `conv` and the batch norm behind it do in evaluation."""
    fused = fuse_conv_bn_eval(conv.eval(), norm.eval())
    return fused.requires_grad_(conv.weight.requires_grad)


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm in evaluation, each (channels,)."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return scale, norm.bias - norm.running_mean * scale


class MP(nn.Module):
    """Max pooling that halves the size."""

    def __init__(self, k: int = 2) -> None:
        super().__init__()
        self.m = nn.MaxPool2d(k, k)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h / k, w / k)."""
        return self.m(x)


class SP(nn.Module):
    """Max pooling that keeps the size."""

    def __init__(self, k: int = 3, s: int = 1) -> None:
        super().__init__()
        self.m = nn.MaxPool2d(k, s, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, h / s, w / s)."""
        return self.m(x)


class Concat(nn.Module):
    """Join feature maps, by default along channels."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Join them."""
        return torch.cat(list(x), self.d)


class Shortcut(nn.Module):
    """The sum of two feature maps."""

    def __init__(self, dimension: int = 0) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: Sequence[Tensor]) -> Tensor:
        """Add the second to the first, of the same shape."""
        return x[0] + x[1]


def _quarters(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, 4 c, h / 2, w / 2): even and odd rows, at even and then at odd columns."""
    return torch.cat([x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], 1)


class ReOrg(nn.Module):
    """Move 2 x 2 pixels into channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, 4 c, h / 2, w / 2)."""
        return _quarters(x)


class Focus(nn.Module):
    """2 x 2 pixels as channels, then a convolution."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None, g: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__()
        self.conv = Conv(c1 * 4, c2, k, s, p, g, act)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h / 2, w / 2)."""
        return self.conv(_quarters(x))


class DownC(nn.Module):
    """Halve the size by a convolution of stride 2 and, beside it, by pooling; each makes half of the channels."""

    def __init__(self, c1: int, c2: int, n: int = 1, k: int = 2) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c1, 1, 1)
        self.cv2 = Conv(c1, c2 // 2, 3, k)
        self.cv3 = Conv(c1, c2 // 2, 1, 1)
        self.mp = nn.MaxPool2d(k, k)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h / k, w / k)."""
        return torch.cat((self.cv2(self.cv1(x)), self.cv3(self.mp(x))), 1)


class SPPCSPC(nn.Module):
    """Spatial pyramid pooling on one branch of a cross-stage partial block."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = False,
        g: int = 1,
        e: float = 0.5,
        k: Sequence[int] = (5, 9, 13),
    ) -> None:
        super().__init__()
        hidden = int(2 * c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(c1, hidden, 1, 1)
        self.cv3 = Conv(hidden, hidden, 3, 1)
        self.cv4 = Conv(hidden, hidden, 1, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in k)
        self.cv5 = Conv((len(k) + 1) * hidden, hidden, 1, 1)
        self.cv6 = Conv(hidden, hidden, 3, 1)
        self.cv7 = Conv(2 * hidden, c2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h, w)."""
        y = self.cv4(self.cv3(self.cv1(x)))
        y = self.cv6(self.cv5(torch.cat([y] + [pool(y) for pool in self.m], 1)))
        return self.cv7(torch.cat((y, self.cv2(x)), 1))


class Bottleneck(nn.Module):
    """A 1 x 1 and a 3 x 3 convolution, added to their input where the width stays."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden, c2, 3, 1, g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h, w)."""
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """Cross-stage partial block with three convolutions and `n` bottlenecks."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(c1, hidden, 1, 1)
        self.cv3 = Conv(2 * hidden, c2, 1)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h, w)."""
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPP(nn.Module):
    """Spatial pyramid pooling."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden * (len(k) + 1), c2, 1, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h, w)."""
        x = self.cv1(x)
        return self.cv2(torch.cat([x] + [pool(x) for pool in self.m], 1))


class SPPF(nn.Module):
    """Spatial pyramid pooling by one small pooling three times in a row."""

    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden * 4, c2, 1, 1)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c1, h, w) -> (b, c2, h, w)."""
        x = self.cv1(x)
        once = self.m(x)
        twice = self.m(once)
        return self.cv2(torch.cat((x, once, twice, self.m(twice)), 1))


@attribute_handler(RepConv)
def _rep_conv(module: RepConv, old: Shapes) -> None:
    conv = module.rbr_reparam if hasattr(module, "rbr_reparam") else module.rbr_dense[0]
    module.in_channels, module.out_channels, module.groups = conv.in_channels, conv.out_channels, conv.groups
