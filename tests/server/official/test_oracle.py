"""Request for request, the server answers as the library's own does: same statuses, headers, boxes and voxels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from dls.server.engines.nninteractive import NnInteractiveEngine
from dls.server.options import EngineOptions
from dls.weights import ModelSpec
from tests.server.official.lease import Lease, Reply, pack, unpack
from tests.support.http_server import LiveServer, serving
from tests.support.nninteractive import IGNORED_WARNINGS, MODEL
from tests.support.synthetic import ellipsoid, noisy

pytestmark = IGNORED_WARNINGS

SHAPE = (40, 50, 60)
TRUTH = ellipsoid(SHAPE, (20, 25, 30), (8, 9, 10))
IMAGE = noisy(TRUTH, 6, np.random.default_rng(0))
STROKE = np.zeros(SHAPE, np.uint8)
STROKE[20, 20:30, 30] = 1
DTYPES = ["bool", *(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64))]
INCLUDE = {"include_interaction": True}


@dataclass
class Pair:
    """The library's own server, in this process, and ours; both are asked the same."""

    oracle: Any
    ours: Lease
    token: str

    def ask(self, method: str, path: str, content: bytes | None = None, **headers: str) -> tuple[Reply, Reply]:
        np.random.seed(0)  # as our server does before each operation
        named = {"X-Lease-Token": self.token} | {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.oracle.request(method, path, content=content, headers=named)
        theirs = Reply(answer.status_code, answer.headers, answer.content)
        return theirs, self.ours.ask(method, path, content, **headers)

    def same(self, path: str, fields: Any = None, array: np.ndarray | None = None, meta: Any = None) -> Reply:
        """Ask both, and return the answer, which has to be the same: of a refusal the status and the sentence."""
        if array is None:
            replies = self.ask("POST", path, json.dumps(fields).encode(), Content_Type="application/json")
        else:
            replies = self.ask("POST", path, pack(array), X_Meta=json.dumps(meta))
        theirs, ours = replies
        assert ours.status == theirs.status, (theirs.body[:300], ours.body[:300])
        if theirs.status != 200:
            assert ours.detail == theirs.json["detail"]
            return ours
        assert ours.headers["content-type"] == theirs.headers["content-type"]
        assert ours.headers.get("x-meta") == theirs.headers.get("x-meta")
        if "x-meta" not in theirs.headers or theirs.meta["bbox"] is None:
            assert ours.body == theirs.body
        else:
            first, second = unpack(theirs.body), unpack(ours.body)
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)
        return ours

    def refused(self, path: str, fields: Any) -> None:
        """Ask both for something at which the library's server fails with 500; ours says what is wrong, with 400."""
        theirs, ours = self.ask("POST", path, json.dumps(fields).encode(), Content_Type="application/json")
        assert theirs.status == 500 and ours.status == 400 and ours.detail

    def begin(self, dtype: str = "uint8") -> None:
        self.same("/set_image", array=IMAGE[None], meta={"image_properties": {"spacing": [1, 1, 2]}})
        self.same("/set_target_buffer", {"shape": list(SHAPE), "dtype": dtype})


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Any, LiveServer]]:
    from nnInteractive.inference.server.app import make_app
    from starlette.testclient import TestClient

    engine = NnInteractiveEngine(EngineOptions("cpu", ModelSpec(str(MODEL), network=False)))
    with serving(engine) as server:
        Lease(server.port)  # waits for the model
        app = make_app(engine._artifacts, engine._torch_device, max_sessions=1000)
        with TestClient(app, raise_server_exceptions=False) as oracle:
            yield oracle, server


@pytest.fixture
def pair(servers: tuple[Any, LiveServer]) -> Pair:
    oracle, server = servers
    return Pair(oracle, Lease(server.port), oracle.post("/claim").json()["lease_token"])


def test_routes_without_a_prediction(pair: Pair) -> None:
    """Capabilities, health, release and leases that are not there are answered in the same words."""
    for method, path in (("GET", "/capabilities"), ("GET", "/healthz"), ("POST", "/release"), ("POST", "/release")):
        theirs, ours = pair.ask(method, path)
        assert (ours.status, ours.json) == (theirs.status, theirs.json)
    for method, path in (("GET", "/lease_status"), ("POST", "/heartbeat"), ("POST", "/reset_interactions")):
        for token in ({}, {"X_Lease_Token": ""}):
            theirs, ours = pair.ask(method, path, b"{}", **token)
            assert (ours.status, ours.detail) == (theirs.status, theirs.json["detail"])
    theirs, ours = (reply.json for reply in pair.ask("POST", "/claim"))
    assert list(ours) == list(theirs)


def test_before_an_image(pair: Pair) -> None:
    """What needs no image is done; what needs one is refused with a sentence where the library fails."""
    assert pair.same("/undo", {}).meta["ran_prediction"] is False
    pair.same("/reset_interactions", {})
    pair.same("/set_do_autozoom", {"do_autozoom": True})
    pair.same("/set_target_buffer", {"shape": list(SHAPE), "dtype": "uint8"})
    pair.refused("/predict", {})
    pair.refused("/add_point_interaction", {"coordinates": [20, 25, 30], **INCLUDE})


