"""The page of states (docs/states.md), drawn from the tables: ``python -m svcd.supervisor.core.diagram`` prints it.

Must not say anything that the tables do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from svcd.supervisor.core.events import TimerKind
from svcd.supervisor.core.states import WITH_PROCESS, State
from svcd.supervisor.core.transitions import ACCEPTED, ACCEPTED_TIMER, TRANSITIONS

HEAD: Final = """# States of a service

Generated from `svcd/supervisor/core/transitions.py` by `make docs`; do not edit.
"""


def reachable() -> frozenset[State]:
    """The states that a service can be in, from ``unloaded`` on."""
    found, new = {State.UNLOADED}, [State.UNLOADED]
    while new:
        for state in TRANSITIONS[new.pop()]:
            if state not in found:
                found.add(state)
                new.append(state)
    return frozenset(found)


def mermaid() -> str:
    """The states as a mermaid diagram. What every state with a process has in common is drawn once, from their box."""
    states = reachable()
    inside = [state for state in State if state in WITH_PROCESS & states]
    common = set.intersection(*({*TRANSITIONS[state].items()} for state in inside))
    lines = ["stateDiagram-v2", "    [*] --> unloaded", "    state process {"]
    for old in inside:
        own = [(new, why) for new, why in TRANSITIONS[old].items() if (new, why) not in common]
        lines += [f"        {old.value} --> {new.value}: {why}" for new, why in own]
    lines.append("    }")
    lines += [f"    process --> {new.value}: {why}" for new, why in TRANSITIONS[State.STOPPING].items()]
    for old in State:
        if old in states and old not in WITH_PROCESS:
            lines += [f"    {old.value} --> {new.value}: {why}" for new, why in TRANSITIONS[old].items()]
    return "\n".join(lines)


def _rows() -> Iterator[str]:
    states = reachable()
    for old in State:
        following = ", ".join(f"`{new.value}`" for new in State if new in TRANSITIONS[old])
        process = "yes" if old in WITH_PROCESS else "no"
        note = "" if old in states else " (not entered yet)"
        yield f"| `{old.value}`{note} | {process} | {following} |"


def _event_rows() -> Iterator[str]:
    for kind, states in ACCEPTED.items():
        if kind.__name__ != "TimerFired":
            yield f"| `{kind.__name__}` | {_names(states)} |"
    for timer in TimerKind:
        yield f"| `TimerFired` ({timer.value}) | {_names(ACCEPTED_TIMER[timer])} |"


def _names(states: frozenset[State]) -> str:
    if states == WITH_PROCESS:
        return "every state with a process"
    return ", ".join(f"`{state.value}`" for state in State if state in states)


def states_page() -> str:
    """The whole page, in Markdown."""
    return "\n".join(
        [
            HEAD,
            "```mermaid",
            mermaid(),
            "```",
            "",
            "## What may follow",
            "",
            "| state | process | may be followed by |",
            "|---|---|---|",
            *_rows(),
            "",
            "## When news of a process means something",
            "",
            "An event carries the invocation that it is about. One that is not about the present invocation, or that",
            "comes in another state than these, is too late: it is counted and otherwise ignored.",
            "",
            "| event | states |",
            "|---|---|",
            *_event_rows(),
            "",
        ]
    )


if __name__ == "__main__":
    print(states_page(), end="")  # noqa: T201 - this is the one thing that the module does when it is run
