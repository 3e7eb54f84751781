"""The phase "probe": look at the host, and say what it has."""

from __future__ import annotations

from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import requirements
from dls.remote.host.probe import Depth, HostReport, probe
from dls.remote.progress import Phases
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.options import LoginOptions


def look(
    connection: Connection,
    login: LoginOptions,
    options: ServerOptions,
    phases: Phases,
    depth: Depth = Depth.SERVER,
    *,
    with_scheduler: bool = False,
) -> HostReport:
    """Run the phase "probe"; `with_scheduler` lets it stop early on a host from which the server goes into a job."""
    with phases("probe", f"Looking at {connection.target.label}") as phase:
        gpus, mib = options.needs_gpus, requirements(options.engine).disk_on(options.needs_gpus)
        report = probe(connection, login.remote_dir, depth, with_gpus=gpus, disk_mib=mib, with_scheduler=with_scheduler)
        phase.result = _describe(report)
    if report.gpus_hang:
        phases.reporter.note(
            f"nvidia-smi on {connection.target.label} does not answer: its GPU driver hangs, and whoever runs the host "
            "has to restart it. The GPUs are left out."
        )
    return report


def _describe(report: HostReport) -> str:
    parts = [f"{report.hostname}, {report.system} {report.machine}"]
    if report.gpus:
        parts.append("; ".join(str(gpu) for gpu in report.gpus))
    elif report.knows_gpus and not report.gpus_hang:
        parts.append("no NVIDIA GPU")
    if report.scheduler:
        parts.append("Slurm")
    if report.servers:
        parts.append("a server is running")
    return ", ".join(parts)
