"""`yoloprune.prune`: a run from Python."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.engine.model import Model

from yoloprune.errors import UserError
from yoloprune.graph import Plan
from yoloprune.report import Record
from yoloprune.yolo import checkpoints
from yoloprune.yolo.model import YOLO

from .network import with_network
from .options import Options
from .pipeline import Finished, Run
from .progress import Progress
from .state import recall

__all__ = ["PruneResult", "prepare", "prepare_resume", "prune"]


@dataclass
class PruneResult:
    """What `prune` gives.

    Attributes:
        model: The pruned network; its `train()` trains it as it is.
        plan: What was kept, against the original weights.
        metrics: `{"before": {...}, "after": {...}}` with GFLOPs, parameters and what was validated.
        report: Everything that was measured; `print(result.report)` shows the closing table.
        save_dir: The output folder, or None if nothing was written.
    """

    model: YOLO
    plan: Plan
    metrics: dict[str, dict[str, float]]
    report: Record
    save_dir: Path | None


def prune(
    model: Model | str | Path | None = None,
    *,
    target_gflops: float | None = None,
    target_params: int | None = None,
    target_ratio: float | None = None,
    imgsz: int | None = None,
    criterion: str | None = None,
    recover: bool | None = None,
    sensitivity: str | Path | None = None,
    isomorphic: bool = False,
    per: str | None = None,
    search: int = 0,
    round_to: int = 8,
    max_pruning_ratio: float | None = None,
    steps: int = 1,
    sparse_epochs: int = 0,
    sparsity: float = 1e-3,
    epochs: int = 0,
    budget: float | str | None = None,
    distill: bool | None = None,
    data: str | Path | None = None,
    batch: int | float = 16,
    device: str | int | list[int] | None = None,
    prune_head: bool = False,
    keep: str | list[str] | None = None,
    val: bool = False,
    export: str | None = None,
    project: str | Path | None = None,
    name: str | None = None,
    exist_ok: bool = False,
    trust: bool = False,
    seed: int = 0,
    calibration_images: int = 128,
    resume: str | Path | None = None,
    **train: Any,
) -> PruneResult:
    """Prune an Ultralytics model to the GFLOPs, parameters or share of GFLOPs asked for.

    By default the model is pruned and nothing else: no training, no validation, no files. GFLOPs are reckoned at 640
    px, as `model.info()` prints them, whatever `imgsz` is.

    Args:
        model: A model of Ultralytics (YOLO, RTDETR, YOLOWorld), which is not changed, or the path of a checkpoint.
        target_gflops: GFLOPs of the pruned model. Exactly one of the three targets must be given.
        target_params: Parameters of the pruned model.
        target_ratio: Share of the model's own GFLOPs to keep, between 0 and 1.
        imgsz: Image size in px for calibration, training, validation and export; by default the one that the weights
            were trained at.
        criterion: Which channels go; a name in `yoloprune.criteria.CRITERIA`. By default output_error where images
            are at hand, else l2.
        recover: Whether layers are re-solved on calibration images, without training; by default where images are at
            hand.
        sensitivity: CSV file of `yoloprune sensitivity`, whose figures then rank the layers, and the criterion the
            channels within each.
        isomorphic: Whether channels compete only with those of groups of the same structure (Fang et al., ECCV 2024).
        per: What scores are divided by: "macs" or "time" that the channel's removal saves, time as measured on
            `device` at `imgsz`, so that a small gain in speed is not bought dearly. By default as the criterion has it
            (output_error: MACs; the others: nothing).
        search: How many plans to try, prune and recover for beside the criterion's own, to find how many channels each
            layer had best give: seconds each on a GPU.
        round_to: Widths are multiples of this.
        max_pruning_ratio: Share of its channels that one layer may lose. By default some limits are tried where the
            network is recovered, and the one is taken that keeps most; without images there is none.
        steps: Rounds of pruning and fine-tuning on the way to the target.
        sparse_epochs: Epochs of group-sparse training before the first step.
        sparsity: Strength of its regulariser; see `yoloprune.yolo.trainers.sparse.Sparsity`.
        epochs: Fine-tuning epochs after each step.
        budget: Seconds that the whole run may take, or text such as "30m"; decides the epochs in their place.
        distill: Whether the unpruned network guides the fine-tuning; by default wherever its head is one of predictions
            on a grid (all families but RT-DETR, World and classification).
        data: Data YAML; by default what the checkpoint was trained on. Needed for epochs, val and some criteria.
        batch: Images per batch, as in Ultralytics.
        device: As in Ultralytics.
        prune_head: Whether the hidden convolutions of the detection head may lose channels too.
        keep: Names or patterns of modules whose output channels stay, such as ["model.0", "model.*.cv1"] or, as text,
            "model.0,model.*.cv1".
        val: Whether to validate and to measure the latency, before and after.
        export: Export format such as "onnx".
        project: Folder of the output folder. Giving it or `name` has the results written.
        name: Name of the output folder.
        exist_ok: Whether an existing output folder is written anew.
        trust: Whether the checkpoint may be unpickled without restrictions.
        seed: Seed of scoring and training.
        calibration_images: How many training images to rank and recover by; their labels are not used, but by the
            criteria taylor and hessian.
        resume: Folder of an interrupted run; it goes on with its own options, and only `model` (for a run that was
            started with a model in memory) and `device` may be given beside it.
        **train: Further keywords of Ultralytics' `train()`.

    Returns:
        The pruned model, the plan and what was measured.

    Raises:
        UserError: A mistake in the arguments, before any work is done.
        KeyboardInterrupt: Ctrl-C; the message says what is finished and how to go on.

    Examples:
        >>> result = prune(YOLO("yolov8s.pt"), target_gflops=14)  # doctest: +SKIP
        >>> result.model.train(data="coco.yaml", epochs=100)  # doctest: +SKIP
    """
    if resume is not None:
        return _result(prepare_resume(resume, model=model, device=device).go())
    if model is None:
        raise UserError("No model was given; give an Ultralytics model or the path of a checkpoint.")
    options = Options(
        target_gflops=target_gflops,
        target_params=target_params,
        target_ratio=target_ratio,
        imgsz=imgsz,
        criterion=criterion,
        recover=recover,
        sensitivity=None if sensitivity is None else str(Path(sensitivity).absolute()),
        isomorphic=isomorphic,
        per=per,
        search=search,
        round_to=round_to,
        max_pruning_ratio=max_pruning_ratio,
        steps=steps,
        sparse_epochs=sparse_epochs,
        sparsity=sparsity,
        epochs=epochs,
        budget=budget,
        distill=distill,
        data=None if data is None else str(data),
        batch=batch,
        device=device,
        prune_head=prune_head,
        keep=keep or [],
        val=val,
        export=export,
        project=None if project is None else str(project),
        name=name,
        exist_ok=exist_ok,
        trust=trust,
        seed=seed,
        calibration_images=calibration_images,
        train=train,
    )
    return _result(prepare(model, options).go())


def prepare(
    model: Model | str | Path,
    options: Options,
    *,
    progress: Progress | None = None,
    check: Callable[[YOLO], None] | None = None,
) -> Run:
    """Load a model and check everything that can be checked before the run.

    Args:
        model: A model, which is not changed, or the path of a checkpoint.
        options: What the run is to do.
        progress: Where it reports to.
        check: A further check of the loaded model; raises UserError.

    Raises:
        UserError: Something would fail.
    """
    yolo, weights = _opened(model, options.trust)
    if check:
        check(yolo)
    return Run(yolo, options, weights=weights, progress=progress)


def prepare_resume(
    path: str | Path,
    *,
    model: Model | str | Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Take up an interrupted run, with its own options.

    Raises:
        UserError: `path` is no run, or its weights are gone or changed.
    """
    remembered = recall(path)
    if device is not None:
        remembered.options = replace(remembered.options, device=device)
    model = model or remembered.weights
    if model is None:
        raise UserError(f"The run in {path} was started with a model in memory; give that model again.")
    yolo, weights = _opened(model, remembered.options.trust)
    return Run(yolo, remembered.options, weights=weights, progress=progress, remembered=remembered)


def _opened(model: Model | str | Path, trust: bool) -> tuple[YOLO, str | None]:
    """The model and the file that it came from, if any.

    A model in memory is copied, float32 on the CPU, so that validating or scoring cannot change the caller's.
    """
    if isinstance(model, (str, Path)):
        return checkpoints.load(model, trust=trust), str(Path(model).absolute())
    if isinstance(model, Model) and isinstance(model.model, nn.Module):
        return with_network(model, copy.deepcopy(model.model).cpu().float().eval()), None
    raise UserError(
        f"The given {type(model).__name__} is no PyTorch model of Ultralytics; give a YOLO of a .pt file, or the path "
        "of one."
    )


def _result(finished: Finished) -> PruneResult:
    record = finished.record
    metrics = {
        moment: {"gflops": m.gflops, "params": m.params, **m.metrics}
        for moment, m in (("before", record.before), ("after", record.after))
    }
    return PruneResult(finished.yolo, finished.plan, metrics, record, finished.folder.path if finished.folder else None)
