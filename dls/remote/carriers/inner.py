"""SSH inside a stream that leads to a shell, with a server that the host's user runs for this one connection.

It is the host's own sshd, or asyncssh where there is none. Both keys are made here, live in memory for as long as the
connection, and travel through the stream, which is as trusted as what is done over it: nothing is asked and nothing is
added to known_hosts.
"""

from __future__ import annotations

import contextlib
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dls.contract import DEFAULT_REMOTE_DIR
from dls.errors import ClosedHostError, DlsError, HostError
from dls.remote.host import install
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import SSH_SERVER, Code
from dls.remote.host.probe import Depth, HostReport, probe
from dls.remote.host.reach import ask
from dls.remote.host.scripts import read_ssh_server, render
from dls.remote.progress import Phase
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.pinned import KeyPair, open_pinned
from dls.remote.ssh.pipe_shell import PipeShell
from dls.remote.ssh.streams import Carrier, Stream
from dls.remote.ssh.target import Target

REMOVE_SECONDS = 30.0
"""Seconds that the host may take to remove the keys of a connection."""


class NoServerThere(HostError):
    """The host has no server to run inside a stream, and none may be installed."""


def _remove(connection: Connection, folder: str) -> None:
    with contextlib.suppress(DlsError):
        connection.run(f"rm -rf {shlex.quote(folder)}", timeout=REMOVE_SECONDS)


@dataclass(frozen=True)
class InnerServer:
    """How the server inside a stream is started, and what its connection says of itself."""

    kind: str
    """What carries it: `openssh`, `via` or `paramiko`."""
    credential: str
    """The credential with which the stream was opened, in words."""
    carriers: Sequence[Carrier]
    """What is closed with the connection; it stays open in an error."""
    remote_dir: str
    """Where asyncssh is installed on a host without sshd."""
    installs: bool
    """Whether asyncssh may be installed."""
    phase: Phase
    """Shows the installation."""
    new_host_key: str = ""
    """What became of a host key that was new, as `Connection.new_host_key`."""

    def open(self, target: Target, stream: Stream, shell: PipeShell) -> Connection:
        """Let the shell become an SSH server and log in to it.

        Raises HostError or InstallError where the host has no server and none can be installed.
        """
        host_key, client_key = KeyPair.generate(), KeyPair.generate()
        keys = {"HOST_KEY": host_key.private, "CLIENT_KEY": client_key.public}
        started = shell.become(render("inner_sshd", "sshd", **keys))
        if not started:
            python = self._install(shell)
            started = shell.become(render("inner_server", PYTHON=python, PROGRAM=read_ssh_server(), **keys))
        if not started:
            raise HostError(
                f"{target.label} has no sshd that its user can run, and asyncssh does not start there.",
                "Install OpenSSH's server there; it need not be started.",
            )
        user, _, folder = started.partition(" ")
        connection = open_pinned(
            replace(target, user=user),
            stream,
            host_key.public,
            client_key,
            kind=self.kind,
            credential=self.credential,
            carriers=self.carriers,
            new_host_key=self.new_host_key,
        )
        # Not waited for: it costs a round trip, and the host removes them too, after a minute.
        removal = threading.Thread(target=_remove, args=(connection, folder), name="dls-remove-keys", daemon=True)
        removal.start()
        return connection

    def _install(self, shell: PipeShell) -> str:
        """Install asyncssh where it is missing; returns the path of the environment's Python."""
        if not self.installs:
            raise NoServerThere(f"{shell.target.label} has no sshd: dls connect installs asyncssh there first.")
        report = probe(shell, self.remote_dir, Depth.ALL)
        plan = replace(install.plan(report, SSH_SERVER, ""), send_code=False)
        if not plan.nothing_to_do:
            _check_reach(shell, report, plan)
            self.phase.update("no sshd there: installing asyncssh")
            own_caches = self.remote_dir != DEFAULT_REMOTE_DIR
            install.install(shell, plan, Code(()), self.phase, own_caches=own_caches)
        return plan.interpreter


def _check_reach(shell: PipeShell, report: HostReport, plan: install.InstallPlan) -> None:
    """Raise ClosedHostError where the host can't fetch an SSH server: nothing can be lent to it without one."""
    reach = ask(shell, report, plan, ServerOptions(engine="region"))
    if reach.is_closed:
        raise ClosedHostError(
            f"{shell.target.label} has no sshd that its user can run, and does not reach {reach.missing} to get one.",
            "Install OpenSSH's server there; it need not be started.",
        )
