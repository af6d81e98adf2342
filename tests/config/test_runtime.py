"""Runtime settings: which of those who say one counts, what is refused and where, and what of it a change restarts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svcd.supervisor.config import plan
from svcd.supervisor.config.block import keys_of
from svcd.supervisor.config.compare import compare
from svcd.supervisor.config.errors import ConfigurationError
from svcd.supervisor.config.launch import ClusterSpec, PythonCode
from svcd.supervisor.config.load import load
from svcd.supervisor.config.runtime import VARIABLES, default_of, of_files, of_variables, read_variable
from svcd.supervisor.config.runtime_view import runtime_view
from svcd.supervisor.config.shape import Runtime
from svcd.supervisor.config.units import RefusedError
from svcd.worker_runtime.computing.runtime_settings import RuntimeSettings

ENVIRON = {"PATH": "/usr/bin:/bin"}
CODE = "code: 'async def main(ctx): pass'"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def cluster(service: str, defaults: str = "{}", env_file: str = "", **environ: str) -> ClusterSpec:
    """A service ``web`` with these keys."""
    Path("a.env").write_text(env_file)
    lines = "\n".join(f"    {line}" for line in service.splitlines())
    Path("c.yaml").write_text(f"cluster: c\ndefaults: {defaults}\nservices:\n  web:\n{lines}\n")
    return load(["c.yaml"], {**ENVIRON, **environ})


def effective(found: ClusterSpec) -> dict[str, Any]:
    run = found.services[0].launch.run
    assert isinstance(run, PythonCode)
    return {**run.runtime, **run.runtime_variables}


def problems(service: str, **more: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as raised:
        cluster(service, **more)
    return [str(each) for each in raised.value.problems]


# ---- the same words on both sides ------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_stub() -> None:
    stub = RuntimeSettings()
    shown = {key: default_of(key).value for key in VARIABLES.values()}
    shown["stack_size_bytes"] = shown.pop("stack_size")
    assert {name: getattr(stub, name) for name in RuntimeSettings.__slots__} == shown


def test_what_validation_lets_through_the_stub_takes() -> None:
    """The limits on both sides are the same."""
    ends = {
        "compute": ("threads", "processes"),
        "compute_threads": (0, 256),
        "max_blocking_threads": (2, 1024),
        "stack_size": ("256KiB", "1GiB"),
        "thread_prefix": ("a", "a" * 32),
    }
    assert ends.keys() == keys_of(Runtime).keys()
    for key, values in ends.items():
        for value in values:
            RuntimeSettings.read(effective(cluster(f"{CODE}\nruntime: {{{key}: {value}}}")))


# ---- who counts ------------------------------------------------------------------------------------------------------

LAYERS = ("defaults", "runtime", "environment", "env_file of defaults", "env_file", "env of defaults", "env")
"""Who can say a setting, the last one that does counts."""


def layered(saying: dict[str, int]) -> ClusterSpec:
    """Each layer that says compute_threads, with its number."""
    name = "SVCD_RUNTIME_COMPUTE_THREADS"
    files = {"env_file of defaults": "d.env", "env_file": "s.env"}
    for layer, file in files.items():
        Path(file).write_text(f"{name}={saying[layer]}\n" if layer in saying else "")
    defaults, service = ["env_file: [d.env]"], [CODE, "env_file: [s.env]"]
    for layer, lines in (("defaults", defaults), ("runtime", service)):
        if layer in saying:
            lines.append(f"runtime: {{compute_threads: {saying[layer]}}}")
    for layer, lines in (("env of defaults", defaults), ("env", service)):
        if layer in saying:
            lines.append(f"env: {{{name}: {saying[layer]}}}")
    environ = {name: str(saying["environment"])} if "environment" in saying else {}
    return cluster("\n".join(service), "{" + ", ".join(defaults) + "}", **environ)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(LAYERS), st.integers(0, 256)))
def test_the_last_that_says_it_counts(saying: dict[str, int]) -> None:
    found = layered(saying)
    last = max(saying, key=LAYERS.index, default=None)
    expected = 2 if last is None else saying[last]
    assert RuntimeSettings.read(effective(found)).compute_threads == expected
    assert plan.from_json(plan.to_json(found)) == found
    view = runtime_view(["c.yaml"], found.environ).services["web"]
    setting = next(each for each in view if each.key == "compute_threads")
    line = 8 if "runtime" in saying else 7
    assert (setting.value, setting.origin) == (expected, ORIGINS[last].format(line=line))


ORIGINS = {
    None: "default",
    "defaults": "c.yaml:2",
    "runtime": "c.yaml:7",
    "environment": "environment SVCD_RUNTIME_COMPUTE_THREADS",
    "env_file of defaults": "d.env:1, SVCD_RUNTIME_COMPUTE_THREADS",
    "env_file": "s.env:1, SVCD_RUNTIME_COMPUTE_THREADS",
    "env of defaults": "c.yaml:2, SVCD_RUNTIME_COMPUTE_THREADS",
    "env": "c.yaml:{line}, SVCD_RUNTIME_COMPUTE_THREADS",
}


def test_settings_are_merged_one_by_one() -> None:
    found = cluster(
        f"{CODE}\nruntime: {{compute_threads: 4}}\nenv: {{SVCD_RUNTIME_COMPUTE: processes}}",
        "{runtime: {stack_size: 4MiB, compute_threads: 3}}",
        SVCD_RUNTIME_THREAD_PREFIX="0x10",
    )
    assert effective(found) == {
        "compute": "processes",
        "compute_threads": 4,
        "stack_size_bytes": 4 * 1024 * 1024,
        "thread_prefix": "0x10",
    }


@pytest.mark.parametrize("nothing", ["", "env: {SVCD_RUNTIME_COMPUTE_THREADS: null}", "runtime:"])
def test_what_says_nothing_is_as_good_as_not_there(nothing: str) -> None:
    environ = {"SVCD_RUNTIME_COMPUTE_THREADS": "" if "null" not in nothing else "7"}
    assert effective(cluster(f"{CODE}\n{nothing}", **environ)) == {}


# ---- what is refused -------------------------------------------------------------------------------------------------

PREFIX_RULE = "letters, digits, -, _ and ., beginning with a letter or digit, at most 32"
BAD = [
    ("compute", "process", '"process" is not one of threads, processes; did you mean processes?'),
    ("compute_threads", "many", 'must be a whole number, not "many"; use 0 to 256'),
    ("compute_threads", "-1", "-1 is out of range; use 0 to 256"),
    ("compute_threads", "1.5", "must be a whole number, not the number 1.5; use 0 to 256"),
    ("max_blocking_threads", "1", "1 is out of range; use 2 to 1024"),
    ("stack_size", "2 MiB", '"2 MiB" is no size; write 2MiB, without blanks'),
    ("stack_size", "64KiB", "64KiB is out of range; use 256KiB to 1GiB"),
    ("stack_size", "2GiB", "2GiB is out of range; use 256KiB to 1GiB"),
    ("thread_prefix", "a b", f'"a b" cannot begin the name of a thread; use {PREFIX_RULE}'),
]


@pytest.mark.parametrize(("key", "value", "text"), BAD)
def test_a_bad_value_is_refused_where_it_stands(key: str, value: str, text: str) -> None:
    variable = f"SVCD_RUNTIME_{key.upper()}"
    column = len(f"    runtime: {{{key}: ") + 1
    assert problems(f"{CODE}\nruntime: {{{key}: {value}}}") == [
        f"c.yaml:6:{column}: services.web.runtime.{key}: {text}"
    ]
    column = len(f"    env: {{{variable}: ") + 1
    assert problems(f"{CODE}\nenv: {{{variable}: {value}}}") == [
        f"c.yaml:6:{column}: services.web.env.{variable}: {text}"
    ]
    assert problems(f"{CODE}\nenv_file: a.env", env_file=f"\n{variable}='{value}'\n") == [
        f"a.env:2:1: {variable}: {text}"
    ]
    assert problems(CODE, **{variable: value}) == [f"environment {variable}: {text}"]


def test_svcd_s_own_environment_is_checked_whatever_runs_and_told_once() -> None:
    expected = ["environment SVCD_RUNTIME_COMPUTE: " + BAD[0][2]]
    assert problems("command: [sleep, 5]", SVCD_RUNTIME_COMPUTE="process") == expected
    Path("two.yaml").write_text(f"cluster: c\nservices: {{a: {{{CODE}}}, b: {{{CODE}}}}}")
    with pytest.raises(ConfigurationError) as raised:
        load(["two.yaml"], {**ENVIRON, "SVCD_RUNTIME_COMPUTE": "process"})
    assert list(map(str, raised.value.problems)) == expected


def test_unknown_settings_are_refused_with_what_may_be_meant() -> None:
    assert problems(f"{CODE}\nruntime: {{compute_thread: 1}}") == [
        "c.yaml:6:15: services.web.runtime.compute_thread: unknown key; did you mean compute_threads?"
    ]
    assert problems(CODE, SVCD_RUNTIME_COMPUTE_THREAD="1") == [
        "environment SVCD_RUNTIME_COMPUTE_THREAD: there is no such setting; did you mean SVCD_RUNTIME_COMPUTE_THREADS?"
    ]
    assert problems(CODE, SVCD_RUNTIME_X="1") == [
        f"environment SVCD_RUNTIME_X: there is no such setting; the variables are {', '.join(VARIABLES)}"
    ]


@pytest.mark.parametrize("what", ["command: [sleep, 5]", "script: a.py"])
def test_what_cannot_use_them_may_not_have_any_but_defaults(what: str) -> None:
    Path("a.py").write_text("")
    key = what.partition(":")[0]
    assert problems(f"{what}\nruntime: {{compute_threads: 3}}") == [
        f"c.yaml:6:5: services.web.runtime: goes with python: or code:, not with {key}:; remove it"
    ]
    cluster(f"{what}\nruntime: {{compute_threads: 2}}", "{runtime: {compute_threads: 5}}")
    cluster(f"{what}\nenv: {{SVCD_RUNTIME_X: 1}}")  # a program's own business: another svcd, say


@given(st.sampled_from(sorted(VARIABLES)), st.text(max_size=40))
def test_any_text_is_a_setting_or_refused(variable: str, text: str) -> None:
    try:
        setting = read_variable(variable, text)
    except RefusedError:
        return
    assert (setting is None) is (text == "")
    if setting is not None:
        found = (setting,)
        RuntimeSettings.read({**of_files(found), **of_variables(found)})


# ---- changes ---------------------------------------------------------------------------------------------------------


def test_a_change_of_a_file_is_one_of_the_service() -> None:
    old = cluster(f"{CODE}\nruntime: {{compute_threads: 2}}")
    assert compare(cluster(CODE), old).is_empty
    (change,) = compare(old, cluster(f"{CODE}\nruntime: {{compute_threads: 3}}")).changed
    assert (change.keys, change.needs_restart) == (("runtime",), True)


def test_a_variable_changes_the_service_unless_it_is_svcd_s_own() -> None:
    (change,) = compare(cluster(CODE), cluster(f"{CODE}\nenv: {{SVCD_RUNTIME_COMPUTE_THREADS: 3}}")).changed
    assert (change.keys, change.needs_restart) == (("env.SVCD_RUNTIME_COMPUTE_THREADS",), True)
    assert compare(cluster(CODE), cluster(CODE, SVCD_RUNTIME_COMPUTE_THREADS="3")).is_empty
