"""docs/services.md: its example prints what it says, and its tables name all that there is, and nothing else.

Must not repeat the guide: it is read from the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from svcd.worker_runtime.calls.cancellation import Token
from svcd.worker_runtime.calls.request import Request
from svcd.worker_runtime.context import Context
from svcd.worker_runtime.signatures import GIVEN

GUIDE = (Path(__file__).parents[2] / "docs" / "services.md").read_text()
FOR_THE_RUNTIME = {"equip", "join", "live", "raise_children"}


def names_in(title: str) -> list[str]:
    """What stands in the first column of the table below that line, without its arguments' place in the sentence."""
    table = GUIDE.partition(f"\n{title}\n")[2].partition("\n|---")[2].partition("\n\n")[0]
    return [name for row in table.splitlines()[1:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_the_example_prints_what_is_shown(controller: Any, tmp_path: Path) -> None:
    (file,), (shown,) = (re.findall(rf"^```{kind}\n(.*?)^```", GUIDE, re.M | re.S) for kind in ("yaml", "text"))
    stub = controller.run_file(tmp_path, file)
    stub.expect_states("loaded", "initialized", "starting", "running")
    stub.stop("stopped by request")
    stub.expect_states("stopping")
    assert stub.end() == (0, shown, "")


def test_all_that_svcd_calls_is_there() -> None:
    said = dict.fromkeys(names_in("## What svcd calls"))
    assert set(said) == {f"{name}({', '.join(given)})" for name, given in GIVEN.items()}


def test_all_that_the_context_has_is_there() -> None:
    found = {name for name in dir(Context) if not name.startswith("_")} - FOR_THE_RUNTIME
    assert set(names_in("## self.ctx")) == found


def test_what_is_said_of_a_request_is_there() -> None:
    request = Request(1, "greet", "client", None, Token(), is_sync=False)
    for name in names_in("Within a request:"):
        assert hasattr(request, name.removeprefix("request."))
    for method in ("is_cancelled", "wait", "wait_async", "reason"):
        assert hasattr(request.token, method)
