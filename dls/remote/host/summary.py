"""What the status of a server that was found adds to a probe, and how releases compare: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dls.gpus import Gpu
from dls.remote.host.probe import HostReport


def with_gpu(report: HostReport, status: Mapping[str, object]) -> HostReport:
    """Return the report with the GPU that the server's status names: the probe ends at a server, before the GPUs."""
    gpu = Gpu.read(status.get("gpu"))
    return report if report.gpus or gpu is None else replace(report, gpus=(gpu,))


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the numbers of a release, which compare as releases do."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdecimal())
