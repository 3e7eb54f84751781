"""Login to a host: from the options to an open connection, by whatever carries it.

The carriers are imported where they are used: most connections need none of them, and a warm connect is short.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath

from dls.errors import DlsError, TargetError
from dls.remote.progress import Phase, Phases
from dls.remote.ssh.algorithms import unsupported
from dls.remote.ssh.config import resolve_hops
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.exceptions import NeedsOpenSsh, NoCommonAlgorithm
from dls.remote.ssh.openssh_config import find_ssh, is_there
from dls.remote.ssh.options import LoginOptions
from dls.remote.ssh.prompters import BatchPrompter
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.streams import ProxyFailed
from dls.remote.ssh.target import Target

__all__ = ["LoginOptions", "log_in", "resolve_hops"]


@dataclass(frozen=True)
class CarrierChoice:
    """What is to carry the connection, and why it is not paramiko by itself."""

    carrier: str
    """`paramiko` or `openssh`."""
    reason: str = ""
    shared: bool = False
    """Whether `ssh` has an open connection that it shares."""


def log_in(
    destination: str, options: LoginOptions, prompter: Prompter, phases: Phases, *, installs: bool = True
) -> Connection:
    """Resolve the destination and log in to it; raises a DlsError and leaves nothing open.

    `installs` says whether an SSH server may be installed on a host that has none (`NoServerThere` is raised else).
    """
    if options.via:
        return _log_in_via(destination, options, options.via, prompter, phases, installs)
    with phases("resolve", f"Looking up {destination}") as phase:
        hops = resolve_hops(destination, options, phases.reporter.note)
        target = hops[-1]
        choice = choose(hops, options)
        via = f" through {', '.join(jump.label for jump in hops[:-1])}" if len(hops) > 1 else ""
        phase.result = f"Going to {target}{via}"
    if choice.reason and choice.carrier == "paramiko":
        phases.reporter.note(f"dls can't honour {choice.reason} of the SSH configuration by itself.")
    with phases("login", f"Logging in to {target}") as phase:
        connection = _Login(hops, options, prompter, phase, installs).run(choice)
        new = f", its host key {connection.new_host_key}" if connection.new_host_key else ""
        phase.result = f"Logged in to {target} with {connection.credential}{new}"
    return connection


def choose(hops: tuple[Target, ...], options: LoginOptions) -> CarrierChoice:
    """Decide what carries the connection; raises TargetError where `ssh` is demanded and this computer has none."""
    program = find_ssh()
    reason = next(filter(None, (hop.openssh_only or unsupported(hop.algorithms) for hop in hops)), "")
    if options.carrier == "paramiko" or (options.carrier == "auto" and program is None):
        return CarrierChoice("paramiko", reason)
    if program is None:
        raise TargetError("This computer has no ssh.", "Install OpenSSH's client, or leave --carrier out.")
    if _is_shared(program, hops[-1], options):
        return CarrierChoice("openssh", reason, shared=True)
    for jump in hops[:-1]:
        if _is_shared(program, jump, LoginOptions(options.ssh_config)):
            return CarrierChoice("openssh", reason or f"the connection to {jump.label} that it shares")
    return CarrierChoice("openssh" if options.carrier == "openssh" or reason else "paramiko", reason)


def _is_shared(program: str, target: Target, options: LoginOptions) -> bool:
    """Return whether `ssh` has an open connection to the target that it shares."""
    if not target.control_path or not is_there(Path(target.control_path)):
        return False
    from dls.remote.carriers.openssh import has_master

    return has_master(program, target, options)


def _log_in_via(
    destination: str, options: LoginOptions, command: str, prompter: Prompter, phases: Phases, installs: bool
) -> Connection:
    if options.jump or options.carrier != "auto" or options.through_exec:
        raise TargetError(
            "--via goes to the host without SSH.", "Leave out -J, --carrier and --through-exec, or --via itself."
        )
    from dls.remote.carriers.via import name_of, open_via

    label = destination or name_of(command)
    with phases("login", f"Starting a shell on {label}") as phase:
        connection = open_via(label, command, options.remote_dir, prompter, phase, installs=installs)
        phase.result = f"Logged in to {connection.target} by {connection.credential}"
    return connection


@dataclass
class _Login:
    """One login, hop by hop."""

    hops: tuple[Target, ...]
    options: LoginOptions
    prompter: Prompter
    phase: Phase
    installs: bool

    def run(self, choice: CarrierChoice) -> Connection:
        """Log in by the carrier that was chosen, or by `ssh` where it turns out that paramiko can't."""
        if choice.carrier == "openssh":
            return self._run_ssh(shared=choice.shared)
        connection: Connection | None = None
        try:
            for hop in self.hops:
                if len(self.hops) > 1:
                    self.phase.update(f"connecting to {hop.label}")
                try:
                    connection = self._open(hop, connection)
                except (NeedsOpenSsh, NoCommonAlgorithm, ProxyFailed) as error:
                    if not self._may_use_openssh or not self._can_mend(hop, error):
                        raise
                    self.phase.reporter.note(_explain(hop, error))
                    return self._go_on_with_ssh(hop, connection)
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        assert connection is not None
        return connection

    @cached_property
    def _program(self) -> str | None:
        return find_ssh()

    @property
    def _may_use_openssh(self) -> bool:
        return self.options.carrier == "auto" and self._program is not None

    def _can_mend(self, hop: Target, error: DlsError) -> bool:
        """Return whether `ssh` could get further: with a ProxyCommand, where that is an `ssh` that could not ask."""
        words = hop.proxy_command.split()
        return not isinstance(error, ProxyFailed) or (bool(words) and PurePath(words[0]).stem.lower() == "ssh")

    def _open(self, hop: Target, jump_host: Connection | None) -> Connection:
        """Log in to one host on the way, through the one before it."""
        is_last = hop is self.hops[-1]
        connection = Connection.open(
            hop,
            BatchPrompter(self.prompter) if hop.batch_mode else self.prompter,
            accept_new_host_key=self.options.accept_new_host_key,
            # The password option is for the target only; for a jump host the person is asked.
            password=self.options.password if is_last else None,
            jump_host=jump_host,
            may_use_openssh=self._may_use_openssh,
        )
        if connection.new_host_key and not is_last:
            self.prompter.tell(f"The host key of {hop.label} {connection.new_host_key}.")
        if not (self.options.through_exec and connection.forbids_forwarding()):
            return connection
        from dls.remote.carriers.through_exec import open_through_exec

        try:
            return open_through_exec(connection, self.options.remote_dir, self.phase, installs=self.installs)
        except BaseException:
            connection.close()
            raise

    def _go_on_with_ssh(self, hop: Target, reached: Connection | None) -> Connection:
        """Go on from the jump host that was reached; where a jump host itself needs `ssh`, from the beginning."""
        from dls.remote.carriers.private_folder import has_unix_sockets

        if reached is not None and hop is self.hops[-1] and has_unix_sockets():
            return self._run_ssh(jump_host=reached)
        if reached is not None:
            reached.close()
        return self._run_ssh()

    def _run_ssh(self, *, shared: bool = False, jump_host: Connection | None = None) -> Connection:
        from dls.remote.carriers.openssh import open_through_ssh

        assert self._program is not None
        return open_through_ssh(
            self._program,
            self.hops[-1],
            self.options,
            self.prompter,
            self.phase,
            shared=shared,
            jump_host=jump_host,
            installs=self.installs,
        )


def _explain(hop: Target, error: DlsError) -> str:
    if isinstance(error, NeedsOpenSsh):
        return f"The login to {hop.label} needs {error.reason}: this computer's ssh logs in."
    return f"{error.message} This computer's ssh logs in."
