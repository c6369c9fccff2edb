"""Recipes: YAML files of options that a command applies, checked like options that are typed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yoloprune.errors import UserError, did_you_mean
from yoloprune.resources import resource
from yoloprune.yaml_files import read_yaml

from .declared import declared
from .options import TARGETS, Options

__all__ = ["merge", "read_recipe"]


def read_recipe(name: str) -> dict[str, Any]:
    """Read a YAML file, or cfg/NAME.yaml: options of a run, and under `train` keywords for Ultralytics' `train()`.

    Raises:
        UserError: The recipe is missing or broken, or has a key that is no option.
    """
    named = {path.stem: path for path in resource("cfg").glob("*.yaml")}
    path = named.get(name) or Path(name)
    if not path.exists() or path.is_dir():
        raise UserError(
            f"The recipe {name} does not exist; give an existing YAML file or one of {', '.join(sorted(named))}."
        )
    return _parse(path)


def _parse(path: Path) -> dict[str, Any]:
    recipe = read_yaml(path) or {}
    if not isinstance(recipe, dict):
        raise UserError(f"The recipe {path} must be a mapping of options to values.")
    known = {name for name, (_, what) in declared(Options).items() if what.in_recipes}
    for key in recipe:
        if key not in known:
            raise UserError(f"The recipe {path} has the unknown option {key!r}{did_you_mean(str(key), known)}.")
    if not isinstance(recipe.get("train", {}), dict):
        raise UserError(f"In the recipe {path}, train must be a mapping of Ultralytics' train() keywords to values.")
    return recipe


def merge(recipe: dict[str, Any], given: dict[str, Any]) -> Options:
    """Return the options of a recipe, with what was given taking its place.

    Args:
        recipe: What `read_recipe` returned.
        given: Options by name.
    """
    merged = {**recipe, **given, "train": {**recipe.get("train", {}), **given.get("train", {})}}
    if any(target in given for target in TARGETS):
        merged = {name: value for name, value in merged.items() if name not in TARGETS or name in given}
    if "epochs" in given:
        merged["budget"] = given.get("budget")  # a recipe's would decide the epochs in their place
    return Options(**merged)
