"""Notes over HTTP: GET /notes lists them, POST /notes adds the body as one, GET / says who answers.

Must not keep any state: it asks the store, over one connection that lives as long as the service.
"""

import asyncio
import json
import os
from typing import Any

from svcd import Service

BODY_LIMIT_BYTES = 16 * 1024
REASONS = {200: "OK", 201: "Created", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large"}


class Api(Service):
    async def init(self, config: dict[str, Any]) -> None:
        self.port: int = config["port"]
        self.store_port: int = config["store_port"]
        self.turn = asyncio.Lock()

    async def start(self) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.store_port)
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.ctx.logger.info("serving", port=self.port)

    async def stop(self, reason: str) -> None:
        self.server.close()
        self.writer.close()
        self.ctx.logger.info("closed", reason=reason)

    async def _ask_store(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self.turn:
            self.writer.write(json.dumps(request).encode() + b"\n")
            await self.writer.drain()
            line = await self.reader.readline()
        if not line:
            raise ConnectionError("the store has gone")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            status, text = await self._answer(reader)
            body = text.encode()
            head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            await writer.drain()
        except (ConnectionError, ValueError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, str]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ", 2)
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(fields.get("content-length", "0"))
        if size > BODY_LIMIT_BYTES:
            return 413, "too much\n"
        body = (await reader.readexactly(size)).decode("utf-8", "replace")
        return await self._route(method, path, body)

    async def _route(self, method: str, path: str, body: str) -> tuple[int, str]:
        if path == "/":
            store = await self._ask_store({})
            return 200, f"api is pid {os.getpid()}, store is pid {store['pid']}\n"
        if path != "/notes":
            return 404, "try /notes\n"
        if method == "GET":
            return 200, "".join(f"{note}\n" for note in (await self._ask_store({}))["notes"])
        if method == "POST" and body.strip():
            notes = (await self._ask_store({"add": body}))["notes"]
            return 201, f"{len(notes)} notes\n"
        return 400, "POST a note as the body\n"
