"""README's table of the options of `v8`, `v7`, `v5` and `prune`, from where they are declared."""

from __future__ import annotations

from .run_command import PAIRS, PANELS, RECIPE, flags_of

__all__ = ["options_table"]


def options_table() -> str:
    """The table in Markdown, ending with a line break.

    Examples:
        >>> options_table().splitlines()[0]
        '| option of `v8`, `v7`, `v5` and `prune` | default | meaning |'
    """
    flags = flags_of({**RECIPE, "weights": "the embedded detector (`v8` only)"})
    lines = ["| option of `v8`, `v7`, `v5` and `prune` | default | meaning |", "|---|---|---|"]
    for panel in PANELS:
        lines.append(f"| **{panel}** | | |")
        for flag in flags:
            if flag.panel == panel:
                names = "`, `".join(name for both in flag.names for name in both.split("/"))
                lines.append(f"| `{names}` |{f' {flag.default} ' if flag.default else ' '}| {flag.text} |")
    lines.append(f"| `KEY=VALUE` | | {PAIRS} |")
    return "\n".join(lines) + "\n"
