"""The options of a run, each declared once: one typed, checked object that is also what args.yaml holds.

Neither torch nor Ultralytics is imported here, so that a mistake in what was typed is answered at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from yoloprune.deploy.backends import check_backend
from yoloprune.deploy.formats import STOCK, check_format
from yoloprune.errors import UserError
from yoloprune.files import atomic

from .declared import DATA, OUTPUT, PRUNING, TARGET, TRAINING, WEIGHTS, check_range, declared, option
from .keywords import OWN_OPTIONS, check_keywords, train_keywords
from .typed import parse_budget, parse_count, parse_gflops, parse_ms, parse_names, parse_ratio, parse_speedup, typed

__all__ = ["CRITERIA", "TARGETS", "Options", "check_imgsz", "check_measuring"]

TARGETS = ("target_gflops", "target_params", "target_ratio", "target_ms", "target_speedup", "plan")

CRITERIA = ("output_error", "compensated_error", "taylor", "hessian", "l2", "l1", "lamp", "bn_scale", "random")
"""The names in `yoloprune.criteria.CRITERIA`, without importing them."""

_NUMBER = "<number>"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a pruning run is asked to do; what each option means is declared with it.

    Raises:
        UserError: A value is of a wrong type or out of its range, or there is not exactly one target.
    """

    trust: bool = option(
        False,
        "Unpickle the checkpoint without restrictions. Code in it runs: only for files you know.",
        panel=WEIGHTS,
        flags=("--trust",),
        in_recipes=False,
    )
    target_gflops: float | None = option(
        None,
        "GFLOPs of the pruned model at 640 px, as `model.info()` prints them.",
        panel=TARGET,
        flags=("--target-gflops", "-g"),
        metavar=_NUMBER,
        read=parse_gflops,
        above=0,
    )
    target_params: int | None = option(
        None,
        "Parameters of the pruned model, such as 1.5M.",
        panel=TARGET,
        metavar=_NUMBER,
        read=parse_count,
        above=0,
    )
    target_ratio: float | None = option(
        None,
        "Share of the model's own GFLOPs to keep, between 0 and 1.",
        panel=TARGET,
        metavar=_NUMBER,
        read=parse_ratio,
        above=0,
        below=1,
    )
    target_ms: float | None = option(
        None,
        "Milliseconds of one image at the run's image size on --backend, as measured on this machine or told by "
        "--latency-table.",
        panel=TARGET,
        metavar=_NUMBER,
        read=parse_ms,
        above=0,
    )
    target_speedup: float | None = option(
        None,
        "How many times as fast as the model itself on --backend, such as 2.",
        panel=TARGET,
        metavar=_NUMBER,
        read=parse_speedup,
        above=1,
    )
    plan: str | None = option(
        None,
        "plan.json of an earlier run, or a name in cfg/plans/: the same channels go, nothing is ranked.",
        panel=TARGET,
        metavar="<path>",
        in_recipes=False,
    )
    backend: str | None = option(
        None,
        "What the pruned model will run on, for --target-ms and --target-speedup: onnxruntime, openvino, ncnn or "
        "torch.",
        panel=DATA,
        shown="onnxruntime",
    )
    threads: int | None = option(
        None,
        "Threads that the backend runs on; with 1, processor time counts, whatever else runs.",
        panel=DATA,
        shown="what the backend chooses",
        least=1,
    )
    latency_table: str | None = option(
        None,
        "What convolutions cost on another device, as `yoloprune profile` has written it there.",
        panel=DATA,
        shown="measured here",
    )
    data: str | None = option(
        None,
        "Data YAML, or a folder of images without labels to rank and recover by.",
        panel=DATA,
        shown="what the weights were trained on",
    )
    download: bool = option(
        False,
        "Fetch the data from the URL that the data YAML names, if they are absent.",
        panel=DATA,
        flags=("--download",),
        in_recipes=False,
    )
    imgsz: int | None = option(
        None,
        "Image size in px for all but the GFLOPs, which are counted at 640 px.",
        panel=DATA,
        shown="what the weights were trained at",
        least=32,
    )
    choose_imgsz: bool = option(
        False,
        "Spend a part of the saving on a smaller image, if that keeps more: sizes are tried without training.",
        panel=DATA,
        flags=("--choose-imgsz",),
    )
    batch: int | float = option(
        16, "Images per batch; -1 or a share of the GPU's memory, such as 0.7, as in Ultralytics.", panel=DATA
    )
    device: str | None = option(None, "cpu, 0, 0,1, mps …, as in Ultralytics.", panel=DATA, shown="chosen")
    seed: int = option(0, "Random seed of scoring and training.", panel=DATA, least=0)
    calibration_images: int = option(
        128, "Training images to rank and recover by; their labels are not used by default.", panel=PRUNING, least=1
    )
    criterion: str | None = option(
        None,
        "How channels are ranked: by training images without labels output_error (a trial decides whether by that or "
        "by compensated_error), with labels taylor, hessian; by weights alone l2, l1, lamp, bn_scale; random.",
        panel=PRUNING,
        shown="output_error",
        among=CRITERIA,
    )
    recover: bool | None = option(
        None,
        "Re-solve the layers on training images after pruning: no training, no labels.",
        panel=PRUNING,
        shown="on",
    )
    max_pruning_ratio: float | None = option(
        None,
        "Share of its channels that one layer may lose; by default some limits are tried without labels, and the one "
        "that keeps most is taken.",
        panel=PRUNING,
        shown="by trial",
        above=0,
        most=1,
    )
    round_to: int = option(
        8, "Widths are multiples of this; narrower steps save GFLOPs but rarely time.", panel=PRUNING, least=1
    )
    prune_head: bool = option(
        False,
        "The hidden layers of the detection head may lose channels too.",
        panel=PRUNING,
        flags=("--prune-head/--keep-head",),
    )
    compare_heads: bool = option(
        False,
        "Also prune the head's hidden layers, on trial, and say what mAP each of the two keeps before fine-tuning.",
        panel=PRUNING,
    )
    keep: list[str] = option(
        [],
        "Modules whose output channels stay: names or patterns, with commas between them, such as "
        "'model.0,model.*.cv1'.",
        panel=PRUNING,
    )
    portable: bool = option(
        False,
        "Prune only what rows of a stock model.yaml can say, so that --format stock writes a checkpoint that stock "
        "Ultralytics trains without yoloprune.",
        panel=PRUNING,
        flags=("--portable",),
    )
    steps: int = option(
        1, "Rounds of pruning and fine-tuning on the way to the target.", panel=PRUNING, least=1, most=100
    )
    epochs: int = option(0, "Fine-tuning epochs after each step; 0 prunes only.", panel=TRAINING, least=0)
    budget: float | None = option(
        None,
        "Time that the whole run may take, such as 30m or 1h30m; decides the epochs.",
        panel=TRAINING,
        metavar="<time>",
        read=parse_budget,
        above=0,
    )
    train_epochs: int = option(
        0,
        "Epochs of training the unpruned network first, on its data: where the weights are of other classes.",
        panel=TRAINING,
        least=0,
    )
    sparse_epochs: int = option(
        0, "Epochs of group-sparse training before pruning (DepGraph's regulariser).", panel=TRAINING, least=0
    )
    sparsity: float = option(1e-3, "Strength of that regulariser.", panel=TRAINING, above=0)
    distill: bool | None = option(
        None,
        "Fine-tune towards the unpruned network's predictions and features too; works on images without labels.",
        panel=TRAINING,
        shown="where the head allows it",
    )
    lr0_per_share: float | None = option(
        None,
        "Initial learning rate of a step's fine-tuning, per share of the cost that the step removes; not used where "
        "lr0 is given.",
        panel="",
        above=0,
    )
    rollback: bool = option(
        False,
        "An epoch that harms leads back to the best network and to a lower learning rate: for small data sets.",
        panel="",
    )
    train: dict[str, Any] = option({}, "Further keywords of Ultralytics' `train()`.", panel="")
    val: bool = option(False, "Validate, and measure latency, before and after.", panel=OUTPUT)
    export: str | None = option(
        None,
        "Export the finished model in this format of Ultralytics, or, with --portable, stock.",
        panel=OUTPUT,
        flags=("--format",),
    )
    project: str | None = option(
        None, "Folder of the output folder.", panel=OUTPUT, shown="runs/prune", in_recipes=False
    )
    name: str | None = option(
        None, "Name of the output folder; a taken one gets a number.", panel=OUTPUT, shown="prune", in_recipes=False
    )
    exist_ok: bool = option(
        False,
        "Clear the folder of an earlier run of that name instead.",
        panel=OUTPUT,
        flags=("--exist-ok",),
        in_recipes=False,
    )

    def __post_init__(self):
        self._settle_types()
        check_keywords(self.train, _own_options())
        given = [t for t in TARGETS if getattr(self, t) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise UserError(f"Exactly one of {', '.join(TARGETS)} must be given (got {got}).")
        self._check_backend()
        self._check_plan()
        for name, (_, what) in declared(Options).items():
            check_range(name, getattr(self, name), what)
        if not all(isinstance(name, str) for name in self.keep):
            raise UserError(f"keep={self.keep} is not understood; give names of layers.")
        if not (0 < self.batch < 1 or (isinstance(self.batch, int) and (self.batch > 0 or self.batch == -1))):
            raise UserError(
                f"batch={self.batch} is not understood; give a number of images, -1, or a share of GPU memory (0.7)."
            )
        if self.portable and self.round_to % 8:
            raise UserError(
                f"portable needs round_to to be a multiple of 8, as stock rows have it, and not {self.round_to}."
            )
        if self.export == STOCK and not self.portable:
            raise UserError("--format stock needs --portable, which prunes only what stock rows can say; add it.")

    @property
    def validation_batch(self) -> int:
        """Images per batch where Ultralytics would choose; it does so for trainings alone."""
        return int(self.batch) if self.batch >= 1 else 16

    @property
    def timed(self) -> bool:
        """Whether the target is a time."""
        return self.target_ms is not None or self.target_speedup is not None

    def _check_backend(self) -> None:
        for name in ("backend", "threads", "latency_table"):
            value = getattr(self, name)
            if value is not None and not self.timed:
                flag = f"--{name.replace('_', '-')} {value}"
                raise UserError(f"{flag} is for --target-ms and --target-speedup; give one of these, or leave it out.")
        if self.latency_table and (self.backend or self.threads):
            raise UserError(f"The latency table {self.latency_table} says which backend and threads; leave yours out.")
        if self.timed and not self.latency_table:
            object.__setattr__(self, "backend", check_backend(self.backend or "onnxruntime", layers=True))

    def _check_plan(self) -> None:
        """What chooses channels in another way than a plan does."""
        default = {"steps": 1, "round_to": 8}
        for name in (*default, "choose_imgsz", "compare_heads", "max_pruning_ratio", "keep", "portable"):
            value = getattr(self, name)
            if self.plan and value and value != default.get(name):
                raise UserError(f"{name}={value} does not go with a plan, which says which channels go; leave it out.")

    def _settle_types(self) -> None:
        values = dict(vars(self))
        if values["device"] is not None:
            values["device"] = str(values["device"]).strip("[]() ").replace(" ", "")
        for name in ("data", "plan", "project", "latency_table"):
            if isinstance(values[name], Path):
                values[name] = str(values[name])
        if isinstance(values["keep"], str):
            values["keep"] = parse_names(values["keep"])
        if isinstance(values["budget"], str):
            values["budget"] = parse_budget(values["budget"])
        if isinstance(values["export"], str):
            values["export"] = check_format(values["export"])
        for name, annotation in get_type_hints(Options).items():
            object.__setattr__(self, name, typed(name, values[name], annotation))

    def save(self, path: Path, **more: Any) -> None:
        """Write the options, and what else the run must remember, as YAML."""
        with atomic(path) as tmp:
            tmp.write_text(yaml.safe_dump({**asdict(self), **more}, sort_keys=False), encoding="utf-8")

    @classmethod
    def known(cls) -> set[str]:
        """The names of all options."""
        return set(declared(cls))


@cache
def _own_options() -> dict[str, str]:
    """What may be taken for a keyword of Ultralytics' and is an option here, and how the command line calls it."""
    own = {name: what for name, (_, what) in declared(Options).items() if what.panel and name not in train_keywords()}
    flags = {
        name: (what.flags or (name.replace("_", "-"),))[0].partition("/")[0].removeprefix("--")
        for name, what in own.items()
    }
    return {**flags, **OWN_OPTIONS}


def check_imgsz(imgsz: int | None) -> None:
    """Check an image size that was given to a command without `Options`.

    Raises:
        UserError: It is too small.
    """
    check_range("imgsz", imgsz, declared(Options)["imgsz"][1])


def check_measuring(*, imgsz: int | None, images: int, ratios: Sequence[float], criterion: str) -> None:
    """Check options of the command `sensitivity`, which has no `Options`, before a model is loaded.

    Raises:
        UserError: A value is out of its range, or there is no such criterion.
    """
    check_range("imgsz", imgsz, declared(Options)["imgsz"][1])
    check_range("images", images, declared(Options)["calibration_images"][1])
    if not ratios or not all(0 < ratio < 1 for ratio in ratios):
        raise UserError(f"ratios={list(ratios)} are no shares of channels to remove; give numbers between 0 and 1.")
    check_range("criterion", criterion, declared(Options)["criterion"][1])
