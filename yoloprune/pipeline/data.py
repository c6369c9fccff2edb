"""The data of a run and the size of its images: what was asked for, or what the checkpoint says."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from yoloprune.criteria import CRITERIA
from yoloprune.demo import digits
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError

from .folder import DIGITS, RunFolder
from .options import Options

__all__ = ["DIGITS", "choose_data", "fitting_imgsz", "settle_validation", "with_data", "write_digits"]

_USUAL = 640  # px, Ultralytics' default


def fitting_imgsz(detector: Detector, imgsz: int | None) -> tuple[int, str | None]:
    """The image size that was asked for, rounded up to a multiple of the network's stride.

    Args:
        detector: The detector.
        imgsz: Image size in px; None: the one that the weights were trained at.

    Returns:
        The size in px and, if it is neither what was asked for nor the usual one, a sentence that says so.
    """
    asked = imgsz or detector.trained_imgsz or _USUAL
    fitting = -(-asked // detector.stride) * detector.stride
    if fitting != asked:
        return (
            fitting,
            f"imgsz={asked} is no multiple of the network's stride, {detector.stride}; {fitting} is used instead.",
        )
    if imgsz is None and fitting != _USUAL:
        return fitting, f"Images are {fitting} px, as in the training of the weights."
    return fitting, None


def choose_data(
    data: str | None,
    detector: Detector,
    *,
    images: bool = False,
    labels: bool = True,
    ranks: bool = False,
    validates: bool = True,
) -> str:
    """Return the data to use: what was asked for, else what the checkpoint was trained on, checked.

    Args:
        data: What was asked for.
        detector: The detector.
        images: Whether the training split must have images.
        labels: Whether those must have labels.
        ranks: Whether the network as it is looks at those, so that its classes must be those of the data.
        validates: Whether the network is validated as it is, so that its classes must be those of the data.

    Raises:
        UserError: The data is missing or broken, or nothing was asked for and the checkpoint's data is not here.
    """
    if data == DIGITS:
        return data
    own = detector.trained_on
    chosen = data or own
    if not chosen:
        raise UserError("The weights do not say which data they were trained on; give it with --data.")
    try:
        if validates or not images:
            detector.check_data(chosen, same_classes=validates)
        if images:
            detector.check_data(chosen, split="train", labels=labels, same_classes=ranks)
    except UserError as error:
        if data is None:
            raise UserError(f"The weights were trained on {own}, which cannot be used here; give --data.") from error
        raise
    if Path(chosen).is_dir():
        return os.path.abspath(chosen)  # a link stays one, since labels are looked for beside its images
    return str(Path(chosen).resolve()) if Path(chosen).exists() else str(chosen)


def with_data(options: Options, detector: Detector) -> Options:
    """Settle on the data of a run, and on criterion and recovery where they were left open.

    Returns:
        The options, with data None if nothing in the run looks at data.

    Raises:
        UserError: The run needs data and there are none.
    """
    distill = _distils(options, detector)
    labels, asked = _needs(options, distill)
    ranks = bool(options.criterion and CRITERIA[options.criterion].needs_loss)
    ranks_by_images = options.criterion is None and not options.plan
    if ranks_by_images or options.recover is None or asked:
        try:
            data = choose_data(options.data, detector, images=True, labels=labels, ranks=ranks, validates=options.val)
        except UserError as error:
            if options.data is not None or labels or options.epochs:
                raise
            own = detector.trained_on
            where = f"the data that the weights were trained on, {own}, are not here" if own else "there are none"
            raise UserError(
                f"A pruned network sees nothing until it is recovered by images, and {where}; give a data YAML or a "
                "folder of images, without labels if need be (--data, data=), or have it pruned by weights alone "
                "(--criterion l2 --no-recover)."
            ) from error
    else:
        data = choose_data(options.data, detector, validates=True) if options.val else None
    criterion = options.criterion or "output_error"
    recover = True if options.recover is None else options.recover
    return replace(options, data=data, criterion=criterion, recover=recover, distill=distill)


def settle_validation(options: Options, detector: Detector) -> tuple[Options, str | None]:
    """Leave the validation of a run's trainings out where the run has none and the data are not fit for it.

    Args:
        options: The options of the run, as `with_data` has settled them.
        detector: The detector.

    Returns:
        The options, and a sentence if validation is left out.
    """
    trains = options.train_epochs or options.sparse_epochs or options.epochs
    if options.val or not trains or options.data == DIGITS or "val" in options.train:
        return options, None
    try:
        detector.check_data(options.data, split="val")
    except UserError as error:
        alone = detector.check_data(options.data, split="train", labels=False) is None
        why = f"'{options.data}' holds images alone." if alone else str(error)
        said = f"There is nothing to validate on, so the network of a training's last epoch is taken: {why}"
        return replace(options, train={**options.train, "val": False}), said
    return options, None


def _needs(options: Options, distill: bool) -> tuple[bool, bool]:
    """Whether the run needs labels of training images, and whether it needs training images at all."""
    entry = CRITERIA.get(options.criterion or "")
    trains = options.train_epochs or options.sparse_epochs or (options.epochs and not distill)
    labels = bool(trains or (entry and entry.needs_loss))
    return labels, bool(labels or options.epochs or options.recover or (entry and entry.needs_batches))


def _distils(options: Options, detector: Detector) -> bool:
    if not options.distill and (options.distill is False or not options.epochs or "distill_model" in options.train):
        return False
    if options.distill and not detector.can_distill:
        raise UserError(f"The head of this {detector.family} network cannot be distilled; leave --distill out.")
    return detector.can_distill


def write_digits(folder: RunFolder) -> str:
    """Write the embedded digits set into the run's folder and return its data YAML."""
    return str(digits.write(folder.digits))
