"""What the page is told: nothing private without the key, and nothing of a host that is not what it should be."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from dls.page.view import AddressView, LinkView, clean_overview, encode_event, make_state, measure_skew

SESSION = {
    "id": "15821c02", "name": "0123456789abcdef", "version": "2-1", "has_picture": True, "model": "region",
    "size": [155, 181, 145], "spacing": [1, 1, 1.5], "prompts": 1, "awake": True, "used": 100.0,
}  # fmt: skip
REQUEST = {
    "at": 99.0,
    "kind": "point",
    "session": "15821c02",
    "foreground": True,
    "status": 200,
    "seconds": 0.5,
    "engine": 0.4,
}
OVERVIEW = {
    "now": 101.0,
    "engine": {"name": "region", "device": "cpu", "state": "ready"},
    "gpus": [{"name": "A100", "used": 100, "total": 81920}],
    "sessions": [SESSION],
    "requests": [REQUEST],
    "log": ["a line"],
}
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.sampled_from([*OVERVIEW, *SESSION, *REQUEST]), inner),
)


def state(is_private: bool, secret: str = "") -> dict[str, Any]:
    address = AddressView("snap:s3cret@localhost" if secret else "localhost", 8911, False, secret)
    link = LinkView("open", 1.0)
    said = clean_overview(OVERVIEW)
    return make_state(link, address, target="gpu", engine="region", overview=said, as_of=0.0, is_private=is_private)


def test_what_is_shown_with_the_key() -> None:
    """Sessions with the address of their picture, requests and log, as the server said them."""
    shown = state(is_private=True)
    assert shown["sessions"][0]["picture"] == "/dls/page/pictures/0123456789abcdef/2-1"
    assert shown["sessions"][0]["size"] == [155, 181, 145] and shown["requests"] == [REQUEST]
    assert shown["log"] == ["a line"] and shown["gpus"][0]["name"] == "A100"


def test_what_is_shown_without_the_key() -> None:
    """The link, the engine and the GPU, and what to type in where that is no secret; nothing of people's work."""
    shown = state(is_private=False)
    assert set(shown) == {"link", "target", "engine", "gpus", "private", "address"}
    assert "15821c02" not in json.dumps(shown)
    assert "s3cret" not in json.dumps(state(is_private=False, secret="s3cret"))
    assert "s3cret" in json.dumps(state(is_private=True, secret="s3cret"))


def test_times_are_moved_to_the_clock_of_this_side() -> None:
    """A host whose clock is an hour behind has been used when it says, by the clock of who looks at the page."""
    said = clean_overview(OVERVIEW, 3600.0)
    assert said["sessions"][0]["used"] == 3700.0 and said["requests"][0]["at"] == 3699.0


def test_how_far_two_clocks_differ() -> None:
    """Only what differs by seconds counts, and a host that says no time, or one that JSON can't carry, has none."""
    assert measure_skew(1000.0, 940.0, 0.0) == 60.0 and measure_skew(1001.0, 940.0, 60.0) == 60.0
    for said in (None, "x", True, math.inf, -math.inf, math.nan, 10**400, [1]):
        assert measure_skew(1000.0, said, 60.0) == 0.0


def test_a_host_can_not_say_what_it_likes() -> None:
    """Control characters are replaced, texts and lists are cut, other fields and other kinds of values are left out."""
    said = clean_overview(
        {
            "engine": {"name": "\x1b]0;x\x07", "device": 5, "html": "<b>"},
            "gpus": [{"name": "a" * 1000, "used": math.nan, "total": "1"}] * 1000,
            "sessions": [{**SESSION, "name": "../../x", "model": ["m"]}, 7],
            "log": ["\u202eline\n"],
            "more": 1,
        }
    )
    assert said["engine"] == {"name": "\ufffd]0;x\ufffd", "device": ""}
    assert len(said["gpus"]) == 60 and len(said["gpus"][0]["name"]) == 300 and said["gpus"][0]["used"] is None
    assert said["sessions"][0]["picture"] is None and said["sessions"][0]["model"] == ""
    assert said["log"] == ["\ufffdline\ufffd"] and "more" not in said


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some.dictionaries(some.sampled_from(list(OVERVIEW)), VALUES))
def test_nonsense_of_a_host_can_be_shown(said: dict[str, Any]) -> None:
    """Whatever it says, the page gets valid JSON in one event."""
    link, address = LinkView("open", 1.0), AddressView("localhost", 8911, False)
    shown = make_state(
        link, address, target="gpu", engine="region", overview=clean_overview(said), as_of=0.0, is_private=True
    )
    event = encode_event(shown, 5.0)
    assert event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2
    json.loads(event[6:], parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))
