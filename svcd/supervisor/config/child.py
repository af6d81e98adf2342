"""The definition of a child service, from its parent's words: keys of cluster.yaml, over what the parent itself has.

Must not import the validator, which the daemon does not pay for; nor touch a file: what is not there, the child's start
finds out. Must not let a child have or do what its parent may not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

from svcd.record import record, replace
from svcd.supervisor.config import child_keys, graph
from svcd.supervisor.config.launch import LaunchSpec, LogPolicy, Program, PythonCode, ServiceDefinition, StatePolicy
from svcd.supervisor.config.leaves import parse_name
from svcd.supervisor.config.policies import dependencies, restart_policy, stop_policy
from svcd.supervisor.config.probing import ready_timeout_s, resolve_ready
from svcd.supervisor.config.tree import Loc, dotted
from svcd.supervisor.config.units import RefusedError, near_miss
from svcd.supervisor.config.words import RUN_KEYS, LogDriver
from svcd.supervisor.core.spec import Condition, Dependency, Runner, ServiceSpec, StartMode

PYTHON_ONLY_KEYS: Final = ("path", "config")


class BadChild(Exception):  # noqa: N818 - it says what is
    """A definition that cannot be used. ``problems``: every one, with its key."""

    def __init__(self, name: str, problems: tuple[str, ...]) -> None:
        super().__init__(f"cannot create {name}: {'; '.join(problems)}")
        self.problems = problems


@record
class Family:
    """What a child finds around it. ``names``: service -> the full names of its instances; ``may_call``: the services
    that the parent may call.
    """

    parent: ServiceDefinition
    names: Mapping[str, tuple[str, ...]]
    others: Mapping[str, ServiceDefinition]
    may_call: frozenset[str]


def define(name: str, written: dict[str, Any], family: Family) -> ServiceDefinition:
    """The definition of a child called ``name``. Raises ``BadChild``."""
    return _Definition(name, written, family).resolve()


class _Notes:
    """What is found; the part of ``service_source.Notes`` that there is to say without a file."""

    def __init__(self, written: dict[str, Any]) -> None:
        self._written = written
        self.problems: dict[str, None] = {}

    def find(self, loc: Loc, text: str, suggestion: str) -> None:
        place = f"{dotted(loc)}: " if loc else ""
        self.problems[f"{place}{text}; {suggestion}" if suggestion else f"{place}{text}"] = None

    def is_written(self, *loc: str) -> bool:
        found: Any = self._written
        for key in loc:
            found = found.get(key) if isinstance(found, dict) else None
        return found is not None


class _Definition:
    def __init__(self, name: str, written: dict[str, Any], family: Family) -> None:
        self._name = name
        self._family = family
        self._parent = family.parent
        self._written = {key: item for key, item in written.items() if item is not None}
        self._notes: Any = _Notes(self._written)

    def resolve(self) -> ServiceDefinition:
        notes = self._notes
        try:
            parse_name(self._name)
        except RefusedError as refused:
            notes.find(("name",), refused.text, refused.suggestion)
        block: Any = child_keys.read(self._written, notes.find)
        kind = self._run_key()
        block.sockets = ()
        block.logs = self._logs(block.logs)
        ready, probe = resolve_ready(block, kind, notes, lambda loc, argv: None)
        spec = ServiceSpec(
            name=self._name,
            runner=Runner.PROGRAM if kind == "command" else Runner.PYTHON,
            type=block.type,
            start=StartMode.MANUAL,
            dependencies=self._dependencies(block),
            ready=ready,
            ready_timeout_s=ready_timeout_s(block, notes),
            restart=restart_policy(block, notes),
            stop=stop_policy(block),
            parent=self._parent.spec.name,
        )
        self._check_permissions(block.permissions)
        if kind is None or notes.problems:
            raise BadChild(self._name, tuple(notes.problems))
        logs = block.logs
        launch = replace(
            self._surroundings(),
            run=self._run(block, kind),
            env=self._env(block.env or {}),
            logs=LogPolicy(logs.driver.value, logs.max_size, logs.keep, logs.merge_stderr),
            probe=probe,
            tags=block.tags,
            may_call=block.permissions.services,
            max_children=block.permissions.spawn.max,
        )
        return ServiceDefinition(spec, launch, self._name)

    def _surroundings(self) -> LaunchSpec:
        """As whom and where its parent runs; nothing of what is the parent's alone."""
        return replace(
            self._parent.launch,
            health=None,
            hooks={},
            sockets=(),
            idle_timeout_s=None,
            schedule=None,
            port=None,
            state=StatePolicy(),
            version=None,
        )

    def _run_key(self) -> str | None:
        given: list[str] = [key for key in RUN_KEYS if key in self._written]
        if not given:
            self._notes.find((), "it says nothing that can run", "add python, code, script or command")
            return None
        kind = given[0]
        for key in given[1:]:
            self._notes.find((key,), f"does not go with {given[0]}", "keep one of the two")
        if kind == "command":
            for key in PYTHON_ONLY_KEYS:
                if key in self._written:
                    self._notes.find((key,), "goes with python, script or code, not with command", "remove it")
        return kind

    def _run(self, block: SimpleNamespace, kind: str) -> Program | PythonCode:
        if kind == "command":
            return Program(block.command)
        own = self._parent.launch.run
        script = self._absolute(block.script) if kind == "script" else None
        return replace(  # interpreter, threads and what is imported before are the parent's
            own if isinstance(own, PythonCode) else PythonCode(),
            entry=block.python,
            script=script,
            code=block.code,
            path=self._path(block.path, script),
            config=block.config or {},
        )

    def _absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self._parent.launch.workdir, path))

    def _path(self, written: tuple[str, ...] | None, script: str | None) -> tuple[str, ...]:
        if written is not None:
            return tuple(map(self._absolute, written))
        if script is not None:
            return tuple(dict.fromkeys((os.path.dirname(script), self._parent.launch.workdir)))
        own = self._parent.launch.run
        return own.path if isinstance(own, PythonCode) else ()

    def _env(self, written: dict[str, str | None]) -> dict[str, str]:
        both = {**self._parent.launch.env, **written}
        return {name: value for name, value in both.items() if value is not None}

    def _logs(self, block: SimpleNamespace) -> SimpleNamespace:
        own = self._parent.launch.logs
        return SimpleNamespace(
            driver=block.driver or LogDriver(own.driver),
            max_size=own.max_size_bytes if block.max_size is None else block.max_size,
            keep=own.keep if block.keep is None else block.keep,
            merge_stderr=own.merge_stderr if block.merge_stderr is None else block.merge_stderr,
        )

    # ---- what it may do --------------------------------------------------------------------------------------------

    def _dependencies(self, block: SimpleNamespace) -> tuple[Dependency, ...]:
        """Its own, and that on its parent, whatever it says: it may begin while the parent's start goes on."""
        parent = self._parent.spec.name
        for name in (parent, self._parent.service):
            block.depends_on.pop(name, None)
        for target, edge in block.depends_on.items():
            self._check_target(target, edge)
        own: Any = dependencies(block, dict(self._family.names))  # type: ignore[arg-type]  # a block without validator
        return (*own, Dependency(parent, condition=Condition.SPAWNED))

    def _check_target(self, target: str, edge: Any) -> None:
        loc: Loc = ("depends_on", target)
        if not self._is_permitted(target, loc):
            return
        other = self._family.others[self._family.names[target][0]]
        vertex: Any = SimpleNamespace(type=other.spec.type, has_health=other.spec.health is not None)
        wrong = graph.wrong_edge(edge, target, vertex)
        if wrong is not None:
            self._notes.find(loc, *wrong)

    def _is_permitted(self, target: str, loc: Loc) -> bool:
        """A child reaches nobody whom its parent does not."""
        names, parent = self._family.names, self._parent
        if target not in names:
            found = f"there is no service {target}", near_miss(target, names) or "add it, or remove it"
        elif target not in self._family.may_call:
            mine = parent.service or parent.spec.name
            found = (
                f"{mine} may not call {target}, so no child of it may",
                f"add {target} to depends_on or permissions.services of {mine}",
            )
        else:
            return True
        self._notes.find(loc, *found)
        return False

    def _check_permissions(self, block: SimpleNamespace) -> None:
        for index, target in enumerate(block.services):
            self._is_permitted(target, ("permissions", "services", index))
        limit = self._parent.launch.max_children
        if block.spawn.max > limit:
            text = f"{block.spawn.max} are more than the {limit} of {self._parent.spec.name} itself"
            self._notes.find(("permissions", "spawn", "max"), text, f"use at most {limit}")
