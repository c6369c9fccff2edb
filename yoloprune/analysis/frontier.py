"""What accuracy costs: image sizes and shares of pruning side by side, and which of them is the best at a cost."""

from __future__ import annotations

import hashlib
import json
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from yoloprune.demo import digits
from yoloprune.deploy.latency import latencies
from yoloprune.detectors import GFLOPS_IMGSZ
from yoloprune.detectors.base import Detector, Distillation
from yoloprune.errors import UserError
from yoloprune.files import atomic, clean_leftovers, readable
from yoloprune.pipeline.data import DIGITS, choose_data, fitting_imgsz
from yoloprune.pipeline.lock import FolderLock
from yoloprune.pipeline.metrics import gained, named_metrics
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.prune import prune_once
from yoloprune.pipeline.scores import calibrated, run_images
from yoloprune.pipeline.state import fingerprint
from yoloprune.pipeline.targets import Target
from yoloprune.pipeline.train import fine_tune
from yoloprune.progress import Progress

__all__ = ["Frontier", "Point", "Wanted", "choose_imgsz", "frontier"]

_LEAST_SHARE = 0.98  # of the cost: pruning less than that is not worth a network of one's own
_ROUNDING = 1.0001
_SIZES = 4  # how many are looked at by default
_HALF = 0.49  # share of the cost that the smallest of them has where no cost is asked for


@dataclass
class Point:
    """One network at one image size.

    Attributes:
        weights: The checkpoint that it comes from.
        imgsz: Image size in px.
        share: Share of its GFLOPs that pruning left; 1 for the unpruned network.
        gflops: GFLOPs of one image of that size.
        params: Number of parameters.
        metrics: Validation at that size.
        epochs: Epochs of training that it has had; 0 too where they made it no better.
        untrained: Validation before training, where it was trained.
        latency_ms: Median milliseconds of one image, measured in turns with all others; None until it is.
    """

    weights: str
    imgsz: int
    share: float
    gflops: float
    params: int
    metrics: dict[str, float]
    epochs: int = 0
    untrained: dict[str, float] | None = None
    latency_ms: float | None = None

    @property
    def quality(self) -> float:
        """mAP50-95, or top-1 accuracy."""
        return next(iter(self.metrics.values()))

    @property
    def label(self) -> str:
        """A few words that tell it from the others."""
        pruned = "unpruned" if self.share == 1 else f"pruned to {self.share:.0%}"
        return f"{Path(self.weights).name} {pruned} at {self.imgsz} px"

    @property
    def file(self) -> str:
        """Name of its checkpoint in the folder of a frontier."""
        return f"{Path(self.weights).stem}-{round(100 * self.share)}-{self.imgsz}.pt"


@dataclass(frozen=True)
class Wanted:
    """What a network may cost; of several figures all must hold, without any each point of the front is as good.

    Attributes:
        gflops: GFLOPs of one image at the size that is used.
        ratio: The same as a share of the first network's at its own image size.
        ms: Milliseconds of one image on this machine.
    """

    gflops: float | None = None
    ratio: float | None = None
    ms: float | None = None


@dataclass
class Frontier:
    """What `frontier` found.

    Attributes:
        points: All points, the cheapest first.
        wanted: What was asked for.
        measure: Name of the figure that tells which is better.
        command: The command that makes the best network for what was asked for; None if nothing was, or an unpruned one
            is the best.
    """

    points: list[Point]
    wanted: Wanted
    measure: str
    command: str | None = None
    best: Point | None = None

    def front(self, cost: Callable[[Point], float] = lambda point: point.gflops) -> list[Point]:
        """The points that no cheaper one is as good as, the cheapest first; `cost` says what is cheap."""
        found: list[Point] = []
        for point in sorted(self.points, key=cost):
            if not found or point.quality > found[-1].quality:
                found.append(point)
        return found


