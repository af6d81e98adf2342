"""Startable against a small model: random calls, delays, failures and cancellations on a loop that runs tick by tick.

Must not look into it: the model is told what was done, says where that leads, and compares when all is quiet.
"""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from startables import QUIET_TICKS, Boom, Gated, outcome_of, quiet

from svcd import AbortedError, Outcome, Startable, State, StateError
from svcd.worker_runtime.lifetime.life import FOLLOWING

NIGHTLY = os.environ.get("SVCD_HYPOTHESIS_PROFILE") == "nightly"
ENDS = st.sampled_from(["well", "badly", "cancelled"])


class OneStartable(RuleBasedStateMachine):
    """The model: whether it was told to start and to stop, how the raw calls have ended, and what errors there were."""

    with_task = (State.STARTING, State.STOPPING)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.SelectorEventLoop()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.complaints.append(context))
        self.it = self.made()
        self.told: list[list[BaseException | None]] = []
        self.waiters: list[tuple[Outcome, asyncio.Task[BaseException | None]]] = []
        self.starting: Outcome | None = None
        self.stopping: Outcome | None = None
        self.told_to_stop = False
        self.start_end: str | None = None
        self.stop_end: str | None = None
        self.failures: dict[str, BaseException] = {}
        self.given: list[BaseException] = []
        self.cut = 0  # how often the waiting task was cancelled
        self.in_flight = False  # something was let go or called, and not all of it may have happened
        self.seen = State.READY

    def made(self) -> Gated:
        return Gated()

    def within(self, call: Any) -> Any:
        """As code on the loop would call it; what it raises is returned."""

        async def inside() -> Any:
            try:
                return call()
            except StateError as error:
                return error

        return self.run(inside())

    def run(self, main: Any) -> Any:
        return self.loop.run_until_complete(main)

    # ---- what is done ------------------------------------------------------------------------------------------------

    @rule(hook=st.booleans())
    def start(self, hook: bool) -> None:
        before, told = self.it.state, []
        result = self.within(lambda: self.it.start(told.append) if hook else self.it.start())
        self.in_flight = True
        if before in (State.STOPPING, State.STOPPED):
            assert isinstance(result, StateError)
            return
        assert isinstance(result, Outcome)
        assert self.starting in (None, result)
        self.starting = result
        if hook:
            self.told.append(told)

    @rule(badly=st.booleans())
    def stop(self, badly: bool) -> None:
        error = Boom(len(self.given)) if badly else None
        result = self.within(lambda: self.it.stop(error))
        self.in_flight = True
        if error is not None and self.starting is None:
            assert isinstance(result, StateError)
            return
        assert isinstance(result, Outcome)
        assert self.stopping in (None, result)
        self.stopping, self.told_to_stop = result, True
        if error is not None:
            self.given.append(error)

    @precondition(lambda self: self.it.gate is not None and not self.it.gate.done())
    @rule(end=ENDS)
    def raw_call_ends(self, end: str) -> None:
        which = "stop" if self.it.calls[-1] != "start" else "start"
        error = {"well": None, "badly": Boom(which), "cancelled": asyncio.CancelledError()}[end]
        self.within(lambda: self.it.let(error))
        self.end(which, end, error)

    @precondition(lambda self: not self.in_flight and self.own_tasks())
    @rule()
    def its_task_is_cancelled(self) -> None:
        [task] = self.own_tasks()
        before = self.it.state
        self.within(task.cancel)
        if before is State.STARTED:  # it waits between the raw calls: the stop begins
            self.told_to_stop, self.in_flight, self.cut = True, True, 1
        else:
            self.end("start" if before is State.STARTING else "stop", "cancelled", None)

    def end(self, which: str, end: str, error: BaseException | None) -> None:
        self.in_flight = True
        if which == "start":
            self.start_end = end
        else:
            self.stop_end = end
        if error is not None:
            self.failures[which] = error

    def own_tasks(self) -> list[asyncio.Task[Any]]:
        return [task for task in asyncio.all_tasks(self.loop) if task.get_name().startswith("Gated")]

    @precondition(lambda self: self.starting is not None or self.stopping is not None)
    @rule(which=st.sampled_from(["start", "stop", "ended"]))
    def somebody_waits(self, which: str) -> None:
        outcome = {"start": self.starting, "stop": self.stopping, "ended": self.it.ended}[which]
        if outcome is not None:
            self.waiters.append((outcome, self.loop.create_task(outcome_of(outcome))))

    @precondition(lambda self: self.waiters)
    @rule(index=st.integers(0, 9))
    def a_waiter_is_cancelled(self, index: int) -> None:
        _outcome, task = self.waiters.pop(index % len(self.waiters))
        task.cancel()

    @rule(ticks=st.integers(1, 3))
    def time_passes(self, ticks: int) -> None:
        self.run(quiet(ticks))

    # ---- what follows ------------------------------------------------------------------------------------------------

    @rule()
    def all_is_quiet(self) -> None:
        self.run(quiet())
        self.in_flight = False
        assert self.it.state is self.expected_state()
        for outcome, task in self.waiters:
            assert task.done() is outcome.done()
            if task.done():
                assert task.result() is outcome.error
        self.check_errors()
        assert len(self.own_tasks()) == (self.it.state in self.with_task)

    def expected_state(self) -> State:
        if self.starting is None:
            return State.STOPPED if self.told_to_stop else State.READY
        if self.start_end is None:
            return State.STARTING
        if self.start_end == "well" and not self.told_to_stop:
            return State.STARTED
        return State.STOPPING if self.stop_end is None else State.STOPPED

    def check_errors(self) -> None:
        """Nothing is lost; each is where it belongs; the first one is the reason of the stop."""
        errors = self.it.errors
        assert len(errors) == len({id(error) for error in errors})
        assert [error for error in errors if error in self.given] == self.given
        wrecks = [end for end in (self.start_end, self.stop_end) if end not in (None, "well")]
        assert len(errors) == len(self.given) + len(wrecks) + self.cut
        if self.starting is not None and self.starting.done():
            self.check_failure("start", self.start_end, self.starting.error)
        if self.stopping is not None and self.stopping.done() and self.starting is not None:
            self.check_failure("stop", self.stop_end, self.stopping.error)
        if self.it.state in (State.STOPPING, State.STOPPED):
            assert self.it.ended.error in (errors[0] if errors else None, None)
            if self.start_end not in (None, "well"):
                assert self.it.ended.error is errors[0]

    def check_failure(self, which: str, end: str | None, error: BaseException | None) -> None:
        if end == "cancelled":
            assert isinstance(error, AbortedError)
        else:
            assert error is self.failures.get(which)

    @invariant()
    def what_holds_at_any_time(self) -> None:
        it, state = self.it, self.it.state
        assert state is self.seen or self.reachable(self.seen, state)
        self.seen = state
        assert it.ended.done() is (state in (State.STOPPING, State.STOPPED))
        for told in self.told:
            assert told == ([it.ended.error] if it.ended.done() else [])
        assert it.calls in ([], ["start"], [("stop", it.ended.error)], ["start", ("stop", it.ended.error)])
        if self.starting is not None and self.starting.done():
            assert state is not State.STARTING
            assert self.starting.error is None or state is State.STOPPED  # nothing is half open
        if self.stopping is not None and self.stopping.done():
            assert state is State.STOPPED

    @staticmethod
    def reachable(start: State, end: State) -> bool:
        return any(step is end or OneStartable.reachable(step, end) for step in FOLLOWING[start])

    def teardown(self) -> None:
        self.all_is_quiet()
        if self.starting is not None:
            if self.it.state in (State.STARTING, State.STARTED):
                self.stop(badly=False)
                self.run(quiet())
            for _ in range(2):
                if self.it.gate is not None:
                    self.raw_call_ends("well")
                    self.run(quiet())
            assert self.it.state is State.STOPPED
            assert len([call for call in self.it.calls if call != "start"]) == (self.stop_end is not None)
        for _outcome, task in self.waiters:
            task.cancel()
        self.run(quiet())
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
        self.it = self.waiters = self.starting = self.stopping = None  # type: ignore[assignment]
        gc.collect(0)
        assert self.complaints == []


