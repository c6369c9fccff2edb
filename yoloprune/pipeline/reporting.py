"""What a run tells in its report, put together from what is known when it ends."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
import yaml

import yoloprune
from yoloprune.deploy.latency import module_latencies
from yoloprune.detectors import family_title
from yoloprune.detectors.base import SETBACK, Detector
from yoloprune.detectors.details import Details
from yoloprune.graph import Graph
from yoloprune.report import Record, StepRow, block_of
from yoloprune.report.page import Course, Layer, Network, Page, Point, Stays, draw_page, write_page
from yoloprune.report.pictures import CANDIDATES, Shown, show
from yoloprune.report.verdict import Usage, run_words

from .context import Context
from .declared import declared
from .options import Options

__all__ = ["environment", "layers", "looks", "noise", "usage", "write_report"]

_F1 = "F1 (conf .25)"
_START = "right after pruning"
_PICTURES = (".png", ".jpg")
_QUIET = ("trust", "project", "name", "exist_ok", "download")  # options that change nothing of what comes out


def write_report(run: Context, detector: Detector) -> None:
    """Write the report of a run into its folder; what went into it stays as it is.

    Args:
        run: The run, all of it measured.
        detector: The finished detector.
    """
    record, options, folder = run.record, run.options, run.folder
    record.environment = environment(detector, options.device) | {"seed": str(options.seed)}
    both = [run.original, detector]
    times = module_latencies(both, imgsz=options.imgsz, device=options.device) if record.latency_on else [{}, {}]
    own = layers(run.original, times[0])
    networks = [
        Network("before", record.before, run.details.get("before"), own),
        Network("after", record.after, run.details.get("after"), layers(detector, times[1], like=own)),
    ]
    shown, looked_at = looks(both, options.data, [options.imgsz] * 2, options.device)
    page = Page(
        title=f"{Path(record.weights).name}: {record.before.gflops:.2f} → {record.after.gflops:.2f} GFLOPs",
        subtitle=_subtitle(run),
        words=run_words(record, networks, str(folder.weights), usage(detector)),
        networks=networks,
        path=_path(run),
        line=_line(run),
        looks=shown,
        looked_at=looked_at,
        courses=_courses(run),
        stays=_stays(run.original, options),
        record=record,
        command=record.command or _call(record, options),
        options=_unusual(options),
        environment=record.environment,
    )
    if (sparsity := folder.steps / "sparse" / "train" / "sparsity.png").is_file():
        page.sparsity = sparsity.read_bytes()
    svgs = draw_page(page, folder.pictures)
    page.pictures, page.files = _links(folder.path, sorted({*folder.manifest.owned()} - {*folder.needless(options)}))
    write_page(page, svgs, folder.report)


def _subtitle(run: Context) -> str:
    record = run.record
    on = f", on {Path(record.data).name}" if record.data else ""
    place = record.latency_on if run.device and run.device.here else f"torch on {record.latency_on}, float32"
    where = f"; milliseconds are those of {place}" if record.latency_on else ""
    return (
        f"{family_title(record.family)} {record.task}{on}, images of {record.imgsz} px. GFLOPs are those of "
        f"model.info(), at 640 px{where}."
    )


def usage(detector: Detector) -> Usage:
    """How a checkpoint of the detector's family is used, for the verdict."""
    return lambda weights, imgsz, confidence: detector.usage(Path(weights), imgsz=imgsz, confidence=confidence)


