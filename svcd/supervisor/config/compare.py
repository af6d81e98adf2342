"""What differs between two validated clusters, service by service, and whether a running process would notice.

Must not decide what is to be done about it (the core does) and must not read anything: both clusters are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from svcd.record import record
from svcd.supervisor.config.launch import ClusterSpec, Program, PythonCode, ServiceDefinition
from svcd.supervisor.core.spec import ReadyKind

_Look = Callable[[ServiceDefinition], Any]


@record
class Change:
    """One service that both clusters have. ``keys``: what differs, as it is written in the file ("command",
    "env.LOG_LEVEL"). ``needs_restart``: a process that runs has got some of it, and only a new one gets the rest.
    """

    old: ServiceDefinition
    new: ServiceDefinition
    keys: tuple[str, ...]
    needs_restart: bool

    @property
    def name(self) -> str:
        return self.new.spec.name


@record
class Comparison:
    """``added`` and ``changed`` in the order of the new cluster, ``removed`` in that of the old one. ``unchanged``: the
    names that stay as they are. ``cluster``: the keys at the top of the file that differ.
    """

    added: tuple[ServiceDefinition, ...] = ()
    removed: tuple[ServiceDefinition, ...] = ()
    changed: tuple[Change, ...] = ()
    unchanged: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed or self.cluster)


def compare(old: ClusterSpec, new: ClusterSpec) -> Comparison:
    """What applying ``new`` over ``old`` changes. Its cost is one look at each service.

    Variables that both clusters have from the environment around svcd alone are no difference: an apply from another
    terminal restarts nothing.
    """
    before = {each.spec.name: each for each in old.services}
    after = {each.spec.name: each for each in new.services}
    changed, unchanged = [], []
    for name, definition in after.items():
        if name not in before:
            continue
        change = _change(before[name], definition, old.environ, new.environ)
        if change is None:
            unchanged.append(name)
        else:
            changed.append(change)
    return Comparison(
        added=tuple(each for name, each in after.items() if name not in before),
        removed=tuple(each for name, each in before.items() if name not in after),
        changed=tuple(changed),
        unchanged=tuple(unchanged),
        cluster=tuple(key for key, look in _CLUSTER.items() if look(old) != look(new)),
    )


def _change(
    old: ServiceDefinition, new: ServiceDefinition, old_environ: dict[str, str], new_environ: dict[str, str]
) -> Change | None:
    if old.spec == new.spec and old.launch == new.launch:
        return None
    run = _WHAT_RUNS if type(old.launch.run) is not type(new.launch.run) else {**_WHAT_RUNS, **_HOW_PYTHON_RUNS}
    process = [key for key, look in (*run.items(), *_PROCESS.items()) if look(old) != look(new)]
    process += _variables(old.launch.env, new.launch.env, old_environ, new_environ)
    policy = [key for key, look in _POLICY.items() if look(old) != look(new)]
    keys = tuple(dict.fromkeys((*process, *policy)))
    return Change(old, new, keys, bool(process)) if keys else None


def _variables(
    old: dict[str, str], new: dict[str, str], old_environ: dict[str, str], new_environ: dict[str, str]
) -> Iterator[str]:
    for name in sorted({name for name, _ in old.items() ^ new.items()}):
        inherited = old.get(name) == old_environ.get(name) and new.get(name) == new_environ.get(name)
        if not inherited:
            yield f"env.{name}"


# ---- the keys ------------------------------------------------------------------------------------------------------


def _command(each: ServiceDefinition) -> tuple[str, ...] | None:
    return each.launch.run.argv if isinstance(each.launch.run, Program) else None


def _python(look: Callable[[PythonCode], Any]) -> _Look:
    return lambda each: look(each.launch.run) if isinstance(each.launch.run, PythonCode) else None


def _ready_environment(each: ServiceDefinition) -> tuple[bool, int | None]:
    """What of readiness a process is given: NOTIFY_SOCKET, or a descriptor."""
    return each.spec.ready is ReadyKind.NOTIFY, each.launch.probe.notification_fd


def _preload(each: ServiceDefinition) -> tuple[tuple[str, ...], bool]:
    run = each.launch.run
    return (run.preload, run.preload_auto) if isinstance(run, PythonCode) else ((), False)


_WHAT_RUNS: Final[dict[str, _Look]] = {
    "command": _command,
    "python": _python(lambda run: run.entry),
    "script": _python(lambda run: run.script),
    "code": _python(lambda run: run.code),
}
_HOW_PYTHON_RUNS: Final[dict[str, _Look]] = {
    "path": _python(lambda run: run.path),
    "interpreter": _python(lambda run: run.interpreter),
    "config": _python(lambda run: run.config),
    "state": lambda each: each.launch.state,
    "version": lambda each: each.launch.version,
    "runtime": _python(lambda run: run.runtime),  # its variables are compared as variables
}
_PROCESS: Final[dict[str, _Look]] = {
    "workdir": lambda each: each.launch.workdir,
    "user": lambda each: (each.launch.uid, each.launch.groups),
    "group": lambda each: each.launch.gid,
    "umask": lambda each: each.launch.umask,
    "logs": lambda each: each.launch.logs,
    "sockets": lambda each: each.launch.sockets,
    "watchdog": lambda each: each.spec.watchdog_s,
    "ready": _ready_environment,
}
"""What a process has got when it runs."""

_POLICY: Final[dict[str, _Look]] = {
    "type": lambda each: each.spec.type,
    "start": lambda each: each.spec.start,
    "depends_on": lambda each: each.spec.dependencies,
    "ready": lambda each: (each.spec.ready, each.launch.probe),
    "ready.timeout": lambda each: each.spec.ready_timeout_s,
    "restart.policy": lambda each: each.spec.restart.mode,
    "restart.backoff": lambda each: each.spec.restart.backoff,
    "restart.intensity": lambda each: each.spec.restart.intensity,
    "restart.reset_after": lambda each: each.spec.restart.reset_after_s,
    "restart.success_codes": lambda each: each.spec.restart.success_codes,
    "restart.prevent_codes": lambda each: (each.spec.restart.prevent_codes, each.spec.restart.prevent_signals),
    "restart.by_cause": lambda each: each.spec.restart.by_cause,
    "stop.signal": lambda each: each.spec.stop.signal,
    "stop.timeout": lambda each: each.spec.stop.timeout_s,
    "stop.drain_timeout": lambda each: each.spec.stop.drain_timeout_s,
    "stop.drain_grace": lambda each: each.spec.stop.drain_grace_s,
    "health": lambda each: (each.spec.health, each.launch.health),
    "essential": lambda each: each.spec.essential,
    "fallback": lambda each: each.spec.fallback,
    "hooks": lambda each: (each.spec.hooks, each.launch.hooks),
    "pause": lambda each: each.spec.pause,
    "schedule": lambda each: (each.spec.scheduled, each.spec.overlap, each.launch.schedule),
    "idle_timeout": lambda each: each.launch.idle_timeout_s,
    "tags": lambda each: each.launch.tags,
    "permissions.services": lambda each: each.launch.may_call,
    "permissions.spawn": lambda each: each.launch.max_children,
    "preload": _preload,
    "update": lambda each: each.launch.hot_update,
}
"""What svcd itself goes by: a new value holds from now on."""

_CLUSTER: Final[dict[str, Callable[[ClusterSpec], Any]]] = {
    "cluster": lambda each: each.name,
    "max_parallel": lambda each: each.max_parallel,
    "controller_timeout": lambda each: each.controller_timeout_s,
}
