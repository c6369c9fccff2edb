"""The paper's experiments, small: train, group-sparse training, prune, fine-tune, for nine architectures; its ablation.

    python benchmarks/paper.py --quick --json paper.json --markdown benchmarks/paper.md     # 20 minutes on two cores
    python benchmarks/paper.py --json paper_full.json                                       # wider, longer: hours

Everything is trained on data that installs with a package; the output says which replaces which. Rows that the JSON
file holds are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import paper_data
import paper_models
import torch
from limits import machine
from rich.console import Console
from rich.progress import track
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

from yoloprune.criteria.labels import component_sums, slice_sums, weights
from yoloprune.criteria.relative import relative
from yoloprune.files import atomic
from yoloprune.graph import Graph, trace
from yoloprune.recovery import recalibrate_bn
from yoloprune.sparsity import GroupSparsity

PACKAGES = ("torch", "torchvision", "torch-geometric", "numpy", "scipy", "scikit-learn", "matplotlib", "yoloprune")
BATCH, MOMENTUM, CLIP, ALPHA = 64, 0.9, 5.0, 4.0
SCOPES = {"layer": "no grouping", "convolutions": "convolutions only", "group": "full grouping"}
WIDTHS = ("uniform", "learned")
HEAD = """# The paper's experiments, small

    {command}

DepGraph's experiments (Fang et al., CVPR 2023) at about its speed-ups, on small versions of its architectures. None of
its data is used, so no figure here can be compared with one of the paper:

{data}

{machine}, one thread.

Each of the three trainings has {steps} steps of {batch} samples (a graph goes in whole). Pruning removes channels one
by one, by the squared L2 norm of what goes with them, until the MACs are at most the share asked for.

- One seed: on 517 test digits one point is 5 images, on the 30 nodes of the karate club 3 points are one node.
- "Before" has had one training, "fine-tuned" three: where it is the better one, that is why.
- Strengths of the sparsity, one per model, were set by hand after one to four trials each, by the same test samples;
  those of the other groupings were not tuned. The larger experiments, without --quick, were never run.
- Word counts alone (multinomial naive Bayes) get 77 % of the docstrings right. In the graph of digits the test nodes,
  without their classes, are there in training.

| column | what it says |
|---|---|
| speed-up | MACs before / after: asked for, reached |
| before | test accuracy, %, of the trained network |
| sparse | after group-sparse training, batch norm statistics taken anew |
| pruned | right after pruning: no training, no statistics |
| fine-tuned | at the end |
| s | processor seconds of the trainings behind the row; rows of one model share the first, or the first two |

