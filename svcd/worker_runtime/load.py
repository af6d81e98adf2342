"""From a ``ServiceSpec`` to the class or function that it names: ``sys.path``, imports, compiled code strings.

Must not call what it finds, nor report: whatever goes wrong is raised, as user code raised it or as ``LoadError``.
"""

from __future__ import annotations

import importlib
import inspect
import linecache
import os
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any, Final

from svcd.protocol.messages import ServiceSpec
from svcd.worker_runtime.service import Service

CODE_MODULE: Final = "svcd_service_code"
OWN: Final = frozenset({"svcd", "msgpack", "setproctitle"})
"""Top-level modules that the runtime itself uses: never replaced by a user's module of that name once imported."""

CALLED: Final = {
    "init": ("config",),
    "start": (),
    "stop": ("reason",),
    "pause": (),
    "resume": (),
    "child_ended": ("child", "error"),
    "export_state": (),
    "import_state": ("state",),
}
"""What the runtime calls of a ``Service``, and with what."""


class LoadError(Exception):
    """The code is there, and names nothing that can be run."""


def load(spec: ServiceSpec) -> type[Service] | Callable[[Any], Any]:
    """The ``Service`` subclass or the function of ``spec``; not for scripts."""
    if spec.entry is not None:
        return _from_entry(spec.entry)
    if spec.code is not None:
        return _from_code(spec.service, spec.code)
    raise LoadError("the controller named neither an entry nor code")


# ---- sys.path --------------------------------------------------------------------------------------------------------


def prepare_path(spec: ServiceSpec) -> None:
    """Put the service's ``path``, then PYTHONPATH, then a script's directory before everything else.

    A fork of the warm server never saw this PYTHONPATH; in an interpreter of its own it is on ``sys.path`` already.
    """
    first = [*spec.path, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    if spec.script is not None:
        first.append(os.path.dirname(os.path.abspath(spec.script)))
    first = list(dict.fromkeys(map(os.path.abspath, first)))
    sys.path[:] = first + [each for each in sys.path if each not in first]
    for each in first:
        sys.path_importer_cache.pop(each, None)  # what the warm server saw there is not what is there now
    entry = (spec.entry or "").partition(":")[0].partition(".")[0]
    _forget_shadowed(first, entry)


def _forget_shadowed(directories: Iterable[str], entry: str) -> None:
    """Let the user's modules win over warm ones of the same name, as they would in a fresh interpreter.

    The standard library stays as it is once imported, but for the very module that the entry names. ``sys.modules`` is
    only walked when there is something to forget: each name looked at is a page of memory less that the fork shares.
    """
    theirs = {name.partition(".")[0] for directory in directories for name in _names_in(directory)}
    shadowed = {name for name in theirs if name in sys.modules and _may_go(name, entry, directories)}
    if shadowed:
        for name in [each for each in sys.modules if each.partition(".")[0] in shadowed]:
            del sys.modules[name]


def _may_go(name: str, entry: str, directories: Iterable[str]) -> bool:
    if name in OWN or name == "__main__" or (name in sys.stdlib_module_names and name != entry):
        return False
    return _is_elsewhere(name, directories)


def _names_in(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _is_elsewhere(name: str, directories: Iterable[str]) -> bool:
    """Whether the imported module ``name`` came from outside of ``directories``."""
    origin = getattr(sys.modules.get(name), "__file__", None)
    return origin is None or not any(origin.startswith(os.path.join(each, "")) for each in directories)


# ---- module:name -----------------------------------------------------------------------------------------------------


def _from_entry(entry: str) -> type[Service] | Callable[[Any], Any]:
    module_name, _, path = entry.partition(":")
    if not module_name or not path:
        raise LoadError(f"{entry!r} is not of the form package.module:name")
    found: Any = importlib.import_module(module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise LoadError(f"{entry!r}: {_called(found)} has no {part!r}{_offer(found)}")
        found = getattr(found, part)
    return _runnable(found, entry)


def _called(found: Any) -> str:
    return f"module {found.__name__!r}" if inspect.ismodule(found) else repr(getattr(found, "__name__", found))


def _offer(found: Any) -> str:
    """What could have been meant."""
    if not inspect.ismodule(found):
        return ""
    names = [name for name, each in vars(found).items() if _is_offered(each, found.__name__) and name[:1] != "_"]
    return f"; it defines {', '.join(sorted(names)[:10])}" if names else "; it defines no class or function"


def _is_offered(each: Any, module: str) -> bool:
    return (inspect.isclass(each) or inspect.isfunction(each)) and each.__module__ == module


def _runnable(found: Any, name: str) -> type[Service] | Callable[[Any], Any]:
    if inspect.isclass(found):
        if issubclass(found, Service) and found is not Service:
            return _fitting(found, name)
        raise LoadError(f"{name!r} is a class, but no subclass of svcd.Service")
    if callable(found):
        return found  # type: ignore[no-any-return]  # callable, as just seen
    raise LoadError(f"{name!r} is neither a class nor a function, but {type(found).__name__}")


def _fitting(cls: type[Service], name: str) -> type[Service]:
    """``cls``, whose methods take what they are given: a ``stop`` that does not would be found out at the stop."""
    for method, given in CALLED.items():
        own = inspect.getattr_static(cls, method)
        if own is inspect.getattr_static(Service, method) or not inspect.isfunction(own):
            continue
        try:
            inspect.signature(own, follow_wrapped=False).bind(cls, *given)
        except TypeError:
            words = ", ".join(("self", *given))
            raise LoadError(f"{name!r}: {method}() is called with ({words}): write def {method}({words})") from None
    return cls


# ---- code strings ---------------------------------------------------------------------------------------------------


def code_file(service: str) -> str:
    """What tracebacks call the file of a code string."""
    return f"<code of {service}>"


def run_code(service: str, source: str) -> types.ModuleType:
    """The module that a code string makes, where pickles find it."""
    file = code_file(service)
    remember_source(file, source)
    module = types.ModuleType(CODE_MODULE)
    module.__file__ = file
    sys.modules[CODE_MODULE] = module
    exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)
    return module


def _from_code(service: str, source: str) -> type[Service] | Callable[[Any], Any]:
    module = run_code(service, source)
    classes = _own_services(module)
    main = module.__dict__.get("main")
    if len(classes) + (main is not None) > 1:
        names = [each.__name__ for each in classes] + (["main"] if main is not None else [])
        raise LoadError(f"the code must define one Service subclass or a function main, not {', '.join(names)}")
    if classes:
        return _fitting(classes[0], classes[0].__name__)
    if main is None:
        raise LoadError("the code defines neither a Service subclass nor a function main(ctx)")
    return _runnable(main, "main")


def _own_services(module: types.ModuleType) -> list[type[Service]]:
    """The subclasses that the code itself defines, without those that only serve as bases of others."""
    own = [
        each
        for each in module.__dict__.values()
        if inspect.isclass(each) and issubclass(each, Service) and each.__module__ == module.__name__
    ]
    return list(dict.fromkeys(each for each in own if not any(each in other.__mro__[1:] for other in own)))


def remember_source(file: str, source: str) -> None:
    """Let tracebacks show the lines of code that is in no file."""
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
