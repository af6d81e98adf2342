"""The commands that change the configuration of a running cluster: show the plan, do it, say what became of it.

Must not decide what a change needs (the daemon does), and sends nothing that is not valid as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from svcd.cli import columns
from svcd.cli import files as cluster_files
from svcd.cli.client import Client
from svcd.cli.exits import Exit
from svcd.cli.options import Target, print_json, targeted, waiting, with_profiles
from svcd.cli.orders import DONE, Patience, Wording, accepted_only, patient, show_results
from svcd.protocol.messages import (
    ApplyConfiguration,
    ConfigurationReported,
    GetConfiguration,
    Message,
    PlanReported,
    UnregisterServices,
)
from svcd.supervisor.config import plan as plans
from svcd.supervisor.config.launch import ClusterSpec

APPLY: Final = Wording("apply", "as configured")
UNREGISTER: Final = Wording("unregister", "removed")
WIDEST_VERB: Final = 7
INSTANCE_LIMIT: Final = 1000


@click.command(
    epilog="""\b
Examples:
  svcd plan cluster.yaml      what svcd apply cluster.yaml would do; nothing is done
"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@with_profiles
@targeted
def plan(target: Target, files: tuple[str, ...], profiles: tuple[str, ...], as_json: bool) -> None:
    """Show what applying these files would start, stop and restart, in order, and why."""
    with target.connect("plan") as client:
        cluster = _load(client, files, profiles, as_json)
        steps = client.ask(_message(cluster, dry_run=True), PlanReported)
    if as_json:
        print_json([asdict(each) for each in steps.steps])
    else:
        click.echo("\n".join(_steps(steps)))