def test_every_operation(pair: Pair) -> None:
    """Every kind of prompt, with and without a prediction, predict, undo and reset give the same."""
    pair.begin()
    assert pair.same("/add_point_interaction", {"coordinates": [20, 25.4, 30], **INCLUDE}).box is not None
    assert pair.same("/undo", {}).meta["ran_prediction"] and not pair.same("/undo", {}).meta["ran_prediction"]
    pair.same("/add_bbox_interaction", {"bbox_coords": [[20, 21], [15, 35.2], [20, 90]], **INCLUDE})
    part = {"interaction_bbox": [[20, 21], [0, 50], [0, 60]]}
    pair.same("/add_lasso_interaction", array=STROKE[20:21], meta={**INCLUDE, **part})
    pair.same("/add_scribble_interaction", array=STROKE, meta={"include_interaction": False, "run_prediction": False})
    pair.same("/add_scribble_interaction", array=STROKE * 0, meta={**INCLUDE, "interaction_bbox": None})
    assert pair.same("/add_scribble_interaction", array=STROKE * 0, meta=INCLUDE).meta["bbox"] is None
    pair.same("/add_point_interaction", {"coordinates": [20, 25, 62], **INCLUDE, "run_prediction": False})
    pair.same("/predict", {"force_full_refine": True})
    pair.same("/predict", {"force_full_refine": False})
    pair.same("/add_initial_seg_interaction", array=TRUTH.astype(np.uint8), meta={})
    pair.same("/undo", {})
    pair.same("/add_initial_seg_interaction", array=TRUTH.astype(np.uint8), meta={"run_prediction": True})
    pair.same("/set_do_autozoom", {"do_autozoom": False})
    pair.same("/reset_interactions", {})
    pair.same("/add_point_interaction", {"coordinates": [20, 25, 30], "include_interaction": False})
    pair.same("/set_image", array=IMAGE[None].astype(np.int16), meta={})
    pair.refused("/add_point_interaction", {"coordinates": [20, 25, 30], **INCLUDE})  # the buffer went with the image
    pair.same("/add_point_interaction", {"coordinates": [20, 25, 30], **INCLUDE, "run_prediction": False})
    pair.same("/set_target_buffer", {"shape": [30, 60, 60], "dtype": "uint8"})
    pair.same("/predict", {})


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_buffer_and_mask(pair: Pair, dtype: str) -> None:
    """Buffers and masks may have every type that the library takes, and give the same voxels of the same type."""
    pair.begin(dtype)
    assert pair.same("/add_point_interaction", {"coordinates": [20, 25, 30], **INCLUDE}).meta["dtype"] == dtype
    pair.same("/add_scribble_interaction", array=STROKE.astype(dtype), meta=INCLUDE)
    pair.same("/add_initial_seg_interaction", array=TRUTH.astype(dtype), meta={"run_prediction": True})
    pair.same("/undo", {})


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [*DTYPES, "float16", "float32", "float64"])
def test_every_type_of_image(pair: Pair, dtype: str) -> None:
    """Images of every type give the same prediction."""
    pair.same("/set_image", array=IMAGE[None].astype(dtype), meta={})
    pair.same("/set_target_buffer", {"shape": list(SHAPE), "dtype": "uint8"})
    pair.same("/add_point_interaction", {"coordinates": [20, 25, 30], **INCLUDE})


def test_what_is_refused(pair: Pair) -> None:
    """What the library refuses is refused with its sentence, and changes nothing."""
    pair.begin()
    pair.same("/add_point_interaction", {"coordinates": [20, 25, 30], **INCLUDE})
    for box in ([[10, 21], [15, 35], [20, 40]], [[20, 21], [15, 15], [20, 40]]):
        assert pair.same("/add_bbox_interaction", {"bbox_coords": box, **INCLUDE}).status == 400
    for box in (
        [[20, 22], [0, 50], [0, 60]],
        [[0, 1], [0, 50]],
        [[39, 40], [0, 50], [5, 65]],
        [[1, 1], [0, 50], [0, 60]],
    ):
        pair.same("/add_lasso_interaction", array=STROKE[20:21], meta={**INCLUDE, "interaction_bbox": box})
    pair.same("/add_initial_seg_interaction", array=STROKE[1:], meta={})
    for shape, dtype in (([1, 2], "u1"), (5, "u1"), ([1, 2, 0], "u1"), ([1, 2, 3], "float32"), ([1, 2, True], "u1")):
        assert pair.same("/set_target_buffer", {"shape": shape, "dtype": dtype}).status == 400
    for fields in ({"shape": [1, 2, 3]}, {"dtype": "u1"}, {"shape": [1, 2, 3], "dtype": "foo"}):
        assert pair.same("/set_target_buffer", fields).status == 400
    pair.refused("/set_do_autozoom", {})
    pair.refused("/add_point_interaction", {"coordinates": [20, 25, 30]})
    pair.refused("/add_point_interaction", {"coordinates": [20, 25, 330], **INCLUDE})
    pair.refused("/add_bbox_interaction", {"bbox_coords": [[200, 201], [15, 25], [20, 40]], **INCLUDE})
    pair.same("/add_scribble_interaction", array=STROKE, meta=INCLUDE)
    pair.same("/undo", {})


def test_images_that_are_refused(pair: Pair) -> None:
    """An image of zeros is refused at the first prompt and at each that follows, one of 3 dimensions at once."""
    theirs, ours = pair.ask("POST", "/set_image", pack(IMAGE), X_Meta="{}")
    assert (ours.status, ours.detail) == (theirs.status, theirs.json["detail"]) and ours.status == 400
    pair.same("/set_image", array=np.zeros((1, *SHAPE), np.int16), meta={})
    pair.same("/set_target_buffer", {"shape": list(SHAPE), "dtype": "uint8"})
    for _ in range(2):
        assert "entirely zero" in pair.same("/add_point_interaction", {"coordinates": [20, 25, 30], **INCLUDE}).detail
    pair.begin()
    pair.same("/add_point_interaction", {"coordinates": [20, 25, 30], **INCLUDE})
