"""Check a data set before any work. Nothing that it names is run or fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import yaml
from torch import nn
from ultralytics.data import utils as data_utils
from ultralytics.data.utils import IMG_FORMATS, check_cls_dataset, check_det_dataset, img2label_paths
from ultralytics.utils import ROOT

from yoloprune.errors import UserError
from yoloprune.replaced import rebound
from yoloprune.yaml_files import read_yaml

from .guard import plain, quiet
from .heads import class_count, class_names
from .uncached import check_label, readable_image, readable_label

__all__ = [
    "SPLITS",
    "absent_images",
    "as_yaml",
    "check_data",
    "find_data",
    "has_labels",
    "images_of",
    "images_of_split",
    "is_url",
    "is_yaml",
    "read_data_yaml",
    "with_classes_of",
]

SPLITS = ("train", "val", "test")

_LABELLED = ("detect", "segment", "pose", "obb")  # tasks whose labels are a text file per image
_MOST_CLASSES = 100_000  # Ultralytics makes a name for each of `nc`
_MOST_KEYPOINTS = 10_000
_LARGEST_LIST = 256 << 20  # bytes


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    raise PermissionError("Nothing is run or fetched.")


def check_data(
    data: str | Path,
    task: str,
    *,
    split: str = "val",
    nc: int | None = None,
    labels: bool = True,
    network: nn.Module | None = None,
) -> dict[str, Any]:
    """Check that a data set can be used, without downloading anything.

    Args:
        data: A data YAML (also one that Ultralytics ships, such as "coco8.yaml"), a folder with exactly one in it, or,
            where no labels are needed, a folder of images or a text file that lists them. For classification, the
            folder with a subfolder per split.
        task: Ultralytics' task: "detect", "segment", "pose", "obb" or "classify".
        split: The split that must have images.
        nc: The number of classes that the data must have, if that matters.
        labels: Whether some of the images must have labels.
        network: The network whose image channels and keypoints the data must have, if that matters; images alone have
            its classes.

    Returns:
        Ultralytics' data dictionary, paths resolved: `names`, `nc`, `path`, `train`, `val` … Of images alone it has
        `train` and `split`, and `names` and `nc` are None without a network.

    Raises:
        UserError: The YAML is missing or broken, the split or its images are, labels are, or the classes, channels or
            keypoints do not fit.
    """
    if task == "classify":
        checked = _check_classify(data, split)
    else:
        found = find_data(data)
        shown = str(found if Path(data).is_dir() else data)
        if is_yaml(found):
            checked = _from_yaml(found, shown, split)
        else:
            checked = _from_images(found, split, network)
        _check_images(checked, shown, task, split, labels)
    if nc is not None and checked["nc"] != nc:
        raise UserError(f"'{data}' has {checked['nc']} classes and the model {nc}; give the data it was trained for.")
    if network is not None:
        _check_fit(checked, data, network)
    return checked


def has_labels(checked: dict[str, Any], split: str, task: str) -> bool:
    """Whether any image of a checked data set's split has a label that can be used."""
    if task not in _LABELLED:
        return True
    images = images_of_split(checked, split)
    return any(
        os.path.isfile(file) and (boxes := _read(image, file, task, checked)[1]) is not None and len(boxes)
        for image, file in zip(images, img2label_paths(images), strict=True)
    )


def images_of_split(checked: dict[str, Any], split: str) -> list[str]:
    """The images of a checked data set's split, sorted as Ultralytics sorts them; none where there is no such split."""
    sources = _listed(checked.get(split) or [])
    return sorted(image for source in sources if Path(source).exists() for image in images_of(source))


def as_yaml(checked: dict[str, Any], folder: Path) -> Path:
    """Write a checked data set as a data YAML for Ultralytics, which has absolute paths and nothing to download."""
    content = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in checked.items()
        if key not in ("download", "yaml_file")
    }
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"train": None, "val": None, **content}, sort_keys=False), encoding="utf-8")
    return path


def images_of(source: str | Path) -> list[str]:
    """The images of a folder, or of a text file that lists them; lines are read as Ultralytics reads them.

    Raises:
        UserError: A link leads in a circle, or a file with the name of an image is none that can be read to its end.
        OSError, UnicodeDecodeError: The list cannot be read.
    """
    source = Path(source)
    if source.is_dir():
        candidates = _files(source)
    else:
        if not source.is_file() or source.stat().st_size > _LARGEST_LIST:
            raise UserError(f"'{source}' is neither a folder of images nor a text file that lists some; mend the data.")
        lines = source.read_text(encoding="utf-8-sig").strip().splitlines()
        candidates = (str(source.parent / line) if line.startswith("./") else line for line in lines)
    return [path for path in candidates if path.rpartition(".")[-1].lower() in IMG_FORMATS and _is_ordinary(path)]


