"""Nothing that a data set names or brings along is run, fetched or changed, unless that was asked for."""

from __future__ import annotations

import contextlib
import http.server
import os
import pickle
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import ultralytics
from torch import nn
from ultralytics.models.yolo.model import YOLOE, YOLOWorld

import yoloprune
from tests.small_yolo import SHORT, write_data
from yoloprune.analysis.sensitivity import sensitivity
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.calibration_data import calibration_batches
from yoloprune.detectors.ultralytics.datasets import check_data
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.exporting import export
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.trainers.pruned import PrunedWorldTrainer
from yoloprune.detectors.ultralytics.validation import validate
from yoloprune.errors import UserError
from yoloprune.pipeline.data import choose_data
from yoloprune.replaced import rebound

CPU = torch.device("cpu")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A folder that is made by what must not run."""
    return tmp_path / "canary"


class _Evil:
    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.canary,)


def _plant(path: Path, canary: Path) -> None:
    """A label cache that runs something when it is unpickled."""
    with path.open("wb") as file:
        np.save(file, np.array(_Evil(canary), dtype=object), allow_pickle=True)


def _prune(yolo: YOLO, data: str, out: Path, **more: Any) -> None:
    keywords = SHORT | {"criterion": "l2", "recover": False, "project": str(out), "name": "run"} | more
    yoloprune.prune(yolo, target_ratio=0.8, data=data, **keywords)


def _train(yolo: YOLO, data: str, out: Path) -> None:
    yolo.train(data=data, project=str(out), name="train", **SHORT)


def _export(yolo: YOLO, data: str, out: Path) -> None:
    export(yolo, out / "x.onnx", format="onnx", imgsz=64, quantize=8, data=data)


# what asks for the data of a split that is not there
ABSENT: dict[str, Callable[[YOLO, str, Path], Any]] = {
    "fine-tuning": lambda yolo, data, out: _prune(yolo, data, out, distill=False),
    "distillation": lambda yolo, data, out: _prune(yolo, data, out),
    "sparse": lambda yolo, data, out: _prune(yolo, data, out, sparse_epochs=1, epochs=0),
    "another split": lambda yolo, data, out: _prune(yolo, data, out, distill=False, split="test"),
    "train": _train,
    "val": lambda yolo, data, out: yolo.val(data=data, imgsz=64, device="cpu", project=str(out)),
    "validate": lambda yolo, data, out: validate(yolo, data, imgsz=64, device="cpu", split="test"),
    "export": _export,
}


@pytest.mark.parametrize("way", ABSENT)
def test_what_a_data_yaml_says_to_download_does_not_run(
    pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path, canary: Path, way: str
) -> None:
    text = tiny_data.read_text().replace("images/val", "images/gone") + "test: images/gone\n"
    tiny_data.write_text(f'{text}download: |\n  import os\n  os.mkdir("{canary}")\n')
    with contextlib.suppress(UserError):
        ABSENT[way](pruned_yolo, str(tiny_data), tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize("kind", ["python", "shell", "address"])
def test_what_is_absent_is_said_with_how_to_get_it(tiny_data: Path, tmp_path: Path, canary: Path, kind: str) -> None:
    script = tmp_path / "fetch.sh"
    script.write_text(f"mkdir {canary}\n")
    download, offer = {
        "python": (f"import os; os.mkdir('{canary}')", "a script, which --download runs only together with --trust"),
        "shell": (f"bash {script}", "a script, which --download runs only together with --trust"),
        "address": ("http://127.0.0.1:9/x.zip", r"--download fetches them from http://127\.0\.0\.1:9/x\.zip"),
    }[kind]
    tiny_data.write_text(tiny_data.read_text().replace("images/val", "gone") + f"download: {download}\n")
    with pytest.raises(UserError, match=f"gone', which do not exist; .*{offer}"):
        check_data(tiny_data, "detect")
    assert not canary.exists()


# what reads labels, and so Ultralytics' cache of them
READING: dict[str, Callable[[YOLO, str, Path], Any]] = {
    "validate": lambda yolo, data, out: validate(yolo, data, imgsz=64, device="cpu"),
    "val": lambda yolo, data, out: yolo.val(data=data, imgsz=64, device="cpu", project=str(out)),
    "calibrate": lambda yolo, data, out: calibration_batches(yolo, data, images=4, imgsz=64, batch=2, device=CPU),
    "prune": lambda yolo, data, out: _prune(yolo, data, out, epochs=0, criterion="taylor"),
    "sensitivity": lambda yolo, data, out: sensitivity(
        UltralyticsDetector(yolo),
        data,
        imgsz=64,
        images=2,
        ratios=[0.5],
        device="cpu",
        criterion="l2",
        keep=["model.[1-9]*"],
    ),
    "train": _train,
    "export": _export,
}


@pytest.mark.parametrize("way", READING)
def test_planted_label_caches_are_not_unpickled(
    pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path, canary: Path, way: str
) -> None:
    for split in ("train", "val"):
        _plant(tiny_data.parent / "labels" / f"{split}.cache", canary)
    before = _contents(tiny_data.parent)
    with contextlib.suppress(UserError):  # a package may be missing for the export
        READING[way](pruned_yolo, str(tiny_data), tmp_path)
    assert not canary.exists()
    assert _contents(tiny_data.parent) == before


def test_planted_caches_while_threads_work(pruned_yolo: YOLO, tiny_data: Path, canary: Path) -> None:
    """What protects one thread ends for none of the others."""
    _plant(tiny_data.parent / "labels" / "train.cache", canary)

    def calibrate(number: int) -> int:
        yolo = YOLO(pruned_yolo)
        with quiet() if number % 2 else contextlib.nullcontext():
            (batch,) = calibration_batches(yolo, str(tiny_data), images=4, imgsz=64, batch=4, device=CPU)
        return len(batch["img"])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(calibrate, range(24))) == [4] * 24
    assert not canary.exists()


@pytest.mark.parametrize("way", ["validate", "val", "calibrate", "train"])
def test_planted_caches_of_classification(tmp_path: Path, canary: Path, way: str) -> None:
    data = write_data(tmp_path / "cls", ["bright", "dark"], task="classify")
    with quiet():
        yolo = YOLO("yolov8n-cls.yaml")
    yolo.model = yolo.task_map["classify"]["model"](dict(yolo.model.yaml), nc=2, verbose=False)
    yolo.model.args, yolo.model.task, yolo.model.names = {"task": "classify"}, "classify", {0: "bright", 1: "dark"}
    for split in ("train", "val"):
        _plant(data / f"{split}.cache", canary)
    before = _contents(data)
    READING[way](yolo, str(data), tmp_path)
    assert not canary.exists()
    assert _contents(data) == before


def test_planted_caches_where_a_checkpoint_names_its_data(
    pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path, canary: Path
) -> None:
    pruned_yolo.ckpt = {"train_args": {"data": str(tiny_data)}}
    checkpoints.save(pruned_yolo, tmp_path / "own.pt")
    _plant(tiny_data.parent / "labels" / "val.cache", canary)
    yolo = checkpoints.load(tmp_path / "own.pt")
    assert validate(yolo, choose_data(None, UltralyticsDetector(yolo)), imgsz=64, device="cpu").images == 4
    assert not canary.exists()


def test_planted_text_embeddings_of_yolo_world(tmp_path: Path, canary: Path) -> None:
    class Network(nn.Module):
        def get_text_pe(self, texts: list[str], batch: int, **more: Any) -> torch.Tensor:
            return torch.ones(1, len(texts), 4)

    torch.save({"a": _Evil(canary)}, tmp_path / "text_embeddings_clip_ViT-B_32.pt")
    trainer = PrunedWorldTrainer.__new__(PrunedWorldTrainer)
    trainer.device, trainer.model = CPU, Network()
    before = _contents(tmp_path)
    assert trainer.generate_text_embeddings(["a"], 1, tmp_path)["a"].tolist() == [1, 1, 1, 1]
    assert not canary.exists()
    assert _contents(tmp_path) == before


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_users_files_are_neither_changed_nor_taken_for_caches(
    pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path
) -> None:
    images = tiny_data.parent / "images" / "train"
    for png in images.iterdir():
        jpeg = cv2.imencode(".jpg", cv2.imread(str(png)))[1].tobytes()
        png.with_suffix(".jpg").write_bytes(jpeg + b"what some cameras append")
        png.unlink()
    np.save(images / "0.npy", np.ones(512, np.float32))  # features of the user's own, say
    before = _contents(tiny_data.parent)
    (batch,) = calibration_batches(pruned_yolo, str(tiny_data), images=4, imgsz=64, batch=4, device=CPU)
    assert len(batch["img"]) == 4
    _train(pruned_yolo, str(tiny_data), tmp_path)
    assert _contents(tiny_data.parent) == before


def test_images_that_are_cut_off_are_left_out(pruned_yolo: YOLO, tiny_data: Path) -> None:
    for png in (tiny_data.parent / "images" / "train").iterdir():
        jpeg = cv2.imencode(".jpg", cv2.imread(str(png)))[1].tobytes()
        png.with_suffix(".jpg").write_bytes(jpeg[: len(jpeg) // 2] if png.stem == "0" else jpeg)
        png.unlink()
    (batch,) = calibration_batches(pruned_yolo, str(tiny_data), images=4, imgsz=64, batch=4, device=CPU)
    assert [Path(file).stem for file in batch["im_file"]] == ["1", "2", "3"]


def test_datasets_reach_the_processes_of_a_loader(pruned_yolo: YOLO, tiny_data: Path, tmp_path: Path) -> None:
    pruned_yolo.train(data=str(tiny_data), project=str(tmp_path), name="train", **SHORT)
    dataset = pruned_yolo.trainer.train_loader.dataset
    again = pickle.loads(pickle.dumps(dataset))
    assert type(again) is type(dataset)
    assert again[0]["img"].shape == (3, 64, 64)


def test_all_of_ultralytics_builds_its_datasets_as_expected() -> None:
    """Where it no longer does, `build_dataset` and `rebound` refuse, rather than let a cache be read."""
    from yoloprune.detectors.ultralytics.own_data import OwnData, OwnDataValidator, own_trainer, own_validator
    from yoloprune.detectors.ultralytics.uncached import BUILDERS

    found = [
        entry
        for family in (ultralytics.YOLO, ultralytics.RTDETR, YOLOWorld, YOLOE)
        for entry in family.task_map.fget(object()).values()
    ]
    assert len(found) > 8
    for entry in found:
        for kind in ("trainer", "validator"):
            assert set(entry[kind].build_dataset.__code__.co_names) & set(BUILDERS), entry[kind]
        assert issubclass(own_trainer(entry["trainer"]), OwnData)
        assert issubclass(own_validator(entry["validator"]), OwnDataValidator)
    yolo = YOLO("yolov8n.yaml")
    assert all(issubclass(entry["trainer"], OwnData) for entry in yolo.task_map.values())
    assert all(issubclass(entry["validator"], OwnDataValidator) for entry in yolo.task_map.values())


def test_rebound_leaves_the_function_itself_alone() -> None:
    assert rebound(write_data, cv2=None) is not write_data
    assert write_data.__globals__["cv2"] is cv2
    with pytest.raises(LookupError, match=r"write_data of tests\.small_yolo does not use pickle"):
        rebound(write_data, pickle=None)


_LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
_SPLITS = "train: images/train\nval: images/val\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{_LAUGHS}{_SPLITS}names: *a9\n", "stands for more values"),
        ("[" * 200_000, "stands for more values|is not valid YAML"),
        (f"{_SPLITS}nc: 2000000000\n", "has nc: 2000000000"),
        (f"{_SPLITS}nc: .inf\n", "has nc: inf"),
        (f"{_SPLITS}nc: .nan\n", "must be an integer"),
        (f"{_SPLITS}names: {{0: a, '0': b}}\n", "number them from 0"),
        (f"{_SPLITS}names: {{-1: a, 0: b}}\n", "number them from 0"),
        (f"{_SPLITS}names: [[a], b]\n", "whose name is a list"),
        (f"{_SPLITS}names: abc\n", "must be list or dict"),
        ("train: [1, 2]\nval: images/val\nnames: [a, b]\n", "has 'train: "),
        ("train: images/train\nval: {a: b}\nnames: [a, b]\n", "has 'val: "),
        ("path: {a: b}\ntrain: a\nval: b\nnames: [a]\n", "has 'path: "),
        ('train: images/train\nval: "a\\0b"\nnames: [a, b]\n', "null byte|do not exist"),
        ("train: images/train\nval: /dev/zero\nnames: [a, b]\n", "neither a folder of images nor a text file"),
        (f"{_SPLITS}names: [a, b]\nkpt_shape: [1000000000, 3]\n", "has kpt_shape: 1000000000"),
        (f"{_SPLITS}names: [a, b]\nkpt_shape: [17, 3]\nflip_idx: [99]\n", r"has flip_idx \[99\]"),
        (f"{_SPLITS}names: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_hostile_data_yamls(tmp_path: Path, content: str, message: str) -> None:
    data = write_data(tmp_path / "two", ["dark", "bright"])
    data.write_text(content)
    started = time.perf_counter()
    with pytest.raises(UserError, match=message) as error:
        check_data(data, "detect")
    assert time.perf_counter() - started < 2
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600


def test_data_that_are_not_utf8(tmp_path: Path) -> None:
    data = write_data(tmp_path / "two", ["dark", "bright"])
    text = data.read_text()
    data.write_bytes(text.replace("dark", "caf\xe9").encode("latin-1"))
    with pytest.raises(UserError, match="is not valid YAML in UTF-8"):
        check_data(data, "detect")
    data.write_text(text.replace("images/val", "val.txt"))
    (data.parent / "val.txt").write_bytes(b"./images/val/caf\xe9.png\n")
    with pytest.raises(UserError, match=r"cannot be listed: .*utf-8"):
        check_data(data, "detect")


def test_files_and_links_that_never_end(tmp_path: Path) -> None:
    data = write_data(tmp_path / "two", ["dark", "bright"])
    images = data.parent / "images" / "val"
    (images / "more").mkdir()
    for name in ("a", "b"):
        (images / "more" / name).symlink_to(images)
    with pytest.raises(UserError, match=r"leads to a folder that .* already has in it; remove the link"):
        check_data(data, "detect")
    shutil.rmtree(images / "more")
    os.mkfifo(images / "pipe.png")
    with pytest.raises(UserError, match=r"pipe\.png' has the name of an image but is no ordinary file"):
        check_data(data, "detect")
    (images / "pipe.png").unlink()
    os.mkfifo(data.parent / "data.fifo")
    with pytest.raises(UserError, match="is not an ordinary file"):
        check_data(data.parent / "data.fifo", "detect")


def test_linked_folders_of_images_are_followed(tmp_path: Path) -> None:
    data = write_data(tmp_path / "two", ["dark", "bright"])
    (data.parent / "images" / "val").rename(tmp_path / "elsewhere")
    (data.parent / "images" / "val").mkdir()
    (data.parent / "images" / "val" / "linked").symlink_to(tmp_path / "elsewhere")
    shutil.move(data.parent / "labels" / "val", tmp_path / "labels")
    (data.parent / "labels" / "val").mkdir()
    (data.parent / "labels" / "val" / "linked").symlink_to(tmp_path / "labels")
    assert check_data(data, "detect")["nc"] == 2


@pytest.mark.parametrize(
    ("line", "usable"),
    [("0 nan nan .1 .1\n", False), ("nan .5 .5 .1 .1\n", False), ("0 .5 inf .1 .1\n", False), ("0 .5 .5\n", False)],
)
def test_labels_with_odd_values(pruned_yolo: YOLO, tiny_data: Path, line: str, usable: bool) -> None:
    labels = sorted((tiny_data.parent / "labels" / "val").iterdir())
    labels[0].write_text(line)
    assert validate(pruned_yolo, tiny_data, imgsz=64, device="cpu").images == 3
    for label in labels:
        label.write_text(line)
    with pytest.raises(UserError, match="can be read together with its labels"):
        validate(pruned_yolo, tiny_data, imgsz=64, device="cpu")


def test_huge_label_files(pruned_yolo: YOLO, tiny_data: Path) -> None:
    label = tiny_data.parent / "labels" / "val" / "2.txt"
    with label.open("wb") as file:
        file.truncate(1 << 34)
    with pytest.raises(UserError, match=r"2\.txt' has 16384 MB, which no label file needs"):
        validate(pruned_yolo, tiny_data, imgsz=64, device="cpu")


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    """A web server on this machine for the files of a folder."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ultralytics' folder of data sets."""
    folder = tmp_path / "datasets"
    monkeypatch.setattr(ultralytics.data.utils, "DATASETS_DIR", folder)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return folder


