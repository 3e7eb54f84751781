"""What a server tells its user about itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np

from dls.contract import FACTS_PATH
from dls.server.http.access import Policy
from dls.server.http.activity import Activity
from tests.support.http_server import serving
from tests.support.itksnap import ItkSnap
from tests.support.synthetic import ellipsoid


def get_over_socket(path: str) -> Any:
    client = http.client.HTTPConnection("localhost")
    client.sock = socket.socket(socket.AF_UNIX)
    with contextlib.closing(client):
        client.sock.connect(path)
        client.request("GET", FACTS_PATH)
        return json.loads(client.getresponse().read())


def test_the_facts_of_a_server(short_folder: Path) -> None:
    """Its engine, its sessions, its last prompt with its times, and when it would end; nothing of an image."""
    now = [0.0]
    activity = Activity(lambda: now[0])
    with serving(socket=str(short_folder / "s"), activity=activity, idle=1800.0) as server:
        facts = get_over_socket(server.socket)
        assert facts["engine"] == "region" and facts["device"] == "cpu" and facts["gpu"] is None
        assert facts["sessions"] == {"awake": 0, "asleep": 0} and facts["last"] is None
        snap = ItkSnap(server.port)
        snap.start()
        assert snap.upload(ellipsoid((20, 20, 20), (10, 10, 10), (4, 5, 6)).astype("f4")).status == 200
        assert snap.point(10, 10, 10).status == 200
        stroke = np.ones((20, 20, 20), bool)
        assert snap.draw("scribble", stroke[:, :, 1:]).status == 400  # a refused one is no last prompt
        assert snap.get(f"/v2/reset_interactions/{snap.session}").status == 200  # nor is a reset
        now[0] = 60.0
        facts = get_over_socket(server.socket)
        assert facts["sessions"] == {"awake": 1, "asleep": 0} and facts["last"]["kind"] == "point"
        assert facts["last"]["seconds"] >= facts["last"]["model_seconds"] >= 0
        now[0] = 90.0
        facts = get_over_socket(server.socket)
        assert facts["idle"] == 90.0 and facts["ends_after"] == 1800.0  # looking is no use


def test_nobody_else_is_told(short_folder: Path) -> None:
    """Over a port, whoever does not know the secret meets nothing at that address."""
    with serving(policy=Policy("secret")) as server:
        assert ItkSnap(server.port).get(FACTS_PATH).status == 401
        assert ItkSnap(server.port, "snap:secret@127.0.0.1").get(FACTS_PATH).status == 200
    with serving() as server:
        assert ItkSnap(server.port).get(FACTS_PATH).status == 404
