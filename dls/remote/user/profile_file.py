"""The file with the profiles of hosts: TOML, with a table for each host, which people edit too.

What a key may be is not known here: `cli/profiles.py` compares it with the options of `dls connect`. Changes are made
in the text, so that comments and other tables stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dls.errors import TargetError
from dls.remote.toml import tomllib
from dls.remote.user.folders import config_folder, write_private

NAME = "hosts.toml"
Values = Mapping[str, object]
WHERE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)")
KEY = re.compile(r"""^\s*(?:"(?P<double>[^"]*)"|'(?P<single>[^']*)'|(?P<bare>[A-Za-z0-9_-]+))\s*=""")


@dataclass(frozen=True)
class ProfileFile:
    """The text of the file, and what it says: the values of each host, as TOML has them."""

    path: Path
    text: str
    hosts: dict[str, dict[str, object]]

    @classmethod
    def read(cls, path: Path | None = None) -> ProfileFile:
        """Read the file, by default the user's; one that is missing is empty. Raises TargetError."""
        path = path or config_folder() / NAME
        try:
            text = path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise TargetError(
                f"The profiles in {path} can't be read ({error}).", "Repair or remove the file."
            ) from error
        return cls.parse(path, text)

    @classmethod
    def parse(cls, path: Path, text: str) -> ProfileFile:
        """Read the text; raises TargetError with the number of a line that is no TOML."""
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            where = WHERE.search(str(error))
            number = int(where[1]) if where and where[1] else len(_split(text))
            raise TargetError(
                f"{path}, line {number}: this is not TOML: {WHERE.sub('', str(error))}.",
                'A table for each host, and its options: ["ann@gpuhost"], then engine = "region" on a line of its own.',
            ) from error
        except RecursionError as error:
            raise TargetError(f"{path} is nested too deep.", "It has one table for each host.") from error
        return cls(path, text, dict(_flatten(found)))

    def line_of(self, host: str, key: str | None = None) -> int:
        """Return the number of the line with the host's key, else of its head; 0 where that is not found."""
        head = 0
        for number, (table, line) in enumerate(self._lines(), 1):
            if table == host:
                head = head or number
                if key is not None and _key_of(line) == key:
                    return number
        return head

    def _lines(self) -> Iterator[tuple[str, str]]:
        """Yield the host to whose table each line belongs, and the line; the head is the first line of its table."""
        table = ""
        for line in _split(self.text):
            table = _table_of(line, table)
            yield table, line

    def with_host(self, host: str, values: Values) -> ProfileFile:
        """Return the file with these values for the host; raises TargetError where only a person can change it."""
        lines, found = list(self._lines()), host in self.hosts
        rendered = [f"{key} = {render(value)}" for key, value in values.items()]
        if not found:
            gap = [""] if self.text.strip() else []
            new = [*(line for _, line in lines), *gap, f"[{render(host)}]", *rendered]
        else:
            start, end = self._extent(host)
            comments = [line for _, line in lines[start + 1 : end] if line.lstrip().startswith("#")]
            new = [line for _, line in [*lines[: start + 1]]]
            new += [*comments, *rendered, *(line for _, line in lines[end:])]
        return self._checked("\n".join(new) + "\n", {**self.hosts, host: dict(values)})

    def without(self, host: str) -> ProfileFile:
        """Return the file without the host's table; raises TargetError where only a person can change it."""
        lines = [line for _, line in self._lines()]
        start, end = self._extent(host)
        before, after = lines[:start], lines[end:]
        while before and not before[-1].strip() and (not after or not after[0].strip()):
            before.pop()
        text = "\n".join([*before, *after])
        return self._checked(text + "\n" if text.strip() else "", {k: v for k, v in self.hosts.items() if k != host})

    def _extent(self, host: str) -> tuple[int, int]:
        """Return the lines of the host's table: of its head, and the one after its last value.

        What stands after that, and before the next head, is about the next one.
        """
        numbers = [number for number, (table, _) in enumerate(self._lines()) if table == host]
        if not numbers:
            raise self._too_hard(host)
        lines = _split(self.text)
        last = max(
            n for n in numbers if n == numbers[0] or (lines[n].strip() and not lines[n].lstrip().startswith("#"))
        )
        return numbers[0], last + 1

    def _checked(self, text: str, hosts: dict[str, dict[str, object]]) -> ProfileFile:
        try:
            changed = self.parse(self.path, text)
        except TargetError:
            changed = None
        if changed is None or changed.hosts != hosts:
            raise self._too_hard("the host")
        return changed

    def _too_hard(self, host: str) -> TargetError:
        return TargetError(f"The profile of {host} in {self.path} can't be changed by dls.", "Edit the file by hand.")

    def write(self) -> None:
        """Write the text to the file, which only the user can read; raises TargetError."""
        try:
            write_private(self.path, self.text)
        except OSError as error:
            raise TargetError(f"The profiles can't be written to {self.path} ({error.strerror}).") from error


def render(value: object) -> str:
    """Return a value as TOML writes it: a text, a number, a truth, or a list of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(render, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _split(text: str) -> list[str]:
    """Return the lines as TOML has them; `splitlines` would end one at other characters too."""
    return text.removesuffix("\n").split("\n") if text else []


def _flatten(tables: Mapping[str, object], name: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each host and its values: [gpu1.example.org] without quotes is a table in tables, and means that host."""
    values = {key: value for key, value in tables.items() if not isinstance(value, dict)}
    inner = {key: value for key, value in tables.items() if isinstance(value, dict)}
    if values or (name and not inner):
        yield name, values
    for key, value in inner.items():
        yield from _flatten(value, f"{name}.{key}" if name else key)


def _table_of(line: str, current: str) -> str:
    """Return the host whose table begins with the line, else the current one."""
    if not line.lstrip().startswith("["):
        return current
    try:
        found = tomllib.loads(line)
    except tomllib.TOMLDecodeError:  # a part of a list
        return current
    return next((name for name, _ in _flatten(found)), current)


def _key_of(line: str) -> str | None:
    found = KEY.match(line)
    return next((each for each in found.groups() if each is not None), None) if found else None
