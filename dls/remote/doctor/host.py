"""The host, after the login: its shell, what it has, each kind of forwarding, the internet there, and the server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace

from dls.errors import ClosedHostError, DlsError, ForwardError
from dls.remote.cluster.slurm import Slurm
from dls.remote.doctor.findings import Findings
from dls.remote.durations import format_duration
from dls.remote.host import automatic, install, reach, status
from dls.remote.host.closed import closed_error
from dls.remote.host.options import ServerOptions, choose_gpu
from dls.remote.host.packages import Code, requirements
from dls.remote.host.probe import Depth, HostReport, probe
from dls.remote.host.reach import Verdict
from dls.remote.host.scripts import render
from dls.remote.ssh.bulk_channel import BulkChannel
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.exceptions import forwarding_forbidden
from dls.remote.ssh.options import LoginOptions
from dls.remote.ssh.reverse_forward import ReverseForward

SOCKET_SECONDS = 10.0
"""Seconds that the host may take to offer a socket to try the forwarding with."""


def examine(
    connection: Connection, destination: str, login: LoginOptions, server: ServerOptions, findings: Findings
) -> None:
    """Look at the host over a connection that is logged in."""
    started, remote_dir = time.monotonic(), login.remote_dir
    try:
        report = probe(connection, remote_dir, Depth.ALL)
    except DlsError as error:
        findings.fail("shell", error)
        return
    took = (time.monotonic() - started) * 1000
    findings.ok("shell", f"{report.hostname}, {report.system} {report.machine}: answered in {took:.0f} ms.")
    is_cluster = False
    with _guard("cluster", connection, findings):
        is_cluster = _look_at_cluster(connection, remote_dir, findings)
    server, choice, report = automatic.settle(server, report, lambda: report)
    if choice.reason and not is_cluster:
        findings.ok("engine", f"dls connect would choose {choice.reason}.")
    _describe(report, findings)
    if is_cluster:
        findings.ok("GPU", "That of a job: Slurm chooses it.")
    else:
        _judge_gpus(report, server, findings)
    _plan(report, server, findings, in_job=is_cluster)
    with _guard("forwarding", connection, findings):
        _try_forwarding(connection, report, findings)
    with _guard("internet there", connection, findings):
        _try_internet(connection, destination, login, report, server, findings, in_job=is_cluster)
    _ask_servers(connection, report, findings)


@contextlib.contextmanager
def _guard(subject: str, connection: Connection, findings: Findings) -> Iterator[None]:
    """Let a step that fails for another reason than what it looks at cost its own line, and not the table."""
    try:
        yield
    except DlsError as error:
        if not connection.is_active():
            findings.fail(subject, error)
        else:
            findings.unknown(subject, f"Not found out: {error.message}")


def _look_at_cluster(connection: Connection, remote_dir: str, findings: Findings) -> bool:
    """Say where jobs can be submitted, if this is a cluster; what else is looked at is the login node's own then."""
    report = probe(connection, remote_dir, Depth.SERVERS, with_scheduler=True)
    if not report.scheduler or report.has_gpu_device:
        return False
    look = Slurm(report.root).look(connection, with_limits=True)
    findings.ok("cluster", "Slurm: dls connect runs the server in a job, on a node. What follows is the login node's.")
    for job in look.jobs:
        findings.ok("cluster", f"The job {job.id} {job.reason or f'runs on {job.node}'}; dls connect would find it.")
    for partition in look.partitions:
        limit = "no limit of time" if partition.minutes is None else f"up to {format_duration(60 * partition.minutes)}"
        findings.ok("cluster", f"Partition {partition.name}: {partition.gres or 'no GPUs'}, {limit}.")
    return True


def _describe(report: HostReport, findings: Findings) -> None:
    pythons = ", ".join(f"{'.'.join(map(str, python.version))} at {python.path}" for python in report.pythons)
    findings.ok("Python", pythons or "None that the probe found.")
    findings.ok("disk", f"{report.free_mib} MiB free for {report.root} ({report.filesystem or 'unknown file system'}).")


def _judge_gpus(report: HostReport, server: ServerOptions, findings: Findings) -> None:
    for gpu in report.gpus:
        findings.ok("GPU", f"{gpu.index}: {gpu}, driver {gpu.driver}")
    if not report.gpus and server.engine == "region":
        findings.ok("GPU", "nvidia-smi shows none; the region engine needs none.")
    elif not report.gpus:
        findings.warn("GPU", f"nvidia-smi shows none: {server.engine} would compute on the CPU, half a minute a click.")


