"""The real nnInteractive session on a tiny model: called directly, over HTTP, and beside its native API."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from dls.errors import BadRequest, EngineError, Exhausted
from dls.server.engines.base import Segmentation
from dls.server.engines.catalog import make_engine
from dls.server.engines.nninteractive import NnInteractiveEngine
from dls.server.engines.process import ProcessEngine
from dls.server.options import EngineOptions
from dls.server.volume import LASSO, SCRIBBLE, Geometry, Prompt, Volume
from dls.weights import ModelSpec
from tests.support.connect_process import engines_of, kill_all
from tests.support.http_server import LiveServer, serving
from tests.support.itksnap import ItkSnap, described, packed
from tests.support.nninteractive import IGNORED_WARNINGS, MODEL
from tests.support.synthetic import deepest, dice, ellipsoid, noisy
from tests.tiny_model.images import phantom

torch = pytest.importorskip("torch", reason="torch is not installed: scripts/test installs it")

pytestmark = IGNORED_WARNINGS

SHAPE = (96, 128, 128)
TRUTH = ellipsoid(SHAPE, (48, 64, 64), (12, 15, 14))
IMAGE = noisy(TRUTH, 6, np.random.default_rng(0))
CENTER = (48, 64, 64)


def load_engine(model: str = str(MODEL)) -> NnInteractiveEngine:
    engine = NnInteractiveEngine(EngineOptions("cpu", ModelSpec(model, network=False)))
    engine.load(lambda progress: None)
    return engine


@pytest.fixture(scope="module")
def engine() -> Iterator[NnInteractiveEngine]:
    loaded = load_engine()
    yield loaded
    loaded.close()


def open_image(engine: NnInteractiveEngine, image: np.ndarray = IMAGE) -> Segmentation:
    return engine.open(Volume(image.copy(), Geometry(image.shape)))


def draw_on(truth: np.ndarray, kind: str) -> Prompt:
    """Return a scribble through the widest slice of an object, or a lasso around it in that slice."""
    z = deepest(truth, (1, 1, 1))[0]
    section = truth[z]
    if kind == SCRIBBLE:
        core = ndimage.distance_transform_edt(np.pad(section, 1))[1:-1, 1:-1]
        row = int(np.argmax(core.max(1)))
        drawn = np.zeros_like(section)
        drawn[row : row + 2] = core[row : row + 1] > 2
    else:
        drawn = ndimage.binary_dilation(section)
    rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
    crop = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Prompt(kind, True, (z, int(rows[0]), int(columns[0])), crop[None])


def mask_after(work: Segmentation, prompt: Prompt) -> np.ndarray:
    work.add(prompt)
    return work.mask.copy()


def test_every_kind_of_prompt(engine: NnInteractiveEngine) -> None:
    """A point, a scribble and a lasso each find the object; after a reset the same prompt gives the same mask."""
    work = open_image(engine)
    work.add(Prompt.point(*CENTER, foreground=True))
    first = work.mask.copy()
    assert dice(first, TRUTH) > 0.95
    for kind in (SCRIBBLE, LASSO):
        work.reset()
        assert not work.mask.any()
        box = work.add(draw_on(TRUTH, kind))
        assert dice(work.mask, TRUTH) > 0.9 and box is not None
        outside = work.mask.copy()
        outside[box] = 0
        assert not outside.any()
    work.reset()
    work.add(Prompt.point(*CENTER, foreground=True))
    np.testing.assert_array_equal(work.mask, first)
    work.add(Prompt.point(10, 10, 10, foreground=False))
    work.add(Prompt(SCRIBBLE, False, (48, 10, 10), np.ones((1, 3, 20), bool)))
    work.close()


def test_two_sessions_interleaved_give_what_each_gives_alone(engine: NnInteractiveEngine) -> None:
    """Sessions that share a network give the same masks, voxel for voxel, as each alone."""
    images = [phantom(70000)[0], phantom(70001)[0]]
    truths = [phantom(70000)[1] == 1, phantom(70001)[1] == 1]
    prompts = [
        [Prompt.point(*deepest(truth, (1, 1, 1)), foreground=True), draw_on(truth, SCRIBBLE), draw_on(truth, LASSO)]
        for truth in truths
    ]
    alone = []
    for image, drawn in zip(images, prompts, strict=True):
        work = open_image(engine, image)
        alone.append([mask_after(work, prompt) for prompt in drawn])
        work.close()
    works = [open_image(engine, image) for image in images]
    for turn in range(3):
        for work, drawn, masks in zip(works, prompts, alone, strict=True):
            work.add(drawn[turn])
            np.testing.assert_array_equal(work.mask, masks[turn])


@pytest.mark.slow
def test_unseen_shapes() -> None:
    """On 20 unseen shapes the mean Dice is at least 0.90 for a point, a scribble and a lasso."""
    engine = load_engine()
    scores: dict[str, list[float]] = {"point": [], SCRIBBLE: [], LASSO: []}
    for seed in range(60100, 60120):
        image, labels = phantom(seed)
        truth = labels == 1 + seed % int(labels.max())
        work = open_image(engine, image)
        for kind, row in scores.items():
            work.reset()
            point = Prompt.point(*deepest(truth, (1, 1, 1)), foreground=True)
            work.add(point if kind == "point" else draw_on(truth, kind))
            row.append(dice(work.mask, truth))
        work.close()
    for kind, row in scores.items():
        print(f"{kind}: mean {np.mean(row):.3f} median {np.median(row):.3f} least {min(row):.3f}")
        assert np.mean(row) >= 0.90, (kind, row)


def test_unusual_images(engine: NnInteractiveEngine, caplog: pytest.LogCaptureFixture) -> None:
    """Single slices, odd sides, NaN, infinities and any range give a mask; replaced values are logged."""
    for shape in [(1, 90, 70), (33, 1, 50), (7, 11, 13), (130, 60, 40)]:
        image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        work = open_image(engine, image)
        z, y, x = (side // 2 for side in shape)
        work.add(Prompt.point(z, y, x, foreground=True))
        assert work.mask.shape == shape
        work.close()
    odd = IMAGE.copy()
    odd[0, 0, :4] = [np.nan, np.inf, -np.inf, 3e38]
    with caplog.at_level("INFO", "dls.server"):
        work = open_image(engine, odd)
    assert "not finite" in caplog.text
    work.close()
    for factor in (1e-6, 1e15):
        work = open_image(engine, IMAGE * np.float32(factor))
        work.add(Prompt.point(*CENTER, foreground=True))
        assert dice(work.mask, TRUTH) > 0.9, factor
        work.close()


@pytest.mark.parametrize("value", [0.0, 5.0, np.nan])
def test_a_constant_image(engine: NnInteractiveEngine, value: float) -> None:
    """The mask is what is drawn; the library itself raises for zeros, and gives an empty mask for other values."""
    work = open_image(engine, np.full((20, 30, 40), value, np.float32))
    work.add(Prompt.point(5, 6, 7, foreground=True))
    assert work.mask.sum() == 1 and work.mask[5, 6, 7] == 1
    work.add(Prompt(SCRIBBLE, False, (5, 6, 7), np.ones((1, 1, 5), bool)))
    assert not work.mask.any()


def test_a_prompt_that_fails_half_way_changes_nothing(engine: NnInteractiveEngine) -> None:
    """When memory runs out, the prompt is repeated once and then refused, and the session stays as it was."""
    work, same = open_image(engine), open_image(engine)
    for each in (work, same):
        each.add(Prompt.point(*CENTER, foreground=True))
    before = work.mask.copy()
    network = engine._artifacts["network"]
    calls: list[int] = []

    def out_of_memory(*anything: object) -> None:
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = network.register_forward_hook(out_of_memory)
    with pytest.raises(Exhausted, match="not enough memory"):
        work.add(draw_on(TRUTH, SCRIBBLE))
    hook.remove()
    assert len(calls) == 2
    np.testing.assert_array_equal(work.mask, before)
    for each in (work, same):
        each.add(draw_on(TRUTH, SCRIBBLE))
    np.testing.assert_array_equal(work.mask, same.mask)


def test_a_drawing_that_leaves_the_image(engine: NnInteractiveEngine) -> None:
    """The drawing is refused as a bad request; the library would clip it silently or raise."""
    work = open_image(engine)
    with pytest.raises(BadRequest):
        work.add(Prompt(SCRIBBLE, True, (95, 0, 0), np.ones((3, 2, 2), bool)))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing that the library prints reaches standard output."""
    engine = load_engine()
    work = open_image(engine)
    work.add(Prompt.point(*CENTER, foreground=True))
    assert capfd.readouterr().out == ""


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with serving(make_engine("nninteractive", EngineOptions("cpu", ModelSpec(str(MODEL))))) as server:
        yield server


