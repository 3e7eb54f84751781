"""The three ways from the login node into the job."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dls
from dls.remote.loan.indexes import Indexes
from dls.remote.loan.laptop import Laptop
from dls.remote.loan.loan import lend
from dls.remote.progress import Phase, Silent
from tests.cluster.lab import LOGIN, NODES, Cluster, wait_until
from tests.cluster.ways import connected, nothing_runs, stop
from tests.support import package_index
from tests.support.connecting import click_once
from tests.support.lending import own, terms

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def login_node_with(cluster: Cluster, options: str) -> Iterator[None]:
    """Let the login node's SSH server have these options."""

    def restart(more: str) -> None:
        config = cluster.write_sshd_config(LOGIN, more)
        pid = cluster.inside(LOGIN, "pgrep", "-o", "-x", "sshd").strip()
        cluster.inside(LOGIN, "kill", pid)
        wait_until(lambda: f":{22:04X} 0" not in cluster.inside(LOGIN, "cat", "/proc/net/tcp"), "the end of sshd")
        cluster.inside(LOGIN, "/usr/sbin/sshd", "-f", config, "-E", cluster.folder / "log" / "sshd.log")
        # It goes into the background before it listens.
        wait_until(lambda: f":{22:04X} 0" in cluster.inside(LOGIN, "cat", "/proc/net/tcp"), "sshd")

    restart(options)
    try:
        yield
    finally:
        restart("")


@contextlib.contextmanager
def nodes_without_ports(cluster: Cluster) -> Iterator[None]:
    """Let the nodes drop what comes from the login node but for Slurm's own ports, as a firewall does."""
    rule = ("INPUT", "-s", "10.214.2.1", "-p", "tcp", "--dport", "20000:59999", "--syn", "-j", "DROP")
    for node in NODES:
        cluster.inside(node, "iptables", "-I", *rule)
    try:
        yield
    finally:
        for node in NODES:
            cluster.inside(node, "iptables", "-D", *rule)


def test_a_login_node_that_forwards_nothing_is_crossed_by_a_relay(idle: Cluster) -> None:
    """Where the login node forbids TCP forwarding, a command there reaches the node's port; still with one login."""
    with login_node_with(idle, "AllowTcpForwarding no"), connected(idle) as session:
        click_once(session.port)
        assert any(line.split()[0] in ("nc", "ncat", "socat", "python3", "bash") for line in idle.processes(LOGIN))
        assert len(idle.logins()) == 1


def test_a_node_behind_a_firewall_is_entered_by_a_step(idle: Cluster) -> None:
    """Where the login node does not reach the node's ports, `srun --overlap` does; the server outlives the step."""
    with nodes_without_ports(idle):
        with connected(idle) as session:
            click_once(session.port)
            job = session.job
            assert any(line.startswith("srun ") for line in idle.processes(LOGIN))
        wait_until(lambda: not any("srun" in line for line in idle.processes(LOGIN)), "the step's end")
        with connected(idle) as session:
            assert session.job is not None and job is not None and session.job.job.id == job.job.id
            click_once(session.port)
    assert stop(idle)
    wait_until(lambda: nothing_runs(idle), "the end of all processes")


ASK_INDEX = "import os, urllib.request; print(urllib.request.urlopen(os.environ['UV_DEFAULT_INDEX']).status)"
"""A program that asks the package index for its first page, with the variables of a loan."""


@pytest.mark.parametrize("way", [contextlib.nullcontext, nodes_without_ports])
def test_a_network_is_lent_to_the_node_of_the_job(
    idle: Cluster, way: Callable[[Any], contextlib.AbstractContextManager[None]], tmp_path: Path
) -> None:
    """A port on the job's node leads back through the login node to this computer, entered by a port and by a step."""
    with package_index.running(tmp_path, tmp_path) as index, way(idle), connected(idle) as session:
        laptop = Laptop(Indexes(index.url), ca_bundle=index.ca.read_text())
        with lend(session.connection, terms(own(index), laptop=laptop), phase=Phase(Silent())) as loan:
            done = session.connection.run(loan.wrap(f"uname -n; python3 -c {shlex.quote(ASK_INDEX)}"))
            assert done.stdout.split() == [session.state.host, "200"], done.stderr
            listening = idle.inside(session.state.host, "ss", "-H", "-l", "-t", "-n")
            assert f"127.0.0.1:{loan.port}" in listening and index.requests == ["GET /simple/"]
        assert f":{loan.port}" not in idle.inside(session.state.host, "ss", "-H", "-l", "-t", "-n")


def test_nobody_else_is_let_into_the_job(idle: Cluster) -> None:
    """The job's SSH server takes the keys of this user's clients only, and is the only thing of ours that listens."""
    with connected(idle) as session:
        node = session.state.host
        listening = idle.inside(node, "ss", "-H", "-l", "-t", "-n", "-p").splitlines()
        ours = [line for line in listening if "sshd" in line or "python" in line]
        assert ours and all("sshd" in line for line in ours)
        port = ours[0].split()[3].rpartition(":")[2]
        key = idle.folder / "keys" / "id_ed25519"
        idle.inside(LOGIN, "cp", key, "/tmp/key")
        words = ["ssh", "-i", "/tmp/key", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes", "-p", port]
        said = idle.inside(
            LOGIN, "sh", "-c", " ".join([*words, f"{idle.home().name}@{node}", "true", "2>&1"]), check=False
        )
        assert "Permission denied (publickey)" in said


def test_a_directory_without_locks(idle: Cluster) -> None:
    """Where flock does not work on the node, nothing is started there, and the sentence names the directory."""
    for node in NODES:
        idle.inside(node, "sh", "-c", "printf '#!/bin/sh\\nexit 1\\n' >/tmp/flock; chmod 755 /tmp/flock")
        idle.inside(node, "mount", "--bind", "/tmp/flock", "/usr/bin/flock")
    try:
        with pytest.raises(dls.HostError, match=r"can't be used: files in .*/\.dls can't be locked on gpu0"):
            connected(idle)
        wait_until(lambda: not idle.jobs(), "the job's end")
    finally:
        for node in NODES:
            idle.inside(node, "umount", "/usr/bin/flock")


def test_a_directory_that_the_nodes_do_not_share(idle: Cluster) -> None:
    """A remote directory on the login node's own disk ends in a sentence, and its job is cancelled."""
    with pytest.raises(dls.HostError, match=r"can't be used|does not see its folder|ended before"):
        connected(idle, login={"remote_dir": "/var/tmp/dls-here"})
    wait_until(lambda: not idle.jobs(), "the job's end")
