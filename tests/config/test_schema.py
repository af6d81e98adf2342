"""The published schema and the reference page: both say what ``load`` does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from svcd.supervisor.config.errors import ConfigurationError
from svcd.supervisor.config.load import load
from svcd.supervisor.config.reference import places, renew
from svcd.supervisor.config.schema import json_schema
from svcd.supervisor.config.shape import BLOCKS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"

GOOD = {
    "list": "command: [sleep, 5, 1.5, true]",
    "string": "command: exec sleep 5",
    "python": "{python: 'a:b', config: {x: [1, {y: null}]}, path: [.], interpreter: sh}",
    "code": "code: 'def main(ctx): pass'",
    "words": "{command: [sleep], ready: immediate, start: manual, type: task}",
    "numbers": "{command: [sleep], stop: {signal: 9, timeout: 0}, restart: {intensity: {restarts: 3}}}",
    "unlimited": "{command: [sleep], restart: {intensity: {restarts: unlimited, within: 1m30s}}}",
    "codes": "{command: [sleep], restart: {success_codes: [0], prevent_codes: [1, SIGKILL, TERM, RTMIN+3]}}",
    "ready": "{command: [sleep], ready: {tcp: 'x:1', timeout: 5s}}",
    "environment": "{command: [sleep], env: {A: 1, B: true, C: null, D: x}, env_file: []}",
    "nothing": "{command: [sleep], env: , ready: , stop: {timeout: }, user: null}",
    "drain": "{python: 'a:b', stop: {drain_timeout: 1m, drain_grace: 500ms}}",
    "permissions": "{python: 'a:b', permissions: {services: [web], spawn: {max: 5}}}",
    "spawn": "{python: 'a:b', permissions: {spawn: true}}",
    "on demand": "{python: 'a:b', start: on_demand}",
    "account": "{command: [sleep], umask: '022'}",
    "variables": "{command: '${A:-sleep}', stop: {timeout: '${B:-5s}'}, start: '${C:-eager}'}",
    "later": "{command: [sleep], version: null, preload: [], stop: {drain_timeout: 10s}}",
    "probes": "{command: [sleep], ready: {http: 'http://x', status: 204, body: 'a(?P<b>c)', interval: 1s}, "
    "health: {tcp: '127.0.0.1:{port}', start_period: 0}, watchdog: 5s}",
    "commands": "{command: [sleep], ready: {exec: [sleep, 1]}, hooks: {pre_start: sleep 5, post_stop: [sleep, 1.5], "
    "on_failure: {command: [sleep], timeout: 5s}}}",
    "sockets": "{command: [sleep], start: on_demand, instances: 2, sockets: "
    "[{listen: '127.0.0.1:{port}', name: a}, {listen: 'unix:{instance}.sock', type: dgram, mode: '0600', name: b}]}",
    "schedule": "{command: [sleep], type: task, schedule: '*/5 * * * *'}",
    "interval": "{command: [sleep], type: task, schedule: {every: 5s, overlap: kill}}",
    "causes": "{command: [sleep], restart: {by_cause: {health: always, exit: }}, pause: {signal: 10}, essential: true}",
    "profiles": "{command: [sleep], profiles: []}",
    "descriptor": "{command: [sleep], ready: {notification-fd: 3}}",
    "depends": "{command: [sleep], depends_on: []}",
    "preload": "{python: 'a:b', preload: [json, xml.sax]}",
    "preload auto": "{python: 'a:b', preload: auto}",
    "both": "{command: null, python: 'a:b'}",
}

BAD = {
    "unknown key": "{command: [sleep], comand: x}",
    "unknown nested key": "{command: [sleep], stop: {tiemout: 5s}}",
    "no unit": "{command: [sleep], stop: {timeout: 5}}",
    "wrong unit": "{command: [sleep], stop: {timeout: 5sec}}",
    "wrong size": "{command: [sleep], logs: {max_size: 5M}}",
    "wrong word": "{command: [sleep], restart: {policy: sometimes}}",
    "word for a mapping": "{command: [sleep], restart: always}",
    "one module": "{python: 'a:b', preload: json}",
    "no name of a module": "{python: 'a:b', preload: [a-b]}",
    "a module twice": "{python: 'a:b', preload: [json, json]}",
    "wrong readiness": "{command: [sleep], ready: soon}",
    "number for a umask": "{command: [sleep], umask: 22}",
    "no list": "{command: [sleep], tags: a}",
    "empty command": "{command: []}",
    "number for a command": "{command: 5}",
    "two things to run": "{command: [sleep], python: 'a:b'}",
    "no module": "{python: shop}",
    "later": "{command: [sleep], version: 2}",
    "later nested": "{command: [sleep], logs: {compress: gzip}}",
    "no unit for a drain": "{python: 'a:b', stop: {drain_timeout: 5}}",
    "wrong permissions": "{python: 'a:b', permissions: [web]}",
    "too many children": "{python: 'a:b', permissions: {spawn: {max: 1001}}}",
    "no instances": "{command: [sleep], instances: 0}",
    "no url": "{command: [sleep], ready: {http: 'x/y'}}",
    "no cron line": "{command: [sleep], type: task, schedule: '* * *'}",
    "no list of sockets": "{command: [sleep], sockets: {listen: '127.0.0.1:80'}}",
    "no address": "{command: [sleep], sockets: [{name: a}]}",
    "wrong cause": "{command: [sleep], restart: {by_cause: {oom: never}}}",
    "wrong hook": "{command: [sleep], hooks: {pre_strat: [sleep]}}",
    "hook without a command": "{command: [sleep], hooks: {pre_start: {timeout: 5s}}}",
    "wrong threshold": "{command: [sleep], health: {tcp: 'x:1', failure_threshold: 0}}",
    "low descriptor": "{command: [sleep], ready: {notification-fd: 1}}",
    "wrong edge": "{command: [sleep], depends_on: {web: {kind: needs}}}",
    "wrong condition": "{command: [sleep], depends_on: {web: {condition: ready}}}",
    "code out of range": "{command: [sleep], restart: {success_codes: [256]}}",
    "factor": "{command: [sleep], restart: {backoff: {factor: 0}}}",
    "no window": "{command: [sleep], restart: {intensity: {within: 5}}}",
    "name": "{command: [sleep], env: {A=B: c}}",
    "nothing at all": "",
}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def document(service: str) -> str:
    return f"cluster: x\nservices:\n  web: {service}\n" if service[:1] in ("{", "") else document(f"{{{service}}}")


def accepts(validator: Any, text: str) -> bool:
    return not list(validator.iter_errors(yaml.safe_load(text)))


def loads(text: str, directory: Path) -> bool:
    file = directory / "cluster.yaml"
    file.write_text(text)
    try:
        load([file], {"PATH": os.defpath})
    except ConfigurationError:
        return False
    return True


@pytest.mark.parametrize("service", GOOD.values(), ids=GOOD)
def test_what_loads_is_valid(validator: Any, tmp_path: Path, service: str) -> None:
    text = document(service)
    assert loads(text, tmp_path)
    assert accepts(validator, text)


@pytest.mark.parametrize("service", BAD.values(), ids=BAD)
def test_what_has_the_wrong_shape_is_not_valid(validator: Any, tmp_path: Path, service: str) -> None:
    text = document(service)
    assert not loads(text, tmp_path)
    assert not accepts(validator, text)


@pytest.mark.parametrize("text", ["{}", "services: {}", "services: []", "services: {a b: {command: x}}", "x: 1"])
def test_the_top_is_checked_too(validator: Any, tmp_path: Path, text: str) -> None:
    assert not loads(text, tmp_path)
    assert not accepts(validator, text)


def test_defaults_in_the_schema_are_valid_values(validator: Any) -> None:
    schema = json_schema()
    seen = 0
    for block in (schema, *(each for each in schema["$defs"].values() if "properties" in each)):
        for key, each in block["properties"].items():
            if "default" in each:
                seen += 1
                found = validator.evolve(schema={**each, "$defs": schema["$defs"]}).iter_errors(each["default"])
                assert not list(found), key
    assert seen > 20


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.name)
def test_the_delivered_clusters_are_valid(validator: Any, file: Path) -> None:
    assert accepts(validator, file.read_text())


def test_the_reference_page_is_not_stale() -> None:
    page = PAGE.read_text()
    assert renew(page) == page, "renew it: python -m svcd.supervisor.config.reference docs/configuration.md"
    assert places(page) == list(BLOCKS)
