"""Sessions on a real OpenSSH server, from `connect` to what is left after closing."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import socket
import subprocess
import threading
from pathlib import Path

import numpy as np
import paramiko
import pytest

import dls
from dls.demo import sshd
from dls.errors import ForwardError, LaunchError
from dls.remote.tunnel import listener, opening
from dls.remote.tunnel.supervisor import Supervisor
from dls.server.engines.region import RegionEngine
from dls.server.volume import SCRIBBLE, Geometry, Prompt, Volume
from tests.support.connecting import command, connected
from tests.support.ipv6 import NEEDS_IPV6
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port, interruptible, is_gone, until
from tests.support.synthetic import ellipsoid, noisy


def test_a_server_is_started_once_and_found_again(host: sshd.Server, clean: str) -> None:
    """It is only started where the environment is in place, found where it runs, and it runs on without the client."""
    first, reporter = connected(host, clean)
    assert reporter.phases[:5] == ["resolve", "login", "probe", "launch", "forward"]
    assert reporter.phases[5:] in ([], ["engine"])
    assert ItkSnap(first.port).get("/status").json == {"status": "ok", "version": "0.1.6"}
    first.close()
    with connected(host, clean)[0] as second:
        assert second.state.pid == first.state.pid
        assert set(second.seconds) == {"resolve", "login", "probe", "forward"}
        assert second.url == f"http://localhost:{second.port}" and second.server_field == "localhost"
        assert ItkSnap(second.port).start()
    assert not is_gone(first.state.pid)


def test_options_of_a_job_on_a_host_without_jobs(host: sshd.Server, clean: str) -> None:
    """They are said to be set aside, and the server runs on the host itself."""
    session, reporter = connected(host, clean, cluster=dls.ClusterOptions(time="4h", partition="gpu"))
    with session:
        assert session.job is None
    assert [note for note in reporter.notes if "set aside" in note] == [
        "dls-demo has no Slurm, so the server runs in no job: --time and --partition are set aside."
    ]


def test_files_are_for_their_user_only(host: sshd.Server, clean: str) -> None:
    """Nobody else can open the socket, the state and the log, and no argument or log line holds the secret."""
    with connected(host, clean)[0] as session:
        run = Path(session.state.run_dir)
        assert run.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o077 for path in run.iterdir()} == {0}
        assert Path(session.state.log).stat().st_mode & 0o077 == 0
        arguments = Path(f"/proc/{session.state.pid}/cmdline").read_text()
        assert "launch-file" in arguments and session.state.secret
        assert session.state.secret not in arguments
        assert session.state.secret not in Path(session.state.log).read_text()


def test_masks_are_those_of_the_engine_voxel_for_voxel(host: sshd.Server, clean: str) -> None:
    """An image of 512 x 512 x 300 through the tunnel gives what the engine gives when it is called directly."""
    shape = (300, 512, 512)
    truth = ellipsoid(shape, (140, 250, 260), (30, 45, 40))
    image = noisy(truth[110:170, 200:300, 210:310], 4, np.random.default_rng(0))
    volume = np.full(shape, 100, np.float32)
    volume[110:170, 200:300, 210:310] = image
    stroke = np.zeros(shape, bool)
    stroke[140, 250, 230:290] = True
    beside = np.zeros(shape, bool)
    beside[140, 190:196, 210:300] = True
    direct = RegionEngine().open(Volume(volume.copy(), Geometry(shape)))
    with connected(host, clean)[0] as session:
        snap = ItkSnap(session.port)
        snap.start()
        assert snap.upload(volume).status == 200
        direct.add(Prompt.point(140, 250, 260, foreground=True))
        np.testing.assert_array_equal(snap.mask(snap.point(140, 250, 260)), direct.mask)
        direct.add(Prompt(SCRIBBLE, True, (140, 250, 230), np.ones((1, 1, 60), bool)))
        np.testing.assert_array_equal(snap.mask(snap.draw("scribble", stroke)), direct.mask)
        direct.add(Prompt(SCRIBBLE, False, (140, 190, 210), np.ones((1, 6, 90), bool)))
        np.testing.assert_array_equal(snap.mask(snap.draw("scribble", beside, foreground=False)), direct.mask)
        assert direct.mask.any()


def test_a_host_that_forwards_no_sockets(clean: str, short_folder: Path) -> None:
    """The server listens on a loopback port, where only those who can prove that they know its secret get in."""
    with sshd.running(short_folder, options="AllowStreamLocalForwarding no") as server:
        session, reporter = connected(server, clean)
        assert any("secret" in note for note in reporter.notes)
        assert session.server_field == "localhost" and session.state.port
        assert ItkSnap(session.state.port).get("/status").status == 401
        # Not for a web page that makes its own host name mean this computer, though.
        assert ItkSnap(session.port).get("/status", ("Host: rebound.example",)).status == 403
        assert ItkSnap(session.port).start()
        session.close()
        found_again, reporter = connected(server, clean)
        assert found_again.state.pid == session.state.pid and reporter.notes == []
        found_again.close()


def test_a_host_that_forbids_all_forwarding(clean: str, short_folder: Path) -> None:
    """The error says so in one sentence."""
    with (
        sshd.running(short_folder, options="DisableForwarding yes") as server,
        pytest.raises(ForwardError, match="every kind"),
    ):
        connected(server, clean)


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), pytest.param(socket.AF_INET6, "::1", marks=NEEDS_IPV6)],
)
def test_the_local_port(
    host: sshd.Server, clean: str, family: socket.AddressFamily, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the usual one or, with a note, the next free one; a port that was asked for and is taken is an error.

    A port that another program has on [::1] alone is taken too: "localhost" would lead there.
    """
    with socket.socket(family) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((address, 0))  # 8911 itself may be another program's, and come free at any time
        taken.listen()
        usual = taken.getsockname()[1]
        for module in (listener, opening):
            monkeypatch.setattr(module, "DEFAULT_PORT", usual)
        session, reporter = connected(host, clean, local_port=None)
        assert session.port != usual and any(f"{usual} is taken" in note for note in reporter.notes)
        session.close()
        with pytest.raises(ForwardError, match=str(usual)) as caught:
            connected(host, clean, local_port=usual)
        assert "--local-port" in caught.value.hint


