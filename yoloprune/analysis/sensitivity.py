"""How much the predictions depend on each layer's width: every tied set of channels is pruned alone, and measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from yoloprune.criteria import CRITERIA, score
from yoloprune.detectors.base import Detector
from yoloprune.errors import UserError
from yoloprune.execution import evaluation
from yoloprune.files import atomic
from yoloprune.graph import Graph
from yoloprune.graph.budget import chains, tied_set
from yoloprune.pipeline.data import choose_data, fitting_imgsz
from yoloprune.pipeline.options import check_measuring
from yoloprune.pipeline.state import fingerprint
from yoloprune.progress import counter, tracked
from yoloprune.report import layer_label

__all__ = ["Sensitivity", "SensitivityRow", "Unfinished", "sensitivity"]

_BATCH = 8


@dataclass(frozen=True)
class SensitivityRow:
    """One tied set: channels that lose equally many. Lists have one entry per ratio of the table.

    Attributes:
        layers: Layers that produce the channels.
        width: How many channels each of its parts has.
        removed: How many of them were removed.
        errors: Divergence of the predictions from the unpruned network's, see `Sensitivity.measure`.
        saved: GFLOPs at 640 px that this saves.
        scores: Mean score of the removed channels.
        components: The set's components in the graph, int64.
    """

    layers: tuple[str, ...]
    width: int
    removed: tuple[int, ...]
    errors: tuple[float, ...]
    saved: tuple[float, ...]
    scores: tuple[float, ...]
    components: np.ndarray

    @property
    def name(self) -> str:
        """The layers as those know them who read Ultralytics' YAML: `2.m.0.cv1` for `model.2.m.0.cv1.conv`."""
        return " + ".join(map(layer_label, self.layers))

    @property
    def per_gflop(self) -> float:
        """Error per GFLOP saved, the mean over the ratios."""
        return float(np.mean(np.divide(self.errors, self.saved)))


@dataclass(frozen=True)
class Sensitivity:
    """What `sensitivity` measured.

    Attributes:
        ratios: Shares of each set's channels that were removed.
        rows: One per tied set, in the order of the network.
        criterion: By which channels were ranked.
        measure: What the errors are.
        gflops: GFLOPs of the unpruned network at 640 px.
    """

    ratios: tuple[float, ...]
    rows: tuple[SensitivityRow, ...]
    criterion: str
    measure: str
    gflops: float

    def ranked(self) -> list[SensitivityRow]:
        """The rows, the most sensitive (error per GFLOP saved) first."""
        return sorted(self.rows, key=lambda row: -row.per_gflop)


def sensitivity(
    detector: Detector,
    data: str | None = None,
    *,
    imgsz: int | None = None,
    images: int = 32,
    ratios: Sequence[float] = (0.25, 0.5, 0.75),
    criterion: str = "output_error",
    prune_head: bool = False,
    keep: Sequence[str] = (),
    device: str | None = None,
    seed: int = 0,
    unfinished: Path | None = None,
) -> Sensitivity:
    """Remove shares of each tied set's weakest channels, from the network alone, and see how far predictions move.

    Nothing is reconstructed or trained, so errors are those before any recovery. The error is the divergence of class
    scores and boxes that distillation minimises (see `prediction_divergence`); where the head has no such predictions,
    the relative squared change of its outputs.

    Args:
        detector: The detector; left as it is.
        data: Data YAML, whose training images are used without their labels (but by the criteria taylor and hessian);
            by default what the checkpoint was trained on.
        imgsz: Image size in px; by default the one that the weights were trained at.
        images: How many images.
        ratios: Shares of channels to remove; each set keeps at least one channel.
        criterion: By which channels are ranked; a name in `yoloprune.criteria.CRITERIA`.
        prune_head: Whether the head's hidden layers are measured too.
        keep: Names or patterns of modules whose output channels stay and are not measured.
        device: As in Ultralytics.
        seed: Seed of scoring.
        unfinished: JSON file for what is measured so far: after an interruption the same call resumes from it.

    Raises:
        UserError: A value is out of its range, the data cannot be used, or nothing can be pruned.

    Examples:
        >>> table = sensitivity(detectors.load("yolov8n.pt"), "coco8.yaml")  # doctest: +SKIP
        >>> [row.name for row in table.ranked()[:3]]  # doctest: +SKIP
    """
    check_measuring(imgsz=imgsz, images=images, ratios=ratios, criterion=criterion)
    imgsz, _ = fitting_imgsz(detector, imgsz)
    needs_labels = CRITERIA[criterion].needs_loss
    data = choose_data(data, detector, images=True, labels=needs_labels, ranks=needs_labels, validates=False)
    network = detector.network
    graph = detector.trace(prune_head, keep)
    own = detector.gflops()
    home = next(network.parameters()).device
    place = detector.place(device)
    batches = detector.calibration_batches(data, images=images, imgsz=imgsz, batch=_BATCH, device=place)
    try:
        network.to(place)
        with evaluation(network):
            scores = score(
                graph,
                network,
                criterion,
                batches=batches,
                loss=detector.training_loss({}) if needs_labels else detector.ranking_loss(seed),
                seed=seed,
                tell=counter("ranking batch"),
            )
            measure = detector.change([batch["img"] for batch in batches])
            trials = _trials(graph, scores, ratios)
            work = (fingerprint(network).encode(), *(batch["img"].cpu().numpy().tobytes() for batch in batches))
            found = Unfinished(unfinished, (*work, *(removed.tobytes() for removed in trials)))
            for removed in tracked(trials[len(found.results) :], "trial", done=len(found.results)):
                found.add(_try(graph, network, scores, measure, own, removed))
    finally:
        network.to(home)
    rows = [
        _row(graph, trials[i : i + len(ratios)], found.results[i : i + len(ratios)])
        for i in range(0, len(trials), len(ratios))
    ]
    order = {parameter: i for i, parameter in enumerate(dict(network.named_parameters()))}
    rows.sort(key=lambda row: order.get(f"{row.layers[0]}.weight", len(order)))
    return Sensitivity(tuple(ratios), tuple(rows), criterion, measure.text, own)


