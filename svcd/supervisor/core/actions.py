"""The orders that the core gives, in the imperative. Frozen values; the shell carries them out in their order.

Must not carry anything that only the shell knows (pids, descriptors). An order that fails comes back as an event.
"""

from __future__ import annotations

from enum import Enum

from svcd.record import record
from svcd.supervisor.core.events import TimerKind
from svcd.supervisor.core.spec import Hook
from svcd.supervisor.core.states import State


class StubOrder(Enum):
    """What a stub is told to do."""

    LOAD = "load"  # here is your code: import it
    INIT = "init"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    HAND_OVER = "hand over"  # finish what is in flight, export the state, and say so: a successor waits
    GO_ON = "go on"  # ... but it has failed: as if nothing had happened
    IMPORT = "import"  # here is the state of the one before
    DRAIN = "drain"  # take no new requests, finish those in flight, and say so
    STOP = "stop"


class Outcome(Enum):
    """How a request ended, for one service or for the whole."""

    DONE = "done"  # as desired
    FAILED = "failed"  # it ended, and is not as desired
    SUPERSEDED = "superseded"  # a later request wanted something else
    REFUSED = "refused"  # not carried out at all


@record
class SpawnProcess:
    """Make a process for this invocation: answered by ``ProcessSpawned`` or ``SpawnFailed``."""

    service: str
    invocation: int


@record
class SpawnSuccessor:
    """As ``SpawnProcess``, from the definition that the service is being updated to, beside the run that serves."""

    service: str
    invocation: int


@record
class HoldRoutes:
    """Who calls this service waits from now on, no longer than its deadline."""

    service: str


@record
class ReleaseRoutes:
    """Calls go where they went before."""

    service: str


@record
class SwitchRun:
    """From now on this invocation is the service, by its new definition; calls go there. ``old`` is being retired."""

    service: str
    old: int
    invocation: int


@record
class TellStub:
    """``reason`` goes with STOP: why, in words for a log."""

    service: str
    invocation: int
    order: StubOrder
    reason: str = ""


@record
class TellParent:
    """Tell the run that has created ``child`` that a run of this one has ended by itself: badly, for ``error``, or
    well.
    """

    service: str
    invocation: int
    child: str
    child_invocation: int
    error: str | None = None


@record
class AwaitReadiness:
    """Begin the service's own readiness probe. It ends with the invocation."""

    service: str
    invocation: int


@record
class CheckHealth:
    """Check the health of this run from now on, each result a ``HealthChecked``, until ``CeaseHealthChecks`` or the
    end of the invocation.
    """

    service: str
    invocation: int


@record
class CeaseHealthChecks:
    service: str
    invocation: int


@record
class RunHook:
    """Run the service's command for this moment: answered by ``HookEnded``, after its own timeout at the latest.

    ``cause``: why, in words, for its environment. An ON_FAILURE hook is not answered.
    """

    service: str
    invocation: int
    hook: Hook
    cause: str = ""


@record
class KillHook:
    """SIGKILL to a hook that still runs; its ``HookEnded`` follows."""

    service: str
    invocation: int
    hook: Hook


@record
class AwaitDemand:
    """Watch the sockets of an on-demand service that is down: the first connection is a ``DemandArose``.

    Ends with that event, with ``CeaseAwaitingDemand``, and when the service is spawned.
    """

    service: str


@record
class CeaseAwaitingDemand:
    service: str


@record
class AdoptSpec:
    """From now on this service is what its newest configuration says: no process of the older one is left."""

    service: str


@record
class ForgetService:
    """This service was removed; nothing of it runs."""

    service: str


@record
class SignalProcess:
    """Send ``signal`` to the service's process group (``group``), or to its main process alone."""

    service: str
    invocation: int
    signal: int
    group: bool = True


@record
class KillProcess:
    """SIGKILL to every process of the invocation, descendants included."""

    service: str
    invocation: int


@record
class ArmTimer:
    """One timer of each kind per service: arming it again replaces it."""

    service: str
    invocation: int
    kind: TimerKind
    delay_s: float


@record
class CancelTimer:
    service: str
    kind: TimerKind


@record
class PublishTransition:
    """A service went from ``old`` to ``new`` at ``at``, after ``spent_s`` seconds in ``old``, because of ``cause``.

    ``transaction``: the change that it is a step of.
    """

    at: float
    service: str
    invocation: int | None
    old: State
    new: State
    cause: str
    spent_s: float
    transaction: int = 0


@record
class PublishNotice:
    """Something worth telling that is no transition (a dependency with ``on_crash: notify`` crashed, say)."""

    at: float
    service: str
    text: str


@record
class ServiceResult:
    """What became of one service of a request; ``text`` says why when it is not DONE."""

    service: str
    outcome: Outcome
    text: str = ""


@record
class AnswerRequest:
    """The end of a request: exactly one for each. ``also`` names services that it moved without being named. ``text``:
    what it says of all of them.
    """

    request: str
    outcome: Outcome
    results: tuple[ServiceResult, ...] = ()
    also: tuple[str, ...] = ()
    text: str = ""

    @property
    def reason(self) -> str:
        """Why it did not end well, in words: where there are none, how it has ended."""
        return self.text or self.outcome.value


@record
class EndCluster:
    """Nothing runs any more and nothing will: the daemon ends with this exit code."""

    exit_code: int


Action = (
    SpawnProcess
    | TellStub
    | TellParent
    | AwaitReadiness
    | CheckHealth
    | CeaseHealthChecks
    | RunHook
    | KillHook
    | SpawnSuccessor
    | HoldRoutes
    | ReleaseRoutes
    | SwitchRun
    | AwaitDemand
    | CeaseAwaitingDemand
    | AdoptSpec
    | ForgetService
    | SignalProcess
    | KillProcess
    | ArmTimer
    | CancelTimer
    | PublishTransition
    | PublishNotice
    | AnswerRequest
    | EndCluster
)
