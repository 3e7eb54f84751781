"""Which names are lent: pure functions."""

from __future__ import annotations

import pytest

from dls.remote.loan.names import HUB, Name, Names, is_address, is_public

LIST = Names.of([Name("index.test"), Name("mirror.test", 8443, is_own=True), *HUB])


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("index.test", 443), ("INDEX.test.", 443), ("mirror.test", 8443), ("huggingface.co", 443),
        ("cdn-lfs.hf.co", 443), ("cas-bridge.xethub.hf.co", 443),
    ],
)  # fmt: skip
def test_what_is_on_the_list(host: str, port: int) -> None:
    """Names are compared without case and without the root's dot; a star stands for all names below."""
    assert LIST.find(host, port) is not None


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("index.test", 80), ("mirror.test", 443), ("index.test.evil.test", 443), ("evil-index.test", 443),
        ("xhf.co", 443), ("hf.co.evil.test", 443), ("", 443), ("1.2.3.4", 443), ("index.test\0.evil", 443),
    ],
)  # fmt: skip
def test_what_is_not_on_the_list(host: str, port: int) -> None:
    """Another port, a longer name and an address are not lent."""
    assert LIST.find(host, port) is None


@pytest.mark.parametrize(
    "start", ["evil.test:443/x", "evil.test#", "evil.test?x", "ann@evil.test", "evil%2f", "é", "x.", ""]
)
def test_what_is_no_name(start: str) -> None:
    """What only ends as a name below one of the list does is not lent: another proxy might go to how it begins."""
    assert LIST.find(f"{start}.hf.co", 443) is None


def test_a_name_that_is_own_and_public() -> None:
    """A name that the user configured stays own where another list has it too."""
    names = Names.of([Name("a.test"), Name("a.test", is_own=True), Name("a.test")])
    assert names.all == (Name("a.test", is_own=True),)


@pytest.mark.parametrize("text", ["127.0.0.1", "[::1]", "::1", "127.1", "0x7f000001", "2130706433", "fe80::1%eth0", ""])
def test_addresses_in_every_form(text: str) -> None:
    """What a resolver would take for an address is one."""
    assert is_address(text)


@pytest.mark.parametrize("text", ["index.test", "a1.b2.c3", "0x.test", "1.2.3.4.nip.test"])
def test_names_that_look_like_addresses(text: str) -> None:
    """A name may have digits in it."""
    assert not is_address(text)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
        "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "224.0.0.1", "2002:0a00:0001::1",
        "64:ff9b::10.0.0.1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    """Loopback, private, link-local and multicast addresses are not the internet's, in IPv6's clothes neither."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "::ffff:8.8.8.8"])
def test_public_addresses(address: str) -> None:
    """Addresses of the internet are public."""
    assert is_public(address)
