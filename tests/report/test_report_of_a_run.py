"""What a run hands to its report, from the command line to the files in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import yoloprune
from tests.report.pages import Elements
from yoloprune.demo.digits import WEIGHTS
from yoloprune.pipeline.folder import RunFolder
from yoloprune.report import Record


@pytest.fixture(scope="module")
def run(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The folder of a run that validates and fine-tunes for an epoch."""
    folder = tmp_path_factory.mktemp("runs")
    words = {"target_ratio": 0.7, "data": str(few_digits), "imgsz": 96, "epochs": 1, "batch": 16, "device": "cpu"}
    few = {"calibration_images": 8, "criterion": "l2", "max_pruning_ratio": 0.9, "workers": 0}
    yoloprune.prune(WEIGHTS, **words, **few, val=True, prune_head=True, project=folder, name="run")
    return RunFolder(folder / "run")


def test_the_page_has_all_its_sections(run: RunFolder) -> None:
    text = run.report.read_text(encoding="utf-8")
    headings = ("What it sees", "How sure it is", "Which objects it loses", "Where the cost is", "Training</h2>")
    assert [heading for heading in headings if heading not in text] == []
    assert "Fine-tuning, 1 epoch" in text and "predictions: boxes, classes and the like" in text
    assert "yoloprune.prune(" in text and "target_ratio=0.7" in text  # it was called from Python
    assert "steps/1/train/results.png" in text


def test_every_link_leads_to_a_file(run: RunFolder) -> None:
    links = [link["href"] for link in Elements(run.report.read_text(encoding="utf-8")).of("a")]
    assert {"pruned.pt", "results.json", "report/widths.svg", "report/details.json"} <= {*links}
    assert all((run.path / link).is_file() for link in links)


def test_the_record_has_the_verdict_and_what_was_before_fine_tuning(run: RunFolder) -> None:
    record = Record.load(run.results)
    assert record.verdict.better in ("pruned", "equal", "smaller image")
    assert record.verdict.noise != 0.01  # of these images, not a usual figure
    assert record.verdict.value == record.after.metrics["mAP50-95"]
    assert record.steps[0].before["mAP50-95"] > 0
    assert all(smaller.latency_ms > 0 for smaller in record.smaller_images)
    assert record.environment["torch"]
    assert run.table.read_text().splitlines()[0].count("before") == 0


def test_details_are_on_disk_for_a_resumed_run(run: RunFolder) -> None:
    details = json.loads(run.details.read_text())
    sizes = [f"{smaller.imgsz} px" for smaller in Record.load(run.results).smaller_images]
    assert [*details] == ["before", "step 1 pruned", "step 1 fine-tuned", "after", *sizes]
    run.report.unlink()
    run.weights.unlink()  # so that its end is done again
    yoloprune.prune(resume=run.path)
    notes = Record.load(run.results).notes
    assert len(notes) == len(set(notes))
    assert "How sure it is" in run.report.read_text(encoding="utf-8")


def test_without_validation_there_are_pictures_and_costs(few_digits: Path, tmp_path: Path) -> None:
    words = {"target_ratio": 0.6, "data": str(few_digits), "imgsz": 96, "device": "cpu", "criterion": "l2"}
    words |= {"max_pruning_ratio": 0.9}
    yoloprune.prune(WEIGHTS, **words, calibration_images=8, project=tmp_path, name="run")
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "what is left of the accuracy was not measured" in text
    assert "What it sees" in text and "Where the cost is" in text
    assert "How sure it is" not in text
