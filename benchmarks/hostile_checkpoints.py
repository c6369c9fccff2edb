"""Hostile checkpoints for `hostile.py`."""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import runpy
import shutil
import struct
import subprocess
import timeit
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.modules.block import TorchVision
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import checks, downloads, patches

from benchmarks.hostile_cases import Call, Place, Write, checkpoint

__all__ = ["checkpoints"]


def checkpoints() -> dict[str, Write]:
    """By what they try. All but the last are looked at with `inspect`; the last show that each command reads alike."""
    calls: dict[str, Callable[[Place], Call]] = {
        "os.system": lambda place: Call(os.system, f"touch {place.canary}"),
        "os.mkdir": lambda place: place.call,
        "exec": lambda place: Call(exec, place.code),
        "eval": lambda place: Call(eval, place.code),
        "compile": lambda place: Call(compile, place.code, "x", "exec"),
        "open": lambda place: Call(open, str(place.canary), "w"),
        "subprocess.Popen": lambda place: Call(subprocess.Popen, ["touch", str(place.canary)]),
        "subprocess.check_output": lambda place: Call(subprocess.check_output, ["touch", str(place.canary)]),
        "timeit.timeit": lambda place: Call(timeit.timeit, place.code),
        "runpy.run_path": lambda place: Call(runpy.run_path, str(place.written(place.code.encode(), "script.py"))),
        "shutil.copytree": lambda place: Call(shutil.copytree, str(place.data().parent), str(place.canary)),
        "functools.partial": lambda place: Call(functools.partial, os.mkdir, str(place.canary)),
        "torch_load of Ultralytics": lambda place: Call(patches.torch_load, _nested(place)),
        "torch.jit.load": lambda place: Call(torch.jit.load, str(_torchscript(place, "script.pt"))),
        "torch.hub": lambda place: Call(torch.hub.load_state_dict_from_url, "https://example.com/a.pth"),
        "np.load of another file": lambda place: Call(np.load, str(_array(place)), None, True),
        "check_requirements of Ultralytics": lambda place: Call(checks.check_requirements, "no_such_package_1"),
        "safe_download of Ultralytics": lambda place: Call(downloads.safe_download, "https://example.com/a.zip"),
        "torch_safe_load of Ultralytics": lambda place: Call(tasks.torch_safe_load, _nested(place)),
        "YOLO of Ultralytics": lambda place: Call(ultralytics.YOLO, "yolov8n.pt"),
        "parse_model of Ultralytics": lambda place: Call(tasks.parse_model, _rows(place), 3),
        "DetectionModel of Ultralytics": lambda place: Call(DetectionModel, _rows(place)),
        "TorchVision of Ultralytics": lambda place: Call(TorchVision, "resnet18"),
    }
    pickles: dict[str, Callable[[Place], bytes]] = {
        "getattr of a class": lambda place: (
            _name("__builtin__", "getattr") + _name("__builtin__", "object") + _text("__subclasses__") + b"\x86R"
        ),
        "NEWOBJ with arguments": lambda place: (
            _name("ultralytics.nn.modules.block", "TorchVision") + _text("resnet18") + b"\x85\x81"
        ),
        "INST": lambda place: b"(" + _text(f"touch {place.canary}") + b"iposix\nsystem\n",
        "OBJ": lambda place: b"(" + _name("posix", "system") + _text(f"touch {place.canary}") + b"o",
        "STACK_GLOBAL": lambda place: (
            _text("posix") + _text("system") + b"\x93" + _text(f"touch {place.canary}") + b"\x85R"
        ),
        "an extension's code": lambda place: b"\x82\x01",
        "a __setstate__ of its own": lambda place: (
            _name("torch.nn.modules.linear", "Identity")
            + b")\x81}"
            + _text("__setstate__")
            + _name("torch.nn.modules.linear", "Identity")
            + b"sb}b"
        ),
        "a storage from elsewhere": lambda place: _storage("../../../../etc/passwd"),
        "a list in a list in a list": lambda place: b"]" * 100_000 + b"a" * 99_999,
        "a deep tuple for a key": lambda place: b"})" + b"\x85" * 500_000 + b"K\x01s",
        "a billion laughs": lambda place: b"]" + b"q\x00h\x00\x86" * 60,
        "five million values": lambda place: b"(" + b"N" * 5_000_000 + b"t",
        "marks without end": lambda place: b"(" * 100_000,
        "the original YOLOv5": lambda place: b"}" + _text("model") + _name("models.yolo", "Model") + b")\x81s",
        "a tensor out of bounds": lambda place: (
            _name("torch._utils", "_rebuild_tensor_v2") + b"(" + _storage("0") + b"K\x00M\xe8\x03\x85K\x01\x85\x89NtR"
        ),
    }
    changes: dict[str, Callable[[DetectionModel, Place], Any]] = {
        "an activation that is evaluated": lambda network, place: network.yaml.update(activation=place.code),
        "an activation that saves": lambda network, place: network.yaml.update(activation="torch.save(1, 'executed')"),
        "a function for a layer": lambda network, place: _add(network, "check_requirements", "no_such_package_1"),
        "a TorchVision layer": lambda network, place: _add(network, "TorchVision", 512, "resnet18", "DEFAULT"),
        "an address of a YAML file": lambda network, place: network.yaml.update(yaml_file="https://example.com/a.yaml"),
        "a billion layers": lambda network, place: network.yaml["head"].append([-1, 10**9, "Conv", [64, 3, 2]]),
        "a forward hook": lambda network, place: network.model[0]._forward_hooks.update({0: os.mkdir}),
        "a function for a method": lambda network, place: vars(network.model[0]).update(forward=os.mkdir),
        "a class for an activation": lambda network, place: vars(network.model[0]).update(act=TorchVision),
        "a number for a method": lambda network, place: vars(network.model[0]).update(float=3),
        "a module without attributes": lambda network, place: vars(network.model[0]).clear(),
        "a module that holds itself": lambda network, place: network._modules.update(itself=network),
        "text for modules": lambda network, place: network._modules.update(model="text"),
        "no rows": lambda network, place: network.yaml.clear(),
        "numbers for rows": lambda network, place: network.yaml.update(backbone=[1, 2, 3]),
        "a number for names": lambda network, place: vars(network).update(names=5),
        "text for a stride": lambda network, place: vars(network).update(stride="32"),
        "a stride of a billion": lambda network, place: vars(network).update(stride=torch.tensor([1e9])),
        "a million colours": lambda network, place: network.yaml.update(channels=1_000_000),
        "a convolution without weights": lambda network, place: network.model[0].conv._parameters.clear(),
        "a convolution that is not there": lambda network, place: vars(network.model[0])["_modules"].update(conv=None),
    }
    files: dict[str, Callable[[Place], Any]] = {
        "the format before PyTorch 1.6": lambda place: place.saved(place.call, _use_new_zipfile_serialization=False),
        "pickle protocol 5": lambda place: place.saved(place.call, pickle_protocol=5),
        "a plain pickle": lambda place: place.written(pickle.dumps(place.call)),
        "quantisation to restore": lambda place: place.saved(checkpoint(modelopt={"modelopt": {}})),
        "a list for training arguments": lambda place: place.saved(checkpoint(train_args=[1, 2])),
        "a terabyte in four bytes": lambda place: place.saved(checkpoint(more=torch.zeros(1).expand(1 << 38))),
        "a whole YOLO": lambda place: place.saved(ultralytics.YOLO(str(place.weights()))),
        "TorchScript": lambda place: _torchscript(place, "evil.pt"),
        "a directory": lambda place: place.path("evil.pt").mkdir(),
        "a pipe": lambda place: place.piped("evil.pt"),
        "a link to a device": lambda place: place.path("evil.pt").symlink_to("/dev/zero"),
        "four sparse gibibytes": lambda place: os.truncate(place.evil(), 4 << 30),
        "a zip bomb": _zip_bomb,
        "records that overlap": _overlapping,
        "64 MB of names of records": _many_records,
        "half of a checkpoint": lambda place: place.written(place.weights().read_bytes()[:50_000]),
    }
    return {
        **{name: _inspected(functools.partial(_calling, make)) for name, make in calls.items()},
        **{name: _inspected(functools.partial(_by_hand, make)) for name, make in pickles.items()},
        **{name: _inspected(functools.partial(_changed, change)) for name, change in changes.items()},
        **{name: _inspected(make) for name, make in files.items()},
        "an address": lambda place: "inspect https://example.com/yolov8n.pt",
        "a name that Ultralytics downloads": lambda place: "inspect yolov8n.pt",
        "val": lambda place: f"val {place.evil()} --data {place.data()}",
        "export": lambda place: f"export {place.evil()}",
        "sensitivity": lambda place: f"sensitivity {place.evil()} --data {place.data()}",
        "prune": lambda place: f"prune {place.evil()} --target-ratio .5 --data {place.data()}",
        "v8": lambda place: f"v8 {place.evil()} --target-ratio .5 --data {place.data()}",
    }


