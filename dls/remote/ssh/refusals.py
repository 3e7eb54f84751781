"""Why a login failed: the errors, each with a sentence of its own, and the table of what was offered. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from dls.errors import LoginError
from dls.remote.ssh.target import Target
from dls.remote.ssh.userauth import ConnectionClosed

TOO_MANY = "too many authentication failures"
"""OpenSSH's reason when MaxAuthTries is reached."""
KERBEROS = "gssapi-with-mic"
SLOW_ANSWER_SECONDS = 10.0
"""A host that closes the connection after so long an answer ran out of time; PAM refuses within some seconds."""


@dataclass(frozen=True)
class Attempt:
    """A credential that was offered, or could not be, and what became of it."""

    credential: str
    outcome: str


def refusal_table(attempts: Sequence[Attempt], methods: Sequence[str], words: Sequence[str]) -> str:
    """Return what was offered, what the host still accepts and what it said, as lines for an error's detail."""
    rows = [(attempt, len(list(same))) for attempt, same in groupby(attempts)]
    lines = [
        (attempt.credential, attempt.outcome + (f", {times} times" if times > 1 else "")) for attempt, times in rows
    ] or [("nothing", "")]
    width = max(len(credential) for credential, _ in lines)
    offered = [f"  {credential:{width}}  {outcome}".rstrip() for credential, outcome in lines]
    accepts = [f"The host accepts: {', '.join(methods)}"] if methods else []
    return "\n".join([*words, "Offered:", *offered, *accepts])


def closed_error(target: Target, closed: ConnectionClosed, checking: str, attempts: Sequence[Attempt]) -> LoginError:
    """Return the error for a connection that the host ended during the login.

    `checking` is the credential that the host had last, in words; empty where it had none.
    """
    if TOO_MANY in closed.reason.lower():
        return _too_many(target, attempts)
    if closed.reason:
        return LoginError(
            f"{target} ended the login: {closed.reason.rstrip('.')}.", "Ask whoever runs the host what that means."
        )
    if closed.was_idle or closed.waited > SLOW_ANSWER_SECONDS:
        return LoginError(
            f"{target} ended the login after {closed.since_start:.0f} s: the time that it gives for a login is over.",
            "Run it again, with the code or the password at hand; the host's LoginGraceTime sets that time.",
        )
    if checking:
        return LoginError(
            f"{target} closed the connection after it was given {checking}: {target.user} may not log in there now.",
            "The account may have expired, or need a running job on that node; ask whoever runs the host.",
        )
    return LoginError(
        f"{target} closed the connection during the login and gave no reason.",
        "It may take no logins now; run it again in a minute, or ask whoever runs the host.",
    )


def _too_many(target: Target, attempts: Sequence[Attempt]) -> LoginError:
    keys = [attempt for attempt in attempts if attempt.credential.startswith(("the key", "a key", "the certificate"))]
    if len(keys) == len(attempts):
        return LoginError(
            f"{target} refused the login after too many keys were tried.",
            "Name the right key with -i, and set IdentitiesOnly yes for this host in ~/.ssh/config.",
        )
    return LoginError(
        f"{target} refused the login after too many attempts.",
        "Each key counts as one: name the right key with -i, or give the right password first.",
    )


def password_refused(target: Target) -> LoginError:
    """Return the error for a password that was given as an option and is wrong."""
    return LoginError(
        f"{target} did not accept the password that was given.",
        "Check the first line of the file named with --password-file, and the user name.",
    )


def password_expired(target: Target) -> LoginError:
    """Return the error for a password that is right and has to be changed."""
    port = "" if target.port == 22 else f"-p {target.port} "
    return LoginError(
        f"The password of {target.user} on {target.label} has expired.",
        f"Change it by logging in with ssh once: ssh {port}{target.user}@{target.host}",
    )


def is_password_expired(text: str) -> bool:
    """Whether sshd says in place of running a command that the password has to be changed first, whatever logged in."""
    return "Password change required" in text


def refused(target: Target, allowed: Sequence[str], tried: Sequence[str], attempts: Sequence[Attempt]) -> LoginError:
    """Return the error for a host that accepted nothing of what there was."""
    forbidden = [method for method in allowed if method not in target.methods]
    if allowed and len(forbidden) == len(allowed):
        hint = "The SSH configuration or an option forbids what the host accepts: see PreferredAuthentications there."
    elif KERBEROS in allowed and KERBEROS in target.methods:
        hint = "The host takes Kerberos: get a ticket with kinit. Or name a key with -i, and check the user name."
    elif not attempts:
        hint = "There was no key to offer: name one with -i."
    else:
        hint = "Check the user name and the key; name a key with -i."
    return LoginError(
        f"{target} accepted no login (it takes {', '.join(allowed) or 'nothing'}; "
        f"tried: {', '.join(tried) or 'nothing that dls knows'}).",
        hint,
    )
