"""What ~/.ssh/config may say: sections, files, names and identities.

Each case is a configuration; `{usual}` stands for the lines that lead to a server with a key that it takes.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.support.openssh import Server, client_version, write
from tests.support.ways import Client, Dls, OpenSsh, Outcome, Way


@pytest.fixture
def ssh_folder() -> Iterator[None]:
    """See to it that ~/.ssh exists: relative paths begin there."""
    folder = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh"
    is_missing = not folder.exists()
    folder.mkdir(mode=0o700, exist_ok=True)
    yield
    if is_missing:
        with contextlib.suppress(OSError):
            folder.rmdir()


SECTIONS = {
    "plain": "Host lab\n{usual}",
    "patterns": "Host other l?b\n{usual}",
    "a negated pattern": "Host * !lab\n  Port 1\nHost l*\n{usual}",
    "before all sections": "{usual}",
    "the first value wins": "Host lab\n{usual}Host *\n  Port 1\n  User nobody\n  HostName 127.0.0.9\n",
    "equals signs": "Host=lab\n  HostName=127.0.0.1\n  Port = {port}\n{usual}",
    "keywords in any case": "hOST lab\n  hostname 127.0.0.1\n  PORT {port}\n{usual}",
    "tabs and blanks": "Host\t lab  \n\t\tPort\t{port}  \n\n   \n{usual}",
    "quotes": 'Host "lab"\n  User "{user}"\n  HostName "127.0.0.1"\n{usual}',
    "a comment after a value": "Host lab # the lab\n  User {user} # the usual one\n  Port {port} #22\n{usual}",
    "comments": "# Host lab\n#  Port 1\nHost lab\n  # Port 1\n{usual}",
    "line ends of Windows": "Host lab\r\n  Port {port}\r\n  User {user}\r\n{usual}",
    "%h in HostName": "Host 127.0.0.1\n  HostName %h\n{usual}Host lab\n  HostName 127.0.0.%%1\n{usual}",
    "Match all": "Match all\n{usual}",
    "Match host": "Match host lab\n{usual}",
    "Match host, equals sign": "Match host=lab\n{usual}",
    "Match host, list": 'Match host "other,l?b"\n{usual}',
    "Match host, negated": "Match !host lab\n  Port 1\nMatch host lab,!other\n{usual}",
    "Match host after HostName": "Host lab\n  HostName 127.0.0.1\nMatch host lab\n  Port 1\nMatch host 127.*\n{usual}",
    "Match originalhost": "Host lab\n  HostName 127.0.0.1\nMatch originalhost lab\n{usual}",
    "Match user": "Host lab\n  User {user}\nMatch user nobody\n  Port 1\nMatch user {user} host lab\n{usual}",
    "Match localuser": "Match localuser nobody\n  Port 1\nMatch localuser {me}\n{usual}",
    "Match exec": 'Match exec "false"\n  Port 1\nMatch host lab exec "true"\n{usual}',
    "Match exec, tokens": """Match exec "test %n = lab && test %u = {me} && test %h = lab"\n{usual}""",
    "Match exec, negated": "Match !exec false\n{usual}",
    "Match exec, a variable": """Match exec "test -n ${{HOME}}"\n{usual}""",
    "Match final": "Host lab\n  HostName 127.0.0.1\nMatch final host 127.0.0.1\n{usual}",
    "Match final, all": "Host lab\n{usual}Match final all\n  Port 1\n",
    "Match canonical": "Host lab\n{usual}Match canonical all\n  Port 1\n",
    "CanonicalizeHostname": "CanonicalizeHostname yes\nHost lab\n{usual}",
    "CanonicalizeHostname, domains": "CanonicalizeHostname yes\nCanonicalDomains lab.invalid\nHost lab\n{usual}",
    "CanonicalizeHostname, Match canonical": "CanonicalizeHostname always\nHost lab\n  HostName 127.0.0.1\n"
    "Match canonical host 127.0.0.1\n{usual}",
    "unknown options, ignored": "IgnoreUnknown UseKeychain,Odd*\nHost lab\n  UseKeychain yes\n  OddOne 1\n{usual}",
    "options of a session": "Host lab\n  ForwardAgent yes\n  ForwardX11 no\n  SendEnv LANG LC_*\n  SetEnv A=b\n"
    "  LocalForward 127.0.0.1:1 localhost:22\n  ServerAliveInterval 30\n  Compression yes\n{usual}",
    "options of a login": "Host lab\n  NumberOfPasswordPrompts 1\n  HashKnownHosts yes\n  UpdateHostKeys yes\n"
    "  CheckHostIP yes\n  TCPKeepAlive yes\n  IPQoS throughput\n  RekeyLimit 1G\n  ConnectionAttempts 2\n{usual}",
    "times": "Host lab\n  ConnectTimeout 10\n  ServerAliveInterval 1m\n{usual}",
    "a long list of sections": "".join(f"Host h{n}\n  Port 1\n" for n in range(300)) + "Host lab\n{usual}",
}  # fmt: skip


QUICK = {
    "plain",
    "a comment after a value",
    "%h in HostName",
    "Match host after HostName",
    "Match user",
    "Match exec, tokens",
    "Match final",
    "CanonicalizeHostname",
    "unknown options, ignored",
    "options of a session",
    "several",
    "home",
    "nested",
}
"""Cases of quick runs; full runs have all."""


def cases(templates: Mapping[str, str]) -> list[ParameterSet]:
    """Return the templates as parameters, with their names."""
    slow = [pytest.mark.slow]
    return [pytest.param(text, id=name, marks=[] if name in QUICK else slow) for name, text in templates.items()]


def fields(server: Server, lab: Path) -> dict[str, str]:
    """Return what the templates of the cases may name."""
    home = pwd.getpwuid(os.getuid()).pw_dir
    return {
        "usual": server.section().partition("\n")[2],
        "port": str(server.port),
        "user": server.user,
        "me": getpass.getuser(),
        "lab": str(lab),
        "from_home": os.path.relpath(lab, home),
        "from_ssh": os.path.relpath(lab, f"{home}/.ssh"),
    }


def enter(client: Client, server: Server, lab: Path, template: str, *options: str, host: str = "lab") -> Outcome:
    """Log in with a configuration made from the template."""
    config = write(lab, template.format(**fields(server, lab)))
    return client.enter(Way(config, (server,)), *options, host=host)


@pytest.mark.parametrize("template", cases(SECTIONS))
def test_sections(client: Client, server: Server, lab: Path, template: str) -> None:
    """The lines that lead to the server are found, and those that lead elsewhere are not taken."""
    host = "127.0.0.1" if "%h" in template and "HostName %h" in template else "lab"
    outcome = enter(client, server, lab, template, host=host)
    assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize(
    ("head", "encoding"),
    [("# Zürich\n", "latin-1"), ("# Zürich 東京\n", "utf-8"), ("# \x85\xa0\n", "latin-1")],
    ids=["Latin-1", "UTF-8", "other bytes"],
)
def test_bytes_of_the_file(client: Client, server: Server, lab: Path, head: str, encoding: str) -> None:
    """Comments may have any bytes."""
    config = lab / "config"
    config.write_bytes((head + server.section()).encode(encoding))
    outcome = client.enter(Way(config, (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_a_byte_order_mark(client: Client, server: Server, lab: Path) -> None:
    """A byte order mark at the beginning is passed over, as OpenSSH for Windows does, or the file is named."""
    config = lab / "config"
    config.write_text("\ufeff" + server.section(), encoding="utf-8")
    outcome = client.enter(Way(config, (server,)))
    assert outcome.entered or str(config) in outcome.said, outcome


INCLUDES = {
    "absolute": "Include {lab}/more\n",
    "a pattern": "Include {lab}/m*re\n",
    "several": "Include {lab}/nothing {lab}/more\n",
    "quoted": 'Include "{lab}/more"\n',
    "home": "Include ~/{from_home}/more\n",
    "relative": "Include {from_ssh}/more\n",
    "inside a section": "Host lab\n  Include {lab}/more\nHost other\n  Port 1\n",
    "inside another section": "Host other\n  Include {lab}/wrong\nHost *\n  Include {lab}/more\n",
    "nested": "Include {lab}/nested\n",
    "missing": "Include {lab}/nothing\nInclude {lab}/more\n",
}


@pytest.mark.parametrize("template", cases(INCLUDES))
@pytest.mark.usefixtures("ssh_folder")
def test_included_files(client: Client, server: Server, lab: Path, template: str) -> None:
    """Include takes patterns, ~ and paths relative to ~/.ssh, also in a file that -F names."""
    (lab / "more").write_text(server.section())
    (lab / "wrong").write_text("Port 1\n")
    (lab / "nested").write_text(f"Host lab\n  Include {lab}/more\n")
    outcome = enter(client, server, lab, template)
    assert outcome.entered and outcome.logins == (1,), outcome


def test_an_included_file_with_a_variable(server: Server, lab: Path) -> None:
    """Include takes variables from some version of OpenSSH on: where ssh follows it, so do we."""
    (lab / "more").write_text(server.section())
    template = "Include ${{HOME}}/{from_home}/more\n"
    theirs = enter(OpenSsh(), server, lab, template)
    assert enter(Dls(), server, lab, template).entered == theirs.entered


NEWER = {
    "Match localnetwork": ("9.4", "Match localnetwork 203.0.113.0/24\n  Port 1\nHost lab\n{usual}"),
    "Match tagged": ("9.4", "Match tagged other\n  Port 1\nHost lab\n{usual}"),
    "Tag": ("9.4", "Host lab\n  Tag work\nMatch tagged work\n{usual}"),
    "Match version": ("10.0", "Match version OpenSSH_1.*\n  Port 1\nHost lab\n{usual}"),
    "Match command": ("10.0", "Match command uptime\n  Port 1\nHost lab\n{usual}"),
    "Match sessiontype": ("10.0", "Match sessiontype subsystem\n  Port 1\nHost lab\n{usual}"),
    "Match exec without a command": ("99.0", "Match exec\n{usual}"),
    "a misspelled option": ("99.0", "Host lab\n  HostNme 127.0.0.1\n{usual}"),
    "a bad value": ("99.0", "Host lab\n  Port many\n{usual}"),
    "an unknown condition": ("99.0", "Match planet earth\n  Port 1\nHost lab\n{usual}"),
}
"""Lines that OpenSSH reads from this version on; before, the configuration is refused."""


@pytest.mark.parametrize(("since", "template"), NEWER.values(), ids=NEWER)
def test_lines_that_not_every_openssh_reads(
    client: Client, server: Server, lab: Path, since: str, template: str
) -> None:
    """No condition counts as true because it is unknown: it is decided, or the configuration is refused with the
    name of the file."""
    outcome = enter(client, server, lab, template)
    if client_version() >= tuple(int(part) for part in since.split(".")):
        assert outcome.entered and outcome.logins == (1,), outcome
    else:
        assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (10, 255), outcome
        assert str(lab / "config") in outcome.said, outcome


def test_no_configuration_file(client: Client, lab: Path) -> None:
    """A file that -F names and that is missing is an error."""
    outcome = client.enter(Way(lab / "missing"))
    assert not outcome.entered and outcome.exit_code in (10, 255) and "missing" in outcome.said, outcome


IDENTITIES = {
    "%h": "127.0.0.1",
    "%n": "lab",
    "%u": getpass.getuser(),
    "%r": getpass.getuser(),
    "%i": str(os.getuid()),
    "%%": "%",
    "${LAB_KEY}": "work",
    "%h-%r@%n": f"127.0.0.1-{getpass.getuser()}@lab",
}
"""Names of a key file, and what they mean."""


@pytest.mark.parametrize("name", IDENTITIES)
def test_tokens_in_identities(client: Client, server: Server, lab: Path, name: str) -> None:
    """IdentityFile may have tokens and variables."""
    shutil.copy(server.key, lab / f"key-{IDENTITIES[name]}")
    lines = [f"IdentityFile {lab}/key-{name}", "IdentitiesOnly yes"]
    config = write(lab, server.section("lab", *lines, key=False))
    outcome = client.enter(Way(config, (server,), {"LAB_KEY": "work"}))
    assert outcome.entered and outcome.logins == (1,), outcome


@pytest.mark.parametrize(
    "form", ["%d/{from_home}/key", "~/{from_home}/key", "${{HOME}}/{from_home}/key", '"{lab}/a key"']
)
def test_places_of_identities(client: Client, server: Server, lab: Path, form: str) -> None:
    """IdentityFile may begin with the home directory, and have blanks in quotes."""
    for name in ("key", "a key"):
        shutil.copy(server.key, lab / name)
    line = f"IdentityFile {form.format(**fields(server, lab))}"
    outcome = client.enter(Way(write(lab, server.section("lab", line, key=False)), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_several_identities(client: Client, server: Server, lab: Path) -> None:
    """All IdentityFile lines count, of all sections; a missing one is passed by."""
    text = server.section("lab", f"IdentityFile {lab}/missing", key=False) + f"Host *\n  IdentityFile {server.key}\n"
    outcome = client.enter(Way(write(lab, text), (server,)))
    assert outcome.entered and outcome.logins == (1,), outcome


def test_a_missing_identity_is_named(client: Client, server: Server, lab: Path) -> None:
    """Where no key gets in, a key file that was configured and is missing is named."""
    lines = (f"IdentityFile {lab}/missing", "IdentitiesOnly yes")
    outcome = client.enter(Way(write(lab, server.section("lab", *lines, key=False)), (server,)))
    assert not outcome.entered and f"{lab}/missing" in outcome.said, outcome


def test_no_identity(client: Client, server: Server, lab: Path) -> None:
    """`IdentityFile none` means that no key file is tried, not the default ones either."""
    lines = ("IdentityFile none", "IdentitiesOnly yes")
    outcome = client.enter(Way(write(lab, server.section("lab", *lines, key=False)), (server,)))
    assert not outcome.entered and outcome.logins == (0,) and outcome.exit_code in (13, 255), outcome