def _plan(report: HostReport, server: ServerOptions, findings: Findings, *, in_job: bool) -> None:
    """Find what dls connect would install; in a job that is known only there, by its GPU."""
    try:
        plan = install.plan(report, requirements(server.engine), Code.installed().key)
        choose_gpu(report.gpus, server)
    except DlsError as error:
        findings.fail("installation", error)
        return
    if in_job:
        findings.ok("installation", "dls connect looks in the job what is missing, and installs it there.")
    elif plan.make_environment:
        findings.ok(
            "installation", f"dls connect would install the packages of {server.engine} with {plan.tool.value}."
        )
    else:
        findings.ok("installation", f"The packages of {server.engine} are there.")


def _try_forwarding(connection: Connection, report: HostReport, findings: Findings) -> None:
    if connection.forbids_forwarding():
        findings.fail("forwarding", forwarding_forbidden(connection.target.label))
        return
    findings.ok("forwarding", "Ports of the host can be forwarded.")
    is_possible = _forwards_sockets(connection, report)
    if is_possible is None:
        findings.unknown("forwarding", "Unix sockets: not tried, since the host has no Python to make one with.")
    elif is_possible:
        findings.ok("forwarding", "Unix sockets of the host can be forwarded.")
    else:
        findings.warn("forwarding", "Unix sockets can't be forwarded: a loopback port with a secret is used instead.")
    if forward := ReverseForward.open(connection, BulkChannel.close):
        forward.close()
        findings.ok("forwarding", "Ports of this computer can be offered to the host.")
    else:
        findings.warn("forwarding", "Ports of this computer can't be offered to the host; dls connect needs none.")


def _forwards_sockets(connection: Connection, report: HostReport) -> bool | None:
    """Let the host listen on a socket in a directory of its own for some seconds, and connect to it."""
    if not report.pythons:
        return None
    script = render("offer_socket", PYTHON=report.pythons[0].path, LIMIT=int(SOCKET_SECONDS))
    path = connection.run(script, timeout=SOCKET_SECONDS).stdout.strip()
    if not path:
        return None
    try:
        connection.open_unix(path).close()
    except ForwardError:
        return False
    return True


def _try_internet(
    connection: Connection,
    destination: str,
    login: LoginOptions,
    report: HostReport,
    server: ServerOptions,
    findings: Findings,
    *,
    in_job: bool,
) -> None:
    """Let the host ask for what an installation would fetch, as one would.

    On a cluster the login node asks, and a job's node may reach more, or less.
    """
    try:
        plan = install.plan(report, requirements(server.engine), Code.installed().key)
    except DlsError:
        return  # a finding already
    # Also where the packages are there: the next release needs others.
    asked = reach.ask(connection, report, replace(plan, make_environment=True), server)
    refusal = closed_error(connection.target.label, login, destination, report, plan, server, asked)
    host = "login node" if in_job else "host"
    for verdict, what, needed in (
        (asked.packages, f"its package index ({asked.index})", plan.make_environment),
        (asked.weights, f"the model hub ({asked.hub})", True),
    ):
        if verdict is Verdict.OPEN:
            findings.ok("internet there", f"The {host} reaches {what}.")
        elif verdict is Verdict.UNKNOWN:
            findings.unknown("internet there", f"Not found out whether the {host} reaches {what.partition(' (')[0]}.")
        elif verdict is Verdict.CLOSED and in_job:
            text = f"The login node does not reach {what}; dls connect asks the node of the job."
            findings.warn("internet there", text, refusal.hint)
        elif verdict is Verdict.CLOSED and needed:
            findings.fail("internet there", ClosedHostError(f"The host does not reach {what}.", refusal.hint))
        elif verdict is Verdict.CLOSED:
            findings.warn("internet there", f"The host does not reach {what}; what is needed is installed.")
        elif verdict is Verdict.THERE:
            findings.ok("internet there", f"The model is on the {host} already.")


def _ask_servers(connection: Connection, report: HostReport, findings: Findings) -> None:
    if not report.servers:
        findings.ok("server", "None runs; dls connect starts one.")
    for state in report.servers:
        fields: dict[str, object] = {}
        started = time.monotonic()
        with contextlib.suppress(DlsError):
            fields = status.identify(connection, state)
        took = (time.monotonic() - started) * 1000
        if fields:
            protocol = fields.get("version", "unknown")
            which = f"{state.engine} on {state.device}, dls {state.version}, protocol {protocol}"
            findings.ok("server", f"{which}: answered in {took:.0f} ms.")
        else:
            findings.warn("server", f"The one with {state.engine} does not answer.", "dls connect starts another.")
