"""What a parcel says of itself, and what is not believed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dls.errors import TargetError
from dls.remote.parcel.format import Manifest, PackedFile, is_safe, needed_glibc
from tests.support.parcels import MANIFEST

DIGEST = "0" * 64
WHEEL = "wheels/a_b-1.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"


def changed(**fields: Any) -> str:
    """Return the text of a parcel.json with other fields."""
    return json.dumps({**json.loads(MANIFEST.to_json()), **fields})


def with_files(*files: Any) -> str:
    own = json.loads(MANIFEST.to_json())["files"]
    return changed(files=[*own, *files])


def file(name: Any, size: Any = 1, sha256: Any = DIGEST) -> dict[str, Any]:
    return {"name": name, "size": size, "sha256": sha256}


def test_it_reads_what_it_writes() -> None:
    """A manifest survives its text, and its key depends on every file."""
    manifest = Manifest.parse(with_files(file(WHEEL), file("model/m/fold_0/it's.pth"), file("python/p.tar.gz")))
    assert Manifest.parse(manifest.to_json()) == manifest
    assert manifest.model == "m" and len(manifest.key) == 16
    assert manifest.key != Manifest.parse(with_files(file(WHEEL, 2))).key


def test_the_lock_names_the_packages_of_the_parcel() -> None:
    """The lock file has one line for each wheel, with its own digest and nothing else's."""
    assert Manifest.parse(with_files(file(WHEEL), file("model/m/a"))).lock == f"a-b==1.0+cpu --hash=sha256:{DIGEST}\n"


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "7", '{"format": 1}', "[" * 100_000, changed(format=None), changed(extra=1),
        changed(files=7), changed(files=[]), changed(files=[[]]), changed(files=[{}]),
        changed(engine=7), changed(release="x\u001b[2J"), changed(platform="win32"), changed(python="2.7"),
        changed(glibc=-1), changed(glibc=True), changed(installed_bytes=1e300), changed(installed_bytes=1 << 60),
        with_files(file(WHEEL, -1)), with_files(file(WHEEL, 1 << 50)), with_files(file(WHEEL, 1.5)),
        with_files(file(WHEEL, sha256="x")), with_files(file(WHEEL, sha256=7)), with_files(file(7)),
        with_files(file(WHEEL), file(WHEEL)), with_files(file("model/m/a"), file("model/m/a/b")),
        with_files(file("model/m/a"), file("model/n/a")), with_files(file("uv/other.gz")),
        with_files(file("python/a.tar.gz"), file("python/b.tar.gz")), with_files(file("wheels/no.txt")),
    ],
)  # fmt: skip
def test_a_manifest_that_is_not_believed(text: str) -> None:
    """Whatever is wrong ends in one sentence."""
    with pytest.raises(TargetError, match=r"^The parcel [^\n\x1b]*\.$"):
        Manifest.parse(text)


def test_another_version_of_the_format() -> None:
    """A newer format is named as such: it is no damage."""
    with pytest.raises(TargetError, match=r"The parcel has format 2; this dls reads format 1\."):
        Manifest.parse(changed(format=2))


@pytest.mark.parametrize(
    "name",
    [
        "", "/", "/etc/passwd", "../x", "wheels/../x.whl", "wheels/..", "wheels", "wheels/", "wheels//a", "model/a",
        "model/../a/b", "model/a/../../b", "model/./a", "model/a/.ssh", "other/a", "wheels\\a", "model/a/b\\c",
        "model/C:/x", "wheels/a/b.whl", "model/a/b\nc", "model/a/b\x00", f"model/a/{'x' * 300}", "uv/a/b",
        "model/a/" + "b/" * 600 + "c",
    ],
)  # fmt: skip
def test_a_name_that_would_lie_elsewhere(name: str) -> None:
    """No name leads out of the parcel's folders, on any system, and such a parcel is refused."""
    assert not is_safe(name)
    with pytest.raises(TargetError):
        Manifest.parse(with_files(file(name)))


@pytest.mark.parametrize(
    ("wheel", "minor"),
    [
        ("a-1-py3-none-any.whl", 0),
        ("a-1-cp311-cp311-manylinux_2_28_x86_64.whl", 28),
        ("a-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_28_x86_64.whl", 17),
        ("a-1-cp311-cp311-musllinux_1_1_x86_64.whl", 0),
    ],
)
def test_the_oldest_glibc_that_a_wheel_runs_with(wheel: str, minor: int) -> None:
    """The platform's tags say it, in the old names and the new ones."""
    assert needed_glibc(wheel) == minor


def test_a_file_knows_its_folder() -> None:
    """The first part of a name says what the file is."""
    packed = PackedFile("model/m/fold_0/x", 1, DIGEST)
    assert (packed.folder, packed.base) == ("model", "m/fold_0/x")
