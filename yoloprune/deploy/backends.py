"""What runs an exported network: one call each for loading and running, whatever the runtime."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from yoloprune.errors import UserError, did_you_mean

from .formats import check_packages, format_of, suffix

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "BACKENDS",
    "Backend",
    "Run",
    "backend_of",
    "check_backend",
    "compiled",
    "default_precision",
    "interleaved",
    "ncnn_net",
    "of_onnx",
    "onnx_session",
    "opened",
    "processor",
    "version",
]

Run: TypeAlias = "Callable[[np.ndarray], list[np.ndarray]]"
"""Runs once: images, float32 (batch, channels, height, width), to the output arrays."""


class Backend(NamedTuple):
    """A runtime.

    Attributes:
        name: What it is called on the command line.
        format: Ultralytics' export format that it loads; None: the network itself.
        package: Python package that it needs.
        precisions: In which it can run what is exported here; the first is the usual one.
        layers: Whether single convolutions are timed in it, which a target in time needs.
    """

    name: str
    format: str | None
    package: str
    precisions: tuple[str, ...]
    layers: bool = True


BACKENDS = MappingProxyType(
    {
        backend.name: backend
        for backend in (
            Backend("onnxruntime", "onnx", "onnxruntime", ("f32", "f16", "int8")),
            Backend("openvino", "openvino", "openvino", ("f32", "bf16", "int8")),
            Backend("ncnn", "ncnn", "ncnn", ("f32", "f16")),
            Backend("torch", None, "torch", ("f32", "f16", "bf16")),
            Backend("tensorrt", "engine", "tensorrt", ("f32", "f16", "int8"), layers=False),  # seconds to build each
        )
    }
)

_ALSO_CALLED = {
    "onnx": "onnxruntime",
    "ort": "onnxruntime",
    "trt": "tensorrt",
    "engine": "tensorrt",
    "pytorch": "torch",
}


def check_backend(name: str, *, layers: bool = False) -> str:
    """Return the name of a backend that this machine has, given that name or another usual one.

    Args:
        name: The name.
        layers: Whether single layers are to be timed in it.

    Raises:
        UserError: It is unknown, times no single layers, or its package is not installed.
    """
    name = _ALSO_CALLED.get(name.lower(), name.lower())
    known = [backend.name for backend in BACKENDS.values() if backend.layers or not layers]
    if name not in BACKENDS:
        raise UserError(f"Unknown backend {name!r}{did_you_mean(name, known)} ({', '.join(known)}).")
    backend = BACKENDS[name]
    if layers and not backend.layers:
        raise UserError(
            f"{name} times no single layers, so nothing is pruned to a time in it; give --target-gflops, or "
            f"{', '.join(known[:-1])} or {known[-1]} as --backend, and time engines with: "
            f"yoloprune bench WEIGHTS pruned.pt --backend {name}"
        )
    check_packages(f"The backend {name}", (backend.package,), backend.format)
    return name


def backend_of(path: Path) -> str:
    """The backend that runs an exported file.

    Raises:
        UserError: None here does.
    """
    format = format_of(path)
    for backend in BACKENDS.values():
        if backend.format and backend.format == format:
            return check_backend(backend.name)
    endings = ", ".join(suffix(backend.format) for backend in BACKENDS.values() if backend.format)
    raise UserError(f"'{path}' is neither a checkpoint (.pt) nor an export that is timed here ({endings}).")


def version(name: str) -> str:
    """Version of a backend's package."""
    return metadata.version(BACKENDS[name].package)


