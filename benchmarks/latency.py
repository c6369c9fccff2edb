"""Milliseconds of networks on a GPU in half precision, in turns: what a pruned network gains there.

    python benchmarks/latency.py yolov8s.pt gpu/r8/pruned.pt gpu/r32/pruned.pt --batch 1 32

Twice for each: as PyTorch runs it, where small batches wait for the launches of kernels, and replayed from a CUDA
graph, which leaves the kernels alone, as an engine does. Medians of rounds in which the networks take turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from limits import machine
from torch import nn
from ultralytics.utils.torch_utils import select_device

from yoloprune.detectors import GFLOPS_IMGSZ
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.cost import gflops

WARM_UP, ROUNDS = 20, 100


def prepared(path: str, device: torch.device) -> nn.Module:
    """The network of a checkpoint as it is deployed: batch norms fused, half precision."""
    return checkpoints.load(path).model.fuse(verbose=False).half().to(device).eval()


def replayed(network: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """A call of the network as a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            network(images)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        network(images)
    return graph.replay


def medians(calls: list[Callable[[], object]]) -> list[float]:
    """Milliseconds of each call."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times: list[list[float]] = [[] for _ in calls]
    for number in range(WARM_UP + ROUNDS):
        for own, call in zip(times, calls, strict=True):
            start.record()
            call()
            end.record()
            end.synchronize()
            if number >= WARM_UP:
                own.append(start.elapsed_time(end))
    return [statistics.median(own) for own in times]


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--device", default="0")
    args = parser.parse_args()

    device = select_device(args.device, verbose=False)
    costs = [gflops(checkpoints.load(path).model, GFLOPS_IMGSZ) for path in args.models]
    networks = [prepared(path, device) for path in args.models]
    columns: dict[str, list[float]] = {}
    for batch in args.batch:
        images = torch.rand(batch, 3, args.imgsz, args.imgsz, device=device).half()
        columns[f"batch {batch}, launched"] = medians([lambda n=n, i=images: n(i) for n in networks])
        columns[f"batch {batch}, graph"] = medians([replayed(n, images) for n in networks])
    where = ", ".join(f"{key} {value}" for key, value in machine("torch", "ultralytics", "yoloprune").items())
    print(f"{torch.cuda.get_device_name(device)}, {where}; FP16, {args.imgsz} px, milliseconds per batch\n")
    print("| model | GFLOPs | " + " | ".join(columns) + " |\n|---|---|" + "---|" * len(columns))
    for number, path in enumerate(args.models):
        cells = " | ".join(f"{column[number]:.3f}" for column in columns.values())
        print(f"| {'/'.join(Path(path).parts[-2:])} | {costs[number]:.2f} | {cells} |")


if __name__ == "__main__":
    main()
