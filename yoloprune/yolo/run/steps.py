"""The steps of a run, each of them pruning and fine-tuning, from where an interrupted run stands."""

from __future__ import annotations

from collections.abc import Sequence

from yoloprune.graph import Plan
from yoloprune.report import StepRow
from yoloprune.yolo import checkpoints
from yoloprune.yolo.model import YOLO
from yoloprune.yolo.trainers.distill import Distillation

from .context import Context, read_result
from .continuation import Continuation
from .data import has_labels
from .fine_tuning import fine_tune
from .heads import compare_heads, still_compares_heads
from .pruning import prune_once
from .scores import calibrated, run_images
from .state import intact
from .target import Target, cost
from .time_budget import Allowed
from .trainings import saved_original, sparse_first

__all__ = ["all_steps"]


def all_steps(run: Context, targets: Sequence[Target]) -> tuple[YOLO, Plan]:
    """Do all steps that are not finished; return the last network and the composed plan."""
    yolo, plan = _last_finished(run, targets)
    several = run.options.steps > 1 or run.options.epochs > 0
    for number, target in enumerate(targets, start=1):
        if number <= len(run.record.steps):
            continue
        yolo, plan, row = _step(run, yolo, plan, number, target)
        if run.folder and several:
            folder = run.folder.step(number)
            folder.mkdir(parents=True, exist_ok=True)
            plan.save(run.folder.step_plan(number))
            # The file holds float16: going on from it makes a resumed run end where an uninterrupted one does.
            yolo = run.save(yolo, folder / "model.pt")
        run.record.steps.append(row)  # only now: a step counts once all its files are there
        run.remember()
        if run.folder:
            Continuation(run.folder.train(number)).discard()
    return yolo, plan


def _last_finished(run: Context, targets: Sequence[Target]) -> tuple[YOLO, Plan | None]:
    """The network and composed plan of the last finished step, or the network to start from and None."""
    while run.record.steps:
        done = len(run.record.steps)
        folder = run.folder.step(done)
        if (folder / "model.pt").exists():
            anew = f"remove the folder '{folder}' and resume again: this step is then done anew"
            return read_result(folder / "model.pt", run.folder.step_plan(done), anew)
        run.record.steps.pop()  # a single step that only prunes is not kept: do it again
    return sparse_first(run, removed=1 - targets[-1].share(cost(run.original.model))), None


def _step(run: Context, yolo: YOLO, plan: Plan | None, number: int, target: Target) -> tuple[YOLO, Plan, StepRow]:
    """One step from a network and the plan that led to it; returns its network and the composed plan."""
    options = run.options
    which = f" (step {number} of {options.steps})" if options.steps > 1 else ""
    with run.phase(f"Prune to {target}{which}", "prune") as prune:
        earlier = None if plan is None else (run.original.model, plan)
        pruned, later, notes, share, error, run.images = prune_once(yolo, target, options, earlier=earlier)
        plan = later if plan is None else plan.compose(later)
        reached = cost(pruned.model)
    run.progress.say(f"{reached.gflops:.2f} GFLOPs, {reached.params / 1e6:.3f}M parameters")
    same = f"to {error:.0e} of the largest" if error else "exactly"
    run.progress.say(f"checked before recovery: predictions are {same} those with these channels zeroed")
    for note in notes:
        if note not in run.record.notes:
            run.note(note)
    if number == 1 and still_compares_heads(run):
        compare_heads(run, yolo, pruned, target)
    row = StepRow(number, target.value, reached.gflops, reached.params, error, prune_seconds=prune.seconds)
    if options.epochs:
        pruned = _fine_tuned(run, pruned, plan, row, which, removed=1 - share)
    return pruned, plan, row


def _fine_tuned(run: Context, pruned: YOLO, plan: Plan, row: StepRow, which: str, *, removed: float) -> YOLO:
    """The network after the step's fine-tuning, or the one before if that validates better; completes the row."""
    options, number = run.options, row.step
    folder = run.folder.step(number)
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / "pruned.pt"
    if start.exists():  # this step's fine-tuning was interrupted
        with intact(start, "remove it and resume again: the network is then pruned anew"):
            checkpoints.load(start)
    else:
        pruned = run.save(pruned, start)
    distillation = _distillation(run, number, plan) if options.distill else None
    before = run.validate(pruned, "Validate before fine-tuning") if options.val else {}
    allowed = None
    if run.budget:
        allowed = _allowed(run, pruned, row)
        if allowed is None:
            row.metrics = before
            return pruned
    epochs = allowed.epochs if allowed else options.epochs
    with run.phase(f"Fine-tune for {epochs} epoch{'s' * (epochs != 1)}{which}", "fine-tune") as train:
        tuned, row.epochs, row.metrics = fine_tune(
            start, options, run.folder.train(number), distillation, removed=removed, allowed=allowed
        )
        if options.recover:
            calibrated(tuned, run.original, [batch["img"] for batch in run_images(tuned, options)])
    row.train_seconds = train.seconds
    return _better(run, pruned, before, tuned, row) if before else tuned


def _allowed(run: Context, pruned: YOLO, row: StepRow) -> Allowed | None:
    """What the budget leaves for the step's fine-tuning."""
    allowed, said = run.budget.for_fine_tuning(
        pruned,
        run.options,
        step=row.step,
        prune_seconds=row.prune_seconds,
        validation_seconds=run.validation_seconds,
    )
    run.note(said)
    return allowed


def _better(run: Context, pruned: YOLO, before: dict[str, float], tuned: YOLO, row: StepRow) -> YOLO:
    """The fine-tuned network, if it validates better than before: Ultralytics' best epoch is one of its own."""
    after = run.validate(tuned, "Validate the fine-tuned")
    name = next(iter(before))
    if after[name] > before[name]:
        return tuned
    run.note(
        f"Fine-tuning did not raise {name} ({before[name]:.3f} before, {after[name]:.3f} after), so the network "
        "from before it is kept; try a lower --lr0 or more images."
    )
    row.metrics = before
    return pruned


def _distillation(run: Context, number: int, plan: Plan) -> Distillation:
    """What a trainer, which may be another process, must find on disk."""
    plan.save(run.folder.step_plan(number))
    labelled = has_labels(run.original, run.options.data)
    if not labelled:
        run.progress.say("The training images have no labels; the unpruned network alone guides the fine-tuning.")
    return Distillation(
        teacher=str(saved_original(run)),
        plan=str(run.folder.step_plan(number)),
        labels=float(labelled),
    )
