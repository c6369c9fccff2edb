"""What is answered before torch is imported: mistakes in what was typed, each in one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from yoloprune.cli.errors import one_line
from yoloprune.demo.digits import WEIGHTS
from yoloprune.errors import UserError
from yoloprune.paths import check_data_path

ROOT = Path(__file__).resolve().parents[2]
W, T = str(WEIGHTS), "--target-ratio=0.5"

MISTAKES = {
    # command line: part of what is said
    ("v9", "best.pt"): "There is no command 'v9'; this family is pruned by: yoloprune prune",
    ("prunes", "best.pt"): "There is no command 'prunes'; did you mean 'prune'?",
    ("best.pt", "-g", "6"): "try: yoloprune prune best.pt",
    ("-g", "6"): "There is no option '-g'",
    ("v8", "--epoch", "3"): "There is no option '--epoch'; did you mean '--epochs'?",
    ("val", "--jsn", W): "did you mean '--json'?",
    ("v8", W, "-g"): "Option '-g' requires an argument.",
    ("inspect", W, "other.pt"): "unexpected extra argument",
    ("v8", W, "-w", W): "one checkpoint is taken at a time",
    ("val", W, W): "one checkpoint is taken at a time",
    ("inspect", W, "-w", W): "one checkpoint is taken at a time",
    ("inspect", "a=b", "-w", W): "a=b is not understood",
    **{
        (command, T): f"No weights were given; name a checkpoint: yoloprune {command} best.pt"
        for command in ("prune", "v7", "v5")
    },
    **{(command,): "No weights were given" for command in ("val", "export", "inspect", "sensitivity")},
    **{(command, "none.pt"): "There is no file 'none.pt'" for command in ("val", "export", "inspect", "sensitivity")},
    **{(command, "none.pt", T): "There is no file 'none.pt'" for command in ("v8", "v7", "v5", "prune")},
    ("v8", W, T, "--data", "none.yaml"): "There is no data YAML or folder 'none.yaml'",
    ("val", W, "--data", "coc8.yaml"): "did you mean 'coco8.yaml'?",
    ("sensitivity", W, "--data", "images/"): "There is no data YAML or folder 'images/'; give its path.",
    ("v8", W, T, "--recipe", "none"): "The recipe none does not exist",
    ("v8", "--resume", "none"): "none is not the folder of a pruning run",
    ("v8", "--resume", "none", "--dry-run"): "leave out --dry-run",
    ("v8", W, T, "--criterion", "tailor"): "did you mean 'taylor'?",
    ("sensitivity", W, "--criterion", "tailor"): "did you mean 'taylor'?",
    ("v8", W, T, "--format", "onxn"): "did you mean 'onnx'?",
    ("export", W, "--format", "onxn"): "did you mean 'onnx'?",
    ("v8", W, T, "optimizer=Foo"): "Unknown optimizer 'Foo'",
    ("v8", W, T, "optimiser=SGD"): "did you mean 'optimizer'?",
    ("bench",): "No networks were given",
    ("bench", W, "none.onnx"): "There is no file or folder 'none.onnx'",
    ("bench", W, "--backend", "onnxruntim"): "did you mean 'onnxruntime'?",
    ("v8", W, "--target-ms", "9", "--backend", "tensorrt"): "tensorrt times no single layers",
    ("profile", W, "--backend", "trt"): "yoloprune bench WEIGHTS pruned.pt --backend tensorrt",
    ("profile", W, "--backend", "onnxruntim"): "did you mean 'onnxruntime'? (onnxruntime, openvino, ncnn, torch)",
    ("bench", W, "--precision", "f31"): "did you mean 'f32'?",
    ("bench", W, "--picture", "b.png"): "give --data",
    ("export", W, "--data", "none.yaml"): "There is no data YAML or folder 'none.yaml'",
    ("export", W, "opsett=17"): "did you mean 'opset'?",
    ("val", W, "iuo=0.5"): "did you mean 'iou'?",
    ("v8", W, T, "half=True"): "yoloprune export pruned.pt quantize=16",
    ("v8", W, T, "quantize=8"): "yoloprune.load('pruned.pt').train(quantize=8)",
    ("export", W, "half=True", "quantize=8"): "give quantize= alone",
    ("export", W, "int8=often"): "int8=often is not understood; give quantize=8",
    ("v8", W, "--target-params", "1.5"): "write millions as 1.5M",
    ("v8", W, T, "--epochs", "many"): "--epochs many is not understood; give a whole number",
    ("val", W, "--imgsz", "big"): "--imgsz big is not understood; give a whole number",
    ("val", W, "--batch", "0"): "--batch 0 is too small; the least is 1",
    ("inspect", W, "--round-to", "0"): "--round-to 0 is too small; the least is 1",
    ("sensitivity", W, "--ratios", "much"): "--ratios much is not understood",
    ("v8", W, T, "--quiet", "--verbose"): "--verbose and --quiet contradict each other",
    ("v8", "no\nsuch\x1b[31m\u202e.pt", T): r"no\nsuch\x1b[31m\u202e.pt",
    ("val", "x" * 5000 + ".pt"): "File name too long",
}

_ANSWER = """
import importlib.machinery, json, sys
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "ultralytics", "numpy", "matplotlib"):
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            spec.loader.exec_module = self.refuse  # to be found is no import
            return spec
    def refuse(self, module):
        raise AssertionError(f"{module} is imported before the answer")
