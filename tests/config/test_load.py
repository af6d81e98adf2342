"""What a right cluster.yaml means: defaults, merging, environment, paths."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from svcd.supervisor import child_setup
from svcd.supervisor.config import programs
from svcd.supervisor.config.launch import (
    ClusterSpec,
    HealthProbe,
    HookCommand,
    HttpTarget,
    LaunchSpec,
    LogPolicy,
    Program,
    PythonCode,
    ReadyProbe,
    Schedule,
    SocketSpec,
    StatePolicy,
)
from svcd.supervisor.config.load import load
from svcd.supervisor.core.spec import (
    Backoff,
    Condition,
    Dependency,
    DependencyKind,
    HealthAction,
    HealthPolicy,
    Hook,
    Intensity,
    OnCrash,
    Overlap,
    PausePolicy,
    ReadyKind,
    RestartMode,
    RestartPolicy,
    RunEnd,
    Runner,
    ServiceSpec,
    ServiceType,
    StartMode,
    StopPolicy,
)

ENVIRON = {"PATH": "/usr/bin:/bin", "EMPTY": "", "PORT": "8080", "NAME": "api"}

Load = Callable[..., ClusterSpec]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "shop"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def cluster(shop: Path) -> Load:
    """Load a cluster from the text of its layers."""

    def read(*layers: str) -> ClusterSpec:
        files = []
        for index, text in enumerate(layers):
            Path(f"layer{index}.yaml").write_text(text)
            files.append(f"layer{index}.yaml")
        return load(files, ENVIRON)

    return read


def only(cluster: ClusterSpec) -> tuple[ServiceSpec, LaunchSpec]:
    (definition,) = cluster.services
    return definition.spec, definition.launch


def service(lines: str) -> str:
    return "services:\n  web:\n" + "".join(f"    {line}\n" for line in lines.split("\n"))


def test_the_least_that_runs_has_the_defaults_of_the_core(cluster: Load, shop: Path) -> None:
    found = cluster("services: {web: {command: [sleep, 5]}}")
    assert (found.name, found.files) == ("shop", (str(shop / "layer0.yaml"),))
    assert (found.max_parallel, found.controller_timeout_s) == (0, 30.0)
    spec, launch = only(found)
    assert spec == ServiceSpec("web")
    assert launch == LaunchSpec(Program(("sleep", "5")), str(shop), ENVIRON)


REFERENCE = """\
cluster: shop
include: []
max_parallel: 0
controller_timeout: 30s
services:
  web:
    command: [sleep, 5]
    workdir: .
    env: {}
    env_file: []
    user: null
    group: null
    umask: "022"
    tags: []
    depends_on: []
    ready: {immediate: true, timeout: 60s, interval: 100ms}
    health: null
    watchdog: null
    restart:
      policy: on-failure
      backoff: {initial: 100ms, factor: 2, max: 30s, jitter: 0.1}
      intensity: {restarts: 5, within: 60s}
      reset_after: 10s
      success_codes: [0]
      prevent_codes: []
    stop:
      signal: SIGTERM
      timeout: 10s
      drain_timeout: 10s
      drain_grace: 0s
    essential: false
    fallback: null
    start: eager
    idle_timeout: null
    sockets: []
    instances: 1
    type: service
    schedule: null
    hooks: {}
    pause: {signal: null, resume_signal: null}
    logs: {max_size: 10MiB, keep: 5, max_age: null, compress: false, merge_stderr: false, driver: file}
    preload: []
    state: none
    version: null
    update: restart
    runtime: {compute_threads: 2, max_blocking_threads: 8, stack_size: 2MiB, thread_prefix: compute}
    permissions: {services: [], spawn: false}
"""


def test_defaults_written_out_change_nothing(cluster: Load) -> None:
    written, least = cluster(REFERENCE), cluster("services: {web: {command: [sleep, 5], umask: '022'}}")
    assert written.services == least.services
    assert (written.name, written.max_parallel, written.controller_timeout_s) == (
        least.name,
        least.max_parallel,
        least.controller_timeout_s,
    )


def test_everything_else_than_the_defaults(cluster: Load, shop: Path) -> None:
    spec, launch = only(
        cluster(
            service(
                """\
