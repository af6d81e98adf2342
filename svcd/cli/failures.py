"""How the command line fails: one line on standard error, and the documented exit code.

Must not print anything by itself: ``main`` does.
"""

from __future__ import annotations

from enum import IntEnum

import click


class Exit(IntEnum):
    """Exit codes, as documented in docs/cli.md."""

    OK = 0
    OTHER = 1
    USAGE = 2
    NOT_AS_DESIRED = 3
    NO_DAEMON = 4
    INTERRUPTED = 130


class Failure(click.ClickException):
    """``text`` follows "svcd: "; ``code`` is the exit code."""

    def __init__(self, text: str, code: Exit = Exit.OTHER) -> None:
        super().__init__(text)
        self.code = code

    def show(self, file: object = None) -> None:
        click.echo(f"svcd: {self.message}", err=True)
