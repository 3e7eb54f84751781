"""Login to a host through its jump hosts: from the options to an open connection."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from dls.contract import DEFAULT_REMOTE_DIR
from dls.remote.progress import Phases
from dls.remote.ssh.config import load_config, resolve
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.target import Target


@dataclass(frozen=True)
class LoginOptions:
    """Options of every command that logs in to a host."""

    ssh_config: Path | None = None
    identities: tuple[Path, ...] = ()
    ssh_port: int | None = None
    accept_new_host_key: bool = False
    password: str | None = field(default=None, repr=False)
    remote_dir: str = DEFAULT_REMOTE_DIR

    def command(self, verb: str, target: str) -> str:
        """Return the command line of another `dls` command (`verb`) for the same host, with the same options."""
        words = ["dls", verb]
        words += ["-F", str(self.ssh_config)] if self.ssh_config else []
        words += [word for path in self.identities for word in ("-i", str(path))]
        words += ["--ssh-port", str(self.ssh_port)] if self.ssh_port else []
        words += ["--remote-dir", self.remote_dir] if self.remote_dir != DEFAULT_REMOTE_DIR else []
        return shlex.join([*words, target])


def resolve_hops(target: str, options: LoginOptions) -> tuple[Target, ...]:
    """Return the jump hosts, nearest to this computer first, and then the target itself."""
    config = load_config(options.ssh_config)
    last = resolve(target, config, identities=options.identities, port=options.ssh_port)
    return (*(resolve(jump, config, identities=options.identities) for jump in last.jumps), last)


def log_in(destination: str, options: LoginOptions, prompter: Prompter, phases: Phases) -> Connection:
    """Resolve the destination and log in to it, through its jump hosts; raises a DlsError and leaves nothing open."""
    with phases("resolve", f"Looking up {destination}") as phase:
        *jumps, target = resolve_hops(destination, options)
        via = f" through {', '.join(jump.label for jump in jumps)}" if jumps else ""
        phase.result = f"Going to {target}{via}"
    with phases("login", f"Logging in to {target}") as phase:
        connection: Connection | None = None
        for hop in (*jumps, target):
            if jumps:
                phase.update(f"connecting to {hop.label}")
            # The password option is for the target only; for a jump host the person is asked.
            password = options.password if hop is target else None
            try:
                connection = Connection.open(
                    hop,
                    prompter,
                    accept_new_host_key=options.accept_new_host_key,
                    password=password,
                    jump_host=connection,
                )
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
        assert connection is not None
        new = ", its host key is now known" if connection.new_host_key else ""
        phase.result = f"Logged in to {target} with {connection.credential}{new}"
    return connection
