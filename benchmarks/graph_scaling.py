"""How the time of benchmarks/graph.py grows when a network gets wider or deeper, beside torch-pruning in the same run.

    python benchmarks/graph_scaling.py --json benchmarks/graph_scaling.json

A ResNet-50, a DenseNet-121 and a YOLOv8n with 1, 2 and 4 times their channels, and with 1, 2 and 4 times their blocks.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from graph import PACKAGES, case
from graph_models import FAMILIES, inputs
from limits import machine
from rich.console import Console
from rich.progress import track
from rich.table import Table

FACTORS = (1, 2, 4)


def rows(families: Sequence[str], repeat: int) -> Iterator[dict]:
    """Measure both tools on every size, torch-pruning with the smallest input, and yield one row each."""
    sizes = [(1, 1)] + [size for n in FACTORS[1:] for size in ((n, 1), (1, n))]
    for family, (width, depth) in track(
        [(f, s) for f in families for s in sizes], "Measuring", console=Console(stderr=True)
    ):
        theirs = "torch-pruning-replaced" if family == "yolov8" else "torch-pruning"
        for tool in ("yoloprune", theirs):
            model = f"{family}:{width}:{depth}"
            measured = case(model, tool, inputs(family)[0], threads=1, repeat=repeat)
            yield {"family": family, "width": width, "depth": depth, "tool": tool.removesuffix("-replaced"), **measured}


def exponents(table: list[dict]) -> Iterator[dict]:
    """Yield for each family, tool and direction the p in time ~ size ** p, by least squares on logarithms.

    The size is the number of convolutional and linear layers for depths, the factor of the channels for widths.
    """
    for family, tool in dict.fromkeys((row["family"], row["tool"]) for row in table):
        own = [r for r in table if (r["family"], r["tool"]) == (family, tool) and r["result"] == "ok"]
        for direction, still, size in (("width", "depth", "width"), ("depth", "width", "layers")):
            series = [row for row in own if row[still] == 1]
            if len(series) > 1:
                x = [math.log(row[size]) for row in series]
                fits = {
                    key: float(np.polyfit(x, [math.log(row[key]) for row in series], 1)[0])
                    for key in ("processor_setup_s", "processor_s")
                }
                yield {"family": family, "tool": tool, "direction": direction, "sizes": len(series), **fits}


def render(table: list[dict]) -> Iterator[Table]:
    """Yield the times and the exponents."""
    times = Table(title="Processor seconds")
    for column in ("family", "width", "depth", "layers", "labels", "tool", "set-up", "total", "result"):
        times.add_column(column, justify="right")
    for row in table:
        seconds = [f"{row[key]:.3f}" if key in row else "" for key in ("processor_setup_s", "processor_s")]
        counts = [str(row.get(key, "")) for key in ("layers", "labels")]
        size = [f"x{row[key]}" for key in ("width", "depth")]
        times.add_row(row["family"], *size, *counts, row["tool"], *seconds, row["result"])
    yield times
    fitted = Table("family", "tool", "direction", "sizes", "set-up", "total", title="Exponents")
    for fit in exponents(table):
        shown = [f"{fit[key]:.2f}" for key in ("processor_setup_s", "processor_s")]
        fitted.add_row(fit["family"], fit["tool"], fit["direction"], str(fit["sizes"]), *shown)
    yield fitted


def main() -> None:
    """Measure, print the tables and, if asked, write everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES, help="default: all")
    parser.add_argument("--repeat", type=int, default=3, help="processes per case; the median counts; default: 3")
    parser.add_argument("--json", type=Path, help="write the measurements to this file")
    options = parser.parse_args()
    about = machine(*PACKAGES) | {"threads": "1", "repeat": str(options.repeat)}
    table = list(rows(options.families, options.repeat))
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(", ".join(f"{key} {value}" for key, value in about.items()), highlight=False)
    for part in render(table):
        console.print(part)
    if options.json:
        found = {"machine": about, "rows": table, "exponents": list(exponents(table))}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
