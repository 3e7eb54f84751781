"""Whether a host reaches what an installation needs, asked as the installation would ask."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from uv import find_uv_bin

from dls.remote.host import install, reach
from dls.remote.host.network import NetworkOptions
from dls.remote.host.options import ServerOptions
from dls.remote.host.probe import HostReport, Python
from dls.remote.host.reach import Reach, Verdict
from dls.remote.host.supply import Way, choose
from tests.remote.host.test_scripts import PLAN, SHELLS

REPORT = HostReport(
    system="Linux", machine="x86_64", libc="glibc 2.36", hostname="gpu1", home="/h", uid=1, root="/h/.dls",
    run_dir="/h/run", remote_key="k", filesystem="xfs", free_mib=5000,
    pythons=(Python(sys.executable, (3, 11, 0), True, True),),
)  # fmt: skip
WEIGHTS = ServerOptions(engine="nninteractive")
PACKAGES = ServerOptions(engine="region")
CLOSED, OPEN, UNKNOWN = Verdict.CLOSED, Verdict.OPEN, Verdict.UNKNOWN


def answer(head: bytes) -> bytes:
    """Return what a proxy answers that reaches `open.test` only; it asks for the credentials `ann:it's`."""
    if b"Proxy-Authorization: Basic YW5uOml0J3M=\r\n" not in head:
        return b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"
    return (
        b"HTTP/1.1 200 OK\r\n\r\n" if head.startswith(b"CONNECT open.test:443 ") else b"HTTP/1.1 403 Forbidden\r\n\r\n"
    )


@contextlib.contextmanager
def listening(*, answers: bool = True) -> Iterator[int]:
    """Listen on a loopback port as a proxy that, after its answer, closes each connection; without, say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.ExitStack() as kept, contextlib.suppress(OSError):
                while True:
                    link = kept.enter_context(server.accept()[0])
                    if answers:
                        with contextlib.suppress(OSError):
                            link.sendall(answer(link.recv(65536)))
                        link.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        with contextlib.suppress(OSError):  # else a thread that waits in `accept` would keep the port
            server.shutdown(socket.SHUT_RDWR)
        thread.join()


@contextlib.contextmanager
def dropping() -> Iterator[int]:
    """A loopback port at which packets are dropped, as by most firewalls: its queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield server.getsockname()[1]
        for one in waiting:
            one.close()


def ask(**environment: str) -> Reach:
    """Ask a host with these variables whether it reaches its index."""
    return run(PACKAGES, environment)


def run(
    options: ServerOptions, environment: dict[str, str], report: HostReport = REPORT, *, shell: str = "sh"
) -> Reach:
    """Run the script as a host with these variables would, and read what it prints; weights are asked for alone."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    plan = replace(PLAN, make_environment=options.engine == "region", environment=sys.prefix)
    script = reach.reach_script(report, plan, options, "https://built-in.invalid/s")
    assert "WHOLE_SECONDS = 4.5" in script
    script = script.replace("WHOLE_SECONDS = 4.5", "WHOLE_SECONDS = 40.0")  # importing pip takes long on a busy machine
    words = [shell, "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*words, "-s"], input=script, capture_output=True, text=True, timeout=60, check=True,
        env={**kept, "PIP_CONFIG_FILE": os.devnull, **environment},
    )  # fmt: skip
    return reach.parse(done.stdout, reach.unanswered(plan, options))


def test_nothing_that_is_listening() -> None:
    """A host whose index refuses connections is closed, and so is one where its name has no address."""
    for index in ("https://127.0.0.1:9/simple", "https://no-such-index.invalid/simple"):
        found = ask(UV_DEFAULT_INDEX=index, PIP_INDEX_URL=index)
        assert found.packages is CLOSED and found.index in ("127.0.0.1", "no-such-index.invalid")
        assert found.weights is Verdict.NOT_ASKED and found.is_closed


def test_packets_that_are_dropped() -> None:
    """A firewall that answers nothing is waited for within a limit, and the host is closed."""
    with dropping() as port:
        index = f"https://127.0.0.1:{port}/simple"
        assert ask(UV_DEFAULT_INDEX=index, PIP_INDEX_URL=index).packages is CLOSED


def test_one_installer_that_reaches_its_index_is_enough() -> None:
    """uv's index may be closed where pip has a mirror, in the environment or in its file; and the other way round."""
    with listening() as port:
        mirror, closed = f"http://127.0.0.1:{port}/simple", "https://127.0.0.1:9/simple"
        assert ask(UV_DEFAULT_INDEX=closed, PIP_INDEX_URL=mirror) == Reach(OPEN, index="127.0.0.1", only_pip=True)
        assert ask(UV_DEFAULT_INDEX=mirror, PIP_INDEX_URL=closed) == Reach(OPEN, index="127.0.0.1")
        assert ask(UV_DEFAULT_INDEX=closed, PIP_INDEX_URL=closed, PIP_EXTRA_INDEX_URL=mirror).packages is OPEN
        assert ask(UV_DEFAULT_INDEX=closed, UV_INDEX=f"mine={mirror}", PIP_INDEX_URL=closed).packages is OPEN


