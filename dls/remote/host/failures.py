"""Why the packages could not be installed on a host, as an error with what to do."""

from __future__ import annotations

from dls.errors import InstallError

DISK_IS_FULL = ("No space left on device", "Disk quota exceeded")
"""What the host's system says of a disk, to every program (strerror of ENOSPC and EDQUOT)."""


def installer_failed(where: str, detail: str, explanation: str, *, has_internet: bool) -> InstallError:
    """Return the error of an installer that failed; `detail` is the end of what it said.

    `explanation` is a sentence about what did not come, or empty; `has_internet` says that it used the host's own.
    """
    message = f"The packages could not be installed on {where}"
    if any(word in detail for word in DISK_IS_FULL):
        return InstallError(f"{message}: its disk is full.", "Make room, or name another with --remote-dir.", detail)
    hint = "Does the host have room on its disk?"
    if has_internet:
        hint = "Does the host have room on its disk, and internet access? --lend-network lends it this computer's."
    return InstallError(f"{message}. {explanation}".rstrip(), f"The installer's last lines are above. {hint}", detail)
