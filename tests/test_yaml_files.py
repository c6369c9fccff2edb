"""YAML from anywhere: plain values, and no more of them than the file has room for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from benchmarks.hostile_cases import laughs
from yoloprune.errors import UserError
from yoloprune.yaml_files import read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1e-3\nb: [1, .inf]\nc: ", {"a": 0.001, "b": [1, float("inf")], "c": None}),
        ("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}", {"a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}}),
        ("names:\n" + "".join(f"  {i}: class {i}\n" for i in range(21_841)), None),
        ("", None),
    ],
)
def test_values(text: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    read = read_yaml(tmp_path / "a.yaml")
    assert read == value if value is not None or not text else len(read["names"]) == 21_841


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs(), "stands for more values"),
        (laughs().replace("[x]", "{x: 1}").replace(" [*", " {<<: [*").replace("]", "]}"), "stands for more values"),
        ("a: &a [*a]", "stands for more values"),
        ("- 1\n" * 600_000, "stands for more values"),
        ("a: " + "[" * 900, "stands for more values"),
        ("[" * 1_000_000, "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("a: 2001-99-99", "not valid YAML"),
        ("a: " + "9" * 5_000, "not valid YAML"),
        ("a: 1" + ":1" * 4_000, "not valid YAML"),
        ("a: 1" + ":1" * 400_000, "stands for more values"),
        ("? [a]\n: b", "not valid YAML"),
        ("a: \0", "not valid YAML"),
        ("a: " + "x" * 5_000_000, "larger than 4 MB"),
    ],
)
def test_what_is_too_much_or_none(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)
    start = time.perf_counter()
    with pytest.raises(UserError, match=message) as error:
        read_yaml(tmp_path / "a.yaml")
    assert time.perf_counter() - start < 2
    assert str(tmp_path / "a.yaml") in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path, Path("/dev/zero")):
        with pytest.raises(UserError, match="is not a regular file"):
            read_yaml(path)
    (tmp_path / "latin.yaml").write_bytes("ä".encode("latin1"))
    with pytest.raises(UserError, match="not valid YAML in UTF-8"):
        read_yaml(tmp_path / "latin.yaml")
