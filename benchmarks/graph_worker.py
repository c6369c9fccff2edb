"""One measurement of benchmarks/graph.py: `graph_worker.py TOOL MODEL PIXELS THREADS` prints one JSON object.

The model has random weights. The clock runs after imports and construction, without a warm-up: whoever prunes a model
does it once.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator

import torch
from measures import forget_peak, peak_megabytes
from torch import nn
from ultralytics.nn.modules import Bottleneck, C2f, Conv, Detect
from ultralytics.nn.tasks import DetectionModel

RATIO = 0.5  # of the channels for torch-pruning, of the MACs for yoloprune


class Clock:
    """Wall-clock and processor seconds by stage; after an exception, `stage` is the one that failed."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self.stage = ""

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one stage."""
        self.stage = stage
        start, processor = time.perf_counter(), time.process_time()
        yield
        self.seconds[stage] = time.perf_counter() - start
        self.processor[stage] = time.process_time() - processor


class C2fTwoConvolutions(nn.Module):
    """C2f with its split first convolution as two, which is what torch-pruning's YOLOv8 example calls C2f_v2."""

    def __init__(self, c2f: C2f) -> None:
        super().__init__()
        c, first = c2f.c, c2f.cv1.conv
        self.cv0 = Conv(first.in_channels, c, 1, 1)
        self.cv1 = Conv(first.in_channels, c, 1, 1)
        self.cv2, self.m = c2f.cv2, c2f.m
        self.f, self.i, self.type = c2f.f, c2f.i, c2f.type  # where Ultralytics' graph puts the layer
        whole = c2f.cv1.state_dict()
        for half, part in ((self.cv0, slice(0, c)), (self.cv1, slice(c, None))):
            half.load_state_dict({name: value[part] if value.ndim else value for name, value in whole.items()})
            half.bn.eps, half.bn.momentum = c2f.cv1.bn.eps, c2f.cv1.bn.momentum

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As C2f, (N, c1, H, W) to (N, c2, H, W)."""
        y = [self.cv0(x), self.cv1(x)]
        y.extend(block(y[-1]) for block in self.m)
        return self.cv2(torch.cat(y, 1))


def replace_c2f(module: nn.Module) -> None:
    """Replace every C2f below `module` in place."""
    for name, child in module.named_children():
        if isinstance(child, C2f):
            setattr(module, name, C2fTwoConvolutions(child))
        elif not isinstance(child, Bottleneck):
            replace_c2f(child)


def measure_yoloprune(model: nn.Module, clock: Clock) -> tuple[nn.Module, int]:
    """Time ours: trace with groups, group L2 scores, a budget plan at half the MACs in multiples of 8, apply."""
    from yoloprune.criteria import score
    from yoloprune.yolo.trace import trace_yolo

    with clock("trace"):  # groups included
        graph = trace_yolo(model)
    with clock("score"):
        scores = score(graph, model, "l2")
    with clock("plan"):
        plan = graph.budget_plan(scores, target_macs=int(RATIO * graph.macs()), round_to=8)
    with clock("apply"):
        pruned = plan.apply(model)
    return pruned, len(graph.groups)


def measure_torch_pruning(model: nn.Module, clock: Clock, pixels: int) -> tuple[nn.Module, int]:
    """Time torch-pruning as its README uses it: pruner (with the dependency graph), all groups, one step in place."""
    import torch_pruning as tp

    for parameter in model.parameters():
        parameter.requires_grad_(True)
    example = torch.zeros(1, 3, pixels, pixels)
    head = [module for module in model.modules() if isinstance(module, Detect)]
    with clock("trace"):
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=tp.importance.GroupMagnitudeImportance(),
            pruning_ratio=RATIO,
            ignored_layers=head,
            round_to=8,
        )
    with clock("groups"):
        groups = list(pruner.DG.get_all_groups(ignored_layers=pruner.ignored_layers))
    with clock("step"):
        pruner.step()
    return model, len(groups)


def main(tool: str, name: str, pixels: int, threads: int) -> dict:
    """Build the model, measure one tool and check that the pruned network runs."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = DetectionModel(f"{name}.yaml", verbose=False).eval()
    if tool == "torch-pruning-replaced":
        replace_c2f(model)
    parameters = sum(p.numel() for p in model.parameters())
    forget_peak()
    clock, before = Clock(), peak_megabytes()
    row: dict = {"before_mb": before, "seconds": clock.seconds, "processor": clock.processor}
    try:
        pruned, row["groups"] = (
            measure_yoloprune(model, clock) if tool == "yoloprune" else measure_torch_pruning(model, clock, pixels)
        )
        row["peak_mb"] = peak_megabytes()
        row["parameters_kept"] = sum(p.numel() for p in pruned.parameters()) / parameters
        clock.stage = "run the pruned network"
        with torch.inference_mode():
            pruned(torch.zeros(1, 3, 64, 64))
    except Exception as error:  # whatever it is, it is the result
        return {**row, "result": type(error).__name__, "stage": clock.stage, "message": str(error)[:300]}
    return {**row, "result": "ok"}


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with contextlib.redirect_stdout(sys.stderr):
        outcome = main(arguments[0], arguments[1], int(arguments[2]), int(arguments[3]))
    print(json.dumps(outcome))
