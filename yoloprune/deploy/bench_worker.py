"""The process in which networks of one backend are timed, so that no other runtime is loaded beside them.

It reads a JSON object from stdin and writes one to the file that is its argument; see `bench`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from yoloprune.errors import UserError

from .backends import Run, compiled, interleaved, opened

__all__ = ["main", "measured"]


def main() -> None:
    """Measure what stdin asks for."""
    asked = json.loads(sys.stdin.read())
    try:
        found: dict[str, Any] = {"timed": measured(**asked)}
    except UserError as error:
        found = {"error": str(error)}
    found["peak_mb"] = _peak_mb()
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


def measured(cases: list[dict[str, Any]], seconds: float, least: int) -> list[list[list[float]]]:
    """Milliseconds of each case in each round: wall time and processor time of all threads, (cases, 2, rounds).

    Args:
        cases: For each the fields of `bench.Case`.
        seconds: About how long to measure.
        least: Rounds at least.

    Raises:
        UserError: A backend cannot load or run a network.
    """
    processor: list[list[float]] = [[] for _ in cases]
    calls = [_clocked(_call(case), spent) for case, spent in zip(cases, processor, strict=True)]
    wall = interleaved(calls, seconds=seconds, least=least)
    return [[times, spent[-len(times) :]] for times, spent in zip(wall, processor, strict=True)]


def _clocked(call: Callable[[], Any], spent: list[float]) -> Callable[[], None]:
    def clocked() -> None:
        began = time.process_time()
        call()
        spent.append(1000 * (time.process_time() - began))

    return clocked


def _call(case: dict[str, Any]) -> Callable[[], Any]:
    shape = (case["batch"], case["channels"], *case["imgsz"])
    images = np.random.default_rng(0).random(shape, np.float32)  # zeros are faster in some kernels
    threads = case["threads"]
    if case["backend"] == "torch":
        import torch

        run = _torch(case)

        def threaded() -> None:
            if threads:
                torch.set_num_threads(threads)
            run(images)

        return threaded
    run = opened(Path(case["file"]), case["backend"], threads=threads, precision=case["hint"])
    return lambda: run(images)


def _torch(case: dict[str, Any]) -> Run:
    import torch

    from yoloprune import detectors

    with detectors.quiet():
        detector = detectors.load(case["file"], trust=case["trust"])
        network = detector.fused()
        place = detector.place(case["device"])
    kind = {"f16": torch.float16, "bf16": torch.bfloat16}.get(case["precision"], torch.float32)
    return compiled(network.to(kind), device=place, dynamo=case["compile"])


def _peak_mb() -> float | None:
    """The most memory that this process has held, in MB (10^6 bytes); None where that cannot be asked."""
    with suppress(OSError, StopIteration):  # Linux, where getrusage tells also of the process that started this one
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return round(1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e6, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


if __name__ == "__main__":
    main()
