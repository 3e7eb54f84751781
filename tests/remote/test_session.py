"""The whole way: `connect` to a real OpenSSH server, and what it leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import dls
from dls.demo import sshd
from dls.errors import DlsError, ForwardError, HostError, LaunchError, TargetError
from dls.remote import install, launch, session
from dls.remote.connection import Connection
from dls.remote.launch import ServerRequest
from dls.remote.packages import Code, requirements
from dls.remote.probe import Depth, probe
from dls.remote.progress import Phase, Silent
from dls.remote.prompts import NoPrompter
from dls.remote.session import Reach, connect
from dls.server.engines.region import RegionEngine
from dls.server.volume import SCRIBBLE, Geometry, Prompt, Volume
from tests.live import Snap
from tests.shapes import ellipsoid, noisy


class Story(Silent):
    """Remembers the phases and notes."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.links: list[bool] = []

    def link(self, is_open: bool, text: str) -> None:
        self.links.append(is_open)

    def done(self, phase: str, text: str, seconds: float) -> None:
        self.phases.append(phase)

    def note(self, text: str) -> None:
        self.notes.append(text)


def is_gone(pid: int) -> bool:
    """Whether the process has ended; where nothing reaps orphans, it stays as a zombie."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def opened(host: sshd.Server, remote_dir: str, **options: object) -> tuple[dls.Session, Story]:
    story = Story()
    options.setdefault("local_port", free_port())
    made = connect("dls-demo", ssh_config=host.config, remote_dir=remote_dir, reporter=story, **options)  # type: ignore[arg-type]
    return made, story


@pytest.fixture
def clean(host: sshd.Server, remote_dir: str) -> Iterator[str]:
    """The remote directory, with no server running before or after."""
    reach = Reach("dls-demo", ssh_config=host.config, remote_dir=remote_dir)
    session.stop_server(reach, NoPrompter(), Silent())
    yield remote_dir
    session.stop_server(reach, NoPrompter(), Silent())


def test_a_server_is_started_once_and_found_again(host: sshd.Server, clean: str) -> None:
    """With the environment in place it is only started; warm it is only found; it lives on without the client."""
    first, story = opened(host, clean)
    assert story.phases[:5] == ["resolve", "login", "probe", "launch", "forward"]
    assert story.phases[5:] in ([], ["engine"])
    assert Snap(first.port).get("/status").json == {"status": "ok", "version": "0.1.6"}
    first.close()
    with opened(host, clean)[0] as second:
        assert second.state.pid == first.state.pid
        assert set(second.seconds) == {"resolve", "login", "probe", "forward"}
        assert second.url == f"http://localhost:{second.port}" and second.server_field == "localhost"
        assert Snap(second.port).start()
    assert not is_gone(first.state.pid)


def test_files_are_for_their_user_only(host: sshd.Server, clean: str) -> None:
    """Socket, state, log: nobody else can open them, and no secret stands in an argument."""
    with opened(host, clean)[0] as made:
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
    with opened(host, clean)[0] as made:
        snap = Snap(made.port)
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
        made, story = opened(server, clean)
        assert any("secret" in note for note in story.notes)
        assert made.server_field == "localhost" and made.state.port
        assert Snap(made.state.port).get("/status").status == 401
        # The local port shows the secret for the user, but not for a page that calls this computer by its own name.
        assert Snap(made.port).get("/status", ("Host: rebound.example",)).status == 401
        assert Snap(made.port).start()
        made.close()
        again, story = opened(server, clean)
        assert again.state.pid == made.state.pid and story.notes == []
        again.close()


def test_a_host_that_forbids_all_forwarding(clean: str, short_folder: Path) -> None:
    """One sentence that says so."""
    with (
        sshd.running(short_folder, options="DisableForwarding yes") as server,
        pytest.raises(ForwardError, match="every kind"),
    ):
        opened(server, clean)


def test_other_code_replaces_the_server(host: sshd.Server, clean: str) -> None:
    """A server whose code is not what its state file says is ended, and ours started."""
    first, _ = opened(host, clean)
    first.close()
    state = Path(first.state.run_dir) / "state.json"
    said = json.loads(state.read_text())
    state.write_text(json.dumps({**said, "code": "other", "version": "99.0"}))
    second, _ = opened(host, clean)  # what it says of itself does not fit what stands there
    assert is_gone(first.state.pid) and second.state.pid != first.state.pid
    second.close()


def test_a_server_of_newer_code_stays(host: sshd.Server, clean: str) -> None:
    """A client of an older version works with it; one of a newer version replaces an older server, sessions kept."""
    code = Code.installed()
    newer = Code((*code.files[:-1], ("dls/newer.py", b"NEWER = True"), code.files[-1]))
    older, newest = "0.0.1", "99.0.0"
    first = _with_code(host, clean, newer, newest)
    with opened(host, clean)[0] as second:
        assert second.state.pid == first.pid and second.state.version == newest
    third = _with_code(host, clean, Code((*code.files, ("dls/older.py", b""))), older, replacing=first)
    fourth, story = opened(host, clean)
    assert fourth.state.pid != third.pid and is_gone(third.pid) and "stop" in story.phases
    fourth.close()


def _with_code(
    host: sshd.Server, remote_dir: str, code: Code, version: str, replacing: launch.ServerState | None = None
) -> launch.ServerState:
    """Start a server of another version of us, as its client would."""
    said = dict(code.files)
    said["dls/__init__.py"] = re.sub(
        rb'__version__ = ".*"', f'__version__ = "{version}"'.encode(), said["dls/__init__.py"]
    )
    code = Code(tuple(said.items()))
    request = ServerRequest()
    with connection_to(host) as link:  # type: ignore[attr-defined]
        if replacing is not None:
            launch.stop(link, replacing)
        report = probe(link, remote_dir, Depth.ALL)
        plan = install.plan(report, requirements("region"), code.key)
        install.install(link, plan, code, Phase(Silent()), own_caches=True)
        return launch.launch(link, report, plan, request, code.key, None)


def test_servers_with_other_options_run_side_by_side(host: sshd.Server, clean: str) -> None:
    """While somebody is connected; one that nobody uses makes way. A session is found by whichever runs."""
    with opened(host, clean)[0] as first, opened(host, clean, stand_in=True)[0] as second:
        assert second.state.pid != first.state.pid and not is_gone(first.state.pid)
        assert len(Snap(second.port).get("/v2/models").json["models"]) == 2
        snap = Snap(first.port)
        snap.start()
        snap.upload(np.zeros((3, 3, 3), np.float32))
        assert snap.point(1, 1, 1).status == 200
        busy = Snap(second.port)
        busy.session = snap.session
        answer = busy.point(1, 1, 1)
        assert answer.status == 409 and "another server" in answer.error
        launch.stop(first.connection, first.state)
        busy.shape = (3, 3, 3)
        assert busy.mask(busy.point(1, 1, 1))[1, 1, 1]


def test_a_state_file_that_lies_is_not_believed(host: sshd.Server, clean: str) -> None:
    """Pid, secret and code must be those of the server that answers."""
    first, _ = opened(host, clean)
    first.close()
    state = Path(first.state.run_dir) / "state.json"
    said = json.loads(state.read_text())
    for lie in ({"secret": "wrong"}, {"pid": os.getpid()}, {"socket": "/tmp/none"}):
        state.write_text(json.dumps({**said, **lie}))
        with connection_to(host) as link:
            parsed = launch.ServerState.parse(state.read_text(), str(state.parent))
            assert parsed is not None
            assert not is_alive(link, parsed), lie
    state.write_text(json.dumps(said))


def is_alive(link: Connection, state: launch.ServerState) -> bool:
    """Whether the server of the state answers as itself."""
    try:
        return bool(launch.identify(link, state))
    except DlsError:
        return False


def connection_to(host: sshd.Server) -> object:
    import contextlib

    return contextlib.closing(Connection.open(Reach("dls-demo", ssh_config=host.config).resolve()[-1], NoPrompter()))


def test_a_server_that_was_killed_is_started_again(host: sshd.Server, clean: str) -> None:
    """What it left (state file, socket, lock) is in nobody's way."""
    first, _ = opened(host, clean)
    first.close()
    os.kill(first.state.pid, signal.SIGKILL)
    with opened(host, clean)[0] as second:
        assert second.state.pid != first.state.pid
        assert Snap(second.port).start()


