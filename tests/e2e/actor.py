"""A Python service that does what a test says, when it says so: ``Actor``, for services to be made from.

Must not know what it is told: the test's words are Python, with ``self`` and ``ctx``; what they come to is told back.

Each connection to the socket ``PLAYERS/NAME`` is one line of JSON there and one back. Who hangs up cancels what was
begun for him.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import sys

from svcd import Service


class Actor(Service):
    async def start(self):
        self.heard = []  # what listeners have heard
        self.gate = asyncio.Event()  # for methods that wait until the test lets them go on
        self.begun = 0
        self.ended = []
        self._path = os.path.join(os.environ["PLAYERS"], f"{self.ctx.name}.{self.ctx.invocation}")
        self._server = await asyncio.start_unix_server(self._hear, self._path, limit=1 << 20)
        os.chmod(self._path, 0o666)
        place = os.path.join(os.environ["PLAYERS"], self.ctx.name)
        if os.path.lexists(place):
            os.unlink(place)
        os.symlink(self._path, place)

    async def stop(self, reason):
        self._server.close()

    async def _hear(self, reader, writer):
        work = asyncio.create_task(self._do(json.loads(await reader.readline())))
        hung_up = asyncio.create_task(reader.read())
        await asyncio.wait((work, hung_up), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            writer.write(work.result().encode() + b"\n")
        else:
            work.cancel()
            await asyncio.wait((work,))
        hung_up.cancel()
        writer.close()

    async def _do(self, words):
        try:
            return json.dumps({"value": await self._evaluate(words)}, default=repr)
        except Exception as error:
            return json.dumps({"error": type(error).__name__, "text": str(error)})

    async def _evaluate(self, words):
        known = {**vars(sys.modules[type(self).__module__]), "self": self, "ctx": self.ctx}
        is_expression = True
        try:
            ast.parse(words, mode="eval")
        except SyntaxError:
            is_expression = False
        mode, flag = "eval" if is_expression else "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(words, "<test>", mode, flag)
        found = eval(code, known)
        value = await found if asyncio.iscoroutine(found) else found
        return value if is_expression else known.get("result")

    async def hold(self):
        """Wait for the gate, and say how that ended."""
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("well")
