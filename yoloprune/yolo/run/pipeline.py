"""The run: measure, (prune, fine-tune) x steps, validate, export, write results."""

from __future__ import annotations

import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from yoloprune.errors import UserError
from yoloprune.graph import Plan
from yoloprune.report import Measure, Record, StepRow, draw_widths, paired_widths, write_html
from yoloprune.yolo import checkpoints, exporting
from yoloprune.yolo.formats import check_can_export, export_path
from yoloprune.yolo.latency import device_name, latencies
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.planning.prior import check_measured
from yoloprune.yolo.trace import check_exact, trace_yolo
from yoloprune.yolo.trainers.distill import Distillation
from yoloprune.yolo.trainers.sparse import Sparsity
from yoloprune.yolo.validation import validate

from .allowance import epochs_within
from .continuation import Continuation
from .data import DIGITS, has_labels, with_data, write_digits
from .device import check_device
from .folder import RunFolder, check_outside, check_writable, make_folder
from .heads import compares_heads, head_advice
from .imgsz import fitting_imgsz
from .interrupt import Interrupted, disk_full, where_it_stands
from .metrics import named_metrics
from .network import rename, set_args, unsaved_name
from .options import Options
from .progress import Progress
from .sparse import sparse_train
from .state import Remembered, fingerprint, intact
from .step import fine_tune, prune_once
from .target import Target, check_reachable, cost, step_targets

__all__ = ["Finished", "Run"]

