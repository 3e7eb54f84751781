"""nnInteractive on a host that does not reach the model hub: its weights come over the loan, before the server."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.closed.lab import Lab
from tests.closed.ways import Laptop, Way, listeners
from tests.closed.web import Web
from tests.support.host_environment import lend_packages
from tests.support.itksnap import ItkSnap
from tests.support.model_hub import TINY_NAME
from tests.support.nninteractive import MODEL
from tests.support.synthetic import dice, ellipsoid, noisy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def click(port: int) -> float:
    """Click once, and return how well the mask fits what is there."""
    truth = ellipsoid((96, 128, 128), (48, 64, 64), (12, 15, 14))
    snap = ItkSnap(port)
    snap.start("nnInteractive")
    assert snap.upload(noisy(truth, 6, np.random.default_rng(0))).status == 200
    return dice(snap.mask(snap.point(48, 64, 64)), truth)


def test_over_a_loan(lab: Lab, web: Web, tmp_path: Path) -> None:
    """The packages are there, the weights are fetched from the hub by way of the laptop, and a click is answered."""
    laptop = Laptop(lab, Way("dropping"), tmp_path, user="root")
    models = lab.folder / "models"
    try:
        lend_packages(str(laptop.kept))
        options = ("--engine", "nninteractive", "--accept-licence", "--models-path", models)
        refused = laptop.try_to_connect(*options)
        assert refused.returncode == 19 and "model hub" in refused.stderr, refused.stderr
        assert not web.hub.requests
        with laptop.connected("--lend-network", *options) as process:
            [checkpoint] = MODEL.rglob("*.pth")
            fetched = models / "models" / TINY_NAME / checkpoint.relative_to(MODEL)
            assert fetched.read_bytes() == checkpoint.read_bytes()
            assert listeners(lab, "dropping") == set()
            requests = len(web.hub.requests)
            assert requests and laptop.node.call(lambda: click(process.port)) > 0.95
            assert len(web.hub.requests) == requests
    finally:
        laptop.remove()
        shutil.rmtree(models, ignore_errors=True)
