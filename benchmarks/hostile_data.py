"""Hostile data YAMLs and label caches for `hostile.py`."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from benchmarks.hostile_cases import Place, Write, checkpoint, laughs

__all__ = ["data_files", "label_caches"]

_SMALL = "--imgsz 64 --device cpu"
_RUN = f"--target-ratio .7 --round-to 1 --no-export --criterion l2 --no-recover --no-distill workers=0 {_SMALL}"

_COMMANDS: dict[str, Callable[[Place, object], str]] = {
    "val": lambda place, data: f"val {place.weights()} --data {data} {_SMALL}",
    "val of the test split": lambda place, data: f"val {place.weights()} --data {data} {_SMALL} split=test",
    "prune": lambda place, data: f"prune {place.weights()} --data {data} {_RUN} --no-val --epochs 0",
    "prune and validate": lambda place, data: f"prune {place.weights()} --data {data} {_RUN} --epochs 0",
    "prune --epochs 1": lambda place, data: f"prune {place.weights()} --data {data} {_RUN} --no-val --epochs 1",
    "prune --sparse-epochs 1": lambda place, data: (
        f"prune {place.weights()} --data {data} {_RUN} --no-val --epochs 0 --sparse-epochs 1"
    ),
    "sensitivity": lambda place, data: f"sensitivity {place.weights()} --data {data} {_SMALL}",
    "export quantize=8": lambda place, data: f"export {place.weights()} --imgsz 64 quantize=8 data={data}",
}


def data_files() -> dict[str, Write]:
    """Data YAMLs, by what they try."""
    scripts: dict[str, Callable[[Place], str]] = {
        "Python": lambda place: place.code,
        "a shell": lambda place: f"bash {place.written(f'touch {place.canary}'.encode(), 'script.sh')}",
        "an address": lambda place: "https://example.com/data.zip",
    }
    missing = [
        *(("val", "val"), ("train", "val"), ("test", "val of the test split"), ("train", "prune"), ("val", "prune")),
        *(("val", "prune --epochs 1"), ("val", "prune --sparse-epochs 1"), ("val", "export quantize=8")),
    ]
    texts: dict[str, Callable[[Place], str]] = {
        "an object": lambda place: f"train: !!python/object/apply:os.mkdir [{place.canary}]",
        "a billion laughs": lambda place: laughs(),
        "a billion names": lambda place: f"{laughs()}train: images/train\nval: images/val\nnames: *a9\n",
        "a list in a list in a list": lambda place: "names: " + "[" * 100_000,
        "40 MB": lambda place: "a: " + "x" * 40_000_000,
        "code for names": lambda place: f"train: images/train\nval: images/val\nnames: {place.code!r}\n",
        "a device for images": lambda place: "path: /\ntrain: dev/zero\nval: dev/zero\nnames: [a, b]\n",
        "an address for images": lambda place: (
            "train: https://example.com/a.txt\nval: https://example.com/a.txt\nnc: 2\n"
        ),
    }
    return {
        **{
            f"download: {kind}, no {split} images: {command}": functools.partial(_downloading, split, script, command)
            for kind, script in scripts.items()
            for split, command in missing
        },
        **{name: functools.partial(_text, text) for name, text in texts.items()},
        "a pipe": lambda place: _COMMANDS["val"](place, place.piped(str(place.data().relative_to(place.folder)))),
        "an address": lambda place: _COMMANDS["val"](place, "https://example.com/data.yaml"),
        "a data set that Ultralytics downloads": lambda place: _COMMANDS["val"](place, "coco8.yaml"),
    }


def label_caches() -> dict[str, Write]:
    """Label caches beside the labels, which Ultralytics unpickles, by the command that reads them."""
    return {
        **{name: functools.partial(_planted, name) for name in _COMMANDS if name != "val of the test split"},
        "val of the checkpoint's own data": _own_data,
    }


def _downloading(split: str, script: Callable[[Place], str], command: str, place: Place) -> str:
    return _COMMANDS[command](place, place.data(**{split: "images/none", "download": script(place)}))


def _text(text: Callable[[Place], str], place: Place) -> str:
    data = place.data()
    data.write_text(text(place))
    return _COMMANDS["val"](place, data)


def _planted(command: str, place: Place) -> str:
    return _COMMANDS[command](place, _with_caches(place))


def _own_data(place: Place) -> str:
    content = checkpoint(train_args={"imgsz": 64, "task": "detect", "data": str(_with_caches(place))})
    return f"val {place.saved(content, 'weights.pt')} {_SMALL}"


def _with_caches(place: Place) -> object:
    data = place.data()
    for split in ("train", "val"):
        with (data.parent / f"labels/{split}.cache").open("wb") as file:
            np.save(file, np.array(place.call, dtype=object), allow_pickle=True)
    return data
