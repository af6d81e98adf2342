"""A tiny HTTP server on a socket that svcd holds for it (LISTEN_FDS, as systemd hands them over).

Must not import svcd: any program that speaks this protocol can be started on demand.
"""

import os
import socket
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

if os.environ.get("LISTEN_PID") != str(os.getpid()):
    sys.exit("no socket was handed over: start me with sockets: in a cluster file")


class Clock(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"process {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = HTTPServer(("", 0), Clock, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)
print("serving", server.socket.getsockname(), flush=True)
server.serve_forever()
