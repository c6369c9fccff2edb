"""Ultralytics' trainers with group-sparse training; pruned networks stay as they are.

Ultralytics refuses unknown `train()` keywords, never calls its own `optimizer_step` callbacks, and hands a trainer to
the processes of a distributed training as (class, arguments, model, callbacks). So the options are an attribute of a
class: `bind` makes a subclass that carries them. It is not importable by name, so cloudpickle sends it whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

from yoloprune.criteria import score
from yoloprune.detectors.ultralytics.internals import student_of
from yoloprune.detectors.ultralytics.trace import trace_yolo
from yoloprune.errors import UserError
from yoloprune.graph import Graph
from yoloprune.sparsity import TABLE, GroupSparsity, Sparsity, append_row, distribution

from .pruned import TRAINERS, KeepPruned

__all__ = ["SparseTrainer", "bind"]


class SparseTrainer:
    """A mixin before a trainer of `pruned`: adds the regulariser's gradient to every step.

    The strength of an epoch is the schedule's at its end, so it follows from `epoch` and `epochs`, and a resumed
    training has nothing to restore.

    Attributes:
        sparsity: The options; see `bind`.
        prune_head: Whether the hidden layers of the head will be pruned too, and so take part.
        keep: Names or patterns of modules whose output channels will stay, and so take no part.
        portable: Whether what rows of a stock `model.yaml` cannot say will stay, and so takes no part.
    """

    sparsity: ClassVar[Sparsity] = Sparsity()
    prune_head: ClassVar[bool] = False
    keep: ClassVar[Sequence[str]] = ()
    portable: ClassVar[bool] = False

    def optimizer_step(self) -> None:
        """Ultralytics' own step, with the regulariser between the scaler's `unscale_` and the clipping."""
        unscale, regularised = self.scaler.unscale_, False

        def unscale_and_regularise(optimizer: Any) -> None:
            nonlocal regularised
            unscale(optimizer)
            self._regulariser(self.sparsity.schedule(self._progress))
            regularised = True

        self.scaler.unscale_ = unscale_and_regularise  # on the instance, for this step
        try:
            super().optimizer_step()
        finally:
            del self.scaler.unscale_
        if not regularised:
            raise RuntimeError("This version of Ultralytics steps without unscale_, so nothing was regularised.")

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Also write how the relative scores of the averaged weights, which are what is pruned, are spread."""
        super().save_metrics(metrics)
        scores = score(self._graph, student_of(self.ema.ema), "l2")
        strength = self.sparsity.strength * self.sparsity.schedule(self._progress)
        append_row(self.save_dir / TABLE, distribution(self._graph, scores, epoch=self.epoch + 1, strength=strength))

    @property
    def _progress(self) -> float:
        return min((self.epoch + 1) / self.epochs, 1.0)

    def _setup_train(self) -> None:
        if self.args.quantize == 8:
            raise UserError(
                "Group-sparse training comes before pruning and training for INT8 after it; leave quantize=8 out."
            )
        super()._setup_train()
        _ = self._regulariser  # trace now: what cannot be regularised is known before the first epoch

    @cached_property
    def _graph(self) -> Graph:
        return trace_yolo(student_of(self.model), self.prune_head, self.keep, self.portable)

    @cached_property
    def _regulariser(self) -> GroupSparsity:
        options = self.sparsity
        return GroupSparsity(
            self._graph,
            student_of(self.model),
            strength=options.strength,
            alpha=options.alpha,
            scope=options.scope,
        )


def bind(
    trainer: type,
    sparsity: Sparsity,
    *,
    prune_head: bool = False,
    keep: Sequence[str] = (),
    portable: bool = False,
) -> type:
    """A trainer that also regularises, with these options, for `YOLO.train(trainer=...)`.

    Args:
        trainer: A stock trainer, the one of `pruned` for it, or one that `keep_pruned` gave.
        sparsity: The options.
        prune_head: Whether the head's hidden layers take part.
        keep: Names or patterns of modules whose output channels take no part.
        portable: Whether what rows of a stock `model.yaml` cannot say takes no part.

    Raises:
        UserError: There is no sparse training for this trainer.

    Examples:
        >>> yolo.train(trainer=bind(DetectionTrainer, Sparsity(strength=1e-3)), data="coco.yaml")  # doctest: +SKIP
    """
    base = TRAINERS.get(trainer, trainer)
    if not issubclass(base, KeepPruned):
        raise UserError(f"There is no group-sparse training for {trainer.__name__}; train without it.")
    # Ultralytics attaches its loggers only to classes with "Trainer" in the name
    options = {"sparsity": sparsity, "prune_head": prune_head, "keep": tuple(keep), "portable": portable}
    return type(f"Sparse{base.__name__}", (SparseTrainer, base), options)
