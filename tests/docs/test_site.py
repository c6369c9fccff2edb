"""The pages as a site: MkDocs finds nothing to warn of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    for package in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason="the site is built by the extra docs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "--target-gflops" in (tmp_path / "commands" / "index.html").read_text(encoding="utf-8")
    assert "calibration_images" in (tmp_path / "reference" / "prune" / "index.html").read_text(encoding="utf-8")
