"""The nnInteractive engine: all sessions share one network, and each has an inference session of the library.

Only this module and `cuda_memory` import torch. Statements about the library refer to nninteractive 2.6.0.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dls import gpus, weights
from dls.errors import BadRequest, EngineError, HostError
from dls.extras import install_hint
from dls.server.engines import devices
from dls.server.engines.base import Model, Progress, ReportProgress, Segmentation
from dls.server.engines.constant import ConstantSegmentation
from dls.server.engines.cuda_memory import retry_without_caches
from dls.server.engines.nninteractive_official import NnInteractiveOfficial
from dls.server.engines.sanitize import sanitize
from dls.server.engines.seeding import seed_prediction
from dls.server.options import EngineOptions
from dls.server.volume import LASSO, POINT, SCRIBBLE, Box, Float32, Mask, Prompt, Volume

DENSE_VOXELS = 512**3
"""Largest image for which the library stores its interactions as 7 dense channels of float16.

For larger images it compresses them in memory.
"""
CPU_WARNING = "nnInteractive runs on the CPU here: a click takes half a minute or more instead of a second."

log = logging.getLogger("dls.server")


class NnInteractiveEngine:
    """Segments with nnInteractive; computes one prompt at a time for all sessions together."""

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
            raise weights.download_forbidden_error(options.models)
        self.official = NnInteractiveOfficial(self._new_loaded_session) if options.native_api else None
        self._artifacts: dict[str, Any] = {}
        self._torch_device: Any = None

    def load(self, report: ReportProgress) -> None:
        """Download the model if it is missing, load it, and run it once. Raises EngineError."""
        folder = self._fetch_model(report)
        self.key = f"{self.name} {folder.name}"
        report(Progress("load", "starting torch"))
        info = _collect_torch_info()
        choice = devices.choose(self._options.device, info)
        self.device = choice.device
        log.info("computing on %s: %s", choice.device, choice.reason)
        if choice.device == "cpu":
            log.warning(CPU_WARNING)
        self._check_memory(folder, info)
        report(Progress("load", f"loading the model onto {choice.device}"))
        self._load_network()
        report(Progress("warm-up", "running the model once"))
        self._warm_up()
        if self.official is not None:
            self.official.load()

    def _fetch_model(self, report: ReportProgress) -> Path:
        if self.folder is None:
            self.folder = weights.fetch(
                self._options.models, lambda text, done, total: report(Progress("download", text, done, total))
            )
            license_name = weights.read_license(self.folder)
            self.notice = f"Licence of the weights: {license_name}. Please cite: {weights.CITATION}"
            log.info("%s", self.notice)
        return self.folder

    def _check_memory(self, folder: Path, info: devices.TorchInfo) -> None:
        [checkpoint] = folder.glob("fold_*/checkpoint_final.pth")
        size = checkpoint.stat().st_size >> 20
        for device in info.cuda_devices:
            if f"cuda:{device.index}" == self.device:
                # The authors ask for 6 GB with the official network; a small one needs little more than its weights.
                devices.check_memory(device, 5000 + size if size > 100 else 500 + 2 * size)

    def _load_network(self) -> None:
        import torch
        from nnInteractive.inference import inference_session
        from nnInteractive.interaction import point
        from nnInteractive.utils import crop

        # The library prints to standard output, which dls reserves for its own output.
        for library in (inference_session, point, crop):
            library.print = lambda *words, **options: log.debug("%s", " ".join(map(str, words)))
        self._torch_device = torch.device(self.device)
        if self._torch_device.type == "cuda":
            torch.cuda.set_device(self._torch_device)  # sets the device of this thread, which runs every prediction
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
            enable_undo=True,  # the library also uses it to roll back a prompt that failed
        )

    def _new_loaded_session(self) -> Any:
        session = self._new_session()
        session.initialize_from_loaded_artifacts(self._artifacts)
        return session

    def _warm_up(self) -> None:
        session = self._new_loaded_session()
        # With --compile the session wraps the network; later sessions must share the network compiled here.
        self._artifacts["network"] = session.network
        started = time.monotonic()
        session.warmup()  # runs on this thread, because cuDNN caches its choice of algorithms per thread
        log.info("warmed up in %.2f s", time.monotonic() - started)
        session.executor.shutdown(wait=False)

    def session_bytes(self, voxels: int) -> int:
        """Return the bytes of the library's float32 image, its interactions and the mask.

        The interactions take 14 bytes a voxel where they are dense, and about 2 where they are compressed.
        """
        return voxels * (4 + 14 + 1) if voxels <= DENSE_VOXELS else voxels * (4 + 2 + 1)

    def open(self, volume: Volume, mask: Mask | None = None) -> Segmentation:
        """Start to segment an image, while other sessions' prompts run; the library copies the image."""
        sanitize(volume.data)
        mask = np.zeros(volume.geometry.shape, np.uint8) if mask is None else mask
        low, high = float(volume.data.min()), float(volume.data.max())
        if low == high:
            log.info("every voxel of the image has the same value: the mask will hold only what is drawn")
            return ConstantSegmentation(mask)
        session = self._new_session()
        try:
            session.initialize_from_loaded_artifacts(self._artifacts)
            # Each image gets a new session: calling `set_image` twice on one can deadlock its executor of two threads.
            session.set_image(_scale_down(volume.data, low, high)[None])
            session.set_target_buffer(mask)
            session._finish_preprocessing_and_initialize_interactions()
        except BaseException:
            session.preprocess_future = None
            session.executor.shutdown(wait=False)
            raise
        return NnInteractiveSegmentation(session, mask)

    def close(self) -> None:
        """Release the network."""
        self._artifacts = {}