@click.command(
    epilog="""\b
Examples:
  svcd apply cluster.yaml             does what svcd plan cluster.yaml shows
  svcd apply base.yaml prod.yaml      layers: the later one wins
"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@with_profiles
@waiting
@targeted
def apply(
    target: Target,
    files: tuple[str, ...],
    profiles: tuple[str, ...],
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    """Bring the running cluster to what these files say. What did not change is not touched.

    Invalid files change nothing. SIGHUP to svcd does the same with the files that it was started with.
    """
    with target.connect("apply") as client:
        cluster = _load(client, files, profiles, as_json)
        return _change(client, _message(cluster), APPLY, Patience.of(wait, timeout_s), as_json)


@click.command(
    epilog="""\b
Examples:
  svcd register extra.yaml    adds its services, or updates those that there are already
"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@with_profiles
@waiting
@targeted
def register(
    target: Target,
    files: tuple[str, ...],
    profiles: tuple[str, ...],
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    """Add the services of these files to the running cluster, or update them. All others stay as they are."""
    with target.connect("register") as client:
        cluster = _load(client, files, profiles, as_json)
        message = _message(cluster, mode="register")
        return _change(client, message, APPLY, Patience.of(wait, timeout_s), as_json)


@click.command(
    epilog="""\b
Examples:
  svcd unregister old-worker  stops it and forgets it; refused while others require it
"""
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@waiting
@targeted
def unregister(target: Target, names: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool) -> int:
    """Stop services and forget them. They come back with the next svcd apply, if the file still has them."""
    with target.connect("unregister") as client:
        message = UnregisterServices(names)
        return _change(client, message, UNREGISTER, Patience.of(wait, timeout_s), as_json)


@click.command(
    epilog="""\b
Examples:
  svcd update web             reads the cluster's files again, and takes over what they say of web
"""
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@waiting
@targeted
def update(target: Target, names: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool) -> int:
    """Take over what the cluster's own files say of these services now. All others stay as they are."""
    with target.connect("update") as client:
        cluster = _reload(client, {}, as_json)
        _check_names(cluster, names)
        message = _message(cluster, mode="update", services=names)
        return _change(client, message, APPLY, Patience.of(wait, timeout_s), as_json)


@click.command(
    epilog="""\b
Examples:
  svcd scale api=8            eight instances of api, until svcd ends or an apply says otherwise
"""
)
@click.argument("numbers", nargs=-1, required=True, metavar="NAME=N...")
@waiting
@targeted
def scale(target: Target, numbers: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool) -> int:
    """Change how many instances of services there are. Those that stay are not touched."""
    scales = dict(map(_number, numbers))
    with target.connect("scale") as client:
        cluster = _reload(client, scales, as_json)
        _check_names(cluster, scales)
        message = _message(cluster, mode="update", services=tuple(scales))
        return _change(client, message, APPLY, Patience.of(wait, timeout_s), as_json)


def _number(text: str) -> tuple[str, int]:
    name, sign, number = text.partition("=")
    if not (sign and name and number.isascii() and number.isdigit() and 1 <= int(number[:9]) <= INSTANCE_LIMIT):
        raise click.UsageError(f"{text!r} is no NAME=N with N from 1 to {INSTANCE_LIMIT}; to have none: svcd stop")
    return name, int(number)


# ---- reading ---------------------------------------------------------------------------------------------------------


def _in_force(client: Client) -> tuple[ConfigurationReported, ClusterSpec]:
    report = client.ask(GetConfiguration(), ConfigurationReported)
    return report, plans.from_json(report.plan.encode())


def _load(client: Client, files: Sequence[str], profiles: Sequence[str], as_json: bool) -> ClusterSpec:
    """The cluster of ``files``, against the one that runs: its ports are kept, its addresses are no conflict."""
    _, running = _in_force(client)
    profiles = profiles or running.profiles
    return cluster_files.load(
        files, "apply", as_json, profiles=profiles, scales=running.scales, running=running
    )  # fmt: skip


def _reload(client: Client, scales: dict[str, int], as_json: bool) -> ClusterSpec:
    """What the cluster's own files say now, with ``scales`` over those in force."""
    report, running = _in_force(client)
    return cluster_files.load(
        report.files, "read again", as_json, profiles=running.profiles, scales={**running.scales, **scales},
        running=running,
    )  # fmt: skip


def _check_names(cluster: ClusterSpec, names: Sequence[str] | dict[str, int]) -> None:
    known = {each.spec.name for each in cluster.services} | {each.service for each in cluster.services}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"no service {unknown[0]!r} in {' '.join(map(os.path.basename, cluster.files))}")


def _message(
    cluster: ClusterSpec, mode: str = "all", services: tuple[str, ...] = (), dry_run: bool = False
) -> ApplyConfiguration:
    return ApplyConfiguration(plans.to_json(cluster).decode("ascii"), mode, services, dry_run)


# ---- doing -----------------------------------------------------------------------------------------------------------


def _change(client: Client, message: Message, wording: Wording, patience: Patience, as_json: bool) -> int:
    with patient(wording.verb):
        correlation, steps = client.begin_change(message)
        if not as_json:
            click.echo("\n".join(_steps(steps)))
        accepted = client.wait_accepted(correlation)
        if not patience.wait:
            return accepted_only(accepted, wording, as_json)
        ended = client.wait_end(correlation, patience.deadline)
    if as_json:
        document: dict[str, Any] = {"steps": [asdict(each) for each in steps.steps], "outcome": ended.outcome}
        print_json({**document, "text": ended.text, "results": [asdict(each) for each in ended.results]})
    elif ended.results or ended.outcome != DONE:
        show_results(ended, wording)
    return Exit.OK if ended.outcome == DONE else Exit.NOT_AS_DESIRED


def _steps(report: PlanReported) -> list[str]:
    """The steps of a plan, numbered."""
    if not report.steps:
        return ["nothing differs"]
    digits, names = len(str(len(report.steps))), max(len(each.service) for each in report.steps)
    return [
        f"{index:>{digits}}. {each.verb:<{WIDEST_VERB}} {columns.one_line(each.service):<{names}}  "
        f"{columns.one_line(each.why)}"
        for index, each in enumerate(report.steps, 1)
    ]
