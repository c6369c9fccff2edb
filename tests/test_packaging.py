"""What the distribution promises: versions, licence, data files in a wheel, the command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import yoloprune
from yoloprune.resources import resource

ROOT = Path(__file__).resolve().parents[1]


def test_the_installed_version_is_that_of_the_source():
    assert metadata.version("yoloprune") == yoloprune.__version__


def test_citation_names_the_same_version_and_licence():
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(yoloprune.__version__)}$", citation, re.M)
    assert re.search(r"^license: AGPL-3\.0-only$", citation, re.M)
    assert metadata.metadata("yoloprune")["License-Expression"] == "AGPL-3.0-only"
    assert "AFFERO GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text()


def test_a_resource_that_is_missing_is_named():
    with pytest.raises(FileNotFoundError, match=r"weights/no-such\.pt"):
        resource("weights", "no-such.pt")


def test_a_wheel_carries_the_data_and_finds_it(tmp_path):
    pytest.importorskip("hatchling", reason="building a wheel without network needs hatchling in this environment")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("yoloprune-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    committed = subprocess.run(
        ["git", "ls-files", "yoloprune", "cfg", "datasets", "weights"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert committed
    expected = {name if name.startswith("yoloprune/") else f"yoloprune/_data/{name}" for name in committed}
    assert expected <= names
    assert not any("__pycache__" in name or name.startswith("tests/") for name in names)
    found = subprocess.run(
        [sys.executable, "-c", "from yoloprune.resources import resource; print(resource('cfg'))"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    assert Path(found) == tmp_path / "site" / "yoloprune" / "_data" / "cfg"


def test_the_command_is_installed():
    (script,) = metadata.entry_points(group="console_scripts", name="yoloprune")
    assert script.value == "yoloprune.cli:main"
    shown = subprocess.run(
        [Path(sys.executable).with_name("yoloprune"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "prune" in shown
