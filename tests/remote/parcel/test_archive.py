"""A parcel as a file: written, read, damaged."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dls.errors import TargetError
from dls.remote.parcel.archive import PackedModel, Parcel, find_model, write
from tests.support.parcels import MANIFEST, UV, make_parcel, packed

FILES = {"wheels/a-1.0-py3-none-any.whl": bytes(range(256)) * 10_000, "model/m/fold_0/b": b"weights", "model/m/c": b"c"}


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    return make_parcel(tmp_path / "region.parcel", FILES)


def test_what_was_packed_is_read(parcel: Parcel) -> None:
    """Each file comes out as it went in, from any offset on."""
    for file in parcel.manifest.files[1:]:
        assert b"".join(parcel.read(file)) == FILES[file.name]
    wheel = parcel.manifest.files[1]
    for offset in (1, (1 << 20) - 1, 1 << 20, 2_000_000, wheel.size):
        assert b"".join(parcel.read(wheel, offset)) == FILES[wheel.name][offset:]


def test_equal_content_gives_equal_bytes(parcel: Parcel, tmp_path: Path) -> None:
    """Neither the time nor the user who packs is in a parcel, and nothing is left beside it."""
    (tmp_path / "other").mkdir()
    other = make_parcel(tmp_path / "other" / "x.parcel", FILES)
    assert parcel.path.read_bytes() == other.path.read_bytes()
    assert not list(tmp_path.rglob("*.part"))


def test_the_model_in_it(parcel: Parcel, tmp_path: Path) -> None:
    """The weights are a source of files with their names in the model's folder; a parcel without is named as such."""
    model = find_model(parcel)
    assert isinstance(model, PackedModel) and model.name == "m"
    assert [(file.name, b"".join(model.read(file, 0))) for file in model.files] == [
        ("c", b"c"),
        ("fold_0/b", b"weights"),
    ]
    with pytest.raises(TargetError, match="holds no weights"):
        find_model(make_parcel(tmp_path / "none", {}))


def test_a_truncated_parcel(parcel: Parcel) -> None:
    """Wherever the copy of a parcel was cut, it is refused before anything is done with it."""
    whole = parcel.path.read_bytes()
    for size in (0, 1, 511, 512, 700, 2048, 3000, len(whole) // 2, len(whole) - 20_000):
        parcel.path.write_bytes(whole[:size])
        with pytest.raises(TargetError, match=r"^The parcel is damaged, or is none: .*\.$"):
            Parcel.open(parcel.path)


def test_a_file_that_is_not_the_one_that_was_packed(parcel: Parcel) -> None:
    """A byte that changed on the way is noticed when the file is read, also where only its end is read."""
    wheel = parcel.manifest.files[1]
    data = bytearray(parcel.path.read_bytes())
    data[parcel.offsets[wheel.name] + 5] ^= 1
    parcel.path.write_bytes(data)
    damaged = Parcel.open(parcel.path)
    for offset in (0, wheel.size - 1):
        with pytest.raises(TargetError, match="is not the file that was packed"):
            list(damaged.read(wheel, offset))


def rewrite(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w:", format=tarfile.GNU_FORMAT) as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))


def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def manifest(*names: str) -> bytes:
    from dataclasses import replace

    return replace(MANIFEST, files=(packed("uv/uv.gz", UV), *(packed(name, b"x") for name in names))).to_json().encode()


HOSTILE: dict[str, Callable[[], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "no manifest": lambda: [member("uv/uv.gz", UV)],
    "manifest not first": lambda: [member("uv/uv.gz", UV), member("parcel.json", manifest())],
    "manifest too large": lambda: [member("parcel.json", bytes(5 << 20))],
    "manifest no text": lambda: [member("parcel.json", b"\xff\xfe")],
    "manifest a link": lambda: [member("parcel.json", b"", tarfile.SYMTYPE, "/etc/passwd")],
    "a file more": lambda: [member("parcel.json", manifest()), member("uv/uv.gz", UV), member("model/m/x", b"x")],
    "a link in place of a file": lambda: [
        member("parcel.json", manifest("model/m/x")), member("uv/uv.gz", UV),
        member("model/m/x", b"", tarfile.SYMTYPE, "/etc/passwd"),
    ],
    "another name": lambda: [
        member("parcel.json", manifest("model/m/x")), member("uv/uv.gz", UV), member("../../x", b"x"),
    ],
    "twice": lambda: [
        member("parcel.json", manifest("model/m/x")), member("uv/uv.gz", UV), member("uv/uv.gz", UV),
    ],
    "another size": lambda: [
        member("parcel.json", manifest("model/m/x")), member("uv/uv.gz", UV), member("model/m/x", b"xy"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_parcel_that_is_none(name: str, tmp_path: Path) -> None:
    """An archive that is not exactly what its list says is refused."""
    rewrite(tmp_path / "x", HOSTILE[name]())
    with pytest.raises(TargetError, match=r"^The parcel is damaged, or is none: .*\.$"):
        Parcel.open(tmp_path / "x")


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    """A compressed archive, a folder and a missing file end in one sentence each."""
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        info, data = member("parcel.json", manifest())
        archive.addfile(info, io.BytesIO(data))
    with pytest.raises(TargetError, match="no whole tar archive"):
        Parcel.open(tmp_path / "x.tar.gz")
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(TargetError, match="can't be read"):
            Parcel.open(path)


def test_a_place_that_takes_no_file(tmp_path: Path) -> None:
    """A parcel that can't be written ends in one sentence, and leaves nothing."""
    with pytest.raises(TargetError, match="can't be written"):
        write(tmp_path / "none" / "x", MANIFEST, lambda file: tmp_path / file.name)
    (tmp_path / "full").mkdir()
    with pytest.raises(TargetError, match="can't be written"):  # its file is not there: it can't be written to its end
        write(tmp_path / "full" / "x", MANIFEST, lambda file: tmp_path / file.name)
    assert not list((tmp_path / "full").iterdir())
