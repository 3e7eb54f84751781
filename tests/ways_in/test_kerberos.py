"""Logins with a Kerberos ticket (GSSAPI)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kerberos_lab import Realm, kerberized, missing_programs, realm, section
from tests.support.openssh import Server, serving, write
from tests.support.ways import Client, Way

pytestmark = pytest.mark.skipif(
    bool(missing_programs()), reason=f"needs Kerberos: {', '.join(missing_programs())} missing"
)
BOTH = "AuthenticationMethods publickey gssapi-with-mic"
"""Either a key or a ticket."""


@pytest.fixture(scope="module")
def kerberos() -> Iterator[tuple[Realm, Server]]:
    """A realm, and a server that takes its tickets only."""
    folder = Path(tempfile.mkdtemp(prefix="dls-k-"))
    folder.chmod(0o755)
    with realm(folder / "realm") as made, kerberized(folder / "server", made) as server:
        yield made, server
    shutil.rmtree(folder, ignore_errors=True)


def test_a_ticket(client: Client, lab: Path, kerberos: tuple[Realm, Server]) -> None:
    """The ticket is all that the host takes: nothing is asked."""
    made, server = kerberos
    made.take_ticket()
    outcome = client.enter(Way(write(lab, section(server)), (server,), made.env), answers={})
    assert outcome.entered and outcome.logins == (1,) and not outcome.asked, outcome


def test_no_ticket(client: Client, lab: Path, kerberos: tuple[Realm, Server]) -> None:
    """Without a ticket the login is refused; ours says which command gets one."""
    made, server = kerberos
    made.take_ticket()
    made.drop_ticket()
    outcome = client.enter(Way(write(lab, section(server)), (server,), made.env))
    assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome
    assert client.name == "ssh" or "kinit" in outcome.said, outcome


def test_tickets_are_not_wanted(client: Client, lab: Path, kerberos: tuple[Realm, Server]) -> None:
    """With `GSSAPIAuthentication no` in the configuration, the ticket is not used."""
    made, server = kerberos
    made.take_ticket()
    config = write(lab, section(server, "GSSAPIAuthentication no"))
    outcome = client.enter(Way(config, (server,), made.env))
    assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome


def test_a_jump_host_with_a_ticket(client: Client, lab: Path, kerberos: tuple[Realm, Server]) -> None:
    """The ticket gets in at the jump host, and a key at the host behind it."""
    made, jump = kerberos
    made.take_ticket()
    with serving(lab / "server") as server:
        text = server.section("lab", "ProxyJump jump") + section(jump).replace("Host lab", "Host jump")
        outcome = client.enter(Way(write(lab, text), (server, jump), made.env))
        assert outcome.entered and outcome.logins == (1, 1), outcome


def test_a_ticket_behind_a_jump_host(client: Client, lab: Path, kerberos: tuple[Realm, Server]) -> None:
    """A key gets in at the jump host, and the ticket at the host behind it."""
    made, server = kerberos
    made.take_ticket()
    with serving(lab / "jump") as jump:
        text = section(server, "ProxyJump jump") + jump.section("jump")
        outcome = client.enter(Way(write(lab, text), (server, jump), made.env))
        assert outcome.entered and outcome.logins == (1, 1), outcome


def test_a_ticket_or_a_key(client: Client, lab: Path, kerberos: tuple[Realm, Server]) -> None:
    """A host that takes both is logged in to with a key where there is no ticket, as GSSAPIAuthentication is set for
    all hosts by some distributions."""
    made, _ = kerberos
    made.take_ticket()
    made.drop_ticket()
    with kerberized(lab / "server", made, BOTH) as server:
        text = section(server, f"IdentityFile {server.key}", "IdentitiesOnly yes")
        outcome = client.enter(Way(write(lab, text), (server,), made.env))
        assert outcome.entered and outcome.logins == (1,), outcome


def test_a_ticket_and_a_key(client: Client, lab: Path, kerberos: tuple[Realm, Server]) -> None:
    """A host that wants both gets both, with one login."""
    made, _ = kerberos
    made.take_ticket()
    with kerberized(lab / "server", made, "AuthenticationMethods gssapi-with-mic,publickey") as server:
        text = section(server, f"IdentityFile {server.key}", "IdentitiesOnly yes")
        outcome = client.enter(Way(write(lab, text), (server,), made.env))
        assert outcome.entered and outcome.logins == (1,), outcome
