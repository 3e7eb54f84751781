"""The proxy of a loan, asked through the port that a real OpenSSH server opens."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket

import pytest

from dls.remote.loan.gateway import MAX_ASKING, Gateway
from dls.remote.loan.loan import Loan
from dls.remote.loan.names import Name, Names
from dls.remote.loan.way_out import WayOut, WebProxy
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.reverse_forward import ReverseForward
from tests.support import connect_proxy
from tests.support.lending import ask, connect_head, get, is_listening, lent, own, secret_of
from tests.support.package_index import Index
from tests.support.processes import free_port, until


def test_https_end_to_end(connection: Connection, index: Index) -> None:
    """What is on the list is reached, with the server's own certificate, and its bytes are counted by name."""
    with lent(connection, own(index)) as loan:
        page = get(loan, f"{index.url}large-one/", index.ca)
        assert b"large_one-1.0" in page
        until(lambda: loan.traffic.connections == 0)  # the last bytes are counted after they were sent
        assert loan.traffic.received > len(page) and loan.traffic.received_from == {
            f"localhost:{index.port}": loan.traffic.received
        }


@pytest.mark.parametrize("secret", [None, "wrong", "ü"])
def test_without_the_secret(connection: Connection, index: Index, secret: str | None) -> None:
    """Whoever has not the secret gets 407 and learns no name, whatever they ask for."""
    asked = len(index.requests)
    with lent(connection, own(index)) as loan:
        for target in (f"localhost:{index.port}", "other.test:443"):
            status, answer = ask(loan.port, connect_head(target, secret))
            assert status == 407 and "Proxy-Authenticate: Basic" in answer and "localhost" not in answer
        assert ask(loan.port, f"GET http://localhost:{index.port}/ HTTP/1.1\r\nHost: x\r\n\r\n")[0] == 407
    assert len(index.requests) == asked


@pytest.mark.parametrize(
    "target",
    [
        "other.test:443", "localhost:22", "127.0.0.1:{port}", "[::1]:{port}", "2130706433:{port}", "127.1:{port}",
        "0x7f.0.0.1:{port}", "localhost.:22", "sub.localhost:{port}", "metadata.test:80",
    ],
)  # fmt: skip
def test_what_is_not_lent(connection: Connection, index: Index, target: str) -> None:
    """Other names, other ports and addresses get 403, and stand in the loan's list of refused names."""
    with lent(connection, own(index)) as loan:
        target = target.format(port=index.port)
        assert ask(loan.port, connect_head(target, secret_of(loan)))[0] == 403
        assert loan.traffic.refused_names == {target: 1} and target in loan.explain()


def test_a_request_without_tls(connection: Connection, index: Index) -> None:
    """A request that is to be passed on as it is gets 403: the host's words would be readable here."""
    with lent(connection, own(index)) as loan:
        head = connect_head(f"localhost:{index.port}", secret_of(loan))
        status, answer = ask(loan.port, head.replace("CONNECT localhost", "GET http://localhost"))
        assert status == 403 and "HTTPS" in answer


def test_a_public_name_with_a_private_address(connection: Connection, index: Index) -> None:
    """A name that is not the user's own leads into this computer's network only to who has a certificate for it."""
    name, head = Name("localhost", index.port), f"localhost:{index.port}"
    with lent(connection, name) as loan:
        assert ask(loan.port, connect_head(head, secret_of(loan)))[0] == 403
        assert "not public" in loan.explain()
    with lent(connection, name, way_out=WayOut(ca_bundle=index.ca.read_text())) as loan:
        for _ in range(2):
            assert get(loan, index.url, index.ca)


def test_a_name_that_this_computer_does_not_reach(connection: Connection) -> None:
    """A name without an address, and one where nobody listens, get 502, and the loan says why."""
    closed = free_port()
    with lent(connection, Name("nowhere.invalid"), Name("localhost", closed, is_own=True)) as loan:
        for target in ("nowhere.invalid:443", f"localhost:{closed}"):
            status, answer = ask(loan.port, connect_head(target, secret_of(loan)))
            assert status == 502 and target.partition(":")[0] in answer
        assert "does not reach" in loan.explain() and loan.traffic.received == 0


