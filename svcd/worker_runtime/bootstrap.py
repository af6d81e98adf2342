"""The stub in an interpreter of the service's own: run as a file by it, with its settings in ``SVCD_STUB`` (JSON).

Must not use what an old Python cannot parse (no ``from __future__`` here): it is the one that says that it is too old.

``SVCD_STUB`` holds the arguments of ``stub.main`` and, for this file alone: ``site``, the directories where svcd finds
its libraries, and ``version``, the [major, minor] that they are for. They go to the end of ``sys.path``, so that the
service's own environment wins; those of another Python version are left out.
"""

import json
import os
import sys
from typing import Any, NoReturn

NEEDED = (3, 11)
FAILURE = 70


def run() -> NoReturn:
    """Start the stub; ends the process."""
    text = os.environ.pop("SVCD_STUB", "")
    try:
        stub = json.loads(text)
        name = stub["service"]
    except (ValueError, TypeError, KeyError):
        _refuse("a stub", "SVCD_STUB is malformed" if text else "SVCD_STUB is not set; svcd does that")
    if sys.version_info < NEEDED:
        here = f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}"
        _refuse(name, f"{here}, svcd needs {NEEDED[0]}.{NEEDED[1]} or later")
    _arrange_path(stub)
    try:
        from svcd.worker_runtime.process import main  # noqa: PLC0415 - the path is only right now
    except ImportError as error:
        _refuse(name, f"{sys.executable} cannot import {error.name}: install msgpack there ({error})")
    _set_title(stub)
    os._exit(main(stub))


def _arrange_path(stub: "dict[str, Any]") -> None:
    """Neither this directory nor the current one may shadow a service's modules."""
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    if sys.path and not sys.flags.safe_path and os.path.abspath(sys.path[0]) in (here, os.getcwd()):
        del sys.path[0]
    is_same = list(stub.get("version") or ()) == list(sys.version_info[:2])
    for each in [*(stub.get("site") or () if is_same else ()), root]:
        if each not in sys.path:
            sys.path.append(each)


def _set_title(stub: "dict[str, Any]") -> None:
    try:
        import setproctitle  # noqa: PLC0415 - not everywhere installed
    except ImportError:
        return
    setproctitle.setproctitle(f"svcd: service {stub.get('cluster', '')}/{stub['service']}")


def _refuse(name: str, reason: str) -> NoReturn:
    sys.stderr.write(f"svcd: cannot run {name}: {reason}\n")
    sys.stderr.flush()
    os._exit(FAILURE)


if __name__ == "__main__":
    run()