@NEEDS_IPV6
def test_the_local_port_on_both_loopback_addresses(host: sshd.Server, clean: str) -> None:
    """A client that takes "localhost" for [::1] reaches the same server, and both ports close with the session."""
    session, _ = connected(host, clean)
    for address in ("127.0.0.1", "[::1]", "localhost"):
        snap = ItkSnap(session.port, address)
        snap.start()
        assert snap.upload(np.zeros((3, 4, 5), np.float32)).status == 200
        assert snap.get("/status").status == 200
    session.close()
    for address in ("127.0.0.1", "::1"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, session.port), 10).close()


def test_two_clients_share_a_server(host: sshd.Server, clean: str) -> None:
    """Each has its own connection and its own session."""
    with connected(host, clean)[0] as one, connected(host, clean)[0] as two:
        assert one.state.pid == two.state.pid and one.port != two.port
        assert ItkSnap(one.port).start() != ItkSnap(two.port).start()


def test_two_clients_that_start_at_once_start_one_server(host: sshd.Server, clean: str) -> None:
    """The later ones use the server that the first one starts."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(connected, host, clean) for _ in range(3)]
        sessions = [future.result()[0] for future in futures]
    assert len({session.state.pid for session in sessions}) == 1
    for session in sessions:
        session.close()


def test_nothing_stays_open_when_a_phase_fails(host: sshd.Server, clean: str) -> None:
    """After a failed connect, no SSH connection is left and no supervisor."""
    before = set(open_connections())
    with pytest.raises(LaunchError):
        connected(host, clean, device="cuda")
    until(lambda: set(open_connections()) <= before)
    with connected(host, clean)[0]:
        assert not set(open_connections()) <= before  # they can be seen
    until(lambda: set(open_connections()) <= before)


def open_connections() -> list[threading.Thread]:
    """Return the threads that serve an SSH connection, and the supervisors."""
    return [thread for thread in threading.enumerate() if isinstance(thread, paramiko.Transport | Supervisor)]


def test_the_command_line(host: sshd.Server, clean: str, short_folder: Path) -> None:
    """Standard output has JSON lines only; Ctrl-C closes cleanly; `logs` and `stop` reach the same server."""
    log = short_folder / "log"
    stderr = log.open("w")
    process = subprocess.Popen(
        command(host, clean, "connect", "--json", "--local-port", str(free_port())),
        stdout=subprocess.PIPE, stderr=stderr, text=True, stdin=subprocess.DEVNULL, preexec_fn=interruptible,
    )  # fmt: skip
    assert process.stdout is not None
    stderr.close()
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        if events[-1]["event"] == "ready":
            break
    ready = events[-1]
    assert [event["phase"] for event in events[:-1] if event["event"] == "phase"] == list(ready["seconds"])
    assert ready["server"] == "localhost" and ready["url"] == f"http://localhost:{ready['port']}"
    assert ItkSnap(ready["port"]).start()
    process.send_signal(signal.SIGINT)
    rest = [json.loads(line) for line in process.stdout]
    assert process.wait(20) == 0 and rest[-1] == {"event": "closed", "reason": "interrupted"}
    process.stdout.close()
    progress = log.read_text()
    assert "Logged in to" in progress and "Traceback" not in progress
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", ready["port"]), timeout=1)
    logs = subprocess.run(command(host, clean, "logs", "-n", "5"), capture_output=True, text=True, check=True)
    assert "GET start_session: 200" in logs.stdout
    stopped = subprocess.run(command(host, clean, "stop"), capture_output=True, text=True, check=True)
    assert "Ended the server" in stopped.stderr
    second_stop = subprocess.run(command(host, clean, "stop"), capture_output=True, text=True, check=True)
    assert "No server was running" in second_stop.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_as_ctrl_c_does(host: sshd.Server, clean: str, number: signal.Signals) -> None:
    """So does a terminal that is closed; `--stop-server` ends the server."""
    process = subprocess.Popen(
        command(host, clean, "connect", "--json", "--stop-server", "--local-port", str(free_port())),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, stdin=subprocess.DEVNULL,
        preexec_fn=interruptible,
    )  # fmt: skip
    assert process.stdout is not None
    ready = next(event for event in map(json.loads, process.stdout) if event["event"] == "ready")
    assert not is_gone(ready["pid"])
    process.send_signal(number)
    assert process.wait(30) == 0
    process.stdout.close()
    assert is_gone(ready["pid"])
