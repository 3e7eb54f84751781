"""From `dls pack` on a computer with internet to a click on a host without."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dls
from dls.demo import sshd
from dls.errors import HostError, InstallError, LinkError, TargetError
from dls.remote.host import install, lock_files
from dls.remote.host.network import NetworkOptions
from dls.remote.host.packages import Code, Requirements, requirements
from dls.remote.host.probe import Depth, probe
from dls.remote.parcel import send
from dls.remote.parcel.archive import Parcel
from dls.remote.progress import Phase, Silent, Transfer
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.prompts import NoPrompter
from tests.support import package_index
from tests.support.command_line import run_dls
from tests.support.connecting import RecordingReporter, click_once
from tests.support.host_environment import lend_packages
from tests.support.itksnap import ItkSnap
from tests.support.logins import target_of
from tests.support.package_index import Index
from tests.support.parcels import make_parcel, python_archive
from tests.support.processes import free_port, until
from tests.support.synthetic import dice, ellipsoid, noisy

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
DEAD = "http://127.0.0.1:9"
CLOSED = (
    f"SetEnv HTTPS_PROXY={DEAD} HTTP_PROXY={DEAD} ALL_PROXY={DEAD} UV_INDEX={DEAD}/simple PIP_INDEX_URL={DEAD}/simple"
)
"""What makes a host of the tests one that reaches nothing: every way out leads to a port where nobody listens."""
MODEL = Path(__file__).parents[2] / "tiny_model" / "model"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index with the packages of the region engine, and with uv's build for every Linux."""
    wheels = package_index.download("region", lock_files.read("region"))
    folder = tmp_path_factory.mktemp("index")
    served = folder / "served"
    shutil.copytree(wheels, served)
    shutil.copy(static_uv(), served)
    with package_index.running(folder, served) as running:
        yield running


def static_uv() -> Path:
    """Return the wheel of uv that runs on every Linux; it is downloaded once for all tests of this machine."""
    folder = package_index.CACHE / "uv-static"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.whl")):
        (folder / "uv.txt").write_text(lock_files.read("uv"))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        platform = ["--platform", f"musllinux_1_1_{os.uname().machine}", "--dest", str(folder)]
        subprocess.run([*command, *platform, "--requirement", str(folder / "uv.txt")], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture
def closed_host(short_folder: Path) -> Iterator[sshd.Server]:
    """An SSH server whose sessions reach no index."""
    with sshd.running(short_folder, options=CLOSED) as server:
        yield server


def environment(index: Index, folder: Path) -> Mapping[str, str]:
    """Return the environment of a computer whose uv knows this index alone, and has nothing in its cache."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_", "SSL_"))}
    return {**kept, "UV_DEFAULT_INDEX": index.url, "UV_CACHE_DIR": str(folder / "cache"), "UV_NO_CONFIG": "1"}


def pack_words(index: Index, path: Path) -> list[str]:
    platform = f"linux-{os.uname().machine}"
    words = ["pack", "--engine", "region", "--platform", platform, "--python", PYTHON, "-o", str(path)]
    return [*words, "--ca-bundle", str(index.ca), "--json"]


@pytest.fixture(scope="module")
def region(index: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parcel of the region engine."""
    folder = tmp_path_factory.mktemp("packed")
    done = run_dls(*pack_words(index, folder / "region.parcel"), env=environment(index, folder))
    assert done.returncode == 0, done.stderr
    assert '"event": "packed"' in done.stdout and '"what": "packages"' in done.stdout
    return folder / "region.parcel"


def size_of(folder: Path) -> int:
    """Return the bytes of the files in the folder; one that gets another name meanwhile is left out."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


@pytest.mark.slow
def test_a_pack_that_was_cut_goes_on(index: Index, region: Path, tmp_path: Path) -> None:
    """A second `dls pack` fetches what the first one had not, gives the same bytes, and leaves nothing beside."""
    path, env = tmp_path / "region.parcel", environment(index, tmp_path)
    before = index.bytes_sent
    process = subprocess.Popen([sys.executable, "-m", "dls", *pack_words(index, path)], env=env, stdout=subprocess.PIPE)
    fetched = path.with_name("region.parcel.fetched")
    until(lambda: size_of(fetched) > 30_000_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not path.exists()
    there = size_of(fetched)
    middle = index.bytes_sent
    done = run_dls(*pack_words(index, path), env=env)
    assert done.returncode == 0, done.stderr
    size = path.stat().st_size
    assert middle > before and index.bytes_sent - middle < size - there + 6_000_000  # metadata, and the size of uv
    assert path.read_bytes() == region.read_bytes()
    assert [entry.name for entry in tmp_path.glob("region*")] == ["region.parcel"]


def connect(host: sshd.Server, parcel: Path, folder: Path, reporter: RecordingReporter) -> dls.Session:
    """Connect to the host with a parcel; what is installed there goes into the folder."""
    return dls.connect(
        "dls-demo",
        server=dls.ServerOptions(engine="region"),
        login=dls.LoginOptions(ssh_config=host.config, remote_dir=f"{folder}/host"),
        network=NetworkOptions(parcel=parcel),
        local_port=free_port(),
        reporter=reporter,
    )


@pytest.mark.slow
def test_from_a_parcel_to_a_click(closed_host: sshd.Server, region: Path, short_folder: Path) -> None:
    """A host that reaches nothing gets the server from a parcel, and answers a click through the local port."""
    reporter = RecordingReporter()
    with connect(closed_host, region, short_folder, reporter) as session:
        click_once(session.port)
        session.close(stop_server=True)
    assert "install" in reporter.phases
    assert not (short_folder / "host" / "parcels").exists()
    complete = next((short_folder / "host" / "env").glob("*/complete.json")).read_text()
    assert lock_files.digest(Parcel.open(region).manifest.lock) in complete


def test_a_parcel_is_read_before_the_login(host: sshd.Server, tmp_path: Path) -> None:
    """A damaged parcel is known before anybody logs in."""
    (tmp_path / "x").write_bytes(b"no parcel")
    with pytest.raises(TargetError, match="is damaged, or is none"):
        dls.connect("no-such-host.invalid", network=NetworkOptions(parcel=tmp_path / "x"))


class Cutter(RecordingReporter):
    """Ends the SSH connections of a server when a part of a transfer has been shown."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.shown: list[Transfer] = []
        self._port = port

    def transfer(self, transfer: Transfer) -> None:
        self.shown.append(transfer)
        if transfer.done > 20_000_000 and self._port:
            subprocess.run(
                ["ss", "-K", "state", "established", f"( sport = :{self._port} )"], stdout=subprocess.DEVNULL
            )
            self._port = 0


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("ss"), reason="only root can end connections with ss")
def test_a_connect_whose_link_is_cut_goes_on(closed_host: sshd.Server, region: Path, short_folder: Path) -> None:
    """The first connect ends in a sentence; the second one sends the rest, and leaves nothing of the parcel there."""
    first, second = Cutter(closed_host.port), Cutter(0)
    with pytest.raises(LinkError, match="was lost") as caught:
        connect(closed_host, region, short_folder, first)
    assert "goes on" in caught.value.hint
    with connect(closed_host, region, short_folder, second) as session:
        click_once(session.port)
        session.close(stop_server=True)
    begun, ended = second.shown[0], second.shown[-1]
    assert begun.done > 10_000_000 and ended.done == ended.total == first.shown[0].total
    assert not (short_folder / "host" / "parcels").exists()


