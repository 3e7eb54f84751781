"""Commands that log in to a host, do one thing there and leave: stop, logs, sessions, push, status, uninstall."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dls.contract import ServerState
from dls.errors import DlsError, ForwardError, LaunchError
from dls.remote.cluster.options import ClusterOptions
from dls.remote.cluster.scheduler import Job, SchedulerSilent
from dls.remote.host import landing, launch, status
from dls.remote.host.facts import ServerFacts
from dls.remote.host.probe import Depth, HostReport, probe
from dls.remote.host.uninstall import Belonging, Removal, check_unused, remove_belongings
from dls.remote.keychain import KeychainPrompter, forget
from dls.remote.login import LoginOptions, log_in, resolve_hops
from dls.remote.progress import Phases, Reporter
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import Prompter

SESSIONS_STAY = "; its sessions stay"
"""What is told of the sessions of a server that was ended."""


@contextlib.contextmanager
def host(
    target: str, login: LoginOptions, prompter: Prompter, reporter: Reporter, *, enters_job: bool = False
) -> Iterator[tuple[Connection, HostReport]]:
    """Log in to the host and look for its servers; yields the connection, closed at the end, and the report.

    Where the login landed on another host than that of the server, the connection goes on to that one; with
    `enters_job` it goes on into a job that runs. No job is submitted.
    """
    keychain = KeychainPrompter(prompter, saves=login.save_password)
    with contextlib.ExitStack() as cleanup:
        connection = log_in(target, login, keychain, Phases(reporter))
        cleanup.callback(connection.close)
        keychain.login_accepted()
        report = probe(connection, login.remote_dir, Depth.SERVERS, with_scheduler=True)
        if report.scheduler and enters_job and (inner := _enter_job(connection, login, report)):
            connection, report = inner, probe(inner, login.remote_dir, Depth.SERVERS)
            cleanup.callback(connection.close)
        node = landing.find_node(report, {record.key for record in report.elsewhere}, connection.target.host)
        if node and not report.servers and not report.job:
            try:
                there = landing.log_in_there(connection, node)
            except DlsError as error:
                reporter.note(landing.describe(connection, report, node, error))
            else:
                connection = there
                cleanup.callback(connection.close)
                report = probe(connection, login.remote_dir, Depth.SERVERS)
        yield connection, report


def _enter_job(connection: Connection, login: LoginOptions, report: HostReport) -> Connection | None:
    """Return a connection into the job that runs, or None where there is none, or no way into it."""
    from dls.remote.cluster.route import Route

    with contextlib.suppress(DlsError):
        return Route(ClusterOptions(), login).enter_running(connection, report)
    return None


def _end_jobs(connection: Connection, report: HostReport, reporter: Reporter, note: str) -> bool:
    """End the jobs of this user that are ours, also those that wait; return False when there were none."""
    from dls.remote.cluster.slurm import Slurm

    scheduler = Slurm(report.root)
    try:
        jobs = scheduler.look(connection).jobs
    except SchedulerSilent as error:
        if not report.has_gpu_device:
            raise
        # A GPU box with Slurm's commands, where the server needs no job.
        reporter.note(f"{error.message} Whether a job of yours runs is not known.")
        return False
    for job in jobs:
        with Phases(reporter)("stop", f"Ending the job {job.id}") as phase:
            scheduler.cancel(connection, [job.id], wait=True)
            phase.result = f"Ended the job {job.id}{job.node and f' on {job.node}'}{note}"
    return bool(jobs)


def stop_server(target: str, login: LoginOptions, prompter: Prompter, reporter: Reporter) -> bool:
    """End the servers on the host, and the jobs on a cluster; return False when none was running."""
    with host(target, login, prompter, reporter) as (connection, report):
        return end_servers(connection, report, reporter)


def end_servers(connection: Connection, report: HostReport, reporter: Reporter, note: str = SESSIONS_STAY) -> bool:
    """End the servers on the host, and the jobs on a cluster; return False when none was running.

    `note` is what is told of the sessions.
    """
    for state in report.servers:
        with Phases(reporter)("stop", "Ending the server") as phase:
            launch.stop(connection, state)
            phase.result = f"Ended the server ({state.engine}){note}"
    had_jobs = bool(report.scheduler) and _end_jobs(connection, report, reporter, note)
    return bool(report.servers) or had_jobs


def read_log(
    target: str,
    login: LoginOptions,
    prompter: Prompter,
    reporter: Reporter,
    *,
    lines: int,
    follow: bool,
    write: Callable[[str], None],
) -> None:
    """Hand each of the log's last lines to `write` and, with `follow`, those that are added.

    Raises LaunchError when there is no log.
    """
    with host(target, login, prompter, reporter) as (connection, report):
        path = report.servers[0].log if report.servers else launch.log_path(report)
        if report.scheduler and not report.servers:
            path = connection.run(launch.newest_log_script(report), timeout=30).stdout.strip() or path
        completed = connection.run(launch.log_script(path, lines, follow), on_line=write)
    if completed.status:
        raise LaunchError(f"There is no server log on {connection.target.label}.", "Connect first: dls connect.")


@dataclass(frozen=True)
class HostStatus:
    """What runs on a host, and how it is reached."""

    target: str
    hostname: str
    seconds: float
    """Seconds that the login took."""
    round_trip: float
    """Seconds from a question to the host's SSH server to its answer."""
    servers: tuple[tuple[ServerState, ServerFacts], ...] = ()
    jobs: tuple[Job, ...] = ()


