"""The commands as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from tests.small_yolo import shallow_weights
from yoloprune.cli.app import app
from yoloprune.criteria import CRITERIA
from yoloprune.demo.digits import WEIGHTS

OPTIONS = """
--weights --target-gflops --target-params --target-ratio --data --imgsz --batch --device --epochs --lr0 --steps
--criterion --round-to --prune-head --keep --no-val --no-export --format --name --project --exist-ok --resume --seed
--trust --calibration-images
"""
PRUNE_ONLY = ("--epochs", 0, "--no-val", "--no-export", "--criterion", "l2", "--no-recover")


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)["model"].state_dict()


@pytest.fixture(scope="module")
def pruned(tmp_path_factory) -> Path:
    """The folder of a run that only prunes."""
    root = tmp_path_factory.mktemp("runs")
    words = ("v8", "--weights", WEIGHTS, "--target-gflops", 5.5, *PRUNE_ONLY, "--name", "a", "--project", root)
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "Before and after" in result.stdout
    return root / "a"


def test_prune_only(yoloprune, pruned, tmp_path) -> None:
    words = ("prune", "-w", WEIGHTS, "--target-gflops", 5.5, *PRUNE_ONLY, "--json", "--project", tmp_path)
    result = yoloprune(*words)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found.pop("save_dir") == str(tmp_path / "prune")
    assert found == json.loads((tmp_path / "prune" / "results.json").read_text())
    assert "✓ Prune to" in result.stderr
    first, second = pruned, tmp_path / "prune"
    assert (first / "plan.json").read_bytes() == (second / "plan.json").read_bytes()
    a, b = _weights(first / "pruned.pt"), _weights(second / "pruned.pt")
    assert all(torch.equal(a[name], b[name]) for name in a)
    names = {path.name for path in first.iterdir()}
    assert names == {
        "pruned.pt", "plan.json", "args.yaml", "results.json", "results.csv", "report", "report.html", "log.txt",
        "state.json",
    }  # fmt: skip
    results = json.loads((first / "results.json").read_text())
    assert results["finished"]
    assert 0.98 * 5.5 <= results["after"]["gflops"] <= 5.5
    assert results["after"]["params"] == sum(
        p.numel() for p in torch.load(first / "pruned.pt", weights_only=False)["model"].parameters()
    )
    assert results["before"]["params"] == 3_012_798
    assert yaml.safe_load((first / "args.yaml").read_text())["target_gflops"] == 5.5
    report = (first / "report.html").read_text()
    assert "yoloprune v8 --weights" in report


def test_name_taken_and_verbose_and_quiet(yoloprune, tmp_path) -> None:
    words = ("v8", "--weights", shallow_weights(), "--target-ratio", 0.8, *PRUNE_ONLY)
    words += ("--name", "a", "--project", tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pruned.pt").write_text("precious")
    loud = yoloprune(*words, "--verbose")
    assert loud.exit_code == 0
    assert "--- Prune to" in loud.stdout
    assert (tmp_path / "a" / "pruned.pt").read_text() == "precious"
    assert (tmp_path / "a-2" / "pruned.pt").exists()
    assert yoloprune(*words, "--exist-ok").exit_code == 2  # no run of ours
    assert (tmp_path / "a" / "pruned.pt").read_text() == "precious"
    before = (tmp_path / "a-2" / "pruned.pt").stat().st_mtime_ns
    still = yoloprune(*words, "--name", "a-2", "--exist-ok", "--quiet")
    assert still.exit_code == 0
    assert still.stdout.startswith("Before and after")
    assert "✓" not in still.stdout
    assert str(tmp_path) not in still.stdout
    assert still.stderr == ""
    assert (tmp_path / "a-2" / "pruned.pt").stat().st_mtime_ns > before
    assert not (tmp_path / "a-3").exists()


def test_recipe_without_validation_and_export(yoloprune, tmp_path) -> None:
    (tmp_path / "mine.yaml").write_text("target_ratio: 0.8\nval: false\nexport: null\ncriterion: l2\nrecover: false\n")
    where = ("--name", "a", "--project", tmp_path)
    result = yoloprune("prune", "--weights", shallow_weights(), "--recipe", tmp_path / "mine.yaml", *where)
    assert result.exit_code == 0, result.output
    assert not list(tmp_path.glob("a/*.onnx"))
    assert not json.loads((tmp_path / "a" / "results.json").read_text())["before"]["metrics"]


def test_finished_run_is_only_read(yoloprune, pruned) -> None:
    before = (pruned / "pruned.pt").stat().st_mtime_ns
    result = yoloprune("v8", "--resume", pruned)
    assert result.exit_code == 0
    assert "Before and after" in result.stdout
    assert (pruned / "pruned.pt").stat().st_mtime_ns == before


def test_val_and_export(yoloprune, tmp_path, few_digits) -> None:
    weights = tmp_path / "digits.pt"
    weights.write_bytes(WEIGHTS.read_bytes())
    result = yoloprune("val", weights, "--data", few_digits, "--imgsz", 160, "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["mAP50-95"] > 0.8
    assert figures["images"] == 8
    result = yoloprune("export", weights, "--imgsz", 160)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "digits.onnx").exists()
    assert "Pass (f32): " in result.stdout


def test_export_keywords(yoloprune, tmp_path) -> None:
    weights = tmp_path / "digits.pt"
    weights.write_bytes(WEIGHTS.read_bytes())
    result = yoloprune("export", weights, "--imgsz", 64, "batch=4")
    assert result.exit_code == 0, result.output
    assert "Pass (f32): " in result.stdout
    result = yoloprune("export", weights, "--imgsz", 64, "nms=True")
    assert result.exit_code == 0, result.output
    assert "Pass (f32): " in result.stdout


def test_imgsz_is_rounded_up_to_the_stride_once(yoloprune, few_digits, tmp_path) -> None:
    words = ("v8", "--weights", shallow_weights(), "--target-ratio", 0.8, "--epochs", 0, "--no-val", "--imgsz", 33)
    words += ("--criterion", "l2", "--no-recover")
    result = yoloprune(*words, "--name", "a", "--project", tmp_path)
    assert result.exit_code == 0, result.output
    rounded = "imgsz=33 is no multiple of the network's stride, 32; 64 is used instead."
    record = json.loads((tmp_path / "a" / "results.json").read_text())
    assert rounded in record["notes"]
    assert record["imgsz"] == yaml.safe_load((tmp_path / "a" / "args.yaml").read_text())["imgsz"] == 64
    assert record["export"]["difference"] < 1e-3
    assert record["export"]["check"].startswith("Pass (f32)")
    result = yoloprune("val", tmp_path / "a" / "pruned.pt", "--data", few_digits, "--json")
    assert json.loads(result.stdout)["imgsz"] == 64  # what the run took is the model's own
    result = yoloprune("export", tmp_path / "a" / "pruned.pt", "--imgsz", 33)
    assert result.exit_code == 0, result.output
    assert rounded in " ".join(result.stdout.split())


def test_what_a_run_leaves_is_validated_without_naming_its_data(yoloprune, tmp_path, few_digits) -> None:
    words = ("v8", "--weights", shallow_weights(), "--target-ratio", 0.8, "--epochs", 0, "--no-export", "--imgsz", 64)
    words += ("--prune-head", "--criterion", "l2", "--no-recover", "--data", few_digits)  # soon done
    result = yoloprune(*words, "--name", "a", "--project", tmp_path)
    assert result.exit_code == 0, result.output
    result = yoloprune("val", tmp_path / "a" / "pruned.pt", "--imgsz", 64, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == 8


def test_an_export_that_fails_is_noted_and_all_else_kept(yoloprune, tmp_path, monkeypatch) -> None:
    def fail(*args, **options):
        raise RuntimeError("an operator is missing")

    monkeypatch.setattr("yoloprune.detectors.ultralytics.exporting._Exporter", fail)
    words = ("v8", "--weights", shallow_weights(), "--target-ratio", 0.8, "--epochs", 0, "--no-val", "--imgsz", 64)
    words += ("--criterion", "l2", "--no-recover")
    result = yoloprune(*words, "--name", "a", "--project", tmp_path)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "a" / "results.json").read_text())
    assert record["finished"]
    assert record["export"] is None
    (note,) = (line for line in record["notes"] if "an operator is missing" in line)
    again = f"yoloprune export {tmp_path / 'a' / 'pruned.pt'} --format onnx --imgsz 64"
    assert note.endswith(again)
    assert again in (tmp_path / "a" / "report.html").read_text()


@pytest.mark.slow
def test_interrupt_and_resume(yoloprune, tmp_path, few_digits) -> None:
    """Ctrl-C in the middle of fine-tuning: the resumed run ends bit for bit where a whole one ends."""
    words = ["v8", "--weights", shallow_weights(), "--target-ratio", "0.7", "--data", few_digits]
    words += [
        "--steps",
        "2",
        "--epochs",
        "2",
        "--imgsz",
        "64",
        "--no-export",
        "--project",
        tmp_path,
        "plots=False",
        "close_mosaic=1",
        "nbs=48",
    ]
    words += ["--criterion", "l2", "--no-recover"]  # or pruning would take most of the time
    result = yoloprune(*words, "--name", "whole")
    assert result.exit_code == 0, result.output
    begun = tmp_path / "cut" / "steps" / "1" / "train" / "weights" / "continue.pt"
    code, said = _run([*words, "--name", "cut"], stop=signal.SIGINT, when=begun)
    assert code == 130
    assert f"continue with: yoloprune prune --resume {tmp_path / 'cut'}" in said
    assert "Traceback" not in said
    result = yoloprune("v8", "--resume", tmp_path / "cut")
    assert result.exit_code == 0, result.output
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert (whole / "plan.json").read_bytes() == (cut / "plan.json").read_bytes()
    a, b = _weights(whole / "pruned.pt"), _weights(cut / "pruned.pt")
    assert all(torch.equal(a[name], b[name]) for name in a)
    metrics = [json.loads((run / "results.json").read_text())["after"]["metrics"] for run in (whole, cut)]
    assert metrics[0] == metrics[1]
    rows = (cut / "results.csv").read_text().splitlines()
    assert len(rows) == 3  # a heading and two steps
    assert not [*cut.rglob("continue.pt"), *cut.rglob("start.pt")]


def _run(words: list, *, stop: signal.Signals, when: Path) -> tuple[int, str]:
    """Run the command line in a process and send it `stop` once the file `when` exists."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from yoloprune.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ) as run:
        while run.poll() is None and not when.exists():
            time.sleep(0.02)
        run.send_signal(stop)
        said = run.communicate()[0]
    return run.returncode, said


