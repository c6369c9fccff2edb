"""mAP after pruning and a fixed small budget of training: the same images and epochs for every row.

    python benchmarks/quality_budget.py --json budget.json                         # YOLOv8n on coco-mini
    python benchmarks/quality_budget.py --weights best.pt --data bccd.yaml --ratios 0.5 0.25 --json bccd.json

Rows that stand for other tools train with Ultralytics' defaults, as those tools' users do. Every row's network is the
best epoch's, as Ultralytics picks it. Rows that the JSON file already holds are not measured again, so an interrupted
run goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from limits import machine
from quality import ROWS, common_parser, drawn, load, pruned_by, with_spread
from torch import nn
from ultralytics.models.yolo.detect.train import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel

from yoloprune.detectors import GFLOPS_IMGSZ
from yoloprune.detectors.base import Distillation, Training
from yoloprune.detectors.ultralytics import checkpoints
from yoloprune.detectors.ultralytics.cost import gflops
from yoloprune.detectors.ultralytics.detector import UltralyticsDetector
from yoloprune.detectors.ultralytics.model import with_network
from yoloprune.detectors.ultralytics.trainers.distillation import bind_distillation
from yoloprune.detectors.ultralytics.trainers.pruned import PrunedDetectionTrainer
from yoloprune.detectors.ultralytics.trainers.rollback import bind_rollback
from yoloprune.detectors.ultralytics.validation import validate
from yoloprune.resources import resource
from yoloprune.sparsity import Sparsity

SAME = {"workers": 0, "plots": False, "cache": "ram", "amp": False}  # float32, so that figures of all devices compare
L2, TAYLOR, DEFAULT = ROWS[0], ROWS[2], ROWS[9]


class Way(NamedTuple):
    """One way to spend the budget.

    Attributes:
        name: What the table calls it.
        row: How the network is pruned and recovered; None: a narrower one of the family, with random weights.
        training: "stock" (Ultralytics' defaults), "recipe" (a file in cfg/), "distill_model" (Ultralytics' own
            distillation, with its defaults), "distill" (the same with our distillation).
        sparse: Share of the epochs that goes into group-sparse training beforehand.
    """

    name: str
    row: Any
    training: str
    sparse: float = 0.0


WAYS = (
    Way("narrower YOLOv8 of equal GFLOPs, from scratch", None, "stock"),
    Way("torch-pruning's group L2, Ultralytics' fine-tuning", L2, "stock"),
    Way("torch-pruning's Taylor + BN recalibration, Ultralytics' fine-tuning", TAYLOR, "stock"),
    Way("default ranking and reconstruction, Ultralytics' fine-tuning", DEFAULT, "stock"),
    Way("the same, Ultralytics' distill_model", DEFAULT, "distill_model"),
    Way("the same, the recipe without distillation", DEFAULT, "recipe"),
    Way("the same, the recipe with distillation", DEFAULT, "distill"),
    Way("group-sparse for a third of the epochs, then the default", DEFAULT, "distill", 1 / 3),
    Way("group-sparse for a third of the epochs, then L2 and Ultralytics' fine-tuning", L2, "stock", 1 / 3),
)


def narrower(network: nn.Module, target: float) -> nn.Module:
    """The family's network with the largest width multiple that stays within `target` GFLOPs; random weights."""
    config = copy.deepcopy(network.yaml)
    depth, width, most = config["scales"][config["scale"]]
    low, high, best = 0.0, width, None
    for _ in range(12):
        middle = (low + high) / 2
        config["scales"] = {config["scale"]: [depth, middle, most]}
        made = DetectionModel(copy.deepcopy(config), nc=network.model[-1].nc, verbose=False)
        if gflops(made, GFLOPS_IMGSZ) <= target:
            low, best = middle, made
        else:
            high = middle
    best.names = network.names
    return best


def train(
    yolo, way: Way, ratio: float, epochs: int, folder: Path, teacher: Path, args: argparse.Namespace, seed: int, plan
):
    """Train through Ultralytics; returns the YOLO of the best epoch."""
    trainer: type = DetectionTrainer if way.row is None else PrunedDetectionTrainer
    keywords: dict[str, Any] = {"batch": 16}
    if way.training in ("recipe", "distill"):
        recipe = yaml.safe_load(resource("cfg", f"{args.recipe}.yaml").read_text())
        lr0 = recipe["lr0_per_share"] * (1 - ratio)
        keywords = {"batch": recipe["batch"], "lr0": lr0, **recipe["train"]}
        if recipe.get("rollback"):
            trainer = bind_rollback(trainer)
    if way.training == "distill":
        plan.save(folder / "plan.json")
        trainer = bind_distillation(trainer, Distillation(teacher=str(teacher), plan=str(folder / "plan.json")))
    if way.training == "distill_model":
        keywords["distill_model"] = str(teacher)
    start = folder / "start.pt"
    checkpoints.save(yolo, start)
    made = checkpoints.load(start)
    made.train(trainer=trainer, **common(args, epochs, seed), project=str(folder), name="train", **keywords)
    return made


