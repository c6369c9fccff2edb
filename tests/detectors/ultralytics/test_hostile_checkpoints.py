"""No file runs anything, from any number of threads, and each gets a sentence: a part of benchmarks/hostile.py."""

from __future__ import annotations

import copy
import functools
import importlib
import os
import shutil
import socket
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from ultralytics.nn.tasks import load_checkpoint

from benchmarks.hostile_cases import Call, Place, attempt, checkpoint
from benchmarks.hostile_checkpoints import checkpoints as hostile_checkpoints
from benchmarks.hostile_runs import recipes
from tests.small_yolo import SHORT
from yoloprune.detectors.ultralytics import checkpoints, unpickling
from yoloprune.detectors.ultralytics.allowed import find_stock
from yoloprune.detectors.ultralytics.guard import offline, quiet
from yoloprune.detectors.ultralytics.model import YOLO
from yoloprune.detectors.ultralytics.reading import read_checkpoint
from yoloprune.detectors.ultralytics.trainers.continuation import Continuation
from yoloprune.detectors.ultralytics.trainers.pruned import PrunedDetectionTrainer
from yoloprune.errors import UserError

CHECKPOINTS, RECIPES = hostile_checkpoints(), recipes()


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:.torch.jit:FutureWarning")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(name: str, tmp_path: Path) -> None:
    outcome = attempt(CHECKPOINTS[name], tmp_path)
    assert not outcome.executed
    assert not outcome.traceback
    assert outcome.code == (0 if name == "an address of a YAML file" else 2)  # which is no address any more
    assert outcome.code == 0 or outcome.seconds < 5


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str, tmp_path: Path) -> None:
    outcome = attempt(RECIPES[name], tmp_path)
    assert not outcome.executed
    assert not outcome.traceback
    assert outcome.code == 2
    assert outcome.seconds < 5