def environment(detector: Detector, device: str | None) -> dict[str, str]:
    """Versions and machine."""
    found = {"yoloprune": yoloprune.__version__, "Python": platform.python_version()}
    for package in ("torch", "ultralytics", "numpy", "onnx", "onnxruntime"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["machine"] = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return found | {"device": detector.device_name(device), "threads": str(torch.get_num_threads())}


def layers(detector: Detector, times: Mapping[str, float] = {}, like: Sequence[Layer] = ()) -> list[Layer]:
    """The layers of a network and what they cost; norms and activations count with the convolution beside them.

    Args:
        detector: The network.
        times: Milliseconds by module, as `module_latencies` gives them; those of no layer count for their block.
        like: The layers of the network that it was pruned from, which are listed even where they are gone.
    """
    flops, parts, modules = detector.layer_flops(), detector.parts(), dict(detector.network.named_modules())
    params: Counter[str] = Counter()
    for name, module in modules.items():
        if own := sum(p.numel() for p in module.parameters(recurse=False)):
            params[_bearer(name, flops)] += own
    ms: dict[str, float] = {}
    for name, value in times.items():
        bearer = _bearer(name, flops)
        bearer = bearer if bearer in flops or bearer in params else block_of(name)
        ms[bearer] = ms.get(bearer, 0.0) + value
    ms.pop("", None)  # between the blocks
    order = {name: place for place, name in enumerate(modules)}
    own_names = sorted({*flops, *params, *ms}, key=lambda name: order.get(name, len(order)))
    found = []
    for name in dict.fromkeys([*(layer.name for layer in like), *own_names]):
        weight = getattr(modules.get(name), "weight", None)
        width = len(weight) if weight is not None and weight.ndim > 1 else 0
        part = next((part.name for part in parts if part.has(name)), "")
        cost = flops.get(name, 0) / 1e9, params[name], round(ms.get(name, 0.0), 4)
        found.append(Layer(name, part, width, *cost))
    return found


def _bearer(name: str, names: Collection[str]) -> str:
    """The layer that a module counts with: itself, or for `x.bn`, `x.act` and `x` the `x.conv` that there is."""
    around = name.rpartition(".")[0] if name.endswith((".bn", ".act")) else name
    return f"{around}.conv" if name not in names and f"{around}.conv" in names else name


def looks(detectors: list[Detector], data: str | None, sizes: list[int], device: str | None) -> tuple[list[Shown], int]:
    """Images as each network sees them, and among how many they were chosen; none where there are no images.

    Args:
        detectors: The networks, the reference first.
        data: What they are shown.
        sizes: Image size of each, in px.
        device: As `Detector.place` takes it.
    """
    images = detectors[0].sample(data, CANDIDATES) if data else []
    seen = [list(of.look(images, imgsz=size, device=device)) for of, size in zip(detectors, sizes, strict=True)]
    return show(seen, detectors[0].names), len(images)


def _point(run: Context, label: str, kind: str, gflops: float, metrics: Mapping[str, float], what: str) -> Point:
    return Point(label, kind, gflops, metrics, noise(run.details.get(what), metrics))


def noise(details: Details | None, metrics: Mapping[str, float]) -> dict[str, float]:
    """Standard deviation of mAP and F1 over resampled images, by the names of `metrics`."""
    samples = details.samples if details else {}
    names = {"map": next(iter(metrics), ""), "f1": _F1}
    return {names[kind]: float(np.std(values)) for kind, values in samples.items()}


def _path(run: Context) -> list[Point]:
    """From the unpruned network over each step to the finished one."""
    record, before = run.record, run.record.before
    out = "recovered" if run.options.recover else "pruned"
    points = [_point(run, "before", "before", before.gflops, before.metrics, "before")._replace(
        latency_ms=before.latency_ms
    )]  # fmt: skip
    for row in record.steps:
        last = row is record.steps[-1]
        which = "" if len(record.steps) == 1 else f" {row.step}"
        if row.before:
            what = f"step {row.step} pruned"
            points.append(_point(run, f"{out}{which}", "pruned", row.gflops, row.before, what))
        if row.before and not last:
            what = f"step {row.step} fine-tuned"
            points.append(_point(run, f"tuned{which}", "tuned", row.gflops, row.metrics, what))
    label, kind = ("fine-tuned", "tuned") if _tuned(record.steps) else (out, "pruned")
    if kind == "pruned" and len(points) > 1:
        points.pop()  # the same network: its fine-tuning did not help
    after = record.after
    end = _point(run, label, kind, after.gflops, after.metrics, "after")
    return [*points, end._replace(latency_ms=after.latency_ms)]


def _tuned(steps: list[StepRow]) -> bool:
    """Whether what came out has been fine-tuned in its last step."""
    return bool(steps) and steps[-1].epochs > 0 and steps[-1].metrics != steps[-1].before


def _line(run: Context) -> list[Point]:
    """The unpruned network on smaller images and on the run's."""
    before = run.record.before
    points = []
    for smaller in run.record.smaller_images:
        what = f"{smaller.imgsz} px"
        point = _point(run, what, "smaller", smaller.gflops, smaller.metrics, what)
        points.append(point._replace(latency_ms=smaller.latency_ms))
    if not points:
        return []
    return [*points, Point("before", "before", before.gflops, before.metrics, {}, before.latency_ms)]


def _courses(run: Context) -> list[Course]:
    """The trainings of a run that its detector's family keeps the course of."""
    record, folder, original = run.record, run.folder, run.original
    measure = next(iter(record.before.metrics), "")
    unpruned = {"unpruned": record.before.metrics[measure]} if measure else {}
    found = [
        ("Training before pruning", folder.steps / "train", {}),
        ("Group-sparse training", folder.steps / "sparse" / "train", unpruned),
    ]
    for row in record.steps:
        title = "Fine-tuning" if len(record.steps) == 1 else f"Fine-tuning of step {row.step}"
        start = {_START: row.before[measure]} if measure in row.before else {}
        found.append((title, folder.train(row.step), unpruned | start))
    courses = []
    for title, path, levels in found:
        history = original.history(path)
        if history is not None:
            falls = run.options.rollback and _START in levels
            setbacks = _setbacks(history.quality, levels[_START]) if falls else []
            courses.append(Course(title, measure or "mAP50-95", history, levels, setbacks))
    return courses


def _setbacks(quality: list[float], start: float) -> list[int]:
    """Epochs whose quality was so far below the best one before that the training went back."""
    best = list(accumulate([start, *quality], max))
    return [epoch for epoch, value in enumerate(quality, start=1) if value < SETBACK * best[epoch - 1]]


def _stays(original: Detector, options: Options) -> list[Stays]:
    from yoloprune.analysis.inspection import group_rows  # which imports this package

    graph: Graph = original.trace(options.prune_head, options.keep, options.portable)
    frozen: dict[str, tuple[int, list[str]]] = {}
    tied: dict[tuple[int, ...], tuple[int, list[str]]] = {}
    for row in group_rows(original, graph, options.prune_head):
        kind, key = (frozen, row.why) if row.frozen else (tied, tuple(row.tied))
        if row.frozen or row.tied:
            channels, names = kind.get(key, (0, []))
            kind[key] = channels + row.width, [*names, row.name]
    stays = [Stays(why, channels, list(dict.fromkeys(names))) for why, (channels, names) in frozen.items()]
    return stays + [
        Stays(
            "tied: these lose equally many, since the code splits or joins them in equal parts",
            channels,
            list(dict.fromkeys(names)),
        )
        for channels, names in tied.values()
    ]


def _unusual(options: Options) -> list[tuple[str, str, str]]:
    """Options that are not as they are by default."""
    usual = Options(target_ratio=0.5)
    rows = []
    for name, (field, _) in declared(Options).items():
        value, default = getattr(options, name), getattr(usual, name)
        if name == "target_ratio":
            default = None
        if value != default and name not in _QUIET and field.name != "train":
            rows.append((name, _shown(value), _shown(default)))
    return rows + [(f"train: {name}", _shown(value), "Ultralytics'") for name, value in options.train.items()]


def _shown(value: object) -> str:
    return "" if value is None else yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip()


def _call(record: Record, options: Options) -> str:
    """The call from Python that does the same."""
    given = {name: getattr(options, name) for name, *_ in _unusual(options) if not name.startswith("train: ")}
    words = ", ".join(f"{name}={value!r}" for name, value in (given | options.train).items())
    return f"yoloprune.prune({record.weights!r}, {words})"


def _links(folder: Path, files: list[Path]) -> tuple[list[str], list[tuple[str, int]]]:
    """Pictures that trainings left and all files, by path from the folder; images of data sets are left out."""
    names = [(path.relative_to(folder).as_posix(), path) for path in files if path.is_file()]
    names = [(name, path) for name, path in names if not name.startswith(("digits/", "steps/images/"))]
    pictures = [name for name, path in names if name.startswith("steps/") and path.suffix in _PICTURES]
    return pictures, [(name, path.stat().st_size) for name, path in names]
