"""YOLOv8 as torch-pruning can prune it."""

from __future__ import annotations

import torch
from torch import nn
from ultralytics.nn.modules import Bottleneck, C2f, Conv

__all__ = ["replace_c2f"]


class C2fTwoConvolutions(nn.Module):
    """C2f with its split first convolution as two, which is what torch-pruning's YOLOv8 example calls C2f_v2."""

    def __init__(self, c2f: C2f) -> None:
        super().__init__()
        c, first = c2f.c, c2f.cv1.conv
        self.cv0 = Conv(first.in_channels, c, 1, 1)
        self.cv1 = Conv(first.in_channels, c, 1, 1)
        self.cv2, self.m = c2f.cv2, c2f.m
        self.f, self.i, self.type = c2f.f, c2f.i, c2f.type  # where Ultralytics' graph puts the layer
        whole = c2f.cv1.state_dict()
        for half, part in ((self.cv0, slice(0, c)), (self.cv1, slice(c, None))):
            half.load_state_dict({name: value[part] if value.ndim else value for name, value in whole.items()})
            half.bn.eps, half.bn.momentum = c2f.cv1.bn.eps, c2f.cv1.bn.momentum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As C2f, (N, c1, H, W) to (N, c2, H, W)."""
        y = [self.cv0(x), self.cv1(x)]
        y.extend(block(y[-1]) for block in self.m)
        return self.cv2(torch.cat(y, 1))


def replace_c2f(module: nn.Module) -> None:
    """Replace every C2f below `module` in place."""
    for name, child in module.named_children():
        if isinstance(child, C2f):
            setattr(module, name, C2fTwoConvolutions(child))
        elif not isinstance(child, Bottleneck):
            replace_c2f(child)