def common(args: argparse.Namespace, epochs: int, seed: int) -> dict[str, Any]:
    """Keywords of every training."""
    own = {"verbose": False, "exist_ok": True, "device": args.device, "seed": seed}
    return {**SAME, **own, "data": args.data, "epochs": epochs, "imgsz": args.imgsz}


def measure(base, way: Way, ratio: float, everything: list[dict], args: argparse.Namespace, seed: int) -> dict:
    """Prune, train and validate in one way."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teacher = folder / "teacher.pt"
        checkpoints.save(base, teacher)
        sparse = round(way.sparse * args.epochs)
        yolo, plan, target = checkpoints.load(teacher), None, ratio * gflops(base.model, GFLOPS_IMGSZ)
        if sparse:
            asked = Training(
                data=args.data,
                epochs=sparse,
                imgsz=args.imgsz,
                batch=16,
                device=args.device,
                seed=seed,
                sparsity=Sparsity(strength=args.sparsity),
                prune_head=True,
                keywords={**SAME, "lr0": 1e-3},
                instead="leave it out",
            )
            yolo = UltralyticsDetector(yolo).train(teacher, folder / "sparse", asked).detector.model
        if way.row is None:
            network = narrower(base.model, target)
        else:
            network, plan = pruned_by(way.row, yolo, ratio, drawn(everything, args.images, seed), seed)
        before = validate(with_network(base, network), args.data, imgsz=args.imgsz, device=args.device).map
        start, epochs = with_network(base, network), args.epochs - sparse
        yolo = train(start, way, ratio, epochs, folder, teacher, args, seed, plan)
        after = validate(yolo, args.data, imgsz=args.imgsz, device=args.device)
        seconds = time.perf_counter() - started
        cost = gflops(yolo.model, GFLOPS_IMGSZ)
    return {"before": before, "map": after.map, "map50": after.map50, "gflops": cost, "seconds": seconds}


def main() -> None:
    """Measure and print."""
    parser = common_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=30, help="epochs of every row, group-sparse ones included")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of calibration images and training")
    parser.add_argument("--sparsity", type=float, default=1e-3, help="strength of the group-sparse training")
    parser.add_argument("--recipe", default="custom", help="in cfg/, of the rows that use one")
    parser.add_argument("--ways", type=int, nargs="+", default=range(len(WAYS)), help="which rows, from 0")
    parser.add_argument("--json", type=Path, required=True)
    args = parser.parse_args()

    base, everything = load(args)
    found = json.loads(args.json.read_text()) if args.json.exists() else {"machine": machine("torch", "ultralytics")}
    found.setdefault("base", validate(base, args.data, imgsz=args.imgsz, device=args.device).map)
    table = found.setdefault("rows", [])
    for seed, ratio, way in ((s, r, WAYS[w]) for s in args.seeds for r in args.ratios for w in args.ways):
        key = {"way": way.name, "ratio": ratio, "seed": seed, "epochs": args.epochs, "recipe": args.recipe}
        if not any(key.items() <= row.items() for row in table):
            table.append({**key, **measure(base, way, ratio, everything, args, seed)})
            args.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"unpruned: mAP50-95 {found['base']:.3f}; after {args.epochs} epochs (right after pruning)\n")
    print("| | " + " | ".join(f"{r:.0%}" for r in args.ratios) + " |\n|---|" + "---|" * len(args.ratios))
    for way in (WAYS[w] for w in args.ways):
        cells = []
        for ratio in args.ratios:
            wanted = {"way": way.name, "ratio": ratio, "epochs": args.epochs, "recipe": args.recipe}
            rows = [t for t in table if wanted.items() <= t.items()]
            after, before = [t["map"] for t in rows], [t["before"] for t in rows]
            cells.append(f"{with_spread(after)} ({statistics.mean(before):.3f})")
        print(f"| {way.name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