def test_through_http(live: LiveServer, engine: NnInteractiveEngine) -> None:
    """Masks over HTTP equal those of the engine called directly; the model has its own name."""
    snap = ItkSnap(live.port)
    assert [model["id"] for model in snap.get("/v2/models").json["models"]] == ["nnInteractive"]
    snap.start("nnInteractive")
    work = open_image(engine)
    assert snap.upload(IMAGE).status == 200
    assert snap.upload(IMAGE).status == 200  # a second upload at once: the library itself can deadlock
    work.add(Prompt.point(*CENTER, foreground=True))
    np.testing.assert_array_equal(snap.mask(snap.point(*CENTER)), work.mask)
    for kind in (SCRIBBLE, LASSO):
        prompt = draw_on(TRUTH, kind)
        whole = np.zeros(SHAPE, bool)
        whole[prompt.box] = prompt.mask
        work.add(prompt)
        np.testing.assert_array_equal(snap.mask(snap.draw(kind, whole)), work.mask)
    assert snap.get(f"/reset_interactions/{snap.session}").status == 200
    too_large = snap.post(f"/upload_raw/{snap.session}", packed(IMAGE), described((3000, 3000, 3000)))
    assert too_large.status == 413 and "MiB" in too_large.error


def test_both_protocols_at_once(live: LiveServer, engine: NnInteractiveEngine) -> None:
    """A client of the native API and ITK-SNAP get the same mask through the same port at the same time."""
    remote = pytest.importorskip("nnInteractive.inference.remote")
    client = remote.nnInteractiveRemoteInferenceSession(f"http://127.0.0.1:{live.port}")
    client.set_image(IMAGE[None])
    theirs = np.zeros(SHAPE, np.uint8)
    client.set_target_buffer(theirs)
    snap = ItkSnap(live.port)
    snap.start("nnInteractive")
    snap.upload(IMAGE)
    ours: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: ours.append(snap.mask(snap.point(*CENTER))))
    thread.start()
    client.add_point_interaction(list(CENTER), True)
    thread.join()
    np.testing.assert_array_equal(ours[0], theirs)
    assert dice(theirs, TRUTH) > 0.95
    client.close()


