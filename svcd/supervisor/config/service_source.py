"""A service as it was written, what all services share, and the notes about what is wrong with one.

Must not judge: those who resolve the parts of a service do, and note what they find here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Mapping as Environment
from typing import Any

from svcd.record import entity, field
from svcd.supervisor.config.errors import Findings, Mark
from svcd.supervisor.config.layers import is_given
from svcd.supervisor.config.shape import Service
from svcd.supervisor.config.tree import Loc, Mapping, dotted, find, locate
from svcd.supervisor.config.units import RefusedError

OnRuntime = Callable[[str, tuple[Any, ...]], None]


@entity
class Surroundings:
    """What all services share. ``directories``: file as named by the user -> its absolute directory. ``names``: service
    -> the full names of its instances, of those that are chosen. ``on_runtime``: told the runtime settings of each.
    """

    findings: Findings
    environ: Environment[str, str]
    directories: dict[str, str]
    defaults: Mapping | None = None
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    on_runtime: OnRuntime = lambda service, settings: None
    _answers: dict[Any, Any] = field(default_factory=dict)

    def once(self, ask: Callable[..., Any], *question: Any) -> Any:
        """The answer of ``ask``, or its refusal raised again: services ask the same things many times."""
        key = (ask, question)
        if key not in self._answers:
            try:
                self._answers[key] = ask(*question)
            except RefusedError as refused:
                self._answers[key] = refused
        answer = self._answers[key]
        if isinstance(answer, RefusedError):
            raise answer.with_traceback(None)
        return answer

    def absolute(self, path: str, mark: Mark) -> str:
        """``path`` relative to the file that says it."""
        return os.path.normpath(os.path.join(self.directories[mark.file], path))


@entity
class ServiceSource:
    """A service as it was written. ``node``: with the defaults merged in; ``own``: without them.

    ``block``: what of it has the right shape; ``bad``: its keys that have not, which are reported already.
    ``port``: what {port} was replaced by.
    """

    name: str
    node: Mapping
    own: Mapping
    key_mark: Mark
    block: Service
    bad: frozenset[str]
    instance: int = 0
    port: int | None = None


class Notes:
    """What is found about one service. ``wrong``: something was."""

    def __init__(self, source: ServiceSource, around: Surroundings) -> None:
        self._source = source
        self._around = around
        self.wrong = bool(source.bad)

    def find(self, loc: Loc, text: str, suggestion: str, mark: Mark | None = None, key: str | None = None) -> None:
        """Record a problem with the value at ``loc`` below the service. ``key``: what it is called at ``mark``."""
        self.wrong = True
        source, defaults = self._source, self._around.defaults
        found = find(source.node, loc)
        inherited = defaults is not None and found is not None and find(defaults, loc) is found
        prefix: Loc = ("defaults",) if inherited else ("services", source.name)
        called = dotted((*prefix, *loc)) if key is None else key
        self._around.findings.add(mark or locate(source.node, loc), called, text, suggestion)

    def ask(self, loc: Loc, ask: Callable[..., Any], *question: Any) -> Any:
        """The answer, or None when it is refused (which is recorded)."""
        try:
            return self._around.once(ask, *question)
        except RefusedError as refused:
            self.find(loc, refused.text, refused.suggestion)
            return None

    def mark(self, *loc: int | str) -> Mark:
        """Where the value was written."""
        return locate(self._source.node, loc)

    def is_written(self, *loc: str) -> bool:
        """Whether the key is there and holds something."""
        above = find(self._source.node, loc[:-1])
        return isinstance(above, Mapping) and is_given(above, loc[-1])
