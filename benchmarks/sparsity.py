"""Group-sparse training: what the regulariser costs, and what it does to the scores of channels.

    python benchmarks/sparsity.py cost
    python benchmarks/sparsity.py scores --epochs 10 --runs none:0 group:0.003 layer:0.003 bn:0.01

The first times the regulariser beside a training step, and torch-pruning's in the same process. The second trains the
embedded digits detector and says how far the channels separate, how consistently the members of a group do, and what
is left right after half of the MACs are gone. sparsity.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch_pruning
import torchvision
from limits import machine
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import select_device

from yoloprune import detectors
from yoloprune.criteria import score
from yoloprune.criteria.labels import slice_sums, weights
from yoloprune.demo import digits
from yoloprune.detectors.base import Training
from yoloprune.detectors.ultralytics.calibration_data import calibration_batches
from yoloprune.detectors.ultralytics.guard import quiet
from yoloprune.detectors.ultralytics.model import YOLO, with_network
from yoloprune.detectors.ultralytics.trace import trace_yolo
from yoloprune.detectors.ultralytics.validation import validate
from yoloprune.graph import Graph, trace
from yoloprune.recovery import recalibrate_bn
from yoloprune.sparsity import SCOPES, GroupSparsity, Sparsity

BATCH = 8
PACKAGES = ("torch", "torchvision", "ultralytics", "yoloprune", "torch-pruning")
RECIPE = {  # few epochs, on one core
    "lr0": 0.01,
    "nbs": 16,
    "warmup_epochs": 0,
    "mosaic": 0.0,
    "fliplr": 0.0,
    "workers": 0,
    "plots": False,
    "val": False,
    "cache": "ram",
    "amp": False,
}


def median_seconds(function: Callable[[], object], repeat: int, device: torch.device) -> float:
    """The median processor time of a call, which other processes hardly move, after one that is not counted.

    On a GPU the wall time until it is done.
    """

    def now() -> float:
        if device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(device)
        return time.perf_counter()

    function()
    times = []
    for _ in range(repeat):
        start = now()
        function()
        times.append(now() - start)
    return statistics.median(times)


def yolov8n(device: torch.device) -> tuple[nn.Module, torch.Tensor, Callable[[], torch.Tensor], Graph]:
    """YOLOv8n at 320 px: the model, an example input, its loss on random images and boxes, and its graph."""
    model = DetectionModel("yolov8n.yaml", verbose=False).to(device)
    model.args = get_cfg()
    images = torch.rand(BATCH, 3, 320, 320, device=device)
    boxes = 4 * BATCH
    batch = {
        "img": images,
        "batch_idx": torch.arange(BATCH).repeat_interleave(4).float(),
        "cls": torch.randint(80, (boxes, 1)).float(),
        "bboxes": torch.cat([torch.rand(boxes, 2) * 0.6 + 0.2, torch.rand(boxes, 2) * 0.3 + 0.1], 1),
    }
    batch = {key: value.to(device) for key, value in batch.items()}
    return model, images[:1], lambda: model(batch)[0].sum(), trace_yolo(model, prune_head=True)


def resnet50(device: torch.device) -> tuple[nn.Module, torch.Tensor, Callable[[], torch.Tensor], Graph]:
    """ResNet-50 at 224 px, likewise."""
    model = torchvision.models.resnet50().to(device)
    images, labels = torch.rand(BATCH, 3, 224, 224, device=device), torch.randint(1000, (BATCH,), device=device)
    loss = nn.CrossEntropyLoss()
    return model, images[:1], lambda: loss(model(images), labels), trace(model, images[:1])


def cost(repeat: int, device: torch.device) -> Iterator[dict]:
    """Time a step and each regulariser, one row each."""
    # YOLOv8n last: on a GPU torch-pruning reads out of bounds there, which ends the process's use of it
    for name, build in (("ResNet-50, 224 px", resnet50), ("YOLOv8n, 320 px", yolov8n)):
        model, example, loss, graph = build(device)
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)

        def step(loss: Callable = loss, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad(set_to_none=False)  # so that there are gradients to add to afterwards
            loss().backward()
            optimizer.step()

        seconds = median_seconds(step, repeat, device)
        for tool, regularise in (
            *((f"yoloprune, {scope}", _ours(graph, model, scope)) for scope in SCOPES),
            ("torch-pruning", _torch_pruning(model, example)),
        ):
            row = {"model": name, "tool": tool, "step_s": seconds, "result": "ok"}
            try:
                row["seconds"] = median_seconds(regularise(), 3 * repeat, device)
                row["share"] = row["seconds"] / seconds
            except Exception as error:
                row["result"] = type(error).__name__
            yield row


def _ours(graph: Graph, model: nn.Module, scope: str) -> Callable[[], Callable]:
    return lambda: GroupSparsity(graph, model, strength=1e-6, scope=scope)


def _torch_pruning(model: nn.Module, example: torch.Tensor) -> Callable[[], Callable]:
    def build() -> Callable:
        head = [model.model[-1]] if hasattr(model, "model") else [model.fc]
        pruner = torch_pruning.pruner.GroupNormPruner(
            model, example, torch_pruning.importance.GroupMagnitudeImportance(), reg=1e-6, ignored_layers=head
        )
        pruner.update_regularizer()
        return lambda: pruner.regularize(model)

    return build


def consistency(graph: Graph, model: nn.Module) -> float:
    """How alike the members of a group rank its channels: mean Spearman correlation over pairs of its parameters.

    Each group counts by its channels; groups with one parameter are left out.
    """
    squares = {name: tensor.double().square() for name, tensor in weights(graph, model).items()}
    vectors = dict(slice_sums(graph, squares))
    total = channels = 0.0
    for group in (g for g in graph.groups if not g.frozen and g.size > 2):
        inside = np.zeros(graph.n_components, bool)
        inside[group.components] = True
        ranks = []
        for start, vector in vectors.items():
            component = graph.component[start : start + len(vector)]
            own = inside[component]
            if own.any():
                sums = np.bincount(component[own], weights=vector[own], minlength=graph.n_components)
                ranks.append(rankdata(sums[group.components]))
        pairs = [np.corrcoef(a, b)[0, 1] for a, b in itertools.combinations(ranks, 2) if a.std() and b.std()]
        if pairs:
            total, channels = total + float(np.mean(pairs)) * group.size, channels + group.size
    return total / channels


def scores(runs: list[tuple[str, float]], epochs: int, growth: float) -> Iterator[dict]:
    """Train the digits detector once for each (scope, strength) and describe what comes out."""
    with tempfile.TemporaryDirectory() as scratch:
        data = digits.write(Path(scratch) / "digits")
        for scope, strength in runs:
            options = Sparsity(strength=strength, scope="group" if scope == "none" else scope, growth=growth)
            start = time.perf_counter()
            with quiet():
                asked = Training(
                    data=str(data),
                    epochs=epochs,
                    imgsz=160,
                    batch=16,
                    device="cpu",
                    seed=0,
                    sparsity=options,
                    prune_head=True,
                    keywords=RECIPE,
                    instead="leave it out",
                )
                folder = Path(scratch) / f"{scope}-{strength:g}"
                yolo = detectors.load(digits.WEIGHTS).train(digits.WEIGHTS, folder, asked).detector.model
            seconds = time.perf_counter() - start
            yield {"scope": scope, "strength": strength, "train_s": seconds, **_describe(yolo, data)}


def _describe(yolo: YOLO, data: Path) -> dict:
    graph = trace_yolo(yolo.model, prune_head=True)
    relative = score(graph, yolo.model, "l2")[~graph.frozen]
    images = [
        batch["img"]
        for batch in calibration_batches(
            yolo, str(data), images=128, imgsz=160, batch=16, device=next(yolo.model.parameters()).device
        )
    ]
    halves = {}
    for criterion in ("l2", "bn_scale"):
        ranking = score(graph, yolo.model, criterion)
        halves[criterion] = graph.budget_plan(ranking, target_macs=0.5 * graph.macs(), round_to=8)
    row = {
        "below_0.1": float((relative < 0.1).mean()),
        "below_0.01": float((relative < 0.01).mean()),
        "q10": float(np.quantile(relative, 0.1)),
        "consistency": consistency(graph, yolo.model),
    }
    row["whole"] = _map(yolo, data)
    for name, network in ((f"half_{name}", plan.apply(yolo.model)) for name, plan in halves.items()):
        row[name] = _map(with_network(yolo, network), data)
        recalibrate_bn(network, images)
        row[f"{name}_bn"] = _map(with_network(yolo, network), data)
    return row


def _map(yolo: YOLO, data: Path) -> float:
    with quiet():
        return validate(yolo, data, imgsz=160, batch=16, device="cpu").map


def _table(rows: list[dict]) -> Table:
    table = Table()
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        cells = (row.get(column, "") for column in rows[0])
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells))
    return table


def _run(text: str) -> tuple[str, float]:
    scope, _, strength = text.partition(":")
    if scope not in {"none", *SCOPES}:
        raise argparse.ArgumentTypeError(f"{scope!r} is none of none, {', '.join(SCOPES)}")
    return scope, float(strength)


def main() -> None:
    """Measure, print the table and, if asked, write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("cost", "scores"))
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--repeat", type=int, default=5, help="training steps that are timed; default: 5")
    parser.add_argument("--device", default="cpu", help="of the costs, as Ultralytics takes it; default: cpu")
    parser.add_argument("--runs", nargs="+", type=_run, default=[("none", 0.0), ("group", 3e-3)], help="SCOPE:STRENGTH")
    parser.add_argument("--epochs", type=int, default=10, help="default: 10")
    parser.add_argument("--growth", type=float, default=1.0, help="default: 1")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    about = machine(*PACKAGES) | {"threads": str(options.threads)}
    if options.what == "cost":
        found = cost(options.repeat, select_device(options.device, verbose=False))
    else:
        found = scores(options.runs, options.epochs, options.growth)
    rows = []
    for row in found:
        print(json.dumps(row), file=sys.stderr, flush=True)
        rows.append(row)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(", ".join(f"{key} {value}" for key, value in about.items()), highlight=False)
    console.print(_table(rows))
    if options.json:
        options.json.write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
