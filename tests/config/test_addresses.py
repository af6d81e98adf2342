"""Sockets that cannot be had: found at validation, by trying, with nothing left behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcd.supervisor.config.addresses import why_not
from svcd.supervisor.config.errors import ConfigurationError
from svcd.supervisor.config.launch import SocketSpec
from svcd.supervisor.config.load import load

IN_USE = "it is in use"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_port_that_is_taken(taken: int, tmp_path: Path) -> None:
    assert why_not(SocketSpec("a", host="127.0.0.1", port=taken)) == IN_USE
    assert why_not(SocketSpec("a", host="localhost", port=taken)) == IN_USE
    assert why_not(SocketSpec("a", port=taken)) == IN_USE
    file = tmp_path / "cluster.yaml"
    file.write_text(f"cluster: x\nservices: {{web: {{command: [sleep], sockets: [{{listen: '127.0.0.1:{taken}'}}]}}}}")
    with pytest.raises(ConfigurationError) as caught:
        load([file], {"PATH": "/usr/bin:/bin"})
    (found,) = caught.value.problems
    assert (found.line, found.key) == (2, "services.web.sockets[0].listen")
    assert found.text == f"cannot listen on 127.0.0.1:{taken}: it is in use"
    assert found.suggestion == "use another address, or end what listens there"


def test_a_datagram_port_that_is_taken() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        assert why_not(SocketSpec("a", "dgram", "127.0.0.1", port)) == IN_USE
    assert why_not(SocketSpec("a", "dgram", "127.0.0.1", port)) == ""


def test_a_port_that_was_left_a_moment_ago_is_free() -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            accepted.close()  # the closing side keeps the address for a minute
        port = listener.getsockname()[1]
    assert why_not(SocketSpec("a", host="127.0.0.1", port=port)) == ""


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_file_that_somebody_listens_on(tmp_path: Path, kind: socket.SocketKind) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, kind) as holder:
        holder.bind(str(path))
        if kind is not socket.SOCK_DGRAM:
            holder.listen()
        assert why_not(SocketSpec("a", path=str(path))) == IN_USE
        assert why_not(SocketSpec("a", "dgram", path=str(path))) == IN_USE
    assert why_not(SocketSpec("a", path=str(path))) == ""  # stale: svcd replaces it
    assert path.is_socket()


def test_a_socket_file_whose_backlog_is_full(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as holder, socket.socket(socket.AF_UNIX) as caller:
        holder.bind(path)
        holder.listen(0)
        caller.connect(path)
        assert why_not(SocketSpec("a", path=path)) == IN_USE


def test_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert why_not(SocketSpec("a", path=str(tmp_path / "s"))) == ""
    assert why_not(SocketSpec("a", path=str(tmp_path / "file"))) == "there is a file that is no socket"
    assert why_not(SocketSpec("a", path=str(tmp_path))) == "there is a file that is no socket"
    assert why_not(SocketSpec("a", path=str(tmp_path / "no/s"))) == "no such file or directory"
    assert why_not(SocketSpec("a", path=str(tmp_path / "file/s"))) == "not a directory"
    assert os.listdir(tmp_path) == ["file"]


def test_addresses_of_other_hosts() -> None:
    assert why_not(SocketSpec("a", host="192.0.2.1", port=20001)) == "cannot assign requested address"


def test_all_descriptors_are_closed_again(taken: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for spec in (SocketSpec("a", host="127.0.0.1", port=taken), SocketSpec("a", host="192.0.2.1", port=1)):
        assert why_not(spec)
    assert len(os.listdir("/proc/self/fd")) == before