@pytest.mark.parametrize("command", ["v8", "prune"])
def test_help(yoloprune, command) -> None:
    text = yoloprune(command, "--help").stdout
    for option in OPTIONS.split():
        assert option in text
    for name in CRITERIA:
        assert name in text
    assert "Examples" in text


def test_help_needs_neither_torch_nor_ultralytics() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from yoloprune.cli.app import app; "
        "assert CliRunner().invoke(app, ['v8', '--help']).exit_code == 0; "
        "assert not {'torch', 'ultralytics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


PLAIN = ("--criterion", "l2", "--no-recover", "--project", "OUT")

NEW = {
    "inspect": ("inspect", "--json"),
    "val": ("val", "--data", "DATA", "--imgsz", "64", "--json"),
    "v8": ("v8", "--target-ratio", "0.8", "--epochs", "0", "--no-val", "--no-export", *PLAIN, "--json"),
    "export": ("export", "--imgsz", "64"),
}


_ONE_AFTER_ANOTHER = """
import json, sys
from yoloprune.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
    print(end="\\0")
"""


def test_nothing_of_ultralytics_reaches_the_screen_even_where_it_is_new(few_digits, tmp_path) -> None:
    places = {"DATA": str(few_digits), "OUT": str(tmp_path / "out")}
    weights = tmp_path / "digits.pt"
    weights.write_bytes(WEIGHTS.read_bytes())
    typed = [[*(places.get(word, word) for word in words), "-w", str(weights)] for words in NEW.values()]
    run = subprocess.run(
        [sys.executable, "-c", _ONE_AFTER_ANOTHER, json.dumps(typed)],
        env={**os.environ, "YOLO_CONFIG_DIR": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Ultralytics Settings" not in run.stdout + run.stderr
    assert "Ultralytics 8" not in run.stdout + run.stderr
    for words, said in zip(typed, run.stdout.split("\0"), strict=False):
        assert said.strip()
        if "--json" in words:
            assert json.loads(said)


def test_a_run_in_a_pipe_writes_lines_and_a_log(yoloprune, few_digits, tmp_path) -> None:
    words = ("v8", WEIGHTS, "--target-ratio", 0.8, "--prune-head", "--criterion", "l2", "--no-recover", "--epochs", 2)
    words += ("--data", few_digits, "--imgsz", 64, "--no-export", "--project", tmp_path, "--name", "a", "plots=False")
    result = yoloprune(*words)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert not {"\x1b", "\r"} & set(result.stdout)
    assert lines[0].startswith("yolov8n-digits.pt: YOLOv8 detect, 8.20 GFLOPs, 3.013M parameters, to be pruned to ")
    assert lines[1] == f"Recipe custom: 2 epochs, {few_digits}, images of 64 px"
    assert lines[2] == f"Output in {tmp_path / 'a'}; what Ultralytics says is in log.txt"
    begun = [line.partition(" (")[0] for line in lines]
    epochs = [line.partition(":")[0] for line in lines if line.startswith("  epoch")]
    assert epochs == ["  epoch 1 of 2", "  epoch 2 of 2"]
    assert begun.index("✓ Validate the original") < begun.index("✓ Fine-tune for 2 epochs")
    log = (tmp_path / "a" / "log.txt").read_text()
    for said in ("--- Fine-tune for 2 epochs", "engine/trainer:", "Scanning", "box_loss", "2 epochs completed"):
        assert said in log
        assert said not in result.output
    assert not {"\x1b", "\r"} & set(log)


def test_a_dry_run_says_what_the_run_then_does_and_writes_nothing(yoloprune, tmp_path, few_digits) -> None:
    (tmp_path / "runs" / "prune").mkdir(parents=True)
    words = (
        "v8",
        shallow_weights(),
        "-g",
        "2.4G",
        "--data",
        few_digits,
        "--imgsz",
        64,
        "--prune-head",
        "--criterion",
        "l2",
    )
    words += (
        "--max-pruning-ratio",
        0.9,
        "--calibration-images",
        4,
        "--epochs",
        0,
        "--no-export",
        "--project",
        tmp_path / "runs",
    )
    before = sorted(path for path in tmp_path.rglob("*"))
    text = yoloprune(*words, "--dry-run")
    assert text.exit_code == 0, text.output
    planned = json.loads(yoloprune(*words, "--dry-run", "--json").stdout)
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert planned["todo"] == [
        "validate the original",
        "prune to 2.40 GFLOPs and recover",
        "validate and measure latency",
    ]
    assert planned["save_dir"] == str(tmp_path / "runs" / "prune-2")
    done = yoloprune(*words, "--json")
    record = json.loads(done.stdout)
    assert record["save_dir"] == planned["save_dir"]
    assert [record["after"][name] for name in ("gflops", "params")] == [
        planned["after"][name] for name in ("gflops", "params")
    ]
    assert record["widths"] == planned["widths"]
    assert "This was a dry run: nothing is written." in text.stdout
    assert f"{record['after']['gflops']:.2f}" in text.stdout


def test_ctrl_c_in_a_phase_is_one_line(yoloprune, tmp_path, monkeypatch) -> None:
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("yoloprune.pipeline.steps.prune_once", stop)
    words = ("v8", shallow_weights(), "--target-ratio", 0.8, *PRUNE_ONLY, "--name", "a b", "--project", tmp_path)
    result = yoloprune(*words)
    assert result.exit_code == 130
    again = f"yoloprune prune --resume '{tmp_path / 'a b'}'"
    assert result.stderr == f"yoloprune: Interrupted (nothing finished yet); continue with: {again}\n"
    monkeypatch.undo()
    assert yoloprune("prune", "--resume", tmp_path / "a b").exit_code == 0


def test_export_in_half_precision_as_it_used_to_be_said(yoloprune, tmp_path) -> None:
    weights = tmp_path / "digits.pt"
    weights.write_bytes(WEIGHTS.read_bytes())
    result = yoloprune("export", weights, "--imgsz", 64, "half=True")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "digits.onnx").stat().st_size < 1.2 * weights.stat().st_size  # float16, as the checkpoint
    assert f"Wrote {tmp_path / 'digits.onnx'}" in result.stdout


def test_inspect(yoloprune) -> None:
    result = yoloprune("inspect", WEIGHTS, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["family"] == "v8"
    assert found["reach"]["max_params"] == 3_012_798
    assert sum(layer["share"] for layer in found["layers"]) == pytest.approx(1)
    groups = {group["number"]: group for group in found["groups"]}
    halves = [group for group in groups.values() if group["name"] == "model.2.cv1.conv"]
    assert [group["width"] for group in halves] == [16, 16]  # the two chunks of a C2f
    assert [group["tied"] for group in halves] == [[group["number"] for group in halves]] * 2
    classes = next(group for group in groups.values() if group["name"] == "model.22.cv3.0.2")
    assert classes["frozen"]
    assert "fixed size" in classes["reason"]  # the head's view(batch, self.no, -1)
    assert classes["why"] == "the head's predictions: boxes, classes and the like"
    parts = {part["name"]: part for part in found["parts"]}
    assert [part["modules"] for part in parts.values()] == ["model.0 to model.9", "model.10 to model.21", "model.22"]
    for figure, total in (("gflops", "max_gflops"), ("min_gflops", "min_gflops"), ("params", "max_params")):
        assert sum(part[figure] for part in parts.values()) == pytest.approx(found["reach"][total])
    assert parts["head"]["min_gflops"] / parts["head"]["gflops"] > parts["neck"]["min_gflops"] / parts["neck"]["gflops"]
    kept = json.loads(yoloprune("inspect", WEIGHTS, "--json", "--keep", "model.2.*").stdout)["groups"]
    for block, reason, why in (("model.2.", "is kept on request", "asked for by --keep"), ("model.4.", "", "")):
        assert {(g["reason"], g["why"]) for g in kept if g["name"].startswith(block)} == {(reason, why)}


def test_the_page_of_inspect_fits_and_ends_with_what_matters(yoloprune, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = [line.rstrip() for line in yoloprune("inspect", WEIGHTS).stdout.splitlines()]
    assert max(map(len, lines)) <= 100
    assert lines[-1] == "8.20 GFLOPs can be pruned to 1.75, and 3.013M parameters to 0.284M."
    titles = [line for line in lines if line.startswith(("Layers", "Channels", "Backbone"))]
    assert titles == [
        "Layers and what they cost",
        "Channels that may go",
        "Channels that stay, and why",
        "Backbone, neck and head, and how much of each can go at multiples of 8",
    ]
    tail = [" ".join(line.split()) for line in lines[-10:]]
    assert "head model.22 3.01 37% 50% 753,262 25% 65%" in tail
    assert "all 8.20 100% 79% 3,012,798 100% 91%" in tail
    text = " ".join(" ".join(lines).split())
    assert "in the head, which is pruned with 768" in text
