"""The clusters in configs/: each is valid, and each of the larger ones does in a run what it says.

Must not repeat the README's walk-through: test_readme does that.
"""

from __future__ import annotations

import os
import shutil
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import ROOT, Cluster, free_ports, wait_until

CONFIGS = sorted(str(path.relative_to(ROOT / "configs")) for path in (ROOT / "configs").rglob("*.yaml"))


def need(*programs: str) -> None:
    """Skip, and say why, where a Debian package is missing."""
    path = os.environ.get("PATH", "") + ":/usr/sbin"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)} (Debian packages; .ci/run installs them)")


def copy_configs(cluster: Cluster) -> Path:
    """The clusters in a directory of the test's own, without what a run may have left beside the originals."""
    return Path(
        shutil.copytree(
            ROOT / "configs", cluster.directory / "configs", ignore=shutil.ignore_patterns("data", "__pycache__")
        )
    )


def choose_ports(cluster: Cluster, *names: str) -> dict[str, int]:
    """Free ports, in the environment variables ``names``."""
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    cluster.environ.update({name: str(port) for name, port in ports.items()})
    return ports


def get(url: str, body: str | None = None) -> tuple[int, str]:
    request = urllib.request.Request(url, data=None if body is None else body.encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_file_is_valid(cluster: Cluster, name: str) -> None:
    if name == "stack.yaml":
        need("redis-server", "nginx")
    copy_configs(cluster)
    cluster.svcd("validate", f"configs/{name}")
    assert cluster.svcd("graph", f"configs/{name}").out


@pytest.mark.parametrize("name", ["minimal.yaml", "python.yaml"])
def test_the_small_ones_run_and_drain(cluster: Cluster, name: str) -> None:
    cluster.start(copy_configs(cluster) / name)
    assert set(cluster.states().values()) == {"running"}
    for service in cluster.states():
        wait_until(
            lambda service=service: cluster.output(service) + cluster.output(service, "stderr"), f"output of {service}"
        )
    assert cluster.drain() == 0


def test_policies_show_what_they_say(cluster: Cluster) -> None:
    cluster.start(copy_configs(cluster) / "policies.yaml", wait=None)
    cluster.wait_state("patient", "running")
    assert cluster.states()["by-hand"] == "unloaded"
    assert cluster.wait_state("flaky", "backoff").cause
    cluster.svcd("start", "by-hand")
    assert cluster.drain() == 0


def test_quickstart(cluster: Cluster) -> None:
    ports = choose_ports(cluster, "API_PORT", "STORE_PORT")
    url = f"http://127.0.0.1:{ports['API_PORT']}"
    cluster.start(copy_configs(cluster) / "quickstart.yaml")
    assert cluster.states() == {"setup": "completed", "store": "running", "api": "running", "ticker": "running"}
    assert get(f"{url}/notes") == (200, "try svcd\n")
    assert get(f"{url}/notes", "water the plants") == (201, "2 notes\n")
    assert get(f"{url}/nowhere")[0] == 404
    wait_until(lambda: b"2 notes, the last one: water the plants" in cluster.output("ticker"), "ticker to have seen it")

    before, mark = cluster.row("ticker"), cluster.mark()
    os.kill(cluster.pid_of("store"), signal.SIGKILL)
    cluster.wait_state("ticker", "running", after=before.invocation)
    trace = cluster.since(mark)
    assert [each.service for each in trace if each.new == "stopping"] == ["ticker", "api"]
    assert [each.service for each in trace if each.new == "running"] == ["store", "api", "ticker"]
    assert get(f"{url}/notes") == (200, "try svcd\nwater the plants\n"), "what was acknowledged must be kept"

    mark = cluster.mark()
    assert cluster.drain() == 0
    assert [each.service for each in cluster.since(mark) if each.new == "stopped"] == ["ticker", "api", "store"]


def test_shop_answers_whatever_comes(cluster: Cluster) -> None:
    url = f"http://127.0.0.1:{choose_ports(cluster, 'SHOP_PORT')['SHOP_PORT']}"
    cluster.start(copy_configs(cluster) / "shop" / "cluster.yaml")
    assert get(url) == (200, "tea 4.50\nbread 3.20\njam 5.90\n")
    for page, form, answer in (
        ("orders", "user=ann&product=tea", (201, "order 1: tea for 4.50\n")),
        ("orders", "user=ann&product=gold", (404, "there is no gold: try tea, bread, jam\n")),
        ("orders", "user=ann", (400, "the form lacks product\n")),
        ("orders", f"user={'a' * 5000}", (400, "a form has at most 4096 bytes\n")),
        ("orders", "user=%", (400, "the form lacks product\n")),
        ("basket", "user=ann", (404, "try /orders\n")),
    ):
        assert get(f"{url}/{page}", form) == answer
    before = cluster.row("web")
    os.kill(cluster.pid_of("catalog"), signal.SIGKILL)
    assert get(url)[0] in (200, 503), "svcd holds the socket: whatever happens behind it, nobody is refused"
    cluster.wait_state("web", "running", after=before.invocation)
    assert get(url)[0] == 200
    assert cluster.drain() == 0
    assert cluster.output("web", "stderr") == b""


def test_stack(cluster: Cluster) -> None:
    need("redis-server", "nginx")
    pytest.importorskip("redis", reason="needs pip install 'svcd[stack]'")
    ports = choose_ports(cluster, "FRONT_PORT", "WEB_PORT", "REDIS_PORT")
    url = f"http://127.0.0.1:{ports['FRONT_PORT']}"
    cluster.start(copy_configs(cluster) / "stack.yaml")
    assert get(f"{url}/") == (200, "visit number 1\n")
    assert get(f"{url}/jobs", "shout") == (202, "queued\n")
    wait_until(lambda: get(f"{url}/jobs")[1] == "waiting 0, done 1\n", "the worker to have done it")
    wait_until(lambda: b"did 'shout'" in cluster.output("worker"), "the worker's word")

    before, front, mark = cluster.row("worker"), cluster.row("front"), cluster.mark()
    os.kill(cluster.pid_of("redis"), signal.SIGKILL)
    cluster.wait_state("worker", "running", after=before.invocation)
    trace = cluster.since(mark)
    assert [each.service for each in trace if each.new == "stopping"] == ["worker", "web"]
    assert [each.service for each in trace if each.new == "running"] == ["redis", "web", "worker"]
    assert cluster.row("front").pid == front.pid, "front only wants web: it stays"
    assert get(f"{url}/") == (200, "visit number 2\n"), "redis keeps what it was told"

    cluster.svcd("stop", "web")
    assert get(f"{url}/")[0] == 503
    cluster.svcd("start", "web", "worker")
    assert get(f"{url}/") == (200, "visit number 3\n")

    mark = cluster.mark()
    assert cluster.drain() == 0
    stopped = [each.service for each in cluster.since(mark) if each.new == "stopped"]
    assert sorted(stopped) == ["front", "redis", "web", "worker"]
    assert stopped.index("worker") < stopped.index("web") < stopped.index("redis")
    assert stopped.index("front") < stopped.index("web")


MakeCluster = Callable[[str], Cluster]


def test_a_job_in_hand_survives_the_workers_crash(cluster: Cluster) -> None:
    need("redis-server", "nginx")
    pytest.importorskip("redis", reason="needs pip install 'svcd[stack]'")
    ports = choose_ports(cluster, "FRONT_PORT", "WEB_PORT", "REDIS_PORT")
    url = f"http://127.0.0.1:{ports['FRONT_PORT']}"
    cluster.start(copy_configs(cluster) / "stack.yaml")
    worker = cluster.row("worker")
    os.kill(worker.pid or 0, signal.SIGSTOP)
    for number in range(5):
        assert get(f"{url}/jobs", f"job {number}")[0] == 202
    os.kill(worker.pid or 0, signal.SIGKILL)
    wait_until(lambda: get(f"{url}/jobs")[1] == "waiting 0, done 5\n", "every job to be done")
