"""Scripts, files and channels over one connection, against a real OpenSSH server."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import ConnectError, ForwardError, HostError, LinkError
from dls.remote.login import LoginOptions, log_in
from dls.remote.progress import Phases, Silent
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.exceptions import Prohibited
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.ssh.sending import watched
from dls.remote.ssh.target import Target
from tests.support.logins import target_of


def open_connection(server: sshd.Server) -> Connection:
    return Connection.open(target_of(server), NoPrompter())


def test_output_of_a_script(connection: Connection) -> None:
    """Standard output, standard error and status are separate, lines come one by one, odd characters are unchanged."""
    seen: list[str] = []
    done = connection.run("echo 'a \"b\" $HOME `x` !'; echo err >&2; printf 'no newline'; exit 3", on_line=seen.append)
    assert (done.status, done.stdout, done.stderr) == (3, 'a "b" $HOME `x` !\nno newline', "err\n")
    assert seen == ['a "b" $HOME `x` !', "no newline"]


def test_a_script_does_not_read_itself(connection: Connection) -> None:
    """A command that reads standard input gets an empty one; a long script arrives complete."""
    assert connection.run("cat; echo after").stdout == "after"
    lines = "\n".join(f"echo line {n}" for n in range(5000))
    assert connection.run(lines).stdout.splitlines()[-1] == "line 4999"


def test_much_output_on_both_streams_does_not_block(connection: Connection) -> None:
    """Both streams are read at once: each could fill its window while we wait for the other."""
    done = connection.run("yes out | head -c 5000000; yes err | head -c 5000000 >&2; echo; echo end")
    assert done.stdout.endswith("end") and len(done.stdout) > 5_000_000


def test_a_silent_script_is_abandoned(connection: Connection) -> None:
    """A script that prints nothing for longer than the limit ends in LinkError."""
    with pytest.raises(LinkError, match="said nothing"):
        connection.run("sleep 30", timeout=0.5)


def test_a_silent_script_for_which_bytes_move(connection: Connection) -> None:
    """A script that says nothing for longer than the limit goes on while bytes move for it elsewhere."""
    assert connection.run("sleep 7; echo done", timeout=5, last_moved=time.monotonic).stdout == "done"
    begun = time.monotonic()
    with pytest.raises(LinkError, match="said nothing"):
        connection.run("sleep 30", timeout=0.5, last_moved=lambda: begun)


def test_a_large_script_with_sftp_off(short_folder: Path) -> None:
    """A script of any size goes over standard input, so a host without the SFTP subsystem runs it too."""
    text = "x" * 300_000
    with sshd.running(short_folder, options="Subsystem sftp /bin/false") as server:
        connection = open_connection(server)
        done = connection.run(f"wc -c <<'END'\n{text}\nEND")
        assert done.stdout.split() == ["300001"]
        connection.close()


def test_a_file_is_written_in_parts(connection: Connection, tmp_path: Path) -> None:
    """A file is continued at an offset, and only its user can read it; a folder that is missing is an error."""
    path = tmp_path / "model"
    connection.append(str(path), 0, [b"one ", b"two "])
    connection.append(str(path), 8, [b"three"])
    assert path.read_bytes() == b"one two three" and path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(HostError, match="can't be written"):
        connection.append(str(tmp_path / "none" / "model"), 0, [b"x"])
    assert connection.run("echo still here").stdout == "still here"


def test_a_host_without_sftp(short_folder: Path) -> None:
    """Where the SFTP subsystem is missing, a file goes through a command's input: any bytes, and on from a part."""
    data = bytes(range(256)) * 5000
    path = short_folder / "it's a file"
    with sshd.running(short_folder, options="Subsystem sftp /bin/false") as server:
        connection = open_connection(server)
        connection.append(str(path), 0, [data[:700_000]])
        connection.append(str(path), 700_000, [data[700_000:1_000_000], data[1_000_000:]])
        assert path.read_bytes() == data and path.stat().st_mode & 0o777 == 0o600
        connection.append(str(path), 0, [b"anew"])
        assert path.read_bytes() == b"anew"
        with pytest.raises(HostError, match="can't be written"):
            connection.append(str(short_folder / "none" / "x"), 0, [b"x"])
        connection.close()


def test_a_transfer_to_a_host_that_falls_silent(short_folder: Path) -> None:
    """A transfer whose other end stops does not hang: the connection is closed, and the transfer fails."""
    with sshd.running(short_folder) as server:
        connection = open_connection(server)
        # The parent of the connection's shell: OpenSSH's process of this connection alone.
        session = int(connection.run("echo $PPID").stdout)
        os.kill(session, signal.SIGSTOP)
        try:
            with watched(connection, look=0.05, dead=0.5), pytest.raises(LinkError, match="lost"):
                connection.append(str(short_folder / "x"), 0, itertools.repeat(bytes(1 << 20)))
        finally:
            os.kill(session, signal.SIGCONT)
        connection.close()


