"""What networks cost in the runtimes they are used in: time, processor time, memory, size, and what they find."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from yoloprune import detectors
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.paths import told_apart
from yoloprune.pipeline.data import choose_data, fitting_imgsz
from yoloprune.pipeline.metrics import named_metrics
from yoloprune.progress import Progress

from .backends import BACKENDS, backend_of, processor, version
from .formats import check_can_export, suffix

__all__ = ["Bench", "Case", "Row", "Wanted", "bench"]

_QUANTIZE = {"f16": 16, "int8": 8}
_HINTS = ("f32", "bf16")  # what OpenVINO and ncnn are told; int8 is in the file


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to measure.

    Attributes:
        backends: Names of backends for checkpoints; exported files run in their own.
        sizes: Image sizes in px; empty: what the weights were trained at.
        batches: Images per batch.
        precisions: "f32", "f16", "bf16" or "int8", where a backend has them.
        threads: Numbers of threads; 0: what the backend chooses.
        compile: Have torch compile its networks too.
        data: Data to measure accuracy on, and int8 ranges; None: no accuracy.
        device: Torch's device; None chooses.
        seconds: About how long to measure each backend.
        trust: Unpickle checkpoints without limits.
    """

    backends: Sequence[str] = ("onnxruntime",)
    sizes: Sequence[int] = ()
    batches: Sequence[int] = (1,)
    precisions: Sequence[str] = ("f32",)
    threads: Sequence[int] = (0,)
    compile: bool = False
    data: str | None = None
    device: str | None = None
    seconds: float = 4.0
    trust: bool = False


@dataclass(frozen=True)
class Case:
    """One network in one setting, as `bench_worker` takes it.

    Attributes:
        network: What the user gave.
        file: What is loaded.
        backend: Name of the backend.
        precision: What it runs in; "as exported" where only the file knows.
        hint: What the backend is told of that.
        imgsz: Height and width in px.
        batch: Images per batch.
        channels: Image channels.
        threads: Number of threads; 0: what the backend chooses.
        compile: Through `torch.compile`.
        device: Torch's device.
        trust: Unpickle without limits.
    """

    network: str
    file: str
    backend: str
    precision: str
    hint: str | None
    imgsz: tuple[int, int]
    batch: int
    channels: int
    threads: int
    compile: bool = False
    device: str | None = None
    trust: bool = False


@dataclass
class Row:
    """What a case costs.

    Attributes:
        network: What the user gave.
        backend: Name of the backend; "torch compiled" where torch compiles.
        version: Version of the backend's package.
        precision: What it ran in.
        imgsz: Height and width in px.
        batch: Images per batch.
        threads: Number of threads; 0: what the backend chose.
        ms: Median milliseconds of one batch.
        ms_quartiles: The quartiles of that.
        cpu_ms: Median processor milliseconds of one batch, of all threads.
        cpu_ms_quartiles: The quartiles of that.
        images_per_second: From `ms`.
        rounds: How often it was timed.
        megabytes: Size of the file or folder.
        peak_mb: The most memory, in MB, of a process that runs it alone; None where that cannot be asked.
        metrics: Accuracy on the data, if any were given.
    """

    network: str
    backend: str
    version: str
    precision: str
    imgsz: tuple[int, int]
    batch: int
    threads: int
    ms: float
    ms_quartiles: tuple[float, float]
    cpu_ms: float
    cpu_ms_quartiles: tuple[float, float]
    images_per_second: float
    rounds: int
    megabytes: float
    peak_mb: float | None
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Bench:
    """What was measured.

    Attributes:
        rows: A row per case, those of one backend together.
        processor: What the processor is called.
        notes: What could not be measured, and why; on which images accuracy was.
    """

    rows: list[Row]
    processor: str
    notes: list[str]


