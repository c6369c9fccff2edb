"""`yoloprune sensitivity` as a user types it."""

from __future__ import annotations

import csv

import pytest

from tests.small_yolo import shallow_weights
from yoloprune.analysis import sensitivity
from yoloprune.demo.digits import WEIGHTS

FEW = ("--imgsz", 64, "--images", 2, "--criterion", "l2", "--device", "cpu")


def test_table_csv_and_picture(yoloprune, tmp_path, few_digits) -> None:
    words = ("--data", few_digits, *FEW, "--ratios", "0.5", "--save", tmp_path / "out" / "digits")
    result = yoloprune("sensitivity", WEIGHTS, *words)
    assert result.exit_code == 0, result.output
    assert "error per" in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"digits.csv", "digits.png"}
    with (tmp_path / "out" / "digits.csv").open() as file:
        assert len(list(csv.DictReader(file))) > 30


def test_the_same_command_goes_on_after_ctrl_c(yoloprune, tmp_path, few_digits, monkeypatch) -> None:
    def measured(save, stop=None):
        def try_(*args):
            if len(calls) == stop:
                raise KeyboardInterrupt
            calls.append(args)
            return own(*args)

        calls, own = [], sensitivity._try
        with monkeypatch.context() as patched:
            patched.setattr(sensitivity, "_try", try_)
            words = ("--data", few_digits, *FEW, "--ratios", "0.3,0.5", "--save", tmp_path / save)
            return yoloprune("sensitivity", shallow_weights(), *words), len(calls)

    result, _ = measured("out/cut", stop=0)
    assert result.exit_code == 130
    assert "nothing was written" in result.stderr
    assert not (tmp_path / "out").exists()
    result, _ = measured("out/cut", stop=5)
    assert result.exit_code == 130
    assert "the same command continues" in result.stderr
    whole, number = measured("whole/whole")
    rest, left = measured("out/cut")
    assert whole.exit_code == rest.exit_code == 0
    assert left == number - 5
    assert (tmp_path / "out" / "cut.csv").read_bytes() == (tmp_path / "whole" / "whole.csv").read_bytes()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cut.csv", "cut.png"}


def test_what_other_work_has_left_is_not_used(yoloprune, tmp_path, few_digits) -> None:
    (tmp_path / "s.unfinished.json").write_text('{"work": "other", "results": [[0, 0, 0]]}')
    (tmp_path / "t.unfinished.json").write_text("damaged")
    words = ("--data", few_digits, *FEW, "--ratios", "0.5")
    assert yoloprune("sensitivity", shallow_weights(), *words, "--save", tmp_path / "s").exit_code == 0
    assert yoloprune("sensitivity", shallow_weights(), *words, "--save", tmp_path / "t").exit_code == 0
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "t.csv").read_bytes()


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--ratios", "0.5,much"), "--ratios 0.5,much is not understood"),
        (("--ratios", "2"), "between 0 and 1"),
        (("--images", 0), "images=0"),
        (("--criterion", "l3"), "criterion='l3' is unknown"),
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