def _trials(graph: Graph, scores: np.ndarray, ratios: Sequence[float]) -> list[np.ndarray]:
    """Components to remove, for each set and, within it, each ratio."""
    trials = [
        np.concatenate(chain.steps[: max(1, min(round((len(chain.steps) + 1) * ratio), len(chain.steps)))])
        for chain in chains(graph, scores, round_to=1)
        if chain.steps
        for ratio in ratios
    ]
    if not trials:
        raise UserError("No layer of this model can lose a channel, so there is nothing to measure.")
    return trials


def _try(
    graph: Graph,
    network: nn.Module,
    scores: np.ndarray,
    measure: Callable[[nn.Module], float],
    own: float,
    removed: np.ndarray,
) -> tuple[float, float, float]:
    """Error, GFLOPs saved and mean score of removing these components."""
    mask = np.zeros(graph.n_components, bool)
    mask[removed] = True
    plan = graph.plan(mask)
    saved = own * (1 - plan.macs() / graph.macs())
    return measure(plan.apply(network)), saved, float(scores[removed].mean())


def _row(graph: Graph, trials: list[np.ndarray], found: list[tuple[float, float, float]]) -> SensitivityRow:
    components = tied_set(graph, trials[0][0])
    parts = len(np.unique(graph.tied[components, 1]))
    layers = _layers_of(graph, components)
    errors, saved, scores = zip(*found, strict=True)
    removed = tuple(len(trial) // parts for trial in trials)
    return SensitivityRow(layers, len(components) // parts, removed, errors, saved, scores, components)


def _layers_of(graph: Graph, components: np.ndarray) -> tuple[str, ...]:
    """The layers that produce these components, in the graph's order."""
    inside = np.zeros(graph.n_components, bool)
    inside[components] = True
    names = (group.name.rpartition(".")[0] for group in graph.groups if inside[group.components].any())
    return tuple(dict.fromkeys(names))


class Unfinished:
    """Results that come one by one, each of them on disk before the next is worked for.

    A file that belongs to other work, or is damaged, is begun anew.

    Args:
        path: JSON file; None keeps nothing.
        work: Whatever decides the results, as bytes.

    Attributes:
        results: What has been found so far.
    """

    def __init__(self, path: Path | None, work: Iterable[bytes]) -> None:
        digest = hashlib.sha256()
        for part in work:
            digest.update(part)
        self.path, self._work = path, digest.hexdigest()
        self.results: list[Any] = []
        if path is not None and path.is_file():
            with suppress(ValueError, KeyError, TypeError, RecursionError):
                known = json.loads(path.read_text(encoding="utf-8"))
                if known["work"] == self._work and all(map(_is_measured, known["results"])):
                    self.results = list(known["results"])

    def add(self, result: Any) -> None:
        """Write down one more result; numbers and lists of them come back as they were."""
        self.results.append(result)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(self.path) as tmp:
                tmp.write_text(json.dumps({"work": self._work, "results": self.results}), encoding="utf-8")


def _is_measured(result: Any) -> bool:
    """Whether this is a number, or a list of numbers."""
    return all(type(value) in (int, float) for value in (result if isinstance(result, list) else [result]))