from typer.testing import CliRunner
from yoloprune.cli.app import app
sys.meta_path.insert(0, Slow())
for words in json.loads(sys.stdin.read()):
    result = CliRunner().invoke(app, words)
    print(json.dumps([result.exit_code, result.stdout, result.stderr, repr(result.exception)]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[tuple[str, ...], list]:
    """Exit code, stdout, stderr and exception for each mistake, where nothing slow can be imported."""
    folder = tmp_path_factory.mktemp("here")
    run = subprocess.run(
        [sys.executable, "-c", _ANSWER],
        input=json.dumps(list(MISTAKES)),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not list(folder.iterdir())
    return dict(zip(MISTAKES, map(json.loads, run.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("words", MISTAKES, ids=lambda words: " ".join(words)[:40].encode("unicode_escape").decode())
def test_mistakes_are_answered_in_one_sentence_before_torch_is_imported(answers, words) -> None:
    code, out, err, exception = answers[words]
    assert (code, out) == (2, ""), exception
    assert err.startswith("yoloprune: ")
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert MISTAKES[words] in err


def test_data_that_ultralytics_ships_count_as_present(tmp_path) -> None:
    check_data_path("coco8.yaml")
    check_data_path(str(tmp_path))
    check_data_path(None)
    with pytest.raises(UserError, match=r"did you mean 'coco8\.yaml'"):
        check_data_path("coc8.yaml")


def test_one_line() -> None:
    assert one_line("Größe 14 → 6\tx\n\x9b31m\udcff") == r"Größe 14 → 6\tx\n\x9b31m\udcff"


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment}
    return subprocess.run([sys.executable, "-m", "yoloprune", *words], env=env, capture_output=True, text=True)


def test_module_and_no_arguments_at_all() -> None:
    run = _run()
    assert run.returncode == 0
    assert "Usage: yoloprune [OPTIONS] COMMAND" in run.stdout
    assert run.stderr == ""


def test_shell_completion() -> None:
    words = {"_YOLOPRUNE_COMPLETE": "complete_bash", "COMP_WORDS": "yoloprune v8 --criterion t", "COMP_CWORD": "3"}
    assert _run(**words).stdout.split() == ["taylor"]
    assert "--install-completion" in _run("--help").stdout


@pytest.mark.parametrize("width", ["80", "100"])
def test_help_panels_come_in_the_order_in_which_people_need_them(yoloprune, monkeypatch, width) -> None:
    monkeypatch.setenv("COLUMNS", width)
    text = yoloprune("v8", "--help").stdout
    order = [text.index(f"─ {panel} ─") for panel in (
        "Target (exactly one)", "Data and device", "Pruning", "Training", "Output", "Weights"
    )]  # fmt: skip
    assert order == sorted(order)
    assert "─ Options ─" not in text
    assert "v8 [OPTIONS] [WEIGHTS] [KEY=VALUE]..." in text
    assert "default: (" not in text
    assert not {"<str>", "<bool>", "<list[str]>"} & set(text.split())
    assert max(map(len, text.splitlines())) <= int(width)
