"""Find the models on this computer, check that they are complete, and download them.

The laptop imports this module, so it needs neither numpy nor torch.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dls import hub
from dls.errors import EngineError

ShowDownload = Callable[[str, int, int], None]
"""Called with a line of text about a download, the bytes downloaded, and the bytes in all (0 where nobody knows)."""

LOCK_SECONDS = 0.2
"""Seconds between two looks whether another download of the same model has ended."""
OURS = ".by-dls"
"""Ends the name of a file that says that dls has put a model there, or made the folder that it lies in.

The latter names the folder that was made first on the way there.
"""
CITATION = (
    "Isensee, F., Rokuss, M., Krämer, L., et al. nnInteractive: Redefining 3D Promptable Segmentation. "
    "arXiv:2503.08373 (2025)."
)
DEFAULT_LICENSE = "CC BY-NC-SA 4.0"
"""Licence of the official weights, which forbids commercial use."""
LICENSE_URL = "https://creativecommons.org/licenses/by-nc-sa/4.0/"


@dataclass(frozen=True)
class ModelSpec:
    """Selects a model, and says how it may be downloaded."""

    model: str | None = None
    """A model id of the manifest, a folder, or None for the manifest's default model."""
    path: Path | None = None
    """Folder with the models, instead of $NNINTERACTIVE_MODEL_DIR or ~/.nninteractive."""
    network: bool = True
    """Whether the model may be downloaded."""
    insecure: bool = False
    """Whether the hub's certificate is accepted unchecked."""
    ca_bundle: Path | None = None
    """File with the certificates of the authorities to trust."""

    @property
    def root(self) -> Path:
        """The folder with the manifest and the models."""
        if self.path is not None:
            return self.path.expanduser().absolute()
        return Path(os.environ.get("NNINTERACTIVE_MODEL_DIR") or Path.home() / ".nninteractive").expanduser()


def list_missing(folder: Path) -> list[str]:
    """Return the names of the files that a model's folder lacks; empty for a complete model.

    A truncated checkpoint counts as missing. It is recognised because a checkpoint is a zip archive, whose directory
    is at its end.
    """
    lacking = [name for name in ("dataset.json", "plans.json") if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("inference_info.json", "inference_session_class.json")):
        lacking.append("inference_info.json")
    folds = sorted(folder.glob("fold_*"))
    if len(folds) != 1:
        return [*lacking, "one fold_* folder"]
    checkpoint = folds[0] / "checkpoint_final.pth"
    if not checkpoint.is_file():
        lacking.append(f"{folds[0].name}/checkpoint_final.pth")
    elif not zipfile.is_zipfile(checkpoint):
        lacking.append(f"the whole of {folds[0].name}/checkpoint_final.pth")
    return lacking


def locate(spec: ModelSpec) -> Path | None:
    """Return the folder of a complete model on this computer, without using the network; None if there is none.

    Raises EngineError when the user named a folder that is not a complete model.
    """
    if spec.model is not None and (os.sep in spec.model or "/" in spec.model or Path(spec.model).is_dir()):
        folder = Path(spec.model).expanduser().absolute()
        lacking = list_missing(folder)
        if lacking:
            raise EngineError(
                f"{folder} holds no nnInteractive model: it lacks {', '.join(lacking)}.",
                "Name another one with --model.",
            )
        return folder
    name = spec.model or _find_default(spec.root)
    if name is None:
        return None
    folder = spec.root / "models" / name
    return folder if not list_missing(folder) else None


def _find_default(root: Path) -> str | None:
    """Return the default model of the stored manifest, or the only model that is on this computer."""
    try:
        entries = json.loads((root / hub.MANIFEST).read_text(encoding="utf-8"))["models"]
        return str(next((entry for entry in entries if entry.get("default")), entries[0])["id"])
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        names = [folder.name for folder in list_local(root)]
        return names[0] if len(names) == 1 else None


def list_local(root: Path) -> list[Path]:
    """Return the folders of all complete models on this computer."""
    return [folder for folder in sorted((root / "models").glob("*")) if folder.is_dir() and not list_missing(folder)]


def describe_absence(model: str | None, folder: str) -> str:
    """Return the beginning of a sentence that says that a folder lacks the model, or any."""
    subject, verb = (f"The model {model}", "is not") if model else ("No nnInteractive model", "is")
    return f"{subject} {verb} in {folder}"


def absent_error(spec: ModelSpec, hint: str) -> EngineError:
    """Return the error of a command that takes a model from this computer and fetches none, whatever its options."""
    return EngineError(f"{describe_absence(spec.model, str(spec.root / 'models'))}.", hint)


def download_forbidden_error(spec: ModelSpec) -> EngineError:
    """Return the error for a model that is not on this computer and may not be downloaded."""
    return EngineError(
        f"{describe_absence(spec.model, str(spec.root / 'models'))}, and --no-network forbids fetching it.",
        "Fetch it once with `dls models pull`, name its folder with --model, or leave out --no-network.",
    )


