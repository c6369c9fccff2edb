"""The three lines in a loop of one's own: accumulation, scaling, and two processes against one."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from tests.sparsity.small_networks import plain, scatter
from yoloprune.graph import trace
from yoloprune.sparsity import GroupSparsity, Schedule

IMAGES = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
STEPS = 6


def train(model: nn.Module, images: torch.Tensor, wrap: bool = False, strength: float = 0.05) -> None:
    """Norms use their running statistics, which do not depend on how a batch is divided."""
    model.eval()
    graph = trace(model, images[:1])
    sparsity = GroupSparsity(graph, model, strength=strength)
    schedule = Schedule(warmup=0.5, growth=2.0)
    running = DistributedDataParallel(model) if wrap else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(STEPS):
        (running(images).square().mean() / 100).backward()  # small beside the regulariser, so that clipping leaves both
        sparsity(schedule((step + 1) / STEPS))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = scatter(plain())
    train(model, IMAGES[rank::2], wrap=True)
    torch.save(model.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    multiprocessing.spawn(worker, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    model = scatter(plain())
    train(model, IMAGES)
    without = scatter(plain())
    train(without, IMAGES, strength=0.0)
    assert not torch.allclose(model[1].weight, without[1].weight, rtol=1e-2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(first[name], second[name]), "both processes have the same weights, bit for bit"
        torch.testing.assert_close(first[name], tensor, rtol=1e-5, atol=1e-6)


def test_accumulation_and_scaling() -> None:
    """Once per optimizer step, after `unscale_`: the gradient is that of a whole, unscaled batch."""
    whole = scatter(plain()).eval()
    parts = copy.deepcopy(whole)
    graph = trace(whole, IMAGES[:1])
    whole(IMAGES).square().mean().backward()
    GroupSparsity(graph, whole, strength=0.05)()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(parts.parameters(), lr=0.1)
    for images in IMAGES.chunk(4):
        scaler.scale(parts(images).square().mean() / 4).backward()
    scaler.unscale_(optimizer)
    GroupSparsity(graph, parts, strength=0.05)()
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_calls_leave_no_state() -> None:
    """A regulariser made anew in the middle, as after a resume, goes on as the old one would have."""
    whole = scatter(plain()).eval()
    graph = trace(whole, IMAGES[:1])
    resumed = copy.deepcopy(whole)
    kept = GroupSparsity(graph, whole, strength=0.05)
    for model, renew in ((whole, False), (resumed, True)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(4):
            (model(IMAGES).square().mean() / 100).backward()
            (GroupSparsity(graph, model, strength=0.05) if renew else kept)()
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
