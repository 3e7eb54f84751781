"""Login to a host: from the options to an open connection, by whatever carries it.

The carriers are imported where they are used: most connections need none of them, and a warm connect is short.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dls.errors import ConnectError, DlsError, TargetError
from dls.remote.progress import Phase, Phases
from dls.remote.ssh.algorithms import unsupported
from dls.remote.ssh.config import resolve_hops
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.exceptions import NeedsOpenSsh, NoCommonAlgorithm
from dls.remote.ssh.openssh_config import find_ssh
from dls.remote.ssh.options import LoginOptions
from dls.remote.ssh.prompters import BatchPrompter
from dls.remote.ssh.prompts import Prompter
from dls.remote.ssh.target import Target

__all__ = ["LoginOptions", "log_in", "resolve_hops"]


@dataclass(frozen=True)
class Choice:
    """What is to carry the connection, and why it is not paramiko by itself."""

    carrier: str
    """`paramiko` or `openssh`."""
    reason: str = ""
    shared: bool = False
    """Whether `ssh` has an open connection that it shares."""


def log_in(destination: str, options: LoginOptions, prompter: Prompter, phases: Phases) -> Connection:
    """Resolve the destination and log in to it; raises a DlsError and leaves nothing open."""
    if options.via:
        return _log_in_via(destination, options, options.via, prompter, phases)
    with phases("resolve", f"Looking up {destination}") as phase:
        hops = resolve_hops(destination, options, phases.reporter.note)
        target = hops[-1]
        choice = choose(destination, hops, options)
        via = f" through {', '.join(jump.label for jump in hops[:-1])}" if len(hops) > 1 else ""
        phase.result = f"Going to {target}{via}"
    if choice.reason and choice.carrier == "paramiko":
        phases.reporter.note(f"dls can't honour {choice.reason} of the SSH configuration by itself.")
    with phases("login", f"Logging in to {target}") as phase:
        connection = _log_in_as_chosen(destination, hops, options, choice, prompter, phase)
        new = f", its host key {connection.new_host_key}" if connection.new_host_key else ""
        phase.result = f"Logged in to {target} with {connection.credential}{new}"
    return connection


def choose(destination: str, hops: tuple[Target, ...], options: LoginOptions) -> Choice:
    """Decide what carries the connection; raises TargetError where `ssh` is demanded and this computer has none."""
    program = find_ssh()
    reason = next((hop.openssh_only or unsupported(hop.algorithms) for hop in hops if hop.openssh_only), "")
    reason = reason or next(filter(None, (unsupported(hop.algorithms) for hop in hops)), "")
    if options.carrier == "paramiko" or (options.carrier == "auto" and program is None):
        return Choice("paramiko", reason)
    if program is None:
        raise TargetError("This computer has no ssh.", "Install OpenSSH's client, or leave --carrier out.")
    shared = _is_shared(program, destination, hops[-1], options)
    if options.carrier == "openssh" or shared or reason:
        return Choice("openssh", reason, shared)
    return Choice("paramiko")


def _is_shared(program: str, destination: str, target: Target, options: LoginOptions) -> bool:
    """Return whether `ssh` has an open connection to the target that it shares."""
    if not target.control_path or not Path(target.control_path).exists():
        return False
    from dls.remote.carriers.openssh import has_master

    return has_master(program, destination, options)


def _log_in_via(
    destination: str, options: LoginOptions, command: str, prompter: Prompter, phases: Phases
) -> Connection:
    if options.jump or options.carrier != "auto" or options.through_exec:
        raise TargetError(
            "--via goes to the host without SSH.", "Leave out -J, --carrier and --through-exec, or --via itself."
        )
    from dls.remote.carriers.via import name_of, open_via

    label = destination or name_of(command)
    with phases("login", f"Starting a shell on {label}") as phase:
        connection = open_via(label, command, options.remote_dir, prompter, phase)
        phase.result = f"Logged in to {connection.target} by {connection.credential}"
    return connection


def _log_in_as_chosen(
    destination: str,
    hops: tuple[Target, ...],
    options: LoginOptions,
    choice: Choice,
    prompter: Prompter,
    phase: Phase,
) -> Connection:
    """Log in by the carrier that was chosen, or by `ssh` where it turns out that paramiko can't."""
    if choice.carrier == "paramiko":
        try:
            return _log_in_hop_by_hop(hops, options, prompter, phase)
        except (NeedsOpenSsh, NoCommonAlgorithm) as error:
            if options.carrier == "paramiko" or find_ssh() is None:
                raise
            phase.reporter.note(_explain(error))
    from dls.remote.carriers.openssh import open_through_ssh

    program = find_ssh()
    assert program is not None
    return open_through_ssh(program, destination, hops[-1], options, prompter, phase, shared=choice.shared)


def _explain(error: DlsError) -> str:
    if isinstance(error, NeedsOpenSsh):
        return f"The login needs {error.reason}: this computer's ssh logs in."
    return "The host has no algorithm in common with paramiko: this computer's ssh logs in."


def _log_in_hop_by_hop(hops: tuple[Target, ...], options: LoginOptions, prompter: Prompter, phase: Phase) -> Connection:
    """Log in to each host through the one before it, and return the connection to the last one."""
    connection: Connection | None = None
    try:
        for hop in hops:
            if len(hops) > 1:
                phase.update(f"connecting to {hop.label}")
            # The password option is for the target only; for a jump host the person is asked.
            connection = Connection.open(
                hop,
                BatchPrompter(prompter) if hop.batch_mode else prompter,
                accept_new_host_key=options.accept_new_host_key,
                password=options.password if hop is hops[-1] else None,
                jump_host=connection,
            )
            if connection.new_host_key and hop is not hops[-1]:
                prompter.tell(f"The host key of {hop.label} {connection.new_host_key}.")
            if options.through_exec and connection.forbids_forwarding():
                from dls.remote.carriers.through_exec import open_through_exec

                connection = open_through_exec(connection, options.remote_dir, phase)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    if connection is None:
        raise ConnectError("There is no host to log in to.", "Name one.")
    return connection
