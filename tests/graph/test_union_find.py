"""Which labels belong together, compared with SciPy's connected components."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from yoloprune.graph.union_find import FROZEN, UnionFind

pairs = st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20), max_size=4)


@given(pairs)
def test_components_are_those_of_the_pairs_and_numbered_by_their_lowest_label(parts) -> None:
    union_find = UnionFind()
    for number, part in enumerate(parts):
        a, b = torch.tensor(part, dtype=torch.int32).reshape(-1, 2).unbind(1)
        union_find.add(a, b, 31)
        if number % 2:
            union_find.components(31)  # what is united on the way stays so
    component, met = union_find.components(40)

    plain = [(a, b) for part in parts for a, b in part if FROZEN not in (a, b)]
    rows, columns = np.array(plain, int).reshape(-1, 2).T
    _, expected = connected_components(coo_matrix((np.ones(len(plain)), (rows, columns)), (40, 40)), directed=False)
    assert np.array_equal(component[:, None] == component, expected[:, None] == expected)
    lowest = np.unique(component, return_index=True)[1]
    assert (np.diff(lowest) > 0).all()
    assert set(met) == {label for part in parts for pair in part if FROZEN in pair for label in pair}


def test_long_chains_in_any_order_are_one_component() -> None:
    links = torch.from_numpy(np.random.default_rng(0).permutation(np.arange(1, 100_000)).astype(np.int32))
    union_find = UnionFind()
    union_find.add(links, links + 1, 100_001)
    component, _ = union_find.components(100_001)
    assert component.tolist() == [0] + [1] * 100_000
