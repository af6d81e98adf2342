"""``validate``, ``schema``, ``version``: what needs no daemon.

Must not start anything.
"""

from __future__ import annotations

import os
from typing import Any

import click

import svcd
from svcd.cli.failures import Exit, Failure
from svcd.cli.options import print_json


def load_files(files: tuple[str, ...]) -> Any:
    """The validated cluster of ``files``; every problem is printed, each on its line, when it is not valid."""
    from svcd.supervisor.config.errors import ConfigurationError  # noqa: PLC0415 - heavy
    from svcd.supervisor.config.load import load  # noqa: PLC0415

    try:
        return load(files, os.environ)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        count = len(error.problems)
        raise Failure(f"cannot use {', '.join(files)}: {count} problem{'s' if count > 1 else ''}", Exit.USAGE) from None


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def validate(files: tuple[str, ...], as_json: bool) -> None:
    """Check configuration files (layers: later ones win) and report every problem at once.

    \b
    svcd validate cluster.yaml
    """
    if as_json:
        _validate_json(files)
        return
    cluster = load_files(files)
    click.echo(f"{', '.join(files)}: cluster {cluster.name}, {len(cluster.services)} services, no problems")


def _validate_json(files: tuple[str, ...]) -> None:
    import dataclasses  # noqa: PLC0415

    from svcd.supervisor.config.errors import ConfigurationError  # noqa: PLC0415
    from svcd.supervisor.config.load import load  # noqa: PLC0415

    try:
        cluster = load(files, os.environ)
    except ConfigurationError as error:
        print_json({"valid": False, "problems": [dataclasses.asdict(each) for each in error.problems]})
        raise click.exceptions.Exit(int(Exit.USAGE)) from None
    names = [each.spec.name for each in cluster.services]
    print_json({"valid": True, "cluster": cluster.name, "services": names, "problems": []})


@click.command()
def schema() -> None:
    """Print the JSON Schema of cluster.yaml, for editors.

    \b
    svcd schema > cluster.schema.json
    """
    from svcd.supervisor.config.schema import json_schema  # noqa: PLC0415 - heavy

    print_json(json_schema())


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def version(as_json: bool) -> None:
    """Print svcd's version."""
    if as_json:
        print_json({"version": svcd.__version__})
    else:
        click.echo(f"svcd {svcd.__version__}")
