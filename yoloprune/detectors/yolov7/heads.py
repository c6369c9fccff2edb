"""The anchor-based heads of YOLOv7 and of the original YOLOv5, and how their outputs become boxes.

IDetect's implicit knowledge is of Wang, Yeh and Liao, "You only learn one representation", 2021; the lead and auxiliary
heads of IAuxDetect are of YOLOv7's paper, section 4.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yoloprune.graph.attributes import Shapes, attribute_handler

__all__ = ["Detect", "IAuxDetect", "IDetect", "ImplicitA", "ImplicitM", "decode", "scores"]


def decode(raw: Sequence[Tensor], anchors: Tensor, strides: Iterable[float]) -> Tensor:
    """Boxes and probabilities of the head's raw outputs.

    Args:
        raw: One (b, anchors, ny, nx, 5 + nc) a scale.
        anchors: (scales, anchors, 2), in cells.
        strides: Of each scale, in px.

    Returns:
        (b, n, 5 + nc): x, y, w, h in px, objectness and class probabilities; scale by scale, and in each anchor by
        anchor, row by row.
    """
    out = []
    for x, sizes, stride in zip(raw, anchors, strides, strict=True):
        b, na, ny, nx, no = x.shape
        y = x.sigmoid()
        rows = torch.arange(ny, device=x.device, dtype=x.dtype).view(1, 1, ny, 1, 1)
        columns = torch.arange(nx, device=x.device, dtype=x.dtype).view(1, 1, 1, nx, 1)
        corner = torch.cat((columns.expand(1, 1, ny, nx, 1), rows.expand(1, 1, ny, nx, 1)), 4)
        xy = (y[..., 0:2] * 2 - 0.5 + corner) * float(stride)
        wh = (y[..., 2:4] * 2) ** 2 * (sizes.to(x.dtype) * float(stride)).view(1, na, 1, 1, 2)
        out.append(torch.cat((xy, wh, y[..., 4:]), 4).reshape(b, na * ny * nx, no))
    return torch.cat(out, 1)


def scores(decoded: Tensor) -> Tensor:
    """What `decode` returns, in the layout of later heads.

    Args:
        decoded: (b, n, 5 + nc).

    Returns:
        (b, 4 + nc, n): x, y, w, h and each class's objectness x probability; for one class objectness alone.
    """
    objectness, classes = decoded[..., 4:5], decoded[..., 5:]
    return torch.cat((decoded[..., :4], objectness if classes.shape[-1] == 1 else objectness * classes), 2).transpose(
        1, 2
    )


class ImplicitA(nn.Module):
    """A learnt vector that is added to each pixel."""

    def __init__(self, channel: int, mean: float = 0.0, std: float = 0.02) -> None:
        super().__init__()
        self.channel, self.mean, self.std = channel, mean, std
        self.implicit = nn.Parameter(torch.zeros(1, channel, 1, 1))
        nn.init.normal_(self.implicit, mean, std)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channel, ny, nx) -> the same."""
        return self.implicit + x


class ImplicitM(nn.Module):
    """A learnt vector by which each pixel is multiplied."""

    def __init__(self, channel: int, mean: float = 1.0, std: float = 0.02) -> None:
        super().__init__()
        self.channel, self.mean, self.std = channel, mean, std
        self.implicit = nn.Parameter(torch.ones(1, channel, 1, 1))
        nn.init.normal_(self.implicit, mean, std)

    def forward(self, x: Tensor) -> Tensor:
        """(b, channel, ny, nx) -> the same."""
        return self.implicit * x


@attribute_handler(ImplicitA, ImplicitM, widths={"channel": ("implicit", 1)})
def _implicit(module: ImplicitA | ImplicitM, old: Shapes) -> None:
    module.channel = module.implicit.shape[1]


