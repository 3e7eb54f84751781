"""The files by which clients find a server that they started.

The run directory lies under /tmp, where cleanup programs delete old files: what they delete is written again, since
the server still runs.
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

from dls.contract import ENDED_FILE, RECORD_SECONDS, STATE_FILE, ServerState, dump_ended
from dls.errors import ListenError
from dls.server import sockets
from dls.server.executors import run_in_thread

CHECK_SECONDS = 1.0
"""Seconds between two checks that the files are still there."""
TOUCH_SECONDS = 3600.0
"""Seconds after which the files get a new modification time, so that cleanup programs leave them alone."""

log = logging.getLogger("dls.server")


class Registration:
    """The state file in the run directory, and the file that says why the server ended.

    `record` is a file on a disk that other hosts may share: it tells them of the server, and a new modification time
    tells that it still runs.
    """

    def __init__(self, folder: Path, state: ServerState, record: Path | None = None) -> None:
        self._folder = folder
        self._state = state
        self._record = record

    def register(self) -> None:
        """Write the state file, which only this user can read: it says how the server is reached."""
        (self._folder / ENDED_FILE).unlink(missing_ok=True)
        self._write(STATE_FILE, self._state.dump())
        self._touch_record()

    def _touch_record(self) -> None:
        if self._record is not None:
            with contextlib.suppress(OSError):  # a shared disk that is full or away is no reason to end
                self._record.touch(0o600)

    def _write(self, name: str, text: str) -> None:
        part = self._folder / f"{name}.{secrets.token_hex(4)}"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        part.replace(self._folder / name)

    def unregister(self, reason: str) -> None:
        """Write why the server ended and remove the state file; a server that crashed does neither."""
        with contextlib.suppress(OSError):
            if self._owns_state_file():  # otherwise another server already uses this directory
                self._write(ENDED_FILE, dump_ended(reason))
                (self._folder / STATE_FILE).unlink(missing_ok=True)
                if self._record is not None:
                    self._record.unlink(missing_ok=True)

    def _owns_state_file(self) -> bool:
        try:
            state = ServerState.parse((self._folder / STATE_FILE).read_text(encoding="utf-8"), str(self._folder))
        except OSError:
            return False
        return state is not None and state.pid == self._state.pid

    async def maintain(self, uds: Path, listen: Callable[[socket.socket], Awaitable[None]]) -> None:
        """Keep the socket and the state file in place until cancelled; `listen` takes a socket that was bound again."""
        touched = recorded = time.monotonic()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if time.monotonic() - recorded > RECORD_SECONDS:
                recorded = time.monotonic()
                await run_in_thread(self._touch_record)  # a network disk can take long
            try:
                await self._restore(uds, listen)
                if time.monotonic() - touched > TOUCH_SECONDS:
                    touched = time.monotonic()
                    for path in (self._folder.parent, self._folder, *self._folder.iterdir()):
                        os.utime(path)
            except (OSError, ListenError) as error:
                log.warning("the run directory can't be restored: %s", error)

    async def _restore(self, uds: Path, listen: Callable[[socket.socket], Awaitable[None]]) -> None:
        if not uds.is_socket():
            log.warning("the server's socket is gone: creating it again")
            await listen(self._bind_again(uds))
        if not (self._folder / STATE_FILE).exists():
            log.warning("the server's state file is gone: writing it again")
            self._write(STATE_FILE, self._state.dump())

    def _bind_again(self, uds: Path) -> socket.socket:
        for folder in (self._folder.parent, self._folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
                raise ListenError(f"{folder} belongs to another user.")
        return sockets.bind_unix(uds)
