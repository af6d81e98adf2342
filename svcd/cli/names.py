"""Names of services as people type them: a service stands for all of its instances.

Must not ask anybody which there are: it is told.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from svcd.cli import columns


def service_of(name: str) -> str:
    """The service that a full name belongs to: a dot comes before the number of an instance, and nowhere else."""
    service, dot, number = name.rpartition(".")
    return service if dot and number.isascii() and number.isdigit() else name


def expand(names: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """Full names, each once. ``known``: full name -> service. A name that is neither stays as it is."""
    instances: dict[str, list[str]] = {}
    for full_name, service in known.items():
        instances.setdefault(service, []).append(full_name)
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys([name] if name in known else instances.get(name, [name])))
    return list(found)


def no_service(name: str, known: Mapping[str, str]) -> str:
    """What is said of a name that nobody has."""
    near = difflib.get_close_matches(name, dict.fromkeys([*known, *known.values()]), 1)
    mend = f"; did you mean {near[0]}?" if near else ""
    return f"no service {columns.one_line(name)!r}{mend}"