def read_status(target: str, login: LoginOptions, prompter: Prompter, reporter: Reporter) -> HostStatus:
    """Log in to the host, and return what runs there; a look at a server is no use of it."""
    started = time.monotonic()
    with host(target, login, prompter, reporter) as (connection, report):
        seconds = time.monotonic() - started
        jobs = _list_jobs(connection, report)
        if jobs and (inner := _enter_job(connection, login, report)):
            with contextlib.closing(inner):
                inside = probe(inner, login.remote_dir, Depth.SERVERS)
                servers = [(state, read_facts(inner, state)) for state in inside.servers]
        else:
            servers = [(state, read_facts(connection, state)) for state in report.servers]
        return HostStatus(target, report.hostname, seconds, measure_round_trip(connection), tuple(servers), jobs)


def _list_jobs(connection: Connection, report: HostReport) -> tuple[Job, ...]:
    if not report.scheduler:
        return ()
    from dls.remote.cluster.slurm import Slurm

    with contextlib.suppress(SchedulerSilent):
        return Slurm(report.root).look(connection).jobs
    return ()


def read_facts(connection: Connection, state: ServerState) -> ServerFacts:
    """Return what a server says of itself; of one that does not answer, what its state file says."""
    fields: dict[str, object] = {"engine": state.engine, "device": state.device, "release": state.version}
    with contextlib.suppress(DlsError):
        fields |= status.get_facts(connection, state)
    return ServerFacts.read(fields)


def measure_round_trip(connection: Connection) -> float:
    """Return the seconds that the host's SSH server takes to answer; infinite where it does not."""
    started = time.monotonic()
    return time.monotonic() - started if connection.answers_keepalive() else math.inf


def uninstall(connection: Connection, report: HostReport, removal: Removal, reporter: Reporter) -> list[Belonging]:
    """End the servers and the jobs, and remove what is ours; returns what stays, since it is not.

    Raises HostError where a client is connected.
    """
    for state in report.servers:
        with contextlib.suppress(ForwardError), Phases(reporter)("look", "Looking whether anybody is connected"):
            check_unused(connection, state)
    end_servers(connection, report, reporter, note="")
    with Phases(reporter)("uninstall", "Removing what is ours") as phase:
        stays = remove_belongings(connection, report, removal)
        phase.result = f"Nothing of dls is on {connection.target.label} any more"
    return stays


def forget_passwords(target: str, login: LoginOptions) -> list[str]:
    """Remove the passwords of the host and of its jump hosts from the keychain; returns the accounts that had one."""
    return [str(hop) for hop in resolve_hops(target, login) if forget(hop)]


__all__ = ["HostStatus", "forget_passwords", "host", "read_log", "read_status", "stop_server", "uninstall"]
