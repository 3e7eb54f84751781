"""Destinations that the user types."""

from __future__ import annotations

import re

import pytest

from dls.errors import TargetError
from dls.remote.ssh.target import Destination, parse_destination


@pytest.mark.parametrize(
    ("text", "destination"),
    [
        ("host", Destination("", "host", None)),
        ("ann@host", Destination("ann", "host", None)),
        ("ann@host:2222", Destination("ann", "host", 2222)),
        ("ssh://ann@host:22/", Destination("ann", "host", 22)),
        ("ann@corp@host", Destination("ann@corp", "host", None)),
        ("[::1]:22", Destination("", "::1", 22)),
        ("::1", Destination("", "::1", None)),
        ("ann@[fe80::1]", Destination("ann", "fe80::1", None)),
    ],
)
def test_a_destination_is_split(text: str, destination: Destination) -> None:
    """User, host and port are read as ssh reads them."""
    assert parse_destination(text) == destination


@pytest.mark.parametrize(
    "text", ["", "ann@", ":22", "host:0", "host:70000", "host:x", "[::1", "[::1]x", "a b", "-oProxyCommand=x"]
)
def test_an_invalid_destination_is_refused(text: str) -> None:
    """The message quotes the text."""
    with pytest.raises(TargetError, match=re.escape(repr(text))):
        parse_destination(text)
