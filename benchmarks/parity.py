"""Whether exports of pruned detectors find what these find: families by formats, by the export command's verdict.

    python benchmarks/parity.py --json parity.json
    python benchmarks/parity.py --weights pruned.pt --data coco-mini.yaml --imgsz 320 --int8      # and what int8 costs

Without --weights each family learns the embedded digits for some epochs, from random weights but for YOLOv8, and is
pruned to half of its GFLOPs. What an interrupted call has trained and pruned is read from --folder.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import torch
from limits import machine
from ultralytics import YOLO

import yoloprune
from yoloprune.demo import digits

FAMILIES = ("yolov8n", "yolov5n", "yolov9t", "yolov10n", "yolo11n", "yolo26n")
FORMATS = ("onnx", "openvino", "ncnn", "torchscript", "mnn")
DATA = {"imgsz": 160, "device": "cpu"}
RECIPE = {
    "batch": 16, "nbs": 16, "optimizer": "AdamW", "lr0": 0.002, "cos_lr": True, "warmup_epochs": 1,
    "warmup_bias_lr": 0.0, "close_mosaic": 4, "fliplr": 0.0, "cache": "ram", "val": False, "plots": False,
    "verbose": False,
}  # fmt: skip
VERDICT = re.compile(r"(Pass|FAIL) \(.*?lowest [\d.]+,\s+scores\s+within\s+[\d.]+", re.DOTALL)
METRIC = re.compile(r"^(mAP50-95|F1[^:]*): ([\d.]+) → ([\d.]+)", re.MULTILINE)


def main() -> None:
    """Train and prune what is lacking, export, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", type=Path, help="these instead of the families")
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--formats", nargs="+", default=FORMATS)
    parser.add_argument("--data", type=Path, help="default: the embedded digits")
    parser.add_argument("--imgsz", type=int, default=DATA["imgsz"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--int8", action="store_true", help="export with quantize=8 and validate")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs/parity"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    folder = args.folder.absolute()
    data = args.data or digits.write(folder / "digits")
    rows = []
    for weights in args.weights or (_pruned(family, data, args.epochs, folder) for family in args.families):
        for format in args.formats:
            row = {"weights": weights.stem, "format": format, **_exported(weights, format, data, args)}
            rows.append(row)
            print(" | ".join(str(cell) for cell in row.values()), flush=True)
            if args.json:
                content = {"machine": machine("torch", "ultralytics"), "rows": rows}
                args.json.write_text(json.dumps(content, indent=1))


def _pruned(family: str, data: Path, epochs: int, folder: Path) -> Path:
    """A detector of the digits at half of its GFLOPs."""
    path, trained = folder / f"{family}-pruned.pt", folder / family / "weights" / "last.pt"
    if path.exists():
        return path
    if family == "yolov8n":
        trained = digits.WEIGHTS
    if not trained.exists():
        model = YOLO(f"{family}.yaml")
        model.train(data=str(data), epochs=epochs, project=str(folder), name=family, exist_ok=True, **RECIPE, **DATA)
    given = {"data": str(data), "calibration_images": 64, "max_pruning_ratio": 0.7, "val": True}
    result = yoloprune.prune(str(trained), target_ratio=0.5, prune_head=True, **given, **DATA)
    result.save(path)
    before, after = (figures["mAP50-95"] for figures in (result.metrics["before"], result.metrics["after"]))
    print(f"{family}: mAP50-95 {before:.3f}, at half of the GFLOPs {after:.3f}", flush=True)
    return path


def _exported(weights: Path, format: str, data: Path, args: argparse.Namespace) -> dict[str, str]:
    """What the command says of an export, and its exit code."""
    given = ["--format", format, "--imgsz", str(args.imgsz), "--data", str(data)]
    if args.int8:
        given += ["--val", "quantize=8"]
    command = [sys.executable, "-m", "yoloprune", "export", str(weights), *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    verdict = VERDICT.search(said)
    words = " ".join(verdict[0].split()) if verdict else " ".join(said.split())[-200:]
    return {"exit": str(done.returncode), "verdict": words, **{m[1]: f"{m[2]} → {m[3]}" for m in METRIC.finditer(said)}}


if __name__ == "__main__":
    main()
