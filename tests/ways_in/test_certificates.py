"""Logins with certificates of users and of hosts, and what known_hosts says of host keys."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.agents import agent
from tests.support.certificates import Authority, revocation_list
from tests.support.openssh import Server, make_key, public_key, serving, write
from tests.support.ways import CARRIED, Client, Dls, OpenSsh, Way, parameters


@pytest.fixture(params=parameters(OpenSsh(), Dls(), CARRIED))
def client(request: pytest.FixtureRequest) -> Client:
    """OpenSSH's client, and ours by both of its carriers."""
    found: Client = request.param
    return found


ANY = "[127.0.0.1]:*"
"""Pattern of known_hosts for all servers of ours."""


@pytest.fixture
def authority(lab: Path) -> Authority:
    return Authority(lab)


@contextlib.contextmanager
def certified(
    lab: Path, authority: Authority, name: str, kind: str = "ed25519", *, validity: str = "always:forever"
) -> Iterator[tuple[Server, Path]]:
    """Run a server whose host key has a certificate for this name; yields it with a configuration."""
    key = make_key(lab / "certified_host_key", kind)
    certificate = authority.sign_host(key, name, validity=validity)
    # The plain key of the lab stays, as hosts have several.
    with serving(lab / "server", f"HostKey {key}", f"HostCertificate {certificate}") as server:
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public_key(key)}\n")
        yield server, write(lab, server.section())


