"""What is used of Ultralytics' internals is there in the installed version; a sentence says what has changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from types import CodeType
from typing import Any

import numpy as np
import pytest
import torch
import ultralytics
from torch import nn

from yoloprune.detectors.ultralytics import internals
from yoloprune.detectors.ultralytics.guard import quiet

pytestmark = pytest.mark.contract


def found(name: str) -> Any:
    """What `module:class.method` names; a sentence where it is not there."""
    module, _, path = name.partition(":")
    value = import_module(module)
    for part in path.split("."):
        if not hasattr(value, part):
            broken(f"{name} is gone")
        value = getattr(value, part)
    return value


def broken(what: str) -> None:
    pytest.fail(f"Ultralytics {ultralytics.__version__}: {what}; see yoloprune/detectors/ultralytics/internals.py.")


def names_in(code: CodeType) -> set[str]:
    """All names that a function, and the functions inside it, look up."""
    inner = (names_in(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


@pytest.mark.parametrize(
    ("owner", "method"), [(owner, method) for owner, methods in internals.HOOKS.items() for method in methods]
)
def test_methods_that_are_overridden_are_there(owner: str, method: str) -> None:
    if "." in owner.partition(":")[2]:  # a function that calls them
        if method not in names_in(inspect.unwrap(found(owner)).__code__):
            broken(f"{owner} no longer calls {method}")
        return
    if not callable(getattr(found(owner), method, None)):
        broken(f"{owner} has no method {method} any more")


@pytest.mark.parametrize(
    ("function", "name"), [(function, name) for function, names in internals.LOOKED_UP.items() for name in names]
)
def test_functions_look_up_what_is_replaced(function: str, name: str) -> None:
    if name not in inspect.unwrap(found(function)).__code__.co_names:
        broken(f"{function} no longer looks up {name}, so that what it does instead would not be prevented")


@pytest.fixture(scope="module")
def heads() -> dict[str, nn.Module]:
    """One head of each kind."""
    with quiet():
        made = [ultralytics.YOLO(f"{name}.yaml") for name in ("yolov8n", "yolov10n", "yolov8n-cls")]
        made += [ultralytics.YOLOWorld("yolov8s-worldv2.yaml"), ultralytics.RTDETR("yolov8-rtdetr.yaml")]
    return {type(yolo.model.model[-1]).__name__: yolo.model.model[-1] for yolo in made}


@pytest.mark.parametrize("kind", internals.HEAD_ATTRIBUTES)
def test_heads_have_their_attributes(kind: str, heads: dict[str, nn.Module]) -> None:
    if kind not in heads:
        broken(f"no head is called {kind}; there are {', '.join(heads)}")
    missing = [name for name in internals.HEAD_ATTRIBUTES[kind] if not hasattr(heads[kind], name)]
    if missing:
        broken(f"the head {kind} has no {missing[0]} any more")


def holds(claim: str, check: Callable[[], bool]) -> None:
    try:
        fine = check()
    except Exception as error:
        broken(f"it no longer holds that {claim} ({type(error).__name__}: {error})")
    if not fine:
        broken(f"it no longer holds that {claim}")


def test_a_yaml_is_built_on_the_meta_device() -> None:
    with quiet():
        rows = ultralytics.YOLO("yolov8n.yaml").model.yaml
    holds(
        "parse_model builds a model.yaml without memory",
        lambda: all(p.is_meta for p in internals.described(dict(rows)).parameters()),
    )


def test_an_activation_is_no_code() -> None:
    internals.check_activation("torch.nn.SiLU()")
    with pytest.raises(TypeError):
        internals.check_activation("__import__('os').getcwd()")


def test_average_precision_is_the_sixth_figure() -> None:
    hits = np.ones((3, 10), bool)
    hits[2] = False
    given = hits, np.array([0.9, 0.8, 0.1]), np.array([0.0, 1.0, 1.0]), np.array([0.0, 1.0])
    holds(
        "ap_per_class returns the average precision of each class and IoU in sixth place",
        lambda: (
            internals.average_precisions(*given).shape == (2, 10) and internals.average_precisions(*given).min() > 0.9
        ),
    )


def test_tasks_and_trainers_are_found() -> None:
    with quiet():
        yolo = ultralytics.YOLO("yolov8n.yaml")
    holds("guess_model_task tells a detector", lambda: internals.guess_task(yolo.model) == "detect")
    holds("a model finds its trainer", lambda: internals.task_trainer(yolo).__name__ == "DetectionTrainer")
    holds(
        "the arguments of a checkpoint that count are a dictionary",
        lambda: "imgsz" in internals.checkpoint_args(yolo, {"imgsz": 64, "epochs": 3, "data": "a", "task": "detect"}),
    )


def test_a_loss_is_a_dictionary_of_items_and_a_vector() -> None:
    with quiet():
        network = ultralytics.YOLO("yolov8n.yaml").model.train()
    network.args = ultralytics.utils.DEFAULT_CFG
    batch = {"img": torch.rand(1, 3, 64, 64), "batch_idx": torch.zeros(1), "cls": torch.zeros(1, 1)}
    batch["bboxes"] = torch.full((1, 4), 0.5)
    loss, items = network.init_criterion()(network(batch["img"]), batch)
    holds("a criterion returns a vector of losses", lambda: loss.ndim == 1)
    holds("a criterion returns its items as a dictionary", lambda: isinstance(items, dict))


def test_the_trainer_steps_by_what_resuming_watches() -> None:
    source = inspect.getsource(found("ultralytics.engine.trainer:BaseTrainer"))
    for name in ("self.accumulate", "unscale_", "_close_dataloader_mosaic", "self.ema", "self.stop"):
        if name not in source:
            broken(f"the trainer has no {name} any more")
    holds(
        "the endless loader starts anew by _get_iterator",
        lambda: callable(found("ultralytics.data.build:InfiniteDataLoader")._get_iterator),
    )


def test_a_name_that_upstream_breaks_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    from ultralytics.engine.trainer import BaseTrainer

    monkeypatch.delattr(BaseTrainer, "_model_train")
    with pytest.raises(pytest.fail.Exception, match=r"Ultralytics 8\..*: .*BaseTrainer has no method _model_train any"):
        test_methods_that_are_overridden_are_there("ultralytics.engine.trainer:BaseTrainer", "_model_train")
