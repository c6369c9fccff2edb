"""A family that nobody but this file knows goes through the whole pipeline: the interface is all that it needs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import yoloprune
from yoloprune import detectors
from yoloprune.detectors.base import ClassLayers, Detector, Metrics, Part, Trained, Training
from yoloprune.errors import UserError
from yoloprune.report import Record

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


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained checkpoint, and the one line in the registry."""
    monkeypatch.setattr(detectors, "FAMILIES", [f"{__name__}:ToyDetector", *detectors.FAMILIES])
    start = tmp_path / "toy.pt"
    ToyDetector(Toy()).save(start, float32=True)
    asked = Training(data="toy", epochs=8, imgsz=64, batch=16, device="cpu", seed=0, instead="")
    ToyDetector(Toy()).train(start, tmp_path, asked).detector.save(start, float32=True)
    return start


def test_it_is_pruned_recovered_fine_tuned_validated_and_reported(toy: Path, tmp_path: Path) -> None:
    own = detectors.load(toy)
    before = copy.deepcopy(own.network.state_dict())
    result = yoloprune.prune(
        toy, target_ratio=0.5, data="toy", imgsz=64, epochs=2, val=True, round_to=1, device="cpu",
        project=tmp_path / "toys", name="toy",
    )  # fmt: skip
    assert all(torch.equal(before[name], tensor) for name, tensor in own.network.state_dict().items())
    assert result.model.network.stem[0].out_channels < 16 or result.model.network.body[0].out_channels < 32
    assert result.report.after.gflops <= 0.5 * result.report.before.gflops
    assert result.metrics["before"]["mAP50-95"] > 0.9
    assert result.metrics["after"]["mAP50-95"] > 0.8
    record = Record.load(tmp_path / "toys" / "toy" / "results.json")
    assert record.family == "toy" and record.finished
    assert (tmp_path / "toys" / "toy" / "report.html").is_file()
    again = yoloprune.load(tmp_path / "toys" / "toy" / "pruned.pt")
    assert again.network.body[0].out_channels == result.model.network.body[0].out_channels


def test_recovery_alone_keeps_most(toy: Path) -> None:
    common = {"target_ratio": 0.5, "data": "toy", "imgsz": 64, "val": True, "round_to": 1, "device": "cpu"}
    recovered = yoloprune.prune(toy, **common)
    bare = yoloprune.prune(toy, **common, recover=False)
    assert recovered.metrics["after"]["mAP50-95"] >= bare.metrics["after"]["mAP50-95"]


def test_what_the_family_lacks_is_said(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no toy"):
        yoloprune.prune(toy, target_ratio=0.5, data="coco8.yaml", imgsz=64)
    result = yoloprune.prune(toy, target_ratio=0.5, data="toy", imgsz=64, round_to=1, device="cpu")
    with pytest.raises(UserError, match="There is no export for toy yet"):
        result.export("onnx", tmp_path / "toy.onnx")
