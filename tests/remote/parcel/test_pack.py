"""`dls pack`: what it resolves, builds and fetches, from indexes and mirrors of the tests' own."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import re
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from dls.cli.main import run
from dls.errors import DlsError
from dls.remote.parcel import build
from dls.remote.parcel.download import Downloader
from dls.remote.parcel.resolve import Target, Wanted, resolve
from dls.remote.parcel.standalone import find_python
from dls.remote.parcel.uv import FetchError
from tests.support import connect_proxy, package_index, tls_server
from tests.support.authority import Authority
from tests.support.package_index import tiny_wheel

LINUX = Target("region", "linux-x86_64", "3.11")
OWN_SETTINGS = re.compile(r"(UV|PIP)_|(HTTPS?|ALL|NO)_PROXY$|SSL_CERT_", re.I)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep this machine's own settings of uv, proxies and certificates out."""
    for name in [name for name in os.environ if OWN_SETTINGS.match(name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))


def sdist(folder: Path, name: str, tag: str) -> Path:
    """Make a source distribution with a build backend of its own, which makes a wheel with that tag."""
    backend = f'''
import zipfile
INFO = "{name}-1.0.dist-info"
def build_wheel(folder, settings=None, metadata=None):
    file = "{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(folder + "/" + file, "w") as archive:
        archive.writestr("{name}.py", "")
        archive.writestr(INFO + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        archive.writestr(INFO + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: {tag}\\n")
        archive.writestr(INFO + "/RECORD", "")
    return file
'''
    files = {
        "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "1.0"\n',
        "backend.py": backend,
    }
    path = folder / f"{name}-1.0.tar.gz"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{file}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


@pytest.mark.slow
def test_packages_are_judged_for_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Markers are those of the target's platform and Python, and sources are taken where there is no wheel."""
    wheels = tmp_path / "wheels"
    markers = [
        "on-arm; platform_machine == 'aarch64'",
        "on-old; python_version < '3.12'",
        "on-windows; os_name == 'nt'",
    ]
    tiny_wheel(wheels, "top", requires=[*markers, "source; python_version < '3.12'"])
    for name in ("on-arm", "on-old", "on-windows"):
        tiny_wheel(wheels, name)
    sdist(wheels, "source", "py3-none-any")
    with package_index.running(tmp_path, wheels) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        for target, names in (
            (LINUX, ["on_old", "source", "top"]),
            (Target("region", "linux-aarch64", "3.13"), ["on_arm", "top"]),
        ):
            found = resolve(Wanted("top"), target, ca_bundle=index.ca)
            assert [file.name.partition("-")[0] for file in found] == names
            assert all(file.size and len(file.sha256) == 64 for file in found)
            assert [file.is_source for file in found] == [file.name.startswith("source") for file in found]
        with pytest.raises(FetchError, match="uv could not do its part") as caught:
            resolve(Wanted("missing"), LINUX, ca_bundle=index.ca)
        assert "missing" in caught.value.detail


def test_constraints_that_leave_no_solution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The release's versions are kept where they can be, and given up where another torch can't have them."""
    wheels = tmp_path / "wheels"
    tiny_wheel(wheels, "free", "1.0")
    tiny_wheel(wheels, "free", "2.0")
    with package_index.running(tmp_path, wheels) as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        for constraint, version in (("free==1.0", "1.0"), ("free==3.0", "2.0")):
            found = resolve(Wanted("free", constraint), LINUX, ca_bundle=index.ca)
            assert [file.name for file in found] == [f"free-{version}-py3-none-any.whl"]


@pytest.mark.slow
def test_source_distributions(tmp_path: Path) -> None:
    """One of pure Python becomes a wheel for every platform; another one is refused by its name, as is a broken one."""
    built = build.build_wheel(sdist(tmp_path / "in", "pure", "py3-none-any"), tmp_path, ca_bundle=None)
    assert built == tmp_path / "pure-1.0-py3-none-any.whl" and build.installed_size(built) > 100
    with pytest.raises(FetchError, match=r"no wheel of native-1.0.tar.gz .* is not pure Python"):
        build.build_wheel(sdist(tmp_path / "in", "native", "cp311-cp311-linux_x86_64"), tmp_path, ca_bundle=None)
    (tmp_path / "broken-1.0.tar.gz").write_bytes(b"x")
    with pytest.raises(FetchError, match=r"no wheel of broken-1.0.tar.gz, and none can be built here"):
        build.build_wheel(tmp_path / "broken-1.0.tar.gz", tmp_path, ca_bundle=None)


def test_the_program_of_uv_s_wheel(tmp_path: Path) -> None:
    """The program is taken out of the wheel, the same bytes each time."""
    with zipfile.ZipFile(tmp_path / "uv.whl", "w") as archive:
        archive.writestr("uv-1.data/scripts/uv", b"program")
        archive.writestr("uv-1.data/scripts/uvx", b"other")
    for name in ("a", "b"):
        build.extract_uv(tmp_path / "uv.whl", tmp_path / name)
    assert gzip.decompress((tmp_path / "a").read_bytes()) == b"program"
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_python_from_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest build that uv knows comes from uv's mirror, with the digest that is listed beside it."""

    class Mirror(http.server.BaseHTTPRequestHandler):
        def log_message(self, *anything: object) -> None:
            pass

        def do_GET(self) -> None:
            listed = "SHA256SUMS" in self.path and sums
            self.send_response(200 if listed else 404)
            body = sums.encode() if listed else b""
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("UV_PYTHON_INSTALL_MIRROR", f"http://127.0.0.1:{server.server_address[1]}/mirror")
    sums = ""
    try:
        found = find_python(Target("region", "linux-aarch64", "3.12"), Downloader(), ca_bundle=None)
        assert re.fullmatch(r"cpython-3\.12\.\d+-linux-aarch64-gnu\.tar\.gz", found.name) and found.sha256 == ""
        file = found.location.rpartition("/")[2].replace("%2B", "+")
        sums = f"{'1' * 64}  other.tar.gz\n{'2' * 64}  {file}\n"
        again = find_python(Target("region", "linux-aarch64", "3.12"), Downloader(), ca_bundle=None)
        assert again.sha256 == "2" * 64 and again.location == found.location
        assert found.location.startswith(f"http://127.0.0.1:{server.server_address[1]}/mirror/")
    finally:
        server.shutdown()
        server.server_close()


