"""The merged configuration: every value once, with the place that it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from svcd.supervisor.config.errors import ConfigurationError
from svcd.supervisor.config.launch import PythonCode
from svcd.supervisor.config.load import load
from svcd.supervisor.config.merged import Row, merged

ENVIRON = {"PATH": "/usr/bin:/bin", "SECONDS": "7"}
BASE = """\
cluster: shop
include: more.yaml
defaults: {env: {LEVEL: info, N: 022}, env_file: a.env, restart: {policy: always}}
services:
  db:
    command: [echo, "${SECONDS}", "${NOPE:-6}", ~, "a b", 'it: "x"', '$${X}$$$$y']
    ready: {tcp: "127.0.0.1:6379", timeout: 10s}
    env_file: [b.env]
  web:
    code: |
      async def main(ctx):
          print("$$$$ x", ${SECONDS})

          return
    config: {a: [1, {b: null}], c: yes, d: 1.5, $x: "${NOPE:-}$$1", f: null}
    depends_on: {db: {kind: wants}, late: }
  api:
    command: exec sleep 5
    sockets: [{name: a, listen: "127.0.0.1:20011"}, {listen: "unix:x", type: dgram}]
    instances: 1
    hooks: {pre_start: [sleep, ~], on_failure: {command: "true 1"}}
"""
PROD = """\
services:
  db: {env: {LEVEL: null, B: true}, ready: {log: "ready", timeout: null}, health: {exec: [sleep, 1]}}
