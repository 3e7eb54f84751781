"""The questions of a child `ssh`, through SSH_ASKPASS: a Unix socket on which its questions arrive, in threads.

On Windows `ssh` asks in the console itself: its askpass program would have to be an .exe.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shlex
import shutil
import socket
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from dls.remote.carriers.private_folder import has_unix_sockets, make_private_folder

MAX_QUESTION = 1 << 16
"""Bytes that a question may have."""


@dataclass(eq=False)
class Asked:
    """A question of `ssh`, which waits for an answer."""

    prompt: str
    kind: str
    """Empty for a secret, `confirm` for yes or no, `none` for a notice that is to be shown until something happens."""
    _answers: queue.Queue[str | None] = field(default_factory=lambda: queue.Queue(1))

    def answer(self, text: str | None) -> None:
        """Give the answer; None for no answer, which `ssh` takes for a refusal."""
        self._answers.put(text)

    def wait(self) -> str | None:
        """Wait for the answer."""
        return self._answers.get()


class AskpassServer:
    """Receives questions; a context manager that closes the socket, and ends each question that still waits."""

    def __init__(self) -> None:
        self.questions: queue.Queue[Asked] = queue.Queue()
        self._folder = make_private_folder("dls-ask-", runs_programs=True)
        self._open: set[Asked] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / "socket"))
        self._listener.listen()
        self._write_program()
        threading.Thread(target=self._accept, name="dls-askpass", daemon=True).start()

    @classmethod
    def is_possible(cls) -> bool:
        """Whether this system has Unix sockets and can run a script as SSH_ASKPASS."""
        return has_unix_sockets()

    @property
    def environment(self) -> dict[str, str]:
        """What `ssh` needs in its environment; before release 8.4, it asks this way only where DISPLAY is set."""
        return {
            "SSH_ASKPASS": str(self._folder / "askpass"),
            "SSH_ASKPASS_REQUIRE": "force",
            "DLS_ASKPASS": str(self._folder / "socket"),
            "DISPLAY": os.environ.get("DISPLAY") or ":0",
        }

    def _write_program(self) -> None:
        client = Path(__file__).with_name("askpass_client.py")
        program = self._folder / "askpass"
        command = shlex.join([sys.executable, "-I", "-S", str(client)])
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        program.chmod(0o700)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), name="dls-askpass", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, KeyError), connection:
            with connection.makefile("rb") as stream:
                question = json.loads(stream.readline(MAX_QUESTION))
            asked = Asked(str(question["prompt"]), str(question["kind"]))
            self._open.add(asked)
            self.questions.put(asked)
            connection.sendall(json.dumps(asked.wait()).encode() + b"\n")
            self._open.discard(asked)

    def close(self) -> None:
        """Refuse every open question, and remove the socket."""
        # Closing alone does not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for asked in list(self._open):
            with contextlib.suppress(queue.Full):
                asked._answers.put_nowait(None)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> AskpassServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
