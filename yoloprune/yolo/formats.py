"""Ultralytics' export formats: names, file names and what they need."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from ultralytics.engine.exporter import export_formats

from yoloprune.errors import UserError, did_you_mean

__all__ = ["check_can_export", "check_format", "export_path", "suffix"]

_PACKAGES = {
    "openvino": ("openvino",),
    "engine": ("tensorrt",),
    "coreml": ("coremltools",),
    "coreai": ("coreai_torch",),
    "saved_model": ("tensorflow", "onnx2tf"),
    "pb": ("tensorflow", "onnx2tf"),
    "edgetpu": ("tensorflow", "onnx2tf"),
    "litert": ("litert_torch",),
    "paddle": ("paddle", "x2paddle"),
    "mnn": ("MNN",),
    "ncnn": ("ncnn", "pnnx"),
    "imx": ("model_compression_toolkit", "edgemdt_tpc", "edgemdt_cl"),
    "rknn": ("rknn",),
    "executorch": ("executorch",),
    "axelera": ("axelera",),
    "deepx": ("dx_com",),
    "qnn": ("onnxruntime_qnn",),
    "hailo": ("hailo_sdk_client",),
    "xilinx": ("quark",),
}
"""What Ultralytics imports for a format beyond what yoloprune itself needs."""


def _suffixes() -> dict[str, str]:
    table = export_formats()
    return {name: ending for name, ending in zip(table["Argument"], table["Suffix"], strict=True) if name != "-"}


def check_format(name: str) -> None:
    """Check the name of an export format.

    Raises:
        UserError: Ultralytics has no such format.
    """
    known = _suffixes()
    if name not in known:
        raise UserError(f"Unknown export format {name!r}{did_you_mean(name, known)} ({', '.join(known)}).")


def suffix(name: str) -> str:
    """How the file, or folder, of an export format ends.

    Raises:
        UserError: Ultralytics has no such format.
    """
    check_format(name)
    return _suffixes()[name]


def check_can_export(name: str) -> None:
    """Check that this machine has what a format needs.

    Raises:
        UserError: A Python package or, for TensorRT, a GPU is missing.
    """
    if name == "engine" and not torch.cuda.is_available():
        raise UserError("Export to engine needs an NVIDIA GPU, which this machine lacks; choose another --format.")
    for package in _PACKAGES.get(name, ()):
        if find_spec(package) is None:
            raise UserError(
                f"Export to {name} needs the Python package {package!r}; install it, or choose another --format."
            )


def export_path(weights: Path, name: str) -> Path:
    """Where the export of `weights` goes: beside it, under the name that Ultralytics would give."""
    return weights.with_name(weights.stem + suffix(name))
