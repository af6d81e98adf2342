"""``svcd config``: the merged configuration, and where each value of it comes from.

Must not judge it: ``svcd validate`` does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from svcd.cli import files as cluster_files
from svcd.cli.options import Target, print_json, targeted, with_profiles


@click.command(
    epilog="""\b
Examples:
  svcd config base.yaml prod.yaml    what comes of both, each value with its file and line
  svcd config                        the same of the files that the running cluster was started with
"""
)
@click.argument("files", nargs=-1, metavar="[FILE]...")
@click.option("--defaults", is_flag=True, help="Show what nobody has written, too.")
@with_profiles
@targeted
def config(target: Target, files: tuple[str, ...], defaults: bool, profiles: tuple[str, ...], as_json: bool) -> None:
    """Print the merged configuration of FILEs, or of the cluster that runs, and the origin of each value."""
    from svcd.supervisor.config.merged import merged  # noqa: PLC0415 - brings the reader

    words, chosen = (files, cluster_files.chosen(profiles)) if files else _of_running(target, profiles)
    with cluster_files.problems_told(words, "show", as_json):
        view = merged(words, os.environ, profiles=chosen)
    if as_json:
        print_json(view.as_json(defaults))
    else:
        click.echo(view.as_yaml(defaults), nl=False)


def _of_running(target: Target, profiles: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    from svcd.protocol.messages import ConfigurationReported, GetConfiguration  # noqa: PLC0415 - only without FILEs

    with target.connect("show the configuration") as client:
        report = client.ask(GetConfiguration(), ConfigurationReported)
    return report.files, tuple(profiles) or report.profiles
