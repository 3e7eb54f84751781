"""A login with a password and a one-time code: the server's side and the person's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.prompters import ScriptedPrompter


class CodePrompter(ScriptedPrompter):
    """Knows the password and the code; with `second`, that is raised when the code is asked for again."""

    def __init__(self, second: BaseException | None = None) -> None:
        super().__init__({"Password": "sesame", "code": "123456" if second is None else ["123456", second]})


class OnlyQuestions:
    """A login by keyboard-interactive alone (RFC 4256)."""

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return False

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return True


class WithCode(OnlyQuestions):
    """A login that asks for a password and a one-time code."""

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "", [("Password: ", False), ("Verification code: ", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> Any:
        return list(responses) == ["sesame", "123456"]


CUT_SHORT = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""asyncssh leaves a channel's coroutine behind when its connection is cut."""
