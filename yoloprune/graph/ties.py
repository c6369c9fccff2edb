"""Turning "these parts lose equally many" into sets of classes that are pruned in step."""

from __future__ import annotations

import numpy as np

__all__ = ["distinct", "resolve"]


def distinct(tie: np.ndarray) -> np.ndarray | None:
    """Rewrite a tie so that no component stands twice in a part.

    Where one component stands for several places of a part (a head for its channels), each other part is split into as
    many parts, of which each loses one where that component goes.

    Args:
        tie: Component ids, (parts, length).

    Returns:
        Component ids, (more parts, smaller length), or None where no plan can do justice to all parts.
    """
    counts = [np.unique(row, return_inverse=True, return_counts=True) for row in tie]
    repeated = [i for i, (_, _, count) in enumerate(counts) if (count > 1).any()]
    if not repeated:
        return tie
    if all(np.array_equal(found, counts[0][0]) for found, _, _ in counts):
        return tie
    _, inverse, count = counts[repeated[0]]
    if len(np.unique(count)) != 1:
        return None
    blocks = tie[:, np.argsort(inverse, kind="stable")].reshape(len(tie), -1, count[0])
    rows = []
    for i, block in enumerate(blocks):
        if i not in repeated:
            rows.extend(block.T)
        elif (block == block[:, :1]).all():
            rows.append(block[:, 0])
        else:
            return None
    return np.stack(rows)


def resolve(classes: np.ndarray, ties: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Refine classes of components until every tie pairs whole classes one to one.

    Columns of a tie whose parts belong to different classes are told apart, and the classes split accordingly, until
    nothing changes. Then the classes that face each other in a tie must lose equally many, and have equal sizes.

    Args:
        classes: Class of each component, shape (n,), -1 for components that no plan may touch.
        ties: Component ids, each of shape (parts, length).

    Returns:
        Refined class of each component (n,), and for each refined class the number of its tied set.
    """
    used = []
    for tie in ties:
        rows = [np.unique(row) for row in tie]
        if all(np.array_equal(row, rows[0]) for row in rows):
            continue  # the parts are the same components
        used.append(tie)
    rng = np.random.default_rng(0)
    salt = rng.integers(1, 2**62, size=len(used), dtype=np.int64)
    count = len(np.unique(classes))
    with np.errstate(over="ignore"):
        while used:
            mixed = _hash(classes.copy())
            for t, tie in enumerate(used):
                signature = np.zeros(tie.shape[1], np.int64)
                for p, row in enumerate(tie):
                    signature = _hash(signature * 31 + classes[row] + p)
                for p, row in enumerate(tie):
                    seen, first = np.unique(row, return_index=True)
                    mixed[seen] += _hash(signature[first] ^ (salt[t] + p))
            mixed[classes < 0] = -1
            refined = np.unique(mixed, return_inverse=True)[1].astype(np.int64)
            refined[classes < 0] = -1
            refined[refined >= 0] = np.unique(refined[refined >= 0], return_inverse=True)[1]
            size = len(np.unique(refined))
            done, count, classes = size == count, size, refined
            if done:
                break
    n = int(classes.max(initial=-1)) + 1
    parent = np.arange(n)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for tie in used:
        facing = classes[tie]
        for column in np.unique(facing.T, axis=0):
            if (column < 0).any():
                continue
            for c in column[1:]:
                parent[root(int(c))] = root(int(column[0]))
    return classes, np.array([root(i) for i in range(n)], np.int64)


def _hash(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> 31)) * np.int64(0x7FB5D329728EA185)
    x = (x ^ (x >> 27)) * np.int64(-0x7E25210B43D22BB3)
    return x ^ (x >> 33)
