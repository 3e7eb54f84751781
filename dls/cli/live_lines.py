"""What is told of a connection while it is open, in lines that fit the terminal, and when to notify: pure."""

from __future__ import annotations

from dataclasses import dataclass

from dls.remote.durations import format_ago, format_duration, format_short
from dls.remote.host.facts import ServerFacts
from dls.remote.tunnel.observation import Observation

LONG_SECONDS = 20.0
"""Seconds of an outage from which it is long: most end sooner, and ITK-SNAP waits for them."""
BETWEEN = " · "


def describe_link(seen: Observation, round_trip: float | None) -> list[str]:
    """Return what is told of the link: in an outage since when, the next try, and what waits."""
    if seen.state == "open":
        again = {0: [], 1: ["1 reconnect"]}.get(seen.restored, [f"{seen.restored} reconnects"])
        trip = [] if round_trip is None else [f"round trip {format_short(round_trip)}"]
        return [f"link up for {format_duration(seen.seconds)}", *trip, *again]
    if seen.state == "asleep":
        return [f"server asleep for {format_duration(seen.seconds)}: the next click starts it"]
    trying = "trying now" if seen.next_try is None else f"next try in {format_duration(seen.next_try)}"
    waiting = {0: [], 1: ["1 request waits"]}.get(seen.waiting, [f"{seen.waiting} requests wait"])
    return [f"link lost for {format_duration(seen.seconds)}", trying, *waiting]


def describe_server(facts: ServerFacts, seen: Observation) -> list[str]:
    """Return what is told of the server: engine, GPU, sessions, the last request, and when it would end."""
    parts = [facts.describe_engine()] if facts.engine else []
    if facts.gpu is not None:
        parts.append(str(facts.gpu))
    if facts.engine:
        parts.append(f"sessions: {facts.describe_sessions()}")
    if (last := describe_last(facts, seen)) is not None:
        parts.append(last)
    if facts.ends_after is not None:
        parts.append(f"server ends {format_duration(facts.ends_after)} after the last use")
    return parts


def describe_last(facts: ServerFacts, seen: Observation) -> str | None:
    """Return what is told of the last prompt: its whole time as it was here, and the engine's part of it."""
    if seen.last is None:
        return facts.last.describe() if facts.last else None
    text = f"{seen.last.kind} {format_ago(seen.now - seen.last.at)}: whole {format_short(seen.last.seconds)}"
    is_same = facts.last is not None and facts.last.kind == seen.last.kind and facts.last.model <= seen.last.seconds
    return f"{text}, model {format_short(facts.last.model)}" if facts.last is not None and is_same else text


def fill(parts: list[str], width: int) -> list[str]:
    """Return the parts as lines that are no wider than the width; a part that is wider by itself is cut off."""
    lines: list[str] = []
    for part in parts:
        part = part if len(part) <= width else f"{part[: max(0, width - 1)]}…"
        if lines and len(lines[-1]) + len(BETWEEN) + len(part) <= width:
            lines[-1] += BETWEEN + part
        else:
            lines.append(part)
    return lines


@dataclass
class Notices:
    """Decides what is worth a notice: that the link is lost for long, and that it is back then."""

    is_told: bool = False

    def look(self, seen: Observation, label: str) -> str:
        """Return the notice that is due; empty for none."""
        if seen.state == "lost" and seen.seconds >= LONG_SECONDS and not self.is_told:
            self.is_told = True
            return f"dls: the link to {label} is lost"
        if seen.state == "open" and self.is_told:
            self.is_told = False
            return f"dls: the link to {label} is back"
        return ""
