"""Exactness, prunable share, time and memory over a zoo of models, beside torch-pruning in the same run.

    python benchmarks/zoo.py --json benchmarks/zoo.json --markdown benchmarks/zoo.md

Each model and tool has a process of its own, 120 s of processor time and 8 GB. Rows that the JSON file holds are not
measured again; small models come first where their sizes are known from the other tool.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from limits import machine, measure_forked, one_thread
from rich.console import Console
from rich.progress import track
from zoo_models import NAMES
from zoo_worker import write

TOOLS = ("yoloprune", "torch-pruning")
SECONDS, GIGABYTES = 120, 8
PACKAGES = ("torch", "torchvision", "timm", "transformers", "torch_geometric", "yoloprune", "torch-pruning")
HEAD = """# The zoo, measured

`python benchmarks/zoo.py`: each model and tool in a process of its own with 120 s of processor time and 8 GB, one
thread; models without weights, in double precision up to 150 M parameters. Building the model and running it are part
of the 120 s, imports are not.

{machine}.

- **result**: a random plan removes 40 % of every group. `ok` if the smaller network puts out what the original does
  with the removed slices zeroed (largest relative error under 1e-4), else `wrong`, the exception with its stage, or the
  limit. Of torch-pruning, `nothing pruned` where every parameter is still there.
- **statistics held fixed**: these operators take statistics over channels, so that removing a channel and zeroing it
  are not the same. The original is given the statistics of the pruned network, and everything else is compared.
- **can go**: the share of the parameters and of the MACs that goes when every channel goes that may, down to one.
  Channels of outputs stay, the width of heads (they go as a whole), and widths that code computes with (RAFT) or cuts
  at unequal places (EdgeNeXt).
- **s**, **MB**: trace and groups in processor seconds, on the small input that the network was built for, and the
  largest resident memory of the process until then, most of which is the model. For torch-pruning: building the pruner
  and all groups.
- torch-pruning leaves alone the layers whose channels are outputs, is given the outputs that have a gradient, and is
  told the number of heads; the attributes that hold their width follow, as in its examples. Where it narrows heads,
  PyTorch's attention changes its default scale, which the masked original is given, too.

{summary}

"""
# what a process of the zoo need not import again
LIBRARIES = ["torchvision", "timm", "transformers", "torch_geometric", "torch_pruning", "zoo_worker"]


def rows(names: list[str], tools: list[str], known: dict) -> Iterator[None]:
    """Measure what is not known yet, into `known`: model -> tool -> result; yields after each."""
    cases = [(name, tool) for tool in tools for name in names if tool not in known.get(name, {})]
    sizes = {name: row["parameters"] for name, own in known.items() for row in own.values() if "parameters" in row}
    cases.sort(key=lambda case: (tools.index(case[1]), sizes.get(case[0], 0)))
    for name, tool in track(cases, "Measuring", console=Console(stderr=True)):
        known.setdefault(name, {})[tool] = measure_forked(write, tool, name, seconds=SECONDS, gigabytes=GIGABYTES)
        yield


def table(known: dict) -> str:
    """The rows as Markdown."""
    columns = [
        "model",
        "M parameters",
        "result",
        "error",
        "can go: parameters, MACs",
        "s",
        "MB",
        "statistics held fixed",
    ]
    lines = [columns + ["torch-pruning", "error", "s", "MB"], ["---"] * (len(columns) + 4)]
    for name in NAMES:
        ours, theirs = (known.get(name, {}).get(tool, {}) for tool in TOOLS)
        share = f"{ours['prunable_parameters']:.0%}, {ours['prunable_macs']:.0%}" if "prunable_macs" in ours else ""
        cells = [name, _number(ours, "parameters", ".1f", 1e-6), *_figures(ours), *_figures(theirs)]
        cells[4:4] = [share]
        cells[7:7] = [", ".join(ours.get("statistics", []))]
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def summary(known: dict) -> str:
    """How many rows ended how, tool by tool."""
    text = []
    for tool in TOOLS:
        results = Counter(_result(own[tool]).partition(" (")[0] for own in known.values() if tool in own)
        missing = len(NAMES) - results.total()
        counts = [f"{count} {result}" for result, count in results.most_common()]
        text.append(f"{tool}: {', '.join(counts + [f'{missing} not measured'] * bool(missing))}.")
    return "\n\n".join(text)


def _figures(row: dict) -> list[str]:
    return [_result(row), _number(row, "error", ".0e"), _number(row, "setup_s", ".2f"), _number(row, "peak_mb", ".0f")]


def _result(row: dict) -> str:
    if not row:
        return "not measured"
    if row.get("parameters_kept") == 1:
        return "nothing pruned"
    return row["result"] + (f" ({row['stage']})" if row["result"] not in ("ok", "wrong") and "stage" in row else "")


def _number(row: dict, key: str, form: str, factor: float = 1) -> str:
    return format(row[key] * factor, form) if key in row else ""


def main() -> None:
    """Measure, write the JSON file after every row, and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["*"], help="name patterns; default: all")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--json", type=Path, required=True, help="measurements, read and added to")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    options = parser.parse_args()
    one_thread(LIBRARIES)
    known = json.loads(options.json.read_text()) if options.json.exists() else {}
    names = [name for name in NAMES if any(fnmatch.fnmatchcase(name, pattern) for pattern in options.models)]
    for _ in rows(names, options.tools, known):
        options.json.write_text(json.dumps(known, indent=1) + "\n")
    about = ", ".join(f"{key} {value}" for key, value in machine(*PACKAGES).items())
    text = HEAD.format(machine=about, summary=summary(known)) + table(known)
    if options.markdown:
        options.markdown.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
