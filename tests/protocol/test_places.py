"""Places: where files are by default, who may use a run directory, who holds its lock."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcd.protocol import places
from svcd.protocol.places import ClusterRuns, NoClusterRuns, PlaceError, Places, SeveralClustersRun

UID = os.getuid()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    os.chmod(tmp_path, 0o700)
    return tmp_path


@pytest.fixture
def shop(base: Path) -> Places:
    return Places(base / "run" / "shop", base / "state" / "shop")


@pytest.fixture
def environ(base: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(base), "XDG_STATE_HOME": str(base / "state"), "HOME": str(base)}


@pytest.fixture
def held() -> Iterator[list[int]]:
    locks: list[int] = []
    yield locks
    for lock in locks:
        os.close(lock)


def test_defaults(base: Path) -> None:
    plain = Path("/run/svcd") if UID == 0 else Path(f"/tmp/svcd-{UID}")
    assert places.default_run_base({}, UID) == plain
    assert places.default_run_base({}, 12345) == Path("/tmp/svcd-12345")
    assert places.default_run_base({"XDG_RUNTIME_DIR": str(base)}, UID) == base / "svcd"
    assert places.default_state_base({"HOME": "/home/ann"}, 12345) == Path("/home/ann/.local/state/svcd")
    assert places.default_state_base({"XDG_STATE_HOME": "/x"}, 12345) == Path("/x/svcd")
    assert places.default_state_base({"XDG_STATE_HOME": "relative", "HOME": "/h"}, 12345) == Path(
        "/h/.local/state/svcd"
    )
    assert places.default_state_base({}, 0) == Path("/var/lib/svcd")


def test_a_runtime_directory_that_is_not_ours_does_not_count(base: Path) -> None:
    plain = Path("/tmp/svcd-54321")
    assert places.default_run_base({"XDG_RUNTIME_DIR": str(base)}, 54321) == plain
    assert places.default_run_base({"XDG_RUNTIME_DIR": str(base / "missing")}, 54321) == plain
    assert places.default_run_base({"XDG_RUNTIME_DIR": "relative"}, 54321) == plain


def test_resolve_prefers_arguments_then_environment(base: Path) -> None:
    environ = {"SVCD_RUN_DIR": "/r", "SVCD_STATE_DIR": "/s"}
    assert places.resolve("shop", "/a", "/b", environ) == Places(Path("/a"), Path("/b"))
    assert places.resolve("shop", None, None, environ) == Places(Path("/r"), Path("/s"))
    assert places.resolve("shop", "x", "/b", {}).run_dir == Path.cwd() / "x"
    found = places.resolve("shop", environ={"XDG_RUNTIME_DIR": str(base), "HOME": "/h"})
    assert found.run_dir == base / "svcd" / "shop"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "ä", "a" * 65, "a\n"])
def test_names_that_are_no_directories(name: str) -> None:
    with pytest.raises(PlaceError, match="as a cluster's name"):
        places.resolve(name, environ={})


def test_the_files() -> None:
    found = Places(Path("/r"), Path("/s"))
    assert [found.lock, found.cluster_json, found.control, found.events] == [
        Path("/r/lock"),
        Path("/r/cluster.json"),
        Path("/r/control"),
        Path("/r/events"),
    ]
    assert found.logs("web", "stdout") == Path("/s/logs/web/stdout.log")


def test_a_path_too_long_for_a_socket() -> None:
    places.check_socket_path("/" + "x" * 106)
    with pytest.raises(PlaceError, match=r"108 bytes, at most 107 .* --run-dir"):
        places.check_socket_path("/" + "x" * 107)
    with pytest.raises(PlaceError, match="--run-dir"):
        places.resolve("shop", "/" + "x" * 110, environ={})


def test_claim_and_release(shop: Places) -> None:
    lock = places.claim_lock(shop)
    try:
        assert shop.run_dir.stat().st_mode & 0o777 == 0o700
        assert shop.run_dir.parent.stat().st_mode & 0o777 == 0o700
        assert shop.lock.read_text() == f"{os.getpid()}\n"
        assert not os.get_inheritable(lock)
        with pytest.raises(ClusterRuns, match=f"pid {os.getpid()}") as caught:
            places.claim_lock(shop)
        assert (caught.value.pid, caught.value.run_dir) == (os.getpid(), shop.run_dir)
    finally:
        os.close(lock)
    os.close(places.claim_lock(shop))


def test_a_later_holder_writes_its_own_pid(shop: Places, held: list[int]) -> None:
    held.append(places.claim_lock(shop))
    places.record_pid(held[0], 7)
    assert shop.lock.read_text() == "7\n"


def test_a_lock_that_is_held_before_its_pid_is_written(shop: Places, held: list[int]) -> None:
    shop.run_dir.mkdir(parents=True, mode=0o700)
    held.append(os.open(shop.lock, os.O_RDWR | os.O_CREAT, 0o600))
    fcntl.flock(held[0], fcntl.LOCK_EX)
    with pytest.raises(ClusterRuns, match="just starting") as caught:
        places.claim_lock(shop)
    assert caught.value.pid is None


def test_a_lock_left_by_the_dead_is_free(shop: Places, held: list[int]) -> None:
    shop.run_dir.mkdir(parents=True, mode=0o700)
    shop.lock.write_text("999999999\n")
    held.append(places.claim_lock(shop))
    assert shop.lock.read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("text", ["", f"{os.getpid()}\n"], ids=["nobody's", "that of somebody who lives"])
def test_whoever_only_looks_does_not_keep_a_claim_out(shop: Places, text: str) -> None:
    """A look holds the lock shared for a moment; the claim outlasts it, however long a moment is there."""
    shop.run_dir.mkdir(parents=True, mode=0o700)
    shop.lock.write_text(text)
    looker = os.open(shop.lock, os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    code = (
        "import sys; from pathlib import Path; from svcd.protocol import places as p\n"
        "of, p._pid_in = p._pid_in, lambda lock: print('tried', flush=True) or of(lock)\n"
        "p.END_PATIENCE_S = p.BRIEF_PATIENCE_S = 0.0\n"
        "p.claim_lock(p.Places(Path(sys.argv[1]), Path('/'))); print('claimed')"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(shop.run_dir)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == "tried\n"
    os.close(looker)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.splitlines()[-1] == "claimed"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o500])
def test_a_directory_with_other_permissions_is_refused(shop: Places, mode: int) -> None:
    shop.run_dir.mkdir(parents=True)
    os.chmod(shop.run_dir, mode)
    with pytest.raises(PlaceError, match=f"its permissions are {mode:04o}, they must be 0700"):
        places.claim_lock(shop)


def test_a_directory_left_with_its_side_door_open_is_taken_and_closed(shop: Places) -> None:
    shop.run_dir.mkdir(parents=True)
    os.chmod(shop.run_dir, 0o711)
    os.close(places.claim_lock(shop))
    assert shop.run_dir.stat().st_mode & 0o777 == 0o700


def test_a_symbolic_link_is_refused(shop: Places, base: Path) -> None:
    (base / "elsewhere").mkdir(mode=0o700)
    shop.run_dir.parent.mkdir()
    shop.run_dir.symlink_to(base / "elsewhere")
    with pytest.raises(PlaceError, match="it is a symbolic link"):
        places.claim_lock(shop)


def test_a_lock_that_is_a_symbolic_link_is_refused(shop: Places, base: Path) -> None:
    shop.run_dir.mkdir(parents=True, mode=0o700)
    shop.lock.symlink_to(base / "victim")
    with pytest.raises(PlaceError, match=r"cannot open the lock .*/lock: it is a symbolic link"):
        places.claim_lock(shop)
    assert not (base / "victim").exists()


def test_a_file_in_the_way_is_refused(base: Path) -> None:
    (base / "file").write_text("")
    for run_dir in (base / "file", base / "file" / "below"):
        with pytest.raises(PlaceError, match="cannot use the run directory"):
            places.claim_lock(Places(run_dir, base))


def test_a_parent_that_others_may_write_to_is_refused(base: Path) -> None:
    (base / "open").mkdir()
    os.chmod(base / "open", 0o777)
    with pytest.raises(PlaceError, match="other users may write to"):
        places.claim_lock(Places(base / "open" / "run", base))
    os.chmod(base / "open", 0o1777)
    os.close(places.claim_lock(Places(base / "open" / "run", base)))


@pytest.mark.skipif(UID != 0, reason="needs root to give a directory away")
def test_a_directory_of_somebody_else_is_refused(shop: Places) -> None:
    shop.run_dir.mkdir(parents=True, mode=0o700)
    os.chown(shop.run_dir, 65534, 65534)
    with pytest.raises(PlaceError, match="it belongs to uid 65534"):
        places.claim_lock(shop)


def test_a_read_only_file_system_is_explained() -> None:
    with pytest.raises(PlaceError, match="cannot use the run directory /proc/svcd/x: "):
        places.claim_lock(Places(Path("/proc/svcd/x"), Path("/")))


def claim(environ: dict[str, str], name: str, held: list[int]) -> None:
    held.append(places.claim_lock(places.resolve(name, environ=environ)))


def test_who_runs(environ: dict[str, str], base: Path, held: list[int]) -> None:
    assert [each for each in places.running_clusters(environ) if base in each.run_dir.parents] == []
    claim(environ, "shop", held)
    claim(environ, "lab", held)
    (base / "svcd" / "dead").mkdir(mode=0o700)
    (base / "svcd" / "dead" / "lock").write_text("1\n")
    (base / "svcd" / "file").write_text("")
    running = [each for each in places.running_clusters(environ) if base in each.run_dir.parents]
    assert [(each.name, each.pid) for each in running] == [("lab", os.getpid()), ("shop", os.getpid())]


def test_which_one_is_meant(environ: dict[str, str], base: Path, held: list[int]) -> None:
    with pytest.raises(NoClusterRuns, match="cluster shop does not run"):
        places.find_running("shop", environ=environ)
    claim(environ, "shop", held)
    assert places.find_running("shop", environ=environ).run_dir == base / "svcd" / "shop"
    claim(environ, "lab", held)
    with pytest.raises(SeveralClustersRun, match=r"lab \(pid \d+\), .*shop \(pid \d+\).*--cluster NAME"):
        places.find_running(environ=environ)
    run_dir = base / "svcd" / "lab"
    assert places.find_running(run_dir=run_dir, environ=environ).name == "lab"
    assert places.find_running(environ={**environ, "SVCD_RUN_DIR": str(run_dir)}).name == "lab"
    assert places.find_running("shop", environ={**environ, "SVCD_RUN_DIR": str(run_dir)}).name == "shop"
    with pytest.raises(NoClusterRuns, match="no cluster runs in"):
        places.find_running(run_dir=base / "nowhere", environ=environ)


def test_a_base_that_is_a_symbolic_link_is_not_looked_into(
    environ: dict[str, str], base: Path, held: list[int]
) -> None:
    claim(environ, "shop", held)
    other = base / "other"
    other.mkdir()
    (other / "svcd").symlink_to(base / "svcd")
    running = places.running_clusters({"XDG_RUNTIME_DIR": str(other)})
    assert [each for each in running if other in each.run_dir.parents] == []


def test_a_lock_whose_file_an_ending_holder_removed_is_worth_nothing(
    shop: Places, held: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening of the file and our lock on it, the holder before us removes it and ends."""
    take = places._take

    def take_late(lock: int, how: int = fcntl.LOCK_EX) -> bool:
        monkeypatch.setattr(places, "_take", take)
        shop.lock.unlink()
        return take(lock)

    monkeypatch.setattr(places, "_take", take_late)
    held.append(places.claim_lock(shop))
    assert places.running_at(shop.run_dir) is not None
    assert shop.lock.stat().st_ino == os.fstat(held[0]).st_ino
