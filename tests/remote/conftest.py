"""Accounts and targets for the tests of logins."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.remote.ssh.target import Target
from tests.support.accounts import reserved, set_password
from tests.support.logins import PASSWORD, target_of


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A user of this machine with the password PASSWORD and the login shell given as parameter, and its home."""
    name, shell = "dlstest", getattr(request, "param", "/bin/sh")
    home = Path("/tmp/dls-test-home")
    with reserved(name):
        subprocess.run(["userdel", "-f", name], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)
        subprocess.run(["useradd", "-m", "-d", str(home), "-s", shell, name], check=True)
        set_password(name, PASSWORD)
        yield name, home
        subprocess.run(["pkill", "-u", name], check=False)
        subprocess.run(["userdel", "-f", name], check=False, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def target(host: sshd.Server) -> Target:
    """The real OpenSSH server as a target."""
    return target_of(host)
