"""An SSH server on loopback for the demo and the tests: OpenSSH's sshd where it is installed, else asyncssh."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dls.errors import DlsError

PRIVILEGE_SEPARATION = Path("/run/sshd")
"""Folder that sshd requires when root starts it; created where no system service has created it."""
START_SECONDS = 10
"""Seconds to wait for the server to start, and for asyncssh to end."""


@dataclass(frozen=True)
class Server:
    """A running SSH server, and the configuration to log in to it."""

    program: str
    """Path of sshd, or `asyncssh`."""
    port: int
    config: Path
    """An SSH configuration that defines the server as the host `dls-demo`, with its key and its known_hosts."""


@contextlib.contextmanager
def running(folder: Path, *, options: str = "", library: bool = False, login: type = object) -> Iterator[Server]:
    """Run an SSH server as the current user, with all its files in the folder.

    `options` are additional lines of sshd_config. `library` selects asyncssh even where sshd is installed; `login` is
    then a mix-in for `asyncssh.SSHServer` that changes how users authenticate.
    """
    key = _write_key(folder / "id_ed25519")
    host_key = _write_key(folder / "host_key")
    (folder / "authorized_keys").write_text(key + "\n", encoding="utf-8")
    port = _free_port()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n", encoding="utf-8")
    config = folder / "ssh_config"
    config.write_text(_client_config(folder, port), encoding="utf-8")
    program = None if library else find_sshd()
    start = _openssh(program, folder, port, options) if program else _asyncssh(folder, port, login)
    with start:
        yield Server(program or "asyncssh", port, config)


def find_sshd() -> str | None:
    """Return the path of OpenSSH's sshd, which is outside the PATH of most users; None where it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/sbin"])
    return None if os.name == "nt" else shutil.which("sshd", path=path)


def _client_config(folder: Path, port: int) -> str:
    return (
        f"Host dls-demo\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {folder}/id_ed25519\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n"
    )


def _write_key(path: Path) -> str:
    key = Ed25519PrivateKey.generate()
    encoding, private = serialization.Encoding, serialization.PrivateFormat
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(encoding.PEM, private.OpenSSH, serialization.NoEncryption()))
    return key.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _openssh(program: str, folder: Path, port: int, options: str) -> Iterator[None]:
    config, log = folder / "sshd_config", folder / "sshd.log"
    config.write_text(
        # OpenSSH uses the first value of each option, so the additional lines stand first.
        f"{options}\nPort {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n" + ("" if "Subsystem" in options else "Subsystem sftp internal-sftp\n"),
        encoding="utf-8",
    )
    is_created = os.getuid() == 0 and not PRIVILEGE_SEPARATION.exists()
    if is_created:
        PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen(
        [program, "-D", "-f", str(config), "-E", str(log)], stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_until_listening(port, process, log)
        yield
    finally:
        process.terminate()
        process.wait()
        if is_created:
            with contextlib.suppress(OSError):
                PRIVILEGE_SEPARATION.rmdir()


def _wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    raise DlsError("The demo's SSH server did not start.", "The end of its log is above.", detail=text[-2000:])


@contextlib.contextmanager
def _asyncssh(folder: Path, port: int, login: type) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="dls-demo-sshd", daemon=True)
    thread.start()
    server = _LibraryServer()
    asyncio.run_coroutine_threadsafe(server.listen(folder, port, login), loop).result(START_SECONDS)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(START_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _LibraryServer:
    """asyncssh's server, with a record of all that it opens, so that `close` can close it."""

    def __init__(self) -> None:
        self._listener: Any = None
        self._connections: list[Any] = []
        self._forwards: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def listen(self, folder: Path, port: int, login: type) -> None:
        """Listen on a loopback port, with the keys in the folder."""
        import asyncssh

        self._listener = await asyncssh.listen(
            "127.0.0.1",
            port,
            server_factory=self._make_handler_class(login),
            server_host_keys=[str(folder / "host_key")],
            authorized_client_keys=str(folder / "authorized_keys") if login is object else None,
            process_factory=_shell,
            sftp_factory=True,
            encoding=None,
        )

    def _make_handler_class(self, login: type) -> type:
        import asyncssh

        server = self
        bases = (asyncssh.SSHServer,) if login is object else (login, asyncssh.SSHServer)

        class Handler(*bases):  # type: ignore[misc]
            def connection_made(self, connection: Any) -> None:
                server._connections.append(connection)

            def connection_requested(self, host: str, port: int, *origin: Any) -> Any:
                return server._forward(asyncio.get_running_loop().create_connection, host, port)

            def unix_connection_requested(self, path: str) -> Any:
                return server._forward(asyncio.get_running_loop().create_unix_connection, path)

        return Handler

    async def _forward(self, connect: Callable[..., Any], *address: Any) -> Any:
        """Connect a channel to an address; like asyncssh's own function, but the transport is recorded."""
        import asyncssh
        from asyncssh.forward import SSHForwarder

        try:
            transport, peer = await connect(SSHForwarder, *address)
        except OSError as error:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, str(error)) from None
        self._forwards.add(transport)
        return SSHForwarder(peer)

    async def close(self) -> None:
        """Close the connections, the listener, and the connections that were forwarded.

        The listener closes last, when no task is left: asyncio leaks a socket that was accepted, but has no transport
        yet, when its listener closes. Forwards are aborted: asyncssh closes one only after all its data have been
        sent, which may never happen.
        """
        stuck: set[asyncio.Task[Any]] = set()
        while True:
            for connection in self._connections:
                connection.abort()
            await asyncio.gather(*(connection.wait_closed() for connection in self._connections))
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if stuck or not others:
                break
            _, stuck = await asyncio.wait(others, timeout=5)
        self._listener.close()
        for transport in list(self._forwards):
            transport.abort()
        await self._listener.wait_closed()


async def _shell(process: Any) -> None:
    """Run a command as sshd does: in a shell, with its standard streams on the channel."""
    child = await asyncio.create_subprocess_exec(
        "/bin/sh",
        "-c",
        process.command or "exec sh",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    status = await child.wait()
    await process.stdout.drain()
    process.exit(status)
    await process.wait_closed()
