"""Which modules are to be imported before a service is forked, and from where: what two services must have in common to
come from one fork server.

Must not start anything: it looks at definitions and into directories.
"""

from __future__ import annotations

import importlib.machinery
import os
from collections.abc import Iterable
from typing import Final

from svcd.record import record
from svcd.supervisor.config.launch import PythonCode, ServiceDefinition
from svcd.supervisor.preloading import state_of

SUFFIXES: Final = tuple(importlib.machinery.all_suffixes())


@record
class PreloadSet:
    """``modules``, sorted: their order says nothing. ``path``: the directories that are first on ``sys.path`` when they
    are imported; empty when none of the modules is found there, so that services in different directories share one
    fork server.
    """

    modules: tuple[str, ...]
    path: tuple[str, ...] = ()


AUTO: Final = PreloadSet(())
"""Stands for whatever has been recorded: one for all services that say `auto`."""


def set_of(definition: ServiceDefinition, own_uid: int) -> PreloadSet | None:
    """What this service is to be forked from; None: from the plain fork server, or not forked at all.

    What another user can write is not imported with our rights: for a service that runs as somebody else only what is
    installed for svcd counts, and nothing that it has recorded.
    """
    run, uid = definition.launch.run, definition.launch.uid
    if not isinstance(run, PythonCode) or run.interpreter is not None:
        return None
    is_foreign = uid is not None and uid != own_uid
    if run.preload_auto:
        return None if is_foreign else AUTO
    if not run.preload:
        return None
    path = () if is_foreign else search_path(definition, run)
    is_there = any(is_found(module.partition(".")[0], path) for module in run.preload)
    return PreloadSet(tuple(sorted(set(run.preload))), path if is_there else ())


def search_path(definition: ServiceDefinition, run: PythonCode) -> tuple[str, ...]:
    """What the stub will put first on ``sys.path`` (``worker_runtime.load.prepare_path``)."""
    launch = definition.launch
    beside = [os.path.dirname(run.script)] if run.script is not None else []
    given = filter(None, launch.env.get("PYTHONPATH", "").split(os.pathsep))
    return tuple(dict.fromkeys(os.path.join(launch.workdir, each) for each in (*run.path, *given, *beside)))


def is_found(name: str, path: Iterable[str]) -> bool:
    """Whether a top-level module of that name may come from one of these. What is no directory may be a zip file."""
    for directory in path:
        place = os.path.join(directory, name)
        if os.path.isdir(place) or os.path.isfile(directory):
            return True
        if any(os.path.exists(place + suffix) for suffix in SUFFIXES):
            return True
    return False


def has_changed(watched: dict[str, list[int]]) -> bool:
    """Whether something that modules were imported from is not what it was then."""
    return any(state_of(path) != state for path, state in watched.items())
