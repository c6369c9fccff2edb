"""Every command on the pages, against the options that the command line declares."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from tests.docs.pages import PAGES, ROOT, typed
from yoloprune.cli.app import app

_COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    for name, *words in typed(page, "yoloprune"):
        if name != "COMMAND":
            _COMMANDS[name].make_context(name, words)  # fails as the command line would


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option: --no-such-option"):
        _COMMANDS["v8"].make_context("v8", ["best.pt", "--no-such-option"])


def test_every_command_is_shown() -> None:
    assert {name for page in PAGES for name, *_ in typed(page, "yoloprune")} >= set(_COMMANDS)
