"""A command's standard input and output as the way to a host that runs commands and forbids forwarding.

This walks around what whoever runs the host has forbidden, so that it happens only where the user asked for it.
"""

from __future__ import annotations

from dls.errors import ConnectError, HostError
from dls.remote.carriers.inner import InnerServer
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.pipe_shell import PipeShell


def open_through_exec(outer: Connection, remote_dir: str, phase: Phase, *, installs: bool = True) -> Connection:
    """Return a connection inside a command of the outer one, which it closes too; the outer stays open in an error."""
    channel = outer.open_shell()
    shell = PipeShell(outer.target, channel)
    try:
        shell.start()
    except ConnectError as error:
        raise HostError(
            f"{outer.target.label} does not run commands as it should.",
            "Log in by hand and check whether `sh` works there.",
            error.detail,
        ) from error
    inner = InnerServer(
        kind=outer.kind,
        credential=outer.credential,
        carriers=(outer,),
        new_host_key=outer.new_host_key,
        remote_dir=remote_dir,
        installs=installs,
        phase=phase,
    )
    return inner.open(outer.target, channel, shell)