def test_what_is_asked_for_is_fetched_and_unpacked_safely(tmp_path: Path, datasets: Path) -> None:
    from yoloprune.detectors.ultralytics.downloading import fetch

    source = write_data(tmp_path / "source" / "two", ["dark", "bright"]).parent
    served = tmp_path / "served"
    served.mkdir()
    with zipfile.ZipFile(served / "two.zip", "w") as archive:
        for path in sorted(source.rglob("*.*")):
            archive.write(path, Path("two") / path.relative_to(source))
        archive.writestr("two/../../outside.txt", "x")
    data = tmp_path / "two.yaml"
    with _server(served) as address:
        data.write_text(f"path: two\n{_SPLITS}names: [dark, bright]\ndownload: {address}/two.zip\n")
        with pytest.raises(UserError, match="--download fetches them from http"):
            check_data(data, "detect")
        fetch(data, "detect")
    assert Path(check_data(data, "detect")["val"]).is_relative_to(datasets)
    assert not list(tmp_path.rglob("outside.txt"))
    fetch(data, "detect")  # the server is gone, and nothing is asked of it


def test_what_cannot_be_fetched_is_said(tmp_path: Path, datasets: Path) -> None:
    from yoloprune.detectors.ultralytics.downloading import fetch

    data = tmp_path / "two.yaml"
    (tmp_path / "served").mkdir()
    with zipfile.ZipFile(tmp_path / "served" / "other.zip", "w") as archive:
        archive.writestr("other/a.txt", "x")
    with _server(tmp_path / "served") as address:
        for name, sentence in (
            ("gone.zip", "cannot be fetched"),
            ("a.html", "is no archive"),
            ("other.zip", "are still not there"),
        ):
            data.write_text(f"path: two\n{_SPLITS}names: [dark, bright]\ndownload: {address}/{name}\n")
            with pytest.raises(UserError, match=sentence):
                fetch(data, "detect")


def test_scripts_for_fetching_run_with_trust_only(tmp_path: Path, datasets: Path, canary: Path) -> None:
    from yoloprune.detectors.ultralytics.downloading import fetch

    source = write_data(tmp_path / "source", ["dark", "bright"]).parent
    data = tmp_path / "two.yaml"
    script = f"import shutil; shutil.copytree('{source}', '{datasets / 'two'}'); shutil.os.mkdir('{canary}')"
    data.write_text(f'path: two\n{_SPLITS}names: [dark, bright]\ndownload: "{script}"\n')
    with pytest.raises(UserError, match="a script, which is run with --trust only"):
        fetch(data, "detect")
    assert not canary.exists()
    fetch(data, "detect", trust=True)
    assert canary.exists()
    assert check_data(data, "detect")["nc"] == 2
