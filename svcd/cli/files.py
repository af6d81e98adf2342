"""Which arguments are FILEs, and how a cluster is read from them.

Must not import the reader at its top: commands about running services do without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from svcd.cli.exits import CommandFailed, Exit
from svcd.cli.options import Target, print_json
from svcd.record import as_dict

if TYPE_CHECKING:
    from svcd.cli.client import Client
    from svcd.supervisor.config.launch import ClusterSpec

ENDINGS: Final = (".yaml", ".yml")


def is_file(word: str) -> bool:
    """Whether an argument is a FILE: it exists, ends in .yaml or .yml, or contains a slash. Else it is a NAME."""
    return word.lower().endswith(ENDINGS) or "/" in word or os.path.isfile(word)


def are_files(words: Sequence[str]) -> bool:
    """Whether these are FILEs; mixing them with NAMEs is refused."""
    files = [is_file(word) for word in words]
    if all(files) or not any(files):
        return all(files) and bool(words)
    file, name = words[files.index(True)], words[files.index(False)]
    raise click.UsageError(f"{file} is a file and {name} is a service's name: name either files or services")


def load(
    files: Sequence[str],
    purpose: str,
    as_json: bool = False,
    *,
    profiles: Sequence[str] = (),
    running: ClusterSpec | None = None,
    beside: bool = False,
    target: Target | None = None,
) -> ClusterSpec:
    """The validated cluster of ``files``, later ones over earlier ones. Every problem at once ends the command.

    ``purpose`` completes "cannot … FILE". With ``as_json`` the problems are printed as JSON, too. ``running``: the
    configuration in force, whose ports, profiles and numbers of instances are kept, and whose addresses are no
    conflict. ``beside``: the files add to it, and may depend on its services. ``target``: where it is looked for when
    nobody has asked it.
    """
    from svcd.supervisor.config import load as reader  # noqa: PLC0415 - see above

    among, kept = running if beside else None, kept_from(running, target)
    with problems_told(files, purpose, as_json):
        return reader.load(files, os.environ, profiles=chosen(profiles), running=kept, among=among)


def kept_from(running: ClusterSpec | None, target: Target | None) -> Callable[[str], ClusterSpec | None]:
    """For ``load(running=…)``: ``running``, or what ``target`` leads to once the name is known."""
    return lambda name: _written_down(target, name) if running is None and target else running


def _written_down(target: Target, name: str) -> ClusterSpec | None:
    """The plan of the cluster, if it runs: what svcd listens on for it is no conflict of its own."""
    from svcd.protocol import places  # noqa: PLC0415 - see above
    from svcd.supervisor.config import plan  # noqa: PLC0415

    try:
        where = target.resolve(target.cluster or name)
        if places.running_at(where.run_dir) is None:
            return None
        return plan.from_json(where.cluster_json.read_bytes())
    except (CommandFailed, OSError, plan.PlanError):  # nowhere to run, ending just now, or of another version
        return None


def in_force(client: Client) -> ClusterSpec:
    """The configuration that the running cluster goes by."""
    from svcd.protocol.messages import ConfigurationReported, GetConfiguration  # noqa: PLC0415 - only with a daemon
    from svcd.supervisor.config import plan  # noqa: PLC0415

    report = client.ask(GetConfiguration(), ConfigurationReported)
    try:
        return plan.from_json(report.plan.encode())
    except plan.PlanError as error:
        raise CommandFailed(f"cannot understand the daemon: {error}") from None


def load_again(
    running: ClusterSpec, purpose: str, as_json: bool = False, scales: Mapping[str, int] | None = None
) -> ClusterSpec:
    """What the files that ``running`` was made from say now, read as they were then; with ``scales`` over its own."""
    from svcd.supervisor.config import load as reader  # noqa: PLC0415 - see above

    with problems_told(running.files, purpose, as_json):
        return reader.load(running.files, running.environ, scales=scales, running=lambda name: running)


@contextmanager
def problems_told(files: Sequence[str], purpose: str, as_json: bool) -> Iterator[None]:
    """Turns a configuration that cannot be used into words, or JSON, and an exit code."""
    from svcd.supervisor.config.errors import ConfigurationError  # noqa: PLC0415 - see above

    try:
        yield
    except ConfigurationError as error:
        problems = error.problems
    else:
        return
    if as_json:
        print_json({"valid": False, "problems": _plain(problems)})
    count = f"{len(problems)} problems" if len(problems) != 1 else "1 problem"
    names = " ".join(files)
    raise CommandFailed(f"cannot {purpose} {names}: {count}", Exit.USAGE, "", tuple(map(str, problems)))


def chosen(profiles: Sequence[str]) -> tuple[str, ...]:
    """The profiles that were named, or else those of SVCD_PROFILES (separated by commas)."""
    named = profiles or os.environ.get("SVCD_PROFILES", "").split(",")
    return tuple(filter(None, (each.strip() for each in named)))


def _plain(problems: Iterable[Any]) -> list[dict[str, Any]]:
    return [as_dict(each) for each in problems]
