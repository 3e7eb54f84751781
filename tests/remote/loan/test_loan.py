"""Loans used by pip and uv, on hosts that allow more and less, over each carrier."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.credentials import encode_token
from dls.demo import sshd
from dls.errors import ForwardError
from dls.remote.carriers.through_exec import open_through_exec
from dls.remote.carriers.via import open_via
from dls.remote.loan.indexes import Indexes
from dls.remote.loan.laptop import Laptop
from dls.remote.loan.loan import Loan, lend
from dls.remote.login import LoginOptions, log_in, resolve_hops
from dls.remote.progress import SHOW_SECONDS, Phase, Phases, Silent, Transfer
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.ssh.reverse_forward import ReverseForward
from tests.support import package_index
from tests.support.lending import get, is_listening, lent, own, secret_of, terms
from tests.support.package_index import Index
from tests.support.processes import until

INSTALL = f"{shlex.quote(sys.executable)} -m pip install --no-cache-dir --target"


@contextlib.contextmanager
def logged_in(folder: Path, options: str = "") -> Iterator[Connection]:
    """A connection to a host of the test's own."""
    with sshd.running(folder, options=options) as server:
        target = resolve_hops("dls-demo", LoginOptions(ssh_config=server.config))[-1]
        connection = Connection.open(target, NoPrompter())
        yield connection
        connection.close()


@contextlib.contextmanager
def lending(connection: Connection, index: Index) -> Iterator[Loan]:
    """Lend an index as a laptop would that is configured with it."""
    laptop = Laptop(Indexes(index.url), frozenset([index.url]), ca_bundle=index.ca.read_text())
    with lend(connection, terms(own(index), laptop=laptop), phase=Phase(Silent())) as loan:
        yield loan


def test_pip_over_a_loan(folder: Path, tmp_path: Path) -> None:
    """pip installs from a mirror with a password and its own authority, on a host whose settings lead elsewhere."""
    settings = "NO_PROXY=* PIP_INDEX_URL=https://nowhere.invalid/ PIP_NO_INDEX=1 REQUESTS_CA_BUNDLE=/nonexistent"
    wheels = tmp_path / "wheels"
    package_index.tiny_wheel(wheels, "tiny-one")
    with (
        package_index.running(tmp_path, wheels, credentials="ann:s3cret") as index,
        logged_in(folder, f"SetEnv {settings}") as connection,
        lending(connection, index) as loan,
    ):
        lines: list[str] = []
        done = connection.run(loan.wrap(f"exec 2>&1; {INSTALL} {tmp_path}/there tiny-one"), on_line=lines.append)
        assert done.status == 0, done.stdout
        assert (tmp_path / "there" / "tiny_one.py").is_file()
        assert loan.traffic.received > 0 and not loan.traffic.refused_names
        text = loan.redact("\n".join(lines))
        assert "s3cret" not in text and secret_of(loan) not in text


@pytest.mark.slow
def test_uv_over_a_loan(connection: Connection, index: Index, tmp_path: Path) -> None:
    """uv installs a package and what it needs."""
    uv = find_uv(tmp_path)
    script = (
        f"cd {tmp_path} && {uv} venv -q v && {uv} pip install --no-cache --no-config --python v/bin/python tiny-one"
    )
    with lending(connection, index) as loan:
        done = connection.run(loan.wrap(f"exec 2>&1; {script}; v/bin/python -c 'import tiny_one, large_one'"))
        assert done.status == 0, done.stdout


def find_uv(folder: Path) -> Path:
    """Return uv from the lock file's wheel, as the installer fetches it."""
    from dls.remote.host import lock_files, send_uv

    wheels = package_index.download("uv", lock_files.read("uv"))
    path = folder / "uv"
    path.write_bytes(send_uv._unpack(next(wheels.glob("uv-*.whl"))))
    path.chmod(0o700)
    return path


@pytest.mark.parametrize(
    "options",
    ["AllowTcpForwarding local", "PermitListen none", "DisableForwarding yes"],
)
def test_a_host_that_lets_no_port_lead_back(folder: Path, index: Index, options: str) -> None:
    """The loan comes through an SSH server inside a command of the same login, and the login outlives it."""
    with logged_in(folder, options) as connection:
        with lent(connection, own(index)) as loan:
            assert get(loan, index.url, index.ca)
            port = loan.port
        until(lambda: not is_listening(port))
        assert connection.run("echo hi").stdout == "hi"
        assert (folder / "sshd.log").read_text().count("Accepted publickey") == 1