@pytest.mark.parametrize(
    "head", ["\0\1\2\r\n\r\n", "CONNECT HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n" + "X: y\r\n" * 5000]
)
def test_what_is_no_request(connection: Connection, head: str) -> None:
    """Odd and endless requests are refused, and those without the secret learn nothing but that."""
    with lent(connection, Name("index.test")) as loan:
        status, answer = ask(loan.port, head)
        assert status in (400, 407, 431) and "index.test" not in answer


def test_a_request_that_never_ends(connection: Connection) -> None:
    """Whoever connects and says nothing, or not all, is answered after a time, and holds no thread."""
    gateway = Gateway(Names(()), WayOut(), "secret", head_seconds=0.1)
    forward = ReverseForward.open(connection, gateway.accept)
    assert forward is not None
    assert ask(forward.port, "CONNECT index.test:443 HTTP/1.1\r\n")[0] == 408
    until(lambda: gateway.traffic.connections == 0)
    forward.close()
    assert not is_listening(forward.port)


def test_a_request_that_comes_letter_by_letter(connection: Connection) -> None:
    """The time is for the whole request: whoever sends a little of it again and again gains nothing."""
    gateway = Gateway(Names(()), WayOut(), "secret", head_seconds=1)
    forward = ReverseForward.open(connection, gateway.accept)
    assert forward is not None
    with socket.create_connection(("127.0.0.1", forward.port), timeout=0.2) as sock:
        for _ in range(100):
            sock.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                assert sock.recv(4096).startswith(b"HTTP/1.1 408")
                break
        else:
            pytest.fail("it was never answered")
    forward.close()


def test_very_many_connections_that_say_nothing(connection: Connection, index: Index) -> None:
    """Any user of the host can open connections: the oldest ones are closed, and whoever has the secret is served."""
    with lent(connection, own(index)) as loan, contextlib.ExitStack() as silent:
        socks = [silent.enter_context(socket.create_connection(("127.0.0.1", loan.port), 30)) for _ in range(300)]
        assert get(loan, index.url, index.ca)
        assert socks[0].recv(1) == b""
        until(lambda: loan.traffic.connections <= MAX_ASKING)


def test_many_connections_at_once(connection: Connection, index: Index) -> None:
    """Forty downloads at the same time each bring the whole file, while a script runs on the same connection."""
    path = index.files()["large_one-1.0-py3-none-any.whl"]
    url = f"https://localhost:{index.port}/files/{path.name}"
    with lent(connection, own(index)) as loan, concurrent.futures.ThreadPoolExecutor(40) as pool:
        downloads = [pool.submit(get, loan, url, index.ca) for _ in range(40)]
        assert connection.run("echo hi").stdout == "hi"
        assert all(download.result() == path.read_bytes() for download in downloads)
        until(lambda: loan.traffic.connections == 0)
        assert loan.traffic.received > 40 * path.stat().st_size


def test_key_exchanges_in_between(connection: Connection, index: Index) -> None:
    """New keys are agreed on after each 512 MB, here 256 KB, while channels open and close: nothing is lost."""
    connection.transport.packetizer.REKEY_BYTES = 256 << 10
    path = index.files()["large_one-1.0-py3-none-any.whl"]
    url = f"https://localhost:{index.port}/files/{path.name}"
    with lent(connection, own(index)) as loan, concurrent.futures.ThreadPoolExecutor(8) as pool:
        downloads = [pool.submit(get, loan, url, index.ca) for _ in range(40)]
        assert all(download.result() == path.read_bytes() for download in downloads)


def opened(loan: Loan, index: Index) -> socket.socket:
    """Return a connection through the loan, on which nothing has been sent yet."""
    sock = socket.create_connection(("127.0.0.1", loan.port), timeout=30)
    sock.sendall(connect_head(f"localhost:{index.port}", secret_of(loan)).encode())
    assert sock.recv(4096).startswith(b"HTTP/1.1 200")
    return sock


