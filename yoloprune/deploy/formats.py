"""Ultralytics' export formats: names, file names and what they need. Imports nothing slow."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from yoloprune.errors import UserError, did_you_mean

__all__ = [
    "CHECKED",
    "STOCK",
    "SUFFIXES",
    "check_can_export",
    "check_format",
    "check_packages",
    "export_path",
    "format_of",
    "has_gpu",
    "remedy",
    "suffix",
]

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
    "litert": ("litert_torch", "ai_edge_litert"),
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

_EXTRAS = ("openvino", "ncnn", "litert")  # extras of yoloprune, which are called as the formats are

CHECKED = frozenset(
    ("torchscript", "onnx", "openvino", "engine", "litert", "mnn", "ncnn", "paddle", "executorch", "saved_model", "pb")
)
"""Formats that run where they are exported; the others need a device or a system of their own."""


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


def format_of(path: Path) -> str | None:
    """The format that an export's name tells of, or None."""
    return next((name for name, ending in SUFFIXES.items() if path.name.endswith(ending)), None)


def check_can_export(name: str) -> None:
    """Check that this machine has what a format needs.

    Raises:
        UserError: A Python package or, for TensorRT, a GPU is missing.
    """
    if name == "engine" and not has_gpu():
        raise UserError(
            "Export to engine needs an NVIDIA GPU, which this machine lacks; choose another --format, or have the ONNX "
            "file for it made and checked by yoloprune export --format engine."
        )
    check_packages(f"Export to {name}", _PACKAGES.get(name, ()), name)


def check_packages(what: str, packages: Iterable[str], format: str | None) -> None:
    """Check that Python packages are installed.

    Args:
        what: What needs them, for the message.
        packages: Their names.
        format: The export format that it is about, if it is about one.

    Raises:
        UserError: One is missing.
    """
    for package in packages:
        if find_spec(package) is None:
            raise UserError(f"{what} needs the Python package {package!r}; {remedy(format)}.")


def remedy(format: str | None) -> str:
    """What installs the packages of a format."""
    return f"run: pip install 'yoloprune[{format}]'" if format in _EXTRAS else "install it first"


def has_gpu() -> bool:
    """Whether there is an NVIDIA GPU."""
    import torch

    return torch.cuda.is_available()


def export_path(weights: Path, name: str) -> Path:
    """Where the export of `weights` goes: beside it, under the name that Ultralytics would give."""
    return weights.with_name(weights.stem + suffix(name))
