"""A process of a training by torchrun on the CPU: `way_back_worker.py FOLDER OPTIONS` notes each epoch's start.

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

from yoloprune.yolo.trainers.pruned import PrunedDetectionTrainer
from yoloprune.yolo.trainers.way_back import bind_way_back

folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
backend, parallel = validator.AutoBackend, nn.parallel.DistributedDataParallel
validator.AutoBackend = lambda device, **rest: backend(device=torch.device("cpu"), **rest)
validator.get_torch_device_backend = lambda device: SimpleNamespace(current_device=lambda: 0)
nn.parallel.DistributedDataParallel = lambda network, device_ids, **rest: parallel(network, **rest)


class Trainer(PrunedDetectionTrainer):
    """A trainer that takes the CPU for a GPU."""

    def _setup_ddp(self) -> None:
        distributed.init_process_group("gloo")


trainer = bind_way_back(Trainer)(overrides=options)
trainer.world_size = 2
noted = []


def note(_: Trainer) -> None:
    """Write down what the epoch starts from."""
    noted.append(
        {
            "model": {name: t.clone() for name, t in unwrap_model(trainer.model).state_dict().items()},
            "ema": {name: t.clone() for name, t in trainer.ema.ema.state_dict().items()},
            "pace": trainer.optimizer.param_groups[0].get("pace", 1),
            "momentum": len(trainer.optimizer.state),
        }
    )


train = trainer._model_train
trainer._model_train = lambda: (train(), note(trainer))
trainer.train()
torch.save(noted, folder / f"{RANK}.pt")
distributed.destroy_process_group()
