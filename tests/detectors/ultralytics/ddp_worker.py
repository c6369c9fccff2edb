"""A process of a training by torchrun on the CPU: `ddp_worker.py KIND FOLDER OPTIONS` notes how each epoch starts.

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

kind, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
backend, parallel = validator.AutoBackend, nn.parallel.DistributedDataParallel
validator.AutoBackend = lambda device, **rest: backend(device=torch.device("cpu"), **rest)
validator.get_torch_device_backend = lambda device: SimpleNamespace(current_device=lambda: 0)
nn.parallel.DistributedDataParallel = lambda network, device_ids, **rest: parallel(network, **rest)


def on_cpu(trainer: type) -> type:
    """A trainer that takes the CPU for a GPU."""
    return type(trainer.__name__, (trainer,), {"_setup_ddp": lambda self: distributed.init_process_group("gloo")})


made = {
    "rollback": lambda: bind_rollback(on_cpu(PrunedDetectionTrainer)),
    "distill": lambda: bind_distillation(
        on_cpu(PrunedDetectionTrainer), Distillation(teacher=options["model"], plan=str(folder / "plan.json"))
    ),
    "sparse": lambda: bind(on_cpu(PrunedDetectionTrainer), Sparsity(strength=0.05, warmup=0.0)),
}
trainer = made[kind]()(overrides=options)
trainer.world_size = 2
noted = []


def note() -> None:
    """Write down how things stand."""
    noted.append(
        {
            "model": {name: t.clone() for name, t in unwrap_model(trainer.model).state_dict().items()},
            "ema": {name: t.clone() for name, t in trainer.ema.ema.state_dict().items()},
            "scale": trainer.optimizer.param_groups[0].get("lr_scale", 1),
            "momentum": len(trainer.optimizer.state),
        }
    )


train = trainer._model_train
trainer._model_train = lambda: (train(), note())
trainer.train()
note()
torch.save(noted, folder / f"{RANK}.pt")
distributed.destroy_process_group()
