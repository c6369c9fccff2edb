"""A pruned network as stock Ultralytics builds it: with a `model.yaml` that says the pruned widths.

Stock training, resuming and `YOLO(yaml).load(weights)` build a network from its YAML; of this one they build the pruned
one, without yoloprune. The rows are `stock_rows`'.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from yoloprune.detectors.base import tensors
from yoloprune.errors import UserError

from .guard import offline, quiet
from .internals import described
from .outputs import photograph
from .stock_rows import RULES, Row, description, rows_of

__all__ = ["check_portable", "portable"]

_EXACT = 1e-9  # largest relative difference in double precision; the same sums in another order leave 1e-14


def portable(network: nn.Module) -> nn.Module:
    """The same network, built by stock Ultralytics from rows that say its widths.

    Args:
        network: An Ultralytics task model; it is not changed.

    Returns:
        A network with the same parameters and outputs, in eval mode and float32. Its `yaml` is plain, and says under
        "rows_of_layer" which rows each layer of `network` has become.

    Raises:
        UserError: A layer or a width cannot be said in stock rows; the message names the layer and the rule.
    """
    rows, written = check_portable(network)
    with quiet(), offline(), torch.random.fork_rng(devices=[]):
        new = type(network)(copy.deepcopy(written), ch=written.get("channels", 3), verbose=False)
    state = {f"model.{i}.{key}": tensor for i, row in enumerate(rows) for key, tensor in row.tensors.items()}
    new.load_state_dict(state)
    for name in ("names", "args", "task"):
        if hasattr(network, name):
            setattr(new, name, copy.deepcopy(getattr(network, name)))
    new = new.float().eval()
    if not _difference(network, new) < _EXACT:
        raise UserError("The network's outputs are others when stock rows build it, so it has no portable form.")
    return new


def check_portable(network: nn.Module) -> tuple[list[Row], dict[str, Any]]:
    """Check that stock rows say a network's widths.

    Args:
        network: An Ultralytics task model.

    Returns:
        The rows, and the `model.yaml` that has them.

    Raises:
        UserError: They do not; the first layer that they cannot say is named.
    """
    if network.is_fused():
        raise UserError("The network is fused, for inference alone; give the checkpoint that was trained.")
    rows = rows_of(network)
    written = description(network, rows)
    with quiet(), offline():
        layers = described(copy.deepcopy(written))
    for row, layer in zip(rows, layers, strict=True):
        built = layer.state_dict()
        for key, tensor in row.tensors.items():
            if key in built and built[key].shape == tensor.shape:
                continue
            where = f"{row.origin}.{key}".removesuffix(".weight").removesuffix(".conv")
            makes = f"{built[key].shape[0]}" if key in built else "none"
            rule = RULES.get(row.module.removesuffix("26"))
            raise UserError(
                f"{where} has {len(tensor)} channels, but a stock {row.module} row makes {makes}"
                f"{f' ({rule})' if rule else ''}; prune with --portable, which stays within what rows say."
            )
    return rows, written


def _difference(a: nn.Module, b: nn.Module) -> float:
    """The largest difference of any output of two networks on a photograph, in double precision and relative."""
    size = 2 * int(max(a.stride.max(), 32))
    image = photograph(size, size, a.yaml.get("channels", 3)).double()
    with torch.inference_mode():
        ours, theirs = (list(tensors(copy.deepcopy(n).cpu().double().eval()(image))) for n in (a, b))
    if [t.shape for t in ours] != [t.shape for t in theirs]:
        return float("inf")
    return max(float((x - y).abs().max() / x.abs().max().clamp(min=1e-9)) for x, y in zip(ours, theirs, strict=True))
