"""The web application: GET / counts visits, POST /jobs queues one, GET /jobs says how they stand.

Must not do the work: the worker does, and reports back with POST /done.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import redis

from svcd import Context

QUEUE, DONE, VISITS = "jobs:waiting", "jobs:done", "visits"


class Application(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, database: "redis.Redis[Any]") -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.database = database


class Handler(BaseHTTPRequestHandler):
    server: Application

    def do_GET(self) -> None:
        database = self.server.database
        if self.path == "/":
            self._answer(200, f"visit number {database.incr(VISITS)}\n")
        elif self.path == "/jobs":
            self._answer(200, f"waiting {database.llen(QUEUE)}, done {database.llen(DONE)}\n")
        else:
            self._answer(404, "try / or /jobs\n")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode("utf-8", "replace")
        if self.path == "/jobs":
            self.server.database.lpush(QUEUE, body)
            self._answer(202, "queued\n")
        elif self.path == "/done":
            self.server.database.lpush(DONE, json.dumps(body))
            self._answer(200, "noted\n")
        else:
            self._answer(404, "try /jobs\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        print(format % arguments, flush=True)


def serve(ctx: Context) -> None:
    database = redis.Redis(port=int(ctx.config["redis_port"]), decode_responses=True)
    database.ping()
    with Application(int(ctx.config["port"]), database) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        ctx.logger.info("serving", port=server.server_port)
        ctx.stopping.wait()
        server.shutdown()
