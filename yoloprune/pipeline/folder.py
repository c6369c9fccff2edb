"""The output folder of a run, in Ultralytics' manner."""

from __future__ import annotations

import os
import shutil
from itertools import count
from pathlib import Path

from yoloprune.deploy.formats import export_path
from yoloprune.errors import UserError
from yoloprune.files import check_folder, clean_leftovers

from .lock import LOCK, FolderLock
from .manifest import DIGITS_SET, IMAGES, STATE, TRAINING, Manifest
from .options import Options

__all__ = [
    "DIGITS",
    "RunFolder",
    "check_outside",
    "check_writable",
    "free_folder",
    "make_folder",
    "remove",
    "wanted_folder",
]

DIGITS = "digits"
"""Name by which `data` asks for the embedded set, written into the run's own folder."""


class RunFolder:
    """Where each file of a run is, and which files are the run's.

    Attributes:
        path: The folder itself.
        manifest: The list of the run's files, from `begin` or `reopen` to `close`.
        taken: Whether an earlier run's files are here, which `begin` will remove.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()
        self.weights = self.path / "pruned.pt"
        self.plan = self.path / "plan.json"
        self.args = self.path / "args.yaml"
        self.results = self.path / "results.json"
        self.table = self.path / "results.csv"
        self.report = self.path / "report.html"
        self.pictures = self.path / "report"
        self.details = self.pictures / "details.json"
        self.log = self.path / "log.txt"
        self.steps = self.path / "steps"
        self.teacher = self.steps / "original.pt"
        self.untrained = self.steps / "untrained.pt"
        self.trained = self.steps / "trained.pt"
        self.sparse = self.steps / "sparse.pt"
        self.images = self.steps / "images"
        self.digits = self.path / DIGITS
        self.manifest: Manifest | None = None
        self.taken = False
        self._lock: FolderLock | None = None

    def step(self, number: int) -> Path:
        """The folder of one step: its plan, its network before (pruned.pt) and after (model.pt) fine-tuning."""
        return self.steps / str(number)

    def step_plan(self, number: int) -> Path:
        """The plan of one step, composed with those before it."""
        return self.step(number) / "plan.json"

    def pruned(self, number: int) -> Path:
        """The network of one step as it was pruned, before fine-tuning."""
        return self.step(number) / "pruned.pt"

    def model(self, number: int) -> Path:
        """The network of one step after fine-tuning."""
        return self.step(number) / "model.pt"

    def train(self, number: int) -> Path:
        """The folder that Ultralytics' trainer writes to in one step."""
        return self.step(number) / "train"

    def trainings(self) -> list[Path]:
        """The folders of all trainings that the run may have begun."""
        parts = self.manifest.parts if self.manifest else {}
        return [self.path / part for part, kind in parts.items() if kind == TRAINING]

    def needless(self, options: Options) -> list[Path]:
        """What a finished run needs no more."""
        files = [self.teacher, self.untrained]
        if options.steps == 1 and not options.epochs:  # the step's files are the run's
            files += [self.pruned(1), self.step_plan(1)]
        return files

    def lock(self) -> None:
        """Keep all other runs out of the folder until `close`.

        Raises:
            UserError: One of them is at work.
        """
        self._lock = FolderLock(self.path)

    def check_free(self, options: Options) -> None:
        """Check that only an earlier run's unchanged files are here, or nothing that a run could be in the way of.

        Raises:
            UserError: There is something else.
        """
        clean_leftovers(self.path)
        if all(path.name == LOCK for path in self.path.iterdir()):
            return
        another = "choose another --name"
        if not (self.path / STATE).is_file():
            raise UserError(
                f"The folder '{self.path}' is not that of a run, since it has no {STATE}, so --exist-ok leaves it "
                f"alone; {another}."
            )
        try:
            earlier = Manifest.load(self.path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"'{self.path / STATE}' is damaged, so what the run there wrote is unknown; {another}."
            ) from error
        if changed := earlier.changed():
            raise UserError(
                f"'{changed}' was changed after the earlier run wrote it, and --exist-ok would remove it; move it "
                f"elsewhere, or {another}."
            )
        self.check_links()
        self.taken = True
        for path in self._wanted(options):
            if (path.exists() or path.is_symlink()) and not earlier.owns(path):
                raise UserError(
                    f"'{path}' was not written by the earlier run and is in the way of this one; move it elsewhere, or "
                    f"{another}."
                )

    def check_links(self) -> None:
        """Check that nothing of the run is a link, through which it would write elsewhere; W&B's own are its own.

        Raises:
            UserError: Something is.
        """
        folders = (self.steps, self.digits, self.pictures)
        inside = [path for folder in folders for path in folder.rglob("*") if not self._is_wandbs(path)]
        ours = (self.weights, self.plan, self.args, self.results, self.table, self.log, self.report)
        for path in (*folders, *ours, *inside):
            if path.is_symlink():
                raise UserError(f"'{path}' is a link, through which no run writes; put what it leads to in its place.")

    def _is_wandbs(self, path: Path) -> bool:
        """Whether it lies in a folder that W&B keeps, in which it links the latest run."""
        return "wandb" in path.relative_to(self.path).parts[:-1]

    def begin(self, options: Options, *, images: bool = False) -> None:
        """Remove what an earlier run left here, and begin the list of this run's files.

        Args:
            options: The options of the run.
            images: Whether images from memory will be kept here.
        """
        if self.taken:
            Manifest.load(self.path).remove_all()
        self.manifest = Manifest(self.path, parts=self._parts(options, images))
        self.manifest.save()
        self.manifest.open()

    def reopen(self) -> None:
        """Take up the list of this run's files, once what a killed process left unfinished is removed.

        Raises:
            OSError: There is no list.
            ValueError: It is damaged.
        """
        self.manifest = Manifest.load(self.path)
        self.manifest.open()
        for folder, folders, _ in os.walk(self.path):
            clean_leftovers(Path(folder))
            folders[:] = [name for name in folders if not name.startswith(".")]

    def close(self) -> None:
        """Let other runs in."""
        if self.manifest:
            self.manifest.close()
            self.manifest = None
        if self._lock:
            self._lock.release()
            self._lock = None

    def discard(self) -> None:
        """Remove all that the run has written, and the folder if it is empty then."""
        if self.manifest:
            self.manifest.remove_all()
            (self.path / STATE).unlink(missing_ok=True)
        self.close()
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _parts(self, options: Options, images: bool) -> dict[str, str]:
        """The folders that others will fill, from this one, and their kinds."""
        tunes = options.epochs or options.budget
        parts = {self.train(number): TRAINING for number in range(1, options.steps + 1) if tunes}
        if options.train_epochs:
            parts[self.steps / "train"] = TRAINING
        if options.sparse_epochs:
            parts[self.steps / "sparse" / "train"] = TRAINING
        if options.data == DIGITS:
            parts[self.digits] = DIGITS_SET
        if images:
            parts[self.images] = IMAGES
        return {path.relative_to(self.path).as_posix(): kind for path, kind in parts.items()}

    def _wanted(self, options: Options) -> list[Path]:
        """Where the run will write, if asked for."""
        ours = [self.weights, self.plan, self.args, self.results, self.table, self.report, self.log]
        ours += [self.pictures, self.teacher, self.untrained, self.trained, self.sparse]
        for number in range(1, options.steps + 1):
            ours += [self.step_plan(number), self.pruned(number), self.model(number)]
        if options.export:
            ours.append(export_path(self.weights, options.export))
        return ours


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


