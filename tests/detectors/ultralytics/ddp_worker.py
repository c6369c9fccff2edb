"""A process of trainings by torchrun on the CPU: `ddp_worker.py FOLDER OPTIONS` notes how each epoch starts.

`OPTIONS` is a JSON of what each kind of training is given.

Ultralytics knows several processes on GPUs only; what names a GPU there is told the CPU here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import distributed, nn
from ultralytics.engine import validator
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from yoloprune.detectors.base import Distillation
from yoloprune.detectors.ultralytics.trainers.distillation import bind_distillation
from yoloprune.detectors.ultralytics.trainers.pruned import PrunedDetectionTrainer
from yoloprune.detectors.ultralytics.trainers.rollback import bind_rollback
from yoloprune.detectors.ultralytics.trainers.sparse import bind
from yoloprune.sparsity import Sparsity

folder, asked = Path(sys.argv[1]), json.loads(sys.argv[2])
backend, parallel = validator.AutoBackend, nn.parallel.DistributedDataParallel
validator.AutoBackend = lambda device, **rest: backend(device=torch.device("cpu"), **rest)
validator.get_torch_device_backend = lambda device: SimpleNamespace(current_device=lambda: 0)
nn.parallel.DistributedDataParallel = lambda network, device_ids, **rest: parallel(network, **rest)


distributed.init_process_group("gloo")


def on_cpu(trainer: type) -> type:
    """A trainer that takes the CPU for a GPU."""
    return type(trainer.__name__, (trainer,), {"_setup_ddp": lambda self: None})


made = {
    "rollback": lambda teacher: bind_rollback(on_cpu(PrunedDetectionTrainer)),
    "distill": lambda teacher: bind_distillation(
        on_cpu(PrunedDetectionTrainer), Distillation(teacher=teacher, plan=str(folder / "plan.json"))
    ),
    "sparse": lambda teacher: bind(on_cpu(PrunedDetectionTrainer), Sparsity(strength=0.05, warmup=0.0)),
}


def train(kind: str, options: dict) -> list[dict]:
    """Train, and return how things stood at the start of each epoch and at the end."""
    trainer = made[kind](options["model"])(overrides=options)
    trainer.world_size = 2
    noted = []

    def note() -> None:
        noted.append(
            {
                "model": {name: t.clone() for name, t in unwrap_model(trainer.model).state_dict().items()},
                "ema": {name: t.clone() for name, t in trainer.ema.ema.state_dict().items()},
                "scale": trainer.optimizer.param_groups[0].get("lr_scale", 1),
                "momentum": len(trainer.optimizer.state),
            }
        )

    begin = trainer._model_train
    trainer._model_train = lambda: (begin(), note())
    trainer.train()
    note()
    return noted


for kind, options in asked.items():
    torch.save(train(kind, options), folder / f"{kind}-{RANK}.pt")
distributed.destroy_process_group()