def _inspected(make: Callable[[Place], Any]) -> Write:
    def write(place: Place) -> str:
        make(place)
        return f"inspect {place.path('evil.pt')}"

    return write


def _calling(make: Callable[[Place], Call], place: Place) -> None:
    place.saved(checkpoint(more=make(place)))


def _by_hand(make: Callable[[Place], bytes], place: Place) -> None:
    _archive(place, b"\x80\x02" + make(place) + b".")


def _changed(change: Callable[[DetectionModel, Place], Any], place: Place) -> None:
    content = checkpoint()
    change(content["model"], place)
    place.saved(content)


def _rows(place: Place) -> dict[str, Any]:
    return {**checkpoint()["model"].yaml, "activation": place.code}


def _add(network: DetectionModel, *layer: Any) -> None:
    network.yaml["head"].append([-1, 1, layer[0], list(layer[1:])])


def _nested(place: Place) -> str:
    return str(place.saved(place.call, "nested.pt"))


def _array(place: Place) -> Path:
    np.save(place.path("array.npy"), np.array(place.call, dtype=object), allow_pickle=True)
    return place.path("array.npy")


def _torchscript(place: Place, name: str) -> Path:
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 2, 2)).save(str(place.path(name)))
    return place.path(name)


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _storage(key: str) -> bytes:
    return b"(" + _text("storage") + _name("torch", "FloatStorage") + _text(key) + _text("cpu") + b"K\x01tQ"


