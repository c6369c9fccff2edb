"""What convolutions cost on a device: measured over a grid of widths, kept as a file, interpolated between."""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from yoloprune.calibration import call_order
from yoloprune.errors import UserError
from yoloprune.files import atomic, check_regular

from .backends import check_backend, compiled, ncnn_net, of_onnx, processor, version

__all__ = ["Convolution", "CostTable", "Device", "Shape", "cached", "clock_of", "convolutions", "measure"]

_ACTIVATIONS = ("SiLU", "ReLU", "LeakyReLU", "Hardswish")
_STEP = 8  # channels: the finest steps in which kernels have been seen to cost
_MOST_STEPS = 24  # along the outputs of one layer
_INPUT_SHARES = (0.25, 0.5, 0.75, 1.0)  # along the inputs costs are nearly straight
_LARGEST = 64e6  # bytes of a table
_LEAST_RUNS, _LEAST_SECONDS = 8, 0.02
_MAKE = "yoloprune profile WEIGHTS -o FILE"


class Device(NamedTuple):
    """Where and how a table was measured: what a figure of it holds for."""

    processor: str
    backend: str
    version: str
    threads: int | None
    precision: str | None

    @classmethod
    def here(cls, backend: str, threads: int | None = None, precision: str | None = None) -> Device:
        """This machine, with a backend that it has.

        Raises:
            UserError: It is unknown or not installed.
        """
        name = check_backend(backend)
        return cls(processor(), name, version(name), threads, precision)

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' * (self.threads != 1)}" if self.threads else ""
        precision = f", {self.precision}" if self.precision else ""
        return f"{self.backend} {self.version}{precision}{threads} on {self.processor}"


def clock_of(device: Device, place: torch.device | str = "cpu") -> Callable[[], float]:
    """The clock that tells what a network costs on a device, in seconds.

    On one thread of a processor that is the time of this process, which stands still while other work has the core; on
    several, which wait for each other, or on a GPU it is the time of day.

    Args:
        device: Where it runs.
        place: Where the backend torch runs.
    """
    on_processor = device.backend != "torch" or torch.device(place).type == "cpu"
    return time.process_time if device.threads == 1 and on_processor else time.perf_counter


