"""What the page is told of official clients' sessions: their masks, and never an image that only the engine unpacks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.server.http.test_overview import is_colored, overview, picture_of
from tests.server.official.lease import Lease
from tests.support.http_server import serving
from tests.support.nninteractive import IGNORED_WARNINGS
from tests.support.official_engine import OfficialPainter
from tests.support.processes import until

pytestmark = IGNORED_WARNINGS

SHAPE = (20, 30, 40)
POINT = {"coordinates": [10, 10, 10], "include_interaction": True}


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_an_official_clients_session(short_folder: Path, dtype: str) -> None:
    """It is listed without a picture until there is a mask, and then its mask is drawn on plain grey; its operations
    are among the last requests."""
    image = np.random.default_rng(0).normal(100, 50, SHAPE).astype(np.int16)
    with serving(OfficialPainter(), socket=str(short_folder / "s"), folder=short_folder) as live:
        lease = Lease(live.port)
        lease.set_image(image)
        lease.set_buffer(SHAPE, dtype)
        [before] = overview(live)["sessions"]
        assert before["id"] == lease.token[:8] and before["size"] == [40, 30, 20]
        assert lease.post("/add_point_interaction", POINT).status == 200
        [after] = overview(live)["sessions"]
        assert after["has_picture"] and after["awake"]
        status, picture = picture_of(live, after)
        assert status == 200 and is_colored(picture)
        with Image.open(io.BytesIO(picture)) as opened:
            assert len(np.unique(np.array(opened))) < 8  # black, one grey, and the mask over it
        until(lambda: overview(live)["requests"][0]["kind"] == "point")
        request = overview(live)["requests"][0]
        assert request["session"] == lease.token[:8] and 0 < request["engine"] <= request["seconds"]
