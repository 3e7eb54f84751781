"""Which leases miss an answer, and what is remembered of how many."""

from __future__ import annotations

import h11
import pytest

from dls.remote.tunnel import lease_numbers
from dls.remote.tunnel.headers import encode_response
from dls.remote.tunnel.lease_numbers import LeaseNumbers
from dls.remote.tunnel.missed_answers import MAX_LEASES, MAX_MISSED, MissedAnswers
from dls.remote.tunnel.official import find_lease, is_pasted

LEASE = b"a" * 32


def knowing(lease: bytes) -> MissedAnswers:
    """Return a memory that has seen an answer for the lease delivered."""
    missed = MissedAnswers()
    _, covered = missed.begin(lease, "known")
    missed.forget(lease, "known", *covered)
    return missed


def test_a_request_is_missed_until_it_is_forgotten() -> None:
    """A delivered answer covers what was missed when its request was sent, and not what was missed since."""
    missed = knowing(LEASE)
    assert missed.begin(LEASE, "first") == (False, frozenset())
    missed.keep(LEASE, "first")
    is_missing, covered = missed.begin(LEASE, "second")
    assert is_missing and covered == {"first"}
    missed.keep(LEASE, "third")
    missed.forget(LEASE, "second", *covered)
    assert missed.begin(LEASE, "fourth") == (True, frozenset({"third"}))
    assert missed.begin(LEASE, "fifth") == (True, frozenset({"third"}))


def test_a_request_under_way_is_not_covered() -> None:
    """A client that gave up sends its next request; the server may come to that one first."""
    missed = knowing(LEASE)
    missed.begin(LEASE, "slow")
    assert missed.begin(LEASE, "next") == (True, frozenset())
    missed.forget(LEASE, "next")
    missed.keep(LEASE, "slow")
    assert missed.begin(LEASE, "last") == (True, frozenset({"slow"}))
    missed.forget(LEASE, "last", "slow")
    assert missed.begin(LEASE, "more") == (False, frozenset())


def test_what_an_earlier_command_delivered_is_not_known() -> None:
    """A client goes on with its lease after `dls connect` was started again, which may have lost an answer."""
    missed = MissedAnswers()
    is_missing, covered = missed.begin(LEASE, "first")
    assert is_missing and len(covered) == 1
    missed.forget(LEASE, "first")
    assert missed.begin(LEASE, "second") == (True, covered)
    missed.forget(LEASE, "second", *covered)
    assert missed.begin(LEASE, "third") == (False, frozenset())


def test_what_has_no_lease_misses_nothing() -> None:
    """A claim, or a client with a token that no server gives."""
    missed = MissedAnswers()
    missed.begin(b"", "first")
    missed.keep(b"", "first")
    assert missed.begin(b"", "second") == (False, frozenset())
    for token in (b"", b"x", b"A" * 32, b"a" * 33):
        assert find_lease([(b"X-Lease-Token", token)]) == b""
    assert find_lease([(b"x-lease-token", LEASE)]) == LEASE


def test_no_client_fills_the_memory() -> None:
    """The number of leases has a limit, and so has the number of requests of one; the newest ones are remembered."""
    missed, numbers = MissedAnswers(), LeaseNumbers()
    for number in range(3 * MAX_LEASES):
        lease = b"%032x" % number
        for name in range(2 * MAX_MISSED):
            missed.keep(lease, str(name))
        numbers.learn(b"/heartbeat", lease, *encode_response(200, {"remaining_seconds": 1}))
    assert len(missed._leases) == MAX_LEASES and len(numbers._leases) == lease_numbers.MAX_LEASES
    assert len(missed.begin(lease, "next")[1]) == MAX_MISSED


@pytest.mark.parametrize(
    ("status", "meta", "expected"),
    [
        (200, b'{"ran_prediction":true,"bbox":null}', True),
        (200, b'{"ran_prediction":false,"bbox":null}', False),
        (500, b'{"ran_prediction":true}', False),
        (200, None, False),
        (200, b"[1]", False),
        (200, b"{", False),
        (200, b"[" * 5000, False),
    ],
)
def test_what_a_client_pastes(status: int, meta: bytes | None, expected: bool) -> None:
    """The box of a prediction that did run, as the library's client reads it."""
    headers = [(b"X-Meta", meta)] if meta is not None else []
    assert is_pasted(h11.Response(status_code=status, headers=headers)) is expected
