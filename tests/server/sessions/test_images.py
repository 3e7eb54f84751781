"""What a question for an image waits for: contents that are being looked at, and not another session's click."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from dls.server.sessions import images
from dls.server.sessions.copies import find_name

SESSION: Any = SimpleNamespace(files=SimpleNamespace(manifest=SimpleNamespace(image=SimpleNamespace(path="/image"))))


class Held:
    """What the server holds: the image's name comes when `is_read` is set, and its session when `is_free` is."""

    def __init__(self) -> None:
        self.is_read, self.is_free = asyncio.Event(), asyncio.Event()
        self.names: set[str] = set()
        store: Any = SimpleNamespace(copies=SimpleNamespace(add=lambda name, path: self.names.add(name), has=self.has))
        executors: Any = SimpleNamespace(codec=self.run)
        self.images = images.Images(executors, store, {}, self.holding)

    def has(self, name: str) -> bool:
        return name in self.names

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if function is find_name:
            await self.is_read.wait()
            return "name"
        return function(*arguments)

    @contextlib.asynccontextmanager
    async def holding(self, session: Any) -> AsyncIterator[Any]:
        await self.is_free.wait()
        yield session


def test_contents_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that has just come is found, however long it takes to read it."""
    monkeypatch.setattr(images, "SHARING_SECONDS", 30.0)

    async def ask() -> None:
        held = Held()
        held.is_free.set()
        held.images.share(SESSION)
        answer = asyncio.create_task(held.images.has_copy("name"))
        assert not (await asyncio.wait({answer}, timeout=0.1))[0]
        held.is_read.set()
        assert await answer and not held.images._sharing

    asyncio.run(ask())


def test_a_click_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a click holds the image's session, the answer is no, and the image is found later."""
    monkeypatch.setattr(images, "SHARING_SECONDS", 0.1)

    async def ask() -> None:
        held = Held()
        held.is_read.set()
        held.images.share(SESSION)
        assert not await held.images.has_copy("name")
        held.is_free.set()
        while held.images._sharing:
            await asyncio.sleep(0)
        assert await held.images.has_copy("name")

    asyncio.run(ask())
