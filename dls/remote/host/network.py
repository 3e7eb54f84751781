"""How a host without internet of its own may get what an installation needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NetworkOptions:
    """What the user decided about a host that reaches no internet.

    ``lend`` is the answer to "may the host use this computer's network for the
    time of the installation": None asks the prompter when the question comes up.
    ``parcel`` is a file made by ``dls pack`` that is sent instead.
    """

    lend: bool | None = None
    parcel: Path | None = None