_FINE_TUNING = {"optimizer", "lr0", "weight_decay"}  # keywords meant for fine-tuning; sparse training has its own


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

    Attributes:
        record: What is known and measured so far.

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
    ):
        self._original, self._weights, self._progress = yolo, weights, progress or Progress()
        self._folder = remembered.folder if remembered else None
        trains = options.epochs or options.sparse_epochs or options.budget
        self._writes = bool(options.project or options.name or trains or options.export)
        check_device(options.device)
        if self._writes and not remembered:
            check_writable(options.project, options.name)
            check_outside(weights, options.project, options.name, options.exist_ok)
        if options.export and not remembered:
            check_can_export(options.export)
        self._fingerprint = fingerprint(yolo.model)
        if remembered and remembered.fingerprint != self._fingerprint:
            raise UserError(f"{weights or 'The given model'} does not hold the weights that the run was started with.")
        if options.budget:
            options = replace(options, epochs=1)  # at least; how many are known once it has been measured
        imgsz, rounded = fitting_imgsz(yolo, options.imgsz)
        options = replace(options, imgsz=imgsz)
        self._options, without_images = with_data(options, yolo)
        self._remarks = [line for line in (rounded, without_images) if line]
        own = cost(yolo.model)
        self._targets = step_targets(options, own)
        graph = trace_yolo(yolo.model, prune_head=options.prune_head)
        check_reachable(options, graph, yolo.model, own)
        check_exact(yolo.model, graph.random_plan())
        if options.sensitivity:
            check_measured(Path(options.sensitivity), graph)
        self.record = (remembered and remembered.record) or Record(
            weights=weights or "a model in memory",
            family=checkpoints.family(yolo),
            task=yolo.task,
            imgsz=options.imgsz,
            data=self._options.data,
            before=Measure(*own),
        )

    def go(self) -> Finished:
        """Do the run from where it stands; a finished one is only read.

        Raises:
            UserError: What could not be known before.
            Interrupted: Ctrl-C.
        """
        try:
            if self.record.finished:
                anew = f"remove '{self._folder.results}' and resume again: the run then begins at its first step"
                return Finished(*_read(self._folder.weights, self._folder.plan, anew), self.record, self._folder)
            started = time.perf_counter()
            self._spend_budget()
            self._open_folder()
            self._begin()
            for line in self._remarks:
                if line not in self.record.notes:
                    self._note(line)
            self._validate_original()
            yolo, plan = self._steps()
            self._finish(yolo, plan, started)
            return Finished(yolo, plan, self.record, self._folder)
        except KeyboardInterrupt as error:
            raise Interrupted(where_it_stands(self._folder, self.record, self._options.steps)) from error
        except OSError as error:
            if said := disk_full(error, self._folder):
                raise UserError(said) from error
            raise

    def _begin(self) -> None:
        options = self._options
        phases = options.steps * (1 + (options.epochs > 0)) + 3 * options.val + (options.export is not None)
        phases += 2 * options.steps * (options.val and options.epochs > 0)
        self._progress.begin(phases + (options.sparse_epochs > 0) + 3 * self._compares_heads())

    def _open_folder(self) -> None:
        """Make the output folder, unless there is one already, and write into it what a resumed run must know."""
        options = self._options
        if not self._writes:
            return
        fresh = self._folder is None
        if fresh:
            self._folder = make_folder(options.project, options.name, options.exist_ok)
        if self.record.before.size_mb is None:
            self.record.before.size_mb = _megabytes_saved(self._original)
        if options.data == DIGITS:
            self.record.data = write_digits(self._folder)
            self._options = replace(options, data=self.record.data)
        if fresh:
            replace(self._options, data=options.data).save(
                self._folder.args, weights=self._weights, fingerprint=self._fingerprint
            )

    def _spend_budget(self) -> None:
        """Turn the time budget into epochs, which are what a resumed run must know; nothing is written meanwhile."""
        options = self._options
        if options.budget is None:
            return
        with tempfile.TemporaryDirectory() as scratch:
            data = write_digits(RunFolder(scratch)) if options.data == DIGITS else options.data
            epochs, step = epochs_within(self._original, replace(options, data=data), options.budget)
        self._options = replace(options, epochs=epochs, budget=None)
        self._note(
            f"Budget of {options.budget / 60:.3g} min: {options.steps} step{'s' * (options.steps > 1)} "
            f"of {epochs} epochs ({step:.2f} s per image and training step)."
        )

    def _note(self, line: str) -> None:
        """Say something that belongs in the report too."""
        self._progress.say(line)
        self.record.notes.append(line)

    def _validate_original(self) -> None:
        if self._options.val and not self.record.before.metrics:
            self.record.before.metrics = self._validate(self._original, "Validate the original")
            self._remember()

    def _steps(self) -> tuple[YOLO, Plan]:
        """Do all steps that are not finished; return the last network and the composed plan."""
        yolo, plan = self._last_finished()
        several = self._options.steps > 1 or self._options.epochs > 0
        for number, target in enumerate(self._targets, start=1):
            if number <= len(self.record.steps):
                continue
            yolo, plan, row = self._step(yolo, plan, number, target)
            if self._folder and several:
                folder = self._folder.step(number)
                folder.mkdir(parents=True, exist_ok=True)
                plan.save(self._folder.step_plan(number))
                checkpoints.save(yolo, folder / "model.pt")
                # The file holds float16: going on from it makes a resumed run end where an uninterrupted one does.
                yolo = checkpoints.load(folder / "model.pt")
            self.record.steps.append(row)  # only now: a step counts once all its files are there
            self._remember()
            if self._folder:
                Continuation(self._folder.train(number)).discard()
        return yolo, plan

    def _last_finished(self) -> tuple[YOLO, Plan | None]:
        """The network and composed plan of the last finished step, or the network to start from and None."""
        while self.record.steps:
            done = len(self.record.steps)
            folder = self._folder.step(done)
            if (folder / "model.pt").exists():
                anew = f"remove the folder '{folder}' and resume again: this step is then done anew"
                return _read(folder / "model.pt", self._folder.step_plan(done), anew)
            self.record.steps.pop()  # a single step that only prunes is not kept: do it again
        return self._sparse() if self._options.sparse_epochs else self._original, None

    def _step(self, yolo: YOLO, plan: Plan | None, number: int, target: Target) -> tuple[YOLO, Plan, StepRow]:
        """One step from a network and the plan that led to it; returns its network and the composed plan."""
        options = self._options
        which = f" (step {number} of {options.steps})" if options.steps > 1 else ""
        with self._phase(f"Prune to {target}{which}", "prune") as prune:
            state = self._folder and self._folder.search(number)
            if state and options.search:
                state.parent.mkdir(parents=True, exist_ok=True)
            earlier = None if plan is None else (self._original.model, plan)
            pruned, later, notes, share, error = prune_once(
                yolo, target, options, earlier=earlier, state=state, tell=self._progress.say
            )
            plan = later if plan is None else plan.compose(later)
            reached = cost(pruned.model)
        self._progress.say(f"{reached.gflops:.2f} GFLOPs, {reached.params / 1e6:.3f}M parameters")
        same = f"to {error:.0e} of the largest" if error else "exactly"
        self._progress.say(f"checked before recovery: predictions are {same} those with these channels zeroed")
        for note in notes:
            if note not in self.record.notes:
                self._note(note)
        if number == 1 and self._compares_heads():
            self._compare_heads(yolo, pruned, target)
        row = StepRow(number, target.value, reached.gflops, reached.params, error, prune_seconds=prune.seconds)
        if options.epochs:
            folder = self._folder.step(number)
            folder.mkdir(parents=True, exist_ok=True)
            start = folder / "pruned.pt"
            if start.exists():  # this step's fine-tuning was interrupted
                with intact(start, "remove it and resume again: the network is then pruned anew"):
                    checkpoints.load(start)
            else:
                checkpoints.save(pruned, start)
            distillation = self._distillation(number, plan) if options.distill else None
            before = self._validate(pruned, "Validate before fine-tuning") if options.val else {}
            with self._phase(f"Fine-tune for {options.epochs} epochs{which}", "fine-tune", speaks=True) as train:
                tuned, row.epochs, row.metrics = fine_tune(
                    start, options, self._folder.train(number), distillation, removed=1 - share
                )
            row.train_seconds = train.seconds
            pruned = self._better(pruned, before, tuned, row) if before else tuned
        return pruned, plan, row

    def _better(self, pruned: YOLO, before: dict[str, float], tuned: YOLO, row: StepRow) -> YOLO:
        """The fine-tuned network, if it validates better than before: Ultralytics' best epoch is one of its own."""
        after = self._validate(tuned, "Validate the fine-tuned")
        name = next(iter(before))
        if after[name] > before[name]:
            return tuned
        self._note(
            f"Fine-tuning did not raise {name} ({before[name]:.3f} before, {after[name]:.3f} after), so the network "
            "from before it is kept; try a lower --lr0 or more images."
        )
        row.metrics = before
        return pruned

    def _sparse(self) -> YOLO:
        """The original after group-sparse training."""
        options, path = self._options, self._folder.steps / "sparse.pt"
        if path.exists():
            with intact(path, "remove it and resume again: the sparse training is then done anew"):
                return checkpoints.load(path)
        folder = self._folder.steps / "sparse"
        folder.mkdir(parents=True, exist_ok=True)
        with self._phase(f"Train group-sparsely for {options.sparse_epochs} epochs", "sparse", speaks=True):
            yolo = sparse_train(
                self._saved_original(),
                data=options.data,
                epochs=options.sparse_epochs,
                imgsz=options.imgsz,
                batch=options.batch,
                device=options.device,
                seed=options.seed,
                sparsity=Sparsity(strength=options.sparsity),
                prune_head=options.prune_head,
                train={k: v for k, v in options.train.items() if k not in _FINE_TUNING},
                folder=folder / "train",
            )
        checkpoints.save(yolo, path)
        Continuation(folder / "train").discard()
        return checkpoints.load(path)

    def _saved_original(self) -> Path:
        """The original as a file of the run, for trainers: it may have come from memory, or be gone by now."""
        if not self._folder.teacher.exists():
            checkpoints.save(self._original, self._folder.teacher)
        return self._folder.teacher

    def _compares_heads(self) -> bool:
        return compares_heads(self._original, self._options) and not self.record.head

    def _compare_heads(self, yolo: YOLO, kept: YOLO, target: Target) -> None:
        """Say whether pruning the head's hidden layers of `yolo` too would keep clearly more, before fine-tuning."""
        plain = replace(self._options, search=0)  # a search for the head that is not asked for would take as long again
        with self._phase("Compare with a pruned head", "compare"):
            if self._options.search:
                kept = prune_once(yolo, target, plain).yolo
            other = prune_once(yolo, target, replace(plain, prune_head=True)).yolo
        figures = [
            self._validate(net, f"Validate with {what} head")["mAP50-95"]
            for net, what in ((kept, "the kept"), (other, "a pruned"))
        ]
        self.record.head = figures
        advice = head_advice(target, *figures)
        if advice:
            self._note(advice)

    def _distillation(self, number: int, plan: Plan) -> Distillation:
        """What a trainer, which may be another process, must find on disk."""
        plan.save(self._folder.step_plan(number))
        labelled = has_labels(self._original, self._options.data)
        if not labelled:
            self._progress.say("The training images have no labels; the unpruned network alone guides the fine-tuning.")
        return Distillation(
            teacher=str(self._saved_original()),
            plan=str(self._folder.step_plan(number)),
            labels=float(labelled),
        )

    def _finish(self, yolo: YOLO, plan: Plan, started: float) -> None:
        """Write, validate and export the last network, and complete the record."""
        options, record = self._options, self.record
        rename(yolo, self._folder.weights if self._folder else unsaved_name(self._original))
        set_args(yolo, imgsz=options.imgsz)
        if options.val:  # otherwise they may be of other classes
            set_args(yolo, data=options.data)
        size = None
        if self._folder:
            checkpoints.save(yolo, self._folder.weights)
            plan.save(self._folder.plan)
            size = _megabytes(self._folder.weights)
        record.widths = paired_widths(self._original.model, yolo.model)
        after = Measure(*cost(yolo.model), size)
        if options.val:
            after.metrics = self._validate(yolo, "Validate the pruned")
            self._time(yolo, after)
        if options.export:
            record.export = self._export(yolo)
        record.after = after
        record.seconds["total"] = round(record.seconds.get("total", 0.0) + time.perf_counter() - started, 2)
        if self._folder:
            draw_widths(record.widths, self._folder.picture)
            write_html(record, self._folder.picture, self._folder.report)
            self._folder.teacher.unlink(missing_ok=True)
        self._remember()  # last: it says that the run is finished

    def _validate(self, yolo: YOLO, title: str) -> dict[str, float]:
        options = self._options
        with self._phase(title, "validate"):
            batch = int(options.batch) if options.batch >= 1 else 16
            metrics = validate(yolo, options.data, imgsz=options.imgsz, batch=batch, device=options.device)
        return named_metrics(metrics, yolo.task)

    def _time(self, yolo: YOLO, after: Measure) -> None:
        """Measure the latency of the original and of the last network."""
        options, record = self._options, self.record
        with self._phase("Measure latency", "latency"):
            networks = (self._original.model, yolo.model)
            record.before.latency_ms, after.latency_ms = latencies(networks, imgsz=options.imgsz, device=options.device)
        record.latency_on = device_name(options.device)

    def _export(self, yolo: YOLO) -> dict[str, object] | None:
        """Export and compare; what goes wrong is noted, since all else that the run has done is worth keeping."""
        options, weights = self._options, self._folder.weights
        path, report = export_path(weights, options.export), None
        with self._phase(f"Export to {options.export}", "export"):
            try:
                exporting.export(yolo, path, format=options.export, imgsz=options.imgsz)
                report = {"file": path.name}
                if options.export == "onnx":
                    report["difference"] = exporting.agreement(yolo, path)
            except UserError as error:
                self._note(
                    f"{error} All else is finished; to export again: "
                    f"yoloprune export {shlex.quote(str(weights))} --format {options.export} --imgsz {options.imgsz}"
                )
        return report

    def _remember(self) -> None:
        if self._folder:
            self.record.save(self._folder.results)
            self.record.save_csv(self._folder.table)

    @contextmanager
    def _phase(self, title: str, kind: str, *, speaks: bool = False) -> Iterator[_Clock]:
        clock = _Clock()
        with self._progress.phase(title, speaks=speaks):
            yield clock
        clock.stop()
        self.record.seconds[kind] = round(self.record.seconds.get(kind, 0.0) + clock.seconds, 2)


class _Clock:
    """How long a phase took, in seconds; known after `stop`."""

    def __init__(self):
        self._started = time.perf_counter()
        self.seconds = 0.0

    def stop(self) -> None:
        self.seconds = round(time.perf_counter() - self._started, 2)


def _read(weights: Path, plan: Path, otherwise: str) -> tuple[YOLO, Plan]:
    """A network that the run wrote and its plan."""
    with intact(weights, otherwise):
        yolo = checkpoints.load(weights)
    with intact(plan, otherwise):
        return yolo, Plan.load(plan)


def _megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 3)


def _megabytes_saved(yolo: YOLO) -> float:
    """Size of the checkpoint that would be written, so that float16 is compared with float16."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.pt"
        checkpoints.save(yolo, path)
        return _megabytes(path)
