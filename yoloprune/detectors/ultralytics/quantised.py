"""Networks trained for INT8 (quantisation-aware training), whose layers round weights and inputs as INT8 does.

Ultralytics trains them with NVIDIA's ModelOpt, and stores plain layers and beside them, as data, how ModelOpt is to
make them round again.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import nn
from ultralytics.utils.torch_utils import restore_qat

from yoloprune.errors import UserError

from .guard import offline, quiet

__all__ = ["check_modelopt", "quantise_again"]

_MODES = {"quantize", "max_calibrate"}  # what Ultralytics asks ModelOpt for


def check_modelopt(what: str) -> None:
    """Check that ModelOpt is installed.

    Raises:
        UserError: It is not.
    """
    for package in ("modelopt", "huggingface_hub"):  # which ModelOpt imports without asking for it
        if find_spec(package) is None:
            raise UserError(f"{what} needs the Python package {package!r}; run: pip install 'yoloprune[qat]'")


def quantise_again(network: nn.Module, state: dict[str, Any]) -> None:
    """Have the layers of a network that was read from a file round as they did in its training, in place.

    Args:
        network: The network, its layers plain.
        state: What Ultralytics has stored beside it; plain values and tensors, since `unpickling` reads nothing else.

    Raises:
        UserError: ModelOpt is not installed, or the state is none of Ultralytics' training.
    """
    path = network.pt_path
    check_modelopt(f"'{path}' was trained for INT8: loading it")
    try:
        if not {name for name, _ in state["modelopt"]["modelopt_state_dict"]} <= _MODES:
            raise ValueError
        with quiet(), offline():
            restore_qat(network, state)
    except Exception as error:  # ModelOpt may raise anything
        raise UserError(
            f"'{path}' was trained for INT8, and what it says of that fits neither its layers nor the installed "
            "ModelOpt; give the checkpoint from before that training."
        ) from error
