"""Run one measurement in a process of its own, within limits of time and memory."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import psutil

__all__ = ["machine", "measure"]

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
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "YOLO_OFFLINE": "1",
    }
    process = subprocess.Popen(
        [sys.executable, str(script), *args],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        ended = _watch(process, seconds, gigabytes)
    finally:  # nobody would stop it after Ctrl-C
        if process.poll() is None:
            process.kill()
    output = process.communicate()[0].strip().splitlines()
    if ended:
        return {"result": ended}
    if process.returncode or not output:
        return {"result": f"exit code {process.returncode}"}
    return json.loads(output[-1])


def _watch(process: subprocess.Popen, seconds: float, gigabytes: float) -> str | None:
    """Wait for the process, or until it is at a limit; returns which one."""
    watched = psutil.Process(process.pid)
    while process.poll() is None:
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
