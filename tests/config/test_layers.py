"""Files over files: layers, what null takes away, includes, profiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from svcd.supervisor.config.errors import ConfigurationError
from svcd.supervisor.config.launch import ClusterSpec, Program, PythonCode
from svcd.supervisor.config.load import load
from svcd.supervisor.core.spec import HealthPolicy, ReadyKind, RestartPolicy

ENVIRON = {"PATH": "/usr/bin:/bin", "HOME": "/root", "BASE": "base"}

Write = Callable[..., None]


@pytest.fixture(autouse=True)
def _shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.chdir(tmp_path / "shop")


def write(**files: str) -> None:
    for name, text in files.items():
        path = Path(name.replace("__", "/") + ".yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def names(cluster: ClusterSpec) -> list[str]:
    return [each.spec.name for each in cluster.services]


def problems(*files: str, **options: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(files, ENVIRON, **options)
    return [str(each) for each in caught.value.problems]


def test_null_takes_a_key_away() -> None:
    write(
        base="""\
max_parallel: 3
services:
  web:
    command: [sleep, 1]
    env: {A: b, HOME: x}
    ready: {tcp: "x:1", timeout: 5s}
    health: {tcp: "x:1"}
    restart: {policy: never}
    depends_on: {db: {}, cache: {}}
    sockets: [{listen: "127.0.0.1:20031"}]
  db: {command: [sleep]}
  cache: {command: [sleep]}
""",
        prod="""\
max_parallel:
services:
  web: {env: {A: null, HOME: }, ready: {tcp: null}, health: null, restart: {policy: }, depends_on: {cache: null}}
  cache: null
""",
    )
    found = load(["base.yaml", "prod.yaml"], ENVIRON)
    assert (found.max_parallel, names(found)) == (0, ["web", "db"])
    web = found.services[0]
    assert web.launch.env == {"PATH": "/usr/bin:/bin", "BASE": "base"}
    assert (web.spec.ready, web.spec.ready_timeout_s, web.spec.health) == (ReadyKind.IMMEDIATE, 5.0, None)
    assert web.spec.restart == RestartPolicy()
    assert [each.target for each in web.spec.dependencies] == ["db"]


def test_null_is_a_value_within_config() -> None:
    write(base="services: {web: {python: 'a:b', config: {a: 1, b: {c: 2}}}}", prod="services: {web: {config: {a: }}}")
    run = load(["base.yaml", "prod.yaml"], ENVIRON).services[0].launch.run
    assert isinstance(run, PythonCode)
    assert run.config == {"a": None, "b": {"c": 2}}


def test_another_probe_replaces_what_goes_with_the_first() -> None:
    write(
        base="""\
services:
  web:
    command: [sleep]
    ready: {http: "http://x", status: 204, body: ok, timeout: 5s}
    health: {http: "http://x", status: 204, interval: 7s}
  job: {command: [sleep], type: task, schedule: {cron: "* * * * *", overlap: kill}}
