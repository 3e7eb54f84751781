"""The work of one annotator, and a local engine that says which masks it must give; here with ITK-SNAP."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, TypeVar

import numpy as np

from dls.server.engines.region import RegionEngine
from dls.server.volume import Box, Geometry, Mask, Prompt, Volume
from tests.support.itksnap import Answer, ItkSnap
from tests.support.synthetic import ellipsoid, noisy

W = TypeVar("W", bound="Work")
Place = tuple[int, int, int]
"""A voxel: z, y, x."""
STROKE = 10
"""Length of a scribble in voxels."""


class Work(ABC):
    """An image, prompts at random places in its object, and what was lost of them."""

    client = ""
    """Name of the program that the annotator uses."""
    poll = b""
    """The request that this program makes by itself all the time."""
    session = ""
    """Name of the session's folder on the host."""
    tries_again = False
    """Whether the annotator makes a call again that has failed."""

    def __init__(self, port: int, side: int = 48, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.shape = (side, side, side)
        self.truth = ellipsoid(self.shape, (side / 2,) * 3, tuple(side * rng.uniform(0.2, 0.35, 3)))
        self.image = noisy(self.truth, 5, rng)
        self._rng = rng
        self.port = port
        self.lost: list[str] = []
        self.repeats: list[str] = []
        """What the annotator saw before a call was made again."""
        self.clicks = 0

    def begin(self: W) -> W:
        """Begin a session, send the image and click once."""
        self._start()
        self.upload()
        self.click()
        return self

    def click(self) -> None:
        """Click at a random place in the object."""
        side = self.shape[0]
        z, y, x = (int(at) for at in self._rng.integers(side // 2 - 4, side // 2 + 5, 3))
        self.clicks += 1
        self._point((z, y, x))

    def scribble(self) -> None:
        """Draw a line along x in the object."""
        side = self.shape[0]
        z, y = (int(at) for at in self._rng.integers(side // 2 - 3, side // 2 + 4, 2))
        self.clicks += 1
        self._stroke((z, y, side // 2 - STROKE // 2))

    @abstractmethod
    def upload(self) -> None:
        """Send the image, also again."""

    @abstractmethod
    def check(self) -> None:
        """Compare the masks since the last check with those of the local engine, and record those that differ.

        This is no part of the work itself: the local engine takes as long as the one on the host.
        """

    @abstractmethod
    def close(self) -> None:
        """Leave the session, where the program does."""

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def _point(self, at: Place) -> None: ...

    @abstractmethod
    def _stroke(self, start: Place) -> None: ...


class Local(Protocol):
    """An engine in this process with one image open."""

    @property
    def mask(self) -> Mask:
        """The mask so far."""
        ...

    def add(self, prompt: Prompt) -> Box | None:
        """Refine the mask by a prompt."""
        ...

    def reset(self) -> None:
        """Remove all prompts."""
        ...


class ItkSnapWork(Work):
    """Work with ITK-SNAP, which libcurl plays; the server's engine is region or, if so said, nnInteractive."""

    client = "ITK-SNAP"
    poll = b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    def __init__(self, port: int, side: int = 48, seed: int = 0, model: str = "region") -> None:
        super().__init__(port, side, seed)
        self.snap = ItkSnap(port)
        self._model = model
        self._direct = self._open_local()
        self._answers: list[tuple[str, Prompt | None, Answer]] = []

    def _open_local(self) -> Local:
        if self._model == "region":
            return RegionEngine().open(Volume(self.image.copy(), Geometry(self.shape)))
        from tests.faults.official import DirectSegmentation

        return DirectSegmentation(self.image)

    def _start(self) -> None:
        self.session = self.snap.start(self._model)

    def upload(self) -> None:
        """Send the image; there are no prompts after that."""
        self._answers.append(("upload", None, self.snap.upload(self.image)))

    def _point(self, at: Place) -> None:
        answer = self.snap.point(*at)
        self._answers.append((f"click {self.clicks}", Prompt.point(*at, foreground=True), answer))

    def _stroke(self, start: Place) -> None:
        z, y, x = start
        drawn = np.zeros(self.shape, bool)
        drawn[z, y, x : x + STROKE] = True
        answer = self.snap.draw("scribble", drawn)
        prompt = Prompt("scribble", True, start, np.ones((1, 1, STROKE), bool))
        self._answers.append((f"scribble {self.clicks}", prompt, answer))

    def check(self) -> None:
        """Compare the masks with the local engine's; an answer that is no mask is lost."""
        for name, prompt, answer in self._answers:
            if prompt is None:
                self._direct.reset()
            else:
                self._direct.add(prompt)
            if answer.status != 200:
                self.lost.append(f"{name}: {answer.status} {answer.body[:200]!r}")
            elif prompt is not None and not np.array_equal(self.snap.mask(answer), self._direct.mask):
                self.lost.append(f"{name}: the mask is another one")
        self._answers.clear()

    def close(self) -> None:
        """Do nothing: ITK-SNAP ends its sessions with its window."""
