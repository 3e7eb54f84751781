"""Key files: their formats, their passphrases, and those that can't be read."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.agents import agent
from tests.support.openssh import Server, allow, client_version, make_key, serving, write
from tests.support.ways import CARRIED, Client, Dls, OpenSsh, Way, parameters


@pytest.fixture(params=parameters(OpenSsh(), Dls(), CARRIED))
def client(request: pytest.FixtureRequest) -> Client:
    """OpenSSH's client, and ours by both of its carriers."""
    found: Client = request.param
    return found


PASSPHRASE = "correct horse"
FORMATS = {
    "OpenSSH's": [],
    "PEM": ["-m", "PEM"],
    "PKCS8": ["-m", "PKCS8"],
    "a stronger cipher": ["-Z", "aes256-gcm@openssh.com"],
    "many rounds": ["-a", "32"],
}  # fmt: skip
PASSPHRASE_ONLY = ("a stronger cipher", "many rounds")
"""Formats that differ only where there is a passphrase."""


def named(lab: Path, server: Server, *keys: Path) -> Path:
    """Write a configuration with these key files only."""
    lines = (*(f"IdentityFile {key}" for key in keys), "IdentitiesOnly yes")
    return write(lab, server.section("lab", *lines, key=False))


@pytest.mark.parametrize("kind", [pytest.param("rsa", marks=pytest.mark.slow), "ecdsa"])
@pytest.mark.parametrize(
    ("form", "passphrase"),
    [  # the names leave the passphrase out: pytest puts them into the environment, where no secret may be seen
        pytest.param(form, text, id=f"{form}, {'locked' if text else 'open'}")
        for form in FORMATS
        for text in ("", PASSPHRASE)
        if text or form not in PASSPHRASE_ONLY
    ],
)
def test_formats(client: Client, lab: Path, kind: str, passphrase: str, form: str) -> None:
    """Each format of a key that ssh-keygen writes gets in, with and without a passphrase."""
    key = make_key(lab / "key", kind, passphrase=passphrase, more=tuple(FORMATS[form]))
    with serving(lab / "server") as server:
        allow(server, key)
        answers = {"assphrase": passphrase} if passphrase else None
        outcome = client.enter(Way(named(lab, server, key), (server,)), answers=answers)
        assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == bool(passphrase), outcome


def test_a_key_without_its_public_half(client: Client, lab: Path) -> None:
    """The public half is inside OpenSSH's format, so it may be missing as a file."""
    key = make_key(lab / "key", passphrase=PASSPHRASE)
    with serving(lab / "server") as server:
        allow(server, key)
        Path(f"{key}.pub").unlink()
        outcome = client.enter(Way(named(lab, server, key), (server,)), answers={"assphrase": PASSPHRASE})
        assert outcome.entered and len(outcome.asked) == 1, outcome


def test_a_wrong_passphrase_first(client: Client, lab: Path) -> None:
    """A wrong passphrase is asked for again."""
    key = make_key(lab / "key", passphrase=PASSPHRASE)
    with serving(lab / "server") as server:
        allow(server, key)
        answers = {"assphrase": ["wrong horse", PASSPHRASE]}
        outcome = client.enter(Way(named(lab, server, key), (server,)), answers=answers)
        assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == 2, outcome


def test_three_wrong_passphrases(client: Client, lab: Path) -> None:
    """After three wrong ones the key is left out."""
    key = make_key(lab / "key", passphrase=PASSPHRASE)
    with serving(lab / "server") as server:
        allow(server, key)
        outcome = client.enter(Way(named(lab, server, key), (server,)), answers={"assphrase": "wrong horse"})
        assert not outcome.entered and outcome.logins == (0,) and len(outcome.asked) == 3, outcome
        assert outcome.exit_code in (13, 255), outcome


def test_keys_that_the_host_does_not_take_are_not_unlocked(client: Client, lab: Path) -> None:
    """The public half is offered first: no passphrase is asked for a key that would not get in."""
    others = [make_key(lab / f"other{n}", passphrase=PASSPHRASE) for n in range(2)]
    with serving(lab / "server") as server:
        outcome = client.enter(Way(named(lab, server, *others, server.key), (server,)), answers={})
        assert outcome.entered and outcome.logins == (1,) and not outcome.asked, outcome


