"""What uv is asked for a parcel, and what is taken of its answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dls.errors import TargetError
from dls.remote.host import lock_files
from dls.remote.host.packages import requirements
from dls.remote.parcel.resolve import Download, Target, plan, read_lock
from dls.remote.parcel.standalone import choose
from dls.remote.parcel.uv import FetchError

LINUX = Target("nninteractive", "linux-x86_64", "3.11")
DIGEST = "0" * 64


def cuda(version: str) -> Target:
    return Target("nninteractive", "linux-x86_64", "3.11", version)


def test_the_release_s_lock_is_taken_where_it_fits() -> None:
    """The region engine, and torch for CUDA 13, come exactly as the release locked them."""
    wanted = plan(Target("region", "linux-aarch64", "3.13"), requirements("region"))
    assert wanted.requirements == lock_files.read("region") and wanted.is_locked and wanted.cuda == ""
    for version in ("", "13", "13.0", "13.2", "14.1"):
        wanted = plan(cuda(version), requirements("nninteractive"))
        assert (wanted.requirements, wanted.backend) == (lock_files.read("nninteractive"), "") and wanted.cuda == "13.0"


@pytest.mark.parametrize(
    ("version", "backend", "built"),
    [
        ("12.6", "cu126", "12.6"), ("12.7", "cu126", "12.6"), ("12.9", "cu128", "12.8"), ("12", "cu128", "12.8"),
        ("12.0", "cu124", "12.4"), ("11.8", "cu118", "11.8"), ("11.4", "cu118", "11.8"), ("cpu", "cpu", "cpu"),
    ],
)  # fmt: skip
def test_another_torch_holds_the_other_packages_to_the_lock(version: str, backend: str, built: str) -> None:
    """Another build of torch comes from torch's own index; what does not hang on it has the release's version."""
    wanted = plan(cuda(version), requirements("nninteractive"))
    assert (wanted.backend, wanted.cuda, wanted.is_locked) == (backend, built, False)
    assert "torch>=2.6" in wanted.requirements
    names = {line.partition("==")[0] for line in wanted.constraints.splitlines()}
    assert {"numpy", "nninteractive"} <= names and not names & {"torch", "torchvision", "triton", "nvidia-cudnn-cu13"}
    assert "--hash" not in wanted.constraints and "\\" not in wanted.constraints


@pytest.mark.parametrize("version", ["10.2", "x", "12.x", "1"])
def test_a_cuda_without_a_torch(version: str) -> None:
    """A version that no build is for is named, with those that there are."""
    with pytest.raises(TargetError, match="There is no torch for CUDA") as caught:
        plan(cuda(version), requirements("nninteractive"))
    assert "12.6" in caught.value.hint


def test_targets_that_there_are_not() -> None:
    """An unknown platform or Python is refused with the known ones; region needs no CUDA."""
    for target in (Target("region", "win32", "3.11"), Target("region", "linux-x86_64", "3.9")):
        with pytest.raises(TargetError, match="There is no parcel for") as caught:
            target.check()
        assert "Choose one of" in caught.value.hint
    with pytest.raises(TargetError, match="needs neither CUDA nor torch"):
        plan(Target("region", "linux-x86_64", "3.11", "cpu"), requirements("region"))


def wheel(name: str) -> str:
    return f'{{ url = "https://h/p/{name}", size = 3, hashes = {{ sha256 = "{DIGEST}" }} }}'


def lock(*files: str, kind: str = "wheels") -> str:
    value = f"[{', '.join(files)}]" if kind == "wheels" else files[0]
    return f'lock-version = "1.0"\n[[packages]]\nname = "a"\nversion = "1"\n{kind} = {value}\n'


def names(text: str) -> list[str]:
    return [found.name for found in read_lock(text, Path("/f"))]


def test_one_file_of_each_package() -> None:
    """A compiled wheel comes before a pure one, one for older hosts first, and any wheel before a source."""
    old, new = ("a-1-cp311-cp311-manylinux_2_17_x86_64.whl", "a-1-cp311-cp311-manylinux_2_28_x86_64.whl")
    assert names(lock(wheel("a-1-py3-none-any.whl"), wheel(new), wheel(old))) == [old]
    assert names(lock(wheel("a-1-py3-none-any.whl"))) == ["a-1-py3-none-any.whl"]
    source = next(read_lock(lock(wheel("a-1.tar.gz"), kind="sdist"), Path("/f")))
    assert source == Download("a-1.tar.gz", "https://h/p/a-1.tar.gz", 3, DIGEST) and source.is_source


def test_files_of_a_local_index() -> None:
    """A path of an index on this computer starts where the lock file lies; escapes in addresses are resolved."""
    text = f'{{ path = "../x/a-1-py3-none-any.whl", hashes = {{ sha256 = "{DIGEST}" }} }}'
    assert next(read_lock(lock(text), Path("/f"))).location == "/x/a-1-py3-none-any.whl"
    assert names(lock(wheel("a-1%2Bcpu-py3-none-any.whl"))) == ["a-1+cpu-py3-none-any.whl"]


@pytest.mark.parametrize(
    "text",
    [
        lock(wheel("..%2F..%2Fa-1-py3-none-any.whl")), lock(wheel("a.exe")), lock(wheel("")),
        lock('{ url = "https://h/a-1-py3-none-any.whl", hashes = { sha256 = "x" } }'),
        'lock-version = "1.0"\n[[packages]]\nname = "a"\ndirectory = { path = "." }\n',
    ],
)  # fmt: skip
def test_what_an_index_may_not_offer(text: str) -> None:
    """A file's name can't lead elsewhere, and what is no package is refused."""
    with pytest.raises(FetchError):
        names(text)


def test_the_newest_python_of_the_version() -> None:
    """Of what uv lists, the plain build for the target counts: no other implementation, C library or variant."""

    def row(patch: int, **other: str) -> dict[str, object]:
        parts = {"major": 3, "minor": 11, "patch": patch}
        common = {"implementation": "cpython", "variant": "default", "os": "linux", "libc": "gnu", "arch": "x86_64"}
        return {**common, "key": f"k{patch}", "version_parts": parts, "url": f"https://h/{patch}.tar.gz", **other}

    rows = [row(8), row(18), row(9), row(20, libc="musl"), row(21, variant="freethreaded"), row(22, arch="aarch64")]
    rows += [row(23, implementation="pypy"), {**row(24), "url": None}]
    assert choose(json.dumps(rows), LINUX) == ("k18", "https://h/18.tar.gz")
    assert choose("[]", LINUX) is None
