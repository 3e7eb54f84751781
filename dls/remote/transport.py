"""paramiko's transport, with what it lacks: Unix-socket channels, and one service request for several logins."""

from __future__ import annotations

import logging
import threading
import time

import paramiko
from paramiko.common import cMSG_SERVICE_REQUEST

# Without a handler of its own, the logging module would print paramiko's tracebacks to standard error.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

WINDOW = 16 << 20
"""Bytes that the host may send on a channel before it hears from us; paramiko's 2 MiB end near 40 MB/s over 50 ms."""


class HostTransport(paramiko.Transport):
    """A transport that can open `direct-streamlocal@openssh.com` channels and log in with several methods in turn."""

    _opening = threading.local()
    _asked_for_service = False

    def __init__(self, sock: object) -> None:
        super().__init__(sock, default_window_size=WINDOW)  # type: ignore[arg-type]
        self.heard = time.monotonic()
        """When the last packet came, of whatever kind: behind a large upload, an answer can take long."""
        read = self.packetizer.read_message

        def stamped() -> tuple[int, paramiko.Message]:
            message = read()
            self.heard = time.monotonic()
            return message

        self.packetizer.read_message = stamped  # type: ignore[method-assign]

    def open_streamlocal(self, path: str, timeout: float) -> paramiko.Channel:
        """Open a channel to the Unix socket at the path on the host."""
        self._opening.path = path
        try:
            return self.open_channel("direct-streamlocal@openssh.com", timeout=timeout)
        finally:
            self._opening.path = None

    def _send_user_message(self, data: paramiko.Message) -> None:
        # paramiko writes only the fields of the channel kinds it knows; OpenSSH's PROTOCOL file (section 2.4) has
        # these after them: the path, and two that are reserved.
        path = getattr(self._opening, "path", None)
        if path is not None:
            data.add_string(path)
            data.add_string("")
            data.add_int(0)
        super()._send_user_message(data)  # type: ignore[misc]

    def _send_message(self, data: paramiko.Message) -> None:
        # paramiko asks for the authentication service anew before each attempt. That costs a round trip, and some
        # servers (asyncssh) answer by disconnecting; RFC 4252 wants it once. Later requests are answered here.
        if data.asbytes()[:1] == cMSG_SERVICE_REQUEST:
            if self._asked_for_service and self.auth_handler is not None:
                accepted = paramiko.Message()
                accepted.add_string("ssh-userauth")
                accepted.rewind()
                self.auth_handler._parse_service_accept(accepted)  # type: ignore[attr-defined]
                return
            self._asked_for_service = True
        super()._send_message(data)  # type: ignore[misc]
