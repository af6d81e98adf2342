"""A script as ``__main__`` in the main thread, with the control loop in a thread beside it.

Must not change what the script finds: signals, ``sys.argv`` and ``__main__`` are those of ``python script.py``.

On a stop the process sends itself SIGTERM, which a script that does not handle it dies of, like any program. Whether
the controller still hears ``stopping`` then is a matter of luck; it is the one that asked.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from svcd.protocol.messages import ServiceSpec
from svcd.worker_runtime.exceptions import one_line
from svcd.worker_runtime.interpreter import fresh_main
from svcd.worker_runtime.lifecycle import OK, USER_FAILURE, exit_code_of
from svcd.worker_runtime.orders import Orders
from svcd.worker_runtime.reports import Reports

FAREWELL_S: Final = 2.0


class Script:
    """One run of one script. ``run`` belongs to the main thread, everything with an underscore and ``async`` to the
    control thread, which has the loop until the script has ended.
    """

    def __init__(self, spec: ServiceSpec, orders: Orders, reports: Reports) -> None:
        self._spec = spec
        self._orders = orders
        self._reports = reports
        self._loop = orders.loop
        self._go: SimpleQueue[bool] = SimpleQueue()
        self._begun = self._loop.create_future()
        self._ended = self._loop.create_future()

    def run(self) -> int:
        """The exit code."""
        script = self._spec.script or ""
        try:
            with open(script, "rb") as file:
                code = compile(file.read(), script, "exec", dont_inherit=True)
        except Exception as error:
            self._reports.failed("load", error)
            return USER_FAILURE
        self._reports.state("loaded")
        control = threading.Thread(target=self._serve, name="svcd", daemon=True)
        control.start()
        exit_code = self._execute(code, script) if self._go.get() else OK
        _join_others(control)
        self._loop.call_soon_threadsafe(self._end)
        control.join(FAREWELL_S)
        return exit_code

    def _execute(self, code: object, script: str) -> int:
        main = fresh_main()
        main.__dict__.update({"__file__": script, "__cached__": None})
        sys.argv = [script]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._tell(self._begin)  # from now on it can be stopped, and not before
        try:
            exec(code, main.__dict__)  # type: ignore[arg-type]  # made by compile
        except (SystemExit, KeyboardInterrupt) as error:
            exit_code = exit_code_of(error)
            line = one_line(error) if exit_code else None
            self._tell(lambda: self._reports.state("stopping", line))
            return exit_code
        except BaseException as error:
            failure = error
            self._tell(lambda: self._reports.failed("run", failure))
            return USER_FAILURE
        self._tell(lambda: self._reports.state("stopping"))
        return OK

    def _tell(self, report: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(report)

    # ---- the control thread ----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())  # they are the script's
        self._loop.run_until_complete(self._control())

    async def _control(self) -> None:
        orders, reports = self._orders, self._reports
        runs = await orders.until(lambda: orders.init_asked)
        if runs:
            reports.state("initialized")
            runs = await orders.until(lambda: orders.start_asked)
        if runs:
            reports.state("starting")
            reports.phase = "run"
        self._go.put(runs)
        if runs:
            await self._begun
            await orders.until(self._ended.done)
            if not self._ended.done():
                reports.state("stopping")
                os.kill(os.getpid(), signal.SIGTERM)
        else:
            reports.state("stopping")
        await self._ended

    def _begin(self) -> None:
        self._reports.state("running")
        self._begun.set_result(None)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        self._orders.changed()


def _join_others(control: threading.Thread) -> None:
    """Wait for the script's own threads, as the interpreter would at its end."""
    for thread in threading.enumerate():
        if thread not in (control, threading.current_thread()) and not thread.daemon:
            thread.join()
