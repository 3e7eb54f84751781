"""A way to an SSH server that can be shut and opened again: a TCP forwarder, with an SSH configuration that uses it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dls.demo import sshd


@dataclass
class Gate:
    """The forwarder; while it is shut, nobody listens on its port."""

    port: int
    server: int
    config: Path
    """An SSH configuration that defines the server behind it as the host `dls-demo`."""
    _listener: socket.socket | None = None
    _open: list[socket.socket] = field(default_factory=list)

    def open(self) -> None:
        """Let connections through."""
        self._listener = listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def shut(self) -> None:
        """Cut all connections, and refuse others."""
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.server)) as server:
            self._open += [client, server]
            back = threading.Thread(target=_carry, args=(server, client), daemon=True)
            back.start()
            _carry(client, server)
            back.join()


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def gate_to(server: sshd.Server, folder: Path) -> Iterator[Gate]:
    """Put an open gate before the server, its files in the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config, known = folder / "gate_config", folder / "gate_known_hosts"
    known.write_text((server.config.parent / "known_hosts").read_text().replace(f":{server.port} ", f":{port} "))
    text = server.config.read_text().replace(f"Port {server.port}", f"Port {port}")
    config.write_text(text.replace(str(server.config.parent / "known_hosts"), str(known)))
    gate = Gate(port, server.port, config)
    gate.open()
    try:
        yield gate
    finally:
        gate.shut()
