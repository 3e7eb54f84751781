"""A parcel goes to a real host: once, in parts, checked there, and never anywhere else."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.errors import HostError, LinkError
from dls.remote.host.packages import requirements
from dls.remote.host.probe import Depth, HostReport, probe
from dls.remote.parcel import send
from dls.remote.parcel.archive import Parcel
from dls.remote.progress import Phase, Silent, Transfer
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter
from tests.support.logins import target_of
from tests.support.parcels import UV, make_parcel, python_archive

NEEDED = requirements("region")
BIG = b"".join(hashlib.sha512(str(number).encode()).digest() for number in range(400_000))
FILES = {"wheels/a-1.0-py3-none-any.whl": b"a" * 1000, "wheels/b-1.0-py3-none-any.whl": BIG, "model/m/x": b"weights"}


class Transfers(Silent):
    """Records how far the transfer was, and does something at a point of it."""

    def __init__(self) -> None:
        self.shown: list[Transfer] = []

    def transfer(self, transfer: Transfer) -> None:
        self.shown.append(transfer)


@pytest.fixture
def parcel(tmp_path: Path) -> Parcel:
    return make_parcel(tmp_path / "x.parcel", FILES)


@pytest.fixture(scope="module")
def probed(host: sshd.Server) -> HostReport:
    connection = Connection.open(target_of(host), NoPrompter())
    report = probe(connection, "/nowhere", Depth.ALL)
    connection.close()
    return report


@pytest.fixture
def report(probed: HostReport, short_folder: Path) -> HostReport:
    return replace(probed, root=f"{short_folder}/host", storage="")


def sent(transfers: Transfers) -> int:
    """How many bytes crossed the link."""
    return transfers.shown[-1].done - transfers.shown[0].done


def test_a_parcel_arrives(connection: Connection, report: HostReport, parcel: Parcel) -> None:
    """Everything but the weights lies in a folder of its user's alone, uv in its place; then the folder is removed."""
    transfers = Transfers()
    arrived = send.send(connection, parcel, report, NEEDED, Phase(transfers))
    folder = Path(arrived.folder)
    assert folder == Path(report.root) / "parcels" / parcel.manifest.key
    for name, data in {"uv/uv.gz": UV, **FILES}.items():
        assert (folder / name).exists() is not name.startswith("model/")
        assert name.startswith("model/") or (folder / name).read_bytes() == data
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.rglob("*"))} == {0}
    assert arrived.uv == f"{report.root}/uv/bin/uv" and Path(arrived.uv).read_bytes() == gzip.decompress(UV)
    assert sent(transfers) == len(UV) + 1000 + len(BIG) and transfers.shown[-1].total == sent(transfers)
    again = Transfers()
    send.send(connection, parcel, report, NEEDED, Phase(again))
    assert sent(again) == 0
    send.remove(connection, report, arrived)
    assert not folder.parent.exists() and Path(arrived.uv).exists()


def test_a_cut_transfer_goes_on(connection: Connection, report: HostReport, parcel: Parcel, host: sshd.Server) -> None:
    """After a cut, the next attempt sends what had not arrived, to the byte, and the files are whole."""
    part = Path(report.root) / "parcels" / parcel.manifest.key / "wheels" / "b-1.0-py3-none-any.whl"

    def cut() -> None:
        while not (part.exists() and part.stat().st_size > 2_000_000):
            pass
        connection.transport.close()

    thread = threading.Thread(target=cut)
    thread.start()
    with pytest.raises(LinkError, match="was lost"):
        send.send(connection, parcel, report, NEEDED, Phase(Silent()))
    thread.join()
    second = Connection.open(target_of(host), NoPrompter())
    transfers = Transfers()
    arrived = send.send(second, parcel, report, NEEDED, Phase(transfers))
    total, there = transfers.shown[0].total, transfers.shown[0].done
    assert total == len(UV) + 1000 + len(BIG) and 2_000_000 < there < total
    assert sent(transfers) == total - there and part.read_bytes() == BIG
    send.remove(second, report, arrived)
    second.close()


