"""The validated cluster as one JSON document: written by the command line, read by the daemon.

Must not import a YAML reader or a validator (the daemon pays for neither), and must not repair what it reads.

A field that holds its default is left out; what all services have in common of their environments is written once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeVar

from svcd.record import defaults_of, field_names
from svcd.supervisor.config.launch import (
    ClusterSpec,
    HealthProbe,
    HookCommand,
    HttpTarget,
    LaunchSpec,
    LogPolicy,
    Program,
    PythonCode,
    ReadyProbe,
    Schedule,
    ServiceDefinition,
    SocketSpec,
    StatePolicy,
)
from svcd.supervisor.core.spec import (
    Backoff,
    Condition,
    Dependency,
    DependencyKind,
    HealthAction,
    HealthPolicy,
    Hook,
    Intensity,
    OnCrash,
    Overlap,
    PausePolicy,
    ReadyKind,
    RestartMode,
    RestartPolicy,
    RunEnd,
    Runner,
    ServiceSpec,
    ServiceType,
    StartMode,
    StopPolicy,
)

VERSION: Final = 1

_T = TypeVar("_T")
_Decoder = Callable[[Any], Any]


class PlanError(ValueError):
    """The document is not a plan that this version can read."""


def to_json(cluster: ClusterSpec) -> bytes:
    """The document, ASCII. ``from_json`` gives an equal cluster back."""
    shared = _shared_environment(cluster)
    services = [
        {**_encode(each), "spec": _encode(each.spec), "launch": _encode_launch(each.launch, shared)}
        for each in cluster.services
    ]
    environ = _difference(cluster.environ, shared)
    document = {"version": VERSION, "environment": shared, **_encode(cluster), "environ": environ, "services": services}
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")


def from_json(data: bytes) -> ClusterSpec:
    """The cluster of a document that ``to_json`` wrote. Raises ``PlanError`` for anything else."""
    try:
        document = json.loads(data)
        version = document.pop("version")
        if version != VERSION:
            raise PlanError(f"cannot read a plan of version {version}: this svcd reads version {VERSION}")
        shared = document.pop("environment")
        for service in document["services"]:
            launch = service["launch"]
            launch["env"] = {**shared, **launch.get("env", {})}
        document["environ"] = _applied(document["environ"], shared)
        return _decode(ClusterSpec, document)
    except PlanError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PlanError(f"cannot read the plan: {type(error).__name__}: {error}") from error


# ---- writing -------------------------------------------------------------------------------------------------------


def _shared_environment(cluster: ClusterSpec) -> dict[str, str]:
    environments = [each.launch.env for each in cluster.services]
    if not environments:
        return {}
    shared = set(environments[0].items())
    for each in environments[1:]:
        shared &= each.items()
    return dict(sorted(shared))


def _difference(environ: Mapping[str, str], shared: Mapping[str, str]) -> dict[str, str | None]:
    """What makes ``environ`` of what is shared; None takes a variable away."""
    added = {name: value for name, value in environ.items() if shared.get(name) != value}
    return {**added, **{name: None for name in shared if name not in environ}}


def _applied(difference: Mapping[str, str | None], shared: Mapping[str, str]) -> dict[str, str]:
    both = {**shared, **difference}
    return {name: value for name, value in both.items() if value is not None}


def _encode_launch(launch: LaunchSpec, shared: Mapping[str, str]) -> dict[str, Any]:
    own = {name: value for name, value in launch.env.items() if name not in shared}
    return {**_encode(launch), "env": own} if own else _encode(launch)


def _encode(value: Any) -> dict[str, Any]:
    """The fields of a record that do not hold their default."""
    cls = type(value)
    encoded = {}
    for name, default in _DEFAULTS[cls].items():
        item = getattr(value, name)
        if item != default and name not in _APART[cls]:
            encoded[name] = _encode_item(item)
    return encoded


def _encode_item(item: Any) -> Any:
    if isinstance(item, Enum):
        return item.value
    if isinstance(item, Program | PythonCode):
        return {type(item).__name__: _encode(item)}
    if type(item) in _DECODERS:
        return _encode(item)
    if isinstance(item, frozenset):
        return sorted(_encode_item(each) for each in item)
    if isinstance(item, tuple):
        return [_encode_item(each) for each in item]
    if isinstance(item, dict) and item and all(type(each) in _DECODERS for each in item.values()):
        return {name: _encode(each) for name, each in item.items()}
    return item


# ---- reading -------------------------------------------------------------------------------------------------------


def _decode(cls: type[_T], document: dict[str, Any]) -> _T:
    decoders = _DECODERS[cls]
    return cls(**{name: decoders[name](item) if name in decoders else item for name, item in document.items()})


def _one(cls: type) -> _Decoder:
    return lambda item: _decode(cls, item)


def _many(cls: type) -> _Decoder:
    return lambda items: tuple([_decode(cls, each) for each in items])


def _optional(decode: _Decoder) -> _Decoder:
    return lambda item: None if item is None else decode(item)


def _by_name(cls: type) -> _Decoder:
    return lambda items: {name: _decode(cls, each) for name, each in items.items()}


def _causes(items: list[list[str]]) -> tuple[tuple[RunEnd, RestartMode], ...]:
    return tuple((RunEnd(end), RestartMode(mode)) for end, mode in items)


def _run(item: dict[str, Any]) -> Program | PythonCode:
    ((kind, document),) = item.items()
    return _decode({"Program": Program, "PythonCode": PythonCode}[kind], document)


_DECODERS: Final[dict[type, dict[str, _Decoder]]] = {
    ClusterSpec: {"files": tuple, "profiles": tuple, "services": _many(ServiceDefinition)},
    ServiceDefinition: {"spec": _one(ServiceSpec), "launch": _one(LaunchSpec)},
    ServiceSpec: {
        "runner": Runner,
        "type": ServiceType,
        "start": StartMode,
        "dependencies": _many(Dependency),
        "ready": ReadyKind,
        "restart": _one(RestartPolicy),
        "stop": _one(StopPolicy),
        "health": _optional(_one(HealthPolicy)),
        "hooks": lambda items: frozenset(map(Hook, items)),
        "pause": _one(PausePolicy),
        "overlap": Overlap,
    },
    Dependency: {"kind": DependencyKind, "condition": Condition, "on_crash": OnCrash},
    RestartPolicy: {
        "mode": RestartMode,
        "backoff": _one(Backoff),
        "intensity": _one(Intensity),
        "success_codes": frozenset,
        "prevent_codes": frozenset,
        "prevent_signals": frozenset,
        "by_cause": _causes,
    },
    Backoff: {},
    Intensity: {},
    StopPolicy: {},
    HealthPolicy: {"on_failure": HealthAction},
    PausePolicy: {},
    LaunchSpec: {
        "run": _run,
        "groups": tuple,
        "logs": _one(LogPolicy),
        "probe": _one(ReadyProbe),
        "tags": tuple,
        "health": _optional(_one(HealthProbe)),
        "hooks": _by_name(HookCommand),
        "sockets": _many(SocketSpec),
        "schedule": _optional(_one(Schedule)),
        "may_call": tuple,
        "given": tuple,
        "state": _one(StatePolicy),
    },
    Program: {"argv": tuple},
    PythonCode: {"path": tuple, "preload": tuple},
    LogPolicy: {},
    ReadyProbe: {"http": _optional(_one(HttpTarget)), "argv": _optional(tuple)},
    HealthProbe: {"http": _optional(_one(HttpTarget)), "argv": _optional(tuple)},
    HttpTarget: {},
    HookCommand: {"argv": tuple},
    SocketSpec: {},
    Schedule: {},
    StatePolicy: {},
}
_APART: Final = {
    **dict.fromkeys(_DECODERS, frozenset[str]()),
    ClusterSpec: frozenset({"services", "environ"}),
    ServiceDefinition: frozenset({"spec", "launch"}),
    LaunchSpec: frozenset({"env"}),
}
"""Fields that are written apart."""


ABSENT: Final = object()  # equal to no value
_DEFAULTS: Final = {cls: dict.fromkeys(field_names(cls), ABSENT) | defaults_of(cls) for cls in _DECODERS}
