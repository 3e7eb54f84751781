"""The commands as a user meets them: what they print, and how they end."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import dls
from dls import errors
from dls.cli import main
from dls.demo import sshd

README = (Path(__file__).parents[1] / "README.md").read_text()


def dls_(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [sys.executable, "-m", "dls", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def kinds(kind: type[errors.DlsError] = errors.DlsError) -> list[type[errors.DlsError]]:
    return [kind, *(deeper for below in kind.__subclasses__() for deeper in kinds(below))]


def test_help_and_version() -> None:
    """Every command is listed, with a sentence."""
    said = dls_("--help")
    assert said.returncode == 0 and said.stderr == ""
    for command in ("connect", "serve", "stop", "logs", "demo"):
        assert re.search(rf"^  {command} +[A-Z]", said.stdout, re.M)
        assert dls_(command, "-h").returncode == 0
    assert dls_("--version").stdout == f"dls, version {dls.__version__}\n"


def test_every_exit_code_is_documented() -> None:
    """In the README, with the error it belongs to; no two errors of the client share one."""
    codes = {kind.exit_code for kind in kinds() if not issubclass(kind, errors.RequestError)}
    for code in codes | {main.INTERRUPTED, 2}:
        assert re.search(rf"^\| {code} \|", README, re.M), code


def test_every_option_is_documented_by_its_help() -> None:
    """No option without a sentence, and every command named in the README."""
    for name, command in main.cli.commands.items():
        assert f"dls {name}" in README
        for option in command.params:
            if isinstance(option, main.click.Option):
                assert option.hidden or option.help, (name, option.name)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["connect"], 2, "Missing argument"),
        (["connect", "host:99999"], 10, "Error: 'host:99999' has no valid port: '99999'.\nHint:  A port is a number"),
        (["connect", "-F", "/no/such/file", "host"], 10, "/no/such/file can't be read"),
        (["connect", "--engine", "magic", "host"], 10, "no engine named 'magic'"),
        (["connect", "--device", "toaster", "host"], 2, "toaster"),
        (["connect", "no-such-host.invalid"], 11, "No host is known as 'no-such-host.invalid'"),
        (["connect", "--password-file", "/no/such/file", "host"], 10, "--password-file"),
        (["serve", "-p", "0", "--engine", "magic"], 21, "no engine named 'magic'"),
        (["serve", "--host", "no-such-host.invalid"], 20, "no address of this computer"),
        (["serve", "--secret", "a b"], 2, "a secret is made of"),
        (["serve", "-p", "0", "--device", "cuda"], 21, "CPU only"),
        (["serve", "--uds", "/no/such/folder/s"], 20, "can't be made"),
    ],
)
def test_failures_end_in_a_sentence_and_an_exit_code(arguments: list[str], code: int, said: str) -> None:
    """One sentence, one hint, no traceback, nothing on standard output."""
    done = dls_(*arguments)
    assert done.returncode == code, done
    assert said in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


def test_a_new_host_without_a_terminal(host: sshd.Server, tmp_path: Path) -> None:
    """Fails, and says which option would have answered."""
    config = tmp_path / "config"
    config.write_text(re.sub(r"UserKnownHostsFile .*", f"UserKnownHostsFile {tmp_path}/known", host.config.read_text()))
    done = dls_("stop", "-F", str(config), "dls-demo")
    assert done.returncode == 12 and "no terminal" in done.stderr and "--accept-new-host-key" in done.stderr
    done = dls_("stop", "-F", str(config), "--accept-new-host-key", "--remote-dir", str(tmp_path), "dls-demo")
    assert done.returncode == 0 and "its host key is now known" in done.stderr


def test_logs_of_a_host_that_has_none(host: sshd.Server, tmp_path: Path) -> None:
    """Said so."""
    done = dls_("logs", "-F", str(host.config), "--remote-dir", str(tmp_path / "none"), "dls-demo")
    assert done.returncode == 16 and "no server log" in done.stderr


def test_a_mistake_of_ours_is_told_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And how to get one."""

    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("x")

    monkeypatch.setitem(main.cli.commands, "stop", main.click.Command("stop", callback=broken))
    assert main.run(["stop"]) == 1
    assert "DLS_DEBUG=1" in capsys.readouterr().err