def test_the_native_api_can_be_disabled() -> None:
    """Without the native API its addresses answer 404."""
    engine = make_engine("nninteractive", EngineOptions("cpu", ModelSpec(str(MODEL)), native_api=False))
    with serving(engine, native_api=False) as server:
        snap = ItkSnap(server.port)
        snap.start("nnInteractive")
        assert snap._perform("/claim", [], []).status == 404


def test_incomplete_models_are_refused(tmp_path: Path) -> None:
    """A model with a truncated or missing file is refused, and the error names the file."""
    broken = tmp_path / "model"
    shutil.copytree(MODEL, broken)
    checkpoint = broken / "fold_0" / "checkpoint_final.pth"
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: len(data) // 2])
    with pytest.raises(EngineError, match=r"the whole of fold_0/checkpoint_final\.pth"):
        make_engine("nninteractive", EngineOptions(models=ModelSpec(str(broken))))
    (broken / "plans.json").unlink()
    with pytest.raises(EngineError, match=r"plans\.json"):
        make_engine("nninteractive", EngineOptions(models=ModelSpec(str(broken))))
    with pytest.raises(EngineError, match="--no-network"):
        make_engine("nninteractive", EngineOptions(models=ModelSpec(path=tmp_path / "none", network=False)))


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    """A checkpoint of another program is refused with an EngineError."""
    odd = tmp_path / "model"
    shutil.copytree(MODEL, odd)
    torch.save({"weights": {}}, odd / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(EngineError, match="can't be loaded"):
        load_engine(str(odd))


def test_the_library_has_what_the_engine_uses() -> None:
    """The installed version is in the supported range and has the undocumented methods that the engine calls."""
    from importlib.metadata import version

    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession as library

    major, minor = (int(part) for part in version("nnInteractive").split(".")[:2])
    assert major == 2 and minor >= 6
    for name in (
        "_load_model_artifacts_from_disk",
        "_finish_preprocessing_and_initialize_interactions",
        "_reset_session",
    ):
        assert callable(getattr(library, name))
    assert library.AUTO_TENSOR_MAX_VOXELS == 512 * 512 * 512


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_session_is_replayed_by_the_next_process(tmp_path: Path) -> None:
    """After the engine's process is killed, and after the server is replaced, clicks give the same masks as before."""
    options = EngineOptions("cpu", ModelSpec(str(MODEL), network=False))

    def make_process() -> ProcessEngine:
        return ProcessEngine("nninteractive", options, make_engine("nninteractive", options))

    def click_and_draw(snap: ItkSnap) -> list[np.ndarray]:
        stroke = np.zeros(SHAPE, bool)
        stroke[48, 64, 55:75] = True
        return [snap.mask(snap.point(48, 64, 64)), snap.mask(snap.draw("scribble", stroke))]

    with serving(make_process(), folder=tmp_path) as server:
        undisturbed, killed = ItkSnap(server.port), ItkSnap(server.port)
        for snap in (undisturbed, killed):
            snap.start("nnInteractive")
            assert snap.upload(IMAGE).status == 200
            click_and_draw(snap)
        expected = [undisturbed.mask(undisturbed.point(50, 64, 64)), undisturbed.mask(undisturbed.point(44, 66, 60))]
        assert expected[0].any()
        kill_all(engines_of(os.getpid()))
        np.testing.assert_array_equal(killed.mask(killed.point(50, 64, 64)), expected[0])
        assert ItkSnap(server.port).get("/capabilities").status == 200  # the native API is back too
    with serving(make_process(), folder=tmp_path) as server:
        killed.url = f"http://127.0.0.1:{server.port}"
        np.testing.assert_array_equal(killed.mask(killed.point(44, 66, 60)), expected[1])
