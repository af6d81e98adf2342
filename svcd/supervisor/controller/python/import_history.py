"""What Python services with `preload: auto` were seen to import, and what of it is to be preloaded: kept over restarts
of svcd in ``imports.json`` in the state directory.

Must not believe what it reads, from the file or from a stub, beyond what it can check; and must not fail: without a
history nothing is preloaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from svcd.record import entity, field, record
from svcd.supervisor.config.launch import PythonCode, ServiceDefinition
from svcd.supervisor.preloading import PACKAGES, state_of

VERSION: Final = 1
FILE: Final = "imports.json"
HEAVY_S: Final = 0.005  # an import that took less is not worth a place in a fork server
MAX_MODULES: Final = 100  # of one service
MAX_NAME: Final = 200
MAX_REASON: Final = 500
MAX_FILE_BYTES: Final = 4 * 1024 * 1024


class HistoryError(ValueError):
    """The file cannot be used; the text says why."""


@record
class Recorded:
    """What one service imported. ``code``: fingerprint of what it ran; with other code it says nothing."""

    code: str
    imports: dict[str, float]


@entity
class Contents:
    """The file. ``site``: fingerprint of the interpreter and its packages; with others nothing of it holds. ``unfit``:
    module -> why it cannot be preloaded.
    """

    site: str
    services: dict[str, Recorded] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)


class ImportHistory:
    """``site``: svcd's own ``sys.path``; ``note``: svcd's own log."""

    def __init__(self, state_dir: Path, site: Iterable[str], note: Callable[..., None]) -> None:
        self._path = state_dir / FILE
        self._packages = [each for each in site if os.path.basename(each) in PACKAGES]
        self._note = note
        self._present: dict[str, str] = {}
        self._contents: Contents | None = None
        self._union: tuple[str, ...] | None = None

    def adopt(self, service: str, run: PythonCode) -> None:
        """It is among those that ``modules`` is for."""
        self._present[service] = fingerprint_of(run)
        self._union = None

    def forget(self, service: str) -> None:
        if self._present.pop(service, None) is not None:
            self._union = None

    def modules(self) -> tuple[str, ...]:
        """What is heavy and fit, of all services together: they share one fork server."""
        contents = self._current()
        if self._union is None:
            found: set[str] = set()
            for service, code in self._present.items():
                recorded = contents.services.get(service)
                if recorded is not None and recorded.code == code:
                    found.update(recorded.imports)
            self._union = tuple(sorted(found - contents.unfit.keys()))
        return self._union

    def take(self, definition: ServiceDefinition, imports: Mapping[str, Any]) -> bool:
        """A stub has told what it imported beyond what was preloaded; whether there is something new in it."""
        service, run = definition.spec.name, definition.launch.run
        if not isinstance(run, PythonCode) or service not in self._present:
            return False
        contents, code = self._current(), fingerprint_of(run)
        before = contents.services.get(service)
        known = before.imports if before is not None and before.code == code else {}
        new = {name: took_s for name, took_s in checked(imports).items() if name not in known}
        if not new:
            return False
        heaviest = sorted({**known, **new}.items(), key=lambda item: -item[1])[:MAX_MODULES]
        contents.services[service] = Recorded(code, dict(heaviest))
        self._save(contents)
        return True

    def refuse(self, module: str, reason: str) -> None:
        """It cannot be preloaded, as long as the same packages are installed."""
        contents = self._current()
        contents.unfit[module] = reason[:MAX_REASON]
        self._save(contents)

    def _current(self) -> Contents:
        """What holds with the packages that are installed now."""
        site = fingerprint_of_site(self._packages)
        if self._contents is None:
            self._contents, self._union = self._read(), None
        if self._contents.site != site:
            self._contents, self._union = Contents(site), None
        return self._contents

    # ---- the file ---------------------------------------------------------------------------------------------------

    def _read(self) -> Contents:
        try:
            with open(self._path, "rb", opener=_open_file_only) as file:
                return decode(file.read(MAX_FILE_BYTES + 1))
        except FileNotFoundError:
            pass
        except (OSError, HistoryError) as error:
            self._note("import history not used", path=str(self._path), reason=str(error))
        return Contents("")

    def _save(self, contents: Contents) -> None:
        self._union = None
        draft = self._path.with_name(f"{FILE}.new")
        try:
            draft.unlink(missing_ok=True)
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(encode(contents))
            os.replace(draft, self._path)
        except OSError as error:
            self._note("import history not saved", path=str(self._path), reason=error.strerror)


def _open_file_only(path: str, flags: int) -> int:
    """No link, and no pipe that would keep us waiting."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def encode(contents: Contents) -> bytes:
    services = {name: {"code": each.code, "imports": each.imports} for name, each in contents.services.items()}
    document = {"version": VERSION, "site": contents.site, "services": services, "unfit": contents.unfit}
    return json.dumps(document, indent=1, sort_keys=True).encode("ascii")


def decode(data: bytes) -> Contents:
    """Raises ``HistoryError`` for what is no history of this version; what is wrong inside is left out."""
    if len(data) > MAX_FILE_BYTES:
        raise HistoryError(f"it has more than {MAX_FILE_BYTES} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HistoryError(f"it is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise HistoryError(f"it is not of version {VERSION}")
    contents = Contents(str(document.get("site")))
    for service, each in _mapping(document.get("services")).items():
        recorded = _mapping(each)
        contents.services[service] = Recorded(str(recorded.get("code")), checked(_mapping(recorded.get("imports"))))
    for module, reason in _mapping(document.get("unfit")).items():
        if is_module(module):
            contents.unfit[module] = str(reason)[:MAX_REASON]
    return contents


def checked(imports: Mapping[str, Any]) -> dict[str, float]:
    """Names that can be imported, with times that are worth it; the heaviest ones, when there are too many."""
    good = {name: float(took_s) for name, took_s in imports.items() if is_module(name) and _is_heavy(took_s)}
    return dict(sorted(good.items(), key=lambda item: -item[1])[:MAX_MODULES])


def _is_heavy(took_s: Any) -> bool:
    if isinstance(took_s, bool) or not isinstance(took_s, int | float):
        return False
    return math.isfinite(took_s) and took_s >= HEAVY_S


def is_module(name: str) -> bool:
    words = name.split(".") if len(name) <= MAX_NAME else [""]
    return name != "__main__" and all(word.isidentifier() for word in words)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# ---- fingerprints ---------------------------------------------------------------------------------------------------


def fingerprint_of(run: PythonCode) -> str:
    """Of what is loaded: with another entry point or path, other modules may be imported."""
    return _digest([run.entry, run.script, run.code, run.path])


def fingerprint_of_site(packages: Iterable[str]) -> str:
    """Of the interpreter and what is installed for it: whoever installs or removes a package changes its directory."""
    states = [[each, (state_of(each) or [0])[0]] for each in packages]
    return _digest([sys.version, sys.executable, states])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
