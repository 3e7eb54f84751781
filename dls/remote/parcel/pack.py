"""Make a parcel: resolve, fetch, build, write. What was fetched stays beside the parcel until that is complete."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dls import __version__, weights
from dls.errors import TargetError
from dls.remote.host import lock_files
from dls.remote.host.packages import requirements
from dls.remote.host.push_model import ModelFolder, digest_of
from dls.remote.parcel import archive, build
from dls.remote.parcel.download import Downloader
from dls.remote.parcel.format import MODEL, PYTHON, UV, WHEELS, Manifest, PackedFile, is_safe, needed_glibc
from dls.remote.parcel.resolve import Download, Target, Wanted, plan, resolve
from dls.remote.parcel.standalone import find_python
from dls.remote.progress import Phase, Phases, TransferMeter, format_size, show_download

UV_PROGRAM = "uv.gz"
"""Name of the program uv in a parcel."""


@dataclass(frozen=True)
class Order:
    """What is packed."""

    target: Target
    model: weights.ModelSpec | None = None
    """The weights; None for none."""
    with_python: bool = False
    ca_bundle: Path | None = None


class Packing:
    """One parcel that is being made, and the folder beside it that holds what was fetched so far."""

    def __init__(self, order: Order, path: Path, phases: Phases) -> None:
        self._order = order
        self._path = path
        self._phases = phases
        self._downloader = Downloader(ca_bundle=order.ca_bundle)
        self.folder = path.with_name(path.name + ".fetched")
        """Where what was fetched lies until the parcel is complete."""

    def make(self) -> Manifest:
        """Make the parcel; raises FetchError for what can't be fetched, and TargetError for what can't be written."""
        self._order.target.check()
        if self._path.is_dir():
            raise TargetError(f"{self._path} is a folder.", f"Name a file in it: -o {self._path / 'FILE.parcel'}")
        needed = requirements(self._order.target.engine)
        wanted = plan(self._order.target, needed)
        model = self._find_model()
        try:
            for name in (WHEELS, UV, PYTHON):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            downloads = self._resolve(wanted)
            here = self._fetch(downloads)
            manifest = self._describe(wanted, here, model)
            self._write(manifest, model)
        except OSError as error:
            raise TargetError(
                f"{error.filename or self.folder} can't be written: {error.strerror or error}.",
                "Is the disk full or read-only?",
            ) from None
        shutil.rmtree(self.folder, ignore_errors=True)
        return manifest

    def _find_model(self) -> ModelFolder | None:
        """Return the folder with the weights, and fetch them first where they are not here."""
        if self._order.model is None:
            return None
        with self._phases("weights", "Getting the weights") as phase:
            found = ModelFolder(weights.fetch(self._order.model, show_download(phase)))
            for file in found.files:
                if not is_safe(f"{MODEL}/{found.name}/{file.name}"):
                    raise TargetError(f"The model's file {file.name!r} has a name that can't be packed.", "Rename it.")
            size = sum(file.size for file in found.files)
            phase.result = f"The weights {found.name}, {format_size(size)}; licence: {weights.read_license(found.path)}"
        return found

    def _resolve(self, wanted: Wanted) -> dict[str, list[Download]]:
        target, ca_bundle = self._order.target, self._order.ca_bundle
        with self._phases("resolve", f"Choosing packages for {target.platform}, Python {target.python}") as phase:
            found = {WHEELS: resolve(wanted, target, ca_bundle=ca_bundle)}
            # uv's build for musl is linked statically, and runs beside every C library.
            program = Wanted(lock_files.read("uv"))
            found[UV] = resolve(program, target, libc="musl", ca_bundle=ca_bundle)
            if self._order.with_python:
                found[PYTHON] = [find_python(target, self._downloader, ca_bundle=ca_bundle)]
            count = len(found[WHEELS])
            kind = "those of the release's lock file" if wanted.is_locked else "the newest that fit"
            phase.result = f"{count} packages, {kind}, {format_size(_total(found.values()) or 0)}"
        return found

    def _fetch(self, downloads: dict[str, list[Download]]) -> list[Path]:
        """Fetch what is not here yet and return the files that go into the parcel."""
        with self._phases("fetch", "Fetching the packages") as phase:
            total = _total(downloads.values())
            self._check_room(total or 0)
            meter = TransferMeter(phase, "packages", total)
            for folder, files in downloads.items():
                for file in files:
                    self._fetch_one(self.folder / folder / file.name, file, meter)
            meter.show()
            wheels = [self._wheel(file, phase) for file in downloads[WHEELS]]
            program = self.folder / UV / UV_PROGRAM
            build.extract_uv(self.folder / UV / downloads[UV][0].name, program)
            pythons = [self.folder / PYTHON / file.name for file in downloads.get(PYTHON, [])]
            phase.result = f"Fetched {format_size(meter.done)}"
        return [program, *pythons, *sorted(wheels, key=lambda path: path.name)]

    def _check_room(self, size: int) -> None:
        """Raise TargetError where the disk can't hold the rest of the files and the parcel made of them."""
        needed = 2 * size - sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise TargetError(
                f"{self.folder.parent} has {format_size(free)} free; packing needs {format_size(needed)}.",
                "Name a file on another disk with -o.",
            )

    def _fetch_one(self, path: Path, file: Download, meter: TransferMeter) -> None:
        if path.exists() and (not file.sha256 or digest_of(path) == file.sha256):
            meter.add(path.stat().st_size)
        else:
            self._downloader.fetch(file.location, path, file.sha256, meter.add)

    def _wheel(self, file: Download, phase: Phase) -> Path:
        """Return the wheel of a package; that of a source distribution is built where it has not been."""
        path = self.folder / WHEELS / file.name
        if not file.is_source:
            return path
        built = self.folder / "built" / file.name
        found = list(built.glob("*.whl"))
        if not found:
            phase.update(f"building {file.name}")
            built.mkdir(parents=True, exist_ok=True)
            found = [build.build_wheel(path, built, ca_bundle=self._order.ca_bundle)]
        copied = self.folder / WHEELS / found[0].name
        shutil.copyfile(found[0], copied)
        return copied

    def _describe(self, wanted: Wanted, here: list[Path], model: ModelFolder | None) -> Manifest:
        target = self._order.target
        files = [PackedFile(f"{path.parent.name}/{path.name}", path.stat().st_size, digest_of(path)) for path in here]
        if model:
            weighed = [(f"{MODEL}/{model.name}/{file.name}", file) for file in model.files]
            files += [PackedFile(name, file.size, file.sha256) for name, file in weighed]
        wheels = [path for path in here if path.parent.name == WHEELS]
        return Manifest(
            release=__version__, engine=target.engine, requirements=requirements(target.engine).key,
            platform=target.platform, python=target.python, cuda=wanted.cuda,
            glibc=max(needed_glibc(path.name) for path in wheels),
            installed_bytes=sum(build.installed_size(path) for path in wheels), files=tuple(files),
            licence=weights.read_license(model.path)[:200] if model else "",
        )  # fmt: skip

    def _write(self, manifest: Manifest, model: ModelFolder | None) -> None:
        def locate(file: PackedFile) -> Path:
            if file.folder == MODEL and model:
                return model.path / file.base.partition("/")[2]
            return self.folder / file.name

        with self._phases("write", f"Writing {self._path.name}") as phase:
            meter = TransferMeter(phase, "the parcel", manifest.size)
            archive.write(self._path, manifest, locate, meter.add)
            phase.result = f"Wrote {self._path}, {format_size(self._path.stat().st_size)}"


def _total(groups: Iterable[list[Download]]) -> int | None:
    """Return the bytes of all files; None where the index does not say some."""
    sizes = [file.size for files in groups for file in files]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
