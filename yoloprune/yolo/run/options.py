"""The options of a run: one typed, checked object that is also what args.yaml holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from yoloprune.errors import UserError, did_you_mean
from yoloprune.files import atomic
from yoloprune.yolo.formats import check_format
from yoloprune.yolo.planning.prior import read_measured

from .keywords import check_keywords
from .typed import parse_budget, parse_names, typed

__all__ = ["BUDGET_IMGSZ", "TARGETS", "Options", "check_criterion", "check_least"]

BUDGET_IMGSZ = 640
"""Image size in px at which GFLOPs are reckoned: the one of `model.info()` and of the published tables, whatever size
the network is trained and validated at."""

_LEAST = {
    "imgsz": 32,
    "search": 0,
    "round_to": 1,
    "steps": 1,
    "sparse_epochs": 0,
    "epochs": 0,
    "seed": 0,
    "calibration_images": 1,
}

_PER = ("macs", "time")

TARGETS = ("target_gflops", "target_params", "target_ratio")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a pruning run is asked to do.

    Attributes:
        target_gflops: GFLOPs of the pruned model at 640 px, as `model.info()` prints them.
        target_params: Parameters of the pruned model.
        target_ratio: Share of the model's own GFLOPs to keep, between 0 and 1.
        imgsz: Image size in px for calibration, training, validation and export. None becomes the one that the weights
            were trained at.
        criterion: Name in `yoloprune.criteria.CRITERIA`. None becomes `output_error` where images are at hand, else
            `l2`.
        recover: Whether the pruned network is reconstructed from calibration images, without training. None becomes
            True where images are at hand.
        sensitivity: CSV file of `yoloprune sensitivity`, whose figures rank the layers; the criterion then ranks the
            channels within each.
        isomorphic: Whether channels compete only with those of groups of the same structure.
        per: What scores are divided by, beside what the criterion itself does: "macs" or "time" that the channel's
            removal saves, time as measured on `device` at `imgsz`. None: as the criterion's entry says.
        search: How many plans to try, prune and recover for beside the criterion's own, in each step, to find how many
            channels each layer had best give.
        round_to: Widths are multiples of this.
        max_pruning_ratio: Share of its channels that a layer may lose; None: what keeps most, by trial, where the
            network is recovered, else all but `round_to` of them.
        steps: Rounds of pruning (and fine-tuning); their targets form a geometric series.
        sparse_epochs: Epochs of group-sparse training before the first step.
        sparsity: Strength of its regulariser.
        epochs: Fine-tuning epochs after each step; 0 prunes only.
        budget: Seconds that the whole run may take, also given as text such as "30m"; decides the epochs instead.
        distill: Whether the unpruned network guides the fine-tuning. None becomes True where the run fine-tunes and
            the head is one that can be distilled.
        data: Data YAML, `"digits"` for the embedded set, or None for the one in the checkpoint.
        batch: Images per batch, as Ultralytics takes it: a whole number, -1, or a share of the GPU's memory.
        device: As Ultralytics takes it, a number or a list of numbers too; kept as text, such as "0,1".
        prune_head: Whether the hidden convolutions of the head may lose channels too.
        keep: Names or patterns of modules whose output channels stay; as text, with commas between them.
        val: Whether the model is validated before and after.
        export: Export format, or None for no export.
        project: Folder of the output folder.
        name: Name of the output folder.
        exist_ok: Whether an existing output folder is written to again.
        trust: Whether weights may be unpickled without restrictions.
        seed: Seed of scoring and training.
        calibration_images: Training images, without their labels but for some criteria, to rank and recover by.
        lr0_per_share: Initial learning rate of a step's fine-tuning, per share of the cost that the step removes; not
            used where `train` has an lr0.
        way_back: Whether epochs that harm lead back to the best network and to a lower learning rate: for small data
            sets.
        train: Further keywords for Ultralytics' `train()`.

    Raises:
        UserError: A value is of a wrong type or out of its range, or there is not exactly one target.
    """

    target_gflops: float | None = None
    target_params: int | None = None
    target_ratio: float | None = None
    imgsz: int | None = None
    criterion: str | None = None
    recover: bool | None = None
    sensitivity: str | None = None
    isomorphic: bool = False
    per: str | None = None
    search: int = 0
    round_to: int = 8
    max_pruning_ratio: float | None = None
    steps: int = 1
    sparse_epochs: int = 0
    sparsity: float = 1e-3
    epochs: int = 0
    budget: float | None = None
    distill: bool | None = None
    data: str | None = None
    batch: int | float = 16
    device: str | None = None
    prune_head: bool = False
    keep: list[str] = field(default_factory=list)
    val: bool = False
    export: str | None = None
    project: str | None = None
    name: str | None = None
    exist_ok: bool = False
    trust: bool = False
    seed: int = 0
    calibration_images: int = 128
    lr0_per_share: float | None = None
    way_back: bool = False
    train: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        self._settle_types()
        given = [t for t in TARGETS if getattr(self, t) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise UserError(f"Exactly one of {', '.join(TARGETS)} must be given (got {got}).")
        value = getattr(self, given[0])
        if not value > 0:
            raise UserError(f"{given[0]}={value} is not a target; give a positive number.")
        if self.target_ratio is not None and not self.target_ratio < 1:
            raise UserError(
                f"target_ratio={self.target_ratio} would remove nothing; give the share of the GFLOPs to keep, "
                "between 0 and 1."
            )
        if not all(isinstance(name, str) for name in self.keep):
            raise UserError(f"keep={self.keep} is not understood; give names of layers.")
        check_least(vars(self), _LEAST)
        if self.search and self.recover is False:
            raise UserError(
                f"search={self.search} measures recovered networks; leave recover=False (--no-recover) out."
            )
        if self.max_pruning_ratio is not None and not 0 < self.max_pruning_ratio <= 1:
            raise UserError(
                f"max_pruning_ratio={self.max_pruning_ratio} is no share of a layer's channels; give one above 0, at "
                "most 1."
            )
        if not self.sparsity > 0:
            raise UserError(f"sparsity={self.sparsity} is no strength; give a positive number, such as 0.001.")
        if self.lr0_per_share is not None and not self.lr0_per_share > 0:
            raise UserError(f"lr0_per_share={self.lr0_per_share} is no learning rate; give a positive number.")
        if self.budget is not None and not self.budget > 0:
            raise UserError(f"budget={self.budget} is no time; give seconds.")
        if not (0 < self.batch < 1 or (isinstance(self.batch, int) and (self.batch > 0 or self.batch == -1))):
            raise UserError(
                f"batch={self.batch} is not understood; give a number of images, -1, or a share of GPU memory (0.7)."
            )
        if self.criterion is not None:
            check_criterion(self.criterion)
        if self.sensitivity and self.isomorphic:
            raise UserError("A sensitivity table ranks all layers together and isomorphic does not; give one of them.")
        if self.per is not None and self.per not in _PER:
            raise UserError(f"per={self.per} is no cost to divide by; give {' or '.join(_PER)}.")
        if self.sensitivity and self.per == "time":
            raise UserError("A sensitivity table goes by GFLOPs saved; leave per=time out.")
        if self.sensitivity:
            read_measured(Path(self.sensitivity))
        if self.export is not None:
            check_format(self.export)
        check_keywords(self.train)

    def _settle_types(self) -> None:
        values = dict(vars(self))
        if values["device"] is not None:
            values["device"] = str(values["device"]).strip("[]() ").replace(" ", "")
        if isinstance(values["keep"], str):
            values["keep"] = parse_names(values["keep"])
        if isinstance(values["budget"], str):
            values["budget"] = parse_budget(values["budget"])
        for name, annotation in get_type_hints(Options).items():
            object.__setattr__(self, name, typed(name, values[name], annotation))

    def save(self, path: Path, **more: Any) -> None:
        """Write the options, and what else the run must remember, as YAML."""
        with atomic(path) as tmp:
            tmp.write_text(yaml.safe_dump({**asdict(self), **more}, sort_keys=False), encoding="utf-8")

    @classmethod
    def known(cls) -> set[str]:
        """The names of all options."""
        return {f.name for f in fields(cls)}


def check_least(given: Mapping[str, Any], least: Mapping[str, int]) -> None:
    """Check that numbers are not too small.

    Raises:
        UserError: The first one that is.
    """
    for name, minimum in least.items():
        if given[name] is not None and given[name] < minimum:
            raise UserError(f"{name}={given[name]} is too small; the least is {minimum}.")


def check_criterion(name: str) -> None:
    """Check the name of a criterion.

    Raises:
        UserError: There is none of this name.
    """
    from yoloprune.criteria import CRITERIA

    if name not in CRITERIA:
        raise UserError(f"Unknown criterion {name!r}{did_you_mean(name, CRITERIA)} ({', '.join(sorted(CRITERIA))}).")
