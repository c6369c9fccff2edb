"""The options of a run: types and ranges, from Python and from recipes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.engine.exporter import export_formats
from ultralytics.engine.trainer import BaseTrainer

from yoloprune import criteria
from yoloprune.deploy.formats import SUFFIXES
from yoloprune.errors import UserError
from yoloprune.pipeline.keywords import OPTIMIZERS, check_keywords
from yoloprune.pipeline.options import CRITERIA, Options
from yoloprune.pipeline.recipe import merge, read_recipe


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"target_ratio": "0.5"}, "target_ratio='0.5' is not understood; give a number"),
        ({"target_params": "1M"}, "target_params='1M' is not understood; give a whole number"),
        ({"imgsz": [64, 64]}, r"imgsz=\[64, 64\]"),
        ({"budget": "soon"}, "no time budget"),
        ({"budget": float("inf")}, "budget=inf"),
        ({"export": True}, "export=True is not understood; give a name"),
        ({"criterion": ["l1"]}, "criterion"),
        ({"round_to": 4.5}, "round_to=4.5 is not understood; give a whole number"),
        ({"steps": True}, "steps=True"),
        ({"steps": 10**18}, "steps=1000000000000000000 is too large; the most is 100"),
        ({"train": {"single_cls": True}}, "single_cls=... cannot be given: pruning keeps the classes of the weights"),
        ({"train": {"split": "test"}}, "split=... cannot be given: a run is validated on the split val"),
        ({"epochs": None}, "epochs=None is not understood; give a whole number"),
        ({"prune_head": "no"}, "prune_head='no' is not understood; give true or false"),
        ({"recover": "off"}, "recover='off' is not understood; give true or false, or leave it out"),
        ({"batch": "big"}, "batch='big'"),
        ({"batch": 0}, "batch=0"),
        ({"batch": -5}, "batch=-5"),
        ({"batch": 4.5}, "batch=4.5"),
        ({"train": [1]}, "train"),
        ({"keep": 3}, "keep=3 is not understood; give a list of names"),
        ({"keep": [3]}, r"keep=\[3\] is not understood; give names of layers"),
    ],
)
def test_wrong_values(given, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        Options(**{"target_ratio": 0.5, **given})


def test_values_are_settled() -> None:
    options = Options(
        target_params=1e6, sparsity=np.float64(1), epochs=np.int64(3), budget="1m", device=[0, 1], batch=0.7
    )
    assert (options.target_params, options.epochs, options.budget) == (1_000_000, 3, 60)
    assert (options.device, options.batch) == ("0,1", 0.7)
    assert Options(target_gflops=5, keep="model.0, model.1").keep == ["model.0", "model.1"]
    assert type(options.sparsity) is float
    assert type(options.epochs) is int
    assert Options(target_gflops=5, device=torch.device("cpu")).device == "cpu"


def test_optimizers_are_those_of_ultralytics() -> None:
    with pytest.raises(NotImplementedError) as caught:
        BaseTrainer.build_optimizer(None, nn.Linear(2, 2), "Foo")
    listed = re.search(r"{(.*?)}", str(caught.value))[1]
    assert {name.strip(" '") for name in listed.split(",")} == set(OPTIMIZERS)
    check_keywords({"optimizer": "adamw"})


def test_tables_that_save_an_import_are_those_of_the_libraries() -> None:
    listed = export_formats()
    suffixes = dict(zip(listed["Argument"], listed["Suffix"], strict=True))
    assert {name: ending for name, ending in suffixes.items() if name != "-"} | {"stock": "_stock.pt"} == SUFFIXES
    assert set(criteria.CRITERIA) == set(CRITERIA)


def test_options_are_checked_without_torch() -> None:
    code = (
        "import sys\nfrom yoloprune.pipeline.options import Options\n"
        "from yoloprune.pipeline.recipe import read_recipe\n"
        "read_recipe('custom'); Options(target_ratio=0.5, export='tensorrt', train={'mosaic': 0.5}); "
        "assert not {'torch', 'ultralytics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("epochs: ten", "epochs='ten'"),
        ("epochs:", "epochs=None"),
        ("epochs: 5.5", "epochs=5.5"),
        ("seed: a", "seed='a'"),
        ("max_pruning_ratio: '0.5'", "max_pruning_ratio='0.5'"),
        ("val: maybe", "val='maybe'"),
        ("train: {1: 2}", "'1' is not an option of Ultralytics"),
    ],
)
def test_wrong_values_in_recipes(tmp_path, line, sentence) -> None:
    (tmp_path / "mine.yaml").write_text(line)
    with pytest.raises(UserError, match=sentence):
        merge(read_recipe(str(tmp_path / "mine.yaml")), {"target_ratio": 0.5})


def test_recipes_write_numbers_as_people_do(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("lr0_per_share: 1e-3\nbudget: 30m\ndevice: 0\ntrain:\n  lr0: 1E-2\n")
    options = merge(read_recipe(str(path)), {"target_ratio": 0.5})
    assert (options.lr0_per_share, options.budget, options.device, options.train) == (1e-3, 1800, "0", {"lr0": 1e-2})


def test_epochs_that_are_given_go_before_the_budget_of_a_recipe() -> None:
    recipe = {"target_ratio": 0.5, "budget": "30m"}
    assert merge(recipe, {"epochs": 3}).budget is None
    assert merge(recipe, {}).budget == 1800


def test_recipe_in_another_encoding(tmp_path) -> None:
    path = Path(tmp_path / "mine.yaml")
    path.write_bytes("# Größe\nepochs: 3\n".encode("latin-1"))
    with pytest.raises(UserError, match="not valid YAML in UTF-8"):
        read_recipe(str(path))