class Detect(nn.Module):
    """One 1 x 1 convolution a scale.

    In training it returns the raw outputs, one (b, anchors, ny, nx, 5 + nc) a scale; in evaluation (y, raw), where y is
    (b, 4 + nc, n) as `scores` makes it, or (b, n, 5 + nc) as `decode` does with `official`; with `export` y alone.

    Args:
        nc: Classes.
        anchors: Of each scale, widths and heights in px in turn.
        ch: Input channels of each scale.
        anchor_grid: Keep the anchors in px as a buffer too, as YOLOv7 does and YOLOv5 did up to its release 5.

    Attributes:
        stride: (scales,), in px; the network sets it.
        no: Outputs of an anchor.
        nl: Scales.
        na: Anchors of a scale.
        export: Whether evaluation returns y alone.
        official: Whether y is in the layout of the official code.
    """

    stride: Tensor
    anchors: Tensor
    export, official = False, False

    def __init__(
        self, nc: int = 80, anchors: Sequence[Sequence[float]] = (), ch: Sequence[int] = (), anchor_grid: bool = True
    ) -> None:
        super().__init__()
        self.nc, self.no = nc, nc + 5
        self.nl, self.na = len(anchors), len(anchors[0]) // 2
        self.stride = torch.ones(self.nl, device="cpu")
        sizes = torch.tensor(anchors, dtype=torch.float32).view(self.nl, -1, 2)
        self.register_buffer("anchors", sizes)
        if anchor_grid:
            self.register_buffer("anchor_grid", sizes.clone().view(self.nl, 1, -1, 1, 1, 2))
        self.m = nn.ModuleList(nn.Conv2d(width, self.no * self.na, 1) for width in ch)

    def forward(self, x: Sequence[Tensor]) -> list[Tensor] | Tensor | tuple[Tensor, list[Tensor]]:
        """What the mode asks for, of feature maps, one (b, c, ny, nx) a scale."""
        return self.finish(self.raw(x))

    def raw(self, x: Sequence[Tensor]) -> list[Tensor]:
        """Raw outputs of feature maps, one (b, c, ny, nx) a scale."""
        return [self.split(conv(feature)) for conv, feature in zip(self.m, x, strict=True)]

    def split(self, x: Tensor) -> Tensor:
        """(b, anchors * (5 + nc), ny, nx) -> (b, anchors, ny, nx, 5 + nc)."""
        b, _, ny, nx = x.shape
        return x.view(b, self.na, self.no, ny, nx).permute(0, 1, 3, 4, 2).contiguous()

    def finish(self, raw: list[Tensor]) -> list[Tensor] | Tensor | tuple[Tensor, list[Tensor]]:
        """What the mode asks for, of the raw outputs."""
        if self.training:
            return raw
        y = decode(raw, self.anchors, self.stride.tolist())
        y = y if self.official else scores(y)
        return y if self.export else (y, raw)

    def set_stride(self, stride: Tensor) -> None:
        """Take the strides and bring the anchors from px to cells."""
        self.stride = stride
        self.anchors /= stride.to(self.anchors).view(-1, 1, 1)

    def initialise_biases(self) -> None:
        """Biases with which training starts: 8 objects in an image of 640 px, classes equally likely."""
        for convs in (self.m, getattr(self, "m2", ())):
            for conv, stride in zip(convs, self.stride.tolist(), strict=False):
                with torch.no_grad():
                    bias = conv.bias.view(self.na, -1)
                    bias[:, 4] += math.log(8 / (640 / stride) ** 2)
                    bias[:, 5:] += math.log(0.6 / (self.nc - 0.99))

    def dense(self, output: Any) -> dict[str, Tensor]:
        """What a training is drawn to of a teacher's predictions, from what the head returned in either mode.

        Returns:
            Of the lead head, anchors of all scales behind one another: `scores` (b, classes, n), logits of objectness x
            probability (of objectness alone for one class), and `boxes` (b, 4, n) before the sigmoid.
        """
        raw = output[1] if isinstance(output, tuple) else output
        values = torch.cat([x.flatten(1, 3) for x in raw[: self.nl]], 1).float().mT
        boxes, objectness, classes = values[:, :4], values[:, 4:5], values[:, 5:]
        if self.nc == 1:
            return {"scores": objectness, "boxes": boxes}
        log = F.logsigmoid(objectness) + F.logsigmoid(classes)
        rest = (-torch.expm1(log)).clamp_min(torch.finfo(log.dtype).tiny)
        return {"scores": log - rest.log(), "boxes": boxes}

    @torch.no_grad()
    def refit(self, nc: int) -> None:
        """Give the head other classes, in place: boxes and objectness stay, outputs of classes start anew."""
        kept, no = 5, 5 + nc
        for convs in (self.m, getattr(self, "m2", ())):
            for place, old in enumerate(convs):
                new = nn.Conv2d(old.in_channels, no * self.na, 1).to(old.weight)
                for name in ("weight", "bias"):
                    was, now = (
                        getattr(conv, name).view(self.na, -1, *getattr(conv, name).shape[1:]) for conv in (old, new)
                    )
                    now[:, :kept] = was[:, :kept]
                new.bias.view(self.na, -1)[:, kept:] += math.log(0.6 / (nc - 0.99))
                convs[place] = new
        for place, old in enumerate(getattr(self, "im", ())):
            new = ImplicitM(no * self.na, old.mean, old.std).to(old.implicit)
            new.implicit.view(self.na, -1)[:, :kept] = old.implicit.view(self.na, -1)[:, :kept]
            self.im[place] = new
        self.nc, self.no = nc, no

    def fuse(self) -> None:
        """Fold what is around the convolutions into them."""