command: exec sleep 5
type: task
start: manual
umask: "077"
tags: [a, 1]
ready: {tcp: "[::1]:6379", timeout: 1m30s}
restart:
  policy: always
  backoff: {initial: 0, factor: 1.5, max: 2h, jitter: 0}
  intensity: {restarts: unlimited, within: 0.5s}
  reset_after: 0
  success_codes: [0, 3]
  prevent_codes: [78, KILL, SIGSEGV]
stop: {signal: 2, timeout: 250ms}
logs: {max_size: 1MB, keep: 0, merge_stderr: true, driver: none}"""
            )
        )
    )
    assert spec == ServiceSpec(
        "web",
        type=ServiceType.TASK,
        start=StartMode.MANUAL,
        ready=ReadyKind.TCP,
        ready_timeout_s=90.0,
        restart=RestartPolicy(
            RestartMode.ALWAYS,
            Backoff(0.0, 1.5, 7200.0, 0.0),
            Intensity(None, 0.5),
            0.0,
            frozenset({0, 3}),
            frozenset({78}),
            frozenset({9, 11}),
        ),
        stop=StopPolicy(2, 0.25),
    )
    assert launch == LaunchSpec(
        Program(("/bin/sh", "-c", "exec sleep 5")),
        str(shop),
        ENVIRON,
        umask=0o077,
        logs=LogPolicy("none", 1_000_000, 0, True),
        probe=ReadyProbe(tcp_host="::1", tcp_port=6379),
        tags=("a", "1"),
    )


def test_tasks_are_not_restarted_unless_they_say_so(cluster: Load) -> None:
    assert only(cluster(service("command: [sleep]\ntype: task")))[0].restart.mode is RestartMode.NEVER
    written = cluster(service("command: [sleep]\ntype: task\nrestart: {policy: on-failure}"))
    assert only(written)[0].restart.mode is RestartMode.ON_FAILURE


READY = {
    "immediate": (ReadyKind.IMMEDIATE, ReadyProbe(), 60.0),
    "notify": (ReadyKind.NOTIFY, ReadyProbe(), 60.0),
    "{notify: true, timeout: 5s}": (ReadyKind.NOTIFY, ReadyProbe(), 5.0),
    "{delay: 300ms}": (ReadyKind.DELAY, ReadyProbe(delay_s=0.3), 60.0),
    "{delay: 2m}": (ReadyKind.DELAY, ReadyProbe(delay_s=120.0), 180.0),
    "{tcp: 'localhost:80'}": (ReadyKind.TCP, ReadyProbe(tcp_host="localhost", tcp_port=80), 60.0),
    "{tcp: 'localhost:80', interval: 1s}": (
        ReadyKind.TCP,
        ReadyProbe(tcp_host="localhost", tcp_port=80, interval_s=1.0),
        60.0,
    ),
    "{notification-fd: 3}": (ReadyKind.NOTIFICATION_FD, ReadyProbe(notification_fd=3), 60.0),
    "{http: 'http://[::1]:80/ok?a=b'}": (ReadyKind.HTTP, ReadyProbe(http=HttpTarget("http://[::1]:80/ok?a=b")), 60.0),
    "{http: 'HTTPS://x', status: 204, body: '^o[k]', interval: 50ms}": (
        ReadyKind.HTTP,
        ReadyProbe(http=HttpTarget("HTTPS://x", 204, "^o[k]"), interval_s=0.05),
        60.0,
    ),
    "{exec: [sleep, 0], interval: 200ms}": (
        ReadyKind.EXEC,
        ReadyProbe(argv=("sleep", "0"), interval_s=0.2),
        60.0,
    ),
    "{exec: sleep 0}": (ReadyKind.EXEC, ReadyProbe(argv=("/bin/sh", "-c", "sleep 0")), 60.0),
    "{log: 'ready to (accept|serve)', timeout: 5s}": (
        ReadyKind.LOG,
        ReadyProbe(pattern="ready to (accept|serve)"),
        5.0,
    ),
    "{timeout: 5s}": (ReadyKind.IMMEDIATE, ReadyProbe(), 5.0),
    "null": (ReadyKind.IMMEDIATE, ReadyProbe(), 60.0),
}


@pytest.mark.parametrize("text", READY)
def test_readiness(cluster: Load, text: str) -> None:
    spec, launch = only(cluster(service(f"command: [sleep]\nready: {text}")))
    assert (spec.ready, launch.probe, spec.ready_timeout_s) == READY[text]


HEALTH = {
    "{http: 'http://x/ok'}": (HealthPolicy(), HealthProbe(http=HttpTarget("http://x/ok"))),
    "{tcp: 'x:1', interval: 1s, timeout: 2s}": (
        HealthPolicy(),
        HealthProbe(tcp_host="x", tcp_port=1, interval_s=1.0, timeout_s=2.0),
    ),
    "{exec: [sleep, 0], failure_threshold: 5, success_threshold: 2, start_period: 1m, on_failure: report}": (
        HealthPolicy(5, 2, 60.0, HealthAction.REPORT),
        HealthProbe(argv=("sleep", "0")),
    ),
}


@pytest.mark.parametrize("text", HEALTH)
def test_health(cluster: Load, text: str) -> None:
    spec, launch = only(cluster(service(f"command: [sleep]\nhealth: {text}")))
    assert (spec.health, launch.health) == HEALTH[text]


def test_a_method_tells_the_health_of_a_python_service(cluster: Load) -> None:
    spec, launch = only(cluster(service("python: a:b\nhealth: {rpc: healthy}\nstart: preload\nwatchdog: 5s")))
    assert (spec.health, launch.health) == (HealthPolicy(), HealthProbe(method="healthy"))
    assert (spec.start, spec.watchdog_s) == (StartMode.PRELOAD, 5.0)


def test_the_rest_of_supervision(cluster: Load, shop: Path) -> None:
    spec, launch = only(
        cluster(
            service(
                """\
