"""The SSH configuration as paramiko reads it, for computers without `ssh`, in the form that `ssh -G` prints it in."""

from __future__ import annotations

import importlib
import re
import shlex

import paramiko

from dls.remote.ssh import lean_paramiko
from dls.remote.ssh.exceptions import configuration_error
from dls.remote.ssh.openssh_config import Settings, current_name

DEFAULT_IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
"""Key files that OpenSSH tries by default and paramiko can read, in OpenSSH's order of strength."""
NOT_UNDERSTOOD = re.compile(
    r"^[ \t]*(?:match\b.*\b(?:localnetwork|tagged|version|command|sessiontype)\b"
    r"|canonicalizehostname[ \t=]+(?!no\b|[ \t=])"
    r"|(?:ciphers|macs|kexalgorithms|hostkeyalgorithms|pubkeyaccepted\w+)[ \t=]+\"?[+^-]).*$",
    re.IGNORECASE | re.MULTILINE,
)
"""Lines that only `ssh` itself understands; paramiko would count such a `Match` as one that always matches.

Changes to OpenSSH's own lists of algorithms are among them: nobody else knows those lists.
"""
WORDS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
"""How a setting that is on or off may be written, and how `ssh -G` prints it."""
SWITCHES = frozenset((
    "identitiesonly", "hashknownhosts", "batchmode", "stricthostkeychecking", "permitlocalcommand", "proxyusefdpass",
    "verifyhostkeydns", "nohostauthenticationforlocalhost", "gssapiauthentication", "hostbasedauthentication",
    "pubkeyauthentication", "passwordauthentication", "kbdinteractiveauthentication",
    "challengeresponseauthentication",
))  # fmt: skip
"""Settings that are on or off."""
TIMES = ("connecttimeout", "serveraliveinterval")
TIME_PART = r"([0-9]{1,9})([smhdw]?)"
"""A number and a unit; a time is a sum of such parts (sshd_config(5), TIME FORMATS)."""
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
"""Seconds of each unit."""
BACKSLASH = re.compile(r"""\\([\\'" ])?""")
MATCHES_NOTHING = "Host !*"


def remove_unknown(text: str) -> tuple[str, str]:
    """Return the configuration without what only `ssh` itself understands, and the first such line, if there is one.

    What stands under such a `Match` is not applied.
    """
    found = NOT_UNDERSTOOD.search(text)

    def replace(match: re.Match[str]) -> str:
        return MATCHES_NOTHING if match[0].lstrip()[:5].lower() == "match" else ""

    return NOT_UNDERSTOOD.sub(replace, text), found[0].strip() if found else ""


def read_settings(text: str, options: tuple[str, ...], host: str, source: str) -> Settings:
    """Return the host's settings in the configuration's text; `options` are settings that win, as `Key=Value`.

    `source` names the file in an error. Raises TargetError for a text that paramiko can't understand.
    """
    paramiko.config.invoke = importlib.import_module(lean_paramiko.NAME)  # type: ignore[attr-defined]  # runs Match exec
    first = "\n".join(option.replace("=", " ", 1) for option in options)
    try:
        found = paramiko.SSHConfig.from_text(f"{first}\n{text}").lookup(host)
    except (paramiko.ConfigParseError, paramiko.CouldNotCanonicalize, KeyError, UnicodeError) as error:
        raise configuration_error(source, error) from error
    settings: dict[str, tuple[str, ...]] = {
        current_name(name): tuple(value) if isinstance(value, list) else (as_printed(name, str(value)),)
        for name, value in found.items()
    }
    for name in ("userknownhostsfile", "globalknownhostsfile"):
        if name in settings:
            try:
                settings[name] = (" ".join(split_words(" ".join(settings[name]))),)
            except ValueError as error:
                raise configuration_error(source, error) from error
    if "identityfile" not in settings:
        settings["identityfile"] = DEFAULT_IDENTITIES
    return settings


def split_words(text: str) -> list[str]:
    """Return the words of a setting as OpenSSH splits them; raises ValueError for a quote that is left open.

    A backslash is one, as in the paths of Windows, unless it stands before a quote, a blank or another backslash.
    """
    return shlex.split(BACKSLASH.sub(lambda match: match[0] if match[1] else r"\\", text))


def as_printed(name: str, value: str) -> str:
    """Return a value as `ssh -G` prints it: a time in seconds, a switch as yes or no."""
    if name in SWITCHES:
        return WORDS.get(value.lower(), value)
    if name in TIMES and re.fullmatch(f"(?:{TIME_PART})+", value.lower()):
        return str(sum(int(number) * UNITS[unit] for number, unit in re.findall(TIME_PART, value.lower())))
    return value
