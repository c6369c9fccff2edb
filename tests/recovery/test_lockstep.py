"""Passes that stop at chosen places."""

from __future__ import annotations

import threading

import pytest

from yoloprune.recovery.lockstep import Walk, pause


def count(to, seen):
    for i in range(1, to + 1):
        pause(i)
        seen.append(i)


def test_walks_alternate_and_end():
    seen = []
    walks = [Walk(lambda: count(2, seen)) for _ in range(3)]
    assert [w.step() for w in walks] == [1, 1, 1]
    assert seen == []
    assert [w.step() for w in walks] == [2, 2, 2]
    assert [w.step() for w in walks] == [None] * 3
    assert [w.step() for w in walks] == [None] * 3
    assert seen == [1, 1, 1, 2, 2, 2]


def test_errors_reach_the_one_who_steps():
    walk = Walk(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        walk.step()
    walk.close()


def test_closed_walks_leave_no_thread_behind():
    before = threading.active_count()
    seen = []
    walks = [Walk(lambda: count(3, seen)) for _ in range(4)]
    walks[0].step()
    for walk in walks:
        walk.close()
    assert threading.active_count() == before
    assert seen == []