command: [sleep]
start: on_demand
watchdog: 1.5s
essential: true
sockets:
  - {listen: "127.0.0.1:20021"}
  - {name: b, listen: "*:20022", type: dgram}
  - {name: c, listen: "unix:run.sock", mode: "0600"}
  - {name: d, listen: "[::1]:20023"}
hooks:
  pre_start: {command: [sleep, 1], timeout: 5s}
  post_start: sleep 2
  pre_stop: [sleep, 3]
  post_stop: {command: sleep 4}
  on_failure: ["true", ~]
pause: {signal: USR1, resume_signal: 12}
restart: {by_cause: {exit: never, signal: always, start: on-failure, health: always, watchdog: never}}"""
            )
        )
    )
    assert (spec.start, spec.watchdog_s, spec.essential) == (StartMode.ON_DEMAND, 1.5, True)
    assert spec.hooks == frozenset(Hook)
    assert spec.pause == PausePolicy(10, 12)
    assert spec.restart.by_cause == (
        (RunEnd.EXIT, RestartMode.NEVER),
        (RunEnd.SIGNAL, RestartMode.ALWAYS),
        (RunEnd.START, RestartMode.ON_FAILURE),
        (RunEnd.HEALTH, RestartMode.ALWAYS),
        (RunEnd.WATCHDOG, RestartMode.NEVER),
    )
    assert launch.hooks == {
        "pre_start": HookCommand(("sleep", "1"), 5.0),
        "post_start": HookCommand(("/bin/sh", "-c", "sleep 2")),
        "pre_stop": HookCommand(("sleep", "3")),
        "post_stop": HookCommand(("/bin/sh", "-c", "sleep 4")),
        "on_failure": HookCommand(("true", "~")),
    }
    assert launch.sockets == (
        SocketSpec("web", host="127.0.0.1", port=20021),
        SocketSpec("b", "dgram", port=20022),
        SocketSpec("c", path=str(shop / "run.sock"), mode=0o600),
        SocketSpec("d", host="::1", port=20023),
    )


def test_an_idle_timeout(cluster: Load) -> None:
    text = "command: [sleep]\nstart: on_demand\nidle_timeout: 5m\nsockets: [{listen: '127.0.0.1:20021'}]"
    assert only(cluster(service(text)))[1].idle_timeout_s == 300.0


SCHEDULES = {
    '" */5  *  * * 1-5 "': (Schedule(cron="*/5 * * * 1-5"), Overlap.SKIP),
    '{cron: "0 4 * * *", overlap: queue}': (Schedule(cron="0 4 * * *"), Overlap.QUEUE),
    "{every: 10m, overlap: kill}": (Schedule(every_s=600.0), Overlap.KILL),
}


@pytest.mark.parametrize("text", SCHEDULES)
def test_a_scheduled_task_waits_for_its_time(cluster: Load, text: str) -> None:
    spec, launch = only(cluster(service(f"command: [sleep]\ntype: task\nschedule: {text}")))
    assert (launch.schedule, spec.overlap) == SCHEDULES[text]
    assert (spec.scheduled, spec.start) == (True, StartMode.MANUAL)


def test_a_fallback_and_a_healthy_dependency(cluster: Load) -> None:
    found = cluster(
        """\
