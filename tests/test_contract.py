"""What laptop and host agree on: one side's code writes, and the other side's code reads."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from dls.contract import (
    ALREADY_RUNNING,
    ENDED_FILE,
    LAUNCH_FILE,
    MANIFEST_FILE,
    NOT_INSTALLED,
    STATE_FILE,
    LaunchFile,
    ServerState,
    session_folders,
)
from dls.remote.host import launch, probe, stored_sessions
from dls.remote.host.install import InstallPlan
from dls.remote.host.options import ServerOptions
from dls.remote.host.packages import Requirements
from dls.remote.host.probe import Depth, HostReport
from dls.remote.host.stored_sessions import StoredSession
from dls.remote.tunnel import headers
from dls.server import locks
from dls.server.options import from_launch_file
from dls.server.registration import Registration
from dls.server.sessions import journal
from dls.server.sessions.folders import choose_folders
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap

STATE = ServerState(
    pid=7, secret="s3cret", code="c0de", request="0p7s", socket="/run/server.sock", port=4711, engine="region",
    device="cpu", log="/h/log/server.log", version="0.1.0",
)  # fmt: skip
STATE_BEFORE = (
    '{"format": 1, "pid": 7, "secret": "s3cret", "code": "c0de", "version": "0.1.0", "request": "0p7s", '
    '"socket": "/run/server.sock", "port": 4711, "engine": "region", "device": "cpu", "log": "/h/log/server.log"}\n'
)
"""State file as the first release wrote it."""
ENDED_BEFORE = '{"format": 1, "why": "stopped"}\n'
MANIFEST_BEFORE = (
    b'{"format": 1, "id": "0f8fad5b-d9cb-469f-a165-70867728950e", "model": "region", "engine": "region", "image": '
    b'{"path": "/var/tmp/dls-0/x/image-1.gz", "bytes": 10, "geometry": {"shape": [30, 40, 50], "spacing": '
    b'[1.0, 1.0, 1.0], "origin": [0.0, 0.0, 0.0], "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0], '
    b'"components": 1}, "request": "r"}, "journal": "prompts-1", "number": 1}\n5b377731\n'
)
MANIFEST_NOW = (
    MANIFEST_BEFORE.replace(b'"format": 1', b'"format": 2').partition(b'"journal"')[0]
    + b'"journal": "prompts-2", "number": 2, "end": {"count": 0, "length": 0, "crc": 3890295258}}'
    + b" " * 578
    + b"\n6141b6ae\n"
)
"""Manifest of the same session with the next journal, as this release writes it."""


def plan(root: Path) -> InstallPlan:
    return InstallPlan(
        environment=f"{root}/env/e", code=f"{root}/code/c0de", make_environment=False, send_code=False,
        requirements=Requirements(("six",), 1), run_dir=f"{root}/run", remote_key="k", root=str(root),
    )  # fmt: skip


def probe_here(remote_dir: Path) -> HostReport:
    """Run the probe's script in this machine's shell, without a connection."""
    script = probe.script(str(remote_dir), Depth.SERVER)
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=True)
    return probe.parse(done.stdout, str(remote_dir))


@contextlib.contextmanager
def process() -> Iterator[int]:
    """Run a process that looks like a server of ours; yields its number."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", "--launch-file"]
    with subprocess.Popen(command) as started:
        yield started.pid
        started.kill()


def written(folder: Path, state: ServerState) -> Registration:
    folder.mkdir(parents=True, exist_ok=True)
    registration = Registration(folder, state)
    registration.register()
    return registration


@pytest.mark.parametrize(
    "options", [ServerOptions(), ServerOptions(idle_minutes=0, session_ttl_days=1.5, session_disk_gib=1.5, tcp=True)]
)
def test_the_server_reads_the_launch_file(tmp_path: Path, options: ServerOptions) -> None:
    """The client gives minutes and days; the server gets seconds, and None for never."""
    path = tmp_path / LAUNCH_FILE
    file = launch.launch_file(options, plan(tmp_path), "c0de", "/log", replace(STATE, run_dir=str(tmp_path)))
    path.write_text(file.dump())
    read = from_launch_file(path)
    assert read.launch == file == LaunchFile.parse(path.read_text()) and file.replaces == STATE.pid
    assert read.idle == (options.idle_minutes * 60 or None) and read.session_ttl == options.session_ttl_days * 86400
    assert read.session_disk == options.session_disk_gib * (1 << 30)
    assert read.uds == tmp_path / "run" / options.key / "server.sock" and read.name == "k"
    assert read.host == ("127.0.0.1" if options.tcp else None) and read.port == 0


def test_a_launch_file_of_a_client_that_knows_no_quota(tmp_path: Path) -> None:
    """The server takes its default, and a server serves clients that ask for another one."""
    file = json.loads(launch.launch_file(ServerOptions(), plan(tmp_path), "c0de", "/log").dump())
    del file["session_disk"]
    assert LaunchFile.parse(json.dumps(file)).session_disk == 0
    assert ServerOptions(session_disk_gib=5).key == ServerOptions().key


