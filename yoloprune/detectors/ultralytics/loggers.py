"""Which experiment loggers Ultralytics' trainers write to here, and where a training went in them."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from ultralytics.utils import SETTINGS, TESTS_RUNNING

__all__ = ["logged", "loggers"]

_NAMES = ("tensorboard", "mlflow", "wandb", "clearml")  # of the setting and of the package


def loggers() -> list[str]:
    """Names of the loggers whose setting is on and whose package is installed; none in tests, as in Ultralytics."""
    return [] if TESTS_RUNNING else [name for name in _NAMES if SETTINGS.get(name) is True and _installed(name)]


def _installed(package: str) -> bool:
    spec = find_spec(package)
    return spec is not None and spec.origin is not None  # a folder of that name, which W&B makes, has none


def logged(logger: str, folder: Path) -> str | None:
    """The latest run that the training in `folder` was in a logger: TensorBoard's folder, MLflow's run id, W&B's
    "project/id". None if there was none, and of ClearML, whose task is the current one or over.
    """
    find = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}.get(logger)
    return find(folder) if find else None


def _tensorboard(folder: Path) -> str | None:
    return str(folder) if any(folder.glob("events.out.tfevents.*")) else None


def _mlflow(folder: Path) -> str | None:
    import mlflow

    found = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f'params.save_dir = "{folder}"',  # Ultralytics logs its trainer's arguments
        order_by=["attributes.start_time DESC"],
        max_results=1,
        output_format="list",
    )
    return found[0].info.run_id if found else None


def _wandb(folder: Path) -> str | None:
    files = (folder / "wandb").glob("*run-*/run-*.wandb")  # as Ultralytics finds a run to resume
    newest = max(files, key=lambda file: file.stat().st_mtime, default=None)
    project = re.sub(r"[/\\#?%:]", "-", str(folder.parent))[-128:]  # and names its project
    return f"{project}/{newest.stem.removeprefix('run-')}" if newest else None
