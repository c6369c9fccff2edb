"""Fetch the images that a data YAML names, where that was asked for: `--download`."""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from pathlib import Path

from ultralytics.data import utils as data_utils
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import ASSETS_URL
from ultralytics.utils.checks import clean_url
from ultralytics.utils.downloads import safe_download

from yoloprune.errors import UserError

from .datasets import SPLITS, absent_images, find_data, is_url, is_yaml, read_data_yaml
from .guard import plain

__all__ = ["fetch"]

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".txz", ".tbz2")  # which Ultralytics unpacks


def fetch(data: str | Path, task: str, *, trust: bool = False) -> None:
    """Fetch what a data set's images lack, into Ultralytics' folder of data sets; nothing where they are there.

    Archives are unpacked by Ultralytics, which leaves out what would lie outside that folder.

    Args:
        data: A data YAML, also one that Ultralytics ships; for classification, the name of one of Ultralytics' sets.
        task: Ultralytics' task.
        trust: Whether a `download:` that is no URL, but Python or a shell command, is run.

    Raises:
        UserError: It cannot be fetched, or is not what the data YAML needs.
    """
    if task == "classify":
        if re.fullmatch(r"[\w-]+", str(data)) and not any(Path(p).is_dir() for p in (data, _folder() / str(data))):
            _unpack(f"{ASSETS_URL}/{data}.zip")
        return
    file = find_data(data)
    if not is_yaml(file):
        return
    content = read_data_yaml(file, str(data))
    missing = absent_images(content, file)
    download = content.get("download")
    if not missing or not isinstance(download, str):
        return  # where something is amiss, `check_data` says so
    if is_url(download):
        if not clean_url(download).lower().endswith(_ARCHIVES):
            raise UserError(f"'{data}' names {download} to download, which is no archive; fetch it by hand.")
        _unpack(download)
    elif not trust:
        raise UserError(
            f"'{data}' names no URL to download but a script, which is run with --trust only; fetch '{missing[0]}' by "
            "hand, or give --trust if you know the file."
        )
    else:
        try:
            check_det_dataset(str(file), split=next(s for s in SPLITS if absent_images(content, file, (s,))))
        except Exception as error:  # the script can raise anything
            raise UserError(f"The script for downloading in '{data}' failed: {plain(error)}.") from error
    missing = absent_images(content, file)
    if missing:
        raise UserError(
            f"What '{data}' downloads has been fetched to '{_folder()}', but the images '{missing[0]}' are still not "
            "there; mend its path: or move them."
        )


def _folder() -> Path:
    return data_utils.DATASETS_DIR


def _unpack(url: str) -> None:
    try:
        safe_download(url, dir=_folder(), unzip=True, delete=True)
    except (OSError, MemoryError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, ValueError) as error:
        raise UserError(f"{url} cannot be fetched: {plain(error)}.") from error
