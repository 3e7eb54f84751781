"""SSH inside a stream that leads to a shell: the host's own sshd, run by its user for this one connection.

Both keys are made here, live in memory for as long as the connection, and travel through the stream, which is as
trusted as what is done over it: nothing is asked and nothing is added to known_hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dls.errors import HostError
from dls.remote.host.scripts import render
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.pinned import KeyPair, open_pinned
from dls.remote.ssh.pipe_shell import PipeShell
from dls.remote.ssh.streams import Carrier, Stream
from dls.remote.ssh.target import Target


def open_inner(
    target: Target,
    stream: Stream,
    shell: PipeShell,
    *,
    kind: str,
    credential: str,
    carriers: Sequence[Carrier],
    new_host_key: bool = False,
) -> Connection:
    """Let the shell become an SSH server and log in to it.

    Raises HostError where the host has no server that can do it; the carriers stay open then, and in each error.
    """
    host_key, client_key = KeyPair.generate(), KeyPair.generate()
    user = shell.become(render("inner_sshd", HOST_KEY=host_key.private, CLIENT_KEY=client_key.public))
    if not user:
        raise HostError(
            f"{target.label} has no sshd that its user can run.",
            "Install OpenSSH's server there; it need not be started.",
        )
    return open_pinned(
        replace(target, user=user),
        stream,
        host_key,
        client_key,
        kind=kind,
        credential=credential,
        carriers=carriers,
        new_host_key=new_host_key,
    )
