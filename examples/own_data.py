"""A detector of your own, pruned, fine-tuned, saved and exported.

python examples/own_data.py best.pt data.yaml --ratio 0.5 --epochs 30
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yoloprune


def main() -> None:
    """Prune, fine-tune, save and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a trained detector, such as runs/original/weights/best.pt")
    parser.add_argument("data", help="its data YAML")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the GFLOPs to keep")
    parser.add_argument("--epochs", type=int, default=30, help="of fine-tuning")
    parser.add_argument("--imgsz", type=int, help="image size in px; by default what the weights were trained at")
    parser.add_argument("--images", type=int, default=128, help="training images to rank and recover by")
    parser.add_argument("--out", type=Path, default=Path("pruned.pt"))
    args = parser.parse_args()

    result = yoloprune.prune(
        args.weights,
        data=args.data,
        target_ratio=args.ratio,
        prune_head=True,
        epochs=args.epochs,
        imgsz=args.imgsz,
        calibration_images=args.images,
        val=True,
        project=str(args.out.parent / "runs"),
    )
    print(result)
    print("Saved", result.save(args.out))
    print("Exported", result.export("onnx", args.out.with_suffix(".onnx")))

    before, after = result.metrics["before"], result.metrics["after"]
    gflops, params = (after[name] / before[name] for name in ("gflops", "params"))
    print(f"{gflops:.0%} of the GFLOPs, {params:.0%} of the parameters")


if __name__ == "__main__":
    main()
