"""The unpruned detectors of quality.md's blood cells and wildlife: YOLOv8n from the COCO weights, by stock training.

python benchmarks/base.py ../shared/data/bccd/bccd.yaml bccd.pt --imgsz 320 --epochs 25
python benchmarks/base.py ../shared/data/african-wildlife/african-wildlife.yaml wildlife.pt --imgsz 256 --epochs 8
"""

from __future__ import annotations

import argparse
import shutil
import tempfile

import torch
from quality import SHARED

from yoloprune.detectors.ultralytics import checkpoints


def main() -> None:
    """Train, keep the best epoch's checkpoint, say its mAP."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", help="where the checkpoint goes")
    parser.add_argument("--weights", default=str(SHARED / "weights" / "yolov8n-coco-rebuilt.pt"))
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="as Ultralytics takes it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    yolo = checkpoints.load(args.weights)
    with tempfile.TemporaryDirectory() as folder:
        yolo.train(
            data=args.data, imgsz=args.imgsz, epochs=args.epochs, device=args.device, project=folder, name="base",
            workers=0, cache="ram", plots=False, amp=False, seed=0,
        )  # fmt: skip
        shutil.copy(yolo.trainer.best, args.out)
        print(f"best epoch: {yolo.trainer.best_fitness:.3f}")


if __name__ == "__main__":
    main()
