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
SHORT |= {"mosaic": 0.0, "exist_ok": True, "verbose": False, "warmup_epochs": 0, "nbs": 4}


def _parameters(yolo: YOLO) -> int:
    return sum(parameter.numel() for parameter in yolo.model.parameters())


def _output(yolo: YOLO) -> torch.Tensor:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        output = yolo.model.float().eval()(image)[0]
    return output[0] if isinstance(output, tuple) else output


def _has_weights(yolo: YOLO, row: int) -> bool:
    return any(True for _ in yolo.model.model[row].parameters())


def _weights(yolo: YOLO, row: int) -> torch.Tensor:
    return next(yolo.model.model[row].parameters()).half()  # as a checkpoint stores them


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
    start = YOLO(weights)
    torch.save(_output(start), Path(folder, "output.pt"))
    stride = [int(x) for x in start.model.stride]
    found = {"start": _parameters(start), "names": start.names, "task": start.task, "stride": stride}
    last = YOLO(Path(folder, "train", "weights", "last.pt"))
    found["killed"] = _parameters(last)
    last.train(resume=True)
    found["epochs"] = last.trainer.start_epoch, last.trainer.epoch
    best = YOLO(last.trainer.best)
    found["resumed"] = _parameters(best)
    found["validated"] = best.val(data=data, imgsz=64, batch=4, device="cpu", workers=0, plots=False).results_dict
    exported = YOLO(best.export(format="onnx", imgsz=64, device="cpu"), task=start.task)
    exported.predict(Path(data).parent / "images" / "val" / "0.png", imgsz=64, conf=0.0, device="cpu")
    found["exported"] = exported.names
    described = Path(folder, "mine.yaml")
    YAML.save(described, {k: v for k, v in start.model.yaml.items() if k != "yaml_file"})
    fresh = YOLO(described, task=start.task).load(weights)
    found["loaded"] = bool(torch.equal(_output(fresh), _output(start)))
    frozen = [row for layer in (0, 1, 2) for row in start.model.yaml["rows_of_layer"][layer]]
    fresh.train(data=data, epochs=1, project=folder, name="fresh", freeze=frozen, **SHORT)
    trained = YOLO(fresh.trainer.last)
    found["fresh"] = _parameters(trained)
    kept = [row for row in range(len(trained.model.model) - 1) if _has_weights(trained, row)]
    found["frozen"] = [row for row in kept if torch.equal(_weights(trained, row), _weights(start, row))]
    found["asked"] = [row for row in frozen if row in kept]
    return found


if __name__ == "__main__":
    what, *given = sys.argv[1:]
    print(json.dumps({"train": train_and_die, "finish": finish}[what](*given), default=str))
