"""nnInteractive as its own clients use it: each operation is a call of the library's method of that name.

Statements about the library refer to nninteractive 2.6.0, whose own server (`inference/server/app.py`) does the same.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dls.errors import BadRequest
from dls.server.engines.cuda_memory import retry_without_caches
from dls.server.engines.seeding import seed_prediction
from dls.server.operations import (
    ADD_BBOX,
    ADD_INITIAL_SEG,
    ADD_LASSO,
    ADD_POINT,
    ADD_SCRIBBLE,
    MASKED,
    PREDICT,
    PROMPTS,
    RESET,
    SET_DO_AUTOZOOM,
    SET_TARGET_BUFFER,
    UNDO,
    Bounds,
    Buffer,
    Carried,
    Operation,
    Outcome,
    to_bounds,
    to_shape,
)

NO_IMAGE = "There is no image yet: send one with set_image first."
NO_BUFFER = "There is no target buffer yet: set one with set_target_buffer before a prediction."


class NnInteractiveOfficial:
    """Starts the sessions of official clients; `new_session` makes a session of the library with the model loaded."""

    def __init__(self, new_session: Callable[[], Any]) -> None:
        self._new_session = new_session
        self.capabilities: dict[str, Any] = {}

    def load(self) -> None:
        """Read what the model is capable of, as the library's own server tells it."""
        from nnInteractive.inference.server.app import _build_capability_snapshot

        session = self._new_session()
        self.capabilities = _build_capability_snapshot(session)
        session.executor.shutdown(wait=False)

    def open(
        self, image: Path | None, carried: Carried, buffer: npt.NDArray[Any] | None = None
    ) -> NnInteractiveOfficialSegmentation:
        """Start a session; each image gets a new session of the library, in which `set_image` was never called."""
        session = self._new_session()
        try:
            if image is not None:
                session.set_image(_unpack_file(image))
        except BaseException:
            session.executor.shutdown(wait=False)
            raise
        if carried.autozoom is not None:
            session.set_do_autozoom(carried.autozoom)
        session.new_interaction_centers = [list(center) for center in carried.centers]
        session.new_interaction_zoom_out_factors = list(carried.zooms)
        if carried.buffer is not None:
            session.set_target_buffer(_zeros(carried.buffer) if buffer is None else buffer)
        return NnInteractiveOfficialSegmentation(session)


def _zeros(buffer: Buffer) -> npt.NDArray[Any]:
    return np.zeros(buffer.shape, buffer.dtype)


def _unpack_file(path: Path) -> npt.NDArray[Any]:
    with path.open("rb") as file, contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as data:
        return _unpack(data)


def _unpack(data: Any) -> npt.NDArray[Any]:
    from nnInteractive.inference.remote.serialization import unpack_array

    try:
        array: npt.NDArray[Any] = unpack_array(data)
    except (ValueError, RuntimeError) as error:
        raise BadRequest(f"The array can't be unpacked: {error}.") from None
    return array