@pytest.mark.slow
def test_a_host_without_sftp(report: HostReport, parcel: Parcel, short_folder: Path) -> None:
    """Such a host gets the parcel too."""
    with sshd.running(short_folder, options="Subsystem sftp /bin/false") as server:
        connection = Connection.open(target_of(server), NoPrompter())
        arrived = send.send(connection, parcel, report, NEEDED, Phase(Silent()))
        assert Path(arrived.folder, "wheels/b-1.0-py3-none-any.whl").read_bytes() == BIG
        connection.close()


def test_wrong_bytes_on_the_host(connection: Connection, report: HostReport, parcel: Parcel) -> None:
    """The host checks every file before it is used; a wrong one is removed, and the next attempt sends it alone."""
    folder = Path(report.root) / "parcels" / parcel.manifest.key
    wheel = folder / "wheels" / "b-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True, mode=0o700)
    wheel.write_bytes(b"wrong" + BIG[5:])
    with pytest.raises(HostError, match="is not what was sent"):
        send.send(connection, parcel, report, NEEDED, Phase(Silent()))
    assert not wheel.exists() and (folder / "uv" / "uv.gz").exists() and not Path(report.root, "uv/bin/uv").exists()
    transfers = Transfers()
    send.send(connection, parcel, report, NEEDED, Phase(transfers))
    assert sent(transfers) == len(BIG) and wheel.read_bytes() == BIG


def test_a_full_disk_is_known_beforehand(connection: Connection, report: HostReport, parcel: Parcel) -> None:
    """Nothing is sent to a host that has no room for it."""
    with pytest.raises(HostError, match="has 5 MiB free"):
        send.send(connection, parcel, replace(report, free_mib=5), NEEDED, Phase(Silent()))
    assert not list((Path(report.root) / "parcels").rglob("*.*"))


def test_a_place_that_others_can_change(connection: Connection, report: HostReport, parcel: Parcel) -> None:
    """A folder for parcels that is a link to somebody else's, or that others can write to, is not used."""
    parcels = Path(report.root) / "parcels"
    parcels.mkdir(parents=True, mode=0o700)
    (parcels / "x").touch()
    parcels.chmod(0o777)
    with pytest.raises(HostError, match="can write to"):
        send.send(connection, parcel, report, NEEDED, Phase(Silent()))


def test_old_parcels_are_removed(connection: Connection, report: HostReport, parcel: Parcel) -> None:
    """What a transfer that was never finished left behind a week ago makes room; a newer one stays."""
    parcels = Path(report.root) / "parcels"
    for name, days in (("old", 9), ("new", 1)):
        (parcels / name).mkdir(parents=True, mode=0o700)
        os.utime(parcels / name, (time.time() - days * 86400,) * 2)
    send.send(connection, parcel, report, NEEDED, Phase(Silent()))
    assert {path.name for path in parcels.iterdir()} == {"new", parcel.manifest.key}


@pytest.fixture
def with_python(tmp_path: Path) -> Iterator[Parcel]:
    yield make_parcel(tmp_path / "p.parcel", {"python/cpython-3.11.9-linux-x86_64-gnu.tar.gz": python_archive("3.11")})


def test_a_python_of_the_parcel(connection: Connection, report: HostReport, with_python: Parcel) -> None:
    """It is unpacked for its user alone where the host has none of the version, and not even sent where it has one."""
    assert send.send(connection, with_python, report, NEEDED, Phase(Silent())).python == ""
    report = replace(report, pythons=())
    arrived = send.send(connection, with_python, report, NEEDED, Phase(Silent()))
    assert arrived.python == f"{report.root}/python/cpython-3.11.9-linux-x86_64-gnu/bin/python3.11"
    found = Path(arrived.python).stat()
    assert found.st_mode & 0o022 == 0 and found.st_uid == Path(report.root).stat().st_uid
    assert not [path for path in Path(report.root, "parcels").iterdir() if path.name.startswith(".")]
