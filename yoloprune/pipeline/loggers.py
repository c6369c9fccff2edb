"""A finished run in the experiment loggers that its trainings go to: figures, pictures and the plan beside the curves.

Each logger has one function here. It writes into the run of the last training, or of the caller, where there is one,
and else opens one of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from yoloprune.report import Measure, Record

from .context import Context
from .manifest import adopt

__all__ = ["LOGGERS", "Told", "figures", "log_run"]

_PROJECT = "yoloprune"  # of runs that no training has opened


@dataclass(frozen=True)
class Told:
    """What a logger is told of a run.

    Attributes:
        folder: The run's folder.
        place: The run of the last training in this logger, as `Detector.logged` names it; None if there is none.
        figures: Moment ("before", "pruned", "after") -> name of a figure -> value.
        tables: Name -> rows, the first of which are headings.
        pictures: PNG and JPEG files.
        files: Further files.
    """

    folder: Path
    place: str | None
    figures: Mapping[str, Mapping[str, float]]
    tables: Mapping[str, list[list[str]]]
    pictures: list[Path]
    files: list[Path]

    @property
    def scalars(self) -> dict[str, float]:
        """The figures by names that every logger takes, such as "after/F1_conf_.25"."""
        return {f"{moment}/{_key(name)}": value for moment, of in self.figures.items() for name, value in of.items()}


class Logger(NamedTuple):
    """A logger: its name for people, and a function that writes what is told and returns where that is."""

    title: str
    log: Callable[[Told], str]


def log_run(run: Context) -> None:
    """Tell a finished run to the loggers that are on and have not been told of it; one that fails is noted.

    Args:
        run: The run. One without a folder is not told: it has neither pictures nor trainings.
    """
    record, options, original, folder = run.record, run.options, run.original, run.folder
    if folder is None:
        return
    trainings = [folder.steps / "train"] if options.train_epochs else []
    trainings += [folder.steps / "sparse" / "train"] if options.sparse_epochs else []
    trainings += [folder.train(row.step) for row in record.steps if row.epochs]
    last = trainings[-1] if trainings else None
    for name in original.loggers():
        if name in record.logged:
            continue
        title, log = LOGGERS[name]
        failed = f"{title} has not got the run's figures"
        record.notes = [note for note in record.notes if not note.startswith(failed)]  # of an earlier try
        try:
            with run.progress.phase(f"Log the run to {title}"):
                record.logged[name] = log(_told(run, original.logged(name, last) if last else None))
        except Exception as error:  # whatever a server, a network or a version of the package has against it
            said = shorten(f"{type(error).__name__}: {error}", 160, placeholder=" …")
            run.note(f"{failed} ({said}); all else is finished, and resuming the run tries again.")
        run.remember()


def figures(record: Record) -> dict[str, dict[str, float]]:
    """Cost and quality of a finished run by moment: "before", "pruned" (right after it, where that was validated) and
    "after"; of several steps "pruned_1", "fine-tuned_1" and so on.
    """
    found = {"before": _costs(record.before) | record.before.metrics}
    for row in record.steps:
        which = f"_{row.step}" if len(record.steps) > 1 else ""
        cost = {"GFLOPs": row.gflops, "parameters": row.params}
        if row.before:
            found[f"pruned{which}"] = cost | row.before
        if row.before and row is not record.steps[-1]:
            found[f"fine-tuned{which}"] = cost | row.metrics
    return found | {"after": _costs(record.after) | record.after.metrics}


def _costs(measure: Measure) -> dict[str, float]:
    costs = {
        "GFLOPs": measure.gflops,
        "parameters": measure.params,
        "file (MB)": measure.size_mb,
        "latency (ms)": measure.latency_ms,
    }
    return {name: value for name, value in costs.items() if value is not None}


def _told(run: Context, place: str | None) -> Told:
    record, folder = run.record, run.folder
    found = figures(record)
    names = dict.fromkeys(name for of in found.values() for name in of)
    rows = [[name, *(f"{round(of[name], 4):,}" if name in of else "" for of in found.values())] for name in names]
    widths = [[layer, str(before), str(after)] for layer, (before, after) in record.widths.items()]
    files = (folder.plan, folder.results, folder.report)
    return Told(
        folder=folder.path,
        place=place,
        figures=found,
        tables={"figures": [["figure", *found], *rows], "widths": [["layer", "before", "after"], *widths]},
        pictures=sorted(path for path in folder.pictures.glob("*.*") if path.suffix in (".png", ".jpg")),
        files=[path for path in files if path.is_file()],
    )


def _tensorboard(told: Told) -> str:
    import cv2
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(told.place or told.folder)
    with SummaryWriter(str(folder), filename_suffix=".pruning") as writer:
        for name, value in told.scalars.items():
            writer.add_scalar(name, value, 0)
        for name, rows in told.tables.items():
            writer.add_text(f"pruning/{name}", _markdown(rows), 0)
        for path in told.pictures:
            writer.add_image(f"report/{path.stem}", cv2.imread(str(path))[..., ::-1].copy(), 0, dataformats="HWC")
    for path in folder.glob("events.out.tfevents.*.pruning"):
        adopt(path)
    return str(folder)


def _mlflow(told: Told) -> str:
    import mlflow

    client, active = mlflow.MlflowClient(), mlflow.active_run()
    run_id, own = (active.info.run_id if active else told.place), False
    if run_id is None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        run_id, own = client.create_run(experiment, run_name=told.folder.name).info.run_id, True
    for name, value in told.scalars.items():
        client.log_metric(run_id, name, value)
    for name, rows in told.tables.items():
        client.log_text(run_id, _markdown(rows), f"pruning/{name}.md")
    for path in told.pictures:
        client.log_artifact(run_id, str(path), "pruning/report")
    for path in told.files:
        client.log_artifact(run_id, str(path), "pruning")
    if own:
        client.set_terminated(run_id)
    return run_id


def _wandb(told: Told) -> str:
    import wandb

    run, own = wandb.run, None
    if run is None:
        project, _, run_id = told.place.partition("/") if told.place else (os.environ.get("WANDB_PROJECT"), "", None)
        name = None if told.place else told.folder.name
        own = run = wandb.init(
            project=project or _PROJECT, name=name, id=run_id, resume="allow" if run_id else None, dir=str(told.folder)
        )
    try:
        run.summary.update(told.scalars)
        media = {f"report/{path.stem}": wandb.Image(str(path)) for path in told.pictures}
        for name, rows in told.tables.items():
            media[f"pruning/{name}"] = wandb.Table(columns=rows[0], data=rows[1:])
        run.log(media)
        artifact = wandb.Artifact(f"run_{run.id}_pruning", type="pruning")
        for path in told.files:
            artifact.add_file(str(path))
        run.log_artifact(artifact)
        return run.id
    finally:
        if own:
            own.finish()


def _clearml(told: Told) -> str:
    from clearml import Task

    task, own = Task.current_task(), None  # Ultralytics leaves that of its training open
    if task is None:
        own = task = Task.init(
            project_name=_PROJECT,
            task_name=told.folder.name,
            tags=[_PROJECT],
            reuse_last_task_id=False,
            auto_connect_frameworks=False,
        )
    try:
        logger = task.get_logger()
        for name, value in told.scalars.items():
            logger.report_single_value(name, value)
        for name, rows in told.tables.items():
            logger.report_table("pruning", name, iteration=0, table_plot=rows)
        for path in told.pictures:
            logger.report_image("report", path.stem, iteration=0, local_path=str(path))
        for path in told.files:
            task.upload_artifact(path.stem, artifact_object=str(path))
        return task.id
    finally:
        if own:
            own.close()


LOGGERS: dict[str, Logger] = {
    "tensorboard": Logger("TensorBoard", _tensorboard),
    "mlflow": Logger("MLflow", _mlflow),
    "wandb": Logger("W&B", _wandb),
    "clearml": Logger("ClearML", _clearml),
}
"""The loggers by the names that `Detector.loggers` gives them."""


def _key(name: str) -> str:
    """A name of a figure without the characters that TensorBoard replaces and MLflow refuses."""
    return re.sub(r"[^\w./-]+", "_", name).strip("_")


def _markdown(rows: list[list[str]]) -> str:
    head, *rest = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *rest]) + "\n"