def bench(files: Sequence[Path], wanted: Wanted, progress: Progress) -> Bench:
    """Measure networks: those of one backend take turns in one process, after a warm-up.

    Args:
        files: Checkpoints, which are exported for each backend, and exported files.
        wanted: What to measure.
        progress: Is told of what is under way.

    Raises:
        UserError: A file cannot be used, nothing is left to measure, or a backend fails.
    """
    notes: list[str] = []
    loaded = {path: detectors.load(path, trust=wanted.trust) for path in files if path.suffix == ".pt"}
    data = wanted.data
    for path, detector in loaded.items():
        if detector.quantised:
            raise UserError(f"'{path}' was trained for INT8; give its export: yoloprune export {path} --format onnx")
        if data:
            data = choose_data(data, detector)
    with tempfile.TemporaryDirectory(prefix="yoloprune-bench-") as folder:
        cases, labels = [], told_apart([str(path) for path in files])
        for number, (path, label) in enumerate(zip(files, labels, strict=True)):
            if path in loaded:
                place = Path(folder) / str(number)
                place.mkdir()
                cases += _of_checkpoint(loaded[path], path, label, place, wanted, data, notes, progress)
            else:
                cases += _of_export(path, wanted, notes)
        if not cases:
            raise UserError(f"Nothing is left to measure: {' '.join(notes)}")
        accuracy: dict[Any, dict[str, float]] = {}
        rows = []
        for backend in dict.fromkeys(case.backend for case in cases):
            own = [case for case in cases if case.backend == backend]
            with progress.phase(f"Measure {backend}"):
                timed = _worker(backend, own, wanted.seconds, 5)["timed"]
                for number, (case, times) in enumerate(zip(own, timed, strict=True)):
                    progress.part("network", number, len(own))
                    rows.append(_row(case, times, _worker(backend, [case], 0.0, 1)["peak_mb"]))
            if data:
                for row, case in zip(rows[-len(own) :], own, strict=True):
                    row.metrics = _accuracy(case, loaded.get(Path(case.network)), data, accuracy, progress)
        if data:
            notes.append(
                "mAP and F1 are on square images, as exports take them; yoloprune val pads as Ultralytics does."
            )
        return Bench(rows, processor(), notes)


def _of_checkpoint(
    detector: Detector,
    path: Path,
    label: str,
    folder: Path,
    wanted: Wanted,
    data: str | None,
    notes: list[str],
    progress: Progress,
) -> Iterator[Case]:
    """The cases of a checkpoint, exported where a backend needs that."""
    exports: dict[Any, Path] = {}
    sizes = [fitting_imgsz(detector, size)[0] for size in wanted.sizes or (None,)]
    for name, precision, size, batch in product(wanted.backends, wanted.precisions, sizes, wanted.batches):
        backend = BACKENDS[name]
        if precision not in backend.precisions:
            _note(notes, f"{name} has no {precision} here ({', '.join(backend.precisions)}).")
            continue
        file, batch_of_file = path, 1 if name == "ncnn" else batch  # ncnn takes its images one by one
        if backend.format:
            quantize = _QUANTIZE.get(precision)
            if quantize == 8 and not data:
                raise UserError("--precision int8 needs images to measure ranges on; give --data.")
            key = (backend.format, quantize, size, batch_of_file)
            if key not in exports:
                check_can_export(backend.format)
                options = {"quantize": quantize} if quantize else {}
                options |= {"data": data} if quantize == 8 else {}
                place = folder / f"{len(exports)}{suffix(backend.format)}"
                with progress.phase(f"Export {label} for {name}, {precision}, {size} px, batch {batch_of_file}"):
                    exports[key] = detector.export(
                        place, format=backend.format, imgsz=size, batch=batch_of_file, **options
                    )
            file = exports[key]
        common = {
            "network": str(path),
            "file": str(file.absolute()),
            "backend": name,
            "precision": precision,
            "hint": precision if precision in _HINTS else None,
            "imgsz": (size, size),
            "batch": batch,
            "channels": detector.channels,
            "device": wanted.device,
            "trust": wanted.trust,
        }
        for threads, dynamo in product(wanted.threads, (False, True) if wanted.compile else (False,)):
            if name == "torch" or not dynamo:
                yield Case(**common, threads=threads, compile=dynamo)