"""


class Case(NamedTuple):
    """A row.

    Attributes:
        model: Name in `paper_models.BUILDERS`.
        speed_up: MACs before over MACs after.
        scope: What shrinks together and is scored together: a scope of `GroupSparsity`.
        widths: `uniform`: each layer loses the same share; `learned`: one threshold on relative scores for all.
    """

    model: str
    speed_up: float
    scope: str = "group"
    widths: str = "learned"


class Setting(NamedTuple):
    """How a model is trained.

    Attributes:
        data: Name in `paper_data.BUILDERS`.
        lr: Learning rate of all its trainings.
        shrink: Strength of the sparsity: the weakest channels would shrink by e to this in sparse training, were there
            no loss to hold them. Where no batch norm makes up for the shrinking of what stays, less is enough.
        speed_ups: About those of the paper; GoogLeNet's is ours.
    """

    data: str
    lr: float
    shrink: float
    speed_ups: tuple[float, ...]


MODELS = {
    "ResNet-56": Setting("digits", 0.1, 16, (2.11, 2.57)),
    "VGG-19-BN": Setting("digits", 0.1, 5, (8.9,)),
    "DenseNet": Setting("digits", 0.1, 8, (2.1,)),
    "MobileNet v2": Setting("digits", 0.1, 4, (2.2,)),
    "GoogLeNet": Setting("digits", 0.1, 8, (2.0,)),
    "ViT": Setting("digits", 0.05, 4, (1.7,)),
    "LSTM": Setting("docstrings", 0.5, 2, (16.0,)),
    "DGCNN": Setting("points", 0.1, 6, (12.0,)),
    "GAT, karate": Setting("karate", 0.1, 1, (8.0,)),
    "GAT, digits": Setting("digits graph", 0.1, 4, (8.0,)),
}
CASES = [Case(model, speed_up) for model, setting in MODELS.items() for speed_up in setting.speed_ups]
ABLATION = [Case("ResNet-56", s, scope, widths) for s in (2.57, 6.0) for scope in SCOPES for widths in WIDTHS]


class Scale(NamedTuple):
    """How small.

    Attributes:
        width: Factor on all widths.
        size: Pixels of an image's side.
        steps: Optimizer steps of each training.
    """

    width: float
    size: int
    steps: int


QUICK, FULL = Scale(0.5, 16, 200), Scale(1.0, 32, 2000)


class Trained(NamedTuple):
    """A trained network, its accuracy and what it took."""

    model: nn.Module
    accuracy: float
    seconds: float


@cache
def data_for(name: str, scale: Scale) -> paper_data.Data:
    """The data of that name, built once."""
    return paper_data.BUILDERS[name](scale.size)


def _batches(samples: Tensor, steps: int) -> Iterator[Tensor]:
    """Batches in random order, over and over."""
    pending: list[Tensor] = []
    for _ in range(steps):
        if not pending:
            pending = list(samples[torch.randperm(len(samples))].split(BATCH))
        yield pending.pop()


def fit(model: nn.Module, data: paper_data.Data, lr: float, steps: int, sparsity: GroupSparsity | None = None) -> None:
    """Train the model in place; with sparsity there is no weight decay, as in the paper's recipe."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr, momentum=MOMENTUM, nesterov=True, weight_decay=0.0 if sparsity else 5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=steps, pct_start=0.2, anneal_strategy="linear", cycle_momentum=False
    )
    model.train()
    for samples in _batches(data.train, steps):
        optimizer.zero_grad()
        F.cross_entropy(data.logits(model, samples), data.targets[samples]).backward()
        if sparsity:
            sparsity()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, data: paper_data.Data) -> float:
    """Share of the test samples that the model gets right."""
    model.eval()
    return float((data.logits(model, data.test).argmax(1) == data.targets[data.test]).float().mean())


@cache
def trained(name: str, scale: Scale) -> tuple[Trained, Graph]:
    """The network before pruning, and its graph."""
    setting = MODELS[name]
    data = data_for(setting.data, scale)
    torch.manual_seed(0)
    model = paper_models.BUILDERS[name](scale.width, scale.size)
    start = time.process_time()
    fit(model, data, setting.lr, scale.steps)
    seconds = time.process_time() - start
    found = accuracy(model, data)
    return Trained(model, found, seconds), trace(model, data.arguments(data.test[:1]))


@cache
def sparse(name: str, scope: str, scale: Scale) -> Trained:
    """The network after group-sparse training."""
    setting = MODELS[name]
    data = data_for(setting.data, scale)
    before, graph = trained(name, scale)
    model = copy.deepcopy(before.model)
    torch.manual_seed(1)
    # the schedule's mean is lr / 2, momentum multiplies a step by 1 / (1 - momentum), γ is 2^alpha at most
    way = setting.lr / 2 * scale.steps / (1 - MOMENTUM)
    sparsity = GroupSparsity(graph, model, strength=setting.shrink / (2 * 2**ALPHA * way), alpha=ALPHA, scope=scope)
    start = time.process_time()
    fit(model, data, setting.lr, scale.steps, sparsity)
    seconds = time.process_time() - start
    recalibrate_bn(model, [data.arguments(samples) for samples in data.train.split(4 * BATCH)])
    return Trained(model, accuracy(model, data), seconds)


def importance(graph: Graph, model: nn.Module, scope: str) -> np.ndarray:
    """Squared L2 norm of each component: its first layer's output channel, its convolutions, or all that is in it."""
    squares = {name: weight.double().square() for name, weight in weights(graph, model).items()}
    if scope == "convolutions":
        squares = {name: square for name, square in squares.items() if square.ndim > 1}
    if scope != "layer":
        return component_sums(graph, slice_sums(graph, squares))
    values = np.zeros(len(graph.component))
    for start, vector in slice_sums(graph, squares):
        values[start : start + len(vector)] = vector
    labels = np.flatnonzero(graph.producing)
    component, first = np.unique(graph.component[labels], return_index=True)
    scores = np.zeros(graph.n_components)
    scores[component] = values[labels[first]]
    return scores


