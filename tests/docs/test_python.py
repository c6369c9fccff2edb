"""The Python on the pages: what is cheap is run, of the rest names and keywords exist."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
import torchvision

import yoloprune
from tests.docs.pages import PAGES, ROOT, blocks
from yoloprune.pipeline.keywords import check_keywords

WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute of a name; "" for anything else."""
    try:
        return ast.unparse(node) if re.fullmatch(r"[\w.]+", ast.unparse(node)) else ""
    except ValueError:
        return ""


@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_and_keywords_exist(page: Path) -> None:
    options = set(inspect.signature(yoloprune.prune).parameters)
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                exec(ast.unparse(node), {})
            elif isinstance(node, ast.Attribute) and _dotted(node).startswith("yoloprune."):
                found = yoloprune
                for name in _dotted(node).split(".")[1:]:
                    found = getattr(found, name)
            elif isinstance(node, ast.Call) and _dotted(node.func) == "yoloprune.prune":
                given = {keyword.arg: None for keyword in node.keywords}
                check_keywords({name: None for name in given if name not in options})


@pytest.mark.slow
def test_any_network_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for code in blocks(ROOT / "docs" / "any-network.md", "python"):
        exec(code.replace('weights="DEFAULT"', "weights=None"), names)
    said = capsys.readouterr().out.splitlines()
    promised = re.search(r"That prints `(.*?)`", (ROOT / "docs" / "any-network.md").read_text(encoding="utf-8"))[1]
    assert said[0] == promised
    assert float(said[2]) < 1e-4
    assert said[-2:] == ["4", "{}"]
    assert isinstance(torch.load("smaller.pt", weights_only=False), torchvision.models.ResNet)


def test_yolov7_runs(capsys) -> None:
    for code in blocks(ROOT / "docs" / "yolov7.md", "python"):
        exec(code, {})
    assert int(capsys.readouterr().out) > 0


@pytest.mark.slow
def test_readme_and_training_run(own_folder: Path, capsys) -> None:
    """One namespace and folder, as a reader has them: pruned.pt of README is what the page on training opens."""
    (own_folder / "my.yaml").write_text((own_folder / "data.yaml").read_text())
    names: dict[str, object] = {}
    for code in [*blocks(ROOT / "README.md", "python"), *blocks(ROOT / "docs" / "training.md", "python")]:
        if "_stock.pt" in code:  # of a network that was pruned for it
            continue
        small = re.sub(r"epochs=\d+", 'epochs=1, imgsz=64, batch=4, workers=0, plots=False, device="cpu"', code)
        if "prune(" in small:  # by weights alone, in a second
            small = small.replace("prune_head=True)", 'prune_head=True, criterion="l2", recover=False, imgsz=64)')
        exec(small, names)
    assert (own_folder / "smaller.pt").is_file()
    assert "metrics/mAP50-95(B)" in capsys.readouterr().out
