"""What can be told of an ONNX file without TensorRT: whether it takes it, and the command that makes an engine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import onnx

__all__ = ["hindrances", "trtexec"]

_OPSETS = (9, 20)  # of TensorRT 10
# What detectors are made of, of the operators that TensorRT 10 takes.
_TAKEN = frozenset(
    (
        "Abs", "Add", "And", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Clip",
        "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "CumSum", "DequantizeLinear",
        "Div", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements",
        "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual",
        "GridSample", "HardSigmoid", "HardSwish", "Identity", "If", "InstanceNormalization",
        "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "MatMul", "Max",
        "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "NonMaxSuppression", "NonZero", "Not", "OneHot",
        "Or", "PRelu", "Pad", "Pow", "QuantizeLinear", "Range", "Reciprocal", "ReduceL2", "ReduceMax",
        "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Resize", "Round",
        "ScatterElements", "ScatterND", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax",
        "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "TopK", "Transpose", "Trilu",
        "Unsqueeze", "Where", "Xor",
    )
)  # fmt: skip


def hindrances(path: Path) -> list[str]:
    """What of an ONNX file may keep TensorRT from making an engine, a sentence each; empty if nothing is known."""
    model = onnx.load(str(path), load_external_data=False)
    found = []
    for given in model.graph.input:
        shape = [d.dim_value or d.dim_param or "?" for d in given.type.tensor_type.shape.dim]
        if not all(isinstance(n, int) for n in shape):
            text = "×".join(map(str, shape))
            found.append(
                f"the input {given.name!r} has the open shape {text}, for which a range is named below; leave dynamic= "
                "out for a faster engine."
            )
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if not _OPSETS[0] <= opset <= _OPSETS[1]:
        found.append(f"opset {opset} is outside {_OPSETS[0]} to {_OPSETS[1]}, which TensorRT 10 takes; give opset=17.")
    strange = sorted({node.op_type for node in model.graph.node} - _TAKEN)
    if strange:
        found.append(f"the operators {', '.join(strange)} are not known to be taken by TensorRT 10; try it there.")
    return found


def trtexec(path: Path, imgsz: int, quantize: Any = None) -> str:
    """The command that makes an engine of an ONNX file where there is a GPU.

    Args:
        path: The ONNX file.
        imgsz: Image size in px, the usual one where the shape is open.
        quantize: 16 for float16, as Ultralytics has it.
    """
    words = ["trtexec", f"--onnx={path}", f"--saveEngine={path.with_suffix('.engine')}"]
    words += ["--fp16"] if quantize == 16 else []
    given = onnx.load(str(path), load_external_data=False).graph.input[0]
    dims = given.type.tensor_type.shape.dim
    if not all(d.dim_value for d in dims):
        channels = dims[1].dim_value or 3
        for name, batch in (("min", 1), ("opt", 1), ("max", 16)):
            words.append(f"--{name}Shapes={given.name}:{batch}x{channels}x{imgsz}x{imgsz}")
    return shlex.join(words)
