"""A thin way: two network devices (tun) whose packets cross at a given rate, some time later, behind a short queue.

TCP meets what it meets on a home's line: what is sent waits in the queue, and is lost where that is full. Needs root.

Also a program: `thin_link.py SPACE NEAR FAR RATE SECONDS` creates the devices, NEAR here and FAR in the network
namespace, and carries their packets until it is ended; RATE is in bytes a second, SECONDS the delay one way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

NEAR_ADDRESS, FAR_ADDRESS = "10.213.8.1", "10.213.8.2"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
QUEUE_SECONDS = 0.2
"""How long a packet may wait for those before it; what comes beyond is dropped, as by a router."""


class Direction:
    """The packets on their way from one device to the other."""

    def __init__(self, source: int, target: int, rate: float, seconds: float) -> None:
        self.source, self.target = source, target
        self._rate, self._seconds = rate, seconds
        self._free_at = 0.0
        self._underway: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        """Read the packets that have come."""
        with contextlib.suppress(BlockingIOError):
            while packet := os.read(self.source, 65536):
                now = time.monotonic()
                begins = max(now, self._free_at)
                if begins - now > QUEUE_SECONDS:
                    continue
                self._free_at = begins + len(packet) / self._rate
                self._underway.append((self._free_at + self._seconds, packet))

    def deliver(self) -> float:
        """Write the packets that are due; return when the next one is."""
        while self._underway and self._underway[0][0] <= time.monotonic():
            with contextlib.suppress(OSError):
                os.write(self.target, self._underway.popleft()[1])
        return self._underway[0][0] if self._underway else float("inf")


def open_device(name: str) -> int:
    """Create a device and return its descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def carry(space: str, near: str, far: str, rate: float, seconds: float) -> None:
    """Create the devices, say so, and carry their packets until this process ends."""
    ends = [open_device(near), open_device(far)]
    inside = ["ip", "netns", "exec", space]
    for words in (
        ["ip", "link", "set", far, "netns", space],
        ["ip", "addr", "add", f"{NEAR_ADDRESS}/24", "dev", near],
        ["ip", "link", "set", near, "up"],
        [*inside, "ip", "addr", "add", f"{FAR_ADDRESS}/24", "dev", far],
        [*inside, "ip", "link", "set", far, "up"],
    ):
        subprocess.run(words, check=True, capture_output=True)
    print("ready", flush=True)
    here, there = ends
    ways = [Direction(here, there, rate, seconds), Direction(there, here, rate, seconds)]
    while True:
        due = min(way.deliver() for way in ways)
        for ready in select.select(ends, [], [], max(0.0, min(1.0, due - time.monotonic())))[0]:
            next(way for way in ways if way.source == ready).take()


@contextlib.contextmanager
def thin_link(space: str, rate: float, seconds: float) -> Iterator[str]:
    """Open such a way into the namespace and yield the name of the device on this side; the host is FAR_ADDRESS."""
    near, far = f"dt{os.getpid() % 10**7}", f"du{os.getpid() % 10**7}"
    command = [sys.executable, __file__, space, near, far, str(rate), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n", "the devices can't be created"
            yield near
        finally:
            process.terminate()


def sent_bytes(device: str) -> int:
    """Return how many bytes have left through the device."""
    return int(Path(f"/sys/class/net/{device}/statistics/tx_bytes").read_text())


if __name__ == "__main__":
    carry(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))
