"""The example of docs/state.md does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from svcd.protocol.messages import ImportState, Start
from svcd.worker_runtime.state import pack_state

GUIDE = Path(__file__).parents[2] / "docs" / "state.md"


def test_the_example(controller: Any) -> None:
    code, output = (re.search(rf"```{kind}\n(.*?)```", GUIDE.read_text(), re.DOTALL) for kind in ("python", "text"))
    assert code is not None
    assert output is not None
    stub = controller.spawn()
    stub.run(start=False, code=code[1])
    stub.expect_states("loaded", "initialized")
    state = pack_state({"count": 41, "names": ["a"], "last": None})[0]
    stub.tell(ImportState(7, 0, 1, state, "1.4"), Start(7))
    stub.expect_states("starting", "running")
    stub.stops_well_with(output[1])