services:
  web: {command: [sleep], depends_on: {db: {condition: healthy}}}
  db: {command: [sleep], health: {exec: [sleep]}, fallback: copy}
  copy: {command: [sleep], depends_on: {db: {kind: after}}}
"""
    )
    assert found.services[0].spec.dependencies == (Dependency("db", condition=Condition.HEALTHY),)
    assert found.services[1].spec.fallback == "copy"


def test_dependencies_short_and_long(cluster: Load) -> None:
    found = cluster(
        """\
services:
  web: {command: [sleep], depends_on: [db]}
  db:
    command: [sleep]
    depends_on: {cache: {kind: wants}, setup: {condition: completed}, 7: , log: {on_crash: notify}}
  cache: {command: [sleep]}
  setup: {command: [sleep], type: task}
  7: {command: [sleep]}
  log: {command: [sleep], depends_on: {7: {kind: after, condition: spawned}}}
"""
    )
    edges = {each.spec.name: each.spec.dependencies for each in found.services}
    assert list(edges) == ["web", "db", "cache", "setup", "7", "log"]
    assert edges["web"] == (Dependency("db"),)
    assert edges["db"] == (
        Dependency("cache", DependencyKind.WANTS),
        Dependency("setup", condition=Condition.COMPLETED),
        Dependency("7"),
        Dependency("log", on_crash=OnCrash.NOTIFY),
    )
    assert edges["log"] == (Dependency("7", DependencyKind.AFTER, Condition.SPAWNED),)


def test_short_dependencies_may_be_numbers(cluster: Load) -> None:
    found = cluster("services: {7: {command: [sleep]}, web: {command: [sleep], depends_on: [7]}}")
    assert found.services[1].spec.dependencies == (Dependency("7"),)


# ---- Python --------------------------------------------------------------------------------------------------------


def test_python_code(cluster: Load, shop: Path) -> None:
    Path("lib").mkdir()
    spec, launch = only(
        cluster(service("python: shop.web:Web\nworkdir: lib\nconfig: {port: 80, deep: [{a: null}], 022: yes}"))
    )
    assert (spec.runner, spec.ready) == (Runner.PYTHON, ReadyKind.STARTED)
    config = {"port": 80, "deep": [{"a": None}], "022": "yes"}
    assert launch.run == PythonCode(entry="shop.web:Web", path=(str(shop / "lib"),), config=config)


def test_a_script_finds_its_neighbours(cluster: Load, shop: Path) -> None:
    Path("jobs").mkdir()
    Path("jobs/run.py").touch()
    spec, launch = only(cluster(service("script: jobs/run.py")))
    assert spec.ready is ReadyKind.IMMEDIATE
    assert launch.run == PythonCode(script=str(shop / "jobs/run.py"), path=(str(shop / "jobs"), str(shop)))


def test_code_with_path_and_interpreter(cluster: Load, shop: Path) -> None:
    Path("lib").mkdir()
    Path("python").symlink_to("/bin/sh")
    spec, launch = only(cluster(service("code: |\n  def main(ctx):\n    pass\npath: [lib, .]\ninterpreter: ./python")))
    assert spec.ready is ReadyKind.STARTED
    assert launch.run == PythonCode(
        code="def main(ctx):\n  pass\n", path=(str(shop / "lib"), str(shop)), interpreter=str(shop / "python")
    )


def test_modules_to_preload_are_kept_as_written(cluster: Load) -> None:
    _, launch = only(cluster(service("python: a:b\npreload: [numpy, scipy.sparse]")))
    assert isinstance(launch.run, PythonCode)
    assert (launch.run.preload, launch.run.preload_auto) == (("numpy", "scipy.sparse"), False)
    _, launch = only(cluster(service("python: a:b\npreload: auto")))
    assert isinstance(launch.run, PythonCode)
    assert (launch.run.preload, launch.run.preload_auto) == ((), True)


def test_preload_of_the_defaults_is_for_services_that_are_forked(cluster: Load) -> None:
    found = cluster(
        """
        defaults: {preload: [json]}
        services:
          forked: {python: "a:b"}
          without: {python: "a:b", preload: []}
          foreign: {python: "a:b", interpreter: sh}
          program: {command: [sleep, 5]}
        """
    )
    preloads = [each.launch.run.preload for each in found.services if isinstance(each.launch.run, PythonCode)]
    assert preloads == [("json",), (), ()]


def test_an_interpreter_by_name_is_looked_up(cluster: Load) -> None:
    _, launch = only(cluster(service("python: a:b\ninterpreter: sh")))
    assert isinstance(launch.run, PythonCode)
    assert launch.run.interpreter in ("/usr/bin/sh", "/bin/sh")


def test_code_for_another_interpreter_is_not_compiled_here(cluster: Load) -> None:
    only(cluster(service("code: print 'another Python'\ninterpreter: sh")))


# ---- environment ---------------------------------------------------------------------------------------------------


def test_environment_in_its_order(cluster: Load) -> None:
    Path("a.env").write_text("A=file-a\nB=file-a\nC=file-a\nD=file-a\nE=file-a\n")
    Path("b.env").write_text("B=file-b\nC=file-b\nD=file-b\n")
    _, launch = only(
        cluster(
            """\
