"""Accounts and targets for the tests of logins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dls.demo import sshd
from dls.remote.ssh.target import Target
from tests.support import accounts
from tests.support.logins import PASSWORD, target_of


@pytest.fixture
def account(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    """A user of this machine with the password PASSWORD and the login shell given as parameter, and its home."""
    name, shell = "dlstest", getattr(request, "param", "/bin/sh")
    home = Path("/tmp/dls-test-home")
    with accounts.account(name, shell=shell, home=home):
        accounts.set_password(name, PASSWORD)
        yield name, home


@pytest.fixture
def target(host: sshd.Server) -> Target:
    """The real OpenSSH server as a target."""
    return target_of(host)
