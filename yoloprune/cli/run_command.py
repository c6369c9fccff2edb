"""What `yoloprune v8` and `yoloprune prune` have in common: the options of a run, and starting it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import reported
from .options import KEEP

__all__ = ["Kind", "run_command"]

_TARGET = "Target (exactly one)"
_PRUNING = "Pruning"
_TRAINING = "Data, fine-tuning and validation (Ultralytics' own options)"
_OUTPUT = "Output"
_WEIGHTS = "Weights"


def _option(*names: str, panel: str, text: str, default: str | bool = False, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=default, metavar=metavar)


@dataclass(frozen=True)
class Kind:
    """How a command that runs the pipeline differs from the others.

    Attributes:
        recipe: Given whether weights were given, the name of the recipe in cfg/ to apply, or None.
        embedded: Whether the embedded weights are pruned where none are given.
        check: Raises UserError where the command is not for the loaded model; gets the model and its file.
        recipe_default: Recipe by default, for the help.
        weights_default: What is pruned without --weights, for the help.
        epochs_default: Epochs of fine-tuning by default, for the help.
        lr0_default: Learning rate by default, for the help.
    """

    recipe: Callable[[bool], str | None] = lambda _: None
    embedded: bool = False
    check: Callable[[Any, Path], None] = lambda *_: None
    recipe_default: str | bool = False
    weights_default: str | bool = False
    epochs_default: str = "0"
    lr0_default: str = "0.01"


def run_command(kind: Kind, text: str) -> Callable[..., None]:
    """Make the function of a command that runs the pipeline; `text` is its help."""

    def command(
        ctx: typer.Context,
        pairs: Annotated[
            list[str] | None,
            typer.Argument(
                metavar="[KEY=VALUE]...",
                help="Any other keyword of Ultralytics' train(), such as optimizer=AdamW mosaic=0 patience=20.",
                show_default=False,
            ),
        ] = None,
        weights: Annotated[
            Path | None,
            _option("--weights", "-w", panel=_WEIGHTS, text="Checkpoint (.pt) to prune.", default=kind.weights_default),
        ] = None,
        recipe: Annotated[
            str | None,
            _option(
                "--recipe",
                panel=_WEIGHTS,
                text="Options from a YAML file: coco, custom or quick (in cfg/), or a path. Typed ones go first.",
                default=kind.recipe_default,
            ),
        ] = None,
        trust: Annotated[
            bool,
            _option(
                "--trust",
                panel=_WEIGHTS,
                text="Unpickle the checkpoint without restrictions. Code in it runs: only for files you know.",
            ),
        ] = False,
        target_gflops: Annotated[
            str | None,
            _option(
                "--target-gflops",
                "-g",
                panel=_TARGET,
                text="GFLOPs at 640 px, as [bold]model.info()[/] prints.",
                metavar="<number>",
            ),
        ] = None,
        target_params: Annotated[
            str | None,
            _option("--target-params", panel=_TARGET, text="Number of parameters, such as 1.5M.", metavar="<number>"),
        ] = None,
        target_ratio: Annotated[
            str | None,
            _option(
                "--target-ratio",
                panel=_TARGET,
                text="Share of the model's GFLOPs to keep, such as 0.5.",
                metavar="<number>",
            ),
        ] = None,
        criterion: Annotated[
            str | None,
            _option(
                "--criterion",
                panel=_PRUNING,
                text="Ranking of channels: output_error, taylor, hessian (by images); l2, l1, lamp, bn_scale, random.",
                default="output_error, without images l2",
            ),
        ] = None,
        recover: Annotated[
            bool | None,
            _option(
                "--recover/--no-recover",
                panel=_PRUNING,
                text="Re-solve the layers on training images after pruning: no training, no labels.",
                default="recover, where there are images",
            ),
        ] = None,
        sensitivity: Annotated[
            Path | None,
            _option(
                "--sensitivity",
                panel=_PRUNING,
                text="CSV file of [bold]yoloprune sensitivity[/]: ranks the layers by what was measured.",
            ),
        ] = None,
        isomorphic: Annotated[
            bool | None,
            _option(
                "--isomorphic/--no-isomorphic",
                panel=_PRUNING,
                text="Channels compete only with those of groups of the same structure.",
                default="no-isomorphic",
            ),
        ] = None,
        per: Annotated[
            str | None,
            _option(
                "--per",
                panel=_PRUNING,
                text="Divide scores by what removal saves: macs, or time as measured on the device.",
                default="as the criterion has it",
                metavar="macs|time",
            ),
        ] = None,
        search: Annotated[
            int | None,
            _option(
                "--search",
                panel=_PRUNING,
                text="Plans to try, prune and recover for, to find how many channels each layer had best give.",
                default="0",
            ),
        ] = None,
        max_pruning_ratio: Annotated[
            float | None,
            _option(
                "--max-pruning-ratio",
                panel=_PRUNING,
                text="Share of its channels that one layer may lose.",
                default="what keeps most by trial, where there are images",
            ),
        ] = None,
        round_to: Annotated[
            int | None,
            _option("--round-to", panel=_PRUNING, text="Widths are multiples of this (1, 8, 16, 32).", default="8"),
        ] = None,
        steps: Annotated[
            int | None,
            _option("--steps", panel=_PRUNING, text="Rounds of pruning and fine-tuning to the target.", default="1"),
        ] = None,
        prune_head: Annotated[
            bool | None,
            _option(
                "--prune-head/--keep-head",
                panel=_PRUNING,
                text="Whether the head's hidden layers may lose channels.",
                default="keep-head",
            ),
        ] = None,
        keep: Annotated[str | None, _option("--keep", panel=_PRUNING, text=KEEP)] = None,
        calibration_images: Annotated[
            int | None,
            _option(
                "--calibration-images",
                panel=_PRUNING,
                text="Training images to rank and recover by.",
                default="128",
            ),
        ] = None,
        sparse_epochs: Annotated[
            int | None,
            _option(
                "--sparse-epochs",
                panel=_TRAINING,
                text="Epochs of group-sparse training before pruning (DepGraph's regulariser).",
                default="0",
            ),
        ] = None,
        sparsity: Annotated[
            float | None,
            _option("--sparsity", panel=_TRAINING, text="Strength of that regulariser.", default="0.001"),
        ] = None,
        budget: Annotated[
            str | None,
            _option(
                "--budget",
                panel=_TRAINING,
                text="Time that the whole run may take, such as 30m or 1h30m; decides the epochs.",
                metavar="<time>",
            ),
        ] = None,
        epochs: Annotated[
            int | None,
            _option(
                "--epochs",
                panel=_TRAINING,
                text="Fine-tuning epochs after each step; 0 only prunes.",
                default=kind.epochs_default,
            ),
        ] = None,
        distill: Annotated[
            bool | None,
            _option(
                "--distill/--no-distill",
                panel=_TRAINING,
                text="Fine-tune towards the unpruned network's predictions and features too; works without labels.",
                default="distill, where the head allows it",
            ),
        ] = None,
        data: Annotated[
            str | None,
            _option("--data", panel=_TRAINING, text="Data YAML.", default="what the weights were trained on"),
        ] = None,
        imgsz: Annotated[
            int | None,
            _option(
                "--imgsz",
                panel=_TRAINING,
                text="Image size in px for all but the GFLOPs.",
                default="what the weights were trained at",
            ),
        ] = None,
        batch: Annotated[
            str | None, _option("--batch", panel=_TRAINING, text="Images per batch.", default="16", metavar="<number>")
        ] = None,
        lr0: Annotated[
            float | None,
            _option(
                "--lr0",
                panel=_TRAINING,
                text="Initial learning rate; with SGD unless optimizer= says otherwise.",
                default=kind.lr0_default,
            ),
        ] = None,
        device: Annotated[
            str | None, _option("--device", panel=_TRAINING, text="cpu, 0, 0,1, mps …", default="Ultralytics chooses")
        ] = None,
        seed: Annotated[int | None, _option("--seed", panel=_TRAINING, text="Random seed.", default="0")] = None,
        val: Annotated[
            bool | None,
            _option(
                "--val/--no-val",
                panel=_TRAINING,
                text="Validate, and measure latency, before and after.",
                default="val",
            ),
        ] = None,
        project: Annotated[
            Path | None, _option("--project", panel=_OUTPUT, text="Folder for runs.", default="runs/prune")
        ] = None,
        name: Annotated[
            str | None,
            _option("--name", panel=_OUTPUT, text="Folder of this run; a taken name gets a number.", default="prune"),
        ] = None,
        exist_ok: Annotated[
            bool, _option("--exist-ok", panel=_OUTPUT, text="Write to an existing folder anew instead.")
        ] = False,
        export: Annotated[
            bool | None,
            _option("--export/--no-export", panel=_OUTPUT, text="Export the finished model.", default="export"),
        ] = None,
        format: Annotated[
            str | None, _option("--format", panel=_OUTPUT, text="Export format of Ultralytics.", default="onnx")
        ] = None,
        resume: Annotated[
            Path | None,
            _option(
                "--resume",
                panel=_OUTPUT,
                text="Go on with the interrupted run in this folder, with its own options.",
            ),
        ] = None,
    ) -> None:
        with reported():
            from .start import start  # here, so that --help needs neither torch nor Ultralytics

            start(kind, dict(ctx.params))

    command.__doc__ = text
    return command
