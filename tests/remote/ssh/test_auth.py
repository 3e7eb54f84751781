"""Which credential, in what order, and when to ask: against a server that asks questions in rounds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from dls.demo import sshd
from dls.errors import LoginError
from dls.gpus import Gpu
from dls.remote.host.options import ServerOptions, choose_gpu
from dls.remote.ssh.auth import next_method
from dls.remote.ssh.connection import Connection
from dls.remote.ssh.login import LoginOptions, resolve_hops
from dls.remote.ssh.prompts import NoPrompter
from dls.remote.ssh.target import Target

CODE = "492039"


class Asking(asyncssh.SSHServer):
    """Asks for a password, then for a one-time code."""

    def begin_auth(self, username: str) -> bool:
        return True

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "Two steps", "", "", [("Password: ", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        if list(responses) == ["tr0ub4dor"]:
            return "", "", "", [("Verification code: ", True)]
        return list(responses) == [CODE]


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[Target]:
    host_key = sshd._write_key(tmp_path / "host_key")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> Any:
        keys = [str(tmp_path / "host_key")]
        return await asyncssh.listen("127.0.0.1", 0, server_factory=Asking, server_host_keys=keys)

    server = asyncio.run_coroutine_threadsafe(listen(), loop).result(10)
    port = server.sockets[0].getsockname()[1]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    yield Target("asking", "127.0.0.1", port, "ann", known_hosts=(tmp_path / "known",))
    loop.call_soon_threadsafe(server.close)
    time.sleep(0.1)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class Person(NoPrompter):
    """Answers in the thread that logs in, where Ctrl-C arrives."""

    def __init__(self, code: str | BaseException) -> None:
        self.code = code
        self.asked: list[tuple[str, bool]] = []

    def secret(self, prompt: str) -> str:
        self.asked.append((prompt, False))
        return "tr0ub4dor"

    def answer(self, prompt: str, echo: bool) -> str:
        assert threading.current_thread() is threading.main_thread()
        self.asked.append((prompt, echo))
        if isinstance(self.code, BaseException):
            raise self.code
        return self.code


pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_a_password_and_a_code(asking: Target) -> None:
    """Two rounds; the password may come from the option."""
    person = Person(CODE)
    connection = Connection.open(asking, person)
    assert person.asked == [("Password: ", False), ("Verification code: ", True)]
    assert connection.how == "the host's questions"
    connection.close()
    person = Person(CODE)
    Connection.open(asking, person, password="tr0ub4dor").close()
    assert person.asked == [("Verification code: ", True)]


def test_ctrl_c_at_a_question_ends_at_once(asking: Target) -> None:
    """The question is asked in our thread, not in paramiko's, where nobody could interrupt it."""
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        Connection.open(asking, Person(KeyboardInterrupt()))
    assert time.monotonic() - started < 60


def test_wrong_codes_and_nobody_to_ask(asking: Target) -> None:
    """Three tries, then a sentence; without a terminal the option is named."""
    person = Person("000000")
    with pytest.raises(LoginError, match="accepted no login"):
        Connection.open(asking, person)
    assert len(person.asked) == 6
    with pytest.raises(LoginError, match="no terminal"):
        Connection.open(asking, NoPrompter())


def test_methods_that_ask_nobody_come_first() -> None:
    """And none twice."""
    assert next_method(["password", "publickey"], set()) == "publickey"
    assert next_method(["password", "publickey"], {"publickey"}) == "password"
    assert next_method(["gssapi-with-mic"], set()) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a user, so it needs root")
def test_a_locked_key_does_not_keep_a_password_from_being_tried(short_folder: Path, tmp_path: Path) -> None:
    """Without a terminal its passphrase can't be asked for; neither does a key of an unknown kind end the login."""
    subprocess.run(["userdel", "-f", "dlstest"], check=False, capture_output=True)
    subprocess.run(["useradd", "-M", "-d", "/tmp", "-s", "/bin/sh", "dlstest"], check=True)
    subprocess.run(["chpasswd"], input="dlstest:tr0ub4dor", text=True, check=True)
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", str(locked)], check=True)
    odd = tmp_path / "odd"
    odd.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
    short_folder.chmod(0o755)
    try:
        with sshd.running(short_folder, options="PasswordAuthentication yes") as server:
            target = resolve_hops("dls-demo", LoginOptions(ssh_config=server.config))[-1]
            target = replace(target, user="dlstest", identities=(odd, locked))
            connection = Connection.open(target, NoPrompter(), password="tr0ub4dor")
            assert connection.how == "a password"
            connection.close()
            with pytest.raises(LoginError, match="no terminal"):
                Connection.open(target, NoPrompter())
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["userdel", "-f", "dlstest"], check=True, capture_output=True)


GPUS = (Gpu(0, "A", 40000, 1000, "580", "8.0"), Gpu(1, "B", 40000, 39000, "580", "8.0"))


def test_the_gpu_is_chosen_once() -> None:
    """`--device cuda:N` names a GPU of the host, as `--gpu N` does; the server then sees that one alone."""
    from dls.errors import HostError

    assert choose_gpu(GPUS, ServerOptions()) == GPUS[1] and choose_gpu((), ServerOptions()) is None
    assert choose_gpu(GPUS, ServerOptions(gpu=0)) == choose_gpu(GPUS, ServerOptions(device="cuda:0")) == GPUS[0]
    with pytest.raises(HostError, match="two GPUs"):
        choose_gpu(GPUS, ServerOptions(device="cuda:0", gpu=1))
    with pytest.raises(HostError, match="no GPU number 7"):
        choose_gpu(GPUS, ServerOptions(device="cuda:7"))
