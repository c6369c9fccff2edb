"""From the form that trains to the form that is deployed: the same outputs from fewer layers."""

from __future__ import annotations

import copy
from collections.abc import Iterable

from torch import nn

from .heads import Detect, IDetect
from .network import Network, given, kept_places, official_name

__all__ = ["deploy_form"]


def deploy_form(network: Network) -> Network:
    """A copy without implicit knowledge and auxiliary heads, as the published deploy form has it.

    Implicit vectors are folded into the head's convolutions, and layers that only the auxiliary head reads are dropped;
    later layers move up. Batch norms and RepConv's branches stay, as published: `Network.fuse` folds them. A pruned
    network, and one that is in deploy form already, do as well.
    """
    network = copy.deepcopy(network)
    old = network.head
    if not isinstance(old, IDetect):
        return network
    old.fuse()
    head = _plain(old)
    sources = [[j % layer.i if j < 0 < layer.i else j for j in given(layer.f)] for layer in network.model]
    needed = _needed(sources, sources[old.i][: old.nl])
    place = {before: after for after, before in enumerate([*needed, old.i])} | {-1: -1}  # -1: the image
    rows = [*network.yaml["backbone"], *network.yaml["head"]]
    layers, kept, save = [], [], set()
    for before, layer in [*((i, network.model[i]) for i in needed), (old.i, head)]:
        after = layer.i = place[before]
        layer.f = _moved(layer.f, [place[j] for j in sources[before] if j in place], after)
        save.update(kept_places(layer))
        _, number, name, arguments = rows[before]
        kept.append([layer.f, number, "Detect" if layer is head else name, arguments])
        layers.append(layer)
    backbone = sum(i < len(network.yaml["backbone"]) for i in needed)
    network.model, network.save = nn.Sequential(*layers), sorted(save)
    network.yaml = {**network.yaml, "backbone": kept[:backbone], "head": kept[backbone:]}
    return network


def _plain(old: IDetect) -> Detect:
    """The lead head alone, with its convolutions."""
    sizes = old.anchors.new_zeros(old.nl, 2 * old.na, device="cpu").tolist()
    head = Detect(old.nc, sizes, anchor_grid=hasattr(old, "anchor_grid"))
    head.m, head.anchors, head.stride, head.f = old.m, old.anchors, old.stride, old.f
    if hasattr(old, "anchor_grid"):
        head.anchor_grid = old.anchor_grid
    head.official = old.official
    head.type, head.np = official_name(Detect), sum(p.numel() for p in head.parameters())
    return head.train(old.training)


def _needed(sources: list[list[int]], last: Iterable[int]) -> list[int]:
    """Places of the layers on which these depend, themselves included, in order."""
    found: set[int] = set()
    waiting = list(last)
    while waiting:
        i = waiting.pop()
        if i >= 0 and i not in found:
            found.add(i)
            waiting += sources[i]
    return sorted(found)


def _moved(old: int | list[int], places: list[int], place: int) -> int | list[int]:
    """Where a layer's input comes from after layers have moved; what was relative stays relative."""
    new = [j - place if before < 0 else j for before, j in zip(given(old), places, strict=False)]
    return new[0] if isinstance(old, int) else new
