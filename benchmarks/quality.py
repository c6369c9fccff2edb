"""mAP after pruning without any training: what each ingredient is worth, beside other tools' criteria.

    python benchmarks/quality.py --json quality.json                    # YOLOv8n on coco-mini, three draws of images
    python benchmarks/quality.py --weights best.pt --data my.yaml --imgsz 640 --ratios 0.5

Weights and data are looked up in ../shared (or YOLOPRUNE_SHARED) unless they are given. Every row prunes the same
network to the same GFLOPs with widths in multiples of 8, the head's hidden layers too unless --keep-head is given, from
the same calibration images, which are training images; mAP is measured on the validation images with Ultralytics'
validator.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from limits import machine
from rich.console import Console
from rich.progress import track
from torch import nn
from ultralytics.nn.modules import DFL
from ultralytics.utils.torch_utils import select_device

from yoloprune.criteria import score
from yoloprune.detectors import GFLOPS_IMGSZ
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.calibration_data import calibration_batches, training_loss
from yoloprune.detectors.ultralytics.cost import gflops
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.model import YOLO, with_network
from yoloprune.detectors.ultralytics.probe import sampled_fisher_loss
from yoloprune.detectors.ultralytics.trace import trace_yolo
from yoloprune.detectors.ultralytics.validation import validate
from yoloprune.graph import Plan
from yoloprune.pipeline.planning import Trial, best_limit
from yoloprune.pipeline.targets import plan_for_target
from yoloprune.recovery import recalibrate_bn, reconstruct

SHARED = Path(os.environ.get("YOLOPRUNE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


class Row(NamedTuple):
    """One way to prune and recover.

    Attributes:
        name: What the table calls it.
        criterion: Name in `yoloprune.criteria.CRITERIA`.
        per_mac: Power of the MACs saved that scores are divided by.
        influence: Factor of the influence on predictions, times the squared share that stays; None: no gradients.
        recovery: "", "bn" or "reconstruct".
        limit: Whether a limit on what a layer may lose is found by trial.
    """

    name: str
    criterion: str
    per_mac: float
    influence: float | None
    recovery: str
    limit: bool = False


ROWS = (
    Row("group L2 over group mean, as torch-pruning's GroupMagnitudeImportance", "l2", 0, None, ""),
    Row("the same + BN recalibration", "l2", 0, None, "bn"),
    Row("Taylor (labels), as torch-pruning's GroupTaylorImportance, + BN recalibration", "taylor", 0, None, "bn"),
    Row("output error + BN recalibration", "output_error", 0, None, "bn"),
    Row("output error per MAC saved + BN recalibration", "output_error", 1, None, "bn"),
    Row("+ influence on predictions + BN recalibration", "output_error", 1, 0.5, "bn"),
    Row("output error per MAC saved + reconstruction", "output_error", 1, None, "reconstruct"),
    Row("+ influence on predictions + reconstruction", "output_error", 1, 0.5, "reconstruct"),
    Row("+ the power 1.3 of the MACs saved", "output_error", 1.3, 0.5, "reconstruct"),
    Row("+ a limit on what a layer may lose, by trial", "output_error", 1.3, 0.5, "reconstruct", True),
    Row("compensated error, with influence and a limit by trial", "compensated_error", 1, 0.5, "reconstruct", True),
)


def drawn(batches: list[dict], images: int, seed: int, batch: int = 16) -> list[dict]:
    """Batches of randomly drawn training images, labels kept beside their images."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(batches))[:images])
    merged = []
    for start in range(0, len(chosen), batch):
        parts = [batches[i] for i in chosen[start : start + batch]]
        made = {key: torch.cat([p[key] for p in parts]) for key in ("img", "cls", "bboxes")}
        made["batch_idx"] = torch.cat([torch.full_like(p["batch_idx"], float(i)) for i, p in enumerate(parts)])
        merged.append(made)
    return merged


