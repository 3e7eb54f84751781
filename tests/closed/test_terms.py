"""What a loan gives away while it lasts, tried from the host: a few names, to those who know its secret."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.closed import web_proxy
from tests.closed.lab import HUB_NAMES, INTERNET, MIRROR_NAME, OFF_LIST, OTHER_USER, USER, Lab
from tests.closed.nodes import Node
from tests.closed.ways import Laptop, Way, listeners
from tests.closed.web import Web, public_names
from tests.support.connect_process import ConnectProcess
from tests.support.processes import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ASK = """
import base64, socket, sys
port, method, target, login = sys.argv[1:]
link = socket.create_connection(("127.0.0.1", int(port)), 10)
field = "Proxy-Authorization: Basic " + base64.b64encode(login.encode()).decode() + "\\r\\n" if login else ""
link.sendall(f"{method} {target} HTTP/1.1\\r\\nHost: {target}\\r\\n{field}\\r\\n".encode())
print(link.recv(65536).decode())
"""
LOOKALIKES = ("localhost", "127.0.0.1", f"{public_names()[0]}.{OFF_LIST}", f"x{public_names()[0]}")
LOOK = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | sed -n 's/^https_proxy=//p'"


@dataclass
class Loan:
    """A loan whose installation waits for the laptop's own proxy."""

    laptop: Laptop
    node: Node
    port: int
    login: str
    """User and secret."""
    going_on: Future[ConnectProcess]

    @property
    def secret(self) -> str:
        return self.login.partition(":")[2]

    def ask(self, target: str, login: str = "", *, user: str = USER, method: str = "CONNECT") -> str:
        """Ask the loan's proxy on the host for something; returns the status."""
        done = self.node.try_to("python3", "-c", ASK, self.port, method, target, login, user=user)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[1]


@contextmanager
def lent(laptop: Laptop) -> Iterator[Loan]:
    """Connect with a loan, and hold the installation while the block runs."""
    node, proxy = laptop.node_of_host, laptop.lab.proxy
    with ThreadPoolExecutor(1) as pool:
        going_on = pool.submit(laptop.start, "--lend-network", "--stop-server", *laptop.way.consent)
        until(lambda: going_on.done() or listeners(laptop.lab, laptop.way.host), 120)
        assert not going_on.done(), going_on.result()
        with proxy.holding():
            until(lambda: proxy.waiting and node.try_to("sh", "-c", LOOK).stdout, 120)
            found = re.match(r"http://(.+)@127\.0\.0\.1:(\d+)", node.run("sh", "-c", LOOK))
            assert found is not None
            yield Loan(laptop, node, int(found[2]), found[1], going_on)


@pytest.fixture(params=["default", "disabled"])
def laptop(lab: Lab, web: Web, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """A laptop behind a web proxy, before a host that forwards ports, and before one where SSH goes through a pipe."""
    made = Laptop(lab, Way("dropping", request.param, "office"), tmp_path)
    yield made
    made.remove()


def files_below(*folders: Path) -> Iterable[Path]:
    """Return the regular files in the folders."""
    return (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def test_what_a_loan_gives_away(laptop: Laptop, web: Web) -> None:
    """Names off the list are refused with 403, requests without the secret with 407, and nothing is left of it.

    Nobody but the user who connected learns the secret, from no list of processes and no file, and the password of the
    laptop's own proxy never comes to the host.
    """
    lab, host = laptop.lab, laptop.way.host
    index = public_names()[0]
    visits = len(web.visits)
    with lent(laptop) as loan:
        assert listeners(lab, host) == {loan.port}
        for login in ("", "dls:guess", f"{loan.login}x", f":{loan.secret}"[:-1]):
            assert loan.ask(f"{index}:443", login, user=OTHER_USER) == "407", login
            assert loan.ask(f"{OFF_LIST}:443", login, user=OTHER_USER) == "407", login
        for name in (OFF_LIST, MIRROR_NAME, *HUB_NAMES, INTERNET, *LOOKALIKES):
            assert loan.ask(f"{name}:443", loan.login) == "403", name
        for port in (22, 80, 8443, 3128):
            assert loan.ask(f"{index}:{port}", loan.login) == "403", port
        assert loan.ask(f"http://{index}/simple/", loan.login, method="GET") in ("403", "405")
        for user in ("root", OTHER_USER):
            shown = loan.node.run("ps", "-e", "-ww", "-o", "args=", user="" if user == "root" else user)
            assert len(shown.splitlines()) > 5 and loan.secret not in shown
        assert not loan.node.try_to("sh", "-c", LOOK, user=OTHER_USER).stdout
        environment = loan.node.run("sh", "-c", "cat /proc/[0-9]*/environ")
        assert loan.secret in environment and web_proxy.PASSWORD not in environment
        texts = [path.read_bytes() for path in files_below(lab.folder / f"host-{host}")]
        assert not [text for text in texts if web_proxy.PASSWORD.encode() in text]
    process = loan.going_on.result()
    try:
        laptop.click(process)
        assert listeners(lab, host) == set()
        probe = f"import socket; socket.create_connection(('127.0.0.1', {loan.port}), 5)"
        assert "refused" in loan.node.try_to("python3", "-c", probe).stderr
        said = f"{process.events}{process.read_log()}"
        texts = [path.read_bytes() for path in files_below(lab.folder, laptop.folder)]
    finally:
        process.close()
    assert loan.secret not in said and web_proxy.PASSWORD not in said
    assert not [text for text in texts if loan.secret.encode() in text]
    assert len(web.visits) == visits
