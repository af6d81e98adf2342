"""By what a Python service's threads and processes are made: each setting from the last that says it, and who that is.

Must not know which services there are, nor what becomes of the settings: ``launch`` carries them to the stub.

The order: the default, ``runtime:`` of ``defaults``, ``runtime:`` of the service, then the variable in the service's
environment. That begins as svcd's own, with the files of ``env_file`` and then ``env`` over it, as for every variable:
what a process finds in its environment is what holds for it.
"""

from __future__ import annotations

from collections.abc import Mapping as Environment
from enum import Enum
from typing import Any, Final

from svcd.record import record
from svcd.supervisor.config.block import key_names, keys_of, leaf_of
from svcd.supervisor.config.errors import Findings, Mark
from svcd.supervisor.config.layers import is_given
from svcd.supervisor.config.leaves import Parsed
from svcd.supervisor.config.reader import resolve
from svcd.supervisor.config.service_source import Notes, ServiceSource
from svcd.supervisor.config.shape import Runtime
from svcd.supervisor.config.tree import Mapping
from svcd.supervisor.config.units import RefusedError, near_miss

PREFIX: Final = "SVCD_RUNTIME_"
DEFAULT: Final = "default"

_KEYS: Final = tuple(key_names(Runtime))
VARIABLES: Final = {f"{PREFIX}{key.upper()}": key for key in _KEYS}
_ON_THE_WIRE: Final = {"stack_size": "stack_size_bytes"}
_NUMBERS: Final = ("compute_threads", "max_blocking_threads")


@record
class Setting:
    """One of them. ``shown``: as it is written in a file. ``mark``: who says it, None for nobody; ``variable``: which
    variable says it.
    """

    key: str
    value: Any
    shown: Any
    mark: Mark | None = None
    variable: str = ""

    @property
    def origin(self) -> str:
        """``shop.yaml:9``, ``.env:2, SVCD_RUNTIME_COMPUTE``, ``environment SVCD_RUNTIME_COMPUTE``, ``default``."""
        if self.mark is None:
            return DEFAULT
        place = f"{self.mark.file}:{self.mark.line}" if self.mark.line else self.mark.file
        return f"{place}, {self.variable}" if self.variable and self.mark.line else place


def own_place(variable: str) -> Mark:
    """Where svcd's own environment says it."""
    return Mark(f"environment {variable}")


def check_own_environment(environ: Environment[str, str], findings: Findings) -> None:
    """Record what is wrong with the variables of svcd's own environment, whichever services there are."""
    for variable, text in environ.items():
        if variable.startswith(PREFIX):
            try:
                read_variable(variable, text)
            except RefusedError as refused:
                findings.add(own_place(variable), "", refused.text, refused.suggestion)


def read_variable(variable: str, text: str) -> Setting | None:
    """What it sets; None when it is empty, which is as good as not there. Raises ``RefusedError``."""
    key = VARIABLES.get(variable)
    if key is None:
        # what they all begin with is no likeness
        near = near_miss(variable.removeprefix(PREFIX), map(str.upper, _KEYS))
        meant = near.replace("did you mean ", f"did you mean {PREFIX}")
        raise RefusedError("there is no such setting", meant or f"the variables are {', '.join(VARIABLES)}")
    if not text:
        return None
    value = resolve(text) if key in _NUMBERS else text
    return _setting(key, _leaf(key).parse(value))


def resolve_runtime(
    source: ServiceSource, run: str | None, env: dict[str, str], places: dict[str, Mark], notes: Notes
) -> tuple[Setting, ...]:
    """Every setting of a Python service; none for others. ``env``: its whole environment, ``places``: where the
    variables of it are said.
    """
    if run not in ("python", "code"):
        _check_unused(source, run, notes)
        return ()
    if "runtime" in source.bad:
        return ()
    found = {key: _written(source, key, notes) for key in _KEYS}
    for variable, mark in places.items():
        try:
            setting = read_variable(variable, env[variable])
        except RefusedError as refused:
            _refuse(variable, mark, refused, source, notes)
            continue
        if setting is not None:
            found[setting.key] = Setting(setting.key, setting.value, setting.shown, mark, variable)
    return tuple(found.values())


def of_files(settings: tuple[Setting, ...]) -> dict[str, Any]:
    """For ``PythonCode.runtime``: what the files say, where it is not the default."""
    return {
        _ON_THE_WIRE.get(each.key, each.key): each.value
        for each in settings
        if not each.variable and each.value != default_of(each.key).value
    }


def of_variables(settings: tuple[Setting, ...]) -> dict[str, Any]:
    """For ``PythonCode.runtime_variables``."""
    return {_ON_THE_WIRE.get(each.key, each.key): each.value for each in settings if each.variable}


def default_of(key: str) -> Setting:
    return _setting(key, keys_of(Runtime)[key_names(Runtime)[key]].default)


# ---- one setting -----------------------------------------------------------------------------------------------------


def _written(source: ServiceSource, key: str, notes: Notes) -> Setting:
    """What the files say of it, or its default."""
    if not notes.is_written("runtime", key):
        return default_of(key)
    found = _setting(key, getattr(source.block.runtime, key_names(Runtime)[key]))
    return Setting(key, found.value, found.shown, notes.mark("runtime", key))


def _setting(key: str, value: Any) -> Setting:
    return Setting(key, value.value if isinstance(value, Enum) else value, _leaf(key).show(value))


def _leaf(key: str) -> Parsed:
    leaf = leaf_of(keys_of(Runtime)[key_names(Runtime)[key]])
    assert isinstance(leaf, Parsed)
    return leaf


def _refuse(variable: str, mark: Mark, refused: RefusedError, source: ServiceSource, notes: Notes) -> None:
    """Say it once, where it is written: svcd's own variable is the same for every service."""
    if notes.is_written("env", variable):
        notes.find(("env", variable), refused.text, refused.suggestion)
    else:
        notes.find((), refused.text, refused.suggestion, mark, key=variable if mark.line else "")


def _check_unused(source: ServiceSource, run: str | None, notes: Notes) -> None:
    """What is written for the service itself, and is no default, was meant."""
    own = source.own.entries.get("runtime")
    if run is None or not isinstance(own, Mapping) or "runtime" in source.bad:
        return
    if any(is_given(own, key) and _written(source, key, notes).value != default_of(key).value for key in _KEYS):
        text = f"goes with python: or code:, not with {run}:"
        notes.find(("runtime",), text, "remove it", source.own.key_marks["runtime"])