def processor() -> str:
    """What this machine's processor is called."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def default_precision(format: str) -> str:
    """What an export that holds float32 is run in by its runtime on this machine: "f32", "f16" or "bf16"."""
    if format == "ncnn":
        return "f16"  # weights and features are stored so
    if format != "openvino":
        return "f32"
    import openvino

    return openvino.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").to_string()


def opened(path: Path, name: str, *, threads: int | None = None, precision: str | None = None) -> Run:
    """Load an exported file or folder.

    Args:
        path: What Ultralytics' exporter wrote in the backend's format.
        name: Name of a backend with a format.
        threads: Threads to run on; None: what the backend chooses.
        precision: "f32", or OpenVINO's "f16" and "bf16"; None: what OpenVINO and ncnn choose for this processor. The
            other backends run in the precision that the file has.

    Raises:
        UserError: The backend cannot load it.
    """
    loaders: dict[str, Callable[[], Run]] = {
        "onnxruntime": lambda: _onnxruntime(str(path), threads),
        "openvino": lambda: _openvino(str(next(path.glob("*.xml"))), threads, precision),
        "ncnn": lambda: _ncnn(path / "model.ncnn.param", path / "model.ncnn.bin", threads, precision),
        "tensorrt": lambda: _tensorrt(path.read_bytes()),
    }
    try:
        return loaders[name]()
    except UserError:
        raise
    except Exception as e:  # the runtimes' exceptions have no common base
        raise UserError(f"{name} cannot load '{path}': {str(e).splitlines()[0] if str(e) else type(e).__name__}") from e


def of_onnx(content: bytes, name: str, *, threads: int | None = None, precision: str | None = None) -> Run:
    """Load an ONNX model from memory, in ONNX Runtime or OpenVINO; see `opened`.

    Raises:
        UserError: The backend reads no ONNX model.
    """
    if name == "onnxruntime":
        return _onnxruntime(content, threads)
    if name == "openvino":
        return _openvino(content, threads, precision)
    raise UserError(f"{name} cannot time single layers here; prune for onnxruntime, openvino, ncnn or torch.")


def compiled(network: Any, *, device: Any = "cpu", dynamo: bool = False) -> Run:
    """A PyTorch network as a run; its output is not copied back.

    Args:
        network: A module in evaluation mode.
        device: Where it runs.
        dynamo: Through `torch.compile`.
    """
    import torch

    from yoloprune.devices import synchronise

    place = torch.device(device)
    network = network.to(place)
    kind = next(network.parameters()).dtype
    call = torch.compile(network) if dynamo else network
    held: dict[tuple[int, ...], torch.Tensor] = {}

    def run(images: np.ndarray) -> list[np.ndarray]:
        given = held.get(images.shape)
        if given is None:  # as in a pipeline that decodes on the device
            given = held[images.shape] = torch.from_numpy(images).to(place, kind)
        with torch.inference_mode():
            call(given)
        synchronise(place)
        return []

    return run


def ncnn_net(param: str, weights: bytes, threads: int | None) -> Run:
    """A network for ncnn from its two files' contents."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        (at / "net.param").write_text(param, encoding="utf-8")
        (at / "net.bin").write_bytes(weights)
        return _ncnn(at / "net.param", at / "net.bin", threads)


def onnx_session(model: str | bytes, threads: int | None, **settings: Any) -> tuple[Any, Run]:
    """A session of ONNX Runtime on the CPU, and a run in it.

    Args:
        model: A file, or its content.
        threads: Threads to run on; None or 0: what ONNX Runtime chooses.
        settings: Further attributes of its `SessionOptions`.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    for name, value in settings.items():
        setattr(options, name, value)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    kind = np.float16 if "float16" in given.type else np.float32
    return session, lambda images: session.run(None, {given.name: images.astype(kind, copy=False)})


def _onnxruntime(model: str | bytes, threads: int | None) -> Run:
    return onnx_session(model, threads)[1]


def _openvino(model: str | bytes, threads: int | None, precision: str | None) -> Run:
    import openvino

    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    if precision:
        config["INFERENCE_PRECISION_HINT"] = precision
    core = openvino.Core()
    request = core.compile_model(core.read_model(model), "CPU", config).create_infer_request()
    return lambda images: list(request.infer([images], share_inputs=True).values())


def _ncnn(param: Path, weights: Path, threads: int | None, precision: str | None = None) -> Run:
    import ncnn
    import numpy as np

    net = ncnn.Net()
    if precision == "f32":
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    if threads:
        net.opt.num_threads = threads
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise UserError(f"ncnn cannot load '{param.parent}'.")
    given, wanted = net.input_names()[0], list(net.output_names())

    def run(images: np.ndarray) -> list[np.ndarray]:
        found: list[list[np.ndarray]] = []
        for image in images:  # ncnn has no batches
            with net.create_extractor() as extractor:
                extractor.input(given, ncnn.Mat(image).clone())
                found.append([np.array(extractor.extract(name)[1]) for name in wanted])
        return [np.stack(each) for each in zip(*found, strict=True)]

    return run


def _tensorrt(content: bytes) -> Run:
    import tensorrt
    import torch

    if content[4:5] == b"{":  # Ultralytics writes the length of its metadata, and these, before the engine
        content = content[4 + int.from_bytes(content[:4], "little") :]
    engine = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING)).deserialize_cuda_engine(content)
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]

    def run(images: np.ndarray) -> list[np.ndarray]:
        held = {}
        for name in names:
            kind = torch.float16 if engine.get_tensor_dtype(name) == tensorrt.DataType.HALF else torch.float32
            if name in inputs:
                context.set_input_shape(name, images.shape)
                held[name] = torch.from_numpy(images).to("cuda", kind)
            else:
                held[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=kind, device="cuda")
            context.set_tensor_address(name, held[name].data_ptr())
        stream = torch.cuda.current_stream()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return [held[name].float().cpu().numpy() for name in names if name not in inputs]

    return run


def interleaved(
    calls: Sequence[Callable[[], Any]],
    *,
    seconds: float = 4.0,
    least: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of each call in each round, (calls, rounds), after a warm-up.

    They take turns, so that what else the machine does affects all equally.

    Args:
        calls: What to time.
        seconds: About how long to measure.
        least: Rounds at least.
        clock: What tells the time, in seconds.
    """
    for _ in range(3):
        for call in calls:
            call()
    rounds: list[list[float]] = []
    began = time.perf_counter()
    while len(rounds) < least or time.perf_counter() - began < seconds:
        times = []
        for call in calls:
            start = clock()
            call()
            times.append(1000 * (clock() - start))
        rounds.append(times)
    return [list(each) for each in zip(*rounds, strict=True)]
