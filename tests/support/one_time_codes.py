"""A login with a password and a one-time code: the server's side and the person's."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dls.remote.ssh.prompts import NoPrompter


class CodePrompter(NoPrompter):
    """Knows the password and the code, and records the prompts and the threads that ask."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.threads: set[str] = set()

    def secret(self, prompt: str) -> str:
        return self.answer(prompt, False)

    def answer(self, prompt: str, echo: bool) -> str:
        self.asked.append(prompt)
        self.threads.add(threading.current_thread().name)
        return "123456" if "code" in prompt else "sesame"


class WithCode:
    """A login that asks for a password and a one-time code."""

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return False

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "", [("Password: ", False), ("Verification code: ", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        return list(responses) == ["sesame", "123456"]


CUT_SHORT = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""asyncssh leaves a channel's coroutine behind when its connection is cut."""
