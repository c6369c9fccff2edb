"""Sizes that remember what they count: what their arithmetic lets shrink, ties or freezes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from yoloprune.graph.labels import Ledger
from yoloprune.graph.tracing.symbolic_sizes import SymbolicCount, SymbolicShape, SymbolicSize, is_fixed


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.allocate("weight", torch.empty(12, 8))  # labels 1 to 12 and 13 to 20
    return ledger


@pytest.fixture
def size(ledger) -> SymbolicSize:
    return SymbolicSize(12, torch.arange(1, 13, dtype=torch.int32), ledger)


@pytest.mark.parametrize(
    ("derive", "value"), [(lambda n: n // 4, 3), (lambda n: 2 * n, 24), (lambda n: n + 0, 12), (lambda n: n + n, 24)]
)
def test_proportions_stay_sizes(size, ledger, derive, value) -> None:
    derived = derive(size)
    assert derived == value
    assert not is_fixed(derived)
    assert not ledger.frozen


@pytest.mark.parametrize(
    ("derive", "value"),
    [
        (lambda n: n + 1, 13),
        (lambda n: n // 5, 2),
        (lambda n: n**-0.5, 12**-0.5),
        (lambda n: 24 / n, 2.0),
        (lambda n: n * 0.5, 6.0),
        (lambda n: float(n), 12.0),
        (lambda n: n % 5, 2),
        (lambda n: float(np.sqrt(n)), 12**0.5),
    ],
)
def test_other_numbers_freeze_what_they_count(size, ledger, derive, value) -> None:
    derived = derive(size)
    assert derived == pytest.approx(value)
    assert is_fixed(derived)
    assert [labels.tolist() for labels, _ in ledger.frozen] == [list(range(1, 13))]


def test_a_check_of_divisibility_freezes_nothing(size, ledger) -> None:
    assert size % 4 == 0
    assert not ledger.frozen


def test_copies_and_files_hold_plain_sizes(size) -> None:
    shape = SymbolicShape((size, 3))
    for other in (copy.deepcopy(shape), pickle.loads(pickle.dumps(shape))):
        assert type(other) is torch.Size
        assert other == (12, 3)
    assert type(copy.deepcopy(size)) is int


@pytest.mark.parametrize("use", [lambda n: n // 2, lambda n: n + n, lambda n: -n, lambda n: n * 2, lambda n: n + 0])
def test_a_count_that_is_used_before_it_has_labels_freezes_them_when_they_come(ledger, use) -> None:
    heads = SymbolicCount(8, ledger)
    assert is_fixed(use(heads))
    assert not ledger.frozen
    heads.bind(torch.arange(13, 21, dtype=torch.int32)[None])
    assert [labels.tolist() for labels, _ in ledger.frozen] == [list(range(13, 21))]


def test_a_size_that_a_count_divided_loses_whole_parts(ledger, size) -> None:
    heads = SymbolicCount(4, ledger)
    assert size // heads == 3
    assert not ledger.ties
    heads.bind(torch.arange(13, 17, dtype=torch.int32)[None])
    assert ledger.ties[0].tolist() == [[1, 4, 7, 10], [2, 5, 8, 11], [3, 6, 9, 12], [13, 14, 15, 16]]
