"""Run one measurement in a process of its own, within limits of time and memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import psutil

__all__ = ["machine", "measure", "measure_forked", "one_thread"]

_POLL_SECONDS = 0.05


def measure(script: Path, *args: str, threads: int, seconds: float, gigabytes: float) -> dict:
    """Run `script args` in a fresh interpreter and return what it prints as JSON on its last line.

    The caller should be small: Linux counts the memory of the process that starts a child in the child's own peak.

    Args:
        script: A Python file that prints one JSON object with the key `result`.
        *args: Its arguments.
        threads: Threads for OpenMP and BLAS.
        seconds: Limit of processor time for the whole process, imports included: other processes hardly move it.
        gigabytes: Limit of resident memory, GB (10⁹ bytes).

    Returns:
        The script's object; where it gave none, an object with `result` alone: `time-out`, `over N GB` or
        `exit code N`.
    """
    environment = {**os.environ, **_threads(threads), "YOLO_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, str(script), *args],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        ended = _watch(process.pid, lambda: process.poll() is None, seconds, gigabytes)
    finally:  # nobody would stop it after Ctrl-C
        if process.poll() is None:
            process.kill()
    output = process.communicate()[0].strip().splitlines()
    if ended:
        return {"result": ended}
    if process.returncode or not output:
        return {"result": f"exit code {process.returncode}"}
    return json.loads(output[-1])


def one_thread(preload: list[str]) -> None:
    """Have `measure_forked` fork from a server that runs one thread and has imported these modules."""
    os.environ.update(_threads(1))
    multiprocessing.set_start_method("forkserver")
    multiprocessing.set_forkserver_preload(preload)


def measure_forked(worker: Callable[[str, str, str], None], *args: str, seconds: float, gigabytes: float) -> dict:
    """As `measure`, with a function in a process that need not import first, which is most of a small measurement.

    Args:
        worker: Is given `args` and the path of a file for its JSON object.
        *args: Its arguments.
        seconds: Limit of processor time, without imports.
        gigabytes: Limit of resident memory, GB (10⁹ bytes), the imported libraries included.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "result.json")
        process = multiprocessing.Process(target=worker, args=(*args, str(answer)))
        process.start()
        try:
            ended = _watch(process.pid, process.is_alive, seconds, gigabytes)
        finally:
            process.kill()
            process.join()
        if ended:
            return {"result": ended}
        if process.exitcode or not answer.exists():
            return {"result": f"exit code {process.exitcode}"}
        return json.loads(answer.read_text())


def _threads(threads: int) -> dict[str, str]:
    return {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}


def _watch(pid: int, running: Callable[[], bool], seconds: float, gigabytes: float) -> str | None:
    """Wait for the process, or until it is at a limit; returns which one."""
    watched = psutil.Process(pid)
    while running():
        try:
            resident, times = watched.memory_info().rss, watched.cpu_times()
        except psutil.NoSuchProcess:
            break
        if resident > gigabytes * 1e9:
            return f"over {gigabytes:g} GB"
        if times.user + times.system > seconds:
            return "time-out"
        time.sleep(_POLL_SECONDS)
    return None


def machine(*packages: str) -> dict[str, str]:
    """Describe the machine and the versions of Python and of the packages."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in packages},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