def test_no_thread_opens_another_ones_loading(tmp_path: Path) -> None:
    place = Place(tmp_path)
    known, evil = place.saved({"model": Call(os.getpid)}, "known.pt"), place.saved({"model": place.call})
    problems = []

    def load(path: Path, trust: bool, sentence: str) -> None:
        for _ in range(150):
            try:
                checkpoints.load(path, trust=trust)
            except UserError as error:
                if sentence not in str(error):
                    problems.append(error)

    threads = [threading.Thread(target=load, args=(known, True, "holds no Ultralytics model")) for _ in range(2)]
    threads += [threading.Thread(target=load, args=(evil, False, "names 'posix.mkdir'")) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not place.canary.exists()
    assert not problems


def leave(path: str) -> None:
    """What a test allows torch to call."""
    Path(path).mkdir()


def test_what_the_process_allows_torch_to_call_is_not_called(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.saved({"model": Call(leave, str(place.canary))})
    with torch.serialization.safe_globals([leave]):
        with pytest.raises(UserError, match=r"names 'tests\.detectors\.ultralytics\.test_hostile_checkpoints\.leave'"):
            checkpoints.load(place.path("evil.pt"))
        assert not place.canary.exists()
        torch.load(place.path("evil.pt"), weights_only=True)
    assert place.canary.exists()


@pytest.mark.parametrize("name", ["evil.pt", "evil-world.pt", "yoloe-evil.pt"])
def test_our_yolo_reads_safely_too(name: str, tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.evil().rename(place.path(name))
    with pytest.raises(UserError, match=r"names 'posix\.mkdir'.*--trust"):
        YOLO(place.path(name))
    with pytest.raises(UserError, match="nothing is downloaded"):
        YOLO("yolov5n.pt")
    assert not place.canary.exists()


@pytest.mark.parametrize(
    "model", ["yolov8n.yaml", "yolov8n-cls.yaml", "yolo11n-obb.yaml", "yolov8-rtdetr.yaml", "yolov8n-worldv2.yaml"]
)
@pytest.mark.parametrize("fused", [False, True])
def test_what_is_read_is_what_ultralytics_reads(model: str, fused: bool, tmp_path: Path) -> None:
    with quiet():
        stock = ultralytics.RTDETR(model) if "rtdetr" in model else ultralytics.YOLO(model)
        if fused:
            stock.model.fuse(verbose=False)
    stock.save(tmp_path / "stock.pt")
    ours, theirs = checkpoints.load(tmp_path / "stock.pt"), load_checkpoint(tmp_path / "stock.pt")[0]
    assert ours.task == theirs.task
    assert ours.ckpt.keys() == torch.load(tmp_path / "stock.pt", weights_only=False).keys()
    for (name, one), (other, two) in zip(ours.model.named_modules(), theirs.named_modules(), strict=True):
        assert (name, type(one)) == (other, type(two))
        assert vars(one).keys() == vars(two).keys()
    own = theirs.state_dict()
    for name, tensor in ours.model.state_dict().items():
        assert torch.equal(tensor, own[name])
        assert tensor.stride() == own[name].stride()
    assert {n: p.requires_grad for n, p in ours.model.named_parameters()} == {
        n: p.requires_grad for n, p in theirs.named_parameters()
    }


def test_tensors_share_what_they_shared(tmp_path: Path) -> None:
    values = torch.arange(12.0)
    saved = {"a": values[2:8].view(2, 3).T, "b": values[3:], "c": torch.zeros(0, 3), "d": values.bfloat16()}
    torch.save(saved, tmp_path / "tensors.pt")
    read = unpickling.read(tmp_path / "tensors.pt")
    assert all(
        torch.equal(read[name], tensor) and read[name].stride() == tensor.stride() for name, tensor in saved.items()
    )
    read["a"][0, 1] = -1
    assert read["b"][2] == -1


def test_original_repositories_are_named(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(UserError, match=r"of the original YOLOv5 repository; open it with yoloprune\.load") as error:
        checkpoints.load(shared / "weights" / "yolov5n-official.pt")
    assert "--trust" not in str(error.value)


@pytest.mark.parametrize(("name", "repository"), [("models.yolo\nModel", "YOLOv5"), ("models.yolo\nIDetect", "YOLOv7")])
@pytest.mark.parametrize("trust", [False, True])
def test_original_repositories_by_their_names(name: str, repository: str, trust: bool, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", b"\x80\x02}X\x05\x00\x00\x00modelc" + name.encode() + b"\n)\x81s.")
    with pytest.raises(UserError, match=f"original {repository} repository"):
        checkpoints.load(tmp_path / "evil.pt", trust=trust)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for the network fails the test."""
    monkeypatch.setattr(socket.socket, "connect", lambda *args: pytest.fail("asked for the network"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: pytest.fail("asked for the network"))


def _planting(place: Place) -> Callable[[Any], None]:
    evil = place.evil()
    return lambda trainer: shutil.copy(evil, trainer.best)


@pytest.mark.parametrize("by", ["YOLO", "trainer"])
def test_a_planted_best_network_does_not_run_at_the_end(by: str, tiny_data: Path, tmp_path: Path) -> None:
    place = Place(tmp_path)
    yolo = checkpoints.load(place.saved(checkpoint(), "weights.pt"))
    options = {**SHORT, "data": str(tiny_data), "project": str(tmp_path)}
    if by == "YOLO":
        yolo.add_callback("on_model_save", _planting(place))
        train = functools.partial(yolo.train, **options)
    else:  # as a process of several starts it
        trainer = PrunedDetectionTrainer(overrides={**options, "model": str(place.path("weights.pt"))})
        trainer.add_callback("on_model_save", _planting(place))
        train = trainer.train
    with quiet(), pytest.raises(UserError, match=r"best\.pt' names 'posix\.mkdir'"):
        train()
    assert not place.canary.exists()


@pytest.mark.parametrize("keyword", ["distill_model", "pretrained"])
def test_files_that_training_keywords_name_do_not_run(keyword: str, tiny_data: Path, tmp_path: Path) -> None:
    place = Place(tmp_path)
    yolo = checkpoints.load(place.saved(checkpoint(), "weights.pt"))
    with quiet(), pytest.raises(UserError, match=r"evil\.pt' names 'posix\.mkdir'"):
        yolo.train(**SHORT, data=str(tiny_data), project=str(tmp_path), **{keyword: str(place.evil())})
    assert not place.canary.exists()


def test_a_state_to_go_on_from_does_not_run(tmp_path: Path) -> None:
    place, folder = Place(tmp_path), tmp_path / "train"
    (folder / "weights").mkdir(parents=True)
    torch.save({"epoch": 0, "last": Call(leave, str(place.canary))}, folder / "weights" / "continue.pt")
    with torch.serialization.safe_globals([leave]), pytest.raises(UserError, match="not the state of this training"):
        Continuation(folder).prepare()
    assert not place.canary.exists()


def test_offline_reaches_every_binding_and_puts_all_back(no_network: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ultralytics.utils.export.tensorflow", raising=False)
    monkeypatch.setattr(ultralytics.utils, "AUTOINSTALL", True)
    monkeypatch.setattr(ultralytics.utils.checks, "AUTOINSTALL", "another")
    before = _bindings()
    with offline():
        assert {value for (_, name), value in _bindings().items() if name in ("AUTOINSTALL", "ONLINE")} == {False}
        tensorflow = importlib.import_module("ultralytics.utils.export.tensorflow")  # which binds what it finds
        from ultralytics.utils.plotting import Annotator

        for check in (ultralytics.utils.plotting.check_font, ultralytics.data.utils.check_font):
            assert Path(check("Arial.Unicode.ttf")).is_file()
        Annotator(torch.zeros(64, 64, 3, dtype=torch.uint8).numpy(), pil=True).text([0, 0], "a")
        assert ultralytics.utils.downloads.attempt_download_asset("yolov5n.pt") == "yolov5n.pt"
        for download in (ultralytics.data.utils.safe_download, tensorflow.safe_download):
            with pytest.raises(ConnectionError, match=r"https://example.com/a\.zip"):
                download("https://example.com/a.zip")
    after = _bindings()
    assert {key: after[key] for key in before} == before
    assert tensorflow.AUTOINSTALL is True
    assert tensorflow.safe_download is ultralytics.utils.downloads.safe_download


def _bindings() -> dict[tuple[str, str], Any]:
    """What every module of Ultralytics has of what `offline` replaces."""
    names = (
        "AUTOINSTALL",
        "ONLINE",
        "SAFE_LOAD",
        "check_font",
        "safe_download",
        "attempt_download_asset",
        "torch_load",
    )
    return {
        (module.__name__, name): vars(module)[name]
        for key, module in copy.copy(sys.modules).items()
        for name in (*names, "torch_safe_load")
        if key.partition(".")[0] == "ultralytics" and name in vars(module)
    }


def test_contexts_of_several_threads_end_with_the_last(tmp_path: Path) -> None:
    place = Place(tmp_path)
    evil, before, level = place.evil(), _bindings(), ultralytics.utils.LOGGER.level
    leaks = []

    def work(rounds: int) -> None:
        for _ in range(rounds):
            with quiet(), offline(), quiet():
                if ultralytics.utils.checks.AUTOINSTALL or ultralytics.utils.LOGGER.level == level:
                    leaks.append("open")
                with pytest.raises(UserError):
                    load_checkpoint(evil)

    threads = [threading.Thread(target=work, args=(5 + 5 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not leaks
    assert not place.canary.exists()
    assert _bindings().items() >= before.items()
    assert ultralytics.utils.LOGGER.level == level


def test_cached_embeddings_beside_the_images_do_not_run(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.saved({"person": place.call}, "text_embeddings_clip_ViT-B_32.pt")
    with offline(), pytest.raises(UserError, match=r"posix\.mkdir"):  # as WorldTrainer reads them
        ultralytics.models.yolo.world.train.torch_load(place.path("text_embeddings_clip_ViT-B_32.pt"))
    assert not place.canary.exists()
    place.saved({"person": torch.ones(2)}, "good.pt")
    with offline():
        assert ultralytics.models.yolo.world.train.torch_load(place.path("good.pt"))["person"].sum() == 2


def test_names_of_earlier_releases_are_known(tmp_path: Path) -> None:
    assert find_stock("ultralytics.nn.modules.Conv") is ultralytics.nn.modules.Conv
    assert find_stock("ultralytics.yolo.utils.IterableSimpleNamespace") is ultralytics.utils.IterableSimpleNamespace
    assert find_stock("ultralytics.nn.modules.block.Silence") is torch.nn.Identity
    assert find_stock("ultralytics.nn.modules.block.F") is None
    assert find_stock("torch.nn.modules.module.register_module_forward_hook") is None


def test_a_classifier_keeps_its_transforms(tmp_path: Path) -> None:
    from torchvision.transforms import Compose, InterpolationMode, Resize

    transforms = Compose([Resize(64, interpolation=InterpolationMode.BILINEAR)])
    torch.save({"transforms": transforms}, tmp_path / "a.pt")
    (resize,) = read_checkpoint(tmp_path / "a.pt")["transforms"].transforms
    assert resize.size == 64
    assert resize.interpolation is InterpolationMode.BILINEAR


def test_goes_without_the_network_for_its_check_of_mixed_precision(no_network: None, tmp_path: Path) -> None:
    network = torch.nn.Conv2d(1, 1, 1, device="meta")  # neither a CPU, where it does not check, nor a GPU
    network.stride = torch.tensor([32.0])
    with quiet(), offline():
        assert ultralytics.utils.checks.check_amp(network)
