"""The commands that change the configuration of a running cluster: show the plan, do it, say what became of it.

Must not decide what a change needs (the daemon does), and sends nothing that is not valid as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

import click

from svcd.cli import columns, overrides
from svcd.cli import files as cluster_files
from svcd.cli.client import Client
from svcd.cli.completion import offer_names
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.names import no_service, service_of
from svcd.cli.options import Target, print_json, targeted, waiting, with_profiles
from svcd.cli.orders import (
    DONE,
    Patience,
    Wording,
    accepted_only,
    outcome_document,
    patient,
    show_last_words,
    show_results,
)
from svcd.protocol.messages import (
    ApplyConfiguration,
    GetStatus,
    Message,
    PlanReported,
    StatusReported,
    UnregisterServices,
    UpdateServices,
)
from svcd.record import as_dict, replace
from svcd.supervisor.config import plan as plans
from svcd.supervisor.config.launch import ClusterSpec

APPLY: Final = Wording("apply", "as configured")
REGISTER: Final = Wording("register", "as configured")
UNREGISTER: Final = Wording("unregister", "removed")
UPDATE: Final = Wording("update", "as configured")
SCALE: Final = Wording("scale", "as configured")
DONE_WORDS: Final = {
    "start": "up",
    "stop": "removed",
    "restart": "restarted",
    "update": "updated",
    "add": "registered",
    "remove": "removed",
}
"""What is said of a service when its step has been done."""

WIDEST_VERB: Final = 7
INSTANCE_LIMIT: Final = 1000


@click.command(
    epilog="""\b
Examples:
  svcd plan cluster.yaml  what svcd apply would do; nothing is done
"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@with_profiles
@targeted
def plan(target: Target, files: tuple[str, ...], profiles: tuple[str, ...], as_json: bool) -> None:
    """Show what an apply would do, in order, and why."""
    with target.connect("plan") as client:
        cluster = _load(target, client, "plan", files, profiles, as_json)
        steps = client.ask(_message(cluster, dry_run=True), PlanReported)
    if as_json:
        print_json([as_dict(each) for each in steps.steps])
    else:
        click.echo("\n".join(_steps(steps)))