defaults: {env_file: a.env, env: {C: defaults, D: defaults, PORT: null}}
services: {web: {command: [sleep], env_file: [b.env], env: {D: own}}}
"""
        )
    )
    own = {"A": "file-a", "B": "file-b", "C": "defaults", "D": "own", "E": "file-a"}
    assert launch.env == {**own, "PATH": "/usr/bin:/bin", "EMPTY": "", "NAME": "api"}


def test_text_stays_as_it_was_written(cluster: Load) -> None:
    _, launch = only(
        cluster(
            service(
                "command: [echo, 022, 1.10, ~, null, yes, TRUE, '', 1e3]\n"
                "env: {A: 022, B: 1.10, C: True, D: yes, E: ''}"
            )
        )
    )
    assert launch.run == Program(("echo", "022", "1.10", "~", "null", "yes", "TRUE", "", "1e3"))
    assert launch.env == {**ENVIRON, "A": "022", "B": "1.10", "C": "True", "D": "yes", "E": ""}


def test_what_a_service_manager_says_to_svcd_is_not_for_its_services(shop: Path) -> None:
    (shop / "c.yaml").write_text(
        "services:\n"
        "  quiet: {command: [/bin/true]}\n"
        "  asked: {command: [/bin/true], env: {NOTIFY_SOCKET: '${NOTIFY_SOCKET}', LISTEN_FDS: x}}\n"
    )
    told = {
        "NOTIFY_SOCKET": "@systemd",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
    }
    asked, quiet = sorted(load(["c.yaml"], {**ENVIRON, **told}).services, key=lambda each: each.spec.name)
    assert quiet.launch.env == ENVIRON
    assert asked.launch.env == {**ENVIRON, "NOTIFY_SOCKET": "@systemd", "LISTEN_FDS": "x"}, "who asks for it has it"


def test_env_file_syntax(cluster: Load) -> None:
    Path(".env").write_text(
        """\
