"""``svcd config``: the merged configuration, or the runtime settings, and where each value of it comes from.

Must not judge it: ``svcd validate`` does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from svcd.cli import files as cluster_files
from svcd.cli.completion import offer_names
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.names import no_service, service_of
from svcd.cli.options import Target, print_json, targeted, with_profiles
from svcd.cli.overrides import options, told

if TYPE_CHECKING:
    from svcd.supervisor.config.launch import ClusterSpec
    from svcd.supervisor.config.runtime_view import RuntimeView


@click.command(
    epilog="""\b
Examples:
  svcd config base.yaml prod.yaml  what comes of both: values, files, lines
  svcd config                      the same of the running cluster's files
  svcd config --defaults one.yaml  and every key that nobody has written
  svcd config --runtime web        in what the Python service web computes
"""
)
@click.argument("words", nargs=-1, metavar="[FILE|NAME]...", shell_complete=offer_names)
@click.option("--defaults", is_flag=True, help="Show what nobody has written, too.")
@click.option("--runtime", is_flag=True, help="Show the runtime settings of Python services, of NAMEs or of all.")
@with_profiles
@targeted
def config(
    target: Target, words: tuple[str, ...], defaults: bool, runtime: bool, profiles: tuple[str, ...], as_json: bool
) -> None:
    """Print the merged configuration and where each value is from.

    Without FILE, the files that the cluster was started with are read again: what they say now, and svcd update and
    SIGHUP would bring in. NAMEs go with --runtime, which also shows what SVCD_RUNTIME_* variables say.
    """
    if runtime:
        _show_runtime(target, words, profiles, as_json)
    else:
        _show_merged(target, words, defaults, profiles, as_json)


def _show_merged(
    target: Target, files: tuple[str, ...], defaults: bool, profiles: tuple[str, ...], as_json: bool
) -> None:
    from svcd.supervisor.config.merged import merged  # noqa: PLC0415 - brings the reader

    running = None if files else _running(target)
    words, environ = (files, os.environ) if running is None else (tuple(map(_short, running.files)), running.environ)
    chosen = cluster_files.chosen(profiles) if profiles or running is None else running.profiles
    with cluster_files.problems_told(words, "show", as_json):
        view = merged(words, environ, profiles=chosen)
    if as_json:
        beside = {} if running is None else {"scales": running.scales, "updates": told(running)}
        print_json({**view.as_json(defaults), **beside})
    else:
        click.echo("".join(_beside_files(running)) + view.as_yaml(defaults), nl=False)


def _show_runtime(target: Target, words: tuple[str, ...], profiles: tuple[str, ...], as_json: bool) -> None:
    """FILEs among the words say what is read, NAMEs what of it is shown."""
    from svcd.supervisor.config.runtime_view import runtime_view  # noqa: PLC0415 - brings the reader

    files = tuple(word for word in words if cluster_files.is_file(word))
    names = tuple(dict.fromkeys(service_of(word) for word in words if word not in files))
    running = None if files else _running(target)
    environ = os.environ if running is None else running.environ
    read = files if running is None else tuple(map(_short, running.files))
    kept = cluster_files.kept_from(running, target)
    with cluster_files.problems_told(read, "show", as_json):
        view = runtime_view(read, environ, profiles=cluster_files.chosen(profiles), running=kept)
    for name in names:
        if name not in view.services:
            raise CommandFailed(f"cannot show the runtime settings: {_why_not(name, view)}", Exit.USAGE)
    if as_json:
        print_json(view.of(names).as_json())
    else:
        click.echo(view.of(names).as_yaml(), nl=False)


def _why_not(name: str, view: RuntimeView) -> str:
    if name in view.others:
        return f"{name} has none, only services with python: or code: have"
    return no_service(name, {each: each for each in (*view.services, *view.others)})


def _running(target: Target) -> ClusterSpec:
    with target.connect("show the configuration") as client:
        return cluster_files.in_force(client)


def _short(file: str) -> str:
    """As it would be named from here, where that is shorter."""
    try:
        return min(os.path.relpath(file), file, key=len)
    except OSError:  # the current directory is gone
        return file


def _beside_files(running: ClusterSpec | None) -> list[str]:
    """What is not in the files."""
    if running is None:
        return []
    scales = [f"# svcd scale {name}={count} is in force\n" for name, count in running.scales.items()]
    return scales + [f"# svcd update {name} {options(each)} is in force\n" for name, each in told(running).items()]
