"""The command ``svcd`` as click sees it: the table of commands, loaded when used, and how their failures are shown.

Must not know what any command does.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

import click

from svcd.cli.columns import one_line
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.options import cluster_options, remember

COMMANDS: Final[dict[str, str]] = {
    "start": "start:start",
    "status": "status:status",
    "logs": "logs:logs",
    "stop": "orders:stop",
    "restart": "orders:restart",
    "pause": "orders:pause",
    "resume": "orders:resume",
    "signal": "orders:signal_",
    "call": "call:call",
    "why": "stories:why",
    "changes": "stories:changes",
    "plan": "configuring:plan",
    "apply": "configuring:apply",
    "register": "configuring:register",
    "unregister": "configuring:unregister",
    "update": "configuring:update",
    "scale": "configuring:scale",
    "config": "configuration:config",
    "shutdown": "orders:shutdown",
    "validate": "validate:validate",
    "graph": "graph:graph",
    "schema": "validate:schema",
    "version": "version:version",
}
"""Command -> module and function."""

SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Commands": ("start", "status", "logs", "stop", "restart", "shutdown"),
    "Commands that explain": ("why", "changes", "graph"),
    "Commands that change the configuration": (
        "validate", "plan", "apply", "config", "register", "unregister", "update", "scale",
    ),
    "Other commands": ("call", "pause", "resume", "signal", "schema", "version"),
}  # fmt: skip
"""Title -> commands, in the order in which help shows them."""

HELP_WIDTH: Final = 66

if sorted(COMMANDS) != sorted(name for names in SECTIONS.values() for name in names):
    raise AssertionError("the sections of the help lack a command, or have one twice")


class LazyGroup(click.Group):
    """Imports a command's module when the command is used, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in SECTIONS.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, each.get_short_help_str(HELP_WIDTH)) for name, each in found if each])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, name = target.partition(":")
        command: click.Command = getattr(import_module(f"svcd.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib  # noqa: PLC0415 - only for a slip

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            mend = f"; did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"there is no command {args[0]!r}{mend}", ctx)
        return super().resolve_command(ctx, args)


def _say_version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    """As everybody tries it first; ``svcd version`` does the same."""
    if wanted and not ctx.resilient_parsing:
        from svcd.cli.version import version  # noqa: PLC0415 - it is looked up in the installation

        ctx.invoke(version, as_json=False)
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
The first steps:
  svcd start cluster.yaml     run it here, and show it; Ctrl-C drains
  svcd start -d cluster.yaml  run it in the background
  svcd status                 who is up, since when, why not
  svcd logs -f web            what web prints
  svcd why web                what led to where it stands
  svcd apply cluster.yaml     bring in what has changed in the file
  svcd shutdown               stop everything in reverse order

\b
Exit codes: 0 all as desired · 3 something is not · 4 no daemon
2 bad usage or configuration · 1 anything else · 130 interrupted
""",
)
@click.option(
    "-V", "--version", is_flag=True, is_eager=True, expose_value=False, callback=_say_version,
    help="Show svcd's version.",
)  # fmt: skip
@cluster_options
def svcd(**given: str | None) -> None:
    """Run the services of a cluster file, in the order of their dependencies, and keep them so.

    With one cluster running, commands find it by themselves; else say which with --cluster or --run-dir.
    """
    remember(given)


def run(arguments: Sequence[str]) -> int:
    """Run the command line ``arguments``; returns the exit code, with every failure shown on stderr."""
    try:
        result: Any = svcd.main(list(arguments), prog_name="svcd", standalone_mode=False)
        return int(result) if isinstance(result, int) else int(Exit.OK)
    except CommandFailed as failure:
        complain(failure)
        return int(failure.code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return int(Exit.USAGE)
    except click.UsageError as error:
        complain(_as_failure(error, arguments))
        return int(Exit.USAGE)
    except click.ClickException as error:
        complain(CommandFailed(error.format_message()))
        return int(Exit.OTHER)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return int(Exit.INTERRUPTED)


def complain(failure: CommandFailed) -> None:
    """One line that says what, whole lines with the details, one line that says what helps."""
    click.echo(f"svcd: {one_line(failure.text)}", err=True)
    for line in failure.details:
        click.echo(line, err=True)
    if failure.hint:
        click.echo(f"hint: {failure.hint}", err=True)


def _as_failure(error: click.UsageError, arguments: Sequence[str]) -> CommandFailed:
    text = error.format_message().rstrip(".")
    if text[:1].isupper() and not text[1:2].isupper():
        text = text[0].lower() + text[1:]
    if error.ctx is not None:
        return CommandFailed(text, Exit.USAGE, f"{error.ctx.command_path} --help")
    command = next((each for each in arguments if each in COMMANDS), "")  # click does not say of which the option is
    return CommandFailed(text, Exit.USAGE, " ".join(filter(None, ("svcd", command, "--help"))))
