"""What a child `ssh` says on standard error when it fails, as an error of ours: pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from dls.errors import ConnectError, DlsError, HostError, HostKeyError, LinkError, LoginError, TargetError

NOISE = re.compile(r"^(Warning: Permanently added|Pseudo-terminal will not|debug\d: |\*\* |OpenSSH_|mux_client_)")
"""Lines that explain nothing; OpenSSH 10 warns with `**` of key exchanges that are not safe after quantum computers."""
UNKNOWN_PORT = "UNKNOWN port 65535"
"""Ends a line that says only that a jump host or a ProxyCommand failed; a line before it says why."""


class Row(NamedTuple):
    """What a line means: its pattern, the class of the error, its message and its hint.

    `{0}` stands for the host, `{1}` and so on for the groups of the pattern.
    """

    pattern: str
    error: type[DlsError]
    message: str
    hint: str


REACH = "Check that it is on, that name and port are right, and whether you need a VPN or a jump host."
TABLE = (
    Row(
        r"Could not resolve hostname (\S+?):",
        ConnectError,
        "No host is known as {1!r}.",
        "Check the name, or your network.",
    ),
    Row(r"connect to host (\S+) port (\d+): (.+)", ConnectError, "{1} can't be reached on port {2}: {3}.", REACH),
    Row(
        r"Unable to negotiate with .*: (no matching .+?)\. Their offer: (.+)",
        ConnectError,
        "{0} and this computer's ssh have no algorithm in common: {1}.",
        "The host has {2}. One of the two has to be updated.",
    ),
    Row(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        HostKeyError,
        "The host key of {0} has changed.",
        "Somebody may be listening in. If the machine was reinstalled, remove the old key as ssh says above.",
    ),
    Row(
        r"REVOKED HOST KEY|host key .*revoked",
        HostKeyError,
        "The host key of {0} has been revoked.",
        "Somebody may be listening in. Ask whoever runs the host.",
    ),
    Row(
        r"No (\S+) host key is known for (\S+)",
        HostKeyError,
        "The host key of {2} is not known, and StrictHostKeyChecking demands that it is.",
        "Ask whoever runs the host for its key, and add it to known_hosts.",
    ),
    Row(
        r"KnownHostsCommand.*failed",
        HostKeyError,
        "The KnownHostsCommand for {0} failed.",
        "Run it by hand; what it said is above.",
    ),
    Row(
        r"Host key verification failed",
        HostKeyError,
        "The host key of {0} was not accepted.",
        "Ask whoever runs the host for its fingerprint, then connect again.",
    ),
    Row(
        r"Password change required but no TTY",
        LoginError,
        "The password for {0} has expired.",
        "Change it: log in with ssh once.",
    ),
    Row(
        r"Too many authentication failures",
        LoginError,
        "{0} ended the login after too many tries.",
        "Name the right key with -i, and set IdentitiesOnly yes for this host.",
    ),
    Row(
        r"not allowed because /etc/nologin exists",
        LoginError,
        "{0} lets nobody log in at the moment (nologin).",
        "Try later, or ask whoever runs it.",
    ),
    Row(
        r"PKCS#11 login failed: (.+)|is not a PKCS11 library|signing failed for (.+)",
        LoginError,
        "The token could not log in to {0}.",
        "What ssh said of it is above.",
    ),
    Row(
        r"Permission denied \(([^)]*)\)",
        LoginError,
        "{0} accepted no login (it takes {1}).",
        "Check the user, the key and the ticket; what ssh said is above.",
    ),
    Row(r"timed out during banner exchange", ConnectError, "{0} accepts connections and does not greet.", REACH),
    Row(
        r"kex_exchange_identification: (.+)",
        ConnectError,
        "What answers at {0} closes the connection before it greets: {1}.",
        "Is it an SSH server? It may have too many connections; try again.",
    ),
    Row(
        r"channel \d+: open failed|Session open refused by peer",
        HostError,
        "{0} runs no commands: it lets nobody open a session.",
        "Ask whoever runs it (MaxSessions in its sshd_config).",
    ),
    Row(
        r"Bad configuration option: (\S+)",
        TargetError,
        "ssh does not know the option {1} of its configuration.",
        "Correct it, or name another file with -F.",
    ),
    Row(
        r"(?i)timeout, server (\S+) not responding",
        LinkError,
        "The connection to {0} was lost: it says nothing.",
        "Run the command again.",
    ),
    Row(
        r"administratively prohibited",
        ConnectError,
        "A jump host of {0} refuses to connect further.",
        "Ask whoever runs it for AllowTcpForwarding.",
    ),
    Row(
        r"Connection closed by (?:\S+ )?\S+ port \d+|Connection to \S+ closed by remote host|Connection reset by",
        LoginError,
        "{0} closed the connection during the login.",
        "What it said is above: the account may not log in here, or the host gives no more time.",
    ),
    Row(
        r"client_loop: send disconnect|Broken pipe",
        LinkError,
        "The connection to {0} was lost.",
        "Run the command again.",
    ),
)
"""The meaning of what `ssh` says, the most telling lines first."""


def read_errors(label: str, text: str, status: int | None, said: str = "") -> DlsError:
    """Return the error for an `ssh` that failed: its standard error, exit status, and what the host printed before."""
    lines = [line for line in text.splitlines() if line.strip() and not NOISE.match(line)]
    detail = "\n".join(lines[-20:])
    for row in TABLE:
        for line in lines:
            if UNKNOWN_PORT not in line and (found := re.search(row.pattern, line)):
                words = (label, *found.groups())
                return row.error(row.message.format(*words), row.hint.format(*words), detail)
    if status in (126, 127):
        return HostError(f"{label} runs no sh.", "Log in by hand and check whether `sh` works there.", detail)
    if said.strip() or status not in (None, 255):
        return HostError(
            f"{label} runs another command than it is told to (status {status}).",
            "Its account may have a forced command or no login shell; what it printed is above.",
            (said.strip() or detail)[-2000:],
        )
    first = f": {lines[0].rstrip('.')}" if lines else ""
    return ConnectError(f"ssh could not connect to {label}{first}.", "Run ssh by hand and see what it says.", detail)
