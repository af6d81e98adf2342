"""``svcd graph``: who depends on what, as text, mermaid or dot; from files, or from the cluster that runs.

Must not decide the order in which services start: levels here show it, the daemon makes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import click

from svcd.cli import columns
from svcd.cli import files as cluster_files
from svcd.cli.options import Target, print_json, targeted, with_profiles
from svcd.protocol.messages import Edge, GetGraph, GraphReported
from svcd.record import as_dict

USUAL: Final = {"kind": "requires", "condition": "running", "on_crash": "restart"}
SOLID_KINDS: Final = frozenset({"requires"})


@click.command(
    epilog="""\b
Examples:
  svcd graph cluster.yaml
  svcd graph                         of the cluster that runs
  svcd graph --format mermaid > graph.mmd
  svcd graph --format dot cluster.yaml | dot -Tsvg > graph.svg
"""
)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--format", "form", type=click.Choice(["text", "mermaid", "dot"]), default="text", show_default=True,
              help="How to draw it.")  # fmt: skip
@with_profiles
@targeted
def graph(target: Target, files: tuple[str, ...], form: str, profiles: tuple[str, ...], as_json: bool) -> None:
    """Show who depends on what, in start order.

    Of FILEs, or of the cluster that runs.

    What stands at the same depth can start at the same time; everything stops in reverse.
    """
    if profiles and not files:
        raise click.UsageError("--profile goes with a FILE")
    found = from_files(files, target, as_json, profiles) if files else _from_daemon(target)
    if as_json:
        print_json(as_dict(found) | {"levels": levels(found)})
    else:
        click.echo("\n".join(FORMATS[form](found)))


def _from_daemon(target: Target) -> GraphReported:
    with target.connect("show the graph") as client:
        return client.ask(GetGraph(), GraphReported)


def from_files(
    files: Sequence[str], target: Target, as_json: bool = False, profiles: Sequence[str] = ()
) -> GraphReported:
    """The graph of a validated cluster."""
    cluster = cluster_files.load(files, "draw", as_json, profiles=profiles)
    edges = (
        Edge(each.spec.name, edge.target, edge.kind.value, edge.condition.value, edge.on_crash.value)
        for each in cluster.services
        for edge in each.spec.dependencies
    )
    names = tuple(each.spec.name for each in cluster.services)
    return GraphReported(target.cluster or cluster.name, names, tuple(edges))


def levels(found: GraphReported) -> list[list[str]]:
    """The services by depth: those of level 0 depend on nothing, the others on something of the level before."""
    waits: dict[str, set[str]] = {name: set() for name in found.services}
    leads: dict[str, set[str]] = {name: set() for name in found.services}
    for edge in found.edges:
        if edge.dependent in waits and edge.dependency in waits:
            waits[edge.dependent].add(edge.dependency)
            leads[edge.dependency].add(edge.dependent)
    order = {name: number for number, name in enumerate(found.services)}
    level = [name for name in found.services if not waits[name]]
    result = []
    while level:
        result.append(level)
        freed = []
        for name in level:
            for dependent in leads[name]:
                waits[dependent].discard(name)
                if not waits[dependent]:
                    freed.append(dependent)
        level = sorted(freed, key=order.__getitem__)
    return result


def as_text(found: GraphReported) -> list[str]:
    lines = [f"cluster {columns.one_line(found.cluster)}, in start order:"]
    edges: dict[str, list[str]] = {}
    for edge in found.edges:
        label = _label(edge)
        edges.setdefault(edge.dependent, []).append(f"{edge.dependency} ({label})" if label else edge.dependency)
    for depth, level in enumerate(levels(found)):
        for name in level:
            lines.append(f"{'  ' * (depth + 1)}{name}{' ← ' if name in edges else ''}{', '.join(edges.get(name, ()))}")
    return lines


def as_mermaid(found: GraphReported) -> list[str]:
    ids = {name: f"s{number}" for number, name in enumerate(found.services)}
    lines = ["flowchart LR", *(f'    {ids[name]}["{name}"]' for name in found.services)]
    for edge in found.edges:
        arrow, label = "-->" if edge.kind in SOLID_KINDS else "-.->", _label(edge)
        lines.append(f"    {ids[edge.dependent]} {arrow}{f'|{label}|' if label else ''} {ids[edge.dependency]}")
    return lines


def as_dot(found: GraphReported) -> list[str]:
    lines = [f'digraph "{found.cluster}" {{', "    rankdir=LR;", "    node [shape=box];"]
    lines += [f'    "{name}";' for name in found.services]
    for edge in found.edges:
        attributes = [] if edge.kind in SOLID_KINDS else ["style=dashed"]
        if label := _label(edge):
            attributes.append(f'label="{label}"')
        tail = f" [{', '.join(attributes)}]" if attributes else ""
        lines.append(f'    "{edge.dependent}" -> "{edge.dependency}"{tail};')
    return [*lines, "}"]


FORMATS: Final[dict[str, Callable[[GraphReported], list[str]]]] = {
    "text": as_text,
    "mermaid": as_mermaid,
    "dot": as_dot,
}


def _label(edge: Edge) -> str:
    """What is not as usual about a dependency: ``wants``, ``until completed``, ``on crash notify``, ``its parent``."""
    if edge.to_parent:
        return "its parent"  # what that means is always the same
    words = []
    if edge.kind != USUAL["kind"]:
        words.append(edge.kind)
    if edge.condition != USUAL["condition"]:
        words.append(f"until {edge.condition}")
    if edge.on_crash != USUAL["on_crash"] and edge.kind == USUAL["kind"]:
        words.append(f"on crash {edge.on_crash}")
    return ", ".join(words)
