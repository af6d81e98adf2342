"""What a service imports while it is loaded: who counts, and that nothing else is changed by looking."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from svcd.worker_runtime import exceptions, recording
from svcd.worker_runtime.forking import forked
from svcd.worker_runtime.recording import HEAVY_S, Recording

WORK = f"from svcd.worker_runtime import recording\nrecording.time.passes({2 * HEAVY_S})\n"


class Clock:
    """``time`` as the recording sees it: what passes is said by the modules, and no machine is too slow for it."""

    def __init__(self) -> None:
        self._now = 1000.0

    def perf_counter(self) -> float:
        return self._now

    def passes(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installed modules in ``site-packages``, own ones beside it."""
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path, str(tmp_path / "site-packages")])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(recording, "time", Clock())
    before = set(sys.modules)
    importlib.invalidate_caches()
    yield tmp_path  # type: ignore[misc]  # a fixture
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_what_the_own_code_imports_counts_with_all_that_it_pulls_in(place: Path) -> None:
    for name, source in {"inner": WORK, "outer": "import inner_of_site", "light": "", "direct": WORK}.items():
        (place / "site-packages" / f"{name}_of_site.py").write_text(source)
    (place / "mine.py").write_text("import outer_of_site, light_of_site\n" + WORK)
    with Recording((str(place),)) as recorded:
        mine = importlib.import_module("mine")
        importlib.import_module("direct_of_site")
    assert set(recorded.heavy()) == {"outer_of_site", "direct_of_site"}
    assert all(took_s >= HEAVY_S for took_s in recorded.heavy().values())
    assert not any(isinstance(each, Recording) for each in sys.meta_path)
    loader: Any = mine.outer_of_site.__spec__.loader
    assert "exec_module" not in vars(loader), "the loader is as it was"


def test_a_package_of_the_service_is_its_own_wherever_it_is(place: Path) -> None:
    (place / "site-packages" / "vendored.py").write_text(WORK)
    with Recording((str(place), str(place / "site-packages"))) as recorded:
        importlib.import_module("vendored")
    assert recorded.heavy() == {}


def test_an_import_that_fails_fails_as_ever(place: Path) -> None:
    (place / "site-packages" / "failing.py").write_text(WORK + "1 / 0")
    with Recording(()) as recorded, pytest.raises(ZeroDivisionError) as failure:
        importlib.import_module("failing")
    record = exceptions.describe(failure.value, "web", 1, "load")
    assert not [frame.file for frame in record.frames if frame.file.endswith("runtime/recording.py")]
    assert record.frames[-1].file.endswith("failing.py")
    with recorded, pytest.raises(ModuleNotFoundError):
        importlib.import_module("there_is_none")
    assert "failing" not in sys.modules


BLAS = """
import json, os, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
import numpy
from svcd.worker_runtime.forking import forked
del os.environ["OPENBLAS_NUM_THREADS"]
forked.look_around()
before = numpy.random.get_state()[1].tolist()
os.environ.update(json.loads(sys.argv[1]))
forked.settle()
after = numpy.random.get_state()[1].tolist()
print(json.dumps([len(forked._set_threads), len(os.listdir("/proc/self/task")), before == after]))
"""


@pytest.mark.parametrize(
    ("env", "threads"), [({}, None), ({"OPENBLAS_NUM_THREADS": "3"}, 3), ({"OMP_NUM_THREADS": "1"}, 1)]
)
def test_numpy_gets_its_threads_and_its_own_numbers(env: dict[str, str], threads: int | None) -> None:
    pytest.importorskip("numpy")
    done = subprocess.run(
        [sys.executable, "-c", BLAS, json.dumps(env)], capture_output=True, text=True, check=True, timeout=60
    )
    libraries, found, same = json.loads(done.stdout)
    assert not same
    if libraries:
        assert found == (forked._wanted_threads() if threads is None else threads)


@pytest.mark.parametrize("text", ["", "0", "-3", "many", "³"])
def test_a_number_of_threads_that_is_none_is_passed_over(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for name in forked.BLAS_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    usual = forked._wanted_threads()
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", text)
    assert forked._wanted_threads() == usual
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert forked._wanted_threads() == 7
