"""`python -m itksnap_dls`: its wheel, started as ITK-SNAP's entry for a local computer starts it, up to a mask."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from itksnap_dls.command_line import ASKING_NOTE, STAND_IN_NOTE, make_parser, plan

from dls import __version__
from dls.cli.serve import serve
from dls.remote import licence
from dls.remote.user import memory
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port, until
from tests.support.synthetic import dice, ellipsoid, noisy

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "packaging" / "itksnap-dls-alias"
MODEL = ROOT / "tests" / "tiny_model" / "model"
SHAPE = (24, 32, 40)
TRUTH = ellipsoid(SHAPE, (12, 16, 20), (6, 8, 9))
IMAGE = noisy(TRUTH, 5.0, np.random.default_rng(1))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(PROJECT))
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the wheel is installed into."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-deps", "--target", str(folder), str(wheel))
    return folder


@pytest.fixture
def without_nninteractive(site: Path, tmp_path: Path) -> str:
    """A search path on which the alias and dls are, and nnInteractive is not."""
    return f"{hide(tmp_path, 'nnInteractive')}{os.pathsep}{site}{os.pathsep}{ROOT}"


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments], check=True, timeout=200
    )


def hide(folder: Path, package: str) -> Path:
    """Return a folder that, at the head of the search path, makes a package look as if it was not installed."""
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    return folder


def run_alias(search_path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with its output in pipes."""
    return subprocess.run(
        [sys.executable, "-m", "itksnap_dls", *arguments],
        env={**os.environ, "PYTHONPATH": search_path}, cwd="/", stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


class LocalComputer:
    """ITK-SNAP's entry for a local computer: it starts the server, shows its output, and ends it with SIGTERM."""

    def __init__(self, search_path: str, *more: str) -> None:
        self.port = free_port()
        # The encoding is one that lacks a character of the banner, as those of Windows may: ITK-SNAP reads UTF-8.
        environment = {**os.environ, "PYTHONPATH": search_path, "FORCE_COLOR": "1", "PYTHONIOENCODING": "latin-1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "itksnap_dls", "--port", str(self.port), "--use-colors", *more],
            env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.window = ""

    def __enter__(self) -> LocalComputer:
        assert self.process.stdout is not None
        patience = threading.Timer(120, self.process.kill)
        patience.start()
        for line in self.process.stdout:
            # What the window can show of colors; any other escape sequence stands there as it is.
            self.window += re.sub(r"\x1b\[[0-9;]*m", "", line.decode("utf-8"))
            if re.search(r"^\*{70,}$", self.window, re.M):
                patience.cancel()
                return self
        patience.cancel()
        self.process.kill()
        raise AssertionError((self.window, self.process.communicate()[1]))

    def __exit__(self, *error: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        _, unseen = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        assert unseen == b"", "ITK-SNAP's window shows standard error only when standard output has something new"

    def segment(self) -> np.ndarray:
        """Connect as ITK-SNAP does, upload the image, click into the middle of the object, and return the mask."""
        snap = ItkSnap(self.port, "localhost")
        until(lambda: snap.get("/status").status == 200)
        version = snap.get("/status").json["version"]
        assert tuple(map(int, version.split("."))) >= (0, 1, 2)
        snap.start("nnInteractive")
        assert snap.upload(IMAGE).status == 200
        return snap.mask(snap.point(12, 16, 20))


def test_the_button_of_itksnap(without_nninteractive: str) -> None:
    """Started as ITK-SNAP starts it, it serves a model named nnInteractive up to a mask.

    The window shows the addresses and what stands in for what, all from standard output, in UTF-8 and colors only.
    """
    with LocalComputer(without_nninteractive, "-k") as local:
        assert dice(local.segment(), TRUTH) > 0.9
        assert f"Note: {STAND_IN_NOTE}\n" in local.window
        assert "region stands in for nnInteractive" in local.window
        assert "Certificates are not checked (--insecure)" in local.window
        assert re.search(rf"Server: localhost +Port: {local.port}  †\n", local.window)
        assert "\x1b" not in local.window


@pytest.mark.slow
def test_nninteractive_where_it_is_installed(site: Path, tmp_path: Path, own_user_folder: Path) -> None:
    """The engine is nnInteractive itself, once its licence is agreed to, with the model where --models-path says."""
    for package in ("torch", "nnInteractive.trainer"):
        pytest.importorskip(package, reason=f"{package} is not installed: scripts/test installs it")
    shutil.copytree(MODEL, tmp_path / "models" / "tiny")
    search_path = f"{site}{os.pathsep}{ROOT}"
    refused = run_alias(search_path, "--no-network", "--models-path", str(tmp_path))
    assert refused.returncode == 10 and "Agree once at a terminal" in refused.stdout
    assert memory.agree(licence.NAME)
    with LocalComputer(search_path, "--no-network", "--models-path", str(tmp_path), "--device", "cpu") as local:
        assert "Engine: nnInteractive on" in local.window and "stands in" not in local.window
        assert local.segment().any()


def test_the_setup_of_itksnap(without_nninteractive: str) -> None:
    """ITK-SNAP's setup ends with --setup-only, and takes status 0 for success."""
    done = run_alias(without_nninteractive, "--setup-only")
    assert done.returncode == 0 and "The region engine has everything it needs." in done.stdout


def test_a_port_in_use(without_nninteractive: str) -> None:
    """A port in use is one sentence in the window, and the exit code of `dls serve`."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_alias(without_nninteractive, "--port", str(port), "--mock-models")
    hint = "Choose another one with --port, or end the program that uses it."
    assert done.returncode == 20
    assert done.stdout == f"Error: Port {port} is in use.\nHint:  {hint}\n" and done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--colour"], "unrecognized arguments: --colour"),
        (["--port", "70000"], "'70000' is no port: a number from 0 to 65535"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        (["--ngrok"], "there is no --ngrok here; `dls connect` reaches a server on another computer"),
    ],
)
def test_wrong_options(site: Path, arguments: list[str], sentence: str) -> None:
    """A wrong option is named, and the exit code is that of a wrong command line; the window shows it."""
    done = run_alias(f"{site}{os.pathsep}{ROOT}", *arguments)
    assert done.returncode == 2 and done.stderr == ""
    assert done.stdout.splitlines()[-1].startswith("python -m itksnap_dls: error: ") and sentence in done.stdout


def test_the_help(site: Path) -> None:
    """Both forms of --help list the options of itksnap-dls, and work without dls."""
    texts = {run_alias(str(site), form).stdout for form in ("-h", "--help")}
    [text] = texts
    for option in ("--port", "--host", "--models-path", "--device", "--insecure", "--no-network", "--use-colors"):
        assert option in text
    assert "--setup-only" in text and "--mock-models" in text and "--ngrok" in text


@pytest.mark.parametrize("is_same_folder", [True, False])
def test_beside_the_original(site: Path, tmp_path: Path, is_same_folder: bool) -> None:
    """Where the files of itksnap-dls and ours share a folder it refuses in a sentence; elsewhere that one is in no
    way."""
    shutil.copytree(site, tmp_path / "site")
    other = tmp_path / ("site" if is_same_folder else "other")
    (other / "itksnap_dls-0.1.6.dist-info").mkdir(parents=True)
    (other / "itksnap_dls-0.1.6.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: itksnap-dls\nVersion: 0.1.6\n"
    )
    search_path = os.pathsep.join(map(str, (tmp_path / "site", ROOT, other)))
    done = run_alias(search_path, "--mock-models", "--setup-only")
    refusal = "Error: The distribution itksnap-dls is installed here too, and its files have the names of those of dls"
    assert done.returncode == (14 if is_same_folder else 0)
    assert done.stdout.startswith(refusal) == is_same_folder
    assert ("pip uninstall itksnap-dls dls-itksnap-alias" in done.stdout) == is_same_folder
    assert "Traceback" not in done.stdout and done.stderr == ""


def test_without_dls_and_without_its_server(site: Path, tmp_path: Path) -> None:
    """Where dls or the packages of its server are missing, it says which command installs them."""
    (tmp_path / "dls").mkdir()
    (tmp_path / "server").mkdir()
    for missing in ("dls", "numpy"):
        folder = tmp_path / ("dls" if missing == "dls" else "server")
        done = run_alias(f"{hide(folder, missing)}{os.pathsep}{site}{os.pathsep}{ROOT}", "--mock-models")
        assert done.returncode == 14 and "Traceback" not in done.stdout
        assert missing in done.stdout and 'pip install "dls[server]"' in done.stdout


BUTTON = ("--port", "5000", "--use-colors")
REGION, NETWORK = ("--engine", "region", "--stand-in"), ("--engine", "nninteractive")


@pytest.mark.parametrize(
    ("typed", "installed", "arguments", "notes"),
    [
        (BUTTON, True, ("--port", "5000", *NETWORK, "--use-colors"), ()),
        ((*BUTTON, "-k"), False, ("--port", "5000", *REGION, "--insecure", "--use-colors"), (STAND_IN_NOTE,)),
        ((), True, ("--port", "8911", *NETWORK), ()),
        (("--mock-models",), True, ("--port", "8911", *REGION), ()),
        (("--device", "cuda"), True, ("--port", "8911", *NETWORK, "--device", "cuda"), ()),
        (
            ("--device", "cuda", "--mock-models"),
            True,
            ("--port", "8911", *REGION),
            ("The region engine computes on the CPU, so --device cuda changes nothing.",),
        ),
        (("--device", "cpu", "--mock-models"), True, ("--port", "8911", *REGION), ()),
        (
            ("-p", "1", "-H", "::", "-m=-odd", "--no-network", "--setup-only"),
            True,
            ("--port", "1", *NETWORK, "--host=::", "--models-path=-odd", "--no-network", "--setup-only"),
            (),
        ),
    ],
)
def test_the_same_meaning_for_dls_serve(
    typed: tuple[str, ...], installed: bool, arguments: tuple[str, ...], notes: tuple[str, ...]
) -> None:
    """The options of itksnap-dls become options that `dls serve` has; what has no meaning there gets a sentence."""
    chosen = plan(make_parser().parse_args(typed), has_nninteractive=installed, has_secret=False)
    assert chosen.arguments == ("serve", *arguments) and chosen.notes == notes
    assert serve.make_context("serve", list(arguments)).params["port"] == int(arguments[1])


def test_a_secret_that_itksnap_can_not_send() -> None:
    """ITK-SNAP's entry for a local computer has no field for a secret: one from the environment gets a sentence."""
    for typed, notes in (((), (ASKING_NOTE,)), (("-H", "0.0.0.0"), ())):
        options = make_parser().parse_args(typed)
        assert plan(options, has_nninteractive=True, has_secret=True).notes == notes


def test_the_wheel(wheel: Path) -> None:
    """It holds the module and nothing else, and needs the very release of dls whose options it writes."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        [metadata] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    assert names == {f"itksnap_dls/{name}.py" for name in ("__init__", "__main__", "command_line")}
    assert f"\nVersion: {__version__}\n" in metadata
    assert f"\nRequires-Dist: dls[server]=={__version__}\n" in metadata
    assert f"\nRequires-Dist: dls[nninteractive]=={__version__}; extra == 'nninteractive'\n" in metadata
