"""Loading runs nothing from the file and says what is wrong; saved files open in stock Ultralytics."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from torch import nn

from tests.small_yolo import narrow, shapes, write_data
from yoloprune.detectors import family_title
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.families import network_family
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.stock_training import SENTENCE, block_stock_training, is_marked, is_pruned
from yoloprune.errors import UserError


class Creates:
    """Unpickling this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class Foreign(nn.Module):
    """A layer that neither Ultralytics nor torch has."""


@pytest.fixture
def saved(pruned_yolo: YOLO, tmp_path: Path) -> Path:
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    return tmp_path / "pruned.pt"


def test_round_trip(pruned_yolo: YOLO, saved: Path) -> None:
    loaded = checkpoints.load(saved)
    assert type(loaded) is YOLO
    assert isinstance(loaded, ultralytics.YOLO)
    assert loaded.task == "detect"
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert shapes(loaded.model) == shapes(pruned_yolo.model)
    for name, tensor in pruned_yolo.model.state_dict().items():
        torch.testing.assert_close(loaded.model.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_saving_changes_nothing_in_memory(pruned_yolo: YOLO, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in pruned_yolo.model.state_dict().items()}
    checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    assert not is_marked(pruned_yolo.model)
    after = pruned_yolo.model.state_dict()
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in before.items()
    )
    assert [file.name for file in tmp_path.iterdir()] == ["pruned.pt"]


def test_the_file_is_a_stock_checkpoint(saved: Path, tmp_path: Path) -> None:
    checkpoint, _ = ultralytics.nn.tasks.torch_safe_load(str(saved), safe_only=True)
    stock = ultralytics.YOLO("yolov8n.yaml")
    stock.save(tmp_path / "stock.pt")
    reference = torch.load(tmp_path / "stock.pt", weights_only=False)
    assert set(reference) <= set(checkpoint) | {"modelopt"}
    assert checkpoint["epoch"] == -1
    assert checkpoint["ema"] is None
    assert checkpoint["train_args"]["task"] == "detect"
    assert {p.dtype for p in checkpoint["model"].parameters()} == {torch.float16}
    named = torch.serialization.get_unsafe_globals_in_checkpoint(saved)
    assert all(re.match(r"(torch|ultralytics|builtins)\.", name) for name in named), named


def test_only_pruned_networks_are_marked(tmp_path: Path) -> None:
    with quiet():
        yolo = YOLO("yolov8n.yaml")
    checkpoints.save(yolo, tmp_path / "full.pt")
    assert not is_marked(checkpoints.load(tmp_path / "full.pt").model)


def test_the_mark_leaves_the_original_rows(pruned_yolo: YOLO) -> None:
    rows = list(pruned_yolo.model.yaml["backbone"])
    block_stock_training(pruned_yolo.model)
    block_stock_training(pruned_yolo.model)
    assert pruned_yolo.model.yaml["backbone"] == [[-1, 1, SENTENCE, []], *rows]


def test_stock_world_training_stops_although_it_builds_from_a_file_name() -> None:
    with quiet():
        yolo = YOLO("yolov8n-worldv2.yaml")
    narrow(yolo.model)
    block_stock_training(yolo.model)
    with pytest.raises(FileNotFoundError, match="pruned, train it with yoloprune"):
        ultralytics.nn.tasks.WorldModel(yolo.model.yaml["yaml_file"])


def test_foreign_classes_are_not_saved(pruned_yolo: YOLO, tmp_path: Path) -> None:
    pruned_yolo.model.extra = Foreign()
    with pytest.raises(UserError, match=r"test_checkpoints\.Foreign, which is no class of Ultralytics or torch"):
        checkpoints.save(pruned_yolo, tmp_path / "pruned.pt")
    assert not list(tmp_path.iterdir())


STOCK = """
import builtins, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "yoloprune":
            raise ImportError("yoloprune is not on this machine")
sys.meta_path.insert(0, Blocker())
import torch, ultralytics
from ultralytics import YOLO
weights, data, folder = sys.argv[1:]
model = YOLO(weights)
model.info()
result = model.predict(ultralytics.utils.ASSETS / "bus.jpg", imgsz=64, device="cpu", verbose=False)
assert len(result) == 1
metrics = model.val(data=data, imgsz=64, batch=2, device="cpu", workers=0, plots=False, project=folder, verbose=False)
assert 0 <= metrics.box.map <= 1
exported = model.export(format="onnx", imgsz=64, device="cpu")
try:
    model.train(data=data, epochs=1, imgsz=64, device="cpu", project=folder, plots=False)
except KeyError as error:
    print("REFUSED", error)
print("EXPORTED", exported, model.model.model[2].m[0].cv1.conv.out_channels)
assert not any(name.partition(".")[0] == "yoloprune" for name in sys.modules)
"""


