"""Signals as people write them: ``HUP``, ``SIGHUP``, ``hup``, ``1``.

Must not send any.
"""

from __future__ import annotations

import difflib
import signal

from svcd.cli.exits import CommandFailed, Exit


def parse_signal(text: str) -> tuple[int, str]:
    """The number and the name of a signal. Raises ``CommandFailed`` with the near miss."""
    word = text.strip().upper()
    if word.isascii() and word.isdigit() and len(word) <= 3:
        number = int(word)
        if number in signal.valid_signals():
            return number, name_of(number)
        raise CommandFailed(f"cannot send signal {number}: there is none of that number", Exit.USAGE, "kill -l")
    name = word if word.startswith("SIG") else f"SIG{word}"
    known = {each.name: each for each in signal.Signals}
    if name in known:
        return int(known[name]), name
    near = difflib.get_close_matches(name, known, 1)
    mend = f"; did you mean {near[0].removeprefix('SIG')}?" if near else ""
    raise CommandFailed(
        f"cannot send {text!r}: there is no such signal{mend}", Exit.USAGE, "a name such as HUP, or a number"
    )


def name_of(number: int) -> str:
    """``SIGHUP``; real-time signals without a name are ``signal 40``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
