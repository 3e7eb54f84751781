"""The cluster lab for all tests here, with the packages of the region engine in place."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import dls
from tests.cluster import lab
from tests.support.processes import free_port

FOLDER = Path(__file__).parent
INHERITED = ("PIP_", "UV_", "SSL_", "REQUESTS_", "http_proxy", "https_proxy", "no_proxy")
"""Beginnings of the variables that an installation may need."""


def install_packages(cluster: lab.Cluster, user: str = lab.USER) -> None:
    """Install the packages into the user's home from this machine: the nodes have no internet."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}
    kept |= {"HOME": str(cluster.home(user)), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    words = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "env", "-i"]
    words += [f"{name}={value}" for name, value in kept.items()]
    here = dls.ClusterOptions(mode="here")
    login = dls.LoginOptions(via=shlex.join(words))
    dls.connect("this machine", login=login, cluster=here, local_port=free_port()).close(stop_server=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[lab.Cluster]:
    """The lab."""
    if why := lab.why_impossible():
        pytest.skip(why)
    with lab.Cluster.create() as created:
        install_packages(created)
        yield created


@pytest.fixture
def idle(cluster: lab.Cluster) -> Iterator[lab.Cluster]:
    """The lab without jobs, before and after."""
    cluster.cancel_all()
    yield cluster
    cluster.cancel_all()