class Shape(NamedTuple):
    """Everything of a convolution but its widths.

    Attributes:
        kernel, stride, padding, dilation: As `Conv2d` has them.
        groups: 1; another number; or 0, if each channel is a group of its own.
        height, width: Of its input, in px.
        activation: Class name of the activation behind it, or "".
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    height: int
    width: int
    activation: str


class Convolution(NamedTuple):
    """One convolution of a network: its name, its shape, its widths."""

    name: str
    shape: Shape
    inputs: int
    outputs: int


@dataclass
class Grid:
    """Milliseconds of one shape, float64 (inputs, outputs); never falling along either.

    Attributes:
        inputs, outputs: Widths that were measured, rising; `inputs` is [0] where the two are the same number.
        ms: The figures.
    """

    inputs: list[int]
    outputs: list[int]
    ms: list[list[float]]

    def at(self, inputs: float, outputs: float) -> float:
        """Milliseconds for these widths, linear between measured ones and towards 0 below them."""
        i, a = _between(self.inputs, inputs)
        j, b = _between(self.outputs, outputs)
        low, high = self.ms[i], self.ms[min(i + 1, len(self.inputs) - 1)]
        k = min(j + 1, len(self.outputs) - 1)
        return (1 - a) * ((1 - b) * low[j] + b * low[k]) + a * ((1 - b) * high[j] + b * high[k])


def _between(points: list[int], value: float) -> tuple[int, float]:
    """The interval that a value lies in, and how far along it, 0 … 1; the last point beyond the last."""
    i = max(bisect.bisect_right(points, value) - 1, 0)
    if i >= len(points) - 1:
        return len(points) - 1, 0.0
    return i, min(max((value - points[i]) / (points[i + 1] - points[i]), 0.0), 1.0)


@dataclass
class CostTable:
    """Milliseconds of convolutions on a device.

    Attributes:
        device: Where they were measured.
        grids: By shape.
        networks: Whole networks that were measured there: parameters, image size in px, milliseconds.
    """

    device: Device
    grids: dict[Shape, Grid] = field(default_factory=dict)
    networks: list[tuple[int, int, float]] = field(default_factory=list)

    def ms(self, shape: Shape, inputs: float, outputs: float) -> float:
        """Milliseconds of a convolution.

        Raises:
            UserError: Nothing of this shape was measured.
        """
        if shape not in self.grids:
            raise UserError(
                f"The latency table has no convolution of {shape.kernel[0]}x{shape.kernel[1]} on {shape.height}x"
                f"{shape.width} px; measure this network at this image size: yoloprune profile WEIGHTS --imgsz N"
            )
        return self.grids[shape].at(0 if shape.groups == 0 else inputs, outputs)

    def whole(self, params: int, imgsz: int) -> float | None:
        """Milliseconds of a network that was measured as a whole, if it was."""
        return next((ms for p, size, ms in reversed(self.networks) if (p, size) == (params, imgsz)), None)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        rows = [{**shape._asdict(), **asdict(grid)} for shape, grid in self.grids.items()]
        content = {"device": self.device._asdict(), "networks": self.networks, "convolutions": rows}
        with atomic(path) as tmp:
            tmp.write_text(json.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> CostTable:
        """Read what `save` wrote.

        Raises:
            UserError: It is missing, or no such file.
        """
        try:
            check_regular(path)
            if path.stat().st_size > _LARGEST:
                raise ValueError("it is too large")
            content = json.loads(path.read_text(encoding="utf-8"))
            table = cls(_device(content["device"]), networks=[_network(*row) for row in content["networks"]])
            for row in content["convolutions"]:
                grid = Grid(*(row.pop(name) for name in ("inputs", "outputs", "ms")))
                _check_grid(grid)
                pairs = {name: tuple(row[name]) for name in ("kernel", "stride", "padding", "dilation")}
                table.grids[_shape(**{**row, **pairs})] = grid
        except FileNotFoundError:
            raise UserError(
                f"There is no latency table '{path}'; make one with: yoloprune profile WEIGHTS -o {path}"
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
            raise UserError(
                f"'{path}' is no latency table ({e}); make one with: yoloprune profile WEIGHTS -o FILE"
            ) from e
        return table


def _device(content: dict[str, Any]) -> Device:
    device = Device(**content)
    words = (device.processor, device.backend, device.version, device.precision or "")
    if not all(isinstance(word, str) for word in words) or not (device.threads is None or _whole(device.threads)):
        raise ValueError("a device that is none")
    return device


def _network(params: int, imgsz: int, ms: float) -> tuple[int, int, float]:
    if not (_whole(params) and _whole(imgsz) and 0 < ms < inf):
        raise ValueError("a network that takes no time that there is")
    return params, imgsz, float(ms)


def _shape(**row: Any) -> Shape:
    shape = Shape(**row)
    pairs = (*shape.kernel, *shape.stride, *shape.padding, *shape.dilation)
    if len(pairs) != 8 or not all(_whole(n, 0) for n in (*pairs, shape.groups, shape.height, shape.width)):
        raise ValueError("a convolution that is none")
    return shape


def _check_grid(grid: Grid) -> None:
    for widths in (grid.inputs, grid.outputs):
        rising = all(a < b for a, b in itertools.pairwise(widths))
        if not widths or not rising or not all(_whole(width, 0) for width in widths):
            raise ValueError("widths that do not rise")
    values = np.array(grid.ms, np.float64)
    if values.shape != (len(grid.inputs), len(grid.outputs)) or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("figures that fit no grid")


def _whole(value: Any, least: int = 1) -> bool:
    return type(value) is int and value >= least


def cached(device: Device) -> Path:
    """Where the table of a device is kept: in the user's cache folder."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(json.dumps(device).encode()).hexdigest()[:16]
    return root / "yoloprune" / "latency" / f"{device.backend}-{key}.json"


