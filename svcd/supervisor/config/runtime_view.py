"""The runtime settings of Python services as one can read them: every value with the place that it comes from.

Must not show what is not valid: unlike the merged view, these are the values that services get.
"""

from __future__ import annotations

from collections.abc import Mapping as Environment
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any

from svcd.record import record
from svcd.supervisor.config.load import Running, load
from svcd.supervisor.config.merged import scalar
from svcd.supervisor.config.runtime import Setting


@record
class RuntimeView:
    """Service as it is called in the file -> its settings, in the order of the file. ``others``: the services that have
    none.
    """

    services: dict[str, tuple[Setting, ...]]
    others: tuple[str, ...]

    def of(self, names: Listing[str]) -> RuntimeView:
        """These alone; all of them, if none are named. Raises ``KeyError`` for one that has none."""
        chosen = {name: self.services[name] for name in names} if names else self.services
        return RuntimeView(chosen, self.others)

    def as_yaml(self) -> str:
        """As a cluster file has them, each with its origin as a comment."""
        lines = ["services:\n"] if self.services else ["services: {}\n"]
        for name, settings in self.services.items():
            lines += [f"  {name}:\n", "    runtime:\n"]
            lines += [f"      {each.key}: {scalar(each.shown)}  # {each.origin}\n" for each in settings]
        return "".join(lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "services": {name: {each.key: _row(each) for each in settings} for name, settings in self.services.items()}
        }


def _row(setting: Setting) -> dict[str, Any]:
    mark = setting.mark
    return {
        "value": setting.shown,
        "file": setting.origin if mark is None else mark.file,
        "line": 0 if mark is None else mark.line,
        "column": 0 if mark is None else mark.column,
        "variable": setting.variable or None,
    }


def runtime_view(
    files: Listing[Path | str],
    environ: Environment[str, str],
    *,
    profiles: Listing[str] = (),
    running: Running | None = None,
) -> RuntimeView:
    """What ``load`` finds. Raises ``ConfigurationError`` as it does."""
    found: dict[str, tuple[Setting, ...]] = {}
    cluster = load(files, environ, profiles=profiles, running=running, on_runtime=found.__setitem__)
    names = dict.fromkeys(each.service for each in cluster.services)
    return RuntimeView(
        {name: found[name] for name in names if found.get(name)},
        tuple(name for name in names if not found.get(name)),
    )
