"""The errors of an installation that failed on the host."""

from __future__ import annotations

from dls.errors import InstallError

DISK_IS_FULL = ("No space left on device", "Disk quota exceeded")
"""What the host's system says of a disk, to every program (strerror of ENOSPC and EDQUOT)."""
NO_ROOM = "Does the host have room on its disk?"
NO_NETWORK = "Does the host have room on its disk, and internet access? --lend-network lends it this computer's."


def hash_differs(where: str, detail: str) -> InstallError:
    """Return the error for a package that is not the locked one."""
    return InstallError(
        f"A package that came to {where} is not the one that was locked: its hash differs.",
        "Does a mirror or a proxy there replace packages? Ask who runs it, and run the command again.",
        detail,
    )


def failed(where: str, detail: str, explanation: str, *, uses_internet: bool) -> InstallError:
    """Return the error of an installer that failed; `explanation` is a sentence about what did not come, or empty."""
    hint = NO_NETWORK if uses_internet else NO_ROOM
    message = f"The packages could not be installed on {where}"
    if any(word in detail for word in DISK_IS_FULL):
        return InstallError(f"{message}: its disk is full.", "Make room, or name another with --remote-dir.", detail)
    return InstallError(f"{message}. {explanation}".rstrip(), f"The installer's last lines are above. {hint}", detail)
