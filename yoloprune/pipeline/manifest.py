"""What a run has written into its folder, as a list that the folder keeps: only that may be removed or relied on."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from weakref import WeakValueDictionary

from yoloprune import files
from yoloprune.errors import UserError
from yoloprune.files import atomic

from .lock import FolderLock

__all__ = ["DIGITS_SET", "IMAGES", "STATE", "TRAINING", "Manifest", "adopt"]

STATE = "state.json"
"""Name of the list in the folder."""

TRAINING, DIGITS_SET, IMAGES = "training", "digits", "images"
"""Kinds of folders that others fill: Ultralytics' trainer, the embedded set, images that were given in memory."""

_NAMES = {
    TRAINING: (
        r"args\.yaml|results\.(csv|png)|labels(_correlogram)?\.jpg|train_batch\d+\.jpg|val_batch\d+_(labels|pred)\.jpg"
        r"|confusion_matrix(_normalized)?\.png|(Box|Mask|Pose)?(F1|P|R|PR)_curve\.png|sparsity\.(csv|png)"
        r"|predictions\.json|events\.out\.tfevents\.[^/]*|weights/(best|last|start|continue|epoch\d+)\.pt"
    ),
    DIGITS_SET: (
        r"digits\.yaml|images/(train|val)/\d{6}\.(png|npy)|labels/(train|val)/\d{6}\.txt|labels/(train|val)\.cache"
        r"|annotations/instances_val\.json"
    ),
    IMAGES: r"images\.txt|\d{6}\.png",
}
_FOLDERS = {
    TRAINING: ("weights",),
    DIGITS_SET: ("images/train", "images/val", "labels/train", "labels/val", "images", "labels", "annotations"),
    IMAGES: (),
}
_SECOND = 1.0  # between two notes of the time that the run has spent

_open: WeakValueDictionary[Path, Manifest] = WeakValueDictionary()


