"""``svcd graph``: who depends on what, as text, mermaid or dot; from files, or from the cluster that runs.

Must not decide an order: levels here are the longest way down.
"""

from __future__ import annotations

import dataclasses

import click

from svcd.cli.options import print_json, targeted
from svcd.cli.target import Target
from svcd.protocol.messages import Edge, GetGraph, GraphReported


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "dot"]),
    default="text",
    help="How to draw it (default: text).",
)
@targeted
def graph(target: Target, files: tuple[str, ...], form: str, as_json: bool) -> None:
    """Show who depends on what: of FILEs, or of the cluster that runs.

    \b
    svcd graph cluster.yaml
    svcd graph --format mermaid
    """
    found = _from_files(files) if files else _from_daemon(target)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    draw = {"text": as_text, "mermaid": as_mermaid, "dot": as_dot}[form]
    click.echo("\n".join(draw(found)))


def _from_daemon(target: Target) -> GraphReported:
    with target.connect() as client:
        return client.ask(GetGraph(), GraphReported)


def _from_files(files: tuple[str, ...]) -> GraphReported:
    from svcd.cli.checks import load_files  # noqa: PLC0415 - heavy

    cluster = load_files(files)
    edges = tuple(
        Edge(each.spec.name, edge.target, edge.kind.value, edge.condition.value, edge.on_crash.value)
        for each in cluster.services
        for edge in each.spec.dependencies
    )
    return GraphReported(cluster.name, tuple(each.spec.name for each in cluster.services), edges)


def levels(found: GraphReported) -> dict[str, int]:
    """How many steps each service is above the ones that depend on nothing."""
    below: dict[str, list[str]] = {name: [] for name in found.services}
    for edge in found.edges:
        below[edge.dependent].append(edge.dependency)
    level: dict[str, int] = {}
    for name in found.services:
        todo = [name]
        while todo:
            missing = [each for each in below[todo[-1]] if each not in level]
            if missing:
                todo += missing
            else:
                done = todo.pop()
                level[done] = 1 + max((level[each] for each in below[done]), default=-1)
    return level


def as_text(found: GraphReported) -> list[str]:
    """In start order: one line a service, indented by its level."""
    level = levels(found)
    lines = [f"cluster {found.cluster}, in start order:"]
    for name in sorted(found.services, key=lambda each: level[each]):
        edges = [f"{each.dependency}{_words(each)}" for each in found.edges if each.dependent == name]
        lines.append("  " * (level[name] + 1) + name + (f" ← {', '.join(edges)}" if edges else ""))
    return lines


def _words(edge: Edge) -> str:
    words = [edge.kind] if edge.kind != "requires" else []
    words += [edge.condition] if edge.condition != "running" else []
    words += [f"on_crash {edge.on_crash}"] if edge.on_crash != "restart" else []
    return f" ({', '.join(words)})" if words else ""


def as_mermaid(found: GraphReported) -> list[str]:
    lines = ["graph BT", *(f"    {_id(name)}[{name}]" for name in found.services)]
    for edge in found.edges:
        arrow = "-->" if edge.kind == "requires" else "-.->"
        label = _words(edge).strip(" ()")
        lines.append(f"    {_id(edge.dependent)} {arrow}{f'|{label}|' if label else ''} {_id(edge.dependency)}")
    return lines


def _id(name: str) -> str:
    return "s_" + name.replace("-", "_d_").replace(".", "_p_")


def as_dot(found: GraphReported) -> list[str]:
    lines = [f'digraph "{found.cluster}" {{', "    rankdir=BT;", *(f'    "{name}";' for name in found.services)]
    for edge in found.edges:
        style = "" if edge.kind == "requires" else ", style=dashed"
        label = _words(edge).strip(" ()")
        lines.append(f'    "{edge.dependent}" -> "{edge.dependency}" [label="{label}"{style}];')
    return [*lines, "}"]
