"""How long to wait between attempts to reconnect, and when to give up."""

from __future__ import annotations

import pytest

from dls.errors import ConnectError, DlsError, HostKeyError, LoginError
from dls.remote.ssh.prompts import CannotAsk
from dls.remote.tunnel.reconnect_policy import MAX_DELAY, MAX_REFUSALS, ReconnectPolicy


def test_the_delay_grows_up_to_a_limit() -> None:
    """It is never zero, so that a host that is down is not asked without a pause."""
    policy = ReconnectPolicy()
    delays = []
    for _ in range(50):
        policy.record_failure(ConnectError("down"))
        delays.append(policy.delay)
    assert 0 < delays[0] <= 0.5 and max(delays) <= MAX_DELAY and max(delays) > 1
    assert not policy.is_refused
    policy.reset_delay()
    policy.record_failure(ConnectError("down"))
    assert policy.delay <= 0.5


@pytest.mark.parametrize("error", [HostKeyError("changed"), CannotAsk("nobody there")])
def test_errors_that_end_it_at_once(error: DlsError) -> None:
    """Another attempt can't help against a changed host key, or when nobody can be asked."""
    with pytest.raises(type(error)):
        ReconnectPolicy().record_failure(error)


def test_refused_logins_in_a_row_end_it() -> None:
    """A login that is accepted in between starts the count again."""
    policy = ReconnectPolicy()
    for _ in range(2):
        for _ in range(MAX_REFUSALS - 1):
            policy.record_failure(LoginError("refused"))
        assert policy.is_refused
        policy.record_login()
        assert not policy.is_refused
    for _ in range(MAX_REFUSALS - 1):
        policy.record_failure(LoginError("refused"))
    with pytest.raises(LoginError):
        policy.record_failure(LoginError("refused"))
