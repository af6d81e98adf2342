"""Which services come from one fork server, and which from none."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from svcd.supervisor.config.launch import LaunchSpec, Program, PythonCode, ServiceDefinition
from svcd.supervisor.controller.python.preload_sets import AUTO, PreloadSet, has_changed, is_found, set_of
from svcd.supervisor.core.spec import Runner, ServiceSpec
from svcd.supervisor.preloading import state_of


def definition(workdir: Path, run: PythonCode | Program, **launch: Any) -> ServiceDefinition:
    return ServiceDefinition(ServiceSpec("web", Runner.PYTHON), LaunchSpec(run, str(workdir), **launch))


def code(*modules: str, **more: Any) -> PythonCode:
    return PythonCode(**{"entry": "a:b", "preload": modules, **more})


def test_who_is_not_forked_from_one(tmp_path: Path) -> None:
    for run in (Program(("true",)), code(), code("json", interpreter="/usr/bin/python3")):
        assert set_of(definition(tmp_path, run), 0) is None


def test_order_and_repetition_say_nothing(tmp_path: Path) -> None:
    assert set_of(definition(tmp_path, code("b", "a", "b")), 0) == PreloadSet(("a", "b"))


@pytest.mark.parametrize("name", ["own.py", "own/__init__.py", "own/part.txt", "own.abi3.so", "own.pyc"])
def test_own_modules_are_found_where_the_service_will_find_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    own = set_of(definition(tmp_path, code("own.part", "json", path=(str(tmp_path),))), 0)
    assert own == PreloadSet(("json", "own.part"), (str(tmp_path),))
    installed = set_of(definition(tmp_path, code("json", path=(str(tmp_path),))), 0)
    assert installed == PreloadSet(("json",)), "one for all directories"


def test_the_whole_path_counts(tmp_path: Path) -> None:
    for name in ("lib", "env", "jobs"):
        (tmp_path / name).mkdir()
    (tmp_path / "env" / "own.py").touch()
    run = code("own", entry=None, script=str(tmp_path / "jobs" / "job.py"), path=(str(tmp_path / "lib"),))
    found = set_of(definition(tmp_path, run, env={"PYTHONPATH": "env::/nowhere"}), 0)
    assert found is not None
    assert found.path == (f"{tmp_path}/lib", f"{tmp_path}/env", "/nowhere", f"{tmp_path}/jobs")


def test_a_zip_file_may_hold_anything(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "lib.zip", "w") as archive:
        archive.writestr("own.py", "")
    assert is_found("own", [str(tmp_path / "lib.zip")])
    assert not is_found("own", [str(tmp_path)])


def test_another_user_gets_what_is_installed_for_svcd(tmp_path: Path) -> None:
    (tmp_path / "own.py").touch()
    foreign = set_of(definition(tmp_path, code("own", path=(str(tmp_path),)), uid=1), 0)
    assert foreign == PreloadSet(("own",))
    same = set_of(definition(tmp_path, code("own", path=(str(tmp_path),)), uid=1), 1)
    assert same == PreloadSet(("own",), (str(tmp_path),))


def test_auto_is_one_for_all_but_for_other_users(tmp_path: Path) -> None:
    run = code(preload_auto=True)
    assert set_of(definition(tmp_path, run), 0) is AUTO
    assert set_of(definition(tmp_path, run, uid=1), 0) is None


def test_what_is_watched_has_changed_when_it_is_another(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("a")
    state = state_of(str(file))
    assert state is not None
    assert not has_changed({})
    assert not has_changed({str(file): state})
    file.write_text("ab")
    os.utime(file, ns=(state[0], state[0]))
    assert has_changed({str(file): state})
    file.write_text("b")
    os.utime(file, ns=(state[0] + 1, state[0] + 1))
    assert has_changed({str(file): state})
    file.unlink()
    assert has_changed({str(file): state})