def test_every_option_reaches_the_server(tmp_path: Path) -> None:
    """Options that are not their default arrive under the server's names."""
    options = ServerOptions(
        "nninteractive", "cuda:3", 3, True, True, "m", "/models", False, True, "/ca", True, False, "/sessions"
    )
    path = tmp_path / LAUNCH_FILE
    path.write_text(launch.launch_file(options, plan(tmp_path), "c0de", "/log").dump())
    read = from_launch_file(path)
    spec = read.engine_options.models
    assert (read.engine, read.engine_options.device, read.stand_in) == ("nninteractive", "cuda:0", True)
    assert (spec.model, spec.network, spec.insecure) == ("m", False, True)
    assert (read.engine_options.compile, read.engine_options.native_api) == (True, False)
    assert read.session_dir == Path("/sessions")


def test_the_probe_reads_the_state_file(short_folder: Path) -> None:
    """The server's registration writes the file, and the probe of the client finds the same state."""
    run = short_folder / "run" / "k"
    with process() as pid:
        state = replace(STATE, pid=pid, run_dir=str(run))
        written(run, state)
        assert probe_here(short_folder).servers == (state,)
    assert probe_here(short_folder).servers == ()


def test_the_probe_reads_that_a_server_ended_on_purpose(short_folder: Path) -> None:
    """The server's registration says so, and the next server takes it back."""
    run = short_folder / "run" / "k"
    with process() as pid:
        state = replace(STATE, pid=pid, run_dir=str(run))
        written(run, state).unregister("idle")
        found = probe_here(short_folder)
        assert found.ended == {str(run)} and found.servers == ()
        written(run, state)
        found = probe_here(short_folder)
        assert found.ended == frozenset() and found.servers == (state,)


def test_the_stop_script_says_the_same(short_folder: Path) -> None:
    """The script of the client ends the process and writes what the server itself would write."""
    run = short_folder / "run" / "k"
    with process() as pid:
        state = replace(STATE, pid=pid, run_dir=str(run))
        written(run, state).unregister("stopped")
        by_the_server = (run / ENDED_FILE).read_text()
        written(run, state)
        subprocess.run(["sh", "-s"], input=launch.stop_script(state), text=True, check=True)
    assert (run / ENDED_FILE).read_text() == by_the_server == ENDED_BEFORE
    assert not (run / STATE_FILE).exists() and probe_here(short_folder).ended == {str(run)}


@pytest.mark.parametrize("base", [None, "/data/it's"])
def test_both_sides_name_the_same_session_folders(base: str | None) -> None:
    """Otherwise `dls sessions` would list nothing."""
    folders = choose_folders(Path(base) if base else None, "k")
    named = session_folders(os.getuid(), "k", base)
    assert str(folders.home) == named[0]
    assert folders.earlier is None or str(folders.earlier) == named[1]


def test_the_list_shows_what_the_store_wrote(tmp_path: Path) -> None:
    """Sessions with and without an image, from a real server, as the client's script and parser see them."""
    with serving(folder=tmp_path) as server:
        with_image, empty = ItkSnap(server.port), ItkSnap(server.port)
        empty.start()
        with_image.start()
        assert with_image.upload(np.zeros((3, 4, 5), np.float32)).status == 200
        [manifest] = tmp_path.rglob(f"{with_image.session}/{MANIFEST_FILE}")
        found = {session.id: session for session in list_here(manifest.parents[1])}
    assert found[with_image.session].size == (5, 4, 3) and found[with_image.session].model == "region"
    assert found[empty.session].size is None and found[empty.session].kib > 0
    assert all(0 <= session.idle < 3600 for session in found.values())


def list_here(folder: Path) -> list[StoredSession]:
    script = stored_sessions.list_script([str(folder)])
    done = subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=True)
    return stored_sessions.read_list(done.stdout)


def test_the_server_reads_the_headers_of_the_tunnel(tmp_path: Path) -> None:
    """A prompt that comes twice under one name is applied once, and a repeated end of a session is no error."""

    def marked(name: str, *, again: bool) -> tuple[str, ...]:
        pairs = headers.build_request_headers([(b"Host", b"localhost")], name, is_retry=again)
        return tuple(f"{key.decode()}: {value.decode()}" for key, value in pairs)

    with serving(folder=tmp_path) as server:
        snap = ItkSnap(server.port)
        snap.start()
        snap.upload(np.zeros((3, 3, 3), np.float32))
        click = f"/v2/process_point_interaction/{snap.session}?point=1&point=1&point=1&foreground=true"
        answers = [snap.get(click, marked("first", again=again)).body for again in (False, True)]
        assert answers[0] == answers[1]
        [path] = tmp_path.rglob("prompts-*")
        manifest = journal.decode_manifest(path.with_name(MANIFEST_FILE).read_bytes())
        assert [record.request for record in journal.decode_journal(path.read_bytes(), manifest).records] == ["first"]
        end = f"/end_session/{snap.session}"
        assert [snap.get(end, marked("end", again=again)).status for again in (False, True)] == [200, 200]
        assert snap.get(end, marked("other", again=False)).status == 404