def test_a_server_that_can_not_start(host: sshd.Server, clean: str) -> None:
    """The log's last lines come with the error."""
    with pytest.raises(LaunchError, match="ended before it was ready") as caught:
        opened(host, clean, device="cuda")
    assert "CPU only" in caught.value.message and caught.value.hint == "Leave out --device."
    with pytest.raises(HostError, match="no GPU number 7"):
        opened(host, clean, gpu=7)
    with pytest.raises(TargetError, match="no engine"):
        opened(host, clean, engine="magic")


def test_the_local_port(host: sshd.Server, clean: str) -> None:
    """8911, or the next free one, said so; one that was asked for and is taken is an error."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 8911))
        taken.listen()
        made, story = opened(host, clean, local_port=None)
        assert made.port != 8911 and any("8911 is taken" in note for note in story.notes)
        made.close()
        with pytest.raises(ForwardError, match="8911") as caught:
            opened(host, clean, local_port=8911)
        assert "--local-port" in caught.value.hint


def test_two_clients_share_a_server(host: sshd.Server, clean: str) -> None:
    """Each with its own connection and its own session."""
    with opened(host, clean)[0] as one, opened(host, clean)[0] as two:
        assert one.state.pid == two.state.pid and one.port != two.port
        assert Snap(one.port).start() != Snap(two.port).start()


def test_two_clients_that_start_at_once_start_one_server(host: sshd.Server, clean: str) -> None:
    """Whoever comes second takes the first one's."""
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        made = [future.result()[0] for future in [pool.submit(opened, host, clean) for _ in range(3)]]
    assert len({session.state.pid for session in made}) == 1
    for session_ in made:
        session_.close()


