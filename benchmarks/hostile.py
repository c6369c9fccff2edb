"""Try what hostile files can make yoloprune do: nothing may run, nothing may be fetched, and each gets a sentence.

    python benchmarks/hostile.py --json hostile.json
    python benchmarks/hostile.py --kinds "label cache" "run folder"

A command that answers with a sentence must do so within 5 s of processor time, without imports; one that rightly does
its work, such as a training whose planted label cache is ignored, may take its time.

To add an attempt, add it to the function of its kind in `hostile_checkpoints.py`, `hostile_data.py` or
`hostile_runs.py`; see `hostile_cases.py` for what it is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ |= {"YOLO_CONFIG_DIR": tempfile.mkdtemp(), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}

import torch

from benchmarks.hostile_cases import Outcome, Write, attempt
from benchmarks.hostile_checkpoints import checkpoints
from benchmarks.hostile_data import data_files, label_caches
from benchmarks.hostile_runs import interrupted_run, recipes, run_folders

KINDS: dict[str, Callable[[], dict[str, Write]]] = {
    "checkpoint": checkpoints,
    "data YAML": data_files,
    "label cache": label_caches,
    "recipe": recipes,
    "run folder": run_folders,
}
_SECONDS = 5
_LIMIT = 300  # seconds on the clock after which an attempt is given up
_MEGABYTES = 500


def main() -> int:
    """Do all attempts, print a table, and return how many went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", type=Path, help="file for all figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    interrupted_run()  # which also imports what a training needs
    rows = []
    print(f"{'kind':<12} {'attempt':<58} executed traceback code seconds    MB", flush=True)
    for kind in args.kinds:
        for name, write in KINDS[kind]().items():
            rows.append({"kind": kind, "attempt": name, **_apart(write)})
            _show(rows[-1])
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    wrong = [row for row in rows if not _fine(row)]
    print(
        f"{len(rows)} attempts: {sum(row['executed'] for row in rows)} executed, "
        f"{sum(bool(row['traceback']) for row in rows)} tracebacks, "
        f"{sum(map(_slow, rows))} answers over {_SECONDS} s, "
        f"{sum(map(_large, rows))} over {_MEGABYTES} MB"
    )
    return len(wrong)


def _apart(write: Write) -> dict[str, Any]:
    """An attempt in a process of its own, forked from this one."""
    receive, send = multiprocessing.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as folder:
        process = multiprocessing.get_context("fork").Process(target=_work, args=(write, Path(folder), send))
        process.start()
        answer = receive.recv() if receive.poll(_LIMIT) else None
        process.kill()
        process.join()
        if answer is None:
            executed = Path(folder, "executed").exists()
            answer = {**asdict(Outcome(executed, "", -1, _LIMIT, "no answer")), "megabytes": 0.0}
    return answer


def _work(write: Write, folder: Path, send: Any) -> None:
    silent = os.open(os.devnull, os.O_WRONLY)  # what attempt does not catch, such as a log's handler
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = asdict(attempt(write, folder))
    send.send({**outcome, "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024})


def _slow(row: dict[str, Any]) -> bool:
    return bool(row["code"]) and row["seconds"] > _SECONDS


def _large(row: dict[str, Any]) -> bool:
    return bool(row["code"]) and row["megabytes"] > _MEGABYTES


def _fine(row: dict[str, Any]) -> bool:
    return not (row["executed"] or row["traceback"] or _slow(row) or _large(row))


def _show(row: dict[str, Any]) -> None:
    executed, failed = ("YES" if row[name] else "no" for name in ("executed", "traceback"))
    mark = "" if _fine(row) else f"  <- {row['traceback'] or row['said']}"
    figures = f"{row['code']:<4} {row['seconds']:7.2f} {row['megabytes']:5.0f}{mark}"
    print(f"{row['kind']:<12} {row['attempt']:<58} {executed:<8} {failed:<9} {figures}", flush=True)


if __name__ == "__main__":
    sys.exit(bool(main()))
