"""``svcd config``: the merged configuration, and where each value of it comes from.

Must not judge it: ``svcd validate`` does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from svcd.cli import files as cluster_files
from svcd.cli.options import Target, print_json, targeted, with_profiles

if TYPE_CHECKING:
    from svcd.supervisor.config.launch import ClusterSpec


@click.command(
    epilog="""\b
Examples:
  svcd config base.yaml prod.yaml  what comes of both: values, files, lines
  svcd config                      the same of the running cluster's files
  svcd config --defaults one.yaml  and every key that nobody has written
"""
)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--defaults", is_flag=True, help="Show what nobody has written, too.")
@with_profiles
@targeted
def config(target: Target, files: tuple[str, ...], defaults: bool, profiles: tuple[str, ...], as_json: bool) -> None:
    """Print the merged configuration and where each value is from.

    Without FILE, the files that the cluster was started with are read again: what they say now, and svcd update and
    SIGHUP would bring in.
    """
    from svcd.supervisor.config.merged import merged  # noqa: PLC0415 - brings the reader

    running = None if files else _running(target)
    words, environ = (files, os.environ) if running is None else (tuple(map(_short, running.files)), running.environ)
    chosen = cluster_files.chosen(profiles) if profiles or running is None else running.profiles
    with cluster_files.problems_told(words, "show", as_json):
        view = merged(words, environ, profiles=chosen)
    if as_json:
        scales = {} if running is None else {"scales": running.scales}
        print_json({**view.as_json(defaults), **scales})
    else:
        click.echo("".join(_scales(running)) + view.as_yaml(defaults), nl=False)


def _running(target: Target) -> ClusterSpec:
    with target.connect("show the configuration") as client:
        return cluster_files.in_force(client)


def _short(file: str) -> str:
    """As it would be named from here, where that is shorter."""
    try:
        return min(os.path.relpath(file), file, key=len)
    except OSError:  # the current directory is gone
        return file


def _scales(running: ClusterSpec | None) -> list[str]:
    """What is not in the files."""
    found = {} if running is None else running.scales
    return [f"# svcd scale {name}={count} is in force\n" for name, count in found.items()]
