"""What is registered: each service's definition, the one that its present run was made from and the newest one.

Must not decide when a new definition takes effect: the core says so (``AdoptSpec``, ``ForgetService``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from svcd.supervisor.config.launch import ClusterSpec, ServiceDefinition


class Follower(Protocol):
    """Holds something for services, by what they are at present."""

    def adopt(self, definition: ServiceDefinition) -> None: ...
    def forget(self, service: str) -> None: ...


class Registry:
    """The definitions of a running cluster. ``cluster`` is the whole configuration that is in force."""

    def __init__(self, cluster: ClusterSpec) -> None:
        self.cluster = cluster
        self.current: dict[str, ServiceDefinition] = {each.spec.name: each for each in cluster.services}
        self._newest: dict[str, ServiceDefinition] = dict(self.current)
        self._instances: dict[str, list[str]] | None = None
        self._followers: list[Follower] = []
        self._watchers: list[Callable[[], None]] = []
        self._covered: dict[str, list[str]] | None = None
        self._children: dict[str, dict[str, None]] = {}

    def followed_by(self, follower: Follower) -> None:
        """Tell it of every service now, and of each that comes, changes or goes."""
        self._followers.append(follower)
        for each in self.current.values():
            follower.adopt(each)

    def watched_by(self, watcher: Callable[[], None]) -> None:
        """Call this whenever a new configuration is in force."""
        self._watchers.append(watcher)

    def __getitem__(self, service: str) -> ServiceDefinition:
        """What the present run of ``service`` was made from, and the next one will be unless that changes."""
        return self.current[service]

    def get(self, service: str) -> ServiceDefinition | None:
        return self.current.get(service)

    def newest(self, service: str) -> ServiceDefinition:
        return self._newest[service]

    def find_newest(self, service: str) -> ServiceDefinition | None:
        return self._newest.get(service)

    def covered_by(self, fallback: str) -> list[str]:
        """The full names of those that this service stands in for."""
        if self._covered is None:
            self._covered = {}
            for name, definition in self.current.items():
                if definition.spec.fallback is not None:
                    self._covered.setdefault(definition.spec.fallback, []).append(name)
        return self._covered.get(fallback, [])

    def change(self, cluster: ClusterSpec) -> None:
        """A new configuration is in force: what is new takes effect at once, what has changed when it is adopted."""
        self.cluster = cluster
        self._instances = None
        for each in cluster.services:
            self._newest[each.spec.name] = each
            if each.spec.name not in self.current:
                self.adopt(each.spec.name)
        for watcher in self._watchers:
            watcher()

    def add_child(self, definition: ServiceDefinition) -> None:
        """A service that another one has created: it is no part of the configuration, and goes with its parent."""
        name, parent = definition.spec.name, definition.spec.parent
        assert parent is not None
        self._children.setdefault(parent, {})[name] = None
        self._newest[name] = definition
        if self._instances is not None:
            self._instances[name] = [name]
        self.adopt(name)

    def children_of(self, service: str) -> Collection[str]:
        """Full names, the oldest first."""
        return self._children.get(service, {}).keys()

    def adopt(self, service: str) -> None:
        old, new = self.current.get(service), self._newest[service]
        self.current[service] = new
        if new.spec.fallback is not None or (old is not None and old.spec.fallback is not None):
            self._covered = None
        for each in self._followers:
            each.adopt(self.current[service])

    def forget(self, service: str) -> None:
        """It was removed: unless it was registered anew meanwhile, nothing is kept of it."""
        gone = self.current.pop(service, None)
        self._newest.pop(service, None)
        if gone is not None and gone.spec.parent is not None:
            self._leave_parent(service, gone.spec.parent)
        else:
            self._instances = self._covered = None
        for each in self._followers:
            each.forget(service)

    def _leave_parent(self, child: str, parent: str) -> None:
        siblings = self._children.get(parent, {})
        siblings.pop(child, None)
        if not siblings:
            self._children.pop(parent, None)
        if self._instances is not None:
            self._instances.pop(child, None)

    def expand(self, names: Iterable[str]) -> tuple[str, ...]:
        """Full names; that of a service with several instances stands for all of them. Unknown ones stay."""
        found: dict[str, None] = {}
        for name in names:
            found.update(dict.fromkeys([name] if name in self.current else self.instances.get(name, [name])))
        return tuple(found)

    @property
    def instances(self) -> Mapping[str, list[str]]:
        """Name in the file -> full names, in order."""
        if self._instances is None:
            self._instances = {}
            for name, definition in self.current.items():
                self._instances.setdefault(definition.service or name, []).append(name)
        return self._instances