# comment
A=1
  export B = two words  # comment
C='single $HOME \\n # no comment'
D="double \\"quoted\\"\\tand
two lines" # comment
E=
F=a#b
G=a=b
H="$HOME"

I=é"""
    )
    _, launch = only(cluster(service("command: [sleep]\nenv_file: .env")))
    assert {name: value for name, value in launch.env.items() if name not in ENVIRON} == {
        "A": "1",
        "B": "two words",
        "C": "single $HOME \\n # no comment",
        "D": 'double "quoted"\tand\ntwo lines',
        "E": "",
        "F": "a#b",
        "G": "a=b",
        "H": "$HOME",
        "I": "é",
    }


def test_env_files_with_line_ends_of_other_systems(cluster: Load) -> None:
    Path(".env").write_bytes(b"A=1\r\nB='x'\r\n\r\n# c\r\nC=\r\n")
    _, launch = only(cluster(service("command: [sleep]\nenv_file: .env")))
    assert launch.env == {**ENVIRON, "A": "1", "B": "x", "C": ""}


def test_without_path_the_launcher_searches_the_same_directories() -> None:
    assert programs.DEFAULT_PATH == child_setup.DEFAULT_PATH


def test_programs_are_looked_up_on_the_path_of_the_service(cluster: Load) -> None:
    Path("bin").mkdir()
    Path("bin/tool").symlink_to("/bin/sh")
    Path("work").mkdir()
    _, launch = only(cluster(service("command: [tool]\nworkdir: work\nenv: {PATH: ../bin}")))
    assert launch.run == Program(("tool",))
    only(cluster(service("command: [sh]\nenv: {PATH: null}")))
    only(cluster(service("command: [./tool]\nworkdir: bin")))


VARIABLES = {
    "${PORT}": "8080",
    "x${PORT}y${NAME}": "x8080yapi",
    "${EMPTY}": "",
    "${EMPTY:-d}": "d",
    "${EMPTY-d}": "",
    "${NOPE:-}": "",
    "${NOPE-a b}": "a b",
    "${NOPE:-${PORT}}": "8080",
    "${NOPE:-a${NOPE:-b}c}d": "abcd",
    "${PORT:-${NOPE}}": "8080",
    "${PORT:-${NOPE:-a}b}c": "8080c",
    "${PORT:+set}": "set",
    "${EMPTY:+set}": "",
    "${EMPTY+set}": "set",
    "${PORT:?say}": "8080",
    "$PORT $1 $(x) $": "$PORT $1 $(x) $",
    "$$": "$",
    "$${PORT}": "${PORT}",
    "$$$${PORT}": "$${PORT}",
    "$$${PORT}": "$8080",
    "{instances} {ports} { port } {}": "{instances} {ports} { port } {}",
    "${NOPE:-$$x}": "$x",
}


@pytest.mark.parametrize("text", VARIABLES)
def test_variables(cluster: Load, text: str) -> None:
    _, launch = only(cluster(service(f"command: [echo, '{text}']")))
    assert launch.run == Program(("echo", VARIABLES[text]))


def test_unquoted_variables_get_a_type_and_keys_are_left_alone(cluster: Load) -> None:
    found = cluster(
        "max_parallel: ${N:-4}\n"
        + service("python: a:b\nconfig:\n  port: ${PORT}\n  text: '${PORT}'\n  flag: ${X:-true}\n  '${KEY}': 1")
    )
    assert found.max_parallel == 4
    run = only(found)[1].run
    assert isinstance(run, PythonCode)
    assert run.config == {"port": 8080, "text": "8080", "flag": True, "${KEY}": 1}


# ---- merging -------------------------------------------------------------------------------------------------------


def test_layers_are_merged_key_by_key_and_the_later_wins(cluster: Load) -> None:
    found = cluster(
        """\
