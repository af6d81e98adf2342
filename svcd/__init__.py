"""svcd's public face: what services and programs import. ``import svcd`` itself loads nothing (PEP 562).

Must not import anything at module level: every process of svcd and every service pays for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svcd.client.asynchronous import AsyncClient
    from svcd.client.threaded import Client
    from svcd.protocol.call_errors import (
        CallError,
        CallRefused,
        ClusterUnavailable,
        DeadlineExceeded,
        Draining,
        PermissionDenied,
        RemoteError,
        ServiceUnavailable,
    )
    from svcd.protocol.child_errors import (
        BadChildDefinition,
        ChildError,
        ChildFailed,
        ChildNameTaken,
        ChildRefused,
        SpawnNotPermitted,
        UnknownChild,
    )
    from svcd.protocol.messages import (
        ClusterStateChanged,
        ExceptionRecorded,
        NoticeGiven,
        ServiceStatus,
        ServiceTransitioned,
        StatusReported,
    )
    from svcd.worker_runtime.calls.methods import on_event, rpc
    from svcd.worker_runtime.computing.compute_errors import ComputeError
    from svcd.worker_runtime.context import Context, current_context
    from svcd.worker_runtime.lifetime.guard import guarded
    from svcd.worker_runtime.lifetime.life import State
    from svcd.worker_runtime.lifetime.outcome import AbortedError, Outcome, StateError
    from svcd.worker_runtime.lifetime.startable import Startable
    from svcd.worker_runtime.offspring import Child
    from svcd.worker_runtime.service import Service

    __version__: str

__all__ = [
    "AbortedError",
    "AsyncClient",
    "BadChildDefinition",
    "CallError",
    "CallRefused",
    "Child",
    "ChildError",
    "ChildFailed",
    "ChildNameTaken",
    "ChildRefused",
    "Client",
    "ClusterStateChanged",
    "ClusterUnavailable",
    "ComputeError",
    "Context",
    "DeadlineExceeded",
    "Draining",
    "ExceptionRecorded",
    "NoticeGiven",
    "Outcome",
    "PermissionDenied",
    "RemoteError",
    "Service",
    "ServiceStatus",
    "ServiceTransitioned",
    "ServiceUnavailable",
    "SpawnNotPermitted",
    "Startable",
    "State",
    "StateError",
    "StatusReported",
    "UnknownChild",
    "__version__",
    "current_context",
    "guarded",
    "on_event",
    "rpc",
]

_CONTENTS = {
    "worker_runtime.context": ("Context", "current_context"),
    "worker_runtime.service": ("Service",),
    "worker_runtime.computing.compute_errors": ("ComputeError",),
    "client.asynchronous": ("AsyncClient",),
    "client.threaded": ("Client",),
    "protocol.messages": (
        "ClusterStateChanged",
        "ExceptionRecorded",
        "NoticeGiven",
        "ServiceStatus",
        "ServiceTransitioned",
        "StatusReported",
    ),
    "worker_runtime.lifetime.outcome": ("AbortedError", "Outcome", "StateError"),
    "worker_runtime.lifetime.life": ("State",),
    "worker_runtime.lifetime.startable": ("Startable",),
    "worker_runtime.lifetime.guard": ("guarded",),
    "worker_runtime.calls.methods": ("rpc", "on_event"),
    "worker_runtime.offspring": ("Child",),
    "protocol.child_errors": (
        "BadChildDefinition",
        "ChildError",
        "ChildFailed",
        "ChildNameTaken",
        "ChildRefused",
        "SpawnNotPermitted",
        "UnknownChild",
    ),
    "protocol.call_errors": (
        "CallError",
        "CallRefused",
        "ClusterUnavailable",
        "DeadlineExceeded",
        "Draining",
        "PermissionDenied",
        "RemoteError",
        "ServiceUnavailable",
    ),
}
_HOME = {name: home for home, names in _CONTENTS.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = _version()
    elif name in _HOME:
        from importlib import import_module  # noqa: PLC0415 - nothing at module level, see above

        value = getattr(import_module(f"svcd.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module 'svcd' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 - 20 ms that hardly anybody needs

    try:
        return metadata.version("svcd")
    except metadata.PackageNotFoundError:  # run from a source tree, or in an interpreter without svcd installed
        return "0+unknown"
