"""The steps of a run, each of them pruning and fine-tuning, from where an interrupted run stands."""

from __future__ import annotations

from collections.abc import Sequence

from yoloprune.detectors.base import Detector, Distillation
from yoloprune.graph import Plan
from yoloprune.report import StepRow

from .context import Context, read_result
from .heads import compare_heads, still_compares_heads
from .metrics import SEEN, gained
from .prune import prune_once
from .scores import calibrated, run_images
from .targets import Target, cost
from .time_budget import Allowed
from .train import fine_tune, saved_original, sparse_first

__all__ = ["all_steps"]


def all_steps(run: Context, targets: Sequence[Target]) -> tuple[Detector, Plan]:
    """Do all steps that are not finished; return the last network and the composed plan."""
    detector, plan = _last_finished(run, targets)
    for number, target in enumerate(targets, start=1):
        if number <= len(run.record.steps):
            continue
        which = f" (step {number} of {run.options.steps})" if run.options.steps > 1 else ""
        removed = 1 - target.share(cost(detector))
        pruned, plan, row = _pruned(run, detector, plan, number, target, which)
        if number == 1 and still_compares_heads(run):
            compare_heads(run, detector, pruned, target)
        detector = pruned
        if run.options.epochs:
            detector = run.save(_fine_tuned(run, pruned, row, which, removed), run.folder.model(number))
        run.record.steps.append(row)  # only now: a step counts once all its files are there
        run.record.pruned = None
        run.remember()
        if run.folder:
            detector.forget_training(run.folder.train(number))
    return detector, plan


def _last_finished(run: Context, targets: Sequence[Target]) -> tuple[Detector, Plan | None]:
    """The network and composed plan of the last finished step, or the network to start from and None."""
    while run.record.steps:
        done = len(run.record.steps)
        weights = run.folder.model(done) if run.options.epochs else run.folder.pruned(done)
        plan = run.folder.step_plan(done)
        if weights.exists() and plan.exists():
            return read_result(weights, plan, trust=run.options.trust)
        run.record.pruned = run.record.steps.pop()  # its files were removed, so it is done again
    return sparse_first(run, removed=1 - targets[-1].share(cost(run.original))), None


def _pruned(
    run: Context, detector: Detector, plan: Plan | None, number: int, target: Target, which: str
) -> tuple[Detector, Plan, StepRow]:
    """The pruned network of a step, the composed plan and the row of the report, read where they are on disk.

    A network that has begun to be fine-tuned is never pruned again: scores can differ in the last digit, with the
    device for one, and its plan would be another's.
    """
    row = run.record.pruned
    if run.folder and row and row.step == number:
        weights, made = run.folder.pruned(number), run.folder.step_plan(number)
        if weights.exists() and made.exists():
            return (*read_result(weights, made, trust=run.options.trust), row)
    pruned, plan, row = _prune(run, detector, plan, number, target, which)
    if run.folder:
        run.folder.step(number).mkdir(parents=True, exist_ok=True)
        detector.forget_training(run.folder.train(number))  # of another pruning, whose files were removed
        plan.save(run.folder.step_plan(number))
        pruned = run.save(pruned, run.folder.pruned(number))
    run.record.pruned = row  # only now: a pruning counts once both files are there
    run.remember()
    return pruned, plan, row


def _prune(
    run: Context, detector: Detector, plan: Plan | None, number: int, target: Target, which: str
) -> tuple[Detector, Plan, StepRow]:
    """Prune a network, given the plan that led to it; returns the smaller one, the composed plan and the step's row."""
    with run.phase(f"Prune to {target}{which}", "prune") as clock:
        earlier = None if plan is None else (run.original, plan)
        pruned, later, notes, error, run.images = prune_once(
            detector, target, run.options, earlier=earlier, device=run.device
        )
        reached = cost(pruned)
    run.progress.say(f"{reached.gflops:.2f} GFLOPs, {reached.params / 1e6:.3f}M parameters")
    same = f"to {error:.0e} of the largest" if error else "exactly"
    run.progress.say(f"checked before recovery: predictions are {same} those with these channels zeroed")
    for note in notes:
        if note not in run.record.notes:
            run.note(note)
    row = StepRow(number, target.value, reached.gflops, reached.params, error, prune_seconds=clock.seconds)
    return pruned, later if plan is None else plan.compose(later), row


def _fine_tuned(run: Context, pruned: Detector, row: StepRow, which: str, removed: float) -> Detector:
    """The network after the step's fine-tuning, or the one before if that validates better; completes the row."""
    options, number = run.options, row.step
    distillation = _distillation(run, number) if options.distill else None
    before = run.validate(pruned, "Validate before fine-tuning", what=f"step {number} pruned") if options.val else {}
    row.before = before
    allowed = None
    if run.budget:
        allowed = _allowed(run, pruned, row)
        if allowed is None:
            row.metrics = before
            return pruned
    epochs = allowed.epochs if allowed else options.epochs
    with run.phase(f"Fine-tune for {epochs} epoch{'s' * (epochs != 1)}{which}", "fine-tune") as train:
        tuned, row.epochs, row.metrics = fine_tune(
            pruned,
            run.folder.pruned(number),
            options,
            run.folder.train(number),
            distillation,
            removed=removed,
            allowed=allowed,
        )
        if options.recover:
            calibrated(tuned, run.original, [batch["img"] for batch in run_images(tuned, options)])
    row.train_seconds = train.seconds
    return _better(run, pruned, before, tuned, row) if before else tuned


def _allowed(run: Context, pruned: Detector, row: StepRow) -> Allowed | None:
    """What the budget leaves for the step's fine-tuning; one that was begun continues."""
    if row.epochs:
        return Allowed(row.epochs, max(run.budget.left(), 1.0))
    allowed, said = run.budget.for_fine_tuning(
        pruned,
        run.options,
        step=row.step,
        prune_seconds=row.prune_seconds,
        validation_seconds=run.validation_seconds,
    )
    run.note(said)
    if allowed:
        row.epochs = allowed.epochs
        run.remember()
    return allowed


def _better(run: Context, pruned: Detector, before: dict[str, float], tuned: Detector, row: StepRow) -> Detector:
    """The fine-tuned network, if it validates better than before: Ultralytics' best epoch is one of its own."""
    after = run.validate(tuned, "Validate the fine-tuned", what=f"step {row.step} fine-tuned")
    name = next(iter(before))
    figures = f"{name} {before[name]:.3f} before, {after[name]:.3f} after"
    if SEEN in before:
        figures += f"; {SEEN} {before[SEEN]:.3f} before, {after[SEEN]:.3f} after"
    if gained(before, after):
        gain = after[name] - before[name]
        run.note(f"Fine-tuning for {row.epochs} epoch{'s' * (row.epochs != 1)} gained {gain:.3f} ({figures}).")
        return tuned
    run.note(
        f"Fine-tuning did not make the network better ({figures}), so the one before it is kept; try a lower --lr0 "
        "or more images."
    )
    row.metrics = before
    return pruned


def _distillation(run: Context, number: int) -> Distillation:
    """What a trainer, which may be another process, must find on disk."""
    labelled = run.original.has_labels(run.options.data)
    if not labelled:
        run.progress.say("The training images have no labels; the unpruned network alone guides the fine-tuning.")
    return Distillation(
        teacher=str(saved_original(run)),
        plan=str(run.folder.step_plan(number)),
        labels=float(labelled),
    )
