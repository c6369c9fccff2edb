"""Runs that are killed at any moment end where an uninterrupted one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import yoloprune
from tests.small_yolo import shallow_weights, write_few_digits
from yoloprune.report import Record

KILLS = 10


@pytest.fixture
def few(tmp_path) -> Path:
    """A data YAML of 16 training and 8 validation canvases of the embedded digits."""
    return write_few_digits(tmp_path / "digits", train=16, val=8)


def _weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "pruned.pt", weights_only=False)["model"].state_dict()


def _files(run: Path) -> set[str]:
    return {file.relative_to(run).as_posix() for file in run.rglob("*") if not file.is_dir()}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_killed_runs_end_where_a_whole_one_does(few, tmp_path) -> None:
    driver = Path(__file__).with_name("kill_driver.py")
    here = str(Path(yoloprune.__file__).parents[1])
    one = {"PYTHONPATH": here, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(driver), str(tmp_path), shallow_weights(), str(few), str(KILLS)],
        env={**os.environ, **one},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    print(report)
    assert len(report["landed"]) >= KILLS
    assert len(set(report["landed"])) >= 3, report["landed"]
    whole = tmp_path / "whole"
    expected, record = _weights(whole), Record.load(whole / "results.json")
    assert record.finished
    for number in range(report["runs"]):
        run = tmp_path / f"killed-{number}"
        said = (tmp_path / f"{run.name}.log").read_text()[-2000:]
        assert (run / "plan.json").read_bytes() == (whole / "plan.json").read_bytes(), said
        weights = _weights(run)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in expected), said
        found = Record.load(run / "results.json")
        assert found.after.metrics == record.after.metrics
        assert [row.metrics for row in found.steps] == [row.metrics for row in record.steps]
        assert found.notes == record.notes
        assert _files(run) == _files(whole)  # nothing that a killed process was about to write is left
