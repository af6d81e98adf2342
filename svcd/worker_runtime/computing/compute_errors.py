"""What can go wrong with a function in a compute process, beside what it raises itself.

Must not import anything: those who compute in threads name these, too.
"""

from __future__ import annotations


class ComputeError(RuntimeError):
    """A function could not be run in a compute process, or its result not be brought back. What it raises itself comes
    out as it was raised.
    """


class Abandoned(ComputeError):  # noqa: N818 - it says what happened
    """It was killed, as nobody waited for its result any more."""


class RemoteTraceback(Exception):  # noqa: N818 - it is one
    """The cause of an exception that came from a compute process: where it was raised there."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'