""",
        prod="services: {web: {ready: {tcp: 'x:1'}, health: {exec: [sleep]}}, job: {schedule: {every: 5s}}}",
    )
    web, job = load(["base.yaml", "prod.yaml"], ENVIRON).services
    assert (web.spec.ready, web.spec.ready_timeout_s, web.launch.probe.http) == (ReadyKind.TCP, 5.0, None)
    assert web.spec.health == HealthPolicy()
    assert web.launch.health is not None
    assert (web.launch.health.argv, web.launch.health.interval_s) == (("sleep",), 7.0)
    assert job.launch.schedule is not None
    assert (job.launch.schedule.cron, job.launch.schedule.every_s, job.spec.overlap.value) == (None, 5.0, "kill")


# ---- includes ------------------------------------------------------------------------------------------------------


def test_included_files_come_first() -> None:
    write(
        main="include: [one.yaml, two.yaml]\nservices: {a: {command: [sleep, 3]}}",
        one="max_parallel: 1\nservices: {a: {command: [sleep, 1], tags: [one]}, b: {command: [sleep, 1]}}",
        two="max_parallel: 2\nservices: {b: {command: [sleep, 2]}}",
    )
    found = load(["main.yaml"], ENVIRON)
    assert (found.max_parallel, names(found)) == (2, ["a", "b"])
    assert [each.launch.run for each in found.services] == [Program(("sleep", "3")), Program(("sleep", "2"))]
    assert found.services[0].launch.tags == ("one",)
    assert [Path(each).name for each in found.files] == ["main.yaml"]


def test_includes_and_paths_are_relative_to_the_file_that_says_them(tmp_path: Path) -> None:
    write(
        main="include: lib/${BASE}.yaml",
        lib__base="include: ['../other/x.yaml']\nservices: {a: {command: [sleep], workdir: .}}",
        other__x="services: {b: {command: [sleep], sockets: [{listen: 'unix:s'}]}}",
    )
    found = {each.spec.name: each.launch for each in load(["main.yaml"], ENVIRON).services}
    assert found["a"].workdir == str(tmp_path / "shop/lib")
    assert found["b"].workdir == str(tmp_path / "shop/other")
    assert found["b"].sockets[0].path == str(tmp_path / "shop/other/s")


def test_the_cluster_is_called_after_the_file_that_was_named(tmp_path: Path) -> None:
    write(main="include: lib/base.yaml", lib__base="services: {a: {command: [sleep]}}")
    assert load(["main.yaml"], ENVIRON).name == "shop"


def test_a_file_is_merged_once_where_it_is_met_first() -> None:
    write(
        base="include: [common.yaml]\nmax_parallel: 2\nservices: {a: {command: [sleep]}}",
        prod="include: [common.yaml]",
        common="max_parallel: 1",
    )
    assert load(["base.yaml", "prod.yaml"], ENVIRON).max_parallel == 2


def test_files_that_include_each_other() -> None:
    write(a="include: b.yaml\nservices: {a: {command: [sleep]}}", b="include: [c.yaml]", c="include: [a.yaml, c.yaml]")
    circle, loop = problems("a.yaml")
    assert circle.startswith("c.yaml:1:11: include: files include each other in a circle: ")
    assert circle.endswith(": a.yaml → b.yaml → c.yaml → a.yaml; remove one of these")
    assert loop == "c.yaml:1:19: include: files include each other in a circle: c.yaml → c.yaml; remove one of these"


def test_a_link_is_no_way_around(tmp_path: Path) -> None:
    write(a="include: b.yaml\nservices: {a: {command: [sleep]}}")
    Path("b.yaml").symlink_to("a.yaml")
    assert [each.partition(": ")[2] for each in problems("a.yaml")] == [
        "include: files include each other in a circle: a.yaml → b.yaml; remove one of these"
    ]


def test_included_files_that_cannot_be_read() -> None:
    write(a="include: [nope.yaml, bad.yaml, '/dev/zero']\nservices: {a: {command: [sleep]}}", bad="[x]")
    assert problems("a.yaml") == [
        "bad.yaml:1:1: the file must be a mapping; begin with a key, such as services:",
        "a.yaml:1:11: include: cannot read nope.yaml: no such file or directory; check the path",
        "a.yaml:1:32: include: cannot read /dev/zero: it is a device; name a readable file",
    ]


def test_a_file_whose_name_is_not_known_is_not_looked_for() -> None:
    write(a="include: ['${NOPE_STAGE}.yaml']\nservices: {a: {command: [sleep]}}")
    (problem,) = problems("a.yaml")
    assert "the variable NOPE_STAGE is not set" in problem


def test_an_endless_chain_of_files_ends() -> None:
    for index in range(300):
        Path(f"{index}.yaml").write_text(f"include: {index + 1}.yaml")
    assert problems("0.yaml")[-1].endswith("more than 200 files; use fewer")


# ---- profiles ------------------------------------------------------------------------------------------------------

PROFILES = """\
services:
  web: {command: [sleep]}
  debug: {command: [no-such-program], profiles: [debug]}
  shell: {command: [sleep], profiles: [debug, ops], depends_on: [web]}
  stats: {command: [sleep], profiles: ops, instances: 2}
"""


def test_services_of_profiles_are_there_when_one_is_chosen() -> None:
    write(main=PROFILES)
    assert names(load(["main.yaml"], ENVIRON)) == ["web"]
    found = load(["main.yaml"], ENVIRON, profiles=("ops",))
    assert (names(found), found.profiles) == (["web", "shell", "stats.0", "stats.1"], ("ops",))
    assert "cannot find the program no-such-program" in problems("main.yaml", profiles=("debug",))[0]


def test_what_is_not_chosen_must_have_its_shape_all_the_same() -> None:
    write(main="services: {web: {command: [sleep]}, debug: {comand: x, profiles: [debug]}}")
    assert ["comand" in each for each in problems("main.yaml")] == [True]


def test_a_cluster_of_nothing_but_profiles_needs_one() -> None:
    write(main="services: {a: {command: [sleep], profiles: debug}, b: {command: [sleep], profiles: [ops, debug]}}")
    (problem,) = problems("main.yaml")
    why, mend = problem.split("; ")
    assert (
        why == "main.yaml:1:11: services: each of them belongs to a profile (debug, ops), and none of these is chosen"
    )
    assert mend == "choose one, such as --profile debug"
    assert names(load(["main.yaml"], ENVIRON, profiles=("ops",))) == ["b"]
    assert problems("main.yaml", profiles=("op",)) == ["main.yaml: no service has the profile op; did you mean ops?"]


def test_a_profile_that_nobody_has() -> None:
    write(main=PROFILES, none="services: {web: {command: [sleep]}}")
    assert problems("main.yaml", profiles=("debgu", "ops")) == [
        "main.yaml: no service has the profile debgu; did you mean debug?"
    ]
    assert problems("main.yaml", profiles=("x",)) == ["main.yaml: no service has the profile x; there are debug, ops"]
    assert problems("none.yaml", profiles=("x",)) == ["none.yaml: no service has the profile x; choose none"]
