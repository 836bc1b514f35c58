"""The `wsiseg` command: its subcommands, and what happens to errors."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Annotated, NoReturn

import typer

from wsiseg import __version__
from wsiseg.cli import console
from wsiseg.errors import StoreError, WsisegError

# One module wsiseg/cli/<name>.py for each, with a function of the same name, or a group of them.
COMMANDS: tuple[str, ...] = (
    "info",
    "doctor",
    "tile",
    "ingest",
    "select",
    "label",
    "synth",
    "train",
    "budget",
    "pseudo-label",
    "audit",
    "models",
    "predict",
    "evaluate",
    "demo",
)
# What the user can mend: a full disk or quota, and places where writing is not allowed.
_UNWRITABLE = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS))

app = typer.Typer(
    name="wsiseg",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
    help="Segment whole-slide images with few labels.",
)


def _version(asked: bool) -> None:  # noqa: FBT001 - a typer callback
    if asked:
        console.out.print(f"wsiseg {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    *,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    progress: Annotated[
        console.ProgressStyle, typer.Option("--progress", help="Bars, plain lines (for logs), or nothing.")
    ] = console.ProgressStyle.AUTO,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Say more; twice for every batch.")] = 0,
) -> None:
    console.configure(progress, verbose)


for _name in COMMANDS:
    _module = importlib.import_module(f"wsiseg.cli.{_name.replace('-', '_')}")
    _command = getattr(_module, _name.replace("-", "_"))
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(_name)(_command)


def main() -> None:
    """Run the command line and exit with its code.

    A `WsisegError`, and a disk that cannot be written, become one line on stderr; anything else is a bug and keeps its
    traceback.
    """
    try:
        app()
    except WsisegError as error:
        _fail(error)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _fail(StoreError(f"cannot be written: {error.strerror}", where=error.filename))


def _fail(error: WsisegError) -> NoReturn:
    console.complain(error)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
