"""What operators are said to give is what they give."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from yoloprune.graph.tracing.output_shapes import CONTRACTIONS, MEMORY_BOUND

aten = torch.ops.aten
sizes = st.integers(1, 4)


def check(name: str, *args, **kwargs) -> None:
    """Compare with the operator itself: if one shape is predicted, so must be a success, and a contiguous result."""
    shapes = (CONTRACTIONS | MEMORY_BOUND)[name](*args, **kwargs)
    if shapes is None:
        return
    out = getattr(aten, name)(*args, **kwargs)
    outs = [out] if isinstance(out, Tensor) else list(out)
    assert [tuple(shape) for shape in shapes] == [tuple(t.shape) for t in outs]
    first = next(a[0] if isinstance(a, list) else a for a in args if isinstance(a, (list, Tensor)))
    assert all(t.is_contiguous() and (t.dtype, t.device) == (first.dtype, first.device) for t in outs)


@st.composite
def tensors(draw, shape: st.SearchStrategy) -> Tensor:
    """A float tensor, perhaps with other strides or of another type."""
    x = torch.zeros(draw(shape), dtype=draw(st.sampled_from([torch.float32] * 6 + [torch.float64, torch.float16])))
    layout = draw(st.sampled_from(["plain"] * 6 + ["turned", "channels last"]))
    if layout == "turned" and x.dim() > 1:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    return x.to(memory_format=torch.channels_last) if layout == "channels last" and x.dim() == 4 else x


shapes = st.lists(sizes, min_size=0, max_size=4)
ELEMENTWISE = [name for name, rule in MEMORY_BOUND.items() if rule.__name__ == "_elementwise"]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(ELEMENTWISE))
def test_elementwise(data, name) -> None:
    x = data.draw(tensors(shapes))
    if name in ("add", "sub", "mul", "div"):
        other = data.draw(st.one_of(st.just(2.0), tensors(st.just(x.shape)), tensors(st.just(x.shape[1:]))))
        check(name, x, other)
    else:
        check(name, x)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_joins_copies_and_normalisations(data) -> None:
    shape = data.draw(st.lists(sizes, min_size=1, max_size=4))
    x, y = data.draw(tensors(st.just(shape))), data.draw(tensors(st.just(shape)))
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    check("cat", [x, y, x], dim)
    check("clone", x)
    check("clone", x, memory_format=torch.contiguous_format)
    check("_softmax", x, dim, False)
    over = shape[data.draw(st.integers(0, len(shape) - 1)) :]
    weight = data.draw(st.one_of(st.none(), tensors(st.just(over))))
    check("native_layer_norm", x, over, weight, weight, 1e-5)
    if len(shape) > 1:
        channels = [data.draw(st.one_of(st.none(), tensors(st.just(shape[1:2])))) for _ in range(2)]
        mean = data.draw(tensors(st.just(shape[1:2])))
        check("native_batch_norm", x, *channels, mean, mean + 1, False, 0.1, 1e-5)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_contractions(data) -> None:
    b, n, m, k = (data.draw(sizes) for _ in range(4))
    wrong = data.draw(st.sampled_from([0] * 9 + [1]))
    left, right = data.draw(tensors(st.just([n, m]))), data.draw(tensors(st.just([m + wrong, k])))
    for name, args in (
        ("mm", (left, right)),
        ("bmm", (left.expand(b, n, m), right.expand(b, m + wrong, k))),
        ("addmm", (data.draw(tensors(st.just([k]))), left, right)),
    ):
        check(name, *args)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_convolutions(data) -> None:
    dims, groups = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    taken, given_ = (groups * data.draw(st.integers(1, 2)) for _ in range(2))
    transposed = data.draw(st.booleans())
    length = st.lists(st.integers(1, 7), min_size=dims, max_size=dims)
    small = st.lists(st.integers(1, 3), min_size=dims, max_size=dims)
    x = torch.zeros(data.draw(sizes), taken, *data.draw(length))
    ends = (taken, given_ // groups) if transposed else (given_, taken // groups)
    weight = torch.zeros(*ends, *data.draw(small))
    stride, dilation = data.draw(small), data.draw(small)
    padding = data.draw(st.lists(st.integers(0, 2), min_size=dims, max_size=dims))
    extra = [min(s, d) - 1 for s, d in zip(stride, dilation, strict=True)] if transposed else [0] * dims
    args = (x, weight, None, stride, padding, dilation, transposed, extra, groups)
    check("convolution", *args)


@pytest.mark.parametrize("name", sorted(CONTRACTIONS | MEMORY_BOUND))
def test_each_is_an_operator(name) -> None:
    assert hasattr(aten, name)
