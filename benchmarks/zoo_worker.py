"""One measurement of benchmarks/zoo.py; `zoo_worker.py TOOL MODEL` prints it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measures import forget_peak, peak_megabytes
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only
from zoo_models import SINGLE, build

from yoloprune.graph import Graph, budget, trace
from yoloprune.graph.exactness import Statistics, difference, masked, outputs

RATIO = 0.4
TOLERANCE = 1e-4
DOUBLE_UP_TO = 150e6  # parameters: larger models are compared in single precision


@contextlib.contextmanager
def same_scales(record: list[float], repeat: bool) -> Iterator[None]:
    """Write down the default scale of each attention, or, with `repeat`, use what was written down.

    It follows the width of a head, so that a network with narrower heads is not the one with the slices zeroed.
    """
    attention, scales = torch.nn.functional.scaled_dot_product_attention, iter(record)

    def scaled(query: torch.Tensor, *args: Any, scale: float | None = None, **options: Any) -> torch.Tensor:
        if scale is None:
            scale = next(scales) if repeat else query.shape[-1] ** -0.5
            if not repeat:
                record.append(scale)
        return attention(query, *args, scale=scale, **options)

    torch.nn.functional.scaled_dot_product_attention = scaled
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = attention


def measure_yoloprune(model: nn.Module, inputs: tuple, row: dict, name: str) -> float:
    """Trace, plan, and compare a pruned copy with the masked model."""
    forget_peak()
    before, start = peak_megabytes(), time.process_time()
    graph = trace(model, inputs)
    row |= {"setup_s": time.process_time() - start, "peak_mb": peak_megabytes(), "before_mb": before}
    gone = budget.cheapest(graph, 1)
    row["prunable_parameters"] = 1 - graph.cost.params(~gone) / graph.params()
    row["prunable_macs"] = 1 - graph.cost.macs(~gone) / max(graph.macs(), 1)
    row |= {"unsupported": sorted(graph.unsupported), "statistics": graph.statistics}
    plan = graph.random_plan(RATIO, 0)
    row["stage"] = "prune"
    pruned = plan.apply(model)
    row["stage"] = "run"
    statistics = Statistics()
    small = outputs(pruned, inputs, statistics)
    del pruned
    return difference(outputs(masked(model, plan), inputs, Statistics(statistics.record)), small)


def measure_torch_pruning(model: nn.Module, inputs: tuple, row: dict, name: str) -> float:
    """Prune with torch-pruning, find out what stayed, and compare with the original in which the rest is zeroed.

    Layers whose channels are outputs of the model are left alone, and it is told the numbers of heads.
    """
    import torch_pruning as tp

    graph = trace(model, inputs)
    heads = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            heads[module] = module.num_heads
        elif isinstance(getattr(module, "qkv", None), nn.Linear) and hasattr(module, "num_heads"):
            heads[module.qkv] = module.num_heads
        elif hasattr(module, "attention_head_size"):  # BERT
            heads |= dict.fromkeys((module.query, module.key, module.value), module.num_attention_heads)
    original = {k: v.clone() for k, v in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    forget_peak()
    row["stage"], start = "set-up", time.process_time()
    pruner = tp.pruner.BasePruner(
        model,
        inputs if len(inputs) > 1 else inputs[0],
        importance=tp.importance.RandomImportance(),
        pruning_ratio=RATIO,
        ignored_layers=_outputs(model, graph),
        num_heads=heads,
        output_transform=lambda out: [t for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.grad_fn],
    )
    list(pruner.DG.get_all_groups(ignored_layers=pruner.ignored_layers))
    row |= {"setup_s": time.process_time() - start, "peak_mb": peak_megabytes()}
    for tensor in (
        *model.parameters(),
        *model.buffers(),
    ):  # every value becomes its own place, which pruning carries on
        if tensor.is_floating_point():
            tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape)
    row["stage"] = "prune"
    pruner.step()
    for module in model.modules():
        if getattr(module, "qkv", None) in heads:  # as in its examples
            width = module.qkv.out_features // 3
            for attribute, value in (("head_dim", width // module.num_heads), ("attn_dim", width)):
                if hasattr(module, attribute):
                    setattr(module, attribute, value)
        elif hasattr(module, "attention_head_size"):
            module.all_head_size = module.query.out_features
            module.attention_head_size = module.all_head_size // module.num_attention_heads
    row["stage"] = "run"
    row["parameters_kept"] = sum(p.numel() for p in model.parameters()) / sum(
        original[n].numel() for n, _ in model.named_parameters()
    )
    kept = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        full = kept[key] = original[key]
        if tensor.is_floating_point():
            places = tensor.detach().long()
            kept[key] = torch.zeros_like(full)
            kept[key].view(-1)[places.view(-1)] = full.reshape(-1)[places.view(-1)]
            tensor.data = full.reshape(-1)[places]
    statistics, scales = Statistics(), []
    with same_scales(scales, repeat=False):
        small = outputs(model, inputs, statistics)
    model, _ = build(name, calibrate=False)
    model = model.to(next(iter(original.values())).dtype)
    for key, tensor in model.state_dict(keep_vars=True).items():
        tensor.data = kept[key]
    with same_scales(scales, repeat=True):
        return difference(outputs(model, inputs, Statistics(statistics.record)), small)


def _outputs(model: nn.Module, graph: Graph) -> list[nn.Module]:
    """Layers whose channels reach the output, as our graph knows them."""
    names = {g.name.rpartition(".")[0] for g in graph.groups if g.reason == "reaches the model's output"}
    return [module for name, module in model.named_modules() if name in names and name]


TOOLS = {"yoloprune": measure_yoloprune, "torch-pruning": measure_torch_pruning}


def main(tool: str, name: str) -> dict:
    """Build the model and measure one tool."""
    model, inputs = build(name)
    row: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "stage": "trace"}
    if row["parameters"] < DOUBLE_UP_TO and name not in SINGLE:
        model = model.double()
        inputs = tree_map_only(torch.Tensor, lambda t: t.double() if t.is_floating_point() else t, inputs)
    try:
        row["error"] = TOOLS[tool](model, inputs, row, name)
    except Exception as exception:  # whatever it is, it is the result
        return {**row, "result": type(exception).__name__, "message": str(exception)[:300]}
    return {**row, "result": "ok" if row["error"] < TOLERANCE else "wrong"}


def write(tool: str, name: str, answer: str) -> None:
    """Measure, and write one JSON object to the file `answer`; models may print what they like."""
    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        outcome = main(tool, name)
    Path(answer).write_text(json.dumps(outcome))


if __name__ == "__main__":
    write(*sys.argv[1:3], "/dev/stdout")
