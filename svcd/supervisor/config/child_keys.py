"""The keys of a child service's definition: those of cluster.yaml that make sense for one, with its types and defaults.

Must not import ``shape``: what that declares with all its words, this room says in plain tables. A test holds the two
together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final, get_args

from svcd.record import record
from svcd.supervisor.config import leaves
from svcd.supervisor.config.targets import Address, Pattern, Url
from svcd.supervisor.config.tree import Loc, kind_of
from svcd.supervisor.config.units import RefusedError, near_miss
from svcd.supervisor.config.words import READY_EXAMPLES, LogDriver, expand_dependencies, expand_ready, expand_spawn
from svcd.supervisor.core.spec import Condition, DependencyKind, OnCrash, RestartMode, RunEnd, ServiceType

Find = Callable[[Loc, str, str], None]
"""Notes what is wrong at a place, and how to mend it."""


@record
class Leaf:
    """A single value: ``type`` is one of ``leaves`` or ``targets``, or what ``leaves.choice`` makes."""

    type: Any
    default: Any = None

    def parse(self, value: Any) -> Any:
        """Raises ``RefusedError``."""
        parsed = self.type if isinstance(self.type, leaves.Parsed) else get_args(self.type)[1]
        return parsed.parse(value)


@record
class Block:
    """A mapping with known keys; ``many``: one from names to such mappings. ``expand``: a short form made long.
    ``is_there``: also where nothing is written, with all its defaults.
    """

    keys: Mapping[str, Leaf | Block]
    expand: Callable[[Any], Any] = lambda value: value
    is_there: bool = True
    example: str = ""
    many: bool = False


def _choice(enum: Any, default: Any = None) -> Leaf:
    return Leaf(leaves.choice(enum), default)


RESTART: Final = Block(
    {
        "policy": _choice(RestartMode),
        "backoff": Block(
            {
                "initial": Leaf(leaves.Duration, 0.1),
                "factor": Leaf(leaves.Factor, 2.0),
                "max": Leaf(leaves.Duration, 30.0),
                "jitter": Leaf(leaves.Jitter, 0.1),
            },
            example="{initial: 100ms, factor: 2, max: 30s, jitter: 0.1}",
        ),
        "intensity": Block(
            {"restarts": Leaf(leaves.Restarts, 5), "within": Leaf(leaves.PositiveDuration, 60.0)},
            example="{restarts: 5, within: 60s}",
        ),
        "reset_after": Leaf(leaves.Duration, 10.0),
        "success_codes": Leaf(leaves.SuccessCodes, (0,)),
        "prevent_codes": Leaf(leaves.PreventCodes, ()),
        "by_cause": Block(
            {end.value: _choice(RestartMode) for end in RunEnd}, example="{health: always, signal: never}"
        ),
    },
    example="{policy: always}",
)
STOP: Final = Block(
    {
        "signal": Leaf(leaves.Signal, 15),
        "timeout": Leaf(leaves.Duration, 10.0),
        "drain_timeout": Leaf(leaves.Duration, 10.0),
        "drain_grace": Leaf(leaves.Duration, 0.0),
    },
    example="{signal: SIGTERM, timeout: 10s}",
)
READY: Final = Block(
    {
        "immediate": Leaf(leaves.Flag),
        "delay": Leaf(leaves.Duration),
        "notify": Leaf(leaves.Flag),
        "tcp": Leaf(Address),
        "timeout": Leaf(leaves.PositiveDuration, 60.0),
        "notification-fd": Leaf(leaves.Descriptor),
        "http": Leaf(Url),
        "exec": Leaf(leaves.Command),
        "log": Leaf(Pattern),
        "status": Leaf(leaves.HttpStatus),
        "body": Leaf(Pattern),
        "interval": Leaf(leaves.PositiveDuration, 0.1),
    },
    expand_ready,
    is_there=False,
    example=READY_EXAMPLES["tcp"],
)
EDGES: Final = Block(
    {
        "kind": _choice(DependencyKind, DependencyKind.REQUIRES),
        "condition": _choice(Condition, Condition.RUNNING),
        "on_crash": _choice(OnCrash),
    },
    expand_dependencies,
    many=True,
    example="{kind: requires}",
)
LOGS: Final = Block(
    {
        "max_size": Leaf(leaves.PositiveSize),
        "keep": Leaf(leaves.Kept),
        "merge_stderr": Leaf(leaves.Flag),
        "driver": _choice(LogDriver),
    },
    example="{max_size: 10MiB, keep: 5}",
)
"""Without defaults: the parent's own hold."""

