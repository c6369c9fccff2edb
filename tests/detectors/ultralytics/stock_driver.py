"""What somebody does with a portable checkpoint who has Ultralytics and not yoloprune, whose import fails here.

Run as `python stock_driver.py WHAT WEIGHTS DATA FOLDER`; what `finish` found is its last line, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


class _Absent:
    """An import finder for which there is no yoloprune."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Refuse one package."""
        if name.partition(".")[0] == "yoloprune":
            raise ModuleNotFoundError("there is no yoloprune here")


sys.meta_path.insert(0, _Absent)

import torch  # noqa: E402  (nothing may be imported before)
from ultralytics import YOLO  # noqa: E402
from ultralytics.utils import YAML  # noqa: E402

SHORT = {"imgsz": 64, "batch": 4, "device": "cpu", "workers": 0, "plots": False, "amp": False, "optimizer": "SGD"}
SHORT |= {"mosaic": 0.0, "exist_ok": True, "verbose": False, "warmup_epochs": 0}


def _parameters(yolo: YOLO) -> int:
    return sum(parameter.numel() for parameter in yolo.model.parameters())


def train_and_die(weights: str, data: str, folder: str) -> None:
    """Train until the first batch of the second epoch, and get killed there."""
    yolo = YOLO(weights)

    def die(trainer: Any) -> None:
        if trainer.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    yolo.add_callback("on_train_batch_end", die)
    yolo.train(data=data, epochs=3, project=folder, name="train", **SHORT)


def finish(weights: str, data: str, folder: str) -> dict[str, Any]:
    """Resume that training, validate and export its result, and train once from the YAML alone."""
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    start = YOLO(weights)
    with torch.inference_mode():
        output = start.model.float().eval()(image)[0]
    torch.save(output, Path(folder, "output.pt"))
    found = {"start": _parameters(start), "names": start.names, "task": start.task}
    last = YOLO(Path(folder, "train", "weights", "last.pt"))
    found["killed"] = _parameters(last)
    last.train(resume=True)
    found["epochs"] = last.trainer.epoch + 1
    best = YOLO(last.trainer.best)
    found["resumed"] = _parameters(best)
    found["validated"] = best.val(data=data, imgsz=64, batch=4, device="cpu", workers=0, plots=False).results_dict
    found["exported"] = [best.export(format=name, imgsz=64, device="cpu") for name in ("onnx", "torchscript")]
    described = Path(folder, "mine.yaml")
    YAML.save(described, {k: v for k, v in start.model.yaml.items() if k != "yaml_file"})
    fresh = YOLO(described).load(weights)
    with torch.inference_mode():
        found["loaded"] = bool(torch.equal(fresh.model.float().eval()(image)[0], output))
    frozen = start.model.yaml["rows_of_layer"][0]
    fresh.train(data=data, epochs=1, project=folder, name="fresh", freeze=frozen, **SHORT)
    found["fresh"] = _parameters(YOLO(fresh.trainer.best))
    ours, theirs = (yolo.model.model[0].conv.weight.float() for yolo in (YOLO(fresh.trainer.last), start))
    found["frozen"] = bool(torch.equal(ours, theirs))
    return found


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    print(json.dumps({"train": train_and_die, "finish": finish}[what](*given), default=str))
