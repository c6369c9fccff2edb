"""Time and memory of tracing, grouping, planning and applying on YOLOv8 n to x, beside torch-pruning in the same run.

    python benchmarks/graph.py --json benchmarks/graph.json

Each measurement has a process of its own, 120 s and 8 GB; where it fails or does not end, that is the result.
benchmarks/README.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from limits import machine, measure
from rich.console import Console
from rich.progress import track
from rich.table import Table

WORKER = Path(__file__).with_name("graph_worker.py")
MODELS = ("yolov8n", "yolov8s", "yolov8m", "yolov8l", "yolov8x")
TOOLS = (
    # label, argument of the worker, example input in pixels (yoloprune chooses its own)
    ("yoloprune", "yoloprune", None),
    ("torch-pruning, stock model", "torch-pruning", 64),
    ("torch-pruning, stock model", "torch-pruning", 640),
    ("torch-pruning, C2f replaced", "torch-pruning-replaced", 64),
    ("torch-pruning, C2f replaced", "torch-pruning-replaced", 640),
)
SETUP = ("trace", "groups")
STEP = ("score", "plan", "apply", "step")
SECONDS, GIGABYTES = 120, 8
PACKAGES = ("torch", "ultralytics", "yoloprune", "torch-pruning")


def rows(models: tuple[str, ...], threads: int, repeat: int) -> Iterator[dict]:
    """Measure every tool on every model and yield one row each."""
    cases = [(model, *tool) for model in models for tool in TOOLS]
    for model, label, tool, pixels in track(cases, "Measuring", console=Console(stderr=True)):
        runs = []
        for _ in range(repeat):
            arguments = (tool, model, str(pixels or 0), str(threads))
            runs.append(measure(WORKER, *arguments, threads=threads, seconds=SECONDS, gigabytes=GIGABYTES))
            if runs[-1]["result"] != "ok":  # it would only fail again
                break
        yield {"model": model, "tool": label, "pixels": pixels, **summary(runs)}


def summary(runs: list[dict]) -> dict:
    """Medians over the runs of one case; a failure stands for the case."""
    last = runs[-1]
    row = {"result": last["result"], "runs": runs}
    if last["result"] != "ok":
        return row | {key: last[key] for key in ("stage", "message") if key in last}

    def median(stages: tuple[str, ...], clock: str = "seconds") -> float:
        return statistics.median(sum(run[clock].get(stage, 0.0) for stage in stages) for run in runs)

    return row | {
        "processor": {stage: median((stage,), "processor") for stage in last["processor"]},
        "setup_s": median(SETUP),
        "step_s": median(STEP),
        "total_s": median(SETUP + STEP),
        "processor_s": median(SETUP + STEP, "processor"),
        "peak_mb": statistics.median(run["peak_mb"] for run in runs),
        "added_mb": statistics.median(run["peak_mb"] - run["before_mb"] for run in runs),
        "groups": last["groups"],
        "parameters_kept": last["parameters_kept"],
    }


def add_ratios(table: list[dict]) -> None:
    """Give each row `ratio`, its processor time over that of yoloprune on the same model, where both ended."""
    ours = {row["model"]: row["processor_s"] for row in table if row["tool"] == "yoloprune" and row["result"] == "ok"}
    for row in table:
        if row["result"] == "ok" and row["model"] in ours:
            row["ratio"] = row["processor_s"] / ours[row["model"]]


def render(table: list[dict]) -> Iterator[Table]:
    """Yield the comparison and the stages of yoloprune."""
    comparison = Table(title="Seconds and peak memory")
    for column in ("model", "tool", "input"):
        comparison.add_column(column)
    for column in ("set-up", "step", "total", "CPU s", "ratio", "peak MB", "added MB"):
        comparison.add_column(column, justify="right")
    comparison.add_column("result")
    stages = Table(title="yoloprune by stage, processor seconds")
    stages.add_column("model")
    for column in ("trace", "score", "plan", "apply", "groups found"):
        stages.add_column(column, justify="right")
    model = None
    for row in table:
        if model is not None and row["model"] != model:
            comparison.add_section()
        model = row["model"]
        figures = [""] * 7
        result = row["result"] + (f" ({row['stage']})" if row.get("stage") else "")
        if row["result"] == "ok":
            figures = [f"{row[key]:.3f}" for key in ("setup_s", "step_s", "total_s", "processor_s")]
            figures.append(f"{row['ratio']:.1f}" if "ratio" in row else "")
            figures += [f"{row[key]:.0f}" for key in ("peak_mb", "added_mb")]
            if row["tool"] == "yoloprune":
                seconds = [f"{row['processor'][stage]:.3f}" for stage in ("trace", "score", "plan", "apply")]
                stages.add_row(model, *seconds, str(row["groups"]))
        comparison.add_row(model, row["tool"], f"{row['pixels']} px" if row["pixels"] else "own", *figures, result)
    yield comparison
    yield stages


def main() -> None:
    """Measure, print the tables and, if asked, write everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="default: all")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--repeat", type=int, default=3, help="processes per case; the median counts; default: 3")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    about = machine(*PACKAGES) | {"threads": str(options.threads), "repeat": str(options.repeat)}
    table = list(rows(tuple(options.models), options.threads, options.repeat))
    add_ratios(table)
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(", ".join(f"{key} {value}" for key, value in about.items()), highlight=False)
    for part in render(table):
        console.print(part)
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "rows": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
