"""The one door to the host, against a real OpenSSH server."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import paramiko
import pytest

from dls.demo import sshd
from dls.errors import ConnectError, ForwardError, HostError, LinkError, LoginError
from dls.remote.progress import Phases, Silent
from dls.remote.ssh import transport
from dls.remote.ssh.connection import Connection, Prohibited
from dls.remote.ssh.login import LoginOptions, log_in, resolve_hops
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.ssh.target import Target


def opened(server: sshd.Server) -> Connection:
    return Connection.open(resolve_hops("dls-demo", LoginOptions(ssh_config=server.config))[-1], NoPrompter())


def test_aes_gcm_comes_first(connection: Connection) -> None:
    """paramiko would choose AES-CTR."""
    assert connection.transport.remote_cipher == "aes128-gcm@openssh.com"


def test_a_window_of_the_links_size(connection: Connection) -> None:
    """As much as a gigabit needs, within bounds: OpenSSH copies all that it may read ahead, again and again."""
    assert [transport.window(trip) >> 20 for trip in (0.0, 0.01, 0.05, 0.1, 0.3)] == [2, 2, 6, 12, 16]
    trip = connection.transport.round_trip
    assert 0 < trip < 5
    with contextlib.closing(connection.transport.open_session()) as channel:
        assert channel.in_window_size == transport.window(trip)


def test_a_socket_is_read_in_large_pieces() -> None:
    """Nothing is lost between them, and the end is the end."""
    near, far = socket.socketpair()
    said = random.Random(0).randbytes(transport.READ_BYTES + 100_000)
    writing = threading.Thread(target=lambda: (far.sendall(said), far.close()))
    writing.start()
    reader, heard = transport.Buffered(near), b""
    while data := reader.recv(1 + len(heard) % 40_000):
        heard += data
    writing.join()
    assert heard == said
    reader.close()
    assert near.fileno() == -1


def test_a_script_and_what_it_prints(connection: Connection) -> None:
    """Standard output, standard error and status apart, lines as they come, odd characters whole."""
    seen: list[str] = []
    done = connection.run("echo 'a \"b\" $HOME `x` !'; echo err >&2; printf 'no newline'; exit 3", on_line=seen.append)
    assert (done.status, done.stdout, done.stderr) == (3, 'a "b" $HOME `x` !\nno newline', "err\n")
    assert seen == ['a "b" $HOME `x` !', "no newline"]


def test_a_script_reads_nothing_of_itself(connection: Connection) -> None:
    """A command in it that reads standard input gets none; a long script comes through whole."""
    assert connection.run("cat; echo after").stdout == "after"
    lines = "\n".join(f"echo line {n}" for n in range(5000))
    assert connection.run(lines).stdout.splitlines()[-1] == "line 4999"


def test_much_output_on_both_streams_does_not_block(connection: Connection) -> None:
    """Either stream could fill its window while we wait for the other."""
    done = connection.run("yes out | head -c 5000000; yes err | head -c 5000000 >&2; echo; echo end")
    assert done.stdout.endswith("end") and len(done.stdout) > 5_000_000


def test_silence_ends(connection: Connection) -> None:
    """A script that says nothing for too long is given up."""
    with pytest.raises(LinkError, match="said nothing"):
        connection.run("sleep 30", timeout=0.5)


def test_a_large_script_with_sftp_off(short_folder: Path) -> None:
    """Our code goes over standard input, in one script: a host without the SFTP subsystem takes it too."""
    text = "x" * 300_000
    with sshd.running(short_folder, options="Subsystem sftp /bin/false") as server:
        connection = opened(server)
        done = connection.run(f"wc -c <<'END'\n{text}\nEND")
        assert done.stdout.split() == ["300001"]
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
    """`direct-streamlocal@openssh.com`, several at once; one that is not there does not end the transport."""
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


def test_forwarding_that_is_forbidden(short_folder: Path) -> None:
    """A forbidden port is told apart from one where nobody listens; OpenSSH does not do so for sockets."""
    with sshd.running(short_folder, options="AllowStreamLocalForwarding no\nAllowTcpForwarding no") as server:
        connection = opened(server)
        with pytest.raises(ForwardError):
            connection.open_unix(f"{short_folder}/s")
        with pytest.raises(Prohibited):
            connection.open_tcp("127.0.0.1", 1)
        connection.close()


def test_one_session_at_a_time_is_enough(short_folder: Path) -> None:
    """`MaxSessions 1` refuses a session now and then while the last one is being closed."""
    with sshd.running(short_folder, options="MaxSessions 1") as server:
        connection = opened(server)
        for number in range(20):
            assert connection.run(f"echo {number}").stdout == str(number)
        connection.close()


def test_hosts_that_can_not_be_reached(host: sshd.Server, tmp_path: Path) -> None:
    """Each with its own sentence: no such name, nobody listens, no SSH server, nobody answers."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for target, said in [
        (Target("x", "no-such-host.invalid", 22, "ann"), "No host is known"),
        (Target("x", "127.0.0.1", port, "ann"), "can't be reached"),
    ]:
        with pytest.raises(ConnectError, match=said):
            Connection.open(target, NoPrompter())
    with socket.socket() as web:
        web.bind(("127.0.0.1", 0))
        web.listen()

        def answer() -> None:
            with web.accept()[0] as peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 300)

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(ConnectError, match="no SSH server"):
            Connection.open(Target("x", "127.0.0.1", web.getsockname()[1], "ann"), NoPrompter())


