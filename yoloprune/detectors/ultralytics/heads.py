"""The class layers of Ultralytics' heads: how many classes they have, and new ones for another number."""

from __future__ import annotations

import math

import torch
from torch import nn
from ultralytics.nn.modules.head import Classify, Detect, RTDETRDecoder, WorldDetect, YOLOEDetect
from ultralytics.nn.modules.utils import bias_init_with_prob
from ultralytics.nn.tasks import ClassificationModel

from yoloprune.detectors.base import ClassLayers

__all__ = ["can_distill", "class_count", "class_layers", "class_names", "refit_classes"]


def class_count(network: nn.Module) -> int:
    """The number of classes of an Ultralytics network's head."""
    head = network.model[-1]
    return head.linear.out_features if isinstance(head, Classify) else head.nc


def can_distill(network: nn.Module) -> bool:
    """Whether the head makes class scores and boxes on a grid, which both networks have alike."""
    head = network.model[-1]
    return hasattr(head, "dense") or (isinstance(head, Detect) and not isinstance(head, (WorldDetect, YOLOEDetect)))


def class_layers(network: nn.Module) -> ClassLayers:
    """The class layers of an Ultralytics network: of all scales, and of both branches of an end-to-end head."""
    head, at = network.model[-1], f"model.{len(network.model) - 1}"
    if isinstance(head, Classify):
        return ClassLayers([f"{at}.linear"], softmax=True)
    if isinstance(head, RTDETRDecoder):  # in evaluation the last layer's scores are what comes out
        return ClassLayers([f"{at}.dec_score_head.{len(head.dec_score_head) - 1}"], in_order=False)
    if isinstance(head, (WorldDetect, YOLOEDetect)):
        return ClassLayers([f"{at}.cv4.{i}" for i in range(head.nl)])
    branches = [name for name in ("cv3", "one2one_cv3") if getattr(head, name, None) is not None]
    return ClassLayers(
        [f"{at}.{name}.{i}.{len(branch) - 1}" for name in branches for i, branch in enumerate(getattr(head, name))]
    )


def class_names(network: nn.Module) -> dict[int, str]:
    """Class index -> name of an Ultralytics network; numbers where it does not name each of its classes."""
    names, nc = getattr(network, "names", None) or {}, class_count(network)
    names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    return names if len(names) == nc else {i: str(i) for i in range(nc)}


def refit_classes(network: nn.Module, nc: int) -> None:
    """Replace, in place, the last class layers of the head by fresh ones for `nc` classes.

    Widths of hidden layers stay. Biases start as in Ultralytics' `bias_init` (a prior of 5 objects in a 640 px image)
    and in RT-DETR's `_reset_parameters`; other layers, box biases among them, are not touched.
    """
    head = network.model[-1]
    if hasattr(head, "refit"):  # of another family
        head.refit(nc)
    elif isinstance(head, Classify):
        ClassificationModel.reshape_outputs(network, nc)
    elif isinstance(head, RTDETRDecoder):
        _refit_rtdetr(head, nc)
    elif isinstance(head, WorldDetect):
        head.nc, head.no = nc, nc + 4 * head.reg_max  # classes are text embeddings there
        network.txt_feats = torch.randn(1, nc, network.txt_feats.shape[-1])
    elif isinstance(head, Detect):
        _refit_detect(head, nc)
    else:
        raise NotImplementedError(f"no class layers known for the head {type(head).__name__}")
    network.nc = nc
    network.yaml = {**network.yaml, "nc": nc}
    network.names = {i: str(i) for i in range(nc)}


def _refit_detect(head: Detect, nc: int) -> None:
    for branches in (getattr(head, name, None) for name in ("cv3", "one2one_cv3")):
        for branch, stride in zip(branches or (), head.stride.tolist(), strict=False):
            branch[-1] = _convolution(branch[-1], nc)
            nn.init.constant_(branch[-1].bias, math.log(5 / nc / (640 / stride) ** 2))
    semantic = getattr(getattr(head, "proto", None), "semseg", None)  # YOLO26-seg's auxiliary output
    if semantic is not None:
        semantic[-1] = _convolution(semantic[-1], nc)
    head.nc, head.no = nc, nc + 4 * head.reg_max


def _refit_rtdetr(head: RTDETRDecoder, nc: int) -> None:
    prior = bias_init_with_prob(0.01) / 80 * nc
    device = head.enc_score_head.weight.device
    head.denoising_class_embed = nn.Embedding(nc, head.denoising_class_embed.embedding_dim, device=device)
    head.enc_score_head = nn.Linear(head.enc_score_head.in_features, nc, device=device)
    head.dec_score_head = nn.ModuleList(nn.Linear(old.in_features, nc, device=device) for old in head.dec_score_head)
    for layer in (head.enc_score_head, *head.dec_score_head):
        nn.init.constant_(layer.bias, prior)
    head.nc = nc


def _convolution(old: nn.Conv2d, nc: int) -> nn.Conv2d:
    return nn.Conv2d(old.in_channels, nc, old.kernel_size, old.stride, old.padding, device=old.weight.device)
