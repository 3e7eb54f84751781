"""What a parcel says of itself: the format of parcel.json, its checks, and the lock file that follows from it.

Pure: no files, sockets, clocks or processes. A parcel is trusted like software that its user installs; the checks keep
a damaged or a foreign one from being written anywhere but into its own folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from dls.errors import TargetError
from dls.remote.host.send_files import SentFile

FORMAT = 1
"""Version of the format; a reader refuses every other one."""
MANIFEST = "parcel.json"
"""Name of the first file in a parcel."""
MAX_MANIFEST = 4 << 20
"""Most bytes of parcel.json."""
MAX_FILE = 1 << 40
"""Most bytes of one file: far more than any, and far less than what makes arithmetic in a shell overflow."""
MAX_FILES = 10_000
WHEELS, UV, PYTHON, MODEL = "wheels", "uv", "python", "model"
"""Folders of a parcel: packages, the program uv, a Python, and one folder with a model."""
PLATFORMS = ("linux-x86_64", "linux-aarch64")
"""Platforms for which a parcel can be made."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
"""Versions of Python for which a parcel can be made."""
NO_CUDA = "cpu"
"""What `cuda` says of a parcel whose torch is the build for the CPU."""
WHEEL = re.compile(r"(?P<name>\w[\w.]*)-(?P<version>[\w.!+]+)(-\d\w*)?-[\w.]+-[\w.]+-(?P<tags>[\w.]+)\.whl", re.ASCII)
"""A wheel's name (PEP 427)."""
GLIBC = re.compile(r"manylinux_2_(\d{1,3})_")
OLD_GLIBC = {"manylinux2014": 17, "manylinux2010": 12, "manylinux1": 5}
"""The minor version of glibc that older names of platforms stand for (PEP 600)."""
AGAIN = "Make it again with `dls pack`, or copy it again."
SHA256 = re.compile(r"[0-9a-f]{64}")


class PackedFile(SentFile):
    """One file of a parcel: its name, with `/` between folders, its size in bytes and its digest."""

    @property
    def folder(self) -> str:
        """The parcel's folder in which it lies, which says what it is."""
        return self.name.partition("/")[0]

    @property
    def base(self) -> str:
        """Its name below that folder."""
        return self.name.partition("/")[2]


@dataclass(frozen=True)
class Manifest:
    """The content of parcel.json."""

    release: str
    """The dls that made the parcel."""
    engine: str
    requirements: str
    """Digest of the packages as that dls required them."""
    platform: str
    python: str
    """The version of Python that the packages are for, as `3.11`."""
    cuda: str
    """The version of CUDA that torch is built for, `cpu`, or nothing where no torch is needed."""
    glibc: int
    """Minor version of the oldest glibc 2 that the packages run with."""
    installed_bytes: int
    """Bytes of the packages when they are installed."""
    files: tuple[PackedFile, ...]
    licence: str = ""
    """First line of the weights' licence."""

    @property
    def key(self) -> str:
        """Digest of the whole manifest, and so of every file: the name of its folder on a host."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]

    def files_in(self, folder: str) -> tuple[PackedFile, ...]:
        """Return the files of one of the parcel's folders."""
        return tuple(file for file in self.files if file.folder == folder)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def model(self) -> str:
        """Name of the model whose weights are in the parcel; empty without."""
        return next((file.base.partition("/")[0] for file in self.files_in(MODEL)), "")

    @property
    def lock(self) -> str:
        """The lock file of exactly the packages in the parcel, as uv and pip read it."""
        return "".join(
            f"{match['name'].replace('_', '-').lower()}=={match['version']} --hash=sha256:{file.sha256}\n"
            for file in self.files_in(WHEELS)
            if (match := WHEEL.fullmatch(file.base))
        )

    def to_json(self) -> str:
        """Return the text of parcel.json; equal manifests give equal texts."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Read the text of parcel.json; raises TargetError for one that is damaged, foreign or not to be trusted."""
        try:
            fields = json.loads(text)
            version = fields.pop("format")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            raise damaged("its parcel.json can't be read") from None
        if version != FORMAT:
            raise TargetError(
                f"The parcel has format {str(version)[:20]}; this dls reads format {FORMAT}.",
                "Make it with the release of dls that reads it.",
            )
        try:
            files = tuple(PackedFile(**file) for file in fields.pop("files"))
            manifest = cls(files=files, **fields)
        except (TypeError, KeyError):
            raise damaged("its parcel.json lacks fields, or has unknown ones") from None
        manifest._check()
        return manifest

    def _check(self) -> None:
        texts = (self.release, self.engine, self.requirements, self.cuda, self.licence)
        if not all(isinstance(text, str) and len(text) < 1000 and text.isprintable() for text in texts):
            raise damaged("its parcel.json has odd values")
        if self.platform not in PLATFORMS or self.python not in PYTHONS:
            raise damaged("it is for an unknown platform or Python")
        if not (_is_size(self.glibc) and self.glibc < 1000 and _is_size(self.installed_bytes)):
            raise damaged("its parcel.json has odd numbers")
        if not 0 < len(self.files) <= MAX_FILES:
            raise damaged(f"it lists {len(self.files)} files")
        for file in self.files:
            _check_file(file)
        _check_names([file.name for file in self.files])
        models = {file.base.partition("/")[0] for file in self.files_in(MODEL)}
        if len(self.files_in(UV)) != 1 or len(self.files_in(PYTHON)) > 1 or len(models) > 1:
            raise damaged("it holds no uv, or several of a kind")


def damaged(reason: str) -> TargetError:
    """Return the error for a parcel that can't be used."""
    return TargetError(f"The parcel is damaged, or is none: {reason}.", AGAIN)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_FILE


def _check_file(file: PackedFile) -> None:
    if not isinstance(file.name, str) or not is_safe(file.name):
        raise damaged(f"it names a file {str(file.name)[:100]!r}")
    if not _is_size(file.size):
        raise damaged(f"{file.name} has the size {str(file.size)[:30]}")
    if not isinstance(file.sha256, str) or not SHA256.fullmatch(file.sha256):
        raise damaged(f"{file.name} has no SHA-256")
    if file.folder == WHEELS and not WHEEL.fullmatch(file.base):
        raise damaged(f"{file.name} is no wheel")


def _check_names(names: list[str]) -> None:
    """Raise TargetError for a name that occurs twice, and for one that is a file's and a folder's."""
    seen = set(names)
    folders = {name[:end] for name in names for end, letter in enumerate(name) if letter == "/"}
    if len(seen) != len(names) or seen & folders:
        raise damaged("it has two files of one name")


def is_safe(name: str) -> bool:
    """Return whether a file of that name lies in one of the parcel's folders, and nowhere else, on every system."""
    parts = name.split("/")
    depth = {WHEELS: 2, UV: 2, PYTHON: 2}.get(parts[0])
    if parts[0] not in (WHEELS, UV, PYTHON, MODEL) or (len(parts) != depth if depth else len(parts) < 3):
        return False
    if len(name) > 1000 or not name.isprintable() or any(letter in name for letter in '\\:*?"<>|'):
        return False
    return all(part and not part.startswith(".") and len(part.encode()) <= 200 for part in parts)


def needed_glibc(wheel: str) -> int:
    """Return the minor version of the oldest glibc 2 that the wheel runs with; 0 where it needs none."""
    match = WHEEL.fullmatch(wheel)
    found = []
    for tag in match["tags"].split(".") if match else []:
        if modern := GLIBC.match(tag):
            found.append(int(modern[1]))
        found += [minor for name, minor in OLD_GLIBC.items() if tag.startswith(name + "_")]
    return min(found, default=0)
