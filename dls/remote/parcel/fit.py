"""Whether a parcel fits a host, as the probe found it, before anything is sent: pure."""

from __future__ import annotations

from dataclasses import replace

from dls import __version__
from dls.errors import HostError, TargetError
from dls.remote.host.lock_files import OLDEST_DRIVER
from dls.remote.host.packages import Requirements
from dls.remote.host.probe import HostReport, Python
from dls.remote.host.send_uv import GLIBC, MACHINES
from dls.remote.host.storage import check_storage
from dls.remote.parcel.format import NO_CUDA, PYTHON, Manifest

OLDEST_DRIVERS = {"11": 450, "12": 525, "13": OLDEST_DRIVER}
"""Oldest major version of NVIDIA's driver for each major version of CUDA (NVIDIA's CUDA Compatibility, table 1)."""
PYTHON_GROWTH = 4
"""How many times larger than its archive an unpacked Python is."""


def check_fits(manifest: Manifest, report: HostReport, engine: str, needed: Requirements, command: str) -> None:
    """Raise TargetError for a parcel for another engine or release, HostError for one that does not fit the host.

    `command` packs what fits it, for the errors' hints.
    """
    if manifest.engine != engine:
        raise TargetError(
            f"The parcel is for the engine {manifest.engine}, not for {engine}.",
            f"Use it with --engine {manifest.engine}, or pack another one: {command}",
        )
    if manifest.requirements != needed.key:
        raise TargetError(
            f"The parcel was made by dls {manifest.release}, whose server needs other packages than that of "
            f"dls {__version__}.",
            f"Pack it again with the dls that you connect with: {command}",
        )
    if misfit := find_misfit(manifest, report):
        raise HostError(f"{report.hostname} {misfit}.", f"Pack what fits it: {command}")


def find_misfit(manifest: Manifest, report: HostReport) -> str:
    """Return how the host and the parcel differ, as the end of a sentence about the host; empty where they fit."""
    machine = MACHINES.get(report.machine, report.machine)
    if manifest.platform != f"{report.system}-{machine}".lower():
        return f"is {report.system} {report.machine}; the parcel is for {manifest.platform}"
    glibc = GLIBC.match(report.libc)
    if manifest.glibc and report.libc and (glibc is None or int(glibc[1]) < manifest.glibc):
        return f"has {report.libc}; the parcel's packages need glibc 2.{manifest.glibc} or newer"
    if not manifest.files_in(PYTHON) and find_python(manifest, report) is None:
        found = ", ".join(".".join(map(str, python.version)) for python in report.pythons) or "none"
        return f"has no Python {manifest.python} (found: {found}); the parcel is for that version and brings none"
    return _find_gpu_misfit(manifest, report) if manifest.cuda else ""


def _find_gpu_misfit(manifest: Manifest, report: HostReport) -> str:
    packed = f"the parcel has the torch for CUDA {manifest.cuda}"
    if manifest.cuda == NO_CUDA:
        return "has a GPU; the parcel has the torch for hosts without one" if report.gpus else ""
    if not report.gpus:
        return f"has no NVIDIA GPU; {packed}"
    oldest = OLDEST_DRIVERS.get(manifest.cuda.partition(".")[0], OLDEST_DRIVER)
    drivers = [gpu.driver_version for gpu in report.gpus if gpu.driver_version]
    if drivers and min(drivers) < oldest:
        return f"has the NVIDIA driver {report.gpus[0].driver}; {packed}, which needs {oldest} or newer"
    return ""


def find_python(manifest: Manifest, report: HostReport) -> Python | None:
    """Return the host's Python of the parcel's version, one that can make environments by itself first."""
    fitting = [python for python in report.pythons if "{}.{}".format(*python.version) == manifest.python]
    return max(fitting, key=lambda python: python.has_venv, default=None)


def check_room(manifest: Manifest, report: HostReport, needed: Requirements, missing: int) -> None:
    """Raise HostError where the remote directory has no room for the bytes that are sent and for what is unpacked."""
    python = sum(file.size for file in manifest.files_in(PYTHON)) * PYTHON_GROWTH
    check_storage(report, replace(needed, disk_mib=(missing + manifest.installed_bytes + python) // 2**20 + 1))
