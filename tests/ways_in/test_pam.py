"""Logins that PAM decides on: passwords, one-time codes, texts of the host, accounts that are refused."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.accounts import PASSWORD, account, needs_root, set_password
from tests.support.openssh import Server, serving, write
from tests.support.pam_lab import (
    GOOGLE,
    PASSWORD_LINE,
    PamLab,
    code_line,
    has_module,
    pam_lab,
    script_line,
    write_secret,
)
from tests.support.ways import CARRIED, Client, Dls, OpenSsh, Way, parameters

pytestmark = needs_root
needs_codes = pytest.mark.skipif(
    not has_module(GOOGLE), reason="asks for one-time codes (on Debian: libpam-google-authenticator)"
)
BOTH = "AuthenticationMethods publickey,keyboard-interactive"
NEW = "n3w-and-l0ng-enough"


@pytest.fixture(params=parameters(OpenSsh(), Dls(), CARRIED))
def client(request: pytest.FixtureRequest) -> Client:
    """OpenSSH's client, and ours by both of its carriers."""
    found: Client = request.param
    return found


def way(lab: Path, server: Server, *lines: str) -> Way:
    """Return the usual way to the server."""
    return Way(write(lab, server.section("lab", *lines)), (server,))


@pytest.fixture
def codes(lab: Path) -> Iterator[PamLab]:
    """A server that wants a password and a one-time code."""
    with pam_lab(lab, [PASSWORD_LINE, code_line(lab)]) as made:
        yield made


@needs_codes
def test_a_password_and_a_code(client: Client, lab: Path, codes: PamLab) -> None:
    """The host asks for both in two rounds, in its own words."""
    answers = {"assword": PASSWORD, "ode": codes.new_code()}
    outcome = client.enter(way(lab, codes.server), answers=answers)
    assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == 2, outcome


@needs_codes
def test_a_wrong_code_first(client: Client, lab: Path, codes: PamLab) -> None:
    """After a wrong code the host asks for both again."""
    answers = {"assword": PASSWORD, "ode": ["00000000", codes.new_code()]}
    outcome = client.enter(way(lab, codes.server), answers=answers)
    assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == 4, outcome


@needs_codes
def test_wrong_codes_only(client: Client, lab: Path, codes: PamLab) -> None:
    """After three rounds the login is refused."""
    write_secret(lab / codes.user, "JBSWY3DPEHPK3PXP\n")
    outcome = client.enter(way(lab, codes.server), answers={"assword": PASSWORD, "ode": "00000000"})
    assert not outcome.entered and outcome.logins == (0,) and len(outcome.asked) == 6, outcome
    assert outcome.exit_code in (13, 255), outcome


@needs_codes
def test_a_key_and_a_code(client: Client, lab: Path) -> None:
    """The host wants a key, and then a code."""
    with pam_lab(lab, [code_line(lab)], BOTH) as made:
        outcome = client.enter(way(lab, made.server), answers={"ode": made.new_code()})
        assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == 1, outcome


@needs_codes
def test_a_key_and_a_code_and_nobody_to_ask(client: Client, lab: Path) -> None:
    """The key is accepted, and nobody can be asked for the code: the login ends at once, and says so."""
    with pam_lab(lab, [code_line(lab)], BOTH) as made:
        made.new_code()
        outcome = client.enter(way(lab, made.server))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome


@needs_codes
def test_a_key_a_password_and_a_code(client: Client, lab: Path) -> None:
    """The host wants three things, a key and a password before the code."""
    methods = "AuthenticationMethods publickey,password,keyboard-interactive"
    options = (methods, "PasswordAuthentication yes")
    # The password as a method of its own goes through the same service, so the code is asked for alone there.
    with pam_lab(lab, [PASSWORD_LINE], *options) as made:
        outcome = client.enter(way(lab, made.server), answers={"assword": PASSWORD})
        assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == 2, outcome


def test_a_password(client: Client, lab: Path) -> None:
    """The password method, without PAM's questions; a wrong one first."""
    options = ("PasswordAuthentication yes", "AuthenticationMethods password")
    with pam_lab(lab, [PASSWORD_LINE], *options) as made:
        outcome = client.enter(way(lab, made.server), answers={"assword": ["hunter22", PASSWORD]})
        assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == 2, outcome