def test_a_host_without_any_way_back(folder: Path, tmp_path: Path) -> None:
    """Where there is no sshd to run either, one sentence says so, with the other way."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "sshd").write_text("#!/bin/sh\nexit 1\n")
    (programs / "sshd").chmod(0o755)
    # What is first in the PATH is taken for the host's sshd, and this one takes no configuration.
    with logged_in(folder, f"PermitListen none\nSetEnv PATH={programs}:/usr/bin:/bin") as connection:
        with pytest.raises(ForwardError, match="nothing can be lent") as error, lent(connection):
            pass
        assert "--from" in error.value.hint and connection.run("echo hi").stdout == "hi"


def listening_of(process: int) -> set[str]:
    """Return the inodes of the TCP sockets on which a process of this machine listens."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[3] == "0A"}
    found = set()
    for path in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(str(path.readlink()))
    return sockets & found


def test_a_port_that_is_opened_too_late(connection: Connection) -> None:
    """A host that answers after nobody waits any more is told to close the port again."""
    session = int(connection.run("echo $PPID").stdout)
    os.kill(session, signal.SIGSTOP)
    try:
        assert ReverseForward.open(connection, lambda channel: None, seconds=0.2) is None
    finally:
        os.kill(session, signal.SIGCONT)
    assert connection.run("echo hi").stdout == "hi"  # it was asked for the port before
    until(lambda: not listening_of(session))


def test_inside_a_pipe(connection: Connection, index: Index) -> None:
    """Over a connection inside a command (--through-exec, --carrier openssh) the port leads back too."""
    inner = open_through_exec(connection, "~/.dls", Phase(Silent()), installs=False)
    with lent(inner, own(index)) as loan:
        assert get(loan, index.url, index.ca)


def test_through_openssh(host: sshd.Server, index: Index) -> None:
    """Over a login that this computer's `ssh` made."""
    login = LoginOptions(ssh_config=host.config, carrier="openssh")
    connection = log_in("dls-demo", login, NoPrompter(), Phases(Silent()))
    with lent(connection, own(index)) as loan:
        assert connection.kind == "openssh" and get(loan, index.url, index.ca)
    connection.close()


def test_through_another_command(index: Index) -> None:
    """Over the pipe of a command, as `docker exec -i` is one."""
    connection = open_via("here", "env", "~/.dls", NoPrompter(), Phase(Silent()), installs=False)
    with lent(connection, own(index)) as loan:
        assert get(loan, index.url, index.ca)
    connection.close()


def test_a_library_in_place_of_sshd(short_folder: Path, index: Index) -> None:
    """asyncssh, where a host has no sshd, lets a port lead back and closes it too."""
    keys = {"host_key": None, "authorized_keys": None}
    from dls.remote.host.scripts import read_ssh_server
    from dls.remote.ssh.pinned import KeyPair, open_pinned
    from dls.remote.ssh.pipe import Pipe
    from dls.remote.ssh.target import Target

    host_key, client_key = KeyPair.generate(), KeyPair.generate()
    for name, text in zip(keys, (host_key.private, client_key.public), strict=True):
        (short_folder / name).write_text(f"{text}\n")
        (short_folder / name).chmod(0o600)
    pipe = Pipe([sys.executable, "-I", "-c", read_ssh_server(), str(short_folder)])
    connection = open_pinned(
        Target("here", "here", 22, "root"), pipe.socket, host_key.public, client_key,
        kind="via", credential="", carriers=(pipe,),
    )  # fmt: skip
    with lent(connection, own(index)) as loan:
        assert get(loan, index.url, index.ca)
        assert connection.run("echo hi").stdout == "hi"
    until(lambda: not is_listening(loan.port))
    connection.close()


