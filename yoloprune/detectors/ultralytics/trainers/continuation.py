"""Going on inside an interrupted fine-tuning, so that it ends where an uninterrupted one would.

Ultralytics' own resume starts from `last.pt`, which is written in place (a kill can truncate it) and holds float16
weights, no random state and no accumulated gradients; a resumed run then drifts from an uninterrupted one. Callbacks
here write everything that decides the next epoch to one file, at once, after every epoch, and put it back.

In DDP workers only `last.pt` is kept that way, and resuming is Ultralytics' own.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.utils import RANK
from ultralytics.utils.torch_utils import unwrap_model

from yoloprune.detectors.ultralytics.internals import close_mosaic, restart_loader
from yoloprune.detectors.ultralytics.unpickling import read
from yoloprune.errors import UserError
from yoloprune.files import atomic

from .rollback import START

__all__ = ["Continuation"]

# what a single process writes
_WHOLE = {"model", "ema", "optimizer", "gradients", "stepped", "watch", "loader", "random"}


class Continuation:
    """The state of one fine-tuning on disk.

    Args:
        folder: The folder that Ultralytics' trainer writes to.

    Attributes:
        begun: Whether the trainer has put back its own part of the state.
    """

    def __init__(self, folder: Path):
        self.path = folder / "weights" / "continue.pt"
        self.last = folder / "weights" / "last.pt"
        self.table = folder / "results.csv"
        self.begun = False
        self._restored: dict[str, Any] | None = None  # what is being put back, during a resumed run's first batches
        self._batch = 0  # number of the current batch in its epoch
        self._stepped = -1  # number of the batch, over all epochs, after which the optimizer stepped last

    def attach(self, yolo: Any) -> None:
        """Have the trainings of this YOLO write the state, or put it back if `prepare` has found one."""
        for event in ("on_train_start", "on_train_epoch_start", "on_train_batch_start", "on_model_save"):
            yolo.add_callback(event, getattr(self, event))

    def prepare(self) -> bool:
        """Make the trainer's folder as it was after the last whole epoch.

        Returns:
            Whether there is something to resume from, by training `self.last` with Ultralytics' `resume`.

        Raises:
            UserError: The file holds something else.
        """
        if not self.path.is_file():
            return False
        with self._as_written():
            state = read(self.path)
            last, epoch = state.pop("last").numpy().tobytes(), state["epoch"]
            if type(epoch) is not int or epoch < 0 or not ("model" not in state or state.keys() >= _WHOLE):
                raise ValueError
        with atomic(self.last) as tmp:
            tmp.write_bytes(last)
        if self.table.exists():
            rows = self.table.read_text(encoding="utf-8").splitlines(keepends=True)
            with atomic(self.table) as tmp:  # the epoch that is done again must not be there twice
                tmp.write_text("".join(rows[: state["epoch"] + 2]), encoding="utf-8")
        self._restored = state
        return True

    def discard(self) -> None:
        """Remove the state, once the step that it belongs to is finished."""
        for name in (self.path.name, START):
            self.path.with_name(name).unlink(missing_ok=True)

    def on_train_start(self, trainer: Any) -> None:
        """Put back weights and optimizer in full precision, and watch the optimizer's steps."""
        self.begun = True
        if RANK != -1:
            self._restored = None
            return
        state = self._restored
        if state and "model" in state:
            with self._as_written():
                unwrap_model(trainer.model).load_state_dict(state["model"])
                trainer.ema.ema.load_state_dict(state["ema"])
                trainer.optimizer.load_state_dict(state["optimizer"])
                self._stepped = int(state["stepped"])
                if hasattr(trainer, "watch_on"):
                    trainer.watch_on(state["watch"])
        else:
            self._restored = None  # a new training, or one that was begun by several processes
        self._watch_steps(trainer)

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Put back gradients, the mosaic buffer and all random states, right before the first batch is drawn."""
        self._batch = -1
        state = self._restored
        if not state or "random" not in state:
            return
        with self._as_written():
            for name, parameter in unwrap_model(trainer.model).named_parameters():
                gradient = state["gradients"].get(name)
                parameter.grad = None if gradient is None else gradient.to(parameter.device)
            _restore_loader(trainer, state["loader"])
            _restore_random(state.pop("random"))

    def on_train_batch_start(self, trainer: Any) -> None:
        """Count batches."""
        self._batch += 1

    def on_model_save(self, trainer: Any) -> None:
        """Write the state, unless this was the last epoch: what is left then is done again from the one before."""
        if RANK > 0 or trainer.stop:
            return
        last = torch.frombuffer(bytearray(self.last.read_bytes()), dtype=torch.uint8)
        whole = self._whole_state(trainer) if RANK == -1 else {}
        content = io.BytesIO()
        torch.save({"epoch": trainer.epoch, "last": last, **whole}, content)
        with atomic(self.path) as tmp:
            tmp.write_bytes(content.getvalue())

    @contextmanager
    def _as_written(self) -> Iterator[None]:
        """Within the block, which takes the state that was read apart, whatever does not fit becomes a sentence."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError, OSError) as error:
            raise self.foreign() from error

    def foreign(self) -> UserError:
        """What to say of a state that no training of this step wrote."""
        return UserError(
            f"'{self.path}' is not the state of this training; remove it and resume again: the training then begins "
            "anew."
        )

    def _whole_state(self, trainer: Any) -> dict[str, Any]:
        """All that decides the next epoch, in full precision."""
        network = unwrap_model(trainer.model)
        return {
            "model": network.state_dict(),
            "ema": trainer.ema.ema.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "gradients": {name: p.grad for name, p in network.named_parameters() if p.grad is not None},
            "stepped": self._stepped,
            "watch": trainer.watched() if hasattr(trainer, "watched") else None,
            "loader": {
                "generator": trainer.train_loader.generator.get_state(),
                "buffer": list(getattr(trainer.train_loader.dataset, "buffer", [])),
            },
            "random": _random(),
        }

    def _watch_steps(self, trainer: Any) -> None:
        """Note when the optimizer steps, and delay the first step of a resumed run to where it would have been.

        Ultralytics steps when `batch number - last step >= accumulate`, but forgets the last step at a resume (it
        starts from -1). Until the first step, `accumulate` is therefore larger by what it forgot. It is set where a
        batch is preprocessed: after the warm-up has set it and before it is asked.
        """
        step, preprocess = trainer.optimizer_step, trainer.preprocess_batch
        batches = len(trainer.train_loader)
        forgotten = self._stepped + 1
        own = raised = None

        def preprocess_batch(batch: Any) -> Any:
            nonlocal own, raised
            if self._restored and trainer.accumulate != raised:
                own, raised = trainer.accumulate, trainer.accumulate + forgotten
                trainer.accumulate = raised
            return preprocess(batch)

        def optimizer_step() -> None:
            step()
            self._stepped = trainer.epoch * batches + self._batch
            if self._restored:
                trainer.accumulate, self._restored = own, None

        trainer.preprocess_batch, trainer.optimizer_step = preprocess_batch, optimizer_step