def convolutions(network: nn.Module, image: torch.Tensor) -> list[Convolution]:
    """The two-dimensional convolutions that a network calls on an image, in order.

    Args:
        network: The network, in evaluation mode.
        image: (1, channels, height, width).
    """
    layers = {name: module for name, module in network.named_modules() if type(module) is nn.Conv2d}
    sizes: list[tuple[str, tuple[int, int]]] = []

    def note(name: str, x: torch.Tensor) -> None:
        sizes.append((name, (x.shape[2], x.shape[3])))

    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
        for name, module in layers.items()
    ]
    try:
        order = call_order(network, layers, lambda: network(image))
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for name, (height, width) in sizes:
        of = layers[name]
        activation = type(order.activations[name]).__name__ if name in order.activations else ""
        depthwise = 1 < of.groups == of.in_channels == of.out_channels
        shape = Shape(
            of.kernel_size, of.stride, _padding(of), of.dilation, 0 if depthwise else of.groups, height, width,
            activation if activation in _ACTIVATIONS else "",
        )  # fmt: skip
        found.append(Convolution(name, shape, of.in_channels, of.out_channels))
    return found


def _padding(of: nn.Conv2d) -> tuple[int, int]:
    if isinstance(of.padding, str):
        (kh, kw), (dh, dw) = of.kernel_size, of.dilation
        return (0, 0) if of.padding == "valid" else (dh * (kh - 1) // 2, dw * (kw - 1) // 2)
    return of.padding


def measure(
    table: CostTable,
    wanted: Iterable[Convolution],
    *,
    tell: Callable[[int, int], None] = lambda done, total: None,
    keep: Path | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Measure what a table lacks of the convolutions that a network, or a narrower one, can have.

    Each figure is the least of several runs of one convolution with its activation, which is what the device does when
    nothing disturbs it. Costs are then made to rise with widths, as the plan's search requires.

    Args:
        table: The table; completed in place.
        wanted: Convolutions at their full widths.
        tell: Is told after each figure how many are done, and of how many.
        keep: Where to write the table after each shape, so that nothing is measured twice after an interruption.
        device: For the backend torch.
    """
    widest: dict[Shape, tuple[int, int]] = {}
    for conv in wanted:
        i, o = widest.get(conv.shape, (0, 0))
        widest[conv.shape] = (max(i, conv.inputs), max(o, conv.outputs))
    lacking = {}
    for shape, (i, o) in widest.items():
        grid = table.grids.get(shape)
        if grid is None or (grid.outputs[-1] < o) or (shape.groups != 0 and grid.inputs[-1] < i):
            lacking[shape] = (_input_widths(shape, i), _output_widths(shape, o))
    total, done = sum(len(i) * len(o) for i, o in lacking.values()), 0
    for shape, (inputs, outputs) in lacking.items():
        ms = np.zeros((len(inputs), len(outputs)))
        for row, i in enumerate(inputs):
            for column, o in enumerate(outputs):
                ms[row, column] = _milliseconds(table.device, shape, i or o, o, device)
                done += 1
                tell(done, total)
        ms = np.maximum.accumulate(np.maximum.accumulate(ms, 0), 1)
        table.grids[shape] = Grid(inputs, outputs, np.round(ms, 6).tolist())
        if keep is not None:
            keep.parent.mkdir(parents=True, exist_ok=True)
            table.save(keep)


def _input_widths(shape: Shape, widest: int) -> list[int]:
    if shape.groups == 0:
        return [0]
    step = _STEP * max(shape.groups, 1)
    if widest <= step:
        return [widest]
    return sorted({min(max(round(share * widest / step) * step, step), widest) for share in _INPUT_SHARES} | {widest})


def _output_widths(shape: Shape, widest: int) -> list[int]:
    step = _STEP * max(shape.groups, 1)
    step *= max(1, -(-widest // (step * _MOST_STEPS)))
    return [*range(step, widest, step), widest]


def _milliseconds(device: Device, shape: Shape, inputs: int, outputs: int, place: torch.device | str) -> float:
    """The least of some runs of one convolution."""
    image = np.random.default_rng(0).random((1, inputs, shape.height, shape.width), np.float32)
    groups = inputs if shape.groups == 0 else shape.groups
    settings: dict[str, Any] = {"threads": device.threads}
    if device.backend == "torch":
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, shape.kernel, shape.stride, shape.padding, shape.dilation, groups)
        ]
        if shape.activation:
            layers.append(getattr(nn, shape.activation)())
        run = compiled(nn.Sequential(*layers).eval(), device=place)
    elif device.backend == "ncnn":
        run = ncnn_net(*_for_ncnn(shape, inputs, outputs, groups), **settings)
    else:
        content = _for_onnx(shape, inputs, outputs, groups)
        run = of_onnx(content, device.backend, precision=device.precision, **settings)
    run(image)
    clock = clock_of(device, place)
    least, runs, began = float("inf"), 0, time.perf_counter()
    while runs < _LEAST_RUNS or time.perf_counter() - began < _LEAST_SECONDS:
        start = clock()
        run(image)
        least = min(least, clock() - start)
        runs += 1
    return 1000 * least


def _weights(shape: Shape, inputs: int, outputs: int, groups: int) -> np.ndarray:
    size = (outputs, inputs // groups, *shape.kernel)
    return np.random.default_rng(1).standard_normal(size).astype(np.float32) / 10


def _for_onnx(shape: Shape, inputs: int, outputs: int, groups: int) -> bytes:
    """One convolution and its activation as an ONNX model."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node(
            "Conv", ["x", "w", "b"], ["y"], kernel_shape=shape.kernel, strides=shape.stride,
            pads=[*shape.padding, *shape.padding], dilations=shape.dilation, group=groups,
        )
    ]  # fmt: skip
    last = "y"
    if shape.activation == "SiLU":
        nodes += [helper.make_node("Sigmoid", ["y"], ["s"]), helper.make_node("Mul", ["y", "s"], ["z"])]
        last = "z"
    elif shape.activation:
        kind, given = {
            "ReLU": ("Relu", {}), "LeakyReLU": ("LeakyRelu", {"alpha": 0.1}), "Hardswish": ("HardSwish", {}),
        }[shape.activation]  # fmt: skip
        nodes.append(helper.make_node(kind, ["y"], ["z"], **given))
        last = "z"
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, inputs, shape.height, shape.width])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(_weights(shape, inputs, outputs, groups), "w"),
            numpy_helper.from_array(np.zeros(outputs, np.float32), "b"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def _for_ncnn(shape: Shape, inputs: int, outputs: int, groups: int) -> tuple[str, bytes]:
    """One convolution and its activation as ncnn's two files."""
    weights = _weights(shape, inputs, outputs, groups)
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = shape.kernel, shape.stride, shape.padding, shape.dilation
    kind = "Convolution" if groups == 1 else "ConvolutionDepthWise"
    given = f"0={outputs} 1={kw} 11={kh} 2={dw} 12={dh} 3={sw} 13={sh} 4={pw} 14={ph} 5=1 6={weights.size}"
    given += f" 7={groups}" * (groups > 1)
    layers = ["Input in0 0 1 in0", f"{kind} conv 1 1 in0 y {given}"]
    activation = {"SiLU": "Swish", "ReLU": "ReLU", "LeakyReLU": "ReLU", "Hardswish": "HardSwish"}.get(shape.activation)
    if activation:
        slope = " 0=0.1" if shape.activation == "LeakyReLU" else ""
        layers.append(f"{activation} act 1 1 y z{slope}")
    param = "\n".join(["7767517", f"{len(layers)} {len(layers)}", *layers, ""])
    return param, b"\0\0\0\0" + weights.tobytes() + np.zeros(outputs, np.float32).tobytes()
