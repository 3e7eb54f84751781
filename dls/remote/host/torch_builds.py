"""Which build of torch a host needs: pure."""

from __future__ import annotations

from dls.engine_choice import OLDEST_DRIVER
from dls.errors import HostError
from dls.remote.host import lock_files
from dls.remote.host.packages import Requirements
from dls.remote.host.probe import HostReport

TORCH_BY_DRIVER = ((lock_files.OLDEST_DRIVER, ""), (OLDEST_DRIVER, ",<2.11"))
"""Oldest major version of the driver and the bound on torch for it: torch's wheels from 2.11 on need CUDA 13."""


def torch_backend(report: HostReport, needed: Requirements) -> str:
    """Return which build of torch the host needs: CUDA is never installed on a host without a GPU."""
    if not any(package.startswith("torch") for package in needed.packages):
        return ""
    return "auto" if report.gpus else "cpu"


def constrain_torch(packages: tuple[str, ...], report: HostReport) -> tuple[str, ...]:
    """Return the packages with torch limited to versions whose CUDA the host's driver runs; raises HostError.

    uv finds the build that fits the driver; pip, and uv where its choice depends on the version, need this bound.
    """
    drivers = [gpu.driver_version for gpu in report.gpus if gpu.driver_version]
    if not drivers:
        return packages
    for oldest, bound in TORCH_BY_DRIVER:
        if min(drivers) >= oldest:
            return tuple(package + bound if package.startswith("torch") else package for package in packages)
    raise HostError(
        f"The NVIDIA driver {report.gpus[0].driver} on {report.hostname} is too old for nnInteractive's torch.",
        f"It has to be {TORCH_BY_DRIVER[-1][0]} or newer; --engine region needs none.",
    )
