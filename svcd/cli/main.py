"""``svcd``: the commands, and what holds for all of them.

Must not import what a single command needs: each is loaded when it is called.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Final

import click

from svcd.cli.failures import Failure

COMMANDS: Final = {
    "start": "start",
    "stop": "orders",
    "restart": "orders",
    "signal": "orders",
    "shutdown": "orders",
    "status": "status",
    "logs": "logs",
    "validate": "checks",
    "schema": "checks",
    "graph": "graph",
    "version": "checks",
}
"""Each command and the module that has it, in the order of the help."""


class Commands(click.Group):
    """Imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command = getattr(importlib.import_module(f"svcd.cli.{module}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib  # noqa: PLC0415 - for a mistake alone

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            raise click.UsageError(
                f"no command {args[0]!r}" + (f"; did you mean {near[0]}?" if near else ""), ctx
            ) from error


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def svcd() -> None:
    """Run the services of a cluster.yaml: in dependency order, restarted when they crash, drained on SIGTERM.

    \b
    svcd start cluster.yaml      run it in the foreground; Ctrl-C drains
    svcd start cluster.yaml -d   run it in the background
    svcd status                  who is up, since when, why not
    svcd logs -f api             what api prints
    svcd shutdown                stop everything, in reverse order

    Exit codes: 0 all as desired, 3 something is not, 4 no daemon runs, 2 bad usage or configuration, 1 anything else.
    """


def main() -> None:
    """The console script. A user never sees a traceback of ours, unless SVCD_DEBUG is set."""
    try:
        svcd.main(prog_name="svcd", standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.Abort:
        print("svcd: interrupted; what was asked for stays in force", file=sys.stderr)
        sys.exit(130)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except Failure as failure:
        failure.show()
        sys.exit(failure.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("SVCD_DEBUG"):
            traceback.print_exc()
        print(f"svcd: internal error: {type(error).__name__}: {error} (SVCD_DEBUG=1 shows where)", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
