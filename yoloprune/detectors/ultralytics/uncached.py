"""Ultralytics' datasets, which here read images and labels anew each time, and write nothing beside them.

Ultralytics keeps what it finds in a `.cache` file beside the labels, and unpickles it: whoever can write there, or
hands over a data set with such a file in it, has code run. It also writes images again whose JPEG data do not end as
they should, and takes `image.npy` beside `image.jpg` for its own. A thousand images are scanned in a third of a second,
so no cache of ours takes the place of Ultralytics'.

Its own functions build the datasets; they get these classes in the place of the stock ones, by `rebound`, so that
neither a cache is read nor anything is changed that other threads see. Classes are importable by name, as the processes
of a data loader need.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset
from ultralytics.data import build
from ultralytics.data import dataset as stock
from ultralytics.data.utils import IMG_FORMATS, exif_size, verify_image, verify_image_label
from ultralytics.models.rtdetr.val import RTDETRDataset as StockRTDETRDataset

from yoloprune.errors import UserError
from yoloprune.replaced import rebound

from .guard import plain

__all__ = ["BUILDERS", "build_dataset", "check_label", "readable_image", "readable_label"]

_LEAST = 10  # px, as in Ultralytics
_LARGEST_LABEL = 16 << 20  # bytes, about 400,000 boxes


def _check_image(path: str) -> tuple[str, tuple[int, int]]:
    """What Ultralytics' `check_image` finds out, without mending the file: no message, and (height, width)."""
    with Image.open(path) as image:
        image.verify()
        width, height = exif_size(image)
        kind = image.format.lower()
    if min(height, width) < _LEAST:
        raise ValueError(f"image size {width}x{height} <{_LEAST} pixels")
    if kind not in IMG_FORMATS | {"jpeg2000"}:
        raise ValueError(f"invalid image format {kind}")
    if kind in {"jpg", "jpeg"}:
        with open(path, "rb") as file:
            file.seek(-2, os.SEEK_END)
            ended = file.read() == b"\xff\xd9"
        if not ended:
            with Image.open(path) as image:
                image.load()  # bytes after its end do no harm, but a part may be missing
    return "", (height, width)


readable_image: Callable[[tuple], tuple] = rebound(verify_image, check_image=_check_image)
"""Ultralytics' `verify_image`, which leaves the file as it is."""

readable_label: Callable[[tuple], tuple | list] = rebound(verify_image_label, check_image=_check_image)
"""Ultralytics' `verify_image_label`, which leaves the image as it is; see `check_label` for what goes before it."""


def check_label(path: str) -> None:
    """Check that a label file, if it is there, can be read in a moment.

    Raises:
        UserError: It is far too large.
    """
    if os.path.isfile(path) and os.path.getsize(path) > _LARGEST_LABEL:
        raise UserError(f"'{path}' has {os.path.getsize(path) >> 20} MB, which no label file needs; mend or remove it.")


def _no_cache(*args: Any) -> Any:
    raise FileNotFoundError("Label caches are not read.")


def _unsaved(prefix: str, path: Path, content: dict[str, Any], version: str) -> None:
    content["version"] = version  # which Ultralytics expects in it from here on


class _Uncached:
    """A mixin before a dataset of Ultralytics that reads label files."""

    def get_img_files(self, img_path: str | list[str] | tuple[str, ...]) -> list[str]:
        """Also takes a tuple of image files, as they are."""
        return list(img_path) if isinstance(img_path, tuple) else super().get_img_files(img_path)

    def get_cache_hash(self) -> str:
        """Nothing is kept that would have to be told apart."""
        return ""

    def _load_or_scan_cache(self, cache_path: Path, cache_hash: str) -> tuple[dict[str, Any], bool]:
        return self.cache_labels(cache_path), False

    def cache_labels(self, path: Path = Path("labels")) -> dict[str, Any]:
        """Read all labels; whether there must be some, the trainer knows (see `OwnData.build_dataset`)."""
        for file in self.label_files:
            check_label(file)
        augment, self.augment = self.augment, False  # for training Ultralytics wants labels
        try:
            found = rebound(super().cache_labels, save_dataset_cache_file=_unsaved)(path)
        finally:
            self.augment = augment
        if not found["labels"]:
            why = f": {plain(found['msgs'][0])}" if found["msgs"] else ""
            raise UserError(f"None of the {len(self.im_files)} images can be read together with its labels{why}.")
        return found

    def verify_args(self) -> tuple[Callable[[tuple], Any], Any]:
        """Ultralytics' own, with a look at images that leaves them as they are."""
        verify, arguments = super().verify_args()
        return rebound(verify, check_image=_check_image), arguments

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        """Ultralytics' own, which reads, rewrites or removes `image.npy` only where the user asked for cache=disk."""
        if self.cache != "disk":
            self.npy_files[i] = Path(self.im_files[i], "none")  # nothing is under a file
        return super().load_image(i, *args, **kwargs)


class YOLODataset(_Uncached, stock.YOLODataset):
    """Images with label files."""


class YOLOMultiModalDataset(_Uncached, stock.YOLOMultiModalDataset):
    """The same with the names of classes as texts, for YOLO-World and YOLOE."""


class DepthDataset(_Uncached, stock.DepthDataset):
    """Images with depth maps."""


class SemanticDataset(_Uncached, stock.SemanticDataset):
    """Images with masks."""


class PolygonSemanticDataset(_Uncached, stock.PolygonSemanticDataset):
    """Images with polygons that become masks."""


class RTDETRDataset(_Uncached, StockRTDETRDataset):
    """Images with label files, for RT-DETR."""


class ClassificationDataset(stock.ClassificationDataset):
    """Images in a folder per class."""

    def verify_images(self) -> list[tuple]:
        """Look at all images."""
        return rebound(
            super().verify_images,
            load_dataset_cache_file=_no_cache,
            save_dataset_cache_file=_unsaved,
            verify_image=readable_image,
            get_hash=lambda paths: "",
        )()


BUILDERS: dict[str, Any] = {
    "build_yolo_dataset": rebound(
        build.build_yolo_dataset,
        YOLODataset=YOLODataset,
        YOLOMultiModalDataset=YOLOMultiModalDataset,
        DepthDataset=DepthDataset,
        SemanticDataset=SemanticDataset,
        PolygonSemanticDataset=PolygonSemanticDataset,
    ),
    "ClassificationDataset": ClassificationDataset,
    "RTDETRDataset": RTDETRDataset,
}
"""What Ultralytics' trainers, validators and exporter build datasets with, by the name under which they look it up."""


def build_dataset(method: Callable[..., Dataset], *args: Any, **kwargs: Any) -> Dataset:
    """Have a `build_dataset` of Ultralytics' trainers and validators build one of these datasets.

    Raises:
        UserError: The images or labels cannot be used.
        LookupError: It builds datasets in a way that is not known here.
    """
    used = [name for name in BUILDERS if name in method.__func__.__code__.co_names]
    if not used:
        raise LookupError(f"{method.__qualname__} builds its dataset by none of {', '.join(BUILDERS)}.")
    try:
        return rebound(method, **{name: BUILDERS[name] for name in used})(*args, **kwargs)
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        source = args[0] if args else kwargs.get("img_path")
        said = plain(error).partition(" See http")[0].rstrip(". ")
        raise UserError(f"The images and labels of '{_shown(source)}' cannot be used: {said}.") from error


def _shown(source: Any) -> str:
    """A source of images in a sentence: the first of several."""
    return str(source[0] if isinstance(source, (list, tuple)) and source else source)
