"""From what is wrong with a block to findings in a user's words, at the place in the file.

Must not decide what is allowed: that is ``shape``'s.
"""

from __future__ import annotations

from typing import Any, Final

from svcd.supervisor.config.block import Block, Fault, ShapeError, key_names, keys_of
from svcd.supervisor.config.errors import Findings
from svcd.supervisor.config.shape import BLOCKS, Cluster, Edge, Hook, Service
from svcd.supervisor.config.tree import Loc, Node, Scalar, dotted, find, kind_of, locate
from svcd.supervisor.config.units import IN_QUOTES, RefusedError, near_miss

HABITS: Final = {
    "autorestart": "write restart: {policy: always}",
    "autostart": "write start: eager or start: manual",
    "after": "write depends_on: {NAME: {kind: after}}",
    "args": "put the arguments into command: [program, argument]",
    "build": "svcd runs programs, not images; name the program with command:",
    "cmd": "write command",
    "cwd": "write workdir",
    "cron": 'write schedule: "*/5 * * * *"',
    "directory": "write workdir",
    "entrypoint": "write command",
    "environment": "write env",
    "exec": "write command",
    "healthcheck": "write health, or ready for readiness",
    "image": "svcd runs programs, not images; name the program with command:",
    "log": "write logs",
    "module": "write python: module:Class",
    "notify": "write ready: notify",
    "numprocs": "write instances",
    "priority": "the order of start and stop follows from depends_on",
    "program": "write command",
    "replicas": "write instances",
    "requires": "write depends_on: [NAME]",
    "run": "write command",
    "stopsignal": "write stop: {signal: SIGTERM}",
    "uid": "write user",
    "gid": "write group",
    "wants": "write depends_on: {NAME: {kind: wants}}",
    "working_dir": "write workdir",
    "working_directory": "write workdir",
}
"""Keys of a service that other supervisors have, and what they are called here."""


def add_findings(
    error: ShapeError, root: Node, block: type[Block], prefix: Loc, told: set[str], findings: Findings
) -> set[str]:
    """Record every error of validating ``root`` as ``block``; ``prefix``: where root stands; ``told``: keys of which
    enough was said. Returns the bad keys.
    """
    bad = set[str]()
    for each in error.problems:
        loc = each.loc
        if loc and loc[0] in told:
            continue
        if loc:
            bad.add(str(loc[0]))
        if each.refused is not None:
            for one in (each.refused, *each.refused.others):
                add_refusal(one, root, loc, prefix, findings)
        elif each.fault is Fault.UNKNOWN:
            text, suggestion = _unknown(block, loc)
            findings.add(locate(root, loc, prefer_key=True), dotted((*prefix, *loc)), text, suggestion)
        elif each.fault is Fault.MISSING:
            key = loc[-1]
            findings.add(locate(root, loc[:-1]), dotted((*prefix, *loc[:-1])), f"{key}: is missing", f"add {key}:")
        else:
            text, suggestion = _wrong_kind(each.fault, block, loc, each.value)
            findings.add(locate(root, loc), dotted((*prefix, *loc)), text, suggestion)
    return bad


def add_refusal(refused: RefusedError, root: Node, loc: Loc, prefix: Loc, findings: Findings) -> None:
    """Record one refusal of the value at ``loc`` below ``root``."""
    whole: Loc = (*loc, *refused.at)
    suggestion, node = refused.suggestion, find(root, whole)
    if suggestion.startswith(IN_QUOTES) and isinstance(node, Scalar):
        suggestion = f'{IN_QUOTES}"{node.text}"'  # as it was written: 1.10 is the number 1.1
    findings.add(locate(root, whole), dotted((*prefix, *whole)), refused.text, suggestion)


def block_at(block: type[Block], loc: Loc) -> type[Block]:
    """The block that stands at ``loc`` below ``block``."""
    if not loc:
        return block
    if block is Cluster and loc[0] in ("services", "defaults"):
        return block_at(Service, loc[2:] if loc[0] == "services" else loc[1:])
    if block is Service and loc[0] == "depends_on":
        return Edge
    if block is Service and loc[0] == "hooks" and len(loc) > 1:
        return Hook
    loc = tuple(step for step in loc if isinstance(step, str))
    found = BLOCKS.get(dotted(("services", "NAME", *loc)))
    return found or block


def _unknown(block: type[Block], loc: Loc) -> tuple[str, str]:
    key = str(loc[-1])
    here = block_at(block, loc[:-1])
    known = key_names(here)
    if here is Service and key in HABITS:
        return "unknown key", HABITS[key]
    near = near_miss(key, known)
    if near:
        return "unknown key", near
    elsewhere = [place for place, other in BLOCKS.items() if key in key_names(other) and other is not here]
    if elsewhere:
        place = elsewhere[0].replace("services.NAME", "a service").replace(".", ": ") or "the top of the file"
        return "unknown key here", f"{key} is a key of {place}" if elsewhere[
            0
        ] else f"{key} stands at the top of the file"
    return "unknown key", f"the keys here are {', '.join(_present(here))}"


def _present(block: type[Block]) -> list[str]:
    """The keys that can be used now, in order."""
    names = {name: key for key, name in key_names(block).items()}
    return [names[name] for name, each in keys_of(block).items() if each.description]


def _wrong_kind(fault: Fault, block: type[Block], loc: Loc, value: Any) -> tuple[str, str]:
    example = "{web: {command: [python3, server.py]}}" if loc == ("services",) else block_at(block, loc).example
    if fault is Fault.NOT_A_LIST:
        return f"must be a list, not {kind_of(value)}", f"write one such as [{example}]"
    return f"must be a mapping, not {kind_of(value)}", f"write one such as {example}"
