"""``svcd start``: a cluster from its files, in the foreground or the background; or services of one that runs.

Must not supervise: it validates, takes the lock, leaves the validated cluster in the run directory and becomes
the guardian.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib.util import find_spec
from typing import Any, Final

import click

from svcd.cli.client import Client
from svcd.cli.failures import Exit, Failure
from svcd.cli.options import print_json, targeted, waiting
from svcd.cli.target import Target
from svcd.protocol import places
from svcd.protocol.messages import GetStatus, StartServices, StatusReported
from svcd.protocol.places import ClusterRuns, PlaceError, Places

ENDINGS: Final = (".yaml", ".yml")
PAUSE_S: Final = 0.02
LOG_LINES: Final = 10
SETTLED: Final = frozenset({"running", "completed", "failed", "unavailable", "stopped", "unloaded"})


def is_file(word: str) -> bool:
    """An existing file, an ending of YAML, or a slash makes it a FILE; all else is a NAME."""
    return word.endswith(ENDINGS) or "/" in word or os.path.isfile(word)


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="FILE...|NAME...")
@click.option("-d", "--detach", is_flag=True, help="Return when all is up (exit 0) or something has failed (exit 3).")
@waiting
@targeted
def start(
    target: Target, words: tuple[str, ...], detach: bool, wait: bool, timeout_s: float | None, as_json: bool
) -> None:
    """Start a cluster from its FILEs, or NAMEd services of the one that runs with all that they require.

    In the foreground it shows progress and output; Ctrl-C drains, a second one shortens every stop to a second.

    \b
    svcd start cluster.yaml              in the foreground
    svcd start base.yaml prod.yaml -d    two layers, in the background
    svcd start api                       in the cluster that runs already
    """
    files = [each for each in words if is_file(each)]
    if files and len(files) != len(words):
        name = next(each for each in words if each not in files)
        raise click.UsageError(f"{files[0]} is a file and {name} is a name: start either files or services")
    if not files:
        _start_services(target, words, wait, timeout_s, as_json)
        return
    from svcd.cli.checks import load_files  # noqa: PLC0415 - brings YAML and pydantic

    cluster = load_files(words)
    spot = target.resolve(cluster.name)
    lock = _claim(spot, cluster.name)
    _write_down(spot, cluster)
    if detach:
        _detach(spot, cluster, lock, wait, timeout_s, as_json)
    else:
        _become_guardian(spot, cluster, lock, console=not as_json)


def _start_services(target: Target, names: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool) -> None:
    from svcd.cli.orders import give  # noqa: PLC0415

    with target.connect() as client:
        give(client, StartServices(names), wait, timeout_s, as_json)


# ---- the ground -----------------------------------------------------------------------------------------------------


def _claim(spot: Places, cluster: str) -> int:
    try:
        return places.claim_lock(spot)
    except ClusterRuns as error:
        raise Failure(
            f"cannot start {cluster}: it runs already (pid {error.pid}, run directory {spot.run_dir})"
        ) from None
    except PlaceError as error:
        raise Failure(f"cannot start {cluster}: {error}", Exit.OTHER) from None


def _write_down(spot: Places, cluster: Any) -> None:
    """Leave the validated cluster for the controller, and make the state directory."""
    from svcd.supervisor.config import plan  # noqa: PLC0415

    try:
        os.makedirs(spot.state_dir, mode=0o700, exist_ok=True)
        (spot.state_dir / "logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        _give_up_ground(spot)
        raise Failure(
            f"cannot start {cluster.name}: cannot make the state directory {spot.state_dir}: {error.strerror}"
        ) from None
    draft = spot.run_dir / "cluster.json.new"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(plan.to_json(cluster))
    os.replace(draft, spot.cluster_json)


def _give_up_ground(spot: Places) -> None:
    for path in (spot.lock, spot.cluster_json):
        path.unlink(missing_ok=True)
    try:
        spot.run_dir.rmdir()
    except OSError:
        pass


# ---- the guardian ----------------------------------------------------------------------------------------------------


def _become_guardian(spot: Places, cluster: Any, lock: int, console: bool) -> None:
    """Replace this process: its pid is the one to send SIGTERM to."""
    from svcd.supervisor.config.launch import PythonCode  # noqa: PLC0415

    guardian = find_spec("svcd.supervisor.guardian")
    if guardian is None or guardian.origin is None:
        raise Failure("the installation of svcd is incomplete: svcd/supervisor/guardian.py is missing")
    if console:
        _note_sizes(spot)
    runs = [each.launch.run for each in cluster.services]
    argument = {
        "cluster": cluster.name,
        "run_dir": str(spot.run_dir),
        "state_dir": str(spot.state_dir),
        "python": sys.executable,
        "site": [os.path.abspath(each) for each in sys.path if each],
        "lock_fd": lock,
        "console": console,
        "python_services": any(isinstance(each, PythonCode) and each.interpreter is None for each in runs),
    }
    os.set_inheritable(lock, True)
    places.record_pid(lock, os.getpid())
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-I", "-S", guardian.origin, json.dumps(argument)])


def _note_sizes(spot: Places) -> None:
    """How large the log files are before this run: the console shows what comes after that."""
    sizes = {str(path): path.stat().st_size for path in spot.state_dir.glob("logs/*/*.log")}
    (spot.run_dir / "console.json").write_text(json.dumps(sizes))


def _detach(spot: Places, cluster: Any, lock: int, wait: bool, timeout_s: float | None, as_json: bool) -> None:
    """Fork the guardian into a session of its own, then watch until everything has settled."""
    log = os.open(spot.daemon_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    began = os.fstat(log).st_size
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for fd, own in ((null, 0), (log, 1), (log, 2)):
                os.dup2(fd, own)
            _become_guardian(spot, cluster, lock, console=False)
        except BaseException as error:
            os.write(2, f"svcd: cannot start: {error}\n".encode())
        finally:
            os._exit(int(Exit.OTHER))
    os.close(log)
    os.close(lock)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    report = _watch(spot, pid, began, wait, deadline)
    if report is None:
        raise Failure(f"not up within {timeout_s:g} s; it goes on in the background (pid {pid})", Exit.NOT_AS_DESIRED)
    _show(report, as_json)


def _watch(spot: Places, pid: int, began: int, wait: bool, deadline: float | None) -> StatusReported | None:
    """The status once all is settled (or, without ``wait``, once there is one); None at the deadline."""
    with Client(spot.run_dir) as client:
        client.subscribe()
        while deadline is None or time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                raise Failure(_early_end(spot, os.waitstatus_to_exitcode(status), began))
            if spot.control.exists():
                report = client.ask(GetStatus(), StatusReported)
                if not wait or is_settled(report):
                    return report
                client.next_event(0.5)
            else:
                time.sleep(PAUSE_S)
    return None


def is_settled(report: StatusReported) -> bool:
    """Everything is up, or has failed, or waits for what has failed: the boot is over."""
    return report.state != "starting"


def _early_end(spot: Places, code: int, began: int) -> str:
    try:
        with open(spot.daemon_log, "rb") as file:
            file.seek(began)
            lines = file.read(65536).decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    except OSError:
        lines = []
    return "\n".join(
        [f"the daemon ended at once (exit code {code}); see {spot.daemon_log}", *(f"  {each}" for each in lines)]
    )


def _show(report: StatusReported, as_json: bool) -> None:
    from svcd.cli.status import as_dict, is_as_desired, lines  # noqa: PLC0415

    if as_json:
        print_json(as_dict(report))
    else:
        click.echo("\n".join(lines(report)))
    sys.exit(Exit.OK if all(map(is_as_desired, report.services)) else Exit.NOT_AS_DESIRED)
