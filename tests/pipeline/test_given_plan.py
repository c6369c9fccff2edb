"""A plan from a file in place of a ranking."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from yoloprune import detectors, prune
from yoloprune.demo import digits
from yoloprune.errors import UserError
from yoloprune.graph import Plan

QUICK = {"imgsz": 64, "device": "cpu", "recover": False, "criterion": "l2"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run by weights alone, the head pruned."""
    project = tmp_path_factory.mktemp("runs")
    prune(digits.WEIGHTS, target_ratio=0.5, prune_head=True, project=str(project), **QUICK)
    return project / "prune"


def test_the_same_weights_give_the_same_network(made: Path) -> None:
    again = prune(digits.WEIGHTS, plan=made / "plan.json", **QUICK)
    first = detectors.load(made / "pruned.pt").network.state_dict()
    second = again.model.model.state_dict()
    assert list(first) == list(second)
    assert all((first[name].float() == second[name].cpu().float()).all() for name in first)
    assert again.plan == Plan.load(made / "plan.json")
    assert any("it was made for these weights" in note for note in again.report.notes)


def test_other_weights_of_the_same_shapes_are_named(made: Path, tmp_path: Path) -> None:
    other = detectors.load(digits.WEIGHTS)
    next(other.network.parameters()).data.mul_(1.5)
    other.save(tmp_path / "other.pt")
    again = prune(tmp_path / "other.pt", plan=made / "plan.json", **QUICK)
    assert any("it was made for other weights" in note for note in again.report.notes)


def _broken(made: Path, tmp_path: Path, change) -> Path:
    content = json.loads((made / "plan.json").read_text())
    change(content)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(content))
    return path


def _uncoupled(content: dict) -> None:
    name = next(n for n in content["keep"] if n.endswith("conv.weight") and "0" in content["keep"][n])
    content["keep"][name]["0"].pop()


def _out_of_range(content: dict) -> None:
    next(iter(content["keep"].values()))["0"][-1] = 10_000


def _other_shapes(content: dict) -> None:
    next(iter(content["shapes"].values()))[0] += 1


@pytest.mark.parametrize(
    "change",
    [
        _uncoupled,
        _out_of_range,
        _other_shapes,
        lambda c: c.pop("keep"),
        lambda c: c["keep"].update(nothing={"0": [1]}),
        lambda c: next(iter(c["keep"].values())).update({"0": [math.inf]}),
    ],
)
def test_a_plan_that_does_not_fit_is_a_sentence(made: Path, tmp_path: Path, change) -> None:
    path = _broken(made, tmp_path, change)
    with pytest.raises(UserError, match=r"does not fit this network|is missing or damaged"):
        prune(digits.WEIGHTS, plan=path, **QUICK)


def test_a_plan_that_removes_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"keep": {}, "shapes": {}, "macs": 1, "params": 1}')
    with pytest.raises(UserError, match=r"plan.json' removes nothing; give the plan.json of a run"):
        prune(digits.WEIGHTS, plan=tmp_path / "plan.json", **QUICK)


def test_a_plan_alone_needs_no_images(made: Path, tmp_path: Path) -> None:
    elsewhere = detectors.load(digits.WEIGHTS)
    elsewhere.settle(data="gone.yaml")
    elsewhere.save(tmp_path / "elsewhere.pt")
    again = prune(tmp_path / "elsewhere.pt", plan=made / "plan.json", recover=False, imgsz=64, device="cpu")
    assert again.plan.keep == Plan.load(made / "plan.json").keep


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"plan": "none.json"}, "There is no plan 'none.json'"),
        ({"plan": "p.json", "target_ratio": 0.5}, "Exactly one of"),
        ({"plan": "p.json", "steps": 2}, "steps=2 does not go with a plan"),
        ({"plan": "p.json", "max_pruning_ratio": 0.5}, "max_pruning_ratio=0.5 does not go with a plan"),
        ({"plan": "p.json", "keep": "model.2"}, r"keep=\['model.2'\] does not go with a plan"),
        ({"plan": "p.json", "portable": True}, "portable=True does not go with a plan"),
        ({"plan": "p.json", "round_to": 1}, "round_to=1 does not go with a plan"),
    ],
)
def test_what_does_not_go_with_a_plan(given: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        prune(digits.WEIGHTS, **given, **QUICK)
