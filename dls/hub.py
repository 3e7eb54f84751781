"""The official models on the model hub: their list, and the download of one, over huggingface_hub.

nnInteractive's own model management needs torch to be installed, and a laptop has none. Here is the part of it that a
laptop needs too, in the same folders and with the same list: `ROOT/models.json` and `ROOT/models/ID/`, so that what one
of the two has downloaded, the other one finds.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dls.errors import EngineError, HostError
from dls.extras import install_hint

MANIFEST = "models.json"
"""Name of the list of models, in the repository and in the folder with the models."""
PREFIX = "nnInteractive_"
"""Begins the ID and the path of each model; whatever else a list names is none."""
HUB_TIMEOUT = 5.0
"""Seconds that the hub may take to answer a first request; huggingface_hub itself tries for 23 s."""


def find_repository() -> str:
    """Return the name of the repository with the models."""
    return os.environ.get("NNINTERACTIVE_REPO_ID", "MIC-DKFZ/nnInteractive")


def read_entries(manifest: object) -> list[dict[str, Any]]:
    """Return the models of a list: those that are well formed, exactly one of them the default. Raises ValueError."""
    if not isinstance(manifest, dict) or "schema_version" not in manifest or not isinstance(manifest["models"], list):
        raise ValueError(f"{MANIFEST} is no list of models")
    found: dict[str, dict[str, Any]] = {}
    for entry in manifest["models"]:
        texts = {key: entry.get(key) for key in ("id", "path", "display_name")} if isinstance(entry, dict) else {}
        if texts and all(isinstance(text, str) and text.startswith(PREFIX) for text in list(texts.values())[:2]):
            found.setdefault(str(texts["id"]), entry)
    if not found:
        raise ValueError(f"{MANIFEST} names no model")
    default = next((entry["id"] for entry in found.values() if entry.get("default")), next(iter(found)))
    return [{**entry, "default": entry["id"] == default} for entry in found.values()]


def load_entries(root: Path) -> list[dict[str, Any]]:
    """Return the models of the hub's list, and keep the list in the folder; without the hub, those of the kept one.

    Raises what the hub's client raises where there is neither.
    """
    from huggingface_hub import hf_hub_download

    kept = root / MANIFEST
    try:
        path = hf_hub_download(find_repository(), MANIFEST, repo_type="model", cache_dir=str(root / "downloads"))
        manifest = json.loads(Path(path).read_text(encoding="utf-8"))
        entries = read_entries(manifest)
    except Exception:
        with suppress(OSError, ValueError, KeyError):
            return read_entries(json.loads(kept.read_text(encoding="utf-8")))
        raise
    root.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"schema_version": manifest["schema_version"], "models": entries}, indent=2)
    kept.write_text(text, encoding="utf-8")
    return entries


def measure(entry: dict[str, Any]) -> int:
    """Return the bytes of a model on the hub; 0 where it does not say."""
    from huggingface_hub import HfApi

    path = entry["path"].strip("/") + "/"
    with suppress(Exception):
        tree = HfApi().list_repo_tree(find_repository(), recursive=True, repo_type="model")
        return sum(getattr(file, "size", 0) for file in tree if file.path.startswith(path))
    return 0


def download(entry: dict[str, Any], models: Path) -> None:
    """Download a model into its folder, which must be missing or empty; bytes of an earlier attempt are kept."""
    from huggingface_hub import snapshot_download

    path = entry["path"].strip("/")
    models.mkdir(parents=True, exist_ok=True)
    # Straight into the folder: in the hub's own cache there would be a second copy of each checkpoint.
    snapshot_download(
        find_repository(), repo_type="model", allow_patterns=[f"{path}/*", f"{path}/**"], local_dir=str(models)
    )
    arrived, folder = models / path, models / str(entry["id"])
    if arrived != folder and arrived.is_dir():
        if folder.exists():
            shutil.rmtree(folder)
        arrived.rename(folder)


def configure_client(ca_bundle: Path | None, *, insecure: bool) -> None:
    """Set which certificates huggingface_hub accepts, and silence it; call before huggingface_hub is imported."""
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if ca_bundle is not None:
        if not ca_bundle.is_file():
            raise EngineError(f"There is no file {ca_bundle}.", "Name the certificates with --ca-bundle.")
        os.environ["SSL_CERT_FILE"] = str(ca_bundle.absolute())
    if not insecure:
        return
    os.environ["HF_HUB_DISABLE_XET"] = "1"  # the Xet client would check certificates nevertheless
    import httpx2
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import hf_request_event_hook

    def make_client() -> httpx2.Client:
        hooks = {"request": [hf_request_event_hook]}
        # Without following redirects every download would fail with 307.
        return httpx2.Client(verify=False, event_hooks=hooks, follow_redirects=True, timeout=None)

    set_client_factory(make_client)


def check_hub() -> None:
    """Send the hub one request, which fails within seconds, while a download would be retried for longer."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    get_session().head(f"{constants.ENDPOINT}/api/models/{find_repository()}", timeout=HUB_TIMEOUT)


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise an EngineError in place of any exception of the hub's client, and HostError where that is missing."""
    try:
        yield
    except EngineError:
        raise
    except ImportError as error:
        raise HostError(f"The package {error.name} is not installed here.", install_hint("models")) from error
    except Exception as error:
        text = " ".join(str(cause) for cause in _iter_causes(error))
        if "certificate" in text.lower():
            raise EngineError(
                "The model hub's certificate is not trusted here.",
                "If your network inspects traffic, name its certificates with --ca-bundle; --insecure checks none.",
            ) from error
        raise EngineError(
            f"The model can't be fetched: {_first_line(error)}.",
            "Check the internet connection, or set HTTPS_PROXY for a proxy; a model's folder from elsewhere does too.",
        ) from error


def _iter_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: Exception) -> str:
    root = list(_iter_causes(error))[-1]
    text = str(root) or type(root).__name__
    return text.split("\n")[0].rstrip(".")[:200]
