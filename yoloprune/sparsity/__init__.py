"""Group-sparse training: the coupled weights of a channel shrink together, so that pruning it costs little.

sparsity = GroupSparsity(graph, model, strength=1e-3)
loss.backward()
sparsity()  # adds its gradient; then clip and step
"""

from __future__ import annotations

from .distribution import Distribution, append_row, distribution, read_rows
from .options import TABLE, Sparsity
from .regulariser import SCOPES, GroupSparsity
from .schedule import Schedule

__all__ = [
    "SCOPES",
    "TABLE",
    "Distribution",
    "GroupSparsity",
    "Schedule",
    "Sparsity",
    "append_row",
    "distribution",
    "read_rows",
]
