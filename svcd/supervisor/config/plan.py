"""The validated cluster as one JSON document: written by the command line, read by the daemon.

Must not import a YAML reader or a validator (the daemon pays for neither), and must not repair what it reads.

A field that holds its default is left out; what all services have in common of their environments is written once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any, Final, TypeVar

from svcd.supervisor.config.launch import (
    ClusterSpec,
    LaunchSpec,
    LogPolicy,
    Program,
    PythonCode,
    ReadyProbe,
    ServiceDefinition,
)
from svcd.supervisor.core.spec import (
    Backoff,
    Condition,
    Dependency,
    DependencyKind,
    Intensity,
    OnCrash,
    ReadyKind,
    RestartMode,
    RestartPolicy,
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
        {"spec": _encode(each.spec), "launch": _encode_launch(each.launch, shared)} for each in cluster.services
    ]
    document = {"version": VERSION, "environment": shared, **_encode(cluster), "services": services}
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


def _encode_launch(launch: LaunchSpec, shared: Mapping[str, str]) -> dict[str, Any]:
    own = {name: value for name, value in launch.env.items() if name not in shared}
    encoded = _encode(launch)
    encoded.pop("env", None)
    return {**encoded, "env": own} if own else encoded


def _encode(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that do not hold their default."""
    cls = type(value)
    encoded = {}
    for name, default in _DEFAULTS[cls].items():
        item = getattr(value, name)
        if item != default:
            encoded[name] = _encode_item(item, name)
    return encoded


def _encode_item(item: Any, name: str) -> Any:
    if isinstance(item, Enum):
        return item.value
    if isinstance(item, Program | PythonCode):
        return {type(item).__name__: _encode(item)}
    if type(item) in _DECODERS:
        return _encode(item)
    if isinstance(item, frozenset):
        return sorted(item)
    if isinstance(item, tuple):
        return [] if name == "services" else [_encode_item(each, name) for each in item]
    return item


# ---- reading -------------------------------------------------------------------------------------------------------


def _decode(cls: type[_T], document: dict[str, Any]) -> _T:
    decoders = _DECODERS[cls]
    return cls(**{name: decoders[name](item) if name in decoders else item for name, item in document.items()})


def _one(cls: type) -> _Decoder:
    return lambda item: _decode(cls, item)


def _many(cls: type) -> _Decoder:
    return lambda items: tuple([_decode(cls, each) for each in items])


def _run(item: dict[str, Any]) -> Program | PythonCode:
    ((kind, document),) = item.items()
    return _decode({"Program": Program, "PythonCode": PythonCode}[kind], document)


_DECODERS: Final[dict[type, dict[str, _Decoder]]] = {
    ClusterSpec: {"files": tuple, "services": _many(ServiceDefinition)},
    ServiceDefinition: {"spec": _one(ServiceSpec), "launch": _one(LaunchSpec)},
    ServiceSpec: {
        "runner": Runner,
        "type": ServiceType,
        "start": StartMode,
        "dependencies": _many(Dependency),
        "ready": ReadyKind,
        "restart": _one(RestartPolicy),
        "stop": _one(StopPolicy),
    },
    Dependency: {"kind": DependencyKind, "condition": Condition, "on_crash": OnCrash},
    RestartPolicy: {
        "mode": RestartMode,
        "backoff": _one(Backoff),
        "intensity": _one(Intensity),
        "success_codes": frozenset,
        "prevent_codes": frozenset,
        "prevent_signals": frozenset,
    },
    Backoff: {},
    Intensity: {},
    StopPolicy: {},
    LaunchSpec: {
        "run": _run,
        "groups": tuple,
        "logs": _one(LogPolicy),
        "probe": _one(ReadyProbe),
        "tags": tuple,
    },
    Program: {"argv": tuple},
    PythonCode: {"path": tuple},
    LogPolicy: {},
    ReadyProbe: {},
}


def _defaults_of(cls: Any) -> dict[str, Any]:
    """Field name -> default; a field without one gets MISSING, which nothing equals."""
    return {
        each.name: each.default_factory() if each.default_factory is not MISSING else each.default
        for each in fields(cls)
    }


_DEFAULTS: Final = {cls: _defaults_of(cls) for cls in _DECODERS}
