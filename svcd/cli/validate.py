"""``svcd validate`` and ``svcd schema``: what a cluster file may say, and whether one does.

Must not start anything.
"""

from __future__ import annotations

import click

from svcd.cli import files as cluster_files
from svcd.cli.options import Target, print_json, with_json, with_profiles


@click.command(
    epilog="""\b
Examples:
  svcd validate cluster.yaml
  svcd validate base.yaml prod.yaml    as layers: the later one wins
"""
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@with_profiles
@with_json
def validate(files: tuple[str, ...], profiles: tuple[str, ...], as_json: bool) -> None:
    """Check cluster files, and show every problem at once.

    Each comes with its file, line, column and a way to mend it.

    Exit code 0: svcd start would accept them. 2: it would not.
    """
    cluster = cluster_files.load(files, "use", as_json, profiles=profiles, target=Target())
    names = [each.spec.name for each in cluster.services]
    if as_json:
        print_json({"valid": True, "problems": [], "cluster": cluster.name, "services": names})
    else:
        count = f"{len(names)} services" if len(names) != 1 else "1 service"
        click.echo(f"{' '.join(files)}: valid: cluster {cluster.name}, {count}")


@click.command(
    epilog="""\b
Example:
  svcd schema > cluster.schema.json  and show it to your editor
"""
)
@with_json
def schema(as_json: bool) -> None:
    """Print the JSON Schema of cluster files, for editors."""
    from svcd.supervisor.config.schema import json_schema  # noqa: PLC0415 - brings the validator

    print_json(json_schema())
