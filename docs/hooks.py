"""What the pages take from the code when they are built: the options of each command, of `prune`, and benchmarks/."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import typer
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_COMMANDS = "<!-- commands -->"


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of benchmarks/ to the site."""
    for path in sorted((ROOT / "benchmarks").glob("*.md")):
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Describe the commands, and lead links out of docs/ to the pages of benchmarks/."""
    markdown = re.sub(r"\]\((?:\.\./)+benchmarks/", "](benchmarks/", markdown)
    return markdown.replace(_COMMANDS, "\n".join(commands())) if _COMMANDS in markdown else markdown


def commands() -> Iterator[str]:
    """The lines of Markdown that describe every command, from the declarations that its --help shows."""
    from yoloprune.cli.app import app

    for name, command in typer.main.get_command(app).commands.items():
        text, _, examples = inspect.cleandoc(command.help).partition("[bold]Examples[/]")
        yield from (f"## yoloprune {name}", "", text.strip(), "", "```console")
        yield from (line.strip() for line in examples.splitlines() if line.strip())
        yield from ("```", "")
        words = [p for p in command.params if p.param_type_name == "argument"]
        yield f"`yoloprune {name} {' '.join(f'[{word.metavar or word.name.upper()}]' for word in words)} [OPTIONS]`"
        panel = None
        for option in command.params:
            if option.param_type_name != "option":
                continue
            if (own := getattr(option, "rich_help_panel", None) or "Options") != panel:
                panel = own
                yield from ("", f"**{panel}**", "", "| option | meaning |", "|---|---|")
            flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
            yield f"| {flags} | {_plain(option.help)} |"
        yield ""


def _plain(text: str | None) -> str:
    """The help of an option without the marks of the terminal."""
    return re.sub(r"\[/?(?:bold|dim)?\]", "", text or "").replace("\\[", "[").replace("|", "\\|")


class RunOptions(griffe.Extension):
    """Shows a function that declares its options when it is imported as it then is."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Replace signature and docstring of `prune`."""
        if not (func.docstring and "{options}" in func.docstring.value):
            return
        from yoloprune.pipeline import api

        made = getattr(api, func.name)
        func.docstring.value = inspect.getdoc(made)
        func.parameters = griffe.Parameters(
            *(
                griffe.Parameter(
                    p.name,
                    annotation=None if p.annotation is p.empty else str(p.annotation),
                    kind=griffe.ParameterKind(p.kind.description),
                    default=None if p.default is p.empty else repr(p.default),
                )
                for p in inspect.signature(made).parameters.values()
            )
        )