def read_data_yaml(file: Path, shown: str | None = None) -> dict[str, Any]:
    """The content of a data YAML.

    Raises:
        UserError: It is none, or has values that cannot be; the sentence names it as `shown`.
    """
    shown = shown or str(file)
    try:
        content = read_yaml(file, shown)
    except OSError as e:
        raise UserError(f"'{shown}' cannot be read: {e.strerror}.") from None
    if not isinstance(content, dict):
        raise UserError(f"'{shown}' is not a data YAML: it has no keys such as 'path', 'train', 'val' and 'names'.")
    _check_content(content, shown)
    return content


def find_data(data: str | Path) -> Path:
    """What `data` stands for: a data YAML, a folder of images or a text file that lists some.

    Raises:
        UserError: There is no such thing, or it is not clear which YAML is meant.
    """
    path = Path(data)
    if path.is_dir():
        return _yaml_of(path) or path
    if path.is_file():
        if path.suffix[1:].lower() in IMG_FORMATS:
            raise UserError(f"'{data}' is one image; give the folder that it is in, or a data YAML.")
        return path
    if path.exists():  # reading from a pipe or a device might never end
        raise UserError(f"'{data}' is not an ordinary file; give a data YAML or a folder of images.")
    shipped = ROOT / "cfg" / "datasets" / path.name
    if str(data) == path.name and path.suffix in {".yaml", ".yml"} and shipped.is_file():
        return shipped
    what = "data YAML" if path.suffix in {".yaml", ".yml"} or "://" in str(data) else "data YAML or folder of images"
    raise UserError(f"There is no {what} '{data}' (nothing is downloaded).")


def is_yaml(found: Path) -> bool:
    """Whether what `find_data` has found is a data YAML."""
    return found.is_file() and found.suffix.lower() != ".txt"


def _yaml_of(folder: Path) -> Path | None:
    """The one YAML in a folder, or below it, as Ultralytics finds it."""
    files: list[Path] = []
    for where in (folder.iterdir(), map(Path, _files(folder))):
        files = files or [path for path in where if path.suffix in {".yaml", ".yml"} and path.is_file()]
    if len(files) > 1:
        named = [path for path in files if path.stem == folder.name]
        if len(named) != 1:
            files = sorted(files)
            raise UserError(
                f"'{folder}' has {len(files)} YAML files in it, such as '{files[0]}' and '{files[1]}'; give the one "
                "that describes the data."
            )
        files = named
    return files[0] if files else None


def _check_fit(checked: dict[str, Any], data: str | Path, network: nn.Module) -> None:
    channels, expected = checked["channels"], network.yaml.get("channels", 3)
    if channels != expected:
        raise UserError(f"'{data}' has images of {channels} channels and the model takes {expected}; give other data.")
    keypoints = getattr(network.model[-1], "kpt_shape", None)
    if keypoints is not None and list(keypoints) != checked["kpt_shape"]:
        raise UserError(
            f"'{data}' has kpt_shape {checked['kpt_shape']} and the model {list(keypoints)}; give the data it was "
            "trained for."
        )


def _check_classify(data: str | Path, split: str) -> dict[str, Any]:
    root = Path(data)
    if not root.is_dir() and (data_utils.DATASETS_DIR / root).is_dir():  # where Ultralytics keeps what it has fetched
        root = data_utils.DATASETS_DIR / root
    if not root.is_dir():
        raise UserError(f"There is no folder '{data}'; classification needs one, with a subfolder per split.")
    for name in {"train", split}:  # Ultralytics makes a split of its own where there is none
        if not any((root / alias).is_dir() for alias in {"val": ("val", "validation", "valid")}.get(name, (name,))):
            raise UserError(
                f"'{data}' has no subfolder '{name}'; classification needs one per split, with one per class in it."
            )
    if (root / ".ndjson.yaml").is_file():
        read_data_yaml(root / ".ndjson.yaml")
    try:
        with quiet():
            resolve = rebound(check_cls_dataset, safe_download=_refuse, download=_refuse, subprocess=None)
            checked = resolve(root.absolute(), split=split)
        images = images_of(checked[split])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"'{data}' cannot be used: {plain(e)}.") from None
    if not images:
        raise UserError(f"'{checked[split]}' holds no image.")
    if not any(readable_image(((image, 0), ""))[1] for image in images):
        raise UserError(f"None of the {len(images)} images in '{checked[split]}' can be read, such as '{images[0]}'.")
    return checked


