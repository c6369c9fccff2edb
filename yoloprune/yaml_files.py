"""Reading YAML that may come from anywhere: plain values only, and no more of them than options and names need."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from yoloprune.errors import UserError
from yoloprune.files import check_regular

__all__ = ["read_yaml"]

_LARGEST_FILE = 4 << 20  # bytes; the names of ImageNet's 21,841 classes take half a megabyte
_MOST_VALUES = 500_000  # with every alias counted as what it stands for
_DEEPEST = 50
_LONGEST = 10_000  # characters of a value without quotes; numbers to base 60 take time with the square of it
_LARGEST_NUMBER = 10**18


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Reads 1e-3 as a number, as everyone means it; YAML 1.1 asks for 1.0e-3."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    number = loader.construct_yaml_int(node)
    if abs(number) > _LARGEST_NUMBER:
        raise ValueError("a number is larger than any option")
    return number


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def read_yaml(path: str | Path, name: str | None = None) -> Any:
    """Read a YAML file of one document.

    Args:
        path: The file.
        name: What to call it in messages; its path by default.

    Raises:
        UserError: It is no regular file, not valid YAML in UTF-8, or stands for more than any file of options does.
        OSError: There is no such file, or it cannot be read.
    """
    name = name or str(path)
    check_regular(path, name)
    with Path(path).open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise UserError(f"'{name}' is larger than {_LARGEST_FILE >> 20} MB, too large for a YAML file of options.")
    try:
        text = content.decode("utf-8")
        if not _is_modest(text):
            raise UserError(f"'{name}' stands for more values than a YAML file of options has; write them out.")
        return yaml.load(text, _Loader)
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: dates that are none, too long numbers
        raise UserError(f"'{name}' is not valid YAML in UTF-8: {' '.join(str(error).split())}.") from error


def _is_modest(text: str) -> bool:
    """Whether a YAML text is neither deep nor, with its aliases written out, long."""
    counts: dict[str, int] = {}  # values that each anchor stands for
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.AliasEvent):
            name, count = None, counts.get(event.anchor, _MOST_VALUES)  # one within itself has no end
        elif isinstance(event, yaml.ScalarEvent):
            if event.implicit[0] and len(event.value) > _LONGEST:
                return False
            name, count = event.anchor, 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > _DEEPEST:
                return False
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            name, count = open_nodes.pop()
        else:
            continue
        if name:
            counts[name] = count
        around, sum_ = open_nodes[-1]
        open_nodes[-1] = around, sum_ + count
        if sum_ + count > _MOST_VALUES:
            return False
    return True
