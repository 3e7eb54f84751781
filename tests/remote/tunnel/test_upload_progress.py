"""How far an upload is: the count, and what is said of it."""

from __future__ import annotations

import pytest

from dls.remote.progress import UploadProgress
from dls.remote.tunnel.upload_progress import Meter


def test_rate_and_time_left() -> None:
    """They are those of the link so far; a report is due once a second."""
    meter = Meter(1, 10_000_000, 100.0)
    assert UploadProgress(1, 10_000_000).left is None and meter.seconds_left(100.0) == 0
    assert not meter.add(1_000_000, 100.5)
    assert meter.add(1_000_000, 101.0)
    assert (meter.progress.sent, meter.progress.rate, meter.progress.left) == (2_000_000, 2e6, 4.0)
    assert meter.seconds_left(102.0) == 8.0
    assert not meter.add(1_000_000, 101.9) and meter.add(1, 102.1)


def test_the_rest_is_judged_by_the_last_pieces() -> None:
    """What only filled buffers at the beginning says nothing of the link."""
    meter = Meter(1, 100_000_000, 0.0)
    meter.add(40_000_000, 0.001)
    for number in range(1, 11):
        meter.add(1_000_000, number)
    assert meter.seconds_left(10.0) == 50.0


def test_what_was_sent_before_a_cut_counts_as_sent_but_not_as_the_rate() -> None:
    """After a cut the rate begins anew, and the bytes that the host has are not left."""
    meter = Meter(1, 10_000_000, 0.0)
    meter.add(6_000_000, 1.0)
    meter.restart(5_000_000, 60.0)
    assert (meter.progress.state, meter.progress.saved) == ("resumed", 5_000_000)
    meter.add(1_000_000, 61.0)
    assert (meter.progress.sent, meter.progress.rate, meter.progress.left) == (6_000_000, 1e6, 4.0)
    meter.finish(done=True, now=65.0)
    assert meter.progress.describe() == "An image of 10 MB was sent in 65 s, 5 MB of it before the link was cut."


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (
            UploadProgress(1, 80_000_000, "sending", 12_000_000, rate=2.5e6),
            "Sending an image: 12 of 80 MB, 2.5 MB/s, 27 s left",
        ),
        (UploadProgress(1, 80_000_000, "resumed", 0, 34_000_000), "The upload of an image goes on at 34 of 80 MB."),
        (UploadProgress(1, 80_000_000, "done", seconds=32.4), "An image of 80 MB was sent in 32 s."),
        (
            UploadProgress(1, 80_000_000, "done", saved=80_000_000, seconds=1.5),
            "Not sent: the host has this image of 80 MB already (1.5 s).",
        ),
        (UploadProgress(1, 80_000_000, "failed"), "An image of 80 MB was not sent to its end."),
    ],
)
def test_what_the_panel_says(progress: UploadProgress, expected: str) -> None:
    """Sizes and times, and nothing of the image."""
    assert progress.describe() == expected