def test_wrong_passwords(client: Client, lab: Path) -> None:
    """Three wrong passwords end the login."""
    options = ("PasswordAuthentication yes", "AuthenticationMethods password")
    with pam_lab(lab, [PASSWORD_LINE], *options) as made:
        outcome = client.enter(way(lab, made.server), answers={"assword": "hunter22"})
        assert not outcome.entered and outcome.logins == (0,) and len(outcome.asked) == 3, outcome
        assert outcome.exit_code in (13, 255), outcome


def test_a_number_to_match(client: Client, lab: Path) -> None:
    """The host shows a text and asks nothing: a number that the person compares with their phone's."""
    show = script_line(lab, "auth", "echo 'Number to match: 42'")
    with pam_lab(lab, [show, "auth required pam_permit.so"]) as made:
        outcome = client.enter(way(lab, made.server), answers={})
        assert outcome.entered and outcome.logins == (1,) and not outcome.asked, outcome
        assert "Number to match: 42" in outcome.said, outcome


def test_a_number_to_match_after_a_key(client: Client, lab: Path) -> None:
    """The same after a key, as with a push to the phone as second factor."""
    show = script_line(lab, "auth", "echo 'Push sent to +49 ... 42'")
    with pam_lab(lab, [show, "auth required pam_permit.so"], BOTH) as made:
        outcome = client.enter(way(lab, made.server), answers={})
        assert outcome.entered and outcome.logins == (1,), outcome
        assert "Push sent to +49 ... 42" in outcome.said, outcome


def test_a_text_before_a_question(client: Client, lab: Path) -> None:
    """A text that stands before a question is shown with it, or before it."""
    show = script_line(lab, "auth", "echo 'Use the password of the portal.'")
    with pam_lab(lab, [show, PASSWORD_LINE]) as made:
        outcome = client.enter(way(lab, made.server), answers={"assword:": PASSWORD})
        assert outcome.entered and outcome.logins == (1,), outcome
        assert "Use the password of the portal." in outcome.said + "".join(outcome.asked), outcome


def test_a_text_after_a_wrong_password(client: Client, lab: Path) -> None:
    """What PAM says of a refusal is shown: here that two tries are left."""
    count = script_line(lab, "auth", "echo 'Two tries are left.'; exit 1").replace("required", "[default=die]")
    unix = "auth [success=1 default=ignore] pam_unix.so nodelay"
    with pam_lab(lab, [unix, count, "auth required pam_permit.so"]) as made:
        outcome = client.enter(way(lab, made.server), answers={"assword": ["hunter22", PASSWORD]})
        assert outcome.entered and outcome.logins == (1,), outcome
        assert "Two tries are left." in outcome.said + "".join(outcome.asked), outcome


DENIED = "echo 'No job of yours runs on this node.'; exit 1"


@pytest.mark.parametrize("methods", ["publickey", "keyboard-interactive"])
def test_an_account_that_is_denied(client: Client, lab: Path, methods: str) -> None:
    """The key or the password is right, and PAM refuses the account all the same, with a reason: that is shown."""
    deny = script_line(lab, "account", DENIED)
    with pam_lab(lab, [PASSWORD_LINE, deny], f"AuthenticationMethods {methods}") as made:
        outcome = client.enter(way(lab, made.server), answers={"assword": PASSWORD})
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome
        assert "No job of yours runs on this node." in outcome.said, outcome
        assert "too many" not in outcome.said, outcome


def test_an_account_that_has_expired(client: Client, lab: Path) -> None:
    """The account expired long ago; the key is right."""
    with pam_lab(lab, [PASSWORD_LINE], "AuthenticationMethods publickey") as made:
        subprocess.run(["chage", "-E", "2001-01-01", made.user], check=True)
        outcome = client.enter(way(lab, made.server))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome
        assert "too many" not in outcome.said, outcome


@pytest.mark.parametrize("reason", ["Maintenance until noon.", ""])
def test_a_host_where_only_root_may_log_in(client: Client, lab: Path, reason: str) -> None:
    """A nologin file refuses all but root, after a good key, with the file's text."""
    (lab / "nologin").write_text(f"{reason}\n")
    nologin = f"account required pam_nologin.so file={lab}/nologin"
    with pam_lab(lab, [PASSWORD_LINE, nologin], "AuthenticationMethods publickey") as made:
        outcome = client.enter(way(lab, made.server))
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome
        assert reason in outcome.said, outcome


