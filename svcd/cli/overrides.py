"""What ``svcd update`` is told beside the files: other code, another version, another config.

Must not send anything: it makes a configuration of a configuration. What was told stays in force for later updates and
scalings of that service; an apply brings back what the files say.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.files import problems_told
from svcd.record import replace
from svcd.supervisor.config import leaves, reader
from svcd.supervisor.config.errors import Findings, Mark
from svcd.supervisor.config.launch import ClusterSpec, PythonCode, ServiceDefinition
from svcd.supervisor.config.tree import dotted, locate, plain
from svcd.supervisor.config.units import RefusedError


def with_overrides(
    cluster: ClusterSpec, names: Sequence[str], entry: str | None, version: str | None, config_file: str | None
) -> ClusterSpec:
    """``cluster``, with these services as the options say. Raises ``CommandFailed``."""
    values: dict[str, Any] = {}
    if config_file is not None:
        values["config"] = _read_config(config_file)
    if entry is not None:
        values["python"] = _parsed("--python", leaves.parse_entry, entry)
    if version is not None:
        values["version"] = _parsed("--version", leaves.parse_version, version)
    if not values:
        return cluster

    def changed(each: ServiceDefinition) -> ServiceDefinition:
        if _service(each) not in names:
            return each
        if not isinstance(each.launch.run, PythonCode):
            text = f"cannot update {each.service}: it is a program, and --python, --version and --config are for Python"
            raise CommandFailed(text, Exit.USAGE, "change its file, and say svcd update without them")
        return _with(each, values)

    return replace(cluster, services=tuple(map(changed, cluster.services)))


def kept(cluster: ClusterSpec, running: ClusterSpec, but: Collection[str] = ()) -> ClusterSpec:
    """``cluster``, as its files have it, with what earlier updates were told; of all services ``but`` these."""
    earlier = {name: values for name, values in told(running).items() if name not in but}

    def changed(each: ServiceDefinition) -> ServiceDefinition:
        values = earlier.get(_service(each))
        return each if values is None or not isinstance(each.launch.run, PythonCode) else _with(each, values)

    return replace(cluster, services=tuple(map(changed, cluster.services))) if earlier else cluster


def told(running: ClusterSpec) -> dict[str, dict[str, Any]]:
    """Service -> key -> value, where an update was told something else than the files say."""
    return {_service(each): {key: _LOOKS[key](each) for key in each.launch.given} for each in running.services
            if each.launch.given}  # fmt: skip


def options(values: Mapping[str, Any]) -> str:
    """As they were given to the command."""
    return " ".join(f"--{key} {'…' if key == 'config' else value}" for key, value in values.items())


_LOOKS: Final[dict[str, Callable[[ServiceDefinition], Any]]] = {
    "python": lambda each: each.launch.run.entry if isinstance(each.launch.run, PythonCode) else None,
    "version": lambda each: each.launch.version,
    "config": lambda each: each.launch.run.config if isinstance(each.launch.run, PythonCode) else None,
}


def _with(each: ServiceDefinition, values: Mapping[str, Any]) -> ServiceDefinition:
    """``each``, a Python service, with these values in place of what it has."""
    run = each.launch.run
    assert isinstance(run, PythonCode)
    if "python" in values:
        run = replace(run, entry=values["python"], script=None, code=None)
    if "config" in values:
        run = replace(run, config=values["config"])
    given = tuple(key for key in _LOOKS if key in values or key in each.launch.given)
    launch = replace(each.launch, run=run, version=values.get("version", each.launch.version), given=given)
    return replace(each, launch=launch)


def _service(each: ServiceDefinition) -> str:
    return each.service or each.spec.name


def _parsed(option: str, parse: object, text: str) -> str:
    try:
        return str(parse(text))  # type: ignore[operator]
    except RefusedError as refused:
        raise CommandFailed(f"cannot update: {option}: {refused.text}", Exit.USAGE, refused.suggestion) from None


def _read_config(path: str) -> dict[str, object]:
    """As ``config:`` of a cluster file is read, so that the same lines mean the same in both."""
    findings, mark = Findings(), Mark(path)
    data = reader.read_bytes(path, path, reader.MAX_FILE_BYTES, mark, "", findings)
    text = None if data is None else reader.decode(data, path, findings)
    root = None if text is None else reader.compose(path, text, findings)
    if root is not None:
        try:
            found = dict(leaves.parse_config(plain(root)))
        except RefusedError as refused:
            for each in (refused, *refused.others):
                findings.add(locate(root, each.at), dotted(each.at), each.text, each.suggestion)
    if findings:
        with problems_told([path], "use", as_json=False):
            findings.raise_if_any()
    return found
