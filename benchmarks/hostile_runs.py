"""Hostile recipes, keywords and folders of interrupted runs for `hostile.py`."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import io
import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import yaml

from benchmarks.hostile_cases import Place, Write, checkpoint, laughs, run_command

__all__ = ["interrupted_run", "recipes", "run_folders"]

_TRAIN = "run/steps/1/train/weights"
_ELSEWHERE = '{"spent": 0, "folders": {}, "files": {"../weights.pt": []}}'


def recipes() -> dict[str, Write]:
    """Recipes, and keywords that name files, by what they try."""
    texts: dict[str, Callable[[Place], str]] = {
        "an object": lambda place: f"epochs: !!python/object/apply:os.mkdir [{place.canary}]",
        "a billion laughs": lambda place: laughs(),
        "a billion laughs by merging": lambda place: (
            laughs().replace("[x]", "{x: 1}").replace(" [*", " {<<: [*").replace("]", "]}")
        ),
        "itself": lambda place: "train: &a [*a]",
        "a list in a list in a list": lambda place: "train: " + "[" * 100_000,
        "a number of 4,000 digits": lambda place: "epochs: " + "9" * 4000,
        "40 MB": lambda place: "project: " + "x" * 40_000_000,
        "a date that is none": lambda place: "name: 2001-99-99",
        "trust": lambda place: "trust: true",
        "distill_model": lambda place: f"epochs: 1\ntrain: {{distill_model: {place.evil()}}}",
        "model": lambda place: f"epochs: 1\ntrain: {{model: {place.evil()}}}",
        "pretrained": lambda place: f"epochs: 1\ntrain: {{pretrained: {place.evil()}}}",
        "resume": lambda place: f"epochs: 1\ntrain: {{resume: {place.evil()}}}",
        "cfg": lambda place: "epochs: 1\ntrain: {cfg: https://example.com/a.yaml}",
    }
    return {
        **{name: functools.partial(_with_recipe, text) for name, text in texts.items()},
        "a pipe": lambda place: _run(place, f"--recipe {place.piped('recipe.yaml')}"),
        **{
            f"{name}, typed": functools.partial(_with_keyword, name)
            for name in ("distill_model", "pretrained", "model", "resume", "cfg")
        },
    }


def run_folders() -> dict[str, Write]:
    """Folders of an interrupted run that somebody has changed, by what they try."""
    options: dict[str, Callable[[Place], dict[str, Any]]] = {
        "trust in args.yaml": lambda place: {"trust": True, "weights": str(place.evil())},
        "weights in args.yaml": lambda place: {"weights": str(place.evil())},
        "distill_model in args.yaml": lambda place: {"train": {"distill_model": str(place.evil())}},
        "pretrained in args.yaml": lambda place: {"train": {"pretrained": str(place.evil())}},
        "model in args.yaml": lambda place: {"train": {"model": str(place.evil())}},
        "data that download in args.yaml": lambda place: {"data": str(place.data(val="none", download=place.code))},
        "wrong types in args.yaml": lambda place: {"epochs": [1], "train": 5},
    }
    trained: dict[str, Callable[[Place, dict[str, Any]], Any]] = {
        "last.pt in continue.pt": lambda place, last: last.update(more=place.call),
        "distill_model in last.pt": lambda place, last: last["train_args"].update(distill_model=str(place.evil())),
        "pretrained in last.pt": lambda place, last: last["train_args"].update(pretrained=str(place.evil())),
        "cfg in last.pt": lambda place, last: last["train_args"].update(cfg="https://example.com/a.yaml"),
        "wrong options in last.pt": lambda place, last: last["train_args"].update(epochs="many"),
        "no optimizer in last.pt": lambda place, last: last.update(optimizer=None),
        "another optimizer in last.pt": lambda place, last: last.update(optimizer={"x": 1}),
        "another network in last.pt": lambda place, last: last.update(ema=checkpoint()["model"]),
        "best.pt, by a fitness that nothing reaches": _unbeaten,
    }
    texts = {
        "a billion laughs in args.yaml": ("args.yaml", laughs()),
        "an object in args.yaml": ("args.yaml", "epochs: !!python/object/apply:os.system [id]"),
        "a list in a list in args.yaml": ("args.yaml", "[" * 100_000),
        "a list in a list in results.json": ("results.json", "[" * 100_000),
        "a list in a list in a step's plan": ("steps/1/plan.json", "[" * 100_000),
    }
    planted = ["continue.pt", "start.pt", "last.pt"]
    return {
        **{name: _listed(_with_options, more) for name, more in options.items()},
        **{name: _listed(_with_last, change) for name, change in trained.items()},
        **{name: _listed(_with_text, file, text) for name, (file, text) in texts.items()},
        **{name: _listed(_with_file, f"{_TRAIN}/{name}") for name in planted},
        "a step's pruned.pt": _listed(_with_file, "run/steps/1/pruned.pt"),
        "original.pt": _listed(_with_file, "run/steps/original.pt"),
        "a pipe for args.yaml": _listed(_with_pipe, "run/args.yaml"),
        "a pipe for continue.pt": _listed(_with_pipe, f"{_TRAIN}/continue.pt"),
        "options that are not listed": functools.partial(_with_options, options["trust in args.yaml"]),
        "a list of files elsewhere": functools.partial(_with_text, "state.json", _ELSEWHERE),
        "a list in a list in state.json": functools.partial(_with_text, "state.json", "[" * 100_000),
    }


def _listed(write: Callable[..., str], *more: Any) -> Write:
    """What writes a changed folder, and then the sums of what it holds into the folder's own list of its files."""

    def written(place: Place) -> str:
        command = write(*more, place)
        path = place.path("run/state.json")
        state = json.loads(path.read_text())
        for name in state["files"]:
            if (file := place.path(f"run/{name}")).is_file():
                state["files"][name] = [hashlib.sha256(file.read_bytes()).hexdigest()]
        path.write_text(json.dumps(state))
        return command

    return written