@pytest.mark.parametrize("timeout", [None, 1800])
def test_a_long_script_on_a_host_that_falls_silent(short_folder: Path, timeout: float | None) -> None:
    """An installation, say, may be silent for long, but not its host's SSH server: that is asked for a sign of life."""
    with sshd.running(short_folder) as server:
        connection = open_connection(server)
        connection.dead_seconds = 2
        assert connection.run("sleep 3; echo hi", timeout=timeout).stdout == "hi"
        session = int(connection.run("echo $PPID").stdout)
        stopped = f"kill -STOP {session}; sleep 60"
        try:
            with pytest.raises(LinkError):
                connection.run(stopped, timeout=timeout)
        finally:
            os.kill(session, signal.SIGCONT)
        connection.close()


def echo_server(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                while data := peer.recv(65536):
                    peer.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_a_channel_to_a_unix_socket(connection: Connection, short_folder: Path) -> None:
    """Several `direct-streamlocal@openssh.com` channels work at once; a missing socket does not end the transport."""
    listener = echo_server(short_folder / "s")
    channels = [connection.open_unix(f"{short_folder}/s") for _ in range(3)]
    for number, channel in enumerate(channels):
        channel.sendall(bytes([number]) * 1000)
        channel.shutdown_write()
        assert channel.makefile("rb").read() == bytes([number]) * 1000
        channel.close()
    listener.close()
    with pytest.raises(ForwardError):
        connection.open_unix(f"{short_folder}/none")
    assert connection.run("echo still here").stdout == "still here"


def test_forbidden_forwarding(short_folder: Path) -> None:
    """A forbidden port raises Prohibited; for a Unix socket OpenSSH does not say whether it is forbidden or missing."""
    with sshd.running(short_folder, options="AllowStreamLocalForwarding no\nAllowTcpForwarding no") as server:
        connection = open_connection(server)
        with pytest.raises(ForwardError):
            connection.open_unix(f"{short_folder}/s")
        with pytest.raises(Prohibited):
            connection.open_tcp("127.0.0.1", 1)
        connection.close()


def test_one_session_at_a_time_is_enough(short_folder: Path) -> None:
    """With `MaxSessions 1`, a session that is refused while the previous one is closed is requested again."""
    with sshd.running(short_folder, options="MaxSessions 1") as server:
        connection = open_connection(server)
        for number in range(20):
            assert connection.run(f"echo {number}").stdout == str(number)
        connection.close()


def test_unreachable_hosts() -> None:
    """An unknown name, a closed port and a server that is no SSH server each have their own message."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for target, message in [
        (Target("x", "no-such-host.invalid", 22, "ann"), "No host is known"),
        (Target("x", "127.0.0.1", port, "ann"), "can't be reached"),
    ]:
        with pytest.raises(ConnectError, match=message):
            Connection.open(target, NoPrompter())
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            with web.accept()[0] as peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 300)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ConnectError, match="no SSH server"):
            Connection.open(Target("x", "127.0.0.1", web.getsockname()[1], "ann"), NoPrompter())


def test_through_a_jump_host(host: sshd.Server, tmp_path: Path) -> None:
    """The target is reached through the jump host's connection; closing one closes both; a closed port is reported."""
    port = re.search(r"Port (\d+)", host.config.read_text())
    assert port
    config = tmp_path / "config"
    text = host.config.read_text()
    config.write_text(text + text.replace("Host dls-demo", "Host inner") + "  ProxyJump dls-demo\n")
    phases = Phases(Silent())
    connection = log_in("inner", LoginOptions(ssh_config=config), NoPrompter(), phases)
    assert connection.run("echo $SSH_CONNECTION").stdout.split()[0] == "127.0.0.1"
    [jump_host] = connection.carriers
    assert isinstance(jump_host, Connection) and jump_host.target.label == "dls-demo" and jump_host.is_active()
    connection.close()
    assert not jump_host.is_active()
    config.write_text(
        text + text.replace("Host dls-demo", "Host inner").replace(port[0], "Port 1") + "  ProxyJump dls-demo\n"
    )
    with pytest.raises(ConnectError, match="dls-demo can't reach 127"):
        log_in("inner", LoginOptions(ssh_config=config), NoPrompter(), phases)
