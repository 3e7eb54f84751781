"""What a probe found, in a line of text, and what a server that was found adds to it: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dls.gpus import Gpu
from dls.remote.host.probe import HostReport


def describe(report: HostReport) -> str:
    """Return the report as a line of text."""
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


def with_gpu(report: HostReport, status: Mapping[str, object]) -> HostReport:
    """Return the report with the GPU that the server's status names: the probe ends at a server, before the GPUs."""
    gpu = Gpu.read(status.get("gpu"))
    return report if report.gpus or gpu is None else replace(report, gpus=(gpu,))
