"""Logins with keys that never leave their hardware: smart cards and security keys, both in software here."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import security_key, smart_card
from tests.support.agents import add_card, agent
from tests.support.openssh import Server, allow, serving, write
from tests.support.smart_card import PIN, SmartCard
from tests.support.ways import Client, Way

needs_card = pytest.mark.skipif(
    smart_card.find_module() is None or shutil.which("pkcs11-tool") is None,
    reason="needs a smart card in software (on Debian: softhsm2, opensc)",
)
needs_security_key = pytest.mark.skipif(
    security_key.missing() is not None, reason=f"needs a security key in software: {security_key.missing()}"
)


@pytest.fixture
def card(lab: Path) -> SmartCard:
    return smart_card.insert(lab / "card")


@pytest.fixture
def taking_the_card(lab: Path, card: SmartCard) -> Iterator[Server]:
    """A server that takes the card's key only."""
    with serving(lab / "server") as server:
        (server.folder / "authorized_keys").write_text(card.public_key)
        yield server


@needs_card
def test_a_smart_card(client: Client, lab: Path, card: SmartCard, taking_the_card: Server) -> None:
    """PKCS11Provider names the card's module; the PIN is asked for once."""
    server = taking_the_card
    config = write(lab, server.section("lab", f"PKCS11Provider {card.module}", key=False))
    outcome = client.enter(Way(config, (server,), card.env), answers={"PIN": PIN})
    assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == 1, outcome


@needs_card
@pytest.mark.parametrize("kind", ["EC:prime256v1"])
def test_kinds_of_keys_on_a_card(client: Client, lab: Path, kind: str) -> None:
    """The card may have another kind of key."""
    card = smart_card.insert(lab / "card", kind)
    with serving(lab / "server") as server:
        (server.folder / "authorized_keys").write_text(card.public_key)
        config = write(lab, server.section("lab", f"PKCS11Provider {card.module}", key=False))
        outcome = client.enter(Way(config, (server,), card.env), answers={"PIN": PIN})
        assert outcome.entered and outcome.logins == (1,), outcome


@needs_card
def test_a_wrong_pin(client: Client, lab: Path, card: SmartCard, taking_the_card: Server) -> None:
    """A wrong PIN is not tried again: a card locks itself after a few."""
    server = taking_the_card
    config = write(lab, server.section("lab", f"PKCS11Provider {card.module}", key=False))
    outcome = client.enter(Way(config, (server,), card.env), answers={"PIN": "99999999"})
    assert not outcome.entered and outcome.logins == (0,) and len(outcome.asked) == 1, outcome
    assert outcome.exit_code in (13, 255) and "PIN" in outcome.said, outcome


@needs_card
def test_a_card_and_nobody_to_ask(client: Client, lab: Path, card: SmartCard, taking_the_card: Server) -> None:
    """Nobody can be asked for the PIN: the login ends, and says what would help."""
    server = taking_the_card
    config = write(lab, server.section("lab", f"PKCS11Provider {card.module}", key=False))
    outcome = client.enter(Way(config, (server,), card.env))
    assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome


@needs_card
def test_a_card_in_the_agent(client: Client, lab: Path, card: SmartCard, taking_the_card: Server) -> None:
    """The agent has the card and its PIN (`ssh-add -s`)."""
    server = taking_the_card
    with agent(lab, env=card.env) as socket:
        add_card(socket, card.module, PIN)
        config = write(lab, server.section("lab", key=False))
        outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
    assert outcome.entered and outcome.logins == (1,), outcome


@needs_card
def test_no_card(client: Client, server: Server, lab: Path) -> None:
    """The module is missing or is none: another key gets in, and ssh says what is wrong."""
    config = write(lab, server.section("lab", "PKCS11Provider /no/such/module.so"))
    outcome = client.enter(Way(config, (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


@needs_security_key
@pytest.mark.parametrize("form", ["a path", "a variable"])
def test_a_security_key(client: Client, lab: Path, form: str) -> None:
    """The key file refers to the security key, whose middleware SecurityKeyProvider names, maybe by a variable."""
    provider = security_key.provider(lab)
    key = security_key.make_key(lab / "key", provider)
    with serving(lab / "server") as server:
        (server.folder / "authorized_keys").write_text("")
        allow(server, key)
        value = provider if form == "a path" else "$LAB_PROVIDER"
        lines = [f"IdentityFile {key}", "IdentitiesOnly yes", f"SecurityKeyProvider {value}"]
        env = {"LAB_PROVIDER": str(provider)}
        config = write(lab, server.section("lab", *lines, key=False))
        outcome = client.enter(Way(config, (server,), env), answers={"presence": ""})
        assert outcome.entered and outcome.logins == (1,), outcome


@needs_security_key
def test_a_security_key_in_the_agent(client: Client, lab: Path) -> None:
    """The agent has the security key."""
    provider = security_key.provider(lab)
    key = security_key.make_key(lab / "key", provider)
    with serving(lab / "server") as server:
        (server.folder / "authorized_keys").write_text("")
        allow(server, key)
        # The agent allows middleware from some folders only.
        with agent(lab, key, options=("-P", f"{lab}/*"), env={"SSH_SK_PROVIDER": str(provider)}) as socket:
            config = write(lab, server.section("lab", key=False))
            outcome = client.enter(Way(config, (server,), {"SSH_AUTH_SOCK": str(socket)}))
        assert outcome.entered and outcome.logins == (1,), outcome


@needs_security_key
def test_a_security_key_that_is_not_plugged_in(client: Client, lab: Path) -> None:
    """Without the security key its file is no use: another key gets in, and where there is none that is said."""
    provider = security_key.provider(lab)
    key = security_key.make_key(lab / "key", provider)
    provider.unlink()
    with serving(lab / "server") as server:
        allow(server, key)
        lines = [f"IdentityFile {key}", "IdentitiesOnly yes", f"SecurityKeyProvider {provider}"]
        config = write(lab, server.section("lab", *lines, f"IdentityFile {server.key}", key=False))
        assert client.enter(Way(config, (server,))).logins == (1,)
        config = write(lab, server.section("lab", *lines, key=False))
        outcome = client.enter(Way(config, (server,)))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome


@needs_security_key
def test_a_security_key_with_a_pin(client: Client, lab: Path) -> None:
    """A key made with `verify-required` wants the security key's PIN for each signature."""
    provider = security_key.provider(lab)
    key = security_key.make_key(lab / "key", provider, "-O", "verify-required")
    with serving(lab / "server") as server:
        (server.folder / "authorized_keys").write_text(f"verify-required {Path(f'{key}.pub').read_text()}")
        lines = [f"IdentityFile {key}", "IdentitiesOnly yes", f"SecurityKeyProvider {provider}"]
        config = write(lab, server.section("lab", *lines, key=False))
        outcome = client.enter(Way(config, (server,)), answers={"PIN": security_key.PIN, "presence": ""})
        assert outcome.entered and outcome.logins == (1,), outcome


def test_the_key_file_of_a_security_key_that_ssh_keygen_reads(lab: Path) -> None:
    """The lab's key file is one of the kind sk-ssh-ed25519."""
    if security_key.missing():
        pytest.skip("needs a security key in software")
    key = security_key.make_key(lab / "key", security_key.provider(lab))
    shown = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], capture_output=True, text=True, check=True).stdout
    assert "(ED25519-SK)" in shown
