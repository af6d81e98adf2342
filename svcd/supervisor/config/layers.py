"""Several files as one: mappings merged key by key, the later wins, each value keeps the place where it was written.

Must not check anything: what does not fit together is found later.
"""

from __future__ import annotations

from svcd.supervisor.config.shape import READY_KEYS, RUN_KEYS
from svcd.supervisor.config.tree import Loc, Mapping, Node, Scalar


def overlay(lower: Mapping, upper: Mapping, loc: Loc = ()) -> Mapping:
    """``upper`` over ``lower``; a new mapping. Lists are replaced, not joined.

    Of keys that exclude each other (``command``, ``python``, … and the kinds of ``ready``) what upper says drops
    what lower says.
    """
    dropped = _dropped(upper, _exclusive(loc))
    entries: dict[str, Node] = {}
    marks = {}
    for key, node in lower.entries.items():
        if key not in dropped:
            entries[key], marks[key] = node, lower.key_marks[key]
    for key, node in upper.entries.items():
        below = entries.get(key)
        if isinstance(below, Mapping) and isinstance(node, Mapping):
            entries[key] = overlay(below, node, (*loc, key))  # it stands where it was begun
        else:
            entries[key], marks[key] = node, upper.key_marks[key]
    return Mapping(lower.mark, entries, marks)


def with_defaults(defaults: Mapping, service: Mapping) -> Mapping:
    """A service over the defaults, its own keys first."""
    merged = overlay(Mapping(service.mark, defaults.entries, defaults.key_marks), service, ("defaults",))
    own = set(service.entries)
    order = [*service.entries, *(key for key in merged.entries if key not in own)]
    merged.entries = {key: merged.entries[key] for key in order}
    return merged


def _exclusive(loc: Loc) -> tuple[str, ...]:
    """The keys at ``loc`` of which only one can be used."""
    inside = loc[1:] if loc[:1] == ("defaults",) else loc[2:] if loc[:1] == ("services",) and len(loc) > 1 else None
    if inside == ():
        return RUN_KEYS
    if inside == ("ready",):
        return READY_KEYS
    return ()


def _dropped(upper: Mapping, exclusive: tuple[str, ...]) -> tuple[str, ...]:
    chosen = any(is_given(upper, key) for key in exclusive)
    return exclusive if chosen else ()


def is_given(mapping: Mapping, key: str) -> bool:
    """Whether the key is there and holds something."""
    node = mapping.entries.get(key)
    return node is not None and not (isinstance(node, Scalar) and node.value is None)
