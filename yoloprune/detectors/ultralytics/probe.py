"""A label-free stand-in for the training loss: how much a detector's predictions depend on the layers before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["dense_predictions", "sampled_fisher_loss"]


def sampled_fisher_loss(seed: int = 0) -> Callable[[nn.Module, dict[str, Any]], Tensor]:
    """Return `loss(model, batch)`, whose squared gradients are in expectation the Fisher information of predictions.

    Class scores and box distributions are logits of Bernoulli and categorical distributions: each is projected on
    random numbers, scaled by the standard deviation of its distribution (Martens, JMLR 2020, section 5: the Fisher
    information from the model's own distribution). Boxes, masks, keypoints and angles count by the largest class
    score of their anchor, relative to their own spread. Only `batch["img"]` is looked at.

    Args:
        seed: Seed of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)

    def projected(value: Tensor, scale: Tensor) -> Tensor:
        noise = torch.randn(value.shape, generator=generator, device="cpu").to(value.device)
        return (noise * scale.detach() * value).sum()

    def categorical(logits: Tensor, dim: int, weight: Tensor | float = 1.0) -> Tensor:
        p = logits.detach().softmax(dim)
        return projected(logits - (p * logits).sum(dim, keepdim=True), (p * weight).sqrt())

    def bernoulli(logits: Tensor) -> Tensor:
        p = logits.detach().sigmoid()
        return projected(logits, (p * (1 - p)).sqrt())

    def continuous(value: Tensor, weight: Tensor | float = 1.0) -> Tensor:
        spread = value.detach().std().clamp_min(1e-6)
        return projected(value, torch.as_tensor(weight, device=value.device).sqrt() / spread)

    def loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
        output = model(batch["img"])
        found = list(dense_predictions(output, model.model[-1]))
        if found:
            return sum(dense(values, getattr(model.model[-1], "reg_max", 1)) for values in found)
        if len(output) == 2 and isinstance(output[1], Tensor):  # classification: probabilities and logits
            return categorical(output[1], -1)
        # RT-DETR: queries of the decoder, and those of the encoder that they are chosen from
        boxes, scores, encoded_boxes, encoded_scores = output[1][:4]
        pairs = (boxes, scores), (encoded_boxes, encoded_scores)
        return sum(bernoulli(s) + continuous(b, s.detach().sigmoid().amax(-1, keepdim=True)) for b, s in pairs)

    def dense(values: dict[str, Tensor], bins: int) -> Tensor:
        scores = values["scores"]
        total = bernoulli(scores)
        weight = scores.detach().sigmoid().amax(1, keepdim=True)
        for key, value in values.items():
            if key in ("scores", "feats"):
                continue
            if key == "boxes" and bins > 1:
                total = total + categorical(value.unflatten(1, (4, bins)), 2, weight.unsqueeze(1))
            else:
                per_anchor = value.dim() == 3 and value.shape[-1] == weight.shape[-1]
                total = total + continuous(value, weight if per_anchor else 1.0)
        return total

    return loss


def dense_predictions(output: Any, head: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The dictionaries of raw predictions in what a head returns; an end-to-end head has two.

    Args:
        output: What it returned.
        head: The head; one of another family than Ultralytics' makes the dictionary itself (`dense`).
    """
    if hasattr(head, "dense"):
        yield head.dense(output)
    elif isinstance(output, dict):
        if isinstance(output.get("scores"), Tensor):
            yield {key: value for key, value in output.items() if isinstance(value, Tensor)}
        else:
            for value in output.values():
                yield from dense_predictions(value, head)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from dense_predictions(value, head)
