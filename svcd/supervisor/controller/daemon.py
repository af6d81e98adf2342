"""The controller, put together: who hears what, who carries out which order, how it begins and how it ends.

Must not decide about services (the core does) nor do I/O of its own beyond opening and closing what the rooms beside
it use.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from svcd.protocol import messages
from svcd.protocol.places import Places
from svcd.record import record
from svcd.supervisor import wiring
from svcd.supervisor.config import plan
from svcd.supervisor.config.launch import ServiceDefinition
from svcd.supervisor.controller import clock
from svcd.supervisor.controller.asking import Asking
from svcd.supervisor.controller.changing.changes import Changes
from svcd.supervisor.controller.changing.children import Children
from svcd.supervisor.controller.changing.handovers import Handovers
from svcd.supervisor.controller.changing.reload import Reload
from svcd.supervisor.controller.clients.audience import Audience
from svcd.supervisor.controller.clients.inquiries import Inquiries
from svcd.supervisor.controller.clients.publishing import Publisher
from svcd.supervisor.controller.clients.requests import Requests
from svcd.supervisor.controller.clients.self_reports import SelfReports
from svcd.supervisor.controller.clients.status import Status, Whole
from svcd.supervisor.controller.clients.stories import Stories
from svcd.supervisor.controller.control import Control, Peer
from svcd.supervisor.controller.engine import Engine
from svcd.supervisor.controller.journal import Journal
from svcd.supervisor.controller.part_news import PartNews
from svcd.supervisor.controller.parts import Parts, Receiver
from svcd.supervisor.controller.processes import containment, launching, takedown
from svcd.supervisor.controller.processes.announcements import Announcements
from svcd.supervisor.controller.processes.borrowed import Borrowed
from svcd.supervisor.controller.processes.errands import Errands
from svcd.supervisor.controller.processes.hooks import Hooks
from svcd.supervisor.controller.processes.runs import Runs
from svcd.supervisor.controller.python.admissions import Admissions
from svcd.supervisor.controller.python.callers import Callers
from svcd.supervisor.controller.python.endpoints import Endpoints
from svcd.supervisor.controller.python.exchange import Exchange
from svcd.supervisor.controller.python.fork_servers import ForkServers
from svcd.supervisor.controller.python.import_history import ImportHistory
from svcd.supervisor.controller.python.introductions import Introductions
from svcd.supervisor.controller.python.keeping import Keeping
from svcd.supervisor.controller.python.lookups import Lookups
from svcd.supervisor.controller.python.routes import Routes
from svcd.supervisor.controller.python.stubs import Stubs
from svcd.supervisor.controller.records import Records
from svcd.supervisor.controller.registry import Registry
from svcd.supervisor.controller.shutdown import COLLECTOR, EVERYTHING, Shutdown
from svcd.supervisor.controller.spawning import Spawner
from svcd.supervisor.controller.watching.health import Health
from svcd.supervisor.controller.watching.sampling import Sampler
from svcd.supervisor.controller.watching.timers import Timers
from svcd.supervisor.core import actions, events
from svcd.supervisor.core.machine import Machine
from svcd.supervisor.core.spec import Runner
from svcd.supervisor.core.states import WITH_PROCESS, State

ENDED_BADLY: Final = frozenset({State.BACKOFF, State.FAILED, State.UNAVAILABLE})


@record
class Arguments:
    """What the guardian says on the command line, as one JSON object."""

    cluster: str
    run_dir: str
    state_dir: str
    guardian_fd: int
    site: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: dict[str, Any]) -> Arguments:
        """As the guardian says them."""
        return cls(given["cluster"], given["run_dir"], given["state_dir"], given["guardian_fd"], tuple(given["site"]))


class Daemon:
    """One cluster's controller. ``run`` begins it and returns when the cluster has ended."""

    def __init__(self, arguments: Arguments, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._places = Places(Path(arguments.run_dir), Path(arguments.state_dir))
        self._cluster = plan.from_json(self._places.cluster_json.read_bytes())
        self._registry = Registry(self._cluster)
        self._guardian_pid = os.getppid()
        self._run_id = secrets.token_hex(8)
        self._whole = Whole()

        mains: set[int] = set()
        place = f"svcd-{self._cluster.name}-{zlib.crc32(os.fsencode(arguments.run_dir)):08x}"
        self._containment = containment.choose(place, self._run_id, self._guardian_pid, mains)
        self._journal = Journal(loop, Path(arguments.state_dir) / "svcd.log")
        self._machine = Machine(self._cluster.max_parallel)
        self._engine = Engine(self._machine)
        self._asking = Asking(self._engine.submit)
        self._timers = Timers(loop, self._engine.submit)
        self._runs = Runs(self._engine.submit, self._containment, mains)
        self._control = Control(loop, self._receive)
        self._records = Records(self._row_changed)
        self._publisher = Publisher(self._control, self._journal, self._whole)
        link = wiring.Link(socket.socket(fileno=arguments.guardian_fd))
        self._parts = Parts(loop, link, {}, self._guardian_lost)
        self._audience = Audience(self._parts.pids)
        history = ImportHistory(Path(arguments.state_dir), arguments.site, self._journal.note)
        self._fork_servers = ForkServers(loop, self._parts, self._runs, self._registry, history, self._journal.note)
        self._status = Status(
            self._registry, arguments.state_dir, self._machine, self._records, self._whole, self._part_pids
        )
        self._sampler = Sampler(loop, self._programs, self._records.take_usage)
        self._around = launching.Surroundings(
            self._cluster,
            str(self._places.control),
            str(self._side_door),
            arguments.state_dir,
            Borrowed(self._places.run_dir),
        )
        self._errands = Errands(loop, self._parts, self._containment, mains, self._around, self._run_id)
        self._hooks = Hooks(
            self._errands,
            self._registry,
            self._machine,
            self._engine.submit,
            self._runs.status_of,
            self._notice,
        )
        self._shutdown = Shutdown(loop, self._asking, self._errands, self._hooks, self._parts, self._enter)
        self._requests = Requests(
            self._control,
            self._machine,
            self._registry,
            self._status,
            self._asking,
            self._shutdown.begin,
            self._may_ask,
        )
        self._stories = Stories(self._control, self._machine, self._records)
        self._requests.receivers.update(self._stories.receivers)
        self._endpoints = Endpoints(self._places.endpoints, lambda work: loop.run_in_executor(None, work))
        self._routes = Routes(self._registry, self._machine, self._tell_stub)
        self._lookups = Lookups(
            self._registry, self._machine, self._routes, self._engine.submit, self._asking, self._tell_stub
        )
        introductions = Introductions((self._runs, self._errands.runs), self._registry, self._guardian_pid)
        self._inquiries = Inquiries(
            self._control, self._registry, self._routes, self._lookups, introductions, self._requests
        )
        self._children = Children(self._registry, self._machine, self._routes, self._asking, self._tell_stub)
        self._stubs = Stubs(
            self._control,
            self._runs,
            self._registry,
            self._engine.submit,
            self._endpoints,
            self._routes,
        )
        self._admissions = Admissions(introductions, self._registry, self._runs, self._stubs.send)
        self._callers = Callers(loop, self._engine.submit, self._records.take_next_run, self._notice, self._ask_use)
        self._spawner = Spawner(
            loop,
            self._registry,
            self._runs,
            self._parts,
            self._callers.sockets,
            self._records,
            self._engine.submit,
            self._around,
            self._run_id,
            self._errands,
            Announcements(loop, self._runs, self._records, self._engine.submit),
            self._control.drain,
            self._fork_servers,
        )
        self._reload = Reload(self._errands, self._registry, self._places, arguments.site, self._notice)
        self._health = Health(
            loop, self._registry, self._errands, self._engine.submit, self._ask_health, self._records.take_check_output
        )
        self._exchange = Exchange(loop, self._runs, self._registry, self._stubs.send)
        self._keeping = Keeping(
            loop,
            self._places.states,
            self._registry,
            self._runs,
            self._exchange,
            self._stubs.tell,
            self._stubs.send,
            self._notice,
            self._journal,
        )
        self._keeping.is_current = lambda service, invocation: self._machine.services[service].invocation == invocation
        self._handovers = Handovers(
            loop,
            self._machine,
            self._registry,
            self._runs,
            self._routes,
            self._exchange,
            self._engine.submit,
            self._asking,
            self._keeping.tell,
            self._stubs.tell,
            self._stubs.send,
            self._spawner.spawn_from,
            self._switch_run,
            self._notice,
        )
        self._stubs.definition_of, self._stubs.on_loaded = self._handovers.definition_of, self._handovers.loaded
        self._stubs.is_successor = self._handovers.is_successor
        self._handovers.on_taken_over = self._keeping.taken_over
        self._self_reports = SelfReports(
            self._machine,
            self._registry,
            self._records,
            self._keeping,
            self._publisher,
            self._notice,
            self._handovers.is_successor,
        )
        for kind, receive in self._listeners().items():
            self._stubs.hears(kind, receive)
        self._changes = Changes(
            self._control,
            self._machine,
            self._registry,
            self._requests,
            self._places.cluster_json,
            self._handovers,
        )
        self._requests.receivers.update(self._changes.receivers)
        news = PartNews(
            self._parts,
            self._runs,
            self._errands,
            self._stubs,
            self._fork_servers,
            self._spawner,
            self._records,
            self._status,
            self._journal,
            self._notice,
        )
        own: dict[type, Receiver] = {wiring.SignalReceived: self._on_signal, wiring.Flushed: self._on_flushed}
        self._parts.receivers.update({**news.receivers, **self._fork_servers.receivers, **own})
        loop.set_exception_handler(self._on_internal_error)
        self._engine.connect(self._executors(), self._status.views_changed)

    async def run(self) -> None:
        """Open the doors, start what is eager, and stay until the cluster has ended."""
        self._registry.followed_by(self._callers)
        self._registry.followed_by(self._fork_servers)
        self._fork_servers.start_eager()
        self._engine.submit(events.ServicesRegistered(clock.now(), tuple(each.spec for each in self._cluster.services)))
        self._whole.state = "starting"
        self._open_doors()  # not before: who asks through them would hear of a cluster without services
        self._asking.ask(lambda key: events.StartRequested(clock.now(), key, ()), self._booted)
        await self._shutdown.ended
        await self._close()

    @property
    def _side_door(self) -> Path:
        """Where stubs that run as another user connect; the run directory's own socket is beyond their reach."""
        return self._places.run_dir / "stubs" / "control"

    def _open_doors(self) -> None:
        """Bind the sockets. Only if there are such stubs does the run directory let others pass through (0711)."""
        self._endpoints.open()
        control, events_socket = str(self._places.control), str(self._places.events)
        if not any(launching.needs_side_door(each, os.geteuid()) for each in self._cluster.services):
            self._control.open(control, events_socket, None)
            return
        self._side_door.parent.mkdir(mode=0o711, exist_ok=True)
        base = self._places.run_dir.parent
        ours = [base] if base.name == "svcd" and base.stat().st_uid == os.geteuid() else []
        for directory in (self._side_door.parent, self._places.run_dir, *ours):
            os.chmod(directory, 0o711)
        self._control.open(control, events_socket, str(self._side_door))

    # ---- what comes in ----------------------------------------------------------------------------------------------

    def _receive(self, peer: Peer, correlation: bytes, message: messages.Message) -> None:
        kind = type(message)
        if kind in self._stubs.receivers:
            self._stubs.receivers[kind](peer, message)
        elif kind in self._requests.receivers:
            self._audience.asked(peer.pid)
            self._requests.receive(peer, correlation, message)
        elif isinstance(message, messages.GetRoute):
            self._inquiries.receive(peer, correlation, message)
        else:
            self._control.rejected["not for the controller"] += 1

    def _listeners(self) -> dict[type[messages.Message], Callable[[Any], None]]:
        """What stubs say that is not for the core, and who hears it."""
        return {
            **self._self_reports.receivers,
            messages.HealthReported: self._health.take_answer,
            messages.ImportsRecorded: self._fork_servers.recorded,
            messages.UseReported: self._callers.disuse.take,
            messages.PeerAsked: self._admissions.asked,
            messages.ServiceLookup: self._lookups.begin,
            messages.StateExported: self._exchange.receive,
            messages.InterfaceReported: self._handovers.described,
            messages.HandedOver: self._handovers.handed_over,
            **self._children.receivers,
        }

    def _on_signal(self, message: wiring.SignalReceived, _fds: list[int]) -> None:
        if message.signal == signal.SIGHUP:
            self._reload.begin()
        else:
            self._shutdown.on_signal(message.signal)

    def _on_flushed(self, message: wiring.Flushed, _fds: list[int]) -> None:
        if message.service == EVERYTHING:
            self._shutdown.finish()
        else:
            self._records.take_tail(message.service, message.tail)

    def _ask_use(self, invocation: int) -> None:
        self._stubs.send(invocation, messages.ReportUse(invocation))

    def _row_changed(self, service: str) -> None:
        self._status.changed(service)

    def _programs(self) -> list[tuple[str, int]]:
        """(service, pid) of everything that does not report its own use; not of who takes over, or was replaced."""
        return [
            (run.service, run.pid)
            for run in self._runs.all()
            if run.pid is not None
            and self._registry[run.service].spec.runner is Runner.PROGRAM
            and self._machine.services[run.service].invocation == run.invocation
        ]

    def _part_pids(self) -> dict[str, int]:
        return {"guardian": self._guardian_pid, "controller": os.getpid(), **self._parts.pids}

    @staticmethod
    def _may_ask(peer: Peer) -> bool:
        return peer.uid in (0, os.geteuid())

    # ---- what the core orders ----------------------------------------------------------------------------------------

    def _executors(self) -> dict[type, Callable[[Any], None]]:
        return {
            actions.SpawnProcess: self._spawner.spawn,
            actions.TellStub: self._handovers.tell,
            **self._handovers.executors,
            actions.TellParent: self._children.tell,
            actions.AwaitReadiness: self._spawner.await_readiness,
            actions.CheckHealth: self._health.begin,
            actions.CeaseHealthChecks: self._health.cease,
            actions.RunHook: self._hooks.run,
            actions.KillHook: self._hooks.kill,
            **self._callers.executors,
            actions.AdoptSpec: self._adopt,
            actions.ForgetService: self._forget,
            actions.SignalProcess: lambda action: self._runs.send_signal(
                action.invocation, action.signal, action.group
            ),
            actions.KillProcess: lambda action: self._runs.kill(action.invocation),
            actions.ArmTimer: self._timers.arm,
            actions.CancelTimer: self._timers.cancel,
            actions.PublishTransition: self._publish_transition,
            actions.PublishNotice: self._publish_notice,
            actions.AnswerRequest: self._asking.answer,
            actions.EndCluster: self._shutdown.end,
        }

    def _publish_transition(self, action: actions.PublishTransition) -> None:
        self._status.transitioned(action.service, action.at)
        if action.new is State.STOPPING and action.invocation is not None:
            self._fork_servers.give_up(action.invocation, action.cause)
        if action.old in WITH_PROCESS and action.new not in WITH_PROCESS:
            self._records.end_run(action.service)
        if action.new is State.RUNNING:
            self._records.clear_words(action.service)
        elif action.new in ENDED_BADLY:
            self._parts.send(COLLECTOR, wiring.FlushRequested(0, action.service))
        self._publisher.transition(action)
        self._routes.transitioned(action)
        self._children.transitioned(action)
        self._callers.transitioned(action)

    def _publish_notice(self, action: actions.PublishNotice) -> None:
        self._notice(action.service, action.text)
        if not action.service and self._machine.is_ending:
            self._enter("stopping", action.text)  # nobody has asked for it: the core has decided so

    def _notice(self, service: str, text: str) -> None:
        if service in self._machine.services:
            self._records.take_notice(service, clock.now(), text)
        self._publisher.notice(service, text)

    def _tell_stub(self, invocation: int, message: messages.Message) -> None:
        self._stubs.send(invocation, message)

    def _ask_health(self, service: str, invocation: int, token: int, method: str) -> None:
        self._stubs.check_health(invocation, token, method)

    def _switch_run(self, definition: ServiceDefinition, action: actions.SwitchRun) -> None:
        """The successor is the service: what was known of the run before is history."""
        self._changes.take_in(definition)
        self._records.begin_run(action.service)
        self._status.changed(action.service)

    def _adopt(self, action: actions.AdoptSpec) -> None:
        """No process of the older definition is left."""
        self._registry.adopt(action.service)
        self._status.changed(action.service)

    def _forget(self, action: actions.ForgetService) -> None:
        self._children.forget(action)
        self._registry.forget(action.service)
        self._runs.forget(action.service)
        self._keeping.forget(action.service)
        self._records.forget(action.service)
        self._status.forget(action.service)

    def _booted(self, answer: actions.AnswerRequest) -> None:
        if self._whole.state == "starting":
            self._enter("running", answer.text)

    def _enter(self, state: str, text: str = "") -> None:
        """The cluster as a whole goes on to ``state``."""
        if self._whole.state == state:
            return
        self._whole.state, self._whole.cause = state, text
        self._status.changed()
        self._publisher.cluster(state, text)

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _on_internal_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A fault of ours in some callback: it costs what it was about, it is told, and supervision goes on."""
        error = context.get("exception")
        told = "".join(traceback.format_exception(error)) if error is not None else ""
        self._journal.note("internal error", text=context.get("message", ""), traceback=told)
        self._notice("", f"internal error of svcd ({context.get('message', '')}): see svcd.log in the state directory")

    async def _close(self) -> None:
        await self._keeping.close()
        self._enter("ended", self._whole.cause)
        await self._audience.wait()
        self._sampler.close()
        self._health.close()
        self._callers.close()
        self._fork_servers.close()
        self._timers.cancel_all()
        self._control.close()
        self._endpoints.close()
        self._containment.close()
        self._journal.close()
        self._parts.send_guardian(wiring.ClusterEnded(self._shutdown.exit_code))
        await self._parts.drained()
        self._parts.close()

    def _guardian_lost(self) -> None:
        """The guardian was killed: nothing may outlive it. There is nobody left to reap, to ask or to tell."""
        self._journal.note("guardian lost: taking everything down")
        takedown.kill_all((self._runs, self._errands.runs), self._containment)
        self._callers.close()
        self._control.close()
        self._endpoints.close()
        self._containment.close()
        self._journal.close()
        takedown.clear(self._places, self._guardian_pid)
        os._exit(1)
