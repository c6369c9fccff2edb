"""Several threads at once: each gets what it would get alone, and the process is left as it was."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.utils import torch_utils

from tests.graph.nets.case import Net, conv
from tests.small_yolo import shallow_weights
from yoloprune import prune
from yoloprune.criteria import score
from yoloprune.execution import evaluation, full_precision, threads
from yoloprune.graph import mask_error, trace
from yoloprune.recovery import recalibrate_bn, reconstruct
from yoloprune.replaced import replaced

THREADS, ROUNDS = 4, 5


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 4))


def _recurrent() -> nn.Module:
    return Net(lambda net, x: net.out(net.lstm(x)[0]), lstm=nn.LSTM(8, 12, 2, batch_first=True), out=nn.Linear(12, 4))


def _convolutions() -> nn.Module:
    return nn.Sequential(conv(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), conv(16, 24, 3), nn.SiLU(), conv(24, 4)).train()


def _deep() -> nn.Module:
    return nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(20)), nn.Linear(8, 2))


NETS = [
    (_encoder, (2, 5, 8)), (_recurrent, (2, 5, 8)), (_convolutions, (2, 3, 8, 8)), (_deep, (2, 8))
]  # fmt: skip


def _switches() -> tuple:
    cudnn = torch.backends.cudnn
    rounds = cudnn.conv.fp32_precision if hasattr(cudnn, "conv") else cudnn.allow_tf32
    return torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled, cudnn.enabled, rounds


def _hooks() -> int:
    from torch.nn.modules import module

    return len(module._global_forward_hooks) + len(module._global_forward_pre_hooks)


def _same(graph, expected) -> bool:
    pairs = ((getattr(graph, name), getattr(expected, name)) for name in ("component", "frozen", "tied"))
    modules = [[term.module for term in g.cost.terms] for g in (graph, expected)]
    return all(np.array_equal(a, b) for a, b in pairs) and modules[0] == modules[1] and not graph.unsupported


def _at_once(work) -> None:
    """Run `work(number)` in all threads, from one moment on, and raise what any of them raises."""
    ready = threading.Barrier(THREADS)

    def go(number: int) -> None:
        ready.wait()
        for _ in range(ROUNDS):
            work(number)

    before = _switches(), _hooks()
    with ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(go, number) for number in range(THREADS)]:
            done.result()
    assert (_switches(), _hooks()) == before


def test_traces_of_several_models() -> None:
    nets = [(build(), torch.rand(shape)) for build, shape in NETS]
    expected = [trace(model, x) for model, x in nets]

    def work(number: int) -> None:
        assert _same(trace(*nets[number]), expected[number])

    _at_once(work)


@pytest.mark.parametrize("net", NETS, ids=["attention", "recurrent", "convolutions", "deep"])
def test_traces_of_one_model(net) -> None:
    model, x = net[0](), torch.rand(net[1])
    modes = [m.training for m in model.modules()]
    expected = trace(model, x)

    def work(number: int) -> None:
        assert _same(trace(model, x), expected)

    _at_once(work)
    assert [m.training for m in model.modules()] == modes


def test_forward_passes_of_other_models_are_not_recorded_and_not_disturbed() -> None:
    nets = [(build(), torch.rand(shape)) for build, shape in NETS]
    expected = [trace(model, x) for model, x in nets]
    with torch.no_grad():
        outputs = [model.eval()(x) for model, x in nets]
    traced = _deep()
    own = trace(traced, torch.rand(2, 8))

    def work(number: int) -> None:
        if number == 0:
            for _ in range(3):
                assert _same(trace(traced, torch.rand(2, 8)), own)
            return
        model, x = nets[number - 1]
        with torch.no_grad():
            torch.testing.assert_close(model(x), outputs[number - 1])

    _at_once(work)
    assert all(_same(trace(model, x), e) for (model, x), e in zip(nets, expected, strict=True))


def test_scores_and_reconstructions_on_one_model() -> None:
    torch.manual_seed(0)
    model, batches = _convolutions(), [torch.rand(4, 3, 8, 8) for _ in range(3)]
    graph = trace(model, batches[0])
    plan = graph.random_plan(0.5)

    def scores() -> np.ndarray:
        return score(graph, model, "output_error", batches=batches)

    def solved() -> torch.Tensor:
        pruned = plan.apply(model)
        reconstruct(pruned, model, plan, batches)
        recalibrate_bn(pruned, batches)
        return torch.cat([t.flatten().double() for t in pruned.state_dict().values()])

    expected = scores(), solved()

    def work(number: int) -> None:
        if number % 2:
            np.testing.assert_array_equal(scores(), expected[0])
        else:
            torch.testing.assert_close(solved(), expected[1])
        assert mask_error(model, plan, batches[0]) < 1e-4

    _at_once(work)
    assert all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_blocks_that_overlap_put_back_what_was_there_before_the_first() -> None:
    class Owner:
        value = "before"

    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    model[1].eval()
    for make, look in (
        (lambda: replaced(Owner, "value", "within"), lambda: Owner.value),
        (lambda: evaluation(model), lambda: [m.training for m in model.modules()]),
        (full_precision, _switches),
    ):
        before = look()
        first, second, third = make(), make(), make()
        first.__enter__()
        second.__enter__()
        within = look()
        first.__exit__(None, None, None)
        assert look() == within != before
        third.__enter__()
        third.__exit__(None, None, None)
        assert look() == within
        second.__exit__(None, None, None)
        assert look() == before


def test_pruning_leaves_the_process_as_it_was(few_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics sets the number of threads where it chooses a device, and draws from Python's random state."""
    monkeypatch.setattr(torch_utils, "NUM_THREADS", 3)
    with threads(2):
        before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
        given = {"imgsz": 64, "device": "cpu", "val": True, "calibration_images": 8, "criterion": "l2"}
        prune(shallow_weights(), target_ratio=0.7, max_pruning_ratio=0.9, data=few_digits, **given)
        assert torch.get_num_threads() == 2
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002
