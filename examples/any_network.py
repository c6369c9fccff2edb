"""Any torch network to half its MACs: trace, score, plan, apply, recover without labels, check, fine-tune.

python examples/any_network.py resnet50 --size 224
"""

from __future__ import annotations

import argparse

import torch
import torchvision
from torch.nn import functional as F

import yoloprune
from yoloprune.recovery import reconstruct


def main() -> None:
    """Prune a network of torchvision; random images and weights stand for yours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="resnet50", help="a model of torchvision")
    parser.add_argument("--weights", help="its weights, such as DEFAULT; by default random ones")
    parser.add_argument("--size", type=int, default=224, help="image size in px")
    parser.add_argument("--ratio", type=float, default=0.5, help="share of the MACs to keep")
    args = parser.parse_args()
    torch.manual_seed(0)

    model = torchvision.models.get_model(args.name, weights=args.weights).eval()
    batches = [torch.rand(4, 3, args.size, args.size) for _ in range(2)]
    graph = yoloprune.graph.trace(model, batches[0])
    scores = yoloprune.criteria.score(graph, model, "output_error", batches=batches)
    plan = graph.budget_plan(scores, target_macs=args.ratio * graph.macs())
    smaller = plan.apply(model)
    macs, params = plan.macs() / graph.macs(), plan.params() / graph.params()
    print(f"{args.name}: {macs:.1%} of the MACs, {params:.1%} of the parameters")
    print(f"largest relative difference from masking: {yoloprune.graph.mask_error(model, plan, batches[0]):.1e}")

    with torch.no_grad():
        teacher = [model(images) for images in batches]
        pruned = _distance(smaller, batches, teacher)
        reconstruct(smaller, model, plan, batches)
        print(f"error towards the original: {pruned:.3g} pruned, {_distance(smaller, batches, teacher):.3g} recovered")

    optimizer = torch.optim.SGD(smaller.parameters(), lr=0.001, momentum=0.9)
    for images, target in zip(batches, teacher, strict=True):
        F.mse_loss(smaller(images), target).backward()
        optimizer.step()
        optimizer.zero_grad()


def _distance(network: torch.nn.Module, batches: list[torch.Tensor], teacher: list[torch.Tensor]) -> float:
    """Mean squared error towards the original's outputs."""
    errors = [F.mse_loss(network(images), target) for images, target in zip(batches, teacher, strict=True)]
    return float(torch.stack(errors).mean())


if __name__ == "__main__":
    main()
