"""`dls serve`: its banner, its secret, its port or socket, and its end."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import run_dls
from tests.support.ipv6 import has_ipv6
from tests.support.itksnap import ItkSnap
from tests.support.page_client import PageClient
from tests.support.processes import until


class ServeProcess:
    """`dls serve` in a process, from its banner on."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dls", "serve", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.banner = ""

    def __enter__(self) -> ServeProcess:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.banner += line
            if re.fullmatch(r"\*{70,}\n", line):
                return self
        raise AssertionError(self.banner)

    @property
    def port(self) -> int:
        found = re.search(r"Port: (\d+)", self.banner)
        assert found, self.banner
        return int(found[1])

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=60)
        assert self.process.returncode in (0, -15), self.process.returncode


def get_status(port: int, server: str = "127.0.0.1") -> int:
    """Return the HTTP status of `/status`, once the server answers."""
    statuses: list[int] = []

    def has_answered() -> bool:
        try:
            statuses.append(ItkSnap(port, server).get("/status").status)
        except Exception:
            return False
        return True

    until(has_answered)
    return statuses[-1]


def test_the_banner_on_loopback() -> None:
    """The banner shows the GPU, and marks pairs of server and port that work on this computer only."""
    with ServeProcess("-p", "0") as serving:
        assert re.search(r"GPU", serving.banner)
        assert re.search(r"Server: localhost +Port: \d+  †", serving.banner)
        assert "†: only works if ITK-SNAP is running on the same computer" in serving.banner
        assert "Other users of this computer can use this port; --secret @FILE" in serving.banner
        assert get_status(serving.port) == 200
        assert not has_ipv6() or get_status(serving.port, "[::1]") == 200


def test_the_banner_on_all_addresses_carries_a_secret() -> None:
    """A server that others can reach asks for a secret; the Server column is what ITK-SNAP takes as it is."""
    with ServeProcess("-H", "0.0.0.0", "-p", "0") as serving:
        [server] = {row for row in re.findall(r"Server: (\S+)", serving.banner) if row.endswith("@127.0.0.1")}
        assert re.fullmatch(r"snap:\w{24}@127\.0\.0\.1", server)
        assert re.search(rf"Server: snap:\w+@{re.escape(socket.gethostname())} ", serving.banner)
        assert get_status(serving.port) == 401
        assert get_status(serving.port, server) == 200


def test_a_chosen_secret_and_none(tmp_path: Path) -> None:
    """A secret comes from a file, or from the command line with a warning; `--open` needs none."""
    (tmp_path / "secret").write_text("from-a-file\n")
    with ServeProcess("-p", "0", "--secret", f"@{tmp_path}/secret") as serving:
        assert "snap:from-a-file@localhost" in serving.banner and get_status(serving.port) == 401
        assert "Other users" not in serving.banner
    with ServeProcess("-p", "0", "--secret", "visible") as serving:
        assert "can see a secret on the command line" in serving.banner
    with ServeProcess("-H", "0.0.0.0", "-p", "0", "--open") as serving:
        assert "Everybody who can reach this port" in serving.banner and "snap:" not in serving.banner
        assert get_status(serving.port) == 200


def test_the_banner_names_the_other_viewers() -> None:
    """It says what to enter in napari, 3D Slicer and MITK, where the server speaks their protocol."""
    from tests.support.nninteractive import MODEL  # which skips this test without torch

    arguments = ("--engine", "nninteractive", "--model", str(MODEL), "--no-network", "-p", "0")
    with ServeProcess(*arguments, "--secret", "abc") as server:
        assert f"MITK use http://HOST:{server.port} of this computer, and the secret as the API key.\n" in server.banner
    with ServeProcess(*arguments, "--no-native-api") as server:
        assert "MITK" not in server.banner


def test_a_secret_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """DLS_SECRET is the secret where the command line names none."""
    monkeypatch.setenv("DLS_SECRET", "from-the-environment")
    with ServeProcess("-p", "0") as serving:
        assert "snap:from-the-environment@localhost" in serving.banner and get_status(serving.port) == 401


