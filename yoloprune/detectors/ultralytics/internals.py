"""What is used of Ultralytics that it may change without a word: each behind a function of ours.

Seen in 8.4.165 to 8.4.190. `tests/detectors/ultralytics/test_contracts.py` looks at each of them in the version that is
installed and says in a sentence what has changed; `make contracts` does so in the oldest and the newest version that
pip finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.engine.model import Model
from ultralytics.nn.tasks import _SafeLoad, guess_model_task, parse_model
from ultralytics.utils.metrics import ap_per_class
from ultralytics.utils.torch_utils import unwrap_model

__all__ = [
    "HEAD_ATTRIBUTES",
    "HOOKS",
    "LOOKED_UP",
    "average_precisions",
    "check_activation",
    "checkpoint_args",
    "close_mosaic",
    "described",
    "guess_task",
    "restart_loader",
    "student_of",
    "task_trainer",
]

HOOKS: Mapping[str, Sequence[str]] = {
    "ultralytics.engine.trainer:BaseTrainer": (
        "_setup_train",
        "_model_train",
        "build_dataset",
        "final_eval",
        "get_dataset",
        "get_model",
        "get_validator",
        "optimizer_step",
        "preprocess_batch",
        "save_metrics",
        "save_model",
        "train",
    ),
    "ultralytics.engine.validator:BaseValidator": ("__call__", "build_dataset", "init_metrics", "update_metrics"),
    "ultralytics.engine.validator:BaseValidator.__call__": ("finalize_metrics",),
    "ultralytics.engine.exporter:Exporter": ("get_int8_calibration_dataloader",),
    "ultralytics.engine.model:Model": ("_load", "_smart_load", "_check_is_pytorch_model", "_reset_ckpt_args"),
    "ultralytics.data.base:BaseDataset": ("get_img_files", "load_image"),
    "ultralytics.data.dataset:YOLODataset": ("cache_labels", "get_labels"),
}
"""Methods that subclasses here override, by `module:class`: they exist, and Ultralytics' own code calls them."""

LOOKED_UP: Mapping[str, Sequence[str]] = {
    "ultralytics.data.utils:check_det_dataset": ("safe_download", "subprocess", "exec", "check_font"),
    "ultralytics.data.utils:check_cls_dataset": ("safe_download", "download", "subprocess"),
    "ultralytics.data.utils:verify_image": ("check_image",),
    "ultralytics.data.utils:verify_image_label": ("check_image",),
    "ultralytics.data.build:build_yolo_dataset": ("YOLODataset", "YOLOMultiModalDataset"),
    "ultralytics.data.dataset:YOLODataset.cache_labels": ("save_dataset_cache_file",),
    "ultralytics.data.dataset:ClassificationDataset.verify_images": (
        "load_dataset_cache_file",
        "save_dataset_cache_file",
        "verify_image",
        "get_hash",
    ),
    "ultralytics.engine.trainer:BaseTrainer.final_eval": ("strip_optimizer",),
    "ultralytics.engine.exporter:Exporter.get_int8_calibration_dataloader": (
        "check_cls_dataset",
        "check_det_dataset",
        "build_yolo_dataset",
    ),
}
"""Globals that functions of Ultralytics look up, where copies of them find something else; see `replaced.rebound`."""

HEAD_ATTRIBUTES: Mapping[str, Sequence[str]] = {
    "Detect": ("nc", "no", "nl", "reg_max", "stride", "cv2", "cv3", "dfl"),
    "v10Detect": ("one2one_cv2", "one2one_cv3"),
    "WorldDetect": ("cv4",),
    "RTDETRDecoder": ("nc", "enc_score_head", "dec_score_head", "denoising_class_embed"),
    "Classify": ("linear",),
}
"""Attributes of heads, by class, that tell where their class layers are."""


def described(rows: dict[str, Any]) -> nn.Module:
    """The layers that a `model.yaml` describes, on the meta device, as `parse_model` builds them."""
    with torch.device("meta"):
        return parse_model(rows, ch=rows.get("channels", 3), verbose=False)[0]


def check_activation(text: str) -> None:
    """Check that the activation in a `model.yaml` is a plain call of torch.nn.

    Raises:
        TypeError: It is not.
    """
    _SafeLoad.activation(text)


def guess_task(network: nn.Module) -> str:
    """The task of a network whose checkpoint does not say it."""
    return guess_model_task(network)


def average_precisions(hits: np.ndarray, scores: np.ndarray, classes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision of each class that occurs in the truth, at each IoU: (classes, IoUs).

    Args:
        hits: Whether a box matches a true one at each IoU, bool (boxes, IoUs).
        scores: Confidences of the boxes.
        classes: Their classes.
        truth: The classes of the true boxes.
    """
    return ap_per_class(hits, scores, classes, truth)[5]


def task_trainer(yolo: Model) -> type:
    """The trainer that a model's `train()` uses for its task."""
    return yolo._smart_load("trainer")


def checkpoint_args(yolo: Model, args: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a checkpoint that count in later use."""
    return yolo._reset_ckpt_args(args)


def close_mosaic(trainer: Any) -> None:
    """Turn mosaic augmentation off, as the trainer does in its last epochs."""
    trainer._close_dataloader_mosaic()


def restart_loader(loader: Any) -> None:
    """Have Ultralytics' endless loader start its iteration anew."""
    loader.iterator = loader._get_iterator()


def student_of(model: nn.Module) -> nn.Module:
    """The network itself, without wrappers; of a distillation by Ultralytics, the student."""
    model = unwrap_model(model)
    return getattr(model, "student_model", model)