def test_the_file_of_pip_is_read(tmp_path: Path) -> None:
    """The index in pip's configuration is the one that is asked."""
    with listening() as port:
        file = tmp_path / "pip.conf"
        file.write_text(f"[global]\nindex-url = http://127.0.0.1:{port}/simple\n")
        closed = "https://127.0.0.1:9/simple"
        assert ask(UV_DEFAULT_INDEX=closed, PIP_CONFIG_FILE=str(file)).packages is OPEN
        file.write_text(f"[global]\nindex-url = {closed}\n")
        assert ask(UV_DEFAULT_INDEX=closed, PIP_CONFIG_FILE=str(file)).packages is CLOSED


def test_files_of_the_host_s_own_may_do(tmp_path: Path) -> None:
    """A host with a folder of wheels, or an index in files, is not called closed: nobody knows what they lack."""
    closed = "https://127.0.0.1:9/simple"
    everywhere = {"UV_DEFAULT_INDEX": closed, "PIP_INDEX_URL": closed}
    assert ask(**everywhere, PIP_FIND_LINKS=str(tmp_path)).packages is UNKNOWN
    assert ask(**everywhere, PIP_FIND_LINKS=str(tmp_path), PIP_NO_INDEX="1").packages is UNKNOWN
    assert ask(**everywhere, UV_FIND_LINKS=str(tmp_path)).packages is UNKNOWN
    assert ask(UV_DEFAULT_INDEX=closed, PIP_INDEX_URL=f"file://{tmp_path}").packages is UNKNOWN


@pytest.mark.parametrize(
    "name",
    ["HTTPS_PROXY", "PIP_PROXY", *(pytest.param(n, marks=pytest.mark.slow) for n in ("https_proxy", "ALL_PROXY"))],
)
def test_the_host_s_proxy_is_asked(name: str) -> None:
    """A proxy says whether it leads to the index, and gets its credentials; one that is not there leads nowhere."""
    index = {"UV_DEFAULT_INDEX": "https://127.0.0.1:9/", "PIP_INDEX_URL": "https://open.test/simple"}
    with listening() as port:
        login = "ann:it%27s@"
        # The proxy grants the connection and closes it: what follows can't be told.
        assert ask(**index, **{name: f"http://{login}127.0.0.1:{port}"}).packages is UNKNOWN
        assert ask(**index, **{name: f"http://127.0.0.1:{port}"}).packages is CLOSED
        other = {**index, "PIP_INDEX_URL": "https://other.test/simple"}
        assert ask(**other, **{name: f"http://{login}127.0.0.1:{port}"}).packages is CLOSED
    assert ask(**index, **{name: "http://127.0.0.1:9"}).packages is CLOSED


def test_a_proxy_that_is_bypassed() -> None:
    """NO_PROXY counts, as for pip."""
    with listening() as port:
        mirror = f"http://127.0.0.1:{port}/simple"
        proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
        index = {"UV_DEFAULT_INDEX": "https://127.0.0.1:9/", "PIP_INDEX_URL": mirror}
        assert ask(**index, **proxy).packages is CLOSED
        assert ask(**index, **proxy, NO_PROXY="127.0.0.1").packages is OPEN


def test_a_connection_that_is_cut_or_silent() -> None:
    """What takes the connection and says nothing is no sign of a closed host: it may be slow."""
    for answers in (True, False):
        with listening(answers=answers) as port:
            index = f"https://127.0.0.1:{port}/simple"
            assert ask(UV_DEFAULT_INDEX=index, PIP_INDEX_URL=index).packages is UNKNOWN


