"""Login to a host: from the options to an open connection, by whatever carries it.

The carriers are imported where they are used: most connections need none of them, and a warm connect is short.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from dls.errors import DlsError, TargetError
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
        choice = choose(hops, options)
        via = f" through {', '.join(jump.label for jump in hops[:-1])}" if len(hops) > 1 else ""
        phase.result = f"Going to {target}{via}"
    if choice.reason and choice.carrier == "paramiko":
        phases.reporter.note(f"dls can't honour {choice.reason} of the SSH configuration by itself.")
    with phases("login", f"Logging in to {target}") as phase:
        connection = _log_in_as_chosen(hops, options, choice, prompter, phase)
        new = f", its host key {connection.new_host_key}" if connection.new_host_key else ""
        phase.result = f"Logged in to {target} with {connection.credential}{new}"
    return connection


def choose(hops: tuple[Target, ...], options: LoginOptions) -> Choice:
    """Decide what carries the connection; raises TargetError where `ssh` is demanded and this computer has none."""
    program = find_ssh()
    reason = next(filter(None, (hop.openssh_only or unsupported(hop.algorithms) for hop in hops)), "")
    if options.carrier == "paramiko" or (options.carrier == "auto" and program is None):
        return Choice("paramiko", reason)
    if program is None:
        raise TargetError("This computer has no ssh.", "Install OpenSSH's client, or leave --carrier out.")
    if _is_shared(program, hops[-1], options):
        return Choice("openssh", reason, shared=True)
    for jump in hops[:-1]:
        if _is_shared(program, jump, LoginOptions(options.ssh_config)):
            return Choice("openssh", reason or f"the connection to {jump.label} that it shares")
    return Choice("openssh" if options.carrier == "openssh" or reason else "paramiko", reason)


def _is_shared(program: str, target: Target, options: LoginOptions) -> bool:
    """Return whether `ssh` has an open connection to the target that it shares."""
    if not target.control_path or not Path(target.control_path).exists():
        return False
    from dls.remote.carriers.openssh import has_master

    return has_master(program, target, options)


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
    hops: tuple[Target, ...], options: LoginOptions, choice: Choice, prompter: Prompter, phase: Phase
) -> Connection:
    """Log in by the carrier that was chosen, or by `ssh` where it turns out that paramiko can't."""
    if choice.carrier == "openssh":
        return _log_in_with_ssh(hops[-1], options, prompter, phase, shared=choice.shared)
    connection: Connection | None = None
    may_use_openssh = options.carrier == "auto" and find_ssh() is not None
    try:
        for hop in hops:
            if len(hops) > 1:
                phase.update(f"connecting to {hop.label}")
            try:
                connection = _open_hop(hop, hops[-1], connection, options, prompter, phase, may_use_openssh)
            except (NeedsOpenSsh, NoCommonAlgorithm) as error:
                if not may_use_openssh:
                    raise
                phase.reporter.note(_explain(hop, error))
                return _log_in_from(hop, hops[-1], connection, options, prompter, phase)
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    assert connection is not None
    return connection


def _open_hop(
    hop: Target,
    last: Target,
    jump_host: Connection | None,
    options: LoginOptions,
    prompter: Prompter,
    phase: Phase,
    may_use_openssh: bool,
) -> Connection:
    """Log in to one host on the way, through the one before it."""
    connection = Connection.open(
        hop,
        BatchPrompter(prompter) if hop.batch_mode else prompter,
        accept_new_host_key=options.accept_new_host_key,
        # The password option is for the target only; for a jump host the person is asked.
        password=options.password if hop is last else None,
        jump_host=jump_host,
        may_use_openssh=may_use_openssh,
    )
    if connection.new_host_key and hop is not last:
        prompter.tell(f"The host key of {hop.label} {connection.new_host_key}.")
    if not (options.through_exec and connection.forbids_forwarding()):
        return connection
    from dls.remote.carriers.through_exec import open_through_exec

    try:
        return open_through_exec(connection, options.remote_dir, phase)
    except BaseException:
        connection.close()
        raise


def _explain(hop: Target, error: DlsError) -> str:
    if isinstance(error, NeedsOpenSsh):
        return f"The login to {hop.label} needs {error.reason}: this computer's ssh logs in."
    return f"{error.message} This computer's ssh logs in."


def _log_in_from(
    hop: Target,
    last: Target,
    reached: Connection | None,
    options: LoginOptions,
    prompter: Prompter,
    phase: Phase,
) -> Connection:
    """Go on with `ssh`, from the jump host that was reached; where a jump host itself needs it, from the beginning."""
    if reached is not None and hop is last and has_unix_sockets():
        return _log_in_with_ssh(last, options, prompter, phase, jump_host=reached)
    if reached is not None:
        reached.close()
    return _log_in_with_ssh(last, options, prompter, phase)


def _log_in_with_ssh(
    target: Target,
    options: LoginOptions,
    prompter: Prompter,
    phase: Phase,
    *,
    shared: bool = False,
    jump_host: Connection | None = None,
) -> Connection:
    from dls.remote.carriers.openssh import open_through_ssh

    program = find_ssh()
    assert program is not None
    return open_through_ssh(program, target, options, prompter, phase, shared=shared, jump_host=jump_host)


def has_unix_sockets() -> bool:
    """Whether Python has Unix sockets on this system: not on Windows."""
    return hasattr(socket, "AF_UNIX")
