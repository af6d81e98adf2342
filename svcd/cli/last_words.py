"""What has just failed, with what it has printed last: that may be on its way from the pipe when the failure is told.

Must not wait for long: most of those who have said nothing have nothing to say.
"""

from __future__ import annotations

import time
from typing import Final

from svcd.cli.client import Client
from svcd.cli.status import WITH_LAST_WORDS
from svcd.protocol.messages import GetStatus, ServiceStatus, StatusReported

LOOKS: Final = 10  # counted, since a stall that lasts as long as all of them is to cost one
PAUSE_S: Final = 0.05


def heard(client: Client, report: StatusReported, names: tuple[str, ...] = ()) -> StatusReported:
    """``report``, which is of ``names`` or of all, as it is when they have been heard, or after a moment."""
    for _ in range(LOOKS):
        if not any(map(_is_speechless, report.services)):
            break
        time.sleep(PAUSE_S)
        report = client.ask(GetStatus(names), StatusReported)
    return report


def _is_speechless(row: ServiceStatus) -> bool:
    return row.state in WITH_LAST_WORDS and not row.last_output and row.exception is None
