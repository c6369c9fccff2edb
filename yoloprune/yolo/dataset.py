"""Check a data set before any work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from torch import nn
from ultralytics.data.utils import (
    IMG_FORMATS,
    check_cls_dataset,
    check_det_dataset,
    img2label_paths,
    verify_image,
    verify_image_label,
)
from ultralytics.utils import checks

from yoloprune.errors import UserError
from yoloprune.yolo.guard import offline, plain, quiet

__all__ = ["check_data"]


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
        data: A data YAML (also one that Ultralytics ships, such as "coco8.yaml"), or, for classification, the folder
            with a subfolder per split.
        task: Ultralytics' task: "detect", "segment", "pose", "obb" or "classify".
        split: The split that must have images.
        nc: The number of classes that the data must have, if that matters.
        labels: Whether some of the images must have labels.
        network: The network whose image channels and keypoints the data must have, if that matters.

    Returns:
        Ultralytics' data dictionary, paths resolved: `names`, `nc`, `path`, `train`, `val` …

    Raises:
        UserError: The YAML is missing or broken, the split or its images are, labels are, or the classes, channels or
            keypoints do not fit.
    """
    checked = _check_classify(data, split) if task == "classify" else _check_detect(data, task, split, labels)
    if nc is not None and checked["nc"] != nc:
        raise UserError(f"'{data}' has {checked['nc']} classes and the model {nc}; give the data it was trained for.")
    if network is not None:
        _check_fit(checked, data, network)
    return checked


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
    if not root.is_dir():
        raise UserError(f"There is no folder '{data}'; classification needs one, with a subfolder per split.")
    for name in {"train", split}:  # Ultralytics makes a split of its own where there is none
        if not any((root / alias).is_dir() for alias in {"val": ("val", "validation", "valid")}.get(name, (name,))):
            raise UserError(f"'{data}' has no subfolder '{name}'.")
    try:
        with quiet(), offline():
            checked = check_cls_dataset(root, split=split)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"'{data}' cannot be used: {plain(e)}.") from None
    images = list(_images(checked[split]))
    if not images:
        raise UserError(f"'{checked[split]}' holds no image.")
    with quiet(), offline():
        usable = any(verify_image(((str(image), 0), ""))[1] for image in images)
    if not usable:
        raise UserError(f"None of the {len(images)} images in '{checked[split]}' can be read, such as '{images[0]}'.")
    return checked


def _check_detect(data: str | Path, task: str, split: str, labels: bool) -> dict[str, Any]:
    file = _find_yaml(data)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise UserError(f"'{data}' is not a YAML file that can be read: {plain(e)}.") from None
    if not isinstance(content, dict):
        raise UserError(f"'{data}' is not a data YAML: it has no keys such as 'path', 'train', 'val' and 'names'.")
    if not (content.get(split) or (split == "val" and content.get("validation"))):
        raise UserError(f"'{data}' has no '{split}:' entry; add the folder of its images.")
    try:
        with quiet(), offline():
            checked = check_det_dataset(str(file), autodownload=False, split=split)
        images = [image for source in _listed(checked[split]) for image in _images(source)]
    except FileNotFoundError as e:
        missing = plain(e).partition("missing path ")[2].partition(" Note ")[0]
        raise UserError(f"'{data}' names the images {missing or plain(e)}, which do not exist.") from None
    except (SyntaxError, TypeError, ValueError, KeyError, AttributeError, OSError) as e:
        raise UserError(f"'{data}' is not a usable data YAML: {plain(e)}.") from None
    if not images:
        lists = any(Path(source).is_file() for source in _listed(checked[split]))
        hint = "; lines that begin with ./ are relative to the list, others to the working directory" if lists else ""
        raise UserError(f"'{data}' names '{checked[split]}' for '{split}:', which holds no image{hint}.")
    files = img2label_paths([str(image) for image in images])
    if labels and not any(Path(file).is_file() for file in files):
        raise UserError(f"None of the {len(images)} '{split}' images of '{data}' has labels, such as '{files[0]}'.")
    keypoints = checked.get("kpt_shape", None if task == "pose" else [0, 2])
    if not _is_kpt_shape(keypoints):
        raise UserError(f"'{data}' has kpt_shape {keypoints}; give data with keypoints, such as kpt_shape: [17, 3].")
    polygons, usable = task in ("segment", "obb"), False
    with quiet(), offline():
        for image, file in zip(map(str, images), files, strict=True):
            found, boxes, _, segments, *_ = verify_image_label(
                (image, file, "", task == "pose", checked["nc"], *keypoints, False)
            )
            if found is None:
                continue
            usable = True
            if polygons and len(boxes) != len(segments):
                raise UserError(
                    f"'{file}' of '{data}' has boxes, but the task {task!r} needs polygons; give such data."
                )
            if len(boxes) or not polygons:
                break
    if not usable:
        raise UserError(
            f"None of the {len(images)} '{split}' images of '{data}' can be read together with its labels; mend them, "
            f"such as '{images[0]}' and '{files[0]}'."
        )
    return checked


def _is_kpt_shape(value: Any) -> bool:
    """Whether this is a number of keypoints and 2 or 3 values for each."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], int) and value[1] in (2, 3)


def _find_yaml(data: str | Path) -> Path:
    """The data YAML: a path, or the name of one that Ultralytics ships."""
    path = Path(data)
    if path.is_file():
        return path
    if path.is_dir():
        raise UserError(f"'{data}' is a folder; give the data YAML in it.")
    shipped = None
    if "://" not in str(data) and path.suffix in {".yaml", ".yml"}:
        shipped = checks.check_file(str(data), download=False, hard=False)
    if not shipped:
        raise UserError(f"There is no data YAML '{data}' (nothing is downloaded).")
    return Path(shipped)


def _listed(source: str | list[str]) -> list[str]:
    return source if isinstance(source, list) else [source]


def _images(source: str | Path) -> Iterator[Path]:
    """The images of a folder, or of a text file that lists them; lines are read as Ultralytics reads them."""
    source = Path(source)
    if source.is_dir():
        candidates = source.rglob("*")
    else:
        lines = source.read_text(encoding="utf-8-sig").strip().splitlines()
        candidates = (source.parent / line if line.startswith("./") else Path(line) for line in lines)
    return (path for path in candidates if path.suffix[1:].lower() in IMG_FORMATS and path.is_file())
