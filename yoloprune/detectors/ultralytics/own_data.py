"""Mixins by which Ultralytics' trainers and validators take data as `check_data` finds it, and nothing else.

Their own way to a data set runs or fetches what the data YAML names for `download:`, whenever images are missing, and
unpickles label caches. With these mixins they get the checked dictionary, or a data YAML written from it that has
nothing to download, and datasets of `uncached`.
"""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from ultralytics.utils import LOGGER

from yoloprune.errors import UserError

from .datasets import as_yaml, check_data, with_classes_of
from .guard import offline
from .uncached import build_dataset

__all__ = ["OwnData", "OwnDataValidator", "own_trainer", "own_validator"]


class OwnDataValidator:
    """A mixin before a validator of Ultralytics.

    Attributes:
        checked: What `check_data` says of `args.data`; None: it is asked.
        idle: Whether there is nothing to validate on, so that each validation finds zeros at once.
    """

    checked: dict[str, Any] | None = None
    idle: bool = False

    def __call__(self, trainer: Any = None, model: Any = None, **kwargs: Any) -> dict[str, float] | None:
        """Validate as Ultralytics does."""
        if self.idle:
            return {**dict.fromkeys(self.metrics.keys, 0.0), **(trainer.metrics if trainer else {}), "fitness": 0.0}
        if trainer is not None:  # which has its data
            return super().__call__(trainer, model, **kwargs)
        given, split = self.args.data, self.args.split or "val"
        checked = self.checked or check_data(str(given), self.args.task, split=split, labels=False)
        with offline(), tempfile.TemporaryDirectory(prefix="yoloprune-data-") as folder:
            self.args.data = str(_folder(checked) if self.args.task == "classify" else as_yaml(checked, Path(folder)))
            try:
                return super().__call__(trainer, model, **kwargs)
            finally:
                self.args.data = given

    def build_dataset(self, *args: Any, **kwargs: Any) -> Any:
        """A dataset without caches."""
        return build_dataset(super().build_dataset, *args, **kwargs)


class OwnData:
    """A mixin before a trainer of Ultralytics.

    Without validation (`val=False`) data need no validation images. Where they have none, the last network is the best.

    Attributes:
        needs_labels: Whether training images must have labels.
    """

    needs_labels: ClassVar[bool] = True

    _validates = True

    @property
    def measured(self) -> dict[str, float]:
        """The metrics of the last validation; empty if there is nothing to validate on."""
        return (self.metrics or {}) if self._validates else {}

    def get_dataset(self) -> dict[str, Any]:
        """The data, checked; images alone have no names of classes until the network is known.

        Raises:
            UserError: They cannot be used.
        """
        args = self.args
        data = check_data(args.data, args.task, split="train", labels=self.needs_labels)
        split = args.split or "val"
        try:
            data = {**check_data(args.data, args.task, split=split), "train": data["train"]}
        except UserError:
            if args.val:
                raise
            self._validates = False
            data[split] = data["train"]  # which Ultralytics loads, and nothing looks at
        args.data = str(data.get("yaml_file") or Path(args.data).absolute())
        if args.single_cls:
            LOGGER.info("Overriding class names with single class.")
            data["names"], data["nc"] = {0: "item"}, 1
        return data

    def get_model(self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True) -> nn.Module:
        """Ultralytics' own, once the classes are known."""
        self.take_classes(weights)
        return super().get_model(cfg=cfg, weights=weights, verbose=verbose)

    def take_classes(self, network: nn.Module | None) -> None:
        """Give images alone the classes of the network that is trained on them.

        Raises:
            UserError: There is none yet.
        """
        if self.data.get("names", {}) is not None:
            return
        if network is None:
            raise UserError(f"'{self.args.data}' names no classes, which a new network needs; give a data YAML.")
        self.data = with_classes_of(self.data, network)

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        """A dataset without caches.

        Raises:
            UserError: The images and labels cannot be used, or there are no labels where training needs them.
        """
        dataset = build_dataset(super().build_dataset, img_path, mode, batch)
        if mode == "train" and self.needs_labels and self.args.task in ("detect", "segment", "pose", "obb"):
            labels = getattr(dataset, "labels", None)
            if labels and not any(len(label["cls"]) for label in labels):
                raise UserError(f"None of the {len(labels)} training images of '{self.args.data}' has a label.")
        return dataset

    def get_validator(self) -> Any:
        """Ultralytics' own, which looks for its data nowhere else."""
        validator = super().get_validator()
        validator.__class__ = own_validator(type(validator))
        validator.checked, validator.idle = self.data, not self._validates
        return validator

    def generate_text_embeddings(self, texts: list[str], batch: int, cache_dir: Path) -> Any:
        """Ultralytics' own of YOLO-World and YOLOE, which unpickles a file beside the images if there is one."""
        with tempfile.TemporaryDirectory(prefix="yoloprune-texts-") as folder:
            return super().generate_text_embeddings(texts, batch, Path(folder))


@lru_cache
def own_validator(validator: type) -> type:
    """A validator of Ultralytics with this mixin."""
    if issubclass(validator, OwnDataValidator):
        return validator
    return type(f"Own{validator.__name__}", (OwnDataValidator, validator), {})


@lru_cache
def own_trainer(trainer: type) -> type:
    """A trainer of Ultralytics with this mixin; those that prune and train networks have it already."""
    return trainer if issubclass(trainer, OwnData) else type(f"Own{trainer.__name__}", (OwnData, trainer), {})


def _folder(checked: dict[str, Any]) -> Path:
    """The folder of a classification set."""
    return Path(checked["train"]).parent
