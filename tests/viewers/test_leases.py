"""Leases of official clients on a host's server: types of images and masks, several at once, and their end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dls.server.volume import Prompt
from tests.faults.official import DirectSegmentation
from tests.support import official
from tests.support.itksnap import ItkSnap
from tests.support.nninteractive import IGNORED_WARNINGS
from tests.support.official import Direct, Operation
from tests.support.processes import until
from tests.support.synthetic import ellipsoid, noisy
from tests.viewers.conftest import Viewed

pytestmark = [*IGNORED_WARNINGS, pytest.mark.slow, pytest.mark.timeout(1200)]

SHAPE = (40, 44, 48)
TRUTH = ellipsoid(SHAPE, (20, 22, 24), (10, 11, 12))
IMAGE = noisy(TRUTH, 5, np.random.default_rng(0))
CENTER, BESIDE = official.point(20, 22, 24), official.point(20, 22, 40, include=False)
LASSO = official.lasso((TRUTH & (np.arange(40) == 20)[:, None, None]).astype(np.uint8))
IMAGE_TYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
BUFFER_TYPES = ("bool", "uint8", "int8", "uint16", "int16", "int32", "uint32", "int64")


@contextlib.contextmanager
def sessions(viewed: Viewed, count: int) -> Iterator[list[Any]]:
    """Claim so many leases, and release them."""
    with contextlib.ExitStack() as stack:
        claimed = []
        for _ in range(count):
            claimed.append(official.connect_official(viewed.port))
            stack.callback(claimed[-1].close)
        yield claimed


def of_type(dtype: str) -> np.ndarray:
    """Return the image with values of this type."""
    if dtype == "bool":
        return IMAGE > 125
    low = np.clip(IMAGE / 2, 0, 127) if dtype.endswith("int8") else IMAGE
    return low.astype(dtype)


def assert_mask(session: Any, direct: Direct, operation: Operation) -> None:
    """Make the call with the client and in the library directly, and compare the masks."""
    operation(session)
    mask = direct.apply(operation)
    if mask is not None:
        np.testing.assert_array_equal(np.asarray(session.target_buffer), mask)


@pytest.mark.parametrize("types", [IMAGE_TYPES[:6], IMAGE_TYPES[6:]], ids=["small", "large"])
@pytest.mark.parametrize("fault", [Viewed.kill_server, Viewed.kill_engine])
def test_images_of_every_type(viewed: Viewed, types: tuple[str, ...], fault: Callable[[Viewed], None]) -> None:
    """An image of each type gives the library's masks, before and after a kill."""
    with sessions(viewed, len(types)) as claimed:
        directs = [Direct() for _ in types]
        for session, direct, dtype in zip(claimed, directs, types, strict=True):
            for operation in (*official.begin(of_type(dtype)), CENTER):
                assert_mask(session, direct, operation)
        fault(viewed)
        for session, direct in zip(claimed, directs, strict=True):
            assert_mask(session, direct, BESIDE)


@pytest.mark.parametrize("fault", [Viewed.kill_server, Viewed.kill_engine])
def test_masks_of_every_type(viewed: Viewed, fault: Callable[[Viewed], None]) -> None:
    """A target buffer of each type, of torch too, has the library's mask, before and after a kill."""
    with sessions(viewed, len(BUFFER_TYPES)) as claimed:
        directs = [Direct() for _ in BUFFER_TYPES]
        for session, direct, dtype in zip(claimed, directs, BUFFER_TYPES, strict=True):
            for operation in (*official.begin(IMAGE, dtype), CENTER):
                assert_mask(session, direct, operation)
            assert session.target_buffer.dtype == dtype
        fault(viewed)
        for session, direct in zip(claimed, directs, strict=True):
            assert_mask(session, direct, LASSO)


def test_a_target_buffer_of_torch(viewed: Viewed) -> None:
    """A tensor as the target buffer is filled like an array, before and after a kill."""
    with sessions(viewed, 1) as [session]:
        direct = Direct([*official.begin(IMAGE)])
        official.set_image(IMAGE)(session)
        session.set_target_buffer(torch.zeros(SHAPE, dtype=torch.uint8))
        assert_mask(session, direct, CENTER)
        viewed.kill_server()
        assert_mask(session, direct, LASSO)


