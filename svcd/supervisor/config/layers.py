"""Several files as one: mappings merged key by key, the later wins, each value keeps the place where it was written.

Must not check anything: what does not fit together is found later.
"""

from __future__ import annotations

from typing import Final

from svcd.supervisor.config.tree import Loc, Mapping, Node, Scalar
from svcd.supervisor.config.words import HEALTH_KEYS, HTTP_ONLY_KEYS, READY_KEYS, RUN_KEYS, SCHEDULE_KEYS

_EXCLUSIVE: Final[dict[Loc, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    (): (RUN_KEYS, ()),
    ("ready",): (READY_KEYS, HTTP_ONLY_KEYS),
    ("health",): (HEALTH_KEYS, HTTP_ONLY_KEYS),
    ("schedule",): (SCHEDULE_KEYS, ()),
}
"""Within a service: keys of which only one can be used, and those that go with some of them only."""

_NULL_MEANS_SOMETHING: Final = ("env", "config")


def overlay(lower: Mapping, upper: Mapping, loc: Loc = ()) -> Mapping:
    """``upper`` over ``lower``; a new mapping. Lists are replaced, not joined; null takes a key away, except in ``env``
    (where it removes a variable) and in ``config`` (where it is a value).

    Of keys that exclude each other (``command``, ``python``, … and the kinds of ``ready``) what upper says drops
    what lower says.
    """
    within = _within_service(loc)
    dropped = _dropped(upper, within)
    keeps_null = within is not None and within[:1] in [(each,) for each in _NULL_MEANS_SOMETHING]
    entries: dict[str, Node] = {}
    marks = {}
    for key, node in lower.entries.items():
        taken_away = key in upper.entries and not is_given(upper, key) and not keeps_null
        if key not in dropped and not taken_away:
            entries[key], marks[key] = node, lower.key_marks[key]
    for key, node in upper.entries.items():
        below = entries.get(key)
        if isinstance(below, Mapping) and isinstance(node, Mapping):
            entries[key] = overlay(below, node, (*loc, key))  # it stands where it was begun
        elif keeps_null or is_given(upper, key) or key not in lower.entries:
            entries[key], marks[key] = node, upper.key_marks[key]
    return Mapping(lower.mark, entries, marks)


def with_defaults(defaults: Mapping, service: Mapping) -> Mapping:
    """A service over the defaults, its own keys first."""
    merged = overlay(Mapping(service.mark, defaults.entries, defaults.key_marks), service, ("defaults",))
    own = set(service.entries)
    order = [
        *(key for key in service.entries if key in merged.entries),
        *(key for key in merged.entries if key not in own),
    ]
    merged.entries = {key: merged.entries[key] for key in order}
    return merged


def _within_service(loc: Loc) -> Loc | None:
    """``loc`` from the service on, or from the defaults on; None outside of both."""
    if loc[:1] == ("defaults",):
        return loc[1:]
    return loc[2:] if loc[:1] == ("services",) and len(loc) > 1 else None


def _dropped(upper: Mapping, within: Loc | None) -> tuple[str, ...]:
    if within not in _EXCLUSIVE:
        return ()
    kinds, followers = _EXCLUSIVE[within]
    return (*kinds, *followers) if any(is_given(upper, key) for key in kinds) else ()


def is_given(mapping: Mapping, key: str) -> bool:
    """Whether the key is there and holds something."""
    node = mapping.entries.get(key)
    return node is not None and not (isinstance(node, Scalar) and node.value is None)