class InOneTask(OneStartable):
    """The same, with a task that waits between the raw calls."""

    with_task = (State.STARTING, State.STARTED, State.STOPPING)

    def made(self) -> Gated:
        it = Gated()
        Startable.__init__(it, one_task=True)
        return it


TestOneStartable = OneStartable.TestCase
TestInOneTask = InOneTask.TestCase
TestOneStartable.settings = settings(max_examples=5000 if NIGHTLY else 60, stateful_step_count=30, deadline=None)
TestInOneTask.settings = TestOneStartable.settings


# ---- trees -----------------------------------------------------------------------------------------------------------


class Node(Startable):
    """A part or a parent of some, with its own delays and failures."""

    def __init__(self, plan: tuple[int, int, bool, bool], parts: list[Node], said: list[tuple[str, Node]]) -> None:
        self.start_ticks, self.stop_ticks, self.start_fails, self.stop_fails = plan
        self.parts, self.said = parts, said

    def ends_by_itself(self, told: list[Node]) -> bool:
        """It, or something in it, may stop before its parent stops it."""
        return self in told or self.start_fails or any(part.ends_by_itself(told) for part in self.parts)

    async def raw_start(self) -> None:
        self.said.append(("starting", self))
        try:
            for part in self.parts:
                await self.start_part(part)
            await quiet(self.start_ticks)
            if self.start_fails:
                raise Boom("start")
        finally:
            self.said.append(("start ended", self))

    async def raw_stop(self, error: BaseException | None) -> None:
        self.said.append(("stopping", self))
        await quiet(self.stop_ticks)
        self.said.append(("stop ended", self))
        if self.stop_fails:
            raise Boom("stop")


