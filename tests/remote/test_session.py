"""The whole way: `connect` to a real OpenSSH server, and what it leaves."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from dls.demo import sshd
from dls.errors import ForwardError, LaunchError
from dls.server.engines.region import RegionEngine
from dls.server.volume import SCRIBBLE, Geometry, Prompt, Volume
from tests.support.connecting import command, connected
from tests.support.itksnap import ItkSnap
from tests.support.processes import free_port, interruptible, is_gone
from tests.support.synthetic import ellipsoid, noisy


def test_a_server_is_started_once_and_found_again(host: sshd.Server, clean: str) -> None:
    """With the environment in place it is only started; warm it is only found; it lives on without the client."""
    first, story = connected(host, clean)
    assert story.phases[:5] == ["resolve", "login", "probe", "launch", "forward"]
    assert story.phases[5:] in ([], ["engine"])
    assert ItkSnap(first.port).get("/status").json == {"status": "ok", "version": "0.1.6"}
    first.close()
    with connected(host, clean)[0] as second:
        assert second.state.pid == first.state.pid
        assert set(second.seconds) == {"resolve", "login", "probe", "forward"}
        assert second.url == f"http://localhost:{second.port}" and second.server_field == "localhost"
        assert ItkSnap(second.port).start()
    assert not is_gone(first.state.pid)


def test_files_are_for_their_user_only(host: sshd.Server, clean: str) -> None:
    """Socket, state, log: nobody else can open them, and no secret stands in an argument."""
    with connected(host, clean)[0] as made:
        run = Path(made.state.run_dir)
        assert run.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o077 for path in run.iterdir()} == {0}
        assert Path(made.state.log).stat().st_mode & 0o077 == 0
        arguments = Path(f"/proc/{made.state.pid}/cmdline").read_bytes()
        assert b"launch-file" in arguments and made.state.secret.encode() not in arguments
        assert made.state.secret not in Path(made.state.log).read_text()


def test_what_the_user_draws_comes_back_voxel_for_voxel(host: sshd.Server, clean: str) -> None:
    """512 x 512 x 300 through the forward, against the same prompts on the engine called directly."""
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
    with connected(host, clean)[0] as made:
        snap = ItkSnap(made.port)
        snap.start()
        assert snap.upload(volume).status == 200
        direct.add(Prompt.point(140, 250, 260, foreground=True))
        np.testing.assert_array_equal(snap.mask(snap.point(140, 250, 260)), direct.mask)
        direct.add(Prompt(SCRIBBLE, True, (140, 250, 230), np.ones((1, 1, 60), bool)))
        np.testing.assert_array_equal(snap.mask(snap.draw("scribble", stroke)), direct.mask)
        direct.add(Prompt(SCRIBBLE, False, (140, 190, 210), np.ones((1, 6, 90), bool)))
        np.testing.assert_array_equal(snap.mask(snap.draw("scribble", beside, foreground=False)), direct.mask)
        assert direct.mask.any()


def test_sockets_that_may_not_be_forwarded(clean: str, short_folder: Path) -> None:
    """A loopback port and a secret instead: nobody on the host gets in without it, and the user need not know it."""
    with sshd.running(short_folder, options="AllowStreamLocalForwarding no") as server:
        made, story = connected(server, clean)
        assert any("secret" in note for note in story.notes)
        assert made.server_field == "localhost" and made.state.port
        assert ItkSnap(made.state.port).get("/status").status == 401
        # The local port shows the secret for the user, but not for a page that calls this computer by its own name.
        assert ItkSnap(made.port).get("/status", ("Host: rebound.example",)).status == 401
        assert ItkSnap(made.port).start()
        made.close()
        again, story = connected(server, clean)
        assert again.state.pid == made.state.pid and story.notes == []
        again.close()


def test_a_host_that_forbids_all_forwarding(clean: str, short_folder: Path) -> None:
    """One sentence that says so."""
    with (
        sshd.running(short_folder, options="DisableForwarding yes") as server,
        pytest.raises(ForwardError, match="every kind"),
    ):
        connected(server, clean)


def test_the_local_port(host: sshd.Server, clean: str) -> None:
    """8911, or the next free one, said so; one that was asked for and is taken is an error."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 8911))
        taken.listen()
        made, story = connected(host, clean, local_port=None)
        assert made.port != 8911 and any("8911 is taken" in note for note in story.notes)
        made.close()
        with pytest.raises(ForwardError, match="8911") as caught:
            connected(host, clean, local_port=8911)
        assert "--local-port" in caught.value.hint


def test_two_clients_share_a_server(host: sshd.Server, clean: str) -> None:
    """Each with its own connection and its own session."""
    with connected(host, clean)[0] as one, connected(host, clean)[0] as two:
        assert one.state.pid == two.state.pid and one.port != two.port
        assert ItkSnap(one.port).start() != ItkSnap(two.port).start()


def test_two_clients_that_start_at_once_start_one_server(host: sshd.Server, clean: str) -> None:
    """Whoever comes second takes the first one's."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        made = [future.result()[0] for future in [pool.submit(connected, host, clean) for _ in range(3)]]
    assert len({session.state.pid for session in made}) == 1
    for session_ in made:
        session_.close()


def test_nothing_stays_open_when_a_phase_fails(host: sshd.Server, clean: str) -> None:
    """No thread of ours is left after a failed connect."""
    import threading

    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(LaunchError):
        connected(host, clean, device="cuda")
    time.sleep(0.5)
    assert {thread.name for thread in threading.enumerate() if "paramiko" in thread.name.lower()} <= before


def test_the_command_line(host: sshd.Server, clean: str, short_folder: Path) -> None:
    """JSON lines alone on standard output; Ctrl-C closes cleanly; `logs` and `stop` reach the same server."""
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
    again = subprocess.run(command(host, clean, "stop"), capture_output=True, text=True, check=True)
    assert "No server was running" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_as_ctrl_c_does(host: sshd.Server, clean: str, number: signal.Signals) -> None:
    """A closed terminal too; `--stop-server` ends the server."""
    process = subprocess.Popen(
        command(host, clean, "connect", "--json", "--stop-server", "--local-port", str(free_port())),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    ready = next(event for event in map(json.loads, process.stdout) if event["event"] == "ready")
    assert not is_gone(ready["pid"])
    process.send_signal(number)
    assert process.wait(30) == 0
    process.stdout.close()
    assert is_gone(ready["pid"])
