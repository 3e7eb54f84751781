"""Where models lie, whether they are whole, and how they are fetched. No torch here: looking must be quick."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dls.errors import EngineError

Show = Callable[[str, int], None]
"""Takes a line about a download, and how many bytes of it have come."""

REACH_SECONDS = 5.0
"""How long the hub may take to answer at all; by itself huggingface_hub tries for 23 s."""
CITATION = (
    "Isensee, F., Rokuss, M., Krämer, L., et al. nnInteractive: Redefining 3D Promptable Segmentation. "
    "arXiv:2503.08373 (2025)."
)
DEFAULT_LICENSE = "CC BY-NC-SA 4.0"
"""Of the official weights: not for commercial use."""


@dataclass(frozen=True)
class ModelSpec:
    """Which model is wanted and how it may be fetched."""

    model: str | None = None
    """An id of the manifest, a folder, or None for the manifest's default."""
    path: Path | None = None
    """Where models are kept, instead of $NNINTERACTIVE_MODEL_DIR or ~/.nninteractive."""
    network: bool = True
    insecure: bool = False
    ca_bundle: Path | None = None

    @property
    def root(self) -> Path:
        """The folder with the manifest and the models."""
        if self.path is not None:
            return self.path.expanduser().absolute()
        return Path(os.environ.get("NNINTERACTIVE_MODEL_DIR") or Path.home() / ".nninteractive").expanduser()