PERMISSIONS: Final = Block(
    {
        "services": Leaf(leaves.NameList, ()),
        "spawn": Block({"max": Leaf(leaves.Children, 0)}, expand_spawn, example="{max: 10}"),
    },
    example="{services: [mailer], spawn: {max: 10}}",
)
CHILD: Final = Block(
    {
        "command": Leaf(leaves.Command),
        "python": Leaf(leaves.Entry),
        "script": Leaf(leaves.Path),
        "code": Leaf(leaves.Code),
        "path": Leaf(leaves.PathList),
        "config": Leaf(leaves.Config),
        "type": _choice(ServiceType, ServiceType.SERVICE),
        "env": Leaf(leaves.Environment),
        "tags": Leaf(leaves.Tags, ()),
        "depends_on": EDGES,
        "ready": READY,
        "restart": RESTART,
        "stop": STOP,
        "logs": LOGS,
        "permissions": PERMISSIONS,
    }
)
INHERITED: Final = frozenset({"workdir", "user", "group", "umask", "interpreter", "env_file"})
ELSEWHERE: Final = {
    "start": "write start=False to have it registered alone",
    "instances": "create several children, each with a name of its own",
    "essential": "stop the parent with an error in child_ended",
}


def read(value: Any, find: Find) -> SimpleNamespace:
    """What is written, with all defaults; wrong values are noted and have their defaults."""
    return _block(_with_texts_as_keys(value, (), find), CHILD, (), find)


def _with_texts_as_keys(value: Any, at: Loc, find: Find) -> Any:
    """As from a file, where a key is always text."""
    if isinstance(value, list | tuple):
        return [_with_texts_as_keys(item, (*at, index), find) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    for key in value:
        if not isinstance(key, str):
            find(at, f"has the key {str(key)[:80]}, which is no text", "put it in quotes")
    return {key: _with_texts_as_keys(item, (*at, key), find) for key, item in value.items() if isinstance(key, str)}


def _block(value: Any, block: Block, at: Loc, find: Find) -> SimpleNamespace:
    found: dict[str, Any] = {}
    if not isinstance(value, dict):
        find(at, f"must be a mapping, not {kind_of(value)}", f"write one such as {block.example}")
        value = {}
    written = {key: item for key, item in value.items() if item is not None}
    for key in written:
        if key not in block.keys:
            find((*at, str(key)[:80]), *_unknown(str(key), block, at))
    for key, kind in block.keys.items():
        name = key.replace("-", "_")
        if isinstance(kind, Leaf):
            found[name] = _leaf(written[key], kind, (*at, key), find) if key in written else kind.default
        else:
            found[name] = _inner(written.get(key), kind, (*at, key), find)
    return SimpleNamespace(**found, written_keys=frozenset(written))


def _inner(value: Any, block: Block, at: Loc, find: Find) -> Any:
    if value is None and not block.is_there:
        return None
    try:
        value = {} if value is None else block.expand(value)
    except RefusedError as refused:
        _refused(refused, at, find)
        value = {}
    if not block.many:
        return _block(value, block, at, find)
    return {name: _block({} if item is None else item, block, (*at, name), find) for name, item in value.items()}


def _leaf(value: Any, leaf: Leaf, at: Loc, find: Find) -> Any:
    try:
        return leaf.parse(value)
    except RefusedError as refused:
        _refused(refused, at, find)
        return leaf.default


def _refused(refused: RefusedError, at: Loc, find: Find) -> None:
    for each in (refused, *refused.others):
        find((*at, *each.at), each.text, each.suggestion)


def _unknown(key: str, block: Block, at: Loc) -> tuple[str, str]:
    if block is CHILD and key in INHERITED:
        return "is no key of a child", "a child has its parent's: leave it out"
    if block is CHILD and key in ELSEWHERE:
        return "is no key of a child", ELSEWHERE[key]
    return "unknown key", near_miss(key, block.keys) or f"the keys here are {', '.join(block.keys)}"