@click.command(
    epilog="""\b
Examples:
  svcd apply cluster.yaml         does what svcd plan cluster.yaml shows
  svcd apply base.yaml prod.yaml  layers: the later one wins
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

    Invalid files change nothing. SIGHUP to svcd does the same with its own files, those of its start or of the last
    apply.
    """
    with target.connect("apply") as client:
        cluster = _load(target, client, "apply", files, profiles, as_json)
        return _change(client, _message(cluster), APPLY, Patience.of(wait, timeout_s), as_json)


@click.command(
    epilog="""\b
Examples:
  svcd register extra.yaml  adds its services, or updates them
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
    """Add the services of these files, or update them.

    All others stay as they are, and may be what these depend on. They last until svcd ends or files are applied.
    """
    with target.connect("register") as client:
        running = cluster_files.in_force(client)
        cluster = cluster_files.load(files, "register", as_json, profiles=profiles, running=running, beside=True)
        message = _message(replace(cluster, name=running.name), mode="register")
        return _change(client, message, REGISTER, Patience.of(wait, timeout_s), as_json)


@click.command(
    epilog="""\b
Examples:
  svcd unregister old-worker  refused while others require it
"""
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=offer_names)
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
  svcd update web                    what its files say of web now
  svcd update web --version 2        the same, called version 2
  svcd update web --python web2:Web  other code
  svcd update web --config web.yaml  another config:, what is in that file
"""
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=offer_names)
@click.option("--python", "entry", metavar="MODULE:NAME", help="The code to run from now on.")
@click.option("--version", metavar="TEXT", help="What to call the new version.")
@click.option("--config", "config_file", metavar="FILE", help="A YAML or JSON file: what init(config) is given.")
@click.option("--reset", is_flag=True, help="Forget what earlier updates were told: as the files say.")
@click.option("--force", is_flag=True, help="Also when callers of the old version would not get on with the new one.")
@waiting
@targeted
def update(
    target: Target,
    names: tuple[str, ...],
    entry: str | None,
    version: str | None,
    config_file: str | None,
    reset: bool,
    force: bool,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> int:
    """Bring in new versions of services, without losing a request.

    They are what the cluster's own files say now: those of its start, or of the last apply. All other services stay as
    they are. What --python, --version and --config say instead stays so in later updates, until --reset or an apply.

    A Python service that runs is replaced in place: the new version is loaded beside the old one, which finishes its
    requests and hands its state over (export_state, import_state); callers wait that long. If anything goes wrong, the
    old one goes on. So it is with programs whose sockets svcd holds. Everything else is restarted where its files
    say something else of it.
    """
    with target.connect("update") as client:
        cluster = _load_again(client, "update from", as_json, reset=names if reset else ())
        _check_names(client, cluster, names, "update", f"its files say which there are: {' '.join(cluster.files)}")
        now = {"python": entry, "version": version, "config": config_file}
        if not as_json:
            _show_kept(cluster, names, {key for key, value in now.items() if value is not None})
        changed = overrides.with_overrides(cluster, names, entry, version, config_file)
        message = UpdateServices(plans.to_json(changed).decode("ascii"), names, force)
        return _change(client, message, UPDATE, Patience.of(wait, timeout_s), as_json, names)


@click.command(
    epilog="""\b
Examples:
  svcd scale api=8         api.0 to api.7, until svcd ends or scales it again
  svcd scale api=8 web=2   several at once
"""
)
@click.argument("numbers", nargs=-1, required=True, metavar="NAME=N...")
@waiting
@targeted
def scale(target: Target, numbers: tuple[str, ...], wait: bool, timeout_s: float | None, as_json: bool) -> int:
    """Change how many instances of services there are.

    Those that stay are not touched, unless the files say something else of them now.
    """
    scales = dict(map(_number, numbers))
    with target.connect("scale") as client:
        cluster = _load_again(client, "scale with", as_json, scales)
        message = _message(cluster, mode="update", services=tuple(scales))
        return _change(client, message, SCALE, Patience.of(wait, timeout_s), as_json)


def _number(text: str) -> tuple[str, int]:
    name, sign, number = text.partition("=")
    if not (sign and name and number.isascii() and number.isdigit() and 1 <= int(number[:9]) <= INSTANCE_LIMIT):
        raise click.UsageError(f"{text!r} is no NAME=N with N from 1 to {INSTANCE_LIMIT}; to have none: svcd stop")
    return name, int(number)


# ---- reading ---------------------------------------------------------------------------------------------------------


def _load(
    target: Target, client: Client, purpose: str, files: Sequence[str], profiles: Sequence[str], as_json: bool
) -> ClusterSpec:
    """The cluster of ``files``, to take the place of the one that runs."""
    running = cluster_files.in_force(client)
    cluster = cluster_files.load(files, purpose, as_json, profiles=profiles, running=running)
    if cluster.name == running.name:
        return cluster
    if target.cluster is None and cluster.files != running.files:  # else it was started under another name
        text = f"cannot {purpose} {' '.join(files)}: it is for cluster {cluster.name}, and {running.name} runs here"
        raise CommandFailed(text, Exit.USAGE, f"--cluster {running.name} says that it is meant for that one")
    return replace(cluster, name=running.name)


def _load_again(
    client: Client,
    purpose: str,
    as_json: bool,
    scales: dict[str, int] | None = None,
    reset: Sequence[str] = (),
) -> ClusterSpec:
    """What the cluster's own files say now, with ``scales`` over those in force, and what earlier updates were told of
    all services but those to ``reset``.
    """
    running = cluster_files.in_force(client)
    _check_names(client, running, scales or {}, "scale")
    cluster = cluster_files.load_again(running, purpose, as_json, scales)
    return replace(overrides.kept(cluster, running, reset), name=running.name)


def _show_kept(cluster: ClusterSpec, names: Sequence[str], now: Collection[str]) -> None:
    """Where these services are not as their files say, because of earlier updates; ``now``: keys that are told anew."""
    for name, values in overrides.told(cluster).items():
        still = {key: value for key, value in values.items() if key not in now}
        if name in names and still:
            text = f"{name}: {overrides.options(still)} is in force, whatever its files say; --reset forgets it"
            click.echo(text)


def _check_names(client: Client, cluster: ClusterSpec, names: Iterable[str], purpose: str, hint: str = "") -> None:
    """A configuration is of whole services: one instance has none of its own."""
    services = {each.spec.name: each.service for each in cluster.services}
    for name in names:
        if name in services.values():
            continue
        if name in services:
            text = f"cannot {purpose}: {name} is one instance: name the service, {services[name]}"
            raise CommandFailed(text, Exit.USAGE)
        parent = _parent_of(client, name)
        if parent is not None:
            text = f"cannot {purpose}: {name} is a child of {parent}, which alone can make it anew"
            raise CommandFailed(text, Exit.USAGE)
        raise CommandFailed(f"cannot {purpose}: {no_service(name, services)}", Exit.USAGE, hint)


def _parent_of(client: Client, name: str) -> str | None:
    rows = client.ask(GetStatus(), StatusReported).services
    return next((row.parent for row in rows if row.name == name), None)


def _message(
    cluster: ClusterSpec, mode: str = "all", services: tuple[str, ...] = (), dry_run: bool = False
) -> ApplyConfiguration:
    return ApplyConfiguration(plans.to_json(cluster).decode("ascii"), mode, services, dry_run)


# ---- doing -----------------------------------------------------------------------------------------------------------


def _change(
    client: Client, message: Message, wording: Wording, patience: Patience, as_json: bool, named: Sequence[str] = ()
) -> int:
    """``named``: of each of these something is expected."""
    with patient(wording.verb):
        correlation, steps = client.begin_change(message)
        if not as_json:
            for line in [*(_steps(steps) if steps.steps or not named else ()), *_unmoved(steps, named)]:
                click.echo(line)
        accepted = client.wait_accepted(correlation)
        document = {"steps": [as_dict(each) for each in steps.steps]}
        if not patience.wait:
            return accepted_only(accepted, wording, as_json, document)
        ended = client.wait_end(correlation, patience.deadline)
        if as_json:
            print_json({**document, **outcome_document(ended)})
        elif steps.steps or ended.outcome != DONE:
            show_results(ended, wording, {each.service: DONE_WORDS.get(each.verb, "done") for each in steps.steps})
            show_last_words(client, ended)
    return Exit.OK if ended.outcome == DONE else Exit.NOT_AS_DESIRED


def _unmoved(report: PlanReported, named: Sequence[str]) -> Iterator[str]:
    """What is not replaced in place, as it does not run or cannot be, and is as its files say."""
    moved = {service_of(each.service) for each in report.steps}
    for name in named:
        if name not in moved:
            yield f"{name}: nothing differs; code that has changed is loaded when it starts next"


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
