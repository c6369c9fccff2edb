"""The pages that users read, and the snippets in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
"""README, CONTRIBUTING and what docs/ is built from."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language, without the indent that they have in a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [re.sub(rf"^{indent}", "", code, flags=re.M) for indent, code in found]


def commands(page: Path) -> list[str]:
    """The lines of its console blocks, a continued one as one."""
    text = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def typed(page: Path, program: str) -> Iterator[list[str]]:
    """Every use of a program on a page, in blocks and in running text, as words; what is left out (…) is left out."""
    inline = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    for line in [*commands(page), *inline]:
        words = shlex.split(line, comments=True)
        if len(words) > 1 and words[0] == program:
            yield [word for word in words[1:] if word not in ("…", "...")]
