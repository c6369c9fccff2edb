"""Running the command line in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from yoloprune.cli.app import app


@pytest.fixture
def yoloprune() -> Callable:
    """`yoloprune("v8", "--epochs", 0)` runs the command and returns exit code, stdout and stderr."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])