def test_an_unusable_secret_in_the_environment() -> None:
    """What `--secret` refuses, DLS_SECRET can't be either: ITK-SNAP's Server field could not hold it."""
    for secret in ("two words", "a@b", "ä"):
        done = run_dls("serve", "--port", "0", env={**os.environ, "DLS_SECRET": secret, "PYTHONUTF8": "1"})
        assert done.returncode == 2 and "DLS_SECRET" in done.stderr and "a secret is made of" in done.stderr
        assert secret not in done.stderr


@pytest.mark.parametrize("package", ["numpy", "uvicorn", "httptools"])
def test_packages_that_are_not_installed(tmp_path: Path, package: str) -> None:
    """A missing package is reported before anything is started, with the command that installs it."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    done = run_dls("serve", "--port", "0", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 14 and "Traceback" not in done.stderr
    assert f"not installed here ({package})" in done.stderr and "dls[server]" in done.stderr


@pytest.mark.parametrize("package", ["torch", "nnInteractive"])
def test_packages_of_the_engine_that_are_not_installed(tmp_path: Path, package: str) -> None:
    """They are missed before the banner, with the exit code of the server's own packages, and told once."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    serve = ("serve", "--port", "0", "--engine", "nninteractive", "--no-network", "--accept-licence")
    done = run_dls(*serve, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 14 and done.stderr.count("not installed here") == 1 and "Port" not in done.stderr
    if package == "torch":
        assert f"not installed here ({package})" in done.stderr
    assert 'pip install "dls[nninteractive]"' in done.stderr


def test_a_port_in_use() -> None:
    """A port in use is reported in one sentence, with the option that chooses another one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_dls("serve", "-p", str(port))
    hint = "Choose another one with --port, or end the program that uses it."
    assert done.returncode == 20
    assert done.stderr == f"Error: Port {port} is in use.\nHint:  {hint}\n"


def test_a_unix_socket_for_its_user_only(short_folder: Path) -> None:
    """With `--uds` no port is open; a second server is refused, and a killed one leaves nothing that stops the next."""
    path = short_folder / "s"
    with ServeProcess("--uds", str(path)) as serving:
        assert str(path) in serving.banner and "Port:" not in serving.banner
        until(path.exists)
        assert path.stat().st_mode & 0o077 == 0
        assert run_dls("serve", "--uds", str(path)).returncode == 20
        serving.process.kill()
        serving.process.wait()
        with ServeProcess("--uds", str(path)):
            pass
        serving.process.returncode = 0
    assert not path.exists()


def test_the_stand_in_and_other_options() -> None:
    """The banner names options that matter: the stand-in, and certificates that are not checked."""
    with ServeProcess(
        "-p", "0", "--stand-in", "--use-colors", "-k", "--no-network", "--allow-host", "gpu.example"
    ) as serving:
        assert "stands in for nnInteractive" in serving.banner and "not checked" in serving.banner
    assert run_dls("serve", "--setup-only").returncode == 0


def test_the_page() -> None:
    """The banner has the page's address with its key; an open page does not keep the server from ending; `--no-page`
    and `--open` have none, and the banner does not speak of it."""
    with ServeProcess("--engine", "region", "--port", "0") as server:
        found = re.search(r"http://localhost:\d+/#key=\S+", server.banner)
        assert found, server.banner
        client = PageClient.at(found[0])
        with client.events() as states:
            state = next(states)
            assert state["link"]["state"] == "local" and state["private"] and client.get().status == 200
            server.process.terminate()
            server.process.wait(20)  # uvicorn alone would wait for the page, for 30 s
    for option in ("--no-page", "--open"):
        with ServeProcess("--engine", "region", "--port", "0", option) as server:
            assert "/#key=" not in server.banner and PageClient(server.port).get().status == 404
