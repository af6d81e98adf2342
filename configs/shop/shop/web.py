"""The shop for browsers: a plain HTTP server, a program like any other, which asks the services as a client.

Must not bind a port: svcd holds the socket, and hands it to the next version while this one finishes its requests.
"""

import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import svcd
from shop.values import euros

FIRST_SOCKET = 3  # as systemd hands them over: LISTEN_FDS
BODY_LIMIT_BYTES = 4096
SILENT_S = 5.0


class Front(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for the requests in hand

    def __init__(self, client: svcd.Client) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=FIRST_SOCKET)
        self.socket.setblocking(False)  # another version may have taken the connection first
        self.client = client


class Handler(BaseHTTPRequestHandler):
    server: Front
    timeout = SILENT_S

    def do_GET(self) -> None:
        products = self.server.client.stream("catalog.products")
        self._answer(200, "".join(f"{each['name']} {euros(each['cents'])}\n" for each in products))

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(min(int(self.headers.get("Content-Length", 0)), BODY_LIMIT_BYTES)).decode())
        try:
            order = self.server.client.call("orders.place", form["user"][0], form["product"][0])
        except KeyError as error:
            self._answer(400, f"the form lacks {error.args[0]}\n")
        except svcd.RemoteError as error:
            self._answer(404 if error.type == "LookupError" else 500, f"{error.text}\n")
        except svcd.CallError as error:
            self._answer(503, f"{error}\n")
        else:
            self._answer(201, f"order {order['number']}: {order['product']} for {euros(order['receipt']['cents'])}\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Not a line for each request."""


def main() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # in all threads: sigwait() takes it
    with svcd.Client() as client, Front(client) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        print("serving", server.socket.getsockname(), flush=True)
        signal.sigwait([signal.SIGTERM])
        server.shutdown()


if __name__ == "__main__":
    main()
