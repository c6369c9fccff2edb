"""Official checkpoints are read without running what they name, in each way in which they were ever written."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.small_yolo import equal
from yoloprune import detectors
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.yolov7 import pickles
from yoloprune.detectors.yolov7.detector import YOLOv7Detector
from yoloprune.detectors.yolov7.network import Network
from yoloprune.errors import UserError

from .official_files import fresh, write
from .references import assert_digest, reference, rule

FILES = [
    ("yolov7-tiny", "deploy", True),
    ("yolov7-tiny", "training", False),
    ("yolov7", "training", True),
    ("yolov7-w6", "training", True),
    ("yolov5n", "deploy", False),
]


@pytest.fixture
def tiny() -> Network:
    """A narrow yolov7-tiny of three classes."""
    return fresh("yolov7-tiny", nc=3, width=0.25)


@pytest.mark.parametrize(("name", "form", "zipped"), FILES)
def test_a_file_of_the_official_layout_is_the_network_it_was_made_of(
    name: str, form: str, zipped: bool, tmp_path: Path
) -> None:
    network = fresh(name, form, nc=3, width=0.125)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes without a source, which the old format writes down
        path = write(network, tmp_path / "old.pt", zipped=zipped)
    detector = detectors.load(path)
    assert isinstance(detector, YOLOv7Detector)
    assert detector.family == ("v5" if name == "yolov5n" else "v7")
    assert equal(detector.network, network.half().float())
    assert detector.network.save == network.save
    assert [type(layer) for layer in detector.network.model] == [type(layer) for layer in network.model]
    x = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(detector.network(x)[0], network(x)[0])


def test_the_published_yolov5n(shared: Path) -> None:
    detector = detectors.load(shared / "weights" / "yolov5n-official.pt")
    known = reference("yolov5n")
    assert (detector.family, detector.params, detector.names[79]) == ("v5", 1_872_157, "toothbrush")
    assert {name: list(t.shape) for name, t in detector.network.state_dict().items()} == known["keys"]
    network = detector.network.double()
    network.head.official = True
    with torch.no_grad():
        decoded, raw = network(rule().image(known["size"]))
    assert_digest(decoded, known["decoded"])
    for found, expected in zip(raw, known["raw"], strict=True):
        assert_digest(found, expected)


def test_an_unfinished_training_gives_its_averages(tiny: Network, tmp_path: Path) -> None:
    averages = fresh("yolov7-tiny", nc=3, width=0.25)
    with torch.no_grad():
        averages.model[0].conv.weight += 1
    from .official_files import official, scripts

    with scripts() as made:
        momentum = {"state": {0: {"momentum_buffer": torch.rand(3)}}, "param_groups": [{"lr": 0.01, "params": [0]}]}
        checkpoint = {
            "epoch": 7,
            "best_fitness": np.array([0.25]),
            "training_results": " 7/299 3.1G",
            "model": official(tiny, made).half(),
            "ema": official(averages, made).half(),
            "updates": 800,
            "optimizer": momentum,
            "opt": {"imgsz": 416, "weights": "yolov7-tiny.pt"},
            "fitness": np.float64(0.25),
        }
        torch.save(checkpoint, tmp_path / "best.pt")
    detector = detectors.load(tmp_path / "best.pt")
    assert equal(detector.network, averages.half().float())
    assert detector.trained_imgsz == 416


def test_networks_of_four_scales_are_used_at_the_size_they_were_trained_at(tmp_path: Path) -> None:
    path = write(fresh("yolov7-w6", nc=3, width=0.125), tmp_path / "w6.pt")
    assert detectors.load(path).trained_imgsz == 1280


@pytest.mark.parametrize("kind", [nn.Hardswish, nn.LeakyReLU, nn.ReLU])
def test_other_activations(kind: type[nn.Module], tiny: Network, tmp_path: Path) -> None:
    tiny.model[0].act = kind()
    loaded = detectors.load(write(tiny, tmp_path / "old.pt", half=False)).network
    assert type(loaded.model[0].act) is kind
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x)[0], tiny(x)[0])


def test_one_activation_for_all_layers(tiny: Network, tmp_path: Path) -> None:
    shared = nn.SiLU()
    for module in tiny.modules():
        if hasattr(module, "act"):
            module.act = shared
    loaded = detectors.load(write(tiny, tmp_path / "old.pt", half=False)).network
    assert equal(loaded, tiny) and isinstance(loaded.model[5].act, nn.SiLU)


def test_a_model_without_names_or_description(tiny: Network, tmp_path: Path) -> None:
    def bare(old: nn.Module) -> None:
        del old.names, old.yaml, old.nc, old.stride

    detector = detectors.load(write(tiny, tmp_path / "old.pt", change=bare))
    assert detector.names == {0: "0", 1: "1", 2: "2"}
    assert [part.name for part in detector.parts()] == ["neck", "head"]


class _Evil:
    def __reduce__(self) -> tuple:
        return (eval, ("__import__('pathlib').Path('ran').touch()",))


def test_an_unknown_global_is_refused_by_name(tiny: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tiny, tmp_path / "evil.pt", best_fitness=_Evil())
    for trust in (False, True):
        with pytest.raises(UserError, match=r"evil\.pt' names 'builtins\.eval', which is no part of a YOLOv7"):
            detectors.load(path, trust=trust)
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "name", ["models.common.autoShape", "models.experimental.Ensemble", "torch.nn.modules.linear.Linear"]
)
def test_modules_of_no_detector_are_refused_by_name(name: str, tiny: Network, tmp_path: Path) -> None:
    from .official_files import named, official, scripts

    with scripts() as made:
        old = official(tiny, made)
        old.model[0].act = nn.Linear(2, 2) if name.startswith("torch.") else named(made, name)()
        torch.save({"model": old}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=f"names '{name}', which is no part of a YOLOv7 or YOLOv5 detector"):
        detectors.load(tmp_path / "x.pt")


OTHERS = {
    "models.yolo.ClassificationModel": "is a classifier of the YOLOv5 or YOLOv7 repository",
    "models.yolo.Segment": "is a segmenter of the YOLOv5 or YOLOv7 repository",
    "models.yolo.IKeypoint": "is a pose estimator of the YOLOv5 or YOLOv7 repository",
    "models.common.RepNCSPELAN4": "is a checkpoint of the original YOLOv9 repository",
    "models.yolo.DDetect": "is a checkpoint of the original YOLOv9 repository",
}


@pytest.mark.parametrize(("name", "said"), OTHERS.items())
def test_pickles_of_the_same_layout_that_hold_something_else(name: str, said: str, tmp_path: Path) -> None:
    from .official_files import named, scripts

    with scripts() as made:
        torch.save({"model": named(made, name)(), "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=said):
        detectors.load(tmp_path / "x.pt")


def test_files_of_other_kinds_say_what_they_are(tiny: Network, tmp_path: Path) -> None:
    torch.save({"model": tiny.state_dict(), "start_epoch": 3, "optimizer": {}}, tmp_path / "yolox.pt")
    torch.jit.script(nn.ReLU()).save(tmp_path / "script.pt")
    for file, said in (("yolox.pt", "a state_dict alone is not enough"), ("script.pt", "is a TorchScript archive")):
        assert not pickles.recognises(tmp_path / file)
        with pytest.raises(UserError, match=said):
            detectors.load(tmp_path / file)


def _without_norm(old: nn.Module) -> None:
    del old.model[0].bn


def _holding_itself(old: nn.Module) -> None:
    old.model[0].act = old.model[0]


def _wrong_widths(old: nn.Module) -> None:
    old.model[3].conv.weight = nn.Parameter(old.model[3].conv.weight[:, :4])


def _forward_reference(old: nn.Module) -> None:
    old.model[2].f = 70


def _huge(old: nn.Module) -> None:
    next(m for m in old.modules() if isinstance(m, nn.Upsample)).scale_factor = 1e6


def _no_head(old: nn.Module) -> None:
    old.model = old.model[:-1]


BROKEN = {
    _without_norm: "is fused",
    _holding_itself: "is truncated or damaged",
    _wrong_widths: "does not run",
    _forward_reference: "is truncated or damaged",
    _huge: "is truncated or damaged",
    _no_head: "is truncated or damaged",
}


@pytest.mark.parametrize(("change", "said"), BROKEN.items())
def test_networks_that_cannot_be(change: object, said: str, tiny: Network, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        detectors.load(write(tiny, tmp_path / "x.pt", change=change))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_files(share: float, zipped: bool, tiny: Network, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = write(tiny, tmp_path / "x.pt", zipped=zipped).read_bytes()
    (tmp_path / "x.pt").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UserError, match=r"truncated or damaged|is not a PyTorch checkpoint|before PyTorch 1\.6"):
        detectors.load(tmp_path / "x.pt")


def test_tensors_of_the_old_format_are_no_larger_than_the_file(tiny: Network, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write(tiny, tmp_path / "x.pt", zipped=False)
    content = path.read_bytes()
    count = len(tiny.model[0].conv.weight.flatten())
    at = content.index(b"cpuq", content.index(b"HalfStorage"))
    numbers = content[at : at + 20]
    assert bytes([count & 255]) in numbers
    number = content.index(b"M" + count.to_bytes(2, "little"), at) if count > 255 else content.index(b"K", at)
    wide = b"J" + (2**30).to_bytes(4, "little")
    old = content[number : number + (3 if count > 255 else 2)]
    path.write_bytes(content[:number] + wide + content[number + len(old) :])
    with pytest.raises(UserError, match="truncated or damaged"):
        detectors.load(path)


def test_all_other_files_are_left_to_ultralytics(tmp_path: Path, coco_weights: Path) -> None:
    assert not pickles.recognises(coco_weights)
    assert not pickles.recognises(tmp_path / "missing.pt")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"a": 1}))
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("x", b"models.yolo")
    for name in ("empty.pt", "pickle.pt", "zip.pt"):
        assert not pickles.recognises(tmp_path / name)
        with pytest.raises(UserError):
            detectors.load(tmp_path / name)
    assert isinstance(detectors.load(coco_weights), UltralyticsDetector)