def fetch(spec: ModelSpec, show: ShowDownload) -> Path:
    """Return the model's folder, and download the model first if it is missing or incomplete. Raises EngineError.

    Programs that use the same folder take any model's folder that is not empty for a model: so an incomplete one is
    removed before the download, and the download is checked afterwards.
    """
    local = locate(spec)
    if local is not None:
        return local
    if not spec.network:
        raise download_forbidden_error(spec)
    with hub.translate_errors():
        hub.configure_client(spec.ca_bundle, insecure=spec.insecure)
        hub.check_hub()
        _make_root(spec.root)
        entry = _choose_entry(spec, hub.load_entries(spec.root))
        name = str(entry["id"])
        folder = spec.root / "models" / name
        with _alone(spec.root / "models", name, show):
            if list_missing(folder):
                _remove_incomplete(folder)
                with _show_progress(spec.root / "models", name, hub.measure(entry), show):
                    hub.download(entry, spec.root / "models")
    lacking = list_missing(folder)
    if lacking:
        raise EngineError(
            f"The model {name} was not downloaded completely: it lacks {', '.join(lacking)}.",
            "Run the command again: it continues the download.",
        )
    with suppress(OSError):
        (spec.root / "models" / f".{name}{OURS}").touch()  # the model is ours to remove
    return folder


def _make_root(root: Path) -> None:
    """Make the folder with the models where it is missing, and record which folder was made first on the way to it.

    It is ours to remove, and so are those that were made above it, however the download ends.
    """
    if root.exists():
        return
    first = next((above for above in reversed(root.parents) if not above.exists()), root)
    root.mkdir(parents=True, exist_ok=True)  # another download may just have made it
    (root / OURS).write_text(f"{first}\n", encoding="utf-8")


def _choose_entry(spec: ModelSpec, entries: list[dict[str, Any]]) -> dict[str, Any]:
    for entry in entries:
        if entry["id"] == spec.model or (spec.model is None and entry["default"]):
            return entry
    known = ", ".join(entry["id"] for entry in entries)
    raise EngineError(f"There is no model named {spec.model!r}.", f"Choose one of: {known}; or name a folder.")


def list_models(spec: ModelSpec) -> list[dict[str, Any]]:
    """Return the models of the hub's manifest, each with its `local_path` or None. Raises EngineError.

    Without network, returns the models on this computer.
    """
    if not spec.network:
        return [{"id": folder.name, "local_path": str(folder), "default": False} for folder in list_local(spec.root)]
    with hub.translate_errors():
        hub.configure_client(spec.ca_bundle, insecure=spec.insecure)
        hub.check_hub()
        entries = hub.load_entries(spec.root)
    local = {folder.name: str(folder) for folder in list_local(spec.root)}
    return [{**entry, "local_path": local.get(entry["id"])} for entry in entries]


def read_license(folder: Path) -> str:
    """Return the first line of the model's licence file."""
    try:
        lines = (folder / "LICENSE").read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return DEFAULT_LICENSE
    return next((line.strip() for line in lines if line.strip()), DEFAULT_LICENSE)


@contextmanager
def _alone(models: Path, name: str, show: ShowDownload) -> Iterator[None]:
    """Keep others from downloading the model meanwhile, also on other hosts that share the folder.

    Each would remove what the other has so far. Where the system or the disk has no locks, nobody is kept away.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    models.mkdir(parents=True, exist_ok=True)
    with (models / f".{name}.lock").open("a", encoding="utf-8") as stream:
        with suppress(OSError):
            while True:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    show("waiting for another download of the model", 0, 0)
                    time.sleep(LOCK_SECONDS)
        yield


def _remove_incomplete(folder: Path) -> None:
    """Remove an incomplete model's folder; a folder with other files in it is renamed instead."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    known = {"dataset.json", "plans.json", "inference_info.json", "inference_session_class.json", "LICENSE"}
    foreign = [path.name for path in folder.iterdir() if path.name not in known and not path.name.startswith("fold_")]
    if foreign:
        folder.rename(folder.with_name(f".set-aside-{folder.name}-{time.time_ns()}"))
    else:
        shutil.rmtree(folder)


@contextmanager
def _show_progress(folder: Path, name: str, total: int, show: ShowDownload) -> Iterator[None]:
    """Show every half second, while a download runs, how many bytes have been downloaded and at what rate.

    What an earlier attempt left in the folder of the hub's client is taken up, and counts as downloaded.
    """
    finished = threading.Event()
    parts = folder / ".cache" / "huggingface" / "download" / name
    size_before, started = _size(folder) - _size(parts), time.monotonic()
    held = _size(parts)

    def watch() -> None:
        while not finished.wait(0.5):
            done = max(0, _size(folder) - size_before)
            rate = max(0, done - held) / (time.monotonic() - started) / 1e6
            of = f" of {total / 1e6:.0f}" if total else ""
            show(f"downloading {name}: {done / 1e6:.0f}{of} MB, {rate:.1f} MB/s", done, total)

    show(f"downloading {name}", held, total)
    watcher = threading.Thread(target=watch, name="dls-download", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # renamed or removed meanwhile
            continue
    return total