max_parallel: 4
"""
MORE = "services: {extra: {command: [sleep], profiles: [debug]}, late: {command: [sleep, 5], tags: []}}\n"


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"base.yaml": BASE, "prod.yaml": PROD, "more.yaml": MORE, "a.env": "A=1\n", "b.env": ""}.items():
        Path(name).write_text(text)


def rows(*files: str, **options: Any) -> dict[str, Row]:
    return {each.key: each for each in merged(files, options.pop("environ", ENVIRON), **options).rows}


def test_each_value_tells_its_place() -> None:
    found = rows("base.yaml", "prod.yaml")
    assert found["cluster"] == Row(("cluster",), "shop", "base.yaml", 1, 10)
    assert found["max_parallel"] == Row(("max_parallel",), 4, "prod.yaml", 3, 15)
    assert found["services.late.command"].origin == "more.yaml:1"
    assert found["services.late.env.N"] == Row(("services", "late", "env", "N"), "022", "base.yaml", 3, 34)
    assert found["services.db.ready.log"].origin == "prod.yaml:2"
    assert found["services.db.restart.policy"].origin == "base.yaml:3"
    assert found["services.db.restart.backoff.initial"] == Row(
        ("services", "db", "restart", "backoff", "initial"), "100ms", "default"
    )
    assert found["services.api.sockets[0].name"].value == "a"
    assert found["services.db.env_file"].value == ["a.env", "b.env"]


def test_variables_are_named() -> None:
    found = rows("base.yaml")
    assert found["services.db.command"].variables == ("SECONDS",)
    assert found["services.web.code"].variables == ("SECONDS",)
    assert found["services.web.config.$x"].variables == ()


def test_what_a_later_file_takes_away_is_gone() -> None:
    found = rows("base.yaml", "prod.yaml")
    assert "services.db.ready.tcp" not in found
    assert found["services.db.ready.timeout"].origin == "default"
    assert found["services.db.env.LEVEL"].value is None


def test_the_environment_of_svcd_stands_above_the_files() -> None:
    environ = {**ENVIRON, "SVCD_MAX_PARALLEL": "9"}
    found = rows("base.yaml", "prod.yaml", environ=environ)["max_parallel"]
    assert (found.value, found.origin) == (9, "environment SVCD_MAX_PARALLEL")
    assert load(["base.yaml", "prod.yaml"], environ).max_parallel == 9
    with pytest.raises(ConfigurationError, match="environment SVCD_MAX_PARALLEL: max_parallel: must be a whole number"):
        load(["base.yaml"], {**ENVIRON, "SVCD_MAX_PARALLEL": "many"})


def test_only_chosen_services_are_shown() -> None:
    assert not any(key.startswith("services.extra") for key in rows("base.yaml"))
    assert rows("base.yaml", profiles=["debug"])["services.extra.command"].origin == "more.yaml:1"


@pytest.mark.parametrize("defaults", [False, True])
@pytest.mark.parametrize("files", [("base.yaml",), ("base.yaml", "prod.yaml")])
def test_the_result_read_again_means_the_same(files: tuple[str, ...], defaults: bool) -> None:
    Path("merged.yaml").write_text(merged(files, ENVIRON).as_yaml(defaults))
    assert load(["merged.yaml"], ENVIRON).services == load(files, ENVIRON).services


def test_as_yaml() -> None:
    Path("c.yaml").write_text("services:\n  web: {command: [sleep, '5', $x], config: }\n")
    Path("d.yaml").write_text("services: {web: {env: {A: 022}, sockets: [{listen: '127.0.0.1:20011'}]}}\n")
    assert merged(["c.yaml", "d.yaml"], ENVIRON).as_yaml() == (
        "services:\n"
        "  web:\n"
        '    command: [sleep, "5", "$x"]  # c.yaml:2\n'
        "    env:\n"
        '      A: "022"  # d.yaml:1\n'
        "    sockets:\n"
        '      - listen: "127.0.0.1:20011"  # d.yaml:1\n'
    )


def test_as_json() -> None:
    found = json.loads(json.dumps(merged(["base.yaml", "prod.yaml"], ENVIRON).as_json(), allow_nan=False))
    assert found["files"] == ["more.yaml", "base.yaml", "prod.yaml"]
    assert found["merged"]["services"]["web"]["config"]["a"] == [1, {"b": None}]
    assert {each["key"]: each for each in found["values"]}["max_parallel"] == {
        "key": "max_parallel",
        "path": ["max_parallel"],
        "value": 4,
        "file": "prod.yaml",
        "line": 3,
        "column": 15,
        "variables": [],
    }


def test_a_configuration_that_is_refused_can_be_looked_at() -> None:
    Path("bad.yaml").write_text("x: .inf\nservices: {web: {comand: y, sockets: 5, ready: soon}, 5: 6, l: [1]}\n")
    assert [each.key for each in merged(["bad.yaml"], {}).rows if each.file != "default"] == [
        "x",
        "services.web.comand",
        "services.web.sockets",
        "services.web.ready",
        "services.5",
        "services.l",
    ]
    json.dumps(merged(["bad.yaml"], {}).as_json(), allow_nan=False)


def test_a_variable_that_is_missing_is_told() -> None:
    Path("bad.yaml").write_text("services: {web: {command: '${NOPE}'}}\n")
    with pytest.raises(ConfigurationError, match="the variable NOPE is not set"):
        merged(["bad.yaml"], {})


def test_text_of_every_kind_is_read_again() -> None:
    texts = [
        "a\tb",
        '"',
        "\\",
        "\U0002ebe1",
        "\u200b",
        "é",
        "- a",
        "a: b",
        "#",
        "a #b",
        "1e3",
        "0x1",
        "~",
        "",
        " a ",
        "---",
    ]
    texts += [
        "a\nb",
        "a\nb\n",
        "a\n\nb\n\n",
        "\na\nb\n",
        "  a\nb\n",
        "a\n  b\n\n c\n",
        "${X}",
        "$$",
        "$X",
        "{a}",
        "[a]",
    ]
    quoted = ", ".join(
        '"' + "".join(f"\\U{ord(c):08x}" for c in each).replace("\\U00000024", "$$") + '"' for each in texts
    )
    code = "".join(f"      k{index}: {each}\n" for index, each in enumerate(quoted.split(", ")))
    Path("c.yaml").write_text(f"services:\n  web:\n    python: a:b\n    config:\n      x: [{quoted}]\n{code}")
    Path("d.yaml").write_text(merged(["c.yaml"], ENVIRON).as_yaml())
    run = load(["d.yaml"], ENVIRON).services[0].launch.run
    assert isinstance(run, PythonCode)
    assert run.config == {"x": texts, **{f"k{index}": each for index, each in enumerate(texts)}}
