"""`yoloprune frontier`: image sizes and shares of pruning side by side, and the best of them at a cost."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from yoloprune.errors import UserError
from yoloprune.paths import check_data_path, check_path
from yoloprune.pipeline.declared import DATA, OUTPUT, PRUNING, declared
from yoloprune.pipeline.options import Options

from .errors import reported
from .run_command import Flag, flag_of

__all__ = ["NAME", "command"]

NAME = "frontier"

_TAKEN = (
    *("data", "download", "imgsz", "batch", "device", "seed", "calibration_images", "prune_head", "keep"),
    *("round_to", "backend", "threads", "latency_table", "epochs", "project", "trust"),
)
"""Options of a run that mean the same here."""

_COST = "What a network may cost"
_SHOWN = {"project": "runs/frontier"}

_HELP = """Measure networks at several image sizes, unpruned and pruned, and say which is the best at a cost.

A smaller image costs nothing to try, so what pruning gives is shown beside it: mAP, F1, GFLOPs and milliseconds as a
table, a CSV file and a picture. Without --epochs nothing is trained. The same command continues after an interruption.

[bold]Examples[/]

  yoloprune frontier yolov8n.pt --data my.yaml

  yoloprune frontier yolov8n.pt yolov8s.pt --data my.yaml --target-gflops 3 --prune-head

  yoloprune frontier best.pt --data my.yaml --target-ms 12 --threads 1 --sizes 640,576,512 --epochs 20
"""


def _flags() -> list[Flag]:
    """The options of the command."""
    own = [
        Flag("target_gflops", ("--target-gflops", "-g"), _COST, "GFLOPs that one image may cost, at the size that is "
             "used: networks are pruned to that at each size.", metavar="<number>"),
        Flag("target_ratio", ("--target-ratio",), _COST, "The same as a share of what the first network costs at its "
             "own image size.", metavar="<number>"),
        Flag("target_ms", ("--target-ms",), _COST, "Milliseconds that one image may take on --backend: "
             "networks are pruned to that at each size.", metavar="<number>"),
        Flag("sizes", ("--sizes",), DATA, "Image sizes in px, with commas between them.",
             "four or five, from its own to the one that costs what is asked for, or half, unpruned", "<numbers>"),
        Flag("shares", ("--shares",), PRUNING, "Shares of the GFLOPs to prune to, with commas between them.",
             "0.85,0.7,0.5", "<numbers>"),
        Flag("name", ("--name",), OUTPUT, "Name of the output folder. What an earlier frontier of the same weights, "
             "data and options measured there is shown too, whatever its sizes and shares.", "frontier", "<name>"),
        Flag("json", ("--json",), OUTPUT, "Print JSON, and nothing else, on stdout."),
    ]  # fmt: skip
    return [*own, *(flag_of(name, _SHOWN.get(name, "")) for name in _TAKEN)]


def _made() -> Callable[..., None]:
    def command(**given: Any) -> None:
        with reported():
            _frontier(given)

    words = Annotated[
        list[str] | None, typer.Argument(metavar="WEIGHTS", help="Checkpoints (.pt).", show_default=False)
    ]
    parameters = [inspect.Parameter("words", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=words)]
    parameters += [flag.parameter() for flag in _flags()]
    command.__signature__ = inspect.Signature(parameters)
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = _HELP
    return command


command = _made()


def _frontier(given: dict[str, Any]) -> None:
    from dataclasses import asdict

    from yoloprune.pipeline.recipe import merge, read_recipe
    from yoloprune.pipeline.typed import parse_gflops, parse_ratio

    from .screen import Screen
    from .start import read_options

    typed = {name: value for name, value in given.items() if value not in (None, False, [])}
    weights = [Path(word) for word in typed.pop("words", [])]
    if not weights:
        raise UserError("No weights were given; name one checkpoint or several: yoloprune frontier yolov8n.pt.")
    for path in weights:
        check_path(path)
    gflops, ratio = typed.pop("target_gflops", None), typed.pop("target_ratio", None)
    cost = {"gflops": gflops and parse_gflops(gflops), "ratio": ratio and parse_ratio(ratio)}
    sizes = _numbers("--sizes", typed.pop("sizes", None), int)
    shares = _numbers("--shares", typed.pop("shares", None), float) or (0.85, 0.7, 0.5)
    if not all(0 < share < 1 for share in shares):
        raise UserError(f"--shares {shares} are no shares to prune to; give numbers between 0 and 1.")
    if any(size < declared(Options)["imgsz"][1].least for size in sizes):
        raise UserError(f"--sizes {min(sizes)} is too small for an image; the least is 32 px.")
    as_json = typed.pop("json", False)
    recipe = {k: v for k, v in read_recipe("custom").items() if k not in ("val", "export", "budget")}
    target = {} if "target_ms" in typed else {"target_ratio": 0.5}  # one is needed, and is not looked at
    options = merge({**recipe, "epochs": 0}, {**read_options(typed, {}), **target})
    check_data_path(options.data)
    folder = Path(options.project or "runs/frontier").expanduser() / (options.name or "frontier")
    with Screen.open(as_json=as_json) as screen:
        with screen.waiting("Load"):
            from yoloprune import detectors
            from yoloprune.analysis.frontier import Wanted, frontier
            from yoloprune.report.frontier import draw_frontier, frontier_table, save_frontier

            networks = {str(path): detectors.load(path, trust=options.trust) for path in weights}
            if options.download and options.data:
                next(iter(networks.values())).fetch(options.data, trust=options.trust)
        try:
            found = frontier(
                networks, options, folder, sizes=sizes, shares=shares, wanted=Wanted(**cost), progress=screen
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted; the same command continues from there.") from None
        save_frontier(found, folder / "frontier.csv")
        draw_frontier(found, folder / "frontier.png")
        if as_json:
            best = found.best and asdict(found.best)
            screen.json({"points": [asdict(p) for p in found.points], "best": best, "command": found.command})
            return
        screen.result(frontier_table(found))
        screen.line(f"Wrote {folder / 'frontier.csv'} and {folder / 'frontier.png'}", "bold")
        for line in _verdict(found, folder):
            screen.line(line)


def _verdict(found: Any, folder: Path) -> list[str]:
    if found.best is None:
        front = ", ".join(point.label for point in found.front())
        return [f"The front: {front}. Give --target-gflops, --target-ratio or --target-ms to have one chosen."]
    best = found.best
    figures = f"{found.measure} {best.quality:.3f}, {best.gflops:.2f} GFLOPs, {best.latency_ms:.2f} ms"
    if best.share == 1:
        trained = f"; it is {folder / best.file}" if best.epochs else ""
        return [f"The best is the unpruned {best.name} at {best.imgsz} px ({figures}): no pruning is "
                f"needed, use imgsz={best.imgsz}{trained}."]  # fmt: skip
    return [f"The best is {best.label} ({figures}): {folder / best.file}", f"To make it: {found.command}"]


def _numbers(flag: str, text: str | None, kind: type) -> Sequence[Any]:
    try:
        return tuple(kind(word) for word in text.split(",")) if text else ()
    except ValueError:
        raise UserError(f"{flag} {text} is not understood; give numbers with commas between them.") from None
