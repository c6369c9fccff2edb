"""What `yoloprune sensitivity` measured, in the place of what a criterion supposes of each layer."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from yoloprune.errors import UserError
from yoloprune.graph import Graph
from yoloprune.graph.budget import chains, tied_set

__all__ = ["Measured", "check_measured", "layers_of", "prior", "read_measured"]

_FLOOR = 1e-3  # of the median sensitivity: below it a divergence is rounding noise, and a prior of 0 would rank nothing


class Row(Protocol):
    """What is asked of a row: layers of a tied set, numbers of channels removed, error per GFLOP that this saved."""

    @property
    def layers(self) -> tuple[str, ...]: ...
    @property
    def removed(self) -> tuple[int, ...]: ...
    @property
    def per_gflop(self) -> float: ...


class Measured(NamedTuple):
    """One tied set as it stands in a file; see `yoloprune.yolo.sensitivity.SensitivityRow`."""

    layers: tuple[str, ...]
    removed: tuple[int, ...]
    per_gflop: float


def read_measured(path: Path) -> list[Measured]:
    """Read the CSV file of `yoloprune sensitivity`.

    Raises:
        UserError: There is no such file, or it is another one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        removed, per_gflop = defaultdict(list), {}
        for line in lines:
            layers = tuple(line["layers"].split(" + "))
            removed[layers].append(int(line["removed"]))
            per_gflop[layers] = float(line["error_per_gflop"])
    except OSError as error:
        raise UserError(f"The sensitivity table {path} cannot be read: {error.strerror}.") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no table of yoloprune sensitivity; give the CSV file that it wrote.") from error
    if not removed:
        raise UserError(f"The sensitivity table {path} is empty; give the CSV file of yoloprune sensitivity.")
    return [Measured(layers, tuple(counts), per_gflop[layers]) for layers, counts in removed.items()]


def check_measured(path: Path, graph: Graph) -> None:
    """Check that the CSV file of `yoloprune sensitivity` is of this network.

    Raises:
        UserError: It has no row for a tied set of the graph, or is no such file.
    """
    prior(read_measured(path), graph, np.ones(graph.n_components))


def layers_of(graph: Graph, components: np.ndarray) -> tuple[str, ...]:
    """The layers that produce these components, in the graph's order."""
    inside = np.zeros(graph.n_components, bool)
    inside[components] = True
    names = (group.name.rpartition(".")[0] for group in graph.groups if inside[group.components].any())
    return tuple(dict.fromkeys(names))


def prior(rows: Iterable[Row], graph: Graph, scores: np.ndarray) -> np.ndarray:
    """Multipliers of scores that put what was measured in the place of what the criterion supposes of each tied set.

    With them the mean score of the channels that were removed from a set is proportional to the error per GFLOP that
    their removal was seen to cause; within a set the order stays.

    Args:
        rows: What was measured, a row for each tied set: `Sensitivity.rows` or what `read_measured` returned.
        graph: The graph of the network, traced with the same `prune_head`; channels may have gone since.
        scores: The scores to multiply, float64 (n_components,).

    Returns:
        float64 array (n_components,), positive, with geometric mean 1 over the sets; 1 for all other components.

    Raises:
        UserError: A set of the graph has no row: the table is of another network or head.
    """
    measured = {row.layers: row for row in rows}
    members, seen, supposed = [], [], []
    for chain in chains(graph, scores, round_to=1):
        if not chain.steps:
            continue
        components = tied_set(graph, chain.steps[0][0])
        row = measured.get(layers_of(graph, components))
        if row is None:
            layers = " + ".join(layers_of(graph, components))
            raise UserError(
                f"The sensitivity table has no row for {layers}; measure this network, with --prune-head if it is "
                "pruned with it."
            )
        members.append(components)
        seen.append(row.per_gflop)
        supposed.append(np.mean([scores[np.concatenate(chain.steps[: max(1, n)])].mean() for n in row.removed]))
    seen, supposed = (np.maximum(v, max(_FLOOR * np.median(v), 1e-300)) for v in (seen, supposed))
    factors = np.log(seen) - np.log(supposed)
    factors = np.exp(factors - factors.mean())
    out = np.ones(graph.n_components)
    for components, factor in zip(members, factors, strict=True):
        out[components] = factor
    return out
