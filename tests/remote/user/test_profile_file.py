"""The file with the profiles: what it says, on which line, and how it is changed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dls.errors import TargetError
from dls.remote.user.profile_file import ProfileFile

TEXT = """\
# my hosts

["ann@gpu1"]  # the old one
engine = "region"
# behind the bastion
jump = 'bastion'
option = [
  "Compression=yes",
  "ServerAliveInterval=30",
]

# the new one
[gpu2.example.org]
local-port = 8912
"local-secret" = true
"""


def parse(text: str) -> ProfileFile:
    return ProfileFile.parse(Path("/h.toml"), text)


def test_hosts_and_their_values() -> None:
    """A name with dots may stand without quotes; comments and lists over several lines are TOML's own."""
    found = parse(TEXT).hosts
    assert found["gpu2.example.org"] == {"local-port": 8912, "local-secret": True}
    assert found["ann@gpu1"]["option"] == ["Compression=yes", "ServerAliveInterval=30"]
    assert list(found) == ["ann@gpu1", "gpu2.example.org"]
    assert parse("[a]\nx = 1\n[a.b]\ny = 2\n").hosts == {"a": {"x": 1}, "a.b": {"y": 2}}
    assert parse("[a]\n").hosts == {"a": {}} and parse("").hosts == {} and parse("x = 1").hosts == {"": {"x": 1}}


def test_lines_have_numbers() -> None:
    """Of a host's head and of each of its keys, in whatever quotes."""
    file = parse(TEXT)
    assert [file.line_of("ann@gpu1", key) for key in (None, "engine", "jump", "option", "none")] == [3, 4, 6, 7, 3]
    assert [file.line_of("gpu2.example.org", key) for key in (None, "local-port", "local-secret")] == [13, 14, 15]
    assert file.line_of("nowhere") == 0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('["a"]\nengine = region\n', 2),
        ("x = 1\n[a]\n[a]\n", 3),
        ("[a]\nb = [\n", 2),
        ("[a]\n\nb\n", 3),
        ('[a]\nb = "x\n', 2),
    ],
)
def test_what_is_no_toml_is_named_with_its_line(text: str, line: int) -> None:
    """Whatever the reader says of the place, and where it says the end of the document."""
    with pytest.raises(TargetError, match=rf"^/h.toml, line {line}: this is not TOML"):
        parse(text)


def test_one_host_is_changed_and_all_else_stays() -> None:
    """Comments too: those within the host's table, and the one that stands before the next."""
    changed = parse(TEXT).with_host("ann@gpu1", {"engine": "nninteractive", "gpu": 1})
    assert changed.text == (
        '# my hosts\n\n["ann@gpu1"]  # the old one\n# behind the bastion\nengine = "nninteractive"\ngpu = 1\n'
        + TEXT[TEXT.index("\n# the new one") :]
    )
    assert changed.hosts["gpu2.example.org"] == parse(TEXT).hosts["gpu2.example.org"]
    assert changed.without("ann@gpu1").text == "# my hosts\n" + TEXT[TEXT.index("\n# the new one") :]
    added = parse(TEXT).with_host("new", {"here": True})
    assert added.text == TEXT + '\n["new"]\nhere = true\n' and parse("").with_host("x", {}).text == '["x"]\n'
    assert parse('["x"]\na = 1\n').without("x").text == ""


def test_what_only_a_person_can_change() -> None:
    """A host that is written in one line is refused, and nothing is lost."""
    file = parse('gpu1 = {engine = "region"}\n')
    assert file.hosts == {"gpu1": {"engine": "region"}}
    with pytest.raises(TargetError, match="can't be changed by dls"):
        file.with_host("gpu1", {})
    with pytest.raises(TargetError, match="can't be changed by dls"):
        file.without("gpu1")


NAMES = st.text(min_size=1, max_size=20)
KEYS = st.from_regex(re.compile(r"[a-z][a-z-]{0,9}"), fullmatch=True)
VALUES = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), NAMES,
    st.lists(NAMES, max_size=3),
)  # fmt: skip


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(NAMES, st.dictionaries(KEYS, VALUES, max_size=4), max_size=4))
def test_what_is_written_is_read_again(hosts: dict[str, dict[str, object]]) -> None:
    """Whatever the names and the values hold; a change and a removal leave the others as they were."""
    file = parse("# kept\n")
    for host, values in hosts.items():
        file = file.with_host(host, values)
    assert parse(file.text).hosts == hosts and file.text.startswith("# kept\n")
    for host in hosts:
        file = file.with_host(host, {"x": 1}).without(host)
    assert file.hosts == {} and file.text.startswith("# kept\n")


def test_the_file_is_private(own_user_folder: Path) -> None:
    """Nobody else reads with which user and through which hosts somebody logs in."""
    ProfileFile.read().with_host("a", {"jump": "b"}).write()
    assert (own_user_folder / "hosts.toml").stat().st_mode & 0o777 == 0o600
    assert ProfileFile.read().hosts == {"a": {"jump": "b"}}
    (own_user_folder / "hosts.toml").write_bytes(b"\xff")
    with pytest.raises(TargetError, match="can't be read"):
        ProfileFile.read()
