"""Exit codes, and the exception that ends a command with one of them.

Must not print.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a script can rely on."""

    OK = 0  # all, or all that were named, as desired
    OTHER = 1  # anything else, a refused second start among it
    USAGE = 2  # bad usage, unknown name, bad configuration: nothing was done
    NOT_AS_DESIRED = 3  # something is not as desired, or --timeout ran out
    NO_DAEMON = 4  # there is no daemon to talk to
    INTERRUPTED = 130  # Ctrl-C; what was asked stays in force


class CommandFailed(Exception):  # noqa: N818 - it says what is
    """Ends the command. ``text`` is one line that begins with "cannot …" where that fits; ``hint`` says what helps;
    ``details`` are whole lines, shown between the two.
    """

    def __init__(self, text: str, code: Exit = Exit.OTHER, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.text, self.code, self.hint, self.details = text, code, hint, details
