"""The import history: what is kept of what stubs tell, what makes it void, and files that are none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from svcd.record import as_dict
from svcd.supervisor.config.launch import LaunchSpec, PythonCode, ServiceDefinition
from svcd.supervisor.controller.python import import_history
from svcd.supervisor.controller.python.import_history import (
    Contents,
    HistoryError,
    ImportHistory,
    Recorded,
    checked,
    decode,
    encode,
)
from svcd.supervisor.core.spec import Runner, ServiceSpec

WEB = PythonCode(entry="a:b", preload_auto=True)


class Scene:
    def __init__(self, directory: Path) -> None:
        self.state, self.packages = directory / "state", directory / "site-packages"
        for each in (self.state, self.packages):
            each.mkdir()
        self.notes: list[dict[str, Any]] = []
        self.file = self.state / "imports.json"

    def history(self, **services: PythonCode) -> ImportHistory:
        """As svcd has it after a start, with these services."""
        made = ImportHistory(self.state, ["/nowhere", str(self.packages)], self.note)
        for name, run in services.items():
            made.adopt(name, run)
        return made

    def note(self, event: str, **more: Any) -> None:
        self.notes.append({"event": event, **more})


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def definition(name: str, run: PythonCode = WEB) -> ServiceDefinition:
    return ServiceDefinition(ServiceSpec(name, Runner.PYTHON), LaunchSpec(run, "/"))


def test_what_is_told_is_there_after_a_restart(scene: Scene) -> None:
    history = scene.history(web=WEB, api=WEB)
    assert history.modules() == ()
    assert history.take(definition("web"), {"numpy": 0.09, "json": 0.006})
    assert history.take(definition("api"), {"yaml": 0.01})
    assert history.modules() == ("json", "numpy", "yaml")
    assert scene.history(web=WEB, api=WEB).modules() == ("json", "numpy", "yaml")
    assert scene.history(web=WEB).modules() == ("json", "numpy"), "of services that are there"
    assert scene.notes == []
    assert os.listdir(scene.state) == ["imports.json"]
    assert scene.file.stat().st_mode & 0o777 == 0o600


def test_nothing_new_is_nothing_to_do(scene: Scene) -> None:
    history = scene.history(web=WEB)
    assert history.take(definition("web"), {"numpy": 0.09})
    assert not history.take(definition("web"), {"numpy": 0.2})
    assert not history.take(definition("web"), {})
    assert not history.take(definition("stranger"), {"json": 0.1})
    assert history.take(definition("web"), {"yaml": 0.2}), "what was not there to be preloaded"
    assert history.modules() == ("numpy", "yaml")


def test_other_code_has_another_history(scene: Scene) -> None:
    history = scene.history(web=WEB)
    history.take(definition("web"), {"numpy": 0.09})
    other = PythonCode(entry="a:c", preload_auto=True)
    history.adopt("web", other)
    assert history.modules() == ()
    history.take(definition("web", other), {"yaml": 0.09})
    assert history.modules() == ("yaml",)
    history.forget("web")
    assert history.modules() == ()


def test_other_packages_make_it_void(scene: Scene) -> None:
    history = scene.history(web=WEB)
    history.take(definition("web"), {"numpy": 0.09})
    history.refuse("yaml", "it starts threads")
    (scene.packages / "another").mkdir()
    os.utime(scene.packages, ns=(1, 1))
    assert history.modules() == scene.history(web=WEB).modules() == ()
    assert history.take(definition("web"), {"yaml": 0.09}), "it may be fit now"
    assert history.modules() == ("yaml",)


def test_what_is_unfit_is_left_out(scene: Scene) -> None:
    history = scene.history(web=WEB)
    history.take(definition("web"), {"numpy": 0.09, "yaml": 0.01})
    history.refuse("numpy", "it starts threads")
    assert history.modules() == scene.history(web=WEB).modules() == ("yaml",)
    assert decode(scene.file.read_bytes()).unfit == {"numpy": "it starts threads"}


GOOD = Contents("site", {"web": Recorded("code", {"numpy": 0.5})}, {"yaml": "threads"})


def test_it_is_read_as_it_was_written() -> None:
    assert as_dict(decode(encode(GOOD))) == as_dict(GOOD)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"version": 2}',
        b'{"version": "1"}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"1" * 5000,
        b" " * (import_history.MAX_FILE_BYTES + 1),
    ],
    ids=range(11),
)
def test_what_is_no_history_is_refused_and_not_used(scene: Scene, data: bytes) -> None:
    with pytest.raises(HistoryError):
        decode(data)
    scene.file.write_bytes(data)
    history = scene.history(web=WEB)
    assert history.modules() == ()
    assert [each["event"] for each in scene.notes] == ["import history not used"]
    assert history.take(definition("web"), {"numpy": 0.09}), "it is replaced"
    assert scene.history(web=WEB).modules() == ("numpy",)


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_what_is_no_file_is_not_followed(scene: Scene, kind: str) -> None:
    if kind == "link":
        (scene.state / "other").write_bytes(encode(GOOD))
        scene.file.symlink_to("other")
    elif kind == "fifo":
        os.mkfifo(scene.file)
    else:
        scene.file.mkdir()
    history = scene.history(web=WEB)
    assert history.modules() == ()
    history.take(definition("web"), {"numpy": 0.09})
    assert history.modules() == ("numpy",)
    assert len(scene.notes) == {"link": 1, "fifo": 1, "directory": 2}[kind]


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("services", []),
        ("services", {"web": 5, "api": {"imports": [1]}, "x": {"imports": {"a": "long"}}}),
        ("services", {"web": {"code": 5, "imports": {"os; rm": 1, "a": True, "b": None, "c": -1, "": 1, "a..b": 1}}}),
        ("unfit", 7),
        ("unfit", {"not a module": "x"}),
    ],
)
def test_what_is_wrong_inside_is_left_out(section: str, value: Any) -> None:
    found = decode(json.dumps({"version": 1, "site": "s", section: value}).encode())
    assert [each.imports for each in found.services.values() if each.imports] == []
    assert found.unfit == {}


def test_only_names_that_take_long_count() -> None:
    told = {"numpy": 0.5, "light": 0.001, "nan": float("nan"), "inf": float("inf"), "-c": 1.0, "__main__": 1.0}
    assert checked(told) == {"numpy": 0.5}
    assert checked({"a" * 300: 1.0}) == {}
    many = {f"m{number}": 1.0 + number for number in range(500)}
    assert len(checked(many)) == import_history.MAX_MODULES
    assert "m499" in checked(many)
    assert "m0" not in checked(many)
