"""Parts that the benchmarks share: volumes as ITK-SNAP sends them, timed requests, turns, medians and tables."""

from __future__ import annotations

import contextlib
import json
import statistics
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.support.itksnap import Answer, ItkSnap, described

CACHE = Path(__file__).resolve().parent.parent / ".bench"
"""Folder for files that later runs use again."""


def image(shape: tuple[int, int, int]) -> np.ndarray:
    """Return a smooth body in noise of few bits, which compresses to about a quarter of its size, as a CT does."""
    rng = np.random.default_rng(0)
    plane = rng.integers(0, 32, shape[1:]).astype(np.float32)
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape[1:])
    body = np.where(y[:, None] ** 2 + x**2 < 0.6, 1000.0, 0.0).astype(np.float32)
    volume = np.empty(shape, np.float32)
    for z in range(shape[0]):
        volume[z] = np.roll(plane, z * 977) + body
    return volume


def compress(volume: np.ndarray) -> bytes:
    """Compress as the client does: one gzip member at zlib's default level; other levels inflate at other speeds."""
    stream = zlib.compressobj(6, zlib.DEFLATED, 31)
    return stream.compress(np.ascontiguousarray(volume, "<f4").data) + stream.flush()


def compressed_image(shape: tuple[int, int, int]) -> bytes:
    """Return the compressed image of that shape, from a file after the first run: compressing takes 0.1 s per MiB."""
    path = CACHE / f"image-{'x'.join(map(str, reversed(shape)))}.gz"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(compress(image(shape)))
        part.replace(path)
    return path.read_bytes()


@dataclass
class Load:
    """The bodies of the requests for one volume: the image, a scribble and a lasso."""

    shape: tuple[int, int, int]
    file: bytes
    scribble: bytes
    lasso: bytes
    metadata: bytes

    @classmethod
    def of(cls, shape: tuple[int, int, int]) -> Load:
        """Create the bodies for a volume of shape (z, y, x)."""
        z, y, x = (side // 2 for side in shape)
        scribble, lasso = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        scribble[z, y, x // 2 : x + x // 2] = 1
        lasso[z, y - y // 4 : y + y // 4, x - x // 4 : x + x // 4] = 1
        return cls(shape, compressed_image(shape), compress(scribble), compress(lasso), described(shape))

    def upload(self, snap: ItkSnap) -> Answer:
        """Send the image."""
        return snap.post(f"/upload_raw/{snap.session}?filename=upload.nii.gz", self.file, self.metadata)

    def draw(self, snap: ItkSnap, kind: str) -> Answer:
        """Send a scribble or a lasso."""
        path = f"/process_{kind}_interaction/{snap.session}?foreground=true"
        return snap.post(path, getattr(self, kind), self.metadata)

    def point(self, snap: ItkSnap) -> Answer:
        """Send a click in the center."""
        z, y, x = (side // 2 for side in self.shape)
        return snap.point(z, y, x)


def timed(work: Callable[[], Answer]) -> float:
    """Return the seconds of a request; fails unless the server answers with 200."""
    started = time.perf_counter()
    answer = work()
    took = time.perf_counter() - started
    assert answer.status == 200, (answer.status, answer.body[:300])
    return took


def in_turns(works: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run the measurements in turns, so that other load on the machine affects all of them alike."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in list(works) if number % 2 == 0 else list(reversed(works)):
            seconds[name].append(works[name]())
    return seconds


def spread(values: Sequence[float], unit: float = 1.0) -> str:
    """Return the median and the range."""
    low, middle, high = min(values) * unit, statistics.median(values) * unit, max(values) * unit
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def memory(pid: int, name: str = "VmHWM") -> int:
    """Return a figure from `/proc/PID/status` in bytes: `VmHWM` is the peak, `VmRSS` the present size."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise ValueError(name)


def in_use(pids: Sequence[int]) -> int:
    """Return the bytes of the processes and of all shared memory of the machine, where nothing else uses any."""
    shared = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Shmem:"))
    return sum(memory(pid, "RssAnon") for pid in pids) + (int(shared.split()[1]) << 10)


@contextlib.contextmanager
def peak_of(measure: Callable[[], int]) -> Iterator[list[int]]:
    """Measure every 3 ms while the block runs; the first item of the list is the largest value."""
    peak, stop = [measure()], threading.Event()

    def watch() -> None:
        while not stop.wait(0.003):
            peak[0] = max(peak[0], measure())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def redirect(config: Path, folder: Path, port: int) -> Path:
    """Return an SSH configuration that connects to another port, with the host key known under the old port."""
    text = config.read_text()
    before = next(line.split()[1] for line in text.splitlines() if line.strip().startswith("Port"))
    path = folder / "redirected_config"
    path.write_text(text.replace(f"Port {before}", f"Port {port}\n  HostKeyAlias [127.0.0.1]:{before}"))
    return path


class Table:
    """Prints rows as they are measured, and writes them to a file at the end."""

    def __init__(self, *header: str) -> None:
        self.rows: dict[str, dict[str, float]] = {}
        print("| " + " | ".join((*header, "ratio")) + " |\n|" + "---|" * (len(header) + 1), flush=True)

    def add(self, name: str, ours: Sequence[float], peer: Sequence[float]) -> None:
        """Add a row of seconds; the ratio is that of the medians."""
        one, other = statistics.median(ours), statistics.median(peer)
        self._add_row(name, one, other, spread(ours, 1000), spread(peer, 1000))

    def add_plain(self, name: str, ours: float, peer: float) -> None:
        """Add a row of figures that are not times."""
        self._add_row(name, ours, peer, f"{ours:.3g}", f"{peer:.3g}")

    def _add_row(self, name: str, ours: float, peer: float, *shown: str) -> None:
        self.rows[name] = {"ours": ours, "peer": peer, "ratio": ours / peer}
        print(f"| {name} | {' | '.join(shown)} | {ours / peer:.3g} |", flush=True)

    def finish(self, path: Path | None) -> None:
        """Add the rows to a JSON file."""
        if path is not None:
            before = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps({**before, **self.rows}, indent=1) + "\n")
