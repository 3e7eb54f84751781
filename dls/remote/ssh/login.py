"""How a host is reached, and the login that everything else runs over."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from dls.contract import DEFAULT_REMOTE_DIR
from dls.remote.progress import Phases
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.target import Target, load_config, resolve


@dataclass(frozen=True)
class LoginOptions:
    """How a host is logged in to: the options that every command which logs in takes."""

    ssh_config: Path | None = None
    identities: tuple[Path, ...] = ()
    ssh_port: int | None = None
    accept_new_host_key: bool = False
    password: str | None = field(default=None, repr=False)
    remote_dir: str = DEFAULT_REMOTE_DIR

    def command(self, verb: str, target: str) -> str:
        """Return the command line that reaches the same host to do something else."""
        words = ["dls", verb]
        words += ["-F", str(self.ssh_config)] if self.ssh_config else []
        words += [word for path in self.identities for word in ("-i", str(path))]
        words += ["--ssh-port", str(self.ssh_port)] if self.ssh_port else []
        words += ["--remote-dir", self.remote_dir] if self.remote_dir != DEFAULT_REMOTE_DIR else []
        return shlex.join([*words, target])


def resolve_hops(target: str, options: LoginOptions) -> tuple[Target, ...]:
    """Return the jump hosts, nearest first, and the target itself."""
    config = load_config(options.ssh_config)
    last = resolve(target, config, identities=options.identities, port=options.ssh_port)
    return (*(resolve(jump, config, identities=options.identities) for jump in last.jumps), last)


def log_in(destination: str, options: LoginOptions, prompter: Prompter, phases: Phases) -> Connection:
    """Resolve the target and log in to it, through its jump hosts."""
    with phases("resolve", f"Looking up {destination}") as phase:
        *jumps, target = resolve_hops(destination, options)
        via = f" through {', '.join(jump.label for jump in jumps)}" if jumps else ""
        phase.result = f"Going to {target}{via}"
    with phases("login", f"Logging in to {target}") as phase:
        connection: Connection | None = None
        for hop in (*jumps, target):
            if jumps:
                phase.update(f"connecting to {hop.label}")
            # A password is for the target; a jump host that wants one asks.
            password = options.password if hop is target else None
            try:
                connection = Connection.open(
                    hop,
                    prompter,
                    accept_new_host_key=options.accept_new_host_key,
                    password=password,
                    through=connection,
                )
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
        assert connection is not None
        new = ", its host key is now known" if connection.new_host_key else ""
        phase.result = f"Logged in to {target} with {connection.how}{new}"
    return connection