def frontier(
    networks: Mapping[str, Detector],
    options: Options,
    folder: Path,
    *,
    sizes: Sequence[int] = (),
    shares: Sequence[float] = (0.85, 0.7, 0.5),
    wanted: Wanted | None = None,
    progress: Progress | None = None,
) -> Frontier:
    """Measure networks at several image sizes, unpruned and pruned at that size, on a validation set.

    Where a cost is asked for, each network is pruned at each size to exactly that cost, and not to `shares`, and only
    what costs no more is trained. The same call, after an interruption, continues with what is missing; everything that
    is pruned is kept in `folder`.

    Args:
        networks: Detectors by the checkpoint that each comes from; left as they are.
        options: Data, image size, epochs and how to prune; its target is not looked at.
        folder: Where results and networks go.
        sizes: Image sizes in px; by default the network's own, the one at which it costs as much as is asked for
            unpruned, or half if nothing is, and two between them.
        shares: Shares of GFLOPs to prune to.
        wanted: What a network may cost.
        progress: Where to report to.

    Returns:
        All points, and the best one for what is wanted.

    Raises:
        UserError: The data cannot be used, another frontier is in the folder, or no point costs little enough.
    """
    wanted, progress = wanted or Wanted(), progress or Progress()
    first = next(iter(networks.values()))
    imgsz, _ = fitting_imgsz(first, options.imgsz)
    data = choose_data(options.data, first, images=True, labels=bool(options.epochs), validates=True)
    most = _most(wanted, first, imgsz)
    chosen = {fitting_imgsz(first, size)[0] for size in sizes}
    folder.mkdir(parents=True, exist_ok=True)
    data = str(digits.write(folder / "digits")) if data == DIGITS else data
    options = replace(options, imgsz=imgsz, data=data, criterion=options.criterion or "output_error", recover=True)
    lock = FolderLock(folder)
    try:
        clean_leftovers(folder)
        state = _State(folder / "frontier.json", _digest(options, networks))
        for path, detector in networks.items():
            for size in sorted(chosen or _default_sizes(detector, imgsz, most), reverse=True):
                for share in (1.0, *_shares(detector, size, most, shares)):
                    cheap = share * _gflops(detector, size) <= most * _ROUNDING
                    # a network as it is has been trained
                    trains = options.epochs > 0 and cheap and _removed(share, size, imgsz) > 1 - _LEAST_SHARE
                    known = state.find(path, size, share)
                    if known is None or (trains and known.untrained is None):
                        settings = replace(options, imgsz=size, epochs=options.epochs * trains)
                        state.add(_measured(path, detector, share, settings, imgsz, folder, progress))
        _time(state, networks, folder, options, progress)
    finally:
        lock.release()
    return _result(state.points, wanted, most, options)


def _default_sizes(detector: Detector, imgsz: int, most: float) -> set[int]:
    """Its own size, the largest at which it costs `most` GFLOPs unpruned, and some between, in equal steps of cost."""
    share, stride = min(most / _gflops(detector, imgsz), 1.0) if most < inf else _HALF, detector.stride
    between = {round(imgsz * share ** (step / (_SIZES - 1) / 2) / stride) * stride for step in range(_SIZES - 1)}
    least = int(imgsz * share**0.5 / stride + 1e-6) * stride
    return {max(size, stride) for size in (*between, least)}


def _most(wanted: Wanted, first: Detector, imgsz: int) -> float:
    """What a network may cost, in GFLOPs of one image at its size."""
    own = _gflops(first, imgsz)
    return min(wanted.gflops or inf, (wanted.ratio or inf) * own)


def _gflops(detector: Detector, imgsz: int) -> float:
    """GFLOPs of one image of that size; in proportion to those at 640 px, as Ultralytics prints them."""
    return detector.gflops() * (imgsz / GFLOPS_IMGSZ) ** 2


def _removed(share: float, imgsz: int, own: int) -> float:
    """The share of its cost at `own` px that is gone, by pruning or by a smaller image."""
    return 1 - share * (imgsz / own) ** 2


def _shares(detector: Detector, imgsz: int, most: float, shares: Sequence[float]) -> list[float]:
    """What to prune to at a size: the shares asked for or, where a cost is asked for, the one that it leaves."""
    if most == inf:
        return sorted(shares, reverse=True)
    share = most / _gflops(detector, imgsz)
    return [round(share, 4)] if share < _LEAST_SHARE else []


