"""From a service's launch spec to the order that a launcher gets.

Must not do anything, but have the directory made that other interpreters are lent: what the process finds in its
environment and where its output goes is put together here.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from svcd.record import entity, field, record
from svcd.supervisor.config.launch import ClusterSpec, LogPolicy, PythonCode, ServiceDefinition
from svcd.supervisor.controller.processes.borrowed import Borrowed
from svcd.supervisor.controller.processes.containment import MARK
from svcd.supervisor.core.spec import ReadyKind
from svcd.supervisor.wiring import SpawnRequested

LAUNCHER: Final = "launcher"
CONTROL: Final = "SVCD_CONTROL"  # where svcd.Client finds the cluster that its process belongs to
BOOTSTRAP: Final = str(Path(__file__).parents[3] / "worker_runtime" / "bootstrap.py")


@record
class Surroundings:
    """What every service of the cluster is told. ``control``: path of the socket for stubs."""

    cluster: ClusterSpec
    control: str
    side_door: str
    state_dir: str
    borrowed: Borrowed


@entity
class Given:
    """What a newborn process is given beyond its configuration. ``descriptors``: number there -> ours;
    ``pid_variables``: variables that will name the process itself.
    """

    env: dict[str, str] = field(default_factory=dict)
    descriptors: dict[int, int] = field(default_factory=dict)
    pid_variables: tuple[str, ...] = ()


def needs_side_door(definition: ServiceDefinition, own_uid: int) -> bool:
    """Whether this service's stub, or its program that calls services, cannot pass through a run directory that is ours
    alone.
    """
    launch = definition.launch
    speaks = isinstance(launch.run, PythonCode) or bool(launch.may_call)
    return speaks and launch.uid is not None and launch.uid != own_uid


def control_of(definition: ServiceDefinition, around: Surroundings) -> str:
    """The controller's socket, as this service can reach it."""
    return around.side_door if needs_side_door(definition, os.geteuid()) else around.control


def spawn_order(
    definition: ServiceDefinition,
    invocation: int,
    mark: str,
    cgroup: str | None,
    given: Given,
    around: Surroundings,
) -> SpawnRequested:
    """The complete order for one run; ``given.descriptors`` are to be sent along with it, in their order. Raises
    ``OSError`` when another interpreter cannot be lent what it needs.
    """
    name, launch = definition.spec.name, definition.launch
    env = {
        **launch.env,
        "SVCD_CLUSTER": around.cluster.name,
        "SVCD_SERVICE": name,
        "SVCD_INSTANCE": str(definition.instance),
        "SVCD_INVOCATION": str(invocation),
        CONTROL: control_of(definition, around),
        MARK: mark,
        **given.env,
    }
    stub: dict[str, Any] | None = None
    argv: tuple[str, ...] | None = None
    if isinstance(launch.run, PythonCode):
        stub = {
            "cluster": around.cluster.name,
            "service": name,
            "invocation": invocation,
            "instance": definition.instance,
            "control": control_of(definition, around),
            "controller_timeout_s": around.cluster.controller_timeout_s,
        }
        if launch.run.interpreter is not None:
            argv = (launch.run.interpreter, BOOTSTRAP)
            env["SVCD_STUB"] = json.dumps({**stub, **around.borrowed.settings()})
            stub = None
    else:
        argv = launch.run.argv
    return SpawnRequested(
        service=name,
        invocation=invocation,
        title=f"svcd: service {around.cluster.name}/{name}",
        argv=argv,
        env=env,
        workdir=launch.workdir,
        uid=launch.uid,
        gid=launch.gid,
        groups=launch.groups,
        umask=launch.umask,
        streams=_streams(name, launch.logs, around.state_dir, announced=definition.spec.ready is ReadyKind.LOG),
        cgroup=cgroup,
        stub=stub,
        targets=tuple(given.descriptors),
        pid_variables=given.pid_variables,
    )


def errand_order(
    definition: ServiceDefinition,
    argv: tuple[str, ...],
    invocation: int,
    mark: str,
    cgroup: str | None,
    extra_env: dict[str, str],
    output: bool,
    around: Surroundings,
    targets: tuple[int, ...] = (),
) -> SpawnRequested:
    """The order for a command that runs as the service would."""
    name, launch = definition.spec.name, definition.launch
    return SpawnRequested(
        service=name,
        invocation=invocation,
        title=f"svcd: errand {around.cluster.name}/{name}",
        argv=argv,
        env={
            **launch.env,
            "SVCD_CLUSTER": around.cluster.name,
            "SVCD_SERVICE": name,
            "SVCD_INSTANCE": str(definition.instance),
            CONTROL: control_of(definition, around),
            MARK: mark,
            **extra_env,
        },
        workdir=launch.workdir,
        uid=launch.uid,
        gid=launch.gid,
        groups=launch.groups,
        umask=launch.umask,
        streams=_streams(name, launch.logs, around.state_dir, announced=False) if output else (),
        cgroup=cgroup,
        targets=targets,
    )


def _streams(service: str, logs: LogPolicy, state_dir: str, announced: bool) -> tuple[dict[str, Any], ...]:
    if logs.driver == "none":
        return ()
    names = ("stdout",) if logs.merge_stderr else ("stdout", "stderr")
    return tuple(
        {
            "stream": name,
            "path": f"{state_dir}/logs/{service}/{name}.log",
            "max_size_bytes": logs.max_size_bytes,
            "keep": logs.keep,
            **({"announced": True} if announced else {}),
        }
        for name in names
    )
