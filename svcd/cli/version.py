"""``svcd version``.

Must not need a daemon.
"""

from __future__ import annotations

import click

from svcd import __version__
from svcd.cli.options import print_json, with_json


@click.command(epilog="\b\nExample:\n  svcd version --json")
@with_json
def version(as_json: bool) -> None:
    """Show svcd's version."""
    if as_json:
        print_json({"version": __version__})
    else:
        click.echo(f"svcd {__version__}")