def _restore_loader(trainer: Any, state: dict[str, Any]) -> None:
    """Have the loader go on as if it had never stopped. With worker processes it draws anew instead."""
    loader, args = trainer.train_loader, trainer.args
    if loader.num_workers:
        return
    closed = args.close_mosaic and trainer.epoch > trainer.epochs - args.close_mosaic
    if closed:  # in an earlier epoch; Ultralytics is about to do it again, which must not restart the loader
        close_mosaic(trainer)
        loader.reset = lambda: vars(loader).pop("reset")
    dataset = loader.dataset
    if hasattr(dataset, "buffer"):
        dataset.buffer.clear()
        for index in state["buffer"]:  # loading an image puts it into the buffer
            dataset.load_image(index)
    restart_loader(loader)  # draws a seed, so it comes before the generator's state
    loader.generator.set_state(state["generator"])
    closes = args.close_mosaic and trainer.epoch == trainer.epochs - args.close_mosaic  # and starts the loader anew
    if len(dataset) % loader.batch_size == 0 and not closes:
        # the sampler of an uninterrupted run draws once more when it finds itself at its end, before it starts again
        torch.randperm(len(dataset), generator=loader.generator)


def _random() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (Ultralytics draws from it)
    return {
        "python": [version, list(words), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random(state: dict[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    cuda: list[Tensor] = state["cuda"]
    if cuda and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)
