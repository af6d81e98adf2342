"""What each run of a Python service offers, as its stub has described it, and what of that a successor would break.

Must not decide whether that is an obstacle: the core does.

Callers are broken by what is gone, by a parameter that they pass and that is not taken any more, by one that they do
not pass and that is needed, and by annotations that are others: what was right before may be refused then. What is new,
and has a default where it is a parameter, breaks nobody.
"""

from __future__ import annotations

from typing import Any, Final

from svcd.protocol.messages import InterfaceReported, MethodDescribed

ANYTHING: Final = ""
SHOWN: Final = 20  # differences
WORDS_LENGTH: Final = 300


class Interfaces:
    """By invocation. A run that has described nothing offers nothing."""

    def __init__(self) -> None:
        self._known: dict[int, InterfaceReported] = {}

    def topics_of(self, invocation: int) -> tuple[str, ...]:
        """What that run listens to."""
        known = self._known.get(invocation)
        return () if known is None else known.listens

    def reported(self, message: InterfaceReported) -> None:
        if all(map(_is_well_described, message.methods)):  # who is not, has not been described by our code
            self._known[message.invocation] = message

    def forget(self, invocation: int) -> None:
        self._known.pop(invocation, None)

    def differences(self, old: int, new: int) -> tuple[str, ...]:
        """What callers of the one would miss in the other, in words."""
        before, after = self._known.get(old), self._known.get(new)
        if before is None:
            return ()
        methods = {} if after is None else {each.name: each for each in after.methods}
        found: list[str] = []
        for each in before.methods:
            found += _broken(each, methods.get(each.name))
        heard = () if after is None else after.listens
        found += [f"it does not listen to {topic} any more" for topic in before.listens if topic not in heard]
        more = (f"and {len(found) - SHOWN} more",) if len(found) > SHOWN else ()
        return (*(each[:WORDS_LENGTH] for each in found[:SHOWN]), *more)


def _is_well_described(method: MethodDescribed) -> bool:
    kinds = {"name": str, "annotation": str, "required": bool, "positional": bool}
    return all(isinstance(each.get(name), kind) for each in method.parameters for name, kind in kinds.items())


def _broken(old: MethodDescribed, new: MethodDescribed | None) -> list[str]:
    if new is None:
        return [f"{old.name}() is gone"]
    name = f"{old.name}()"
    if old.stream != new.stream:
        return [f"{name} is {'a stream' if new.stream else 'no stream any more'}"]
    found = []
    parameters = {each["name"]: each for each in new.parameters}
    for each in old.parameters:
        found += _broken_parameter(name, each, parameters.pop(each["name"], None))
    found += [f"{name} needs {each['name']}" for each in parameters.values() if each["required"]]
    if _differs(old.result, new.result):
        found.append(f"{name} returns {new.result or 'anything'}, not {old.result}")
    places = [[each["name"] for each in method.parameters if each["positional"]] for method in (old, new)]
    if not found and places[0] != places[1][: len(places[0])]:
        found.append(f"{name} takes its arguments in another order: {', '.join(places[1])}")
    return found


def _broken_parameter(method: str, old: dict[str, Any], new: dict[str, Any] | None) -> list[str]:
    name = old["name"]
    if new is None:
        return [f"{method} has no parameter {name} any more"]
    if new["required"] and not old["required"]:
        return [f"{method} needs {name}, which had a default"]
    if new["annotation"] != ANYTHING and _differs(new["annotation"], old["annotation"]):
        return [f"{method} takes {name}: {new['annotation']}, not {old['annotation'] or 'anything'}"]
    return []


def _differs(wanted: str, found: str) -> bool:
    """Whether what is ``found`` may be something else than what is ``wanted``; a union takes each of its parts."""
    return wanted not in (ANYTHING, found) and not _parts(found) <= _parts(wanted)


def _parts(annotation: str) -> set[str]:
    """Of a union, each; what is within brackets is one."""
    found, depth = [""], 0
    for sign in annotation:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += sign
    return {each.strip() for each in found}
