"""What a shell offers for the name of a service: those of the cluster that runs.

Must not print, fail, nor keep a person waiting: without an answer there is nothing to offer.
"""

from __future__ import annotations

from typing import Any, Final

import click

from svcd.cli.exits import CommandFailed
from svcd.cli.names import service_of
from svcd.cli.options import Target

PATIENCE_S: Final = 1.0


def offer_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Services and instances that begin with ``incomplete`` and are not on the line yet. A callback of click's."""
    said = ctx.params.get(param.name or "") or ()
    return [name for name in _known(ctx) if name.startswith(incomplete) and name not in said]


def offer_methods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Services that begin with ``incomplete``, each with the dot before a method. A callback of click's."""
    return [f"{name}." for name in dict.fromkeys(map(service_of, _known(ctx))) if name.startswith(incomplete)]


def _known(ctx: click.Context) -> list[str]:
    from svcd.protocol.messages import GetStatus, StatusReported  # noqa: PLC0415 - only when a key is pressed

    try:
        with _target(ctx).connect("complete") as client:
            rows = client.ask(GetStatus(), StatusReported, PATIENCE_S).services
    except (CommandFailed, OSError):
        return []
    return list(dict.fromkeys(name for row in rows for name in (row.service, row.name)))


def _target(ctx: click.Context) -> Target:
    """The cluster that the line means so far."""
    before: dict[str, Any] = ctx.parent.params if ctx.parent is not None else {}

    def said(name: str) -> str | None:
        return ctx.params.get(name) or before.get(name)

    return Target(said("run_dir"), said("state_dir"), said("cluster"))