def test_the_index_that_is_built_in() -> None:
    """Where nothing is configured, the host's pip says which index it has; uv has the same one."""
    found = ask(HTTPS_PROXY="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    assert found.packages is CLOSED and found.index == reach.default_index().split("/")[2] != ""


@pytest.mark.parametrize("shell", SHELLS)
def test_the_weights(shell: str, tmp_path: Path) -> None:
    """The hub is asked where no model is on the host that the server would take; one elsewhere does not count."""
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9"}

    def weights(options: ServerOptions) -> Verdict:
        return run(options, hub, shell=shell).weights

    here = replace(WEIGHTS, models_path=str(tmp_path))
    assert weights(here) is CLOSED
    with listening() as port:
        hub["HF_ENDPOINT"] = f"http://127.0.0.1:{port}"
        assert weights(here) is OPEN
    checkpoint = tmp_path / "models" / "mine" / "fold_0" / "checkpoint_final.pth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    assert weights(here) is Verdict.THERE
    assert weights(replace(here, model="mine")) is Verdict.THERE
    assert weights(replace(here, model="other")) is CLOSED


def test_who_needs_weights() -> None:
    """The region engine, a server without network and one with a model's folder download nothing."""
    assert reach.may_need_weights(WEIGHTS) and reach.may_need_weights(replace(WEIGHTS, model="an-id"))
    for options in (PACKAGES, replace(WEIGHTS, network=False), replace(WEIGHTS, model="/models/mine")):
        assert not reach.may_need_weights(options)


BARE = replace(REPORT, pythons=())


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["curl", "bash", "nc", ""])
def test_a_host_without_python(tool: str, tmp_path: Path) -> None:
    """curl, bash or nc ask instead, of a firewall too; where there is none of them, nobody can tell."""
    for name in filter(None, ("sed", "tr", "sleep", "grep", "sh", tool)):
        program = shutil.which(name)
        assert program, name
        (tmp_path / name).symlink_to(Path(program).resolve())

    def packages(index: str) -> Verdict:
        environment = {"PATH": str(tmp_path), "UV_DEFAULT_INDEX": index}
        return run(PACKAGES, environment, BARE, shell=str(tmp_path / "sh")).packages

    closed = CLOSED if tool else UNKNOWN
    assert packages("http://127.0.0.1:9/s") is closed
    with dropping() as port:
        assert packages(f"http://127.0.0.1:{port}/s") is closed
    with listening() as port:
        assert packages(f"http://127.0.0.1:{port}/s") is (OPEN if tool else UNKNOWN)


def test_the_index_that_uv_has_built_in() -> None:
    """Without a pip, the help of uv names it; without uv too, this computer's pip or uv does."""
    dead = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    name = reach.default_index().split("/")[2]
    uv = find_uv_bin()
    for report in (replace(BARE, uv=uv), replace(REPORT, uv=uv, pythons=(Python("python3", (3, 11, 0), True, True),))):
        found = run(PACKAGES, {**dead, "PYTHONPATH": "/nowhere"}, report)
        assert (found.packages, found.index) == (CLOSED, name)
    assert run(PACKAGES, dead, BARE).index == "built-in.invalid"


def test_answers_of_an_odd_host() -> None:
    """A word that is none of ours means that nobody knows, and a text that is no name is not shown."""
    text = "hello\npackages\tperhaps\thttps://index.test/s\nweights\tclosed\tLend it all? (yes/no)\n"
    assert reach.parse(text, Reach()) == Reach(UNKNOWN, CLOSED, "index.test", "")


def test_a_host_that_says_nothing() -> None:
    """What a Python that fails, or is too slow, leaves open is unknown; what was not asked for is not."""
    silent = replace(REPORT, pythons=(Python("/bin/false", (3, 11, 0), True, True),))
    assert run(PACKAGES, {}, silent) == Reach(UNKNOWN)
    both = reach.unanswered(replace(PLAN, make_environment=True), WEIGHTS)
    assert both == reach.parse("", both) == Reach(UNKNOWN, UNKNOWN)
    assert choose(both, NetworkOptions(lend=True)) is Way.LOAN
    assert reach.unanswered(replace(PLAN, make_environment=False), PACKAGES) == Reach()


@pytest.mark.parametrize(
    ("found", "lend", "way"),
    [
        (Reach(OPEN, OPEN), None, Way.OWN),
        (Reach(OPEN, OPEN), True, Way.OWN),
        (Reach(UNKNOWN), None, Way.OWN),
        (Reach(UNKNOWN), False, Way.OWN),
        (Reach(UNKNOWN), True, Way.LOAN),
        (Reach(CLOSED), None, Way.ASK),
        (Reach(CLOSED), True, Way.LOAN),
        (Reach(CLOSED), False, Way.REFUSE),
        (Reach(OPEN, CLOSED), None, Way.ASK),
        (Reach(), None, Way.OWN),
    ],
)
def test_where_a_host_gets_what_it_lacks(found: Reach, lend: bool | None, way: Way) -> None:
    """From its own internet wherever it can be had; a parcel that was named is always what is used."""
    assert choose(found, NetworkOptions(lend)) is way
    assert choose(found, NetworkOptions(lend, Path("x.parcel"))) is Way.PARCEL


def test_the_size_is_known_beforehand() -> None:
    """Where a lock file fits, the plan says what the installer fetches; where none does, nobody can say."""
    from dls.remote.host.packages import requirements

    region = requirements("region")
    planned = install.plan(REPORT, region, "c0de")
    assert planned.download_bytes and 30e6 < planned.download_bytes < 300e6
    assert install.plan(replace(REPORT, machine="riscv64"), region, "c0de").download_bytes is None