class Manifest:
    """The list of a folder's files with what they hold, and of folders whose files are told by their names.

    While it is open, whatever `atomic` puts into the folder is written into the list before it appears, so that a kill
    at any moment leaves neither a file of the run that is not listed nor one that holds something else than is listed.

    Attributes:
        folder: The folder.
        contents: SHA-256 of what each file holds, by its path from the folder; two or more where a kill came while it
            was replaced, none where it is added to meanwhile.
        parts: Kind of each folder that others fill, by its path from the folder.
    """

    def __init__(
        self,
        folder: Path,
        contents: dict[str, list[str]] | None = None,
        parts: dict[str, str] | None = None,
        spent: float = 0.0,
    ) -> None:
        self.folder = folder.absolute()
        self.contents = contents or {}
        self.parts = parts or {}
        self._spent, self._since, self._saved = spent, time.perf_counter(), 0.0

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read the list of a folder.

        Raises:
            OSError: It is not there.
            ValueError: It is no such list.
        """
        try:
            content = json.loads((folder / STATE).read_text(encoding="utf-8"))
            spent, contents, parts = content["spent"], content["files"], content["folders"]
            sums = [entry for entries in contents.values() for entry in entries]
            if not (isinstance(spent, (int, float)) and all(map(_is_inside, [*contents, *parts]))):
                raise ValueError
            if not (all(isinstance(entry, str) for entry in sums) and all(parts[name] in _NAMES for name in parts)):
                raise ValueError
            return cls(folder, {name: list(entries) for name, entries in contents.items()}, dict(parts), float(spent))
        except (KeyError, TypeError, AttributeError, RecursionError, ValueError) as error:
            raise ValueError(f"'{folder / STATE}' is no list of a run's files") from error

    @property
    def spent(self) -> float:
        """Seconds that the run has taken so far, in all processes that have worked on it."""
        return self._spent + time.perf_counter() - self._since

    def save(self) -> None:
        """Write the list."""
        self._saved = time.perf_counter()
        content = {"spent": round(self.spent, 2), "folders": self.parts, "files": self.contents}
        with atomic(self.folder / STATE) as tmp:
            tmp.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def open(self) -> None:
        """List from now on what is written into the folder."""
        _open[self.folder] = self

    def close(self) -> None:
        """List nothing any more."""
        _open.pop(self.folder, None)

    def add(self, path: Path) -> None:
        """List a file that is there, or all files of a folder, with what they hold."""
        for file in _files_under(path) if path.is_dir() else [path]:
            self.contents[self._name(file)] = [_sum(file)]
        self.save()

    def add_growing(self, path: Path) -> None:
        """List a file that will be written piece by piece, without what it holds, unless another's is there."""
        if not path.exists() and not path.is_symlink():
            self.contents[self._name(path)] = []
            self.save()

    def changed(self, *suffixes: str) -> Path | None:
        """The first listed file that is there and holds something else, of those with one of the suffixes if given."""
        for name, sums in self.contents.items():
            path = self.folder / name
            if sums and path.is_file() and (not suffixes or path.suffix in suffixes) and _sum(path) not in sums:
                return path
        return None

    def owns(self, path: Path) -> bool:
        """Whether a file is listed, or lies in a part whose kind has files of such a name; of a folder, all of them."""
        if path.is_dir() and not path.is_symlink():
            return all(map(self.owns, _files_under(path)))
        name = self._name(path)
        if name in self.contents or name == STATE:
            return True
        part = self._part(name)
        return part is not None and bool(re.fullmatch(_NAMES[self.parts[part]], name[len(part) + 1 :]))

    def owned(self) -> Iterator[Path]:
        """All files of the run that are there, but for the list itself; none that a link leads out of the folder to."""
        inside = self.folder.resolve()
        candidates = [self.folder / name for name in self.contents]
        for part in self.parts:
            candidates += [path for path in _files_under(self.folder / part) if self.owns(path)]
        for path in dict.fromkeys(candidates):
            if (path.is_file() or path.is_symlink()) and path.parent.resolve().is_relative_to(inside):
                yield path

    def remove(self, *paths: Path) -> None:
        """Remove files that are listed, if they are there, and the folders that are empty then."""
        paths = [path for path in paths if self._name(path) in self.contents]
        if paths:
            for path in paths:
                path.unlink(missing_ok=True)
                del self.contents[self._name(path)]
            self._remove_empty(paths)
            self.save()

    def remove_all(self) -> None:
        """Remove all files of the run, and the folders that are empty then; the list itself, unchanged, stays."""
        paths = list(self.owned())
        for path in paths:
            path.unlink()
        parts = [self.folder / part for part in self.parts]
        inner = [self.folder / part / name for part, kind in self.parts.items() for name in _FOLDERS[kind]]
        self._remove_empty([*paths, *(self.folder / name for name in self.contents), *(p / "_" for p in parts + inner)])

    def _remove_empty(self, files: Any) -> None:
        """Remove the folders that these files are or were in, and those around them within this one, if empty."""
        folders = {parent for file in files for parent in file.parents if self.folder in parent.parents}
        for folder in sorted(folders, key=lambda f: -len(f.parts)):
            if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                folder.rmdir()

    def _name(self, path: Path) -> str:
        return path.absolute().relative_to(self.folder).as_posix()

    def _part(self, name: str) -> str | None:
        return next((part for part in self.parts if name.startswith(f"{part}/")), None)

    @contextmanager
    def _expecting(self, path: Path, content: Path) -> Iterator[None]:
        """List what a file is to hold, within the block beside what it held, since a kill may leave either."""
        name = self._name(path)
        if name == STATE or self._part(name) is not None:
            if name != STATE and time.perf_counter() - self._saved > _SECOND:
                self.save()  # for the time that is spent
            yield
            return
        new = _sum(content)
        self.contents[name] = [*self.contents.get(name, []), new]
        self.save()
        yield
        self.contents[name] = [new]
        self.save()


def adopt(path: Path) -> None:
    """List what was written beside a run's files after the run, such as an export, so that it counts as the run's.

    Args:
        path: The file or folder; nothing is done where it does not lie in the folder of a run, or of one at work.
    """
    folder = path.absolute().parent
    if folder in _open:
        _open[folder].add(path.absolute())
    elif (folder / STATE).is_file():
        with suppress(UserError, OSError, ValueError):
            lock = FolderLock(folder)
            try:
                Manifest.load(folder).add(path.absolute())
            finally:
                lock.release()


def _of(path: Path) -> Manifest | None:
    return next((_open[parent] for parent in path.absolute().parents if parent in _open), None)


def _listing(path: Path, content: Path) -> AbstractContextManager:
    manifest = _of(path)
    return manifest._expecting(path, content) if manifest else nullcontext()


files.around_replacing.append(_listing)


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _files_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def _is_inside(name: str) -> bool:
    """Whether this is the path of something inside a folder, seen from it."""
    path = PurePosixPath(name)
    return (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and ":" not in name and "\\" not in name
    )