@pytest.mark.parametrize(
    "kind", ["ed25519", pytest.param("rsa", marks=pytest.mark.slow), pytest.param("ecdsa", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("place", ["beside the key", "elsewhere", "in the agent"])
def test_a_users_certificate(client: Client, lab: Path, authority: Authority, kind: str, place: str) -> None:
    """The host knows no key, only the authority: the certificate gets in from beside its key, from the file that
    CertificateFile names, and from the agent."""
    with serving(lab / "server", f"TrustedUserCAKeys {authority.public}", "AuthorizedKeysFile none") as server:
        key = make_key(lab / "key", kind)
        elsewhere = lab / "certificate.pub" if place == "elsewhere" else None
        authority.sign_user(key, server.user, at=elsewhere)
        lines = [f"CertificateFile {elsewhere}"] if elsewhere else []
        with agent(lab, *([key] if place == "in the agent" else [])) as socket:
            if place == "in the agent":
                key.unlink()
            else:
                lines += [f"IdentityFile {key}", "IdentitiesOnly yes"]
            config = write(lab, server.section("lab", *lines, key=False))
            outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
        assert outcome.entered and outcome.logins == (1,), outcome


def test_a_certificate_that_the_host_does_not_know(client: Client, server: Server, lab: Path) -> None:
    """A certificate lies beside the key, but the host knows the plain key only: the key is offered too."""
    key = lab / "key"
    key.write_bytes(server.key.read_bytes())
    key.chmod(0o600)
    Path(f"{key}.pub").write_text(Path(f"{server.key}.pub").read_text())
    Authority(lab).sign_user(key, server.user)
    config = write(lab, server.section("lab", f"IdentityFile {key}", "IdentitiesOnly yes", key=False))
    outcome = client.enter(Way(config, (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize("flaw", ["expired", "not yet valid", "another user's"])
def test_a_users_certificate_that_is_not_valid(client: Client, lab: Path, authority: Authority, flaw: str) -> None:
    """The host refuses such a certificate."""
    with serving(lab / "server", f"TrustedUserCAKeys {authority.public}", "AuthorizedKeysFile none") as server:
        key = make_key(lab / "key")
        validity = {"expired": "20200101:20200102", "not yet valid": "20900101:20900102"}.get(flaw, "always:forever")
        authority.sign_user(key, "somebody" if flaw == "another user's" else server.user, validity=validity)
        config = write(lab, server.section("lab", f"IdentityFile {key}", "IdentitiesOnly yes", key=False))
        outcome = client.enter(Way(config, (server,)))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome


def test_a_hosts_certificate(client: Client, lab: Path, authority: Authority) -> None:
    """known_hosts trusts the authority for all hosts of a pattern, and knows no key of this one."""
    with certified(lab, authority, "127.0.0.1") as (server, config):
        server.known_hosts.write_text(authority.trust(ANY))
        outcome = client.enter(Way(config, (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_hosts_certificate_for_another_kind_of_key(
    client: Client, lab: Path, authority: Authority, kind: str
) -> None:
    """The host's certified key is RSA or ECDSA, and it has a plain ED25519 key besides, which known_hosts lacks."""
    with certified(lab, authority, "127.0.0.1", kind) as (server, config):
        server.known_hosts.write_text(authority.trust(ANY))
        outcome = client.enter(Way(config, (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize("flaw", ["another name", "expired", "another authority", "revoked authority"])
def test_a_hosts_certificate_that_is_not_valid(client: Client, lab: Path, authority: Authority, flaw: str) -> None:
    """A certificate for another name, an expired one, and one of an authority that is unknown or revoked, prove
    nothing: nobody can be asked, so nobody gets in."""
    name = "elsewhere" if flaw == "another name" else "127.0.0.1"
    validity = "20200101:20200102" if flaw == "expired" else "always:forever"
    with certified(lab, authority, name, validity=validity) as (server, config):
        trusted = Authority(lab, "other") if flaw == "another authority" else authority
        line = trusted.trust(ANY)
        revoked = line.replace("@cert-authority", "@revoked") if flaw == "revoked authority" else ""
        server.known_hosts.write_text(revoked + line)
        outcome = client.enter(Way(config, (server,)))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (12, 255), outcome


def test_a_certified_host_whose_plain_key_is_known(client: Client, lab: Path, authority: Authority) -> None:
    """The host shows a certificate of an authority that nobody here trusts, but its key itself is known."""
    with certified(lab, authority, "127.0.0.1") as (server, config):
        outcome = client.enter(Way(config, (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome


def test_a_hosts_certificate_under_an_alias(client: Client, lab: Path, authority: Authority) -> None:
    """With HostKeyAlias, the certificate has to name the alias, and so has the pattern."""
    with certified(lab, authority, "cluster") as (server, _):
        server.known_hosts.write_text(authority.trust("cluster"))
        config = write(lab, server.section("lab", "HostKeyAlias cluster"))
        outcome = client.enter(Way(config, (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome


def test_a_revoked_host_key(client: Client, lab: Path) -> None:
    """A key that known_hosts marks as revoked is refused, though another line knows it."""
    with serving(lab / "server") as server:
        text = server.known_hosts.read_text()
        server.known_hosts.write_text(f"@revoked * {public_key(server.folder / 'host_key')}\n{text}")
        outcome = client.enter(Way(write(lab, server.section()), (server,)), accept_host_key=True)
        assert not outcome.entered and outcome.logins == (0,) and not outcome.asked, outcome
        assert "revoked" in outcome.said.lower() and outcome.exit_code in (12, 255), outcome


@pytest.mark.parametrize("as_list", [False, True], ids=["keys", "krl"])
def test_revoked_host_keys_in_a_file(client: Client, lab: Path, as_list: bool) -> None:
    """RevokedHostKeys names a file of revoked keys: public keys, or a key revocation list."""
    with serving(lab / "server") as server:
        key = Path(f"{server.folder}/host_key.pub")
        revoked = revocation_list(lab / "revoked", key) if as_list else key
        config = write(lab, server.section("lab", f"RevokedHostKeys {revoked}"))
        outcome = client.enter(Way(config, (server,)))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (12, 255), outcome


def test_a_key_that_the_host_has_revoked(client: Client, lab: Path) -> None:
    """The host refuses a key of its own list of revoked ones (RevokedKeys)."""
    with serving(lab / "server", f"RevokedKeys {lab}/server/id_ed25519.pub") as server:
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert not outcome.entered and outcome.exit_code in (13, 255), outcome


def test_hashed_known_hosts(client: Client, lab: Path) -> None:
    """The names in known_hosts are hashed."""
    with serving(lab / "server") as server:
        command = ["ssh-keygen", "-q", "-H", "-f", str(server.known_hosts)]
        subprocess.run(command, check=True, capture_output=True)
        assert server.known_hosts.read_text().startswith("|1|")
        outcome = client.enter(Way(write(lab, server.section()), (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome


def test_a_changed_host_key(client: Client, lab: Path) -> None:
    """A host key that is not the known one is refused without a question, and the error says where the old one is."""
    with serving(lab / "server") as server:
        other = make_key(lab / "other")
        server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public_key(other)}\n")
        outcome = client.enter(Way(write(lab, server.section()), (server,)), accept_host_key=True)
        assert not outcome.entered and outcome.logins == (0,) and not outcome.asked, outcome
        assert "changed" in outcome.said.lower() and "ssh-keygen" in outcome.said, outcome
