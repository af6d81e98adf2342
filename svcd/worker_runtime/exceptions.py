"""From an exception of user code to the record that the controller gets: bounded, and without the runtime's own frames.

Must not raise, whatever the exception does when it is looked at.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import itertools
import os
import threading
import traceback
from typing import Final

from svcd.protocol.limits import MAX_EXCEPTION_TEXT_BYTES, MAX_FRAMES, MAX_TRACEBACK_BYTES
from svcd.protocol.messages import ExceptionRaised, Frame
from svcd.worker_runtime.lifetime.outcome import AbortedError

MAX_LINE_LENGTH: Final = 300
MAX_NAME_LENGTH: Final = 200

_IN_BETWEEN: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "recording.py")
"""It runs each import of a service whose imports are measured."""

_FROZEN: Final = "<frozen importlib"
_MACHINERY: Final = (
    _FROZEN,
    os.path.dirname(os.path.abspath(__file__)) + os.sep,
    os.path.dirname(asyncio.__file__) + os.sep,
    os.path.dirname(concurrent.futures.__file__) + os.sep,
    os.path.dirname(importlib.__file__) + os.sep,
    threading.__file__,
)
"""Frames in these, before the first one of user code, say nothing to the author of a service."""

_OURS: Final = "svcd."
"""What begins so is raised by the machinery on purpose: its own frames, the last ones, say nothing either."""


def describe(error: BaseException, service: str, invocation: int, phase: str) -> ExceptionRaised:
    """The record of ``error``."""
    name = _type_name(error)
    text = bounded(safe_text(error), MAX_EXCEPTION_TEXT_BYTES)
    try:
        whole = traceback.TracebackException.from_exception(error)
        _trim(whole)
        if name.startswith(_OURS):
            _trim_end(whole.stack)
        frames = tuple(_frame(each) for each in whole.stack[-MAX_FRAMES:])
        printed = "".join(whole.format())
    except Exception:  # what an exception's own attributes may do has no bounds
        frames, printed = (), f"{name}: {text}\n"
    return ExceptionRaised(
        service, invocation, phase, name, text, bounded(printed, MAX_TRACEBACK_BYTES).rstrip("\n") + "\n", frames
    )


def one_line(error: BaseException) -> str:
    """``Type: text``, on one line that fits a table."""
    lines = safe_text(error).strip().splitlines()
    first = lines[0].strip() if lines else ""
    name = _type_name(error).rpartition(".")[2]
    line = f"{name}: {first}" if first else name
    return line if len(line) <= MAX_LINE_LENGTH else line[: MAX_LINE_LENGTH - 1] + "…"


def safe_text(error: BaseException) -> str:
    """``str(error)``, or words that say that there is none."""
    try:
        return str(error)
    except BaseException as broken:  # a SystemExit in __str__ must not end the stub
        return f"<{type(broken).__name__} in its __str__>"


def linked_with(error: BaseException, other: BaseException) -> bool:
    """Whether ``other`` is ``error``, among what led to it, in its group, or a stand-in for its cancellation."""
    if isinstance(other, AbortedError) and other.__cause__ is error:
        return True
    todo, seen = [error], set[int]()
    while todo:
        each = todo.pop()
        if each is other:
            return True
        if id(each) not in seen:
            seen.add(id(each))
            group = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
            todo += [linked for linked in (each.__cause__, each.__context__, *group) if linked is not None]
    return False


def bounded(text: str, limit_bytes: int) -> str:
    """``text``, with its middle cut out where it is longer than ``limit_bytes`` in UTF-8."""
    if len(text) * 4 <= limit_bytes:
        return text
    encoded = text.encode("utf-8", "backslashreplace")
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    note = f"\n… {len(encoded)} bytes, cut here …\n"
    half = (limit_bytes - len(note.encode())) // 2
    return encoded[:half].decode("utf-8", "ignore") + note + encoded[-half:].decode("utf-8", "ignore")


def _type_name(error: BaseException) -> str:
    cls = type(error)
    try:
        module, name = str(cls.__module__), str(cls.__qualname__)
    except Exception:
        return "<unnamed exception>"
    return (name if module in ("builtins", "__main__") else f"{module}.{name}")[:MAX_NAME_LENGTH]


def _frame(summary: traceback.FrameSummary) -> Frame:
    return Frame(
        bounded(summary.filename, MAX_EXCEPTION_TEXT_BYTES),
        summary.lineno or 0,
        bounded(summary.name, MAX_EXCEPTION_TEXT_BYTES),
        bounded(summary.line or "", MAX_EXCEPTION_TEXT_BYTES)[:MAX_LINE_LENGTH],
    )


def _trim(whole: traceback.TracebackException) -> None:
    """Cut the leading frames of machinery, here and in every exception that this one is linked with."""
    todo, seen = [whole], set[int]()
    while todo:
        each = todo.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        count = 0
        while count < len(each.stack) and each.stack[count].filename.startswith(_MACHINERY):
            count += 1
        del each.stack[:count]
        each.stack[:] = [frame for frame in each.stack if frame.filename != _IN_BETWEEN]
        todo += [linked for linked in (each.__cause__, each.__context__, *(each.exceptions or ())) if linked]


def _trim_end(stack: traceback.StackSummary) -> None:
    """Cut the frames after the last one of user code, if there is one."""
    ours = list(itertools.takewhile(lambda frame: frame.filename.startswith(_MACHINERY), reversed(stack)))
    if len(ours) < len(stack):
        del stack[len(stack) - len(ours) :]
