"""Commands with a password file, as users run them: what they print, and what other users can read of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.accounts import PASSWORD, account, needs_root
from tests.support.command_line import run_dls
from tests.support.openssh import Server, serving, write

pytestmark = needs_root
WRONG = "hunter22-not-it"


@pytest.fixture(scope="module")
def passworded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes the password of an account."""
    folder = tmp_path_factory.mktemp("passworded")
    options = ("PasswordAuthentication yes", "AuthenticationMethods password")
    with account("dlsways3") as user, serving(folder / "server", *options, user=user) as server:
        yield server


@pytest.fixture
def programs(lab: Path) -> dict[str, str]:
    """An environment in which each start of OpenSSH's programs is written down, with all that `ps` can show of it."""
    for name in ("ssh", "ssh-keygen", "ssh-add"):
        program = lab / "bin" / name
        program.parent.mkdir(exist_ok=True)
        record = f'{{ printf "%s\\n" "$0" "$@"; env; cat /proc/$PPID/cmdline; }} >>{lab}/started'
        program.write_text(f'#!/bin/sh\n{record}\nexec {shutil.which(name)} "$@"\n')
        program.chmod(0o755)
    (lab / "started").touch()
    return {**os.environ, "PATH": f"{lab}/bin:{os.environ['PATH']}"}


@pytest.mark.parametrize("carrier", ["paramiko", "openssh"])
@pytest.mark.parametrize("verbosity", [pytest.param("", marks=pytest.mark.slow), "-vv"])
def test_a_password_file(passworded: Server, lab: Path, programs: dict[str, str], carrier: str, verbosity: str) -> None:
    """The password of the file gets in; nothing that is printed or started shows it."""
    (lab / "password").write_text(f"{PASSWORD}\n")
    before = passworded.logins
    words = ["-F", str(write(lab, passworded.section())), "--password-file", str(lab / "password")]
    words += ["--carrier", carrier, "--json", *filter(None, [verbosity])]
    done = run_dls("sessions", *words, "lab", env=programs)
    assert done.returncode == 0, done.stderr
    assert passworded.logins == before + 1
    started = (lab / "started").read_text(errors="replace")
    assert started, "no program was seen"
    assert PASSWORD not in done.stdout + done.stderr + started


@pytest.mark.parametrize("carrier", ["paramiko", "openssh"])
def test_a_wrong_password_in_the_file(passworded: Server, lab: Path, programs: dict[str, str], carrier: str) -> None:
    """A wrong password is refused with the login's exit code, said to be wrong, tried once, and shown nowhere."""
    (lab / "password").write_text(f"{WRONG}\n")
    before = passworded.log.count("Failed password")
    words = ["-F", str(write(lab, passworded.section())), "--password-file", str(lab / "password")]
    done = run_dls("sessions", *words, "--carrier", carrier, "--json", "lab", env=programs)
    assert done.returncode == 13, done.stderr
    assert passworded.log.count("Failed password") == before + 1
    assert WRONG not in done.stdout + done.stderr + (lab / "started").read_text(errors="replace")
    assert "--password-file" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("carrier", ["paramiko", "openssh"])
def test_no_password_and_no_terminal(passworded: Server, lab: Path, carrier: str) -> None:
    """Without a terminal nothing is asked, and the option that would have answered is named."""
    done = run_dls("sessions", "-F", str(write(lab, passworded.section())), "--carrier", carrier, "lab")
    assert done.returncode == 13 and "--password-file" in done.stderr, done.stderr


@pytest.mark.parametrize("carrier", ["paramiko", "openssh"])
def test_a_new_host_key_and_no_terminal(passworded: Server, lab: Path, carrier: str) -> None:
    """An unknown host key is not taken without a terminal; the option that takes it is named, and does."""
    (lab / "password").write_text(f"{PASSWORD}\n")
    section = passworded.section("lab", f"UserKnownHostsFile {lab}/known", known=False)
    words = ["-F", str(write(lab, section)), "--password-file", str(lab / "password"), "--carrier", carrier]
    done = run_dls("sessions", *words, "lab")
    assert done.returncode == 12 and "--accept-new-host-key" in done.stderr, done.stderr
    done = run_dls("sessions", *words, "--accept-new-host-key", "lab")
    assert done.returncode == 0, done.stderr
    assert (lab / "known").exists()