class IDetect(Detect):
    """A head with implicit knowledge: a vector added before, and one multiplied after each convolution.

    `fuse` folds both into the convolution; the vectors stay, neutral and unused, so that parameters are counted as
    published.
    """

    folded = False

    def __init__(
        self, nc: int = 80, anchors: Sequence[Sequence[float]] = (), ch: Sequence[int] = (), anchor_grid: bool = True
    ) -> None:
        scales = len(anchors)
        super().__init__(nc, anchors, ch[:scales], anchor_grid)
        if len(ch) > scales:
            self.m2 = nn.ModuleList(nn.Conv2d(width, self.no * self.na, 1) for width in ch[scales:])
        self.ia = nn.ModuleList(ImplicitA(width) for width in ch[:scales])
        self.im = nn.ModuleList(ImplicitM(self.no * self.na) for _ in range(scales))

    def raw(self, x: Sequence[Tensor]) -> list[Tensor]:
        """Raw outputs of feature maps, one (b, c, ny, nx) a scale."""
        if self.folded:
            return super().raw(x)
        return [
            self.split(im(conv(ia(feature)))) for ia, conv, im, feature in zip(self.ia, self.m, self.im, x, strict=True)
        ]

    @torch.no_grad()
    def fuse(self) -> None:
        """Fold the implicit knowledge into the convolutions."""
        if self.folded:
            return
        for ia, conv, im in zip(self.ia, self.m, self.im, strict=True):
            conv.bias += (conv.weight[:, :, 0, 0] @ ia.implicit.view(-1, 1)).view(-1)
            conv.bias *= im.implicit.view(-1)
            conv.weight *= im.implicit.view(-1, 1, 1, 1)
            ia.implicit.zero_()
            im.implicit.fill_(1)
        self.folded = True


class IAuxDetect(IDetect):
    """A lead head with implicit knowledge, and an auxiliary one on features of its own, for training alone.

    It takes 2 * nl feature maps; training returns raw outputs of the lead's scales and then of the auxiliary ones.
    """

    def forward(self, x: Sequence[Tensor]) -> list[Tensor] | Tensor | tuple[Tensor, list[Tensor]]:
        """What the mode asks for, of the lead's feature maps and then the auxiliary ones."""
        lead = self.raw(x[: self.nl])
        if self.export and not self.training:
            return self.finish(lead)
        # also in evaluation, as the official head does: so a trace of it finds that these layers follow
        auxiliary = [self.split(conv(feature)) for conv, feature in zip(self.m2, x[self.nl :], strict=True)]
        return lead + auxiliary if self.training else self.finish(lead)