cluster: shop
services:
  db: {command: [sleep, 1], env: {A: base, B: base}, tags: [base, x], ready: {delay: 1s, timeout: 5s}}
  web: {command: [sleep, 2], depends_on: [db]}
""",
        """\
max_parallel: 3
services:
  mail: {command: [sleep, 3]}
  db: {python: "shop:Db", env: {B: prod}, tags: [prod], ready: {tcp: "db:1"}}
""",
    )
    assert (found.max_parallel, [each.spec.name for each in found.services]) == (3, ["db", "web", "mail"])
    db = found.services[0]
    assert isinstance(db.launch.run, PythonCode)
    assert (db.launch.env["A"], db.launch.env["B"], db.launch.tags) == ("base", "prod", ("prod",))
    assert (db.spec.ready, db.spec.ready_timeout_s) == (ReadyKind.TCP, 5.0)
    assert len(found.files) == 2


def test_paths_are_relative_to_the_file_that_says_them(shop: Path) -> None:
    for name in ("base", "prod"):
        Path(name).mkdir()
        Path(name, "x.env").write_text(f"FROM={name}\n")
        Path(name, "lib").mkdir()
    Path("base/c.yaml").write_text(service("python: a:b\nenv_file: x.env\npath: [lib]"))
    Path("prod/c.yaml").write_text(service("path: [lib]"))
    (definition,) = load(["base/c.yaml", Path("prod/c.yaml")], ENVIRON).services
    assert definition.launch.env["FROM"] == "base"
    assert definition.launch.workdir == str(shop / "base")
    assert isinstance(definition.launch.run, PythonCode)
    assert definition.launch.run.path == (str(shop / "prod/lib"),)


def test_defaults_lie_under_each_service(cluster: Load) -> None:
    found = cluster(
        """\
defaults:
  interpreter: sh
  config: {a: 1, b: 1}
  restart: {policy: always, backoff: {initial: 1s}}
  stop: {timeout: 3s}
  user: null
services:
  web: {python: "a:b", config: {b: 2}, restart: {backoff: {max: 5s}}}
  db: {command: [sleep], stop: null}
"""
    )
    web, db = found.services
    assert web.spec.restart == RestartPolicy(RestartMode.ALWAYS, Backoff(initial_s=1.0, max_s=5.0))
    assert web.spec.stop.timeout_s == 3.0
    assert isinstance(web.launch.run, PythonCode)
    assert web.launch.run.config == {"a": 1, "b": 2}
    assert db.launch.run == Program(("sleep",))
    assert db.spec.stop == StopPolicy()


def test_a_command_of_its_own_replaces_that_of_the_defaults(cluster: Load) -> None:
    web, db = cluster("defaults: {command: [sleep, 1]}\nservices: {web: {}, db: {python: 'a:b'}}").services
    assert web.launch.run == Program(("sleep", "1"))
    assert isinstance(db.launch.run, PythonCode)


def test_anchors_and_merge_keys(cluster: Load) -> None:
    found = cluster(
        """\
services:
  a: &a {command: [sleep], tags: [a], env: &e {X: 1}}
  b: {<<: *a, tags: [b]}
  c: {<<: [{tags: [c]}, *a], env: {<<: *e, Y: 2}}
