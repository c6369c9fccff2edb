"""Export a model to the path that was asked for, and compare an ONNX file with the network it came from."""

from __future__ import annotations

import ast
import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics
from torch import Tensor
from ultralytics.engine import exporter
from ultralytics.engine.exporter import Exporter, export_formats
from ultralytics.utils.torch_utils import is_qat

from yoloprune.deploy.formats import STOCK, remedy, suffix
from yoloprune.errors import UserError
from yoloprune.files import workplace
from yoloprune.graph.tracing.internals import newest_opset
from yoloprune.replaced import rebound, replaced

from . import checkpoints, outputs
from .datasets import check_data
from .guard import check_options, offline, plain, quiet
from .model import with_network
from .portable import portable
from .uncached import BUILDERS

__all__ = ["export", "onnx_difference", "run_onnx"]


def export(
    yolo: ultralytics.YOLO,
    path: str | Path,
    *,
    format: str = "onnx",
    imgsz: int | list[int] = 640,
    verbose: bool = False,
    **options: Any,
) -> Path:
    """Export through Ultralytics' exporter, or, as "stock", to a checkpoint that stock Ultralytics trains.

    Args:
        yolo: The model; it is not changed.
        path: Where the export goes, in the place of an earlier one once it is complete. It ends as Ultralytics' files
            of that format do ("….onnx", "….engine", "…_openvino_model"), because that is how Ultralytics recognises
            them.
        format: Ultralytics' name of a format, "onnx", "engine", "openvino", "torchscript", …, or "stock".
        imgsz: Image size in pixels, or height and width.
        verbose: Show Ultralytics' log.
        options: Any other option of Ultralytics' `export`, e.g. `dynamic`, `simplify`, `opset`, `quantize`, `device`.

    Returns:
        `path`.

    Raises:
        UserError: The format or an option is unknown, a package is missing (nothing is installed), or Ultralytics
            fails, or the network cannot be said in stock rows; what is at `path` then stays.
    """
    path = Path(path)
    if not path.name.endswith(ending := suffix(format)):
        raise UserError(f"An export to {format} ends in '{ending}', which '{path}' does not.")
    if format == STOCK:
        return _write_stock(yolo, path, options)
    check_options(options)
    _check_values(format, options, ranges=is_qat(yolo.model))
    if options.get("data"):
        check_data(options["data"], yolo.task, split=options.get("split") or "val", labels=False, network=yolo.model)
    network = copy.copy(yolo.model)  # shallow: the exporter copies deeply, and names its files after `pt_path`
    args = {"batch": 1, "device": None, **options, "format": format, "imgsz": imgsz, "verbose": verbose}
    path.parent.mkdir(parents=True, exist_ok=True)
    with workplace(path.parent) as folder:  # beside `path`, so that a rename suffices
        network.pt_path = str(folder / "model.pt")
        try:
            # without the settings: the exporter notes in the user's file which of its hints it has shown
            with quiet(verbose), offline(), replaced(exporter, "SETTINGS", {}):
                written = _Exporter(overrides={**args, "mode": "export"}, _callbacks=yolo.callbacks)(model=network)
        except UserError:
            raise
        except ImportError as e:
            package = e.name or plain(e)
            raise UserError(f"Export to {format} needs the Python package '{package}'; {remedy(format)}.") from None
        except Exception as e:  # the exporter refuses options by several, and converters raise anything
            raise UserError(f"Export to {format} is not possible: {plain(e) or type(e).__name__}") from e
        if path.is_dir():  # which no rename replaces
            os.replace(path, folder / "old")
        os.replace(written, path)
    return path


def onnx_difference(yolo: ultralytics.YOLO, onnx_path: str | Path) -> float:
    """Compare the network in torch, on the CPU and in float32, with its ONNX file in ONNX Runtime.

    Both get the same photograph (Ultralytics' `bus.jpg`), at the size and as often as the file was exported for. The
    result is the largest relative difference of any output value; see `outputs.furthest`.

    Args:
        yolo: The model that was exported.
        onnx_path: The ONNX file, as `export` wrote it, without `nms`.

    Raises:
        UserError: ONNX Runtime is not installed, or cannot load the file.
    """
    network = outputs.deployed(yolo.model)
    image, actual = run_onnx(onnx_path, network.yaml.get("channels", 3))
    return outputs.furthest(network, outputs.run(network, image), actual)


def run_onnx(onnx_path: str | Path, channels: int) -> tuple[Tensor, list[Tensor]]:
    """A photograph as an exported file takes it, and what ONNX Runtime makes of it.

    Args:
        onnx_path: The ONNX file, as `export` wrote it.
        channels: Image channels.

    Raises:
        UserError: ONNX Runtime is not installed, or cannot load the file.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("Checking an ONNX file needs the Python package 'onnxruntime'; install it first.") from None
    try:
        session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's exceptions have no common base
        raise UserError(f"ONNX Runtime cannot load '{onnx_path}': {plain(e)}") from None
    exported = session.get_modelmeta().custom_metadata_map  # the input's own shape is open where its axes are dynamic
    height, width = ast.literal_eval(exported["imgsz"])
    photograph = outputs.photograph(height, width, channels)
    image = photograph.expand(int(exported["batch"]), -1, -1, -1)
    given = session.get_inputs()[0]
    actual = session.run(None, {given.name: image.numpy().astype("float16" if "float16" in given.type else "float32")})
    return image, [torch.from_numpy(np.asarray(output, dtype=np.float32)) for output in actual]


def _write_stock(yolo: ultralytics.YOLO, path: Path, options: dict[str, Any]) -> Path:
    """Write the checkpoint whose rows say the pruned widths; see `portable`."""
    if options:
        raise UserError(f"An export to {STOCK} is a checkpoint and takes no {next(iter(options))}=; leave it out.")
    network = portable(yolo.model)
    exact = all(torch.equal(t, t.half().to(t)) for t in network.state_dict().values())
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save(with_network(yolo, network), path, float32=not exact)
    return path


class _Exporter(Exporter):
    """Ultralytics' exporter, which calibrates on data that are checked, without downloads and label caches."""

    def get_int8_calibration_dataloader(self, prefix: str = "") -> Any:
        """Ultralytics' own, with `check_data` for its checks."""

        def checked(data: str, split: str) -> dict[str, Any]:
            return check_data(data, self.model.task, split=split, labels=False, network=self.model)

        return rebound(
            super().get_int8_calibration_dataloader,
            check_cls_dataset=checked,
            check_det_dataset=checked,
            **{name: BUILDERS[name] for name in ("build_yolo_dataset", "ClassificationDataset")},
        )(prefix)


def _check_values(format: str, options: dict[str, Any], *, ranges: bool) -> None:
    """Refuse values that Ultralytics takes and then stumbles over; `ranges`: whether the network has learnt INT8's."""
    batch, opset = options.get("batch", 1), options.get("opset") or 0
    if not isinstance(batch, int) or batch < 1:
        raise UserError(f"batch={batch} is no number of images; give 1 or more.")
    newest = newest_opset()
    if opset > newest:  # torch prints its whole graph before it fails
        raise UserError(f"opset={opset} is newer than this torch can write; the newest is {newest}.")
    formats = export_formats()
    known = dict(zip(formats["Argument"], formats["Arguments"], strict=True))[format]
    if options.get("quantize") in (8, "w8a16") and "data" in known and not (ranges or options.get("data")):
        raise UserError(f"quantize={options['quantize']} needs images to measure ranges on; give a data YAML as data=.")
