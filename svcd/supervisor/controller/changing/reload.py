"""SIGHUP: the cluster's own files are applied again, by the same command that a person would use.

Must not read a file itself: the controller has no YAML reader, and what is wrong in a file must not touch it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from svcd.protocol.places import Places
from svcd.supervisor.config.launch import LaunchSpec, Program, ServiceDefinition
from svcd.supervisor.controller.processes.errands import Errands
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.core.spec import ServiceSpec

NAME: Final = "svcd"
TIMEOUT_S: Final = 60.0
COMMAND: Final = "import sys; sys.path[:0] = {site!r}; from svcd.cli.__main__ import main; main()"


class Reload:
    """One at a time; a signal that comes meanwhile is answered by one more."""

    def __init__(
        self,
        errands: Errands,
        registry: Registry,
        places: Places,
        site: tuple[str, ...],
        notice: Callable[[str, str], None],
    ) -> None:
        self._errands = errands
        self._registry = registry
        self._places = places
        self._site = site
        self._notice = notice
        self._busy = False
        self._again = False

    def begin(self) -> None:
        """Apply the files that the cluster was started with."""
        if self._busy:
            self._again = True
            return
        files = self._registry.cluster.files
        if not files:
            self._notice("", "SIGHUP: the cluster was started without files: nothing to apply")
            return
        self._busy = True
        self._notice("", f"SIGHUP: applying {' '.join(files)}")
        self._errands.run(self._definition(), self._argv(files), TIMEOUT_S, {}, self._ended, output=True)

    def _ended(self, error: str | None) -> None:
        self._busy = False
        if error is not None:
            log = self._places.logs(NAME, "stderr")
            self._notice("", f"SIGHUP: nothing was changed, svcd apply ended with {error}: see {log}")
        if self._again:
            self._again = False
            self.begin()

    def _argv(self, files: tuple[str, ...]) -> tuple[str, ...]:
        profiles = [word for each in self._registry.cluster.profiles for word in ("--profile", each)]
        where = ["--run-dir", str(self._places.run_dir), "--state-dir", str(self._places.state_dir)]
        code = COMMAND.format(site=list(self._site))
        return (sys.executable, "-I", "-c", code, "apply", *where, "--no-wait", *profiles, *files)

    def _definition(self) -> ServiceDefinition:
        """As whom the command runs: as ourselves, in the environment of the configuration that is in force."""
        launch = LaunchSpec(Program(()), workdir="/", env=dict(self._registry.cluster.environ))
        return ServiceDefinition(ServiceSpec(NAME), launch, service=NAME)
