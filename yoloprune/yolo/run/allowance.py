"""From a time budget to epochs: what one image costs here, measured before the run."""

from __future__ import annotations

import time

import torch
from ultralytics.utils.torch_utils import select_device

from yoloprune.criteria.loss import differentiable
from yoloprune.errors import UserError
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.planning.limit import TRIALS

from .data import calibration_batches, split_sizes, training_loss
from .heads import compares_heads
from .options import Options
from .target import cost, step_targets

__all__ = ["epochs_within"]

_MARGIN = 1.25  # loading, augmentation and the optimizer, beside forward and backward
_RECOVERY = 2.0  # ranking and reconstruction by one image, in training steps of one image
_TRIAL = 1.0  # one trial of a limit by one image, in training steps of one image


def epochs_within(yolo: YOLO, options: Options, seconds: float) -> tuple[int, float]:
    """Epochs of fine-tuning that fit into a budget together with all else that the run does.

    Args:
        yolo: The network; its pruned self is taken to be as much faster as it has fewer GFLOPs.
        options: The options of the run.
        seconds: The budget.

    Returns:
        Epochs of each step, and seconds that a training step of the unpruned network takes per image.

    Raises:
        UserError: Not one epoch fits.
    """
    device = select_device(options.device, verbose=False)
    yolo.model.to(device)
    batches = calibration_batches(yolo, options.data, images=8, imgsz=options.imgsz, batch=4, device=device)
    loss, parameters = training_loss(yolo, {}), list(yolo.model.parameters())
    times = []
    with differentiable(yolo.model, parameters):
        for batch in (*batches, *batches):
            started = time.perf_counter()
            first = torch.autograd.grad(loss(yolo.model, batch), parameters, allow_unused=True)[0]
            float(first.sum())  # waits for a GPU
            times.append((time.perf_counter() - started) / len(batch["img"]))
    yolo.model.cpu()
    step = min(times) * _MARGIN
    look = step / 3  # a forward pass alone
    train, val = split_sizes(yolo, options.data, fraction=options.train.get("fraction", 1.0))
    own = cost(yolo.model)
    share = step_targets(options, own)[-1].share(own)
    compares = compares_heads(yolo, options)
    validations = 2 + (2 + options.way_back) * options.steps + 2 * compares
    fixed = validations * options.val * val * look
    fixed += (options.steps + compares) * bool(options.recover) * _RECOVERY * options.calibration_images * step
    limits = TRIALS * (bool(options.recover) and options.max_pruning_ratio is None)
    trials = (options.steps + compares) * limits
    fixed += trials * _TRIAL * options.calibration_images * step
    fixed += options.sparse_epochs * (train * step + val * look)
    epoch = train * (step * share + bool(options.distill) * look) + val * look
    epochs = int((seconds - fixed) / (epoch * options.steps)) if epoch else 0
    if epochs < 1:
        raise UserError(
            f"A budget of {seconds:.0f} s is too short: one epoch takes about {epoch:.0f} s here and the rest "
            f"{fixed:.0f} s; give more time, train on fewer images (fraction=), or replace --budget by --epochs 0."
        )
    return epochs, step
