"""Targets and accounts for tests of logins."""

from __future__ import annotations

from dls.demo import sshd
from dls.remote.login import LoginOptions, resolve_hops
from dls.remote.ssh.target import Target

PASSWORD = "tr0ub4dor"
"""Password of the account that the tests make."""


def target_of(server: sshd.Server) -> Target:
    """Return an SSH server of ours as a target, with its key and its known_hosts."""
    return resolve_hops("dls-demo", LoginOptions(ssh_config=server.config))[-1]
