"""Commands for a host: what they print, and the questions they ask on a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from dls.demo import sshd
from tests.support.command_line import run_dls


def test_a_new_host_without_a_terminal(host: sshd.Server, tmp_path: Path) -> None:
    """Without a terminal an unknown host key is refused, and the message names the option that accepts it."""
    config = tmp_path / "config"
    config.write_text(re.sub(r"UserKnownHostsFile .*", f"UserKnownHostsFile {tmp_path}/known", host.config.read_text()))
    done = run_dls("stop", "-F", str(config), "dls-demo")
    assert done.returncode == 12 and "no terminal" in done.stderr and "--accept-new-host-key" in done.stderr
    done = run_dls("stop", "-F", str(config), "--accept-new-host-key", "--remote-dir", str(tmp_path), "dls-demo")
    assert done.returncode == 0 and "its host key is now known" in done.stderr
    config.write_text(re.sub(r"UserKnownHostsFile .*", "UserKnownHostsFile /dev/null", host.config.read_text()))
    done = run_dls("stop", "-F", str(config), "--accept-new-host-key", "--remote-dir", str(tmp_path), "dls-demo")
    assert done.returncode == 0 and "its host key is not kept, since it would go to /dev/null" in done.stderr


def test_logs_of_a_host_that_has_none(host: sshd.Server, tmp_path: Path) -> None:
    """`dls logs` fails where there is no log."""
    done = run_dls("logs", "-F", str(host.config), "--remote-dir", str(tmp_path / "none"), "dls-demo")
    assert done.returncode == 16 and "no server log" in done.stderr


def run_on_terminal(arguments: list[str], answers: dict[str, str]) -> tuple[int, str]:
    """Run a command on a pseudo-terminal, answer its questions, and return its exit code and what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "dls", *arguments], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown, left = "", dict(answers)
    with contextlib.suppress(OSError):  # the terminal closes when the command ends
        while data := os.read(ours, 65536):
            shown += data.decode(errors="replace")
            for question in [question for question in left if question in shown]:
                os.write(ours, left.pop(question).encode() + b"\n")
    code = process.wait(30)
    os.close(ours)
    return code, shown


def test_a_new_host_key_is_asked_about(host: sshd.Server, tmp_path: Path) -> None:
    """A new host key is shown as OpenSSH shows it; `no` refuses it, `yes` or its fingerprint adds it to known_hosts.

    Another word, or another fingerprint, is told to be none before the question comes again.
    """
    known = tmp_path / "known"
    text = re.sub(r"UserKnownHostsFile .*", f"UserKnownHostsFile {known}", host.config.read_text())
    (tmp_path / "config").write_text(text)
    command = ["stop", "-F", str(tmp_path / "config"), "--remote-dir", str(tmp_path / "none"), "dls-demo"]
    first, again = "(yes/no/[fingerprint])?", "Please type 'yes', 'no' or the fingerprint:"
    code, shown = run_on_terminal(command, {first: "no"})
    assert code == 12 and "key fingerprint is SHA256:" in shown and not known.exists()
    assert "not known by any other names" in shown and again not in shown
    code, shown = run_on_terminal(command, {first: "y", again: "no"})
    assert code == 12 and "not accepted" in shown and not known.exists()
    code, shown = run_on_terminal(command, {first: "SHA256:another", again: "yes"})
    assert code == 0 and known.exists() and "No server was running" in shown
    assert "That is not the fingerprint of this key." in shown
    known.unlink()
    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(host.config.parent / "host_key")], check=True, capture_output=True, text=True
    )
    code, shown = run_on_terminal(command, {first: listed.stdout.split()[1]})
    assert code == 0 and known.exists() and again not in shown and "its host key is now known" in shown


def test_a_passphrase_is_not_echoed(host: sshd.Server, tmp_path: Path) -> None:
    """The passphrase of a key is asked for, and is not shown."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", str(key)], check=True)
    (tmp_path / "config").write_text(re.sub(r"IdentityFile .*", f"IdentityFile {key}", host.config.read_text()))
    command = ["stop", "-F", str(tmp_path / "config"), "--remote-dir", str(tmp_path / "none"), "dls-demo"]
    authorized = host.config.parent / "authorized_keys"
    before = authorized.read_text()
    authorized.write_text(before + key.with_suffix(".pub").read_text())
    try:
        code, shown = run_on_terminal(command, {"Passphrase of the key": "open sesame"})
    finally:
        authorized.write_text(before)
    assert code == 0 and "Passphrase of the key" in shown and "open sesame" not in shown
