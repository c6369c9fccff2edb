"""Data that installs with a package, in place of what the paper used."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import kneighbors_graph
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["BUILDERS", "STANDS_FOR", "Data"]

STANDS_FOR = {
    "digits": "scikit-learn's handwritten digits (1,797 of 8 × 8 pixels, scaled up, three equal colours) replace "
    "CIFAR-10, CIFAR-100 and ImageNet",
    "docstrings": "docstrings of NumPy, SciPy, scikit-learn and Matplotlib, told apart by package, with "
    "the packages' names taken out, replace AG News",
    "karate": "Zachary's karate club (34 nodes, 4 of them for training), which ships with PyTorch Geometric, replaces "
    "PPI",
    "digits graph": "a graph in which each digit is joined to its 8 nearest replaces PPI too, as the 30 test nodes of "
    "the karate club tell little",
    "points": "64 points drawn from each digit (column, row, brightness) replace ModelNet40",
}

_PACKAGES = ("numpy", "scipy", "sklearn", "matplotlib")
_NAMES = {*_PACKAGES, "scikit", "learn", "np", "plt", "mpl"}
_TEXTS, _WORDS, _VOCABULARY = 1200, 40, 2000
_POINTS, _NEIGHBOURS = 64, 8


@dataclass(frozen=True)
class Data:
    """Samples and their classes.

    Attributes:
        inputs: Samples along the first dimension.
        targets: Class of each sample, int64 (samples,).
        train: Which samples are for training, int64.
        test: Which are for testing.
        edges: For a graph, whose nodes are the samples: int64 (2, edges).
    """

    inputs: Tensor
    targets: Tensor
    train: Tensor
    test: Tensor
    edges: Tensor | None = None

    def arguments(self, samples: Tensor) -> tuple[Tensor, ...]:
        """What a model is called with for these samples: a graph is always given whole."""
        return (self.inputs[samples],) if self.edges is None else (self.inputs, self.edges)

    def logits(self, model: nn.Module, samples: Tensor) -> Tensor:
        """What the model says about these samples, (samples, classes)."""
        found = model(*self.arguments(samples))
        return found if self.edges is None else found[samples]


def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (samples, 8, 8) from 0 to 1, classes, and which are for training and for testing."""
    images, targets = load_digits(return_X_y=True)
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(targets)))
    images = torch.from_numpy(images).float().view(-1, 8, 8) / 16
    return images, torch.from_numpy(targets).long(), order[:1280], order[1280:]


def images(size: int) -> Data:
    """The digits as colour images of `size` × `size` pixels."""
    grey, *rest = _digits()
    scaled = F.interpolate(grey[:, None], size=(size, size), mode="bilinear", align_corners=False)
    return Data(((scaled - 0.3) / 0.35).repeat(1, 3, 1, 1), *rest)


def points() -> Data:
    """Points of the digits, (samples, 3, points): column, row and brightness, each about -1 to 1."""
    grey, *rest = _digits()
    generator = torch.Generator().manual_seed(0)
    pixels = grey.flatten(1).multinomial(_POINTS, replacement=True, generator=generator)
    place = torch.stack([pixels % 8, pixels // 8], 1) + torch.rand(len(grey), 2, _POINTS, generator=generator) - 0.5
    brightness = grey.flatten(1).gather(1, pixels)
    return Data(torch.cat([place / 3.5 - 1, brightness[:, None] * 2 - 1], 1), *rest)


def digits_graph() -> Data:
    """The digits as nodes, pixels as features, joined to the nearest; the classes of most nodes are held back."""
    grey, targets, train, test = _digits()
    pixels = grey.flatten(1)
    edges = kneighbors_graph(pixels.numpy(), _NEIGHBOURS).nonzero()
    return Data(pixels, targets, train, test, torch.from_numpy(np.stack(edges)).long().flip(0))


def karate() -> Data:
    """The karate club: who knows whom, and which of four communities each member belongs to."""
    from torch_geometric.datasets import KarateClub  # here, so that the other models do without it

    graph = KarateClub()[0]
    train = graph.train_mask
    return Data(graph.x, graph.y, train.nonzero().flatten(), (~train).nonzero().flatten(), graph.edge_index)


def _docstrings(package: str) -> Iterator[tuple[str, str]]:
    """File and text of every docstring of a package."""
    root = Path(find_spec(package).origin).parent
    for file in sorted(root.rglob("*.py")):
        if "tests" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and (text := ast.get_docstring(node)):
                yield f"{package}/{file.relative_to(root)}", text


def docstrings() -> Data:
    """Word numbers (samples, words), 0 for none and 1 for a rare word.

    Whole files go to training or testing, since the docstrings of one file say much the same.
    """
    generator = np.random.default_rng(0)
    samples, seen = [], set()
    for number, package in enumerate(_PACKAGES):
        own = []
        for file, text in _docstrings(package):
            words = [w for w in re.findall(r"[a-z]+", text.lower()) if w not in _NAMES][:_WORDS]
            if len(words) >= _WORDS // 2 and tuple(words) not in seen:
                seen.add(tuple(words))
                own.append((words, number, file))
        samples += [own[i] for i in generator.permutation(len(own))[:_TEXTS]]
    files = sorted({file for *_, file in samples})
    held_back = {files[i] for i in generator.permutation(len(files))[: len(files) // 4]}
    testing = np.array([file in held_back for *_, file in samples])
    counts = Counter(
        word for (words, *_), test in zip(samples, testing, strict=True) if not test for word in words
    ).most_common(_VOCABULARY - 2)
    index = {word: i + 2 for i, (word, _) in enumerate(counts)}
    inputs = torch.zeros(len(samples), _WORDS, dtype=torch.long)
    for row, (words, *_) in zip(inputs, samples, strict=True):
        row[-len(words) :] = torch.tensor([index.get(word, 1) for word in words])  # at the end, where the LSTM ends
    targets = torch.tensor([number for _, number, _ in samples])
    train, test = (torch.from_numpy(np.flatnonzero(which)) for which in (~testing, testing))
    return Data(inputs, targets, train, test)


BUILDERS = {
    "digits": images,
    "docstrings": lambda size: docstrings(),
    "karate": lambda size: karate(),
    "digits graph": lambda size: digits_graph(),
    "points": lambda size: points(),
}
"""Name -> function of the images' size that gives the data."""
