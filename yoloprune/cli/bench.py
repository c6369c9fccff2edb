"""`yoloprune bench`: networks in the runtimes they are used in, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from yoloprune.errors import UserError, did_you_mean
from yoloprune.files import check_folder, check_regular
from yoloprune.paths import check_data_path, check_path, told_apart
from yoloprune.pipeline.typed import read_text

from .errors import reported
from .options import Device, Json, Trust, with_default

__all__ = ["NAME", "command"]

NAME = "bench"

_PRECISIONS = ("f32", "f16", "bf16", "int8")
_ALSO_CALLED = {"half": "f16", "fp16": "f16", "fp32": "f32", "float32": "f32", "float16": "f16"}


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILES", help="Checkpoints (.pt) and exports (.onnx, …_openvino_model, …).", show_default=False
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            "--backend",
            help="What runs checkpoints: onnxruntime, openvino, ncnn, torch, tensorrt, with commas between them.",
            metavar="<names>",
        ),
    ] = "onnxruntime",
    imgsz: Annotated[
        str | None,
        typer.Option(
            "--imgsz",
            help=with_default("Image sizes in px, with commas between them.", "what the weights were trained at"),
            metavar="<numbers>",
        ),
    ] = None,
    batch: Annotated[
        str, typer.Option("--batch", help="Images per batch, with commas between them.", metavar="<numbers>")
    ] = "1",
    precision: Annotated[
        str, typer.Option("--precision", help="f32, f16, bf16, int8, where a backend has them.", metavar="<names>")
    ] = "f32",
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads",
            help=with_default("Numbers of threads, with commas between them.", "each backend's own choice"),
            metavar="<numbers>",
        ),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="torch also through torch.compile.", metavar="")] = False,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Also the layers' times, in torch and in ONNX Runtime.", metavar=""),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Data YAML to measure mAP and F1 on, and int8 ranges.", metavar="<path>"),
    ] = None,
    device: Device = None,
    seconds: Annotated[
        str, typer.Option("--seconds", help="About how long to measure each backend.", metavar="<number>")
    ] = "4",
    csv: Annotated[str | None, typer.Option("--csv", help="Also write the table here.", metavar="<path>")] = None,
    picture: Annotated[
        str | None, typer.Option("--picture", help="Draw mAP over latency here (PNG; needs --data).", metavar="<path>")
    ] = None,
    as_json: Json = False,
    trust: Trust = False,
) -> None:
    """Time networks in their runtimes, warm and taking turns: milliseconds, processor time, memory, size and mAP.

    Each backend has a process of its own. A checkpoint is exported for each into a temporary folder; exported files run
    in their own runtime at their own size.

    [bold]Examples[/]

      yoloprune bench yolov8n.pt pruned.pt

      yoloprune bench yolov8n.pt pruned.pt --backend onnxruntime,openvino --imgsz 320,640 --threads 1,2

      yoloprune bench pruned.pt pruned_openvino_model --precision f32,int8 --data my.yaml --picture bench.png
    """
    with reported():
        files = _files(words or [])
        asked = {
            "sizes": _numbers("--imgsz", imgsz, 32),
            "batches": _numbers("--batch", batch, 1),
            "threads": _numbers("--threads", threads, 1) or (0,),
            "precisions": _precisions(precision),
            "seconds": _seconds(seconds),
        }
        check_data_path(data)
        if picture and not data:
            raise UserError("--picture draws mAP, which takes images with labels; give --data.")
        if picture and not picture.lower().endswith(".png"):
            raise UserError(f"--picture {picture} does not end in .png, which is what is written.")
        for path in filter(None, (csv, picture)):
            check_folder(Path(path).absolute().parent)
        from yoloprune.deploy.backends import check_backend

        backends = tuple(dict.fromkeys(check_backend(name.strip()) for name in backend.split(",")))
        given = {"compile": compile, "data": data, "device": device, "trust": trust, "backends": backends}
        _bench(files, {**asked, **given}, layers, csv, picture, as_json)


def _files(words: Iterable[str]) -> list[Path]:
    """The networks, each of which is there.

    Raises:
        UserError: One is not, or is named twice.
    """
    from yoloprune.deploy.backends import backend_of

    files = [Path(word) for word in dict.fromkeys(words)]
    if not files:
        raise UserError("No networks were given; name one or several: yoloprune bench yolov8n.pt pruned.pt.")
    for path in files:
        if path.suffix == ".pt":
            check_path(path)
        elif not path.exists():
            raise UserError(f"There is no file or folder '{path}'; give a checkpoint (.pt) or an export.")
        else:
            backend_of(path)
            if not path.is_dir():
                check_regular(path)
    told_apart([str(path) for path in files])
    return files


def _numbers(flag: str, text: str | None, least: int) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in text.split(","))) if text else ()
    except ValueError:
        raise UserError(f"{flag} {text} is not understood; give whole numbers with commas between them.") from None
    if numbers and min(numbers) < least:
        raise UserError(f"{flag} {min(numbers)} is too small; the least is {least}.")
    return numbers


def _precisions(text: str) -> Sequence[str]:
    names = tuple(
        dict.fromkeys(_ALSO_CALLED.get(word.strip().lower(), word.strip().lower()) for word in text.split(","))
    )
    for name in names:
        if name not in _PRECISIONS:
            raise UserError(f"Unknown precision {name!r}{did_you_mean(name, _PRECISIONS)} ({', '.join(_PRECISIONS)}).")
    return names


def _seconds(text: str) -> float:
    seconds = read_text("--seconds", text, float)
    if not 0 < seconds < 1e5:
        raise UserError(f"--seconds {text} is no time to measure for; give a number above 0.")
    return seconds


def _bench(
    files: list[Path], asked: dict[str, Any], layers: bool, csv: str | None, picture: str | None, as_json: bool
) -> None:
    from dataclasses import asdict

    from .screen import Screen

    with Screen.open(as_json=as_json) as screen:
        from yoloprune.deploy.bench import Wanted, bench
        from yoloprune.report.bench import bench_table, draw_bench, layers_table, save_bench

        wanted = Wanted(**asked)
        found = bench(files, wanted, screen)
        parts = _layers(screen, files, wanted) if layers else {}
        for path in filter(None, (csv, picture)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        if csv:
            save_bench(found, Path(csv))
        if picture:
            draw_bench(found, Path(picture))
        if as_json:
            timed = {name: [layer._asdict() for layer in some] for name, some in parts.items()}
            screen.json({**asdict(found), "layers": timed})
            return
        screen.result(bench_table(found))
        for name, some in parts.items():
            screen.result(layers_table(some, name))
        for note in found.notes:
            screen.line(note)
        if written := [name for name in (csv, picture) if name]:
            screen.line(f"Wrote {' and '.join(written)}", "bold")


def _layers(screen: Any, files: list[Path], wanted: Any) -> dict[str, Any]:
    """Times of layers of the first setting, by network and runtime."""
    from yoloprune.deploy.layers import layers_of

    labels = told_apart([str(path) for path in files])
    with screen.waiting("Time the layers"):
        return {
            name: some
            for path, label in zip(files, labels, strict=True)
            for name, some in layers_of(path, wanted, label).items()
        }