def wheel_of(name: str, folder: Path) -> tuple[str, bytes]:
    path = package_index.tiny_wheel(folder, name, size=100_000)
    return f"wheels/{path.name}", path.read_bytes()


TINY = Requirements(("tiny",), disk_mib=1)


def tiny_parcel(folder: Path, uv: bytes) -> Parcel:
    name, data = wheel_of("tiny", folder)
    return make_parcel(folder / "tiny.parcel", {"uv/uv.gz": gzip.compress(uv, 1), name: data}, python=PYTHON)


class Lines(Silent):
    """Records what the installer said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def update(self, text: str) -> None:
        self.lines.append(text)


def install_tiny(server: sshd.Server, parcel: Parcel, root: str, *, pythons: bool = True) -> tuple[str, bool]:
    """Install a parcel with one small package; returns where the environment's Python has it, and whether pip did it.

    Without `pythons`, the host's own ones count as missing.
    """
    connection = Connection.open(target_of(server), NoPrompter())
    report = probe(connection, root, Depth.ALL)
    report = report if pythons else replace(report, pythons=())
    plan = replace(install.plan(report, TINY, ""), send_code=False)
    arrived = send.send(connection, parcel, report, TINY, Phase(Silent()))
    plan = send.adapt(plan, parcel, report, arrived)
    said = Lines()
    install.install(connection, plan, Code(()), Phase(said), own_caches=True)
    place = connection.run(f"{plan.interpreter} -c 'import tiny; print(tiny.__file__)'").stdout
    connection.close()
    return place, "making the environment with venv and pip" in said.lines


@pytest.mark.slow
def test_pip_where_uv_does_not_run(closed_host: sshd.Server, tmp_path: Path, short_folder: Path) -> None:
    """A host on which the parcel's uv does not run installs with its own pip, from the parcel's files alone."""
    parcel = tiny_parcel(tmp_path, b"not for this machine")
    place, by_pip = install_tiny(closed_host, parcel, f"{short_folder}/host")
    assert place.startswith(f"{short_folder}/host/env/") and by_pip


def real_uv() -> bytes:
    with zipfile.ZipFile(static_uv()) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/scripts/uv")))


@pytest.mark.slow
def test_a_python_from_the_parcel(closed_host: sshd.Server, tmp_path: Path, short_folder: Path) -> None:
    """A host without a Python makes its environment from the one in the parcel."""
    name, data = wheel_of("tiny", tmp_path)
    files = {
        "uv/uv.gz": gzip.compress(real_uv(), 1),
        f"python/cpython-{PYTHON}.9-linux-x86_64-gnu.tar.gz": python_archive(PYTHON),
        name: data,
    }
    parcel = make_parcel(tmp_path / "x.parcel", files, python=PYTHON)
    root = f"{short_folder}/host"
    place, by_pip = install_tiny(closed_host, parcel, root, pythons=False)
    assert place.startswith(f"{root}/env/") and not by_pip
    assert Path(root, "python", f"cpython-{PYTHON}.9-linux-x86_64-gnu", "bin", f"python{PYTHON}").exists()


@pytest.mark.slow
def test_a_package_that_is_missing_in_the_parcel(closed_host: sshd.Server, tmp_path: Path, short_folder: Path) -> None:
    """Nothing is fetched in its place: the installation fails, and says so."""
    wheel = package_index.tiny_wheel(tmp_path, "tiny", requires=["absent"])
    files = {"uv/uv.gz": gzip.compress(real_uv(), 1), f"wheels/{wheel.name}": wheel.read_bytes()}
    parcel = make_parcel(tmp_path / "x.parcel", files, python=PYTHON)
    with pytest.raises(InstallError, match="could not be installed") as caught:
        install_tiny(closed_host, parcel, f"{short_folder}/host")
    assert "absent" in caught.value.detail and "internet" not in caught.value.hint
    assert not list((short_folder / "host" / "env").iterdir())


@pytest.mark.slow
def test_a_host_that_can_do_nothing(closed_host: sshd.Server, tmp_path: Path, short_folder: Path) -> None:
    """Without a uv that runs, and with a Python that makes no environments, the way out is named."""
    connection = Connection.open(target_of(closed_host), NoPrompter())
    report = probe(connection, f"{short_folder}/host", Depth.ALL)
    report = replace(report, pythons=tuple(replace(python, has_venv=False) for python in report.pythons))
    parcel = tiny_parcel(tmp_path, b"not for this machine")
    arrived = send.send(connection, parcel, report, TINY, Phase(Silent()))
    with pytest.raises(HostError, match="can neither run uv nor make an environment") as caught:
        send.adapt(install.plan(report, TINY, ""), parcel, report, arrived)
    assert "--with-python" in caught.value.hint
    connection.close()


@pytest.mark.slow
def test_weights_of_a_parcel(closed_host: sshd.Server, tmp_path: Path, short_folder: Path) -> None:
    """The weights go where `models push` puts them, by a connect and by a push; the model answers a click."""
    pytest.importorskip("nnInteractive")
    files = {
        f"model/{MODEL.name}/{path.relative_to(MODEL).as_posix()}": path.read_bytes()
        for path in MODEL.rglob("*")
        if path.is_file()
    }
    fields = {"engine": "nninteractive", "requirements": requirements("nninteractive").key, "cuda": "cpu"}
    parcel = make_parcel(tmp_path / "nn.parcel", files, python=PYTHON, **fields)
    remote_dir, models = f"{short_folder}/host", short_folder / "models"
    lend_packages(remote_dir)
    with dls.connect(
        "dls-demo",
        server=dls.ServerOptions(engine="nninteractive", models_path=str(models), device="cpu"),
        login=dls.LoginOptions(ssh_config=closed_host.config, remote_dir=remote_dir),
        network=NetworkOptions(parcel=parcel.path),
        local_port=free_port(),
        accept_licence=True,
    ) as session:
        truth = ellipsoid((96, 128, 128), (48, 64, 64), (12, 15, 14))
        snap = ItkSnap(session.port)
        snap.start("nnInteractive")
        assert snap.upload(noisy(truth, 6, np.random.default_rng(0))).status == 200
        assert dice(snap.mask(snap.point(48, 64, 64)), truth) > 0.5
        session.close(stop_server=True)
    assert (models / "models" / MODEL.name / "plans.json").is_file()
    other = short_folder / "other"
    words = ["models", "push", "dls-demo", str(parcel.path), "-F", str(closed_host.config), "-m", str(other)]
    done = run_dls(*words)
    assert done.returncode == 0 and done.stdout.strip() == f"{other}/models/{MODEL.name}"
    for name, data in files.items():
        assert (other / "models" / name.removeprefix("model/")).read_bytes() == data


def test_a_push_of_a_parcel_without_weights(host: sshd.Server, tmp_path: Path) -> None:
    """A parcel without weights is no model, and that is said before the login."""
    parcel = make_parcel(tmp_path / "x.parcel", {})
    done = run_dls("models", "push", "no-such-host.invalid", str(parcel.path))
    assert done.returncode == 10 and "holds no weights" in done.stderr
