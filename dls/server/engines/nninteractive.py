"""nnInteractive: one network for all sessions, each session with the library's own inference session.

The only importer of torch. Facts about the library are of nninteractive 2.6.0.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from dls import gpus, weights
from dls.errors import BadRequest, EngineError, Exhausted
from dls.server.engines import devices
from dls.server.engines.base import Model, Segmentation, Step, Tell
from dls.server.engines.sanitize import clean
from dls.server.options import EngineOptions
from dls.server.volume import LASSO, POINT, SCRIBBLE, Bool, Box, Mask, Prompt, Volume

DENSE_VOXELS = 512**3
"""Up to here the library keeps its interactions dense: 7 channels of float16. Above, compressed in memory."""
NATIVE_API_SESSIONS = 8
"""Sessions of nnInteractive's own protocol at once."""
CPU_WARNING = "nnInteractive runs on the CPU here: a click takes from half a minute on, not a second."

log = logging.getLogger("dls.server")


class NnInteractiveEngine:
    """Segments with nnInteractive; one prompt at a time, whoever asks."""

    name = "nnInteractive"
    threads = 1
    models: tuple[Model, ...] = (Model("nnInteractive", (POINT, SCRIBBLE, LASSO)),)

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self.key = self.name
        self.device = options.device
        self.notice = ""
        self.folder = weights.locate(options.models)
        if self.folder is None and not options.models.network:
            raise weights.not_here(options.models)
        self._artifacts: dict[str, Any] = {}
        self._torch_device: Any = None

    def load(self, tell: Tell) -> None:
        """Fetch the model if it is not here, load it, and run it once."""
        fetched = self.folder is None
        self.folder = self.folder or weights.fetch(
            self._options.models, lambda text, size: tell(Step("download", text, size))
        )
        if fetched:
            self.notice = f"Licence of the weights: {weights.license_of(self.folder)}. Please cite: {weights.CITATION}"
            log.info("%s", self.notice)
        self.key = f"{self.name} {self.folder.name}"
        tell(Step("load", "starting torch"))
        facts = _facts()
        choice = devices.choose(self._options.device, facts)
        self.device = choice.device
        log.info("computing on %s: %s", choice.device, choice.why)
        if choice.device == "cpu":
            log.warning(CPU_WARNING)
        self._check_memory(facts)
        tell(Step("load", f"loading the model onto {choice.device}"))
        self._load_network()
        tell(Step("warm-up", "running the model once"))
        self._warm_up()

    def _check_memory(self, facts: devices.Facts) -> None:
        assert self.folder is not None
        [checkpoint] = self.folder.glob("fold_*/checkpoint_final.pth")
        weights = checkpoint.stat().st_size >> 20
        for cuda in facts.cudas:
            if f"cuda:{cuda.index}" == self.device:
                # The authors ask for 6 GB with the official network; a small one needs little beside its weights.
                devices.check_memory(cuda, 5000 + weights if weights > 100 else 500 + 2 * weights)

    def _load_network(self) -> None:
        import torch
        from nnInteractive.inference import inference_session as library

        # It prints to standard output, from every thread; ours is for people.
        library.print = lambda *words, **how: log.debug("%s", " ".join(map(str, words)))
        self._torch_device = torch.device(self.device)
        if self._torch_device.type == "cuda":
            torch.cuda.set_device(self._torch_device)  # of this thread, on which every prediction runs
        loader = self._new_session()
        try:
            self._artifacts = loader._load_model_artifacts_from_disk(str(self.folder))
        except EngineError:
            raise
        except Exception as error:
            raise EngineError(
                f"The model in {self.folder} can't be loaded ({type(error).__name__}: {error}).",
                "Fetch it again with `dls models pull`, or name another one with --model.",
            ) from error
        finally:
            loader.executor.shutdown(wait=False)

    def _new_session(self) -> Any:
        from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

        return nnInteractiveInferenceSession(
            device=self._torch_device,
            use_torch_compile=self._options.compile,
            torch_n_threads=os.cpu_count() or 1,
            do_autozoom=True,
            enable_undo=True,  # it is also what rolls a failed prompt back
        )

    def _warm_up(self) -> None:
        session = self._new_session()
        session.initialize_from_loaded_artifacts(self._artifacts)
        # With --compile the session wraps the network; the others must share the one that was compiled here.
        self._artifacts["network"] = session.network
        started = time.monotonic()
        session.warmup()  # on this thread: cuDNN remembers its choices by thread
        log.info("warmed up in %.2f s", time.monotonic() - started)
        session.executor.shutdown(wait=False)

    def session_bytes(self, voxels: int) -> int:
        """The library's float32 image, its interactions (7 channels of float16 where dense), and our mask."""
        return voxels * (4 + 14 + 1) if voxels <= DENSE_VOXELS else voxels * (4 + 2 + 1)

    def open(self, volume: Volume, mask: Mask | None = None) -> Segmentation:
        """Start on an image, beside other sessions' prompts; the image is copied by the library, and let go here."""
        clean(volume.data)
        mask = np.zeros(volume.geometry.shape, np.uint8) if mask is None else mask
        low, high = float(volume.data.min()), float(volume.data.max())
        if low == high:
            log.info("every voxel of the image has the same value: only what is drawn can be segmented")
            return ConstantSegmentation(mask)
        session = self._new_session()
        try:
            session.initialize_from_loaded_artifacts(self._artifacts)
            # A new session for each image: `set_image` called twice on one can deadlock (its executor has two threads).
            session.set_image(_ranged(volume.data, low, high)[None])
            session.set_target_buffer(mask)
            session._finish_preprocessing_and_initialize_interactions()
        except BaseException:
            session.preprocess_future = None
            session.executor.shutdown(wait=False)
            raise
        return NnInteractiveSegmentation(session, mask)

    def native_api(self, queue: ThreadPoolExecutor) -> Any:
        """The library's own server app (napari, 3D Slicer and MITK speak to it), on the same network and queue."""
        if not self._options.native_api:
            return None
        from nnInteractive.inference.server.app import make_app

        return make_app(
            self._artifacts,
            self._torch_device,
            max_sessions=NATIVE_API_SESSIONS,
            torch_n_threads=os.cpu_count() or 1,
            use_torch_compile=self._options.compile,
            gpu_executor=queue,
        )

    def close(self) -> None:
        """Let go of the network."""
        self._artifacts = {}


