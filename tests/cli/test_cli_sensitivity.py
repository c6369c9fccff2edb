"""`yoloprune sensitivity` as a user types it."""

from __future__ import annotations

import csv

import pytest

from yoloprune.yolo.digits import WEIGHTS

FEW = ("--imgsz", 64, "--images", 2, "--criterion", "l2", "--device", "cpu")


def test_table_csv_and_picture(yoloprune, tmp_path, few_digits) -> None:
    words = ("--data", few_digits, *FEW, "--ratios", "0.5", "--save", tmp_path / "out" / "digits")
    result = yoloprune("sensitivity", WEIGHTS, *words)
    assert result.exit_code == 0, result.output
    assert "error per" in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"digits.csv", "digits.png"}
    with (tmp_path / "out" / "digits.csv").open() as file:
        assert len(list(csv.DictReader(file))) > 30


def test_ctrl_c_leaves_nothing(yoloprune, tmp_path, few_digits, monkeypatch) -> None:
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("yoloprune.yolo.sensitivity._try", interrupted)
    result = yoloprune("sensitivity", WEIGHTS, "--data", few_digits, *FEW, "--save", tmp_path / "out" / "digits")
    assert result.exit_code == 130
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--ratios", "0.5,much"), "--ratios 0.5,much is not understood"),
        (("--ratios", "2"), "between 0 and 1"),
        (("--images", 0), "images=0"),
        (("--criterion", "l3"), "Unknown criterion"),
        (("--device", 7), "device"),
        (("--data", "none.yaml"), "There is no data YAML"),
        ((), "give --data"),
    ],
)
def test_mistakes(yoloprune, tmp_path, option, sentence) -> None:
    result = yoloprune("sensitivity", WEIGHTS, *option, "--save", tmp_path / "out" / "s")
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(yoloprune, tmp_path) -> None:
    (tmp_path / "file").touch()
    result = yoloprune("sensitivity", WEIGHTS, "--save", tmp_path / "file" / "s")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