class Serving:
    """`dls serve` as a process."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dls", "serve", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.banner = ""

    def __enter__(self) -> Serving:
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
        self.process.communicate(timeout=20)
        assert self.process.returncode in (0, -15), self.process.returncode


def status(port: int, server: str = "127.0.0.1") -> int:
    from tests.support.itksnap import ItkSnap

    for _ in range(100):
        try:
            return ItkSnap(port, server).get("/status").status
        except Exception:
            time.sleep(0.05)
    raise AssertionError("no answer")


def test_the_banner_on_loopback() -> None:
    """As people know it: the GPU, and the pairs that work on this computer only."""
    with Serving("-p", "0") as serving:
        assert re.search(r"GPU", serving.banner)
        assert re.search(r"Server: localhost +Port: \d+  †", serving.banner)
        assert "†: only works if ITK-SNAP is running on the same computer" in serving.banner
        assert status(serving.port) == 200


def test_the_banner_on_all_addresses_carries_a_secret() -> None:
    """Others can reach it, so it asks for a secret; the Server column is what ITK-SNAP takes as it is."""
    with Serving("-H", "0.0.0.0", "-p", "0") as serving:
        [server] = {row for row in re.findall(r"Server: (\S+)", serving.banner) if row.endswith("@127.0.0.1")}
        assert re.fullmatch(r"snap:\w{24}@127\.0\.0\.1", server)
        assert re.search(rf"Server: snap:\w+@{re.escape(socket.gethostname())} ", serving.banner)
        assert status(serving.port) == 401
        assert status(serving.port, server) == 200


def test_a_secret_of_ones_own_and_none(tmp_path: Path) -> None:
    """From a file, from the environment, on the command line with a warning; `--open` does without."""
    (tmp_path / "secret").write_text("from-a-file\n")
    with Serving("-p", "0", "--secret", f"@{tmp_path}/secret") as serving:
        assert "snap:from-a-file@localhost" in serving.banner and status(serving.port) == 401
    with Serving("-p", "0", "--secret", "visible") as serving:
        assert "can see a secret on the command line" in serving.banner
    with Serving("-H", "0.0.0.0", "-p", "0", "--open") as serving:
        assert "Everybody who can reach this port" in serving.banner and "snap:" not in serving.banner
        assert status(serving.port) == 200


@pytest.mark.parametrize("package", ["numpy", "uvicorn", "httptools"])
def test_packages_that_are_not_installed(tmp_path: Path, package: str) -> None:
    """Said before anything is begun, and how to install them."""
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    done = dls_("serve", "--port", "0", env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 14 and "Traceback" not in done.stderr
    assert f"not installed here ({package})" in done.stderr and "dls[server]" in done.stderr


def test_a_port_in_use() -> None:
    """One sentence and the option to use."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = dls_("serve", "-p", str(port))
    hint = "Choose another one with --port, or end the program that uses it."
    assert done.returncode == 20
    assert done.stderr == f"Error: Port {port} is in use.\nHint:  {hint}\n"


def test_a_unix_socket_for_its_user_only(short_folder: Path) -> None:
    """No port then; a second server is refused, one that was killed is in nobody's way."""
    path = short_folder / "s"
    with Serving("--uds", str(path)) as serving:
        assert str(path) in serving.banner and "Port:" not in serving.banner
        for _ in range(100):
            if path.exists():
                break
            time.sleep(0.05)
        assert path.stat().st_mode & 0o077 == 0
        assert dls_("serve", "--uds", str(path)).returncode == 20
        serving.process.kill()
        serving.process.wait()
        with Serving("--uds", str(path)):
            pass
        serving.process.returncode = 0
    assert not path.exists()


def test_the_stand_in_and_other_options() -> None:
    """The banner says so."""
    with Serving(
        "-p", "0", "--stand-in", "--use-colors", "-k", "--no-network", "--allow-host", "gpu.example"
    ) as serving:
        assert "stands in for nnInteractive" in serving.banner and "not checked" in serving.banner
    assert dls_("serve", "--setup-only").returncode == 0


def on_a_terminal(arguments: list[str], answers: dict[str, str]) -> tuple[int, str]:
    """Run a command on a pseudo-terminal, answer its questions, and return its exit code and what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "dls", *arguments], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown, left = "", dict(answers)
    with contextlib.suppress(OSError):  # the terminal closes when the command ends
        while data := os.read(ours, 65536):
            shown += data.decode()
            for question in [question for question in left if question in shown]:
                os.write(ours, left.pop(question).encode() + b"\n")
    code = process.wait(30)
    os.close(ours)
    return code, shown


def test_questions_on_a_terminal(host: sshd.Server, tmp_path: Path) -> None:
    """A new host key as OpenSSH shows it, with yes and no; a passphrase that is not echoed."""
    known, key = tmp_path / "known", tmp_path / "key"
    text = re.sub(r"UserKnownHostsFile .*", f"UserKnownHostsFile {known}", host.config.read_text())
    (tmp_path / "config").write_text(text)
    command = ["stop", "-F", str(tmp_path / "config"), "--remote-dir", str(tmp_path / "none"), "dls-demo"]
    code, shown = on_a_terminal(command, {"(yes/no)?": "no"})
    assert code == 12 and "key fingerprint is SHA256:" in shown and not known.exists()
    code, shown = on_a_terminal(command, {"(yes/no)?": "yes"})
    assert code == 0 and known.exists() and "No server was running" in shown
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", str(key)], check=True)
    authorized = host.config.parent / "authorized_keys"
    before = authorized.read_text()
    authorized.write_text(before + key.with_suffix(".pub").read_text())
    (tmp_path / "config").write_text(re.sub(r"IdentityFile .*", f"IdentityFile {key}", text))
    try:
        code, shown = on_a_terminal(command, {"Passphrase of the key": "open sesame"})
    finally:
        authorized.write_text(before)
    assert code == 0 and "open sesame" not in shown