def test_what_a_script_finds(connection: Connection, index: Index) -> None:
    """A script has the variables, its own exit status, and certificates in a private file that goes with it."""
    with lending(connection, index) as loan:
        script = (
            'echo "$HTTPS_PROXY|$UV_DEFAULT_INDEX|$PIP_CERT|${NO_PROXY-unset}"; cp "$PIP_CERT" "$PIP_CERT.copy"; exit 7'
        )
        done = connection.run(loan.wrap(script))
        proxy, url, certificate, exception = done.stdout.split("|")
        assert (done.status, proxy, url, exception) == (7, loan.proxy_url, index.url, "unset")
        assert not Path(certificate).parent.exists()
        look = 'stat -c %a "$PIP_CERT" "${PIP_CERT%/*}"; cat "$PIP_CERT"'
        file, folder, *bundle = connection.run(loan.wrap(look)).stdout.splitlines()
        own_lines = index.ca.read_text().splitlines()
        assert (file, folder) == ("600", "700") and bundle[-len(own_lines) :] == own_lines


def test_the_certificates_that_the_host_trusts(connection: Connection, index: Index, tmp_path: Path) -> None:
    """A laptop that names the authority of its mirror alone still leads to public names: the host knows theirs."""
    own_ones = "/etc/ssl/certs/ca-certificates.crt"
    if not Path(own_ones).is_file():
        pytest.skip("this host has no certificates where Debian has them")
    with lending(connection, index) as loan:
        connection.run(loan.wrap(f'cp "$SSL_CERT_FILE" {tmp_path}/bundle'))
    found = ssl.create_default_context(cafile=tmp_path / "bundle").cert_store_stats()["x509_ca"]
    assert found == ssl.create_default_context(cafile=own_ones).cert_store_stats()["x509_ca"] + 1


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_no_file_holds_the_secret(connection: Connection, shell: str) -> None:
    """The variables are set by a shell that may write no file: older ones of bash do for a here-document."""
    with lent(connection) as loan:
        command = ["sh", "-c", f"ulimit -f 0; exec {shell} -s"]
        environment = {"PATH": "/usr/bin:/bin", "BASH_COMPAT": "50"}
        script = loan.wrap('echo "$HTTPS_PROXY"')
        done = subprocess.run(command, input=script, capture_output=True, text=True, env=environment)
        assert done.stdout.strip() == loan.proxy_url, done.stderr


def test_no_argument_holds_the_secret(connection: Connection, index: Index) -> None:
    """While a script runs, no process of this machine has the loan's secret in its arguments, as `ps` would show."""
    with lending(connection, index) as loan:
        done = connection.run(loan.wrap("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))
        assert "sshd" in done.stdout and secret_of(loan) not in done.stdout
        assert secret_of(loan) not in f"{loan!r}{loan.terms!r}"


def test_what_is_never_shown(connection: Connection) -> None:
    """The secret, as it is sent too, passwords of indexes and tokens in their place are not in what a program said."""
    urls = "https://ann:s3cr%40t@a.test/", "https://tok3n@b.test/"
    known = Laptop(Indexes(urls[0], (urls[1],)), hub="https://ann:hubp@hub.test")
    with lend(connection, terms(laptop=known), phase=Phase(Silent())) as loan:
        secret = secret_of(loan)
        said = f"{secret} {encode_token(secret)} {urls} s3cr@t https://ann:hubp@hub.test ann"
        shown = loan.redact(said)
    assert not [word for word in (secret, encode_token(secret), "s3cr", "tok3n", "hubp") if word in shown]
    assert "a.test" in shown and "ann" in shown


class Watching(Silent):
    """Remembers what was shown of a transfer."""

    def __init__(self) -> None:
        self.transfers: list[Transfer] = []
        self.has_shown, self.has_some = threading.Event(), threading.Event()

    def transfer(self, transfer: Transfer) -> None:
        self.transfers.append(transfer)
        self.has_shown.set()
        if transfer.done:
            self.has_some.set()


def test_progress(connection: Connection, index: Index) -> None:
    """What has come since the block's beginning is shown, once there is some; a total that was too small grows."""
    reporter = Watching()
    url = f"{index.url}large-one/"
    with lent(connection, own(index)) as loan:
        get(loan, url, index.ca)
        until(lambda: loan.traffic.connections == 0)  # the last bytes are counted after they were sent
        with loan.shown(Phase(reporter), "packages", total=10):
            assert not reporter.has_shown.wait(2 * SHOW_SECONDS)
            get(loan, url, index.ca)
            assert reporter.has_some.wait(30)
    last = reporter.transfers[-1]
    assert last.what == "packages" and last.done == last.total and 0 < last.done < loan.traffic.received
