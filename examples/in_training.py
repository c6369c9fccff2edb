"""Pruning inside Ultralytics training: a trainer and a callback of one's own, group sparsity, pruning, fine-tuning.

python examples/in_training.py best.pt data.yaml --epochs 30
"""

from __future__ import annotations

import argparse

from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer

import yoloprune
from yoloprune.detectors.ultralytics.trainers.sparse import bind
from yoloprune.sparsity import Sparsity


@yoloprune.keep_pruned
class Brighter(DetectionTrainer):
    """A trainer of one's own, which keeps pruned networks: images are brightened at random."""

    def preprocess_batch(self, batch):
        """Ultralytics' own, and one more augmentation."""
        batch = super().preprocess_batch(batch)
        shape = (len(batch["img"]), 1, 1, 1)
        batch["img"] = (batch["img"] * batch["img"].new_empty(shape).uniform_(0.9, 1.1)).clamp(0, 1)
        return batch


def told(trainer) -> None:
    """A callback."""
    print(f"epoch {trainer.epoch + 1}: mAP50-95 {trainer.metrics.get('metrics/mAP50-95(B)', float('nan')):.3f}")


def main() -> None:
    """Train with group sparsity, prune what is in memory, fine-tune it with one's own trainer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="a trained detector")
    parser.add_argument("data", help="its data YAML")
    parser.add_argument("--epochs", type=int, default=30, help="of each of the two trainings")
    parser.add_argument("--imgsz", type=int, default=640, help="image size in px")
    parser.add_argument("--images", type=int, default=128, help="training images to rank and recover by")
    parser.add_argument("--out", default="pruned.pt")
    args = parser.parse_args()
    train = {"data": args.data, "epochs": args.epochs, "imgsz": args.imgsz, "batch": 8}

    model = YOLO(args.weights)
    sparse = bind(DetectionTrainer, Sparsity(strength=1e-3), prune_head=True)
    model.train(trainer=sparse, optimizer="SGD", lr0=0.001, **train)

    result = yoloprune.prune(
        model, data=args.data, target_ratio=0.6, prune_head=True, imgsz=args.imgsz, calibration_images=args.images
    )
    pruned = result.model
    pruned.add_callback("on_fit_epoch_end", told)
    pruned.train(trainer=Brighter, optimizer="AdamW", lr0=0.0005, **train)
    print(pruned.info())
    print("Saved", result.save(args.out))


if __name__ == "__main__":
    main()
