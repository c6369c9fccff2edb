"""What accuracy costs: image sizes and shares of pruning side by side, and which of them is the best at a cost."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

from yoloprune.demo import digits
from yoloprune.deploy.latency import latencies
from yoloprune.detectors import GFLOPS_IMGSZ
from yoloprune.detectors.base import Detector, Distillation
from yoloprune.errors import UserError
from yoloprune.files import atomic, clean_leftovers, readable
from yoloprune.paths import told_apart
from yoloprune.pipeline.data import DIGITS, choose_data, fitting_imgsz
from yoloprune.pipeline.lock import FolderLock
from yoloprune.pipeline.metrics import gained, named_metrics
from yoloprune.pipeline.on_device import NEAR, OnDevice
from yoloprune.pipeline.options import Options
from yoloprune.pipeline.prune import Pruned, prune_once
from yoloprune.pipeline.scores import calibrated, run_images
from yoloprune.pipeline.state import fingerprint
from yoloprune.pipeline.targets import OutOfReachError, Target, check_reachable, cost
from yoloprune.pipeline.train import fine_tune
from yoloprune.progress import Progress

__all__ = ["Frontier", "Point", "Wanted", "frontier"]

_LEAST_SHARE = 0.98  # of the cost: pruning less than that is not worth a network of one's own
_ROUNDING = 1.0001
_SIZES = 4  # how many are looked at by default, in equal steps of cost
_HALF = 0.49  # share of the cost that the smallest of them has where no cost is asked for


@dataclass
class Point:
    """One network at one image size.

    Attributes:
        weights: The checkpoint that it comes from.
        name: Its name without ending, and as many of the folders above as tell it from the others.
        imgsz: Image size in px.
        share: Share of its GFLOPs that pruning left; 1 for the unpruned network.
        gflops: GFLOPs of one image of that size.
        params: Number of parameters.
        metrics: Validation at that size.
        epochs: Epochs of training that it has had; 0 too where they made it no better.
        untrained: Validation before training, where it was trained.
        latency_ms: Median milliseconds of one image: in PyTorch, measured in turns with all others, or, where a time is
            asked for, on the backend that it is asked for. None until it is measured.
        target_ms: Milliseconds that it was pruned to, if a time was asked for.
    """

    weights: str
    name: str
    imgsz: int
    share: float
    gflops: float
    params: int
    metrics: dict[str, float]
    epochs: int = 0
    untrained: dict[str, float] | None = None
    latency_ms: float | None = None
    target_ms: float | None = None

    @property
    def quality(self) -> float:
        """mAP50-95, or top-1 accuracy."""
        return next(iter(self.metrics.values()))

    @property
    def label(self) -> str:
        """A few words that tell it from the others."""
        asked = f"{self.share:.0%}" if self.target_ms is None else f"{self.target_ms:.4g} ms"
        return f"{self.name} {'unpruned' if self.share == 1 else f'pruned to {asked}'} at {self.imgsz} px"

    @property
    def file(self) -> str:
        """Name of its checkpoint in the folder of a frontier."""
        asked = f"{100 * self.share:.4g}" if self.target_ms is None else f"{self.target_ms:g}ms"
        return f"{self.name}-{asked}-{self.imgsz}.pt"


@dataclass(frozen=True)
class Wanted:
    """What a network may cost in GFLOPs; of both figures each must hold, without any no point is better than another.

    Attributes:
        gflops: GFLOPs of one image at the size that is used.
        ratio: The same as a share of the first network's at its own image size.
    """

    gflops: float | None = None
    ratio: float | None = None


@dataclass
class Frontier:
    """What `frontier` found.

    Attributes:
        points: All points, the cheapest first.
        runtime: What the milliseconds were measured on.
        measure: Name of the figure that tells which is better.
        command: The command that makes the best network for what was asked for; None if nothing was, or an unpruned one
            is the best.
    """

    points: list[Point]
    runtime: str
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

    Where a cost is asked for, in GFLOPs or as `target_ms` of the options, each network is pruned at each size to
    exactly that, and not to `shares`, and only what costs no more is trained. Sizes at which pruning cannot reach it
    are left out, with a line. The same call, after an interruption, continues with what is missing; everything that
    is pruned is kept in `folder`.

    Args:
        networks: Detectors by the checkpoint that each comes from; left as they are.
        options: Data, image size, epochs, how to prune and, if a time is asked for, `target_ms` and where it is to
            hold (`backend`, `threads`, `latency_table`); its targets in GFLOPs are not looked at.
        folder: Where results and networks go.
        sizes: Image sizes in px; by default the network's own, the one at which it costs as much as is asked for
            unpruned, or half if nothing is, and two or three between them.
        shares: Shares of GFLOPs to prune to.
        wanted: What a network may cost in GFLOPs.
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
    most = min(wanted.gflops or inf, (wanted.ratio or inf) * gflops_at(first, imgsz))
    chosen = {fitting_imgsz(first, size)[0] for size in sizes}
    folder.mkdir(parents=True, exist_ok=True)
    data = str(digits.write(folder / "digits")) if data == DIGITS else data
    options = replace(options, imgsz=imgsz, data=data, criterion=options.criterion or "output_error", recover=True)
    runtime, missed = "PyTorch", []
    lock = FolderLock(folder)
    try:
        clean_leftovers(folder)
        state = _State(folder / "frontier.json", _digest(options, networks), networks)
        for (path, detector), label in zip(networks.items(), told_apart(list(networks)), strict=True):
            name = label.removesuffix(Path(path).suffix).replace("/", "-")
            network = _Network(path, name, detector, options, most, folder, progress)
            for size in sorted(chosen or network.sizes(), reverse=True):
                for point in network.asked(size, shares):
                    known = state.find(point)
                    if known is None or (network.trains(point) and known.untrained is None):
                        try:
                            state.add(network.measured(point))
                            network.tidy(point)
                        except OutOfReachError as error:
                            missed.append(error)
                            progress.say(f"{point.label} is left out: {error}")
            runtime = network.runtime or runtime
        if not options.timed:
            _time(state, networks, folder, options, progress)
    finally:
        lock.release()
    return _result(state.points, runtime, most, options, missed)


def gflops_at(detector: Detector, imgsz: int) -> float:
    """GFLOPs of one image of that size; in proportion to those at 640 px, as Ultralytics prints them."""
    return detector.gflops() * (imgsz / GFLOPS_IMGSZ) ** 2


class _Network:
    """One network, measured at several image sizes.

    Args:
        path: The checkpoint that it comes from.
        name: What its points are called.
        detector: The network.
        options: Of the frontier.
        most: GFLOPs that one image may cost.
        folder: Where what is made of it goes.
        progress: Where to report to.
    """

    def __init__(
        self, path: str, name: str, detector: Detector, options: Options, most: float, folder: Path, progress: Progress
    ) -> None:
        self._path, self._name, self._detector, self._options, self._most = path, name, detector, options, most
        self._folder, self._progress = folder, progress
        self._devices: dict[int, OnDevice] = {}

    @property
    def runtime(self) -> str | None:
        """What its times hold on, if a time is asked for."""
        return next((str(device.device) for device in self._devices.values()), None)

    def sizes(self) -> set[int]:
        """Its own size, the largest at which it costs what is asked for unpruned, and some between: in equal steps of
        cost, and the one at which next to nothing need be pruned."""
        imgsz, stride = self._options.imgsz, self._detector.stride
        share = min(self._most / gflops_at(self._detector, imgsz), 1.0)
        if self._options.timed:
            share = min(share, self._options.target_ms / self._device(imgsz).own_ms)
        elif self._most == inf:
            share = _HALF
        between = {round(imgsz * share ** (step / (_SIZES - 1) / 2) / stride) * stride for step in range(_SIZES - 1)}
        least = int(imgsz * share**0.5 / stride + 1e-6) * stride
        return {max(size, stride) for size in (*between, least, min(least + stride, imgsz))}

    def asked(self, imgsz: int, shares: Sequence[float]) -> list[Point]:
        """What is to be measured at a size: the unpruned network and what it is to be pruned to there.

        That is the shares or, where a cost is asked for, what it leaves; a time's share is known once it is pruned.
        """
        own, ms = gflops_at(self._detector, imgsz), self._options.target_ms
        if self._options.timed:
            takes = self._device(imgsz).own_ms
            unpruned = self._point(imgsz, 1.0, latency_ms=takes)
            return [unpruned, self._point(imgsz, ms / takes, target_ms=ms)] if ms < _LEAST_SHARE * takes else [unpruned]
        if self._most < inf:
            share = self._most / own
            shares = [float(f"{share:.4g}")] if share < _LEAST_SHARE else []
        return [self._point(imgsz, share) for share in (1.0, *sorted(shares, reverse=True))]

    def trains(self, point: Point) -> bool:
        """Whether a point is trained: a network as it is has been, and what costs too much is of no use."""
        if point.target_ms is None and point.share * gflops_at(self._detector, point.imgsz) > self._most * _ROUNDING:
            return False
        if self._options.timed and point.share == 1 and point.latency_ms > self._options.target_ms * (1 + NEAR):
            return False
        return self._options.epochs > 0 and self._removed(point) > 1 - _LEAST_SHARE

    def measured(self, point: Point) -> Point:
        """Prune (and train) a network and validate it; what an interrupted call has pruned is read.

        Raises:
            OutOfReachError: Pruning cannot reach what is asked for at this size.
        """
        network, trains = self._detector, self.trains(point)
        options = replace(self._options, imgsz=point.imgsz, epochs=self._options.epochs * trains)
        file = self._folder / point.file
        made = file.with_suffix(".json")
        if point.share < 1:
            if not made.exists():
                with self._progress.phase(f"{point.label}: prune"):
                    pruned = self._pruned(point, options)
                    pruned.detector.settle(imgsz=options.imgsz, data=options.data)
                    pruned.detector.save(file)
                    pruned.plan.save(made)  # only now: its file says that the network's is there
            begun = self._start(point)
            untrained = begun if begun.exists() else file  # what was trained has taken the place of what was pruned
            network = network.holding(type(network).load(untrained, trust=options.trust).network)
            if point.target_ms is not None:
                device = self._device(point.imgsz)
                point.latency_ms = device.times(network) if device.here else point.target_ms
                point.share = round(network.gflops() / self._detector.gflops(), 4)
        with self._progress.phase(f"{point.label}: validate"):
            point.metrics = _validated(network, options, self._progress)
        if trains:
            network = self._trained(point, network, made, options)
        point.gflops, point.params = gflops_at(network, options.imgsz), network.params
        took = f", {point.latency_ms:.2f} ms" if point.latency_ms else ""
        self._progress.say(f"{next(iter(point.metrics))} {point.quality:.3f} at {point.gflops:.2f} GFLOPs{took}")
        return point

    def _point(self, imgsz: int, share: float, **more: float) -> Point:
        return Point(self._path, self._name, imgsz, share, 0.0, 0, {}, **more)

    def _device(self, imgsz: int) -> OnDevice:
        """Times at an image size, where a time is asked for."""
        if imgsz not in self._devices:
            where = self._options.backend or self._options.latency_table
            with self._progress.phase(f"{self._name} at {imgsz} px: measure on {where}"):
                self._devices[imgsz] = OnDevice(self._detector, replace(self._options, imgsz=imgsz))
        return self._devices[imgsz]

    def _removed(self, point: Point) -> float:
        """The share of its cost at its own size that is gone, by pruning or by a smaller image."""
        return 1 - point.share * (point.imgsz / self._options.imgsz) ** 2

    def _pruned(self, point: Point, options: Options) -> Pruned:
        if point.target_ms is not None:
            device = self._device(point.imgsz)
            return prune_once(
                self._detector, Target(ms=point.target_ms, before_ms=device.own_ms), options, device=device
            )
        options = replace(options, target_ratio=point.share)
        graph = self._detector.trace(options.prune_head, options.keep, options.portable)
        check_reachable(options, self._detector, graph, cost(self._detector))
        return prune_once(self._detector, Target(point.share * self._detector.gflops(), None), options)

    def _trained(self, point: Point, network: Detector, plan: Path, options: Options) -> Detector:
        """The network after training as a run does it, or as it was if that validates better; completes the point.

        The learning rate follows the share of the cost that is gone.
        """
        original, folder, start = self._detector, self._folder, self._start(point)
        teacher, train, distillation = self._teacher(point), self._training(point), None
        if not start.exists():
            network.save(start)
        if point.share < 1 and original.can_distill:
            original.save(teacher)
            labelled = original.has_labels(options.data)
            distillation = Distillation(teacher=str(teacher), plan=str(plan), labels=float(labelled))
        with self._progress.phase(f"{point.label}: train for {options.epochs} epochs"):
            trained = fine_tune(network, start, options, train, distillation, removed=self._removed(point))
            if point.share < 1:
                calibrated(trained.detector, original, [batch["img"] for batch in run_images(original, options)])
        point.untrained = point.metrics
        with self._progress.phase(f"{point.label}: validate the trained"):
            after = _validated(trained.detector, options, self._progress)
        if gained(point.metrics, after):
            network, point.metrics, point.epochs = network.holding(trained.detector.network), after, trained.epochs
            network.settle(imgsz=options.imgsz, data=options.data)
            network.save(folder / point.file)
        return network

    def tidy(self, point: Point) -> None:
        """Remove what the training of a point needed, once the point is written down."""
        if self._training(point).exists():
            self._detector.forget_training(self._training(point))
        for file in (self._start(point), self._teacher(point)):
            file.unlink(missing_ok=True)

    def _start(self, point: Point) -> Path:
        """What the training of a point begins with."""
        return (self._folder / point.file).with_suffix(".start.pt")

    def _teacher(self, point: Point) -> Path:
        return (self._folder / point.file).with_suffix(".teacher.pt")

    def _training(self, point: Point) -> Path:
        return self._folder / f"{Path(point.file).stem}-train"


def _validated(network: Detector, options: Options, progress: Progress) -> dict[str, float]:
    found = network.validate(
        options.data,
        imgsz=options.imgsz,
        batch=options.validation_batch,
        device=options.device,
        verbose=progress.hears,
    )
    return named_metrics(found, network.task)


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

    def __init__(self, path: Path, digest: str, networks: Mapping[str, Detector]) -> None:
        self._path, self._digest = path, digest
        self.points: list[Point] = []
        if path.is_file():
            with readable(path, "give another --name"):
                content = json.loads(path.read_text(encoding="utf-8"))
                self.points = [_read_point(point) for point in content["points"]]
                work = content["work"]
                if work == digest and not all(point.weights in networks for point in self.points):
                    raise ValueError
            if work != digest:
                raise UserError(
                    f"'{path.parent}' holds a frontier of other weights, data or options; give another --name."
                )

    def find(self, point: Point) -> Point | None:
        """The same as measured before."""
        return next((known for known in self.points if known.file == point.file), None)

    def add(self, point: Point) -> None:
        """Write one more point down, in the place of one that was not trained."""
        others = [known for known in self.points if known is not self.find(point)]
        self.points = sorted([*others, point], key=lambda p: (p.gflops, -p.share))
        if point.latency_ms is None:
            for known in self.points:
                known.latency_ms = None  # measured in turns with all others, or not at all
        self.save()

    def save(self) -> None:
        content: dict[str, Any] = {"work": self._digest, "points": [asdict(point) for point in self.points]}
        with atomic(self._path) as tmp:
            tmp.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _read_point(content: dict[str, Any]) -> Point:
    """A point as `_State` writes it.

    Raises:
        ValueError, TypeError: It is none.
    """
    point = Point(**content)
    point.imgsz, point.params, point.epochs = int(point.imgsz), int(point.params), int(point.epochs)
    figures = [point.share, point.gflops, *point.metrics.values(), *(point.untrained or {}).values()]
    figures += [ms for ms in (point.latency_ms, point.target_ms) if ms is not None]
    if not point.metrics or not all(0 <= figure < inf for figure in figures):
        raise ValueError
    return point


def _digest(options: Options, networks: Mapping[str, Detector]) -> str:
    """Whatever decides the figures but sizes and shares, which may be added to."""
    digest = hashlib.sha256()
    for path, detector in networks.items():
        digest.update(f"{path}{fingerprint(detector.network)}".encode())
    skipped = {
        "imgsz",
        "target_ms",
        "target_ratio",
        "target_gflops",
        "target_params",
        "project",
        "name",
        "exist_ok",
        "download",
    }
    digest.update(repr(sorted((k, v) for k, v in asdict(options).items() if k not in skipped)).encode())
    return digest.hexdigest()[:16]


def _result(
    points: list[Point], runtime: str, most: float, options: Options, missed: list[OutOfReachError]
) -> Frontier:
    if not points:
        raise missed[0]
    found = Frontier(points, runtime, next(iter(points[0].metrics)))
    if most == inf and not options.timed:
        return found
    longest = options.target_ms * (1 + NEAR) if options.timed else inf
    cheap = [p for p in points if p.gflops <= most * _ROUNDING and (p.latency_ms or 0) <= longest]
    if not cheap:
        least = min(points, key=lambda point: point.latency_ms if options.timed else point.gflops)
        raise UserError(
            f"No point costs as little as was asked for; the cheapest is {least.label} with {least.gflops:.2f} GFLOPs "
            f"and {least.latency_ms:.2f} ms; give smaller --sizes."
        )
    best = found.best = max(cheap, key=lambda point: point.quality)
    if best.share < 1:
        words = ["yoloprune", "prune", best.weights, *_target(best, options), "--imgsz", str(best.imgsz)]
        words += ["--data", str(options.data)] + ["--prune-head"] * options.prune_head
        words += ["--epochs", str(options.epochs)]
        found.command = shlex.join(words)
    return found


def _target(best: Point, options: Options) -> list[str]:
    """What to type for the target of a point."""
    if best.target_ms is None:
        return ["--target-ratio", f"{best.share:g}"]
    words = ["--target-ms", f"{best.target_ms:g}"]
    if options.latency_table:
        return [*words, "--latency-table", options.latency_table]
    words += ["--backend", options.backend]
    return words + (["--threads", str(options.threads)] if options.threads else [])