class NnInteractiveSegmentation:
    """One image in an inference session of the library, which writes to the mask directly."""

    def __init__(self, session: Any, mask: Mask) -> None:
        self._session = session
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Refine the mask; if the GPU runs out of memory, free its caches and repeat the prediction once.

        The library rolls back a prompt that failed. Raises BadRequest or Exhausted.
        """
        return retry_without_caches(lambda: self._predict(prompt))

    def _predict(self, prompt: Prompt) -> Box | None:
        seed_prediction()
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
        """Predict prompt by prompt, because each prediction depends on the one before."""
        for prompt in prompts:
            self.add(prompt)

    def restore(self, mask: Mask) -> None:
        """Replace the mask and the channel in which the network gets it as the previous segmentation."""
        from torch import from_numpy

        self.mask[:] = mask
        self._session._undo_log = None
        self._session._write_interactions_channel(self._session._get_prev_seg_channel(), from_numpy(self.mask))

    def reset(self) -> None:
        """Remove the prompts and empty the mask, which is the library's target buffer."""
        self._session.reset_interactions()
        # The library keeps the center and the zoom that a failed prompt has queued.
        self._session.new_interaction_centers = []
        self._session.new_interaction_zoom_out_factors = []

    def close(self) -> None:
        """Free the image and the interactions, and end the threads."""
        self._session._reset_session()
        self._session.executor.shutdown(wait=False)


def _scale_down(image: Float32, low: float, high: float) -> Float32:
    """Return the image, scaled where the library's sums over it would overflow; the library normalises it anyway."""
    largest = max(abs(low), abs(high))
    return image if largest < 1e12 else image / np.float32(largest)


def _collect_torch_info() -> devices.TorchInfo:
    """Return what torch and nvidia-smi report. Raises HostError where torch is not installed."""
    try:
        import torch
    except ImportError as error:
        raise HostError(f"The package {error.name} is not installed here.", install_hint("nninteractive")) from error
    cuda_devices = []
    available = torch.cuda.is_available()
    for index in range(torch.cuda.device_count() if available else 0):
        free, total = torch.cuda.mem_get_info(index)
        properties = torch.cuda.get_device_properties(index)
        capability = (properties.major, properties.minor)
        cuda_devices.append(devices.CudaDevice(index, properties.name, free >> 20, total >> 20, capability))
    local_gpus = gpus.local()
    return devices.TorchInfo(
        cuda_version=torch.version.cuda,
        architectures=tuple(torch.cuda.get_arch_list()) if available else (),
        cuda_devices=tuple(cuda_devices),
        mps=torch.backends.mps.is_available(),
        driver=local_gpus[0].driver if local_gpus else "",
    )
