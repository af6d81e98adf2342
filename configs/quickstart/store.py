"""Keeps notes, one a line, in a file. Others reach it on a loopback port: a line of JSON in, a line of JSON out.

Must not know HTTP: that is the api's.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from svcd import Service

LINE_LIMIT_BYTES = 64 * 1024


class Store(Service):
    async def init(self, config: dict[str, Any]) -> None:
        self.file = Path(config["file"])
        self.port: int = config["port"]
        self.notes = self.file.read_text().splitlines()
        self.peers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=LINE_LIMIT_BYTES)
        self.ctx.logger.info("serving", port=self.port, notes=len(self.notes))

    async def stop(self, reason: str) -> None:
        self.server.close()
        for peer in self.peers:
            peer.close()
        self.ctx.logger.info("closed", reason=reason)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.add(writer)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # gone, or a line beyond the limit
            pass
        finally:
            self.peers.discard(writer)
            writer.close()

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            if "add" in request:
                self._add(str(request["add"]))
        except (ValueError, TypeError) as error:
            return {"error": str(error)}
        return {"notes": self.notes, "pid": os.getpid()}

    def _add(self, note: str) -> None:
        """A note counts once it is on disk."""
        note = " ".join(note.split())
        with self.file.open("a") as file:
            file.write(note + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.notes.append(note)
