"""Pruned networks beside the unpruned one on smaller images, with the same training for both, as `frontier` has them.

    python benchmarks/quality_frontier.py --json coco.json                                          # without training
    python benchmarks/quality_frontier.py --weights bccd.pt --data ../shared/data/bccd/bccd.yaml --epochs 10 --seeds 0 1

Shares are of the GFLOPs at --imgsz; each is to be compared with the largest image that costs no more. A pair of a size
and a share, such as 288:0.85, prunes a little on a somewhat smaller image. What an interrupted call has measured is
read from --folder. With --gaps each pruned network is set against the image-size line at its cost, on the same
resampled images.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from limits import machine
from quality import SHARED, with_spread

from yoloprune import detectors
from yoloprune.analysis.frontier import Point, frontier
from yoloprune.detectors.base import Detector
from yoloprune.pipeline.metrics import SEEN
from yoloprune.pipeline.recipe import merge, read_recipe

RECALL = "recall (conf .25)"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=str(SHARED / "weights" / "yolov8n-coco-rebuilt.pt"))
    parser.add_argument("--data", default=str(SHARED / "data" / "coco-mini" / "coco-mini.yaml"))
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--sizes", type=int, nargs="*", default=[288, 256, 224], help="of the unpruned network, in px")
    parser.add_argument("--shares", type=float, nargs="*", default=[0.85, 0.7, 0.5])
    parser.add_argument("--pairs", nargs="*", default=[], metavar="PX:SHARE", help="share of the GFLOPs at that size")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--keep-head", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="as Ultralytics takes it")
    parser.add_argument("--folder", type=Path, default=Path("runs/quality"))
    parser.add_argument("--gaps", action="store_true", help="how far each is from the image-size line, and σ")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    networks = {args.weights: detectors.load(args.weights)}
    pairs = [(args.imgsz, share) for share in args.shares]
    pairs += [(int(size), float(share)) for size, _, share in (pair.partition(":") for pair in args.pairs)]
    found = {seed: _measured(networks, pairs, args, seed) for seed in args.seeds}
    if args.json:
        points = {seed: [asdict(point) for point in points] for seed, points in found.items()}
        args.json.write_text(json.dumps({"machine": machine("torch", "ultralytics"), "points": points}, indent=1))
    _print(found, args)
    if args.gaps:
        for seed, points in found.items():
            _print_gaps(points, networks[args.weights], args, seed)


def _measured(networks: dict, pairs: list[tuple[int, float]], args: argparse.Namespace, seed: int) -> list[Point]:
    """All points of one seed."""
    given = {"data": args.data, "epochs": args.epochs, "seed": seed, "device": args.device, "imgsz": args.imgsz}
    recipe = {k: v for k, v in read_recipe("custom").items() if k not in ("val", "export", "budget")}
    options = merge({**recipe, **given}, {"target_ratio": 0.5, "prune_head": not args.keep_head})
    wanted = [(size, ()) for size in (args.imgsz, *args.sizes)] + [(size, (share,)) for size, share in pairs]
    for size, shares in wanted:
        with detectors.quiet():
            found = frontier(networks, options, args.folder / str(seed), sizes=(size,), shares=shares)
    return found.points


def _print(found: dict[int, list[Point]], args: argparse.Namespace) -> None:
    """One row a network, the most expensive first."""
    first = next(iter(found.values()))
    whole = max(point.gflops for point in first)
    print("| network | cost | before training | mAP50-95 | recall at .25 | F1 at .25 |\n|---|---|---|---|---|---|")
    for point in sorted(first, key=lambda p: -p.gflops):
        key = (point.imgsz, point.share)
        same = [p for points in found.values() for p in points if (p.imgsz, p.share) == key]
        untrained = [p.untrained["mAP50-95"] for p in same if p.untrained]
        cells = [
            f"{'unpruned' if point.share == 1 else f'pruned to {point.share:.0%}'}, {point.imgsz} px",
            f"{point.gflops / whole:.0%}",
            with_spread(untrained) if untrained else "",
            with_spread([p.quality for p in same]),
            *(with_spread([p.metrics[name] for p in same]) for name in (RECALL, SEEN)),
        ]
        print(f"| {' | '.join(cells)} |")


def _print_gaps(points: list[Point], unpruned: Detector, args: argparse.Namespace, seed: int) -> None:
    """How far each pruned network is ahead of the line through the unpruned ones, and of the one that costs no more."""
    samples = {point.file: _samples(point, unpruned, args, seed) for point in points}
    line = sorted((point for point in points if point.share == 1), key=lambda point: point.gflops)
    print(f"\n| seed {seed} | ahead of the line | σ | ahead of what costs no more | σ |\n|---|---|---|---|---|")
    for point in (point for point in points if point.share < 1):
        below = next((p for p in reversed(line) if p.gflops <= point.gflops), None)
        above = next((p for p in line if p.gflops >= point.gflops), None)
        if not below or not above:
            continue
        place = (point.gflops - below.gflops) / (above.gflops - below.gflops)
        cells = [f"pruned to {point.share:.0%}, {point.imgsz} px"]
        for part in (place, 0.0):
            level = below.quality + part * (above.quality - below.quality)
            of_line = samples[below.file] + part * (samples[above.file] - samples[below.file])
            cells += [f"{point.quality - level:+.3f}", f"{np.std(samples[point.file] - of_line):.3f}"]
        print(f"| {' | '.join(cells)} |")


def _samples(point: Point, unpruned: Detector, args: argparse.Namespace, seed: int) -> np.ndarray:
    """mAP50-95 of a point on resampled validation images, the same resamples for all."""
    file = args.folder / str(seed) / point.file
    network = detectors.load(file) if file.exists() else unpruned
    found = network.validate(args.data, imgsz=point.imgsz, batch=16, device=args.device, verbose=False, details=True)
    return np.array(found.details.samples["map"])


if __name__ == "__main__":
    main()