def test_a_session_that_can_not_be_opened(client: Client, lab: Path) -> None:
    """PAM accepts the account and fails to open its session: the login ends, or runs no command."""
    deny = script_line(lab, "session", "echo 'Your home is not mounted.'; exit 1")
    with pam_lab(lab, [PASSWORD_LINE, deny], "AuthenticationMethods publickey") as made:
        outcome = client.enter(way(lab, made.server))
        assert not outcome.entered and outcome.exit_code in (13, 14, 18, 254, 255), outcome


def test_a_password_that_must_be_changed(client: Client, lab: Path) -> None:
    """The host asks for the old password and twice for a new one; with that the login goes on."""
    with pam_lab(lab, [PASSWORD_LINE]) as made:
        subprocess.run(["chage", "-d", "0", made.user], check=True)
        answers = {"Current password": PASSWORD, "etype new": NEW, "ew password": NEW, "assword": PASSWORD}
        outcome = client.enter(way(lab, made.server), answers=answers)
        assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == 4, outcome


def test_a_password_that_must_be_changed_after_a_key(client: Client, lab: Path) -> None:
    """The key gets in, but no command runs before the password is changed; that is said."""
    with pam_lab(lab, [PASSWORD_LINE], "AuthenticationMethods publickey") as made:
        subprocess.run(["chage", "-d", "0", made.user], check=True)
        outcome = client.enter(way(lab, made.server))
        assert not outcome.entered and outcome.exit_code in (1, 13, 14, 255), outcome
        assert "assword" in outcome.said, outcome


def test_a_banner_and_a_code(client: Client, lab: Path) -> None:
    """The banner is shown before the questions."""
    (lab / "banner").write_text("All logins are recorded.\n")
    with pam_lab(lab, [PASSWORD_LINE], f"Banner {lab}/banner") as made:
        outcome = client.enter(way(lab, made.server), answers={"assword": PASSWORD})
        assert outcome.entered and outcome.logins == (1,), outcome
        assert "All logins are recorded." in outcome.said, outcome


def test_a_message_of_the_day(client: Client, lab: Path) -> None:
    """A long text after the login disturbs nothing."""
    (lab / "motd").write_text("Welcome.\n" * 300)
    motd = f"session optional pam_motd.so motd={lab}/motd"
    with pam_lab(
        lab, [PASSWORD_LINE, "session required pam_permit.so", motd], "AuthenticationMethods publickey", "PrintMotd yes"
    ) as made:
        outcome = client.enter(way(lab, made.server))
        assert outcome.entered and outcome.logins == (1,), outcome


def test_preferred_authentications(client: Client, lab: Path) -> None:
    """PreferredAuthentications puts the password before the key."""
    with account("dlsways2") as user:
        set_password(user, PASSWORD)
        with serving(lab / "server", "PasswordAuthentication yes", user=user) as server:
            preferred = way(lab, server, "PreferredAuthentications password,publickey")
            outcome = client.enter(preferred, answers={"assword": PASSWORD})
            assert outcome.entered and outcome.logins == (1,) and len(outcome.asked) == 1, outcome
            assert "Accepted password" in server.log


def test_no_passwords(client: Client, lab: Path) -> None:
    """With `PasswordAuthentication no`, the password is not asked for."""
    with account("dlsways2") as user, serving(lab / "server", "PasswordAuthentication yes", user=user) as server:
        server.key.rename(lab / "away")
        refused = way(lab, server, "PasswordAuthentication no")
        outcome = client.enter(refused, answers={"assword": PASSWORD})
        assert not outcome.entered and not outcome.asked and outcome.exit_code in (13, 255), outcome


def test_no_questions_of_the_host(client: Client, lab: Path) -> None:
    """With `KbdInteractiveAuthentication no`, what the host would ask is not asked."""
    with pam_lab(lab, [PASSWORD_LINE], "AuthenticationMethods keyboard-interactive") as made:
        outcome = client.enter(way(lab, made.server, "KbdInteractiveAuthentication no"), answers={"assword": PASSWORD})
        assert not outcome.entered and not outcome.asked and outcome.exit_code in (13, 255), outcome


def test_the_number_of_password_prompts(client: Client, lab: Path) -> None:
    """NumberOfPasswordPrompts bounds how often is asked."""
    with account("dlsways2") as user, serving(lab / "server", "PasswordAuthentication yes", user=user) as server:
        once = way(lab, server, "NumberOfPasswordPrompts 1", "PubkeyAuthentication no")
        outcome = client.enter(once, answers={"assword": "hunter22"})
        assert not outcome.entered and len(outcome.asked) == 1, outcome