def log_of(arguments: list[str], before: str = "pass") -> str:
    """Run `dls` as the launch script does, and return what it leaves in the log."""
    code = f"import sys; {before}; sys.argv[0] = 'dls'; import runpy; runpy.run_module('dls', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode != 0
    return f"{launch.STARTING}\n{done.stdout}{done.stderr}"


def test_the_client_recognises_that_a_server_runs_already(short_folder: Path) -> None:
    """A server that finds the lock taken ends with the sentence that the client looks for."""
    options = ServerOptions(session_dir=str(short_folder / "sessions"))
    file = launch.launch_file(options, plan(short_folder), "c0de", "/log")
    Path(file.run_dir).mkdir(parents=True, mode=0o700)
    path = short_folder / LAUNCH_FILE
    path.write_text(file.dump())
    folders = choose_folders(Path(str(options.session_dir)), file.name)
    folders.home.mkdir(parents=True, mode=0o700)
    with locks.exclusive(folders.home / f"{file.request}.lock"):
        log = log_of(["serve", "--launch-file", str(path)])
    assert launch.is_there_already(log) and not launch.is_damaged(log)
    assert launch.find_error(log)[0] == ALREADY_RUNNING
    assert not launch.is_there_already(f"{log}\n{launch.STARTING}\n")


def test_the_client_recognises_a_server_without_its_packages(short_folder: Path) -> None:
    """A server whose package is missing ends with the sentence that makes the client install again."""
    path = short_folder / LAUNCH_FILE
    path.write_text(launch.launch_file(ServerOptions(), plan(short_folder), "c0de", "/log").dump())
    log = log_of(["serve", "--launch-file", str(path)], before="sys.modules['starlette'] = None")
    sentence, hint = launch.find_error(log)
    assert NOT_INSTALLED in sentence and hint
    assert launch.is_damaged(sentence) and not launch.is_there_already(log)


def test_files_of_the_release_before_are_read(short_folder: Path) -> None:
    """State, ended file and manifest, byte for byte as that release wrote them."""
    run = short_folder / "run" / "k"
    run.mkdir(parents=True)
    with process() as pid:
        (run / STATE_FILE).write_text(STATE_BEFORE.replace('"pid": 7', f'"pid": {pid}'))
        assert probe_here(short_folder).servers == (replace(STATE, pid=pid, run_dir=str(run)),)
    (run / STATE_FILE).unlink()
    (run / ENDED_FILE).write_text(ENDED_BEFORE)
    assert probe_here(short_folder).ended == {str(run)}
    manifest = journal.decode_manifest(MANIFEST_BEFORE)
    assert manifest.image is not None and manifest.image.geometry.shape == (30, 40, 50)
    folder = short_folder / "sessions"
    (folder / manifest.id).mkdir(parents=True)
    (folder / manifest.id / MANIFEST_FILE).write_bytes(MANIFEST_BEFORE)
    [session] = list_here(folder)
    assert (session.id, session.model, session.size) == (manifest.id, "region", (50, 40, 30))


def test_files_are_written_as_in_the_release_before() -> None:
    """An older client reads them: the state has the same fields, a manifest that it wrote keeps its bytes.

    The first prompt or image changes the manifest's format: a server of that release, which could not notice damage,
    sets such a session aside as one of another version instead of reading a journal that it does not understand.
    """
    assert json.loads(STATE.dump()) == json.loads(STATE_BEFORE)
    manifest = journal.decode_manifest(MANIFEST_BEFORE)
    assert journal.encode_manifest(manifest) == MANIFEST_BEFORE
    assert journal.encode_manifest(journal.next_journal(manifest)) == MANIFEST_NOW


def test_the_manifest_of_this_release_is_read() -> None:
    """Byte for byte as this release writes it, with the place where its journal ends."""
    manifest = journal.decode_manifest(MANIFEST_NOW)
    assert (manifest.journal, manifest.end) == ("prompts-2", journal.start_of(manifest.id, "prompts-2"))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (ServerOptions("region"), "44136fa355b3"),
        (ServerOptions(engine="nninteractive", device="cuda:1", gpu=1), "79a7ff218ce8"),
        (ServerOptions("region", native_api=False), "b2c42b8a06d0"),
        (ServerOptions("region", tcp=True), "35a0bdb3024e"),
        (
            ServerOptions(
                "region",
                model="nnInteractive_v1.0",
                models_path="~/m",
                network=False,
                insecure=True,
                ca_bundle="/c.pem",
                compile=True,
            ),
            "5f710623f83a",
        ),
        (ServerOptions("region", stand_in=True, session_dir="/data/s"), "3246be53a293"),
        (ServerOptions("region", session_ttl_days=1, idle_minutes=5), "44136fa355b3"),
    ],
)
def test_options_have_the_digest_of_the_release_before(options: ServerOptions, key: str) -> None:
    """A client of this release finds the servers that the release before started."""
    assert options.key == key
    assert set(asdict(options)) >= {"idle_minutes", "session_ttl_days"}