def test_a_locked_key_and_nobody_to_ask(client: Client, lab: Path) -> None:
    """Without a terminal the locked key is passed by, and another gets in."""
    locked = make_key(lab / "locked", passphrase=PASSPHRASE)
    with serving(lab / "server") as server:
        allow(server, locked)
        outcome = client.enter(Way(named(lab, server, locked, server.key), (server,)))
        assert outcome.entered and outcome.logins == (1,), outcome
        outcome = client.enter(Way(named(lab, server, locked), (server,)))
        assert not outcome.entered and outcome.exit_code in (13, 255), outcome
        assert client.name == "ssh" or "no terminal" in outcome.said, outcome


UNREADABLE = {
    "garbage": "this is no key\n",
    "empty": "",
    "cut off": "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n-----END OPENSSH PRIVATE KEY-----\n",
    "PuTTY's": "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nComment: key\nPublic-Lines: 2\n",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_a_key_file_that_can_not_be_read(client: Client, server: Server, lab: Path, text: str) -> None:
    """Such a file is passed by where another key gets in, and is named where none does."""
    key = lab / "unreadable"
    key.write_text(text)
    key.chmod(0o600)
    outcome = client.enter(Way(named(lab, server, key, server.key), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome
    outcome = client.enter(Way(named(lab, server, key), (server,)))
    assert not outcome.entered and outcome.exit_code in (13, 255), outcome
    assert client.name == "ssh" or "unreadable" in outcome.said, outcome


def test_a_public_key_instead_of_the_private_one(client: Client, server: Server, lab: Path) -> None:
    """A public key whose private half is nowhere is passed by where another key gets in."""
    public = lab / "key.pub"
    shutil.copy(f"{server.key}.pub", public)
    outcome = client.enter(Way(named(lab, server, public, server.key), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_a_key_that_is_a_folder(client: Client, server: Server, lab: Path) -> None:
    """IdentityFile may name a folder by mistake."""
    (lab / "folder").mkdir()
    outcome = client.enter(Way(named(lab, server, lab / "folder", server.key), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_a_short_rsa_key(client: Client, server: Server, lab: Path) -> None:
    """A key that is too short for today is passed by."""
    key = make_key(lab / "short", "rsa", more=("-b", "1024"))
    outcome = client.enter(Way(named(lab, server, key, server.key), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.skipif(client_version() < (9, 1), reason="RequiredRSASize came with OpenSSH 9.1")
def test_a_required_size(client: Client, lab: Path) -> None:
    """RequiredRSASize keeps a shorter RSA key away, though the host would take it; another kind of key gets in."""
    key = make_key(lab / "short", "rsa", more=("-b", "2048"))
    with serving(lab / "server") as server:
        allow(server, key)
        assert client.enter(Way(named(lab, server, key), (server,))).logins == (1,)
        strict = ("-o", "RequiredRSASize=3072")
        assert client.enter(Way(named(lab, server, key, server.key), (server,)), *strict).logins == (1,)
        outcome = client.enter(Way(named(lab, server, key), (server,)), *strict)
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome
        assert client.name != "dls" or "RequiredRSASize is 3072" in outcome.said, outcome


@pytest.mark.parametrize("value", ["yes", "no"])
def test_a_key_that_ssh_would_add_to_the_agent(lab: Path, value: str) -> None:
    """Where AddKeysToAgent wants it, the command that adds the key is told once its passphrase was typed."""
    key = make_key(lab / "key", passphrase=PASSPHRASE)
    with serving(lab / "server") as server, agent(lab) as socket:
        allow(server, key)
        way = Way(named(lab, server, key), (server,), {"SSH_AUTH_SOCK": str(socket)})
        outcome = Dls().enter(way, "-o", f"AddKeysToAgent={value}", answers={"assphrase": PASSPHRASE})
        assert outcome.entered and (f"`ssh-add {key}`" in outcome.said) == (value == "yes"), outcome


def test_a_key_as_an_option(client: Client, server: Server, lab: Path) -> None:
    """-i names one more key; a missing one that -i names is an error, or is named."""
    config = write(lab, server.section("lab", key=False))
    outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": ""}), "-i", str(server.key))
    assert outcome.entered and outcome.logins == (1,), outcome
    outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": ""}), "-i", str(lab / "missing"))
    assert not outcome.entered and "missing" in outcome.said, outcome
