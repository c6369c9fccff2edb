"""The recipes of the two families are complete and hold what Ultralytics' trainer takes."""

from __future__ import annotations

import pytest

from yoloprune.detectors.ultralytics.guard import check_options
from yoloprune.pipeline.recipe import merge, read_recipe


@pytest.mark.parametrize(("name", "mixup"), [("v7-coco", 0.15), ("v5-coco", 0.0)])
def test_recipes_can_be_used(name: str, mixup: float) -> None:
    options = merge(read_recipe(name), {"target_ratio": 0.5, "data": "coco.yaml"})
    assert options.train["mixup"] == mixup
    assert options.train["momentum"] == 0.937
    check_options(options.train)
