"""The whole road from files to a validated cluster; every problem on the way is reported, all at once.

Must not be imported by the daemon: it brings the YAML reader and the validator.
"""

from __future__ import annotations

import os
from collections.abc import Mapping as Environment
from collections.abc import Sequence as Listing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from svcd.supervisor.config import graph
from svcd.supervisor.config.errors import Findings, Mark
from svcd.supervisor.config.interpolation import interpolate
from svcd.supervisor.config.launch import ClusterSpec, ServiceDefinition
from svcd.supervisor.config.layers import overlay, with_defaults
from svcd.supervisor.config.leaves import NAME, NAME_RULE
from svcd.supervisor.config.reader import read
from svcd.supervisor.config.resolve import ServiceSource, Surroundings, resolve
from svcd.supervisor.config.shape import Block, Cluster, Service
from svcd.supervisor.config.tree import Mapping, Node, Scalar, Sequence, as_texts, kind_of, plain
from svcd.supervisor.config.wording import add_findings

_AS_WRITTEN = frozenset({"env", "tags"})


def load(files: Listing[Path | str], environ: Environment[str, str]) -> ClusterSpec:
    """The cluster that ``files`` describe, the later ones laid over the earlier.

    ``environ``: the environment that services start from, and where ``${VAR}`` is looked up. Raises
    ``ConfigurationError`` with every problem that was found, in reading order.
    """
    if not files:
        raise ValueError("load() needs at least one file")
    names = [os.fspath(each) for each in files]
    environ = dict(environ)  # os.environ decodes each time that it is read
    findings = Findings()
    directories = _directories(names, findings)
    findings.raise_if_any(names)
    trees = []
    for name in names:
        tree = read(name, findings)
        if tree is not None:
            interpolate(tree, environ, findings)
            trees.append(tree)
    if len(trees) < len(names):
        findings.raise_if_any(names)
    root = trees[0]
    for upper in trees[1:]:
        root = overlay(root, upper)
    around = Surroundings(findings, environ, directories, _mapping(root.entries.get("defaults")))
    cluster, services = _build(root, around, names[0])
    findings.raise_if_any(names)
    assert cluster is not None
    return ClusterSpec(
        name=cluster.cluster or _name_of_directory(directories[names[0]]),
        files=tuple(os.path.abspath(each) for each in names),
        services=tuple(services),
        max_parallel=cluster.max_parallel,
        controller_timeout_s=cluster.controller_timeout,
    )


def _directories(names: list[str], findings: Findings) -> dict[str, str]:
    """File as named -> absolute directory. Symbolic links are not followed: ``..`` means what the user sees."""
    directories = {}
    for name in names:
        try:
            directories[name] = os.path.dirname(os.path.abspath(name))
        except OSError as error:
            text = f"cannot use the current directory: {error.strerror}"
            findings.add(Mark(name), "", text, "change to a directory that exists")
    return directories


def _build(root: Mapping, around: Surroundings, first: str) -> tuple[Cluster | None, list[ServiceDefinition]]:
    services = root.entries.get("services")
    top = {key: _plain_top(key, node) for key, node in root.entries.items() if node is not services}
    if services is not None:
        top["services"] = {} if isinstance(services, Mapping) else plain(services)
    cluster, _ = _shape(Cluster, top, root, (), around.findings)
    if cluster is not None and cluster.cluster is None and "cluster" not in root.entries:
        _check_directory_name(around.directories[first], first, around.findings)
    if not isinstance(services, Mapping):
        return cluster, []
    if not services.entries:
        text, suggestion = "names no service", "add one, such as web: {command: [python3, server.py]}"
        around.findings.add(services.mark, "services", text, suggestion)
    sources = [_source(name, node, services, around) for name, node in services.entries.items()]
    definitions = [resolve(each, around) for each in sources if each is not None]
    graph.check(_vertices(services, sources), around.findings)
    return cluster, [each for each in definitions if each is not None]


def _vertices(services: Mapping, sources: list[ServiceSource | None]) -> dict[str, graph.Vertex]:
    """Every name is a vertex, so that a service with a mistake in it is not called missing as well."""
    vertices = {}
    for (name, node), source in zip(services.entries.items(), sources, strict=True):
        if source is None:
            vertices[name] = graph.Vertex({}, None, node)
        else:
            type_ = None if "type" in source.bad else source.block.type
            vertices[name] = graph.Vertex(source.block.depends_on, type_, source.node)
    return vertices


def _source(name: str, node: Node, services: Mapping, around: Surroundings) -> ServiceSource | None:
    """The service's block, or None when there is nothing to go on with. What is wrong is recorded."""
    findings, mark = around.findings, services.key_marks[name]
    bad_name = not NAME.fullmatch(name)
    if bad_name:
        findings.add(mark, "services", f'"{name[:80]}" cannot be the name of a service', f"use {NAME_RULE}")
    if not isinstance(node, Mapping):
        text = f"must be a mapping, not {kind_of(plain(node))}"
        findings.add(node.mark, f"services.{name}", text, f"write one such as {Service.example}")
        return None
    merged = with_defaults(around.defaults, node) if around.defaults is not None else node
    block, bad = _shape(Service, _plain_service(merged), merged, ("services", name), findings)
    if block is None:
        return None
    return ServiceSource(name, merged, node, mark, block, bad)


def _shape(
    block: type[Any], values: dict[str, Any], node: Node, prefix: tuple[str, ...], findings: Findings
) -> tuple[Any, frozenset[str]]:
    """The block, without those of its keys that are wrong (which are recorded and returned)."""
    assert issubclass(block, Block)
    bad: set[str] = set()
    while True:
        try:
            return block.model_validate(values), frozenset(bad)
        except ValidationError as error:
            found = add_findings(error, node, block, prefix, bad, findings)
            if not found & values.keys():
                return None, frozenset(bad | found)
            bad |= found
            values = {key: item for key, item in values.items() if key not in found}


def _plain_top(key: str, node: Node) -> Any:
    if key == "cluster" and isinstance(node, Scalar):
        return as_texts(node)
    if key == "defaults" and isinstance(node, Mapping):
        return _plain_service(node)
    return plain(node)


def _plain_service(node: Mapping) -> dict[str, Any]:
    """The values of a service; where text is meant, numbers stay as they were written."""
    return {key: _plain_key(key, child) for key, child in node.entries.items()}


def _plain_key(key: str, node: Node) -> Any:
    if key in _AS_WRITTEN:
        return as_texts(node)
    if key == "command" and isinstance(node, Sequence):
        return [_argument(each) for each in node.items]
    if key == "depends_on" and isinstance(node, Sequence):
        return as_texts(node)
    return plain(node)


def _argument(node: Node) -> Any:
    """One of a command's arguments: ``~`` and ``null`` are words here, nothing at all is none."""
    if isinstance(node, Scalar):
        return node.text if node.text or node.quoted else None
    return plain(node)


def _mapping(node: Node | None) -> Mapping | None:
    return node if isinstance(node, Mapping) else None


def _name_of_directory(directory: str) -> str:
    return os.path.basename(directory)


def _check_directory_name(directory: str, file: str, findings: Findings) -> None:
    name = _name_of_directory(directory)
    if not NAME.fullmatch(name):
        text = f'is missing, and the name of the directory ("{name}") cannot take its place'
        findings.add(Mark(file, 1, 1), "cluster", text, f"write cluster: NAME ({NAME_RULE})")
