"""One measurement of benchmarks/graph.py: `graph_worker.py TOOL MODEL PIXELS THREADS` prints one JSON object.

The model has random weights. The clock runs after imports and construction, without a warm-up: whoever prunes a model
does it once.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import sys
import time
from collections.abc import Iterator

import torch
from graph_models import build, inputs
from measures import forget_peak, peak_megabytes
from torch import nn

RATIO = 0.5  # of the channels for torch-pruning, of the MACs for yoloprune


class Clock:
    """Wall-clock and processor seconds and peak memory by stage; after an exception, `stage` is the one that failed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self.megabytes: dict[str, float] = {}
        self.stage = ""

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one stage."""
        self.stage = stage
        start, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds[stage] = time.perf_counter() - start
        self.processor[stage] = time.process_time() - processor
        self.megabytes[stage] = peak_megabytes()


def measure_forward(model: nn.Module, yolo: bool, clock: Clock, pixels: int) -> tuple[nn.Module, dict]:
    """A plain forward pass, beside which a trace can be seen."""
    with clock("trace"), torch.inference_mode():
        model(torch.zeros(1, 3, pixels, pixels))
    return model, {}


def measure_yoloprune(model: nn.Module, yolo: bool, clock: Clock, pixels: int) -> tuple[nn.Module, dict]:
    """Time ours: trace with groups, group L2 scores, a budget plan at half the MACs in multiples of 8, in place."""
    from yoloprune.criteria import score
    from yoloprune.detectors.ultralytics.trace import trace_yolo
    from yoloprune.graph import trace

    with clock("trace"):  # groups included
        graph = trace_yolo(model) if yolo else trace(model, torch.zeros(1, 3, pixels, pixels))
    with clock("score"):
        scores = score(graph, model, "l2")
    with clock("plan"):
        plan = graph.budget_plan(scores, target_macs=int(RATIO * graph.macs()), round_to=8)
    with clock("apply"):
        plan.apply_(model)
    return model, {"groups": len(graph.groups), "labels": len(graph.component)}


def measure_torch_pruning(model: nn.Module, yolo: bool, clock: Clock, pixels: int) -> tuple[nn.Module, dict]:
    """Time torch-pruning as its README uses it: pruner (with the dependency graph), all groups, one step in place.

    The classifier or the head stays, and it is told the numbers of heads.
    """
    import torch_pruning as tp

    for parameter in model.parameters():
        parameter.requires_grad_(True)
    example = torch.zeros(1, 3, pixels, pixels)
    last = model.model[-1] if yolo else [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    heads = {m: m.num_heads for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    with clock("trace"):
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(),
            pruning_ratio=RATIO,
            ignored_layers=[last],
            num_heads=heads,
            round_to=8,
        )
    with clock("groups"):
        groups = list(pruner.DG.get_all_groups(ignored_layers=pruner.ignored_layers))
    with clock("step"):
        pruner.step()
    return model, {"groups": len(groups)}


def main(tool: str, name: str, pixels: int, threads: int) -> dict:
    """Build the model, measure one tool and check that the pruned network runs."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    importlib.import_module(
        {"yoloprune": "yoloprune.detectors.ultralytics.trace", "forward": "torch"}.get(tool, "torch_pruning")
    )
    model = build(name)
    yolo = name.startswith("yolov8")
    if tool == "torch-pruning-replaced":
        from graph_c2f import replace_c2f

        replace_c2f(model)
    parameters = sum(p.numel() for p in model.parameters())
    gc.collect()
    gc.freeze()  # or a full collection of what the libraries hold, a tenth of a second, lands in some stage by chance
    forget_peak()
    clock, before = Clock(), peak_megabytes()
    row: dict = {"before_mb": before, "seconds": clock.seconds, "processor": clock.processor, "mb": clock.megabytes}
    row["layers"] = sum(isinstance(m, (nn.modules.conv._ConvNd, nn.Linear)) for m in model.modules())
    measured = {"yoloprune": measure_yoloprune, "forward": measure_forward}.get(tool, measure_torch_pruning)
    try:
        pruned, found = measured(model, yolo, clock, pixels)
        row |= found
        row["peak_mb"] = peak_megabytes()
        row["parameters_kept"] = sum(p.numel() for p in pruned.parameters()) / parameters
        clock.stage = "run the pruned network"
        with torch.inference_mode():
            smallest = inputs(name)[0]
            pruned(torch.zeros(1, 3, smallest, smallest))
    except Exception as error:  # whatever it is, it is the result
        return {**row, "result": type(error).__name__, "stage": clock.stage, "message": str(error)[:300]}
    return {**row, "result": "ok"}


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):
        outcome = main(arguments[0], arguments[1], int(arguments[2]), int(arguments[3]))
    print(json.dumps(outcome))