def _measured(
    path: str, detector: Detector, share: float, options: Options, own: int, folder: Path, progress: Progress
) -> Point:
    """Prune (and train) one network and validate it; what an interrupted call has pruned is read.

    The learning rate follows the share of the cost that is gone, by pruning or a smaller image than `own` px.
    """
    point = Point(path, options.imgsz, share, 0.0, 0, {})
    network, file, made = detector, folder / point.file, folder / f"{Path(point.file).stem}.json"
    if share < 1:
        if not made.exists():
            with progress.phase(f"{point.label}: prune"):
                target = Target(share * detector.gflops(), None)
                pruned = prune_once(detector, target, replace(options, target_ratio=share))
                pruned.detector.settle(imgsz=options.imgsz, data=options.data)
                pruned.detector.save(file)
                pruned.plan.save(made)  # only now: its file says that the network's is there
        network = detector.holding(type(detector).load(file, trust=options.trust).network)
    validate = partial(_validated, options=options, progress=progress)
    with progress.phase(f"{point.label}: validate"):
        point.metrics = validate(network)
    if options.epochs:
        removed = _removed(share, options.imgsz, own)
        network = _trained(point, network, detector, made, removed, options, folder, progress)
    point.gflops, point.params = _gflops(network, options.imgsz), network.params
    progress.say(f"{next(iter(point.metrics))} {point.quality:.3f} at {point.gflops:.2f} GFLOPs")
    return point


def _validated(network: Detector, options: Options, progress: Progress) -> dict[str, float]:
    batch = int(options.batch) if options.batch >= 1 else 16
    found = network.validate(
        options.data, imgsz=options.imgsz, batch=batch, device=options.device, verbose=progress.hears
    )
    return named_metrics(found, network.task)


def _trained(
    point: Point,
    network: Detector,
    original: Detector,
    plan: Path,
    removed: float,
    options: Options,
    folder: Path,
    progress: Progress,
) -> Detector:
    """The network after training as a run does it, or as it was if that validates better; completes the point."""
    name = Path(point.file).stem
    start, teacher, train = folder / f"{name}.start.pt", folder / f"{name}.teacher.pt", folder / f"{name}-train"
    distillation = None
    if not start.exists():
        network.save(start)
    if point.share < 1 and original.can_distill:
        original.save(teacher)
        labelled = original.has_labels(options.data)
        distillation = Distillation(teacher=str(teacher), plan=str(plan), labels=float(labelled))
    with progress.phase(f"{point.label}: train for {options.epochs} epochs"):
        trained = fine_tune(network, start, options, train, distillation, removed=removed)
        if point.share < 1:
            calibrated(trained.detector, original, [batch["img"] for batch in run_images(original, options)])
    point.untrained = point.metrics
    with progress.phase(f"{point.label}: validate the trained"):
        after = _validated(trained.detector, options, progress)
    if gained(point.metrics, after):
        network, point.metrics, point.epochs = network.holding(trained.detector.network), after, trained.epochs
        network.settle(imgsz=options.imgsz, data=options.data)
        network.save(folder / point.file)
    network.forget_training(train)
    for file in (start, teacher):
        file.unlink(missing_ok=True)
    return network


def _time(state: _State, networks: Mapping[str, Detector], folder: Path, options: Options, progress: Progress) -> None:
    """Measure the latency of all points in turns."""
    if all(point.latency_ms for point in state.points):
        return
    made = []
    for point in state.points:
        own = networks[point.weights]
        file = folder / point.file
        made.append(own.holding(type(own).load(file, trust=options.trust).network) if file.exists() else own)
    with progress.phase("Measure latency"):
        found = latencies(made, imgsz=[point.imgsz for point in state.points], device=options.device)
    for point, ms in zip(state.points, found, strict=True):
        point.latency_ms = ms
    state.save()


