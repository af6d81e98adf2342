"""What ``svcd update`` is told beside the files: other code, another version, another config.

Must not send anything: it makes a configuration of a configuration.
"""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from svcd.cli.exits import CommandFailed, Exit
from svcd.record import replace
from svcd.supervisor.config import leaves
from svcd.supervisor.config.launch import ClusterSpec, PythonCode, ServiceDefinition
from svcd.supervisor.config.units import RefusedError

MAX_CONFIG_BYTES = 4 * 1024 * 1024


def with_overrides(
    cluster: ClusterSpec, names: Sequence[str], entry: str | None, version: str | None, config_file: str | None
) -> ClusterSpec:
    """``cluster``, with these services as the options say. Raises ``CommandFailed``."""
    if entry is None and version is None and config_file is None:
        return cluster
    config = None if config_file is None else _read_config(config_file)
    entry = None if entry is None else _parsed("--python", leaves.parse_entry, entry)
    version = None if version is None else _parsed("--version", leaves.parse_version, version)

    def changed(each: ServiceDefinition) -> ServiceDefinition:
        if (each.service or each.spec.name) not in names:
            return each
        run = each.launch.run
        if not isinstance(run, PythonCode):
            text = f"cannot update {each.service}: it is a program, and --python, --version and --config are for Python"
            raise CommandFailed(text, Exit.USAGE, "change its file, and say svcd update without them")
        if entry is not None:
            run = replace(run, entry=entry, script=None, code=None)
        if config is not None:
            run = replace(run, config=config)
        launch = replace(each.launch, run=run, version=each.launch.version if version is None else version)
        return replace(each, launch=launch)

    return replace(cluster, services=tuple(map(changed, cluster.services)))


def _parsed(option: str, parse: object, text: str) -> str:
    try:
        return str(parse(text))  # type: ignore[operator]
    except RefusedError as refused:
        raise CommandFailed(f"cannot update: {option}: {refused.text}", Exit.USAGE, refused.suggestion) from None


def _read_config(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}", Exit.USAGE) from None
    if len(data) > MAX_CONFIG_BYTES:
        raise CommandFailed(f"cannot read {path}: larger than {MAX_CONFIG_BYTES} bytes", Exit.USAGE)
    try:
        found = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise CommandFailed(f"cannot read {path}: {' '.join(str(error).split())}", Exit.USAGE) from None
    try:
        return dict(leaves.parse_config(found))
    except RefusedError as refused:
        where = ".".join(map(str, refused.at))
        text = f"{path}: {where + ': ' if where else ''}{refused.text}"
        raise CommandFailed(f"cannot update: {text}", Exit.USAGE, refused.suggestion) from None
