"""A family of detectors that only tests know: a tiny network and all that the interface asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from yoloprune.detectors.base import ClassLayers, Detector, Metrics, Part, Trained, Training
from yoloprune.errors import UserError

CLASSES = {0: "left", 1: "right"}


class Toy(nn.Module):
    """Says of each of 4 x 4 cells whether something bright is in its left or its right half."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(self.stem(images)))


def examples(number: int, imgsz: int, seed: int) -> dict[str, Tensor]:
    """Images with a bright bar in one half of a cell, and the cell's class; -1 elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    image, target = 0.2 * torch.rand(number, 3, imgsz, imgsz, generator=generator), torch.full((number, 4, 4), -1)
    cell = imgsz // 4
    for i in range(number):
        y, x, side = (int(torch.randint(n, (), generator=generator)) for n in (4, 4, 2))
        left = x * cell + side * cell // 2
        image[i, :, y * cell : (y + 1) * cell, left : left + cell // 2] += 0.7
        target[i, y, x] = side
    return {"img": image, "target": target}


def toy_loss(network: nn.Module, batch: dict[str, Any]) -> Tensor:
    """Binary cross-entropy of each cell and class."""
    logits, target = network(batch["img"]), batch["target"]
    wanted = torch.stack([(target == c).float() for c in CLASSES], 1)
    return F.binary_cross_entropy_with_logits(logits, wanted)


class ToyDetector(Detector):
    """The whole family; its data are the text "toy"."""

    family: ClassVar[str] = "toy"
    names: ClassVar[dict[int, str]] = CLASSES
    file: ClassVar[Path] = Path("toy.pt")

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    @classmethod
    def recognises(cls, weights: Path) -> bool:
        """The archive's first bytes are not asked, its name is."""
        return weights.name.startswith("toy") or weights.parent.name in ("steps", "1") or "toy" in str(weights.parent)

    @classmethod
    def load(cls, weights: str | Path, *, trust: bool = False) -> ToyDetector:
        """A state_dict and widths."""
        state = torch.load(weights, weights_only=True)
        network = Toy()
        for name, module in network.named_modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                weight = state[f"{name}.weight"]
                width = {"num_features": len(weight)} if weight.ndim == 1 else {"out_channels": len(weight)}
                vars(module).update(width)
                for key in (*module._parameters, *module._buffers):
                    value = state[f"{name}.{key}"]
                    value = value.float() if value.is_floating_point() else value
                    setattr(module, key, nn.Parameter(value) if key in module._parameters else value)
                if weight.ndim == 4:
                    module.in_channels = weight.shape[1]
        return cls(network.eval())

    def save(self, path: Path, *, float32: bool = False) -> str | None:
        """As `load` reads it."""
        state = {
            n: t if float32 or not t.is_floating_point() else t.half() for n, t in self.network.state_dict().items()
        }
        torch.save(state, path)
        return None

    def holding(self, network: nn.Module) -> ToyDetector:
        return ToyDetector(network)

    def parts(self) -> list[Part]:
        return [Part("backbone", ["stem", "body"]), Part("head", ["head"])]

    def class_layers(self) -> ClassLayers:
        return ClassLayers(["head"])

    def check_data(
        self, data: str, *, split: str = "val", labels: bool = True, same_classes: bool = False
    ) -> dict[int, str] | None:
        if data != "toy":
            raise UserError(f"'{data}' is no toy.")
        return CLASSES

    def split_sizes(self, data: str, keywords: Any) -> tuple[int, int]:
        return 64, 64

    def calibration_batches(
        self, data: str, *, images: int, imgsz: int, batch: int | float, device: torch.device
    ) -> list[dict[str, Any]]:
        return [examples(min(images, 16), imgsz, seed) for seed in range(max(images // 16, 3))]

    def training_loss(self, keywords: Any) -> Any:
        return toy_loss

    def train(self, start: Path, folder: Path, training: Training) -> Trained:
        detector = self.load(start)
        optimizer = torch.optim.Adam(detector.network.parameters(), lr=training.keywords.get("lr0", 1e-2))
        detector.network.train()
        for step in range(20 * training.epochs):
            optimizer.zero_grad()
            toy_loss(detector.network, examples(16, training.imgsz, 100 + step)).backward()
            optimizer.step()
        detector.network.eval()
        return Trained(detector, training.epochs, {})

    def validate(self, data: str, *, imgsz: int = 64, **options: Any) -> Metrics:
        batch = examples(64, imgsz, 10**6)
        with torch.no_grad():
            scores = self.network(batch["img"])
        found = (batch["target"] >= 0).nonzero(as_tuple=True)
        right = scores.argmax(1)[found] == batch["target"][found]
        return Metrics(float(right.float().mean()), float(right.float().mean()), images=64)
