"""Login to a host through its jump hosts: from the options to an open connection."""

from __future__ import annotations

from collections.abc import Callable

from dls.remote.progress import Phases
from dls.remote.ssh.config import resolve_hops
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.options import LoginOptions
from dls.remote.ssh.prompters import BatchPrompter
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.target import Target

__all__ = ["LoginOptions", "log_in", "resolve_hops"]


def log_in(destination: str, options: LoginOptions, prompter: Prompter, phases: Phases) -> Connection:
    """Resolve the destination and log in to it, through its jump hosts; raises a DlsError and leaves nothing open."""
    with phases("resolve", f"Looking up {destination}") as phase:
        hops = resolve_hops(destination, options, phases.reporter.note)
        target = hops[-1]
        via = f" through {', '.join(jump.label for jump in hops[:-1])}" if len(hops) > 1 else ""
        phase.result = f"Going to {target}{via}"
    with phases("login", f"Logging in to {target}") as phase:
        connection = _log_in_hop_by_hop(hops, options, prompter, phase.update)
        new = ", its host key is now known" if connection.new_host_key else ""
        phase.result = f"Logged in to {target} with {connection.credential}{new}"
    return connection


def _log_in_hop_by_hop(
    hops: tuple[Target, ...], options: LoginOptions, prompter: Prompter, update: Callable[[str], None]
) -> Connection:
    """Log in to each host through the one before it, and return the connection to the last one."""
    connection: Connection | None = None
    for hop in hops:
        if len(hops) > 1:
            update(f"connecting to {hop.label}")
        # The password option is for the target only; for a jump host the person is asked.
        password = options.password if hop is hops[-1] else None
        asked = BatchPrompter(prompter) if hop.batch_mode else prompter
        try:
            connection = Connection.open(
                hop,
                asked,
                accept_new_host_key=options.accept_new_host_key,
                password=password,
                jump_host=connection,
            )
        except BaseException:
            if connection is not None:
                connection.close()
            raise
    assert connection is not None
    return connection