@pytest.mark.parametrize("safe", ["0", "1"])
def test_stock_ultralytics_without_yoloprune(saved: Path, tiny_data: Path, tmp_path: Path, safe: str) -> None:
    environment = {**os.environ, "ULTRALYTICS_SAFE_LOAD": safe, "PYTHONPATH": ""}
    command = [sys.executable, "-c", STOCK, str(saved), str(tiny_data), str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"REFUSED '{SENTENCE}'" in done.stdout
    assert f"EXPORTED {saved.with_suffix('.onnx')} 10" in done.stdout


def _truncated(path: Path, saved: Path) -> None:
    path.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])


def _damaged(path: Path, saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(b ^ 255 for b in content[middle : middle + 100])
    path.write_bytes(content)


def _photograph(path: Path, saved: Path) -> None:
    path.write_bytes((ultralytics.utils.ASSETS / "bus.jpg").read_bytes())


def _state_dict(path: Path, saved: Path) -> None:
    torch.save(checkpoints.load(saved).model.state_dict(), path)


def _pickle(path: Path, saved: Path) -> None:
    path.write_bytes(pickle.dumps({"model": [1, 2, 3]}))


def _other_network(path: Path, saved: Path) -> None:
    torch.save({"model": nn.Conv2d(1, 1, 1)}, path)


def _torchscript(path: Path, saved: Path) -> None:
    torch.jit.trace(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)).save(str(path))


def _archive(path: Path, saved: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path, saved: None, "There is no file"),
        (lambda path, saved: path.mkdir(), "is a directory"),
        (lambda path, saved: path.touch(), "is empty"),
        (_truncated, "is truncated or damaged"),
        (_damaged, "is truncated or damaged"),
        (_photograph, "is not a PyTorch checkpoint"),
        (_pickle, "is not a PyTorch checkpoint"),
        (_archive, "is a zip archive but not a PyTorch checkpoint"),
        (_state_dict, "holds no Ultralytics model"),
        (_other_network, "holds no Ultralytics model"),
        (lambda path, saved: torch.save([1, 2], path), "holds no Ultralytics model"),
        (_torchscript, "is a TorchScript archive"),
    ],
)
def test_bad_files(make: Callable[[Path, Path], None], message: str, trust: bool, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.pt"
    make(path, saved)
    with pytest.raises(UserError, match=message) as error:
        checkpoints.load(path, trust=trust)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_other_suffixes_are_refused(saved: Path) -> None:
    with pytest.raises(UserError, match=r"does not end in \.pt"):
        checkpoints.load(saved.rename(saved.with_suffix(".pth")))


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_of_a_malicious_file_runs(tmp_path: Path, zipped: bool) -> None:
    made = tmp_path / "made"
    path = tmp_path / "evil.pt"
    torch.save({"model": Creates(made)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="--trust") as error:
        checkpoints.load(path)
    assert not made.exists()
    if zipped:  # of the older layout only the name of the file is known before it is read
        assert "posix.mkdir" in str(error.value)
    with pytest.raises(UserError, match="holds no Ultralytics model"):
        checkpoints.load(path, trust=True)
    assert made.exists(), "the file would have run code, had it been trusted"


def test_an_activation_is_not_evaluated(pruned_yolo: YOLO, tmp_path: Path) -> None:
    made = tmp_path / "made"
    pruned_yolo.model.yaml["activation"] = f"__import__('os').mkdir({str(made)!r})"
    checkpoints.save(pruned_yolo, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="activation"):
        checkpoints.load(tmp_path / "evil.pt")
    assert not made.exists()


def test_rows_that_name_functions_are_refused(pruned_yolo: YOLO, tmp_path: Path) -> None:
    pruned_yolo.model.yaml["head"].append([-1, 1, "check_requirements", ["anything"]])
    checkpoints.save(pruned_yolo, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="check_requirements"):
        checkpoints.load(tmp_path / "evil.pt")


def test_a_missing_module_is_named_and_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("somebodys_layers")
    module.Layer = type("Layer", (nn.Module,), {"__module__": "somebodys_layers"})
    monkeypatch.setitem(sys.modules, "somebodys_layers", module)
    torch.save({"model": module.Layer()}, tmp_path / "custom.pt")
    monkeypatch.delitem(sys.modules, "somebodys_layers")
    monkeypatch.setattr(ultralytics.utils.checks.subprocess, "check_output", pytest.fail)
    with pytest.raises(UserError, match=r"somebodys_layers\.Layer.*--trust"):
        checkpoints.load(tmp_path / "custom.pt")
    with pytest.raises(UserError, match="'somebodys_layers', which is not installed"):
        checkpoints.load(tmp_path / "custom.pt", trust=True)


def test_names_that_ultralytics_rewrites_are_taken_literally(saved: Path) -> None:
    path = saved.rename(saved.with_name("yolov5n.pt"))  # Ultralytics would download yolov5nu.pt
    assert is_pruned(checkpoints.load(path).model)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("yolov3-tiny.yaml", "v3"),
        ("yolov5n.yaml", "v5"),
        ("yolov6n.yaml", "v6"),
        ("yolov8n.yaml", "v8"),
        ("yolov8n-p2.yaml", "v8"),
        ("yolov8n-obb.yaml", "v8"),
        ("yolov8n-cls.yaml", "v8"),
        ("yolov9t.yaml", "v9"),
        ("yolov10n.yaml", "v10"),
        ("yolo11n.yaml", "11"),
        ("yolo11n-seg.yaml", "11"),
        ("yolo12n.yaml", "12"),
        ("yolo26n.yaml", "26"),
        ("yolo26n-pose.yaml", "26"),
        ("yolov8-rtdetr.yaml", "rtdetr"),
        ("yolov8n-worldv2.yaml", "world"),
    ],
)
def test_family_is_told_by_the_modules(name: str, family: str) -> None:
    with quiet():
        yolo = YOLO(ultralytics.RTDETR(name) if "rtdetr" in name else name)
    assert type(yolo) is YOLO
    assert not is_pruned(yolo.model)
    yolo.model.yaml.pop("yaml_file")
    assert checkpoints.family(yolo) == family


