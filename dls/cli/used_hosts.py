"""The hosts that were used before: those that `dls status` asks, and that completion offers."""

from __future__ import annotations


def known_hosts_used() -> list[str]:
    """Return the hosts that were connected to before, as the user named them, the last one first."""
    from dls.remote.user.memory import used_before

    return [host.target for host in used_before()]