def _from_yaml(file: Path, shown: str, split: str) -> dict[str, Any]:
    """Ultralytics' dictionary of a data YAML."""
    content = read_data_yaml(file, shown)
    if not (content.get(split) or (split == "val" and content.get("validation"))):
        raise UserError(f"'{shown}' has no '{split}:' entry; add the folder of its images.")
    try:
        with quiet():
            resolve = rebound(
                check_det_dataset, safe_download=_refuse, subprocess=None, exec=_refuse, check_font=lambda font: None
            )
            checked = resolve(str(file), autodownload=False, split=split)
    except FileNotFoundError:
        raise UserError(_absent(content, file, shown, split)) from None
    except (SyntaxError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, OSError) as e:
        raise UserError(f"'{shown}' is not a usable data YAML: {plain(e)}.") from None
    if sorted(checked["names"]) != list(range(checked["nc"])):
        raise UserError(f"'{shown}' numbers its classes {sorted(checked['names'])}; number them from 0.")
    return checked


def _check_content(content: dict[str, Any], shown: str) -> None:
    """Refuse values that Ultralytics takes and then stumbles over."""
    if not isinstance(content.get("path"), (str, type(None))):
        raise UserError(f"'{shown}' has 'path: {content['path']}'; give the folder of the data set.")
    for key in ("train", "val", "validation", "test"):
        if not all(isinstance(entry, str) for entry in _listed(content.get(key) or [])):
            raise UserError(f"'{shown}' has '{key}: {content[key]}'; give a folder of images or several.")
    names, keypoints, flip = content.get("names"), content.get("kpt_shape"), content.get("flip_idx")
    values = list(names.values()) if isinstance(names, dict) else names if isinstance(names, list) else []
    odd = next((value for value in values if isinstance(value, (list, dict))), None)
    if odd is not None:
        raise UserError(f"'{shown}' has a class whose name is a {type(odd).__name__}; names are texts.")
    points = keypoints[0] if isinstance(keypoints, list) and keypoints else 0
    for key, number, most in (
        ("nc", content.get("nc"), _MOST_CLASSES),
        ("names", len(values), _MOST_CLASSES),
        ("kpt_shape", points, _MOST_KEYPOINTS),
    ):
        if isinstance(number, (int, float)) and number > most:
            raise UserError(f"'{shown}' has {key}: {number}, more than the {most} that can be handled; mend it.")
    if isinstance(flip, list) and points and sorted(map(str, flip)) != sorted(map(str, range(points))):
        raise UserError(f"'{shown}' has flip_idx {flip}; give each of the {points} keypoints once, from 0.")


def absent_images(content: dict[str, Any], file: Path, splits: Sequence[str] = SPLITS) -> list[Path]:
    """What a data YAML names as images and is not there; paths are resolved as Ultralytics resolves them."""
    root = Path(content.get("path") or file.parent)
    if not root.exists() and not root.is_absolute():
        root = data_utils.DATASETS_DIR / root
    missing = []
    for split in splits:
        for entry in _listed(content.get(split) or (split == "val" and content.get("validation")) or []):
            outside = root / entry[3:] if entry.startswith("../") else root / entry
            if not ((root / entry).exists() or outside.exists()):
                missing.append(root / entry)
    return missing


def is_url(download: Any) -> bool:
    """Whether what a data YAML says to download is an address, not a script."""
    return isinstance(download, str) and download.lower().startswith(("http://", "https://"))


def _absent(content: dict[str, Any], file: Path, shown: str, split: str) -> str:
    """The sentence about images that a data YAML names and that are not there."""
    missing, download, offer = absent_images(content, file, (split,)), content.get("download"), ""
    if is_url(download):
        offer = f"; --download fetches them from {download}"
    elif download:
        offer = "; its download: is a script, which --download runs only together with --trust"
    return f"'{shown}' names the images '{missing[0] if missing else content.get(split)}', which do not exist{offer}."


def _from_images(source: Path, split: str, network: nn.Module | None) -> dict[str, Any]:
    """Ultralytics' dictionary of images alone, whose classes are the network's."""
    where = str(source.absolute())
    checked = {"path": where, "train": where, split: where, "names": None, "nc": None, "channels": 3}
    return checked if network is None else with_classes_of(checked, network)


