"""The paper's architectures, small; `width` scales them all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import DenseNet, MobileNetV2, VisionTransformer
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.vgg import make_layers

__all__ = ["BUILDERS"]

_CLASSES = 10


class _Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.b = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity()
        if inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_b(self.b(self.norm_a(self.a(x)).relu()))
        return (y + self.shortcut(x)).relu()


def _head(features: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, _CLASSES))


def resnet56(width: int) -> nn.Module:
    """Three stages of nine blocks, as for CIFAR, with `width` channels at first (the paper: 16)."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for stage in range(3):
        outputs = width * 2**stage
        for block in range(9):
            layers.append(_Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    return _head(nn.Sequential(*layers), inputs)


def vgg19(width: int) -> nn.Module:
    """VGG-19 with batch norm and one linear layer, as for CIFAR, with `width` channels at first (64)."""
    times = [1, 1, "M", 2, 2, "M", 4, 4, 4, 4, "M", 8, 8, 8, 8, "M", 8, 8, 8, 8]
    layers = make_layers([t if t == "M" else t * width for t in times], batch_norm=True)
    return _head(layers, 8 * width)


def densenet(width: int) -> nn.Module:
    """DenseNet with three blocks of six layers and growth `width` (DenseNet-121: 6, 12, 24, 16 layers, growth 32)."""
    return DenseNet(width, (6, 6, 6), num_init_features=2 * width, bn_size=2, num_classes=_CLASSES)


def mobilenet(width: int) -> nn.Module:
    """MobileNet v2 with fewer strides and `width` channels at first (32)."""
    expansion, channels = (1, 6, 6, 6, 6, 6, 6), (16, 24, 32, 64, 96, 160, 320)
    repeats, strides = (1, 2, 3, 4, 3, 3, 1), (1, 1, 2, 1, 1, 2, 1)
    setting = [list(row) for row in zip(expansion, channels, repeats, strides, strict=True)]
    model = MobileNetV2(_CLASSES, width / 32, setting, round_nearest=2)
    model.classifier[0] = nn.Identity()  # the dropout that small networks do without
    return model


def googlenet(width: int) -> nn.Module:
    """The nine inceptions of GoogLeNet behind one convolution, with `width` channels there (192)."""
    rows = [
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
        "M",
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
        "M",
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    ]
    layers: list[nn.Module] = [BasicConv2d(3, width, kernel_size=3, padding=1), nn.MaxPool2d(2)]
    inputs = width
    for row in rows:
        if row == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        ones, reduce_3, threes, reduce_5, fives, pooled = (max(2, channels * width // 192) for channels in row)
        layers.append(Inception(inputs, ones, reduce_3, threes, reduce_5, fives, pooled))
        inputs = ones + threes + fives + pooled
    return _head(nn.Sequential(*layers), inputs)


def vit(width: int, size: int) -> nn.Module:
    """ViT with four layers, four heads, 16 patches and `width` channels (ViT-B/16: 12, 12, 196, 768)."""
    return VisionTransformer(size, size // 4, 4, 4, width, 2 * width, num_classes=_CLASSES)


class Recurrent(nn.Module):
    """Embedding, two LSTM layers and a classifier of the states' mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2000, width)
        self.lstm = nn.LSTM(width, width, 2, batch_first=True)
        self.head = nn.Linear(width, 4)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.lstm(self.embedding(words))[0].mean(1))


def gat(width: int, features: int, classes: int) -> nn.Module:
    """Three layers of graph attention with four heads and `width` channels (the paper: 4 heads of 256)."""
    from torch_geometric.nn import GAT  # here, so that the other models do without it

    return GAT(features, width, num_layers=3, out_channels=classes, heads=4)


class PointCloud(nn.Module):
    """DGCNN: three layers on edges to the nearest neighbours, which are sought anew before each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = ((3, width), (width, width), (width, 2 * width))
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2 * i, o, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.2)) for i, o in sizes
        )
        self.join = nn.Sequential(
            nn.Conv1d(4 * width, 8 * width, 1, bias=False), nn.BatchNorm1d(8 * width), nn.LeakyReLU(0.2)
        )
        self.head = nn.Sequential(
            nn.Linear(16 * width, 4 * width), nn.BatchNorm1d(4 * width), nn.ReLU(), nn.Linear(4 * width, _CLASSES)
        )

    @staticmethod
    def _edges(x: Tensor, neighbours: int = 8) -> Tensor:
        """For each point the difference to each neighbour, and itself: (batch, 2 · channels, points, neighbours)."""
        batch, _, points = x.shape
        square = x.square().sum(1, keepdim=True)
        nearest = (2 * x.transpose(2, 1) @ x - square - square.transpose(2, 1)).topk(neighbours, -1)[1]
        nearest = nearest + torch.arange(batch, device=x.device)[:, None, None] * points
        x = x.transpose(2, 1)
        near = x.flatten(0, 1)[nearest.flatten()].view(batch, points, neighbours, -1)
        x = x[:, :, None].expand(-1, -1, neighbours, -1)
        return torch.cat([near - x, x], -1).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for layer in self.layers:
            x = layer(self._edges(x)).amax(-1)
            found.append(x)
        x = self.join(torch.cat(found, 1))
        pooled = [F.adaptive_max_pool1d(x, 1), F.adaptive_avg_pool1d(x, 1)]
        return self.head(torch.cat(pooled, 1).flatten(1))


BUILDERS: dict[str, Callable[[float, int], nn.Module]] = {
    "ResNet-56": lambda scale, size: resnet56(round(16 * scale)),
    "VGG-19-BN": lambda scale, size: vgg19(round(16 * scale)),
    "DenseNet": lambda scale, size: densenet(round(16 * scale)),
    "MobileNet v2": lambda scale, size: mobilenet(round(16 * scale)),
    "GoogLeNet": lambda scale, size: googlenet(round(48 * scale)),
    "ViT": lambda scale, size: vit(round(96 * scale), size),
    "LSTM": lambda scale, size: Recurrent(round(128 * scale)),
    "DGCNN": lambda scale, size: PointCloud(round(48 * scale)),
    "GAT, karate": lambda scale, size: gat(round(128 * scale), 34, 4),
    "GAT, digits": lambda scale, size: gat(round(128 * scale), 64, _CLASSES),
}
"""Name -> function of a factor on the width and of the images' size."""
