"""``svcd start``: a cluster from its files, in the foreground or the background, or services of one that runs.

Must not supervise: it validates, takes the lock, writes the plan, and becomes the guardian.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from svcd.cli import files as cluster_files
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.options import Target, targeted, waiting, with_profiles
from svcd.record import replace


@click.command(
    epilog="""\b
Examples:
  svcd start cluster.yaml         in the foreground; Ctrl-C drains
  svcd start -d cluster.yaml      in the background; returns when all is up
  svcd start base.yaml prod.yaml  two layers, the later one wins
  svcd start web                  in the running cluster, and what it needs
  svcd start                      everything in it that starts by itself
"""
)
@click.argument("words", nargs=-1, metavar="[FILE... | NAME...]")
@click.option("-d", "--detach", is_flag=True, help="Run in the background: return when all is up, or something failed.")
@with_profiles
@waiting
@targeted
def start(
    target: Target,
    words: tuple[str, ...],
    detach: bool,
    profiles: tuple[str, ...],
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    """Start a cluster from FILEs, or services of the one that runs.

    An argument that exists as a file, ends in .yaml or .yml, or contains a slash is a FILE.

    In the foreground it shows progress, then the services' output. The first Ctrl-C drains everything in reverse order,
    the second shortens every stop to one second, the third kills.
    """
    if not cluster_files.are_files(words):
        if profiles:
            raise click.UsageError("--profile goes with a FILE")
        return _start_services(target, words, detach, (wait, timeout_s), as_json)
    if not detach and not (wait and timeout_s is None):
        raise click.UsageError("--no-wait and --timeout go with -d, or with the names of services")
    return _start_cluster(target, words, profiles, detach, (wait, timeout_s), as_json)


def _start_services(
    target: Target, names: Sequence[str], detach: bool, patience: tuple[bool, float | None], as_json: bool
) -> int:
    from svcd.cli.orders import START, Patience, order  # noqa: PLC0415 - not needed to start a cluster
    from svcd.protocol.messages import StartServices  # noqa: PLC0415

    if detach:
        raise click.UsageError("-d goes with a FILE: services of a running cluster are in the background already")
    try:
        return order(target, StartServices(tuple(names)), START, Patience.of(*patience), as_json)
    except CommandFailed as failure:
        if failure.code == Exit.NO_DAEMON and names:
            hint = f"svcd start {names[0]}.yaml would start a cluster; {names[0]} alone is a service's name"
            raise CommandFailed(failure.text, failure.code, hint) from None
        raise


def _start_cluster(
    target: Target,
    files: Sequence[str],
    profiles: Sequence[str],
    detach: bool,
    patience: tuple[bool, float | None],
    as_json: bool,
) -> int:
    from svcd.cli import launch  # noqa: PLC0415 - not needed for services of a running cluster

    began = time.monotonic()
    cluster = cluster_files.load(files, "start", as_json, profiles=profiles, target=target)
    if target.cluster is not None:
        cluster = replace(cluster, name=target.cluster)
    places = target.resolve(cluster.name)
    ground = launch.prepare(cluster, places)
    if not detach:
        ground.become_guardian(as_json=as_json)
    from svcd.cli.background import detach_and_watch  # noqa: PLC0415 - brings the messaging library

    wait, timeout_s = patience
    return detach_and_watch(ground, wait, None if timeout_s is None else began + timeout_s, as_json)