class NnInteractiveOfficialSegmentation:
    """One session of the library, which writes to the buffer directly."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @property
    def buffer(self) -> npt.NDArray[Any] | None:
        """The library's target buffer."""
        buffer: npt.NDArray[Any] | None = self._session.target_buffer
        return buffer

    def prepare(self) -> None:
        """Wait until the image is prepared. Raises BadRequest for an image that the library refuses."""
        with _translating_refusals():
            self._session._finish_preprocessing_and_initialize_interactions()

    def do(self, operation: Operation, buffer: npt.NDArray[Any] | None = None) -> Outcome:
        """Call the library's method. Raises BadRequest or Exhausted."""
        if operation.name == SET_TARGET_BUFFER:
            asked_for = Buffer(to_shape(operation.fields["shape"]), operation.fields["dtype"])
            self._session.set_target_buffer(_zeros(asked_for) if buffer is None else buffer)
            return Outcome(False, None, self._carried())
        return retry_without_caches(lambda: self._do(operation))

    def _do(self, operation: Operation) -> Outcome:
        mask = _unpack(operation.body) if operation.name in MASKED else None
        self._check(operation, mask)
        seed_prediction()
        try:
            with _translating_refusals():
                ran = CALLS[operation.name](self._session, operation.fields, mask)
        except Exception:
            self._explain(operation, mask)
            raise
        return Outcome(ran, self._take_box() if ran else None, self._carried())

    def _check(self, operation: Operation, mask: npt.NDArray[Any] | None) -> None:
        """Refuse what the library fails at with an error that says nothing, or half way."""
        session = self._session
        if operation.name not in PROMPTS:
            return
        if session.original_image_shape is None:
            raise BadRequest(NO_IMAGE)
        queues = operation.name in (ADD_POINT, ADD_BBOX) or (mask is not None and bool(mask.any()))
        predicts = operation.name == PREDICT or operation.fields["run_prediction"]
        if session.target_buffer is None and predicts and (queues or session.new_interaction_centers):
            raise BadRequest(NO_BUFFER)

    def _explain(self, operation: Operation, mask: npt.NDArray[Any] | None) -> None:
        """Raise BadRequest if the library's failure has its cause in what was asked for."""
        shape = self._session.original_image_shape
        if operation.name == ADD_POINT:
            at = operation.fields["coordinates"]
            if not all(0 <= place < side for place, side in zip(at, shape[1:], strict=True)):
                raise BadRequest(f"The point {at} lies outside the image, whose shape is {list(shape[1:])}.") from None
        if operation.name == ADD_BBOX:
            box = operation.fields["bbox_coords"]
            if any(max(pair) < 0 or min(pair) >= side for pair, side in zip(box, shape[1:], strict=True)):
                raise BadRequest(f"The box {box} lies outside the image, whose shape is {list(shape[1:])}.") from None
        if mask is not None and mask.dtype.kind == "u" and mask.dtype.itemsize > 1:
            raise BadRequest(f"The model's library can't use a mask of the type {mask.dtype}: send it as uint8.")

    def _take_box(self) -> Bounds | None:
        """Return the box that the last prediction or undo wrote to, as the library's own server does."""
        box = self._session._clipped_last_paste_bbox()
        if box is None:
            return None
        self._session._last_paste_bbox = None
        return None if any(low >= high for low, high in box) else to_bounds(box)

    def _carried(self) -> Carried:
        session, buffer = self._session, self.buffer
        return Carried(
            autozoom=bool(session.do_autozoom),
            centers=tuple(tuple(int(at) for at in center) for center in session.new_interaction_centers),
            zooms=tuple(float(zoom) for zoom in session.new_interaction_zoom_out_factors),
            buffer=None if buffer is None else Buffer(to_shape(buffer.shape), buffer.dtype.name),
        )

    def pack(self, box: Bounds) -> bytes:
        """Return that part of the buffer; segmentations compress best without a filter."""
        import blosc2
        from nnInteractive.inference.remote.serialization import pack_array

        assert self.buffer is not None
        part = np.ascontiguousarray(self.buffer[tuple(slice(low, high) for low, high in box)])
        threads = min(self._session.torch_n_threads, os.cpu_count() or 1)
        packed: bytes = pack_array(part, filters=[blosc2.Filter.NOFILTER], nthreads=threads)
        return packed

    def correct(self, places: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> None:
        """Replace voxels of the buffer, and of the channel in which the network gets the previous segmentation."""
        session, buffer = self._session, self.buffer
        assert buffer is not None
        buffer.reshape(-1)[places] = values
        at = np.stack(np.unravel_index(places, buffer.shape))
        sides = np.array(session.interactions.shape[1:])[:, None]
        inside = (at < sides).all(axis=0)
        channel = session._get_prev_seg_channel()
        whole = np.asarray(session.interactions[channel]).copy()
        whole[tuple(at[:, inside])] = values[inside]
        log, session._undo_log = session._undo_log, None  # what undo restores is older than this
        session._write_interactions_channel(channel, whole)
        session._undo_log = log

    def close(self) -> None:
        """Free the image and the interactions once they are prepared, and end the threads."""
        with contextlib.suppress(Exception):
            self._session._finish_preprocessing_and_initialize_interactions()
        self._session._reset_session()
        self._session.executor.shutdown(wait=False)


@contextlib.contextmanager
def _translating_refusals() -> Any:
    """Turn the library's refusals into BadRequest with its own words, as its own server does."""
    try:
        yield
    except (ValueError, AssertionError) as error:
        raise BadRequest(str(error) or "The model's library refuses this.") from error


def _add_bbox(session: Any, fields: dict[str, Any], mask: Any) -> bool:
    session.add_bbox_interaction(fields["bbox_coords"], fields["include_interaction"], **_common(fields))
    return bool(fields["run_prediction"])


def _add_point(session: Any, fields: dict[str, Any], mask: Any) -> bool:
    session.add_point_interaction(fields["coordinates"], fields["include_interaction"], **_common(fields))
    return bool(fields["run_prediction"])


def _add_scribble(session: Any, fields: dict[str, Any], mask: Any) -> bool:
    return _add_mask(session.add_scribble_interaction, fields, mask)


def _add_lasso(session: Any, fields: dict[str, Any], mask: Any) -> bool:
    return _add_mask(session.add_lasso_interaction, fields, mask)


def _add_mask(method: Callable[..., Any], fields: dict[str, Any], mask: Any) -> bool:
    box = fields["interaction_bbox"]
    method(mask, fields["include_interaction"], interaction_bbox=box, **_common(fields))
    return bool(fields["run_prediction"])


def _add_initial_seg(session: Any, fields: dict[str, Any], mask: Any) -> bool:
    session.add_initial_seg_interaction(mask, **_common(fields))
    return bool(fields["run_prediction"])


def _common(fields: dict[str, Any]) -> dict[str, bool]:
    return {name: fields[name] for name in ("run_prediction", "override_capability_checks")}


def _predict(session: Any, fields: dict[str, Any], mask: Any) -> bool:
    return session._predict(force_full_refine=fields["force_full_refine"]) is not None


def _undo(session: Any, fields: dict[str, Any], mask: Any) -> bool:
    return bool(session.undo())


def _reset(session: Any, fields: dict[str, Any], mask: Any) -> bool:
    session.reset_interactions()
    return False


def _set_do_autozoom(session: Any, fields: dict[str, Any], mask: Any) -> bool:
    session.set_do_autozoom(fields["do_autozoom"])
    return False


CALLS: dict[str, Callable[[Any, dict[str, Any], Any], bool]] = {
    ADD_BBOX: _add_bbox,
    ADD_POINT: _add_point,
    ADD_SCRIBBLE: _add_scribble,
    ADD_LASSO: _add_lasso,
    ADD_INITIAL_SEG: _add_initial_seg,
    PREDICT: _predict,
    UNDO: _undo,
    RESET: _reset,
    SET_DO_AUTOZOOM: _set_do_autozoom,
}
"""By operation: the call of the library, which returns whether something was predicted or undone."""
