"""What an examination found: pure values, which the command line shows as a table or as JSON."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field

from dls.errors import DlsError


class Verdict(enum.Enum):
    """What a finding means for `dls connect`."""

    OK = "ok"
    WARNING = "warning"
    """It works, and something is worth knowing or mending."""
    FAILED = "failed"
    """`dls connect` would not succeed."""
    UNKNOWN = "unknown"
    """It could not be tried."""


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was looked at, what was found, and what to do."""

    subject: str
    verdict: Verdict
    text: str
    advice: str = ""
    exit_code: int = 0
    """Exit code that `dls connect` would end with; 0 unless it would fail."""


@dataclass
class Findings:
    """The findings in order."""

    items: list[Finding] = field(default_factory=list)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.items)

    def ok(self, subject: str, text: str) -> None:
        """Add what works."""
        self.items.append(Finding(subject, Verdict.OK, text))

    def warn(self, subject: str, text: str, advice: str = "") -> None:
        """Add what works with a reservation."""
        self.items.append(Finding(subject, Verdict.WARNING, text, advice))

    def unknown(self, subject: str, text: str) -> None:
        """Add what could not be tried."""
        self.items.append(Finding(subject, Verdict.UNKNOWN, text))

    def fail(self, subject: str, error: DlsError) -> None:
        """Add what makes `dls connect` fail."""
        text = f"{error.message}\n{error.detail.strip()}".strip()
        self.items.append(Finding(subject, Verdict.FAILED, text, error.hint, error.exit_code))

    @property
    def exit_code(self) -> int:
        """The exit code of the first failure; 0 where `dls connect` would succeed."""
        return next((finding.exit_code for finding in self.items if finding.verdict is Verdict.FAILED), 0)
