"""Bytes for a file on the host: over SFTP, or through a command's input where the host has none; never into silence."""

from __future__ import annotations

import contextlib
import shlex
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

import paramiko

from dls.errors import HostError, LinkError
from dls.remote.ssh.exceptions import SSH_EXCEPTIONS, sftp_error, translate_errors
from dls.remote.ssh.pipe_shell import PipeShell
from dls.remote.ssh.target import Target

LOOK_SECONDS = 5.0
"""Seconds between two looks whether the host still says something."""
DEAD_SECONDS = 60.0
"""Seconds without a packet of the host after which a transfer has no other end: each piece that arrives is answered."""
END_SECONDS = 60.0
"""Seconds that the host may take to write the last bytes and say so."""


class Link(Protocol):
    """What a connection is for a transfer."""

    target: Target

    @property
    def transport(self) -> paramiko.Transport:
        """The SSH transport."""

    @property
    def last_heard(self) -> float:
        """When the host's last packet came, by `time.monotonic`."""

    def is_active(self) -> bool:
        """Whether the connection is open, as far as this side knows."""

    def answers_keepalive(self) -> bool:
        """Ask the host for a sign of life, and wait for it."""


def append(
    link: Link, path: str, offset: int, pieces: Iterable[bytes], open_shell: Callable[[], paramiko.Channel]
) -> None:
    """Write pieces to a file on the host from an offset on; only its user can read the file.

    Raises HostError where the file can't be written, LinkError when the link is lost or the host is silent.
    """
    with watched(link), contextlib.ExitStack() as opened:
        try:
            sftp = paramiko.SFTPClient.from_transport(link.transport)
        except SSH_EXCEPTIONS as error:
            if not link.is_active():
                raise sftp_error(link.target, path, link.is_active, error) from error
            _append_through_shell(link, path, offset, pieces, open_shell())
            return
        assert sftp is not None
        opened.callback(_close, sftp)
        with (
            translate_errors(partial(sftp_error, link.target, path, link.is_active)),
            sftp.open(path, "r+b" if offset else "wb") as file,
        ):
            file.chmod(0o600)
            file.set_pipelined(True)
            file.seek(offset)
            for piece in pieces:
                file.write(piece)


def _close(sftp: paramiko.SFTPClient) -> None:
    with contextlib.suppress(*SSH_EXCEPTIONS):  # of a link that was cut there is nothing to close
        sftp.close()


def _append_through_shell(
    link: Link, path: str, offset: int, pieces: Iterable[bytes], channel: paramiko.Channel
) -> None:
    """Write pieces to the end of a file, in place of what it holds for the offset 0, through the input of `cat`."""
    where = shlex.quote(path)
    script = (
        f"umask 077; if true {'>>' if offset else '>'}{where} && chmod 600 {where}; then\n"
        f"printf '%s cat\\n' \"$READY\"; cat >>{where} && echo written; fi"
    )
    said = b""
    with contextlib.closing(channel), translate_errors(partial(sftp_error, link.target, path, link.is_active)):
        shell = PipeShell(link.target, channel)
        shell.start()
        if shell.become(script):
            for piece in pieces:
                channel.sendall(piece)
            channel.shutdown_write()
            channel.settimeout(END_SECONDS)
            while data := channel.recv(4096):
                said += data
    if b"written" not in said:
        if not link.is_active():
            raise LinkError(f"The connection to {link.target.label} was lost.", "Run it again: it goes on from there.")
        raise HostError(f"{path} can't be written on {link.target.label}.", "Is the disk full or read-only?")


@contextlib.contextmanager
def watched(link: Link, *, look: float = LOOK_SECONDS, dead: float = DEAD_SECONDS) -> Iterator[None]:
    """Close the connection when the host is silent meanwhile: what waits for it then fails instead of hanging."""
    ended = threading.Event()

    def watch() -> None:
        asked = 0.0
        while not ended.wait(look):
            now = time.monotonic()
            if now - link.last_heard > dead:
                link.transport.close()
                return
            if now - max(link.last_heard, asked) > dead / 4:
                asked = now
                threading.Thread(target=link.answers_keepalive, name="dls-alive", daemon=True).start()

    look = min(look, dead / 4)
    thread = threading.Thread(target=watch, name="dls-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