def missing(folder: Path) -> list[str]:
    """Return what a model's folder lacks; empty when it is whole.

    A checkpoint that was cut off has no end: it is a zip archive, whose directory stands there.
    """
    lacks = [name for name in ("dataset.json", "plans.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("inference_info.json", "inference_session_class.json")):
        lacks.append("inference_info.json")
    folds = sorted(folder.glob("fold_*"))
    if len(folds) != 1:
        return [*lacks, "one fold_* folder"]
    checkpoint = folds[0] / "checkpoint_final.pth"
    if not checkpoint.is_file():
        lacks.append(f"{folds[0].name}/checkpoint_final.pth")
    elif not zipfile.is_zipfile(checkpoint):
        lacks.append(f"the whole of {folds[0].name}/checkpoint_final.pth")
    return lacks


def locate(wish: ModelSpec) -> Path | None:
    """Return the wanted model's folder if it is here and whole, without any network; None when it has to be fetched.

    Raises EngineError for a folder of the user's own that is no model.
    """
    if wish.model is not None and (os.sep in wish.model or "/" in wish.model or Path(wish.model).is_dir()):
        folder = Path(wish.model).expanduser().absolute()
        lacks = missing(folder)
        if lacks:
            raise EngineError(
                f"{folder} holds no nnInteractive model: it lacks {', '.join(lacks)}.",
                "Name another one with --model.",
            )
        return folder
    name = wish.model or _default_here(wish.root)
    if name is None:
        return None
    folder = wish.root / "models" / name
    return folder if not missing(folder) else None


def _default_here(root: Path) -> str | None:
    """Return the default of the manifest that was kept, else the only model there is."""
    try:
        entries = json.loads((root / "models.json").read_text())["models"]
        return str(next((e for e in entries if e.get("default")), entries[0])["id"])
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        whole = [folder.name for folder in here(root)]
        return whole[0] if len(whole) == 1 else None


def here(root: Path) -> list[Path]:
    """Return the folders of all models that are here and whole."""
    return [folder for folder in sorted((root / "models").glob("*")) if folder.is_dir() and not missing(folder)]


def not_here(wish: ModelSpec) -> EngineError:
    """Return the error for a model that is not here and may not be fetched."""
    wanted = f"The model {wish.model}" if wish.model else "No nnInteractive model"
    verb = "is not" if wish.model else "is"
    return EngineError(
        f"{wanted} {verb} in {wish.root / 'models'}, and --no-network forbids fetching it.",
        "Fetch it once with `dls models pull`, name its folder with --model, or leave out --no-network.",
    )


def fetch(wish: ModelSpec, show: Show) -> Path:
    """Return the wanted model's folder, fetching what is missing; raises EngineError.

    Goes through nninteractive's own model management, which takes any folder that is not empty for a model: so a folder
    that is not whole is set aside first, and what comes is checked.
    """
    found = locate(wish)
    if found is not None:
        return found
    if not wish.network:
        raise not_here(wish)
    with _translated():
        _trust(wish)
        from nnInteractive import model_management as official

        _reach(official.get_repo_id())
        manifest = official.load_model_manifest(wish.root)
        name = wish.model or str(official.get_default_model_id(wish.root, manifest))
        if name not in {entry["id"] for entry in manifest["models"]}:
            known = ", ".join(entry["id"] for entry in manifest["models"])
            raise EngineError(f"There is no model named {name!r}.", f"Choose one of: {known}; or name a folder.")
        folder = wish.root / "models" / name
        _set_aside(folder)
        with _watched(wish.root / "models", name, show):
            official.ensure_model_available(name, wish.root, manifest)
    lacks = missing(folder)
    if lacks:
        raise EngineError(
            f"The model {name} did not arrive whole: it lacks {', '.join(lacks)}.",
            "Run the command again: it goes on from there.",
        )
    return folder


def listed(wish: ModelSpec) -> list[dict[str, Any]]:
    """Return the manifest's models with where they are; without network, those that are here."""
    if not wish.network:
        return [{"id": folder.name, "local_path": str(folder), "default": False} for folder in here(wish.root)]
    with _translated():
        _trust(wish)
        from nnInteractive import model_management as official

        _reach(official.get_repo_id())
        entries = official.load_model_manifest(wish.root)["models"]
    whole = {folder.name: folder for folder in here(wish.root)}
    return [{**entry, "local_path": str(whole[entry["id"]]) if entry["id"] in whole else None} for entry in entries]


def license_of(folder: Path) -> str:
    """Return the first line of the model's licence file."""
    try:
        lines = (folder / "LICENSE").read_text(errors="replace").split("\n")
    except OSError:
        return DEFAULT_LICENSE
    return next((line.strip() for line in lines if line.strip()), DEFAULT_LICENSE)


def _trust(wish: ModelSpec) -> None:
    """Choose whose certificates count, and keep the library quiet; before huggingface_hub is imported."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if wish.ca_bundle is not None:
        if not wish.ca_bundle.is_file():
            raise EngineError(f"There is no file {wish.ca_bundle}.", "Name the certificates with --ca-bundle.")
        os.environ["SSL_CERT_FILE"] = str(wish.ca_bundle.absolute())
    if not wish.insecure:
        return
    os.environ["HF_HUB_DISABLE_XET"] = "1"  # its own client would check certificates all the same
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import hf_request_event_hook

    def unchecked() -> httpx2.Client:
        hooks = {"request": [hf_request_event_hook]}
        # Without following redirects every download would fail with 307.
        return httpx2.Client(verify=False, event_hooks=hooks, follow_redirects=True, timeout=None)

    set_client_factory(unchecked)


def _reach(repository: str) -> None:
    """Ask the hub for a sign of life: said within seconds, not after all its retries."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    get_session().head(f"{constants.ENDPOINT}/api/models/{repository}", timeout=REACH_SECONDS)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the hub's client raises into one sentence."""
    try:
        yield
    except EngineError:
        raise
    except ImportError as error:
        raise EngineError(
            f"The package {error.name} is not installed here.", 'Install it: pip install "dls[nninteractive]"'
        ) from error
    except Exception as error:
        text = " ".join(f"{link}" for link in _chain(error))
        if "certificate" in text.lower():
            raise EngineError(
                "The model hub's certificate is not trusted here.",
                "If your network inspects traffic, name its certificates with --ca-bundle; --insecure checks none.",
            ) from error
        raise EngineError(
            f"The model can't be fetched: {_first_line(error)}.",
            "Is there a way to the internet, or a proxy for HTTPS_PROXY? A model's folder can be named with --model.",
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: Exception) -> str:
    root = list(_chain(error))[-1]
    text = str(root) or type(root).__name__
    return text.split("\n")[0].rstrip(".")[:200]


def _set_aside(folder: Path) -> None:
    """Remove what is not whole, but not a folder in which somebody keeps something else."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    ours = {"dataset.json", "plans.json", "inference_info.json", "inference_session_class.json", "LICENSE"}
    odd = [path.name for path in folder.iterdir() if path.name not in ours and not path.name.startswith("fold_")]
    if odd:
        folder.rename(folder.with_name(f".set-aside-{folder.name}-{time.time_ns()}"))
    else:
        shutil.rmtree(folder)


@contextmanager
def _watched(folder: Path, name: str, show: Show) -> Iterator[None]:
    """Tell how many bytes have come, and how fast, while a download runs."""
    ended = threading.Event()
    before, started = _size(folder), time.monotonic()

    def watch() -> None:
        while not ended.wait(0.5):
            done = max(0, _size(folder) - before)
            rate = done / (time.monotonic() - started) / 1e6
            show(f"downloading {name}: {done / 1e6:.0f} MB, {rate:.1f} MB/s", done)

    show(f"downloading {name}", 0)
    watcher = threading.Thread(target=watch, name="dls-download", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # moved while we looked
            continue
    return total