TORCH_HOST = "download.pytorch.org"
TORCH: dict[str, bytes] = {}
"""The files of torch's own index, by their names."""


class TorchIndex(http.server.BaseHTTPRequestHandler):
    """Stands for torch's own index: one wheel of torch for each build."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *anything: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body, kind, status = b"", "text/html", 200
        if found := re.fullmatch(r"/whl/(\w+)/torch/", self.path):
            name = next((name for name in TORCH if f"+{found[1]}-" in name), "")
            digest = hashlib.sha256(TORCH.get(name, b"")).hexdigest()
            href = f"/whl/{found[1]}/{name.replace('+', '%2B')}#sha256={digest}"
            body = f'<!DOCTYPE html><html><body><a href="{href}">{name}</a></body></html>'.encode() if name else b""
        else:
            body = TORCH.get(self.path.rpartition("/")[2].replace("%2B", "+"), b"")
            kind = "application/octet-stream"
        status = 200 if body else 404
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def test_another_build_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch for a version of CUDA, and for none, comes from torch's own index, through the proxy of this computer."""
    for backend in ("cpu", "cu126"):
        made = tiny_wheel(tmp_path, "torch", f"2.10.0+{backend}")
        TORCH[made.name] = made.read_bytes()
    authority = Authority(tmp_path)
    with (
        tls_server.serving(TorchIndex, ("127.0.0.1", 0), authority.sign([TORCH_HOST])) as port,
        connect_proxy.running({f"{TORCH_HOST}:443": ("127.0.0.1", port)}) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        for backend in ("cpu", "cu126"):
            wanted = Wanted("torch>=2.6", backend=backend)
            (file,) = resolve(wanted, LINUX, ca_bundle=authority.certificate)
            assert file.name == f"torch-2.10.0+{backend}-py3-none-any.whl"
            downloader = Downloader(ca_bundle=authority.certificate)
            downloader.fetch(file.location, tmp_path / file.name, file.sha256)
            assert (tmp_path / file.name).read_bytes() == TORCH[file.name]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--engine", "none"], 10, "There is no parcel for the engine 'none'."),
        (["--platform", "win32"], 10, "There is no parcel for 'win32'."),
        (["--python", "2.7"], 10, "There is no parcel for Python '2.7'."),
        (["--cuda", "12.6"], 10, "The engine region needs neither CUDA nor torch."),
        (["--cuda", "12.6", "--cpu"], 10, "--cpu and --cuda exclude each other."),
        (["-o", "/proc/none/x"], 10, "can't be written"),
        (["-o", "/proc"], 10, "/proc is a folder."),
    ],
)
def test_refusals_of_the_command(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be packed ends in a sentence and an exit code, before anything is fetched."""
    defaults = {"--engine": "region", "--python": "3.11", "-o": str(tmp_path / "x.parcel")}
    words = [word for name, value in defaults.items() if name not in arguments for word in (name, value)]
    assert run(["pack", *words, *arguments]) == code
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("x.parcel*"))


def test_a_computer_without_uv(tmp_path: Path) -> None:
    """Where uv is neither on the PATH nor installed as a package, a sentence says how to get it."""
    program = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "uv": raise ModuleNotFoundError(name)
sys.path_importer_cache.clear()
import importlib.util as util
found = util.find_spec
util.find_spec = lambda name, package=None: None if name == "uv" else found(name, package)
from dls.cli.main import run
sys.exit(run(sys.argv[1:]))
"""
    words = ["pack", "--engine", "region", "--python", "3.11", "-o", str(tmp_path / "x.parcel")]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, env={"PATH": "/nowhere", "HOME": "/"}
    )
    assert done.returncode == 14 and "needs uv, which this computer does not have" in done.stderr
    assert 'pip install "dls[pack]"' in done.stderr


def test_errors_of_a_parcel_are_ours() -> None:
    """What can't be fetched is one of our errors, with an exit code that the README names."""
    assert issubclass(FetchError, DlsError) and FetchError.exit_code == 11
