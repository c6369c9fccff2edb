"""A run within a time budget: whether it can suffice, and what of it a fine-tuning may take once pruning is done."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from yoloprune.criteria.loss import differentiable
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError

from .heads import compares_heads
from .options import Options
from .planning import TRIALS, rankings

__all__ = ["Allowed", "TimeBudget", "check_budget"]

_MARGIN = 1.25  # loading, augmentation and the optimizer, beside forward and backward
_RECOVERY = 4.0  # ranking and reconstruction by one image, in training steps of one image
_TRIAL = 1.0  # one trial of a limit by one image, in training steps of one image
_LOOK = 1 / 3  # a forward pass alone, in training steps
_LATENCY, _EXPORT, _START = 10.0, 15.0, 10.0  # seconds that measuring the latency, exporting and a trainer's start take
_LEAST_EPOCHS = 5  # fewer are over before the rate has fallen: on COCO images one took .291 to .084, three .292 to .269


class Allowed(NamedTuple):
    """What a fine-tuning may take: epochs, by an estimate, and seconds, by which the trainer corrects them."""

    epochs: int
    seconds: float


class TimeBudget:
    """The time of a whole run.

    Args:
        seconds: The budget.
        spent: What of it earlier processes have spent on phases that this one does not do again.
    """

    def __init__(self, seconds: float, spent: float = 0.0) -> None:
        self.seconds = seconds
        self._end = time.perf_counter() + seconds - spent

    def left(self) -> float:
        """Seconds until the run should be over."""
        return self._end - time.perf_counter()

    def for_fine_tuning(
        self, pruned: Detector, options: Options, *, step: int, prune_seconds: float, validation_seconds: float
    ) -> tuple[Allowed | None, str]:
        """What the fine-tuning of a step may take, so that all that comes after it fits too.

        Args:
            pruned: The network to fine-tune.
            options: The options of the run.
            step: Number of the step, from 1.
            prune_seconds: What pruning took in this step, which the later ones will take too.
            validation_seconds: What one validation takes.

        Returns:
            Epochs and seconds, or None where too few epochs fit to be of use; and a sentence that says which.
        """
        later = options.steps - step
        # the trainer's last epoch and best network; the run's own, two of them of smaller images
        validations = 2 + options.val * (4 + later * 2)
        reserved = later * prune_seconds + validations * validation_seconds
        reserved += options.val * _LATENCY + bool(options.export) * _EXPORT
        seconds = (self.left() - reserved) / (later + 1)
        train, val = pruned.split_sizes(options.data, options.train)
        one = seconds_per_image(pruned, options)
        epoch = train * one * (1 + bool(options.distill) * _LOOK) + val * one * _LOOK
        start = _START + options.rollback * validation_seconds  # which a rollback compares with
        epochs = int((seconds - start) / epoch)
        if epochs < _LEAST_EPOCHS:
            return None, (
                f"Of the budget, {max(seconds, 0):.0f} s are left for fine-tuning, and an epoch takes about "
                f"{epoch:.0f} s here: fewer than {_LEAST_EPOCHS} epochs do harm rather than good, so none is spent."
            )
        return Allowed(epochs, seconds - start), (
            f"Of the budget, {seconds:.0f} s go to fine-tuning: about {epochs} epochs of {epoch:.0f} s."
        )


def check_budget(detector: Detector, options: Options) -> None:
    """Check that a run without fine-tuning fits into the budget.

    Raises:
        UserError: It does not.
    """
    step = seconds_per_image(detector, options)
    train, val = detector.split_sizes(options.data, options.train)
    compares = compares_heads(detector, options)
    seconds = (2 + 2 * compares) * options.val * val * step * _LOOK
    images = options.calibration_images * step
    seconds += (options.steps + compares) * bool(options.recover) * _RECOVERY * images
    tries = bool(options.recover) and options.max_pruning_ratio is None
    trials = (TRIALS + len(rankings(options.criterion or "", tries)) - 1) * tries
    seconds += (options.steps + compares) * trials * _TRIAL * images
    seconds += (options.train_epochs + options.sparse_epochs) * (train + val * _LOOK) * step
    if options.budget < seconds:
        raise UserError(
            f"A budget of {options.budget:.0f} s is too short: without any fine-tuning the run takes about "
            f"{seconds:.0f} s here; give more time, or fewer --calibration-images."
        )


def seconds_per_image(detector: Detector, options: Options) -> float:
    """Seconds that a training step takes for each image, measured with a few; the network is left as it was."""
    device, network = detector.place(options.device), detector.network
    batches = detector.calibration_batches(options.data, images=8, imgsz=options.imgsz, batch=4, device=device)
    loss, parameters = detector.training_loss({}), list(network.to(device).parameters())
    times = []
    with differentiable(network, parameters):
        for batch in (*batches, *batches):
            started = time.perf_counter()
            first = torch.autograd.grad(loss(network, batch), parameters, allow_unused=True)[0]
            float(first.sum())  # waits for a GPU
            times.append((time.perf_counter() - started) / len(batch["img"]))
    network.cpu()
    return sum(times) / len(times) * _MARGIN
