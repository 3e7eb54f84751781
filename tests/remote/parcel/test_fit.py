"""Whether a parcel fits a host, before anything is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dls.errors import DlsError, HostError, TargetError
from dls.gpus import Gpu
from dls.remote.host.packages import requirements
from dls.remote.host.probe import HostReport, Python
from dls.remote.parcel.fit import check_fits, check_room, find_python
from dls.remote.parcel.format import Manifest
from tests.support.parcels import MANIFEST, packed

REGION = requirements("region")
OWN = Python("/usr/bin/python3", (3, 11, 2), has_venv=False, has_pip=False)
HOST = HostReport(
    system="Linux", machine="x86_64", libc="glibc 2.28", hostname="gpu1", home="/h", uid=1, root="/h/.dls",
    run_dir="/r", remote_key="k", filesystem="ext4", free_mib=10_000, pythons=(OWN,),
)  # fmt: skip
WITH_PYTHON = replace(MANIFEST, files=(*MANIFEST.files, packed("python/cpython.tar.gz", b"x" * (1 << 20))))


def gpu(driver: str) -> tuple[Gpu, ...]:
    return (Gpu(0, "A100", 1, 1, driver),)


FITS: list[tuple[Manifest, dict[str, Any]]] = [
    (MANIFEST, {}),
    (MANIFEST, {"machine": "amd64"}),
    (MANIFEST, {"libc": ""}),
    (replace(MANIFEST, glibc=0), {"libc": "musl libc (x86_64)"}),
    (replace(MANIFEST, platform="linux-aarch64"), {"machine": "arm64"}),
    (WITH_PYTHON, {"pythons": ()}),
    (MANIFEST, {"gpus": gpu("470.1")}),
    (replace(MANIFEST, cuda="cpu"), {}),
    (replace(MANIFEST, cuda="12.6"), {"gpus": gpu("525.60")}),
    (replace(MANIFEST, cuda="13.0"), {"gpus": gpu("580.1")}),
    (replace(MANIFEST, cuda="13.0"), {"gpus": gpu("[N/A]")}),
]
MISFITS: list[tuple[Manifest, dict[str, Any], type[DlsError], str]] = [
    (replace(MANIFEST, engine="nninteractive"), {}, TargetError, "is for the engine nninteractive, not for region"),
    (
        replace(MANIFEST, requirements="other"),
        {},
        TargetError,
        "was made by dls 1.0, whose server needs other packages",
    ),
    (MANIFEST, {"machine": "aarch64"}, HostError, "gpu1 is Linux aarch64; the parcel is for linux-x86_64"),
    (MANIFEST, {"system": "Darwin"}, HostError, "gpu1 is Darwin x86_64; the parcel is for linux-x86_64"),
    (MANIFEST, {"libc": "glibc 2.12"}, HostError, "has glibc 2.12; the parcel's packages need glibc 2.17 or newer"),
    (MANIFEST, {"libc": "musl libc (x86_64)"}, HostError, "has musl libc .* need glibc 2.17"),
    (replace(MANIFEST, python="3.12"), {}, HostError, r"has no Python 3.12 \(found: 3.11.2\); the parcel is"),
    (MANIFEST, {"pythons": ()}, HostError, r"has no Python 3.11 \(found: none\)"),
    (replace(MANIFEST, cuda="cpu"), {"gpus": gpu("580")}, HostError, "has a GPU; the parcel has the torch for hosts"),
    (replace(MANIFEST, cuda="12.6"), {}, HostError, "has no NVIDIA GPU; the parcel has the torch for CUDA 12.6"),
    (replace(MANIFEST, cuda="13.0"), {"gpus": gpu("550.54")}, HostError, "driver 550.54; .* which needs 580 or newer"),
]


@pytest.mark.parametrize(("manifest", "host"), FITS)
def test_a_parcel_that_fits(manifest: Manifest, host: dict[str, Any]) -> None:
    """A parcel for the host's platform, C library, Python and GPU is not refused."""
    check_fits(manifest, replace(HOST, **host), "region", REGION, "dls pack …")


@pytest.mark.parametrize(("manifest", "host", "kind", "said"), MISFITS)
def test_a_parcel_that_does_not_fit(manifest: Manifest, host: dict[str, Any], kind: type[DlsError], said: str) -> None:
    """Whatever does not fit is named in one sentence, with what to pack instead."""
    with pytest.raises(kind, match=said) as caught:
        check_fits(manifest, replace(HOST, **host), "region", REGION, "dls pack …")
    assert caught.value.message.endswith(".") and "\n" not in caught.value.message and "dls pack …" in caught.value.hint


def test_the_host_s_own_python_comes_first() -> None:
    """Of several Pythons of the version, one that can make environments by itself is taken."""
    able = Python("/opt/bin/python3.11", (3, 11, 9), has_venv=True, has_pip=True)
    assert find_python(MANIFEST, replace(HOST, pythons=(OWN, able))) == able
    assert find_python(MANIFEST, HOST) == OWN
    assert find_python(replace(MANIFEST, python="3.10"), HOST) is None


def test_the_room_on_the_host() -> None:
    """What is still to be sent, what is unpacked of it, and a Python have to fit on the disk."""
    manifest = replace(WITH_PYTHON, installed_bytes=100 << 20)
    check_room(manifest, replace(HOST, free_mib=155), REGION, 50 << 20)
    with pytest.raises(HostError, match="has 154 MiB free; the packages need 155"):
        check_room(manifest, replace(HOST, free_mib=154), REGION, 50 << 20)
    with pytest.raises(HostError, match="read-only"):
        check_room(manifest, replace(HOST, storage="read-only"), REGION, 0)
