"""The run: measure, (prune, fine-tune) x steps, validate, export, write results."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.deploy.formats import check_can_export
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.exclusive import turn
from yoloprune.graph import Plan
from yoloprune.progress import Progress
from yoloprune.report import Measure, Record

from .context import Context, read_result
from .data import DIGITS, fitting_imgsz, settle_validation, with_data, write_digits
from .dry_run import Rehearsal, rehearse
from .exact import check_exact
from .finish import finish, megabytes
from .folder import RunFolder, check_outside, check_writable, make_folder
from .given_plan import read_plan
from .heads import kept_head
from .images import keep
from .interrupt import Interrupted, disk_full, where_it_stands
from .loggers import log_run
from .on_device import OnDevice
from .options import Options
from .own_classes import fit_classes
from .state import Remembered, fingerprint
from .steps import all_steps
from .targets import Target, check_reachable, cost, step_targets
from .time_budget import TimeBudget, check_budget
from .train import train_first

__all__ = ["Finished", "Run"]


@dataclass
class Finished:
    """What a run leaves in memory.

    Attributes:
        detector: The pruned (and fine-tuned) detector.
        plan: One plan against the original weights.
        record: All measurements.
        folder: The output folder, if anything was written.
    """

    detector: Detector
    plan: Plan
    record: Record
    folder: RunFolder | None


class Run:
    """One run over one network. Making it checks everything that can be checked; `go` does the work.

    Args:
        detector: The detector to prune; not changed but for the device that its network is on meanwhile.
        options: What to do.
        weights: File that the network came from, if any.
        progress: Where to report to.
        remembered: An earlier run to take up, whose options `options` are.
        keeps_images: Whether the data is a list of images that will be gone, and is to be kept in the output folder.
        remark: A sentence that belongs in the report.

    Raises:
        UserError: Anything that can be known to fail before any work is done. Nothing is written then.
    """

    def __init__(
        self,
        detector: Detector,
        options: Options,
        *,
        weights: str | None = None,
        progress: Progress | None = None,
        remembered: Remembered | None = None,
        keeps_images: bool = False,
        remark: str | None = None,
    ):
        self._weights, self._keeps_images = weights, keeps_images
        trains = options.epochs or options.train_epochs or options.sparse_epochs or options.budget
        self._writes = bool(options.project or options.name or trains or options.export)
        detector.place(options.device)  # which says so where there is none
        detector.check_keywords(options.train)
        if self._writes and not remembered:
            check_writable(options.project, options.name)
            check_outside(weights, options)
        if options.export and not remembered:
            check_can_export(options.export)
        self._fingerprint = fingerprint(detector.network)
        if remembered and remembered.fingerprint != self._fingerprint:
            raise UserError(f"{weights or 'The given model'} does not hold the weights that the run was started with.")
        imgsz, rounded = fitting_imgsz(detector, options.imgsz)
        options = replace(options, imgsz=imgsz)
        detector, other_classes = fit_classes(detector, options)
        if options.budget:
            options = replace(options, epochs=1)  # at least; how many are known once the network is pruned
        options, unvalidated = settle_validation(with_data(options, detector), detector)
        self._remarks = [line for line in (remark, rounded, other_classes, unvalidated) if line]
        own = cost(detector)
        progress = progress or Progress()
        device = None
        if options.timed:
            with progress.phase(f"Measure the original on {options.backend or options.latency_table}"):
                device = OnDevice(detector, options)
        own_ms = device.own_ms if device else None
        given = read_plan(options.plan, detector) if options.plan else None
        self._targets = [Target(given.gflops)] if given else step_targets(options, own, own_ms)
        if head := kept_head(detector, options, self._targets[-1], own):
            self._remarks.append(head)
        graph = detector.trace(options.prune_head, options.keep, options.portable)
        if not given:
            check_reachable(options, detector, graph, own, own_ms)
        if not remembered:  # each step checks its own plan; here it is found out before anything is written
            check_exact(detector, graph, graph.random_plan())
        record = (remembered and remembered.record) or Record(
            weights=weights or "a model in memory",
            family=detector.family,
            task=detector.task,
            imgsz=options.imgsz,
            data=options.data,
            before=Measure(*own),
        )
        folder = remembered.folder if remembered else None
        self._run = Context(detector, options, record, progress, folder, device=device)
        self._run.recall_details()

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
        with turn:
            self._check_budget()
            self._say_remarks()
            return rehearse(self._run, self._targets)

    def go(self) -> Finished:
        """Do the run from where it stands; a finished one is only read.

        Raises:
            UserError: What could not be known before.
            Interrupted: Ctrl-C.
        """
        run = self._run
        with turn:
            try:
                return self._go()
            except KeyboardInterrupt as error:
                said = where_it_stands(run.folder, run.record, run.options, in_memory=self._weights is None)
                raise Interrupted(said) from error
            except OSError as error:
                if said := disk_full(error, run.folder, run.options, in_memory=self._weights is None):
                    raise UserError(said) from error
                raise
            finally:
                if run.folder:
                    run.folder.close()

    def _go(self) -> Finished:
        run = self._run
        if run.record.finished:
            if run.folder.weights.exists() and run.folder.plan.exists():
                _tidy(run)
                log_run(run)
                read = read_result(run.folder.weights, run.folder.plan, trust=run.options.trust)
                return Finished(*read, run.record, run.folder)
            run.record.after = None  # what is missing is made again
        started = time.perf_counter()
        self._open_folder()
        self._say_remarks()
        train_first(run)
        self._validate_original()
        detector, plan = all_steps(run, self._targets)
        detector = finish(run, detector, plan, started)
        _tidy(run)
        log_run(run)
        return Finished(detector, plan, run.record, run.folder)

    def _say_remarks(self) -> None:
        for line in self._remarks:
            if line not in self._run.record.notes:
                self._run.note(line)

    def _open_folder(self) -> None:
        """Make the output folder, unless there is one already, and write into it first what a resumed run must know."""
        run, options = self._run, self._run.options
        if not self._writes:
            return
        if run.folder is None:
            self._make_folder()
        elif options.budget:
            run.budget = TimeBudget(options.budget, run.folder.manifest.spent)
        if run.progress.hears:
            run.folder.manifest.add_growing(run.folder.log)
        run.progress.write_to(run.folder.path, run.folder.log)
        if run.record.before.size_mb is None:
            run.record.before.size_mb = _megabytes_saved(run.original)
        if options.data == DIGITS:
            with run.progress.phase("Draw the digits"):
                run.record.data = write_digits(run.folder)
            run.options = replace(options, data=run.record.data)

    def _make_folder(self) -> None:
        """Make the output folder and begin the run there, unless its time budget is hopeless."""
        run, options = self._run, self._run.options
        run.budget = TimeBudget(options.budget) if options.budget else None
        folder = make_folder(options)
        try:
            if folder.taken:  # as long as the earlier run is there
                self._check_budget()
            folder.begin(options, images=self._keeps_images)
            if self._keeps_images:
                run.record.data = keep(options.data, folder.images)
                run.options = options = replace(options, data=run.record.data)
            options.save(folder.args, weights=self._weights, fingerprint=self._fingerprint)
        except BaseException:
            folder.discard()
            raise
        run.folder = folder
        if not folder.taken:
            try:
                self._check_budget()
            except UserError:
                folder.discard()
                run.folder = None
                raise

    def _check_budget(self) -> None:
        """Check that the time budget, if there is one, is not hopeless."""
        run, options = self._run, self._run.options
        if not options.budget:
            return
        with tempfile.TemporaryDirectory() as scratch:
            data = write_digits(RunFolder(scratch)) if options.data == DIGITS else options.data
            with run.progress.phase("Measure the speed"):
                check_budget(run.original, replace(options, data=data))

    def _validate_original(self) -> None:
        run = self._run
        if run.options.val and not run.record.before.metrics:
            run.record.before.metrics = run.validate(run.original, "Validate the original", what="before")
            run.remember()


def _tidy(run: Context) -> None:
    """Remove what a finished run needs no more."""
    folder, options = run.folder, run.options
    if folder is None:
        return
    for training in folder.trainings():
        run.original.forget_training(training)
    folder.manifest.remove(*folder.needless(options))


def _megabytes_saved(detector: Detector) -> float:
    """Size of the checkpoint that would be written, so that float16 is compared with float16."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.pt"
        detector.save(path)
        return megabytes(path)
