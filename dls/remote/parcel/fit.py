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
from dls.remote.parcel.format import MODEL, NO_CUDA, PYTHON, Manifest

OLDEST_DRIVERS = {"11": 450, "12": 525, "13": OLDEST_DRIVER}
"""Oldest major version of NVIDIA's driver for each major version of CUDA (NVIDIA's CUDA Compatibility, table 1)."""
PYTHON_GROWTH = 4
"""How many times larger than its archive an unpacked Python is."""


def check_fits(manifest: Manifest, report: HostReport, engine: str, needed: Requirements) -> None:
    """Raise TargetError for a parcel for another engine or release, HostError for one that does not fit the host."""
    if manifest.engine != engine:
        raise TargetError(
            f"The parcel is for the engine {manifest.engine}, not for {engine}.",
            f"Use it with --engine {manifest.engine}, or pack another one.",
        )
    if manifest.requirements != needed.key:
        raise TargetError(
            f"The parcel was made by dls {manifest.release}, whose server needs other packages than that of "
            f"dls {__version__}.",
            "Pack it again with the dls that you connect with.",
        )
    machine = MACHINES.get(report.machine, report.machine)
    if manifest.platform != f"{report.system}-{machine}".lower():
        raise _misfit(report, f"is {report.system} {report.machine}", f"is for {manifest.platform}", "--platform")
    _check_glibc(manifest, report)
    if not manifest.files_in(PYTHON) and find_python(manifest, report) is None:
        found = ", ".join(".".join(map(str, python.version)) for python in report.pythons) or "none"
        raise _misfit(
            report, f"has no Python {manifest.python} ({found})", f"is for Python {manifest.python} and brings none",
            "the --python that is there, or --with-python",
        )  # fmt: skip
    if manifest.cuda:
        _check_gpus(manifest, report)


def _misfit(report: HostReport, found: str, packed: str, option: str) -> HostError:
    return HostError(f"{report.hostname} {found}; the parcel {packed}.", f"Pack another one: `dls pack` with {option}.")


def _check_glibc(manifest: Manifest, report: HostReport) -> None:
    found = GLIBC.match(report.libc)
    if manifest.glibc and report.libc and (found is None or int(found[1]) < manifest.glibc):
        raise HostError(
            f"{report.hostname} has {report.libc}; the parcel's packages need glibc 2.{manifest.glibc} or newer.",
            "No parcel fits such a host: it needs a newer system.",
        )


def _check_gpus(manifest: Manifest, report: HostReport) -> None:
    if manifest.cuda == NO_CUDA:
        if report.gpus:
            raise _misfit(report, "has a GPU", "has the torch for hosts without one", "--cuda")
        return
    if not report.gpus:
        raise _misfit(report, "has no NVIDIA GPU", f"has the torch for CUDA {manifest.cuda}", "--cpu")
    oldest = OLDEST_DRIVERS.get(manifest.cuda.partition(".")[0], OLDEST_DRIVER)
    drivers = [gpu.driver_version for gpu in report.gpus if gpu.driver_version]
    if drivers and min(drivers) < oldest:
        raise _misfit(
            report, f"has the NVIDIA driver {report.gpus[0].driver}",
            f"has the torch for CUDA {manifest.cuda}, which needs {oldest} or newer",
            "--cuda and the version that `nvidia-smi` names there",
        )  # fmt: skip


def find_python(manifest: Manifest, report: HostReport) -> Python | None:
    """Return the host's Python of the parcel's version, one that can make environments by itself first."""
    fitting = [python for python in report.pythons if "{}.{}".format(*python.version) == manifest.python]
    return max(fitting, key=lambda python: python.has_venv, default=None)


def check_room(manifest: Manifest, report: HostReport, needed: Requirements, missing: int) -> None:
    """Raise HostError where the remote directory has no room for the bytes that are sent and for what is unpacked."""
    python = sum(file.size for file in manifest.files_in(PYTHON)) * PYTHON_GROWTH
    check_storage(report, replace(needed, disk_mib=(missing + manifest.installed_bytes + python) // 2**20 + 1))


def is_for_the_environment(folder: str) -> bool:
    """Return whether the files of one of a parcel's folders are sent to make the environment; weights go elsewhere."""
    return folder != MODEL
