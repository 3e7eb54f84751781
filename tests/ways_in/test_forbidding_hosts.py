"""Hosts that forbid something, that have odd algorithms, or that are no SSH servers at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from dls.errors import LoginError
from dls.remote.login import log_in
from dls.remote.progress import Phases, Silent
from dls.remote.ssh.prompts import NoPrompter, Question
from tests.support.accounts import account, needs_root
from tests.support.odd_hosts import answering, silent
from tests.support.openssh import Server, allow, make_key, serving, write
from tests.support.processes import free_port, until
from tests.support.ways import Client, Way, parse_login

HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request"


@pytest.mark.parametrize(
    "options",
    [
        ["AllowTcpForwarding no"],
        ["AllowStreamLocalForwarding no"],
        ["DisableForwarding yes"],
        ["PermitOpen none"],
        ["MaxSessions 1"],
        ["PermitTTY no"],
        ["Subsystem other /bin/false"],
        ["AllowAgentForwarding no", "X11Forwarding no", "PermitUserRC no"],
        ["MaxAuthTries 1"],
        ["MaxAuthTries 2"],
        ["Compression no"],
        ["RekeyLimit 1M 1"],
    ],
    ids=lambda options: str(options[0]),
)
def test_a_host_that_forbids_something_else(client: Client, lab: Path, options: list[str]) -> None:
    """None of these keeps a login with a key, and a command, away."""
    with serving(lab / "server", *options) as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize(
    "options",
    [
        ["KexAlgorithms sntrup761x25519-sha512@openssh.com"],
        ["Ciphers chacha20-poly1305@openssh.com"],
        ["KexAlgorithms sntrup761x25519-sha512@openssh.com", "Ciphers chacha20-poly1305@openssh.com"],
        ["Ciphers aes256-gcm@openssh.com", "KexAlgorithms curve25519-sha256"],
        ["MACs umac-128-etm@openssh.com", "Ciphers aes256-ctr"],
        ["MACs hmac-sha2-512-etm@openssh.com", "Ciphers aes128-ctr"],
    ],
    ids=lambda options: " ".join(option.split()[1].partition("@")[0] for option in options),
)
def test_modern_algorithms_only(client: Client, lab: Path, options: list[str]) -> None:
    """Every OpenSSH of the last years knows these algorithms; the host has no others."""
    with serving(lab / "server", *options) as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome


OLD = {
    "key exchange": ("KexAlgorithms diffie-hellman-group14-sha1", "KexAlgorithms +diffie-hellman-group14-sha1"),
    "cipher": ("Ciphers aes128-cbc", "Ciphers +aes128-cbc"),
}
"""What an old host has only, and the line of the client's configuration that permits it."""


