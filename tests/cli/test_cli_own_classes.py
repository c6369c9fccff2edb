"""What the command line says where weights and data have different classes."""

from __future__ import annotations

import shlex

from yoloprune.demo.digits import WEIGHTS


def test_the_command_to_type_is_the_one_that_was_typed_and_more(yoloprune, tmp_path, few_digits) -> None:
    twelve = few_digits.with_name("twelve.yaml")
    twelve.write_text(few_digits.read_text().split("names:")[0] + f"names: {list('abcdefghijkl')}\n")
    words = [
        "v8",
        str(WEIGHTS),
        "mosaic=0.5",
        "--target-ratio",
        "0.5",
        "--data",
        str(twelve),
        "--no-val",
        "--keep-head",
    ]
    result = yoloprune(*words, "--project", tmp_path / "runs")
    assert result.exit_code == 2, result.output
    assert "has 12 classes and the weights 10" in result.stderr
    said = shlex.split(result.stderr.strip().rpartition(": ")[2])
    assert said[:4] == ["yoloprune", "v8", str(WEIGHTS), "mosaic=0.5"]
    assert said[-2:] == ["--train-epochs", "50"]
    assert set(words) < set(said)
    assert not (tmp_path / "runs").exists()