@pytest.mark.parametrize("fails", [False, True])
def test_the_end_of_a_loan(connection: Connection, index: Index, fails: bool) -> None:
    """At its end, by an error too, the host closes the port, its connections end, and the SSH connection stays."""
    with contextlib.suppress(ZeroDivisionError), lent(connection, own(index)) as loan:
        port, sock = loan.port, opened(loan, index)
        assert is_listening(port)
        if fails:
            raise ZeroDivisionError
    with sock:
        assert sock.recv(1) == b""
    assert not is_listening(port)
    until(lambda: loan.traffic.connections == 0)
    assert connection.run("echo hi").stdout == "hi"


def test_who_connects_at_the_end_of_a_loan(connection: Connection) -> None:
    """Whoever connects at the moment when the host closes the port is sent away, and the SSH connection stays."""
    for _ in range(10):
        with contextlib.ExitStack() as opened:
            with lent(connection, Name("index.test")) as loan:
                for _ in range(20):
                    opened.enter_context(socket.create_connection(("127.0.0.1", loan.port), timeout=30))
            assert connection.run("echo hi").stdout == "hi"


def test_a_connection_that_dies(connection: Connection, index: Index) -> None:
    """When the SSH connection is lost, the loan's connections end on both sides, and its end waits for nobody."""
    with lent(connection, own(index)) as loan:
        sock = opened(loan, index)
        connection.transport.sock.shutdown(socket.SHUT_RDWR)
        until(lambda: loan.traffic.connections == 0)
        with sock:
            assert sock.recv(1) == b""
        until(lambda: not is_listening(loan.port))


def test_two_loans_one_after_the_other(connection: Connection, index: Index) -> None:
    """A second loan has another secret; the first one's opens nothing any more."""
    with lent(connection, own(index)) as first:
        old = secret_of(first)
    with lent(connection, own(index)) as second:
        assert ask(second.port, connect_head(f"localhost:{index.port}", old))[0] == 407
        assert get(second, index.url, index.ca)


def test_a_laptop_behind_a_web_proxy(connection: Connection, index: Index) -> None:
    """The loan goes through this computer's own proxy, with its credentials; the proxy finds the names."""
    where = {"index.test:443": ("127.0.0.1", index.port)}
    with connect_proxy.running(where, "ann:p%4055") as proxy:
        proxy.credentials = "ann:p@55"  # what the percent-encoded address means
        way_out = WayOut(WebProxy.parse(f"http://ann:p%4055@127.0.0.1:{proxy.port}"))
        with lent(connection, Name("index.test"), Name("absent.test"), way_out=way_out) as loan:
            status, _ = ask(loan.port, connect_head("index.test:443", secret_of(loan)))
            assert status == 200
            status, answer = ask(loan.port, connect_head("absent.test:443", secret_of(loan)))
            assert status == 502 and "503" in answer and "p@55" not in answer
    assert proxy.asked == ["index.test:443", "absent.test:443"]


def test_a_web_proxy_that_refuses_its_credentials(connection: Connection) -> None:
    """What this computer's proxy answers stands in the reason."""
    with connect_proxy.running({}, "ann:right") as proxy:
        way_out = WayOut(WebProxy.parse(f"127.0.0.1:{proxy.port}"))
        with lent(connection, Name("index.test"), way_out=way_out) as loan:
            status, answer = ask(loan.port, connect_head("index.test:443", secret_of(loan)))
            assert status == 502 and "407" in answer and "407" in loan.explain()


def test_a_name_that_needs_no_web_proxy(connection: Connection, index: Index) -> None:
    """What NO_PROXY excepts is reached directly."""
    way_out = WayOut(WebProxy.parse(f"127.0.0.1:{free_port()}"), lambda host: host == "localhost")
    with lent(connection, own(index), way_out=way_out) as loan:
        assert get(loan, index.url, index.ca)
