"""The run: measure, (prune, fine-tune) x steps, validate, export, write results."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.errors import UserError
from yoloprune.graph import Plan
from yoloprune.report import Measure, Record
from yoloprune.yolo import checkpoints
from yoloprune.yolo.exact import check_exact
from yoloprune.yolo.formats import check_can_export
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.trace import trace_yolo

from .context import Context, read_result
from .data import DIGITS, settle_validation, with_data, write_digits
from .device import check_device
from .finish import finish, megabytes
from .folder import RunFolder, check_outside, check_writable, make_folder
from .images import keep
from .imgsz import fitting_imgsz
from .interrupt import Interrupted, disk_full, where_it_stands
from .keywords import check_keyword_ranges
from .options import Options
from .own_classes import fit_classes
from .progress import Progress
from .rehearsal import Rehearsal, rehearse
from .state import Remembered, fingerprint
from .steps import all_steps
from .target import Target, check_reachable, cost, step_targets
from .time_budget import TimeBudget, check_budget
from .trainings import train_first

__all__ = ["Finished", "Run"]


@dataclass
class Finished:
    """What a run leaves in memory.

    Attributes:
        yolo: The pruned (and fine-tuned) network.
        plan: One plan against the original weights.
        record: All measurements.
        folder: The output folder, if anything was written.
    """

    yolo: YOLO
    plan: Plan
    record: Record
    folder: RunFolder | None


class Run:
    """One run over one network. Making it checks everything that can be checked; `go` does the work.

    Args:
        yolo: The network to prune; not changed but for the device that it is on meanwhile.
        options: What to do.
        weights: File that the network came from, if any.
        progress: Where to report to.
        remembered: An earlier run to take up, whose options `options` are.
        keeps_images: Whether the data is a list of images that will be gone, and is to be kept in the output folder.

    Raises:
        UserError: Anything that can be known to fail before any work is done. Nothing is written then.
    """

    def __init__(
        self,
        yolo: YOLO,
        options: Options,
        *,
        weights: str | None = None,
        progress: Progress | None = None,
        remembered: Remembered | None = None,
        keeps_images: bool = False,
    ):
        self._weights, self._keeps_images = weights, keeps_images
        trains = options.epochs or options.train_epochs or options.sparse_epochs or options.budget
        self._writes = bool(options.project or options.name or trains or options.export)
        check_device(options.device)
        check_keyword_ranges(options.train)
        if self._writes and not remembered:
            check_writable(options.project, options.name)
            check_outside(weights, options.project, options.name, options.exist_ok)
        if options.export and not remembered:
            check_can_export(options.export)
        self._fingerprint = fingerprint(yolo.model)
        if remembered and remembered.fingerprint != self._fingerprint:
            raise UserError(f"{weights or 'The given model'} does not hold the weights that the run was started with.")
        imgsz, rounded = fitting_imgsz(yolo, options.imgsz)
        options = replace(options, imgsz=imgsz)
        yolo, other_classes = fit_classes(yolo, options)
        if options.budget:
            options = replace(options, epochs=1)  # at least; how many are known once the network is pruned
        options, unvalidated = settle_validation(with_data(options, yolo), yolo)
        self._remarks = [line for line in (rounded, other_classes, unvalidated) if line]
        own = cost(yolo.model)
        self._targets = step_targets(options, own)
        graph = trace_yolo(yolo.model, options.prune_head, options.keep)
        check_reachable(options, graph, yolo.model, own)
        if not remembered:  # each step checks its own plan; here it is found out before anything is written
            check_exact(yolo.model, graph, graph.random_plan())
        record = (remembered and remembered.record) or Record(
            weights=weights or "a model in memory",
            family=checkpoints.family(yolo),
            task=yolo.task,
            imgsz=options.imgsz,
            data=options.data,
            before=Measure(*own),
        )
        folder = remembered.folder if remembered else None
        self._run = Context(yolo, options, record, progress or Progress(), folder)

    @property
    def record(self) -> Record:
        """What is known and measured so far."""
        return self._run.record

    @property
    def options(self) -> Options:
        """What it does, defaults settled."""
        return self._run.options

    @property
    def target(self) -> Target:
        """What it aims at in the end."""
        return self._targets[-1]

    def rehearse(self) -> Rehearsal:
        """Find out what `go` would do, and write nothing."""
        self._start_budget()
        return rehearse(self._run, self._targets)

    def go(self) -> Finished:
        """Do the run from where it stands; a finished one is only read.

        Raises:
            UserError: What could not be known before.
            Interrupted: Ctrl-C.
        """
        run = self._run
        try:
            if run.record.finished:
                anew = f"remove '{run.folder.results}' and resume again: the run then begins at its first step"
                return Finished(*read_result(run.folder.weights, run.folder.plan, anew), run.record, run.folder)
            started = time.perf_counter()
            self._start_budget()
            self._open_folder()
            for line in self._remarks:
                if line not in run.record.notes:
                    run.note(line)
            train_first(run)
            self._validate_original()
            yolo, plan = all_steps(run, self._targets)
            yolo = finish(run, yolo, plan, started)
            return Finished(yolo, plan, run.record, run.folder)
        except KeyboardInterrupt as error:
            raise Interrupted(where_it_stands(run.folder, run.record, run.options.steps)) from error
        except OSError as error:
            if said := disk_full(error, run.folder):
                raise UserError(said) from error
            raise

    def _open_folder(self) -> None:
        """Make the output folder, unless there is one already, and write into it what a resumed run must know."""
        run, options = self._run, self._run.options
        if not self._writes:
            return
        fresh = run.folder is None
        if fresh:
            run.folder = make_folder(options.project, options.name, options.exist_ok)
            if self._keeps_images:
                run.record.data = keep(options.data, run.folder.steps / "images")
                run.options = options = replace(options, data=run.record.data)
        run.progress.write_to(run.folder.path, run.folder.log)
        if run.record.before.size_mb is None:
            run.record.before.size_mb = _megabytes_saved(run.original)
        if options.data == DIGITS:
            with run.progress.phase("Draw the digits"):
                run.record.data = write_digits(run.folder)
            run.options = replace(options, data=run.record.data)
        if fresh:
            replace(run.options, data=options.data).save(
                run.folder.args, weights=self._weights, fingerprint=self._fingerprint
            )

    def _start_budget(self) -> None:
        """Start the clock of the time budget, after a check that it is not hopeless; nothing is written meanwhile."""
        run, options = self._run, self._run.options
        if options.budget is None:
            return
        spent = sum(seconds for phase, seconds in run.record.seconds.items() if phase != "total")
        run.budget = TimeBudget(options.budget, spent)
        if run.folder is None:
            with tempfile.TemporaryDirectory() as scratch:
                data = write_digits(RunFolder(scratch)) if options.data == DIGITS else options.data
                with run.phase("Measure the speed", "budget"):
                    check_budget(run.original, replace(options, data=data))

    def _validate_original(self) -> None:
        run = self._run
        if run.options.val and not run.record.before.metrics:
            run.record.before.metrics = run.validate(run.original, "Validate the original")
            run.remember()


def _megabytes_saved(yolo: YOLO) -> float:
    """Size of the checkpoint that would be written, so that float16 is compared with float16."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.pt"
        checkpoints.save(yolo, path)
        return megabytes(path)
