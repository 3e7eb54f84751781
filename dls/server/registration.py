"""How a server that was started from elsewhere is found, and when it is needed no more.

Its run directory lies under /tmp, where cleaners come by: what they take is put back, since the server lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from dls.contract import ENDED_FILE, STATE_FILE, ServerState, dump_ended
from dls.errors import ListenError
from dls.server import sockets

LOOK_SECONDS = 1.0
FRESHEN_SECONDS = 3600.0

log = logging.getLogger("dls.server")


class Registration:
    """The files in the run directory by which clients find the server."""

    def __init__(self, folder: Path, state: ServerState) -> None:
        self._folder = folder
        self._state = state

    def announce(self) -> None:
        """Say how this server is reached, to those who can read its user's files."""
        (self._folder / ENDED_FILE).unlink(missing_ok=True)
        self._write(STATE_FILE, self._state.dump())

    def _write(self, name: str, text: str) -> None:
        part = self._folder / f"{name}.{secrets.token_hex(4)}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        part.replace(self._folder / name)

    def withdraw(self, why: str) -> None:
        """Say that the server ended because it was to; one that crashed says nothing."""
        with contextlib.suppress(OSError):
            if self._is_ours():  # else another one has its place already
                self._write(ENDED_FILE, dump_ended(why))
                (self._folder / STATE_FILE).unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        try:
            state = ServerState.parse((self._folder / STATE_FILE).read_text(), str(self._folder))
        except OSError:
            return False
        return state is not None and state.pid == self._state.pid

    async def look_after(self, uds: Path, listen_again: Callable[[socket.socket], Awaitable[None]]) -> None:
        """For as long as the server runs: put back what is gone, and keep young what cleaners would take."""
        freshened = time.monotonic()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if not uds.is_socket():
                    log.warning("the server's socket is gone: making it again")
                    await listen_again(self._bound_again(uds))
                if not (self._folder / STATE_FILE).exists():
                    log.warning("the server's state file is gone: writing it again")
                    self._write(STATE_FILE, self._state.dump())
                if time.monotonic() - freshened > FRESHEN_SECONDS:
                    freshened = time.monotonic()
                    for path in (self._folder.parent, self._folder, *self._folder.iterdir()):
                        os.utime(path)
            except (OSError, ListenError) as error:
                log.warning("the run directory can't be mended: %s", error)

    def _bound_again(self, uds: Path) -> socket.socket:
        for folder in (self._folder.parent, self._folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
                raise ListenError(f"{folder} belongs to somebody else.")
        return sockets.bind_unix(uds)
