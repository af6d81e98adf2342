"""The controller's two clocks: what happens at one moment has one time, on a machine that stands still now and then."""

from __future__ import annotations

from typing import Any

import pytest

from svcd.supervisor.controller import clock


class Machine:
    """``time`` as the clock sees it. ``stalls``: for how long it stands still before each of the next readings."""

    def __init__(self, *stalls: float) -> None:
        self.passed_s = 1000.0
        self.set_s = 1_700_000_000.0
        self.stalls = list(stalls)

    def monotonic(self) -> float:
        self.passed_s += self.stalls.pop(0) if self.stalls else 1e-6
        return self.passed_s

    def time(self) -> float:
        return self.monotonic() + self.set_s


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made: Any = Machine()
    monkeypatch.setattr(clock, "time", made)
    monkeypatch.setattr(clock, "_ahead_s", 0.0)
    return made  # type: ignore[no-any-return]  # it stands for a module


@pytest.mark.parametrize("place", range(4))
def test_a_stall_in_the_middle_of_a_reading_moves_nothing(machine: Machine, place: int) -> None:
    named = clock.wall(900.0)
    assert named == pytest.approx(machine.set_s + 900.0, abs=clock.SET_S)
    machine.stalls = [*[1e-6] * place, 5.0]
    assert clock.wall(900.0) == named


def test_a_clock_that_was_set_is_followed(machine: Machine) -> None:
    clock.wall()
    machine.set_s -= 3600.0
    assert clock.wall(900.0) == pytest.approx(machine.set_s + 900.0, abs=clock.SET_S)


def test_a_machine_on_which_every_reading_takes_long_tells_the_time_all_the_same(machine: Machine) -> None:
    machine.stalls = [0.01] * 1000
    assert clock.wall(900.0) == pytest.approx(machine.set_s + 900.0, abs=0.1)
