"""Kill runs of the digits at random moments and go on with them, many times over, from one process that only forks.

Importing torch takes longer than the run itself; a fork of a process that has done so starts at once. That process runs
nothing itself and has one thread, which is what makes forking it safe.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import defaultdict
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import torch

from yoloprune.deploy import latency
from yoloprune.pipeline import finish, reporting
from yoloprune.pipeline.api import prepare, prepare_resume
from yoloprune.pipeline.options import Options
from yoloprune.progress import Progress
from yoloprune.report import charts
from yoloprune.report.page import draw_page

_LONGEST = 240.0  # seconds for a run that nobody kills


class Noted(Progress):
    """Writes down which phase a run is in."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def _enter(self, title: str) -> None:
        self._note(title)

    def _leave(self, title: str, seconds: float | None) -> None:
        self._note(f"after: {title}")

    def _note(self, text: str) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")


def work(folder: Path, weights: Path, data: Path) -> None:
    """Start the run, or go on with it where it can be gone on with."""
    progress = Noted(folder.parent / f"{folder.name}.phases")
    for measured in ("latencies", "module_latencies"):  # which take seconds, and say nothing of kills
        for room in (finish, reporting):
            if hasattr(room, measured):
                setattr(room, measured, partial(getattr(latency, measured), seconds=0.0))
    drawn = charts.all_charts  # half of the run's time; two of them are enough to be killed in
    charts.all_charts = lambda page: islice(drawn(page), 2)
    reporting.draw_page = lambda page, to: defaultdict(str, draw_page(page, to))
    if (folder / "args.yaml").is_file():
        prepare_resume(folder, progress=progress).go()
        return
    options = Options(
        target_ratio=0.7,
        data=str(data),
        imgsz=64,
        batch=4,
        device="cpu",
        criterion="l2",
        recover=False,  # which takes longest, and most kills would land in
        steps=2,
        epochs=2,
        rollback=True,
        project=str(folder.parent),
        name=folder.name,
        exist_ok=True,
        train={"workers": 0, "plots": False, "optimizer": "SGD", "lr0": 0.001, "nbs": 8, "close_mosaic": 1},
    )
    prepare(weights, options, progress=progress).go()


def forked(folder: Path, weights: Path, data: Path, seconds: float) -> bool:
    """Do the work in another process and kill that after some seconds; whether it was done before."""
    process = os.fork()
    if not process:
        code = 1
        try:
            log = os.open(f"{folder}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1), os.dup2(log, 2)
            work(folder, weights, data)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if os.waitpid(process, os.WNOHANG)[0]:
            return True
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    return os.WIFEXITED(os.waitpid(process, 0)[1])


def main(root: Path, weights: Path, data: Path, kills: int) -> dict:
    """Do the run once as a whole, then killed and resumed again and again until there were that many kills."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    rng = random.Random(20)
    started = time.monotonic()
    forked(root / "whole", weights, data, _LONGEST)
    whole, landed, number = time.monotonic() - started, [], 0
    while len(landed) < kills:
        folder = root / f"killed-{number}"
        number += 1
        # between the start of a process and the end of the longest phase, however fast the machine is
        while not forked(folder, weights, data, rng.uniform(0.02, 0.6) * whole):
            phases = folder.parent / f"{folder.name}.phases"
            landed.append(phases.read_text().splitlines()[-1] if phases.is_file() else "nothing begun")
    return {"whole": whole, "runs": number, "landed": landed}


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))))
