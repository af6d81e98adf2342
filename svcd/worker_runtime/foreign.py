"""The stub in an interpreter of the service's own, from its settings in ``SVCD_STUB`` (JSON) to its end.

Must not make anything of svcd's environment importable there but what svcd itself needs: what the service has not
installed it must not find, least of all extension modules for another Python.

``SVCD_STUB`` holds the arguments of ``stub.main`` and, for this file alone: ``borrowed``, a directory in which there is
nothing but svcd and msgpack, and ``suffix``, that of the extension modules there. The directory goes to the end of
``sys.path``: a msgpack of the service's own environment wins. svcd itself is always the one that the controller is of.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import sys
from typing import Any, Final, NoReturn

FAILURE: Final = 70
OLDEST_MSGPACK: Final = (1, 0)
PURE: Final = "MSGPACK_PUREPYTHON"


def run() -> NoReturn:
    """Start the stub; ends the process."""
    text = os.environ.pop("SVCD_STUB", "")
    try:
        stub = json.loads(text)
        name = stub["service"]
    except (ValueError, TypeError, KeyError):
        _refuse("a stub", "SVCD_STUB is malformed" if text else "SVCD_STUB is not set; svcd does that")
    try:
        if stub.get("borrowed"):
            _take_svcd(stub["borrowed"])
        _take_msgpack(name, stub)
        from svcd.worker_runtime.process import main  # noqa: PLC0415 - only now it is there
    except ImportError as error:
        hint = "" if error.name is None else f"{error.name}: install it there "
        _refuse(name, f"{sys.executable} cannot import {hint}({error})")
    _set_title(stub)
    os._exit(main(stub))


def _take_svcd(borrowed: str) -> None:
    """Our own package, whatever the environment has under that name. The directory is on ``sys.path`` for what the
    service starts in its turn: multiprocessing hands that on.
    """
    if borrowed not in sys.path:
        sys.path.append(borrowed)
    package = os.path.join(borrowed, "svcd")
    init = os.path.join(package, "__init__.py")
    spec = importlib.util.spec_from_file_location("svcd", init, submodule_search_locations=[package])
    if spec is None or spec.loader is None or not os.path.exists(init):
        raise ImportError(f"{package} is not there, or not readable for this user", name="svcd")
    module = sys.modules["svcd"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def _take_msgpack(name: str, stub: dict[str, Any]) -> None:
    """The one that is installed here, or ours: without its extension module, when that is for another Python."""
    given = os.environ.get(PURE)
    found = importlib.util.find_spec("msgpack")
    is_ours = found is not None and str(found.origin).startswith(os.path.join(str(stub.get("borrowed")), ""))
    if is_ours and stub.get("suffix") not in importlib.machinery.EXTENSION_SUFFIXES:
        os.environ[PURE] = "1"
    try:
        import msgpack  # type: ignore[import-untyped]  # noqa: PLC0415 - it ships no types
    finally:
        if given is None:
            os.environ.pop(PURE, None)
    if tuple(getattr(msgpack, "version", (0,)))[:2] < OLDEST_MSGPACK:
        version = ".".join(map(str, getattr(msgpack, "version", ("?",))))
        _refuse(name, f"msgpack {version} of {sys.executable} is too old: install 1.0 or later there, or remove it")


def _set_title(stub: dict[str, Any]) -> None:
    title = f"svcd: service {stub.get('cluster', '')}/{stub['service']}"
    try:
        import setproctitle  # noqa: PLC0415 - not everywhere installed
    except ImportError:
        from svcd.supervisor.title import set_title  # noqa: PLC0415 - as far as there is room

        set_title(title)
        return
    setproctitle.setproctitle(title)


def _refuse(name: str, reason: str) -> NoReturn:
    sys.stderr.write(f"svcd: cannot run {name}: {reason}\n")
    sys.stderr.flush()
    os._exit(FAILURE)
