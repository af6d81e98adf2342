"""The shop for browsers: a plain HTTP server, a program like any other, which asks the services as a client.

Must not bind a port: svcd holds the socket, and hands it to the next version while this one finishes its requests.
"""

import signal
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import svcd
from shop.values import euros

FIRST_SOCKET = 3  # as systemd hands them over: LISTEN_FDS
BODY_LIMIT_BYTES = 4096
PATIENCE_S = 5.0


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
    timeout = PATIENCE_S  # for a visitor that says nothing

    def do_GET(self) -> None:
        self._answer_with({"/": self._list_products})

    def do_POST(self) -> None:
        self._answer_with({"/orders": self._place_order})

    def _list_products(self) -> tuple[int, str]:
        """A catalog that has crashed comes back sooner than this program has stopped: it is waited for."""
        products = self.server.client.stream("catalog.products", wait=PATIENCE_S)
        return 200, "".join(f"{each['name']} {euros(each['cents'])}\n" for each in products)

    def _place_order(self) -> tuple[int, str]:
        form = self._form()
        order = self.server.client.call("orders.place", form["user"], form["product"])
        return 201, f"order {order['number']}: {order['product']} for {euros(order['receipt']['cents'])}\n"

    def _form(self) -> dict[str, str]:
        """Raises ``ValueError`` for what is none."""
        length = int(self.headers.get("Content-Length", "0"))
        if not 0 <= length <= BODY_LIMIT_BYTES:
            raise ValueError(f"a form has at most {BODY_LIMIT_BYTES} bytes")
        found = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
        if missing := {"user", "product"} - found.keys():
            raise ValueError(f"the form lacks {' and '.join(sorted(missing))}")
        return found

    def _answer_with(self, pages: dict[str, Callable[[], tuple[int, str]]]) -> None:
        """Whatever goes wrong is somebody's: the visitor's, a service's, or the moment's."""
        try:
            status, text = pages[self.path]() if self.path in pages else (404, f"try {', '.join(pages)}\n")
        except ValueError as error:
            status, text = 400, f"{error}\n"
        except svcd.RemoteError as error:
            status, text = 404 if error.type == "LookupError" else 500, f"{error.text}\n"
        except svcd.CallError as error:
            status, text = 503, f"{error}\n"
        self._answer(status, text)

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