class NnInteractiveSegmentation:
    """One image in the library's session; its target buffer is our mask."""

    def __init__(self, session: Any, mask: Mask) -> None:
        self._session = session
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Predict, and once more with freed caches when memory ran out; the library rolls a failed prompt back."""
        from torch import OutOfMemoryError, cuda

        try:
            return self._predict(prompt)
        except OutOfMemoryError:
            log.warning("the GPU's memory ran out; trying once more with freed caches")
        cuda.empty_cache()
        try:
            return self._predict(prompt)
        except OutOfMemoryError:
            cuda.empty_cache()
            raise Exhausted(
                "The GPU has not enough memory for this step; nothing was changed. Somebody else may be using it: "
                "try again later."
            ) from None

    def _predict(self, prompt: Prompt) -> Box | None:
        if prompt.kind == POINT:
            changed = self._session.add_point_interaction(prompt.origin, prompt.foreground)
        else:
            add = {SCRIBBLE: self._session.add_scribble_interaction, LASSO: self._session.add_lasso_interaction}[
                prompt.kind
            ]
            bounds = [[side.start, side.stop] for side in prompt.box]
            try:
                changed = add(np.ascontiguousarray(prompt.mask, np.uint8), prompt.foreground, interaction_bbox=bounds)
            except ValueError as error:
                raise BadRequest(f"The {prompt.kind} does not fit the image: {error}.") from error
        if changed is None:
            return None
        z, y, x = (slice(int(low), int(high)) for low, high in changed)
        return z, y, x

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Predict anew, prompt by prompt: each prediction builds on the last."""
        for prompt in prompts:
            self.add(prompt)

    def reset(self) -> None:
        """Forget the prompts and empty the mask, which is the library's target buffer."""
        self._session.reset_interactions()
        # What the library leaves of the last prompt: a zoom or a center queued by one that failed.
        self._session.new_interaction_centers = []
        self._session.new_interaction_zoom_out_factors = []

    def close(self) -> None:
        """Give back the image, the interactions and the threads."""
        self._session._reset_session()
        self._session.executor.shutdown(wait=False)


class ConstantSegmentation:
    """An image without any contrast: the library would divide by its deviation of zero and answer nothing."""

    def __init__(self, mask: Mask) -> None:
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Take what was drawn as it is."""
        drawn: Bool = prompt.mask
        self.mask[prompt.box][drawn] = prompt.foreground
        return prompt.box

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Take them as they are."""
        for prompt in prompts:
            self.add(prompt)

    def reset(self) -> None:
        """Empty the mask."""
        self.mask[:] = 0

    def close(self) -> None:
        """There is nothing to give back."""


def _ranged(image: np.ndarray[Any, np.dtype[np.float32]], low: float, high: float) -> np.ndarray[Any, Any]:
    """Return the image, scaled down where the library's sums over it would overflow; it normalises it anyway."""
    largest = max(abs(low), abs(high))
    return image if largest < 1e12 else image / np.float32(largest)


def _facts() -> devices.Facts:
    """Ask torch and nvidia-smi."""
    try:
        import torch
    except ImportError as error:
        raise EngineError(
            f"The package {error.name} is not installed here.", 'Install it: pip install "dls[nninteractive]"'
        ) from error
    cudas = []
    available = torch.cuda.is_available()
    for index in range(torch.cuda.device_count() if available else 0):
        free, total = torch.cuda.mem_get_info(index)
        about = torch.cuda.get_device_properties(index)
        cudas.append(devices.Cuda(index, about.name, free >> 20, total >> 20, (about.major, about.minor)))
    seen = gpus.local()
    return devices.Facts(
        cuda_build=torch.version.cuda,
        built_for=tuple(torch.cuda.get_arch_list()) if available else (),
        cudas=tuple(cudas),
        mps=torch.backends.mps.is_available(),
        driver=seen[0].driver if seen else "",
    )