def _of_export(path: Path, wanted: Wanted, notes: list[str]) -> Iterator[Case]:
    """The cases of an exported file: its own size and batch, unless it takes others."""
    backend = backend_of(path)
    file = detectors.exported(path)
    sizes = [(n, n) for n in wanted.sizes] if file.dynamic and wanted.sizes else [file.imgsz]
    batches = wanted.batches if file.dynamic or backend == "ncnn" else [file.batch]
    if wanted.sizes and [(n, n) for n in wanted.sizes] != sizes:
        _note(notes, f"{path.name} takes {file.imgsz[0]}×{file.imgsz[1]} px alone.")
    hints = [p for p in wanted.precisions if p in _HINTS] if backend == "openvino" else []
    for hint, size, batch, threads in product(hints or [None], sizes, batches, wanted.threads):
        yield Case(
            network=str(path),
            file=str(path.absolute()),
            backend=backend,
            precision=hint or "as exported",
            hint=hint,
            imgsz=size,
            batch=batch,
            channels=file.channels,
            threads=threads,
        )


def _note(notes: list[str], sentence: str) -> None:
    if sentence not in notes:
        notes.append(sentence)


def _worker(backend: str, cases: Sequence[Case], seconds: float, least: int) -> dict[str, Any]:
    """What a process of its own measures.

    Raises:
        UserError: It says what is wrong, or ends without a word.
    """
    asked = {"cases": [asdict(case) for case in cases], "seconds": seconds, "least": least}
    package = str(Path(__file__).parents[2])
    paths = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory(prefix="yoloprune-bench-") as folder:
        answer = Path(folder) / "answer.json"
        done = subprocess.run(
            [sys.executable, "-m", "yoloprune.deploy.bench_worker", str(answer)],
            input=json.dumps(asked),
            env={**os.environ, "PYTHONPATH": paths},
            cwd=folder,  # nothing in the user's folder is imported
            capture_output=True,
            text=True,
            errors="replace",
        )
        if not answer.exists():
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"{backend} ended with code {done.returncode} while it was timed: {last}")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise UserError(found["error"])
    return found


def _row(case: Case, times: list[list[float]], peak: float | None) -> Row:
    wall, spent = times
    ms, file = statistics.median(wall), Path(case.file)
    size = sum(f.stat().st_size for f in file.rglob("*") if f.is_file()) if file.is_dir() else file.stat().st_size
    return Row(
        network=case.network,
        backend="torch compiled" if case.compile else case.backend,
        version=version(case.backend),
        precision=case.precision,
        imgsz=case.imgsz,
        batch=case.batch,
        threads=case.threads,
        ms=ms,
        ms_quartiles=_quartiles(wall),
        cpu_ms=statistics.median(spent),
        cpu_ms_quartiles=_quartiles(spent),
        images_per_second=1000 * case.batch / ms,
        rounds=len(wall),
        megabytes=round(size / 1e6, 3),
        peak_mb=peak,
    )


def _quartiles(times: list[float]) -> tuple[float, float]:
    first, _, third = statistics.quantiles(times, n=4, method="inclusive")
    return first, third


def _accuracy(
    case: Case, detector: Detector | None, data: str, known: dict[Any, dict[str, float]], progress: Progress
) -> dict[str, float]:
    """Accuracy of a case on square images: of the network itself, or, where that differs, of the file that runs."""
    itself = detector is not None and case.precision != "int8"
    key = (case.network, case.imgsz) if itself else (case.network, case.backend, case.precision, case.imgsz)
    if key not in known:
        with progress.phase(f"Validate {Path(case.network).name}, {case.imgsz[0]} px" + ("" if itself else ", export")):
            if itself:
                found, task = detector.validate(data, imgsz=case.imgsz[0], rect=False), detector.task
            else:
                file = detectors.exported(Path(case.file))
                found, task = file.validate(data, imgsz=max(case.imgsz)), file.task
            known[key] = named_metrics(found, task)
    return known[key]
