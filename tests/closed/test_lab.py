"""The lab is what the tests of closed hosts take it for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.closed.lab import CLOSED, HUB_NAMES, INDEX, LAPTOPS, LOCK, MIRROR, MIRROR_NAME, OFF_LIST, PLACE, PREFIX, Lab
from tests.closed.nodes import Node
from tests.closed.web import Web, public_names
from tests.support.processes import until
from tests.support.source import ROOT

pytestmark = pytest.mark.slow

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 443), 0.5)"
"""What an installer does first; the host that drops packets is waited for half a second."""


def reaches(node: Node, name: str) -> str:
    """Try to connect to a name; returns the last line of what went wrong, empty where it worked."""
    done = node.try_to("python3", "-c", CONNECT, name)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


def test_a_closed_host_reaches_nothing(lab: Lab, web: Web) -> None:
    """Each fails in its own way: without a name, without an answer, and with a refusal."""
    for name in (*public_names(), *HUB_NAMES, MIRROR_NAME, OFF_LIST):
        found = {host: reaches(lab.hosts[host], name) for host in CLOSED}
        assert "name resolution" in found["isolated"]
        assert "timed out" in found["dropping"]
        assert "refused" in found["rejecting"]
    assert reaches(lab.hosts["open"], INDEX) == reaches(lab.hosts["open"], public_names()[0]) == ""


def test_the_laptops_reach_what_they_are_for(lab: Lab, web: Web) -> None:
    """One reaches everything, one its web proxy only, one its mirror only."""
    asked = [*public_names(), *HUB_NAMES, MIRROR_NAME, OFF_LIST]
    assert [reaches(lab.laptops["plain"], name) for name in asked] == [""] * len(asked)
    assert all(reaches(lab.laptops["office"], name) for name in (*asked, INDEX, MIRROR))
    assert [name for name in asked if not reaches(lab.laptops["ward"], name)] == [MIRROR_NAME]


def test_the_proxy_wants_its_password(lab: Lab, web: Web) -> None:
    """The office's proxy answers 407 without its password, and opens a tunnel with it."""
    name, _ = public_names()
    url = f"https://{name}/simple/"
    for proxy, said in ((lab.proxy.url, "200"), (lab.proxy.url.replace("s3cret", "guess"), "407")):
        script = (
            "import sys, urllib.request as r\n"
            "try: print(r.build_opener(r.ProxyHandler({'https': sys.argv[2]})).open(sys.argv[1]).status)\n"
            "except OSError as error: print(error)"
        )
        done = lab.laptops["office"].try_to("python3", "-c", script, url, proxy)
        assert said in done.stdout, done


def test_only_the_laptops_reach_the_hosts(lab: Lab) -> None:
    """The internet's computers reach no host, and a laptop passes nothing on."""
    script = "import socket; socket.create_connection(('10.215.2.12', 22), 0.5)"
    for laptop in LAPTOPS:
        assert lab.laptops[laptop].try_to("python3", "-c", script).returncode == 0
    assert "unreachable" in lab.internet.try_to("python3", "-c", script).stderr
    lab.internet.run("ip", "route", "add", "10.215.2.0/24", "via", "10.215.1.2")
    try:
        assert lab.internet.try_to("python3", "-c", script).returncode
    finally:
        lab.internet.run("ip", "route", "del", "10.215.2.0/24")


def test_nothing_is_left_of_a_lab_that_was_killed(lab: Lab, tmp_path: Path) -> None:
    """The nodes end with the process that has made them; its folder is removed by the next lab."""
    script = (
        "import sys, time; from pathlib import Path; from tests.closed.nodes import Node\n"
        "nodes = [Node(name, Path(sys.argv[1]), own_processes=name == 'far') for name in ('near', 'far')]\n"
        "inner = nodes[1].start('sleep', '1000', log=Path(sys.argv[1]) / 'log')\n"
        "print(*(node.pid for node in nodes), flush=True); time.sleep(1000)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        pids = process.stdout.readline().split()
        spaces = {Path(f"/proc/{pid}/ns/net").readlink() for pid in pids}
        process.kill()
    until(lambda: not spaces & {read_link(Path(entry, "ns/net")) for entry in Path("/proc").glob("[0-9]*")})


def read_link(path: Path) -> Path | None:
    """Return where a link leads; None where it has gone."""
    try:
        return path.readlink()
    except OSError:
        return None


def test_a_second_lab_waits(lab: Lab) -> None:
    """While a lab runs, its lock is held, and there is one folder of a lab."""
    held = subprocess.run(["flock", "--nonblock", str(LOCK), "true"])
    assert held.returncode == 1 and [*PLACE.glob(f"{PREFIX}*")] == [lab.folder]


@pytest.mark.parametrize("host", [*CLOSED, "open"])
def test_the_hosts_are_searched_through_ssh(lab: Lab, host: str) -> None:
    """A laptop logs in as a user who is none of this machine's, on a computer with its own name and processes."""
    done = lab.laptops["plain"].try_to("ssh", "-F", lab.config, f"{host}-default", "id -un; uname -n; ps -e -o comm=")
    user, name, *processes = done.stdout.split()
    assert (user, name) == ("ann", host), done.stderr
    assert "pytest" not in processes and "sshd" in processes
