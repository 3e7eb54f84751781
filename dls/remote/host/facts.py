"""What a server says of itself at /dls/facts, read with care and put into words: pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dls.gpus import Gpu
from dls.remote.durations import format_ago, format_duration, format_short


@dataclass(frozen=True)
class LastPrompt:
    """The last prompt that the server answered; all times in seconds."""

    kind: str
    model: float
    """Time that the engine took."""
    whole: float
    """Time from the request's head to the answer's end, at the server."""
    ago: float

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.kind} {format_ago(self.ago)}: model {format_short(self.model)}, whole {format_short(self.whole)}"


@dataclass(frozen=True)
class ServerFacts:
    """What a server says of itself; what it does not say is empty, 0 or None."""

    release: str = ""
    engine: str = ""
    model: str = ""
    device: str = ""
    gpu: Gpu | None = None
    awake: int = 0
    """Sessions that the engine holds."""
    asleep: int = 0
    """Sessions that are in files only."""
    last: LastPrompt | None = None
    idle: float = 0.0
    """Seconds without a request."""
    ends_after: float | None = None
    """Seconds without a request after which it ends; None for never."""
    loading: str = ""
    """What it does to get its engine ready; empty once that is done."""
    error: str = ""
    """Why its engine can't be loaded."""

    @classmethod
    def read(cls, fields: Mapping[str, object]) -> ServerFacts:
        """Read the answer; what is not as it should be is left out."""
        sessions = _mapping(fields.get("sessions"))
        last = _mapping(fields.get("last"))
        ends_after = _number(fields.get("ends_after"))
        return cls(
            release=_text(fields.get("release")),
            engine=_text(fields.get("engine")),
            model=_text(fields.get("model")),
            device=_text(fields.get("device")),
            gpu=Gpu.read(fields.get("gpu")),
            awake=int(_number(sessions.get("awake"))),
            asleep=int(_number(sessions.get("asleep"))),
            last=LastPrompt(
                _text(last.get("kind")),
                _number(last.get("model_seconds")),
                _number(last.get("seconds")),
                _number(last.get("ago")),
            )
            if last
            else None,
            idle=_number(fields.get("idle")),
            ends_after=ends_after or None,
            loading=_text(fields.get("text")) if fields.get("state") == "loading" else "",
            error=_text(fields.get("error")) if fields.get("state") == "failed" else "",
        )

    def describe_engine(self) -> str:
        """Return the engine, its model and its device in words."""
        model = self.model.removeprefix(self.engine).strip()
        what = f"{self.engine} ({model}) on {self.device}" if model else f"{self.engine} on {self.device}"
        if self.error:
            return f"{what}: {self.error}"
        return f"{what}: {self.loading}" if self.loading else what

    def describe_sessions(self) -> str:
        """Return how many sessions there are in words."""
        return f"{self.awake} awake, {self.asleep} asleep"

    def describe_end(self) -> str:
        """Return when the server ends by itself, in words."""
        if self.ends_after is None:
            return "never by itself"
        left = max(0.0, self.ends_after - self.idle)
        return f"in {format_duration(left)}, unless somebody uses it ({format_duration(self.ends_after)} without use)"


def _text(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value) if 0 <= value < 1e12 else 0.0


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