def with_classes_of(checked: dict[str, Any], network: nn.Module) -> dict[str, Any]:
    """What `check_data` found of images alone, with the classes, image channels and keypoints of a network."""
    more = {"names": class_names(network), "nc": class_count(network)}
    keypoints = getattr(network.model[-1], "kpt_shape", None)
    if keypoints is not None:
        more["kpt_shape"] = list(keypoints)
    return {**checked, **more, "channels": network.yaml.get("channels", 3)}


def _check_images(checked: dict[str, Any], shown: str, task: str, split: str, labels: bool) -> None:
    """Check that a split has images that can be read, with their labels."""
    try:
        images = images_of_split(checked, split)
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"The images that '{shown}' names cannot be listed: {plain(e)}.") from None
    if not images:
        lists = any(Path(source).is_file() for source in _listed(checked[split]))
        hint = "; lines that begin with ./ are relative to the list, others to the working directory" if lists else ""
        named = f"'{shown}' names '{checked[split]}' for '{split}:', which" if "yaml_file" in checked else f"'{shown}'"
        raise UserError(f"{named} holds no image{hint}.")
    if labels and split != "train" and "yaml_file" not in checked:
        raise UserError(
            f"'{shown}' holds images alone and validation needs labels; give a data YAML, or leave validation out "
            "(--no-val)."
        )
    if task not in _LABELLED:
        return
    pairs = list(zip(images, img2label_paths(images), strict=True))
    labelled = [pair for pair in pairs if os.path.isfile(pair[1])]
    if labels and not labelled:
        raise UserError(f"None of the {len(images)} '{split}' images of '{shown}' has labels, such as '{pairs[0][1]}'.")
    if checked["nc"] is not None and not _is_kpt_shape(checked.get("kpt_shape", None if task == "pose" else [0, 2])):
        raise UserError(
            f"'{shown}' has kpt_shape {checked.get('kpt_shape')}; give data with keypoints, such as kpt_shape: [17, 3]."
        )
    polygons, usable = task in ("segment", "obb"), False
    for image, file in chain(labelled, (pair for pair in pairs if not os.path.isfile(pair[1]))):
        found, boxes, segments = _read(image, file, task, checked)
        if found is None:
            continue
        usable = True
        if polygons and len(boxes) != len(segments):
            raise UserError(f"'{file}' of '{shown}' has boxes, but the task {task!r} needs polygons; give such data.")
        if len(boxes) or not polygons or not os.path.isfile(file):
            break
    if not usable:
        with_labels, file = (" together with its labels", f" and '{labelled[0][1]}'") if labelled else ("", "")
        raise UserError(
            f"None of the {len(images)} '{split}' images of '{shown}' can be read{with_labels}; mend them, such as "
            f"'{(labelled or pairs)[0][0]}'{file}."
        )


def _read(image: str, file: str, task: str, checked: dict[str, Any]) -> tuple[str | None, Any, Any]:
    """Ultralytics' look at an image and its labels: the image, boxes and segments, or None for what is unusable."""
    if checked["nc"] is None:  # without classes, labels cannot be told right from wrong
        file = ""
    check_label(file)
    keypoints = checked.get("kpt_shape", [0, 2])
    found, boxes, _, segments, *_ = readable_label(
        (image, file, "", task == "pose" and bool(file), checked["nc"], *keypoints, False)
    )
    return found, boxes, segments


def _is_kpt_shape(value: Any) -> bool:
    """Whether this is a number of keypoints and 2 or 3 values for each."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and value[1] in (2, 3)


def _listed(source: Any) -> list[Any]:
    return source if isinstance(source, list) else [source]


def _is_ordinary(path: str) -> bool:
    """Whether there is a file that can be read to its end."""
    if os.path.isfile(path):
        return True
    if os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"'{path}' has the name of an image but is no ordinary file; remove it.")
    return False


def _files(folder: Path) -> Iterator[str]:
    """All files below a folder that Ultralytics sees: links are followed, hidden ones are left out."""
    seen = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = (name for name in folders if not name.startswith("."))
        status = os.stat(where)
        if (status.st_dev, status.st_ino) in seen:  # following it might never end
            raise UserError(f"'{where}' leads to a folder that '{folder}' already has in it; remove the link.")
        seen.add((status.st_dev, status.st_ino))
        yield from (os.path.join(where, name) for name in names if not name.startswith("."))
