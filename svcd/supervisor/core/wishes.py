"""What people want: requests become desired states and marks; everything else follows from those.

Must not wait for anything nor know processes beyond marking their runs: answers come from ``requests`` when it is time.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Final

from svcd.supervisor.core import events, graph
from svcd.supervisor.core.actions import AnswerRequest, Outcome, ServiceResult, SignalProcess
from svcd.supervisor.core.cluster import Cluster
from svcd.supervisor.core.endings import Endings
from svcd.supervisor.core.pausing import Pausing
from svcd.supervisor.core.requests import Intent, Request
from svcd.supervisor.core.spec import StartMode
from svcd.supervisor.core.states import State
from svcd.supervisor.core.unit import Mark, Unit

STOPPED_BY_NAME: Final = "stopped by request"
NO_LONGER_NEEDED: Final = "no longer needed"
SHUTDOWN: Final = "cluster shutdown"
RESTARTED: Final = "restarted by request"
ASKED: Final = "asked to run"
GOING_UP: Final = frozenset({"start", "restart", "pause", "resume", "apply", "update"})  # what a shutdown refuses
NAMES_IN_WORDS: Final = 3


class Wishes:
    def __init__(self, cluster: Cluster, endings: Endings, pausing: Pausing) -> None:
        self._cluster = cluster
        self._endings = endings
        self._pausing = pausing
        self._shutdowns: list[Request] = []
        self._is_over = False

    # ---- start, restart ----

    def start(self, event: events.StartRequested) -> None:
        units = self._cluster.units.values()
        names = event.services or tuple(unit.name for unit in units if unit.spec.start is StartMode.EAGER)
        named = self.admit(event.request, "start", names)
        if named is None:
            return
        self._cluster.begin(f"start of {words_of(event.services) or 'the cluster'}")
        if not event.services:
            for unit in units:
                self.preload(unit)
        also = self.wake_all(named) if event.overrules else self._wake_on_behalf(named)
        for unit in named.values():
            if unit.run is not None and unit.run.is_to_pause:
                self._pausing.wish(unit, unit.run, False)
        self.open(Request(event.request, Intent.START, tuple(named), also), named.values())

    def wake_all(self, named: dict[str, Unit], reason: str = ASKED, overrules: bool = True) -> tuple[str, ...]:
        """These and all that they need are to run; returns the names of the others that were not up before. Unless it
        ``overrules``, what they need and was stopped by name stays down, and they wait for it.
        """
        moved = [unit for unit in graph.closure(named.values(), overrules) if self._wake(unit, named, reason)]
        return tuple(unit.name for unit in moved if unit.name not in named)

    def wake_for(self, unit: Unit, reason: str) -> tuple[str, ...]:
        """This unit and all that it needs are to run, and no person asks for it: what was stopped by name stays down.
        Returns as ``wake_all`` does.
        """
        asked, held_back = unit.asked, unit.held_back
        also = self.wake_all({unit.name: unit}, reason, overrules=False)
        unit.asked, unit.held_back = asked, held_back
        return also

    def _wake_on_behalf(self, named: dict[str, Unit]) -> tuple[str, ...]:
        also = [name for unit in named.values() for name in self.wake_for(unit, ASKED)]
        return tuple(name for name in dict.fromkeys(also) if name not in named)

    def preload(self, unit: Unit) -> None:
        """Have it loaded ahead of time, if that is its way and nothing of it runs."""
        if unit.preloads and unit.run is None and not (unit.up or unit.held_back):
            unit.preload = True
            self._cluster.enlist(unit)
            self._cluster.touch(unit)

    def restart(self, event: events.RestartRequested) -> None:
        named = self.admit(event.request, "restart", event.services)
        if named is None:
            return
        self._cluster.begin(f"restart of {words_of(named)}{', one after the other' if event.rolling else ''}")
        for unit in named.values():
            self._cluster.requests.overtake(unit.name, Intent.RESTART, f"a restart of {unit.name}", self._cluster.out)
        request = Request(event.request, Intent.RESTART, tuple(named))
        if event.rolling:
            request.change = self._cluster.transaction
            request.turns.extend(named)
            self.open(request, named.values())
            self.take_turn(request)
            return
        request.also = self._restart_now(named)
        self.open(request, named.values())

    def _restart_now(self, named: dict[str, Unit]) -> tuple[str, ...]:
        taken_along = [unit for unit in graph.stop_order(named.values()) if unit.name not in named]
        moved = self.wake_all(named)
        for unit in named.values():
            unit.reason = RESTARTED
            self._endings.mark(unit, Mark.RESTART, RESTARTED, f"{unit.name} was {RESTARTED}")
        return tuple(dict.fromkeys((*(unit.name for unit in taken_along), *moved)))

    def take_turn(self, request: Request) -> None:
        """The next service of a rolling restart."""
        while request.turns:
            unit = self._cluster.units.get(request.turns.popleft())
            if unit is not None and unit.name in request.open_goals:
                request.open_goals[unit.name] = unit.last_invocation
                self._restart_now({unit.name: unit})
                return

    def take_turns(self) -> bool:
        """Whether there was one to take."""
        due = list(self._cluster.requests.due)
        self._cluster.requests.due.clear()
        for request in due:
            self._cluster.transaction = request.change
            self.take_turn(request)
        return bool(due)

    def _wake(self, unit: Unit, named: dict[str, Unit], reason: str) -> bool:
        """Desired up; returns whether that changes anything. Who is named gets a clean record and another try."""
        is_named = unit.name in named
        run = unit.run
        by = unit.name if is_named else words_of(named)
        self._cluster.requests.overtake(unit.name, Intent.START, f"a start of {by}", self._cluster.out)
        if is_named:
            unit.asked, unit.held_back = True, False
        gone = is_over(unit)
        moved = not unit.up or gone
        if is_named or moved:
            self.clear_record(unit)
        if moved:
            unit.reason = reason
            self._cluster.enlist(unit)
        unit.up = True
        if run is None:
            retries = unit.state in (State.COMPLETED, State.BACKOFF)
            unit.again |= gone or (is_named and retries)
            if unit.again:
                unit.reason = reason
            if unit.again and unit.state is State.COMPLETED:  # at once: nobody may start against its old success
                self._endings.wait(unit)
        elif is_named and run.doomed and not run.from_outside:
            run.mark, run.mark_text = Mark.RESTART, ASKED
        self._cluster.touch(unit)
        return moved

    @staticmethod
    def clear_record(unit: Unit) -> None:
        unit.record.clear()
        unit.restarts = 0
        unit.stumbled = False

    # ---- stop ----

    def stop(self, event: events.StopRequested) -> None:
        named = self.admit(event.request, "stop", event.services)
        if named is None:
            return
        self._cluster.begin(f"stop of {words_of(event.services) or 'what nothing needs'}")
        also = tuple(unit.name for unit in graph.stop_order(named.values()) if unit.name not in named)
        for unit in named.values():
            unit.held_back = True
            self._stop_one(unit, STOPPED_BY_NAME)
        if event.unneeded:
            unneeded = self.unneeded()
            for unit in unneeded:
                self._stop_one(unit, NO_LONGER_NEEDED)
            named.update((unit.name, unit) for unit in unneeded)
        self.open(Request(event.request, Intent.STOP, tuple(named), also), named.values())

    def _stop_one(self, unit: Unit, text: str) -> None:
        self._cluster.requests.overtake(unit.name, Intent.STOP, f"a stop of {unit.name}", self._cluster.out)
        self.put_down(unit, text)
        if unit.state in (State.UNLOADED, State.FAILED, State.UNAVAILABLE):
            self._cluster.go(unit, State.STOPPED, text)
        elif unit.state is State.STOPPED:  # for another reason until now
            self._cluster.say(unit, text)

    def put_down(self, unit: Unit, text: str) -> None:
        """Desired down; its run ends after those that rely on it."""
        unit.up, unit.again, unit.queued, unit.asked, unit.down_text = False, False, False, False, text
        unit.preload = unit.standing_in = unit.given_up = False
        words = f"{unit.name} was {text}"
        self._cluster.enlist(unit)
        self._endings.release_stood_in(unit, words)
        self._endings.mark(unit, Mark.ASKED, text, words)
        self._cluster.touch(unit)

    def unneeded(self) -> list[Unit]:
        """What is up though nobody asked for it, and nothing that anybody asked for needs it (any more)."""
        up = [unit for unit in self._cluster.units.values() if unit.up]
        needed = dict.fromkeys(unit for unit in up if unit.asked)
        pending = list(needed)
        while pending:
            for each in _needs(pending.pop()):
                if each.up and each not in needed:
                    needed[each] = None
                    pending.append(each)
        return [unit for unit in up if unit not in needed]

    @staticmethod
    def is_needed(unit: Unit) -> bool:
        """Whether anything that is up requires or wants this unit, or runs against it."""
        return any(edge.dependent.up and (edge.pulls or edge.is_borrowed) for edge in unit.incoming)

    # ---- pause, resume ----

    def pause(self, event: events.PauseRequested) -> None:
        self._set_paused(event, Intent.PAUSE)

    def resume(self, event: events.ResumeRequested) -> None:
        self._set_paused(event, Intent.RESUME)

    def _set_paused(self, event: events.PauseRequested | events.ResumeRequested, intent: Intent) -> None:
        named = self.admit(event.request, intent.value, event.services)
        if named is None:
            return
        self._cluster.begin(f"{intent.value} of {words_of(named)}")
        for unit in named.values():
            text = f"a {intent.value} of {unit.name}"
            self._cluster.requests.overtake(unit.name, intent, text, self._cluster.out)
            if unit.run is not None and unit.state in (State.RUNNING, State.PAUSED):
                self._pausing.wish(unit, unit.run, intent is Intent.PAUSE)
        self.open(Request(event.request, intent, tuple(named)), named.values())

    # ---- shutdown ----

    def shut_down(self, event: events.ShutdownRequested) -> None:
        cluster = self._cluster
        if event.request is not None:
            request = Request(event.request, Intent.SHUTDOWN, ())
            cluster.requests.open(request, ())
            self._shutdowns.append(request)
        old = cluster.level
        if old is not None and old.value >= event.level.value:
            return
        cluster.level = event.level
        if old is None:
            cluster.begin(SHUTDOWN)
            for unit in cluster.units.values():
                cluster.requests.overtake(unit.name, Intent.SHUTDOWN, "the shutdown", cluster.out)
                self.put_down(unit, SHUTDOWN)
        if event.level is events.ShutdownLevel.DRAIN:
            return
        for unit in cluster.units.values():
            if unit.run is not None and event.level is events.ShutdownLevel.NOW:
                self._endings.hurry(unit, unit.run)
            elif unit.run is not None:
                self._endings.kill(unit, unit.run, f"{SHUTDOWN}: killed")

    def end_if_down(self) -> bool:
        """Once nothing runs any more after a shutdown: answer those who wait. Returns whether this was the end."""
        cluster = self._cluster
        if cluster.level is None or cluster.live:
            return False
        for request in self._shutdowns:
            cluster.requests.close_if_done(request, cluster.out)
        self._shutdowns.clear()
        was_over, self._is_over = self._is_over, True
        return not was_over

    # ---- answered at once ----

    def signal(self, event: events.SignalRequested) -> None:
        named = self.admit(event.request, "signal", event.services)
        if named is None:
            return
        results = []
        for unit in named.values():
            if unit.pid is None or unit.run is None:
                text = f"cannot signal {unit.name}: it has no process ({unit.state.value})"
                results.append(ServiceResult(unit.name, Outcome.FAILED, text))
            else:
                self._cluster.out.append(SignalProcess(unit.name, unit.run.invocation, event.signal, group=False))
                results.append(ServiceResult(unit.name, Outcome.DONE))
        failed = [each.text for each in results if each.text]
        outcome = Outcome.FAILED if failed else Outcome.DONE
        self._cluster.out.append(AnswerRequest(event.request, outcome, tuple(results), text="; ".join(failed)))

    # ---- admission ----

    def admit(self, request: str, verb: str, names: Iterable[str]) -> dict[str, Unit] | None:
        """The named units, each once, or None when the request was refused."""
        cluster = self._cluster
        cluster.requests.check_new(request)
        if cluster.level is not None and verb in GOING_UP:
            self.refuse(request, f"cannot {verb}: the cluster is shutting down")
            return None
        found = {name: cluster.units.get(name) for name in names}
        bad = [name for name, unit in found.items() if unit is None or unit.removed]
        if bad:
            self.refuse(request, f"cannot {verb}: {'; '.join(map(self._missing_words, bad))}")
            return None
        return {name: unit for name, unit in found.items() if unit is not None}

    def _missing_words(self, name: str) -> str:
        if name in self._cluster.units:
            return f"{name} is being removed"
        near = difflib.get_close_matches(name, self._cluster.units, 1)
        return f"no service {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")

    def refuse(self, request: str, text: str) -> None:
        self._cluster.out.append(AnswerRequest(request, Outcome.REFUSED, text=text))

    def open(self, request: Request, units: Iterable[Unit]) -> None:
        self._cluster.requests.open(request, units)
        for name in request.open_goals:
            self._cluster.touch(self._cluster.units[name])
        self._cluster.requests.close_if_done(request, self._cluster.out)


def is_over(unit: Unit) -> bool:
    """It has ended for good, and another start is another try: not so a task that has done its work."""
    return unit.state in (State.FAILED, State.UNAVAILABLE) or (unit.state is State.COMPLETED and not unit.is_task)


def _needs(unit: Unit) -> Iterator[Unit]:
    """What a unit that is up needs up: what it depends on, what its run relies on, its fallback while called for."""
    for edge in unit.outgoing:
        if edge.pulls or edge.is_borrowed:
            yield edge.target
    if unit.fallback is not None and unit.given_up:
        yield unit.fallback


def words_of(names: Iterable[str]) -> str:
    """Some names, for people: the first three, and how many more."""
    listed = list(names)
    more = len(listed) - NAMES_IN_WORDS
    return ", ".join(listed[:NAMES_IN_WORDS]) + (f" and {more} more" if more > 0 else "")
