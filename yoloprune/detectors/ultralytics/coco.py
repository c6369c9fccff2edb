"""COCO mAP by pycocotools, where annotations in COCO's format belong to a data set."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from ultralytics.data.converter import coco80_to_coco91_class

from yoloprune.errors import UserError

from .guard import plain

__all__ = ["coco_map", "find_annotations"]


def find_annotations(data: Mapping[str, Any], split: str = "val") -> Path | None:
    """Find the COCO-format annotations of a checked data set's split.

    The data YAML's key `<split>_annotations` or `annotations` (relative to its `path`) comes first, then COCO's own
    layout, `annotations/instances_<name>.json` beside the `images` folder, where `<name>` is the image folder's or
    list's name, such as `val2017`.

    Raises:
        UserError: The YAML names a file that does not exist.
    """
    root = Path(data["path"])
    named = data.get(f"{split}_annotations") or data.get("annotations")
    if named:
        path = root / str(named)
        if not path.is_file():
            raise UserError(
                f"The annotations '{path}' that {data.get('yaml_file', 'the data YAML')} names do not exist."
            )
        return path
    images = data.get(split)
    if not isinstance(images, str):
        return None
    name = f"instances_{Path(images).stem}.json"
    folders = (root, Path(images).parent.parent, Path(images).parent)
    return next((f / "annotations" / name for f in folders if (f / "annotations" / name).is_file()), None)


def coco_map(
    annotations: Path, detections: list[dict[str, Any]], images: Iterable[str | Path], names: Mapping[int, str]
) -> tuple[float, float]:
    """COCO's mAP of boxes over the given images.

    Args:
        annotations: COCO-format ground truth.
        detections: What Ultralytics' `pred_to_json` gives, with class indices as `category_id`: `file_name`, `bbox`
            (x, y, w, h in pixels of the original image) and `score`.
        images: The image files that were evaluated.
        names: Class index -> name.

    Returns:
        mAP at IoU .50:.95 and at .50, as pycocotools computes them (100 detections per image).

    Raises:
        UserError: The annotations are no COCO JSON, or lack a class or an image.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        try:
            truth = COCO(str(annotations))
            by_file = {Path(record["file_name"]).name: record["id"] for record in truth.imgs.values()}
            ids = {Path(image).name: _image_id(Path(image), truth.imgs, by_file, annotations) for image in images}
            category = _categories(truth.loadCats(truth.getCatIds()), names, annotations)
            results = [
                {
                    "image_id": ids[d["file_name"]],
                    "category_id": category[d["category_id"]],
                    "bbox": d["bbox"],
                    "score": d["score"],
                }
                for d in detections
            ]
            if not results:
                return 0.0, 0.0
            evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
            evaluation.params.imgIds = sorted(ids.values())
            evaluation.params.catIds = sorted(category.values())
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        except UserError:
            raise
        except Exception as e:  # pycocotools takes any JSON and stumbles over it in any way
            raise UserError(f"'{annotations}' is not a COCO annotation file: {plain(e) or type(e).__name__}.") from e
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def _image_id(image: Path, known: Mapping[int, Any], by_file: Mapping[str, int], annotations: Path) -> int:
    """COCO's id: the file's name if that is a number (000000000139.jpg), else what the annotations say of the file."""
    if image.stem.isdecimal() and int(image.stem) in known:
        return int(image.stem)
    if image.name in by_file:
        return by_file[image.name]
    raise UserError(f"The image '{image}' is not in the annotations '{annotations}'.")


def _categories(categories: list[dict[str, Any]], names: Mapping[int, str], annotations: Path) -> dict[int, int]:
    """Class index -> category id: COCO's own 80 -> 91 table where the ids are COCO's, else by name."""
    table = coco80_to_coco91_class()
    if len(names) == len(table) and {c["id"] for c in categories} == set(table):
        return dict(enumerate(table))
    by_name = {str(c["name"]).strip().lower(): c["id"] for c in categories}
    missing = [name for name in names.values() if name.strip().lower() not in by_name]
    if missing:
        raise UserError(f"The class '{missing[0]}' is not among the categories of '{annotations}'.")
    return {index: by_name[name.strip().lower()] for index, name in names.items()}