def _run(place: Place, more: str) -> str:
    return (
        f"prune {place.weights()} --data {place.data()} --target-ratio .7 --imgsz 64 --round-to 1 --device cpu "
        f"--project {place.path('runs')} --no-val --no-export --criterion l2 --no-recover --no-distill "
        f"workers=0 {more}"
    )


def _with_recipe(text: Callable[[Place], str], place: Place) -> str:
    place.path("recipe.yaml").write_text(text(place))
    return _run(place, f"--recipe {place.path('recipe.yaml')}")


def _with_keyword(name: str, place: Place) -> str:
    return _run(place, f"--epochs 1 {name}={place.evil()}")


def _resumed(place: Place) -> str:
    """A copy of an interrupted run of this place's weights and data."""
    shutil.copytree(interrupted_run(), place.path("run"))
    _update(place, {"weights": str(place.weights()), "data": str(place.data())})
    return f"prune --resume {place.path('run')}"


def _update(place: Place, more: dict[str, Any]) -> None:
    options = yaml.safe_load(place.path("run/args.yaml").read_text())
    place.path("run/args.yaml").write_text(yaml.safe_dump({**options, **more}))


def _with_options(more: Callable[[Place], dict[str, Any]], place: Place) -> str:
    command = _resumed(place)
    _update(place, more(place))
    return command


def _with_last(change: Callable[[Place, dict[str, Any]], Any], place: Place) -> str:
    command, path = _resumed(place), place.path(f"{_TRAIN}/continue.pt")
    state = torch.load(path, weights_only=True)
    last, content = torch.load(io.BytesIO(state["last"].numpy().tobytes()), weights_only=False), io.BytesIO()
    change(place, last)
    torch.save(last, content)
    torch.save({**state, "last": torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8)}, path)
    return command


def _unbeaten(place: Place, last: dict[str, Any]) -> None:
    last["best_fitness"] = 0.99
    shutil.copy(place.evil(), place.path(f"{_TRAIN}/best.pt"))


def _with_text(file: str, text: str, place: Place) -> str:
    command = _resumed(place)
    place.path(f"run/{file}").write_text(text)
    return command


def _with_file(file: str, place: Place) -> str:
    command = _resumed(place)
    shutil.copy(place.evil(), place.path(file))
    return command


def _with_pipe(file: str, place: Place) -> str:
    command = _resumed(place)
    place.piped(file)
    return command


@functools.cache
def interrupted_run() -> Path:
    """The folder of a run that was interrupted in the second of two epochs."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # in a process of its own, since a training begins threads, whose locks the forks of this process would inherit
    run = multiprocessing.get_context("fork").Process(target=_interrupt, args=(folder,))
    run.start()
    run.join()
    if not (folder / "runs" / _TRAIN / "continue.pt").exists():
        raise RuntimeError("There is no run to be gone on with.")
    return folder / "runs" / "run"


def _interrupt(folder: Path) -> None:
    from yoloprune.detectors.ultralytics.trainers.continuation import Continuation

    original = Continuation.on_train_epoch_start

    def interrupt(self: Continuation, trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt
        original(self, trainer)

    with mock.patch.object(Continuation, "on_train_epoch_start", interrupt), contextlib.suppress(KeyboardInterrupt):
        run_command(_run(Place(folder), "--name run --epochs 2").split())
