"""The output folder of a run, in Ultralytics' manner."""

from __future__ import annotations

import shutil
from pathlib import Path

from yoloprune.errors import UserError
from yoloprune.files import check_folder

__all__ = ["RunFolder", "check_outside", "check_writable", "make_folder", "remove", "wanted_folder"]


class RunFolder:
    """Where each file of a run is.

    Attributes:
        path: The folder itself.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()
        self.weights = self.path / "pruned.pt"
        self.plan = self.path / "plan.json"
        self.args = self.path / "args.yaml"
        self.results = self.path / "results.json"
        self.table = self.path / "results.csv"
        self.picture = self.path / "widths.png"
        self.report = self.path / "report.html"
        self.log = self.path / "log.txt"
        self.steps = self.path / "steps"
        self.teacher = self.steps / "original.pt"
        self.trained = self.steps / "trained.pt"
        self.sparse = self.steps / "sparse.pt"

    def step(self, number: int) -> Path:
        """The folder of one step: its plan, its network before (pruned.pt) and after (model.pt) fine-tuning."""
        return self.steps / str(number)

    def step_plan(self, number: int) -> Path:
        """The plan of one step, composed with those before it."""
        return self.step(number) / "plan.json"

    def train(self, number: int) -> Path:
        """The folder that Ultralytics' trainer writes to in one step."""
        return self.step(number) / "train"

    def clear(self) -> None:
        """Remove what an earlier run left here, so that no file of it can be taken for one of this run."""
        own = (self.args, self.results, self.table, self.plan, self.picture, self.report, self.log)
        for stale in (*own, *self.path.glob("pruned*")):
            remove(stale)
        remove(self.steps)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def wanted_folder(project: str | None, name: str | None) -> Path:
    """The output folder PROJECT/NAME as asked for, absolute; by default runs/prune/prune."""
    return (Path(project or "runs/prune").expanduser() / (name or "prune")).absolute()


def check_writable(project: str | None, name: str | None) -> None:
    """Check that the output folder can be made or written to, and leave nothing behind.

    Raises:
        UserError: It cannot.
    """
    wanted = wanted_folder(project, name)
    try:
        check_folder(wanted)
    except OSError as error:
        raise UserError(
            f"The output folder {wanted} cannot be written ({error.filename}: {error.strerror}); "
            "choose another with --project and --name."
        ) from error


def check_outside(weights: str | None, project: str | None, name: str | None, exist_ok: bool) -> None:
    """Check that the weights do not lie in a folder that the run is going to clear.

    Raises:
        UserError: They do.
    """
    folder = wanted_folder(project, name)
    if weights and exist_ok and folder in Path(weights).absolute().parents:
        raise UserError(
            f"{weights} lies in the output folder {folder}, which --exist-ok clears; choose another --name."
        )


def make_folder(project: str | None, name: str | None, exist_ok: bool) -> RunFolder:
    """Make the output folder PROJECT/NAME (default runs/prune/prune).

    An existing folder is left alone and the next free suffix taken, as Ultralytics does, unless `exist_ok`.

    Raises:
        UserError: The folder cannot be made.
    """
    from ultralytics.utils.files import increment_path

    wanted = wanted_folder(project, name)
    while True:
        path = Path(increment_path(wanted, exist_ok=exist_ok))
        try:
            path.mkdir(parents=True, exist_ok=exist_ok)
        except FileExistsError as error:
            if exist_ok:  # a file is in the way
                raise UserError(f"The output folder {path} is a file; choose another with --name.") from error
            continue  # another run took this name meanwhile
        except OSError as error:
            raise UserError(
                f"The output folder {path} cannot be made ({error.strerror}); choose another with --project and --name."
            ) from error
        folder = RunFolder(path)
        folder.clear()
        return folder