class _State:
    """The points that are measured, on disk after each."""

    def __init__(self, path: Path, digest: str) -> None:
        self._path, self._digest = path, digest
        self.points: list[Point] = []
        if path.is_file():
            with readable(path, "give another --name"):
                content = json.loads(path.read_text(encoding="utf-8"))
                self.points = [Point(**point) for point in content["points"]]
            if content["work"] != digest:
                raise UserError(
                    f"'{path.parent}' holds a frontier of other weights, data or options; give another --name."
                )

    def find(self, weights: str, imgsz: int, share: float) -> Point | None:
        """The point that was measured before."""
        key = (weights, imgsz, share)
        return next((point for point in self.points if (point.weights, point.imgsz, point.share) == key), None)

    def add(self, point: Point) -> None:
        """Write one more point down, in the place of one that was not trained."""
        others = [p for p in self.points if p is not self.find(point.weights, point.imgsz, point.share)]
        self.points = sorted([*others, point], key=lambda p: (p.gflops, -p.share))
        for known in self.points:
            known.latency_ms = None  # measured in turns with all others, or not at all
        self.save()

    def save(self) -> None:
        content: dict[str, Any] = {"work": self._digest, "points": [asdict(point) for point in self.points]}
        with atomic(self._path) as tmp:
            tmp.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _digest(options: Options, networks: Mapping[str, Detector]) -> str:
    """Whatever decides the figures but sizes and shares, which may be added to."""
    digest = hashlib.sha256()
    for path, detector in networks.items():
        digest.update(f"{path}{fingerprint(detector.network)}".encode())
    skipped = {"imgsz", "target_ratio", "target_gflops", "target_params", "project", "name", "exist_ok", "download"}
    digest.update(repr(sorted((k, v) for k, v in asdict(options).items() if k not in skipped)).encode())
    return digest.hexdigest()[:16]


def _result(points: list[Point], wanted: Wanted, most: float, options: Options) -> Frontier:
    found = Frontier(points, wanted, next(iter(points[0].metrics)))
    if most == inf and wanted.ms is None:
        return found
    cheap = [p for p in points if p.gflops <= most * _ROUNDING and (p.latency_ms or 0) <= (wanted.ms or inf)]
    if not cheap:
        least = min(points, key=lambda point: point.gflops)
        raise UserError(
            f"No point costs as little as was asked for; the cheapest is {least.label} with {least.gflops:.2f} GFLOPs "
            f"and {least.latency_ms:.2f} ms; give smaller --sizes or --shares."
        )
    best = found.best = max(cheap, key=lambda point: point.quality)
    if best.share < 1:
        words = ["yoloprune", "prune", best.weights, "--target-ratio", f"{best.share:g}", "--imgsz", str(best.imgsz)]
        words += ["--data", str(options.data)] + ["--prune-head"] * options.prune_head
        words += ["--epochs", str(options.epochs)]
        found.command = shlex.join(words)
    return found


def choose_imgsz(
    detector: Detector, options: Options, *, weights: str, progress: Progress | None = None
) -> tuple[Options, str]:
    """Spend a part of what a run is to save on a smaller image, where that keeps more: tried without training.

    Args:
        detector: The detector to prune; left as it is.
        options: The options of the run; its target is a cost at its image size.
        weights: What to call the detector.
        progress: Where to report to.

    Returns:
        The options with the image size and the target at that size, and a sentence.

    Raises:
        UserError: The run does not validate, so that sizes cannot be compared, or none can be pruned to the target.
    """
    if not options.val:
        raise UserError("Image sizes are compared on validation images; leave --no-val out, or give --imgsz.")
    if options.target_params is not None:
        raise UserError("A smaller image has no fewer parameters; give --target-gflops or --target-ratio.")
    ratio = options.target_ratio or options.target_gflops / detector.gflops()
    settings = replace(options, epochs=0, budget=None, target_gflops=None, target_ratio=ratio)
    with tempfile.TemporaryDirectory(prefix="yoloprune-frontier-") as folder:
        found = frontier({weights: detector}, settings, Path(folder), wanted=Wanted(ratio=ratio), progress=progress)
    pruned = [point for point in found.points if point.share < 1]
    if not pruned:
        raise UserError(f"A share of {ratio:.0%} needs no pruning at any of the sizes; give a smaller target.")
    best = max(pruned, key=lambda point: point.quality)
    tried = ", ".join(f"{point.quality:.3f} {point.label.partition(' ')[2]}" for point in reversed(pruned))
    whole = max((point for point in found.points if point.share == 1), key=lambda point: point.imgsz)
    said = f"{found.measure} without training at {ratio:.0%} of the cost: {tried}; {best.imgsz} px are taken (unpruned "
    said += f"{whole.quality:.3f} at {whole.imgsz} px)."
    if found.best.share == 1:
        said += f" The unpruned network at {found.best.imgsz} px has {found.best.quality:.3f}."
    return replace(options, imgsz=best.imgsz, target_gflops=None, target_ratio=best.share, choose_imgsz=False), said