def flat(errors: tuple[BaseException, ...]) -> list[BaseException]:
    """Without the groups that they may be in."""
    found = []
    for error in errors:
        found += flat(error.exceptions) if isinstance(error, BaseExceptionGroup) else [error]
    return found


RARELY = st.sampled_from([False, False, False, False, False, True])
PLANS = st.tuples(st.integers(0, 3), st.integers(0, 3), RARELY, RARELY)
STOPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=4)


@settings(max_examples=5000 if NIGHTLY else 150, deadline=None)
@given(plans=st.lists(PLANS, min_size=7, max_size=7), stops=STOPS)
def test_a_tree_is_never_left_half_open(plans: list[Any], stops: list[Any]) -> None:
    said: list[tuple[str, Node]] = []
    leaves = [Node(plan, [], said) for plan in plans[3:]]
    middle = [Node(plans[1], leaves[:2], said), Node(plans[2], leaves[2:], said)]
    root = Node(plans[0], middle, said)
    nodes = [root, *middle, *leaves]
    told: list[Node] = []

    async def main() -> None:
        start = asyncio.ensure_future(outcome_of(root.start()))
        for ticks, index, badly in stops:
            await quiet(ticks)
            node = nodes[index]
            if node.state is not State.READY:
                told.append(node)
                node.stop(Boom("told") if badly else None)
        await asyncio.wait_for(start, 30)
        await outcome_of(asyncio.wait_for(root.stop(), 30))
        await quiet(QUIET_TICKS)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    begun = [node for node in nodes if ("starting", node) in said]
    assert {node.state for node in begun} == {State.STOPPED}
    assert {node.state for node in nodes if node not in begun} <= {State.READY}
    for node in begun:
        steps = [what for what, who in said if who is node]
        assert steps == ["starting", "start ended", "stopping", "stop ended"]
        own = [part for part in node.parts if part in begun]
        for part in own:
            assert part.stop_fails <= ("stop" in {str(error) for error in flat(node.errors)})
            assert part.ended.error is None or part.ended.error in node.errors
        by_parent = [part for part in own if not part.ends_by_itself(told)]
        assert all(said.index(("stopping", part)) > said.index(("stop ended", node)) for part in by_parent)
        order = [who for what, who in said if what == "stopping" and who in by_parent]
        assert order == by_parent[::-1]