def test_an_object_larger_than_a_patch(viewed: Viewed) -> None:
    """Where the library zooms out and samples patches at random, a lease that was replayed has the same masks too."""
    shape = (150, 150, 150)
    ball = ellipsoid(shape, (75, 75, 75), (45, 45, 45))
    image = noisy(ball, 6, np.random.default_rng(0))
    section = (ball & (np.arange(150) == 75)[:, None, None]).astype(np.uint8)
    with sessions(viewed, 1) as [session]:
        direct = Direct()
        for operation in (*official.begin(image), official.point(75, 75, 75), official.lasso(section)):
            assert_mask(session, direct, operation)
        viewed.kill_server()
        assert_mask(session, direct, official.point(75, 75, 40))
        viewed.kill_engine()
        assert_mask(session, direct, official.undo)
        assert_mask(session, direct, official.point(75, 40, 75))
        assert np.ptp(np.argwhere(session.target_buffer), axis=0).max() > 64, "the object is not larger than a patch"


def test_two_leases_beside_itksnap(viewed: Viewed) -> None:
    """Two official clients and ITK-SNAP work at once with images of their own while the server is killed."""
    images = [noisy(TRUTH, 4 + number, np.random.default_rng(number)) for number in range(3)]
    snap = ItkSnap(viewed.port)
    snap.start("nnInteractive")
    answers: list[np.ndarray] = []
    with sessions(viewed, 2) as claimed:
        histories = [[*official.begin(image), CENTER, BESIDE, LASSO, CENTER] for image in images[:2]]
        killed = threading.Barrier(4)

        def annotate(session: Any, history: list[Operation]) -> None:
            for number, operation in enumerate(history):
                if number == 4:
                    killed.wait(120)
                operation(session)

        def annotate_in_itksnap() -> None:
            assert snap.upload(images[2]).status == 200
            answers.append(snap.mask(snap.point(20, 22, 24)))
            killed.wait(120)
            answers.append(snap.mask(snap.point(20, 22, 28)))

        threads = [threading.Thread(target=annotate, args=pair) for pair in zip(claimed, histories, strict=True)]
        threads.append(threading.Thread(target=annotate_in_itksnap))
        for thread in threads:
            thread.start()
        killed.wait(120)
        viewed.kill_server()
        for thread in threads:
            thread.join()
        for session, history in zip(claimed, histories, strict=True):
            np.testing.assert_array_equal(session.target_buffer, Direct(history).apply(official.predict))
    direct = DirectSegmentation(images[2])
    for mask, at in zip(answers, [(20, 22, 24), (20, 22, 28)], strict=True):
        direct.add(Prompt.point(*at, foreground=True))
        np.testing.assert_array_equal(mask, direct.mask)


def test_eight_clients_whose_hearts_beat(viewed: Viewed) -> None:
    """Eight clients keep their leases while the server, the engine and the link are killed; no heartbeat is refused."""
    with sessions(viewed, 8) as claimed:
        directs = [Direct() for _ in claimed]
        for number, (session, direct) in enumerate(zip(claimed, directs, strict=True)):
            for operation in (*official.begin(noisy(TRUTH, 5, np.random.default_rng(number))), CENTER):
                assert_mask(session, direct, operation)
        for fault in (Viewed.kill_server, Viewed.kill_engine, Viewed.cut_link):
            fault(viewed)
            for session in claimed:
                assert session.heartbeat() > 0
            for session, direct in zip(claimed, directs, strict=True):
                assert_mask(session, direct, BESIDE)
        assert all(session._heartbeat_thread.is_alive() for session in claimed)


def test_release_removes_the_files(viewed: Viewed) -> None:
    """A lease with an image has files on the host; when its client closes, they are gone."""
    with sessions(viewed, 1) as [session]:
        for operation in (*official.begin(IMAGE), CENTER):
            operation(session)
        folders = viewed.folders_of(session)
        assert folders, "the lease has no files"
    until(lambda: not any(folder.exists() for folder in folders))


def test_a_released_lease_is_gone(viewed: Viewed) -> None:
    """After its release a lease is refused with 410, also by a server that was started since."""
    first, second = (official.connect_official(viewed.port) for _ in range(2))
    token = first._lease_token
    first.close()
    remote = pytest.importorskip("nnInteractive.inference.remote")
    second._http.headers["X-Lease-Token"] = token
    with pytest.raises(remote.SessionExpiredError):
        second.heartbeat()
    viewed.kill_server()
    with pytest.raises(remote.SessionExpiredError):
        second.undo()  # not a heartbeat: the local port answers those while the server is started
    second._http.headers["X-Lease-Token"] = second._lease_token
    second.close()