"""
    )
    assert [each.launch.tags for each in found.services] == [("a",), ("b",), ("c",)]
    assert [each.launch.run for each in found.services] == [Program(("sleep",))] * 3
    assert found.services[2].launch.env == {**ENVIRON, "X": "1", "Y": "2"}


def test_a_short_backoff_bound_needs_no_initial(cluster: Load) -> None:
    spec, _ = only(cluster(service("command: [sleep]\nrestart: {backoff: {max: 50ms}}")))
    assert (spec.restart.backoff.initial_s, spec.restart.backoff.max_s) == (0.05, 0.05)
    spec, _ = only(cluster(service("command: [sleep]\nrestart: {backoff: {initial: 60s}}")))
    assert (spec.restart.backoff.initial_s, spec.restart.backoff.max_s) == (60.0, 60.0)


# ---- accounts ------------------------------------------------------------------------------------------------------


def test_oneself_is_no_change(cluster: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: nobody.pw_uid)
    monkeypatch.setattr(os, "getegid", lambda: nobody.pw_gid)
    _, launch = only(cluster(service("command: [sleep]\nuser: nobody")))
    assert (launch.uid, launch.gid, launch.groups) == (None, None, ())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the user")
def test_root_may_run_services_as_others(cluster: Load) -> None:
    nobody = pwd.getpwnam("nobody")
    for written in ("nobody", str(nobody.pw_uid), f"'{nobody.pw_uid}'"):
        _, launch = only(cluster(service(f"command: [sleep]\nuser: {written}")))
        assert (launch.uid, launch.gid, launch.groups) == (nobody.pw_uid, nobody.pw_gid, (nobody.pw_gid,))
    _, launch = only(cluster(service("command: [sleep]\ngroup: daemon")))
    assert (launch.uid, launch.gid, launch.groups) == (None, 1, ())
    _, launch = only(cluster(service("command: [sleep]\nuser: 54321\ngroup: 54322")))
    assert (launch.uid, launch.gid, launch.groups) == (54321, 54322, (54322,))


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("none", StatePolicy()),
        ("null", StatePolicy()),
        ("keep", StatePolicy(True, 30.0)),
        ("{}", StatePolicy(True, 30.0)),
        ("{every: 5s}", StatePolicy(True, 5.0)),
        ("{keep: true, every: 0}", StatePolicy(True, 0.0)),
        ("{keep: false, every: 5s}", StatePolicy()),
    ],
)
def test_state_is_a_word_or_a_mapping(cluster: Load, written: str, found: StatePolicy) -> None:
    code = 'code: "def main(ctx): pass", version: "1.4"'
    _, launch = only(cluster(f"services: {{web: {{{code}, state: {written}}}}}"))
    assert (launch.state, launch.version) == (found, "1.4")


def test_what_defaults_say_of_state_is_for_those_that_can_keep_one(cluster: Load, shop: Path) -> None:
    (shop / "job.py").write_text("")
    found = cluster(
        """
defaults: {state: keep, version: "2"}
services:
  web: {code: "def main(ctx): pass"}
  own: {code: "def main(ctx): pass", state: none}
  job: {script: job.py}
  db: {command: [sleep]}
"""
    )
    launches = {each.spec.name: each.launch for each in found.services}
    assert {name: each.state.keep for name, each in launches.items()} == {
        "web": True,
        "own": False,
        "job": False,
        "db": False,
    }
    assert {name: each.version for name, each in launches.items()} == {"web": "2", "own": "2", "job": "2", "db": None}


def test_defaults_say_hot_for_those_that_can_be(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(
        """
        defaults: {update: hot}
        services:
          a: {code: "def main(ctx): pass"}
          b: {command: sleep 5}
          c: {command: sleep 5, sockets: [{listen: '127.0.0.1:1'}]}
          d: {code: "def main(ctx): pass", update: restart}
        """
    )
    found = load([path], {"PATH": "/bin:/usr/bin"}).services
    assert [each.launch.hot_update for each in found] == [True, False, True, False]