@pytest.mark.parametrize("kind", OLD)
def test_old_algorithms(client: Client, lab: Path, kind: str) -> None:
    """A line of the configuration lets one into a host with old algorithms only, which ssh does not without it."""
    theirs, permission = OLD[kind]
    with serving(lab / "server", theirs) as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert not outcome.entered and theirs.split()[1] in outcome.said, outcome
        outcome = client.enter(Way(write(lab, server.section("lab", permission)), (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome


def test_a_hosts_banner(client: Client, lab: Path) -> None:
    """The text that a host shows before the login is shown, with a long line and letters of all kinds."""
    (lab / "banner").write_text(f"Zugang nur für Befugte.\nMaintenance on Friday: {'x' * 300}\n")
    with serving(lab / "server", f"Banner {lab}/banner") as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome
        assert "Zugang nur für Befugte." in outcome.said and "Maintenance on Friday" in outcome.said, outcome


def test_a_banner_before_a_refusal(client: Client, lab: Path) -> None:
    """The banner may say why nobody gets in."""
    (lab / "banner").write_text("The cluster is down until Monday.\n")
    with serving(lab / "server", f"Banner {lab}/banner", "AllowUsers nobody-else") as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert not outcome.entered and outcome.exit_code in (13, 255), outcome
        assert "The cluster is down until Monday." in outcome.said, outcome


def test_too_many_key_files(client: Client, lab: Path) -> None:
    """The host hangs up at the second key, since MaxAuthTries is 1, and that is said."""
    with serving(lab / "server", "MaxAuthTries 1") as server:
        wrong = make_key(lab / "wrong")
        config = write(lab, server.section("lab", f"IdentityFile {wrong}"))
        outcome = client.enter(Way(config, (server,)))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome
        assert "too many" in outcome.said.lower(), outcome


def is_connected(port: int) -> bool:
    """Whether a connection to the loopback port is open at both ends."""
    return any(line.split()[2:4] == [f"0100007F:{port:04X}", "01"] for line in connections())


def connections() -> list[str]:
    return Path("/proc/net/tcp").read_text().splitlines()[1:]


class Late(NoPrompter):
    """Answers when the host has given up waiting."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def answer(self, question: Question) -> str:
        until(lambda: not is_connected(self._server.port))
        return "too-late-by-now"


@pytest.mark.parametrize("carrier", ["paramiko", "openssh"])
def test_an_answer_that_comes_too_late(lab: Path, carrier: str) -> None:
    """The host has hung up before the person had typed: that is a refused login, not a lost link."""
    options = ("PasswordAuthentication yes", "PubkeyAuthentication no", "LoginGraceTime 6")
    with serving(lab / "server", *options) as server:
        way = Way(write(lab, server.section()), (server,))
        with pytest.raises(LoginError) as caught:
            log_in("lab", parse_login(way, "--carrier", carrier), Late(server), Phases(Silent()))
        assert "too-late-by-now" not in str(caught.value.__dict__)


def test_no_sessions(client: Client, lab: Path) -> None:
    """MaxSessions 0 lets people in for forwards only: no command runs there."""
    with serving(lab / "server", "MaxSessions 0") as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert not outcome.entered and outcome.logins == (1,) and outcome.exit_code in (14, 255), outcome


def test_a_forced_command(client: Client, lab: Path) -> None:
    """The host runs its own command, whatever was asked for: what that says is shown."""
    with serving(lab / "server", "ForceCommand echo 'Data transfer only.'") as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert not outcome.entered and outcome.exit_code in (0, 14), outcome
        assert "Data transfer only." in outcome.said, outcome


def test_sftp_only(client: Client, lab: Path) -> None:
    """The host's forced command is its SFTP server."""
    with serving(lab / "server", "ForceCommand internal-sftp") as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert not outcome.entered and outcome.exit_code in (1, 14), outcome


@needs_root
@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false"])
def test_a_login_shell_that_ends(client: Client, lab: Path, shell: str) -> None:
    """The account may log in, but its shell says no, with or without a word."""
    with account("dlsways", shell=shell) as user, serving(lab / "server", user=user) as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert not outcome.entered and outcome.logins == (1,) and outcome.exit_code in (1, 14), outcome
        assert "not available" in outcome.said or shell == "/bin/false", outcome


@needs_root
def test_a_host_that_hangs_up_after_the_login(client: Client, lab: Path) -> None:
    """sshd ends right after the login: the folder that it should lock the user into is missing."""
    with account("dlsways") as user, serving(lab / "server", "ChrootDirectory /no/such", user=user) as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert not outcome.entered and outcome.logins == (1,) and outcome.exit_code in (13, 14, 18, 255), outcome


@pytest.mark.parametrize("lines", ["AllowUsers nobody-else", "DenyUsers *", "PubkeyAuthentication no"])
def test_a_user_who_may_not_log_in(client: Client, lab: Path, lines: str) -> None:
    """The host has no way in for this user."""
    with serving(lab / "server", lines, "PasswordAuthentication yes") as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome


def test_options_of_the_key_on_the_host(client: Client, lab: Path) -> None:
    """A key that is `restrict`ed in authorized_keys still runs commands."""
    with serving(lab / "server") as server:
        keys = server.folder / "authorized_keys"
        keys.write_text(f"restrict {keys.read_text()}")
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome


def test_the_first_key_is_for_something_else(client: Client, lab: Path) -> None:
    """The first key gets in and runs a forced command only; that is said, and the second one is not tried."""
    with serving(lab / "server") as server:
        backup = make_key(lab / "backup")
        keys = server.folder / "authorized_keys"
        keys.write_text(f'command="echo backups only" {Path(f"{backup}.pub").read_text()}')
        allow(server, server.key)
        config = write(lab, server.section("lab", f"IdentityFile {backup}"))
        outcome = client.enter(Way(config, (server,)))
        assert not outcome.entered and outcome.logins == (1,) and "backups only" in outcome.said, outcome


def at(port: int, *lines: str) -> str:
    """Return a Host section for whatever listens on the port."""
    usual = ("HostName 127.0.0.1", f"Port {port}", "UserKnownHostsFile /dev/null", *lines)
    return "".join(f"{line}\n" for line in ("Host lab", *usual))


@pytest.mark.timeout(60)
def test_a_greeting_that_never_comes(client: Client, lab: Path) -> None:
    """Something accepts the connection and says nothing; ConnectTimeout bounds the wait."""
    with silent() as port:
        outcome = client.enter(Way(write(lab, at(port, "ConnectTimeout 1"))))
        assert not outcome.entered and outcome.exit_code in (11, 255), outcome


@pytest.mark.parametrize(
    "answer",
    [b"", HTTP, b"220 mail.example.org ESMTP\r\n", b"\x00\xff" * 2000, b"SSH-1.5-ancient\r\n", b"SSH-2.0-x\r\n"],
    ids=["nothing", "HTTP", "SMTP", "bytes", "SSH 1", "only a greeting"],
)
@pytest.mark.timeout(60)
def test_no_ssh_server(client: Client, lab: Path, answer: bytes) -> None:
    """Something else listens there, or closes at once: that is an error of the connection, not of the login."""
    with answering(answer, reads=answer == HTTP) as port:
        outcome = client.enter(Way(write(lab, at(port))))
        assert not outcome.entered and outcome.exit_code in (11, 255), outcome


@pytest.mark.parametrize("line", ["", "HostName no-such-host.invalid", "HostName 127.0.0.2"])
def test_nobody_there(client: Client, lab: Path, line: str) -> None:
    """The port is closed, or the name is unknown."""
    port = free_port()
    config = write(lab, f"Host lab\n  {line}\n" + at(port))
    outcome = client.enter(Way(config))
    assert not outcome.entered and outcome.exit_code in (11, 255), outcome


def test_a_lost_carrier_is_not_claimed(client: Client, server: Server, lab: Path) -> None:
    """A login with a key that the host does not take is refused, and not called a lost connection."""
    wrong = make_key(lab / "wrong")
    config = write(lab, server.section("lab", f"IdentityFile {wrong}", "IdentitiesOnly yes", key=False))
    outcome = client.enter(Way(config, (server,)))
    assert not outcome.entered and outcome.exit_code in (13, 255) and "lost" not in outcome.said, outcome
