"""How commands end when something is wrong: one sentence on stderr and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from yoloprune.errors import UserError, did_you_mean
from yoloprune.pipeline.declared import OUTPUT

__all__ = ["Command", "Group", "fail", "one_line", "reported"]

_FAILED = 1
_USER_ERROR = 2
_INTERRUPTED = 130  # what a shell reports for SIGINT
_USAGE_ERROR = typer.BadParameter.__mro__[1]  # of the click that typer brings, under whichever name
_OUTSIDE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT}
_OTHERS = {"v5", "v3", "v6", "v9", "v10", "v11", "v12", "v26", "11", "12", "26", "yolo11", "yolo12", "yolo26", "rtdetr"}


def one_line(text: str) -> str:
    """The text as one line that a terminal shows as it is: control characters, also of file names, are spelt out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def reported() -> Iterator[None]:
    """Turn a user's mistake into a sentence and exit code 2, Ctrl-C into a line and exit code 130."""
    try:
        yield
    except UserError as error:
        _say(str(error))
        raise typer.Exit(_USER_ERROR) from None
    except OSError as error:
        if error.errno not in _OUTSIDE or not error.filename:
            raise
        _say(f"'{error.filename}' cannot be used: {error.strerror}.")
        raise typer.Exit(_USER_ERROR) from None
    except KeyboardInterrupt as error:
        if sys.stderr.isatty():
            typer.echo("\r", nl=False, err=True)  # over the ^C that the terminal has written
        _say(str(error) or "Interrupted; nothing was written.")
        raise typer.Exit(_INTERRUPTED) from None


def fail(sentence: str) -> NoReturn:
    """End with a sentence and exit code 1: nothing was wrong with what was typed, but with what came of it."""
    _say(sentence)
    raise typer.Exit(_FAILED)


def _say(sentence: str) -> None:
    typer.echo(f"yoloprune: {one_line(sentence)}", err=True)


class Group(TyperGroup):
    """The application: what click finds wrong is answered like all other mistakes, and no arguments ask for help."""

    def main(self, args: Any = None, **settings: Any) -> Any:
        """Run a command line; `settings` are click's."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(words or ["--help"], **{**settings, "standalone_mode": False})
        except _USAGE_ERROR as error:
            _say(_sentence(error))
            code = _USER_ERROR
        if settings.get("standalone_mode", True):
            sys.exit(code or 0)
        return code

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first word names."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise _USAGE_ERROR(self._unknown(args[0]), ctx)
        return super().resolve_command(ctx, args)

    def _unknown(self, word: str) -> str:
        if word.endswith(".pt"):
            return f"A command comes before the weights; try: yoloprune prune {word}."
        if word.lower() in _OTHERS:
            return f"There is no command {word!r}; this family is pruned by: yoloprune prune."
        return f"There is no command {word!r}{did_you_mean(word, self.commands)} ({', '.join(self.commands)})."


class Command(TyperCommand):
    """A command whose help lists --help among the options of output, where it has such, not under a heading alone."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        for parameter in self.params:
            if parameter.param_type_name == "argument":  # whose name says what it is
                parameter.display_type_rich = lambda ctx: None

    def get_help_option(self, ctx: Any) -> Any:
        """The option --help."""
        option = super().get_help_option(ctx)
        option.metavar = ""
        if any(getattr(other, "rich_help_panel", None) == OUTPUT for other in self.params):
            option.rich_help_panel = OUTPUT
        return option


def _sentence(error: Any) -> str:
    """What click says, in one sentence."""
    command = error.ctx.command if error.ctx else None
    name, known = getattr(error, "option_name", None), [o for p in getattr(command, "params", ()) for o in p.opts]
    if type(error).__name__ == "NoSuchOption":
        return f"There is no option {name!r}{did_you_mean(name, known)} ({error.ctx.command_path} --help lists them)."
    said = " ".join(error.format_message().split())
    return said if said.endswith((".", "?", "!")) else f"{said}."
