"""The restart policy's pure functions, by examples and by properties.

Must not involve a machine.
"""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from svcd.supervisor.core.events import ExitStatus
from svcd.supervisor.core.restart import (
    Ending,
    Fate,
    RestartRecord,
    backoff_delay_s,
    decide,
    exceeds,
    note_restart,
    succeeded,
)
from svcd.supervisor.core.spec import Backoff, Intensity, RestartMode, RestartPolicy

CRASH = Ending(at=0.0, status=ExitStatus(code=1))
QUICK = settings(deadline=None, database=None)


def test_backoff_grows_up_to_its_maximum() -> None:
    backoff = Backoff(0.5, 3.0, 10.0, 0.0)
    assert [backoff_delay_s(backoff, n, 0.0) for n in range(5)] == [0.5, 1.5, 4.5, 10.0, 10.0]


def test_backoff_after_very_many_restarts_does_not_overflow() -> None:
    assert backoff_delay_s(Backoff(0.1, 2.0, 30.0, 0.0), 100_000, 0.0) == 30.0
    assert backoff_delay_s(Backoff(0.0, 2.0, 30.0, 0.0), 100_000, 0.0) == 0.0


@QUICK
@given(
    st.builds(Backoff, st.floats(0, 100), st.floats(1, 10), st.floats(0, 1000), st.floats(0, 1)),
    st.integers(0, 5000),
    st.floats(-1, 1),
)
def test_a_delay_is_spread_by_its_jitter_and_never_negative(backoff: Backoff, attempt: int, jitter: float) -> None:
    plain = backoff_delay_s(backoff, attempt, 0.0)
    delay = backoff_delay_s(backoff, attempt, jitter)
    assert delay >= 0
    assert plain <= backoff.max_s
    assert abs(delay - plain) <= plain * backoff.jitter * (1 + 1e-9) or math.isclose(delay, plain)


@QUICK
@given(st.lists(st.floats(0, 10), max_size=40), st.integers(0, 4), st.floats(0.1, 20))
def test_no_window_ever_holds_more_restarts_than_allowed_and_no_restart_is_denied_below(
    gaps: list[float], limit: int, within_s: float
) -> None:
    policy = RestartPolicy(intensity=Intensity(limit, within_s))
    record, times, at = RestartRecord(), list[float](), 0.0
    for gap in gaps:
        at += gap
        window = [each for each in times if at - within_s < each <= at]
        assert exceeds(policy.intensity, record, at) == (len(window) >= limit)
        if len(window) < limit:
            note_restart(policy, record, at)
            times.append(at)
    for end in times:
        assert sum(1 for each in times if end - within_s < each <= end) <= limit


def test_without_a_limit_nothing_is_remembered() -> None:
    policy, record = RestartPolicy(intensity=Intensity(None)), RestartRecord()
    for at in range(1000):
        note_restart(policy, record, at)
    assert not record.times
    assert decide(policy, record, CRASH, 0.0).fate is Fate.RESTART


def test_a_crash_after_a_long_run_restarts_at_once_and_forgets_the_past() -> None:
    policy, record = RestartPolicy(reset_after_s=10.0, backoff=Backoff(jitter=0.0)), RestartRecord()
    assert decide(policy, record, CRASH, 0.0).delay_s == 0.1
    assert decide(policy, record, CRASH, 0.0).delay_s == 0.2
    assert decide(policy, record, Ending(0.0, ExitStatus(code=1), ran_s=10.0), 0.0).delay_s == 0.0
    assert decide(policy, record, Ending(0.0, ExitStatus(code=1), ran_s=9.9), 0.0).delay_s == 0.1


@pytest.mark.parametrize(
    ("ending", "success"),
    [
        (Ending(0.0, ExitStatus(code=0)), True),
        (Ending(0.0, ExitStatus(code=3)), True),
        (Ending(0.0, ExitStatus(code=1)), False),
        (Ending(0.0, ExitStatus(signal=15)), False),
        (Ending(0.0, ExitStatus(code=0), at_fault=True), False),
        (Ending(0.0, ExitStatus(code=0), ours=True), False),
        (Ending(0.0, None), False),
    ],
)
def test_what_success_is(ending: Ending, success: bool) -> None:
    assert succeeded(RestartPolicy(success_codes=frozenset({0, 3})), ending) is success


@pytest.mark.parametrize("mode", RestartMode)
def test_prevented_ends_are_final(mode: RestartMode) -> None:
    policy = RestartPolicy(mode=mode, prevent_codes=frozenset({0, 7}), prevent_signals=frozenset({11}))
    record = RestartRecord()
    assert decide(policy, record, Ending(0.0, ExitStatus(code=7)), 0.0).fate is Fate.FAIL
    assert decide(policy, record, Ending(0.0, ExitStatus(signal=11)), 0.0).fate is Fate.FAIL
    assert decide(policy, record, Ending(0.0, ExitStatus(code=0)), 0.0).fate is Fate.COMPLETE


def test_a_kill_of_ours_says_nothing_about_the_service() -> None:
    policy = RestartPolicy(prevent_signals=frozenset({9}))
    assert decide(policy, RestartRecord(), Ending(0.0, ExitStatus(signal=9), ours=True), 0.0).fate is Fate.RESTART