def spread(graph: Graph, scores: np.ndarray, widths: str) -> np.ndarray:
    """Scores under which one threshold gives uniform or learned widths."""
    if widths == "learned":
        return relative(graph, scores)
    ranks = np.zeros_like(scores)
    for group in graph.groups:
        ranks[group.components] = rankdata(scores[group.components], method="ordinal") / group.size
    return ranks


def measure(case: Case, scale: Scale) -> dict:
    """Prune and fine-tune what was trained."""
    setting = MODELS[case.model]
    data = data_for(setting.data, scale)
    before, graph = trained(case.model, scale)
    middle = sparse(case.model, case.scope, scale)
    scores = spread(graph, importance(graph, middle.model, case.scope), case.widths)
    plan = graph.budget_plan(scores, target_macs=graph.macs() / case.speed_up, round_to=1)
    model = plan.apply(middle.model)
    row = {"macs": graph.macs(), "reached": graph.macs() / plan.macs(), "before": before.accuracy}
    row |= {"parameters": graph.params(), "parameters_after": plan.params()}
    row |= {"sparse": middle.accuracy, "pruned": accuracy(model, data)}
    torch.manual_seed(2)
    start = time.process_time()
    fit(model, data, setting.lr, scale.steps)
    row["seconds"] = before.seconds + middle.seconds + time.process_time() - start
    return row | {"tuned": accuracy(model, data)}


def key(case: Case) -> str:
    """What a row is called in the JSON file."""
    return ", ".join(map(str, case))


def _figures(row: dict | None) -> list[str]:
    if row is None:
        return ["not measured", *[""] * 5]
    shares = (f"{100 * row[column]:.1f}" for column in ("before", "sparse", "pruned", "tuned"))
    return [f"{row['reached']:.2f}×", *shares, f"{row['seconds']:.0f}"]


def report(known: dict, about: dict, scale: Scale, command: str) -> str:
    """The tables as Markdown."""
    data = "\n".join(f"- {text[0].upper()}{text[1:]}." for text in paper_data.STANDS_FOR.values())
    text = HEAD.format(
        command=command,
        data=data,
        machine=", ".join(f"{name} {value}" for name, value in about.items()),
        steps=scale.steps,
        batch=BATCH,
    )
    columns = ["reached", "before", "sparse", "pruned", "fine-tuned", "s"]
    lines = [["model", "data", "speed-up", *columns], ["---"] * (3 + len(columns))]
    for case in CASES:
        lines.append([case.model, MODELS[case.model].data, f"{case.speed_up:g}×", *_figures(known.get(key(case)))])
    text += _markdown(lines) + "\n## Ablation on ResNet-56\n\n"
    text += "What is grouped in sparse training and in scoring; whether each layer loses the same share.\n\n"
    lines = [["grouping", "widths", "speed-up", *columns], ["---"] * (3 + len(columns))]
    for case in ABLATION:
        lines.append([SCOPES[case.scope], case.widths, f"{case.speed_up:g}×", *_figures(known.get(key(case)))])
    return text + _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main() -> None:
    """Measure what is not known yet, write the JSON file after every row, and the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half the widths, 16 px, 200 steps per training")
    parser.add_argument("--json", type=Path, required=True, help="measurements, read and added to")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scale = QUICK if options.quick else FULL
    stored = json.loads(options.json.read_text()) if options.json.exists() else {"scale": list(scale), "rows": {}}
    if stored["scale"] != list(scale):
        parser.error(f"{options.json} was measured {'without' if options.quick else 'with'} --quick")
    stored["machine"] = machine(*PACKAGES)
    known = stored["rows"]
    missing = [case for case in dict.fromkeys(CASES + ABLATION) if key(case) not in known]
    for case in track(missing, "Measuring", console=Console(stderr=True)):
        known[key(case)] = measure(case, scale)
        with atomic(options.json) as file:
            file.write_text(json.dumps(stored, indent=1) + "\n")
    command = f"python benchmarks/paper.py{' --quick' if options.quick else ''} --json {options.json.name}"
    text = report(known, stored["machine"], scale, command)
    if options.markdown:
        options.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