def _archive(place: Place, pickled: bytes) -> Path:
    with zipfile.ZipFile(place.path("evil.pt"), "w") as archive:
        for name, content in {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(1 << 20)}.items():
            archive.writestr(f"evil/{name}", content)
    return place.path("evil.pt")


def _zip_bomb(place: Place) -> None:
    """A quarter of a megabyte that unpacks to 256 MB and declares 4 GiB."""
    with zipfile.ZipFile(place.path("evil.pt"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("evil/data.pkl", b"\x80\x02N.")
        archive.writestr("evil/data/0", bytes(256 << 20))
    content = bytearray(place.path("evil.pt").read_bytes())
    struct.pack_into("<I", content, content.rfind(b"PK\1\2") + 24, 0xFFFFFFF0)
    place.written(bytes(content))


def _overlapping(place: Place) -> None:
    """5,000 records that are one and the same megabyte."""
    content, start, end = _directory(place)
    last = content[content.rfind(b"PK\1\2", 0, end) : end]
    directory, entries = content[start:end] + last * 5000, 5003
    tail = content[end : end + 8] + struct.pack("<HHIIH", entries, entries, len(directory), start, 0)
    place.written(content[:start] + directory + tail)


def _many_records(place: Place) -> None:
    content, start, end = _directory(place)
    tail = content[end : end + 12] + struct.pack("<IIH", 64 << 20, start, 0)
    place.written(content[:start] + content[start:end] * ((64 << 20) // (end - start) + 1) + tail)


def _directory(place: Place) -> tuple[bytes, int, int]:
    """An archive, and where its list of records starts and ends."""
    content = _archive(place, b"\x80\x02N.").read_bytes()
    end = content.rfind(b"PK\5\6")
    return content, struct.unpack_from("<I", content, end + 16)[0], end
