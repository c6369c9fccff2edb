"""Ultralytics' export formats: names, file names and what they need. Imports nothing slow."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from yoloprune.errors import UserError, did_you_mean

__all__ = ["STOCK", "SUFFIXES", "check_can_export", "check_format", "export_path", "suffix"]

STOCK = "stock"

SUFFIXES = {
    "torchscript": ".torchscript",
    "onnx": ".onnx",
    "openvino": "_openvino_model",
    "engine": ".engine",
    "coreml": ".mlpackage",
    "coreai": ".aimodel",
    "saved_model": "_saved_model",
    "pb": ".pb",
    "edgetpu": "_edgetpu.tflite",
    "litert": ".tflite",
    "paddle": "_paddle_model",
    "mnn": ".mnn",
    "ncnn": "_ncnn_model",
    "imx": "_imx_model",
    "rknn": "_rknn_model",
    "executorch": "_executorch_model",
    "axelera": "_axelera_model",
    "deepx": "_deepx_model",
    "qnn": "_qnn.onnx",
    "hailo": "_hailo_model",
    "ascend": "_ascend_model",
    "xilinx": "_xilinx_model",
    STOCK: "_stock.pt",
}
"""How the file, or folder, of each format ends, as Ultralytics' `export_formats` has it, which takes seconds to ask.

The last one is our own: a checkpoint that stock Ultralytics trains at the pruned widths.
"""

_ALSO_CALLED = {"trt": "engine", "tensorrt": "engine", "tflite": "litert"}

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


def check_format(name: str) -> str:
    """Return Ultralytics' name of an export format, given that name or another usual one, such as "tensorrt".

    Raises:
        UserError: Ultralytics has no such format.
    """
    name = _ALSO_CALLED.get(name.lower(), name)
    if name not in SUFFIXES:
        raise UserError(f"Unknown export format {name!r}{did_you_mean(name, SUFFIXES)} ({', '.join(SUFFIXES)}).")
    return name


def suffix(name: str) -> str:
    """How the file, or folder, of an export format ends.

    Raises:
        UserError: Ultralytics has no such format.
    """
    return SUFFIXES[check_format(name)]


def check_can_export(name: str) -> None:
    """Check that this machine has what a format needs.

    Raises:
        UserError: A Python package or, for TensorRT, a GPU is missing.
    """
    if name == "engine" and not _has_gpu():
        raise UserError("Export to engine needs an NVIDIA GPU, which this machine lacks; choose another --format.")
    for package in _PACKAGES.get(name, ()):
        if find_spec(package) is None:
            raise UserError(
                f"Export to {name} needs the Python package {package!r}; install it, or choose another --format."
            )


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def export_path(weights: Path, name: str) -> Path:
    """Where the export of `weights` goes: beside it, under the name that Ultralytics would give."""
    return weights.with_name(weights.stem + suffix(name))
