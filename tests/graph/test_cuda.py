"""A network on a GPU has the groups that it has on the CPU: kernels, and so operators, differ there."""

from __future__ import annotations

import pytest
import torch

from tests.graph.exactness import prunable_share, randomise
from tests.graph.nets import CASES
from yoloprune.graph import mask_error, trace

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that CUDA can use")

ON_GPUS = [case for case in CASES if case.name != "numbers that NumPy reads"]  # from a GPU it reads none


@pytest.mark.parametrize("dtype", [torch.double, torch.float], ids=["double", "float"])
@pytest.mark.parametrize("case", ON_GPUS, ids=[case.name for case in ON_GPUS])
def test_the_same_groups_as_on_the_cpu(case, dtype) -> None:
    model = randomise(case.build()).to("cuda", dtype)
    inputs = tuple(x.to("cuda", dtype if x.is_floating_point() else x.dtype) for x in case.inputs())
    with torch.device("cuda"):  # some nets make tensors of their own
        graph = trace(model, inputs)
        assert prunable_share(graph) == pytest.approx(case.share)
        if dtype is torch.double:
            assert mask_error(model, graph.random_plan(0.5, 0), inputs) < 1e-9
