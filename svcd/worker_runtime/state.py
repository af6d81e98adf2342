"""A service's state to bytes and back: MessagePack with what ``protocol.values`` adds, in one piece.

Must not send, nor call the service: a value goes in, bytes come out, and what could not travel is named and left out.

What is in the bytes has been read back once before they are handed over: a state that cannot be imported is worth
nothing. Own data is not bounded as a stranger's is, but for its size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final

from svcd.protocol import values
from svcd.protocol.errors import MalformedMessage, MessageTooLarge, ProtocolError
from svcd.protocol.limits import MAX_DEPTH, MAX_OMITTED, MAX_STATE_BYTES

ROOT: Final = "state"
SHOWN_LENGTH: Final = 60
_ABSENT: Final = object()


def pack_state(state: Any) -> tuple[bytes, tuple[str, ...]]:
    """The bytes, and what was left out: ``state['cache'].lock: _thread.lock cannot travel``.

    An entry of a dict or set and a field of a dataclass is left out, an item of a list becomes None.

    Raises ``ProtocolError`` when nothing of it can travel, or it is too large.
    """
    try:
        return _checked(state), ()
    except MessageTooLarge:
        raise
    except ProtocolError:
        omissions = _Omissions()
        kept = omissions.without(state, ROOT, ())
        if kept is _ABSENT:
            raise MalformedMessage(omissions.lines[0]) from None
        return _checked(kept), omissions.told()


def unpack_state(data: bytes) -> Any:
    """What was packed. Raises ``ProtocolError``."""
    return values.unpack_whole(data)


def _checked(value: Any) -> bytes:
    try:
        data = values.pack_whole(value, MAX_STATE_BYTES)
        values.unpack_whole(data)
    except ProtocolError:
        raise
    except Exception as error:  # what it is made of is user code: its properties, another thread that changes it
        raise MalformedMessage(f"{type(error).__name__}: {error}"[:200]) from None
    return data


class _Omissions:
    """Looks for what cannot travel, as deep as it takes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def told(self) -> tuple[str, ...]:
        more = len(self.lines) - MAX_OMITTED
        return tuple(self.lines if more <= 0 else [*self.lines[:MAX_OMITTED], f"and {more} more"])

    def without(self, value: Any, where: str, above: tuple[int, ...]) -> Any:
        """``value`` without what cannot travel in it, or ``_ABSENT``."""
        try:
            _checked(value)
        except MessageTooLarge:
            raise
        except ProtocolError as error:
            problem = str(error)
        else:
            return value
        if id(value) in above:
            problem = "it holds itself"
        elif len(above) == MAX_DEPTH:
            problem = f"nested deeper than {MAX_DEPTH}"
        else:
            kept = self._parts(value, where, (*above, id(value)))
            if kept is not _ABSENT:
                return kept
        self.lines.append(f"{where}: {problem}")
        return _ABSENT

    def _parts(self, value: Any, where: str, above: tuple[int, ...]) -> Any:
        if isinstance(value, dict):
            return dict(self._entries(value, where, above))
        if isinstance(value, list | tuple):
            items = [self.without(each, f"{where}[{index}]", above) for index, each in enumerate(value)]
            return [None if each is _ABSENT else each for each in items]
        if isinstance(value, set | frozenset):
            items = [self.without(each, f"{where}{{{_shown(each)}}}", above) for each in value]
            return [each for each in items if each is not _ABSENT]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [each.name for each in dataclasses.fields(value)]
            found = {name: self._field(value, name, f"{where}.{name}", above) for name in names}
            return {name: each for name, each in found.items() if each is not _ABSENT}
        return _ABSENT

    def _entries(self, entries: dict[Any, Any], where: str, above: tuple[int, ...]) -> Iterator[tuple[Any, Any]]:
        for key, each in list(entries.items()):
            at = f"{where}[{_shown(key)}]"
            try:
                _checked({key: None})
            except ProtocolError as error:
                self.lines.append(f"{at}: {_key_words(key, str(error))}")
                continue
            kept = self.without(each, at, above)
            if kept is not _ABSENT:
                yield key, kept

    def _field(self, value: Any, name: str, where: str, above: tuple[int, ...]) -> Any:
        try:
            found = getattr(value, name)
        except Exception as error:  # a field without a value, or a property in its place
            self.lines.append(f"{where}: {type(error).__name__}")
            return _ABSENT
        return self.without(found, where, above)


def _key_words(key: Any, problem: str) -> str:
    """Why it cannot be a key: because of what it holds, or of what becomes of it (a list, of a tuple)."""
    try:
        _checked(key)
    except ProtocolError as error:
        return f"as a key: {error}"
    return f"a {type(key).__name__} cannot be a key" if type(key) in (tuple, frozenset) else f"as a key: {problem}"


def _shown(key: Any) -> str:
    """A key for a path; anything but plain ones by their type, as their repr is user code."""
    if type(key) in (str, int, float, bool, bytes, type(None)):
        return repr(key)[:SHOWN_LENGTH]
    return f"<{type(key).__name__}>"
