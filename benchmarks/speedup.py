"""Pruned to a time on a backend, beside pruned to GFLOPs until that takes as long, and beside smaller images.

    python benchmarks/speedup.py --backend onnxruntime --speedup 2 --json speedup.json
    python benchmarks/speedup.py --weights yolov8s.yaml --time-only             # a network without trained weights

Without training. Times are of whole networks, batch 1, in turns with the unpruned one; mAP as Ultralytics validates.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from limits import machine
from quality import SHARED
from ultralytics import YOLO

from yoloprune import detectors
from yoloprune.detectors.base import Detector
from yoloprune.pipeline.metrics import SEEN, named_metrics
from yoloprune.pipeline.on_device import OnDevice
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.prune import prune_once
from yoloprune.pipeline.targets import Target

NEAR = 0.03


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default=str(SHARED / "weights" / "yolov8n-coco-rebuilt.pt"))
    parser.add_argument("--data", default=str(SHARED / "data" / "coco-mini" / "coco-mini.yaml"))
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--speedup", type=float, default=2.0)
    parser.add_argument("--sizes", type=int, nargs="*", default=[288, 256, 224, 192])
    parser.add_argument("--keep-head", action="store_true")
    parser.add_argument("--round-to", type=int, default=8)
    parser.add_argument("--time-only", action="store_true", help="ranked by l2, not recovered, not validated")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    fresh = args.weights.endswith(".yaml")
    detector = detectors.wrap(YOLO(args.weights)) if fresh else detectors.load(args.weights)
    options = Options(
        target_speedup=args.speedup, backend=args.backend, threads=args.threads, imgsz=args.imgsz, data=args.data,
        device="cpu", criterion="l2" if args.time_only else "output_error", recover=not args.time_only,
        prune_head=not args.keep_head, round_to=args.round_to,
    )  # fmt: skip
    with detectors.quiet():
        device = OnDevice(detector, options)
        rows = [_row("unpruned", detector, detector, device, args, args.imgsz)]
        _say(rows[-1])
        for size in args.sizes:
            smaller = OnDevice(detector, replace(options, imgsz=size))
            rows.append(_row(f"unpruned, {size} px", detector, detector, smaller, args, size))
            _say(rows[-1])
        target = Target(ms=device.own_ms / args.speedup, before_ms=device.own_ms)
        timed = prune_once(detector, target, options, device=device).detector
        rows.append(_row(f"--target-speedup {args.speedup:g}", detector, timed, device, args, args.imgsz))
        _say(rows[-1])
        for counted in _as_fast(detector, options, device, rows[-1]):
            share = counted.gflops() / detector.gflops()
            rows.append(_row(f"--target-ratio {share:.2f}", detector, counted, device, args, args.imgsz))
            _say(rows[-1])
    if args.json:
        args.json.write_text(json.dumps({"machine": machine("torch", args.backend), "rows": rows}, indent=1))


def _as_fast(detector: Detector, options: Options, device: OnDevice, timed: dict):
    """Networks pruned to GFLOPs, until one takes as long as the row that was pruned to a time."""
    own, share, ms, tried = detector.gflops(), timed["cost"], timed["ms"], [(1.0, device.own_ms)]
    for _ in range(3):
        given = replace(options, target_speedup=None, backend=None, threads=None, target_ratio=share)
        found = prune_once(detector, Target(gflops=share * own), given).detector
        took = device.times(found)
        if abs(took / ms - 1) <= NEAR:
            yield found
            return
        (s0, t0), (s1, t1) = tried[-1], (share, took)
        tried.append((share, took))
        share += (ms - took) * (s0 - s1) / (t0 - t1)
    yield found


def _row(
    name: str, original: Detector, network: Detector, device: OnDevice, args: argparse.Namespace, imgsz: int
) -> dict:
    named = dict.fromkeys(("mAP50-95", SEEN), float("nan"))
    if not args.time_only:
        metrics = network.validate(args.data, imgsz=imgsz, batch=16, device="cpu", verbose=False)
        named = named_metrics(metrics, network.task)
    ms = device.own_ms if network is original else device.times(network)
    cost = network.gflops() / original.gflops() * (imgsz / args.imgsz) ** 2
    return {"network": name, "cost": cost, "ms": ms, "mAP50-95": named["mAP50-95"], "F1": named[SEEN]}


def _say(row: dict) -> None:
    print(
        f"| {row['network']} | {row['cost']:.0%} | {row['ms']:.2f} | {row['mAP50-95']:.3f} | {row['F1']:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
