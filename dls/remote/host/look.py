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
    earlier: HostReport | None = None,
) -> HostReport:
    """Run the phase "probe"; `with_scheduler` lets it stop early on a host from which the server goes into a job.

    `earlier` is a report of the same host that was told already: only what is new is told then.
    """
    label = connection.target.label
    with phases("probe", f"Looking at {label}" if earlier is None else f"Looking further at {label}") as phase:
        gpus, mib = options.needs_gpus, requirements(options.engine).disk_on(options.needs_gpus)
        report = probe(connection, login.remote_dir, depth, with_gpus=gpus, disk_mib=mib, with_scheduler=with_scheduler)
        if earlier is None:
            phase.result = _describe(report)
        else:
            phase.result = f"Looked further at {label}: {describe_news(report, earlier)}"
    if report.gpus_hang and not (earlier and earlier.gpus_hang):
        phases.reporter.note(
            f"nvidia-smi on {label} does not answer: its GPU driver hangs, and whoever runs the host "
            "has to restart it. The GPUs are left out."
        )
    return report


def describe_news(report: HostReport, earlier: HostReport) -> str:
    """Return what a look at a host found that an earlier one had not looked for."""
    parts = [] if earlier.knows_gpus else _describe_gpus(report)
    if report.full and not earlier.full:
        versions = sorted({python.version[:2] for python in report.pythons})
        parts.append(" and ".join(f"Python {major}.{minor}" for major, minor in versions) or "no Python")
    if report.servers and not earlier.servers:
        parts.append("a server is running")
    return ", ".join(parts) or "nothing new"


def _describe_gpus(report: HostReport) -> list[str]:
    if report.gpus:
        return ["; ".join(str(gpu) for gpu in report.gpus)]
    return ["no NVIDIA GPU"] if report.knows_gpus and not report.gpus_hang else []


def _describe(report: HostReport) -> str:
    parts = [f"{report.hostname}, {report.system} {report.machine}", *_describe_gpus(report)]
    if report.scheduler:
        parts.append("Slurm")
    if report.servers:
        parts.append("a server is running")
    return ", ".join(parts)
