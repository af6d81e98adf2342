"""``svcd call``: asks a Python service for something, and shows what comes.

Must not decide what an argument is: it goes as it was typed, and the method's annotations say what is made of it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from svcd.cli import columns
from svcd.cli.completion import offer_methods
from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.options import Target, parse_duration, print_json, targeted

if TYPE_CHECKING:
    from svcd.client.asynchronous import AsyncClient
    from svcd.protocol.call_errors import CallError

NO_CLUSTER: Final = "svcd start FILE starts one; --cluster, --run-dir or SVCD_RUN_DIR say which one is meant"


@click.command(
    epilog="""\b
Examples:
  svcd call billing.charge user=ann cents=5    prints what it returns
  svcd call billing.history user=ann           a stream: a line for each
  svcd call reports.make tags='["a", "b"]'     JSON, where it is no text
  svcd call --wait 10s --timeout 1m reports.make
"""
)
@click.argument("name", metavar="SERVICE.METHOD", shell_complete=offer_methods)
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--timeout", "timeout_s", callback=parse_duration, metavar="T",
    help="Give up after this time (exit 3); by default 30s, for streams never.",
)  # fmt: skip
@click.option(
    "--wait", "wait_s", callback=parse_duration, metavar="T", help="Wait so long for a service that does not run."
)
@targeted
def call(
    target: Target,
    name: str,
    arguments: Sequence[str],
    timeout_s: float | None,
    wait_s: float | None,
    as_json: bool,
) -> int:
    """Call a method of a Python service.

    A VALUE is JSON where the method's annotation takes that, else text: cents=5
    is a number for an int and a text for a str. Texts and bytes are printed as
    they are, everything else as JSON.
    """
    service, dot, method = name.partition(".")
    if not (service and dot and method):
        raise click.UsageError(f"{name!r} is no method: name it SERVICE.METHOD")
    if timeout_s is not None and not timeout_s > 0:
        raise click.UsageError("a timeout must be more than 0")
    texts = _texts(arguments)

    from svcd.protocol.call_errors import CallError  # noqa: PLC0415 - with the engine, after what can go wrong before

    try:
        asyncio.run(_call(_client(target), name, texts, timeout_s, wait_s, as_json))
    except CallError as error:
        raise _failure(name, error, wait_s) from None
    return Exit.OK


def _texts(arguments: Sequence[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for each in arguments:
        key, equals, text = each.partition("=")
        if not (key and equals):
            raise click.UsageError(f"{each!r} is no argument: write KEY=VALUE")
        if key in texts:
            raise click.UsageError(f"{key} is given twice")
        texts[key] = text
    return texts


def _client(target: Target) -> AsyncClient:
    """Within a process that svcd runs, without a word about it, that one's cluster is meant."""
    from svcd.client.asynchronous import AsyncClient  # noqa: PLC0415 - see above
    from svcd.client.place import CONTROL  # noqa: PLC0415

    if os.environ.get(CONTROL) and not (target.cluster or target.run_dir):
        return AsyncClient()
    return AsyncClient(run_dir=target.find().run_dir)


async def _call(
    client: AsyncClient, name: str, texts: dict[str, str], timeout_s: float | None, wait_s: float | None, as_json: bool
) -> None:
    """A stream says that it is one, before anything is begun."""
    from svcd.protocol.call_errors import CallRefused  # noqa: PLC0415 - see above

    async with client:
        try:
            value = await client.call_typed(name, texts, timeout_s, wait_s)
        except CallRefused as error:
            if error.method_is != "stream":
                raise
        else:
            _print(value, as_json)
            return
        await _print_stream(client, name, texts, timeout_s, wait_s, as_json)


async def _print_stream(
    client: AsyncClient, name: str, texts: dict[str, str], timeout_s: float | None, wait_s: float | None, as_json: bool
) -> None:
    from svcd.cli.answers import json_item, shown_item  # noqa: PLC0415 - see above

    form = json_item if as_json else shown_item
    async with client.stream_typed(name, texts, timeout_s, wait_s) as rows:
        async for row in rows:
            _write(form(row))


def _print(value: Any, as_json: bool) -> None:
    from svcd.cli.answers import plain, shown  # noqa: PLC0415 - see above

    if as_json:
        print_json(plain(value))
    else:
        _write(shown(value))


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def _failure(name: str, error: CallError, wait_s: float | None) -> CommandFailed:
    from svcd.protocol import call_errors as errors  # noqa: PLC0415 - see above

    text = _worded(name, str(error.args[0]) if error.args else "")
    if isinstance(error, errors.RemoteError):
        there = tuple(columns.harmless(line) for line in error.traceback.splitlines())
        return CommandFailed(text, Exit.OTHER, details=there)
    if isinstance(error, errors.ClusterUnavailable):
        return CommandFailed(text, Exit.NO_DAEMON, NO_CLUSTER)
    if isinstance(error, errors.CallRefused):
        return CommandFailed(text, Exit.USAGE)
    if isinstance(error, errors.DeadlineExceeded):
        return CommandFailed(text, Exit.NOT_AS_DESIRED, "--timeout T gives it longer")
    if isinstance(error, errors.ServiceUnavailable):
        hint = "" if wait_s is not None else f"svcd why {name.partition('.')[0]} tells more; --wait T waits for it"
        return CommandFailed(text, Exit.NOT_AS_DESIRED, hint)
    return CommandFailed(text, Exit.OTHER)


def _worded(name: str, text: str) -> str:
    """``cannot call NAME: reason``, with what was called named once."""
    if text.startswith("cannot "):
        return text
    for said in (f"{name} ", f"{name.partition('.')[0]} "):
        if text.startswith(said):
            return f"cannot call {name}: it {text.removeprefix(said)}"
    return f"cannot call {name}: {text.removeprefix(f'{name}: ')}"