def test_nothing_stays_open_when_a_phase_fails(host: sshd.Server, clean: str) -> None:
    """No thread of ours is left after a failed connect."""
    import threading

    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(LaunchError):
        opened(host, clean, device="cuda")
    time.sleep(0.5)
    assert {thread.name for thread in threading.enumerate() if "paramiko" in thread.name.lower()} <= before


def interruptible() -> None:
    """Undo what a shell does to a job in the background: it makes it ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def command(host: sshd.Server, remote_dir: str, verb: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "dls", verb, "-F", str(host.config), "--remote-dir", remote_dir, *more, "dls-demo"]


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
    assert Snap(ready["port"]).start()
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


def test_what_was_damaged_is_installed_again(host: sshd.Server, clean: str) -> None:
    """A package that is gone, our code that is gone: said, and mended; the session is still there."""
    made, _ = opened(host, clean)
    snap = Snap(made.port)
    snap.start()
    snap.upload(np.zeros((3, 3, 3), np.float32))
    made.close(stop_server=True)
    for numpy in Path(clean).glob("env/*/lib/python*/site-packages/numpy/__init__.py"):
        numpy.unlink()
    made, story = opened(host, clean)
    assert any("damaged" in note for note in story.notes) and "install" in story.phases
    snap.url = f"http://127.0.0.1:{made.port}"
    assert snap.point(1, 1, 1).status == 200
    made.close(stop_server=True)
    Path(f"{clean}/code/{Code.installed().key}/dls/server/serve.py").write_text("this is no Python")
    made, story = opened(host, clean)
    assert any("damaged" in note for note in story.notes)
    assert Snap(made.port).start()
    made.close()


def test_an_idle_server_ends_and_comes_back(host: sshd.Server, clean: str) -> None:
    """Not while a client is connected; then the GPU is free; the next connect finds the session."""
    made, _ = opened(host, clean, idle=6.0)
    snap = Snap(made.port)
    snap.start()
    snap.upload(np.zeros((3, 3, 3), np.float32))
    pid = made.state.pid
    time.sleep(8)
    assert not is_gone(pid)
    made.close()
    for _ in range(300):
        if is_gone(pid):
            break
        time.sleep(0.1)
    assert is_gone(pid)
    log = subprocess.run(command(host, clean, "logs", "-n", "50"), capture_output=True, text=True, check=True)
    assert "nobody has asked for anything" in log.stdout
    made, _ = opened(host, clean)
    snap.url = f"http://127.0.0.1:{made.port}"
    assert made.state.pid != pid and snap.point(1, 1, 1).status == 200
    made.close()


def test_the_sessions_command(host: sshd.Server, clean: str) -> None:
    """Lists what is kept, with sizes, whether a server runs or not; removes what is named, never without being told."""
    made, _ = opened(host, clean)
    snaps = [Snap(made.port) for _ in range(3)]
    for snap in snaps:
        snap.start()
    snaps[0].upload(np.random.default_rng(0).normal(size=(30, 40, 50)).astype(np.float32))

    def listed(*more: str) -> list[dict[str, object]]:
        done = subprocess.run(command(host, clean, "sessions", "--json", *more), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    there = {row["id"]: row for row in listed()}
    ours = there[snaps[0].session]
    assert ours["size"] == [50, 40, 30] and ours["model"] == "region" and int(str(ours["bytes"])) > 200_000
    assert there[snaps[1].session]["size"] is None
    asked = subprocess.run(command(host, clean, "sessions", "--purge"), capture_output=True, text=True)
    assert asked.returncode == 10 and "--yes" in asked.stderr
    words = [*command(host, clean, "sessions", "--purge", "--yes"), snaps[0].session[:8]]
    assert "Removed 1 of" in subprocess.run(words, capture_output=True, text=True, check=True).stderr
    assert snaps[0].point(1, 1, 1).status == 404
    table = subprocess.run(command(host, clean, "sessions"), capture_output=True, text=True, check=True)
    assert snaps[1].session[:8] in table.stdout and "no image" in table.stdout
    made.close(stop_server=True)
    listed("--purge", "--yes")
    assert listed() == []


def test_a_disk_that_is_full_while_installing(host: sshd.Server, short_folder: Path) -> None:
    """A sentence with a hint, and nothing half is left that the next try would take for whole."""
    from tests.server.test_durability import small_disk

    with small_disk(short_folder / "disk", "30m") as disk:
        with pytest.raises(DlsError) as caught:
            opened(host, f"{disk}/host")
        assert "--remote-dir" in caught.value.hint or "room" in caught.value.hint
        assert not list(disk.glob("host/env/*/complete.json")) and not list(disk.glob("host/env/.making*"))


def test_a_server_whose_files_were_cleaned_away_is_not_doubled(host: sshd.Server, clean: str) -> None:
    """A cleaner of /tmp takes state and socket of a server that lives: it is found when it has put them back."""
    first, _ = opened(host, clean)
    first.close()
    shutil.rmtree(first.state.run_dir)
    second, _ = opened(host, clean)
    assert second.state.pid == first.state.pid and Snap(second.port).start()
    assert Path(second.state.run_dir).stat().st_mode & 0o777 == 0o700
    second.close()