def check_outside(weights: str | None, options: Options) -> None:
    """Check that neither the weights nor the data lie in a folder that the run is going to clear.

    Raises:
        UserError: They do.
    """
    folder = wanted_folder(options.project, options.name)
    for path in (weights, options.data):
        if path and options.exist_ok and folder in Path(path).absolute().parents:
            raise UserError(
                f"{path} lies in the output folder {folder}, which --exist-ok clears; choose another --name."
            )


def free_folder(wanted: Path, *, exist_ok: bool = False) -> Path:
    """The folder itself or, where it is taken and `exist_ok` is off, NAME-2, NAME-3 … as Ultralytics counts."""
    if exist_ok or not wanted.exists():
        return wanted
    return next(path for n in count(2) if not (path := wanted.with_name(f"{wanted.name}-{n}")).exists())


def make_folder(options: Options) -> RunFolder:
    """Make the output folder PROJECT/NAME (default runs/prune/prune), and keep other runs out of it until it is closed.

    An existing folder is left alone and the next free suffix taken, as Ultralytics does, unless `exist_ok`. What an
    earlier run left in it is there until `RunFolder.begin`.

    Raises:
        UserError: The folder cannot be made, or it holds what is not an earlier run's.
    """
    wanted = wanted_folder(options.project, options.name)
    while True:
        path = free_folder(wanted, exist_ok=options.exist_ok)
        try:
            path.mkdir(parents=True, exist_ok=options.exist_ok)
        except FileExistsError as error:
            if options.exist_ok:  # a file is in the way
                raise UserError(f"The output folder {path} is a file; choose another with --name.") from error
            continue  # another run took this name meanwhile
        except OSError as error:
            raise UserError(
                f"The output folder {path} cannot be made ({error.strerror}); choose another with --project and --name."
            ) from error
        folder = RunFolder(path)
        folder.lock()
        try:
            folder.check_free(options)
        except BaseException:
            folder.close()
            raise
        return folder
