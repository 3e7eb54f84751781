"""The tokens of ssh_config(5), such as %h and ${HOME}, which `ssh -G` leaves in some values: pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

TOKEN = re.compile(r"%(.)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Tokens:
    """What the tokens stand for, for one host."""

    original: str
    """The host as the user typed it: %n."""
    host: str
    """The host's name that is connected to: %h."""
    port: int
    user: str
    """The user on the host: %r."""
    local_user: str
    home: str
    """The home directory on this computer: %d."""
    local_host: str
    uid: int = 0
    alias: str = ""
    """HostKeyAlias: %k."""
    jump: str = ""
    """The value of ProxyJump: %j."""

    @property
    def values(self) -> dict[str, str]:
        """The text for each letter."""
        digest = hashlib.sha1(  # noqa: S324 - OpenSSH's own choice for %C, which names a socket
            f"{self.local_host}{self.host}{self.port}{self.user}{self.jump}".encode()
        ).hexdigest()
        return {
            "%": "%",
            "C": digest,
            "d": self.home,
            "h": self.host,
            "i": str(self.uid),
            "j": self.jump,
            "k": self.alias or self.original,
            "L": self.local_host.partition(".")[0],
            "l": self.local_host,
            "n": self.original,
            "p": str(self.port),
            "r": self.user,
            "u": self.local_user,
        }

    def expand(self, text: str, environment: Mapping[str, str] | None = None) -> str:
        """Replace the tokens in the text, and `${NAME}` where an environment is given.

        Unknown ones stay as they are.
        """
        values = self.values

        def replace(match: re.Match[str]) -> str:
            if match[2] is None:
                return values.get(match[1], match[0])
            return match[0] if environment is None else environment.get(match[2], match[0])

        return TOKEN.sub(replace, text)