def test_families_are_called_as_people_do() -> None:
    titles = [family_title(family) for family in ("v8", "11", "rtdetr", "world", "unknown")]
    assert titles == ["YOLOv8", "YOLO11", "RT-DETR", "YOLO-World", "YOLO"]


@pytest.mark.parametrize(("name", "family"), [("yolov8n-ghost.yaml", "v8"), ("yolo26n-cls.yaml", "26")])
def test_family_where_only_the_file_name_tells(name: str, family: str) -> None:
    with quiet():
        network = YOLO(name).model
    assert network_family(network) == family


@pytest.mark.parametrize("name", ["yolov8-rtdetr.yaml", "yolov8n-worldv2.yaml"])
def test_rtdetr_and_world_stay_our_class(name: str, tmp_path: Path) -> None:
    with quiet():
        stock = ultralytics.RTDETR(name) if "rtdetr" in name else ultralytics.YOLO(name)
    narrow(stock.model)
    checkpoints.save(stock, tmp_path / "pruned.pt")
    loaded = checkpoints.load(tmp_path / "pruned.pt")
    assert type(loaded) is YOLO
    assert issubclass(loaded.task_map["detect"]["validator"], stock.task_map["detect"]["validator"])
    assert "Pruned" in loaded.task_map["detect"]["trainer"].__name__
    assert len(loaded.predict(torch.zeros(1, 3, 64, 64), imgsz=64, verbose=False)) == 1


def test_a_trained_checkpoint_loads_safely(pruned_yolo: YOLO, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", [str(i) for i in range(80)], images=2)
    last = []
    pruned_yolo.add_callback("on_model_save", lambda running: last.append(running.last.read_bytes()))
    options = {"imgsz": 64, "batch": 2, "epochs": 1, "device": "cpu", "plots": False, "amp": False}
    pruned_yolo.train(data=str(data), project=str(tmp_path), **options)
    (tmp_path / "unfinished.pt").write_bytes(last[0])  # with optimizer, scaler and metrics, as a kill leaves it
    assert checkpoints.load(tmp_path / "unfinished.pt").ckpt["optimizer"] is not None
