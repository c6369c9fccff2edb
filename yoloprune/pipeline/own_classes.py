"""Weights of other classes than the data's, the commonest case: the unpruned network is trained on the data first."""

from __future__ import annotations

from pathlib import Path

from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError

from .folder import DIGITS
from .options import Options

__all__ = ["OtherClassesError", "fit_classes"]


class OtherClassesError(UserError):
    """The data have other classes than the weights, and the run was not told to train on them first."""


def fit_classes(detector: Detector, options: Options) -> tuple[Detector, str | None]:
    """The detector that a run prunes or, where it trains first, starts training: with as many classes as the data have.

    Args:
        detector: What was given; left as it is.
        options: The options of the run.

    Returns:
        `detector` itself, or one like it with fresh last class layers; and a sentence, if there is something to say.

    Raises:
        OtherClassesError: The numbers of classes differ, and no epochs of training are asked for.
        UserError: The data cannot be used.
    """
    if options.data in (None, DIGITS):  # the embedded set, even beside a folder of that name
        return detector, None
    if not Path(options.data).exists() and not options.data.endswith((".yaml", ".yml")):
        return detector, None  # `check_data` will refuse it
    ours, theirs = detector.names, detector.check_data(options.data, split="train", labels=False)
    if theirs is None:  # images alone
        return detector, None
    if len(theirs) == len(ours):
        return detector, _other_names(ours, theirs)
    if not options.train_epochs:
        raise OtherClassesError(
            f"'{options.data}' has {len(theirs)} classes and the weights {len(ours)}, so the network must be trained "
            "on these data before it is pruned; give --train-epochs 50 (train_epochs=50), and one run does both"
        )
    return detector.with_classes(theirs), (
        f"The data have {len(theirs)} classes and the weights {len(ours)}: the unpruned network is trained for "
        f"{options.train_epochs} epochs first, its last class layers from scratch."
    )


def _other_names(ours: dict[int, str], theirs: dict[int, str]) -> str | None:
    """A sentence where the classes are as many as the weights', but called otherwise."""
    known, found = ({str(name).strip().lower() for name in names.values()} for names in (ours, theirs))
    if known & found or all(name.isdecimal() for name in known | found):
        return None
    return (
        f"The data and the weights have {len(found)} classes each and no name in common "
        f"({next(iter(theirs.values()))}, {next(iter(ours.values()))}): if they mean different "
        "things, train the unpruned network first, with --train-epochs."
    )
