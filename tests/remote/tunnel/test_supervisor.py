"""How the supervisor restores a link: logins that ask questions, logins that are refused.

tests/faults has the faults of networks, hosts and servers.
"""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest

import dls
from dls.demo import sshd
from dls.errors import HostKeyError, LoginError
from dls.remote.ssh.prompters import CachingPrompter
from dls.remote.ssh.prompts import CannotAsk, Question, QuestionKind
from dls.remote.tunnel import reconnect_policy, supervisor
from tests.support.connecting import connected, cut
from tests.support.itksnap import ItkSnap
from tests.support.one_time_codes import CUT_SHORT, CodePrompter, WithCode
from tests.support.processes import free_port, until


@CUT_SHORT
def test_a_one_time_code_is_asked_for_again(remote_dir: str, short_folder: Path) -> None:
    """It is asked for once, in the thread that waits, where Ctrl-C arrives; the password is remembered."""
    prompter = CodePrompter()
    with sshd.running(short_folder, library=True, login=WithCode) as server:
        login = dls.LoginOptions(ssh_config=server.config, remote_dir=remote_dir)
        session = dls.connect("dls-demo", login=login, local_port=free_port(), prompter=prompter)
        assert prompter.host_questions == ["Password: ", "Verification code: "]
        snap = ItkSnap(session.port)
        first = session.connection
        results: list[str] = []

        def work() -> None:
            cut(session)
            results.append(snap.start())
            session._supervisor.ended.set()  # ends `wait`

        worker = threading.Thread(target=work)
        worker.start()
        session.wait()
        worker.join()
        assert results and session.connection is not first
        assert prompter.host_questions[2:] == ["Verification code: "] and prompter.threads == {"MainThread"}
        session.close(stop_server=True)
    gc.collect()


def of_host(prompt: str) -> Question:
    return Question(QuestionKind.HOST, "ann@gpu:22", prompt)


def test_which_answers_are_remembered() -> None:
    """A password is remembered, a code only until the host has judged it, and a refused answer is not given again."""
    prompter = CodePrompter()
    memory = CachingPrompter(prompter)
    for _ in range(2):
        memory.answer(of_host("Password: "))
        memory.answer(of_host("Verification code: "))
        memory.login_interrupted()  # the link was lost before the host had answered
    assert prompter.prompts == ["Password: ", "Verification code: "]
    memory.login_accepted()
    memory.answer(of_host("Password: "))
    memory.answer(of_host("Verification code: "))
    assert prompter.prompts[2:] == ["Verification code: "]
    memory.answer(of_host("Password: "))  # asked for again in the same login: it was wrong
    assert prompter.prompts[3:] == ["Password: "]
    memory.login_refused()
    memory.answer(of_host("Password: "))
    assert prompter.prompts[4:] == ["Password: "]


def test_a_changed_host_key_ends_the_session(remote_dir: str, short_folder: Path) -> None:
    """A lost link is no reason to accept another key; the local port says why."""
    with sshd.running(short_folder) as server:
        session, _ = connected(server, remote_dir)
        known = short_folder / "known_hosts"
        other = sshd._write_key(short_folder / "other")
        known.write_text(f"[127.0.0.1]:{server.port} {other}\n")
        cut(session)
        with pytest.raises(HostKeyError):
            session.wait()
        answer = ItkSnap(session.port).get("/status")
        assert answer.status == 503 and "key" in answer.error
        session.close()


@CUT_SHORT
def test_a_login_that_nobody_can_answer_ends_the_session(remote_dir: str, short_folder: Path) -> None:
    """Without a terminal a code can't be asked for again, and the error says so."""
    gone = CannotAsk("The login needs a secret, and there is no terminal to ask at.")
    prompter = CodePrompter(gone)
    with sshd.running(short_folder, library=True, login=WithCode) as server:
        login = dls.LoginOptions(ssh_config=server.config, remote_dir=remote_dir)
        session = dls.connect("dls-demo", login=login, local_port=free_port(), prompter=prompter)
        cut(session)
        with pytest.raises(CannotAsk):
            session.wait()
        session.close()
    gc.collect()


def test_refused_logins_are_given_up(remote_dir: str, short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three the session ends with the error: more could lock the account."""
    monkeypatch.setattr(supervisor, "REFUSED_DELAY", 0.2)
    with sshd.running(short_folder) as server:
        session, _ = connected(server, remote_dir)
        (short_folder / "authorized_keys").write_text("")
        cut(session)
        with pytest.raises(LoginError):
            session.wait()
        session.close()
        log = short_folder / "sshd.log"
        refused = "Connection closed by authenticating user"
        until(lambda: log.read_text().count(refused) == reconnect_policy.MAX_REFUSALS)