def test_every_paramiko_error_is_translated() -> None:
    """What paramiko can raise, whatever its version brings, becomes one of ours."""
    from paramiko import ssh_exception

    from dls.errors import DlsError
    from dls.remote.ssh.connection import translated

    made = {
        "BadAuthenticationType": ("x", ["publickey"]),
        "BadHostKeyException": ("h", paramiko.RSAKey.generate(1024), paramiko.RSAKey.generate(1024)),
        "ChannelException": (2, "x"),
        "ProxyCommandFailure": ("x", "y"),
        "NoValidConnectionsError": ({("h", 22): OSError()},),
        "CouldNotCanonicalize": ("x",),
        "UnableToAuthenticate": ("x",),
    }
    kinds = [kind for kind in vars(ssh_exception).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    kinds += [EOFError, TimeoutError, ConnectionResetError, socket.gaierror]
    for kind in kinds:
        try:
            error = kind(*made.get(kind.__name__, ("x",)))
        except TypeError:
            continue
        with pytest.raises(DlsError), translated(Target("h", "h", 22, "ann")):
            raise error


def test_a_key_that_is_not_accepted(host: sshd.Server, tmp_path: Path) -> None:
    """What the host takes and what was tried stand in the sentence."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    target = resolve_hops("dls-demo", LoginOptions(ssh_config=host.config))[-1]
    wrong = Target(**{**target.__dict__, "identities": (tmp_path / "k",)})
    with pytest.raises(LoginError, match="publickey"):
        Connection.open(wrong, NoPrompter())


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_a_key_with_a_passphrase(host: sshd.Server, tmp_path: Path, kind: str) -> None:
    """Asked for when nothing else was accepted; a wrong one may be mistyped twice."""
    key = tmp_path / "k"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "open sesame", "-f", str(key)], check=True)
    authorized = host.config.parent / "authorized_keys"
    before = authorized.read_text()
    authorized.write_text(before + (tmp_path / "k.pub").read_text())
    target = resolve_hops("dls-demo", LoginOptions(ssh_config=host.config))[-1]

    class Person(NoPrompter):
        said: ClassVar[list[str]] = ["wrong", "open sesame"]

        def secret(self, prompt: str) -> str:
            assert "Passphrase" in prompt
            return self.said.pop(0)

    try:
        opened = Connection.open(Target(**{**target.__dict__, "identities": (key,)}), Person())
        assert opened.how == "the key k"
        opened.close()
        with pytest.raises(LoginError, match="no terminal"):
            Connection.open(Target(**{**target.__dict__, "identities": (key,)}), NoPrompter())
    finally:
        authorized.write_text(before)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes a user, so it needs root")


@pytest.fixture
def account(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A user of this machine with the password `tr0ub4dor` and the login shell asked for; gone after the test."""
    name, shell = "dlstest", getattr(request, "param", "/bin/sh")
    home = Path("/tmp/dls-test-home")
    subprocess.run(["userdel", "-f", name], check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run(["useradd", "-m", "-d", str(home), "-s", shell, name], check=True)
    subprocess.run(["chpasswd"], input=f"{name}:tr0ub4dor", text=True, check=True)
    yield name, home
    subprocess.run(["pkill", "-u", name], check=False)
    subprocess.run(["userdel", "-f", name], check=False, capture_output=True)
    shutil.rmtree(home, ignore_errors=True)


@needs_root
def test_a_password(account: tuple[str, Path], short_folder: Path) -> None:
    """From the option, or typed, with two mistakes; it appears in no error."""
    short_folder.chmod(0o755)
    with sshd.running(short_folder, options="PasswordAuthentication yes\nPubkeyAuthentication no") as server:
        target = resolve_hops("dls-demo", LoginOptions(ssh_config=server.config))[-1]
        target = Target(**{**target.__dict__, "user": account[0]})
        opened = Connection.open(target, NoPrompter(), password="tr0ub4dor")
        assert opened.how == "a password" and opened.run("whoami").stdout == account[0]
        opened.close()

        class Person(NoPrompter):
            said: ClassVar[list[str]] = ["hunter2", "hunter3", "tr0ub4dor"]

            def secret(self, prompt: str) -> str:
                assert "password" in prompt
                return self.said.pop(0)

        Connection.open(target, Person()).close()
        with pytest.raises(LoginError) as caught:
            Connection.open(target, NoPrompter(), password="hunter2")
        assert "--password-file" in caught.value.hint and "hunter2" not in str(caught.value.__dict__)


@needs_root
@pytest.mark.parametrize("account", ["/bin/bash", "/usr/bin/tcsh", "/usr/bin/fish"], indirect=True)
def test_login_shells_that_are_not_sh(account: tuple[str, Path], short_folder: Path) -> None:
    """csh and fish, with rc files that print noise and fail."""
    name, home = account
    shell = (
        subprocess.run(["getent", "passwd", name], capture_output=True, text=True, check=True)
        .stdout.strip()
        .split(":")[-1]
    )
    if not Path(shell).exists():
        pytest.fail(f"{shell} is not installed (on Debian and Ubuntu: apt install tcsh fish)")
    (home / ".config/fish").mkdir(parents=True)
    for rc in (".bashrc", ".cshrc", ".config/fish/config.fish"):
        (home / rc).write_text("echo 'Welcome to the cluster!'\nno-such-command-anywhere\n")
    subprocess.run(["chown", "-R", name, str(home)], check=True)
    short_folder.chmod(0o755)
    with sshd.running(short_folder, options="PasswordAuthentication yes") as server:
        target = resolve_hops("dls-demo", LoginOptions(ssh_config=server.config))[-1]
        connection = Connection.open(Target(**{**target.__dict__, "user": name}), NoPrompter(), password="tr0ub4dor")
        assert connection.run("printf '%s\\n' 'it'\"'\"'s !here' \"$0\"").stdout.splitlines()[0] == "it's !here"
        assert connection.run("exit 7").status == 7
        assert connection.run(f"printf content >{home}/file").status == 0
        assert (home / "file").read_bytes() == b"content"
        connection.close()


@needs_root
@pytest.mark.parametrize("account", ["/bin/false"], indirect=True)
def test_a_login_shell_that_runs_nothing(account: tuple[str, Path], short_folder: Path) -> None:
    """Said so, instead of an empty answer taken for the truth."""
    short_folder.chmod(0o755)
    with sshd.running(short_folder, options="PasswordAuthentication yes") as server:
        target = resolve_hops("dls-demo", LoginOptions(ssh_config=server.config))[-1]
        connection = Connection.open(
            Target(**{**target.__dict__, "user": account[0]}), NoPrompter(), password="tr0ub4dor"
        )
        with pytest.raises(HostError, match="does not run commands"):
            connection.run("echo hello")
        connection.close()


def test_through_a_jump_host(host: sshd.Server, tmp_path: Path) -> None:
    """ProxyJump: the target's port is asked for from the jump host, each with its own host key check; both close."""
    port = re.search(r"Port (\d+)", host.config.read_text())
    assert port
    config = tmp_path / "config"
    text = host.config.read_text()
    config.write_text(text + text.replace("Host dls-demo", "Host inner") + "  ProxyJump dls-demo\n")
    phases = Phases(Silent())
    connection = log_in("inner", LoginOptions(ssh_config=config), NoPrompter(), phases)
    assert connection.run("echo $SSH_CONNECTION").stdout.split()[0] == "127.0.0.1"
    outer = connection._outer
    assert outer is not None and outer.target.label == "dls-demo" and outer.is_active()
    connection.close()
    assert not outer.is_active()
    config.write_text(
        text + text.replace("Host dls-demo", "Host inner").replace(port[0], "Port 1") + "  ProxyJump dls-demo\n"
    )
    with pytest.raises(ConnectError, match="dls-demo can't reach 127"):
        log_in("inner", LoginOptions(ssh_config=config), NoPrompter(), phases)
