"""Turning "these parts lose equally many" into sets of classes that are pruned in step."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

__all__ = ["distinct", "resolve"]


def distinct(tie: np.ndarray) -> np.ndarray | None:
    """Rewrite a tie so that no component occurs twice in a part.

    Where one component stands for several positions of a part (a head for its channels), each other part is split into
    as many parts, of which each loses one where that component goes.

    Args:
        tie: Component ids, (parts, length).

    Returns:
        Component ids, (more parts, smaller length), or None where no plan can satisfy all parts.
    """
    ordered = np.sort(tie, axis=1)
    repeats = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    if not repeats.any() or _same(ordered):
        return tie
    repeated = np.flatnonzero(repeats).tolist()
    _, inverse, count = np.unique(tie[repeated[0]], return_inverse=True, return_counts=True)
    if len(np.unique(count)) != 1:
        return None
    blocks = tie[:, np.argsort(inverse, kind="stable")].reshape(len(tie), -1, count[0])
    rows: list[np.ndarray] = []
    for i, block in enumerate(blocks):
        if i not in repeated:
            rows.extend(block.T)
        elif (block == block[:, :1]).all():
            rows.append(block[:, 0])
        else:
            return None
    return distinct(np.stack(rows))  # rows that did not repeat at first may hold one component in several blocks


def resolve(classes: np.ndarray, ties: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Refine classes of components until every tie pairs whole classes one to one.

    Columns of a tie whose parts belong to different classes are distinguished, and the classes split accordingly,
    until nothing changes. Then the classes that are opposite each other in a tie must lose equally many, and have
    equal sizes.

    Args:
        classes: Class of each component, shape (n,), -1 for components that no plan may touch.
        ties: Ids of components that have classes, each of shape (parts, length), as `distinct` gives them.

    Returns:
        Refined class of each component (n,), and for each refined class the number of its tied set.
    """
    used = [tie for tie in ties if not _same(np.sort(tie, axis=1))]
    if used:
        classes = _refine(classes, used)
    n = int(classes.max(initial=-1)) + 1
    facing = [classes[tie] for tie in used]
    a = np.concatenate([np.zeros(0, np.int64), *(np.broadcast_to(c[0], c[1:].shape).ravel() for c in facing)])
    b = np.concatenate([np.zeros(0, np.int64), *(c[1:].ravel() for c in facing)])
    return classes, connected_components(coo_matrix((np.ones(len(a), bool), (a, b)), (n, n)), directed=False)[1]


def _same(ordered: np.ndarray) -> bool:
    """Whether all parts hold the same components equally often, and so lose the same; each part is sorted."""
    return bool((ordered == ordered[:1]).all())


def _refine(classes: np.ndarray, ties: list[np.ndarray]) -> np.ndarray:
    """Split classes until components of one class always face components of one class."""
    members = np.concatenate([tie.T.ravel() for tie in ties])  # column by column
    part = np.concatenate([np.tile(np.arange(len(tie)), tie.shape[1]) for tie in ties])
    heights = np.concatenate([np.full(tie.shape[1], len(tie)) for tie in ties])
    starts = np.cumsum(heights) - heights
    row = np.repeat(np.arange(len(ties)), [tie.size for tie in ties]) * (int(heights.max()) + 1) + part
    salt = np.random.default_rng(0).integers(1, 2**62, size=int(row.max()) + 1, dtype=np.int64)
    count = len(np.unique(classes))
    with np.errstate(over="ignore"):
        while True:
            column = np.add.reduceat(_hash(_hash(classes)[members] ^ salt[part]), starts)
            mixed = _hash(classes)
            np.add.at(mixed, members, _hash(np.repeat(column, heights) ^ salt[row]))
            refined = np.full_like(classes, -1)
            live = classes >= 0
            refined[live] = np.unique(mixed[live], return_inverse=True)[1]
            size = len(np.unique(refined))
            if size == count:
                return refined
            classes, count = refined, size


def _hash(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> 31)) * np.int64(0x7FB5D329728EA185)
    x = (x ^ (x >> 27)) * np.int64(-0x7E25210B43D22BB3)
    mixed: np.ndarray = x ^ (x >> 33)
    return mixed