def pruned_by(
    row: Row, yolo, ratio: float, batches: list[dict], seed: int, keep_head: bool = False
) -> tuple[nn.Module, Plan]:
    """The network pruned and recovered by one row, and its plan."""
    network = yolo.model.to(batches[0]["img"].device)
    graph = trace_yolo(network, prune_head=not keep_head)
    images = [b["img"] for b in batches]
    given: dict = {"per_mac": row.per_mac}
    if row.criterion == "taylor":
        given |= {"batches": batches, "loss": training_loss(yolo, {})}
    elif row.influence is not None:
        influence = row.influence * ratio**2
        given |= {"batches": batches, "loss": sampled_fisher_loss(seed), "influence": influence}
    elif row.criterion == "output_error":
        given |= {"batches": images}
    if row.criterion == "l2":
        given |= {"relative": True}
    scores = score(graph, network, row.criterion, **given)
    target = ratio * gflops(network, GFLOPS_IMGSZ)
    detector = UltralyticsDetector(yolo)
    plan_of = partial(plan_for_target, detector, graph, target_gflops=target)
    trial = Trial(detector, batches, seed) if row.limit else None
    if row.limit:
        found = best_limit(partial(plan_of, scores), trial, ratio)
        plan_of = partial(plan_of, max_pruning_ratio=found.max_pruning_ratio)
    plan = plan_of(scores)
    pruned = plan.apply(network)
    if row.recovery == "bn":
        recalibrate_bn(pruned, images)
    elif row.recovery == "reconstruct":
        reconstruct(pruned, network, plan, images, skip=(DFL,), seed=seed)
    return pruned, plan


def measure(yolo, row: Row, ratio: float, batches: list[dict], args: argparse.Namespace, seed: int) -> dict:
    """Prune by one row and validate."""
    started = time.perf_counter()
    pruned, _ = pruned_by(row, yolo, ratio, batches, seed, args.keep_head)
    seconds = time.perf_counter() - started
    metrics = validate(with_network(yolo, pruned), args.data, imgsz=args.imgsz, device=args.device)
    return {"map": metrics.map, "map50": metrics.map50, "seconds": seconds, "gflops": gflops(pruned, GFLOPS_IMGSZ)}


def common_parser(description: str) -> argparse.ArgumentParser:
    """A parser with the options of both quality benchmarks."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=str(SHARED / "weights" / "yolov8n-coco-rebuilt.pt"))
    parser.add_argument("--data", default=str(SHARED / "data" / "coco-mini" / "coco-mini.yaml"))
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.85, 0.7, 0.5])
    parser.add_argument("--images", type=int, default=128, help="calibration images")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="as Ultralytics takes it")
    return parser


def load(args: argparse.Namespace) -> tuple[YOLO, list[dict]]:
    """The network, and all training images as batches of one, on as many threads as asked for."""
    torch.set_num_threads(args.threads)
    yolo, device = checkpoints.load(args.weights), select_device(args.device, verbose=False)
    yolo.model.to(device)
    return yolo, calibration_batches(yolo, args.data, images=10**6, imgsz=args.imgsz, batch=1, device=device)


def with_spread(values: list[float]) -> str:
    """Mean, and standard deviation where there are several."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main() -> None:
    """Measure and print."""
    parser = common_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="draws of calibration images")
    parser.add_argument("--rows", type=int, nargs="+", default=range(len(ROWS)), help="which rows, from 0")
    parser.add_argument("--keep-head", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    yolo, everything = load(args)
    base = validate(yolo, args.data, imgsz=args.imgsz, device=args.device).map
    table = []
    cases = [(ROWS[r], ratio, seed) for r in args.rows for ratio in args.ratios for seed in range(args.seeds)]
    for row, ratio, seed in track(cases, "Measuring", console=Console(stderr=True)):
        batches = drawn(everything, args.images, seed)
        table.append({"row": row.name, "ratio": ratio, "seed": seed, **measure(yolo, row, ratio, batches, args, seed)})
        if args.json:
            found = {"machine": machine("torch", "ultralytics", "yoloprune"), "base": base, "rows": table}
            args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"unpruned: mAP50-95 {base:.3f}\n")
    print("| | " + " | ".join(f"{r:.0%}" for r in args.ratios) + " | s |\n|---|" + "---|" * (len(args.ratios) + 1))
    for r in args.rows:
        cells, seconds = [], []
        for ratio in args.ratios:
            found = [t for t in table if t["row"] == ROWS[r].name and t["ratio"] == ratio]
            seconds += [t["seconds"] for t in found]
            cells.append(with_spread([t["map"] for t in found]))
        print(f"| {ROWS[r].name} | " + " | ".join(cells) + f" | {statistics.mean(seconds):.0f} |")


if __name__ == "__main__":
    main()
