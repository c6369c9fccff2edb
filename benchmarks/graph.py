"""Time and memory of tracing, grouping, planning and applying, beside torch-pruning in the same run.

    python benchmarks/graph.py --json benchmarks/graph.json

Each measurement has a process of its own, 120 s and 8 GB; where it fails or does not end, that is the result. Rows that
the JSON file holds of the same machine and settings are not measured again: an interrupted run goes on where it was.
benchmarks/README.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from graph_models import TORCHVISION, YOLO, inputs
from limits import machine, measure
from rich.console import Console
from rich.progress import track
from rich.table import Table

WORKER = Path(__file__).with_name("graph_worker.py")
SETUP = ("trace", "groups")
STEP = ("score", "plan", "apply", "step")
FORWARD = "one forward pass"
SECONDS, GIGABYTES = 120, 8
PACKAGES = ("torch", "torchvision", "ultralytics", "yoloprune", "torch-pruning")


def tools(model: str) -> list[tuple[str, str, int]]:
    """Label, argument of the worker and pixels of each case of a model, the smaller inputs first."""
    small, usual = inputs(model)
    ours = [(FORWARD, "forward", small), ("yoloprune", "yoloprune", small)]
    sizes = sorted({small, usual})
    if not model.startswith("yolov8"):
        return ours + [("torch-pruning", "torch-pruning", pixels) for pixels in sizes]
    stock = [("torch-pruning, stock model", "torch-pruning", pixels) for pixels in sizes]
    return ours + stock + [("torch-pruning, C2f replaced", "torch-pruning-replaced", pixels) for pixels in sizes]


def rows(models: Sequence[str], threads: int, repeat: int, known: Sequence[dict]) -> Iterator[dict]:
    """Measure every tool on every model and yield one row each; what ran out of time is not tried with more pixels."""
    measured = {(row["model"], row["tool"], row["pixels"]): row for row in known}
    cases = [(model, *tool) for model in models for tool in tools(model)]
    ended = set()
    for model, label, tool, pixels in track(cases, "Measuring", console=Console(stderr=True)):
        if (model, tool) in ended:
            continue
        key = {"model": model, "tool": label, "pixels": pixels}
        row = measured.get(tuple(key.values())) or key | case(model, tool, pixels, threads, repeat)
        if row["result"] == "time-out":
            ended.add((model, tool))
        yield row


def case(model: str, tool: str, pixels: int, threads: int, repeat: int) -> dict:
    """Measure one tool on one model, in a process for each repetition."""
    runs = []
    for _ in range(repeat):
        arguments = (tool, model, str(pixels), str(threads))
        runs.append(measure(WORKER, *arguments, threads=threads, seconds=SECONDS, gigabytes=GIGABYTES))
        if runs[-1]["result"] != "ok":  # it would only fail again
            break
    return summary(runs)


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
        "processor_setup_s": median(SETUP, "processor"),
        "processor_s": median(SETUP + STEP, "processor"),
        "peak_mb": statistics.median(run["peak_mb"] for run in runs),
        "setup_added_mb": statistics.median(
            max(run["mb"].get(stage, 0.0) for stage in SETUP) - run["before_mb"] for run in runs
        ),
        "added_mb": statistics.median(run["peak_mb"] - run["before_mb"] for run in runs),
        **{key: last[key] for key in ("groups", "labels", "layers") if key in last},
        "parameters_kept": last["parameters_kept"],
    }


def add_ratios(table: list[dict]) -> None:
    """Give each row its processor times over those of yoloprune on the same model, where both ended."""
    ours = {row["model"]: row for row in table if row["tool"] == "yoloprune" and row["result"] == "ok"}
    for row in table:
        if row["tool"] != FORWARD and row["result"] == "ok" and (own := ours.get(row["model"])):
            row["setup_ratio"] = row["processor_setup_s"] / own["processor_setup_s"]
            row["ratio"] = row["processor_s"] / own["processor_s"]


def means(table: list[dict]) -> dict[str, dict[str, float]]:
    """Geometric means of the ratios over the models where torch-pruning ended, by size of its input."""
    found = {}
    for place, name in enumerate(("smallest input", "usual input")):
        chosen = [
            row
            for row in table
            if "ratio" in row and row["tool"] != "yoloprune" and row["pixels"] == inputs(row["model"])[place]
        ]
        if chosen:
            found[name] = {"models": len(chosen)} | {
                key: math.exp(statistics.mean(math.log(row[key]) for row in chosen)) for key in ("setup_ratio", "ratio")
            }
    return found


def render(table: list[dict]) -> Iterator[Table]:
    """Yield the comparison, the stages of yoloprune and the mean ratios."""
    comparison = Table(title="Processor seconds and peak memory")
    for column in ("model", "tool", "px"):
        comparison.add_column(column)
    for column in ("set-up", "step", "total", "set-up ratio", "ratio", "peak MB", "set-up: added MB", "added MB"):
        comparison.add_column(column, justify="right")
    comparison.add_column("result")
    stages = Table(title="yoloprune by stage, processor seconds")
    stages.add_column("model")
    for column in ("trace", "score", "plan", "apply", "groups found"):
        stages.add_column(column, justify="right")
    for row in table:
        figures = [""] * 8
        result = row["result"] + (f" ({row['stage']})" if row.get("stage") else "")
        if row["result"] == "ok":
            setup, total = row["processor_setup_s"], row["processor_s"]
            figures = [f"{seconds:.3f}" for seconds in (setup, total - setup, total)]
            figures += [f"{row[key]:.1f}" if key in row else "" for key in ("setup_ratio", "ratio")]
            figures += [f"{row[key]:.0f}" for key in ("peak_mb", "setup_added_mb", "added_mb")]
            if row["tool"] == "yoloprune":
                seconds = [f"{row['processor'][stage]:.3f}" for stage in ("trace", "score", "plan", "apply")]
                stages.add_row(row["model"], *seconds, str(row["groups"]))
        comparison.add_row(row["model"], row["tool"], str(row["pixels"]), *figures, result)
    yield comparison
    yield stages
    mean = Table("torch-pruning's", "models", "set-up ratio", "ratio", title="Geometric means")
    for name, of in means(table).items():
        mean.add_row(name, str(of["models"]), f"{of['setup_ratio']:.1f}", f"{of['ratio']:.1f}")
    yield mean


def main() -> None:
    """Measure, print the tables and, if asked, write everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", choices=YOLO + TORCHVISION, default=YOLO + TORCHVISION, help="default: all"
    )
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--repeat", type=int, default=3, help="processes per case; the median counts; default: 3")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    about = machine(*PACKAGES) | {"threads": str(options.threads), "repeat": str(options.repeat)}
    found = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    known = found["rows"] if found.get("machine") == about else []
    table: list[dict] = []
    for row in rows(options.models, options.threads, options.repeat, known):
        table.append(row)
        add_ratios(table)
        if options.json:
            found = {"machine": about, "rows": table, "means": means(table)}
            options.json.write_text(json.dumps(found, indent=1) + "\n")
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(", ".join(f"{key} {value}" for key, value in about.items()), highlight=False)
    for part in render(table):
        console.print(part)


if __name__ == "__main__":
    main()
